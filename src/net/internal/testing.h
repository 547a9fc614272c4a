// For tests: a server on a loop of its own, and a client that sends exactly the bytes it is told.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "base/fd.h"
#include "net/http_server.h"

namespace mayfly::net::testing {

// Runs `work` on the loop's thread and waits for it.
inline void on_loop(EventLoop& loop, std::function<void()> work) {
  std::promise<void> done;
  loop.post([&] {
    work();
    done.set_value();
  });
  done.get_future().wait();
}

class TestServer {
 public:
  explicit TestServer(Handler handler, ServerLimits limits = {}) : loop_("test") {
    auto listener = listen_tcp("127.0.0.1:0");
    EXPECT_TRUE(listener.ok());
    loop_.start();
    on_loop(loop_, [&] {
      server_ = std::make_unique<HttpServer>(loop_.executor(), std::move(*listener), limits, std::move(handler));
      server_->start();
      port_ = server_->port();
    });
  }
  ~TestServer() { stop(); }
  TestServer(const TestServer&) = delete;
  TestServer& operator=(const TestServer&) = delete;

  void stop() {
    on_loop(loop_, [this] { server_.reset(); });
  }
  [[nodiscard]] std::uint16_t port() const { return port_; }
  [[nodiscard]] std::string url(const std::string& target) const { return "http://127.0.0.1:" + std::to_string(port_) + target; }
  EventLoop& loop() { return loop_; }
  HttpServer& server() { return *server_; }
  std::size_t connections() {
    std::size_t count = 0;
    on_loop(loop_, [&] { count = server_->connections(); });
    return count;
  }

 private:
  EventLoop loop_;
  std::unique_ptr<HttpServer> server_;
  std::uint16_t port_ = 0;
};

class RawClient {
 public:
  explicit RawClient(std::uint16_t port, int receive_buffer = 0) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receive_buffer > 0) (void)::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  void send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
  }
  // Everything until the server closes, at most 5 s.
  std::string read_to_end() {
    return read_until([](const std::string&) { return false; });
  }
  // Until `text` has been seen (everything received so far is returned), the end, or 5 s without a byte.
  std::string read_past(std::string_view text) {
    return read_until([text](const std::string& all) { return all.find(text) != std::string::npos; });
  }
  void shutdown_send() { ::shutdown(fd_.get(), SHUT_WR); }
  void reset() {
    const struct ::linger hard{1, 0};
    (void)::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    fd_.reset();
  }
  void close() { fd_.reset(); }
  [[nodiscard]] bool was_reset() const { return was_reset_; }

 private:
  template <typename Done>
  std::string read_until(Done done) {
    std::string all;
    char bytes[65536];
    while (!done(all)) {
      pollfd wait{fd_.get(), POLLIN, 0};
      if (::poll(&wait, 1, 5000) <= 0) break;
      const ssize_t got = ::recv(fd_.get(), bytes, sizeof bytes, 0);
      if (got < 0) was_reset_ = true;
      if (got <= 0) break;
      all.append(bytes, static_cast<std::size_t>(got));
    }
    return all;
  }
  base::UniqueFd fd_;
  bool was_reset_ = false;
};

// The status of the first answer in `bytes`, 0 if there is none.
inline int status_of(const std::string& bytes) { return bytes.starts_with("HTTP/1.1 ") ? std::atoi(bytes.c_str() + 9) : 0; }

inline std::size_t count_of(const std::string& bytes, std::string_view what) {
  std::size_t count = 0;
  for (std::size_t at = bytes.find(what); at != std::string::npos; at = bytes.find(what, at + 1)) ++count;
  return count;
}

}  // namespace mayfly::net::testing
