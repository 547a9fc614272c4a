#include "engine/dispatcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>

namespace mayfly::engine {
namespace {

using namespace std::chrono_literals;
using base::Duration;
using base::TimePoint;

VersionPtr make_version(const std::string& name, std::uint64_t generation = 1, std::uint32_t timeout_s = 3) {
  auto version = std::make_shared<FunctionVersion>();
  version->function_name = name;
  version->version = std::string(kLatest);
  version->generation = generation;
  version->config.timeout_s = timeout_s;
  return version;
}

struct Sink final : ResponseSink {
  void on_stream_begin(const std::string&) override {}
  void on_stream_piece(std::string, std::function<void(bool)> taken) override { taken(true); }
  void on_outcome(Outcome outcome) override {
    outcomes.push_back(std::move(outcome));
    if (then) then();
  }
  std::vector<Outcome> outcomes;
  std::function<void()> then;
};

// Writes down what the dispatcher asks for.
struct Backend final : EnvironmentBackend {
  struct Sent {
    EnvironmentId id;
    RunId run;
    InvocationPtr invocation;
    base::Deadline deadline;
    bool first;
  };
  void start(StartOrder order) override { started.push_back(std::move(order)); }
  std::uint32_t runs_at_once(const FunctionVersion& version) const override { return version.config.runs_per_environment().value_or(1); }
  void send(RunOrder order) override {
    sent.push_back({order.environment, order.run, std::move(order.invocation), order.run_deadline, order.first});
  }
  void give_up(EnvironmentId id, RunId run) override { given_up.emplace_back(id, run); }
  void freeze(EnvironmentId id) override { frozen.push_back(id); }
  void stop(EnvironmentId id, StopReason reason) override { stopped.emplace_back(id, reason); }
  std::vector<StartOrder> started;
  std::vector<Sent> sent;
  // What runs in `id`, or ran last; before a hand-over what waits for its init.
  [[nodiscard]] RunId last_run(EnvironmentId id) const {
    const auto last = std::find_if(sent.rbegin(), sent.rend(), [id](const Sent& each) { return each.id == id; });
    if (last != sent.rend()) return last->run;
    const auto order = std::find_if(started.begin(), started.end(), [id](const StartOrder& each) { return each.id == id; });
    return order == started.end() ? 0 : order->run;
  }
  std::vector<std::pair<EnvironmentId, RunId>> given_up;
  std::vector<EnvironmentId> frozen;
  std::vector<std::pair<EnvironmentId, StopReason>> stopped;
};

struct Observer final : InvocationObserver {
  void on_invocation(const InvocationRecord& record) override { records.push_back(record); }
  std::vector<InvocationRecord> records;
};

class DispatcherTest : public ::testing::Test {
 protected:
  void with(DispatcherOptions options) { dispatcher = std::make_unique<Dispatcher>(options, backend, observer); }

  std::shared_ptr<Sink> invoke(const VersionPtr& version, Duration call_limit = 60s) {
    auto invocation = std::make_shared<Invocation>();
    invocation->request_id = "r" + std::to_string(++requests);
    invocation->version = version;
    invocation->accepted = now;
    invocation->call_deadline = now + call_limit;
    auto sink = std::make_shared<Sink>();
    invocation->sink = sink;
    dispatcher->invoke(std::move(invocation), now);
    return sink;
  }
  void initialised(EnvironmentId id, Duration start = 5ms, Duration init = 20ms) {
    dispatcher->on_started(id, now);
    now += start + init;
    dispatcher->on_initialised(id, start, init, now);
  }
  void answer(EnvironmentId id, const std::string& payload = "1") {
    Outcome outcome;
    outcome.payload = payload;
    dispatcher->on_answered(id, backend.last_run(id), outcome, now);
  }
  void answer_and_ready(EnvironmentId id) {
    answer(id);
    ready(id);
  }
  void ready(EnvironmentId id) { dispatcher->on_ready(id, backend.last_run(id), now); }
  void gone(EnvironmentId id, Outcome outcome = {}) { dispatcher->on_gone(id, {{backend.last_run(id), std::move(outcome)}}, now); }
  void advance(Duration by) {
    const TimePoint until = now + by;
    while (dispatcher->next_timer() <= until) {
      now = std::max(now, dispatcher->next_timer());
      dispatcher->on_timer(now);
    }
    now = until;
  }
  static InitFailure failure(const std::string& type) {
    InitFailure failed;
    failed.error_type = type;
    failed.payload = "{\"errorType\":\"" + type + "\"}";
    return failed;
  }

  TimePoint now{1h};
  int requests = 0;
  Backend backend;
  Observer observer;
  std::unique_ptr<Dispatcher> dispatcher = std::make_unique<Dispatcher>(DispatcherOptions{}, backend, observer);
};

TEST_F(DispatcherTest, AFirstCallStartsAnEnvironmentAndIsBilledForItsInit) {
  auto sink = invoke(make_version("f"));
  ASSERT_EQ(backend.started.size(), 1U);
  EXPECT_EQ(backend.started[0].phase, InitPhase::kOwn);
  initialised(1, 5ms, 20ms);
  ASSERT_EQ(backend.sent.size(), 1U);
  EXPECT_TRUE(backend.sent[0].first);
  EXPECT_EQ(backend.sent[0].deadline, now + 3s);
  now += 1500us;
  answer(1, "42");
  ASSERT_EQ(sink->outcomes.size(), 1U);
  const Outcome& outcome = sink->outcomes[0];
  EXPECT_EQ(outcome.kind, OutcomeKind::kSuccess);
  EXPECT_EQ(outcome.payload, "42");
  EXPECT_TRUE(outcome.cold_start);
  EXPECT_EQ(outcome.timings.queued, 0ns);
  EXPECT_EQ(outcome.timings.start, 5ms);
  EXPECT_EQ(outcome.timings.init, 20ms);
  EXPECT_EQ(outcome.timings.run, 1500us);
  EXPECT_EQ(outcome.billed, 22ms);
  EXPECT_EQ(outcome.executed_version, "$LATEST");
  ASSERT_EQ(observer.records.size(), 1U);
  EXPECT_EQ(observer.records[0].billed, 22ms);
}

TEST_F(DispatcherTest, AWarmCallReusesTheEnvironmentAndIsBilledForItsRunOnly) {
  const VersionPtr version = make_version("f");
  invoke(version);
  initialised(1);
  answer_and_ready(1);
  auto sink = invoke(version);
  EXPECT_EQ(backend.started.size(), 1U);
  ASSERT_EQ(backend.sent.size(), 2U);
  EXPECT_FALSE(backend.sent[1].first);
  now += 200us;
  answer(1);
  EXPECT_FALSE(sink->outcomes.at(0).cold_start);
  EXPECT_EQ(sink->outcomes.at(0).billed, 1ms);
}

TEST_F(DispatcherTest, TheEnvironmentUsedLastIsTakenFirst) {
  const VersionPtr version = make_version("f");
  invoke(version);
  invoke(version);
  initialised(1);
  initialised(2);
  answer_and_ready(1);
  answer_and_ready(2);
  invoke(version);
  EXPECT_EQ(backend.sent.back().id, 2U);
}

TEST_F(DispatcherTest, AWaitingCallTakesWhatComesFirstAndTheStartInExcessBecomesIdle) {
  const VersionPtr version = make_version("f");
  invoke(version);
  initialised(1);
  auto second = invoke(version);
  EXPECT_EQ(backend.started.size(), 2U);
  answer_and_ready(1);
  EXPECT_EQ(backend.sent.back().id, 1U);
  initialised(2);
  EXPECT_EQ(dispatcher->counts().idle, 1U);
  answer(1);
  EXPECT_EQ(second->outcomes.size(), 1U);
}

TEST_F(DispatcherTest, ACallRightAfterAnAnswerWaitsForTheRuntimeInsteadOfStartingAnother) {
  const VersionPtr version = make_version("f");
  invoke(version);
  initialised(1);
  answer(1);
  invoke(version);
  EXPECT_EQ(backend.started.size(), 1U);
  now += 1ms;
  ready(1);
  EXPECT_EQ(backend.sent.size(), 2U);
}

TEST_F(DispatcherTest, ARuntimeThatDoesNotComeBackIsNotWaitedForAndEndsAtItsRunDeadline) {
  const VersionPtr version = make_version("f");
  invoke(version);
  initialised(1);
  answer(1);
  invoke(version);
  advance(25ms);
  EXPECT_EQ(backend.started.size(), 2U);
  advance(3s);
  ASSERT_FALSE(backend.stopped.empty());
  EXPECT_EQ(backend.stopped[0], std::pair(EnvironmentId{1}, StopReason::kMisbehaved));
}

TEST_F(DispatcherTest, AtTheLimitCallsQueueInOrderAndAreThrottledAfterTheirBudget) {
  DispatcherOptions options;
  options.concurrency_max = 1;
  with(options);
  const VersionPtr version = make_version("f", 1, 30);
  invoke(version);
  initialised(1);
  auto second = invoke(version);
  auto third = invoke(version);
  EXPECT_EQ(backend.started.size(), 1U);
  EXPECT_EQ(dispatcher->counts().queued, 2U);
  now += 1s;
  answer_and_ready(1);
  EXPECT_EQ(backend.sent.back().invocation->request_id, "r2");
  advance(11s);
  ASSERT_EQ(third->outcomes.size(), 1U);
  const Outcome& refused = third->outcomes[0];
  EXPECT_EQ(refused.kind, OutcomeKind::kRefused);
  EXPECT_EQ(refused.error->id(), "TooManyRequestsException");
  EXPECT_EQ(refused.error->message(), "Rate Exceeded.");
  EXPECT_EQ(refused.throttle_reason, "ConcurrentInvocationLimitExceeded");
  EXPECT_EQ(dispatcher->counts().throttles, 1U);
}

TEST_F(DispatcherTest, AFullQueueThrottlesAtOnce) {
  DispatcherOptions options;
  options.concurrency_max = 1;
  options.queue_max_per_function = 1;
  with(options);
  const VersionPtr version = make_version("f");
  invoke(version);
  initialised(1);
  invoke(version);
  auto third = invoke(version);
  ASSERT_EQ(third->outcomes.size(), 1U);
  EXPECT_EQ(third->outcomes[0].error->id(), "TooManyRequestsException");
  EXPECT_TRUE(invoke(make_version("g"))->outcomes.empty()) << "the bound is each function's own";
}

TEST_F(DispatcherTest, FreedCapacityGoesToTheFunctionThatWaitedLongest) {
  DispatcherOptions options;
  options.concurrency_max = 1;
  with(options);
  invoke(make_version("f"));
  initialised(1);
  now += 1ms;
  invoke(make_version("h"));
  now += 1ms;
  invoke(make_version("g"));
  answer_and_ready(1);
  ASSERT_EQ(backend.started.size(), 2U);
  EXPECT_EQ(backend.started[1].version->function_name, "h");
}

TEST_F(DispatcherTest, AnIdleEnvironmentIsNoWayAroundTheConcurrencyLimit) {
  DispatcherOptions options;
  options.concurrency_max = 1;
  with(options);
  const VersionPtr version = make_version("f");
  invoke(version);
  initialised(1);
  answer_and_ready(1);
  invoke(make_version("g"));
  initialised(2);
  invoke(version);
  EXPECT_EQ(backend.sent.size(), 2U);
  EXPECT_EQ(dispatcher->counts().queued, 1U);
  answer_and_ready(2);
  ASSERT_EQ(backend.sent.size(), 3U);
  EXPECT_EQ(backend.sent.back().id, 1U);
  EXPECT_EQ(backend.started.size(), 2U);
}

TEST_F(DispatcherTest, ATimeoutStopsTheEnvironmentAndTheCallerGetsAWSsDocument) {
  auto sink = invoke(make_version("f"));
  initialised(1);
  advance(3s);
  ASSERT_EQ(backend.stopped.size(), 1U);
  EXPECT_EQ(backend.stopped[0].second, StopReason::kTimeout);
  EXPECT_TRUE(sink->outcomes.empty()) << "the log tail arrives with on_gone";
  Outcome told;
  told.log_tail = "tail";
  told.memory_peak = 7;
  gone(1, told);
  ASSERT_EQ(sink->outcomes.size(), 1U);
  EXPECT_EQ(sink->outcomes[0].error_type, "Sandbox.Timedout");
  EXPECT_EQ(sink->outcomes[0].payload,
            R"({"errorType":"Sandbox.Timedout","errorMessage":"RequestId: r1 Error: Task timed out after 3.00 seconds"})");
  EXPECT_EQ(sink->outcomes[0].log_tail, "tail");
  EXPECT_EQ(sink->outcomes[0].timings.run, 3s);
  EXPECT_EQ(dispatcher->counts().timeouts, 1U);
  EXPECT_EQ(dispatcher->counts().busy, 0U);
}

TEST_F(DispatcherTest, ATimedOutCallerIsAnsweredEvenWhenTheSandboxDoesNotDie) {
  auto sink = invoke(make_version("f"));
  initialised(1);
  advance(6s);
  ASSERT_EQ(sink->outcomes.size(), 1U);
  gone(1);
  EXPECT_EQ(sink->outcomes.size(), 1U);
}

TEST_F(DispatcherTest, TheRunEndsAtTheCallDeadlineWhenThatIsSooner) {
  auto sink = invoke(make_version("f", 1, 900), 2s);
  initialised(1, 0ms, 500ms);
  EXPECT_EQ(backend.sent[0].deadline, TimePoint(1h) + 2s);
  advance(1500ms);
  gone(1);
  EXPECT_NE(sink->outcomes.at(0).payload.find("timed out after 1.50 seconds"), std::string::npos);
}

TEST_F(DispatcherTest, AFailedFirstInitIsRedoneInsideTheInvocationAndMaySucceed) {
  auto sink = invoke(make_version("f"));
  now += 100ms;
  dispatcher->on_init_failed(1, failure("Runtime.ExitError"), now);
  ASSERT_EQ(backend.started.size(), 2U);
  EXPECT_EQ(backend.started[1].phase, InitPhase::kInInvocation);
  EXPECT_EQ(backend.started[1].waiting->request_id, "r1");
  EXPECT_EQ(backend.started[1].run_deadline, now + 3s);
  initialised(2);
  ASSERT_EQ(backend.sent.size(), 1U);
  EXPECT_FALSE(backend.sent[0].first) << "an init on the invocation's clock is no Init Duration";
  now += 5ms;
  answer(2);
  EXPECT_EQ(sink->outcomes.at(0).timings.run, 30ms) << "run counts from the start of the second init";
  EXPECT_EQ(sink->outcomes.at(0).billed, 30ms);
  EXPECT_TRUE(sink->outcomes.at(0).cold_start);
}

TEST_F(DispatcherTest, ASecondFailedInitIsTheInvocationsError) {
  auto sink = invoke(make_version("f"));
  dispatcher->on_init_failed(1, failure("Runtime.ImportModuleError"), now);
  gone(1);
  dispatcher->on_init_failed(2, failure("Runtime.ImportModuleError"), now + 10ms);
  ASSERT_EQ(sink->outcomes.size(), 1U);
  EXPECT_EQ(sink->outcomes[0].kind, OutcomeKind::kFunctionError);
  EXPECT_EQ(sink->outcomes[0].error_type, "Runtime.ImportModuleError");
  EXPECT_EQ(sink->outcomes[0].payload, R"({"errorType":"Runtime.ImportModuleError"})");
  gone(2);
  EXPECT_TRUE(dispatcher->finished());
}

TEST_F(DispatcherTest, AnInitOfTenSecondsIsCutAndRedoneUnderTheFunctionsTimeout) {
  auto sink = invoke(make_version("f"));
  dispatcher->on_started(1, now);
  advance(10s);
  ASSERT_EQ(backend.stopped.size(), 1U);
  EXPECT_EQ(backend.stopped[0].second, StopReason::kInitTimeout);
  ASSERT_EQ(backend.started.size(), 2U);
  advance(3s);
  EXPECT_EQ(backend.stopped.back(), std::pair(EnvironmentId{2}, StopReason::kTimeout));
  gone(2);
  EXPECT_EQ(sink->outcomes.at(0).error_type, "Sandbox.Timedout");
}

TEST_F(DispatcherTest, AFaultOfThePlatformRefusesTheCallAndRedoesNothing) {
  auto sink = invoke(make_version("f"));
  InitFailure fault;
  fault.platform_fault = true;
  fault.error = base::Error(base::ErrorCode::kUnavailable, "mount /tmp: no space left");
  dispatcher->on_init_failed(1, fault, now);
  ASSERT_EQ(sink->outcomes.size(), 1U);
  EXPECT_EQ(sink->outcomes[0].kind, OutcomeKind::kRefused);
  EXPECT_EQ(sink->outcomes[0].error->id(), "ServiceException");
  EXPECT_NE(sink->outcomes[0].error->message().find("mount /tmp"), std::string::npos);
  EXPECT_EQ(backend.started.size(), 1U);
}

TEST_F(DispatcherTest, ACrashDuringARunIsReportedAndTheNextCallStartsAfresh) {
  const VersionPtr version = make_version("f");
  auto sink = invoke(version);
  initialised(1);
  Outcome crash;
  crash.kind = OutcomeKind::kFunctionError;
  crash.error_type = "Runtime.ExitError";
  now += 1ms;
  gone(1, crash);
  EXPECT_EQ(sink->outcomes.at(0).error_type, "Runtime.ExitError");
  auto next = invoke(version);
  EXPECT_EQ(backend.started.size(), 2U);
  initialised(2);
  answer(2);
  EXPECT_EQ(next->outcomes.at(0).kind, OutcomeKind::kSuccess);
}

TEST_F(DispatcherTest, ACrashAfterTheAnswerConcernsNobody) {
  auto sink = invoke(make_version("f"));
  initialised(1);
  answer(1);
  gone(1);
  EXPECT_EQ(sink->outcomes.size(), 1U);
  EXPECT_TRUE(dispatcher->finished());
}

TEST_F(DispatcherTest, IdleEnvironmentsFreezeThenEnd) {
  const VersionPtr version = make_version("f");
  invoke(version);
  initialised(1);
  answer_and_ready(1);
  advance(20ms);
  EXPECT_EQ(backend.frozen, std::vector<EnvironmentId>{1});
  EXPECT_TRUE(backend.stopped.empty());
  advance(10min);
  EXPECT_EQ(backend.stopped.at(0), std::pair(EnvironmentId{1}, StopReason::kIdle));
}

TEST_F(DispatcherTest, TheOldestIdleEnvironmentMakesRoom) {
  DispatcherOptions options;
  options.environments_max = 2;
  with(options);
  invoke(make_version("f"));
  initialised(1);
  answer_and_ready(1);
  now += 1ms;
  invoke(make_version("g"));
  initialised(2);
  answer_and_ready(2);
  invoke(make_version("h"));
  EXPECT_EQ(backend.stopped.at(0), std::pair(EnvironmentId{1}, StopReason::kIdle));
  EXPECT_EQ(backend.started.size(), 3U);
}

TEST_F(DispatcherTest, NoEnvironmentServesAnotherGeneration) {
  invoke(make_version("f", 1));
  initialised(1);
  answer_and_ready(1);
  invoke(make_version("f", 2));
  EXPECT_EQ(backend.started.size(), 2U);
  EXPECT_EQ(backend.started[1].version->generation, 2U);
}

TEST_F(DispatcherTest, OutdatedEnvironmentsEndWhenIdleAndBusyOnesFinishFirst) {
  const VersionPtr version = make_version("f", 1);
  auto running = invoke(version);
  invoke(version);
  initialised(1);
  initialised(2);
  answer_and_ready(2);
  dispatcher->drop_outdated("f", [](const FunctionVersion& v) { return v.generation == 2; }, now);
  EXPECT_EQ(backend.stopped.at(0), std::pair(EnvironmentId{2}, StopReason::kReplaced));
  answer_and_ready(1);
  EXPECT_EQ(running->outcomes.size(), 1U);
  EXPECT_EQ(backend.stopped.at(1), std::pair(EnvironmentId{1}, StopReason::kReplaced));
}

TEST_F(DispatcherTest, DrainingRefusesNewCallsAndFinishesWhatRunsAndWaits) {
  DispatcherOptions options;
  options.concurrency_max = 1;
  with(options);
  const VersionPtr version = make_version("f");
  invoke(version);
  initialised(1);
  auto waiting = invoke(version);
  dispatcher->drain(now);
  EXPECT_EQ(invoke(version)->outcomes.at(0).error->code(), base::ErrorCode::kUnavailable);
  answer_and_ready(1);
  EXPECT_EQ(backend.sent.back().invocation->request_id, "r2");
  answer_and_ready(1);
  EXPECT_EQ(waiting->outcomes.size(), 1U);
  EXPECT_EQ(backend.stopped.at(0).second, StopReason::kShutdown);
  EXPECT_FALSE(dispatcher->finished());
  gone(1);
  EXPECT_TRUE(dispatcher->finished());
}

TEST_F(DispatcherTest, ASinkMayInvokeFromItsOutcome) {
  const VersionPtr version = make_version("f");
  auto sink = invoke(version);
  std::shared_ptr<Sink> next;
  sink->then = [&] { next = invoke(version); };
  initialised(1);
  answer(1);
  ready(1);
  ASSERT_TRUE(next);
  EXPECT_EQ(backend.sent.size(), 2U);
  EXPECT_EQ(backend.sent.back().invocation->request_id, "r2");
}

TEST_F(DispatcherTest, ACallWhoseDeadlinePassesInTheQueueNeverRuns) {
  DispatcherOptions options;
  options.concurrency_max = 1;
  with(options);
  const VersionPtr version = make_version("f", 1, 30);
  invoke(version);
  initialised(1);
  auto late = invoke(version, 50ms);
  advance(60ms);
  EXPECT_EQ(late->outcomes.at(0).error->code(), base::ErrorCode::kDeadlineExceeded);
  answer_and_ready(1);
  EXPECT_EQ(backend.sent.size(), 1U);
}

TEST_F(DispatcherTest, VersionsThatRunOrWaitAreKnownUntilNothingOfThemIsLeft) {
  DispatcherOptions options;
  options.concurrency_max = 1;
  with(options);
  const auto names = [&] {
    std::string all;
    dispatcher->each_version([&](const FunctionVersion& version) { all += version.function_name; });
    std::sort(all.begin(), all.end());
    return all;
  };
  invoke(make_version("f"));
  invoke(make_version("g"));
  EXPECT_EQ(names(), "fg");
  gone(1);
  advance(40s);
  EXPECT_NE(names().find('g'), std::string::npos) << "its environment hangs on";
  for (EnvironmentId id = 1; id < 10; ++id) gone(id);
  EXPECT_EQ(names(), "");
}

TEST_F(DispatcherTest, ConcurrencyIsCountedPerFunction) {
  invoke(make_version("f"));
  invoke(make_version("f"));
  invoke(make_version("g"));
  EXPECT_EQ(dispatcher->concurrency_of("f"), 2U);
  EXPECT_EQ(dispatcher->concurrency_of("g"), 1U);
  EXPECT_EQ(dispatcher->concurrency_of("h"), 0U);
}

// ---- reserved concurrency

const char* const kReserved = "ReservedFunctionConcurrentInvocationLimitExceeded";
const char* const kUnreserved = "ConcurrentInvocationLimitExceeded";

VersionPtr numbered(const std::string& name, const std::string& number, std::uint64_t generation = 1) {
  auto version = std::make_shared<FunctionVersion>(*make_version(name, generation));
  version->version = number;
  return version;
}

void expect_throttled(const std::shared_ptr<Sink>& sink, const std::string& reason) {
  ASSERT_EQ(sink->outcomes.size(), 1U);
  const Outcome& outcome = sink->outcomes[0];
  ASSERT_EQ(outcome.kind, OutcomeKind::kRefused);
  EXPECT_EQ(outcome.error->id(), "TooManyRequestsException");
  EXPECT_EQ(outcome.error->message(), "Rate Exceeded.");
  EXPECT_EQ(outcome.throttle_reason, reason);
}
#define EXPECT_THROTTLED(sink, reason)        \
  do {                                        \
    SCOPED_TRACE("line of the refused call"); \
    expect_throttled((sink), reason);         \
  } while (false)

TEST_F(DispatcherTest, AFullReservationRefusesAtOnceWithItsReason) {
  dispatcher->set_reserved_concurrency("f", 1, now);
  auto first = invoke(make_version("f"));
  EXPECT_THROTTLED(invoke(make_version("f")), kReserved);
  initialised(1);
  EXPECT_THROTTLED(invoke(make_version("f")), kReserved);
  EXPECT_THROTTLED(invoke(numbered("f", "1")), kReserved);  // the reservation is the whole function's
  EXPECT_TRUE(invoke(make_version("g"))->outcomes.empty());
  answer_and_ready(1);
  EXPECT_EQ(first->outcomes.size(), 1U);
  EXPECT_TRUE(invoke(make_version("f"))->outcomes.empty());
  EXPECT_EQ(backend.sent.back().id, 1U);
  EXPECT_EQ(dispatcher->counts().throttles, 3U);
  EXPECT_EQ(dispatcher->counts().reserved_throttles, 3U);
}

TEST_F(DispatcherTest, AReservationOfZeroRefusesEveryCallAndWhatWaits) {
  DispatcherOptions options;
  options.concurrency_max = 1;
  with(options);
  auto running = invoke(make_version("f"));
  initialised(1);
  auto waiting = invoke(make_version("f"));
  dispatcher->set_reserved_concurrency("f", 0, now);
  EXPECT_THROTTLED(waiting, kReserved);
  EXPECT_THROTTLED(invoke(make_version("f")), kReserved);
  answer_and_ready(1);
  EXPECT_EQ(running->outcomes.at(0).kind, OutcomeKind::kSuccess);
  EXPECT_THROTTLED(invoke(make_version("f")), kReserved);  // an idle environment is no way around it
  dispatcher->set_reserved_concurrency("f", std::nullopt, now);
  EXPECT_TRUE(invoke(make_version("f"))->outcomes.empty());
  EXPECT_EQ(backend.sent.size(), 2U);
}

TEST_F(DispatcherTest, OnlyOneCallWaitsForAReservedEnvironmentAboutToBeFree) {
  dispatcher->set_reserved_concurrency("f", 1, now);
  invoke(make_version("f"));
  initialised(1);
  answer(1);
  auto next = invoke(make_version("f"));
  EXPECT_TRUE(next->outcomes.empty());
  EXPECT_THROTTLED(invoke(make_version("f")), kReserved);
  advance(50ms);
  EXPECT_TRUE(next->outcomes.empty()) << "a slow runtime is waited for within the budget";
  ready(1);
  EXPECT_EQ(backend.sent.size(), 2U);
  answer(1);
  auto late = invoke(make_version("f", 1));
  now += 1ms;
  advance(2900ms);
  EXPECT_TRUE(late->outcomes.empty());
  EXPECT_EQ(backend.started.size(), 1U);
}

TEST_F(DispatcherTest, AWaitOverTheReservationEndsWithItsReason) {
  dispatcher->set_reserved_concurrency("f", 1, now);
  const VersionPtr slow = make_version("f", 1, 60);
  invoke(slow);
  initialised(1);
  answer(1);
  auto waiting = invoke(slow);
  advance(11s);
  EXPECT_THROTTLED(waiting, kReserved);
}

TEST_F(DispatcherTest, AnotherVersionGetsThePlaceOfAnAnsweredOne) {
  dispatcher->set_reserved_concurrency("f", 1, now);
  invoke(make_version("f"));
  initialised(1);
  answer(1);
  auto other = invoke(numbered("f", "1"));
  EXPECT_TRUE(other->outcomes.empty());
  ready(1);
  ASSERT_EQ(backend.started.size(), 2U);
  EXPECT_EQ(backend.started[1].version->version, "1");
}

TEST_F(DispatcherTest, WhatIsReservedIsThereWhateverOthersDo) {
  DispatcherOptions options;
  options.concurrency_max = 3;
  options.queue_budget = 1s;
  with(options);
  dispatcher->set_reserved_concurrency("f", 2, now);
  invoke(make_version("g"));
  auto starved = invoke(make_version("h"));
  EXPECT_EQ(backend.started.size(), 1U) << "two of three are kept for f";
  invoke(make_version("f"));
  invoke(make_version("f"));
  EXPECT_EQ(backend.started.size(), 3U);
  advance(2s);
  EXPECT_THROTTLED(starved, kUnreserved);
  EXPECT_EQ(dispatcher->counts().reserved_throttles, 0U);
}

TEST_F(DispatcherTest, AReservationTakesEffectWhileMoreRuns) {
  const VersionPtr version = make_version("f");
  for (EnvironmentId id = 1; id <= 3; ++id) {
    invoke(version);
    initialised(id);
  }
  dispatcher->set_reserved_concurrency("f", 1, now);
  EXPECT_EQ(dispatcher->concurrency_of("f"), 3U);
  EXPECT_TRUE(backend.stopped.empty());
  for (EnvironmentId id = 1; id <= 2; ++id) {
    answer_and_ready(id);
    EXPECT_THROTTLED(invoke(version), kReserved);
  }
  answer_and_ready(3);
  EXPECT_TRUE(invoke(version)->outcomes.empty());
  EXPECT_THROTTLED(invoke(version), kReserved);
}

TEST_F(DispatcherTest, WhatWaitsIsServedWhenLimitsRise) {
  DispatcherOptions options;
  options.concurrency_max = 2;
  with(options);
  dispatcher->set_reserved_concurrency("g", 1, now);
  invoke(make_version("f"));
  initialised(1);
  auto waiting = invoke(make_version("f"));
  EXPECT_EQ(backend.started.size(), 1U);
  dispatcher->set_reserved_concurrency("g", std::nullopt, now);
  EXPECT_EQ(backend.started.size(), 2U);
  dispatcher->set_reserved_concurrency("f", 1, now);
  answer_and_ready(1);
  EXPECT_EQ(backend.sent.size(), 1U) << "two ran, one is allowed";
  EXPECT_TRUE(waiting->outcomes.empty());
  initialised(2);
  EXPECT_EQ(backend.sent.size(), 2U);
}

TEST_F(DispatcherTest, ARunBeyondALoweredReservationIsNotLentToOthers) {
  DispatcherOptions options;
  options.concurrency_max = 3;
  with(options);
  for (EnvironmentId id = 1; id <= 3; ++id) {
    invoke(make_version("f"));
    initialised(id);
  }
  dispatcher->set_reserved_concurrency("f", 1, now);
  dispatcher->set_reserved_concurrency("g", 1, now);
  auto reserved = invoke(make_version("g"));
  auto other = invoke(make_version("h"));
  EXPECT_EQ(dispatcher->counts().queued, 2U);
  answer_and_ready(1);
  EXPECT_EQ(backend.started.back().version->function_name, "g");
  answer_and_ready(2);
  EXPECT_EQ(backend.started.back().version->function_name, "h");
  EXPECT_EQ(backend.started.size(), 5U);
}

TEST_F(DispatcherTest, AFailedInitUnderAReservationIsRedoneInItsPlace) {
  dispatcher->set_reserved_concurrency("f", 1, now);
  auto sink = invoke(make_version("f"));
  dispatcher->on_init_failed(1, failure("Runtime.ExitError"), now);
  ASSERT_EQ(backend.started.size(), 2U);
  EXPECT_THROTTLED(invoke(make_version("f")), kReserved);  // its run has begun
  dispatcher->on_init_failed(2, failure("Runtime.ExitError"), now);
  EXPECT_EQ(sink->outcomes.at(0).error_type, "Runtime.ExitError");
  EXPECT_TRUE(invoke(make_version("f"))->outcomes.empty());
}

// ---- provisioned concurrency

TEST_F(DispatcherTest, ProvisionedEnvironmentsAreMadeAtOnceAndTheirInitIsOnNoBill) {
  const VersionPtr version = numbered("f", "1");
  dispatcher->set_provisioned_concurrency(version, 2, now);
  ASSERT_EQ(backend.started.size(), 2U);
  EXPECT_EQ(backend.started[0].initialization, Initialization::kProvisioned);
  EXPECT_EQ(initialization_name(backend.started[0].initialization), "provisioned-concurrency");
  EXPECT_EQ(dispatcher->provisioned_status("f", "1"), (ProvisionedStatus{2, 0, 0, ""}));
  initialised(1);
  initialised(2);
  EXPECT_EQ(dispatcher->provisioned_status("f", "1"), (ProvisionedStatus{2, 2, 2, ""}));
  EXPECT_EQ(dispatcher->counts().provisioned, 2U);
  auto sink = invoke(version);
  ASSERT_EQ(backend.sent.size(), 1U);
  EXPECT_FALSE(backend.sent[0].first);
  EXPECT_EQ(dispatcher->provisioned_status("f", "1"), (ProvisionedStatus{2, 2, 1, ""}));
  now += 3ms;
  answer_and_ready(1 + (backend.sent[0].id == 2U ? 1 : 0));
  EXPECT_FALSE(sink->outcomes.at(0).cold_start);
  EXPECT_EQ(sink->outcomes.at(0).timings.init, 0ns);
  EXPECT_EQ(sink->outcomes.at(0).billed, 3ms);
  EXPECT_EQ(dispatcher->provisioned_status("f", "1"), (ProvisionedStatus{2, 2, 2, ""}));
  EXPECT_EQ(dispatcher->provisioned_status("f", "2"), ProvisionedStatus{});
}

TEST_F(DispatcherTest, ProvisionedEnvironmentsArePreferredAndMoreSpillOver) {
  const VersionPtr version = numbered("f", "1");
  invoke(version);
  initialised(1);
  answer_and_ready(1);
  dispatcher->set_provisioned_concurrency(version, 1, now);
  ASSERT_EQ(backend.started.size(), 2U);
  initialised(2);
  invoke(version);
  EXPECT_EQ(backend.sent.back().id, 2U);
  invoke(version);
  EXPECT_EQ(backend.sent.back().id, 1U);
  invoke(version);
  ASSERT_EQ(backend.started.size(), 3U);
  EXPECT_EQ(backend.started[2].initialization, Initialization::kOnDemand);
}

TEST_F(DispatcherTest, ProvisionedEnvironmentsStayWhenIdleAndMakeNoRoom) {
  DispatcherOptions options;
  options.concurrency_max = 2;
  options.environments_max = 2;
  with(options);
  dispatcher->set_provisioned_concurrency(numbered("f", "1"), 1, now);
  initialised(1);
  advance(1h);
  EXPECT_EQ(backend.frozen, std::vector<EnvironmentId>{1});
  EXPECT_TRUE(backend.stopped.empty());
  invoke(make_version("g"));
  initialised(2);
  answer_and_ready(2);
  invoke(make_version("h"));
  EXPECT_EQ(backend.stopped.at(0), std::pair(EnvironmentId{2}, StopReason::kIdle));
  ASSERT_EQ(backend.stopped.size(), 1U);
}

TEST_F(DispatcherTest, ProvisionedEnvironmentsTakeTheirPartOfTheAccountAlsoWhileIdle) {
  DispatcherOptions options;
  options.concurrency_max = 3;
  with(options);
  dispatcher->set_provisioned_concurrency(numbered("f", "1"), 2, now);
  initialised(1);
  initialised(2);
  invoke(make_version("g"));
  invoke(make_version("g"));
  EXPECT_EQ(backend.started.size(), 3U) << "one of three is left";
  invoke(numbered("f", "1"));
  invoke(numbered("f", "1"));
  EXPECT_EQ(backend.sent.size(), 2U) << "theirs are there";
  dispatcher->set_provisioned_concurrency(numbered("f", "1"), 0, now);
  EXPECT_EQ(dispatcher->counts().busy + dispatcher->counts().starting, 3U);
  answer_and_ready(1);
  EXPECT_EQ(backend.started.size(), 4U) << "and are given back";
}

TEST_F(DispatcherTest, ProvisionedConcurrencyIsPartOfTheReservation) {
  dispatcher->set_reserved_concurrency("f", 2, now);
  const VersionPtr version = numbered("f", "1");
  dispatcher->set_provisioned_concurrency(version, 1, now);
  initialised(1);
  EXPECT_TRUE(invoke(make_version("f"))->outcomes.empty()) << "one of two is not provisioned";
  EXPECT_THROTTLED(invoke(make_version("f")), kReserved);
  EXPECT_TRUE(invoke(version)->outcomes.empty());
  EXPECT_EQ(backend.sent.back().id, 1U);
  EXPECT_THROTTLED(invoke(version), kReserved);
  EXPECT_EQ(dispatcher->concurrency_of("f"), 2U);
}

TEST_F(DispatcherTest, CallsWaitForTheProvisionedEnvironmentsThatTakeTheWholeReservation) {
  dispatcher->set_reserved_concurrency("f", 1, now);
  const VersionPtr version = numbered("f", "1");
  dispatcher->set_provisioned_concurrency(version, 1, now);
  auto waiting = invoke(version);
  EXPECT_THROTTLED(invoke(version), kReserved);
  EXPECT_EQ(backend.started.size(), 1U);
  initialised(1);
  answer(1);
  EXPECT_EQ(waiting->outcomes.at(0).kind, OutcomeKind::kSuccess);
}

TEST_F(DispatcherTest, AProvisionedEnvironmentThatDiesIsMadeAgain) {
  const VersionPtr version = numbered("f", "1");
  dispatcher->set_provisioned_concurrency(version, 1, now);
  initialised(1);
  auto sink = invoke(version);
  gone(1);
  EXPECT_EQ(sink->outcomes.size(), 1U);
  ASSERT_EQ(backend.started.size(), 2U) << "at once: it was of use";
  initialised(2);
  invoke(version);
  advance(3s);
  EXPECT_EQ(backend.stopped.at(0), std::pair(EnvironmentId{2}, StopReason::kTimeout));
  EXPECT_EQ(backend.started.size(), 3U);
}

TEST_F(DispatcherTest, AProvisionedInitThatFailsIsTriedAgainEverMoreRarelyAndOneAtATime) {
  const VersionPtr version = numbered("f", "1");
  dispatcher->set_provisioned_concurrency(version, 3, now);
  ASSERT_EQ(backend.started.size(), 3U);
  const auto fail_all = [&](EnvironmentId from) {
    for (EnvironmentId id = from; id <= backend.started.size(); ++id) {
      dispatcher->on_init_failed(id, failure("Runtime.ExitError"), now);
      gone(id);
    }
  };
  fail_all(1);
  EXPECT_EQ(dispatcher->provisioned_status("f", "1"), (ProvisionedStatus{3, 0, 0, "FUNCTION_ERROR_INIT_FAILURE: Runtime.ExitError"}));
  std::size_t tries = 3;
  for (const Duration pause : {1s, 2s, 4s, 8s, 16s, 32s, 60s, 60s}) {
    advance(pause - 1ms);
    EXPECT_EQ(backend.started.size(), tries) << base::to_ms(pause);
    advance(1ms);
    ASSERT_EQ(backend.started.size(), ++tries) << base::to_ms(pause);
    fail_all(tries);
  }
  advance(60s);
  initialised(tries + 1);
  EXPECT_EQ(backend.started.size(), tries + 3) << "after a success the others follow";
  EXPECT_EQ(dispatcher->provisioned_status("f", "1"), (ProvisionedStatus{3, 1, 1, ""}));
}

TEST_F(DispatcherTest, ManyProvisionedEnvironmentsStartAFewAtOnce) {
  DispatcherOptions options;
  options.provision_starts_max = 2;
  with(options);
  dispatcher->set_provisioned_concurrency(numbered("f", "1"), 5, now);
  for (EnvironmentId id = 1; id <= 5; ++id) {
    EXPECT_EQ(backend.started.size(), std::min<std::size_t>(id + 1, 5));
    initialised(id);
  }
  EXPECT_EQ(dispatcher->provisioned_status("f", "1").available, 5U);
}

TEST_F(DispatcherTest, AProvisionedEnvironmentThatEndsUnusedDoesNotSpin) {
  dispatcher->set_provisioned_concurrency(numbered("f", "1"), 1, now);
  for (EnvironmentId id = 1; id <= 3; ++id) {
    initialised(id);
    gone(id);
    EXPECT_EQ(backend.started.size(), id);
    EXPECT_NE(dispatcher->provisioned_status("f", "1").failed_reason, "");
    advance(4s);
    EXPECT_EQ(backend.started.size(), id + 1);
  }
}

TEST_F(DispatcherTest, WhileProvisioningFailsCallsAreToldTheCauseOnDemand) {
  dispatcher->set_reserved_concurrency("f", 1, now);
  const VersionPtr version = numbered("f", "1");
  dispatcher->set_provisioned_concurrency(version, 1, now);
  dispatcher->on_init_failed(1, failure("Runtime.ImportModuleError"), now);
  auto sink = invoke(version);
  ASSERT_EQ(backend.started.size(), 2U);
  EXPECT_EQ(backend.started[1].initialization, Initialization::kOnDemand);
  dispatcher->on_init_failed(2, failure("Runtime.ImportModuleError"), now);
  dispatcher->on_init_failed(3, failure("Runtime.ImportModuleError"), now);
  EXPECT_EQ(sink->outcomes.at(0).error_type, "Runtime.ImportModuleError");
}

TEST_F(DispatcherTest, AProvisionedInitMayTakeLongerThanTenSeconds) {
  dispatcher->set_provisioned_concurrency(numbered("f", "1"), 1, now);
  dispatcher->on_started(1, now);
  advance(129s);
  EXPECT_TRUE(backend.stopped.empty());
  advance(1s);
  EXPECT_EQ(backend.stopped.at(0), std::pair(EnvironmentId{1}, StopReason::kInitTimeout));
  EXPECT_EQ(dispatcher->provisioned_status("f", "1").failed_reason, "FUNCTION_ERROR_INIT_FAILURE: Sandbox.Timedout");
}

TEST_F(DispatcherTest, FewerProvisionedEnvironmentsEndIdleOnesFirstAndRunsFinish) {
  const VersionPtr version = numbered("f", "1");
  dispatcher->set_provisioned_concurrency(version, 3, now);
  initialised(1);
  initialised(2);
  auto running = invoke(version);
  const EnvironmentId busy = backend.sent[0].id;
  dispatcher->set_provisioned_concurrency(version, 2, now);
  ASSERT_EQ(backend.stopped.size(), 1U);
  EXPECT_EQ(backend.stopped[0], std::pair(EnvironmentId{3 - busy}, StopReason::kReplaced));
  dispatcher->set_provisioned_concurrency(version, 0, now);
  EXPECT_EQ(backend.stopped.back(), std::pair(EnvironmentId{3}, StopReason::kReplaced)) << "the one that starts";
  EXPECT_EQ(dispatcher->provisioned_status("f", "1"), ProvisionedStatus{});
  answer_and_ready(busy);
  EXPECT_EQ(running->outcomes.size(), 1U);
  EXPECT_EQ(backend.stopped.back(), std::pair(busy, StopReason::kReplaced));
  for (EnvironmentId id = 1; id <= 3; ++id) gone(id);
  EXPECT_TRUE(dispatcher->finished());
  EXPECT_EQ(backend.started.size(), 3U);
}

TEST_F(DispatcherTest, ProvisionedConcurrencyThatMovesWithinAFullReservationMovesWhenTheOldIsGone) {
  dispatcher->set_reserved_concurrency("f", 1, now);
  dispatcher->set_provisioned_concurrency(numbered("f", "1"), 1, now);
  initialised(1);
  dispatcher->set_provisioned_concurrency(numbered("f", "2"), 1, now);
  EXPECT_EQ(backend.started.size(), 1U);
  dispatcher->set_provisioned_concurrency(numbered("f", "1"), 0, now);
  ASSERT_EQ(backend.started.size(), 2U);
  EXPECT_EQ(backend.started[1].version->version, "2");
}

TEST_F(DispatcherTest, AnotherGenerationReplacesTheProvisionedEnvironments) {
  dispatcher->set_provisioned_concurrency(numbered("f", "1", 1), 1, now);
  initialised(1);
  dispatcher->drop_outdated("f", [](const FunctionVersion& v) { return v.generation == 2; }, now);
  EXPECT_EQ(backend.stopped.at(0), std::pair(EnvironmentId{1}, StopReason::kReplaced));
  dispatcher->set_provisioned_concurrency(numbered("f", "1", 2), 1, now);
  ASSERT_EQ(backend.started.size(), 2U);
  dispatcher->set_provisioned_concurrency(numbered("f", "1", 3), 1, now);
  EXPECT_EQ(backend.stopped.at(1), std::pair(EnvironmentId{2}, StopReason::kReplaced));
  EXPECT_EQ(backend.started.size(), 3U);
  EXPECT_EQ(dispatcher->provisioned_status("f", "1").requested, 1U);
}

TEST_F(DispatcherTest, ProvisionedEnvironmentsWaitForCapacityThatIsInUse) {
  DispatcherOptions options;
  options.concurrency_max = 1;
  with(options);
  invoke(make_version("g"));
  initialised(1);
  auto waiting = invoke(make_version("g"));
  dispatcher->set_provisioned_concurrency(numbered("f", "1"), 1, now);
  EXPECT_EQ(backend.started.size(), 1U);
  answer_and_ready(1);
  ASSERT_EQ(backend.started.size(), 2U) << "what is promised goes first";
  EXPECT_EQ(backend.started[1].version->function_name, "f");
  EXPECT_TRUE(waiting->outcomes.empty());
}

TEST_F(DispatcherTest, DrainingEndsProvisionedEnvironmentsAndMakesNoMore) {
  dispatcher->set_provisioned_concurrency(numbered("f", "1"), 2, now);
  initialised(1);
  dispatcher->drain(now);
  EXPECT_EQ(backend.stopped.size(), 2U);
  EXPECT_EQ(backend.stopped.at(0), std::pair(EnvironmentId{1}, StopReason::kShutdown));
  gone(1);
  gone(2);
  dispatcher->set_provisioned_concurrency(numbered("f", "2"), 1, now);
  EXPECT_TRUE(dispatcher->finished());
  EXPECT_EQ(dispatcher->next_timer(), base::kNoDeadline);
  EXPECT_EQ(backend.started.size(), 2U);
}

TEST_F(DispatcherTest, TheCodeOfWhatIsPromisedStays) {
  DispatcherOptions options;
  options.concurrency_max = 1;
  with(options);
  invoke(make_version("g"));
  dispatcher->set_provisioned_concurrency(numbered("f", "7"), 1, now);
  bool known = false;
  dispatcher->each_version([&](const FunctionVersion& version) { known = known || version.version == "7"; });
  EXPECT_TRUE(known);
}

TEST(BilledDuration, RoundsUpToWholeMillisecondsAndIsNeverZero) {
  EXPECT_EQ(billed_duration(0ns, 0ns), 1ms);
  EXPECT_EQ(billed_duration(1000001ns, 0ns), 2ms);
  EXPECT_EQ(billed_duration(2ms, 3ms), 5ms);
}

// ---- several invocations in one environment

VersionPtr make_shared_version(const std::string& slots) {
  auto version = std::make_shared<FunctionVersion>(*make_version("f", 1, 3));
  version->config.environment = std::map<std::string, std::string>{{"AWS_LAMBDA_MAX_CONCURRENCY", slots}};
  return version;
}

TEST_F(DispatcherTest, AnEnvironmentTakesAsManyInvocationsAsTheFunctionAllows) {
  const VersionPtr version = make_shared_version("3");
  for (int i = 0; i < 3; ++i) invoke(version);
  EXPECT_EQ(backend.started.size(), 1U) << "what starts has room for all of them";
  initialised(1);
  ASSERT_EQ(backend.sent.size(), 3U);
  EXPECT_TRUE(backend.sent[0].first);
  EXPECT_FALSE(backend.sent[1].first);
  EXPECT_EQ(dispatcher->concurrency_of("f"), 1U);
  invoke(version);
  EXPECT_EQ(backend.started.size(), 2U);
  dispatcher->on_answered(1, backend.sent[1].run, {}, now);
  dispatcher->on_ready(1, backend.sent[1].run, now);
  EXPECT_EQ(backend.sent.back().id, 1U) << "a slot that frees up takes what waits";
}

TEST_F(DispatcherTest, TheFullestEnvironmentIsTakenFirstSoThatOthersBecomeIdle) {
  const VersionPtr version = make_shared_version("3");
  for (int i = 0; i < 6; ++i) invoke(version);
  initialised(1);
  initialised(2);
  ASSERT_EQ(backend.sent.size(), 6U);
  const auto end = [&](std::size_t sent) {
    dispatcher->on_answered(backend.sent[sent].id, backend.sent[sent].run, {}, now);
    dispatcher->on_ready(backend.sent[sent].id, backend.sent[sent].run, now);
  };
  end(0);  // two left in 1
  end(3);
  end(4);  // one left in 2
  invoke(version);
  EXPECT_EQ(backend.sent.back().id, 1U);
  end(5);
  EXPECT_EQ(dispatcher->counts().idle, 1U);
  advance(10ms);
  EXPECT_EQ(backend.frozen, std::vector<EnvironmentId>{2}) << "frozen only with nothing left in it";
}

TEST_F(DispatcherTest, ATimedOutInvocationIsAnsweredAloneAndItsEnvironmentEndsAfterTheOthers) {
  const VersionPtr version = make_shared_version("3");
  auto first = invoke(version);
  initialised(1);
  advance(1s);
  auto second = invoke(version);
  ASSERT_EQ(backend.sent.size(), 2U);
  advance(2s);
  ASSERT_EQ(backend.given_up, (std::vector<std::pair<EnvironmentId, RunId>>{{1, backend.sent[0].run}}));
  EXPECT_TRUE(backend.stopped.empty());
  Outcome told;
  told.log_tail = "Task timed out";
  dispatcher->on_answered(1, backend.sent[0].run, told, now);
  ASSERT_EQ(first->outcomes.size(), 1U);
  EXPECT_EQ(first->outcomes[0].error_type, "Sandbox.Timedout");
  EXPECT_EQ(first->outcomes[0].log_tail, "Task timed out");
  invoke(version);
  EXPECT_EQ(backend.started.size(), 2U) << "nothing new goes there";
  dispatcher->on_answered(1, backend.sent[1].run, {}, now);
  EXPECT_EQ(second->outcomes.at(0).kind, OutcomeKind::kSuccess);
  EXPECT_EQ(backend.stopped, (std::vector<std::pair<EnvironmentId, StopReason>>{{1, StopReason::kTimeout}}));
}

TEST_F(DispatcherTest, TheLastOfSeveralTimedOutInvocationsEndsTheEnvironment) {
  const VersionPtr version = make_shared_version("2");
  auto first = invoke(version);
  auto second = invoke(version);
  initialised(1);
  advance(3s);
  EXPECT_EQ(backend.given_up.size(), 1U);
  EXPECT_EQ(backend.stopped, (std::vector<std::pair<EnvironmentId, StopReason>>{{1, StopReason::kTimeout}}));
  advance(2s);  // the backend says nothing
  ASSERT_EQ(first->outcomes.size(), 1U);
  ASSERT_EQ(second->outcomes.size(), 1U);
  EXPECT_EQ(second->outcomes[0].error_type, "Sandbox.Timedout");
  dispatcher->on_gone(1, {}, now);
  dispatcher->drain(now);
  EXPECT_TRUE(dispatcher->finished());
}

TEST_F(DispatcherTest, AnEnvironmentThatDiesTellsEachOfItsInvocationsItsOwnOutcome) {
  const VersionPtr version = make_shared_version("2");
  auto first = invoke(version);
  auto second = invoke(version);
  initialised(1);
  std::vector<EndedRun> ended(2);
  for (std::size_t i = 0; i < 2; ++i) {
    ended[i].run = backend.sent[i].run;
    ended[i].outcome.kind = OutcomeKind::kFunctionError;
    ended[i].outcome.error_type = "Runtime.ExitError";
    ended[i].outcome.payload = std::to_string(i);
  }
  dispatcher->on_gone(1, ended, now);
  EXPECT_EQ(first->outcomes.at(0).payload, "0");
  EXPECT_EQ(second->outcomes.at(0).payload, "1");
}

// ---- places shared fairly

TEST_F(DispatcherTest, AFunctionWithManyCallsLeavesPlacesToOthersThatWait) {
  DispatcherOptions options;
  options.concurrency_max = 4;
  with(options);
  const VersionPtr flood = make_version("flood", 1, 30);
  for (int i = 0; i < 50; ++i) invoke(flood);
  for (EnvironmentId id = 1; id <= 4; ++id) initialised(id);
  const VersionPtr other = make_version("other", 1, 30);
  for (int i = 0; i < 10; ++i) invoke(other);
  ASSERT_EQ(backend.started.size(), 4U);
  answer_and_ready(1);
  EXPECT_EQ(dispatcher->concurrency_of("other"), 1U) << "the first place that is free goes to who has none";
  answer_and_ready(2);
  EXPECT_EQ(dispatcher->concurrency_of("other"), 2U);
  answer_and_ready(3);
  EXPECT_EQ(dispatcher->concurrency_of("other"), 2U) << "and then they have as many";
  EXPECT_EQ(dispatcher->concurrency_of("flood"), 2U);
}

TEST_F(DispatcherTest, AnEnvironmentThatYieldedTakesWorkAgainWhenNobodyWaitsForItsPlace) {
  DispatcherOptions options;
  options.concurrency_max = 2;
  options.queue_budget = 1s;
  with(options);
  const VersionPtr shared = make_shared_version("3");
  for (int i = 0; i < 6; ++i) invoke(shared);
  initialised(1);
  initialised(2);
  ASSERT_EQ(backend.sent.size(), 6U);
  auto other = invoke(make_version("other"));
  const auto back = [&](std::size_t sent) {
    dispatcher->on_answered(backend.sent[sent].id, backend.sent[sent].run, {}, now);
    dispatcher->on_ready(backend.sent[sent].id, backend.sent[sent].run, now);
  };
  back(0);
  auto waits = invoke(shared);
  EXPECT_EQ(backend.sent.size(), 6U) << "its place is owed";
  advance(1s);
  EXPECT_EQ(other->outcomes.size(), 1U) << "the other gave up";
  invoke(shared);
  back(1);
  EXPECT_EQ(backend.sent.size(), 7U);
}

TEST_F(DispatcherTest, WithOnePlaceFunctionsTakeTurns) {
  DispatcherOptions options;
  options.concurrency_max = 1;
  with(options);
  const VersionPtr f = make_version("f", 1, 30), g = make_version("g", 1, 30);
  for (int i = 0; i < 5; ++i) invoke(f);
  initialised(1);
  for (int i = 0; i < 3; ++i) invoke(g);
  std::string order;
  for (int i = 0; i < 6; ++i) {
    if (backend.sent.size() == order.size()) initialised(backend.started.back().id);
    order += backend.sent.back().invocation->version->function_name;
    answer_and_ready(backend.sent.back().id);
  }
  EXPECT_EQ(order, "fgfgfg");
}

TEST_F(DispatcherTest, AFunctionStartsOnlySoManyEnvironmentsInTenSeconds) {
  DispatcherOptions options;
  options.burst_starts = 5;
  options.queue_budget = 1s;
  with(options);
  const VersionPtr version = make_version("f", 1, 30);
  std::vector<std::shared_ptr<Sink>> sinks;
  for (int i = 0; i < 8; ++i) sinks.push_back(invoke(version));
  EXPECT_EQ(backend.started.size(), 5U);
  invoke(make_version("g"));
  EXPECT_EQ(backend.started.size(), 6U) << "each function has its own";
  advance(1s);
  EXPECT_EQ(sinks[7]->outcomes.at(0).throttle_reason, "FunctionInvocationRateLimitExceeded");
  for (int i = 0; i < 8; ++i) invoke(version);
  const std::size_t before = backend.started.size();
  advance(1s);
  EXPECT_EQ(backend.started.size(), before + 1) << "one more every two seconds";
}

// ---- versions that keep failing

TEST_F(DispatcherTest, AVersionThatKeepsFailingIsTriedNowAndThenOnly) {
  const VersionPtr version = make_version("f");
  DispatcherOptions options;
  options.circuit_breaker.failures_max = 4;
  with(options);
  for (int call = 0; call < 2; ++call) {
    auto sink = invoke(version);
    const EnvironmentId own = backend.started.back().id;
    dispatcher->on_init_failed(own, failure("Runtime.ImportModuleError"), now);
    InitFailure redone = failure("Runtime.ImportModuleError");
    redone.payload = R"({"errorType":"Runtime.ImportModuleError","errorMessage":"No module named 'x'"})";
    dispatcher->on_init_failed(backend.started.back().id, redone, now);
    EXPECT_EQ(sink->outcomes.at(0).error_type, "Runtime.ImportModuleError");
  }
  ASSERT_EQ(backend.started.size(), 4U);
  for (int call = 0; call < 1000; ++call) {
    auto sink = invoke(version);
    const Outcome& outcome = sink->outcomes.at(0);
    EXPECT_EQ(outcome.kind, OutcomeKind::kFunctionError);
    EXPECT_EQ(outcome.error_type, "Runtime.ImportModuleError");
    EXPECT_EQ(outcome.billed, 0ns);
    EXPECT_NE(outcome.payload.find("The next try is due in 1000 ms. The last failure: No module named 'x'"), std::string::npos)
        << outcome.payload;
  }
  EXPECT_EQ(backend.started.size(), 4U) << "however many calls come";
  std::size_t tries = 0;
  for (int second = 0; second < 120; ++second) {
    advance(1s);
    const std::size_t before = backend.started.size();
    auto tried = invoke(version);
    auto beside = invoke(version);
    EXPECT_LE(backend.started.size(), before + 1);
    EXPECT_EQ(beside->outcomes.size(), 1U) << "only one is tried with";
    if (backend.started.size() == before) continue;
    ++tries;
    dispatcher->on_init_failed(backend.started.back().id, failure("Runtime.ImportModuleError"), now);
    EXPECT_EQ(tried->outcomes.at(0).error_type, "Runtime.ImportModuleError") << "a try is one init";
  }
  EXPECT_EQ(tries, 7U) << "after 1, 2, 4, 8, 16, 30 and 30 s";
  advance(30s);
  auto good = invoke(version);
  initialised(backend.started.back().id);
  answer_and_ready(backend.started.back().id);
  EXPECT_EQ(good->outcomes.at(0).kind, OutcomeKind::kSuccess);
  const std::size_t before = backend.started.size();
  invoke(version);
  invoke(version);
  EXPECT_EQ(backend.started.size(), before + 1) << "one success closes the circuit";
}

TEST_F(DispatcherTest, AnInitCutAfterItsTenSecondsIsNoFailureYetItsRedoThatFailsIs) {
  DispatcherOptions options;
  options.circuit_breaker.failures_max = 2;
  with(options);
  const VersionPtr version = make_version("f", 1, 30);
  const auto cut = [&] {
    dispatcher->on_started(backend.started.back().id, now);
    advance(10s);
    ASSERT_EQ(backend.started.back().phase, InitPhase::kInInvocation);
  };
  for (int call = 0; call < 3; ++call) {
    auto sink = invoke(version);
    cut();
    initialised(backend.started.back().id, 5ms, 12s);
    answer(backend.started.back().id);
    gone(backend.started.back().id);
    EXPECT_EQ(sink->outcomes.at(0).kind, OutcomeKind::kSuccess);
  }
  for (int call = 0; call < 2; ++call) {
    auto sink = invoke(version, 15min);
    cut();
    EXPECT_TRUE(sink->outcomes.empty()) << "one failure does not open the circuit";
    advance(30s);
    gone(backend.started.back().id);
    EXPECT_EQ(sink->outcomes.at(0).error_type, "Sandbox.Timedout");
  }
  EXPECT_EQ(invoke(version)->outcomes.size(), 1U) << "two in a row do";
}

TEST_F(DispatcherTest, ATryWhileTheCircuitIsOpenThatIsCutIsRedone) {
  DispatcherOptions options;
  options.circuit_breaker.failures_max = 2;
  with(options);
  const VersionPtr version = make_version("f", 1, 30);
  invoke(version);
  dispatcher->on_init_failed(1, failure("Runtime.ExitError"), now);
  dispatcher->on_init_failed(2, failure("Runtime.ExitError"), now);
  advance(1s);
  auto tried = invoke(version);
  ASSERT_EQ(backend.started.size(), 3U);
  dispatcher->on_started(3, now);
  advance(10s);
  ASSERT_EQ(backend.started.size(), 4U);
  EXPECT_EQ(backend.started[3].phase, InitPhase::kInInvocation);
  EXPECT_EQ(backend.started[3].waiting->request_id, "r2");
  initialised(4, 5ms, 12s);
  answer_and_ready(4);
  EXPECT_EQ(tried->outcomes.at(0).kind, OutcomeKind::kSuccess);
  invoke(version);
  invoke(version);
  EXPECT_EQ(backend.started.size(), 5U) << "its success closed the circuit";
}

TEST_F(DispatcherTest, CrashesInARowOpenTheCircuitAndOneAnswerBetweenThemDoesNot) {
  DispatcherOptions options;
  options.circuit_breaker.failures_max = 3;
  with(options);
  const VersionPtr version = make_version("f");
  const auto crash = [&] {
    auto sink = invoke(version);
    const EnvironmentId id = backend.started.back().id;
    initialised(id);
    Outcome crashed;
    crashed.kind = OutcomeKind::kFunctionError;
    crashed.error_type = "Runtime.ExitError";
    gone(id, crashed);
    EXPECT_EQ(sink->outcomes.at(0).error_type, "Runtime.ExitError");
  };
  crash();
  crash();
  invoke(version);
  initialised(3);
  answer_and_ready(3);
  gone(3);
  crash();
  crash();
  const std::size_t before = backend.started.size();
  crash();
  EXPECT_EQ(backend.started.size(), before + 1);
  invoke(version);
  EXPECT_EQ(backend.started.size(), before + 1) << "three in a row";
  advance(2min);
  EXPECT_EQ(invoke(make_version("f", 2))->outcomes.size(), 0U) << "a new version is tried at once";
}

TEST_F(DispatcherTest, ACrashThatEndsSeveralRunsIsOneFailure) {
  DispatcherOptions options;
  options.circuit_breaker.failures_max = 3;
  with(options);
  const VersionPtr version = make_shared_version("3");
  const auto crash = [&] {
    for (int i = 0; i < 3; ++i) invoke(version);
    const EnvironmentId id = backend.started.back().id;
    initialised(id);
    std::vector<EndedRun> ended(3);
    for (std::size_t i = 0; i < 3; ++i) {
      ended[i].run = backend.sent[backend.sent.size() - 3 + i].run;
      ended[i].outcome.kind = OutcomeKind::kFunctionError;
      ended[i].outcome.error_type = "Runtime.ExitError";
    }
    dispatcher->on_gone(id, ended, now);
  };
  crash();
  crash();
  crash();
  EXPECT_EQ(backend.started.size(), 3U) << "two of them did not open the circuit";
  EXPECT_EQ(invoke(version)->outcomes.size(), 1U) << "the third did";
}

TEST_F(DispatcherTest, AnIdleEnvironmentThatDiesIsNotChosenAndCostsNoCall) {
  const VersionPtr version = make_version("f");
  invoke(version);
  initialised(1);
  answer_and_ready(1);
  gone(1);
  auto sink = invoke(version);
  EXPECT_EQ(backend.started.size(), 2U);
  initialised(2);
  answer(2);
  EXPECT_EQ(sink->outcomes.at(0).kind, OutcomeKind::kSuccess);
}

TEST_F(DispatcherTest, AnInvocationThatADyingEnvironmentNeverReceivedGoesToAnotherOnce) {
  const VersionPtr version = make_version("f");
  invoke(version);
  initialised(1);
  answer_and_ready(1);
  auto sink = invoke(version);
  ASSERT_EQ(backend.sent.size(), 2U);
  Outcome died;
  died.kind = OutcomeKind::kFunctionError;
  died.error_type = "Runtime.ExitError";
  dispatcher->on_gone(1, {{.run = backend.sent[1].run, .outcome = died, .received = false}}, now);
  EXPECT_TRUE(sink->outcomes.empty());
  ASSERT_EQ(backend.started.size(), 2U);
  initialised(2);
  ASSERT_EQ(backend.sent.back().invocation->request_id, "r2");
  dispatcher->on_gone(2, {{.run = backend.sent.back().run, .outcome = died, .received = false}}, now);
  ASSERT_EQ(sink->outcomes.size(), 1U) << "not for ever";
  EXPECT_EQ(sink->outcomes[0].error_type, "Runtime.ExitError");
}

TEST_F(DispatcherTest, AnEnvironmentThatIsAboutToEndGetsNothingMoreInItsOtherSlots) {
  const VersionPtr version = make_shared_version("3");
  auto first = invoke(version);
  initialised(1);
  auto second = invoke(version);
  ASSERT_EQ(backend.sent.size(), 2U);
  dispatcher->on_leaving(1, now);
  auto third = invoke(version);
  ASSERT_EQ(backend.sent.size(), 2U) << "there is a free slot, which will not be served";
  ASSERT_EQ(backend.started.size(), 2U) << "so another environment is made";
  dispatcher->on_answered(1, backend.sent[0].run, {}, now);
  EXPECT_EQ(first->outcomes.size(), 1U) << "what runs may be answered";
  initialised(2);
  EXPECT_EQ(backend.sent.back().id, 2U);
  Outcome died;
  died.kind = OutcomeKind::kFunctionError;
  dispatcher->on_gone(1, {{.run = backend.sent[1].run, .outcome = died}}, now);
  EXPECT_EQ(second->outcomes.size(), 1U);
  answer(2);
  EXPECT_EQ(third->outcomes.at(0).kind, OutcomeKind::kSuccess);
}

TEST_F(DispatcherTest, DrainingEndsStartsThatNobodyWaitsForAndDoesNotWaitForTheirEnd) {
  const VersionPtr version = make_version("f");
  auto first = invoke(version);
  auto second = invoke(version);
  initialised(1);
  answer_and_ready(1);  // took the second call, too, for which another environment is on its way
  ASSERT_EQ(backend.started.size(), 2U);
  dispatcher->drain(now);
  EXPECT_EQ(backend.stopped, (std::vector<std::pair<EnvironmentId, StopReason>>{{2, StopReason::kShutdown}}));
  EXPECT_FALSE(dispatcher->quiet()) << "the second call runs";
  answer_and_ready(1);
  EXPECT_EQ(second->outcomes.at(0).kind, OutcomeKind::kSuccess);
  EXPECT_EQ(backend.stopped.size(), 2U);
  EXPECT_TRUE(dispatcher->quiet());
  EXPECT_FALSE(dispatcher->finished());
}

TEST_F(DispatcherTest, DrainingLeavesTheStartsThatWaitingCallsNeed) {
  const VersionPtr version = make_version("f");
  auto waiting = invoke(version);
  dispatcher->drain(now);
  EXPECT_TRUE(backend.stopped.empty());
  initialised(1);
  answer_and_ready(1);
  EXPECT_EQ(waiting->outcomes.at(0).kind, OutcomeKind::kSuccess);
  EXPECT_TRUE(dispatcher->quiet());
}

TEST_F(DispatcherTest, ARedoneInitIsCountedOnForItsOtherSlots) {
  const VersionPtr version = make_shared_version("3");
  for (int i = 0; i < 3; ++i) invoke(version);
  ASSERT_EQ(backend.started.size(), 1U);
  InitFailure failure;
  failure.error_type = "Runtime.ExitError";
  dispatcher->on_init_failed(1, failure, now);
  gone(1);
  EXPECT_EQ(backend.started.size(), 2U) << "one environment is made again, in the time of the first call, for all three";
  initialised(2);
  EXPECT_EQ(backend.sent.size(), 3U);
  invoke(version);
  EXPECT_EQ(backend.started.size(), 3U);
}

// ---- idle memory

TEST_F(DispatcherTest, BeyondTheBudgetOfIdleMemoryTheLeastDearEnvironmentEnds) {
  DispatcherOptions options;
  options.idle_memory_max = 300ULL << 20U;  // two of 128 MB
  with(options);
  const VersionPtr f = make_version("f"), g = make_version("g"), h = make_version("h");
  for (const VersionPtr& version : {f, g, h}) {
    invoke(version);
    initialised(backend.started.back().id);
  }
  answer_and_ready(1);
  for (int i = 0; i < 5; ++i) {  // g is called more often
    answer_and_ready(2);
    invoke(g);
  }
  answer_and_ready(2);
  answer_and_ready(3);
  advance(50ms);
  EXPECT_EQ(backend.stopped, (std::vector<std::pair<EnvironmentId, StopReason>>{{1, StopReason::kIdle}}));
  EXPECT_LE(dispatcher->counts().idle_bytes, options.idle_memory_max);
}

TEST_F(DispatcherTest, WhenMemoryRunsShortIdleEnvironmentsEndUntilEnoughIsFree) {
  const VersionPtr version = make_version("f");
  for (int i = 0; i < 3; ++i) invoke(version);
  for (EnvironmentId id = 1; id <= 3; ++id) initialised(id);
  Outcome outcome;
  outcome.memory_peak = 40ULL << 20U;
  for (EnvironmentId id = 1; id <= 3; ++id) {
    dispatcher->on_answered(id, backend.last_run(id), outcome, now);
    ready(id);
  }
  EXPECT_EQ(dispatcher->counts().idle_bytes, 120ULL << 20U) << "as measured";
  EXPECT_EQ(dispatcher->evict_idle(50ULL << 20U, now), 80ULL << 20U);
  EXPECT_EQ(backend.stopped.size(), 2U);
  EXPECT_EQ(dispatcher->evict_idle(1ULL << 40U, now), 40ULL << 20U);
  EXPECT_EQ(dispatcher->counts().idle, 0U);
}

TEST_F(DispatcherTest, BeforeACallThatComesEveryTwentyMinutesAnEnvironmentIsMade) {
  DispatcherOptions options;
  options.keep_alive = std::make_shared<LearnedKeepAlive>(LearnedKeepAlive::Options{});
  with(options);
  const VersionPtr version = make_version("f");
  const auto call = [&] {
    auto sink = invoke(version);
    if (backend.sent.empty() || backend.sent.back().invocation->request_id != "r" + std::to_string(requests))
      initialised(backend.started.back().id);
    const EnvironmentId id = backend.sent.back().id;
    answer_and_ready(id);
    return sink->outcomes.at(0).cold_start;
  };
  EXPECT_TRUE(call());
  int cold = 0;
  for (int i = 0; i < 24; ++i) {
    const std::size_t known = backend.started.size();
    advance(20min - 30s);
    if (backend.started.size() > known) initialised(backend.started.back().id);
    advance(30s);
    for (const auto& [id, reason] : std::exchange(backend.stopped, {})) gone(id);
    cold += call() ? 1 : 0;
  }
  EXPECT_LE(cold, 6) << "until it is known";
  EXPECT_GE(dispatcher->counts().started_ahead, 15U);
}

}  // namespace
}  // namespace mayfly::engine
