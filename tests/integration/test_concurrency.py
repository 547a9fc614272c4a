"""Reserved and provisioned concurrency as boto3 sets them and as callers meet them."""
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from mayfly_server import invoke, python_function

WHERE = """
import os, time
def handler(event, context):
    time.sleep(event.get("sleep", 0))
    return [os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"], context.function_version, context.log_stream_name]
"""
RESERVED = "ReservedFunctionConcurrentInvocationLimitExceeded"


def made(aws, name, **settings):
    python_function(aws, name, WHERE, Timeout=10, **settings)
    aws.get_waiter("function_active_v2").wait(FunctionName=name)


def published(aws, name, description):
    """Publishes a version that differs from the one before."""
    aws.update_function_configuration(FunctionName=name, Description=description)
    aws.get_waiter("function_updated_v2").wait(FunctionName=name)
    return aws.publish_version(FunctionName=name)["Version"]


def throttled(aws, name, **settings):
    with pytest.raises(ClientError) as refused:
        aws.invoke(FunctionName=name, **settings)
    answer = refused.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert answer["Error"] == {"Code": "TooManyRequestsException", "Message": "Rate Exceeded."}
    return answer["Reason"]


def ready(aws, name, qualifier, timeout=30):
    """The provisioned concurrency config once it is not in progress any more."""
    limit = time.monotonic() + timeout
    while True:
        config = aws.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)
        if config["Status"] != "IN_PROGRESS":
            return config
        assert time.monotonic() < limit, config
        time.sleep(0.02)


def eventually(check, timeout=10):
    limit = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_a_reserved_function_refuses_what_is_over_its_reservation_at_once(aws, name):
    made(aws, name)
    aws.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    invoke(aws, name)  # warm
    with ThreadPoolExecutor() as pool:
        running = pool.submit(invoke, aws, name, {"sleep": 2})
        time.sleep(0.5)
        began = time.monotonic()
        assert throttled(aws, name) == RESERVED
        assert time.monotonic() - began < 1
        assert running.result()[1] is None
    for _ in range(20):  # one after the other they all run
        assert invoke(aws, name)[1] is None


def test_a_reservation_is_exact_under_load(aws, name):
    made(aws, name)
    aws.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=2)

    def call(_):
        try:
            return invoke(aws, name, {"sleep": 1})[0][2]
        except ClientError as refused:
            return refused.response["Reason"]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(call, range(8)))
    assert results.count(RESERVED) == 6
    assert len(set(results)) == 3  # two environments


def test_a_reservation_of_zero_blocks_the_function_until_it_is_removed(aws, name):
    made(aws, name)
    aws.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    assert throttled(aws, name) == RESERVED
    aws.delete_function_concurrency(FunctionName=name)
    assert invoke(aws, name)[1] is None


def test_provisioned_environments_are_ready_before_the_first_call(aws, name):
    made(aws, name)
    version = published(aws, name, "one")
    put = aws.put_provisioned_concurrency_config(FunctionName=name, Qualifier=version, ProvisionedConcurrentExecutions=2)
    assert put["RequestedProvisionedConcurrentExecutions"] == 2
    config = ready(aws, name, version)
    assert config["Status"] == "READY"
    assert config["AllocatedProvisionedConcurrentExecutions"] == 2
    assert config["AvailableProvisionedConcurrentExecutions"] == 2

    answer, error, log, _ = invoke(aws, name, Qualifier=version)
    assert error is None and answer[:2] == ["provisioned-concurrency", version]
    assert "REPORT RequestId" in log and "Init Duration" not in log

    with ThreadPoolExecutor() as pool:  # beyond two it spills over
        answers = [each[0] for each in pool.map(lambda _: invoke(aws, name, {"sleep": 1}, Qualifier=version), range(3))]
    assert sorted(each[0] for each in answers) == ["on-demand", "provisioned-concurrency", "provisioned-concurrency"]
    assert invoke(aws, name)[0][0] == "on-demand"  # $LATEST has none


def test_provisioned_concurrency_moves_with_its_alias_and_ends_with_its_config(aws, name):
    made(aws, name)
    first, second = published(aws, name, "one"), published(aws, name, "two")
    aws.create_alias(FunctionName=name, Name="live", FunctionVersion=first)
    aws.put_provisioned_concurrency_config(FunctionName=name, Qualifier="live", ProvisionedConcurrentExecutions=1)
    assert ready(aws, name, "live")["Status"] == "READY"
    assert invoke(aws, name, Qualifier="live")[0][:2] == ["provisioned-concurrency", first]

    aws.update_alias(FunctionName=name, Name="live", FunctionVersion=second)
    assert ready(aws, name, "live")["Status"] == "READY"
    answer, _, log, _ = invoke(aws, name, Qualifier="live")
    assert answer[:2] == ["provisioned-concurrency", second] and "Init Duration" not in log
    assert invoke(aws, name, Qualifier=first)[0][0] == "on-demand"

    aws.delete_provisioned_concurrency_config(FunctionName=name, Qualifier="live")
    with pytest.raises(ClientError) as gone:
        aws.get_provisioned_concurrency_config(FunctionName=name, Qualifier="live")
    assert gone.value.response["Error"]["Code"] == "ProvisionedConcurrencyConfigNotFoundException"
    eventually(lambda: invoke(aws, name, Qualifier="live")[0][0] == "on-demand")


def test_provisioned_concurrency_of_a_function_that_cannot_start_fails_with_its_cause(aws, name):
    python_function(aws, name, "import no_such_module\n")
    aws.get_waiter("function_active_v2").wait(FunctionName=name)
    version = aws.publish_version(FunctionName=name)["Version"]
    aws.put_provisioned_concurrency_config(FunctionName=name, Qualifier=version, ProvisionedConcurrentExecutions=1)
    config = ready(aws, name, version)
    assert config["Status"] == "FAILED"
    assert config["StatusReason"].startswith("FUNCTION_ERROR_INIT_FAILURE")
    answer, error, _, _ = invoke(aws, name, Qualifier=version)
    assert error == "Unhandled" and answer["errorType"] == "Runtime.ImportModuleError"


def test_limits_hold_after_a_restart(own_server):
    server = own_server()
    aws = server.client()
    made(aws, "kept")
    made(aws, "blocked")
    version = published(aws, "kept", "one")
    aws.put_provisioned_concurrency_config(FunctionName="kept", Qualifier=version, ProvisionedConcurrentExecutions=1)
    aws.put_function_concurrency(FunctionName="blocked", ReservedConcurrentExecutions=0)
    assert server.stop() == 0
    server.start()
    aws = server.client()
    assert throttled(aws, "blocked") == RESERVED
    assert ready(aws, "kept", version)["Status"] == "READY"
    assert invoke(aws, "kept", Qualifier=version)[0][0] == "provisioned-concurrency"
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 5
