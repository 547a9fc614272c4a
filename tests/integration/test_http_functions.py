"""Functions whose program is an ordinary HTTP server (MAYFLY_CONTRACT=http)."""
import base64
import http.client
import json
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from mayfly_server import ROLE, invoke, zip_of
from test_function_urls import open_url

NODE = r"""
const http = require("node:http");
const me = require("node:crypto").randomUUID();
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
let inside = 0, most = 0;
const paths = {
  "/": (req, res) => res.end("ready"),
  "/early": (req, res) => { res.writeHead(413, {"content-type": "text/plain"}); res.end("too large for me"); },
  "/echo": async (req, res, url, body) => {
    res.setHeader("content-type", "application/json");
    res.end(JSON.stringify({method: req.method, url: req.url, headers: req.headers, body: body.toString("base64"), me}));
  },
  "/bytes": (req, res) => { res.setHeader("content-type", "application/octet-stream"); res.end(Buffer.from(Array.from({length: 256}, (_, i) => i))); },
  "/false-text": (req, res) => { res.setHeader("content-type", "text/plain"); res.end(Buffer.from([0xff, 0xfe, 0x41])); },
  "/cookies": (req, res) => { res.setHeader("set-cookie", ["a=1; HttpOnly", "b=2"]); res.setHeader("x-twice", ["one", "two"]); res.end("ok"); },
  "/big": (req, res, url) => { res.setHeader("content-type", "text/plain"); res.end("x".repeat(Number(url.searchParams.get("n")))); },
  "/sleep": async (req, res, url) => {
    most = Math.max(most, ++inside);
    const id = req.headers["lambda-runtime-aws-request-id"];
    console.log(id, "sleeps", url.searchParams.get("tag"));
    await sleep(Number(url.searchParams.get("ms")));
    inside--;
    res.setHeader("content-type", "application/json");
    res.end(JSON.stringify({me, id, tag: url.searchParams.get("tag"), most}));
  },
  "/stream": async (req, res, url) => {
    res.writeHead(201, {"content-type": "text/plain", "x-kind": "stream"});
    for (let i = 0; i < 5; i++) { res.write(`${url.searchParams.get("tag")}${i}\n`); await sleep(Number(url.searchParams.get("ms") || 20)); }
    res.end();
  },
  "/flood": (req, res) => {
    let left = Number(new URL(req.url, "http://x").searchParams.get("n"));
    const piece = Buffer.alloc(65536, "y");
    const more = () => { while (left > 0) { left -= piece.length; if (!res.write(piece)) return res.once("drain", more); } res.end(); };
    more();
  },
  "/crash": () => process.exit(3),
  "/memory": () => { const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1)); },
  "/garbage": (req, res) => res.socket.end("SSH-2.0-nonsense\r\n\r\n"),
  "/two-lengths": (req, res) => res.socket.end("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
  "/half": (req, res) => { res.writeHead(200, {"content-length": "100"}); res.write("half"); setTimeout(() => res.destroy(), 20); },
  "/nothing": (req, res) => res.destroy(),
  "/silent": () => {},
  "/close": (req, res) => { res.setHeader("connection", "close"); res.end("closed " + me); },
  "/status": (req, res, url) => { res.statusCode = Number(url.searchParams.get("code")); res.end("status"); },
  "/events": (req, res, url, body) => {
    res.setHeader("content-type", "application/json");
    res.statusCode = JSON.parse(body).status || 200;
    res.end(JSON.stringify({got: JSON.parse(body), method: req.method, id: req.headers["lambda-runtime-aws-request-id"]}));
  },
};
http.createServer(async (req, res) => {
  const url = new URL(req.url, "http://x");
  const chunks = [];
  if (url.pathname !== "/early") for await (const chunk of req) chunks.push(chunk);
  const answer = paths[url.pathname];
  if (answer) return answer(req, res, url, Buffer.concat(chunks));
  res.statusCode = 404;
  res.end("nothing here");
}).listen(Number(process.env.PORT), "127.0.0.1", () => console.log("listening on", process.env.PORT));
"""

PYTHON = r"""
import json, os, time, uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ME = str(uuid.uuid4())

class Handler(BaseHTTPRequestHandler):
    protocol_version = os.environ.get("PROTOCOL", "HTTP/1.0")

    def do_GET(self):
        if self.path.startswith("/sleep"):
            time.sleep(0.2)
        body = json.dumps({"me": ME, "path": self.path, "agent": self.headers.get("user-agent")}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        print("served", self.path, self.headers.get("lambda-runtime-aws-request-id"))

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""

NATIVE = r"""
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>
#include <string>
int main() {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(8080);
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  if (::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || ::listen(listener, 64) != 0) return 1;
  const std::string answer = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 12\r\n\r\n<p>native</p>";
  for (;;) {
    const int connection = ::accept(listener, nullptr, nullptr);
    std::string seen;
    char bytes[4096];
    for (ssize_t got = 0; (got = ::read(connection, bytes, sizeof bytes)) > 0;) {
      seen.append(bytes, static_cast<std::size_t>(got));
      if (seen.find("\r\n\r\n") == std::string::npos) continue;
      seen.clear();
      (void)!::write(connection, answer.data(), answer.size());
    }
    ::close(connection);
  }
}
"""


def create(aws, name, runtime, handler, files, variables=None, **settings):
    settings.setdefault("Timeout", 10)
    settings.setdefault("MemorySize", 512)
    aws.create_function(FunctionName=name, Runtime=runtime, Role=ROLE, Handler=handler, Code={"ZipFile": zip_of(files)},
                        Environment={"Variables": {"MAYFLY_CONTRACT": "http", **(variables or {})}}, **settings)


def node(aws, name, source=NODE, variables=None, **settings):
    create(aws, name, "nodejs20.x", "server.js", {"server.js": source}, variables, **settings)


def request(path="/", method="GET", query="", body=None, headers=None, cookies=None):
    """An event in payload format 2.0, as Invoke is given it."""
    event = {"version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": query, "headers": headers or {},
             "requestContext": {"http": {"method": method, "path": path, "protocol": "HTTP/1.1"}, "requestId": "in-the-event"}, "isBase64Encoded": False}
    if cookies:
        event["cookies"] = cookies
    if body is not None:
        event.update(body=base64.b64encode(body).decode(), isBase64Encoded=True)
    return event


def ask(aws, name, *words, **settings):
    """The answer to a request, which must not be an error, with its body as bytes."""
    answer, error, *_ = invoke(aws, name, request(*words, **settings))
    assert error is None, answer
    body = answer["body"]
    answer["bytes"] = base64.b64decode(body) if answer["isBase64Encoded"] else body.encode()
    return answer


def fails(aws, name, event):
    answer, error, *_ = invoke(aws, name, event)
    assert error is not None, answer
    return answer


def log_of(aws, server, name, until, timeout=5):
    logs = server.client("logs")
    limit = time.monotonic() + timeout
    while True:
        events = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        text = "".join(event["message"] for event in events)
        if until(text) or time.monotonic() > limit:
            return text
        time.sleep(0.05)


def test_a_request_reaches_a_node_server_as_it_was_sent(server, aws, name):
    node(aws, name)
    url = open_url(server, aws, name)
    body = bytes(range(256))
    status, headers, got = url.ask("POST", "/echo?a=%20b&a=c+d&e", body, {"X-Own": "val", "Cookie": "k=v; l=w", "Content-Type": "application/x-own"})
    assert (status, headers["content-type"]) == (200, "application/json")
    seen = json.loads(got)
    assert (seen["method"], seen["url"]) == ("POST", "/echo?a=%20b&a=c+d&e")
    assert base64.b64decode(seen["body"]) == body
    assert seen["headers"]["x-own"] == "val"
    assert seen["headers"]["cookie"] == "k=v; l=w"
    assert seen["headers"]["host"] == url.host
    assert seen["headers"]["content-length"] == "256"
    context = json.loads(seen["headers"]["x-amzn-lambda-context"])
    assert context["request_id"] == seen["headers"]["lambda-runtime-aws-request-id"]
    assert context["env_config"]["function_name"] == name
    left = int(seen["headers"]["lambda-runtime-deadline-ms"]) / 1000 - time.time()
    assert 5 < left <= 10
    assert json.loads(seen["headers"]["x-amzn-request-context"])["http"]["method"] == "POST"
    assert seen["headers"]["x-amzn-trace-id"].startswith("Root=")


def test_answers_keep_their_bytes_cookies_and_statuses(server, aws, name):
    node(aws, name)
    url = open_url(server, aws, name)
    status, headers, got = url.ask("GET", "/bytes")
    assert (status, got) == (200, bytes(range(256)))
    status, headers, got = url.ask("GET", "/cookies")
    assert headers.get_all("set-cookie") == ["a=1; HttpOnly", "b=2"]
    assert headers["x-twice"] == "one,two"
    assert url.ask("GET", "/nowhere")[0] == 404
    assert url.ask("GET", "/status?code=503")[0] == 503
    assert url.ask("HEAD", "/")[0] == 200
    assert url.ask("POST", "/early", b"z" * 5_000_000)[0] == 413
    answer = ask(aws, name, "/bytes")
    assert answer["isBase64Encoded"] and answer["bytes"] == bytes(range(256))
    answer = ask(aws, name, "/cookies")
    assert (answer["statusCode"], answer["cookies"], answer["isBase64Encoded"]) == (200, ["a=1; HttpOnly", "b=2"], False)
    assert ask(aws, name, "/false-text")["bytes"] == b"\xff\xfeA"
    assert "connection" not in answer["headers"] and "content-length" not in answer["headers"]


def test_format_one_and_other_events(aws, name):
    node(aws, name)
    event = {"httpMethod": "PUT", "path": "/echo", "multiValueHeaders": {"X-Own": ["a", "b"]}, "requestContext": {"stage": "prod"},
             "multiValueQueryStringParameters": {"q": ["1 2", "ü"]}, "body": "text", "isBase64Encoded": False}
    answer, error, *_ = invoke(aws, name, event)
    assert error is None
    seen = json.loads(answer["body"])
    assert (seen["method"], seen["url"]) == ("PUT", "/echo?q=1%202&q=%C3%BC")
    assert seen["headers"]["x-own"] == "a, b"
    assert answer["multiValueHeaders"]["content-type"] == ["application/json"]
    answer, error, *_ = invoke(aws, name, {"Records": [{"eventSource": "aws:sqs"}]})
    assert error is None
    assert (answer["method"], answer["got"]) == ("POST", {"Records": [{"eventSource": "aws:sqs"}]})
    assert fails(aws, name, {"status": 500})["errorType"] == "Function.HttpStatus"


def test_a_header_of_the_event_cannot_forge_what_the_platform_says(aws, name):
    node(aws, name)
    seen = json.loads(ask(aws, name, "/echo", headers={
        "lambda-runtime-aws-request-id": "forged", "x-amzn-lambda-context": "{}", "x-a": "1\r\nX-B: 2", "bad name": "x", "Transfer-Encoding": "chunked",
        "Content-Length": "5"}, body=b"four")["body"])
    assert seen["headers"]["lambda-runtime-aws-request-id"] != "forged"
    assert json.loads(seen["headers"]["x-amzn-lambda-context"])["request_id"] == seen["headers"]["lambda-runtime-aws-request-id"]
    assert "x-b" not in seen["headers"] and "transfer-encoding" not in seen["headers"]
    assert base64.b64decode(seen["body"]) == b"four"
    seen = json.loads(ask(aws, name, "/echo", query="a b\r\nc#d")["body"])
    assert seen["url"] == "/echo?a%20b%0D%0Ac%23d"


def test_settings_by_the_names_of_the_web_adapter(aws, name):
    source = NODE.replace("process.env.PORT), \"127.0.0.1\"", "9123)").replace('"/": (req, res) => res.end("ready")',
                                                                              '"/health": (req, res) => res.end("ready")')
    node(aws, name, source, {"AWS_LWA_PORT": "9123", "AWS_LWA_READINESS_CHECK_PATH": "/health", "AWS_LWA_READINESS_CHECK_HEALTHY_STATUS": "200-299",
                             "AWS_LWA_REMOVE_BASE_PATH": "/api", "AWS_LWA_ERROR_STATUS_CODES": "502-504", "AWS_LWA_PASS_THROUGH_PATH": "/echo",
                             "AWS_LWA_AUTHORIZATION_SOURCE": "x-authorization"})
    seen = json.loads(ask(aws, name, "/api/echo", headers={"x-authorization": "Bearer t"})["body"])
    assert (seen["url"], seen["headers"]["authorization"]) == ("/echo", "Bearer t")
    assert fails(aws, name, request("/api/status", query="code=502"))["errorType"] == "Function.HttpStatus"
    assert ask(aws, name, "/status", query="code=500")["statusCode"] == 500
    answer, error, *_ = invoke(aws, name, {"some": "event"})
    assert error is None and answer["url"] == "/echo"


def test_unusable_settings_are_named(aws, name):
    with pytest.raises(ClientError) as refused:
        node(aws, name, variables={"MAYFLY_CONTRACT": "ftp"})
    assert "MAYFLY_CONTRACT" in str(refused.value)
    node(aws, name, variables={"AWS_LWA_PORT": "many"})
    fault = fails(aws, name, request())
    assert fault["errorType"] == "Runtime.InvalidHttpContract" and "AWS_LWA_PORT" in fault["errorMessage"]
    aws.delete_function(FunctionName=name)
    create(aws, name, "nodejs20.x", "missing.js", {"server.js": NODE})
    fault = fails(aws, name, request())
    assert fault["errorType"] == "Runtime.InvalidEntrypoint" and "/var/task/missing.js" in fault["errorMessage"]


def test_python_servers_of_both_http_versions(aws, name):
    for protocol in ["HTTP/1.0", "HTTP/1.1"]:
        create(aws, name, "python3.11", "app.py", {"app.py": PYTHON}, {"PROTOCOL": protocol})
        first = json.loads(ask(aws, name, "/a", headers={"user-agent": "tests"})["body"])
        assert (first["path"], first["agent"]) == ("/a", "tests")
        for _ in range(5):
            assert json.loads(ask(aws, name, "/b")["body"])["me"] == first["me"]
        assert ask(aws, name, "/", "POST", body=b"p" * 3_000_000)["bytes"] == b"p" * 3_000_000
        time.sleep(2)  # the kept connection has been idle for too long, and the environment was frozen
        assert json.loads(ask(aws, name, "/c")["body"])["me"] == first["me"]
        aws.delete_function(FunctionName=name)


def test_a_shell_script_starts_the_server(server, aws, name):
    create(aws, name, "nodejs20.x", "run.sh", {"run.sh": ("#!/bin/sh\nexec node server.js\n", 0o755), "server.js": NODE})
    assert ask(aws, name, "/echo")["statusCode"] == 200
    aws.delete_function(FunctionName=name)
    create(aws, name, "nodejs20.x", "run.sh", {"run.sh": "#!/bin/sh\nexec node server.js\n", "server.js": NODE})
    assert fails(aws, name, request())["errorType"] == "Runtime.InvalidEntrypoint"


@pytest.mark.skipif(shutil.which("clang++-19") is None, reason="needs clang++-19")
def test_a_native_server_as_bootstrap(server, aws, name, tmp_path):
    (tmp_path / "server.cc").write_text(NATIVE)
    subprocess.run(["clang++-19", "-O1", "-static", "-o", str(tmp_path / "bootstrap"), str(tmp_path / "server.cc")], check=True)
    create(aws, name, "provided.al2023", "none", {"bootstrap": ((tmp_path / "bootstrap").read_bytes(), 0o755)}, MemorySize=128)
    url = open_url(server, aws, name)
    status, headers, body = url.ask()
    assert (status, headers["content-type"]) == (200, "text/html")
    for _ in range(20):
        assert url.ask()[0] == 200


def test_a_streamed_answer_arrives_as_it_is_made(server, aws, name):
    node(aws, name)
    url = open_url(server, aws, name, InvokeMode="RESPONSE_STREAM")
    connection = url.connect()
    connection.request("GET", "/stream?tag=s&ms=300", headers={"Host": url.host})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["x-kind"], answer.headers["content-type"]) == (201, "stream", "text/plain")
    began = time.monotonic()
    assert answer.read1(100) == b"s0\n"
    assert time.monotonic() - began < 1
    assert answer.read() == b"s1\ns2\ns3\ns4\n"
    connection.close()
    assert len(url.ask("GET", "/flood?n=20000000")[2]) >= 20_000_000
    assert url.ask("GET", "/bytes")[2] == bytes(range(256))
    pieces = aws.invoke_with_response_stream(FunctionName=name, Payload=json.dumps(request("/stream", query="tag=i")))["EventStream"]
    body = b"".join(piece["PayloadChunk"]["Payload"] for piece in pieces if "PayloadChunk" in piece)
    prelude, rest = body.split(b"\0" * 8)
    assert json.loads(prelude)["statusCode"] == 201
    assert rest == b"i0\ni1\ni2\ni3\ni4\n"


def test_a_caller_that_leaves_a_stream_does_not_disturb_the_next(server, aws, name):
    node(aws, name)
    url = open_url(server, aws, name, InvokeMode="RESPONSE_STREAM")
    connection = url.connect()
    connection.request("GET", "/flood?n=100000000", headers={"Host": url.host})
    connection.getresponse().read1(10)
    connection.close()
    assert url.ask("GET", "/bytes")[2] == bytes(range(256))


def test_sizes_are_bounded(aws, name):
    node(aws, name)
    assert len(ask(aws, name, "/big", query="n=6000000")["bytes"]) == 6_000_000
    assert fails(aws, name, request("/big", query="n=6400000"))["errorType"] == "Function.ResponseSizeTooLarge"
    assert ask(aws, name, "/echo")["statusCode"] == 200


def test_what_is_no_http_is_an_error_of_the_function(aws, name):
    node(aws, name)
    me = json.loads(ask(aws, name, "/echo")["body"])["me"]
    assert fails(aws, name, request("/garbage"))["errorType"] == "Runtime.InvalidHttpResponse"
    assert fails(aws, name, request("/two-lengths"))["errorType"] == "Runtime.InvalidHttpResponse"
    assert fails(aws, name, request("/half"))["errorType"] == "Runtime.TruncatedResponse"
    assert fails(aws, name, request("/nothing"))["errorType"] == "Runtime.HttpServerUnreachable"
    for _ in range(3):
        assert ask(aws, name, "/close")["body"] == "closed " + me
    assert json.loads(ask(aws, name, "/echo")["body"])["me"] == me


def test_a_silent_server_ends_at_the_timeout(aws, name):
    node(aws, name, Timeout=1)
    me = json.loads(ask(aws, name, "/echo")["body"])["me"]
    began = time.monotonic()
    assert fails(aws, name, request("/silent"))["errorType"] == "Sandbox.Timedout"
    assert time.monotonic() - began < 5
    assert json.loads(ask(aws, name, "/echo")["body"])["me"] != me


def test_a_server_that_never_becomes_ready(aws, name):
    node(aws, name, NODE.replace("}).listen(", "}).emit("), Timeout=1)
    assert fails(aws, name, request())["errorType"] in ("Runtime.ExitError", "Sandbox.Timedout")
    aws.delete_function(FunctionName=name)
    node(aws, name, "setInterval(() => {}, 1000)", Timeout=1)
    assert fails(aws, name, request())["errorType"] == "Sandbox.Timedout"


def test_a_server_that_ends(server, aws, name):
    node(aws, name)
    me = json.loads(ask(aws, name, "/echo")["body"])["me"]
    fault = fails(aws, name, request("/crash"))
    assert fault["errorType"] == "Runtime.ExitError" and "exit status 3" in fault["errorMessage"]
    assert json.loads(ask(aws, name, "/echo")["body"])["me"] != me


# ---- many at once


def test_one_environment_serves_many_requests_at_once(server, aws, name):
    node(aws, name, variables={"AWS_LAMBDA_MAX_CONCURRENCY": "10"})
    ask(aws, name, "/echo")
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda i: json.loads(ask(aws, name, "/sleep", query=f"ms=100&tag={i}")["body"]), range(100)))
    assert [answer["tag"] for answer in answers] == [str(i) for i in range(100)]
    assert len({answer["id"] for answer in answers}) == 100
    assert len({answer["me"] for answer in answers}) <= 10
    assert 1 < max(answer["most"] for answer in answers) <= 10
    text = log_of(aws, server, name, lambda seen: seen.count("REPORT RequestId") >= 101)
    for answer in answers:
        assert text.count(f"{answer['id']} sleeps {answer['tag']}\n") == 1
        for line in ["START RequestId: ", "END RequestId: ", "REPORT RequestId: "]:
            assert text.count(line + answer["id"]) == 1


def test_without_the_setting_one_environment_has_one_request(aws, name):
    node(aws, name)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda i: json.loads(ask(aws, name, "/sleep", query=f"ms=300&tag={i}")["body"]), range(4)))
    assert max(answer["most"] for answer in answers) == 1


def test_sixty_four_at_once_on_connections_of_their_own(server, aws, name):
    node(aws, name, variables={"AWS_LAMBDA_MAX_CONCURRENCY": "64"}, MemorySize=1024)
    ask(aws, name, "/echo")
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda i: json.loads(ask(aws, name, "/sleep", query=f"ms=1500&tag={i}")["body"]), range(64)))
    assert len({answer["me"] for answer in answers}) == 1
    assert max(answer["most"] for answer in answers) == 64


def test_one_of_many_times_out(server, aws, name):
    node(aws, name, variables={"AWS_LAMBDA_MAX_CONCURRENCY": "10"}, Timeout=2)
    me = json.loads(ask(aws, name, "/echo")["body"])["me"]
    with ThreadPoolExecutor(10) as pool:
        silent = pool.submit(fails, aws, name, request("/silent"))
        time.sleep(1)  # the others still run when its time is over
        others = [pool.submit(ask, aws, name, "/sleep", query=f"ms=1500&tag={i}") for i in range(5)]
        assert silent.result()["errorType"] == "Sandbox.Timedout"
        for other in others:
            assert json.loads(other.result()["body"])["me"] == me
    assert json.loads(ask(aws, name, "/echo")["body"])["me"] != me
    text = log_of(aws, server, name, lambda seen: seen.count("REPORT") >= 7)
    assert text.count("Task timed out after 2.00 seconds") == 1


def test_a_crash_ends_all_that_run_there(server, aws, name):
    node(aws, name, variables={"AWS_LAMBDA_MAX_CONCURRENCY": "10"})
    me = json.loads(ask(aws, name, "/echo")["body"])["me"]
    with ThreadPoolExecutor(10) as pool:
        running = [pool.submit(fails, aws, name, request("/sleep", query="ms=5000&tag=x")) for _ in range(5)]
        time.sleep(1)
        assert fails(aws, name, request("/crash"))["errorType"] == "Runtime.ExitError"
        for each in running:
            fault = each.result()
            assert fault["errorType"] == "Runtime.ExitError" and "exit status 3" in fault["errorMessage"]
    assert json.loads(ask(aws, name, "/echo")["body"])["me"] != me
    text = log_of(aws, server, name, lambda seen: seen.count("REPORT") >= 8)
    assert text.count("Status: error\tError Type: Runtime.ExitError") == 6


def test_running_out_of_memory_ends_all_that_run_there(server, aws, name):
    node(aws, name, variables={"AWS_LAMBDA_MAX_CONCURRENCY": "10"}, MemorySize=256)
    ask(aws, name, "/echo")
    with ThreadPoolExecutor(10) as pool:
        running = [pool.submit(fails, aws, name, request("/sleep", query="ms=9000&tag=x")) for _ in range(3)]
        time.sleep(1)
        assert fails(aws, name, request("/memory"))["errorType"] == "Runtime.OutOfMemory"
        for each in running:
            assert each.result()["errorType"] == "Runtime.OutOfMemory"


def test_several_streams_at_once_keep_their_pieces_apart(server, aws, name):
    node(aws, name, variables={"AWS_LAMBDA_MAX_CONCURRENCY": "10"})
    url = open_url(server, aws, name, InvokeMode="RESPONSE_STREAM")
    url.ask("GET", "/")
    slow = url.connect()
    slow.request("GET", "/flood?n=30000000", headers={"Host": url.host})
    held = slow.getresponse()  # whose body nobody reads meanwhile
    with ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(lambda i: url.ask("GET", f"/stream?tag=t{i}-&ms=50")[2], range(8)))
    for i, body in enumerate(bodies):
        assert body == "".join(f"t{i}-{piece}\n" for piece in range(5)).encode()
    assert len(held.read()) >= 30_000_000
    slow.close()


def test_reserved_concurrency_counts_environments(aws, name):
    node(aws, name, variables={"AWS_LAMBDA_MAX_CONCURRENCY": "4"})
    aws.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    ask(aws, name, "/echo")

    def call(i):
        try:
            return json.loads(ask(aws, name, "/sleep", query=f"ms=1000&tag={i}")["body"])["me"]
        except ClientError as refused:
            assert refused.response["ResponseMetadata"]["HTTPStatusCode"] == 429
            return None

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(call, range(6)))
    assert answers.count(None) == 2
    assert len(set(answers) - {None}) == 1
