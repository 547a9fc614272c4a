"""Service calls from inside a function: its own listener, its own key, data calls only."""
import json
import os

import pytest

from support import create, package

# A function has no boto3: signs by hand what it is told to send.
SOURCE = '''
import datetime, hashlib, hmac, http.client, json, os, urllib.parse

def sign(key, message):
    return hmac.new(key, message.encode(), hashlib.sha256).digest()

def handler(event, context):
    if event.get("echo"):
        return event
    key, secret, token = (event.get(name) or os.environ["AWS_" + name] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"))
    url = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"])
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{now[:8]}/{os.environ['AWS_REGION']}/{event['service']}/aws4_request"
    headers = {"host": url.netloc, "x-amz-date": now}
    if token != "none":
        headers["x-amz-security-token"] = token
    headers.update(event.get("headers", {}))
    names = ";".join(sorted(headers))
    body = event.get("body", "")
    canonical = "\\n".join([event["method"], event["path"], "", *(f"{name}:{headers[name]}" for name in sorted(headers)), "", names,
                           hashlib.sha256(body.encode()).hexdigest()])
    text = "\\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signing = ("AWS4" + secret).encode()
    for part in scope.split("/"):
        signing = sign(signing, part)
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={sign(signing, text).hex()}"
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=5)
    connection.request(event["method"], event["path"], body, headers)
    answer = connection.getresponse()
    return {"status": answer.status, "type": answer.getheader("x-amzn-ErrorType"), "body": answer.read().decode()}
'''


@pytest.fixture(scope="module")
def inside(aws):
    create(aws, "conformance-inside", Code={"ZipFile": package(SOURCE)}, Timeout=20)

    def send(service, method, path, body="", **event):
        event = {"service": service, "method": method, "path": path, "body": body, **event}
        answer = aws.invoke(FunctionName="conformance-inside", Payload=json.dumps(event).encode())
        result = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, result
        return result

    yield send
    aws.delete_function(FunctionName="conformance-inside")


def test_a_function_asks_who_it_is(inside, account):
    answer = inside("sts", "POST", "/", "Action=GetCallerIdentity&Version=2011-06-15", headers={"content-type": "application/x-www-form-urlencoded"})
    assert answer["status"] == 200
    assert f"arn:aws:sts::{account}:assumed-role/r/conformance-inside" in answer["body"]


def test_a_function_invokes_a_function(inside):
    answer = inside("lambda", "POST", "/2015-03-31/functions/conformance-inside/invocations", '{"echo": 7}')
    assert (answer["status"], json.loads(answer["body"])) == (200, {"echo": 7})


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/2015-03-31/functions"),
        ("GET", "/2015-03-31/functions/conformance-inside"),
        ("DELETE", "/2015-03-31/functions/conformance-inside"),
        ("PUT", "/2015-03-31/functions/conformance-inside/configuration"),
        ("POST", "/2015-03-31/functions"),
    ],
)
def test_management_is_denied(inside, method, path):
    answer = inside("lambda", method, path)
    assert (answer["status"], answer["type"]) == (403, "AccessDeniedException"), answer


def test_operator_and_other_pages_are_not_there(inside):
    for path in ("/metrics", "/healthz", "/mayfly/v1/runtimes", "/mayfly/code/f/x.zip"):
        assert inside("mayfly", "GET", path)["status"] in (400, 403), path


def test_the_accounts_own_key_does_not_work_inside(inside):
    key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    answer = inside("lambda", "GET", "/2015-03-31/functions", ACCESS_KEY_ID=key, SECRET_ACCESS_KEY=secret, SESSION_TOKEN="none")
    assert (answer["status"], answer["type"]) == (403, "UnrecognizedClientException"), answer


def test_a_wrong_token_is_refused(inside):
    assert inside("lambda", "POST", "/2015-03-31/functions/conformance-inside/invocations", "{}", SESSION_TOKEN="made up")["status"] == 403


def test_a_function_reads_its_own_log_only(inside):
    def read(group):
        headers = {"x-amz-target": "Logs_20140328.FilterLogEvents", "content-type": "application/x-amz-json-1.1"}
        return inside("logs", "POST", "/", json.dumps({"logGroupName": group}), headers=headers)

    assert read("/aws/lambda/conformance-inside")["status"] == 200
    refused = read("/aws/lambda/another")
    assert refused["type"] == "AccessDeniedException", refused
