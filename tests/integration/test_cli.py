"""The CLI as people and scripts use it."""
import json
import os
import shutil
import subprocess
import time
import uuid

import pytest

from mayfly_server import PROGRAM, ROOT

needs = {"go": "go", "rust": "cargo", "cpp": "clang++-19"}


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / ("cli-" + uuid.uuid4().hex[:8]))


@pytest.mark.parametrize("template", [pytest.param("python", marks=pytest.mark.smoke), pytest.param("nodejs", marks=pytest.mark.smoke),
                                      pytest.param("bash", marks=pytest.mark.smoke), "cpp", "go", "rust"])
def test_every_template_goes_from_init_to_an_answer(server, folder, template):
    if template in needs and shutil.which(needs[template]) is None:
        pytest.skip(f"{needs[template]} is not installed")
    name = os.path.basename(folder)
    done = server.cli("init", template, folder)
    assert done.returncode == 0, done.stderr
    done = server.cli("deploy", folder, timeout=600)
    assert done.returncode == 0, done.stderr
    assert f"Created {name}" in done.stdout
    done = server.cli("invoke", name, "@" + os.path.join(folder, "event.json"), "--tail")
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert json.loads(done.stdout) is not None and "REPORT RequestId" in done.stderr
    done = server.cli("deploy", folder, "--json", timeout=600)
    assert json.loads(done.stdout)["action"] == "unchanged", done.stdout
    assert server.cli("rm", name, "--yes").returncode == 0


def test_init_refuses_a_full_folder_and_unknown_templates(server, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x", encoding="ascii")
    assert server.cli("init", "python", str(tmp_path / "full")).returncode == 5
    failed = server.cli("init", "cobol", str(tmp_path / "new"))
    assert failed.returncode == 2 and "python" in failed.stderr and not (tmp_path / "new").exists()


@pytest.mark.smoke
def test_the_verbs_over_one_life(server, folder):
    name = os.path.basename(folder)
    server.cli("init", "python", folder)
    server.cli("deploy", folder)
    assert any(function["FunctionName"] == name for function in json.loads(server.cli("ls", "--json").stdout))
    assert name in server.cli("ls").stdout
    described = json.loads(server.cli("describe", name, "--json").stdout)
    assert described["Configuration"]["FunctionName"] == name and described["Versions"]
    assert "callable" in server.cli("describe", name).stdout
    result = json.loads(server.cli("invoke", name, '{"name": "x"}', "--json", "--tail").stdout)
    assert result["StatusCode"] == 200 and result["RequestId"] and "START RequestId" in result["LogResult"]
    assert json.loads(server.cli("invoke", name, "-", input='{"name": "stdin"}').stdout)
    assert server.cli("invoke", name, "{not json").returncode == 2
    deadline = time.monotonic() + 5
    log = ""
    while time.monotonic() < deadline and result["RequestId"] not in log:
        log = server.cli("logs", name, "--request-id", result["RequestId"]).stdout
    assert "REPORT RequestId: " + result["RequestId"] in log
    changed = server.cli("deploy", folder, "--memory", "256", "--env", "COLOUR=blue", "--json")
    assert json.loads(changed.stdout)["action"] == "updated"
    assert server.cli("rm", name, "--yes").returncode == 0
    missing = server.cli("describe", name)
    assert missing.returncode == 3 and "ResourceNotFoundException" in missing.stderr
    assert server.cli("invoke", name).returncode == 3


def test_logs_follow_shows_new_lines(server, folder):
    name = os.path.basename(folder)
    server.cli("init", "python", folder)
    server.cli("deploy", folder)
    follow = subprocess.Popen([PROGRAM, "logs", name, "-f", "--data", server.data], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        time.sleep(0.5)
        request = json.loads(server.cli("invoke", name, "--json").stdout)["RequestId"]
        seen = ""
        deadline = time.monotonic() + 5
        while f"REPORT RequestId: {request}" not in seen and time.monotonic() < deadline:
            seen += follow.stdout.readline()
        assert f"REPORT RequestId: {request}" in seen
    finally:
        follow.terminate()
        assert follow.wait(5) == 0


def test_a_failing_function_gives_exit_code_seven(server, tmp_path):
    source = tmp_path / "app.py"
    source.write_text("def handler(e, c):\n    raise RuntimeError('broken')\n", encoding="ascii")
    name = "cli-" + uuid.uuid4().hex[:8]
    assert server.cli("deploy", str(source), "--name", name, "--runtime", "python3.11", "--handler", "app.handler").returncode == 0
    done = server.cli("invoke", name)
    assert done.returncode == 7 and json.loads(done.stdout)["errorMessage"] == "broken" and "mayfly logs" in done.stderr
    server.cli("rm", name, "--yes")


@pytest.mark.smoke
def test_env_prints_what_a_shell_needs(server):
    script = f'eval "$({PROGRAM} env --data {server.data})" && {ROOT}/build/venv/bin/aws lambda list-functions --output json'
    done = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Functions" in json.loads(done.stdout)


def test_runtimes_and_doctor(server):
    rows = {row["name"]: row for row in json.loads(server.cli("runtimes", "--json").stdout)["runtimes"]}
    assert rows["python3.11"]["status"] in ("available", "stand-in") and rows["provided.al2023"]["status"] == "available"
    assert "python3.11" in server.cli("runtimes").stdout
    doctor = server.cli("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(doctor.stdout)["checks"]}
    assert {"memory limit", "network", "server", "disk"} <= set(checks), checks
    for check in checks.values():
        assert check["status"] in ("ok", "warning", "failed") and (check["status"] == "ok" or check["remedy"])


def test_errors_say_what_to_do_next(tmp_path):
    lost = subprocess.run([PROGRAM, "ls", "--data", str(tmp_path)], capture_output=True, text=True, check=False)
    assert lost.returncode == 6 and "mayfly server" in lost.stderr
    away = subprocess.run([PROGRAM, "ls", "--json"], capture_output=True, text=True, check=False,
                          env={**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"})
    assert away.returncode == 6 and "127.0.0.1:1" in json.loads(away.stderr)["message"]
    unknown = subprocess.run([PROGRAM, "frobnicate"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2 and "frobnicate" in unknown.stderr
    assert subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=False).stdout.startswith("mayfly ")
    for words in (["help"], ["server", "--help"], ["deploy", "--help"]):
        assert subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False).returncode == 0
