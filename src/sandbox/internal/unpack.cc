#include "sandbox/internal/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <clocale>
#include <cstring>
#include <memory>
#include <thread>
#include <unordered_set>
#include <vector>

#include "base/fd.h"
#include "sandbox/internal/privileges.h"
#include "sandbox/internal/protocol.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MAYFLY_SANITIZED 1
#endif
#endif

namespace mayfly::sandbox::internal {

using base::errno_error;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::UniqueFd;

namespace {

constexpr const char* kNotAZip = "Could not unzip uploaded file. Please check your file, then try to upload again.";
constexpr const char* kInvalidParameter = "InvalidParameterValueException";
constexpr std::size_t kNameMax = 255;
constexpr std::uint64_t kRatioFrom = 1ULL << 20U;  // small archives of very regular text are no bombs
constexpr std::size_t kSyncEach = 32;              // up to so many files are synced one by one, more by syncing the file system
constexpr auto kSyncPause = std::chrono::milliseconds(100);
constexpr unsigned kDirectoryWhileOpen = 0700;
constexpr unsigned kDirectoryMode = 0555;

Error refuse(std::string message) { return {ErrorCode::kInvalidArgument, std::move(message), kInvalidParameter}; }

// An entry's name as a person may see it: what is not printable ASCII as \xNN, at most 200 characters.
std::string shown(std::string_view name) {
  constexpr std::size_t kShownMax = 200;
  static constexpr const char* kHex = "0123456789abcdef";
  std::string text;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f && c != '"' && c != '\\')
      text += c;
    else
      text += std::string("\\x") + kHex[byte >> 4U] + kHex[byte & 15U];
    if (text.size() > kShownMax) return text.substr(0, kShownMax) + "...";
  }
  return text;
}

Error refuse_entry(std::string_view name, const std::string& why) {
  return refuse("The archive was refused: the entry \"" + shown(name) + "\" " + why + ".");
}

std::uint32_t little_endian(const unsigned char* at, int bytes) {
  std::uint32_t value = 0;
  for (int i = bytes - 1; i >= 0; --i) value = (value << 8U) | at[i];
  return value;
}

constexpr std::uint32_t kMadeOnUnix = 3;

// What libarchive does not show: it hands out names as C strings, so that a NUL would leave only the front, and turns devices into
// files. The central directory tells. Archives this scan cannot follow (zip64, damaged) are left to libarchive.
Result<void> refuse_what_libarchive_hides(int archive, std::uint64_t size) {
  constexpr std::size_t kEndSize = 22, kHeaderSize = 46, kTailMax = 65'557;
  const std::uint64_t tail_size = std::min<std::uint64_t>(size, kTailMax);
  std::vector<unsigned char> tail(tail_size);
  if (pread(archive, tail.data(), tail.size(), static_cast<off_t>(size - tail_size)) != static_cast<ssize_t>(tail.size())) return {};
  std::size_t end = std::string_view(reinterpret_cast<const char*>(tail.data()), tail.size()).rfind("PK\5\6");
  if (end == std::string_view::npos || end + kEndSize > tail.size()) return {};
  const std::uint64_t length = little_endian(&tail[end + 12], 4);
  const std::uint64_t start = size - tail_size + end - std::min<std::uint64_t>(length, size - tail_size + end);
  constexpr std::uint64_t kDirectoryMax = 64U << 20U;
  if (length > kDirectoryMax) return {};
  std::vector<unsigned char> directory(length);
  if (pread(archive, directory.data(), directory.size(), static_cast<off_t>(start)) != static_cast<ssize_t>(directory.size())) return {};
  for (std::size_t at = 0; at + kHeaderSize <= directory.size() && std::memcmp(&directory[at], "PK\1\2", 4) == 0;) {
    const std::size_t name = little_endian(&directory[at + 28], 2);
    if (at + kHeaderSize + name > directory.size()) return {};
    const std::string_view text(reinterpret_cast<const char*>(&directory[at + kHeaderSize]), name);
    if (text.find('\0') != std::string_view::npos) return refuse_entry(text, "has a NUL byte in its name");
    const std::uint32_t type = little_endian(&directory[at + 40], 2) & S_IFMT;
    const bool special = type != 0 && type != S_IFREG && type != S_IFDIR && type != S_IFLNK;
    if (little_endian(&directory[at + 5], 1) == kMadeOnUnix && special)
      return refuse_entry(text, "is neither a file, a directory nor a link");
    at += kHeaderSize + name + little_endian(&directory[at + 30], 2) + little_endian(&directory[at + 32], 2);
  }
  return {};
}

// The parts of a relative path, "." and empty ones dropped.
Result<std::vector<std::string>> split_path(std::string_view path, const Launcher::UnpackLimits& limits) {
  if (path.size() > limits.path_max) return refuse_entry(path, "has a path longer than " + std::to_string(limits.path_max) + " bytes");
  if (path.starts_with('/')) return refuse_entry(path, "has an absolute path");
  std::vector<std::string> parts;
  std::size_t at = 0;
  while (at <= path.size()) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const std::string_view part = path.substr(at, end - at);
    at = end + 1;
    if (part.empty() || part == ".") continue;
    if (part == "..") return refuse_entry(path, "leads out of the archive with \"..\"");
    if (part.size() > kNameMax) return refuse_entry(path, "has a name longer than 255 bytes");
    parts.emplace_back(part);
  }
  if (parts.size() > limits.depth_max)
    return refuse_entry(path, "is nested deeper than " + std::to_string(limits.depth_max) + " directories");
  return parts;
}

std::string joined(const std::vector<std::string>& parts, std::size_t count) {
  std::string path;
  for (std::size_t i = 0; i < count; ++i) path += (i == 0 ? "" : "/") + parts[i];
  return path;
}

// Whether a link at `depth` directories below the top stays inside, read as text.
bool stays_inside(std::string_view target, std::size_t depth) {
  if (target.empty() || target.starts_with('/')) return false;
  auto level = static_cast<std::int64_t>(depth);
  bool named = false;
  std::size_t at = 0;
  while (at <= target.size()) {
    const std::size_t end = std::min(target.find('/', at), target.size());
    const std::string_view part = target.substr(at, end - at);
    at = end + 1;
    if (part.empty() || part == ".") continue;
    // ".." only in front: behind a name it could climb out through another link.
    if (part == ".." && (named || --level < 0)) return false;
    named = named || part != "..";
  }
  return true;
}

class Unpacker {
 public:
  Unpacker(int directory, std::uint64_t packed, const Launcher::UnpackLimits& limits)
      : directory_(directory), packed_(packed), limits_(limits) {}

  Result<void> add(archive* from, archive_entry* entry) {
    if (++entries_ > limits_.entries_max)
      return refuse("The archive was refused: it has more than " + std::to_string(limits_.entries_max) + " entries.");
    const char* name = archive_entry_pathname(entry);
    if (name == nullptr) name = archive_entry_pathname_utf8(entry);
    if (name == nullptr) return refuse("The archive was refused: entry number " + std::to_string(entries_) + " has an unreadable name.");
    if (archive_entry_is_encrypted(entry) != 0) return refuse_entry(name, "is encrypted");
    MAYFLY_TRY(check_compression(name, from));
    if (archive_entry_hardlink(entry) != nullptr) return refuse_entry(name, "is a hard link");
    MAYFLY_ASSIGN(const auto parts, split_path(name, limits_));
    const auto type = archive_entry_filetype(entry);
    if (type == AE_IFDIR) return make_directories(name, parts, parts.size());
    if (type != AE_IFREG && type != AE_IFLNK) return refuse_entry(name, "is neither a file, a directory nor a link");
    if (parts.empty()) return refuse_entry(name, "has an empty name");
    MAYFLY_TRY(make_directories(name, parts, parts.size() - 1));
    if (!names_.insert(joined(parts, parts.size())).second) return refuse_entry(name, "appears twice");
    return type == AE_IFLNK ? add_link(name, parts, entry) : add_file(name, parts, from, entry);
  }

  // Everything read-only: from now on it is whole.
  Result<std::uint64_t> finish() {
    for (auto path = directories_.rbegin(); path != directories_.rend(); ++path) {
      MAYFLY_ASSIGN(const UniqueFd directory, open_beneath(*path, O_RDONLY | O_DIRECTORY, 0));
      if (fchmod(directory.get(), kDirectoryMode) != 0) return errno_error("make " + shown(*path) + " read-only", errno);
    }
    if (fchmod(directory_, kDirectoryMode) != 0) return errno_error("make the code directory read-only", errno);
    return bytes_;
  }

  // To the disk. Files only now, when all are made: the first then takes the others along.
  Result<void> sync() const {
    if (many_) return syncfs(directory_) == 0 ? Result<void>() : errno_error("write the code", errno);
    for (const std::string& path : written_) {
      MAYFLY_ASSIGN(const UniqueFd file, open_beneath(path, O_RDONLY, 0));
      if (fsync(file.get()) != 0) return errno_error("write " + shown(path), errno);
    }
    for (auto path = directories_.rbegin(); path != directories_.rend(); ++path) {
      MAYFLY_ASSIGN(const UniqueFd directory, open_beneath(*path, O_RDONLY | O_DIRECTORY, 0));
      if (fsync(directory.get()) != 0) return errno_error("write " + shown(*path), errno);
    }
    return fsync(directory_) == 0 ? Result<void>() : errno_error("write the code directory", errno);
  }

 private:
  // AWS takes stored and deflated entries. The decoders of the others allocate what the archive asks for: LZMA up to 4 GiB. The
  // format's name tells the method that libarchive is going to use, whichever of the two headers it believed.
  static Result<void> check_compression(const char* name, archive* from) {
    const char* format = archive_format_name(from);
    const std::string_view text = format == nullptr ? "" : format;
    if (text.ends_with("(uncompressed)") || text.ends_with("(deflation)")) return {};
    return refuse_entry(name, "is compressed in a way other than \"stored\" or \"deflated\"");
  }
  Result<UniqueFd> open_beneath(const std::string& path, int flags, unsigned mode) const {
    open_how how{};
    how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC | O_NOFOLLOW);
    how.mode = mode;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    long fd = -1;
    do fd = syscall(SYS_openat2, directory_, path.c_str(), &how, sizeof how);
    while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    if (fd < 0) return errno_error("open", errno);
    return UniqueFd(static_cast<int>(fd));
  }
  // The directory that holds the last of `parts`.
  Result<UniqueFd> parent(const char* name, const std::vector<std::string>& parts) const {
    const std::string path = parts.size() == 1 ? "." : joined(parts, parts.size() - 1);
    auto opened = open_beneath(path, O_PATH | O_DIRECTORY, 0);
    if (!opened.ok()) return refuse_entry(name, "lies beneath a link or a file of the same archive");
    return opened;
  }

  Result<void> make_directories(const char* name, const std::vector<std::string>& parts, std::size_t count) {
    for (std::size_t i = 1; i <= count; ++i) {
      const std::string path = joined(parts, i);
      if (known_.contains(path)) continue;
      if (names_.contains(path)) return refuse_entry(name, "needs a directory where another entry has a file or link");
      const std::vector<std::string> here(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(i));
      MAYFLY_ASSIGN(const UniqueFd at, parent(name, here));
      if (mkdirat(at.get(), here.back().c_str(), kDirectoryWhileOpen) != 0) return errno_error("make directory " + shown(path), errno);
      known_.insert(path);
      directories_.push_back(path);
      if (directories_.size() > limits_.entries_max) return refuse("The archive was refused: it has too many directories.");
    }
    return {};
  }

  Result<void> add_link(const char* name, const std::vector<std::string>& parts, archive_entry* entry) {
    const char* target = archive_entry_symlink(entry);
    if (target == nullptr) target = archive_entry_symlink_utf8(entry);
    if (target == nullptr) return refuse_entry(name, "is a link without a readable target");
    if (std::strlen(target) >= limits_.path_max || !stays_inside(target, parts.size() - 1)) {
      return refuse_entry(name, "is a link that leaves the archive (to \"" + shown(target) + "\")");
    }
    if (known_.contains(joined(parts, parts.size()))) return refuse_entry(name, "appears twice");
    MAYFLY_ASSIGN(const UniqueFd at, parent(name, parts));
    if (symlinkat(target, at.get(), parts.back().c_str()) != 0) return errno_error("make link " + shown(name), errno);
    return {};
  }

  Result<void> add_file(const char* name, const std::vector<std::string>& parts, archive* from, archive_entry* entry) {
    const std::string path = joined(parts, parts.size());
    if (known_.contains(path)) return refuse_entry(name, "appears twice");
    // Whoever may run it on the packer's machine: everybody here. Archives made on Windows say nothing: readable by all.
    const bool executable = (archive_entry_perm(entry) & 0111U) != 0;
    auto file = open_beneath(path, O_WRONLY | O_CREAT | O_EXCL, executable ? 0555 : 0444);
    if (!file.ok()) return refuse_entry(name, "could not be written (" + file.error().message() + ")");
    MAYFLY_TRY(copy_data(name, from, file->get()));
    if (written_.size() == kSyncEach) many_ = true;
    if (many_) {
      written_.clear();
      return {};
    }
    written_.push_back(path);
    return {};
  }

  Result<void> copy_data(const char* name, archive* from, int to) {
    while (true) {
      const void* block = nullptr;
      std::size_t size = 0;
      la_int64_t offset = 0;
      const int status = archive_read_data_block(from, &block, &size, &offset);
      if (status == ARCHIVE_EOF) return {};
      if (status != ARCHIVE_OK) return refuse(std::string(kNotAZip) + " (entry \"" + shown(name) + "\": " + shown(text_of(from)) + ")");
      bytes_ += size;
      if (bytes_ > limits_.bytes_max) return refuse("Unzipped size must be smaller than " + std::to_string(limits_.bytes_max) + " bytes");
      if (bytes_ > kRatioFrom && bytes_ / std::max<std::uint64_t>(packed_, 1) > limits_.ratio_max) {
        return refuse_entry(name, "unpacks to more than " + std::to_string(limits_.ratio_max) + " times the size of the archive");
      }
      if (lseek(to, offset, SEEK_SET) < 0) return errno_error("write " + shown(name), errno);
      MAYFLY_TRY(base::write_all(to, {static_cast<const char*>(block), size}).with_context(shown(name)));
    }
  }
  static std::string text_of(archive* from) {
    const char* text = archive_error_string(from);
    return text == nullptr ? "damaged" : text;
  }

  int directory_;
  std::uint64_t packed_;
  const Launcher::UnpackLimits& limits_;
  std::uint64_t bytes_ = 0;
  std::uint32_t entries_ = 0;
  std::vector<std::string> written_;  // to be synced, unless there are many; not held open: nobody could execute them meanwhile
  bool many_ = false;
  std::unordered_set<std::string> names_;  // files and links
  std::unordered_set<std::string> known_;  // directories
  std::vector<std::string> directories_;   // in the order made
};

void limit_process(const Launcher::UnpackLimits& limits) {
  constexpr rlim_t kCpuSeconds = 120, kFiles = 64, kMemory = 1ULL << 30U;
  const auto set = [](int what, rlim_t most) {
    const rlimit value{.rlim_cur = most, .rlim_max = most};
    (void)setrlimit(static_cast<__rlimit_resource>(what), &value);
  };
  set(RLIMIT_CPU, kCpuSeconds);
  set(RLIMIT_FSIZE, limits.bytes_max + 1);
  set(RLIMIT_NOFILE, kFiles);
  set(RLIMIT_CORE, 0);
#ifndef MAYFLY_SANITIZED
  set(RLIMIT_AS, kMemory);  // the sanitizers' shadow alone is larger
#endif
  (void)kMemory;
}

Result<void> give_up_everything(const UnpackerPlan& job) {
  (void)setlocale(LC_CTYPE, "C.UTF-8");  // names in UTF-8 stay as they are; loads nothing later
  if (fchdir(job.directory) != 0) return errno_error("enter the new directory", errno);
  if (chroot(".") != 0) return errno_error("make the new directory the root", errno);
  limit_process(job.limits);
  if (job.switch_identity) MAYFLY_TRY(become_user(job.user, job.group));
  MAYFLY_TRY(drop_all_capabilities());
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
    return errno_error("restrict the unpacking process", errno);
  const sock_fprog program{.len = static_cast<unsigned short>(job.filter->size()), .filter = const_cast<sock_filter*>(job.filter->data())};
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) return errno_error("filter the unpacking process", errno);
  return {};
}

// Leaves only standard error and these two open, at 3 and 4.
void keep_descriptors(int& directory, int& socket) {
  constexpr int kFirstFree = 64;
  int next = 3;
  for (int* fd : {&directory, &socket}) *fd = fcntl(*fd, F_DUPFD_CLOEXEC, kFirstFree);
  for (int* fd : {&directory, &socket}) *fd = dup3(*fd, next++, O_CLOEXEC);
  (void)close_range(static_cast<unsigned>(next), ~0U, 0);
}

void tell(int socket, const Result<std::uint64_t>& result) {
  Writer out(MessageKind::kUnpacked);
  out.number(static_cast<std::uint8_t>(result.ok()));
  if (result.ok())
    out.number(*result);
  else
    out.error(result.error());
  (void)send_packet(socket, out.take(), {}, 0);
}

}  // namespace

Result<std::uint64_t> unpack_zip(int archive, int directory, const Launcher::UnpackLimits& limits,
                                 const std::function<void(std::uint64_t bytes)>& on_whole) {
  struct stat info{};
  if (fstat(archive, &info) != 0) return errno_error("examine the archive", errno);
  if (!S_ISREG(info.st_mode)) return Error(ErrorCode::kInvalidArgument, "the archive is not a regular file");
  const auto size = static_cast<std::uint64_t>(info.st_size);
  char start[4] = {};
  if (pread(archive, start, sizeof start, 0) == sizeof start && std::memcmp(start, "PK\5\6", sizeof start) == 0)
    return refuse("Uploaded file must be a non-empty zip");
  MAYFLY_TRY(refuse_what_libarchive_hides(archive, size));
  if (lseek(archive, 0, SEEK_SET) != 0) return errno_error("read the archive", errno);
  const std::unique_ptr<struct archive, int (*)(struct archive*)> in(archive_read_new(), archive_read_free);
  constexpr std::size_t kBlock = 131'072;
  if (in == nullptr || archive_read_support_format_zip_seekable(in.get()) != ARCHIVE_OK ||
      archive_read_open_fd(in.get(), archive, kBlock) != ARCHIVE_OK) {
    return refuse(kNotAZip);
  }
  Unpacker unpacker(directory, size, limits);
  bool any = false;
  while (true) {
    archive_entry* entry = nullptr;
    const int status = archive_read_next_header(in.get(), &entry);
    if (status == ARCHIVE_EOF) break;
    if (status != ARCHIVE_OK && status != ARCHIVE_WARN) return refuse(kNotAZip);
    any = true;
    MAYFLY_TRY(unpacker.add(in.get(), entry));
  }
  if (!any) return refuse("Uploaded file must be a non-empty zip");
  MAYFLY_ASSIGN(const std::uint64_t bytes, unpacker.finish());
  if (on_whole) on_whole(bytes);
  MAYFLY_TRY(unpacker.sync());
  return bytes;
}

Result<std::uint64_t> tree_size(int directory) {
  const int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> open(copy < 0 ? nullptr : fdopendir(copy), closedir);
  if (open == nullptr) return errno_error("read an unpacked directory", errno);
  std::uint64_t bytes = 0;
  while (const dirent* entry = readdir(open.get())) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    struct stat info{};
    if (fstatat(dirfd(open.get()), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) return errno_error("examine an unpacked file", errno);
    if (S_ISREG(info.st_mode)) bytes += static_cast<std::uint64_t>(info.st_size);
    if (!S_ISDIR(info.st_mode)) continue;
    const UniqueFd below(openat(dirfd(open.get()), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    MAYFLY_ASSIGN(const std::uint64_t more, tree_size(below.get()));
    bytes += more;
  }
  return bytes;
}

Result<std::uint64_t> parse_result(std::string_view bytes) {
  Reader in(bytes);
  in.number<MessageKind>();
  const bool good = in.flag();
  if (good) {
    const auto size = in.number<std::uint64_t>();
    if (in.complete()) return size;
  } else {
    Error error = in.error();
    if (in.complete()) return error;
  }
  return refuse(std::string(kNotAZip) + " (unpacking it took too much memory or time)");
}

void run_unpacker(const UnpackerPlan& plan) {
  umask(0);
  UnpackerPlan own = plan;
  keep_descriptors(own.directory, own.socket);
  if (auto ready = give_up_everything(own); !ready.ok()) {
    tell(own.socket, std::move(ready).error());
    _exit(1);
  }
  const auto order = receive_packet(own.socket, 0);
  if (!order.ok() || (*order)->descriptors.size() != 1 || (*order)->bytes.size() != 1) _exit(1);  // nobody needs it any more
  const bool early = static_cast<UnpackOrder>((*order)->bytes.front()) == UnpackOrder::kTellFirst;
  bool told = false;
  const auto on_whole = [&](std::uint64_t bytes) {
    if (!early) return;
    tell(own.socket, bytes);
    told = true;
    // Who deploys is waiting for the disk too, and file systems do one such write after the other.
    std::this_thread::sleep_for(kSyncPause);
  };
  const auto result = unpack_zip((*order)->descriptors.front().get(), own.directory, own.limits, on_whole);
  if (!told) tell(own.socket, result);
  _exit(result.ok() ? 0 : 1);
}

void run_measure(int directory, int socket) {
  keep_descriptors(directory, socket);
  tell(socket, tree_size(directory));
  _exit(0);
}

}  // namespace mayfly::sandbox::internal
