"""Speed of the management API with 10,000 functions deployed: beside its floors, while invocations run, in memory, and with 1,000
versions of one function. Every round has a server and a data directory of its own."""
import base64
import os
import statistics
import sys
import tempfile
import time
from urllib.parse import quote

from mayfly_server import ROLE, Server, zip_of
from measuring import Load, Signer, load, prepare, program, rss_kib

FUNCTIONS = 10_000
WARM_UP = 300
ONE_BY_ONE = 2_000  # of the 10,000 are created over one connection, the rest over 16
PAGE = 50
VERSIONS = 1_000
INVOCATIONS_PER_SECOND = 2_000
SETTLE_SECONDS = 2
BIG, SMALL = "many-versions", "one-version"
REPEATS = 100  # of each measured publication
API = "/2015-03-31/functions"
SMALL_ZIP = base64.b64encode(zip_of({"app.py": "def handler(event, context):\n    return event\n"})).decode()


def creation(signer, name):
    return signer.request("POST", API, {"FunctionName": name, "Runtime": "python3.11", "Role": ROLE, "Handler": "app.handler", "Code": {"ZipFile": SMALL_ZIP}})


def publication(signer, name, mark):
    """A version comes of a change, and the next change wants the end of the former one read."""
    path = f"{API}/{name}"
    return [signer.request("PUT", f"{path}/configuration", {"Description": f"{mark} {time.time()}"}), signer.request("GET", f"{path}/configuration"),
            signer.request("POST", f"{path}/versions", {})]


def commit_floor(directory, count=400):
    """Appending 12 KiB (three pages, what a creation writes) and fdatasync, in µs: what a commit costs at least."""
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        times = []
        for _ in range(count):
            started = time.perf_counter()
            os.write(file.fileno(), bytes(12288))
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - started) * 1e6)
    return {"p50_us": statistics.median(times), "p99_us": sorted(times)[int(len(times) * 0.99)], "rps": 1e6 * count / sum(times)}


def measure_creation(table, server, signer, port):
    pid = server.process.pid
    prepare(port, [creation(signer, f"warm-{number}") for number in range(WARM_UP)], 16)
    load(port, [signer.request("GET", f"{API}/warm-1")], 16, 0.5)
    table.add("commit", **commit_floor(server.data))
    time.sleep(SETTLE_SECONDS)
    before = rss_kib(pid)
    names = [f"function-{number:05d}" for number in range(FUNCTIONS)]
    table.add("create c=1", **load(port, [creation(signer, name) for name in names[:ONE_BY_ONE]], 1, 0, pid))
    table.add("create c=16", **load(port, [creation(signer, name) for name in names[ONE_BY_ONE:]], 16, 0, pid))
    last = Load(port, [creation(signer, f"last-{number}") for number in range(ONE_BY_ONE // 10)], 1, 0)
    table.add("create after 10,000", **last.result())
    time.sleep(SETTLE_SECONDS)
    table.add("memory", created_bytes=(rss_kib(pid) - before) * 1024 / (FUNCTIONS + ONE_BY_ONE // 10))
    return names


def measure_reading(table, server, signer, port, echo_port, names, seconds):
    pid = server.process.pid
    plain = [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"]
    identity = [signer.request("POST", "/", b"Action=GetCallerIdentity&Version=2011-06-15", "sts", "application/x-www-form-urlencoded")]
    gets = [signer.request("GET", f"{API}/{name}") for name in names[::37]]
    pages = [signer.request("GET", f"{API}?MaxItems={PAGE}" + (f"&Marker={quote(marker, safe='')}" if marker else "")) for marker in markers_of(server)]
    for connections in (1, 16):
        table.add(f"echo c={connections}", **load(echo_port, plain, connections, seconds))
        table.add(f"identity c={connections}", **load(port, identity, connections, seconds, pid))
        table.add(f"get c={connections}", **load(port, gets, connections, seconds, pid))
        table.add(f"list c={connections}", **load(port, pages, connections, seconds, pid))
    whole = Load(port, pages, 1, 0)
    table.add("list whole", pages=len(pages), **whole.result())
    table.add("list whole", slowest_us=max(whole.latencies_us()))
    return gets, pages


def markers_of(server):
    pages = server.client("lambda").get_paginator("list_functions").paginate(PaginationConfig={"PageSize": PAGE})
    markers = [page.get("NextMarker") for page in pages]
    return [""] + [marker for marker in markers if marker]


def measure_while_invoking(table, signer, port, gets, pages, seconds):
    """Invocations alone, then beside one connection of management calls."""
    invoke = [signer.invoke("invoked")]
    load(port, invoke, 16, 0.5)
    table.add("invocations alone", **Load(port, invoke, 16, seconds, rate=INVOCATIONS_PER_SECOND).result())
    new = [creation(signer, f"meanwhile-{number}") for number in range(int(2_000 * seconds))]
    for name, requests in (("get", gets), ("list", pages), ("create", new)):
        invocations = Load(port, invoke, 16, seconds + 0.4, rate=INVOCATIONS_PER_SECOND)
        time.sleep(0.2)
        table.add(f"{name} while invoking", **load(port, requests, 1, seconds))
        table.add(f"invocations beside {name}", **invocations.result())


def measure_restart(table, server):
    """Again, with everything deployed; beside an empty server."""
    with Server("--log-level", "warning") as empty:
        load(empty.endpoint.rsplit(":", 1)[1], [Signer(empty).request("GET", API)], 16, 0.3)
        time.sleep(SETTLE_SECONDS)
        empty_rss = rss_kib(empty.process.pid)
        table.add("restart empty", ms=empty.info["ready_ms"])
    server.stop()
    server.start()
    load(server.endpoint.rsplit(":", 1)[1], [Signer(server).request("GET", f"{API}?MaxItems=1")], 16, 0.3)
    time.sleep(SETTLE_SECONDS)
    count = FUNCTIONS + WARM_UP + ONE_BY_ONE // 10
    table.add("restart", ms=server.info["ready_ms"], loaded_bytes=(rss_kib(server.process.pid) - empty_rss) * 1024 / count)


def measure_versions(table, server, seconds):
    client = server.client("lambda")
    signer = Signer(server)
    port = server.endpoint.rsplit(":", 1)[1]
    with open(program("bench_function"), "rb") as binary:
        code = {"ZipFile": zip_of({"bootstrap": (binary.read(), 0o755)})}
    small = [SMALL] + [f"{SMALL}-{number}" for number in range(REPEATS)]
    for name in (BIG, SMALL):
        client.create_function(FunctionName=name, Runtime="provided.al2023", Role=ROLE, MemorySize=1769, Handler="x", Code=code)
        client.publish_version(FunctionName=name)
    prepare(port, [creation(signer, name) for name in small[1:]])
    prepare(port, [signer.request("GET", f"{API}/{name}/configuration") for name in small[1:]])
    prepare(port, [request for name in small[1:] for request in publication(signer, name, "first")])
    table.add("versions", **load(port, [request for number in range(VERSIONS - 1) for request in publication(signer, BIG, number)], 1, 0))
    for row, name, published in ((1, SMALL, small[1:]), (VERSIONS, BIG, [BIG] * REPEATS)):
        path = f"{API}/{name}"
        table.add(f"get v{row}", **load(port, [signer.request("GET", path)], 1, seconds))
        table.add(f"get by number v{row}", **load(port, [signer.request("GET", f"{path}?Qualifier=1")], 1, seconds))
        table.add(f"list versions v{row}", **load(port, [signer.request("GET", f"{path}/versions?MaxItems=2")], 1, seconds))
        client.invoke(FunctionName=name)
        table.add(f"invoke v{row}", **load(port, [signer.invoke(name)], 1, seconds))
        run = Load(port, [request for number, each in enumerate(published) for request in publication(signer, each, number)], 1, 0)
        result = run.result()
        latencies = run.latencies_us()
        for step, offset in (("update", 0), ("publish", 2)):
            table.add(f"{step} v{row}", errors=result["errors"], p50_us=statistics.median(latencies[offset::3]),
                      p99_us=sorted(latencies[offset::3])[int(REPEATS * 0.99)])


def measure(table, rounds, seconds, echo_port):
    for number in range(rounds):
        print(f"management, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        with Server("--log-level", "warning") as server:
            signer = Signer(server)
            port = server.endpoint.rsplit(":", 1)[1]
            names = measure_creation(table, server, signer, port)
            with open(program("bench_function"), "rb") as binary:
                server.client("lambda").create_function(FunctionName="invoked", Runtime="provided.al2023", Role=ROLE, MemorySize=1769, Handler="x",
                                                        Code={"ZipFile": zip_of({"bootstrap": (binary.read(), 0o755)})})
            gets, pages = measure_reading(table, server, signer, port, echo_port, names, seconds)
            measure_while_invoking(table, signer, port, gets, pages, seconds)
            measure_restart(table, server)
            measure_versions(table, server, seconds / 2)


def figures(table, row):
    return f"p50 {table.median(row, 'p50_us'):.0f} µs, p99 {table.median(row, 'p99_us'):.0f} µs, {table.median(row, 'rps'):.0f} calls/s{table.errors(row)}"


def beside(table, row, reference, *names):
    shown = {"p50_us": "p50", "p99_us": "p99", "rps": "calls/s"}
    return ", ".join(f"{shown[name]} {table.ratio(row, name, reference):.2f}" for name in names)


def render(table, rounds):
    lines = ["| measured | figure | × reference (same round) |", "|---|---|---|"]

    def add(title, shown, ratio=""):
        lines.append(f"| {title} | {shown} | {ratio} |")

    for connections in (1, 16):
        at = f"c={connections}"
        add(f"bare HTTP answer {at}", figures(table, f"echo {at}"))
        add(f"signed call, GetCallerIdentity {at}", figures(table, f"identity {at}"), f"{beside(table, f'identity {at}', f'echo {at}', 'p50_us', 'rps')} of bare HTTP")
        add(f"GetFunction {at}", figures(table, f"get {at}"), f"{beside(table, f'get {at}', f'identity {at}', 'p50_us', 'p99_us', 'rps')} of GetCallerIdentity")
        add(f"ListFunctions, {PAGE} a page {at}", figures(table, f"list {at}"), f"{beside(table, f'list {at}', f'identity {at}', 'p50_us', 'p99_us', 'rps')} of GetCallerIdentity")
    add("commit: append 12 KiB, fdatasync", f"p50 {table.median('commit', 'p50_us'):.0f} µs, p99 {table.median('commit', 'p99_us'):.0f} µs, {table.median('commit', 'rps'):.0f}/s")
    for title, row in (("CreateFunction c=1, the first 2,000", "create c=1"), ("CreateFunction c=16, to 10,000", "create c=16"),
                       ("CreateFunction c=1, with 10,000 there", "create after 10,000")):
        add(title, figures(table, row), f"{beside(table, row, 'commit', 'p50_us', 'rps')} of a commit")
    add(f"ListFunctions, all {table.median('list whole', 'pages'):.0f} pages of {PAGE}, one after the other",
        f"{table.median('list whole', 'seconds') * 1000:.0f} ms; a page p50 {table.median('list whole', 'p50_us') / 1000:.2f} ms, p99 "
        f"{table.median('list whole', 'p99_us') / 1000:.2f} ms, slowest {table.median('list whole', 'slowest_us') / 1000:.2f} ms{table.errors('list whole')}")
    add("invocations alone, 2,000/s wanted (C++ function)", figures(table, "invocations alone"), "1")
    for name, title in (("get", "GetFunction"), ("list", "ListFunctions page"), ("create", "CreateFunction")):
        alone = "create c=1" if name == "create" else f"{name} c=1"
        add(f"{title} c=1 meanwhile", figures(table, f"{name} while invoking"), f"{beside(table, f'{name} while invoking', alone, 'p50_us', 'p99_us')} of the same without invocations")
        add("… and the invocations beside it", figures(table, f"invocations beside {name}"), f"{beside(table, f'invocations beside {name}', 'invocations alone', 'p50_us', 'p99_us')} of invocations alone")
    add("memory, RSS growth for each function created", f"{table.median('memory', 'created_bytes'):.0f} bytes")
    add("memory, RSS for each function after a restart", f"{table.median('restart', 'loaded_bytes'):.0f} bytes")
    add("start with 10,000 functions", f"{table.median('restart', 'ms'):.0f} ms; empty {table.median('restart empty', 'ms'):.0f} ms", f"{table.ratio('restart', 'ms', 'restart empty'):.2f} of an empty server")
    for row, title in (("get", "GetFunction"), ("get by number", "GetFunction, version 1"), ("list versions", "ListVersionsByFunction, 2 items"), ("invoke", "Invoke"),
                       ("update", "UpdateFunctionConfiguration"), ("publish", "PublishVersion")):
        one, many = f"{row} v1", f"{row} v{VERSIONS}"
        add(f"{title}, of a function with 1,000 versions", f"p50 {table.median(many, 'p50_us'):.0f} µs, p99 {table.median(many, 'p99_us'):.0f} µs{table.errors(many)}",
            f"{beside(table, many, one, 'p50_us', 'p99_us')} of a function with one or two")
    return "\n".join(lines) + f"\n\nMedians of {rounds} rounds."
