"""What a run of the benchmarks leaves: the board of goals, the sections of docs/benchmarks.md, and when and where it was measured."""
import datetime
import os
import platform
import re
import subprocess

from mayfly_server import ROOT

PATH = f"{ROOT}/docs/benchmarks.md"
BOARD = "Goals"
BOARD_HEAD = ["| row | measured as | goal | measured | verdict | of |", "|---|---|---|---|---|---|"]


class Board:
    """Goals and what was measured, one line each. `section` and the date and commit go with every line."""

    def __init__(self):
        self.lines = []  # (row, what, goal text, measured text, verdict)

    def at_most(self, row, what, goal, measured, unit):
        self._add(row, what, "≤", goal, measured, unit, goal is None or measured <= goal)

    def at_least(self, row, what, goal, measured, unit):
        self._add(row, what, "≥", goal, measured, unit, goal is None or measured >= goal)

    def not_measured(self, row, what, reason):
        self.lines.append((row, what, "", "", f"not measured: {reason}"))

    def _add(self, row, what, sign, goal, measured, unit, met):
        separator = "" if not unit or unit in ("%",) else " "
        shown = f"{number(measured)}{separator}{unit}".rstrip()
        if goal is None:
            self.lines.append((row, what, "as measured", shown, ""))
            return
        if met:
            verdict = "met"
        else:
            smaller, larger = sorted((abs(goal), abs(measured)))
            verdict = f"**missed by {larger / smaller:.2g}×**" if smaller else "**missed**"
        self.lines.append((row, what, f"{sign} {number(goal)}{separator}{unit}".rstrip(), shown, verdict))


def number(value):
    """Three significant digits, and no more digits than there are."""
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def commit():
    return subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=9"], capture_output=True, text=True, check=False).stdout.strip()


def conditions(command):
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as info:
        model = re.search(r"^model name\s*: (.*)$", info.read(), re.M)
    return (f"`{command}`, {datetime.date.today()}, commit {commit()}, {os.cpu_count()} CPUs ({model[1] if model else platform.machine()}), "
            f"Linux {platform.release()}, load {os.getloadavg()[0]:.1f} at the end.")


class Document:
    """docs/benchmarks.md: an introduction, the board of goals, then one section for each part of the benchmarks. What a run did not
    measure stays as it was."""

    def __init__(self, titles):
        self.titles = titles
        with open(PATH, encoding="utf-8") as file:
            self.introduction, *sections = file.read().split("\n## ")
        self.sections = {section.split("\n", 1)[0]: section.split("\n", 1)[1].strip("\n") for section in sections}

    def put(self, title, text):
        self.sections[title] = text.strip("\n")

    def put_board(self, board):
        """In place of the lines of the same rows."""
        fresh = {line[0] for line in board.lines}
        of = f"{datetime.date.today()}, {commit()}"
        kept = [line for line in self.sections.get(BOARD, "").split("\n") if line.startswith("| ") and line not in BOARD_HEAD and line.split("|")[1].strip() not in fresh]
        lines = kept + ["| " + " | ".join(line) + f" | {of} |" for line in board.lines]
        lines.sort(key=lambda line: order(line.split("|")[1].strip()))
        self.sections[BOARD] = "\n".join(BOARD_HEAD + lines)

    def write(self):
        known = [BOARD, *self.titles]
        ordered = [title for title in known if title in self.sections] + [title for title in self.sections if title not in known]
        with open(PATH, "w", encoding="utf-8") as out:
            out.write("\n\n## ".join([self.introduction.strip("\n"), *(f"{title}\n\n{self.sections[title]}" for title in ordered)]) + "\n")


def order(row):
    """Numbered rows by number, then the others."""
    return (int(row), "") if row.isdigit() else (99, row)
