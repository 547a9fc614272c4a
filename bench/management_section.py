"""The management benchmarks as a section of bench/run."""
import management
import peers

ROUNDS_MOST = 3  # each deploys 10,000 functions
INTRODUCTION = """A server of its own with 10,000 functions of one small zip. References: the epoll server, the smallest signed call (GetCallerIdentity), and
the disk: two pages appended and synced, which is what most creations write. Latencies while invocations run at a fixed rate count
from when a call was due."""


def measure(table, options):
    with peers.Echo() as echo:
        management.measure(table, min(options.rounds, ROUNDS_MOST), options.seconds, echo.port, 700 if options.quick else management.FUNCTIONS,
                           20 if options.quick else management.VERSIONS)
    return {}


def verdicts(table, board):
    """The management API has no goals of its own here: docs/specification.md has them."""


def render(table, missing, options):
    return f"{INTRODUCTION}\n\n{management.render(table, min(options.rounds, ROUNDS_MOST))}"


def plot(table, plots):
    """Tables say it all."""
