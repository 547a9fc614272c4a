// The reference: a one-thread epoll server that answers every request with the same bytes and does nothing else.
// Usage: bench_echo PORT_FILE. Picks a free port on 127.0.0.1 and writes it to PORT_FILE.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <unordered_map>

namespace {

constexpr std::string_view kAnswer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"ok\":\"echo\"}";

// The length of the first whole request in `buffer`, 0 while bytes are missing.
std::size_t request_length(std::string_view buffer) {
  const std::size_t end = buffer.find("\r\n\r\n");
  if (end == std::string_view::npos) return 0;
  std::size_t body = 0;
  const std::size_t at = buffer.find("Content-Length: ");
  if (at != std::string_view::npos && at < end) body = static_cast<std::size_t>(std::strtoull(buffer.data() + at + 16, nullptr, 10));
  return buffer.size() >= end + 4 + body ? end + 4 + body : 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener, 1024) != 0) return 1;
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  if (FILE* file = std::fopen(argv[1], "w"); file != nullptr) {
    std::fprintf(file, "%d\n", ntohs(address.sin_port));
    std::fclose(file);
  }
  const int poll = epoll_create1(0);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = listener;
  epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
  std::unordered_map<int, std::string> buffers;
  while (true) {
    epoll_event ready[64];
    const int count = epoll_wait(poll, ready, 64, -1);
    for (int i = 0; i < count; ++i) {
      const int fd = ready[i].data.fd;
      if (fd == listener) {
        const int peer = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
        if (peer < 0) continue;
        const int on = 1;
        setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        event.events = EPOLLIN;
        event.data.fd = peer;
        epoll_ctl(poll, EPOLL_CTL_ADD, peer, &event);
        continue;
      }
      std::string& buffer = buffers[fd];
      char bytes[65536];
      const ssize_t got = read(fd, bytes, sizeof bytes);
      if (got <= 0) {
        buffers.erase(fd);
        close(fd);
        continue;
      }
      buffer.append(bytes, static_cast<std::size_t>(got));
      while (const std::size_t length = request_length(buffer)) {
        buffer.erase(0, length);
        if (write(fd, kAnswer.data(), kAnswer.size()) < 0) break;
      }
    }
  }
}
