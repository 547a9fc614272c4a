"""Mayfly's own runtime clients against the official ones: same handler, same events, same answers.

Every case runs twice over a real Runtime API socket, once under the official client and once under ours, and what both sent is
compared: answer or error, its JSON, its type, the log lines, the exit code. Where ours differs on purpose, the case says so.
"""
import base64
import json
import os
import re
import shutil
import struct
import subprocess
import threading
import time

import pytest
from support import HANDLERS, ROOT, UUID, Unavailable, body_of, build_client, fetch_node, masked, nodes, pythons, run, unpack
from fake_runtime_api import FakeRuntimeApi

PYTHON_BOOTSTRAP = os.path.join(ROOT, "runtimes", "python", "bootstrap.py")
NODE_BOOTSTRAPS = [os.path.join(ROOT, "runtimes", "nodejs", name) for name in ("bootstrap.cjs", "bootstrap.mjs")]
PYTHON_HANDLERS = os.path.join(HANDLERS, "python")
NODE_HANDLERS = os.path.join(HANDLERS, "nodejs")
PYTHONS, NODES = pythons(), nodes()
WANTED_PYTHONS = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"]
WANTED_NODES = ["18", "20", "22", "24"]
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}


def interpreter(found, minor):
    for version, path in found.items():
        if version.startswith(minor + "."):
            return path
    fetched = fetch_node(minor) if found is NODES else None
    return fetched or pytest.skip("no interpreter %s on this machine" % minor)


def official(name, tmp_path_factory):
    try:
        return unpack(build_client(name, tmp_path_factory.mktemp("zip")), tmp_path_factory.mktemp(name))
    except Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def official_python(tmp_path_factory):
    folder = official("python", tmp_path_factory)
    return ["/usr/bin/python3", "-m", "awslambdaric"], {"PYTHONPATH": PYTHON_HANDLERS + ":" + folder}


@pytest.fixture(scope="session")
def official_node(tmp_path_factory):
    return os.path.join(official("nodejs", tmp_path_factory), "node_modules", "aws-lambda-ric", "bin", "index.mjs")


# ------------------------------------------------------------------------------------------------------- comparable forms


def user_frames(stack):
    """The stack without frames of the clients, of the interpreter and without the marks that only some Python versions draw."""
    kept = []
    for frame in stack:
        lines = [line for line in frame.splitlines() if not re.fullmatch(r"\s*[~^]+\s*", line)]
        if "/handlers/" in frame or not re.match(r"\s*(File \"|at )", frame):
            kept.append(re.sub(r"at .*\((.*)\)$", r"at \1", "\n".join(lines)))  # how V8 names the function depends on its caller
    return [frame for frame in kept if "awslambdaric" not in frame and "/runtimes/" not in frame and "aws-lambda-ric" not in frame]


def comparable(answer):
    if answer is None:
        return None
    body = body_of(answer)
    mode = answer.headers.get("lambda-runtime-function-response-mode")
    seen = {"kind": answer.kind, "type": answer.headers.get("content-type"), "mode": mode}
    if answer.trailers:
        seen["trailer type"] = answer.trailers.get("lambda-runtime-function-error-type")
        failure = json.loads(base64.b64decode(answer.trailers["lambda-runtime-function-error-body"]))
        seen["trailer body"] = dict(failure, trace=user_frames(failure["trace"]))
    if isinstance(body, dict):
        if "errorMessage" in body:
            body["errorMessage"] = without_client_path(body["errorMessage"])
        for key in ("stackTrace", "trace"):
            if answer.kind != "response" and isinstance(body.get(key), list):
                body[key] = user_frames(body[key])
    if answer.kind != "response":
        seen["error type"] = body.get("errorType")
        seen.pop("type")
    return dict(seen, body=body)


def without_client_path(text):
    return re.sub(r'[^ "\n]*/(aws-lambda-ric/dist/index.mjs|runtimes/nodejs/bootstrap.cjs)', "CLIENT", text)


def log_lines(text):
    """Log lines with ids and times masked, and without stacks, which name the client's own files."""
    lines = []
    for line in re.split(r"[\r\n]", masked(without_client_path(text))):
        if line.startswith("\xa0") and "/handlers/" not in line:  # frames of the clients and of the interpreter
            continue
        line = re.sub(r"most buffered \d+", "most buffered", line)
        line = re.sub(r'"(stack|stackTrace|trace)":\s*\[(?:"(?:[^"\\]|\\.)*"(?:,\s*)?)*\]', r'"\1":[]', line)
        if line and not line.startswith("Executing '") and "LAMBDA_WARNING" not in line:
            lines.append(line)
    return lines


def same(official_outcome, own_outcome, logs=True):
    assert [comparable(a) for a in own_outcome.answers] == [comparable(a) for a in official_outcome.answers]
    assert comparable(own_outcome.init_error) == comparable(official_outcome.init_error)
    assert own_outcome.code == official_outcome.code
    assert own_outcome.violations == []
    if logs:
        assert log_lines(own_outcome.out) == log_lines(official_outcome.out)


# --------------------------------------------------------------------------------------------------------------- Python

W3C = {"traceparent": "00-1", "other": "x"}
CLIENT_CONTEXT = json.dumps({"custom": {"k": "v"}, "env": {"e": 1}, "client": {"app_title": "t"}, "w3c": W3C})
IDENTITY = json.dumps({"cognitoIdentityId": "id", "cognitoIdentityPoolId": "pool"})
CALLER = {"Lambda-Runtime-Client-Context": CLIENT_CONTEXT, "Lambda-Runtime-Cognito-Identity": IDENTITY}
JSON_LOG = {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "INFO"}

PYTHON_CASES = {
    "echoes events": ("cases.echo", [{"a": [1, 2.5, "é", None, True]}, [], "text", 5, None, "x" * 300000], {}, {}),
    "gives the context": ("cases.context", [{}], {}, {}),
    "gives client context, identity and tenant": (
        "cases.context",
        [{}],
        {},
        dict(CALLER, **{"Lambda-Runtime-Aws-Tenant-Id": "t1"}),
    ),
    "clears the trace id": ("cases.context", [{}], {}, {"Lambda-Runtime-Trace-Id": None}),
    "refuses a client context that is not JSON": ("cases.context", [{}], {}, {"Lambda-Runtime-Client-Context": "{"}),
    "encodes odd values": ("cases.odd_values", [{}], {}, {}),
    "encodes odd values as python3.12 does": ("cases.odd_values", [{}], {"AWS_EXECUTION_ENV": "AWS_Lambda_python3.12"}, {}),
    "answers bytes": ("cases.returns_bytes", [{}], {}, {}),
    "answers none": ("cases.returns_none", [{}], {}, {}),
    "refuses a date": ("cases.returns_date", [{}, {}], {}, {}),
    "refuses a set": ("cases.returns_set", [{}], {}, {}),
    "refuses a cycle": ("cases.returns_cycle", [{}], {}, {}),
    "refuses a tuple as key": ("cases.bad_key", [{}], {}, {}),
    "refuses bytes that are not text": ("cases.bad_bytes", [{}], {}, {}),
    "refuses a coroutine": ("cases.coroutine", [{}], {}, {}),
    "reports an exception and goes on": ("cases.raises", [{}, {}], {}, {}),
    "reports an exception without text": ("cases.raises_empty", [{}], {}, {}),
    "reports a chained exception": ("cases.raises_chained", [{}], {}, {}),
    "reports an import inside the handler": ("cases.raises_import", [{}], {}, {}),
    "reports a message of two lines": ("cases.raises_multiline", [{}], {}, {}),
    "reports errors as JSON log": ("cases.raises", [{}], JSON_LOG, {}),
    "exits with 0": ("cases.exits", [{}], {}, {}),
    "exits with 5": ("cases.exits", [{"code": 5}], {}, {}),
    "exits at once": ("cases.os_exits", [{}], {}, {}),
    "prints": ("cases.prints", [{}, {}], {}, {}),
    "logs as text": ("cases.logs", [{}], {}, {}),
    "logs as text with a level": ("cases.logs", [{}], {"AWS_LAMBDA_LOG_LEVEL": "DEBUG"}, {}),
    "logs as JSON": ("cases.logs", [{}], JSON_LOG, {"Lambda-Runtime-Aws-Tenant-Id": "t1"}),
    "has a root log handler": ("cases.basic_config", [{}], {}, {}),
    "finds nested modules": ("deep/er/module.handler", [{}], {}, {}),
    "finds dotted modules": ("deep.er.module.handler", [{}], {}, {}),
    "fails at init: no module": ("nowhere.handler", [], {}, {}),
    "fails at init: no function": ("cases.nowhere", [], {}, {}),
    "fails at init: no dot": ("cases", [], {}, {}),
    "fails at init: built-in module": ("sys.exit", [], {}, {}),
    "fails at init: syntax": ("broken_syntax.handler", [], {}, {}),
    "fails at init: missing import": ("broken_import.handler", [], {}, {}),
    "fails at init: exception": ("raises_at_load.handler", [], {}, {}),
    "fails at init: exit": ("exits_at_load.handler", [], {}, {}),
    "fails at init as JSON log": ("nowhere.handler", [], JSON_LOG, {}),
    "is not callable": ("cases.not_callable", [{}], {}, {}),
}


@pytest.mark.parametrize("case", PYTHON_CASES)
def test_python_does_what_awslambdaric_does(case, official_python):
    handler, events, env, headers = PYTHON_CASES[case]
    command, path = official_python
    theirs = run(command + [handler], PYTHON_HANDLERS, handler, events, dict(env, **path, **NO_BYTECODE), headers)
    ours = run(["/usr/bin/python3", PYTHON_BOOTSTRAP], PYTHON_HANDLERS, handler, events, dict(env, **NO_BYTECODE), headers)
    same(theirs, ours)


@pytest.fixture(scope="session")
def python_answers():
    """Our own answers under the system's interpreter, which the test above compares with the official client's."""
    kept = {}
    for case, (handler, events, env, headers) in PYTHON_CASES.items():
        kept[case] = run(["/usr/bin/python3", PYTHON_BOOTSTRAP], PYTHON_HANDLERS, handler, events, dict(env, **NO_BYTECODE), headers)
    return kept


@pytest.mark.parametrize("minor", WANTED_PYTHONS)
def test_python_does_the_same_under_every_interpreter(minor, python_answers):
    python = interpreter(PYTHONS, minor)
    for case, (handler, events, env, headers) in PYTHON_CASES.items():
        ours = run([python, PYTHON_BOOTSTRAP], PYTHON_HANDLERS, handler, events, dict(env, **NO_BYTECODE), headers)
        expected = python_answers[case]
        if case == "fails at init: syntax":  # the compiler's words differ between versions
            assert ours.init_error.json["errorType"] == "Runtime.UserCodeSyntaxError"
            continue
        if case in ("refuses a coroutine", "logs as JSON"):  # 3.14 has other words; taskName is a field of 3.12 and later
            assert [a.kind for a in ours.answers] == [a.kind for a in expected.answers], case
            continue
        try:
            same(expected, ours)
        except AssertionError as failure:
            raise AssertionError("%s under %s: %s" % (case, python, failure)) from None


def test_python_imports_little_before_the_first_event():
    script = "import sys, os\nsys.path.insert(0, %r)\nimport mayfly_runtime\nprint(*sys.modules)" % os.path.dirname(PYTHON_BOOTSTRAP)
    out = subprocess.run(["/usr/bin/python3", "-S", "-c", script], stdout=subprocess.PIPE, check=True, text=True).stdout.split()
    for heavy in ("re", "json", "logging", "traceback", "socket", "http.client", "asyncio", "threading"):
        assert heavy not in out, heavy


def frames(data):
    found = []
    while data:
        kind, length, micros = struct.unpack(">IIQ", data[:16])
        found.append((kind, masked(data[16 : 16 + length].decode("utf-8"))))
        assert abs(micros / 1e6 - time.time()) < 600
        data = data[16 + length :]
    return found


def framed(command, cwd, handler, env):
    """What a runtime writes to its log descriptor."""
    reading, writing = os.pipe()
    collected = []

    def read():
        while True:
            data = os.read(reading, 65536)
            if not data:
                return
            collected.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    with FakeRuntimeApi() as api:
        env = dict(env, _LAMBDA_TELEMETRY_LOG_FD=str(writing))
        process = api.start(command, handler, cwd, env, pass_fds=[writing])
        os.close(writing)
        api.invoke({}, process)
        out, _ = api.output(process)
    reader.join(10)
    os.close(reading)
    return frames(b"".join(collected)), out


@pytest.mark.parametrize("form", ["text", "text with a level", "JSON"])
@pytest.mark.parametrize("handler", ["cases.logs", "cases.raises"])
def test_python_frames_its_log_as_awslambdaric_does(form, handler, official_python):
    env = {"text": {}, "text with a level": {"AWS_LAMBDA_LOG_LEVEL": "WARNING"}, "JSON": JSON_LOG}[form]
    command, path = official_python
    theirs, their_out = framed(command + [handler], PYTHON_HANDLERS, handler, dict(env, **path, **NO_BYTECODE))
    ours, our_out = framed(["/usr/bin/python3", PYTHON_BOOTSTRAP], PYTHON_HANDLERS, handler, dict(env, **NO_BYTECODE))
    assert ours == theirs
    assert our_out == their_out


# ----------------------------------------------------------------------------------------------------------------- Node

NODE_CASES = {
    "echoes events": ("cases.echo", [{"a": [1, 2.5, "é", None, True]}, [], "text", 5, None, "x" * 300000], {}, {}),
    "gives the context": (
        "cases.context",
        [{}],
        {},
        dict(CALLER, **{"Lambda-Runtime-Deadline-Ms": "4102444800000"}),
    ),
    "clears the trace id": ("cases.context", [{}], {}, {"Lambda-Runtime-Trace-Id": None}),
    "answers null for undefined": ("cases.returnsUndefined", [{}], {}, {}),
    "encodes odd values": ("cases.returnsFunction", [{}], {}, {}),
    "refuses a cycle": ("cases.returnsCycle", [{}, {}], {}, {}),
    "refuses a big integer": ("cases.returnsBigInt", [{}], {}, {}),
    "reports an exception and goes on": ("cases.raises", [{}, {}], {}, {}),
    "reports a synchronous exception": ("cases.raisesSync", [{}, {}], {}, {}),
    "reports a thrown string": ("cases.raisesString", [{}], {}, {}),
    "reports a thrown object": ("cases.raisesObject", [{}], {}, {}),
    "reports a thrown null": ("cases.raisesNull", [{}], {}, {}),
    "reports a named error": ("cases.raisesNamed", [{}], {}, {}),
    "takes a callback": ("cases.callback", [{}, {}], {}, {}),
    "takes a callback's error": ("cases.callbackError", [{}, {}], {}, {}),
    "takes a callback's text": ("cases.callbackErrorText", [{}], {}, {}),
    "takes the first callback only": ("cases.callbackTwice", [{}, {}], {}, {}),
    "waits for the empty event loop": ("cases.callbackThenWaits", [{}, {}], {}, {}),
    "does not wait when told so": ("cases.callbackAtOnce", [{}, {}], {}, {}),
    "takes context.succeed": ("cases.succeed", [{}, {}], {}, {}),
    "takes context.fail": ("cases.fail", [{}, {}], {}, {}),
    "takes context.fail without error": ("cases.failEmpty", [{}], {}, {}),
    "takes context.done": ("cases.done", [{}], {}, {}),
    "ignores a synchronous value": ("cases.returnsValueSync", [{}, {}], {}, {}),
    "answers null for a handler that does not": ("cases.neverAnswers", [{}, {}], {}, {}),
    "answers null when the loop is empty": ("cases.neverAnswersLater", [{}, {}], {}, {}),
    "ends on an unhandled rejection": ("cases.unhandledRejection", [{}], {}, {}),
    "ends on an uncaught exception": ("cases.uncaught", [{}], {}, {}),
    "exits with 0": ("cases.exits", [{}], {}, {}),
    "exits with 5": ("cases.exits", [{"code": 5}], {}, {}),
    "finds nested properties": ("cases.nested.deep.handler", [{}], {}, {}),
    "logs as text": ("cases.logs", [{}], {}, {}),
    "logs as JSON": ("cases.logs", [{}], {"AWS_LAMBDA_LOG_FORMAT": "JSON"}, {}),
    "logs from a level on": ("cases.logs", [{}], {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "warn"}, {}),
    "logs errors as text": ("cases.logsError", [{}], {}, {}),
    "logs errors as JSON": ("cases.logsError", [{}], {"AWS_LAMBDA_LOG_FORMAT": "JSON"}, {}),
    "reports errors as JSON log": ("cases.raises", [{}], {"AWS_LAMBDA_LOG_FORMAT": "JSON"}, {}),
    "streams": ("cases.stream", [{}, {}], {}, {}),
    "streams an HTTP answer": ("cases.streamHttp", [{}, {}], {}, {}),
    "streams from a pipeline": ("cases.streamPipeline", [{}, {}], {}, {}),
    "streams from a pipe": ("cases.streamPipe", [{}, {}], {}, {}),
    "streams nothing": ("cases.streamEmpty", [{}, {}], {}, {}),
    "streams and fails first": ("cases.streamFailsFirst", [{}, {}], {}, {}),
    "streams and fails in the middle": ("cases.streamFailsMiddle", [{}, {}], {}, {}),
    "streams only from async handlers": ("cases.streamSync", [{}], {}, {}),
    "streams and sets the type too late": ("cases.streamTypeTooLate", [{}], {}, {}),
    "streams much": ("cases.streamMuch", [{"parts": 40}], {}, {}),
    "finds ES modules": ("es.handler", [{}], {}, {}),
    "finds .cjs": ("common.handler", [{}], {}, {}),
    "finds nested modules": ("deep/er/module.handler", [{}], {}, {}),
    "finds module folders": ("module/index.handler", [{}], {}, {}),
    "fails at init: no module": ("nowhere.handler", [], {}, {}),
    "fails at init: no function": ("cases.nowhere", [], {}, {}),
    "fails at init: not a function": ("cases.notCallable", [], {}, {}),
    "fails at init: no dot": ("cases", [], {}, {}),
    "fails at init: parent folder": ("../cases.handler", [], {}, {}),
    "fails at init: syntax": ("broken_syntax.handler", [], {}, {}),
    "fails at init: missing require": ("broken_import.handler", [], {}, {}),
    "fails at init: missing import": ("es_broken_import.handler", [], {}, {}),
    "fails at init: exception": ("raises_at_load.handler", [], {}, {}),
    "fails at init: exit": ("exits_at_load.handler", [], {}, {}),
    "fails at init as JSON log": ("cases.nowhere", [], {"AWS_LAMBDA_LOG_FORMAT": "JSON"}, {}),
}
# The classic client's behaviour, which its version for Node 24 and later no longer has.
NODE_CLASSIC = {"AWS_EXECUTION_ENV": "AWS_Lambda_nodejs20.x"}


@pytest.mark.parametrize("case", NODE_CASES)
def test_node_does_what_aws_lambda_ric_does(case, official_node):
    handler, events, env, headers = NODE_CASES[case]
    env = dict(env, **NODE_CLASSIC)
    theirs = run(["node", official_node, handler], NODE_HANDLERS, handler, events, env, headers)
    ours = run(["node", NODE_BOOTSTRAPS[0]], NODE_HANDLERS, handler, events, env, headers)
    same(theirs, ours)


@pytest.fixture(scope="session")
def node_answers():
    return {
        case: run(["node", NODE_BOOTSTRAPS[0]], NODE_HANDLERS, handler, events, dict(env, **NODE_CLASSIC), headers)
        for case, (handler, events, env, headers) in NODE_CASES.items()
    }


@pytest.mark.parametrize("major", WANTED_NODES)
def test_node_does_the_same_under_every_interpreter(major, node_answers):
    node = interpreter(NODES, major)
    for case, (handler, events, env, headers) in NODE_CASES.items():
        ours = run([node, NODE_BOOTSTRAPS[1]], NODE_HANDLERS, handler, events, dict(env, **NODE_CLASSIC), headers)
        expected = node_answers[case]
        if case.startswith("fails at init"):  # the engine's words differ between versions
            assert (ours.init_error is None) == (expected.init_error is None), case
            assert ours.init_error is None or ours.init_error.error_type == expected.init_error.error_type, case
            continue
        try:
            same(expected, ours, logs=not case.startswith("ends on"))
        except AssertionError as failure:
            raise AssertionError("%s under %s: %s" % (case, node, failure)) from None


@pytest.mark.parametrize("form", ["text", "JSON"])
@pytest.mark.parametrize("handler", ["cases.logs", "cases.logsError"])
def test_node_frames_its_log_as_aws_lambda_ric_does(form, handler, official_node):
    env = dict({"AWS_LAMBDA_LOG_FORMAT": form}, **NODE_CLASSIC)
    theirs, _ = framed(["node", official_node, handler], NODE_HANDLERS, handler, env)
    ours, _ = framed(["node", NODE_BOOTSTRAPS[0]], NODE_HANDLERS, handler, env)

    def without_stacks(found):
        return [(kind, re.sub(r"\n    at .*", "", text)) for kind, text in found]

    assert without_stacks(ours) == without_stacks(theirs)


def node_run(handler, events, **more):
    return run(["node", NODE_BOOTSTRAPS[0]], NODE_HANDLERS, handler, events, dict(NODE_CLASSIC, **more.pop("env", {})), **more)


def test_node_stream_reports_an_uncaught_exception_in_its_trailers():
    seen = node_run("cases.streamUncaught", [{}])
    answer = seen.answers[0]
    assert (answer.kind, answer.body, seen.code) == ("response", b"x", 129)
    assert answer.trailers["lambda-runtime-function-error-type"] == "Error"


def test_node_stream_that_is_never_ended_fails_instead_of_hanging():
    seen = node_run("cases.streamNeverEnds", [{}, {}])
    for answer in seen.answers:
        assert answer.body == b"part"
        assert b"Response stream is not finished." in base64.b64decode(answer.trailers["lambda-runtime-function-error-body"])


def test_node_stream_waits_for_a_slow_reader():
    def slow(api):
        api.read_delay = 0.01

    seen = node_run("cases.streamMuch", [{"parts": 200}], before=slow)
    assert len(seen.answers[0].body) == 200 * 65536
    most = int(re.search(r"most buffered (\d+)", seen.out).group(1))
    assert most <= 4 * 65536, "the stream holds %d bytes in memory" % most


def test_node_streams_each_write_at_once():
    seen = node_run("cases.stream", [{}])
    chunks = seen.answers[0].chunks
    assert chunks[0][1] == b"one" and len(chunks) >= 2
    assert chunks[1][0] - chunks[0][0] > 0.005


def test_node_24_refuses_callbacks_and_takes_plain_values():
    modern = {"AWS_EXECUTION_ENV": "AWS_Lambda_nodejs24.x"}
    refused = node_run("cases.callback", [], env=modern)
    assert refused.init_error.error_type == "Runtime.CallbackHandlerDeprecated"
    assert node_run("cases.returnsValueSync", [{}], env=modern).answers[0].json == "ignored"
    assert node_run("cases.returnsCycle", [{}], env=modern).answers[0].json["errorType"] == "Runtime.JSONStringifyError"


# ---------------------------------------------------------------------------------------------------- all own clients

CPP_SOURCE = """
#include <stdexcept>
#include "mayfly_lambda.h"
static mayfly::Response handle(const mayfly::Request& request, const mayfly::Context& context) {
  if (mayfly::json_field(request.event, "fail")) throw std::runtime_error("failed \\"as\\" asked");
  if (mayfly::json_field(request.event, "type")) return mayfly::Response::failure("My.Type", "told");
  if (mayfly::json_field(request.event, "id")) return mayfly::Response::json(mayfly::json_quote(context.request_id));
  return mayfly::Response::json(std::string(request.event));
}
static mayfly::Response stream(const mayfly::Request& request, const mayfly::Context&, mayfly::Stream& out) {
  const auto fail = mayfly::json_field(request.event, "fail");
  if (fail == "first") throw std::runtime_error("before the first byte");
  out.set_http_prelude("{\\"statusCode\\":201}");
  out.write("one");
  out.write("two");
  if (fail) throw std::runtime_error("in the middle");
  return {};
}
int main(int argc, char**) { return argc > 1 ? mayfly::run_streaming(stream) : mayfly::run(handle); }
"""


@pytest.fixture(scope="session")
def cpp_function(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cpp")
    (folder / "main.cc").write_text(CPP_SOURCE)
    compiler = next(filter(shutil.which, ("clang++-19", "g++", "c++")), None)
    if compiler is None:
        pytest.skip("no C++ compiler")
    command = [compiler, "-std=c++17", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]
    subprocess.run(command + ["-I" + os.path.join(ROOT, "runtimes", "cpp"), "main.cc", "-o", "bootstrap"], cwd=folder, check=True)
    return str(folder / "bootstrap")


def own_commands(cpp):
    return {
        "python": (["/usr/bin/python3", PYTHON_BOOTSTRAP], PYTHON_HANDLERS),
        "node": (["node", NODE_BOOTSTRAPS[0]], NODE_HANDLERS),
        "cpp": ([cpp], HANDLERS),
    }


def test_cpp_answers_and_reports_errors(cpp_function):
    big = "x" * 300000
    seen = run([cpp_function], HANDLERS, "any", [{"a": 1}, {"fail": 1}, {"type": 1}, {"id": 1}, big])
    assert seen.answers[0].json == {"a": 1}
    assert seen.answers[1].json == {"errorMessage": 'failed "as" asked', "errorType": "std::exception", "stackTrace": []}
    assert (seen.answers[2].kind, seen.answers[2].error_type) == ("error", "My.Type")
    assert UUID.fullmatch(seen.answers[3].json)
    assert seen.answers[4].json == big
    assert seen.violations == [] and "Sanitizer" not in seen.err


def test_cpp_streams(cpp_function):
    seen = run([cpp_function, "stream"], HANDLERS, "any", [{}, {"fail": "first"}, {"fail": "later"}, {}])
    good, first, later, again = seen.answers
    assert good.body == again.body == b'{"statusCode":201}' + b"\0" * 8 + b"onetwo"
    assert good.streaming and good.headers["content-type"] == "application/vnd.awslambda.http-integration-response"
    assert (first.kind, first.json["errorMessage"]) == ("error", "before the first byte")
    assert later.trailers["lambda-runtime-function-error-type"] == "std::exception"
    assert json.loads(base64.b64decode(later.trailers["lambda-runtime-function-error-body"]))["errorMessage"] == "in the middle"
    assert seen.violations == [] and "Sanitizer" not in seen.err


@pytest.mark.parametrize("runtime", ["python", "node", "cpp"])
def test_every_own_client_uses_one_connection(runtime, cpp_function):
    command, cwd = own_commands(cpp_function)[runtime]
    with FakeRuntimeApi() as api:
        process = api.start(command, "cases.echo", cwd, NO_BYTECODE)
        for number in range(5):
            assert api.invoke({"n": number}, process).json == {"n": number}
        assert {connection for connection, _, _, _ in api.requests} == {1}


@pytest.mark.parametrize("runtime", ["python", "node", "cpp"])
def test_every_own_client_goes_on_after_a_refused_response(runtime, cpp_function):
    command, cwd = own_commands(cpp_function)[runtime]
    with FakeRuntimeApi() as api:
        process = api.start(command, "cases.echo", cwd, NO_BYTECODE)
        api.response_status = (413, b'{"errorType":"RequestEntityTooLarge"}')
        api.invoke({}, process)
        assert api.invoke({"again": 1}, process).json == {"again": 1}
        out, err = api.output(process)
        assert b"413" in err


@pytest.mark.parametrize("runtime", ["python", "node", "cpp"])
def test_every_own_client_reads_chunked_events(runtime, cpp_function):
    command, cwd = own_commands(cpp_function)[runtime]
    with FakeRuntimeApi() as api:
        api.chunked_next = True
        process = api.start(command, "cases.echo", cwd, NO_BYTECODE)
        for event in ({"small": 1}, "y" * 200000, []):
            assert api.invoke(event, process).json == event


@pytest.mark.parametrize("runtime", ["python", "node", "cpp"])
def test_every_own_client_reconnects_when_its_connection_was_closed(runtime, cpp_function):
    command, cwd = own_commands(cpp_function)[runtime]
    with FakeRuntimeApi() as api:
        api.close_after_next = True
        process = api.start(command, "cases.echo", cwd, NO_BYTECODE)
        for number in range(3):
            assert api.invoke({"n": number}, process).json == {"n": number}


@pytest.mark.parametrize("runtime", ["python", "node", "cpp"])
def test_every_own_client_ends_with_a_reason_when_the_platform_is_gone(runtime, cpp_function):
    command, cwd = own_commands(cpp_function)[runtime]
    api = FakeRuntimeApi()
    process = api.start(command, "cases.echo", cwd, NO_BYTECODE)
    assert api.invoke({}, process).json == {}
    processes, api._processes = api._processes, []
    api.close()
    assert processes[0].wait(10) == 1
    assert api.output(process)[1]


# ------------------------------------------------------------------------------------------------- the official clients

BUILT = {"python": "index.handler", "nodejs": "index.handler", "go": "bootstrap", "rust": "bootstrap", "java": "Handler::handleRequest"}
# lambda_runtime names a boxed error by the type of the box.
ERROR_TYPES = {"java": "Handler$TestFailure", "rust": "::Sync>"}
STREAMING = {"nodejs": "index.stream", "go": "bootstrap", "rust": "bootstrap"}


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    folders = {}

    def get(name):
        if name not in folders:
            folders[name] = official(name, tmp_path_factory)
        return folders[name]

    return get


@pytest.mark.parametrize("client", BUILT)
def test_official_client_answers_fails_and_goes_on(client, built):
    folder = built(client)
    events = [{"a": ["é", 1]}, {"fail": True}, {"sleep_ms": 20}]
    seen = run([os.path.join(folder, "bootstrap")], folder, BUILT[client], events)
    good, failed, last = seen.answers
    assert good.kind == "response" and good.json["echo"] == events[0] and good.json["function"] == "test-function"
    assert failed.kind == "error" and failed.json["errorMessage"] == "failed as asked"
    assert failed.json["errorType"].endswith(ERROR_TYPES.get(client, "TestFailure"))
    assert last.json["echo"] == events[2]
    assert seen.violations == []


@pytest.mark.parametrize("client", STREAMING)
def test_official_client_streams(client, built):
    folder = built(client)
    seen = run([os.path.join(folder, "bootstrap")], folder, STREAMING[client], [{"stream": ["a", "b"], "sleep_ms": 20}, {"stream": ["c"]}])
    assert [a.body.rpartition(b"\0")[2] for a in seen.answers] == [b"ab", b"c"]
    # aws-lambda-go sends every answer in chunks and names the mode for none.
    assert all(a.streaming == (client != "go") for a in seen.answers)
    assert all("lambda-runtime-function-error-type" in a.headers["trailer"].lower() for a in seen.answers)
