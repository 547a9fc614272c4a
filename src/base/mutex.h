// Mutex with clang thread-safety annotations. Allowed in base and at C library borders only (style.md 3.3).
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define MAYFLY_CAPABILITY(x) __attribute__((capability(x)))
#define MAYFLY_SCOPED_CAPABILITY __attribute__((scoped_lockable))
#define MAYFLY_GUARDED_BY(x) __attribute__((guarded_by(x)))
#define MAYFLY_REQUIRES(...) __attribute__((requires_capability(__VA_ARGS__)))
#define MAYFLY_ACQUIRE(...) __attribute__((acquire_capability(__VA_ARGS__)))
#define MAYFLY_RELEASE(...) __attribute__((release_capability(__VA_ARGS__)))
#else
#define MAYFLY_CAPABILITY(x)
#define MAYFLY_SCOPED_CAPABILITY
#define MAYFLY_GUARDED_BY(x)
#define MAYFLY_REQUIRES(...)
#define MAYFLY_ACQUIRE(...)
#define MAYFLY_RELEASE(...)
#endif

namespace mayfly::base {

class MAYFLY_CAPABILITY("mutex") Mutex {
 public:
  void lock() MAYFLY_ACQUIRE() { mutex_.lock(); }
  void unlock() MAYFLY_RELEASE() { mutex_.unlock(); }
  // For condition variables only.
  std::mutex& native() { return mutex_; }

 private:
  std::mutex mutex_;
};

class MAYFLY_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) MAYFLY_ACQUIRE(mutex) : lock_(mutex.native()) {}
  ~MutexLock() MAYFLY_RELEASE() = default;
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;
  std::unique_lock<std::mutex>& native() { return lock_; }

 private:
  std::unique_lock<std::mutex> lock_;
};

}  // namespace mayfly::base
