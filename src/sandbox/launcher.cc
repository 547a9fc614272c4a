// Launcher: the server's half.
#include "sandbox/launcher.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <set>

#include "sandbox/internal/protocol.h"
#include "sandbox/internal/service.h"

namespace mayfly::sandbox {

using base::errno_error;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::UniqueFd;
using internal::MessageKind;
using internal::Reader;
using internal::Writer;

namespace {

constexpr int kHelloMs = 15'000;  // a busy host may have a former run's leftovers to remove
constexpr int kEndMs = 5'000;
constexpr int kRequestBytes = 4 << 20;  // that may lie unread before the launcher

bool has_one_thread() {
  std::error_code ec;
  std::size_t threads = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/task", ec)) ++threads;
  return ec || threads == 1;
}

Result<void> check_config(const LauncherConfig& config) {
  const auto bad = [](const std::string& what) { return Error(ErrorCode::kInvalidArgument, what); };
  if (config.instance.size() != 8 || config.instance.find_first_not_of("0123456789abcdef") != std::string::npos)
    return bad("the instance \"" + config.instance + "\" is not 8 hex digits");
  for (const auto& [name, path] : {std::pair("code", &config.code_directory), std::pair("scratch", &config.scratch_directory)}) {
    if (!path->starts_with('/')) return bad(std::string("the ") + name + " directory \"" + *path + "\" is not absolute");
  }
  constexpr std::uint32_t kUsersMin = 16, kUserMost = 4'294'967'294;
  if (config.uid_count < kUsersMin || config.uid_base == 0 || config.uid_base > kUserMost - config.uid_count)
    return bad("the range of user ids for sandboxes is too small, or wraps around");
  for (const auto& root : config.roots) {
    const bool good = !root.id.empty() && root.id.size() <= 64 &&
                      root.id.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789._-") == std::string::npos && root.id.front() != '.';
    if (!good) return bad("the root image id \"" + root.id + "\" is not [a-z0-9._-]{1,64}");
  }
  return {};
}

// The packet that says how the launcher's start went; waits for it.
Result<HostCapabilities> receive_hello(int socket) {
  pollfd ready{.fd = socket, .events = POLLIN, .revents = 0};
  int answered = 0;
  do answered = poll(&ready, 1, kHelloMs);
  while (answered < 0 && errno == EINTR);
  if (answered <= 0) return Error(ErrorCode::kUnavailable, "the sandbox launcher did not answer within 15 s");
  MAYFLY_ASSIGN(auto packet, internal::receive_packet(socket, 0));
  Reader in(packet->bytes);
  const auto kind = in.number<MessageKind>();
  if (kind == MessageKind::kHelloFailed) return in.error();
  HostCapabilities host = internal::read_capabilities(in);
  if (kind != MessageKind::kHello || !in.complete())
    return Error(ErrorCode::kInternal, "the sandbox launcher's first answer makes no sense");
  return host;
}

}  // namespace

struct Launcher::Impl {
  UniqueFd socket;
  UniqueFd pidfd;
  pid_t pid = -1;
  HostCapabilities host;
  std::set<SandboxId> given_up;  // whose start came to nothing here, until the launcher says that they have ended

  // Waits for room: an event loop that watches the socket has made it non-blocking, and a request that is not sent is lost.
  Result<void> send(std::string bytes, std::span<const int> descriptors = {}) const {
    auto sent = internal::send_packet(socket.get(), bytes, descriptors, 0);
    while (sent.ok() && !*sent) {
      pollfd room{.fd = socket.get(), .events = POLLOUT, .revents = 0};
      (void)poll(&room, 1, -1);  // whatever it says, sending tells
      sent = internal::send_packet(socket.get(), bytes, descriptors, 0);
    }
    internal::wipe(bytes);
    if (!sent.ok()) return std::move(sent).error();
    return {};
  }
};

Launcher::Launcher(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Launcher>> Launcher::fork_off(const LauncherConfig& config) {
  MAYFLY_TRY(check_config(config));
  if (!has_one_thread()) return Error(ErrorCode::kInternal, "the sandbox launcher must be started before other threads");
  int ends[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return errno_error("make a socket pair for the sandbox launcher", errno);
  UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  // Room for a burst of starts; without root, the system's own limit is what there is.
  if (setsockopt(ours.get(), SOL_SOCKET, SO_SNDBUFFORCE, &kRequestBytes, sizeof kRequestBytes) != 0)
    (void)setsockopt(ours.get(), SOL_SOCKET, SO_SNDBUF, &kRequestBytes, sizeof kRequestBytes);
  const pid_t pid = fork();
  if (pid < 0) return errno_error("start the sandbox launcher", errno);
  if (pid == 0) {
    ours.reset();
    internal::run_service(config, std::move(theirs));
  }
  theirs.reset();
  auto impl = std::make_unique<Impl>();
  impl->socket = std::move(ours);
  impl->pid = pid;
  impl->pidfd = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  std::unique_ptr<Launcher> launcher(new Launcher(std::move(impl)));
  MAYFLY_ASSIGN(launcher->impl_->host, receive_hello(launcher->impl_->socket.get()));
  return launcher;
}

Launcher::~Launcher() {
  impl_->socket.reset();
  if (impl_->pidfd.valid()) {
    pollfd ended{.fd = impl_->pidfd.get(), .events = POLLIN, .revents = 0};
    int answered = 0;
    do answered = poll(&ended, 1, kEndMs);
    while (answered < 0 && errno == EINTR);
    if (answered <= 0) return;  // it goes on cleaning up by itself
  }
  while (waitpid(impl_->pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

const HostCapabilities& Launcher::capabilities() const { return impl_->host; }
int Launcher::fd() const { return impl_->socket.get(); }

Result<void> Launcher::start(const SandboxSpec& spec) {
  MAYFLY_TRY(internal::check_spec(spec));
  Writer out(MessageKind::kStart);
  internal::write_spec(out, spec);
  return impl_->send(out.take());
}

Result<void> Launcher::specialise(const Specialisation& specialisation) {
  MAYFLY_TRY(internal::check_specialisation(specialisation));
  Writer out(MessageKind::kSpecialise);
  internal::write_specialisation(out, specialisation);
  return impl_->send(out.take());
}

Result<void> Launcher::start_zygote(const ZygoteSpec& spec) {
  MAYFLY_TRY(internal::check_zygote(spec));
  Writer out(MessageKind::kStartZygote);
  internal::write_zygote(out, spec);
  return impl_->send(out.take());
}

void Launcher::kill(SandboxId id) { (void)impl_->send(Writer(MessageKind::kKill).number(id).take()); }
void Launcher::terminate(SandboxId id) { (void)impl_->send(Writer(MessageKind::kTerminate).number(id).take()); }
void Launcher::kill_main(SandboxId id) { (void)impl_->send(Writer(MessageKind::kKillMain).number(id).take()); }

Result<void> Launcher::unpack(std::uint64_t request, UniqueFd archive, const std::string& code_id, const UnpackLimits& limits) {
  if (!internal::is_code_id(code_id)) return Error(ErrorCode::kInvalidArgument, "the code id \"" + code_id + "\" is not 64 hex digits");
  if (!archive.valid()) return Error(ErrorCode::kInvalidArgument, "no archive to unpack");
  Writer out(MessageKind::kUnpack);
  out.number(request).text(code_id);
  internal::write_limits(out, limits);
  const int fd = archive.get();
  return impl_->send(out.take(), {&fd, 1});
}

void Launcher::remove_code(const std::string& code_id) {
  if (internal::is_code_id(code_id)) (void)impl_->send(Writer(MessageKind::kRemoveCode).text(code_id).take());
}

namespace {

Result<LauncherEvent> read_event(internal::Packet& packet) {
  Reader in(packet.bytes);
  std::optional<LauncherEvent> event;
  switch (in.number<MessageKind>()) {
    case MessageKind::kStarted:
      event = SandboxStarted{.sandbox = internal::read_sandbox(in, packet.descriptors)};
      break;
    case MessageKind::kFailed: {
      const auto id = in.number<SandboxId>();
      event = SandboxFailed{.id = id, .error = in.error()};
      break;
    }
    case MessageKind::kSpecialised:
      event = SandboxSpecialised{.id = in.number<SandboxId>(), .cpu_milli = in.number<std::uint32_t>()};
      break;
    case MessageKind::kZygoteReady:
      event = ZygoteReady{.id = in.number<SandboxId>()};
      break;
    case MessageKind::kExited: {
      SandboxExited exited{.id = in.number<SandboxId>(), .exit_code = in.number<std::int32_t>(), .signal = in.number<std::int32_t>()};
      exited.out_of_memory = in.flag();
      exited.killed = in.flag();
      if (in.flag()) exited.failure = in.error();
      event = exited;
      break;
    }
    case MessageKind::kProgramEnded:
      event = ProgramEnded{.id = in.number<SandboxId>(),
                           .companion = in.number<std::uint32_t>(),
                           .exit_code = in.number<std::int32_t>(),
                           .signal = in.number<std::int32_t>()};
      break;
    case MessageKind::kUnpacked: {
      ArchiveUnpacked unpacked{.request = in.number<std::uint64_t>()};
      if (in.flag())
        unpacked.bytes = in.number<std::uint64_t>();
      else
        unpacked.bytes = in.error();
      event = std::move(unpacked);
      break;
    }
    default:
      break;
  }
  if (!event || !in.complete()) return Error(ErrorCode::kInternal, "the sandbox launcher sent something that makes no sense");
  return std::move(*event);
}

}  // namespace

Result<std::vector<LauncherEvent>> Launcher::receive() {
  std::vector<LauncherEvent> events;
  while (true) {
    auto packet = internal::receive_packet(impl_->socket.get(), MSG_DONTWAIT);
    // What came before the end is still delivered; the next call says that it ended.
    if (!packet.ok() && !events.empty()) return events;
    if (!packet.ok()) return std::move(packet).error();
    if (!*packet) return events;
    MAYFLY_ASSIGN(LauncherEvent event, read_event(**packet));
    if ((*packet)->descriptors_lost) {
      const auto* started = std::get_if<SandboxStarted>(&event);
      if (started == nullptr) continue;  // of nothing else anything comes along
      const SandboxId id = started->sandbox.id;
      kill(id);
      impl_->given_up.insert(id);
      event = SandboxFailed{.id = id, .error = internal::no_room_for_descriptors()};
    } else if (const auto* exited = std::get_if<SandboxExited>(&event); exited != nullptr && impl_->given_up.erase(exited->id) > 0) {
      continue;
    }
    events.push_back(std::move(event));
  }
}

}  // namespace mayfly::sandbox
