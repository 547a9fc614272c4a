"""Counts what was replayed, and says at the end what of the recorded cases was not, and why."""

import collections

from not_replayed import LEFT_KEYS, LEFT_MEMBERS, reason_of
from replay import OUTCOMES, RECORDED, SCENARIOS


def pytest_terminal_summary(terminalreporter):
    if not OUTCOMES:
        return
    terminalreporter.section("cases recorded from AWS")
    terminalreporter.write_line(f"{len(SCENARIOS)} replayed: {OUTCOMES['alike']} alike, {OUTCOMES['different']} different")
    reasons = collections.Counter(reason_of(name) for name in [*RECORDED["cases"], *RECORDED["others"]] if name not in SCENARIOS)
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:4} not replayed: {reason}")
    for (case, key), reason in sorted({**LEFT_KEYS, **LEFT_MEMBERS}.items()):
        terminalreporter.write_line(f"     not compared: {case.split('::')[-1]} {key}: {reason}")
