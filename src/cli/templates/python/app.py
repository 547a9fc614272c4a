import json
import logging

log = logging.getLogger()
log.setLevel(logging.INFO)


def handler(event, context):
    """Answers a greeting, to a plain event {"name": ...} as well as to an HTTP request."""
    query = event.get("queryStringParameters") or {}
    name = event.get("name") or query.get("name") or "world"
    log.info("greeting %s, %d ms left", name, context.get_remaining_time_in_millis())
    answer = {"message": f"Hello, {name}!", "function": context.function_name, "request_id": context.aws_request_id}
    if "requestContext" in event:  # called through a function URL or an HTTP API
        return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(answer)}
    return answer
