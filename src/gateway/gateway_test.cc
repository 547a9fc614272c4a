// The parts of a function URL that are pure: address, event, answer, prelude, cross-origin rules.
#include "gateway/gateway.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/bytes.h"
#include "base/json.h"
#include "gateway/internal/cors.h"
#include "gateway/internal/url_address.h"
#include "gateway/internal/url_answer.h"
#include "gateway/internal/url_event.h"

namespace mayfly::gateway {
namespace {

namespace json = boost::json;

net::RequestHead request(std::string target, std::vector<std::pair<std::string, std::string>> headers, std::string method = "GET") {
  net::RequestHead head{.method = std::move(method), .target = std::move(target), .headers = {}};
  for (auto& [name, value] : headers) head.headers.add(name, value);
  return head;
}

const UrlRealm kRealm{.region = "us-east-1", .domain = "localhost"};

// --- Address

TEST(UrlAddress, ByHostWithAnyPort) {
  for (const char* host : {"abc123.lambda-url.us-east-1.localhost", "abc123.lambda-url.us-east-1.localhost:8080",
                           "ABC123.Lambda-URL.us-east-1.LOCALHOST:1", "abc123.lambda-url.us-east-1.localhost."}) {
    const auto address = find_url_address(request("/a%2Fb/c?x=1", {{"Host", host}}), kRealm);
    ASSERT_TRUE(address) << host;
    EXPECT_EQ(address->id, "abc123");
    EXPECT_EQ(address->path, "/a%2Fb/c");
    EXPECT_EQ(address->domain_name, "abc123.lambda-url.us-east-1.localhost");
  }
}

TEST(UrlAddress, ByPath) {
  const auto address_of = [](const char* target) { return find_url_address(request(target, {{"Host", "127.0.0.1:8080"}}), kRealm); };
  EXPECT_EQ(address_of("/lambda-url/abc/x/y?q=1")->path, "/x/y");
  EXPECT_EQ(address_of("/lambda-url/abc/")->path, "/");
  EXPECT_EQ(address_of("/lambda-url/abc")->path, "/");
  EXPECT_EQ(address_of("/lambda-url/abc?q")->path, "/");
  EXPECT_EQ(address_of("/lambda-url/abc//x")->path, "//x");
  EXPECT_EQ(address_of("/lambda-url/abc/")->domain_name, "abc.lambda-url.us-east-1.localhost");
}

// A signature for the second address, which folds them away, would prove the caller to the function of the first.
TEST(UrlAddress, NoDotsBehindAnIdInAPath) {
  for (const char* target : {"/lambda-url/victim/../attacker/p", "/lambda-url/victim/%2e%2E/attacker/p", "/lambda-url/victim/.%2e/attacker",
                             "/lambda-url/abc/./x", "/lambda-url/abc/x/.."}) {
    EXPECT_FALSE(find_url_address(request(target, {{"Host", "127.0.0.1:8080"}}), kRealm)) << target;
  }
  EXPECT_TRUE(find_url_address(request("/lambda-url/abc/..x/...", {{"Host", "127.0.0.1:8080"}}), kRealm));
}

TEST(UrlAddress, TheHostGoesFirst) {
  const auto address = find_url_address(request("/lambda-url/other/x", {{"Host", "abc.lambda-url.us-east-1.localhost"}}), kRealm);
  EXPECT_EQ(address->id, "abc");
  EXPECT_EQ(address->path, "/lambda-url/other/x");
}

TEST(UrlAddress, WhatIsNoUrlIsNone) {
  for (const char* host :
       {"", "localhost", "lambda-url.us-east-1.localhost", ".lambda-url.us-east-1.localhost", "a.b.lambda-url.us-east-1.localhost",
        "abc.lambda-url.eu-west-1.localhost", "abc.lambda-url.us-east-1.example.com", "a_c.lambda-url.us-east-1.localhost", "[::1]:80"})
    EXPECT_FALSE(find_url_address(request("/", {{"Host", host}}), kRealm)) << host;
  for (const char* target : {"/", "/lambda-url", "/lambda-url/", "/lambda-url//x", "/lambda-url/A/", "/lambda-url/a%2e/",
                             "/x/lambda-url/abc/", "/2015-03-31/functions"})
    EXPECT_FALSE(find_url_address(request(target, {{"Host", "localhost"}}), kRealm)) << target;
  const std::string longest(1000, 'a');
  EXPECT_FALSE(find_url_address(request("/lambda-url/" + longest + "/", {{"Host", "localhost"}}), kRealm));
}

// --- Event

base::WallTime moment() { return base::wall_from_epoch_ms(1'790'190'121'123); }

json::object event_of(const net::RequestHead& head, std::string body = {}, const access::Principal* caller = nullptr) {
  const auto address = find_url_address(head, kRealm);
  if (!address) return {};
  const std::string text = url_event({.head = head,
                                      .address = *address,
                                      .body = std::move(body),
                                      .peer = "192.0.2.7",
                                      .port = 8080,
                                      .request_id = "11111111-2222-3333-4444-555555555555",
                                      .trace_id = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0",
                                      .caller = caller,
                                      .time = moment()});
  auto parsed = base::parse_json(text);
  EXPECT_TRUE(parsed.ok()) << text;
  return parsed.ok() ? parsed->as_object() : json::object{};
}

constexpr const char* kHost = "abc.lambda-url.us-east-1.localhost:8080";

TEST(UrlEvent, HasPayloadFormatTwo) {
  const json::object event = event_of(request("/pa2%25Fth/1?q=query&multiQuery=foo&multiQuery=%2Fbar&empty",
                                              {{"Host", kHost},
                                               {"User-Agent", "test/echo"},
                                               {"ExTrA-HeadErs", "With WeiRd CapS"},
                                               {"Content-Type", "application/json"},
                                               {"Content-Length", "14"},
                                               {"Accept", "*/*"}},
                                              "POST"),
                                      R"({"foo": "bar"})");
  const json::value expected = json::parse(R"({
    "version": "2.0", "routeKey": "$default", "rawPath": "/pa2%25Fth/1", "rawQueryString": "q=query&multiQuery=foo&multiQuery=%2Fbar&empty",
    "headers": {"host": "abc.lambda-url.us-east-1.localhost:8080", "user-agent": "test/echo", "extra-headers": "With WeiRd CapS",
                "content-type": "application/json", "content-length": "14", "accept": "*/*",
                "x-amzn-trace-id": "Root=1-5759e988-bd862e3fe1be46a994272793",
                "x-forwarded-for": "192.0.2.7", "x-forwarded-port": "8080", "x-forwarded-proto": "http"},
    "queryStringParameters": {"q": "query", "multiQuery": "foo,/bar", "empty": ""},
    "requestContext": {
      "accountId": "anonymous", "apiId": "abc", "authentication": null,
      "domainName": "abc.lambda-url.us-east-1.localhost", "domainPrefix": "abc",
      "http": {"method": "POST", "path": "/pa2%Fth/1", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.7", "userAgent": "test/echo"},
      "requestId": "11111111-2222-3333-4444-555555555555", "routeKey": "$default", "stage": "$default",
      "time": "23/Sep/2026:19:02:01 +0000", "timeEpoch": 1790190121123},
    "body": "{\"foo\": \"bar\"}", "isBase64Encoded": false})");
  EXPECT_EQ(json::value(event), expected) << json::serialize(event);
}

TEST(UrlEvent, LeavesOutWhatTheRequestHasNot) {
  const json::object event = event_of(request("/", {{"Host", kHost}}));
  for (const char* absent : {"body", "cookies", "queryStringParameters", "pathParameters"}) EXPECT_FALSE(event.contains(absent)) << absent;
  EXPECT_EQ(event.at("isBase64Encoded"), false);
  EXPECT_EQ(event.at("rawQueryString"), "");
}

TEST(UrlEvent, HeadersOfThePlatformCannotBeForged) {
  const json::object event = event_of(request("/", {{"Host", kHost},
                                                    {"X-Forwarded-For", "10.0.0.1"},
                                                    {"X-FORWARDED-PROTO", "https"},
                                                    {"X-Forwarded-Host", "evil"},
                                                    {"X-Amzn-Trace-Id", "Root=forged"},
                                                    {"X-Amzn-RequestId", "forged"},
                                                    {"Connection", "keep-alive, X-Hop"},
                                                    {"X-Hop", "1"},
                                                    {"Transfer-Encoding", "chunked"},
                                                    {"X-Twice", "a"},
                                                    {"x-twice", "b, c"},
                                                    {"X-Odd", "caf\xe9"}}),
                                      "x");
  const json::object& headers = event.at("headers").as_object();
  EXPECT_EQ(headers.at("x-forwarded-for"), "192.0.2.7");
  EXPECT_EQ(headers.at("x-forwarded-proto"), "http");
  EXPECT_EQ(headers.at("x-amzn-trace-id"), "Root=1-5759e988-bd862e3fe1be46a994272793");
  EXPECT_EQ(headers.at("x-twice"), "a,b, c");
  EXPECT_EQ(headers.at("x-odd"), "caf\xef\xbf\xbd");
  EXPECT_EQ(headers.at("content-length"), "1");
  for (const char* absent : {"x-forwarded-host", "x-amzn-requestid", "connection", "x-hop", "transfer-encoding"})
    EXPECT_FALSE(headers.contains(absent)) << absent;
}

TEST(UrlEvent, CookiesAreAListOfTheirOwn) {
  const json::object event = event_of(request("/", {{"Host", kHost}, {"Cookie", "a=1; b=2;;"}, {"Cookie", "c=\"x\""}}));
  EXPECT_EQ(event.at("cookies"), json::parse(R"(["a=1","b=2","c=\"x\""])"));
  EXPECT_FALSE(event.at("headers").as_object().contains("cookie"));
}

TEST(UrlEvent, OnlyTextIsText) {
  const auto encoded = [](std::vector<std::pair<std::string, std::string>> headers, const std::string& body) {
    headers.emplace_back("Host", kHost);
    const json::object event = event_of(request("/", std::move(headers), "POST"), body);
    EXPECT_EQ(std::string(event.at("body").as_string()), event.at("isBase64Encoded").as_bool() ? base::base64_encode(body) : body);
    return event.at("isBase64Encoded").as_bool();
  };
  for (const char* type : {"text/plain", "TEXT/html; charset=utf-8", "application/json", "application/javascript", "application/xml",
                           "application/vnd.api+json", "image/svg+xml"})
    EXPECT_FALSE(encoded({{"Content-Type", type}}, "h\xc3\xa9\"\\\n")) << type;
  for (const char* type :
       {"application/octet-stream", "image/png", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", ""})
    EXPECT_TRUE(encoded({{"Content-Type", type}}, "text")) << type;
  EXPECT_TRUE(encoded({}, "text"));
  EXPECT_TRUE(encoded({{"Content-Type", "text/plain"}}, "\xff\xfe"));
  EXPECT_TRUE(encoded({{"Content-Type", "text/plain"}, {"Content-Encoding", "gzip"}}, "text"));
}

TEST(UrlEvent, OddEncodingsStayReadable) {
  const json::object event = event_of(request("/a%zz%4/%C3%A9%ff?%zz=%&&=x&a+b=c%20d+e&%ff", {{"Host", kHost}}));
  EXPECT_EQ(event.at("requestContext").at("http").at("path"), "/a%zz%4/\xc3\xa9\xef\xbf\xbd");
  EXPECT_EQ(event.at("queryStringParameters"), json::parse("{\"%zz\":\"%\",\"\":\"x\",\"a b\":\"c d e\",\"\xef\xbf\xbd\":\"\"}"));
}

TEST(UrlEvent, NamesWhoSigned) {
  access::Principal caller;
  caller.account = "000000000000";
  caller.arn = "arn:aws:sts::000000000000:assumed-role/worker/hello";
  caller.user_id = "AROAX:hello";
  caller.access_key = "ASIAX";
  const json::object event = event_of(request("/", {{"Host", kHost},
                                                    {"Authorization", "AWS4-HMAC-SHA256 ..."},
                                                    {"X-Amz-Security-Token", "secret"},
                                                    {"X-Amz-Date", "20260101T000000Z"}}),
                                      "", &caller);
  EXPECT_EQ(event.at("requestContext").at("accountId"), "000000000000");
  EXPECT_EQ(
      event.at("requestContext").at("authorizer").at("iam"),
      json::parse(R"({"accessKey":"ASIAX","accountId":"000000000000","callerId":"AROAX:hello","cognitoIdentity":null,"principalOrgId":null,
                            "userArn":"arn:aws:sts::000000000000:assumed-role/worker/hello","userId":"AROAX:hello"})"));
  const json::object& headers = event.at("headers").as_object();
  EXPECT_TRUE(headers.contains("x-amz-date"));
  EXPECT_FALSE(headers.contains("authorization"));
  EXPECT_FALSE(headers.contains("x-amz-security-token"));
  EXPECT_TRUE(event_of(request("/", {{"Host", kHost}, {"Authorization", "Bearer x"}})).at("headers").as_object().contains("authorization"));
}

TEST(UrlEvent, KeepsTheProofOfAPresignedUrlFromTheFunction) {
  access::Principal caller;
  const char* target = "/?a=1&X-Amz-Signature=5ec&X-Amz-%43redential=k&x-amz-security-token=t&X-Amz-Date=d&X-Amz-Meta=stays&b";
  const json::object event = event_of(request(target, {{"Host", kHost}}), "", &caller);
  EXPECT_EQ(event.at("rawQueryString"), "a=1&X-Amz-Meta=stays&b");
  EXPECT_EQ(event.at("queryStringParameters"), json::parse(R"({"a":"1","X-Amz-Meta":"stays","b":""})"));
  EXPECT_EQ(event_of(request("/?X-Amz-Signature=mine", {{"Host", kHost}})).at("rawQueryString"), "X-Amz-Signature=mine");
}

TEST(UrlEvent, TellsTimeAsAccessLogsDo) {
  EXPECT_EQ(format_log_time(base::wall_from_epoch_ms(0)), "01/Jan/1970:00:00:00 +0000");
  EXPECT_EQ(format_log_time(moment()), "23/Sep/2026:19:02:01 +0000");
}

// --- Answer

net::Response answer(const std::string& payload) {
  auto read = read_answer(payload);
  EXPECT_TRUE(read.ok()) << payload << ": " << (read.ok() ? "" : read.error().message());
  return read.ok() ? *std::move(read) : net::Response{.status = 0, .headers = {}, .body = {}};
}

TEST(UrlAnswer, AnyJsonIsABody) {
  for (const auto& [payload, body] :
       std::vector<std::pair<std::string, std::string>>{{R"({"hello": "world"})", R"({"hello":"world"})"},
                                                        {R"(["hello", 3, true])", R"(["hello",3,true])"},
                                                        {R"("hello")", "hello"},
                                                        {R"("a \"b\"")", "a \"b\""},
                                                        {"3", "3"},
                                                        {"3.1", "3.1"},
                                                        {"true", "true"},
                                                        {"null", "null"},
                                                        {R"({"body": "x  y\" ", "headers": {}})", R"({"body":"x  y\" ","headers":{}})"}}) {
    const net::Response response = answer(payload);
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, body);
    EXPECT_EQ(response.headers.get("content-type"), "application/json");
  }
}

TEST(UrlAnswer, AnObjectWithAStatusIsTheResponse) {
  const net::Response response = answer(
      R"({"statusCode": 201, "headers": {"Content-Type": "text/html", "X-Number": 5, "X-Share": 1.5, "X-Yes": true, "X-None": null,
          "Connection": "close", "Transfer-Encoding": "chunked"}, "cookies": ["a=1; HttpOnly", "b=2"], "body": "<p>"})");
  EXPECT_EQ(response.status, 201);
  EXPECT_EQ(response.body, "<p>");
  EXPECT_EQ(response.headers.get("content-type"), "text/html");
  EXPECT_EQ(response.headers.get("x-number"), "5");
  EXPECT_EQ(response.headers.get("x-share"), "1.5");
  EXPECT_EQ(response.headers.get("x-yes"), "true");
  EXPECT_FALSE(response.headers.contains("x-none"));
  EXPECT_FALSE(response.headers.contains("connection"));
  EXPECT_FALSE(response.headers.contains("transfer-encoding"));
  EXPECT_EQ(response.headers.find_all("set-cookie"), (std::vector<std::string_view>{"a=1; HttpOnly", "b=2"}));
}

TEST(UrlAnswer, TakesStatusAndBodyInTheirOtherForms) {
  EXPECT_EQ(answer(R"({"statusCode": "418", "body": "i'm a teapot"})").status, 418);
  EXPECT_EQ(answer(R"({"statusCode": 200.0})").status, 200);
  EXPECT_EQ(answer(R"({"statusCode": 204})").body, "");
  EXPECT_EQ(answer(R"({"statusCode": 200, "body": {"a": [1]}})").body, R"({"a":[1]})");
  EXPECT_EQ(answer(R"({"statusCode": 200, "body": null, "headers": null, "cookies": null, "isBase64Encoded": null})").body, "");
  EXPECT_EQ(answer(R"({"statusCode": 200, "body": "AAEC", "isBase64Encoded": true})").body, std::string("\0\1\2", 3));
}

TEST(UrlAnswer, WhatIsNoResponseIsAnError) {
  for (const char* payload : {R"({"statusCode": 99})",
                              R"({"statusCode": 199})",
                              R"({"statusCode": 600})",
                              R"({"statusCode": "abc"})",
                              R"({"statusCode": ""})",
                              R"({"statusCode": true})",
                              R"({"statusCode": []})",
                              R"({"statusCode": 1e300})",
                              R"({"statusCode": 18446744073709551615})",
                              R"({"statusCode": 200, "headers": []})",
                              R"({"statusCode": 200, "headers": {"a": []}})",
                              R"({"statusCode": 200, "headers": {"a b": "c"}})",
                              R"({"statusCode": 200, "headers": {"": "c"}})",
                              R"({"statusCode": 200, "headers": {"a": "b\r\nInjected: yes"}})",
                              R"({"statusCode": 200, "headers": {"a\r\nb": "c"}})",
                              R"({"statusCode": 200, "headers": {"a": "b\u0000c"}})",
                              R"({"statusCode": 200, "cookies": "a=1"})",
                              R"({"statusCode": 200, "cookies": [1]})",
                              R"({"statusCode": 200, "cookies": ["a=1\nb"]})",
                              R"({"statusCode": 200, "body": "***", "isBase64Encoded": true})",
                              R"({"statusCode": 200, "isBase64Encoded": "true"})"}) {
    const auto read = read_answer(payload);
    ASSERT_FALSE(read.ok()) << payload;
    EXPECT_EQ(read.error().code(), base::ErrorCode::kFunctionFailed);
  }
}

TEST(UrlAnswer, WhatIsNoJsonIsPassedOn) {
  EXPECT_EQ(answer("Hello, world!").body, "Hello, world!");
  EXPECT_EQ(answer("{broken").body, "{broken");
  EXPECT_EQ(answer("").body, "");
  EXPECT_EQ(answer(std::string(2000, '[')).body.size(), 2000U);
  EXPECT_EQ(answer("Hello").headers.get("content-type"), "application/octet-stream");
}

// --- Prelude

const std::string kPrelude = R"({"statusCode": 203, "headers": {"X-A": "b"}, "cookies": ["c=1"]})" + std::string(8, '\0');

TEST(Prelude, IsReadHoweverItIsCut) {
  const std::string body("\0body", 5);
  const std::string all = kPrelude + body;
  for (std::size_t size = 1; size <= all.size(); ++size) {
    PreludeReader reader;
    std::string got;
    bool complete = false;
    for (std::size_t at = 0; at < all.size(); at += size) {
      const std::string_view piece = std::string_view(all).substr(at, size);
      if (complete) {
        got += piece;
        continue;
      }
      std::string rest;
      const auto fed = reader.feed(piece, rest);
      ASSERT_TRUE(fed.ok()) << size;
      complete = *fed;
      if (complete) got += rest;
    }
    ASSERT_TRUE(complete);
    EXPECT_EQ(got, body) << size;
    EXPECT_EQ(reader.response().status, 203);
    EXPECT_EQ(reader.response().headers.get("x-a"), "b");
    EXPECT_EQ(reader.response().headers.get("set-cookie"), "c=1");
    EXPECT_EQ(reader.response().headers.get("content-type"), "application/octet-stream");
  }
}

TEST(Prelude, IsBounded) {
  PreludeReader reader;
  std::string rest;
  const std::string piece(1000, ' ');
  bool refused = false;
  for (int i = 0; i < 70 && !refused; ++i) refused = !reader.feed(piece, rest).ok();
  EXPECT_TRUE(refused);
  PreludeReader at_once;
  EXPECT_FALSE(at_once.feed(std::string(1U << 20U, ' ') + kPrelude, rest).ok());
  PreludeReader large_body;
  ASSERT_TRUE(large_body.feed(kPrelude + std::string(1U << 20U, 'x'), rest).value());
  EXPECT_EQ(rest.size(), 1U << 20U);
}

TEST(Prelude, WhatIsNoneIsAnError) {
  for (const std::string& text :
       {std::string("{}\0\0\0x\0\0\0\0\0", 12), std::string("not json") + std::string(8, '\0'), std::string("[]") + std::string(8, '\0'),
        R"({"statusCode": 7})" + std::string(8, '\0'), R"({"headers": {"a": "\n"}})" + std::string(8, '\0'), std::string(8, '\0')}) {
    PreludeReader reader;
    std::string rest;
    EXPECT_FALSE(reader.feed(text, rest).ok()) << text;
  }
}

TEST(Prelude, AStreamingFunctionBehindABufferedUrlIsUnderstood) {
  const net::Response response = answer(kPrelude + "whole");
  EXPECT_EQ(response.status, 203);
  EXPECT_EQ(response.body, "whole");
}

// --- Cross-origin rules

constexpr const char* kCors =
    R"({"AllowOrigins":["https://a.example","https://b.example"],"AllowMethods":["GET","POST"],"AllowHeaders":["content-type","x-key"],
                                  "ExposeHeaders":["x-out"],"MaxAge":300,"AllowCredentials":true})";

net::RequestHead preflight(const std::string& origin, const std::string& method = "POST") {
  return request("/", {{"Origin", origin}, {"Access-Control-Request-Method", method}, {"Access-Control-Request-Headers", "x-asked"}},
                 "OPTIONS");
}

TEST(CorsRules, AnswerPreflights) {
  const net::Response response = answer_preflight(Cors::parse(kCors), preflight("https://b.example"));
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "");
  EXPECT_EQ(response.headers.get("access-control-allow-origin"), "https://b.example");
  EXPECT_EQ(response.headers.get("access-control-allow-methods"), "GET,POST");
  EXPECT_EQ(response.headers.get("access-control-allow-headers"), "content-type,x-key");
  EXPECT_EQ(response.headers.get("access-control-max-age"), "300");
  EXPECT_EQ(response.headers.get("access-control-allow-credentials"), "true");
  EXPECT_EQ(response.headers.get("vary"), "Origin");
}

TEST(CorsRules, RefuseOriginsAndMethodsThatAreNotNamed) {
  for (const net::RequestHead& head : {preflight("https://c.example"), preflight("https://a.example", "DELETE"), preflight("")})
    EXPECT_TRUE(answer_preflight(Cors::parse(kCors), head).headers.empty());
}

TEST(CorsRules, AnyOriginIsAStarUnlessCredentialsAreAllowed) {
  const Cors open = Cors::parse(R"({"AllowOrigins":["*"],"AllowMethods":["*"],"AllowHeaders":["*"]})");
  const net::Response any = answer_preflight(open, preflight("https://x.example", "DELETE"));
  EXPECT_EQ(any.headers.get("access-control-allow-origin"), "*");
  EXPECT_EQ(any.headers.get("access-control-allow-methods"), "*");
  EXPECT_EQ(any.headers.get("access-control-allow-headers"), "*");
  EXPECT_FALSE(any.headers.contains("access-control-max-age"));
  const Cors known = Cors::parse(R"({"AllowOrigins":["*"],"AllowMethods":["*"],"AllowHeaders":["*"],"AllowCredentials":true})");
  const net::Response one = answer_preflight(known, preflight("https://x.example", "DELETE"));
  EXPECT_EQ(one.headers.get("access-control-allow-origin"), "https://x.example");
  EXPECT_EQ(one.headers.get("access-control-allow-methods"), "DELETE");
  EXPECT_EQ(one.headers.get("access-control-allow-headers"), "x-asked");
}

TEST(CorsRules, ReplaceWhatTheFunctionSaid) {
  net::Headers answer;
  answer.add("access-control-allow-origin", "*");
  answer.add("Access-Control-Allow-Origin", "https://other");
  answer.add("Vary", "Accept");
  apply_cors(Cors::parse(kCors), request("/", {{"Origin", "https://a.example"}}), answer);
  EXPECT_EQ(answer.find_all("access-control-allow-origin"), (std::vector<std::string_view>{"https://a.example"}));
  EXPECT_EQ(answer.find_all("vary"), (std::vector<std::string_view>{"Accept", "Origin"}));
  EXPECT_EQ(answer.get("access-control-expose-headers"), "x-out");
  net::Headers untouched;
  untouched.add("Access-Control-Allow-Origin", "*");
  apply_cors(Cors::parse(""), request("/", {{"Origin", "https://a.example"}}), untouched);
  apply_cors(Cors::parse(kCors), request("/", {}), untouched);
  apply_cors(Cors::parse(kCors), request("/", {{"Origin", "https://c.example"}}), untouched);
  EXPECT_EQ(untouched.get("access-control-allow-origin"), "*");
  EXPECT_EQ(untouched.fields().size(), 1U);
}

TEST(CorsRules, AreOffUntilConfigured) {
  for (const char* text : {"", "{}", "null", "[]", "broken"}) EXPECT_FALSE(Cors::parse(text).configured()) << text;
  EXPECT_TRUE(Cors::parse(R"({"AllowOrigins":[]})").configured());
  EXPECT_TRUE(is_preflight(preflight("https://a.example")));
  EXPECT_FALSE(is_preflight(request("/", {{"Origin", "x"}}, "OPTIONS")));
  EXPECT_FALSE(is_preflight(request("/", {{"Origin", "x"}, {"Access-Control-Request-Method", "GET"}}, "GET")));
}

}  // namespace
}  // namespace mayfly::gateway
