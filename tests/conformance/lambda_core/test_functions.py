"""Create, read, change, delete: valid, boundary and invalid calls."""

import base64
import hashlib
import os
import urllib.request
import uuid

import pytest

from support import ROLE, RUNTIME, create, error_of, expect, expect_golden, package, wait_active


def without(answer, *names):
    return {key: value for key, value in answer.items() if key not in ("ResponseMetadata", *names)}


BY_NATURE = ("CodeSize", "CodeSha256", "LastModified", "RevisionId", "RuntimeVersionConfig", "Role", "Runtime")


def same(answer, golden):
    assert set(without(answer)) == set(golden)
    assert without(answer, *BY_NATURE) == {key: value for key, value in golden.items() if key not in BY_NATURE}


def test_a_function_lives_as_recorded(aws, name, golden):
    made = create(aws, name, Handler="handler.handler", Timeout=5, MemorySize=256, Environment={"Variables": {}})
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    same(made, golden("configurations", "create", name))
    wait_active(aws, name)
    same(aws.get_function(FunctionName=name)["Configuration"], golden("configurations", "get", name))
    update = aws.update_function_configuration(
        FunctionName=name, Description="Changed-Description", Timeout=10, MemorySize=512, Environment={"Variables": {"ENV_A": "a"}}
    )
    same(update, golden("configurations", "update_configuration", name))
    aws.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.1})
    same(aws.get_function_configuration(FunctionName=name), golden("configurations", "after_update", name))
    published = aws.publish_version(FunctionName=name)
    assert published["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert published["Version"] == "1" and published["FunctionArn"].endswith(name + ":1")
    assert aws.delete_function(FunctionName=name)["ResponseMetadata"]["HTTPStatusCode"] == 204
    expect_golden(error_of(aws.delete_function, FunctionName=name), golden("errors", "function_not_found", name))


def test_the_code_can_be_downloaded_without_a_signature(aws, name):
    code = package()
    create(aws, name, Code={"ZipFile": code})
    location = aws.get_function(FunctionName=name)["Code"]["Location"]
    with urllib.request.urlopen(location) as answer:
        assert answer.read() == code
        assert answer.headers["Content-Type"] == "application/zip"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(location.replace("X-Amz-Signature=", "X-Amz-Signature=0"))
    assert refused.value.code == 403


def test_each_form_of_a_name_works(aws, name, arn, account):
    create(aws, name)
    for form in (name, f"{name}:$LATEST", f"{account}:function:{name}", f"function:{name}", arn(name), arn(name) + ":$LATEST"):
        assert aws.get_function_configuration(FunctionName=form)["FunctionName"] == name


def test_names_of_other_regions_and_accounts_are_refused(aws, name, arn, account):
    elsewhere = arn(name).replace(os.environ["AWS_REGION"], "ap-south-1")
    expect(
        error_of(aws.get_function, FunctionName=elsewhere),
        404,
        "ResourceNotFoundException",
        "Functions from 'ap-south-1' are not reachable in this region",
    )
    expect(error_of(aws.get_function, FunctionName=arn(name).replace(account, "111111111111")), 403, "AccessDeniedException")


def test_revisions_change_with_every_change(aws, name):
    seen = [create(aws, name)["RevisionId"]]
    wait_active(aws, name)
    seen.append(aws.get_function_configuration(FunctionName=name)["RevisionId"])
    seen.append(aws.update_function_configuration(FunctionName=name, Description="x")["RevisionId"])
    aws.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.1})
    seen.append(aws.get_function_configuration(FunctionName=name)["RevisionId"])
    assert len(set(seen)) == 4 and all(uuid.UUID(each) for each in seen)


def test_a_stale_revision_is_refused_as_recorded(aws, name, golden):
    create(aws, name)
    wrong = golden("errors", "revision")
    stale = str(uuid.uuid4())
    expect_golden(error_of(aws.update_function_configuration, FunctionName=name, Description="x", RevisionId=stale), wrong)
    expect_golden(error_of(aws.update_function_code, FunctionName=name, ZipFile=package(), RevisionId=stale), wrong)
    expect_golden(error_of(aws.publish_version, FunctionName=name, RevisionId=stale), wrong)


def test_the_digest_is_that_of_the_zip(aws, name):
    code = package("x = 1\n")
    create(aws, name)
    updated = aws.update_function_code(FunctionName=name, ZipFile=code)
    assert updated["CodeSha256"] == base64.b64encode(hashlib.sha256(code).digest()).decode()
    assert updated["CodeSize"] == len(code)
    assert updated["LastUpdateStatus"] == "InProgress"


def test_a_dry_run_of_an_update_changes_nothing(aws, name):
    before = create(aws, name)
    answered = aws.update_function_code(FunctionName=name, ZipFile=package("y = 2\n"), DryRun=True)
    assert answered["CodeSha256"] != before["CodeSha256"]
    assert aws.get_function_configuration(FunctionName=name)["CodeSha256"] == before["CodeSha256"]


@pytest.mark.parametrize(
    "members, recorded",
    [
        ({"Role": "r1"}, "role"),
        ({"Runtime": "non-existent-runtime"}, "runtime"),
        ({"Runtime": "python3.7"}, "deprecated_runtime"),
        ({"Architectures": ["x86_64", "arm64"]}, "architectures_two"),
        ({"Architectures": ["X86_64"]}, "architecture_uppercase"),
    ],
)
def test_recorded_refusals_of_create(aws, name, golden, members, recorded):
    expect_golden(error_of(create, aws, name, **members), golden("errors", recorded, name))


@pytest.mark.parametrize(
    "members, path, constraint",
    [
        ({"Timeout": 0}, "timeout", "Member must have value greater than or equal to 1"),
        ({"MemorySize": 127}, "memorySize", "Member must have value greater than or equal to 128"),
        ({"MemorySize": 32769}, "memorySize", "Member must have value less than or equal to 32768"),
        ({"EphemeralStorage": {"Size": 511}}, "ephemeralStorage.size", "Member must have value greater than or equal to 512"),
        ({"EphemeralStorage": {"Size": 10241}}, "ephemeralStorage.size", "Member must have value less than or equal to 10240"),
        ({"EphemeralStorage": {}}, "ephemeralStorage.size", "Member must not be null"),
        ({"Description": "d" * 257}, "description", "Member must have length less than or equal to 256"),
        ({"Handler": "h" * 129}, "handler", "Member must have length less than or equal to 128"),
        ({"Handler": "a b"}, "handler", "Member must satisfy regular expression pattern: [^\\s]+"),
        ({"TracingConfig": {"Mode": "Sometimes"}}, "tracingConfig.mode", "Member must satisfy enum value set: [Active, PassThrough]"),
        ({"LoggingConfig": {"LogFormat": "XML"}}, "loggingConfig.logFormat", "Member must satisfy enum value set: [JSON, Text]"),
        ({"Role": None}, "role", "Member must not be null"),
        ({"Code": None}, "code", "Member must not be null"),
    ],
)
def test_shapes_are_checked(aws, name, members, path, constraint):
    refused = error_of(create, aws, name, **members)
    expect(refused, 400, "ValidationException", f"at '{path}' failed to satisfy constraint: {constraint}")
    assert refused["Error"]["Message"].startswith("1 validation error detected: Value ")


def test_all_violations_come_at_once(aws, name):
    refused = error_of(create, aws, name, Timeout=0, MemorySize=1, Role="r1")
    assert refused["Error"]["Message"].startswith("3 validation errors detected: ")
    assert refused["Error"]["Message"].count("failed to satisfy constraint") == 3


@pytest.mark.parametrize(
    "members, code, part",
    [
        ({"Handler": None}, "InvalidParameterValueException", "Runtime and Handler are mandatory"),
        ({"Runtime": None}, "InvalidParameterValueException", "Runtime and Handler are mandatory"),
        ({"Timeout": 901}, "InvalidParameterValueException", "900"),
        ({"MemorySize": 10241}, "InvalidParameterValueException", "10240"),
        ({"Code": {}}, "InvalidParameterValueException", "Please provide a source for function code."),
        ({"Code": {"ZipFile": b""}}, "InvalidParameterValueException", "non-empty"),
        ({"Code": {"S3Bucket": "no-such-bucket", "S3Key": "key"}}, "InvalidParameterValueException", "S3 Error Code: NoSuchBucket"),
        ({"Code": {"ImageUri": "image"}}, "UnsupportedOperationException", "image"),
        ({"Layers": ["arn:aws:lambda:us-east-1:000000000000:layer:l:1"]}, "InvalidParameterValueException", "Layer version arn:aws:lambda:us-east-1:000000000000:layer:l:1 does not exist."),
        ({"PackageType": "Image"}, "UnsupportedOperationException", "image"),
        (
            {"Environment": {"Variables": {"AWS_REGION": "x"}}},
            "InvalidParameterValueException",
            "Reserved keys used in this request: AWS_REGION",
        ),
        ({"Environment": {"Variables": {"1X": "x"}}}, "ValidationException", "environment.variables"),
        ({"Tags": {f"k{i}": "v" for i in range(51)}}, "InvalidParameterValueException", "Number of tags exceeds resource tag limit."),
        ({"Timeout": "5"}, "SerializationException", "timeout"),
    ],
)
def test_meanings_are_checked(aws, name, members, code, part):
    expect(error_of(create, aws, name, **members), 400, code, part)


def test_a_broken_archive_is_refused_as_recorded(aws, name):
    expect(
        error_of(create, aws, name, Code={"ZipFile": b"this is no zip"}),
        400,
        "InvalidParameterValueException",
        "Could not unzip uploaded file. Please check your file, then try to upload again.",
    )
    expect(error_of(aws.get_function, FunctionName=name), 404, "ResourceNotFoundException")


def test_variables_may_take_four_kilobytes(aws, name):
    frame = len('{"LARGE_VAR":""}')
    made = create(aws, name, Environment={"Variables": {"LARGE_VAR": "x" * (4096 - frame)}})
    assert len(made["Environment"]["Variables"]["LARGE_VAR"]) == 4096 - frame
    refused = error_of(aws.update_function_configuration, FunctionName=name, Environment={"Variables": {"LARGE_VAR": "x" * (4097 - frame)}})
    expect(refused, 400, "InvalidParameterValueException", "exceeded the 4KB limit. String measured: {\"LARGE_VAR\":\"xxx")


def test_boundaries_are_accepted(aws, name):
    made = create(aws, name, Timeout=900, MemorySize=10240, EphemeralStorage={"Size": 10240}, Description="d" * 256)
    assert (made["Timeout"], made["MemorySize"], made["EphemeralStorage"]["Size"]) == (900, 10240, 10240)


def test_a_name_may_have_64_characters(aws):
    longest = "n" * 55 + uuid.uuid4().hex[:9]
    try:
        assert create(aws, longest)["FunctionName"] == longest
    finally:
        aws.delete_function(FunctionName=longest)
    expect(error_of(create, aws, longest + "x"), 400, "ValidationException", "Member must have length less than or equal to 64")


def test_a_name_is_taken_once(aws, name):
    create(aws, name)
    expect(error_of(create, aws, name), 409, "ResourceConflictException", "Function already exist: " + name)


def test_stored_members_are_shown_and_taken_away(aws, name):
    queue = "arn:aws:sqs:us-east-1:000000000000:q"
    made = create(aws, name, DeadLetterConfig={"TargetArn": queue}, VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]})
    assert made["DeadLetterConfig"] == {"TargetArn": queue}
    assert made["VpcConfig"] == {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"], "VpcId": "", "Ipv6AllowedForDualStack": False}
    aws.update_function_configuration(
        FunctionName=name, DeadLetterConfig={"TargetArn": ""}, VpcConfig={"SubnetIds": [], "SecurityGroupIds": []}
    )
    shown = aws.get_function_configuration(FunctionName=name)
    assert "DeadLetterConfig" not in shown
    assert shown["VpcConfig"]["SubnetIds"] == []


def test_json_logging_shows_its_levels(aws, name):
    create(aws, name)
    shown = aws.update_function_configuration(FunctionName=name, LoggingConfig={"LogFormat": "JSON"})
    assert shown["LoggingConfig"] == {
        "LogFormat": "JSON",
        "LogGroup": f"/aws/lambda/{name}",
        "ApplicationLogLevel": "INFO",
        "SystemLogLevel": "INFO",
    }
    shown = aws.update_function_configuration(FunctionName=name, LoggingConfig={"LogFormat": "Text"})
    assert shown["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{name}"}


def test_functions_are_listed_in_pages(aws):
    stem = "l-" + uuid.uuid4().hex[:8]
    names = [f"{stem}-{i}" for i in range(3)]
    try:
        for each in names:
            create(aws, each)
        pages = aws.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2})
        listed = [function for page in pages for function in page["Functions"] if function["FunctionName"].startswith(stem)]
        assert [function["FunctionName"] for function in listed] == names
        assert "State" not in listed[0] and listed[0]["FunctionArn"].endswith(names[0])
        everything = [
            function for page in aws.get_paginator("list_functions").paginate(FunctionVersion="ALL") for function in page["Functions"]
        ]
        assert sum(function["FunctionArn"].endswith(f":{names[0]}:$LATEST") for function in everything) == 1
    finally:
        for each in names:
            aws.delete_function(FunctionName=each)


@pytest.mark.parametrize(
    "members, code",
    [
        ({"MaxItems": 0}, "ValidationException"),
        ({"MaxItems": 10001}, "ValidationException"),
        ({"FunctionVersion": "SOME"}, "ValidationException"),
        ({"Marker": "nonsense"}, "InvalidParameterValueException"),
    ],
)
def test_bad_pages_are_refused(aws, members, code):
    expect(error_of(aws.list_functions, **members), 400, code)


def test_unknown_functions_are_not_found_by_any_operation(aws, name, arn):
    missing = "Function not found: " + arn(name)
    for call, members in (
        (aws.get_function, {}),
        (aws.get_function_configuration, {}),
        (aws.update_function_configuration, {"Timeout": 3}),
        (aws.update_function_code, {"ZipFile": package()}),
        (aws.delete_function, {}),
        (aws.publish_version, {}),
        (aws.list_versions_by_function, {}),
        (aws.get_function_code_signing_config, {}),
    ):
        refused = error_of(call, FunctionName=name, **members)
        expect(refused, 404, "ResourceNotFoundException", missing)
        assert refused["Type"] == "User" and refused["Message"].startswith(missing)


def test_the_code_signing_configuration_is_empty(aws, name):
    create(aws, name)
    assert without(aws.get_function_code_signing_config(FunctionName=name)) == {}


def test_the_account_counts_its_functions(aws, name):
    before = aws.get_account_settings()
    size = create(aws, name)["CodeSize"]
    after = aws.get_account_settings()
    assert after["AccountUsage"]["FunctionCount"] == before["AccountUsage"]["FunctionCount"] + 1
    assert after["AccountUsage"]["TotalCodeSize"] == before["AccountUsage"]["TotalCodeSize"] + size
    assert after["AccountLimit"]["CodeSizeZipped"] == 52428800


def test_runtime_and_role_are_stored_as_given(aws, name):
    made = create(aws, name)
    assert (made["Runtime"], made["Role"]) == (RUNTIME, ROLE)
    assert made["RuntimeVersionConfig"]["RuntimeVersionArn"].startswith("arn:aws:lambda:")
