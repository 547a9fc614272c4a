#include "gateway/internal/url_event.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <chrono>
#include <cstdio>
#include <optional>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/json.h"

namespace mayfly::gateway {
namespace {

namespace json = boost::json;

constexpr std::array<std::string_view, 8> kOfTheConnection = {"connection", "keep-alive",        "proxy-connection", "te",
                                                              "trailer",    "transfer-encoding", "upgrade",          "expect"};

std::string_view trim(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

// Calls `take` with each part between the separators.
template <typename Take>
void split(std::string_view text, char separator, Take take) {
  while (true) {
    const std::size_t end = text.find(separator);
    take(text.substr(0, end));
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
  }
}

// The names that the Connection field makes the connection's own.
std::vector<std::string> of_the_connection(const net::Headers& headers) {
  std::vector<std::string> names;
  for (const std::string_view value : headers.find_all("connection")) {
    split(value, ',', [&names](std::string_view name) { names.push_back(net::to_lower(trim(name))); });
  }
  return names;
}

// Headers that speak for the platform, which a client could only forge; and the proof of who calls, which is no business of
// the function's.
bool is_kept_back(std::string_view name, bool signed_request) {
  if (name == "cookie" || name.starts_with("x-amzn-") || name.starts_with("x-forwarded-")) return true;
  return signed_request && (name == "authorization" || name == "x-amz-security-token");
}

void append_joined(json::object& object, std::string_view name, std::string value) {
  value = base::valid_utf8(std::move(value));
  json::value* known = object.if_contains(name);
  if (known == nullptr) {
    object[name] = value;
  } else {
    known->get_string().append(",").append(value);
  }
}

std::string trace_root(const std::string& trace_id) { return trace_id.substr(0, trace_id.find(';')); }

json::object headers_of(const UrlRequest& request, const json::storage_ptr& storage) {
  json::object headers(storage);
  const std::vector<std::string> dropped = of_the_connection(request.head.headers);
  for (const auto& [original, value] : request.head.headers.fields()) {
    const std::string name = net::to_lower(original);
    if (is_kept_back(name, request.caller != nullptr) || std::ranges::find(kOfTheConnection, name) != kOfTheConnection.end() ||
        std::ranges::find(dropped, name) != dropped.end())
      continue;
    append_joined(headers, name, value);
  }
  if (!request.body.empty() && !headers.contains("content-length")) headers["content-length"] = std::to_string(request.body.size());
  headers["x-amzn-trace-id"] = trace_root(request.trace_id);
  headers["x-forwarded-for"] = request.peer;
  headers["x-forwarded-port"] = std::to_string(request.port);
  headers["x-forwarded-proto"] = "http";
  return headers;
}

json::array cookies_of(const net::Headers& headers, const json::storage_ptr& storage) {
  json::array cookies(storage);
  for (const std::string_view value : headers.find_all("cookie")) {
    split(value, ';', [&cookies](std::string_view cookie) {
      if (const std::string_view one = trim(cookie); !one.empty()) cookies.emplace_back(base::valid_utf8(std::string(one)));
    });
  }
  return cookies;
}

// A '%' that begins no byte stays what it is.
std::string decode(std::string_view text, bool plus_is_space) {
  const auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0) {
      out += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else {
      out += plus_is_space && text[i] == '+' ? ' ' : text[i];
    }
  }
  return base::valid_utf8(std::move(out));
}

// The query as the function sees it: what proved a signed caller (presigned URLs) is not for its eyes.
std::string shown_query(const UrlRequest& request) {
  const std::string_view query = request.head.query();
  if (request.caller == nullptr) return std::string(query);
  std::string shown;
  split(query, '&', [&shown](std::string_view item) {
    const std::string name = net::to_lower(decode(item.substr(0, item.find('=')), true));
    for (const char* proof : {"x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-signedheaders",
                              "x-amz-signature", "x-amz-security-token"}) {
      if (name == proof) return;
    }
    shown.append(shown.empty() ? "" : "&").append(item);
  });
  return shown;
}

json::object parameters_of(std::string_view query, const json::storage_ptr& storage) {
  json::object parameters(storage);
  split(query, '&', [&parameters](std::string_view item) {
    if (item.empty()) return;
    const std::size_t equals = item.find('=');
    const std::string_view value = equals == std::string_view::npos ? std::string_view{} : item.substr(equals + 1);
    append_joined(parameters, decode(item.substr(0, equals), true), decode(value, true));
  });
  return parameters;
}

json::object context_of(const UrlRequest& request, const json::storage_ptr& storage) {
  json::object context(storage);
  context["accountId"] = request.caller == nullptr ? "anonymous" : request.caller->account;
  context["apiId"] = request.address.id;
  context["authentication"] = nullptr;
  if (request.caller != nullptr) {
    const access::Principal& caller = *request.caller;
    context["authorizer"] = {{"iam",
                              {{"accessKey", caller.access_key},
                               {"accountId", caller.account},
                               {"callerId", caller.user_id},
                               {"cognitoIdentity", nullptr},
                               {"principalOrgId", nullptr},
                               {"userArn", caller.arn},
                               {"userId", caller.user_id}}}};
  }
  context["domainName"] = request.address.domain_name;
  context["domainPrefix"] = request.address.id;
  context["http"] = {{"method", request.head.method},
                     {"path", decode(request.address.path, false)},
                     {"protocol", "HTTP/1.1"},
                     {"sourceIp", request.peer},
                     {"userAgent", base::valid_utf8(std::string(request.head.headers.get("User-Agent")))}};
  context["requestId"] = request.request_id;
  context["routeKey"] = "$default";
  context["stage"] = "$default";
  context["time"] = format_log_time(request.time);
  context["timeEpoch"] = base::epoch_ms(request.time);
  return context;
}

bool is_text_type(std::string_view content_type) {
  const std::string type = net::to_lower(trim(content_type.substr(0, content_type.find(';'))));
  if (type.starts_with("text/") || type.ends_with("+json") || type.ends_with("+xml")) return true;
  return type == "application/json" || type == "application/javascript" || type == "application/xml";
}

// `text` is a JSON object; its last members are added without copying the body into a document first.
void append_body(std::string& text, const UrlRequest& request) {
  text.pop_back();
  const bool plain =
      request.body.empty() || (is_text_type(request.head.headers.get("Content-Type")) &&
                               !request.head.headers.contains("Content-Encoding") && base::valid_utf8(request.body) == request.body);
  if (!request.body.empty()) {
    text += ",\"body\":";
    text += plain ? base::json_quote(request.body) : "\"" + base::base64_encode(request.body) + "\"";
  }
  text += plain ? ",\"isBase64Encoded\":false}" : ",\"isBase64Encoded\":true}";
}

}  // namespace

std::string url_event(UrlRequest request) {
  std::array<unsigned char, 4096> room;  // for the parts of all but large events
  json::monotonic_resource parts(room.data(), room.size());
  const json::storage_ptr storage(&parts);
  json::object event(storage);
  event["version"] = "2.0";
  event["routeKey"] = "$default";
  event["rawPath"] = base::valid_utf8(request.address.path);
  const std::string query = shown_query(request);
  event["rawQueryString"] = base::valid_utf8(query);
  if (json::array cookies = cookies_of(request.head.headers, storage); !cookies.empty()) event["cookies"] = std::move(cookies);
  event["headers"] = headers_of(request, storage);
  if (json::object parameters = parameters_of(query, storage); !parameters.empty()) event["queryStringParameters"] = std::move(parameters);
  event["requestContext"] = context_of(request, storage);
  std::string text = json::serialize(event);
  append_body(text, request);
  return text;
}

std::string format_log_time(base::WallTime time) {
  constexpr std::array kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(std::chrono::floor<std::chrono::seconds>(time - day));
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), "%02u/%s/%04d:%02d:%02d:%02d +0000", static_cast<unsigned>(date.day()),
                kMonths[static_cast<unsigned>(date.month()) - 1], static_cast<int>(date.year()), static_cast<int>(clock.hours().count()),
                static_cast<int>(clock.minutes().count()), static_cast<int>(clock.seconds().count()));
  return text.data();
}

}  // namespace mayfly::gateway
