#include "sandbox/internal/network_traces.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <memory>
#include <string_view>
#include <utility>

namespace mayfly::sandbox::internal {

using base::errno_error;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::UniqueFd;

namespace {

// Of /proc/self/net, which is different with every kernel, all is compared but what says nothing of one namespace, so that nothing is
// missed that nobody thought of.
constexpr std::array kNotCompared = std::to_array<std::string_view>({
    // Of the whole host: processors, loaded modules, sockets of all namespaces. "rpc" has files that wait.
    "softnet_stat",
    "rt_acct",
    "protocols",
    "ptype",
    "can",
    "rpc",
    "stat/rt_cache",
    "stat/arp_cache",
    "stat/ndisc_cache",
    "netfilter/nf_log",
    "arp_tables_matches",
    "arp_tables_targets",
    "ip_tables_matches",
    "ip_tables_targets",
    "ip6_tables_matches",
    "ip6_tables_targets",
    // The address that each has of its own, which takes a capability to change.
    "route",
    "fib_trie",
    // Of the namespace, but the kernel looks for it among those of the whole host: 0.3 ms. "stat/nf_conntrack" has their number.
    "nf_conntrack",
    // Lists of sockets, also of the server's own, which close later: they are counted.
    "sockstat",
    "sockstat6",
    "tcp",
    "tcp6",
    "udp",
    "udp6",
    "udplite",
    "udplite6",
    "raw",
    "raw6",
    "icmp",
    "icmp6",
    "packet",
    "unix",
    "netlink",
});
// Where every packet shows, also one that nobody's process caused. Absent ones (a kernel without IPv6) are absent in every namespace.
constexpr std::array kTraffic = {"dev", "snmp", "netstat", "snmp6", "arp", "ip6_flowlabel", "mptcp_net"};
constexpr std::size_t kFileMost = 64UL << 10U;
constexpr int kDepthMost = 4;

// Appends the file; nothing where there is none.
Result<void> append_file(int directory, const char* name, std::string& text) {
  static std::array<char, kFileMost> part;  // the process has one thread; a string would be cleared for each file anew
  const UniqueFd file(::openat(directory, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!file && errno == ENOENT) return {};
  if (!file) return errno_error(std::string("open /proc/self/net/") + name, errno);
  for (std::size_t size = 0; size < kFileMost;) {
    const ssize_t got = ::read(file.get(), part.data(), part.size());
    if (got < 0) return errno_error(std::string("read /proc/self/net/") + name, errno);
    if (got == 0) return {};
    text.append(part.data(), static_cast<std::size_t>(got));
    size += static_cast<std::size_t>(got);
  }
  return Error(ErrorCode::kTooLarge, std::string("/proc/self/net/") + name + " has more than 64 KiB");
}

// Appends all files in and below `directory`, which is called `path`.
Result<void> append_files(UniqueFd directory, const std::string& path, std::string& text, int depth) {
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(directory.get()), ::closedir);
  if (!entries) return errno_error("list /proc/self/net/" + path, errno);
  const int at = directory.release();
  while (true) {
    errno = 0;
    const dirent* entry = ::readdir(entries.get());
    if (entry == nullptr && errno != 0) return errno_error("list /proc/self/net/" + path, errno);
    if (entry == nullptr) return {};
    const std::string_view name = entry->d_name;
    const std::string whole = path + entry->d_name;
    if (name == "." || name == ".." || std::ranges::find(kNotCompared, whole) != kNotCompared.end()) continue;
    text.append(whole).push_back('\n');
    if (entry->d_type != DT_DIR) {
      MAYFLY_TRY(append_file(at, entry->d_name, text));
      continue;
    }
    UniqueFd below(::openat(at, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!below || depth == 0) return errno_error("open /proc/self/net/" + whole, below ? ELOOP : errno);
    MAYFLY_TRY(append_files(std::move(below), whole + "/", text, depth - 1));
  }
}

// The number behind `word` in `line`.
std::size_t number_after(std::string_view line, std::string_view word) {
  const std::size_t at = line.find(word);
  std::size_t value = 0;
  if (at != std::string_view::npos) std::from_chars(line.data() + at + word.size(), line.data() + line.size(), value);
  return value;
}

}  // namespace

Result<NetworkTraces> read_network_traces(const UniqueFd& proc, TracesOf what) {
  NetworkTraces traces;
  UniqueFd net(::openat(proc.get(), "self/net", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!net) return errno_error("open /proc/self/net", errno);
  std::string sockets;
  MAYFLY_TRY(append_file(net.get(), "sockstat", sockets));
  MAYFLY_TRY(append_file(net.get(), "sockstat6", sockets));
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
  if (what == TracesOf::kAll) MAYFLY_TRY(append_files(std::move(net), "", traces.counters, kDepthMost));
  if (what == TracesOf::kTraffic) {
    for (const char* name : kTraffic) MAYFLY_TRY(append_file(net.get(), name, traces.counters));
  }
  return traces;
}

}  // namespace mayfly::sandbox::internal
