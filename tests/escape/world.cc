#include "world.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pty.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "sandbox/internal/netlink.h"

namespace mayfly::escape {

namespace fs = std::filesystem;
using base::UniqueFd;
using sandbox::internal::NetlinkBatch;
using sandbox::internal::NetlinkSocket;

namespace {

std::string content_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

constexpr unsigned kOwnNamespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP;

// In the child: becomes the probe.
[[noreturn]] void become(const std::string& program, const Words& words, const OutsideOptions& options, int output, int terminal) {
  if (options.own_namespaces) {
    if (unshare(kOwnNamespaces) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) _exit(99);
    if (const pid_t first = fork(); first != 0) {
      int status = 0;
      waitpid(first, &status, 0);
      _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 98);
    }
    if (mount("proc", "/proc", "proc", 0, nullptr) != 0) _exit(97);
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  setsid();
  const int null = open("/dev/null", O_RDWR);
  if (options.inherited >= 0) dup2(options.inherited, 9);
  dup2(terminal >= 0 ? terminal : null, 0);
  if (terminal >= 0) ioctl(0, TIOCSCTTY, 0);
  dup2(output, 1);
  dup2(output, 2);
  const rlimit files{20'000, 20'000};
  setrlimit(RLIMIT_NOFILE, &files);
  if (options.user != 0 &&
      (setresgid(options.user, options.user, options.user) != 0 || setresuid(options.user, options.user, options.user) != 0))
    _exit(96);
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const auto& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  _exit(95);
}

void apply(NetlinkBatch& batch) {
  auto netlink = NetlinkSocket::open(NETLINK_ROUTE).value();
  auto done = netlink.apply(batch);
  ASSERT_TRUE(done.ok()) << done.error().message();
}

void bring_up(const char* device) {
  ifinfomsg header{};
  header.ifi_index = static_cast<int>(if_nametoindex(device));
  header.ifi_flags = header.ifi_change = IFF_UP;
  NetlinkBatch batch;
  batch.begin("up", RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, header);
  apply(batch);
}

void add_address(const char* device, const char* address, unsigned prefix) {
  unsigned char value[16];
  const bool is_v4 = inet_pton(AF_INET, address, value) == 1;
  if (!is_v4) {
    ASSERT_EQ(inet_pton(AF_INET6, address, value), 1);
  }
  ifaddrmsg header{};
  header.ifa_family = is_v4 ? AF_INET : AF_INET6;
  header.ifa_prefixlen = static_cast<unsigned char>(prefix);
  header.ifa_flags = IFA_F_NODAD;
  header.ifa_index = if_nametoindex(device);
  const auto bytes = std::as_bytes(std::span(value, is_v4 ? 4U : 16U));
  NetlinkBatch batch;
  batch.begin(std::string("address ") + address, RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, header)
      .attribute(IFA_LOCAL, bytes)
      .attribute(IFA_ADDRESS, bytes);
  apply(batch);
}

void add_route(const char* network, unsigned prefix, const char* gateway) {
  in_addr to{};
  in_addr via{};
  ASSERT_EQ(inet_pton(AF_INET, network, &to), 1);
  ASSERT_EQ(inet_pton(AF_INET, gateway, &via), 1);
  rtmsg route{};
  route.rtm_family = AF_INET;
  route.rtm_dst_len = static_cast<unsigned char>(prefix);
  route.rtm_table = RT_TABLE_MAIN;
  route.rtm_protocol = RTPROT_BOOT;
  route.rtm_type = RTN_UNICAST;
  NetlinkBatch batch;
  batch.begin(std::string("route to ") + network, RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, route);
  batch.attribute(RTA_DST, std::as_bytes(std::span(&to, 1))).attribute(RTA_GATEWAY, std::as_bytes(std::span(&via, 1)));
  apply(batch);
}

UniqueFd current_network() { return UniqueFd(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)); }

}  // namespace

void EscapeTest::SetUp() {
  if (!sandbox::test::is_root()) GTEST_SKIP() << "needs root: containment is tried against the privileged launcher";
  secret = directory.path() + "/server.db";
  std::ofstream(secret) << "a secret of the server\n";
  const bool forked = GetParam() == Birth::kForkedFromAZygote;
  if (forked && !fs::exists("/usr/bin/python3")) GTEST_SKIP() << "no /usr/bin/python3 to make a zygote of";
  if (forked) bench.prepare_zygote();
  ASSERT_TRUE(bench.open());
  code = bench.add_tree({{"probe", content_of(MAYFLY_ESCAPE_PROBE)}, {"data", "data of the function\n"}});
  if (!forked) return;
  const auto ready = bench.fork_from_zygote();
  ASSERT_TRUE(ready.ok()) << ready.error().message();
}

sandbox::SandboxSpec EscapeTest::spec(const Words& words) {
  auto made = bench.spec(code);
  made.arguments = {"/var/task/probe"};
  made.arguments.insert(made.arguments.end(), words.begin(), words.end());
  return made;
}

Attempt EscapeTest::run(const sandbox::SandboxSpec& wanted) {
  auto ending = bench.run(wanted);
  return {.exit_code = ending.exited.exit_code,
          .signal = ending.exited.signal,
          .out_of_memory = ending.exited.out_of_memory,
          .output = ending.output};
}

Attempt EscapeTest::outside(const Words& words, const OutsideOptions& options) {
  int pipe[2];
  EXPECT_EQ(pipe2(pipe, O_CLOEXEC), 0);
  const UniqueFd reader(pipe[0]);
  UniqueFd writer(pipe[1]);
  int main_end = -1;
  int terminal = -1;
  if (options.terminal) {
    EXPECT_EQ(openpty(&main_end, &terminal, nullptr, nullptr, nullptr), 0);
  }
  const UniqueFd keep(main_end);
  const std::string program = code_path("probe");
  const pid_t child = fork();
  if (child == 0) become(program, words, options, writer.get(), terminal);
  if (terminal >= 0) close(terminal);
  writer.reset();
  Attempt attempt;
  attempt.output = sandbox::test::read_output(reader.get(), {}, options.patience);
  int status = 0;
  waitpid(child, &status, 0);
  attempt.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  attempt.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  return attempt;
}

void EscapeTest::expect_contained(const Words& words, const OutsideOptions& control) {
  const auto free = outside(words, control);
  EXPECT_TRUE(free.reached()) << "positive control: the attack must work outside (exit " << free.exit_code << ", signal " << free.signal
                              << ")\n"
                              << free.output;
  const auto held = inside(words);
  EXPECT_TRUE(held.contained()) << "exit " << held.exit_code << ", signal " << held.signal << "\n" << held.output;
}

void NetworkEscapeTest::SetUp() {
  if (!sandbox::test::is_root()) GTEST_SKIP() << "needs root: makes network namespaces and a firewall";
  original = current_network();
  ASSERT_EQ(unshare(CLONE_NEWNET), 0);
  outside_network = current_network();
  ASSERT_EQ(unshare(CLONE_NEWNET), 0);
  bring_up("lo");
  NetlinkBatch uplink;
  uplink.begin("uplink", RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, ifinfomsg{}).text(IFLA_IFNAME, "up0");
  ifinfomsg peer{};
  peer.ifi_index = 77;  // equal indexes at both ends make the kernel take a second to notice that the link is up
  uplink.open(IFLA_LINKINFO).text(IFLA_INFO_KIND, "veth").open(IFLA_INFO_DATA).open(VETH_INFO_PEER).append(peer);
  uplink.text(IFLA_IFNAME, "up1").u32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(outside_network.get())).close().close().close();
  apply(uplink);
  add_address("up0", kHostAddress, 24);
  bring_up("up0");
  add_address("up0", kHostAddress6, 64);
  in_namespace(outside_network, [&] {
    bring_up("lo");
    add_address("up1", kOutsideAddress, 24);
    bring_up("up1");
    add_address("up1", kMetadataAddress6, 64);
    add_address("lo", kMetadataAddress, 32);
    add_address("lo", "100.100.100.200", 32);
    add_route("100.89.0.0", 16, kHostAddress);
    web = listen_everywhere(80);
  });
  add_route("0.0.0.0", 0, kOutsideAddress);
  for (int i = 0; i < 50 && !connects(kOutsideAddress, 80); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ASSERT_NO_FATAL_FAILURE(EscapeTest::SetUp());
}

void NetworkEscapeTest::TearDown() {
  bench.close();
  if (original) {
    ASSERT_EQ(setns(original.get(), CLONE_NEWNET), 0);
  }
}

sandbox::SandboxSpec NetworkEscapeTest::outside_spec(const Words& words) {
  auto made = spec(words);
  made.network = sandbox::Network::kOutside;
  return made;
}

void NetworkEscapeTest::in_namespace(const UniqueFd& netns, const std::function<void()>& work) {
  const UniqueFd back = current_network();
  ASSERT_EQ(setns(netns.get(), CLONE_NEWNET), 0);
  work();
  ASSERT_EQ(setns(back.get(), CLONE_NEWNET), 0);
}

UniqueFd listen_everywhere(std::uint16_t port) {
  UniqueFd socket(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int off = 0;
  setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  any.sin6_port = htons(port);
  EXPECT_EQ(bind(socket.get(), reinterpret_cast<sockaddr*>(&any), sizeof any), 0) << std::strerror(errno);
  EXPECT_EQ(listen(socket.get(), 64), 0);
  return socket;
}

bool accepts_one(const UniqueFd& listener, std::chrono::milliseconds patience) {
  pollfd ready{.fd = listener.get(), .events = POLLIN, .revents = 0};
  if (poll(&ready, 1, static_cast<int>(patience.count())) != 1) return false;
  return UniqueFd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC)).valid();
}

UniqueFd namespace_of(int socket) { return UniqueFd(ioctl(socket, SIOCGSKNS)); }

bool connects(const std::string& address, std::uint16_t port) {
  const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(port);
  EXPECT_EQ(inet_pton(AF_INET, address.c_str(), &name.sin_addr), 1) << address;
  if (connect(socket.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) == 0) return true;
  pollfd ready{.fd = socket.get(), .events = POLLOUT, .revents = 0};
  if (errno != EINPROGRESS || poll(&ready, 1, 700) != 1) return false;
  int error = 0;
  socklen_t size = sizeof error;
  return getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

std::string name_of(const ::testing::TestParamInfo<Birth>& info) { return info.param == Birth::kExecuted ? "executed" : "forked"; }

INSTANTIATE_TEST_SUITE_P(Sandboxes, EscapeTest, ::testing::Values(Birth::kExecuted, Birth::kForkedFromAZygote), name_of);
INSTANTIATE_TEST_SUITE_P(Sandboxes, NetworkEscapeTest, ::testing::Values(Birth::kExecuted, Birth::kForkedFromAZygote), name_of);

}  // namespace mayfly::escape
