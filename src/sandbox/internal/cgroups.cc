#include "sandbox/internal/cgroups.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <sstream>
#include <thread>

#include "base/log.h"

namespace mayfly::sandbox::internal {

using base::errno_error;
using base::Result;
using base::UniqueFd;

namespace {

constexpr std::uint32_t kPeriodUs = 100'000;  // of the CPU quota; Sandbox::throttle() knows it too
constexpr std::array<const char*, 3> kControllersV2 = {"memory", "cpu", "pids"};

bool has_word(std::string_view list, std::string_view word, char separator) {
  while (!list.empty()) {
    const std::size_t end = std::min(list.find(separator), list.size());
    if (list.substr(0, end) == word) return true;
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return false;
}

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

// One mounted hierarchy, and the instance's group in it.
struct Hierarchy {
  bool v2 = false;
  std::string controllers;  // v1: comma separated
  std::string mount_point;
  std::string mount_root;  // the part of the hierarchy that the mount shows
  std::string base;        // <mount point>/.../mayfly-<instance>, empty when it could not be made
  UniqueFd directory;      // of base
  bool memory = false, cpu = false, pids = false, freezer = false, usage = false;
};

std::string unescape_mount(const std::string& text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      plain += static_cast<char>(((text[i + 1] - '0') << 6) + ((text[i + 2] - '0') << 3) + (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

std::vector<Hierarchy> find_hierarchies() {
  std::vector<Hierarchy> found;
  const auto table = base::read_file("/proc/self/mountinfo");
  if (!table.ok()) return found;
  std::istringstream lines(*table);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string id, parent, device, root, point, word, type, source, super;
    fields >> id >> parent >> device >> root >> point;
    while (fields >> word && word != "-") {
    }
    fields >> type >> source >> super;
    if (type != "cgroup" && type != "cgroup2") continue;
    Hierarchy one;
    one.v2 = type == "cgroup2";
    one.controllers = one.v2 ? "" : super;
    one.mount_point = unescape_mount(point);
    one.mount_root = unescape_mount(root);
    const bool useful = one.v2 || has_word(super, "memory", ',') || has_word(super, "cpu", ',') || has_word(super, "pids", ',') ||
                        has_word(super, "freezer", ',') || has_word(super, "cpuacct", ',');
    const bool again =
        std::ranges::any_of(found, [&](const Hierarchy& other) { return other.v2 == one.v2 && other.controllers == one.controllers; });
    if (useful && !again) found.push_back(std::move(one));
  }
  return found;
}

// The path of this process in the hierarchy, as seen beneath its mount point.
std::string own_path(const Hierarchy& hierarchy) {
  const auto table = base::read_file("/proc/self/cgroup");
  if (!table.ok()) return {};
  std::istringstream lines(*table);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = line.substr(first + 1, second - first - 1);
    const bool same =
        hierarchy.v2 ? names.empty() : (!names.empty() && has_word(hierarchy.controllers, names.substr(0, names.find(',')), ','));
    if (!same) continue;
    std::string path = line.substr(second + 1);
    if (hierarchy.mount_root != "/" && path.starts_with(hierarchy.mount_root)) path = path.substr(hierarchy.mount_root.size());
    return path == "/" ? "" : path;
  }
  return {};
}

bool write_control(int directory, const std::string& name, const std::string& value) {
  const UniqueFd file(openat(directory, name.c_str(), O_WRONLY | O_CLOEXEC));
  return file.valid() && write(file.get(), value.data(), value.size()) == static_cast<ssize_t>(value.size());
}

bool write_path(const std::string& path, const std::string& value) { return write_control(AT_FDCWD, path, value); }

bool make_group(const std::string& path) { return mkdir(path.c_str(), 0755) == 0 || (errno == EEXIST && access(path.c_str(), W_OK) == 0); }

std::vector<pid_t> processes_in(const std::string& group) {
  std::vector<pid_t> pids;
  const auto text = base::read_file(group + "/cgroup.procs");
  if (!text.ok()) return pids;
  std::istringstream in(*text);
  for (pid_t pid = 0; in >> pid;) pids.push_back(pid);
  return pids;
}

// v2 lets a group either hold processes or hand out controllers. A delegated group that holds only this program is emptied into a
// leaf, as systemd's delegation rules ask for.
bool hand_out(const std::string& parent, const std::string& controller, const std::string& leaf_name) {
  if (write_path(parent + "/cgroup.subtree_control", "+" + controller)) return true;
  if (errno != EBUSY) return false;
  const auto pids = processes_in(parent);
  const pid_t self = getpid();
  const pid_t server = getppid();
  if (!std::ranges::all_of(pids, [&](pid_t pid) { return pid == self || pid == server; })) return false;
  const std::string leaf = parent + "/" + leaf_name;
  if (!make_group(leaf)) return false;
  for (const pid_t pid : pids) {
    if (!write_path(leaf + "/cgroup.procs", std::to_string(pid))) return false;
  }
  return write_path(parent + "/cgroup.subtree_control", "+" + controller);
}

void find_controllers_v2(Hierarchy& hierarchy, const std::string& parent, const std::string& leaf_name) {
  const auto offered = base::read_file(parent + "/cgroup.controllers");
  const std::string list = offered.ok() ? trimmed(*offered) : "";
  const std::array<bool*, 3> flags = {&hierarchy.memory, &hierarchy.cpu, &hierarchy.pids};
  for (std::size_t i = 0; i < flags.size(); ++i) {
    if (!has_word(list, kControllersV2[i], ' ')) continue;
    (void)hand_out(parent, kControllersV2[i], leaf_name);
    *flags[i] = write_path(hierarchy.base + "/cgroup.subtree_control", std::string("+") + kControllersV2[i]);
  }
  hierarchy.freezer = access((hierarchy.base + "/cgroup.freeze").c_str(), W_OK) == 0;
  hierarchy.usage = access((hierarchy.base + "/cpu.stat").c_str(), R_OK) == 0;
}

void find_controllers_v1(Hierarchy& hierarchy) {
  hierarchy.memory = has_word(hierarchy.controllers, "memory", ',');
  hierarchy.cpu = has_word(hierarchy.controllers, "cpu", ',');
  hierarchy.pids = has_word(hierarchy.controllers, "pids", ',');
  hierarchy.freezer = has_word(hierarchy.controllers, "freezer", ',');
  hierarchy.usage = has_word(hierarchy.controllers, "cpuacct", ',');
}

void open_base(Hierarchy& hierarchy, const std::string& name) {
  const std::string own = own_path(hierarchy);
  // At the top where that is allowed; else beneath the group this program was given.
  for (const std::string& parent : {hierarchy.mount_point, hierarchy.mount_point + own}) {
    const std::string base = parent + "/" + name;
    if (!make_group(base)) continue;
    // A v2 group of ours is of use only if processes may be moved into it from where we are: their common ancestor must be writable.
    if (hierarchy.v2 && geteuid() != 0 && access((parent + "/cgroup.procs").c_str(), W_OK) != 0) {
      (void)rmdir(base.c_str());
      continue;
    }
    hierarchy.base = base;
    if (hierarchy.v2)
      find_controllers_v2(hierarchy, parent, name + "-server");
    else
      find_controllers_v1(hierarchy);
    hierarchy.directory = UniqueFd(open(base.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return;
  }
}

// Moving a process between v1 groups waits for an RCU grace period, 10 to 20 ms, unless some hierarchy asks for quick moves. An empty
// one of our own that does, and lives as long as the descriptor, changes nothing else for the host. Without it moves are slow.
UniqueFd ask_for_quick_moves() {
  const UniqueFd context(fsopen("cgroup", FSOPEN_CLOEXEC));
  if (!context) return {};
  const bool set = fsconfig(context.get(), FSCONFIG_SET_FLAG, "none", nullptr, 0) == 0 &&
                   fsconfig(context.get(), FSCONFIG_SET_STRING, "name", "mayfly", 0) == 0 &&
                   fsconfig(context.get(), FSCONFIG_SET_FLAG, "favordynmods", nullptr, 0) == 0 &&
                   fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) == 0;
  return set ? UniqueFd(fsmount(context.get(), FSMOUNT_CLOEXEC, 0)) : UniqueFd();
}

void kill_group(const std::string& group) {
  (void)write_path(group + "/freezer.state", "THAWED");
  if (write_path(group + "/cgroup.kill", "1")) return;
  for (const pid_t pid : processes_in(group)) (void)kill(pid, SIGKILL);
}

std::vector<std::string> groups_in(const std::string& base) {
  std::vector<std::string> groups;
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator(base, ec)) {
    if (entry.is_directory(ec)) groups.push_back(entry.path().string());
  }
  return groups;
}

}  // namespace

namespace {

void read_control_values(int fd, std::span<const std::string_view> keys, std::span<std::uint64_t> values) {
  std::array<char, 8192> buffer;  // not cleared: twice the price of the rest
  const ssize_t got = fd < 0 ? -1 : pread(fd, buffer.data(), buffer.size() - 1, 0);
  if (got <= 0) return;
  std::string_view text(buffer.data(), static_cast<std::size_t>(got));
  std::size_t found = 0;
  while (!text.empty() && found < keys.size()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      const std::size_t length = keys[i].size();
      if (line.size() <= length || !line.starts_with(keys[i]) || (line[length] != ' ' && line[length] != ':')) continue;
      std::size_t at = length + 1;
      while (at < line.size() && (line[at] == ' ' || line[at] == '\t')) ++at;
      std::from_chars(line.data() + at, line.data() + line.size(), values[i]);
      ++found;
      break;
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

}  // namespace

std::uint64_t control_value(int fd, std::string_view key) {
  std::uint64_t value = 0;
  read_control_values(fd, {&key, 1}, {&value, 1});
  return value;
}

std::array<std::uint64_t, 2> control_values(int fd, const std::array<std::string_view, 2>& keys) {
  std::array<std::uint64_t, 2> values{};
  read_control_values(fd, keys, values);
  return values;
}

struct Cgroups::Impl {
  std::string name;
  std::vector<Hierarchy> all;
  Hierarchy* memory = nullptr;
  Hierarchy* cpu = nullptr;
  Hierarchy* pids = nullptr;
  Hierarchy* freezer = nullptr;
  Hierarchy* usage = nullptr;
  UniqueFd quick_moves;

  // v2 wins for each controller.
  void choose() {
    std::ranges::partition(all, [](const Hierarchy& one) { return one.v2; });
    for (auto& one : all) {
      if (one.base.empty() || !one.directory) continue;
      if (one.memory && memory == nullptr) memory = &one;
      if (one.cpu && cpu == nullptr) cpu = &one;
      if (one.pids && pids == nullptr) pids = &one;
      if (one.freezer && freezer == nullptr) freezer = &one;
      if (one.usage && usage == nullptr) usage = &one;
    }
    for (auto& one : all) {
      if (!one.base.empty() && !used(one) && rmdir(one.base.c_str()) == 0) one.base.clear();
    }
  }
  [[nodiscard]] bool used(const Hierarchy& one) const {
    return &one == memory || &one == cpu || &one == pids || &one == freezer || &one == usage;
  }

  Result<void> make_in(Hierarchy& one, const std::string& group, Cgroup& made, Sandbox& sandbox);
  static Result<void> prepare_memory(const Hierarchy& one, int directory, Cgroup& made, Sandbox& sandbox);
};

namespace {

Result<void> set(int directory, const char* file, const std::string& value) {
  if (write_control(directory, file, value)) return {};
  return errno_error(std::string("write ") + value + " to the control group's " + file, errno);
}

Result<UniqueFd> open_control(int directory, const char* file, int flags) {
  UniqueFd fd(openat(directory, file, flags | O_CLOEXEC));
  if (!fd) return errno_error(std::string("open the control group's ") + file, errno);
  return fd;
}

// Tells `made.oom_event` when the v1 group runs out of memory. Without it the exit status still shows what happened.
void watch_oom_v1(int directory, Cgroup& made) {
  UniqueFd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event) return;
  if (write_control(directory, "cgroup.event_control", std::to_string(event.get()) + " " + std::to_string(made.memory_events.get())))
    made.oom_event = std::move(event);
}

}  // namespace

Result<void> Cgroups::Impl::prepare_memory(const Hierarchy& one, int directory, Cgroup& made, Sandbox& sandbox) {
  if (one.v2) {
    (void)write_control(directory, "memory.swap.max", "0");  // absent on a kernel without swap accounting
    (void)write_control(directory, "memory.oom.group", "1");
  } else {
    (void)write_control(directory, "memory.swappiness", "0");
  }
  MAYFLY_ASSIGN(made.memory_events, open_control(directory, one.v2 ? "memory.events" : "memory.oom_control", O_RDONLY));
  MAYFLY_ASSIGN(made.memory_stat, open_control(directory, "memory.stat", O_RDONLY));
  if (!one.v2) watch_oom_v1(directory, made);
  sandbox.cgroup_v2_memory = one.v2;
  return {};
}

Result<void> Cgroups::Impl::make_in(Hierarchy& one, const std::string& group, Cgroup& made, Sandbox& sandbox) {
  if (mkdirat(one.directory.get(), group.c_str(), 0755) != 0 && errno != EEXIST)
    return errno_error("make control group " + one.base + "/" + group, errno);
  UniqueFd directory(openat(one.directory.get(), group.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return errno_error("open control group " + one.base + "/" + group, errno);
  if (&one == memory) {
    MAYFLY_TRY(prepare_memory(one, directory.get(), made, sandbox));
    MAYFLY_ASSIGN(made.memory, directory.duplicate());
  }
  if (&one == cpu) {
    if (!one.v2) (void)write_control(directory.get(), "cpu.cfs_period_us", std::to_string(kPeriodUs));
    // Absent where the kernel was built without bandwidth control: then there is the weight only.
    sandbox.cpu_quota_file = UniqueFd(openat(directory.get(), one.v2 ? "cpu.max" : "cpu.cfs_quota_us", O_WRONLY | O_CLOEXEC));
    sandbox.cgroup_v2_cpu = one.v2;
    MAYFLY_ASSIGN(made.cpu, directory.duplicate());
  }
  if (&one == pids) {
    MAYFLY_ASSIGN(made.pids, directory.duplicate());
  }
  if (&one == freezer) {
    MAYFLY_ASSIGN(sandbox.freeze_file, open_control(directory.get(), one.v2 ? "cgroup.freeze" : "freezer.state", O_WRONLY));
    sandbox.cgroup_v2_freezer = one.v2;
    if (!one.v2) {
      MAYFLY_ASSIGN(made.thaw, sandbox.freeze_file.duplicate());
    }
  }
  if (&one == usage) {
    MAYFLY_ASSIGN(sandbox.cpu_stat, open_control(directory.get(), one.v2 ? "cpu.stat" : "cpuacct.usage", O_RDONLY));
  }
  if (one.v2) {
    made.into = std::move(directory);
    return {};
  }
  MAYFLY_ASSIGN(UniqueFd procs, open_control(directory.get(), "cgroup.procs", O_WRONLY));
  made.attach.push_back(std::move(procs));
  return {};
}

Cgroups::Cgroups(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Cgroups::~Cgroups() = default;

Result<std::unique_ptr<Cgroups>> Cgroups::create(const std::string& instance) {
  auto impl = std::make_unique<Impl>();
  impl->name = "mayfly-" + instance;
  impl->all = find_hierarchies();
  for (auto& one : impl->all) open_base(one, impl->name);
  impl->choose();
  if (std::ranges::any_of(impl->all, [&](const Hierarchy& one) { return !one.v2 && impl->used(one); }))
    impl->quick_moves = ask_for_quick_moves();
  return std::unique_ptr<Cgroups>(new Cgroups(std::move(impl)));
}

Result<Cgroup> Cgroups::make(std::uint64_t number, Sandbox& sandbox) {
  Cgroup made;
  for (auto& one : impl_->all) {
    if (!impl_->used(one)) continue;
    if (auto done = impl_->make_in(one, std::to_string(number), made, sandbox); !done.ok()) {
      (void)remove(number);
      return std::move(done).error();
    }
  }
  return made;
}

Result<void> Cgroups::limit(const Cgroup& group, const CgroupLimits& limits) const {
  if (group.memory) {
    const std::string bytes = std::to_string(limits.memory_bytes);
    // Never below the other: before it where the limit grows, after it where it shrinks.
    if (!impl_->memory->v2) (void)write_control(group.memory.get(), "memory.memsw.limit_in_bytes", bytes);
    MAYFLY_TRY(set(group.memory.get(), impl_->memory->v2 ? "memory.max" : "memory.limit_in_bytes", bytes));
    if (!impl_->memory->v2) (void)write_control(group.memory.get(), "memory.memsw.limit_in_bytes", bytes);
  }
  if (group.cpu) {
    const bool v2 = impl_->cpu->v2;
    const std::uint32_t weight = v2 ? std::clamp(limits.cpu_milli / 10, 1U, 10'000U) : std::max(2U, limits.cpu_milli * 1024 / 1000);
    MAYFLY_TRY(set(group.cpu.get(), v2 ? "cpu.weight" : "cpu.shares", std::to_string(weight)));
  }
  if (group.pids) MAYFLY_TRY(set(group.pids.get(), "pids.max", std::to_string(limits.processes_max + 1)));  // and the sandbox's init
  return {};
}

Result<std::vector<UniqueFd>> Cgroups::doors(std::uint64_t number) const {
  std::vector<UniqueFd> doors;
  for (const auto& one : impl_->all) {
    if (!impl_->used(one)) continue;
    MAYFLY_ASSIGN(UniqueFd procs, open_control(one.directory.get(), (std::to_string(number) + "/cgroup.procs").c_str(), O_WRONLY));
    doors.push_back(std::move(procs));
  }
  return doors;
}

bool Cgroups::remove(std::uint64_t number) {
  bool gone = true;
  for (const auto& one : impl_->all) {
    if (!impl_->used(one)) continue;
    if (unlinkat(one.directory.get(), std::to_string(number).c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) gone = false;
  }
  return gone;
}

void Cgroups::remove_leftovers() {
  constexpr int kTries = 200;
  for (int i = 0; i < kTries; ++i) {
    bool gone = true;
    for (const auto& one : impl_->all) {
      if (one.base.empty()) continue;
      for (const auto& group : groups_in(one.base)) {
        if (rmdir(group.c_str()) == 0) continue;
        gone = false;
        kill_group(group);
      }
    }
    if (gone) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  base::log_warning("control groups of a former run could not be deleted", {{"name", impl_->name}});
}

void Cgroups::remove_all() {
  // A group counts as busy until the kernel's worker has taken its last child offline.
  constexpr int kTries = 100;
  for (auto& one : impl_->all) {
    one.directory.reset();
    for (int i = 0; i < kTries && !one.base.empty() && rmdir(one.base.c_str()) != 0 && errno == EBUSY; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
}

void Cgroups::describe(HostCapabilities& host) const {
  const auto name = [](const Hierarchy* one) { return one == nullptr ? "" : one->v2 ? "v2" : "v1"; };
  host.memory_controller = name(impl_->memory);
  host.cpu_controller = name(impl_->cpu);
  host.pids_controller = name(impl_->pids);
  host.freezer_controller = name(impl_->freezer);
  host.memory_limit = impl_->memory != nullptr;
  host.process_limit = impl_->pids != nullptr;
  host.freezer = impl_->freezer != nullptr;
  host.cpu_quota = impl_->cpu != nullptr;
  const std::string remedy =
      host.privileged ? "Mount that cgroup controller (cgroup v2, or v1) writable for Mayfly."
                      : "Start Mayfly as root, or in a delegated group: systemd-run --user --scope -p Delegate=yes mayfly server.";
  if (!host.memory_limit) host.notes.push_back("MemorySize is not enforced and memory use is that of the main process only. " + remedy);
  if (!host.cpu_quota) host.notes.push_back("CPU is not shared out by MemorySize: no cpu controller. " + remedy);
  if (!host.process_limit) host.notes.push_back("The number of processes in a sandbox is not limited by a pids controller. " + remedy);
  if (!host.freezer)
    host.notes.push_back("Idle environments are not frozen: background work of functions goes on between invocations. " + remedy);
}

}  // namespace mayfly::sandbox::internal
