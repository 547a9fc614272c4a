"""Starts the peers that Mayfly is measured beside: each is a process of its own on a free port of 127.0.0.1, on all cores or on one.

`tools/setup bench` installs them below build/peers and as Debian packages; where one cannot be had it leaves the reason in
build/peers/NAME.reason. A peer that is not there raises Unavailable: the run names it and goes on.
"""
import os
import re
import shutil
import socket
import subprocess
import tempfile

from measuring import BUILD, cpu_seconds, plain_request, program, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = os.path.join(HERE, "peers")
INSTALLED = os.path.join(BUILD, "peers")
START_SECONDS = 60
INSTANCES = 16  # of the floor: as many as there are connections


class Unavailable(Exception):
    """A peer that this machine does not have, with the reason."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def installed(name, path):
    """`path` when it exists; Unavailable with the reason that the installation left."""
    if path and os.path.exists(path):
        return path
    try:
        with open(f"{INSTALLED}/{name}.reason", encoding="utf-8") as reason:
            raise Unavailable(" ".join(reason.read().split())[-300:])
    except OSError:
        raise Unavailable("not installed; run tools/setup bench") from None


def npm_program(name):
    return installed("npm", f"{INSTALLED}/node_modules/.bin/{name}")


class Peer:
    """One running peer: `port`, `pid` (the root of its process tree). A context manager."""

    title = ""
    most_connections = 512

    def __init__(self, core=None):
        self.core = core
        self.directory = tempfile.mkdtemp(prefix="mayfly-bench-")
        self.port = None
        self.process = None

    def command(self):
        """The command line; sets `self.port`, or lets the program write it to `self.port_file`."""
        raise NotImplementedError

    def requests(self, payloads):
        return [plain_request(payload=payload) for payload in payloads]

    @property
    def pid(self):
        return self.process.pid

    @property
    def port_file(self):
        return f"{self.directory}/port"

    def variables(self):
        return {}

    def __enter__(self):
        command = self.command()
        pinned = ["taskset", "-c", str(self.core)] if self.core is not None else []
        environment = {"PATH": os.environ["PATH"], "HOME": self.directory, **self.variables()}
        with open(f"{self.directory}/output", "wb") as output:
            self.process = subprocess.Popen([*pinned, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.directory, env=environment)
        try:
            wait_until(self.is_ready, START_SECONDS, f"{self.title} did not answer")
        except RuntimeError as error:
            with open(f"{self.directory}/output", encoding="utf-8", errors="replace") as output:
                said = " ".join(output.read().split())[-300:]
            self.__exit__()
            raise Unavailable(f"{error}: {said}") from None
        return self

    def is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.title} ended with status {self.process.returncode}")
        if self.port is None and os.path.exists(self.port_file) and os.path.getsize(self.port_file):
            with open(self.port_file, encoding="ascii") as port:
                self.port = int(port.read())
        return self.port is not None and answers(self.port)

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Echo(Peer):
    """The reference: a one-thread epoll server answering a constant."""

    title = "reference"

    def command(self):
        return [program("bench_echo"), self.port_file]


class Floor(Peer):
    """One process per instance over a socketpair, with nothing of a platform: what isolation, limits, ids, metrics and logs add to."""

    def __init__(self, language, core=None):
        super().__init__(core)
        self.title = f"isolation off, {language}"
        self.language = language

    def command(self):
        instance = {"C++": [program("bench_floor_instance")], "Python": ["/usr/bin/python3", f"{SOURCES}/floor_instance.py"],
                    "Node": ["node", f"{SOURCES}/floor_instance.cjs"]}[self.language]
        return [program("bench_floor"), self.port_file, str(INSTANCES), *instance]


class Nginx(Peer):
    title = "nginx"

    def command(self):
        path = installed("nginx", shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"))
        self.port = free_port()
        with open(f"{self.directory}/nginx.conf", "w", encoding="ascii") as file:
            file.write(f"""daemon off; worker_processes 1; pid {self.directory}/pid; error_log /dev/null; user root;
events {{ worker_connections 2048; }}
http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {self.directory}/body; proxy_temp_path {self.directory}/proxy;
fastcgi_temp_path {self.directory}/fastcgi; uwsgi_temp_path {self.directory}/uwsgi; scgi_temp_path {self.directory}/scgi;
server {{ listen 127.0.0.1:{self.port}; location / {{ default_type application/json; return 200 '{{"ok":"echo"}}'; }} }} }}
""")
        return [path, "-p", self.directory, "-c", f"{self.directory}/nginx.conf"]


class BareNode(Peer):
    title = "bare Node HTTP"

    def command(self):
        self.port = free_port()
        return [installed("node", shutil.which("node")), f"{SOURCES}/bare_node.cjs", str(self.port)]


class Workerd(Peer):
    title = "workerd"

    def command(self):
        self.port = free_port()
        return [npm_program("workerd"), "serve", f"{SOURCES}/workerd.capnp", f"--socket-addr=http=127.0.0.1:{self.port}"]


class FunctionsFramework(Peer):
    title = "functions-framework"

    def command(self):
        self.port = free_port()
        return [npm_program("functions-framework"), "--target", "handler", "--source",
                f"{SOURCES}/functions_framework.cjs", "--port", str(self.port)]


class FaasJsRuntime(Peer):
    title = "faas-js-runtime"

    def command(self):
        self.port = free_port()
        return [npm_program("faas-js-runtime"), f"{SOURCES}/faas_js_runtime", "--port", str(self.port), "--log-level", "warn"]


class RuntimeInterfaceEmulator(Peer):
    """AWS's emulator with the C++ function of the benchmark. It takes one call at a time and ends when several come."""

    title = "AWS runtime interface emulator, C++"
    most_connections = 1

    def command(self):
        self.port = free_port()
        return [installed("aws-lambda-rie", f"{INSTALLED}/bin/aws-lambda-rie"), "--runtime-interface-emulator-address", f"127.0.0.1:{self.port}",
                "--runtime-api-address", f"127.0.0.1:{free_port()}", "--log-level", "error", program("bench_function"), "x"]

    def requests(self, payloads):
        return [plain_request("/2015-03-31/functions/function/invocations", payload=payload) for payload in payloads]


class Redis(Peer):
    """Not an HTTP server: GET of a small value through redis-benchmark, as a point of orientation."""

    title = "Redis GET"

    def command(self):
        self.port = free_port()
        return [installed("redis", shutil.which("redis-server")), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]

    def load(self, connections, seconds, core=None):
        """Figures named as bench_load's. redis-benchmark counts requests, not seconds: a first short run says how many."""
        pinned = ["taskset", "-c", str(core)] if core is not None else []

        def run(count):
            command = [*pinned, "redis-benchmark", "-p", str(self.port), "-c", str(connections), "-n", str(count), "-t", "get", "-d", "13", "--csv"]
            row = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}).stdout.splitlines()[-1]
            rps, _, _, p50, _, p99, _ = [float(value) for value in re.findall(r'"([0-9.]+)"', row)]
            return {"requests": count, "errors": 0, "rps": rps, "p50_us": p50 * 1000, "p99_us": p99 * 1000}

        count = max(1000, int(run(2000)["rps"] * seconds))
        before = cpu_seconds(self.pid)
        figures = run(count)
        return {**figures, "cpu_us": (cpu_seconds(self.pid) - before) * 1e6 / count}


OTHERS = [Nginx, BareNode, Workerd, FunctionsFramework, FaasJsRuntime, RuntimeInterfaceEmulator, Redis]
LANGUAGES = ["C++", "Python", "Node"]
