"""Event source mappings as boto3, the AWS CLI and Terraform see them: every kind of source, changes, lists, errors, restarts."""
import datetime
import json
import os
import shutil
import subprocess
import time
import uuid

import pytest
from botocore.exceptions import ClientError

from mayfly_server import ROOT, python_function, zip_of

SOURCE = "def handler(event, context):\n    return event\n"
PREFIX = "us-east-1:000000000000"
SECRET = f"arn:aws:secretsmanager:{PREFIX}:secret:broker"


def fresh(kind):
    """The ARN of a source of its own."""
    word = "s" + uuid.uuid4().hex[:10]
    return {
        "sqs": f"arn:aws:sqs:{PREFIX}:{word}",
        "fifo": f"arn:aws:sqs:{PREFIX}:{word}.fifo",
        "kinesis": f"arn:aws:kinesis:{PREFIX}:stream/{word}",
        "dynamodb": f"arn:aws:dynamodb:{PREFIX}:table/{word}/stream/2026-01-01T00:00:00.000",
        "msk": f"arn:aws:kafka:{PREFIX}:cluster/{word}/{uuid.uuid4()}-1",
        "mq": f"arn:aws:mq:{PREFIX}:broker:{word}:b-{uuid.uuid4()}",
        "documentdb": f"arn:aws:rds:{PREFIX}:cluster:{word}",
    }[kind]


def source_of(kind):
    """What a create call says of a source of this kind, at least."""
    if kind == "kafka":
        return {"SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [f"k{uuid.uuid4().hex[:8]}.example:9092"]}}, "Topics": ["orders"],
                "StartingPosition": "TRIM_HORIZON", "SourceAccessConfigurations": [{"Type": "BASIC_AUTH", "URI": SECRET}]}
    more = {
        "kinesis": {"StartingPosition": "LATEST"},
        "dynamodb": {"StartingPosition": "TRIM_HORIZON"},
        "msk": {"Topics": ["orders"], "StartingPosition": "LATEST"},
        "mq": {"Queues": ["orders"], "SourceAccessConfigurations": [{"Type": "BASIC_AUTH", "URI": SECRET}]},
        "documentdb": {"SourceAccessConfigurations": [{"Type": "BASIC_AUTH", "URI": SECRET}], "DocumentDBEventSourceConfig": {"DatabaseName": "shop", "CollectionName": "orders"}},
    }
    return {"EventSourceArn": fresh(kind), **more.get(kind, {})}


# What answers add to the request, by kind (recorded for queues and streams).
QUEUE = {"BatchSize": 10, "MaximumBatchingWindowInSeconds": 0, "FunctionResponseTypes": [], "StateTransitionReason": "USER_INITIATED"}
STREAM = {"BatchSize": 100, "MaximumBatchingWindowInSeconds": 0, "FunctionResponseTypes": [], "StateTransitionReason": "User action", "ParallelizationFactor": 1,
          "MaximumRecordAgeInSeconds": -1, "MaximumRetryAttempts": -1, "BisectBatchOnFunctionError": False, "TumblingWindowInSeconds": 0,
          "DestinationConfig": {"OnFailure": {}}, "LastProcessingResult": "No records processed"}
OTHER = {"BatchSize": 100, "StateTransitionReason": "USER_INITIATED", "LastProcessingResult": "No records processed"}
ADDED = {"sqs": QUEUE, "fifo": QUEUE, "kinesis": STREAM, "dynamodb": STREAM, "msk": OTHER, "kafka": OTHER, "mq": OTHER, "documentdb": OTHER}


@pytest.fixture
def function(aws, name):
    python_function(aws, name, SOURCE, Publish=True)
    aws.get_waiter("function_active_v2").wait(FunctionName=name)
    return name


def wait_for(aws, mapping_id, state):
    shown = aws.get_event_source_mapping(UUID=mapping_id)
    assert shown["State"] == state
    return shown


def without_metadata(answer):
    return {key: value for key, value in answer.items() if key != "ResponseMetadata"}


def refused(call, **arguments):
    with pytest.raises(ClientError) as error:
        call(**arguments)
    answer = error.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


@pytest.mark.parametrize("kind", sorted(ADDED))
def test_every_kind_of_source_walks_its_whole_life(aws, function, kind):
    wanted = source_of(kind)
    made = aws.create_event_source_mapping(FunctionName=function, **wanted)
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 202
    mapping_id = made["UUID"]
    assert made["EventSourceMappingArn"] == f"arn:aws:lambda:{PREFIX}:event-source-mapping:{mapping_id}"
    assert abs(made["LastModified"].timestamp() - time.time()) < 60
    expected = {**wanted, **ADDED[kind], "UUID": mapping_id, "EventSourceMappingArn": made["EventSourceMappingArn"], "LastModified": made["LastModified"],
                "FunctionArn": f"arn:aws:lambda:{PREFIX}:function:{function}", "State": "Creating"}
    group = {"msk": "AmazonManagedKafkaEventSourceConfig", "kafka": "SelfManagedKafkaEventSourceConfig"}.get(kind)
    if group:
        expected[group] = {"ConsumerGroupId": mapping_id}
    assert without_metadata(made) == expected
    assert without_metadata(wait_for(aws, mapping_id, "Enabled")) == {**expected, "State": "Enabled"}

    updated = aws.update_event_source_mapping(UUID=mapping_id, Enabled=False, BatchSize=5)
    assert (updated["ResponseMetadata"]["HTTPStatusCode"], updated["State"], updated["BatchSize"]) == (202, "Disabling", 5)
    wait_for(aws, mapping_id, "Disabled")
    assert aws.update_event_source_mapping(UUID=mapping_id, BatchSize=6)["State"] == "Updating"
    wait_for(aws, mapping_id, "Disabled")
    assert aws.update_event_source_mapping(UUID=mapping_id, Enabled=True)["State"] == "Enabling"
    assert wait_for(aws, mapping_id, "Enabled")["BatchSize"] == 6

    removed = aws.delete_event_source_mapping(UUID=mapping_id)
    assert (removed["ResponseMetadata"]["HTTPStatusCode"], removed["State"], removed["UUID"]) == (202, "Deleting", mapping_id)
    assert refused(aws.get_event_source_mapping, UUID=mapping_id) == (404, "ResourceNotFoundException", "The resource you requested does not exist.")
    aws.create_event_source_mapping(FunctionName=function, **wanted)  # the place is free again


def test_everything_that_can_be_set_is_shown_as_set(aws, function):
    at = datetime.datetime.fromtimestamp(1_700_000_000, datetime.timezone.utc)
    wanted = {"EventSourceArn": fresh("kinesis"), "StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": at, "BatchSize": 7, "MaximumBatchingWindowInSeconds": 8,
              "ParallelizationFactor": 9, "TumblingWindowInSeconds": 10, "MaximumRecordAgeInSeconds": 61, "MaximumRetryAttempts": 3, "BisectBatchOnFunctionError": True,
              "FunctionResponseTypes": ["ReportBatchItemFailures"], "DestinationConfig": {"OnFailure": {"Destination": fresh("sqs")}},
              "FilterCriteria": {"Filters": [{"Pattern": '{"data":{"kind":[{"prefix":"a"}]}}'}]}, "KMSKeyArn": f"arn:aws:kms:{PREFIX}:key/k",
              "MetricsConfig": {"Metrics": ["EventCount"]}}
    made = aws.create_event_source_mapping(FunctionName=function, Enabled=False, **wanted)
    assert made["State"] == "Disabled"
    assert {name: made[name] for name in wanted} == wanted
    assert without_metadata(aws.get_event_source_mapping(UUID=made["UUID"])) == without_metadata(made)
    cleared = aws.update_event_source_mapping(UUID=made["UUID"], FilterCriteria={}, KMSKeyArn="", MetricsConfig={}, DestinationConfig={"OnFailure": {}}, FunctionResponseTypes=[])
    assert cleared["DestinationConfig"] == {"OnFailure": {}} and cleared["FunctionResponseTypes"] == []
    assert not {"FilterCriteria", "KMSKeyArn", "MetricsConfig"} & set(cleared)

    queue = aws.create_event_source_mapping(FunctionName=function, EventSourceArn=fresh("sqs"), ScalingConfig={"MaximumConcurrency": 2})
    assert queue["ScalingConfig"] == {"MaximumConcurrency": 2}
    wait_for(aws, queue["UUID"], "Enabled")
    pollers = aws.update_event_source_mapping(UUID=queue["UUID"], ScalingConfig={}, ProvisionedPollerConfig={"MinimumPollers": 3})
    assert "ScalingConfig" not in pollers and pollers["ProvisionedPollerConfig"] == {"MinimumPollers": 3, "MaximumPollers": 200}


def test_a_function_is_named_in_each_form_and_shown_as_named(aws, function):
    plain = f"arn:aws:lambda:{PREFIX}:function:{function}"
    aws.create_alias(FunctionName=function, Name="live", FunctionVersion="1")
    for given, shown in [(function, plain), (plain, plain), (f"{plain}:1", f"{plain}:1"), (f"{plain}:live", f"{plain}:live"), (f"000000000000:function:{function}:$LATEST", f"{plain}:$LATEST"), (f"{function}:1", f"{plain}:1")]:
        made = aws.create_event_source_mapping(FunctionName=given, EventSourceArn=fresh("sqs"))
        assert made["FunctionArn"] == shown
    assert len(aws.list_event_source_mappings(FunctionName=f"{function}:live")["EventSourceMappings"]) == 1
    for given in ("no-such-function", f"{function}:2", f"{function}:no-such-alias"):
        assert refused(aws.create_event_source_mapping, FunctionName=given, EventSourceArn=fresh("sqs")) == (400, "InvalidParameterValueException", "Function does not exist")


def test_refusals_have_the_services_words(aws, function):
    create = aws.create_event_source_mapping
    invalid = (400, "InvalidParameterValueException")
    queue, stream = fresh("sqs"), fresh("kinesis")
    table = fresh("dynamodb")
    for arguments, text in [
        ({}, "Unrecognized event source."),
        ({"EventSourceArn": stream}, "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null."),
        ({"EventSourceArn": queue, "StartingPosition": "LATEST"}, "StartingPosition is not valid for SQS event sources."),
        ({"EventSourceArn": table, "StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1}, f"Unsupported starting position for arn type: {table}"),
        ({"EventSourceArn": stream, "StartingPosition": "AT_TIMESTAMP"}, "Need to specify a timestamp"),
        ({"EventSourceArn": queue, "DestinationConfig": {"OnFailure": {"Destination": fresh("sqs")}}}, "Unsupported DestinationConfig parameter for given event source mapping type."),
        ({"EventSourceArn": queue, "BatchSize": 11}, "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"),
        ({"EventSourceArn": fresh("fifo"), "MaximumBatchingWindowInSeconds": 1}, "Batching window is not supported for FIFO queues"),
        ({"EventSourceArn": queue, "ParallelizationFactor": 2}, "Unsupported 'parallelizationFactor' parameter for given event source mapping type."),
        ({"EventSourceArn": queue, "FilterCriteria": {"Filters": [{"Pattern": '{"eventSource":"aws:sqs"}'}]}}, "Invalid filter pattern definition."),
    ]:
        assert refused(create, FunctionName=function, **arguments) == (*invalid, text)
    status, code, text = refused(create, FunctionName=function, EventSourceArn="arn:aws:sns:us-east-1:000000000000:topic")
    assert (status, code) == invalid and text.startswith("Unrecognized event source.")
    status, code, text = refused(create, FunctionName=function, EventSourceArn=queue, ScalingConfig={"MaximumConcurrency": 1001})
    assert (status, code) == (400, "ValidationException") and "less than or equal to 1000" in text
    assert aws.list_event_source_mappings(FunctionName=function)["EventSourceMappings"] == []


def test_a_second_mapping_of_the_same_source_is_a_conflict_that_names_the_first(aws, function):
    queue, table = source_of("sqs"), source_of("dynamodb")
    first = aws.create_event_source_mapping(FunctionName=function, **queue)["UUID"]
    assert refused(aws.create_event_source_mapping, FunctionName=function, **queue) == (
        409, "ResourceConflictException", f'An event source mapping with SQS arn (" {queue["EventSourceArn"]} ") and function (" {function} ") already exists. '
        f"Please update or delete the existing mapping with UUID {first}")
    first = aws.create_event_source_mapping(FunctionName=function, **table)["UUID"]
    assert refused(aws.create_event_source_mapping, FunctionName=function, **table) == (
        409, "ResourceConflictException", f'The event source arn (" {table["EventSourceArn"]} ") and function (" {function} ") provided mapping already exists. '
        f"Please update or delete the existing mapping with UUID {first}")
    aws.create_event_source_mapping(FunctionName=f"{function}:1", **queue)


def test_a_change_under_way_refuses_the_next(aws, function):
    mapping_id = aws.create_event_source_mapping(FunctionName=function, **source_of("sqs"))["UUID"]
    assert refused(aws.update_event_source_mapping, UUID=mapping_id, BatchSize=1) == (400, "ResourceInUseException", "Cannot update the event source mapping because it is in use.")
    assert refused(aws.delete_event_source_mapping, UUID=mapping_id) == (400, "ResourceInUseException", "Cannot delete the event source mapping because it is in use.")
    time.sleep(0.9)  # nobody looked: it ends by itself
    aws.update_event_source_mapping(UUID=mapping_id, BatchSize=1)


def test_lists_filter_and_page(aws, function):
    shared = fresh("sqs")
    made = [aws.create_event_source_mapping(FunctionName=function, EventSourceArn=arn)["UUID"] for arn in [shared, *(fresh("sqs") for _ in range(6))]]
    versioned = aws.create_event_source_mapping(FunctionName=f"{function}:1", EventSourceArn=shared)["UUID"]

    def listed(**filters):
        return [mapping["UUID"] for mapping in aws.list_event_source_mappings(**filters)["EventSourceMappings"]]

    assert sorted(listed(FunctionName=function)) == sorted(made)
    assert listed(FunctionName=f"{function}:1") == [versioned]
    assert sorted(listed(EventSourceArn=shared)) == sorted([made[0], versioned])
    assert listed(EventSourceArn=shared, FunctionName=function) == [made[0]]
    pages = list(aws.get_paginator("list_event_source_mappings").paginate(FunctionName=function, PaginationConfig={"PageSize": 3}))
    assert [len(page["EventSourceMappings"]) for page in pages] == [3, 3, 1]
    assert sorted(mapping["UUID"] for page in pages for mapping in page["EventSourceMappings"]) == sorted(made)
    assert {mapping["State"] for mapping in pages[0]["EventSourceMappings"]} == {"Enabled"}
    assert refused(aws.list_event_source_mappings, Marker="?")[:2] == (400, "InvalidParameterValueException")


def test_tags_of_a_mapping(aws, function):
    arn = aws.create_event_source_mapping(FunctionName=function, Tags={"a": "1"}, **source_of("sqs"))["EventSourceMappingArn"]
    aws.tag_resource(Resource=arn, Tags={"b": "2"})
    aws.untag_resource(Resource=arn, TagKeys=["a"])
    assert aws.list_tags(Resource=arn)["Tags"] == {"b": "2"}
    assert refused(aws.list_tags, Resource=arn[:-36] + str(uuid.uuid4()))[:2] == (404, "ResourceNotFoundException")


def test_mappings_survive_kill_9_and_the_end_of_their_function(own_server):
    server = own_server()
    aws = server.client()
    python_function(aws, "kept", SOURCE)
    aws.get_waiter("function_active_v2").wait(FunctionName="kept")
    made = {kind: aws.create_event_source_mapping(FunctionName="kept", Tags={"kind": kind}, **source_of(kind)) for kind in ADDED}
    gone = aws.create_event_source_mapping(FunctionName="kept", **source_of("sqs"))["UUID"]
    wait_for(aws, gone, "Enabled")
    aws.delete_event_source_mapping(UUID=gone)
    aws.delete_function(FunctionName="kept")
    server.kill()
    server.start()
    aws = server.client()
    listed = {mapping["UUID"]: mapping for mapping in aws.list_event_source_mappings(FunctionName="kept")["EventSourceMappings"]}
    assert listed == {mapping["UUID"]: {**without_metadata(mapping), "State": "Enabled"} for mapping in made.values()}
    for kind, mapping in made.items():
        assert aws.list_tags(Resource=mapping["EventSourceMappingArn"])["Tags"] == {"kind": kind}
        aws.delete_event_source_mapping(UUID=mapping["UUID"])
    assert aws.list_event_source_mappings()["EventSourceMappings"] == []


def test_the_aws_cli_makes_and_removes_a_mapping(server, function):
    def run(*words):
        program = os.path.join(ROOT, "build", "venv", "bin", "aws")
        done = subprocess.run([program, "--endpoint-url", server.endpoint, "lambda", *words, "--output", "json"], capture_output=True, text=True, timeout=120, check=False,
                              env={**os.environ, **server.env})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    made = run("create-event-source-mapping", "--function-name", function, "--event-source-arn", fresh("sqs"), "--batch-size", "5", "--filter-criteria",
               '{"Filters":[{"Pattern":"{\\"body\\":{\\"a\\":[1]}}"}]}')
    assert run("get-event-source-mapping", "--uuid", made["UUID"])["State"] == "Enabled"
    assert [mapping["UUID"] for mapping in run("list-event-source-mappings", "--function-name", function)["EventSourceMappings"]] == [made["UUID"]]
    assert run("delete-event-source-mapping", "--uuid", made["UUID"])["State"] == "Deleting"


TERRAFORM = """
terraform {{
  required_providers {{ aws = {{ source = "hashicorp/aws" }} }}
}}
provider "aws" {{
  region                      = "us-east-1"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
}}
resource "aws_lambda_function" "f" {{
  function_name    = "{name}"
  role             = "arn:aws:iam::000000000000:role/tf"
  runtime          = "python3.11"
  handler          = "app.handler"
  filename         = "f.zip"
  source_code_hash = filebase64sha256("f.zip")
}}
resource "aws_lambda_event_source_mapping" "queue" {{
  event_source_arn                   = "arn:aws:sqs:us-east-1:000000000000:{name}"
  function_name                      = aws_lambda_function.f.arn
  batch_size                         = {batch}
  maximum_batching_window_in_seconds = 1
  enabled                            = {enabled}
  scaling_config {{ maximum_concurrency = 5 }}
  filter_criteria {{
    filter {{ pattern = jsonencode({{ body = {{ kind = ["order"] }} }}) }}
  }}
  tags = {{ made = "by-terraform" }}
}}
resource "aws_lambda_event_source_mapping" "stream" {{
  event_source_arn  = "arn:aws:kinesis:us-east-1:000000000000:stream/{name}"
  function_name     = aws_lambda_function.f.function_name
  starting_position = "LATEST"
  destination_config {{
    on_failure {{ destination_arn = "arn:aws:sqs:us-east-1:000000000000:{name}-failed" }}
  }}
}}
resource "aws_lambda_event_source_mapping" "kafka" {{
  function_name     = aws_lambda_function.f.arn
  topics            = ["orders"]
  starting_position = "TRIM_HORIZON"
  self_managed_event_source {{
    endpoints = {{ KAFKA_BOOTSTRAP_SERVERS = "kafka.example:9092" }}
  }}
  source_access_configuration {{
    type = "VPC_SUBNET"
    uri  = "subnet:subnet-12345678"
  }}
}}
"""


def test_terraform_applies_plans_nothing_changes_and_destroys_mappings(server, aws, name, tmp_path):
    terraform = shutil.which("terraform")
    mirror = next((path for path in ("/opt/tf-plugins", os.path.expanduser("~/.terraform.d/plugins"), "/usr/share/terraform/plugins") if os.path.isdir(path)), None)
    if terraform is None or mirror is None:
        pytest.skip("terraform or a local copy of its aws provider is not installed")
    (tmp_path / "cli.tfrc").write_text(f'provider_installation {{ filesystem_mirror {{ path = "{mirror}" }} }}', encoding="ascii")
    (tmp_path / "f.zip").write_bytes(zip_of({"app.py": SOURCE}))
    env = {**os.environ, **server.env, "TF_CLI_CONFIG_FILE": str(tmp_path / "cli.tfrc"), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}

    def run(*words):
        done = subprocess.run([terraform, *words, "-no-color"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def mappings():
        return {mapping.get("EventSourceArn", "kafka").split(":")[2 if "EventSourceArn" in mapping else 0]: mapping
                for mapping in aws.list_event_source_mappings()["EventSourceMappings"] if f":function:{name}" in mapping["FunctionArn"]}

    (tmp_path / "main.tf").write_text(TERRAFORM.format(name=name, batch=20, enabled="true"), encoding="ascii")
    run("init", "-input=false")
    run("apply", "-auto-approve", "-input=false")
    assert sorted(mappings()) == ["kafka", "kinesis", "sqs"]
    run("plan", "-detailed-exitcode", "-input=false")  # 2 would mean it sees a difference
    (tmp_path / "main.tf").write_text(TERRAFORM.format(name=name, batch=30, enabled="false"), encoding="ascii")
    run("apply", "-auto-approve", "-input=false")
    queue = mappings()["sqs"]
    assert (queue["BatchSize"], queue["State"], queue["ScalingConfig"]) == (30, "Disabled", {"MaximumConcurrency": 5})
    run("plan", "-detailed-exitcode", "-input=false")
    run("destroy", "-auto-approve", "-input=false")
    assert mappings() == {}
