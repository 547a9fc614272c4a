"""Extensions from layers on a real server: a script by the protocol, and one made with the published client of crates.io."""
import base64
import io
import json
import os
import subprocess
import time
import uuid
import zipfile

import pytest

from mayfly_server import ROLE, ROOT

FUNCTION = """
import json, logging, os, time
def handler(event, context):
    print("function works")
    time.sleep(event.get("sleep", 0))
    return {"request": context.aws_request_id}
"""

EXTENSION = '''#!/usr/bin/env python3
import http.client, json, os, sys
def call(method, path, body=None, headers={}):
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    connection.request(method, "/2020-01-01/extension/" + path, body, headers)
    answer = connection.getresponse()
    return answer.headers, json.loads(answer.read())
headers, _ = call("POST", "register", json.dumps({"events": ["INVOKE", "SHUTDOWN"]}), {"Lambda-Extension-Name": os.path.basename(__file__)})
me = {"Lambda-Extension-Identifier": headers["Lambda-Extension-Identifier"]}
while True:
    _, event = call("GET", "event/next", None, me)
    print("script hears", json.dumps(event), flush=True)
    if event["eventType"] == "SHUTDOWN":
        sys.exit(0)
'''


def package(files):
    """A zip of these texts, each executable."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for path, text in files.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o100755 << 16
            made.writestr(entry, text)
    return out.getvalue()


def settled(aws, function):
    aws.get_waiter("function_active_v2").wait(FunctionName=function)
    aws.get_waiter("function_updated_v2").wait(FunctionName=function)


def deploy(aws, function, layer_zip, **more):
    layer = aws.publish_layer_version(LayerName="l-" + uuid.uuid4().hex[:8], Content={"ZipFile": layer_zip})["LayerVersionArn"]
    aws.create_function(FunctionName=function, Runtime="python3.11", Role=ROLE, Handler="app.handler", Code={"ZipFile": package({"app.py": FUNCTION})},
                        Layers=[layer], **more)
    settled(aws, function)


def invoke(aws, function, event=None):
    answer = aws.invoke(FunctionName=function, Payload=json.dumps(event or {}), LogType="Tail")
    return json.loads(answer["Payload"].read()), answer.get("FunctionError"), base64.b64decode(answer["LogResult"]).decode()


def lines(server, function, until, patience=10):
    """The messages of the function's log once one of them holds `until`."""
    logs = server.client("logs")
    end = time.monotonic() + patience
    while True:
        events = logs.filter_log_events(logGroupName=f"/aws/lambda/{function}")["events"]
        messages = [event["message"] for event in events]
        if any(until in message for message in messages):
            return messages
        assert time.monotonic() < end, (until, messages)
        time.sleep(0.05)


def test_a_script_registers_and_hears_invocations_and_the_end(server, aws, name):
    deploy(aws, name, package({"extensions/watcher": EXTENSION}))
    answer, error, _ = invoke(aws, name)
    assert error is None, answer
    heard = next(line for line in lines(server, name, "script hears") if "script hears" in line)
    event = json.loads(heard.split("script hears ", 1)[1])
    assert event["eventType"] == "INVOKE" and event["requestId"] == answer["request"]
    assert event["invokedFunctionArn"].endswith(":function:" + name) and event["deadlineMs"] > 1_700_000_000_000
    assert any(line.startswith("EXTENSION\tName: watcher\tState: Ready\tEvents: [INVOKE, SHUTDOWN]") for line in lines(server, name, "EXTENSION"))
    aws.update_function_configuration(FunctionName=name, Description="ends the environment")
    settled(aws, name)
    assert '"shutdownReason": "spindown"' in "".join(lines(server, name, "shutdownReason"))


def test_a_timeout_is_told_to_the_extension(server, aws, name):
    deploy(aws, name, package({"extensions/watcher": EXTENSION}), Timeout=1)
    answer, error, log = invoke(aws, name, {"sleep": 20})
    assert error == "Unhandled" and answer["errorType"] == "Sandbox.Timedout", answer
    assert '"shutdownReason": "timeout"' in "".join(lines(server, name, "shutdownReason"))


def test_an_extension_that_cannot_run_is_a_launch_error(aws, name):
    deploy(aws, name, package({"extensions/broken": "no program"}))
    answer, error, log = invoke(aws, name)
    assert error == "Unhandled" and answer["errorType"] == "Extension.LaunchError", answer
    assert "fork/exec /opt/extensions/broken: " in answer["errorMessage"]


def test_the_end_of_the_server_is_told_too(own_server):
    server = own_server()
    aws = server.client("lambda")
    deploy(aws, "ending", package({"extensions/watcher": EXTENSION}))
    assert invoke(aws, "ending")[1] is None
    server.stop()
    server.start()
    assert '"shutdownReason": "spindown"' in "".join(lines(server, "ending", "shutdownReason"))


def test_the_published_client_runs_unmodified(server, aws, name):
    out = os.path.join(ROOT, "build", "runtime_clients")
    build = os.path.join(ROOT, "tests", "runtime_clients", "clients", "rust_extension", "build.sh")
    done = subprocess.run([build, out], capture_output=True, text=True, timeout=1500, check=False)
    if done.returncode == 77:
        pytest.skip(done.stderr.strip()[-300:])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with open(os.path.join(out, "rust_extension.zip"), "rb") as layer:
        deploy(aws, name, layer.read())
    first = invoke(aws, name)[0]["request"]
    second = invoke(aws, name)[0]["request"]
    log = "".join(lines(server, name, "rust INVOKE " + second))
    assert "rust INVOKE " + first in log
    log = "".join(lines(server, name, f'PlatformReport {{ request_id: "{second}"'))
    for record in ("PlatformInitStart", "PlatformInitRuntimeDone", "PlatformInitReport", "PlatformTelemetrySubscription",
                   f'PlatformStart {{ request_id: "{first}"', f'PlatformRuntimeDone {{ request_id: "{first}"', 'Function("function works'):
        assert "rust TELEMETRY " + record in log, (record, log)
    aws.update_function_configuration(FunctionName=name, Description="ends the environment")
    settled(aws, name)
    lines(server, name, "rust SHUTDOWN spindown")
