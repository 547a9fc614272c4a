"""Row 9: cold starts of the keep-alive policies at equal memory, from the replay program of the engine (tests/sim), which runs the engine's
own code on a virtual clock. It measures no machine: one run says it, and any machine says the same.
"""
import json
import os
import subprocess

from measuring import BUILD

PROGRAMS = [f"{BUILD}/trace_replay", f"{BUILD}/tests/sim/trace_replay", f"{BUILD}/bench/trace_replay"]
GOAL = 0.5


def measure(table, options):
    path = next((path for path in PROGRAMS if os.path.exists(path)), None)
    if path is None:
        return {"trace replay": "the program trace_replay is not built"}
    done = subprocess.run([path, *(["--quick"] if options.quick else [])], stdout=subprocess.PIPE, check=True, text=True)
    for row in json.loads(done.stdout)["policies"]:
        table.add(row["policy"], **{name: value for name, value in row.items() if isinstance(value, (int, float))})
    return {}


def verdicts(table, board):
    board.not_measured("9", "trace replay: cold starts at equal GiB-hours", "the program trace_replay is not built")


def render(table, missing, options):
    return "\n".join(f"Not measured: {title}: {reason}." for title, reason in missing.items())


def plot(table, plots):
    """Nothing to draw."""
