"""Starting, stopping, dying and coming back."""
import base64
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from mayfly_server import PROGRAM, Server, invoke, python_function, zip_of

HELLO = "def handler(e, c):\n    return 'hello'\n"


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def instance_of(server):
    return server.info["instance"]


def leftovers(instance):
    """Everything on this machine that carries the instance's name."""
    found = [path for path in glob.glob(f"/sys/fs/cgroup/**/mayfly-{instance}*", recursive=True)]
    with open("/proc/mounts", encoding="utf-8") as mounts:
        found += [line.strip() for line in mounts if instance in line]
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=False).stdout
    found += [line for line in links.splitlines() if f"mf{instance[:6]}" in line]
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    found += [line for line in tables.splitlines() if instance in line]
    return found


def processes_of(data):
    """Processes that mention the data directory, or are launchers or sandboxes started from it."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
                if data.encode() in cmdline.read():
                    found.append(int(pid))
        except OSError:
            pass
    return found


def wait_until(condition, seconds=5):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


@pytest.mark.smoke
def test_it_starts_fast_and_idles_small(own_server):
    server = own_server()
    fastest = server.info["ready_ms"]
    for _ in range(4):  # a busy machine only adds to it
        server.stop()
        server.start()
        fastest = min(fastest, server.info["ready_ms"])
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        rss_mb = int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) / 1024
    assert rss_mb < 30, rss_mb
    assert fastest < 100, fastest


@pytest.mark.smoke
def test_health_readiness_and_metrics(own_server):
    server = own_server()
    assert get(server.endpoint + "/healthz")[0] == 200
    assert get(server.endpoint + "/readyz")[0] == 200
    client = server.client()
    python_function(client, "counted", HELLO)
    invoke(client, "counted")
    status, metrics = get(server.endpoint + "/metrics")
    assert status == 200
    assert re.search(r'^mayfly_invocations_total\{[^}]*function="counted"[^}]*\} 1', metrics, re.M), metrics
    assert metrics.rstrip().endswith("# EOF")


def test_the_gateway_knows_no_internal_route(own_server):
    server = own_server()
    for path in ("/", "/healthz", "/metrics", "/readyz", "/2015-03-31/functions", "/mayfly/v1/runtimes", "/2018-06-01/runtime/invocation/next"):
        assert get(server.gateway + path)[0] == 404, path


@pytest.mark.smoke
def test_sigterm_finishes_what_runs_and_leaves_nothing_behind(own_server):
    server = own_server()
    client = server.client()
    python_function(client, "slow", "import time\ndef handler(e, c):\n    time.sleep(e.get('s', 0))\n    return 'finished'\n", Timeout=10)
    invoke(client, "slow")
    answers = []
    caller = threading.Thread(target=lambda: answers.append(invoke(server.client(), "slow", {"s": 1.5})[0]))
    caller.start()
    time.sleep(0.5)
    instance, data, endpoint = instance_of(server), server.data, server.endpoint
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        urllib.request.urlopen(endpoint + "/healthz", timeout=2)
    assert server.stop() == 0
    caller.join(10)
    assert answers == ["finished"]
    assert wait_until(lambda: not leftovers(instance)), leftovers(instance)
    assert processes_of(data) == []
    assert not [name for name in os.listdir(data) if "tmp" in name.lower()], os.listdir(data)


def test_a_second_server_on_the_same_data_is_refused_by_name(own_server):
    first = own_server()
    second = subprocess.run([PROGRAM, "server", "--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--data", first.data], capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode != 0
    assert str(first.process.pid) in second.stderr and first.data in second.stderr
    assert get(first.endpoint + "/healthz")[0] == 200


def test_a_port_in_use_is_named(own_server):
    first = own_server()
    address = first.endpoint.removeprefix("http://")
    second = subprocess.run([PROGRAM, "server", "--api", address, "--gateway", "127.0.0.1:0", "--data", first.data + "-other"], capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode != 0 and address in second.stderr and "another program has it" in second.stderr


@pytest.mark.smoke
def test_everything_deployed_survives_a_restart(own_server):
    server = own_server()
    client = server.client()
    python_function(client, "kept", HELLO, Tags={"a": "b"})
    version = client.publish_version(FunctionName="kept")
    before = client.get_function(FunctionName="kept")
    server.stop()
    server.start()
    client = server.client()
    after = client.get_function(FunctionName="kept")
    assert after["Configuration"] == before["Configuration"] and after["Tags"] == before["Tags"]
    assert client.get_function_configuration(FunctionName="kept", Qualifier="1")["RevisionId"] == version["RevisionId"]
    assert invoke(client, "kept")[0] == "hello"
    messages = [event["message"] for event in server.client("logs").filter_log_events(logGroupName="/aws/lambda/kept")["events"]]
    assert any(message.startswith("REPORT") for message in messages)


def test_kill_9_leaves_no_orphan_and_loses_nothing_acknowledged(own_server):
    server = own_server()
    for round_number in range(6):
        client = server.client()
        acknowledged = []
        stop = threading.Event()

        def deploy(round_number=round_number, client=client, acknowledged=acknowledged, stop=stop):
            number = 0
            while not stop.is_set():
                fresh = f"f-{round_number}-{number}"
                try:
                    python_function(client, fresh, f"def handler(e, c):\n    return '{fresh}'\n" + "# " + os.urandom(20000).hex())
                    acknowledged.append(fresh)
                except Exception:
                    return
                number += 1

        python_function(client, f"busy-{round_number}", "import time\ndef handler(e, c):\n    time.sleep(20)\n", Timeout=30)
        caller = threading.Thread(target=lambda client=client: pytest.raises(Exception, invoke, client, f"busy-{round_number}"))
        caller.start()
        worker = threading.Thread(target=deploy)
        worker.start()
        time.sleep(0.3 + 0.07 * round_number)
        instance = instance_of(server)
        server.kill()
        stop.set()
        worker.join()
        caller.join(20)
        assert wait_until(lambda: not leftovers(instance) and not processes_of(server.data), 10), (leftovers(instance), processes_of(server.data))
        server.start()
        client = server.client()
        names = {function["FunctionName"] for page in client.get_paginator("list_functions").paginate() for function in page["Functions"]}
        assert set(acknowledged) <= names
        for kept in acknowledged[-2:]:
            assert invoke(client, kept)[0] == kept
        assert all(function["State"] == "Active" for function in [client.get_function_configuration(FunctionName=kept) for kept in acknowledged[-3:]])


def test_unpacked_code_is_only_a_cache_of_the_packages(own_server):
    server = own_server()
    client = server.client()
    names = ["missing", "doubtful", "whole"]
    for name in names:
        python_function(client, name, f"def handler(e, c):\n    return '{name}'\n")
    ids = {name: base64.b64decode(client.get_function_configuration(FunctionName=name)["CodeSha256"]).hex() for name in names}
    code = f"{server.data}/code"
    marks = lambda name: glob.glob(f"{code}/{ids[name]}.synced-*")
    assert wait_until(lambda: all(marks(name) for name in names), 10), "it comes to the disk by itself"
    server.stop()
    shutil.rmtree(f"{code}/{ids['missing']}")
    # As the machine's crash right after a deploy leaves them: a directory with holes, and one whose package was never stored.
    os.unlink(marks("doubtful")[0])
    os.chmod(f"{code}/{ids['doubtful']}/app.py", 0o600)
    with open(f"{code}/{ids['doubtful']}/app.py", "w", encoding="ascii"):
        pass
    nobodys = "0123456789abcdef" * 4
    os.mkdir(f"{code}/{nobodys}")
    kept = os.stat(f"{code}/{ids['whole']}").st_ino
    server.start()
    client = server.client()
    for name in names:
        assert invoke(client, name)[0] == name
    trees = lambda: sorted(name for name in os.listdir(code) if "." not in name)
    assert wait_until(lambda: trees() == sorted(ids.values()))
    assert os.stat(f"{code}/{ids['whole']}").st_ino == kept, "what is on the disk is not made again"
    assert all(wait_until(lambda: marks(name), 10) for name in names)


def hold_the_launcher(server, trees, held):
    """Once the first of these trees is there, the launcher of the server that starts meanwhile stands still."""
    assert wait_until(lambda: any(os.path.exists(tree) for tree in trees), 15)
    held.append(launcher_of(server))
    os.kill(held[0], signal.SIGSTOP)


@pytest.mark.parametrize("ends", [False, True], ids=["it serves", "it ends when told to"])
def test_the_start_does_not_wait_long_for_code_that_is_made_again(own_server, ends):
    server = own_server()
    client = server.client()
    names = [f"f{i}" for i in range(6)]
    for name in names:
        python_function(client, name, HELLO, files={f"d/{name}-{i}": "" for i in range(3000)})
    trees = [f"{server.data}/code/" + base64.b64decode(client.get_function_configuration(FunctionName=name)["CodeSha256"]).hex() for name in names]
    server.stop()
    for tree in trees:
        shutil.rmtree(tree)
    former, held = server.process, []

    def interfere():
        assert wait_until(lambda: server.process is not former, 15)
        hold_the_launcher(server, trees, held)
        if ends:
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            os.kill(held[0], signal.SIGCONT)

    interferer = threading.Thread(target=interfere)
    interferer.start()
    if ends:
        with pytest.raises(RuntimeError, match="ended with status 0"):
            server.start()
        interferer.join()
        assert not all(os.path.exists(tree) for tree in trees), "the rest is for the next start"
        return
    server.start()
    interferer.join()
    assert not all(os.path.exists(tree) for tree in trees)
    os.kill(held[0], signal.SIGCONT)
    assert wait_until(lambda: all(os.path.exists(tree) for tree in trees), 15)
    assert all(invoke(server.client(), name)[0] == "hello" for name in names)


def test_a_dead_launcher_ends_the_server_with_a_reason(own_server):
    server = own_server()
    os.kill(launcher_of(server), signal.SIGKILL)
    assert wait_until(lambda: server.process.poll() is not None, 10)
    assert server.process.returncode == 1 and "launcher is gone" in server.log()


def launcher_of(server):
    launchers = [pid for pid in filter(str.isdigit, os.listdir("/proc")) if _parent(pid) == server.process.pid and _title(pid).startswith("mayfly: launcher")]
    assert len(launchers) == 1  # beside it an interpreter may still compile the bootstrap
    return int(launchers[0])


def _parent(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            return int(stat.read().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def _title(pid):
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as words:
            return words.read()
    except OSError:
        return ""


def test_the_server_itself_is_unprivileged(own_server):
    if os.geteuid() != 0:
        pytest.skip("needs root: only a server started by root has something to give up")
    server = own_server()
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        text = status.read()
    assert re.search(r"^CapEff:\s+0+$", text, re.M) and re.search(r"^CapPrm:\s+0+$", text, re.M) and re.search(r"^CapBnd:\s+0+$", text, re.M), text
    assert re.search(r"^NoNewPrivs:\s+1$", text, re.M)
    uids = re.search(r"^Uid:\s+(.*)$", text, re.M)[1].split()
    assert "0" not in uids
    assert os.stat(os.path.join(server.data, "credentials.json")).st_mode & 0o077 == 0


def test_idle_environments_end_after_their_time(own_server):
    server = own_server("--idle-timeout", "1s")
    client = server.client()
    python_function(client, "brief", "n = 0\ndef handler(e, c):\n    global n\n    n += 1\n    return n\n")
    assert invoke(client, "brief")[0] == 1
    assert invoke(client, "brief")[0] == 2
    time.sleep(2.5)
    assert invoke(client, "brief")[0] == 1


def test_concurrency_is_limited_and_the_excess_waits_or_is_throttled(own_server):
    server = own_server("--concurrency", "2", "--queue-per-function", "1")
    client = server.client()
    python_function(client, "one", "import time\ndef handler(e, c):\n    time.sleep(1)\n    return 1\n", Timeout=10)
    from concurrent.futures import ThreadPoolExecutor

    def call(_):
        try:
            return invoke(server.client(), "one")[0]
        except Exception as error:
            return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]

    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(call, range(5)))
    assert answers.count(1) == 3 and answers.count(("TooManyRequestsException", 429)) == 2, answers


def test_a_configuration_file_and_its_mistakes(tmp_path):
    config = tmp_path / "mayfly.conf"
    config.write_text("account = 123456789012\nregion = eu-west-1\n", encoding="ascii")
    with Server("--config", str(config)) as server:
        assert server.client("sts").get_caller_identity()["Account"] == "123456789012"
        arn = python_function(server.client(), "f", HELLO)["FunctionArn"]
        assert arn == "arn:aws:lambda:eu-west-1:123456789012:function:f"
    config.write_text("accont = 1\n", encoding="ascii")
    failed = subprocess.run([PROGRAM, "server", "--config", str(config), "--data", str(tmp_path / "d")], capture_output=True, text=True, timeout=20, check=False)
    assert failed.returncode == 2 and f"{config}:1" in failed.stderr and "accont" in failed.stderr


def test_keys_from_the_environment_override(tmp_path):
    with Server(env={"MAYFLY_ACCESS_KEY": "AKIAOVERRIDDEN000001", "MAYFLY_SECRET_KEY": "a-secret-of-their-own"}) as server:
        assert server.client("sts").get_caller_identity()["Account"] == "000000000000"


def test_hostile_archives_change_nothing(server, aws, name):
    import io
    import zipfile

    def archive(entries):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as made:
            for entry, content, mode in entries:
                info = zipfile.ZipInfo(entry)
                info.external_attr = mode << 16
                made.writestr(info, content)
        return buffer.getvalue()

    hostile = {
        "traversal": archive([("../../evil.py", "x", 0o100644)]),
        "absolute": archive([("/etc/evil", "x", 0o100644)]),
        "link out": archive([("link", "/etc", 0o120777), ("link/evil", "x", 0o100644)]),
        "duplicate": archive([("app.py", "a", 0o100644), ("app.py", "b", 0o100644)]),
        "not a zip": b"this is no zip archive at all",
        "empty": b"",
        "bomb": archive([("zeros", b"\0" * 5, 0o100644)])[:10],
    }
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("zeros", b"\0" * (300 << 20))
    hostile["real bomb"] = bomb.getvalue()
    for kind, package in hostile.items():
        with pytest.raises(aws.exceptions.ClientError) as refused:
            aws.create_function(FunctionName=name, Runtime="python3.11", Role="arn:aws:iam::000000000000:role/r", Handler="app.handler", Code={"ZipFile": package})
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400, kind
        with pytest.raises(aws.exceptions.ResourceNotFoundException):
            aws.get_function(FunctionName=name)


@pytest.mark.parametrize("planted", ["logs", "runtimes", "lock", "code"])
def test_links_planted_in_the_data_directory_do_not_redirect_root(own_server, tmp_path, planted):
    if os.geteuid() != 0:
        pytest.skip("needs root: only a server started by root could be redirected")
    server = own_server()
    server.stop()
    victim = tmp_path / "victim"
    if planted == "lock":
        victim.write_text("precious", encoding="ascii")
    else:
        victim.mkdir(mode=0o700)
    path = os.path.join(server.data, planted)
    subprocess.run(["rm", "-rf", path], check=True)
    os.symlink(victim, path)
    refused = subprocess.run([PROGRAM, "server", "--api", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--data", server.data], capture_output=True, text=True, timeout=20, check=False)
    assert refused.returncode != 0 and planted in refused.stderr, refused
    assert victim.stat().st_uid == 0 and victim.stat().st_mode & 0o777 in (0o700, 0o644)
    assert planted != "lock" or victim.read_text(encoding="ascii") == "precious"
    os.unlink(path)


def test_idle_environments_end_before_the_machines_memory_does(own_server, tmp_path, monkeypatch):
    """The server sees another /proc/meminfo, in a mount namespace of its own."""
    meminfo = tmp_path / "meminfo"

    def say(available_mb):
        text = f"MemTotal: {8 << 20} kB\nMemFree: 1 kB\nMemAvailable: {available_mb << 10} kB\n"
        with open(meminfo, "r+" if meminfo.exists() else "w", encoding="ascii") as file:  # the same file: it is mounted
            file.write(text.ljust(200))

    say(4096)
    wrapper = tmp_path / "mayfly"
    wrapper.write_text(f"#!/bin/sh\nexec unshare -m sh -c 'mount --bind {meminfo} /proc/meminfo && exec {PROGRAM} \"$@\"' mayfly \"$@\"\n")
    wrapper.chmod(0o755)
    monkeypatch.setattr("mayfly_server.PROGRAM", str(wrapper))
    server = own_server()
    client = server.client(max_pool_connections=8)
    python_function(client, "f", "import time\ndef handler(e, c):\n    time.sleep(e.get('s', 0))\n    return 'fine'\n", Timeout=10)
    callers = [threading.Thread(target=invoke, args=(client, "f", {"s": 1})) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    def idle():
        return int(re.search(r'mayfly_environments\{state="idle"\} (\d+)', get(server.endpoint + "/metrics")[1])[1])

    assert idle() == 4
    say(100)
    assert wait_until(lambda: idle() == 0, 20)
    assert invoke(client, "f")[0] == "fine", "calls are served all the same"
    say(4096)
    assert invoke(client, "f")[0] == "fine"
    time.sleep(2.5)  # the server looks once a second
    assert idle() == 1
