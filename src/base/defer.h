// Runs a callable when the scope ends: cleanup for C resources that have no owner type.
#pragma once

#include <utility>

namespace mayfly::base {

template <typename F>
class Defer {
 public:
  explicit Defer(F action) : action_(std::move(action)) {}
  Defer(const Defer&) = delete;
  Defer& operator=(const Defer&) = delete;
  ~Defer() {
    if (armed_) action_();
  }
  // Drops the action: what it would have undone is now owned elsewhere.
  void cancel() { armed_ = false; }

 private:
  F action_;
  bool armed_ = true;
};

}  // namespace mayfly::base
