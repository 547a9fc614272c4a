#include "net/task.h"

#include <pthread.h>

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <list>
#include <vector>

#include "base/log.h"
#include "net/internal/scoped_executor.h"
#include "net/internal/turn.h"

namespace mayfly::net {

namespace asio = boost::asio;
using boost::system::error_code;

// ---- EventLoop

struct EventLoop::Impl {
  explicit Impl(std::string loop_name) : name(std::move(loop_name)) {}
  std::string name;
  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> work{context.get_executor()};
  std::thread thread;
};

EventLoop::EventLoop(std::string name) : impl_(std::make_unique<Impl>(std::move(name))) {}

EventLoop::~EventLoop() {
  stop();
  if (impl_->thread.joinable()) impl_->thread.join();
}

Executor EventLoop::executor() { return impl_->context.get_executor(); }

void EventLoop::post(std::function<void()> work) { asio::post(impl_->context, std::move(work)); }

void EventLoop::start() {
  impl_->thread = std::thread([this] { run(); });
  pthread_setname_np(impl_->thread.native_handle(), impl_->name.substr(0, 15).c_str());
}

void EventLoop::run() {
  while (!impl_->context.stopped()) {
    try {
      impl_->context.run();
    } catch (const std::exception& failure) {
      base::log_error("an exception reached the event loop; this is a bug in Mayfly", {{"loop", impl_->name}, {"what", failure.what()}});
    }
  }
}

void EventLoop::stop() { impl_->context.stop(); }

bool EventLoop::in_loop() const { return impl_->context.get_executor().running_in_this_thread(); }

// ---- TaskScope

namespace {

asio::io_context& context_of(const Executor& executor) {
  return static_cast<asio::io_context&>(asio::query(executor, asio::execution::context));
}

// One spawned task as its scope knows it. The signal lives as long as anything may still be registered with it.
struct TaskEntry {
  asio::cancellation_signal signal;
  bool ended = false;  // its frames are gone: the signal must not be used any more
  std::list<std::shared_ptr<TaskEntry>>::iterator place;
};

void report_escaped_exception(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const boost::system::system_error& error) {
    if (error.code() == asio::error::operation_aborted) return;  // the way a cancelled task ends
    base::log_error("an exception left a task; this is a bug in Mayfly", {{"what", error.what()}});
  } catch (const std::exception& error) {
    base::log_error("an exception left a task; this is a bug in Mayfly", {{"what", error.what()}});
  }
}

}  // namespace

struct TaskScope::Impl {
  explicit Impl(const Executor& executor)
      : scope(std::make_shared<internal::ScopeState>()),
        executor(internal::ScopedExecutor(context_of(executor).get_executor(), std::shared_ptr<const internal::ScopeState>(scope))),
        none_left(executor) {}

  std::shared_ptr<internal::ScopeState> scope;
  Executor executor;
  std::list<std::shared_ptr<TaskEntry>> tasks;
  Event none_left;

  void remove(TaskEntry& entry) {
    tasks.erase(entry.place);
    if (tasks.empty()) none_left.set();
  }
  void cancel_all() {
    const std::vector<std::shared_ptr<TaskEntry>> now(tasks.begin(), tasks.end());  // a cancelled task may end at once
    for (const auto& entry : now) {
      if (!entry->ended) entry->signal.emit(asio::cancellation_type::terminal);
    }
  }
};

namespace {

// What co_spawn calls at a task's end, or destroys uncalled when the scope is gone.
template <typename Impl>
class TaskEnd {
 public:
  TaskEnd(std::shared_ptr<Impl> impl, std::shared_ptr<TaskEntry> entry) : impl_(std::move(impl)), entry_(std::move(entry)) {}
  TaskEnd(TaskEnd&&) noexcept = default;
  TaskEnd(const TaskEnd&) = delete;
  TaskEnd& operator=(const TaskEnd&) = delete;
  TaskEnd& operator=(TaskEnd&&) = delete;
  ~TaskEnd() {
    if (entry_) entry_->ended = true;
  }

  using cancellation_slot_type = asio::cancellation_slot;
  [[nodiscard]] cancellation_slot_type get_cancellation_slot() const noexcept { return entry_->signal.slot(); }

  void operator()(const std::exception_ptr& failure) {
    if (failure) report_escaped_exception(failure);
    entry_->ended = true;
    impl_->remove(*entry_);
  }

 private:
  std::shared_ptr<Impl> impl_;
  std::shared_ptr<TaskEntry> entry_;
};

}  // namespace

TaskScope::TaskScope(Executor executor) : impl_(std::make_shared<Impl>(executor)) {}

TaskScope::~TaskScope() {
  impl_->scope->alive = false;
  impl_->cancel_all();
}

void TaskScope::spawn(Awaitable<void> task) {
  auto entry = std::make_shared<TaskEntry>();
  entry->place = impl_->tasks.insert(impl_->tasks.end(), entry);
  impl_->none_left.reset();
  asio::co_spawn(impl_->executor, std::move(task), TaskEnd<Impl>(impl_, entry));
}

void TaskScope::cancel() {
  const auto impl = impl_;
  impl->cancel_all();
}

Awaitable<bool> TaskScope::join(base::Deadline deadline) {
  const auto impl = impl_;
  while (!impl->tasks.empty()) {
    if (!co_await impl->none_left.wait(deadline)) break;
  }
  co_return impl->tasks.empty();
}

std::size_t TaskScope::size() const { return impl_->tasks.size(); }

// ---- Event

namespace {

struct Waiter {
  std::move_only_function<void(error_code, bool)> resume;  // posts; empty once used
  std::optional<asio::steady_timer> timer;
  void finish(error_code error, bool result) {
    if (!resume) return;
    auto once = std::move(resume);
    resume = nullptr;
    if (timer) timer->cancel();
    once(error, result);
  }
};

// Resumes a suspended coroutine through its own executor, never inside the caller: after the present turn of the loop where there
// is one.
template <typename Handler>
auto resume_later(Executor executor, Handler handler) {
  return [executor = std::move(executor), handler = std::move(handler)](error_code error, bool result) mutable {
    auto resume = [handler = std::move(handler), error, result]() mutable { std::move(handler)(error, result); };
    if (!internal::may_defer()) return asio::post(executor, std::move(resume));
    internal::defer([executor = std::move(executor), resume = std::move(resume)]() mutable { executor.execute(std::move(resume)); });
  };
}

}  // namespace

struct Event::Impl {
  explicit Impl(Executor loop) : executor(std::move(loop)) {}
  Executor executor;
  bool set = false;
  bool gone = false;
  std::vector<std::shared_ptr<Waiter>> waiters;

  void finish_all(bool result) {
    const auto now = std::move(waiters);
    waiters.clear();
    for (const auto& waiter : now) waiter->finish({}, result);
  }
  void drop(const std::shared_ptr<Waiter>& waiter) { std::erase(waiters, waiter); }
};

namespace {

template <typename Impl>
void end_wait(const std::weak_ptr<Impl>& weak_impl, const std::weak_ptr<Waiter>& weak_waiter, error_code error) {
  const auto waiter = weak_waiter.lock();
  if (!waiter) return;
  if (const auto impl = weak_impl.lock()) impl->drop(waiter);
  waiter->finish(error, false);
}

template <typename Impl, typename Handler>
void start_wait(const std::shared_ptr<Impl>& impl, base::Deadline deadline, Handler handler) {
  auto waiter = std::make_shared<Waiter>();
  const std::weak_ptr<Impl> weak_impl = impl;
  const std::weak_ptr<Waiter> weak_waiter = waiter;
  auto slot = asio::get_associated_cancellation_slot(handler);
  if (slot.is_connected()) {
    slot.assign([weak_impl, weak_waiter](asio::cancellation_type) { end_wait(weak_impl, weak_waiter, asio::error::operation_aborted); });
  }
  const Executor executor = asio::get_associated_executor(handler, impl->executor);
  waiter->resume = resume_later(executor, std::move(handler));
  if (impl->set || impl->gone) {
    waiter->finish({}, impl->set);
    return;
  }
  if (deadline != base::kNoDeadline) {
    waiter->timer.emplace(impl->executor, deadline);
    waiter->timer->async_wait([weak_impl, weak_waiter](error_code error) {
      if (!error) end_wait(weak_impl, weak_waiter, {});
    });
  }
  impl->waiters.push_back(std::move(waiter));
}

}  // namespace

Event::Event(Executor executor) : impl_(std::make_shared<Impl>(std::move(executor))) {}

Event::~Event() {
  impl_->gone = true;
  impl_->finish_all(false);
}

void Event::set() {
  const auto impl = impl_;
  impl->set = true;
  impl->finish_all(true);
}

void Event::reset() { impl_->set = false; }

bool Event::is_set() const { return impl_->set; }

Awaitable<bool> Event::wait(base::Deadline deadline) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(error_code, bool)>(
      [impl = impl_, deadline](auto&& handler) { start_wait(impl, deadline, std::forward<decltype(handler)>(handler)); },
      asio::use_awaitable);
}

// ---- Free functions

Awaitable<void> sleep_until(base::Deadline deadline) {
  asio::steady_timer timer(co_await asio::this_coro::executor, deadline);
  co_await timer.async_wait(asio::use_awaitable);
}

Awaitable<bool> run_on(base::WorkerPool& pool, std::function<void()> work) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(error_code, bool)>(
      [&pool, work = std::move(work)](auto&& handler) mutable {
        using Handler = std::decay_t<decltype(handler)>;
        struct Job {  // shared because the pool's queue wants copyable functions
          std::function<void()> work;
          std::move_only_function<void(error_code, bool)> resume;
        };
        const Executor executor = asio::get_associated_executor(handler);
        auto job = std::make_shared<Job>(std::move(work), resume_later<Handler>(executor, std::forward<decltype(handler)>(handler)));
        const bool taken = pool.submit([job] {
          job->work();
          job->work = nullptr;
          job->resume({}, true);
        });
        if (!taken) job->resume({}, false);
      },
      asio::use_awaitable);
}

}  // namespace mayfly::net
