#include "sandbox/internal/child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace mayfly::sandbox::internal {
namespace {

constexpr const char* kStepNames[] = {
    "no step",
    "enter its network",
    "join control group",
    "make a cgroup namespace",
    "set the host name",
    "mount the root",
    "enter the root",
    "mount",
    "mount /proc",
    "protect",
    "make the new root the root",
    "detach the host's file systems",
    "start the main process",
    "change the user of init",
    "drop the capabilities of init",
    "filter the system calls of init",
    "start a session",
    "arrange descriptors",
    "close descriptors",
    "set resource limits",
    "change the user",
    "drop capabilities",
    "set no_new_privs",
    "enter the working directory",
    "filter system calls",
    "execute",
};
static_assert(sizeof kStepNames / sizeof kStepNames[0] == static_cast<std::size_t>(Step::kCount));

constexpr int kFirstFree = 64;  // descriptors are first moved out of the way of 0 to 7
constexpr int kFramedLog = 3;   // as _LAMBDA_TELEMETRY_LOG_FD says
constexpr int kControlIn = 4;   // as _MAYFLY_CONTROL_FDS says
constexpr int kControlOut = 5;
constexpr int kReport = 6;
constexpr int kGate = 7;
constexpr int kCapabilityMost = 63;

[[noreturn]] void fail(int report, Step step, int error, int argument) {
  const StepFailure failure{.step = step, .error = error, .argument = argument};
  (void)!write(report, &failure, sizeof failure);
  _exit(127);
}

// One numbered step: `result` below zero means it failed.
class Steps {
 public:
  Steps(const ChildPlan& plan, int report) : plan_(plan), report_(report) {}
  void check(Step step, long result, int argument = 0) const {
    if (result < 0) fail(report_, step, errno, argument);
    if (plan_.fail_at == step) fail(report_, step, EIO, argument);
  }
  [[nodiscard]] Steps with_report(int report) const { return {plan_, report}; }

 private:
  const ChildPlan& plan_;
  int report_;
};

int empty_bounding_set() {
  for (int capability = 0; capability <= kCapabilityMost; ++capability) {
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0) continue;
    return errno == EINVAL ? 0 : -1;  // EINVAL: past the last one this kernel knows
  }
  return 0;
}

int drop_capabilities() {
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 && errno != EINVAL) return -1;
  __user_cap_header_struct head{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct none[2] = {};
  return static_cast<int>(syscall(SYS_capset, &head, none));
}

// Straight system calls: libc's would try to tell other threads.
int change_user(const ChildPlan& plan, uid_t user, gid_t group) {
  if (!plan.switch_identity) return 0;
  if (syscall(SYS_setgroups, 0, nullptr) != 0 || syscall(SYS_setresgid, group, group, group) != 0) return -1;
  return static_cast<int>(syscall(SYS_setresuid, user, user, user));
}

int load_filter(const sock_fprog& filter) {
  if (filter.len == 0) return 0;
  return static_cast<int>(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
}

int set_limit(int resource, rlim_t most) {
  rlimit now{};
  if (getrlimit(static_cast<__rlimit_resource>(resource), &now) != 0) return -1;
  if (now.rlim_max != RLIM_INFINITY && now.rlim_max < most) most = now.rlim_max;  // raising a hard limit takes CAP_SYS_RESOURCE
  const rlimit wanted{.rlim_cur = most, .rlim_max = most};
  return setrlimit(static_cast<__rlimit_resource>(resource), &wanted);
}

int set_limits(const ChildPlan& plan) {
  constexpr rlim_t kLockedBytes = 65'536;
  // One byte, not zero: zero still starts a core_pattern that pipes to a program, as root on the host, with the function's memory.
  constexpr rlim_t kNoCore = 1;
  if (set_limit(RLIMIT_NOFILE, plan.files_max) != 0 || set_limit(RLIMIT_CORE, kNoCore) != 0 || set_limit(RLIMIT_MEMLOCK, kLockedBytes) != 0)
    return -1;
  if (set_limit(RLIMIT_RTPRIO, 0) != 0 || set_limit(RLIMIT_NICE, 0) != 0) return -1;
  return plan.processes_max == 0 ? 0 : set_limit(RLIMIT_NPROC, plan.processes_max);
}

int protect_proc(const ProcMask& mask) {
  const char* source = mask.path;
  if (mask.how == ProcMask::How::kHideFile) source = "dev/null";
  if (mask.how == ProcMask::How::kHideDirectory) source = "var/empty";
  if (mount(source, mask.path, nullptr, MS_BIND | MS_REC, nullptr) != 0) return -1;
  if (mask.how == ProcMask::How::kHideFile) return 0;
  return mount(nullptr, mask.path, nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr);
}

int mount_proc() {
  constexpr unsigned long kFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  if (mount("proc", "proc", "proc", kFlags, "hidepid=2") == 0) return 0;
  return mount("proc", "proc", "proc", kFlags, nullptr);
}

void build_root(const ChildPlan& plan, const Steps& steps) {
  steps.check(Step::kMountRoot, move_mount(plan.root_mount, "", AT_FDCWD, plan.new_root, MOVE_MOUNT_F_EMPTY_PATH));
  steps.check(Step::kEnterRoot, chdir(plan.new_root));
  for (std::size_t i = 0; i < plan.mount_count; ++i) {
    steps.check(Step::kMount, move_mount(plan.mounts[i].mount, "", AT_FDCWD, plan.mounts[i].target, MOVE_MOUNT_F_EMPTY_PATH),
                static_cast<int>(i));
  }
  steps.check(Step::kMountProc, mount_proc());
  for (std::size_t i = 0; i < plan.mask_count; ++i) steps.check(Step::kProtectProc, protect_proc(plan.masks[i]), static_cast<int>(i));
  steps.check(Step::kPivotRoot, syscall(SYS_pivot_root, ".", "."));
  steps.check(Step::kDetachOldRoot, umount2(".", MNT_DETACH));
  steps.check(Step::kDetachOldRoot, chdir("/"));
}

// When the machine itself runs out of memory, functions go before anything else.
void offer_to_oom_killer() {
  const int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  (void)!write(file, "300", 3);
  close(file);
}

// The framed log and the control pipes are the main process's alone.
int arrange_descriptors(const ChildPlan& plan, std::uint32_t companion) {
  const bool main = companion == 0;
  const int null = fcntl(plan.null, F_DUPFD_CLOEXEC, kFirstFree);
  const int output = fcntl(main ? plan.output : plan.companion_output, F_DUPFD_CLOEXEC, kFirstFree);
  const int framed = fcntl(main ? plan.framed_log : plan.null, F_DUPFD_CLOEXEC, kFirstFree);
  const int control_in = fcntl(main ? plan.control_in : plan.null, F_DUPFD_CLOEXEC, kFirstFree);
  const int control_out = fcntl(main ? plan.control_out : plan.null, F_DUPFD_CLOEXEC, kFirstFree);
  const int report = fcntl(plan.report, F_DUPFD_CLOEXEC, kFirstFree);
  const int gate = fcntl(main && plan.gate >= 0 ? plan.gate : plan.null, F_DUPFD_CLOEXEC, kFirstFree);
  if (null < 0 || output < 0 || framed < 0 || control_in < 0 || control_out < 0 || report < 0 || gate < 0) return -1;
  if (dup3(report, kReport, O_CLOEXEC) < 0 || dup3(gate, kGate, O_CLOEXEC) < 0) return -1;
  if (dup2(null, 0) < 0 || dup2(output, 1) < 0 || dup2(output, 2) < 0 || dup2(framed, kFramedLog) < 0) return -1;
  if (dup2(control_in, kControlIn) < 0 || dup2(control_out, kControlOut) < 0) return -1;
  return 0;
}

// Says that everything is ready and waits until somebody opens the gate, or is no more.
void wait_at_gate() {
  const StepFailure none{};
  (void)!write(kReport, &none, sizeof none);
  char opened = 0;
  while (read(kGate, &opened, 1) < 0 && errno == EINTR) {
  }
}

// Becomes a program: the main process, or a companion.
[[noreturn]] void run_program(const ChildPlan& plan, const Steps& from_init, std::uint32_t companion) {
  from_init.check(Step::kNewSession, setsid());
  from_init.check(Step::kDescriptors, arrange_descriptors(plan, companion));
  const Steps steps = from_init.with_report(kReport);
  steps.check(Step::kCloseDescriptors, close_range(kGate + 1, ~0U, 0));
  steps.check(Step::kResourceLimits, set_limits(plan));
  steps.check(Step::kIdentity, change_user(plan, plan.user, plan.group));
  steps.check(Step::kCapabilities, drop_capabilities());
  steps.check(Step::kNoNewPrivileges, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  // As the function's user: what it may not enter it must not start in.
  steps.check(Step::kWorkingDirectory, chdir(companion == 0 ? plan.working_directory : "/"));
  steps.check(Step::kFilter, load_filter(plan.filter));
  if (companion == 0 && plan.gate >= 0) wait_at_gate();
  char* alone[] = {companion == 0 ? nullptr : const_cast<char*>(plan.companions[companion - 1]), nullptr};
  char* const* arguments = companion == 0 ? plan.arguments : alone;
  char* const* environment = companion == 0 ? plan.environment : plan.companion_environment;
  steps.check(Step::kExec, plan.fail_at == Step::kExec ? 0 : execve(arguments[0], arguments, environment), static_cast<int>(companion));
  _exit(127);
}

// True when the launcher is alive. It holds the other end of the status socket.
bool launcher_lives(int status) {
  pollfd one{.fd = status, .events = POLLIN, .revents = 0};
  return poll(&one, 1, 0) == 0;
}

void drop_init(const ChildPlan& plan, const Steps& steps) {
  steps.check(Step::kInitIdentity, change_user(plan, plan.init_user, plan.init_group));
  steps.check(Step::kInitCapabilities, drop_capabilities());
  steps.check(Step::kInitCapabilities, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  // Changing the user clears this, so it comes after; whoever was orphaned before it sees the closed socket.
  steps.check(Step::kInitCapabilities, prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
  steps.check(Step::kInitCapabilities, prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));  // not readable or traceable from inside
  if (!launcher_lives(plan.status)) _exit(127);
}

struct Programs {
  std::array<pid_t, 11> pids{};  // the main process, then the companions
  std::uint32_t count = 0;
};

[[noreturn]] void be_init(const Programs& programs, int status) {
  while (true) {
    int wait_status = 0;
    const pid_t pid = wait4(-1, &wait_status, __WALL, nullptr);
    if (pid < 0 && errno == EINTR) continue;
    if (pid < 0) _exit(0);  // nothing is left inside
    std::uint32_t which = 0;
    while (which < programs.count && programs.pids[which] != pid) ++which;
    if (which == programs.count) continue;  // an orphan
    const ProgramStatus ended{.wait_status = wait_status, .companion = which};
    (void)!write(status, &ended, sizeof ended);
    if (programs.count == 1) _exit(0);  // and the kernel kills everything else inside
  }
}

}  // namespace

const char* step_name(Step step) {
  const auto index = static_cast<std::size_t>(step);
  return index < static_cast<std::size_t>(Step::kCount) ? kStepNames[index] : "an unknown step";
}

void run_child(const ChildPlan& plan) {
  const Steps steps(plan, plan.report);
  if (plan.title != nullptr) memcpy(plan.title, "mayfly: sandbox ", 16);  // as long as "mayfly: launcher"
  steps.check(Step::kEnterNetwork, setns(plan.netns, CLONE_NEWNET));
  for (std::size_t i = 0; i < plan.attach_count; ++i) steps.check(Step::kJoinCgroup, write(plan.attach[i], "0", 1), static_cast<int>(i));
  steps.check(Step::kCgroupNamespace, unshare(CLONE_NEWCGROUP));
  steps.check(Step::kHostName, sethostname("sandbox", 7));
  build_root(plan, steps);
  offer_to_oom_killer();
  // Prevents reading init's memory (a copy of the launcher's) already while the main process starts.
  steps.check(Step::kInitCapabilities, prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));
  steps.check(Step::kInitCapabilities, empty_bounding_set());  // for both; while the capability to do so is there
  Programs programs;
  for (; programs.count <= plan.companion_count; ++programs.count) {               // the main process first: the launcher knows it by that
    const auto pid = static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));  // fork without libc's locks
    if (pid == 0) run_program(plan, steps, programs.count);
    steps.check(Step::kStartMain, pid, static_cast<int>(programs.count));
    programs.pids[programs.count] = pid;
  }
  drop_init(plan, steps);
  // Everything but the status socket goes; the report pipe last, since its end tells the launcher that all went well.
  const int status = 0;
  steps.check(Step::kDescriptors, dup2(plan.status, status));
  const int report = 1;
  steps.check(Step::kDescriptors, dup2(plan.report, report));
  steps.with_report(report).check(Step::kCloseDescriptors, close_range(2, ~0U, 0));
  steps.with_report(report).check(Step::kInitFilter, load_filter(plan.init_filter));
  close(report);
  be_init(programs, status);
}

}  // namespace mayfly::sandbox::internal
