"""A Lambda Runtime API on a real loopback socket, for tests of what runs inside the sandbox; plain Python, no dependency.

As a library: `with FakeRuntimeApi() as api: process = api.start([...]); answer = api.invoke({"a": 1})`.
As a program: `fake_runtime_api.py [--event JSON | --event-file FILE] [--handler NAME] [--cwd DIR] -- COMMAND...` starts the command as a
runtime, gives it the event, prints the answer and the log, and ends with 0 when the answer is not an error.
It is strict where the real one is: an unknown request id, a second answer and a cut body are refused and noted in `violations`.
"""

import argparse
import collections
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid

PREFIX = "/2018-06-01/runtime/"


class Answer:
    """What the runtime sent: kind is response, error or init_error; names of headers and trailers are in lower case."""

    def __init__(self, kind, headers, body, trailers, chunks):
        self.kind, self.headers, self.body, self.trailers, self.chunks = kind, headers, body, trailers, chunks

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error_type(self):
        return self.headers.get("lambda-runtime-function-error-type")

    @property
    def streaming(self):
        return self.headers.get("lambda-runtime-function-response-mode") == "streaming"

    def __repr__(self):
        return "Answer(%s, %r, %r, %r)" % (self.kind, self.headers, self.body[:500], self.trailers)


class Invocation:
    def __init__(self, body, headers, timeout_ms):
        self.id = str(uuid.uuid4())
        self.body = body
        self.headers = headers
        self.timeout_ms = timeout_ms
        self.done = threading.Event()
        self.answer = None


class _Cut(Exception):
    pass


class _Reader:
    def __init__(self, connection):
        self._connection, self._rest = connection, b""

    def _fill(self):
        data = self._connection.recv(65536)
        if not data:
            raise _Cut()
        self._rest += data

    def until(self, mark):
        while mark not in self._rest:
            self._fill()
        head, _, self._rest = self._rest.partition(mark)
        return head

    def exactly(self, count):
        while len(self._rest) < count:
            self._fill()
        data, self._rest = self._rest[:count], self._rest[count:]
        return data


def _parse_headers(lines):
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        headers[name] = headers[name] + ", " + value if name in headers else value
    return headers


class FakeRuntimeApi:
    def __init__(self, function_name="test-function", content_type="application/json"):
        self.requests = []  # (connection number, method, path, headers) in order of arrival
        self.init_errors = queue.Queue()
        self.violations = []
        self.first_next = threading.Event()
        self.first_next_at = None
        self.response_status = None  # (code, body) that the next response POST gets instead of 202
        self.chunked_next = False  # answer next with a chunked body
        self.close_after_next = False  # close the connection after every answer without saying so
        self.read_delay = 0.0  # seconds between reads of a streamed chunk: a slow reader
        self.function_name = function_name
        self.content_type = content_type
        self._pending = queue.Queue()
        self._current = {}
        self._processes = []
        self._closing = False
        self._connections = 0
        self._open = set()
        self._lock = threading.Lock()
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(16)
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    # -- for tests -----------------------------------------------------------------------------------------------------

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._closing = True
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def environment(self, handler="index.handler", task_root=None, extra=None):
        env = {
            "AWS_LAMBDA_RUNTIME_API": self.address,
            "_HANDLER": handler,
            "LAMBDA_TASK_ROOT": task_root or os.getcwd(),
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "AWS_LAMBDA_FUNCTION_NAME": self.function_name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/" + self.function_name,
            "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/01/[$LATEST]0123456789abcdef0123456789abcdef",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_REGION": "us-east-1",
            "TZ": ":UTC",
            "LANG": "en_US.UTF-8",
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": os.environ.get("HOME", "/tmp"),
        }
        env.update(extra or {})
        return env

    def start(self, command, handler="index.handler", cwd=None, env=None, pass_fds=()):
        """Starts a runtime; its output is collected and read with output(process)."""
        output = tempfile.TemporaryFile()
        errors = tempfile.TemporaryFile()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=self.environment(handler, cwd, env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
        )
        process.collected = (output, errors)
        process.pumps = []
        for source, target in ((process.stdout, output), (process.stderr, errors)):
            pump = threading.Thread(target=self._pump, args=(source, target), daemon=True)
            pump.start()
            process.pumps.append(pump)
        self._processes.append(process)
        return process

    @staticmethod
    def _pump(source, target):
        while True:
            data = os.read(source.fileno(), 65536)
            if not data:
                return
            os.write(target.fileno(), data)

    def output(self, process, ended=True):
        """(stdout, stderr) as bytes; with ended, after the process ended or was stopped by this call."""
        if ended:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
            for pump in process.pumps:
                pump.join(5)
        return tuple(os.pread(f.fileno(), 1 << 24, 0) for f in process.collected)

    def send(self, event, headers=None, timeout_ms=3000, raw=False):
        body = event if raw else json.dumps(event).encode()
        invocation = Invocation(body, headers or {}, timeout_ms)
        self._pending.put(invocation)
        return invocation

    def wait(self, invocation, process=None, seconds=20):
        """The answer; None when the process ended without giving one."""
        end = time.monotonic() + seconds
        while not invocation.done.wait(0.02):
            if process is not None and process.poll() is not None:
                invocation.done.wait(0.3)
                return invocation.answer
            if time.monotonic() > end:
                raise TimeoutError("no answer within %s s; log: %r" % (seconds, process and self.output(process, False)))
        return invocation.answer

    def invoke(self, event, process=None, headers=None, timeout_ms=3000, raw=False, seconds=20):
        return self.wait(self.send(event, headers, timeout_ms, raw), process, seconds)

    # -- the server ----------------------------------------------------------------------------------------------------

    def _accept(self):
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._connections += 1
                number = self._connections
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection, number):
        reader = _Reader(connection)
        try:
            while not self._closing:
                if not self._one(connection, reader, number):
                    return
        except (_Cut, OSError):
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _one(self, connection, reader, number):
        lines = reader.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = _parse_headers(lines[1:])
        with self._lock:
            self.requests.append((number, method, path, headers))
        if headers.get("expect", "").lower() == "100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            body, trailers, chunks = self._read_body(reader, headers)
        except _Cut:
            self.violations.append("body of %s cut" % path)
            raise
        status, answer_headers, answer = self._handle(method, path, headers, body, trailers, chunks)
        text = "HTTP/1.1 %d Answer\r\n" % status
        chunked = self.chunked_next and path.endswith("/next")
        answer_headers = dict({"Content-Type": "application/json"}, **answer_headers)
        answer_headers.update({"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(answer))})
        text += "".join("%s: %s\r\n" % item for item in answer_headers.items()) + "\r\n"
        if chunked:
            half = len(answer) // 2
            parts = [p for p in (answer[:half], answer[half:]) if p]
            answer = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"
        connection.sendall(text.encode("latin-1") + answer)
        return not self.close_after_next

    def _read_body(self, reader, headers):
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return reader.exactly(int(headers.get("content-length", "0"))), {}, []
        chunks = []
        while True:
            size = int(reader.until(b"\r\n").split(b";")[0], 16)
            if size == 0:
                break
            if self.read_delay:
                time.sleep(self.read_delay)
            chunks.append((time.monotonic(), reader.exactly(size)))
            reader.exactly(2)
        lines = []
        while True:
            line = reader.until(b"\r\n").decode("latin-1")
            if not line:
                break
            lines.append(line)
        return b"".join(c for _, c in chunks), _parse_headers(lines), chunks

    def _handle(self, method, path, headers, body, trailers, chunks):
        if method == "GET" and path == PREFIX + "invocation/next":
            return self._next()
        if method == "POST" and path == PREFIX + "init/error":
            self.init_errors.put(Answer("init_error", headers, body, trailers, chunks))
            return 202, {}, b'{"status":"OK"}\n'
        parts = path[len(PREFIX) :].split("/") if path.startswith(PREFIX) else []
        if method == "POST" and len(parts) == 3 and parts[0] == "invocation" and parts[2] in ("response", "error"):
            return self._answer(parts[1], parts[2], headers, body, trailers, chunks)
        self.violations.append("%s %s is not part of the Runtime API" % (method, path))
        return 404, {}, b"{}"

    def _next(self):
        if not self.first_next.is_set():
            self.first_next_at = time.monotonic()
            self.first_next.set()
        while True:
            try:
                invocation = self._pending.get(timeout=0.2)
                break
            except queue.Empty:
                if self._closing:
                    raise _Cut()
        self._current[invocation.id] = invocation
        arn = "arn:aws:lambda:us-east-1:000000000000:function:" + self.function_name
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.id,
            "Lambda-Runtime-Deadline-Ms": str(int(time.time() * 1000) + invocation.timeout_ms),
            "Lambda-Runtime-Invoked-Function-Arn": arn,
            "Lambda-Runtime-Trace-Id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0",
            "Content-Type": self.content_type,
        }
        headers.update(invocation.headers)
        return 200, {k: v for k, v in headers.items() if v is not None}, invocation.body

    def _answer(self, request_id, kind, headers, body, trailers, chunks):
        invocation = self._current.get(request_id)
        if invocation is None or invocation.answer is not None:
            self.violations.append("%s for request id %s, which is %s" % (kind, request_id, "done" if invocation else "unknown"))
            return 400, {}, b'{"errorType":"InvalidRequestID","errorMessage":"Invalid request ID"}'
        invocation.answer = Answer(kind, headers, body, trailers, chunks)
        invocation.done.set()
        if self.response_status is not None and kind == "response":
            (status, text), self.response_status = self.response_status, None
            return status, {}, text
        return 202, {}, b'{"status":"OK"}\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--event", default="{}")
    parser.add_argument("--event-file")
    parser.add_argument("--handler", default="index.handler")
    parser.add_argument("--cwd", default=".")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = [c for c in options.command if c != "--"]
    event = open(options.event_file, "rb").read() if options.event_file else options.event.encode()
    with FakeRuntimeApi() as api:
        process = api.start(command, options.handler, os.path.abspath(options.cwd))
        answer = api.invoke(event, process, raw=True)
        if answer is None and not api.init_errors.empty():
            answer = api.init_errors.get()
        out, err = api.output(process)
        sys.stderr.write((out + err).decode("utf-8", "replace"))
        if answer is None:
            sys.exit("the runtime ended with %s and gave no answer" % process.returncode)
        print(answer.body.decode("utf-8", "replace"))
        for line in api.violations:
            print("violation:", line, file=sys.stderr)
        sys.exit(0 if answer.kind == "response" and not answer.trailers and not api.violations else 1)


if __name__ == "__main__":
    main()
