"""What the benchmarks share: signed requests as bytes, the load generator, /proc, and a table of medians over rounds."""
import hashlib
import hmac
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from urllib.parse import quote

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


def pin(pid, core):
    """Puts every thread of the tree on one core, and fails where one is elsewhere afterwards."""
    for member in tree(pid):
        for thread in os.listdir(f"/proc/{member}/task"):
            os.sched_setaffinity(int(thread), {core})
            if os.sched_getaffinity(int(thread)) != {core}:
                raise RuntimeError(f"thread {thread} of {member} does not stay on core {core}")


def is_pinned(pid, core):
    return all(os.sched_getaffinity(member) == {core} for member in tree(pid))


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"^VmRSS:\s+(\d+)", status.read(), re.M)[1])


class Signer:
    """Makes requests to one server as bytes, signed (Signature Version 4) with its account's key. A signature is valid for 5 minutes."""

    def __init__(self, server):
        self.host = server.endpoint.removeprefix("http://")
        self.region = server.info["region"]
        self.access_key, self.secret_key = server.credentials["access_key"], server.credentials["secret_key"]
        self.keys = {}

    def _key(self, date, service):
        if (date, service) not in self.keys:
            key = f"AWS4{self.secret_key}".encode()
            for part in (date, self.region, service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self.keys[(date, service)] = key
        return self.keys[(date, service)]

    def request(self, method, path, body=b"", service="lambda", content_type="application/json"):
        """`path` as it goes over the wire: its query, if any, encoded already. `body`: bytes, or what becomes JSON."""
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        scope = f"{now[:8]}/{self.region}/{service}/aws4_request"
        address, _, query = path.partition("?")
        query = "&".join(sorted(part if "=" in part else f"{part}=" for part in query.split("&"))) if query else ""
        canonical = (f"{method}\n{quote(address, safe='/-_.~')}\n{query}\ncontent-type:{content_type}\nhost:{self.host}\nx-amz-date:{now}\n\n"
                     f"content-type;host;x-amz-date\n{hashlib.sha256(body).hexdigest()}")
        to_sign = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._key(now[:8], service), to_sign.encode(), "sha256").hex()
        return (f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Type: {content_type}\r\nX-Amz-Date: {now}\r\n"
                f"Authorization: AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders=content-type;host;x-amz-date, "
                f"Signature={signature}\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body

    def invoke(self, function, payload=b"{}"):
        return self.request("POST", f"/2015-03-31/functions/{function}/invocations", payload)


def plain_request(path="/", host="127.0.0.1", payload=b"{}"):
    """An unsigned POST of JSON, for peers and function URLs."""
    return f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n".encode() + payload


class Load:
    """bench_load with these requests, started at once. seconds 0: every request once. rate 0: as fast as answers come; below 0: a crowd
    that does not wait (see load.cc). `pid`: the tree of processes whose CPU time counts; `core`: where the generator runs."""

    def __init__(self, port, requests, connections, seconds, pid=None, rate=0, core=None):
        self.pid = pid
        self.file = tempfile.NamedTemporaryFile(prefix="mayfly-bench-")  # pylint: disable=consider-using-with
        self.file.write(b"".join(requests))
        self.file.flush()
        self.latencies = tempfile.NamedTemporaryFile(prefix="mayfly-bench-")  # pylint: disable=consider-using-with
        pinned = ["taskset", "-c", str(core)] if core is not None else []
        self.cpu_before = cpu_seconds(pid) if pid else 0
        self.process = subprocess.Popen([*pinned, program("bench_load"), str(port), self.file.name, str(connections), str(seconds), str(rate), self.latencies.name],
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


def load(port, requests, connections, seconds, pid=None, core=None):
    return Load(port, requests, connections, seconds, pid, core=core).result()


def prepare(port, requests, connections=1):
    """Every request once, not measured; all of them must succeed."""
    result = load(port, requests, connections, 0)
    if result["errors"]:
        raise RuntimeError(f"{result['errors']} of {len(requests)} requests failed")


class Table:
    """Figures by row and name, one for each round."""

    def __init__(self):
        self.rounds = {}

    def add(self, row, **figures):
        for name, value in figures.items():
            self.rounds.setdefault((row, name), []).append(value)

    def has(self, row, name):
        return (row, name) in self.rounds

    def median(self, row, name):
        return statistics.median(self.rounds[(row, name)])

    def ratio(self, row, name, reference, reference_name=None):
        """Median of the per-round ratios."""
        pairs = zip(self.rounds[(row, name)], self.rounds[(reference, reference_name or name)])
        ratios = [a / b for a, b in pairs if b]
        return statistics.median(ratios) if ratios else float("nan")

    def total(self, row, name):
        return sum(self.rounds.get((row, name), [0]))

    def errors(self, row):
        errors = self.total(row, "errors")
        return f", {errors} ERRORS" if errors else ""


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def wait_until(condition, seconds, what, pause=0.01):
    """Waits for `condition` to be true; RuntimeError naming `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} within {seconds:.0f} s")
        time.sleep(pause)
