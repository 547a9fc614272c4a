"""Invoke and InvokeWithResponseStream."""

import base64
import json
import re

import pytest

from support import create, error_of, expect, expect_golden, package


def call(aws, name, payload=b"{}", **members):
    answer = aws.invoke(FunctionName=name, Payload=payload, **members)
    answer["Body"] = answer["Payload"].read()
    return answer


@pytest.fixture(scope="module")
def echo(aws):
    create(aws, "conformance-echo", Publish=True)
    yield "conformance-echo"
    aws.delete_function(FunctionName="conformance-echo")


def test_a_payload_goes_there_and_back(aws, echo):
    answer = call(aws, echo, b'{"a": [1, "\xc3\xbc", null]}')
    assert answer["StatusCode"] == 200
    assert json.loads(answer["Body"]) == {"a": [1, "ü", None]}
    assert answer["ExecutedVersion"] == "$LATEST"
    assert "FunctionError" not in answer and "LogResult" not in answer
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", answer["ResponseMetadata"]["RequestId"])


def test_a_missing_payload_arrives_as_an_empty_object(aws, echo):
    assert json.loads(aws.invoke(FunctionName=echo)["Payload"].read()) == {}


@pytest.mark.parametrize("payload", [b"null", b"1.5", b'"text"', b"[]", b"true", b" {} "])
def test_any_json_value_is_a_payload(aws, echo, payload):
    assert json.loads(call(aws, echo, payload)["Body"]) == json.loads(payload)


@pytest.mark.parametrize(
    "payload, text",
    [
        (
            b"n\x87r\x9e\xe9\xb5\xd7I\xee\x9bmt",
            "Invalid UTF-8 start byte 0x87\n at [Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled);"
            " line: 1, column: 3]",
        ),
        (
            b"\x99\xeb,j\x07\xa1zYh",
            "Unexpected character ((CTRL-CHAR, code 153)): expected a valid value"
            " (JSON String, Number, Array, Object or token 'null', 'true' or 'false')\n"
            " at [Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: 1, column: 1]",
        ),
        (b"{", "Unexpected end-of-input"),
        (b"nope", "Unrecognized token 'nope'"),
        (b"{} {}", ""),
        (b"\xff", ""),
    ],
)
def test_a_payload_that_is_no_json_is_refused(aws, echo, payload, text):
    refused = error_of(aws.invoke, FunctionName=echo, Payload=payload)
    expect(
        refused, 400, "InvalidRequestContentException", "Could not parse request body into json: Could not parse payload into json: " + text
    )
    assert refused["Type"] == "User"


def test_the_tail_of_the_log_comes_when_asked_for(aws, echo):
    answer = call(aws, echo, b'{"k": "v"}', LogType="Tail")
    log = base64.b64decode(answer["LogResult"]).decode()
    request = answer["ResponseMetadata"]["RequestId"]
    assert f"START RequestId: {request} Version: $LATEST\n" in log
    assert 'seen {"k": "v"}' in log
    assert re.search(
        rf"END RequestId: {request}\nREPORT RequestId: {request}\tDuration: [\d.]+ ms\tBilled Duration: \d+ ms\t"
        r"Memory Size: 128 MB\tMax Memory Used: \d+ MB\t",
        log,
    ), log


def test_a_function_error_is_an_answer(aws, echo):
    answer = call(aws, echo, b'{"fail": true}')
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    body = json.loads(answer["Body"])
    assert (body["errorType"], body["errorMessage"]) == ("ValueError", "as asked")
    assert json.loads(call(aws, echo, b"[1]")["Body"]) == [1]


def test_qualifiers_choose_the_version(aws, echo, arn):
    assert call(aws, echo, Qualifier="1")["ExecutedVersion"] == "1"
    assert call(aws, arn(echo) + ":1")["ExecutedVersion"] == "1"
    assert call(aws, echo, Qualifier="$LATEST")["ExecutedVersion"] == "$LATEST"


def test_unknown_functions_are_refused_as_recorded(aws, golden):
    expect_golden(error_of(aws.invoke, FunctionName="doesnotexist"), golden("errors", "invoke_not_found"))
    wrong = "arn:aws:lambda:us-east-1:123400000000@function:myfn"
    expect(
        error_of(aws.invoke, FunctionName=wrong),
        400,
        "ValidationException",
        f"1 validation error detected: Value '{wrong}' at 'functionName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:lambda:)?",
    )


def test_a_dry_run_answers_nothing(aws, echo):
    answer = call(aws, echo, InvocationType="DryRun")
    assert (answer["StatusCode"], answer["Body"]) == (204, b"")
    expect(error_of(aws.invoke, FunctionName=echo, InvocationType="DryRun", Qualifier="77"), 404, "ResourceNotFoundException")


def test_asynchronous_invocation_is_refused_by_name(aws, echo):
    expect(error_of(aws.invoke, FunctionName=echo, InvocationType="Event"), 400, "UnsupportedOperationException", "Event")


def test_wrong_kinds_are_refused(aws, echo):
    expect(
        error_of(aws.invoke, FunctionName=echo, InvocationType="Later"),
        400,
        "ValidationException",
        "Value 'Later' at 'invocationType' failed to satisfy constraint: "
        "Member must satisfy enum value set: [Event, RequestResponse, DryRun]",
    )
    expect(error_of(aws.invoke, FunctionName=echo, LogType="All"), 400, "ValidationException", "at 'logType'")


def test_a_payload_may_have_six_megabytes(aws, echo):
    largest = b'"' + b"x" * (6 * 1024 * 1024 - 2) + b'"'
    assert len(call(aws, echo, largest)["Body"]) == len(largest)
    expect(
        error_of(aws.invoke, FunctionName=echo, Payload=b'"' + b"x" * 6291555 + b'"'),
        413,
        "RequestEntityTooLargeException",
        "Request must be smaller than 6291556 bytes for the InvokeFunction operation",
    )


def test_the_client_context_arrives(aws, name):
    source = """
import os
def handler(event, context):
    return {"custom": context.client_context.custom, "trace": os.environ.get("_X_AMZN_TRACE_ID")}
"""
    create(aws, name, Code={"ZipFile": package(source)})
    context = base64.b64encode(json.dumps({"custom": {"a": "b"}}).encode()).decode()
    body = json.loads(call(aws, name, ClientContext=context)["Body"])
    assert body["custom"] == {"a": "b"}
    assert body["trace"].startswith("Root=1-")
    expect(error_of(aws.invoke, FunctionName=name, ClientContext="!!!"), 400, "InvalidRequestContentException", "lient context")


def events(answer):
    return list(answer["EventStream"])


def test_a_stream_carries_the_answer_and_ends_with_invoke_complete(aws, echo):
    answer = aws.invoke_with_response_stream(FunctionName=echo, Payload=b'{"a": 1}', LogType="Tail")
    assert answer["StatusCode"] == 200 and answer["ExecutedVersion"] == "$LATEST"
    got = events(answer)
    assert json.loads(b"".join(event["PayloadChunk"]["Payload"] for event in got if "PayloadChunk" in event)) == {"a": 1}
    complete = got[-1]["InvokeComplete"]
    assert "ErrorCode" not in complete
    assert "END RequestId" in base64.b64decode(complete["LogResult"]).decode()


def test_a_function_error_ends_the_stream(aws, echo):
    complete = events(aws.invoke_with_response_stream(FunctionName=echo, Payload=b'{"fail": true}'))[-1]["InvokeComplete"]
    assert complete["ErrorCode"]
    assert "as asked" in complete["ErrorDetails"]


def test_a_stream_of_an_unknown_function_is_an_ordinary_error(aws, golden):
    expect_golden(error_of(aws.invoke_with_response_stream, FunctionName="doesnotexist"), golden("errors", "invoke_not_found"))
