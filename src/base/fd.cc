#include "base/fd.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "base/bytes.h"

namespace mayfly::base {
namespace {

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Result<void> fsync_fd(int fd, const std::string& what) {
  if (fsync(fd) != 0) return errno_error("cannot sync " + what, errno);
  return {};
}

}  // namespace

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
}

Result<UniqueFd> UniqueFd::duplicate() const {
  const int fd = fcntl(fd_, F_DUPFD_CLOEXEC, 3);
  if (fd < 0) return errno_error("cannot duplicate a descriptor", errno);
  return UniqueFd(fd);
}

Result<UniqueFd> open_file(const std::string& path, int flags, unsigned mode) {
  int fd = -1;
  do fd = open(path.c_str(), flags | O_CLOEXEC, mode);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) return errno_error("cannot open " + path, errno);
  return UniqueFd(fd);
}

Result<UniqueFd> open_beneath(int directory_fd, const std::string& path, int flags, unsigned mode) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
  // O_TMPFILE contains O_DIRECTORY: all of its bits count.
  how.mode = (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE ? mode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  long fd = -1;
  do fd = syscall(SYS_openat2, directory_fd, path.c_str(), &how, sizeof how);
  while (fd < 0 && (errno == EINTR || errno == EAGAIN));
  if (fd < 0) return errno_error("cannot open " + path, errno);
  return UniqueFd(static_cast<int>(fd));
}

Result<std::string> read_all(int fd, std::uint64_t limit) {
  std::string bytes;
  while (true) {
    const std::size_t at = bytes.size();
    const std::size_t step = at < 65536 ? 65536 : at;
    bytes.resize(at + step);
    const ssize_t got = read(fd, bytes.data() + at, step);
    if (got < 0 && errno == EINTR) {
      bytes.resize(at);
      continue;
    }
    if (got < 0) return errno_error("cannot read", errno);
    bytes.resize(at + static_cast<std::size_t>(got));
    if (bytes.size() > limit) return Error(ErrorCode::kTooLarge, "more than " + std::to_string(limit) + " bytes");
    if (got == 0) return bytes;
  }
}

Result<std::string> read_file(const std::string& path, std::uint64_t limit) {
  MAYFLY_ASSIGN(const UniqueFd fd, open_file(path, O_RDONLY));
  return read_all(fd.get(), limit).with_context(path);
}

Result<void> write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno_error("cannot write", errno);
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
  return {};
}

Result<void> write_file_durably(const std::string& path, std::string_view bytes, unsigned mode,
                                const std::function<void(const std::string& temporary)>& written) {
  const std::string temporary = path + ".tmp-" + random_hex(6);
  const auto write_and_rename = [&]() -> Result<void> {
    MAYFLY_ASSIGN(const UniqueFd fd, open_file(temporary, O_WRONLY | O_CREAT | O_EXCL, mode));
    MAYFLY_TRY(write_all(fd.get(), bytes).with_context(temporary));
    if (written) written(temporary);
    MAYFLY_TRY(fsync_fd(fd.get(), temporary));
    if (rename(temporary.c_str(), path.c_str()) != 0) return errno_error("cannot rename " + temporary + " to " + path, errno);
    return sync_directory(parent_of(path));
  };
  Result<void> done = write_and_rename();
  if (!done.ok()) unlink(temporary.c_str());
  return done;
}

Result<void> make_directories(const std::string& path, unsigned mode) {
  std::size_t at = 0;
  while (at != std::string::npos) {
    at = path.find('/', at + 1);
    const std::string part = path.substr(0, at);
    if (part.empty()) continue;
    if (mkdir(part.c_str(), mode) != 0 && errno != EEXIST) {
      const int failure = errno;
      struct stat there{};
      if (stat(part.c_str(), &there) != 0 || !S_ISDIR(there.st_mode)) return errno_error("cannot make directory " + part, failure);
    }
  }
  return {};
}

Result<void> remove_tree(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ec;
  const fs::file_status root = fs::symlink_status(path, ec);
  if (root.type() == fs::file_type::not_found) return {};
  if (root.type() == fs::file_type::directory) {
    fs::permissions(path, fs::perms::owner_all, fs::perm_options::add, ec);
    ec.clear();
    for (fs::recursive_directory_iterator it(path, fs::directory_options::none, ec), end; !ec && it != end; it.increment(ec)) {
      if (it->symlink_status(ec).type() == fs::file_type::directory)
        fs::permissions(it->path(), fs::perms::owner_all, fs::perm_options::add, ec);
    }
    ec.clear();
  }
  fs::remove_all(path, ec);
  if (ec) return errno_error("cannot remove " + path, ec.value());
  return {};
}

Result<void> sync_directory(const std::string& path) {
  MAYFLY_ASSIGN(const UniqueFd fd, open_file(path, O_RDONLY | O_DIRECTORY));
  return fsync_fd(fd.get(), path);
}

}  // namespace mayfly::base
