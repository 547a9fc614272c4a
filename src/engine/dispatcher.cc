#include "engine/dispatcher.h"

#include <algorithm>
#include <cstdio>
#include <list>
#include <map>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "base/json.h"
#include "engine/internal/capacity.h"
#include "engine/internal/timer_set.h"

namespace mayfly::engine {
namespace {

using base::Duration;
using base::Error;
using base::ErrorCode;
using base::TimePoint;

enum class State : std::uint8_t {
  kStarting,  // being made or initialising
  kIdle,      // the runtime waits for an invocation
  kBusy,      // invocations run, or are answered and the runtime has not come back yet
  kStopping,  // told to end, or ended badly; on_gone is awaited
};

bool is_active(State state) { return state == State::kStarting || state == State::kBusy; }

constexpr std::string_view kAccountLimit = "ConcurrentInvocationLimitExceeded";
constexpr std::string_view kReservedLimit = "ReservedFunctionConcurrentInvocationLimitExceeded";

struct Waiting {
  std::uint64_t sequence = 0;
  InvocationPtr invocation;
  TimePoint since;
  bool extended = false;  // its queue budget is spent, a start is under way for it
  TimePoint timer = base::kNoDeadline;
};

struct Environment;

struct Pool {
  std::string key;
  std::uint64_t number = 0;
  VersionPtr version;
  FunctionUse* function = nullptr;
  std::uint32_t slots = 1;                        // invocations that one environment takes at once
  std::list<Waiting> queue;                       // oldest first
  std::vector<Environment*> idle;                 // on demand; the last one was used last
  std::vector<Environment*> ready;                // provisioned and idle, likewise
  std::vector<std::vector<Environment*>> partly;  // busy ones that take more, by how many they have; empty where slots is 1
  std::uint32_t starting = 0;                     // own inits on demand under way: each will take waiting invocations, one a slot
  std::uint32_t expected = 0;                     // slots whose invocation is answered and which are due back within the grace
  std::uint32_t environments = 0;                 // of every state
  bool outdated = false;

  std::uint32_t target = 0;                // provisioned environments wanted
  std::uint32_t provisioned = 0;           // that live
  std::uint32_t provisioned_starting = 0;  // of these
  std::uint32_t held = 0;                  // its part of the function's
  std::string failure;                     // why the last one could not be made; "" once one was ready again
  std::uint32_t failures = 0;              // in a row
  TimePoint retry_at{};
  TimePoint timer = base::kNoDeadline;

  [[nodiscard]] bool lacks() const { return provisioned < target; }
};

// An invocation in an environment, from its hand-over until the runtime asks for the next one in its place.
struct Run {
  RunId id = 0;
  InvocationPtr invocation;  // null once its outcome is known
  TimePoint since;           // when the invocation came to the dispatcher
  TimePoint handed;          // when its run began
  TimePoint deadline = base::kNoDeadline;
  TimePoint due = base::kNoDeadline;  // when the dispatcher looks at it again
  bool cold = false;                  // the first of its environment
  bool bills_init = false;            // and the environment's own init is on its bill
  bool expected = false;              // answered and due back within the grace
  bool timed_out = false;             // and not answered yet

  [[nodiscard]] bool answered() const { return invocation == nullptr; }
};

struct Environment {
  EnvironmentId id = 0;
  Pool* pool = nullptr;
  State state = State::kStarting;
  InitPhase phase = InitPhase::kOwn;
  std::vector<Run> runs;  // in no order; also the one that waits for an init in its own time
  RunId next_run = 1;
  std::size_t place = kNowhere;  // in its pool's `partly`
  Duration start{0}, init{0};
  bool provisioned = false;
  bool retiring = false;  // was provisioned, ends with what runs
  bool closed = false;    // takes nothing more: a run in it timed out or did not come back; ends for `close_reason` when the others have
  StopReason close_reason = StopReason::kTimeout;
  bool started = false;  // the sandbox runs
  bool proven = false;   // an invocation was handed over before
  bool served = false;   // the same, or its init is nobody's: it was provisioned
  bool frozen = false;
  TimePoint idle_since;
  TimePoint timer = base::kNoDeadline;

  static constexpr std::size_t kNowhere = SIZE_MAX;
  [[nodiscard]] bool somebody_waits() const {
    return std::ranges::any_of(runs, [](const Run& run) { return !run.answered(); });
  }
};

std::string pool_key(const FunctionVersion& version) {
  return version.function_name + ':' + version.version + ':' + std::to_string(version.generation);
}

Duration timeout_of(const Invocation& invocation) { return std::chrono::seconds(invocation.version->config.timeout_s); }

Outcome refusal(Error error, std::string throttle_reason = {}) {
  Outcome outcome;
  outcome.kind = OutcomeKind::kRefused;
  outcome.error = std::move(error);
  outcome.throttle_reason = std::move(throttle_reason);
  return outcome;
}

Outcome throttled(const FunctionUse& function) {
  return refusal(Error(ErrorCode::kResourceExhausted, "Rate Exceeded.", "TooManyRequestsException"),
                 std::string(function.reservation_full() ? kReservedLimit : kAccountLimit));
}

// The form of AWS's StatusReason, and what happened.
std::string provision_failure(const InitFailure& failure) {
  if (failure.platform_fault) return failure.error ? failure.error->message() : "The environment could not be made.";
  if (failure.error_type.empty()) return "FUNCTION_ERROR_INIT_FAILURE";
  return "FUNCTION_ERROR_INIT_FAILURE: " + failure.error_type;
}

std::string milliseconds(Duration duration) {
  return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(duration).count()) + " ms";
}

Outcome too_late(Duration waited) {
  return refusal(
      Error(ErrorCode::kDeadlineExceeded,
            "The call's deadline passed after " + milliseconds(waited) + " in the queue, before an environment was free; nothing ran.",
            "ServiceException"));
}

Error as_service_error(const std::optional<Error>& error) {
  if (!error) return Error(ErrorCode::kInternal, "The environment could not be made.", "ServiceException");
  return error->id().empty() ? Error(error->code(), error->message(), "ServiceException") : *error;
}

}  // namespace

std::string_view initialization_name(Initialization initialization) {
  return initialization == Initialization::kProvisioned ? "provisioned-concurrency" : "on-demand";
}

Duration billed_duration(Duration run, Duration init) {
  const Duration total = std::max(run + init, Duration(1));
  return std::chrono::ceil<std::chrono::milliseconds>(total);
}

std::string timeout_document(const std::string& request_id, Duration timeout) {
  char seconds[32];
  std::snprintf(seconds, sizeof seconds, "%.2f", base::to_ms(timeout) / 1000.0);
  return R"({"errorType":"Sandbox.Timedout","errorMessage":)" +
         base::json_quote("RequestId: " + request_id + " Error: Task timed out after " + seconds + " seconds") + "}";
}

struct Dispatcher::Impl {
  Impl(DispatcherOptions options_in, EnvironmentBackend& backend_in, InvocationObserver& observer_in)
      : options(options_in), backend(backend_in), observer(observer_in), capacity(options_in.concurrency_max) {}

  struct Finished {
    InvocationPtr invocation;
    Outcome outcome;
  };

  DispatcherOptions options;
  EnvironmentBackend& backend;
  InvocationObserver& observer;
  std::unordered_map<std::string, FunctionUse> functions;
  std::unordered_map<std::string, std::unique_ptr<Pool>> pools;
  std::unordered_map<EnvironmentId, Environment> environments;
  std::unordered_map<std::uint64_t, Pool*> waiting;  // sequence to pool
  std::unordered_set<Pool*> starved;                 // wanted a start that the limits did not allow
  std::map<std::uint64_t, Pool*> provisioned_pools;  // by number: those with a target
  std::uint32_t lacking = 0;                         // of these: have fewer environments than their target
  TimerSet timers;
  EnvironmentId next_id = 1;
  std::uint64_t next_sequence = 1, next_pool = 1;
  Capacity capacity;
  std::uint32_t live = 0;
  std::uint32_t spare = 0;  // idle ones that may be ended to make room
  bool draining = false;
  Counts totals;  // the counters; the gauges are worked out when asked for
  std::vector<Finished> finished;
  bool flushing = false;

  // Keys of timers: a number and what it counts.
  enum class Timed : std::uint8_t { kEnvironment, kWaiting, kPool };
  static TimerSet::Key timer_key(std::uint64_t number, Timed kind) { return (number << 2U) | static_cast<std::uint64_t>(kind); }
  void set_timer(Environment& environment, TimePoint when) {
    timers.move(timer_key(environment.id, Timed::kEnvironment), environment.timer, when);
  }
  void set_timer(Waiting& entry, TimePoint when) { timers.move(timer_key(entry.sequence, Timed::kWaiting), entry.timer, when); }
  void set_timer(Pool& pool, TimePoint when) { timers.move(timer_key(pool.number, Timed::kPool), pool.timer, when); }

  // ---- outcomes -------------------------------------------------------------------------------------------------------

  // Sinks may call invoke() from on_outcome, so they hear of it only when the state is whole again: at the end of each
  // public call.
  void flush() {
    if (flushing) return;
    flushing = true;
    for (std::size_t i = 0; i < finished.size(); ++i) {
      Finished item = std::move(finished[i]);
      if (item.invocation->sink) item.invocation->sink->on_outcome(std::move(item.outcome));
    }
    finished.clear();
    flushing = false;
  }

  void finish(InvocationPtr invocation, Outcome outcome) {
    const FunctionVersion& version = *invocation->version;
    outcome.executed_version = version.version;
    InvocationRecord record;
    record.request_id = invocation->request_id;
    record.function_name = version.function_name;
    record.version = version.version;
    record.log_group = version.config.log_group;
    record.log_stream = outcome.log_stream;
    record.kind = outcome.kind;
    record.error_type = outcome.kind == OutcomeKind::kRefused ? outcome.error->id() : outcome.error_type;
    record.timings = outcome.timings;
    record.billed = outcome.billed;
    record.memory_mb = version.config.memory_mb;
    record.memory_peak = outcome.memory_peak;
    record.cold_start = outcome.cold_start;
    totals.throttles += outcome.throttle_reason.empty() ? 0 : 1;
    totals.reserved_throttles += outcome.throttle_reason == kReservedLimit ? 1 : 0;
    totals.errors += outcome.kind == OutcomeKind::kFunctionError ? 1 : 0;
    totals.cold_starts += outcome.cold_start ? 1 : 0;
    observer.on_invocation(record);
    finished.push_back({std::move(invocation), std::move(outcome)});
  }

  void refuse(InvocationPtr invocation, Outcome outcome, Duration queued) {
    outcome.timings.queued = queued;
    finish(std::move(invocation), std::move(outcome));
  }

  // Ends the invocation of `run` with what the backend tells, adding what only the dispatcher knows.
  void finish_run(const Environment& environment, Run& run, Outcome outcome, TimePoint now) {
    const Duration waited = run.handed - run.since;
    Timings& timings = outcome.timings;
    if (timings.run == Duration::zero()) timings.run = std::max(now - run.handed, Duration::zero());
    timings.start = run.bills_init ? std::min(environment.start, waited) : Duration::zero();
    timings.init = run.bills_init ? environment.init : Duration::zero();
    timings.queued = std::max(waited - timings.start - timings.init, Duration::zero());
    if (outcome.billed == Duration::zero()) outcome.billed = billed_duration(timings.run, timings.init);
    outcome.cold_start = run.cold;
    finish(std::move(run.invocation), std::move(outcome));
    run.invocation = nullptr;
  }

  // ---- pools and states -----------------------------------------------------------------------------------------------

  Pool& pool_for(const VersionPtr& version) {
    std::string key = pool_key(*version);
    std::unique_ptr<Pool>& pool = pools[key];
    if (!pool) {
      pool = std::make_unique<Pool>();
      pool->key = std::move(key);
      pool->number = next_pool++;
      pool->version = version;
      pool->slots = std::max(backend.runs_at_once(*version), 1U);
      if (pool->slots > 1) pool->partly.resize(pool->slots);
      pool->function = &functions[version->function_name];
      ++pool->function->pools;
    }
    return *pool;
  }

  void forget_if_empty(Pool& pool) {
    if (pool.environments != 0 || !pool.queue.empty() || pool.target != 0) return;
    starved.erase(&pool);
    const std::string name = pool.version->function_name;
    FunctionUse& function = *pool.function;
    pools.erase(std::string(pool.key));
    if (--function.pools == 0 && !function.reserved) functions.erase(name);
  }

  // Adds or takes away what `environment` counts for in its present state.
  enum class Tally : std::uint8_t { kAdd, kTakeAway };
  void tally(Environment& environment, Tally how) {
    Pool& pool = *environment.pool;
    FunctionUse& function = *pool.function;
    const State state = environment.state;
    const auto count = [how](std::uint32_t& counter, bool counts, std::uint32_t by = 1) {
      if (counts) counter = how == Tally::kAdd ? counter + by : counter - by;
    };
    const bool own_init = state == State::kStarting && environment.phase == InitPhase::kOwn;
    const bool lives = state != State::kStopping;
    count(live, lives);
    count(spare, state == State::kIdle && !environment.provisioned);
    count(function.starting, own_init, pool.slots);
    count(pool.starting, own_init && !environment.provisioned);
    count(pool.provisioned_starting, own_init && environment.provisioned);
    change_held(pool, [&] {
      count(function.active, is_active(state));
      count(function.on_demand, is_active(state) && !environment.provisioned);
      count(function.provisioned, lives && environment.provisioned);
      count(pool.provisioned, lives && environment.provisioned);
    });
  }

  // Changes what `pool` has, wants or failed at; what it holds of the capacity follows. While they cannot be made nothing is held
  // for provisioned environments that are not there, so that calls are served, or told the cause, on demand.
  template <typename Change>
  void change_held(Pool& pool, Change&& change) {
    lacking -= pool.lacks() ? 1U : 0U;
    capacity.change(*pool.function, [&] {
      change();
      const std::uint32_t held = pool.failure.empty() ? std::max(pool.target, pool.provisioned) : pool.provisioned;
      pool.function->held = pool.function->held - pool.held + held;
      pool.held = held;
    });
    lacking += pool.lacks() ? 1U : 0U;
  }

  // The one place where an environment changes state: it keeps every count.
  void enter(Environment& environment, State next) {
    MAYFLY_ASSERT(environment.state != State::kStopping || next == State::kStopping, "a stopping environment stays so");
    if (environment.state == State::kIdle && next != State::kIdle) {
      std::vector<Environment*>& free = free_of(environment);
      if (free.back() == &environment) {
        free.pop_back();
      } else {
        std::erase(free, &environment);
      }
    }
    if (next == State::kStopping) {
      for (Run& run : environment.runs) no_longer_expected(environment, run);
    }
    tally(environment, Tally::kTakeAway);
    environment.state = next;
    tally(environment, Tally::kAdd);
    place(environment);
  }

  static std::vector<Environment*>& free_of(Environment& environment) {
    return environment.provisioned ? environment.pool->ready : environment.pool->idle;
  }

  // Keeps `environment` where usable() looks for busy ones with slots to spare.
  static void place(Environment& environment) {
    Pool& pool = *environment.pool;
    if (pool.slots == 1) return;
    if (environment.place != Environment::kNowhere) {
      std::vector<Environment*>& level = pool.partly[environment.place / kPlaces];
      const std::size_t at = environment.place % kPlaces;
      level[at] = level.back();
      level[at]->place = environment.place;
      level.pop_back();
      environment.place = Environment::kNowhere;
    }
    const std::size_t runs = environment.runs.size();
    if (environment.state != State::kBusy || environment.closed || runs == 0 || runs >= pool.slots) return;
    environment.place = runs * kPlaces + pool.partly[runs].size();
    pool.partly[runs].push_back(&environment);
  }
  static constexpr std::size_t kPlaces = std::size_t{1} << 32U;  // a place is a level and a position in it

  static void expect(Environment& environment, Run& run) {
    run.expected = true;
    ++environment.pool->expected;
    ++environment.pool->function->answered;
  }
  static void no_longer_expected(Environment& environment, Run& run) {
    if (!run.expected) return;
    run.expected = false;
    --environment.pool->expected;
    --environment.pool->function->answered;
  }

  static Run* find_run(Environment& environment, RunId id) {
    const auto found = std::ranges::find(environment.runs, id, &Run::id);
    return found == environment.runs.end() ? nullptr : &*found;
  }
  static void remove_run(Environment& environment, Run& run) {
    no_longer_expected(environment, run);
    if (&run != &environment.runs.back()) run = std::move(environment.runs.back());
    environment.runs.pop_back();
  }
  void set_run_timer(Environment& environment) {
    TimePoint first = base::kNoDeadline;
    for (const Run& run : environment.runs) first = std::min(first, run.due);
    set_timer(environment, first);
  }

  void stop(Environment& environment, StopReason reason) {
    enter(environment, State::kStopping);
    set_timer(environment, base::kNoDeadline);
    backend.stop(environment.id, reason);
  }

  void erase(Environment& environment) {
    Pool& pool = *environment.pool;
    if (environment.state != State::kStopping) enter(environment, State::kStopping);
    set_timer(environment, base::kNoDeadline);
    --pool.environments;
    environments.erase(environment.id);
    forget_if_empty(pool);
  }

  // ---- starting -------------------------------------------------------------------------------------------------------

  Environment* oldest_spare() {
    Environment* oldest = nullptr;
    for (auto& [id, environment] : environments) {
      if (environment.state != State::kIdle || environment.provisioned) continue;
      if (oldest == nullptr || environment.idle_since < oldest->idle_since) oldest = &environment;
    }
    return oldest;
  }

  bool room_for_one() const { return live < options.environments_max || spare > 0; }

  // The environment of `pool` that an invocation gets now; null when there is none or the limits do not allow its use.
  Environment* usable(Pool& pool) {
    if (Environment* busy = fullest(pool)) return busy;
    if (!pool.ready.empty() && Capacity::may_use_provisioned(*pool.function)) return pool.ready.back();
    if (!pool.idle.empty() && capacity.may_run(*pool.function)) return pool.idle.back();
    return nullptr;
  }

  // Of the busy environments that take one more the one with most to do, so that others become idle.
  Environment* fullest(const Pool& pool) const {
    for (std::size_t runs = pool.partly.size(); runs-- > 1;) {
      if (pool.partly[runs].empty()) continue;
      Environment* busy = pool.partly[runs].back();
      return may_go_on(*busy) ? busy : nullptr;
    }
    return nullptr;
  }

  // Whether an environment that is active may take a further invocation: not where the limits were lowered below what runs.
  bool may_go_on(const Environment& environment) const {
    const FunctionUse& function = *environment.pool->function;
    return environment.provisioned ? Capacity::may_go_on_provisioned(function) : capacity.may_go_on(function);
  }

  // Whether one more environment may become active for `pool`: one of its idle ones, or a new one.
  bool may_serve(Pool& pool) { return usable(pool) != nullptr || (capacity.may_run(*pool.function) && room_for_one()); }

  Environment& make_environment(Pool& pool, InitPhase phase, Initialization initialization) {
    if (live >= options.environments_max) {
      if (Environment* oldest = oldest_spare()) stop(*oldest, StopReason::kIdle);
    }
    const EnvironmentId id = next_id++;
    Environment& environment = environments[id];
    environment.id = id;
    environment.pool = &pool;
    environment.phase = phase;
    environment.provisioned = initialization == Initialization::kProvisioned;
    ++pool.environments;
    tally(environment, Tally::kAdd);
    return environment;
  }

  void start_own(Pool& pool, Initialization initialization, TimePoint now) {
    Environment& environment = make_environment(pool, InitPhase::kOwn, initialization);
    environment.served = environment.provisioned;
    set_timer(environment, now + options.start_budget);
    backend.start(
        {.id = environment.id, .version = pool.version, .phase = InitPhase::kOwn, .waiting = nullptr, .initialization = initialization});
  }

  static std::size_t covered(const Pool& pool) { return std::size_t{pool.starting} * pool.slots + pool.expected; }

  // One step towards serving the oldest waiting invocation of `pool`; may_serve() holds. An idle environment is there beside
  // a queue only when the concurrency limit kept it from being used.
  void serve_one(Pool& pool, TimePoint now) {
    Environment* free = usable(pool);
    if (free == nullptr) return start_own(pool, Initialization::kOnDemand, now);
    if (std::optional<Waiting> next = take_next(pool, now)) hand_over(*free, std::move(next->invocation), next->since, now);
  }

  // Starts what the waiting invocations of `pool` still need, as far as the limits allow.
  void pump(Pool& pool, TimePoint now) {
    while (pool.queue.size() > covered(pool) && may_serve(pool)) serve_one(pool, now);
    if (pool.queue.size() > covered(pool)) {
      starved.insert(&pool);
    } else {
      starved.erase(&pool);
    }
  }

  // Gives freed capacity to what is promised, then to the invocation that waited longest, whichever function it calls.
  void feed(TimePoint now) {
    if (lacking > 0) {
      for (const auto& [number, pool] : provisioned_pools) provision(*pool, now);
    }
    while (!starved.empty()) {
      Pool* oldest = nullptr;
      for (Pool* pool : starved) {
        if (pool->queue.size() <= covered(*pool) || !may_serve(*pool)) continue;
        if (oldest == nullptr || pool->queue.front().sequence < oldest->queue.front().sequence) oldest = pool;
      }
      if (oldest == nullptr) return;
      serve_one(*oldest, now);
      if (oldest->queue.size() <= covered(*oldest)) starved.erase(oldest);
    }
  }

  // ---- provisioned concurrency ----------------------------------------------------------------------------------------

  // Starts what `pool` lacks as far as the limits allow, a few at once; after a failure one alone tries first.
  void provision(Pool& pool, TimePoint now) {
    while (pool.lacks() && pool.retry_at <= now && pool.provisioned_starting < (pool.failure.empty() ? options.provision_starts_max : 1) &&
           capacity.may_provision(*pool.function) && room_for_one()) {
      start_own(pool, Initialization::kProvisioned, now);
    }
  }

  void set_target(Pool& pool, std::uint32_t target) {
    if (pool.target == target) return;
    change_held(pool, [&] {
      pool.target = target;
      pool.failure.clear();
    });
    pool.failures = 0;
    pool.retry_at = {};
    set_timer(pool, base::kNoDeadline);
    if (target == 0) {
      provisioned_pools.erase(pool.number);
    } else {
      provisioned_pools[pool.number] = &pool;
    }
    if (pool.provisioned > target) shed(pool);
  }

  // Ends provisioned environments beyond the target: idle ones, then those that start; what runs finishes first.
  void shed(Pool& pool) {
    const StopReason reason = draining ? StopReason::kShutdown : StopReason::kReplaced;
    while (pool.provisioned > pool.target && !pool.ready.empty()) stop(*pool.ready.front(), reason);
    for (const bool running : {false, true}) {
      for (auto& [id, environment] : environments) {
        if (pool.provisioned <= pool.target) return;
        if (environment.pool != &pool || !environment.provisioned || environment.state == State::kStopping) continue;
        if (environment.state == State::kStarting) {
          stop(environment, reason);
        } else if (running) {
          tally(environment, Tally::kTakeAway);
          environment.provisioned = false;
          environment.retiring = true;
          tally(environment, Tally::kAdd);
        }
      }
    }
  }

  // A provisioned environment could not be made, or died before it was of any use. Those that fail together count once.
  void provision_failed(Pool& pool, std::string reason, TimePoint now) {
    if (pool.target == 0) return;
    change_held(pool, [&] { pool.failure = std::move(reason); });
    if (now < pool.retry_at) return;
    if (now - pool.retry_at > 2 * options.provision_retry_max) pool.failures = 0;
    Duration pause = options.provision_retry_min;
    for (std::uint32_t i = 0; i < pool.failures && pause < options.provision_retry_max; ++i) pause *= 2;
    ++pool.failures;
    pool.retry_at = now + std::min(pause, options.provision_retry_max);
    set_timer(pool, pool.retry_at);
  }

  // ---- the queue ------------------------------------------------------------------------------------------------------

  void enqueue(Pool& pool, InvocationPtr invocation, TimePoint now) {
    const TimePoint limit = std::min(invocation->call_deadline, now + options.queue_budget);
    Waiting& entry = pool.queue.emplace_back();
    entry.sequence = next_sequence++;
    entry.invocation = std::move(invocation);
    entry.since = now;
    ++pool.function->queued;
    waiting[entry.sequence] = &pool;
    set_timer(entry, limit);
  }

  Waiting take(Pool& pool, std::list<Waiting>::iterator position) {
    set_timer(*position, base::kNoDeadline);
    Waiting entry = std::move(*position);
    pool.queue.erase(position);
    waiting.erase(entry.sequence);
    --pool.function->queued;
    return entry;
  }

  // The oldest waiting invocation of `pool` that still has time; those without are refused on the way.
  std::optional<Waiting> take_next(Pool& pool, TimePoint now) {
    while (!pool.queue.empty()) {
      Waiting entry = take(pool, pool.queue.begin());
      if (entry.invocation->call_deadline > now) return entry;
      refuse(std::move(entry.invocation), too_late(now - entry.since), now - entry.since);
    }
    return std::nullopt;
  }

  void expire_waiting(std::uint64_t sequence, TimePoint now) {
    Pool& pool = *waiting.at(sequence);
    std::size_t position = 0;
    auto it = pool.queue.begin();
    for (; it->sequence != sequence; ++it) ++position;
    if (it->invocation->call_deadline > now && !it->extended && position < covered(pool)) {
      it->extended = true;
      set_timer(*it, std::min(it->invocation->call_deadline, now + options.start_budget));
      return;
    }
    const bool out_of_time = it->invocation->call_deadline <= now;
    Waiting entry = take(pool, it);
    refuse(std::move(entry.invocation), out_of_time ? too_late(now - entry.since) : throttled(*pool.function), now - entry.since);
    pump(pool, now);
    forget_if_empty(pool);
  }

  // Over a reservation nothing waits, unless an environment of the function is about to be free and no other call waits for it.
  static bool over_reservation(const FunctionUse& function) {
    return function.reservation_full() && function.queued >= function.starting + function.answered;
  }

  // Refuses whatever waits for a function that may run nothing.
  void refuse_waiting(FunctionUse& function, TimePoint now) {
    std::vector<Pool*> emptied;
    for (auto& [key, pool] : pools) {
      if (pool->function != &function) continue;
      while (!pool->queue.empty()) {
        Waiting entry = take(*pool, pool->queue.begin());
        refuse(std::move(entry.invocation), throttled(function), now - entry.since);
      }
      starved.erase(pool.get());
      emptied.push_back(pool.get());
    }
    for (Pool* pool : emptied) forget_if_empty(*pool);
  }

  // ---- running --------------------------------------------------------------------------------------------------------

  Run& add_run(Environment& environment, InvocationPtr invocation, TimePoint since, TimePoint now) {
    Run& run = environment.runs.emplace_back();
    run.id = environment.next_run++;
    run.since = since;
    run.handed = now;
    run.deadline = run.due = std::min(now + timeout_of(*invocation), invocation->call_deadline);
    run.invocation = std::move(invocation);
    run.cold = !environment.served || environment.phase == InitPhase::kInInvocation;
    environment.served = environment.proven = true;
    return run;
  }

  void hand_over(Environment& environment, InvocationPtr invocation, TimePoint since, TimePoint now) {
    const bool cold = !environment.served;
    Run& run = add_run(environment, std::move(invocation), since, now);
    run.cold = run.bills_init = cold;
    environment.frozen = false;
    if (environment.provisioned) environment.pool->failures = 0;
    if (environment.state == State::kBusy) {
      place(environment);
    } else {
      enter(environment, State::kBusy);
    }
    set_run_timer(environment);
    backend.send({.environment = environment.id, .run = run.id, .invocation = run.invocation, .run_deadline = run.deadline, .first = cold});
  }

  // The runtime of `environment` asks for work, in as many slots as are free. It gets none where the limits were lowered below what
  // runs.
  void available(Environment& environment, TimePoint now) {
    Pool& pool = *environment.pool;
    bool took = false;
    while (!environment.closed && environment.runs.size() < pool.slots && !pool.queue.empty() && may_go_on(environment)) {
      std::optional<Waiting> next = take_next(pool, now);
      if (!next) break;
      hand_over(environment, std::move(next->invocation), next->since, now);
      took = true;
    }
    if (took) return pump(pool, now);
    if (environment.runs.empty()) {
      become_idle(environment, now);
    } else {
      place(environment);
      set_run_timer(environment);
    }
    pump(pool, now);
    feed(now);
  }

  void become_idle(Environment& environment, TimePoint now) {
    if (environment.closed) return stop(environment, environment.close_reason);
    if (draining || environment.pool->outdated || environment.retiring)
      return stop(environment, draining ? StopReason::kShutdown : StopReason::kReplaced);
    enter(environment, State::kIdle);
    free_of(environment).push_back(&environment);
    environment.idle_since = now;
    environment.frozen = false;
    const Duration rest = environment.provisioned ? options.freeze_after : std::min(options.freeze_after, options.idle_timeout);
    set_timer(environment, now + rest);
  }

  // Nothing new comes into `environment`; it ends for `reason` once nobody waits for an answer of it any more.
  void close(Environment& environment, StopReason reason) {
    if (!environment.closed) environment.close_reason = reason;
    environment.closed = true;
    place(environment);
    set_run_timer(environment);
  }

  // After an answer: a closed environment ends when nobody waits for a further one.
  bool ended_closed(Environment& environment, TimePoint now) {
    if (environment.state != State::kBusy || !environment.closed || environment.somebody_waits()) return false;
    Pool& pool = *environment.pool;
    stop(environment, environment.close_reason);
    pump(pool, now);
    feed(now);
    return true;
  }

  // A first init ended badly: it is done again at the expense of the oldest waiting invocation, if any waits.
  void redo_init(Pool& pool, TimePoint now) {
    if (!capacity.may_run(*pool.function)) return;  // it waits on
    std::optional<Waiting> next = take_next(pool, now);
    if (!next) return;
    Environment& environment = make_environment(pool, InitPhase::kInInvocation, Initialization::kOnDemand);
    const Run& run = add_run(environment, std::move(next->invocation), next->since, now);
    set_run_timer(environment);
    backend.start({.id = environment.id,
                   .version = pool.version,
                   .phase = InitPhase::kInInvocation,
                   .waiting = run.invocation,
                   .run = run.id,
                   .run_deadline = run.deadline});
  }

  // `environment` failed before it could take work and is kStopping now.
  void init_failed(Environment& environment, InitFailure failure, TimePoint now) {
    Pool& pool = *environment.pool;
    const bool bound = environment.phase == InitPhase::kInInvocation;
    if (environment.provisioned) {
      provision_failed(pool, provision_failure(failure), now);
    } else if (bound && environment.somebody_waits()) {
      Run& run = environment.runs.front();
      if (failure.platform_fault) {
        refuse(std::move(run.invocation), refusal(as_service_error(failure.error)), now - run.since);
        run.invocation = nullptr;
      } else {
        Outcome outcome;
        outcome.kind = OutcomeKind::kFunctionError;
        outcome.error_type = std::move(failure.error_type);
        outcome.payload = std::move(failure.payload);
        outcome.log_tail = std::move(failure.log_tail);
        outcome.log_stream = std::move(failure.log_stream);
        outcome.memory_peak = failure.memory_peak;
        finish_run(environment, run, std::move(outcome), now);
      }
    } else if (failure.platform_fault) {
      if (std::optional<Waiting> next = take_next(pool, now)) {
        refuse(std::move(next->invocation), refusal(as_service_error(failure.error)), now - next->since);
      }
    } else {
      redo_init(pool, now);
    }
    pump(pool, now);
    feed(now);
  }

  // The time of `run` is over. Alone it ends its environment; beside others it is given up, and the environment ends after them.
  void run_out_of_time(Environment& environment, Run& run, TimePoint now) {
    run.timed_out = true;
    run.due = now + options.stop_grace;
    ++totals.timeouts;
    const bool alone = std::ranges::none_of(environment.runs, [](const Run& each) { return !each.answered() && !each.timed_out; });
    if (alone) {
      enter(environment, State::kStopping);
      set_run_timer(environment);
      backend.stop(environment.id, StopReason::kTimeout);
    } else {
      close(environment, StopReason::kTimeout);
      backend.give_up(environment.id, run.id);
    }
  }

  void finish_timed_out(Environment& environment, Run& run, Outcome told, TimePoint now) {
    const Duration allowed = run.deadline - run.handed;
    told.kind = OutcomeKind::kFunctionError;
    told.error.reset();
    told.error_type = "Sandbox.Timedout";
    told.payload = timeout_document(run.invocation->request_id, allowed);
    if (told.timings.run == Duration::zero()) told.timings.run = allowed;
    finish_run(environment, run, std::move(told), now);
    run.due = base::kNoDeadline;
  }

  // What of `environment` is due: runs without an answer are out of time, answered ones did not come back, and callers of timed-out
  // ones have waited long enough for the backend's last words.
  void look_at_runs(Environment& environment, TimePoint now) {
    Pool& pool = *environment.pool;
    for (Run& run : environment.runs) {
      if (run.due > now) continue;
      if (run.timed_out && !run.answered()) {
        finish_timed_out(environment, run, {}, now);
      } else if (environment.state == State::kStopping) {
        run.due = base::kNoDeadline;
      } else if (!run.answered()) {
        run_out_of_time(environment, run, now);
      } else if (run.deadline > now) {  // later than hoped: it is no longer counted on
        no_longer_expected(environment, run);
        run.due = run.deadline;
      } else {
        no_longer_expected(environment, run);
        run.due = base::kNoDeadline;
        close(environment, StopReason::kMisbehaved);
      }
    }
    set_run_timer(environment);
    if (environment.state == State::kStopping) {
      pump(pool, now);
      return feed(now);
    }
    if (!ended_closed(environment, now)) pump(pool, now);
  }

  void start_took_too_long(Environment& environment, TimePoint now) {
    const bool started = environment.started;
    stop(environment, StopReason::kInitTimeout);
    InitFailure failure;
    failure.platform_fault = !started;
    if (started) {
      failure.error_type = "Sandbox.Timedout";
    } else {
      failure.error =
          Error(ErrorCode::kUnavailable,
                "The environment was not made within " + milliseconds(options.start_budget) + "; the machine may be overloaded. Try again.",
                "ServiceException");
    }
    init_failed(environment, std::move(failure), now);
  }

  void on_environment_timer(Environment& environment, TimePoint now) {
    switch (environment.state) {
      case State::kStarting:
        if (environment.phase == InitPhase::kOwn) return start_took_too_long(environment, now);
        return look_at_runs(environment, now);
      case State::kBusy:
      case State::kStopping:
        return look_at_runs(environment, now);
      case State::kIdle:
        if (!environment.frozen && (environment.provisioned || environment.idle_since + options.idle_timeout > now)) {
          environment.frozen = true;
          set_timer(environment, environment.provisioned ? base::kNoDeadline : environment.idle_since + options.idle_timeout);
          return backend.freeze(environment.id);
        }
        return stop(environment, StopReason::kIdle);
    }
  }

  Environment* find(EnvironmentId id) {
    const auto it = environments.find(id);
    return it == environments.end() ? nullptr : &it->second;
  }
};

Dispatcher::Dispatcher(DispatcherOptions options, EnvironmentBackend& backend, InvocationObserver& observer)
    : impl_(std::make_unique<Impl>(options, backend, observer)) {}
Dispatcher::~Dispatcher() = default;

void Dispatcher::invoke(InvocationPtr invocation, TimePoint now) {
  Impl& d = *impl_;
  ++d.totals.invocations;
  if (d.draining) {
    d.refuse(
        std::move(invocation),
        refusal(Error(ErrorCode::kUnavailable, "The server is shutting down and takes no new invocations; try again.", "ServiceException")),
        Duration::zero());
    return d.flush();
  }
  if (invocation->call_deadline <= now) {
    d.refuse(std::move(invocation), too_late(Duration::zero()), Duration::zero());
    return d.flush();
  }
  Pool& pool = d.pool_for(invocation->version);
  FunctionUse& function = *pool.function;
  if (Environment* free = pool.queue.empty() ? d.usable(pool) : nullptr) {
    d.hand_over(*free, std::move(invocation), now, now);
  } else if (!d.may_serve(pool) &&
             (Impl::over_reservation(function) || function.queued >= d.options.queue_max_per_function + Impl::covered(pool))) {
    // Those an environment is already being made for do not count as waiting in the queue.
    d.refuse(std::move(invocation), throttled(function), Duration::zero());
    d.forget_if_empty(pool);
  } else {
    d.enqueue(pool, std::move(invocation), now);
    d.pump(pool, now);
    if (d.options.queue_budget == Duration::zero() && pool.queue.size() > Impl::covered(pool)) {
      d.expire_waiting(pool.queue.back().sequence, now);
    }
  }
  d.flush();
}

void Dispatcher::on_started(EnvironmentId id, TimePoint now) {
  Environment* environment = impl_->find(id);
  if (environment == nullptr || environment->state != State::kStarting) return;
  environment->started = true;
  if (environment->phase != InitPhase::kOwn) return;
  const Duration configured = std::chrono::seconds(environment->pool->version->config.timeout_s);
  impl_->set_timer(*environment, now + (environment->provisioned ? std::max(impl_->options.provisioned_init_timeout, configured)
                                                                 : impl_->options.init_timeout));
}

void Dispatcher::on_initialised(EnvironmentId id, Duration start, Duration init, TimePoint now) {
  Environment* environment = impl_->find(id);
  if (environment == nullptr || environment->state != State::kStarting) return;
  environment->start = start;
  environment->init = init;
  if (environment->provisioned) impl_->change_held(*environment->pool, [&] { environment->pool->failure.clear(); });
  if (environment->phase == InitPhase::kOwn) {
    impl_->available(*environment, now);
    impl_->feed(now);  // where one tried alone the others may follow
  } else {
    impl_->enter(*environment, State::kBusy);
    const Run& run = environment->runs.front();
    impl_->backend.send({.environment = id, .run = run.id, .invocation = run.invocation, .run_deadline = run.deadline});
    if (environment->pool->slots > 1) impl_->available(*environment, now);
  }
  impl_->flush();
}

void Dispatcher::on_init_failed(EnvironmentId id, InitFailure failure, TimePoint now) {
  Environment* environment = impl_->find(id);
  if (environment == nullptr || environment->state != State::kStarting) return;
  impl_->enter(*environment, State::kStopping);
  impl_->set_timer(*environment, base::kNoDeadline);
  impl_->init_failed(*environment, std::move(failure), now);
  impl_->flush();
}

void Dispatcher::on_answered(EnvironmentId id, RunId run_id, Outcome outcome, TimePoint now) {
  Environment* environment = impl_->find(id);
  if (environment == nullptr || (environment->state != State::kBusy && environment->state != State::kStopping)) return;
  Run* run = Impl::find_run(*environment, run_id);
  if (run == nullptr || run->answered() || (environment->state == State::kStopping && !run->timed_out)) return;
  if (run->timed_out) {
    impl_->finish_timed_out(*environment, *run, std::move(outcome), now);
    impl_->set_run_timer(*environment);
  } else {
    impl_->finish_run(*environment, *run, std::move(outcome), now);
    if (!environment->closed) Impl::expect(*environment, *run);
    run->due = std::min(run->deadline, now + impl_->options.ready_grace);
    impl_->set_run_timer(*environment);
  }
  impl_->ended_closed(*environment, now);
  impl_->flush();
}

void Dispatcher::on_ready(EnvironmentId id, RunId run_id, TimePoint now) {
  Environment* environment = impl_->find(id);
  Run* run = environment == nullptr || environment->state != State::kBusy ? nullptr : Impl::find_run(*environment, run_id);
  if (run == nullptr || !run->answered()) return;
  Impl::remove_run(*environment, *run);
  impl_->available(*environment, now);
  impl_->flush();
}

void Dispatcher::on_gone(EnvironmentId id, std::vector<EndedRun> ended, TimePoint now) {
  Environment* found = impl_->find(id);
  if (found == nullptr) return;
  Environment& environment = *found;
  Pool& pool = *environment.pool;
  const State was = environment.state;
  impl_->enter(environment, State::kStopping);
  impl_->set_timer(environment, base::kNoDeadline);
  if (was == State::kStarting) {  // the backend owes on_init_failed first; take it as one
    InitFailure failure;
    if (!ended.empty()) {
      Outcome& told = ended.front().outcome;
      failure.error_type = std::move(told.error_type);
      failure.payload = std::move(told.payload);
      failure.log_tail = std::move(told.log_tail);
      failure.log_stream = std::move(told.log_stream);
      failure.memory_peak = told.memory_peak;
    }
    impl_->init_failed(environment, std::move(failure), now);
  }
  for (Run& run : environment.runs) {
    if (run.answered()) continue;
    const auto told = std::ranges::find(ended, run.id, &EndedRun::run);
    Outcome outcome =
        told != ended.end()
            ? std::move(told->outcome)
            : refusal(Error(ErrorCode::kInternal, "The environment ended and nothing is known of what ran in it.", "ServiceException"));
    if (run.timed_out) {
      impl_->finish_timed_out(environment, run, std::move(outcome), now);
    } else {
      impl_->finish_run(environment, run, std::move(outcome), now);
    }
  }
  if (was != State::kStopping) {
    if (was != State::kStarting && environment.provisioned && !environment.proven)
      impl_->provision_failed(pool, "The environment ended before it was used.", now);
    impl_->pump(pool, now);
  }
  impl_->erase(environment);
  impl_->feed(now);
  impl_->flush();
}

void Dispatcher::drop_outdated(const std::string& function_name, const std::function<bool(const FunctionVersion&)>& current,
                               TimePoint now) {
  std::vector<Pool*> outdated;
  for (auto& [key, pool] : impl_->pools) {
    if (pool->version->function_name != function_name || current(*pool->version)) continue;
    pool->outdated = true;
    impl_->set_target(*pool, 0);
    while (!pool->idle.empty()) impl_->stop(*pool->idle.back(), StopReason::kReplaced);
    outdated.push_back(pool.get());
  }
  for (Pool* pool : outdated) impl_->forget_if_empty(*pool);
  impl_->feed(now);
  impl_->flush();
}

void Dispatcher::set_reserved_concurrency(const std::string& function_name, std::optional<std::uint32_t> reserved, TimePoint now) {
  Impl& d = *impl_;
  const auto it = reserved ? d.functions.try_emplace(function_name).first : d.functions.find(function_name);
  if (it == d.functions.end() || it->second.reserved == reserved) return;
  FunctionUse& function = it->second;
  d.capacity.change(function, [&] { function.reserved = reserved; });
  if (reserved == 0U) d.refuse_waiting(function, now);
  if (!reserved && function.pools == 0) d.functions.erase(it);
  d.feed(now);
  d.flush();
}

void Dispatcher::set_provisioned_concurrency(const VersionPtr& version, std::uint32_t count, TimePoint now) {
  Impl& d = *impl_;
  if (d.draining) return;
  std::vector<Pool*> former;
  for (const auto& [number, pool] : d.provisioned_pools) {
    const FunctionVersion& other = *pool->version;
    if (other.function_name != version->function_name || other.version != version->version) continue;
    if (count == 0 || other.generation != version->generation) former.push_back(pool);
  }
  for (Pool* pool : former) {
    d.set_target(*pool, 0);
    d.forget_if_empty(*pool);
  }
  if (count > 0) {
    Pool& pool = d.pool_for(version);
    if (!pool.outdated) d.set_target(pool, count);
    d.forget_if_empty(pool);
  }
  d.feed(now);
  d.flush();
}

ProvisionedStatus Dispatcher::provisioned_status(const std::string& function_name, const std::string& version) const {
  ProvisionedStatus status;
  for (const auto& [number, pool] : impl_->provisioned_pools) {
    if (pool->version->function_name != function_name || pool->version->version != version) continue;
    status.requested += pool->target;
    status.allocated += pool->provisioned - pool->provisioned_starting;
    status.available += static_cast<std::uint32_t>(pool->ready.size());
    if (!pool->failure.empty()) status.failed_reason = pool->failure;
  }
  return status;
}

base::Deadline Dispatcher::next_timer() const { return impl_->timers.next(); }

void Dispatcher::on_timer(TimePoint now) {
  while (impl_->timers.due(now)) {
    const TimerSet::Key key = impl_->timers.first();
    const std::uint64_t number = key >> 2U;
    switch (static_cast<Impl::Timed>(key & 3U)) {
      case Impl::Timed::kEnvironment:
        impl_->on_environment_timer(impl_->environments.at(number), now);
        break;
      case Impl::Timed::kWaiting:
        impl_->expire_waiting(number, now);
        break;
      case Impl::Timed::kPool:
        impl_->set_timer(*impl_->provisioned_pools.at(number), base::kNoDeadline);
        impl_->feed(now);
        break;
    }
  }
  impl_->flush();
}

void Dispatcher::drain(TimePoint now) {
  impl_->draining = true;
  while (!impl_->provisioned_pools.empty()) {
    Pool& pool = *impl_->provisioned_pools.begin()->second;
    impl_->set_target(pool, 0);
    impl_->forget_if_empty(pool);
  }
  for (auto& [key, pool] : impl_->pools) {
    while (!pool->idle.empty()) impl_->stop(*pool->idle.back(), StopReason::kShutdown);
  }
  impl_->feed(now);
  impl_->flush();
}

bool Dispatcher::finished() const { return impl_->environments.empty() && impl_->waiting.empty(); }

Dispatcher::Counts Dispatcher::counts() const {
  Counts counts = impl_->totals;
  for (const auto& [id, environment] : impl_->environments) {
    counts.starting += environment.state == State::kStarting ? 1U : 0U;
    counts.idle += environment.state == State::kIdle ? 1U : 0U;
    counts.busy += environment.state == State::kBusy ? 1U : 0U;
    counts.provisioned += environment.provisioned && environment.state != State::kStopping ? 1U : 0U;
  }
  counts.queued = static_cast<std::uint32_t>(impl_->waiting.size());
  return counts;
}

void Dispatcher::each_version(const std::function<void(const FunctionVersion&)>& visit) const {
  for (const auto& [key, pool] : impl_->pools) visit(*pool->version);
}

std::uint32_t Dispatcher::concurrency_of(const std::string& function_name) const {
  const auto it = impl_->functions.find(function_name);
  return it == impl_->functions.end() ? 0 : it->second.active;
}

}  // namespace mayfly::engine
