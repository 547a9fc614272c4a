"""The conformance runner: every case of every operation is counted; the table comes at the end."""

import collections

import pytest

import interface
from scenario import Scenario
from wire import Caller

TALLY = collections.OrderedDict((name, [0, 0]) for name in interface.OPERATIONS)


class Cases:
    """Counts cases of one operation and fails at the end with all that were wrong."""

    def __init__(self, name):
        self.name = name
        self.failures = []
        self.count = 0

    def record(self, what, problems, name=None):
        self.count += 1
        TALLY[name or self.name][1 if problems else 0] += 1
        if problems:
            self.failures.append(f"{name or self.name}: {what}: " + "; ".join(problems))

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            return
        assert self.count, f"{self.name}: no case was run"
        shown = "\n".join(failure[:1500] for failure in self.failures[:60])
        if self.failures:
            pytest.fail(f"{len(self.failures)} of {self.count} cases failed:\n{shown}", pytrace=False)


@pytest.fixture(scope="session")
def caller(server):
    return Caller(server)


@pytest.fixture
def cases():
    """with cases(name) as tally: counts for an operation, and fails at the end with all that was wrong."""
    return Cases


@pytest.fixture
def api(caller, cases):
    """Calls of a handwritten scenario."""
    made = Scenario(caller, cases)
    with made.cleanup:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """A scenario's gathered failures belong to the test, not to its teardown."""
    result = yield
    made = pyfuncitem.funcargs.get("api")
    if isinstance(made, Scenario):
        made.end()
    return result


def pytest_terminal_summary(terminalreporter):
    if not any(sum(counts) for counts in TALLY.values()):
        return
    terminalreporter.section("operations of the Lambda API")
    terminalreporter.write_line(f"{'operation':44} {'passed':>7} {'failed':>7}")
    for name, (passed, failed) in TALLY.items():
        kind = "  not offered: refused by name" if name in interface.NOT_SUPPORTED else ""
        mark = "  <-- no case ran" if not passed + failed else "  <-- FAILED" if failed else ""
        terminalreporter.write_line(f"{name:44} {passed:7} {failed:7}{kind}{mark}")
    passed = sum(counts[0] for counts in TALLY.values())
    failed = sum(counts[1] for counts in TALLY.values())
    terminalreporter.write_line(f"{'all ' + str(len(TALLY)):44} {passed:7} {failed:7}")
