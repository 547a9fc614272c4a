"""Numbers at and beyond their limits, against things that exist: what is allowed is kept as given, what is not changes nothing."""

import uuid

import pytest

from scenario import ACCOUNT, REGION, function_arn, layer_arn, package
from wire import error_problems, success_problems

QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:conformance-limits"


def kept(api, operation, what, answer, wanted):
    api.same(operation, what, {key: answer.get(key) for key in wanted}, wanted)


def test_limits_of_a_configuration(api):
    name = api.function()
    allowed = [
        {"Timeout": 1},
        {"Timeout": 900},
        {"MemorySize": 128},
        {"MemorySize": 129},
        {"MemorySize": 10240},
        {"EphemeralStorage": {"Size": 512}},
        {"EphemeralStorage": {"Size": 10240}},
        {"Description": "d" * 256},
        {"Description": ""},
        {"Handler": "h" * 128},
        {"Environment": {"Variables": {"A1": "v" * 4000}}},
        {"Environment": {"Variables": {f"V{number}": "" for number in range(300)}}},
    ]
    for change in allowed:
        kept(
            api,
            "UpdateFunctionConfiguration",
            f"{str(change)[:60]}",
            api("UpdateFunctionConfiguration", FunctionName=name, **change),
            change,
        )
        api.settle(name)
    before = api("GetFunctionConfiguration", FunctionName=name)
    for change in (
        {"Timeout": 901},
        {"MemorySize": 10241},
        {"Environment": {"Variables": {"A1": "v" * 5000}}},
        {"Environment": {"Variables": {"AWS_LAMBDA_FUNCTION_NAME": "x"}}},
        {"Runtime": "python2.7"},
        {"Layers": [layer_arn("no-such-layer", 1)]},
        {"Layers": [layer_arn("no-such-layer", number) for number in range(1, 7)]},
    ):
        reply = api.caller.send("UpdateFunctionConfiguration", {"FunctionName": name, **change})
        good = reply.status == 400 and reply.error in ("InvalidParameterValueException", "ValidationException")
        api.same("UpdateFunctionConfiguration", f"{str(change)[:60]} is refused", good or str(reply), True)
    api.same("UpdateFunctionConfiguration", "refusals change nothing", api("GetFunctionConfiguration", FunctionName=name), before)


def test_limits_of_event_invoke_configurations(api):
    name = api.function()
    for change in (
        {"MaximumRetryAttempts": 0},
        {"MaximumRetryAttempts": 2},
        {"MaximumEventAgeInSeconds": 60},
        {"MaximumEventAgeInSeconds": 21600},
    ):
        kept(api, "PutFunctionEventInvokeConfig", str(change), api("PutFunctionEventInvokeConfig", FunctionName=name, **change), change)
    before = api("GetFunctionEventInvokeConfig", FunctionName=name)
    for change in (
        {"MaximumRetryAttempts": 3},
        {"MaximumEventAgeInSeconds": 59},
        {"MaximumEventAgeInSeconds": 21601},
        {"MaximumRetryAttempts": -1},
    ):
        for operation in ("PutFunctionEventInvokeConfig", "UpdateFunctionEventInvokeConfig"):
            api.refused(operation, 400, "ValidationException", "1 validation error detected: ", FunctionName=name, **change)
    api.same("PutFunctionEventInvokeConfig", "refusals change nothing", api("GetFunctionEventInvokeConfig", FunctionName=name), before)


def test_limits_of_concurrency(api):
    name = api.function(Publish=True)
    limits = api("GetAccountSettings")["AccountLimit"]
    most = limits["UnreservedConcurrentExecutions"] - 100
    for number in (0, 1, most):
        kept(
            api,
            "PutFunctionConcurrency",
            f"{number}",
            api("PutFunctionConcurrency", FunctionName=name, ReservedConcurrentExecutions=number),
            {"ReservedConcurrentExecutions": number},
        )
    for number in (most + 1, limits["ConcurrentExecutions"], 2**31 - 1):
        api.refused("PutFunctionConcurrency", 400, "InvalidParameterValueException", FunctionName=name, ReservedConcurrentExecutions=number)
    api.same(
        "GetFunctionConcurrency",
        "refusals change nothing",
        api("GetFunctionConcurrency", FunctionName=name),
        {"ReservedConcurrentExecutions": most},
    )
    api("PutFunctionConcurrency", FunctionName=name, ReservedConcurrentExecutions=2)
    api.refused(
        "PutProvisionedConcurrencyConfig",
        400,
        "InvalidParameterValueException",
        FunctionName=name,
        Qualifier="1",
        ProvisionedConcurrentExecutions=3,
    )
    api("DeleteFunctionConcurrency", FunctionName=name)
    for number in (0, -1):
        api.refused(
            "PutProvisionedConcurrencyConfig",
            400,
            "ValidationException",
            FunctionName=name,
            Qualifier="1",
            ProvisionedConcurrentExecutions=number,
        )


def test_limits_of_aliases(api):
    name = api.function()
    api.version(name), api.version(name)
    for weight in (0.0, 0.001, 0.5, 1.0):
        alias = f"w{str(weight).replace('.', '-')}"
        routing = {"AdditionalVersionWeights": {"2": weight}}
        made = api("CreateAlias", FunctionName=name, Name=alias, FunctionVersion="1", RoutingConfig=routing)
        kept(api, "CreateAlias", f"a weight of {weight}", made, {"RoutingConfig": routing})
    for weight in (-0.1, 1.1, 2):
        api.refused(
            "CreateAlias",
            400,
            "ValidationException",
            "at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must satisfy constraint: ",
            FunctionName=name,
            Name="other",
            FunctionVersion="1",
            RoutingConfig={"AdditionalVersionWeights": {"2": weight}},
        )
    longest = "a" * 128
    kept(
        api, "CreateAlias", "the longest name", api("CreateAlias", FunctionName=name, Name=longest, FunctionVersion="1"), {"Name": longest}
    )
    for bad in ("123", "a.b", "$LATEST", "a" * 129):
        api.refused(
            "CreateAlias",
            400,
            "ValidationException",
            "at 'name' failed to satisfy constraint: ",
            FunctionName=name,
            Name=bad,
            FunctionVersion="1",
        )


def test_limits_of_tags(api):
    name = api.function()
    arn = function_arn(name)
    api("TagResource", Resource=arn, Tags={"k" * 128: "v" * 256, "\u00fc\u65e5\u672c": "\u00e9 x", "a:/=+-@._": ""})
    api("TagResource", Resource=arn, Tags={f"t{number}": "v" for number in range(47)})
    api.same("ListTags", "fifty", len(api("ListTags", Resource=arn)["Tags"]), 50)
    api.refused(
        "TagResource",
        400,
        "InvalidParameterValueException",
        "Number of tags exceeds resource tag limit.",
        Resource=arn,
        Tags={"one": "more"},
    )
    api("TagResource", Resource=arn, Tags={"t1": "again"})


def test_limits_of_event_source_mappings(api):
    name = api.function()
    for change in (
        {"BatchSize": 1},
        {"BatchSize": 10},
        {"BatchSize": 11, "MaximumBatchingWindowInSeconds": 1},
        {"BatchSize": 10000, "MaximumBatchingWindowInSeconds": 300},
        {"ScalingConfig": {"MaximumConcurrency": 2}},
        {"ScalingConfig": {"MaximumConcurrency": 1000}},
        {"FilterCriteria": {"Filters": [{"Pattern": '{"body": {"a": [1]}}'}] * 5}},
        {"FunctionResponseTypes": ["ReportBatchItemFailures"]},
    ):
        made = api.mapping(FunctionName=name, EventSourceArn=f"{QUEUE}-{uuid.uuid4().hex[:8]}", **change)
        kept(api, "CreateEventSourceMapping", str(change)[:80], made, change)
    for change, error in (
        ({"BatchSize": 0}, "ValidationException"),
        ({"BatchSize": 10001}, "ValidationException"),
        ({"BatchSize": 11}, "InvalidParameterValueException"),
        ({"MaximumBatchingWindowInSeconds": 301}, "ValidationException"),
        ({"ScalingConfig": {"MaximumConcurrency": 1}}, "ValidationException"),
        ({"ScalingConfig": {"MaximumConcurrency": 1001}}, "ValidationException"),
        ({"FilterCriteria": {"Filters": [{"Pattern": "no json"}]}}, "InvalidParameterValueException"),
        ({"FilterCriteria": {"Filters": [{"Pattern": '{"a": [1]}'}] * 11}}, "InvalidParameterValueException"),
        ({"FunctionResponseTypes": ["Other"]}, "ValidationException"),
    ):
        api.refused("CreateEventSourceMapping", 400, error, FunctionName=name, EventSourceArn=QUEUE, **change)
    api.same(
        "ListEventSourceMappings", "refusals make nothing", api("ListEventSourceMappings", EventSourceArn=QUEUE)["EventSourceMappings"], []
    )


def test_limits_of_urls(api):
    name = api.function()
    for cors in (
        {"MaxAge": 0},
        {"MaxAge": 86400},
        {"AllowOrigins": ["*"], "AllowMethods": ["*"], "AllowHeaders": ["*"]},
        {"AllowOrigins": [f"https://o{number}.example" for number in range(100)]},
        {"AllowMethods": ["GET", "PUT", "HEAD", "POST", "PATCH", "DELETE"]},
    ):
        made = api("CreateFunctionUrlConfig", FunctionName=name, AuthType="NONE", Cors=cors)
        kept(api, "CreateFunctionUrlConfig", str(cors)[:60], made, {"Cors": cors})
        api("DeleteFunctionUrlConfig", FunctionName=name)
    for cors in ({"MaxAge": -1}, {"MaxAge": 86401}, {"AllowOrigins": ["https://a.example"] * 101}, {"AllowMethods": ["GET"] * 7}):
        api.refused("CreateFunctionUrlConfig", 400, "ValidationException", FunctionName=name, AuthType="NONE", Cors=cors)
    api.refused("GetFunctionUrlConfig", 404, "ResourceNotFoundException", FunctionName=name)


def test_a_function_may_have_five_layers(api):
    stem = "conf-five-" + uuid.uuid4().hex[:8]
    arns = []
    for number in range(6):
        made = api("PublishLayerVersion", LayerName=f"{stem}-{number}", Content={"ZipFile": package(f"{number}\n", f"python/l{number}.py")})
        api.cleanup.callback(api.caller.send, "DeleteLayerVersion", {"LayerName": f"{stem}-{number}", "VersionNumber": 1})
        arns.append(made["LayerVersionArn"])
    source = "import os\ndef handler(event, context):\n    return sorted(os.listdir('/opt/python'))\n"
    name = api.function(Layers=arns[:5], Code={"ZipFile": package(source)})
    got = api("GetFunctionConfiguration", FunctionName=name)["Layers"]
    api.same("GetFunctionConfiguration", "in order", [layer["Arn"] for layer in got], arns[:5])
    api.same(
        "Invoke", "all are in /opt", api("Invoke", FunctionName=name)["Payload"].read(), b'["l0.py", "l1.py", "l2.py", "l3.py", "l4.py"]'
    )
    api.refused("UpdateFunctionConfiguration", 400, "InvalidParameterValueException", FunctionName=name, Layers=arns)


LISTS = {
    "ListFunctions": ({}, 10000),
    "ListAliases": ({"FunctionName": None}, 10000),
    "ListVersionsByFunction": ({"FunctionName": None}, 10000),
    "ListFunctionEventInvokeConfigs": ({"FunctionName": None}, 50),
    "ListFunctionUrlConfigs": ({"FunctionName": None}, 50),
    "ListProvisionedConcurrencyConfigs": ({"FunctionName": None}, 50),
    "ListEventSourceMappings": ({}, 10000),
    "ListLayers": ({}, 50),
    "ListLayerVersions": ({"LayerName": "no-such-layer"}, 50),
}


@pytest.mark.parametrize("operation", LISTS)
def test_limits_of_pages(api, operation):
    members, most = LISTS[operation]
    values = {key: value or api.function() for key, value in members.items()}
    for number in (1, most):
        api(operation, MaxItems=number, **values)
    for number in (0, -1, most + 1):
        api.refused(
            operation,
            400,
            "ValidationException",
            "at 'maxItems' failed to satisfy constraint: Member must have value ",
            MaxItems=number,
            **values,
        )
    for marker in ("nonsense", "\u0000", "AAAA", "x" * 5000, "../../x", "'; --"):
        # What the service says to a marker it never gave is not known for each list: a refusal, or a page of the model's form.
        reply = api.caller.send(operation, {"Marker": marker, **values})
        problems = success_problems(api.caller, operation, reply) if reply.status == 200 else error_problems(reply)
        if reply.status != 200 and (reply.status, reply.error) not in (
            (400, "InvalidParameterValueException"),
            (400, "ValidationException"),
        ):
            problems.append(f"expected a page or a refusal, got {reply}")
        api.tally.record(f"marker {marker[:20]!r}", problems, operation)
