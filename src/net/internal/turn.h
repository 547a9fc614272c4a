// What a turn of a loop (net/turn.h) leaves to its end.
#pragma once

#include <functional>
#include <utility>

namespace mayfly::net::internal {

using Woken = std::move_only_function<void()>;

// Whether the calling thread is inside a turn that takes more work: then defer() may be called. A turn that goes on and on takes
// none, so that the loop looks at its events again.
[[nodiscard]] bool may_defer();
// Leaves `woken` to the end of the calling thread's turn.
void defer(Woken woken);

}  // namespace mayfly::net::internal
