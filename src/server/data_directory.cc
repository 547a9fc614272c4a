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

Result<void> give(const std::string& path, ServerIdentity owner) {
  if (geteuid() == 0 && chown(path.c_str(), owner.uid, owner.gid) != 0) return base::errno_error("cannot give " + path + " to uid " + std::to_string(owner.uid), errno);
  return {};
}

// Directories made by another user (a first start as root, a later one without) are pointed out, not worked around.
Result<void> make_part(const std::string& path, ServerIdentity owner, unsigned mode) {
  MAYFLY_TRY(base::make_directories(path, mode));
  return give(path, owner);
}

// What a former run left half-written belongs to the identity that runs now, also after a change of user.
Result<void> give_tree(const std::string& path, ServerIdentity owner) {
  if (geteuid() != 0) return {};
  struct stat there{};
  if (stat(path.c_str(), &there) == 0 && there.st_uid == owner.uid) return {};
  std::error_code ec;
  for (std::filesystem::recursive_directory_iterator it(path, ec), end; !ec && it != end; it.increment(ec)) {
    if (lchown(it->path().c_str(), owner.uid, owner.gid) != 0) return base::errno_error("cannot give " + it->path().string() + " to uid " + std::to_string(owner.uid), errno);
  }
  return {};
}

}  // namespace

Result<ServerIdentity> server_identity(const std::string& setting) {
  if (geteuid() != 0) return ServerIdentity{geteuid(), getegid()};
  if (!setting.empty() && setting.find_first_not_of("0123456789") == std::string::npos && setting.size() < 10) {
    const auto uid = static_cast<std::uint32_t>(std::stoul(setting));
    if (uid == 0) return Error(ErrorCode::kInvalidArgument, "setting user: the server does not run as root; name an ordinary user");
    return ServerIdentity{uid, uid};
  }
  if (const passwd* entry = getpwnam(setting.empty() ? "mayfly" : setting.c_str()); entry != nullptr && entry->pw_uid != 0) return ServerIdentity{entry->pw_uid, entry->pw_gid};
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
  auto lock = base::open_file(path + "/lock", O_RDWR | O_CREAT, 0600);
  if (!lock.ok()) {
    if (lock.error().code() != ErrorCode::kPermissionDenied) return std::move(lock).error();
    return Error(ErrorCode::kPermissionDenied, lock.error().message() + "; the data directory belongs to another user: start Mayfly as that user, or name another --data");
  }
  if (flock(lock->get(), LOCK_EX | LOCK_NB) != 0) {
    auto holder = base::read_all(lock->get(), 64);
    return Error(ErrorCode::kAlreadyExists, "data directory " + given + " (" + path + ") is in use by the Mayfly server with pid " + std::move(holder).value_or(std::string("unknown")) +
                                                "; stop that one, or name another --data");
  }
  const std::string pid = std::to_string(getpid());
  if (ftruncate(lock->get(), 0) != 0) return base::errno_error("cannot write " + path + "/lock", errno);
  MAYFLY_TRY(base::write_all(lock->get(), pid).with_context(path + "/lock"));

  const base::Sha256Digest digest = base::sha256(path);
  DataDirectory directory(path, base::hex_encode(std::span(digest).first(4)), std::move(*lock));
  MAYFLY_TRY(give_tree(path, owner));
  MAYFLY_TRY(give(path, owner));
  MAYFLY_TRY(give(path + "/lock", owner));
  for (const std::string& part : {directory.code(), directory.blobs(), directory.scratch(), directory.runtimes(), directory.logs()}) MAYFLY_TRY(make_part(part, owner, 0700));
  directory.remove_server_json();
  return std::move(directory);
}

Result<void> DataDirectory::write_runtimes(ServerIdentity owner) const {
  // Functions read the bootstraps as uids of their own, through a mount of this directory.
  const auto open_up = [&](const std::string& directory) -> Result<void> {
    MAYFLY_TRY(make_part(directory, owner, 0755));
    if (chmod(directory.c_str(), 0755) != 0) return base::errno_error("cannot open up " + directory, errno);
    return {};
  };
  MAYFLY_TRY(open_up(runtimes()));
  for (const base::EmbeddedFile& file : embedded::runtimes()) {
    const std::string path = runtimes() + "/" + std::string(file.name);
    MAYFLY_TRY(open_up(path.substr(0, path.rfind('/'))));
    const auto present = base::read_file(path);
    if (present.ok() && *present == file.bytes) continue;
    MAYFLY_TRY(base::write_file_durably(path, file.bytes, 0644));
    MAYFLY_TRY(give(path, owner));
  }
  return {};
}

Result<void> DataDirectory::write_server_json(const std::string& json) const { return base::write_file_durably(path_ + "/server.json", json, 0644); }

void DataDirectory::remove_server_json() const { unlink((path_ + "/server.json").c_str()); }

}  // namespace mayfly::server
