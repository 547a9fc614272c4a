"""The official runtime clients as functions of a real Mayfly server: deployed as zips, invoked through the Lambda API."""
import pytest
from mayfly_server import ROLE, invoke
from support import Unavailable, build_client
from test_bootstraps import BUILT, ERROR_TYPES, STREAMING


def zip_bytes(client, tmp_path_factory):
    try:
        with open(build_client(client, tmp_path_factory.mktemp("zip")), "rb") as archive:
            return archive.read()
    except Unavailable as missing:
        pytest.skip(str(missing))


def deploy(aws, name, handler, archive):
    settings = dict(Runtime="provided.al2023", Handler=handler, Role=ROLE, MemorySize=512, Timeout=15)
    aws.create_function(FunctionName=name, Code={"ZipFile": archive}, **settings)
    aws.get_waiter("function_active_v2").wait(FunctionName=name)


@pytest.mark.parametrize("client", BUILT)
def test_official_client_runs_unmodified(client, aws, name, tmp_path_factory):
    deploy(aws, name, BUILT[client], zip_bytes(client, tmp_path_factory))
    answer, error, log, _ = invoke(aws, name, {"a": ["é", 1]})
    assert error is None, log
    assert answer["echo"] == {"a": ["é", 1]} and answer["function"] == name
    assert answer["request_id"] in log
    failure, error, _, _ = invoke(aws, name, {"fail": True})
    assert error == "Unhandled" and failure["errorMessage"] == "failed as asked"
    assert failure["errorType"].endswith(ERROR_TYPES.get(client, "TestFailure"))
    again, error, log, _ = invoke(aws, name, {"sleep_ms": 20})
    assert error is None and again["echo"] == {"sleep_ms": 20}
    assert "Init Duration" not in log  # the environment of the failed call goes on


@pytest.mark.parametrize("client", STREAMING)
def test_official_client_streams_to_the_caller(client, aws, name, tmp_path_factory):
    deploy(aws, name, STREAMING[client], zip_bytes(client, tmp_path_factory))
    events = aws.invoke_with_response_stream(FunctionName=name, Payload=b'{"stream": ["one", "two"], "sleep_ms": 50}')["EventStream"]
    parts, complete = [], None
    for event in events:
        if "PayloadChunk" in event:
            parts.append(event["PayloadChunk"]["Payload"])
        complete = event.get("InvokeComplete", complete)
    assert b"".join(parts).rpartition(b"\0")[2] == b"onetwo"
    assert complete is not None and "ErrorCode" not in complete
