// The AWS SDK for JavaScript v3 against a running Mayfly (AWS_ENDPOINT_URL and keys come from the environment).
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

const require = createRequire(join(process.env.NODE_PATH, 'index.js'));
const lambda = require('@aws-sdk/client-lambda');
const { STSClient, GetCallerIdentityCommand } = require('@aws-sdk/client-sts');
const { CloudWatchLogsClient, FilterLogEventsCommand } = require('@aws-sdk/client-cloudwatch-logs');

const client = new lambda.LambdaClient({});
const name = `js-${Date.now()}`;

function zip(files) {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-js-'));
  for (const [file, text] of Object.entries(files)) writeFileSync(join(folder, file), text);
  execFileSync('zip', ['-q', '-r', 'f.zip', ...Object.keys(files)], { cwd: folder });
  return readFileSync(join(folder, 'f.zip'));
}

before(async () => {
  await client.send(new lambda.CreateFunctionCommand({
    FunctionName: name, Runtime: 'nodejs20.x', Role: 'arn:aws:iam::000000000000:role/js', Handler: 'index.handler', Timeout: 10,
    Code: { ZipFile: zip({ 'index.js': `
      exports.handler = async (event) => { console.log('js line'); if (event.fail) throw new TypeError('as asked'); return { sum: event.a + event.b }; };
      exports.stream = awslambda.streamifyResponse(async (event, stream) => { for (let i = 0; i < 5; i++) stream.write('chunk' + i + '\\n'); stream.end(); });
    ` }) },
  }));
  await lambda.waitUntilFunctionActiveV2({ client, maxWaitTime: 20 }, { FunctionName: name });
});

after(async () => { await client.send(new lambda.DeleteFunctionCommand({ FunctionName: name })); });

const text = (bytes) => Buffer.from(bytes).toString();

test('invokes and reads the answer', async () => {
  const answer = await client.send(new lambda.InvokeCommand({ FunctionName: name, Payload: JSON.stringify({ a: 2, b: 3 }), LogType: 'Tail' }));
  assert.deepEqual(JSON.parse(text(answer.Payload)), { sum: 5 });
  assert.equal(answer.StatusCode, 200);
  assert.match(Buffer.from(answer.LogResult, 'base64').toString(), /js line[\s\S]*REPORT RequestId/);
});

test('hears of a failure with type, message and trace', async () => {
  const answer = await client.send(new lambda.InvokeCommand({ FunctionName: name, Payload: '{"fail":true}' }));
  assert.equal(answer.FunctionError, 'Unhandled');
  const error = JSON.parse(text(answer.Payload));
  assert.equal(error.errorType, 'TypeError');
  assert.equal(error.errorMessage, 'as asked');
  assert.ok(Array.isArray(error.trace));
});

test('streams', async () => {
  await client.send(new lambda.UpdateFunctionConfigurationCommand({ FunctionName: name, Handler: 'index.stream' }));
  await lambda.waitUntilFunctionUpdatedV2({ client, maxWaitTime: 20 }, { FunctionName: name });
  const answer = await client.send(new lambda.InvokeWithResponseStreamCommand({ FunctionName: name, Payload: '{}' }));
  let body = '';
  let complete = false;
  for await (const event of answer.EventStream) {
    if (event.PayloadChunk) body += text(event.PayloadChunk.Payload);
    if (event.InvokeComplete) complete = true;
  }
  assert.equal(body, 'chunk0\nchunk1\nchunk2\nchunk3\nchunk4\n');
  assert.ok(complete);
});

test('gets typed errors', async () => {
  await assert.rejects(client.send(new lambda.GetFunctionCommand({ FunctionName: 'no-such-function' })), lambda.ResourceNotFoundException);
  await assert.rejects(client.send(new lambda.CreateFunctionCommand({ FunctionName: name, Runtime: 'nodejs20.x', Role: 'arn:aws:iam::000000000000:role/js', Handler: 'i.h', Code: { ZipFile: zip({ a: 'b' }) } })), lambda.ResourceConflictException);
});

test('knows who it is, and finds its log', async () => {
  assert.equal((await new STSClient({}).send(new GetCallerIdentityCommand({}))).Account, '000000000000');
  const logs = new CloudWatchLogsClient({});
  let found = false;
  for (let i = 0; i < 20 && !found; i++) {
    const answer = await logs.send(new FilterLogEventsCommand({ logGroupName: `/aws/lambda/${name}`, filterPattern: '"js line"' }));
    found = answer.events.some((event) => event.message.includes('js line'));
    if (!found) await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.ok(found);
});
