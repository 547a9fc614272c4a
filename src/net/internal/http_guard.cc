#include "net/internal/http_guard.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace mayfly::net::internal {

namespace {

constexpr std::array<bool, 256> kTokenTable = [] {
  std::array<bool, 256> table{};
  for (int c = '0'; c <= '9'; ++c) table[static_cast<std::size_t>(c)] = true;
  for (int c = 'a'; c <= 'z'; ++c) table[static_cast<std::size_t>(c)] = true;
  for (int c = 'A'; c <= 'Z'; ++c) table[static_cast<std::size_t>(c)] = true;
  for (const char c : {'!', '#', '$', '%', '&', '\'', '*', '+', '-', '.', '^', '_', '`', '|', '~'})
    table[static_cast<std::size_t>(c)] = true;
  return table;
}();

constexpr std::size_t kRequestLineExtra = 64;  // method and version beside the target

bool is_host_value(std::string_view value) {
  constexpr std::string_view kExtra = "-._~:[]%";
  return !value.empty() && std::ranges::all_of(value, [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || kExtra.find(c) != std::string_view::npos;
  });
}

Refusal check_version(std::string_view version, Framing& framing) {
  if (version == "HTTP/1.1" || version == "HTTP/1.0") {
    framing.http_1_1 = version.back() == '1';
    return {};
  }
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  if (version.size() == 8 && version.starts_with("HTTP/") && digit(version[5]) && version[6] == '.' && digit(version[7])) {
    return {505, "only HTTP/1.1 and HTTP/1.0 are spoken here"};
  }
  return {400, "the request line must end in an HTTP version"};
}

Refusal check_target(std::string_view target, const HeadLimits& limits) {
  if (target.size() > limits.target_bytes_max) return {414, "the request target is too long"};
  if (target.empty() || target.front() != '/') return {400, "the request target must begin with '/'"};
  unsigned unclean = 0;  // all bytes, without a branch for each: the compiler makes it vectors
  for (const char c : target) unclean |= static_cast<unsigned>(c <= 0x20) | static_cast<unsigned>(c == 0x7f) | static_cast<unsigned>(c == '#');
  if (unclean != 0) return {400, "the request target holds a byte that must be percent-encoded"};
  return {};
}

Refusal read_request_line(std::string_view line, const HeadLimits& limits, Framing& framing, RequestHead& request) {
  const std::size_t first = line.find(' ');
  const std::size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return {400, "the request line must be method, target and version"};
  if (const Refusal refusal = check_version(line.substr(last + 1), framing); refusal.status != 0) return refusal;
  const std::string_view method = line.substr(0, first);
  if (!is_token(method)) return {400, "the method holds a byte that is not allowed there"};
  if (method.size() > 32) return {501, "the method is not known"};
  const std::string_view target = line.substr(first + 1, last - first - 1);
  request.method = method;
  request.target = target;
  return check_target(target, limits);
}

// What the fields seen so far mean for framing; `finish` judges them together.
class FieldJudge {
 public:
  Refusal add(std::string_view name, std::string_view value, Framing& framing) {
    switch (name.size()) {
      case 4:
        if (equal_ignoring_case(name, "host")) return add_host(value);
        break;
      case 6:
        if (equal_ignoring_case(name, "expect")) return add_expect(value, framing);
        break;
      case 10:
        if (equal_ignoring_case(name, "connection")) return add_connection(value);
        break;
      case 14:
        if (equal_ignoring_case(name, "content-length")) return add_length(value, framing);
        break;
      case 16:
        if (equal_ignoring_case(name, "proxy-connection") && !is_token_list(value)) return {400, "the request header is malformed"};
        break;
      case 17:
        if (equal_ignoring_case(name, "transfer-encoding")) return add_transfer_encoding(value, framing);
        break;
      default: break;
    }
    return {};
  }

  [[nodiscard]] Refusal finish(Framing& framing) const {
    if (framing.chunked && framing.content_length) return {400, "Transfer-Encoding and Content-Length cannot both be given"};
    if (framing.chunked && !framing.http_1_1) return {400, "HTTP/1.0 has no Transfer-Encoding"};
    if (framing.http_1_1 && hosts_ != 1) return {400, "an HTTP/1.1 request needs exactly one Host field"};
    framing.keep_alive = framing.http_1_1 ? !close_ : keep_alive_ && !close_;
    if (!framing.http_1_1) framing.expects_continue = false;
    return {};
  }

 private:
  Refusal add_host(std::string_view value) {
    if (++hosts_ > 1) return {400, "more than one Host field"};
    if (!is_host_value(value)) return {400, "the Host field is not a host name or address"};
    return {};
  }
  static Refusal add_expect(std::string_view value, Framing& framing) {
    if (framing.expects_continue || !equal_ignoring_case(value, "100-continue")) return {417, "only the expectation 100-continue is known"};
    framing.expects_continue = true;
    return {};
  }
  static Refusal add_length(std::string_view value, Framing& framing) {
    if (framing.content_length) return {400, "more than one Content-Length field"};
    framing.content_length = parse_length(value);
    if (!framing.content_length) return {400, "the Content-Length is not a number in range"};
    return {};
  }
  static Refusal add_transfer_encoding(std::string_view value, Framing& framing) {
    if (framing.chunked) return {400, "more than one Transfer-Encoding field"};
    framing.chunked = equal_ignoring_case(value, "chunked");
    if (framing.chunked) return {};
    if (value.empty() || list_contains(value, "chunked")) return {400, "the Transfer-Encoding must be exactly \"chunked\""};
    return {501, "the only Transfer-Encoding known is \"chunked\""};
  }
  Refusal add_connection(std::string_view value) {
    if (!is_token_list(value)) return {400, "the request header is malformed"};
    close_ = close_ || list_contains(value, "close");
    keep_alive_ = keep_alive_ || list_contains(value, "keep-alive");
    return {};
  }

  int hosts_ = 0;
  bool close_ = false;
  bool keep_alive_ = false;
};

Refusal read_field(std::string_view line, FieldJudge& judge, Framing& framing, Headers& headers) {
  if (line.front() == ' ' || line.front() == '\t') return {400, "folded header fields are not accepted"};
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos) return {400, "a header line has no colon"};
  const std::string_view name = line.substr(0, colon);
  if (!is_token(name)) return {400, "a header name holds a byte that is not allowed there"};
  const std::string_view value = trim(line.substr(colon + 1));
  if (!is_field_value(value)) return {400, "a header value holds a control character"};
  headers.add(std::string(name), std::string(value));
  return judge.add(name, value, framing);
}

}  // namespace

std::optional<std::size_t> HeadScanner::scan(std::string_view bytes, const HeadLimits& limits) {
  while (position_ < bytes.size()) {
    const void* found = std::memchr(bytes.data() + position_, '\n', bytes.size() - position_);
    if (found == nullptr) break;
    const auto at = static_cast<std::size_t>(static_cast<const char*>(found) - bytes.data());
    position_ = at + 1;
    if (at == line_start_ || bytes[at - 1] != '\r') {
      refusal_ = {400, "a line ends in LF without CR"};
      return std::nullopt;
    }
    if (lines_ == 0 && at > limits.target_bytes_max + kRequestLineExtra) break;
    const bool empty = at - line_start_ == 1;
    line_start_ = at + 1;
    if (empty) {
      if (at + 1 > limits.head_bytes_max) break;
      return at + 1;
    }
    if (++lines_ > limits.fields_max + 1) {
      refusal_ = {431, "too many header fields"};
      return std::nullopt;
    }
  }
  position_ = bytes.size();
  if (lines_ == 0 && bytes.size() > limits.target_bytes_max + kRequestLineExtra) {
    refusal_ = {414, "the request line is too long"};
  } else if (bytes.size() > limits.head_bytes_max) {
    refusal_ = {431, "the header is too large"};
  }
  return std::nullopt;
}

Refusal read_request_head(std::string_view head, const HeadLimits& limits, Framing& framing, RequestHead& request) {
  framing = {};
  request.headers.clear();
  if (head.size() > limits.head_bytes_max) return {431, "the header is too large"};
  if (!head.ends_with("\r\n\r\n")) return {400, "the header does not end in an empty line"};
  std::size_t end = head.find("\r\n");
  if (const Refusal refusal = read_request_line(head.substr(0, end), limits, framing, request); refusal.status != 0) return refusal;
  FieldJudge judge;
  std::size_t fields = 0;
  for (std::size_t start = end + 2;; start = end + 2) {
    end = head.find("\r\n", start);
    if (end == start) break;
    if (++fields > limits.fields_max) return {431, "too many header fields"};
    if (const Refusal refusal = read_field(head.substr(start, end - start), judge, framing, request.headers); refusal.status != 0) return refusal;
  }
  if (end + 2 != head.size()) return {400, "an empty line inside the header"};
  return judge.finish(framing);
}

bool is_token(std::string_view text) {
  bool good = !text.empty();
  for (const char c : text) good &= kTokenTable[static_cast<unsigned char>(c)];
  return good;
}

bool is_field_value(std::string_view text) {
  unsigned bad = 0;  // as in check_target()
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    bad |= (static_cast<unsigned>(byte < 0x20) & static_cast<unsigned>(byte != '\t')) | static_cast<unsigned>(byte == 0x7f);
  }
  return bad == 0;
}

std::string_view trim(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

std::optional<std::uint64_t> parse_length(std::string_view digits) {
  if (digits.empty() || digits.size() > 18) return std::nullopt;
  std::uint64_t value = 0;
  for (const char c : digits) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return value;
}

bool list_contains(std::string_view value, std::string_view token) {
  while (true) {
    const std::size_t comma = value.find(',');
    if (equal_ignoring_case(trim(value.substr(0, comma)), token)) return true;
    if (comma == std::string_view::npos) return false;
    value.remove_prefix(comma + 1);
  }
}

bool is_token_list(std::string_view value) {
  while (true) {
    const std::size_t comma = value.find(',');
    const std::string_view element = trim(value.substr(0, comma));
    if (!element.empty() && !is_token(element)) return false;
    if (comma == std::string_view::npos) return true;
    value.remove_prefix(comma + 1);
  }
}

bool is_forbidden_trailer(std::string_view name) {
  constexpr std::array<std::string_view, 24> kForbidden = {"transfer-encoding",
                                                           "content-length",
                                                           "host",
                                                           "trailer",
                                                           "te",
                                                           "connection",
                                                           "keep-alive",
                                                           "upgrade",
                                                           "expect",
                                                           "authorization",
                                                           "cookie",
                                                           "set-cookie",
                                                           "proxy-authorization",
                                                           "proxy-connection",
                                                           "content-type",
                                                           "content-encoding",
                                                           "content-range",
                                                           "cache-control",
                                                           "max-forwards",
                                                           "range",
                                                           "www-authenticate",
                                                           "proxy-authenticate",
                                                           "age",
                                                           "location"};
  return std::ranges::any_of(kForbidden, [name](std::string_view item) { return equal_ignoring_case(name, item); });
}

}  // namespace mayfly::net::internal
