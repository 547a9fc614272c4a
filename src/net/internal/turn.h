// One turn of a loop: a callback that the loop runs, and after it the coroutines that it woke. They resume when the callback has
// returned, as if they had been posted, but without a queued operation and a look at the kernel's events for each.
#pragma once

#include <functional>
#include <utility>

namespace mayfly::net::internal {

using Woken = std::move_only_function<void()>;

// Runs `callback` and then what it and its successors deferred, in order. Inside another turn it only runs `callback`. What one of them
// throws keeps none of the others from running, and is thrown at the end.
void run_turn(const std::function<void()>& callback);

// Whether the calling thread is inside a turn that takes more work: then defer() may be called. A turn that goes on and on takes
// none, so that the loop looks at its events again.
[[nodiscard]] bool may_defer();
// Leaves `woken` to the end of the calling thread's turn.
void defer(Woken woken);

}  // namespace mayfly::net::internal
