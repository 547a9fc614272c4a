#include "gateway/internal/url_answer.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <charconv>
#include <optional>

#include "base/bytes.h"

namespace mayfly::gateway {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::size_t kDepthMax = 512;  // of what is only passed on
constexpr std::size_t kSeparatorBytes = 8;

Error wrong(std::string what) { return Error(ErrorCode::kFunctionFailed, "the function's answer " + std::move(what)); }

std::string text_of(const json::string& text) { return {text.data(), text.size()}; }

// A header's or a body's value that is not a string: numbers and truth values are what they look like.
std::optional<std::string> plain_text(const json::value& value) {
  if (const auto* text = value.if_string()) return text_of(*text);
  if (value.is_bool() || value.is_int64() || value.is_uint64()) return json::serialize(value);
  if (value.is_double()) {
    std::array<char, 32> digits{};
    return std::string(digits.data(), std::to_chars(digits.begin(), digits.end(), value.get_double()).ptr);
  }
  return std::nullopt;
}

// RFC 9110: visible characters and white space, nothing that ends a field.
bool is_field_value(std::string_view value) {
  return std::ranges::all_of(value, [](char c) { return c == '\t' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f); });
}

bool is_token(std::string_view name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || std::string_view("!#$%&'*+-.^_`|~").contains(c);
  });
}

// What only the connection can say of itself.
bool is_of_the_connection(std::string_view name) {
  constexpr std::array<std::string_view, 8> kNames = {"connection", "keep-alive", "proxy-connection", "te", "trailer",
                                                      "upgrade",    "date",       "transfer-encoding"};
  return std::ranges::any_of(kNames, [name](std::string_view known) { return net::equal_ignoring_case(known, name); });
}

Result<void> add_header(net::Headers& headers, std::string name, std::string value) {
  if (!is_token(name) || !is_field_value(value)) return wrong("has a header that HTTP does not allow");
  if (!is_of_the_connection(name)) headers.add(std::move(name), std::move(value));
  return {};
}

Result<int> read_status(const json::value& value) {
  std::int64_t status = 0;
  if (const auto* text = value.if_string()) {  // "418" counts, as on AWS
    const auto [end, ec] = std::from_chars(text->data(), text->data() + text->size(), status);
    if (ec != std::errc() || end != text->data() + text->size()) return wrong("has a statusCode that is no number");
  } else if (value.is_int64()) {
    status = value.get_int64();
  } else if (value.is_double() && value.get_double() >= 200 && value.get_double() <= 599) {
    status = static_cast<std::int64_t>(value.get_double());
  }
  if (status < 200 || status > 599) return wrong("has a statusCode outside 200 to 599");
  return static_cast<int>(status);
}

Result<void> read_cookies(const json::value& value, net::Headers& headers) {
  if (value.is_null()) return {};
  const auto* list = value.if_array();
  if (list == nullptr) return wrong("has cookies that are no list");
  for (const json::value& cookie : *list) {
    if (!cookie.is_string()) return wrong("has a cookie that is no string");
    MAYFLY_TRY(add_header(headers, "Set-Cookie", text_of(cookie.get_string())));
  }
  return {};
}

// statusCode, headers and cookies.
Result<net::Response> read_head(const json::object& answer) {
  net::Response response;
  if (const json::value* status = answer.if_contains("statusCode"); status != nullptr && !status->is_null()) {
    MAYFLY_ASSIGN(response.status, read_status(*status));
  }
  if (const json::value* headers = answer.if_contains("headers"); headers != nullptr && !headers->is_null()) {
    if (!headers->is_object()) return wrong("has headers that are no object");
    for (const auto& header : headers->get_object()) {
      if (header.value().is_null()) continue;
      auto value = plain_text(header.value());
      if (!value) return wrong("has a header whose value is a list or an object");
      MAYFLY_TRY(add_header(response.headers, std::string(header.key()), *std::move(value)));
    }
  }
  if (const json::value* cookies = answer.if_contains("cookies")) MAYFLY_TRY(read_cookies(*cookies, response.headers));
  return response;
}

void default_type(net::Headers& headers, std::string_view type) {
  if (!headers.contains("Content-Type")) headers.add("Content-Type", std::string(type));
}

Result<net::Response> read_response(const json::object& answer) {
  MAYFLY_ASSIGN(net::Response response, read_head(answer));
  const json::value* encoded = answer.if_contains("isBase64Encoded");
  if (encoded != nullptr && !encoded->is_bool() && !encoded->is_null()) return wrong("has an isBase64Encoded that is not true or false");
  if (const json::value* body = answer.if_contains("body"); body != nullptr && !body->is_null()) {
    response.body = body->is_string() ? text_of(body->get_string()) : json::serialize(*body);
  }
  if (encoded != nullptr && encoded->is_bool() && encoded->get_bool()) {
    auto decoded = base::base64_decode(response.body);
    if (!decoded.ok()) return wrong("says isBase64Encoded of a body that is not base64");
    response.body = *std::move(decoded);
  }
  default_type(response.headers, "application/json");
  return response;
}

// Valid JSON without the white space between its tokens, numbers as they were written.
std::string compact(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (!quoted && (c == ' ' || c == '\t' || c == '\r' || c == '\n')) continue;
    out += c;
    if (quoted && c == '\\' && i + 1 < text.size()) out += text[++i];
    if (c == '"') quoted = !quoted;
  }
  return out;
}

net::Response whole(std::string body, std::string_view type) {
  net::Response response;
  response.headers.add("Content-Type", std::string(type));
  response.body = std::move(body);
  return response;
}

std::optional<json::value> parse(std::string_view text) {
  json::parse_options options;
  options.max_depth = kDepthMax;
  json::error_code ec;
  json::value value = json::parse(json::string_view(text.data(), text.size()), ec, {}, options);
  if (ec) return std::nullopt;
  return value;
}

}  // namespace

Result<net::Response> read_answer(std::string payload) {
  const std::optional<json::value> answer = parse(payload);
  if (!answer) {
    PreludeReader prelude;
    std::string rest;
    const auto complete = payload.starts_with('{') ? prelude.feed(payload, rest) : Result<bool>(false);
    if (!complete.ok() || !*complete) return whole(std::move(payload), "application/octet-stream");
    net::Response response = prelude.response();
    response.body = std::move(rest);
    return response;
  }
  if (const auto* text = answer->if_string()) return whole(text_of(*text), "application/json");
  const auto* object = answer->if_object();
  if (object != nullptr && object->contains("statusCode")) return read_response(*object);
  return whole(compact(payload), "application/json");
}

Result<bool> PreludeReader::feed(std::string_view bytes, std::string& rest) {
  const std::size_t before = text_.size();
  const std::string_view taken = bytes.substr(0, kBytesMax + kSeparatorBytes - before);
  text_ += taken;
  // JSON has no NUL byte; one that came before must be in a separator that is not complete yet.
  const std::size_t end = text_.find('\0', before - std::min(before, kSeparatorBytes));
  if (std::min(end, text_.size()) > kBytesMax) return wrong("has a prelude of more than 64 KiB");
  if (end == std::string::npos) return false;
  const std::string_view separator = std::string_view(text_).substr(end, kSeparatorBytes);
  if (separator.find_first_not_of('\0') != std::string_view::npos) return wrong("has a prelude that does not end in eight NUL bytes");
  if (separator.size() < kSeparatorBytes) return false;
  const std::optional<json::value> prelude = parse(std::string_view(text_).substr(0, end));
  if (!prelude || !prelude->is_object()) return wrong("has a prelude that is no JSON object");
  MAYFLY_ASSIGN(response_, read_head(prelude->get_object()));
  default_type(response_.headers, "application/octet-stream");
  rest.assign(text_, end + kSeparatorBytes);
  rest += bytes.substr(taken.size());
  return true;
}

}  // namespace mayfly::gateway
