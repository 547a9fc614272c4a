"""What functions reach: outside networks through NAT, DNS through the forwarder, and nothing of the host."""
import contextlib
import http.server
import os
import shutil
import socket
import socketserver
import struct
import subprocess
import threading
import uuid

import pytest

from mayfly_server import invoke, python_function

CONNECT = """
import asyncio, socket
async def connect(target):
    try:
        reader, writer = await asyncio.open_connection(*target)
        writer.write(b'GET / HTTP/1.0\\r\\n\\r\\n')
        answer = (await reader.read(100)).decode(errors='replace')[:12]
        writer.close()
        return answer
    except OSError as e:
        return None
# All at once: a host has an address for each sandbox of each server, hundreds after a test of overload, and most of them never answer.
async def connect_to(targets):
    tries = [asyncio.create_task(connect(target)) for target in targets.values()]
    await asyncio.wait(tries, timeout=3)
    return {name: each.result() if each.done() else None for name, each in zip(targets, tries)}
def handler(event, context):
    results = asyncio.run(connect_to(event['targets']))
    for name, host in event.get('names', {}).items():
        try:
            results[name] = socket.gethostbyname(host)
        except OSError as e:
            results[name] = None
    return results
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2: makes network namespaces")


class Outside:
    """A network namespace that plays the outside world: 192.0.2.x behind a veth pair, with a web server in it."""

    def __init__(self):
        tag = uuid.uuid4().hex[:6]
        self.namespace, self.near, self.far = f"out-{tag}", f"o{tag}a", f"o{tag}b"
        self.address, self.host_address = "198.51.100.2", "198.51.100.1"
        for command in (f"netns add {self.namespace}", f"link add {self.near} type veth peer name {self.far} netns {self.namespace}",
                        f"addr add {self.host_address}/30 dev {self.near}", f"link set {self.near} up",
                        f"-n {self.namespace} addr add {self.address}/30 dev {self.far}", f"-n {self.namespace} link set {self.far} up", f"-n {self.namespace} link set lo up"):
            subprocess.run(["ip", *command.split()], check=True)
        self.server = subprocess.Popen(["ip", "netns", "exec", self.namespace, "python3", "-m", "http.server", "8000", "--bind", self.address],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection((self.address, 8000), timeout=0.2):
                break

    def close(self):
        self.server.terminate()
        self.server.wait()
        subprocess.run(["ip", "netns", "del", self.namespace], check=True)
        subprocess.run(["ip", "link", "del", self.near], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def outside():
    made = Outside()
    yield made
    made.close()


@pytest.fixture
def host_listener():
    """A web server on every address of the host."""
    listener = http.server.ThreadingHTTPServer(("0.0.0.0", 0), http.server.SimpleHTTPRequestHandler)
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    yield listener.server_address[1]
    listener.shutdown()
    listener.server_close()


class Resolver:
    """A DNS server on the host's loopback that answers every A question with one address."""

    def __init__(self, answer):
        self.answer = answer
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                query, peer = self.socket.recvfrom(2048)
            except OSError:
                return
            end = query.index(b"\0", 12) + 5
            question = query[12:end]
            is_a = question[-4:-2] == b"\0\1"
            header = query[:2] + b"\x81\x80" + struct.pack("!HHHH", 1, 1 if is_a else 0, 0, 0)
            record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + socket.inet_aton(self.answer) if is_a else b""
            self.socket.sendto(header + question + record, peer)

    def close(self):
        self.socket.close()


def test_outside_is_reached_and_the_host_is_not(own_server, outside, host_listener):
    server = own_server()
    client = server.client()
    python_function(client, "net", CONNECT, Timeout=30)
    api_port = int(server.endpoint.rsplit(":", 1)[1])
    gateway_port = int(server.gateway.rsplit(":", 1)[1])
    targets = {
        "outside": (outside.address, 8000),
        "host loopback": ("127.0.0.1", host_listener),
        "host near address": (outside.host_address, host_listener),
        "management api": ("127.0.0.1", api_port),
        "management api by host address": (outside.host_address, api_port),
        "gateway": ("127.0.0.1", gateway_port),
        "metadata": ("169.254.169.254", 80),
        "link local": ("169.254.1.1", 80),
    }
    with open("/proc/net/fib_trie", encoding="ascii") as trie:
        addresses = sorted({line.split()[-1] for line in trie if line.strip().startswith("|--") and not line.split()[-1].startswith(("127.", "0.", "255."))})
    with socket.create_connection((outside.host_address, host_listener), timeout=2):
        pass  # positive control: from the host it answers
    for address in addresses:
        targets[f"host address {address}"] = (address, host_listener)
    answer, error, log, _ = invoke(client, "net", {"targets": targets})
    assert error is None, log
    assert answer.pop("outside") == "HTTP/1.0 200"
    assert {name for name, reached in answer.items() if reached} == set(), answer


def test_a_function_with_network_none_reaches_nothing(own_server, outside):
    server = own_server()
    client = server.client()
    python_function(client, "none", CONNECT, Timeout=30, Environment={"Variables": {"MAYFLY_NETWORK": "none"}})
    answer, error, log, _ = invoke(client, "none", {"targets": {"outside": (outside.address, 8000)}, "names": {"name": "example.test"}})
    assert error is None, log
    assert answer == {"outside": None, "name": None}


def test_dns_works_with_a_resolver_on_the_hosts_loopback_and_rebinding_gains_nothing(own_server, outside, host_listener):
    resolver = Resolver(outside.address)
    rebinding = Resolver("127.0.0.1")
    try:
        server = own_server("--resolvers", f"127.0.0.1:{resolver.port}")
        python_function(server.client(), "dns", CONNECT, Timeout=30)
        answer, error, log, _ = invoke(server.client(), "dns", {"targets": {"by name": ("web.example.test", 8000)}, "names": {"name": "db.example.test"}})
        assert error is None and answer == {"by name": "HTTP/1.0 200", "name": outside.address}, (answer, log)
        evil = own_server("--resolvers", f"127.0.0.1:{rebinding.port}")
        python_function(evil.client(), "dns", CONNECT, Timeout=30)
        answer, error, _, _ = invoke(evil.client(), "dns", {"targets": {"rebound": ("evil.example.test", host_listener)}})
        assert error is None and answer == {"rebound": None}
    finally:
        resolver.close()
        rebinding.close()


def test_two_environments_cannot_reach_each_other(own_server):
    server = own_server()
    client = server.client()
    listen = """
import socket, threading, time
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('0.0.0.0', 7777)); s.listen(5)
def serve():
    while True:
        c, _ = s.accept(); c.sendall(b'reached'); c.close()
threading.Thread(target=serve, daemon=True).start()
def own_address():
    p = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); p.connect(('198.51.100.200', 9)); return p.getsockname()[0]
def handler(event, context):
    if 'wait' in event:
        address = own_address()
        c = socket.create_connection((address, 7777), timeout=2); print('CONTROL', c.recv(10)); c.close()
        print('ADDRESS', address, flush=True)
        time.sleep(event['wait'])
        return address
    try:
        c = socket.create_connection((event['address'], 7777), timeout=2)
        return c.recv(10).decode()
    except OSError as e:
        return 'unreachable'
"""
    python_function(client, "a", listen, Timeout=20)
    python_function(client, "b", listen, Timeout=20)
    first = invoke(client, "a", {"wait": 0})[0]
    results = []
    waiter = threading.Thread(target=lambda: results.append(invoke(server.client(), "a", {"wait": 5})))
    waiter.start()
    answer, error, log, _ = invoke(client, "b", {"address": first})
    waiter.join()
    assert results[0][1] is None and results[0][0] == first, results
    assert answer == "unreachable", (answer, log)


def test_functions_call_functions_with_their_own_temporary_credentials(server, aws, name):
    caller = """
import hashlib, hmac, json, os, urllib.request, urllib.error, datetime
def handler(event, context):
    endpoint = os.environ['AWS_ENDPOINT_URL']
    results = {'endpoint': endpoint, 'key': os.environ['AWS_ACCESS_KEY_ID'][:4], 'token': bool(os.environ.get('AWS_SESSION_TOKEN'))}
    def call(method, path, body=b'', service='lambda', headers=None):
        host = endpoint.split('//')[1]; now = datetime.datetime.utcnow(); stamp = now.strftime('%Y%m%dT%H%M%SZ'); day = stamp[:8]
        sent = {'host': host, 'x-amz-date': stamp, 'x-amz-security-token': os.environ['AWS_SESSION_TOKEN'], **(headers or {})}
        names = ';'.join(sorted(sent)); digest = hashlib.sha256(body).hexdigest()
        canonical = '\\n'.join([method, path, '', *[f'{k}:{sent[k]}' for k in sorted(sent)], '', names, digest])
        scope = f"{day}/{os.environ['AWS_REGION']}/{service}/aws4_request"
        text = '\\n'.join(['AWS4-HMAC-SHA256', stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = ('AWS4' + os.environ['AWS_SECRET_ACCESS_KEY']).encode()
        for part in scope.split('/'):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        sent['Authorization'] = f"AWS4-HMAC-SHA256 Credential={os.environ['AWS_ACCESS_KEY_ID']}/{scope}, SignedHeaders={names}, Signature={hmac.new(key, text.encode(), hashlib.sha256).hexdigest()}"
        try:
            with urllib.request.urlopen(urllib.request.Request(endpoint + path, data=body or None, headers=sent, method=method), timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
    results['invoke'] = call('POST', f"/2015-03-31/functions/{event['callee']}/invocations", b'{"x": 1}')
    results['list'] = call('GET', '/2015-03-31/functions')[0]
    results['identity'] = call('POST', '/', b'Action=GetCallerIdentity&Version=2011-06-15', 'sts', {'content-type': 'application/x-www-form-urlencoded'})
    results['metrics'] = call('GET', '/metrics')[0]
    return results
"""
    callee = name + "-callee"
    python_function(aws, callee, "def handler(e, c):\n    return ['called', e]\n")
    python_function(aws, name, caller, Timeout=20)
    try:
        answer, error, log, _ = invoke(aws, name, {"callee": callee})
        assert error is None, (answer, log)
        assert answer["key"] == "ASIA" and answer["token"]
        assert answer["invoke"] == [200, '["called", {"x": 1}]'] or answer["invoke"] == [200, '["called",{"x":1}]'], answer
        assert answer["list"] == 403
        assert answer["identity"][0] == 200 and "assumed-role" in answer["identity"][1]
        assert answer["metrics"] in (403, 404)
    finally:
        aws.delete_function(FunctionName=callee)


def test_two_servers_on_one_host_do_not_share_addresses(own_server, outside):
    servers = [own_server() for _ in range(2)]
    for round_number in range(2):
        for server in servers:
            client = server.client()
            if round_number == 0:
                python_function(client, "net", CONNECT, Timeout=30)
            answer, error, log, _ = invoke(client, "net", {"targets": {"outside": (outside.address, 8000)}})
            assert error is None and answer == {"outside": "HTTP/1.0 200"}, (answer, log)
