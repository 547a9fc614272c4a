#include "sandbox/internal/scratch.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <filesystem>
#include <map>
#include <thread>

#include "base/bytes.h"
#include "base/log.h"
#include "sandbox/internal/protocol.h"

namespace mayfly::sandbox::internal {

using base::errno_error;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::UniqueFd;

namespace {

constexpr std::uint64_t kMiB = 1ULL << 20U;
constexpr std::uint64_t kBytesPerInode = 16'384;
constexpr std::uint64_t kInodeSize = 256;
constexpr unsigned long kShutdown = _IOR('X', 125, std::uint32_t);  // EXT4_IOC_SHUTDOWN
constexpr std::uint32_t kWithoutFlush = 2;                          // EXT4_GOING_FLAGS_NOLOGFLUSH
constexpr int kLoopTries = 64;                                      // others may take the free device we were told of
constexpr std::uint64_t kOwnWrites = kMiB;                          // what the file system itself may have written to its image
constexpr std::chrono::seconds kKeptFor{10};                        // without anybody who needs it
constexpr std::size_t kLetGoMost = 8;                               // at a time
constexpr const char* kDirtyBytes = "33554432";  // unwritten bytes of one /tmp: the rest of the memory limit stays usable

// ext4's own needs come on top of what the function may fill: inode table, bitmaps, group descriptors, and the blocks (2 %, at most
// 16 MiB) it keeps back for its own metadata.
std::uint64_t inodes_for(std::uint64_t bytes) { return std::clamp(bytes / kBytesPerInode, std::uint64_t{4096}, std::uint64_t{262'144}); }
std::uint64_t image_size(std::uint64_t bytes) {
  const std::uint64_t kept_back = std::min(bytes / 40, 17 * kMiB);
  const std::uint64_t tables = inodes_for(bytes) * kInodeSize + bytes / 512 + 2 * kMiB + kept_back;
  return (bytes + tables + kMiB - 1) / kMiB * kMiB;
}

std::string find_mkfs() {
  for (const char* path : {"/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4"}) {
    if (access(path, X_OK) == 0) return path;
  }
  return {};
}

Result<void> run_mkfs(const std::string& mkfs, int image, std::uint64_t inodes) {
  const std::string path = "/proc/self/fd/3";
  const std::string count = std::to_string(inodes);
  const char* const arguments[] = {mkfs.c_str(),
                                   "-q",
                                   "-F",
                                   "-b",
                                   "4096",
                                   "-I",
                                   "256",
                                   "-N",
                                   count.c_str(),
                                   "-m",
                                   "0",
                                   "-O",
                                   "^has_journal,^resize_inode,^metadata_csum,uninit_bg,sparse_super2,^huge_file,^quota",
                                   "-E",
                                   "lazy_itable_init=1,nodiscard,root_owner=0:0,num_backup_sb=0",
                                   path.c_str(),
                                   nullptr};
  const char* const environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", nullptr};
  const pid_t pid = fork();
  if (pid < 0) return errno_error("start mkfs.ext4", errno);
  if (pid == 0) {
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) dup2(null, 0);
    if (null >= 0) dup2(null, 1);
    if (dup2(image, 3) < 0 || (image == 3 && fcntl(3, F_SETFD, 0) != 0)) _exit(126);
    close_range(4, ~0U, 0);
    execve(mkfs.c_str(), const_cast<char* const*>(arguments), const_cast<char* const*>(environment));
    _exit(127);
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (status == 0) return {};
  return Error(ErrorCode::kInternal,
               mkfs + " failed with status " + std::to_string(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)));
}

// Copies only what is written in a sparse file.
Result<void> copy_sparse(int from, int to, off_t size) {
  if (ioctl(to, FICLONE, from) == 0) return {};
  if (ftruncate(to, size) != 0) return errno_error("size a /tmp image", errno);
  off_t data = 0;
  while ((data = lseek(from, data, SEEK_DATA)) >= 0) {
    off_t hole = lseek(from, data, SEEK_HOLE);
    if (hole < 0) return errno_error("read a /tmp image", errno);
    off_t out = data;
    while (data < hole) {
      const ssize_t copied = copy_file_range(from, &data, to, &out, static_cast<std::size_t>(hole - data), 0);
      if (copied < 0) return errno_error("copy a /tmp image", errno);
      if (copied == 0) return {};
    }
  }
  return errno == ENXIO ? Result<void>() : Result<void>(errno_error("read a /tmp image", errno));
}

struct LoopDevice {
  UniqueFd fd;
  std::string path;
};

Result<LoopDevice> attach_loop(int image) {
  const UniqueFd control(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (!control) return errno_error("open /dev/loop-control", errno);
  for (int i = 0; i < kLoopTries; ++i) {
    const int number = ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return errno_error("find a free loop device", errno);
    const std::string path = "/dev/loop" + std::to_string(number);
    UniqueFd device(open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!device && errno == ENOENT && mknod(path.c_str(), S_IFBLK | 0600, makedev(7, static_cast<unsigned>(number))) == 0)
      device.reset(open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!device) return errno_error("open " + path, errno);
    loop_config config{};
    config.fd = static_cast<std::uint32_t>(image);
    config.block_size = 4096;
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
    int done = ioctl(device.get(), LOOP_CONFIGURE, &config);
    if (done != 0 && errno == EINVAL) {  // a file system without direct I/O
      config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
      done = ioctl(device.get(), LOOP_CONFIGURE, &config);
    }
    if (done == 0) return LoopDevice{.fd = std::move(device), .path = path};
    if (errno != EBUSY) return errno_error("set up " + path, errno);
  }
  return Error(ErrorCode::kResourceExhausted, "no free loop device after 64 tries");
}

// Pages that wait to be written belong to the function's memory group. Without a bound they could fill it and stall the function
// in reclaim; with it the writer waits for the disk early. Absent before Linux 6.2: then the kernel's own balance holds.
void bound_dirty_pages(const std::string& device) {
  const std::string bdi = "/sys/block/" + device.substr(5) + "/bdi/";
  for (const auto& [name, value] : {std::pair{"strict_limit", "1"}, std::pair{"max_bytes", kDirtyBytes}}) {
    const UniqueFd file(open((bdi + name).c_str(), O_WRONLY | O_CLOEXEC));
    if (file) (void)!write(file.get(), value, std::char_traits<char>::length(value));
  }
}

Result<UniqueFd> mount_file_system(const char* type, std::initializer_list<std::pair<const char*, std::string>> settings,
                                   std::uint64_t attributes) {
  const UniqueFd context(fsopen(type, FSOPEN_CLOEXEC));
  if (!context) return errno_error(std::string("open file system ") + type, errno);
  for (const auto& [key, value] : settings) {
    const bool flag = value.empty();
    if (fsconfig(context.get(), flag ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING, key, flag ? nullptr : value.c_str(), 0) != 0) {
      return errno_error(std::string("set ") + key + " of a /tmp", errno);
    }
  }
  if (fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0)
    return errno_error(std::string("make the ") + type + " of a /tmp", errno);
  UniqueFd mount(fsmount(context.get(), FSMOUNT_CLOEXEC, static_cast<unsigned>(attributes)));
  if (!mount) return errno_error("mount a /tmp", errno);
  return mount;
}

// Makes images and mounts them: the work of the first helper.
class Maker {
 public:
  Maker(int directory, std::string place, std::string mkfs) : directory_(directory), place_(std::move(place)), mkfs_(std::move(mkfs)) {}
  Result<ScratchMount> make(std::uint64_t bytes) {
    MAYFLY_ASSIGN(const int original, prototype(bytes));
    MAYFLY_ASSIGN(UniqueFd image, new_image());
    MAYFLY_TRY(copy_sparse(original, image.get(), static_cast<off_t>(image_size(bytes))));
    MAYFLY_ASSIGN(ScratchMount made, mount_image(image.get()));
    made.image = std::move(image);
    made.bytes = bytes;
    return made;
  }

 private:
  static constexpr std::size_t kPrototypesMax = 16;
  Result<UniqueFd> new_image() const;
  Result<int> prototype(std::uint64_t bytes);
  static Result<ScratchMount> mount_image(int image);

  int directory_;
  std::string place_;
  std::string mkfs_;
  std::map<std::uint64_t, UniqueFd> prototypes_;  // by the size asked for; each a deleted file
};

// Deleted while open: nothing to clean up after a crash. O_TMPFILE where the file system has it.
Result<UniqueFd> Maker::new_image() const {
  UniqueFd image(openat(directory_, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (image) return image;
  const std::string name = "image-" + base::random_hex(8);
  image.reset(openat(directory_, name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
  if (!image) return errno_error("make a /tmp image in " + place_, errno);
  if (unlinkat(directory_, name.c_str(), 0) != 0) return errno_error("delete " + name, errno);
  return image;
}

Result<int> Maker::prototype(std::uint64_t bytes) {
  if (const auto found = prototypes_.find(bytes); found != prototypes_.end()) return found->second.get();
  if (prototypes_.size() >= kPrototypesMax) prototypes_.erase(prototypes_.begin());
  MAYFLY_ASSIGN(UniqueFd image, new_image());
  if (ftruncate(image.get(), static_cast<off_t>(image_size(bytes))) != 0) return errno_error("size a /tmp image", errno);
  MAYFLY_TRY(run_mkfs(mkfs_, image.get(), inodes_for(bytes)));
  {
    MAYFLY_ASSIGN(const ScratchMount once, mount_image(image.get()));
    if (unlinkat(once.directory.get(), "lost+found", AT_REMOVEDIR) != 0 && errno != ENOENT) return errno_error("empty a /tmp image", errno);
    if (syncfs(once.directory.get()) != 0) return errno_error("write a /tmp image", errno);
  }
  const int fd = image.get();
  prototypes_.emplace(bytes, std::move(image));
  return fd;
}

// Mounts the file system on `device`: what is there is mounted once more, if it is mounted already.
Result<ScratchMount> mount_device(const std::string& device) {
  ScratchMount made;
  made.disk = true;
  made.device = device;
  MAYFLY_ASSIGN(made.mount, mount_file_system("ext4", {{"source", device}, {"noinit_itable", ""}},
                                              MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME));
  made.directory = UniqueFd(openat(made.mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!made.directory) return errno_error("open a /tmp", errno);
  return made;
}

Result<ScratchMount> Maker::mount_image(int image) {
  MAYFLY_ASSIGN(const LoopDevice loop, attach_loop(image));
  bound_dirty_pages(loop.path);
  return mount_device(loop.path);
}

// What a file system shows of what was done with it. The root directory belongs to the function, which may set most of what can be read
// there: each such thing would be a message to the next function. Whoever creates something in it or changes anything about it moves the
// time of its last change, which cannot be set back; the rest is compared as well because on kernels before 6.13 that clock only ticks
// every few milliseconds, and because the hint is not stored and moves no time. Nothing of ours moves any of it: the mount is noatime.
struct Looks {
  std::uint64_t blocks_free = 0, files_free = 0, flags = 0;
  std::uint64_t root_size = 0, root_links = 0;
  std::array<std::int64_t, 4> root_times{};    // of the last read and of the content; seconds and nanoseconds
  std::array<std::int64_t, 2> root_changed{};  // in any way
  int root_flags = 0;
  int root_generation = 0;
  std::uint64_t root_write_hint = 0;
  bool operator==(const Looks&) const = default;
};

bool has_attributes(int directory) { return flistxattr(directory, nullptr, 0) != 0; }

bool is_empty_directory(int directory) {
  alignas(8) std::array<char, 1024> entries;
  if (lseek(directory, 0, SEEK_SET) != 0) return false;
  const long got = syscall(SYS_getdents64, directory, entries.data(), entries.size());
  if (got <= 0) return false;
  std::size_t count = 0;
  for (long at = 0; at < got; ++count) {
    std::uint16_t length = 0;
    std::memcpy(&length, entries.data() + at + 16, sizeof length);  // d_reclen
    at += length;
  }
  return count == 2 && syscall(SYS_getdents64, directory, entries.data(), entries.size()) == 0;  // itself and the one above
}

Result<Looks> looks_of(int directory) {
  struct statfs system{};
  struct stat root{};
  Looks looks;
  if (fstatfs(directory, &system) != 0 || fstat(directory, &root) != 0 || ioctl(directory, FS_IOC_GETFLAGS, &looks.root_flags) != 0 ||
      ioctl(directory, FS_IOC_GETVERSION, &looks.root_generation) != 0 || fcntl(directory, F_GET_RW_HINT, &looks.root_write_hint) != 0)
    return errno_error("look at a /tmp", errno);
  looks.blocks_free = system.f_bfree;
  looks.files_free = system.f_ffree;
  looks.flags = static_cast<std::uint64_t>(system.f_flags);
  looks.root_size = static_cast<std::uint64_t>(root.st_size);
  looks.root_links = root.st_nlink;
  looks.root_times = {root.st_atim.tv_sec, root.st_atim.tv_nsec, root.st_mtim.tv_sec, root.st_mtim.tv_nsec};
  looks.root_changed = {root.st_ctim.tv_sec, root.st_ctim.tv_nsec};
  return looks;
}

template <typename Number>
std::uint64_t number_at(std::string_view bytes, std::size_t at) {
  Number number{};
  if (at + sizeof number <= bytes.size()) std::memcpy(&number, bytes.data() + at, sizeof number);
  return number;
}

Result<std::string> read_device(int device, std::uint64_t bytes, std::uint64_t offset) {
  std::string content(bytes, '\0');
  if (pread(device, content.data(), content.size(), static_cast<off_t>(offset)) != static_cast<ssize_t>(bytes))
    return errno_error("read the device of a /tmp", errno);
  return content;
}

// What ext4 notes of every file that ever was in a new file system, also of one that had no name: each group's descriptor has a mark up to
// which its inodes were used, which never goes back; and the first inodes that are given out, which mkfs used up already for lost+found,
// tell themselves when they were last deleted. Without this a file that is gone would show in the numbers of the next function's files.
// Read from the device's cache, which is where the mounted file system keeps it.
Result<std::string> inodes_ever_used(const std::string& path) {
  constexpr std::size_t kBlock = 4096, kSuperblock = 1024, kOldDescriptor = 32;
  constexpr std::uint32_t kLogBlock = 2, k64Bit = 0x80;
  const UniqueFd device(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!device) return errno_error("open " + path, errno);
  (void)posix_fadvise(device.get(), 0, 0, POSIX_FADV_RANDOM);  // what is asked for is in memory; what is behind it is not
  MAYFLY_ASSIGN(const std::string first, read_device(device.get(), kBlock, 0));
  const std::string_view super = std::string_view(first).substr(kSuperblock);
  const auto blocks = number_at<std::uint32_t>(super, 0x04);
  const auto group_blocks = number_at<std::uint32_t>(super, 0x20);
  const auto first_inode = number_at<std::uint32_t>(super, 0x54);
  const auto inode_size = number_at<std::uint16_t>(super, 0x58);
  const bool is_wide = (number_at<std::uint32_t>(super, 0x60) & k64Bit) != 0;
  const std::uint64_t descriptor = is_wide ? number_at<std::uint16_t>(super, 0xFE) : kOldDescriptor;
  if (number_at<std::uint16_t>(super, 0x38) != EXT4_SUPER_MAGIC || number_at<std::uint32_t>(super, 0x18) != kLogBlock ||
      inode_size != kInodeSize || group_blocks == 0 || first_inode == 0 || descriptor < kOldDescriptor)
    return Error(ErrorCode::kUnsupported, "the file system on " + path + " is not laid out as it was made");
  const std::uint64_t groups = (blocks + group_blocks - 1) / group_blocks;
  MAYFLY_ASSIGN(std::string used, read_device(device.get(), groups * descriptor, kBlock));
  const std::uint64_t inodes =
      number_at<std::uint32_t>(used, 0x08) | (is_wide ? number_at<std::uint32_t>(used, 0x28) << 32U : std::uint64_t{0});
  MAYFLY_ASSIGN(const std::string table, read_device(device.get(), kBlock, inodes * kBlock));
  // Those before belong to the file system; the root directory, which is one of them, is looked at by itself.
  return used.append(table, std::min<std::size_t>((first_inode - 1) * inode_size, table.size()));
}

std::uint64_t bytes_on_disk(int image) {
  constexpr std::uint64_t kBlock = 512;
  struct stat file{};
  return fstat(image, &file) == 0 ? static_cast<std::uint64_t>(file.st_blocks) * kBlock : ~std::uint64_t{0};
}

Result<ScratchMount> make_tmpfs(std::uint64_t bytes, std::uint32_t user, std::uint32_t group) {
  ScratchMount made;
  MAYFLY_ASSIGN(made.mount, mount_file_system("tmpfs",
                                              {{"size", std::to_string(bytes)},
                                               {"nr_inodes", std::to_string(inodes_for(bytes))},
                                               {"mode", "0700"},
                                               {"uid", std::to_string(user)},
                                               {"gid", std::to_string(group)}},
                                              MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
  return made;
}

// What the launcher asks: `bytes` of a new /tmp, or 0 and the root directory of one to discard.
void serve(int socket, Maker maker) {
  while (true) {
    auto packet = receive_packet(socket, 0);
    if (!packet.ok() || !*packet) return;  // the launcher ended
    if (!(*packet)->descriptors.empty()) {
      std::uint32_t how = kWithoutFlush;
      (void)ioctl((*packet)->descriptors.front().get(), kShutdown, &how);  // failing costs only time: then everything is written first
      continue;
    }
    Reader in((*packet)->bytes);
    in.number<MessageKind>();
    const auto bytes = in.number<std::uint64_t>();
    auto made = maker.make(bytes);
    Writer out(MessageKind::kUnpacked);
    out.number(bytes).number(static_cast<std::uint8_t>(made.ok()));
    std::vector<int> fds;
    if (made.ok()) {
      out.text(made->device);
      fds = {made->mount.get(), made->directory.get(), made->image.get()};
    } else {
      out.error(made.error());
    }
    if (!send_packet(socket, out.take(), fds, 0).ok()) return;
  }
}

constexpr unsigned kWorkers = 4;  // of each helper

struct Helper {
  UniqueFd socket;
  pid_t pid = -1;
};

Result<Helper> start_helper(int directory, const std::string& place, const std::string& mkfs) {
  int ends[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return errno_error("make a socket pair", errno);
  Helper helper{.socket = UniqueFd(ends[0]), .pid = fork()};
  UniqueFd theirs(ends[1]);
  if (helper.pid < 0) return errno_error("start the helper for /tmp", errno);
  if (helper.pid > 0) return helper;
  constexpr int kFirstFree = 64, kSocket = 3, kDirectory = 4;
  const int socket = fcntl(theirs.get(), F_DUPFD_CLOEXEC, kFirstFree);
  const int place_fd = fcntl(directory, F_DUPFD_CLOEXEC, kFirstFree);
  (void)dup3(socket, kSocket, O_CLOEXEC);
  (void)dup3(place_fd, kDirectory, O_CLOEXEC);
  (void)close_range(kDirectory + 1, ~0U, 0);
  // Mounting and unmounting mostly wait, for disks and for the kernel's own grace periods: several at a time.
  std::vector<std::thread> workers;
  for (unsigned i = 1; i < kWorkers; ++i) workers.emplace_back([&] { serve(kSocket, Maker(kDirectory, place, mkfs)); });
  serve(kSocket, Maker(kDirectory, place, mkfs));
  for (auto& worker : workers) worker.join();
  _exit(0);
}

}  // namespace

struct Scratch::Impl {
  ScratchOptions options;
  UniqueFd directory;
  std::string why_not;
  Helper maker, undertaker;
  std::optional<Error> refusal;     // of refused_bytes
  std::uint64_t refused_bytes = 0;  // a size that could not be made: not again before the next make(), which tells why
  std::map<std::uint64_t, std::vector<ScratchMount>> ready;  // by size; those sizes that have one
  std::map<std::uint64_t, std::size_t> asked;                // how many of a size the maker works on
  struct Fresh {
    Looks looks;
    std::string inodes;
    std::uint64_t bytes_on_disk = 0;
  };
  std::map<std::string, Fresh> fresh;  // what each was like when it was handed out, by device
  struct Kept {
    ScratchMount place;  // without a mount
    std::chrono::steady_clock::time_point since;
  };
  std::deque<Kept> kept;  // the longest kept first
  static constexpr std::size_t kSizesMax = 4;
  static constexpr int kPatienceMs = 30'000;

  void judge(const std::string& mkfs);
  Result<void> ask(std::uint64_t bytes);
  // Takes one answer of the maker; false when there is none.
  // What the maker refused goes into `refusal`. An error: the maker is gone.
  Result<bool> take(int flags);
  Result<ScratchMount> wait_for_one(std::uint64_t bytes);
  void remember_fresh(const ScratchMount& made);
  bool is_unused(const ScratchMount& used);
  std::optional<ScratchMount> take_kept(std::uint64_t bytes);
  void drop(ScratchMount place);
};

void Scratch::Impl::judge(const std::string& mkfs) {
  struct statfs where{};
  if (!options.privileged)
    why_not = "/tmp of functions is kept in memory: loop devices take root. Start Mayfly as root.";
  else if (access("/dev/loop-control", R_OK | W_OK) != 0)
    why_not = "/tmp of functions is kept in memory: there is no /dev/loop-control. Load the kernel module loop.";
  else if (mkfs.empty())
    why_not = "/tmp of functions is kept in memory: mkfs.ext4 was not found. Install e2fsprogs.";
  else if (fstatfs(directory.get(), &where) == 0 && (where.f_type == TMPFS_MAGIC || where.f_type == RAMFS_MAGIC)) {
    why_not = "/tmp of functions is kept in memory: " + options.directory + " is on a tmpfs. Put the data directory on a disk.";
  }
}

Result<void> Scratch::Impl::ask(std::uint64_t bytes) {
  Writer out(MessageKind::kUnpack);
  auto sent = send_packet(maker.socket.get(), out.number(bytes).take(), {}, 0);
  if (!sent.ok()) return std::move(sent).error();
  ++asked[bytes];
  return {};
}

Result<bool> Scratch::Impl::take(int flags) {
  MAYFLY_ASSIGN(auto packet, receive_packet(maker.socket.get(), flags));
  if (!packet) return false;
  Reader in(packet->bytes);
  in.number<MessageKind>();
  const auto bytes = in.number<std::uint64_t>();
  if (const auto found = asked.find(bytes); found != asked.end() && --found->second == 0) asked.erase(found);
  const bool was_made = in.flag();
  if (!was_made || packet->descriptors.size() != 3) {
    refused_bytes = bytes;
    refusal = was_made ? no_room_for_descriptors() : in.error();
    return true;
  }
  ready[bytes].push_back({.mount = std::move(packet->descriptors[0]),
                          .directory = std::move(packet->descriptors[1]),
                          .image = std::move(packet->descriptors[2]),
                          .device = in.text(),
                          .bytes = bytes,
                          .disk = true});
  return true;
}

Scratch::Scratch(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Scratch::~Scratch() {
  for (auto& [bytes, mounts] : impl_->ready) {
    for (auto& mount : mounts) impl_->drop(std::move(mount));
  }
  for (auto& kept : impl_->kept) impl_->drop(std::move(kept.place));
  for (Helper* helper : {&impl_->maker, &impl_->undertaker}) {
    helper->socket.reset();
    while (helper->pid > 0 && waitpid(helper->pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
}

Result<std::unique_ptr<Scratch>> Scratch::create(ScratchOptions options) {
  auto impl = std::make_unique<Impl>();
  impl->options = std::move(options);
  impl->directory = UniqueFd(open(impl->options.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!impl->directory) return errno_error("open the scratch directory " + impl->options.directory, errno);
  const std::string mkfs = find_mkfs();
  impl->judge(mkfs);
  if (impl->why_not.empty()) {
    MAYFLY_ASSIGN(impl->maker, start_helper(impl->directory.get(), impl->options.directory, mkfs));
    MAYFLY_ASSIGN(impl->undertaker, start_helper(impl->directory.get(), impl->options.directory, mkfs));
  }
  return std::unique_ptr<Scratch>(new Scratch(std::move(impl)));
}

Result<ScratchMount> Scratch::Impl::wait_for_one(std::uint64_t bytes) {
  refused_bytes = 0;
  while (!ready.contains(bytes)) {
    if (!asked.contains(bytes)) MAYFLY_TRY(ask(bytes));
    pollfd answered{.fd = maker.socket.get(), .events = POLLIN, .revents = 0};
    const int count = poll(&answered, 1, kPatienceMs);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return Error(ErrorCode::kDeadlineExceeded, "no file system was made within 30 s");
    MAYFLY_ASSIGN([[maybe_unused]] const bool taken, take(MSG_DONTWAIT));
    if (refused_bytes == bytes) return *refusal;
  }
  const auto found = ready.find(bytes);
  ScratchMount made = std::move(found->second.back());
  found->second.pop_back();
  if (found->second.empty()) ready.erase(found);
  return made;
}

// Where it cannot be told what it is like it is not kept. Giving one that is used again to its user is all that may have changed it.
void Scratch::Impl::remember_fresh(const ScratchMount& made) {
  const auto looks = looks_of(made.directory.get());
  auto inodes = inodes_ever_used(made.device);
  if (!looks.ok() || !inodes.ok()) {
    fresh.erase(made.device);
    return;
  }
  const auto [known, is_new] = fresh.try_emplace(
      made.device, Fresh{.looks = *looks, .inodes = std::move(*inodes), .bytes_on_disk = bytes_on_disk(made.image.get())});
  if (!is_new) known->second.looks.root_changed = looks->root_changed;
}

bool Scratch::Impl::is_unused(const ScratchMount& used) {
  const auto found = fresh.find(used.device);
  if (!used.disk || found == fresh.end()) return false;
  const auto looks = looks_of(used.directory.get());
  if (!looks.ok() || *looks != found->second.looks) return false;
  const auto inodes = inodes_ever_used(used.device);
  return inodes.ok() && *inodes == found->second.inodes && is_empty_directory(used.directory.get()) &&
         !has_attributes(used.directory.get()) && bytes_on_disk(used.image.get()) <= found->second.bytes_on_disk + kOwnWrites;
}

std::optional<ScratchMount> Scratch::Impl::take_kept(std::uint64_t bytes) {
  const auto found = std::ranges::find(kept, bytes, [](const Kept& one) { return one.place.bytes; });
  if (found == kept.end()) return std::nullopt;
  ScratchMount place = std::move(found->place);
  kept.erase(found);
  auto again = mount_device(place.device);
  struct stat before{}, after{};
  const bool same = again.ok() && fstat(place.directory.get(), &before) == 0 && fstat(again->directory.get(), &after) == 0 &&
                    before.st_dev == after.st_dev;
  if (!same) {
    drop(std::move(place));
    return std::nullopt;
  }
  again->image = std::move(place.image);
  again->bytes = bytes;
  return std::move(*again);
}

// Without its helper the kernel does the same, here and now.
void Scratch::Impl::drop(ScratchMount place) {
  place.mount.reset();
  if (!place.disk || !place.directory) return;
  fresh.erase(place.device);
  const int fd = place.directory.get();
  Writer out(MessageKind::kUnpack);
  (void)send_packet(undertaker.socket.get(), out.number(std::uint64_t{0}).take(), {&fd, 1}, 0);
}

Result<ScratchMount> Scratch::make(std::uint64_t bytes, std::uint32_t user, std::uint32_t group) {
  if (!disk()) return make_tmpfs(bytes, user, group);
  ScratchMount made;
  if (auto kept = impl_->take_kept(bytes)) {
    made = std::move(*kept);
  } else {
    MAYFLY_ASSIGN(made, impl_->wait_for_one(bytes));
  }
  constexpr mode_t kOwnerOnly = 0700;
  if (fchown(made.directory.get(), user, group) != 0 || fchmod(made.directory.get(), kOwnerOnly) != 0)
    return errno_error("give /tmp to its user", errno);
  impl_->remember_fresh(made);
  return made;
}

void Scratch::discard(ScratchMount& mount) {
  mount.mount.reset();
  ScratchMount place = std::exchange(mount, {});
  if (!impl_->is_unused(place)) return impl_->drop(std::move(place));
  // What the process that is gone was called, and what it let others do.
  if (fchown(place.directory.get(), 0, 0) != 0 || fchmod(place.directory.get(), 0) != 0) return impl_->drop(std::move(place));
  impl_->kept.push_back({.place = std::move(place), .since = std::chrono::steady_clock::now()});
  if (impl_->kept.size() <= kKeptMost) return;
  impl_->drop(std::move(impl_->kept.front().place));
  impl_->kept.pop_front();
}

void Scratch::let_go_of_kept() {
  const auto since = std::chrono::steady_clock::now() - kKeptFor;
  for (std::size_t i = 0; i < kLetGoMost && !impl_->kept.empty() && impl_->kept.front().since < since; ++i) {
    impl_->drop(std::move(impl_->kept.front().place));
    impl_->kept.pop_front();
  }
}

std::size_t Scratch::kept() const { return impl_->kept.size(); }

void Scratch::prepare(std::uint64_t bytes, std::size_t count) {
  if (!disk() || bytes == impl_->refused_bytes) return;
  if (!impl_->ready.contains(bytes) && impl_->ready.size() >= Impl::kSizesMax) {
    for (auto& mount : impl_->ready.begin()->second) impl_->drop(std::move(mount));
    impl_->ready.erase(impl_->ready.begin());
  }
  const auto have = impl_->ready.find(bytes);
  const auto kept = static_cast<std::size_t>(std::ranges::count(impl_->kept, bytes, [](const Impl::Kept& one) { return one.place.bytes; }));
  const std::size_t ready = kept + (have == impl_->ready.end() ? 0 : have->second.size());
  while (ready + impl_->asked[bytes] < std::min<std::size_t>(count, kWorkers)) {
    if (!impl_->ask(bytes).ok()) break;  // failing shows in the next make()
  }
  if (impl_->asked[bytes] == 0) impl_->asked.erase(bytes);
}

int Scratch::fd() const { return impl_->maker.socket.valid() ? impl_->maker.socket.get() : -1; }

bool Scratch::collect() {
  while (true) {
    auto taken = impl_->take(MSG_DONTWAIT);
    if (taken.ok() && *taken) continue;
    return taken.ok();
  }
}

bool Scratch::disk() const { return impl_->why_not.empty(); }
const std::string& Scratch::why_not_disk() const { return impl_->why_not; }

}  // namespace mayfly::sandbox::internal
