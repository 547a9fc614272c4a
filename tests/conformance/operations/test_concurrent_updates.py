"""Fifty clients change one function at once: each round exactly one wins, and what is there afterwards is wholly what it asked for."""

import collections
import threading

import pytest

from scenario import package
from wire import ERROR_OF_LOSERS

CLIENTS = 50
ROUNDS = 4


@pytest.fixture(scope="module")
def clients(server):
    return [server.client("lambda", waits=False, max_pool_connections=1) for _ in range(CLIENTS)]


def at_once(calls):
    """Runs all at once; (answers by number, error codes of the rest)."""
    start, won, lost = threading.Barrier(len(calls)), {}, collections.Counter()

    def run(number, call):
        start.wait()
        try:
            won[number] = call()
        except Exception as error:
            lost[getattr(error, "response", {}).get("Error", {}).get("Code", repr(error))] += 1

    threads = [threading.Thread(target=run, args=(number, call)) for number, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won, lost


def judge(api, operation, what, won, lost):
    api.same(operation, f"{what}: one wins", len(won), 1)
    api.same(operation, f"{what}: the rest are told", set(lost) <= ERROR_OF_LOSERS and sum(lost.values()) == CLIENTS - 1, True)


def wanted(round_, number):
    return {
        "Description": f"{round_}-{number}",
        "Timeout": 1 + number,
        "MemorySize": 128 + number,
        "Environment": {"Variables": {"WHO": f"{round_}-{number}", f"ONLY_{number}": "x" * number}},
    }


def test_of_configurations_sent_at_once_one_is_taken_whole(api, clients):
    name = api.function()
    for round_ in range(ROUNDS):
        revision = api.settle(name)["RevisionId"]
        members = {"FunctionName": name, **({"RevisionId": revision} if round_ % 2 else {})}
        won, lost = at_once([lambda client=client, number=number: client.update_function_configuration(**members, **wanted(round_, number))
                             for number, client in enumerate(clients)])  # fmt: skip
        judge(api, "UpdateFunctionConfiguration", f"round {round_}", won, lost)
        got, asked = api.settle(name), wanted(round_, next(iter(won)))
        api.same("UpdateFunctionConfiguration", f"round {round_}: the winner's, whole", {key: got[key] for key in asked}, asked)


def test_of_codes_sent_at_once_one_is_taken_whole(api, clients):
    name = api.function()
    codes = [package(f"def handler(event, context):\n    return {number}\n") for number in range(CLIENTS)]
    for round_ in range(ROUNDS):
        revision = api.settle(name)["RevisionId"]
        members = {"FunctionName": name, **({"RevisionId": revision} if round_ % 2 else {})}
        won, lost = at_once([lambda client=client, number=number: client.update_function_code(**members, ZipFile=codes[number])
                             for number, client in enumerate(clients)])  # fmt: skip
        judge(api, "UpdateFunctionCode", f"round {round_}", won, lost)
        winner = next(iter(won))
        got = api.settle(name)
        api.same(
            "UpdateFunctionCode",
            f"round {round_}: the winner's code",
            (got["CodeSha256"], got["CodeSize"]),
            (won[winner]["CodeSha256"], len(codes[winner])),
        )
        api.same(
            "Invoke", f"round {round_}: the winner's code runs", api("Invoke", FunctionName=name)["Payload"].read(), str(winner).encode()
        )


def test_of_aliases_moved_at_once_by_revision_one_is_taken_whole(api, clients):
    name = api.function()
    for _ in range(3):
        api.version(name)
    alias = api("CreateAlias", FunctionName=name, Name="live", FunctionVersion="1")
    for round_ in range(ROUNDS):
        won, lost = at_once([
            lambda client=client, number=number: client.update_alias(
                FunctionName=name, Name="live", RevisionId=alias["RevisionId"], FunctionVersion=str(1 + number % 3), Description=f"{round_}-{number}")
            for number, client in enumerate(clients)])  # fmt: skip
        judge(api, "UpdateAlias", f"round {round_}", won, lost)
        winner = next(iter(won))
        alias = api("GetAlias", FunctionName=name, Name="live")
        api.same(
            "UpdateAlias",
            f"round {round_}: the winner's, whole",
            (alias["FunctionVersion"], alias["Description"]),
            (str(1 + winner % 3), f"{round_}-{winner}"),
        )


def test_of_functions_made_at_once_under_one_name_one_is_made(api, clients):
    import uuid

    from scenario import ROLE

    name = "conf-" + uuid.uuid4().hex[:12]
    api.cleanup.callback(api.caller.send, "DeleteFunction", {"FunctionName": name})
    won, lost = at_once([
        lambda client=client, number=number: client.create_function(
            FunctionName=name, Runtime="python3.11", Role=ROLE, Handler="app.handler", Code={"ZipFile": package()}, Description=str(number), Timeout=1 + number)
        for number, client in enumerate(clients)])  # fmt: skip
    judge(api, "CreateFunction", "fifty", won, lost)
    winner, got = next(iter(won)), api.settle(name)
    api.same("CreateFunction", "the winner's, whole", (got["Description"], got["Timeout"]), (str(winner), 1 + winner))


def test_versions_published_at_once_are_numbered_once(api, clients):
    name = api.function()
    won, lost = at_once([lambda client=client: client.publish_version(FunctionName=name)["Version"] for client in clients])
    api.same("PublishVersion", "nothing changed between: one version", (set(won.values()), set(lost) <= ERROR_OF_LOSERS), ({"1"}, True))
    listed = api("ListVersionsByFunction", FunctionName=name)["Versions"]
    api.same("PublishVersion", "one version is there", [each["Version"] for each in listed], ["$LATEST", "1"])
