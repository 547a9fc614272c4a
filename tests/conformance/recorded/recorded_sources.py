"""Event source mappings, destinations and dead letters as far as they are configuration."""

import uuid

from replay import eventually, replays

API = "test_lambda_api/TestLambdaEventSourceMappings::"
SQS = "test_lambda_integration_sqs/"


def queue_arn(world, stem="rec-queue"):
    return f"arn:aws:sqs:{world.region}:{world.account}:{stem}-{uuid.uuid4().hex[:8]}"


def ready(world):
    name = world.name()
    world.create(name, wrapped=True)
    world.active(name)
    return name


def mapping(world, **members):
    made = world.client.create_event_source_mapping(**members)
    world.undo.append(lambda: gone(world, made["UUID"]))
    return made


def state(world, identity):
    return world.error(world.client.get_event_source_mapping, UUID=identity).get("State")


def gone(world, identity):
    """Deletes a mapping; one that is still being made cannot be."""
    eventually(lambda: state(world, identity) != "Creating")
    world.error(world.client.delete_event_source_mapping, UUID=identity)
    eventually(lambda: state(world, identity) is None)


@replays(API + "test_event_source_mapping_exceptions")
def mapping_refusals(world, recorded):
    client, unknown = world.client, str(uuid.uuid4())
    recorded.match("get_unknown_uuid", world.error(client.get_event_source_mapping, UUID=unknown))
    recorded.match("delete_unknown_uuid", world.error(client.delete_event_source_mapping, UUID=unknown))
    recorded.match("update_unknown_uuid", world.error(client.update_event_source_mapping, UUID=unknown, Enabled=False))
    recorded.match("create_no_event_source_arn", world.error(client.create_event_source_mapping, FunctionName="doesnotexist"))
    recorded.match(
        "create_unknown_params",
        world.error(client.create_event_source_mapping, FunctionName="doesnotexist", EventSourceArn=queue_arn(world)),
    )
    name = ready(world)
    recorded.match("destination_config_failure", world.error(
        client.create_event_source_mapping, FunctionName=name, EventSourceArn=queue_arn(world), DestinationConfig={"OnFailure": {"Destination": queue_arn(world)}}))  # fmt: skip


@replays(API + "test_function_name_variations")
def mapping_by_each_form(world, recorded):
    client, name, queue = world.client, ready(world), queue_arn(world)
    client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, FunctionVersion="1", Name="myalias")
    for key, form in (
        ("name_only_create_esm", name),
        ("partial_arn_latest_create_esm", f"{name}:$LATEST"),
        ("partial_arn_version_create_esm", f"{name}:1"),
        ("partial_arn_alias_create_esm", f"{name}:myalias"),
        ("full_arn_latest_create_esm", world.arn(name)),
        ("full_arn_version_create_esm", world.arn(name, "1")),
        ("full_arn_alias_create_esm", world.arn(name, "myalias")),
    ):
        made = mapping(world, FunctionName=form, EventSourceArn=queue)
        recorded.match(key, made)
        gone(world, made["UUID"])


@replays(SQS + "TestSQSEventSourceMapping::test_duplicate_event_source_mappings")
def the_same_queue_twice(world, recorded):
    name, queue = ready(world), queue_arn(world)
    recorded.match("create", mapping(world, FunctionName=name, EventSourceArn=queue))
    recorded.match("error", world.error(world.client.create_event_source_mapping, FunctionName=name, EventSourceArn=queue))


@replays(SQS + "TestSQSEventSourceMapping::test_event_source_mapping_default_batch_size")
def batch_sizes_of_queues(world, recorded):
    client, name = world.client, ready(world)
    made = mapping(world, FunctionName=name, EventSourceArn=queue_arn(world))
    recorded.match("create-event-source-mapping", made)
    recorded.match("invalid-update-event-source-mapping", world.error(client.update_event_source_mapping, UUID=made["UUID"], BatchSize=15))
    recorded.match(
        "invalid-create-event-source-mapping",
        world.error(client.create_event_source_mapping, FunctionName=name, EventSourceArn=queue_arn(world), BatchSize=15),
    )


FILTERS = {
    "None": "null",
    "simple string": "simple string",
    "invalid_filter2": '[{"eventName": ["INSERT"=123}]',
    "invalid_filter3": '{"eventName": [{"prefix": 1}]}',
}


@replays(SQS + "TestSQSEventSourceMapping::test_sqs_invalid_event_filter[*]")
def filters_of_queues(world, recorded, which):
    name = ready(world)
    recorded.match("create_event_source_mapping_exception", world.error(
        world.client.create_event_source_mapping, FunctionName=name, EventSourceArn=queue_arn(world), FilterCriteria={"Filters": [{"Pattern": FILTERS[which]}]}))  # fmt: skip


@replays(SQS + "test_fifo_message_group_parallelism")
def enabled_later(world, recorded):
    client, name = world.client, ready(world)
    queue = queue_arn(world) + ".fifo"
    made = mapping(world, FunctionName=name, EventSourceArn=queue, BatchSize=1, Enabled=False)
    recorded.match("create_esm_disabled", made)
    recorded.match("update_esm_enabling", client.update_event_source_mapping(UUID=made["UUID"], Enabled=True))
    eventually(lambda: client.get_event_source_mapping(UUID=made["UUID"])["State"] == "Enabled")
    recorded.match("get_esm_enabled", client.get_event_source_mapping(UUID=made["UUID"]))


@replays("test_lambda_integration_kinesis/TestKinesisSource::test_duplicate_event_source_mappings")
def the_same_stream_twice(world, recorded):
    name, stream = ready(world), f"arn:aws:kinesis:{world.region}:{world.account}:stream/rec-{uuid.uuid4().hex[:8]}"
    recorded.match("create", mapping(world, FunctionName=name, EventSourceArn=stream, StartingPosition="LATEST"))
    recorded.match(
        "error", world.error(world.client.create_event_source_mapping, FunctionName=name, EventSourceArn=stream, StartingPosition="LATEST")
    )


@replays("test_lambda_integration_dynamodbstreams/TestDynamoDBEventSourceMapping::test_duplicate_event_source_mappings")
def the_same_table_twice(world, recorded):
    name = ready(world)
    stream = f"arn:aws:dynamodb:{world.region}:{world.account}:table/rec-{uuid.uuid4().hex[:8]}/stream/2026-01-01T00-00-00.000"
    members = {
        "FunctionName": name,
        "EventSourceArn": stream,
        "StartingPosition": "TRIM_HORIZON",
        "MaximumBatchingWindowInSeconds": 1,
        "MaximumRetryAttempts": 1,
    }
    recorded.match("create", mapping(world, **members))
    recorded.match("error", world.error(world.client.create_event_source_mapping, **members))


@replays("test_lambda_integration_dynamodbstreams/TestDynamoDBEventSourceMapping::test_dynamodb_invalid_event_filter[*]")
def filters_of_tables(world, recorded, which):
    name = ready(world)
    stream = f"arn:aws:dynamodb:{world.region}:{world.account}:table/rec-{uuid.uuid4().hex[:8]}/stream/2026-01-01T00-00-00.000"
    pattern = "single-string" if which == "single-string" else which
    recorded.match("exception_event_source_creation", world.error(
        world.client.create_event_source_mapping, FunctionName=name, EventSourceArn=stream, StartingPosition="LATEST", FilterCriteria={"Filters": [{"Pattern": pattern}]}))  # fmt: skip


@replays("test_lambda_destinations/TestLambdaDLQ::test_dead_letter_queue")
def dead_letters(world, recorded):
    name, queue = world.name(), queue_arn(world)
    recorded.match("create_lambda_with_dlq", world.create(name, wrapped=True, DeadLetterConfig={"TargetArn": queue}))


@replays("test_lambda_destinations/TestLambdaDestinationSqs::test_assess_lambda_destination_invocation[*]")
def destinations(world, recorded, which):
    name, queue = ready(world), queue_arn(world)
    retries = {} if which.startswith("Success") else {"MaximumRetryAttempts": 0}
    recorded.match("put_function_event_invoke_config", world.client.put_function_event_invoke_config(
        FunctionName=name, DestinationConfig={"OnSuccess": {"Destination": queue}, "OnFailure": {"Destination": queue}}, **retries))  # fmt: skip
