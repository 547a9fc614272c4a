// One turn of a loop: a callback that the loop runs, and after it the coroutines that it woke. They resume when the callback has
// returned, as if they had been posted, but without a queued operation and a look at the kernel's events for each.
#pragma once

#include <functional>

namespace mayfly::net {

// Runs `callback` on its loop's thread, and then what it and its successors deferred, in order. Inside another turn it only runs
// `callback`. What one of them throws keeps none of the others from running, and is thrown at the end.
void run_turn(const std::function<void()>& callback);

}  // namespace mayfly::net
