// Timers of the dispatcher: one moment per key, in order. Keys are the dispatcher's own numbers.
#pragma once

#include <cstdint>
#include <set>
#include <utility>

#include "base/time.h"

namespace mayfly::engine {

class TimerSet {
 public:
  using Key = std::uint64_t;

  // Moves the timer of `key` from `at`, where its owner remembers it, to `when`; kNoDeadline means none.
  void move(Key key, base::TimePoint& at, base::TimePoint when) {
    if (at == when) return;
    if (at != base::kNoDeadline) order_.erase({at, key});
    at = when;
    if (at != base::kNoDeadline) order_.emplace(at, key);
  }
  [[nodiscard]] base::Deadline next() const { return order_.empty() ? base::kNoDeadline : order_.begin()->first; }
  [[nodiscard]] bool due(base::TimePoint now) const { return !order_.empty() && order_.begin()->first <= now; }
  // The key that is due first. Its owner moves the timer.
  [[nodiscard]] Key first() const { return order_.begin()->second; }

 private:
  std::set<std::pair<base::TimePoint, Key>> order_;
};

}  // namespace mayfly::engine
