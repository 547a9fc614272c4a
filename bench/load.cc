// Load generator: sends the bytes of one file as a request, again and again, over kept-alive connections to 127.0.0.1.
// Usage: bench_load PORT REQUEST_FILE CONNECTIONS SECONDS. Prints one JSON object. One thread; a connection sends its next
// request when its answer has arrived. An answer that is not "HTTP/1.1 200" counts as an error, and so does a function error.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

struct Connection {
  int fd = -1;
  std::string buffer;
  SteadyTime sent;
};

std::size_t answer_length(std::string_view buffer) {
  const std::size_t end = buffer.find("\r\n\r\n");
  if (end == std::string_view::npos) return 0;
  const std::size_t at = buffer.find("Content-Length: ");
  const std::size_t body = at != std::string_view::npos && at < end ? std::strtoull(buffer.data() + at + 16, nullptr, 10) : 0;
  return buffer.size() >= end + 4 + body ? end + 4 + body : 0;
}

bool send_request(Connection& connection, const std::string& request) {
  connection.sent = std::chrono::steady_clock::now();
  return write(connection.fd, request.data(), request.size()) == static_cast<ssize_t>(request.size());
}

double percentile(const std::vector<double>& sorted, double part) {
  if (sorted.empty()) return 0;
  return sorted[std::min(sorted.size() - 1, static_cast<std::size_t>(part * static_cast<double>(sorted.size())))];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  std::ifstream file(argv[2], std::ios::binary);
  const std::string request((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(argv[1])));
  std::vector<Connection> connections(static_cast<std::size_t>(std::atoi(argv[3])));
  const int poll = epoll_create1(0);
  for (std::size_t i = 0; i < connections.size(); ++i) {
    Connection& connection = connections[i];
    connection.fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(connection.fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return 1;
    const int on = 1;
    setsockopt(connection.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = i;
    epoll_ctl(poll, EPOLL_CTL_ADD, connection.fd, &event);
    if (!send_request(connection, request)) return 1;
  }
  const SteadyTime started = std::chrono::steady_clock::now();
  const SteadyTime end = started + std::chrono::milliseconds(static_cast<long>(std::atof(argv[4]) * 1000));
  std::vector<double> latencies_us;
  std::size_t errors = 0;
  std::size_t open = connections.size();
  while (open > 0) {
    epoll_event ready[64];
    const int count = epoll_wait(poll, ready, 64, 10'000);
    if (count <= 0) {
      errors += open;
      break;
    }
    for (int i = 0; i < count; ++i) {
      Connection& connection = connections[ready[i].data.u64];
      char bytes[65536];
      const ssize_t got = read(connection.fd, bytes, sizeof bytes);
      if (got > 0) connection.buffer.append(bytes, static_cast<std::size_t>(got));
      const std::size_t length = answer_length(connection.buffer);
      const SteadyTime now = std::chrono::steady_clock::now();
      if (got > 0 && length == 0) continue;
      const std::string_view answer = std::string_view(connection.buffer).substr(0, length);
      if (got <= 0 || !answer.starts_with("HTTP/1.1 200") || answer.find("Function-Error") != std::string_view::npos) ++errors;
      else latencies_us.push_back(std::chrono::duration<double, std::micro>(now - connection.sent).count());
      connection.buffer.erase(0, length);
      if (got <= 0 || now >= end || !send_request(connection, request)) {
        close(connection.fd);
        --open;
      }
    }
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  std::sort(latencies_us.begin(), latencies_us.end());
  std::printf("{\"requests\":%zu,\"errors\":%zu,\"seconds\":%.3f,\"rps\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f}\n", latencies_us.size(), errors, seconds,
              static_cast<double>(latencies_us.size()) / seconds, percentile(latencies_us, 0.5), percentile(latencies_us, 0.99));
}
