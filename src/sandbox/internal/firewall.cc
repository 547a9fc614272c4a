#include "sandbox/internal/firewall.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox/internal/netlink.h"

namespace mayfly::sandbox::internal {

using base::errno_error;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::UniqueFd;

namespace {

constexpr int kNftMilliseconds = 10'000;

// Denied whatever the configuration says. Metadata addresses outside 169.254.0.0/16 belong to clouds whose hosts answer them:
// 100.100.100.200 (Alibaba), 192.0.0.192 (Oracle), 168.63.129.16 (Azure). IPv6 is dropped whole, so fd00:ec2::254 too.
constexpr std::array<std::string_view, 8> kAlwaysDenied = {"0.0.0.0/8",   "127.0.0.0/8",        "169.254.0.0/16", "224.0.0.0/4",
                                                           "240.0.0.0/4", "100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32"};

Result<UniqueFd> memory_file(const char* name, std::string_view content) {
  UniqueFd file(::memfd_create(name, MFD_CLOEXEC));
  if (!file) return errno_error("make a memory file for nft", errno);
  MAYFLY_TRY(base::write_all(file.get(), content));
  if (::lseek(file.get(), 0, SEEK_SET) != 0) return errno_error("rewind a memory file for nft", errno);
  return file;
}

Result<std::string> content_of(const UniqueFd& file) {
  if (::lseek(file.get(), 0, SEEK_SET) != 0) return errno_error("rewind the output of nft", errno);
  return base::read_all(file.get(), 8U << 20U);
}

// In the child: only calls that are safe after fork.
[[noreturn]] void become_nft(const char* path, char* const* argv, int mount_namespace, int in, int out, int err) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int number = 1; number < 32; ++number) ::signal(number, SIG_DFL);
  if (mount_namespace >= 0) (void)::setns(mount_namespace, CLONE_NEWNS);  // refused where it is ours already and we are not root
  if (::dup2(in, 0) < 0 || ::dup2(out, 1) < 0 || ::dup2(err, 2) < 0) ::_exit(126);
  char* const environment[] = {nullptr};
  ::execve(path, argv, environment);
  ::_exit(127);
}

// Waits for `pid`; kills it after kNftMilliseconds.
Result<int> wait_for(pid_t pid) {
  const UniqueFd handle(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (handle) {
    pollfd ended{.fd = handle.get(), .events = POLLIN, .revents = 0};
    int ready = 0;
    do {
      ready = ::poll(&ended, 1, kNftMilliseconds);
    } while (ready < 0 && errno == EINTR);
    if (ready == 0) ::kill(pid, SIGKILL);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return errno_error("wait for nft", errno);
  }
  return status;
}

std::uint32_t mask_of(unsigned prefix) { return prefix == 0 ? 0 : ~std::uint32_t{0} << (32U - prefix); }

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) text.replace(at, from.size(), to);
}

// Order of hooks: a drop (or reject) in any chain of any table is final, an accept only ends that chain. So what is dropped here
// stays dropped whatever Docker, firewalld or ufw accept, before or after; and what is accepted here may still be dropped by
// them. Priority -150 lies behind connection tracking (-200) and before destination NAT (-100): `arriving` judges the address
// the sandbox asked for, so another table's port forwarding cannot hide a host address; `to_host` and `through` judge again
// what came out of that NAT.
constexpr std::string_view kRules = R"(table inet @TABLE@
delete table inet @TABLE@
table inet @TABLE@ {
  set denied {
    type ipv4_addr
    flags interval
    auto-merge
    elements = { @DENIED@ }
  }
  set flows {
    type ipv4_addr
    flags dynamic
    size 65535
  }
  chain refuse {
    meta l4proto tcp reject with tcp reset
    reject with icmpx type admin-prohibited
  }
  chain arriving {
    type filter hook prerouting priority -150; policy accept;
    iifname != "@DEVICE@*" return
    meta nfproto != ipv4 drop
    ct state invalid drop
    fib saddr . iif oif missing drop
    fib daddr type != unicast goto refuse
    ip daddr @denied goto refuse
    ct state new add @flows { ip saddr ct count over 4096 } drop
  }
  chain to_host {
    type filter hook input priority -150; policy accept;
    iifname "@DEVICE@*" drop
  }
  chain through {
    type filter hook forward priority -150; policy accept;
    iifname "@DEVICE@*" ip daddr @denied drop
    oifname "@DEVICE@*" ct state established accept
    oifname "@DEVICE@*" ct state related meta l4proto icmp accept
    oifname "@DEVICE@*" drop
  }
  chain from_host {
    type filter hook output priority -150; policy accept;
    oifname "@DEVICE@*" ct state new drop
  }
  chain outward {
    type nat hook postrouting priority 100; policy accept;
    iifname "@DEVICE@*" masquerade
  }
}
)";

}  // namespace

std::string ipv4_text(std::uint32_t address) {
  const in_addr value{.s_addr = htonl(address)};
  std::array<char, INET_ADDRSTRLEN> text{};
  ::inet_ntop(AF_INET, &value, text.data(), text.size());
  return text.data();
}

std::string Ipv4Range::to_string() const { return ipv4_text(address) + "/" + std::to_string(prefix); }

Result<Ipv4Range> parse_ipv4_range(std::string_view text) {
  const auto wrong = [&](std::string_view why) {
    return Error(ErrorCode::kInvalidArgument, "\"" + std::string(text.substr(0, 64)) + "\" is not an IPv4 network: " + std::string(why) +
                                                  ". Write it as in 10.0.0.0/8.");
  };
  const auto slash = text.find('/');
  Ipv4Range range;
  in_addr parsed{};
  if (::inet_pton(AF_INET, std::string(text.substr(0, slash)).c_str(), &parsed) != 1) return wrong("the address is malformed");
  range.address = ntohl(parsed.s_addr);
  if (slash != std::string_view::npos) {
    const auto digits = text.substr(slash + 1);
    const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), range.prefix);
    if (code != std::errc{} || end != digits.data() + digits.size() || range.prefix > 32) return wrong("the prefix length is not 0 to 32");
  }
  if ((range.address & ~mask_of(range.prefix)) != 0) {
    return wrong("bits behind the prefix are set; did you mean " + ipv4_text(range.address & mask_of(range.prefix)) + "/" +
                 std::to_string(range.prefix) + "?");
  }
  return range;
}

bool is_ipv6_range(std::string_view text) {
  const auto slash = text.find('/');
  in6_addr parsed{};
  if (::inet_pton(AF_INET6, std::string(text.substr(0, slash)).c_str(), &parsed) != 1) return false;
  if (slash == std::string_view::npos) return true;
  unsigned prefix = 0;
  const auto digits = text.substr(slash + 1);
  const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), prefix);
  return code == std::errc{} && end == digits.data() + digits.size() && prefix <= 128;
}

std::string firewall_rules(const FirewallOptions& options) {
  std::string denied;
  for (const auto range : kAlwaysDenied) denied += (denied.empty() ? "" : ", ") + std::string(range);
  for (const auto& range : options.denied) denied += ", " + range.to_string();
  std::string rules(kRules);
  replace_all(rules, "@TABLE@", options.table);
  replace_all(rules, "@DEVICE@", options.device_prefix);
  replace_all(rules, "@DENIED@", denied);
  return rules;
}

std::string find_nft() {
  for (const char* path : {"/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft"}) {
    if (::access(path, X_OK) == 0) return path;
  }
  return {};
}

Result<std::string> run_nft(const std::string& nft, const std::vector<std::string>& arguments, std::string_view input,
                            const UniqueFd& mount_namespace) {
  MAYFLY_ASSIGN(const UniqueFd in, memory_file("nft-in", input));
  MAYFLY_ASSIGN(const UniqueFd out, memory_file("nft-out", {}));
  MAYFLY_ASSIGN(const UniqueFd err, memory_file("nft-err", {}));
  std::vector<std::string> words = arguments;
  words.insert(words.begin(), "nft");
  std::vector<char*> argv;
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid < 0) return errno_error("start nft", errno);
  if (pid == 0) become_nft(nft.c_str(), argv.data(), mount_namespace.get(), in.get(), out.get(), err.get());
  MAYFLY_ASSIGN(const int status, wait_for(pid));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return content_of(out);
  MAYFLY_ASSIGN(std::string said, content_of(err));
  if (WIFSIGNALED(status)) said = "ended by signal " + std::to_string(WTERMSIG(status)) + " (10 s at most)";
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) said = "the program could not be executed";
  while (!said.empty() && said.back() == '\n') said.pop_back();
  return Error(ErrorCode::kUnavailable, nft + ": " + said.substr(0, 1000));
}

Result<bool> table_exists(const std::string& table) {
  MAYFLY_ASSIGN(NetlinkSocket socket, NetlinkSocket::open(NETLINK_NETFILTER));
  const nfgenmsg inet{.nfgen_family = NFPROTO_INET, .version = NFNETLINK_V0, .res_id = 0};
  NetlinkBatch batch;
  batch.begin("look for firewall table " + table, (NFNL_SUBSYS_NFTABLES << 8U) | NFT_MSG_GETTABLE, NLM_F_REQUEST, inet)
      .text(NFTA_TABLE_NAME, table);
  MAYFLY_ASSIGN(const int failed, socket.query(batch, [](const nlmsghdr&, std::span<const std::byte>) {}));
  if (failed == 0) return true;
  if (failed == ENOENT) return false;
  return errno_error("look for firewall table " + table, failed);
}

Result<void> delete_table(const std::string& table) {
  MAYFLY_ASSIGN(NetlinkSocket socket, NetlinkSocket::open(NETLINK_NETFILTER));
  const nfgenmsg inet{.nfgen_family = NFPROTO_INET, .version = NFNETLINK_V0, .res_id = 0};
  const nfgenmsg batch_header{.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(NFNL_SUBSYS_NFTABLES)};
  NetlinkBatch batch;
  batch.begin("begin a firewall change", NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, batch_header);
  batch.begin("delete firewall table " + table, (NFNL_SUBSYS_NFTABLES << 8U) | NFT_MSG_DELTABLE, NLM_F_REQUEST | NLM_F_ACK, inet)
      .text(NFTA_TABLE_NAME, table);
  batch.begin("end a firewall change", NFNL_MSG_BATCH_END, NLM_F_REQUEST, batch_header);
  std::string step;
  MAYFLY_ASSIGN(const int failed, socket.apply_errno(batch, &step));
  if (failed == 0 || failed == ENOENT) return {};
  return errno_error(step, failed);
}

std::vector<std::string> dropping_forward_chains(std::string_view output) {
  std::vector<std::string> found;
  std::string table;
  std::string chain;
  while (!output.empty()) {
    const auto end = output.find('\n');
    std::string_view line = output.substr(0, end);
    output.remove_prefix(end == std::string_view::npos ? output.size() : end + 1);
    while (!line.empty() && (line.front() == '\t' || line.front() == ' ')) line.remove_prefix(1);
    const auto name_of = [&](std::string_view word) { return std::string(line.substr(word.size(), line.rfind(" {") - word.size())); };
    if (line.starts_with("table ")) table = name_of("table ");
    if (line.starts_with("chain ")) chain = name_of("chain ");
    if (line.find("hook forward") != std::string_view::npos && line.find("policy drop") != std::string_view::npos) {
      found.push_back(table + " " + chain);
    }
  }
  return found;
}

}  // namespace mayfly::sandbox::internal
