#include "runtime/telemetry.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <condition_variable>
#include <future>
#include <mutex>

#include "net/http_server.h"

namespace mayfly::runtime {
namespace {

using namespace std::chrono_literals;

TEST(TelemetrySubscription, TakesWhatAwsTakes) {
  const auto full = parse_subscription(TelemetryApi::kTelemetry,
                                       R"({"schemaVersion":"2025-01-29","types":["platform","function","platform"],
      "buffering":{"maxItems":1000,"maxBytes":262144,"timeoutMs":25},"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:8080/a?b=c"}})");
  ASSERT_TRUE(full.ok()) << full.error().to_string();
  EXPECT_EQ(full->port, 8080);
  EXPECT_EQ(full->path, "/a?b=c");
  EXPECT_EQ(full->items_max, 1000U);
  EXPECT_EQ(full->timeout, 25ms);
  EXPECT_EQ(full->types, (std::vector<std::string>{"platform", "function"}));
  const auto lines = parse_subscription(TelemetryApi::kLogs, R"({"types":["extension"],"destination":{"protocol":"TCP","port":4000}})");
  ASSERT_TRUE(lines.ok()) << lines.error().to_string();
  EXPECT_FALSE(lines->http);
  EXPECT_EQ(lines->schema, "2020-08-15");
  EXPECT_EQ(lines->bytes_max, 262'144U);
}

TEST(TelemetrySubscription, RefusesWhatIsOutsideTheLimits) {
  const auto says = [](const std::string& types, const std::string& destination, const std::string& more = "") {
    const auto parsed = parse_subscription(
        TelemetryApi::kTelemetry, R"({"schemaVersion":"2022-07-01","types":)" + types + ",\"destination\":" + destination + more + "}");
    return parsed.ok() ? std::string("accepted") : parsed.error().message();
  };
  const std::string good = R"({"protocol":"HTTP","URI":"http://sandbox.localdomain:8080"})";
  EXPECT_EQ(says(R"(["platform"])", good), "accepted");
  EXPECT_NE(says("[]", good), "accepted");
  EXPECT_NE(says(R"(["everything"])", good), "accepted");
  for (const char* uri : {"https://sandbox:1", "http://example.com:80", "http://sandbox:9001/", "http://sandbox:70000", "http://sandbox:/",
                          "x", "http://sandbox:80/ x"}) {
    EXPECT_NE(says(R"(["platform"])", R"({"protocol":"HTTP","URI":")" + std::string(uri) + "\"}"), "accepted") << uri;
  }
  EXPECT_NE(says(R"(["platform"])", R"({"protocol":"TCP","port":0})"), "accepted");
  EXPECT_NE(says(R"(["platform"])", R"({"protocol":"UDP","port":1})"), "accepted");
  for (const char* buffering : {R"({"maxItems":999})", R"({"maxItems":10001})", R"({"maxBytes":262143})", R"({"maxBytes":1048577})",
                                R"({"timeoutMs":24})", R"({"timeoutMs":30001})", R"({"timeoutMs":"x"})", "7"}) {
    EXPECT_NE(says(R"(["platform"])", good, ",\"buffering\":" + std::string(buffering)), "accepted") << buffering;
  }
  EXPECT_FALSE(parse_subscription(TelemetryApi::kTelemetry, R"({"schemaVersion":"2021-03-18"})").ok());
  EXPECT_FALSE(parse_subscription(TelemetryApi::kTelemetry, "not json").ok());
  EXPECT_FALSE(parse_subscription(TelemetryApi::kTelemetry, "[]").ok());
}

// A listener as an extension would have it.
class TelemetryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop.start();
    auto listener = net::listen_tcp("127.0.0.1:0");
    ASSERT_TRUE(listener.ok());
    on_loop([&] {
      server = std::make_unique<net::HttpServer>(loop.executor(), std::move(*listener), net::ServerLimits{},
                                                 [this](net::Exchange& exchange) { return take(exchange); });
      server->start();
      port = server->port();
      std::vector<base::UniqueFd> connectors;
      for (int i = 0; i < 2; ++i) connectors.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      telemetry = std::make_unique<Telemetry>(loop.executor(), base::system_clock(), std::move(connectors),
                                              std::vector<std::string>{"127.0.0.2", "127.0.0.1"});
    });
  }
  void TearDown() override {
    on_loop([&] {
      telemetry.reset();
      server.reset();
    });
    loop.stop();
  }
  net::Awaitable<void> take(net::Exchange& exchange) {
    auto body = co_await exchange.read_all(4U << 20U);
    {
      const std::lock_guard lock(mutex);
      bodies.push_back(body.ok() ? *body : "(broken)");
    }
    changed.notify_all();
    net::Response response;
    response.status = status;
    (void)co_await exchange.respond(std::move(response));
  }
  std::string body() {
    std::unique_lock lock(mutex);
    if (!changed.wait_for(lock, 5s, [this] { return !bodies.empty(); })) return "(nothing)";
    std::string first = bodies.front();
    bodies.erase(bodies.begin());
    return first;
  }
  void on_loop(const std::function<void()>& work) {
    std::promise<void> done;
    loop.post([&] {
      work();
      done.set_value();
    });
    done.get_future().wait();
  }
  Subscription subscription(const std::string& schema, base::Duration timeout = 25ms) const {
    Subscription made;
    made.extension = "x";
    made.schema = schema;
    made.api = schema < "2022" ? TelemetryApi::kLogs : TelemetryApi::kTelemetry;
    made.kinds = {TelemetryKind::kPlatform, TelemetryKind::kFunction};
    made.types = {"platform", "function"};
    made.port = port;
    made.timeout = timeout;
    return made;
  }
  net::EventLoop loop{"test"};
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> bodies;
  std::atomic<int> status = 200;
  std::uint16_t port = 0;
  std::unique_ptr<net::HttpServer> server;
  std::unique_ptr<Telemetry> telemetry;
};

TEST_F(TelemetryTest, DeliversWhatWasBeforeAndAfterTheSubscriptionInOrder) {
  on_loop([&] {
    telemetry->platform("platform.initStart", R"({"phase":"init"})");
    EXPECT_TRUE(telemetry->subscribe(subscription("2022-12-13")).ok());
    EXPECT_TRUE(telemetry->subscribe(subscription("2022-12-13")).ok()) << "idempotent";
    telemetry->printed(TelemetryKind::kFunction, "{\"level\":\"INFO\"}\n", std::nullopt, true);
    telemetry->printed(TelemetryKind::kFunction, "plain \xff\n", std::nullopt, true);
    telemetry->printed(TelemetryKind::kExtension, "not asked for\n", std::nullopt, false);
    telemetry->close();
    EXPECT_EQ(telemetry->subscribe(subscription("2022-07-01")).error().code(), base::ErrorCode::kConflict);
  });
  const std::string first = body();
  EXPECT_TRUE(first.starts_with(R"([{"time":"20)")) << first;
  const std::size_t start = first.find(R"("type":"platform.initStart","record":{"phase":"init"}})");
  const std::size_t subscribed =
      first.find(R"("type":"platform.telemetrySubscription","record":{"name":"x","state":"Subscribed","types":["platform","function"]}})");
  const std::size_t object = first.find(R"("type":"function","record":{"level":"INFO"}})");
  const std::size_t plain = first.find("\"type\":\"function\",\"record\":\"plain \xef\xbf\xbd\\n\"}]");
  EXPECT_TRUE(start < subscribed && subscribed < object && object < plain && plain != std::string::npos) << first;
  on_loop([&] { telemetry->platform("platform.start", "{}"); });
  EXPECT_NE(body().find("platform.start"), std::string::npos) << "the same socket connects again";
}

TEST_F(TelemetryTest, TheLogsApiGetsItsOwnRecords) {
  on_loop([&] {
    EXPECT_TRUE(telemetry->subscribe(subscription("2020-08-15")).ok());
    telemetry->platform("platform.initReport", "{}", Telemetry::Audience::kTelemetryOnly);
    telemetry->platform("platform.runtimeDone", "{}");
    telemetry->platform("platform.end", "{}", Telemetry::Audience::kLogsOnly);
    telemetry->printed(TelemetryKind::kFunction, "{\"a\":1}\n", std::nullopt, true);
  });
  const std::string first = body();
  EXPECT_NE(first.find("platform.logsSubscription"), std::string::npos) << first;
  EXPECT_NE(first.find("platform.end"), std::string::npos) << first;
  EXPECT_NE(first.find(R"("record":"{\"a\":1}\n")"), std::string::npos) << first;
  EXPECT_EQ(first.find("initReport"), std::string::npos) << first;
  EXPECT_EQ(first.find("runtimeDone"), std::string::npos) << first;
}

TEST_F(TelemetryTest, AFullBufferDropsCountsAndSaysSo) {
  on_loop([&] {
    EXPECT_TRUE(telemetry->subscribe(subscription("2022-07-01", 50ms)).ok());
    telemetry->set_frozen(true);
    for (int i = 0; i < 20; ++i) telemetry->printed(TelemetryKind::kFunction, std::string(20'000, 'x'), std::nullopt, false);
    EXPECT_TRUE(telemetry->pending());
  });
  on_loop([&] { telemetry->set_frozen(false); });
  const std::string first = body();
  EXPECT_LT(first.size(), 300'000U);
  EXPECT_TRUE(first.find("\"type\":\"platform.logsDropped\"") < 100) << first.substr(0, 200);
  EXPECT_NE(first.find("\"droppedRecords\":7"), std::string::npos) << first.substr(0, 200);
}

TEST_F(TelemetryTest, LinesGoOverOneConnectionThatIsMadeAgain) {
  auto listener = net::listen_tcp("127.0.0.1:0");
  ASSERT_TRUE(listener.ok());
  (void)::fcntl(listener->get(), F_SETFL, 0);  // blocking, for this test's own accepts
  sockaddr_in address{};
  socklen_t size = sizeof address;
  ASSERT_EQ(::getsockname(listener->get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  const auto accept_lines = [&](const std::string& until) {
    const base::UniqueFd peer(::accept(listener->get(), nullptr, nullptr));
    std::string text;
    char bytes[4096];
    while (text.find(until) == std::string::npos) {
      const ssize_t got = ::recv(peer.get(), bytes, sizeof bytes, 0);
      if (got <= 0) break;
      text.append(bytes, static_cast<std::size_t>(got));
    }
    return text;
  };
  on_loop([&] {
    Subscription lines = subscription("2022-07-01");
    lines.http = false;
    lines.port = ntohs(address.sin_port);
    EXPECT_TRUE(telemetry->subscribe(lines).ok());
    telemetry->platform("platform.start", R"({"n":1})");
  });
  const std::string first = accept_lines(R"({"n":1}})");
  EXPECT_EQ(std::count(first.begin(), first.end(), '\n'), 2) << first;
  EXPECT_NE(first.find("platform.telemetrySubscription"), std::string::npos) << first;
  std::string second;
  for (int i = 2; i < 5 && second.empty(); ++i) {  // the first write after the peer has closed may seem to go well
    on_loop([&] { telemetry->platform("platform.start", R"({"n":2})"); });
    pollfd waiting{.fd = listener->get(), .events = POLLIN, .revents = 0};
    if (::poll(&waiting, 1, 1000) == 1) second = accept_lines(R"({"n":2}})");
  }
  EXPECT_NE(second.find(R"({"n":2}})"), std::string::npos);
}

TEST_F(TelemetryTest, AListenerThatFailsIsTriedAgainAndFlushEndsInTime) {
  status = 500;
  std::promise<void> done;
  on_loop([&] {
    EXPECT_TRUE(telemetry->subscribe(subscription("2022-07-01", 30s)).ok());
    telemetry->flush(100ms, [&] { done.set_value(); });
  });
  EXPECT_EQ(done.get_future().wait_for(3s), std::future_status::ready);
  const std::string first = body();
  EXPECT_EQ(body(), first);
  status = 200;
  EXPECT_EQ(body(), first);
  std::promise<void> flushed;
  on_loop([&] { telemetry->flush(3s, [&] { flushed.set_value(); }); });
  flushed.get_future().wait();
  on_loop([&] { EXPECT_FALSE(telemetry->pending()); });
}

}  // namespace
}  // namespace mayfly::runtime
