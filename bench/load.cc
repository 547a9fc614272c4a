// Load generator: sends the requests of a file, one after the other and again from the first, over kept-alive connections to
// 127.0.0.1. Usage: bench_load PORT REQUESTS CONNECTIONS SECONDS [RATE [LATENCIES]]. Prints one JSON object. One thread; a connection
// sends its next request when its answer has arrived. SECONDS 0: every request once. RATE (0: as fast as answers come): requests
// per second that are due at even distances whether or not a connection is free; the latency counts from when one was due. With
// RATE below 0 its amount is the rate, and what finds no free connection is given up as `unsent` rather than sent late: a crowd of
// callers that does not slow down. LATENCIES: a file for one latency in µs a line, in the order of the requests (negative: failed).
//
// An answer of status 2xx without a function error succeeded and is the only kind whose latency counts; 429 is `throttled`; any other
// is an error, and so is a connection that broke before its answer, or an answer that did not come within 10 s of the last one heard.
// Broken connections are made anew. Exit status: 1 when a connection cannot be made at all, 2 for wrong arguments.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Steady = std::chrono::steady_clock;

// The value of a header in the head of a message, "" when absent. Names compare without case.
std::string_view header(std::string_view head, std::string_view name) {
  for (std::size_t at = head.find("\r\n"); at != std::string_view::npos; at = head.find("\r\n", at)) {
    at += 2;
    if (head.size() > at + name.size() && head[at + name.size()] == ':' && strncasecmp(head.data() + at, name.data(), name.size()) == 0) {
      std::string_view value = head.substr(at + name.size() + 1);
      value = value.substr(0, value.find("\r\n"));
      while (value.starts_with(' ')) value.remove_prefix(1);
      return value;
    }
  }
  return {};
}

// The length of a chunked body that begins at `at`, last chunk and trailers included; 0 while bytes are missing.
std::size_t chunked_length(std::string_view buffer, std::size_t at) {
  const std::size_t start = at;
  while (true) {
    const std::size_t line = buffer.find("\r\n", at);
    if (line == std::string_view::npos) return 0;
    const std::size_t size = std::strtoull(buffer.data() + at, nullptr, 16);
    if (size == 0) {
      const std::size_t end = buffer.find("\r\n\r\n", line);
      return end == std::string_view::npos ? 0 : end + 4 - start;
    }
    at = line + 2 + size + 2;
    if (at > buffer.size()) return 0;
  }
}

// The length of the first whole message in `buffer`, 0 while bytes are missing.
std::size_t message_length(std::string_view buffer) {
  const std::size_t end = buffer.find("\r\n\r\n");
  if (end == std::string_view::npos) return 0;
  const std::string_view head = buffer.substr(0, end + 2);
  if (!header(head, "Transfer-Encoding").empty()) {
    const std::size_t body = chunked_length(buffer, end + 4);
    return body == 0 ? 0 : end + 4 + body;
  }
  const std::string_view length = header(head, "Content-Length");
  const std::size_t body = length.empty() ? 0 : std::strtoull(length.data(), nullptr, 10);
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
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    close(fd);
    return -1;
  }
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

struct Connection {
  int fd = -1;
  bool busy = false;
  std::size_t number = 0;  // of its request
  std::string buffer;
  Steady::time_point due;
};

class Load {
 public:
  Load(const char* port, std::vector<std::string_view> requests, double seconds, double rate)
      : port_(port), requests_(std::move(requests)), seconds_(seconds), rate_(std::abs(rate)), gives_up_(rate < 0) {}

  // False when the server refuses one.
  bool connect(std::size_t count) {
    connections_.resize(count);
    for (std::size_t i = count; i-- > 0;) {
      if (!open(i)) return false;
      idle_.push_back(i);
    }
    return true;
  }

  // False when a broken connection could not be made anew.
  bool run() {
    started_ = Steady::now();
    end_ = started_ + std::chrono::microseconds(static_cast<long>(seconds_ * 1e6));
    Steady::time_point heard = started_;
    while (true) {
      const Steady::time_point now = Steady::now();
      if (!send_what_is_due(now)) return false;
      if (idle_.size() == connections_.size() && !has_more(now)) break;
      if (now - heard > std::chrono::seconds(10) && idle_.size() < connections_.size()) break;  // what is still out is lost
      const timespec wait = until_next(now);
      epoll_event ready[256];
      const int count = epoll_pwait2(poll_, ready, 256, &wait, nullptr);
      for (int i = 0; i < count; ++i) {
        if (!receive(ready[i].data.u64)) return false;
      }
      if (count > 0 || idle_.size() == connections_.size()) heard = Steady::now();
    }
    elapsed_s_ = std::chrono::duration<double>(Steady::now() - started_).count();
    return true;
  }

  void write_latencies(const char* path) const {
    std::ofstream all(path);
    for (const double latency : latencies_us_) all << latency << '\n';
  }

  void print() const {
    std::vector<double> sorted;
    std::copy_if(latencies_us_.begin(), latencies_us_.end(), std::back_inserter(sorted), [](double each) { return each >= 0; });
    std::sort(sorted.begin(), sorted.end());
    const auto percentile = [&](double part) {
      return sorted.empty() ? 0.0 : sorted[std::min(sorted.size() - 1, static_cast<std::size_t>(part * static_cast<double>(sorted.size())))];
    };
    std::printf(
        "{\"requests\":%zu,\"errors\":%zu,\"throttled\":%zu,\"broken\":%zu,\"unsent\":%zu,\"seconds\":%.4f,\"rps\":%.1f,"
        "\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f}\n",
        sorted.size(), errors_ + broken_ + (connections_.size() - idle_.size()), throttled_, broken_, unsent_, elapsed_s_,
        static_cast<double>(sorted.size()) / elapsed_s_, percentile(0.5), percentile(0.9), percentile(0.99), percentile(0.999),
        sorted.empty() ? 0 : sorted.back());
  }

 private:
  [[nodiscard]] Steady::time_point due_time(std::size_t number) const {
    return started_ + std::chrono::nanoseconds(static_cast<long>(static_cast<double>(number) * 1e9 / rate_));
  }
  [[nodiscard]] bool has_more(Steady::time_point now) const { return seconds_ <= 0 ? next_ < requests_.size() : now < end_; }

  bool open(std::size_t index) {
    connections_[index].fd = connect_to(port_);
    if (connections_[index].fd < 0) return false;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = index;
    return epoll_ctl(poll_, EPOLL_CTL_ADD, connections_[index].fd, &event) == 0;
  }

  bool send_what_is_due(Steady::time_point now) {
    while (has_more(now) && (rate_ <= 0 || now >= due_time(next_))) {
      if (idle_.empty()) {
        if (!gives_up_) return true;
        ++next_;
        ++unsent_;
        latencies_us_.push_back(-1);
        continue;
      }
      const std::size_t index = idle_.back();
      idle_.pop_back();
      Connection& connection = connections_[index];
      const std::string_view request = requests_[next_ % requests_.size()];
      connection.due = rate_ > 0 ? due_time(next_) : Steady::now();
      connection.number = next_++;
      connection.busy = true;
      latencies_us_.push_back(-1);
      for (std::size_t at = 0; at < request.size();) {
        const ssize_t written = write(connection.fd, request.data() + at, request.size() - at);
        if (written <= 0) {
          if (!renew(index)) return false;
          break;
        }
        at += static_cast<std::size_t>(written);
      }
    }
    return true;
  }

  [[nodiscard]] timespec until_next(Steady::time_point now) const {
    timespec wait{.tv_sec = 0, .tv_nsec = 100'000'000};
    if (rate_ > 0 && !idle_.empty() && has_more(now)) {
      const auto left = std::min(due_time(next_) - now, Steady::duration(std::chrono::milliseconds(100)));
      wait.tv_nsec = std::max<long>(0, static_cast<long>(std::chrono::nanoseconds(left).count()));
    }
    return wait;
  }

  // In place of a connection that broke, which is an error only while an answer is awaited.
  bool renew(std::size_t index) {
    Connection& connection = connections_[index];
    close(connection.fd);
    connection.buffer.clear();
    if (connection.busy) {
      ++broken_;
      connection.busy = false;
      idle_.push_back(index);
    }
    return open(index);
  }

  bool receive(std::size_t index) {
    Connection& connection = connections_[index];
    char bytes[65536];
    const ssize_t got = read(connection.fd, bytes, sizeof bytes);
    if (got <= 0 || !connection.busy) return renew(index);
    connection.buffer.append(bytes, static_cast<std::size_t>(got));
    const std::size_t length = message_length(connection.buffer);
    if (length == 0) return true;
    count(connection, std::string_view(connection.buffer).substr(0, length));
    connection.buffer.erase(0, length);
    connection.busy = false;
    idle_.push_back(index);
    return true;
  }

  void count(const Connection& connection, std::string_view answer) {
    if (answer.starts_with("HTTP/1.1 2") && answer.find("Function-Error") == std::string_view::npos) {
      latencies_us_[connection.number] = std::chrono::duration<double, std::micro>(Steady::now() - connection.due).count();
    } else if (answer.starts_with("HTTP/1.1 429")) {
      ++throttled_;
    } else if (++errors_ == 1) {
      std::fprintf(stderr, "bench_load: %.*s\n", static_cast<int>(std::min<std::size_t>(answer.size(), 600)), answer.data());
    }
  }

  const char* port_;
  std::vector<std::string_view> requests_;
  double seconds_, rate_;
  bool gives_up_;
  int poll_ = epoll_create1(EPOLL_CLOEXEC);
  std::vector<Connection> connections_;
  std::vector<std::size_t> idle_;  // indices of connections; the last one answered is used first
  Steady::time_point started_, end_;
  double elapsed_s_ = 0;
  std::size_t next_ = 0, errors_ = 0, broken_ = 0, throttled_ = 0, unsent_ = 0;
  std::vector<double> latencies_us_;  // by number of the request; negative: failed
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5 || argc > 7) return 2;
  prctl(PR_SET_TIMERSLACK, 1UL);  // what is due is sent on time
  signal(SIGPIPE, SIG_IGN);
  const rlimit files{.rlim_cur = 65536, .rlim_max = 65536};
  setrlimit(RLIMIT_NOFILE, &files);
  std::ifstream file(argv[2], std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<std::string_view> requests = split_requests(bytes);
  if (requests.empty()) return 2;
  Load load(argv[1], std::move(requests), std::atof(argv[4]), argc > 5 ? std::atof(argv[5]) : 0);
  if (!load.connect(static_cast<std::size_t>(std::atoi(argv[3]))) || !load.run()) return 1;
  if (argc > 6) load.write_latencies(argv[6]);
  load.print();
}
