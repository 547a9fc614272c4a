// decode_aws_chunked of net/sigv4.h: the chunks that S3 clients wrap bodies in, each signed over its predecessor.
// Source: Amazon S3 API Reference, "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks"
// and "... Including trailing headers".
#include <algorithm>

#include "base/bytes.h"
#include "net/internal/http_guard.h"
#include "net/internal/sigv4_canonical.h"
#include "net/internal/sigv4_errors.h"
#include "net/sigv4.h"

namespace mayfly::net {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
using namespace internal;

constexpr std::size_t kLineMax = 4096;
constexpr std::size_t kSizeDigitsMax = 15;
constexpr std::size_t kTrailersMax = 16;
constexpr std::string_view kChunkSignature = "chunk-signature=";
constexpr std::string_view kTrailerSignature = "x-amz-trailer-signature";

class ChunkReader {
 public:
  ChunkReader(const SignatureClaim& claim, std::string_view body, const std::string& secret_key)
      : claim_(claim),
        rest_(body),
        scope_{.date = claim.date, .region = claim.region, .service = claim.service},
        previous_(claim.signature) {
    signed_ = claim.payload_hash != kStreamingUnsignedTrailer;
    trailer_ = claim.payload_hash != kStreamingSigned;
    if (signed_) key_ = signing_key(secret_key, scope_);
  }

  Result<std::string> read() {
    std::string decoded;
    while (true) {
      MAYFLY_ASSIGN(const std::string_view chunk, read_chunk());
      if (chunk.empty()) break;
      decoded.append(chunk);
    }
    if (trailer_) {
      MAYFLY_TRY(read_trailer());
    } else {
      // The final chunk's own CRLF; some clients leave it out.
      if (rest_.starts_with("\r\n")) rest_.remove_prefix(2);
    }
    if (!rest_.empty()) return broken("there are bytes after the last chunk");
    return decoded;
  }

 private:
  [[nodiscard]] Error broken(std::string_view why) const {
    return Error(ErrorCode::kInvalidArgument, "The aws-chunked body is malformed: " + std::string(why) + ".",
                 is_s3(claim_.service) ? "InvalidRequest" : "SerializationException");
  }

  Result<std::string_view> read_line() {
    const std::size_t end = rest_.substr(0, kLineMax).find("\r\n");
    if (end == std::string_view::npos) return broken("a line does not end within 4096 bytes");
    const std::string_view line = rest_.substr(0, end);
    rest_.remove_prefix(end + 2);
    return line;
  }

  // One chunk's bytes, proven; empty at the end. The line is "SIZE" or "SIZE;chunk-signature=HEX".
  Result<std::string_view> read_chunk() {
    MAYFLY_ASSIGN(const std::string_view line, read_line());
    const std::size_t semicolon = std::min(line.find(';'), line.size());
    MAYFLY_ASSIGN(const std::uint64_t size, parse_size(line.substr(0, semicolon)));
    if (size > rest_.size()) return broken("a chunk is longer than the body");
    const std::string_view bytes = rest_.substr(0, static_cast<std::size_t>(size));
    rest_.remove_prefix(bytes.size());
    if (signed_) {
      const std::string_view extension = semicolon < line.size() ? line.substr(semicolon + 1) : std::string_view{};
      if (!extension.starts_with(kChunkSignature)) return broken("a chunk has no chunk-signature");
      MAYFLY_TRY(check(chunk_text(bytes), extension.substr(kChunkSignature.size())));
    }
    if (bytes.empty()) return bytes;
    if (!rest_.starts_with("\r\n")) return broken("a chunk does not end where its size says");
    rest_.remove_prefix(2);
    return bytes;
  }

  [[nodiscard]] Result<std::uint64_t> parse_size(std::string_view digits) const {
    if (digits.empty() || digits.size() > kSizeDigitsMax) return broken("a chunk's size is not a hexadecimal number");
    std::uint64_t size = 0;
    for (const char c : digits) {
      const int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (value < 0) return broken("a chunk's size is not a hexadecimal number");
      size = size << 4U | static_cast<std::uint64_t>(value);
    }
    return size;
  }

  [[nodiscard]] std::string signed_prefix(std::string_view algorithm) const {
    return std::string(algorithm) + "\n" + base::format_amz_date(claim_.time) + "\n" + scope_.text() + "\n" + previous_ + "\n";
  }
  [[nodiscard]] std::string chunk_text(std::string_view bytes) const {
    return signed_prefix("AWS4-HMAC-SHA256-PAYLOAD") + hex_sha256("") + "\n" + hex_sha256(bytes);
  }

  // The signature of `text`, which becomes what the next one builds on.
  Result<void> check(const std::string& text, std::string_view signature) {
    const std::string expected = sign_text(key_, text);
    if (!base::equal_constant_time(expected, signature))
      return signature_mismatch(claim_.service, "The signature of a chunk does not match.");
    previous_ = expected;
    return {};
  }

  // "name:value" lines up to an empty line; the trailer's signature is the last of them.
  Result<void> read_trailer() {
    std::string covered;
    for (std::size_t count = 0;; ++count) {
      if (rest_.empty()) break;  // some clients leave the final empty line out
      MAYFLY_ASSIGN(std::string_view line, read_line());
      if (line.empty()) break;
      if (line.ends_with('\n')) line.remove_suffix(1);  // as the examples of the documentation have it
      const std::size_t colon = line.find(':');
      if (count == kTrailersMax || colon == std::string_view::npos || !is_token(line.substr(0, colon)))
        return broken("a trailer is not \"name:value\", or there are more than 16");
      const std::string name = to_lower(line.substr(0, colon));
      const std::string_view value = trim(line.substr(colon + 1));
      if (name == kTrailerSignature) return end_trailer(covered, value);
      covered.append(name).append(":").append(value).append("\n");
    }
    if (signed_) return broken("the trailer has no x-amz-trailer-signature");
    return {};
  }

  Result<void> end_trailer(std::string_view covered, std::string_view signature) {
    if (!signed_) return broken("an unsigned payload has no trailer signature");
    MAYFLY_TRY(check(signed_prefix("AWS4-HMAC-SHA256-TRAILER") + hex_sha256(covered), signature));
    if (rest_.starts_with("\r\n")) rest_.remove_prefix(2);
    return {};
  }

  const SignatureClaim& claim_;
  std::string_view rest_;
  DatedScope scope_;
  std::string previous_;
  base::Sha256Digest key_{};
  bool signed_ = true;
  bool trailer_ = false;
};

}  // namespace

Result<std::string> decode_aws_chunked(const SignatureClaim& claim, std::string_view body, const std::string& secret_key,
                                       std::optional<std::uint64_t> decoded_length) {
  if (!is_streaming(claim)) return Error(ErrorCode::kInvalidArgument, "The request is not signed as aws-chunked.", "InvalidRequest");
  MAYFLY_ASSIGN(std::string decoded, ChunkReader(claim, body, secret_key).read());
  if (decoded_length && *decoded_length != decoded.size()) {
    return Error(ErrorCode::kInvalidArgument,
                 "x-amz-decoded-content-length says " + std::to_string(*decoded_length) + " bytes; the chunks carried " +
                     std::to_string(decoded.size()) + ".",
                 is_s3(claim.service) ? "IncompleteBody" : "SerializationException");
  }
  return decoded;
}

}  // namespace mayfly::net
