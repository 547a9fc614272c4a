// The common test handlers: `handler` echoes; {"fail": true} throws; {"sleep_ms": n} sleeps. `stream` streams {"stream": [..]}.
'use strict';

class TestFailure extends Error {
  get name() {
    return 'TestFailure';
  }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

exports.handler = async (event, context) => {
  console.log('event for', context.awsRequestId);
  if (event.sleep_ms) await sleep(event.sleep_ms);
  if (event.fail) throw new TestFailure('failed as asked');
  return { echo: event, request_id: context.awsRequestId, function: context.functionName };
};

exports.stream = awslambda.streamifyResponse(async (event, stream) => {
  stream.setContentType('text/plain');
  for (const part of event.stream ?? []) {
    stream.write(part);
    await sleep(event.sleep_ms ?? 0);
  }
  if (event.fail) throw new TestFailure('failed as asked');
  stream.end();
});
