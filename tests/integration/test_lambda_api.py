"""The Lambda API beyond functions and versions, as boto3 sees it: aliases, layers, policies, URLs, concurrency, event invoke config."""
import collections
import json
import time
import urllib.request

import pytest
from botocore.exceptions import ClientError

from mayfly_server import invoke, python_function, zip_of

WHO = "import os\ndef handler(e, c):\n    return {'version': os.environ['AWS_LAMBDA_FUNCTION_VERSION'], 'arn': c.invoked_function_arn}\n"


@pytest.fixture
def aws(server):
    return server.client()


@pytest.fixture
def function(aws, request):
    name = "api-" + request.node.name.replace("test_", "").replace("[", "-").replace("]", "")[:50]
    python_function(aws, name, WHO)
    yield name
    try:
        aws.delete_function(FunctionName=name)
    except ClientError:
        pass


def refused(code, call, **members):
    with pytest.raises(ClientError) as caught:
        call(**members)
    assert caught.value.response["Error"]["Code"] == code, caught.value.response
    return caught.value.response["Error"]["Message"]


def publish_two(aws, name):
    aws.publish_version(FunctionName=name)
    aws.update_function_configuration(FunctionName=name, Description="second")
    assert aws.publish_version(FunctionName=name)["Version"] == "2"


@pytest.mark.smoke
def test_an_alias_runs_its_version_and_moves_at_once(aws, function):
    publish_two(aws, function)
    made = aws.create_alias(FunctionName=function, Name="live", FunctionVersion="1")
    assert "RoutingConfig" not in made
    answer, error, _, raw = invoke(aws, function, Qualifier="live")
    assert error is None and answer["version"] == "1" and answer["arn"] == made["AliasArn"]
    assert raw["ExecutedVersion"] == "1"
    aws.update_alias(FunctionName=function, Name="live", FunctionVersion="2")
    assert invoke(aws, function + ":live")[0]["version"] == "2"
    assert invoke(aws, made["AliasArn"])[0]["version"] == "2"
    assert aws.get_function(FunctionName=function, Qualifier="live")["Configuration"]["FunctionArn"] == made["AliasArn"]
    assert "Cannot find alias arn" in refused("ResourceNotFoundException", aws.get_alias, FunctionName=function, Name="other")
    assert "used by the alias live" in refused("ResourceConflictException", aws.delete_function, FunctionName=function, Qualifier="2")
    stale = made["RevisionId"]
    refused("PreconditionFailedException", aws.update_alias, FunctionName=function, Name="live", Description="x", RevisionId=stale)
    aws.delete_alias(FunctionName=function, Name="live")
    assert "Function not found" in refused("ResourceNotFoundException", aws.invoke, FunctionName=function, Qualifier="live")


def test_a_weighted_alias_divides_its_calls(aws, function):
    publish_two(aws, function)
    aws.create_alias(FunctionName=function, Name="canary", FunctionVersion="1", RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}})
    ran = collections.Counter(invoke(aws, function, Qualifier="canary")[0]["version"] for _ in range(100))
    assert set(ran) == {"1", "2"} and min(ran.values()) > 20, ran  # 20 or less of 100 by chance: once in 10^9 runs
    for weights, part in (({"1": 0.5}, "already included"), ({"9": 0.5}, "Function not found"), ({"1": 0.1, "2": 0.1}, "greater than 1")):
        with pytest.raises(ClientError) as caught:
            aws.update_alias(FunctionName=function, Name="canary", RoutingConfig={"AdditionalVersionWeights": weights})
        assert part in str(caught.value)
    after = aws.update_alias(FunctionName=function, Name="canary", RoutingConfig={"AdditionalVersionWeights": {}})
    assert "RoutingConfig" not in after


def test_an_alias_can_be_held_back_until_its_version_starts(aws, function):
    aws.publish_version(FunctionName=function)
    aws.create_alias(FunctionName=function, Name="live", FunctionVersion="1")
    aws.update_function_configuration(FunctionName=function, Environment={"Variables": {"MAYFLY_ALIAS_WAITS_FOR": "init"}})
    aws.update_function_code(FunctionName=function, ZipFile=zip_of({"app.py": "import nothing_of_that_name\n"}))
    assert aws.publish_version(FunctionName=function)["Version"] == "2"
    message = refused("InvalidParameterValueException", aws.update_alias, FunctionName=function, Name="live", FunctionVersion="2")
    assert "does not initialise" in message and "Nothing was changed" in message
    refused("InvalidParameterValueException", aws.update_alias, FunctionName=function, Name="live", RoutingConfig={"AdditionalVersionWeights": {"2": 0.1}})
    assert invoke(aws, function, Qualifier="live")[0]["version"] == "1"
    aws.update_function_code(FunctionName=function, ZipFile=zip_of({"app.py": WHO}))
    assert aws.publish_version(FunctionName=function)["Version"] == "3"
    assert aws.update_alias(FunctionName=function, Name="live", FunctionVersion="3")["FunctionVersion"] == "3"
    assert invoke(aws, function, Qualifier="live")[0]["version"] == "3"
    assert "only be" in refused("InvalidParameterValueException", aws.update_function_configuration, FunctionName=function, Environment={"Variables": {"MAYFLY_ALIAS_WAITS_FOR": "x"}})


def test_aliases_are_listed_in_pages_and_by_version(aws, function):
    publish_two(aws, function)
    for i in range(60):
        aws.create_alias(FunctionName=function, Name=f"a{i:02}", FunctionVersion="1" if i % 2 else "2")
    pages = [page["Aliases"] for page in aws.get_paginator("list_aliases").paginate(FunctionName=function)]
    assert [len(page) for page in pages] == [50, 10]
    assert [alias["Name"] for page in pages for alias in page] == [f"a{i:02}" for i in range(60)]
    assert len(aws.list_aliases(FunctionName=function, FunctionVersion="2")["Aliases"]) == 30
    refused("InvalidParameterValueException", aws.list_aliases, FunctionName=function, Marker="!")


def test_layers_bring_their_files_in_order(aws, server):
    def layer(text, **more):
        files = {"python/shared.py": f"WHAT = '{text}'\n", f"bin/{text}": (f"#!/bin/sh\necho {text}\n", 0o755)}
        return aws.publish_layer_version(LayerName="shared" + text, Content={"ZipFile": zip_of(files)}, CompatibleRuntimes=["python3.11"], **more)

    one, two = layer("one", Description="d", LicenseInfo="MIT"), layer("two")
    assert one["Version"] == 1 and one["LayerVersionArn"].endswith(":layer:sharedone:1")
    source = "import shared, subprocess\ndef handler(e, c):\n    return [shared.WHAT, subprocess.run(['one'], capture_output=True, text=True).stdout]\n"
    python_function(aws, "layered", source, Layers=[one["LayerVersionArn"], two["LayerVersionArn"]])
    assert [layer["Arn"] for layer in aws.get_function_configuration(FunctionName="layered")["Layers"]] == [one["LayerVersionArn"], two["LayerVersionArn"]]
    assert invoke(aws, "layered")[0] == ["two", "one\n"], "the later layer lies on top; files of both are there"
    with urllib.request.urlopen(aws.get_layer_version(LayerName="sharedone", VersionNumber=1)["Content"]["Location"]) as download:
        assert len(download.read()) == one["Content"]["CodeSize"]
    aws.delete_layer_version(LayerName="sharedtwo", VersionNumber=1)
    refused("ResourceNotFoundException", aws.get_layer_version, LayerName="sharedtwo", VersionNumber=1)
    aws.update_function_configuration(FunctionName="layered", Description="starts anew")
    assert invoke(aws, "layered")[0] == ["two", "one\n"], "what a function uses stays"
    assert layer("two")["Version"] == 2, "numbers are never given twice"
    aws.update_function_configuration(FunctionName="layered", Layers=[])
    assert "Layers" not in aws.get_function_configuration(FunctionName="layered")
    assert "does not exist" in refused("InvalidParameterValueException", aws.update_function_configuration, FunctionName="layered", Layers=[two["LayerVersionArn"]])
    listed = aws.list_layers(CompatibleRuntime="python3.11")["Layers"]
    assert {"sharedone", "sharedtwo"} <= {layer["LayerName"] for layer in listed}
    aws.delete_function(FunctionName="layered")


def test_a_layers_policy_has_a_revision_of_its_own(aws):
    made = aws.publish_layer_version(LayerName="policied", Content={"ZipFile": zip_of({"a": "b"})})
    where = {"LayerName": "policied", "VersionNumber": made["Version"]}
    refused("ResourceNotFoundException", aws.get_layer_version_policy, **where)
    added = aws.add_layer_version_permission(**where, StatementId="s", Action="lambda:GetLayerVersion", Principal="*")
    policy = aws.get_layer_version_policy(**where)
    assert json.loads(policy["Policy"])["Statement"] == [json.loads(added["Statement"])] and policy["RevisionId"] == added["RevisionId"]
    refused("ResourceConflictException", aws.add_layer_version_permission, **where, StatementId="s", Action="lambda:GetLayerVersion", Principal="*")
    refused("PreconditionFailedException", aws.remove_layer_version_permission, **where, StatementId="s", RevisionId="old")
    aws.remove_layer_version_permission(**where, StatementId="s", RevisionId=policy["RevisionId"])
    refused("ResourceNotFoundException", aws.get_layer_version_policy, **where)


def test_permissions_belong_to_function_version_or_alias(aws, function):
    publish_two(aws, function)
    aws.create_alias(FunctionName=function, Name="live", FunctionVersion="1")
    added = aws.add_permission(FunctionName=function, StatementId="s3", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com", SourceArn="arn:aws:s3:::b")
    statement = json.loads(added["Statement"])
    assert statement["Principal"] == {"Service": "s3.amazonaws.com"} and statement["Condition"] == {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::b"}}
    policy = aws.get_policy(FunctionName=function)
    assert json.loads(policy["Policy"]) == {"Version": "2012-10-17", "Id": "default", "Statement": [statement]}
    assert policy["RevisionId"] == aws.get_function_configuration(FunctionName=function)["RevisionId"]
    refused("ResourceNotFoundException", aws.get_policy, FunctionName=function, Qualifier="live")
    aws.add_permission(FunctionName=function, StatementId="s3", Qualifier="live", Action="lambda:InvokeFunction", Principal="000000000001")
    assert json.loads(aws.get_policy(FunctionName=function, Qualifier="live")["Policy"])["Statement"][0]["Principal"] == {"AWS": "arn:aws:iam::000000000001:root"}
    assert aws.get_policy(FunctionName=function, Qualifier="live")["RevisionId"] == aws.get_alias(FunctionName=function, Name="live")["RevisionId"]
    refused("ResourceConflictException", aws.add_permission, FunctionName=function, StatementId="s3", Action="lambda:InvokeFunction", Principal="*")
    refused("InvalidParameterValueException", aws.add_permission, FunctionName=function, StatementId="x", Action="lambda:InvokeFunction", Principal="nobody")
    refused("PreconditionFailedException", aws.add_permission, FunctionName=function, StatementId="x", Action="lambda:InvokeFunction", Principal="*", RevisionId="old")
    refused("ResourceNotFoundException", aws.remove_permission, FunctionName=function, StatementId="other")
    aws.remove_permission(FunctionName=function, StatementId="s3")
    refused("ResourceNotFoundException", aws.get_policy, FunctionName=function)


def test_url_configurations_come_and_go(aws, function):
    made = aws.create_function_url_config(FunctionName=function, AuthType="NONE", Cors={"AllowOrigins": ["*"]})
    assert "InvokeMode" not in made and made["FunctionUrl"].startswith("http://")
    refused("ResourceConflictException", aws.create_function_url_config, FunctionName=function, AuthType="NONE")
    got = aws.get_function_url_config(FunctionName=function)
    assert got["InvokeMode"] == "BUFFERED" and got["Cors"] == {"AllowOrigins": ["*"]} and got["FunctionUrl"] == made["FunctionUrl"]
    assert aws.update_function_url_config(FunctionName=function, AuthType="AWS_IAM", InvokeMode="RESPONSE_STREAM")["InvokeMode"] == "RESPONSE_STREAM"
    assert [url["AuthType"] for url in aws.list_function_url_configs(FunctionName=function)["FunctionUrlConfigs"]] == ["AWS_IAM"]
    aws.delete_function_url_config(FunctionName=function)
    refused("ResourceNotFoundException", aws.get_function_url_config, FunctionName=function)
    refused("ResourceNotFoundException", aws.create_function_url_config, FunctionName=function, AuthType="NONE", Qualifier="nothing")


def test_concurrency_is_promised_only_where_there_is_some(aws, function):
    limit = aws.get_account_settings()["AccountLimit"]
    assert aws.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=10) and aws.get_function(FunctionName=function)["Concurrency"]
    assert aws.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == limit["UnreservedConcurrentExecutions"] - 10
    too_much = limit["ConcurrentExecutions"] - 50
    message = refused("InvalidParameterValueException", aws.put_function_concurrency, FunctionName=function, ReservedConcurrentExecutions=too_much)
    assert "below its minimum value of [100]" in message
    aws.publish_version(FunctionName=function)
    refused("InvalidParameterValueException", aws.put_provisioned_concurrency_config, FunctionName=function, Qualifier="1", ProvisionedConcurrentExecutions=11)
    refused("InvalidParameterValueException", aws.put_provisioned_concurrency_config, FunctionName=function, Qualifier="$LATEST", ProvisionedConcurrentExecutions=1)
    refused("ProvisionedConcurrencyConfigNotFoundException", aws.get_provisioned_concurrency_config, FunctionName=function, Qualifier="1")
    aws.delete_function_concurrency(FunctionName=function)
    assert "ReservedConcurrentExecutions" not in aws.get_function_concurrency(FunctionName=function)


def test_event_invoke_configuration_is_put_merged_and_listed(aws, function):
    refused("InvalidParameterValueException", aws.put_function_event_invoke_config, FunctionName=function)
    put = aws.put_function_event_invoke_config(FunctionName=function, MaximumRetryAttempts=1, DestinationConfig={"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:000000000000:q"}})
    assert put["FunctionArn"].endswith(":$LATEST") and put["DestinationConfig"]["OnSuccess"] == {} and "MaximumEventAgeInSeconds" not in put
    assert abs(put["LastModified"].timestamp() - time.time()) < 60
    merged = aws.update_function_event_invoke_config(FunctionName=function, MaximumEventAgeInSeconds=60)
    assert merged["MaximumRetryAttempts"] == 1 and merged["MaximumEventAgeInSeconds"] == 60 and merged["DestinationConfig"]["OnFailure"]
    assert len(aws.list_function_event_invoke_configs(FunctionName=function)["FunctionEventInvokeConfigs"]) == 1
    own = aws.get_function(FunctionName=function)["Configuration"]["FunctionArn"]
    assert "itself" in refused("InvalidParameterValueException", aws.put_function_event_invoke_config, FunctionName=function, DestinationConfig={"OnSuccess": {"Destination": own}})
    aws.delete_function_event_invoke_config(FunctionName=function)
    refused("ResourceNotFoundException", aws.get_function_event_invoke_config, FunctionName=function)


def test_all_of_it_is_there_after_a_kill(own_server):
    server = own_server()
    aws = server.client()
    python_function(aws, "kept", WHO)
    aws.publish_version(FunctionName="kept")
    aws.create_alias(FunctionName="kept", Name="live", FunctionVersion="1", Description="d")
    aws.add_permission(FunctionName="kept", StatementId="s", Action="lambda:InvokeFunction", Principal="*")
    url = aws.create_function_url_config(FunctionName="kept", AuthType="NONE")["FunctionUrl"]
    aws.put_function_concurrency(FunctionName="kept", ReservedConcurrentExecutions=3)
    aws.put_function_event_invoke_config(FunctionName="kept", MaximumRetryAttempts=0)
    layer = aws.publish_layer_version(LayerName="kept", Content={"ZipFile": zip_of({"python/kept.py": "X = 1\n"})})
    server.kill()
    server.start()
    aws = server.client()
    assert aws.get_alias(FunctionName="kept", Name="live")["Description"] == "d"
    assert json.loads(aws.get_policy(FunctionName="kept")["Policy"])["Statement"][0]["Sid"] == "s"
    assert aws.get_function_url_config(FunctionName="kept")["FunctionUrl"].split("/")[2].split(".")[0] == url.split("/")[2].split(".")[0]
    assert aws.get_function_concurrency(FunctionName="kept")["ReservedConcurrentExecutions"] == 3
    assert aws.get_function_event_invoke_config(FunctionName="kept")["MaximumRetryAttempts"] == 0
    assert aws.get_layer_version(LayerName="kept", VersionNumber=1)["LayerVersionArn"] == layer["LayerVersionArn"]
    assert invoke(aws, "kept", Qualifier="live")[0]["version"] == "1"


def test_a_second_change_meanwhile_is_a_conflict(server):
    import boto3
    hasty = boto3.client("lambda", endpoint_url=server.endpoint, region_name="us-east-1", aws_access_key_id=server.credentials["access_key"],
                         aws_secret_access_key=server.credentials["secret_key"])
    python_function(hasty, "hasty", WHO)
    assert "currently in the following state: Pending" in refused("ResourceConflictException", hasty.publish_version, FunctionName="hasty")
    hasty.get_waiter("function_active_v2").wait(FunctionName="hasty")
    hasty.update_function_configuration(FunctionName="hasty", Description="one")
    message = refused("ResourceConflictException", hasty.update_function_configuration, FunctionName="hasty", Description="two")
    assert "An update is in progress for resource: " in message
    assert invoke(hasty, "hasty")[0]["version"] == "$LATEST", "calls go on meanwhile"
    hasty.get_waiter("function_updated_v2").wait(FunctionName="hasty")
    assert hasty.get_function_configuration(FunctionName="hasty")["Description"] == "one"
    hasty.delete_function(FunctionName="hasty")


def test_fifty_clients_at_once_leave_one_winner_a_round(server, aws):
    from concurrent.futures import ThreadPoolExecutor
    import boto3
    python_function(aws, "contended", WHO)
    clients = [boto3.client("lambda", endpoint_url=server.endpoint, region_name="us-east-1", aws_access_key_id=server.credentials["access_key"],
                            aws_secret_access_key=server.credentials["secret_key"]) for _ in range(50)]

    def update(number):
        try:
            clients[number].update_function_configuration(FunctionName="contended", Description=str(number), Timeout=number + 1, MemorySize=128 + number)
            return number
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ResourceConflictException", error
            return None

    for _ in range(3):
        revision = aws.get_function_configuration(FunctionName="contended")["RevisionId"]
        with ThreadPoolExecutor(50) as pool:
            winners = [number for number in pool.map(update, range(50)) if number is not None]
        got = aws.get_function_configuration(FunctionName="contended")
        assert len(winners) == 1 and got["RevisionId"] != revision
        assert (got["Description"], got["Timeout"], got["MemorySize"]) == (str(winners[0]), winners[0] + 1, 128 + winners[0])
    aws.delete_function(FunctionName="contended")
