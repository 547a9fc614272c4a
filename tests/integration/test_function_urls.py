"""Function URLs on the gateway, as HTTP clients see them."""
import base64
import http.client
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from mayfly_server import ROLE, invoke, python_function, zip_of

ECHO = "def handler(event, context):\n    return event\n"
FORBIDDEN = "Forbidden. For troubleshooting Function URL authorization issues, see: https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"


class Url:
    """A function's URL and how to ask it: by host, on whatever address the gateway listens."""

    def __init__(self, server, config):
        self.gateway = urllib.parse.urlsplit(server.gateway)
        self.address = config["FunctionUrl"]
        self.host = urllib.parse.urlsplit(self.address).netloc
        self.id = self.host.split(".")[0]
        self.config = config

    def connect(self, timeout=30):
        return http.client.HTTPConnection(self.gateway.hostname, self.gateway.port, timeout=timeout)

    def ask(self, method="GET", path="/", body=None, headers=None, host=None):
        """(status, headers, body); a header that comes twice is a list."""
        connection = self.connect()
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", host or self.host)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None and "content-length" not in {name.lower() for name in headers or {}}:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def json(self, *words, **settings):
        status, _, body = self.ask(*words, **settings)
        assert status == 200, body
        return json.loads(body)


@pytest.fixture
def aws(server):
    return server.client("lambda")


def allow_all(aws, name, qualifier=None):
    aws.add_permission(FunctionName=name, StatementId="public", Action="lambda:InvokeFunctionUrl", Principal="*", FunctionUrlAuthType="NONE",
                       **({"Qualifier": qualifier} if qualifier else {}))


def open_url(server, aws, name, source=None, **settings):
    """Makes the function, unless `source` is None, and a URL that everybody may use."""
    if source is not None:
        python_function(aws, name, source)
    settings.setdefault("AuthType", "NONE")
    config = aws.create_function_url_config(FunctionName=name, **settings)
    if settings["AuthType"] == "NONE":
        allow_all(aws, name, settings.get("Qualifier"))
    return Url(server, config)


def node_url(server, aws, name, source, **settings):
    aws.create_function(FunctionName=name, Runtime="nodejs20.x", Role=ROLE, Handler="index.handler", Timeout=60, Code={"ZipFile": zip_of({"index.mjs": source})})
    settings.setdefault("InvokeMode", "RESPONSE_STREAM")
    return open_url(server, aws, name, **settings)


# ----------------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.smoke
def test_a_url_is_found_by_host_and_by_path(server, aws, name):
    url = open_url(server, aws, name, ECHO)
    assert re.fullmatch(r"http://[a-z0-9]{32}\.lambda-url\.us-east-1\.localhost:%d/" % url.gateway.port, url.address)
    by_host = url.json("GET", "/a/b?x=1")
    assert by_host["rawPath"] == "/a/b" and by_host["requestContext"]["apiId"] == url.id
    assert by_host["requestContext"]["domainName"] == f"{url.id}.lambda-url.us-east-1.localhost"
    assert url.json("GET", "/", host=f"{url.id}.lambda-url.us-east-1.localhost")["rawPath"] == "/"
    by_path = url.json("GET", f"/lambda-url/{url.id}/a/b?x=1", host="127.0.0.1")
    assert by_path["rawPath"] == "/a/b" and by_path["requestContext"]["http"]["path"] == "/a/b"
    assert by_path["requestContext"]["domainName"] == by_host["requestContext"]["domainName"]
    assert url.json("GET", f"/lambda-url/{url.id}", host="127.0.0.1")["rawPath"] == "/"


def test_an_unknown_url_is_forbidden_and_everything_else_not_found(server, aws, name):
    url = open_url(server, aws, name, ECHO)
    status, headers, body = url.ask(host="0123456789abcdefghijklmnopqrstuv.lambda-url.us-east-1.localhost")
    assert (status, body, headers["x-amzn-ErrorType"], headers["Content-Type"]) == (403, b'{"Message":null}', "AccessDeniedException", "application/json")
    assert url.ask(path="/lambda-url/0123456789abcdefghijklmnopqrstuv/", host="127.0.0.1")[0] == 403
    for path in ("/", "/2015-03-31/functions", "/metrics", "/healthz", "/lambda-url/", f"/x/lambda-url/{url.id}/"):
        assert url.ask(path=path, host="127.0.0.1")[0] == 404, path
    for host in (f"{url.id}.lambda-url.eu-west-1.localhost", f"{url.id}.lambda-url.us-east-1.example.com", f"x.{url.host}"):
        assert url.ask(host=host)[0] == 404, host
    aws.delete_function_url_config(FunctionName=name)
    assert url.ask()[0] == 403


def test_the_domain_is_a_setting(own_server):
    server = own_server("--domain", "functions.example.com")
    aws = server.client("lambda")
    url = open_url(server, aws, "f", ECHO)
    assert url.host == f"{url.id}.lambda-url.us-east-1.functions.example.com:{url.gateway.port}"
    assert url.json()["requestContext"]["domainName"] == url.host.rsplit(":", 1)[0]
    assert url.ask(host=f"{url.id}.lambda-url.us-east-1.localhost")[0] == 404


def test_an_alias_has_a_url_and_a_policy_of_its_own(server, aws, name):
    python_function(aws, name, "def handler(e, c):\n    return [c.function_version, c.invoked_function_arn]\n")
    aws.publish_version(FunctionName=name)
    arn = aws.create_alias(FunctionName=name, Name="live", FunctionVersion="1")["AliasArn"]
    config = aws.create_function_url_config(FunctionName=name, Qualifier="live", AuthType="NONE")
    url = Url(server, config)
    allow_all(aws, name)  # on the function: says nothing of the alias
    assert url.ask()[0] == 403
    allow_all(aws, name, "live")
    assert url.json() == ["1", arn]
    aws.update_function_configuration(FunctionName=name, Description="second")
    aws.publish_version(FunctionName=name)
    aws.update_alias(FunctionName=name, Name="live", FunctionVersion="2")
    assert url.json() == ["2", arn]


# -------------------------------------------------------------------------------------------------------------- who may call


def test_auth_type_none_needs_the_functions_permission(server, aws, name):
    python_function(aws, name, ECHO)
    url = Url(server, aws.create_function_url_config(FunctionName=name, AuthType="NONE"))
    status, headers, body = url.ask()
    assert (status, json.loads(body), headers["x-amzn-ErrorType"]) == (403, {"Message": FORBIDDEN}, "AccessDeniedException")
    aws.add_permission(FunctionName=name, StatementId="signed", Action="lambda:InvokeFunctionUrl", Principal="*", FunctionUrlAuthType="AWS_IAM")
    assert url.ask()[0] == 403
    aws.add_permission(FunctionName=name, StatementId="other", Action="lambda:InvokeFunction", Principal="*")
    assert url.ask()[0] == 403
    allow_all(aws, name)
    assert url.ask()[0] == 200
    aws.remove_permission(FunctionName=name, StatementId="public")
    assert url.ask()[0] == 403


def signed(url, method, path, body=None, headers=None, key=None, service="lambda", region="us-east-1", auth=SigV4Auth, **settings):
    request = AWSRequest(method=method, url=f"http://{url.host}{path}", data=body, headers=headers or {})
    auth(Credentials(**key), service, region, **settings).add_auth(request)
    return request


def account_key(server):
    return {"access_key": server.credentials["access_key"], "secret_key": server.credentials["secret_key"]}


def test_auth_type_iam_wants_a_signature(server, aws, name):
    url = open_url(server, aws, name, ECHO, AuthType="AWS_IAM")
    key = account_key(server)

    def send(request, path, body=None):
        return url.ask(request.method, path, body, dict(request.headers.items()))

    status, headers, body = url.ask()
    assert (status, json.loads(body), headers["x-amzn-ErrorType"]) == (403, {"Message": FORBIDDEN}, "AccessDeniedException")
    status, _, body = send(signed(url, "GET", "/a%20b/c?x=1&y=a%20b", key=key), "/a%20b/c?x=1&y=a%20b")
    assert status == 200, body
    event = json.loads(body)
    iam = event["requestContext"]["authorizer"]["iam"]
    assert iam["accessKey"] == key["access_key"] and iam["accountId"] == "000000000000" and iam["userArn"] == "arn:aws:iam::000000000000:root"
    assert event["requestContext"]["accountId"] == "000000000000" and event["rawPath"] == "/a%20b/c"
    assert "authorization" not in event["headers"] and "x-amz-date" in event["headers"]

    data = b'{"n": 1}'
    request = signed(url, "POST", "/", data, {"Content-Type": "application/json"}, key=key)
    assert json.loads(send(request, "/", data)[2])["body"] == data.decode()
    assert send(request, "/", b'{"n": 2}')[0] == 403  # another body
    assert send(request, "/other", data)[0] == 403
    for wrong in (signed(url, "GET", "/", key={**key, "secret_key": "x" * 40}), signed(url, "GET", "/", key=key, service="execute-api"),
                  signed(url, "GET", "/", key=key, region="eu-west-1"), signed(url, "GET", "/", key={"access_key": "AKIAUNKNOWN", "secret_key": "x" * 40}),
                  signed(url, "GET", "/", key={**key, "token": "forged"})):
        status, headers, body = send(wrong, "/")
        assert status == 403 and json.loads(body)["message"] and headers["x-amzn-ErrorType"], body
    presigned = urllib.parse.urlsplit(signed(url, "GET", "/p", key=key, auth=SigV4QueryAuth, expires=60).url)
    assert url.ask("GET", f"{presigned.path}?{presigned.query}")[0] == 200
    assert url.ask("GET", f"/q?{presigned.query}")[0] == 403


def test_functions_call_urls_with_their_own_credentials(server, aws, name):
    url = open_url(server, aws, name, ECHO, AuthType="AWS_IAM")
    caller = name + "-caller"
    python_function(aws, caller, "import os\ndef handler(e, c):\n    return {k: os.environ['AWS_' + k] for k in ('ACCESS_KEY_ID', 'SECRET_ACCESS_KEY', 'SESSION_TOKEN')}\n")
    try:
        found = invoke(aws, caller)[0]
        key = {"access_key": found["ACCESS_KEY_ID"], "secret_key": found["SECRET_ACCESS_KEY"], "token": found["SESSION_TOKEN"]}
        request = signed(url, "GET", "/", key=key)
        status, _, body = url.ask("GET", "/", headers=dict(request.headers.items()))
        assert status == 200, body
        event = json.loads(body)
        assert event["requestContext"]["authorizer"]["iam"]["userArn"] == f"arn:aws:sts::000000000000:assumed-role/test/{caller}"
        assert found["SESSION_TOKEN"] not in body.decode()
    finally:
        aws.delete_function(FunctionName=caller)


# -------------------------------------------------------------------------------------------------------------------- events


def test_the_event_is_payload_format_two(server, aws, name):
    url = open_url(server, aws, name, ECHO)
    before = time.time() * 1000
    event = url.json("POST", "/pa2%25Fth/1?q=query&multiQuery=foo&multiQuery=/bar", b'{"foo": "bar"}',
                     {"Content-Type": "application/json", "ExTrA-HeadErs": "With WeiRd CapS", "User-Agent": "test/echo", "Cookie": "a=1; b=2",
                      "X-Forwarded-For": "1.2.3.4", "X-Amzn-Trace-Id": "Root=forged"})
    context = event.pop("requestContext")
    trace = event["headers"].pop("x-amzn-trace-id")
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24}", trace)
    assert event == {
        "version": "2.0", "routeKey": "$default", "rawPath": "/pa2%25Fth/1", "rawQueryString": "q=query&multiQuery=foo&multiQuery=/bar",
        "cookies": ["a=1", "b=2"], "queryStringParameters": {"q": "query", "multiQuery": "foo,/bar"}, "body": '{"foo": "bar"}', "isBase64Encoded": False,
        "headers": {"host": url.host, "content-type": "application/json", "extra-headers": "With WeiRd CapS", "user-agent": "test/echo", "content-length": "14",
                    "x-forwarded-for": "127.0.0.1", "x-forwarded-port": str(url.gateway.port), "x-forwarded-proto": "http"}}
    assert context.pop("http") == {"method": "POST", "path": "/pa2%Fth/1", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1", "userAgent": "test/echo"}
    assert re.fullmatch(r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000", context.pop("time"))
    assert before - 1000 <= context.pop("timeEpoch") <= time.time() * 1000 + 1000
    assert re.fullmatch(r"[0-9a-f-]{36}", context.pop("requestId"))
    assert context == {"accountId": "anonymous", "apiId": url.id, "authentication": None, "domainName": url.host.split(":")[0], "domainPrefix": url.id,
                       "routeKey": "$default", "stage": "$default"}


def test_binary_bodies_come_as_base64(server, aws, name):
    url = open_url(server, aws, name, ECHO)
    data = bytes(range(256))
    event = url.json("PUT", "/", data, {"Content-Type": "application/octet-stream"})
    assert event["isBase64Encoded"] is True and base64.b64decode(event["body"]) == data
    form = b"\r\n--x\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\nv\r\n--x--\r\n"
    event = url.json("POST", "/", form, {"Content-Type": "multipart/form-data; boundary=x"})
    assert event["isBase64Encoded"] is True and base64.b64decode(event["body"]) == form
    empty = url.json("GET", "/")
    assert "body" not in empty and empty["isBase64Encoded"] is False and "queryStringParameters" not in empty


def test_a_request_and_its_invocation_have_one_id(server, aws, name):
    url = open_url(server, aws, name, "def handler(e, c):\n    return [e['requestContext']['requestId'], c.aws_request_id]\n")
    status, headers, body = url.ask()
    assert status == 200 and set(json.loads(body)) == {headers["x-amzn-RequestId"]}
    assert headers["X-Amzn-Trace-Id"].startswith("Root=1-")


# ------------------------------------------------------------------------------------------------------------------- answers


def test_every_form_of_answer(server, aws, name):
    url = open_url(server, aws, name, "import json\ndef handler(event, context):\n    return json.loads(event['body'])\n")

    def answer(value):
        return url.ask("POST", "/", json.dumps(value).encode(), {"Content-Type": "application/json"})

    for value, text in (({"hello": "world"}, b'{"hello":"world"}'), (["hello", 3, True], b'["hello",3,true]'), ("hello", b"hello"), (3, b"3"), (3.1, b"3.1"), (True, b"true"),
                        (None, b"null")):
        status, headers, body = answer(value)
        assert (status, body, headers["Content-Type"]) == (200, text, "application/json"), value
    status, headers, body = answer({"statusCode": 201, "headers": {"Content-Type": "text/html", "My-Custom-Header": "Custom Value"}, "body": "<p>", "cookies": ["a=1", "b=2"]})
    assert (status, body, headers["Content-Type"], headers["my-custom-header"]) == (201, b"<p>", "text/html", "Custom Value")
    assert headers.get_all("Set-Cookie") == ["a=1", "b=2"]
    status, _, body = answer({"statusCode": "418", "body": "i'm a teapot", "isBase64Encoded": False})
    assert (status, body) == (418, b"i'm a teapot")
    data = bytes(range(256))
    status, headers, body = answer({"statusCode": 200, "headers": {"content-type": "image/png"}, "body": base64.b64encode(data).decode(), "isBase64Encoded": True})
    assert (status, body, headers["content-type"]) == (200, data, "image/png")
    assert answer({"statusCode": 200, "body": {"a": 1}})[2] == b'{"a":1}'
    assert answer({"statusCode": 204})[0] == 204
    for wrong in ({"statusCode": 99}, {"statusCode": "no"}, {"statusCode": 200, "headers": {"a": "b\r\nInjected: 1"}}, {"statusCode": 200, "cookies": ["a\nb"]},
                  {"statusCode": 200, "body": "***", "isBase64Encoded": True}, {"statusCode": 200, "headers": {"a b": "c"}}):
        status, headers, body = answer(wrong)
        assert (status, body) == (502, b"Internal Server Error"), wrong
        assert "Injected" not in headers
    status, _, body = url.ask("HEAD", "/")
    assert body == b""


def test_failures_of_the_function_are_bad_gateways(server, aws, name):
    source = "import os, time\ndef handler(e, c):\n    p = e['rawPath']\n    if p == '/raise': raise ValueError('no')\n    if p == '/exit': os._exit(3)\n    if p == '/slow': time.sleep(30)\n    if p == '/large': return 'x' * (7 << 20)\n    return p\n"
    python_function(aws, name, source, Timeout=1)
    url = open_url(server, aws, name)
    assert url.ask()[2] == b"/"
    for path in ("/raise", "/exit", "/slow", "/large"):
        status, headers, body = url.ask(path=path)
        assert (status, body) == (502, b"Internal Server Error"), path
        assert headers["x-amzn-RequestId"]
    assert url.ask()[2] == b"/"


def test_throttled_calls_are_429(own_server):
    server = own_server("--concurrency", "1", "--queue-per-function", "0")
    aws = server.client("lambda")
    url = open_url(server, aws, "f", "import time\ndef handler(e, c):\n    if e['rawPath'] == '/slow': time.sleep(2)\n    return 1\n")
    assert url.ask()[0] == 200

    def hold():  # either of the two callers may be the one who is refused
        while url.ask("GET", "/slow")[0] == 429:
            time.sleep(0.01)

    slow = threading.Thread(target=hold)
    slow.start()
    try:
        deadline = time.monotonic() + 20
        while (got := url.ask())[0] == 200:
            assert time.monotonic() < deadline
        assert got[0] == 429 and json.loads(got[2])["Message"] == "Rate Exceeded." and got[1]["x-amzn-ErrorType"] == "TooManyRequestsException"
        assert got[1]["Retry-After"] == "1", "as the signed Invoke says it"
    finally:
        slow.join()


# ---------------------------------------------------------------------------------------------------------------------- CORS


def test_cors_is_answered_by_the_url(server, aws, name):
    source = "def handler(e, c):\n    return {'statusCode': 200, 'headers': {'Access-Control-Allow-Origin': 'https://of-the-function'}, 'body': e['requestContext']['http']['method']}\n"
    url = open_url(server, aws, name, source,
                   Cors={"AllowOrigins": ["https://a.example"], "AllowMethods": ["GET", "POST"], "AllowHeaders": ["x-key"], "ExposeHeaders": ["x-out"], "MaxAge": 60, "AllowCredentials": True})
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-key"}
    status, headers, body = url.ask("OPTIONS", "/", headers=asked)
    assert (status, body) == (200, b"")
    assert headers["Access-Control-Allow-Origin"] == "https://a.example" and headers["Access-Control-Allow-Methods"] == "GET,POST"
    assert headers["Access-Control-Allow-Headers"] == "x-key" and headers["Access-Control-Max-Age"] == "60" and headers["Access-Control-Allow-Credentials"] == "true"
    assert url.ask("OPTIONS", "/", headers={**asked, "Origin": "https://b.example"})[1]["Access-Control-Allow-Origin"] is None
    _, headers, body = url.ask("GET", "/", headers={"Origin": "https://a.example"})
    assert headers.get_all("Access-Control-Allow-Origin") == ["https://a.example"] and headers["Access-Control-Expose-Headers"] == "x-out" and headers["Vary"] == "Origin"
    assert url.ask("OPTIONS", "/", headers={"Origin": "https://a.example"})[2] == b"OPTIONS"  # no preflight: the function's
    aws.update_function_url_config(FunctionName=name, Cors={})
    assert url.ask("OPTIONS", "/", headers=asked)[2] == b"OPTIONS"
    assert url.ask("GET", "/", headers={"Origin": "https://a.example"})[1].get_all("Access-Control-Allow-Origin") == ["https://of-the-function"]


# -------------------------------------------------------------------------------------------------------------------- limits


def test_bodies_beyond_six_megabytes_are_refused_before_they_are_read(server, aws, name):
    url = open_url(server, aws, name, "def handler(e, c):\n    return len(e['body'])\n")
    with socket.create_connection((url.gateway.hostname, url.gateway.port), timeout=20) as raw:
        raw.sendall(f"POST / HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: text/plain\r\nContent-Length: {10 << 20}\r\n\r\n".encode())
        answer = raw.recv(65536)  # nothing of the body was sent
    assert answer.startswith(b"HTTP/1.1 413 ") and b"RequestEntityTooLargeException" in answer
    assert url.json("POST", "/", b"x" * (5 << 20), {"Content-Type": "text/plain"}) == 5 << 20
    assert url.ask("POST", "/", b"\0" * (5 << 20), {"Content-Type": "application/octet-stream"})[0] == 413  # as base64 it is beyond
    python_function(aws, name + "-closed", ECHO)
    try:  # whom the policy refuses does not get to send a body either
        closed = Url(server, aws.create_function_url_config(FunctionName=name + "-closed", AuthType="NONE"))
        with socket.create_connection((url.gateway.hostname, url.gateway.port), timeout=20) as raw:
            raw.sendall(f"POST / HTTP/1.1\r\nHost: {closed.host}\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n".encode())
            assert raw.recv(65536).startswith(b"HTTP/1.1 403 ")
    finally:
        aws.delete_function(FunctionName=name + "-closed")


# ----------------------------------------------------------------------------------------------------------------- streaming

STREAM = r"""
import { setTimeout as sleep } from 'node:timers/promises';
import { createHash, createHmac } from 'node:crypto';

// Calls another function with this environment's own credentials.
async function invoke(name, payload) {
  const { AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION } = process.env;
  const url = new URL(`/2015-03-31/functions/${name}/invocations`, AWS_ENDPOINT_URL);
  const body = JSON.stringify(payload);
  const date = new Date().toISOString().replace(/[:-]|[.][0-9]{3}/g, '');
  const hash = (text) => createHash('sha256').update(text).digest('hex');
  const mac = (key, text) => createHmac('sha256', key).update(text).digest();
  const names = 'host;x-amz-date;x-amz-security-token';
  const canonical = ['POST', url.pathname, '', `host:${url.host}`, `x-amz-date:${date}`, `x-amz-security-token:${AWS_SESSION_TOKEN}`, '', names, hash(body)].join('\n');
  const scope = [date.slice(0, 8), AWS_REGION, 'lambda', 'aws4_request'];
  const key = scope.reduce(mac, 'AWS4' + AWS_SECRET_ACCESS_KEY);
  const signature = mac(key, ['AWS4-HMAC-SHA256', date, scope.join('/'), hash(canonical)].join('\n')).toString('hex');
  const headers = {
    'x-amz-date': date, 'x-amz-security-token': AWS_SESSION_TOKEN,
    authorization: `AWS4-HMAC-SHA256 Credential=${AWS_ACCESS_KEY_ID}/${scope.join('/')}, SignedHeaders=${names}, Signature=${signature}`,
  };
  const answer = await fetch(url, { method: 'POST', headers, body });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

export const handler = awslambda.streamifyResponse(async (event, stream) => {
  const path = event.rawPath;
  if (path === '/plain') { stream.setContentType('text/event-stream'); stream.write('one\n'); stream.write('two\n'); stream.end(); return; }
  if (path === '/throw') throw new Error('before the first byte');
  if (path === '/prelude-only') { stream.setContentType('application/vnd.awslambda.http-integration-response'); stream.write('{"statusCode":200}'); stream.end(); return; }
  if (path === '/nothing') { stream.end(); return; }
  const out = awslambda.HttpResponseStream.from(stream, { statusCode: Number(event.queryStringParameters?.status ?? 203), headers: { 'X-From': 'stream', 'Content-Type': 'text/plain' }, cookies: ['a=1', 'b=2'] });
  if (path === '/gate') {
    out.write('first');
    while (!(await invoke(event.queryStringParameters.gate, {}))) await sleep(20);
    out.write('second');
    console.log('reached the end');
  } else if (path === '/break') {
    out.write('partial');
    await sleep(50);
    throw new Error('halfway');
  } else if (path === '/large') {
    const piece = Buffer.alloc(1 << 20, 'x');
    for (let i = 0; i < Number(event.queryStringParameters.megabytes); i++) {
      if (!out.write(piece)) await new Promise((resolve) => out.once('drain', resolve));
    }
  } else {
    out.write('body of ' + path);
  }
  out.end();
});
"""


@pytest.mark.smoke
def test_a_streamed_answer_has_the_status_headers_and_cookies_of_its_prelude(server, aws, name):
    url = node_url(server, aws, name, STREAM)
    status, headers, body = url.ask("GET", "/x")
    assert (status, body, headers["X-From"], headers["Content-Type"]) == (203, b"body of /x", "stream", "text/plain")
    assert headers.get_all("Set-Cookie") == ["a=1", "b=2"] and headers["Transfer-Encoding"] == "chunked" and headers["x-amzn-RequestId"]
    status, headers, body = url.ask("GET", "/plain")
    assert (status, body, headers["Content-Type"]) == (200, b"one\ntwo\n", "text/event-stream")
    assert url.ask("GET", "/nothing")[0] == 200
    assert url.ask("GET", "/x?status=204")[2] == b""
    assert url.ask("HEAD", "/x")[0] == 203
    for path in ("/throw", "/throw", "/throw", "/prelude-only", "/x?status=7"):
        status, _, body = url.ask("GET", path)
        assert (status, body) == (502, b"Internal Server Error"), path
    if shutil.which("curl"):
        done = subprocess.run(["curl", "-sS", "-i", "-N", "-H", f"Host: {url.host}", f"http://{url.gateway.netloc}/curl"], capture_output=True, text=True, timeout=30, check=True)
        assert "203" in done.stdout.splitlines()[0] and done.stdout.endswith("body of /curl")



GATE = "opened = False\ndef handler(e, c):\n    global opened\n    opened = opened or 'open' in e\n    return opened\n"


def start_stream(url, path):
    connection = url.connect(timeout=60)
    connection.request("GET", path, headers={"Host": url.host})
    return connection, connection.getresponse()


def read_until(answer, wanted):
    seen = b""
    while wanted not in seen:
        piece = answer.read1(65536)
        assert piece, seen
        seen += piece
    return seen


class Opener:
    """Opens the gate of a function that waits, whichever of the gate's environments it asks."""

    def __init__(self, aws, gate):
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(aws, gate))
        self.thread.start()

    def run(self, aws, gate):
        while not self.done.wait(0.02):
            invoke(aws, gate, {"open": True})

    def close(self):
        self.done.set()
        self.thread.join()


def test_the_first_byte_arrives_before_the_function_writes_its_second(server, aws, name):
    url = node_url(server, aws, name, STREAM)
    gate = name + "-gate"
    python_function(aws, gate, GATE)
    connection, answer = start_stream(url, f"/gate?gate={gate}")
    try:
        assert answer.status == 203
        assert read_until(answer, b"first") == b"first"  # the function waits at the gate, which nobody has opened yet
        opener = Opener(aws, gate)
        try:
            assert answer.read() == b"second"
        finally:
            opener.close()
    finally:
        connection.close()
        aws.delete_function(FunctionName=gate)


def test_a_caller_that_leaves_does_not_stop_the_function(server, aws, name):
    url = node_url(server, aws, name, STREAM)
    gate = name + "-gate"
    python_function(aws, gate, GATE)
    connection, answer = start_stream(url, f"/gate?gate={gate}")
    read_until(answer, b"first")
    answer.close()
    connection.close()
    opener = Opener(aws, gate)
    try:
        logs = server.client("logs")
        deadline = time.monotonic() + 30
        while not logs.filter_log_events(logGroupName=f"/aws/lambda/{name}", filterPattern='"reached the end"')["events"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        opener.close()
        aws.delete_function(FunctionName=gate)
    assert url.ask("GET", "/x")[2] == b"body of /x"


def test_a_stream_that_fails_halfway_is_not_taken_for_a_whole_one(server, aws, name):
    url = node_url(server, aws, name, STREAM)
    connection, answer = start_stream(url, "/break")
    assert answer.status == 203
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer.read()
    connection.close()
    connection, answer = start_stream(url, "/large?megabytes=201")  # 200 MB is the limit
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        while answer.read(1 << 20):
            pass
    connection.close()


def resident_kb(server):
    with open(f"/proc/{server.process.pid}/status", encoding="utf-8") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])


def test_a_slow_reader_holds_up_its_own_function_only(own_server):
    server = own_server()
    aws = server.client("lambda")
    url = node_url(server, aws, "slow", STREAM)
    other = open_url(server, aws, "quick", ECHO)
    assert url.ask("GET", "/x")[0] == 203 and other.ask()[0] == 200
    before = resident_kb(server)
    readers = [start_stream(url, "/large?megabytes=60") for _ in range(4)]
    for _ in range(50):
        assert other.ask()[0] == 200
    assert url.ask("GET", "/x")[2] == b"body of /x"
    assert resident_kb(server) - before < 60_000  # of the 240 MB that are on their way
    for connection, answer in readers:
        assert len(answer.read()) == 60 << 20
        connection.close()


def test_modes_and_runtimes_may_be_mixed(server, aws, name):
    url = node_url(server, aws, name, STREAM, InvokeMode="BUFFERED")
    status, headers, body = url.ask("GET", "/x")
    assert (status, body, headers["X-From"], headers.get_all("Set-Cookie")) == (203, b"body of /x", "stream", ["a=1", "b=2"])
    assert headers["Content-Length"] == "10"
    assert url.ask("GET", "/plain")[2] == b"one\ntwo\n"
    assert url.ask("GET", "/break")[0] == 502
    plain = name + "-plain"
    python_function(aws, plain, "def handler(e, c):\n    if e['rawPath'] == '/raise': raise ValueError()\n    return {'statusCode': 418, 'body': 'x'}\n")
    try:  # as on AWS: what does not stream is not interpreted
        streaming = open_url(server, aws, plain, InvokeMode="RESPONSE_STREAM")
        status, headers, body = streaming.ask()
        assert (status, json.loads(body), headers["Content-Type"]) == (200, {"statusCode": 418, "body": "x"}, "application/json")
        assert streaming.ask(path="/raise")[0] == 502
    finally:
        aws.delete_function(FunctionName=plain)


def test_requests_are_counted(own_server):
    server = own_server()
    aws = server.client("lambda")
    url = open_url(server, aws, "f", ECHO, Cors={"AllowOrigins": ["*"], "AllowMethods": ["*"]})
    url.ask()
    url.ask("OPTIONS", "/", headers={"Origin": "https://a.example", "Access-Control-Request-Method": "GET"})
    url.ask(path="/", host="127.0.0.1")
    api = urllib.parse.urlsplit(server.endpoint)
    connection = http.client.HTTPConnection(api.hostname, api.port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    for operation, status in (("Invoke", 200), ("Preflight", 200), ("None", 404)):
        assert f'mayfly_http_requests_total{{service="function-url",operation="{operation}",status="{status}"}} 1' in text
