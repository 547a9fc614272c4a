// What happens between clone and exec. Everything here runs in a copy of the launcher that must not allocate, lock, throw or log:
// numbered steps of system calls, each failure sent up a pipe as {step, errno, argument}.
//
// Two processes come of it: the sandbox's first process (init), which reaps orphans and reports how the main process ended, and
// the main process, which becomes the function's program. Companions are further children of init; with them the main process says on
// the report pipe that it waits (a StepFailure of no step) and is executed once something comes through its gate.
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace mayfly::sandbox::internal {

enum class Step : std::int32_t {
  kNone = 0,
  kEnterNetwork,
  kJoinCgroup,
  kCgroupNamespace,
  kHostName,
  kMountRoot,
  kEnterRoot,
  kMount,
  kMountProc,
  kProtectProc,
  kPivotRoot,
  kDetachOldRoot,
  kStartMain,
  kInitIdentity,
  kInitCapabilities,
  kInitFilter,
  // of the main process
  kNewSession,
  kDescriptors,
  kCloseDescriptors,
  kResourceLimits,
  kIdentity,
  kCapabilities,
  kNoNewPrivileges,
  kWorkingDirectory,
  kFilter,
  kExec,
  kCount,
};
// "mount", "execute": what the launcher puts into its error.
[[nodiscard]] const char* step_name(Step step);

struct StepFailure {
  Step step = Step::kNone;
  std::int32_t error = 0;     // errno
  std::int32_t argument = 0;  // which mount, which group: index into the plan; of programs 0 for the main one, else the companion
};

// How a program ended, as init saw it.
struct ProgramStatus {
  std::int32_t wait_status = 0;
  std::uint32_t companion = 0;  // from 1 on; 0 is the main process
};

struct PlannedMount {
  int mount = -1;                // a detached mount
  const char* target = nullptr;  // relative to the new root
};

struct ProcMask {
  const char* path = nullptr;  // relative to the new root
  enum class How : std::uint8_t { kReadOnly, kHideFile, kHideDirectory } how = How::kReadOnly;
};

// Everything the child needs, ready before the clone; points into memory of the launcher that lives until then.
struct ChildPlan {
  int root_mount = -1;
  const char* new_root = nullptr;  // an empty directory of the launcher's mount namespace
  std::array<PlannedMount, 24> mounts{};
  std::size_t mount_count = 0;
  const ProcMask* masks = nullptr;
  std::size_t mask_count = 0;
  int netns = -1;
  std::array<int, 8> attach{};  // cgroup.procs files
  std::size_t attach_count = 0;
  int null = -1, output = -1, framed_log = -1, report = -1, status = -1;
  int control_in = -1, control_out = -1;     // the main process's ends
  std::array<const char*, 10> companions{};  // programs
  std::size_t companion_count = 0;
  char* const* companion_environment = nullptr;
  int companion_output = -1, gate = -1;  // with companions only
  char* const* arguments = nullptr;
  char* const* environment = nullptr;
  const char* working_directory = nullptr;
  bool switch_identity = true;  // false without root: everything keeps the launcher's user
  uid_t user = 0, init_user = 0;
  gid_t group = 0, init_group = 0;
  std::uint32_t files_max = 0;
  std::uint32_t processes_max = 0;  // 0: no limit (without root the user's other processes would count)
  sock_fprog filter{}, init_filter{};
  char* title = nullptr;       // what ps shows for init; may be null
  Step fail_at = Step::kNone;  // pretend that this step fails
};

// Runs in the cloned child; never returns.
[[noreturn]] void run_child(const ChildPlan& plan);

}  // namespace mayfly::sandbox::internal
