"""Row 9: cold starts of the keep-alive policies at equal memory, from `trace_replay`, which runs the engine's own code over generated days
on a virtual clock. It measures no machine: one run of a day says it, and any machine says the same.

The program prints one JSON object for a day: {"calls": N, "policies": {NAME: {"cold_starts": N, "gib_hours": X, "cold_over_fixed": X,
...}, ...}}; "cold_over_fixed" is against fixed 10 minutes. `--quick` asks for one day of few functions.
"""
import json
import os
import subprocess

from measuring import BUILD

PROGRAM = f"{BUILD}/bench/trace_replay"
GOAL = 0.5
WHAT = "trace replay: cold starts at equal GiB-hours"
FIXED, LEARNED = "fixed_10_minutes", "learned"
MISSING = "the program trace_replay is not there"
FIGURES = ("cold_starts", "gib_hours", "started_ahead", "cold_over_fixed")


def measure(table, options):
    """One round for each day."""
    if not os.path.exists(PROGRAM):
        return {WHAT: MISSING}
    functions, seeds = (20, [1]) if options.quick else (120, [1, 2, 3])
    for seed in seeds:
        done = subprocess.run([PROGRAM, "--functions", str(functions), "--seed", str(seed)], stdout=subprocess.PIPE, check=True, text=True)
        day = json.loads(done.stdout)
        for policy, found in day["policies"].items():
            table.add(policy, calls=day["calls"], **{name: found[name] for name in FIGURES})
    return {}


def policies(table):
    return [row for row, name in table.rounds if name == "cold_starts"]


def title(policy):
    return policy.replace("_", " ")


def verdicts(table, board):
    if table.has(LEARNED, "cold_over_fixed"):
        board.at_most("9", WHAT, GOAL, table.median(LEARNED, "cold_over_fixed"), '× "fixed 10 minutes"')
    else:
        board.not_measured("9", WHAT, MISSING)


def render(table, missing, options):
    lines = []
    if policies(table):
        days = len(table.rounds[(FIXED, "calls")])
        lines = [f"Sums over {days} generated days (seeds 1 to {days}); the ratio is the median of the days' own, which follow it." if days > 1 else "One generated day.", "",
                 "| policy | invocations | cold starts | share | GiB-hours | started ahead | cold starts × fixed 10 minutes |", "|---|---|---|---|---|---|---|"]
    for policy in policies(table):
        cold, calls, ratios = table.total(policy, "cold_starts"), table.total(policy, "calls"), table.rounds[(policy, "cold_over_fixed")]
        each = f" ({', '.join(f'{ratio:.2f}' for ratio in ratios)})" if len(ratios) > 1 else ""
        lines.append(f"| {title(policy)} | {calls:,} | {cold:,} | {100 * cold / calls:.2f} % | {table.total(policy, 'gib_hours'):,.1f} "
                     f"| {table.total(policy, 'started_ahead'):,} | {table.median(policy, 'cold_over_fixed'):.2f}{each} |")
    return "\n".join(lines + [f"Not measured: {what}: {reason}." for what, reason in missing.items()])


def plot(table, plots):
    if policies(table):
        plots.bars("trace-replay", "Cold starts over the generated days, by keep-alive policy",
                   {title(policy): table.total(policy, "cold_starts") for policy in policies(table)}, ours=lambda label: label.startswith("learned"))
