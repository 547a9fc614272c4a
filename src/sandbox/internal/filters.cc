#include "sandbox/internal/filters.h"

#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <initializer_list>
#include <span>

#include "base/defer.h"
#include "base/fd.h"

namespace mayfly::sandbox::internal {

using base::errno_error;
using base::Error;
using base::ErrorCode;
using base::Result;

namespace {

struct Group {
  const char* reason;
  std::initializer_list<const char*> calls;
};

// Allowed whole. Names unknown to this architecture or library are passed over.
const Group kAllowed[] = {
    {"files and directories: the read-only root and /tmp decide what can be changed",
     {"access", "chdir", "chmod", "chown", "close", "close_range", "copy_file_range", "creat", "dup", "dup2", "dup3", "faccessat",
      "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchown", "fchownat", "fcntl", "fdatasync",
      "fgetxattr", "flistxattr", "flock", "fremovexattr", "fsetxattr", "fstat", "fstatfs", "fsync", "ftruncate", "futimesat",
      "getcwd", "getdents", "getdents64", "getxattr", "ioctl", "lchown", "lgetxattr", "link", "linkat", "listxattr", "llistxattr",
      "lremovexattr", "lseek", "lsetxattr", "lstat", "mkdir", "mkdirat", "mknod", "mknodat", "name_to_handle_at", "newfstatat",
      "open", "openat", "openat2", "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead",
      "readlink", "readlinkat", "readv", "removexattr", "rename", "renameat", "renameat2", "rmdir", "sendfile", "setxattr",
      "splice", "stat", "statfs", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "tee", "truncate", "umask",
      "unlink", "unlinkat", "utime", "utimensat", "utimes", "vmsplice", "write", "writev"}},
    {"waiting for files, timers and signals",
     {"epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2",
      "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "pause", "poll", "ppoll", "pselect6", "select",
      "signalfd", "signalfd4", "timerfd_create", "timerfd_gettime", "timerfd_settime", "io_cancel", "io_destroy", "io_getevents",
      "io_pgetevents", "io_setup", "io_submit"}},
    {"memory of the process itself; the memory controller holds the sum",
     {"brk", "madvise", "membarrier", "memfd_create", "memfd_secret", "mincore", "mlock", "mlock2", "mlockall", "mmap", "mprotect",
      "mremap", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect", "process_madvise",
      "remap_file_pages"}},
    {"processes and threads inside the sandbox's own pid namespace",
     {"capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "get_robust_list", "get_thread_area", "getegid",
      "geteuid", "getgid", "getgroups", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getresgid", "getresuid",
      "getrlimit", "getrusage", "getsid", "gettid", "getuid", "ioprio_get", "ioprio_set", "kill", "landlock_add_rule",
      "landlock_create_ruleset", "landlock_restrict_self", "pidfd_open", "pidfd_send_signal", "prctl", "prlimit64",
      "process_mrelease", "rseq", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr",
      "sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity", "sched_setattr", "sched_setparam",
      "sched_setscheduler", "sched_yield", "seccomp", "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid",
      "setfsuid", "setgid", "setgroups", "setpgid", "setpriority", "setregid", "setresgid", "setresuid", "setreuid", "setrlimit",
      "setsid", "setuid", "tgkill", "tkill", "vfork", "wait4", "waitid", "waitpid", "arch_prctl"}},
    {"locks between threads",
     {"futex", "futex_waitv"}},
    {"signals",
     {"restart_syscall", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
      "rt_sigtimedwait", "rt_tgsigqueueinfo", "sigaltstack"}},
    {"reading clocks and sleeping; setting a clock takes a capability nobody inside has",
     {"adjtimex", "alarm", "clock_getres", "clock_gettime", "clock_nanosleep", "getitimer", "gettimeofday", "nanosleep",
      "setitimer", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "times"}},
    {"sockets of the families socket() grants below; the network namespace and the firewall decide whom they reach",
     {"accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recv", "recvfrom", "recvmmsg",
      "recvmsg", "send", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown"}},
    {"System V and POSIX IPC: the IPC namespace is the sandbox's own",
     {"mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink", "msgctl", "msgget", "msgrcv",
      "msgsnd", "pipe", "pipe2", "semctl", "semget", "semop", "semtimedop", "shmat", "shmctl", "shmdt", "shmget"}},
    {"facts about the machine and randomness",
     {"getcpu", "getrandom", "sysinfo", "uname"}},
};

// Calls newer than the oldest libseccomp this builds with; numbers are the same on every architecture from 424 on.
constexpr std::array<int, 6> kAllowedNumbers = {
    451,  // cachestat
    452,  // fchmodat2
    454, 455, 456,  // futex_wake, futex_wait, futex_requeue
    462,  // mseal
};

// Refused with EPERM, as container engines do, so that programs take their fallback. Whatever is named nowhere answers ENOSYS.
const Group kRefused[] = {
    {"mounts and other roots: the way out of a file system",
     {"chroot", "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree", "pivot_root",
      "umount", "umount2"}},
    {"namespaces: a user namespace inside would hand back capabilities over kernel surfaces",
     {"setns", "unshare"}},
    {"other processes' memory and descriptors",
     {"kcmp", "pidfd_getfd", "process_vm_readv", "process_vm_writev", "ptrace", "userfaultfd"}},
    {"large kernel surfaces with a history of escapes",
     {"bpf", "io_uring_enter", "io_uring_register", "io_uring_setup", "perf_event_open", "fanotify_init", "fanotify_mark",
      "modify_ldt", "lookup_dcookie", "vm86", "vm86old"}},
    {"the kernel's keyrings are not namespaced",
     {"add_key", "keyctl", "request_key"}},
    {"file handles reach files outside the root",
     {"open_by_handle_at"}},
    {"the machine itself",
     {"acct", "clock_adjtime", "clock_settime", "create_module", "delete_module", "finit_module", "get_kernel_syms", "init_module",
      "ioperm", "iopl", "kexec_file_load", "kexec_load", "nfsservctl", "query_module", "quotactl", "quotactl_fd", "reboot",
      "setdomainname", "sethostname", "settimeofday", "stime", "swapoff", "swapon", "sysfs", "_sysctl", "syslog", "uselib", "ustat",
      "vhangup"}},
    {"placement of memory on nodes: the machine's business",
     {"get_mempolicy", "mbind", "migrate_pages", "move_pages", "set_mempolicy", "set_mempolicy_home_node"}},
};

constexpr std::uint64_t kNamespaceFlags =
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
constexpr unsigned kFamilyUnix = 1, kFamilyInet = 2, kFamilyInet6 = 10, kFamilyNetlink = 16, kNetlinkRoute = 0;

class Builder {
 public:
  explicit Builder(std::uint32_t otherwise) : otherwise_(otherwise), context_(seccomp_init(otherwise)) {
    if (context_ == nullptr) failure_ = ENOMEM;
    else check(seccomp_attr_set(context_, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS));  // i386 and x32 calls
  }
  ~Builder() {
    if (context_ != nullptr) seccomp_release(context_);
  }
  Builder(const Builder&) = delete;
  Builder& operator=(const Builder&) = delete;

  void add(std::uint32_t action, const char* name, std::initializer_list<scmp_arg_cmp> conditions = {}) {
    const int number = seccomp_syscall_resolve_name(name);
    if (number >= 0) add_number(action, number, conditions);
  }
  void add_number(std::uint32_t action, int number, std::initializer_list<scmp_arg_cmp> conditions = {}) {
    if (failure_ != 0 || action == otherwise_) return;  // the library refuses a rule that says what the default says
    const int done = seccomp_rule_add_array(context_, action, number, static_cast<unsigned>(conditions.size()), conditions.begin());
    if (done != -EEXIST) check(done);
  }
  void add_groups(std::uint32_t action, std::span<const Group> groups) {
    for (const auto& group : groups) {
      for (const char* name : group.calls) add(action, name);
    }
  }
  Result<Filter> finish() {
    if (failure_ == 0) check(seccomp_attr_set(context_, SCMP_FLTATR_CTL_OPTIMIZE, 2));  // a tree: loads and runs faster than a list
    if (failure_ != 0) return errno_error("build a system call filter", failure_);
    const base::UniqueFd file(memfd_create("filter", MFD_CLOEXEC));
    if (!file) return errno_error("build a system call filter", errno);
    check(seccomp_export_bpf(context_, file.get()));
    if (failure_ != 0) return errno_error("export a system call filter", failure_);
    const off_t size = lseek(file.get(), 0, SEEK_END);
    Filter filter(static_cast<std::size_t>(size) / sizeof(sock_filter));
    if (pread(file.get(), filter.data(), static_cast<std::size_t>(size), 0) != size) return errno_error("read a system call filter", errno);
    return filter;
  }

 private:
  void check(int result) {
    if (result < 0 && failure_ == 0) failure_ = -result;
  }
  std::uint32_t otherwise_;
  scmp_filter_ctx context_;
  int failure_ = 0;
};

scmp_arg_cmp equals(unsigned argument, std::uint64_t value) { return {argument, SCMP_CMP_EQ, value, 0}; }
scmp_arg_cmp at_least(unsigned argument, std::uint64_t value) { return {argument, SCMP_CMP_GE, value, 0}; }
scmp_arg_cmp differs(unsigned argument, std::uint64_t value) { return {argument, SCMP_CMP_NE, value, 0}; }
scmp_arg_cmp masked(unsigned argument, std::uint64_t mask, std::uint64_t value) { return {argument, SCMP_CMP_MASKED_EQ, mask, value}; }

// Threads and processes yes, namespaces no. clone3 hides its flags in memory a filter cannot read: ENOSYS makes libc use clone.
void add_clone(Builder& filter) {
  filter.add(SCMP_ACT_ALLOW, "clone", {masked(0, kNamespaceFlags, 0)});
  for (std::uint64_t bit = 1; bit != 0 && bit <= kNamespaceFlags; bit <<= 1U) {
    if ((bit & kNamespaceFlags) != 0) filter.add(SCMP_ACT_ERRNO(EPERM), "clone", {masked(0, bit, bit)});
  }
  filter.add(SCMP_ACT_ERRNO(ENOSYS), "clone3");
}

// IP, local sockets, and the routing netlink that getifaddrs() needs. Every other family is kernel surface for nothing.
void add_sockets(Builder& filter) {
  for (const char* call : {"socket", "socketpair"}) {
    for (const unsigned family : {kFamilyUnix, kFamilyInet, kFamilyInet6}) filter.add(SCMP_ACT_ALLOW, call, {equals(0, family)});
    filter.add(SCMP_ACT_ALLOW, call, {equals(0, kFamilyNetlink), equals(2, kNetlinkRoute)});
    filter.add(SCMP_ACT_ERRNO(EAFNOSUPPORT), call, {equals(0, kFamilyNetlink), differs(2, kNetlinkRoute)});
    for (unsigned family = 0; family < kFamilyNetlink; ++family) {
      if (family == kFamilyUnix || family == kFamilyInet || family == kFamilyInet6) continue;
      filter.add(SCMP_ACT_ERRNO(EAFNOSUPPORT), call, {equals(0, family)});
    }
    filter.add(SCMP_ACT_ERRNO(EAFNOSUPPORT), call, {at_least(0, kFamilyNetlink + 1)});
  }
}

// Reading the personality and the values container engines allow: no disabled address randomisation, no READ_IMPLIES_EXEC.
void add_personality(Builder& filter) {
  for (const std::uint64_t value : {0x0ULL, 0x8ULL, 0x20000ULL, 0x20008ULL, 0xffffffffULL}) {
    filter.add(SCMP_ACT_ALLOW, "personality", {equals(0, value)});
  }
}

}  // namespace

namespace {

Result<Filter> common_filter(std::initializer_list<const char*> besides) {
  Builder filter(SCMP_ACT_ERRNO(ENOSYS));
  for (const char* call : besides) filter.add(SCMP_ACT_ALLOW, call);  // first: what is refused below stays allowed
  filter.add_groups(SCMP_ACT_ALLOW, kAllowed);
  for (const int number : kAllowedNumbers) filter.add_number(SCMP_ACT_ALLOW, number);
  filter.add_groups(SCMP_ACT_ERRNO(EPERM), kRefused);
  add_clone(filter);
  add_sockets(filter);
  add_personality(filter);
  return filter.finish();
}

}  // namespace

Result<Filter> function_filter() { return common_filter({}); }
Result<Filter> zygote_filter() { return common_filter({"setns"}); }

Result<Filter> init_filter() {
  Builder filter(SCMP_ACT_KILL_PROCESS);
  for (const char* call : {"close", "wait4", "read", "write", "exit_group", "rt_sigreturn", "restart_syscall"}) filter.add(SCMP_ACT_ALLOW, call);
  return filter.finish();
}

Result<Filter> unpack_filter() {
  Builder filter(SCMP_ACT_ERRNO(EPERM));
  for (const char* call :
       {"brk", "clock_gettime", "clock_nanosleep", "close", "exit", "exit_group", "fchmod", "fcntl", "fdatasync", "fstat",
        "fsync", "futex", "getdents64", "getrandom", "gettid", "getpid", "lseek", "madvise", "mkdirat", "mmap", "mprotect", "mremap", "munmap",
        "newfstatat", "openat", "openat2", "pread64", "read", "readlinkat", "recvmsg", "restart_syscall", "rt_sigaction",
        "rt_sigprocmask", "rt_sigreturn", "sendmsg", "sigaltstack", "statx", "symlinkat", "syncfs", "tgkill", "write", "writev",
        "ftruncate", "fchmodat", "fstatfs"}) {
    filter.add(SCMP_ACT_ALLOW, call);
  }
  return filter.finish();
}

}  // namespace mayfly::sandbox::internal
