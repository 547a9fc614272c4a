// Coroutines of the data plane: what they return, who owns them, and the loop they run on.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/result.h"
#include "base/time.h"
#include "base/worker_pool.h"

namespace mayfly::net {

template <typename T>
using Awaitable = boost::asio::awaitable<T>;
using Executor = boost::asio::any_io_executor;

// One thread with one event loop: a shard. Nothing that lives on it is shared with another thread; other threads post().
class EventLoop {
 public:
  explicit EventLoop(std::string name);
  // stop()s and joins.
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  [[nodiscard]] Executor executor();
  // Runs `work` on the loop's thread, soon. Any thread.
  void post(std::function<void()> work);
  // Starts the thread. Call once.
  void start();
  // Runs the loop on the calling thread until stop().
  void run();
  // Ends run(); what is suspended is destroyed with the loop. Any thread.
  void stop();
  // Whether the calling thread is the loop's.
  [[nodiscard]] bool in_loop() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Owns background coroutines of one object. Declare it last in a class: its destructor cancels them, and none runs afterwards,
// even one whose operation has completed already. Their frames are freed when the operation they wait for has ended, which may
// be after the destructor: destructors of a task's locals must not touch the owner. A task does not destroy its own scope.
// Used on one loop's thread only (or while the loop does not run); may outlive the loop. An exception that leaves a task is
// logged as a bug, except operation_aborted, the way a cancelled task ends.
class TaskScope {
 public:
  explicit TaskScope(Executor executor);
  ~TaskScope();
  TaskScope(const TaskScope&) = delete;
  TaskScope& operator=(const TaskScope&) = delete;

  // On the loop's thread the task runs inside the call up to its first suspension; elsewhere it starts with the loop.
  void spawn(Awaitable<void> task);
  // Cancels every task: those suspended in an asynchronous operation resume with boost::system::system_error
  // (operation_aborted), and so does every further co_await of theirs. run_on and Exchange's reads and writes end first.
  void cancel();
  // Waits until no task is left, at most until `deadline`. True when none is.
  [[nodiscard]] Awaitable<bool> join(base::Deadline deadline);
  [[nodiscard]] std::size_t size() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// A signal several coroutines of one loop may wait for: set() wakes all waiters and stays set until reset(). Waiters resume
// after set() has returned, never inside it. Await wait() at once, where it is called.
class Event {
 public:
  explicit Event(Executor executor);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void set();
  void reset();
  [[nodiscard]] bool is_set() const;
  // True when set, false when `deadline` passed first. Destroying the Event while somebody waits resumes them with false.
  [[nodiscard]] Awaitable<bool> wait(base::Deadline deadline = base::kNoDeadline);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// Suspends until `deadline`.
[[nodiscard]] Awaitable<void> sleep_until(base::Deadline deadline);

// Runs blocking `work` on `pool` and resumes on the calling coroutine's loop when it has ended. False when the pool's queue
// is full: the work was not run. Not cancellable: the coroutine's locals live until the work has ended, so the work may use
// them by reference. The pool must end before the loop is destroyed. Await the result at once, where it is called.
[[nodiscard]] Awaitable<bool> run_on(base::WorkerPool& pool, std::function<void()> work);

}  // namespace mayfly::net
