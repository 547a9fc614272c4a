"""More load than there is capacity for, and clients and functions that hold on to what they have: what is admitted is served, what is
not hears why at once, memory stays bounded and the server stays reachable."""
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from mayfly_server import ROLE, invoke, python_function, zip_of

MEGABYTE = 1 << 20


def rss(server):
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        return int(re.search(r"^VmRSS:\s+(\d+)", status.read(), re.M)[1]) << 10


def health(server):
    with urllib.request.urlopen(f"{server.endpoint}/healthz", timeout=20) as answer:
        return answer.status


def sleeping_function(client, name, seconds, **settings):
    python_function(client, name, f"import time\ndef handler(e, c):\n    time.sleep({seconds})\n    return e.get('n')\n", Timeout=20, **settings)


# ---- clients


class SlowClients:
    """Connections to the server that have sent `first` and hold on to what they have; see slow_clients.py."""

    def __init__(self, server, count, first):
        host, port = server.endpoint.removeprefix("http://").split(":")
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "slow_clients.py")
        self.process = subprocess.Popen([sys.executable, program, host, port, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.command(json.dumps(first)) == "connected"

    def command(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def open(self):
        return int(self.command("open"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate("end\n")


def test_ten_thousand_slow_and_ten_thousand_idle_clients(own_server):
    """All of them together pass the limit of 10,000 connections: who asks for something is served all the same."""
    server = own_server()
    aws = server.client()
    python_function(aws, "quick", "def handler(e, c):\n    return 'fine'\n")
    assert invoke(aws, "quick")[0] == "fine"
    before = rss(server)
    head = "POST /2015-03-31/functions/quick/invocations HTTP/1.1\r\nHost: x\r\nX-Slow: "
    with SlowClients(server, 10_000, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") as idle:
        assert health(server) == 200 and invoke(aws, "quick")[0] == "fine"
        with SlowClients(server, 10_000, head) as slow:
            for _ in range(10):
                assert health(server) == 200
                assert invoke(aws, "quick")[0] == "fine"
                slow.command("drip")
            assert idle.open() + slow.open() <= 10_000
            most = rss(server)
            assert most - before < 250 * MEGABYTE, f"{(most - before) // MEGABYTE} MiB for 10,000 connections"
    assert invoke(aws, "quick")[0] == "fine"


def test_bodies_that_never_end_are_given_up(own_server):
    """Clients that announce six megabytes and send a byte a second do not keep others from being served."""
    server = own_server()
    aws = server.client()
    python_function(aws, "quick", "def handler(e, c):\n    return 'fine'\n")
    assert invoke(aws, "quick")[0] == "fine"
    before = rss(server)
    address = f"{server.endpoint}/2015-03-31/functions/quick/invocations"
    request = AWSRequest("POST", address, data=b" " * 6_000_000, headers={"Host": server.endpoint.removeprefix("http://"), "Content-Length": "6000000"})
    SigV4Auth(Credentials(server.credentials["access_key"], server.credentials["secret_key"]), "lambda", server.info["region"]).add_auth(request)
    head = "POST /2015-03-31/functions/quick/invocations HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in request.headers.items()) + "\r\n"
    with SlowClients(server, 60, head) as slow:
        deadline = time.monotonic() + 60
        assert slow.open() == 60
        while slow.open() and time.monotonic() < deadline:
            slow.command("drip")
            assert invoke(aws, "quick")[0] == "fine"
            time.sleep(0.5)
        assert slow.open() == 0, "they send less than the least rate and must be told so"
        assert rss(server) - before < 50 * MEGABYTE  # nothing is set aside for what was only announced


# ---- calls


def test_ten_times_more_calls_than_capacity(own_server):
    """Four environments, 160 callers in a closed loop without a pause: every call is answered, by the function or by 429 with its
    reason; the function's own limit of waiting calls holds; health answers throughout; memory is flat from the first third on."""
    server = own_server("--concurrency", "4", "--queue-per-function", "8")
    aws = server.client()
    sleeping_function(aws, "slow", 0.02)
    assert invoke(aws, "slow", {"n": 0})[0] == 0
    local = threading.local()
    answered, refused, wrong, sizes = [], [], [], []
    ends = time.monotonic() + 9

    def call(number):
        if not hasattr(local, "client"):
            local.client = server.client(max_pool_connections=1)
        while time.monotonic() < ends:
            try:
                answer, error, _, _ = invoke(local.client, "slow", {"n": number})
                (answered if error is None and answer == number else wrong).append(answer)
            except local.client.exceptions.TooManyRequestsException as error:
                refused.append(error.response)
            except Exception as error:  # pylint: disable=broad-exception-caught
                wrong.append(repr(error))

    with ThreadPoolExecutor(40) as pool:
        running = [pool.submit(call, number) for number in range(40)]
        while time.monotonic() < ends:
            assert health(server) == 200
            sizes.append(rss(server))
            time.sleep(0.1)
        for each in running:
            each.result()
    assert not wrong, wrong[:3]
    assert answered and refused
    assert {each["Reason"] for each in refused} == {"ConcurrentInvocationLimitExceeded"}
    assert all(each["ResponseMetadata"]["HTTPStatusCode"] == 429 for each in refused)
    assert sizes[-1] - sizes[len(sizes) // 3] < 20 * MEGABYTE, sizes
    assert invoke(aws, "slow", {"n": 1})[0] == 1


def test_a_flooding_function_does_not_starve_another(own_server):
    """One function's callers take every environment there is and fill its queue; a call of another still gets its turn."""
    server = own_server("--concurrency", "2", "--queue-per-function", "100")
    aws = server.client()
    for name in ("flood", "quiet"):
        sleeping_function(aws, name, 0.05)
        assert invoke(aws, name, {"n": 0})[0] == 0
    ends = time.monotonic() + 6
    quiet = []

    def flood(_):
        client = server.client(max_pool_connections=1)
        while time.monotonic() < ends:
            try:
                invoke(client, "flood", {"n": 1})
            except client.exceptions.TooManyRequestsException:
                time.sleep(0.01)

    with ThreadPoolExecutor(60) as pool:
        running = [pool.submit(flood, number) for number in range(60)]
        time.sleep(1)
        while time.monotonic() < ends - 1:
            began = time.monotonic()
            assert invoke(aws, "quiet", {"n": 7})[0] == 7
            quiet.append(time.monotonic() - began)
        for each in running:
            each.result()
    # 60 callers wait about 1.5 s each for the two environments; in turn with another function a call waits for one or two of theirs.
    assert len(quiet) >= 4, quiet


# ---- functions

RAW = r"""#!/usr/bin/python3
import json, os, socket, sys, time
host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
def ask(request):
    s = socket.create_connection((host, int(port))); s.sendall(request); return s
def next_call():
    s = ask(b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    data = b""
    while b"\r\n\r\n" not in data:
        data += s.recv(1)
    head = data.decode().lower()
    return s, head.split("lambda-runtime-aws-request-id: ")[1].split("\r\n")[0], int(head.split("content-length: ")[1].split("\r\n")[0])
def answer(id, body):
    ask(b"POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (id.encode(), len(body), body)).recv(65536)
while True:
    connection, id, size = next_call()
    if size < 100:
        while size: size -= len(connection.recv(size))
        answer(id, b'"fine"')
        continue
    BODY
"""


def raw_function(client, name, body):
    client.create_function(FunctionName=name, Runtime="provided.al2023", Role=ROLE, Handler="x", Timeout=2, Code={"ZipFile": zip_of({"bootstrap": (RAW.replace("BODY", body), 0o755)})})


def test_a_function_that_never_reads_its_input(own_server):
    server = own_server()
    aws = server.client()
    raw_function(aws, "deaf", "time.sleep(60)")
    python_function(aws, "other", "def handler(e, c):\n    return 'fine'\n")
    assert invoke(aws, "deaf")[0] == "fine" and invoke(aws, "other")[0] == "fine"
    before = rss(server)
    large = {"large": "x" * 5_900_000}
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(invoke, server.client(), "deaf", large) for _ in range(8)]
        for _ in range(10):
            assert invoke(aws, "other")[0] == "fine"
        for call in calls:
            answer, error, _, _ = call.result()
            assert error == "Unhandled" and answer["errorType"] == "Sandbox.Timedout", answer
    assert invoke(aws, "deaf")[0] == "fine"
    assert rss(server) - before < 8 * 2 * 6 * MEGABYTE


@pytest.mark.parametrize("ending", ["a length it never reaches", "chunks without end"])
def test_a_function_that_never_ends_its_output(own_server, ending):
    server = own_server()
    aws = server.client()
    framing = "Content-Length: 6000000" if ending.startswith("a length") else "Transfer-Encoding: chunked"
    piece = "b'x'" if ending.startswith("a length") else r"b'1\r\nx\r\n'"
    raw_function(aws, "endless", rf"""
    s = ask(("POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n" % id).encode())
    while True:
        s.sendall({piece}); time.sleep(0.01)""".strip())
    assert invoke(aws, "endless")[0] == "fine"
    answer, error, _, _ = invoke(aws, "endless", {"large": "x" * 200})
    assert error == "Unhandled" and answer["errorType"] == "Sandbox.Timedout", answer
    assert invoke(aws, "endless")[0] == "fine"
    assert health(server) == 200


# ---- changes under load


def test_updates_under_load_fail_no_call(own_server):
    """Code and configuration change as fast as they may while callers call: every call is answered by one version or the next, and none
    by an older one than a call before it saw."""
    server = own_server()
    aws = server.client()

    def code(number):
        return zip_of({"app.py": f"def handler(e, c):\n    return {number}\n"})

    python_function(aws, "changing", "def handler(e, c):\n    return 0\n", Timeout=20)
    assert invoke(aws, "changing")[0] == 0
    published, failures, served = [0], [], []
    over = threading.Event()

    def call():
        client, seen = server.client(max_pool_connections=1), 0
        while not over.is_set():
            least = published[0]
            try:
                answer, error, _, _ = invoke(client, "changing")
            except Exception as failure:  # pylint: disable=broad-exception-caught
                failures.append(repr(failure))
                continue
            if error or answer < max(least, seen):
                failures.append((answer, error, least, seen))
            else:
                seen = answer
                served.append(answer)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    number = 0
    while number < 15 or (len(served) < 100 and not failures):
        number += 1
        if number % 3:
            aws.update_function_code(FunctionName="changing", ZipFile=code(number))
            published[0] = number  # answered: the next call obeys
        else:
            aws.update_function_configuration(FunctionName="changing", MemorySize=128 + number)
        time.sleep(0.1)
    over.set()
    for caller in callers:
        caller.join()
    assert not failures, failures[:5]
    assert len(set(served)) > 3
