#include "net/http_server.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <boost/asio/this_coro.hpp>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

#include "net/internal/testing.h"

namespace mayfly::net {
namespace {

using base::Result;
using testing::count_of;
using testing::RawClient;
using testing::status_of;
using testing::TestServer;
using namespace std::chrono_literals;

Response text(std::string body, int status = 200) {
  Response response;
  response.status = status;
  response.headers.add("Content-Type", "text/plain");
  response.body = std::move(body);
  return response;
}

// Answers with method, target, body and trailers as it read them.
Awaitable<void> echo(Exchange& exchange) {
  auto body = co_await exchange.read_all(1 << 20);
  if (!body.ok()) {
    (void)co_await exchange.respond(text(body.error().message(), base::http_status(body.error().code())));
    co_return;
  }
  std::string answer = exchange.head().method + " " + exchange.head().target + " [" + *body + "]";
  for (const auto& [name, value] : exchange.trailers().fields()) answer += " " + name + "=" + value;
  (void)co_await exchange.respond(text(std::move(answer)));
}

ServerLimits quick() {
  ServerLimits limits;
  limits.header_timeout = 120ms;
  limits.idle_timeout = 150ms;
  limits.write_timeout = 200ms;
  limits.body_grace = 120ms;
  return limits;
}

TEST(HttpServer, answers_a_request_and_keeps_the_connection) {
  TestServer server(echo);
  RawClient client(server.port());
  client.send("GET /a%20b?x=1 HTTP/1.1\r\nHost: here\r\n\r\n");
  const std::string first = client.read_past("[]");
  EXPECT_EQ(status_of(first), 200);
  EXPECT_NE(first.find("GET /a%20b?x=1 []"), std::string::npos);
  EXPECT_NE(first.find("\r\nDate: "), std::string::npos);
  EXPECT_EQ(first.find("Connection:"), std::string::npos);
  client.send("POST /2 HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\nhello");
  EXPECT_NE(client.read_past("]").find("POST /2 [hello]"), std::string::npos);
}

struct BadHead {
  const char* name;
  std::string bytes;
  int status;
};

std::string get_with(std::string_view fields) { return "GET / HTTP/1.1\r\nHost: h\r\n" + std::string(fields) + "\r\n"; }
std::string post_with(std::string_view fields, std::string_view body = {}) {
  return "POST / HTTP/1.1\r\nHost: h\r\n" + std::string(fields) + "\r\n" + std::string(body);
}

std::vector<BadHead> bad_heads() {
  using namespace std::string_literals;
  std::string many_fields;
  for (int i = 0; i < 100; ++i) many_fields += "X-" + std::to_string(i) + ": v\r\n";
  return {
      {"CL then TE", post_with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400},
      {"TE then CL", post_with("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), 400},
      {"TE gzip", post_with("Transfer-Encoding: gzip\r\n"), 501},
      {"TE identity", post_with("Transfer-Encoding: identity\r\n"), 501},
      {"TE xchunked", post_with("Transfer-Encoding: xchunked\r\n"), 501},
      {"TE gzip, chunked", post_with("Transfer-Encoding: gzip, chunked\r\n"), 400},
      {"TE chunked, identity", post_with("Transfer-Encoding: chunked, identity\r\n"), 400},
      {"TE chunked, chunked", post_with("Transfer-Encoding: chunked, chunked\r\n"), 400},
      {"TE quoted", post_with("Transfer-Encoding: \"chunked\"\r\n"), 501},
      {"TE with parameter", post_with("Transfer-Encoding: chunked;q=1\r\n"), 501},
      {"TE empty", post_with("Transfer-Encoding:\r\n"), 400},
      {"TE twice", post_with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400},
      {"TE with vertical tab",
       post_with("Transfer-Encoding: \x0b"
                 "chunked\r\n"),
       400},
      {"TE with space before colon", post_with("Transfer-Encoding : chunked\r\n"), 400},
      {"TE in HTTP/1.0", "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {"TE folded", post_with("Transfer-Encoding:\r\n chunked\r\n"), 400},
      {"CL differing twice", post_with("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"), 400},
      {"CL same twice", post_with("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), 400},
      {"CL list", post_with("Content-Length: 5, 5\r\n", "hello"), 400},
      {"CL plus", post_with("Content-Length: +5\r\n", "hello"), 400},
      {"CL minus", post_with("Content-Length: -5\r\n", "hello"), 400},
      {"CL hex", post_with("Content-Length: 0x5\r\n", "hello"), 400},
      {"CL inner space", post_with("Content-Length: 1 2\r\n", "hello"), 400},
      {"CL empty", post_with("Content-Length:\r\n"), 400},
      {"CL overflow", post_with("Content-Length: 18446744073709551621\r\n", "hello"), 400},
      {"CL with space before colon", post_with("Content-Length : 5\r\n", "hello"), 400},
      {"Connection that is no list", get_with("Connection: clo se\r\n"), 400},
      {"Proxy-Connection that is no list", get_with("Proxy-Connection: keep-alive; x\r\n"), 400},
      {"no Host", "GET / HTTP/1.1\r\nX: y\r\n\r\n", 400},
      {"no field at all", "GET / HTTP/1.1\r\n\r\n", 400},
      {"two Hosts", get_with("Host: other\r\n"), 400},
      {"empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
      {"Host with user", "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400},
      {"Host with slash", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
      {"Host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400},
      {"Host with high byte", "GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n", 400},
      {"bare LF lines", "GET / HTTP/1.1\nHost: h\n\n", 400},
      {"bare LF after a field", "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400},
      {"bare LF as end", "GET / HTTP/1.1\r\nHost: h\r\n\n", 400},
      {"bare CR in a value", get_with("X: a\rb\r\n"), 400},
      {"NUL in a value", get_with("X: a\0b\r\n"s), 400},
      {"ESC in a value", get_with("X: a\x1b[0m\r\n"), 400},
      {"DEL in a value", get_with("X: a\x7f\r\n"), 400},
      {"obs-fold", get_with("X: a\r\n b\r\n"), 400},
      {"obs-fold with tab", get_with("X: a\r\n\tb\r\n"), 400},
      {"fold before any field", "GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400},
      {"no colon", get_with("XYZ\r\n"), 400},
      {"empty name", get_with(": v\r\n"), 400},
      {"space in a name", get_with("X Y: v\r\n"), 400},
      {"NUL in a name", get_with("X\0: v\r\n"s), 400},
      {"high byte in a name", get_with("X\xe9: v\r\n"), 400},
      {"absolute form", "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"authority form", "CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"asterisk form", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"relative target", "GET a HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"space in target", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"tab in target", "GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"NUL in target", "GET /a\0b HTTP/1.1\r\nHost: h\r\n\r\n"s, 400},
      {"high byte in target", "GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"fragment in target", "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"two spaces", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"tab as separator", "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"space at line end", "GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400},
      {"space before method", " GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"bad method", "G@T / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
      {"endless method", std::string(40, 'A') + " / HTTP/1.1\r\nHost: h\r\n\r\n", 501},
      {"HTTP/0.9", "GET /\r\n\r\n", 400},
      {"HTTP/1.2", "GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505},
      {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
      {"HTTP/1.10", "GET / HTTP/1.10\r\nHost: h\r\n\r\n", 400},
      {"lower-case version", "GET / http/1.1\r\nHost: h\r\n\r\n", 400},
      {"TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\r\n\r\n"s, 400},
      {"101 fields", get_with(many_fields), 431},
      {"header of 70 KiB", get_with("X: " + std::string(70'000, 'x') + "\r\n"), 431},
      {"target of 17 KiB", "GET /" + std::string(17'000, 'x') + " HTTP/1.1\r\nHost: h\r\n\r\n", 414},
      {"request line without end", std::string(20'000, 'x'), 414},
      {"unknown expectation", post_with("Expect: 200-ok\r\nContent-Length: 1\r\n"), 417},
      {"two expectations", post_with("Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 1\r\n"), 417},
      {"two empty lines first", "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
  };
}

TEST(HttpServer, refuses_malformed_and_ambiguous_heads_and_reads_nothing_after_them) {
  std::atomic<int> handled = 0;
  TestServer server([&handled](Exchange& exchange) -> Awaitable<void> {
    ++handled;
    (void)co_await exchange.respond(text("handled"));
  });
  for (const BadHead& bad : bad_heads()) {
    RawClient client(server.port());
    client.send(bad.bytes + "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n");
    const std::string answer = client.read_to_end();
    EXPECT_EQ(status_of(answer), bad.status) << bad.name << ": " << answer;
    EXPECT_NE(answer.find("\r\nConnection: close\r\n"), std::string::npos) << bad.name;
    EXPECT_EQ(count_of(answer, "\r\nDate: "), 1U) << bad.name << ": " << answer;
    EXPECT_FALSE(client.was_reset()) << bad.name;
  }
  EXPECT_EQ(handled, 0);
}

TEST(HttpServer, accepts_what_is_unusual_but_sound) {
  TestServer server(echo);
  for (const std::string& bytes : {
           std::string("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
           get_with("X:\t padded \t\r\n"),
           get_with("X: caf\xc3\xa9\r\n"),
           get_with("X-Empty:\r\n"),
           get_with("Transfer_Encoding: chunked\r\n"),
           std::string("GET / HTTP/1.1\r\nhOsT: [::1]:9000\r\n\r\n"),
           post_with("Content-Length: 000\r\n"),
           post_with("tRaNsFeR-eNcOdInG: ChUnKeD\r\n", "0\r\n\r\n"),
           std::string("M-SEARCH /%00%2e%2e//./ HTTP/1.1\r\nHost: h\r\n\r\n"),
           get_with("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
       }) {
    RawClient client(server.port());
    client.send(bytes);
    client.shutdown_send();
    EXPECT_EQ(status_of(client.read_to_end()), 200) << bytes;
  }
}

TEST(HttpServer, takes_a_head_that_arrives_byte_by_byte) {
  TestServer server(echo);
  RawClient client(server.port());
  for (const char c :
       std::string("\r\nPOST /slow HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n")) {
    client.send(std::string_view(&c, 1));
  }
  EXPECT_NE(client.read_past("A=b").find("POST /slow [abc] A=b"), std::string::npos);
}

TEST(HttpServer, answers_a_thousand_pipelined_requests_in_order) {
  TestServer server(echo);
  RawClient client(server.port());
  std::string all;
  for (int i = 0; i < 1000; ++i) {
    const std::string body = std::to_string(i);
    all += "POST /" + body + " HTTP/1.1\r\nHost: h\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  std::thread sender([&] { client.send(all); });
  const std::string answers = client.read_past("POST /999 [999]");
  sender.join();
  EXPECT_EQ(count_of(answers, "HTTP/1.1 200 OK"), 1000U);
  std::size_t at = 0;
  for (int i = 0; i < 1000; ++i) {
    at = answers.find("POST /" + std::to_string(i) + " [" + std::to_string(i) + "]", at);
    ASSERT_NE(at, std::string::npos) << i;
  }
}

TEST(HttpServer, takes_no_byte_of_the_next_request_for_a_body_that_arrives_with_it) {
  TestServer server(echo);
  RawClient client(server.port());
  for (std::size_t size = 1; size < 70; ++size) {
    const std::string body(size, 'b');
    client.send("POST /first HTTP/1.1\r\nHost: h\r\nContent-Length: " + std::to_string(size) + "\r\nExpect: 100-continue\r\n\r\n");
    ASSERT_NE(client.read_past("\r\n\r\n").find("100 Continue"), std::string::npos);  // the handler waits for the body
    client.send(body + "GET /second HTTP/1.1\r\nHost: h\r\n\r\n");
    ASSERT_NE(client.read_past("GET /second []").find("POST /first [" + body + "]"), std::string::npos) << size;
  }
}

TEST(HttpServer, reads_trailers_and_drops_those_that_could_change_framing_or_identity) {
  TestServer server(echo);
  RawClient client(server.port());
  client.send(post_with("Transfer-Encoding: chunked\r\nTrailer: Lambda-Runtime-Function-Error-Type\r\n",
                        "5\r\nhello\r\n6;ext=\"v\"\r\n world\r\n0\r\nLambda-Runtime-Function-Error-Type: Oops\r\n"
                        "Content-Length: 7\r\nHost: evil\r\nAuthorization: x\r\nTransfer-Encoding: chunked\r\n\r\n"));
  const std::string answer = client.read_past("Oops");
  EXPECT_NE(answer.find("POST / [hello world] Lambda-Runtime-Function-Error-Type=Oops"), std::string::npos) << answer;
  EXPECT_EQ(answer.find("evil"), std::string::npos);
  client.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_NE(client.read_past("[]").find("GET /next []"), std::string::npos);
}

TEST(HttpServer, answers_400_to_broken_chunks_and_closes) {
  using namespace std::string_literals;
  TestServer server(echo);
  for (const std::string& body :
       {"x\r\nhello\r\n0\r\n\r\n"s, "0x5\r\nhello\r\n0\r\n\r\n"s, "+5\r\nhello\r\n0\r\n\r\n"s, "5\nhello\r\n0\r\n\r\n"s,
        "5\r\nhelloX\r\n0\r\n\r\n"s, "5\r\nhello\n0\r\n\r\n"s, " 5\r\nhello\r\n0\r\n\r\n"s, "-1\r\n\r\n"s, "\r\n\r\n"s,
        "ffffffffffffffffff\r\n"s, "5 x\r\nhello\r\n0\r\n\r\n"s, "5;\0\r\nhello\r\n0\r\n\r\n"s, "5;a\rb\r\nhello\r\n0\r\n\r\n"s,
        "5;" + std::string(2000, 'e') + "\r\nhello\r\n0\r\n\r\n", "0\r\nA B: c\r\n\r\n"s, "0\r\nA: c\x01\r\n\r\n"s,
        "0\r\n folded: x\r\n\r\n"s, "0\r\nA: " + std::string(20'000, 't') + "\r\n\r\n"}) {
    RawClient client(server.port());
    client.send(post_with("Transfer-Encoding: chunked\r\n", body) + "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n");
    const std::string answer = client.read_to_end();
    EXPECT_EQ(status_of(answer), 400) << body;
    EXPECT_EQ(count_of(answer, "HTTP/1.1 "), 1U) << body;
  }
}

TEST(HttpServer, sends_100_continue_only_when_the_body_is_wanted) {
  TestServer server([](Exchange& exchange) -> Awaitable<void> {
    if (exchange.head().target == "/no") {
      (void)co_await exchange.respond(text("no", 413));
      co_return;
    }
    co_await echo(exchange);
  });
  RawClient wanted(server.port());
  wanted.send(post_with("Expect: 100-Continue\r\nContent-Length: 5\r\n"));
  EXPECT_EQ(wanted.read_past("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  wanted.send("hello");
  EXPECT_NE(wanted.read_past("]").find("[hello]"), std::string::npos);

  RawClient unwanted(server.port());
  unwanted.send("POST /no HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
  const std::string answer = unwanted.read_to_end();
  EXPECT_EQ(status_of(answer), 413);
  EXPECT_NE(answer.find("Connection: close"), std::string::npos);

  RawClient too_large(server.port());
  too_large.send(post_with("Expect: 100-continue\r\nContent-Length: 1073741824\r\n"));
  EXPECT_EQ(status_of(too_large.read_to_end()), 413);
}

TEST(HttpServer, lets_an_answer_through_although_the_peer_still_sends_its_body) {
  TestServer server([](Exchange& exchange) -> Awaitable<void> { (void)co_await exchange.respond(text("too large", 413)); });
  RawClient client(server.port());
  client.send(post_with("Content-Length: 3000000\r\n", std::string(3'000'000, 'x')));
  EXPECT_EQ(status_of(client.read_to_end()), 413);
}

TEST(HttpServer, drops_a_small_body_the_handler_left_and_goes_on) {
  TestServer server([](Exchange& exchange) -> Awaitable<void> { (void)co_await exchange.respond(text(exchange.head().target)); });
  RawClient client(server.port());
  client.send("POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n" + std::string(1000, 'x') +
              "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(count_of(client.read_past("/2"), "200 OK"), 2U);
}

TEST(HttpServer, follows_the_rules_of_http_1_0_and_of_connection_fields) {
  TestServer server(echo);
  const auto ask = [&](const std::string& bytes) {
    RawClient client(server.port());
    client.send(bytes);
    return client.read_past("[]");
  };
  EXPECT_NE(ask("GET / HTTP/1.0\r\n\r\n").find("Connection: close"), std::string::npos);
  EXPECT_NE(ask("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").find("Connection: keep-alive"), std::string::npos);
  EXPECT_NE(ask(get_with("Connection: x, CLOSE\r\n")).find("Connection: close"), std::string::npos);
}

TEST(HttpServer, answers_head_without_a_body_and_with_its_length) {
  TestServer server([](Exchange& exchange) -> Awaitable<void> { (void)co_await exchange.respond(text("hello")); });
  RawClient client(server.port());
  client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  const std::string answers = client.read_to_end();
  EXPECT_EQ(count_of(answers, "Content-Length: 5"), 2U);
  EXPECT_EQ(count_of(answers, "hello"), 1U);
}

TEST(HttpServer, streams_in_chunks_with_trailers_and_to_http_1_0_until_the_end) {
  TestServer server([](Exchange& exchange) -> Awaitable<void> {
    Headers headers;
    headers.add("Trailer", "X-End");
    headers.add("Content-Length", "3");
    Result<void> step = co_await exchange.begin(200, std::move(headers));
    step = co_await exchange.write("abc");
    step = co_await exchange.write("");
    step = co_await exchange.write(std::string(17, 'd'));
    Headers trailers;
    trailers.add("X-End", "yes");
    step = co_await exchange.finish(std::move(trailers));
    EXPECT_TRUE(step.ok());
  });
  RawClient client(server.port());
  client.send(get_with(""));
  const std::string answer = client.read_past("yes\r\n\r\n");
  EXPECT_NE(answer.find("Transfer-Encoding: chunked\r\n"), std::string::npos);
  EXPECT_EQ(answer.find("Content-Length"), std::string::npos);
  EXPECT_TRUE(answer.ends_with("\r\n\r\n3\r\nabc\r\n11\r\nddddddddddddddddd\r\n0\r\nX-End: yes\r\n\r\n")) << answer;
  RawClient old(server.port());
  old.send("GET / HTTP/1.0\r\n\r\n");
  const std::string plain = old.read_to_end();
  EXPECT_TRUE(plain.ends_with("\r\n\r\nabcddddddddddddddddd")) << plain;
  EXPECT_EQ(plain.find("chunked"), std::string::npos);
}

TEST(HttpServer, streams_an_answer_of_stated_length_and_keeps_the_connection) {
  TestServer server([](Exchange& exchange) -> Awaitable<void> {
    Result<void> step = co_await exchange.begin_sized(206, {}, 20);
    step = co_await exchange.write("abc");
    EXPECT_EQ((co_await exchange.write(std::string(18, 'x'))).error().code(), base::ErrorCode::kInvalidArgument);
    step = co_await exchange.write(std::string(17, 'd'));
    EXPECT_EQ((co_await exchange.write("x")).error().code(), base::ErrorCode::kInvalidArgument);
    step = co_await exchange.finish({});
    EXPECT_TRUE(step.ok());
  });
  RawClient client(server.port());
  client.send(get_with("") + get_with("Connection: close\r\n"));
  const std::string answers = client.read_to_end();
  EXPECT_EQ(count_of(answers, "Content-Length: 20\r\n"), 2U) << answers;
  EXPECT_EQ(count_of(answers, "\r\n\r\nabcddddddddddddddddd"), 2U) << answers;
  EXPECT_EQ(answers.find("Transfer-Encoding"), std::string::npos);
}

TEST(HttpServer, breaks_off_an_answer_that_is_shorter_than_stated) {
  TestServer server([](Exchange& exchange) -> Awaitable<void> {
    (void)co_await exchange.begin_sized(200, {}, 20);
    (void)co_await exchange.write("abc");
    EXPECT_FALSE((co_await exchange.finish({})).ok());
  });
  RawClient client(server.port());
  client.send(get_with("") + get_with(""));
  const std::string answers = client.read_to_end();
  EXPECT_LE(count_of(answers, "HTTP/1.1 200"), 1U);
}

TEST(HttpServer, holds_a_streaming_handler_back_while_the_peer_does_not_read) {
  std::atomic<std::size_t> written = 0;
  std::atomic<bool> failed = false;
  constexpr std::size_t kTotal = 64U << 20U;
  TestServer server([&](Exchange& exchange) -> Awaitable<void> {
    const std::string piece(256U << 10U, 'p');
    (void)co_await exchange.begin(200, {});
    while (written < kTotal) {
      const auto result = co_await exchange.write(piece);
      if (!result.ok()) {
        failed = true;
        co_return;
      }
      written += piece.size();
    }
    (void)co_await exchange.finish({});
  });
  RawClient client(server.port(), 64 << 10);
  client.send(get_with("Connection: close\r\n"));
  // The handler stops when the kernel's buffers are full: `written` no longer moves, far from the total.
  std::size_t before = 1;
  while (before != written || written == 0) {
    before = written;
    std::this_thread::sleep_for(50ms);
  }
  EXPECT_LT(written, kTotal / 2);
  const std::string all = client.read_to_end();
  EXPECT_GT(all.size(), kTotal);
  EXPECT_FALSE(failed);
  EXPECT_EQ(written, kTotal);
}

TEST(HttpServer, ends_a_write_without_progress) {
  std::promise<base::ErrorCode> ended;
  TestServer server(
      [&](Exchange& exchange) -> Awaitable<void> {
        const std::string piece(1U << 20U, 'p');
        (void)co_await exchange.begin(200, {});
        while (true) {
          const auto result = co_await exchange.write(piece);
          if (!result.ok()) {
            ended.set_value(result.error().code());
            co_return;
          }
        }
      },
      quick());
  RawClient client(server.port(), 64 << 10);
  client.send(get_with(""));
  EXPECT_EQ(ended.get_future().get(), base::ErrorCode::kDeadlineExceeded);
}

TEST(HttpServer, gives_slow_headers_408_slow_bodies_an_error_and_closes_idle_connections) {
  TestServer server(echo, quick());
  RawClient header(server.port());
  header.send("GET / HTTP/1.1\r\nHost: h\r\n");
  EXPECT_EQ(status_of(header.read_to_end()), 408);
  RawClient body(server.port());
  body.send(post_with("Content-Length: 10\r\n", "abc"));
  EXPECT_EQ(status_of(body.read_to_end()), 504);
  RawClient idle(server.port());
  EXPECT_EQ(idle.read_to_end(), "");
  RawClient after(server.port());
  after.send(get_with(""));
  EXPECT_EQ(count_of(after.read_to_end(), "HTTP/1.1"), 1U);
}

TEST(HttpServer, gives_a_trickling_header_no_more_time_for_each_byte) {
  TestServer server(echo, quick());
  RawClient client(server.port());
  const auto start = std::chrono::steady_clock::now();
  std::thread trickle([&] {
    client.send("GET / HTTP/1.1\r\nX: ");
    for (int i = 0; i < 40; ++i) {
      client.send("x");
      std::this_thread::sleep_for(20ms);
    }
  });
  EXPECT_EQ(status_of(client.read_past("\r\n\r\n")), 408);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 700ms);
  trickle.join();
}

TEST(HttpServer, tells_a_waiting_handler_that_the_peer_is_gone_and_keeps_pipelined_bytes) {
  std::promise<bool> first;
  std::promise<bool> second;
  std::optional<TaskScope> scope;
  TestServer server([&](Exchange& exchange) -> Awaitable<void> {
    if (exchange.head().target == "/long") {
      first.set_value(co_await exchange.peer_gone());
      co_return;
    }
    // Watches beside its work, answers, and the watch ends with the exchange.
    auto watcher = [](Exchange& watched, std::promise<bool>& result) -> Awaitable<void> { result.set_value(co_await watched.peer_gone()); };
    scope.emplace(co_await boost::asio::this_coro::executor);
    scope->spawn(watcher(exchange, second));
    co_await sleep_until(base::system_clock().now() + 50ms);
    (void)co_await exchange.respond(text(exchange.head().target));
  });
  RawClient client(server.port());
  client.send("GET /short HTTP/1.1\r\nHost: h\r\n\r\n");
  std::this_thread::sleep_for(10ms);
  client.send("GET /long HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(status_of(client.read_past("/short")), 200);
  EXPECT_FALSE(second.get_future().get());
  client.close();
  EXPECT_TRUE(first.get_future().get());
  testing::on_loop(server.loop(), [&] { scope.reset(); });
}

TEST(HttpServer, notices_a_reset_during_a_long_handler) {
  std::promise<bool> gone;
  TestServer server([&](Exchange& exchange) -> Awaitable<void> {
    auto body = co_await exchange.read_all(100);
    gone.set_value(co_await exchange.peer_gone());
    const auto late = co_await exchange.respond(text("late"));
    EXPECT_FALSE(late.ok());
  });
  RawClient client(server.port());
  client.send(post_with("Content-Length: 3\r\n", "abc"));
  std::this_thread::sleep_for(20ms);
  client.reset();
  EXPECT_TRUE(gone.get_future().get());
}

TEST(HttpServer, answers_500_when_the_handler_does_not_answer_or_throws) {
  TestServer server([](Exchange& exchange) -> Awaitable<void> {
    if (exchange.head().target == "/throw") throw std::runtime_error("thrown on purpose by a test");
    co_return;
  });
  RawClient client(server.port());
  client.send("GET /throw HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(count_of(client.read_to_end(), "HTTP/1.1 500 "), 2U);
}

TEST(HttpServer, shows_an_incomplete_answer_as_incomplete) {
  TestServer server([](Exchange& exchange) -> Awaitable<void> {
    (void)co_await exchange.begin(200, {});
    (void)co_await exchange.write("half");
    if (exchange.head().target == "/abort") exchange.abort();
  });
  for (const char* bytes :
       {"GET /abort HTTP/1.1\r\nHost: h\r\n\r\n", "GET /abort HTTP/1.0\r\n\r\n", "GET /forgot HTTP/1.1\r\nHost: h\r\n\r\n"}) {
    RawClient client(server.port());
    client.send(bytes);
    const std::string answer = client.read_to_end();
    EXPECT_EQ(answer.find("0\r\n\r\n"), std::string::npos);
    EXPECT_TRUE(client.was_reset()) << bytes;
  }
}

TEST(HttpServer, refuses_answers_that_would_forge_header_lines) {
  TestServer server([](Exchange& exchange) -> Awaitable<void> {
    Response response = text("x");
    response.headers.add("X-Bad", "a\r\nSet-Cookie: forged");
    const auto result = co_await exchange.respond(std::move(response));
    EXPECT_FALSE(result.ok());
    EXPECT_FALSE(exchange.answered());
    (void)co_await exchange.respond(text("second try", 502));
    EXPECT_TRUE(exchange.answered());
    EXPECT_FALSE((co_await exchange.respond(text("third"))).ok());
  });
  RawClient client(server.port());
  client.send(get_with("Connection: close\r\n"));
  const std::string answer = client.read_to_end();
  EXPECT_EQ(status_of(answer), 502);
  EXPECT_EQ(answer.find("forged"), std::string::npos);
}

TEST(HttpServer, reads_a_large_body_whole_and_in_pieces) {
  TestServer server([](Exchange& exchange) -> Awaitable<void> {
    std::size_t total = 0;
    if (exchange.head().target == "/whole") {
      const auto body = co_await exchange.read_all(32 << 20);
      if (body.ok()) total = body->size();
    } else {
      while (true) {
        const auto piece = co_await exchange.read_some();
        if (!piece.ok() || piece->empty()) break;
        total += piece->size();
      }
    }
    (void)co_await exchange.respond(text(std::to_string(total)));
  });
  const std::string body(10'000'000, 'b');
  for (const std::string target : {"/whole", "/pieces"}) {
    RawClient plain(server.port());
    plain.send("POST " + target + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 10000000\r\n\r\n" + body);
    EXPECT_TRUE(plain.read_to_end().ends_with("\r\n\r\n10000000")) << target;
    RawClient chunked(server.port());
    chunked.send("POST " + target + " HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n989680\r\n" + body +
                 "\r\n0\r\n\r\n");
    EXPECT_TRUE(chunked.read_to_end().ends_with("\r\n\r\n10000000")) << target;
  }
}

TEST(HttpServer, cuts_a_chunked_body_off_at_the_limit) {
  TestServer server(echo);
  RawClient client(server.port());
  client.send(post_with("Transfer-Encoding: chunked\r\n"));
  const std::string chunk = "10000\r\n" + std::string(65'536, 'x') + "\r\n";
  std::thread sender([&] {
    for (int i = 0; i < 20; ++i) client.send(chunk);
  });
  EXPECT_EQ(status_of(client.read_past("\r\n\r\n")), 413);
  sender.join();
}

TEST(HttpServer, drains_idle_connections_go_and_running_exchanges_finish) {
  std::promise<void> entered;
  TestServer server([&](Exchange& exchange) -> Awaitable<void> {
    if (exchange.head().target == "/slow") {
      entered.set_value();
      co_await sleep_until(base::system_clock().now() + 80ms);
    }
    (void)co_await exchange.respond(text("done"));
  });
  RawClient idle(server.port());
  idle.send(get_with(""));
  (void)idle.read_past("done");
  RawClient busy(server.port());
  busy.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
  entered.get_future().wait();
  std::promise<bool> drained;
  std::optional<TaskScope> scope;
  testing::on_loop(server.loop(), [&] {
    scope.emplace(server.loop().executor());
    auto drain = [](HttpServer& draining, std::promise<bool>& result) -> Awaitable<void> {
      result.set_value(co_await draining.drain(base::system_clock().now() + 5s));
    };
    scope->spawn(drain(server.server(), drained));
  });
  EXPECT_EQ(idle.read_to_end(), "");
  const std::string answer = busy.read_to_end();
  EXPECT_EQ(status_of(answer), 200);
  EXPECT_NE(answer.find("Connection: close"), std::string::npos);
  EXPECT_TRUE(drained.get_future().get());
  EXPECT_EQ(server.connections(), 0U);
  testing::on_loop(server.loop(), [&] { scope.reset(); });
}

TEST(HttpServer, closes_what_is_left_when_the_drain_deadline_passes) {
  std::promise<void> entered;
  TestServer server([&](Exchange&) -> Awaitable<void> {
    entered.set_value();
    co_await sleep_until(base::system_clock().now() + 1h);
    ADD_FAILURE() << "the handler ran on";
  });
  RawClient client(server.port());
  client.send(get_with(""));
  entered.get_future().wait();
  std::promise<bool> drained;
  std::optional<TaskScope> scope;
  testing::on_loop(server.loop(), [&] {
    scope.emplace(server.loop().executor());
    auto drain = [](HttpServer& draining, std::promise<bool>& result) -> Awaitable<void> {
      result.set_value(co_await draining.drain(base::system_clock().now() + 50ms));
    };
    scope->spawn(drain(server.server(), drained));
  });
  EXPECT_FALSE(drained.get_future().get());
  EXPECT_EQ(client.read_to_end(), "");
  testing::on_loop(server.loop(), [&] { scope.reset(); });
}

TEST(HttpServer, destroyed_in_the_middle_of_everything_runs_no_handler_afterwards) {
  auto owner = std::make_unique<std::string>("alive");
  std::atomic<int> entered = 0;
  TestServer server([&, raw = owner.get()](Exchange& exchange) -> Awaitable<void> {
    ++entered;
    if (exchange.head().target == "/read") (void)co_await exchange.read_all(100);
    if (exchange.head().target == "/sleep") co_await sleep_until(base::system_clock().now() + 1h);
    if (exchange.head().target == "/watch") (void)co_await exchange.peer_gone();
    if (exchange.head().target == "/write") {
      (void)co_await exchange.begin(200, {});
      const std::string piece(1 << 20, 'x');
      while ((co_await exchange.write(piece)).ok()) {
      }
    }
    raw->append(" touched");
  });
  std::vector<std::unique_ptr<RawClient>> clients;
  for (const std::string target : {"/read", "/sleep", "/watch", "/write"}) {
    clients.push_back(std::make_unique<RawClient>(server.port(), 16 << 10));
    clients.back()->send("POST " + target + " HTTP/1.1\r\nHost: h\r\nContent-Length: " + (target == "/read" ? "5" : "0") + "\r\n\r\n");
  }
  clients.push_back(std::make_unique<RawClient>(server.port()));  // idle
  while (entered < 4) std::this_thread::sleep_for(1ms);
  testing::on_loop(server.loop(), [] {});
  server.stop();
  owner.reset();
  for (auto& client : clients) (void)client->read_to_end();
}

// Answers when the test says so.
struct HeldHandler {
  std::atomic<bool> go = false;
  std::atomic<int> inside = 0;
  Awaitable<void> operator()(Exchange& exchange) {
    ++inside;
    while (!go) co_await sleep_until(base::system_clock().now() + 2ms);
    co_await echo(exchange);
  }
};

TEST(HttpServer, turns_connections_beyond_the_cap_away_when_all_others_are_served) {
  ServerLimits limits;
  limits.connections_max = 2;
  HeldHandler held;
  TestServer server([&held](Exchange& exchange) { return held(exchange); }, limits);
  RawClient one(server.port());
  RawClient two(server.port());
  one.send(get_with(""));
  two.send(get_with(""));
  for (int i = 0; i < 2000 && held.inside < 2; ++i) std::this_thread::sleep_for(1ms);
  ASSERT_EQ(held.inside, 2);
  RawClient three(server.port());
  const std::string answer = three.read_to_end();
  EXPECT_EQ(status_of(answer), 503);
  EXPECT_TRUE(answer.ends_with("\r\n\r\n{\"message\":\"too many connections, try again\"}"));
  EXPECT_NE(answer.find("Content-Length: 45\r\n"), std::string::npos);
  EXPECT_EQ(answer.size() - answer.find("\r\n\r\n") - 4, 45U);
  held.go = true;
  EXPECT_EQ(status_of(one.read_past("[]")), 200);
  EXPECT_EQ(status_of(two.read_past("[]")), 200);
}

TEST(HttpServer, ends_the_longest_waiting_connection_for_a_new_one_at_the_cap) {
  ServerLimits limits;
  limits.connections_max = 3;
  TestServer server(echo, limits);
  RawClient idle(server.port());
  idle.send(get_with(""));
  EXPECT_EQ(status_of(idle.read_past("[]")), 200);
  RawClient slow(server.port());  // its header never ends
  slow.send("GET / HTTP/1.1\r\nHost:");
  RawClient busy(server.port());
  busy.send(get_with(""));
  EXPECT_EQ(status_of(busy.read_past("[]")), 200);
  ASSERT_EQ(server.connections(), 3U);

  RawClient four(server.port());
  four.send(get_with(""));
  EXPECT_EQ(status_of(four.read_past("[]")), 200);
  EXPECT_EQ(idle.read_to_end(), "");  // the first to go: it has waited longest
  RawClient five(server.port());
  five.send(get_with(""));
  EXPECT_EQ(status_of(five.read_past("[]")), 200);
  EXPECT_EQ(status_of(slow.read_to_end()), 503);
  busy.send(get_with(""));
  EXPECT_EQ(status_of(busy.read_past("[]")), 200);
}

TEST(HttpServer, survives_running_out_of_descriptors_and_recovers) {
  TestServer server(echo);
  RawClient before(server.port());
  before.send(get_with(""));
  EXPECT_EQ(status_of(before.read_past("[]")), 200);
  // Clients are made first: they need descriptors of this process too.
  std::vector<base::UniqueFd> sockets;
  for (int i = 0; i < 8; ++i) sockets.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old), 0);
  const base::UniqueFd probe(::dup(0));
  const rlimit tight{static_cast<rlim_t>(probe.get()), old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(server.port());
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (const auto& fd : sockets) {
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    char bytes[512];
    pollfd wait{fd.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&wait, 1, 3000), 1);
    const ssize_t got = ::recv(fd.get(), bytes, sizeof bytes, 0);
    EXPECT_EQ(status_of(std::string(bytes, got > 0 ? static_cast<std::size_t>(got) : 0)), 503);
  }
  before.send(get_with(""));
  EXPECT_EQ(status_of(before.read_past("[]")), 200);  // who is in is served
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old), 0);
  RawClient after(server.port());
  after.send(get_with(""));
  EXPECT_EQ(status_of(after.read_past("[]")), 200);
}

TEST(ListenTcp, names_the_address_that_is_taken_or_malformed) {
  auto first = listen_tcp("127.0.0.1:0");
  ASSERT_TRUE(first.ok());
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ASSERT_EQ(::getsockname(first->get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string taken = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  const auto second = listen_tcp(taken);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code(), base::ErrorCode::kAlreadyExists);
  EXPECT_NE(second.error().message().find(taken), std::string::npos);
  EXPECT_FALSE(listen_tcp("nonsense").ok());
  EXPECT_FALSE(listen_tcp("127.0.0.1:99999").ok());
}

}  // namespace
}  // namespace mayfly::net
