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
ONE_BY_ONE = 500  # of the 10,000 are created over one connection, and as many again in the end; the rest over 16
PAGE = 50
VERSIONS = 1_000
INVOCATIONS_PER_SECOND = 2_000
MEANWHILE_PER_SECOND = 100
SETTLE_SECONDS = 2
BIG, SMALL = "many-versions", "one-version"
REPEATS = 200  # of each measured publication
API = "/2015-03-31/functions"
SMALL_ZIP = base64.b64encode(zip_of({"app.py": "def handler(event, context):\n    return event\n"})).decode()


def creation(signer, name):
    return signer.request("POST", API, {"FunctionName": name, "Runtime": "python3.11", "Role": ROLE, "Handler": "app.handler", "Code": {"ZipFile": SMALL_ZIP}})


def publication(signer, name, mark):
    """A version comes of a change, and the next change wants the end of the former one read."""
    path = f"{API}/{name}"
    return [signer.request("PUT", f"{path}/configuration", {"Description": f"{mark} {time.time()}"}), signer.request("GET", f"{path}/configuration"),
            signer.request("POST", f"{path}/versions", {})]


def commit_floor(directory, count=300):
    """Appending 8 KiB (two pages, as most creations do) and fdatasync: what a commit costs at least."""
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        times = []
        for _ in range(count):
            started = time.perf_counter()
            os.write(file.fileno(), bytes(8192))
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - started) * 1e6)
    return {"p50_us": statistics.median(times), "p99_us": sorted(times)[int(len(times) * 0.99)], "rps": 1e6 * count / sum(times)}


def measure_creation(table, server, signer, port, function_count):
    pid = server.process.pid
    prepare(port, [creation(signer, f"warm-{number}") for number in range(WARM_UP)], 16)
    load(port, [signer.request("GET", f"{API}/warm-1")], 16, 0.5)
    time.sleep(SETTLE_SECONDS)
    before = rss_kib(pid)
    names = [f"function-{number:05d}" for number in range(function_count)]
    last = [f"last-{number:04d}" for number in range(ONE_BY_ONE)]
    for row, each, connections in (("create c=1", names[:ONE_BY_ONE], 1), ("create c=16", names[ONE_BY_ONE:], 16), ("create after 10,000", last, 1)):
        table.add(f"{row} commit", **commit_floor(server.data))  # disks change their pace: right before each
        table.add(row, **load(port, [creation(signer, name) for name in each], connections, 0))
    time.sleep(SETTLE_SECONDS)
    table.add("memory", created_bytes=(rss_kib(pid) - before) * 1024 / len(names + last))
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
    """Invocations alone, then beside management calls: at a fixed pace, and as many as one connection gives."""
    invoke = [signer.invoke("invoked")]
    load(port, invoke, 16, 0.5)
    table.add("invocations alone", **Load(port, invoke, 16, seconds, rate=INVOCATIONS_PER_SECOND).result())
    for pace in (MEANWHILE_PER_SECOND, 0):
        new = [creation(signer, f"meanwhile-{pace}-{number}") for number in range(int((pace or 2_000) * seconds) + 1)]
        for name, requests in (("get", gets), ("list", pages), ("create", new)):
            invocations = Load(port, invoke, 16, seconds + 0.4, rate=INVOCATIONS_PER_SECOND)
            time.sleep(0.2)
            table.add(f"{name} meanwhile {pace}", **Load(port, requests, 1, seconds, rate=pace).result())
            table.add(f"invocations beside {name} {pace}", **invocations.result())


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
    count = int(server.client("lambda").get_account_settings()["AccountUsage"]["FunctionCount"])
    table.add("restart", ms=server.info["ready_ms"], loaded_bytes=(rss_kib(server.process.pid) - empty_rss) * 1024 / count)


def measure_versions(table, server, seconds, version_count):
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
    prepare(port, [request for number in range(version_count - 1) for request in publication(signer, BIG, number)])
    for name in (BIG, SMALL):
        client.invoke(FunctionName=name)

    def in_turn(requests, duration, *rows):
        """The requests of the small and the big function in turn, so that both meet the same machine."""
        run = Load(port, requests, 1, duration)
        errors = run.result()["errors"]
        for at, row in enumerate(rows):
            latencies = sorted(run.latencies_us()[at::len(rows)])
            if row:
                table.add(row, errors=errors, p50_us=statistics.median(latencies), p99_us=latencies[int(len(latencies) * 0.99)])

    reads = {"get": "", "get by number": "?Qualifier=1", "list versions": "/versions?MaxItems=2"}
    for row, rest in reads.items():
        in_turn([signer.request("GET", f"{API}/{name}{rest}") for name in (SMALL, BIG)], seconds, f"{row} v1", f"{row} v{VERSIONS}")
    in_turn([signer.invoke(name) for name in (SMALL, BIG)], seconds, "invoke v1", f"invoke v{VERSIONS}")
    in_turn([request for number, name in enumerate(small[1:]) for each in (name, BIG) for request in publication(signer, each, number)], 0,
            "update v1", None, "publish v1", f"update v{VERSIONS}", None, f"publish v{VERSIONS}")


def measure(table, rounds, seconds, echo_port, function_count=FUNCTIONS, version_count=VERSIONS):
    for number in range(rounds):
        print(f"management, round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        with Server("--log-level", "warning") as server:
            signer = Signer(server)
            port = server.endpoint.rsplit(":", 1)[1]
            names = measure_creation(table, server, signer, port, function_count)
            with open(program("bench_function"), "rb") as binary:
                server.client("lambda").create_function(FunctionName="invoked", Runtime="provided.al2023", Role=ROLE, MemorySize=1769, Handler="x",
                                                        Code={"ZipFile": zip_of({"bootstrap": (binary.read(), 0o755)})})
            gets, pages = measure_reading(table, server, signer, port, echo_port, names, seconds)
            measure_while_invoking(table, signer, port, gets, pages, seconds)
            measure_restart(table, server)
            measure_versions(table, server, seconds, version_count)


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
    for title, row in (("CreateFunction c=1, the first 500", "create c=1"), ("CreateFunction c=16, to 10,000", "create c=16"),
                       ("CreateFunction c=1, with 10,000 there", "create after 10,000")):
        floor = f"{row} commit"
        add("commit: append 8 KiB, fdatasync", f"p50 {table.median(floor, 'p50_us'):.0f} µs, p99 {table.median(floor, 'p99_us'):.0f} µs, {table.median(floor, 'rps'):.0f}/s", "1")
        add(title, figures(table, row), f"{beside(table, row, floor, 'p50_us', 'p99_us', 'rps')} of a commit")
    add(f"ListFunctions, all {table.median('list whole', 'pages'):.0f} pages of {PAGE}, one after the other",
        f"{table.median('list whole', 'seconds') * 1000:.0f} ms; a page p50 {table.median('list whole', 'p50_us') / 1000:.2f} ms, p99 "
        f"{table.median('list whole', 'p99_us') / 1000:.2f} ms, slowest {table.median('list whole', 'slowest_us') / 1000:.2f} ms{table.errors('list whole')}")
    add("invocations alone, 2,000/s wanted (C++ function)", figures(table, "invocations alone"), "1")
    for pace in (MEANWHILE_PER_SECOND, 0):
        wanted = f"{pace}/s wanted" if pace else "c=1, as many as it gives"
        for name, title in (("get", "GetFunction"), ("list", "ListFunctions page"), ("create", "CreateFunction")):
            alone = "create after 10,000" if name == "create" else f"{name} c=1"
            row, invocations = f"{name} meanwhile {pace}", f"invocations beside {name} {pace}"
            add(f"{title} meanwhile, {wanted}", figures(table, row), f"{beside(table, row, alone, 'p50_us', 'p99_us')} of the same without invocations")
            add("… and the invocations beside it", figures(table, invocations), f"{beside(table, invocations, 'invocations alone', 'p50_us', 'p99_us')} of invocations alone")
    add("memory, RSS growth for each function created", f"{table.median('memory', 'created_bytes'):.0f} bytes")
    add("memory, RSS for each function after a restart", f"{table.median('restart', 'loaded_bytes'):.0f} bytes")
    add("start with 10,000 functions", f"{table.median('restart', 'ms'):.0f} ms; empty {table.median('restart empty', 'ms'):.0f} ms", f"{table.ratio('restart', 'ms', 'restart empty'):.2f} of an empty server")
    for row, title in (("get", "GetFunction"), ("get by number", "GetFunction, version 1"), ("list versions", "ListVersionsByFunction, 2 items"), ("invoke", "Invoke"),
                       ("update", "UpdateFunctionConfiguration"), ("publish", "PublishVersion")):
        one, many = f"{row} v1", f"{row} v{VERSIONS}"
        add(f"{title}, of a function with 1,000 versions", f"p50 {table.median(many, 'p50_us'):.0f} µs, p99 {table.median(many, 'p99_us'):.0f} µs{table.errors(many)}",
            f"{beside(table, many, one, 'p50_us', 'p99_us')} of a function with one or two")
    return "\n".join(lines) + f"\n\nMedians of {rounds} rounds."
