"""Generated from the model: each member missing, at and beyond its bounds, against its pattern, of a wrong type, several at once.

No example names anything that exists, so a call that passes the checks of shapes ends in some other refusal, or in an empty list.
"""

import json

import pytest

import interface
from wire import complaint_problems, error_problems, success_problems

offered = pytest.mark.parametrize("name", interface.OFFERED)
BODIED = [name for name in interface.OFFERED if any(member["in"] == "body" for member in interface.OPERATIONS[name]["members"])]
INVALID = {
    name: [*interface.invalid_cases(interface.OPERATIONS[name]), *interface.several_cases(interface.OPERATIONS[name])]
    for name in interface.OFFERED
}
MISTYPED = {name: list(interface.wrong_type_cases(interface.OPERATIONS[name])) for name in interface.OFFERED}
# What says that a value's shape was refused.
SHAPE_ERRORS = ("ValidationException", "SerializationException", "InvalidRequestContentException")


@pytest.mark.parametrize("name", [name for name, wrong in INVALID.items() if wrong])
def test_calls_that_violate_a_shape_are_told_each_violation(caller, cases, name):
    with cases(name) as tally:
        for what, values in INVALID[name]:
            expected = interface.expected_complaints(interface.OPERATIONS[name], values)
            assert expected, f"{name}: {what}: the generated case violates nothing"
            tally.record(what, complaint_problems(caller.send(name, values), expected))


@offered
def test_calls_at_the_edge_of_a_shape_pass_its_checks(caller, cases, name):
    operation = interface.OPERATIONS[name]
    with cases(name) as tally:
        for what, values in interface.boundary_cases(operation):
            wrong = interface.expected_complaints(operation, values)
            assert not wrong, f"{name}: {what}: the generated case is wrong: {wrong}"
            reply = caller.send(name, values)
            if reply.status < 300:
                tally.record(what, success_problems(caller, name, reply))
                continue
            problems = error_problems(reply)
            if reply.status >= 500 or reply.error in SHAPE_ERRORS:
                problems.append(f"an allowed value was refused: {reply}")
            tally.record(what, problems)


@pytest.mark.parametrize("name", [name for name, wrong in MISTYPED.items() if wrong])
def test_values_of_the_wrong_type_are_refused(caller, cases, name):
    with cases(name) as tally:
        for what, values in MISTYPED[name]:
            reply = caller.send(name, values)
            problems = error_problems(reply)
            if (reply.status, reply.error) != (400, "SerializationException"):
                problems.append(f"expected a SerializationException, got {reply}")
            tally.record(what, problems)


def bodies():
    yield "no JSON", b"nonsense"
    yield "cut", b'{"Description": "a'
    yield "a list", b"[]"
    yield "a text", b'"text"'
    yield "two values", b"{} {}"
    yield "not UTF-8", b'{"Description": "\xff\xfe"}'
    yield "open braces", b"{" * 20000
    yield "deep lists", b'{"Unknown": ' + b"[" * 20000 + b"]" * 20000 + b"}"
    yield "deep objects", b'{"Unknown": ' + b'{"a":' * 20000 + b"1" + b"}" * 20001
    yield "a zero byte", b'{"Description": "a\x00b"}'
    yield "a member twice", b'{"Description": "a", "Description": "b"}'
    yield "an unknown member twice", b'{"Unknown": 1, "Unknown": 2}'


@pytest.mark.parametrize("name", BODIED)
def test_bodies_that_are_no_object_are_refused(caller, cases, name):
    with cases(name) as tally:
        for what, body in bodies():
            reply = caller.send(name, interface.base_input(interface.OPERATIONS[name]), body)
            problems = error_problems(reply)
            if reply.status != 400 or reply.error not in ("InvalidRequestContentException", "SerializationException"):
                problems.append(f"expected InvalidRequestContentException or SerializationException, got {reply}")
            tally.record(what, problems)


@pytest.mark.parametrize("name", BODIED)
def test_unknown_members_are_ignored(caller, cases, name):
    operation = interface.OPERATIONS[name]
    base = interface.base_input(operation)
    inside = {interface.wire_name(m): base[m["name"]] for m in operation["members"] if m["in"] == "body" and m["name"] in base}
    plain = caller.send(name, base)
    more = {
        "one": {"NoSuchMember": {"a": [1]}},
        "a megabyte": {"NoSuchMember": "x" * 1000000},
        "a thousand": {f"No{i}": i for i in range(1000)},
    }
    with cases(name) as tally:
        for what, members in more.items():
            reply = caller.send(name, base, json.dumps({**inside, **members}).encode())
            same = (reply.status, reply.error, reply.message) == (plain.status, plain.error, plain.message)
            tally.record(what, [] if same else [f"with unknown members {reply}, without {plain}"])


def test_nothing_came_into_being(caller):
    for name in ("GetFunction", "GetFunctionConfiguration"):
        assert caller.send(name, {"FunctionName": interface.NOWHERE}).error == "ResourceNotFoundException"
    reply = caller.send("ListLayerVersions", {"LayerName": interface.EXAMPLES["LayerName"]})
    assert reply.status >= 400 or reply.json["LayerVersions"] == []
    listed = caller.send("ListEventSourceMappings", {"FunctionName": interface.NOWHERE})
    assert listed.status >= 400 or listed.json["EventSourceMappings"] == []
