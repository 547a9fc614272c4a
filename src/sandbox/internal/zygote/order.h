// What the launcher and a zygote say to each other. Plain memory: both are built together. One structure a packet over a SEQPACKET
// socket; descriptors travel beside it.
//
// A zygote is an interpreter that has loaded Mayfly's bootstrap and never any code of a function. On an order it forks: the child enters
// a sandbox that waits for a main process, gives up everything, and returns into the interpreter as a stem: booted, without code.
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace mayfly::sandbox::internal {

// The child's steps, in order. On the sandbox's report pipe as StepFailure has them there, from kForkSteps on.
enum class ForkStep : std::int32_t {
  kNone = 0,
  kJoinCgroup,
  kEnterNamespaces,
  kNewSession,
  kDescriptors,
  kResourceLimits,
  kIdentity,
  kCapabilities,
  kFilter,
  kCount,
};
inline constexpr std::int32_t kForkSteps = 1000;

// One child. Descriptors beside it: ForkDescriptor's, then the cgroup.procs files of the groups to join.
struct ForkOrder {
  static constexpr std::size_t kFilterMax = 1024, kAttachMax = 8;
  std::uint64_t sandbox = 0;  // comes back in the answer
  uid_t user = 0;
  gid_t group = 0;
  std::uint32_t files_max = 0, processes_max = 0;
  std::uint32_t attach_count = 0;
  std::uint32_t filter_length = 0;
  sock_filter filter[kFilterMax] = {};
};

enum ForkDescriptor : std::uint8_t {
  kForkPids,  // namespaces of the sandbox
  kForkMounts,
  kForkNetwork,
  kForkIpc,
  kForkHostName,
  kForkCgroups,
  kForkReport,
  kForkNull,  // what the child keeps, as descriptors 0 to 5
  kForkOutput,
  kForkErrors,
  kForkFramedLog,
  kForkControlIn,
  kForkControlOut,
  kForkFixed,  // how many
};
inline constexpr std::size_t kForkDescriptorsMax = kForkFixed + ForkOrder::kAttachMax;

// The answer. The first one of a zygote has sandbox 0: it is ready.
struct Forked {
  std::uint64_t sandbox = 0;
  std::int32_t error = 0;  // errno of the fork
  pid_t inner = -1;        // what the child is called inside its sandbox
};

}  // namespace mayfly::sandbox::internal
