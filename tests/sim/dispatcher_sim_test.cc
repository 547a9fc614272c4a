// Drives the shipped dispatcher through random lives on a virtual clock: arrivals, failing inits, crashes, time-outs,
// replaced versions, reserved and provisioned concurrency that come and go, drains. Every event is followed by a check of the invariants. A
// failure prints its seed; MAYFLY_SIM_SEED=n replays it and MAYFLY_SIM_SEEDS=n sets how many run.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <deque>
#include <map>
#include <optional>
#include <queue>
#include <random>
#include <set>

#include "engine/dispatcher.h"

namespace mayfly::engine {
namespace {

using namespace std::chrono_literals;
using base::Duration;
using base::TimePoint;

class World;

struct SimSink final : ResponseSink {
  explicit SimSink(World& w, std::string id) : world(w), request(std::move(id)) {}
  void on_stream_begin(const std::string&) override {}
  void on_stream_piece(std::string, std::function<void(bool)>) override {}
  void on_outcome(Outcome outcome) override;
  World& world;
  std::string request;
};

class World final : public EnvironmentBackend, public InvocationObserver {
 public:
  explicit World(std::uint64_t seed) : random_(seed) {
    options_.concurrency_max = static_cast<std::uint32_t>(1 + pick(6));
    options_.environments_max = options_.concurrency_max + static_cast<std::uint32_t>(pick(4));
    options_.queue_max_per_function = static_cast<std::uint32_t>(1 + pick(12));
    options_.idle_timeout = Duration(1ms * (1 + pick(3000)));
    options_.queue_budget = pick(5) == 0 ? Duration(0) : Duration(1ms * (1 + pick(4000)));
    fault_percent_ = pick(3) * 15;
    careful_ = pick(4) != 0;
    for (std::uint32_t& slots : slots_) slots = pick(2) == 0 ? 1 : static_cast<std::uint32_t>(1 + pick(4));
    options_.burst_starts = pick(3) == 0 ? static_cast<std::uint32_t>(1 + pick(20)) : 1000;
    options_.circuit_breaker.failures_max = static_cast<std::uint32_t>(2 + pick(10));
    if (pick(2) == 0) options_.idle_memory_max = (pick(4) * 128) << 20U;
    if (pick(2) == 0) options_.keep_alive = std::make_shared<LearnedKeepAlive>(LearnedKeepAlive::Options{.gaps_min = 1});
    options_.provision_starts_max = static_cast<std::uint32_t>(1 + pick(4));
    dispatcher_ = std::make_unique<Dispatcher>(options_, *this, *this);
  }

  void run() {
    const std::size_t calls = 20 + pick(60);
    for (std::size_t i = 0; i < calls; ++i) after(Duration(1ms * pick(20'000)), [this] { arrive(); });
    for (std::size_t i = pick(4); i > 0; --i) after(Duration(1ms * pick(20'000)), [this] { replace(); });
    for (std::size_t i = pick(2) * pick(12); i > 0; --i) after(Duration(1ms * pick(20'000)), [this] { change_limits(); });
    if (pick(2) == 0) after(Duration(1ms * (10'000 + pick(10'000))), [this] { drain(); });
    drive(TimePoint::max());
    if (!drained_) check_provisioned();
    if (!drained_) drain();
    drive(TimePoint::max());
    EXPECT_TRUE(dispatcher_->finished()) << "something still runs or waits";
    for (const auto& [request, ended] : ended_) EXPECT_EQ(ended, 1) << request;
    EXPECT_EQ(observed_, ended_.size());
  }

  void start(StartOrder order) override {
    ASSERT_EQ(order.phase == InitPhase::kInInvocation, order.waiting != nullptr);
    Env& env = environments_[order.id];
    env.version = order.version;
    env.bound = order.waiting;
    env.bound_run = order.run;
    env.provisioned = order.initialization == Initialization::kProvisioned;
    if (env.provisioned) EXPECT_FALSE(drained_);
    if (!env.provisioned && order.phase == InitPhase::kOwn) check_start_rate(number_of(*env.version));
    check_bounds(env);
    const EnvironmentId id = order.id;
    after(some_time(), [this, id] {
      if (alive(id)) dispatcher_->on_started(id, now_);
    });
    const std::size_t dice = pick(100);
    if (dice < fault_percent_) return after(some_time(), [this, id] { init_fails(id); });
    if (dice < fault_percent_ + 3) return;  // hangs: the init timeout must end it
    after(some_time() + 10ms, [this, id] {
      if (!alive(id)) return;
      environments_[id].initialised = true;
      dispatcher_->on_initialised(id, 1ms, 2ms, now_);
    });
  }

  std::uint32_t runs_at_once(const FunctionVersion& version) const override { return slots_.at(number_of(version)); }

  void send(RunOrder order) override {
    const EnvironmentId id = order.environment;
    const RunId run = order.run;
    const InvocationPtr& invocation = order.invocation;
    Env& env = environments_.at(id);
    EXPECT_FALSE(env.stopped);
    EXPECT_TRUE(env.initialised);
    EXPECT_FALSE(env.gave_up) << "a run follows one that timed out";
    EXPECT_LT(env.runs.size(), slots_.at(number_of(*env.version))) << "more invocations at once than there are slots";
    EXPECT_EQ(env.version->generation, invocation->version->generation) << "used across generations";
    EXPECT_EQ(env.version->function_name, invocation->version->function_name);
    EXPECT_LE(order.run_deadline, invocation->call_deadline);
    EXPECT_GT(order.run_deadline, now_);
    EXPECT_EQ(ended_.at(invocation->request_id), 0) << "ran after its outcome";
    EXPECT_TRUE(ran_.insert(invocation->request_id).second || returned_.erase(invocation->request_id) == 1) << "ran twice";
    if (env.bound) {
      EXPECT_EQ(env.bound, invocation);
      EXPECT_EQ(env.bound_run, run);
    } else {
      if (!was_returned_.contains(invocation->request_id)) check_order(*invocation);
      check_bounds(env);
    }
    check_fairness(env);
    env.bound = nullptr;
    EXPECT_TRUE(env.runs.emplace(run, false).second) << "a run's number was used before";
    env.requests[run] = invocation->request_id;
    env.frozen = false;
    env.used = true;
    const std::size_t dice = pick(100);
    if (dice < fault_percent_ / 2) return after(some_time(), [this, id, run] { crash(id, run); });
    if (dice < fault_percent_ / 2 + 4) return;  // hangs: the run deadline must end it
    after(some_time(), [this, id, run] { answer(id, run); });
  }

  void give_up(EnvironmentId id, RunId run) override {
    Env& env = environments_.at(id);
    EXPECT_FALSE(env.stopped);
    EXPECT_TRUE(env.runs.contains(run));
    EXPECT_GT(env.runs.size(), 1U);
    env.gave_up = true;
    env.given_up.insert(run);
    if (pick(5) == 0) return;  // says no more of it
    after(some_time(), [this, id, run] {
      if (alive(id)) dispatcher_->on_answered(id, run, {}, now_);
    });
  }

  void freeze(EnvironmentId id) override {
    Env& env = environments_.at(id);
    EXPECT_TRUE(env.runs.empty());
    EXPECT_FALSE(env.frozen);
    env.frozen = true;
  }

  void stop(EnvironmentId id, StopReason reason) override {
    Env& env = environments_.at(id);
    EXPECT_FALSE(env.stopped) << "stopped twice";
    if (env.provisioned) EXPECT_NE(reason, StopReason::kIdle);
    env.stopped = true;
    after(Duration(1us * pick(100'000)), [this, id] { gone(id); });
  }

  void on_invocation(const InvocationRecord& record) override {
    ++observed_;
    ++ended_of_[static_cast<std::size_t>(record.function_name[1] - '0')];
  }

  void ended(const std::string& request, const Outcome& outcome) {
    ++ended_.at(request);
    if (outcome.kind == OutcomeKind::kRefused) {
      if (arriving_) check_throttle(function_of_.at(request), outcome.throttle_reason);
      EXPECT_TRUE(outcome.error.has_value());
      EXPECT_TRUE(!ran_.contains(request) || was_returned_.contains(request)) << "refused after it ran";
    }
    if (outcome.error_type == "Sandbox.Timedout" && ran_.contains(request) && !was_returned_.contains(request))
      EXPECT_GT(outcome.timings.run, 0ns);
  }

 private:
  struct Env {
    VersionPtr version;
    InvocationPtr bound;
    bool provisioned = false;
    RunId bound_run = 0;
    bool initialised = false, used = false, frozen = false, stopped = false, gave_up = false;
    std::map<RunId, bool> runs;  // whether it is answered
    std::set<RunId> given_up;
    std::map<RunId, std::string> requests;
  };
  struct Event {
    TimePoint at;
    std::uint64_t sequence;
    std::function<void()> action;
    bool operator<(const Event& other) const { return std::tie(other.at, other.sequence) < std::tie(at, sequence); }
  };

  std::size_t pick(std::size_t below) { return std::uniform_int_distribution<std::size_t>(0, below - 1)(random_); }
  Duration some_time() {
    switch (pick(4)) {
      case 0:
        return Duration(0);
      case 1:
        return Duration(1us * pick(1000));
      case 2:
        return Duration(1ms * pick(100));
      default:
        return Duration(1ms * pick(1500));
    }
  }
  void after(Duration by, std::function<void()> action) { events_.push({now_ + by, ++sequence_, std::move(action)}); }
  bool alive(EnvironmentId id) {
    const auto it = environments_.find(id);
    return it != environments_.end() && !it->second.stopped;
  }

  void drive(TimePoint until) {
    while (true) {
      const TimePoint timer = dispatcher_->next_timer();
      const TimePoint event = events_.empty() ? base::kNoDeadline : events_.top().at;
      const TimePoint next = std::min(timer, event);
      if (next == base::kNoDeadline || next > until || ::testing::Test::HasFailure()) return;
      now_ = std::max(now_, next);
      if (timer <= event) {
        dispatcher_->on_timer(now_);
        EXPECT_GT(dispatcher_->next_timer(), now_) << "a timer stays due";
      } else {
        auto action = events_.top().action;
        events_.pop();
        action();
      }
      check();
    }
  }

  void check() {
    const Dispatcher::Counts counts = dispatcher_->counts();
    EXPECT_LE(counts.busy + counts.starting, options_.concurrency_max);
    EXPECT_LE(counts.busy + counts.starting + counts.idle, options_.environments_max);
    std::size_t running = 0, live = 0;
    for (const auto& [id, env] : environments_) {
      running += !env.runs.empty() && !env.stopped ? 1U : 0U;
      live += env.stopped ? 0U : 1U;
    }
    EXPECT_LE(running, counts.busy);
    EXPECT_EQ(live, counts.busy + counts.starting + counts.idle);
    const std::uint32_t by_function =
        dispatcher_->concurrency_of("f0") + dispatcher_->concurrency_of("f1") + dispatcher_->concurrency_of("f2");
    EXPECT_EQ(by_function, counts.busy + counts.starting);
    check_nothing_waits_in_vain();
    check_idle_memory();
  }

  // Frozen environments on demand hold no more than the budget allows; those that just became idle are not counted yet.
  void check_idle_memory() {
    std::uint64_t frozen = 0;
    for (const auto& [id, env] : environments_) frozen += env.frozen && !env.stopped && !env.provisioned ? 128ULL << 20U : 0;
    EXPECT_LE(frozen, options_.idle_memory_max);
  }

  // No function starts more than a burst at once and as many in ten seconds again.
  void check_start_rate(std::size_t function) {
    std::deque<TimePoint>& starts = starts_[function];
    starts.push_back(now_);
    while (starts.front() <= now_ - 10s) starts.pop_front();
    EXPECT_LT(starts.size(), 2 * options_.burst_starts + 1) << "faster than the burst allows";
  }

  // An environment that goes on with a further call of its function leaves nobody waiting who has two places fewer.
  void check_fairness(const Env& env) {
    const std::size_t function = number_of(*env.version);
    if (env.provisioned || limits_[function].reserved || !env.used || !env.runs.empty() || arriving_) return;
    std::array<std::size_t, kFunctions> coming{}, waiting{};
    count_waiting(coming, waiting);
    for (std::size_t i = 0; i < kFunctions; ++i) {
      if (i == function || limits_[i].reserved || waiting[i] <= coming[i] || slots_[function] > 1) continue;
      if (starts_[i].size() >= options_.burst_starts) continue;
      EXPECT_GE(running_of(i) + 1, running_of(function)) << "f" << function << " goes on though f" << i << " waits with fewer places";
    }
  }

  // ---- concurrency limits: f0, f1, f2 share concurrency_max

  static constexpr std::size_t kFunctions = 3;
  struct Limits {
    std::optional<std::uint32_t> reserved;
    std::uint32_t provisioned = 0;
    [[nodiscard]] std::uint32_t taken() const { return reserved ? std::max(*reserved, provisioned) : provisioned; }
  };

  [[nodiscard]] std::uint32_t running_of(std::size_t function) const { return dispatcher_->concurrency_of("f" + std::to_string(function)); }

  // Whether the limits as they are fit: reservations hold what is provisioned, and the account holds everything.
  [[nodiscard]] bool limits_fit() const {
    std::uint32_t sum = 0;
    for (const Limits& each : limits_) {
      if (each.reserved && each.provisioned > *each.reserved) return false;
      sum += each.taken();
    }
    return sum <= options_.concurrency_max;
  }

  void change_limits() {
    if (drained_) return;
    const std::size_t function = pick(kFunctions);
    const Limits before = limits_[function];
    Limits& wanted = limits_[function];
    const auto some = [this] { return static_cast<std::uint32_t>(pick(options_.concurrency_max + 1)); };
    const bool reserves = pick(2) == 0;
    if (reserves) {
      wanted.reserved = pick(3) == 0 ? std::nullopt : std::optional(some());
    } else {
      wanted.provisioned = pick(3) == 0 ? 0 : some();
    }
    if (careful_ && !limits_fit()) {  // as the API does
      wanted = before;
      return;
    }
    if (reserves) {
      dispatcher_->set_reserved_concurrency("f" + std::to_string(function), wanted.reserved, now_);
    } else {
      dispatcher_->set_provisioned_concurrency(version(function), wanted.provisioned, now_);
    }
  }

  // An environment that just became active for an invocation, or is being made.
  void check_bounds(const Env& env) {
    const std::size_t function = number_of(*env.version);
    const Limits& own = limits_[function];
    if (own.reserved) {
      EXPECT_LE(running_of(function), *own.reserved) << "over the reservation";
      return;
    }
    if (env.provisioned) return;
    std::uint32_t kept = 0;
    for (std::size_t i = 0; i < kFunctions; ++i)
      kept += limits_[i].reserved ? std::max(*limits_[i].reserved, running_of(i)) : running_of(i);
    EXPECT_LE(kept, options_.concurrency_max) << "what is reserved for others was used";
  }

  void check_throttle(std::size_t function, const std::string& reason) {
    const Limits& own = limits_[function];
    if (reason != "ReservedFunctionConcurrentInvocationLimitExceeded") return;
    ASSERT_TRUE(own.reserved.has_value());
    EXPECT_GE(running_of(function) + own.provisioned, *own.reserved) << "refused below the reservation";
  }

  // Invocations that wait, by function, and how many of them something is on its way for.
  void count_waiting(std::array<std::size_t, kFunctions>& coming, std::array<std::size_t, kFunctions>& waiting) const {
    for (std::size_t i = 0; i < kFunctions; ++i) waiting[i] = arrived_of_[i] - ended_of_[i];
    for (const auto& [id, env] : environments_) {
      const std::size_t function = number_of(*env.version);
      const auto answered = static_cast<std::size_t>(std::ranges::count_if(env.runs, [](const auto& run) { return run.second; }));
      const std::size_t running = env.bound ? 1 : env.runs.size() - answered;
      waiting[function] -= std::min(running, waiting[function]);
      const std::size_t free_soon = slots_[function] - (env.bound ? 1 : 0);  // one is taken by whoever pays for a redone init
      if (!env.stopped && !(env.bound && env.initialised)) coming[function] += env.initialised ? answered : free_soon;
    }
  }

  // An invocation for which no environment is on its way waits only where the limits are reached.
  void check_nothing_waits_in_vain() {
    std::array<std::size_t, kFunctions> coming{}, waiting{};
    count_waiting(coming, waiting);
    std::uint32_t used = 0, committed = 0;
    for (std::size_t i = 0; i < kFunctions; ++i) {
      used += running_of(i) + limits_[i].provisioned;
      const std::uint32_t own = running_of(i) + limits_[i].provisioned;
      committed += limits_[i].reserved ? std::max(*limits_[i].reserved, own) : own;
    }
    for (std::size_t i = 0; i < kFunctions; ++i) {
      if (waiting[i] <= coming[i]) continue;
      const Limits& own = limits_[i];
      const bool reached = own.reserved ? running_of(i) + own.provisioned >= *own.reserved || used >= options_.concurrency_max
                                        : committed >= options_.concurrency_max;
      const bool too_fast = options_.burst_starts < 1000 && !starts_[i].empty();
      EXPECT_TRUE(reached || too_fast) << "f" << i << " waits below its limits";
    }
  }

  // Nothing happens any more: what is provisioned is there.
  void check_provisioned() {
    if (::testing::Test::HasFailure() || !limits_fit()) return;
    for (const auto& [id, env] : environments_) {
      if (env.provisioned && !env.stopped) EXPECT_EQ(env.version->generation, generation_);
    }
    for (std::size_t i = 0; i < kFunctions; ++i) {
      const ProvisionedStatus status = dispatcher_->provisioned_status("f" + std::to_string(i), std::string(kLatest));
      EXPECT_EQ(status, (ProvisionedStatus{limits_[i].provisioned, limits_[i].provisioned, limits_[i].provisioned, ""}));
      EXPECT_EQ(running_of(i), 0U);
    }
  }

  // Without a failed init, invocations of one version are handed over in the order they came.
  void check_order(const Invocation& invocation) {
    const std::uint64_t number = std::stoull(invocation.request_id);
    std::uint64_t& last = last_handed_[invocation.version->function_name + std::to_string(invocation.version->generation)];
    EXPECT_GT(number, last) << "overtaken";
    last = number;
  }

  static std::size_t number_of(const FunctionVersion& version) { return static_cast<std::size_t>(version.function_name[1] - '0'); }
  VersionPtr version(std::size_t function) {
    auto made = std::make_shared<FunctionVersion>();
    made->function_name = "f" + std::to_string(function);
    made->version = std::string(kLatest);
    made->generation = generation_;
    made->config.timeout_s = 1 + static_cast<std::uint32_t>(function);
    return made;
  }

  void arrive() {
    const std::size_t burst = 1 + (pick(8) == 0 ? pick(10) : 0);
    const std::size_t function = pick(3);
    for (std::size_t i = 0; i < burst; ++i) {
      auto invocation = std::make_shared<Invocation>();
      invocation->request_id = std::to_string(++requests_);
      invocation->version = version(function);
      invocation->call_deadline = now_ + Duration(1ms * (1 + pick(30'000)));
      invocation->sink = std::make_shared<SimSink>(*this, invocation->request_id);
      ended_[invocation->request_id] = 0;
      function_of_[invocation->request_id] = function;
      ++arrived_of_[function];
      arriving_ = true;
      dispatcher_->invoke(std::move(invocation), now_);
      arriving_ = false;
    }
  }

  void replace() {
    ++generation_;
    for (const char* name : {"f0", "f1", "f2"}) {
      dispatcher_->drop_outdated(name, [this](const FunctionVersion& v) { return v.generation == generation_; }, now_);
    }
    for (std::size_t i = 0; i < kFunctions; ++i) {
      if (limits_[i].provisioned > 0) dispatcher_->set_provisioned_concurrency(version(i), limits_[i].provisioned, now_);
    }
  }

  void drain() {
    drained_ = true;
    for (Limits& each : limits_) each.provisioned = 0;
    dispatcher_->drain(now_);
  }

  void init_fails(EnvironmentId id) {
    if (!alive(id)) return;
    InitFailure failure;
    failure.error_type = "Runtime.ExitError";
    failure.platform_fault = pick(4) == 0;
    environments_[id].stopped = true;
    if (pick(5) == 0) return gone(id);  // without the word before
    after(Duration(1us * pick(50'000)), [this, id] { gone(id); });
    dispatcher_->on_init_failed(id, failure, now_);
  }

  void crash(EnvironmentId id, RunId run) {
    if (!alive(id) || !environments_[id].runs.contains(run)) return;
    environments_[id].stopped = true;
    gone(id);
  }

  void gone(EnvironmentId id) {
    std::vector<EndedRun> ended;
    for (const auto& [run, answered] : environments_[id].runs) {
      EndedRun& each = ended.emplace_back();
      each.run = run;
      each.outcome.kind = OutcomeKind::kFunctionError;
      each.outcome.error_type = "Runtime.ExitError";
      if (!answered && !environments_[id].given_up.contains(run) && pick(4) == 0) {
        each.received = false;
        const std::string& request = environments_[id].requests.at(run);
        if (was_returned_.insert(request).second) returned_.insert(request);
      }
    }
    environments_.erase(id);
    dispatcher_->on_gone(id, std::move(ended), now_);
  }

  void answer(EnvironmentId id, RunId run) {
    if (!alive(id) || environments_[id].given_up.contains(run)) return;
    environments_[id].runs.at(run) = true;
    dispatcher_->on_answered(id, run, {}, now_);
    if (pick(100) < fault_percent_) return;  // never asks again
    after(pick(2) == 0 ? Duration(0) : some_time(), [this, id, run] {
      if (!alive(id)) return;
      environments_[id].runs.erase(run);
      dispatcher_->on_ready(id, run, now_);
    });
  }

  std::mt19937_64 random_;
  DispatcherOptions options_;
  std::size_t fault_percent_ = 0;
  std::unique_ptr<Dispatcher> dispatcher_;
  TimePoint now_{1h};
  std::priority_queue<Event> events_;
  std::uint64_t sequence_ = 0, generation_ = 1, requests_ = 0;
  std::map<EnvironmentId, Env> environments_;
  std::map<std::string, int> ended_;
  std::set<std::string> ran_;
  std::map<std::string, std::uint64_t> last_handed_;
  std::map<std::string, std::size_t> function_of_;
  std::array<std::size_t, kFunctions> arrived_of_{}, ended_of_{};
  std::array<Limits, kFunctions> limits_{};
  std::array<std::uint32_t, kFunctions> slots_{};
  std::array<std::deque<TimePoint>, kFunctions> starts_{};  // of the last ten seconds
  std::set<std::string> returned_, was_returned_;
  bool careful_ = true, arriving_ = false;
  std::size_t observed_ = 0;
  bool drained_ = false;
};

void SimSink::on_outcome(Outcome outcome) { world.ended(request, outcome); }

std::uint64_t number_from(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(DispatcherSimulation, KeepsItsPromisesInThousandsOfRandomLives) {
  const std::uint64_t only = number_from("MAYFLY_SIM_SEED", 0);
  const std::uint64_t seeds = only != 0 ? only : number_from("MAYFLY_SIM_SEEDS", 2000);
  for (std::uint64_t seed = only != 0 ? only : 1; seed <= seeds; ++seed) {
    SCOPED_TRACE("MAYFLY_SIM_SEED=" + std::to_string(seed));
    World world(seed);
    world.run();
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace mayfly::engine
