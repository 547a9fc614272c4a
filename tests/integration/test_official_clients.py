"""The official Lambda runtime clients, unmodified, as functions on a real server."""
import json
import os
import subprocess
import uuid

import pytest

from mayfly_server import ROLE, ROOT, invoke

HANDLERS = {"python": "index.handler", "nodejs": "index.handler", "go": "bootstrap", "rust": "bootstrap", "java": "Handler::handleRequest"}


@pytest.fixture(scope="module", params=sorted(HANDLERS))
def client_function(request, server):
    """A deployed function made with one official client: (boto3 client, its name, which client)."""
    kind = request.param
    out = os.path.join(ROOT, "build", "runtime_clients")
    done = subprocess.run([os.path.join(ROOT, "tests", "runtime_clients", "clients", kind, "build.sh"), out], capture_output=True, text=True, timeout=1500, check=False)
    if done.returncode == 77:
        pytest.skip(done.stderr.strip()[-300:])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    aws = server.client("lambda")
    function = f"official-{kind}-{uuid.uuid4().hex[:8]}"
    with open(os.path.join(out, f"{kind}.zip"), "rb") as package:
        aws.create_function(FunctionName=function, Runtime="provided.al2023", Role=ROLE, Handler=HANDLERS[kind], MemorySize=512, Timeout=20, Code={"ZipFile": package.read()})
    yield aws, function, kind
    aws.delete_function(FunctionName=function)


def test_it_answers_again_and_again(client_function):
    aws, function, _ = client_function
    for i in range(3):
        event = {"round": i, "text": "grün", "list": [1, 2.5, None, True]}
        answer, error, log, raw = invoke(aws, function, event)
        assert error is None, (answer, log)
        assert answer["echo"] == event and answer["function"] == function
        assert answer["request_id"] == raw["ResponseMetadata"]["RequestId"]
    assert "REPORT RequestId" in log


def test_its_errors_reach_the_caller(client_function):
    aws, function, _ = client_function
    answer, error, log, _ = invoke(aws, function, {"fail": True})
    assert error == "Unhandled", (answer, log)
    assert answer["errorMessage"] and answer["errorType"], answer
    again, error, _, _ = invoke(aws, function, {"fine": 1})
    assert error is None, again


def test_its_deadline_is_the_functions_timeout(client_function):
    aws, function, _ = client_function
    aws.update_function_configuration(FunctionName=function, Timeout=2)
    answer, error, _, _ = invoke(aws, function, {"sleep_ms": 10_000})
    assert error == "Unhandled" and answer["errorType"] == "Sandbox.Timedout", answer
    aws.update_function_configuration(FunctionName=function, Timeout=20)
    assert invoke(aws, function, {"sleep_ms": 10})[1] is None
