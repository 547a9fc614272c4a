// Mayfly's Lambda runtime for Node.js 18 and later, in one file without dependencies.
//
// Two channels to the platform, with the same methods: frames over the control pipes (docs/formats/framed-protocol.md), and the Runtime
// API over one keep-alive connection with a small HTTP/1.1 parser instead of node:http, where there are no pipes. Console output goes
// through fs.writeSync. While a handler runs the channel is unreferenced, so that an empty event loop is seen
// (callbackWaitsForEmptyEventLoop, handlers that never answer); not where several run at once, when there is always something to wait for.
// Shapes of errors, log lines and contexts follow the public behaviour of AWS's own client (see tests/runtime_clients):
// "classic" is what Lambda's Node 16 to 22 runtimes do, "modern" is Node 24 and later (no callbacks, a plain return value answers).
'use strict';

const net = require('net');
const fs = require('fs');
const path = require('path');

const API = '/2018-06-01/runtime/';
const HEADER_BYTES_MAX = 1 << 20;
const XRAY_CAUSE_BYTES_MAX = 16384; // a longer cause is left out: it would not fit the header limit of common HTTP servers
const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');
const REQUEST_ID = Symbol.for('aws.lambda.runtime.requestId');
const TENANT_ID = Symbol.for('aws.lambda.runtime.tenantId');
const INTEGRATION_TYPE = 'application/vnd.awslambda.http-integration-response';

const env = process.env;
// Of the function, once it is known:
let modern = false;
let jsonLog = false;
let facts = {};
let runsAtOnce = null; // an AsyncLocalStorage of what runs, where several invocations do at once

function learnFunction() {
  const lambdaNode = /^AWS_Lambda_nodejs(\d+)\.x$/.exec(env.AWS_EXECUTION_ENV || '');
  modern = Number(lambdaNode ? lambdaNode[1] : process.versions.node.split('.')[0]) >= 24;
  jsonLog = (env.AWS_LAMBDA_LOG_FORMAT || '').toUpperCase() === 'JSON';
  facts = {
    functionVersion: env.AWS_LAMBDA_FUNCTION_VERSION,
    functionName: env.AWS_LAMBDA_FUNCTION_NAME,
    memoryLimitInMB: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: env.AWS_LAMBDA_LOG_STREAM_NAME,
  };
}

// Makes this process, booted ahead of time, that of a function: what a fresh one has from its start.
// A variable that is right already is left alone: setting TZ anew makes Node search all time zones for its own, for 30 ms.
function become(variables, directory) {
  const wanted = new Map();
  for (const variable of variables) {
    const at = variable.indexOf('=');
    wanted.set(variable.slice(0, at), variable.slice(at + 1));
  }
  for (const name of Object.keys(env)) if (!wanted.has(name)) delete env[name];
  for (const [name, value] of wanted) if (env[name] !== value) env[name] = value;
  process.chdir(directory);
  require('module').Module._initPaths(); // NODE_PATH
}

// ------------------------------------------------------------------------------------------------------------- errors

function namedError(name) {
  const kind = class extends Error {};
  Object.defineProperty(kind, 'name', { value: name });
  Object.defineProperty(kind.prototype, 'name', { value: 'Runtime.' + name });
  return kind;
}

const ImportModuleError = namedError('ImportModuleError');
const HandlerNotFound = namedError('HandlerNotFound');
const MalformedHandlerName = namedError('MalformedHandlerName');
const UserCodeSyntaxError = namedError('UserCodeSyntaxError');
const MalformedStreamingHandler = namedError('MalformedStreamingHandler');
const InvalidStreamingOperation = namedError('InvalidStreamingOperation');
const UnhandledPromiseRejection = namedError('UnhandledPromiseRejection');
const CallbackHandlerDeprecated = namedError('CallbackHandlerDeprecated');
const JSONStringifyError = namedError('JSONStringifyError');

const cleaned = (text) => (typeof text === 'string' ? text.replace(/\x7f/g, '%7F') : text);

function isError(value) {
  if (value instanceof Error || require('util').types.isNativeError(value)) return true; // the second is for errors of vm contexts
  return Boolean(value) && typeof value.name === 'string' && typeof value.message === 'string' && typeof value.stack === 'string';
}

// The JSON that Lambda knows as an error.
function describe(error) {
  try {
    if (!isError(error)) return { errorType: typeof error, errorMessage: String(error), trace: [] };
    const trace = typeof error.stack === 'string' ? cleaned(error.stack).split('\n') : [];
    return { errorType: cleaned(error.name), errorMessage: cleaned(error.message), trace };
  } catch {
    return {
      errorType: 'handled',
      errorMessage:
        'callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack',
      trace: [],
    };
  }
}

function xrayCause(error) {
  try {
    const stack = [];
    for (const line of cleaned(error.stack || '').split('\n').slice(1)) {
      const found = /^\s*at (?:(.*) \()?(.*?):(\d+)(?::\d+)?\)?$/.exec(line);
      if (found) stack.push({ path: found[2], line: Number(found[3]), label: found[1] || 'anonymous' });
    }
    const exceptions = [{ type: cleaned(error.name), message: cleaned(error.message), stack }];
    const cause = { working_directory: process.cwd(), exceptions, paths: [...new Set(stack.map((frame) => frame.path))] };
    // Headers are ASCII without line breaks; JSON can say every other character as an escape.
    return JSON.stringify(cause).replace(/[^ -~]/g, (c) => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
  } catch {
    return '';
  }
}

function toJson(value) {
  try {
    const text = JSON.stringify(value === undefined ? null : value);
    return text === undefined ? 'null' : text; // a function or a symbol
  } catch {
    throw modern ? new JSONStringifyError('Unable to stringify response body') : new Error('Unable to stringify response body');
  }
}

// --------------------------------------------------------------------------------------------------------------- logs

const LEVELS = {
  TRACE: { name: 'TRACE', priority: 1, bits: 4 },
  DEBUG: { name: 'DEBUG', priority: 2, bits: 8 },
  INFO: { name: 'INFO', priority: 3, bits: 12 },
  WARN: { name: 'WARN', priority: 4, bits: 16 },
  ERROR: { name: 'ERROR', priority: 5, bits: 20 },
  FATAL: { name: 'FATAL', priority: 6, bits: 24 },
};

function writeFully(fd, buffer) {
  for (let at = 0; at < buffer.length; ) {
    try {
      at += fs.writeSync(fd, buffer, at);
    } catch (error) {
      if (error.code === 'EPIPE' || error.code === 'EBADF') return; // nobody reads the log any more: the answer matters more
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1); // the pipe is full: wait a millisecond for its reader
    }
  }
}

function errorReplacer(_, value) {
  if (!(value instanceof Error)) return value;
  const fields = { errorType: value.constructor?.name ?? 'UnknownError', errorMessage: value.message };
  fields.stackTrace = typeof value.stack === 'string' ? value.stack.split('\n') : value.stack;
  return Object.assign(fields, value);
}

function jsonLine(time, level, parameters) {
  const { format } = require('util');
  const record = { timestamp: time, level: level.name, requestId: globalThis[REQUEST_ID] };
  if (globalThis[TENANT_ID]) record.tenantId = globalThis[TENANT_ID];
  if (parameters.length === 1) {
    record.message = parameters[0];
    try {
      return JSON.stringify(record, errorReplacer);
    } catch {
      record.message = format(record.message);
      return JSON.stringify(record);
    }
  }
  record.message = format(...parameters);
  const error = parameters.find((parameter) => parameter instanceof Error);
  if (error) {
    record.errorType = error.constructor?.name ?? 'UnknownError';
    record.errorMessage = error.message;
    record.stackTrace = typeof error.stack === 'string' ? error.stack.split('\n') : [];
  }
  return JSON.stringify(record);
}

function textLine(time, level, parameters) {
  const text = parameters.length === 1 && typeof parameters[0] === 'string' ? parameters[0] : require('util').format(...parameters);
  return `${time}\t${globalThis[REQUEST_ID]}\t${level.name}\t${text}`;
}

function takeLogDescriptor() {
  const number = env._LAMBDA_TELEMETRY_LOG_FD ?? env.LAMBDA_TELEMETRY_LOG_FD;
  delete env._LAMBDA_TELEMETRY_LOG_FD;
  delete env.LAMBDA_TELEMETRY_LOG_FD;
  return number;
}

function makeLog(number) {
  const makeLine = jsonLog ? jsonLine : textLine;
  if (!/^\d+$/.test(number ?? '')) {
    // Lines of one message are kept together by carriage returns: the pipe knows only lines.
    return (level, parameters) => {
      const line = makeLine(new Date().toISOString(), level, parameters).replace(/\n/g, '\r');
      writeFully(1, Buffer.from(line + '\n'));
    };
  }
  const fd = Number(number);
  const type = jsonLog ? 0xa55a0002 : 0xa55a0003;
  return (level, parameters) => {
    const now = new Date();
    const text = Buffer.from(makeLine(now.toISOString(), level, parameters) + (jsonLog ? '' : '\n'));
    const frame = Buffer.allocUnsafe(16 + text.length);
    frame.writeUInt32BE((type | level.bits) >>> 0, 0);
    frame.writeUInt32BE(text.length, 4);
    frame.writeBigInt64BE(BigInt(now.getTime()) * 1000n, 8);
    text.copy(frame, 16);
    writeFully(fd, frame);
  };
}

function patchConsole(descriptor) {
  const log = makeLog(descriptor);
  const least = (LEVELS[(env.AWS_LAMBDA_LOG_LEVEL || '').toUpperCase()] ?? LEVELS.TRACE).priority;
  const nothing = () => {};
  const method = (level) => (level.priority < least ? nothing : (message, ...rest) => log(level, [message, ...rest]));
  console.trace = method(LEVELS.TRACE);
  console.debug = method(LEVELS.DEBUG);
  console.info = method(LEVELS.INFO);
  console.log = console.info;
  console.warn = method(LEVELS.WARN);
  console.error = method(LEVELS.ERROR);
  console.fatal = method(LEVELS.FATAL);
}

function logError(title, error) {
  error = isError(error) ? error : new Error(String(error));
  if (jsonLog) {
    console.error(error);
    return;
  }
  const flat = (_, value) => {
    if (!(value instanceof Error)) return value;
    const fields = Object.assign({ errorType: value.name, errorMessage: value.message, code: value.code }, value);
    if (typeof value.stack === 'string') fields.stack = value.stack.split('\n');
    return fields;
  };
  let text;
  try {
    text = JSON.stringify(error, flat);
  } catch {
    text = JSON.stringify(describe(error));
  }
  console.error(title, '\t' + text);
}

// ------------------------------------------------------------------------------------------------------------- frames

const HELLO = 1;
const READY = 2;
const INIT_ERROR = 3;
const RESPONSE = 4;
const ERROR = 5;
const RESPONSE_BEGIN = 6;
const CHUNK = 7;
const END = 8;
const LEAVING = 9;
const INIT = 16;
const INVOKE = 17;
const CREDIT = 18;
const REFUSED = 19;
const HEAD_BYTES = 12;
const INVOKE_BYTES = 28; // in front of its texts
const SMALL_BYTES = 65536;
const CHUNK_BYTES_MAX = 65536;

// Frames over the control pipes. An invocation is {run, id, arn, deadline, trace, clientContext, identity, tenantId, text}.
class Pipes {
  constructor(fdIn, fdOut) {
    this.fdIn = fdIn;
    this.fdOut = fdOut;
    this.out = Buffer.allocUnsafeSlow(SMALL_BYTES);
    this.rest = null; // of a frame that has not come whole
    this.streams = new Map(); // by run
    this.window = 0;
    this.onInvocation = null;
    this.socket = null;
    this.serving = false;
    this.leaving = false;
    this.newest = 0; // run that was taken
  }

  // Says hello and waits until it is known which function this is; the variables and all that follows from them are set then.
  begin() {
    this.send(HELLO, 0, '\x01\0\0\0\x01\0\0\0mayfly-nodejs/' + process.versions.node);
    let data = Buffer.alloc(0);
    const part = Buffer.allocUnsafe(SMALL_BYTES);
    while (data.length < HEAD_BYTES || data.length < HEAD_BYTES + data.readUInt32LE(0)) {
      const count = fs.readSync(this.fdIn, part);
      if (count === 0) process.exit(1); // nobody needs this process any more
      data = Buffer.concat([data, part.subarray(0, count)]);
    }
    if (data.readUInt32LE(4) !== INIT) throw new Error(`the platform sent a frame of type ${data.readUInt32LE(4)} instead of INIT`);
    const flags = data.readUInt32LE(HEAD_BYTES + 4);
    const concurrency = data.readUInt32LE(HEAD_BYTES + 8);
    this.window = data.readUInt32LE(HEAD_BYTES + 12);
    if (flags & 1) {
      let at = HEAD_BYTES + 32;
      const text = () => {
        const begin = at + 4;
        at = begin + data.readUInt32LE(at);
        return data.utf8Slice(begin, at);
      };
      const directory = text();
      const count = data.readUInt32LE(at);
      at += 4;
      become(Array.from({ length: count }, text), directory);
    }
    if (concurrency > 1) {
      runsAtOnce = new (require('async_hooks').AsyncLocalStorage)();
      for (const [symbol, name] of [[REQUEST_ID, 'id'], [TENANT_ID, 'tenantId']]) {
        Object.defineProperty(globalThis, symbol, { configurable: true, get: () => runsAtOnce.getStore()?.[name] });
      }
    }
    const buffer = Buffer.allocUnsafeSlow(SMALL_BYTES);
    const onread = { buffer, callback: (count) => this.receive(buffer, count) };
    this.socket = new net.Socket({ fd: this.fdIn, readable: true, writable: false, onread });
    this.socket.on('error', () => process.exit(1));
    this.socket.on('end', () => process.exit(1));
  }

  // Calls `onInvocation` for every invocation from now on.
  serve(onInvocation) {
    this.onInvocation = onInvocation;
    this.serving = true;
    this.send(READY, 0, '');
  }

  // What is answered from here on asks for no other invocation: this process is about to end. It takes none that is on its way.
  leave() {
    if (!this.serving) return;
    this.leaving = true;
    this.out.writeUInt32LE(this.newest, HEAD_BYTES);
    this.writeFrame(LEAVING, 0, this.out, 4);
  }

  idle() {
    if (runsAtOnce === null) this.socket.unref();
  }

  busy() {
    this.socket.ref();
  }

  // `body` is a string. Waits while the pipe is full; the platform always reads it.
  send(type, run, body) {
    let { out } = this;
    let length;
    if (body.length * 3 <= SMALL_BYTES - HEAD_BYTES) {
      length = out.utf8Write(body, HEAD_BYTES);
    } else {
      length = Buffer.byteLength(body);
      out = Buffer.allocUnsafe(HEAD_BYTES + length);
      out.utf8Write(body, HEAD_BYTES);
    }
    this.writeFrame(type, run, out, length);
  }

  // `out` has room for the head in front of the body.
  writeFrame(type, run, out, length) {
    out.writeUInt32LE(length, 0);
    out.writeUInt32LE(type, 4);
    out.writeUInt32LE(run, 8);
    const sent = fs.writeSync(this.fdOut, out, 0, HEAD_BYTES + length);
    if (sent < HEAD_BYTES + length) writeFully(this.fdOut, out.subarray(sent, HEAD_BYTES + length));
  }

  receive(buffer, count) {
    let data = buffer;
    let end = count;
    if (this.rest !== null) {
      this.rest.parts.push(Buffer.from(buffer.subarray(0, count)));
      this.rest.size += count;
      if (this.rest.size < this.rest.wanted) return true;
      data = Buffer.concat(this.rest.parts);
      end = data.length;
      this.rest = null;
    }
    let at = 0;
    while (end - at >= HEAD_BYTES) {
      const next = at + HEAD_BYTES + data.readUInt32LE(at);
      if (next > end) break;
      this.take(data, at, next);
      at = next;
    }
    if (at < end) {
      const wanted = end - at >= HEAD_BYTES ? HEAD_BYTES + data.readUInt32LE(at) : HEAD_BYTES;
      this.rest = { parts: [Buffer.from(data.subarray(at, end))], size: end - at, wanted };
    }
    return true;
  }

  take(data, at, end) {
    const type = data.readUInt32LE(at + 4);
    const run = data.readUInt32LE(at + 8);
    at += HEAD_BYTES;
    if (type === INVOKE) {
      if (this.leaving) return;
      this.newest = run;
      const id = at + INVOKE_BYTES;
      const arn = id + data.readUInt32LE(at + 8);
      const trace = arn + data.readUInt32LE(at + 12);
      const context = trace + data.readUInt32LE(at + 16);
      const identity = context + data.readUInt32LE(at + 20);
      const event = identity + data.readUInt32LE(at + 24);
      const texts = data.utf8Slice(id, context);
      const oneByteEach = texts.length === context - id; // then bytes are counted as characters are
      this.onInvocation({
        run,
        id: oneByteEach ? texts.slice(0, arn - id) : data.utf8Slice(id, arn),
        arn: oneByteEach ? texts.slice(arn - id, trace - id) : data.utf8Slice(arn, trace),
        deadline: data.readUInt32LE(at) + data.readInt32LE(at + 4) * 4294967296,
        trace: oneByteEach ? texts.slice(trace - id) : data.utf8Slice(trace, context),
        clientContext: context === identity ? '' : data.utf8Slice(context, identity),
        identity: identity === event ? '' : data.utf8Slice(identity, event),
        tenantId: undefined,
        text: data.utf8Slice(event, end),
        stream: undefined,
      });
    } else if (type === CREDIT) {
      this.streams.get(run)?.addCredit(data.readUInt32LE(at));
    } else if (type === REFUSED) {
      const reason = data.utf8Slice(at, end);
      const stream = this.streams.get(run);
      if (stream) stream.refuse(reason);
      else writeFully(2, Buffer.from(`The platform refused the response of an invocation: ${reason}\n`));
    }
  }

  answer(invocation, text) {
    if (runsAtOnce === null) this.socket.ref(); // now the platform has the word
    this.send(RESPONSE, invocation.run, text);
  }

  async fail(invocation, error) {
    if (runsAtOnce === null) this.socket.ref();
    const described = describe(error);
    this.sendError(ERROR, invocation.run, described, toJson(described));
  }

  async failInit(error) {
    if (this.serving) return; // nothing runs that it could be the error of
    const described = describe(error);
    this.sendError(INIT_ERROR, 0, described, toJson(described));
  }

  sendError(type, run, described, document) {
    const name = Buffer.from(String(described.errorType)).subarray(0, 1024);
    const body = Buffer.from(document);
    const out = Buffer.allocUnsafe(HEAD_BYTES + 4 + name.length + body.length);
    out.writeUInt32LE(name.length, HEAD_BYTES);
    name.copy(out, HEAD_BYTES + 4);
    body.copy(out, HEAD_BYTES + 4 + name.length);
    this.writeFrame(type, run, out, out.length - HEAD_BYTES);
  }

  openStream(invocation) {
    return new PipeStream(this, invocation.run);
  }
}

// The way of a streamed response over the pipes, no faster than the platform gives credit.
class PipeStream {
  constructor(pipes, run) {
    this.pipes = pipes;
    this.run = run;
    this.credit = pipes.window;
    this.waiting = null; // {data, callback} that credit is missing for
    this.ended = false;
    pipes.streams.set(run, this);
  }

  // `onEnded(reason)` is called once when the platform wants no more: null when all was said, else why.
  begin(contentType, onEnded) {
    this.onEnded = onEnded;
    this.pipes.send(RESPONSE_BEGIN, this.run, contentType.slice(0, 300));
  }

  write(chunks, callback) {
    if (this.ended) return callback(new Error('the response has ended'));
    this.push(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks), callback);
  }

  push(data, callback) {
    let at = 0;
    while (at < data.length && this.credit > 0) {
      const size = Math.min(data.length - at, this.credit, CHUNK_BYTES_MAX);
      const out = size <= SMALL_BYTES - HEAD_BYTES ? this.pipes.out : Buffer.allocUnsafe(HEAD_BYTES + size);
      data.copy(out, HEAD_BYTES, at, at + size);
      this.pipes.writeFrame(CHUNK, this.run, out, size);
      this.credit -= size;
      at += size;
    }
    if (at === data.length) {
      this.pipes.idle();
      return callback();
    }
    this.pipes.busy();
    this.waiting = { data: data.subarray(at), callback };
  }

  addCredit(bytes) {
    this.credit += bytes;
    if (this.waiting === null) return;
    const { data, callback } = this.waiting;
    this.waiting = null;
    this.push(data, callback);
  }

  // With an error that broke the response off, or null.
  end(error, callback) {
    if (!this.ended) {
      this.finish(error);
      this.onEnded(null);
    }
    callback();
  }

  refuse(reason) {
    this.finish(null);
    const waiting = this.waiting;
    this.waiting = null;
    this.onEnded(reason);
    if (waiting) waiting.callback(new Error('the response was refused'));
  }

  finish(error) {
    this.ended = true;
    this.pipes.streams.delete(this.run);
    this.pipes.busy();
    if (error === null) this.pipes.send(END, this.run, '');
    else this.pipes.sendError(END, this.run, error, JSON.stringify(error));
  }
}

// --------------------------------------------------------------------------------------------------------------- HTTP

const LINE_END = Buffer.from('\r\n');
const HEAD_END = Buffer.from('\r\n\r\n');
const excerpt = (answer) => answer.body.toString().slice(0, 300).trim();
const headerSafe = (value) => String(value).replace(/[^ -~]/g, '?');

// One keep-alive HTTP/1.1 connection to the Runtime API; one exchange at a time.
class Connection {
  constructor(address) {
    const colon = address.lastIndexOf(':');
    this.host = address.slice(0, colon).replace(/^\[|\]$/g, '');
    this.port = Number(address.slice(colon + 1));
    this.common = `Host: ${address}\r\nUser-Agent: mayfly-nodejs/${process.versions.node}\r\n`;
    this.nextHead = `GET ${API}invocation/next HTTP/1.1\r\n${this.common}\r\n`;
    this.socket = null;
    this.waiting = null; // {resolve, reject, retry} of the exchange under way
    this.parts = [];
    this.size = 0;
    this.head = null;
  }

  connect() {
    const socket = net.connect({ host: this.host, port: this.port, noDelay: true });
    this.socket = socket;
    this.parts = [];
    this.size = 0;
    this.head = null;
    socket.on('data', (data) => this.receive(socket, data));
    socket.on('error', (error) => this.lost(socket, error));
    socket.on('close', () => this.lost(socket, new Error('the Runtime API closed the connection')));
  }

  // A kept connection may have been closed meanwhile: such an exchange is tried once more on a fresh one.
  lost(socket, error) {
    if (socket !== this.socket) return;
    this.socket = null;
    socket.destroy();
    const waiting = this.waiting;
    if (!waiting) return;
    if (waiting.again !== null && this.size === 0 && this.head === null) {
      const again = waiting.again;
      waiting.again = null;
      this.connect();
      for (const data of again) this.socket.write(data);
      return;
    }
    this.waiting = null;
    waiting.reject(error);
  }

  // Sends `pieces` and resolves to {status, headers, body}. With repeatable false a lost connection is an error at once.
  exchange(pieces, repeatable = true) {
    return new Promise((resolve, reject) => {
      const fresh = this.socket === null;
      this.waiting = { resolve, reject, again: fresh || !repeatable ? null : pieces };
      if (fresh) this.connect();
      else this.socket.ref();
      if (pieces.length > 1) this.socket.cork();
      for (const data of pieces) this.socket.write(data);
      if (pieces.length > 1) this.socket.uncork();
    });
  }

  // While the function has the word, the connection alone does not keep the process alive.
  idle() {
    if (this.socket) this.socket.unref();
  }

  receive(socket, data) {
    if (socket !== this.socket) return;
    this.parts.push(data);
    this.size += data.length;
    if (this.head !== null && !this.head.chunked && this.size < this.head.length) return;
    const all = this.parts.length === 1 ? this.parts[0] : Buffer.concat(this.parts, this.size);
    this.parts = [all];
    let start = 0;
    if (this.head === null) {
      const end = all.indexOf(HEAD_END);
      if (end < 0) {
        if (all.length > HEADER_BYTES_MAX) this.lost(socket, new Error('the Runtime API sent too long a header'));
        return;
      }
      this.head = this.parseHead(all.latin1Slice(0, end));
      start = end + 4;
      this.parts = [all.subarray(start)];
      this.size = all.length - start;
    }
    this.finish(socket);
  }

  parseHead(text) {
    const lines = text.split('\r\n');
    const headers = {};
    for (let i = 1; i < lines.length; i++) {
      const colon = lines[i].indexOf(':');
      headers[lines[i].slice(0, colon).toLowerCase()] = lines[i].slice(colon + 1).trim();
    }
    const chunked = (headers['transfer-encoding'] || '').toLowerCase() === 'chunked';
    return { status: Number(lines[0].split(' ', 2)[1]), headers, chunked, length: Number(headers['content-length'] || 0) };
  }

  finish(socket) {
    const { head } = this;
    let body = this.parts[0];
    if (head.chunked) {
      body = joinChunks(body);
      if (body === null) return;
    } else {
      if (body.length < head.length) return;
      body = body.subarray(0, head.length);
    }
    this.parts = [];
    this.size = 0;
    this.head = null;
    if ((head.headers.connection || '').toLowerCase() === 'close') {
      this.socket = null;
      socket.destroy();
    }
    const waiting = this.waiting;
    this.waiting = null;
    if (waiting) waiting.resolve({ status: head.status, headers: head.headers, body });
  }

  begin() {}

  async serve(onInvocation) {
    for (;;) {
      const answer = await this.exchange([this.nextHead]);
      if (answer.status !== 200) throw new Error(`the Runtime API answered ${answer.status} to next: ${excerpt(answer)}`);
      this.idle();
      const { headers } = answer;
      await onInvocation({
        id: headers['lambda-runtime-aws-request-id'],
        arn: headers['lambda-runtime-invoked-function-arn'],
        deadline: Number(headers['lambda-runtime-deadline-ms']),
        trace: headers['lambda-runtime-trace-id'],
        clientContext: utf8(headers['lambda-runtime-client-context']),
        identity: utf8(headers['lambda-runtime-cognito-identity']),
        tenantId: headers['lambda-runtime-aws-tenant-id'],
        text: answer.body.toString(),
      });
      await new Promise(setImmediate); // what the function left to be done gets its turn, as between two events on Lambda
    }
  }

  busy() {
    if (this.socket) this.socket.ref();
  }

  answer(invocation, text) {
    return this.post(`invocation/${encodeURIComponent(invocation.id)}/response`, text);
  }

  // An exchange under way belongs to the invocation's answer: a report must not be mixed with it.
  own() {
    return this.waiting ? new Connection(this.host + ':' + this.port) : this;
  }

  fail(invocation, error) {
    const described = describe(error);
    const where = `invocation/${encodeURIComponent(invocation.id)}/error`;
    return this.own().post(where, toJson(described), errorHeaders(described, error));
  }

  leave() {}

  failInit(error) {
    const described = describe(error);
    const header = `Lambda-Runtime-Function-Error-Type: ${headerSafe(described.errorType)}\r\n`;
    return this.own().post('init/error', toJson(described), header);
  }

  openStream(invocation) {
    if (this.socket === null) this.connect();
    return new HttpStream(this, invocation.id);
  }

  async post(where, text, headers = '') {
    const bytes = Buffer.byteLength(text);
    const type = `Content-Type: application/json\r\nContent-Length: ${bytes}\r\n`;
    const head = `POST ${API}${where} HTTP/1.1\r\n${this.common}${type}${headers}\r\n`;
    const answer = await this.exchange(bytes < 65536 ? [head + text] : [head, text]);
    if (answer.status >= 300) {
      writeFully(2, Buffer.from(`The Runtime API refused ${where} (HTTP ${answer.status}): ${excerpt(answer)}\n`));
    }
    return answer;
  }
}

// The decoded body when all of it is there, else null.
function joinChunks(data) {
  const parts = [];
  for (let at = 0; ; ) {
    const end = data.indexOf(LINE_END, at);
    if (end < 0) return null;
    const size = parseInt(data.latin1Slice(at, end), 16);
    if (size === 0) return data.indexOf(LINE_END, end + 2) === end + 2 || data.indexOf(HEAD_END, end) >= 0 ? Buffer.concat(parts) : null;
    if (data.length < end + 4 + size) return null;
    parts.push(data.subarray(end + 2, end + 2 + size));
    at = end + 4 + size;
  }
}

function errorHeaders(described, error) {
  let headers = `Lambda-Runtime-Function-Error-Type: ${headerSafe(described.errorType)}\r\n`;
  const cause = isError(error) ? xrayCause(error) : '';
  if (cause && cause.length <= XRAY_CAUSE_BYTES_MAX) headers += `Lambda-Runtime-Function-XRay-Error-Cause: ${cause}\r\n`;
  return headers;
}

// Header values are read as latin-1; the platform writes UTF-8.
const utf8 = (text) => text && Buffer.from(text, 'latin1').toString();

// The way of a streamed response over HTTP: bytes go out as chunks, no faster than the socket takes them.
class HttpStream {
  constructor(connection, id) {
    this.connection = connection;
    this.id = id;
    this.head = '';
    this.ended = false;
  }

  begin(contentType, onEnded) {
    this.head =
      `POST ${API}invocation/${encodeURIComponent(this.id)}/response HTTP/1.1\r\n${this.connection.common}` +
      `Content-Type: ${headerSafe(contentType)}\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n` +
      'Transfer-Encoding: chunked\r\nTrailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n';
    this.connection.exchange([], false).then(
      (answer) => onEnded(this.ended ? null : `HTTP ${answer.status}: ${excerpt(answer)}`),
      (error) => onEnded(error.message),
    );
  }

  write(chunks, callback) {
    let total = 0;
    for (const chunk of chunks) total += chunk.length;
    this.send(total > 0 ? [total.toString(16) + '\r\n', ...chunks, '\r\n'] : [], callback);
  }

  end(error, callback) {
    this.ended = true;
    let trailers = '';
    if (error !== null) {
      const body = Buffer.from(JSON.stringify(error)).toString('base64');
      trailers =
        `Lambda-Runtime-Function-Error-Type: ${headerSafe(error.errorType)}\r\nLambda-Runtime-Function-Error-Body: ${body}\r\n`;
    }
    this.send([`0\r\n${trailers}\r\n`], (failure) => {
      this.connection.busy(); // now the platform has the word
      callback(failure);
    });
  }

  // Calls back when the socket's buffer is free again; the socket counts as busy until then.
  send(pieces, callback) {
    const { socket } = this.connection;
    if (!socket) return callback(new Error('the Runtime API closed the connection'));
    socket.ref();
    socket.cork();
    let flowing = true;
    for (const piece of [this.head, ...pieces]) if (piece.length) flowing = socket.write(piece);
    this.head = '';
    socket.uncork();
    if (flowing) {
      this.connection.idle();
      return callback();
    }
    const settle = (error) => {
      socket.off('drain', drained);
      socket.off('close', closed);
      this.connection.idle();
      callback(error);
    };
    const drained = () => settle();
    const closed = () => settle(new Error('the Runtime API closed the connection'));
    socket.on('drain', drained);
    socket.on('close', closed);
  }
}

// ----------------------------------------------------------------------------------------------------------- streaming

let ResponseStream = null;

// Made when a streaming function is there: a Writable whose bytes go the way that the channel opened.
function responseStreamClass() {
  if (ResponseStream) return ResponseStream;
  const { Writable } = require('stream');
  ResponseStream = class extends Writable {
    constructor(way, highWaterMark) {
      super(highWaterMark === undefined ? { decodeStrings: true } : { decodeStrings: true, highWaterMark });
      this._way = way;
      this._contentType = 'application/octet-stream';
      this._begun = false;
      this._ended = false;
      this._error = null;
      this.answered = new Promise((resolve) => (this._resolveAnswer = resolve)); // with null, or why it was refused
      this.on('error', () => {}); // told to the platform by the runtime; must not end the process when nobody listens
    }

    setContentType(type) {
      if (this._begun || this._written) throw new InvalidStreamingOperation('Cannot set content-type, too late.');
      this._contentType = type;
    }

    write(chunk, encoding, callback) {
      if (chunk === null) return super.write(chunk, encoding, callback); // says what Writable says
      if (typeof chunk !== 'string' && !(chunk instanceof Uint8Array)) chunk = JSON.stringify(chunk);
      this._prelude();
      return super.write(chunk, encoding, callback);
    }

    end(chunk, encoding, callback) {
      if (typeof chunk !== 'function' && chunk !== undefined && chunk !== null) {
        this.write(chunk, typeof encoding === 'string' ? encoding : undefined);
      }
      const done = [chunk, encoding, callback].find((value) => typeof value === 'function');
      return super.end(done);
    }

    _prelude() {
      if (this._written) return;
      this._written = true;
      if (typeof this._onBeforeFirstWrite === 'function') this._onBeforeFirstWrite((bytes) => super.write(bytes));
    }

    _begin() {
      if (this._begun) return;
      this._begun = true;
      this._way.begin(this._contentType, (reason) => {
        if (reason !== null) this.destroy(new Error(`The platform ended the response stream early: ${reason}`));
        if (reason !== null || this.writableFinished) this._resolveAnswer(reason);
        else this.once('finish', () => this._resolveAnswer(null));
      });
    }

    _write(chunk, _, callback) {
      this._writev([{ chunk }], callback);
    }

    _writev(chunks, callback) {
      this._begin();
      this._way.write(chunks.map(({ chunk }) => chunk), callback);
    }

    _final(callback) {
      this._begin();
      this._ended = true;
      this._way.end(this._error, callback);
    }

    // Ends the response with the error, as far as it can still be said.
    fail(error) {
      if (this._ended) return;
      this._error = describe(error);
      if (!this.destroyed) {
        this.end();
      } else if (this._begun) {
        this._ended = true;
        this._way.end(this._error, () => this._resolveAnswer(null));
      }
    }
  };
  return ResponseStream;
}

class HttpResponseStream {
  static from(stream, prelude) {
    stream.setContentType(INTEGRATION_TYPE);
    const text = JSON.stringify(prelude);
    stream._onBeforeFirstWrite = (write) => {
      write(Buffer.concat([Buffer.from(text), Buffer.alloc(8)]));
    };
    return stream;
  }
}

function defineGlobals() {
  if (['1', 'true'].includes(env.AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA)) return;
  const streamifyResponse = (handler, options) => {
    handler[STREAMING] = 'response';
    if (typeof options?.highWaterMark === 'number') handler[HIGH_WATER_MARK] = Math.trunc(options.highWaterMark);
    return handler;
  };
  globalThis.awslambda = Object.assign(globalThis.awslambda || {}, { streamifyResponse, HttpResponseStream });
}

// --------------------------------------------------------------------------------------------------- finding the handler

const importFile = (file) => import(require('url').pathToFileURL(file).href);

// Whether a .js file there is an ES module: the nearest package.json says so.
function isModuleFolder(folder) {
  for (; ; folder = path.dirname(folder)) {
    if (path.basename(folder) === 'node_modules') return false;
    let text;
    try {
      text = fs.readFileSync(path.join(folder, 'package.json'), 'utf8');
    } catch {
      if (folder === path.dirname(folder)) return false;
      continue;
    }
    try {
      return JSON.parse(text)?.type === 'module';
    } catch (error) {
      console.warn(`${path.join(folder, 'package.json')} is not JSON and is ignored`, error);
      return false;
    }
  }
}

async function loadModule(root, folder, name) {
  const file = path.resolve(root, folder, name);
  const isFile = (at) => fs.statSync(at, { throwIfNoEntry: false })?.isFile() === true;
  if (isFile(file)) return require(file);
  if (isFile(file + '.js')) return isModuleFolder(path.dirname(file)) ? importFile(file + '.js') : requireOrImport(file + '.js');
  if (isFile(file + '.mjs')) return importFile(file + '.mjs');
  if (isFile(file + '.cjs')) return require(file + '.cjs');
  return require(require.resolve(name, { paths: [root, path.resolve(root, folder)] }));
}

// Lambda's Node 24 imports every .js file, so that module syntax is found without a package.json.
function requireOrImport(file) {
  return modern ? importFile(file) : require(file);
}

async function loadHandler(root, name) {
  if (name.includes('..')) {
    throw new MalformedHandlerName(
      `'${name}' is not a valid handler name. Use absolute paths when specifying root directories in handler names.`,
    );
  }
  const last = path.basename(name);
  const folder = name.slice(0, name.indexOf(last));
  const dot = last.indexOf('.');
  if (dot < 0) throw new MalformedHandlerName('Bad handler');
  let exported;
  try {
    exported = await loadModule(root, folder, last.slice(0, dot));
  } catch (error) {
    if (error instanceof SyntaxError) {
      const syntax = new UserCodeSyntaxError(String(error));
      if (modern) syntax.stack = error.stack;
      throw syntax;
    }
    throw error?.code === 'MODULE_NOT_FOUND' ? new ImportModuleError(String(error)) : error;
  }
  const keys = last.slice(dot + 1).split('.');
  const find = (from) => keys.reduce((value, key) => (value === undefined || value === null ? undefined : value[key]), from);
  const handler = find(exported) || find(exported?.default);
  if (!handler) throw new HandlerNotFound(`${name} is undefined or not exported`);
  if (typeof handler !== 'function') throw new HandlerNotFound(`${name} is not a function`);
  return handler;
}

function isStreaming(handler) {
  const kind = handler[STREAMING];
  if (kind === undefined || kind === null || kind === false) return false;
  if (kind !== 'response') throw new MalformedStreamingHandler('Only response streaming is supported.');
  return true;
}

// -------------------------------------------------------------------------------------------------------------- context

function parseHeader(text, name) {
  if (!text) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`Cannot parse ${name} as json: ${error}`);
  }
}

// Of plain properties, so that all contexts have one hidden class: with accessors made anew V8 keeps a description of each.
// `waits` and the functions: of kinds of handlers that have them.
function makeContext(invocation, { waits, succeed, fail, done }) {
  const { deadline } = invocation;
  const context = {};
  if (waits !== undefined) context.callbackWaitsForEmptyEventLoop = waits;
  if (done !== undefined) {
    context.succeed = succeed;
    context.fail = fail;
    context.done = done;
  }
  context.functionVersion = facts.functionVersion;
  context.functionName = facts.functionName;
  context.memoryLimitInMB = facts.memoryLimitInMB;
  context.logGroupName = facts.logGroupName;
  context.logStreamName = facts.logStreamName;
  context.clientContext = parseHeader(invocation.clientContext, 'ClientContext');
  context.identity = parseHeader(invocation.identity, 'CognitoIdentity');
  context.invokedFunctionArn = invocation.arn;
  context.awsRequestId = invocation.id;
  context.tenantId = invocation.tenantId;
  context.getRemainingTimeInMillis = () => deadline - Date.now();
  return context;
}

function noteInvocation({ id, tenantId, trace }) {
  globalThis[REQUEST_ID] = id;
  globalThis[TENANT_ID] = tenantId;
  if (trace) env._X_AMZN_TRACE_ID = trace;
  else delete env._X_AMZN_TRACE_ID;
}

// ---------------------------------------------------------------------------------------------------------- invocations

const isPromise = (value) => Boolean(value) && typeof value.then === 'function';
let onEmptyLoop = null; // what an empty event loop means right now

// Runs a buffered handler and calls `finish` with what comes first: return value, callback or context.done; or with null when the event
// loop is empty without an answer. finish(true, error) or finish(false, result), once.
function runClassic(handler, event, invocation, finish) {
  let settled = false;
  let returned = false; // the promise that the handler returned has settled
  let context = null;
  const settle = (error, result, atOnce) => {
    if (settled) return;
    settled = true;
    onEmptyLoop = null;
    const failed = error !== undefined && error !== null;
    const waits = context === null || Boolean(context.callbackWaitsForEmptyEventLoop);
    const answer = () => finish(failed, failed ? error : result);
    if (returned) answer();
    else if (atOnce || failed || !waits || runsAtOnce !== null) Promise.resolve().then(answer); // what the handler does next comes before
    else onEmptyLoop = answer;
  };
  const succeed = (result) => settle(null, result, true);
  const fail = (error) => settle(error ?? 'handled', null, true);
  const done = (error, result) => settle(error, result, true);
  if (runsAtOnce === null) onEmptyLoop = () => settle(null, null, true);
  try {
    const value = event();
    context = makeContext(invocation, { waits: true, succeed, fail, done });
    const result = handler(value, context, (error, answer) => settle(error, answer, false));
    if (isPromise(result)) {
      const then = (how) => (outcome) => {
        returned = true;
        how(outcome);
      };
      result.then(then(succeed), then(fail));
    }
  } catch (error) {
    settle(error ?? 'handled', null, false);
  }
}

function runModern(handler, event, invocation, finish) {
  let result;
  try {
    result = handler(event(), makeContext(invocation, {}));
  } catch (error) {
    return finish(true, error);
  }
  if (!isPromise(result)) return finish(false, result);
  Promise.resolve(result).then(
    (value) => finish(false, value),
    (error) => finish(true, error),
  );
}

function serveBuffered(channel, handler, invocation, event) {
  return new Promise((resolve) => {
    (modern ? runModern : runClassic)(handler, event, invocation, (failed, value) => {
      onEmptyLoop = null;
      let text;
      if (!failed) {
        try {
          text = toJson(value);
        } catch (error) {
          failed = true;
          value = error;
        }
      }
      if (failed) {
        logError('Invoke Error', value);
        resolve(channel.fail(invocation, value));
      } else {
        resolve(channel.answer(invocation, text));
      }
    });
  });
}

// An error given as text stays text, as the classic client has it.
const streamingError = (text) => (modern ? new Error(text) : text);

async function runStreaming(handler, event, invocation, stream) {
  const result = handler(event(), stream, makeContext(invocation, { waits: true }));
  if (!isPromise(result)) throw streamingError('Streaming does not support non-async handlers.');
  // A loop that runs empty before the stream is ended would leave the caller waiting until the timeout.
  const starved = new Promise((_, reject) => {
    if (runsAtOnce === null) onEmptyLoop = () => reject(streamingError('Response stream is not finished.'));
  });
  starved.catch(() => {});
  const value = await Promise.race([result, starved]);
  // The stream itself comes back from `async () => stream.end()`, which is fine.
  if (value !== undefined && value !== stream) console.warn('Streaming handlers ignore return values.');
  const answer = await Promise.race([stream.answered, starved]);
  if (answer !== null || !stream.writableFinished) throw stream.errored ?? streamingError('Response stream is not finished.');
}

async function serveStreaming(channel, handler, invocation, event) {
  const stream = new (responseStreamClass())(channel.openStream(invocation), handler[HIGH_WATER_MARK]);
  invocation.stream = stream;
  try {
    await runStreaming(handler, event, invocation, stream);
  } catch (error) {
    onEmptyLoop = null;
    logError('Invoke Error', error);
    stream.fail(error);
    channel.busy();
    if (stream._begun || stream._ended || !stream.destroyed) await stream.answered;
    else await channel.fail(invocation, error);
  }
  onEmptyLoop = null;
}

// --------------------------------------------------------------------------------------------------------------- process

// The invocations that run. No Set: the tables a Set outgrows point to those that follow, so one that got old in V8's eyes keeps every later
// invocation alive until the next full collection.
const running = [];

// Reports what nobody caught, then ends the process: its state is unknown. A second one while reporting ends it at once.
function watchUncaught(channel) {
  let dying = false;
  const report = (error, invocation) => {
    if (!invocation.stream || !invocation.stream._begun) return channel.fail(invocation, error);
    invocation.stream.fail(error);
    return invocation.stream.answered;
  };
  const die = (title, error, code) => {
    if (dying) process.exit(code);
    dying = true;
    channel.leave();
    logError(title, error);
    const reports = running.length === 0 ? [channel.failInit(error)] : running.map((invocation) => report(error, invocation));
    Promise.all(reports).then(
      () => process.exit(code),
      () => process.exit(code),
    );
  };
  process.on('uncaughtException', (error) => die('Uncaught Exception', error, 129));
  process.on('unhandledRejection', (reason, promise) => {
    const error = new UnhandledPromiseRejection(String(reason));
    error.reason = reason;
    error.promise = promise;
    die('Unhandled Promise Rejection', error, 128);
  });
  process.on('beforeExit', () => {
    const then = onEmptyLoop;
    onEmptyLoop = null;
    if (then) setImmediate(then);
  });
}

function serve(channel, handler) {
  const serveOne = isStreaming(handler) ? serveStreaming : serveBuffered;
  const run = async (invocation) => {
    running.push(invocation);
    await serveOne(channel, handler, invocation, () => JSON.parse(invocation.text));
    running.splice(running.indexOf(invocation), 1);
  };
  if (runsAtOnce !== null) return channel.serve((invocation) => runsAtOnce.run(invocation, run, invocation));
  return channel.serve((invocation) => {
    noteInvocation(invocation);
    channel.idle();
    return run(invocation);
  });
}

// The control pipes where the platform gave them and they have come through to here, else the Runtime API.
function openChannel() {
  const ends = /^(\d+),(\d+)$/.exec(env._MAYFLY_CONTROL_FDS ?? '');
  delete env._MAYFLY_CONTROL_FDS;
  if (ends) {
    try {
      const [fdIn, fdOut] = [Number(ends[1]), Number(ends[2])];
      if (fs.fstatSync(fdIn).isFIFO() && fs.fstatSync(fdOut).isFIFO()) return new Pipes(fdIn, fdOut);
    } catch {
      // a wrapper program has closed them
    }
  }
  const address = env.AWS_LAMBDA_RUNTIME_API;
  if (!address) {
    const reason = 'this program runs inside a Lambda environment, which names the Runtime API there';
    writeFully(2, Buffer.from(`AWS_LAMBDA_RUNTIME_API is not set: ${reason}.\n`));
    process.exit(1);
  }
  return new Connection(address);
}

// Does once what every function's init does, in a process that waits for its function: modules that Node loads late are there then, and
// code that runs for the first time has been compiled. Loads nothing of the function's and leaves nothing behind.
async function warmUp() {
  const file = path.join(__dirname, 'warm_up');
  require(file + '.cjs');
  await importFile(file + '.mjs');
  for (const name of ['util', 'stream', 'async_hooks', 'http', 'https', 'crypto', 'timers']) require(name);
  responseStreamClass();
  new net.Socket().destroy();
  delete require.cache[require.resolve(file + '.cjs')];
}

async function main() {
  const channel = openChannel();
  if (env._HANDLER === undefined) await warmUp();
  const logDescriptor = takeLogDescriptor();
  channel.begin();
  learnFunction();
  patchConsole(logDescriptor);
  watchUncaught(channel);
  let handler;
  try {
    defineGlobals();
    handler = await loadHandler(env.LAMBDA_TASK_ROOT || process.cwd(), env._HANDLER || '');
    if (modern && handler.length >= 3 && !isStreaming(handler)) {
      throw new CallbackHandlerDeprecated('Functions on Node.js 24 and later cannot take a callback: return a value or a promise instead.');
    }
  } catch (error) {
    logError('Uncaught Exception', error);
    await channel.failInit(error);
    process.exit(129);
  }
  try {
    await serve(channel, handler);
  } catch (error) {
    writeFully(2, Buffer.from(`The Runtime API cannot be reached: ${error.message}\n`));
    process.exit(1);
  }
}

main();
