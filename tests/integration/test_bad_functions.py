"""Functions that misbehave in every way they can: the caller gets an AWS-shaped error, the log says why, the next call works."""
import glob
import json
import os
import re
import signal
import threading
import time

import pytest

from mayfly_server import ROLE, invoke, python_function, zip_of


def works_afterwards(aws, name):
    answer, error, log, _ = invoke(aws, name, {"ok": True})
    assert error is None and answer == "fine", (answer, error, log)


def function(aws, name, body, head="", **settings):
    source = f"import os, sys, time\n{head}\ndef handler(event, context):\n    if event.get('ok'):\n        return 'fine'\n"
    source += "".join(f"    {line}\n" for line in body.splitlines())
    settings.setdefault("Timeout", 10)
    return python_function(aws, name, source, **settings)


def test_an_exception_reaches_the_caller_with_type_message_and_trace(aws, name):
    function(aws, name, "raise ValueError('no such colour')")
    answer, error, log, raw = invoke(aws, name)
    assert raw["StatusCode"] == 200 and error == "Unhandled"
    assert answer["errorType"] == "ValueError" and answer["errorMessage"] == "no such colour"
    assert answer["requestId"] == raw["ResponseMetadata"]["RequestId"]
    assert any("in handler" in line for line in answer["stackTrace"])
    assert "[ERROR] ValueError: no such colour" in log
    works_afterwards(aws, name)


def test_a_handler_that_is_not_there(aws, name):
    python_function(aws, name, "def other(e, c):\n    return 1\n")
    answer, error, log, _ = invoke(aws, name)
    assert error == "Unhandled" and answer["errorType"] == "Runtime.HandlerNotFound"
    assert "app" in answer["errorMessage"] and "Runtime.HandlerNotFound" in log


def test_a_module_that_does_not_import(aws, name):
    python_function(aws, name, "import nowhere_to_be_found\ndef handler(e, c):\n    return 1\n")
    answer, error, log, _ = invoke(aws, name)
    assert error == "Unhandled" and answer["errorType"] == "Runtime.ImportModuleError"
    assert "No module named 'nowhere_to_be_found'" in answer["errorMessage"] and "nowhere_to_be_found" in log


def test_a_syntax_error_names_file_and_line(aws, name):
    python_function(aws, name, "def handler(e, c)\n    return 1\n")
    answer, error, _, _ = invoke(aws, name)
    assert error == "Unhandled" and answer["errorType"] == "Runtime.UserCodeSyntaxError"


@pytest.mark.parametrize("status", [0, 1, 77])
def test_a_function_that_exits(aws, name, status):
    function(aws, name, f"os._exit({status})")
    answer, error, log, raw = invoke(aws, name)
    request = raw["ResponseMetadata"]["RequestId"]
    assert error == "Unhandled" and answer["errorType"] == "Runtime.ExitError"
    if status == 0:
        assert answer["errorMessage"] == f"RequestId: {request} Error: Runtime exited without providing a reason"
    else:
        assert answer["errorMessage"] == f"RequestId: {request} Error: Runtime exited with error: exit status {status}"
    assert "REPORT RequestId:" in log
    works_afterwards(aws, name)


def test_a_function_killed_by_a_signal(aws, name):
    function(aws, name, "os.kill(os.getpid(), 11)\ntime.sleep(5)")
    answer, error, _, _ = invoke(aws, name)
    assert error == "Unhandled" and answer["errorType"] == "Runtime.ExitError" and "signal: segmentation fault" in answer["errorMessage"]
    works_afterwards(aws, name)


def test_the_one_timeout_is_obeyed_and_named(aws, name):
    function(aws, name, "time.sleep(30)", Timeout=1)
    invoke(aws, name, {"ok": True})
    started = time.monotonic()
    answer, error, log, raw = invoke(aws, name)
    took = time.monotonic() - started
    request = raw["ResponseMetadata"]["RequestId"]
    assert error == "Unhandled" and answer["errorType"] == "Sandbox.Timedout"
    assert answer["errorMessage"] == f"RequestId: {request} Error: Task timed out after 1.00 seconds"
    assert 0.95 < took < 2.0
    assert re.search(rf"\d{{4}}-\d\d-\d\dT[\d:.]+Z {request} Task timed out after 1.00 seconds", log), log
    works_afterwards(aws, name)


def test_a_function_that_ignores_sigterm_and_leaves_daemons_is_killed_whole(aws, name):
    body = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(1)
    os._exit(0)
time.sleep(30)
"""
    function(aws, name, body.strip(), Timeout=1)
    assert invoke(aws, name)[0]["errorType"] == "Sandbox.Timedout"
    works_afterwards(aws, name)


def test_out_of_memory_is_named_and_costs_only_the_function(aws, name):
    function(aws, name, "x = []\nwhile True:\n    x.append(bytearray(4 << 20))", MemorySize=128)
    answer, error, log, _ = invoke(aws, name)
    assert error == "Unhandled"
    assert answer["errorType"] == "Runtime.OutOfMemory" and "128 MB" in answer["errorMessage"], answer
    assert "Memory Size: 128 MB" in log and "128 MB" in log
    works_afterwards(aws, name)


def test_a_fork_bomb_stays_inside(aws, name):
    body = """
made = 0
try:
    while made < 5000:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except OSError as e:
    return ['stopped', made]
return ['never stopped', made]
"""
    function(aws, name, body.strip(), MemorySize=1024)
    answer, error, log, _ = invoke(aws, name)
    assert error is not None or (answer[0] == "stopped" and answer[1] <= 1024), answer
    works_afterwards(aws, name)


def test_tmp_fills_up_without_using_the_functions_memory(aws, name):
    body = """
written = 0
with open('/tmp/big', 'wb') as f:
    block = b'x' * (1 << 20)
    try:
        while True:
            f.write(block)
            written += 1
            if written % 64 == 0:
                f.flush(); os.fsync(f.fileno())
    except OSError as e:
        reason = e.errno
os.unlink('/tmp/big')
return [written, reason]
"""
    function(aws, name, body.strip(), MemorySize=128, Timeout=60)
    answer, error, log, _ = invoke(aws, name)
    assert error is None, (answer, log)
    assert 505 <= answer[0] <= 530 and answer[1] == 28, answer  # ENOSPC at 512 MB, give or take the file system's own
    assert int(re.search(r"Max Memory Used: (\d+) MB", log)[1]) < 128
    works_afterwards(aws, name)


def test_a_log_flood_is_bounded_and_the_server_stays_well(aws, server, name):
    function(aws, name, "for i in range(200_000):\n    print('x' * 100)\nprint('the end')\nreturn 'done'", Timeout=60)
    answer, error, log, _ = invoke(aws, name)
    assert error is None and answer == "done"
    assert len(log) <= 4096 + 512 and "REPORT" in log
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        rss_kb = int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])
    assert rss_kb < 200_000
    works_afterwards(aws, name)


def test_one_endless_line_is_cut_not_kept_in_memory(aws, name):
    function(aws, name, "sys.stdout.write('y' * (12 << 20))\nreturn 'done'", Timeout=60)
    assert invoke(aws, name)[0] == "done"
    works_afterwards(aws, name)


def test_an_answer_above_six_megabytes_is_refused(aws, name):
    function(aws, name, "return 'a' * (6 << 20) + 'a' * 2000")
    answer, error, _, _ = invoke(aws, name)
    assert error == "Unhandled" and answer["errorType"] == "Function.ResponseSizeTooLarge"
    assert "exceeded maximum allowed payload size (6291556 bytes)" in answer["errorMessage"]
    works_afterwards(aws, name)


def test_an_answer_just_below_six_megabytes_passes(aws, name):
    function(aws, name, f"return 'a' * {6 * 1024 * 1024 - 10}")
    answer, error, _, _ = invoke(aws, name)
    assert error is None and len(answer) == 6 * 1024 * 1024 - 10


def test_what_does_not_serialise_is_a_marshal_error(aws, name):
    function(aws, name, "return {1, 2}")
    answer, error, _, _ = invoke(aws, name)
    assert error == "Unhandled" and answer["errorType"] == "Runtime.MarshalError"
    works_afterwards(aws, name)


RAW_CLIENT = r"""#!/usr/bin/python3
import http.client, os, socket, sys, time
api = os.environ["AWS_LAMBDA_RUNTIME_API"]
def call(method, path, body=None, headers={}):
    c = http.client.HTTPConnection(api); c.request(method, "/2018-06-01" + path, body, headers); r = c.getresponse(); data = r.read(); return r.status, dict(r.getheaders()), data
def next():
    status, headers, data = call("GET", "/runtime/invocation/next"); return headers["Lambda-Runtime-Aws-Request-Id"], data
%s
"""


def raw_function(aws, name, body, **settings):
    settings.setdefault("Timeout", 5)
    aws.create_function(FunctionName=name, Runtime="provided.al2023", Role=ROLE, Handler="x", Code={"ZipFile": zip_of({"bootstrap": (RAW_CLIENT % body, 0o755)})}, **settings)


def test_a_runtime_that_answers_twice(aws, name):
    raw_function(aws, name, """
statuses = []
while True:
    id, data = next()
    call("POST", f"/runtime/invocation/{id}/response", str(statuses).encode())
    statuses.append(call("POST", f"/runtime/invocation/{id}/response", b"2")[0])
""")
    assert invoke(aws, name)[0] == []
    second = invoke(aws, name)[0]
    assert second in ([403], [400]), second


def test_a_runtime_that_answers_for_another_id(aws, name):
    raw_function(aws, name, """
while True:
    id, data = next()
    status, _, body = call("POST", "/runtime/invocation/00000000-0000-0000-0000-000000000000/response", b"1")
    import json
    call("POST", f"/runtime/invocation/{id}/response", json.dumps([status, json.loads(body)["errorType"]]).encode())
""")
    assert invoke(aws, name)[0] == [400, "InvalidRequestID"]


def test_a_runtime_that_sends_half_an_answer(aws, name):
    raw_function(aws, name, """
import json
while True:
    id, data = next()
    if b"ok" in data:
        call("POST", f"/runtime/invocation/{id}/response", b'"fine"'); continue
    host, port = api.split(":")
    s = socket.create_connection((host, int(port)))
    s.sendall(f"POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 100\\r\\n\\r\\nhalf".encode())
    s.close()
    time.sleep(60)
""", Timeout=2)
    answer, error, _, _ = invoke(aws, name)
    assert error == "Unhandled" and answer["errorType"] in ("Runtime.TruncatedResponse", "Sandbox.Timedout"), answer
    works_afterwards(aws, name)


def test_a_bootstrap_that_is_not_executable(aws, name):
    aws.create_function(FunctionName=name, Runtime="provided.al2023", Role=ROLE, Handler="x", Code={"ZipFile": zip_of({"bootstrap": ("#!/bin/sh\nexit 0\n", 0o644)})})
    answer, error, _, raw = invoke(aws, name)
    assert error == "Unhandled" and answer["errorType"] == "Runtime.InvalidEntrypoint", answer


def test_a_package_without_bootstrap(aws, name):
    aws.create_function(FunctionName=name, Runtime="provided.al2023", Role=ROLE, Handler="x", Code={"ZipFile": zip_of({"readme": "hello"})})
    answer, error, _, _ = invoke(aws, name)
    assert error == "Unhandled" and answer["errorType"] == "Runtime.InvalidEntrypoint", answer


def test_an_init_that_never_ends_is_redone_within_the_timeout(own_server):
    with_limit = own_server()
    client = with_limit.client("lambda")
    python_function(client, "slow-init", "import time\ntime.sleep(60)\ndef handler(e, c):\n    return 1\n", Timeout=2)
    started = time.monotonic()
    answer, error, log, _ = invoke(client, "slow-init")
    took = time.monotonic() - started
    assert error == "Unhandled" and answer["errorType"] == "Sandbox.Timedout", answer
    assert 11 < took < 16  # 10 s of init, then 2 s of Timeout
    assert "INIT_REPORT Init Duration: " in log and "Status: timeout" in log


def test_an_init_slower_than_the_timeout_is_fine_within_its_own_ten_seconds(aws, name):
    python_function(aws, name, "import time\ntime.sleep(3)\ndef handler(e, c):\n    return 'up'\n", Timeout=1)
    answer, error, log, _ = invoke(aws, name)
    assert error is None and answer == "up"
    assert float(re.search(r"Init Duration: ([\d.]+) ms", log)[1]) >= 3000


def test_nothing_runs_between_calls(aws, name):
    head = "import threading\nn = 0\ndef count():\n    global n\n    while True:\n        n += 1\n        time.sleep(0.01)\nthreading.Thread(target=count, daemon=True).start()"
    python_function(aws, name, f"import time\n{head}\ndef handler(e, c):\n    return n\n")
    first = invoke(aws, name)[0]
    time.sleep(2)
    second = invoke(aws, name)[0]
    assert second - first < 60, "the environment was not frozen"


def test_json_logs(aws, name):
    source = "import logging\nlog = logging.getLogger()\nlog.setLevel('INFO')\ndef handler(e, c):\n    log.info('structured %s', 'line', extra={'colour': 'red'})\n    return 1\n"
    python_function(aws, name, source, LoggingConfig={"LogFormat": "JSON"})
    _, error, log, raw = invoke(aws, name)
    assert error is None
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{") and line.endswith("}")]
    message = next(line for line in lines if line.get("message") == "structured line")
    assert message["level"] == "INFO" and message["requestId"] == raw["ResponseMetadata"]["RequestId"]
    kinds = [line.get("type") for line in lines]
    assert "platform.report" in kinds and "platform.start" in kinds


def test_bytes_that_are_no_utf8_leave_the_log_readable(aws, server, name):
    function(aws, name, "os.write(1, b'before \\xff\\xed\\xa0\\x80 after\\n')\nreturn 1")
    assert invoke(aws, name)[0] == 1
    logs = server.client("logs")
    deadline = time.monotonic() + 5
    messages = []
    while time.monotonic() < deadline and not any("before" in message for message in messages):
        messages = [event["message"] for event in logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]]
    assert any(re.search("before \ufffd+ after", message) for message in messages), messages


def test_a_package_with_very_regular_content_is_no_bomb(aws, name):
    python_function(aws, name, "import os\ndef handler(e, c):\n    return os.path.getsize('/var/task/zeros')\n", files={"zeros": b"\0" * (20 << 20)})
    assert invoke(aws, name)[0] == 20 << 20


def test_a_node_function_collects_garbage_before_its_memory_runs_out(aws, name):
    source = "exports.handler = async () => { let kept = []; for (let i = 0; i < 3000; i++) { kept[i % 200] = new Array(20000).fill(i); } return require('v8').getHeapStatistics().heap_size_limit; };"
    aws.create_function(FunctionName=name, Runtime="nodejs20.x", Role=ROLE, Handler="index.handler", MemorySize=256, Timeout=30, Code={"ZipFile": zip_of({"index.js": source})})
    answer, error, log, _ = invoke(aws, name)
    assert error is None, (answer, log)
    assert answer < 300 << 20


# ---- environments that end while they are idle

MARKED = """
import json, os
mark = open("/tmp/" + os.environ["MARK"], "w")
def handler(event, context):
    return {"pid": os.getpid(), "size": len(event.get("filler", ""))}
"""

MARKED_NODE = """
const fs = require('fs');
fs.openSync('/tmp/' + process.env.MARK, 'w');
exports.handler = async (event) => ({ pid: process.pid, size: (event.filler || '').length });
"""

MARKED_HTTP = """
import http.server, os
mark = open("/tmp/" + os.environ["MARK"], "w")
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer()
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer()
    def answer(self):
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"1234")
http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""


def holders_of(mark):
    """The processes of the function that holds /tmp/MARK open, as this machine numbers them."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if any(os.readlink(path).endswith("/" + mark) for path in glob.glob(f"/proc/{pid}/fd/*")):
                found.append(int(pid))
        except OSError:
            pass
    return found


def launcher_of(server):
    for path in glob.glob("/proc/[0-9]*/status"):
        try:
            with open(path, encoding="ascii", errors="replace") as status:
                is_child = f"\nPPid:\t{server.process.pid}\n" in status.read()
            with open(path.replace("status", "cmdline"), encoding="utf-8", errors="replace") as words:
                if is_child and words.read().startswith("mayfly: launcher"):
                    return int(path.split("/")[2])
        except OSError:
            pass
    raise AssertionError("the server has no launcher")


def call_while_the_launcher_knows_of_nothing(server, client, name, victims, payload):
    """Kills `victims` and calls the function before the server can hear of their end."""
    launcher = launcher_of(server)
    answers = []
    os.kill(launcher, signal.SIGSTOP)
    try:
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
        caller = threading.Thread(target=lambda: answers.append(invoke(client, name, payload)))
        caller.start()
        time.sleep(0.05)
    finally:
        os.kill(launcher, signal.SIGCONT)
    caller.join(30)
    return answers[0]


@pytest.mark.parametrize("size", [10, 300_000, 5_000_000])
@pytest.mark.parametrize("kind", ["frames", "runtime-api", "node"])
def test_an_environment_that_died_idle_costs_no_call(server, aws, name, kind, size):
    settings = {"Environment": {"Variables": {"MARK": name}}, "Timeout": 10}
    files = {}
    if kind == "runtime-api":
        files = {"wrap": ("#!/bin/sh\nexec \"$@\" 4<&- 5>&-\n", 0o755)}
        settings["Environment"]["Variables"]["AWS_LAMBDA_EXEC_WRAPPER"] = "/var/task/wrap"
    if kind == "node":
        aws.create_function(FunctionName=name, Runtime="nodejs18.x", Role=ROLE, Handler="app.handler",
                            Code={"ZipFile": zip_of({"app.js": MARKED_NODE})}, **settings)
    else:
        python_function(aws, name, MARKED, files=files, **settings)
    assert invoke(aws, name)[1] is None
    victims = holders_of(name)
    assert victims
    time.sleep(0.1)  # frozen
    answer, error, _, _ = call_while_the_launcher_knows_of_nothing(server, aws, name, victims, {"filler": "x" * size})
    assert error is None and answer["size"] == size, answer


def test_an_http_server_that_died_idle_costs_no_call(server, aws, name):
    variables = {"MARK": name, "MAYFLY_CONTRACT": "http"}
    aws.create_function(FunctionName=name, Runtime="python3.11", Role=ROLE, Handler="run.sh",
                        Code={"ZipFile": zip_of({"app.py": MARKED_HTTP, "run.sh": ("#!/bin/sh\nexec python3 app.py\n", 0o755)})},
                        Environment={"Variables": variables}, Timeout=10)
    assert invoke(aws, name)[1] is None
    victims = holders_of(name)
    assert victims
    time.sleep(1.2)  # so that no connection is kept
    answer, error, _, _ = call_while_the_launcher_knows_of_nothing(server, aws, name, victims, {"any": "thing"})
    assert error is None, answer


def starts_of(server, name):
    """How many environments of the function have begun their init."""
    pages = server.client("logs").get_paginator("filter_log_events").paginate(logGroupName=f"/aws/lambda/{name}")
    return sum(event["message"].startswith("INIT_START") for page in pages for event in page["events"])


def test_a_crash_loop_is_tried_once_an_interval_and_disturbs_nobody(own_server):
    server = own_server()
    client = server.client()
    python_function(client, "broken", "import os\nos._exit(3)\n")
    python_function(client, "healthy", "def handler(event, context):\n    return event['n']\n")
    while "Not run: the last 10 environments" not in invoke(client, "broken")[0]["errorMessage"]:
        pass
    opened = time.monotonic()
    before = starts_of(server, "broken")
    over = threading.Event()
    refused, wrong = [], []

    def call_broken():
        mine = server.client()
        while not over.is_set():
            answer, error, _, _ = invoke(mine, "broken")
            if error is None or answer["errorType"] != "Runtime.ExitError":
                wrong.append(answer)
            refused.append("Not run: " in answer["errorMessage"])
            time.sleep(0.05)

    callers = [threading.Thread(target=call_broken) for _ in range(3)]
    for caller in callers:
        caller.start()
    number = 0
    while time.monotonic() < opened + 5:
        number += 1
        answer, error, _, _ = invoke(client, "healthy", {"n": number})
        assert error is None and answer == number
    over.set()
    for caller in callers:
        caller.join()
    tries = starts_of(server, "broken") - before
    assert not wrong
    assert refused.count(False) <= tries <= (time.monotonic() - opened) + 1, "a second at least lies between two tries"
    assert refused.count(True) > refused.count(False)

    # What is mended by a new version is tried at once.
    client.update_function_code(FunctionName="broken", ZipFile=zip_of({"app.py": "def handler(event, context):\n    return 'mended'\n"}))
    assert invoke(client, "broken")[0] == "mended"
