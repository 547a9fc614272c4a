// What the launcher and the warden say to each other, and what the processes of a sandbox say to the launcher. Plain memory: both are
// built together. Each packet is one structure over a SEQPACKET socket; descriptors travel beside it.
//
// A sandbox is made without code and waits ("blank"): nothing of a function is in it and every privilege is gone from its two processes.
// Code is mounted into it from outside; then its main process gets its orders and becomes the function's program.
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

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
  kShowMounts,
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
  kFilter,
  // once it has orders
  kOrders,
  kOrderedLimits,
  kWorkingDirectory,
  kExec,
  kCount,
};
// "mount", "execute": what the launcher puts into its error.
[[nodiscard]] const char* step_name(Step step);

// On the report pipe. Of no step: the main process waits, first for its orders, then, with companions, at its gate. The pipe's end: the
// program runs.
struct StepFailure {
  Step step = Step::kNone;
  std::int32_t error = 0;     // errno
  std::int32_t argument = 0;  // which mount, which group: index into the plan; of programs 0 for the main one, else the companion
};

// On the status socket, by init: first one with kReady in `companion`, when it has given up its privileges; before that the mount
// namespace, as a descriptor beside a byte. Then how programs ended.
struct ProgramStatus {
  static constexpr std::uint32_t kReady = ~std::uint32_t{0};
  std::int32_t wait_status = 0;
  std::uint32_t companion = 0;  // from 1 on; 0 is the main process
};

// On the status socket, to init: what it is to expect, where that is not the main process alone. Once; before the orders, or before the
// process that waits for them ends because another has taken its place.
struct Roll {
  std::uint32_t companions = 0;
  pid_t main = 0;  // what the main process is called inside, where it is not init's first child; else 0
};

struct ProcMask {
  char path[32] = {};  // relative to the new root
  enum class How : std::uint8_t { kReadOnly, kHideFile, kHideDirectory } how = How::kReadOnly;
};

// What a blank sandbox is made of.
struct BlankPlan {
  static constexpr std::size_t kMountsMax = 4, kAttachMax = 8, kMasksMax = 32;
  static constexpr std::size_t kFilterMax = 1024, kInitFilterMax = 64;

  char new_root[256] = {};                  // an empty directory of the launcher's mount namespace
  char mount_targets[kMountsMax][32] = {};  // relative to the new root
  std::uint32_t mount_count = 0;
  ProcMask masks[kMasksMax] = {};
  std::uint32_t mask_count = 0;
  std::uint32_t attach_count = 0;  // v1 groups to join
  bool into_group = false;         // a v2 group to be cloned into
  bool switch_identity = true;     // false without root: everything keeps the launcher's user
  uid_t user = 0, init_user = 0;
  gid_t group = 0, init_group = 0;
  sock_filter filter[kFilterMax] = {};
  std::uint32_t filter_length = 0;
  sock_filter init_filter[kInitFilterMax] = {};
  std::uint32_t init_filter_length = 0;
  Step fail_at = Step::kNone;  // pretend that this step fails
};

// The descriptors beside a BlankPlan, in this order; then the mounts, the cgroup.procs files, the directory of the v2 group.
enum PlanDescriptor : std::uint8_t {
  kPlanRoot,  // a detached clone of the root's mounts
  kPlanNetwork,
  kPlanNull,
  kPlanOutput,
  kPlanFramedLog,
  kPlanControlIn,
  kPlanControlOut,
  kPlanReport,
  kPlanStatus,
  kPlanOrders,
  kPlanFixed,  // how many
};
inline constexpr std::size_t kPlanDescriptorsMax = kPlanFixed + BlankPlan::kMountsMax + BlankPlan::kAttachMax + 1;

// The warden's answer; the pidfd beside it when error is 0.
struct Spawned {
  pid_t init = -1;
  std::int32_t error = 0;  // errno of the clone
};

// To the main process: this, then a byte for each variable (1: companions get it too), then texts that end with NUL: working directory,
// arguments, variables, companions. With companions two descriptors: where they print, and the main process's gate.
//
// To stand aside: nothing but this with stand_aside set. It answers with one byte and its descriptors as ForkDescriptor (zygote/order.h)
// has them, and ends with the socket: another process becomes the main one.
struct Orders {
  static constexpr std::size_t kBytesMax = 65'536;
  static constexpr std::size_t kTextsMax = 562;  // arguments or variables: those of the specification and two of the launcher's
  static constexpr std::size_t kCompanionsMax = 10;
  std::uint32_t files_max = 0;
  std::uint32_t processes_max = 0;  // 0: no limit (without root the user's other processes would count)
  std::uint32_t arguments = 0, variables = 0, companions = 0;
  std::uint32_t stand_aside = 0;
};

}  // namespace mayfly::sandbox::internal
