// Dispatcher: admission, pools, queues and deadlines of one shard. A synchronous state machine: events and the time go
// in, calls on the EnvironmentBackend port come out. No I/O, no clock, no coroutine, no thread; the simulator drives the
// same code that ships.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "engine/invocation.h"
#include "engine/keep_alive.h"

namespace mayfly::engine {

using EnvironmentId = std::uint64_t;
// One hand-over of an invocation to an environment; unique in the environment's life, never 0.
using RunId = std::uint64_t;

// Which clock an init runs against (contract.md, Lifecycle).
enum class InitPhase : std::uint8_t {
  kOwn,           // its own 10 s, before the invocation's Timeout begins
  kInInvocation,  // redone after a failed first init: counts against the Timeout of the invocation that waits
};
enum class StopReason : std::uint8_t { kIdle, kReplaced, kTimeout, kInitTimeout, kCrashed, kShutdown, kMisbehaved };

// Why an init ended badly: the document the caller gets when the init was the invocation's own.
struct InitFailure {
  std::string error_type;            // "Runtime.ImportModuleError", "Runtime.ExitError" ...
  std::string payload;               // error document as posted by the runtime, or made by the platform
  bool platform_fault = false;       // the sandbox could not be made: the function is not to blame and nothing is redone
  std::optional<base::Error> error;  // platform faults
  // kInInvocation only: what the outcome of the waiting invocation also tells.
  std::string log_tail, log_stream;
  std::uint64_t memory_peak = 0;  // bytes
};

// What the environment is told in AWS_LAMBDA_INITIALIZATION_TYPE.
enum class Initialization : std::uint8_t { kOnDemand, kProvisioned };
[[nodiscard]] std::string_view initialization_name(Initialization initialization);  // "on-demand", "provisioned-concurrency"

// What a new environment is for.
struct StartOrder {
  EnvironmentId id = 0;
  VersionPtr version;
  InitPhase phase = InitPhase::kOwn;
  // kInInvocation only: the invocation whose Timeout pays for this init, for log lines and error texts; send() hands it over
  // once the runtime is ready. Its run began with this order and ends at `run_deadline`.
  InvocationPtr waiting;
  RunId run = 0;  // of that invocation
  base::Deadline run_deadline = base::kNoDeadline;
  Initialization initialization = Initialization::kOnDemand;
};

// An invocation for an environment that is ready for it.
struct RunOrder {
  EnvironmentId environment = 0;
  RunId run = 0;
  InvocationPtr invocation;
  base::Deadline run_deadline = base::kNoDeadline;
  bool first = false;     // nothing ran in this environment before, so its report names the init
  bool returned = false;  // another environment was handed it and never received it: that happens once
};

// What became of a run that its environment's end cut short.
struct EndedRun {
  RunId run = 0;
  Outcome outcome;
  // False only where the runtime provably was not given the invocation (the environment had died idle, or at its thaw): then it is
  // handed to another environment, once.
  bool received = true;
};

// Implemented by backend/local (and by a fake in tests). Calls never block and never call back into the Dispatcher before
// returning; what happens is reported later through the Dispatcher's on_... methods.
class EnvironmentBackend {
 public:
  virtual ~EnvironmentBackend() = default;
  // Makes an environment and initialises it.
  virtual void start(StartOrder order) = 0;
  // How many invocations an environment of `version` takes at once, at least 1: what the function asks for
  // (FunctionConfig::runs_per_environment) where its runtime and the contract with it can do that, else 1. The same for the whole
  // life of a version's generation.
  [[nodiscard]] virtual std::uint32_t runs_at_once(const FunctionVersion& version) const = 0;
  // Hands an invocation to the runtime (its next() answers). Thaws first when frozen. Never more than runs_at_once() at a time,
  // counting those that are answered and not ready yet.
  virtual void send(RunOrder order) = 0;
  // The time of `run` is over while others go on beside it: writes its time-out log line, ignores what the runtime still says of
  // it and reports on_answered with log tail and memory, soon; no stream piece reaches its sink after this call. The environment
  // gets nothing new any more, and on_ready is not expected for this run.
  virtual void give_up(EnvironmentId id, RunId run) = 0;
  virtual void freeze(EnvironmentId id) = 0;
  // Ends the environment; on_gone follows, and no stream piece reaches a sink after this call. For kTimeout the backend
  // writes the time-out log lines of what still runs before anything else ends, and on_gone carries log tail and memory.
  virtual void stop(EnvironmentId id, StopReason reason) = 0;
};

// When a version whose environments fail one after the other is tried only now and then.
struct CircuitBreakerOptions {
  std::uint32_t failures_max = 10;  // in a row: failed inits (not one cut to be redone), environments that ended in a run; then it opens
  base::Duration pause_min = std::chrono::seconds(1), pause_max = std::chrono::seconds(30);  // until a try; doubles with each that fails
};

struct DispatcherOptions {
  std::uint32_t concurrency_max = 1000;         // environments that may be busy or starting at once (the account's concurrency)
  std::uint32_t environments_max = 2000;        // and with the idle ones: older idle ones are ended first
  std::uint32_t queue_max_per_function = 1000;  // invocations waiting with no environment on its way for them; beyond it 429
  std::uint32_t burst_starts = 1000;  // environments that one function may start within 10 s, after a pause all at once, as on AWS
  base::Duration idle_timeout = std::chrono::minutes(10);  // how long environments stay idle, without another `keep_alive`
  std::shared_ptr<const KeepAlivePolicy> keep_alive = nullptr;
  std::uint64_t idle_memory_max = UINT64_MAX;       // bytes of idle environments on demand; beyond it the least dear ones end
  std::uint32_t functions_remembered_max = 10'000;  // with no environment, for their history
  CircuitBreakerOptions circuit_breaker = {};
  base::Duration freeze_after = std::chrono::milliseconds(10);
  base::Duration queue_budget = std::chrono::seconds(10);  // longest wait for a free environment
  base::Duration start_budget = std::chrono::seconds(20);  // making an environment and its own init
  base::Duration init_timeout = Limits::kInitTimeout;      // of an own init, from on_started
  // Of the init of a provisioned environment: this or the function's Timeout, whichever is longer, as on AWS.
  base::Duration provisioned_init_timeout = std::chrono::seconds(130);
  std::uint32_t provision_starts_max = 16;  // provisioned environments of one version that start at once: many must not stall the machine
  // A provisioned environment that failed is made again after this long, twice as long after each further failure.
  base::Duration provision_retry_min = std::chrono::seconds(1), provision_retry_max = std::chrono::minutes(1);
  // After an answer the runtime is expected back this soon: until then a waiting invocation does not start another environment.
  base::Duration ready_grace = std::chrono::milliseconds(20);
  base::Duration stop_grace = std::chrono::seconds(2);  // on_gone is awaited this long before a timed-out caller is answered anyway
};

// Run plus init, rounded up to whole milliseconds, at least one: what AWS bills (on-demand inits since August 2025).
[[nodiscard]] base::Duration billed_duration(base::Duration run, base::Duration init);
// {"errorType":"Sandbox.Timedout","errorMessage":"RequestId: <id> Error: Task timed out after 3.00 seconds"}
[[nodiscard]] std::string timeout_document(const std::string& request_id, base::Duration timeout);

// Provisioned environments of one version.
struct ProvisionedStatus {
  std::uint32_t requested = 0;
  std::uint32_t allocated = 0;  // initialised, whether or not an invocation runs there
  std::uint32_t available = 0;  // of these: free to take an invocation at once
  // Why the last one could not be made ("FUNCTION_ERROR_INIT_FAILURE: Runtime.ExitError"); empty when none failed since one was
  // ready. Meanwhile it is tried again, ever more rarely.
  std::string failed_reason;
  bool operator==(const ProvisionedStatus&) const = default;
};

// One thread. References must outlive it.
class Dispatcher final {
 public:
  Dispatcher(DispatcherOptions options, EnvironmentBackend& backend, InvocationObserver& observer);
  ~Dispatcher();

  // Admits, queues or refuses; exactly one sink->on_outcome follows for each call.
  void invoke(InvocationPtr invocation, base::TimePoint now);

  // Reports of the backend. Reports about environments that are unknown or already stopped are ignored.
  void on_started(EnvironmentId id, base::TimePoint now);  // the sandbox runs; the clock of its init begins
  void on_initialised(EnvironmentId id, base::Duration start, base::Duration init,
                      base::TimePoint now);                                         // the runtime asks for its first invocation
  void on_init_failed(EnvironmentId id, InitFailure failure, base::TimePoint now);  // on_gone follows
  // The answer of `run` is complete; the runtime may still work on it. The backend fills everything but queued, start and init
  // times and `cold_start`; `timings.run` and `billed` are kept when set, so that they equal the REPORT line.
  void on_answered(EnvironmentId id, RunId run, Outcome outcome, base::TimePoint now);
  void on_ready(EnvironmentId id, RunId run, base::TimePoint now);  // the runtime asks for the next invocation in place of `run`
  // The runtime is about to end by itself: it may still answer what it runs. It gets nothing more, and on_ready need not follow.
  void on_leaving(EnvironmentId id, base::TimePoint now);
  // The processes have ended or were killed. `ended` is what runs without an answer get; the waiting invocation of an
  // in-invocation init that failed unannounced is one.
  void on_gone(EnvironmentId id, std::vector<EndedRun> ended, base::TimePoint now);

  // Environments of other generations (or of a deleted function) end when idle; busy ones finish first.
  // `current` decides whether an environment of that version may still be used.
  void drop_outdated(const std::string& function_name, const std::function<bool(const FunctionVersion&)>& current, base::TimePoint now);

  // Sets aside `reserved` of the account's concurrency for one function and bounds it there: as many environments may be busy or
  // starting at once, 0 refuses every call, none removes the reservation. What runs beyond a lowered bound finishes. Over the bound
  // a call is refused at once, as on AWS; it waits only where an environment of the function is about to be free.
  void set_reserved_concurrency(const std::string& function_name, std::optional<std::uint32_t> reserved, base::TimePoint now);
  // Keeps `count` environments of `version` initialised, 0 for no longer. They are made as soon as the limits allow, count against
  // the function's reservation or else the account's concurrency also while idle, and are preferred to those on demand. A version
  // of another generation loses what it had. Refusing counts beyond a limit is the caller's part.
  void set_provisioned_concurrency(const VersionPtr& version, std::uint32_t count, base::TimePoint now);
  [[nodiscard]] ProvisionedStatus provisioned_status(const std::string& function_name, const std::string& version) const;

  // The machine runs short of memory: ends idle environments on demand, the least dear first, until they held `bytes`. What they held
  // together.
  std::uint64_t evict_idle(std::uint64_t bytes, base::TimePoint now);

  // When on_timer() wants to be called; kNoDeadline when never. Calls before anything is due are harmless.
  [[nodiscard]] base::Deadline next_timer() const;
  void on_timer(base::TimePoint now);

  // No new invocations (refused kUnavailable); what runs or waits finishes; environments that nobody needs end, also those that start.
  void drain(base::TimePoint now);
  // Nothing runs or waits; environments that were told to end may still be there.
  [[nodiscard]] bool quiet() const;
  // And they are gone, too.
  [[nodiscard]] bool finished() const;

  struct Counts {
    std::uint32_t starting = 0, idle = 0, busy = 0, queued = 0;
    std::uint32_t provisioned = 0;  // of the three before: provisioned ones
    std::uint64_t invocations = 0, cold_starts = 0, throttles = 0, errors = 0, timeouts = 0;
    std::uint64_t idle_bytes = 0;          // of idle environments on demand
    std::uint64_t started_ahead = 0;       // environments made for calls that were foreseen
    std::uint64_t reserved_throttles = 0;  // of the throttles: because of the function's own reservation
  };
  [[nodiscard]] Counts counts() const;
  // Every version that has an environment, a waiting invocation or provisioned concurrency, in no order: its code must stay.
  void each_version(const std::function<void(const FunctionVersion&)>& visit) const;
  // Busy and starting environments of one function.
  [[nodiscard]] std::uint32_t concurrency_of(const std::string& function_name) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mayfly::engine
