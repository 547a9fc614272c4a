// Load generator: sends the requests of a file, one after the other and again from the first, over kept-alive connections to
// 127.0.0.1. Usage: bench_load PORT REQUESTS CONNECTIONS SECONDS [RATE [LATENCIES]]. Prints one JSON object. One thread; a connection
// sends its next request when its answer has arrived. SECONDS 0: every request once. RATE (0: as fast as answers come): requests
// per second that are due at even distances whether or not a connection is free; the latency counts from when one was due.
// LATENCIES: a file for one latency in µs a line, in the order of the requests. An answer that is not 2xx counts as an error, and so
// does a function error.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
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

using Steady = std::chrono::steady_clock;

struct Connection {
  int fd = -1;
  bool busy = false;
  std::size_t number = 0;  // of its request
  std::string buffer;
  Steady::time_point due;
};

// The length of the first whole message in `buffer`, 0 while bytes are missing.
std::size_t message_length(std::string_view buffer) {
  const std::size_t end = buffer.find("\r\n\r\n");
  if (end == std::string_view::npos) return 0;
  const std::size_t at = buffer.find("Content-Length: ");
  const std::size_t body = at != std::string_view::npos && at < end ? std::strtoull(buffer.data() + at + 16, nullptr, 10) : 0;
  return buffer.size() >= end + 4 + body ? end + 4 + body : 0;
}

std::vector<std::string_view> split_requests(std::string_view bytes) {
  std::vector<std::string_view> requests;
  while (const std::size_t length = message_length(bytes)) {
    requests.push_back(bytes.substr(0, length));
    bytes.remove_prefix(length);
  }
  return requests;
}

int connect_to(const char* port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port)));
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return -1;
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

struct Load {
  std::vector<std::string_view> requests;
  std::vector<Connection> connections;
  Steady::time_point started, end;
  double rate = 0;
  bool once = false;
  std::size_t sent = 0, busy = 0, errors = 0;
  std::vector<double> latencies_us;  // by number of the request; negative: failed

  [[nodiscard]] Steady::time_point due_time(std::size_t number) const {
    return started + std::chrono::nanoseconds(static_cast<long>(static_cast<double>(number) * 1e9 / rate));
  }
  [[nodiscard]] bool has_more(Steady::time_point now) const { return once ? sent < requests.size() : now < end; }

  // Sends the next request on an idle connection if one is due; false when the connection is of no use any more.
  bool send_next(Connection& connection, Steady::time_point now) {
    if (!has_more(now) || (rate > 0 && now < due_time(sent))) return true;
    const std::string_view request = requests[sent % requests.size()];
    connection.due = rate > 0 ? due_time(sent) : Steady::now();
    connection.number = sent++;
    latencies_us.push_back(-1);
    connection.busy = true;
    ++busy;
    for (std::size_t at = 0; at < request.size();) {
      const ssize_t written = write(connection.fd, request.data() + at, request.size() - at);
      if (written <= 0) return false;
      at += static_cast<std::size_t>(written);
    }
    return true;
  }

  // Reads from a busy connection; false when it is of no use any more.
  bool receive(Connection& connection) {
    char bytes[65536];
    const ssize_t got = read(connection.fd, bytes, sizeof bytes);
    if (got <= 0 || !connection.busy) return false;
    connection.buffer.append(bytes, static_cast<std::size_t>(got));
    const std::size_t length = message_length(connection.buffer);
    if (length == 0) return true;
    const std::string_view answer = std::string_view(connection.buffer).substr(0, length);
    if (answer.starts_with("HTTP/1.1 2") && answer.find("Function-Error") == std::string_view::npos) {
      latencies_us[connection.number] = std::chrono::duration<double, std::micro>(Steady::now() - connection.due).count();
    } else if (++errors == 1) {
      std::fprintf(stderr, "bench_load: %.*s\n", static_cast<int>(std::min<std::size_t>(answer.size(), 600)), answer.data());
    }
    connection.buffer.erase(0, length);
    connection.busy = false;
    --busy;
    return true;
  }
};

double percentile(const std::vector<double>& sorted, double part) {
  if (sorted.empty()) return 0;
  return sorted[std::min(sorted.size() - 1, static_cast<std::size_t>(part * static_cast<double>(sorted.size())))];
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5 || argc > 7) return 2;
  prctl(PR_SET_TIMERSLACK, 1UL);  // what is due is sent on time
  std::ifstream file(argv[2], std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  Load load;
  load.requests = split_requests(bytes);
  if (load.requests.empty()) return 2;
  load.once = std::atof(argv[4]) <= 0;
  load.rate = argc > 5 ? std::atof(argv[5]) : 0;
  load.connections.resize(static_cast<std::size_t>(std::atoi(argv[3])));
  const int poll = epoll_create1(0);
  for (std::size_t i = 0; i < load.connections.size(); ++i) {
    load.connections[i].fd = connect_to(argv[1]);
    if (load.connections[i].fd < 0) return 1;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = i;
    epoll_ctl(poll, EPOLL_CTL_ADD, load.connections[i].fd, &event);
  }
  load.started = Steady::now();
  load.end = load.started + std::chrono::milliseconds(static_cast<long>(std::atof(argv[4]) * 1000));
  Steady::time_point heard = load.started;
  while (true) {
    Steady::time_point now = Steady::now();
    for (Connection& connection : load.connections) {
      if (!connection.busy && !load.send_next(connection, now)) return 1;
    }
    if (load.busy == 0 && !load.has_more(now)) break;
    if (now - heard > std::chrono::seconds(10)) break;  // what is still out is lost
    timespec wait{.tv_sec = 0, .tv_nsec = 100'000'000};
    if (load.rate > 0 && load.busy < load.connections.size()) {
      const auto left = std::min(load.due_time(load.sent) - now, Steady::duration(std::chrono::milliseconds(100)));
      wait.tv_nsec = std::max<long>(0, static_cast<long>(std::chrono::nanoseconds(left).count()));
    }
    epoll_event ready[64];
    const int count = epoll_pwait2(poll, ready, 64, &wait, nullptr);
    for (int i = 0; i < count; ++i) {
      if (!load.receive(load.connections[ready[i].data.u64])) return 1;
    }
    if (count > 0 || load.busy == 0) heard = Steady::now();
  }
  const double seconds = std::chrono::duration<double>(Steady::now() - load.started).count();
  if (argc > 6) {
    std::ofstream all(argv[6]);
    for (const double latency : load.latencies_us) all << latency << '\n';
  }
  std::vector<double> sorted;
  std::copy_if(load.latencies_us.begin(), load.latencies_us.end(), std::back_inserter(sorted), [](double each) { return each >= 0; });
  std::sort(sorted.begin(), sorted.end());
  std::printf("{\"requests\":%zu,\"errors\":%zu,\"seconds\":%.3f,\"rps\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f}\n", sorted.size(),
              load.errors + load.busy, seconds, static_cast<double>(sorted.size()) / seconds, percentile(sorted, 0.5),
              percentile(sorted, 0.99));
}
