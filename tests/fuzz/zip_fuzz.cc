// Archives from strangers, unpacked as the launcher's child does it but with this process's own rights, so that what its jail
// would stop shows here. Checks what must hold of every archive, not only that nothing crashes: a refusal names the uploader's
// fault and can be cleaned up wholly, an accepted one gives read-only files and links that stay beneath the directory.
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <clocale>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "sandbox/internal/unpack.h"

namespace {

using namespace mayfly;
using Limits = sandbox::Launcher::UnpackLimits;

constexpr Limits kLimits{.bytes_max = 1U << 20U, .entries_max = 64, .ratio_max = 1100, .path_max = 4096, .depth_max = 32};
constexpr const char* kCode = "code";

void must(bool holds, std::string_view what) {
  if (holds) return;
  (void)std::fprintf(stderr, "does not hold: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

// One directory for the life of the process, in memory where possible: every file is synced. Runs unpack into "code" in it.
class Room {
 public:
  Room() {
    for (const char* place : {"/dev/shm", "/tmp"}) {
      path_ = std::string(place) + "/mayfly-zip-fuzz-XXXXXX";
      if (mkdtemp(path_.data()) != nullptr) break;
      path_.clear();
    }
    must(!path_.empty(), "a temporary directory can be made");
    fd_ = base::open_file(path_, O_RDONLY | O_DIRECTORY).value();
    (void)umask(0);  // as the child does
    (void)setlocale(LC_CTYPE, "C.UTF-8");
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  ~Room() { (void)base::remove_tree(path_); }

  [[nodiscard]] base::UniqueFd make_code() const {
    must(mkdirat(fd_.get(), kCode, 0700) == 0, "the directory for the code can be made");
    return base::open_beneath(fd_.get(), kCode, O_RDONLY | O_DIRECTORY | O_NOFOLLOW).value();
  }
  void remove_code() const { must(base::remove_tree(path_ + "/" + kCode).ok(), "what was unpacked can be removed"); }
  // Names in the room itself; anything but "code" was written outside of the directory.
  [[nodiscard]] int names() const;

 private:
  std::string path_;
  base::UniqueFd fd_;
};

template <typename Visit>
void each_name(int directory, Visit visit) {
  const int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> open(copy < 0 ? nullptr : fdopendir(copy), closedir);
  must(open != nullptr, "every directory can be read");
  while (const dirent* entry = readdir(open.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") visit(entry->d_name);
  }
}

int Room::names() const {
  int count = 0;
  each_name(fd_.get(), [&](const char*) { ++count; });
  return count;
}

// What the kernel says of `path` when nothing may leave `root`: 0 or the errno.
int resolve_beneath(int root, const std::string& path) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH;
  long fd = -1;
  do fd = syscall(SYS_openat2, root, path.c_str(), &how, sizeof how);
  while (fd < 0 && (errno == EINTR || errno == EAGAIN));
  if (fd < 0) return errno;
  (void)close(static_cast<int>(fd));
  return 0;
}

// Whether a link target, read as text from a directory at `depth`, ever stands above the top.
bool climbs_out(std::string_view target, int depth) {
  if (target.empty() || target.front() == '/') return true;
  for (std::size_t at = 0; at <= target.size();) {
    const std::size_t end = std::min(target.find('/', at), target.size());
    const std::string_view part = target.substr(at, end - at);
    at = end + 1;
    if (part == "..") --depth;
    else if (!part.empty() && part != ".") ++depth;
    if (depth < 0) return true;
  }
  return false;
}

struct Found {
  std::uint64_t bytes = 0;
  std::uint32_t leaves = 0;  // files and links
};

struct Walk {
  int root = -1;
  dev_t device = 0;
  bool accepted = false;
  Found found;

  void link(int directory, const char* name, const std::string& path, int depth) {
    std::array<char, 4097> target{};
    const ssize_t length = readlinkat(directory, name, target.data(), target.size());
    must(length > 0, "every link has a target");
    must(!climbs_out({target.data(), static_cast<std::size_t>(length)}, depth), "no link's text leads out");
    must(resolve_beneath(root, path) != EXDEV, "no link leads out, followed by the kernel");
  }

  // Without following a link. A refused archive's leftovers obey the same rules, but for directories still being writable.
  void directory(int fd, const std::string& prefix, int depth) {
    struct stat self{};
    must(fstat(fd, &self) == 0 && self.st_dev == device, "every directory lies in the same file system");
    must(!accepted || (self.st_mode & 07777U) == 0555, "every directory is read-only");
    each_name(fd, [&](const char* name) { one(fd, name, prefix.empty() ? name : prefix + "/" + name, depth); });
  }

  void one(int parent, const char* name, const std::string& path, int depth) {
    struct stat info{};
    must(fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW) == 0, "every name can be examined");
    if (S_ISDIR(info.st_mode)) {
      must((info.st_mode & 07022U) == 0, "no directory is setuid, setgid, sticky or writable by others");
      const base::UniqueFd below(openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      must(below.valid(), "every directory can be opened");
      return directory(below.get(), path, depth + 1);
    }
    ++found.leaves;
    if (S_ISLNK(info.st_mode)) return link(parent, name, path, depth);
    must(S_ISREG(info.st_mode), "nothing but files, directories and links");
    must(info.st_nlink == 1, "no file has a second name");
    must((info.st_mode & 07222U) == 0, "no file is setuid, setgid, sticky or writable");
    found.bytes += static_cast<std::uint64_t>(info.st_size);
  }
};

Found examine(int root, bool accepted) {
  struct stat top{};
  must(fstat(root, &top) == 0, "the directory can be examined");
  Walk walk{.root = root, .device = top.st_dev, .accepted = accepted, .found = {}};
  walk.directory(root, "", 0);
  return walk.found;
}

base::UniqueFd in_memory(const std::uint8_t* data, std::size_t size) {
  base::UniqueFd archive(memfd_create("archive", MFD_CLOEXEC));
  must(archive.valid() && base::write_all(archive.get(), {reinterpret_cast<const char*>(data), size}).ok(), "a memfd takes the archive");
  return archive;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Room room;
  const base::UniqueFd archive = in_memory(data, size);
  {
    const base::UniqueFd code = room.make_code();
    const auto bytes = sandbox::internal::unpack_zip(archive.get(), code.get(), kLimits);
    const Found found = examine(code.get(), bytes.ok());
    must(found.bytes <= kLimits.bytes_max && found.leaves <= kLimits.entries_max, "the limits hold");
    if (bytes.ok()) {
      must(*bytes == found.bytes, "the size told is the size found");
      must(sandbox::internal::tree_size(code.get()).value() == found.bytes, "measuring again gives the same size");
    } else {
      const base::Error& error = bytes.error();
      if (error.id() != "InvalidParameterValueException") must(false, "a refusal is the uploader's fault: " + error.to_string());
      must(error.code() == base::ErrorCode::kInvalidArgument && !error.message().empty(), "a refusal says why");
    }
    must(room.names() == 1, "nothing is written beside the directory");
  }
  room.remove_code();
  must(room.names() == 0, "nothing stays behind");
  return 0;
}
