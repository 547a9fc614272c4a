"""Item 8: ten times as many calls as can be served, from callers who do not slow down, and crowds of slow and idle connections.

Two kinds of capacity. "Limited": a function that waits 100 ms with a reserved concurrency of 20, so 200 calls a second. "Busy": a
function that computes for 5 ms, so that the processors are the limit. The peak is what as many closed-loop callers get as are in
flight at capacity; then the calls come at ten times that rate, each on time, for longer. Goodput counts calls that succeeded. Meanwhile
the server's memory is looked at and its health endpoint asked ten times a second. Goodput is what succeeded until the last answer, over the
time until then: answers that come after the flood do not count as its own. "Flat" memory: not a tenth more in the last quarter of the
flood than in its second.
"""
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request

import functions
from measuring import Load, Signer, load, percentile, program, rss_kib

TIMES = 10
RESERVED = 20
CROWD_CONNECTIONS = 3000
SECONDS = 8
CLIENTS = 10_000
GOODPUT_GOAL, MEMORY_GOAL = 0.9, 1.1
KINDS = {"limited": "a function limited to 20 at once", "busy": "the processors"}


class Watch:
    """Looks at a server while something else goes on: its health endpoint's answers and its memory."""

    def __init__(self, server):
        self.server = server
        self.health_ms, self.failed, self.rss = [], 0, []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look)

    def _look(self):
        while not self.over.wait(0.1):
            started = time.perf_counter()
            try:
                with urllib.request.urlopen(f"{self.server.endpoint}/healthz", timeout=5) as answer:
                    self.failed += answer.status != 200
            except OSError:
                self.failed += 1
            self.health_ms.append((time.perf_counter() - started) * 1000)
            self.rss.append(rss_kib(self.server.process.pid))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def growth(self):
        """Memory of the last quarter over that of the second one: the first fills what is kept for so many callers."""
        quarter = max(1, len(self.rss) // 4)
        second, last = self.rss[quarter:2 * quarter] or self.rss, self.rss[-quarter:]
        return (sum(last) / len(last)) / (sum(second) / len(second))


def measure(table, options):
    seconds = 1 if options.quick else SECONDS
    for number in range(min(options.rounds, 3)):
        print(f"overload, round {number + 1} of {min(options.rounds, 3)}", file=sys.stderr, flush=True)
        for kind in KINDS:
            with functions.running_server() as server:
                measure_flood(table, server, kind, seconds)
        with functions.running_server() as server:
            measure_crowd(table, server, 200 if options.quick else CLIENTS, options.seconds)
    return {}


def measure_flood(table, server, kind, seconds):
    client, port = server.client(), functions.api_port(server)
    binary, at_once = {"limited": ("bench_function_wait", RESERVED), "busy": ("bench_function_work", 2 * os.cpu_count())}[kind]
    functions.deploy(client, "flooded", functions.cpp(binary))
    if kind == "limited":
        client.put_function_concurrency(FunctionName="flooded", ReservedConcurrentExecutions=RESERVED)
    request = [Signer(server).invoke("flooded")]
    load(port, request, at_once, 1.0)
    peak = load(port, request, at_once, max(seconds / 2, 0.5))
    rate = TIMES * peak["rps"]
    with Watch(server) as watch:
        flood = Load(port, request, CROWD_CONNECTIONS, seconds, rate=-rate).result()
    time.sleep(1)
    after = load(port, request, at_once, max(seconds / 4, 0.5))
    table.add(kind, peak_rps=peak["rps"], peak_p99_ms=peak["p99_us"] / 1000, asked_rps=rate, goodput_rps=flood["rps"], p50_ms=flood["p50_us"] / 1000,
              p99_ms=flood["p99_us"] / 1000, throttled=flood["throttled"], errors=flood["errors"], unsent=flood["unsent"], health_ms=max(watch.health_ms),
              health_p50_ms=percentile(watch.health_ms, 0.5), health_failed=watch.failed, growth=watch.growth(), rss_mib=max(watch.rss) / 1024, after_rps=after["rps"])


def measure_crowd(table, server, count, seconds):
    """The same calls with and without 10,000 slow and as many idle connections to the same door."""
    host = functions.deploy(server.client(), "called", functions.cpp(), url=True)
    target = functions.Door("called", server, "called", host)
    requests = target.requests(functions.payloads())
    functions.warm_up(target, 4, 0.5)
    alone = load(target.port, requests, 4, seconds)
    before = rss_kib(target.pid)
    clients = subprocess.Popen([program("bench_clients"), str(target.port), str(count), str(count), str(seconds + 6)], stdout=subprocess.PIPE, text=True)
    clients.stdout.readline()
    with Watch(server) as watch:
        beside = load(target.port, requests, 4, seconds)
        grown = rss_kib(target.pid) - before
        held = json.loads(clients.communicate()[0])
    table.add("crowd", asked=2 * count, made=held["idle"] + held["slow"], open=held["idle_open"] + held["slow_open"], rps=beside["rps"], p99_ms=beside["p99_us"] / 1000,
              alone_rps=alone["rps"], alone_p99_ms=alone["p99_us"] / 1000, failed=beside["errors"] + beside["throttled"], health_ms=max(watch.health_ms),
              health_failed=watch.failed, kib_each=grown / (2 * count))


def verdicts(table, board):
    for kind, title in KINDS.items():
        board.at_least("overload", f"goodput at {TIMES} times the capacity of {title}", GOODPUT_GOAL, table.ratio(kind, "goodput_rps", kind, "peak_rps"), "× peak")
        board.at_most("overload", f"p99 of admitted calls at {TIMES} times the capacity of {title}", None, table.ratio(kind, "p99_ms", kind, "peak_p99_ms"), "× p99 at the peak")
        board.at_most("overload", f"memory of the server in the end of that, {title}", MEMORY_GOAL, table.median(kind, "growth"), "× its beginning")
        board.at_most("overload", f"slowest answer of the health endpoint meanwhile, {title}", None, table.median(kind, "health_ms"), "ms")
        board.at_most("overload", f"health checks that failed meanwhile, {title}", 0, table.total(kind, "health_failed"), "")
    board.at_most("overload", f"failed calls beside {table.median('crowd', 'asked'):,.0f} slow and idle connections", 0, table.total("crowd", "failed"), "")


def render(table, missing, options):
    lines = ["| limit | peak/s (p99 ms) | asked/s | goodput/s | × peak | admitted p50 / p99 ms | 429 | errors | given up by the caller | health p50 / slowest ms (failed) | memory MiB, growth | afterwards/s |",
             "|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for kind, title in KINDS.items():
        def at(name, form="{:.0f}", kind=kind):
            return form.format(table.median(kind, name))

        lines.append(f"| {title} | {at('peak_rps')} ({at('peak_p99_ms', '{:.1f}')}) | {at('asked_rps')} | {at('goodput_rps')} | {table.ratio(kind, 'goodput_rps', kind, 'peak_rps'):.2f} "
                     f"| {at('p50_ms', '{:.1f}')} / {at('p99_ms', '{:.1f}')} | {at('throttled')} | {at('errors')} | {at('unsent')} "
                     f"| {at('health_p50_ms', '{:.1f}')} / {at('health_ms', '{:.1f}')} ({table.total(kind, 'health_failed')}) | {at('rss_mib')}, {at('growth', '{:.2f}')}× | {at('after_rps')} |")
    crowd = "crowd"
    lines += ["", f"Beside {table.median(crowd, 'asked'):,.0f} slow and idle connections ({table.median(crowd, 'made'):,.0f} made, {table.median(crowd, 'open'):,.0f} still open in the end): "
              f"{table.median(crowd, 'rps'):.0f} calls/s, p99 {table.median(crowd, 'p99_ms'):.1f} ms, {table.total(crowd, 'failed')} failed; without them "
              f"{table.median(crowd, 'alone_rps'):.0f}/s, p99 {table.median(crowd, 'alone_p99_ms'):.1f} ms. The health endpoint answered within {table.median(crowd, 'health_ms'):.1f} ms, "
              f"{table.total(crowd, 'health_failed')} times not. The server grew by {table.median(crowd, 'kib_each'):.1f} KiB a connection.", "",
              f"Medians of {min(options.rounds, 3)} rounds."]
    return "\n".join(lines)


def plot(table, plots):
    bars = {}
    for kind, title in KINDS.items():
        bars[f"peak, {title}"] = table.median(kind, "peak_rps")
        bars[f"at 10 ×, {title}"] = table.median(kind, "goodput_rps")
    goals = {f"at 10 ×, {title}": GOODPUT_GOAL * table.median(kind, "peak_rps") for kind, title in KINDS.items()}
    plots.bars("overload", "Calls answered per second, at the peak and when ten times as many are asked for", bars, goals, lambda label: label.startswith("at"), logarithmic=False)
