#include "net/client_connection.h"

#include <gtest/gtest.h>

#include <optional>
#include <thread>

#include "net/internal/testing.h"

namespace mayfly::net {
namespace {

using base::ErrorCode;
using base::Result;
using testing::TestServer;
using namespace std::chrono_literals;

base::UniqueFd plain_socket() { return base::UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)); }

// Runs a coroutine on a loop to its end.
template <typename Work>
void run(EventLoop& loop, Work work) {
  std::promise<void> done;
  std::optional<TaskScope> scope;
  testing::on_loop(loop, [&] {
    scope.emplace(loop.executor());
    auto task = [](Work& inner, std::promise<void>& end) -> Awaitable<void> {
      co_await inner();
      end.set_value();
    };
    scope->spawn(task(work, done));
  });
  ASSERT_EQ(done.get_future().wait_for(10s), std::future_status::ready);
  testing::on_loop(loop, [&] { scope.reset(); });
}

std::shared_ptr<const ClientRequest> request_for(const std::string& url, std::string method = "GET", std::string body = {}) {
  auto request = std::make_shared<ClientRequest>();
  request->method = std::move(method);
  request->url = url;
  request->body = std::move(body);
  return request;
}

Awaitable<Result<std::string>> read_all(ClientConnection& connection) {
  std::string all;
  while (true) {
    MAYFLY_CO_ASSIGN(const std::string piece, co_await connection.read());
    if (piece.empty()) co_return all;
    all += piece;
  }
}

TEST(ClientConnection, serves_many_requests_and_notices_when_the_peer_closes) {
  int connections = 0;
  TestServer server([](Exchange& exchange) -> Awaitable<void> {
    auto body = co_await exchange.read_all(64U << 20U);
    Response response;
    response.body = exchange.head().target + " " + std::to_string(body.ok() ? body->size() : 0);
    if (exchange.head().target == "/last") response.headers.add("Connection", "close");
    (void)co_await exchange.respond(std::move(response));
  });
  run(server.loop(), [&]() -> Awaitable<void> {
    ClientConnection connection(server.loop().executor(), plain_socket());
    EXPECT_FALSE(connection.reusable());
    const auto connected = co_await connection.connect("127.0.0.1", server.port());
    EXPECT_TRUE(connected.ok());
    for (const std::size_t size : {0UL, 1UL, 8'000'000UL, 3UL}) {
      const auto head = co_await connection.send(request_for(server.url("/a?b"), "POST", std::string(size, 'x')));
      EXPECT_TRUE(head.ok());
      const auto body = co_await read_all(connection);
      EXPECT_TRUE(body.ok());
      EXPECT_EQ(*body, "/a?b " + std::to_string(size));
      EXPECT_TRUE(connection.reusable());
    }
    ++connections;
    connection.close();
    EXPECT_FALSE(connection.reusable());
    const auto closed = co_await connection.send(request_for(server.url("/")));
    EXPECT_FALSE(closed.ok());
  });
  EXPECT_EQ(connections, 1);
}

// A peer that answers each request on its one connection with the next of fixed bytes.
void with_peer(const std::vector<std::string>& answers, const std::function<Awaitable<void>(ClientConnection&, const std::string&)>& work) {
  auto listener = listen_tcp("127.0.0.1:0");
  ASSERT_TRUE(listener.ok());
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ASSERT_EQ(::getsockname(listener->get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  std::thread peer([&] {
    pollfd wait{listener->get(), POLLIN, 0};
    ::poll(&wait, 1, 5000);
    const base::UniqueFd fd(::accept(listener->get(), nullptr, nullptr));
    for (const std::string& answer : answers) {
      char scrap[4096];
      if (::recv(fd.get(), scrap, sizeof scrap, 0) <= 0) return;
      (void)::send(fd.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    }
  });
  EventLoop loop("test");
  loop.start();
  run(loop, [&]() -> Awaitable<void> {
    ClientConnection connection(loop.executor(), plain_socket());
    (void)co_await connection.connect("127.0.0.1", ntohs(address.sin_port));
    co_await work(connection, "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/");
  });
  peer.join();
}

TEST(ClientConnection, is_kept_only_after_an_answer_that_allows_it) {
  struct Case {
    std::string bytes;
    bool kept;
  };
  for (const Case& each : {Case{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true},
                           Case{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true},
                           Case{"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", true},
                           Case{"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", true},
                           Case{"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false},
                           Case{"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok", false},
                           Case{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", false},
                           Case{"HTTP/1.1 204 No Content\r\n\r\nmore", false}, Case{"HTTP/1.1 200 OK\r\n\r\nto the end", false}}) {
    with_peer({each.bytes, ""}, [&](ClientConnection& connection, const std::string& url) -> Awaitable<void> {
      const auto head = co_await connection.send(request_for(url));
      EXPECT_TRUE(head.ok()) << each.bytes;
      if (each.kept || each.bytes.find("Content-Length") != std::string::npos) {
        const auto body = co_await read_all(connection);
        EXPECT_TRUE(body.ok()) << each.bytes;
      }
      EXPECT_EQ(connection.reusable(), each.kept) << each.bytes;
    });
  }
}

// A body that a careless peer sends after all may come later, and would be taken for the next answer.
TEST(ClientConnection, is_not_kept_after_an_answer_that_announces_a_body_where_none_may_be) {
  struct Case {
    std::string method, bytes;
    bool kept;
  };
  for (const Case& each : {Case{"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false},
                           Case{"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false},
                           Case{"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true},
                           Case{"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false},
                           Case{"GET", "HTTP/1.1 304 Not Modified\r\n\r\n", true}}) {
    with_peer({each.bytes, ""}, [&](ClientConnection& connection, const std::string& url) -> Awaitable<void> {
      const auto head = co_await connection.send(request_for(url, each.method));
      EXPECT_TRUE(head.ok()) << each.bytes;
      const auto body = co_await read_all(connection);
      EXPECT_TRUE(body.ok() && body->empty()) << each.bytes;
      EXPECT_EQ(connection.reusable(), each.kept) << each.method << " " << each.bytes;
    });
  }
}

TEST(ClientConnection, tells_how_an_answer_failed) {
  with_peer({""}, [](ClientConnection& connection, const std::string& url) -> Awaitable<void> {
    const auto head = co_await connection.send(request_for(url));
    EXPECT_FALSE(head.ok());
    EXPECT_TRUE(connection.peer_closed() && !connection.heard());
  });
  with_peer({"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"},
            [](ClientConnection& connection, const std::string& url) -> Awaitable<void> {
              const auto head = co_await connection.send(request_for(url));
              EXPECT_TRUE(head.ok());
              const auto body = co_await read_all(connection);
              EXPECT_FALSE(body.ok());
              EXPECT_TRUE(connection.peer_closed() && connection.heard());
            });
  with_peer({"SSH-2.0-x\r\n\r\n", ""}, [](ClientConnection& connection, const std::string& url) -> Awaitable<void> {
    const auto head = co_await connection.send(request_for(url));
    EXPECT_FALSE(head.ok());
    EXPECT_TRUE(!connection.peer_closed() && connection.heard());
  });
  std::string interim;
  for (int i = 0; i < 12'000; ++i) interim += "HTTP/1.1 100 Continue\r\n\r\n";
  with_peer({interim, ""}, [](ClientConnection& connection, const std::string& url) -> Awaitable<void> {
    const auto head = co_await connection.send(request_for(url));
    EXPECT_EQ(head.error().code(), ErrorCode::kTooLarge);
  });
}

TEST(ClientConnection, connects_at_the_first_attempt_after_a_refused_one) {
  const base::UniqueFd listener = plain_socket();
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  EventLoop loop("test");
  loop.start();
  run(loop, [&]() -> Awaitable<void> {
    ClientConnection connection(loop.executor(), plain_socket());
    const auto refused = co_await connection.connect("127.0.0.1", ntohs(address.sin_port));
    EXPECT_EQ(refused.error().code(), ErrorCode::kUnavailable);
    EXPECT_EQ(::listen(listener.get(), 1), 0);
    const auto connected = co_await connection.connect("127.0.0.1", ntohs(address.sin_port));
    EXPECT_TRUE(connected.ok()) << connected.error().message();
  });
}

TEST(SocketSource, makes_sockets_one_after_the_other) {
  TestServer server([](Exchange& exchange) -> Awaitable<void> { (void)co_await exchange.respond({}); });
  run(server.loop(), [&]() -> Awaitable<void> {
    SocketSource source(plain_socket(), plain_socket());
    std::vector<std::unique_ptr<ClientConnection>> connections;
    for (int i = 0; i < 100; ++i) {
      auto socket = source.make();
      while (!socket.ok() && socket.error().code() == ErrorCode::kUnavailable) {
        co_await sleep_until(base::system_clock().now() + 1ms);
        socket = source.make();
      }
      EXPECT_TRUE(socket.ok()) << socket.error().message();
      connections.push_back(std::make_unique<ClientConnection>(server.loop().executor(), *std::move(socket)));
      const auto connected = co_await connections.back()->connect("127.0.0.1", server.port());
      EXPECT_TRUE(connected.ok());
    }
    for (const auto& connection : connections) {
      const auto head = co_await connection->send(request_for(server.url("/")));
      EXPECT_TRUE(head.ok());
    }
  });
}

}  // namespace
}  // namespace mayfly::net
