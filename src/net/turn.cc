#include "net/turn.h"

#include <exception>
#include <vector>

#include "base/log.h"
#include "net/internal/turn.h"

namespace mayfly::net {
namespace {

constexpr std::size_t kDeferredMax = 256;  // in one turn

struct Turn {
  bool running = false;
  std::vector<internal::Woken> deferred;
};

thread_local Turn turn;

}  // namespace

void run_turn(const std::function<void()>& callback) {
  if (turn.running) return callback();
  turn.running = true;
  std::exception_ptr thrown;  // the first
  const auto run = [&thrown](auto& work) {
    try {
      work();
    } catch (const std::exception& error) {
      if (thrown) base::log_error("an exception left a coroutine; this is a bug in Mayfly", {{"what", error.what()}});
      if (!thrown) thrown = std::current_exception();
    }
  };
  run(callback);
  for (std::size_t i = 0; i < turn.deferred.size(); ++i) {
    internal::Woken woken = std::move(turn.deferred[i]);  // which may defer more
    run(woken);
  }
  turn.running = false;
  turn.deferred.clear();
  if (thrown) std::rethrow_exception(thrown);
}

namespace internal {

bool may_defer() { return turn.running && turn.deferred.size() < kDeferredMax; }

void defer(Woken woken) { turn.deferred.push_back(std::move(woken)); }

}  // namespace internal
}  // namespace mayfly::net
