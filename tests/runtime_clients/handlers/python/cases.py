"""Handlers for one comparison each: what awslambdaric does with them, Mayfly's runtime must do too."""
import collections
import datetime
import decimal
import logging
import os
import sys

Point = collections.namedtuple("Point", "x y")


def echo(event, context):
    return event


def context(event, context):
    c = context
    client = c.client_context
    return {
        "ids": [c.aws_request_id, c.invoked_function_arn, c.tenant_id],
        "env": [c.function_name, c.function_version, c.memory_limit_in_mb, c.log_group_name, c.log_stream_name],
        "identity": [c.identity.cognito_identity_id, c.identity.cognito_identity_pool_id],
        "client": client and [client.custom, client.env, client.client and client.client.app_title],
        "left": 0 < c.get_remaining_time_in_millis() <= 3000,
        "trace": os.environ.get("_X_AMZN_TRACE_ID"),
        "repr": repr(c)[:16],
        "w3c": c.w3c(),
    }


def odd_values(event, context):
    return {
        "decimal": decimal.Decimal("1.10"),
        "nan": decimal.Decimal("NaN"),
        "point": Point(1, "ü"),
        "tuple": (1, 2),
        "bytes": b"text",
        1: "int key",
        None: "none key",
        True: "bool key",
        1.5: "float key",
        "inf": float("-inf"),
        "ordered": collections.OrderedDict(a=1),
        "deep": [[[[]]]],
        "emoji": "\U0001f600",
        "control": "\x00\x7f\u2028",
        "big": 10**30,
        "small": 1e-7,
    }


def returns_bytes(event, context):
    return b"\x00\xffraw"


def returns_none(event, context):
    return None


def returns_date(event, context):
    return {"when": datetime.date(2020, 1, 1)}


def returns_set(event, context):
    return {1, 2}


def returns_cycle(event, context):
    cycle = []
    cycle.append(cycle)
    return cycle


def bad_key(event, context):
    return {(1, 2): 3}


def bad_bytes(event, context):
    return {"b": b"\xff"}


async def coroutine(event, context):
    return 1


def raises(event, context):
    raise ValueError("bad thing: ü")


def raises_empty(event, context):
    raise KeyError()


def raises_chained(event, context):
    try:
        int("x")
    except ValueError as error:
        raise RuntimeError("outer") from error


def raises_import(event, context):
    import there_is_no_such_module  # noqa: F401


def raises_multiline(event, context):
    raise RuntimeError("first\nsecond")


def recursion(event, context):
    return recursion(event, context)


def exits(event, context):
    sys.exit(event.get("code", 0))


def os_exits(event, context):
    os._exit(3)


def prints(event, context):
    print("one line")
    print("no end", end="")
    sys.stderr.write("to stderr\n")
    return 1


def logs(event, context):
    log = logging.getLogger()
    log.debug("debug")
    log.info("info")
    log.warning("warning %s", "argument")
    log.error("two\nlines")
    try:
        raise ValueError("caught")
    except ValueError:
        log.exception("with traceback")
    logging.getLogger("named.logger").critical("critical", extra={"more": {"a": decimal.Decimal(1)}})
    log.warning({"a": "dict"})
    context.log("plain text\n")
    return logging.getLevelName(log.level)


def basic_config(event, context):
    logging.basicConfig(level=logging.INFO)  # does nothing: the root logger has a handler
    logging.info("info")
    return len(logging.getLogger().handlers)


not_callable = 5
