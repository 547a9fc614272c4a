// What happens between the clone and the function's program. Everything here must not allocate, lock, throw or log: numbered steps of
// system calls, each failure sent up a pipe as {step, errno, argument}.
//
// Two processes come of it: the sandbox's first process (init), which reaps orphans and reports how programs ended, and the main
// process, which waits for its orders and becomes the function's program. Companions are further children of init.
#pragma once

#include "sandbox/internal/warden/plan.h"

namespace mayfly::sandbox::internal {

// Runs in the cloned child; never returns. `descriptors` as PlanDescriptor has them.
[[noreturn]] void run_child(const BlankPlan& plan, const int* descriptors);

}  // namespace mayfly::sandbox::internal
