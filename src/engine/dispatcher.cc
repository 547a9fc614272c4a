#include "engine/dispatcher.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <list>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "base/json.h"
#include "engine/internal/pool.h"

namespace mayfly::engine {
namespace {

using base::Error;
using base::ErrorCode;

constexpr std::string_view kAccountLimit = "ConcurrentInvocationLimitExceeded";

// Names a pool; the texts are its version's.
struct PoolKey {
  std::string_view function, version;
  std::uint64_t generation = 0;
  explicit PoolKey(const FunctionVersion& of) : function(of.function_name), version(of.version), generation(of.generation) {}
  bool operator==(const PoolKey&) const = default;
};
struct PoolKeyHash {
  std::size_t operator()(const PoolKey& key) const { return std::hash<std::string_view>()(key.function) * 31 + key.generation; }
};

Duration timeout_of(const Invocation& invocation) { return std::chrono::seconds(invocation.version->config.timeout_s); }

constexpr std::string_view kStartRateLimit = "FunctionInvocationRateLimitExceeded";

Outcome refusal(Error error, std::string throttle_reason = {}) {
  Outcome outcome;
  outcome.kind = OutcomeKind::kRefused;
  outcome.error = std::move(error);
  outcome.throttle_reason = std::move(throttle_reason);
  return outcome;
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

// What the last failure of a version says, in one line: the errorMessage of its document.
std::string message_of(const std::string& document) {
  const auto parsed = base::parse_json(document);
  if (!parsed.ok() || !parsed->is_object()) return {};
  const auto* message = parsed->get_object().if_contains("errorMessage");
  return message != nullptr && message->is_string() ? std::string(message->get_string()) : std::string();
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
      : options(std::move(options_in)),
        backend(backend_in),
        observer(observer_in),
        keep_alive(options.keep_alive ? options.keep_alive : std::make_shared<FixedKeepAlive>(options.idle_timeout)),
        capacity(options.concurrency_max) {}

  struct Finished {
    InvocationPtr invocation;
    Outcome outcome;
  };

  DispatcherOptions options;
  EnvironmentBackend& backend;
  InvocationObserver& observer;
  const std::shared_ptr<const KeepAlivePolicy> keep_alive;
  std::unordered_map<std::string, Function> functions;
  std::list<Function*> unused_functions;  // remembered for their history; the one unused longest first
  std::unordered_map<PoolKey, std::unique_ptr<Pool>, PoolKeyHash> pools;
  std::unordered_map<EnvironmentId, Environment> environments;
  std::list<Waiting> spare_entries;   // of queues, to be used again
  std::unordered_set<Pool*> starved;  // wanted a start that the limits did not allow
  std::uint64_t turns = 0;
  std::map<std::uint64_t, Pool*> provisioned_pools;  // by number: those with a target
  std::uint32_t lacking = 0;                         // of these: have fewer environments than their target
  TimerHeap timers;
  EnvironmentId next_id = 1;
  std::uint64_t next_sequence = 1, next_pool = 1;
  Capacity capacity;
  std::uint32_t live = 0;
  std::uint32_t spare = 0;   // idle ones that may be ended to make room
  std::uint32_t queued = 0;  // invocations
  struct Dearer {            // ended last; by age where equal
    bool operator()(const Environment* a, const Environment* b) const {
      return a->priority != b->priority ? a->priority < b->priority : a->id < b->id;
    }
  };
  std::set<Environment*, Dearer> evictable;  // frozen on-demand ones
  double eviction_clock = 0;                 // priority of the last one that was ended for another's sake
  std::uint64_t idle_bytes = 0;              // of idle on-demand environments
  bool draining = false;
  Counts totals;  // the counters; the gauges are worked out when asked for
  std::vector<Finished> finished;
  bool flushing = false;

  void set_timer(Environment& environment, TimePoint when) { timers.set(environment.timer, when); }
  void set_timer(Pool& pool, TimePoint now) {
    TimePoint when = std::min(pool.again_at, pool.forget_failures_at);
    if (pool.lacks() && pool.retry_at > now) when = std::min(when, pool.retry_at);
    const TimePoint next_start = pool.function->rate.next(options.burst_starts);
    if (needs_more(pool) && next_start > now) when = std::min(when, next_start);
    timers.set(pool.timer, when);
  }

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
    record.error_type =
        outcome.kind == OutcomeKind::kRefused ? std::string_view(outcome.error->id()) : std::string_view(outcome.error_type);
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

  void refuse(InvocationPtr invocation, Outcome outcome, Duration waited) {
    outcome.timings.queued = waited;
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

  Outcome throttled(const Pool& pool, TimePoint now) {
    const Function& function = *pool.function;
    const bool too_fast = !function.reservation_full() && capacity.may_run(function) && function.rate.next(options.burst_starts) > now;
    return refusal(Error(ErrorCode::kResourceExhausted, "Rate Exceeded.", "TooManyRequestsException"),
                   std::string(function.reservation_full() ? kReservedLimit
                               : too_fast                  ? kStartRateLimit
                                                           : kAccountLimit));
  }

  // What a call gets while the version's circuit is open: a function's error as the failures before it, as it is the function that
  // keeps failing; nothing ran and nothing is billed.
  Outcome circuit_open(const Pool& pool, const Invocation& invocation, TimePoint now) const {
    Outcome outcome;
    outcome.kind = OutcomeKind::kFunctionError;
    outcome.error_type = pool.breaker.error_type();
    std::string message = "RequestId: " + invocation.request_id + " Error: Not run: the last " + std::to_string(pool.breaker.failures()) +
                          " environments of this version failed, so one is tried only now and then. The next try is due in " +
                          milliseconds(std::max(pool.breaker.next_try() - now, Duration::zero())) + ".";
    if (!pool.breaker.message().empty()) message += " The last failure: " + pool.breaker.message();
    outcome.payload = R"({"errorType":)" + base::json_quote(outcome.error_type) + R"(,"errorMessage":)" + base::json_quote(message) + "}";
    return outcome;
  }

  // ---- pools and states -----------------------------------------------------------------------------------------------

  Function& function_for(const std::string& name) {
    Function& function = functions[name];
    if (function.name.empty()) function.name = name;
    if (function.is_unused) {
      unused_functions.erase(function.unused);
      function.is_unused = false;
    }
    return function;
  }

  // Nothing of `function` is left but what its history tells; that is kept for as many as options say.
  void lay_aside(Function& function) {
    if (function.pools != 0 || function.reserved || function.is_unused) return;
    function.is_unused = true;
    function.unused = unused_functions.insert(unused_functions.end(), &function);
    if (unused_functions.size() <= options.functions_remembered_max) return;
    const std::string oldest = unused_functions.front()->name;
    unused_functions.pop_front();
    functions.erase(oldest);
  }

  Pool& pool_for(const VersionPtr& version) {
    const auto found = pools.find(PoolKey(*version));
    if (found != pools.end()) return *found->second;
    auto pool = std::make_unique<Pool>();
    pool->number = next_pool++;
    pool->version = version;
    pool->slots = std::max(backend.runs_at_once(*version), 1U);
    if (pool->slots > 1) pool->partly.resize(pool->slots);
    pool->idle_bytes = std::uint64_t{version->config.memory_mb} << 20U;
    pool->function = &function_for(version->function_name);
    ++pool->function->pools;
    return *pools.emplace(PoolKey(*version), std::move(pool)).first->second;
  }

  void forget_if_empty(Pool& pool) {
    if (pool.environments != 0 || !pool.queue.empty() || pool.target != 0) return;
    if (!pool.outdated && !draining && (pool.again_at != base::kNoDeadline || pool.forget_failures_at != base::kNoDeadline)) return;
    starved.erase(&pool);
    timers.forget(pool.timer);
    Function& function = *pool.function;
    const VersionPtr version = pool.version;  // the key's texts are its
    pools.erase(PoolKey(*version));
    --function.pools;
    lay_aside(function);
  }

  // Adds or takes away what `environment` counts for in its present state.
  enum class Tally : std::uint8_t { kAdd, kTakeAway };
  void tally(Environment& environment, Tally how) {
    Pool& pool = *environment.pool;
    Function& function = *pool.function;
    const State state = environment.state;
    const auto count = [how](std::uint32_t& counter, bool counts, std::uint32_t by = 1) {
      if (counts) counter = how == Tally::kAdd ? counter + by : counter - by;
    };
    const bool own_init = state == State::kStarting && environment.phase == InitPhase::kOwn;
    const bool lives = state != State::kStopping;
    count(live, lives);
    count(pool.living, lives);
    count(spare, state == State::kIdle && !environment.provisioned);
    const bool redone_init = state == State::kStarting && !own_init;
    count(function.starting, own_init, pool.slots);
    count(function.starting, redone_init, pool.slots - 1);
    count(pool.redoing, redone_init);
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
  void enter(Environment& environment, State next, TimePoint now) {
    const State before = environment.state;
    MAYFLY_ASSERT(before != State::kStopping || next == State::kStopping, "a stopping environment stays so");
    Function& function = *environment.pool->function;
    if (before == State::kIdle && next != State::kIdle) leave_idle(environment);
    if (next == State::kStopping) {
      for (Run& run : environment.runs) no_longer_expected(environment, run);
    }
    tally(environment, Tally::kTakeAway);
    environment.state = next;
    tally(environment, Tally::kAdd);
    if (next == State::kBusy) {
      const std::uint32_t level = ++function.busy;
      function.histories.on_busy(level, now);
    } else if (before == State::kBusy) {
      const std::uint32_t level = function.busy--;
      function.histories.on_free(level, now);
    }
    place(environment);
  }

  void leave_idle(Environment& environment) {
    std::vector<Environment*>& free = free_of(environment);
    if (free.back() == &environment) {
      free.pop_back();
    } else {
      std::erase(free, &environment);
    }
    idle_bytes -= environment.bytes;
    environment.bytes = 0;
    if (environment.evictable) evictable.erase(&environment);
    environment.evictable = false;
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
    if (environment.state != State::kBusy || !environment.takes_more() || environment.yielding || runs == 0 || runs >= pool.slots) return;
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

  void stop(Environment& environment, StopReason reason, TimePoint now) {
    enter(environment, State::kStopping, now);
    set_timer(environment, base::kNoDeadline);
    backend.stop(environment.id, reason);
  }

  void erase(Environment& environment) {
    Pool& pool = *environment.pool;
    timers.forget(environment.timer);
    --pool.environments;
    environments.erase(environment.id);
    forget_if_empty(pool);
  }

  // ---- starting -------------------------------------------------------------------------------------------------------

  // The idle environment that is ended first where room is needed: of those that were put to rest the least dear, else the one
  // that became idle first.
  Environment* least_dear() {
    if (!evictable.empty()) return *evictable.begin();
    Environment* oldest = nullptr;
    for (auto& [key, pool] : pools) {
      for (Environment* environment : pool->idle) {
        if (oldest == nullptr || environment->idle_since < oldest->idle_since) oldest = environment;
      }
    }
    return oldest;
  }

  // Greedy dual: what is used often, dear to make and small stays; the clock makes those age that are not used (docs/adr/0012).
  void evict(Environment& environment, TimePoint now) {
    eviction_clock = std::max(eviction_clock, environment.priority);
    stop(environment, StopReason::kIdle, now);
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

  // Whether one more environment on demand may be made.
  bool may_start(const Pool& pool, TimePoint now) const {
    if (!capacity.may_run(*pool.function) || !room_for_one() || pool.function->rate.next(options.burst_starts) > now) return false;
    return !pool.breaker.open(options.circuit_breaker) || (pool.starting + pool.redoing == 0 && pool.breaker.next_try() <= now);
  }

  // Whether one more environment may become active for `pool`: one of its idle ones, or a new one.
  bool may_serve(Pool& pool, TimePoint now) { return usable(pool) != nullptr || may_start(pool, now); }

  Environment& make_environment(Pool& pool, InitPhase phase, Initialization initialization, TimePoint now) {
    if (live >= options.environments_max) {
      if (Environment* victim = least_dear()) evict(*victim, now);
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

  Environment& start_own(Pool& pool, Initialization initialization, TimePoint now) {
    Environment& environment = make_environment(pool, InitPhase::kOwn, initialization, now);
    environment.served = environment.provisioned;
    if (!environment.provisioned) {
      pool.function->rate.started(options.burst_starts, now);
      if (pool.breaker.open(options.circuit_breaker)) pool.breaker.trying(now);
      pool.again_at = base::kNoDeadline;  // it is here
    }
    set_timer(environment, now + options.start_budget);
    backend.start(
        {.id = environment.id, .version = pool.version, .phase = InitPhase::kOwn, .waiting = nullptr, .initialization = initialization});
    return environment;
  }

  static std::size_t covered(const Pool& pool) {
    return std::size_t{pool.starting} * pool.slots + std::size_t{pool.redoing} * (pool.slots - 1) + pool.expected;
  }

  // One step towards serving the oldest waiting invocation of `pool`; may_serve() holds. An idle environment is there beside
  // a queue only when the concurrency limit kept it from being used.
  void serve_one(Pool& pool, TimePoint now) {
    pool.function->turn = ++turns;
    Environment* free = usable(pool);
    if (free == nullptr) {
      (void)start_own(pool, Initialization::kOnDemand, now);
    } else if (std::optional<Taken> next = take_next(pool, now)) {
      hand_over(*free, *std::move(next), now);
    }
  }

  static bool needs_more(const Pool& pool) { return pool.queue.size() > covered(pool); }

  // While draining: ends starts on demand beyond what waits, the latest first. Whether there were any.
  bool stop_needless_starts(Pool& pool, TimePoint now) {
    bool stopped = false;
    while (pool.starting > 0 && std::size_t{pool.starting - 1} * pool.slots >= pool.queue.size()) {
      Environment* latest = nullptr;
      for (auto& [id, environment] : environments) {
        const bool starts = environment.state == State::kStarting && environment.phase == InitPhase::kOwn && !environment.provisioned;
        if (environment.pool == &pool && starts && (latest == nullptr || id > latest->id)) latest = &environment;
      }
      if (latest == nullptr) break;
      stop(*latest, StopReason::kShutdown, now);
      stopped = true;
    }
    return stopped;
  }

  // Starts what the waiting invocations of `pool` still need, as far as the limits allow; where others wait too, in turn with them.
  void pump(Pool& pool, TimePoint now) {
    if (pool.breaker.open(options.circuit_breaker) && !may_serve(pool, now)) refuse_uncovered(pool, now);
    if (needs_more(pool) && !starved.empty()) {
      starved.insert(&pool);
      share_out(now);
    } else {
      while (needs_more(pool) && may_serve(pool, now)) serve_one(pool, now);
    }
    if (needs_more(pool) && pool.breaker.open(options.circuit_breaker)) refuse_uncovered(pool, now);
    if (needs_more(pool)) {
      starved.insert(&pool);
      set_timer(pool, now);
    } else {
      starved.erase(&pool);
    }
    if (draining && stop_needless_starts(pool, now)) feed(now);
  }

  // Gives freed capacity to what is promised, then to those that wait.
  void feed(TimePoint now) {
    if (lacking > 0) {
      for (const auto& [number, pool] : provisioned_pools) provision(*pool, now);
    }
    share_out(now);
  }

  // Whether `a` is to have the next place rather than `b`: its function has fewer, else its turn is longer ago, else it waits longer.
  static bool goes_before(const Pool& a, const Pool& b) {
    const Function &of_a = *a.function, &of_b = *b.function;
    if (of_a.active != of_b.active) return of_a.active < of_b.active;
    if (of_a.turn != of_b.turn) return of_a.turn < of_b.turn;
    return a.queue.front().sequence < b.queue.front().sequence;
  }

  void share_out(TimePoint now) {
    while (!starved.empty()) {
      Pool* next = nullptr;
      for (Pool* pool : starved) {
        if (needs_more(*pool) && may_serve(*pool, now) && (next == nullptr || goes_before(*pool, *next))) next = pool;
      }
      if (next == nullptr) return;
      serve_one(*next, now);
      if (!needs_more(*next)) starved.erase(next);
    }
  }

  // Whether an environment of `pool` that is free again leaves its place to another function: one that waits for the account's
  // concurrency and has fewer places, or as many without this one and its turn longer ago. So a function with many calls cannot keep
  // every place because it has them.
  bool owes_a_place(const Environment& environment, TimePoint now) const {
    if (starved.empty() || environment.provisioned) return false;
    const Function& own = *environment.pool->function;
    if (own.reserved) return false;
    return std::ranges::any_of(starved, [&](const Pool* pool) {
      const Function& other = *pool->function;
      if (&other == &own || other.reserved || !needs_more(*pool)) return false;
      if (other.active + 1 >= own.active && !(other.active < own.active && other.turn < own.turn)) return false;
      if (!pool->idle.empty()) return true;
      return other.rate.next(options.burst_starts) <= now && !pool->breaker.open(options.circuit_breaker);
    });
  }

  // ---- provisioned concurrency ----------------------------------------------------------------------------------------

  // Starts what `pool` lacks as far as the limits allow, a few at once; after a failure one alone tries first.
  void provision(Pool& pool, TimePoint now) {
    while (pool.lacks() && pool.retry_at <= now && pool.provisioned_starting < (pool.failure.empty() ? options.provision_starts_max : 1) &&
           capacity.may_provision(*pool.function) && room_for_one()) {
      (void)start_own(pool, Initialization::kProvisioned, now);
    }
  }

  void set_target(Pool& pool, std::uint32_t target, TimePoint now) {
    if (pool.target == target) return;
    change_held(pool, [&] {
      pool.target = target;
      pool.failure.clear();
    });
    pool.failures = 0;
    pool.retry_at = {};
    set_timer(pool, now);
    if (target == 0) {
      provisioned_pools.erase(pool.number);
    } else {
      provisioned_pools[pool.number] = &pool;
    }
    if (pool.provisioned > target) shed(pool, now);
  }

  // Ends provisioned environments beyond the target: idle ones, then those that start; what runs finishes first.
  void shed(Pool& pool, TimePoint now) {
    const StopReason reason = draining ? StopReason::kShutdown : StopReason::kReplaced;
    while (pool.provisioned > pool.target && !pool.ready.empty()) stop(*pool.ready.front(), reason, now);
    for (const bool running : {false, true}) {
      for (auto& [id, environment] : environments) {
        if (pool.provisioned <= pool.target) return;
        if (environment.pool != &pool || !environment.provisioned || environment.state == State::kStopping) continue;
        if (environment.state == State::kStarting) {
          stop(environment, reason, now);
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
    set_timer(pool, now);
  }

  // ---- the queue ------------------------------------------------------------------------------------------------------

  void enqueue(Pool& pool, InvocationPtr invocation, TimePoint now) {
    if (spare_entries.empty()) spare_entries.emplace_back();
    pool.queue.splice(pool.queue.end(), spare_entries, spare_entries.begin());
    Waiting& entry = pool.queue.back();
    entry.pool = &pool;
    entry.sequence = next_sequence++;
    entry.since = now;
    entry.extended = entry.returned = false;
    ++pool.function->queued;
    ++queued;
    timers.set(entry.timer, std::min(invocation->call_deadline, now + options.queue_budget));
    entry.invocation = std::move(invocation);
  }

  // Back to the front: `run` ended with an environment that had not received it.
  void return_to_queue(Pool& pool, Run& run, TimePoint now) {
    enqueue(pool, std::move(run.invocation), now);
    run.invocation = nullptr;
    Waiting& entry = pool.queue.back();
    entry.since = run.since;
    entry.returned = true;
    if (pool.queue.size() > 1) entry.sequence = pool.queue.front().sequence;
    pool.queue.splice(pool.queue.begin(), pool.queue, std::prev(pool.queue.end()));
  }

  struct Taken {
    InvocationPtr invocation;
    TimePoint since;
    bool returned = false;
  };

  Taken take(Pool& pool, std::list<Waiting>::iterator position) {
    timers.forget(position->timer);
    Taken taken{.invocation = std::move(position->invocation), .since = position->since, .returned = position->returned};
    spare_entries.splice(spare_entries.begin(), pool.queue, position);
    --pool.function->queued;
    --queued;
    return taken;
  }

  // The oldest waiting invocation of `pool` that still has time; those without are refused on the way.
  std::optional<Taken> take_next(Pool& pool, TimePoint now) {
    while (!pool.queue.empty()) {
      Taken taken = take(pool, pool.queue.begin());
      if (taken.invocation->call_deadline > now) return taken;
      refuse(std::move(taken.invocation), too_late(now - taken.since), now - taken.since);
    }
    return std::nullopt;
  }

  void expire_waiting(Waiting& entry, TimePoint now) {
    Pool& pool = *entry.pool;
    std::size_t position = 0;
    auto it = pool.queue.begin();
    for (; &*it != &entry; ++it) ++position;
    if (it->invocation->call_deadline > now && !it->extended && position < covered(pool)) {
      it->extended = true;
      timers.set(it->timer, std::min(it->invocation->call_deadline, now + options.start_budget));
      return;
    }
    const bool out_of_time = it->invocation->call_deadline <= now;
    Taken taken = take(pool, it);
    refuse(std::move(taken.invocation), out_of_time ? too_late(now - taken.since) : throttled(pool, now), now - taken.since);
    pump(pool, now);
    forget_if_empty(pool);
  }

  // Its circuit is open: only those wait on for whom an environment is on its way.
  void refuse_uncovered(Pool& pool, TimePoint now) {
    while (needs_more(pool)) {
      Taken taken = take(pool, std::prev(pool.queue.end()));
      Outcome outcome = circuit_open(pool, *taken.invocation, now);
      refuse(std::move(taken.invocation), std::move(outcome), now - taken.since);
    }
    starved.erase(&pool);
  }

  // An environment of `pool` failed by the function's own fault.
  void count_failure(Pool& pool, const std::string& error_type, const std::string& document, TimePoint now) {
    pool.breaker.failed(options.circuit_breaker, error_type, message_of(document), now);
    pool.forget_failures_at = now + 2 * options.circuit_breaker.pause_max;
    set_timer(pool, now);
  }
  void count_success(Pool& pool) {
    if (pool.forget_failures_at == base::kNoDeadline) return;
    pool.breaker.succeeded();
    pool.forget_failures_at = base::kNoDeadline;
  }

  // Over a reservation nothing waits, unless an environment of the function is about to be free and no other call waits for it.
  static bool over_reservation(const FunctionUse& function) {
    return function.reservation_full() && function.queued >= function.starting + function.answered;
  }

  // Refuses whatever waits for a function that may run nothing.
  void refuse_waiting(Function& function, TimePoint now) {
    std::vector<Pool*> emptied;
    for (auto& [key, pool] : pools) {
      if (pool->function != &function) continue;
      while (!pool->queue.empty()) {
        Taken taken = take(*pool, pool->queue.begin());
        refuse(std::move(taken.invocation), throttled(*pool, now), now - taken.since);
      }
      starved.erase(pool.get());
      emptied.push_back(pool.get());
    }
    for (Pool* pool : emptied) forget_if_empty(*pool);
  }

  // ---- running --------------------------------------------------------------------------------------------------------

  Run& add_run(Environment& environment, Taken taken, TimePoint now) {
    Run& run = environment.runs.emplace_back();
    run.id = environment.next_run++;
    run.since = taken.since;
    run.handed = now;
    run.deadline = run.due = std::min(now + timeout_of(*taken.invocation), taken.invocation->call_deadline);
    run.invocation = std::move(taken.invocation);
    run.returned = taken.returned;
    run.cold = !environment.served || environment.phase == InitPhase::kInInvocation;
    environment.served = environment.proven = true;
    return run;
  }

  void hand_over(Environment& environment, Taken taken, TimePoint now) {
    const bool cold = !environment.served;
    Run& run = add_run(environment, std::move(taken), now);
    ++environment.pool->function->calls;
    environment.ahead = false;
    run.cold = run.bills_init = cold;
    environment.frozen = false;
    if (environment.provisioned) environment.pool->failures = 0;
    if (environment.state == State::kBusy) {
      place(environment);
    } else {
      enter(environment, State::kBusy, now);
    }
    set_run_timer(environment);
    backend.send({.environment = environment.id,
                  .run = run.id,
                  .invocation = run.invocation,
                  .run_deadline = run.deadline,
                  .first = cold,
                  .returned = run.returned});
  }

  // The runtime of `environment` asks for work, in as many slots as are free. It gets none where the limits were lowered below what
  // runs.
  void available(Environment& environment, TimePoint now) {
    Pool& pool = *environment.pool;
    // One that was made just now was made in its function's turn. One that yielded takes work again once nobody waits for its place.
    environment.yielding = environment.state == State::kBusy && owes_a_place(environment, now);
    bool took = false;
    while (environment.takes_more() && !environment.yielding && environment.runs.size() < pool.slots && !pool.queue.empty() &&
           may_go_on(environment)) {
      std::optional<Taken> next = take_next(pool, now);
      if (!next) break;
      if (!starved.empty()) pool.function->turn = ++turns;
      hand_over(environment, *std::move(next), now);
      took = true;
    }
    if (took) return pump(pool, now);
    if (environment.runs.empty()) {
      become_idle(environment, now);
    } else {
      place(environment);
      set_run_timer(environment);
    }
    feed(now);
    pump(pool, now);
  }

  void become_idle(Environment& environment, TimePoint now) {
    Pool& pool = *environment.pool;
    environment.yielding = false;
    if (environment.closed) return stop(environment, environment.close_reason, now);
    if (draining || pool.outdated || environment.retiring)
      return stop(environment, draining ? StopReason::kShutdown : StopReason::kReplaced, now);
    enter(environment, State::kIdle, now);
    free_of(environment).push_back(&environment);
    if (!environment.provisioned) environment.bytes = pool.idle_bytes;
    idle_bytes += environment.bytes;
    environment.idle_since = now;
    environment.frozen = false;
    const Duration rest = environment.provisioned ? options.freeze_after : std::min(options.freeze_after, options.idle_timeout);
    set_timer(environment, now + rest);
  }

  // An idle environment on demand has not been used for a moment: how long it stays, and which others must go for it.
  void settle(Environment& environment, TimePoint now) {
    Pool& pool = *environment.pool;
    Function& function = *pool.function;
    // Used last-in first-out: it is needed again when those above it in the pile are busy too.
    const auto above = std::ranges::find(pool.idle.rbegin(), pool.idle.rend(), &environment) - pool.idle.rbegin();
    environment.level = function.busy + static_cast<std::uint32_t>(above) + 1;
    KeepAlivePlan plan = plan_of(pool, environment.level);
    if (environment.ahead) plan = {.keep = std::max(pool.again_keep, ArrivalHistory::kShortest)};
    environment.keep_until = environment.idle_since + plan.keep;
    const double cost = std::max(base::to_ms(environment.start + environment.init), 1.0);
    const double mebibytes = std::max(static_cast<double>(environment.bytes) / (1 << 20U), 1.0);
    environment.priority = eviction_clock + static_cast<double>(std::max<std::uint64_t>(function.calls, 1)) * cost / mebibytes;
    environment.evictable = true;
    evictable.insert(&environment);
    while (idle_bytes > options.idle_memory_max && !evictable.empty()) evict(**evictable.begin(), now);
  }

  // Made anew when the history has grown by an eighth, or the size is another: it costs microseconds.
  const KeepAlivePlan& plan_of(const Pool& pool, std::uint32_t level) {
    const std::size_t group = ArrivalHistories::group_of(level);
    const ArrivalHistory& history = pool.function->histories.of_group(group);
    std::vector<Function::Planned>& plans = pool.function->planned;
    if (group >= plans.size()) plans.resize(group + 1);
    Function::Planned& planned = plans[group];
    const std::uint32_t gaps = history.gaps();
    const bool same_gaps = gaps >= planned.gaps && gaps - planned.gaps <= planned.gaps / 8;
    if (!planned.made || !same_gaps || planned.bytes != pool.idle_bytes) {
      planned = {.plan = keep_alive->plan(history, pool.idle_bytes), .made = true, .gaps = gaps, .bytes = pool.idle_bytes};
    }
    return planned.plan;
  }

  // The time that `environment` was to be kept is over. Where a later call is foreseen, another one is made before it.
  void keep_no_longer(Environment& environment, TimePoint now) {
    Pool& pool = *environment.pool;
    const bool was_ahead = environment.ahead;
    const KeepAlivePlan plan = plan_of(pool, 1);
    const TimePoint again_at = environment.idle_since + plan.again_after;
    stop(environment, StopReason::kIdle, now);
    if (was_ahead || environment.level > 1 || plan.again_after == Duration::zero() || pool.function->active != 0 || pool.living != 0) return;
    pool.again_at = std::max(again_at, now);
    pool.again_keep = plan.again_keep;
    set_timer(pool, now);
  }

  // Makes an environment for a call that is foreseen, where nobody has to go or wait for it.
  void start_ahead(Pool& pool, TimePoint now) {
    pool.again_at = base::kNoDeadline;
    if (draining || pool.outdated || pool.living > 0 || live >= options.environments_max || !may_start(pool, now)) return;
    if (pool.breaker.failures() > 0 || idle_bytes + pool.idle_bytes > options.idle_memory_max) return;
    Environment& environment = start_own(pool, Initialization::kOnDemand, now);
    environment.ahead = environment.served = true;
    ++totals.started_ahead;
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
    stop(environment, environment.close_reason, now);
    pump(pool, now);
    feed(now);
    return true;
  }

  // A first init ended badly: it is done again at the expense of the oldest waiting invocation, if any waits.
  void redo_init(Pool& pool, TimePoint now) {
    if (!capacity.may_run(*pool.function)) return;  // it waits on
    std::optional<Taken> next = take_next(pool, now);
    if (!next) return;
    Environment& environment = make_environment(pool, InitPhase::kInInvocation, Initialization::kOnDemand, now);
    const Run& run = add_run(environment, *std::move(next), now);
    set_run_timer(environment);
    backend.start({.id = environment.id,
                   .version = pool.version,
                   .phase = InitPhase::kInInvocation,
                   .waiting = run.invocation,
                   .run = run.id,
                   .run_deadline = run.deadline});
  }

  // Whether an own init ended by what the function did, or was cut because it takes longer than one may: it may well end in the
  // function's own time.
  enum class InitEnd : std::uint8_t { kFailed, kCut };

  // `environment` failed before it could take work and is kStopping now.
  void init_failed(Environment& environment, InitFailure failure, InitEnd end, TimePoint now) {
    Pool& pool = *environment.pool;
    const bool bound = environment.phase == InitPhase::kInInvocation;
    if (!environment.provisioned && !failure.platform_fault && end == InitEnd::kFailed)
      count_failure(pool, failure.error_type, failure.payload, now);
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
      if (std::optional<Taken> next = take_next(pool, now)) {
        refuse(std::move(next->invocation), refusal(as_service_error(failure.error)), now - next->since);
      }
    } else if (end == InitEnd::kFailed && pool.breaker.open(options.circuit_breaker)) {
      // A try is one init, and whoever it was for hears how it failed.
      if (std::optional<Taken> next = take_next(pool, now)) {
        Outcome outcome;
        outcome.kind = OutcomeKind::kFunctionError;
        outcome.error_type = std::move(failure.error_type);
        outcome.payload = std::move(failure.payload);
        refuse(std::move(next->invocation), std::move(outcome), now - next->since);
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
      // A redone init got all the time there is, unless its caller's ended first.
      if (environment.state == State::kStarting && run.deadline < run.invocation->call_deadline)
        count_failure(*environment.pool, "Sandbox.Timedout", "", now);
      enter(environment, State::kStopping, now);
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
    stop(environment, StopReason::kInitTimeout, now);
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
    init_failed(environment, std::move(failure), InitEnd::kCut, now);
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
        if (environment.frozen) return keep_no_longer(environment, now);
        if (!environment.provisioned) {
          settle(environment, now);
          if (environment.state != State::kIdle) return;  // there was no room for it
          if (environment.keep_until <= now) return keep_no_longer(environment, now);
        }
        environment.frozen = true;
        set_timer(environment, environment.keep_until);
        return backend.freeze(environment.id);
    }
  }

  void on_pool_timer(Pool& pool, TimePoint now) {
    if (pool.forget_failures_at <= now) count_success(pool);
    if (pool.again_at <= now) start_ahead(pool, now);
    feed(now);
    pump(pool, now);
    set_timer(pool, now);
    forget_if_empty(pool);
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
  const Function& function = *pool.function;
  if (Environment* free = pool.queue.empty() ? d.usable(pool) : nullptr) {
    d.hand_over(*free, {.invocation = std::move(invocation), .since = now}, now);
  } else if (pool.breaker.open(d.options.circuit_breaker) && !d.may_serve(pool, now) && pool.queue.size() >= Impl::covered(pool)) {
    Outcome outcome = d.circuit_open(pool, *invocation, now);
    d.refuse(std::move(invocation), std::move(outcome), Duration::zero());
  } else if (!d.may_serve(pool, now) &&
             (Impl::over_reservation(function) || function.queued >= d.options.queue_max_per_function + Impl::covered(pool))) {
    // Those an environment is already being made for do not count as waiting in the queue.
    d.refuse(std::move(invocation), d.throttled(pool, now), Duration::zero());
    d.forget_if_empty(pool);
  } else {
    d.enqueue(pool, std::move(invocation), now);
    d.pump(pool, now);
    if (d.options.queue_budget == Duration::zero() && pool.queue.size() > Impl::covered(pool)) {
      d.expire_waiting(pool.queue.back(), now);
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
    impl_->enter(*environment, State::kBusy, now);
    const Run& run = environment->runs.front();
    impl_->backend.send({.environment = id, .run = run.id, .invocation = run.invocation, .run_deadline = run.deadline});
    if (environment->pool->slots > 1) impl_->available(*environment, now);
  }
  impl_->flush();
}

void Dispatcher::on_init_failed(EnvironmentId id, InitFailure failure, TimePoint now) {
  Environment* environment = impl_->find(id);
  if (environment == nullptr || environment->state != State::kStarting) return;
  impl_->enter(*environment, State::kStopping, now);
  impl_->set_timer(*environment, base::kNoDeadline);
  impl_->init_failed(*environment, std::move(failure), Impl::InitEnd::kFailed, now);
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
    Pool& pool = *environment->pool;
    impl_->count_success(pool);
    if (outcome.memory_peak > 0) {
      pool.idle_bytes = std::min<std::uint64_t>(outcome.memory_peak, std::uint64_t{pool.version->config.memory_mb} << 20U);
    }
    impl_->finish_run(*environment, *run, std::move(outcome), now);
    if (environment->takes_more()) Impl::expect(*environment, *run);
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

void Dispatcher::on_leaving(EnvironmentId id, TimePoint now) {
  Environment* environment = impl_->find(id);
  if (environment == nullptr || environment->state != State::kBusy) return;  // an idle one gives back what it is handed, if anything
  environment->leaving = true;
  for (Run& run : environment->runs) Impl::no_longer_expected(*environment, run);
  Impl::place(*environment);
  impl_->pump(*environment->pool, now);
  impl_->flush();
}

void Dispatcher::on_gone(EnvironmentId id, std::vector<EndedRun> ended, TimePoint now) {
  Environment* found = impl_->find(id);
  if (found == nullptr) return;
  Environment& environment = *found;
  Pool& pool = *environment.pool;
  const State was = environment.state;
  impl_->enter(environment, State::kStopping, now);
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
    impl_->init_failed(environment, std::move(failure), Impl::InitEnd::kFailed, now);
  }
  bool counted = false;  // one crash is one failure, however many runs it ends
  for (Run& run : environment.runs) {
    if (run.answered()) continue;
    const auto told = std::ranges::find(ended, run.id, &EndedRun::run);
    if (told != ended.end() && !told->received && !run.returned && !run.timed_out && run.invocation->call_deadline > now) {
      impl_->return_to_queue(pool, run, now);
      continue;
    }
    if (!counted && told != ended.end() && was == State::kBusy && !run.timed_out && told->outcome.kind == OutcomeKind::kFunctionError) {
      impl_->count_failure(pool, told->outcome.error_type, told->outcome.payload, now);
      counted = true;
    }
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
    impl_->set_target(*pool, 0, now);
    while (!pool->idle.empty()) impl_->stop(*pool->idle.back(), StopReason::kReplaced, now);
    outdated.push_back(pool.get());
  }
  for (Pool* pool : outdated) impl_->forget_if_empty(*pool);
  impl_->feed(now);
  impl_->flush();
}

void Dispatcher::set_reserved_concurrency(const std::string& function_name, std::optional<std::uint32_t> reserved, TimePoint now) {
  Impl& d = *impl_;
  const auto it = d.functions.find(function_name);
  if (it == d.functions.end() && !reserved) return;
  Function& function = it == d.functions.end() ? d.function_for(function_name) : it->second;
  if (function.reserved == reserved) return;
  if (reserved) (void)d.function_for(function_name);  // in use, also without any pool
  d.capacity.change(function, [&] { function.reserved = reserved; });
  if (reserved == 0U) d.refuse_waiting(function, now);
  d.lay_aside(function);
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
    d.set_target(*pool, 0, now);
    d.forget_if_empty(*pool);
  }
  if (count > 0) {
    Pool& pool = d.pool_for(version);
    if (!pool.outdated) d.set_target(pool, count, now);
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
  while (const Timer* due = impl_->timers.take_due(now)) {
    switch (due->of) {
      case Timer::Of::kEnvironment:
        impl_->on_environment_timer(*static_cast<Environment*>(due->owner), now);
        break;
      case Timer::Of::kWaiting:
        impl_->expire_waiting(*static_cast<Waiting*>(due->owner), now);
        break;
      case Timer::Of::kPool:
        impl_->on_pool_timer(*static_cast<Pool*>(due->owner), now);
        break;
    }
  }
  impl_->flush();
}

std::uint64_t Dispatcher::evict_idle(std::uint64_t bytes, TimePoint now) {
  std::uint64_t freed = 0;
  while (freed < bytes) {
    Environment* victim = impl_->least_dear();
    if (victim == nullptr) break;
    freed += victim->bytes;
    impl_->evict(*victim, now);
  }
  impl_->flush();
  return freed;
}

void Dispatcher::drain(TimePoint now) {
  impl_->draining = true;
  while (!impl_->provisioned_pools.empty()) {
    Pool& pool = *impl_->provisioned_pools.begin()->second;
    impl_->set_target(pool, 0, now);
    impl_->forget_if_empty(pool);
  }
  std::vector<Pool*> all;
  for (auto& [key, pool] : impl_->pools) all.push_back(pool.get());
  for (Pool* pool : all) {
    while (!pool->idle.empty()) impl_->stop(*pool->idle.back(), StopReason::kShutdown, now);
    (void)impl_->stop_needless_starts(*pool, now);
    impl_->forget_if_empty(*pool);
  }
  impl_->feed(now);
  impl_->flush();
}

bool Dispatcher::finished() const { return impl_->environments.empty() && impl_->queued == 0; }

bool Dispatcher::quiet() const {
  return impl_->queued == 0 && std::ranges::none_of(impl_->environments, [](const auto& entry) {
           return entry.second.state != State::kStopping || entry.second.somebody_waits();
         });
}

Dispatcher::Counts Dispatcher::counts() const {
  Counts counts = impl_->totals;
  for (const auto& [id, environment] : impl_->environments) {
    counts.starting += environment.state == State::kStarting ? 1U : 0U;
    counts.idle += environment.state == State::kIdle ? 1U : 0U;
    counts.busy += environment.state == State::kBusy ? 1U : 0U;
    counts.provisioned += environment.provisioned && environment.state != State::kStopping ? 1U : 0U;
  }
  counts.queued = impl_->queued;
  counts.idle_bytes = impl_->idle_bytes;
  return counts;
}

void Dispatcher::each_version(const std::function<void(const FunctionVersion&)>& visit) const {
  for (const auto& [key, pool] : impl_->pools) {
    if (pool->environments != 0 || !pool->queue.empty() || pool->target != 0) visit(*pool->version);
  }
}

std::uint32_t Dispatcher::concurrency_of(const std::string& function_name) const {
  const auto it = impl_->functions.find(function_name);
  return it == impl_->functions.end() ? 0 : it->second.active;
}

}  // namespace mayfly::engine
