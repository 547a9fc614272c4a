#include "sandbox/internal/test_support.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/bytes.h"
#include "base/fd.h"

namespace mayfly::sandbox::test {

namespace fs = std::filesystem;
using base::Result;
using Clock = std::chrono::steady_clock;

bool is_root() { return geteuid() == 0; }

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = (fs::temp_directory_path() / "mayfly-sandbox-XXXXXX").string();
  path_ = mkdtemp(pattern.data());
  (void)chmod(path_.c_str(), 0755);
}
TemporaryDirectory::~TemporaryDirectory() { (void)base::remove_tree(path_); }

Bench::Bench(const std::string& directory) {
  config.instance = base::random_hex(4);
  config.code_directory = directory + "/code";
  config.scratch_directory = directory + "/scratch";
  config.bootstrap_directory = directory + "/bootstrap";
  config.roots = {RootImage{.id = "host", .directory = "/", .extra_binds = {}}};
  config.server_uid = 1'200;
  config.server_gid = 1'200;
  config.network_cidr = "100.89.0.0/16";
  for (const auto& path : {config.code_directory, config.scratch_directory, config.bootstrap_directory}) fs::create_directories(path);
}

bool Bench::open() {
  auto forked = Launcher::fork_off(config);
  if (!forked.ok()) {
    ADD_FAILURE() << forked.error().to_string();
    return false;
  }
  launcher_ = std::move(forked).value();
  return true;
}

// The launcher is the only child that is called so.
pid_t Bench::launcher_pid() const {
  std::ifstream children("/proc/self/task/" + std::to_string(gettid()) + "/children");
  for (pid_t pid = 0; children >> pid;) {
    std::ifstream name("/proc/" + std::to_string(pid) + "/comm");
    std::string text;
    std::getline(name, text);
    if (text == "mayfly-launcher") return pid;
  }
  return -1;
}

std::string Bench::add_tree(const std::map<std::string, std::string>& files) {
  std::string id = std::to_string(next_code_++);
  id.insert(0, 64 - id.size(), '0');
  const fs::path root = fs::path(config.code_directory) / id;
  fs::create_directories(root);
  for (const auto& [name, content] : files) {
    fs::create_directories((root / name).parent_path());
    std::ofstream(root / name) << content;
    fs::permissions(root / name, fs::perms(0555));
  }
  fs::permissions(root, fs::perms(0755));
  return id;
}

std::string Bench::add_code(const std::string& script) { return add_tree({{"run.sh", script}}); }

SandboxSpec Bench::spec(const std::string& code_id) {
  constexpr std::uint64_t kMiB = 1ULL << 20U;
  SandboxSpec spec;
  spec.id = next_++;
  spec.root_id = "host";
  spec.code_id = code_id;
  spec.arguments = {"/bin/sh", "/var/task/run.sh"};
  spec.environment = {"PATH=/usr/bin:/bin", "TZ=:UTC"};
  spec.memory_bytes = 128 * kMiB;
  spec.tmp_bytes = 64 * kMiB;
  spec.cpu_milli = 1000;
  spec.network = Network::kNone;
  return spec;
}

bool Bench::pump(const std::function<bool()>& done, std::chrono::milliseconds patience) {
  const auto until = Clock::now() + patience;
  while (!done()) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    pollfd ready{.fd = launcher_->fd(), .events = POLLIN, .revents = 0};
    if (left <= 0 || poll(&ready, 1, static_cast<int>(left)) <= 0) return false;
    auto events = launcher_->receive();
    if (!events.ok()) return false;
    for (auto& event : *events) {
      if (auto* started = std::get_if<SandboxStarted>(&event)) answers_.emplace(started->sandbox.id, std::move(started->sandbox));
      if (auto* made = std::get_if<SandboxSpecialised>(&event)) specialised_.emplace(made->id, Result<void>());
      if (auto* zygote = std::get_if<ZygoteReady>(&event)) specialised_.emplace(zygote->id, Result<void>());
      if (auto* failed = std::get_if<SandboxFailed>(&event)) {
        if (awaited_ == failed->id) {
          specialised_.emplace(failed->id, std::move(failed->error));
        } else {
          answers_.emplace(failed->id, std::move(failed->error));
        }
      }
      if (auto* exited = std::get_if<SandboxExited>(&event)) exits_.emplace(exited->id, *exited);
      if (auto* ended = std::get_if<ProgramEnded>(&event)) programs_ended.insert_or_assign({ended->id, ended->companion}, *ended);
      if (auto* unpacked = std::get_if<ArchiveUnpacked>(&event)) unpacked_.emplace(unpacked->request, std::move(unpacked->bytes));
    }
  }
  return true;
}

namespace {

// Becomes what it is told in one line over the control pipe: working directory, number of arguments, arguments, variables, parted by NUL.
constexpr std::string_view kBecomesAnything = R"(
import ctypes, os, signal
library = ctypes.PyDLL('/var/runtime/native/libmayfly_zygote.so')
ctypes.pythonapi.PyOS_BeforeFork()
library.mayfly_fork_into_sandboxes(int(os.environ['_MAYFLY_ZYGOTE']))
ctypes.pythonapi.PyOS_AfterFork_Child()
words = b''
while not words.endswith(b'\0\n'):
    words += os.read(4, 65536)
words = words[:-2].decode().split('\0')
count = int(words[1])
for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
    signal.signal(number, signal.SIG_DFL)
os.chdir(words[0])
os.execve(words[2], words[2:2 + count], dict(word.split('=', 1) for word in words[2 + count:]))
)";
constexpr base::EmbeddedFile kZygoteFiles[] = {{.name = "zygote.py", .bytes = kBecomesAnything, .mode = 0644}};

std::string becoming(const SandboxSpec& spec) {
  std::string words = spec.working_directory + '\0' + std::to_string(spec.arguments.size()) + '\0';
  for (const auto& argument : spec.arguments) words += argument + '\0';
  for (const auto& variable : spec.environment) words += variable + '\0';
  return words + "_LAMBDA_TELEMETRY_LOG_FD=3" + '\0' + '\n';
}

}  // namespace

void Bench::prepare_zygote() {
  config.zygote_files = kZygoteFiles;
  config.zygote_programs = {{.root_id = "host",
                             .arguments = {fs::canonical("/usr/bin/python3").string(), "-IS", "/var/runtime/zygote.py"},
                             .environment = {"WHO=zygote"}}};
}

Result<void> Bench::fork_from_zygote() {
  constexpr SandboxId kZygote = 1'000'000'000;
  MAYFLY_TRY(start_zygote({.id = kZygote, .program = config.zygote_programs.front()}));
  zygote_ = kZygote;
  return {};
}

Result<Sandbox> Bench::start(const SandboxSpec& spec) {
  auto wanted = spec;
  if (zygote_ != 0) wanted.zygote = zygote_;
  MAYFLY_TRY(launcher_->start(wanted));
  auto started = wait_answer(spec.id);
  if (zygote_ != 0 && started.ok()) MAYFLY_TRY(base::write_all(started->control_out.get(), becoming(spec)));
  return started;
}

Result<Sandbox> Bench::wait_answer(SandboxId id) {
  if (!pump([&] { return answers_.contains(id); })) return base::Error(base::ErrorCode::kDeadlineExceeded, "no answer to start");
  auto answer = std::move(answers_.extract(id).mapped());
  return answer;
}

Result<void> Bench::answer_without_sandbox(SandboxId id) {
  awaited_ = id;
  const bool answered = pump([&] { return specialised_.contains(id); });
  awaited_ = 0;
  if (!answered) return base::Error(base::ErrorCode::kDeadlineExceeded, "no answer");
  return std::move(specialised_.extract(id).mapped());
}

Result<void> Bench::specialise(const Specialisation& specialisation) {
  MAYFLY_TRY(launcher_->specialise(specialisation));
  return answer_without_sandbox(specialisation.id);
}

Result<void> Bench::start_zygote(const ZygoteSpec& spec) {
  MAYFLY_TRY(launcher_->start_zygote(spec));
  return answer_without_sandbox(spec.id);
}

std::optional<SandboxExited> Bench::wait_exit(SandboxId id, std::chrono::milliseconds patience) {
  if (!pump([&] { return exits_.contains(id); }, patience)) return std::nullopt;
  return exits_.at(id);
}

Ending Bench::run(const SandboxSpec& spec) {
  Ending ending;
  auto started = start(spec);
  if (!started.ok()) {
    ADD_FAILURE() << started.error().to_string();
    return ending;
  }
  ending.output = read_output(started->output.get());
  const auto exited = wait_exit(spec.id);
  if (exited)
    ending.exited = *exited;
  else
    ADD_FAILURE() << "the sandbox did not end";
  return ending;
}

Result<std::uint64_t> Bench::unpack(const std::string& zip, const std::string& code_id, const Launcher::UnpackLimits& limits) {
  static std::uint64_t request = 0;
  ++request;
  base::UniqueFd archive(memfd_create("zip", MFD_CLOEXEC));
  MAYFLY_TRY(base::write_all(archive.get(), zip));
  MAYFLY_TRY(launcher_->unpack(request, std::move(archive), code_id, limits));
  if (!pump([&] { return unpacked_.contains(request); }, std::chrono::seconds(60)))
    return base::Error(base::ErrorCode::kDeadlineExceeded, "no answer to unpack");
  return unpacked_.at(request);
}

std::string read_output(int fd, const std::string& until, std::chrono::milliseconds patience) {
  std::string text;
  const auto end = Clock::now() + patience;
  while (until.empty() || text.find(until) == std::string::npos) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
    if (left <= 0 || poll(&ready, 1, static_cast<int>(left)) <= 0) break;
    char buffer[65536];
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got <= 0) break;
    text.append(buffer, static_cast<std::size_t>(got));
  }
  return text;
}

namespace {

void find_groups(const fs::path& at, const std::string& name, int depth, std::vector<std::string>& found) {
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(at, ec)) {
    if (!entry.is_directory(ec) || entry.is_symlink(ec)) continue;
    if (entry.path().filename() == name)
      found.push_back("cgroup " + entry.path().string());
    else if (depth > 0)
      find_groups(entry.path(), name, depth - 1, found);
  }
}

void find_lines(const std::string& file, const std::string& part, const std::string& what, std::vector<std::string>& found) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    if (line.find(part) != std::string::npos) found.push_back(what + " " + line);
  }
}

void find_loops(const std::string& directory, std::vector<std::string>& found) {
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator("/sys/block", ec)) {
    std::ifstream backing(entry.path() / "loop/backing_file");
    std::string file;
    if (std::getline(backing, file) && file.starts_with(directory))
      found.push_back("loop " + entry.path().filename().string() + " " + file);
  }
}

// By the launcher's own mount of its work directory: whoever still has it is one of its processes.
void find_processes(const std::string& directory, std::vector<std::string>& found) {
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator("/proc", ec)) {
    const std::string pid = entry.path().filename().string();
    if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
    std::vector<std::string> lines;
    find_lines(entry.path() / "mountinfo", directory, "", lines);
    if (!lines.empty()) found.push_back("process " + pid + lines.front());
  }
}

}  // namespace

std::vector<std::string> leftovers(const std::string& instance, const std::string& directory) {
  std::vector<std::string> found;
  find_groups("/sys/fs/cgroup", "mayfly-" + instance, 4, found);
  find_lines("/proc/net/dev", "mf" + instance, "device", found);
  find_lines("/proc/self/mounts", directory, "mount", found);
  find_loops(directory, found);
  find_processes(directory, found);
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(directory + "/scratch", ec)) found.push_back("scratch " + entry.path().string());
  return found;
}

std::vector<std::string> wait_for_no_leftovers(const std::string& instance, const std::string& directory) {
  std::vector<std::string> found;
  for (int i = 0; i < 250; ++i) {
    found = leftovers(instance, directory);
    if (found.empty()) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return found;
}

}  // namespace mayfly::sandbox::test
