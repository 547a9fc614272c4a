#include "net/http_client.h"

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

Awaitable<void> serve(Exchange& exchange) {
  const std::string_view path = exchange.head().path();
  if (path == "/stream") {
    Headers headers;
    headers.add("X-Kind", "stream");
    (void)co_await exchange.begin(201, std::move(headers));
    for (int i = 0; i < 100; ++i) (void)co_await exchange.write("piece " + std::to_string(i) + "\n");
    (void)co_await exchange.finish({});
  } else if (path == "/half") {
    (void)co_await exchange.begin(200, {});
    (void)co_await exchange.write("half");
    exchange.abort();
  } else if (path == "/never") {
    (void)co_await exchange.peer_gone();
  } else if (path == "/refuse") {
    Response response;
    response.status = 413;
    response.body = "too large";
    (void)co_await exchange.respond(std::move(response));
  } else {
    auto body = co_await exchange.read_all(64U << 20U);
    Response response;
    response.headers.add("X-Host", std::string(exchange.head().headers.get("host")));
    response.headers.add("X-Extra", std::string(exchange.head().headers.get("x-extra")));
    response.body = exchange.head().method + " " + exchange.head().target + " " + (body.ok() ? *body : body.error().message());
    (void)co_await exchange.respond(std::move(response));
  }
}

// The same request through both forms of the client.
std::vector<Result<Response>> both(TestServer& server, const ClientRequest& request) {
  std::vector<Result<Response>> answers;
  answers.push_back(blocking_request(request));
  std::promise<Result<Response>> answer;
  std::optional<TaskScope> scope;
  testing::on_loop(server.loop(), [&] {
    scope.emplace(server.loop().executor());
    auto ask = [](ClientRequest copy, std::promise<Result<Response>>& to) -> Awaitable<void> {
      to.set_value(co_await async_request(std::move(copy)));
    };
    scope->spawn(ask(request, answer));
  });
  answers.push_back(answer.get_future().get());
  testing::on_loop(server.loop(), [&] { scope.reset(); });
  return answers;
}

TEST(HttpClient, sends_a_request_and_reads_the_answer) {
  TestServer server(serve);
  ClientRequest request;
  request.method = "POST";
  request.url = server.url("/echo?a=b");
  request.headers.add("X-Extra", "yes");
  request.body = "hello";
  for (const auto& answer : both(server, request)) {
    ASSERT_TRUE(answer.ok()) << answer.error().to_string();
    EXPECT_EQ(answer->status, 200);
    EXPECT_EQ(answer->body, "POST /echo?a=b hello");
    EXPECT_EQ(answer->headers.get("x-host"), "127.0.0.1:" + std::to_string(server.port()));
    EXPECT_EQ(answer->headers.get("x-extra"), "yes");
  }
}

TEST(HttpClient, resolves_names_and_passes_streamed_pieces_on) {
  TestServer server(serve);
  ClientRequest request;
  request.url = "http://localhost:" + std::to_string(server.port()) + "/stream";
  std::string pieces;
  request.on_body = [&pieces](std::string_view piece) { pieces += piece; };
  for (const auto& answer : both(server, request)) {
    ASSERT_TRUE(answer.ok()) << answer.error().to_string();
    EXPECT_EQ(answer->status, 201);
    EXPECT_EQ(answer->headers.get("x-kind"), "stream");
    EXPECT_TRUE(answer->body.empty());
  }
  EXPECT_TRUE(pieces.starts_with("piece 0\n") && pieces.ends_with("piece 99\n"));
  EXPECT_EQ(testing::count_of(pieces, "piece 57\n"), 2U);
}

TEST(HttpClient, uploads_a_large_body_and_reports_progress) {
  TestServer server(serve);
  ClientRequest request;
  request.method = "PUT";
  request.url = server.url("/u");
  request.body = std::string(8'000'000, 'u');
  std::uint64_t last = 0;
  int finished = 0;
  request.on_upload = [&](std::uint64_t sent, std::uint64_t total) {
    EXPECT_EQ(total, 8'000'000U);
    EXPECT_TRUE(sent > last || last == total);
    finished += sent == total ? 1 : 0;
    last = sent;
  };
  for (const auto& answer : both(server, request)) {
    ASSERT_TRUE(answer.ok());
    EXPECT_EQ(answer->body.size(), request.body.size() + 7);
  }
  EXPECT_EQ(finished, 2);
}

TEST(HttpClient, hears_an_early_refusal_of_an_upload) {
  TestServer server(serve);
  ClientRequest request;
  request.method = "PUT";
  request.url = server.url("/refuse");
  request.body = std::string(3'000'000, 'u');
  for (const auto& answer : both(server, request)) {
    ASSERT_TRUE(answer.ok()) << answer.error().to_string();
    EXPECT_EQ(answer->status, 413);
  }
}

TEST(HttpClient, names_what_went_wrong) {
  TestServer server(serve);
  ClientRequest request;
  request.url = server.url("/half");
  for (const auto& answer : both(server, request)) EXPECT_EQ(answer.error().code(), ErrorCode::kUnavailable);
  request.url = server.url("/never");
  request.timeout = 60ms;
  for (const auto& answer : both(server, request)) EXPECT_EQ(answer.error().code(), ErrorCode::kDeadlineExceeded);
  request.timeout = 5s;
  request.url = server.url("/stream");
  request.response_bytes_max = 100;
  for (const auto& answer : both(server, request)) EXPECT_EQ(answer.error().code(), ErrorCode::kTooLarge);
  std::uint16_t closed_port = 0;
  {
    TestServer gone(serve);
    closed_port = gone.port();
  }
  request.url = "http://127.0.0.1:" + std::to_string(closed_port) + "/";
  for (const auto& answer : both(server, request)) {
    EXPECT_EQ(answer.error().code(), ErrorCode::kUnavailable);
    EXPECT_NE(answer.error().message().find("127.0.0.1:" + std::to_string(closed_port)), std::string::npos);
  }
  for (const char* url :
       {"", "ftp://h/", "http://", "http:///x", "http://h:0/", "http://h:99999/", "http://h/a b", "http://h/\r\nX: y", "http://a@b/"}) {
    request.url = url;
    for (const auto& answer : both(server, request)) EXPECT_EQ(answer.error().code(), ErrorCode::kInvalidArgument) << url;
  }
  request.url = server.url("/");
  request.headers.add("X", "a\r\nb: c");
  for (const auto& answer : both(server, request)) EXPECT_EQ(answer.error().code(), ErrorCode::kInvalidArgument);
}

// A peer that sends fixed bytes and closes.
TEST(HttpClient, reads_close_delimited_and_interim_answers_and_refuses_nonsense) {
  struct Case {
    std::string bytes;
    std::optional<std::string> body;
  };
  for (const Case& each : {Case{"HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end"}, Case{"HTTP/1.0 200 OK\r\n\r\n", ""},
                           Case{"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"},
                           Case{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", std::nullopt},
                           Case{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", std::nullopt},
                           Case{"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx", std::nullopt},
                           Case{"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", std::nullopt},
                           Case{"SSH-2.0-OpenSSH\r\n\r\n", std::nullopt}, Case{"", std::nullopt}}) {
    auto listener = listen_tcp("127.0.0.1:0");
    ASSERT_TRUE(listener.ok());
    sockaddr_in address{};
    socklen_t size = sizeof address;
    ASSERT_EQ(::getsockname(listener->get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    std::thread peer([&] {
      pollfd wait{listener->get(), POLLIN, 0};
      ::poll(&wait, 1, 5000);
      const base::UniqueFd fd(::accept(listener->get(), nullptr, nullptr));
      char scrap[4096];
      (void)::recv(fd.get(), scrap, sizeof scrap, 0);
      (void)::send(fd.get(), each.bytes.data(), each.bytes.size(), MSG_NOSIGNAL);
    });
    ClientRequest request;
    request.url = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/";
    const auto answer = blocking_request(request);
    peer.join();
    EXPECT_EQ(answer.ok(), each.body.has_value()) << each.bytes;
    if (answer.ok() && each.body) {
      EXPECT_EQ(answer->body, *each.body);
    }
  }
}

}  // namespace
}  // namespace mayfly::net
