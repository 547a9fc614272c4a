#include "net/internal/turn.h"

#include <vector>

#include "base/defer.h"

namespace mayfly::net::internal {
namespace {

constexpr std::size_t kDeferredMax = 256;  // in one turn

struct Turn {
  bool running = false;
  std::vector<Woken> deferred;
};

thread_local Turn turn;

}  // namespace

void run_turn(const std::function<void()>& callback) {
  if (turn.running) return callback();
  turn.running = true;
  const base::Defer ended([] {
    turn.running = false;
    turn.deferred.clear();
  });
  callback();
  for (std::size_t i = 0; i < turn.deferred.size(); ++i) {
    Woken woken = std::move(turn.deferred[i]);  // which may defer more
    woken();
  }
}

bool may_defer() { return turn.running && turn.deferred.size() < kDeferredMax; }

void defer(Woken woken) { turn.deferred.push_back(std::move(woken)); }

}  // namespace mayfly::net::internal
