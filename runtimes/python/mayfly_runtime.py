"""Mayfly's Lambda runtime client for Python 3.8 and later: the path every start and every invocation takes.

Start-up time is the point: only modules the interpreter has compiled in or has loaded anyway are imported here. Errors, logging and
unusual JSON live in mayfly_runtime_extra, which is imported when first needed.
Shapes of events, errors and contexts follow the public behaviour of AWS's own client (see tests/runtime_clients).
"""

import os
import sys
import time

import _socket

API = "/2018-06-01/runtime/"
RECEIVE_BYTES = 65536
HEADER_BYTES_MAX = 1 << 20
XRAY_CAUSE_BYTES_MAX = 16384  # a longer cause is left out: it would not fit the header limit of common HTTP servers

request_id = None  # of the invocation that runs, None during init; read by the log formatters
tenant_id = None
sink = None


class Fault(Exception):
    """An error this runtime found itself, with the error type that Lambda names it by."""

    def __init__(self, kind, message, trace=None):
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.trace = trace


# ---------------------------------------------------------------------------------------------------------------- JSON
# The C halves of the json module are used directly where they are there: importing json also imports re, which costs
# several milliseconds that many functions never need.


class _ScannerOptions:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = {"-Infinity": float("-inf"), "Infinity": float("inf"), "NaN": float("nan")}.__getitem__


def _make_codec(ascii_only):
    try:
        import _json

        scan = _json.make_scanner(_ScannerOptions)
        escape = _json.encode_basestring_ascii if ascii_only else _json.encode_basestring
        write = _json.make_encoder(None, _not_serialisable, escape, None, ": ", ", ", False, False, True)
        if scan('{"a":[1]} ', 0) != ({"a": [1]}, 9) or "".join(write({"a": [1, None]}, 0)) != '{"a": [1, null]}':
            raise ValueError("the C half of json does not behave as expected")
    except Exception:  # another implementation or a changed private interface: the public module does the same, slower
        import json

        return json.loads, json.JSONEncoder(ensure_ascii=ascii_only, check_circular=False).encode

    def loads(data):
        try:
            text = data.decode("utf-8").strip(" \t\n\r")
            value, end = scan(text, 0)
            if end == len(text):
                return value
        except Exception:  # StopIteration, UnicodeDecodeError, and SystemError while json.decoder is not loaded
            pass
        import json  # knows other encodings, and the usual words for what is wrong

        return json.loads(data)

    def dumps(value):
        return "".join(write(value, 0))

    return loads, dumps


def _not_serialisable(value):
    raise TypeError("Object of type %s is not JSON serializable" % type(value).__name__)


def _ascii_only():
    # Lambda writes non-ASCII text as it is since its python3.12 runtime, escaped before.
    name = os.environ.get("AWS_EXECUTION_ENV", "")
    prefix = "AWS_Lambda_python3."
    if not name.startswith(prefix) or not name[len(prefix) :].isdigit():
        return True
    return int(name[len(prefix) :]) < 12


_json_loads, _json_dumps = _make_codec(_ascii_only())
_LEAVES = frozenset((str, int, float, bool, type(None)))
_KEYS = frozenset((str,))


def _is_plain(value, depth=0):
    """True when the C encoder alone gives what Lambda gives: no Decimal, named tuple, bytes, subclass or cycle inside."""
    kind = type(value)
    if kind in _LEAVES:
        return True
    if depth > 64:
        return False
    if kind is dict:
        if not _KEYS.issuperset(map(type, value)):
            return False
        value = value.values()
    elif kind is not list and kind is not tuple:
        return False
    kinds = set(map(type, value))
    if _LEAVES.issuperset(kinds):
        return True
    for item in value:
        if type(item) not in _LEAVES and not _is_plain(item, depth + 1):
            return False
    return True


def to_json(value):
    if _is_plain(value):
        return _json_dumps(value)
    return extra().encode_json(value, _ascii_only())


class Marshaller:
    """Turns event bytes into the handler's argument and its result into response bytes."""

    def unmarshal_request(self, body, content_type):
        if content_type and not content_type.startswith("application/json"):
            return body
        try:
            return _json_loads(body)
        except Exception as error:
            raise Fault("Runtime.UnmarshalError", "Unable to unmarshal input: %s" % error)

    def marshal_response(self, value):
        if isinstance(value, bytes):
            return value, "application/unknown"
        try:
            return to_json(value).encode("utf-8"), "application/json"
        except Exception as error:
            raise Fault("Runtime.MarshalError", "Unable to marshal response: %s" % error)


# ---------------------------------------------------------------------------------------------------------------- HTTP


class Connection:
    """One keep-alive HTTP/1.1 connection to the Runtime API. Not for several threads at once."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._head = "Host: %s\r\nUser-Agent: mayfly-python/%d.%d.%d\r\n" % ((address,) + tuple(sys.version_info[:3]))
        self._next = ("GET %sinvocation/next HTTP/1.1\r\n%s\r\n" % (API, self._head)).encode()
        self._socket = None
        self._rest = b""

    def next(self):
        """Waits for an event; returns (headers with lower-case names, body)."""
        status, headers, body = self._exchange(self._next, b"")
        if status != 200:
            raise RuntimeError("the Runtime API answered %d to next: %s" % (status, bytes(body[:200])))
        return headers, body

    def post(self, path, body, content_type, headers=()):
        """Returns (status, body of the answer)."""
        lines = "".join("%s: %s\r\n" % (name, _header_safe(value)) for name, value in headers)
        head = "POST %s%s HTTP/1.1\r\n%sContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n" % (
            (API, path, self._head, content_type, len(body), lines)
        )
        status, _, answer = self._exchange(head.encode("latin-1"), body)
        return status, answer

    def _connect(self):
        host, family = self._host, _socket.AF_INET6 if ":" in self._host else _socket.AF_INET
        address = (host, self._port)
        if not host.replace(".", "").isdigit() and ":" not in host:
            family, _, _, _, address = _socket.getaddrinfo(host, self._port, 0, _socket.SOCK_STREAM)[0]
        connection = _socket.socket(family, _socket.SOCK_STREAM)
        connection.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        connection.connect(address)
        self._socket, self._rest = connection, b""

    def _exchange(self, head, body):
        for fresh in (self._socket is None, True):
            if self._socket is None:
                self._connect()
            self._answered = False
            try:
                if len(body) <= RECEIVE_BYTES:
                    self._socket.sendall(head + body)
                else:
                    self._socket.sendall(head)
                    self._socket.sendall(body)
                return self._read_response()
            except (BrokenPipeError, ConnectionResetError, EOFError):
                # A kept connection may have been closed meanwhile, and a server that refuses a body early answers and closes.
                self._close()
                if fresh or self._answered:
                    raise
        raise EOFError("no answer")

    def _close(self):
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _receive(self):
        data = self._socket.recv(RECEIVE_BYTES)
        if not data:
            raise EOFError("the Runtime API closed the connection")
        self._answered = True
        return data

    def _read_response(self):
        data = self._rest
        while True:
            end = data.find(b"\r\n\r\n")
            if end >= 0:
                break
            if len(data) > HEADER_BYTES_MAX:
                raise RuntimeError("the Runtime API sent a header of more than %d bytes" % HEADER_BYTES_MAX)
            data += self._receive()
        lines = data[:end].decode("utf-8", "surrogateescape").split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self._rest = data[end + 4 :]
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._read_chunks()
        else:
            body = self._take(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            self._close()
        return status, headers, body

    def _take(self, length):
        rest = self._rest
        if len(rest) >= length:
            self._rest = rest[length:]
            return rest[:length]
        body = bytearray(length)
        body[: len(rest)] = rest
        at, view = len(rest), memoryview(body)
        while at < length:
            count = self._socket.recv_into(view[at:])
            if count == 0:
                raise EOFError("the Runtime API cut a response short")
            at += count
        self._rest = b""
        view.release()
        return bytes(body)

    def _line(self):
        while b"\r\n" not in self._rest:
            self._rest += self._receive()
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line

    def _read_chunks(self):
        parts = []
        while True:
            length = int(self._line().split(b";")[0], 16)
            if length == 0:
                break
            parts.append(self._take(length))
            self._line()
        while self._line():
            pass
        return b"".join(parts)


def _header_safe(value):
    """Header values are latin-1 without control characters; anything else is written as a question mark."""
    text = value.encode("latin-1", "replace").decode("latin-1")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)


# ------------------------------------------------------------------------------------------------------------- context


def _object_from(kind, values):
    result = kind()
    for name in kind.__slots__:
        setattr(result, name, values.get(name))
    return result


class _Described:
    __slots__ = ()

    def __repr__(self):
        return "%s([%s])" % (type(self).__name__, ",".join("%s=%s" % (n, getattr(self, n, None)) for n in self.__slots__))


class CognitoIdentity(_Described):
    __slots__ = ["cognito_identity_id", "cognito_identity_pool_id"]


class Client(_Described):
    __slots__ = ["installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name"]


class ClientContext(_Described):
    __slots__ = ["custom", "env", "client"]


def _parse_header(text, name):
    if not text:
        return None
    try:
        return _json_loads(text.encode("utf-8", "surrogateescape"))
    except Exception as error:
        raise Fault("Runtime.LambdaContextUnmarshalError", "Unable to parse %s JSON: %s" % (name, error))


class LambdaContext:
    """The second argument of a handler."""

    def __init__(self, headers):
        get, env = headers.get, os.environ.get
        client = _parse_header(get("lambda-runtime-client-context"), "Client Context")
        identity = _parse_header(get("lambda-runtime-cognito-identity"), "Cognito Identity") or {}
        self.aws_request_id = get("lambda-runtime-aws-request-id")
        self.log_group_name = env("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = env("AWS_LAMBDA_LOG_STREAM_NAME")
        self.function_name = env("AWS_LAMBDA_FUNCTION_NAME")
        self.memory_limit_in_mb = env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.function_version = env("AWS_LAMBDA_FUNCTION_VERSION")
        self.invoked_function_arn = get("lambda-runtime-invoked-function-arn")
        self.tenant_id = get("lambda-runtime-aws-tenant-id")
        trace = client.pop("w3c", None) if isinstance(client, dict) else None
        trace = trace if isinstance(trace, dict) else {}
        self._w3c = {n: trace[n] for n in ("traceparent", "tracestate", "baggage") if isinstance(trace.get(n), str)}
        self.client_context = None
        if client is not None:
            self.client_context = _object_from(ClientContext, client)
            if self.client_context.client is not None:
                self.client_context.client = _object_from(Client, self.client_context.client)
        self.identity = CognitoIdentity()
        self.identity.cognito_identity_id = identity.get("cognitoIdentityId")
        self.identity.cognito_identity_pool_id = identity.get("cognitoIdentityPoolId")
        self._deadline_ms = int(get("lambda-runtime-deadline-ms") or 0)

    def get_remaining_time_in_millis(self):
        return max(0, self._deadline_ms - int(time.time() * 1000))

    def w3c(self):
        """The W3C trace context of the invocation, as far as the caller sent one."""
        return dict(self._w3c)

    def log(self, message):
        sink.log(str(message))

    def __repr__(self):
        names = (
            "aws_request_id log_group_name log_stream_name function_name memory_limit_in_mb function_version "
            "invoked_function_arn client_context identity tenant_id"
        )
        return "LambdaContext([%s])" % ",".join("%s=%s" % (n, getattr(self, n)) for n in names.split())


# ------------------------------------------------------------------------------------------------------- logs and errors


class StdoutSink:
    """Log lines as text on standard output; a message of several lines keeps together by carriage returns."""

    def log(self, text, frame=None):
        sys.stdout.write(text)

    def log_error(self, lines):
        sys.stdout.write("\r".join(lines) + "\n")


def _make_sink():
    for name in ("_LAMBDA_TELEMETRY_LOG_FD", "LAMBDA_TELEMETRY_LOG_FD"):
        number = os.environ.pop(name, None)
        if number is not None and number.isdigit():
            return extra().FramedSink(int(number))
    return StdoutSink()


class _LoggingWatch:
    """Import hook: gives `logging` its Lambda handler the moment somebody imports it, so that nobody else pays for it."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "logging":
            return None
        sys.meta_path.remove(_LoggingWatch)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                spec.loader = _LoggingLoader(spec.loader)
                return spec
        return None


class _LoggingLoader:
    def __init__(self, loader):
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        extra().install_log_handler(module, sink)


def extra():
    import mayfly_runtime_extra

    return mayfly_runtime_extra


def _flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # the function may have closed or replaced them; the answer matters more
            pass


# ---------------------------------------------------------------------------------------------------------------- loop


def load_handler(name):
    module_name, dot, function_name = name.rpartition(".")
    if not dot:
        raise Fault(
            "Runtime.MalformedHandlerName", "Bad handler '%s': not enough values to unpack (expected 2, got 1)" % name
        )
    if module_name.split(".")[0] in sys.builtin_module_names:
        raise Fault(
            "Runtime.BuiltInModuleConflict", "Cannot use built-in module %s as a handler module" % module_name
        )
    dotted = module_name.replace("/", ".")
    try:
        __import__(dotted)
    except ImportError as error:
        raise Fault("Runtime.ImportModuleError", "Unable to import module '%s': %s" % (module_name, error))
    except ValueError as error:
        if not dotted or dotted.startswith("."):  # "/module.function": an empty package name
            raise Fault("Runtime.ImportModuleError", "Unable to import module '%s': %s" % (module_name, error))
        raise
    except SyntaxError as error:
        place = '  File "%s" Line %s\n    %s' % (error.filename, error.lineno, error.text)
        raise Fault("Runtime.UserCodeSyntaxError", "Syntax error in module '%s': %s" % (module_name, error), [place])
    try:
        return getattr(sys.modules[dotted], function_name)
    except AttributeError:
        raise Fault(
            "Runtime.HandlerNotFound", "Handler '%s' missing on module '%s'" % (function_name, module_name)
        )


def _prepare_path():
    """Function code first, then layers, then what the platform gave; this folder last, so that nothing here hides the user's."""
    root = os.environ.get("LAMBDA_TASK_ROOT") or os.getcwd()
    here = sys.path.pop(0) if sys.path else ""
    layers = ["/opt/python/lib/python%d.%d/site-packages" % sys.version_info[:2], "/opt/python"]
    first = [root] + [p for p in layers if os.path.isdir(p)]
    sys.path[:] = first + [p for p in sys.path if p not in first and p != here] + [here]


def _prepare_streams():
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", line_buffering=True)


def _post_result(connection, headers, body, content_type):
    status, answer = connection.post(
        "invocation/%s/response" % request_id, body, content_type, _invocation_header(headers)
    )
    if status >= 300:
        sys.stderr.write(
            "The Runtime API refused the response of this invocation (HTTP %d): %s\n"
            % (status, bytes(answer[:300]).decode("utf-8", "replace").strip())
        )
        sys.stderr.flush()


def _invocation_header(headers):
    value = headers.get("lambda-runtime-invocation-id")
    return (("Lambda-Runtime-Invocation-Id", value),) if value else ()


def _serve(connection, handler, marshaller):
    global request_id, tenant_id
    environ = os.environ
    while True:
        headers, body = connection.next()
        request_id = headers.get("lambda-runtime-aws-request-id")
        tenant_id = headers.get("lambda-runtime-aws-tenant-id")
        trace = headers.get("lambda-runtime-trace-id")
        if trace:
            environ["_X_AMZN_TRACE_ID"] = trace
        else:
            environ.pop("_X_AMZN_TRACE_ID", None)
        try:
            context = LambdaContext(headers)
            event = marshaller.unmarshal_request(body, headers.get("content-type"))
            body = None
            result, content_type = marshaller.marshal_response(handler(event, context))
        except Exception as error:
            extra().report_invocation_error(connection, error, _invocation_header(headers))
        else:
            _flush()
            _post_result(connection, headers, result, content_type)
            result = None
        event = context = None


def main():
    global sink
    address = os.environ.get("AWS_LAMBDA_RUNTIME_API")
    if not address:
        sys.exit("AWS_LAMBDA_RUNTIME_API is not set: this program runs inside a Lambda environment, which names the Runtime API there.")
    _prepare_path()
    _prepare_streams()
    sink = _make_sink()
    if "logging" in sys.modules:
        extra().install_log_handler(sys.modules["logging"], sink)
    else:
        sys.meta_path.insert(0, _LoggingWatch)
    connection = Connection(address)
    try:
        handler = load_handler(os.environ.get("_HANDLER", ""))
    except Exception as error:
        extra().report_init_error(connection, error)
        _flush()
        sys.exit(1)
    _serve(connection, handler, Marshaller())
