"""Lambda's core operations as their clients see them. The server is the one AWS_ENDPOINT_URL names, or one of our own."""

import json
import os
import uuid

import boto3
import pytest
from botocore.config import Config

from mayfly_server import patient
from support import Raw

GOLDEN = os.path.join(os.path.dirname(__file__), "..", "..", "..", "src", "api", "lambda", "golden", "recorded.json")


@pytest.fixture(scope="session")
def endpoint(request):
    """Where the server is; its keys and region are in the environment."""
    if "AWS_ENDPOINT_URL" not in os.environ:
        request.getfixturevalue("server")
    return os.environ["AWS_ENDPOINT_URL"]


@pytest.fixture(scope="session")
def client(endpoint):
    """Makes boto3 clients that neither retry nor check parameters: the server must do that."""

    def make(service, **config):
        return patient(
            boto3.client(
                service,
                endpoint_url=endpoint,
                config=Config(retries={"max_attempts": 0}, parameter_validation=False, read_timeout=60, **config),
            )
        )

    return make


@pytest.fixture(scope="session")
def aws(client):
    return client("lambda")


@pytest.fixture(scope="session")
def account(client):
    return client("sts").get_caller_identity()["Account"]


@pytest.fixture(scope="session")
def arn(account):
    region = os.environ["AWS_REGION"]
    return lambda name: f"arn:aws:lambda:{region}:{account}:function:{name}"


@pytest.fixture(scope="session")
def raw(endpoint):
    return Raw(endpoint)


@pytest.fixture
def name(aws):
    fresh = "t-" + uuid.uuid4().hex[:12]
    yield fresh
    try:
        aws.delete_function(FunctionName=fresh)
    except aws.exceptions.ResourceNotFoundException:
        pass


@pytest.fixture(scope="session")
def golden(account):
    """golden("errors", "role", function_name): a recorded answer, for this server's names."""
    with open(GOLDEN, encoding="utf-8") as file:
        text = file.read()

    def read(kind, key, function="f"):
        mapped = text.replace("us-east-1", os.environ["AWS_REGION"]).replace("000000000000", account)
        for before, after in (
            (":function:f", ":function:" + function),
            ("/aws/lambda/f", "/aws/lambda/" + function),
            ('"FunctionName": "f"', f'"FunctionName": "{function}"'),
        ):
            mapped = mapped.replace(before, after)
        return json.loads(mapped)[kind][key]

    return read
