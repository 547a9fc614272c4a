#include "sandbox/internal/service.h"

#include <fcntl.h>
#include <poll.h>
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
#include "base/memory_return.h"
#include "sandbox/internal/archives.h"
#include "sandbox/internal/cgroups.h"
#include "sandbox/internal/filters.h"
#include "sandbox/internal/network.h"
#include "sandbox/internal/process_title.h"
#include "sandbox/internal/processes.h"
#include "sandbox/internal/protocol.h"
#include "sandbox/internal/roots.h"
#include "sandbox/internal/warden_process.h"
#include "sandbox/internal/workshop.h"
#include "sandbox/internal/zygote_process.h"

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
constexpr int kRetryMs = 10;
constexpr int kWatchMs = 200;  // how often memory is compared where /tmp is charged to the same group
constexpr auto kPredecessorPatience = std::chrono::seconds(10);

using Clock = std::chrono::steady_clock;

// What an epoll event is about: kind in the upper byte, number of the sandbox or job below.
enum class Source : std::uint8_t { kServer, kReport, kStatus, kInit, kOutOfMemory, kJob, kWorkshop, kOrders, kZygote };
std::uint64_t event_key(Source source, std::uint64_t id) { return (static_cast<std::uint64_t>(source) << 56U) | id; }

// A sandbox from the order to the workshop to its end.
struct Live {
  enum class State : std::uint8_t {
    kOrdered,   // the workshop is to make it
    kMade,      // its processes are on their way
    kBlank,     // they wait
    kStarting,  // it belongs to a specification; the main process has its orders
    kAnswered,  // kStarted or kFailed was sent
  };
  std::uint64_t number = 0;  // what the launcher's processes call it; the server's id comes with the specification
  State state = State::kOrdered;
  SandboxShape shape;
  std::uint32_t user = 0;
  pid_t init = -1;
  UniqueFd init_pidfd, main_pidfd;
  UniqueFd report;       // step failures; its end means that the program runs
  UniqueFd status;       // how its programs ended
  UniqueFd orders;       // to the main process, until it has them, or until another one has taken its place
  UniqueFd mounts;       // its mount namespace, until code is in it
  bool stem = false;     // without code so far
  SandboxId zygote = 0;  // of which its main process is to be forked
  bool init_waits = false, main_waits = false;
  Cgroup group;
  Sandbox handed_out;  // descriptors until they are sent

  SandboxId id = 0;
  std::string program;  // the first of its arguments
  std::vector<std::string> companions;
  std::optional<std::int32_t> main_ended;  // its wait status
  std::optional<Error> failure;            // of a program that could not be executed after all was told to be well
  std::vector<std::string> code;
  std::uint64_t memory_bytes = 0;
  std::uint32_t files_max = 0, processes_max = 0;
  bool started = false;
  bool killed = false;  // because the server asked
  bool out_of_memory = false;
};

// Blank sandboxes of one shape, and who waits for one.
struct Pool {
  std::deque<std::uint64_t> blank;   // ready, the oldest first
  std::deque<SandboxSpec> waiting;   // first come, first served
  std::size_t coming = 0;            // ordered or on their way
  std::size_t wanted = 0;            // how many are to be ready when nothing happens
  std::size_t used = 0, missed = 0;  // starts since wanted was looked at last, and those that had to wait
  Clock::time_point last_used;
};

// How many blanks are kept: enough that starts at the present pace find one, few where little happens.
constexpr std::size_t kWantedLeast = 2;  // of a shape in use
constexpr std::size_t kWantedMost = 16;
constexpr std::size_t kComingMost = 4;                          // of those that nobody waits for yet
constexpr auto kRefillPause = std::chrono::milliseconds(3);     // after a start, which has the CPU first
constexpr auto kUnpackerPause = std::chrono::milliseconds(30);  // after an archive; its function's first call is likely to follow
constexpr auto kPoolReview = std::chrono::seconds(5);
constexpr auto kPoolRest = std::chrono::minutes(10);  // unused for so long, a shape keeps none
constexpr std::size_t kPoolsMost = 64;

struct Outgoing {
  std::string bytes;
  std::unique_ptr<Sandbox> sandbox;  // owner of `descriptors`
  std::vector<int> descriptors;
};

struct Zygote {
  SandboxId id = 0;
  ZygoteProcess process;
  bool ready = false;
  std::map<std::uint64_t, Clock::time_point> unanswered = {};  // sandboxes by number, and since when they wait for their main process
};

// A zygote that has not answered for so long hangs; nor is one waited for that has not come up by then.
constexpr auto kZygotePatience = std::chrono::seconds(5);
constexpr std::size_t kZygotesMost = 16;
// An interpreter with its modules has 20 to 40 MiB; a child counts as one of its processes until it has joined its sandbox's groups.
constexpr CgroupLimits kZygoteLimits{.memory_bytes = 256ULL << 20U, .cpu_milli = 4000, .processes_max = 64};

class Service {
 public:
  Service(const LauncherConfig& config, UniqueFd socket) : config_(config), socket_(std::move(socket)) {}

  Result<void> prepare();
  void greet();
  void order_expected();
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
  [[nodiscard]] SandboxShape shape_of(const SandboxSpec& spec) const;
  void start_in(Live& live, SandboxSpec spec);
  Result<void> specialise(Live& live, const SandboxSpec& spec);
  Result<void> mount_code(Live& live, const std::string& code_id, const std::vector<std::string>& layer_ids);
  static void keep_main(Live& live, Child which);
  struct Companions {
    Pipe output;
    UniqueFd gate;  // the main process's end
  };
  Result<Companions> prepare_companions(const SandboxSpec& spec, Live& live) const;
  Result<void> give_orders(Live& live, const SandboxSpec& spec);
  void specialise(Reader& in);
  Result<void> make_one_of(Live& live, const Specialisation& specialisation);
  void kill(Live& live);
  bool withdraw(SandboxId id);
  void signal_main(SandboxId id, int signal);
  void unpack(Reader& in, Packet& packet);
  void answer_unpack(std::uint64_t request, const Result<std::uint64_t>& result);
  void remove_code(const std::string& code_id);

  // zygotes
  void start_zygote(Reader& in);
  Result<void> ask_for_place(Live& live) const;
  void on_place(Live& live);
  Result<void> order_child(Live& live, std::vector<UniqueFd> descriptors);
  void on_zygote(std::uint64_t number);
  void on_child(std::uint64_t number, const Forked& forked);
  void end_zygote(std::uint64_t number, const Error& why);
  bool kill_zygote(SandboxId id);
  void review_zygotes();

  // blank sandboxes
  void order(const SandboxShape& shape, Pool& pool);
  void order_awaited();
  void refill();
  void review_pools();
  void on_made(Workshop::Made made);
  void on_blank(Live& live);
  void on_spoilt(Live& live, const Error& error);
  void take_out(Live& live);

  // events
  void on_report(Live& live);
  void on_running(Live& live);
  void on_status(Live& live);
  void on_init_ended(Live& live);
  void on_job(std::uint64_t id);
  void review_unpacker();
  void on_workshop();
  void watch_memory();
  [[nodiscard]] int patience() const;

  void release(Live& live);
  void fail(SandboxId id, const Error& error);
  void fail(Live& live, const Error& error);
  [[nodiscard]] Error explain(const Live& live, const StepFailure& failure) const;
  void watch(int fd, Source source, std::uint64_t id, std::uint32_t events = EPOLLIN) const;
  void post(std::string bytes, std::unique_ptr<Sandbox> sandbox = nullptr, std::vector<int> descriptors = {});
  void flush();
  Live* find(SandboxId id) const;
  [[nodiscard]] bool in_use(const std::string& code_id) const;

  const LauncherConfig& config_;
  UniqueFd socket_, epoll_, null_, code_;
  UniqueFd lock_;  // held while anything of this instance may be changed
  bool privileged_ = false;
  std::string work_;
  HostCapabilities host_;
  Filter function_filter_, init_filter_, zygote_filter_;
  std::unique_ptr<NetworkBuilder> network_;
  std::unique_ptr<Cgroups> groups_;
  std::unique_ptr<Roots> roots_;
  std::optional<Warden> warden_;
  std::unique_ptr<Workshop> workshop_;
  std::unique_ptr<Archives> archives_;
  UniqueFd mounts_, root_;                              // the launcher's own mount namespace and root: the way back
  std::map<std::uint64_t, std::unique_ptr<Live>> all_;  // by number
  std::map<SandboxId, std::uint64_t> numbers_;          // of those that belong to a specification
  std::map<SandboxShape, Pool> pools_;
  std::optional<ZygoteRuntime> zygote_runtime_;
  std::map<std::uint64_t, Zygote> zygotes_;  // by number
  std::uint64_t next_number_ = 1;
  std::size_t unanswered_ = 0;  // orders to the workshop
  Clock::time_point last_start_, last_review_;
  Clock::time_point last_unpack_;
  bool unpacker_due_ = false;
  std::set<std::string> code_to_remove_;  // while a sandbox still uses it
  std::deque<Outgoing> outbox_;
  bool refill_due_ = false;
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
  host_.zygotes = zygote_runtime_.has_value();
  if (!privileged_ && !config_.zygote_files.empty())
    host_.notes.emplace_back("Python environments start anew each time instead of being forked from a zygote: that takes root.");
  groups_->describe(host_);
  if (!config_.cpu_quota) host_.cpu_quota = false;
  host_.disk_tmp = workshop_->disk_tmp();
  if (!host_.disk_tmp) host_.notes.push_back(workshop_->why_not_disk());
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
          [this](int fd, std::uint64_t job) { watch(fd, Source::kJob, job); }));
  archives_->remove_leftovers();
  MAYFLY_ASSIGN(roots_, Roots::create(config_, work_, privileged_));
  MAYFLY_ASSIGN(function_filter_, function_filter());
  MAYFLY_ASSIGN(init_filter_, init_filter());
  MAYFLY_ASSIGN(zygote_filter_, zygote_filter());
  // A filter that was cut off would allow what it should refuse.
  MAYFLY_ASSERT(function_filter_.size() <= BlankPlan::kFilterMax && function_filter_.size() <= ForkOrder::kFilterMax &&
                    init_filter_.size() <= BlankPlan::kInitFilterMax,
                "a system call filter is longer than what carries it");
  if (privileged_ && !config_.zygote_files.empty()) {
    MAYFLY_ASSIGN(zygote_runtime_, ZygoteRuntime::write(work_ + "/zygote", config_.zygote_files).with_context("files of zygotes"));
  }
  MAYFLY_ASSIGN(mounts_, base::open_file("/proc/self/ns/mnt", O_RDONLY));
  MAYFLY_ASSIGN(root_, base::open_file("/", O_PATH | O_DIRECTORY));
  base::return_memory_of_start();  // before its helpers are forked, which would each get a copy
  MAYFLY_ASSIGN(warden_, Warden::start());
  MAYFLY_ASSIGN(workshop_, Workshop::open({.config = config_,
                                           .privileged = privileged_,
                                           .network = *network_,
                                           .groups = *groups_,
                                           .roots = *roots_,
                                           .warden = *warden_,
                                           .function_filter = function_filter_,
                                           .init_filter = init_filter_,
                                           .null = null_.get(),
                                           .fail_at = fail_step_for_test,
                                           .launchers_own = {socket_.get(), epoll_.get(), code_.get()}}));
  describe();
  watch(socket_.get(), Source::kServer, 0);
  watch(workshop_->fd(), Source::kWorkshop, 0);
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
  using std::chrono::milliseconds;
  milliseconds wait = milliseconds::max();
  const auto now = Clock::now();
  const auto until = [&](Clock::time_point time) {
    wait = std::min(wait, std::max(milliseconds(0), std::chrono::ceil<milliseconds>(time - now)));
  };
  if (refill_due_) until(last_start_ + kRefillPause);
  if (unpacker_due_) until(last_unpack_ + kUnpackerPause);
  if (archives_->is_ready()) until(last_unpack_ + kPoolRest);
  if (const auto due = archives_->next_due(); due != Clock::time_point::max()) until(due);
  if (std::ranges::any_of(pools_, [](const auto& entry) { return entry.second.wanted > kWantedLeast || entry.second.used > 0; }))
    until(last_review_ + kPoolReview);
  for (const auto& [number, zygote] : zygotes_) {
    for (const auto& [child, since] : zygote.unanswered) until(since + kZygotePatience);
  }
  if (!host_.disk_tmp && host_.memory_limit && !numbers_.empty()) wait = std::min(wait, milliseconds(kWatchMs));
  if (wait == milliseconds::max()) return pools_.empty() ? -1 : static_cast<int>(milliseconds(kPoolRest).count());
  return static_cast<int>(wait.count());
}

void Service::run() {
  std::array<epoll_event, 64> events{};
  while (!server_gone_) {
    const int ready = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), patience());
    if (ready < 0 && errno != EINTR) return;
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
      if (source == Source::kWorkshop) on_workshop();
      if (source == Source::kZygote) on_zygote(id);
      const auto found = all_.find(id);
      if (found == all_.end()) continue;
      Live& live = *found->second;
      if (source == Source::kReport) on_report(live);
      if (source == Source::kStatus) on_status(live);
      if (source == Source::kOrders) on_place(live);
      if (source == Source::kInit) on_init_ended(live);
      if (source == Source::kOutOfMemory) {
        std::uint64_t count = 0;
        (void)!read(live.group.oom_event.get(), &count, sizeof count);
        live.out_of_memory = true;
        kill(live);
      }
    }
    review_unpacker();
    if (!pools_.empty()) review_pools();
    if (!zygotes_.empty()) review_zygotes();
    if (refill_due_ && Clock::now() >= last_start_ + kRefillPause) refill();
    if (!host_.disk_tmp) watch_memory();
  }
}

// Where /tmp is a tmpfs, the group's limit includes it; what the processes themselves hold is compared here.
void Service::watch_memory() {
  if (!host_.memory_limit) return;
  for (auto& [number, live] : all_) {
    if (live->id == 0) continue;
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
      const auto id = in.number<SandboxId>();
      Live* live = find(id);
      if (live == nullptr) return (void)(kill_zygote(id) || withdraw(id));
      live->killed = true;
      return kill(*live);
    }
    case MessageKind::kTerminate:
      return signal_main(in.number<SandboxId>(), SIGTERM);
    case MessageKind::kKillMain:
      return signal_main(in.number<SandboxId>(), SIGKILL);
    case MessageKind::kSpecialise:
      return specialise(in);
    case MessageKind::kStartZygote:
      return start_zygote(in);
    case MessageKind::kUnpack:
      return unpack(in, packet);
    case MessageKind::kRemoveCode:
      return remove_code(in.text());
    default:
      base::log_error("the sandbox launcher was sent something that makes no sense");
  }
}

Live* Service::find(SandboxId id) const {
  const auto number = numbers_.find(id);
  return number == numbers_.end() ? nullptr : all_.at(number->second).get();
}

Result<void> Service::check(const SandboxSpec& spec) const {
  MAYFLY_TRY(check_spec(spec));
  MAYFLY_TRY(roots_->check(spec.root_id));
  const bool waits = std::ranges::any_of(pools_, [&](const auto& entry) {
    return std::ranges::any_of(entry.second.waiting, [&](const SandboxSpec& other) { return other.id == spec.id; });
  });
  if (waits || numbers_.contains(spec.id))
    return Error(ErrorCode::kAlreadyExists, "sandbox " + std::to_string(spec.id) + " exists already");
  return {};
}

SandboxShape Service::shape_of(const SandboxSpec& spec) const {
  // Without NAT a sandbox has its own loopback only; describe() says so.
  return {.root_id = spec.root_id,
          .network = host_.outside_network ? spec.network : Network::kNone,
          .tmp_bytes = spec.tmp_bytes,
          .connectors = spec.connectors};
}

void wipe_environment(SandboxSpec& spec) {
  for (auto& variable : spec.environment) wipe(variable);
}

void Service::start(Reader& in) {
  SandboxSpec spec = read_spec(in);
  auto ready = in.complete() ? check(spec) : Result<void>(Error(ErrorCode::kInvalidArgument, "the specification is damaged"));
  if (!ready.ok()) return fail(spec.id, ready.error());
  last_start_ = Clock::now();
  refill_due_ = true;
  Pool& pool = pools_[shape_of(spec)];
  pool.last_used = last_start_;
  ++pool.used;
  if (!pool.blank.empty()) {
    Live& live = *all_.at(pool.blank.front());
    pool.blank.pop_front();
    return start_in(live, std::move(spec));
  }
  ++pool.missed;
  pool.waiting.push_back(std::move(spec));
  order_awaited();
}

void Service::start_in(Live& live, SandboxSpec spec) {
  live.id = spec.id;
  live.state = Live::State::kStarting;
  numbers_.emplace(spec.id, live.number);
  auto done = specialise(live, spec);
  wipe_environment(spec);
  if (!done.ok()) fail(live, done.error());
}

Result<void> Service::specialise(Live& live, const SandboxSpec& spec) {
  live.memory_bytes = spec.memory_bytes;
  live.program = spec.arguments.front();
  live.companions = spec.companions;
  live.files_max = spec.files_max;
  live.processes_max = spec.processes_max;
  live.stem = spec.stem;
  live.zygote = spec.zygote;
  Sandbox& sandbox = live.handed_out;
  sandbox.id = spec.id;
  sandbox.cpu_milli = spec.cpu_milli;
  if (!config_.cpu_quota) sandbox.cpu_quota_file.reset();
  const CgroupLimits limits{.memory_bytes = spec.memory_bytes + (host_.disk_tmp ? 0 : spec.tmp_bytes),
                            .cpu_milli = spec.cpu_milli,
                            .processes_max = spec.processes_max};
  MAYFLY_TRY(groups_->limit(live.group, limits));
  if (live.group.memory_stat) {  // read by both
    MAYFLY_ASSIGN(sandbox.memory_events, live.group.memory_events.duplicate());
    MAYFLY_ASSIGN(sandbox.memory_stat, live.group.memory_stat.duplicate());
  }
  if (!spec.stem) {
    for (UniqueFd* directory : {&live.group.memory, &live.group.cpu, &live.group.pids}) directory->reset();
    MAYFLY_TRY(mount_code(live, spec.code_id, spec.layer_ids));
  }
  if (spec.zygote != 0) return ask_for_place(live);
  return give_orders(live, spec);
}

// A stem becomes a function's: nothing of one has run in it so far.
void Service::specialise(Reader& in) {
  const Specialisation wanted = read_specialisation(in);
  auto ready = in.complete() ? check_specialisation(wanted) : Result<void>(Error(ErrorCode::kInvalidArgument, "the request is damaged"));
  if (!ready.ok()) return fail(wanted.id, ready.error());
  Live* live = find(wanted.stem);
  if (live == nullptr || !live->stem || !live->started || live->killed)
    return fail(wanted.id, Error(ErrorCode::kNotFound, "there is no stem " + std::to_string(wanted.stem) + " any more"));
  if (find(wanted.id) != nullptr)
    return fail(wanted.id, Error(ErrorCode::kAlreadyExists, "sandbox " + std::to_string(wanted.id) + " exists already"));
  if (const auto done = make_one_of(*live, wanted); !done.ok()) {
    fail(wanted.id, done.error());
    return kill(*live);
  }
  numbers_.erase(live->id);
  live->id = wanted.id;
  numbers_.emplace(live->id, live->number);
  Writer out(MessageKind::kSpecialised);
  post(out.number(live->id).number(wanted.cpu_milli).take());
}

Result<void> Service::make_one_of(Live& live, const Specialisation& wanted) {
  live.stem = false;
  live.memory_bytes = wanted.memory_bytes;
  const CgroupLimits limits{.memory_bytes = wanted.memory_bytes + (host_.disk_tmp ? 0 : live.shape.tmp_bytes),
                            .cpu_milli = wanted.cpu_milli,
                            .processes_max = live.processes_max};
  MAYFLY_TRY(groups_->limit(live.group, limits));
  for (UniqueFd* directory : {&live.group.memory, &live.group.cpu, &live.group.pids}) directory->reset();
  return mount_code(live, wanted.code_id, wanted.layer_ids);
}

// From outside, by going into its mount namespace for a moment: nothing of a function runs there yet, and inside nobody has the
// privilege any more.
Result<void> Service::mount_code(Live& live, const std::string& code_id, const std::vector<std::string>& layer_ids) {
  live.code = layer_ids;
  live.code.push_back(code_id);
  const auto open_code = [&](const std::string& id) -> Result<UniqueFd> {
    auto directory = base::open_beneath(code_.get(), id, O_PATH | O_DIRECTORY | O_NOFOLLOW);
    if (directory.ok() || directory.error().code() != ErrorCode::kNotFound) return directory;
    return Error(ErrorCode::kNotFound, "code " + id + " is not unpacked on this machine");
  };
  MAYFLY_ASSIGN(const UniqueFd task, open_code(code_id));
  std::vector<std::string> layers;
  for (const auto& id : layer_ids) {
    MAYFLY_ASSIGN(const UniqueFd layer, open_code(id));
    layers.push_back(config_.code_directory + "/" + id);
  }
  MAYFLY_ASSIGN(std::vector<ReadyMount> mounts, roots_->layer_mounts(live.shape.root_id, layers));
  MAYFLY_ASSIGN(UniqueFd code, read_only_bind(task.get(), "", false));
  mounts.push_back({.mount = std::move(code), .target = "var/task"});
  if (setns(live.mounts.get(), CLONE_NEWNS) != 0) return errno_error("enter the sandbox's mounts", errno);
  Result<void> done;
  for (const auto& mount : mounts) {
    if (done.ok() && move_mount(mount.mount.get(), "", AT_FDCWD, mount.target.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0)
      done = errno_error("mount /" + mount.target, errno);
  }
  // Staying would give later work to the wrong file systems: nothing sensible can follow.
  MAYFLY_ASSERT(setns(mounts_.get(), CLONE_NEWNS) == 0 && fchdir(root_.get()) == 0 && chroot(".") == 0,
                "cannot return to the launcher's mounts");
  live.mounts.reset();
  return done;
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

// As warden/plan.h has them.
std::string write_orders(const SandboxSpec& spec, std::uint32_t processes_max) {
  constexpr std::array<std::string_view, 2> kOwnVariables = {"_LAMBDA_TELEMETRY_LOG_FD=3", "_MAYFLY_CONTROL_FDS=4,5"};
  Orders orders{.files_max = spec.files_max,
                .processes_max = processes_max,
                .arguments = static_cast<std::uint32_t>(spec.arguments.size()),
                .variables = static_cast<std::uint32_t>(spec.environment.size() + kOwnVariables.size()),
                .companions = static_cast<std::uint32_t>(spec.companions.size())};
  std::string text(reinterpret_cast<const char*>(&orders), sizeof orders);
  text.reserve(Orders::kBytesMax);  // so that no copy of the variables is left behind
  for (const auto& variable : spec.environment) {
    const auto name = std::string_view(variable).substr(0, variable.find('='));
    text += static_cast<char>(std::ranges::find(spec.companions_lack, name) == spec.companions_lack.end());
  }
  text += '\1';  // the framed log's name is told, as it always was; the control pipes' is not
  text += '\0';
  const auto add = [&text](std::string_view one) { text.append(one).append(1, '\0'); };
  add(spec.working_directory);
  for (const auto& argument : spec.arguments) add(argument);
  for (const auto& variable : spec.environment) add(variable);
  for (const auto variable : kOwnVariables) add(variable);
  for (const auto& companion : spec.companions) add(companion);
  return text;
}

Result<void> Service::give_orders(Live& live, const SandboxSpec& spec) {
  MAYFLY_ASSIGN(Companions companions, prepare_companions(spec, live));
  std::vector<int> descriptors;
  if (!live.companions.empty()) {
    const Roll roll{.companions = static_cast<std::uint32_t>(live.companions.size())};
    MAYFLY_TRY(base::write_all(live.status.get(), {reinterpret_cast<const char*>(&roll), sizeof roll}).with_context("tell init"));
    descriptors = {companions.output.write.get(), companions.gate.get()};
    live.handed_out.companion_output = std::move(companions.output.read);
    watch(live.status.get(), Source::kStatus, live.number);
  }
  std::string orders = write_orders(spec, privileged_ ? spec.processes_max : 0);
  auto sent = send_packet(live.orders.get(), orders, descriptors, MSG_DONTWAIT);
  wipe(orders);
  live.orders.reset();
  if (!sent.ok() || !*sent) return Error(ErrorCode::kInternal, "the sandbox's main process takes no orders");
  return {};
}

// ---- zygotes

void Service::start_zygote(Reader& in) {
  const ZygoteSpec spec = read_zygote(in);
  auto ready = in.complete() ? check_zygote(spec) : Result<void>(Error(ErrorCode::kInvalidArgument, "the request is damaged"));
  if (ready.ok() && !zygote_runtime_) ready = Error(ErrorCode::kUnsupported, "this launcher has no zygotes");
  if (ready.ok() && std::ranges::find(config_.zygote_programs, spec.program) == config_.zygote_programs.end()) {
    ready = Error(ErrorCode::kPermissionDenied,
                  spec.program.arguments.front() + " with these arguments and variables is none of the programs that may become a zygote");
  }
  if (ready.ok() && zygotes_.size() >= kZygotesMost) ready = Error(ErrorCode::kResourceExhausted, "there are 16 zygotes already");
  if (!ready.ok()) return fail(spec.id, ready.error());
  // Of its own: what it holds counts against nobody else, and what it may hold is bounded.
  const std::uint64_t number = next_number_++;
  Sandbox nobody;
  auto group = groups_->make(number, nobody);
  auto limited = group.ok() ? groups_->limit(*group, kZygoteLimits) : Result<void>(group.error());
  if (!limited.ok()) {
    workshop_->discard(number);
    return fail(spec.id, limited.error());
  }
  auto started = ZygoteProcess::start({.root_id = spec.program.root_id,
                                       .arguments = spec.program.arguments,
                                       .environment = spec.program.environment,
                                       .user = config_.uid_base + config_.uid_count - 1,
                                       .group = config_.uid_base + config_.uid_count - 1},
                                      *group, *roots_, *zygote_runtime_, zygote_filter_);
  if (!started.ok()) {
    workshop_->discard(number);
    return fail(spec.id, started.error());
  }
  watch(started->fd(), Source::kZygote, number);
  zygotes_.emplace(number, Zygote{.id = spec.id, .process = std::move(*started)});
  zygotes_.at(number).unanswered.emplace(0, Clock::now());  // it says that it is ready
}

// The main process of the blank hands over what it has, and ends when its socket does.
Result<void> Service::ask_for_place(Live& live) const {
  const Orders orders{.stand_aside = 1};
  MAYFLY_ASSIGN(const bool sent, send_packet(live.orders.get(), {reinterpret_cast<const char*>(&orders), sizeof orders}, {}, MSG_DONTWAIT));
  if (!sent) return Error(ErrorCode::kInternal, "the sandbox's main process takes no orders");
  watch(live.orders.get(), Source::kOrders, live.number);
  return {};
}

void Service::on_place(Live& live) {
  if (!live.orders || live.state != Live::State::kStarting) return;
  auto packet = receive_packet(live.orders.get(), MSG_DONTWAIT);
  if (packet.ok() && !*packet) return;
  (void)epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, live.orders.get(), nullptr);
  auto ordered = packet.ok() ? order_child(live, std::move((*packet)->descriptors)) : Result<void>(std::move(packet).error());
  if (ordered.ok()) return;
  fail(live, ordered.error());
}

Result<void> Service::order_child(Live& live, std::vector<UniqueFd> descriptors) {
  const auto zygote = std::ranges::find_if(zygotes_, [&](const auto& entry) { return entry.second.id == live.zygote; });
  if (zygote == zygotes_.end() || !zygote->second.ready) return Error(ErrorCode::kUnavailable, "the zygote has ended");
  if (descriptors.size() != kForkFixed) return Error(ErrorCode::kInternal, "the sandbox's main process did not hand over what it has");
  MAYFLY_ASSIGN(auto doors, groups_->doors(live.number));
  if (doors.size() > ForkOrder::kAttachMax) return Error(ErrorCode::kInternal, "there are more control groups than a zygote joins");
  std::vector<int> all;
  for (const auto& each : descriptors) all.push_back(each.get());
  for (const auto& door : doors) all.push_back(door.get());
  auto order = std::make_unique<ForkOrder>();
  order->sandbox = live.number;
  order->user = order->group = live.user;
  order->files_max = live.files_max;
  order->processes_max = live.processes_max;
  order->attach_count = static_cast<std::uint32_t>(doors.size());
  order->filter_length = static_cast<std::uint32_t>(function_filter_.size());
  std::ranges::copy(function_filter_, order->filter);
  MAYFLY_TRY(zygote->second.process.order(*order, all));
  zygote->second.unanswered.emplace(live.number, Clock::now());
  return {};
}

void Service::on_zygote(std::uint64_t number) {
  while (true) {
    const auto found = zygotes_.find(number);
    if (found == zygotes_.end()) return;
    auto answer = found->second.process.collect();
    if (!answer.ok()) return end_zygote(number, answer.error());
    if (!*answer) return;
    found->second.unanswered.erase((*answer)->sandbox);
    if ((*answer)->sandbox != 0) {
      on_child((*answer)->sandbox, **answer);
      continue;
    }
    found->second.ready = true;
    post(Writer(MessageKind::kZygoteReady).number(found->second.id).take());
  }
}

// Another process is the main one now; it reports by itself how it fares.
void Service::on_child(std::uint64_t number, const Forked& forked) {
  const auto found = all_.find(number);
  if (found == all_.end() || found->second->state != Live::State::kStarting) return;
  Live& live = *found->second;
  const Roll roll{.main = forked.inner};
  auto told = forked.error != 0 ? Result<void>(errno_error("fork the zygote", forked.error))
                                : base::write_all(live.status.get(), {reinterpret_cast<const char*>(&roll), sizeof roll});
  if (!told.ok()) {
    return fail(live, Error(ErrorCode::kUnavailable, told.error().message()));
  }
  keep_main(live, Child::kLast);
  live.orders.reset();
  if (!live.report) on_running(live);  // it was quicker than the zygote's answer
}

void Service::end_zygote(std::uint64_t number, const Error& why) {
  Zygote& zygote = zygotes_.at(number);
  const SandboxId id = zygote.id;
  const bool ready = zygote.ready;
  std::vector<std::uint64_t> children;
  for (const auto& [child, since] : zygote.unanswered) children.push_back(child);
  zygotes_.erase(number);
  workshop_->discard(number);
  for (const std::uint64_t child : children) {
    const auto found = all_.find(child);
    if (found == all_.end() || found->second->state != Live::State::kStarting) continue;
    fail(*found->second, Error(ErrorCode::kUnavailable, why.message()));
  }
  if (!ready) return fail(id, why);
  Writer out(MessageKind::kExited);
  out.number(id).number(std::int32_t{-1}).number(std::int32_t{SIGKILL});
  post(out.number(std::uint8_t{0}).number(std::uint8_t{1}).number(std::uint8_t{0}).take());
}

bool Service::kill_zygote(SandboxId id) {
  const auto found = std::ranges::find_if(zygotes_, [&](const auto& entry) { return entry.second.id == id; });
  if (found == zygotes_.end()) return false;
  end_zygote(found->first, Error(ErrorCode::kUnavailable, "the zygote was ended"));
  return true;
}

// One that hangs would hold up every sandbox that waits for it.
void Service::review_zygotes() {
  const auto since = Clock::now() - kZygotePatience;
  std::vector<std::uint64_t> hang;
  for (const auto& [number, zygote] : zygotes_) {
    if (std::ranges::any_of(zygote.unanswered, [&](const auto& entry) { return entry.second < since; })) hang.push_back(number);
  }
  for (const std::uint64_t number : hang) {
    base::log_warning("a zygote does not answer and is ended");
    end_zygote(number, Error(ErrorCode::kUnavailable, "the zygote does not answer"));
  }
}

// ---- blank sandboxes

void Service::order_expected() {
  for (const ExpectedSandbox& each : config_.expected) {
    if (!roots_->check(each.root_id).ok()) continue;
    const SandboxShape shape{.root_id = each.root_id,
                             .network = host_.outside_network ? each.network : Network::kNone,
                             .tmp_bytes = each.tmp_bytes,
                             .connectors = each.connectors};
    Pool& pool = pools_[shape];
    pool.last_used = Clock::now();
    pool.wanted = 1;
    order(shape, pool);
  }
}

void Service::order(const SandboxShape& shape, Pool& pool) {
  auto live = std::make_unique<Live>();
  live->number = next_number_++;
  live->shape = shape;
  workshop_->make(live->number, shape);
  ++unanswered_;
  ++pool.coming;
  all_.emplace(live->number, std::move(live));
}

void Service::order_awaited() {
  for (auto& [shape, pool] : pools_) {
    while (pool.coming < pool.waiting.size() && unanswered_ < Workshop::kOrdersMax) order(shape, pool);
  }
}

// Blanks that nobody waits for, a few at a time.
void Service::refill() {
  refill_due_ = false;
  for (auto& [shape, pool] : pools_) {
    if (pool.missed > 0) pool.wanted = std::min(kWantedMost, std::max({kWantedLeast, pool.wanted * 2, pool.missed}));
    if (pool.used > 0) pool.wanted = std::max(pool.wanted, kWantedLeast);
    pool.missed = 0;
    while (pool.blank.size() + pool.coming < pool.wanted + pool.waiting.size() && pool.coming < kComingMost &&
           unanswered_ < Workshop::kOrdersMax)
      order(shape, pool);
  }
}

// Lets pools shrink to what was used of them lately.
void Service::review_pools() {
  const auto now = Clock::now();
  if (now < last_review_ + kPoolReview) return;
  last_review_ = now;
  for (auto entry = pools_.begin(); entry != pools_.end();) {
    auto& [shape, pool] = *entry;
    if (pool.used < pool.wanted) pool.wanted = std::max(kWantedLeast, pool.wanted / 2);
    pool.used = 0;
    const bool rests = now > pool.last_used + kPoolRest || pools_.size() > kPoolsMost;
    if (rests && pool.waiting.empty()) pool.wanted = 0;
    while (pool.blank.size() > pool.wanted) {
      Live& live = *all_.at(pool.blank.front());
      take_out(live);
      kill(live);
    }
    const bool over = pool.wanted == 0 && pool.coming == 0 && pool.waiting.empty();
    entry = over ? pools_.erase(entry) : std::next(entry);
  }
}

void Service::on_workshop() {
  while (true) {
    auto made = workshop_->collect();
    if (!made.ok()) {
      base::log_error("no sandbox can be made any more", {{"what", made.error().message()}});
      server_gone_ = true;  // the server sees a launcher that ended
      return;
    }
    if (!*made) break;
    --unanswered_;
    on_made(std::move(**made));
  }
  order_awaited();
}

void Service::on_made(Workshop::Made made) {
  Live& live = *all_.at(made.number);
  if (!made.blank.ok()) {
    on_spoilt(live, made.blank.error());
    all_.erase(made.number);
    return;
  }
  Blank& blank = *made.blank;
  live.state = Live::State::kMade;
  live.user = blank.user;
  live.init = blank.init;
  live.init_pidfd = std::move(blank.init_pidfd);
  live.report = std::move(blank.report);
  live.status = std::move(blank.status);
  live.orders = std::move(blank.orders);
  live.group = std::move(blank.group);
  live.handed_out = std::move(blank.sandbox);
  watch(live.report.get(), Source::kReport, live.number);
  watch(live.status.get(), Source::kStatus, live.number);
  watch(live.init_pidfd.get(), Source::kInit, live.number);
  if (live.group.oom_event) watch(live.group.oom_event.get(), Source::kOutOfMemory, live.number);
}

void Service::keep_main(Live& live, Child which) {
  ProcessHandle main = child_of(live.init, which);
  live.main_pidfd = std::move(main.pidfd);
  live.handed_out.main_status = std::move(main.status);
}

// Both of its processes wait.
void Service::on_blank(Live& live) {
  live.state = Live::State::kBlank;
  (void)epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, live.status.get(), nullptr);  // until there are companions
  keep_main(live, Child::kFirst);
  Pool& pool = pools_[live.shape];
  --pool.coming;
  if (pool.waiting.empty()) {
    pool.blank.push_back(live.number);
    return;
  }
  SandboxSpec spec = std::move(pool.waiting.front());
  pool.waiting.pop_front();
  start_in(live, std::move(spec));
}

// It will never be blank: whoever has waited longest learns why, if anybody waits. Its processes are not looked after here.
void Service::on_spoilt(Live& live, const Error& error) {
  Pool& pool = pools_[live.shape];
  if (live.state == Live::State::kOrdered || live.state == Live::State::kMade) --pool.coming;
  live.state = Live::State::kAnswered;
  pool.wanted = pool.used = pool.missed = 0;  // none in advance before somebody asks again
  if (pool.waiting.empty()) {
    base::log_warning("a sandbox could not be made ready in advance", {{"what", error.message()}});
    return;
  }
  SandboxSpec spec = std::move(pool.waiting.front());
  pool.waiting.pop_front();
  fail(spec.id, error);
  wipe_environment(spec);
}

// From among the blanks.
void Service::take_out(Live& live) {
  std::erase(pools_[live.shape].blank, live.number);
  live.state = Live::State::kAnswered;
}

// A start that still waits for its sandbox; false when there is none of that id.
bool Service::withdraw(SandboxId id) {
  for (auto& [shape, pool] : pools_) {
    const auto found = std::ranges::find(pool.waiting, id, &SandboxSpec::id);
    if (found == pool.waiting.end()) continue;
    wipe_environment(*found);
    pool.waiting.erase(found);
    fail(id, Error(ErrorCode::kCancelled, "it was ended before it began"));
    return true;
  }
  return false;
}

// ---- the end of sandboxes

void Service::kill(Live& live) {
  if (live.group.thaw) (void)!pwrite(live.group.thaw.get(), "THAWED", 6, 0);  // a frozen v1 group dies only after thawing
  signal_through(live.init_pidfd, SIGKILL);                                   // and with it its whole pid namespace
}

void Service::signal_main(SandboxId id, int signal) {
  if (const Live* live = find(id)) signal_through(live->main_pidfd, signal);
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
  std::string what =
      static_cast<std::int32_t>(failure.step) > kForkSteps
          ? "become the main process, forked from a zygote: step " + std::to_string(static_cast<std::int32_t>(failure.step) - kForkSteps)
          : std::string(step_name(failure.step));
  const auto index = static_cast<std::size_t>(failure.argument);
  if (failure.step == Step::kMount) what += index == 0 ? " /etc/sandbox" : " /tmp";
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
  const bool waits = whole && told.step == Step::kNone;  // for orders, or at its gate: more may follow
  if (!waits) live.report.reset();
  if (live.state == Live::State::kMade || live.state == Live::State::kBlank) {
    if (waits) {
      live.main_waits = true;
      if (live.init_waits) on_blank(live);
      return;
    }
    if (live.state == Live::State::kBlank)
      take_out(live);
    else
      on_spoilt(live, whole ? explain(live, told) : Error(ErrorCode::kInternal, "its processes ended while it was made"));
    return kill(live);
  }
  if (live.state == Live::State::kAnswered) {
    if (!whole || waits || live.failure || !live.started) return;
    live.failure = explain(live, told);
    return kill(live);
  }
  if (!whole && live.orders) return;  // on_child() knows it too, and more
  if (!whole || waits) return on_running(live);
  fail(live, explain(live, told));
}

void Service::on_running(Live& live) {
  live.state = Live::State::kAnswered;
  live.started = true;
  auto sandbox = std::make_unique<Sandbox>(std::move(live.handed_out));
  Writer out(MessageKind::kStarted);
  std::vector<int> descriptors;
  write_sandbox(out, *sandbox, descriptors);
  last_start_ = Clock::now();  // the next sandbox must not take the CPU from this start
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
    if (live.report && live.started) on_report(live);  // why a program could not be executed is told before its end
    auto packet = receive_packet(live.status.get(), MSG_DONTWAIT);
    if (!packet.ok()) return live.status.reset();  // init is gone
    if (!*packet) return;
    if ((*packet)->descriptors_lost) {
      base::log_error("a sandbox is ended", {{"what", no_room_for_descriptors().message()}});
      return kill(live);
    }
    if (!(*packet)->descriptors.empty()) {
      live.mounts = std::move((*packet)->descriptors.front());
      continue;
    }
    ProgramStatus ended;
    if ((*packet)->bytes.size() != sizeof ended) return live.status.reset();
    std::memcpy(&ended, (*packet)->bytes.data(), sizeof ended);
    if (ended.companion == ProgramStatus::kReady) {
      live.init_waits = true;
      if (live.main_waits && live.state == Live::State::kMade) on_blank(live);
      continue;
    }
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
  if (live.state == Live::State::kMade) on_spoilt(live, Error(ErrorCode::kInternal, "its processes ended while it was made"));
  if (live.state == Live::State::kBlank) take_out(live);
  if (live.state == Live::State::kStarting) on_running(live);  // it was, for a moment
  const bool started = live.started;
  Writer out(MessageKind::kExited);
  out.number(live.id);
  write_end(out, live.main_ended.value_or(SIGKILL));  // unknown when init was killed itself
  out.number(static_cast<std::uint8_t>(live.out_of_memory || control_value(live.group.memory_events.get(), "oom_kill") > 0));
  out.number(static_cast<std::uint8_t>(live.killed)).number(static_cast<std::uint8_t>(live.failure.has_value()));
  if (live.failure) out.error(*live.failure);
  if (started) post(out.take());
  release(live);
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

// Gives back everything a sandbox had, itself included; its processes are gone.
void Service::release(Live& live) {
  const std::uint64_t number = live.number;
  if (live.id != 0) numbers_.erase(live.id);
  all_.erase(number);
  workshop_->discard(number);
}

void Service::fail(SandboxId id, const Error& error) {
  Writer out(MessageKind::kFailed);
  out.number(id).error(Error(error).with_context("the sandbox could not be started"));
  post(out.take());
}

// A sandbox that cannot become what was asked for. Its id is free at once: what the server asks for instead has the same one.
void Service::fail(Live& live, const Error& error) {
  live.state = Live::State::kAnswered;
  numbers_.erase(live.id);
  fail(std::exchange(live.id, 0), error);
  kill(live);
}

// ---- archives

bool Service::in_use(const std::string& code_id) const {
  const auto among = [&](const std::vector<std::string>& ids) { return std::ranges::find(ids, code_id) != ids.end(); };
  if (std::ranges::any_of(all_, [&](const auto& entry) { return among(entry.second->code); })) return true;
  return std::ranges::any_of(pools_, [&](const auto& entry) {
    return std::ranges::any_of(entry.second.waiting,
                               [&](const SandboxSpec& spec) { return spec.code_id == code_id || among(spec.layer_ids); });
  });
}

void Service::unpack(Reader& in, Packet& packet) {
  UnpackRequest request{.request = in.number<std::uint64_t>(), .code_id = in.text(), .limits = read_limits(in)};
  if (!in.complete() || packet.descriptors.size() != 1) {
    return answer_unpack(request.request, Error(ErrorCode::kInvalidArgument, "the request to unpack is damaged"));
  }
  code_to_remove_.erase(request.code_id);  // deployed again before its last sandbox ended
  auto begun = archives_->unpack(request, std::move(packet.descriptors.front()));
  if (!begun.ok()) return answer_unpack(request.request, std::move(begun).error());
}

void Service::on_job(std::uint64_t id) {
  auto done = archives_->attend(id);
  if (!done) return;
  last_unpack_ = Clock::now();
  unpacker_due_ = true;
  answer_unpack(done->request, std::move(done->bytes));
}

// One waits for the next archive, as long as some come; it is made when the call that brought the last one is over.
void Service::review_unpacker() {
  const auto now = Clock::now();
  if (unpacker_due_ && now >= last_unpack_ + kUnpackerPause) {
    unpacker_due_ = false;
    archives_->keep_ready();
  }
  if (archives_->is_ready() && now >= last_unpack_ + kPoolRest) archives_->let_go();
  archives_->end_overdue(now);
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
  zygotes_.clear();
  while (unanswered_ > 0) {  // what the workshop still makes has processes too
    pollfd answered{.fd = workshop_->fd(), .events = POLLIN, .revents = 0};
    constexpr int kPatienceMs = 2000;
    if (poll(&answered, 1, kPatienceMs) <= 0) break;
    const auto made = workshop_->collect();
    if (!made.ok()) break;
    if (!*made) continue;
    --unanswered_;
    if ((*made)->blank.ok()) all_.at((*made)->number)->init_pidfd = UniqueFd(fcntl((*made)->blank->init_pidfd.get(), F_DUPFD_CLOEXEC, 0));
  }
  for (auto& [number, live] : all_) kill(*live);
  for (auto& [number, live] : all_) {
    siginfo_t info{};
    while (live->init_pidfd && waitid(P_PIDFD, static_cast<id_t>(live->init_pidfd.get()), &info, WEXITED) != 0 && errno == EINTR) {
    }
  }
  all_.clear();
  archives_.reset();
  workshop_.reset();
  if (warden_) warden_->end();
  if (groups_) groups_->remove_leftovers();
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
  base::return_memory_of_start();
  service.order_expected();
  service.run();
  service.end();
  _exit(0);
}

}  // namespace mayfly::sandbox::internal
