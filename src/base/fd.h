// Owned file descriptors and the few file operations that must be crash-safe or cannot leave a directory.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace mayfly::base {

// Owns one descriptor and closes it. -1 is "none".
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool valid() const { return fd_ >= 0; }
  explicit operator bool() const { return valid(); }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);
  // A second descriptor of the same open file, close-on-exec.
  [[nodiscard]] Result<UniqueFd> duplicate() const;

 private:
  int fd_ = -1;
};

// open(2) with O_CLOEXEC added.
[[nodiscard]] Result<UniqueFd> open_file(const std::string& path, int flags, unsigned mode = 0600);
// openat2(2) with RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS: `path` cannot leave `directory_fd`, whatever links it meets.
[[nodiscard]] Result<UniqueFd> open_beneath(int directory_fd, const std::string& path, int flags, unsigned mode = 0600);

// Reads to end of file, at most `limit` bytes (more is kTooLarge). Retries EINTR.
[[nodiscard]] Result<std::string> read_all(int fd, std::uint64_t limit);
[[nodiscard]] Result<std::string> read_file(const std::string& path, std::uint64_t limit = 64ULL << 20U);
// Writes everything; retries EINTR and short writes.
[[nodiscard]] Result<void> write_all(int fd, std::string_view bytes);
// Replaces `path` so that after a crash it holds either the old or the new bytes whole: temporary file beside it,
// fsync, rename, fsync of the directory. `written` is told the temporary file's name when the bytes are in it, before the wait for the
// disk.
[[nodiscard]] Result<void> write_file_durably(const std::string& path, std::string_view bytes, unsigned mode = 0600,
                                              const std::function<void(const std::string& temporary)>& written = {});
// mkdir -p; existing directories are fine.
[[nodiscard]] Result<void> make_directories(const std::string& path, unsigned mode = 0700);
// Deletes a tree without following links; absent is fine. Makes directories writable as it descends.
[[nodiscard]] Result<void> remove_tree(const std::string& path);
// fsync of a directory, so that names made in it survive power loss.
[[nodiscard]] Result<void> sync_directory(const std::string& path);

}  // namespace mayfly::base
