"""Row 9: cold starts of the keep-alive policies at equal memory, from `trace_replay`, which runs the engine's own code over a generated trace
on a virtual clock. It measures no machine: one run says it, and any machine says the same.

The program prints one JSON object: {"policies": [{"policy": NAME, "invocations": N, "cold_starts": N, "gib_hours": X}, ...],
"cold_starts_ratio": the learned policy's cold starts over those of "fixed 10 minutes" at equal GiB-hours}. `--quick` asks for a short trace.
"""
import json
import os
import subprocess

from measuring import BUILD

PLACES = [f"{BUILD}/{folder}trace_replay" for folder in ("bench/", "tests/sim/", "")]
GOAL = 0.5
WHAT = "trace replay: cold starts at equal GiB-hours"
ALL = "all"


def measure(table, options):
    path = next((path for path in PLACES if os.path.exists(path)), None)
    if path is None:
        return {WHAT: "the program trace_replay is not there"}
    done = subprocess.run([path, *(["--quick"] if options.quick else [])], stdout=subprocess.PIPE, check=True, text=True)
    found = json.loads(done.stdout)
    for row in found["policies"]:
        table.add(row["policy"], **{name: row[name] for name in ("invocations", "cold_starts", "gib_hours")})
    table.add(ALL, ratio=found["cold_starts_ratio"])
    return {}


def policies(table):
    return [row for row, name in table.rounds if name == "cold_starts"]


def verdicts(table, board):
    if table.has(ALL, "ratio"):
        board.at_most("9", WHAT, GOAL, table.median(ALL, "ratio"), '× "fixed 10 minutes"')
    else:
        board.not_measured("9", WHAT, "the program trace_replay is not there")


def render(table, missing, options):
    lines = ["| policy | invocations | cold starts | share | GiB-hours |", "|---|---|---|---|---|"] if policies(table) else []
    for policy in policies(table):
        cold, calls = table.median(policy, "cold_starts"), table.median(policy, "invocations")
        lines.append(f"| {policy} | {calls:,.0f} | {cold:,.0f} | {100 * cold / calls:.2f} % | {table.median(policy, 'gib_hours'):,.1f} |")
    return "\n".join(lines + [f"Not measured: {title}: {reason}." for title, reason in missing.items()])


def plot(table, plots):
    if policies(table):
        plots.bars("trace-replay", "Cold starts over the trace, by keep-alive policy", {policy: table.median(policy, "cold_starts") for policy in policies(table)},
                   ours=lambda label: not label.startswith("fixed"))
