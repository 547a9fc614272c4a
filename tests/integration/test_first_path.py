"""The whole path as a user walks it: upload, call, read the log, change, version, delete."""
import base64
import hashlib
import json
import re
import string
import time
import urllib.request

import pytest

from mayfly_server import ROLE, invoke, python_function, zip_of

pytestmark = pytest.mark.smoke

ECHO = """
import json
def handler(event, context):
    print("hello from the function")
    return {"got": event, "arn": context.invoked_function_arn, "memory": context.memory_limit_in_mb, "left": context.get_remaining_time_in_millis()}
"""


def test_a_python_function_goes_from_upload_to_answer(aws, name):
    created = python_function(aws, name, ECHO, MemorySize=256, Timeout=5, Description="first")
    assert created["State"] == "Pending" and created["StateReasonCode"] == "Creating"
    assert created["Runtime"] == "python3.11" and created["Version"] == "$LATEST"
    aws.get_waiter("function_active_v2").wait(FunctionName=name)

    answer, error, log, raw = invoke(aws, name, {"a": [1, "é", None]})
    assert error is None
    assert answer["got"] == {"a": [1, "é", None]}
    assert answer["arn"].endswith(f":function:{name}") and answer["memory"] == "256"
    assert 3000 < answer["left"] <= 5000
    assert raw["ExecutedVersion"] == "$LATEST" and raw["StatusCode"] == 200
    assert "hello from the function" in log
    assert re.search(r"START RequestId: [0-9a-f-]{36} Version: \$LATEST", log)
    report = re.search(r"REPORT RequestId: ([0-9a-f-]{36})\tDuration: ([\d.]+) ms\tBilled Duration: (\d+) ms\tMemory Size: 256 MB\tMax Memory Used: (\d+) MB\tInit Duration: ([\d.]+) ms\t", log)
    assert report, log
    duration, billed, memory, init = float(report[2]), int(report[3]), int(report[4]), float(report[5])
    assert 0 < duration < 1000 and 0 < init < 5000 and 1 <= memory < 256
    assert abs(billed - (duration + init)) <= 2  # rounded up to 1 ms, init included

    _, _, warm_log, _ = invoke(aws, name, {})
    assert "Init Duration" not in warm_log  # the same environment answered


def test_warm_environments_keep_their_state_and_are_not_shared_between_versions(aws, name):
    source = "n = 0\ndef handler(event, context):\n    global n\n    n += 1\n    return [n, context.function_version]\n"
    python_function(aws, name, source)
    assert invoke(aws, name)[0] == [1, "$LATEST"]
    assert invoke(aws, name)[0] == [2, "$LATEST"]
    version = aws.publish_version(FunctionName=name)["Version"]
    assert version == "1"
    assert invoke(aws, name, Qualifier="1")[0] == [1, "1"]
    assert invoke(aws, f"{name}:1")[0] == [2, "1"]
    aws.update_function_code(FunctionName=name, ZipFile=zip_of({"app.py": source.replace("n = 0", "n = 100")}))
    aws.get_waiter("function_updated_v2").wait(FunctionName=name)
    assert invoke(aws, name)[0] == [101, "$LATEST"]
    assert invoke(aws, name, Qualifier="1")[0] == [3, "1"]


def test_configuration_changes_take_effect_on_the_next_call(aws, name):
    python_function(aws, name, "import os\ndef handler(e, c):\n    return [os.environ.get('COLOUR'), c.memory_limit_in_mb]\n", Environment={"Variables": {"COLOUR": "red"}})
    assert invoke(aws, name)[0] == ["red", "128"]
    updated = aws.update_function_configuration(FunctionName=name, Environment={"Variables": {"COLOUR": "blue"}}, MemorySize=192)
    assert updated["LastUpdateStatus"] == "InProgress"
    aws.get_waiter("function_updated_v2").wait(FunctionName=name)
    assert invoke(aws, name)[0] == ["blue", "192"]


@pytest.mark.parametrize("runtime", ["python3.11", "nodejs20.x"])
def test_as_many_variables_as_four_kilobytes_hold(aws, name, runtime):
    variables = {first + second: "" for first in "VWXYZvwxyz" for second in string.digits + string.ascii_letters if second not in "123"}
    names = "^[V-Zv-z][0-9a-zA-Z]$"
    while len(json.dumps(variables, separators=(",", ":"))) > 4096:
        variables.popitem()
    assert len(variables) > 500  # with those of the platform more than the variables alone
    count = {"python3.11": ("app.py", f"import os, re\ndef handler(e, c):\n    return sum(bool(re.match('{names}', k)) for k in os.environ)\n"),
             "nodejs20.x": ("app.js", f"exports.handler = async () => Object.keys(process.env).filter((k) => /{names}/.test(k)).length;\n")}
    file, source = count[runtime]
    aws.create_function(FunctionName=name, Runtime=runtime, Role=ROLE, Handler="app.handler", Code={"ZipFile": zip_of({file: source})},
                        Environment={"Variables": variables})
    for _ in range(2):
        assert invoke(aws, name)[0] == len(variables)
        aws.update_function_configuration(FunctionName=name, Description="a fresh environment, perhaps a prepared one")


def test_code_location_downloads_what_was_uploaded(aws, name):
    package = zip_of({"app.py": ECHO})
    aws.create_function(FunctionName=name, Runtime="python3.11", Role=ROLE, Handler="app.handler", Code={"ZipFile": package})
    function = aws.get_function(FunctionName=name)
    assert function["Code"]["RepositoryType"] == "S3"
    with urllib.request.urlopen(function["Code"]["Location"]) as download:
        assert download.read() == package
    assert function["Configuration"]["CodeSha256"] == base64.b64encode(hashlib.sha256(package).digest()).decode()
    with pytest.raises(urllib.error.HTTPError) as refused:  # the signature covers the path
        urllib.request.urlopen(function["Code"]["Location"].replace("X-Amz-Signature=", "X-Amz-Signature=0"))
    assert refused.value.code == 403


def test_node_functions_answer_in_every_module_form(aws, name):
    forms = {
        "index.js": "exports.handler = async (event, context) => ({ form: 'commonjs', event, version: context.functionVersion });",
        "index.mjs": "export const handler = async (event) => ({ form: 'esm', event });",
        "callback.js": "exports.handler = (event, context, callback) => setTimeout(() => callback(null, { form: 'callback', event }), 5);",
    }
    aws.create_function(FunctionName=name, Runtime="nodejs20.x", Role=ROLE, Handler="index.handler", Code={"ZipFile": zip_of({"index.js": forms["index.js"]})})
    answer, error, log, _ = invoke(aws, name, {"x": 1})
    assert error is None, log
    assert answer == {"form": "commonjs", "event": {"x": 1}, "version": "$LATEST"}
    aws.update_function_code(FunctionName=name, ZipFile=zip_of({"index.mjs": forms["index.mjs"]}))
    assert invoke(aws, name, {"x": 2})[0] == {"form": "esm", "event": {"x": 2}}
    aws.update_function_code(FunctionName=name, ZipFile=zip_of({"callback.js": forms["callback.js"]}))
    aws.update_function_configuration(FunctionName=name, Handler="callback.handler")
    assert invoke(aws, name, {"x": 3})[0] == {"form": "callback", "event": {"x": 3}}


BASH_RUNTIME = r"""#!/bin/bash
# A Runtime API client in plain bash, to show that any executable can be a function.
exec 2>&1
host=${AWS_LAMBDA_RUNTIME_API%:*} port=${AWS_LAMBDA_RUNTIME_API#*:}
while true; do
  exec 3<>/dev/tcp/$host/$port
  printf 'GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$AWS_LAMBDA_RUNTIME_API" >&3
  response=$(cat <&3); exec 3>&-
  id=$(printf '%s' "$response" | tr -d '\r' | sed -n 's/^[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: //p')
  body="{\"id\":\"$id\",\"uid\":$(id -u)}"
  exec 3<>/dev/tcp/$host/$port
  printf 'POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' "$id" "$AWS_LAMBDA_RUNTIME_API" "${#body}" "$body" >&3
  cat <&3 > /dev/null; exec 3>&-
done
"""


def test_any_executable_that_speaks_the_runtime_api_is_a_function(aws, name):
    aws.create_function(FunctionName=name, Runtime="provided.al2023", Role=ROLE, Handler="any", Code={"ZipFile": zip_of({"bootstrap": (BASH_RUNTIME, 0o755)})})
    answer, error, log, raw = invoke(aws, name)
    assert error is None, log
    assert answer["id"] == raw["ResponseMetadata"]["RequestId"]
    assert answer["uid"] != 0


def test_streamed_answers_arrive_piece_by_piece(aws, name):
    source = """
exports.handler = awslambda.streamifyResponse(async (event, stream) => {
  stream.setContentType('text/plain');
  for (let i = 0; i < 3; i++) { stream.write(`piece ${i};`); await new Promise(r => setTimeout(r, 300)); }
  stream.end();
});
"""
    aws.create_function(FunctionName=name, Runtime="nodejs20.x", Role=ROLE, Handler="index.handler", Timeout=10, Code={"ZipFile": zip_of({"index.js": source})})
    invoke_started = time.monotonic()
    events = []
    for event in aws.invoke_with_response_stream(FunctionName=name, Payload=b"{}")["EventStream"]:
        events.append((time.monotonic() - invoke_started, event))
    text = b"".join(event["PayloadChunk"]["Payload"] for _, event in events if "PayloadChunk" in event)
    assert text == b"piece 0;piece 1;piece 2;"
    assert "InvokeComplete" in events[-1][1]
    assert events[-1][0] - events[0][0] > 0.4  # the first piece came long before the end


def test_tags_and_lists(aws, name):
    arn = python_function(aws, name, ECHO, Tags={"team": "a"})["FunctionArn"]
    aws.tag_resource(Resource=arn, Tags={"stage": "b"})
    assert aws.list_tags(Resource=arn)["Tags"] == {"team": "a", "stage": "b"}
    aws.untag_resource(Resource=arn, TagKeys=["team"])
    assert aws.get_function(FunctionName=name)["Tags"] == {"stage": "b"}
    pages = aws.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 1})
    assert name in [function["FunctionName"] for page in pages for function in page["Functions"]]
    versions = aws.list_versions_by_function(FunctionName=name)["Versions"]
    assert [version["Version"] for version in versions] == ["$LATEST"]


def test_a_deleted_function_is_gone_but_its_log_stays(aws, server, name):
    python_function(aws, name, "def handler(e, c):\n    print('remember me')\n    return 1\n")
    invoke(aws, name)
    aws.delete_function(FunctionName=name)
    with pytest.raises(aws.exceptions.ResourceNotFoundException):
        aws.invoke(FunctionName=name)
    logs = server.client("logs")
    deadline = time.monotonic() + 5
    messages = []
    while time.monotonic() < deadline and not any("remember me" in message for message in messages):
        messages = [event["message"] for event in logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]]
    assert any("remember me" in message for message in messages)
    assert any(message.startswith("REPORT RequestId:") for message in messages)
    python_function(aws, name, ECHO)


def test_identity_and_account(aws, server):
    assert server.client("sts").get_caller_identity()["Account"] == "000000000000"
    settings = aws.get_account_settings()
    assert settings["AccountLimit"]["ConcurrentExecutions"] == 1000
    assert settings["AccountUsage"]["FunctionCount"] >= 0


def test_dry_run_checks_without_calling(aws, name):
    python_function(aws, name, "def handler(e, c):\n    raise SystemExit(3)\n")
    assert aws.invoke(FunctionName=name, InvocationType="DryRun")["StatusCode"] == 204


def test_twenty_calls_at_once_all_answer(aws, server, name):
    from concurrent.futures import ThreadPoolExecutor

    python_function(aws, name, "import time\ndef handler(e, c):\n    time.sleep(0.2)\n    return e['i']\n")
    clients = [server.client("lambda") for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda i: invoke(clients[i], name, {"i": i})[0], range(20)))
    assert answers == list(range(20))
