"""Environments that start from a prepared process (a stem, or a child of a zygote) are like those that start in full."""
import concurrent.futures
import time

import pytest

from mayfly_server import ROLE, invoke, python_function, zip_of

PYTHON = """
import gc, json, logging, os, random, ssl, sys, tempfile, threading, uuid
random_at_init = random.random()
def handler(event, context):
    if event == "differ":
        return {"init": random_at_init, "random": random.random(), "uuid": str(uuid.uuid4()), "ssl": ssl.RAND_bytes(8).hex(),
                "name": tempfile.mktemp(), "urandom": os.urandom(8).hex(), "user": os.getuid(),
                "log_stream": os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]}
    logging.getLogger().warning("a line")
    status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
    return {
        "variables": {n: v for n, v in os.environ.items()},
        "argv": sys.argv, "path": sys.path, "executable": sys.executable, "cmdline": open("/proc/self/cmdline").read(),
        "main": sys.modules["__main__"].__file__, "directory": os.getcwd(), "files": sorted(os.listdir(".")),
        "streams": [sys.stdout.encoding, sys.stdout.line_buffering, sys.stderr.encoding, sys.stdin.read()],
        "descriptors": [fd for fd in range(256) if os.path.exists(f"/proc/self/fd/{fd}")],
        "privileges": [status[k] for k in ("CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Threads")],
        "flags": list(sys.flags), "hooks": [str(h).split(" at 0x")[0] for h in sys.meta_path], "handlers": [str(type(h)) for h in logging.getLogger().handlers],
        "main_thread": threading.current_thread() is threading.main_thread() and threading.main_thread().native_id == os.getpid(),
        "gc": gc.isenabled(), "umask": os.umask(0o22), "nice": os.nice(0), "limits": open("/proc/self/limits").read().replace(" ", ""),
        "mounts": sorted(line.split()[1] for line in open("/proc/self/mounts")), "parent": os.getppid(),
        "relative": logging.LogRecord("n", 10, "p", 1, "m", (), None).relativeCreated < 5000,
        "cgroups": sorted(line.split(":")[2] for line in open("/proc/self/cgroup")),
    }
"""

NODE = """
const fs = require('fs');
exports.handler = async (event) => ({
  variables: {...process.env}, argv: process.argv, execArgv: process.execArgv, title: process.title, directory: process.cwd(),
  files: fs.readdirSync('.').sort(), heap: require('v8').getHeapStatistics().heap_size_limit,
  cmdline: fs.readFileSync('/proc/self/cmdline', 'utf8'), zone: new Date(0).toString(), main: require.main && require.main.filename,
  descriptors: fs.readdirSync('/proc/self/fd').length,
});
"""

DIFFERENT = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_LOG_STREAM_NAME", "_X_AMZN_TRACE_ID")


def without_what_differs(answer):
    for name in DIFFERENT:
        assert answer["variables"].pop(name, None) or name == "_X_AMZN_TRACE_ID", name
    return answer


def fresh(aws, name, payload=None):
    """A call that an environment of its own answers: the ones before are gone."""
    aws.update_function_configuration(FunctionName=name, Description=str(time.time()))
    aws.get_waiter("function_updated_v2").wait(FunctionName=name)
    answer, error, log, _ = invoke(aws, name, payload)
    assert error is None, answer
    return answer, log


@pytest.mark.parametrize("make,source,runtime", [(python_function, PYTHON, "python"), (None, NODE, "nodejs")])
def test_a_prepared_start_is_like_a_full_one(aws, name, make, source, runtime):
    if make:
        python_function(aws, name, source, Environment={"Variables": {"COLOUR": "red", "TZ": "Europe/Berlin"}})
    else:
        aws.create_function(FunctionName=name, Runtime="nodejs20.x", Role=ROLE, Handler="index.handler",
                            Code={"ZipFile": zip_of({"index.js": source})}, Environment={"Variables": {"COLOUR": "red", "TZ": "Europe/Berlin"}})
    # The first of its kind (nobody else uses this time zone): there was nothing to prepare for it.
    full, error, log, _ = invoke(aws, name)
    assert error is None, full
    assert full["variables"]["COLOUR"] == "red" and "Init Duration" in log
    time.sleep(1.5)
    for _ in range(3):
        prepared, log = fresh(aws, name)
        assert "Init Duration" in log
        wanted = without_what_differs({**full, "variables": dict(full["variables"])})
        without_what_differs(prepared)
        assert set(prepared["variables"].items()) ^ set(wanted["variables"].items()) == set()
        for what in wanted:
            assert prepared[what] == wanted[what], what
        time.sleep(0.3)


def test_environments_from_one_zygote_differ_where_they_must(aws, name):
    python_function(aws, name, PYTHON)
    answers = []
    for _ in range(4):
        answers.append(fresh(aws, name, "differ")[0])
        time.sleep(0.5)
    for what in answers[0]:
        assert len({answer[what] for answer in answers}) == len(answers), what


def test_many_calls_at_once_start_each_its_own(aws, name):
    python_function(aws, name, "import os, time\ndef handler(e, c):\n    time.sleep(0.1)\n    return os.environ['AWS_LAMBDA_LOG_STREAM_NAME']\n")
    invoke(aws, name)
    time.sleep(1)
    with concurrent.futures.ThreadPoolExecutor(30) as pool:
        streams = list(pool.map(lambda _: invoke(aws, name)[0], range(30)))
    assert all(isinstance(stream, str) for stream in streams)
