"""Rows 7 and 8: fifty simultaneous calls of a function that has no environment, and the way from a deploy call to the first answer."""
import os
import subprocess
import sys

import functions
from cold import reset, starts
from measuring import Signer, load, percentile, program

CALLS = 50
WAIT_GOALS_MS = {"Python": 350, "C++": 250}
DEPLOY_GOALS_MS = {"Python": 15, "C++": 10}
SAMPLES = 5  # of either in a round
PACKAGE_BYTES = 5000
WAITING_PYTHON = "import time\n\n\ndef handler(event, context):\n    time.sleep(0.1)\n    return {'ok': 'waited'}\n"


def small_python():
    """About 5 KB as a zip, of which most does not compress."""
    return functions.python(files={"filler.bin": os.urandom(PACKAGE_BYTES - 400)})


def small_cpp():
    return functions.cpp("bench_function_small")


def measure(table, options):
    samples = 1 if options.quick else SAMPLES
    with functions.running_server() as server:
        client = server.client()
        functions.deploy(client, "wait-cpp", functions.cpp("bench_function_wait"))
        functions.deploy(client, "wait-python", functions.python(WAITING_PYTHON))
        for number in range(options.rounds):
            print(f"scale, round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            for language, name in (("C++", "wait-cpp"), ("Python", "wait-python")):
                for sample in range(samples):
                    reset(server, [name], f"{number}.{sample}")
                    figures = load(functions.api_port(server), [Signer(server).invoke(name)] * CALLS, CALLS, 0)
                    table.add(f"scale {language}", ms=figures["seconds"] * 1000, failed=figures["errors"] + figures["throttled"])
            for language, make in (("C++", small_cpp), ("Python", small_python)):
                settings, signer = make(), Signer(server)
                requests = []
                for sample in range(samples * 2):
                    name = f"deployed-{functions.LANGUAGES[language]}-{number}-{sample}"
                    requests += [functions.creation(signer, name, settings), signer.invoke(name)]
                found = starts(server, requests, 2, 2, 100)
                table.add(f"deploy {language}", p50_ms=percentile(found["start_ms"], 0.5), worst_ms=max(found["start_ms"]), repeats=found["repeats"],
                          bytes=len(settings["Code"]["ZipFile"]))
            table.add("bare", python_50_ms=spawn_bare(CALLS))
    return {}


def spawn_bare(count):
    """Starting as many bare interpreters at once, for comparison."""
    done = subprocess.run([program("bench_starts"), "spawn", str(count), "/usr/bin/python3", "-IS", "/dev/null"], capture_output=True, check=True, text=True)
    return float(done.stdout)


def verdicts(table, board):
    for language, goal in WAIT_GOALS_MS.items():
        board.at_most("7", f"{CALLS} calls of a 100 ms function at once, from nothing, {language}", goal, table.median(f"scale {language}", "ms"), "ms")
    for language, goal in DEPLOY_GOALS_MS.items():
        board.at_most("8", f"deploy call to first answer, {language}, zip of {table.median(f'deploy {language}', 'bytes') / 1000:.1f} KB", goal,
                      table.median(f"deploy {language}", "p50_ms"), "ms")


def render(table, missing, options):
    lines = ["| measured | figure |", "|---|---|"]
    for language in WAIT_GOALS_MS:
        row = f"scale {language}"
        failed = table.total(row, "failed")
        values = table.rounds[(row, "ms")]
        lines.append(f"| {CALLS} simultaneous calls of a 100 ms function without an environment, {language} | median {table.median(row, 'ms'):.0f} ms, "
                     f"{min(values):.0f} to {max(values):.0f}{f', {failed} FAILED' if failed else ''} |")
    lines.append(f"| {CALLS} bare `python3 -IS /dev/null` started at once | {table.median('bare', 'python_50_ms'):.0f} ms |")
    for language in DEPLOY_GOALS_MS:
        row = f"deploy {language}"
        lines.append(f"| CreateFunction until the first answer of Invoke, {language}, zip of {table.median(row, 'bytes'):.0f} bytes | p50 {table.median(row, 'p50_ms'):.1f} ms, "
                     f"slowest of a round {table.median(row, 'worst_ms'):.1f} ms; Invoke repeated {table.total(row, 'repeats')} times |")
    return "\n".join(lines) + f"\n\nMedians of {options.rounds} rounds of {1 if options.quick else SAMPLES} scalings and twice as many deploys each; every request signed."


def plot(table, plots):
    bars = {f"50 calls at once, {language}": table.median(f"scale {language}", "ms") for language in WAIT_GOALS_MS}
    goals = {f"50 calls at once, {language}": goal for language, goal in WAIT_GOALS_MS.items()}
    bars["50 bare python3 -IS at once"] = table.median("bare", "python_50_ms")
    for language, goal in DEPLOY_GOALS_MS.items():
        bars[f"deploy to answer, {language}"] = table.median(f"deploy {language}", "p50_ms")
        goals[f"deploy to answer, {language}"] = goal
    plots.bars("scaling", "From nothing to 50 answers, and from a deploy call to the first answer, ms", bars, goals, lambda label: "bare" not in label, logarithmic=True)
