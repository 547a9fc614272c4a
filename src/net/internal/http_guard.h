// The framing guard: reads a request head, and decides from its raw bytes whether everyone along the path must read the same
// message out of them. Pure functions. That Beast's parser agrees about every head it accepts is what its fuzz target checks.
// Sources: RFC 9112 sections 2.2, 3, 5, 6 and RFC 9110 sections 5.5, 7.2, 10.1.1.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "net/http.h"

namespace mayfly::net::internal {

struct HeadLimits {
  std::size_t head_bytes_max;
  std::size_t fields_max;
  std::size_t target_bytes_max;
};

// Why a head is refused: the status to answer and a sentence for the peer. status 0: not refused.
struct Refusal {
  int status = 0;
  std::string_view reason;
};

// What the accepted head says about the bytes after it and about the connection.
struct Framing {
  bool chunked = false;
  std::optional<std::uint64_t> content_length;
  bool http_1_1 = false;
  bool keep_alive = false;
  bool expects_continue = false;
};

// Looks for the end of a head in bytes that arrive in pieces, refusing as early as the bytes allow.
class HeadScanner {
 public:
  // `bytes` is everything received of this message so far and grows from call to call. Returns the head's size, the empty
  // line included, or nothing: then either refusal() says why, or more bytes are needed.
  [[nodiscard]] std::optional<std::size_t> scan(std::string_view bytes, const HeadLimits& limits);
  [[nodiscard]] const Refusal& refusal() const { return refusal_; }
  void reset() { *this = HeadScanner{}; }

 private:
  std::size_t position_ = 0;  // scanned so far
  std::size_t line_start_ = 0;
  std::size_t lines_ = 0;
  Refusal refusal_;
};

// Judges and reads a whole head (request line to empty line, both included). `framing` and `request` are complete when it is
// accepted, and make no sense when it is refused.
[[nodiscard]] Refusal read_request_head(std::string_view head, const HeadLimits& limits, Framing& framing, RequestHead& request);

// tchar of RFC 9110, section 5.6.2; not empty.
[[nodiscard]] bool is_token(std::string_view text);
// Visible characters, space, tab and bytes above 0x7f: no control character, so no line can be forged.
[[nodiscard]] bool is_field_value(std::string_view text);
// Without spaces and tabs at both ends.
[[nodiscard]] std::string_view trim(std::string_view text);
// 1*DIGIT that fits 63 bits.
[[nodiscard]] std::optional<std::uint64_t> parse_length(std::string_view digits);
// Whether the comma-separated list `value` holds `token`, case-insensitively.
[[nodiscard]] bool list_contains(std::string_view value, std::string_view token);
// Whether `value` is a comma-separated list of tokens, empty elements allowed (RFC 9110, section 5.6.1.2).
[[nodiscard]] bool is_token_list(std::string_view value);
// Fields that must not come as trailers: framing, routing, authentication, content description (RFC 9110, section 6.5.1).
[[nodiscard]] bool is_forbidden_trailer(std::string_view name);

}  // namespace mayfly::net::internal
