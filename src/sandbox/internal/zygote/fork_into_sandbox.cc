// The zygote's half that is not written in its interpreter's language: a small library without dependencies, called once. It takes orders
// until the launcher is gone and returns in each child, which then is in its sandbox without any privilege.
//
// Why two clones: the kernel puts a child of ours into the sandbox's pid namespace, yet only orphans of that namespace become children
// of the sandbox's first process, which is to hear how the main process ended. So a middle process, sharing our memory and gone at once,
// forks the real one. It uses libc's fork(): that one sets up the thread descriptor of the child.
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "sandbox/internal/program_steps.h"
#include "sandbox/internal/zygote/order.h"

namespace mayfly::sandbox::internal {
namespace {

constexpr int kFirstFree = 64;  // descriptors are first moved out of the way of 0 to 5
constexpr int kKept = kForkFixed - kForkNull;

// Of the zygote; a child has a copy.
ForkOrder order;
int descriptors[kForkDescriptorsMax];
std::size_t descriptor_count;

// As StepFailure of the warden's plan.
struct Failure {
  std::int32_t step, error, argument;
};

void check(ForkStep step, long result, int argument = 0) {
  if (result >= 0) return;
  const Failure failure{.step = kForkSteps + static_cast<std::int32_t>(step), .error = errno, .argument = argument};
  (void)!write(descriptors[kForkReport], &failure, sizeof failure);
  _exit(127);
}

// False when the launcher is gone.
bool receive_order(int channel) {
  iovec part{.iov_base = &order, .iov_len = sizeof order};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof descriptors)] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got = -1;
  do got = recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got != static_cast<ssize_t>(sizeof order)) return false;
  const cmsghdr* head = CMSG_FIRSTHDR(&message);
  descriptor_count = head == nullptr ? 0 : (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  if (descriptor_count > 0) memcpy(descriptors, CMSG_DATA(head), descriptor_count * sizeof(int));
  return order.attach_count <= ForkOrder::kAttachMax && order.filter_length <= ForkOrder::kFilterMax &&
         descriptor_count == kForkFixed + order.attach_count;
}

void enter_namespaces() {
  constexpr struct {
    ForkDescriptor which;
    int type;
  } kNamespaces[] = {
      {kForkNetwork, CLONE_NEWNET},    {kForkIpc, CLONE_NEWIPC},   {kForkHostName, CLONE_NEWUTS},
      {kForkCgroups, CLONE_NEWCGROUP}, {kForkMounts, CLONE_NEWNS},  // last: afterwards the zygote's files are out of reach
  };
  for (const auto& each : kNamespaces) check(ForkStep::kEnterNamespaces, setns(descriptors[each.which], each.type), each.type);
}

// Everything it keeps gets its place; the report pipe is the only other one left.
int arrange_descriptors() {
  int moved[kKept];
  for (int i = 0; i < kKept; ++i) {
    moved[i] = fcntl(descriptors[kForkNull + i], F_DUPFD_CLOEXEC, kFirstFree);
    if (moved[i] < 0) return -1;
  }
  const int report = fcntl(descriptors[kForkReport], F_DUPFD_CLOEXEC, kFirstFree);
  if (report < 0) return -1;
  for (int i = 0; i < kKept; ++i) {
    if (dup2(moved[i], i) < 0) return -1;
  }
  if (dup3(report, kKept, O_CLOEXEC) < 0) return -1;
  descriptors[kForkReport] = kKept;
  return close_range(kKept + 1, ~0U, 0);
}

int set_limits() {
  if (set_fixed_limits() != 0 || set_limit(RLIMIT_NOFILE, order.files_max) != 0) return -1;
  return order.processes_max == 0 ? 0 : set_limit(RLIMIT_NPROC, order.processes_max);
}

// The child, until nothing tells it from a main process that was executed.
void enter_sandbox() {
  for (std::uint32_t i = 0; i < order.attach_count; ++i)
    check(ForkStep::kJoinCgroup, write(descriptors[kForkFixed + i], "0", 1), static_cast<int>(i));
  enter_namespaces();
  check(ForkStep::kNewSession, setsid());
  check(ForkStep::kDescriptors, arrange_descriptors());
  check(ForkStep::kResourceLimits, set_limits());
  check(ForkStep::kCapabilities, empty_bounding_set());
  check(ForkStep::kIdentity, become(order.user, order.group));
  check(ForkStep::kCapabilities, drop_capabilities());
  // The change of user cleared it. Nothing in this memory is a secret to whom it now belongs.
  check(ForkStep::kCapabilities, prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
  check(ForkStep::kFilter, load_filter(order.filter, order.filter_length));
  explicit_bzero(&order, sizeof order);
  close(kKept);  // the report pipe's end: all went well
}

// True in the child.
bool fork_child(Forked& forked) {
  if (setns(descriptors[kForkPids], CLONE_NEWPID) != 0) {
    forked.error = errno;
    return false;
  }
  volatile pid_t inner = -1;
  volatile int error = 0;
  const pid_t middle = vfork();
  if (middle == 0) {
    const pid_t child = fork();
    if (child == 0) return true;  // its memory is its own, this frame included
    inner = child;
    error = child < 0 ? errno : 0;
    _exit(0);
  }
  forked.error = middle < 0 ? errno : error;
  forked.inner = inner;
  if (middle > 0) {
    while (waitpid(middle, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  return false;
}

}  // namespace
}  // namespace mayfly::sandbox::internal

// Takes orders over `channel` and returns 0 in each child. In the zygote itself it does not return: without a launcher it ends. The next
// descriptor is the zygote's own pid namespace.
extern "C" __attribute__((visibility("default"))) int mayfly_fork_into_sandboxes(int channel) {
  using namespace mayfly::sandbox::internal;
  const int own_pids = channel + 1;
  Forked answer;
  while (send(channel, &answer, sizeof answer, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof answer) && receive_order(channel)) {
    answer = {.sandbox = order.sandbox};
    if (fork_child(answer)) {
      enter_sandbox();
      return 0;
    }
    (void)setns(own_pids, CLONE_NEWPID);  // keeps no namespace of a sandbox alive
    for (std::size_t i = 0; i < descriptor_count; ++i) close(descriptors[i]);
  }
  _exit(0);
}
