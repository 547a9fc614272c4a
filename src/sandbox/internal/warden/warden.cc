// The warden: a program of its own, small and static, carried inside mayfly and started by the launcher. All it does is clone sandboxes
// as it is told to. Cloned from it they are small too: a copy of the launcher would cost each sandbox ten times the memory, twice the
// time, and leave secrets of the launcher in every init.
//
// Its sandboxes are children of its parent, the launcher, which outlives it or takes it with it.
#include <errno.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <initializer_list>

#include "sandbox/internal/program_steps.h"
#include "sandbox/internal/warden/child.h"

namespace mayfly::sandbox::internal {
namespace {

constexpr int kChannel = 3;

void ignore_signal(int) {}

// The launcher decides when this ends, not a service manager that signals everything. Handlers, not SIG_IGN: exec resets them.
void arrange_signals() {
  struct sigaction nothing = {};
  nothing.sa_handler = ignore_signal;
  nothing.sa_flags = SA_RESTART;
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2, SIGTSTP})
    (void)sigaction(number, &nothing, nullptr);
}

BlankPlan plan;
int descriptors[kPlanDescriptorsMax];
std::size_t descriptor_count;

// False when the launcher is gone.
bool receive_plan() {
  iovec part{.iov_base = &plan, .iov_len = sizeof plan};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof descriptors)] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got = -1;
  do got = recvmsg(kChannel, &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got != static_cast<ssize_t>(sizeof plan)) return false;
  const cmsghdr* head = CMSG_FIRSTHDR(&message);
  descriptor_count = head == nullptr ? 0 : (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  if (descriptor_count > 0) memcpy(descriptors, CMSG_DATA(head), descriptor_count * sizeof(int));
  return true;
}

bool is_whole() {
  return plan.mount_count <= BlankPlan::kMountsMax && plan.attach_count <= BlankPlan::kAttachMax &&
         plan.mask_count <= BlankPlan::kMasksMax && plan.filter_length <= BlankPlan::kFilterMax &&
         plan.init_filter_length <= BlankPlan::kInitFilterMax &&
         descriptor_count == kPlanFixed + plan.mount_count + plan.attach_count + (plan.into_group ? 1U : 0U);
}

Spawned spawn(int& pidfd) {
  if (!is_whole()) return {.error = EBADMSG};
  clone_args args{};
  args.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PIDFD | CLONE_PARENT;
  args.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  if (plan.into_group) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<std::uint64_t>(descriptors[descriptor_count - 1]);
  }
  const long pid = syscall(SYS_clone3, &args, sizeof args);
  if (pid == 0) {
    close(kChannel);
    run_child(plan, descriptors);
  }
  if (pid < 0) return {.error = errno};
  return {.init = static_cast<pid_t>(pid)};
}

bool answer(Spawned spawned, int pidfd) {
  iovec part{.iov_base = &spawned, .iov_len = sizeof spawned};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (pidfd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &pidfd, sizeof pidfd);
  }
  return sendmsg(kChannel, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof spawned);
}

}  // namespace
}  // namespace mayfly::sandbox::internal

int main() {
  using namespace mayfly::sandbox::internal;
  (void)prctl(PR_SET_NAME, "mayfly-sandbox", 0, 0, 0);
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  arrange_signals();
  if (empty_bounding_set() != 0) return 1;  // nothing that is executed below ever gains a capability
  while (receive_plan()) {
    int pidfd = -1;
    const Spawned spawned = spawn(pidfd);
    for (std::size_t i = 0; i < descriptor_count; ++i) close(descriptors[i]);  // first: whose report pipe ends is to be seen at once
    const bool told = answer(spawned, pidfd);
    if (pidfd >= 0) close(pidfd);
    if (!told) return 1;
  }
  return 0;
}
