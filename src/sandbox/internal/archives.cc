#include "sandbox/internal/archives.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <map>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "sandbox/internal/processes.h"
#include "sandbox/internal/protocol.h"
#include "sandbox/internal/unpack.h"

namespace mayfly::sandbox::internal {

using base::errno_error;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::UniqueFd;

namespace {

constexpr std::size_t kJobsMax = 64;                // archives being unpacked or written to the disk, and directories being deleted
constexpr std::size_t kSyncingMost = kJobsMax / 2;  // beyond, an answer waits until its directory is on the disk
constexpr auto kSyncPatience = std::chrono::milliseconds(500);  // at the end, for all together; then the next start unpacks again
constexpr std::string_view kTemporary = ".tmp-";
constexpr std::string_view kSynced = ".synced-";
constexpr std::chrono::minutes kUnpackPatience{5};  // as long as the server waits
constexpr std::chrono::seconds kSyncMost{30};       // after an answer; then it is unpacked once more, with the former patience

struct Job {
  enum class Kind { kUnpack, kMeasure, kRemove } kind = Kind::kUnpack;
  std::uint64_t request = 0;
  std::string code_id;
  std::string directory;  // name beneath the code directory
  pid_t pid = -1;
  UniqueFd pidfd;
  UniqueFd socket;   // until it was heard
  UniqueFd archive;  // for once more
  Launcher::UnpackLimits limits;
  bool waited = false;     // its process was made before its archive came
  bool once_more = false;  // what was answered already did not get to the disk
  bool published = false;  // its directory has the name of the code, since it was heard
  Archives::Clock::time_point due = Archives::Clock::time_point::max();
};

bool ended_well(int wait_status) { return WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0; }

// Forks, where it is permitted into a namespace of processes of its own: it has the server's user, and must not send it signals.
pid_t fork_apart() {
  clone_args args{};
  args.flags = CLONE_NEWPID;
  args.exit_signal = SIGCHLD;
  const long pid = syscall(SYS_clone3, &args, sizeof args);
  return pid >= 0 ? static_cast<pid_t>(pid) : fork();
}

Result<void> check(const UnpackRequest& request) {
  const auto& limits = request.limits;
  if (!is_code_id(request.code_id)) return Error(ErrorCode::kInvalidArgument, "the code id is not 64 hex digits");
  constexpr std::uint64_t kBytesMost = 1ULL << 36U;
  if (limits.bytes_max <= kBytesMost && limits.path_max <= 4096 && limits.depth_max <= 256 && limits.entries_max <= 1'000'000) return {};
  return Error(ErrorCode::kInvalidArgument, "the limits for unpacking are too wide");
}

}  // namespace

struct Archives::Impl {
  ArchivesOptions options;
  Watch watch;
  UniqueFd directory;
  Filter filter;
  std::map<std::uint64_t, Job> jobs;
  std::uint64_t next = 1;
  std::optional<Job> ready;  // an unpacker that waits for its archive
  std::uint64_t ready_id = 0;

  [[nodiscard]] std::string temporary(std::string_view of) const { return std::string(of) + std::string(kTemporary) + base::random_hex(6); }
  Result<UniqueFd> make_directory(Job& job) const;
  // Forks the job's process, with a socket to it.
  Result<void> fork_off(Job& job, const std::function<void(int socket)>& run) const;
  Result<void> begin_unpacker(Job& job, const Launcher::UnpackLimits& limits);
  Result<void> begin_measuring(Job& job, const UniqueFd& existing) const;
  static Result<void> give(Job& job, const UniqueFd& archive, UnpackOrder order);
  Result<void> begin(Job& job, const UnpackRequest& request, const UniqueFd& archive);
  // Ends a job that nobody waits for.
  void drop(const Job& job);
  void begin_removal(std::vector<std::string> names);
  void keep(Job job);
  void forget_ready();
  [[nodiscard]] std::size_t syncing() const;
  std::optional<ArchiveUnpacked> hear(Job& job);
  Result<std::uint64_t> publish(Job& job, std::uint64_t bytes);
  Result<std::uint64_t> publish_once_more(Job& job, std::uint64_t bytes);
  // Takes the code's name from its directory; the new one, empty when there is none.
  std::string take_away(const std::string& code_id);
  // The name of the file that says that the code's present directory is on the disk; empty without such a directory.
  [[nodiscard]] std::string mark_of(const std::string& code_id) const;
  void mark_synced(const Job& job) const;
  bool begin_afresh(Job& job);
  void begin_once_more(Job& job);
  void give_up(const Job& job);
  void note_end(Job& job, int wait_status);
};

Result<UniqueFd> Archives::Impl::make_directory(Job& job) const {
  job.directory = temporary("new");
  if (mkdirat(directory.get(), job.directory.c_str(), 0700) != 0) return errno_error("make a directory for the code", errno);
  UniqueFd made(openat(directory.get(), job.directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!made) return errno_error("open the directory for the code", errno);
  if (options.privileged && fchown(made.get(), options.user, options.group) != 0) {
    return errno_error("give the code directory to the server", errno);
  }
  return made;
}

Result<void> Archives::Impl::fork_off(Job& job, const std::function<void(int socket)>& run) const {
  int ends[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return errno_error("make a socket pair", errno);
  job.socket = UniqueFd(ends[0]);
  const UniqueFd theirs(ends[1]);
  job.pid = fork_apart();
  if (job.pid < 0) return errno_error("start the unpacking process", errno);
  if (job.pid == 0) {
    run(theirs.get());
    _exit(1);
  }
  job.pidfd = pidfd_of(job.pid);
  return {};
}

Result<void> Archives::Impl::begin_unpacker(Job& job, const Launcher::UnpackLimits& limits) {
  MAYFLY_ASSIGN(const UniqueFd target, make_directory(job));
  return fork_off(job, [&](int socket) {
    run_unpacker({.directory = target.get(),
                  .socket = socket,
                  .limits = limits,
                  .switch_identity = options.privileged,
                  .user = options.user,
                  .group = options.group,
                  .filter = &filter});
  });
}

Result<void> Archives::Impl::begin_measuring(Job& job, const UniqueFd& existing) const {
  job.kind = Job::Kind::kMeasure;
  return fork_off(job, [&](int socket) { run_measure(existing.get(), socket); });
}

Result<void> Archives::Impl::give(Job& job, const UniqueFd& archive, UnpackOrder order) {
  const auto text = static_cast<char>(order);
  const int descriptor = archive.get();
  job.due = Clock::now() + kUnpackPatience;
  MAYFLY_ASSIGN(const bool sent, send_packet(job.socket.get(), {&text, 1}, {&descriptor, 1}, MSG_DONTWAIT));
  if (!sent) return Error(ErrorCode::kInternal, "the unpacking process takes no orders");
  return {};
}

Result<void> Archives::Impl::begin(Job& job, const UnpackRequest& request, const UniqueFd& archive) {
  const auto existing = base::open_beneath(directory.get(), request.code_id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (existing.ok()) return begin_measuring(job, *existing);
  const UnpackOrder order = syncing() < kSyncingMost ? UnpackOrder::kTellFirst : UnpackOrder::kSyncFirst;
  if (ready && request.limits == Launcher::UnpackLimits{}) {
    job = std::move(*ready);
    job.waited = true;
    ready.reset();
    if (give(job, archive, order).ok()) return {};
    drop(std::exchange(job, Job{}));  // the kernel may have killed it while it waited
  }
  MAYFLY_TRY(begin_unpacker(job, request.limits));
  return give(job, archive, order);
}

void Archives::Impl::drop(const Job& job) {
  signal_through(job.pidfd, SIGKILL);
  reap(job.pid);
  if (!job.directory.empty()) begin_removal({job.directory});
}

void Archives::Impl::keep(Job job) {
  if (job.pidfd) watch(job.pidfd.get(), next);
  if (job.socket) watch(job.socket.get(), next);
  jobs.emplace(next++, std::move(job));
}

void Archives::Impl::forget_ready() {
  if (!ready) return;
  drop(*ready);
  ready.reset();
}

std::size_t Archives::Impl::syncing() const {
  return static_cast<std::size_t>(std::ranges::count_if(jobs, [](const auto& entry) { return entry.second.published; }));
}

void Archives::Impl::begin_removal(std::vector<std::string> names) {
  Job job;
  job.kind = Job::Kind::kRemove;
  job.pid = fork();
  if (job.pid == 0) {
    (void)close_range(STDERR_FILENO + 1, ~0U, 0);  // what belongs to sandboxes must not live on here
    for (const std::string& name : names) (void)base::remove_tree(options.directory + "/" + name);
    _exit(0);
  }
  if (job.pid < 0) return;  // the next start deletes it
  job.pidfd = pidfd_of(job.pid);
  keep(std::move(job));
}

// Gives the directory its name, by which it exists.
Result<std::uint64_t> Archives::Impl::publish(Job& job, std::uint64_t bytes) {
  if (job.once_more) return publish_once_more(job, bytes);
  job.published = renameat2(directory.get(), job.directory.c_str(), directory.get(), job.code_id.c_str(), RENAME_NOREPLACE) == 0;
  if (job.published) return bytes;
  const int failure = errno;
  begin_removal({job.directory});
  if (failure == EEXIST) return bytes;  // somebody else unpacked the same code meanwhile: theirs is as good
  return errno_error("rename the unpacked code", failure);
}

// In the place of what did not get to the disk. Sandboxes may be using that: the next start deletes it.
Result<std::uint64_t> Archives::Impl::publish_once_more(Job& job, std::uint64_t bytes) {
  job.published = renameat2(directory.get(), job.directory.c_str(), directory.get(), job.code_id.c_str(), RENAME_EXCHANGE) == 0;
  if (!job.published) begin_removal({job.directory});  // the code was removed meanwhile
  return bytes;
}

std::string Archives::Impl::take_away(const std::string& code_id) {
  const std::string mark = mark_of(code_id);
  std::string gone = temporary(code_id);
  if (renameat(directory.get(), code_id.c_str(), directory.get(), gone.c_str()) != 0) return {};
  (void)unlinkat(directory.get(), mark.c_str(), 0);
  for (auto& [id, job] : jobs) job.published = job.published && job.code_id != code_id;
  return gone;
}

// Names the directory by what no other of this code has: file systems may lose the deletion of a mark in a crash, and keep the next tree.
std::string Archives::Impl::mark_of(const std::string& code_id) const {
  struct statx info{};
  constexpr unsigned kWanted = STATX_TYPE | STATX_INO | STATX_BTIME;
  if (statx(directory.get(), code_id.c_str(), AT_SYMLINK_NOFOLLOW, kWanted, &info) != 0 || !S_ISDIR(info.stx_mode)) return {};
  return code_id + std::string(kSynced) + std::to_string(info.stx_ino) + "-" + std::to_string(info.stx_btime.tv_sec) + "-" +
         std::to_string(info.stx_btime.tv_nsec);
}

// The mark itself need not get to the disk: without it the code is unpacked again, no more.
void Archives::Impl::mark_synced(const Job& job) const {
  const std::string mark = mark_of(job.code_id);
  if (mark.empty()) return;
  const UniqueFd made(openat(directory.get(), mark.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
}

// For one whose process ended without a word after it had waited: it may have been killed before it was given the archive. False when
// that cannot be begun.
bool Archives::Impl::begin_afresh(Job& job) {
  Job fresh;
  fresh.request = job.request;
  fresh.code_id = job.code_id;
  fresh.limits = job.limits;
  fresh.archive = std::move(job.archive);
  auto begun = begin_unpacker(fresh, fresh.limits);
  if (begun.ok()) begun = give(fresh, fresh.archive, UnpackOrder::kTellFirst);
  if (!begun.ok()) {
    drop(fresh);
    return false;
  }
  keep(std::move(fresh));
  job.socket.reset();
  begin_removal({job.directory});
  return true;
}

void Archives::Impl::begin_once_more(Job& job) {
  base::log_warning("unpacked code could not be written to the disk and is unpacked once more", {{"code", job.code_id}});
  Job again;
  again.once_more = true;
  again.code_id = job.code_id;
  again.limits = job.limits;
  again.archive = std::move(job.archive);
  auto begun = begin_unpacker(again, again.limits);
  if (begun.ok()) begun = give(again, again.archive, UnpackOrder::kSyncFirst);
  if (begun.ok()) return keep(std::move(again));
  drop(again);
  give_up(again);
}

// Its files may turn to zeros any time. Sandboxes may be using them: the next start deletes them.
void Archives::Impl::give_up(const Job& job) {
  base::log_error("unpacked code cannot be written to the disk; deploy it again or restart the server when the disk is in order",
                  {{"code", job.code_id}});
  (void)take_away(job.code_id);
}

// What a job says; nothing when it has not said anything yet. Its end without a word is a refusal.
std::optional<ArchiveUnpacked> Archives::Impl::hear(Job& job) {
  if (!job.socket) return std::nullopt;
  const auto packet = receive_packet(job.socket.get(), MSG_DONTWAIT);
  if (packet.ok() && !*packet) return std::nullopt;
  if (!packet.ok() && job.waited && begin_afresh(job)) return std::nullopt;
  job.socket.reset();
  job.due = Clock::now() + kSyncMost;
  auto bytes = parse_result(packet.ok() ? std::string_view((*packet)->bytes) : std::string_view());
  if (job.kind == Job::Kind::kUnpack) {
    if (bytes.ok())
      bytes = publish(job, *bytes);
    else
      begin_removal({job.directory});
  }
  if (!job.once_more) return ArchiveUnpacked{.request = job.request, .bytes = std::move(bytes)};
  if (!bytes.ok()) give_up(job);
  return std::nullopt;
}

void Archives::Impl::note_end(Job& job, int wait_status) {
  if (!job.published) return;
  if (ended_well(wait_status)) return mark_synced(job);
  if (!job.once_more) return begin_once_more(job);
  give_up(job);
}

Archives::Archives(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Archives::~Archives() {
  impl_->forget_ready();
  const auto until = std::chrono::steady_clock::now() + kSyncPatience;
  for (const auto& [id, job] : impl_->jobs) {
    const bool half_made = job.kind == Job::Kind::kUnpack && job.socket;
    if (half_made) signal_through(job.pidfd, SIGKILL);
    pollfd ended{.fd = job.pidfd.get(), .events = POLLIN, .revents = 0};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    const int patience_ms = std::max(0, static_cast<int>(left.count()));
    if (job.published && poll(&ended, 1, patience_ms) <= 0) continue;  // a slow disk: it ends with the launcher
    int status = 0;
    while (waitpid(job.pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (job.published && ended_well(status)) impl_->mark_synced(job);
    if (half_made) (void)base::remove_tree(impl_->options.directory + "/" + job.directory);
  }
}

Result<std::unique_ptr<Archives>> Archives::create(ArchivesOptions options, Watch watch) {
  auto impl = std::make_unique<Impl>();
  impl->options = std::move(options);
  impl->watch = std::move(watch);
  MAYFLY_ASSIGN(impl->directory, base::open_file(impl->options.directory, O_RDONLY | O_DIRECTORY));
  MAYFLY_ASSIGN(impl->filter, unpack_filter());
  return std::unique_ptr<Archives>(new Archives(std::move(impl)));
}

bool Archives::is_ready() const { return impl_->ready.has_value(); }
void Archives::let_go() { impl_->forget_ready(); }

void Archives::keep_ready() {
  if (impl_->ready) return;
  Job job;
  if (!impl_->begin_unpacker(job, {}).ok()) return impl_->drop(job);  // the next unpack() says why
  impl_->watch(job.pidfd.get(), impl_->next);
  impl_->ready_id = impl_->next++;
  impl_->ready = std::move(job);
}

Result<void> Archives::unpack(const UnpackRequest& request, UniqueFd archive) {
  MAYFLY_TRY(check(request));
  if (impl_->jobs.size() >= kJobsMax) return Error(ErrorCode::kResourceExhausted, "64 archives are being unpacked already; try again");
  Job job;
  if (auto begun = impl_->begin(job, request, archive); !begun.ok()) {
    impl_->drop(job);
    return begun;
  }
  job.request = request.request;
  job.code_id = request.code_id;
  job.limits = request.limits;
  job.archive = std::move(archive);
  impl_->keep(std::move(job));
  return {};
}

std::optional<ArchiveUnpacked> Archives::attend(std::uint64_t id) {
  if (impl_->ready && id == impl_->ready_id) impl_->forget_ready();  // it ended without an archive
  const auto found = impl_->jobs.find(id);
  if (found == impl_->jobs.end()) return std::nullopt;
  Job& job = found->second;
  auto heard = impl_->hear(job);
  int status = 0;
  if (waitpid(job.pid, &status, WNOHANG) == 0) return heard;
  if (!heard) heard = impl_->hear(job);  // said between the two looks
  impl_->note_end(job, status);
  impl_->jobs.erase(found);
  return heard;
}

void Archives::remove(const std::string& code_id) {
  if (const std::string gone = impl_->take_away(code_id); !gone.empty()) impl_->begin_removal({gone});
}

Archives::Clock::time_point Archives::next_due() const {
  auto next = Clock::time_point::max();
  for (const auto& [id, job] : impl_->jobs) next = std::min(next, job.due);
  return next;
}

void Archives::end_overdue(Clock::time_point now) {
  for (auto& [id, job] : impl_->jobs) {
    if (job.due > now) continue;
    signal_through(job.pidfd, SIGKILL);
    job.due = Clock::time_point::max();
  }
}

void Archives::remove_leftovers() {
  std::error_code ec;
  std::vector<std::string> gone, trees, marks;
  for (const auto& entry : std::filesystem::directory_iterator(impl_->options.directory, ec)) {
    const std::string name = entry.path().filename().string();
    if (name.find(kTemporary) != std::string::npos) gone.push_back(name);
    if (name.find(kSynced) != std::string::npos) marks.push_back(name);
    if (is_code_id(name)) trees.push_back(name);
  }
  const std::set<std::string> synced(marks.begin(), marks.end());
  std::set<std::string> needed;
  for (const auto& tree : trees) {
    std::string mark = impl_->mark_of(tree);
    if (synced.contains(mark))
      needed.insert(std::move(mark));
    else if (std::string name = impl_->take_away(tree); !name.empty())
      gone.push_back(std::move(name));
  }
  for (const auto& mark : marks) {
    if (!needed.contains(mark)) (void)unlinkat(impl_->directory.get(), mark.c_str(), 0);
  }
  if (!gone.empty()) impl_->begin_removal(std::move(gone));
}

}  // namespace mayfly::sandbox::internal
