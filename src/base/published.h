// Published: one immutable value that many threads read while one at a time replaces it.
#pragma once

#include <memory>
#include <utility>

#include "base/mutex.h"

namespace mayfly::base {

// get() copies a shared pointer under a lock held for a few instructions, never across an allocation or a destructor:
// readers do not wait for writers in any way that shows. Writers that build on the former value serialise themselves.
template <typename T>
class Published {
 public:
  using Pointer = std::shared_ptr<const T>;

  explicit Published(Pointer value) : value_(std::move(value)) {}

  [[nodiscard]] Pointer get() const {
    const MutexLock lock(mutex_);
    return value_;
  }
  void set(Pointer value) {
    const MutexLock lock(mutex_);
    value_.swap(value);
  }  // the former value, if this was its last owner, is destroyed with the parameter: after the lock

 private:
  mutable Mutex mutex_;
  Pointer value_ MAYFLY_GUARDED_BY(mutex_);
};

}  // namespace mayfly::base
