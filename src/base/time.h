// Time: monotonic for deadlines and durations, UTC for what people and wires see; and the Clock that
// code takes instead of asking the system, so that tests and the simulator own time.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "base/result.h"

namespace mayfly::base {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;  // monotonic
using WallTime = std::chrono::time_point<std::chrono::system_clock, std::chrono::microseconds>;  // UTC

// A moment after which waiting is pointless. Travels with the work it limits.
using Deadline = TimePoint;
inline constexpr Deadline kNoDeadline = TimePoint::max();

class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual TimePoint now() const = 0;
  [[nodiscard]] virtual WallTime wall_now() const = 0;
};

// The system's clocks; stateless, safe from every thread. The only caller of system_clock::now().
const Clock& system_clock();

// A clock that moves only when told. Not for concurrent use.
class ManualClock final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const override { return now_; }
  [[nodiscard]] WallTime wall_now() const override { return wall_; }
  void advance(Duration by) {
    now_ += by;
    wall_ += std::chrono::duration_cast<std::chrono::microseconds>(by);
  }

 private:
  TimePoint now_{std::chrono::hours(1)};
  WallTime wall_{std::chrono::microseconds(1'767'225'600'000'000)};  // 2026-01-01T00:00:00Z
};

// Milliseconds since 1970-01-01T00:00:00Z.
[[nodiscard]] std::int64_t epoch_ms(WallTime time);
[[nodiscard]] WallTime wall_from_epoch_ms(std::int64_t ms);
[[nodiscard]] double to_ms(Duration duration);

// "2026-11-23T19:02:01.123Z": log lines.
[[nodiscard]] std::string format_iso_ms(WallTime time);
// "2026-11-23T19:02:01.123+0000": Lambda's LastModified.
[[nodiscard]] std::string format_lambda_time(WallTime time);
// "20261123T190201Z": SigV4's x-amz-date.
[[nodiscard]] std::string format_amz_date(WallTime time);
[[nodiscard]] Result<WallTime> parse_amz_date(std::string_view text);
// "Mon, 23 Nov 2026 19:02:01 GMT": HTTP's Date.
[[nodiscard]] std::string format_http_date(WallTime time);
// "2026/11/23": the first part of a Lambda log stream's name.
[[nodiscard]] std::string format_log_date(WallTime time);

}  // namespace mayfly::base
