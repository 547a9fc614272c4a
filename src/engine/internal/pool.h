// What the dispatcher keeps of functions, versions, environments and invocations. Plain data; dispatcher.cc says what may change.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "engine/dispatcher.h"
#include "engine/internal/capacity.h"
#include "engine/internal/circuit_breaker.h"
#include "engine/internal/start_rate.h"
#include "engine/internal/timer_heap.h"
#include "engine/keep_alive.h"

namespace mayfly::engine {

using base::Duration;
using base::TimePoint;

enum class State : std::uint8_t {
  kStarting,  // being made or initialising
  kIdle,      // the runtime waits for an invocation
  kBusy,      // invocations run, or are answered and the runtime has not come back yet
  kStopping,  // told to end, or ended badly; on_gone is awaited
};

inline bool is_active(State state) { return state == State::kStarting || state == State::kBusy; }

struct Pool;
struct Environment;

// A function while anything of it runs, waits or is remembered.
struct Function : FunctionUse {
  std::string name;
  StartRate rate;
  std::uint64_t turn = 0;   // when it was given a place last while others waited
  std::uint64_t calls = 0;  // handed over
  std::uint32_t busy = 0;   // environments
  ArrivalHistories histories;
  struct Planned {
    KeepAlivePlan plan;
    bool made = false;
    std::uint32_t gaps = 0;   // when it had so many, and an environment
    std::uint64_t bytes = 0;  // this size
  };
  std::vector<Planned> planned;  // by group
  std::list<Function*>::iterator unused;  // where it is in the list of those without a pool
  bool is_unused = false;
};

// An invocation for which no environment was free.
struct Waiting {
  Pool* pool = nullptr;
  std::uint64_t sequence = 0;
  InvocationPtr invocation;
  TimePoint since;
  bool extended = false;  // its queue budget is spent, a start is under way for it
  bool returned = false;  // was handed over before, to an environment that ended without having received it
  Timer timer{Timer::Of::kWaiting, this};
};

// Environments and queue of one version.
struct Pool {
  std::uint64_t number = 0;
  VersionPtr version;
  Function* function = nullptr;
  std::uint32_t slots = 1;                        // invocations that one environment takes at once
  std::list<Waiting> queue;                       // oldest first
  std::vector<Environment*> idle;                 // on demand; the last one was used last
  std::vector<Environment*> ready;                // provisioned and idle, likewise
  std::vector<std::vector<Environment*>> partly;  // busy ones that take more, by how many they have; empty where slots is 1
  std::uint32_t starting = 0;                     // own inits on demand under way: each will take waiting invocations, one a slot
  std::uint32_t redoing = 0;                      // inits in an invocation's time under way: each will take others in its other slots
  std::uint32_t expected = 0;                     // slots whose invocation is answered and which are due back within the grace
  std::uint32_t environments = 0;                 // of every state
  std::uint32_t living = 0;                       // of these: not told to end
  std::uint64_t idle_bytes = 0;                   // what an idle environment takes, as last measured
  bool outdated = false;
  CircuitBreaker breaker;
  TimePoint forget_failures_at = base::kNoDeadline;
  TimePoint again_at = base::kNoDeadline;  // when one is started ahead of the next call
  Duration again_keep{0};

  std::uint32_t target = 0;                // provisioned environments wanted
  std::uint32_t provisioned = 0;           // that live
  std::uint32_t provisioned_starting = 0;  // of these
  std::uint32_t held = 0;                  // its part of the function's
  std::string failure;                     // why the last one could not be made; "" once one was ready again
  std::uint32_t failures = 0;              // in a row
  TimePoint retry_at{};
  Timer timer{Timer::Of::kPool, this};

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
  bool returned = false;              // as of Waiting

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
  bool leaving = false;  // takes nothing more either, and ends by itself
  bool started = false;  // the sandbox runs
  bool proven = false;   // an invocation was handed over before
  bool served = false;   // the same, or its init is nobody's: it was provisioned
  bool frozen = false;
  bool yielding = false;    // takes nothing more as long as others wait for its place
  bool ahead = false;       // made ahead of a call that has not come yet
  std::uint64_t bytes = 0;  // counted for it while it is idle on demand
  TimePoint idle_since;
  TimePoint keep_until = base::kNoDeadline;
  std::uint32_t level = 1;  // it is needed again when so many of its function are busy
  double priority = 0;   // among the idle ones that may be ended; set while `evictable`
  bool evictable = false;
  Timer timer{Timer::Of::kEnvironment, this};

  static constexpr std::size_t kNowhere = SIZE_MAX;
  // Whether a slot of it that is or becomes free may be used.
  [[nodiscard]] bool takes_more() const { return !closed && !leaving; }
  [[nodiscard]] bool somebody_waits() const {
    return std::ranges::any_of(runs, [](const Run& run) { return !run.answered(); });
  }
};

}  // namespace mayfly::engine
