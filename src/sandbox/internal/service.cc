#include "sandbox/internal/service.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>
#include <thread>
#include <unordered_set>

#include "base/assert.h"
#include "base/descriptor_limit.h"
#include "base/log.h"
#include "sandbox/internal/archives.h"
#include "sandbox/internal/cgroups.h"
#include "sandbox/internal/filters.h"
#include "sandbox/internal/network.h"
#include "sandbox/internal/process_title.h"
#include "sandbox/internal/processes.h"
#include "sandbox/internal/protocol.h"
#include "sandbox/internal/roots.h"
#include "sandbox/internal/scratch.h"

namespace mayfly::sandbox::internal {

using base::errno_error;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::UniqueFd;

Step fail_step_for_test = Step::kNone;

namespace {

constexpr std::uint32_t kInsideUser = 993;  // without root: what the launcher's own user is called inside, as on Lambda
constexpr std::uint32_t kInsideGroup = 990;
constexpr int kOutputPipeBytes = 1 << 20;
constexpr int kRetryMs = 10;
constexpr int kWatchMs = 200;  // how often memory is compared where /tmp is charged to the same group
constexpr int kGroupTriesMax = 500;
constexpr auto kEndPatience = std::chrono::seconds(4);
constexpr auto kPredecessorPatience = std::chrono::seconds(10);

// What an epoll event is about: kind in the upper byte, id of the sandbox or job below.
enum class Source : std::uint8_t { kServer, kReport, kStatus, kInit, kOutOfMemory, kJob, kScratch };
std::uint64_t event_key(Source source, std::uint64_t id) { return (static_cast<std::uint64_t>(source) << 56U) | id; }

// A sandbox from the request to its end.
struct Live {
  SandboxId id = 0;
  std::uint32_t user = 0;
  pid_t init = -1;
  UniqueFd init_pidfd, main_pidfd;
  UniqueFd report;  // step failures; its end means that the program runs
  UniqueFd status;  // how its programs ended
  Cgroup group;
  ScratchMount tmp;
  Sandbox handed_out;   // descriptors until they are sent
  std::string program;  // the first of its arguments
  std::vector<std::string> companions;
  std::optional<std::int32_t> main_ended;  // its wait status
  std::optional<Error> failure;            // of a program that could not be executed after all was told to be well
  std::vector<std::string> code;
  std::vector<ReadyMount> mounts;  // until the child has moved them
  std::uint64_t memory_bytes = 0;
  bool answered = false;  // kStarted or kFailed was sent
  bool started = false;
  bool killed = false;  // because the server asked
  bool out_of_memory = false;
};

struct Outgoing {
  std::string bytes;
  std::unique_ptr<Sandbox> sandbox;  // owner of `descriptors`
  std::vector<int> descriptors;
};

// `variables` are those named in it to leave out of "NAME=value" texts.
std::vector<char*> pointers_to(const std::vector<std::string>& texts, const std::vector<std::string>& variables = {}) {
  std::vector<char*> pointers;
  for (const auto& text : texts) {
    if (std::ranges::find(variables, text.substr(0, text.find('='))) == variables.end())
      pointers.push_back(const_cast<char*>(text.c_str()));
  }
  pointers.push_back(nullptr);
  return pointers;
}

sock_fprog program_of(const Filter& filter) {
  return {.len = static_cast<unsigned short>(filter.size()), .filter = const_cast<sock_filter*>(filter.data())};
}

// The only child of a sandbox's init is the main process, unless it already ended.
pid_t main_process_of(pid_t init) {
  const std::string pid = std::to_string(init);
  const auto children = base::read_file("/proc/" + pid + "/task/" + pid + "/children");
  pid_t first = -1;
  if (children.ok()) std::istringstream(*children) >> first;
  return first;
}

class Service {
 public:
  Service(const LauncherConfig& config, UniqueFd socket) : config_(config), socket_(std::move(socket)) {}

  Result<void> prepare();
  void greet();
  void run();
  void end();

 private:
  Result<void> wait_for_predecessor();
  Result<void> enter_namespaces();
  Result<void> enter_user_namespace();
  Result<void> open_directories();
  void describe();

  // requests
  bool take_requests();
  void handle(Packet& packet);
  void start(Reader& in);
  Result<void> check(const SandboxSpec& spec) const;
  Result<void> assemble(const SandboxSpec& spec, Live& live);
  Result<void> mount_all(const SandboxSpec& spec, Live& live);
  Result<void> launch(const SandboxSpec& spec, Live& live, const UniqueFd& root, const UniqueFd& netns);
  struct Companions {
    Pipe output;
    UniqueFd gate;  // the main process's end
  };
  Result<Companions> prepare_companions(const SandboxSpec& spec, Live& live) const;
  Result<void> spawn(const ChildPlan& plan, Live& live);
  void kill(Live& live);
  void signal_main(SandboxId id, int signal);
  void unpack(Reader& in, Packet& packet);
  void answer_unpack(std::uint64_t request, const Result<std::uint64_t>& result);
  void remove_code(const std::string& code_id);

  // events
  void on_report(Live& live);
  void on_status(Live& live);
  void on_init_ended(Live& live);
  void on_job(std::uint64_t id);
  void watch_memory();
  void retry_groups();
  [[nodiscard]] int patience() const;

  void release(Live& live);
  void fail(SandboxId id, const Error& error);
  [[nodiscard]] Error explain(const Live& live, const StepFailure& failure) const;
  void watch(int fd, Source source, std::uint64_t id, std::uint32_t events = EPOLLIN) const;
  void post(std::string bytes, std::unique_ptr<Sandbox> sandbox = nullptr, std::vector<int> descriptors = {});
  void flush();
  [[nodiscard]] Result<std::uint32_t> take_user();
  [[nodiscard]] bool in_use(const std::string& code_id) const;

  const LauncherConfig& config_;
  UniqueFd socket_, epoll_, null_, code_;
  UniqueFd lock_;  // held while anything of this instance may be changed
  bool privileged_ = false;
  std::string work_;
  HostCapabilities host_;
  Filter function_filter_, init_filter_;
  std::unique_ptr<NetworkBuilder> network_;
  std::unique_ptr<Cgroups> groups_;
  std::unique_ptr<Roots> roots_;
  std::unique_ptr<Scratch> scratch_;
  std::unique_ptr<Archives> archives_;
  std::map<SandboxId, std::unique_ptr<Live>> live_;
  std::map<SandboxId, int> groups_to_remove_;  // and how often that was tried
  std::set<std::string> code_to_remove_;       // while a sandbox still uses it
  std::unordered_set<std::uint32_t> users_;
  std::uint32_t next_user_ = 0;
  std::deque<Outgoing> outbox_;
  bool idle_work_due_ = false;
  bool server_gone_ = false;
  bool outbox_waits_ = false;  // for room in the socket
};

// ---- start

// A server that is started again at once may find the launcher of the killed one still cleaning up what both call by the same names.
Result<void> Service::wait_for_predecessor() {
  MAYFLY_ASSIGN(lock_, base::open_file(config_.scratch_directory, O_RDONLY | O_DIRECTORY));
  const auto until = std::chrono::steady_clock::now() + kPredecessorPatience;
  while (flock(lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return errno_error("lock " + config_.scratch_directory, errno);
    if (std::chrono::steady_clock::now() > until) {
      return Error(ErrorCode::kUnavailable, "another sandbox launcher works in " + config_.scratch_directory +
                                                ": end the Mayfly that uses this data directory first");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(kRetryMs));
  }
  return {};
}

Result<void> Service::enter_user_namespace() {
  const uid_t user = geteuid();
  const gid_t group = getegid();
  (void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);  // else /proc/self belongs to root and the maps cannot be written
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
    return errno_error(
        "functions cannot be isolated: Mayfly does not run as root and this host allows no user namespaces (sysctl "
        "user.max_user_namespaces, "
        "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns). Start Mayfly as root or allow them",
        errno);
  }
  const auto write_map = [](const char* file, const std::string& text) -> Result<void> {
    MAYFLY_ASSIGN(const UniqueFd map, base::open_file(file, O_WRONLY));
    return base::write_all(map.get(), text).with_context(file);
  };
  MAYFLY_TRY(write_map("/proc/self/setgroups", "deny"));
  MAYFLY_TRY(write_map("/proc/self/uid_map", std::to_string(kInsideUser) + " " + std::to_string(user) + " 1"));
  MAYFLY_TRY(write_map("/proc/self/gid_map", std::to_string(kInsideGroup) + " " + std::to_string(group) + " 1"));
  host_.user_namespaces = true;
  return {};
}

Result<void> Service::enter_namespaces() {
  // Root of a container may lack the right to make namespaces: then it is treated as any other user.
  privileged_ = geteuid() == 0 && unshare(CLONE_NEWNS) == 0;
  if (!privileged_) MAYFLY_TRY(enter_user_namespace());
  // Slave: what the host unmounts later is unmounted here too and stays free.
  if (mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0)
    return errno_error("separate the launcher's mounts from the host's", errno);
  return {};
}

Result<void> Service::open_directories() {
  // As root not in the scratch directory: that belongs to the server, which could put a link in the place of a directory root works in.
  work_ = privileged_ ? "/run/mayfly-launcher-" + config_.instance : config_.scratch_directory + "/launcher";
  if (mkdir(work_.c_str(), 0700) != 0 && errno != EEXIST) return errno_error("make " + work_, errno);
  struct stat made{};
  if (lstat(work_.c_str(), &made) != 0 || !S_ISDIR(made.st_mode) || made.st_uid != geteuid()) {
    return base::Error(base::ErrorCode::kPermissionDenied, work_ + " is not a directory of this user; remove it");
  }
  MAYFLY_ASSIGN(code_, base::open_file(config_.code_directory, O_RDONLY | O_DIRECTORY));
  MAYFLY_ASSIGN(null_, base::open_file("/dev/null", O_RDWR));
  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return errno_error("make an event queue", errno);
  return {};
}

void Service::describe() {
  host_.privileged = privileged_;
  if (privileged_) host_.user_namespaces = access("/proc/self/ns/user", F_OK) == 0;
  if (!privileged_) {
    host_.notes.emplace_back(
        "Mayfly does not run as root: every function runs as this same host user, held apart by namespaces only. Start Mayfly as root for "
        "a user of its own each.");
  }
  groups_->describe(host_);
  if (!config_.cpu_quota) host_.cpu_quota = false;
  host_.disk_tmp = scratch_->disk();
  if (!host_.disk_tmp) host_.notes.push_back(scratch_->why_not_disk());
  host_.outside_network = network_->outside_possible();
  if (!host_.outside_network) host_.notes.push_back(network_->why_not());
  for (const auto& note : network_->notes()) host_.notes.push_back(note);
  for (const auto& note : roots_->notes()) host_.notes.push_back(note);
}

Result<void> Service::prepare() {
  MAYFLY_TRY(wait_for_predecessor());
  MAYFLY_TRY(enter_namespaces());
  MAYFLY_TRY(open_directories());
  MAYFLY_ASSIGN(network_,
                NetworkBuilder::create(
                    {.instance = config_.instance, .cidr = config_.network_cidr, .deny = config_.network_deny, .privileged = privileged_}));
  MAYFLY_ASSIGN(groups_, Cgroups::create(config_.instance));
  groups_->remove_leftovers();
  network_->remove_all();
  MAYFLY_ASSIGN(
      archives_,
      Archives::create(
          {.directory = config_.code_directory, .privileged = privileged_, .user = config_.server_uid, .group = config_.server_gid},
          [this](int pidfd, std::uint64_t job) { watch(pidfd, Source::kJob, job); }));
  archives_->remove_leftovers();
  MAYFLY_ASSIGN(scratch_, Scratch::create({.directory = config_.scratch_directory, .privileged = privileged_}));
  MAYFLY_ASSIGN(roots_, Roots::create(config_, work_, privileged_));
  MAYFLY_ASSIGN(function_filter_, function_filter());
  MAYFLY_ASSIGN(init_filter_, init_filter());
  describe();
  watch(socket_.get(), Source::kServer, 0);
  if (scratch_->fd() >= 0) watch(scratch_->fd(), Source::kScratch, 0);
  return {};
}

void Service::greet() {
  Writer out(MessageKind::kHello);
  write_capabilities(out, host_);
  post(out.take());
}

// ---- the loop

void Service::watch(int fd, Source source, std::uint64_t id, std::uint32_t events) const {
  epoll_event event{};
  event.events = events;
  event.data.u64 = event_key(source, id);
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0 && errno == EEXIST) (void)epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

int Service::patience() const {
  if (idle_work_due_) return 0;
  if (!groups_to_remove_.empty()) return kRetryMs;
  return !scratch_->disk() && host_.memory_limit && !live_.empty() ? kWatchMs : -1;
}

void Service::run() {
  std::array<epoll_event, 64> events{};
  while (!server_gone_) {
    const int ready = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), patience());
    if (ready < 0 && errno != EINTR) return;
    if (ready == 0 && idle_work_due_) {
      idle_work_due_ = false;
      scratch_->prepare();
    }
    for (int i = 0; i < ready && !server_gone_; ++i) {
      constexpr unsigned kKindShift = 56;
      const std::uint64_t key = events[static_cast<std::size_t>(i)].data.u64;
      const auto source = static_cast<Source>(key >> kKindShift);
      const std::uint64_t id = key & ((1ULL << kKindShift) - 1);
      if (source == Source::kServer) {
        flush();
        if (!take_requests()) server_gone_ = true;
        continue;
      }
      if (source == Source::kJob) on_job(id);
      if (source == Source::kScratch) scratch_->collect();
      const auto found = live_.find(id);
      if (found == live_.end()) continue;
      Live& live = *found->second;
      if (source == Source::kReport) on_report(live);
      if (source == Source::kStatus) on_status(live);
      if (source == Source::kInit) on_init_ended(live);
      if (source == Source::kOutOfMemory) {
        std::uint64_t count = 0;
        (void)!read(live.group.oom_event.get(), &count, sizeof count);
        live.out_of_memory = true;
        kill(live);
      }
    }
    if (!groups_to_remove_.empty()) retry_groups();
    if (!scratch_->disk()) watch_memory();
  }
}

void Service::retry_groups() {
  for (auto group = groups_to_remove_.begin(); group != groups_to_remove_.end();) {
    const bool gone = groups_->remove(group->first);
    if (!gone && ++group->second == kGroupTriesMax)
      base::log_warning("a sandbox's control group could not be deleted", {{"sandbox", std::to_string(group->first)}});
    group = gone || group->second >= kGroupTriesMax ? groups_to_remove_.erase(group) : std::next(group);
  }
}

// Where /tmp is a tmpfs, the group's limit includes it; what the processes themselves hold is compared here.
void Service::watch_memory() {
  if (!host_.memory_limit) return;
  for (auto& [id, live] : live_) {
    const std::uint64_t held = control_value(live->group.memory_stat.get(), host_.memory_controller == "v2" ? "anon" : "rss");
    if (held <= live->memory_bytes || live->out_of_memory) continue;
    live->out_of_memory = true;
    signal_through(live->init_pidfd, SIGKILL);
  }
}

// ---- requests

bool Service::take_requests() {
  constexpr int kAtOnce = 16;  // then other events get their turn
  for (int i = 0; i < kAtOnce; ++i) {
    auto packet = receive_packet(socket_.get(), MSG_DONTWAIT);
    if (!packet.ok()) return false;
    if (!*packet) return true;
    handle(**packet);
  }
  return true;
}

void Service::handle(Packet& packet) {
  Reader in(packet.bytes);
  switch (in.number<MessageKind>()) {
    case MessageKind::kStart:
      return start(in);
    case MessageKind::kKill: {
      const auto found = live_.find(in.number<SandboxId>());
      if (found == live_.end()) return;
      found->second->killed = true;
      return kill(*found->second);
    }
    case MessageKind::kTerminate:
      return signal_main(in.number<SandboxId>(), SIGTERM);
    case MessageKind::kKillMain:
      return signal_main(in.number<SandboxId>(), SIGKILL);
    case MessageKind::kUnpack:
      return unpack(in, packet);
    case MessageKind::kRemoveCode:
      return remove_code(in.text());
    default:
      base::log_error("the sandbox launcher was sent something that makes no sense");
  }
}

Result<void> Service::check(const SandboxSpec& spec) const {
  MAYFLY_TRY(check_spec(spec));
  constexpr std::uint64_t kIdMost = (1ULL << 56U) - 1;
  if (spec.id > kIdMost) return Error(ErrorCode::kInvalidArgument, "the sandbox id is too large");
  if (live_.contains(spec.id) || groups_to_remove_.contains(spec.id))
    return Error(ErrorCode::kAlreadyExists, "sandbox " + std::to_string(spec.id) + " exists already");
  return {};
}

void Service::start(Reader& in) {
  SandboxSpec spec = read_spec(in);
  auto ready = in.complete() ? check(spec) : Result<void>(Error(ErrorCode::kInvalidArgument, "the specification is damaged"));
  if (!ready.ok()) return fail(spec.id, ready.error());
  auto live = std::make_unique<Live>();
  live->id = spec.id;
  Live& made = *live;
  live_.emplace(spec.id, std::move(live));
  auto done = assemble(spec, made);
  for (auto& variable : spec.environment) wipe(variable);
  if (done.ok()) return;
  const Error error = std::move(done).error();
  release(made);
  live_.erase(spec.id);
  fail(spec.id, error);
}

Result<std::uint32_t> Service::take_user() {
  if (!privileged_) return kInsideUser;
  const std::uint32_t usable = config_.uid_count - 1;  // the first is every sandbox's init
  for (std::uint32_t i = 0; i < usable; ++i) {
    const std::uint32_t user = config_.uid_base + 1 + next_user_;
    next_user_ = (next_user_ + 1) % usable;  // round robin: an id rests as long as possible
    if (users_.insert(user).second) return user;
  }
  return Error(ErrorCode::kResourceExhausted, "all " + std::to_string(usable) + " user ids for sandboxes are taken");
}

Result<void> Service::assemble(const SandboxSpec& spec, Live& live) {
  MAYFLY_ASSIGN(live.user, take_user());
  live.memory_bytes = spec.memory_bytes;
  live.program = spec.arguments.empty() ? std::string() : spec.arguments.front();
  live.companions = spec.companions;
  live.code = spec.layer_ids;
  live.code.push_back(spec.code_id);
  Sandbox& sandbox = live.handed_out;
  sandbox.id = spec.id;
  sandbox.cpu_milli = spec.cpu_milli;
  // Without NAT a sandbox has its own loopback only; describe() says so.
  const Network mode = network_->outside_possible() ? spec.network : Network::kNone;
  MAYFLY_ASSIGN(SandboxNetwork network, network_->make(spec.id, mode, spec.connectors).with_context("network"));
  sandbox.runtime_api = std::move(network.runtime_api);
  sandbox.data_api = std::move(network.data_api);
  sandbox.dns_udp = std::move(network.dns_udp);
  sandbox.dns_tcp = std::move(network.dns_tcp);
  sandbox.connectors = std::move(network.connectors);
  const CgroupLimits limits{.memory_bytes = spec.memory_bytes + (scratch_->disk() ? 0 : spec.tmp_bytes),
                            .cpu_milli = spec.cpu_milli,
                            .processes_max = spec.processes_max};
  MAYFLY_ASSIGN(live.group, groups_->make(spec.id, limits, sandbox));
  if (!config_.cpu_quota) sandbox.cpu_quota_file.reset();
  MAYFLY_ASSIGN(live.tmp, scratch_->make(spec.tmp_bytes, live.user, privileged_ ? live.user : kInsideGroup).with_context("/tmp"));
  MAYFLY_TRY(mount_all(spec, live));
  MAYFLY_ASSIGN(const UniqueFd root, roots_->clone_root(spec.root_id));
  return launch(spec, live, root, network.netns);
}

Result<void> Service::mount_all(const SandboxSpec& spec, Live& live) {
  const auto open_code = [&](const std::string& id) -> Result<UniqueFd> {
    auto directory = base::open_beneath(code_.get(), id, O_PATH | O_DIRECTORY | O_NOFOLLOW);
    if (directory.ok() || directory.error().code() != ErrorCode::kNotFound) return directory;
    return Error(ErrorCode::kNotFound, "code " + id + " is not unpacked on this machine");
  };
  MAYFLY_ASSIGN(const UniqueFd task, open_code(spec.code_id));
  std::vector<std::string> layers;
  for (const auto& id : spec.layer_ids) {
    MAYFLY_ASSIGN(const UniqueFd layer, open_code(id));
    layers.push_back(config_.code_directory + "/" + id);
  }
  MAYFLY_ASSIGN(live.mounts, roots_->sandbox_mounts(spec.root_id, live.user, privileged_ ? live.user : kInsideGroup, layers));
  MAYFLY_ASSIGN(UniqueFd code, read_only_bind(task.get(), "", false));
  live.mounts.push_back({.mount = std::move(code), .target = "var/task"});
  live.mounts.push_back({.mount = std::move(live.tmp.mount), .target = "tmp"});
  return {};
}

Result<void> Service::launch(const SandboxSpec& spec, Live& live, const UniqueFd& root, const UniqueFd& netns) {
  MAYFLY_ASSIGN(Pipe output, make_pipe());
  MAYFLY_ASSIGN(Pipe framed, make_pipe());
  MAYFLY_ASSIGN(Pipe to_server, make_pipe());
  MAYFLY_ASSIGN(Pipe to_main, make_pipe());
  // Each end waits as its holder does: the server in its event loop, a bootstrap in its read.
  if (fcntl(to_main.read.get(), F_SETFL, 0) != 0 || fcntl(to_main.write.get(), F_SETFL, O_NONBLOCK) != 0)
    return errno_error("set up the control pipes", errno);
  MAYFLY_ASSIGN(Pipe report, make_pipe());
  (void)fcntl(output.write.get(), F_SETPIPE_SZ, kOutputPipeBytes);
  // /dev/stdout and /dev/stderr open the pipe anew, as the function's user.
  if (privileged_ && fchown(output.write.get(), live.user, live.user) != 0)
    return errno_error("give the output pipe to the sandbox", errno);
  MAYFLY_ASSIGN(Companions companions, prepare_companions(spec, live));
  int status[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, status) != 0) return errno_error("make a socket pair", errno);
  live.status = UniqueFd(status[0]);
  const UniqueFd init_status(status[1]);
  std::vector<std::string> environment = spec.environment;
  environment.emplace_back("_LAMBDA_TELEMETRY_LOG_FD=3");
  environment.emplace_back("_MAYFLY_CONTROL_FDS=4,5");
  std::vector<std::string> companions_lack = spec.companions_lack;
  companions_lack.emplace_back("_MAYFLY_CONTROL_FDS");
  const auto arguments = pointers_to(spec.arguments);
  const auto variables = pointers_to(environment);
  const auto companion_variables = pointers_to(environment, companions_lack);

  ChildPlan plan;
  plan.root_mount = root.get();
  plan.new_root = roots_->mount_point().c_str();
  for (const auto& mount : live.mounts) {
    MAYFLY_ASSERT(plan.mount_count < plan.mounts.size(), "more mounts than a plan holds");
    plan.mounts[plan.mount_count++] = {.mount = mount.mount.get(), .target = mount.target.c_str()};
  }
  plan.masks = roots_->proc_masks().data();
  plan.mask_count = roots_->proc_masks().size();
  plan.netns = netns.get();
  for (const auto& procs : live.group.attach) plan.attach[plan.attach_count++] = procs.get();
  plan.null = null_.get();
  plan.output = output.write.get();
  plan.framed_log = framed.write.get();
  plan.control_in = to_main.read.get();
  plan.control_out = to_server.write.get();
  plan.report = report.write.get();
  plan.status = init_status.get();
  plan.arguments = arguments.data();
  plan.environment = variables.data();
  for (const auto& companion : live.companions) plan.companions[plan.companion_count++] = companion.c_str();
  plan.companion_environment = companion_variables.data();
  plan.companion_output = companions.output.write.get();
  plan.gate = companions.gate.get();
  plan.working_directory = spec.working_directory.c_str();
  plan.switch_identity = privileged_;
  plan.user = plan.group = live.user;
  plan.init_user = plan.init_group = config_.uid_base;
  plan.files_max = spec.files_max;
  plan.processes_max = privileged_ ? spec.processes_max : 0;
  plan.filter = program_of(function_filter_);
  plan.init_filter = program_of(init_filter_);
  plan.title = process_title();
  plan.fail_at = fail_step_for_test;
  auto spawned = spawn(plan, live);
  for (auto& variable : environment) wipe(variable);
  MAYFLY_TRY(std::move(spawned));
  live.report = std::move(report.read);
  live.handed_out.output = std::move(output.read);
  live.handed_out.framed_log = std::move(framed.read);
  live.handed_out.control_in = std::move(to_server.read);
  live.handed_out.control_out = std::move(to_main.write);
  live.handed_out.companion_output = std::move(companions.output.read);
  watch(live.report.get(), Source::kReport, live.id);
  if (!live.companions.empty()) watch(live.status.get(), Source::kStatus, live.id);
  watch(live.init_pidfd.get(), Source::kInit, live.id);
  if (live.group.oom_event) watch(live.group.oom_event.get(), Source::kOutOfMemory, live.id);
  return {};
}

Result<Service::Companions> Service::prepare_companions(const SandboxSpec& spec, Live& live) const {
  Companions made;
  if (spec.companions.empty()) return made;
  MAYFLY_ASSIGN(made.output, make_pipe());
  if (privileged_ && fchown(made.output.write.get(), live.user, live.user) != 0)
    return errno_error("give the companions' output pipe to the sandbox", errno);
  int gate[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gate) != 0) return errno_error("make a socket pair", errno);
  live.handed_out.gate = UniqueFd(gate[0]);
  made.gate = UniqueFd(gate[1]);
  return made;
}

Result<void> Service::spawn(const ChildPlan& plan, Live& live) {
  int pidfd = -1;
  clone_args args{};
  args.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PIDFD;
  args.pidfd = reinterpret_cast<std::uintptr_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  if (live.group.into) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<std::uint64_t>(live.group.into.get());
  }
  const long pid = syscall(SYS_clone3, &args, sizeof args);
  if (pid == 0) run_child(plan);
  if (pid < 0) return errno_error("make the sandbox's namespaces", errno);
  live.init = static_cast<pid_t>(pid);
  live.init_pidfd = UniqueFd(pidfd);
  return {};
}

void Service::kill(Live& live) {
  if (live.group.thaw) (void)!pwrite(live.group.thaw.get(), "THAWED", 6, 0);  // a frozen v1 group dies only after thawing
  signal_through(live.init_pidfd, SIGKILL);                                   // and with it its whole pid namespace
}

void Service::signal_main(SandboxId id, int signal) {
  const auto found = live_.find(id);
  if (found != live_.end()) signal_through(found->second->main_pidfd, signal);
}

// ---- events of sandboxes

// Why execve refused a program that the function brought, in words that say what to change.
std::string cannot_execute(const std::string& program, int error) {
  const std::string what = "fork/exec " + program + ": ";
  if (error == ENOENT)
    return what + "no such file or directory: its interpreter (the first line) is missing, or the file has Windows line ends";
  if (error == EACCES) return what + "permission denied; make it executable (chmod +x)";
  if (error == ENOEXEC) {
    utsname machine{};
    (void)uname(&machine);
    return what + "exec format error: it is not a program for " + machine.machine + ", nor a script whose first line names its interpreter";
  }
  return errno_error("fork/exec " + program, error).message();
}

Error Service::explain(const Live& live, const StepFailure& failure) const {
  std::string what = step_name(failure.step);
  const auto index = static_cast<std::size_t>(failure.argument);
  if (failure.step == Step::kMount && index < live.mounts.size()) what += " /" + live.mounts[index].target;
  if (failure.step == Step::kProtectProc && index < roots_->proc_masks().size())
    what += std::string(" /") + roots_->proc_masks()[index].path;
  const Error cause = errno_error(what, failure.error);
  // What the function brought cannot be run: its fault, under the name Lambda gives it.
  const bool missing = failure.error == ENOENT || failure.error == EACCES || failure.error == ENOEXEC || failure.error == ENOTDIR ||
                       failure.error == ELOOP || failure.error == EISDIR;
  if (failure.step == Step::kExec && index > 0 && index <= live.companions.size())
    return {ErrorCode::kFunctionFailed, cannot_execute(live.companions[index - 1], failure.error), "Extension.LaunchError"};
  if (failure.step == Step::kExec && missing)
    return {ErrorCode::kFunctionFailed, cannot_execute(live.program, failure.error), "Runtime.InvalidEntrypoint"};
  if (failure.step == Step::kWorkingDirectory && missing) return {ErrorCode::kFunctionFailed, cause.message(), "Runtime.InvalidWorkingDir"};
  return {cause.code() == ErrorCode::kResourceExhausted ? cause.code() : ErrorCode::kInternal, cause.message()};
}

void Service::on_report(Live& live) {
  StepFailure told;
  const ssize_t got = read(live.report.get(), &told, sizeof told);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  const bool whole = got == static_cast<ssize_t>(sizeof told);
  const bool waits = whole && told.step == Step::kNone;  // at its gate: more may follow
  if (!waits) live.report.reset();
  if (live.answered) {
    if (!whole || waits || live.failure) return;
    live.failure = explain(live, told);
    return kill(live);
  }
  live.answered = true;
  if (whole && !waits) {
    fail(live.id, explain(live, told));
    return kill(live);
  }
  live.started = true;
  live.mounts.clear();
  auto sandbox = std::make_unique<Sandbox>(std::move(live.handed_out));
  const pid_t main = main_process_of(live.init);
  if (main > 0) live.main_pidfd = pidfd_of(main);
  if (main > 0) sandbox->main_status = UniqueFd(open(("/proc/" + std::to_string(main) + "/status").c_str(), O_RDONLY | O_CLOEXEC));
  Writer out(MessageKind::kStarted);
  std::vector<int> descriptors;
  write_sandbox(out, *sandbox, descriptors);
  idle_work_due_ = true;  // only now: the next /tmp must not take the CPU from this start
  post(out.take(), std::move(sandbox), std::move(descriptors));
}

// Exit code and signal, as the events have them.
void write_end(Writer& out, std::int32_t wait_status) {
  const bool by_signal = WIFSIGNALED(wait_status);
  out.number(static_cast<std::int32_t>(by_signal ? -1 : WEXITSTATUS(wait_status)));
  out.number(static_cast<std::int32_t>(by_signal ? WTERMSIG(wait_status) : 0));
}

void Service::on_status(Live& live) {
  while (live.status) {
    if (live.report) on_report(live);  // why a program could not be executed is told before its end
    ProgramStatus ended;
    const ssize_t got = recv(live.status.get(), &ended, sizeof ended, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got != static_cast<ssize_t>(sizeof ended)) return live.status.reset();  // init is gone
    if (ended.companion == 0) live.main_ended = ended.wait_status;
    if (live.companions.empty() || !live.started || live.failure) continue;
    Writer out(MessageKind::kProgramEnded);
    out.number(live.id).number(ended.companion);
    write_end(out, ended.wait_status);
    post(out.take());
  }
}

void Service::on_init_ended(Live& live) {
  constexpr int kToldMost = 16;                                        // one of each program, and that the main one waits
  for (int i = 0; live.report && i < kToldMost; ++i) on_report(live);  // a failed step is told before the end it led to
  siginfo_t info{};
  if (waitid(P_PIDFD, static_cast<id_t>(live.init_pidfd.get()), &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0) return;
  on_status(live);
  const bool started = live.started;
  const SandboxId id = live.id;
  Writer out(MessageKind::kExited);
  out.number(id);
  write_end(out, live.main_ended.value_or(SIGKILL));  // unknown when init was killed itself
  out.number(static_cast<std::uint8_t>(live.out_of_memory || control_value(live.group.memory_events.get(), "oom_kill") > 0));
  out.number(static_cast<std::uint8_t>(live.killed)).number(static_cast<std::uint8_t>(live.failure.has_value()));
  if (live.failure) out.error(*live.failure);
  if (started) post(out.take());
  release(live);
  live_.erase(id);
  for (auto code = code_to_remove_.begin(); code != code_to_remove_.end();) {
    if (in_use(*code)) {
      ++code;
      continue;
    }
    const std::string free = *code;
    code = code_to_remove_.erase(code);
    remove_code(free);
  }
}

// Gives back everything a sandbox had; its processes are gone or were never there.
void Service::release(Live& live) {
  network_->remove(live.id);
  live.mounts.clear();
  scratch_->discard(live.tmp);
  live.group = Cgroup{};
  live.handed_out = Sandbox{};
  if (!groups_->remove(live.id)) groups_to_remove_.emplace(live.id, 0);
  if (!privileged_ || live.user == 0) return;
  roots_->forget_user(live.user);
  users_.erase(live.user);
}

void Service::fail(SandboxId id, const Error& error) {
  Writer out(MessageKind::kFailed);
  out.number(id).error(Error(error).with_context("the sandbox could not be started"));
  post(out.take());
}

// ---- archives

bool Service::in_use(const std::string& code_id) const {
  for (const auto& [id, live] : live_) {
    if (std::ranges::find(live->code, code_id) != live->code.end()) return true;
  }
  return false;
}

void Service::unpack(Reader& in, Packet& packet) {
  UnpackRequest request{.request = in.number<std::uint64_t>(), .code_id = in.text(), .limits = read_limits(in)};
  if (!in.complete() || packet.descriptors.size() != 1) {
    return answer_unpack(request.request, Error(ErrorCode::kInvalidArgument, "the request to unpack is damaged"));
  }
  auto begun = archives_->unpack(request, packet.descriptors.front());
  if (!begun.ok()) return answer_unpack(request.request, std::move(begun).error());
}

void Service::on_job(std::uint64_t id) {
  if (auto done = archives_->finish(id)) answer_unpack(done->request, std::move(done->bytes));
}

void Service::answer_unpack(std::uint64_t request, const Result<std::uint64_t>& result) {
  Writer out(MessageKind::kUnpacked);
  out.number(request).number(static_cast<std::uint8_t>(result.ok()));
  if (result.ok())
    out.number(*result);
  else
    out.error(result.error());
  post(out.take());
}

void Service::remove_code(const std::string& code_id) {
  if (!is_code_id(code_id)) return;
  if (in_use(code_id))
    code_to_remove_.insert(code_id);
  else
    archives_->remove(code_id);
}

// ---- answers

void Service::post(std::string bytes, std::unique_ptr<Sandbox> sandbox, std::vector<int> descriptors) {
  outbox_.push_back({.bytes = std::move(bytes), .sandbox = std::move(sandbox), .descriptors = std::move(descriptors)});
  flush();
}

// The queue holds at most one answer for each sandbox and job plus their ends: bounded by what the server asked for.
void Service::flush() {
  while (!outbox_.empty()) {
    auto sent = send_packet(socket_.get(), outbox_.front().bytes, outbox_.front().descriptors, MSG_DONTWAIT);
    if (!sent.ok()) {
      outbox_.clear();  // the loop sees the closed socket
      return;
    }
    if (!*sent) break;
    outbox_.pop_front();
  }
  if (outbox_.empty() == !outbox_waits_) return;
  outbox_waits_ = !outbox_.empty();
  watch(socket_.get(), Source::kServer, 0, outbox_waits_ ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

// ---- the end

void Service::end() {
  socket_.reset();
  outbox_.clear();
  for (auto& [id, live] : live_) {
    live->answered = true;
    kill(*live);
  }
  const auto until = std::chrono::steady_clock::now() + kEndPatience;
  for (auto& [id, live] : live_) {
    siginfo_t info{};
    while (waitid(P_PIDFD, static_cast<id_t>(live->init_pidfd.get()), &info, WEXITED) != 0 && errno == EINTR) {
    }
    release(*live);
  }
  live_.clear();
  archives_.reset();
  scratch_.reset();
  while (!groups_to_remove_.empty() && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::chrono::milliseconds(kRetryMs));
    retry_groups();
  }
  if (network_) network_->remove_all();
  if (groups_) groups_->remove_all();
  if (work_.empty()) return;
  (void)umount2(work_.c_str(), MNT_DETACH);
  (void)rmdir(work_.c_str());
}

// ---- the process

void ignore_signal(int) {}

// The server decides when the launcher ends, not the terminal or the service manager. Handlers, not SIG_IGN: exec resets them.
void arrange_signals() {
  for (int number = 1; number < NSIG; ++number) (void)signal(number, SIG_DFL);
  struct sigaction nothing{};
  nothing.sa_handler = ignore_signal;
  nothing.sa_flags = SA_RESTART;
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2, SIGTSTP})
    (void)sigaction(number, &nothing, nullptr);
  sigset_t none;
  sigemptyset(&none);
  (void)sigprocmask(SIG_SETMASK, &none, nullptr);
}

// Keeps standard error for the log; every other descriptor of the server goes.
UniqueFd keep_socket_only(UniqueFd socket) {
  const int null = open("/dev/null", O_RDWR);
  if (null >= 0) {
    (void)dup2(null, 0);
    (void)dup2(null, 1);
  }
  constexpr int kSocket = 3;
  if (socket.get() == kSocket) {
    (void)close_range(kSocket + 1, ~0U, 0);
    return socket;
  }
  (void)dup3(socket.get(), kSocket, O_CLOEXEC);
  (void)socket.release();
  (void)close_range(kSocket + 1, ~0U, 0);
  return UniqueFd(kSocket);
}

}  // namespace

void run_service(const LauncherConfig& config, UniqueFd socket) {
  (void)setsid();
  arrange_signals();
  set_process_title();
  UniqueFd kept = keep_socket_only(std::move(socket));
  base::raise_descriptor_limit();
  umask(0022);
  (void)chdir("/");
  const int peer = kept.get();
  Service service(config, std::move(kept));
  if (auto ready = service.prepare(); !ready.ok()) {
    Writer out(MessageKind::kHelloFailed);
    out.error(ready.error());
    (void)send_packet(peer, out.take(), {}, 0);
    service.end();
    _exit(1);
  }
  service.greet();
  service.run();
  service.end();
  _exit(0);
}

}  // namespace mayfly::sandbox::internal
