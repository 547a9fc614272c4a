"""What every request meets first: signatures, routes, limits, formats."""

import datetime
import json
import os

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from support import error_of, expect

LIST = "/2015-03-31/functions"


def refused(answer, status, code):
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (status, code), answer.body
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.headers["x-amzn-requestid"]) == 36
    body = answer.json()
    return body.get("message") or body.get("Message")


def test_a_signed_request_passes(raw):
    assert raw.signed("GET", LIST).status == 200


def test_an_unsigned_request_is_refused(raw):
    assert refused(raw.send("GET", LIST), 403, "MissingAuthenticationTokenException") == "Missing Authentication Token"


def test_a_wrong_secret_an_unknown_key_and_a_changed_request_are_refused(raw):
    key = os.environ["AWS_ACCESS_KEY_ID"]
    refused(raw.signed("GET", LIST, credentials=Credentials(key, "wrong")), 403, "InvalidSignatureException")
    refused(raw.signed("GET", LIST, credentials=Credentials("AKIAUNKNOWN123456789", "wrong")), 403, "UnrecognizedClientException")
    refused(raw.send("GET", LIST + "?MaxItems=1", headers=raw.sign("GET", LIST)), 403, "InvalidSignatureException")
    body = b'{"Tags":{"a":"b"}}'
    path = "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Anone"
    refused(raw.send("POST", path, b'{"Tags":{"a":"c"}}', raw.sign("POST", path, body)), 403, "InvalidSignatureException")


def test_an_old_signature_is_refused(raw, monkeypatch):
    headers = raw.sign("GET", LIST)
    old = (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)).strftime("%Y%m%dT%H%M%SZ")
    headers["X-Amz-Date"] = old
    message = refused(raw.send("GET", LIST, headers=headers), 403, "InvalidSignatureException")
    assert "expired" in message.lower() or "not yet current" in message.lower() or "match" in message.lower()


def test_another_region_is_refused(raw):
    assert "us-east-1" in refused(raw.signed("GET", LIST, region="eu-north-1"), 403, "InvalidSignatureException")


@pytest.mark.parametrize(
    "authorization",
    [
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=x",
        "Basic dTpw",
        "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=zz",
    ],
)
def test_broken_authorization_is_refused(raw, authorization):
    answer = raw.send("GET", LIST, headers={"Authorization": authorization, "X-Amz-Date": "20260101T000000Z"})
    assert answer.status in (400, 403), answer.body
    assert answer.headers["x-amzn-errortype"].endswith("Exception")


def test_a_presigned_url_passes_until_it_expires(raw):
    request = AWSRequest(method="GET", url=raw.endpoint + LIST)
    SigV4QueryAuth(raw.credentials, "lambda", raw.region, expires=60).add_auth(request)
    path = request.url[len(raw.endpoint) :]
    assert raw.send("GET", path).status == 200
    assert raw.send("GET", path.replace("X-Amz-Expires=60", "X-Amz-Expires=600")).status == 403


def test_unknown_paths_have_no_operation(raw):
    for method, path in (("GET", "/"), ("GET", "/2015-03-31/nothing"), ("PATCH", LIST), ("GET", "/2015-03-31/functions/f/what")):
        refused(raw.signed(method, path), 404, "UnknownOperationException")


def test_missing_operations_are_named(raw, aws):
    message = refused(raw.signed("GET", "/2025-11-30/capacity-providers", b""), 400, "UnsupportedOperationException")
    assert message == "mayfly does not support ListCapacityProviders yet"
    for call, members in (
        (aws.list_capacity_providers, {}),
        (aws.list_code_signing_configs, {}),
        (aws.list_durable_executions_by_function, {"FunctionName": "f"}),
    ):
        expect(error_of(call, **members), 400, "UnsupportedOperationException", "mayfly does not support ")


def test_missing_services_are_named(client):
    expect(error_of(client("dynamodb").list_tables), 400, "UnsupportedOperationException", '"dynamodb"')
    expect(error_of(client("sns").list_topics), 400, "UnsupportedOperation", '"sns"')
    expect(error_of(client("cloudformation").list_stacks), 400, "UnsupportedOperation", '"cloudformation"')
    expect(error_of(client("sqs").list_queues), 400, "UnsupportedOperationException", '"sqs"')


def test_an_oversize_request_is_refused_before_it_is_read(raw):
    body = b"{}"
    headers = raw.sign("POST", LIST, body, {"X-Amz-Content-SHA256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"})
    answer = raw.send("POST", LIST, body, headers, declared=70167212)
    assert (
        refused(answer, 413, "RequestEntityTooLargeException")
        == "Request must be smaller than 70167211 bytes for the CreateFunction operation"
    )


@pytest.mark.parametrize("body", [b"{", b"[]", b"nonsense", b'{"FunctionName":"a","FunctionName":"b"}', b"\xff\xfe", b"{" * 5000])
def test_a_body_that_is_no_object_is_refused(raw, body):
    assert refused(raw.signed("POST", LIST, body), 400, "InvalidRequestContentException").startswith(
        "Could not parse request body into json: "
    )


def test_operator_pages_need_no_signature(raw):
    assert raw.send("GET", "/healthz").body == b"ok\n"
    assert raw.send("GET", "/readyz").status == 200
    metrics = raw.send("GET", "/metrics")
    assert metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert metrics.body.endswith(b"# EOF\n")
    for line in metrics.body.decode().splitlines():
        assert line.startswith("#") or len(line.rsplit(" ", 1)) == 2 and float(line.rsplit(" ", 1)[1]) >= 0
    for path in ("/metrics/", "/debug", "/mayfly/code/f/x.zip"):
        assert raw.send("GET", path).status == 403


def test_sts_says_who_calls(client, account, raw):
    identity = client("sts").get_caller_identity()
    assert identity["Arn"].startswith(f"arn:aws:iam::{account}:")
    expect(error_of(client("sts").get_delegated_access_token, TradeInToken="t"), 400, "UnsupportedOperation", "GetDelegatedAccessToken")
    answer = raw.signed("POST", "/", b"{}", {"X-Amz-Target": "AWSSecurityTokenServiceV20110615.GetCallerIdentity"}, service="sts")
    assert json.loads(answer.body)["Account"] == account
