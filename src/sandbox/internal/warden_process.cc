#include "sandbox/internal/warden_process.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "sandbox/internal/processes.h"
#include "sandbox/internal/protocol.h"

// The program as it was linked. Not an array in C++: a megabyte of commas takes a compiler a while.
asm(R"(
  .section .rodata
  .global mayfly_warden_begin
  .global mayfly_warden_end
  .balign 16
mayfly_warden_begin:
  .incbin ")" MAYFLY_WARDEN_PROGRAM R"("
mayfly_warden_end:
  .previous
)");
extern "C" const char mayfly_warden_begin[];  // NOLINT(readability-identifier-naming)
extern "C" const char mayfly_warden_end[];    // NOLINT(readability-identifier-naming)

namespace mayfly::sandbox::internal {

using base::errno_error;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::UniqueFd;

namespace {

constexpr std::array kStepNames = {
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
    "show its mounts to the launcher",
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
    "filter system calls",
    "take its orders",
    "set the function's resource limits",
    "enter the working directory",
    "execute",
};
static_assert(kStepNames.size() == static_cast<std::size_t>(Step::kCount));

Result<UniqueFd> program_file() {
  UniqueFd file(memfd_create("mayfly-sandbox", MFD_CLOEXEC));
  if (!file) return errno_error("make a file in memory for the warden", errno);
  const std::string_view program(mayfly_warden_begin, static_cast<std::size_t>(mayfly_warden_end - mayfly_warden_begin));
  MAYFLY_TRY(base::write_all(file.get(), program).with_context("the warden's program"));
  return file;
}

// Without root the capabilities of the user namespace would not survive the execve.
void keep_capabilities() {
  __user_cap_header_struct head{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct sets[2] = {};
  if (syscall(SYS_capget, &head, sets) != 0) return;
  for (auto& set : sets) set.inheritable = set.permitted;
  if (syscall(SYS_capset, &head, sets) != 0) return;
  constexpr int kCapabilityMost = 63;
  for (int capability = 0; capability <= kCapabilityMost; ++capability) (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0);
}

}  // namespace

const char* step_name(Step step) {
  const auto index = static_cast<std::size_t>(step);
  return index < kStepNames.size() ? kStepNames[index] : "an unknown step";
}

Result<Warden> Warden::start() {
  MAYFLY_ASSIGN(const UniqueFd program, program_file());
  int ends[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return errno_error("make a socket pair", errno);
  UniqueFd ours(ends[0]);
  const UniqueFd theirs(ends[1]);
  const pid_t pid = fork();
  if (pid < 0) return errno_error("start the warden", errno);
  if (pid == 0) {
    constexpr int kFirstFree = 64, kChannel = 3;
    const int channel = fcntl(theirs.get(), F_DUPFD_CLOEXEC, kFirstFree);
    const int file = fcntl(program.get(), F_DUPFD_CLOEXEC, kFirstFree);
    keep_capabilities();
    (void)dup2(channel, kChannel);
    (void)dup2(0, 1);
    for (int fd = kChannel + 1; fd < kFirstFree; ++fd) close(fd);
    char name[] = "mayfly: sandbox";
    char* const arguments[] = {name, nullptr};
    char* const environment[] = {nullptr};
    (void)syscall(SYS_execveat, file, "", arguments, environment, AT_EMPTY_PATH);
    _exit(127);
  }
  return Warden(std::move(ours), pid);
}

void Warden::end() {
  channel_.reset();
  reap(pid_);
  pid_ = -1;
}

Result<Warden::Blank> Warden::spawn(const BlankPlan& plan, std::span<const int> descriptors) const {
  const std::string_view bytes(reinterpret_cast<const char*>(&plan), sizeof plan);
  auto sent = send_packet(channel_.get(), bytes, descriptors, 0);
  auto packet = sent.ok() ? receive_packet(channel_.get(), 0) : Result<std::optional<Packet>>(std::move(sent).error());
  Spawned spawned;
  if (!packet.ok() || !*packet || (*packet)->bytes.size() != sizeof spawned)
    return Error(ErrorCode::kUnavailable, "the warden, which makes sandboxes, has ended; restart Mayfly");
  std::memcpy(&spawned, (*packet)->bytes.data(), sizeof spawned);
  if (spawned.error != 0) return errno_error("make the sandbox's namespaces", spawned.error);
  if ((*packet)->descriptors.size() != 1) {
    (void)kill(spawned.init, SIGKILL);  // a child of the launcher, which has not waited for it: the number is no other's
    return no_room_for_descriptors();
  }
  return Blank{.init = spawned.init, .init_pidfd = std::move((*packet)->descriptors.front())};
}

}  // namespace mayfly::sandbox::internal
