// Capacity: who may have how much of the account's concurrency. A reservation sets a part aside for one function and bounds it
// there; provisioned environments take their part of the function's reservation, or of the rest, also while they are idle; the
// rest is shared by everybody else. Sums are kept as they change, so every question is answered at once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

namespace mayfly::engine {

struct FunctionUse {
  std::uint32_t active = 0;       // starting and busy environments of either kind
  std::uint32_t starting = 0;     // slots of own inits of either kind: each is free soon
  std::uint32_t answered = 0;     // and so is each of these: slots whose invocation is answered
  std::uint32_t on_demand = 0;    // active ones that are not provisioned
  std::uint32_t provisioned = 0;  // provisioned ones that live, the idle ones too
  std::uint32_t held = 0;         // provisioned ones that live or are promised
  std::optional<std::uint32_t> reserved = {};
  std::uint32_t queued = 0;  // invocations
  std::uint32_t pools = 0;

  [[nodiscard]] std::uint64_t used() const { return std::uint64_t{on_demand} + provisioned; }
  [[nodiscard]] std::uint64_t committed() const { return std::uint64_t{on_demand} + held; }
  // No more environments on demand, because of its reservation.
  [[nodiscard]] bool reservation_full() const { return reserved && committed() >= *reserved; }
};

class Capacity {
 public:
  explicit Capacity(std::uint32_t concurrency_max) : max_(concurrency_max) {}

  // Every change of what a function uses, holds or reserves goes through here.
  template <typename Change>
  void change(FunctionUse& function, Change&& change) {
    const Shares before = shares(function);
    std::forward<Change>(change)();
    const Shares after = shares(function);
    sum_.used += after.used - before.used;  // modulo 2^64, as a whole exact
    sum_.committed += after.committed - before.committed;
    sum_.claimed += after.claimed - before.claimed;
  }

  // One more environment on demand may become active.
  [[nodiscard]] bool may_run(const FunctionUse& function) const {
    return function.reserved ? !function.reservation_full() && sum_.used < max_ : sum_.committed < max_;
  }
  // An active one may take a further invocation: not when limits were lowered below what runs.
  [[nodiscard]] bool may_go_on(const FunctionUse& function) const {
    return function.reserved ? function.committed() <= *function.reserved : sum_.committed <= max_;
  }
  // A provisioned environment that is idle may become active, an active one may take a further invocation.
  [[nodiscard]] static bool may_use_provisioned(const FunctionUse& function) {
    return !function.reserved || function.active < *function.reserved;
  }
  [[nodiscard]] static bool may_go_on_provisioned(const FunctionUse& function) {
    return !function.reserved || function.active <= *function.reserved;
  }
  // One more of the provisioned environments that are promised may be made.
  [[nodiscard]] bool may_provision(const FunctionUse& function) const {
    return function.reserved ? function.used() < *function.reserved && sum_.used < max_ : sum_.claimed < max_;
  }

 private:
  struct Shares {
    std::uint64_t used = 0;       // what is there
    std::uint64_t committed = 0;  // with what is promised: what environments on demand of functions without reservation leave alone
    std::uint64_t claimed = 0;    // the same for the making of provisioned ones, which are promised themselves
  };
  static Shares shares(const FunctionUse& function) {
    if (!function.reserved) return {function.used(), function.committed(), function.used()};
    const std::uint64_t kept = std::max<std::uint64_t>(*function.reserved, function.committed());
    return {function.used(), kept, kept};
  }

  const std::uint64_t max_;
  Shares sum_;
};

}  // namespace mayfly::engine
