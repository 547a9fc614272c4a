// The framing guard, Beast's parser beside it and the chunk decoder: whatever the guard accepts has one framing, however the
// bytes are cut into pieces, and another parser reads the same message out of it.
#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/assert.h"
#include "net/internal/client_codec.h"
#include "net/internal/http_guard.h"
#include "net/internal/http_parse.h"

namespace {

using namespace mayfly;                 // NOLINT
using namespace mayfly::net;            // NOLINT
using namespace mayfly::net::internal;  // NOLINT
namespace http = boost::beast::http;

constexpr HeadLimits kLimits{4096, 32, 512};

struct Scanned {
  std::optional<std::size_t> size;
  int refused = 0;
};

Scanned scan(std::string_view bytes, std::size_t piece) {
  HeadScanner scanner;
  for (std::size_t end = piece;; end += piece) {
    const std::size_t seen = std::min(end, bytes.size());
    const auto size = scanner.scan(bytes.substr(0, seen), kLimits);
    if (size || scanner.refusal().status != 0 || seen == bytes.size()) return {size, scanner.refusal().status};
  }
}

struct Decoded {
  bool failed = false;
  bool done = false;
  std::size_t taken = 0;
  std::string body;
  Headers trailers;
};

Decoded decode(std::string_view bytes, std::size_t piece, std::size_t limit) {
  ChunkDecoder decoder;
  Decoded result;
  for (std::size_t end = piece;; end += piece) {
    const std::size_t seen = std::min(end, bytes.size());
    while (!decoder.done()) {
      const std::size_t before = result.taken;
      auto taken = decoder.decode(bytes.substr(result.taken, seen - result.taken), limit, result.body);
      if (!taken.ok()) {
        result.failed = true;
        return result;
      }
      MAYFLY_ASSERT(*taken <= seen - result.taken, "took more than there was");
      result.taken += *taken;
      if (result.taken == before) break;
    }
    if (decoder.done() || seen == bytes.size()) break;
  }
  result.done = decoder.done();
  result.trailers = decoder.trailers();
  return result;
}

// Beast accepts the head too and reads the same request line and fields.
void compare_head_with_beast(std::string_view head, const RequestHead& request) {
  http::request_parser<http::string_body> parser;
  parser.header_limit(1 << 20);
  parser.body_limit(boost::none);
  boost::beast::error_code error;
  (void)parser.put(boost::asio::buffer(head.data(), head.size()), error);
  MAYFLY_ASSERT(parser.is_header_done(), "Beast does not accept a head that the guard does");
  const auto& read = parser.get();
  MAYFLY_ASSERT(std::string_view(read.method_string()) == request.method && std::string_view(read.target()) == request.target,
                "Beast reads another request line");
  MAYFLY_ASSERT(static_cast<std::size_t>(std::distance(read.begin(), read.end())) == request.headers.fields().size(),
                "Beast reads another number of fields");
  for (const auto& [name, value] : request.headers.fields()) {
    const auto [first, last] = read.equal_range(name);
    const std::string& wanted = value;
    MAYFLY_ASSERT(std::any_of(first, last, [&wanted](const auto& field) { return std::string_view(field.value()) == wanted; }),
                  "Beast reads another field");
  }
}

// What Beast alone makes of the whole message, if it accepts it.
void compare_with_beast(std::string_view message, const Framing& framing, const Decoded* decoded) {
  http::request_parser<http::string_body> parser;
  parser.header_limit(1 << 20);
  parser.body_limit(boost::none);
  parser.eager(true);
  boost::beast::error_code error;
  std::size_t used = 0;
  while (used < message.size() && !parser.is_done()) {
    const std::size_t taken = parser.put(boost::asio::buffer(message.data() + used, message.size() - used), error);
    used += taken;
    if (error || taken == 0) break;
  }
  if (!parser.is_header_done()) return;
  MAYFLY_ASSERT(parser.chunked() == framing.chunked, "Beast and the guard differ about chunks");
  const auto length = parser.content_length();
  if (!framing.chunked && framing.content_length)
    MAYFLY_ASSERT(length && *length == *framing.content_length, "Beast and the guard differ about the length");
  if (decoded != nullptr && decoded->done && parser.is_done()) {
    MAYFLY_ASSERT(parser.get().body() == decoded->body, "Beast and the decoder read different bodies");
  }
}

void check_message(std::string_view message, std::size_t piece) {
  const Scanned whole = scan(message, message.size() + 1);
  const Scanned pieces = scan(message, piece);
  MAYFLY_ASSERT(whole.size == pieces.size || whole.refused != 0 || pieces.refused != 0, "the head's end depends on the pieces");
  if (!whole.size) return;
  const std::string_view head = message.substr(0, *whole.size);
  Framing framing;
  RequestHead request;
  if (read_request_head(head, kLimits, framing, request).status != 0) return;
  MAYFLY_ASSERT(!(framing.chunked && framing.content_length), "two framings");
  compare_head_with_beast(head, request);
  // Written out again it must mean the same.
  std::string again = request.method + " " + request.target + (framing.http_1_1 ? " HTTP/1.1\r\n" : " HTTP/1.0\r\n");
  for (const auto& [name, value] : request.headers.fields()) again += name + ": " + value + "\r\n";
  again += "\r\n";
  Framing second;
  if (again.size() <= kLimits.head_bytes_max) {
    RequestHead same;
    MAYFLY_ASSERT(read_request_head(again, kLimits, second, same).status == 0, "an accepted head is refused when written again");
    MAYFLY_ASSERT(second.chunked == framing.chunked && second.content_length == framing.content_length &&
                      second.keep_alive == framing.keep_alive && second.expects_continue == framing.expects_continue,
                  "an accepted head means something else when written again");
  }
  if (!framing.chunked) {
    compare_with_beast(message, framing, nullptr);
    return;
  }
  const std::string_view body = message.substr(*whole.size);
  const Decoded at_once = decode(body, body.size() + 1, body.size() + 1);
  const Decoded in_pieces = decode(body, piece, 3);
  MAYFLY_ASSERT(at_once.failed == in_pieces.failed && at_once.done == in_pieces.done, "a body's fate depends on the pieces");
  if (!at_once.failed) MAYFLY_ASSERT(at_once.taken == in_pieces.taken && at_once.body == in_pieces.body, "a body depends on the pieces");
  for (const auto& [name, value] : at_once.trailers.fields())
    MAYFLY_ASSERT(!is_forbidden_trailer(name) && is_field_value(value), "a bad trailer");
  compare_with_beast(message, framing, at_once.failed ? nullptr : &at_once);
}

void check_answer(std::string_view bytes, std::size_t piece) {
  ClientRequest request;
  request.response_bytes_max = 4096;
  ResponseReader reader(request);
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    const auto complete = reader.feed(bytes.substr(at, piece));
    if (!complete.ok() || *complete) return;
  }
  (void)reader.end().ok();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::string_view message(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::size_t piece = 1 + (data[0] & 0x3fU);
  if ((data[0] & 0x80U) != 0) {
    check_answer(message, piece);
  } else {
    check_message(message, piece);
  }
  return 0;
}
