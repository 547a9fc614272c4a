"""The management calls: scenarios written after the names and keys of the recorded cases of test_lambda_api."""

import uuid

from replay import replays, zip_of_size, zipped

API = "test_lambda_api/"
ALIAS_CODE = "def handler(event, context):\n    return 'hello'\n"


@replays(API + "TestLambdaAlias::test_alias_lifecycle")
def alias_lifecycle(world, recorded):
    client, name = world.client, world.name()
    index = zipped({"index.py": ALIAS_CODE})
    recorded.match(
        "create_response",
        world.create(name, Handler="index.handler", Code={"ZipFile": index}, Environment={"Variables": {"testenv": "staging"}}),
    )
    world.active(name)
    recorded.match("publish_v1", client.publish_version(FunctionName=name))
    client.update_function_configuration(FunctionName=name, Environment={"Variables": {"testenv": "prod"}})
    world.updated(name)
    recorded.match("publish_v2", client.publish_version(FunctionName=name))
    recorded.match("create_alias_1_1", client.create_alias(
        FunctionName=name, Name="aliasname1_1", FunctionVersion="1", Description="custom-alias", RoutingConfig={"AdditionalVersionWeights": {"2": 0.2}}))  # fmt: skip
    recorded.match("get_alias_1_1", client.get_alias(FunctionName=name, Name="aliasname1_1"))
    recorded.match("get_function_alias_1_1", client.get_function(FunctionName=name, Qualifier="aliasname1_1"))
    recorded.match("get_function_byarn_alias_1_1", client.get_function(FunctionName=world.arn(name, "aliasname1_1")))
    recorded.match("get_function_alias_notfound_exc", world.error(client.get_function, FunctionName=name, Qualifier="aliasdoesnotexist"))
    recorded.match(
        "get_function_alias_byarn_notfound_exc", world.error(client.get_function, FunctionName=world.arn(name, "aliasdoesnotexist"))
    )
    recorded.match(
        "create_alias_1_2", client.create_alias(FunctionName=name, Name="aliasname1_2", FunctionVersion="1", Description="custom-alias")
    )
    recorded.match("get_alias_1_2", client.get_alias(FunctionName=name, Name="aliasname1_2"))
    recorded.match("create_alias_1_3", client.create_alias(FunctionName=name, Name="aliasname1_3", FunctionVersion="1"))
    recorded.match("get_alias_1_3", client.get_alias(FunctionName=name, Name="aliasname1_3"))
    recorded.match(
        "create_alias_2", client.create_alias(FunctionName=name, Name="aliasname2", FunctionVersion="2", Description="custom-alias")
    )
    recorded.match("get_alias_2", client.get_alias(FunctionName=name, Name="aliasname2"))
    pages = client.get_paginator("list_aliases").paginate(FunctionName=name, PaginationConfig={"PageSize": 2})
    recorded.match("list_aliases_for_fnname", {"Aliases": [alias for page in pages for alias in page["Aliases"]]})
    recorded.match("update_alias_1_1", client.update_alias(FunctionName=name, Name="aliasname1_1", RoutingConfig={}))
    recorded.match("get_alias_1_1_after_update", client.get_alias(FunctionName=name, Name="aliasname1_1"))
    recorded.match("list_aliases_for_fnname_after_update", client.list_aliases(FunctionName=name))
    recorded.match("update_alias_1_2", client.update_alias(FunctionName=name, Name="aliasname1_2"))
    recorded.match("get_alias_1_2_after_update", client.get_alias(FunctionName=name, Name="aliasname1_2"))
    recorded.match("list_aliases_for_fnname_after_update_2", client.list_aliases(FunctionName=name))
    recorded.match("list_aliases_for_version", client.list_aliases(FunctionName=name, FunctionVersion="1"))
    recorded.match("delete_alias_response", client.delete_alias(FunctionName=name, Name="aliasname1_1"))
    recorded.match("list_aliases_for_fnname_afterdelete", client.list_aliases(FunctionName=name))


@replays(API + "TestLambdaAlias::test_non_existent_alias_deletion")
def alias_that_is_not_there(world, recorded):
    name = world.name()
    index = zipped({"index.py": ALIAS_CODE})
    recorded.match(
        "create_response",
        world.create(name, Handler="index.handler", Code={"ZipFile": index}, Environment={"Variables": {"testenv": "staging"}}),
    )
    world.active(name)
    recorded.match("delete_alias_response", world.client.delete_alias(FunctionName=name, Name="non-existent"))


@replays(API + "TestLambdaAccountSettings::test_account_settings_total_code_size")
def account_counts_code(world, recorded):
    client, name, layer = world.client, world.name(), f"rec-layer-{uuid.uuid4().hex[:8]}"

    def total():
        return client.get_account_settings()["AccountUsage"]["TotalCodeSize"]

    code, content = zip_of_size(276), zip_of_size(169)
    before = total()
    world.create(name, Handler="index.handler", Code={"ZipFile": code})
    recorded.match("total_code_size_diff_create_function", total() - before)
    world.active(name)
    before = total()
    client.update_function_code(FunctionName=name, ZipFile=code, Publish=True)
    recorded.match("total_code_size_diff_update_function", total() - before)
    before = total()
    first = client.publish_layer_version(LayerName=layer, Content={"ZipFile": content})
    world.undo.append(lambda: client.delete_layer_version(LayerName=layer, VersionNumber=first["Version"]))
    recorded.match("total_code_size_diff_publish_layer", total() - before)
    before = total()
    second = client.publish_layer_version(LayerName=layer, Content={"ZipFile": content})
    world.undo.append(lambda: client.delete_layer_version(LayerName=layer, VersionNumber=second["Version"]))
    recorded.match("total_code_size_diff_publish_layer_version", total() - before)


@replays(API + "TestCodeSigningConfig::test_code_signing_not_found_excs")
def code_signing(world, recorded):
    name = world.name()
    world.create(name)
    get = world.client.get_function_code_signing_config
    recorded.match("get_function_csc_fnwithoutcsc", get(FunctionName=name))
    recorded.match("get_function_csc_nonexistingfn", world.error(get, FunctionName="csc-test-doesnotexist"))


@replays(API + "TestLambdaEventInvokeConfig::test_lambda_eventinvokeconfig_lifecycle")
def event_invoke_lifecycle(world, recorded):
    client, name = world.client, world.name()
    world.create(name, wrapped=True)
    world.active(name)
    put, update, get = (
        client.put_function_event_invoke_config,
        client.update_function_event_invoke_config,
        client.get_function_event_invoke_config,
    )
    recorded.match("put_invokeconfig_retries_0", put(FunctionName=name, MaximumRetryAttempts=0))
    recorded.match("put_invokeconfig_eventage_60", put(FunctionName=name, MaximumEventAgeInSeconds=60))
    recorded.match("update_invokeconfig_eventage_nochange", update(FunctionName=name, MaximumEventAgeInSeconds=60))
    recorded.match("update_invokeconfig_retries", update(FunctionName=name, MaximumRetryAttempts=1))
    recorded.match("get_invokeconfig", get(FunctionName=name))
    recorded.match("get_invokeconfig_latest", get(FunctionName=name, Qualifier="$LATEST"))
    recorded.match("list_single_invokeconfig", client.list_function_event_invoke_configs(FunctionName=name))
    recorded.match("publish_version_result", client.publish_version(FunctionName=name))
    recorded.match("get_invokeconfig_postpublish", world.error(get, FunctionName=name, Qualifier="1"))
    recorded.match("put_published_invokeconfig", put(FunctionName=name, Qualifier="1", MaximumEventAgeInSeconds=120))
    recorded.match("get_published_invokeconfig", get(FunctionName=name, Qualifier="1"))
    client.delete_function_event_invoke_config(FunctionName=name)
    recorded.match("list_paging_nolimit_postdelete", client.list_function_event_invoke_configs(FunctionName=name))


@replays(API + "TestLambdaEventInvokeConfig::test_lambda_eventinvokeconfig_exceptions")
def event_invoke_refusals(world, recorded):
    client, name, other, alias = world.client, world.name(), world.name(), "eventinvokealias"
    world.create(name, wrapped=True)
    world.create(other, wrapped=True)
    world.active(name)
    recorded.match("fn_version_result", client.publish_version(FunctionName=name))
    recorded.match("fn_alias_result", client.create_alias(FunctionName=name, FunctionVersion="1", Name=alias))
    arn, loose, error = world.arn(name), world.loose, world.error
    put, update = client.put_function_event_invoke_config, client.update_function_event_invoke_config
    get, delete, listed = (
        client.get_function_event_invoke_config,
        client.delete_function_event_invoke_config,
        client.list_function_event_invoke_configs,
    )

    recorded.match("put_functionname_name_notfound", error(put, FunctionName="doesnotexist", MaximumRetryAttempts=1))
    recorded.match("put_functionname_arn_notfound", error(put, FunctionName=world.arn("doesnotexist"), MaximumRetryAttempts=1))
    recorded.match("put_functionname_nootherargs", error(put, FunctionName=name))
    # destinations
    recorded.match(
        "put_destination_lambda_doesntexist",
        error(put, FunctionName=name, DestinationConfig={"OnSuccess": {"Destination": world.arn("doesnotexist")}}),
    )
    recorded.match("put_destination_recursive", error(put, FunctionName=name, DestinationConfig={"OnSuccess": {"Destination": arn}}))
    recorded.match(
        "put_destination_other_lambda", error(put, FunctionName=name, DestinationConfig={"OnSuccess": {"Destination": world.arn(other)}})
    )
    recorded.match(
        "put_destination_invalid_service_arn",
        error(put, FunctionName=name, DestinationConfig={"OnSuccess": {"Destination": arn.replace(":lambda:", ":iam:")}}),
    )
    recorded.match("put_destination_success_no_destination_arn", error(put, FunctionName=name, DestinationConfig={"OnSuccess": {}}))
    recorded.match("put_destination_failure_no_destination_arn", error(put, FunctionName=name, DestinationConfig={"OnFailure": {}}))
    recorded.match("put_destination_invalid_arn_pattern", error(
        loose.put_function_event_invoke_config, FunctionName=name, DestinationConfig={"OnFailure": {"Destination": arn.replace(":lambda:", ":_-/!lambda:")}}))  # fmt: skip
    delete(FunctionName=name)
    # nothing there yet
    recorded.match("get_eventinvokeconfig_doesnotexist", error(get, FunctionName=name, Qualifier=alias))
    recorded.match("get_function_doesnotexist", error(get, FunctionName="doesnotexist"))
    recorded.match("get_qualifier_doesnotexist", error(get, FunctionName=name, Qualifier="doesnotexist"))
    recorded.match("update_eventinvokeconfig_function_doesnotexist", error(update, FunctionName="doesnotexist", MaximumRetryAttempts=0))
    recorded.match(
        "update_eventinvokeconfig_config_doesnotexist_with_qualifier",
        error(update, FunctionName=name, Qualifier=alias, MaximumRetryAttempts=0),
    )
    recorded.match(
        "update_eventinvokeconfig_config_doesnotexist_without_qualifier", error(update, FunctionName=name, MaximumRetryAttempts=0)
    )
    # qualifiers
    recorded.match("put_destination_latest", error(put, FunctionName=name, MaximumRetryAttempts=1))
    recorded.match("put_destination_latest_explicit_qualifier", error(put, FunctionName=name, Qualifier="$LATEST", MaximumRetryAttempts=1))
    recorded.match("put_destination_version", error(put, FunctionName=name, Qualifier="1", MaximumRetryAttempts=1))
    recorded.match("put_version_shorthand", error(put, FunctionName=f"{name}:1", MaximumRetryAttempts=1))
    recorded.match("put_alias_functionname_qualifier", error(put, FunctionName=name, Qualifier=alias, MaximumRetryAttempts=1))
    recorded.match("put_alias_doesnotexist", error(put, FunctionName=name, Qualifier="doesnotexist", MaximumRetryAttempts=1))
    recorded.match("put_alias_qualifiedarn", error(put, FunctionName=world.arn(name, alias), MaximumRetryAttempts=1))
    recorded.match(
        "put_alias_qualifiedarn_qualifier", error(put, FunctionName=world.arn(name, alias), Qualifier=alias, MaximumRetryAttempts=1)
    )
    recorded.match(
        "put_alias_qualifiedarn_qualifierconflict",
        error(put, FunctionName=world.arn(name, alias), Qualifier="$LATEST", MaximumRetryAttempts=1),
    )
    recorded.match("put_alias_shorthand", error(put, FunctionName=f"{name}:{alias}", MaximumRetryAttempts=1))
    recorded.match("put_alias_shorthand_qualifier", error(put, FunctionName=f"{name}:{alias}", Qualifier=alias, MaximumRetryAttempts=1))
    recorded.match(
        "put_alias_shorthand_qualifierconflict", error(put, FunctionName=f"{name}:{alias}", Qualifier="$LATEST", MaximumRetryAttempts=1)
    )
    recorded.match("put_shorthand_qualifier_match", error(put, FunctionName=f"{name}:$LATEST", Qualifier="$LATEST", MaximumRetryAttempts=1))
    recorded.match("put_shorthand_qualifier_mismatch_1", error(put, FunctionName=f"{name}:$LATEST", Qualifier="1", MaximumRetryAttempts=1))
    recorded.match(
        "put_shorthand_qualifier_mismatch_2", error(put, FunctionName=f"{name}:$LATEST", Qualifier=alias, MaximumRetryAttempts=1)
    )
    recorded.match("put_shorthand_qualifier_mismatch_3", error(put, FunctionName=f"{name}:1", Qualifier="$LATEST", MaximumRetryAttempts=1))
    recorded.match("put_maxevent_maxvalue_result", error(put, FunctionName=name, MaximumRetryAttempts=2, MaximumEventAgeInSeconds=21600))
    # put replaces
    recorded.match("put_pre_overwrite", error(put, FunctionName=name, MaximumRetryAttempts=2, MaximumEventAgeInSeconds=60))
    recorded.match("put_post_overwrite", error(put, FunctionName=name, MaximumRetryAttempts=0))
    recorded.match("second_overwrite_existing_response", error(put, FunctionName=name, MaximumRetryAttempts=0))
    recorded.match("get_post_overwrite", error(get, FunctionName=name))
    # update merges
    recorded.match("pre_update_response", error(put, FunctionName=name, MaximumRetryAttempts=2, MaximumEventAgeInSeconds=60))
    recorded.match("update_response", error(update, FunctionName=name, MaximumRetryAttempts=0))
    recorded.match("update_response_existing", error(update, FunctionName=name, MaximumRetryAttempts=0))
    # lists and deletes
    recorded.match("list_configs", error(listed, FunctionName=name))
    recorded.match("list_function_doesnotexist", error(listed, FunctionName="doesnotexist"))
    recorded.match("delete_latest", error(delete, FunctionName=name, Qualifier="$LATEST"))
    recorded.match("delete_version", error(delete, FunctionName=name, Qualifier="1"))
    recorded.match("delete_alias", error(delete, FunctionName=name, Qualifier=alias))
    recorded.match("list_configs_postdelete", error(listed, FunctionName=name))
    recorded.match("delete_function_not_found", error(delete, FunctionName=name))
    recorded.match("delete_function_doesnotexist", error(delete, FunctionName="doesnotexist"))


@replays(API + "TestLambdaFunction::test_create_lambda_exceptions")
def create_refusals(world, recorded):
    name, create = world.name(), world.loose.create_function
    base = {
        "FunctionName": name,
        "Runtime": "python3.12",
        "Role": world.ROLE,
        "Handler": "index.handler",
        "Code": {"ZipFile": zipped({"index.py": ALIAS_CODE})},
    }
    recorded.match("invalid_role_arn_exc", world.error(create, **{**base, "Role": "r1"}))
    recorded.match("invalid_runtime_exc", world.error(create, **{**base, "Runtime": "non-existent-runtime"}))
    recorded.match("uppercase_runtime_exc", world.error(create, **{**base, "Runtime": "PYTHON3.9"}))
    recorded.match("multiple_architectures", world.error(create, **{**base, "Architectures": ["x86_64", "arm64"]}))
    recorded.match("uppercase_architecture", world.error(create, **{**base, "Architectures": ["X86_64"]}))
    recorded.match("invalid_zip_exc", world.error(create, **{**base, "Code": {"ZipFile": b"this is not a zip file, just a random string"}}))


@replays(API + "TestLambdaFunction::test_update_lambda_exceptions")
def update_refusals(world, recorded):
    name, update = world.name(), world.loose.update_function_configuration
    world.create(name)
    world.active(name)
    recorded.match("invalid_role_arn_exc", world.error(update, FunctionName=name, Role="r1"))
    recorded.match("invalid_runtime_exc", world.error(update, FunctionName=name, Runtime="non-existent-runtime"))
    recorded.match("uppercase_runtime_exc", world.error(update, FunctionName=name, Runtime="PYTHON3.9"))


@replays(API + "TestLambdaFunction::test_function_lifecycle")
def function_lifecycle(world, recorded):
    client, name = world.client, world.name()
    recorded.match("create_response", world.create(name, wrapped=True, MemorySize=256, Timeout=5))
    world.active(name)
    recorded.match("get_function_response", client.get_function(FunctionName=name))
    recorded.match("update_func_conf_response", client.update_function_configuration(
        FunctionName=name, Runtime="python3.11", Description="Changed-Description", MemorySize=512, Timeout=10, Environment={"Variables": {"ENV_A": "a"}}))  # fmt: skip
    world.updated(name)
    recorded.match("get_function_response_postupdate", client.get_function(FunctionName=name))
    recorded.match(
        "update_code_response",
        client.update_function_code(FunctionName=name, ZipFile=zipped({"handler.py": "def handler(event, context):\n    return 2\n"})),
    )
    world.updated(name)
    recorded.match("get_function_response_postcodeupdate", client.get_function(FunctionName=name))
    recorded.match("delete_response", client.delete_function(FunctionName=name))
    recorded.match("delete_postdelete", world.error(client.delete_function, FunctionName=name))


@replays(API + "TestLambdaFunction::test_redundant_updates")
def redundant_updates(world, recorded):
    client, name = world.client, world.name()
    recorded.match("create_response", world.create(name, wrapped=True, Description="Initial description"))
    world.active(name)
    recorded.match("first_update_result", client.update_function_configuration(FunctionName=name, Description="1st update description"))
    world.updated(name)
    recorded.match("get_fn_config_result", client.get_function_configuration(FunctionName=name))
    recorded.match("get_fn_result", client.get_function(FunctionName=name))
    recorded.match("redundant_update_result", client.update_function_configuration(FunctionName=name, Description="1st update description"))
    world.updated(name)
    recorded.match("get_fn_result_after_redundant_update", client.get_function(FunctionName=name))


@replays(API + "TestLambdaFunction::test_lambda_code_location_zipfile")
def code_by_zip(world, recorded):
    client, name = world.client, world.name()
    recorded.match(
        "create-response-zip-file", world.create(name, Handler="index.handler", Code={"ZipFile": zipped({"index.py": ALIAS_CODE})})
    )
    world.active(name)
    recorded.match("get-function-response", client.get_function(FunctionName=name))
    recorded.match(
        "update-function-response", client.update_function_code(FunctionName=name, ZipFile=zipped({"index.py": ALIAS_CODE + "\n"}))
    )
    assert client.get_function(FunctionName=name)["Configuration"]["LastUpdateStatus"] == "Successful"


@replays(API + "TestLambdaFunction::test_lambda_code_location_s3_errors")
def code_by_bucket_refused(world, recorded):
    client, name, bucket = world.client, world.name(), f"rec-bucket-{uuid.uuid4().hex[:8]}"
    from botocore.config import Config
    import boto3

    keys = world.server.credentials
    s3 = boto3.client("s3", endpoint_url=world.server.endpoint, region_name=world.region, aws_access_key_id=keys["access_key"],
                      aws_secret_access_key=keys["secret_key"], config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}))  # fmt: skip
    s3.create_bucket(Bucket=bucket)
    world.undo.append(lambda: s3.delete_bucket(Bucket=bucket))
    base = {"FunctionName": name, "Runtime": "python3.12", "Role": world.ROLE, "Handler": "index.handler"}
    missing = f"some-random-non-existent-bucket-{uuid.uuid4().hex[:8]}"
    recorded.match("create-error-wrong-bucket", world.error(client.create_function, Code={"S3Bucket": missing, "S3Key": "key"}, **base))
    recorded.match("create-error-wrong-key", world.error(client.create_function, Code={"S3Bucket": bucket, "S3Key": "wrong-key"}, **base))
    world.create(name)
    world.active(name)
    recorded.match("update-error-wrong-bucket", world.error(client.update_function_code, FunctionName=name, S3Bucket=missing, S3Key="key"))
    recorded.match(
        "update-error-wrong-key", world.error(client.update_function_code, FunctionName=name, S3Bucket=bucket, S3Key="wrong-key")
    )


@replays(API + "TestLambdaFunction::test_lambda_concurrent_code_updates")
def code_update_meanwhile(world, recorded):
    client, name = world.client, world.name()
    recorded.match("create-function-response", world.create(name))
    world.active(name)
    client.update_function_code(FunctionName=name, ZipFile=zipped({"handler.py": "one = 1\n"}))
    recorded.match(
        "update-during-in-progress-update-exc",
        world.error(client.update_function_code, FunctionName=name, ZipFile=zipped({"handler.py": "two = 2\n"})),
    )


@replays(API + "TestLambdaFunction::test_lambda_concurrent_config_updates")
def configuration_update_meanwhile(world, recorded):
    client, name = world.client, world.name()
    recorded.match("create-function-response", world.create(name, wrapped=True))
    world.active(name)
    client.update_function_configuration(FunctionName=name, Environment={"Variables": {"ENV_A": "a"}})
    recorded.match(
        "update-during-in-progress-update-exc",
        world.error(client.update_function_configuration, FunctionName=name, Environment={"Variables": {"ENV_A": "b"}}),
    )


@replays(API + "TestLambdaFunction::test_ops_on_nonexisting_version[*]")
def version_that_is_not_there(world, recorded, operation):
    name = world.name()
    world.create(name, wrapped=True)
    world.active(name)
    recorded.match("version_not_found_exception", world.error(getattr(world.client, operation), FunctionName=name, Qualifier="1221"))


@replays(API + "TestLambdaFunction::test_ops_with_arn_qualifier_mismatch[*]")
def qualifiers_against_arn(world, recorded, operation):
    call, arn = getattr(world.client, operation), world.arn("some-function", "$LATEST")
    recorded.match("not_match_exception", world.error(call, FunctionName=arn, Qualifier="1"))
    recorded.match("match_exception", world.error(call, FunctionName=arn, Qualifier="$LATEST"))


@replays(API + "TestLambdaFunction::test_invalid_invoke")
def invoke_no_name(world, recorded):
    name = f"arn:aws:lambda:{world.region}:123400000000@function:myfn"
    recorded.match("invoke_function_name_pattern_exc", world.error(world.client.invoke, FunctionName=name, Payload=b"{}"))


@replays(API + "TestLambdaFunction::test_vpc_config")
def vpc(world, recorded):
    client, name = world.client, world.name()
    one, two = {"SubnetIds": ["subnet-0a"], "SecurityGroupIds": ["sg-0a"]}, {"SubnetIds": ["subnet-0b"], "SecurityGroupIds": ["sg-0b"]}
    recorded.match("create_response", world.create(name, wrapped=True, MemorySize=256, Timeout=5, VpcConfig=one))
    world.active(name)
    recorded.match("get_function_response", client.get_function(FunctionName=name))
    recorded.match("update_vpcconfig_update_response", client.update_function_configuration(FunctionName=name, VpcConfig=two))
    world.updated(name)
    recorded.match("update_vpcconfig_get_function_response", client.get_function(FunctionName=name))
    recorded.match(
        "delete_vpcconfig_update_response",
        client.update_function_configuration(FunctionName=name, VpcConfig={"SubnetIds": [], "SecurityGroupIds": []}),
    )
    world.updated(name)
    recorded.match("delete_vpcconfig_get_function_response", client.get_function(FunctionName=name))


@replays(API + "TestLambdaLayer::test_layer_compatibilities[*]")
def layer_compatibilities(world, recorded, _):
    client, layer = world.client, f"rec-layer-{uuid.uuid4().hex[:8]}"
    wanted = recorded.expected["publish_result"]
    made = world.error(client.publish_layer_version, LayerName=layer, Content={"ZipFile": zipped({"testfile.txt": "hello"})},
                       CompatibleRuntimes=wanted["CompatibleRuntimes"], CompatibleArchitectures=wanted["CompatibleArchitectures"])  # fmt: skip
    world.undo.append(lambda: client.delete_layer_version(LayerName=layer, VersionNumber=1))
    recorded.match("publish_result", made)


@replays(API + "TestLambdaPermissions::test_create_multiple_lambda_permissions")
def two_permissions(world, recorded):
    client, name = world.client, world.name()
    world.create(name)
    world.active(name)
    for key, service in (("add_permission_response_1", "logs"), ("add_permission_response_2", "kinesis")):
        recorded.match(
            key,
            client.add_permission(
                FunctionName=name, Action="lambda:InvokeFunction", StatementId=service, Principal=f"{service}.amazonaws.com"
            ),
        )
    recorded.match("policy_after_2_add", client.get_policy(FunctionName=name))


@replays(API + "TestLambdaPermissions::test_lambda_permission_versioning")
def permissions_of_versions(world, recorded):
    client, name, bucket = world.client, world.name(), "arn:aws:s3:::rec-bucket"
    world.create(name)
    world.active(name)
    members = {"FunctionName": name, "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com", "SourceArn": bucket}
    recorded.match("add_permission", client.add_permission(StatementId="s3", **members))
    recorded.match("get_policy", client.get_policy(FunctionName=name))
    version = client.publish_version(FunctionName=name)["Version"]
    recorded.match("get_policy_after_publishing_latest", client.get_policy(FunctionName=name))
    recorded.match("get_policy_after_publishing_new_version", world.error(client.get_policy, FunctionName=name, Qualifier=version))
    client.add_permission(StatementId="s3", Qualifier=version, **members)
    recorded.match("get_policy_after_adding_to_new_version", client.get_policy(FunctionName=name))
    client.add_permission(StatementId="s3_2", **members)
    recorded.match("get_policy_after_adding_2", client.get_policy(FunctionName=name))


@replays(API + "TestLambdaRevisions::test_function_revisions_version_and_alias")
def revisions(world, recorded):
    client, name = world.client, world.name()
    recorded.match("create_function_response_rev1", world.create(name, wrapped=True))
    world.active(name)
    active = client.get_function(FunctionName=name)
    recorded.match("get_function_active_rev2", active)
    recorded.match("publish_version_revision_exception", world.error(client.publish_version, FunctionName=name, RevisionId="wrong"))
    published = client.publish_version(FunctionName=name, RevisionId=active["Configuration"]["RevisionId"])
    recorded.match("publish_version_response_rev_v1", published)
    recorded.match("get_function_published_version_rev_v2", client.get_function(FunctionName=name, Qualifier=published["Version"]))
    recorded.match("get_function_latest_rev3", client.get_function(FunctionName=name))
    alias = client.create_alias(FunctionName=name, Name="revision_alias", FunctionVersion=published["Version"])
    recorded.match("create_alias_response_rev_a1", alias)
    recorded.match("get_function_latest_rev4", client.get_function(FunctionName=name))
    recorded.match("get_function_published_version_rev_v3", client.get_function(FunctionName=name, Qualifier=published["Version"]))
    change = {"FunctionName": name, "Name": "revision_alias", "Description": "something changed"}
    recorded.match("update_alias_revision_exception", world.error(client.update_alias, RevisionId="wrong", **change))
    recorded.match("update_alias_response_rev_a2", client.update_alias(RevisionId=alias["RevisionId"], **change))


@replays(API + "TestLambdaSizeLimits::test_lambda_envvars_near_limit_succeeds")
def variables_near_their_limit(world, recorded):
    text = recorded.expected["successful_create_fn_result"]["CreateFunctionResponse"]["Environment"]["Variables"]["LARGE_VAR"]
    recorded.match("successful_create_fn_result", world.create(world.name(), wrapped=True, Environment={"Variables": {"LARGE_VAR": text}}))


@replays(API + "TestLambdaSizeLimits::test_large_environment_variables_fails")
def variables_beyond_their_limit(world, recorded):
    told = recorded.expected["failed_create_fn_result"]["Error"]["Message"]
    text = "x" * told.count("x", told.index('{"LARGE_VAR":"'))
    name = world.name()
    recorded.match("failed_create_fn_result", world.error(world.create, name, wrapped=True, Environment={"Variables": {"LARGE_VAR": text}}))


@replays(API + "TestLambdaSizeLimits::test_large_lambda")
def large_code(world, recorded):
    code = zipped({"handler.py": "def handler(event, context): ...\n#" + "a" * (262144000 - 1000)}, compress=True)
    recorded.match("create_function_large_zip", world.create(world.name(), Timeout=10, Code={"ZipFile": code}))


@replays(API + "TestLambdaSizeLimits::test_oversized_lambda", API + "TestLambdaSizeLimits::test_oversized_unzipped_lambda")
def oversized_code(world, recorded):
    code = zipped({"handler.py": "a" * (262144000 + 10)}, compress=True)
    recorded.match("invalid_param_exc", world.error(world.create, world.name(), Timeout=10, Code={"ZipFile": code}))


@replays(API + "TestLambdaSizeLimits::test_oversized_zipped_create_lambda")
def oversized_zip(world, recorded):
    recorded.match(
        "invalid_param_exc", world.error(world.create, world.name(), Timeout=10, Code={"ZipFile": zipped({"handler.py": "a" * 52428800})})
    )


@replays(API + "TestLambdaSizeLimits::test_oversized_request_create_lambda")
def oversized_request(world, recorded):
    recorded.match("invalid_param_exc", world.error(world.create, world.name(), Timeout=10, Code={"ZipFile": b"a" * 53000000}))


@replays(API + "TestLambdaSnapStart::test_snapstart_lifecycle[*]")
def snapstart_lifecycle(world, recorded, runtime):
    client, name = world.client, world.name()
    handler = recorded.expected["create_function_response"]["Handler"]
    recorded.match("create_function_response", world.create(name, Runtime=runtime, Handler=handler, MemorySize=1024, Timeout=5))
    world.active(name)
    recorded.match("get_function_response_latest", client.get_function(FunctionName=name))
    client.publish_version(FunctionName=name, Description="version1")
    recorded.match("get_function_response_version_1", client.get_function(FunctionName=name, Qualifier="1"))


@replays(API + "TestLambdaSnapStart::test_snapstart_update_function_configuration[*]")
def snapstart_update(world, recorded, runtime):
    name = world.name()
    handler = recorded.expected["create_function_response"]["Handler"]
    recorded.match("create_function_response", world.create(name, Runtime=runtime, Handler=handler, MemorySize=1024, Timeout=5))
    world.active(name)
    # This case's revisions begin at the update: the one in between is not among the recorded.
    recorded.match(
        "update_function_response",
        world.client.update_function_configuration(FunctionName=name, SnapStart={"ApplyOn": "PublishedVersions"}),
    )


@replays(API + "TestLambdaTags::test_tag_exceptions")
def tag_refusals(world, recorded):
    client, name = world.client, world.name()
    world.create(name, wrapped=True)
    world.active(name)
    arn = world.arn(name)
    recorded.match("tag_lambda_invalidarn", world.error(client.tag_resource, Resource="arn:aws:something", Tags={"key_a": "value_a"}))
    recorded.match(
        "tag_lambda_doesnotexist", world.error(client.tag_resource, Resource=world.arn("doesnotexist"), Tags={"key_a": "value_a"})
    )
    recorded.match(
        "tag_lambda_qualifier_doesnotexist", world.error(client.tag_resource, Resource=world.arn(name, "v1"), Tags={"key_a": "value_a"})
    )
    recorded.match("tag_empty_tags", world.error(client.tag_resource, Resource=arn, Tags={}))
    recorded.match("untag_empty_keys", world.error(world.loose.untag_resource, Resource=arn, TagKeys=[]))
    recorded.match("untag_nomatch", world.error(client.untag_resource, Resource=arn, TagKeys=["key_a"]))
    recorded.match("list_tag_lambda_empty", client.list_tags(Resource=arn))


@replays(API + "TestLambdaTags::test_tag_lifecycle")
def tag_lifecycle(world, recorded):
    client, name = world.client, world.name()
    world.create(name, wrapped=True, Tags={"key_a": "value_a"})
    world.active(name)
    arn = world.arn(name)

    def shown(step):
        recorded.match(f"list_tags_response_{step}", client.list_tags(Resource=arn))
        recorded.match(
            f"get_fn_response_{step}" if step != "postfncreate" else "get_fn_response_postfncreate", client.get_function(FunctionName=name)
        )

    shown("postfncreate")
    recorded.match(
        "tag_resource_response",
        client.tag_resource(Resource=arn, Tags={"key_b": "value_b", "key_c": "value_c", "key_d": "value_d", "key_e": "value_e"}),
    )
    shown("postaddtags")
    recorded.match("tag_resource_overwrite", client.tag_resource(Resource=arn, Tags={"key_b": "value_b", "key_c": "value_x"}))
    shown("overwrite")
    client.untag_resource(Resource=arn, TagKeys=["key_c", "key_d"])
    shown("postuntag")
    client.untag_resource(Resource=arn, TagKeys=["key_a", "key_b", "key_e"])
    shown("postuntagall")
    client.delete_function(FunctionName=name)
    recorded.match("list_tags_postdelete", world.error(client.list_tags, Resource=arn))


@replays(API + "TestLambdaTags::test_tag_limits")
def tag_limits(world, recorded):
    client, name = world.client, world.name()
    world.create(name, wrapped=True)
    world.active(name)
    arn, many = world.arn(name), {f"{number}_key": f"{number}_value" for number in range(51)}
    recorded.match("tag_lambda_too_many_tags", world.error(client.tag_resource, Resource=arn, Tags=many))
    recorded.match("tag_response", client.tag_resource(Resource=arn, Tags={f"{number}_key": f"{number}_value" for number in range(50)}))
    recorded.match("list_tags_response", client.list_tags(Resource=arn))
    recorded.match("get_fn_response", client.get_function(FunctionName=name))
    recorded.match("tag_lambda_too_many_tags_additional", world.error(client.tag_resource, Resource=arn, Tags={"a_key": "a_value"}))
    recorded.match("create_function_invalid_tags", world.error(world.create, world.name(), Tags=many))


@replays(API + "TestLambdaTags::test_tag_versions")
def tags_of_versions(world, recorded):
    client, name = world.client, world.name()
    world.create(name, wrapped=True, Publish=True)
    world.active(name)
    recorded.match("tag_resource_exception", world.error(client.tag_resource, Resource=world.arn(name, "1"), Tags={"key_c": "value_c"}))
    recorded.match(
        "tag_resource_latest_exception", world.error(client.tag_resource, Resource=world.arn(name, "$LATEST"), Tags={"key_c": "value_c"})
    )


@replays(API + "TestLambdaUrl::test_url_config_lifecycle")
def url_lifecycle(world, recorded):
    client, name = world.client, world.name()
    world.create(name, wrapped=True)
    world.active(name)
    recorded.match("url_creation", client.create_function_url_config(FunctionName=name, AuthType="NONE"))
    recorded.match("failed_duplication", world.error(client.create_function_url_config, FunctionName=name, AuthType="NONE"))
    recorded.match("get_url_config", client.get_function_url_config(FunctionName=name))
    recorded.match("updated_url_config", client.update_function_url_config(FunctionName=name, AuthType="AWS_IAM"))
    client.delete_function_url_config(FunctionName=name)
    recorded.match("failed_getter", world.error(client.get_function_url_config, FunctionName=name))


@replays(API + "TestLambdaUrl::test_url_config_deletion_without_qualifier")
def url_of_an_alias(world, recorded):
    client, name = world.client, world.name()
    world.create(name, wrapped=True)
    world.active(name)
    client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, Name="test-alias", FunctionVersion="1")
    of_alias = {"FunctionName": name, "Qualifier": "test-alias"}
    recorded.match("url_creation", client.create_function_url_config(FunctionName=name, AuthType="NONE"))
    recorded.match("url_with_alias_creation", client.create_function_url_config(AuthType="NONE", **of_alias))
    recorded.match("get_url_config", client.get_function_url_config(FunctionName=name))
    recorded.match("get_url_config_with_alias", client.get_function_url_config(**of_alias))
    recorded.match("delete_function_url_config", client.delete_function_url_config(FunctionName=name))
    recorded.match("get_url_config_after_deletion", world.error(client.get_function_url_config, FunctionName=name))
    recorded.match("get_url_config_with_alias_after_deletion", client.get_function_url_config(**of_alias))


@replays(API + "TestLambdaVersions::test_publish_with_wrong_sha256")
def publish_by_digest(world, recorded):
    client, name = world.client, world.name()
    recorded.match("create_response", world.create(name, Handler="index.handler", Code={"ZipFile": zipped({"index.py": ALIAS_CODE})}))
    world.active(name)
    got = client.get_function(FunctionName=name)
    recorded.match("get_fn_response", got)
    recorded.match("publish_wrong_sha256_exc", world.error(client.publish_version, FunctionName=name, CodeSha256="somenonexistentsha256"))
    recorded.match("publish_result", client.publish_version(FunctionName=name, CodeSha256=got["Configuration"]["CodeSha256"]))


@replays(API + "TestLoggingConfig::test_advanced_logging_configuration_format_switch")
def log_formats(world, recorded):
    client, name = world.client, world.name()
    recorded.match("create_response", world.create(name, wrapped=True, MemorySize=256, Timeout=5))
    world.active(name)
    recorded.match("get_function_response", client.get_function(FunctionName=name))
    recorded.match("function_config", client.get_function_configuration(FunctionName=name))
    for suffix, change in (("", {"LogFormat": "JSON"}), ("_v2", {"LogFormat": "Text"})):
        recorded.match(f"updated_config{suffix}", client.update_function_configuration(FunctionName=name, LoggingConfig=change))
        world.updated(name)
        recorded.match(f"received_config{suffix}", client.get_function_configuration(FunctionName=name))


@replays(API + "TestRuntimeValidation::test_create_deprecated_function_runtime_with_validation_enabled[*]")
def deprecated_runtimes(world, recorded, runtime):
    recorded.match("deprecation_error", world.error(world.create, world.name(), Runtime=runtime))


@replays(API + "TestLambdaRecursion::test_put_function_recursion_config_allow")
def recursion_allowed(world, recorded):
    client, name = world.client, world.name()
    world.create(name)
    world.active(name)
    recorded.match("put_recursion_config_response", client.put_function_recursion_config(FunctionName=name, RecursiveLoop="Allow"))
    recorded.match("get_recursion_config_response", client.get_function_recursion_config(FunctionName=name))


@replays(API + "TestLambdaRecursion::test_put_function_recursion_config_invalid_value")
def recursion_refused(world, recorded):
    name = world.name()
    world.create(name)
    world.active(name)
    recorded.match(
        "put_recursion_invalid_value_error",
        world.error(world.loose.put_function_recursion_config, FunctionName=name, RecursiveLoop="InvalidValue"),
    )
