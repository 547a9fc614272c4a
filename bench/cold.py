"""Rows 4 and 5: a cold start from the request's first byte to the answer's last, beside a bare start of the same runtime, both timed by
bench_starts in turn; and how many starts two cores give in a second.

An environment is made to go by a change of the function's variables. "From the pool": a pause before each start lets whatever Mayfly
keeps in advance be made again. "Pool empty": one function after the other starts without a pause, and only the second half counts.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import functions
from measuring import Signer, load, percentile, prepare, program

PAUSE_MS = 250
NAMES = {"C++": "native", "Python": "Python", "Node": "Node", "Java": "Java"}
BARE = {"C++": "fork+exec of true", "Python": "python3 -IS /dev/null", "Node": "node -e 0", "Java": "a bare JVM"}
POOL_GOALS = {"C++": 1.5, "Python": 0.2, "Node": 0.05, "Java": 0.06}
EMPTY_GOAL = 1.15
TAIL_GOAL = 3
RATE_GOALS = {"C++": 500, "Python": 300}
RATE_CONNECTIONS = 16


def bare_commands(java_folder):
    return {"C++": ["/bin/true"], "Python": ["/usr/bin/python3", "-IS", "/dev/null"], "Node": ["node", "-e", "0"],
            "Java": ["java", "-cp", java_folder, "Echo"]}


def starts(server, requests, group, timed, pause_ms, command=()):
    """What bench_starts measured."""
    with tempfile.NamedTemporaryFile(prefix="mayfly-bench-") as file:
        file.write(b"".join(requests))
        file.flush()
        done = subprocess.run([program("bench_starts"), str(functions.api_port(server)), file.name, str(group), str(timed), str(pause_ms), *command],
                              stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def deploy_all(server, counts, java_folder, missing):
    """`counts` functions of each language; returns {language: names}."""
    signer = Signer(server)
    deployed = {}
    for language, count in counts.items():
        names = [f"{NAMES[language]}-{number}" for number in range(count)]
        try:
            settings = functions.java(java_folder) if language == "Java" else functions.by_language(language)
            functions.check(server.client(), settings)
            prepare(functions.api_port(server), [functions.creation(signer, name, settings) for name in names], 4)
            prepare(functions.api_port(server), [signer.request("GET", f"{functions.API}/{name}/configuration") for name in names], 4)
            prepare(functions.api_port(server), [signer.invoke(names[0])])
        except functions.CannotRun as error:
            missing[f"{NAMES[language]} cold starts"] = str(error)
            continue
        deployed[language] = names
    return deployed


def reset(server, names, mark):
    """No function of these has an environment afterwards."""
    signer = Signer(server)
    prepare(functions.api_port(server), [request for name in names for request in functions.change(signer, name, mark)])


def measure(table, options):
    samples = 3 if options.quick else 30
    counts = {"C++": 10, "Python": 10, "Node": 6, "Java": 6} if options.quick else {"C++": 200, "Python": 200, "Node": 24, "Java": 24}
    missing = {}
    java_folder = tempfile.mkdtemp(prefix="mayfly-bench-")
    commands = bare_commands(java_folder)
    try:
        with functions.running_server() as server:
            deployed = deploy_all(server, counts, java_folder, missing)
            for number in range(options.rounds):
                print(f"cold, round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
                for language, names in deployed.items():
                    measure_pooled(table, server, language, names[0], samples, commands[language], number)
                    measure_emptied(table, server, language, names, number)
                    if language in RATE_GOALS:
                        measure_rate(table, server, language, names, number)
    finally:
        shutil.rmtree(java_folder)
    return missing


def measure_pooled(table, server, language, name, samples, command, number):
    signer = Signer(server)
    requests = []
    for sample in range(samples):
        requests += [*functions.change(signer, name, f"{number}.{sample}"), signer.invoke(name)]
    found = starts(server, requests, 3, 1, PAUSE_MS, command)
    table.add(language, bare_p50_ms=percentile(found["bare_ms"], 0.5), bare_p99_ms=percentile(found["bare_ms"], 0.99),
              pool_p50_ms=percentile(found["start_ms"], 0.5), pool_p99_ms=percentile(found["start_ms"], 0.99), pool_least_ms=min(found["start_ms"]))
    table.add(f"{language} samples", bare_ms=found["bare_ms"], pool_ms=found["start_ms"])


def measure_emptied(table, server, language, names, number):
    some = names[:80]
    reset(server, some, f"{number}.empty")
    found = starts(server, [Signer(server).invoke(name) for name in some], 1, 1, 0)["start_ms"]
    later = found[len(found) // 2:]
    table.add(language, empty_p50_ms=percentile(later, 0.5), empty_p99_ms=percentile(later, 0.99))
    table.add(f"{language} samples", empty_ms=later)


def measure_rate(table, server, language, names, number):
    reset(server, names, f"{number}.rate")
    figures = load(functions.api_port(server), [Signer(server).invoke(name) for name in names], RATE_CONNECTIONS, 0, server.process.pid)
    table.add(language, starts_per_second=figures["rps"], start_cpu_us=figures["cpu_us"], rate_errors=figures["errors"] + figures["throttled"])


def languages(table):
    return [language for language in NAMES if table.has(language, "pool_p50_ms")]


def verdicts(table, board):
    for language in languages(table):
        title = f"{NAMES[language]}"
        board.at_most("4", f"cold start p50, {title}, from the pool", POOL_GOALS[language], table.ratio(language, "pool_p50_ms", language, "bare_p50_ms"), f"× {BARE[language]}")
        board.at_most("4", f"cold start p50, {title}, pool empty", EMPTY_GOAL if language != "C++" else POOL_GOALS["C++"],
                      table.ratio(language, "empty_p50_ms", language, "bare_p50_ms"), f"× {BARE[language]}")
        board.at_most("4", f"cold start p99 over p50, {title}, from the pool", TAIL_GOAL, table.ratio(language, "pool_p99_ms", language, "pool_p50_ms"), "×")
    for language, goal in RATE_GOALS.items():
        if table.has(language, "starts_per_second"):
            board.at_least("5", f"cold starts per second, {NAMES[language]}, {os.cpu_count()} cores", goal, table.median(language, "starts_per_second"), "/s")


def render(table, missing, options):
    lines = ["| runtime | bare start p50 (p99) ms | from the pool p50 (p99) ms | × bare | pool empty p50 (p99) ms | × bare | starts/s over 16 connections | CPU ms a start |",
             "|---|---|---|---|---|---|---|---|"]
    for language in languages(table):
        def pair(name, language=language):
            return f"{table.median(language, f'{name}_p50_ms'):.2f} ({table.median(language, f'{name}_p99_ms'):.2f})"

        rate = f"{table.median(language, 'starts_per_second'):.0f}" if table.has(language, "starts_per_second") else ""
        cpu = f"{table.median(language, 'start_cpu_us') / 1000:.2f}" if rate else ""
        if table.total(language, "rate_errors"):
            rate += f", {table.total(language, 'rate_errors')} ERRORS"
        lines.append(f"| {NAMES[language]} ({BARE[language]}) | {pair('bare')} | {pair('pool')} | {table.ratio(language, 'pool_p50_ms', language, 'bare_p50_ms'):.2f} "
                     f"| {pair('empty')} | {table.ratio(language, 'empty_p50_ms', language, 'bare_p50_ms'):.2f} | {rate} | {cpu} |")
    lines += [""] + [f"Not measured: {title}: {reason}." for title, reason in missing.items()]
    lines.append(f"Through signed Invoke. Medians of {options.rounds} rounds; {3 if options.quick else 30} starts of each kind a round, {PAUSE_MS} ms apart from the pool.")
    return "\n".join(lines)


def plot(table, plots):
    bars = {}
    for language in languages(table):
        for name, title in (("bare", f"{BARE[language]}"), ("pool", f"{NAMES[language]}, from the pool"), ("empty", f"{NAMES[language]}, pool empty")):
            bars[title] = table.median(language, f"{name}_p50_ms")
    goals = {f"{NAMES[language]}, from the pool": POOL_GOALS[language] * table.median(language, "bare_p50_ms") for language in languages(table)}
    plots.bars("cold-starts", "Cold start, p50 in ms, and the bare start of the same runtime", bars, goals, lambda label: "pool" in label, logarithmic=True)
    shares = {}
    for language in [language for language in languages(table) if language != "Java"]:
        found = sorted(sample for round_ in table.rounds[(f"{language} samples", "pool_ms")] for sample in round_)
        cut = found[:max(2, int(len(found) * 0.995))]  # the slowest would squeeze the rest
        shares[f"{NAMES[language]}, from the pool"] = [(value, 100 * (index + 1) / len(found)) for index, value in enumerate(cut)]
    plots.lines("cold-start-distribution", "How many of the cold starts took at most so long", shares, "ms from the request sent to the answer received", "% of the starts")
