"""Row 10: 100,000 functions deployed, 1,000 of them active. How long the server takes to start, and whether a warm call costs more than
with three functions.

The functions are created through the API over 64 connections, by a server whose data directory lies in memory (/dev/shm): what is
measured is the start, not 100,000 commits. The directory is then copied to the disk and a fresh server started on the copy.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time

import functions
from measuring import Signer, load, prepare, rss_kib

COUNT, ACTIVE, FEW = 100_000, 1000, 3
BATCH = 10_000  # signed at a time: a signature is valid for 5 minutes
START_GOAL_MS = 2000
CHANGE_GOAL = 1.1  # "unchanged", on a machine whose figures wander by a tenth


def fill(directory, count):
    """Deploys `count` functions of one small zip; returns how many a second."""
    with functions.running_server(data=directory) as server:
        port = functions.api_port(server)
        settings = functions.cpp("bench_function_small")
        started = time.monotonic()
        for first in range(0, count, BATCH):
            signer = Signer(server)
            prepare(port, [functions.creation(signer, f"function-{number:06d}", settings) for number in range(first, min(first + BATCH, count))], 64)
        return count / (time.monotonic() - started)


def measure(table, options):
    count, active = (300, 20) if options.quick else (COUNT, ACTIVE)
    many, few = prepared(count), prepared(FEW)
    try:
        table.add("created", count=count, rps=many[1])
        # Invoked in turn, so that both meet the same machine.
        for number in range(options.rounds):
            print(f"many functions, round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            with functions.running_server(data=few[0]) as small, functions.running_server(data=many[0]) as large:
                for title, server, calls in (("few", small, FEW), ("many", large, active)):
                    measure_one(table, title, server, calls, count if title == "many" else FEW, options.seconds)
    finally:
        for directory, _ in (many, few):
            remove(directory)
    return {}


def prepared(count):
    """(data directory on the disk with `count` functions, created per second)."""
    made = tempfile.mkdtemp(prefix="mayfly-bench-", dir="/dev/shm")
    try:
        rate = fill(made, count)
        copy = tempfile.mkdtemp(prefix="mayfly-bench-")
        os.rmdir(copy)
        subprocess.run(["cp", "-a", made, copy], check=True)
        return copy, rate
    finally:
        remove(made)


def remove(directory):
    """A data directory and its server's log, which lies beside it."""
    shutil.rmtree(directory, ignore_errors=True)
    if os.path.exists(f"{directory}.log"):
        os.unlink(f"{directory}.log")


def measure_one(table, title, server, active, count, seconds):
    port, signer = functions.api_port(server), Signer(server)
    table.add(title, start_ms=server.info["ready_ms"], rss_mib=rss_kib(server.process.pid) / 1024)
    names = [f"function-{number * count // active:06d}" for number in range(active)]
    prepare(port, [signer.invoke(name) for name in names], 4)
    for connections in (1, 16):
        requests = [signer.invoke(names[0], payload) for payload in functions.payloads()]
        load(port, requests, connections, 0.3)
        table.add(f"{title} c={connections}", **load(port, requests, connections, seconds, server.process.pid))
    table.add(f"{title} spread", **load(port, [signer.invoke(name) for name in names] * max(1, 300 // active), 1, seconds, server.process.pid))


def verdicts(table, board):
    count = f"{table.median('created', 'count'):,.0f}"
    board.at_most("10", f"start of the server with {count} functions", START_GOAL_MS, table.median("many", "start_ms"), "ms")
    board.at_most("10", f"CPU of a warm invocation with {count} functions, 16 connections", CHANGE_GOAL, table.ratio("many c=16", "cpu_us", "few c=16"), "× with 3 functions")
    board.at_most("10", f"p50 of a warm invocation with {count} functions, one connection", CHANGE_GOAL, table.ratio("many c=1", "p50_us", "few c=1"), "× with 3 functions")


def render(table, missing, options):
    lines = ["| functions | start ms | memory MiB | one function called, c=1: p50 µs | c=16: CPU µs | active ones called in turn, c=1: p50 µs, CPU µs | failed |",
             "|---|---|---|---|---|---|---|"]
    for title, count in (("few", FEW), ("many", table.median("created", "count"))):
        failed = sum(table.total(f"{title} {row}", "errors") for row in ("c=1", "c=16", "spread"))
        lines.append(f"| {count:,.0f} | {table.median(title, 'start_ms'):.0f} | {table.median(title, 'rss_mib'):.0f} | {table.median(f'{title} c=1', 'p50_us'):.0f} "
                     f"| {table.median(f'{title} c=16', 'cpu_us'):.1f} | {table.median(f'{title} spread', 'p50_us'):.0f}, {table.median(f'{title} spread', 'cpu_us'):.1f} | {failed or ''} |")
    return "\n".join(lines) + (f"\n\nCreated over 64 connections with the data in memory: {table.median('created', 'rps'):.0f} a second. Active: {FEW} of {FEW}, and "
                               f"{min(ACTIVE, int(table.median('created', 'count'))):,} of the many. Medians of {options.rounds} rounds.")


def plot(table, plots):
    """Tables say it all."""
