"""Operations Mayfly does not offer say so by name: never a success, never a fault of the server."""

import pytest

import interface
from wire import error_problems


@pytest.mark.parametrize("name", sorted(interface.NOT_SUPPORTED))
def test_an_operation_that_is_not_offered_names_itself(caller, cases, name):
    operation = interface.OPERATIONS[name]
    with cases(name) as tally:
        for what, body in (("as the model has it", None), ("with an empty body", b""), ("with a body that is no JSON", b"{")):
            reply = caller.send(name, interface.base_input(operation), body)
            problems = error_problems(reply)
            if (reply.status, reply.error) != (400, "UnsupportedOperationException") or name not in (reply.message or ""):
                problems.append(f"expected UnsupportedOperationException naming the operation, got {reply}")
            tally.record(what, problems)
