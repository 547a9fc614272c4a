// The launcher process: its start, its loop, its end.
#pragma once

#include "base/fd.h"
#include "sandbox/internal/warden/plan.h"
#include "sandbox/launcher.h"

namespace mayfly::sandbox::internal {

// In the child that fork_off() made: becomes the launcher, answers `socket` until it closes, cleans up and ends the process.
[[noreturn]] void run_service(const LauncherConfig& config, base::UniqueFd socket);

// Set before fork_off() by tests: every sandbox then fails at this step, as if the kernel had answered EIO.
extern Step fail_step_for_test;

}  // namespace mayfly::sandbox::internal
