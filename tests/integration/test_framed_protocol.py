"""What Mayfly's own runtimes do over the control pipes that only shows in a real environment (docs/formats/framed-protocol.md)."""
import time

from mayfly_server import ROLE, invoke, python_function, zip_of

# What a program that the function starts says of the descriptors that the runtime alone may have.
CHILD = "(for fd in 3 4 5; do [ -e /proc/self/fd/$fd ] && echo $fd is open; done; echo fds=$_MAYFLY_CONTROL_FDS)"
NOTHING = "fds=\n"


def node_function(aws, name, source, **settings):
    aws.create_function(FunctionName=name, Runtime="nodejs20.x", Handler="index.handler", Role=ROLE,
                        Code={"ZipFile": zip_of({"index.js": source})}, **settings)


def test_programs_that_a_python_function_starts_do_not_inherit_the_control_pipes(aws, name):
    python_function(aws, name, f"import os\ndef handler(event, context):\n    os.system({CHILD!r} + ' >/tmp/out')\n    return open('/tmp/out').read()\n")
    listing, error, log, _ = invoke(aws, name)
    assert error is None, log
    assert listing == NOTHING


def test_programs_that_a_node_function_starts_do_not_inherit_the_control_pipes(aws, name):
    node_function(aws, name, "const { execSync } = require('child_process');\n"
                             f"exports.handler = async () => execSync({CHILD!r}).toString();\n")
    listing, error, log, _ = invoke(aws, name)
    assert error is None, log
    assert listing == NOTHING


def test_a_function_that_writes_garbage_to_its_control_pipe_ends_alone(aws, name):
    python_function(aws, name, """
import os
def handler(event, context):
    if event.get("break"):
        os.write(5, b"\\xff" * 4096)
    return os.getpid(), id(context)
""")
    assert invoke(aws, name)[1] is None
    answer, error, log, _ = invoke(aws, name, {"break": True})
    assert error == "Unhandled" and answer["errorType"] == "Runtime.ProtocolError", answer
    assert "The runtime broke Mayfly's framed protocol" in log
    assert invoke(aws, name)[1] is None


def test_a_python_function_without_its_control_pipes_uses_the_runtime_api(aws, name):
    wrapper = "#!/bin/sh\nexec \"$@\" 4<&- 5>&-\n"
    python_function(aws, name, "def handler(event, context):\n    return event\n", files={"wrapper": (wrapper, 0o755)},
                    Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/wrapper"}})
    answer, error, log, _ = invoke(aws, name, {"over": "HTTP"})
    assert error is None and answer == {"over": "HTTP"}, log


def test_a_node_function_without_its_control_pipes_uses_the_runtime_api(aws, name):
    wrapper = "#!/bin/sh\nexec \"$@\" 4<&- 5>&-\n"
    aws.create_function(FunctionName=name, Runtime="nodejs20.x", Handler="index.handler", Role=ROLE,
                        Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/wrapper"}},
                        Code={"ZipFile": zip_of({"index.js": "exports.handler = async (event) => event;", "wrapper": (wrapper, 0o755)})})
    answer, error, log, _ = invoke(aws, name, {"over": "HTTP"})
    assert error is None and answer == {"over": "HTTP"}, log


def test_the_runtime_api_refuses_a_runtime_that_took_work_by_frames(aws, name):
    python_function(aws, name, """
import os, urllib.request, urllib.error
def handler(event, context):
    try:
        urllib.request.urlopen(f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation/next", timeout=5)
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()
""", Timeout=10)
    answer, error, log, _ = invoke(aws, name)
    assert error is None and answer[0] == 403 and "framed protocol" in answer[1], (answer, log)


def test_large_events_and_responses_pass(aws, name):
    python_function(aws, name, "def handler(event, context):\n    return event\n", MemorySize=512, Timeout=20)
    large = {"text": "x" * 5_000_000}
    answer, error, _, _ = invoke(aws, name, large)
    assert error is None and answer == large
    assert invoke(aws, name, {"small": 1})[0] == {"small": 1}


def test_a_response_that_is_too_large_leaves_the_environment_as_it_was(aws, name):
    source = "n = 0\ndef handler(event, context):\n    global n\n    n += 1\n    return n if event else 'x' * 7_000_000\n"
    python_function(aws, name, source, MemorySize=512, Timeout=20)
    assert invoke(aws, name, {"count": True})[0] == 1
    answer, error, _, _ = invoke(aws, name, {})
    assert error == "Unhandled" and answer["errorType"] == "Function.ResponseSizeTooLarge"
    assert invoke(aws, name, {"count": True})[0] == 3


def test_the_python_runtime_comes_from_bytecode(own_server):
    aws = own_server().client("lambda")
    python_function(aws, "compiled", """
import os, sys
def handler(event, context):
    cached = sys.modules["mayfly_runtime"].__spec__.cached
    return os.path.exists(cached) and int.from_bytes(open(cached, "rb").read()[4:8], "little")
""")
    deadline = time.monotonic() + 30  # it is compiled while the server runs already
    while (flags := invoke(aws, "compiled")[0]) is False and time.monotonic() < deadline:
        time.sleep(0.2)
    assert flags == 1, "bytecode that is taken without a look at the source"


def test_the_call_after_one_that_ended_its_process_is_served(aws, name):
    """Whose process dies of something nobody caught answers its own call; the next must not be handed to it meanwhile."""
    source = """exports.handler = async (event) => {
      if (!event.crash) return 'fine';
      setImmediate(() => Promise.reject(new Error('nobody catches this')));
      return new Promise(() => {});
    };"""
    aws.create_function(FunctionName=name, Runtime="nodejs20.x", Role=ROLE, Handler="index.handler", Timeout=10, Code={"ZipFile": zip_of({"index.js": source})})
    for _ in range(12):
        answer, error, _, _ = invoke(aws, name, {"crash": True})
        assert error == "Unhandled" and answer["errorType"] == "Runtime.UnhandledPromiseRejection", answer
        assert invoke(aws, name, {})[:2] == ("fine", None)
