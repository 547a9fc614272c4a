#!/usr/bin/env python3
"""Writes vectors.json: requests signed by botocore (the cases of AWS's public SigV4 test suite, S3, presigned URLs) and requests as
boto3 and the AWS SDK for JavaScript really send them, taken from a socket.

    python3 make_vectors.py [DIRECTORY with node_modules/@aws-sdk/client-lambda and client-s3]

Without DIRECTORY the JavaScript captures of the present file are kept. C++ checks the file in src/net/sigv4_test.cc."""
import datetime
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import boto3
import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TOKEN = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQW+LWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGd"
NOW = datetime.datetime(2015, 8, 30, 12, 36, 0, tzinfo=datetime.timezone.utc)
HERE = Path(__file__).resolve().parent

# The published signatures of AWS's test suite: if botocore's differ, a case is not what its name says.
PUBLISHED = {
    "get-vanilla": "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    "get-vanilla-query-order-key-case": "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    "get-header-key-duplicate": "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    "get-header-value-trim": "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    "get-unreserved": "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
    "get-utf8": "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
    "get-vanilla-empty-query-key": "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
    "get-vanilla-utf8-query": "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
    "post-vanilla": "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    "post-x-www-form-urlencoded": "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
}

UNRESERVED = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FORM = [("Content-Type", "application/x-www-form-urlencoded")]
# name, method, target as on the wire, target as given to botocore when it does not canonicalise the wire's itself, headers, body
SUITE = [
    ("get-vanilla", "GET", "/", None, [], ""),
    ("get-vanilla-query-order-key-case", "GET", "/?Param2=value2&Param1=value1", None, [], ""),
    ("get-vanilla-query-order-key", "GET", "/?Param1=value2&Param1=Value1", None, [], ""),
    ("get-vanilla-query-order-value", "GET", "/?Param1=value2&Param1=value1", None, [], ""),
    ("get-vanilla-query-order-encoded", "GET", "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1", None, [], ""),
    ("get-vanilla-query-unreserved", "GET", f"/?{UNRESERVED}={UNRESERVED}", None, [], ""),
    ("get-vanilla-empty-query-key", "GET", "/?Param1=value1", None, [], ""),
    ("get-vanilla-query-without-equals", "GET", "/?tagging&a", "/?tagging=&a=", [], ""),
    ("get-vanilla-query-empty-value", "GET", "/?tagging=&a=", None, [], ""),
    ("get-vanilla-query-plus-is-space", "GET", "/?q=a+b&p=a%2Bb&c=a:b/c", "/?q=a%20b&p=a%2Bb&c=a%3Ab%2Fc", [], ""),
    ("get-vanilla-query-lower-case-escape", "GET", "/?q=%c3%bc%2f", "/?q=%C3%BC%2F", [], ""),
    ("get-vanilla-utf8-query", "GET", "/?\u1234=bar", "/?%E1%88%B4=bar", [], ""),
    ("get-unreserved", "GET", f"/{UNRESERVED}", None, [], ""),
    ("get-utf8", "GET", "/\u1234", None, [], ""),
    ("get-space", "GET", "/example space/", None, [], ""),
    ("get-escaped-path", "GET", "/a%20b%2Fc%3Ad", None, [], ""),
    ("get-relative", "GET", "/example/..", None, [], ""),
    ("get-relative-relative", "GET", "/example1/example2/../..", None, [], ""),
    ("get-slash", "GET", "//", None, [], ""),
    ("get-slash-dot-slash", "GET", "/./", None, [], ""),
    ("get-slash-pointless-dot", "GET", "/./example", None, [], ""),
    ("get-slashes", "GET", "//example//", None, [], ""),
    ("get-header-key-duplicate", "GET", "/", None, [("My-Header1", "value2"), ("My-Header1", "value2"), ("My-Header1", "value1")], ""),
    ("get-header-value-order", "GET", "/", None, [("My-Header1", "value4"), ("My-Header1", "value1"), ("My-Header1", "value3"), ("My-Header1", "value2")], ""),
    ("get-header-value-trim", "GET", "/", None, [("My-Header1", " value1"), ("My-Header2", ' "a   b   c"')], ""),
    ("get-header-value-tabs", "GET", "/", None, [("My-Header1", "\ta \t b\t")], ""),
    ("get-header-value-empty", "GET", "/", None, [("My-Header1", "")], ""),
    ("post-vanilla", "POST", "/", None, [], ""),
    ("post-header-key-case", "POST", "/", None, [], ""),
    ("post-header-value-case", "POST", "/", None, [("My-Header1", "VALUE1")], ""),
    ("post-vanilla-query", "POST", "/?Param1=value1", None, [], ""),
    ("post-x-www-form-urlencoded", "POST", "/", None, FORM, "Param1=value1"),
    ("post-x-www-form-urlencoded-parameters", "POST", "/", None, [("Content-Type", "application/x-www-form-urlencoded; charset=utf8")], "Param1=value1"),
    ("post-date-header", "POST", "/", None, [("Date", "anything")], ""),
]


class Recording:
    def canonical_request(self, request):
        self.canonical = super().canonical_request(request)
        return self.canonical


class Recorder(Recording, botocore.auth.SigV4Auth):
    pass


class S3Recorder(Recording, botocore.auth.S3SigV4Auth):
    pass


def at(moment):
    return mock.patch("botocore.auth.get_current_datetime", lambda: moment)


def sign(signer, method, url, headers, body):
    request = AWSRequest(method=method, url=url, data=body)
    for name, value in headers:
        request.headers.add_header(name, value)
    with at(NOW):
        signer.add_auth(request)
    return request


def vector(name, kind, service, method, target, headers, body, canonical=None, now=NOW):
    return {"name": name, "kind": kind, "service": service, "now": now.strftime("%Y%m%dT%H%M%SZ"), "method": method, "target": target,
            "headers": headers, "body": body, "canonical": canonical}


def suite():
    for name, method, target, given, headers, body in SUITE:
        signer = Recorder(Credentials(ACCESS_KEY, SECRET_KEY), "service", "us-east-1")
        request = sign(signer, method, "https://example.amazonaws.com" + (given or target), headers, body)
        if name in PUBLISHED:
            assert request.headers["Authorization"].endswith("Signature=" + PUBLISHED[name]), name
        wire = [["Host", "example.amazonaws.com"]] + [[n, v] for n, v in request.headers.items()]
        yield vector(name, "suite", "service", method, target, wire, body, signer.canonical)
    signer = Recorder(Credentials(ACCESS_KEY, SECRET_KEY, TOKEN), "service", "us-east-1")
    request = sign(signer, "POST", "https://example.amazonaws.com/", [], "")
    yield vector("post-sts-token", "suite", "service", "POST", "/", [["Host", "example.amazonaws.com"]] + [[n, v] for n, v in request.headers.items()], "", signer.canonical)


def s3():
    for name, target in [("key-with-escapes", "/bucket/a%20b/%2B%28c%29%27%2A/../x//y~%C3%BC%3A%3D%26?versionId=null"), ("key-with-dots", "/bucket/./a//b/../c/"),
                         ("bucket-root", "/"), ("sub-resource", "/bucket?uploads")]:
        signer = S3Recorder(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "us-east-1")
        request = sign(signer, "PUT", "https://s3.amazonaws.com" + target.replace("?uploads", "?uploads="), [], "hello")
        yield vector(name, "s3", "s3", "PUT", target, [["Host", "s3.amazonaws.com"]] + [[n, v] for n, v in request.headers.items()], "hello", signer.canonical)


def presigned():
    cases = [("sts", botocore.auth.SigV4QueryAuth, "sts", "https://sts.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15", None),
             ("sts-token", botocore.auth.SigV4QueryAuth, "sts", "https://sts.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15", TOKEN),
             ("lambda-code", botocore.auth.SigV4QueryAuth, "lambda", "https://127.0.0.1:9000/mayfly/code/hello/abc", None),
             ("s3-object", botocore.auth.S3SigV4QueryAuth, "s3", "https://s3.amazonaws.com/bucket/a%20b/%C3%BC%3A", TOKEN)]
    for name, signer_type, service, url, token in cases:
        signer = signer_type(Credentials(ACCESS_KEY, SECRET_KEY, token), service, "us-east-1", expires=604800 if name == "s3-object" else 900)
        request = sign(signer, "GET", url, [], "")
        parts = urlsplit(request.url)
        yield vector(name, "presigned", service, "GET", parts.path + "?" + parts.query, [["Host", parts.netloc]], "")


class Listener:
    """Answers 200 {} to everything and keeps what it was sent."""

    def __init__(self):
        self.requests = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            connection, _ = self.socket.accept()
            threading.Thread(target=self._serve, args=(connection.makefile("rwb"),), daemon=True).start()

    def _serve(self, stream):
        while line := stream.readline():
            method, target, _ = line.decode().split()
            headers = []
            while (line := stream.readline().rstrip(b"\r\n")):
                headers.append(re.split(r": ?", line.decode(), maxsplit=1))
            named = {name.lower(): value for name, value in headers}
            if "expect" in named:
                stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                stream.flush()
            body = stream.read(int(named.get("content-length", 0)))
            if named.get("transfer-encoding") == "chunked":
                while size := int(stream.readline(), 16):
                    body += stream.read(size)
                    stream.readline()
                stream.readline()
            self.requests.append((method, target, headers, body.decode()))
            stream.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
            stream.flush()

    def take(self, kind):
        for method, target, headers, body in self.requests:
            headers = [[n, v.split(" ")[0] if n.lower() == "user-agent" else v] for n, v in headers]
            named = {name.lower(): value for name, value in headers}
            service = re.search(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/", named["authorization"])[1]
            now = datetime.datetime.strptime(named["x-amz-date"], "%Y%m%dT%H%M%SZ")
            yield vector(f"{kind} {method} {target}", kind, service, method, target, headers, body, now=now)
        self.requests.clear()


def attempt(call, **arguments):
    try:
        call(**arguments)
    except Exception as error:  # the answer {} is not what every operation expects; the request is what counts
        print("  ", type(error).__name__, file=sys.stderr)


FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:hello"
KEY = "a b/+(c)'*/../x//y~\u00fc:=&"


def boto(listener):
    options = {"endpoint_url": listener.url, "region_name": "us-east-1", "aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY,
               "config": Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"})}
    client = boto3.client("lambda", **options)
    attempt(client.list_functions, MaxItems=5)
    attempt(client.invoke, FunctionName=FUNCTION, Qualifier="$LATEST", Payload=b'{"a": 1}', LogType="Tail", ClientContext="e30=")
    attempt(client.untag_resource, Resource=FUNCTION, TagKeys=["b", "a", "a b+c(!)"])
    attempt(boto3.client("sts", **options).get_caller_identity)
    attempt(boto3.client("logs", aws_session_token=TOKEN, **options).describe_log_groups)
    attempt(boto3.client("s3", **options).put_object, Bucket="b-ucket", Key=KEY, Body=b"hello")
    return listener.take("boto3")


SCRIPT = """
import {LambdaClient, ListFunctionsCommand, InvokeCommand, UntagResourceCommand, InvokeWithResponseStreamCommand} from "@aws-sdk/client-lambda";
import {S3Client, PutObjectCommand} from "@aws-sdk/client-s3";
import {Readable} from "stream";
const [endpoint, accessKeyId, secretAccessKey, sessionToken, name, key] = process.argv.slice(2);
const options = {endpoint, region: "us-east-1", maxAttempts: 1, credentials: {accessKeyId, secretAccessKey, sessionToken}, forcePathStyle: true};
const attempt = async (client, command) => { try { await client.send(command); } catch (error) { console.error("  ", error.name); } };
const lambda = new LambdaClient(options), s3 = new S3Client(options);
await attempt(lambda, new ListFunctionsCommand({MaxItems: 5}));
await attempt(lambda, new InvokeCommand({FunctionName: name, Qualifier: "$LATEST", Payload: '{"a": 1}', LogType: "Tail"}));
await attempt(lambda, new InvokeWithResponseStreamCommand({FunctionName: name, Payload: '{"a": 1}'}));
await attempt(lambda, new UntagResourceCommand({Resource: name, TagKeys: ["b", "a", "a b+c(!)"]}));
await attempt(s3, new PutObjectCommand({Bucket: "b-ucket", Key: key, Body: "hello"}));
await attempt(s3, new PutObjectCommand({Bucket: "b-ucket", Key: "k", Body: Readable.from([Buffer.from("streamed")]), ContentLength: 8}));
process.exit(0);
"""


def javascript(listener, directory):
    # The SDK sends x-amzn-trace-id, and leaves it unsigned, inside a function.
    environment = {**os.environ, "AWS_LAMBDA_FUNCTION_NAME": "hello", "_X_AMZN_TRACE_ID": "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"}
    with tempfile.NamedTemporaryFile("w", suffix=".mjs", dir=directory) as script:
        script.write(SCRIPT)
        script.flush()
        subprocess.run(["node", script.name, listener.url, ACCESS_KEY, SECRET_KEY, TOKEN, FUNCTION, KEY], env=environment, check=True, timeout=60)
    return listener.take("javascript")


def main():
    output = HERE / "vectors.json"
    listener = Listener()
    vectors = [*suite(), *s3(), *presigned(), *boto(listener)]
    if len(sys.argv) > 1:
        vectors += javascript(listener, sys.argv[1])
    else:
        vectors += [kept for kept in json.loads(output.read_text())["vectors"] if kept["kind"] == "javascript"]
    document = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "session_token": TOKEN, "vectors": vectors}
    output.write_text(json.dumps(document, indent=1, ensure_ascii=True) + "\n")
    print(len(vectors), "vectors")


main()
