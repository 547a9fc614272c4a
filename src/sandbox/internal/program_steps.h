// What every process of a sandbox does on its way to the function's program, whether it is executed or forked from a zygote: plain system
// calls, one answer each (below zero: failed, errno says why). Nothing here allocates, locks, throws or logs, and nothing needs a library.
#pragma once

#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstdint>

namespace mayfly::sandbox::internal {

// Nothing that is executed afterwards ever gains a capability.
inline int empty_bounding_set() {
  constexpr int kCapabilityMost = 63;
  for (int capability = 0; capability <= kCapabilityMost; ++capability) {
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0) continue;
    return errno == EINVAL ? 0 : -1;  // EINVAL: past the last one this kernel knows
  }
  return 0;
}

inline int drop_capabilities() {
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 && errno != EINVAL) return -1;
  __user_cap_header_struct head{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct none[2] = {};
  return static_cast<int>(syscall(SYS_capset, &head, none));
}

// Straight system calls: libc's would try to tell other threads.
inline int become(uid_t user, gid_t group) {
  if (syscall(SYS_setgroups, 0, nullptr) != 0 || syscall(SYS_setresgid, group, group, group) != 0) return -1;
  return static_cast<int>(syscall(SYS_setresuid, user, user, user));
}

inline int load_filter(const sock_filter* filter, std::uint32_t length) {
  if (length == 0) return 0;
  const sock_fprog program{.len = static_cast<unsigned short>(length), .filter = const_cast<sock_filter*>(filter)};
  return static_cast<int>(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

inline int set_limit(int resource, rlim_t most) {
  rlimit now{};
  if (getrlimit(static_cast<__rlimit_resource>(resource), &now) != 0) return -1;
  if (now.rlim_max != RLIM_INFINITY && now.rlim_max < most) most = now.rlim_max;  // raising a hard limit takes CAP_SYS_RESOURCE
  const rlimit wanted{.rlim_cur = most, .rlim_max = most};
  return setrlimit(static_cast<__rlimit_resource>(resource), &wanted);
}

// Those that are the same for every function.
inline int set_fixed_limits() {
  constexpr rlim_t kLockedBytes = 65'536;
  // One byte, not zero: zero still starts a core_pattern that pipes to a program, as root on the host, with the function's memory.
  constexpr rlim_t kNoCore = 1;
  if (set_limit(RLIMIT_CORE, kNoCore) != 0 || set_limit(RLIMIT_MEMLOCK, kLockedBytes) != 0) return -1;
  return set_limit(RLIMIT_RTPRIO, 0) != 0 ? -1 : set_limit(RLIMIT_NICE, 0);
}

}  // namespace mayfly::sandbox::internal
