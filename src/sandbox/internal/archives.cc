#include "sandbox/internal/archives.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <map>

#include "base/bytes.h"
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

constexpr std::size_t kJobsMax = 64;  // archives being unpacked and directories being deleted

struct Job {
  enum class Kind { kUnpack, kMeasure, kRemove } kind = Kind::kUnpack;
  std::uint64_t request = 0;
  std::string code_id;
  std::string directory;  // name beneath the code directory
  pid_t pid = -1;
  UniqueFd pidfd, result;
};

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

  Result<UniqueFd> make_directory(Job& job) const;
  Result<void> begin(Job& job, const UniqueFd& archive, const Launcher::UnpackLimits& limits);
  void begin_removal(const std::string& name);
  void keep(Job job);
  Result<std::uint64_t> publish(const Job& job, std::uint64_t bytes);
};

Result<UniqueFd> Archives::Impl::make_directory(Job& job) const {
  job.directory = job.code_id + ".tmp-" + base::random_hex(6);
  if (mkdirat(directory.get(), job.directory.c_str(), 0700) != 0) return errno_error("make a directory for the code", errno);
  UniqueFd made(openat(directory.get(), job.directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!made) return errno_error("open the directory for the code", errno);
  if (options.privileged && fchown(made.get(), options.user, options.group) != 0) {
    return errno_error("give the code directory to the server", errno);
  }
  return made;
}

Result<void> Archives::Impl::begin(Job& job, const UniqueFd& archive, const Launcher::UnpackLimits& limits) {
  MAYFLY_ASSIGN(Pipe result, make_pipe());
  UniqueFd target;
  if (auto existing = base::open_beneath(directory.get(), job.code_id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW); existing.ok()) {
    job.kind = Job::Kind::kMeasure;
    target = std::move(existing).value();
  } else {
    MAYFLY_ASSIGN(target, make_directory(job));
  }
  const UnpackJob work{.archive = archive.get(),
                       .directory = target.get(),
                       .result = result.write.get(),
                       .limits = limits,
                       .switch_identity = options.privileged,
                       .user = options.user,
                       .group = options.group,
                       .filter = &filter};
  job.pid = fork();
  if (job.pid < 0) return errno_error("start the unpacking process", errno);
  if (job.pid == 0) {
    if (job.kind == Job::Kind::kUnpack) run_unpack(work);
    run_measure(work);
  }
  job.result = std::move(result.read);
  return {};
}

void Archives::Impl::keep(Job job) {
  job.pidfd = pidfd_of(job.pid);
  watch(job.pidfd.get(), next);
  jobs.emplace(next++, std::move(job));
}

void Archives::Impl::begin_removal(const std::string& name) {
  Job job;
  job.kind = Job::Kind::kRemove;
  job.pid = fork();
  if (job.pid == 0) {
    (void)close_range(STDERR_FILENO + 1, ~0U, 0);  // what belongs to sandboxes must not live on here
    (void)base::remove_tree(options.directory + "/" + name);
    _exit(0);
  }
  if (job.pid > 0) keep(std::move(job));  // else the next start deletes it
}

// Gives the directory its name, by which it exists. Not written to disk here, in the launcher's loop: what is in it is, and after a power
// loss it either has its name or counts as half made.
Result<std::uint64_t> Archives::Impl::publish(const Job& job, std::uint64_t bytes) {
  if (renameat2(directory.get(), job.directory.c_str(), directory.get(), job.code_id.c_str(), RENAME_NOREPLACE) == 0) return bytes;
  const int failure = errno;
  begin_removal(job.directory);
  if (failure == EEXIST) return bytes;  // somebody else unpacked the same code meanwhile: theirs is as good
  return errno_error("rename the unpacked code", failure);
}

Archives::Archives(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Archives::~Archives() {
  for (const auto& [id, job] : impl_->jobs) {
    if (job.kind == Job::Kind::kUnpack) signal_through(job.pidfd, SIGKILL);
    reap(job.pid);
    if (job.kind == Job::Kind::kUnpack) (void)base::remove_tree(impl_->options.directory + "/" + job.directory);
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

Result<void> Archives::unpack(const UnpackRequest& request, const UniqueFd& archive) {
  MAYFLY_TRY(check(request));
  if (impl_->jobs.size() >= kJobsMax) return Error(ErrorCode::kResourceExhausted, "64 archives are being unpacked already; try again");
  Job job;
  job.request = request.request;
  job.code_id = request.code_id;
  if (auto begun = impl_->begin(job, archive, request.limits); !begun.ok()) {
    if (!job.directory.empty()) impl_->begin_removal(job.directory);
    return std::move(begun).error();
  }
  impl_->keep(std::move(job));
  return {};
}

std::optional<ArchiveUnpacked> Archives::finish(std::uint64_t id) {
  const auto found = impl_->jobs.find(id);
  if (found == impl_->jobs.end() || waitpid(found->second.pid, nullptr, WNOHANG) == 0) return std::nullopt;
  const Job job = std::move(found->second);
  impl_->jobs.erase(found);
  if (job.kind == Job::Kind::kRemove) return std::nullopt;
  std::array<char, 8192> buffer{};
  const ssize_t got = read(job.result.get(), buffer.data(), buffer.size());
  auto bytes = parse_result({buffer.data(), got > 0 ? static_cast<std::size_t>(got) : 0});
  if (job.kind == Job::Kind::kUnpack) {
    if (bytes.ok())
      bytes = impl_->publish(job, *bytes);
    else
      impl_->begin_removal(job.directory);
  }
  return ArchiveUnpacked{.request = job.request, .bytes = std::move(bytes)};
}

void Archives::remove(const std::string& code_id) {
  const std::string gone = code_id + ".tmp-" + base::random_hex(6);
  if (renameat(impl_->directory.get(), code_id.c_str(), impl_->directory.get(), gone.c_str()) == 0) impl_->begin_removal(gone);
}

void Archives::remove_leftovers() {
  std::error_code ec;
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(impl_->options.directory, ec)) {
    const std::string name = entry.path().filename().string();
    if (name.find(".tmp-") != std::string::npos) names.push_back(name);
  }
  for (const auto& name : names) impl_->begin_removal(name);
}

}  // namespace mayfly::sandbox::internal
