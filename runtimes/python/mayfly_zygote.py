"""The zygote of Mayfly's Python runtime: an interpreter with the bootstrap loaded and never any code of a function, which is forked into
sandboxes (src/sandbox/internal/zygote/order.h, docs/adr/0011-starting-from-prepared-processes.md).

Imported by mayfly_runtime.main() where the launcher says so. What a child must not share with its siblings is made anew here.
"""

import ctypes
import gc
import os
import sys

# What the interpreter sets up at the first compilation, and how it adapts code that runs often, is then in pages that all children share.
TOUCHES_BEFORE_FORK = 20
LIBRARY = "/var/runtime/native/libmayfly_zygote.so"
# What nearly every function imports, sooner or later: loaded once, shared by all. None of them holds a secret, a descriptor or a thread
# after its import; whoever adds one says below what of it must differ between children. Nothing that opens OpenSSL.
PRELOADED = (
    "base64",
    "datetime",
    "json",
    "logging",
    "random",
    "threading",
    "traceback",
    "urllib.parse",
    "uuid",
    "mayfly_runtime_extra",
)


def fork(channel):
    """Takes orders over the descriptor `channel` until the launcher is gone; returns in each child, which then is in its sandbox."""
    for name in PRELOADED:
        try:
            __import__(name)
        except ImportError:  # an interpreter may come without one
            pass
    for _ in range(TOUCHES_BEFORE_FORK):
        _touch()
    library = ctypes.PyDLL(LIBRARY)  # with the lock of the interpreter held: nothing else runs
    api = ctypes.pythonapi
    gc.collect()
    gc.freeze()  # no collection of a child writes to what all share
    api.PyOS_BeforeFork()
    library.mayfly_fork_into_sandboxes(channel)
    api.PyOS_AfterFork_Child()  # among others: seeds `random` anew, renames the main thread
    _differ()
    _touch()


def _differ():
    """What follows a fork besides that which the interpreter sees to itself."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        _open_stream(fd, name, mode)
    os.environ["_LAMBDA_TELEMETRY_LOG_FD"] = "3"
    os.environ["_MAYFLY_CONTROL_FDS"] = "4,5"
    threading = sys.modules.get("threading")
    if hasattr(threading, "main_thread") and hasattr(threading.main_thread(), "_set_native_id"):
        threading.main_thread()._set_native_id()
    logging = sys.modules.get("logging")
    started = getattr(logging, "_startTime", None)  # what LogRecord.relativeCreated counts from
    if started is not None:
        import time

        logging._startTime = time.time_ns() if isinstance(started, int) else time.time()


def _open_stream(fd, name, mode):
    """As the interpreter does when it boots: the descriptor is another one now, and what was found out about the old one does not hold."""
    old = getattr(sys, name)
    stream = open(fd, mode, encoding=old.encoding, errors=old.errors, closefd=False)
    stream.buffer.raw.name = "<%s>" % name
    stream.mode = mode
    setattr(sys, name, stream)
    setattr(sys, "__%s__" % name, stream)


def _touch():
    """Does once what every start does, so that the pages written to are the child's own before its function is known."""
    json = sys.modules["json"]
    json.dumps(json.loads('{"a": [1, 2.5, "%s"], "b": {"c": null}}' % ("x" * 1000)))
    space = {}
    exec(compile("import os\n\n\ndef handler(event, context):\n    return {'ok': [event]}\n", "<warm>", "exec"), space)
    space["handler"]({}, None)
    try:
        __import__("mayfly_no_such_module")
    except ImportError:
        pass
    sys.path_importer_cache.clear()  # the function's directories appear later
