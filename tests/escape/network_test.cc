// E34 to E38 and the part of E39 the launcher decides: what a sandbox with an outside network reaches, and who reaches it.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>

#include "world.h"

namespace mayfly::escape {
namespace {

using base::UniqueFd;

UniqueFd unix_listener(const std::string& name) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path, sizeof address.sun_path - 1);
  socklen_t size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
  if (name[0] == '@')
    address.sun_path[0] = '\0';
  else
    ++size;
  EXPECT_EQ(bind(socket.get(), reinterpret_cast<sockaddr*>(&address), size), 0) << name;
  EXPECT_EQ(listen(socket.get(), 8), 0);
  return socket;
}

// A sandbox that listens on port 7777, and its address.
struct Listener {
  sandbox::SandboxId id = 0;
  base::Result<sandbox::Sandbox> started;
  std::string address;
};
Listener start_listener(sandbox::test::Bench& bench, const sandbox::SandboxSpec& spec) {
  Listener listener{.id = spec.id, .started = bench.start(spec), .address = {}};
  EXPECT_TRUE(listener.started.ok()) << (listener.started.ok() ? "" : listener.started.error().message());
  if (!listener.started.ok()) return listener;
  const auto said = sandbox::test::read_output(listener.started->output.get(), "\n");
  char address[32] = {};
  EXPECT_EQ(std::sscanf(said.c_str(), "listening %31s", address), 1) << said;
  listener.address = address;
  return listener;
}

TEST_P(NetworkEscapeTest, e34_the_outside_is_reached_but_no_metadata_address) {
  const auto allowed = run(outside_spec({"connect", kOutsideAddress, "80"}));
  EXPECT_TRUE(allowed.reached()) << "control: the sandbox has a network\n" << allowed.output;
  for (const char* address : {kMetadataAddress, kMetadataAddress6, "::ffff:169.254.169.254", "100.100.100.200"}) {
    EXPECT_TRUE(outside({"connect", address, "80"}).reached()) << "control: the host reaches " << address;
    const auto held = run(outside_spec({"connect", address, "80"}));
    EXPECT_TRUE(held.contained()) << held.output;
  }
}

TEST_P(NetworkEscapeTest, e35_no_address_or_socket_of_the_host_is_reached) {
  const UniqueFd management = listen_everywhere(9000);
  const std::string socket_path = directory.path() + "/server.sock";
  const UniqueFd by_path = unix_listener(socket_path);
  const UniqueFd abstract = unix_listener("@mayfly-escape");
  const auto listener = start_listener(bench, outside_spec({"listen", "7777"}));
  in_addr gateway{};
  ASSERT_EQ(inet_pton(AF_INET, listener.address.c_str(), &gateway), 1) << listener.address;
  gateway.s_addr = htonl(ntohl(gateway.s_addr) - 1);
  char text[INET_ADDRSTRLEN];
  const std::string gateway_address = inet_ntop(AF_INET, &gateway, text, sizeof text);
  // The sandbox that shares the gateway ends first: each has its own, next to its own address.
  for (const std::string& address :
       {std::string("127.0.0.1"), std::string(kHostAddress), std::string("::1"), std::string(kHostAddress6), gateway_address}) {
    EXPECT_TRUE(outside({"connect", address, "9000"}).reached()) << "control: " << address;
    const auto held = run(outside_spec({"connect", address, "9000"}));
    EXPECT_TRUE(held.contained()) << held.output;
  }
  for (const std::string& name : {socket_path, std::string("@mayfly-escape")}) {
    EXPECT_TRUE(outside({"unix_connect", name}).reached()) << "control: " << name;
    const auto held = run(outside_spec({"unix_connect", name}));
    EXPECT_TRUE(held.contained()) << held.output;
  }
  EXPECT_TRUE(
      run(outside_spec({"connect", "0.0.0.0", "9000", "127.0.0.2", "9000", "127.1.2.3", "9000", "255.255.255.255", "9000"})).contained());
}

TEST_P(NetworkEscapeTest, e35_the_own_gateway_address_does_not_answer) {
  const UniqueFd management = listen_everywhere(9000);
  // The shell computes the gateway of this very sandbox from its routing table and gives it to the probe.
  auto wanted = outside_spec({});
  wanted.arguments = {"/bin/sh", "-c",
                      "set -- $(grep -E '^eth0[[:space:]]00000000' /proc/net/route | head -1); g=$3; "
                      "exec /var/task/probe connect $((0x${g#??????})).$((0x$(echo $g | cut -c5-6))).$((0x$(echo $g | cut "
                      "-c3-4))).$((0x$(echo $g | cut -c1-2))) 9000"};
  const auto held = run(wanted);
  EXPECT_EQ(held.exit_code, 0) << held.output;
  EXPECT_NE(held.output.find("contained: 100.89."), std::string::npos) << "control: it found its gateway\n" << held.output;
}

TEST_P(NetworkEscapeTest, e36_another_sandbox_is_not_reached) {
  auto listener = start_listener(bench, outside_spec({"listen", "7777"}));
  ASSERT_NE(listener.address, "none");
  const auto held = run(outside_spec({"connect", listener.address, "7777"}));
  EXPECT_TRUE(held.contained()) << held.output;
  in_namespace(namespace_of(listener.started->runtime_api.get()),
               [&] { EXPECT_TRUE(connects(listener.address, 7777)) << "control: it listens"; });
  const auto exited = bench.wait_exit(listener.id);
  ASSERT_TRUE(exited.has_value());
  EXPECT_EQ(exited->exit_code, 10) << "control: the listener saw exactly our own connection";
}

TEST_P(NetworkEscapeTest, e36_borrowed_source_addresses_do_not_leave) {
  UniqueFd receiver;
  in_namespace(outside_network, [&] {
    receiver = UniqueFd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_port = htons(5353);
    ASSERT_EQ(bind(receiver.get(), reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
  });
  const auto arrives = [&] {
    pollfd ready{.fd = receiver.get(), .events = POLLIN, .revents = 0};
    char text[16];
    return poll(&ready, 1, 400) == 1 && recv(receiver.get(), text, sizeof text, 0) == 5;
  };
  EXPECT_TRUE(run(outside_spec({"spoof", "0.0.0.0", kOutsideAddress, "5353"})).reached());
  EXPECT_TRUE(arrives()) << "control: with its own address it arrives";
  for (const char* source : {"169.254.100.1", "127.0.0.1", kHostAddress, "198.51.100.77", "100.89.0.1"}) {
    const auto tried = run(outside_spec({"spoof", source, kOutsideAddress, "5353"}));
    EXPECT_FALSE(arrives()) << source << "\n" << tried.output;
  }
}

TEST_P(NetworkEscapeTest, e37_a_listening_sandbox_is_not_reached_from_outside_or_from_the_host) {
  auto listener = start_listener(bench, outside_spec({"listen", "7777"}));
  EXPECT_FALSE(connects(listener.address, 7777)) << "from the host";
  in_namespace(outside_network, [&] {
    EXPECT_FALSE(connects(listener.address, 7777)) << "from outside, which has a route to it";
    EXPECT_FALSE(connects(kHostAddress, 7777)) << "no port of the host leads there";
  });
  const auto exited = bench.wait_exit(listener.id);
  ASSERT_TRUE(exited.has_value());
  EXPECT_EQ(exited->exit_code, 0) << "nobody connected";
}

TEST_P(NetworkEscapeTest, e38_a_sandbox_without_network_sends_no_packet_at_all) {
  const auto held = run(spec({"connect", kOutsideAddress, "80", kHostAddress, "80", kMetadataAddress, "80"}));
  EXPECT_TRUE(held.contained()) << held.output;
  EXPECT_NE(held.output.find("Network is unreachable"), std::string::npos) << held.output;
  EXPECT_TRUE(run(outside_spec({"connect", kOutsideAddress, "80"})).reached()) << "control: the other kind reaches it";
  const auto devices = bench.run("cat /proc/net/dev");
  EXPECT_EQ(devices.output.find("eth0"), std::string::npos) << devices.output;
}

TEST_P(NetworkEscapeTest, e39_each_sandbox_reaches_its_own_runtime_api_only) {
  const auto first = outside_spec({"hang"});
  auto one = bench.start(first);
  ASSERT_TRUE(one.ok()) << one.error().message();
  const auto second = outside_spec({"connect", "169.254.100.1", "9001"});
  auto two = bench.start(second);
  ASSERT_TRUE(two.ok()) << two.error().message();
  EXPECT_TRUE(accepts_one(two->runtime_api, std::chrono::seconds(5))) << "control: it connected to its own";
  EXPECT_FALSE(accepts_one(one->runtime_api, std::chrono::milliseconds(200)));
  ASSERT_TRUE(bench.wait_exit(second.id).has_value());
  bench.launcher().kill(first.id);
  EXPECT_TRUE(bench.wait_exit(first.id).has_value());
  EXPECT_TRUE(run(outside_spec({"listen", "53"})).exit_code == 11) << "the port of its own resolver cannot be taken over";
}

}  // namespace
}  // namespace mayfly::escape
