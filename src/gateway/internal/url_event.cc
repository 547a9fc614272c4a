#include "gateway/internal/url_event.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/json.h"

namespace mayfly::gateway {
namespace {

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

// Names and values in order, one entry for each name: values of one name are joined with a comma.
class Joined {
 public:
  void add(std::string name, std::string value) {
    value = base::valid_utf8(std::move(value));
    const auto known = std::ranges::find(entries_, name, &Entry::first);
    if (known == entries_.end()) {
      entries_.emplace_back(std::move(name), std::move(value));
    } else {
      known->second.append(",").append(value);
    }
  }
  [[nodiscard]] bool contains(std::string_view name) const { return std::ranges::find(entries_, name, &Entry::first) != entries_.end(); }
  [[nodiscard]] bool empty() const { return entries_.empty(); }
  using Entry = std::pair<std::string, std::string>;
  [[nodiscard]] const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
};

void append_quoted(std::string& out, std::string_view text) {
  unsigned special = 0;
  for (const char c : text) {
    special |=
        static_cast<unsigned>(static_cast<unsigned char>(c) < 0x20) | static_cast<unsigned>(c == '"') | static_cast<unsigned>(c == '\\');
  }
  if (special != 0) {
    out += base::json_quote(text);
    return;
  }
  out += '"';
  out += text;
  out += '"';
}

// A JSON object that is written as text, member by member: building a document of it first costs three times as much.
class ObjectText {
 public:
  // `name` needs no escape.
  ObjectText& text(std::string_view name, std::string_view value) {
    begin(name);
    append_quoted(text_, value);
    return *this;
  }
  // The same, `value` being JSON.
  ObjectText& raw(std::string_view name, std::string_view value) {
    begin(name);
    text_ += value;
    return *this;
  }
  ObjectText& all(const Joined& joined) {
    for (const auto& [name, value] : joined.entries()) {
      if (text_.size() > 1) text_ += ',';
      append_quoted(text_, name);
      text_ += ':';
      append_quoted(text_, value);
    }
    return *this;
  }
  void reserve(std::size_t bytes) { text_.reserve(bytes); }
  [[nodiscard]] std::string end() { return std::move(text_ += '}'); }

 private:
  void begin(std::string_view name) { text_.append(text_.size() == 1 ? "\"" : ",\"").append(name).append("\":"); }

  std::string text_ = "{";
};

std::string trace_root(const std::string& trace_id) { return trace_id.substr(0, trace_id.find(';')); }

std::string headers_of(const UrlRequest& request) {
  Joined headers;
  const std::vector<std::string> dropped = of_the_connection(request.head.headers);
  for (const auto& [original, value] : request.head.headers.fields()) {
    std::string name = net::to_lower(original);
    if (is_kept_back(name, request.caller != nullptr) || std::ranges::find(kOfTheConnection, name) != kOfTheConnection.end() ||
        std::ranges::find(dropped, name) != dropped.end())
      continue;
    headers.add(std::move(name), value);
  }
  if (!request.body.empty() && !headers.contains("content-length")) headers.add("content-length", std::to_string(request.body.size()));
  ObjectText text;
  text.reserve(512);
  return text.all(headers)
      .text("x-amzn-trace-id", trace_root(request.trace_id))
      .text("x-forwarded-for", request.peer)
      .text("x-forwarded-port", std::to_string(request.port))
      .text("x-forwarded-proto", "http")
      .end();
}

// A JSON list, or nothing where there is none.
std::string cookies_of(const net::Headers& headers) {
  std::string cookies;
  for (const std::string_view value : headers.find_all("cookie")) {
    split(value, ';', [&cookies](std::string_view cookie) {
      const std::string_view one = trim(cookie);
      if (!one.empty()) cookies.append(cookies.empty() ? "[" : ",").append(base::json_quote(base::valid_utf8(std::string(one))));
    });
  }
  return cookies.empty() ? cookies : cookies + "]";
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

Joined parameters_of(std::string_view query) {
  Joined parameters;
  split(query, '&', [&parameters](std::string_view item) {
    if (item.empty()) return;
    const std::size_t equals = item.find('=');
    const std::string_view value = equals == std::string_view::npos ? std::string_view{} : item.substr(equals + 1);
    parameters.add(decode(item.substr(0, equals), true), decode(value, true));
  });
  return parameters;
}

std::string authorizer_of(const access::Principal& caller) {
  return ObjectText()
      .raw("iam", ObjectText()
                      .text("accessKey", caller.access_key)
                      .text("accountId", caller.account)
                      .text("callerId", caller.user_id)
                      .raw("cognitoIdentity", "null")
                      .raw("principalOrgId", "null")
                      .text("userArn", caller.arn)
                      .text("userId", caller.user_id)
                      .end())
      .end();
}

std::string context_of(const UrlRequest& request) {
  ObjectText context;
  context.reserve(768);
  context.text("accountId", request.caller == nullptr ? "anonymous" : request.caller->account);
  context.text("apiId", request.address.id).raw("authentication", "null");
  if (request.caller != nullptr) context.raw("authorizer", authorizer_of(*request.caller));
  context.text("domainName", request.address.domain_name).text("domainPrefix", request.address.id);
  context.raw("http", ObjectText()
                          .text("method", request.head.method)
                          .text("path", decode(request.address.path, false))
                          .text("protocol", "HTTP/1.1")
                          .text("sourceIp", request.peer)
                          .text("userAgent", base::valid_utf8(std::string(request.head.headers.get("User-Agent"))))
                          .end());
  context.text("requestId", request.request_id).text("routeKey", "$default").text("stage", "$default");
  context.text("time", format_log_time(request.time)).raw("timeEpoch", std::to_string(base::epoch_ms(request.time)));
  return context.end();
}

bool is_text_type(std::string_view content_type) {
  const std::string type = net::to_lower(trim(content_type.substr(0, content_type.find(';'))));
  if (type.starts_with("text/") || type.ends_with("+json") || type.ends_with("+xml")) return true;
  return type == "application/json" || type == "application/javascript" || type == "application/xml";
}

void add_body(ObjectText& event, const UrlRequest& request) {
  const bool plain =
      request.body.empty() || (is_text_type(request.head.headers.get("Content-Type")) &&
                               !request.head.headers.contains("Content-Encoding") && base::valid_utf8(request.body) == request.body);
  if (!request.body.empty()) event.raw("body", plain ? base::json_quote(request.body) : "\"" + base::base64_encode(request.body) + "\"");
  event.raw("isBase64Encoded", plain ? "false" : "true");
}

}  // namespace

std::string url_event(UrlRequest request) {
  ObjectText event;
  event.reserve(2048 + request.body.size());
  const std::string query = shown_query(request);
  event.text("version", "2.0").text("routeKey", "$default");
  event.text("rawPath", base::valid_utf8(request.address.path)).text("rawQueryString", base::valid_utf8(query));
  if (const std::string cookies = cookies_of(request.head.headers); !cookies.empty()) event.raw("cookies", cookies);
  event.raw("headers", headers_of(request));
  if (const Joined parameters = parameters_of(query); !parameters.empty())
    event.raw("queryStringParameters", ObjectText().all(parameters).end());
  event.raw("requestContext", context_of(request));
  add_body(event, request);
  return event.end();
}

std::string format_log_time(base::WallTime time) {
  const std::string date = base::format_http_date(time);  // "Tue, 24 Nov 2026 08:12:31 GMT"
  return date.substr(5, 2) + "/" + date.substr(8, 3) + "/" + date.substr(12, 4) + ":" + date.substr(17, 8) + " +0000";
}

}  // namespace mayfly::gateway
