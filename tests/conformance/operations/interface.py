"""The interface model as the tests need it: which values a shape allows, which violations a value must be told, example values.

Inputs come from Mayfly's own table (src/api/lambda/model/operations.json); the shapes of answers come from botocore's.
"""

import json
import os
import re

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
with open(os.path.join(ROOT, "src", "api", "lambda", "model", "operations.json"), encoding="utf-8") as table:
    MODEL = json.load(table)
OPERATIONS = {operation["name"]: operation for operation in MODEL["operations"]}
SHAPES = MODEL["shapes"]
ERRORS = MODEL["errors"]

# What Mayfly does not offer yet: each answers a typed refusal. An operation that starts to work must be taken out here, and then
# every generated case applies to it.
NOT_SUPPORTED = {
    "InvokeAsync",
    "CreateCodeSigningConfig", "DeleteCodeSigningConfig", "DeleteFunctionCodeSigningConfig", "GetCodeSigningConfig",
    "ListCodeSigningConfigs", "ListFunctionsByCodeSigningConfig", "PutFunctionCodeSigningConfig", "UpdateCodeSigningConfig",
    "GetResourcePolicy", "PutResourcePolicy", "DeleteResourcePolicy",
    "CheckpointDurableExecution", "GetDurableExecution", "GetDurableExecutionHistory", "GetDurableExecutionState",
    "ListDurableExecutionsByFunction", "SendDurableExecutionCallbackFailure", "SendDurableExecutionCallbackHeartbeat",
    "SendDurableExecutionCallbackSuccess", "StopDurableExecution",
    "GetFunctionScalingConfig", "PutFunctionScalingConfig",
    "CreateCapacityProvider", "DeleteCapacityProvider", "GetCapacityProvider", "ListCapacityProviders",
    "ListFunctionVersionsByCapacityProvider", "UpdateCapacityProvider",
}  # fmt: skip
OFFERED = [name for name in OPERATIONS if name not in NOT_SUPPORTED]

NOWHERE = "conformance-no-such-function"
NO_ZIP = "bm90IGEgemlw"
ARN = "arn:aws:lambda:us-east-1:000000000000:"
# Values that satisfy their shapes, and name nothing that exists: a call that passes the checks of shapes changes nothing.
EXAMPLES = {
    "Action": "lambda:InvokeFunction",
    "AdditionalVersion": "7",
    "Alias": "live",
    "Arn": "arn:aws:sqs:us-east-1:000000000000:no-such-queue",
    "Blob": NO_ZIP,
    "CapacityProviderArn": ARN + "capacity-provider:none",
    "CodeSigningConfigArn": ARN + "code-signing-config:csc-0123456789abcdef0",
    "CollectionName": "collection",
    "DatabaseName": "database",
    "DestinationArn": "arn:aws:sqs:us-east-1:000000000000:no-such-queue",
    "DurableExecutionArn": ARN + "function:none:1/durable-execution/name/id",
    "Endpoint": "broker.example:9092",
    "EnvironmentVariableName": "NAME",
    "FileSystemArn": "arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/fsap-0123456789abcdef0",
    "FunctionName": NOWHERE,
    "NamespacedFunctionName": NOWHERE,
    "UnqualifiedFunctionName": NOWHERE,
    "FunctionUrlQualifier": "live",
    "Handler": "app.handler",
    "KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/none",
    "KMSKeyArnNonEmpty": "arn:aws:kms:us-east-1:000000000000:key/none",
    "LayerName": "no-such-layer",
    "LayerPermissionAllowedAction": "lambda:GetLayerVersion",
    "LayerPermissionAllowedPrincipal": "*",
    "LayerVersionArn": ARN + "layer:no-such-layer:1",
    "LocalMountPath": "/mnt/files",
    "MasterRegion": "ALL",
    "Method": "GET",
    "NumericLatestPublishedOrAliasQualifier": "7",
    "OrganizationId": "o-0123456789ab",
    "Origin": "https://example.com",
    "Pattern": '{"body": ["a"]}',
    "Principal": "s3.amazonaws.com",
    "PrincipalOrgID": "o-0123456789ab",
    "PublishedFunctionQualifier": "7",
    "Qualifier": "7",
    "ResourceArn": "arn:aws:sqs:us-east-1:000000000000:no-such-queue",
    "RoleArn": "arn:aws:iam::000000000000:role/test",
    "Runtime": "python3.11",
    "RuntimeVersionArn": "arn:aws:lambda:us-east-1::runtime:0123456789abcdef",
    "S3Bucket": "no-such-bucket",
    "S3Key": "no-such-key",
    "SecurityGroupId": "sg-1",
    "SourceOwner": "000000000000",
    "SubnetId": "subnet-1",
    "TaggableResource": ARN + "function:" + NOWHERE,
    "Timestamp": 1700000000,
    "Date": 1700000000,
    "Topic": "topic",
    "VersionWithLatestPublished": "7",
    "WorkingDirectory": "/",
}
# Members an otherwise minimal call gives too, so that it is refused for what it names rather than for what it lacks.
BASE_MEMBERS = {
    "CreateFunction": ("Runtime", "Handler"),
    "CreateEventSourceMapping": ("EventSourceArn",),
    "PutFunctionEventInvokeConfig": ("MaximumRetryAttempts",),
    "UpdateFunctionEventInvokeConfig": ("MaximumRetryAttempts",),
    "UpdateFunctionCode": ("ZipFile",),
}
BASE_VALUES = {
    "CreateFunction": {"FunctionName": NOWHERE, "Code": {"ZipFile": NO_ZIP}},
    "PublishLayerVersion": {"Content": {"ZipFile": NO_ZIP}},
}


def shown_name(name):
    return name[0].lower() + name[1:]


def wire_name(member):
    return member.get("wire", member["name"])


def example(shape_name):
    """A value of the shape, as JSON has it."""
    if shape_name in EXAMPLES:
        return EXAMPLES[shape_name]
    shape = SHAPES[shape_name]
    kind = shape["type"]
    if kind == "structure":
        return {wire_name(member): example(member["shape"]) for member in shape["members"] if member.get("required")}
    if kind == "list":
        return [example(shape["member"])]
    if kind == "map":
        return {example(shape["key"]): example(shape["value"])}
    if kind in ("integer", "long"):
        return max(int(float(shape.get("min", 1))), 1)
    if kind in ("double", "float"):
        return float(shape.get("min", 0.5))
    if kind == "boolean":
        return True
    if kind == "timestamp":
        return 1700000000
    if shape.get("enum"):
        return shape["enum"][0]
    value = "a" * max(int(shape.get("min", 1)), 1)
    assert not violations_of(shape, value), f"no example for {shape_name}"
    return value


def base_input(operation):
    """A call that passes every check of shapes: members by name, bodies as JSON has them."""
    extra = BASE_MEMBERS.get(operation["name"], ())
    values = {
        member["name"]: example(member["shape"]) for member in operation["members"] if member.get("required") or member["name"] in extra
    }
    values.update(json.loads(json.dumps(BASE_VALUES.get(operation["name"], {}))))
    return values


_compiled = {}


def matches(shape, text):
    pattern = shape["pattern"]
    if pattern not in _compiled:
        translated = pattern.replace("\\p{L}\\p{Z}\\p{N}_", "\\w\\s")
        _compiled[pattern] = re.compile(translated)
    return _compiled[pattern].fullmatch(text) is not None


def number_text(value):
    """The table has "0.0" for some bounds; whole ones are shown without a fraction."""
    number = float(value)
    return str(int(number)) if number == int(number) else str(number)


def bound(shape, which):
    kind = "value" if shape["type"] in ("integer", "long", "double", "float") else "length"
    words = "less than or equal to" if which == "max" else "greater than or equal to"
    return f"Member must have {kind} {words} {number_text(shape[which])}"


def enumeration(shape):
    return "Member must satisfy enum value set: [" + ", ".join(shape["enum"]) + "]"


def violations_of(shape, value):
    """The constraints a scalar, or the length of a list, violates."""
    texts = []
    if shape["type"] == "blob":
        return texts
    measure = len(value) if isinstance(value, (str, list)) else value if isinstance(value, (int, float)) else None
    if measure is not None:
        if "max" in shape and measure > float(shape["max"]):
            texts.append(bound(shape, "max"))
        if "min" in shape and measure < float(shape["min"]):
            texts.append(bound(shape, "min"))
    if isinstance(value, str):
        if "pattern" in shape and not matches(shape, value):
            texts.append("Member must satisfy regular expression pattern: " + shape["pattern"])
        if shape.get("enum") and value not in shape["enum"]:
            texts.append(enumeration(shape))
    return texts


def all_constraints(shape):
    texts = [bound(shape, which) for which in ("max", "min") if which in shape]
    if "pattern" in shape:
        texts.append("Member must satisfy regular expression pattern: " + shape["pattern"])
    if shape.get("enum"):
        texts.append(enumeration(shape))
    return "[" + ", ".join([*texts, "Member must not be null"]) + "]"


def shown(value):
    """A refused value as the service shows it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(shown(each) for each in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={shown(each)}" for key, each in value.items()) + "}"
    return "null" if value is None else str(value)


def complaint(value, path, constraint):
    return f"Value '{shown(value)}' at '{path}' failed to satisfy constraint: {constraint}"


def null_complaint(path):
    return f"Value null at '{path}' failed to satisfy constraint: Member must not be null"


def complaints(shape_name, value, path):
    """Every violation inside `value`, as the service tells them."""
    shape = SHAPES[shape_name]
    told = [complaint(value, path, text) for text in violations_of(shape, value)]
    if shape["type"] == "structure":
        for member in shape["members"]:
            inner = path + "." + shown_name(member["name"])
            found = value.get(wire_name(member))
            if found is not None:
                told += complaints(member["shape"], found, inner)
            elif member.get("required"):
                told.append(null_complaint(inner))
    elif shape["type"] == "list":
        element = SHAPES[shape["member"]]
        if element["type"] == "structure":
            for number, each in enumerate(value, 1):
                told += complaints(shape["member"], each, f"{path}.{number}.member")
        elif any(each is None or violations_of(element, each) for each in value):
            told.append(complaint(value, path, "Member must satisfy constraint: " + all_constraints(element)))
    elif shape["type"] == "map":
        key, element = SHAPES[shape["key"]], SHAPES[shape["value"]]
        if any(violations_of(key, each) for each in value):
            told.append(complaint(value, path, "Map keys must satisfy constraint: " + all_constraints(key)))
        if element["type"] not in ("structure", "list", "map") and any(
            each is None or violations_of(element, each) for each in value.values()
        ):
            told.append(complaint(value, path, "Map value must satisfy constraint: " + all_constraints(element)))
    return told


def of_length(shape_name, length):
    """A string of that length which, where possible, violates nothing else."""
    shape = SHAPES[shape_name]
    start = EXAMPLES.get(shape_name, "")
    candidates = ["a" * length, "7" * length]
    if isinstance(start, str) and 0 < len(start) < length:
        candidates.append(start + "a" * (length - len(start)))
    if len(start) < length and start.endswith("1"):
        candidates.append(start + "1" * (length - len(start)))
    unbounded = {key: value for key, value in shape.items() if key not in ("min", "max", "enum")}
    return next((each for each in candidates if not violations_of(unbounded, each)), candidates[0])


def members_of(operation):
    """Every member of an input, also inside structures: (place, shape name, required, location), place = ("Code", "S3Bucket")."""
    for member in operation["members"]:
        if member["in"] == "payload":
            continue
        yield (member["name"],), member["shape"], member.get("required", False), member["in"]
        if member["in"] == "body":
            yield from inner_members((member["name"],), member["shape"], 0)


def inner_members(place, shape_name, depth):
    shape = SHAPES[shape_name]
    if depth > 4:
        return
    if shape["type"] == "structure":
        for member in shape["members"]:
            inner = (*place, wire_name(member))
            yield inner, member["shape"], member.get("required", False), "body"
            yield from inner_members(inner, member["shape"], depth + 1)
    elif shape["type"] == "list" and SHAPES[shape["member"]]["type"] == "structure":
        yield from inner_members((*place, 0), shape["member"], depth + 1)


def shape_at(operation, place):
    """Name of the shape at a place."""
    name = next(member["shape"] for member in operation["members"] if member["name"] == place[0])
    for step in place[1:]:
        shape = SHAPES[name]
        name = shape["member"] if step == 0 else next(each["shape"] for each in shape["members"] if wire_name(each) == step)
    return name


REMOVED = object()


def changed(operation, values, place, value):
    """A copy of `values` with `value` at `place`; what lies between comes into being."""
    copy = json.loads(json.dumps(values))
    here = copy
    for depth, step in enumerate(place[:-1]):
        if isinstance(here, list):
            here = here[0]
            continue
        if step not in here:
            here[step] = example(shape_at(operation, place[: depth + 1]))
        here = here[step]
    if isinstance(here, list):
        here = here[0]
    if value is REMOVED:
        here.pop(place[-1], None)
    else:
        here[place[-1]] = value
    return copy


def expected_complaints(operation, values):
    told = []
    for member in operation["members"]:
        if member["in"] == "payload":
            continue
        path = shown_name(member["name"])
        if values.get(member["name"]) is None:
            if member.get("required"):
                told.append(null_complaint(path))
        else:
            told += complaints(member["shape"], values[member["name"]], path)
    return told


def label(place):
    return ".".join(str(step) for step in place)


def invalid_cases(operation):
    """(what, values) of calls that violate one constraint of one member (or what one value violates at once)."""
    base = base_input(operation)

    def case(what, place, value):
        return f"{label(place)} {what}", changed(operation, base, place, value)

    for place, shape_name, required, location in members_of(operation):
        shape = SHAPES[shape_name]
        kind = shape["type"]
        if required and location != "path":
            yield case("missing", place, REMOVED)
            if location == "body":
                yield case("null", place, None)
        if kind in ("integer", "long", "double", "float"):
            step = 1 if kind in ("integer", "long") else 0.5
            if "min" in shape:
                low = float(shape["min"]) - step
                yield case("below the least", place, int(low) if step == 1 else low)
            if "max" in shape and float(shape["max"]) < 2**53:
                high = float(shape["max"]) + step
                yield case("above the most", place, int(high) if step == 1 else high)
        elif kind == "string" and location != "header":
            if "max" in shape and int(shape["max"]) <= 10000:
                yield case("too long", place, of_length(shape_name, int(shape["max"]) + 1))
            if int(shape.get("min", 0)) > 1:
                yield case("too short", place, of_length(shape_name, int(shape["min"]) - 1))
            if int(shape.get("min", 0)) == 1 and location != "path":
                yield case("empty", place, "")
            if "pattern" in shape:
                bad = next((each for each in ("bad value!", "\u00e9\u20ac", "a\nb", "..", "") if not matches(shape, each)), None)
                if bad and not (location == "path" and bad in ("", "..")):
                    yield case("against its pattern", place, bad)
        if kind == "string" and shape.get("enum"):
            yield case("not of its values", place, "Unheard")
            yield case("in the wrong case", place, shape["enum"][0].swapcase())
        if kind == "list" and location == "body":
            element = SHAPES[shape["member"]]
            if "max" in shape and int(shape["max"]) < 2000:
                yield case("too many", place, [example(shape["member"])] * (int(shape["max"]) + 1))
            if int(shape.get("min", 0)) > 0:
                yield case("too few", place, [])
            if element["type"] == "string":
                if element.get("enum"):
                    yield case("with an element not of its values", place, ["Unheard"])
                if "max" in element and int(element["max"]) <= 10000:
                    yield case("with an element too long", place, [of_length(shape["member"], int(element["max"]) + 1)])
                if "pattern" in element and not matches(element, "bad value!"):
                    yield case("with an element against its pattern", place, ["bad value!"])
            if element["type"] != "structure":
                yield case("with a null", place, [None])
        if kind == "map" and location == "body":
            key, element = SHAPES[shape["key"]], SHAPES[shape["value"]]
            if "pattern" in key and not matches(key, "bad key!"):
                yield case("with a bad key", place, {"bad key!": example(shape["value"])})
            if "max" in key:
                yield case("with a key too long", place, {of_length(shape["key"], int(key["max"]) + 1): example(shape["value"])})
            if element["type"] == "string" and "max" in element:
                yield case("with a value too long", place, {example(shape["key"]): "v" * (int(element["max"]) + 1)})
            if element["type"] == "double":
                yield case("with a value beyond the most", place, {example(shape["key"]): float(element["max"]) + 0.5})
            if element["type"] not in ("structure", "list", "map"):
                yield case("with a null", place, {example(shape["key"]): None})


def boundary_cases(operation):
    """(what, values) of calls at the edge of what shapes allow."""
    base = base_input(operation)
    yield "as few members as possible", base
    for place, shape_name, _, location in members_of(operation):
        shape = SHAPES[shape_name]
        kind = shape["type"]

        def case(what, value, place=place):
            return f"{label(place)} {what}", changed(operation, base, place, value)

        if kind in ("integer", "long"):
            for which in ("min", "max"):
                if which in shape:
                    yield case(f"at its {which}", int(float(shape[which])))
        elif kind in ("double", "float"):
            for which in ("min", "max"):
                if which in shape:
                    yield case(f"at its {which}", float(shape[which]))
        elif kind == "string" and shape.get("enum"):
            for value in shape["enum"]:
                yield case(f"as {value}", value)
        elif kind == "string" and location != "header":
            for which in ("min", "max"):
                length = int(shape.get(which, -1))
                if 0 < length <= 10000:
                    # A bare name may have 64 characters; the 140 of the shape are for ARNs.
                    value = of_length(shape_name, 64 if (operation["name"], place) == ("CreateFunction", ("FunctionName",)) else length)
                    if not violations_of(shape, value):
                        yield case(f"with its {which} length", value)
        elif kind == "list" and location == "body":
            most = int(shape.get("max", 3))
            if most < 2000:
                yield case("with as many as allowed", [example(shape["member"])] * most)
        elif kind == "boolean":
            yield case("as false", False)


WRONG_TYPES = {
    "string": (5, True, {}, ["a"]),
    "blob": (5, {}, []),
    "integer": ("5", 1.5, {}, [1], True),
    "long": ("5", 1.5, {}),
    "double": ("0.5", {}, []),
    "float": ("0.5", {}),
    "boolean": ("true", 1, {}),
    "timestamp": ({}, []),
    "structure": ("text", 5, ["a"]),
    "list": ("text", 5, {}),
    "map": ("text", 5, ["a"]),
}


def wrong_type_cases(operation):
    base = base_input(operation)
    for place, shape_name, _, location in members_of(operation):
        kind = SHAPES[shape_name]["type"]
        if location == "body":
            for value in WRONG_TYPES[kind]:
                yield f"{label(place)} = {json.dumps(value)}", changed(operation, base, place, value)
            if kind == "list":
                element = SHAPES[SHAPES[shape_name]["member"]]["type"]
                yield f"{label(place)} = [wrong]", changed(operation, base, place, [WRONG_TYPES[element][0]])
            if kind == "map":
                shape = SHAPES[shape_name]
                yield (
                    f"{label(place)} = wrong value",
                    changed(operation, base, place, {example(shape["key"]): WRONG_TYPES[SHAPES[shape["value"]]["type"]][0]}),
                )
        elif location == "query" and kind == "integer":
            for value in ("many", "1.5", "0x10", "99999999999999999999"):
                yield f"{label(place)} = {value}", changed(operation, base, place, value)


def several_cases(operation):
    """Calls wrong in two and in all top members at once."""
    base = base_input(operation)
    wrong = {}
    for place, shape_name, required, location in members_of(operation):
        shape = SHAPES[shape_name]
        if len(place) > 1 or location == "header" or place[0] in wrong:
            continue
        if shape["type"] in ("integer", "long") and "min" in shape:
            wrong[place[0]] = int(float(shape["min"])) - 1
        elif shape["type"] == "string" and shape.get("enum"):
            wrong[place[0]] = "Unheard"
        elif shape["type"] == "string" and "pattern" in shape and not matches(shape, "bad value!"):
            wrong[place[0]] = "bad value!"
        elif required and location == "body":
            wrong[place[0]] = None
    if len(wrong) >= 2:
        first = dict(list(wrong.items())[:2])
        yield "two members wrong", {**base, **first}
        yield "every member wrong", {**base, **wrong}
