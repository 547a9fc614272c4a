"""What the benchmarks share: signed requests as bytes, the load generator, /proc, and a table of medians over rounds."""
import json
import os
import re
import statistics
import subprocess
import tempfile

from mayfly_server import ROOT

BUILD = os.path.join(ROOT, "build")
TICK = os.sysconf("SC_CLK_TCK")


def program(name):
    return next(path for path in (f"{BUILD}/bench/{name}", f"{BUILD}/{name}") if os.path.exists(path))


def tree(pid):
    """pid and all its descendants."""
    children = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as stat:
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(entry))
        except OSError:
            pass
    found, queue = [], [pid]
    while queue:
        current = queue.pop()
        found.append(current)
        queue += children.get(current, [])
    return found


def cpu_seconds(pid):
    total = 0
    for member in tree(pid):
        try:
            with open(f"/proc/{member}/stat", encoding="ascii", errors="replace") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return total / TICK


def pss_kib(pids):
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
                total += int(re.search(r"^Pss:\s+(\d+)", rollup.read(), re.M)[1])
        except (OSError, TypeError):
            pass
    return total


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"^VmRSS:\s+(\d+)", status.read(), re.M)[1])


class Signer:
    """Makes requests to one server as bytes, signed with its account's key."""

    def __init__(self, server):
        from botocore.auth import SigV4Auth
        from botocore.credentials import Credentials

        self.host = server.endpoint.removeprefix("http://")
        key = Credentials(server.credentials["access_key"], server.credentials["secret_key"])
        self.auth = {service: SigV4Auth(key, service, server.info["region"]) for service in ("lambda", "sts")}

    def request(self, method, path, body=b"", service="lambda", content_type="application/json"):
        from botocore.awsrequest import AWSRequest

        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        request = AWSRequest(method, f"http://{self.host}{path}", data=body, headers={"Host": self.host, "Content-Type": content_type})
        self.auth[service].add_auth(request)
        headers = "".join(f"{name}: {value}\r\n" for name, value in {**dict(request.headers.items()), "Content-Length": str(len(body))}.items())
        return f"{method} {path} HTTP/1.1\r\n{headers}\r\n".encode() + body

    def invoke(self, function):
        return self.request("POST", f"/2015-03-31/functions/{function}/invocations", b"{}")


class Load:
    """bench_load with these requests, started at once. seconds 0: every request once. rate 0: as fast as answers come."""

    def __init__(self, port, requests, connections, seconds, pid=None, rate=0):
        self.pid = pid
        self.file = tempfile.NamedTemporaryFile(prefix="mayfly-bench-")  # pylint: disable=consider-using-with
        self.file.write(b"".join(requests))
        self.file.flush()
        self.latencies = tempfile.NamedTemporaryFile(prefix="mayfly-bench-")  # pylint: disable=consider-using-with
        self.cpu_before = cpu_seconds(pid) if pid else 0
        self.process = subprocess.Popen([program("bench_load"), str(port), self.file.name, str(connections), str(seconds), str(rate), self.latencies.name],
                                        stdout=subprocess.PIPE, text=True)

    def result(self):
        out, _ = self.process.communicate()
        if self.process.returncode != 0:
            raise RuntimeError(f"bench_load ended with status {self.process.returncode}")
        result = json.loads(out)
        if self.pid:
            result["cpu_us"] = (cpu_seconds(self.pid) - self.cpu_before) * 1e6 / max(1, result["requests"])
        return result

    def latencies_us(self):
        """In the order of the requests; after result()."""
        self.latencies.seek(0)
        return [float(line) for line in self.latencies]


def load(port, requests, connections, seconds, pid=None):
    return Load(port, requests, connections, seconds, pid).result()


def prepare(port, requests, connections=1):
    """Every request once, not measured; all of them must succeed."""
    result = load(port, requests, connections, 0)
    if result["errors"]:
        raise RuntimeError(f"{result['errors']} of {len(requests)} requests failed")


class Table:
    def __init__(self):
        self.rounds = {}

    def add(self, row, **figures):
        for name, value in figures.items():
            self.rounds.setdefault((row, name), []).append(value)

    def median(self, row, name):
        return statistics.median(self.rounds[(row, name)])

    def ratio(self, row, name, reference, reference_name=None):
        pairs = zip(self.rounds[(row, name)], self.rounds[(reference, reference_name or name)])
        return statistics.median(a / b for a, b in pairs if b)

    def errors(self, row):
        errors = sum(self.rounds[(row, "errors")])
        return f", {errors} ERRORS" if errors else ""
