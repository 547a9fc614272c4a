"""The parts of Mayfly's Python runtime that many functions never need: error reports, log formatting, unusual JSON."""

import os
import sys
import time

import mayfly_runtime as runtime

NO_BREAK_SPACE = "\u00a0"  # keeps the indentation of a traceback where a log viewer trims leading blanks
TEXT_FRAME = runtime.TEXT_FRAME
JSON_FRAME = 0xA55A0002
# Python level -> bits that a frame type carries for it.
LEVEL_BITS = {0: 0, 10: 8, 20: 12, 30: 16, 40: 20, 50: 24}


def json_log():
    return os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"


# ---------------------------------------------------------------------------------------------------------------- JSON


def encode_json(value, ascii_only):
    """Encodes what the C encoder would refuse or write differently from Lambda: Decimal as a number, a named tuple as an object,
    bytes as text, any key JSON allows. Raises TypeError or ValueError with the usual words."""
    import json

    text = json.encoder.encode_basestring_ascii if ascii_only else json.encoder.encode_basestring
    parts = []
    _write(value, parts.append, text, set())
    return "".join(parts)


def _write_float(value):
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return float.__repr__(value)


def _leaf(value, text):
    """The text of a value without parts, None for others."""
    if isinstance(value, str):
        return text(value)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return _write_float(value)
    if isinstance(value, bytes):
        return text(value.decode("utf-8"))
    decimal = sys.modules.get("decimal")
    if decimal is not None and isinstance(value, decimal.Decimal):
        return "NaN" if value.is_nan() else str(value)
    return None


def _write(value, put, text, open_ids):
    leaf = _leaf(value, text)
    if leaf is not None:
        put(leaf)
        return
    if id(value) in open_ids:
        raise ValueError("Circular reference detected")
    open_ids.add(id(value))
    as_dict = getattr(value, "_asdict", None) if isinstance(value, tuple) else None
    if isinstance(value, dict):
        _write_object(value, put, text, open_ids)
    elif callable(as_dict):
        _write_object(as_dict(), put, text, open_ids)
    elif isinstance(value, (list, tuple)):
        put("[")
        for index, item in enumerate(value):
            if index:
                put(", ")
            _write(item, put, text, open_ids)
        put("]")
    else:
        raise TypeError("Object of type %s is not JSON serializable" % type(value).__name__)
    open_ids.discard(id(value))


def _key(key, text):
    if isinstance(key, (str, bytes)):
        return _leaf(key, text)
    if key is None or isinstance(key, (int, float)):
        return text(_leaf(key, text))
    raise TypeError("keys must be str, int, float, bool or None, not " + type(key).__name__)


def _write_object(value, put, text, open_ids):
    put("{")
    first = True
    for key, item in value.items():
        put(("" if first else ", ") + _key(key, text) + ": ")
        first = False
        _write(item, put, text, open_ids)
    put("}")


# -------------------------------------------------------------------------------------------------------------- errors


def _frames(error):
    """The traceback without the leading frames of this runtime."""
    import traceback

    own = {__file__, runtime.__file__, os.path.join(os.path.dirname(runtime.__file__), "bootstrap.py")}
    frames = list(traceback.extract_tb(error.__traceback__))
    for index, frame in enumerate(frames):
        if frame.filename not in own and not frame.filename.startswith("<frozen importlib"):
            return frames[index:]
    return frames


def _error_body(message, kind, stack, request_id):
    return {"errorMessage": message or "", "errorType": kind or "", "requestId": request_id or "", "stackTrace": stack or []}


def describe(error, request_id):
    """Returns (error body, X-Ray cause) for anything a handler or an import raised."""
    if isinstance(error, runtime.Fault):
        body = _error_body(error.message, error.kind, error.trace, request_id)
        return body, _xray_cause("LambdaValidationError", error.message, [])
    import traceback

    frames = _frames(error)
    try:
        message = str(error)
    except Exception:
        message = "<the exception's own text could not be made>"
    kind = type(error).__name__
    stack = traceback.format_list([(f.filename, f.lineno, f.name, f.line) for f in frames])  # without the marks of 3.11 and later
    body = _error_body(message, kind, stack, request_id)
    return body, _xray_cause(kind, message, frames)


def _xray_cause(kind, message, frames):
    stack = [{"label": f.name, "path": f.filename, "line": f.lineno} for f in frames]
    cause = {
        "working_directory": os.getcwd(),
        "exceptions": [{"message": message, "type": kind, "stack": stack}],
        "paths": sorted({f.filename for f in frames}),
    }
    return encode_json(cause, True)


def _log_error(body):
    if json_log():
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        runtime.sink.log_error([encode_json(dict({"timestamp": stamp, "level": "ERROR"}, **body), runtime._ascii_output)])
        return
    head = "[ERROR]"
    if body["errorType"]:
        head += " " + body["errorType"]
    if body["errorMessage"]:
        head += (":" if body["errorType"] else "") + " " + body["errorMessage"]
    lines = [head, "Traceback (most recent call last):"]
    for element in body["stackTrace"]:
        for line in element.splitlines() or [""]:
            bare = line.lstrip(" ")
            lines.append(NO_BREAK_SPACE * (len(line) - len(bare)) + bare)
    runtime.sink.log_error(lines)


def report_invocation_error(channel, error):
    body, cause = describe(error, runtime.current_request_id())
    _log_error(body)
    runtime._flush()
    text = encode_json(body, runtime._ascii_output).encode("utf-8", "backslashreplace")
    channel.fail(body["errorType"], text, cause)


def report_init_error(channel, error):
    body, _ = describe(error, None)
    _log_error(body)
    runtime._flush()
    channel.fail_init(body["errorType"], encode_json(body, runtime._ascii_output).encode("utf-8", "backslashreplace"))


# ---------------------------------------------------------------------------------------------------------------- logs


def error_frame():
    return (JSON_FRAME if json_log() else TEXT_FRAME) | LEVEL_BITS[40]


def _level_bits(number):
    return LEVEL_BITS[min(50, max(0, number)) // 10 * 10]


# Attributes every log record has; what else is found on one was given as `extra=` by the caller.
_RECORD_FIELDS = frozenset(
    "name msg args levelname levelno pathname filename module exc_info exc_text stack_info lineno funcName created msecs "
    "relativeCreated thread threadName processName process taskName aws_request_id tenant_id".split()
)


def _make_json_formatter(logging):
    import json

    encode = json.JSONEncoder(ensure_ascii=False, default=str).encode

    class JsonFormatter(logging.Formatter):
        def format(self, record):
            level = min(50, max(0, record.levelno)) // 10 * 10
            failed = record.exc_info if record.exc_info and record.exc_info[0] else None
            fields = {
                "timestamp": self.formatTime(record, self.datefmt),
                "level": logging.getLevelName(level),
                "message": record.msg if isinstance(record.msg, dict) and not record.args else record.getMessage(),
                "logger": record.name,
            }
            if failed:
                import traceback

                fields["stackTrace"] = traceback.format_tb(failed[2])
                fields["errorType"] = failed[0].__name__
                fields["errorMessage"] = str(failed[1])
            fields["requestId"] = record.aws_request_id
            if failed:
                fields["location"] = "%s:%s:%s" % (record.pathname, record.funcName, record.lineno)
            if record.tenant_id is not None:
                fields["tenantId"] = record.tenant_id
            for name, value in record.__dict__.items():
                if name not in _RECORD_FIELDS and name not in fields and value is not None:
                    fields[name] = value
            return encode(fields) + "\n"

    return JsonFormatter(datefmt="%Y-%m-%dT%H:%M:%SZ")


def install_log_handler(logging, sink):
    """Gives the root logger the handler that Lambda gives it; `logging` is the module just imported."""
    is_json = json_log()
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    level = {"TRACE": "DEBUG"}.get(level, level)
    with_level = is_json or bool(level)
    base = JSON_FRAME if is_json else TEXT_FRAME

    class LambdaLogHandler(logging.Handler):
        def __init__(self):
            super().__init__()
            self.log_sink = sink

        def emit(self, record):
            try:
                text = self.format(record)
                self.log_sink.log(text, base | _level_bits(record.levelno) if with_level else None)
            except Exception:
                self.handleError(record)

    class LambdaLogFilter(logging.Filter):
        def filter(self, record):
            record.aws_request_id = runtime.current_request_id() or ""
            record.tenant_id = runtime.current_tenant_id()
            return True

    logging.Formatter.converter = time.gmtime
    handler = LambdaLogHandler()
    if is_json:
        handler.setFormatter(_make_json_formatter(logging))
    else:
        line = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n"
        handler.setFormatter(logging.Formatter(line, "%Y-%m-%dT%H:%M:%S"))
    handler.addFilter(LambdaLogFilter())
    root = logging.getLogger()
    if level in logging._nameToLevel:
        root.setLevel(level)
    root.addHandler(handler)
