"""Mayfly's own bootstraps against the frames of docs/formats/framed-protocol.md, byte by byte and without a server."""
import json
import os
import shutil
import struct
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HELLO, READY, INIT_ERROR, RESPONSE, ERROR, BEGIN, CHUNK, END, INIT, INVOKE, CREDIT = 1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 18
PROGRAMS = {
    "python": [sys.executable, f"{ROOT}/runtimes/python/bootstrap.py"],
    "node": [shutil.which("node") or "node", f"{ROOT}/runtimes/nodejs/bootstrap.cjs"],
}
HANDLERS = {
    "python": ("app.py", "import os, time, extra\ndef handler(event, context):\n"
                         "    return [event, os.environ['MINE'], 'OLD' in os.environ, os.getcwd(), time.strftime('%H', time.gmtime(0)),\n"
                         "            time.localtime(0).tm_hour, extra.word, context.function_name, context.aws_request_id]\n"),
    "node": ("app.js", "const extra = require('extra');\nexports.handler = async (event, context) =>\n"
                       "  [event, process.env.MINE, 'OLD' in process.env, process.cwd(), '00', new Date(0).getHours(), extra.word,\n"
                       "   context.functionName, context.awsRequestId];\n"),
}


def frame(kind, run, body=b""):
    return struct.pack("<3I", len(body), kind, run) + body


def text(value):
    return struct.pack("<I", len(value.encode())) + value.encode()


def init(variables=None, directory="/", concurrency=1, window=262144):
    replaced = [text(f"{name}={value}") for name, value in (variables or {}).items()]
    return frame(INIT, 0, struct.pack("<4I2Q", 1, int(variables is not None), concurrency, window, 6 << 20, 200 << 20) + text(directory) +
                 struct.pack("<I", len(replaced)) + b"".join(replaced))


def invoke(run, event, request_id="id-1", trace="Root=1"):
    texts = [part.encode() for part in (request_id, "arn:f", trace, "", "")]
    return frame(INVOKE, run, struct.pack("<q5I", 4102444800000, *map(len, texts)) + b"".join(texts) + json.dumps(event).encode())


class Bootstrap:
    def __init__(self, language, **variables):
        inner_in, self.out = os.pipe()
        self.into, inner_out = os.pipe()
        env = {"PATH": os.environ["PATH"], "_MAYFLY_CONTROL_FDS": f"{inner_in},{inner_out}", **variables}
        self.process = subprocess.Popen(PROGRAMS[language], env=env, pass_fds=(inner_in, inner_out))
        os.close(inner_in)
        os.close(inner_out)
        self.rest = b""

    def send(self, data):
        os.write(self.out, data)

    def receive(self):
        while len(self.rest) < 12 or len(self.rest) < 12 + struct.unpack_from("<I", self.rest)[0]:
            data = os.read(self.into, 65536)
            assert data, "the bootstrap ended"
            self.rest += data
        length, kind, run = struct.unpack_from("<3I", self.rest)
        body, self.rest = self.rest[12:12 + length], self.rest[12 + length:]
        return kind, run, body

    def end(self):
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.into)


@pytest.fixture
def start():
    started = []

    def make(language, **variables):
        if not os.path.exists(PROGRAMS[language][0]):
            pytest.skip(f"no interpreter for {language}")
        started.append(Bootstrap(language, **variables))
        kind, run, body = started[-1].receive()
        assert (kind, run, body[:4]) == (HELLO, 0, b"\1\0\0\0") and body[8:].startswith(b"mayfly-")
        return started[-1]

    yield make
    for each in started:
        each.end()


@pytest.mark.parametrize("language", HANDLERS)
def test_a_runtime_booted_ahead_of_time_becomes_a_function_with_init(language, start, tmp_path):
    name, source = HANDLERS[language]
    (tmp_path / name).write_text(source)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "extra.py").write_text("word = 'found'\n")
    (tmp_path / "shared" / "extra.js").write_text("exports.word = 'found';\n")
    runtime = start(language, OLD="1")
    runtime.send(init({"MINE": "é=1", "TZ": "Etc/GMT-5", "_HANDLER": "app.handler", "LAMBDA_TASK_ROOT": str(tmp_path),
                       "AWS_LAMBDA_FUNCTION_NAME": "late", "PYTHONPATH": str(tmp_path / "shared"), "NODE_PATH": str(tmp_path / "shared")},
                      directory=str(tmp_path)))
    assert runtime.receive() == (READY, 0, b"")
    runtime.send(invoke(7, {"a": 1}))
    kind, run, body = runtime.receive()
    assert (kind, run) == (RESPONSE, 7)
    assert json.loads(body) == [{"a": 1}, "é=1", False, str(tmp_path), "00", 5, "found", "late", "id-1"]


@pytest.mark.parametrize("language", HANDLERS)
def test_errors_of_the_init_and_of_invocations_go_out_with_their_types(language, start, tmp_path):
    runtime = start(language, LAMBDA_TASK_ROOT=str(tmp_path), _HANDLER="missing.handler")
    runtime.send(init())
    kind, run, body = runtime.receive()
    length = struct.unpack_from("<I", body)[0]
    assert (kind, run, body[4:4 + length]) == (INIT_ERROR, 0, b"Runtime.ImportModuleError")
    assert json.loads(body[4 + length:])["errorType"] == "Runtime.ImportModuleError"
    assert runtime.process.wait(10) != 0

    (tmp_path / "app.py").write_text("def handler(event, context):\n    raise KeyError('no')\n")
    (tmp_path / "app.js").write_text("exports.handler = async () => { throw new RangeError('no'); };\n")
    runtime = start(language, LAMBDA_TASK_ROOT=str(tmp_path), _HANDLER="app.handler")
    runtime.send(init())
    assert runtime.receive()[0] == READY
    for number in (1, 2):
        runtime.send(invoke(number, {}))
        kind, run, body = runtime.receive()
        length = struct.unpack_from("<I", body)[0]
        assert (kind, run) == (ERROR, number) and body[4:4 + length] in (b"KeyError", b"RangeError")


def test_a_node_stream_waits_for_credit(start, tmp_path):
    (tmp_path / "app.js").write_text("exports.handler = awslambda.streamifyResponse(async (event, out) => {\n"
                                     "  out.setContentType('text/plain'); out.write('x'.repeat(250)); out.end(); });\n")
    runtime = start("node", LAMBDA_TASK_ROOT=str(tmp_path), _HANDLER="app.handler")
    runtime.send(init(window=100))
    assert runtime.receive()[0] == READY
    runtime.send(invoke(1, {}))
    assert runtime.receive() == (BEGIN, 1, b"text/plain")
    assert runtime.receive() == (CHUNK, 1, b"x" * 100)
    runtime.send(frame(CREDIT, 1, struct.pack("<I", 60)))
    assert runtime.receive() == (CHUNK, 1, b"x" * 60)
    runtime.send(frame(CREDIT, 1, struct.pack("<I", 500)))
    assert runtime.receive() == (CHUNK, 1, b"x" * 90)
    assert runtime.receive() == (END, 1, b"")
    runtime.send(invoke(2, {}))
    assert runtime.receive() == (BEGIN, 2, b"text/plain")


def test_node_runs_several_at_once_and_tells_them_apart(start, tmp_path):
    (tmp_path / "app.js").write_text(
        "const id = () => globalThis[Symbol.for('aws.lambda.runtime.requestId')];\n"
        "exports.handler = async (event, context) => { await new Promise((go) => setTimeout(go, event.wait)); return [id(), context.awsRequestId]; };\n")
    runtime = start("node", LAMBDA_TASK_ROOT=str(tmp_path), _HANDLER="app.handler")
    runtime.send(init(concurrency=2))
    assert runtime.receive()[0] == READY
    runtime.send(invoke(1, {"wait": 400}, "one") + invoke(2, {"wait": 1}, "two"))
    assert [(run, json.loads(body)) for _, run, body in (runtime.receive(), runtime.receive())] == [(2, ["two", "two"]), (1, ["one", "one"])]


def test_a_python_context_has_its_attributes_however_it_is_asked(start, tmp_path):
    (tmp_path / "app.py").write_text(
        "import copy, weakref\n"
        "def handler(event, context):\n"
        "    how = event['how']\n"
        "    if how == 'vars': return sorted(vars(context))\n"
        "    if how == 'dir': return [n for n in dir(context) if not n.startswith('_')]\n"
        "    if how == 'copy': return copy.copy(context).aws_request_id\n"
        "    if how == 'hasattr': return [hasattr(context, 'tenant_id'), hasattr(context, 'nothing'), hasattr(context, 'nothing')]\n"
        "    if how == 'weakref': return weakref.ref(context)() is context\n"
        "    if how == 'set':\n"
        "        context.function_name = 'mine'\n"
        "        return [context.function_name, context.aws_request_id]\n"
        "    if how == 'delete':\n"
        "        del context.aws_request_id\n"
        "        return hasattr(context, 'aws_request_id')\n")
    runtime = start("python", LAMBDA_TASK_ROOT=str(tmp_path), _HANDLER="app.handler", AWS_LAMBDA_FUNCTION_NAME="f")
    runtime.send(init())
    assert runtime.receive()[0] == READY

    def ask(how):
        runtime.send(invoke(1, {"how": how}))
        kind, _, body = runtime.receive()
        assert kind == RESPONSE, body
        return json.loads(body)

    names = ["aws_request_id", "client_context", "function_name", "function_version", "identity", "invoked_function_arn", "log_group_name",
             "log_stream_name", "memory_limit_in_mb", "tenant_id"]
    assert ask("vars") == sorted(["_deadline_ms", *names])
    assert ask("dir") == sorted([*names, "get_remaining_time_in_millis", "log", "w3c"])
    assert ask("copy") == "id-1"
    assert ask("hasattr") == [True, False, False]
    assert ask("weakref") is True
    assert ask("set") == ["mine", "id-1"]
    assert ask("delete") is False


def trace_of(number):
    return f"Root=1-{number:08x}-6d0e4d0fa0cec04cf7db4a6e;Parent=53995c3f42cd8ad8;Sampled=0"


@pytest.mark.parametrize("calls_before", [1, 300])
def test_python_shows_the_trace_of_each_invocation_to_all_that_read_variables(calls_before, start, tmp_path):
    (tmp_path / "app.py").write_text(
        "import os, subprocess\n"
        "NAME = '_X_AMZN_TRACE_ID'\n"
        "def handler(event, context):\n"
        "    if event == 'set': os.environ[NAME] = 'its own'\n"
        "    if event in ('look', 'set'):\n"
        "        return [os.environ.get(NAME), subprocess.run(['printenv', NAME], capture_output=True, text=True).stdout.strip()]\n")
    runtime = start("python", LAMBDA_TASK_ROOT=str(tmp_path), _HANDLER="app.handler")
    runtime.send(init())
    assert runtime.receive()[0] == READY

    def ask(event, trace):
        runtime.send(invoke(1, event, trace=trace))
        return json.loads(runtime.receive()[2])

    for number in range(calls_before):
        ask("", trace_of(number))
    assert ask("look", trace_of(1000)) == [trace_of(1000)] * 2
    assert ask("look", trace_of(1001) + ";Lineage=1:2:3") == [trace_of(1001) + ";Lineage=1:2:3"] * 2
    assert ask("set", trace_of(1002)) == ["its own"] * 2
    assert ask("look", trace_of(1003)) == [trace_of(1003)] * 2
    assert ask("look", trace_of(1004) + "x" * 1500) == [trace_of(1004) + "x" * 1500] * 2
    assert ask("look", trace_of(1005)) == [trace_of(1005)] * 2
    assert ask("look", "") == [None, ""]
    assert ask("look", trace_of(1006)) == [trace_of(1006)] * 2


@pytest.mark.parametrize("language", HANDLERS)
def test_invocations_leave_nothing_behind(language, start, tmp_path):
    """In Python, what the process has allocated; in Node, what young collections leave for a full one."""
    (tmp_path / "app.py").write_text(
        "def handler(event, context):\n"
        "    if event == 'size':\n"
        "        with open('/proc/self/statm') as statm: return int(statm.read().split()[1]) * 4096\n")
    (tmp_path / "app.js").write_text(
        "const old = () => require('v8').getHeapSpaceStatistics().find((space) => space.space_name === 'old_space').space_used_size;\n"
        "exports.handler = async (event) => (event === 'size' ? old() : null);\n")
    runtime = start(language, LAMBDA_TASK_ROOT=str(tmp_path), _HANDLER="app.handler")
    runtime.send(init())
    assert runtime.receive()[0] == READY

    def ask(event, number):
        runtime.send(invoke(number, event, trace=trace_of(number)))
        return json.loads(runtime.receive()[2])

    for number in range(1, 3001):
        ask("x" * 200, number)
    before = ask("size", 3001)
    for number in range(3002, 23002):
        ask("x" * 200, number)
    assert ask("size", 23002) - before < 1_000_000
