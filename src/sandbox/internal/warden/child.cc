#include "sandbox/internal/warden/child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox/internal/program_steps.h"
#include "sandbox/internal/zygote/order.h"

namespace mayfly::sandbox::internal {
namespace {

constexpr int kFirstFree = 64;  // descriptors are first moved out of the way of 0 to 7
constexpr int kFramedLog = 3;   // as _LAMBDA_TELEMETRY_LOG_FD says
constexpr int kControlOut = 5;  // the last of _MAYFLY_CONTROL_FDS
constexpr int kReport = 6;
constexpr int kOrders = 7;

[[noreturn]] void fail(int report, Step step, int error, int argument) {
  const StepFailure failure{.step = step, .error = error, .argument = argument};
  (void)!write(report, &failure, sizeof failure);
  _exit(127);
}

// One numbered step: `result` below zero means it failed.
class Steps {
 public:
  Steps(const BlankPlan& plan, int report) : plan_(plan), report_(report) {}
  void check(Step step, long result, int argument = 0) const {
    if (result < 0) fail(report_, step, errno, argument);
    if (plan_.fail_at == step) fail(report_, step, EIO, argument);
  }
  [[nodiscard]] Steps with_report(int report) const { return {plan_, report}; }

 private:
  const BlankPlan& plan_;
  int report_;
};

int change_user(const BlankPlan& plan, uid_t user, gid_t group) { return plan.switch_identity ? become(user, group) : 0; }

int set_ordered_limits(const Orders& orders) {
  if (set_limit(RLIMIT_NOFILE, orders.files_max) != 0) return -1;
  return orders.processes_max == 0 ? 0 : set_limit(RLIMIT_NPROC, orders.processes_max);
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

void build_root(const BlankPlan& plan, const int* descriptors, const Steps& steps) {
  steps.check(Step::kMountRoot, move_mount(descriptors[kPlanRoot], "", AT_FDCWD, plan.new_root, MOVE_MOUNT_F_EMPTY_PATH));
  steps.check(Step::kEnterRoot, chdir(plan.new_root));
  for (std::uint32_t i = 0; i < plan.mount_count; ++i) {
    steps.check(Step::kMount, move_mount(descriptors[kPlanFixed + i], "", AT_FDCWD, plan.mount_targets[i], MOVE_MOUNT_F_EMPTY_PATH),
                static_cast<int>(i));
  }
  steps.check(Step::kMountProc, mount_proc());
  for (std::uint32_t i = 0; i < plan.mask_count; ++i) steps.check(Step::kProtectProc, protect_proc(plan.masks[i]), static_cast<int>(i));
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

// Gives the launcher a way back to this mount namespace: code is mounted here later, by it.
long show_mounts(int status) {
  const int mounts = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
  if (mounts < 0) return -1;
  char byte = 0;
  iovec part{.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(head), &mounts, sizeof mounts);
  const ssize_t sent = sendmsg(status, &message, MSG_NOSIGNAL);
  close(mounts);
  return sent == 1 ? 0 : -1;
}

// Of the main process: everything it keeps gets its place.
int arrange_descriptors(const int* descriptors) {
  constexpr PlanDescriptor kKept[] = {kPlanNull,      kPlanOutput,     kPlanOutput, kPlanFramedLog,
                                      kPlanControlIn, kPlanControlOut, kPlanReport, kPlanOrders};
  constexpr int kCount = sizeof kKept / sizeof kKept[0];
  static_assert(kCount == kOrders + 1);
  int moved[kCount] = {};
  for (int i = 0; i < kCount; ++i) {
    moved[i] = fcntl(descriptors[kKept[i]], F_DUPFD_CLOEXEC, kFirstFree);
    if (moved[i] < 0) return -1;
  }
  for (int i = 0; i < kCount; ++i) {
    if (dup3(moved[i], i, i >= kReport ? O_CLOEXEC : 0) < 0) return -1;
  }
  return 0;
}

// Says that everything is ready so far.
void report_waiting() {
  const StepFailure none{};
  (void)!write(kReport, &none, sizeof none);
}

// ---- the orders of the main process

struct Programs {
  const char* working_directory = nullptr;
  char* arguments[Orders::kTextsMax + 1] = {};
  char* variables[Orders::kTextsMax + 1] = {};
  char* companion_variables[Orders::kTextsMax + 1] = {};
  char* companions[Orders::kCompanionsMax] = {};
  Orders orders;
  int companion_output = -1, gate = -1;
};

alignas(Orders) char received[Orders::kBytesMax];  // untouched pages cost nothing
Programs programs;

// The next text, or null when it is not whole.
char* next_text(char*& at, char* end) {
  auto* const nul = static_cast<char*>(memchr(at, 0, static_cast<std::size_t>(end - at)));
  if (nul == nullptr) return nullptr;
  char* const text = at;
  at = nul + 1;
  return text;
}

bool read_texts(char*& at, char* end, char** texts, std::uint32_t count) {
  for (std::uint32_t i = 0; i < count; ++i) {
    texts[i] = next_text(at, end);
    if (texts[i] == nullptr) return false;
  }
  return true;
}

bool parse_orders(std::size_t size) {
  Orders& orders = programs.orders;
  if (size < sizeof orders) return false;
  memcpy(&orders, received, sizeof orders);
  char* at = received + sizeof orders;
  char* const end = received + size;
  if (orders.stand_aside != 0) return at == end;
  if (orders.arguments == 0 || orders.arguments > Orders::kTextsMax || orders.variables > Orders::kTextsMax ||
      orders.companions > Orders::kCompanionsMax || static_cast<std::size_t>(end - at) < orders.variables)
    return false;
  const char* const shared = at;
  at += orders.variables;
  programs.working_directory = next_text(at, end);
  if (programs.working_directory == nullptr || !read_texts(at, end, programs.arguments, orders.arguments) ||
      !read_texts(at, end, programs.variables, orders.variables) || !read_texts(at, end, programs.companions, orders.companions))
    return false;
  std::uint32_t count = 0;
  for (std::uint32_t i = 0; i < orders.variables; ++i) {
    if (shared[i] != 0) programs.companion_variables[count++] = programs.variables[i];
  }
  return at == end && (orders.companions == 0 || (programs.companion_output >= 0 && programs.gate >= 0));
}

// Waits until the launcher says what to become. Nobody there any more: ends.
int receive_orders() {
  iovec part{.iov_base = received, .iov_len = sizeof received};
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got = -1;
  do got = recvmsg(kOrders, &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got <= 0) _exit(127);
  const cmsghdr* head = CMSG_FIRSTHDR(&message);
  if (head != nullptr && head->cmsg_len == CMSG_LEN(2 * sizeof(int))) {
    memcpy(&programs.companion_output, CMSG_DATA(head), sizeof(int));
    memcpy(&programs.gate, CMSG_DATA(head) + sizeof(int), sizeof(int));
  }
  if ((message.msg_flags & MSG_TRUNC) == 0 && parse_orders(static_cast<std::size_t>(got))) return 0;
  errno = EBADMSG;
  return -1;
}

// Hands what it has to the process that takes its place, and is in nobody's way until the launcher has seen to that.
[[noreturn]] void stand_aside() {
  constexpr const char* kNamespaces[] = {"pid", "mnt", "net", "ipc", "uts", "cgroup"};
  static_assert(kForkPids == 0 && kForkMounts == 1 && kForkNetwork == 2 && kForkIpc == 3 && kForkHostName == 4 && kForkCgroups == 5);
  static_assert(kForkReport == 6 && kForkNull == 7 && kForkControlOut == kForkNull + kControlOut);
  int handed[kForkFixed];
  char path[32] = "/proc/self/ns/";
  const std::size_t name = strlen(path);
  for (std::size_t i = 0; i < kForkReport; ++i) {
    memcpy(path + name, kNamespaces[i], strlen(kNamespaces[i]) + 1);
    handed[i] = open(path, O_RDONLY | O_CLOEXEC);
    if (handed[i] < 0) _exit(127);
  }
  handed[kForkReport] = kReport;
  for (int own = 0; own <= kControlOut; ++own) handed[kForkNull + own] = own;
  char byte = 0;
  iovec part{.iov_base = &byte, .iov_len = 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof handed)] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof handed);
  memcpy(CMSG_DATA(head), handed, sizeof handed);
  if (sendmsg(kOrders, &message, MSG_NOSIGNAL) != 1) _exit(127);
  (void)close_range(0, kReport, 0);
  while (read(kOrders, &byte, 1) < 0 && errno == EINTR) {
  }
  _exit(0);
}

// Becomes companion `number`, from 1 on. Already with the sandbox's user, limits and filter.
[[noreturn]] void run_companion(const Steps& steps, std::uint32_t number) {
  steps.check(Step::kNewSession, setsid());
  // The framed log and the control pipes are the main process's alone.
  long arranged = dup2(programs.companion_output, 1) < 0 ? -1 : dup2(programs.companion_output, 2);
  for (int own = kFramedLog; own <= kControlOut && arranged >= 0; ++own) arranged = dup2(0, own);
  steps.check(Step::kDescriptors, arranged);
  steps.check(Step::kWorkingDirectory, chdir("/"));
  char* const program = programs.companions[number - 1];
  char* const alone[] = {program, nullptr};
  steps.check(Step::kExec, execve(program, alone, programs.companion_variables), static_cast<int>(number));
  _exit(127);
}

// Waits until somebody opens the gate, or is no more.
void wait_at_gate() {
  report_waiting();
  char opened = 0;
  while (read(programs.gate, &opened, 1) < 0 && errno == EINTR) {
  }
}

// The main process: gives up everything, waits for its orders, and becomes the program.
[[noreturn]] void run_main(const BlankPlan& plan, const int* descriptors, const Steps& from_init) {
  from_init.check(Step::kNewSession, setsid());
  from_init.check(Step::kDescriptors, arrange_descriptors(descriptors));
  const Steps steps = from_init.with_report(kReport);
  steps.check(Step::kCloseDescriptors, close_range(kOrders + 1, ~0U, 0));
  steps.check(Step::kResourceLimits, set_fixed_limits());
  steps.check(Step::kIdentity, change_user(plan, plan.user, plan.group));
  steps.check(Step::kCapabilities, drop_capabilities());
  steps.check(Step::kNoNewPrivileges, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  steps.check(Step::kFilter, load_filter(plan.filter, plan.filter_length));
  report_waiting();

  steps.check(Step::kOrders, receive_orders());
  if (programs.orders.stand_aside != 0) stand_aside();
  steps.check(Step::kOrderedLimits, set_ordered_limits(programs.orders));
  // Before any program runs, so that their pids follow the main process's without a gap; init, whose children they are, counts on it.
  for (std::uint32_t i = 1; i <= programs.orders.companions; ++i) {
    const long pid = syscall(SYS_clone, SIGCHLD | CLONE_PARENT, 0, 0, 0, 0);
    if (pid == 0) run_companion(steps, i);
    steps.check(Step::kStartMain, pid, static_cast<int>(i));
  }
  // As the function's user: what it may not enter it must not start in.
  steps.check(Step::kWorkingDirectory, chdir(programs.working_directory));
  if (programs.orders.companions > 0) wait_at_gate();
  steps.check(Step::kExec, plan.fail_at == Step::kExec ? 0 : execve(programs.arguments[0], programs.arguments, programs.variables));
  _exit(127);
}

// ---- init

// True when the launcher is alive. It holds the other end of the status socket.
bool launcher_lives(int status) {
  pollfd one{.fd = status, .events = POLLIN, .revents = 0};
  return poll(&one, 1, 0) == 0;
}

void drop_init(const BlankPlan& plan, int status, const Steps& steps) {
  steps.check(Step::kInitIdentity, change_user(plan, plan.init_user, plan.init_group));
  steps.check(Step::kInitCapabilities, drop_capabilities());
  steps.check(Step::kInitCapabilities, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  // Changing the user clears this, so it comes after; whoever was orphaned before it sees the closed socket.
  steps.check(Step::kInitCapabilities, prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
  steps.check(Step::kInitCapabilities, prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));  // not readable or traceable from inside
  if (!launcher_lives(status)) _exit(127);
}

[[noreturn]] void be_init(pid_t main, int status) {
  bool told[1 + Orders::kCompanionsMax] = {};  // a pid may come again after its program ended
  while (true) {
    int wait_status = 0;
    const pid_t pid = wait4(-1, &wait_status, __WALL, nullptr);
    if (pid < 0 && errno == EINTR) continue;
    if (pid < 0) _exit(0);  // nothing is left inside
    static Roll roll;
    (void)!read(status, &roll, sizeof roll);  // does not wait; what was read before stays
    if (roll.main != 0) main = roll.main;
    const auto which = static_cast<std::uint32_t>(pid - main);
    if (pid < main || which > roll.companions || which > Orders::kCompanionsMax || told[which]) continue;  // an orphan
    told[which] = true;
    const ProgramStatus ended{.wait_status = wait_status, .companion = which};
    (void)!write(status, &ended, sizeof ended);
    if (roll.companions == 0) _exit(0);  // and the kernel kills everything else inside
  }
}

}  // namespace

void run_child(const BlankPlan& plan, const int* descriptors) {
  const Steps steps(plan, descriptors[kPlanReport]);
  steps.check(Step::kEnterNetwork, setns(descriptors[kPlanNetwork], CLONE_NEWNET));
  const int* attach = descriptors + kPlanFixed + plan.mount_count;
  for (std::uint32_t i = 0; i < plan.attach_count; ++i) steps.check(Step::kJoinCgroup, write(attach[i], "0", 1), static_cast<int>(i));
  steps.check(Step::kCgroupNamespace, unshare(CLONE_NEWCGROUP));
  steps.check(Step::kHostName, sethostname("sandbox", 7));
  build_root(plan, descriptors, steps);
  offer_to_oom_killer();
  steps.check(Step::kShowMounts, show_mounts(descriptors[kPlanStatus]));
  steps.check(Step::kInitCapabilities, prctl(PR_SET_DUMPABLE, 0, 0, 0, 0));       // for both, until the main process is a program
  const auto main = static_cast<pid_t>(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));  // fork without libc's locks
  if (main == 0) run_main(plan, descriptors, steps);
  steps.check(Step::kStartMain, main);
  drop_init(plan, descriptors[kPlanStatus], steps);
  // Everything but the status socket goes; the report pipe last, since its end tells the launcher that the program runs.
  const int status = 0;
  steps.check(Step::kDescriptors, dup2(descriptors[kPlanStatus], status));
  const int report = 1;
  steps.check(Step::kDescriptors, dup2(descriptors[kPlanReport], report));
  const Steps last = steps.with_report(report);
  last.check(Step::kCloseDescriptors, close_range(2, ~0U, 0));
  last.check(Step::kInitFilter, load_filter(plan.init_filter, plan.init_filter_length));
  const ProgramStatus ready{.companion = ProgramStatus::kReady};
  (void)!write(status, &ready, sizeof ready);
  close(report);
  be_init(main, status);
}

}  // namespace mayfly::sandbox::internal
