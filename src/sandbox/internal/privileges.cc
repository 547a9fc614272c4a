#include "sandbox/internal/privileges.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/fd.h"
#include "sandbox/launcher.h"

namespace mayfly::sandbox {

using base::errno_error;
using base::Error;
using base::ErrorCode;
using base::Result;

namespace internal {

Result<void> become_user(std::uint32_t user, std::uint32_t group) {
  constexpr int kCapabilityMost = 63;
  for (int capability = 0; capability <= kCapabilityMost; ++capability) {
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0) continue;
    if (errno == EINVAL) break;  // past the last one this kernel knows
    return errno_error("empty the capability bounding set", errno);
  }
  if (setgroups(0, nullptr) != 0) return errno_error("give up all groups", errno);
  if (setresgid(group, group, group) != 0) return errno_error("become group " + std::to_string(group), errno);
  if (setresuid(user, user, user) != 0) return errno_error("become user " + std::to_string(user), errno);
  return {};
}

Result<void> drop_all_capabilities() {
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 && errno != EINVAL)
    return errno_error("clear ambient capabilities", errno);
  __user_cap_header_struct head{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  const __user_cap_data_struct none[2] = {};
  if (syscall(SYS_capset, &head, none) != 0) return errno_error("drop capabilities", errno);
  return {};
}

namespace {

// Whether user:group without further groups can enter `path`; asked of the kernel by a child that is that user.
bool can_enter(const std::string& path, std::uint32_t user, std::uint32_t group) {
  const pid_t pid = fork();
  if (pid == 0) {
    const bool is_user = become_user(user, group).ok();
    _exit(is_user && access(path.c_str(), X_OK) == 0 ? 0 : 1);
  }
  int status = 1;
  while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return pid > 0 && status == 0;
}

bool is_beneath(const std::string& path, const std::string& directory) { return path == directory || path.starts_with(directory + "/"); }

// An empty directory that every user can enter and that hides nothing when covered; else /run with what the server reads there kept.
std::string find_mount_point(const std::string& data) {
  for (const char* candidate : {"/srv", "/media", "/mnt"}) {
    std::error_code ec;
    if (is_beneath(data, candidate)) continue;
    if (std::filesystem::is_directory(candidate, ec) && std::filesystem::is_empty(candidate, ec) && !ec) return candidate;
  }
  return is_beneath(data, "/run") ? "/var/empty" : "/run";
}

// The resolver's configuration often is a link into /run.
std::string resolver_beneath(const std::string& directory) {
  std::array<char, PATH_MAX> real{};
  if (realpath("/etc/resolv.conf", real.data()) == nullptr || !is_beneath(real.data(), directory)) return {};
  return real.data();
}

Result<void> restore_file(const std::string& path, const std::string& content) {
  MAYFLY_TRY(base::make_directories(path.substr(0, path.rfind('/')), 0755));
  MAYFLY_ASSIGN(const base::UniqueFd file, base::open_file(path, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  return base::write_all(file.get(), content);
}

Result<std::string> bind_data(const std::string& data) {
  const std::string point = find_mount_point(data);
  const std::string resolver = resolver_beneath(point);
  const std::string resolver_text = resolver.empty() ? "" : base::read_file(resolver).value_or(std::string());
  const base::UniqueFd source(open(data.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!source) return errno_error("open the data directory " + data, errno);
  if (mount("mayfly", point.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755") != 0)
    return errno_error("mount a tmpfs on " + point, errno);
  const std::string path = point + "/mayfly-data";
  if (mkdir(path.c_str(), 0755) != 0) return errno_error("make " + path, errno);
  const std::string from = "/proc/self/fd/" + std::to_string(source.get());
  if (mount(from.c_str(), path.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0)
    return errno_error("bind the data directory to " + path, errno);
  if (!resolver_text.empty()) MAYFLY_TRY(restore_file(resolver, resolver_text).with_context("keep " + resolver));
  if (mount(nullptr, point.c_str(), nullptr, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV, "size=1m,mode=755") != 0)
    return errno_error("make " + point + " read-only", errno);
  return path;
}

}  // namespace
}  // namespace internal

Result<std::string> drop_privileges(std::uint32_t uid, std::uint32_t gid, const std::string& data_directory) {
  std::array<char, PATH_MAX> real{};
  if (realpath(data_directory.c_str(), real.data()) == nullptr) return errno_error("find the data directory " + data_directory, errno);
  std::string path = real.data();
  if (geteuid() != 0) return path;
  if (uid == 0) return Error(ErrorCode::kInvalidArgument, "the server must not keep running as root: name another user id");
  if (unshare(CLONE_NEWNS) != 0) return errno_error("make a mount namespace for the server", errno);
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return errno_error("make the server's mounts private", errno);
  if (!internal::can_enter(path, uid, gid)) {
    MAYFLY_ASSIGN(path, internal::bind_data(path));
    if (!internal::can_enter(path, uid, gid)) {
      return Error(ErrorCode::kPermissionDenied, "user " + std::to_string(uid) + " may not enter the data directory " + data_directory +
                                                     "; change its owner to that user");
    }
  }
  MAYFLY_TRY(internal::become_user(uid, gid));
  MAYFLY_TRY(internal::drop_all_capabilities());
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return errno_error("set no_new_privs", errno);
  return path;
}

}  // namespace mayfly::sandbox
