"""What operations mean for each other: what goes with a function, what outlives it, what routes calls."""

import collections
import json
import uuid

from scenario import ROLE, function_arn, layer_arn, package


def test_what_belongs_to_a_function_goes_with_it(api):
    name = api.function(Publish=True, Tags={"a": "b"})
    api("CreateAlias", FunctionName=name, Name="live", FunctionVersion="1")
    api("PutFunctionConcurrency", FunctionName=name, ReservedConcurrentExecutions=1)
    api("AddPermission", FunctionName=name, StatementId="s", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com")
    api("PutFunctionEventInvokeConfig", FunctionName=name, MaximumRetryAttempts=1)
    api("CreateFunctionUrlConfig", FunctionName=name, AuthType="NONE")
    api("PutRuntimeManagementConfig", FunctionName=name, UpdateRuntimeOn="FunctionUpdate")
    unreserved = api("GetAccountSettings")["AccountLimit"]["UnreservedConcurrentExecutions"]
    api("DeleteFunction", FunctionName=name)
    api.same(
        "GetAccountSettings",
        "its reserve is free",
        api("GetAccountSettings")["AccountLimit"]["UnreservedConcurrentExecutions"],
        unreserved + 1,
    )
    api(
        "CreateFunction",
        FunctionName=name,
        Runtime="python3.11",
        Role=ROLE,
        Handler="app.handler",
        Code={"ZipFile": package()},
        Publish=True,
    )
    api.settle(name)
    api.same("ListAliases", "none", api("ListAliases", FunctionName=name)["Aliases"], [])
    api.same("GetFunctionConcurrency", "none", api("GetFunctionConcurrency", FunctionName=name), {})
    api.refused("GetPolicy", 404, "ResourceNotFoundException", FunctionName=name)
    api.refused("GetFunctionEventInvokeConfig", 404, "ResourceNotFoundException", FunctionName=name)
    api.refused("GetFunctionUrlConfig", 404, "ResourceNotFoundException", FunctionName=name)
    api.same("ListTags", "none", api("ListTags", Resource=function_arn(name))["Tags"], {})
    api.same("GetRuntimeManagementConfig", "as new", api("GetRuntimeManagementConfig", FunctionName=name)["UpdateRuntimeOn"], "Auto")


def test_what_belongs_to_an_alias_goes_with_it(api):
    name = api.function(Publish=True)
    of_alias = {"FunctionName": name, "Qualifier": "live"}
    api("CreateAlias", FunctionName=name, Name="live", FunctionVersion="1")
    api("AddPermission", StatementId="s", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com", **of_alias)
    policy = json.loads(api("GetPolicy", **of_alias)["Policy"])
    api.same("GetPolicy", "of the alias", policy["Statement"][0]["Resource"], function_arn(name, "live"))
    api("PutFunctionEventInvokeConfig", MaximumRetryAttempts=1, **of_alias)
    api("CreateFunctionUrlConfig", AuthType="NONE", **of_alias)
    api("DeleteAlias", FunctionName=name, Name="live")
    for operation in ("GetFunctionEventInvokeConfig", "GetFunctionUrlConfig", "GetPolicy"):
        api.refused(operation, 404, "ResourceNotFoundException", **of_alias)
    api.same("ListFunctionUrlConfigs", "none", api("ListFunctionUrlConfigs", FunctionName=name)["FunctionUrlConfigs"], [])


def test_an_alias_shares_calls_by_weight(api):
    source = "def handler(event, context):\n    return context.function_version\n"
    name = api.function(Code={"ZipFile": package(source)})
    api.version(name), api.version(name)
    api("CreateAlias", FunctionName=name, Name="live", FunctionVersion="1", RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}})
    seen = collections.Counter()
    for _ in range(60):
        answer = api("Invoke", FunctionName=name, Qualifier="live")
        body = json.loads(answer["Payload"].read())
        api.same("Invoke", "the version that answered is named", answer["ExecutedVersion"], body)
        seen[body] += 1
    api.same("Invoke", f"both versions answer: {dict(seen)}", seen["1"] > 8 and seen["2"] > 8, True)
    for weight, version in ((0.0, "1"), (1.0, "2")):
        api("UpdateAlias", FunctionName=name, Name="live", RoutingConfig={"AdditionalVersionWeights": {"2": weight}})
        answered = {api("Invoke", FunctionName=name, Qualifier="live")["ExecutedVersion"] for _ in range(10)}
        api.same("Invoke", f"a weight of {weight}", answered, {version})


def test_an_alias_moves_at_once(api):
    name = api.function()
    for number in (1, 2):
        api("UpdateFunctionCode", FunctionName=name, ZipFile=package(f"def handler(event, context):\n    return {number}\n"), Publish=True)
        api.settle(name)
    api("CreateAlias", FunctionName=name, Name="live", FunctionVersion="1")
    for _ in range(5):
        for number in (2, 1):
            api("UpdateAlias", FunctionName=name, Name="live", FunctionVersion=str(number))
            api.same("Invoke", "the next call", api("Invoke", FunctionName=name, Qualifier="live")["Payload"].read(), str(number).encode())


def test_a_deleted_layer_lives_on_in_its_functions(api):
    layer = "conf-layer-" + uuid.uuid4().hex[:8]
    api("PublishLayerVersion", LayerName=layer, Content={"ZipFile": package("VALUE = 'from the layer'\n", "python/extra.py")})
    source = "import extra\ndef handler(event, context):\n    return extra.VALUE\n"
    name = api.function(Code={"ZipFile": package(source)}, Layers=[layer_arn(layer, 1)])
    api("DeleteLayerVersion", LayerName=layer, VersionNumber=1)
    api.same("Invoke", "still there", api("Invoke", FunctionName=name)["Payload"].read(), b'"from the layer"')
    api.same(
        "GetFunctionConfiguration",
        "still named",
        api("GetFunctionConfiguration", FunctionName=name)["Layers"][0]["Arn"],
        layer_arn(layer, 1),
    )
    api.refused(
        "CreateFunction", 400, "InvalidParameterValueException", FunctionName="conf-none", Runtime="python3.11", Role=ROLE, Handler="app.handler",
        Code={"ZipFile": "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA=="}, Layers=[layer_arn(layer, 1)],
    )  # fmt: skip


def test_later_layers_cover_earlier_ones(api):
    arns = []
    for number in range(2):
        layer = f"conf-layer-{uuid.uuid4().hex[:8]}"
        content = package(f"VALUE = {number}\n", "python/same.py")
        arns.append(api("PublishLayerVersion", LayerName=layer, Content={"ZipFile": content})["LayerVersionArn"])
        api.cleanup.callback(api.caller.send, "DeleteLayerVersion", {"LayerName": layer, "VersionNumber": 1})
    name = api.function(Code={"ZipFile": package("import same\ndef handler(event, context):\n    return same.VALUE\n")}, Layers=arns)
    api.same("Invoke", "the last", api("Invoke", FunctionName=name)["Payload"].read(), b"1")
    api("UpdateFunctionConfiguration", FunctionName=name, Layers=arns[::-1])
    api.settle(name)
    api.same("Invoke", "the other way round", api("Invoke", FunctionName=name)["Payload"].read(), b"0")


def test_a_version_keeps_what_it_was_made_of(api):
    name = api.function(
        Environment={"Variables": {"WHO": "first"}},
        Code={"ZipFile": package("import os\ndef handler(event, context):\n    return os.environ['WHO']\n")},
    )
    first = api("PublishVersion", FunctionName=name)
    api("UpdateFunctionConfiguration", FunctionName=name, Environment={"Variables": {"WHO": "second"}}, Timeout=9)
    api.settle(name)
    api.same("Invoke", "the version", api("Invoke", FunctionName=name, Qualifier="1")["Payload"].read(), b'"first"')
    api.same("Invoke", "the latest", api("Invoke", FunctionName=name)["Payload"].read(), b'"second"')
    kept = api("GetFunctionConfiguration", FunctionName=name, Qualifier="1")
    api.same("GetFunctionConfiguration", "the version", kept, first)


def test_an_update_of_a_version_or_alias_is_refused(api):
    name = api.function(Publish=True)
    api("CreateAlias", FunctionName=name, Name="live", FunctionVersion="1")
    for qualifier in ("1", "live"):
        for operation, change in (
            ("UpdateFunctionConfiguration", {"Timeout": 4}),
            ("UpdateFunctionCode", {"DryRun": True, "ZipFile": "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA=="}),
        ):
            reply = api.caller.send(operation, {"FunctionName": f"{name}:{qualifier}", **change})
            api.same(operation, f"of {qualifier}", 400 <= reply.status < 500 or str(reply), True)
    api.same("GetFunctionConfiguration", "untouched", api("GetFunctionConfiguration", FunctionName=name)["Timeout"], 3)


def test_revisions_move_as_documented(api):
    name = api.function()
    seen = [api("GetFunctionConfiguration", FunctionName=name)["RevisionId"]]

    def now():
        return api("GetFunctionConfiguration", FunctionName=name)["RevisionId"]

    def moved(what, expected, operation):
        current = now()
        api.same(operation, f"{what}: the revision {'moves' if expected else 'stays'}", current != seen[-1], expected)
        seen.append(current)

    started = api("UpdateFunctionConfiguration", FunctionName=name, Description="x")["RevisionId"]
    api.settle(name)
    api.same("UpdateFunctionConfiguration", "one revision at its start, another at its success", len({seen[-1], started, now()}), 3)
    seen.append(now())
    published = api("PublishVersion", FunctionName=name)
    api.same("PublishVersion", "the version has its own", published["RevisionId"] not in (seen[-1], now()), True)
    moved("publishing", True, "PublishVersion")
    api("CreateAlias", FunctionName=name, Name="live", FunctionVersion="1")
    moved("an alias", False, "CreateAlias")
    api("AddPermission", FunctionName=name, StatementId="s", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com")
    moved("a permission", True, "AddPermission")
    api("PutFunctionConcurrency", FunctionName=name, ReservedConcurrentExecutions=1)
    api.same(
        "PutFunctionConcurrency",
        "the version's own stays",
        api("GetFunctionConfiguration", FunctionName=name, Qualifier="1")["RevisionId"],
        published["RevisionId"],
    )
