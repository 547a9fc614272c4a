#include "sandbox/internal/network_traces.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>

namespace mayfly::sandbox::internal {

using base::errno_error;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::UniqueFd;

namespace {

// Absent ones (a kernel without IPv6) are absent in every namespace.
constexpr std::array kCounters = {"dev", "snmp", "netstat", "snmp6", "arp", "ip6_flowlabel", "mptcp_net"};
constexpr std::size_t kFileMost = 64UL << 10U;

// Appends the file; nothing where there is none.
Result<void> append_file(const UniqueFd& proc, const std::string& name, std::string& text) {
  const UniqueFd file(::openat(proc.get(), ("self/net/" + name).c_str(), O_RDONLY | O_CLOEXEC));
  if (!file && errno == ENOENT) return {};
  if (!file) return errno_error("open /proc/self/net/" + name, errno);
  MAYFLY_ASSIGN(const std::string read, base::read_all(file.get(), kFileMost));
  text += read;
  return {};
}

// The number behind `word` in `line`.
std::size_t number_after(std::string_view line, std::string_view word) {
  const std::size_t at = line.find(word);
  std::size_t value = 0;
  if (at != std::string_view::npos) std::from_chars(line.data() + at + word.size(), line.data() + line.size(), value);
  return value;
}

}  // namespace

Result<NetworkTraces> read_network_traces(const UniqueFd& proc) {
  NetworkTraces traces;
  std::string sockets;
  MAYFLY_TRY(append_file(proc, "sockstat", sockets));
  MAYFLY_TRY(append_file(proc, "sockstat6", sockets));
  if (!sockets.starts_with("sockets: used ")) return Error(ErrorCode::kUnsupported, "the kernel does not tell how many sockets there are");
  traces.sockets = number_after(sockets, "sockets: used ");
  for (std::string_view rest = sockets; !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    // The rest of TCP's line is that of all namespaces together.
    if (line.starts_with("TCP:")) traces.counters += "tw " + std::to_string(number_after(line, " tw ")) + "\n";
    if (line.starts_with("FRAG")) traces.counters.append(line).append("\n");
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  for (const char* name : kCounters) MAYFLY_TRY(append_file(proc, name, traces.counters));
  return traces;
}

}  // namespace mayfly::sandbox::internal
