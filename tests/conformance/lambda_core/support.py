"""Helpers of the conformance suite: packages, raw signed requests, comparing errors."""

import http.client
import io
import json
import os
import time
import urllib.parse
import zipfile

import botocore.session
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

ROLE = "arn:aws:iam::000000000000:role/r"
RUNTIME = os.environ.get("MAYFLY_TEST_RUNTIME", "python3.11")
ECHO = """
import json
def handler(event, context):
    if isinstance(event, dict) and event.get("fail"):
        raise ValueError("as asked")
    print("seen", json.dumps(event))
    return event
"""


def package(source=ECHO, **files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in {"app.py": source, **files}.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), text)
    return buffer.getvalue()


def create(aws, name, **changes):
    """CreateFunction; a change to None leaves the member out."""
    members = {"FunctionName": name, "Runtime": RUNTIME, "Role": ROLE, "Handler": "app.handler", "Code": {"ZipFile": package()}, **changes}
    return aws.create_function(**{key: value for key, value in members.items() if value is not None})


def wait_active(aws, name):
    aws.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 100})


def error_of(call, *words, **members):
    """The parsed error of a call that must fail."""
    with pytest.raises(ClientError) as caught:
        call(*words, **members)
    return caught.value.response


def expect(response, status, code, part=""):
    assert response["ResponseMetadata"]["HTTPStatusCode"] == status, response
    assert response["Error"]["Code"] == code, response
    assert part in response["Error"]["Message"], response


def expect_golden(response, golden):
    """The whole error as recorded: status, code, message, and the members of the body."""
    assert response["ResponseMetadata"]["HTTPStatusCode"] == golden["status"], response
    assert response["Error"] == golden["Error"], response
    for member in ("Type", "message", "Message", "Reason"):
        assert response.get(member) == golden.get(member), (member, response)


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = {key.lower(): value for key, value in response.getheaders()}
        self.body = response.read()

    def json(self):
        return json.loads(self.body)


class Raw:
    """Requests that no client library would send."""

    def __init__(self, endpoint):
        self.url = urllib.parse.urlsplit(endpoint)
        self.endpoint = endpoint
        self.credentials = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
        self.region = os.environ["AWS_REGION"]

    def send(self, method, path, body=b"", headers=None, declared=None):
        """Unsigned. `declared` lies about the length."""
        connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for key, value in (headers or {}).items():
                if key.lower() != "host":
                    connection.putheader(key, value)
            connection.putheader("Content-Length", str(len(body) if declared is None else declared))
            connection.endheaders()
            try:
                connection.send(body)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before the end: the answer is there to read
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def sign(self, method, path, body=b"", headers=None, service="lambda", region=None, credentials=None):
        request = AWSRequest(method=method, url=self.endpoint + path, data=body, headers=headers or {})
        SigV4Auth(credentials or self.credentials, service, region or self.region).add_auth(request)
        return dict(request.headers.items())

    def signed(self, method, path, body=b"", headers=None, **scope):
        return self.send(method, path, body, self.sign(method, path, body, headers, **scope))


def eventually(check, timeout=10):
    """Asks until `check` answers something true."""
    deadline = time.monotonic() + timeout
    while True:
        found = check()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)
