#include "sandbox/internal/protocol.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

namespace mayfly::sandbox::internal {

using base::errno_error;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::UniqueFd;

namespace {

constexpr std::size_t kStringsMax = 560;  // arguments or variables of one sandbox: 4 KB hold 512, and the platform adds some thirty
constexpr std::size_t kTextMax = 60'000;  // bytes of all of them: leaves room in a packet for the rest
constexpr std::size_t kLayersMax = 5;

Error gone() { return {ErrorCode::kUnavailable, "the sandbox launcher has ended; restart Mayfly and look at its log"}; }

Error bad(std::string what) { return {ErrorCode::kInvalidArgument, std::move(what)}; }

Result<void> check_texts(const std::vector<std::string>& texts, const char* what, std::size_t& total) {
  if (texts.size() > kStringsMax) return bad("more than " + std::to_string(kStringsMax) + " " + what);
  for (const auto& text : texts) {
    if (text.find('\0') != std::string::npos) return bad(std::string("a NUL byte in the ") + what);
    total += text.size() + 4;
  }
  return {};
}

template <typename T>
Result<void> check_range(T value, T least, T most, const char* what) {
  if (value >= least && value <= most) return {};
  return bad(std::string(what) + " " + std::to_string(value) + " is not between " + std::to_string(least) + " and " + std::to_string(most));
}

Result<void> check_code(const std::string& code_id, const std::vector<std::string>& layer_ids) {
  if (!is_code_id(code_id)) return bad("the code id \"" + code_id + "\" is not 64 hex digits");
  if (layer_ids.size() > kLayersMax) return bad("more than 5 layers");
  for (const auto& layer : layer_ids) {
    if (!is_code_id(layer)) return bad("the layer id \"" + layer + "\" is not 64 hex digits");
  }
  return {};
}

constexpr std::uint64_t kMiB = 1ULL << 20U;
Result<void> check_memory(std::uint64_t bytes) { return check_range(bytes, 4 * kMiB, kMiB * kMiB, "memory in bytes"); }
Result<void> check_cpu(std::uint32_t milli) { return check_range(milli, 1U, 1'000'000U, "thousandths of a CPU"); }

Result<void> check_variables(const std::vector<std::string>& variables) {
  for (const auto& variable : variables) {
    if (variable.find('=') == std::string::npos || variable.front() == '=') return bad("an environment variable is not NAME=value");
  }
  return {};
}

}  // namespace

void wipe(std::string& secret) {
  explicit_bzero(secret.data(), secret.capacity());
  secret.clear();
}

Packet::~Packet() { wipe(bytes); }

bool is_code_id(std::string_view id) {
  return id.size() == 64 && std::ranges::all_of(id, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

Result<void> check_spec(const SandboxSpec& spec) {
  if (spec.id == 0) return bad("a sandbox needs an id other than 0");
  if (spec.stem && !(spec.code_id.empty() && spec.layer_ids.empty() && spec.companions.empty()))
    return bad("a stem has no code, layers or companions");
  if (!spec.stem) MAYFLY_TRY(check_code(spec.code_id, spec.layer_ids));
  if (spec.zygote != 0 && !spec.companions.empty()) return bad("a sandbox with companions cannot be forked");
  if (spec.arguments.empty() || !spec.arguments.front().starts_with('/'))
    return bad("the first argument must be the absolute path of a program");
  if (!spec.working_directory.starts_with('/') || spec.working_directory.find('\0') != std::string::npos)
    return bad("the working directory must be absolute");
  MAYFLY_TRY(check_variables(spec.environment));
  if (spec.companions.size() > kCompanionsMax) return bad("more than 10 companions");
  for (const auto& companion : spec.companions) {
    if (!companion.starts_with('/')) return bad("a companion must be the absolute path of a program");
  }
  if (spec.connectors > kConnectorsMax) return bad("more than 12 connectors");
  std::size_t total = spec.working_directory.size();
  MAYFLY_TRY(check_texts(spec.arguments, "arguments", total));
  MAYFLY_TRY(check_texts(spec.environment, "environment variables", total));
  MAYFLY_TRY(check_texts(spec.companions, "companions", total));
  MAYFLY_TRY(check_texts(spec.companions_lack, "names of variables", total));
  if (total > kTextMax)
    return Error(ErrorCode::kTooLarge, "arguments and environment take " + std::to_string(total) + " bytes; 60000 are the most");
  MAYFLY_TRY(check_memory(spec.memory_bytes));
  MAYFLY_TRY(check_range(spec.tmp_bytes, kMiB, 65'536 * kMiB, "/tmp in bytes"));
  MAYFLY_TRY(check_cpu(spec.cpu_milli));
  MAYFLY_TRY(check_range(spec.processes_max, 1U, 1'000'000U, "the process limit"));
  MAYFLY_TRY(check_range(spec.files_max, 16U, 1'048'576U, "the open files limit"));
  if (spec.network != Network::kNone && spec.network != Network::kOutside) return bad("an unknown network mode");
  return {};
}

Result<void> check_specialisation(const Specialisation& specialisation) {
  if (specialisation.id == 0) return bad("a sandbox needs an id other than 0");
  MAYFLY_TRY(check_code(specialisation.code_id, specialisation.layer_ids));
  MAYFLY_TRY(check_memory(specialisation.memory_bytes));
  return check_cpu(specialisation.cpu_milli);
}

Result<void> check_zygote(const ZygoteSpec& spec) {
  if (spec.id == 0) return bad("a zygote needs an id other than 0");
  if (spec.program.arguments.empty() || !spec.program.arguments.front().starts_with('/'))
    return bad("the first argument must be the absolute path of a program");
  MAYFLY_TRY(check_variables(spec.program.environment));
  std::size_t total = 0;
  MAYFLY_TRY(check_texts(spec.program.arguments, "arguments", total));
  MAYFLY_TRY(check_texts(spec.program.environment, "environment variables", total));
  if (total > kTextMax) return Error(ErrorCode::kTooLarge, "arguments and environment take more than 60000 bytes");
  return {};
}

Result<bool> send_packet(int socket, std::string_view bytes, std::span<const int> descriptors, int flags) {
  if (bytes.size() > kMessageMax) return Error(ErrorCode::kTooLarge, "a message to or from the sandbox launcher exceeds 64 KiB");
  iovec part{.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kDescriptorsMax)> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!descriptors.empty()) {
    const std::size_t size = descriptors.size_bytes();
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(size);
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(size);
    std::memcpy(CMSG_DATA(head), descriptors.data(), size);
  }
  ssize_t sent = -1;
  do sent = sendmsg(socket, &message, flags | MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  if (sent >= 0) return true;
  if (errno == EAGAIN || errno == EWOULDBLOCK) return false;
  if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN) return gone();
  return errno_error("cannot send to the other half of the sandbox launcher", errno);
}

Error no_room_for_descriptors() {
  return {ErrorCode::kResourceExhausted,
          "the limit of open files leaves no room for another sandbox; raise it (LimitNOFILE= of the service, ulimit -n)"};
}

Result<std::optional<Packet>> receive_packet(int socket, int flags) {
  // One buffer for all packets: a new one of this size each time would cost more than the system call. Threads that receive none get none.
  static thread_local const auto kept = std::make_unique_for_overwrite<std::array<char, kMessageMax>>();
  std::array<char, kMessageMax>& buffer = *kept;
  Packet packet;
  iovec part{.iov_base = buffer.data(), .iov_len = buffer.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kDescriptorsMax)> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t got = -1;
  do got = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return std::optional<Packet>();
  if (got < 0 && errno != ECONNRESET) return errno_error("cannot read from the other half of the sandbox launcher", errno);
  if (got <= 0) return gone();
  for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr; head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t i = 0; i < (head->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(head) + i * sizeof(int), sizeof fd);
      packet.descriptors.emplace_back(fd);
    }
  }
  if ((message.msg_flags & MSG_TRUNC) != 0) return Error(ErrorCode::kInternal, "a message of the sandbox launcher was cut off");
  if ((message.msg_flags & MSG_CTRUNC) != 0) {
    packet.descriptors_lost = true;
    packet.descriptors.clear();
  }
  packet.bytes.assign(buffer.data(), static_cast<std::size_t>(got));
  explicit_bzero(buffer.data(), static_cast<std::size_t>(got));
  return std::optional<Packet>(std::move(packet));
}

void write_spec(Writer& out, const SandboxSpec& spec) {
  out.number(spec.id).text(spec.root_id).text(spec.code_id).texts(spec.layer_ids).texts(spec.arguments).texts(spec.environment);
  out.texts(spec.companions).texts(spec.companions_lack).number(spec.connectors);
  out.text(spec.working_directory).number(spec.memory_bytes).number(spec.tmp_bytes).number(spec.cpu_milli);
  out.number(spec.processes_max).number(spec.files_max).number(spec.network);
  out.number(static_cast<std::uint8_t>(spec.stem)).number(spec.zygote);
}

SandboxSpec read_spec(Reader& in) {
  SandboxSpec spec;
  spec.id = in.number<SandboxId>();
  spec.root_id = in.text();
  spec.code_id = in.text();
  spec.layer_ids = in.texts();
  spec.arguments = in.texts();
  spec.environment = in.texts();
  spec.companions = in.texts();
  spec.companions_lack = in.texts();
  spec.connectors = in.number<std::uint32_t>();
  spec.working_directory = in.text();
  spec.memory_bytes = in.number<std::uint64_t>();
  spec.tmp_bytes = in.number<std::uint64_t>();
  spec.cpu_milli = in.number<std::uint32_t>();
  spec.processes_max = in.number<std::uint32_t>();
  spec.files_max = in.number<std::uint32_t>();
  spec.network = in.number<Network>();
  spec.stem = in.flag();
  spec.zygote = in.number<SandboxId>();
  return spec;
}

void write_specialisation(Writer& out, const Specialisation& specialisation) {
  out.number(specialisation.stem).number(specialisation.id).text(specialisation.code_id).texts(specialisation.layer_ids);
  out.number(specialisation.memory_bytes).number(specialisation.cpu_milli);
}

Specialisation read_specialisation(Reader& in) {
  Specialisation specialisation;
  specialisation.stem = in.number<SandboxId>();
  specialisation.id = in.number<SandboxId>();
  specialisation.code_id = in.text();
  specialisation.layer_ids = in.texts();
  specialisation.memory_bytes = in.number<std::uint64_t>();
  specialisation.cpu_milli = in.number<std::uint32_t>();
  return specialisation;
}

void write_zygote(Writer& out, const ZygoteSpec& spec) {
  out.number(spec.id).text(spec.program.root_id).texts(spec.program.arguments).texts(spec.program.environment);
}

ZygoteSpec read_zygote(Reader& in) {
  ZygoteSpec spec;
  spec.id = in.number<SandboxId>();
  spec.program.root_id = in.text();
  spec.program.arguments = in.texts();
  spec.program.environment = in.texts();
  return spec;
}

void write_capabilities(Writer& out, const HostCapabilities& host) {
  for (const bool flag : {host.privileged, host.user_namespaces, host.memory_limit, host.cpu_quota, host.process_limit, host.freezer,
                          host.disk_tmp, host.outside_network, host.seccomp, host.zygotes}) {
    out.number(static_cast<std::uint8_t>(flag));
  }
  out.text(host.memory_controller).text(host.cpu_controller).text(host.pids_controller).text(host.freezer_controller).texts(host.notes);
}

HostCapabilities read_capabilities(Reader& in) {
  HostCapabilities host;
  for (bool* flag : {&host.privileged, &host.user_namespaces, &host.memory_limit, &host.cpu_quota, &host.process_limit, &host.freezer,
                     &host.disk_tmp, &host.outside_network, &host.seccomp, &host.zygotes}) {
    *flag = in.flag();
  }
  for (std::string* name : {&host.memory_controller, &host.cpu_controller, &host.pids_controller, &host.freezer_controller})
    *name = in.text();
  host.notes = in.texts();
  return host;
}

void write_limits(Writer& out, const Launcher::UnpackLimits& limits) {
  out.number(limits.bytes_max).number(limits.entries_max).number(limits.ratio_max).number(limits.path_max).number(limits.depth_max);
}

Launcher::UnpackLimits read_limits(Reader& in) {
  Launcher::UnpackLimits limits;
  limits.bytes_max = in.number<std::uint64_t>();
  limits.entries_max = in.number<std::uint32_t>();
  limits.ratio_max = in.number<std::uint32_t>();
  limits.path_max = in.number<std::uint32_t>();
  limits.depth_max = in.number<std::uint32_t>();
  return limits;
}

namespace {

// The descriptors of a sandbox in the order they travel.
template <typename Holder, typename Fd>
std::array<Fd*, 16> descriptors_of(Holder& sandbox) {
  return {&sandbox.runtime_api,    &sandbox.data_api,         &sandbox.dns_udp,     &sandbox.dns_tcp,
          &sandbox.output,         &sandbox.framed_log,       &sandbox.freeze_file, &sandbox.cpu_stat,
          &sandbox.cpu_quota_file, &sandbox.memory_stat,      &sandbox.main_status, &sandbox.memory_events,
          &sandbox.gate,           &sandbox.companion_output, &sandbox.control_in,  &sandbox.control_out};
}

}  // namespace

void write_sandbox(Writer& out, const Sandbox& sandbox, std::vector<int>& descriptors) {
  std::uint32_t present = 0;
  std::uint32_t bit = 1;
  for (const UniqueFd* fd : descriptors_of<const Sandbox, const UniqueFd>(sandbox)) {
    if (fd->valid()) {
      present |= bit;
      descriptors.push_back(fd->get());
    }
    bit <<= 1U;
  }
  for (const UniqueFd& connector : sandbox.connectors) descriptors.push_back(connector.get());
  out.number(sandbox.id).number(present).number(static_cast<std::uint8_t>(sandbox.cgroup_v2_freezer));
  out.number(static_cast<std::uint8_t>(sandbox.cgroup_v2_memory))
      .number(static_cast<std::uint8_t>(sandbox.cgroup_v2_cpu))
      .number(sandbox.cpu_milli);
}

Sandbox read_sandbox(Reader& in, std::vector<UniqueFd>& descriptors) {
  Sandbox sandbox;
  sandbox.id = in.number<SandboxId>();
  const auto present = in.number<std::uint32_t>();
  sandbox.cgroup_v2_freezer = in.flag();
  sandbox.cgroup_v2_memory = in.flag();
  sandbox.cgroup_v2_cpu = in.flag();
  sandbox.cpu_milli = in.number<std::uint32_t>();
  std::size_t next = 0;
  std::uint32_t bit = 1;
  for (UniqueFd* fd : descriptors_of<Sandbox, UniqueFd>(sandbox)) {
    if ((present & bit) != 0 && next < descriptors.size()) *fd = std::move(descriptors[next++]);
    bit <<= 1U;
  }
  while (next < descriptors.size()) sandbox.connectors.push_back(std::move(descriptors[next++]));
  return sandbox;
}

}  // namespace mayfly::sandbox::internal
