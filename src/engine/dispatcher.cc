#include "engine/dispatcher.h"

#include <algorithm>
#include <cstdio>
#include <list>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "base/json.h"
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
  kBusy,      // an invocation runs
  kAnswered,  // its answer is out, the runtime has not come back yet
  kStopping,  // told to end, or ended badly; on_gone is awaited
};

bool is_active(State state) { return state == State::kStarting || state == State::kBusy || state == State::kAnswered; }

struct FunctionUse {
  std::uint32_t active = 0;
  std::uint32_t queued = 0;
};

struct Waiting {
  std::uint64_t sequence = 0;
  InvocationPtr invocation;
  TimePoint since;
  bool extended = false;  // its queue budget is spent, a start is under way for it
  TimePoint timer = base::kNoDeadline;
};

struct Pool {
  std::string key;
  VersionPtr version;
  FunctionUse* function = nullptr;
  std::list<Waiting> queue;         // oldest first
  std::vector<EnvironmentId> idle;  // the last one was used last
  std::uint32_t starting = 0;       // own inits under way: each will take one waiting invocation
  std::uint32_t expected = 0;       // answered and due back within the grace
  std::uint32_t environments = 0;   // of every state
  bool outdated = false;
};

struct Environment {
  EnvironmentId id = 0;
  Pool* pool = nullptr;
  State state = State::kStarting;
  InitPhase phase = InitPhase::kOwn;
  InvocationPtr invocation;  // running, or bound to this init, or timed out and not answered yet
  TimePoint since;           // of the invocation: when it came to the dispatcher
  TimePoint handed;          // when its run began
  TimePoint run_deadline = base::kNoDeadline;
  Duration start{0}, init{0};
  bool started = false;     // the sandbox runs
  bool served = false;      // an invocation was handed over before
  bool cold = false;        // the running invocation is the first
  bool bills_init = false;  // and its own init is on its bill
  bool expected = false;
  bool frozen = false;
  bool timed_out = false;
  TimePoint made, idle_since;
  TimePoint timer = base::kNoDeadline;
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

Outcome throttled() {
  return refusal(Error(ErrorCode::kResourceExhausted, "Rate Exceeded.", "TooManyRequestsException"), "ConcurrentInvocationLimitExceeded");
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
      : options(options_in), backend(backend_in), observer(observer_in) {}

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
  TimerSet timers;
  EnvironmentId next_id = 1;
  std::uint64_t next_sequence = 1;
  std::uint32_t active = 0, live = 0;
  bool draining = false;
  Counts totals;  // the counters; the gauges are worked out when asked for
  std::vector<Finished> finished;
  bool flushing = false;

  // Keys of timers: environments even, waiting invocations odd.
  static TimerSet::Key key_of(const Environment& environment) { return environment.id << 1U; }
  static TimerSet::Key key_of(const Waiting& entry) { return (entry.sequence << 1U) | 1U; }
  void set_timer(Environment& environment, TimePoint when) { timers.move(key_of(environment), environment.timer, when); }
  void set_timer(Waiting& entry, TimePoint when) { timers.move(key_of(entry), entry.timer, when); }

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
    totals.errors += outcome.kind == OutcomeKind::kFunctionError ? 1 : 0;
    totals.cold_starts += outcome.cold_start ? 1 : 0;
    observer.on_invocation(record);
    finished.push_back({std::move(invocation), std::move(outcome)});
  }

  void refuse(InvocationPtr invocation, Outcome outcome, Duration queued) {
    outcome.timings.queued = queued;
    finish(std::move(invocation), std::move(outcome));
  }

  // Ends the invocation of `environment` with what the backend tells, adding what only the dispatcher knows.
  void finish_run(Environment& environment, Outcome outcome, TimePoint now) {
    const Duration waited = environment.handed - environment.since;
    Timings& timings = outcome.timings;
    if (timings.run == Duration::zero()) timings.run = std::max(now - environment.handed, Duration::zero());
    timings.start = environment.bills_init ? std::min(environment.start, waited) : Duration::zero();
    timings.init = environment.bills_init ? environment.init : Duration::zero();
    timings.queued = std::max(waited - timings.start - timings.init, Duration::zero());
    if (outcome.billed == Duration::zero()) outcome.billed = billed_duration(timings.run, timings.init);
    outcome.cold_start = environment.cold;
    finish(std::move(environment.invocation), std::move(outcome));
    environment.invocation = nullptr;
  }

  // ---- pools and states -----------------------------------------------------------------------------------------------

  Pool& pool_for(const VersionPtr& version) {
    std::string key = pool_key(*version);
    std::unique_ptr<Pool>& pool = pools[key];
    if (!pool) {
      pool = std::make_unique<Pool>();
      pool->key = std::move(key);
      pool->version = version;
      pool->function = &functions[version->function_name];
    }
    return *pool;
  }

  void forget_if_empty(Pool& pool) {
    if (pool.environments != 0 || !pool.queue.empty()) return;
    starved.erase(&pool);
    const std::string name = pool.version->function_name;
    pools.erase(std::string(pool.key));
    const bool used =
        std::any_of(pools.begin(), pools.end(), [&](const auto& item) { return item.second->version->function_name == name; });
    if (!used) functions.erase(name);
  }

  // The one place where an environment changes state: it keeps every count.
  void enter(Environment& environment, State next) {
    Pool& pool = *environment.pool;
    MAYFLY_ASSERT(environment.state != State::kStopping || next == State::kStopping, "a stopping environment stays so");
    if (environment.expected) {
      environment.expected = false;
      --pool.expected;
    }
    if (environment.state == State::kStarting && next != State::kStarting && environment.phase == InitPhase::kOwn) --pool.starting;
    if (environment.state == State::kIdle && next != State::kIdle) std::erase(pool.idle, environment.id);
    if (is_active(environment.state) && !is_active(next)) {
      --active;
      --pool.function->active;
    } else if (!is_active(environment.state) && is_active(next)) {
      ++active;
      ++pool.function->active;
    }
    if (environment.state != State::kStopping && next == State::kStopping) --live;
    environment.state = next;
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

  Environment* oldest_idle() {
    Environment* oldest = nullptr;
    for (auto& [id, environment] : environments) {
      if (environment.state == State::kIdle && (oldest == nullptr || environment.idle_since < oldest->idle_since)) oldest = &environment;
    }
    return oldest;
  }

  // Whether one more environment may become active for `pool`: one of its idle ones, or a new one.
  bool may_serve(const Pool& pool) const {
    if (active >= options.concurrency_max) return false;
    return !pool.idle.empty() || live < options.environments_max || live > active;  // an idle one of others makes room
  }

  Environment& make_environment(Pool& pool, InitPhase phase, TimePoint now) {
    if (live >= options.environments_max) {
      if (Environment* oldest = oldest_idle()) stop(*oldest, StopReason::kIdle);
    }
    const EnvironmentId id = next_id++;
    Environment& environment = environments[id];
    environment.id = id;
    environment.pool = &pool;
    environment.phase = phase;
    environment.made = now;
    ++pool.environments;
    ++live;
    ++active;
    ++pool.function->active;
    return environment;
  }

  void start_own(Pool& pool, TimePoint now) {
    Environment& environment = make_environment(pool, InitPhase::kOwn, now);
    ++pool.starting;
    set_timer(environment, now + options.start_budget);
    backend.start({.id = environment.id, .version = pool.version, .phase = InitPhase::kOwn, .waiting = nullptr});
  }

  static std::size_t covered(const Pool& pool) { return std::size_t{pool.starting} + pool.expected; }

  // One step towards serving the oldest waiting invocation of `pool`; may_serve() holds. An idle environment is there beside
  // a queue only when the concurrency limit kept it from being used.
  void serve_one(Pool& pool, TimePoint now) {
    if (pool.idle.empty()) return start_own(pool, now);
    if (std::optional<Waiting> next = take_next(pool, now)) {
      hand_over(environments.at(pool.idle.back()), std::move(next->invocation), next->since, now);
    }
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

  // Gives freed capacity to the invocation that waited longest, whichever function it calls.
  void feed(TimePoint now) {
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
    refuse(std::move(entry.invocation), out_of_time ? too_late(now - entry.since) : throttled(), now - entry.since);
    pump(pool, now);
    forget_if_empty(pool);
  }

  // ---- running --------------------------------------------------------------------------------------------------------

  void hand_over(Environment& environment, InvocationPtr invocation, TimePoint since, TimePoint now) {
    enter(environment, State::kBusy);
    environment.cold = !environment.served;
    environment.bills_init = environment.cold;
    environment.served = true;
    environment.frozen = false;
    environment.since = since;
    environment.handed = now;
    environment.run_deadline = std::min(now + timeout_of(*invocation), invocation->call_deadline);
    environment.invocation = invocation;
    set_timer(environment, environment.run_deadline);
    backend.send(environment.id, std::move(invocation), environment.run_deadline, environment.cold);
  }

  // The runtime of `environment` asks for work.
  void available(Environment& environment, TimePoint now) {
    Pool& pool = *environment.pool;
    if (std::optional<Waiting> next = take_next(pool, now)) {
      hand_over(environment, std::move(next->invocation), next->since, now);
      return pump(pool, now);
    }
    starved.erase(&pool);
    if (draining || pool.outdated) {
      stop(environment, draining ? StopReason::kShutdown : StopReason::kReplaced);
    } else {
      enter(environment, State::kIdle);
      pool.idle.push_back(environment.id);
      environment.idle_since = now;
      environment.frozen = false;
      set_timer(environment, now + std::min(options.freeze_after, options.idle_timeout));
    }
    feed(now);
  }

  // A first init ended badly: it is done again at the expense of the oldest waiting invocation, if any waits.
  void redo_init(Pool& pool, TimePoint now) {
    std::optional<Waiting> next = take_next(pool, now);
    if (!next) return;
    Environment& environment = make_environment(pool, InitPhase::kInInvocation, now);
    environment.cold = true;
    environment.served = true;
    environment.since = next->since;
    environment.handed = now;
    environment.run_deadline = std::min(now + timeout_of(*next->invocation), next->invocation->call_deadline);
    environment.invocation = std::move(next->invocation);
    set_timer(environment, environment.run_deadline);
    backend.start({.id = environment.id,
                   .version = pool.version,
                   .phase = InitPhase::kInInvocation,
                   .waiting = environment.invocation,
                   .run_deadline = environment.run_deadline});
  }

  // `environment` failed before it could take work and is kStopping now.
  void init_failed(Environment& environment, InitFailure failure, TimePoint now) {
    Pool& pool = *environment.pool;
    const bool bound = environment.phase == InitPhase::kInInvocation;
    if (bound && environment.invocation) {
      Outcome outcome;
      if (failure.platform_fault) {
        refuse(std::move(environment.invocation), refusal(as_service_error(failure.error)), now - environment.since);
        environment.invocation = nullptr;
      } else {
        outcome.kind = OutcomeKind::kFunctionError;
        outcome.error_type = std::move(failure.error_type);
        outcome.payload = std::move(failure.payload);
        outcome.log_tail = std::move(failure.log_tail);
        outcome.log_stream = std::move(failure.log_stream);
        outcome.memory_peak = failure.memory_peak;
        finish_run(environment, std::move(outcome), now);
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

  void run_out_of_time(Environment& environment, TimePoint now) {
    environment.timed_out = true;
    ++totals.timeouts;
    enter(environment, State::kStopping);
    set_timer(environment, now + options.stop_grace);
    backend.stop(environment.id, StopReason::kTimeout);
    pump(*environment.pool, now);
    feed(now);
  }

  void finish_timed_out(Environment& environment, Outcome told, TimePoint now) {
    const Duration allowed = environment.run_deadline - environment.handed;
    told.kind = OutcomeKind::kFunctionError;
    told.error.reset();
    told.error_type = "Sandbox.Timedout";
    told.payload = timeout_document(environment.invocation->request_id, allowed);
    if (told.timings.run == Duration::zero()) told.timings.run = allowed;
    finish_run(environment, std::move(told), now);
  }

  void start_took_too_long(Environment& environment, TimePoint now) {
    const bool started = environment.started;
    stop(environment, StopReason::kInitTimeout);
    InitFailure failure;
    failure.platform_fault = !started;
    if (!started) {
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
        return environment.phase == InitPhase::kOwn ? start_took_too_long(environment, now) : run_out_of_time(environment, now);
      case State::kBusy: return run_out_of_time(environment, now);
      case State::kAnswered:
        if (environment.run_deadline > now) {  // later than hoped: it is no longer counted on
          environment.expected = false;
          --environment.pool->expected;
          set_timer(environment, environment.run_deadline);
          return pump(*environment.pool, now);
        }
        stop(environment, StopReason::kMisbehaved);
        pump(*environment.pool, now);
        return feed(now);
      case State::kIdle:
        if (!environment.frozen && environment.idle_since + options.idle_timeout > now) {
          environment.frozen = true;
          set_timer(environment, environment.idle_since + options.idle_timeout);
          return backend.freeze(environment.id);
        }
        return stop(environment, StopReason::kIdle);
      case State::kStopping:
        set_timer(environment, base::kNoDeadline);
        if (environment.invocation) finish_timed_out(environment, {}, now);
        return;
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
  if (pool.queue.empty() && !pool.idle.empty() && d.active < d.options.concurrency_max) {
    d.hand_over(d.environments.at(pool.idle.back()), std::move(invocation), now, now);
  } else if (!d.may_serve(pool) && pool.function->queued >= d.options.queue_max_per_function + Impl::covered(pool)) {
    // Those an environment is already being made for do not count as waiting in the queue.
    d.refuse(std::move(invocation), throttled(), Duration::zero());
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
  if (environment->phase == InitPhase::kOwn) impl_->set_timer(*environment, now + impl_->options.init_timeout);
}

void Dispatcher::on_initialised(EnvironmentId id, Duration start, Duration init, TimePoint now) {
  Environment* environment = impl_->find(id);
  if (environment == nullptr || environment->state != State::kStarting) return;
  environment->start = start;
  environment->init = init;
  if (environment->phase == InitPhase::kOwn) {
    impl_->available(*environment, now);
  } else {
    impl_->enter(*environment, State::kBusy);
    impl_->backend.send(id, environment->invocation, environment->run_deadline, false);
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

void Dispatcher::on_answered(EnvironmentId id, Outcome outcome, TimePoint now) {
  Environment* environment = impl_->find(id);
  if (environment == nullptr || environment->state != State::kBusy) return;
  impl_->finish_run(*environment, std::move(outcome), now);
  impl_->enter(*environment, State::kAnswered);
  environment->expected = true;
  ++environment->pool->expected;
  impl_->set_timer(*environment, std::min(environment->run_deadline, now + impl_->options.ready_grace));
  impl_->flush();
}

void Dispatcher::on_ready(EnvironmentId id, TimePoint now) {
  Environment* environment = impl_->find(id);
  if (environment == nullptr || environment->state != State::kAnswered) return;
  impl_->available(*environment, now);
  impl_->flush();
}

void Dispatcher::on_gone(EnvironmentId id, Outcome if_busy, TimePoint now) {
  Environment* found = impl_->find(id);
  if (found == nullptr) return;
  Environment& environment = *found;
  Pool& pool = *environment.pool;
  const State was = environment.state;
  impl_->enter(environment, State::kStopping);
  impl_->set_timer(environment, base::kNoDeadline);
  if (was == State::kStarting) {  // the backend owes on_init_failed first; take it as one
    InitFailure failure;
    failure.error_type = std::move(if_busy.error_type);
    failure.payload = std::move(if_busy.payload);
    failure.log_tail = std::move(if_busy.log_tail);
    failure.log_stream = std::move(if_busy.log_stream);
    failure.memory_peak = if_busy.memory_peak;
    impl_->init_failed(environment, std::move(failure), now);
  } else if (environment.invocation && environment.timed_out) {
    impl_->finish_timed_out(environment, std::move(if_busy), now);
  } else if (environment.invocation) {
    impl_->finish_run(environment, std::move(if_busy), now);
  }
  if (was != State::kStopping) impl_->pump(pool, now);
  impl_->erase(environment);
  impl_->feed(now);
  impl_->flush();
}

void Dispatcher::drop_outdated(const std::string& function_name, const std::function<bool(const FunctionVersion&)>& current,
                               TimePoint now) {
  for (auto& [key, pool] : impl_->pools) {
    if (pool->version->function_name != function_name || current(*pool->version)) continue;
    pool->outdated = true;
    while (!pool->idle.empty()) impl_->stop(impl_->environments.at(pool->idle.back()), StopReason::kReplaced);
  }
  impl_->feed(now);
  impl_->flush();
}

base::Deadline Dispatcher::next_timer() const { return impl_->timers.next(); }

void Dispatcher::on_timer(TimePoint now) {
  while (impl_->timers.due(now)) {
    const TimerSet::Key key = impl_->timers.first();
    if ((key & 1U) != 0) {
      impl_->expire_waiting(key >> 1U, now);
    } else {
      impl_->on_environment_timer(impl_->environments.at(key >> 1U), now);
    }
  }
  impl_->flush();
}

void Dispatcher::drain(TimePoint now) {
  impl_->draining = true;
  for (auto& [key, pool] : impl_->pools) {
    while (!pool->idle.empty()) impl_->stop(impl_->environments.at(pool->idle.back()), StopReason::kShutdown);
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
    counts.busy += environment.state == State::kBusy || environment.state == State::kAnswered ? 1U : 0U;
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
