"""Fixtures for every suite that drives a real server."""
import os
import sys
import uuid

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from mayfly_server import Server  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "smoke: part of `make check`")


@pytest.fixture(scope="session")
def server():
    """One server shared by all tests of a run that do not need their own."""
    with Server("--log-level", "info") as running:
        os.environ.update(running.env)
        yield running


@pytest.fixture
def aws(server):
    """A boto3 Lambda client that never retries."""
    return server.client("lambda")


@pytest.fixture
def name(aws):
    """A fresh function name; the function is deleted afterwards."""
    fresh = "t-" + uuid.uuid4().hex[:12]
    yield fresh
    try:
        aws.delete_function(FunctionName=fresh)
    except aws.exceptions.ResourceNotFoundException:
        pass


@pytest.fixture
def own_server():
    """Makes servers with flags of their own: own_server("--concurrency", "2"). All are stopped and removed."""
    started = []

    def make(*flags, **settings):
        made = Server(*flags, **settings)
        started.append(made)
        return made.start()

    yield make
    for made in started:
        try:
            made.stop()
        finally:
            made.remove()
