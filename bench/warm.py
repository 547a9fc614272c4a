"""Rows 1 to 3: what a warm invocation costs, how long it takes on one core, and how many a core gives, beside every peer.

All peers and two Mayfly servers run at once and idle until their turn: one of each on all cores, one of each with its client on one
core. In every round each is measured in turn. Everything of Mayfly's is on: sandbox, request ids, metrics, logs, the CPU quota of
MemorySize 1769. Requests through Invoke are signed beforehand and differ from each other; the server verifies each.
"""
import contextlib
import os
import sys

import functions
import peers
from measuring import is_pinned, load, pin

MANY, CROWD = 16, 512
WARM_UP, QUICK_WARM_UP = {"seconds": 2.0, "rounds_max": 12}, {"seconds": 0.2}
URL, INVOKE = "URL", "Invoke"
SMALL_MB = 128


def variants():
    """{row: (settings, memory)} of the functions measured; what cannot be built here is {row: reason}."""
    found, missing = {}, {}
    for language in functions.LANGUAGES:
        found[language] = (functions.by_language(language), functions.WHOLE_CPU_MB)
    found["C++, Runtime API"] = (functions.cpp("bench_function_runtime_api"), functions.WHOLE_CPU_MB)
    for language in ("Python", "Node"):
        try:
            found[f"{language}, official client"] = (functions.official_client(language), functions.WHOLE_CPU_MB)
        except Exception as error:  # whatever keeps a client from being built is told, not raised
            missing[f"{language}, official client"] = " ".join(str(error).split())[-200:]
    found[f"C++, {SMALL_MB} MB"] = (functions.cpp(), SMALL_MB)
    return found, missing


class World:
    """Everything that is measured, running: on all cores, or on `core` alone together with the load generator."""

    def __init__(self, stack, core, warm_up, missing):
        self.core = core
        self.targets = []
        self.redis = None
        for make in [peers.Echo] + [lambda core, language=language: peers.Floor(language, core) for language in functions.LANGUAGES] + peers.OTHERS:
            peer = make(core=core)
            try:
                stack.enter_context(peer)
            except peers.Unavailable as reason:
                missing[peer.title] = str(reason)
                continue
            if isinstance(peer, peers.Redis):
                self.redis = peer
            else:
                self.targets.append(peer)
        self.server = self.start_server(stack, core)
        found, unavailable = variants()
        missing.update(unavailable)
        client = self.server.client()
        for row, (settings, memory) in found.items():
            name = "".join(letter if letter.isalnum() else "-" for letter in row.replace("+", "p"))
            host = functions.deploy(client, name, settings, memory, url=True)
            for door in (URL, INVOKE):
                self.targets.append(functions.Door(f"{row} ({door})", self.server, name, host if door == URL else None))
        for target in self.targets:
            functions.warm_up(target, MANY, core=core, **warm_up)
        if core is not None:
            for target in self.targets:
                if not is_pinned(target.pid, core):
                    pin(target.pid, core)

    @staticmethod
    def start_server(stack, core):
        """A child inherits the cores it may run on, and so does all that it starts."""
        own = os.sched_getaffinity(0)
        if core is not None:
            os.sched_setaffinity(0, {core})
        try:
            return stack.enter_context(functions.running_server())
        finally:
            os.sched_setaffinity(0, own)

    def measure(self, table, connections, seconds):
        where = "pinned" if self.core is not None else "all cores"
        for target in self.targets:
            if connections <= target.most_connections:
                requests = target.requests(functions.payloads())
                table.add(f"{target.title} c={connections} {where}", **load(target.port, requests, connections, seconds, target.pid, self.core))
        if self.redis:
            table.add(f"{self.redis.title} c={connections} {where}", **self.redis.load(connections, seconds, self.core))


def measure(table, options):
    """Returns {what is missing: why}."""
    missing = {}
    core = max(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        warm_up = QUICK_WARM_UP if options.quick else WARM_UP
        free, pinned = World(stack, None, warm_up, missing), World(stack, core, warm_up, missing)
        for number in range(options.rounds):
            print(f"warm, round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            free.measure(table, MANY, options.seconds)
            pinned.measure(table, 1, options.seconds)
            pinned.measure(table, MANY, options.seconds)
    measure_crowd(table, options)
    return missing


def measure_crowd(table, options):
    """512 connections at once, on servers of their own: so many environments are not left idle beside the other rows."""
    crowd = 32 if options.quick else CROWD
    for number in range(options.rounds):
        print(f"warm, 512 connections, round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
        with peers.Echo() as echo:
            table.add(f"reference c={CROWD} all cores", **load(echo.port, echo.requests(functions.payloads()), crowd, options.seconds, echo.pid))
        for language in functions.LANGUAGES:
            with functions.running_server() as server:
                name = functions.LANGUAGES[language]
                host = functions.deploy(server.client(), name, functions.by_language(language), url=True)
                for door in (URL, INVOKE):
                    target = functions.Door(f"{language} ({door})", server, name, host if door == URL else None)
                    functions.warm_up(target, MANY, 0.5)
                    figures = load(target.port, target.requests(functions.payloads()), crowd, options.seconds, target.pid)
                    table.add(f"{target.title} c={CROWD} all cores", **figures)


GOALS = {  # row: (CPU at 16 connections, p50 pinned at one, requests/s pinned at 16), each × the reference
    "C++": (3.5, 2.3, 0.35), "Python": (5, 3, 0.25), "Node": (5, 3, 0.25), "C++, Runtime API": (8, None, None),
    "Python, official client": (None, None, None), "Node, official client": (None, None, None),
}
TAIL_GOAL = 4  # p99 over p50 at one connection


def rows(table):
    """Titles in the order of their first measurement, the reference first."""
    seen = []
    for row, _ in table.rounds:
        title = row.split(" c=")[0]
        if " c=" in row and title not in seen:
            seen.append(title)
    return seen


def costs(table):
    """{title: × reference} of the CPU time at 16 connections, where it was measured."""
    reference = f"reference c={MANY} all cores"
    wanted = {title: f"{title} c={MANY} all cores" for title in rows(table)}
    return {title: table.ratio(row, "cpu_us", reference) for title, row in wanted.items() if table.has(row, "cpu_us")}


def latencies(table):
    reference = "reference c=1 pinned"
    wanted = {title: f"{title} c=1 pinned" for title in rows(table)}
    return {title: table.ratio(row, "p50_us", reference) for title, row in wanted.items() if table.has(row, "p50_us")}


def rates(table):
    reference = f"reference c={MANY} pinned"
    wanted = {title: f"{title} c={MANY} pinned" for title in rows(table)}
    return {title: table.ratio(row, "rps", reference) for title, row in wanted.items() if table.has(row, "rps")}


def verdicts(table, board):
    cost, latency, rate = costs(table), latencies(table), rates(table)
    for language, (cost_goal, latency_goal, rate_goal) in GOALS.items():
        for door in (URL, INVOKE):
            title = f"{language} ({door})"
            if title in cost:
                board.at_most("1", f"warm CPU per invocation, {MANY} connections: {title}", cost_goal, cost[title], "× reference")
            if title in latency:
                tail = table.ratio(f"{title} c=1 pinned", "p99_us", f"{title} c=1 pinned", "p50_us")
                board.at_most("2", f"p50, one connection, one core: {title}", latency_goal, latency[title], "× reference")
                board.at_most("2", f"p99 over p50, one connection, one core: {title}", TAIL_GOAL if latency_goal else None, tail, "×")
            if title in rate:
                board.at_least("3", f"requests/s of one core, {MANY} connections: {title}", rate_goal, rate[title], "× reference")
            crowd = f"{title} c={CROWD} all cores"
            if table.has(crowd, "rps"):
                failed = table.total(crowd, "errors") + table.total(crowd, "throttled")
                board.at_most("3", f"failed of {table.total(crowd, 'requests') + failed} requests over {CROWD} connections: {title}", 0, failed, "")


def render(table, missing, options):
    lines = ["| what | CPU µs/request, c=16 | × ref | p50 µs, c=1, one core | × ref | p99/p50 | requests/s, c=16, one core | × ref | p99 µs, c=16 | failed |",
             "|---|---|---|---|---|---|---|---|---|---|"]

    def cell(row, name, form, table=table):
        return form.format(table.median(row, name)) if table.has(row, name) else ""

    cost, latency, rate = costs(table), latencies(table), rates(table)
    for title in rows(table):
        free, one, many = (f"{title} c={MANY} all cores", f"{title} c=1 pinned", f"{title} c={MANY} pinned")
        tail = f"{table.ratio(one, 'p99_us', one, 'p50_us'):.1f}" if table.has(one, "p50_us") else ""
        failed = sum(table.total(row, name) for row in (free, one, many) for name in ("errors", "throttled"))
        ratios = [f"{found[title]:.2f}" if title in found else "" for found in (cost, latency, rate)]
        lines.append(f"| {title} | {cell(free, 'cpu_us', '{:.1f}')} | {ratios[0]} | {cell(one, 'p50_us', '{:.0f}')} | {ratios[1]} | {tail} "
                     f"| {cell(many, 'rps', '{:.0f}')} | {ratios[2]} | {cell(free, 'p99_us', '{:.0f}')} | {failed or ''} |")
    lines += ["", f"Over {CROWD} connections, all cores:", "", "| what | requests/s | p50 ms | p99 ms | succeeded | throttled | errors |", "|---|---|---|---|---|---|---|"]
    for title in rows(table):
        row = f"{title} c={CROWD} all cores"
        if table.has(row, "rps"):
            lines.append(f"| {title} | {table.median(row, 'rps'):.0f} | {table.median(row, 'p50_us') / 1000:.1f} | {table.median(row, 'p99_us') / 1000:.1f} "
                         f"| {table.total(row, 'requests')} | {table.total(row, 'throttled')} | {table.total(row, 'errors')} |")
    lines += [""] + [f"Not measured: {title}: {reason}." for title, reason in missing.items()]
    lines.append(f"Medians of {options.rounds} rounds of {options.seconds:g} s each.")
    return "\n".join(lines)


def plot(table, plots):
    for name, title, values, number in (("warm-cpu", "CPU time of one warm request, 16 connections, × the epoll reference", costs(table), 0),
                                        ("warm-latency", "p50 of one warm request, one connection on one core, × the epoll reference", latencies(table), 1),
                                        ("warm-throughput", "Requests per second of one core, 16 connections, × the epoll reference", rates(table), 2)):
        goals = {f"{language} ({door})": numbers[number] for language, numbers in GOALS.items() for door in (URL, INVOKE) if numbers[number]}
        if values:
            plots.bars(name, title, values, goals)
