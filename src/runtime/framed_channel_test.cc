#include "runtime/framed_channel.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <cstring>
#include <future>
#include <mutex>

#include "base/json.h"

namespace mayfly::runtime {
namespace {

using namespace std::chrono_literals;

std::string number(std::uint32_t value) { return {reinterpret_cast<const char*>(&value), sizeof value}; }
std::string frame(FrameType type, RunNumber run, const std::string& body) {
  const auto head = encode_head({.length = static_cast<std::uint32_t>(body.size()), .type = static_cast<std::uint32_t>(type), .run = run});
  return std::string(head.data(), head.size()) + body;
}
std::string error_body(const std::string& type, const std::string& document) {
  return number(static_cast<std::uint32_t>(type.size())) + type + document;
}
std::string hello(std::uint32_t version = 1) { return frame(FrameType::kHello, 0, number(version) + number(0) + "test/1"); }

struct Got {
  FrameHead head;
  std::string body;
};

// The runtime's ends of the pipes, blocking.
class Peer {
 public:
  Peer() {
    int to_server[2];
    int to_peer[2];
    EXPECT_EQ(::pipe2(to_server, O_CLOEXEC), 0);
    EXPECT_EQ(::pipe2(to_peer, O_CLOEXEC), 0);
    in_ = base::UniqueFd(to_peer[0]);
    out_ = base::UniqueFd(to_server[1]);
    server_in = base::UniqueFd(to_server[0]);
    server_out = base::UniqueFd(to_peer[1]);
    for (const auto* end : {&server_in, &server_out}) EXPECT_EQ(::fcntl(end->get(), F_SETFL, O_NONBLOCK), 0);
  }
  void send(const std::string& bytes) { EXPECT_TRUE(base::write_all(out_.get(), bytes).ok()); }
  void try_send(const std::string& bytes) { (void)base::write_all(out_.get(), bytes); }
  void close() { out_.reset(); }
  // As the end of its process.
  void die() {
    in_.reset();
    out_.reset();
  }
  // Takes `bytes` and no more.
  void read_some(std::size_t bytes) {
    std::string some(bytes, '\0');
    EXPECT_EQ(::read(in_.get(), some.data(), bytes), static_cast<ssize_t>(bytes));
  }
  // The next frame; type 0 when the server closed its end or nothing came for five seconds.
  Got receive() {
    while (true) {
      if (buffer_.size() >= kFrameHeadBytes) {
        Got got;
        std::memcpy(&got.head.length, buffer_.data(), 4);
        std::memcpy(&got.head.type, buffer_.data() + 4, 4);
        std::memcpy(&got.head.run, buffer_.data() + 8, 4);
        if (buffer_.size() >= kFrameHeadBytes + got.head.length) {
          got.body = buffer_.substr(kFrameHeadBytes, got.head.length);
          buffer_.erase(0, kFrameHeadBytes + got.head.length);
          return got;
        }
      }
      pollfd waiting{.fd = in_.get(), .events = POLLIN, .revents = 0};
      if (::poll(&waiting, 1, 5000) <= 0) return {};
      char bytes[65536];
      const ssize_t count = ::read(in_.get(), bytes, sizeof bytes);
      if (count <= 0) return {};
      buffer_.append(bytes, static_cast<std::size_t>(count));
    }
  }
  [[nodiscard]] bool silent() const {
    pollfd waiting{.fd = in_.get(), .events = POLLIN, .revents = 0};
    return buffer_.empty() && ::poll(&waiting, 1, 50) == 0;
  }
  base::UniqueFd server_in, server_out;

 private:
  base::UniqueFd in_, out_;
  std::string buffer_;
};

// Everything the channel reports, to be waited for from the test's thread.
struct Told final : FramedEvents, engine::ResponseSink {
  void on_next(RunNumber run) override {
    {
      const std::lock_guard lock(mutex);
      freed.push_back(run);
    }
    note("next");
  }
  void on_init_error(FunctionFault fault) override { note("init-error " + fault.error_type + " " + fault.payload); }
  void on_answer(Answer answer) override {
    note(std::to_string(answer.run) + (answer.failed ? " failed " + answer.error_type + " " : " answer ") +
         (answer.payload.size() > 200 ? std::to_string(answer.payload.size()) + " bytes" : answer.payload));
  }
  void on_leaving() override { note("leaving"); }
  void on_protocol_error(FunctionFault fault) override { note("broken " + fault.error_type + " " + fault.cause); }
  void on_stream_begin(const std::string& type) override { note("begin " + type); }
  void on_stream_piece(std::string bytes, std::function<void(bool)> taken) override {
    bool holds = false;
    {
      const std::lock_guard lock(mutex);
      streamed += bytes.size();
      holds = holding;
      if (holds) held = std::move(taken);
    }
    if (bytes.size() < 200) note("piece " + bytes);
    if (!holds) taken(!deaf);
  }
  void on_outcome(engine::Outcome) override {}

  void note(std::string line) {
    const std::lock_guard lock(mutex);
    lines.push_back(std::move(line));
    changed.notify_all();
  }
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
  std::vector<RunNumber> freed;
  std::size_t streamed = 0;
  bool holding = false, deaf = false;
  std::function<void(bool)> held;
};

class FramedChannelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::signal(SIGPIPE, SIG_IGN);  // as in the server
    loop.start();
    limits.response_bytes = 100;
    limits.error_bytes = 100;
    limits.stream_bytes = 1U << 20U;
    open();
  }
  void open() {
    on_loop([&] {
      channel = std::make_unique<FramedChannel>(loop.executor(), std::move(peer.server_in), std::move(peer.server_out), *told,
                                                base::system_clock(), limits);
    });
  }
  void TearDown() override {
    on_loop([&] { channel.reset(); });
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
  engine::InvocationPtr hand_over(RunNumber run, engine::ResponseMode mode = engine::ResponseMode::kBuffered,
                                  std::string payload = "{\"event\":1}") {
    auto invocation = std::make_shared<engine::Invocation>();
    invocation->request_id = "request-" + std::to_string(run);
    invocation->invoked_arn = "arn:f";
    invocation->payload = std::move(payload);
    invocation->mode = mode;
    invocation->trace_id = "Root=1-2-3";
    invocation->client_context = "{\"a\":1}";
    invocation->sink = told;
    on_loop([&] { channel->hand_over(run, invocation, base::system_clock().now() + 3s); });
    return invocation;
  }
  bool take_back(RunNumber run) {
    bool taken_back = false;
    on_loop([&] { taken_back = channel->take_back(run); });
    return taken_back;
  }
  void initialise(FramedInit init = {}) {
    on_loop([&] { channel->initialise(std::move(init)); });
    EXPECT_EQ(peer.receive().head.type, static_cast<std::uint32_t>(FrameType::kInit));
  }
  // Up to the first request for work.
  void serve() {
    initialise();
    peer.send(hello() + frame(FrameType::kReady, 0, ""));
    ASSERT_EQ(told->take(), "next");
  }
  // With run `number` handed over and received.
  void serve_run(RunNumber run, engine::ResponseMode mode = engine::ResponseMode::kBuffered) {
    serve();
    hand_over(run, mode);
    ASSERT_EQ(peer.receive().head.run, run);
  }
  void expect_broken(const std::string& bytes, const std::string& why) {
    peer.try_send(bytes);
    const std::string said = told->take();
    EXPECT_TRUE(said.starts_with("broken Runtime.ProtocolError") && said.find(why) != std::string::npos) << said;
    EXPECT_EQ(peer.receive().head.type, 0U) << "the server hears no more";
  }

  net::EventLoop loop{"test"};
  RuntimeApiLimits limits;
  Peer peer;
  std::shared_ptr<Told> told = std::make_shared<Told>();
  std::unique_ptr<FramedChannel> channel;
};

TEST_F(FramedChannelTest, InitCarriesVariablesAndTermsInTheDocumentedOrder) {
  on_loop([&] {
    channel->initialise({.replace_variables = true, .variables = {"A=1", "BB=two"}, .working_directory = "/var/task", .concurrency = 3});
  });
  const Got got = peer.receive();
  const std::string expected = number(1) + number(1) + number(3) + number(262144) + number(100) + number(0) + number(1U << 20U) +
                               number(0) + number(9) + "/var/task" + number(2) + number(3) + "A=1" + number(6) + "BB=two";
  EXPECT_EQ(got.body, expected);
  EXPECT_EQ(got.head.run, 0U);
}

TEST_F(FramedChannelTest, AnInvocationGoesOutAndItsAnswerComesBackAndAsksForTheNext) {
  serve();
  const std::int64_t before = base::epoch_ms(base::system_clock().wall_now());
  hand_over(7);
  const Got event = peer.receive();
  EXPECT_EQ(event.head.type, static_cast<std::uint32_t>(FrameType::kInvoke));
  EXPECT_EQ(event.head.run, 7U);
  std::int64_t deadline = 0;
  std::memcpy(&deadline, event.body.data(), sizeof deadline);
  EXPECT_GE(deadline, before + 2900);
  EXPECT_LE(deadline, before + 4000);
  EXPECT_EQ(event.body.substr(8), number(9) + number(5) + number(10) + number(7) + number(0) + "request-7" + "arn:f" + "Root=1-2-3" +
                                      "{\"a\":1}" + "{\"event\":1}");
  peer.send(frame(FrameType::kResponse, 7, "42"));
  EXPECT_EQ(told->take(), "7 answer 42");
  EXPECT_EQ(told->take(), "next");
}

TEST_F(FramedChannelTest, FramesMayComeInAnyPieces) {
  initialise();
  const std::string all = hello() + frame(FrameType::kReady, 0, "");
  for (const char c : all) peer.send(std::string(1, c));
  EXPECT_EQ(told->take(), "next");
  hand_over(1);
  (void)peer.receive();
  for (const char c : frame(FrameType::kResponse, 1, "\"in pieces\"")) peer.send(std::string(1, c));
  EXPECT_EQ(told->take(), "1 answer \"in pieces\"");
}

TEST_F(FramedChannelTest, LargeMessagesPassBothWays) {
  on_loop([&] { channel.reset(); });
  peer = Peer();
  limits.response_bytes = 6U << 20U;
  open();
  serve();
  hand_over(1, engine::ResponseMode::kBuffered, std::string(5U << 20U, 'e'));
  const Got event = peer.receive();
  EXPECT_EQ(event.body.size(), 8U + 20 + 9 + 5 + 10 + 7 + (5U << 20U));
  EXPECT_TRUE(event.body.ends_with("eeeee"));
  peer.send(frame(FrameType::kResponse, 1, std::string(6U << 20U, 'r')));
  EXPECT_EQ(told->take(), "1 answer 6291456 bytes");
}

TEST_F(FramedChannelTest, ErrorsAndFailedInitsAreReportedWithTheirDocuments) {
  serve_run(1);
  peer.send(frame(FrameType::kError, 1, error_body("Function.Mine", "{\"errorMessage\":\"no\"}")));
  EXPECT_EQ(told->take(), "1 failed Function.Mine {\"errorMessage\":\"no\"}");
  EXPECT_EQ(told->take(), "next");

  on_loop([&] { channel.reset(); });
  peer = Peer();
  open();
  initialise();
  peer.send(hello() + frame(FrameType::kInitError, 0, error_body("Runtime.ImportModuleError", "{}")));
  EXPECT_EQ(told->take(), "init-error Runtime.ImportModuleError {}");
}

TEST_F(FramedChannelTest, WhatIsTooLargeIsSkippedAndToldAndTheNextRunGoesOn) {
  serve_run(1);
  peer.send(frame(FrameType::kResponse, 1, std::string(100'000, 'x')));
  EXPECT_TRUE(told->take().starts_with("1 failed Function.ResponseSizeTooLarge"));
  EXPECT_EQ(told->take(), "next");
  const Got refused = peer.receive();
  EXPECT_EQ(refused.head.type, static_cast<std::uint32_t>(FrameType::kRefused));
  EXPECT_EQ(refused.body, "Exceeded maximum allowed payload size (100 bytes).");
  hand_over(2);
  EXPECT_EQ(peer.receive().head.run, 2U);
  peer.send(frame(FrameType::kError, 2, error_body("Function.Mine", std::string(5000, 'x'))));
  EXPECT_TRUE(told->take().starts_with("2 failed Function.ResponseSizeTooLarge"));
  EXPECT_EQ(told->take(), "next");
}

TEST_F(FramedChannelTest, SeveralRunsAnswerInAnyOrder) {
  serve();
  for (RunNumber run = 1; run <= 3; ++run) {
    hand_over(run);
    EXPECT_EQ(peer.receive().head.run, run);
  }
  peer.send(frame(FrameType::kResponse, 3, "3") + frame(FrameType::kError, 1, error_body("Function.One", "{}")) +
            frame(FrameType::kResponse, 2, "2"));
  EXPECT_EQ(told->take(), "3 answer 3");
  EXPECT_EQ(told->take(), "next");
  EXPECT_EQ(told->take(), "1 failed Function.One {}");
  EXPECT_EQ(told->take(), "next");
  EXPECT_EQ(told->take(), "2 answer 2");
}

TEST_F(FramedChannelTest, AStreamReachesTheSinkAndItsErrorTheOutcome) {
  serve_run(1, engine::ResponseMode::kStreaming);
  peer.send(frame(FrameType::kResponseBegin, 1, "text/plain\r\nX: y"));
  EXPECT_EQ(told->take(), "begin text/plain  X: y") << "nothing may add a header field";
  peer.send(frame(FrameType::kChunk, 1, "one"));
  EXPECT_EQ(told->take(), "piece one");
  peer.send(frame(FrameType::kChunk, 1, "two") + frame(FrameType::kEnd, 1, error_body("Function.Late", "{\"errorMessage\":\"x\"}")));
  EXPECT_EQ(told->take(), "piece two");
  EXPECT_EQ(told->take(), "1 failed Function.Late {\"errorMessage\":\"x\"}");
  EXPECT_EQ(told->take(), "next");
}

TEST_F(FramedChannelTest, ASlowReaderHoldsUpItsOwnRunOnly) {
  told->holding = true;
  serve_run(1, engine::ResponseMode::kStreaming);
  hand_over(2);
  (void)peer.receive();
  peer.send(frame(FrameType::kResponseBegin, 1, ""));
  EXPECT_EQ(told->take(), "begin application/octet-stream");
  const std::string piece(64U << 10U, 's');
  for (int i = 0; i < 4; ++i) peer.send(frame(FrameType::kChunk, 1, piece));
  EXPECT_TRUE(peer.silent()) << "no credit before the reader takes something";
  peer.send(frame(FrameType::kResponse, 2, "beside"));
  EXPECT_EQ(told->take(), "2 answer beside");
  EXPECT_EQ(told->take(), "next");
  EXPECT_EQ(told->streamed, piece.size()) << "one piece at a time";
  on_loop([&] { told->held(true); });
  on_loop([&] { told->held(true); });
  const Got credit = peer.receive();
  EXPECT_EQ(credit.head.type, static_cast<std::uint32_t>(FrameType::kCredit));
  EXPECT_EQ(credit.head.run, 1U);
  EXPECT_EQ(credit.body, number(256U << 10U));
  peer.send(frame(FrameType::kEnd, 1, ""));
  EXPECT_EQ(told->take(), "1 answer ");
}

TEST_F(FramedChannelTest, AnAnswerWaitsUntilTheReaderHasAllOfTheStream) {
  told->holding = true;
  serve_run(1, engine::ResponseMode::kStreaming);
  peer.send(frame(FrameType::kResponseBegin, 1, "t") + frame(FrameType::kChunk, 1, "last") + frame(FrameType::kEnd, 1, ""));
  EXPECT_EQ(told->take(), "begin t");
  EXPECT_EQ(told->take(), "piece last");
  on_loop([&] { EXPECT_TRUE(told->lines.empty()); });
  on_loop([&] { told->held(true); });
  EXPECT_EQ(told->take(), "1 answer ");
  EXPECT_EQ(told->take(), "next");
}

TEST_F(FramedChannelTest, ACallerThatLeftDoesNotStopTheFunction) {
  told->deaf = true;
  serve_run(1, engine::ResponseMode::kStreaming);
  peer.send(frame(FrameType::kResponseBegin, 1, "t") + frame(FrameType::kChunk, 1, "gone"));
  EXPECT_EQ(told->take(), "begin t");
  EXPECT_EQ(told->take(), "piece gone");
  for (int i = 0; i < 3; ++i) peer.send(frame(FrameType::kChunk, 1, std::string(60'000, 'x')));
  EXPECT_EQ(peer.receive().head.type, static_cast<std::uint32_t>(FrameType::kCredit));
  peer.send(frame(FrameType::kEnd, 1, ""));
  EXPECT_EQ(told->take(), "1 answer ");
}

TEST_F(FramedChannelTest, AStreamForABufferedCallIsCollectedWithinTheLimitOfAResponse) {
  serve_run(1);
  peer.send(frame(FrameType::kResponseBegin, 1, "t") + frame(FrameType::kChunk, 1, "a") + frame(FrameType::kChunk, 1, "b") +
            frame(FrameType::kEnd, 1, ""));
  EXPECT_EQ(told->take(), "1 answer ab");
  EXPECT_EQ(told->take(), "next");
  hand_over(2);
  (void)peer.receive();
  peer.send(frame(FrameType::kResponseBegin, 2, "t") + frame(FrameType::kChunk, 2, std::string(101, 'x')));
  EXPECT_TRUE(told->take().starts_with("2 failed Function.ResponseSizeTooLarge"));
  EXPECT_EQ(peer.receive().head.type, static_cast<std::uint32_t>(FrameType::kRefused));
  peer.send(frame(FrameType::kChunk, 2, "still on its way") + frame(FrameType::kEnd, 2, ""));
  EXPECT_EQ(told->take(), "next") << "free only after its END";
}

TEST_F(FramedChannelTest, AStreamBeyondTheLimitFails) {
  serve_run(1, engine::ResponseMode::kStreaming);
  peer.send(frame(FrameType::kResponseBegin, 1, "t"));
  EXPECT_EQ(told->take(), "begin t");
  for (int i = 0; i < 17; ++i) peer.send(frame(FrameType::kChunk, 1, std::string(64U << 10U, 'x')));
  EXPECT_TRUE(told->take().starts_with("1 failed Function.ResponseSizeTooLarge"));
}

TEST_F(FramedChannelTest, AStreamThatBreaksOffIsTruncated) {
  serve_run(1, engine::ResponseMode::kStreaming);
  peer.send(frame(FrameType::kResponseBegin, 1, "t") + frame(FrameType::kChunk, 1, "half") +
            frame(FrameType::kChunk, 1, "half").substr(0, 14));
  peer.close();
  EXPECT_EQ(told->take(), "begin t");
  EXPECT_EQ(told->take(), "piece half");
  EXPECT_TRUE(told->take().starts_with("1 failed Runtime.TruncatedResponse"));
}

TEST_F(FramedChannelTest, TheEndOfThePipeAloneIsLeftToTheProcess) {
  serve_run(1);
  peer.send(frame(FrameType::kResponse, 1, "whole").substr(0, 14));
  peer.close();
  std::this_thread::sleep_for(50ms);
  on_loop([&] { EXPECT_TRUE(told->lines.empty()); });
  hand_over(2);  // into the void
}

TEST_F(FramedChannelTest, AProgramThatDoesNotSpeakTheProtocolIsLeftAlone) {
  on_loop([&] { channel->initialise({}); });
  peer.send("echo something to a descriptor it found\n");
  std::this_thread::sleep_for(50ms);
  on_loop([&] {
    EXPECT_TRUE(told->lines.empty());
    EXPECT_FALSE(channel->ready());
  });
}

TEST_F(FramedChannelTest, WhoeverBreaksTheProtocolIsReportedOnceAndHeardNoMore) {
  struct Case {
    std::string bytes, why;
    bool running = true;
  };
  const std::string kResponse = frame(FrameType::kResponse, 1, "1");
  const std::string kBegin = frame(FrameType::kResponseBegin, 1, "t");
  const std::vector<Case> cases = {
      {hello(2), "version is 2", false},
      {frame(FrameType::kHello, 0, "short"), "HELLO", false},
      {hello() + hello(), "type 1", false},
      {hello() + frame(FrameType::kReady, 0, "x"), "READY", false},
      {hello() + frame(FrameType::kReady, 1, ""), "READY", false},
      {hello() + frame(FrameType::kInitError, 0, "x"), "INIT_ERROR", false},
      {hello() + frame(FrameType::kInitError, 0, number(99) + "x"), "INIT_ERROR", false},
      {hello() + frame(FrameType::kInitError, 0, std::string(2000, 'x')), "INIT_ERROR", false},
      {hello() + frame(FrameType::kResponse, 1, "1"), "run 1", false},
      {frame(FrameType::kReady, 0, ""), "READY"},
      {frame(FrameType::kInitError, 0, error_body("a", "{}")), "INIT_ERROR"},
      {frame(FrameType::kInvoke, 1, ""), "type 17"},
      {std::string(12, '\xff'), "type"},
      {frame(FrameType::kResponse, 2, "1"), "run 2"},
      {frame(FrameType::kResponse, 0, "1"), "run 0"},
      {kResponse + kResponse, "run 1"},
      {frame(FrameType::kError, 1, ""), "ERROR"},
      {frame(FrameType::kError, 1, number(5000) + std::string(50, 'x')), "ERROR"},
      {frame(FrameType::kChunk, 1, "1"), "out of order"},
      {frame(FrameType::kEnd, 1, ""), "out of order"},
      {frame(FrameType::kResponseBegin, 1, std::string(2000, 't')), "content type"},
      {kBegin + kBegin, "out of order"},
      {kBegin + kResponse, "out of order"},
      {kBegin + frame(FrameType::kEnd, 1, "x"), "END"},
      {kBegin + frame(FrameType::kChunk, 1, std::string(300'000, 'x')), "credit"},
  };
  for (const Case& each : cases) {
    on_loop([&] { channel.reset(); });
    peer = Peer();
    told->lines.clear();
    open();
    if (each.running) {
      serve_run(1);
    } else {
      initialise();
    }
    peer.try_send(each.bytes);
    std::string said;
    do said = told->take();
    while (said == "1 answer 1" || said == "next");
    EXPECT_TRUE(said.starts_with("broken Runtime.ProtocolError") && said.find(each.why) != std::string::npos)
        << said << " for " << each.why;
    EXPECT_EQ(peer.receive().head.type, 0U) << each.why;
    peer.try_send(kResponse);
    on_loop([&] { EXPECT_TRUE(told->lines.empty()) << each.why; });
  }
}

TEST_F(FramedChannelTest, OfARunThatWasGivenUpNothingIsReportedAndTheOthersGoOn) {
  serve();
  for (const RunNumber run : {1, 2, 3}) hand_over(run, run == 3 ? engine::ResponseMode::kStreaming : engine::ResponseMode::kBuffered);
  for (int i = 0; i < 3; ++i) (void)peer.receive();
  peer.send(frame(FrameType::kResponseBegin, 3, "text/plain") + frame(FrameType::kChunk, 3, "heard"));
  EXPECT_EQ(told->take(), "begin text/plain");
  EXPECT_EQ(told->take(), "piece heard");
  on_loop([&] {
    channel->give_up(1);
    channel->give_up(3);
    channel->give_up(9);
  });
  peer.send(frame(FrameType::kResponse, 1, "late") + frame(FrameType::kChunk, 3, "unheard") + frame(FrameType::kEnd, 3, "") +
            frame(FrameType::kResponse, 2, "in time"));
  EXPECT_EQ(told->take(), "2 answer in time");
  EXPECT_EQ(told->take(), "next");
  EXPECT_EQ(told->freed, (std::vector<RunNumber>{0, 2}));
  expect_broken(frame(FrameType::kResponse, 1, "again"), "not under way");
}

TEST_F(FramedChannelTest, AnErrorAtTheEndOfAStreamThatIsTooLargeIsCutLikeOthersAndTheNextRunGoesOn) {
  serve_run(1, engine::ResponseMode::kStreaming);
  peer.send(frame(FrameType::kResponseBegin, 1, "text/plain") + frame(FrameType::kChunk, 1, "part"));
  EXPECT_EQ(told->take(), "begin text/plain");
  EXPECT_EQ(told->take(), "piece part");
  peer.send(frame(FrameType::kEnd, 1, error_body("Big", std::string(5000, 'x'))));
  EXPECT_TRUE(told->take().starts_with("1 failed Function.ResponseSizeTooLarge"));
  EXPECT_EQ(told->take(), "next");
  EXPECT_EQ(peer.receive().head.type, static_cast<std::uint32_t>(FrameType::kRefused));
  hand_over(2);
  EXPECT_EQ(peer.receive().head.run, 2U);
}

// ---- what nobody took

TEST_F(FramedChannelTest, WhatAnEndedProcessNeverReadIsTakenBackWhole) {
  serve();
  const auto invocation = hand_over(1);
  EXPECT_TRUE(invocation->payload.empty() || invocation->payload == "{\"event\":1}");
  peer.die();
  EXPECT_TRUE(take_back(1));
  EXPECT_EQ(invocation->payload, "{\"event\":1}");
  EXPECT_FALSE(take_back(1)) << "once";
}

TEST_F(FramedChannelTest, WhatIsHandedToAProcessThatHasEndedIsTakenBack) {
  serve();
  peer.die();
  const std::string large(3U << 20U, 'x');
  const auto invocation = hand_over(1, engine::ResponseMode::kBuffered, large);
  EXPECT_TRUE(take_back(1));
  EXPECT_EQ(invocation->payload.size(), large.size());
}

TEST_F(FramedChannelTest, WhatWasReadInPartIsNotTakenBack) {
  serve();
  hand_over(1);
  peer.read_some(1);
  peer.die();
  EXPECT_FALSE(take_back(1));
}

TEST_F(FramedChannelTest, WhatSomebodyMayStillReadIsNotTakenBack) {
  serve();
  hand_over(1);
  peer.close();  // as a process of which a child holds the other end
  EXPECT_FALSE(take_back(1));
}

TEST_F(FramedChannelTest, AnEventLargerThanThePipeIsTakenBackWholeAsWell) {
  serve();
  const std::string large(3U << 20U, 'x');
  const auto invocation = hand_over(1, engine::ResponseMode::kBuffered, large);
  peer.die();
  EXPECT_TRUE(take_back(1));
  EXPECT_EQ(invocation->payload.size(), large.size());
}

TEST_F(FramedChannelTest, OfSeveralRunsThoseThatWereReadStay) {
  serve();
  hand_over(1);
  const auto second = hand_over(2, engine::ResponseMode::kBuffered, "second");
  peer.read_some(kFrameHeadBytes);
  peer.die();
  EXPECT_FALSE(take_back(1));
  EXPECT_TRUE(take_back(2));
  EXPECT_EQ(second->payload, "second");
}

TEST_F(FramedChannelTest, AnAnsweredRunIsNotTakenBack) {
  serve_run(1);
  peer.send(frame(FrameType::kResponse, 1, "done"));
  EXPECT_EQ(told->take(), "1 answer done");
  peer.die();
  EXPECT_FALSE(take_back(1));
}

TEST_F(FramedChannelTest, AProcessThatLeavesIsReportedAndNamesTheRunsItHasNotTaken) {
  serve();
  hand_over(1);
  const auto second = hand_over(2, engine::ResponseMode::kBuffered, "second");
  EXPECT_EQ(peer.receive().head.run, 1U);
  EXPECT_EQ(peer.receive().head.run, 2U);
  peer.send(frame(FrameType::kLeaving, 0, number(1)));
  EXPECT_EQ(told->take(), "leaving");
  const auto third = hand_over(3, engine::ResponseMode::kBuffered, "third");
  EXPECT_TRUE(peer.silent()) << "it would not be taken";
  peer.send(frame(FrameType::kError, 1, error_body("E", "{}")));
  EXPECT_EQ(told->take(), "1 failed Runtime.Unknown {}");
  EXPECT_TRUE(take_back(2));
  EXPECT_TRUE(take_back(3));
  EXPECT_EQ(second->payload, "second");
  EXPECT_EQ(third->payload, "third");
}

TEST_F(FramedChannelTest, NothingIsReportedOnceAbandoned) {
  told->holding = true;
  serve_run(1, engine::ResponseMode::kStreaming);
  peer.send(frame(FrameType::kResponseBegin, 1, "t") + frame(FrameType::kChunk, 1, "a"));
  EXPECT_EQ(told->take(), "begin t");
  EXPECT_EQ(told->take(), "piece a");
  on_loop([&] { channel->abandon(); });
  on_loop([&] { told->held(true); });
  peer.try_send(frame(FrameType::kEnd, 1, ""));
  on_loop([&] { channel.reset(); });
  on_loop([&] { told->held(true); });
  EXPECT_TRUE(told->lines.empty());
}

}  // namespace
}  // namespace mayfly::runtime
