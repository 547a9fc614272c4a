// Mayfly's Lambda runtime client for Node.js 18 and later, in one file without dependencies.
//
// Start-up time is the point: one keep-alive connection over net.Socket with a small HTTP/1.1 parser instead of node:http, and
// console output through fs.writeSync. While a handler runs the socket is unreferenced, so that an empty event loop is seen
// (callbackWaitsForEmptyEventLoop, handlers that never answer).
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
const lambdaNode = /^AWS_Lambda_nodejs(\d+)\.x$/.exec(env.AWS_EXECUTION_ENV || '');
const modern = Number(lambdaNode ? lambdaNode[1] : process.versions.node.split('.')[0]) >= 24;

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
const jsonLog = (env.AWS_LAMBDA_LOG_FORMAT || '').toUpperCase() === 'JSON';

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

function makeLog() {
  const makeLine = jsonLog ? jsonLine : textLine;
  const number = env._LAMBDA_TELEMETRY_LOG_FD ?? env.LAMBDA_TELEMETRY_LOG_FD;
  delete env._LAMBDA_TELEMETRY_LOG_FD;
  delete env.LAMBDA_TELEMETRY_LOG_FD;
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

function patchConsole() {
  const log = makeLog();
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

  async next() {
    const answer = await this.exchange([this.nextHead]);
    if (answer.status !== 200) throw new Error(`the Runtime API answered ${answer.status} to next: ${excerpt(answer)}`);
    this.idle();
    return answer;
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

function postInvocationError(connection, id, error) {
  const described = describe(error);
  return connection.post(`invocation/${encodeURIComponent(id)}/error`, toJson(described), errorHeaders(described, error));
}

function postInitError(connection, error) {
  const described = describe(error);
  const header = `Lambda-Runtime-Function-Error-Type: ${headerSafe(described.errorType)}\r\n`;
  return connection.post('init/error', toJson(described), header);
}

// ----------------------------------------------------------------------------------------------------------- streaming

let ResponseStream = null;

// Made when a streaming function is there: a Writable whose bytes go out as HTTP chunks, no faster than the socket takes them.
function responseStreamClass() {
  if (ResponseStream) return ResponseStream;
  const { Writable } = require('stream');
  ResponseStream = class extends Writable {
    constructor(connection, id, highWaterMark) {
      super(highWaterMark === undefined ? { decodeStrings: true } : { decodeStrings: true, highWaterMark });
      this._connection = connection;
      this._id = id;
      this._contentType = 'application/octet-stream';
      this._begun = false;
      this._trailers = '';
      this._ending = null;
      this.answered = new Promise((resolve) => (this._resolveAnswer = resolve));
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
      if (this._begun) return '';
      this._begun = true;
      const head =
        `POST ${API}invocation/${encodeURIComponent(this._id)}/response HTTP/1.1\r\n${this._connection.common}` +
        `Content-Type: ${headerSafe(this._contentType)}\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n` +
        'Transfer-Encoding: chunked\r\nTrailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n';
      this._connection.exchange([], false).then(
        (answer) => {
          if (!this.writableFinished) {
            this.destroy(new Error(`The Runtime API ended the response stream early (HTTP ${answer.status}): ${excerpt(answer)}`));
          }
          this._resolveAnswer(answer);
        },
        (error) => {
          this.destroy(error);
          this._resolveAnswer(null);
        },
      );
      return head;
    }

    // Calls back when the socket's buffer is free again; the socket counts as busy until then.
    _send(pieces, callback) {
      const { socket } = this._connection;
      if (!socket) return callback(new Error('the Runtime API closed the connection'));
      socket.ref();
      socket.cork();
      let flowing = true;
      for (const piece of pieces) if (piece.length) flowing = socket.write(piece);
      socket.uncork();
      if (flowing) {
        this._connection.idle();
        return callback();
      }
      const settle = (error) => {
        socket.off('drain', drained);
        socket.off('close', closed);
        this._connection.idle();
        callback(error);
      };
      const drained = () => settle();
      const closed = () => settle(new Error('the Runtime API closed the connection'));
      socket.on('drain', drained);
      socket.on('close', closed);
    }

    _write(chunk, _, callback) {
      this._writev([{ chunk }], callback);
    }

    _writev(chunks, callback) {
      const pieces = [this._begin()];
      let total = 0;
      for (const { chunk } of chunks) total += chunk.length;
      if (total > 0) {
        pieces.push(total.toString(16) + '\r\n');
        for (const { chunk } of chunks) pieces.push(chunk);
        pieces.push('\r\n');
      }
      this._send(pieces, callback);
    }

    _final(callback) {
      this._ended = true;
      const { socket } = this._connection;
      this._send([this._begin(), `0\r\n${this._trailers}\r\n`], (error) => {
        if (socket) socket.ref(); // now the platform has the word
        callback(error);
      });
    }

    // Ends the response with the error in its trailers, as far as it can still be said.
    fail(error) {
      if (this._ended || this.destroyed) return;
      const described = describe(error);
      const body = Buffer.from(JSON.stringify(described)).toString('base64');
      this._trailers =
        `Lambda-Runtime-Function-Error-Type: ${headerSafe(described.errorType)}\r\nLambda-Runtime-Function-Error-Body: ${body}\r\n`;
      this.end();
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
    return JSON.parse(Buffer.from(text, 'latin1').toString());
  } catch (error) {
    throw new Error(`Cannot parse ${name} as json: ${error}`);
  }
}

function fillContext(context, headers) {
  const deadline = Number(headers['lambda-runtime-deadline-ms']);
  return Object.assign(context, {
    functionVersion: env.AWS_LAMBDA_FUNCTION_VERSION,
    functionName: env.AWS_LAMBDA_FUNCTION_NAME,
    memoryLimitInMB: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: parseHeader(headers['lambda-runtime-client-context'], 'ClientContext'),
    identity: parseHeader(headers['lambda-runtime-cognito-identity'], 'CognitoIdentity'),
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    awsRequestId: headers['lambda-runtime-aws-request-id'],
    tenantId: headers['lambda-runtime-aws-tenant-id'],
    getRemainingTimeInMillis: () => deadline - Date.now(),
  });
}

function noteInvocation(headers) {
  globalThis[REQUEST_ID] = headers['lambda-runtime-aws-request-id'];
  globalThis[TENANT_ID] = headers['lambda-runtime-aws-tenant-id'];
  const trace = headers['lambda-runtime-trace-id'];
  if (trace) env._X_AMZN_TRACE_ID = trace;
  else delete env._X_AMZN_TRACE_ID;
}

// ---------------------------------------------------------------------------------------------------------- invocations

const isPromise = (value) => Boolean(value) && typeof value.then === 'function';
let onEmptyLoop = null; // what an empty event loop means right now

// Runs a buffered handler; resolves to {error} or {result}, the first that comes: return value, callback or context.done.
// Without an answer it resolves when the event loop is empty, with null.
function runClassic(handler, event, headers) {
  return new Promise((resolve) => {
    let settled = false;
    let waits = true;
    const settle = (error, result, atOnce) => {
      if (settled) return;
      settled = true;
      onEmptyLoop = null;
      const outcome = error === undefined || error === null ? { result } : { error };
      if (atOnce || 'error' in outcome || !waits) resolve(outcome);
      else onEmptyLoop = () => resolve(outcome);
    };
    const context = {
      get callbackWaitsForEmptyEventLoop() {
        return waits;
      },
      set callbackWaitsForEmptyEventLoop(value) {
        waits = value;
      },
      succeed: (result) => settle(null, result, true),
      fail: (error) => settle(error ?? 'handled', null, true),
      done: (error, result) => settle(error, result, true),
    };
    onEmptyLoop = () => settle(null, null, true);
    try {
      const result = handler(event(), fillContext(context, headers), (error, value) => settle(error, value, false));
      if (isPromise(result)) result.then(context.succeed, context.fail);
    } catch (error) {
      settle(error ?? 'handled', null, false);
    }
  });
}

async function runModern(handler, event, headers) {
  try {
    return { result: await handler(event(), fillContext({}, headers)) };
  } catch (error) {
    return { error };
  }
}

async function serveBuffered(connection, handler, headers, event) {
  const outcome = await (modern ? runModern : runClassic)(handler, event, headers);
  onEmptyLoop = null;
  const id = headers['lambda-runtime-aws-request-id'];
  let text;
  if (!('error' in outcome)) {
    try {
      text = toJson(outcome.result);
    } catch (error) {
      outcome.error = error;
    }
  }
  if ('error' in outcome) {
    logError('Invoke Error', outcome.error);
    await postInvocationError(connection, id, outcome.error);
    return;
  }
  await connection.post(`invocation/${encodeURIComponent(id)}/response`, text);
}

// An error given as text stays text, as the classic client has it.
const streamingError = (text) => (modern ? new Error(text) : text);

async function runStreaming(handler, event, headers, stream) {
  let waits = true;
  const context = {
    get callbackWaitsForEmptyEventLoop() {
      return waits;
    },
    set callbackWaitsForEmptyEventLoop(value) {
      waits = value;
    },
  };
  const result = handler(event(), stream, fillContext(context, headers));
  if (!isPromise(result)) throw streamingError('Streaming does not support non-async handlers.');
  // A loop that runs empty before the stream is ended would leave the caller waiting until the timeout.
  const starved = new Promise((_, reject) => {
    onEmptyLoop = () => reject(streamingError('Response stream is not finished.'));
  });
  starved.catch(() => {});
  const value = await Promise.race([result, starved]);
  // The stream itself comes back from `async () => stream.end()`, which is fine.
  if (value !== undefined && value !== stream) console.warn('Streaming handlers ignore return values.');
  const answer = await Promise.race([stream.answered, starved]);
  if (answer === null || !stream.writableFinished) throw stream.errored ?? streamingError('Response stream is not finished.');
}

async function serveStreaming(connection, handler, headers, event) {
  const stream = new (responseStreamClass())(connection, headers['lambda-runtime-aws-request-id'], handler[HIGH_WATER_MARK]);
  current.stream = stream;
  if (connection.socket === null) connection.connect();
  try {
    await runStreaming(handler, event, headers, stream);
  } catch (error) {
    onEmptyLoop = null;
    logError('Invoke Error', error);
    stream.fail(error);
    if (connection.socket) connection.socket.ref();
    if (stream._begun || stream._ended) await stream.answered;
    else if (stream.destroyed) await postInvocationError(connection, stream._id, error);
    else await stream.answered;
  }
  onEmptyLoop = null;
  current.stream = null;
}

// --------------------------------------------------------------------------------------------------------------- process

const current = { id: null, stream: null }; // the invocation that runs

// Reports what nobody caught, then ends the process: its state is unknown. A second one while reporting ends it at once.
function watchUncaught(connection) {
  let dying = false;
  const die = (title, error, code) => {
    if (dying) process.exit(code);
    dying = true;
    logError(title, error);
    const report = async () => {
      if (current.stream && current.stream._begun) {
        current.stream.fail(error);
        await current.stream.answered;
      } else if (current.id !== null) {
        // An exchange under way belongs to this invocation's answer: it must not be mixed with the report.
        const own = connection.waiting ? new Connection(connection.host + ':' + connection.port) : connection;
        await postInvocationError(own, current.id, error);
      } else {
        const own = connection.waiting ? new Connection(connection.host + ':' + connection.port) : connection;
        await postInitError(own, error);
      }
    };
    report().then(
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

async function serve(connection, handler) {
  const serveOne = isStreaming(handler) ? serveStreaming : serveBuffered;
  for (;;) {
    const { headers, body } = await connection.next();
    noteInvocation(headers);
    current.id = headers['lambda-runtime-aws-request-id'];
    await serveOne(connection, handler, headers, () => JSON.parse(body.toString()));
    current.id = null;
    await new Promise(setImmediate); // what the function left to be done gets its turn, as between two events on Lambda
  }
}

async function main() {
  const address = env.AWS_LAMBDA_RUNTIME_API;
  if (!address) {
    const reason = 'this program runs inside a Lambda environment, which names the Runtime API there';
    writeFully(2, Buffer.from(`AWS_LAMBDA_RUNTIME_API is not set: ${reason}.\n`));
    process.exit(1);
  }
  patchConsole();
  const connection = new Connection(address);
  watchUncaught(connection);
  let handler;
  try {
    defineGlobals();
    handler = await loadHandler(env.LAMBDA_TASK_ROOT || process.cwd(), env._HANDLER || '');
    if (modern && handler.length >= 3 && !isStreaming(handler)) {
      throw new CallbackHandlerDeprecated('Functions on Node.js 24 and later cannot take a callback: return a value or a promise instead.');
    }
  } catch (error) {
    logError('Uncaught Exception', error);
    await postInitError(connection, error);
    process.exit(129);
  }
  try {
    await serve(connection, handler);
  } catch (error) {
    writeFully(2, Buffer.from(`The Runtime API cannot be reached: ${error.message}\n`));
    process.exit(1);
  }
}

main();
