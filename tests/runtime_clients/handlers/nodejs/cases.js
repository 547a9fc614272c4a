// Handlers for one comparison each: what aws-lambda-ric does with them, Mayfly's runtime must do too.
'use strict';

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

exports.echo = async (event) => event;
exports.context = async (event, context) => {
  const { getRemainingTimeInMillis, ...rest } = context;
  return { rest, keys: Object.keys(context).sort(), left: getRemainingTimeInMillis() > 0, trace: process.env._X_AMZN_TRACE_ID };
};
exports.returnsUndefined = async () => undefined;
exports.returnsFunction = async () => ({ f() {}, d: new Date(0), n: NaN, b: Buffer.from('x') });
exports.returnsCycle = async () => {
  const cycle = {};
  cycle.cycle = cycle;
  return cycle;
};
exports.returnsBigInt = async () => 1n;
exports.raises = async () => {
  throw new TypeError('bad thing: ü\x7f');
};
exports.raisesSync = () => {
  throw new RangeError('sync');
};
exports.raisesString = async () => {
  throw 'just text';
};
exports.raisesObject = async () => {
  throw { code: 1 };
};
exports.raisesNull = async () => {
  throw null;
};
exports.raisesNamed = async () => {
  const error = new Error('named');
  error.name = 'Custom.Name';
  error.extra = { a: 1 };
  throw error;
};
exports.callback = (event, context, callback) => {
  setTimeout(() => callback(null, { from: 'callback' }), 10);
};
exports.callbackError = (event, context, callback) => callback(new Error('from callback'));
exports.callbackErrorText = (event, context, callback) => callback('text from callback');
exports.callbackTwice = (event, context, callback) => {
  callback(null, 1);
  callback(null, 2);
};
exports.callbackThenWaits = (event, context, callback) => {
  callback(null, 'early');
  setTimeout(() => console.log('still running'), 30);
};
exports.callbackAtOnce = (event, context, callback) => {
  context.callbackWaitsForEmptyEventLoop = false;
  setInterval(() => {}, 1000);
  callback(null, 'at once');
};
exports.callbackCycle = (event, context, callback) => {
  const cycle = {};
  cycle.cycle = cycle;
  callback(null, cycle);
};
exports.succeed = (event, context) => context.succeed({ from: 'succeed' });
exports.fail = (event, context) => context.fail(new Error('from fail'));
exports.failEmpty = (event, context) => context.fail();
exports.done = (event, context) => context.done(null, 'done');
exports.returnsValueSync = () => 'ignored';
exports.neverAnswers = () => {};
exports.neverAnswersLater = () => {
  setTimeout(() => {}, 20);
};
exports.unhandledRejection = async () => {
  Promise.reject(new Error('nobody waits'));
  await sleep(5000);
};
exports.uncaught = async () => {
  setTimeout(() => {
    throw new Error('nobody catches');
  }, 1);
  await sleep(5000);
};
exports.exits = async (event) => process.exit(event.code ?? 0);
exports.nested = { deep: { handler: async () => 'nested' } };
exports.notCallable = 5;
exports.logs = async (event) => {
  console.log('text', { a: 1 }, 'more');
  console.log('%s is %d', 'x', 5);
  console.debug('debug');
  console.info({ an: 'object' });
  console.warn('two\nlines');
  console.error('failed:', new TypeError('inner').message);
  console.trace('trace');
  console.log();
  return process.stdout.write('raw\n');
};
exports.logsError = async () => {
  const error = new TypeError('logged');
  error.stack = 'TypeError: logged\n    at somewhere';
  console.error(error);
  console.error('with', error);
  console.log({ error });
};

exports.stream = awslambda.streamifyResponse(async (event, stream) => {
  stream.setContentType('text/plain');
  stream.write('one');
  await sleep(10);
  stream.write(Buffer.from('two'));
  stream.write({ three: 3 });
  stream.end('four');
});
exports.streamHttp = awslambda.streamifyResponse(async (event, stream) => {
  stream = awslambda.HttpResponseStream.from(stream, { statusCode: 201, headers: { 'x-a': 'b' }, cookies: ['c=d'] });
  stream.write('body');
  stream.end();
});
exports.streamPipeline = awslambda.streamifyResponse(async (event, stream) => {
  const { Readable } = require('stream');
  await require('stream/promises').pipeline(Readable.from(['a', 'b', 'c']), stream);
});
exports.streamPipe = awslambda.streamifyResponse(async (event, stream) => {
  require('stream').Readable.from(['p', 'i', 'p', 'e']).pipe(stream); // not awaited: the stream ends later
});
exports.streamEmpty = awslambda.streamifyResponse(async (event, stream) => stream.end());
exports.streamFailsFirst = awslambda.streamifyResponse(async () => {
  throw new Error('before the first byte');
});
exports.streamFailsMiddle = awslambda.streamifyResponse(async (event, stream) => {
  stream.write('part');
  await sleep(10);
  throw new TypeError('in the middle');
});
exports.streamSync = awslambda.streamifyResponse((event, stream) => {
  stream.end('x');
});
exports.streamTypeTooLate = awslambda.streamifyResponse(async (event, stream) => {
  stream.write('x');
  await sleep(1);
  stream.setContentType('text/plain');
});
exports.streamUncaught = awslambda.streamifyResponse(async (event, stream) => {
  stream.write('x');
  setTimeout(() => {
    throw new Error('nobody catches');
  }, 20);
  await sleep(5000);
});
exports.streamMuch = awslambda.streamifyResponse(async (event, stream) => {
  const part = Buffer.alloc(65536, 'x');
  let most = 0;
  for (let i = 0; i < event.parts; i++) {
    const free = stream.write(part);
    most = Math.max(most, stream.writableLength);
    if (!free) await new Promise((resolve) => stream.once('drain', resolve));
  }
  console.log('most buffered', most);
  stream.end();
});
exports.streamNeverEnds = awslambda.streamifyResponse(async (event, stream) => {
  stream.write('part');
});
