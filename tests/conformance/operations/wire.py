"""Calls through real boto3 whose request can be made wrong on purpose, and the checks of what comes back."""

import http.client
import json
import re
import urllib.parse

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

import interface

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# The wire says 204 where the model says 200 or nothing; Invoke's status follows its type.
SUCCESS = {"DeleteFunction": {204}, "Invoke": {200, 202, 204}}
# Members the model requires and the service itself leaves out: recorded as an answer with the function's name alone.
LEFT_OUT = {("GetFunctionCodeSigningConfig", "CodeSigningConfigArn")}
# Values the service was recorded to give though the enumeration lacks them.
UNLISTED = {("LastUpdateStatusReasonCode", "Creating")}


class Reply:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body
        self.json = None
        if isinstance(body, bytes) and body:
            try:
                self.json = json.loads(body)
            except ValueError:
                pass

    @property
    def error(self):
        return self.headers.get("x-amzn-errortype", "").split(":")[0]

    @property
    def message(self):
        if not isinstance(self.json, dict):
            return None
        return self.json.get("message", self.json.get("Message"))

    def __str__(self):
        return f"{self.status} {self.error} {self.body[:600] if isinstance(self.body, bytes) else self.body!r}"


class Caller:
    """Sends operations of the model by boto3, or signed by hand where this botocore does not know one yet."""

    def __init__(self, server):
        self.server = server
        self.client = server.client("lambda", waits=False, parameter_validation=False, connect_timeout=5)
        self.service = self.client.meta.service_model
        self.known = set(self.service.operation_names)
        self.body = None
        self.seen = None
        events = self.client.meta.events
        events.register("before-call.lambda", self._tamper)
        events.register("before-parse.lambda", self._capture)

    def _tamper(self, params, **_):
        if self.body is not None:
            params["body"] = self.body
            params["headers"]["Content-Type"] = "application/json"

    def _capture(self, response_dict, **_):
        self.seen = Reply(response_dict["status_code"], response_dict["headers"], response_dict["body"])

    def send(self, name, values, body=None):
        """Sends what `values` says, whatever the shapes are; `body` replaces the body whole."""
        operation = interface.OPERATIONS[name]
        if name not in self.known:
            return self._by_hand(operation, values, body)
        in_body = {member["name"]: interface.wire_name(member) for member in operation["members"] if member["in"] == "body"}
        outside = {key: value for key, value in values.items() if key not in in_body}
        if body is None and in_body:
            inside = {in_body[key]: value for key, value in values.items() if key in in_body}
            body = json.dumps(inside, ensure_ascii=False).encode("utf-8", "surrogatepass")
        self.body, self.seen = body, None
        try:
            answer = getattr(self.client, _method(self.client, name))(**outside)
            for value in answer.values():
                if isinstance(value, StreamingBody):
                    self.seen.body = value.read()
        except ClientError:
            pass
        finally:
            self.body = None
        return self.seen

    def call(self, name, **values):
        """The valid call as boto3's users make it; returns (reply, parsed answer). An error raises ClientError."""
        self.seen = None
        answer = getattr(self.client, _method(self.client, name))(**values)
        return self.seen, answer

    def _by_hand(self, operation, values, body):
        path, query, inside = operation["path"], [], {}
        for member in operation["members"]:
            value = values.get(member["name"])
            if value is None:
                continue
            wire = interface.wire_name(member)
            if member["in"] == "path":
                path = path.replace("{" + wire + "}", urllib.parse.quote(str(value), safe=""))
            elif member["in"] == "query":
                query.append((wire, value))
            elif member["in"] == "body":
                inside[wire] = value
        if query:
            path += "?" + urllib.parse.urlencode(query)
        return self.raw(operation["method"], path, json.dumps(inside).encode() if body is None else body)

    def raw(self, method, path, body=b"", headers=None):
        """One signed request as given."""
        url = urllib.parse.urlsplit(self.server.endpoint)
        request = AWSRequest(method=method, url=self.server.endpoint + path, data=body, headers=headers or {})
        credentials = self.client._request_signer._credentials
        SigV4Auth(credentials, "lambda", self.server.info["region"]).add_auth(request)
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
        try:
            connection.request(method, path, body, dict(request.headers.items()))
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()


_methods = {}


def _method(client, name):
    if not _methods:
        _methods.update({operation: method for method, operation in client.meta.method_to_api_mapping.items()})
    return _methods[name]


def identity_problems(reply):
    if not UUID.fullmatch(reply.headers.get("x-amzn-requestid", "")):
        return [f"x-amzn-RequestId is {reply.headers.get('x-amzn-requestid')!r}"]
    return []


def error_problems(reply):
    """What is wrong with the form of an error answer."""
    problems = identity_problems(reply)
    known = interface.ERRORS.get(reply.error)
    if known is None:
        return [*problems, f"unknown error type {reply.error!r} (status {reply.status})"]
    if reply.status != known["status"]:
        problems.append(f"{reply.error} came with status {reply.status}, the model says {known['status']}")
    if reply.headers.get("content-type") != "application/json":
        problems.append(f"Content-Type is {reply.headers.get('content-type')!r}")
    if not isinstance(reply.json, dict):
        return [*problems, f"the body is no JSON object: {reply.body[:200]!r}"]
    wanted = {known["message_key"]} | (set() if known.get("bare") else {"Type"})
    allowed = wanted | {"Reason", "retryAfterSeconds"}
    if not wanted <= set(reply.json) <= allowed:
        problems.append(f"members of the body are {sorted(reply.json)}, expected {sorted(wanted)}")
    if "Type" in wanted and reply.json.get("Type") not in ("User", "Service"):
        problems.append(f"Type is {reply.json.get('Type')!r}")
    if not isinstance(reply.message, str) or not reply.message:
        problems.append(f"the message is {reply.message!r}")
    return problems


def value_problems(shape, value, path, operation=""):
    """Where a value of an answer differs from its shape in the service model."""
    kind = shape.type_name
    if kind == "structure":
        if not isinstance(value, dict):
            return [f"{path} is no object: {value!r}"]
        problems = []
        members = {
            member.serialization.get("name", name): (name, member)
            for name, member in shape.members.items()
            if "location" not in member.serialization
        }
        for name in value:
            if name not in members:
                problems.append(f"{path}.{name} is not in the model")
        for wire, (name, member) in members.items():
            found = value.get(wire)
            if found is not None:
                problems += value_problems(member, found, f"{path}.{wire}", operation)
            elif name in shape.required_members and (operation, name) not in LEFT_OUT:
                problems.append(f"{path}.{wire} is required and missing")
        return problems
    if kind == "list":
        if not isinstance(value, list):
            return [f"{path} is no list: {value!r}"]
        return [
            problem for number, each in enumerate(value) for problem in value_problems(shape.member, each, f"{path}[{number}]", operation)
        ]
    if kind == "map":
        if not isinstance(value, dict):
            return [f"{path} is no object: {value!r}"]
        return [problem for key, each in value.items() for problem in value_problems(shape.value, each, f"{path}[{key}]", operation)]
    right = {
        "string": lambda: isinstance(value, str),
        "blob": lambda: isinstance(value, str),
        "integer": lambda: isinstance(value, int) and not isinstance(value, bool),
        "long": lambda: isinstance(value, int) and not isinstance(value, bool),
        "double": lambda: isinstance(value, (int, float)) and not isinstance(value, bool),
        "float": lambda: isinstance(value, (int, float)) and not isinstance(value, bool),
        "boolean": lambda: isinstance(value, bool),
        "timestamp": lambda: isinstance(value, (int, float)) and not isinstance(value, bool),
    }[kind]
    if not right():
        return [f"{path} is no {kind}: {value!r}"]
    problems = []
    if kind == "string" and shape.enum and value not in shape.enum and (shape.name, value) not in UNLISTED:
        problems.append(f"{path} is {value!r}, not one of {shape.enum}")
    if kind in ("integer", "long", "double", "float"):
        if (
            "min" in shape.metadata
            and value < float(shape.metadata["min"])
            or "max" in shape.metadata
            and value > float(shape.metadata["max"])
        ):
            problems.append(f"{path} is {value!r}, beyond {shape.metadata}")
    if kind == "string" and "max" in shape.metadata and len(value) > int(shape.metadata["max"]):
        problems.append(f"{path} has {len(value)} characters, the model allows {shape.metadata['max']}")
    return problems


def success_problems(caller, name, reply):
    """What is wrong with a successful answer, against the service model."""
    model = caller.service.operation_model(name)
    problems = identity_problems(reply)
    statuses = SUCCESS.get(name, {model.http.get("responseCode", 200)})
    if reply.status not in statuses:
        problems.append(f"status {reply.status}, the model says {sorted(statuses)}")
    output = model.output_shape
    members = output.members if output is not None else {}
    payload = output.serialization.get("payload") if output is not None else None
    for member, shape in members.items():
        header = shape.serialization.get("name") if shape.serialization.get("location") == "header" else None
        if header and member in output.required_members and header.lower() not in reply.headers:
            problems.append(f"header {header} is required and missing")
    if payload is not None or not isinstance(reply.body, bytes):
        return problems
    if not any("location" not in shape.serialization for shape in members.values()):
        if reply.body:
            problems.append(f"a body where the model has none: {reply.body[:200]!r}")
        return problems
    if reply.headers.get("content-type") != "application/json":
        problems.append(f"Content-Type is {reply.headers.get('content-type')!r}")
    if not isinstance(reply.json, dict):
        return [*problems, f"the body is no JSON object: {reply.body[:200]!r}"]
    return problems + value_problems(output, reply.json, name, name)


def complaint_problems(reply, expected):
    """Whether a ValidationException tells exactly these violations."""
    problems = error_problems(reply)
    if (reply.status, reply.error) != (400, "ValidationException"):
        return [*problems, f"expected a ValidationException, got {reply}"]
    head = f"{len(expected)} validation error{'s' if len(expected) != 1 else ''} detected: "
    if not reply.message.startswith(head):
        problems.append(f"the text begins {reply.message[:60]!r}, expected {head!r}")
    rest = reply.message.split(" detected: ", 1)[-1]
    for text in expected:
        # Long values are shown in part only: their constraint must be told all the same.
        wanted = text if len(text) < 8000 else text[text.rindex("' at '") :]
        if wanted not in rest:
            problems.append(f"missing {wanted[-700:]!r} in {rest[-1500:]!r}")
    return problems


# What those are told who wanted to change a thing while another did.
ERROR_OF_LOSERS = {"ResourceConflictException", "PreconditionFailedException"}
