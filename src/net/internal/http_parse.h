// From bytes to messages: response heads through Beast's parser, chunked bodies through a strict decoder. Knows no sockets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/http.h"
#include "net/internal/http_guard.h"

namespace mayfly::net::internal {

struct ResponseHead {
  int status = 0;
  Headers headers;
  bool chunked = false;
  std::optional<std::uint64_t> content_length;
  bool persistent = false;  // the peer means to keep the connection open after this answer
};
// A whole response head, the empty line included.
[[nodiscard]] base::Result<ResponseHead> parse_response_head(std::string_view head);

// Decodes one chunked body (RFC 9112, section 7.1), strictly: CRLF only, hexadecimal size of at most 15 digits with
// nothing before it, extensions without control characters and at most kChunkLineMax long, trailers of at most
// kTrailerBytesMax bytes and kTrailerFieldsMax fields. Forbidden trailer fields are dropped.
class ChunkDecoder {
 public:
  static constexpr std::size_t kChunkLineMax = 1024;
  static constexpr std::size_t kExtensionBytesMax = 64U << 10U;  // over the whole body
  static constexpr std::size_t kTrailerBytesMax = 16U << 10U;
  static constexpr std::size_t kTrailerFieldsMax = 64;

  // Takes bytes off the front of `input`, appending body bytes to `body`, at most `limit` of them in this call. Returns how
  // many it took: fewer than given when the body has ended, `limit` is reached or a line is not complete yet.
  [[nodiscard]] base::Result<std::size_t> decode(std::string_view input, std::size_t limit, std::string& body);
  [[nodiscard]] bool done() const { return state_ == State::kDone; }
  [[nodiscard]] const Headers& trailers() const { return trailers_; }
  [[nodiscard]] Headers take_trailers() { return std::move(trailers_); }

 private:
  enum class State { kSize, kData, kDataEnd, kTrailers, kDone };
  [[nodiscard]] base::Result<void> take_size_line(std::string_view line);
  [[nodiscard]] base::Result<void> take_trailer_line(std::string_view line);

  State state_ = State::kSize;
  std::uint64_t remaining_ = 0;
  std::size_t extension_bytes_ = 0;
  std::size_t trailer_bytes_ = 0;
  Headers trailers_;
};

}  // namespace mayfly::net::internal
