// Clients that take a server's connections and give it little to do. Usage: bench_clients PORT IDLE SLOW SECONDS
//
// IDLE connections to 127.0.0.1 send nothing; SLOW ones send one byte a second of a request that never ends. Holds them for SECONDS,
// then prints one JSON object: how many connections of each kind were made, and how many were still open in the end. Prints "ready" on
// a line of its own when all are made. A connection that the server ends is not made anew.
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using Steady = std::chrono::steady_clock;

constexpr std::string_view kEndless = "POST / HTTP/1.1\r\nHost: slow.example\r\nX-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

std::vector<int> connect_many(int port, int count) {
  std::vector<int> connections;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  for (int i = 0; i < count; ++i) {
    // 127.0.0.1 to .8 as callers: one address has 28,000 ports, some of them still waiting.
    sockaddr_in own{};
    own.sin_family = AF_INET;
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK + static_cast<std::uint32_t>(i % 8));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) break;
    if (bind(fd, reinterpret_cast<sockaddr*>(&own), sizeof own) == 0 && connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
      connections.push_back(fd);
    } else {
      close(fd);
    }
  }
  return connections;
}

// Whether the server has not ended it. What the server says is read and forgotten.
bool is_open(int fd) {
  char bytes[4096];
  ssize_t got = 0;
  do got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
  while (got > 0);
  return got < 0 && errno == EAGAIN;
}

int count_open(const std::vector<int>& connections) {
  int open = 0;
  for (const int fd : connections) open += is_open(fd) ? 1 : 0;
  return open;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  signal(SIGPIPE, SIG_IGN);
  const rlimit files{.rlim_cur = 65536, .rlim_max = 65536};
  setrlimit(RLIMIT_NOFILE, &files);
  const std::vector<int> idle = connect_many(std::atoi(argv[1]), std::atoi(argv[2]));
  const std::vector<int> slow = connect_many(std::atoi(argv[1]), std::atoi(argv[3]));
  std::printf("ready\n");
  std::fflush(stdout);
  const auto end = Steady::now() + std::chrono::milliseconds(static_cast<long>(std::atof(argv[4]) * 1000));
  for (std::size_t at = 0; Steady::now() < end; ++at) {
    const auto next = Steady::now() + std::chrono::seconds(1);
    for (const int fd : slow) (void)send(fd, kEndless.data() + at % kEndless.size(), 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    std::this_thread::sleep_until(std::min(next, end));
  }
  std::printf("{\"idle\":%zu,\"slow\":%zu,\"idle_open\":%d,\"slow_open\":%d}\n", idle.size(), slow.size(), count_open(idle), count_open(slow));
}
