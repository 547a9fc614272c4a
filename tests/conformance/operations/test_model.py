"""Mayfly's table of the interface against the service model of the installed botocore: nothing lost, nothing misread."""

import pytest

import interface

# Operations and members of a newer model than the installed botocore's.
NEWER = {"GetResourcePolicy", "PutResourcePolicy", "DeleteResourcePolicy"}
# Where answers of the real service show another constraint than its model has: the table follows the answers.
AS_ANSWERED = {"Runtime", "FunctionName", "NamespacedFunctionName", "TaggableResource", "DestinationArn", "MemorySize", "Timeout"}
# Bounds that a newer model than the installed one widened.
WIDENED = {"SourceAccessConfigurations", "MaximumNumberOfPollers", "LayerVersionArn"}
KINDS = {"float": "double"}


def test_every_operation_is_there(caller):
    assert caller.known - set(interface.OPERATIONS) == set()
    assert set(interface.OPERATIONS) - caller.known <= NEWER


@pytest.mark.parametrize("name", sorted(set(interface.OPERATIONS) - NEWER))
def test_an_operation_is_bound_as_the_model_has_it(caller, cases, name):
    operation, model = interface.OPERATIONS[name], caller.service.operation_model(name)
    with cases(name) as tally:
        path, _, query = model.http["requestUri"].partition("?")
        wanted = (model.http["method"], path.rstrip("/"), query, model.http.get("responseCode", 200))
        got = (operation["method"], operation["path"], operation.get("query", ""), operation["success"])
        tally.record("method, path and status", [] if got == wanted else [f"expected {wanted}, got {got}"])
        shapes = model.input_shape.members if model.input_shape else {}
        ours = {member["name"]: member for member in operation["members"]}
        problems = [f"{member} is missing" for member in shapes if member not in ours]
        for member, shape in shapes.items():
            if member in ours:
                problems += binding_problems(model, member, shape, ours[member])
                problems += shape_problems(shape, ours[member]["shape"], member, set())
        tally.record("members", problems)


PLACES = {"uri": "path", "querystring": "query", "header": "header", None: "body"}


def binding_problems(model, member, shape, ours):
    place = "payload" if model.input_shape.serialization.get("payload") == member else PLACES[shape.serialization.get("location")]
    wire = shape.serialization.get("name", member)
    problems = []
    if ours["in"] != place or place != "payload" and interface.wire_name(ours) != wire:
        problems.append(f"{member} is {ours['in']} {interface.wire_name(ours)}, the model says {place} {wire}")
    if bool(ours.get("required")) != (member in model.input_shape.required_members):
        problems.append(f"{member} required: {ours.get('required', False)}")
    return problems


def shape_problems(shape, ours_name, path, seen):
    if shape.name in seen:
        return []
    seen = seen | {shape.name}
    ours = interface.SHAPES[ours_name]
    if ours["type"] != KINDS.get(shape.type_name, shape.type_name):
        return [f"{path} is a {ours['type']}, the model says {shape.type_name}"]
    problems = []
    if ours_name not in AS_ANSWERED | WIDENED:
        for bound in ("min", "max"):
            if bound in shape.metadata and float(shape.metadata[bound]) != float(ours.get(bound, "nan")):
                problems.append(f"{path} {bound} is {ours.get(bound)}, the model says {shape.metadata[bound]}")
        # In the order error texts show, which is not the model's; a newer model may know more.
        if getattr(shape, "enum", None) and not set(shape.enum) <= set(ours.get("enum", [])):
            problems.append(f"{path} values are {ours.get('enum')}, the model says {shape.enum}")
    if shape.type_name == "structure":
        members = {member["name"]: member for member in ours["members"]}
        for name, inner in shape.members.items():
            if name not in members:
                problems.append(f"{path}.{name} is missing")
                continue
            if bool(members[name].get("required")) != (name in shape.required_members):
                problems.append(f"{path}.{name} required: {members[name].get('required', False)}")
            problems += shape_problems(inner, members[name]["shape"], f"{path}.{name}", seen)
    elif shape.type_name == "list":
        problems += shape_problems(shape.member, ours["member"], f"{path}[]", seen)
    elif shape.type_name == "map":
        problems += shape_problems(shape.key, ours["key"], f"{path} key", seen) + shape_problems(
            shape.value, ours["value"], f"{path} value", seen
        )
    return problems


def test_errors_have_the_model_s_status(caller):
    for shape in caller.service.error_shapes:
        status = shape.metadata.get("error", {}).get("httpStatusCode")
        ours = interface.ERRORS.get(shape.name)
        assert ours is not None, shape.name
        if status:
            assert ours["status"] == status, shape.name
        member = next((name for name in shape.members if name.lower() == "message"), None)
        if member and not ours.get("bare"):
            assert ours["message_key"] == member, shape.name
