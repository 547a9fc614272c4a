"""Recorded cases that are not replayed, and recorded keys that are not compared, each with its reason."""

import re

NO_IMAGES = "container images are refused (no image runs here)"
NO_STREAMS = "delivery from Kinesis and DynamoDB streams: neither service is here"
NO_QUEUES = "delivery from SQS queues: the service is not here yet"
NO_DESTINATIONS = "delivery of asynchronous outcomes (SQS, SNS, EventBridge): not here yet"
NO_ASYNC = "asynchronous invocation is not here yet"
NO_JAVA = "the managed runtimes of Java, Ruby, .NET and the compiled test programs are not here"
NO_DATA = "nothing was recorded; what the name says is tested in operations/ and lambda_core/"

# The first that matches a name counts.
CASES = [
    (r"test_lambda_api/TestLambdaImages::", NO_IMAGES),
    (r"test_lambda_api/TestLambdaSnapStart::.*\[(java|dotnet)", NO_JAVA),
    (r"test_lambda_api/TestPartialARNMatching::", NO_DATA),
    (r"test_lambda/TestLambdaBaseFeatures::|test_lambda/TestLambdaMultiAccounts::|test_lambda/TestRequestIdHandling::test_request_id_format", NO_DATA),
    (r"test_lambda/TestLambdaURL::test_lambda_url_non_existing_url", NO_DATA),
    (r"test_lambda/TestLambdaFeatures::test_invocation_type_event", NO_ASYNC),
    (r"test_lambda/TestLambdaBehavior::test_lambda_host_prefix_api_operation", "calls AWS services with host prefixes, which have no names here"),
    (r"test_lambda/TestLambdaErrors::test_lambda_runtime_exit_segfault", "waits 30 s; Mayfly reports the signal at once"),
    (r"test_lambda_common/TestLambdaRuntimesCommon::test_echo_invoke", NO_DATA),
    (r"test_lambda_common/.*\[(java|ruby|dotnet|provided)", NO_JAVA),
    (r"test_lambda_runtimes/Test(Java|GoProvided)", NO_JAVA),
    (r"test_lambda_runtimes/TestPythonRuntimes::", NO_DATA),
    (r"test_lambda_runtimes/", NO_JAVA),
    (r"test_lambda_destinations/", NO_DESTINATIONS),
    (r"test_lambda_integration_kinesis/", NO_STREAMS),
    (r"test_lambda_integration_dynamodbstreams/", NO_STREAMS),
    (r"test_lambda_integration_sqs/", NO_QUEUES),
]  # fmt: skip
# Replayed although a pattern above would match their kind: what of them is configuration.
REPLAYED = re.compile(
    r"test_lambda_destinations/(TestLambdaDLQ::test_dead_letter_queue|TestLambdaDestinationSqs::test_assess_lambda_destination_invocation)"
    r"|test_lambda_integration_(kinesis|dynamodbstreams)/.*::test_duplicate_event_source_mappings"
    r"|test_lambda_integration_dynamodbstreams/.*::test_dynamodb_invalid_event_filter"
    r"|test_lambda_integration_sqs/(.*::)?test_(duplicate_event_source_mappings|event_source_mapping_default_batch_size|sqs_invalid_event_filter|fifo_message_group_parallelism)"
)

CODE_SIGNING = "test_lambda_api/TestCodeSigningConfig::test_code_signing_not_found_excs"
DESTINATION = "test_lambda_destinations/TestLambdaDestinationSqs::test_assess_lambda_destination_invocation"
PROVISIONED = "test_lambda/TestLambdaConcurrency::test_provisioned_concurrency"
LEFT_KEYS = {
    **{(CODE_SIGNING, key): "code signing configurations are not offered" for key in (
        "create_code_signing_config", "delete_csc_notfound", "delete_function_csc_fnnotfound", "get_csc_invalid", "list_functions_by_csc_fnwithoutcsc",
        "list_functions_by_csc_invalid_cscarn", "nothing_to_delete_response", "put_function_csc_invalid_both", "put_function_csc_invalid_csc_arn",
        "put_function_csc_invalid_fnname", "update_csc_invalid_csc_arn", "update_csc_noupdate_response", "update_csc_noupdates")},
    ("test_lambda_api/TestLambdaFunction::test_create_lambda_exceptions", "empty_architectures"): "a refusal of botocore itself, never sent",
    ("test_lambda/TestLambdaBehavior::test_lambda_invoke_timed_out_environment_reuse", "invoke-result-timed-out"):
        "an older form; what is checked is the one recorded by test_lambda_runtime_exit_segfault",
    ("test_lambda/TestLambdaBehavior::test_lambda_invoke_timed_out_environment_reuse", "invoke-result-file-read-after-timeout"):
        "Mayfly ends the whole environment at a timeout, its /tmp too; AWS keeps the files and starts the runtime anew",
    ("test_lambda/TestLambdaConcurrency::test_lambda_provisioned_concurrency_moves_with_alias", "get_provisioned_config_after_alias_move"):
        "Mayfly counts the environments of the version the alias names now; AWS still counts those of the old one",
    ("test_lambda_api/TestLambdaFunction::test_lambda_code_location_zipfile", "get-function-response-updated"):
        "whoever looks is shown the end of a change (docs/adr/0005), so that waiters do not wait",
    ("test_lambda_common/TestLambdaRuntimesCommon::test_uncaught_exception_invoke[python3.8]", "error_result"):
        "python3.8's own client leaves requestId out; here python3.11 stands in",
    (
        "test_lambda_integration_dynamodbstreams/TestDynamoDBEventSourceMapping::test_duplicate_event_source_mappings",
        "create-table-result",
    ): "an answer of DynamoDB",
    ("test_lambda/TestLambdaConcurrency::test_reserved_concurrency", "invoke_result"): NO_ASYNC,
    ("test_lambda/TestLambdaConcurrency::test_reserved_concurrency", "msg"): NO_DESTINATIONS,
    **{("test_lambda_destinations/TestLambdaDLQ::test_dead_letter_queue", key): NO_DESTINATIONS for key in ("delete_dlq", "invoke_result", "log_result", "receive_result")},
    **{(f"{DESTINATION}[{which}]", "receive_message_result"): NO_DESTINATIONS for which in ("Success-payload0", "payload0", "payload1")},
}  # fmt: skip

# Members of a key that are not compared; the others of its are.
LEFT_MEMBERS = {
    (PROVISIONED, f"get_provisioned_prewait.{member}"): "environments are ready within milliseconds here, some before the first look"
    for member in ("AllocatedProvisionedConcurrentExecutions", "AvailableProvisionedConcurrentExecutions")
}


def reason_of(name):
    """Why a case is not replayed; None when it is."""
    if REPLAYED.match(name):
        return None
    return next((reason for pattern, reason in CASES if re.match(pattern, name)), None)
