#include "sandbox/internal/zygote_process.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "base/log.h"
#include "sandbox/internal/processes.h"
#include "sandbox/internal/program_steps.h"
#include "sandbox/internal/protocol.h"

// The library as it was linked. Not an array in C++: commas take a compiler a while.
asm(R"(
  .section .rodata
  .global mayfly_zygote_library_begin
  .global mayfly_zygote_library_end
  .balign 16
mayfly_zygote_library_begin:
  .incbin ")" MAYFLY_ZYGOTE_LIBRARY R"("
mayfly_zygote_library_end:
  .previous
)");
extern "C" const char mayfly_zygote_library_begin[];  // NOLINT(readability-identifier-naming)
extern "C" const char mayfly_zygote_library_end[];    // NOLINT(readability-identifier-naming)

namespace mayfly::sandbox::internal {

namespace fs = std::filesystem;
using base::errno_error;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::UniqueFd;

namespace {

constexpr const char* kLibrary = "native/libmayfly_zygote.so";
constexpr int kFirstFree = 64;
constexpr int kChannel = 3;  // as _MAYFLY_ZYGOTE says
constexpr int kOwnPids = 4;  // the next one: its own pid namespace, for the way back
constexpr std::array kHeld = {CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SETUID, CAP_SETGID, CAP_SETPCAP};

// Root alone can change the file or what leads to it.
bool is_roots_own(const fs::path& path) {
  for (fs::path part = path; !part.empty(); part = part.parent_path()) {
    constexpr mode_t kOthersWrite = 0022;
    struct stat found{};
    if (lstat(part.c_str(), &found) != 0 || found.st_uid != 0) return false;
    if ((found.st_mode & kOthersWrite) != 0) return false;
    if (part == part.root_path()) return true;
  }
  return false;
}

// The interpreter and the library beside it: PREFIX/bin/NAME and PREFIX/lib/NAME, where that exists.
Result<void> check_interpreter(const std::string& program) {
  std::error_code error;
  const fs::path real = fs::canonical(program, error);
  if (error) return Error(ErrorCode::kNotFound, program + " cannot be found");
  const fs::path library = real.parent_path().parent_path() / "lib" / real.filename();
  if (is_roots_own(real) && (!fs::exists(library, error) || is_roots_own(library))) return {};
  return Error(ErrorCode::kPermissionDenied,
               program +
                   " or its library could be changed by others than root, so no zygote is made of it: every environment starts it "
                   "anew. Make root its owner, without write permission for others, up to the root directory");
}

// ---- in the processes of the zygote, which are copies of the launcher until the interpreter is executed

[[noreturn]] void give_up(const char* what) {
  base::log_error("a zygote could not be started", {{"what", errno_error(what, errno).message()}});
  _exit(127);
}

void must(long result, const char* what) {
  if (result < 0) give_up(what);
}

void enter_root(const UniqueFd& root, const UniqueFd& runtime, const std::string& point) {
  must(move_mount(root.get(), "", AT_FDCWD, point.c_str(), MOVE_MOUNT_F_EMPTY_PATH), "mount its root");
  must(chdir(point.c_str()), "enter its root");
  must(move_mount(runtime.get(), "", AT_FDCWD, "var/runtime", MOVE_MOUNT_F_EMPTY_PATH), "mount its /var/runtime");
  must(syscall(SYS_pivot_root, ".", "."), "make its root the root");
  must(umount2(".", MNT_DETACH), "detach the host's file systems");
  must(chdir("/"), "enter its root");
}

void keep_few_capabilities(uid_t user, gid_t group) {
  constexpr int kCapabilityMost = 63;
  for (int capability = 0; capability <= kCapabilityMost; ++capability) {
    if (std::ranges::find(kHeld, capability) != kHeld.end()) continue;
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno == EINVAL) break;  // past the last one this kernel knows
  }
  must(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "keep capabilities");
  must(become(user, group), "change its user");
  __user_cap_header_struct head{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct sets[2] = {};
  for (const int capability : kHeld) sets[0].permitted |= 1U << static_cast<unsigned>(capability);
  static_assert(CAP_SYS_ADMIN < 32 && CAP_SYS_CHROOT < 32, "all in the first half");
  sets[0].effective = sets[0].inheritable = sets[0].permitted;
  must(syscall(SYS_capset, &head, sets), "give up capabilities");
  for (const int capability : kHeld) must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0), "keep capabilities");
}

struct Ends {
  const UniqueFd &root, &runtime, &channel, &own_pids;
  const Cgroup& group;
};

// When the machine itself runs out of memory, functions go before anything else; children inherit this, and that they cannot lower it.
void offer_to_oom_killer() {
  const UniqueFd file(open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  must(write(file.get(), "300", 3), "offer it to the kernel's memory killer");
}

[[noreturn]] void run_interpreter(const ZygotePlan& plan, const Ends& ends, const std::string& point, const Filter& filter) {
  for (const auto& procs : ends.group.attach) must(write(procs.get(), "0", 1), "join its control groups");
  offer_to_oom_killer();
  must(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make its mounts its own");
  enter_root(ends.root, ends.runtime, point);
  std::vector<char*> arguments;
  std::vector<char*> environment;
  for (const auto& text : plan.arguments) arguments.push_back(const_cast<char*>(text.c_str()));
  for (const auto& text : plan.environment) environment.push_back(const_cast<char*>(text.c_str()));
  std::string says = "_MAYFLY_ZYGOTE=" + std::to_string(kChannel);
  environment.push_back(says.data());
  arguments.push_back(nullptr);
  environment.push_back(nullptr);
  must(setsid(), "start a session");
  const int channel = fcntl(ends.channel.get(), F_DUPFD_CLOEXEC, kFirstFree);
  const int own_pids = fcntl(ends.own_pids.get(), F_DUPFD_CLOEXEC, kFirstFree);
  must(channel < 0 || own_pids < 0 ? -1 : 0, "arrange descriptors");
  must(dup2(channel, kChannel), "arrange descriptors");
  must(dup2(own_pids, kOwnPids), "arrange descriptors");
  must(close_range(kOwnPids + 1, ~0U, 0), "close descriptors");
  must(set_fixed_limits(), "set its limits");
  keep_few_capabilities(plan.user, plan.group);
  must(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "tie it to the launcher");  // changing the user would clear it
  must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "set no_new_privs");
  must(load_filter(filter.data(), static_cast<std::uint32_t>(filter.size())), "filter its system calls");
  must(execve(arguments.front(), arguments.data(), environment.data()), "execute its interpreter");
  _exit(127);
}

}  // namespace

Result<ZygoteRuntime> ZygoteRuntime::write(const std::string& directory, std::span<const base::EmbeddedFile> files) {
  const std::string_view library(mayfly_zygote_library_begin,
                                 static_cast<std::size_t>(mayfly_zygote_library_end - mayfly_zygote_library_begin));
  std::vector<base::EmbeddedFile> all(files.begin(), files.end());
  all.push_back({.name = kLibrary, .bytes = library, .mode = 0755});
  for (const auto& file : all) {
    const fs::path path = fs::path(directory) / file.name;
    MAYFLY_TRY(base::make_directories(path.parent_path().string(), 0755));
    MAYFLY_ASSIGN(const UniqueFd made, base::open_file(path.string(), O_WRONLY | O_CREAT | O_EXCL, file.mode));
    MAYFLY_TRY(base::write_all(made.get(), file.bytes).with_context("write " + path.string()));
  }
  return ZygoteRuntime(directory);
}

Result<ZygoteProcess> ZygoteProcess::start(const ZygotePlan& plan, const Cgroup& group, const Roots& roots, const ZygoteRuntime& runtime,
                                           const Filter& filter) {
  if (plan.arguments.empty()) return Error(ErrorCode::kInvalidArgument, "a zygote needs an interpreter");
  MAYFLY_TRY(check_interpreter(plan.arguments.front()));
  MAYFLY_ASSIGN(const UniqueFd root, roots.clone_root(plan.root_id));
  MAYFLY_ASSIGN(const UniqueFd files, read_only_bind(AT_FDCWD, runtime.directory(), false));
  int ends[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return errno_error("make a socket pair", errno);
  ZygoteProcess zygote;
  zygote.channel_ = UniqueFd(ends[0]);
  const UniqueFd theirs(ends[1]);
  MAYFLY_ASSIGN(const UniqueFd own_pids, base::open_file("/proc/self/ns/pid", O_RDONLY));
  int pidfd = -1;
  clone_args args{};
  // Not a pid namespace: the kernel lets a process make children only in namespaces below its own, and sandboxes are below the launcher's.
  args.flags = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP | CLONE_PIDFD;
  args.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  if (group.into) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<std::uint64_t>(group.into.get());
  }
  const long pid = syscall(SYS_clone3, &args, sizeof args);
  if (pid == 0)
    run_interpreter(plan, {.root = root, .runtime = files, .channel = theirs, .own_pids = own_pids, .group = group}, roots.mount_point(),
                    filter);
  if (pid < 0) return errno_error("make the zygote's namespaces", errno);
  zygote.pid_ = static_cast<pid_t>(pid);
  zygote.pidfd_ = UniqueFd(pidfd);
  return zygote;
}

ZygoteProcess::~ZygoteProcess() {
  if (!pidfd_.valid()) return;
  signal_through(pidfd_, SIGKILL);
  siginfo_t info{};
  while (waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info, WEXITED) != 0 && errno == EINTR) {
  }
}

Result<void> ZygoteProcess::order(const ForkOrder& order, std::span<const int> descriptors) const {
  const std::string_view bytes(reinterpret_cast<const char*>(&order), sizeof order);
  MAYFLY_ASSIGN(const bool sent, send_packet(channel_.get(), bytes, descriptors, MSG_DONTWAIT));
  if (sent) return {};
  return Error(ErrorCode::kUnavailable, "the zygote takes no orders");
}

Result<std::optional<Forked>> ZygoteProcess::collect() const {
  Forked answer;
  const ssize_t got = recv(channel_.get(), &answer, sizeof answer, MSG_DONTWAIT);
  if (got == static_cast<ssize_t>(sizeof answer)) return std::optional<Forked>(answer);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return std::optional<Forked>();
  return Error(ErrorCode::kUnavailable, "the zygote has ended");
}

}  // namespace mayfly::sandbox::internal
