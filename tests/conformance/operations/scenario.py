"""What the handwritten scenarios call: each call is counted for its operation and checked against the model."""

import contextlib
import io
import time
import uuid
import zipfile

import pytest
from botocore.exceptions import ClientError

from wire import error_problems, success_problems

ROLE = "arn:aws:iam::000000000000:role/test"
ECHO = "def handler(event, context):\n    if isinstance(event, dict) and event.get('fail'):\n        raise ValueError('as asked')\n    return event\n"
REGION = "us-east-1"
ACCOUNT = "000000000000"


def package(source=ECHO, name="app.py", **files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in {name: source, **files}.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), text)
    return buffer.getvalue()


def function_arn(name, qualifier=None):
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}" + (f":{qualifier}" if qualifier else "")


def layer_arn(name, version=None):
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:{name}" + (f":{version}" if version else "")


class Scenario:
    """Calls operations; wrong answers are gathered and fail the test at its end, an unexpected error ends it at once."""

    def __init__(self, caller, cases):
        self.caller = caller
        self.tally = cases("scenario")
        self.cleanup = contextlib.ExitStack()

    def __call__(self, operation, **values):
        """A call that must succeed; the parsed answer."""
        try:
            reply, answer = self.caller.call(operation, **values)
        except ClientError as error:
            self.tally.record(
                f"with {brief(values)}",
                [f"expected an answer, got {error.response['ResponseMetadata']['HTTPStatusCode']} {error}"],
                operation,
            )
            self.end()
        self.tally.record(f"with {brief(values)}", success_problems(self.caller, operation, reply), operation)
        answer.pop("ResponseMetadata", None)
        return answer

    def refused(self, operation, status, error, text="", **values):
        """A call that must be refused so; `text` is part of the message."""
        reply = self.caller.send(operation, values)
        problems = error_problems(reply) if reply.status >= 400 else []
        if (reply.status, reply.error) != (status, error) or text not in (reply.message or ""):
            problems.append(f"expected {status} {error} {text!r}, got {reply}")
        self.tally.record(f"refused, with {brief(values)}", problems, operation)

    def same(self, operation, what, got, wanted):
        """Compares a part of an answer."""
        self.tally.record(what, [] if got == wanted else [f"expected {wanted!r}, got {got!r}"], operation)

    def end(self):
        self.tally.__exit__(None)

    def function(self, **settings):
        """A fresh active function; it goes when the scenario ends."""
        name = "conf-" + uuid.uuid4().hex[:12]
        members = {
            "FunctionName": name,
            "Runtime": "python3.11",
            "Role": ROLE,
            "Handler": "app.handler",
            "Code": {"ZipFile": package()},
            **settings,
        }
        self("CreateFunction", **members)
        self.cleanup.callback(self.caller.send, "DeleteFunction", {"FunctionName": name})
        self.settle(name)
        return name

    def settle(self, name):
        """Waits until nothing is under way."""
        deadline = time.monotonic() + 10
        while True:
            state = self.caller.client.get_function_configuration(FunctionName=name)
            if state["State"] != "Pending" and state.get("LastUpdateStatus") != "InProgress":
                return state
            if time.monotonic() > deadline:
                pytest.fail(f"{name} did not settle: {state}")
            time.sleep(0.02)

    def mapping(self, **values):
        """A fresh event source mapping's answer; it goes when the scenario ends."""
        made = self("CreateEventSourceMapping", **values)
        self.cleanup.callback(self.unmap, made["UUID"])
        return made

    def unmap(self, identity):
        """Deletes a mapping once it is no longer being made or changed."""
        deadline = time.monotonic() + 10
        while (
            self.caller.send("DeleteEventSourceMapping", {"UUID": identity}).error == "ResourceInUseException"
            and time.monotonic() < deadline
        ):
            time.sleep(0.02)

    def version(self, name, **settings):
        """Publishes a version that differs from the one before."""
        self("UpdateFunctionConfiguration", FunctionName=name, Description=uuid.uuid4().hex)
        self.settle(name)
        return self("PublishVersion", FunctionName=name, **settings)["Version"]


def brief(values):
    return ", ".join(f"{key}={str(value)[:60]}" for key, value in values.items())
