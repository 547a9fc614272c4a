"""Calls of functions: scenarios written after the names and keys of the recorded cases of test_lambda and test_lambda_common."""

import base64
import re
import time
import uuid

from replay import RECORDED, SCENARIOS, UUID, eventually, log_lines, opened, replays, zipped

CALLS = "test_lambda/"
COMMON = "test_lambda_common/TestLambdaRuntimesCommon::"

VERSIONED = """
def handler(event, context):
    return {"version_id": "%s", "invoked_arn": context.invoked_function_arn, "version_from_ctx": context.function_version}
"""
ECHO = "import json\ndef handler(event, context):\n    print(json.dumps(event))\n    return event\n"
CONTEXT = """
import json, logging
logging.getLogger().setLevel(logging.INFO)
def handler(event, context):
    print("Lambda log message - print function")
    logging.info("Lambda log message - logging module")
    if isinstance(event, dict) and event.get("raise_error"):
        raise Exception("Test exception (this is intentional)")
    return {"event": event, "context": {
        "invoked_function_arn": context.invoked_function_arn, "function_version": context.function_version, "function_name": context.function_name,
        "memory_limit_in_mb": context.memory_limit_in_mb, "aws_request_id": context.aws_request_id, "log_group_name": context.log_group_name,
        "log_stream_name": context.log_stream_name, "client_context": context.client_context}}
"""


def versioned(text):
    return zipped({"handler.py": VERSIONED % text})


@replays(CALLS + "TestLambdaAliases::test_lambda_alias_moving")
def alias_moves(world, recorded):
    client, name = world.client, world.name()
    recorded.match("create_response", world.create(name, Code={"ZipFile": versioned("version1")}, Description="No version :("))
    world.active(name)
    client.publish_version(FunctionName=name, Description="First version description :)")
    recorded.match("create_alias_response", client.create_alias(FunctionName=name, FunctionVersion="1", Name="alias1"))
    recorded.match("invocation_result_qualifier_v1", world.invoke(name, b"{}", Qualifier="alias1"))
    recorded.match("invocation_result_qualifier_v1_arn", world.invoke(world.arn(name, "alias1"), b"{}"))
    recorded.match(
        "invocation_exc_not_existent", world.error(client.invoke, FunctionName=name, Qualifier="non-existent-alias", Payload=b"{}")
    )
    recorded.match("update_lambda_response", client.update_function_code(FunctionName=name, ZipFile=versioned("version2")))
    world.updated(name)
    recorded.match("invocation_result_qualifier_v1_after_update", world.invoke(name, b"{}", Qualifier="alias1"))
    recorded.match("second_publish_response", client.publish_version(FunctionName=name, Description="Second version description :)"))
    recorded.match("invocation_result_qualifier_v1_after_publish", world.invoke(name, b"{}", Qualifier="alias1"))
    recorded.match("update_alias_response", client.update_alias(FunctionName=name, Name="alias1", FunctionVersion="2"))
    recorded.match("invocation_result_qualifier_v2", world.invoke(name, b"{}", Qualifier="alias1"))


@replays(CALLS + "TestLambdaVersions::test_lambda_versions_with_code_changes")
def versions_with_code(world, recorded):
    client, name = world.client, world.name()
    recorded.match("create_response", world.create(name, Code={"ZipFile": versioned("version1")}, Description="No version :("))
    world.active(name)
    first = client.publish_version(FunctionName=name, Description="First version description :)")
    recorded.match("first_publish_response", first)
    recorded.match("invocation_result_v1", world.invoke(first["FunctionArn"], b"{}"))
    recorded.match("update_lambda_response", client.update_function_code(FunctionName=name, ZipFile=versioned("version2")))
    world.updated(name)
    recorded.match("invocation_result_latest", world.invoke(name, b"{}"))
    second = client.publish_version(FunctionName=name, Description="Second version description :)")
    recorded.match("second_publish_response", second)
    recorded.match("invocation_result_v2", world.invoke(second["FunctionArn"], b"{}"))
    third = client.update_function_code(FunctionName=name, ZipFile=versioned("version3"), Publish=True)
    recorded.match("update_lambda_response_with_publish", third)
    world.updated(name)
    client.get_waiter("function_active_v2").wait(FunctionName=third["FunctionArn"], WaiterConfig={"Delay": 0.03})
    recorded.match("invocation_result_v1_end", world.invoke(first["FunctionArn"], b"{}"))
    recorded.match("invocation_result_v2_end", world.invoke(second["FunctionArn"], b"{}"))
    recorded.match("invocation_result_v3", world.invoke(third["FunctionArn"], b"{}"))
    recorded.match("invocation_result_latest_end", world.invoke(name, b"{}"))


@replays(CALLS + "TestLambdaVersions::test_lambda_handler_update")
def handler_changes(world, recorded):
    client, name = world.client, world.name()
    source = "def handler(event, context):\n    return {'handler': 'handler'}\ndef handler_two(event, context):\n    return {'handler': 'handler_two'}\n"
    world.create(name, source, wrapped=True)
    world.active(name)
    recorded.match("invoke_result_handler_one", world.invoke(name, b"{}"))
    recorded.match(
        "update_function_configuration_result", client.update_function_configuration(FunctionName=name, Handler="handler.handler_two")
    )
    world.updated(name)
    recorded.match("get_function_result", client.get_function(FunctionName=name))
    recorded.match("invoke_result_handler_two", world.invoke(name, b"{}"))
    client.publish_version(FunctionName=name)
    recorded.match("invoke_result_handler_two_postpublish", world.invoke(name, b"{}"))


@replays(CALLS + "TestLambdaVersions::test_function_update_during_invoke")
def update_during_a_call(world, recorded):
    import threading

    client, name = world.client, world.name()
    source = """
import os, time
def handler(event, context):
    time.sleep(event["sleep"])
    return {"request_prefix": event["prefix"], "request_id": context.aws_request_id, "function_version": context.function_version,
            "function_variant": os.environ["VARIANT"]}
"""
    world.create(name, source, Timeout=10, Environment={"Variables": {"VARIANT": "variant-1"}})
    world.active(name)
    world.invoke(name, b'{"sleep": 0, "prefix": "0"}')  # so that an environment is there: how long one takes is not the matter here
    answers = []
    calling = threading.Thread(target=lambda: answers.append(world.invoke(name, b'{"sleep": 1, "prefix": "1-sleep"}')))
    calling.start()
    time.sleep(0.5)
    client.update_function_configuration(FunctionName=name, Environment={"Variables": {"VARIANT": "variant-2"}})
    world.updated(name)
    after = world.invoke(name, b'{"sleep": 0, "prefix": "2"}')
    calling.join()
    recorded.match("invoke_response_before", answers[0])
    if after["Payload"].get("function_variant") != "variant-2":
        recorded.say("a call after the update", "variant-2", after["Payload"])


@replays(CALLS + "TestLambdaBehavior::test_lambda_cache_local[*]")
def memory_lasts(world, recorded, language):
    name = world.name()
    if language == "python":
        world.create(
            name, "counter = -1\ndef handler(event, context):\n    global counter\n    counter += 1\n    return {'counter': counter}\n"
        )
    else:
        code = zipped({"handler.js": "let counter = -1;\nexports.handler = async () => ({counter: ++counter});\n"})
        world.create(name, Runtime="nodejs20.x", Code={"ZipFile": code})
    world.active(name)
    recorded.match("first_invoke_result", world.invoke(name))
    recorded.match("second_invoke_result", world.invoke(name))


@replays(CALLS + "TestLambdaBehavior::test_lambda_invoke_no_timeout")
def within_its_time(world, recorded):
    name = world.name()
    recorded.match(
        "create-result",
        world.create(name, "import time\ndef handler(event, context):\n    time.sleep(event['sleep'])\n", wrapped=True, Timeout=2),
    )
    world.active(name)
    recorded.match("invoke-result", world.invoke(name, b'{"sleep": 0.2}'))


@replays(CALLS + "TestLambdaBehavior::test_lambda_invoke_timed_out_environment_reuse")
def beyond_its_time(world, recorded):
    name = world.name()
    source = """
import time
number = 0
def handler(event, context):
    global number
    if "read_number" in event:
        return {"number": number}
    if "set_number" in event:
        number = event["set_number"]
    if "write_content" in event:
        open("/tmp/temp-file", "w").write(event["write_content"])
    if "read_file" in event:
        try:
            return {"content": open("/tmp/temp-file").read()}
        except FileNotFoundError:
            return {"content": None}
    time.sleep(event.get("sleep", 0))
"""
    recorded.match("create-result", world.create(name, source, wrapped=True, Timeout=1))
    world.active(name)
    recorded.match("invoke-result-file-write", world.invoke(name, b'{"write_content": "some-content"}'))
    recorded.match("invoke-result-file-read", world.invoke(name, b'{"read_file": true}'))
    recorded.match("invoke-result-set-number", world.invoke(name, b'{"set_number": 42}'))
    recorded.match("invoke-result-read-number", world.invoke(name, b'{"read_number": true}'))
    late = world.invoke(name, b'{"sleep": 3}')["Payload"]
    if late.get("errorType") != "Sandbox.Timedout" or not re.fullmatch(
        rf"RequestId: {UUID} Error: Task timed out after 1.00 seconds", late["errorMessage"]
    ):
        recorded.say(
            "what a call that took too long is told", "Sandbox.Timedout, RequestId: … Error: Task timed out after 1.00 seconds", late
        )
    recorded.match("invoke-result-read-number-after-timeout", world.invoke(name, b'{"read_number": true}'))
    assert world.invoke(name, b'{"read_file": true}')["Payload"] == {"content": None}


@replays(CALLS + "TestLambdaBehavior::test_mixed_architecture")
def another_architecture(world, recorded):
    name = world.name()
    recorded.match("create_function_response", world.create(name, wrapped=True))
    world.active(name)
    code = zipped({"handler.py": ECHO})
    recorded.match(
        "update_function_code_response",
        world.error(world.client.update_function_code, FunctionName=name, ZipFile=code, Architectures=["arm64"]),
    )


@replays(CALLS + "TestLambdaCleanup::test_recreate_function")
def made_again(world, recorded):
    name = world.name()
    recorded.match(
        "create_function_response_one",
        world.create(name, wrapped=True, Handler="lambda_echo.handler", Code={"ZipFile": zipped({"lambda_echo.py": ECHO})}),
    )
    world.active(name)
    world.client.delete_function(FunctionName=name)
    recorded.match(
        "create_function_response_two",
        world.create(name, wrapped=True, Handler="lambda_echo.handler", Code={"ZipFile": zipped({"lambda_echo.py": ECHO})}),
    )


@replays(CALLS + "TestLambdaConcurrency::test_provisioned_concurrency")
def provisioned(world, recorded):
    client, name = world.client, world.name()
    world.create(name, Publish=True)
    world.active(name)
    of_version = {"FunctionName": name, "Qualifier": "1"}
    recorded.match("put_provisioned_5", client.put_provisioned_concurrency_config(ProvisionedConcurrentExecutions=5, **of_version))
    recorded.match("get_provisioned_prewait", client.get_provisioned_concurrency_config(**of_version))
    eventually(lambda: client.get_provisioned_concurrency_config(**of_version)["Status"] == "READY", 30)
    recorded.match("get_provisioned_postwait", client.get_provisioned_concurrency_config(**of_version))


@replays(CALLS + "TestLambdaConcurrency::test_lambda_provisioned_concurrency_scheduling")
def provisioned_called(world, recorded):
    client, name = world.client, world.name()
    source = "import os\ndef handler(event, context):\n    return os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']\n"
    world.create(name, source, Publish=True)
    world.active(name)
    of_version = {"FunctionName": name, "Qualifier": "1"}
    client.put_provisioned_concurrency_config(ProvisionedConcurrentExecutions=1, **of_version)
    eventually(lambda: client.get_provisioned_concurrency_config(**of_version)["Status"] == "READY", 30)
    recorded.match("get_provisioned_postwait", client.get_provisioned_concurrency_config(**of_version))
    for qualifier, kind in (("1", '"provisioned-concurrency"'), ("$LATEST", '"on-demand"')):
        got = world.invoke(name, Qualifier=qualifier)["Payload"]
        if got != kind:
            recorded.say(f"the initialisation of {qualifier}", kind, got)


@replays(CALLS + "TestLambdaConcurrency::test_lambda_provisioned_concurrency_moves_with_alias")
def provisioned_moves(world, recorded):
    client, name, alias = world.client, world.name(), "moving-alias"
    recorded.match("create-result", world.create(name, wrapped=True, Runtime="python3.8", Timeout=2))
    world.active(name)
    recorded.match("get-function-configuration", client.get_function_configuration(FunctionName=name, Qualifier="$LATEST"))
    recorded.match("publish_version_1", client.publish_version(FunctionName=name, Description="my-first-version"))
    recorded.match("get_function_configuration_version_1", client.get_function_configuration(FunctionName=name, Qualifier="1"))
    recorded.match("create_alias", client.create_alias(FunctionName=name, FunctionVersion="1", Name=alias))
    recorded.match("get_function_before_provisioned", client.get_function(FunctionName=name, Qualifier="1"))
    of_alias = {"FunctionName": name, "Qualifier": alias}
    client.put_provisioned_concurrency_config(ProvisionedConcurrentExecutions=1, **of_alias)
    eventually(lambda: client.get_provisioned_concurrency_config(**of_alias)["Status"] == "READY", 30)
    recorded.match("get_function_after_provisioned", client.get_function(FunctionName=name, Qualifier=alias))
    client.update_function_configuration(FunctionName=name, Timeout=10)
    world.updated(name)
    recorded.match("get_function_after_update", client.get_function_configuration(FunctionName=name))
    recorded.match("publish_version_2", client.publish_version(FunctionName=name))
    recorded.match("update_alias", client.update_alias(FunctionName=name, FunctionVersion="2", Name=alias))
    recorded.match(
        "provisioned_concurrency_notfound", world.error(client.get_provisioned_concurrency_config, FunctionName=name, Qualifier="1")
    )
    assert client.get_provisioned_concurrency_config(**of_alias)["RequestedProvisionedConcurrentExecutions"] == 1


@replays(CALLS + "TestLambdaConcurrency::test_reserved_concurrency")
def reserved_to_none(world, recorded):
    client, name = world.client, world.name()
    world.create(name, wrapped=True, Timeout=20)
    world.active(name)
    recorded.match("fn", client.get_function_configuration(FunctionName=name, Qualifier="$LATEST"))
    recorded.match("put_reserved", client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0))
    recorded.match("exc_no_cap_requestresponse", world.error(client.invoke, FunctionName=name, InvocationType="RequestResponse"))
    queue = f"arn:aws:sqs:{world.region}:{world.account}:rec-queue-{uuid.uuid4().hex[:8]}"
    recorded.match("put_event_invoke_conf", client.put_function_event_invoke_config(
        FunctionName=name, MaximumRetryAttempts=0, DestinationConfig={"OnFailure": {"Destination": queue}}))  # fmt: skip


@replays(CALLS + "TestLambdaConcurrency::test_reserved_concurrency_async_queue")
def reserved_to_one(world, recorded):
    import threading

    client, name = world.client, world.name()
    world.create(name, "import time\ndef handler(event, context):\n    time.sleep(event['wait'])\n", wrapped=True)
    world.active(name)
    recorded.match("fn", client.get_function_configuration(FunctionName=name, Qualifier="$LATEST"))
    recorded.match("put_fn_concurrency", client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1))
    busy = threading.Thread(target=lambda: world.invoke(name, b'{"wait": 2}'))
    busy.start()
    time.sleep(1)
    recorded.match("too_many_requests_exc", world.error(client.invoke, FunctionName=name, Payload=b'{"wait": 0}'))
    busy.join()


@replays(CALLS + "TestLambdaErrors::test_lambda_invoke_payload_encoding_error[body-n\\x87r\\x9e\\xe9\\xb5\\xd7I\\xee\\x9bmt]")
def payload_not_utf8(world, recorded):
    name = world.name()
    world.create(name)
    world.active(name)
    recorded.match(
        "invoke_function_invalid_payload_body",
        world.error(world.client.invoke, FunctionName=name, Payload=b"n\x87r\x9e\xe9\xb5\xd7I\xee\x9bmt"),
    )


@replays(CALLS + "TestLambdaErrors::test_lambda_invoke_payload_encoding_error[message-\\x99\\xeb,j\\x07\\xa1zYh]")
def payload_no_json(world, recorded):
    name = world.name()
    world.create(name)
    world.active(name)
    recorded.match(
        "invoke_function_invalid_payload_message", world.error(world.client.invoke, FunctionName=name, Payload=b"\x99\xeb,j\x07\xa1zYh")
    )


@replays(CALLS + "TestLambdaErrors::test_lambda_runtime_error")
def init_fails(world, recorded):
    name = world.name()
    code = zipped(
        {"lambda_runtime_error.py": 'raise Exception("Runtime startup fails")\n\n\ndef handler(event, context):\n    return event\n'}
    )
    world.create(name, Runtime="python3.13", Handler="lambda_runtime_error.handler", Code={"ZipFile": code})
    world.active(name)
    answer = world.invoke(name)
    # The interpreter's own frames differ by its version; the function's is the last.
    for side in (answer["Payload"], recorded.expected["invocation_error"]["Payload"]):
        if isinstance(side, dict) and isinstance(side.get("stackTrace"), list):
            side["stackTrace"] = side["stackTrace"][-1:]
    recorded.match("invocation_error", answer)


@replays(CALLS + "TestLambdaErrors::test_lambda_runtime_exit")
def process_ends(world, recorded):
    name = world.name()
    world.create(name, "import sys\ndef handler(event, context):\n    sys.exit(0)\n")
    world.active(name)
    recorded.match("invocation_error", world.invoke(name))


@replays(CALLS + "TestLambdaFeatures::test_basic_invoke")
def two_functions(world, recorded):
    client = world.client
    code = {"ZipFile": zipped({"index.py": ECHO})}
    for suffix in ("", "_2"):
        name = world.name()
        recorded.match(f"lambda_create_fn{suffix}", world.create(name, Runtime="python3.9", Handler="index.handler", Code=code))
        if not suffix:
            first = name
    for suffix, each in (("", first), ("_2", name)):
        world.active(each)
        recorded.match(f"lambda_get_fn{suffix}", client.get_function(FunctionName=each))
    recorded.match("lambda_invoke_result", world.invoke(first, b"{}"))


NODE_ECHO = "exports.handler = async (event) => { console.log(JSON.stringify(event)); return event; };\n"


def echo_in(world, runtime):
    name = world.name()
    code = {"handler.js": NODE_ECHO} if runtime.startswith("nodejs") else {"handler.py": ECHO}
    world.create(name, Runtime=runtime, Code={"ZipFile": zipped(code)})
    world.active(name)
    return name


@replays(CALLS + "TestLambdaFeatures::test_invocation_type_request_response[*]")
def waits(world, recorded, runtime):
    recorded.match("invoke-result", world.invoke(echo_in(world, runtime), b"{}", InvocationType="RequestResponse"))


@replays(CALLS + "TestLambdaFeatures::test_invocation_type_dry_run[*]")
def dry_runs(world, recorded, runtime):
    recorded.match("invoke-result", world.invoke(echo_in(world, runtime), b"{}", InvocationType="DryRun"))


@replays(CALLS + "TestLambdaFeatures::test_invocation_with_logs[*]")
def with_logs(world, recorded, runtime):
    answer = world.invoke(echo_in(world, runtime), b"{}", LogType="Tail")
    lines = [line + "\n" for line in log_lines(answer)]
    recorded.match("invoke", answer)
    recorded.match("logs", {"logs": lines})


@replays(CALLS + "TestLambdaFeatures::test_invocation_with_qualifier")
def by_version(world, recorded):
    name = world.name()
    recorded.match("creation-response", world.create(name, CONTEXT, Timeout=10, Publish=True))
    world.active(name)
    answer = world.invoke(name, b'{"foo": "bar with \'quotes\\""}', Qualifier="1", LogType="Tail")
    recorded.match("invocation-response", answer)
    lines = [line for line in log_lines(answer) if not line.startswith("REPORT")]
    recorded.match("log_result", {"log_result": lines})


@replays(CALLS + "TestLambdaFeatures::test_invoke_exceptions")
def nothing_to_call(world, recorded):
    recorded.match("invoke_function_doesnotexist", world.error(world.client.invoke, FunctionName="doesnotexist"))


@replays(CALLS + "TestLambdaFeatures::test_lambda_environment")
def variables_arrive(world, recorded):
    name = world.name()
    source = "import os\ndef handler(event, context):\n    return {'Hello': os.environ.get('Hello')}\n"
    recorded.match(
        "creation-result", world.create(name, source, wrapped=True, Runtime="python3.9", Environment={"Variables": {"Hello": "World"}})
    )
    world.active(name)
    recorded.match("get-configuration-result", world.client.get_function_configuration(FunctionName=name))
    recorded.match("invocation-result", world.invoke(name, b"{}"))


@replays(CALLS + "TestLambdaFeatures::test_upload_lambda_from_s3")
def code_from_a_bucket(world, recorded):
    from botocore.config import Config
    import boto3

    keys, name, bucket = world.server.credentials, world.name(), f"rec-bucket-{uuid.uuid4().hex[:8]}"
    s3 = boto3.client("s3", endpoint_url=world.server.endpoint, region_name=world.region, aws_access_key_id=keys["access_key"],
                      aws_secret_access_key=keys["secret_key"], config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}))  # fmt: skip
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="code.zip", Body=zipped({"handler.py": CONTEXT}))
    world.undo.append(lambda: s3.delete_bucket(Bucket=bucket))
    world.undo.append(lambda: s3.delete_object(Bucket=bucket, Key="code.zip"))
    recorded.match("creation-response", world.create(name, Timeout=10, Code={"S3Bucket": bucket, "S3Key": "code.zip"}))
    world.active(name)
    recorded.match("invocation-response", world.invoke(name, b'{"foo": "bar with \'quotes\\""}'))


# Function URLs


def open_url(world, name, **members):
    client = world.client
    made = client.create_function_url_config(FunctionName=name, AuthType="NONE", **members)
    statement = client.add_permission(
        FunctionName=name, StatementId="urlPermission", Action="lambda:InvokeFunctionUrl", Principal="*", FunctionUrlAuthType="NONE"
    )
    return made, statement


HTTP_ECHO = """
import base64, json
def handler(event, context):
    print(json.dumps(event))
    http = event["requestContext"]["http"]
    headers, body = event["headers"], event.get("body")
    if %s:
        headers = {name: value for name, value in headers.items() if not name.startswith("x-")}
    try:
        body = json.loads(body) if body else body
    except ValueError:
        pass
    return {"statusCode": 200, "body": json.dumps({
        "args": event.get("queryStringParameters", {}), "data": body, "headers": headers, "method": http["method"],
        "path": http["path"], "domain": event["requestContext"]["domainName"], "origin": http["sourceIp"]})}
"""


def echoed(recorded, body):
    """What an echo answered, beside what was recorded: there is no TLS here, and the port is part of the host."""
    for header in ("x-amzn-tls-cipher-suite", "x-amzn-tls-version"):
        recorded.expected["url_response"]["headers"].pop(header, None)
    answer = opened(body.decode())
    if isinstance(answer, dict) and "host" in answer.get("headers", {}):
        answer["headers"]["host"] = answer["headers"]["host"].partition(":")[0]
    recorded.match("url_response", answer)


TEXT = {"accept": "*/*", "accept-encoding": "gzip, deflate"}


@replays(CALLS + "TestLambdaURL::test_lambda_url_echo_http_fixture_default")
def url_echoes(world, recorded):
    name = world.name()
    world.create(name, HTTP_ECHO % "False")
    world.active(name)
    address = open_url(world, name)[0]["FunctionUrl"]
    status, _, body = world.url(address, "/pa2%25Fth/1?q=query&multiQuery=foo&multiQuery=%2Fbar", "POST", b'{"foo": "bar"}', {
        **TEXT, "user-agent": "test/echo", "content-type": "application/json", "ExTrA-HeadErs": "With WeiRd CapS"})  # fmt: skip
    echoed(recorded, body)
    if status != 200:
        recorded.say("status", 200, status)


@replays(CALLS + "TestLambdaURL::test_lambda_url_echo_http_fixture_trim_x_headers")
def url_echoes_without_x(world, recorded):
    name = world.name()
    world.create(name, HTTP_ECHO % "True")
    world.active(name)
    address = open_url(world, name)[0]["FunctionUrl"]
    _, _, body = world.url(
        address,
        "/path/1?q=query",
        "POST",
        b'{"foo": "bar"}',
        {**TEXT, "user-agent": "test/echo", "content-type": "application/json", "extra-headers": "With WeiRd CapS"},
    )
    echoed(recorded, body)


@replays(CALLS + "TestLambdaURL::test_lambda_url_form_payload")
def url_takes_a_form(world, recorded):
    name = world.name()
    world.create(name, HTTP_ECHO % "True")
    world.active(name)
    address = open_url(world, name)[0]["FunctionUrl"]
    form = base64.b64decode(recorded.expected["url_response"]["data"])
    kind = recorded.expected["url_response"]["headers"]["content-type"]
    _, _, body = world.url(address, "/test/value", "POST", form, {**TEXT, "user-agent": "python/test-request", "content-type": kind})
    echoed(recorded, body)


@replays(CALLS + "TestLambdaURL::test_function_url_with_response_streaming")
def url_streams(world, recorded):
    name = world.name()
    source = "exports.handler = awslambda.streamifyResponse(async (event, stream) => { stream.write('Hello, '); stream.write('world!'); stream.end(); });\n"
    world.create(name, Runtime="nodejs20.x", Code={"ZipFile": zipped({"handler.js": source})})
    world.active(name)
    address = open_url(world, name, InvokeMode="RESPONSE_STREAM")[0]["FunctionUrl"]
    status, _, body = world.url(address)
    recorded.match("response_status", status)
    recorded.match("response_data", body.decode())


@replays(CALLS + "TestLambdaURL::test_lambda_url_invalid_invoke_mode")
def url_mode_refused(world, recorded):
    name = world.name()
    world.create(name)
    world.active(name)
    recorded.match(
        "invoke_function_invalid_invoke_type",
        world.error(world.loose.create_function_url_config, FunctionName=name, AuthType="NONE", InvokeMode="UNKNOWN"),
    )


@replays(CALLS + "TestLambdaURL::test_lambda_url_invocation_exception")
def url_of_a_failing_function(world, recorded):
    name = world.name()
    world.create(name, "def handler(event, context):\n    raise Exception('as asked')\n", wrapped=True)
    world.active(name)
    recorded.match("get_fn_result", world.client.get_function(FunctionName=name))
    made, statement = open_url(world, name)
    recorded.match("create_lambda_url_config", made)
    recorded.match("add_permission", statement)
    status, headers, body = world.url(made["FunctionUrl"])
    if (status, body) != (502, b"Internal Server Error") or headers.get("x-amzn-requestid") is None:
        recorded.say("a failing function's answer", (502, b"Internal Server Error"), (status, body, headers))


@replays(CALLS + "TestLambdaPermissions::test_lambda_permission_url_invocation")
def url_without_permission(world, recorded):
    name = world.name()
    world.create(name)
    world.active(name)
    address = world.client.create_function_url_config(FunctionName=name, AuthType="NONE")["FunctionUrl"]
    status, _, body = world.url(address)
    recorded.match("lambda_url_invocation_missing_permission", opened(body.decode()))
    if status != 403:
        recorded.say("status", 403, status)


@replays(CALLS + "TestRequestIdHandling::test_request_id_invoke_url")
def url_names_its_request(world, recorded):
    name = world.name()
    world.create(name, "def handler(event, context):\n    return 'hi'\n")
    world.active(name)
    made, statement = open_url(world, name)
    recorded.match("create_lambda_url_config", made)
    recorded.match("add_permission", statement)
    status, headers, body = world.url(made["FunctionUrl"])
    recorded.match(
        "lambda_url_invocation",
        {"statuscode": status, "headers": {"x-amzn-RequestId": headers.get("x-amzn-requestid")}, "content": body.decode()},
    )
    logs = world.server.client("logs")

    def ends():
        found = world.error(logs.filter_log_events, logGroupName=f"/aws/lambda/{name}").get("events", [])
        return [event["message"].strip() for event in found if event["message"].startswith("END ")]

    recorded.match("end_log_entries", eventually(ends) or [])


# What every runtime shows alike

INTROSPECTION = {
    "python": """
import os
def handler(event, context):
    return {"environment": dict(os.environ), "ctx": {
        "function_name": context.function_name, "function_version": context.function_version, "invoked_function_arn": context.invoked_function_arn,
        "memory_limit_in_mb": context.memory_limit_in_mb, "aws_request_id": context.aws_request_id, "log_group_name": context.log_group_name,
        "log_stream_name": context.log_stream_name, "remaining_time_in_millis": str(context.get_remaining_time_in_millis())}, "packages": []}
""",
    "nodejs": """
exports.handler = async (event, context) => ({environment: process.env, ctx: {
    function_name: context.functionName, function_version: context.functionVersion, invoked_function_arn: context.invokedFunctionArn,
    aws_request_id: context.awsRequestId, log_group_name: context.logGroupName, log_stream_name: context.logStreamName,
    remaining_time_in_millis: String(context.getRemainingTimeInMillis())}, packages: []});
""",
}
# Added by Mayfly: where service calls from inside go. Added on AWS by the shell its bootstraps are, and by an old Node's image.
DIFFERENT = {"AWS_ENDPOINT_URL", "PWD", "SHLVL", "LC_CTYPE", "HOME", "_", "NODE_EXTRA_CA_CERTS"}


def common_function(world, runtime, python, node, **members):
    name = world.name()
    handler = recorded_handler(runtime)
    code = {"handler.py": python} if runtime.startswith("python") else {"index.js": node}
    code.update(members.pop("files", {}))
    return name, world.create(name, Runtime=runtime, Handler=handler, Code={"ZipFile": zipped(code)}, MemorySize=1024, **members)


def recorded_handler(runtime):
    return "handler.handler" if runtime.startswith("python") else "index.handler"


def introspection(world, recorded, runtime):
    name, made = common_function(
        world, runtime, INTROSPECTION["python"], INTROSPECTION["nodejs"], Environment={"Variables": {"TEST_KEY": "TEST_VAL"}}
    )
    recorded.match("create_function_result", made)
    world.active(name)
    for key, qualifier in (("invocation_result_payload", {}), ("invocation_result_payload_qualified", {"Qualifier": "$LATEST"})):
        payload = world.invoke(name, b"{}", **qualifier)["Payload"]
        for environment in (payload["environment"], recorded.expected[key]["environment"]):
            for variable in DIFFERENT:
                environment.pop(variable, None)
            if runtime != "nodejs20.x":
                environment.pop("NODE_PATH", None)  # names the version that runs, which stands in for this one
            if runtime != "python3.11":
                environment.pop("PYTHONPATH", None)  # names the folder in layers that this version's own interpreter would look into
            for variable in ("AWS_XRAY_DAEMON_ADDRESS", "_AWS_XRAY_DAEMON_ADDRESS"):  # each server has addresses of its own
                if variable in environment:
                    environment[variable] = re.sub(r"^169\.254\.\d+\.\d+", "169.254.0.0", environment[variable])
        recorded.match(key, payload)


def uncaught(world, recorded, runtime):
    python = "def handler(event, context):\n    raise Exception('Failed: ' + event['error_msg'])\n"
    node = "exports.handler = async (event) => { throw new Error('Error: ' + event.error_msg); };\n"
    name, made = common_function(world, runtime, python, node)
    recorded.match("create_function_result", made)
    world.active(name)
    answer = world.invoke(name, b'{"error_msg": "some_error_msg"}')
    for trace in ("stackTrace", "trace"):
        if isinstance(answer["Payload"].get(trace), list):
            answer["Payload"][trace] = "".join(answer["Payload"][trace])
    if "error_result" not in recorded.left:
        recorded.match("error_result", answer)


def wrapped_start(world, recorded, runtime):
    wrapper = '#!/bin/sh\nexport WRAPPER_VAR=test-value\nexec "$@"\n'
    python = "import os\ndef handler(event, context):\n    return {'wrapper': os.environ.get('WRAPPER_VAR')}\n"
    node = "exports.handler = async () => ({wrapper: process.env.WRAPPER_VAR});\n"
    name, made = common_function(world, runtime, python, node, files={"environment_wrapper": wrapper},
                                 Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/environment_wrapper"}})  # fmt: skip
    recorded.match("create_function_result", made)
    world.active(name)
    got = world.invoke(name, b"{}")["Payload"]
    if got != {"wrapper": "test-value"}:
        recorded.say("what the wrapper set", {"wrapper": "test-value"}, got)


for kind, scenario in (("introspection", introspection), ("uncaught_exception", uncaught), ("runtime_wrapper", wrapped_start)):
    for case in RECORDED["cases"]:
        found = re.fullmatch(re.escape(f"{COMMON}test_{kind}_invoke") + r"\[((python|nodejs)[^\]]*)\]", case)
        if found:
            SCENARIOS[case] = (scenario, found.group(1))
