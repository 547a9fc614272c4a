"""Mayfly's Lambda runtime for Python 3.8 and later: the path every start and every invocation takes.

Start-up time is the point: only modules the interpreter has compiled in or has loaded anyway are imported here. Errors, logging and
unusual JSON live in mayfly_runtime_extra, which is imported when first needed.
Shapes of events, errors and contexts follow the public behaviour of AWS's own client (see tests/runtime_clients).
"""

import os
import sys
import time

from _struct import Struct

API = "/2018-06-01/runtime/"
RECEIVE_BYTES = 65536
HEADER_BYTES_MAX = 1 << 20
TEXT_FRAME = 0xA55A0003
TRACE_BYTES_MAX = 1000  # longer ones are set as os.environ would
TRACES_BEFORE_ENTRY = 100  # importing ctypes costs as much as hundreds of invocations
XRAY_CAUSE_BYTES_MAX = 16384  # a longer cause is left out: it would not fit the header limit of common HTTP servers

sink = None
_read, _write = os.read, os.write


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
            text = data.decode()
            value, end = scan(text, 0)
            if end == len(text):
                return value
        except Exception:  # StopIteration, UnicodeDecodeError, and SystemError while json.decoder is not loaded
            pass
        import json  # takes white space around it, knows other encodings, and the usual words for what is wrong

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


_json_loads = _json_dumps = None  # made once the function is known
_ascii_output = True
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
        if len(value) <= 4:  # cheaper than sets are
            for key, item in value.items():
                if type(key) is not str or type(item) not in _LEAVES and not _is_plain(item, depth + 1):
                    return False
            return True
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
    return extra().encode_json(value, _ascii_output)


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


# ------------------------------------------------------------------------------------------------------------- channels
# Two ways to the platform, with the same methods: frames over the control pipes (docs/formats/framed-protocol.md), and the Runtime API
# over HTTP where there are no pipes. next() returns (trace id, event, content type or None, head, whether the caller gave context); what
# most handlers never ask is kept as it came, in the head, and read from it by details(head): (request id, ARN, deadline in ms, client
# context, Cognito identity, tenant id).

HELLO, READY, INIT_ERROR, RESPONSE, ERROR, INIT, INVOKE, REFUSED = 1, 2, 3, 4, 5, 16, 17, 19
_HEAD = Struct("<3I")  # length of the body, type, run
_INVOKE = Struct("<3Iq5I")  # head, deadline, lengths of the five texts
_HEAD_BYTES, _INVOKE_BYTES = _HEAD.size, _INVOKE.size
_unpack_head, _unpack_invoke, _pack_head = _HEAD.unpack_from, _INVOKE.unpack_from, _HEAD.pack


class Pipes:
    """Frames over two pipes. One run at a time."""

    def __init__(self, fd_in, fd_out):
        self._in, self._out = fd_in, fd_out
        os.set_inheritable(fd_in, False)
        os.set_inheritable(fd_out, False)
        self._run = 0
        self._rest = b""

    def _frame(self):
        """The next whole frame, head included."""
        data = self._rest or _read(self._in, RECEIVE_BYTES)
        while len(data) < _HEAD_BYTES:
            data += self._more(RECEIVE_BYTES)
        end = _unpack_head(data)[0] + _HEAD_BYTES
        if len(data) == end:
            self._rest = b""
            return data
        if len(data) < end:
            whole = bytearray(data)
            while len(whole) < end:
                whole += self._more(end - len(whole))
            data = bytes(whole)
        self._rest = data[end:]
        return data[:end]

    def _more(self, most):
        data = _read(self._in, min(most, 1 << 20))
        if not data:
            raise EOFError("the platform closed the control pipe")
        return data

    def _send(self, kind, run, body):
        if len(body) <= RECEIVE_BYTES:
            data = _pack_head(len(body), kind, run) + body
            sent = _write(self._out, data)
            if sent == len(data):
                return
        else:
            data = (_pack_head(len(body), kind, run), body)
            sent = os.writev(self._out, data)
            if sent == len(body) + _HEAD_BYTES:
                return
            data = b"".join(data)
        left = memoryview(data)[sent:]
        while left:
            left = left[_write(self._out, left) :]

    def begin(self):
        """Says hello and waits until it is known which function this is; the variables and all that follows from them are set then."""
        client = "mayfly-python/%d.%d.%d" % tuple(sys.version_info[:3])
        self._send(HELLO, 0, Struct("<2I").pack(1, 0) + client.encode())
        data = self._frame()
        (_, kind, _, _, replaces) = Struct("<5I").unpack_from(data)
        if kind != INIT:
            raise RuntimeError("the platform sent a frame of type %d instead of INIT" % kind)
        if not replaces & 1:
            return
        at = _HEAD_BYTES + 32
        texts = []
        directory, at = _text_at(data, at)
        count, at = int.from_bytes(data[at : at + 4], "little"), at + 4
        for _ in range(count):
            text, at = _text_at(data, at)
            texts.append(text)
        _become(texts, directory)

    def ready(self):
        self._send(READY, 0, b"")

    def next(self):
        while True:
            data = self._frame()
            kind = _unpack_head(data)[1]
            if kind == INVOKE:
                break
            if kind == REFUSED:
                _note_refusal("response", data[_HEAD_BYTES:])
        _, _, self._run, _, request_id, arn, trace, client, identity = _unpack_invoke(data)
        begin = _INVOKE_BYTES + request_id + arn
        trace += begin
        end = trace + client + identity
        return data[begin:trace], data[end:], None, data[:end], client or identity

    @staticmethod
    def details(head):
        _, _, _, deadline, *lengths = _unpack_invoke(head)
        texts, at = [], _INVOKE_BYTES
        for length in lengths:
            texts.append(head[at : at + length])
            at += length
        request_id, arn, _, client, identity = texts
        return str(request_id, "utf-8", "replace"), str(arn, "utf-8", "replace"), deadline, client, identity, None

    def answer(self, body, content_type):
        self._send(RESPONSE, self._run, body)

    def fail(self, kind, document, cause):
        self._send(ERROR, self._run, _error_frame(kind, document))

    def fail_init(self, kind, document):
        self._send(INIT_ERROR, 0, _error_frame(kind, document))


def _text_at(data, at):
    end = at + 4 + int.from_bytes(data[at : at + 4], "little")
    return data[at + 4 : end], end


def _error_frame(kind, document):
    name = kind.encode("utf-8", "replace")[:1024]
    return len(name).to_bytes(4, "little") + name + document


def _note_refusal(what, reason):
    sys.stderr.write("The platform refused the %s of this invocation: %s\n" % (what, bytes(reason[:300]).decode("utf-8", "replace").strip()))
    sys.stderr.flush()


def _become(variables, directory):
    """Makes this process, booted ahead of time, that of a function: what a fresh one has from its start."""
    stale = os.environ.get("PYTHONPATH", "").split(":")
    coerced = os.environ.get("LC_CTYPE")  # by the interpreter when it booted (PEP 538), where the function does not say it
    os.environ.clear()
    if coerced is not None:
        os.environ["LC_CTYPE"] = coerced
    for variable in variables:
        name, _, value = variable.partition(b"=")
        os.environb[name] = value
    here, rest = sys.path[:1], [p for p in sys.path[1:] if p not in stale]
    sys.path[:] = here + [p for p in os.environ.get("PYTHONPATH", "").split(":") if p] + rest
    time.tzset()
    os.chdir(directory)


class Connection:
    """One keep-alive HTTP/1.1 connection to the Runtime API. Not for several threads at once."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._head = "Host: %s\r\nUser-Agent: mayfly-python/%d.%d.%d\r\n" % ((address,) + tuple(sys.version_info[:3]))
        self._next = ("GET %sinvocation/next HTTP/1.1\r\n%s\r\n" % (API, self._head)).encode()
        self._socket = None
        self._request_id = self._invocation_id = None
        self._rest = b""

    def begin(self):
        pass

    ready = begin

    def next(self):
        status, headers, body = self._exchange(self._next, b"")
        if status != 200:
            raise RuntimeError("the Runtime API answered %d to next: %s" % (status, bytes(body[:200])))
        get = headers.get
        self._request_id = get("lambda-runtime-aws-request-id")
        self._invocation_id = get("lambda-runtime-invocation-id")
        trace = get("lambda-runtime-trace-id", "").encode("utf-8", "surrogateescape")
        has_context = get("lambda-runtime-client-context") or get("lambda-runtime-cognito-identity")
        return trace, body, get("content-type"), headers, has_context

    @staticmethod
    def details(headers):
        get = headers.get
        return (
            get("lambda-runtime-aws-request-id"),
            get("lambda-runtime-invoked-function-arn"),
            int(get("lambda-runtime-deadline-ms") or 0),
            get("lambda-runtime-client-context", "").encode("utf-8", "surrogateescape"),
            get("lambda-runtime-cognito-identity", "").encode("utf-8", "surrogateescape"),
            get("lambda-runtime-aws-tenant-id"),
        )

    def answer(self, body, content_type):
        status, answer = self.post("invocation/%s/response" % self._request_id, body, content_type, self._own_headers())
        if status >= 300:
            _note_refusal("response", b"HTTP %d: %s" % (status, answer[:300]))

    def fail(self, kind, document, cause):
        headers = self._own_headers() + (("Lambda-Runtime-Function-Error-Type", kind),)
        if len(cause) <= XRAY_CAUSE_BYTES_MAX:
            headers += (("Lambda-Runtime-Function-XRay-Error-Cause", cause),)
        status, answer = self.post("invocation/%s/error" % self._request_id, document, "application/json", headers)
        if status >= 300:
            _note_refusal("error", b"HTTP %d: %s" % (status, answer[:300]))

    def fail_init(self, kind, document):
        self.post("init/error", document, "application/json", (("Lambda-Runtime-Function-Error-Type", kind),))

    def _own_headers(self):
        return (("Lambda-Runtime-Invocation-Id", self._invocation_id),) if self._invocation_id else ()

    def post(self, path, body, content_type, headers=()):
        """Returns (status, body of the answer)."""
        lines = "".join("%s: %s\r\n" % (name, _header_safe(value)) for name, value in headers)
        head = "POST %s%s HTTP/1.1\r\n%sContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n" % (
            (API, path, self._head, content_type, len(body), lines)
        )
        status, _, answer = self._exchange(head.encode("latin-1"), body)
        return status, answer

    def _connect(self):
        import _socket

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


def _parse_text(text, name):
    try:
        return _json_loads(text)
    except Exception as error:
        raise Fault("Runtime.LambdaContextUnmarshalError", "Unable to parse %s JSON: %s" % (name, error))


def _client_context(context, text):
    client = _parse_text(text, "Client Context")
    trace = client.pop("w3c", None) if isinstance(client, dict) else None
    trace = trace if isinstance(trace, dict) else {}
    context._w3c = {n: trace[n] for n in ("traceparent", "tracestate", "baggage") if isinstance(trace.get(n), str)}
    if client is None:
        return None
    made = _object_from(ClientContext, client)
    if made.client is not None:
        made.client = _object_from(Client, made.client)
    return made


def _function_facts():
    """What every context says of the function, from the variables the process started with."""
    get = os.environ.get
    return {
        "log_group_name": get("AWS_LAMBDA_LOG_GROUP_NAME"),
        "log_stream_name": get("AWS_LAMBDA_LOG_STREAM_NAME"),
        "function_name": get("AWS_LAMBDA_FUNCTION_NAME"),
        "memory_limit_in_mb": get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
        "function_version": get("AWS_LAMBDA_FUNCTION_VERSION"),
    }


class _Attributes:
    __slots__ = ("_head", "__dict__")


_attributes_of = _Attributes.__dict__["__dict__"].__get__


class LambdaContext(_Attributes):
    """The second argument of a handler. Its attributes are made when the first of them is looked at: many handlers never do."""

    _w3c = {}

    def __init__(self, head):
        self._head = head  # None once the attributes are there

    def _fill(self):
        head, self._head = self._head, None
        made = dict(_facts)
        made["aws_request_id"], made["invoked_function_arn"], made["_deadline_ms"], client, identity, made["tenant_id"] = _channel.details(head)
        made["client_context"] = _client_context(self, client) if client else None
        made["identity"] = CognitoIdentity()
        identity = _parse_text(identity, "Cognito Identity") or {} if identity else {}
        made["identity"].cognito_identity_id = identity.get("cognitoIdentityId")
        made["identity"].cognito_identity_pool_id = identity.get("cognitoIdentityPoolId")
        attributes = _attributes_of(self)
        made.update(attributes)  # the handler may have set some already
        attributes.update(made)

    def __getattr__(self, name):  # asked only for what is not there
        if name == "_head" or self._head is None:  # a copy under construction has not even that
            raise AttributeError("%r object has no attribute %r" % (type(self).__name__, name))
        self._fill()
        return getattr(self, name)

    def __delattr__(self, name):
        if self._head is not None:
            self._fill()
        super().__delattr__(name)

    @property
    def __dict__(self):
        if self._head is not None:
            self._fill()
        return _attributes_of(self)

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


class FramedSink:
    """Log records as frames {type, length, microseconds, text}, big-endian, on a descriptor given by the platform."""

    def __init__(self, fd):
        self._fd = fd
        os.set_inheritable(fd, False)

    def log(self, text, frame=None):
        data = text.encode("utf-8", "backslashreplace")
        stamp = time.time_ns() // 1000
        left = (frame or TEXT_FRAME).to_bytes(4, "big") + len(data).to_bytes(4, "big") + stamp.to_bytes(8, "big") + data
        while left:
            left = left[os.write(self._fd, left) :]

    def log_error(self, lines):
        self.log("\n".join(lines), extra().error_frame())


def _make_sink():
    for name in ("_LAMBDA_TELEMETRY_LOG_FD", "LAMBDA_TELEMETRY_LOG_FD"):
        number = os.environ.pop(name, None)
        if number is not None and number.isdigit():
            return FramedSink(int(number))
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
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        return
    except Exception:
        pass
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


def _trace_setter():
    """Returns a function that sets _X_AMZN_TRACE_ID to bytes as os.environ would, without decoding and encoding them again."""
    name, environ = b"_X_AMZN_TRACE_ID", os.environ
    data = getattr(environ, "_data", None)
    if type(data) is not dict or os.name != "posix" or os.environb._data is not data:
        return lambda value: os.environb.__setitem__(name, value)

    # The C library's setenv() keeps every value it ever saw, so an environment would grow with each invocation and search ever longer.
    # Values are written over each other instead, in an entry that belongs to this module.
    entry = latest = None
    in_place = False  # the environment has the entry, as long as the function did not set another one
    before_entry = TRACES_BEFORE_ENTRY if "ctypes" not in sys.modules else 0
    at = len(name) + 1
    pack_value = Struct("%ds" % (TRACE_BYTES_MAX + 1)).pack_into  # with zeros behind it

    def set_trace(value):
        nonlocal before_entry, entry, in_place, latest
        if in_place and data.get(name) is latest and len(value) <= TRACE_BYTES_MAX:
            pack_value(entry, at, value)
        elif before_entry > 0 or len(value) > TRACE_BYTES_MAX:
            before_entry -= 1
            in_place = False
            os.putenv(name, value)
        else:
            import ctypes

            if entry is None:
                entry = bytearray(name + b"=" + bytes(TRACE_BYTES_MAX + 1))
            pack_value(entry, at, value)
            if ctypes.CDLL(None).putenv(ctypes.byref(ctypes.c_char.from_buffer(entry))) != 0:
                raise MemoryError()
            in_place = True
        data[name] = latest = value

    return set_trace


def current_request_id():
    """Of the invocation that runs or ran last, None during init."""
    return None if _current is None else _channel.details(_current)[0]


def current_tenant_id():
    return None if _current is None else _channel.details(_current)[5]


_channel = _facts = None
_current = None  # the head of the invocation that runs or ran last


def _serve(channel, handler, marshaller):
    global _channel, _facts, _current
    _channel, _facts, set_trace = channel, _function_facts(), _trace_setter()
    receive, unmarshal, marshal = channel.next, marshaller.unmarshal_request, marshaller.marshal_response
    while True:
        trace, body, content_type, _current, has_caller_context = receive()
        if trace:
            set_trace(trace)
        else:
            os.environ.pop("_X_AMZN_TRACE_ID", None)
        try:
            context = LambdaContext(_current)
            if has_caller_context:
                context._fill()  # what is wrong with it is told before the handler runs
            event = unmarshal(body, content_type)
            body = None
            result, content_type = marshal(handler(event, context))
        except Exception as error:
            extra().report_invocation_error(channel, error)
        else:
            _flush()
            channel.answer(result, content_type)
        event = context = result = body = None


def _open_channel():
    """The control pipes where the platform gave them and they have come through to here, else the Runtime API."""
    numbers = os.environ.pop("_MAYFLY_CONTROL_FDS", "").split(",")
    if len(numbers) == 2 and all(number.isdigit() for number in numbers):
        ends = [int(number) for number in numbers]
        try:
            if all(os.fstat(end).st_mode & 0o170000 == 0o010000 for end in ends):
                return Pipes(*ends)
        except OSError:  # a wrapper program has closed them
            pass
    address = os.environ.get("AWS_LAMBDA_RUNTIME_API")
    if not address:
        sys.exit("AWS_LAMBDA_RUNTIME_API is not set: this program runs inside a Lambda environment, which names the Runtime API there.")
    return Connection(address)


def main():
    global sink, _ascii_output, _json_loads, _json_dumps
    orders = os.environ.pop("_MAYFLY_ZYGOTE", None)
    if orders is not None:
        import mayfly_zygote

        mayfly_zygote.fork(int(orders))
    channel = _open_channel()
    sink = _make_sink()
    _prepare_streams()
    channel.begin()
    _ascii_output = _ascii_only()
    _json_loads, _json_dumps = _make_codec(_ascii_output)
    _prepare_path()
    if "logging" in sys.modules:
        extra().install_log_handler(sys.modules["logging"], sink)
    else:
        sys.meta_path.insert(0, _LoggingWatch)
    try:
        handler = load_handler(os.environ.get("_HANDLER", ""))
    except Exception as error:
        extra().report_init_error(channel, error)
        _flush()
        sys.exit(1)
    channel.ready()
    _serve(channel, handler, Marshaller())
