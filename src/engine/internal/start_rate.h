// StartRate: how fast one function may add environments: a burst at once, then evenly (a token bucket kept as one moment).
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/time.h"

namespace mayfly::engine {

// `burst`: starts within kWindow, all of them at once after a pause; at least 1 and the same in every call.
class StartRate {
 public:
  static constexpr base::Duration kWindow = std::chrono::seconds(10);

  // When the next start is allowed; in the past when one is now.
  [[nodiscard]] base::TimePoint next(std::uint32_t burst) const { return paid_until_ - kWindow + step(burst); }
  void started(std::uint32_t burst, base::TimePoint now) { paid_until_ = std::max(paid_until_, now) + step(burst); }

 private:
  static base::Duration step(std::uint32_t burst) { return kWindow / burst; }
  base::TimePoint paid_until_{};
};

}  // namespace mayfly::engine
