#include "sandbox/internal/network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <optional>
#include <unordered_map>
#include <utility>

#include "base/assert.h"
#include "base/log.h"
#include "sandbox/internal/firewall.h"
#include "sandbox/internal/netlink.h"
#include "sandbox/internal/network_traces.h"
#include "sandbox/internal/protocol.h"

namespace mayfly::sandbox::internal {

using base::errno_error;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::UniqueFd;

namespace {

constexpr std::uint32_t kServiceAddress = 0xA9FE6401;  // 169.254.100.1
constexpr std::uint16_t kRuntimeApiPort = 9001;
constexpr std::uint16_t kDataApiPort = 9002;
constexpr std::uint16_t kDnsPort = 53;
constexpr int kBacklog = 64;
constexpr int kSlotTries = 256;  // occupied slots passed over before giving up
constexpr std::size_t kDenyMax = 1024;
constexpr std::size_t kNotesMax = 8;
constexpr std::chrono::seconds kKeptFor{10};  // without anybody who needs it
constexpr std::size_t kLetGoMost = 8;         // at a time
constexpr std::size_t kLooksMost = 4;         // at kept networks whose sockets the server has not closed so far
constexpr std::chrono::seconds kGrace{30};    // for the kernel and the server to let go of a removed sandbox's namespace
constexpr std::uint16_t kChange = NLM_F_REQUEST | NLM_F_ACK;
constexpr std::uint16_t kCreate = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
constexpr std::string_view kDeviceInside = "eth0";

std::span<const std::byte> bytes_of(const auto& value) { return std::as_bytes(std::span(&value, 1)); }

NetlinkBatch& add_address(NetlinkBatch& batch, std::string step, int device, std::uint32_t address, unsigned prefix) {
  ifaddrmsg header{};
  header.ifa_family = AF_INET;
  header.ifa_prefixlen = static_cast<std::uint8_t>(prefix);
  header.ifa_index = static_cast<std::uint32_t>(device);
  const std::uint32_t wire = htonl(address);
  batch.begin(std::move(step), RTM_NEWADDR, kCreate, header);
  return batch.attribute(IFA_LOCAL, bytes_of(wire)).attribute(IFA_ADDRESS, bytes_of(wire));
}

NetlinkBatch& bring_up(NetlinkBatch& batch, std::string step, int device) {
  ifinfomsg header{};
  header.ifi_index = device;
  header.ifi_flags = IFF_UP;
  header.ifi_change = IFF_UP;
  return batch.begin(std::move(step), RTM_NEWLINK, kChange, header);
}

Result<int> device_index(int socket, std::string_view name) {
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), std::min(name.size(), sizeof request.ifr_name - 1));
  if (::ioctl(socket, SIOCGIFINDEX, &request) != 0) return errno_error("look up device " + std::string(name), errno);
  return request.ifr_ifindex;
}

Result<UniqueFd> service_socket(int type, std::uint16_t port) {
  const std::string step = (type == SOCK_STREAM ? "listen on 169.254.100.1:" : "bind UDP 169.254.100.1:") + std::to_string(port);
  UniqueFd socket(::socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return errno_error(step, errno);
  const int on = 1;
  // Not for UDP, where a second socket with the option could take the port over.
  if (type == SOCK_STREAM && ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) return errno_error(step, errno);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(kServiceAddress);
  if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return errno_error(step, errno);
  if (type == SOCK_STREAM && ::listen(socket.get(), kBacklog) != 0) return errno_error(step, errno);
  return socket;
}

// The network namespace `socket` lives in.
Result<UniqueFd> namespace_of(int socket) {
  const int fd = ::ioctl(socket, SIOCGSKNS);
  if (fd < 0) return errno_error("open the network namespace of a socket", errno);
  return UniqueFd(fd);
}

// Sets a kernel setting of the network namespace the caller is in; best effort.
void write_setting(const UniqueFd& sysctl, const char* name, std::string_view value) {
  const UniqueFd file(::openat(sysctl.get(), name, O_WRONLY | O_CLOEXEC));
  if (file) (void)!::write(file.get(), value.data(), value.size());
}

// The service sockets, in the network namespace the caller is in.
Result<SandboxNetwork> open_service_sockets(Network mode, std::uint32_t connectors) {
  SandboxNetwork network;
  MAYFLY_ASSIGN(network.runtime_api, service_socket(SOCK_STREAM, kRuntimeApiPort));
  MAYFLY_ASSIGN(network.data_api, service_socket(SOCK_STREAM, kDataApiPort));
  for (std::uint32_t i = 0; i < connectors; ++i) {
    network.connectors.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!network.connectors.back()) return errno_error("make a socket", errno);
  }
  if (mode == Network::kNone) return network;
  MAYFLY_ASSIGN(network.dns_udp, service_socket(SOCK_DGRAM, kDnsPort));
  MAYFLY_ASSIGN(network.dns_tcp, service_socket(SOCK_STREAM, kDnsPort));
  return network;
}

// Furnishes the new network namespace the caller is in: loopback and the service sockets.
Result<SandboxNetwork> furnish(Network mode, std::uint32_t connectors, const UniqueFd& sysctl) {
  MAYFLY_ASSIGN(NetlinkSocket netlink, NetlinkSocket::open(NETLINK_ROUTE));
  NetlinkBatch batch;
  constexpr int kLoopback = 1;  // always, in a new namespace
  bring_up(batch, "bring up the loopback device", kLoopback);
  add_address(batch, "address the loopback device", kLoopback, kServiceAddress, 32);
  MAYFLY_TRY(netlink.apply(batch));
  // Devices that appear here have no IPv6. Where that cannot be set the firewall still drops it.
  if (mode == Network::kOutside) write_setting(sysctl, "net/ipv6/conf/default/disable_ipv6", "1");
  MAYFLY_ASSIGN(SandboxNetwork network, open_service_sockets(mode, connectors));
  MAYFLY_ASSIGN(network.netns, namespace_of(netlink.fd()));
  return network;
}

constexpr std::size_t kListeners = 5;
constexpr std::size_t kSockets = kListeners + kConnectorsMax;

// The report of the helper process of make_in_helper(): the descriptors travel beside it.
struct HelperReport {
  std::uint32_t failed = 0;
  std::uint32_t code = 0;
  std::uint32_t sockets = 0;     // in all
  std::uint32_t connectors = 0;  // the last of them
  char message[500] = {};
};

void send_report(int channel, Result<SandboxNetwork>& made) {
  HelperReport report;
  std::array<int, kSockets> fds{};
  std::uint32_t count = 0;
  if (made.ok()) {
    for (const UniqueFd* fd : {&made->netns, &made->runtime_api, &made->data_api, &made->dns_udp, &made->dns_tcp}) {
      if (fd->valid()) fds[count++] = fd->get();
    }
    for (const UniqueFd& connector : made->connectors) fds[count++] = connector.get();
    report.connectors = static_cast<std::uint32_t>(made->connectors.size());
  } else {
    report.failed = 1;
    report.code = static_cast<std::uint32_t>(made.error().code());
    made.error().message().copy(report.message, sizeof report.message - 1);
  }
  report.sockets = count;
  iovec part{.iov_base = &report, .iov_len = sizeof report};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kSockets)> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (count > 0) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int) * count);
    std::memcpy(CMSG_DATA(head), fds.data(), sizeof(int) * count);
  }
  (void)::sendmsg(channel, &message, MSG_NOSIGNAL);
}

Result<SandboxNetwork> receive_report(int channel) {
  HelperReport report;
  iovec part{.iov_base = &report, .iov_len = sizeof report};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kSockets)> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t got = 0;
  do {
    got = ::recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got != static_cast<ssize_t>(sizeof report))
    return Error(ErrorCode::kInternal, "the helper that makes network namespaces ended early");
  std::vector<UniqueFd> fds;
  if (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr && head->cmsg_type == SCM_RIGHTS) {
    for (std::size_t i = 0; i < (head->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(head) + i * sizeof(int), sizeof fd);
      fds.emplace_back(fd);
    }
  }
  if (report.failed != 0) return Error(static_cast<ErrorCode>(report.code), report.message);
  if (fds.size() != report.sockets || fds.size() < 3 + std::size_t{report.connectors})
    return Error(ErrorCode::kInternal, "descriptors of a new network namespace were lost");
  SandboxNetwork network{std::move(fds[0]), std::move(fds[1]), std::move(fds[2]), {}, {}, {}};
  for (auto fd = fds.end() - report.connectors; fd != fds.end(); ++fd) network.connectors.push_back(std::move(*fd));
  if (fds.size() - report.connectors == kListeners) {
    network.dns_udp = std::move(fds[3]);
    network.dns_tcp = std::move(fds[4]);
  }
  return network;
}

Result<SandboxNetwork> make_here(Network mode, std::uint32_t connectors, const UniqueFd& sysctl) {
  if (::unshare(CLONE_NEWNET) != 0) return errno_error("make a network namespace", errno);
  return furnish(mode, connectors, sysctl);
}

// For a launcher that cannot come back into the host's namespace (setns needs privilege over it): a child goes instead.
Result<SandboxNetwork> make_in_helper(Network mode, std::uint32_t connectors, const UniqueFd& sysctl) {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return errno_error("make a socket pair", errno);
  const UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) return errno_error("start the helper that makes network namespaces", errno);
  if (pid == 0) {
    auto made = make_here(mode, connectors, sysctl);
    send_report(theirs.get(), made);
    ::_exit(0);
  }
  theirs.reset();
  auto made = receive_report(ours.get());
  while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  return made;
}

bool is_hex8(std::string_view text) {
  return text.size() == 8 && std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::string hex(std::uint32_t value) {
  std::array<char, 9> text{};
  std::snprintf(text.data(), text.size(), "%x", value);
  return text.data();
}

}  // namespace

struct NetworkBuilder::Impl {
  struct Pair {
    std::uint32_t slot = 0;
    int device = 0;
  };
  // What this process holds of one sandbox's network.
  struct Home {
    Network mode = Network::kNone;
    UniqueFd netns;
    std::optional<Pair> pair;  // with kOutside
  };
  struct Kept {
    Home home;
    std::chrono::steady_clock::time_point since;
  };
  struct Fresh {
    std::string all, traffic;  // empty: cannot be told
  };
  struct Condemned {
    int device = 0;
    std::chrono::steady_clock::time_point since;
  };

  NetworkOptions options;
  Ipv4Range cidr;
  std::string device_prefix;
  FirewallOptions firewall;
  std::string nft;
  UniqueFd host_netns;    // invalid when the caller may not enter it again: then a helper makes the namespaces
  UniqueFd host_mounts;   // where nft lives, should the launcher move to another root
  UniqueFd proc, sysctl;  // /proc, /proc/sys
  std::optional<NetlinkSocket> host;
  std::unordered_map<std::uint64_t, Home> homes;      // by sandbox
  std::deque<Kept> kept;                              // the longest kept first
  std::unordered_map<Network, Fresh> fresh_counters;  // of a new namespace
  std::deque<Condemned> condemned;                    // removed, waiting for the kernel to delete the device with its namespace
  std::uint32_t next_slot = 0;
  bool firewall_was_installed = false;
  std::string why_not;
  std::vector<std::string> notes;

  [[nodiscard]] std::uint32_t slot_count() const { return std::uint32_t{1} << (30U - cidr.prefix); }
  [[nodiscard]] std::uint32_t host_address(std::uint32_t slot) const { return cidr.address + slot * 4 + 1; }
  [[nodiscard]] std::uint32_t inner_address(std::uint32_t slot) const { return cidr.address + slot * 4 + 2; }
  [[nodiscard]] std::string device_name(std::uint32_t slot) const { return device_prefix + hex(slot); }

  Result<void> prepare();
  void judge_outside();
  Result<SandboxNetwork> make_namespace(Network mode, std::uint32_t connectors);
  Result<bool> is_routed_elsewhere(std::uint32_t address);
  Result<Pair> make_pair(const UniqueFd& netns);
  Result<Pair> connect_outside(const SandboxNetwork& network);
  void remember_fresh(const Home& home);
  Result<NetworkTraces> traces_of(const UniqueFd& netns, TracesOf what);
  std::optional<NetworkTraces> traces_if_untouched(const Home& home, TracesOf what);
  std::optional<Home> take_kept(Network mode);
  Result<SandboxNetwork> reuse(const Home& home, std::uint32_t connectors);
  void destroy(Home home);
  Result<bool> try_slot(std::uint32_t slot, const UniqueFd& netns);
  Result<int> address_host_side(std::uint32_t slot);
  Result<void> address_inside(const SandboxNetwork& network, std::uint32_t slot);
  void settle(std::uint32_t slot);
  Result<void> install_firewall();
  Result<void> enable_forwarding();
  void note_other_firewalls();
  void withdraw_address(const Pair& pair);
  void hasten_end(const UniqueFd& netns);
  void sweep_condemned();
  Result<bool> delete_device(int index);
  Result<std::vector<int>> own_devices();
};

Result<void> NetworkBuilder::Impl::prepare() {
  if (!is_hex8(options.instance))
    return Error(ErrorCode::kInvalidArgument, "the instance \"" + options.instance + "\" is not 8 hex digits");
  MAYFLY_ASSIGN(cidr, parse_ipv4_range(options.cidr));
  if (cidr.prefix < 10 || cidr.prefix > 28) {
    return Error(ErrorCode::kInvalidArgument,
                 "the sandbox network " + options.cidr + " must be a /10 to /28: each sandbox takes a /30 of it");
  }
  if (options.deny.size() > kDenyMax) return Error(ErrorCode::kInvalidArgument, "more than 1024 denied networks");
  device_prefix = "mf" + options.instance;
  firewall = {.table = "mayfly_" + options.instance, .device_prefix = device_prefix, .denied = {cidr}};
  for (const auto& text : options.deny) {
    if (is_ipv6_range(text)) continue;  // no IPv6 leaves a sandbox at all
    MAYFLY_ASSIGN(const Ipv4Range range, parse_ipv4_range(text).with_context("denied network"));
    firewall.denied.push_back(range);
  }
  // Instances start at different places, so that two of them on one host seldom try the same addresses.
  next_slot = static_cast<std::uint32_t>(std::strtoul(options.instance.c_str(), nullptr, 16)) * 2654435761U % slot_count();
  MAYFLY_ASSIGN(NetlinkSocket socket, NetlinkSocket::open(NETLINK_ROUTE));
  host = std::move(socket);
  if (auto own = namespace_of(host->fd()); own.ok() && ::setns(own->get(), CLONE_NEWNET) == 0) host_netns = std::move(own).value();
  host_mounts = UniqueFd(::open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
  proc = UniqueFd(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
  sysctl = UniqueFd(::open("/proc/sys", O_PATH | O_DIRECTORY | O_CLOEXEC));
  nft = find_nft();
  judge_outside();
  return {};
}

void NetworkBuilder::Impl::judge_outside() {
  if (!options.privileged) {
    why_not = "Functions reach no outside network: that takes root. Start Mayfly as root, or give functions `network: none`.";
  } else if (!host_netns) {
    why_not = "Functions reach no outside network: the launcher may not manage this network namespace (CAP_NET_ADMIN and CAP_SYS_ADMIN).";
  } else if (nft.empty()) {
    why_not = "Functions reach no outside network: nft is not in /usr/sbin, /sbin or /usr/bin. Install the package nftables.";
  }
}

Result<SandboxNetwork> NetworkBuilder::Impl::make_namespace(Network mode, std::uint32_t connectors) {
  if (!host_netns) return make_in_helper(mode, connectors, sysctl);
  auto made = make_here(mode, connectors, sysctl);
  // Staying in a sandbox's namespace would give later work to the wrong network: nothing sensible can follow.
  MAYFLY_ASSERT(::setns(host_netns.get(), CLONE_NEWNET) == 0, "cannot return to the host's network namespace");
  return made;
}

// Whether `address` lies in a small network of the host's (another instance, a VPN peer): then the slot is not ours.
Result<bool> NetworkBuilder::Impl::is_routed_elsewhere(std::uint32_t address) {
  rtmsg header{};
  header.rtm_family = AF_INET;
  header.rtm_dst_len = 32;
  header.rtm_flags = RTM_F_FIB_MATCH;  // answers the route that matched, with its length
  const std::uint32_t wire = htonl(address);
  NetlinkBatch batch;
  batch.begin("look up the route to " + ipv4_text(address), RTM_GETROUTE, NLM_F_REQUEST, header).attribute(RTA_DST, bytes_of(wire));
  bool taken = false;
  MAYFLY_ASSIGN(const int failed, host->query(batch, [&](const nlmsghdr&, std::span<const std::byte> payload) {
    rtmsg route{};
    if (payload.size() < sizeof route) return;
    std::memcpy(&route, payload.data(), sizeof route);
    taken = route.rtm_dst_len > cidr.prefix;
  }));
  (void)failed;  // no route at all: free
  return taken;
}

// Makes the pair with the names of `slot`; false when that name exists: in use, or not yet deleted by the kernel.
Result<bool> NetworkBuilder::Impl::try_slot(std::uint32_t slot, const UniqueFd& netns) {
  NetlinkBatch batch;
  batch.begin("make device pair " + device_name(slot), RTM_NEWLINK, kCreate, ifinfomsg{});
  batch.text(IFLA_IFNAME, device_name(slot)).open(IFLA_LINKINFO).text(IFLA_INFO_KIND, "veth").open(IFLA_INFO_DATA);
  batch.open(VETH_INFO_PEER).append(ifinfomsg{}).text(IFLA_IFNAME, kDeviceInside);
  batch.u32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(netns.get())).close().close().close();
  std::string step;
  MAYFLY_ASSIGN(const int failed, host->apply_errno(batch, &step));
  if (failed == EEXIST) return false;
  if (failed != 0) return errno_error(step, failed);
  return true;
}

Result<NetworkBuilder::Impl::Pair> NetworkBuilder::Impl::make_pair(const UniqueFd& netns) {
  for (int tries = 0; tries < kSlotTries; ++tries) {
    const std::uint32_t slot = next_slot;
    next_slot = (next_slot + 1) % slot_count();  // round robin: an address rests as long as possible before it is used again
    MAYFLY_ASSIGN(const bool taken, is_routed_elsewhere(inner_address(slot)));
    if (taken) continue;
    MAYFLY_ASSIGN(const bool made, try_slot(slot, netns));
    if (!made) continue;
    return Pair{.slot = slot};
  }
  return Error(ErrorCode::kResourceExhausted, "no free addresses for a sandbox in " + options.cidr + " (" + std::to_string(homes.size()) +
                                                  " in use): configure a larger sandbox network");
}

Result<int> NetworkBuilder::Impl::address_host_side(std::uint32_t slot) {
  const std::string name = device_name(slot);
  MAYFLY_ASSIGN(const int device, device_index(host->fd(), name));
  NetlinkBatch batch;
  ifinfomsg header{};
  header.ifi_index = device;
  // No IPv6 address of its own, packets forwarded, and only from addresses routed there (the firewall holds to that as well).
  batch.begin("configure device " + name, RTM_SETLINK, kChange, header).open(IFLA_AF_SPEC);
  batch.open(AF_INET).open(IFLA_INET_CONF).u32(IPV4_DEVCONF_FORWARDING, 1).u32(IPV4_DEVCONF_RP_FILTER, 1).close().close();
  batch.open(AF_INET6).u8(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE).close().close();
  add_address(batch, "address device " + name, device, host_address(slot), 30);
  bring_up(batch, "bring up device " + name, device);
  std::string step;
  MAYFLY_ASSIGN(const int failed, host->apply_errno(batch, &step));
  // A kernel without IPv6 refuses the first message whole; the firewall does what it would have done.
  if (failed == 0 || (failed == EAFNOSUPPORT && step.starts_with("configure"))) return device;
  return errno_error(step, failed);
}

// Through a socket made inside, so that nobody has to enter the namespace again.
Result<void> NetworkBuilder::Impl::address_inside(const SandboxNetwork& network, std::uint32_t slot) {
  if (::setns(network.netns.get(), CLONE_NEWNET) != 0) return errno_error("enter a sandbox's network namespace", errno);
  auto opened = NetlinkSocket::open(NETLINK_ROUTE);
  MAYFLY_ASSERT(::setns(host_netns.get(), CLONE_NEWNET) == 0, "cannot return to the host's network namespace");
  if (!opened.ok()) return std::move(opened).error();
  MAYFLY_ASSIGN(const int device, device_index(network.runtime_api.get(), kDeviceInside));
  NetlinkBatch batch;
  add_address(batch, "address the sandbox's device", device, inner_address(slot), 30);
  bring_up(batch, "bring up the sandbox's device", device);
  rtmsg route{};
  route.rtm_family = AF_INET;
  route.rtm_table = RT_TABLE_MAIN;
  route.rtm_protocol = RTPROT_BOOT;
  route.rtm_scope = RT_SCOPE_UNIVERSE;
  route.rtm_type = RTN_UNICAST;
  const std::uint32_t gateway = htonl(host_address(slot));
  batch.begin("set the sandbox's default route", RTM_NEWROUTE, kCreate, route).attribute(RTA_GATEWAY, bytes_of(gateway));
  return opened->apply(batch);
}

// A device's queue starts to work when the kernel has noticed that its peer is up, which it may do up to a second later:
// packets until then are lost. Asking for the link makes it notice now (Linux 6.8; without effect before).
void NetworkBuilder::Impl::settle(std::uint32_t slot) {
  ethtool_value link{.cmd = ETHTOOL_GLINK, .data = 0};
  ifreq request{};
  device_name(slot).copy(request.ifr_name, sizeof request.ifr_name - 1);
  request.ifr_data = reinterpret_cast<char*>(&link);
  (void)::ioctl(host->fd(), SIOCETHTOOL, &request);
}

Result<NetworkBuilder::Impl::Pair> NetworkBuilder::Impl::connect_outside(const SandboxNetwork& network) {
  MAYFLY_ASSIGN(Pair pair, make_pair(network.netns));
  const auto give_up = [&](Error error) -> Result<Pair> {
    if (auto device = device_index(host->fd(), device_name(pair.slot)); device.ok()) {
      (void)delete_device(*device);  // else it goes with the namespace
    }
    return std::move(error);
  };
  auto device = address_host_side(pair.slot);
  if (!device.ok()) return give_up(std::move(device).error());
  pair.device = *device;
  if (auto inside = address_inside(network, pair.slot); !inside.ok()) return give_up(std::move(inside).error());
  settle(pair.slot);
  return pair;
}

Result<NetworkTraces> NetworkBuilder::Impl::traces_of(const UniqueFd& netns, TracesOf what) {
  if (::setns(netns.get(), CLONE_NEWNET) != 0) return errno_error("enter a sandbox's network namespace", errno);
  auto traces = read_network_traces(proc, what);
  MAYFLY_ASSERT(::setns(host_netns.get(), CLONE_NEWNET) == 0, "cannot return to the host's network namespace");
  return traces;
}

// New ones are all alike. Where it cannot be told what they are like none is kept.
void NetworkBuilder::Impl::remember_fresh(const Home& home) {
  if (fresh_counters.contains(home.mode)) return;
  Fresh fresh;
  auto all = traces_of(home.netns, TracesOf::kAll);
  auto traffic = traces_of(home.netns, TracesOf::kTraffic);
  if (all.ok() && traffic.ok()) fresh = {.all = std::move(all->counters), .traffic = std::move(traffic->counters)};
  fresh_counters.emplace(home.mode, std::move(fresh));
}

// Nothing that was done in there without privilege could leave less than this behind: what needs no packet needs a socket.
std::optional<NetworkTraces> NetworkBuilder::Impl::traces_if_untouched(const Home& home, TracesOf what) {
  const auto fresh = fresh_counters.find(home.mode);
  if (fresh == fresh_counters.end() || fresh->second.all.empty()) return std::nullopt;
  auto found = traces_of(home.netns, what);
  if (!found.ok() || found->counters != (what == TracesOf::kAll ? fresh->second.all : fresh->second.traffic)) return std::nullopt;
  return std::move(*found);
}

// One that nobody has a socket in any more: the server closes its own a moment after the sandbox's end.
std::optional<NetworkBuilder::Impl::Home> NetworkBuilder::Impl::take_kept(Network mode) {
  std::size_t looks = 0;
  const auto rested = std::chrono::steady_clock::now() - NetworkBuilder::kRest;
  for (auto one = kept.begin(); one != kept.end() && one->since <= rested && looks < kLooksMost;) {
    if (one->home.mode != mode) {
      ++one;
      continue;
    }
    ++looks;
    // Of its processes none is left that could do more; packets that were on their way may still have come.
    const auto untouched = traces_if_untouched(one->home, TracesOf::kTraffic);
    if (untouched && untouched->sockets > 0) {
      ++one;
      continue;
    }
    Home home = std::move(one->home);
    one = kept.erase(one);
    if (untouched) return home;
    destroy(std::move(home));
  }
  return std::nullopt;
}

Result<SandboxNetwork> NetworkBuilder::Impl::reuse(const Home& home, std::uint32_t connectors) {
  if (::setns(home.netns.get(), CLONE_NEWNET) != 0) return errno_error("enter a sandbox's network namespace", errno);
  auto network = open_service_sockets(home.mode, connectors);
  MAYFLY_ASSERT(::setns(host_netns.get(), CLONE_NEWNET) == 0, "cannot return to the host's network namespace");
  if (!network.ok()) return network;
  MAYFLY_ASSIGN(network->netns, home.netns.duplicate());
  return network;
}

void NetworkBuilder::Impl::destroy(Home home) {
  if (!home.pair) return;  // with the last descriptor
  withdraw_address(*home.pair);
  hasten_end(home.netns);
  condemned.push_back({home.pair->device, std::chrono::steady_clock::now()});
}

Result<void> NetworkBuilder::Impl::install_firewall() {
  if (!why_not.empty()) return Error(ErrorCode::kUnsupported, why_not);
  // Asked of the kernel each time (10 us): restarting another firewall service often flushes every table.
  MAYFLY_ASSIGN(const bool present, table_exists(firewall.table));
  if (present && firewall_was_installed) return {};
  auto installed = run_nft(nft, {"-f", "-"}, firewall_rules(firewall), host_mounts);
  if (!installed.ok()) return std::move(installed).error().with_context("install the firewall of the sandboxes");
  if (firewall_was_installed)
    base::log_warning("the sandboxes' firewall table was deleted by somebody; it is back", {{"table", firewall.table}});
  MAYFLY_TRY(enable_forwarding());
  if (notes.size() < kNotesMax) note_other_firewalls();
  firewall_was_installed = true;
  return {};
}

// Only once the rules hold. Replies come in by the host's own devices, so forwarding on ours alone would not do.
Result<void> NetworkBuilder::Impl::enable_forwarding() {
  constexpr const char* kPath = "net/ipv4/ip_forward";
  const UniqueFd file(::openat(sysctl.get(), kPath, O_RDONLY | O_CLOEXEC));
  char value = '0';
  if (file && ::read(file.get(), &value, 1) == 1 && value == '1') return {};
  const UniqueFd writer(::openat(sysctl.get(), kPath, O_WRONLY | O_CLOEXEC));
  if (!writer || ::write(writer.get(), "1", 1) != 1) return errno_error("set net.ipv4.ip_forward=1 (set it on the host yourself)", errno);
  notes.emplace_back("net.ipv4.ip_forward was 0 and is now 1, for the outside network of functions; it stays so.");
  return {};
}

void NetworkBuilder::Impl::note_other_firewalls() {
  const auto listed = run_nft(nft, {"list", "chains"}, {}, host_mounts);
  if (!listed.ok()) return;  // only a hint was lost
  for (const auto& chain : dropping_forward_chains(*listed)) {
    notes.push_back("The host's firewall chain \"" + chain +
                    "\" drops forwarded packets by default; if functions reach no outside network, accept devices \"" + device_prefix +
                    "*\" there (with Docker: iptables -I DOCKER-USER -i " + device_prefix + "+ -j ACCEPT; iptables -I DOCKER-USER -o " +
                    device_prefix + "+ -j ACCEPT).");
  }
}

// Without the host's address there is no route back and every packet from the sandbox fails the source check: cut off, in
// 50 us. Deleting the device would block the launcher for 5 to 40 ms; the kernel does that by itself, many at a time, when the
// last descriptor of the namespace closes.
void NetworkBuilder::Impl::withdraw_address(const Pair& pair) {
  ifaddrmsg header{};
  header.ifa_family = AF_INET;
  header.ifa_prefixlen = 30;
  header.ifa_index = static_cast<std::uint32_t>(pair.device);
  const std::uint32_t wire = htonl(host_address(pair.slot));
  NetlinkBatch batch;
  batch.begin("withdraw an address", RTM_DELADDR, kChange, header).attribute(IFA_LOCAL, bytes_of(wire));
  (void)host->apply_errno(batch, nullptr);  // ENODEV: gone already
}

// Connections that were open when their process died go on saying goodbye for minutes and keep the namespace; nobody can
// answer them any more.
void NetworkBuilder::Impl::hasten_end(const UniqueFd& netns) {
  if (::setns(netns.get(), CLONE_NEWNET) != 0) return;
  write_setting(sysctl, "net/ipv4/tcp_orphan_retries", "1");
  write_setting(sysctl, "net/ipv4/tcp_fin_timeout", "1");
  MAYFLY_ASSERT(::setns(host_netns.get(), CLONE_NEWNET) == 0, "cannot return to the host's network namespace");
}

// Deletes devices whose namespace somebody still holds long after remove().
void NetworkBuilder::Impl::sweep_condemned() {
  const auto now = std::chrono::steady_clock::now();
  while (!condemned.empty() && now - condemned.front().since > kGrace) {
    (void)delete_device(condemned.front().device);  // ENODEV almost always
    condemned.pop_front();
  }
}

// True when the device is gone.
Result<bool> NetworkBuilder::Impl::delete_device(int index) {
  ifinfomsg header{};
  header.ifi_index = index;
  NetlinkBatch batch;
  batch.begin("delete device " + std::to_string(index), RTM_DELLINK, kChange, header);
  MAYFLY_ASSIGN(const int failed, host->apply_errno(batch, nullptr));
  return failed == 0 || failed == ENODEV;
}

Result<std::vector<int>> NetworkBuilder::Impl::own_devices() {
  std::vector<int> found;
  NetlinkBatch batch;
  batch.begin("list devices", RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, ifinfomsg{});
  MAYFLY_ASSIGN(const int failed, host->query(batch, [&](const nlmsghdr& head, std::span<const std::byte> payload) {
    ifinfomsg link{};
    if (head.nlmsg_type != RTM_NEWLINK || payload.size() < sizeof link) return;
    std::memcpy(&link, payload.data(), sizeof link);
    for (const auto& attribute : parse_attributes(payload.subspan(sizeof link))) {
      if (attribute.type != IFLA_IFNAME) continue;
      const std::string_view name(reinterpret_cast<const char*>(attribute.value.data()), attribute.value.size());
      if (name.starts_with(device_prefix)) found.push_back(link.ifi_index);
    }
  }));
  if (failed != 0) return errno_error("list devices", failed);
  return found;
}

Result<std::unique_ptr<NetworkBuilder>> NetworkBuilder::create(NetworkOptions options) {
  auto impl = std::make_unique<Impl>();
  impl->options = std::move(options);
  MAYFLY_TRY(impl->prepare());
  return std::unique_ptr<NetworkBuilder>(new NetworkBuilder(std::move(impl)));
}

NetworkBuilder::NetworkBuilder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
NetworkBuilder::~NetworkBuilder() = default;

Result<SandboxNetwork> NetworkBuilder::make(std::uint64_t id, Network mode, std::uint32_t connectors) {
  if (impl_->homes.contains(id)) return Error(ErrorCode::kAlreadyExists, "sandbox " + std::to_string(id) + " has a network already");
  if (mode == Network::kOutside) MAYFLY_TRY(impl_->install_firewall());  // before there is anything to guard
  if (auto home = impl_->take_kept(mode)) {
    if (auto network = impl_->reuse(*home, connectors); network.ok()) {
      impl_->homes.emplace(id, std::move(*home));
      return network;
    }
    impl_->destroy(std::move(*home));
  }
  MAYFLY_ASSIGN(SandboxNetwork network, impl_->make_namespace(mode, connectors));
  Impl::Home home{.mode = mode, .netns = {}, .pair = {}};
  if (mode == Network::kOutside) {
    MAYFLY_ASSIGN(home.pair, impl_->connect_outside(network));
  }
  if (!impl_->host_netns) return network;  // which cannot be entered again
  MAYFLY_ASSIGN(home.netns, network.netns.duplicate());
  impl_->remember_fresh(home);
  impl_->homes.emplace(id, std::move(home));
  return network;
}

void NetworkBuilder::remove(std::uint64_t id) {
  impl_->sweep_condemned();
  const auto found = impl_->homes.find(id);
  if (found == impl_->homes.end()) return;
  Impl::Home home = std::move(found->second);
  impl_->homes.erase(found);
  if (!impl_->traces_if_untouched(home, TracesOf::kAll)) return impl_->destroy(std::move(home));
  impl_->kept.push_back({.home = std::move(home), .since = std::chrono::steady_clock::now()});
  if (impl_->kept.size() <= kKeptMost) return;
  Impl::Home oldest = std::move(impl_->kept.front().home);
  impl_->kept.pop_front();
  impl_->destroy(std::move(oldest));
}

void NetworkBuilder::let_go_of_kept() {
  const auto since = std::chrono::steady_clock::now() - kKeptFor;
  for (std::size_t i = 0; i < kLetGoMost && !impl_->kept.empty() && impl_->kept.front().since < since; ++i) {
    Impl::Home home = std::move(impl_->kept.front().home);
    impl_->kept.pop_front();
    impl_->destroy(std::move(home));
  }
}

std::size_t NetworkBuilder::kept() const { return impl_->kept.size(); }

void NetworkBuilder::remove_all() {
  if (!impl_->options.privileged) return;
  if (const auto devices = impl_->own_devices(); devices.ok()) {
    for (const int device : *devices) (void)impl_->delete_device(device);
  }
  impl_->homes.clear();
  impl_->kept.clear();
  impl_->condemned.clear();
  impl_->firewall_was_installed = false;
  if (auto deleted = delete_table(impl_->firewall.table); !deleted.ok() && impl_->host_netns) {
    base::log_warning("the sandboxes' firewall table could not be deleted", {{"cause", deleted.error().message()}});
  }
}

Result<void> NetworkBuilder::prepare_outside() { return impl_->install_firewall(); }

bool NetworkBuilder::outside_possible() const { return impl_->why_not.empty(); }
const std::string& NetworkBuilder::why_not() const { return impl_->why_not; }
const std::vector<std::string>& NetworkBuilder::notes() const { return impl_->notes; }

}  // namespace mayfly::sandbox::internal
