"""Draws the plots of docs/benchmarks as SVG by hand: horizontal bars on a linear or logarithmic axis, and lines over time.

Readable on light and dark pages: colours follow the reader's preference, and every bar carries its value.
"""
import html
import math
import os

from mayfly_server import ROOT

FOLDER = f"{ROOT}/docs/benchmarks"
WIDTH, LABEL, RIGHT, BAR, GAP, TOP, BOTTOM = 900, 300, 90, 18, 8, 56, 46
STYLE = """<style>
  .page { fill: #ffffff } text { font: 13px system-ui, "DejaVu Sans", sans-serif; fill: #1f2328 } .title { font-size: 15px; font-weight: 600 }
  .quiet { fill: #59636e; font-size: 12px } .axis { stroke: #d1d9e0; stroke-width: 1 } .peer { fill: #afb8c1 } .ours { fill: #0969da }
  .goal { stroke: #bc4c00; stroke-width: 3 } .goaltext { fill: #bc4c00; font-size: 12px }
  .line0 { stroke: #0969da } .line1 { stroke: #bc4c00 } .line2 { stroke: #1a7f37 } .line { fill: none; stroke-width: 2 }
  .mark0 { fill: #0969da } .mark1 { fill: #bc4c00 } .mark2 { fill: #1a7f37 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } text { fill: #f0f6fc } .quiet { fill: #9198a1 } .axis { stroke: #3d444d } .peer { fill: #656c76 } .ours { fill: #4493f8 }
    .goal { stroke: #f0883e } .goaltext { fill: #f0883e } .line0 { stroke: #4493f8 } .line1 { stroke: #f0883e } .line2 { stroke: #3fb950 }
    .mark0 { fill: #4493f8 } .mark1 { fill: #f0883e } .mark2 { fill: #3fb950 }
  }
</style>"""


def ticks(low, high, logarithmic):
    if logarithmic:
        found = [digit * 10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for digit in (1, 2, 5)]
        return [tick for tick in found if low <= tick <= high * 1.0001]
    step = 10 ** math.floor(math.log10(high / 4)) if high > 0 else 1
    step *= next(factor for factor in (1, 2, 5, 10) if high / (step * factor) <= 8)
    return [step * count for count in range(int(high / step) + 1)]


def shown(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


DRAWN = []  # (file name, title) of this run, in order


class Picture:
    def __init__(self, width, height, title):
        self.width, self.height = width, height
        self.parts = [f'<text class="title" x="16" y="26">{html.escape(title)}</text>']
        self.title = title

    def text(self, x, y, words, anchor="start", kind=""):
        self.parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>')

    def line(self, x1, y1, x2, y2, kind):
        self.parts.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def box(self, x, y, width, height, kind):
        self.parts.append(f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}" rx="2"/>')

    def curve(self, points, kind):
        self.parts.append(f'<polyline class="line {kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')

    def write(self, name):
        os.makedirs(FOLDER, exist_ok=True)
        DRAWN.append((f"{name}.svg", self.title))
        body = "\n".join(self.parts)
        with open(f"{FOLDER}/{name}.svg", "w", encoding="utf-8") as out:
            out.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}" '
                      f'role="img" aria-label="{html.escape(self.title, quote=True)}">\n{STYLE}\n'
                      f'<rect class="page" width="{self.width}" height="{self.height}" rx="6"/>\n{body}\n</svg>\n')


def bars(name, title, values, goals=None, ours=None, logarithmic=None):
    """`values` {label: value}; `goals` {label: value}, drawn as a mark across the bar; `ours` says which labels are Mayfly's, by
    default those that have a door or a goal."""
    goals = {label: goal for label, goal in (goals or {}).items() if label in values}
    ours = ours or (lambda label: label in goals or label.endswith("(URL)") or label.endswith("(Invoke)"))
    everything = [value for value in [*values.values(), *goals.values()] if value > 0]
    high, low = max(everything) * 1.05, min(everything) * 0.8
    logarithmic = high / low > 30 if logarithmic is None else logarithmic
    height = TOP + len(values) * (BAR + GAP) + BOTTOM
    picture = Picture(WIDTH, height, title)
    span = WIDTH - LABEL - RIGHT

    def at(value):
        if logarithmic:
            return LABEL + span * max(0, math.log(max(value, low) / low) / math.log(high / low))
        return LABEL + span * value / high

    for tick in ticks(low, high, logarithmic):
        picture.line(at(tick), TOP - 8, at(tick), height - BOTTOM, "axis")
        picture.text(at(tick), height - BOTTOM + 16, shown(tick), "middle", "quiet")
    for number, (label, value) in enumerate(values.items()):
        y = TOP + number * (BAR + GAP)
        picture.text(LABEL - 10, y + BAR - 5, label, "end")
        picture.box(LABEL, y, at(value) - LABEL, BAR, "ours" if ours(label) else "peer")
        picture.text(max(at(value), at(goals.get(label, 0)) if not logarithmic else at(max(goals.get(label, low), low))) + 7, y + BAR - 5, shown(value))
        if label in goals:
            picture.line(at(goals[label]), y - 2, at(goals[label]), y + BAR + 2, "goal")
    note = "logarithmic axis" if logarithmic else ""
    if goals:
        picture.text(LABEL, height - 10, "orange mark: the goal" + (f"; {note}" if note else ""), "start", "goaltext")
    elif note:
        picture.text(LABEL, height - 10, note, "start", "quiet")
    picture.write(name)


def lines(name, title, series, x_label, y_label, logarithmic=False):
    """`series` {label: [(x, y), ...]}, at most three."""
    height, left = 360, 80
    picture = Picture(WIDTH, height, title)
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points if y > 0]
    x_low, x_high = min(xs), max(xs) or 1
    y_high, y_low = max(ys) * 1.08, min(ys) * 0.9 if logarithmic else 0
    bottom, top = height - 62, 64

    def at(x, y):
        part = math.log(max(y, y_low) / y_low) / math.log(y_high / y_low) if logarithmic else y / y_high
        return left + (WIDTH - left - 30) * (x - x_low) / ((x_high - x_low) or 1), bottom - (bottom - top) * part

    for tick in ticks(y_low or 1e-9, y_high, logarithmic):
        picture.line(left, at(x_low, tick)[1], WIDTH - 30, at(x_low, tick)[1], "axis")
        picture.text(left - 8, at(x_low, tick)[1] + 4, shown(tick), "end", "quiet")
    for tick in ticks(1e-9, x_high, False):
        if tick >= x_low:
            picture.text(at(tick, y_low)[0], bottom + 18, shown(tick), "middle", "quiet")
    picture.text((left + WIDTH) / 2, bottom + 36, x_label, "middle", "quiet")
    picture.text(16, top - 14, y_label, "start", "quiet")
    for number, (label, points) in enumerate(series.items()):
        picture.curve([at(x, y) for x, y in points], f"line{number}")
        picture.box(left + number * 260, height - 16, 14, 8, f"mark{number}")
        picture.text(left + 20 + number * 260, height - 8, label)
    picture.write(name)
