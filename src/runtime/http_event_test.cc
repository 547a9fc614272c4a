#include "runtime/internal/http_event.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/bytes.h"
#include "base/json.h"

namespace mayfly::runtime {
namespace {

engine::FunctionVersion version_with(std::map<std::string, std::string> variables) {
  engine::FunctionVersion version;
  version.function_name = "f";
  version.version = "$LATEST";
  version.config.environment = std::move(variables);
  return version;
}

EventRequest read(const std::string& payload, const HttpContract& contract = {}) {
  const engine::FunctionVersion version = version_with({});
  return request_of(payload, contract,
                    {.version = version,
                     .request_id = "id-1",
                     .invoked_arn = "arn:f",
                     .trace_id = "Root=1-2-3",
                     .client_context = {},
                     .log_stream = "stream",
                     .deadline_ms = 17});
}

TEST(HttpContract, is_asked_for_by_one_variable) {
  EXPECT_TRUE(wants_http_contract(version_with({{"MAYFLY_CONTRACT", "http"}}).config));
  EXPECT_FALSE(wants_http_contract(version_with({{"MAYFLY_CONTRACT", "HTTP"}}).config));
  EXPECT_FALSE(wants_http_contract(version_with({}).config));
}

TEST(HttpContract, reads_what_the_function_says_of_its_server) {
  const auto contract = http_contract(version_with({{"PORT", "3000"},
                                                    {"AWS_LWA_READINESS_CHECK_PATH", "health?deep=1"},
                                                    {"AWS_LWA_READINESS_CHECK_MIN_UNHEALTHY_STATUS", "400"},
                                                    {"AWS_LWA_REMOVE_BASE_PATH", "api/"},
                                                    {"AWS_LWA_ERROR_STATUS_CODES", "500,502-504"}})
                                          .config);
  ASSERT_TRUE(contract.ok());
  EXPECT_EQ(contract->port, 3000);
  EXPECT_EQ(contract->readiness_port, 3000);
  EXPECT_EQ(contract->readiness_path, "/health?deep=1");
  EXPECT_EQ(contract->base_path, "/api");
  EXPECT_TRUE(contract->healthy.contains(399) && !contract->healthy.contains(400));
  EXPECT_TRUE(contract->errors.contains(500) && !contract->errors.contains(501) && contract->errors.contains(504));
  EXPECT_EQ(http_contract(version_with({{"PORT", "1"}, {"AWS_LWA_PORT", "2"}}).config)->port, 2);
}

TEST(HttpContract, names_the_variable_that_cannot_be_used) {
  for (const auto& [name, value] : std::map<std::string, std::string>{{"PORT", "0"},
                                                                      {"AWS_LWA_PORT", "65536"},
                                                                      {"AWS_LWA_READINESS_CHECK_PATH", "/a b"},
                                                                      {"AWS_LWA_READINESS_CHECK_PROTOCOL", "grpc"},
                                                                      {"AWS_LWA_READINESS_CHECK_HEALTHY_STATUS", "200-"},
                                                                      {"AWS_LWA_ERROR_STATUS_CODES", "504-502"},
                                                                      {"AWS_LWA_PASS_THROUGH_PATH", "/\r\n"}}) {
    const auto contract = http_contract(version_with({{name, value}}).config);
    ASSERT_FALSE(contract.ok()) << name;
    EXPECT_EQ(contract.error().id(), "Runtime.InvalidHttpContract");
    EXPECT_NE(contract.error().message().find(name), std::string::npos);
  }
}

TEST(HttpEvent, becomes_the_request_it_stands_for) {
  const EventRequest made = read(R"({"version":"2.0","rawPath":"/a b?#é","rawQueryString":"x=1&y=%20","cookies":["a=1","b=2"],
    "headers":{"host":"h.example","content-type":"text/plain","connection":"close","content-length":"99","x-amzn-trace-id":"forged"},
    "requestContext":{"http":{"method":"PUT"}},"body":"aGk=","isBase64Encoded":true})");
  EXPECT_EQ(made.shape, EventShape::kFormat2);
  EXPECT_EQ(made.request.method, "PUT");
  EXPECT_EQ(made.request.url, "http://127.0.0.1:8080/a%20b%3F%23%C3%A9?x=1&y=%20");
  EXPECT_EQ(made.request.body, "hi");
  EXPECT_EQ(made.request.headers.get("host"), "h.example");
  EXPECT_EQ(made.request.headers.get("cookie"), "a=1; b=2");
  EXPECT_FALSE(made.request.headers.contains("connection") || made.request.headers.contains("content-length"));
  EXPECT_EQ(made.request.headers.find_all("x-amzn-trace-id"), std::vector<std::string_view>{"Root=1-2-3"});
  EXPECT_EQ(made.request.headers.get("lambda-runtime-deadline-ms"), "17");
  EXPECT_TRUE(base::check_json(made.request.headers.get("x-amzn-lambda-context")).ok());
}

TEST(HttpEvent, that_is_none_goes_to_the_pass_through_path_as_it_is) {
  HttpContract contract;
  contract.pass_through_path = "/queue";
  for (const std::string payload :
       {R"({"Records":[]})", "[1,2]", "not json", "", R"({"version":"2.0","requestContext":{"http":{"method":"G ET"}},"rawPath":"/"})",
        R"({"version":"2.0","requestContext":{"http":{"method":"GET"}},"body":"%%%","isBase64Encoded":true})",
        R"({"httpMethod":7,"requestContext":{}})", R"({"version":"2.0","requestContext":{"http":[]}})"}) {
    const EventRequest made = read(payload, contract);
    EXPECT_EQ(made.shape, EventShape::kOther) << payload;
    EXPECT_EQ(made.request.method, "POST");
    EXPECT_EQ(made.request.url, "http://127.0.0.1:8080/queue");
    EXPECT_EQ(made.request.body, payload);
  }
}

TEST(HttpEvent, loses_the_base_path_once_and_whole) {
  HttpContract contract;
  contract.base_path = "/api";
  const auto path = [&](const std::string& raw) {
    const std::string url =
        read(R"({"version":"2.0","rawPath":")" + raw + R"(","requestContext":{"http":{"method":"GET"}}})", contract).request.url;
    return url.substr(std::string("http://127.0.0.1:8080").size());
  };
  EXPECT_EQ(path("/api/api/x"), "/api/x");
  EXPECT_EQ(path("/apix"), "/apix");
  EXPECT_EQ(path("/api"), "/");
  EXPECT_EQ(path(""), "/");
}

TEST(HttpEvent, of_a_load_balancer_has_an_encoded_query) {
  const EventRequest made = read(R"({"httpMethod":"GET","path":"/","queryStringParameters":{"a":"%20b"},"requestContext":{"elb":{}}})");
  EXPECT_EQ(made.request.url, "http://127.0.0.1:8080/?a=%20b");
}

net::Response response(std::string body, std::vector<net::Headers::Field> fields) {
  net::Response made;
  made.body = std::move(body);
  for (auto& field : fields) made.headers.add(field.name, field.value);
  return made;
}

TEST(HttpAnswer, is_text_by_its_type_and_bytes_otherwise) {
  const auto encoded = [](const net::Response& of) { return answer_of(EventShape::kFormat2, of).ends_with(R"("isBase64Encoded":true})"); };
  EXPECT_FALSE(encoded(response("é", {{"Content-Type", "text/html; charset=utf-8"}})));
  EXPECT_FALSE(encoded(response("{}", {{"Content-Type", "application/problem+json"}})));
  EXPECT_FALSE(encoded(response("plain", {})));
  EXPECT_TRUE(encoded(response("plain", {{"Content-Type", "image/png"}})));
  EXPECT_TRUE(encoded(response("plain", {{"Content-Type", "text/html"}, {"Content-Encoding", "gzip"}})));
  EXPECT_TRUE(encoded(response("\xff", {{"Content-Type", "text/html"}})));
}

TEST(HttpAnswer, keeps_headers_and_cookies_apart) {
  const net::Response of = response("b", {{"X-A", "1"}, {"x-a", "2"}, {"Set-Cookie", "c=1"}, {"Set-Cookie", "d=2"}, {"Connection", "x"}});
  EXPECT_EQ(answer_of(EventShape::kFormat2, of),
            R"({"statusCode":200,"headers":{"x-a":"1,2"},"cookies":["c=1","d=2"],"body":"b","isBase64Encoded":false})");
  EXPECT_EQ(answer_of(EventShape::kFormat1, of),
            R"({"statusCode":200,"multiValueHeaders":{"x-a":["1","2"],"set-cookie":["c=1","d=2"]},"body":"b","isBase64Encoded":false})");
  EXPECT_EQ(answer_of(EventShape::kOther, of), "b");
  EXPECT_EQ(prelude_of(of), std::string(R"({"statusCode":200,"headers":{"x-a":"1,2"},"cookies":["c=1","d=2"]})") + std::string(8, '\0'));
}

}  // namespace
}  // namespace mayfly::runtime
