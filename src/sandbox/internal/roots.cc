#include "sandbox/internal/roots.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <set>

#include "base/log.h"

namespace mayfly::sandbox::internal {

using base::errno_error;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::UniqueFd;

namespace {

constexpr unsigned kPrivateMode = 0755;

// Programs and libraries. Symbolic links (bin -> usr/bin) are made again, directories are bound.
constexpr std::array<const char*, 7> kSystemDirectories = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"};
// Settings that programs need to run at all, none of them the host's secrets. A trailing '*' matches any ending.
constexpr std::array<const char*, 12> kEtcDirectories = {"alternatives",
                                                         "ssl/certs",
                                                         "pki/tls/certs",
                                                         "pki/ca-trust/extracted",
                                                         "crypto-policies",
                                                         "ld.so.conf.d",
                                                         "java-*",
                                                         "python3*",
                                                         "perl",
                                                         "fonts",
                                                         "ImageMagick-6",
                                                         "ruby*"};
// No localtime: functions live in UTC, as on Lambda.
constexpr std::array<const char*, 10> kEtcFiles = {"ld.so.cache", "ld.so.conf", "ssl/openssl.cnf", "pki/tls/openssl.cnf", "mime.types",
                                                   "services",    "protocols",  "gai.conf",        "os-release",          "debian_version"};
constexpr std::array<std::pair<const char*, const char*>, 4> kEtcOwn = {{
    {"hosts", "127.0.0.1 localhost\n169.254.100.1 sandbox.localdomain sandbox\n"},
    {"resolv.conf", "nameserver 169.254.100.1\noptions timeout:2 attempts:3\n"},
    {"nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"},
    {"host.conf", "multi on\n"},
}};
struct Device {
  const char* name;
  unsigned major, minor;
};
constexpr std::array<Device, 5> kDevices = {{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}}};
constexpr std::array<std::pair<const char*, const char*>, 4> kDeviceLinks = {
    {{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}}};
// As container engines protect /proc: what tells about or changes the host.
constexpr std::array<const char*, 5> kProcReadOnly = {"bus", "fs", "irq", "sys", "sysrq-trigger"};
constexpr std::array<const char*, 18> kProcHidden = {"acpi",        "asound",      "kcore",    "keys",        "latency_stats", "timer_list",
                                                     "timer_stats", "sched_debug", "scsi",     "interrupts",  "kallsyms",      "kpagecount",
                                                     "kpageflags",  "kpagecgroup", "slabinfo", "vmallocinfo", "modules",       "cmdline"};

Result<void> make_directory(int at, const std::string& path) {
  if (mkdirat(at, path.c_str(), kPrivateMode) == 0 || errno == EEXIST) return {};
  return errno_error("make directory " + path, errno);
}

// mkdir -p beneath `at`, all parts but names that exist.
Result<void> make_path(int at, const std::string& path) {
  for (std::size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1))
    MAYFLY_TRY(make_directory(at, path.substr(0, slash)));
  return make_directory(at, path);
}

Result<void> write_file(int at, const std::string& path, std::string_view content) {
  const UniqueFd file(openat(at, path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!file) return errno_error("make file " + path, errno);
  return base::write_all(file.get(), content).with_context(path);
}

// Opens inside `root` as if it were "/": a link of the image cannot lead to the host.
UniqueFd open_in_root(int root, const std::string& path, int flags) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  return UniqueFd(static_cast<int>(syscall(SYS_openat2, root, path.c_str(), &how, sizeof how)));
}

Result<void> set_attributes(int mount, std::uint64_t set, bool recursive) {
  mount_attr attributes{};
  attributes.attr_set = set;
  attributes.propagation = MS_PRIVATE;
  const auto flags = static_cast<unsigned>(AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0));
  if (mount_setattr(mount, "", flags, &attributes, sizeof attributes) != 0) return errno_error("make a mount read-only", errno);
  return {};
}

Result<void> attach(const UniqueFd& mount, int at, const std::string& target) {
  if (move_mount(mount.get(), "", at, target.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) return errno_error("mount " + target, errno);
  return {};
}

// Copies a small file of the image, links followed inside it.
void copy_file(int image, const std::string& from, int root, const std::string& to) {
  const UniqueFd source = open_in_root(image, from, O_RDONLY | O_NONBLOCK);
  if (!source) return;
  constexpr std::uint64_t kMost = 4U << 20U;
  const auto content = base::read_all(source.get(), kMost);
  if (!content.ok()) return;  // such as a directory of that name
  (void)make_path(root, std::filesystem::path(to).parent_path().string());
  (void)write_file(root, to, *content);
}

std::vector<std::string> matching_names(int image, const std::string& pattern) {
  if (!pattern.ends_with('*')) return {pattern};
  std::vector<std::string> names;
  std::error_code ec;
  const UniqueFd etc = open_in_root(image, "etc", O_RDONLY | O_DIRECTORY);
  if (!etc) return names;
  const std::string prefix = pattern.substr(0, pattern.size() - 1);
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd/" + std::to_string(etc.get()), ec)) {
    if (entry.path().filename().string().starts_with(prefix)) names.push_back(entry.path().filename().string());
  }
  return names;
}

struct Template {
  std::string directory;               // where it is mounted
  std::vector<std::string> opt_binds;  // host directories beneath /opt, which layers would cover
};

// Builds one template on `directory`, an empty directory.
class TemplateBuilder {
 public:
  TemplateBuilder(const RootImage& image, std::string directory, bool privileged, std::vector<std::string>& notes)
      : image_(image), directory_(std::move(directory)), privileged_(privileged), notes_(notes) {}

  Result<Template> build(const std::string& bootstrap_directory) {
    MAYFLY_TRY(mount_root());
    MAYFLY_TRY(add_system());
    MAYFLY_TRY(add_etc());
    MAYFLY_TRY(add_devices());
    for (const char* path : {"proc", "tmp", "opt", "var", "var/task", "var/runtime", "var/empty", "var/tmp", "run", "root", "home"})
      MAYFLY_TRY(make_directory(root_.get(), path));
    if (image_.directory != "/") MAYFLY_TRY(bind_from_image("var/lang"));
    if (!bootstrap_directory.empty()) MAYFLY_TRY(bind_host(bootstrap_directory, "var/runtime").with_context("the runtime bootstraps"));
    for (const auto& path : image_.extra_binds) add_extra(path);
    MAYFLY_TRY(seal());
    return std::move(result_);
  }

 private:
  Result<void> mount_root() {
    image_root_ = UniqueFd(open(image_.directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!image_root_) return errno_error("open root directory " + image_.directory, errno);
    if (mkdir(directory_.c_str(), kPrivateMode) != 0 && errno != EEXIST) return errno_error("make " + directory_, errno);
    if (::mount("mayfly-root", directory_.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "size=16m,mode=755") != 0)
      return errno_error("mount a tmpfs for a root", errno);
    root_ = UniqueFd(open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root_) return errno_error("open " + directory_, errno);
    result_.directory = directory_;
    return {};
  }

  Result<void> bind(const UniqueFd& source, const std::string& target) {
    MAYFLY_ASSIGN(const UniqueFd mount, read_only_bind(source.get(), "", true));
    struct stat kind{};
    if (fstat(source.get(), &kind) == 0 && S_ISDIR(kind.st_mode))
      MAYFLY_TRY(make_path(root_.get(), target));
    else
      MAYFLY_TRY(write_file(root_.get(), target, ""));
    return attach(mount, root_.get(), target);
  }
  // What the image lacks is left out.
  Result<void> bind_from_image(const std::string& path) {
    const UniqueFd source = open_in_root(image_root_.get(), path, O_PATH | O_DIRECTORY);
    if (!source) return {};
    return bind(source, path).with_context("bind /" + path);
  }
  Result<void> bind_host(const std::string& path, const std::string& target) {
    const UniqueFd source(open(path.c_str(), O_PATH | O_CLOEXEC));
    if (!source) return errno_error("open " + path, errno);
    return bind(source, target).with_context("bind " + path);
  }

  Result<void> add_system() {
    for (const char* name : kSystemDirectories) {
      std::array<char, 4096> link{};
      const ssize_t length = readlinkat(image_root_.get(), name, link.data(), link.size() - 1);
      if (length > 0) {
        if (symlinkat(link.data(), root_.get(), name) != 0) return errno_error(std::string("link /") + name, errno);
        continue;
      }
      MAYFLY_TRY(bind_from_image(name));
    }
    return {};
  }

  Result<void> add_etc() {
    MAYFLY_TRY(make_directory(root_.get(), "etc"));
    for (const char* pattern : kEtcDirectories) {
      for (const auto& name : matching_names(image_root_.get(), pattern)) MAYFLY_TRY(bind_from_image("etc/" + name));
    }
    for (const char* name : kEtcFiles) copy_file(image_root_.get(), std::string("etc/") + name, root_.get(), std::string("etc/") + name);
    for (const auto& [name, content] : kEtcOwn) MAYFLY_TRY(write_file(root_.get(), std::string("etc/") + name, content));
    // Each sandbox has a user of its own: these two come from a directory mounted at its start.
    MAYFLY_TRY(make_directory(root_.get(), "etc/sandbox"));
    if (symlinkat("sandbox/passwd", root_.get(), "etc/passwd") != 0 || symlinkat("sandbox/group", root_.get(), "etc/group") != 0) {
      return errno_error("link /etc/passwd", errno);
    }
    return {};
  }

  Result<void> add_devices() {
    MAYFLY_TRY(make_directory(root_.get(), "dev"));
    if (privileged_) {
      const std::string target = directory_ + "/dev";
      if (::mount("mayfly-dev", target.c_str(), "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64k,mode=755") != 0)
        return errno_error("mount /dev", errno);
    }
    const UniqueFd dev(openat(root_.get(), "dev", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!dev) return errno_error("open /dev", errno);
    for (const auto& device : kDevices) MAYFLY_TRY(privileged_ ? make_device(dev, device) : bind_device(dev, device));
    for (const auto& [name, target] : kDeviceLinks) {
      if (symlinkat(target, dev.get(), name) != 0) return errno_error(std::string("link /dev/") + name, errno);
    }
    return {};
  }
  static Result<void> make_device(const UniqueFd& dev, const Device& device) {
    constexpr unsigned kEverybody = 0666;
    if (mknodat(dev.get(), device.name, S_IFCHR | kEverybody, makedev(device.major, device.minor)) != 0 ||
        fchmodat(dev.get(), device.name, kEverybody, 0) != 0) {
      return errno_error(std::string("make /dev/") + device.name, errno);
    }
    return {};
  }
  // Without root nodes cannot be made: the host's are bound, once they are seen to be what their name says.
  static Result<void> bind_device(const UniqueFd& dev, const Device& device) {
    const std::string path = std::string("/dev/") + device.name;
    const UniqueFd source(open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat kind{};
    if (!source || fstat(source.get(), &kind) != 0) return errno_error("open " + path, errno);
    if (!S_ISCHR(kind.st_mode) || kind.st_rdev != makedev(device.major, device.minor))
      return Error(ErrorCode::kInternal, path + " of this host is not that device");
    const UniqueFd mount(open_tree(source.get(), "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));
    if (!mount) return errno_error("bind " + path, errno);
    MAYFLY_TRY(write_file(dev.get(), device.name, ""));
    return attach(mount, dev.get(), device.name);
  }

  void add_extra(const std::string& path) {
    if (!path.starts_with('/') || path == "/" || path.find("..") != std::string::npos) {
      notes_.push_back("The extra directory \"" + path + "\" of root image " + image_.id +
                       " is not an absolute path without \"..\"; it is left out.");
      return;
    }
    const std::string target = path.substr(1);
    if (auto bound = bind_host(path, target); !bound.ok()) {
      notes_.push_back("The extra directory " + path + " of root image " + image_.id + " is left out: " + bound.error().message() + ".");
      return;
    }
    if (target.starts_with("opt/")) result_.opt_binds.push_back(target);
  }

  // Binds are read-only already; the tmpfs itself and /dev follow. Everything is private: nothing the host mounts later shows up.
  Result<void> seal() {
    root_.reset();
    const UniqueFd root(open(directory_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    MAYFLY_TRY(set_attributes(root.get(), MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, true));
    MAYFLY_TRY(set_attributes(root.get(), MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, false));
    return {};
  }

  const RootImage& image_;
  std::string directory_;
  bool privileged_;
  std::vector<std::string>& notes_;
  UniqueFd image_root_, root_;
  Template result_;
};

std::vector<ProcMask> find_proc_masks() {
  std::vector<ProcMask> masks;
  const auto add = [&](const char* name, bool hide) {
    struct stat kind{};
    const std::string path = std::string("proc/") + name;
    if (lstat(("/" + path).c_str(), &kind) != 0) return;
    ProcMask mask;
    path.copy(mask.path, sizeof mask.path - 1);
    mask.how = !hide ? ProcMask::How::kReadOnly : S_ISDIR(kind.st_mode) ? ProcMask::How::kHideDirectory : ProcMask::How::kHideFile;
    masks.push_back(mask);
  };
  for (const char* name : kProcReadOnly) add(name, false);
  for (const char* name : kProcHidden) add(name, true);
  return masks;
}

// `directories` top first. They are named by descriptors: fsconfig() takes no text over 255 bytes, which two long paths exceed.
Result<UniqueFd> overlay_of(const std::vector<std::string>& directories) {
  std::vector<UniqueFd> opened;
  std::string lower;
  for (const auto& directory : directories) {
    MAYFLY_ASSIGN(UniqueFd layer, base::open_file(directory, O_PATH | O_DIRECTORY));
    lower += (lower.empty() ? "/proc/self/fd/" : ":/proc/self/fd/") + std::to_string(layer.get());
    opened.push_back(std::move(layer));
  }
  const UniqueFd context(fsopen("overlay", FSOPEN_CLOEXEC));
  if (!context) return errno_error("merge layers (overlay file system)", errno);
  if (fsconfig(context.get(), FSCONFIG_SET_STRING, "lowerdir", lower.c_str(), 0) != 0) return errno_error("merge layers: lowerdir", errno);
  if (fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) return errno_error("merge layers", errno);
  UniqueFd mount(fsmount(context.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
  if (!mount) return errno_error("mount merged layers", errno);
  return mount;
}

}  // namespace

Result<UniqueFd> read_only_bind(int directory_fd, const std::string& path, bool recursive) {
  const unsigned empty = path.empty() ? AT_EMPTY_PATH : 0U;
  const unsigned all = recursive ? AT_RECURSIVE : 0U;
  UniqueFd mount(open_tree(directory_fd, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW | empty | all));
  if (!mount) return errno_error("clone the mount of " + (path.empty() ? "a directory" : path), errno);
  MAYFLY_TRY(set_attributes(mount.get(), MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, recursive));
  return mount;
}

struct Roots::Impl {
  std::string work;
  std::string mount_point;
  std::map<std::string, Template> templates;
  std::vector<ProcMask> masks;
  std::vector<std::string> notes;

  [[nodiscard]] Result<const Template*> find(const std::string& id) const {
    const auto found = templates.find(id);
    if (found == templates.end()) return Error(ErrorCode::kNotFound, "there is no root image \"" + id + "\" on this host");
    return &found->second;
  }
};

Roots::Roots(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Roots::~Roots() = default;

Result<std::unique_ptr<Roots>> Roots::create(const LauncherConfig& config, const std::string& work, bool privileged) {
  auto impl = std::make_unique<Impl>();
  impl->work = work;
  impl->mount_point = work + "/new";
  if (::mount("mayfly-work", work.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "size=64m,mode=700") != 0)
    return errno_error("mount a tmpfs on " + work, errno);
  if (::mount(nullptr, work.c_str(), nullptr, MS_PRIVATE, nullptr) != 0) return errno_error("make " + work + " private", errno);
  for (const char* name : {"/new", "/users", "/roots"}) {
    if (mkdir((work + name).c_str(), kPrivateMode) != 0) return errno_error("make " + work + name, errno);
  }
  Error last(ErrorCode::kInvalidArgument, "no root image is configured");
  for (const auto& image : config.roots) {
    TemplateBuilder builder(image, work + "/roots/" + image.id, privileged, impl->notes);
    auto built = builder.build(config.bootstrap_directory);
    if (built.ok()) {
      impl->templates.emplace(image.id, std::move(built).value());
      continue;
    }
    last = std::move(built).error().with_context("root image " + image.id);
    impl->notes.push_back("Runtimes of root image " + image.id + " are not available: " + last.message() + ".");
  }
  if (impl->templates.empty()) return last;
  impl->masks = find_proc_masks();
  return std::unique_ptr<Roots>(new Roots(std::move(impl)));
}

Result<void> Roots::check(const std::string& root_id) const {
  MAYFLY_ASSIGN([[maybe_unused]] const Template* found, impl_->find(root_id));
  return {};
}

Result<UniqueFd> Roots::clone_root(const std::string& root_id) const {
  MAYFLY_ASSIGN(const Template* found, impl_->find(root_id));
  UniqueFd mount(open_tree(AT_FDCWD, found->directory.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE));
  if (!mount) return errno_error("clone root image " + root_id, errno);
  return mount;
}

Result<ReadyMount> Roots::user_files(std::uint32_t user, std::uint32_t group) const {
  const std::string directory = impl_->work + "/users/" + std::to_string(user);
  if (mkdir(directory.c_str(), kPrivateMode) == 0) {
    const std::string uid = std::to_string(user);
    const std::string gid = std::to_string(group);
    const std::string passwd = "root:x:0:0:root:/root:/sbin/nologin\nsbx_user1051:x:" + uid + ":" + gid + "::/tmp:/sbin/nologin\n";
    MAYFLY_TRY(write_file(AT_FDCWD, directory + "/passwd", passwd));
    MAYFLY_TRY(write_file(AT_FDCWD, directory + "/group", "root:x:0:\nsbx_user1051:x:" + gid + ":\n"));
  } else if (errno != EEXIST) {
    return errno_error("make the user's /etc/passwd", errno);
  }
  MAYFLY_ASSIGN(UniqueFd mount, read_only_bind(AT_FDCWD, directory, false));
  return ReadyMount{.mount = std::move(mount), .target = "etc/sandbox"};
}

Result<std::vector<ReadyMount>> Roots::layer_mounts(const std::string& root_id, const std::vector<std::string>& layers) const {
  std::vector<ReadyMount> mounts;
  if (layers.empty()) return mounts;
  MAYFLY_ASSIGN(const Template* found, impl_->find(root_id));
  std::vector<std::string> directories(layers.rbegin(), layers.rend());
  if (!found->opt_binds.empty()) directories.push_back(found->directory + "/opt");
  if (directories.size() == 1) {
    MAYFLY_ASSIGN(UniqueFd layer, read_only_bind(AT_FDCWD, directories.front(), false));
    mounts.push_back({.mount = std::move(layer), .target = "opt"});
    return mounts;
  }
  MAYFLY_ASSIGN(UniqueFd merged, overlay_of(directories));
  mounts.push_back({.mount = std::move(merged), .target = "opt"});
  for (const auto& bind : found->opt_binds) {
    MAYFLY_ASSIGN(UniqueFd again, read_only_bind(AT_FDCWD, found->directory + "/" + bind, true));
    mounts.push_back({.mount = std::move(again), .target = bind});
  }
  return mounts;
}

void Roots::forget_user(std::uint32_t user) const {
  const std::string directory = impl_->work + "/users/" + std::to_string(user);
  for (const char* file : {"/passwd", "/group"}) (void)unlink((directory + file).c_str());
  (void)rmdir(directory.c_str());
}

const std::string& Roots::mount_point() const { return impl_->mount_point; }
const std::vector<ProcMask>& Roots::proc_masks() const { return impl_->masks; }
const std::vector<std::string>& Roots::notes() const { return impl_->notes; }

}  // namespace mayfly::sandbox::internal
