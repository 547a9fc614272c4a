"""The functions that the benchmarks deploy, and how they are deployed: MemorySize 1769, which is one whole CPU by quota."""
import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

from mayfly_server import ROLE, ROOT, Server, zip_of
from measuring import Signer, load, plain_request, program

sys.path.append(os.path.join(ROOT, "tests", "runtime_clients"))
WHOLE_CPU_MB = 1769
API = "/2015-03-31/functions"
STOP_SECONDS = 120
LANGUAGES = {"C++": "cpp", "Python": "python", "Node": "node"}


class CannotRun(Exception):
    """A function that this machine or this server cannot run, with the reason."""


def check(client, settings):
    """Raises CannotRun where the server refuses the function's runtime."""
    try:
        client.create_function(FunctionName="checked", Role=ROLE, **settings)
    except client.exceptions.InvalidParameterValueException as refused:
        raise CannotRun(refused.response["Error"]["Message"]) from None
    client.delete_function(FunctionName="checked")


@contextlib.contextmanager
def running_server(*flags, data=None):
    """A server with time to end the hundreds of environments that the benchmarks leave in it."""
    server = Server("--log-level", "warning", *flags, data=data)
    try:
        yield server.start()
        server.stop(STOP_SECONDS)
    finally:
        if server.process is not None:
            server.kill()
        server.remove()


def binary_zip(name):
    with open(program(name), "rb") as binary:
        return zip_of({"bootstrap": (binary.read(), 0o755)})


def source(name):
    with open(f"{ROOT}/bench/functions/{name}", encoding="ascii") as file:
        return file.read()


def cpp(binary="bench_function"):
    return {"Runtime": "provided.al2023", "Handler": "x", "Code": {"ZipFile": binary_zip(binary)}}


def python(text=None, files=None):
    return {"Runtime": "python3.11", "Handler": "app.handler", "Code": {"ZipFile": zip_of({"app.py": text or source("app.py"), **(files or {})})}}


def node():
    return {"Runtime": "nodejs20.x", "Handler": "index.handler", "Code": {"ZipFile": zip_of({"index.mjs": source("index.mjs")})}}


def java(folder):
    """Compiled into `folder`, where `java -cp folder Echo` is then a bare JVM. Raises CannotRun without a Java compiler."""
    if shutil.which("javac") is None:
        raise CannotRun("no Java compiler here")
    subprocess.run(["javac", "-d", folder, f"{ROOT}/bench/functions/Echo.java"], check=True)
    with open(f"{folder}/Echo.class", "rb") as compiled:
        return {"Runtime": "java17", "Handler": "Echo::handler", "Code": {"ZipFile": zip_of({"Echo.class": compiled.read()})}}


def by_language(language):
    return {"C++": cpp, "Python": python, "Node": node}[language]()


def official_client(language):
    """The same function on AWS's own runtime client, as the tests of the clients build it. Raises support.Unavailable."""
    from support import build_client

    name, handler, file, text = {"Python": ("python", "bench.handler", "bench.py", source("app.py")),
                                 "Node": ("nodejs", "bench.handler", "bench.mjs", source("index.mjs"))}[language]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/function.zip"
        with open(build_client(name, folder), "rb") as built, open(path, "wb") as copy:
            copy.write(built.read())
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(file, text)
        with open(path, "rb") as whole:
            return {"Runtime": "provided.al2023", "Handler": handler, "Code": {"ZipFile": whole.read()}}


def deploy(client, name, settings, memory_mb=WHOLE_CPU_MB, url=False, **more):
    """Creates the function; returns the host name of its function URL where one is wanted."""
    client.create_function(FunctionName=name, Role=ROLE, MemorySize=memory_mb, Timeout=30, **{**settings, **more})
    if not url:
        return None
    made = client.create_function_url_config(FunctionName=name, AuthType="NONE")
    client.add_permission(FunctionName=name, StatementId="public", Action="lambda:InvokeFunctionUrl", Principal="*", FunctionUrlAuthType="NONE")
    return made["FunctionUrl"].removeprefix("http://").removeprefix("https://").rstrip("/")


def creation(signer, name, settings, memory_mb=WHOLE_CPU_MB):
    """CreateFunction as signed bytes. `settings` as the functions above make them."""
    code = {"ZipFile": base64.b64encode(settings["Code"]["ZipFile"]).decode()}
    return signer.request("POST", API, {"FunctionName": name, "Role": ROLE, "MemorySize": memory_mb, "Timeout": 30, **settings, "Code": code})


def change(signer, name, mark):
    """Two requests that leave the function without an environment: a change of its variables, and a look at its end."""
    path = f"{API}/{name}/configuration"
    return [signer.request("PUT", path, {"Environment": {"Variables": {"MARK": str(mark)}}}), signer.request("GET", path)]


def api_port(server):
    return int(server.endpoint.rsplit(":", 1)[1])


def gateway_port(server):
    return int(server.gateway.rsplit(":", 1)[1])


class Door:
    """A function behind one of Mayfly's doors, measured as a peer is: `port`, `pid`, `requests(payloads)`."""

    most_connections = 512

    def __init__(self, title, server, function, host=None):
        self.title, self.server, self.function, self.host = title, server, function, host
        self.port = gateway_port(server) if host else api_port(server)
        self.signer = Signer(server)

    @property
    def pid(self):
        return self.server.process.pid

    def requests(self, payloads):
        if self.host:
            return [plain_request(host=self.host, payload=payload) for payload in payloads]
        return [self.signer.invoke(self.function, payload) for payload in payloads]


def warm_up(target, connections, seconds, core=None, rounds_max=1):
    """Loads the target for rounds of some seconds until a round is no longer cheaper than the one before it by a twentieth: a runtime
    that compiles while it runs takes thousands of calls, in each of its processes."""
    before = float("inf")
    for _ in range(rounds_max):
        cost = load(target.port, target.requests(payloads()), min(connections, target.most_connections), seconds, target.pid, core=core)["cpu_us"]
        if cost > before * 0.95:
            break
        before = cost


def payloads(count=256):
    """Bodies that differ, so that no two requests carry the same signature."""
    return [json.dumps({"number": number}).encode() for number in range(count)]
