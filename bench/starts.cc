// Measures starts from zero beside a bare start of the same runtime, in turn, by one and the same clock.
// Usage: bench_starts PORT REQUESTS GROUP TIMED PAUSE_MS [COMMAND ARGUMENT...]
//
// REQUESTS holds HTTP requests, GROUP of them for each sample: the last TIMED ones are what is measured, those before them prepare
// it. For each sample: COMMAND is started (posix_spawn) and waited for; the preparing requests are sent; PAUSE_MS passes; the timed
// requests are sent one after the other, each again until it is answered 2xx, and the sample is the time from the first one's first
// byte to the last one's answer. Everything goes over one kept-alive connection to 127.0.0.1. Prints one JSON object
// {"bare_ms":[...],"start_ms":[...],"repeats":N}, N being how many times a timed request had to be sent again. Exit status 1 when a
// preparing request fails, or a timed one for 20 s; 2 for wrong arguments.
//
// Usage: bench_starts spawn COUNT COMMAND [ARGUMENT...]: starts COUNT of them at once; prints the milliseconds until all have ended.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <spawn.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using Steady = std::chrono::steady_clock;

double ms_since(Steady::time_point started) { return std::chrono::duration<double, std::milli>(Steady::now() - started).count(); }

// The length of the first whole message in `buffer`, 0 while bytes are missing. Mayfly's answers to these all have a Content-Length.
std::size_t message_length(std::string_view buffer) {
  const std::size_t end = buffer.find("\r\n\r\n");
  if (end == std::string_view::npos) return 0;
  const std::size_t at = buffer.find("Content-Length: ");
  const std::size_t body = at != std::string_view::npos && at < end ? std::strtoull(buffer.data() + at + 16, nullptr, 10) : 0;
  return buffer.size() >= end + 4 + body ? end + 4 + body : 0;
}

class Connection {
 public:
  explicit Connection(const char* port) : port_(port) {}

  // The status of the answer, 0 when the connection broke; sent again once over a new connection when the old one was closed meanwhile.
  int exchange(std::string_view request) {
    for (int attempt = 0; attempt < 2; ++attempt) {
      if (fd_ < 0 && !open()) return 0;
      if (const int status = exchange_once(request); status != 0) return status;
      close(fd_);
      fd_ = -1;
    }
    return 0;
  }
  [[nodiscard]] const std::string& answer() const { return answer_; }

 private:
  bool open() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port_)));
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }

  int exchange_once(std::string_view request) {
    answer_.clear();
    for (std::size_t at = 0; at < request.size();) {
      const ssize_t written = send(fd_, request.data() + at, request.size() - at, MSG_NOSIGNAL);
      if (written <= 0) return 0;
      at += static_cast<std::size_t>(written);
    }
    char bytes[65536];
    while (message_length(answer_) == 0) {
      const ssize_t got = read(fd_, bytes, sizeof bytes);
      if (got <= 0) return 0;
      answer_.append(bytes, static_cast<std::size_t>(got));
    }
    const bool function_error = answer_.substr(0, answer_.find("\r\n\r\n")).find("X-Amz-Function-Error") != std::string::npos;
    return function_error ? 599 : std::atoi(answer_.c_str() + 9);
  }

  const char* port_;
  int fd_ = -1;
  std::string answer_;
};

bool succeeded(int status) { return status / 100 == 2; }

int failed(const char* what, const std::string& answer) {
  std::fprintf(stderr, "bench_starts: %s: %.*s\n", what, static_cast<int>(std::min<std::size_t>(answer.size(), 600)), answer.c_str());
  return 1;
}

// Milliseconds from the first posix_spawn until `count` programs have ended.
double bare_start(char** command, int count = 1) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  const auto started = Steady::now();
  int started_count = 0;
  for (int i = 0; i < count; ++i) {
    pid_t pid = 0;
    started_count += posix_spawnp(&pid, command[0], &actions, nullptr, command, environ) == 0 ? 1 : 0;
  }
  for (int status = 0; started_count > 0 && wait(&status) > 0; --started_count) {
  }
  const double elapsed = ms_since(started);
  posix_spawn_file_actions_destroy(&actions);
  return elapsed;
}

void print(const char* name, const std::vector<double>& values) {
  std::printf("\"%s\":[", name);
  for (std::size_t i = 0; i < values.size(); ++i) std::printf("%s%.4f", i == 0 ? "" : ",", values[i]);
  std::printf("],");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc >= 4 && std::string_view(argv[1]) == "spawn") {
    std::printf("%.4f\n", bare_start(argv + 3, std::atoi(argv[2])));
    return 0;
  }
  if (argc < 6) return 2;
  std::ifstream file(argv[2], std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<std::string_view> requests;
  for (std::string_view rest = bytes; const std::size_t length = message_length(rest); rest.remove_prefix(length)) {
    requests.push_back(rest.substr(0, length));
  }
  const auto group = static_cast<std::size_t>(std::atoi(argv[3]));
  const auto timed = static_cast<std::size_t>(std::atoi(argv[4]));
  const std::chrono::milliseconds pause(std::atoi(argv[5]));
  if (requests.empty() || group < timed || timed == 0 || requests.size() % group != 0) return 2;
  Connection connection(argv[1]);
  std::vector<double> bare, starts;
  std::size_t repeats = 0;
  for (std::size_t sample = 0; sample < requests.size(); sample += group) {
    if (argc > 6) bare.push_back(bare_start(argv + 6));
    for (std::size_t i = sample; i < sample + group - timed; ++i) {
      if (!succeeded(connection.exchange(requests[i]))) return failed("a preparing request failed", connection.answer());
    }
    std::this_thread::sleep_for(pause);
    const auto started = Steady::now();
    for (std::size_t i = sample + group - timed; i < sample + group; ++i) {
      while (!succeeded(connection.exchange(requests[i]))) {
        if (ms_since(started) > 20'000) return failed("a timed request fails", connection.answer());
        ++repeats;
      }
    }
    starts.push_back(ms_since(started));
  }
  std::printf("{");
  print("bare_ms", bare);
  print("start_ms", starts);
  std::printf("\"repeats\":%zu}\n", repeats);
}
