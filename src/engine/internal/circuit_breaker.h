// CircuitBreaker: keeps a version whose environments fail one after the other from costing more than a try now and then.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "base/time.h"
#include "engine/dispatcher.h"

namespace mayfly::engine {

class CircuitBreaker {
 public:
  // An environment failed by the function's own fault.
  void failed(const CircuitBreakerOptions& options, std::string error_type, std::string message, base::TimePoint now) {
    ++failures_;
    error_type_ = std::move(error_type);
    message_ = std::move(message);
    if (failures_ == options.failures_max) {
      pause_ = options.pause_min;
    } else if (trying_) {
      pause_ = std::min(2 * pause_, options.pause_max);
    } else {
      return;  // too few, or under way when it opened
    }
    trying_ = false;
    next_try_ = now + pause_;
  }
  void succeeded() { *this = {}; }
  // An environment is started although it is open.
  void trying(base::TimePoint now) {
    trying_ = true;
    next_try_ = now + pause_;
  }

  [[nodiscard]] bool open(const CircuitBreakerOptions& options) const { return failures_ >= options.failures_max; }
  [[nodiscard]] std::uint32_t failures() const { return failures_; }  // in a row
  [[nodiscard]] base::TimePoint next_try() const { return next_try_; }
  // Of the last failure.
  [[nodiscard]] const std::string& error_type() const { return error_type_; }
  [[nodiscard]] const std::string& message() const { return message_; }

 private:
  std::uint32_t failures_ = 0;
  bool trying_ = false;
  base::Duration pause_{0};
  base::TimePoint next_try_{};
  std::string error_type_, message_;
};

}  // namespace mayfly::engine
