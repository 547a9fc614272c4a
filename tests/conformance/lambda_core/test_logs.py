"""CloudWatch Logs over what functions wrote."""

import itertools
import json
import time
import uuid

import pytest

from support import create, error_of, eventually, expect, package

SOURCE = """
import json
def handler(event, context):
    for line in event.get("lines", []):
        print(line)
    return len(event.get("lines", []))
"""
LINES = ["plain one", "ERROR two", json.dumps({"level": "ERROR", "took": 12, "nested": {"ok": False}}), "WARN three"]


@pytest.fixture(scope="module")
def logs(client):
    return client("logs")


@pytest.fixture(scope="module")
def written(aws, logs):
    """A log group with four known lines."""
    name = "logs-" + uuid.uuid4().hex[:8]
    create(aws, name, Code={"ZipFile": package(SOURCE)})
    aws.invoke(FunctionName=name, Payload=json.dumps({"lines": LINES}).encode())
    group = "/aws/lambda/" + name
    assert eventually(lambda: any("REPORT" in event["message"] for event in logs.filter_log_events(logGroupName=group)["events"]))
    yield group
    aws.delete_function(FunctionName=name)
    logs.delete_log_group(logGroupName=group)


def messages(answer):
    return [event["message"].rstrip("\n") for event in answer["events"]]


def test_groups_and_streams_are_described(logs, written):
    group = logs.describe_log_groups(logGroupNamePrefix=written)["logGroups"][0]
    assert group["logGroupName"] == written and group["arn"].endswith(f":log-group:{written}:*") and group["storedBytes"] > 0
    streams = logs.describe_log_streams(logGroupName=written, orderBy="LastEventTime", descending=True)["logStreams"]
    assert "[$LATEST]" in streams[0]["logStreamName"]
    assert streams[0]["firstEventTimestamp"] <= streams[0]["lastEventTimestamp"]


@pytest.mark.parametrize(
    "pattern, found",
    [
        ("", 4),
        ("ERROR", 2),
        ('"plain one"', 1),
        ("?ERROR ?WARN", 3),
        ("ERROR -level", 1),
        ('{ $.level = "ERROR" }', 1),
        ("{ $.took > 11 && $.nested.ok IS FALSE }", 1),
        ("{ $.took < 11 }", 0),
        ("nowhere", 0),
    ],
)
def test_filters_find_what_they_say(logs, written, pattern, found):
    lines = [line for line in messages(logs.filter_log_events(logGroupName=written, filterPattern=pattern)) if line in LINES]
    assert len(lines) == found, lines


def test_filtered_events_page(logs, written):
    pages = list(logs.get_paginator("filter_log_events").paginate(logGroupName=written, PaginationConfig={"PageSize": 1}))
    ids = [event["eventId"] for page in pages for event in page["events"]]
    assert len(ids) == len(set(ids)) == len(logs.filter_log_events(logGroupName=written)["events"])


def test_events_page_until_the_token_stays(logs, written):
    stream = logs.describe_log_streams(logGroupName=written)["logStreams"][0]["logStreamName"]
    members = {"logGroupName": written, "logStreamName": stream, "startFromHead": True, "limit": 2}
    seen, token = [], None
    for _ in range(50):
        page = logs.get_log_events(**members, **({"nextToken": token} if token else {}))
        seen += messages(page)
        if page["nextForwardToken"] == token:
            break
        token = page["nextForwardToken"]
    assert page["events"] == [] and page["nextForwardToken"] == token
    assert seen == messages(logs.get_log_events(logGroupName=written, logStreamName=stream, startFromHead=True))
    newest = logs.get_log_events(logGroupName=written, logStreamName=stream, limit=1)
    assert messages(newest) == seen[-1:]
    before = logs.get_log_events(logGroupName=written, logStreamName=stream, limit=1, nextToken=newest["nextBackwardToken"])
    assert messages(before) == seen[-2:-1]


def follow(logs, group, since_ms, seen_before=1000):
    """Yields events as `aws logs tail --follow` (AWS CLI 2) asks for them: pages to the end, then again
    from the newest time, without those seen.

    None stands between two rounds.
    """
    seen, start = [], since_ms
    while True:
        members, newest = {"logGroupName": group, "interleaved": True, "startTime": start}, start
        while True:
            page = logs.filter_log_events(**members)
            for event in page["events"]:
                if event["eventId"] not in seen:
                    seen = [*seen, event["eventId"]][-seen_before:]
                    yield event
                newest = max(newest, event["timestamp"])
            if "nextToken" not in page:
                break
            members["nextToken"] = page["nextToken"]
        start = newest
        yield None


def test_following_shows_every_line_once(aws, logs, written):
    name = written.rsplit("/", 1)[1]
    follower = follow(logs, written, int(time.time() * 1000) - 60_000)
    shown = []

    def read_on():
        shown.extend(event["message"].rstrip("\n") for event in itertools.takewhile(lambda event: event is not None, follower))
        return shown

    assert "ERROR two" in read_on()
    for number in range(3):
        aws.invoke(FunctionName=name, Payload=json.dumps({"lines": [f"followed {number}"]}).encode())
        assert eventually(lambda: f"followed {number}" in read_on())
    assert [line for line in shown if line.startswith("followed")] == [f"followed {number}" for number in range(3)]
    assert shown.count("ERROR two") == 1


def test_faults_are_clear(logs, written):
    expect(
        error_of(logs.get_log_events, logGroupName="/none", logStreamName="s"),
        400,
        "ResourceNotFoundException",
        "The specified log group does not exist.",
    )
    expect(
        error_of(logs.get_log_events, logGroupName=written, logStreamName="s"),
        400,
        "ResourceNotFoundException",
        "The specified log stream does not exist.",
    )
    expect(error_of(logs.filter_log_events, logGroupName=written, filterPattern="[a, b]"), 400, "InvalidParameterException", "columns")
    expect(
        error_of(logs.filter_log_events, logGroupName=written, filterPattern="foo-bar"),
        400,
        "InvalidParameterException",
        "Invalid character(s) in term 'foo-bar'",
    )
    expect(error_of(logs.filter_log_events, logGroupName=written, limit=0), 400, "InvalidParameterException")
    expect(error_of(logs.filter_log_events, logGroupName=written, nextToken="x"), 400, "InvalidParameterException", "nextToken")
    expect(
        error_of(logs.put_retention_policy, logGroupName=written, retentionInDays=7),
        400,
        "UnsupportedOperationException",
        "PutRetentionPolicy",
    )
    expect(error_of(logs.create_log_group, logGroupName=written), 400, "ResourceAlreadyExistsException")


def test_groups_are_made_and_deleted(logs):
    group = "made-" + uuid.uuid4().hex[:8]
    logs.create_log_group(logGroupName=group)
    assert [each["logGroupName"] for each in logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]] == [group]
    logs.delete_log_group(logGroupName=group)
    expect(error_of(logs.delete_log_group, logGroupName=group), 400, "ResourceNotFoundException")
