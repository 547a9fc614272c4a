"""Compares Mayfly's answers with answers recorded from AWS, placeholder by placeholder.

A recorded text holds placeholders: <uuid:3>, <function-name:1>, <code-sha256:1>. Each stands for one value: the same placeholder
for the same value, another number of the same kind for another. So that a RevisionId changes exactly when AWS's does is checked too.
"""

import base64
import collections
import datetime
import io
import json
import os
import re
import time
import uuid
import zipfile

from botocore.exceptions import ClientError
from botocore.response import StreamingBody

HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(HERE, "recorded.json"), encoding="utf-8") as file:
    RECORDED = json.load(file)

PLACEHOLDER = re.compile(r"<([a-zA-Z0-9_-]+)(?::(\d+))?>")
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
DIGEST = r"[A-Za-z0-9+/]{43}="
NAME = r"[A-Za-z0-9_-]+"
KINDS = {
    "function-name": NAME,
    "fn-name": NAME,
    "alias-name": NAME,
    "uuid": UUID,
    "request-id": UUID,
    "code-sha256": DIGEST,
    "duration": r"[\d.]+",
    "memory": r"\d+",
}
# What may be anything, each time: its form is checked where the name says one.
FREE = {"location", "layer-location", "code-size", "request-id", "duration", "memory", "vpc_id", "remaining-time-in-millis", "deadline"}
DATE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d")
# Members every configuration has today; the oldest recordings are from before them.
NEWER = {"LoggingConfig", "RuntimeVersionConfig", "SnapStart"}
# Whole texts that stand for a kind of value.
WHOLE = {
    "date": lambda got: isinstance(got, datetime.datetime) or isinstance(got, str) and DATE.match(got) is not None,
    "datetime": lambda got: isinstance(got, datetime.datetime),
    "<datetime>": lambda got: isinstance(got, datetime.datetime),
    "code-sha256": lambda got: isinstance(got, str) and re.fullmatch(DIGEST, got) is not None,
    "<code-size>": lambda got: isinstance(got, int) and not isinstance(got, bool),
    "<location>": lambda got: isinstance(got, str) and got.startswith("http"),
    "<layer-location>": lambda got: isinstance(got, str) and got.startswith("http"),
    "lambda-url": lambda got: isinstance(got, str) and re.match(r"https?://[a-z0-9]{32}\.lambda-url\.", got) is not None,
    "function-url": lambda got: isinstance(got, str) and re.match(r"https?://[a-z0-9]{32}\.lambda-url\.", got) is not None,
    "<function-url>": lambda got: isinstance(got, str) and re.match(r"https?://[a-z0-9]{32}\.lambda-url\.", got) is not None,
    "log-result": lambda got: isinstance(got, str) and bool(got),
}


class Recording:
    """One recorded case: match() compares an answer with what was recorded under a key."""

    def __init__(self, case, server):
        self.case = case
        self.expected = RECORDED["cases"][case]
        self.fixed = {"partition": "aws", "region": server.info["region"]}
        self.account = "000000000000"
        self.substitutes = [("111111111111", self.account)]
        self.bound = {}
        self.differences = []
        self.seen = set()
        self.left = {}
        self.left_members = set()  # paths

    def substitute(self, recorded, ours):
        """Where the scenario differs in a value on purpose (another runtime)."""
        self.substitutes.append((recorded, ours))

    def leave(self, key, reason):
        """A recorded key that is not compared."""
        assert key in self.expected, f"{self.case} has no {key!r}"
        self.left[key] = reason

    def match(self, key, got):
        assert key in self.expected, f"{self.case} has no {key!r}: {sorted(self.expected)}"
        self.seen.add(key)
        before = len(self.differences)
        self.compare(self.expected[key], plain(got), key)
        return len(self.differences) == before

    def problems(self):
        missing = sorted(set(self.expected) - self.seen - set(self.left))
        return self.differences + [f"{key}: recorded, and never compared" for key in missing]

    def say(self, path, wanted, got):
        self.differences.append(f"{path}: expected {short(wanted)}, got {short(got)}")

    def text(self, recorded):
        for before, after in self.substitutes:
            recorded = recorded.replace(before, after)
        return recorded

    def compare(self, wanted, got, path):
        if path in self.left_members:
            return
        if path.endswith(".ResponseMetadata"):
            status = got.get("HTTPStatusCode") if isinstance(got, dict) else None
            if status != wanted["HTTPStatusCode"]:
                self.say(path + ".HTTPStatusCode", wanted["HTTPStatusCode"], status)
        elif isinstance(wanted, dict):
            if not isinstance(got, dict):
                self.say(path, wanted, got)
                return
            for name in sorted(set(wanted) | set(got), key=str):
                inner = f"{path}.{name}"
                if name not in got:
                    self.say(inner, wanted[name], "nothing")
                elif name not in wanted:
                    if name != "ResponseMetadata" and not (name in NEWER and "CodeSha256" in wanted):
                        self.say(inner, "nothing", got[name])
                else:
                    self.compare(wanted[name], got[name], inner)
        elif isinstance(wanted, list):
            if not isinstance(got, list) or len(got) != len(wanted):
                self.say(path, wanted, got)
                return
            for number, (each, ours) in enumerate(zip(wanted, got)):
                self.compare(each, ours, f"{path}[{number}]")
        elif isinstance(wanted, str):
            self.compare_text(self.text(wanted), got, path)
        elif wanted != got or isinstance(wanted, bool) != isinstance(got, bool):
            self.say(path, wanted, got)

    def compare_text(self, wanted, got, path):
        if wanted in WHOLE:
            if not WHOLE[wanted](got):
                self.say(path, wanted, got)
            return
        if isinstance(got, datetime.datetime):
            got = got.isoformat()
        if not isinstance(got, str):
            self.say(path, wanted, got)
            return
        if "date " in wanted or "\tdate\t" in wanted or wanted.startswith("date\t"):
            wanted = re.sub(r"\bdate\b(?=[ \t])", "<a-date>", wanted)
        pattern, groups, position = "", {}, 0
        for found in PLACEHOLDER.finditer(wanted):
            pattern += re.escape(wanted[position : found.start()])
            position = found.end()
            kind, number = found.groups()
            if kind in self.fixed:
                pattern += re.escape(self.fixed[kind])
            elif kind == "a-date":
                pattern += r"\d{4}-\d\d-\d\dT[\d:.]+Z"
            elif kind in FREE or kind == "uuid" and number is None:
                pattern += KINDS.get(kind, ".*")
            elif found.group() in self.bound:
                pattern += re.escape(self.bound[found.group()])
            elif found.group() in groups:
                pattern += f"(?P={groups[found.group()]})"
            else:
                groups[found.group()] = f"g{len(groups)}"
                pattern += f"(?P<{groups[found.group()]}>{KINDS.get(kind, '[^/:]+' if position < len(wanted) else '.+')})"
        pattern += re.escape(wanted[position:])
        matched = re.fullmatch(pattern, got, re.S)
        if matched is None:
            known = PLACEHOLDER.sub(lambda found: self.bound.get(found.group(), self.fixed.get(found.group(1), found.group())), wanted)
            self.say(path, known, got)
            return
        for placeholder, group in groups.items():
            value = matched.group(group)
            kind = PLACEHOLDER.fullmatch(placeholder).group(1)
            other = next(
                (each for each, taken in self.bound.items() if taken == value and PLACEHOLDER.fullmatch(each).group(1) == kind), None
            )
            if other is not None and kind == "uuid":
                self.say(path, f"{placeholder}, another than {other}", value)
            self.bound[placeholder] = value


def short(value):
    text = repr(value)
    return text if len(text) < 700 else text[:350] + "…" + text[-350:]


def plain(value):
    """An answer as the recordings hold it: bodies read, JSON inside texts opened."""
    if isinstance(value, StreamingBody):
        return opened(value.read().decode("utf-8", "replace"))
    if isinstance(value, dict):
        return {
            name: opened(each) if name in ("Policy", "Statement") and isinstance(each, str) else plain(each) for name, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


def opened(text):
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (dict, list)) else text


class World:
    """What a scenario works with: a client, fresh names, packages; all it makes goes when it ends."""

    ROLE = "arn:aws:iam::000000000000:role/recorded-role"

    def __init__(self, server, runtime="python3.11"):
        self.server = server
        self.client = server.client("lambda", waits=False)
        self.loose = server.client("lambda", waits=False, parameter_validation=False)
        self.runtime = runtime
        self.region = server.info["region"]
        self.account = "000000000000"
        self.functions = []
        self.undo = []

    def name(self, stem="rec"):
        fresh = f"{stem}-{uuid.uuid4().hex[:10]}"
        self.functions.append(fresh)
        return fresh

    def close(self):
        for undo in reversed(self.undo):
            self.error(undo)
        for name in self.functions:
            self.error(self.client.delete_function, FunctionName=name)

    def arn(self, name, qualifier=None):
        return f"arn:aws:lambda:{self.region}:{self.account}:function:{name}" + (f":{qualifier}" if qualifier else "")

    def error(self, call, *words, **members):
        """The error's answer; what succeeded answers itself."""
        try:
            return call(*words, **members)
        except ClientError as error:
            return error.response

    def create(self, name, source="def handler(event, context):\n    return event\n", wrapped=False, **members):
        """CreateFunction as most of the recorded cases call it. `wrapped`: as their fixture gives the answer."""
        defaults = {
            "Runtime": "python3.12",
            "Role": self.ROLE,
            "Handler": "handler.handler",
            "Code": {"ZipFile": zipped({"handler.py": source})},
        }
        if wrapped:
            defaults.update(Timeout=30, Environment={"Variables": {}})
        answer = self.client.create_function(FunctionName=name, **{**defaults, **members})
        return {"CreateEventSourceMappingResponse": None, "CreateFunctionResponse": answer} if wrapped else answer

    def active(self, name):
        self.client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.03, "MaxAttempts": 400})

    def updated(self, name):
        self.client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.03, "MaxAttempts": 400})

    def invoke(self, name, payload=None, **members):
        answer = self.client.invoke(FunctionName=name, **({} if payload is None else {"Payload": payload}), **members)
        return plain(answer)

    def url(self, address, path="/", method="GET", body=None, headers=None):
        """One request to a function's URL, through the gateway wherever it listens."""
        import http.client
        import urllib.parse

        gate = urllib.parse.urlsplit(self.server.gateway)
        connection = http.client.HTTPConnection(gate.hostname, gate.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", urllib.parse.urlsplit(address).netloc)
            for key, value in (headers or {}).items():
                connection.putheader(key, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
        finally:
            connection.close()


def zipped(files, compress=False):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for path, text in files.items():
            info = zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0))
            info.external_attr = 0o100755 << 16
            info.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            archive.writestr(info, text)
    return buffer.getvalue()


def zip_of_size(size):
    """A stored zip of exactly that many bytes."""
    frame = len(zipped({"index.py": ""}))
    return zipped({"index.py": "#" * (size - frame)})


def eventually(check, timeout=15):
    deadline = time.monotonic() + timeout
    while not (found := check()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def log_lines(answer):
    """The lines of a call's log, without what tells of the start (and of the interpreter that stands in for another)."""
    lines = base64.b64decode(answer.get("LogResult", "")).decode().splitlines()
    return [line for line in lines if not line.startswith(("INIT_START", "MAYFLY "))]


SCENARIOS = {}
OUTCOMES = collections.Counter()


def replays(*names):
    """Registers a scenario for recorded cases; a name ending in [*] stands for all its variants, given to it as a word."""

    def register(scenario):
        for name in names:
            if name.endswith("[*]"):
                for case in RECORDED["cases"]:
                    if case.startswith(name[:-2]):
                        SCENARIOS[case] = (scenario, case[len(name) - 2 : -1])
            else:
                SCENARIOS[name] = (scenario, None)
        return scenario

    return register
