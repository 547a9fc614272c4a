"""The full counts, run by `make soak` before a release; results are appended to docs/soak.md."""
import datetime
import glob
import os
import random
import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mayfly_server import ROOT, invoke, python_function

INVOCATIONS = int(os.environ.get("SOAK_INVOCATIONS", "100000"))
KILLS = int(os.environ.get("SOAK_KILLS", "100"))
SEED = int(os.environ.get("SOAK_SEED", str(random.randrange(1 << 32))))


def record(what, result):
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    with open(os.path.join(ROOT, "docs", "soak.md"), "a", encoding="utf-8") as soak:
        soak.write(f"| {datetime.date.today()} | {commit} | {SEED} | {what} | {result} |\n")


def rss_kb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_hundred_thousand_invocations_leak_nothing(own_server):
    server = own_server("--idle-timeout", "2s")
    client = server.client()
    for i in range(4):
        python_function(client, f"f{i}", "def handler(e, c):\n    if e.get('die'):\n        import os; os._exit(1)\n    return e\n", Timeout=5)
    clients = [server.client() for _ in range(8)]
    chance = random.Random(SEED)

    def some(worker, count):
        for i in range(count):
            payload = {"i": i, "die": True} if chance.random() < 0.002 else {"i": i}
            answer, error, _, _ = invoke(clients[worker], f"f{chance.randrange(4)}", payload)
            assert (error is None and answer == payload) or (error and "die" in payload)

    def run(count):
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(some, worker, count // 8) for worker in range(8)]:
                done.result()

    run(INVOCATIONS // 10)
    before = rss_kb(server.process.pid), descriptors(server.process.pid)
    run(INVOCATIONS)
    time.sleep(6)  # idle environments end
    after = rss_kb(server.process.pid), descriptors(server.process.pid)
    cgroups = glob.glob(f"/sys/fs/cgroup/**/mayfly-{server.info['instance']}/*/", recursive=True)
    record(f"{INVOCATIONS} invocations", f"RSS {before[0]} -> {after[0]} KiB, descriptors {before[1]} -> {after[1]}, cgroups left {len(cgroups)}")
    assert after[0] < before[0] * 1.2 + 8192
    assert after[1] <= before[1] + 8
    assert not cgroups


def test_a_hundred_kills_lose_nothing_acknowledged(own_server):
    server = own_server()
    chance = random.Random(SEED)
    acknowledged = set()
    slowest = 0.0
    for round_number in range(KILLS):
        client = server.client()
        stop = threading.Event()

        def deploy(client=client, stop=stop, round_number=round_number):
            number = 0
            while not stop.is_set():
                name = f"k-{round_number}-{number}"
                try:
                    python_function(client, name, f"def handler(e, c):\n    return '{name}'\n# {os.urandom(4000).hex()}\n")
                    acknowledged.add(name)
                    invoke(client, name)
                except Exception:
                    return
                number += 1

        worker = threading.Thread(target=deploy)
        worker.start()
        time.sleep(chance.uniform(0.05, 0.6))
        server.kill()
        stop.set()
        worker.join()
        started = time.monotonic()
        server.start()
        slowest = max(slowest, time.monotonic() - started)
    client = server.client()
    names = {function["FunctionName"] for page in client.get_paginator("list_functions").paginate() for function in page["Functions"]}
    lost = acknowledged - names
    record(f"{KILLS} times kill -9", f"{len(acknowledged)} acknowledged, {len(lost)} lost, slowest restart {slowest:.2f} s")
    assert not lost
    for name in chance.sample(sorted(acknowledged), min(10, len(acknowledged))):
        assert invoke(client, name)[0] == name
    assert slowest < 2
