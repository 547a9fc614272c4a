"""The first function: greets, and says where it runs."""
import logging
import platform

log = logging.getLogger()
log.setLevel(logging.INFO)
calls = 0


def handler(event, context):
    global calls
    calls += 1
    name = event.get("name", "world")
    log.info("call %d in this environment: %s", calls, name)
    return {
        "message": f"Hello, {name}, from Mayfly!",
        "python": platform.python_version(),
        "request_id": context.aws_request_id,
        "calls_in_this_environment": calls,
    }
