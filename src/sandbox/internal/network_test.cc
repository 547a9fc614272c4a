// The network of sandboxes against the kernel: a private "host" (a namespace with an uplink), an "outside" behind it that
// serves on several addresses, and real sandboxes. Each refusal stands beside the same attempt succeeding from elsewhere.
#include "sandbox/internal/network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <thread>

#include "sandbox/internal/firewall.h"
#include "sandbox/internal/netlink.h"
#include "sandbox/internal/network_traces.h"

namespace mayfly::sandbox::internal {
namespace {

using base::UniqueFd;

constexpr const char* kHost = "198.51.100.1";
constexpr const char* kOutsideServer = "198.51.100.2";
constexpr const char* kDeniedServer = "203.0.113.7";
constexpr const char* kMetadata = "169.254.169.254";

std::uint32_t wire(const std::string& address) {
  in_addr parsed{};
  EXPECT_EQ(::inet_pton(AF_INET, address.c_str(), &parsed), 1) << address;
  return parsed.s_addr;
}

sockaddr_in address_of(const std::string& address, std::uint16_t port) {
  sockaddr_in value{};
  value.sin_family = AF_INET;
  value.sin_port = htons(port);
  value.sin_addr.s_addr = wire(address);
  return value;
}

UniqueFd current_namespace() { return UniqueFd(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)); }

// Runs `work` in another network namespace.
template <typename F>
auto inside(const UniqueFd& netns, F work) {
  const UniqueFd back = current_namespace();
  EXPECT_EQ(::setns(netns.get(), CLONE_NEWNET), 0);
  auto value = work();
  EXPECT_EQ(::setns(back.get(), CLONE_NEWNET), 0);
  return value;
}

void add_address(const std::string& device, const std::string& address, unsigned prefix) {
  auto netlink = NetlinkSocket::open(NETLINK_ROUTE).value();
  ifaddrmsg header{};
  header.ifa_family = AF_INET;
  header.ifa_prefixlen = static_cast<std::uint8_t>(prefix);
  header.ifa_index = ::if_nametoindex(device.c_str());
  const std::uint32_t value = wire(address);
  NetlinkBatch batch;
  batch.begin("address " + device, RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, header);
  batch.attribute(IFA_LOCAL, std::as_bytes(std::span(&value, 1))).attribute(IFA_ADDRESS, std::as_bytes(std::span(&value, 1)));
  const auto done = netlink.apply(batch);
  ASSERT_TRUE(done.ok()) << done.error().message();
}

void bring_up(const std::string& device) {
  auto netlink = NetlinkSocket::open(NETLINK_ROUTE).value();
  ifinfomsg header{};
  header.ifi_index = static_cast<int>(::if_nametoindex(device.c_str()));
  header.ifi_flags = header.ifi_change = IFF_UP;
  NetlinkBatch batch;
  batch.begin("up " + device, RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, header);
  const auto done = netlink.apply(batch);
  ASSERT_TRUE(done.ok()) << done.error().message();
}

void add_route(const std::string& network, unsigned prefix, const std::string& gateway) {
  auto netlink = NetlinkSocket::open(NETLINK_ROUTE).value();
  rtmsg route{};
  route.rtm_family = AF_INET;
  route.rtm_dst_len = static_cast<std::uint8_t>(prefix);
  route.rtm_table = RT_TABLE_MAIN;
  route.rtm_protocol = RTPROT_BOOT;
  route.rtm_type = RTN_UNICAST;
  const std::uint32_t to = wire(network);
  const std::uint32_t via = wire(gateway);
  NetlinkBatch batch;
  batch.begin("route to " + network, RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, route);
  batch.attribute(RTA_DST, std::as_bytes(std::span(&to, 1))).attribute(RTA_GATEWAY, std::as_bytes(std::span(&via, 1)));
  const auto done = netlink.apply(batch);
  ASSERT_TRUE(done.ok()) << done.error().message();
}

UniqueFd listen_on(const std::string& address, std::uint16_t port) {
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const auto name = address_of(address, port);
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name), 0) << address << ": " << std::strerror(errno);
  EXPECT_EQ(::listen(socket.get(), 16), 0);
  return socket;
}

// 0 when a TCP connection came about within half a second, else why not (ETIMEDOUT when nothing was said).
int try_connect(const std::string& address, std::uint16_t port, const std::string& source = {}) {
  const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!source.empty()) {
    const auto own = address_of(source, 0);
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0) return errno;
  }
  const auto name = address_of(address, port);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  pollfd ready{.fd = socket.get(), .events = POLLOUT, .revents = 0};
  if (::poll(&ready, 1, 500) != 1) return ETIMEDOUT;
  int error = 0;
  socklen_t size = sizeof error;
  ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

// The peer's address of the next connection of `listener`, "" when there is none within half a second.
std::string accept_peer(const UniqueFd& listener, int wait_ms = 500) {
  pollfd ready{.fd = listener.get(), .events = POLLIN, .revents = 0};
  if (::poll(&ready, 1, wait_ms) != 1) return {};
  sockaddr_in peer{};
  socklen_t size = sizeof peer;
  const UniqueFd taken(::accept4(listener.get(), reinterpret_cast<sockaddr*>(&peer), &size, SOCK_CLOEXEC));
  return taken ? ipv4_text(ntohl(peer.sin_addr.s_addr)) : std::string{};
}

// The sandbox's own address outside: that of eth0.
std::string outer_address(const SandboxNetwork& network) {
  return inside(network.netns, [] {
    const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::snprintf(request.ifr_name, sizeof request.ifr_name, "eth0");
    if (::ioctl(socket.get(), SIOCGIFADDR, &request) != 0) return std::string();
    sockaddr_in name{};
    std::memcpy(&name, &request.ifr_addr, sizeof name);
    return ipv4_text(ntohl(name.sin_addr.s_addr));
  });
}

std::vector<std::string> device_names() {
  std::vector<std::string> names;
  auto* list = ::if_nameindex();
  for (auto* entry = list; entry != nullptr && entry->if_index != 0; ++entry) names.emplace_back(entry->if_name);
  ::if_freenameindex(list);
  return names;
}

std::vector<std::string> devices_named(const std::string& prefix) {
  auto names = device_names();
  std::erase_if(names, [&](const std::string& name) { return !name.starts_with(prefix); });
  return names;
}

// Whether `condition` comes true within five seconds: for what the kernel does in its own time.
template <typename F>
bool eventually(F condition) {
  for (int i = 0; i < 1000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

class SandboxNetworkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: makes network namespaces and a firewall";
    original_ = current_namespace();
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    outside_ = current_namespace();
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    host_ = current_namespace();
    bring_up("lo");
    make_uplink();
    add_address("up0", kHost, 24);
    bring_up("up0");
    inside(outside_, [] {
      bring_up("lo");
      add_address("up1", kOutsideServer, 24);
      bring_up("up1");
      for (const char* address : {kMetadata, kDeniedServer}) add_address("lo", address, 32);
      add_route("100.88.0.0", 16, kHost);
      return 0;
    });
    add_route(kMetadata, 32, kOutsideServer);
    add_route("0.0.0.0", 0, kOutsideServer);
    server_ = inside(outside_, [] { return listen_on("0.0.0.0", 80); });
    ASSERT_TRUE(eventually([] { return try_connect(kOutsideServer, 80) == 0; }));  // a fresh device pair may take a second
    while (!accept_peer(server_, 0).empty()) {
    }
  }

  void TearDown() override {
    if (original_) {
      ASSERT_EQ(::setns(original_.get(), CLONE_NEWNET), 0);
    }
  }

  void make_uplink() {
    auto netlink = NetlinkSocket::open(NETLINK_ROUTE).value();
    NetlinkBatch batch;
    batch.begin("uplink", RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, ifinfomsg{}).text(IFLA_IFNAME, "up0");
    batch.open(IFLA_LINKINFO).text(IFLA_INFO_KIND, "veth").open(IFLA_INFO_DATA).open(VETH_INFO_PEER);
    ifinfomsg peer{};
    peer.ifi_index = 77;  // equal indexes at both ends make the kernel take a second to notice that the link is up
    batch.append(peer).text(IFLA_IFNAME, "up1").u32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(outside_.get())).close().close().close();
    const auto done = netlink.apply(batch);
    ASSERT_TRUE(done.ok()) << done.error().message();
  }

  static std::unique_ptr<NetworkBuilder> builder(const std::string& instance = "0123abcd") {
    NetworkOptions options;
    options.instance = instance;
    options.deny = {std::string(kDeniedServer) + "/32", "fd00::/8"};
    auto made = NetworkBuilder::create(options);
    EXPECT_TRUE(made.ok()) << (made.ok() ? "" : made.error().message());
    return std::move(made).value();
  }

  static SandboxNetwork make(NetworkBuilder& networks, std::uint64_t id, Network mode = Network::kOutside) {
    auto made = networks.make(id, mode);
    EXPECT_TRUE(made.ok()) << (made.ok() ? "" : made.error().message());
    return made.ok() ? std::move(made).value() : SandboxNetwork{};
  }

  UniqueFd original_;
  UniqueFd outside_;
  UniqueFd host_;
  UniqueFd server_;  // outside, port 80 of all its addresses
};

TEST_F(SandboxNetworkTest, a_sandbox_without_network_has_its_listeners_and_nothing_else) {
  auto networks = builder();
  const auto network = make(*networks, 1, Network::kNone);
  EXPECT_FALSE(network.dns_udp.valid());
  EXPECT_FALSE(network.dns_tcp.valid());
  inside(network.netns, [&] {
    EXPECT_EQ(try_connect("169.254.100.1", 9001), 0);
    EXPECT_EQ(try_connect("169.254.100.1", 9002), 0);
    EXPECT_EQ(try_connect("169.254.100.1", 53), ECONNREFUSED);
    EXPECT_EQ(try_connect(kOutsideServer, 80), ENETUNREACH);
    const UniqueFd own = listen_on("127.0.0.1", 8080);
    EXPECT_EQ(try_connect("127.0.0.1", 8080), 0);
    EXPECT_TRUE(devices_named("eth").empty());
    return 0;
  });
  EXPECT_EQ(accept_peer(network.runtime_api), "169.254.100.1");
  EXPECT_TRUE(devices_named("mf").empty());
  EXPECT_FALSE(table_exists("mayfly_0123abcd").value()) << "the firewall is for sandboxes that reach outside";
}

TEST_F(SandboxNetworkTest, a_sandbox_reaches_outside_servers_under_the_hosts_address) {
  auto networks = builder();
  const auto network = make(*networks, 1);
  EXPECT_EQ(inside(network.netns, [] { return try_connect(kOutsideServer, 80); }), 0);
  EXPECT_EQ(accept_peer(server_), kHost);
  EXPECT_TRUE(network.dns_udp.valid());
  EXPECT_EQ(inside(network.netns, [] { return try_connect("169.254.100.1", 53); }), 0);
}

TEST_F(SandboxNetworkTest, no_address_of_the_host_answers_a_sandbox_on_any_port) {
  auto networks = builder();
  const auto network = make(*networks, 1);
  const UniqueFd everywhere = listen_on("0.0.0.0", 9000);
  add_address("lo", "192.0.2.77", 32);
  const auto own = outer_address(network);
  const auto gateway = ipv4_text(ntohl(wire(own)) - 1);
  for (const std::string& address : {std::string(kHost), std::string("192.0.2.77"), gateway}) {
    EXPECT_EQ(try_connect(address, 9000), 0) << "control: the host itself reaches " << address;
    EXPECT_EQ(inside(network.netns, [&] { return try_connect(address, 9000); }), ECONNREFUSED) << address;
    EXPECT_EQ(inside(network.netns, [&] { return try_connect(address, 9999); }), ECONNREFUSED) << "a closed port must look the same";
  }
  EXPECT_EQ(inside(outside_, [] { return try_connect(kHost, 9000); }), 0) << "control: the firewall concerns sandboxes only";
  EXPECT_EQ(inside(network.netns, [] { return try_connect("127.0.0.1", 9000); }), ECONNREFUSED) << "its own loopback, where nobody listens";
}

TEST_F(SandboxNetworkTest, metadata_and_denied_addresses_are_out_of_reach) {
  auto networks = builder();
  const auto network = make(*networks, 1);
  for (const char* address : {kMetadata, kDeniedServer}) {
    EXPECT_EQ(try_connect(address, 80), 0) << "control: the host reaches " << address;
    EXPECT_EQ(inside(network.netns, [&] { return try_connect(address, 80); }), ECONNREFUSED) << address;
  }
}

TEST_F(SandboxNetworkTest, another_tables_accept_and_nat_do_not_open_the_host_or_the_metadata_address) {
  auto networks = builder();
  const auto network = make(*networks, 1);
  const UniqueFd everywhere = listen_on("0.0.0.0", 9000);
  constexpr std::string_view kForeign = R"(table ip foreign {
    chain pre { type nat hook prerouting priority -100;
      ip daddr 192.0.2.1 tcp dport 80 dnat to 198.51.100.1:9000
      ip daddr 192.0.2.2 tcp dport 80 dnat to 169.254.169.254:80
      ip daddr 192.0.2.3 tcp dport 80 dnat to 198.51.100.2:80
    }
    chain in { type filter hook input priority -300; policy accept; accept
    }
    chain forw { type filter hook forward priority -300; policy accept; accept
    }
  })";
  ASSERT_TRUE(run_nft(find_nft(), {"-f", "-"}, kForeign, {}).ok());
  EXPECT_EQ(inside(network.netns, [] { return try_connect("192.0.2.3", 80); }), 0) << "control: the foreign NAT works";
  EXPECT_EQ(inside(network.netns, [] { return try_connect("192.0.2.1", 80); }), ETIMEDOUT);
  EXPECT_EQ(inside(network.netns, [] { return try_connect("192.0.2.2", 80); }), ETIMEDOUT);
}

TEST_F(SandboxNetworkTest, sandboxes_do_not_reach_each_other_whatever_instance_made_them) {
  auto networks = builder();
  auto others = builder("feedbeef");
  const auto one = make(*networks, 1);
  const auto two = make(*networks, 2);
  const auto foreign = make(*others, 1);
  for (const auto* target : {&two, &foreign}) {
    const auto address = outer_address(*target);
    ASSERT_FALSE(address.empty());
    const UniqueFd server = inside(target->netns, [] { return listen_on("0.0.0.0", 7777); });
    EXPECT_EQ(inside(target->netns, [&] { return try_connect(address, 7777); }), 0) << "control: it listens";
    EXPECT_EQ(inside(one.netns, [&] { return try_connect(address, 7777); }), ECONNREFUSED);
  }
  EXPECT_NE(outer_address(one), outer_address(foreign));
}

TEST_F(SandboxNetworkTest, nothing_outside_opens_a_connection_to_a_sandbox) {
  auto networks = builder();
  const auto network = make(*networks, 1);
  const auto address = outer_address(network);
  const UniqueFd server = inside(network.netns, [] { return listen_on("0.0.0.0", 7777); });
  EXPECT_NE(inside(outside_, [&] { return try_connect(address, 7777); }), 0);
  EXPECT_NE(try_connect(address, 7777), 0) << "not the host either";
  ASSERT_TRUE(delete_table("mayfly_0123abcd").ok());
  EXPECT_EQ(inside(outside_, [&] { return try_connect(address, 7777); }), 0) << "control: only the firewall stood between";
}

TEST_F(SandboxNetworkTest, packets_with_a_borrowed_source_address_are_dropped) {
  auto networks = builder();
  const auto network = make(*networks, 1);
  const UniqueFd receiver = inside(outside_, [] {
    UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const auto name = address_of("0.0.0.0", 5353);
    EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
    return socket;
  });
  const auto arrives_from = [&](const std::string& source) {
    inside(network.netns, [&] {
      const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      const auto own = address_of(source, 0);
      const auto to = address_of(kOutsideServer, 5353);
      EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&own), sizeof own), 0) << source;
      EXPECT_EQ(::sendto(socket.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to), 1) << std::strerror(errno);
      return 0;
    });
    pollfd ready{.fd = receiver.get(), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 300) != 1) return false;
    char byte = 0;
    return ::recv(receiver.get(), &byte, 1, 0) == 1;
  };
  inside(network.netns, [] {
    add_address("lo", "198.51.100.77", 32);  // what a sandbox could do only with capabilities it does not have
    return 0;
  });
  EXPECT_TRUE(arrives_from(outer_address(network))) << "control";
  EXPECT_FALSE(arrives_from("198.51.100.77"));
  EXPECT_FALSE(arrives_from("169.254.100.1"));
  ASSERT_TRUE(delete_table("mayfly_0123abcd").ok());
  EXPECT_FALSE(arrives_from("198.51.100.77")) << "second layer: the device's reverse path filter";
}

TEST_F(SandboxNetworkTest, there_is_no_ipv6_towards_the_host) {
  auto networks = builder();
  const auto network = make(*networks, 1);
  const auto count_addresses = [](const std::string& device) {
    const auto table = base::read_file("/proc/self/net/if_inet6").value_or(std::string());
    int count = 0;
    for (std::size_t at = table.find(device); at != std::string::npos; at = table.find(device, at + 1)) ++count;
    return count;
  };
  EXPECT_GT(count_addresses("up0"), 0) << "control: other devices have link-local addresses";
  EXPECT_EQ(count_addresses("mf"), 0);
  EXPECT_EQ(inside(network.netns, [&] { return count_addresses("eth0"); }), 0);
}

TEST_F(SandboxNetworkTest, remove_cuts_the_connection_and_the_next_sandbox_gets_another_address) {
  auto networks = builder();
  auto first = make(*networks, 1);
  const auto first_address = outer_address(first);
  EXPECT_EQ(inside(first.netns, [] { return try_connect(kOutsideServer, 80); }), 0) << "control";
  EXPECT_EQ(accept_peer(server_), kHost);
  EXPECT_EQ(devices_named("mf0123abcd").size(), 1U);
  networks->remove(1);
  EXPECT_EQ(inside(first.netns, [] { return try_connect(kOutsideServer, 80); }), ETIMEDOUT);
  first = {};
  EXPECT_TRUE(eventually([] { return devices_named("mf0123abcd").empty(); }));
  networks->remove(1);  // unknown by now
  const auto second = make(*networks, 1);
  EXPECT_NE(outer_address(second), first_address);
}

TEST_F(SandboxNetworkTest, connections_left_open_do_not_keep_a_removed_namespace) {
  auto networks = builder();
  auto network = make(*networks, 1);
  auto open = inside(network.netns, [] {
    UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto name = address_of(kOutsideServer, 80);
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
    return socket;
  });
  networks->remove(1);
  open.reset();
  network = {};
  EXPECT_TRUE(eventually([] { return devices_named("mf0123abcd").empty(); }));
}

TEST_F(SandboxNetworkTest, addresses_run_out_with_an_error_and_come_back_after_remove) {
  NetworkOptions options{.instance = "0123abcd", .cidr = "100.88.0.0/28", .deny = {}, .privileged = true};
  auto networks = NetworkBuilder::create(options).value();
  std::vector<SandboxNetwork> held;
  for (std::uint64_t id = 1; id <= 4; ++id) held.push_back(make(*networks, id));
  const auto fifth = networks->make(5, Network::kOutside);
  ASSERT_FALSE(fifth.ok());
  networks->remove(2);
  EXPECT_FALSE(networks->make(6, Network::kOutside).ok()) << "an address is not given out while its former owner's device exists";
  held[1] = {};
  EXPECT_TRUE(eventually([&] { return networks->make(6, Network::kOutside).ok(); }));
}

TEST_F(SandboxNetworkTest, remove_all_deletes_what_a_dead_process_of_the_same_instance_left) {
  auto others = builder("feedbeef");
  const auto foreign = make(*others, 1);
  SandboxNetwork left;
  {
    auto dead = builder();
    left = make(*dead, 1);
  }
  auto networks = builder();
  EXPECT_EQ(devices_named("mf0123abcd").size(), 1U) << "control: it is still there";
  EXPECT_TRUE(table_exists("mayfly_0123abcd").value());
  networks->remove_all();
  EXPECT_TRUE(devices_named("mf0123abcd").empty());
  EXPECT_FALSE(table_exists("mayfly_0123abcd").value());
  EXPECT_EQ(inside(foreign.netns, [] { return try_connect(kOutsideServer, 80); }), 0) << "another instance's sandbox lives on";
  const auto again = make(*networks, 1);
  EXPECT_EQ(inside(again.netns, [] { return try_connect(kOutsideServer, 80); }), 0);
}

TEST_F(SandboxNetworkTest, a_flushed_firewall_is_back_before_the_next_sandbox_starts) {
  auto networks = builder();
  const auto one = make(*networks, 1);
  const UniqueFd everywhere = listen_on("0.0.0.0", 9000);
  ASSERT_TRUE(run_nft(find_nft(), {"flush", "ruleset"}, {}, {}).ok());
  EXPECT_EQ(inside(one.netns, [] { return try_connect(kHost, 9000); }), 0) << "control: nothing else guards the host";
  const auto two = make(*networks, 2);
  EXPECT_EQ(inside(one.netns, [] { return try_connect(kHost, 9000); }), ECONNREFUSED);
  EXPECT_EQ(inside(two.netns, [] { return try_connect(kHost, 9000); }), ECONNREFUSED);
}

TEST_F(SandboxNetworkTest, the_host_is_told_what_was_changed_and_what_stands_in_the_way) {
  ASSERT_TRUE(run_nft(find_nft(), {"-f", "-"},
                      "table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n }\n}\n", {})
                  .ok());
  {
    // A new namespace takes this setting from the machine's first one.
    const UniqueFd forwarding(::open("/proc/sys/net/ipv4/ip_forward", O_WRONLY | O_CLOEXEC));
    ASSERT_EQ(::write(forwarding.get(), "0", 1), 1);
  }
  auto networks = builder();
  ASSERT_TRUE(networks->prepare_outside().ok());
  ASSERT_EQ(networks->notes().size(), 2U);
  EXPECT_NE(networks->notes()[0].find("ip_forward"), std::string::npos);
  EXPECT_NE(networks->notes()[1].find("\"ip filter FORWARD\""), std::string::npos) << networks->notes()[1];
}

TEST_F(SandboxNetworkTest, without_privilege_only_sandboxes_without_network_are_made) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    bool fine = ::setresgid(65534, 65534, 65534) == 0 && ::setresuid(65534, 65534, 65534) == 0 && ::unshare(CLONE_NEWUSER) == 0;
    NetworkOptions options{.instance = "0123abcd", .cidr = "100.88.0.0/16", .deny = {}, .privileged = false};
    auto made = NetworkBuilder::create(options);
    fine = fine && made.ok() && !(*made)->outside_possible() && (*made)->why_not().find("root") != std::string::npos;
    if (fine) {
      auto none = (*made)->make(1, Network::kNone);
      auto refused = (*made)->make(2, Network::kOutside);
      if (!none.ok()) std::fprintf(stderr, "%s\n", none.error().message().c_str());
      fine = none.ok() && none->runtime_api.valid() && none->data_api.valid() && none->netns.valid() && !refused.ok();
    }
    ::_exit(fine ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(SandboxNetworkTest, descriptors_do_not_leak_and_are_close_on_exec) {
  const auto open_count = [] {
    int count = 0;
    for (int fd = 0; fd < 256; ++fd) count += ::fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
    return count;
  };
  auto networks = builder();
  ASSERT_TRUE(networks->prepare_outside().ok());
  const int before = open_count();
  {
    const auto network = make(*networks, 1);
    for (const auto* fd : {&network.netns, &network.runtime_api, &network.data_api, &network.dns_udp, &network.dns_tcp}) {
      EXPECT_EQ(::fcntl(fd->get(), F_GETFD), FD_CLOEXEC);
    }
    for (const auto* fd : {&network.runtime_api, &network.data_api, &network.dns_udp, &network.dns_tcp}) {
      EXPECT_NE(::fcntl(fd->get(), F_GETFL) & O_NONBLOCK, 0);
    }
    EXPECT_EQ(open_count(), before + 6) << "five for the caller, one kept until remove()";
    EXPECT_EQ(inside(network.netns, [] { return try_connect("169.254.100.1", 9001); }), 0) << "so that it is not kept for another";
  }
  networks->remove(1);
  EXPECT_EQ(open_count(), before);
}

// Which namespace a socket lives in: a number that no other one ever has, unlike that of its file.
std::uint64_t cookie_of(const UniqueFd& socket) {
  std::uint64_t cookie = 0;
  socklen_t size = sizeof cookie;
  EXPECT_EQ(::getsockopt(socket.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size), 0);
  return cookie;
}

// Takes a sandbox away and waits until its network may serve another.
void remove_and_rest(NetworkBuilder& networks, std::uint64_t id) {
  networks.remove(id);
  std::this_thread::sleep_for(NetworkBuilder::kRest);
}

// Closes the server's sockets and waits until the kernel has let go of them.
void leave(SandboxNetwork& network, std::size_t sockets_left = 0) {
  const UniqueFd netns = std::move(network.netns);
  network = {};
  const UniqueFd proc(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
  EXPECT_TRUE(eventually(
      [&] { return inside(netns, [&] { return read_network_traces(proc, TracesOf::kTraffic).value().sockets; }) == sockets_left; }));
}

TEST_F(SandboxNetworkTest, a_network_in_which_nothing_was_done_serves_another_sandbox) {
  auto networks = builder();
  for (const Network mode : {Network::kNone, Network::kOutside}) {
    auto first = make(*networks, 1, mode);
    const auto where = cookie_of(first.runtime_api);
    const auto address = outer_address(first);
    leave(first);
    remove_and_rest(*networks, 1);
    EXPECT_EQ(networks->kept(), 1U);
    const auto other = make(*networks, 2, mode == Network::kNone ? Network::kOutside : Network::kNone);
    EXPECT_NE(cookie_of(other.runtime_api), where) << "a network of the other kind is no use";
    auto made = networks->make(3, mode, 2);
    ASSERT_TRUE(made.ok()) << made.error().message();
    EXPECT_EQ(cookie_of(made->runtime_api), where);
    EXPECT_EQ(networks->kept(), 0U);
    EXPECT_EQ(made->connectors.size(), 2U);
    EXPECT_EQ(outer_address(*made), address);
    EXPECT_EQ(inside(made->netns, [] { return try_connect("169.254.100.1", 9001); }), 0);
    EXPECT_EQ(accept_peer(made->runtime_api), "169.254.100.1");
    EXPECT_EQ(inside(made->netns, [] { return try_connect(kOutsideServer, 80); }), mode == Network::kNone ? ENETUNREACH : 0);
    EXPECT_EQ(inside(made->netns, [] { return try_connect(kHost, 9000); }), mode == Network::kNone ? ENETUNREACH : ECONNREFUSED);
    networks->remove(3);
    EXPECT_EQ(networks->kept(), 0U) << "control: the one with connections is not kept";
    networks->remove_all();
  }
}

TEST_F(SandboxNetworkTest, a_network_in_which_anything_was_done_is_destroyed) {
  const std::vector<std::pair<const char*, std::function<void(const SandboxNetwork&)>>> deeds = {
      {"a connection to the server's listener", [](const auto&) { (void)try_connect("169.254.100.1", 9001); }},
      {"a connection within", [](const auto&) { (void)try_connect("127.0.0.1", 7); }},
      {"a connection outside", [](const auto&) { (void)try_connect(kOutsideServer, 80); }},
      {"a connection that is refused outside", [](const auto&) { (void)try_connect(kHost, 9000); }},
      {"a datagram outside",
       [](const auto&) {
         const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
         const auto name = address_of(kOutsideServer, 9);
         EXPECT_EQ(::sendto(socket.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&name), sizeof name), 1);
       }},
      {"a datagram to the own broadcast address and to oneself",
       [](const SandboxNetwork& network) {
         const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
         const auto name = address_of(outer_address(network), 9);
         (void)::sendto(socket.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&name), sizeof name);
       }},
      {"a destination of a socket that sends nothing",
       [](const auto&) {
         const UniqueFd socket(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
         sockaddr_in6 name{};
         name.sin6_family = AF_INET6;
         name.sin6_port = htons(9);
         name.sin6_addr = in6addr_loopback;
         if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0)
           (void)try_connect("127.0.0.1", 7);  // no IPv6 here
       }},
      {"a question for an IPv6 route",
       [](const auto&) {
         auto netlink = NetlinkSocket::open(NETLINK_ROUTE);
         ASSERT_TRUE(netlink.ok());
         rtmsg header{};
         header.rtm_family = AF_INET6;
         header.rtm_dst_len = 128;
         NetlinkBatch batch;
         batch.begin("ask for a route", RTM_GETROUTE, NLM_F_REQUEST, header)
             .attribute(RTA_DST, std::as_bytes(std::span(&in6addr_loopback, 1)));
         const auto failed = netlink->query(batch, [](const nlmsghdr&, std::span<const std::byte>) {});
         if (!failed.ok() || *failed != 0) (void)try_connect("127.0.0.1", 7);  // no IPv6 here
       }},
      {"a flow label that outlives its socket",
       [](const auto&) {
         const UniqueFd socket(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
         struct {
           in6_addr destination;
           std::uint32_t label;
           std::uint8_t action, share;
           std::uint16_t flags, expires, linger;
           std::uint32_t pad;
         } request{.destination = in6addr_loopback,
                   .label = htonl(0x4711),
                   .action = 0 /* get */,
                   .share = 1 /* exclusive */,
                   .flags = 3 /* create, exclusively */,
                   .expires = 30,
                   .linger = 30,
                   .pad = 0};
         if (::setsockopt(socket.get(), IPPROTO_IPV6, 32 /* IPV6_FLOWLABEL_MGR */, &request, sizeof request) != 0)
           (void)try_connect("127.0.0.1", 7);  // no IPv6 here
       }},
  };
  for (const auto& [what, deed] : deeds) {
    auto networks = builder();
    auto network = make(*networks, 1);
    const auto where = cookie_of(network.runtime_api);
    inside(network.netns, [&] {
      deed(network);
      return 0;
    });
    leave(network);
    remove_and_rest(*networks, 1);
    EXPECT_EQ(networks->kept(), 0U) << what;
    EXPECT_NE(cookie_of(make(*networks, 2).runtime_api), where) << what;
    networks->remove_all();
  }
}

TEST_F(SandboxNetworkTest, a_network_with_a_socket_left_in_it_serves_nobody_until_that_is_closed) {
  auto networks = builder();
  const std::vector<std::pair<const char*, std::function<UniqueFd()>>> kinds = {
      {"a TCP listener", [] { return listen_on("0.0.0.0", 8080); }},
      {"a UDP socket", [] { return UniqueFd(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0)); }},
      {"a local socket", [] { return UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)); }},
      {"a netlink socket", [] { return UniqueFd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)); }},
  };
  std::uint64_t id = 1;
  for (const auto& [what, open] : kinds) {
    auto network = make(*networks, id);
    const auto where = cookie_of(network.runtime_api);
    UniqueFd left = inside(network.netns, open);
    ASSERT_TRUE(left.valid()) << what;
    auto watch = network.netns.duplicate().value();
    leave(network, 1);
    remove_and_rest(*networks, id++);
    EXPECT_EQ(networks->kept(), 1U) << what;
    EXPECT_NE(cookie_of(make(*networks, id++).runtime_api), where) << what;
    left.reset();
    network.netns = std::move(watch);
    leave(network);
    EXPECT_EQ(cookie_of(make(*networks, id++).runtime_api), where) << what;
    networks->remove_all();
  }
}

TEST_F(SandboxNetworkTest, a_network_rests_before_it_serves_another_sandbox) {
  auto networks = builder();
  auto network = make(*networks, 1);
  const auto where = cookie_of(network.runtime_api);
  leave(network);
  networks->remove(1);
  EXPECT_NE(cookie_of(make(*networks, 2).runtime_api), where);
  EXPECT_EQ(networks->kept(), 1U);
  std::this_thread::sleep_for(NetworkBuilder::kRest);
  EXPECT_EQ(cookie_of(make(*networks, 3).runtime_api), where);
}

TEST_F(SandboxNetworkTest, no_more_networks_are_kept_than_the_bound_and_none_after_the_end) {
  auto networks = builder();
  ASSERT_TRUE(networks->prepare_outside().ok());
  for (std::uint64_t id = 1; id <= NetworkBuilder::kKeptMost + 2; ++id) (void)make(*networks, id);
  for (std::uint64_t id = 1; id <= NetworkBuilder::kKeptMost + 2; ++id) networks->remove(id);
  EXPECT_EQ(networks->kept(), NetworkBuilder::kKeptMost);
  networks->let_go_of_kept();
  EXPECT_EQ(networks->kept(), NetworkBuilder::kKeptMost) << "they were not kept for long so far";
  networks->remove_all();
  EXPECT_EQ(networks->kept(), 0U);
  EXPECT_TRUE(eventually([] { return devices_named("mf0123abcd").empty(); }));
}

TEST_F(SandboxNetworkTest, making_and_removing_stays_quick) {
  auto networks = builder();
  ASSERT_TRUE(networks->prepare_outside().ok());
  for (const Network mode : {Network::kNone, Network::kOutside}) {
    std::vector<double> made;
    std::vector<double> removed;
    const auto begin = std::chrono::steady_clock::now();
    for (std::uint64_t id = 1; id <= 40; ++id) {
      const auto start = std::chrono::steady_clock::now();
      auto network = make(*networks, id, mode);
      const auto middle = std::chrono::steady_clock::now();
      network = {};
      networks->remove(id);
      const auto end = std::chrono::steady_clock::now();
      made.push_back(std::chrono::duration<double, std::milli>(middle - start).count());
      removed.push_back(std::chrono::duration<double, std::milli>(end - middle).count());
    }
    const auto each = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count() / 40;
    std::ranges::sort(made);
    std::ranges::sort(removed);
    RecordProperty(mode == Network::kNone ? "make_none_us" : "make_outside_us", static_cast<int>(made[20] * 1000));
    std::printf("%s: make %.2f ms (worst %.2f), remove %.2f ms (worst %.2f), medians of 40; %.2f ms for each in all\n",
                mode == Network::kNone ? "none" : "outside", made[20], made.back(), removed[20], removed.back(), each);
    EXPECT_LT(made[20], 100.0);
  }
}

TEST(NetworkOptionsTest, bad_options_are_refused_by_name) {
  const auto refusal = [](const std::string& instance, const std::string& cidr, const std::vector<std::string>& deny) {
    auto made = NetworkBuilder::create({.instance = instance, .cidr = cidr, .deny = deny, .privileged = true});
    return made.ok() ? std::string("accepted") : made.error().message();
  };
  const std::string cidr = "100.88.0.0/16";
  EXPECT_NE(refusal("../../etc", cidr, {}).find("8 hex digits"), std::string::npos);
  EXPECT_NE(refusal("0123ABCD", cidr, {}).find("8 hex digits"), std::string::npos);
  EXPECT_NE(refusal("0123abcd", "100.88.0.0/30", {}).find("/10 to /28"), std::string::npos);
  EXPECT_NE(refusal("0123abcd", "100.88.0.1/16", {}).find("did you mean 100.88.0.0/16"), std::string::npos);
  EXPECT_NE(refusal("0123abcd", cidr, {"10.0.0.0/8; drop"}).find("denied network"), std::string::npos);
  EXPECT_NE(refusal("0123abcd", cidr, {"intranet.example"}).find("intranet.example"), std::string::npos);
}

TEST(FirewallTest, ranges_are_read_strictly) {
  EXPECT_EQ(parse_ipv4_range("10.0.0.0/8").value().to_string(), "10.0.0.0/8");
  EXPECT_EQ(parse_ipv4_range("192.0.2.1").value().to_string(), "192.0.2.1/32");
  EXPECT_EQ(parse_ipv4_range("0.0.0.0/0").value().to_string(), "0.0.0.0/0");
  for (const char* bad :
       {"", "10", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/8x", "10.0.0.0/-1", "010.0.0.0/8", "10.1.0.0/8", " 10.0.0.0/8", "::1"}) {
    EXPECT_FALSE(parse_ipv4_range(bad).ok()) << bad;
  }
  EXPECT_TRUE(is_ipv6_range("fd00::/8"));
  EXPECT_FALSE(is_ipv6_range("fd00::/129"));
}

TEST(FirewallTest, chains_that_drop_what_is_forwarded_are_found) {
  const auto found = dropping_forward_chains(
      "table ip filter {\n\tchain INPUT {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n\tchain FORWARD {\n\t\ttype "
      "filter hook forward "
      "priority filter; policy drop;\n\t}\n}\ntable inet mayfly_0123abcd {\n\tchain through {\n\t\ttype filter hook forward priority "
      "mangle; policy "
      "accept;\n\t}\n}\n");
  EXPECT_EQ(found, std::vector<std::string>{"ip filter FORWARD"});
}

}  // namespace
}  // namespace mayfly::sandbox::internal
