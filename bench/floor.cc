// What one process per instance costs at least: an HTTP front and instances over socketpairs, without a sandbox, request ids, routing,
// limits, metrics or logs. The row "isolation off" of the benchmarks.
// Usage: bench_floor PORT_FILE INSTANCES COMMAND [ARGUMENT...]
//
// Picks a free port on 127.0.0.1 and writes it to PORT_FILE. Each instance is COMMAND with a stream socket at descriptor 3, over which
// frames {u32 length, u32 id} + body go both ways, one at a time; the body is what the caller sent. The idle instance used last is used
// first; requests that find none wait in order. One thread; ends with status 1 when an instance ends.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace {

struct Request {
  int caller;
  std::string body;
};

struct Instance {
  int caller = -1;  // whose request it works on; -1: idle, or the caller left
  std::string buffer;
};

// The length of the first whole request in `buffer`, 0 while bytes are missing; where its body begins in `body`.
std::size_t request_length(std::string_view buffer, std::size_t& body) {
  const std::size_t end = buffer.find("\r\n\r\n");
  if (end == std::string_view::npos) return 0;
  std::size_t length = 0;
  const std::size_t at = buffer.find("Content-Length: ");
  if (at != std::string_view::npos && at < end) length = static_cast<std::size_t>(std::strtoull(buffer.data() + at + 16, nullptr, 10));
  body = end + 4;
  return buffer.size() >= body + length ? body + length : 0;
}

class Front {
 public:
  bool listen(const char* port_file) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(listener_, 1024) != 0) return false;
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    watch(listener_);
    FILE* file = std::fopen(port_file, "w");
    if (file == nullptr) return false;
    std::fprintf(file, "%d\n", ntohs(address.sin_port));
    std::fclose(file);
    return true;
  }

  void start_instance(char** command) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) std::exit(1);
    if (fork() == 0) {
      prctl(PR_SET_PDEATHSIG, SIGTERM);
      if (pair[1] == 3) {
        fcntl(3, F_SETFD, 0);
      } else {
        dup2(pair[1], 3);
      }
      execvp(command[0], command);
      _exit(127);
    }
    close(pair[1]);
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    instances_[pair[0]];
    idle_.push_back(pair[0]);
    watch(pair[0]);
  }

  // Returns when an instance has ended.
  void serve() {
    while (true) {
      std::array<epoll_event, 64> ready;
      const int count = epoll_wait(poll_, ready.data(), ready.size(), -1);
      for (int i = 0; i < count; ++i) {
        const int fd = ready[static_cast<std::size_t>(i)].data.fd;
        if (fd == listener_) {
          accept_caller();
        } else if (instances_.contains(fd)) {
          if (!read_instance(fd)) return;
        } else {
          read_caller(fd);
        }
      }
    }
  }

 private:
  void watch(int fd) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    epoll_ctl(poll_, EPOLL_CTL_ADD, fd, &event);
  }

  void accept_caller() {
    const int caller = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (caller < 0) return;
    const int on = 1;
    setsockopt(caller, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    callers_[caller];
    watch(caller);
  }

  void give(int instance, const Request& request) {
    instances_[instance].caller = request.caller;
    const std::array<unsigned, 2> head{static_cast<unsigned>(request.body.size()), 1};
    frame_.assign(reinterpret_cast<const char*>(head.data()), sizeof head);
    frame_ += request.body;
    if (write(instance, frame_.data(), frame_.size()) < 0) std::perror("bench_floor: instance");
  }

  void read_caller(int caller) {
    const ssize_t got = read(caller, bytes_.data(), bytes_.size());
    if (got <= 0) {
      callers_.erase(caller);
      for (auto& [fd, instance] : instances_) {
        if (instance.caller == caller) instance.caller = -1;
      }
      close(caller);
      return;
    }
    std::string& buffer = callers_[caller];
    buffer.append(bytes_.data(), static_cast<std::size_t>(got));
    std::size_t body = 0;
    while (const std::size_t length = request_length(buffer, body)) {
      Request request{caller, buffer.substr(body, length - body)};
      buffer.erase(0, length);
      if (idle_.empty()) {
        waiting_.push_back(std::move(request));
      } else {
        const int instance = idle_.back();
        idle_.pop_back();
        give(instance, request);
      }
    }
  }

  bool read_instance(int fd) {
    const ssize_t got = read(fd, bytes_.data(), bytes_.size());
    if (got <= 0) return false;
    Instance& instance = instances_[fd];
    instance.buffer.append(bytes_.data(), static_cast<std::size_t>(got));
    unsigned length = 0;
    if (instance.buffer.size() < 8) return true;
    std::memcpy(&length, instance.buffer.data(), 4);
    if (instance.buffer.size() < 8 + length) return true;
    if (instance.caller >= 0) {
      std::array<char, 128> head;
      const int size = std::snprintf(head.data(), head.size(), "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %u\r\n\r\n", length);
      frame_.assign(head.data(), static_cast<std::size_t>(size));
      frame_.append(instance.buffer, 8, length);
      if (write(instance.caller, frame_.data(), frame_.size()) < 0) std::perror("bench_floor: caller");
    }
    instance.buffer.clear();
    instance.caller = -1;
    if (waiting_.empty()) {
      idle_.push_back(fd);
    } else {
      const Request next = std::move(waiting_.front());
      waiting_.pop_front();
      give(fd, next);
    }
    return true;
  }

  int poll_ = epoll_create1(EPOLL_CLOEXEC);
  int listener_ = -1;
  std::unordered_map<int, Instance> instances_;
  std::unordered_map<int, std::string> callers_;  // what of a request has arrived
  std::vector<int> idle_;
  std::deque<Request> waiting_;
  std::string frame_;
  std::array<char, 65536> bytes_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  signal(SIGPIPE, SIG_IGN);
  Front front;
  for (int i = 0; i < std::atoi(argv[2]); ++i) front.start_instance(argv + 3);
  if (!front.listen(argv[1])) return 1;
  front.serve();
  return 1;
}
