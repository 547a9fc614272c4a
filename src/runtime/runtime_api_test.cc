#include "runtime/runtime_api.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <future>

#include "base/bytes.h"
#include "net/http_server.h"

namespace mayfly::runtime {
namespace {

using namespace std::chrono_literals;

struct Reply {
  int status = 0;
  std::string head, body;
};

// A runtime's connection, blocking.
class Peer {
 public:
  explicit Peer(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  void send(const std::string& text) {
    EXPECT_EQ(::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  // The next whole answer; status 0 when the connection ended first or nothing came for five seconds.
  Reply receive() {
    while (true) {
      const std::size_t end = buffer_.find("\r\n\r\n");
      if (end != std::string::npos) {
        Reply reply;
        reply.head = buffer_.substr(0, end + 2);
        reply.status = std::stoi(reply.head.substr(9, 3));
        const std::size_t at = net::to_lower(reply.head).find("content-length: ");
        const std::size_t length = at == std::string::npos ? 0 : std::stoul(reply.head.substr(at + 16));
        if (buffer_.size() >= end + 4 + length) {
          reply.body = buffer_.substr(end + 4, length);
          buffer_.erase(0, end + 4 + length);
          return reply;
        }
      }
      pollfd waiting{.fd = fd_.get(), .events = POLLIN, .revents = 0};
      if (::poll(&waiting, 1, 5000) <= 0) return {};
      char bytes[65536];
      const ssize_t got = ::recv(fd_.get(), bytes, sizeof bytes, 0);
      if (got <= 0) return {};
      buffer_.append(bytes, static_cast<std::size_t>(got));
    }
  }
  Reply next() {
    send("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n");
    return receive();
  }
  Reply post(const std::string& path, const std::string& body, const std::string& headers = {}) {
    send("POST /2018-06-01/runtime/" + path + " HTTP/1.1\r\nHost: x\r\n" + headers + "Content-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body);
    return receive();
  }
  void close() { fd_.reset(); }

 private:
  base::UniqueFd fd_;
  std::string buffer_;
};

// Everything the API reports, to be waited for from the test's thread.
struct Told final : RuntimeEvents, engine::ResponseSink {
  void on_next(RunNumber) override { note("next"); }
  void on_init_error(FunctionFault fault) override { note("init-error " + fault.error_type + " " + fault.payload); }
  void on_answer(Answer answer) override {
    {
      const std::lock_guard lock(mutex);
      cause = answer.cause;
    }
    note((answer.failed ? "failed " + answer.error_type + " " : "answer ") + answer.payload);
  }
  void on_stream_begin(const std::string& type) override { note("begin " + type); }
  void on_stream_piece(std::string bytes, std::function<void(bool)> taken) override {
    note("piece " + bytes);
    if (holding) {
      held = std::move(taken);
    } else {
      taken(!deaf);
    }
  }
  void on_outcome(engine::Outcome) override {}

  void note(std::string line) {
    const std::lock_guard lock(mutex);
    lines.push_back(std::move(line));
    changed.notify_all();
  }
  // The next report, within five seconds.
  std::string take() {
    std::unique_lock lock(mutex);
    if (!changed.wait_for(lock, 5s, [this] { return !lines.empty(); })) return "(nothing)";
    std::string line = lines.front();
    lines.erase(lines.begin());
    return line;
  }
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> lines;
  std::string cause;                   // of the last answer
  bool holding = false, deaf = false;  // set before the piece comes
  std::function<void(bool)> held;
};

class RuntimeApiTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop.start();
    limits.response_bytes = 100;
    limits.error_bytes = 100;
    limits.stream_bytes = 200;
    auto listener = net::listen_tcp("127.0.0.1:0");
    ASSERT_TRUE(listener.ok());
    sockaddr_in address{};
    socklen_t size = sizeof address;
    ::getsockname(listener->get(), reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    on_loop([&] { api = std::make_unique<RuntimeApi>(loop.executor(), std::move(*listener), *told, base::system_clock(), limits); });
  }
  void TearDown() override {
    on_loop([&] { api.reset(); });
    loop.stop();
  }
  void on_loop(const std::function<void()>& work) {
    std::promise<void> done;
    loop.post([&] {
      work();
      done.set_value();
    });
    done.get_future().wait();
  }
  engine::InvocationPtr hand_over(const std::string& id, engine::ResponseMode mode = engine::ResponseMode::kBuffered,
                                  const std::string& context = {}) {
    auto invocation = std::make_shared<engine::Invocation>();
    invocation->request_id = id;
    invocation->invoked_arn = "arn:aws:lambda:us-east-1:000000000000:function:f";
    invocation->payload = "{\"event\":1}";
    invocation->mode = mode;
    invocation->client_context = context;
    invocation->trace_id = "Root=1-2-3";
    invocation->sink = told;
    on_loop([&] { api->hand_over(invocation, base::system_clock().now() + 3s); });
    return invocation;
  }
  bool take_back() {
    bool taken_back = false;
    on_loop([&] { taken_back = api->take_back(); });
    return taken_back;
  }
  // A connection with `id` handed over and received.
  Peer running(const std::string& id, engine::ResponseMode mode = engine::ResponseMode::kBuffered) {
    Peer peer(port);
    peer.send("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_EQ(told->take(), "next");
    hand_over(id, mode);
    EXPECT_EQ(peer.receive().status, 200);
    return peer;
  }

  net::EventLoop loop{"test"};
  RuntimeApiLimits limits;
  std::shared_ptr<Told> told = std::make_shared<Told>();
  std::uint16_t port = 0;
  std::unique_ptr<RuntimeApi> api;
};

TEST_F(RuntimeApiTest, AnInvocationGoesOutWithItsHeadersAndTheAnswerComesBack) {
  Peer peer(port);
  peer.send("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(told->take(), "next");
  const std::int64_t before = base::epoch_ms(base::system_clock().wall_now());
  hand_over("r1", engine::ResponseMode::kBuffered, "{\"a\":\r\n\"b\"}\r\nX-Injected: yes");
  const Reply event = peer.receive();
  EXPECT_EQ(event.status, 200);
  EXPECT_EQ(event.body, "{\"event\":1}");
  EXPECT_NE(event.head.find("Lambda-Runtime-Aws-Request-Id: r1\r\n"), std::string::npos);
  EXPECT_NE(event.head.find("Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:000000000000:function:f\r\n"),
            std::string::npos);
  EXPECT_NE(event.head.find("Lambda-Runtime-Trace-Id: Root=1-2-3\r\n"), std::string::npos);
  EXPECT_EQ(event.head.find("\r\nX-Injected"), std::string::npos) << "no value may add a field";
  const std::size_t at = event.head.find("Lambda-Runtime-Deadline-Ms: ");
  ASSERT_NE(at, std::string::npos);
  const std::int64_t deadline = std::stoll(event.head.substr(at + 28));
  EXPECT_GE(deadline, before + 2900);
  EXPECT_LE(deadline, before + 4000);
  EXPECT_EQ(peer.post("invocation/r1/response", "42").status, 202);
  EXPECT_EQ(told->take(), "answer 42");
  peer.send("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(told->take(), "next");
}

TEST_F(RuntimeApiTest, WhatIsHandedToARuntimeThatHasHungUpIsTakenBackWhole) {
  Peer peer(port);
  peer.send("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(told->take(), "next");
  peer.close();
  on_loop([] {});  // the loop has seen it
  const auto invocation = hand_over("r1");
  on_loop([] {});
  EXPECT_TRUE(take_back());
  EXPECT_EQ(invocation->payload, "{\"event\":1}");
  EXPECT_FALSE(take_back()) << "once";
}

TEST_F(RuntimeApiTest, ARuntimeThatHungUpAndAsksAgainGetsWhatItWasHandedMeanwhile) {
  {
    Peer peer(port);
    peer.send("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_EQ(told->take(), "next");
  }
  on_loop([] {});
  hand_over("r1");
  Peer again(port);
  const Reply event = again.next();
  EXPECT_EQ(event.status, 200);
  EXPECT_EQ(event.body, "{\"event\":1}");
  EXPECT_FALSE(take_back());
}

TEST_F(RuntimeApiTest, WhatWasSentIsNotTakenBack) {
  Peer peer = running("r1");
  peer.close();
  EXPECT_FALSE(take_back());
}

TEST_F(RuntimeApiTest, AnsweringTwiceIsAWrongStateAndAnotherIdIsInvalid) {
  Peer peer = running("r1");
  const Reply other = peer.post("invocation/r0/response", "1");
  EXPECT_EQ(other.status, 400);
  EXPECT_NE(other.body.find("\"errorType\":\"InvalidRequestID\""), std::string::npos);
  EXPECT_EQ(peer.post("invocation/r1/response", "1").status, 202);
  const Reply twice = peer.post("invocation/r1/response", "2");
  EXPECT_EQ(twice.status, 403);
  EXPECT_NE(twice.body.find("InvalidStateTransition"), std::string::npos);
  EXPECT_EQ(peer.post("invocation/r1/error", "{}").status, 403);
  EXPECT_EQ(told->take(), "answer 1");
  EXPECT_TRUE(told->lines.empty());
}

TEST_F(RuntimeApiTest, AnErrorCarriesItsDocumentAndAMappedType) {
  Peer peer = running("r1");
  EXPECT_EQ(peer.post("invocation/r1/error", R"({"errorType":"ValueError"})", "Lambda-Runtime-Function-Error-Type: ValueError\r\n").status,
            202);
  EXPECT_EQ(told->take(), R"(failed Runtime.Unknown {"errorType":"ValueError"})");
}

TEST_F(RuntimeApiTest, AnAnswerAboveTheLimitFailsTheInvocationWithAwsText) {
  Peer peer = running("r1");
  const Reply refused = peer.post("invocation/r1/response", std::string(101, 'a'));
  EXPECT_EQ(refused.status, 413);
  EXPECT_NE(refused.body.find("RequestEntityTooLarge"), std::string::npos);
  EXPECT_EQ(told->take(), R"(failed Function.ResponseSizeTooLarge {"errorType":"Function.ResponseSizeTooLarge","errorMessage":")"
                          R"(Response payload size exceeded maximum allowed payload size (100 bytes)."})");
}

TEST_F(RuntimeApiTest, AChunkedBodyWithTrailersIsTaken) {
  Peer peer = running("r1");
  peer.send(
      "POST /2018-06-01/runtime/invocation/r1/response HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: "
      "Lambda-Runtime-Function-Error-Type\r\n\r\n2\r\n42\r\n0\r\n\r\n");
  EXPECT_EQ(peer.receive().status, 202);
  EXPECT_EQ(told->take(), "answer 42");
}

TEST_F(RuntimeApiTest, HalfAnAnswerLeavesTheInvocationAsItWas) {
  Peer peer = running("r1");
  {
    Peer half(port);
    half.send("POST /2018-06-01/runtime/invocation/r1/response HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf");
    half.close();
  }
  Reply answered;
  for (int i = 0; i < 100 && answered.status != 202; ++i) answered = peer.post("invocation/r1/response", "whole");
  EXPECT_EQ(answered.status, 202);
  EXPECT_EQ(told->take(), "answer whole");
}

TEST_F(RuntimeApiTest, AStreamReachesTheSinkPieceByPieceWithBackpressure) {
  told->holding = true;
  Peer peer = running("r1", engine::ResponseMode::kStreaming);
  peer.send(
      "POST /2018-06-01/runtime/invocation/r1/response HTTP/1.1\r\nHost: x\r\nLambda-Runtime-Function-Response-Mode: "
      "streaming\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
  EXPECT_EQ(told->take(), "begin text/plain");
  EXPECT_EQ(told->take(), "piece one");
  peer.send("3\r\ntwo\r\n");
  on_loop([&] {
    EXPECT_TRUE(told->lines.empty()) << "the second piece must wait for the first";
    told->holding = false;
    told->held(true);
  });
  EXPECT_EQ(told->take(), "piece two");
  peer.send("0\r\n\r\n");
  EXPECT_EQ(told->take(), "answer ");
  EXPECT_EQ(peer.receive().status, 202);
}

TEST_F(RuntimeApiTest, AnErrorAfterTheFirstByteTravelsInTheTrailers) {
  Peer peer = running("r1", engine::ResponseMode::kStreaming);
  peer.send(
      "POST /2018-06-01/runtime/invocation/r1/response HTTP/1.1\r\nHost: x\r\nLambda-Runtime-Function-Response-Mode: "
      "streaming\r\nTransfer-Encoding: chunked\r\n"
      "Trailer: Lambda-Runtime-Function-Error-Type, "
      "Lambda-Runtime-Function-Error-Body\r\n\r\n3\r\none\r\n0\r\nLambda-Runtime-Function-Error-Type: "
      "Runtime.Late\r\nLambda-Runtime-Function-Error-Body: " +
      base::base64_encode("{\"m\":1}") + "\r\n\r\n");
  EXPECT_EQ(told->take(), "begin application/octet-stream");
  EXPECT_EQ(told->take(), "piece one");
  EXPECT_EQ(told->take(), "failed Runtime.Late {\"m\":1}");
}

TEST_F(RuntimeApiTest, ACutStreamIsTruncated) {
  Peer peer = running("r1", engine::ResponseMode::kStreaming);
  peer.send(
      "POST /2018-06-01/runtime/invocation/r1/response HTTP/1.1\r\nHost: x\r\nLambda-Runtime-Function-Response-Mode: "
      "streaming\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
  EXPECT_EQ(told->take(), "begin application/octet-stream");
  EXPECT_EQ(told->take(), "piece one");
  peer.close();
  EXPECT_TRUE(told->take().starts_with("failed Runtime.TruncatedResponse"));
  EXPECT_TRUE(told->cause.starts_with("Response was truncated")) << told->cause;
}

TEST_F(RuntimeApiTest, AStreamPastItsLimitFails) {
  Peer peer = running("r1", engine::ResponseMode::kStreaming);
  const Reply refused = peer.post("invocation/r1/response", std::string(201, 'a'), "Lambda-Runtime-Function-Response-Mode: streaming\r\n");
  EXPECT_EQ(refused.status, 413);
  EXPECT_EQ(told->take(), "begin application/octet-stream");
  EXPECT_TRUE(told->take().starts_with("failed Function.ResponseSizeTooLarge"));
}

TEST_F(RuntimeApiTest, AFunctionFinishesItsStreamWhenTheCallerLeft) {
  told->deaf = true;
  Peer peer = running("r1", engine::ResponseMode::kStreaming);
  peer.send(
      "POST /2018-06-01/runtime/invocation/r1/response HTTP/1.1\r\nHost: x\r\nLambda-Runtime-Function-Response-Mode: "
      "streaming\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
  EXPECT_EQ(told->take(), "begin application/octet-stream");
  EXPECT_EQ(told->take(), "piece one");
  peer.send("3\r\ntwo\r\n0\r\n\r\n");
  EXPECT_EQ(told->take(), "answer ");
}

TEST_F(RuntimeApiTest, ABufferedCallerGetsAStreamedAnswerWhole) {
  Peer peer = running("r1");
  EXPECT_EQ(peer.post("invocation/r1/response", "abc", "Lambda-Runtime-Function-Response-Mode: streaming\r\n").status, 202);
  EXPECT_EQ(told->take(), "answer abc");
}

TEST_F(RuntimeApiTest, AnUnknownResponseModeIsRefusedAndTheInvocationGoesOn) {
  Peer peer = running("r1");
  const Reply refused = peer.post("invocation/r1/response", "abc", "Lambda-Runtime-Function-Response-Mode: sideways\r\n");
  EXPECT_EQ(refused.status, 400);
  EXPECT_NE(refused.body.find("InvalidFunctionResponseMode"), std::string::npos);
  EXPECT_EQ(peer.post("invocation/r1/response", "abc").status, 202);
}

TEST_F(RuntimeApiTest, NextWithoutAnAnswerIsAWrongState) {
  Peer peer = running("r1");
  EXPECT_EQ(peer.next().status, 403);
  EXPECT_EQ(peer.post("invocation/r1/response", "1").status, 202);
}

TEST_F(RuntimeApiTest, ALaterNextReplacesTheOneBefore) {
  Peer first(port), second(port);
  first.send("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(told->take(), "next");
  second.send("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(first.receive().status, 403);
  hand_over("r1");
  EXPECT_EQ(second.receive().status, 200);
}

TEST_F(RuntimeApiTest, AnInitErrorIsReportedOnceAndOnlyDuringInit) {
  Peer peer(port);
  EXPECT_EQ(peer.post("init/error", R"({"errorType":"Runtime.ImportModuleError"})",
                      "Lambda-Runtime-Function-Error-Type: Runtime.ImportModuleError\r\n")
                .status,
            202);
  EXPECT_EQ(told->take(), R"(init-error Runtime.ImportModuleError {"errorType":"Runtime.ImportModuleError"})");
  EXPECT_EQ(peer.post("init/error", "{}").status, 403);
  EXPECT_EQ(peer.next().status, 403);
}

TEST_F(RuntimeApiTest, WhatDoesNotExistSaysSo) {
  Peer peer(port);
  peer.send("GET /2018-06-01/runtime/restore/next HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(peer.receive().status, 403);
  peer.send("GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(peer.receive().body, "pong");
  peer.send("GET /2018-06-01/nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(peer.receive().status, 404);
}

TEST_F(RuntimeApiTest, AfterAbandonNothingIsReported) {
  Peer peer = running("r1", engine::ResponseMode::kStreaming);
  on_loop([&] { api->abandon(); });
  peer.send(
      "POST /2018-06-01/runtime/invocation/r1/response HTTP/1.1\r\nHost: x\r\nLambda-Runtime-Function-Response-Mode: "
      "streaming\r\nContent-Length: 3\r\n\r\nabc");
  peer.receive();
  EXPECT_TRUE(told->lines.empty());
}

TEST(RuntimeTarget, IdsAreTakenWholeOrNotAtAll) {
  EXPECT_EQ(parse_runtime_target("POST", "/2018-06-01/runtime/invocation/a-b/response").request_id, "a-b");
  EXPECT_EQ(parse_runtime_target("POST", "/2018-06-01/runtime/invocation//response").call, RuntimeCall::kUnknown);
  EXPECT_EQ(parse_runtime_target("POST", "/2018-06-01/runtime/invocation/a/b/response").call, RuntimeCall::kUnknown);
  EXPECT_EQ(parse_runtime_target("GET", "/2018-06-01/runtime/invocation/a/response").call, RuntimeCall::kUnknown);
  EXPECT_EQ(parse_runtime_target("POST", "/2018-06-01/runtime/invocation/" + std::string(200, 'a') + "/error").call, RuntimeCall::kUnknown);
  EXPECT_EQ(header_safe(" a\r\nB: c\x7f"), "a  B: c");
}

}  // namespace
}  // namespace mayfly::runtime
