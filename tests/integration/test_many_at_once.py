"""Node.js functions that take many invocations at once in one environment (AWS_LAMBDA_MAX_CONCURRENCY)."""
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from mayfly_server import ROLE, invoke, zip_of
from test_function_urls import open_url
from test_http_functions import log_of

SOURCE = r"""
const me = require("node:crypto").randomUUID();
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
let inside = 0, most = 0, served = 0;
exports.handler = async (event, context) => {
  served++;
  most = Math.max(most, ++inside);
  try {
    if (event.say) console.log("says", event.say);
    if (event.crash) process.exit(3);
    if (event.fail) throw new TypeError("failed " + event.fail);
    if (event.big) return "x".repeat(event.big);
    if (event.memory) { const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1)); }
    await sleep(event.ms || 0);
    if (event.say) console.log("said", event.say);
    return {me, id: context.awsRequestId, tag: event.tag, most, served, left: context.getRemainingTimeInMillis()};
  } finally {
    inside--;
  }
};
exports.stream = awslambda.streamifyResponse(async (event, output, context) => {
  const tag = event.rawQueryString || event.tag;
  for (let i = 0; i < 5; i++) { output.write(`${tag}-${i}\n`); await sleep(30); }
  if (tag === "flood") for (let i = 0; i < 400; i++) if (!output.write("y".repeat(65536))) await new Promise((go) => output.once("drain", go));
  output.end();
});
"""


def made(aws, name, at_once=10, handler="index.handler", **settings):
    settings.setdefault("Timeout", 10)
    settings.setdefault("MemorySize", 512)
    aws.create_function(FunctionName=name, Runtime="nodejs20.x", Role=ROLE, Handler=handler, Code={"ZipFile": zip_of({"index.js": SOURCE})},
                        Environment={"Variables": {"AWS_LAMBDA_MAX_CONCURRENCY": str(at_once)}}, **settings)


def call(aws, name, **event):
    answer, error, *_ = invoke(aws, name, event)
    assert error is None, answer
    return answer


def fails(aws, name, **event):
    answer, error, *_ = invoke(aws, name, event)
    assert error is not None, answer
    return answer


def test_a_hundred_calls_share_ten_environments_and_nothing_is_mixed(server, aws, name):
    made(aws, name)
    call(aws, name)
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda i: call(aws, name, ms=100, tag=i, say=f"word-{i}."), range(100)))
    assert [answer["tag"] for answer in answers] == list(range(100))
    assert len({answer["id"] for answer in answers}) == 100
    assert len({answer["me"] for answer in answers}) <= 10
    assert 1 < max(answer["most"] for answer in answers) <= 10
    assert all(answer["left"] > 5000 for answer in answers)
    text = log_of(aws, server, name, lambda seen: seen.count("REPORT RequestId") >= 101)
    for answer in answers:
        said = [line for line in text.splitlines() if f"word-{answer['tag']}." in line]
        assert len(said) == 2 and all(f"\t{answer['id']}\t" in line for line in said)
        for line in ["START RequestId: ", "END RequestId: ", "REPORT RequestId: "]:
            assert text.count(line + answer["id"]) == 1


def test_the_tail_of_a_call_holds_its_own_lines(aws, name):
    made(aws, name)
    call(aws, name)
    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(invoke, aws, name, {"ms": 1200, "say": "long"})
        time.sleep(0.4)
        short = pool.submit(invoke, aws, name, {"ms": 100, "say": "short"})
        tails = [long.result()[2], short.result()[2]]
    assert "says long" in tails[0] and "said long" in tails[0] and "short" not in tails[0]
    assert "said short" in tails[1] and "says long" not in tails[1] and "said long" not in tails[1]
    for tail in tails:
        assert tail.splitlines()[0].startswith("START RequestId") and "REPORT RequestId" in tail.splitlines()[-1]
        assert len(tail.splitlines()) == 5


def test_errors_and_large_answers_are_each_callers_own(aws, name):
    made(aws, name)
    call(aws, name)
    with ThreadPoolExecutor(30) as pool:
        fine = [pool.submit(call, aws, name, ms=200, tag=i) for i in range(10)]
        failed = [pool.submit(fails, aws, name, fail=str(i)) for i in range(10)]
        large = [pool.submit(call, aws, name, big=2_000_000 + i) for i in range(3)]
        too_large = pool.submit(fails, aws, name, big=6_500_000)
        for i, each in enumerate(fine):
            assert each.result()["tag"] == i
        for i, each in enumerate(failed):
            assert each.result()["errorType"] == "TypeError" and each.result()["errorMessage"] == f"failed {i}"
        for i, each in enumerate(large):
            assert len(each.result()) == 2_000_000 + i
        assert too_large.result()["errorType"] == "Function.ResponseSizeTooLarge"
    assert call(aws, name)["served"] > 1


def test_one_of_many_times_out_and_the_others_finish(server, aws, name):
    made(aws, name, Timeout=2)
    me = call(aws, name)["me"]
    with ThreadPoolExecutor(10) as pool:
        late = pool.submit(fails, aws, name, ms=60_000)
        time.sleep(1)
        others = [pool.submit(call, aws, name, ms=1500, tag=i) for i in range(5)]
        assert late.result()["errorType"] == "Sandbox.Timedout"
        assert [other.result()["tag"] for other in others] == list(range(5))
        assert {other.result()["me"] for other in others} == {me}
    assert call(aws, name)["me"] != me
    text = log_of(aws, server, name, lambda seen: seen.count("REPORT") >= 8)
    assert text.count("Task timed out after 2.00 seconds") == 1 and text.count("Status: timeout") == 1
    assert text.count("REPORT RequestId") == 8


def test_a_crash_ends_all_that_run_there(server, aws, name):
    made(aws, name)
    me = call(aws, name)["me"]
    with ThreadPoolExecutor(10) as pool:
        running = [pool.submit(fails, aws, name, ms=9000) for _ in range(6)]
        time.sleep(1)
        running.append(pool.submit(fails, aws, name, crash=True))
        for each in running:
            assert each.result()["errorType"] == "Runtime.ExitError" and "exit status 3" in each.result()["errorMessage"]
    assert call(aws, name)["me"] != me
    text = log_of(aws, server, name, lambda seen: seen.count("REPORT") >= 9)
    assert text.count("Error Type: Runtime.ExitError") == 7


def test_running_out_of_memory_ends_all_that_run_there(aws, name):
    made(aws, name, MemorySize=256)
    call(aws, name)
    with ThreadPoolExecutor(10) as pool:
        running = [pool.submit(fails, aws, name, ms=9000) for _ in range(3)]
        time.sleep(1)
        assert fails(aws, name, memory=True)["errorType"] == "Runtime.OutOfMemory"
        assert {each.result()["errorType"] for each in running} == {"Runtime.OutOfMemory"}


def test_a_failing_init_is_told_to_every_caller(aws, name):
    made(aws, name, handler="missing.handler")
    with ThreadPoolExecutor(5) as pool:
        for fault in pool.map(lambda _: fails(aws, name), range(5)):
            assert fault["errorType"] == "Runtime.ImportModuleError"


def test_streams_at_once_keep_their_pieces_apart(server, aws, name):
    made(aws, name, handler="index.stream")
    url = open_url(server, aws, name, InvokeMode="RESPONSE_STREAM")
    url.ask("GET", "/?first")
    slow = url.connect()
    slow.request("GET", "/?flood", headers={"Host": url.host})
    held = slow.getresponse()  # whose body nobody reads meanwhile
    with ThreadPoolExecutor(8) as pool:
        bodies = list(pool.map(lambda i: url.ask("GET", f"/?t{i}")[2].decode(), range(8)))
    assert bodies == ["".join(f"t{i}-{piece}\n" for piece in range(5)) for i in range(8)]
    assert len(held.read()) > 400 * 65536
    slow.close()


def test_a_reservation_counts_environments(aws, name):
    made(aws, name, at_once=4)
    aws.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    call(aws, name)

    def try_call(i):
        try:
            return call(aws, name, ms=1500, tag=i)["me"]
        except ClientError as refused:
            assert refused.response["ResponseMetadata"]["HTTPStatusCode"] == 429
            return None

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(try_call, range(6)))
    assert answers.count(None) == 2
    assert len(set(answers) - {None}) == 1


def test_it_is_frozen_when_nothing_runs_and_goes_on_after(aws, name):
    made(aws, name)
    me = call(aws, name)["me"]
    for round_ in range(3):
        time.sleep(0.3)
        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(lambda i: call(aws, name, ms=50, tag=i), range(5)))
        assert {answer["me"] for answer in answers} == {me}, round_


def test_an_update_lets_what_runs_finish(aws, name):
    made(aws, name)
    me = call(aws, name)["me"]
    with ThreadPoolExecutor(5) as pool:
        running = [pool.submit(call, aws, name, ms=1500, tag=i) for i in range(5)]
        time.sleep(0.5)
        aws.update_function_configuration(FunctionName=name, Description="changed")
        assert call(aws, name)["me"] != me
        assert {each.result()["me"] for each in running} == {me}


def test_a_runtime_that_cannot_has_one_at_a_time(aws, name):
    aws.create_function(FunctionName=name, Runtime="python3.11", Role=ROLE, Handler="app.handler", Timeout=10,
                        Code={"ZipFile": zip_of({"app.py": "import time, uuid\nME = str(uuid.uuid4())\n\ndef handler(event, context):\n"
                                                           "    time.sleep(0.5)\n    return ME\n"})},
                        Environment={"Variables": {"AWS_LAMBDA_MAX_CONCURRENCY": "10"}})
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: invoke(aws, name)[0], range(3)))
    assert len(set(answers)) == 3


def test_a_wrapper_that_closes_the_control_pipes_is_told_so(aws, name):
    wrapper = "#!/bin/sh\nunset _MAYFLY_CONTROL_FDS\nexec \"$@\"\n"
    aws.create_function(FunctionName=name, Runtime="nodejs20.x", Role=ROLE, Handler="index.handler", Timeout=10,
                        Code={"ZipFile": zip_of({"index.js": SOURCE, "wrap": (wrapper, 0o755)})},
                        Environment={"Variables": {"AWS_LAMBDA_MAX_CONCURRENCY": "2", "AWS_LAMBDA_EXEC_WRAPPER": "/var/task/wrap"}})
    assert fails(aws, name)["errorType"] == "Runtime.ConcurrencyUnsupported"
    aws.update_function_configuration(FunctionName=name, Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/var/task/wrap"}})
    assert call(aws, name)["served"] == 1


@pytest.mark.parametrize("value", ["0", "1601", "ten", "-1"])
def test_bad_settings_are_refused(aws, name, value):
    with pytest.raises(ClientError) as refused:
        made(aws, name, at_once=value)
    assert "AWS_LAMBDA_MAX_CONCURRENCY" in str(refused.value)


def test_callers_that_leave_disturb_nobody(server, aws, name):
    made(aws, name)
    url = open_url(server, aws, name)
    call(aws, name)

    def leave():
        connection = url.connect()
        connection.request("GET", "/", headers={"Host": url.host})
        connection.close()

    leavers = [threading.Thread(target=leave) for _ in range(20)]
    for each in leavers:
        each.start()
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda i: call(aws, name, ms=20, tag=i), range(40)))
    for each in leavers:
        each.join()
    assert [answer["tag"] for answer in answers] == list(range(40))
    assert json.loads(url.ask("GET", "/")[2])["me"]
