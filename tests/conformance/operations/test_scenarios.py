"""Handwritten: every operation at its work, valid calls and the refusals that depend on what exists."""

import base64
import hashlib
import json
import time
import urllib.request
import uuid

from scenario import ACCOUNT, REGION, function_arn, layer_arn, package

NO_FUNCTION = "Function not found: "
STALE = (
    "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
)
STALE_POLICY = "The Revision Id provided does not match the latest Revision Id. Call the GetPolicy API to retrieve the latest Revision Id"
NOT_THERE = "The resource you requested does not exist."
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:conformance-queue"


def test_a_function_is_made_read_changed_and_deleted(api):
    name = "conf-" + uuid.uuid4().hex[:12]
    code = package()
    made = api(
        "CreateFunction", FunctionName=name, Runtime="python3.11", Role=f"arn:aws:iam::{ACCOUNT}:role/test", Handler="app.handler",
        Code={"ZipFile": code}, Description="all of it", Timeout=7, MemorySize=256, Environment={"Variables": {"KEY": "value"}},
        TracingConfig={"Mode": "Active"}, Tags={"team": "a"}, EphemeralStorage={"Size": 1024}, Architectures=["x86_64"],
        DeadLetterConfig={"TargetArn": QUEUE}, LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG"},
        SnapStart={"ApplyOn": "None"},
    )  # fmt: skip
    api.same(
        "CreateFunction", "state", (made["State"], made["StateReasonCode"], made.get("LastUpdateStatus")), ("Pending", "Creating", None)
    )
    api.same("CreateFunction", "digest", made["CodeSha256"], base64.b64encode(hashlib.sha256(code).digest()).decode())
    api.refused("CreateFunction", 409, "ResourceConflictException", "Function already exist: " + name, FunctionName=name, Runtime="python3.11",
                Role=f"arn:aws:iam::{ACCOUNT}:role/test", Handler="app.handler", Code={"ZipFile": base64.b64encode(code).decode()})  # fmt: skip
    api.settle(name)
    read = api("GetFunction", FunctionName=name)
    api.same("GetFunction", "tags", read["Tags"], {"team": "a"})
    api.same("GetFunction", "states", (read["Configuration"]["State"], read["Configuration"]["LastUpdateStatus"]), ("Active", "Successful"))
    api.same("GetFunction", "code", urllib.request.urlopen(read["Code"]["Location"]).read(), code)
    configuration = api("GetFunctionConfiguration", FunctionName=name)
    api.same("GetFunctionConfiguration", "as GetFunction", configuration, read["Configuration"])
    api.same(
        "GetFunctionConfiguration",
        "qualified",
        api("GetFunctionConfiguration", FunctionName=name, Qualifier="$LATEST")["FunctionArn"],
        function_arn(name, "$LATEST"),
    )
    changed = api(
        "UpdateFunctionConfiguration",
        FunctionName=name,
        MemorySize=512,
        Environment={"Variables": {}},
        RevisionId=configuration["RevisionId"],
    )
    api.same(
        "UpdateFunctionConfiguration",
        "status",
        (changed["MemorySize"], changed["LastUpdateStatus"], changed["LastUpdateStatusReasonCode"]),
        (512, "InProgress", "Creating"),
    )
    api.same("UpdateFunctionConfiguration", "a revision of its own", changed["RevisionId"] != configuration["RevisionId"], True)
    api.settle(name)
    api.refused(
        "UpdateFunctionConfiguration",
        412,
        "PreconditionFailedException",
        STALE,
        FunctionName=name,
        Timeout=4,
        RevisionId=configuration["RevisionId"],
    )
    newer = package("def handler(event, context):\n    return 'new'\n")
    updated = api("UpdateFunctionCode", FunctionName=name, ZipFile=newer)
    api.same("UpdateFunctionCode", "digest", updated["CodeSha256"], base64.b64encode(hashlib.sha256(newer).digest()).decode())
    api.settle(name)
    api.refused(
        "UpdateFunctionCode",
        412,
        "PreconditionFailedException",
        STALE,
        FunctionName=name,
        ZipFile=base64.b64encode(code).decode(),
        RevisionId=changed["RevisionId"],
    )
    tried = api("UpdateFunctionCode", FunctionName=name, ZipFile=code, DryRun=True)
    api.same("UpdateFunctionCode", "a dry run", tried["CodeSha256"], made["CodeSha256"])
    api.same(
        "GetFunctionConfiguration",
        "after a dry run",
        api("GetFunctionConfiguration", FunctionName=name)["CodeSha256"],
        updated["CodeSha256"],
    )
    published = api("UpdateFunctionCode", FunctionName=name, ZipFile=code, Publish=True)
    api.same("UpdateFunctionCode", "published", (published["Version"], published["FunctionArn"]), ("1", function_arn(name, "1")))
    api.settle(name)
    api.refused(
        "DeleteFunction",
        400,
        "InvalidParameterValueException",
        "$LATEST version cannot be deleted without deleting the function.",
        FunctionName=name,
        Qualifier="$LATEST",
    )
    api("DeleteFunction", FunctionName=name, Qualifier="1")
    api.refused("GetFunction", 404, "ResourceNotFoundException", NO_FUNCTION + function_arn(name, "1"), FunctionName=name, Qualifier="1")
    api("DeleteFunction", FunctionName=name)
    for operation in ("DeleteFunction", "GetFunction", "GetFunctionConfiguration"):
        api.refused(operation, 404, "ResourceNotFoundException", NO_FUNCTION + function_arn(name), FunctionName=name)


def test_functions_are_listed_by_page(api):
    names = sorted(api.function() for _ in range(3))
    listed, marker = [], None
    while True:
        page = api("ListFunctions", MaxItems=2, **({"Marker": marker} if marker else {}))
        api.same("ListFunctions", "page size", len(page["Functions"]) <= 2, True)
        listed += [each["FunctionName"] for each in page["Functions"]]
        marker = page.get("NextMarker")
        if not marker:
            break
    api.same("ListFunctions", "all, in order", [each for each in listed if each in names], names)
    api.same("ListFunctions", "none twice", len(listed), len(set(listed)))
    api("PublishVersion", FunctionName=names[0])
    every = []
    for page in api.caller.client.get_paginator("list_functions").paginate(FunctionVersion="ALL"):
        every += [each["FunctionArn"] for each in page["Functions"]]
    api.same(
        "ListFunctions",
        "versions too",
        [arn for arn in every if f":{names[0]}:" in arn],
        [function_arn(names[0], "$LATEST"), function_arn(names[0], "1")],
    )
    api.refused("ListFunctions", 400, "InvalidParameterValueException", Marker="nonsense")


def test_calls_are_answered(api):
    name = api.function(Publish=True)
    answer = api("Invoke", FunctionName=name, Payload=b'{"a": 1}', LogType="Tail")
    api.same("Invoke", "payload", json.loads(answer["Payload"].read() or b"null"), {"a": 1})
    api.same(
        "Invoke",
        "version and log",
        (answer["ExecutedVersion"], b"END RequestId" in base64.b64decode(answer["LogResult"])),
        ("$LATEST", True),
    )
    failed = api("Invoke", FunctionName=name, Payload=b'{"fail": true}')
    api.same(
        "Invoke",
        "a function's error",
        (failed["StatusCode"], failed["FunctionError"], json.loads(failed["Payload"].read())["errorType"]),
        (200, "Unhandled", "ValueError"),
    )
    api.same("Invoke", "a version", api("Invoke", FunctionName=name, Qualifier="1")["ExecutedVersion"], "1")
    dry = api("Invoke", FunctionName=name, InvocationType="DryRun")
    api.same("Invoke", "a dry run", (dry["StatusCode"], dry["Payload"].read()), (204, b""))
    api.refused("Invoke", 404, "ResourceNotFoundException", NO_FUNCTION + function_arn(name, "9"), FunctionName=name, Qualifier="9")
    api.refused("Invoke", 404, "ResourceNotFoundException", NO_FUNCTION + function_arn("conf-none", "$LATEST"), FunctionName="conf-none")
    stream = api("InvokeWithResponseStream", FunctionName=name, Payload=b'{"b": 2}')
    events = list(stream["EventStream"])
    chunks = b"".join(event["PayloadChunk"]["Payload"] for event in events if "PayloadChunk" in event)
    api.same("InvokeWithResponseStream", "payload and end", (json.loads(chunks), "InvokeComplete" in events[-1]), ({"b": 2}, True))
    api.refused("InvokeWithResponseStream", 404, "ResourceNotFoundException", NO_FUNCTION, FunctionName="conf-none")


def test_versions_are_published_and_listed(api):
    name = api.function()
    first = api("PublishVersion", FunctionName=name, Description="first")
    api.same(
        "PublishVersion", "first", (first["Version"], first["Description"], first["FunctionArn"]), ("1", "first", function_arn(name, "1"))
    )
    again = api("PublishVersion", FunctionName=name, Description="changed words only")
    api.same("PublishVersion", "nothing changed", (again["Version"], again["RevisionId"]), ("1", first["RevisionId"]))
    api.same("PublishVersion", "something changed", api.version(name), "2")
    api.refused("PublishVersion", 412, "PreconditionFailedException", STALE, FunctionName=name, RevisionId=first["RevisionId"])
    api.refused(
        "PublishVersion",
        400,
        "InvalidParameterValueException",
        "CodeSHA256 (wrong) is different from current CodeSHA256 in $LATEST",
        FunctionName=name,
        CodeSha256="wrong",
    )
    listed = api("ListVersionsByFunction", FunctionName=name)["Versions"]
    api.same("ListVersionsByFunction", "all", [each["Version"] for each in listed], ["$LATEST", "1", "2"])
    page = api("ListVersionsByFunction", FunctionName=name, MaxItems=2)
    rest = api("ListVersionsByFunction", FunctionName=name, MaxItems=2, Marker=page["NextMarker"])
    api.same("ListVersionsByFunction", "pages", [each["Version"] for each in page["Versions"] + rest["Versions"]], ["$LATEST", "1", "2"])
    api.same("ListVersionsByFunction", "no page after the last", "NextMarker" in rest, False)


def test_aliases_live(api):
    name = api.function()
    api.version(name), api.version(name)
    made = api(
        "CreateAlias",
        FunctionName=name,
        Name="live",
        FunctionVersion="1",
        Description="words",
        RoutingConfig={"AdditionalVersionWeights": {"2": 0.25}},
    )
    api.same("CreateAlias", "answer", {key: made[key] for key in made if key != "RevisionId"}, {
        "AliasArn": function_arn(name, "live"), "Name": "live", "FunctionVersion": "1", "Description": "words",
        "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.25}}})  # fmt: skip
    api.refused(
        "CreateAlias",
        409,
        "ResourceConflictException",
        f"Alias already exists: {function_arn(name, 'live')}",
        FunctionName=name,
        Name="live",
        FunctionVersion="1",
    )
    api.refused(
        "CreateAlias",
        404,
        "ResourceNotFoundException",
        NO_FUNCTION + function_arn(name, "77"),
        FunctionName=name,
        Name="other",
        FunctionVersion="77",
    )
    for routing in ({"1": 0.5}, {"2": 0.5, "3": 0.1}, {"77": 0.5}):
        reply = api.caller.send(
            "CreateAlias",
            {"FunctionName": name, "Name": "other", "FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": routing}},
        )
        api.same("CreateAlias", f"routing to {routing} is refused", reply.status in (400, 404), True)
    api.refused(
        "CreateAlias",
        400,
        "InvalidParameterValueException",
        FunctionName=name,
        Name="other",
        FunctionVersion="$LATEST",
        RoutingConfig={"AdditionalVersionWeights": {"1": 0.5}},
    )
    api.same("GetAlias", "as made", api("GetAlias", FunctionName=name, Name="live"), made)
    api.refused(
        "GetAlias", 404, "ResourceNotFoundException", f"Cannot find alias arn: {function_arn(name, 'none')}", FunctionName=name, Name="none"
    )
    changed = api("UpdateAlias", FunctionName=name, Name="live", FunctionVersion="2", RoutingConfig={}, RevisionId=made["RevisionId"])
    api.same(
        "UpdateAlias", "moved", (changed["FunctionVersion"], changed["Description"], changed.get("RoutingConfig")), ("2", "words", None)
    )
    api.refused(
        "UpdateAlias",
        412,
        "PreconditionFailedException",
        STALE,
        FunctionName=name,
        Name="live",
        Description="x",
        RevisionId=made["RevisionId"],
    )
    api.refused("UpdateAlias", 404, "ResourceNotFoundException", FunctionName=name, Name="none", Description="x")
    api("CreateAlias", FunctionName=name, Name="next", FunctionVersion="1")
    api("CreateAlias", FunctionName=name, Name="head", FunctionVersion="$LATEST")
    api.same(
        "ListAliases", "all, by name", [each["Name"] for each in api("ListAliases", FunctionName=name)["Aliases"]], ["head", "live", "next"]
    )
    api.same(
        "ListAliases",
        "of a version",
        [each["Name"] for each in api("ListAliases", FunctionName=name, FunctionVersion="1")["Aliases"]],
        ["next"],
    )
    page = api("ListAliases", FunctionName=name, MaxItems=2)
    rest = api("ListAliases", FunctionName=name, MaxItems=2, Marker=page["NextMarker"])
    api.same("ListAliases", "pages", [each["Name"] for each in page["Aliases"] + rest["Aliases"]], ["head", "live", "next"])
    api.same("Invoke", "by alias", api("Invoke", FunctionName=name, Qualifier="live")["ExecutedVersion"], "2")
    api.same("GetFunction", "by alias", api("GetFunction", FunctionName=f"{name}:live")["Configuration"]["Version"], "2")
    api.refused("DeleteFunction", 409, "ResourceConflictException", FunctionName=name, Qualifier="2")
    api("DeleteAlias", FunctionName=name, Name="live")
    api("DeleteAlias", FunctionName=name, Name="live")
    api.refused("GetAlias", 404, "ResourceNotFoundException", FunctionName=name, Name="live")
    api("DeleteFunction", FunctionName=name, Qualifier="2")


def test_concurrency_is_reserved(api):
    name = api.function()
    api.same("GetFunctionConcurrency", "none", api("GetFunctionConcurrency", FunctionName=name), {})
    api.same(
        "PutFunctionConcurrency",
        "answer",
        api("PutFunctionConcurrency", FunctionName=name, ReservedConcurrentExecutions=3),
        {"ReservedConcurrentExecutions": 3},
    )
    api.same("GetFunctionConcurrency", "answer", api("GetFunctionConcurrency", FunctionName=name), {"ReservedConcurrentExecutions": 3})
    api.same("GetFunction", "shows it", api("GetFunction", FunctionName=name).get("Concurrency"), {"ReservedConcurrentExecutions": 3})
    limits = api("GetAccountSettings")["AccountLimit"]
    whole = limits["ConcurrentExecutions"]
    api.refused(
        "PutFunctionConcurrency",
        400,
        "InvalidParameterValueException",
        "below its minimum value of [100]",
        FunctionName=name,
        ReservedConcurrentExecutions=whole + 1,
    )
    api("PutFunctionConcurrency", FunctionName=name, ReservedConcurrentExecutions=0)
    reply = api.caller.send("Invoke", {"FunctionName": name})
    api.same("Invoke", "reserved to none", (reply.status, reply.error, (reply.json or {}).get("Reason"), reply.message),
             (429, "TooManyRequestsException", "ReservedFunctionConcurrentInvocationLimitExceeded", "Rate Exceeded."))  # fmt: skip
    api("DeleteFunctionConcurrency", FunctionName=name)
    api("DeleteFunctionConcurrency", FunctionName=name)
    api.same("GetFunctionConcurrency", "after it was taken away", api("GetFunctionConcurrency", FunctionName=name), {})
    api.same("Invoke", "after it was taken away", api("Invoke", FunctionName=name)["StatusCode"], 200)


def test_concurrency_is_provisioned(api):
    name = api.function(Publish=True)
    api("CreateAlias", FunctionName=name, Name="live", FunctionVersion="1")
    nothing = "No Provisioned Concurrency Config found for this function"
    api.refused(
        "GetProvisionedConcurrencyConfig", 404, "ProvisionedConcurrencyConfigNotFoundException", nothing, FunctionName=name, Qualifier="1"
    )
    put = api("PutProvisionedConcurrencyConfig", FunctionName=name, Qualifier="1", ProvisionedConcurrentExecutions=1)
    api.same(
        "PutProvisionedConcurrencyConfig", "answer", (put["RequestedProvisionedConcurrentExecutions"], put["Status"]), (1, "IN_PROGRESS")
    )
    deadline = time.monotonic() + 15
    while (got := api("GetProvisionedConcurrencyConfig", FunctionName=name, Qualifier="1"))[
        "Status"
    ] == "IN_PROGRESS" and time.monotonic() < deadline:
        time.sleep(0.1)
    api.same("GetProvisionedConcurrencyConfig", "ready", {key: value for key, value in got.items() if key != "LastModified"}, {
        "RequestedProvisionedConcurrentExecutions": 1, "AllocatedProvisionedConcurrentExecutions": 1,
        "AvailableProvisionedConcurrentExecutions": 1, "Status": "READY"})  # fmt: skip
    listed = api("ListProvisionedConcurrencyConfigs", FunctionName=name)["ProvisionedConcurrencyConfigs"]
    api.same("ListProvisionedConcurrencyConfigs", "answer", [each["FunctionArn"] for each in listed], [function_arn(name, "1")])
    api.refused(
        "PutProvisionedConcurrencyConfig",
        400,
        "InvalidParameterValueException",
        FunctionName=name,
        Qualifier="$LATEST",
        ProvisionedConcurrentExecutions=1,
    )
    api.refused(
        "PutProvisionedConcurrencyConfig",
        404,
        "ResourceNotFoundException",
        FunctionName=name,
        Qualifier="none",
        ProvisionedConcurrentExecutions=1,
    )
    api("DeleteProvisionedConcurrencyConfig", FunctionName=name, Qualifier="1")
    api.refused(
        "GetProvisionedConcurrencyConfig", 404, "ProvisionedConcurrencyConfigNotFoundException", nothing, FunctionName=name, Qualifier="1"
    )
    api.same(
        "ListProvisionedConcurrencyConfigs",
        "after",
        api("ListProvisionedConcurrencyConfigs", FunctionName=name)["ProvisionedConcurrencyConfigs"],
        [],
    )


def test_event_invoke_configurations_live(api):
    name = api.function(Publish=True)
    nothing = "doesn't have an EventInvokeConfig"
    api.refused(
        "GetFunctionEventInvokeConfig",
        404,
        "ResourceNotFoundException",
        f"The function {function_arn(name, '$LATEST')} {nothing}",
        FunctionName=name,
    )
    put = api(
        "PutFunctionEventInvokeConfig", FunctionName=name, MaximumRetryAttempts=1, DestinationConfig={"OnFailure": {"Destination": QUEUE}}
    )
    api.same("PutFunctionEventInvokeConfig", "answer", {key: value for key, value in put.items() if key != "LastModified"}, {
        "FunctionArn": function_arn(name, "$LATEST"), "MaximumRetryAttempts": 1, "DestinationConfig": {"OnSuccess": {}, "OnFailure": {"Destination": QUEUE}}})  # fmt: skip
    api.same("GetFunctionEventInvokeConfig", "as put", api("GetFunctionEventInvokeConfig", FunctionName=name), put)
    updated = api("UpdateFunctionEventInvokeConfig", FunctionName=name, MaximumEventAgeInSeconds=90)
    api.same(
        "UpdateFunctionEventInvokeConfig",
        "merged",
        (updated.get("MaximumRetryAttempts"), updated["MaximumEventAgeInSeconds"], updated["DestinationConfig"]),
        (1, 90, put["DestinationConfig"]),
    )
    again = api("PutFunctionEventInvokeConfig", FunctionName=name, MaximumEventAgeInSeconds=60)
    api.same(
        "PutFunctionEventInvokeConfig",
        "replaces",
        (again.get("MaximumRetryAttempts"), again["DestinationConfig"]),
        (None, {"OnSuccess": {}, "OnFailure": {}}),
    )
    api("PutFunctionEventInvokeConfig", FunctionName=name, Qualifier="1", MaximumRetryAttempts=0)
    listed = api("ListFunctionEventInvokeConfigs", FunctionName=name)["FunctionEventInvokeConfigs"]
    api.same(
        "ListFunctionEventInvokeConfigs",
        "all",
        [each["FunctionArn"] for each in listed],
        [function_arn(name, "$LATEST"), function_arn(name, "1")],
    )
    page = api("ListFunctionEventInvokeConfigs", FunctionName=name, MaxItems=1)
    api.same("ListFunctionEventInvokeConfigs", "pages", len(page["FunctionEventInvokeConfigs"]), 1)
    rest = api("ListFunctionEventInvokeConfigs", FunctionName=name, MaxItems=1, Marker=page.get("NextMarker", "missing"))
    api.same(
        "ListFunctionEventInvokeConfigs",
        "second page",
        [each["FunctionArn"] for each in rest["FunctionEventInvokeConfigs"]],
        [function_arn(name, "1")],
    )
    api("DeleteFunctionEventInvokeConfig", FunctionName=name)
    api.refused("DeleteFunctionEventInvokeConfig", 404, "ResourceNotFoundException", nothing, FunctionName=name)
    api.refused("UpdateFunctionEventInvokeConfig", 404, "ResourceNotFoundException", nothing, FunctionName=name, MaximumRetryAttempts=1)
    api("DeleteFunctionEventInvokeConfig", FunctionName=name, Qualifier="1")


def settled_mapping(api, identity):
    deadline = time.monotonic() + 10
    while (got := api("GetEventSourceMapping", UUID=identity))["State"] in (
        "Creating",
        "Enabling",
        "Disabling",
        "Updating",
    ) and time.monotonic() < deadline:
        time.sleep(0.05)
    return got


def test_event_source_mappings_live(api):
    name = api.function()
    queue = f"{QUEUE}-{uuid.uuid4().hex[:8]}"
    made = api.mapping(FunctionName=name, EventSourceArn=queue, Tags={"a": "b"})
    identity = made["UUID"]
    api.same("CreateEventSourceMapping", "answer", {key: value for key, value in made.items() if key != "LastModified"}, {
        "UUID": identity, "BatchSize": 10, "MaximumBatchingWindowInSeconds": 0, "EventSourceArn": queue, "FunctionArn": function_arn(name),
        "EventSourceMappingArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:event-source-mapping:{identity}", "FunctionResponseTypes": [],
        "State": "Creating", "StateTransitionReason": "USER_INITIATED"})  # fmt: skip
    api.refused(
        "CreateEventSourceMapping",
        409,
        "ResourceConflictException",
        "Please update or delete the existing mapping with UUID " + identity,
        FunctionName=name,
        EventSourceArn=queue,
    )
    api.same("GetEventSourceMapping", "settles", settled_mapping(api, identity)["State"], "Enabled")
    updated = api("UpdateEventSourceMapping", UUID=identity, Enabled=False, BatchSize=5, ScalingConfig={"MaximumConcurrency": 2})
    api.same(
        "UpdateEventSourceMapping",
        "answer",
        (updated["BatchSize"], updated["State"] in ("Disabling", "Updating"), updated["ScalingConfig"]),
        (5, True, {"MaximumConcurrency": 2}),
    )
    api.same("GetEventSourceMapping", "disabled", settled_mapping(api, identity)["State"], "Disabled")
    listed = api("ListEventSourceMappings", FunctionName=name)["EventSourceMappings"]
    api.same("ListEventSourceMappings", "of a function", [each["UUID"] for each in listed], [identity])
    api.same(
        "ListEventSourceMappings",
        "of a source",
        [each["UUID"] for each in api("ListEventSourceMappings", EventSourceArn=queue)["EventSourceMappings"]],
        [identity],
    )
    deleted = api("DeleteEventSourceMapping", UUID=identity)
    api.same("DeleteEventSourceMapping", "answer", deleted["State"], "Deleting")
    deadline = time.monotonic() + 10
    while api.caller.send("GetEventSourceMapping", {"UUID": identity}).status == 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    for operation in ("GetEventSourceMapping", "DeleteEventSourceMapping", "UpdateEventSourceMapping"):
        api.refused(operation, 404, "ResourceNotFoundException", NOT_THERE, UUID=identity)


def test_layers_live(api):
    name = "conf-layer-" + uuid.uuid4().hex[:8]
    content = package("x = 1\n", "python/extra.py")
    made = api(
        "PublishLayerVersion",
        LayerName=name,
        Description="words",
        Content={"ZipFile": content},
        CompatibleRuntimes=["python3.11"],
        CompatibleArchitectures=["x86_64"],
        LicenseInfo="MIT",
    )
    api.same("PublishLayerVersion", "answer", (made["LayerArn"], made["LayerVersionArn"], made["Version"], made["Description"], made["LicenseInfo"], made["CompatibleRuntimes"], made["CompatibleArchitectures"]),
             (layer_arn(name), layer_arn(name, 1), 1, "words", "MIT", ["python3.11"], ["x86_64"]))  # fmt: skip
    api.same(
        "PublishLayerVersion",
        "content",
        (made["Content"]["CodeSize"], made["Content"]["CodeSha256"]),
        (len(content), base64.b64encode(hashlib.sha256(content).digest()).decode()),
    )
    api.same("PublishLayerVersion", "numbers go on", api("PublishLayerVersion", LayerName=name, Content={"ZipFile": content})["Version"], 2)
    read = api("GetLayerVersion", LayerName=name, VersionNumber=1)
    api.same("GetLayerVersion", "content", urllib.request.urlopen(read["Content"]["Location"]).read(), content)
    api.same(
        "GetLayerVersion",
        "as made",
        {key: value for key, value in read.items() if key != "Content"},
        {key: value for key, value in made.items() if key != "Content"},
    )
    api.same("GetLayerVersionByArn", "answer", api("GetLayerVersionByArn", Arn=layer_arn(name, 1))["LayerVersionArn"], layer_arn(name, 1))
    api.refused("GetLayerVersion", 404, "ResourceNotFoundException", LayerName=name, VersionNumber=9)
    api.refused("GetLayerVersionByArn", 404, "ResourceNotFoundException", Arn=layer_arn(name, 9))
    api.same(
        "ListLayerVersions", "newest first", [each["Version"] for each in api("ListLayerVersions", LayerName=name)["LayerVersions"]], [2, 1]
    )
    api.same(
        "ListLayerVersions",
        "by runtime",
        [each["Version"] for each in api("ListLayerVersions", LayerName=name, CompatibleRuntime="python3.11")["LayerVersions"]],
        [1],
    )
    listed = [each for each in api("ListLayers")["Layers"] if each["LayerName"] == name]
    api.same(
        "ListLayers",
        "its latest",
        [(each["LayerArn"], each["LatestMatchingVersion"]["Version"]) for each in listed],
        [(layer_arn(name), 2)],
    )
    function = api.function(Layers=[layer_arn(name, 1)])
    configuration = api("GetFunctionConfiguration", FunctionName=function)
    api.same(
        "GetFunctionConfiguration",
        "its layers",
        [(each["Arn"], each["CodeSize"]) for each in configuration["Layers"]],
        [(layer_arn(name, 1), len(content))],
    )
    api.refused("UpdateFunctionConfiguration", 400, "InvalidParameterValueException", FunctionName=function, Layers=[layer_arn(name, 9)])
    api.refused(
        "UpdateFunctionConfiguration",
        400,
        "InvalidParameterValueException",
        FunctionName=function,
        Layers=[layer_arn(name, 1), layer_arn(name, 2)],
    )
    api.same(
        "UpdateFunctionConfiguration", "no layers", "Layers" in api("UpdateFunctionConfiguration", FunctionName=function, Layers=[]), False
    )
    statement = api(
        "AddLayerVersionPermission", LayerName=name, VersionNumber=1, StatementId="all", Action="lambda:GetLayerVersion", Principal="*"
    )
    api.same("AddLayerVersionPermission", "statement", json.loads(statement["Statement"]),
             {"Sid": "all", "Effect": "Allow", "Principal": "*", "Action": "lambda:GetLayerVersion", "Resource": layer_arn(name, 1)})  # fmt: skip
    policy = api("GetLayerVersionPolicy", LayerName=name, VersionNumber=1)
    api.same(
        "GetLayerVersionPolicy",
        "answer",
        (json.loads(policy["Policy"])["Statement"], policy["RevisionId"]),
        ([json.loads(statement["Statement"])], statement["RevisionId"]),
    )
    api.refused(
        "AddLayerVersionPermission",
        409,
        "ResourceConflictException",
        LayerName=name,
        VersionNumber=1,
        StatementId="all",
        Action="lambda:GetLayerVersion",
        Principal="*",
    )
    api.refused("RemoveLayerVersionPermission", 404, "ResourceNotFoundException", LayerName=name, VersionNumber=1, StatementId="none")
    api("RemoveLayerVersionPermission", LayerName=name, VersionNumber=1, StatementId="all")
    api.refused("GetLayerVersionPolicy", 404, "ResourceNotFoundException", LayerName=name, VersionNumber=1)
    api("DeleteLayerVersion", LayerName=name, VersionNumber=1)
    api("DeleteLayerVersion", LayerName=name, VersionNumber=1)
    api.refused("GetLayerVersion", 404, "ResourceNotFoundException", LayerName=name, VersionNumber=1)
    api("DeleteLayerVersion", LayerName=name, VersionNumber=2)
    api.same("ListLayers", "without it", [each for each in api("ListLayers")["Layers"] if each["LayerName"] == name], [])
    api.same(
        "PublishLayerVersion",
        "numbers never come again",
        api("PublishLayerVersion", LayerName=name, Content={"ZipFile": content})["Version"],
        3,
    )
    api("DeleteLayerVersion", LayerName=name, VersionNumber=3)


def test_permissions_live(api):
    name = api.function(Publish=True)
    api.refused("GetPolicy", 404, "ResourceNotFoundException", NOT_THERE, FunctionName=name)
    bucket = "arn:aws:s3:::bucket"
    added = api(
        "AddPermission",
        FunctionName=name,
        StatementId="s3",
        Action="lambda:InvokeFunction",
        Principal="s3.amazonaws.com",
        SourceArn=bucket,
        SourceAccount=ACCOUNT,
    )
    statement = json.loads(added["Statement"])
    api.same("AddPermission", "statement", statement, {
        "Sid": "s3", "Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "lambda:InvokeFunction", "Resource": function_arn(name),
        "Condition": {"StringEquals": {"AWS:SourceAccount": ACCOUNT}, "ArnLike": {"AWS:SourceArn": bucket}}})  # fmt: skip
    policy = api("GetPolicy", FunctionName=name)
    api.same("GetPolicy", "answer", json.loads(policy["Policy"]), {"Version": "2012-10-17", "Id": "default", "Statement": [statement]})
    api.refused(
        "AddPermission",
        409,
        "ResourceConflictException",
        "The statement id (s3) provided already exists.",
        FunctionName=name,
        StatementId="s3",
        Action="lambda:InvokeFunction",
        Principal="s3.amazonaws.com",
    )
    api.refused(
        "AddPermission",
        412,
        "PreconditionFailedException",
        STALE_POLICY,
        FunctionName=name,
        StatementId="b",
        Action="lambda:InvokeFunction",
        Principal="*",
        RevisionId=str(uuid.uuid4()),
    )
    root = api(
        "AddPermission",
        FunctionName=name,
        StatementId="account",
        Action="lambda:InvokeFunction",
        Principal=ACCOUNT,
        RevisionId=policy["RevisionId"],
    )
    api.same("AddPermission", "an account", json.loads(root["Statement"])["Principal"], {"AWS": f"arn:aws:iam::{ACCOUNT}:root"})
    api("AddPermission", FunctionName=name, Qualifier="1", StatementId="s3", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com")
    api.same(
        "GetPolicy",
        "of a version",
        json.loads(api("GetPolicy", FunctionName=name, Qualifier="1")["Policy"])["Statement"][0]["Resource"],
        function_arn(name, "1"),
    )
    api.refused("RemovePermission", 404, "ResourceNotFoundException", FunctionName=name, StatementId="none")
    api.refused(
        "RemovePermission",
        412,
        "PreconditionFailedException",
        STALE_POLICY,
        FunctionName=name,
        StatementId="s3",
        RevisionId=str(uuid.uuid4()),
    )
    api("RemovePermission", FunctionName=name, StatementId="s3")
    api("RemovePermission", FunctionName=name, StatementId="account")
    api.refused("GetPolicy", 404, "ResourceNotFoundException", NOT_THERE, FunctionName=name)
    api("RemovePermission", FunctionName=name, Qualifier="1", StatementId="s3")
    api.refused("RemovePermission", 404, "ResourceNotFoundException", FunctionName=name, StatementId="s3")


def test_function_urls_live(api):
    name = api.function(Publish=True)
    api("CreateAlias", FunctionName=name, Name="live", FunctionVersion="1")
    cors = {
        "AllowOrigins": ["https://example.com"],
        "AllowMethods": ["GET", "PUT"],
        "AllowHeaders": ["x-a"],
        "ExposeHeaders": ["x-b"],
        "MaxAge": 60,
        "AllowCredentials": True,
    }
    made = api("CreateFunctionUrlConfig", FunctionName=name, AuthType="NONE", Cors=cors, InvokeMode="RESPONSE_STREAM")
    api.same(
        "CreateFunctionUrlConfig",
        "answer",
        (made["FunctionArn"], made["AuthType"], made["Cors"], made["InvokeMode"]),
        (function_arn(name), "NONE", cors, "RESPONSE_STREAM"),
    )
    api.same(
        "CreateFunctionUrlConfig",
        "address",
        (made["FunctionUrl"].startswith("http"), ".lambda-url." in made["FunctionUrl"], made["FunctionUrl"].endswith("/")),
        (True, True, True),
    )
    api.refused(
        "CreateFunctionUrlConfig",
        409,
        "ResourceConflictException",
        f"Failed to create function url config for [functionArn = {function_arn(name)}]. Error message:  FunctionUrlConfig exists for this Lambda function",
        FunctionName=name,
        AuthType="NONE",
    )
    got = api("GetFunctionUrlConfig", FunctionName=name)
    api.same(
        "GetFunctionUrlConfig",
        "as made",
        (got["FunctionUrl"], got["CreationTime"], got["InvokeMode"]),
        (made["FunctionUrl"], made["CreationTime"], "RESPONSE_STREAM"),
    )
    updated = api("UpdateFunctionUrlConfig", FunctionName=name, AuthType="AWS_IAM", InvokeMode="BUFFERED")
    api.same(
        "UpdateFunctionUrlConfig",
        "merged",
        (updated["AuthType"], updated["FunctionUrl"], updated["Cors"], updated["InvokeMode"]),
        ("AWS_IAM", made["FunctionUrl"], cors, "BUFFERED"),
    )
    other = api("CreateFunctionUrlConfig", FunctionName=name, Qualifier="live", AuthType="NONE")
    api.same(
        "CreateFunctionUrlConfig",
        "of an alias",
        (other["FunctionArn"], other["FunctionUrl"] != made["FunctionUrl"]),
        (function_arn(name, "live"), True),
    )
    listed = api("ListFunctionUrlConfigs", FunctionName=name)["FunctionUrlConfigs"]
    api.same(
        "ListFunctionUrlConfigs", "both", sorted(each["FunctionArn"] for each in listed), [function_arn(name), function_arn(name, "live")]
    )
    api.refused("CreateFunctionUrlConfig", 404, "ResourceNotFoundException", FunctionName=name, Qualifier="none", AuthType="NONE")
    api("DeleteFunctionUrlConfig", FunctionName=name)
    for operation in ("GetFunctionUrlConfig", "DeleteFunctionUrlConfig", "UpdateFunctionUrlConfig"):
        api.refused(operation, 404, "ResourceNotFoundException", NOT_THERE, FunctionName=name)
    api.same(
        "GetFunctionUrlConfig",
        "of the alias still",
        api("GetFunctionUrlConfig", FunctionName=name, Qualifier="live")["FunctionArn"],
        function_arn(name, "live"),
    )
    api("DeleteFunctionUrlConfig", FunctionName=name, Qualifier="live")


def test_tags_live(api):
    name = api.function(Tags={"a": "1"})
    resource = function_arn(name)
    api.same("ListTags", "answer", api("ListTags", Resource=resource)["Tags"], {"a": "1"})
    api("TagResource", Resource=resource, Tags={"b": "2", "a": "3"})
    api.same("ListTags", "merged", api("ListTags", Resource=resource)["Tags"], {"a": "3", "b": "2"})
    api("UntagResource", Resource=resource, TagKeys=["a", "none"])
    api.same("ListTags", "without", api("ListTags", Resource=resource)["Tags"], {"b": "2"})
    for operation, members in (("ListTags", {}), ("TagResource", {"Tags": {"a": "b"}}), ("UntagResource", {"TagKeys": ["a"]})):
        api.refused(
            operation,
            404,
            "ResourceNotFoundException",
            NO_FUNCTION + function_arn("conf-none"),
            Resource=function_arn("conf-none"),
            **members,
        )
    for qualifier in ("1", "$LATEST", "live"):
        api.refused(
            "TagResource",
            400,
            "InvalidParameterValueException",
            "Tags on function aliases and versions are not supported. Please specify a function ARN.",
            Resource=function_arn(name, qualifier),
            Tags={"a": "b"},
        )


def test_small_settings_live(api):
    name = api.function(Publish=True)
    unsigned = api.caller.send("GetFunctionCodeSigningConfig", {"FunctionName": name})  # recorded: not even the name, which the model requires
    api.same("GetFunctionCodeSigningConfig", "none", (unsigned.status, unsigned.json), (200, {}))
    got = api("GetRuntimeManagementConfig", FunctionName=name)
    api.same("GetRuntimeManagementConfig", "default", (got["UpdateRuntimeOn"], got["FunctionArn"]), ("Auto", function_arn(name, "$LATEST")))
    version = "arn:aws:lambda:us-east-1::runtime:" + "0" * 64
    put = api("PutRuntimeManagementConfig", FunctionName=name, UpdateRuntimeOn="Manual", RuntimeVersionArn=version)
    api.same(
        "PutRuntimeManagementConfig",
        "answer",
        put,
        {"UpdateRuntimeOn": "Manual", "FunctionArn": function_arn(name, "$LATEST"), "RuntimeVersionArn": version},
    )
    api.same("GetRuntimeManagementConfig", "as put", api("GetRuntimeManagementConfig", FunctionName=name), put)
    api.same(
        "PutRuntimeManagementConfig",
        "by update",
        api("PutRuntimeManagementConfig", FunctionName=name, UpdateRuntimeOn="FunctionUpdate")["UpdateRuntimeOn"],
        "FunctionUpdate",
    )
    api.refused("PutRuntimeManagementConfig", 400, "InvalidParameterValueException", FunctionName=name, UpdateRuntimeOn="Manual")


def test_the_account_counts_truly(api):
    before = api("GetAccountSettings")
    code = package()
    name = api.function(Code={"ZipFile": code})
    after = api("GetAccountSettings")
    usage = [each["AccountUsage"] for each in (before, after)]
    api.same(
        "GetAccountSettings",
        "a function more",
        (usage[1]["FunctionCount"] - usage[0]["FunctionCount"], usage[1]["TotalCodeSize"] - usage[0]["TotalCodeSize"]),
        (1, len(code)),
    )
    limits = after["AccountLimit"]
    api.same(
        "GetAccountSettings",
        "limits",
        (limits["CodeSizeZipped"], limits["CodeSizeUnzipped"], limits["TotalCodeSize"]),
        (52428800, 262144000, 80530636800),
    )
    api("PutFunctionConcurrency", FunctionName=name, ReservedConcurrentExecutions=1)
    reserved = api("GetAccountSettings")["AccountLimit"]
    api.same("GetAccountSettings", "unreserved", limits["UnreservedConcurrentExecutions"] - reserved["UnreservedConcurrentExecutions"], 1)
    api("DeleteFunction", FunctionName=name)
    api.same("GetAccountSettings", "back again", api("GetAccountSettings")["AccountUsage"], before["AccountUsage"])


def test_recursion_is_allowed_or_ended(api):
    name = api.function()
    api.same("GetFunctionRecursionConfig", "default", api("GetFunctionRecursionConfig", FunctionName=name), {"RecursiveLoop": "Terminate"})
    for value in ("Allow", "Terminate"):
        api.same(
            "PutFunctionRecursionConfig",
            value,
            api("PutFunctionRecursionConfig", FunctionName=name, RecursiveLoop=value),
            {"RecursiveLoop": value},
        )
        api.same("GetFunctionRecursionConfig", value, api("GetFunctionRecursionConfig", FunctionName=name), {"RecursiveLoop": value})
