#include "server/data_directory.h"

#include <fcntl.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/bytes.h"
#include "base/embedded.h"

namespace mayfly::server {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::uint32_t kUnnamedUid = 64'900;

// As root everything here goes through descriptors and follows no link: the directory belongs to the server's uid, and a
// server that was taken over must not be able to point root at something else.
Result<base::UniqueFd> own_directory(int at, const std::string& name, ServerIdentity owner, unsigned mode) {
  if (mkdirat(at, name.c_str(), mode) != 0 && errno != EEXIST) return base::errno_error("cannot make directory " + name, errno);
  base::UniqueFd fd(openat(at, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return base::errno_error("cannot open directory " + name + " (links are not followed)", errno);
  if (geteuid() == 0 && fchown(fd.get(), owner.uid, owner.gid) != 0)
    return base::errno_error("cannot give " + name + " to uid " + std::to_string(owner.uid), errno);
  if (fchmod(fd.get(), mode) != 0) return base::errno_error("cannot set the mode of " + name, errno);
  return fd;
}

Result<base::UniqueFd> open_lock(int at, ServerIdentity owner) {
  base::UniqueFd fd(openat(at, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
  if (!fd) return base::errno_error("cannot open lock", errno);
  struct stat file{};
  if (fstat(fd.get(), &file) != 0 || !S_ISREG(file.st_mode) || file.st_nlink != 1)
    return Error(ErrorCode::kInvalidArgument, "lock is not an ordinary file; remove it");
  if (geteuid() == 0 && fchown(fd.get(), owner.uid, owner.gid) != 0)
    return base::errno_error("cannot give lock to uid " + std::to_string(owner.uid), errno);
  return fd;
}

// Another user's directory is pointed out, not taken over: what is in it may be meant for root to stumble on.
Result<void> check_owner(int fd, const std::string& path, ServerIdentity owner) {
  struct stat there{};
  if (fstat(fd, &there) != 0) return base::errno_error("cannot look at " + path, errno);
  if (there.st_uid == owner.uid || (geteuid() == 0 && there.st_uid == 0)) return {};
  return Error(ErrorCode::kPermissionDenied,
               "data directory " + path + " belongs to uid " + std::to_string(there.st_uid) + ", and the server would run as uid " +
                   std::to_string(owner.uid) +
                   "; start it as that user (or with --user), give the directory away (chown -R), or name another --data");
}

}  // namespace

Result<ServerIdentity> server_identity(const std::string& setting) {
  if (geteuid() != 0) return ServerIdentity{geteuid(), getegid()};
  if (!setting.empty() && setting.find_first_not_of("0123456789") == std::string::npos && setting.size() < 10) {
    const auto uid = static_cast<std::uint32_t>(std::stoul(setting));
    if (uid == 0) return Error(ErrorCode::kInvalidArgument, "setting user: the server does not run as root; name an ordinary user");
    return ServerIdentity{uid, uid};
  }
  if (const passwd* entry = getpwnam(setting.empty() ? "mayfly" : setting.c_str()); entry != nullptr && entry->pw_uid != 0)
    return ServerIdentity{entry->pw_uid, entry->pw_gid};
  if (setting.empty()) return ServerIdentity{kUnnamedUid, kUnnamedUid};
  return Error(ErrorCode::kInvalidArgument, "setting user: there is no ordinary user \"" + setting + "\" on this machine");
}

DataDirectory::DataDirectory(std::string path, std::string instance, base::UniqueFd lock)
    : path_(std::move(path)), instance_(std::move(instance)), lock_(std::move(lock)) {}

Result<DataDirectory> DataDirectory::open(const std::string& given, ServerIdentity owner) {
  MAYFLY_TRY(base::make_directories(given, 0700).with_context("data directory"));
  std::error_code ec;
  const std::string path = std::filesystem::canonical(given, ec).string();
  if (ec) return base::errno_error("data directory " + given, ec.value());
  const auto context = [&](Error error) { return std::move(error).with_context("data directory " + path); };
  auto root = base::open_file(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!root.ok()) return std::move(root).error();
  MAYFLY_TRY(check_owner(root->get(), path, owner));
  auto lock = open_lock(root->get(), owner);
  if (!lock.ok()) return context(std::move(lock).error());
  if (flock(lock->get(), LOCK_EX | LOCK_NB) != 0) {
    auto holder = base::read_all(lock->get(), 64);
    return Error(ErrorCode::kAlreadyExists, "data directory " + given + " (" + path + ") is in use by the Mayfly server with pid " +
                                                std::move(holder).value_or(std::string("unknown")) +
                                                "; stop that one, or name another --data");
  }
  if (ftruncate(lock->get(), 0) != 0) return base::errno_error("cannot write " + path + "/lock", errno);
  MAYFLY_TRY(base::write_all(lock->get(), std::to_string(getpid())).with_context(path + "/lock"));
  if (geteuid() == 0 && fchown(root->get(), owner.uid, owner.gid) != 0)
    return base::errno_error("cannot give " + path + " to uid " + std::to_string(owner.uid), errno);

  const base::Sha256Digest digest = base::sha256(path);
  DataDirectory directory(path, base::hex_encode(std::span(digest).first(4)), std::move(*lock));
  for (const char* part : {"code", "blobs", "scratch", "logs", "objects"}) {
    if (auto made = own_directory(root->get(), part, owner, 0700); !made.ok()) return context(std::move(made).error());
  }
  // Functions read the bootstraps as uids of their own, through a mount of this directory.
  if (auto made = own_directory(root->get(), "runtimes", owner, 0755); !made.ok()) return context(std::move(made).error());
  return std::move(directory);
}

Result<void> DataDirectory::write_runtimes() const {
  MAYFLY_TRY(base::remove_tree(runtimes() + "/python/__pycache__"));  // of these files or older ones, whole or cut off by a crash
  for (const base::EmbeddedFile& file : embedded::runtimes()) {
    const std::string path = runtimes() + "/" + std::string(file.name);
    const std::string folder = path.substr(0, path.rfind('/'));
    MAYFLY_TRY(base::make_directories(folder, 0755));
    if (chmod(folder.c_str(), 0755) != 0) return base::errno_error("cannot open up " + folder, errno);
    const auto present = base::read_file(path);
    if (present.ok() && *present == file.bytes) continue;
    MAYFLY_TRY(base::write_file_durably(path, file.bytes, 0644));
    if (chmod(path.c_str(), 0644) != 0) return base::errno_error("cannot open up " + path, errno);
  }
  return {};
}

Result<void> DataDirectory::write_server_json(const std::string& json) const {
  return base::write_file_durably(path_ + "/server.json", json, 0644);
}

void DataDirectory::remove_server_json() const { unlink((path_ + "/server.json").c_str()); }

}  // namespace mayfly::server
