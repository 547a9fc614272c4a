// A fixed set of threads for blocking work (control plane, SQLite, files), with a bounded queue.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace mayfly::base {

// Any thread may submit. The destructor runs what is queued, then joins.
class WorkerPool {
 public:
  // `name` shows in the thread list (at most 15 characters).
  WorkerPool(std::string name, std::size_t threads, std::size_t queue_max = 4096);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // False when the queue is full or the pool is ending: the job was not taken.
  [[nodiscard]] bool submit(std::function<void()> job);

 private:
  void run();

  const std::size_t queue_max_;
  Mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_ MAYFLY_GUARDED_BY(mutex_);
  bool ending_ MAYFLY_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace mayfly::base
