#include "runtime/extensions.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>

#include "net/http_client.h"
#include "net/http_server.h"

namespace mayfly::runtime {
namespace {

using namespace std::chrono_literals;

struct Told final : ExtensionEvents {
  void on_extensions_moved() override { ++moved; }
  void on_extension_fault(ExtensionFault fault) override { faults.set_value(std::move(fault)); }
  void on_subscribed(const Subscription&) override {}
  std::atomic<int> moved = 0;
  std::promise<ExtensionFault> faults;
};

class ExtensionsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop.start();
    auto listener = net::listen_tcp("127.0.0.1:0");
    ASSERT_TRUE(listener.ok());
    on_loop([&] {
      telemetry = std::make_unique<Telemetry>(loop.executor(), base::system_clock(), std::vector<base::UniqueFd>());
      ExtensionFacts facts{.external = {"outer", "second"},
                           .function_name = "f",
                           .function_version = "7",
                           .handler = "app.handler",
                           .account_id = "000000000000"};
      extensions = std::make_unique<Extensions>(loop.executor(), std::move(facts), told, *telemetry, base::system_clock());
      server = std::make_unique<net::HttpServer>(loop.executor(), std::move(*listener), net::ServerLimits{},
                                                 [this](net::Exchange& exchange) { return extensions->handle(exchange); });
      server->start();
      port = server->port();
    });
  }
  void TearDown() override {
    on_loop([&] {
      server.reset();
      extensions.reset();
      telemetry.reset();
    });
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
  net::Response call(const std::string& method, const std::string& path, const std::string& body, net::Headers headers) {
    net::ClientRequest request;
    request.method = method;
    request.url = "http://127.0.0.1:" + std::to_string(port) + path;
    request.headers = std::move(headers);
    request.body = body;
    request.timeout = 5s;
    auto answer = net::blocking_request(request);
    EXPECT_TRUE(answer.ok()) << answer.error().to_string();
    return answer.ok() ? *answer : net::Response{.status = 0, .headers = {}, .body = {}};
  }
  net::Response enrol(const std::string& name, const std::string& events, const std::string& features = {}) {
    net::Headers headers;
    headers.add("Lambda-Extension-Name", name);
    if (!features.empty()) headers.add("Lambda-Extension-Accept-Feature", features);
    return call("POST", "/2020-01-01/extension/register", "{\"events\":" + events + "}", headers);
  }
  static net::Headers as(const std::string& id) {
    net::Headers headers;
    headers.add("Lambda-Extension-Identifier", id);
    return headers;
  }
  net::Response next(const std::string& id) { return call("GET", "/2020-01-01/extension/event/next", "", as(id)); }
  // Asks for the next event and waits until that has arrived.
  std::future<net::Response> ask(const std::string& id) {
    const int before = told.moved;
    auto answer = std::async(std::launch::async, [this, id] { return next(id); });
    for (int i = 0; i < 500 && told.moved == before; ++i) std::this_thread::sleep_for(2ms);
    return answer;
  }
  std::string id_of(const net::Response& response) { return std::string(response.headers.get("Lambda-Extension-Identifier")); }

  net::EventLoop loop{"test"};
  Told told;
  std::uint16_t port = 0;
  std::unique_ptr<Telemetry> telemetry;
  std::unique_ptr<Extensions> extensions;
  std::unique_ptr<net::HttpServer> server;
};

TEST_F(ExtensionsTest, AnInitEndsWhenAllHaveRegisteredAndWait) {
  EXPECT_FALSE(extensions->registered());
  const net::Response outer = enrol("outer", R"(["INVOKE","SHUTDOWN"])", "somethingElse, accountId");
  EXPECT_EQ(outer.status, 200) << outer.body;
  EXPECT_EQ(outer.body, R"({"functionName":"f","functionVersion":"7","handler":"app.handler","accountId":"000000000000"})");
  EXPECT_EQ(enrol("outer", "[]").status, 403) << "once";
  EXPECT_FALSE(extensions->registered());
  const std::string second = id_of(enrol("second", R"(["SHUTDOWN"])"));
  EXPECT_EQ(second.size(), 36U);
  EXPECT_TRUE(extensions->registered());
  const net::Response inner = enrol("inner", R"(["INVOKE"])");
  EXPECT_EQ(inner.body.find("accountId"), std::string::npos);
  EXPECT_FALSE(extensions->ready());
  auto first_event = ask(id_of(outer));
  auto second_event = ask(second);
  EXPECT_FALSE(extensions->ready());
  auto inner_event = ask(id_of(inner));
  EXPECT_TRUE(extensions->ready());

  engine::Invocation invocation;
  invocation.request_id = "r1";
  invocation.invoked_arn = "arn:f";
  invocation.trace_id = "Root=1";
  on_loop([&] {
    extensions->close();
    extensions->invoke(invocation, base::system_clock().now() + 3s);
  });
  const net::Response event = first_event.get();
  EXPECT_EQ(event.status, 200);
  EXPECT_TRUE(event.headers.contains("Lambda-Extension-Event-Identifier"));
  EXPECT_TRUE(event.body.starts_with(R"({"eventType":"INVOKE","deadlineMs":)")) << event.body;
  EXPECT_NE(event.body.find(R"("requestId":"r1","invokedFunctionArn":"arn:f","tracing":{"type":"X-Amzn-Trace-Id","value":"Root=1"}})"),
            std::string::npos)
      << event.body;
  EXPECT_EQ(inner_event.get().status, 200);
  EXPECT_EQ(second_event.wait_for(50ms), std::future_status::timeout) << "it did not ask for INVOKE";
  EXPECT_FALSE(extensions->ready());
  auto again = ask(id_of(outer)), inner_again = ask(id_of(inner));
  EXPECT_TRUE(extensions->ready()) << "the one without INVOKE waits all the time";
  EXPECT_EQ(enrol("late", "[]").body,
            R"({"errorMessage":"Extension registration closed already","errorType":"Extension.RegistrationClosed"})");

  EXPECT_TRUE(extensions->wants_shutdown());
  on_loop([&] { extensions->shut_down(ShutdownReason::kSpindown, base::system_clock().now() + 2s); });
  const std::string last = again.get().body;
  EXPECT_TRUE(last.starts_with(R"({"eventType":"SHUTDOWN","shutdownReason":"spindown","deadlineMs":)")) << last;
  EXPECT_EQ(second_event.get().body.substr(0, 24), R"({"eventType":"SHUTDOWN",)");
  on_loop([&] {
    extensions->ended(1);
    extensions->ended(2);
    EXPECT_FALSE(extensions->wants_shutdown());
    extensions->invoke(invocation, base::system_clock().now() + 3s);
  });
  EXPECT_EQ(inner_again.get().status, 200);
}

TEST_F(ExtensionsTest, RefusalsSayWhyAsAwsDoes) {
  EXPECT_EQ(enrol("", "[]").body, R"({"errorMessage":"Empty extension name","errorType":"Extension.InvalidExtensionName"})");
  EXPECT_EQ(enrol("inner", R"(["SHUTDOWN"])").body,
            R"({"errorMessage":"SHUTDOWN: ShutdownEventNotSupportedForInternalExtension","errorType":"Extension.InvalidEventType"})");
  EXPECT_NE(enrol("outer", R"(["START"])").body.find("Extension.InvalidEventType"), std::string::npos);
  EXPECT_NE(enrol("outer", "7").body.find("InvalidRequestFormat"), std::string::npos);
  EXPECT_EQ(next("").body,
            R"({"errorMessage":"Missing Lambda-Extension-Identifier header","errorType":"Extension.MissingExtensionIdentifier"})");
  EXPECT_EQ(next("me").body,
            R"({"errorMessage":"Invalid Lambda-Extension-Identifier","errorType":"Extension.InvalidExtensionIdentifier"})");
  EXPECT_NE(next("00000000-0000-0000-0000-000000000000").body.find("Extension.UnknownExtensionIdentifier"), std::string::npos);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(enrol("inner" + std::to_string(i), "[]").status, 200);
  EXPECT_EQ(enrol("inner9", "[]").body, R"({"errorMessage":"Extension limit (10) reached","errorType":"Extension.TooManyExtensions"})");
  EXPECT_EQ(call("GET", "/2020-01-01/extension/nothing", "", {}).status, 404);
}

TEST_F(ExtensionsTest, AnErrorReportNamesTheExtensionAndItsOwnWords) {
  const std::string id = id_of(enrol("outer", "[]"));
  EXPECT_NE(call("POST", "/2020-01-01/extension/init/error", "{}", as(id)).body.find("Extension.MissingHeader"), std::string::npos);
  net::Headers headers = as(id);
  headers.add("Lambda-Extension-Function-Error-Type", "Extension.NoKey");
  EXPECT_EQ(call("POST", "/2020-01-01/extension/init/error", R"({"errorMessage":"no API key\nfound"})", headers).status, 202);
  const ExtensionFault fault = told.faults.get_future().get();
  EXPECT_EQ(fault.error_type, "Extension.InitError");
  EXPECT_EQ(fault.reported, "Extension.NoKey");
  EXPECT_EQ(fault.message, "outer: Extension.NoKey: no API key found");
  EXPECT_NE(next(id).body.find("Extension.InvalidExtensionState"), std::string::npos);
}

TEST_F(ExtensionsTest, SubscribingTakesARegisteredExtensionAnAcceptableRequestAndTheInit) {
  const std::string body =
      R"({"schemaVersion":"2022-12-13","types":["platform"],"destination":{"protocol":"HTTP","URI":"http://sandbox:8080"}})";
  EXPECT_EQ(call("PUT", "/2022-07-01/telemetry", body, {}).status, 403);
  const std::string id = id_of(enrol("outer", "[]"));
  EXPECT_EQ(call("PUT", "/2022-07-01/telemetry", "{}", as(id)).status, 400);
  EXPECT_EQ(call("PUT", "/2022-07-01/telemetry", body, as(id)).status, 400) << "no connector in this test";
  on_loop([&] { telemetry->close(); });
  EXPECT_NE(call("PUT", "/2022-07-01/telemetry", body, as(id)).body.find("Telemetry.SubscriptionClosed"), std::string::npos);
  EXPECT_NE(call("PUT", "/2020-08-15/logs", R"({"types":["platform"],"destination":{"protocol":"TCP","port":8080}})", as(id))
                .body.find("Logs.SubscriptionClosed"),
            std::string::npos);
}

}  // namespace
}  // namespace mayfly::runtime
