#include "net/task.h"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/this_coro.hpp>
#include <memory>
#include <optional>
#include <vector>

#include "base/defer.h"
#include "net/internal/testing.h"

namespace mayfly::net {
namespace {

using namespace std::chrono_literals;
using testing::on_loop;

base::Deadline in(base::Duration time) { return base::system_clock().now() + time; }

TEST(EventLoop, runs_posted_work_on_its_own_thread_in_order) {
  EventLoop loop("order");
  loop.start();
  std::vector<int> seen;
  for (int i = 0; i < 100; ++i) {
    loop.post([&, i] {
      EXPECT_TRUE(loop.in_loop());
      seen.push_back(i);
    });
  }
  on_loop(loop, [] {});
  EXPECT_FALSE(loop.in_loop());
  ASSERT_EQ(seen.size(), 100U);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

TEST(EventLoop, survives_work_that_throws) {
  EventLoop loop("throw");
  loop.start();
  loop.post([] { throw std::runtime_error("thrown on purpose by a test"); });
  bool ran = false;
  on_loop(loop, [&] { ran = true; });
  EXPECT_TRUE(ran);
}

TEST(EventLoop, destroys_what_is_suspended) {
  auto token = std::make_shared<int>(1);
  std::optional<TaskScope> scope;
  {
    EventLoop loop("end");
    loop.start();
    on_loop(loop, [&] {
      scope.emplace(loop.executor());
      scope->spawn([](std::shared_ptr<int> held) -> Awaitable<void> {
        co_await sleep_until(in(1h));
        *held = 2;
      }(token));
    });
    EXPECT_EQ(token.use_count(), 2);
  }
  EXPECT_EQ(token.use_count(), 1);
  EXPECT_EQ(*token, 1);
  scope.reset();  // after its loop: harmless
}

TEST(TaskScope, runs_none_of_its_tasks_after_its_end) {
  EventLoop loop("scope");
  loop.start();
  auto owner = std::make_unique<int>(0);
  std::promise<void> freed;
  on_loop(loop, [&] {
    auto scope = std::make_unique<TaskScope>(loop.executor());
    auto done = std::make_shared<base::Defer<std::function<void()>>>([&] { freed.set_value(); });
    auto event = std::make_shared<Event>(loop.executor());
    scope->spawn([](int* raw, std::shared_ptr<void>) -> Awaitable<void> {
      co_await sleep_until(in(20ms));
      *raw = 1;
    }(owner.get(), done));
    scope->spawn([](int* raw, std::shared_ptr<Event> waited, std::shared_ptr<void>) -> Awaitable<void> {
      try {
        (void)co_await waited->wait();
      } catch (...) {
        *raw = 2;
      }
      *raw = 3;
    }(owner.get(), event, done));
    // Both have a resumption queued when the scope ends.
    event->set();
    done.reset();
    scope.reset();
    owner.reset();
  });
  EXPECT_EQ(freed.get_future().wait_for(5s), std::future_status::ready);
}

TEST(TaskScope, cancels_sleeps_and_waits_with_operation_aborted) {
  EventLoop loop("cancel");
  loop.start();
  std::promise<bool> joined;
  std::atomic<int> aborted = 0;
  std::optional<TaskScope> scope;
  std::optional<TaskScope> joiner;
  std::optional<Event> event;
  on_loop(loop, [&] {
    scope.emplace(loop.executor());
    joiner.emplace(loop.executor());
    event.emplace(loop.executor());
    auto expect_abort = [](Awaitable<void> inner, std::atomic<int>& count) -> Awaitable<void> {
      try {
        co_await std::move(inner);
        ADD_FAILURE() << "not cancelled";
      } catch (const boost::system::system_error& error) {
        EXPECT_EQ(error.code(), boost::asio::error::operation_aborted);
        ++count;
      }
    };
    auto wait = [](Event& waited) -> Awaitable<void> { (void)co_await waited.wait(); };
    scope->spawn(expect_abort(sleep_until(in(1h)), aborted));
    scope->spawn(expect_abort(wait(*event), aborted));
    EXPECT_EQ(scope->size(), 2U);
    auto join = [](TaskScope& waited, std::promise<bool>& result) -> Awaitable<void> { result.set_value(co_await waited.join(in(5s))); };
    joiner->spawn(join(*scope, joined));
    scope->cancel();
  });
  EXPECT_TRUE(joined.get_future().get());
  EXPECT_EQ(aborted, 2);
  on_loop(loop, [&] {
    EXPECT_EQ(scope->size(), 0U);
    joiner.reset();
    scope.reset();
    event.reset();
  });
}

TEST(TaskScope, join_gives_up_at_its_deadline) {
  EventLoop loop("join");
  loop.start();
  std::promise<bool> joined;
  std::optional<TaskScope> scope;
  std::optional<TaskScope> joiner;
  on_loop(loop, [&] {
    scope.emplace(loop.executor());
    joiner.emplace(loop.executor());
    scope->spawn(sleep_until(in(1h)));
    auto join = [](TaskScope& waited, std::promise<bool>& result) -> Awaitable<void> { result.set_value(co_await waited.join(in(10ms))); };
    joiner->spawn(join(*scope, joined));
  });
  EXPECT_FALSE(joined.get_future().get());
  on_loop(loop, [&] {
    joiner.reset();
    scope.reset();
  });
}

TEST(TaskScope, goes_on_after_a_task_threw) {
  EventLoop loop("throwing");
  loop.start();
  std::promise<void> after;
  std::optional<TaskScope> scope;
  on_loop(loop, [&] {
    scope.emplace(loop.executor());
    scope->spawn([]() -> Awaitable<void> {
      co_await sleep_until(in(1ms));
      throw std::runtime_error("thrown on purpose by a test");
    }());
    scope->spawn([](std::promise<void>& done) -> Awaitable<void> {
      co_await sleep_until(in(5ms));
      done.set_value();
    }(after));
  });
  EXPECT_EQ(after.get_future().wait_for(5s), std::future_status::ready);
  on_loop(loop, [&] { scope.reset(); });
}

TEST(TaskScope, may_live_inside_a_task_of_another_scope) {
  EventLoop loop("nested");
  loop.start();
  std::optional<TaskScope> outer;
  auto token = std::make_shared<int>(0);
  on_loop(loop, [&] {
    outer.emplace(loop.executor());
    outer->spawn([](std::shared_ptr<int> held) -> Awaitable<void> {
      TaskScope inner(co_await boost::asio::this_coro::executor);
      inner.spawn([](std::shared_ptr<int> kept) -> Awaitable<void> {
        co_await sleep_until(in(1h));
        ++*kept;
      }(held));
      co_await sleep_until(in(1h));
      ++*held;
    }(token));
  });
  EXPECT_EQ(token.use_count(), 3);
  on_loop(loop, [&] { outer.reset(); });
  for (int i = 0; i < 1000 && token.use_count() > 1; ++i) on_loop(loop, [] {});
  EXPECT_EQ(token.use_count(), 1);
  EXPECT_EQ(*token, 0);
}

TEST(Event, wakes_all_waiters_stays_set_and_times_out) {
  EventLoop loop("event");
  loop.start();
  std::vector<std::promise<bool>> results(5);
  std::optional<TaskScope> scope;
  std::optional<Event> event;
  auto wait = [](Event& waited, base::Deadline deadline, std::promise<bool>& result) -> Awaitable<void> {
    result.set_value(co_await waited.wait(deadline));
  };
  on_loop(loop, [&] {
    scope.emplace(loop.executor());
    event.emplace(loop.executor());
    scope->spawn(wait(*event, in(5ms), results[0]));
  });
  EXPECT_FALSE(results[0].get_future().get());
  on_loop(loop, [&] {
    scope->spawn(wait(*event, base::kNoDeadline, results[1]));
    scope->spawn(wait(*event, in(1h), results[2]));
    event->set();
    EXPECT_TRUE(event->is_set());
    scope->spawn(wait(*event, base::kNoDeadline, results[3]));
  });
  for (int i : {1, 2, 3}) EXPECT_TRUE(results[static_cast<std::size_t>(i)].get_future().get()) << i;
  on_loop(loop, [&] {
    event->reset();
    scope->spawn(wait(*event, base::kNoDeadline, results[4]));
    event.reset();  // destroyed under a waiter
  });
  EXPECT_FALSE(results[4].get_future().get());
  on_loop(loop, [&] { scope.reset(); });
}

TEST(RunOn, runs_work_elsewhere_and_resumes_on_the_loop) {
  EventLoop loop("run_on");
  loop.start();
  std::promise<bool> result;
  std::optional<TaskScope> scope;
  {
    base::WorkerPool pool("pool", 2);
    on_loop(loop, [&] {
      scope.emplace(loop.executor());
      scope->spawn([](EventLoop& home, base::WorkerPool& workers, std::promise<bool>& done) -> Awaitable<void> {
        bool elsewhere = false;
        std::function<void()> work = [&] { elsewhere = !home.in_loop(); };
        const bool taken = co_await run_on(workers, std::move(work));
        EXPECT_TRUE(home.in_loop());
        done.set_value(taken && elsewhere);
      }(loop, pool, result));
    });
    EXPECT_TRUE(result.get_future().get());
  }
  on_loop(loop, [&] { scope.reset(); });
}

TEST(RunOn, says_when_the_queue_is_full_and_keeps_locals_alive_until_the_work_has_ended) {
  EventLoop loop("full");
  loop.start();
  std::optional<TaskScope> scope;
  std::promise<bool> refused;
  std::promise<void> started;
  std::promise<void> release;
  auto pool = std::make_unique<base::WorkerPool>("pool", 1, 1);
  std::atomic<int> sum = 0;
  on_loop(loop, [&] {
    scope.emplace(loop.executor());
    scope->spawn([](base::WorkerPool& workers, std::promise<void>& begun, std::future<void> go, std::atomic<int>& out) -> Awaitable<void> {
      const std::vector<int> local(1000, 1);
      std::function<void()> work = [&] {
        begun.set_value();
        go.wait();
        for (const int value : local) out += value;
      };
      (void)co_await run_on(workers, std::move(work));
      ADD_FAILURE() << "ran after its scope";
    }(*pool, started, release.get_future(), sum));
  });
  started.get_future().wait();
  on_loop(loop, [&] {
    EXPECT_TRUE(pool->submit([] {}));  // the queue of one is full now
    auto ask = [](base::WorkerPool& workers, std::promise<bool>& result) -> Awaitable<void> {
      std::function<void()> work = [] { ADD_FAILURE() << "the pool had no room for this"; };
      result.set_value(co_await run_on(workers, std::move(work)));
    };
    scope->spawn(ask(*pool, refused));
  });
  EXPECT_FALSE(refused.get_future().get());
  on_loop(loop, [&] { scope.reset(); });  // the first task still works on the pool
  release.set_value();
  pool.reset();
  on_loop(loop, [] {});
  EXPECT_EQ(sum, 1000);
}

}  // namespace
}  // namespace mayfly::net
