"""The common test handler: echoes; {"fail": true} raises; {"sleep_ms": n} sleeps."""
import time


class TestFailure(Exception):
    pass


def handler(event, context):
    print("event for", context.aws_request_id)
    if event.get("sleep_ms"):
        time.sleep(event["sleep_ms"] / 1000)
    if event.get("fail"):
        raise TestFailure("failed as asked")
    return {"echo": event, "request_id": context.aws_request_id, "function": context.function_name}
