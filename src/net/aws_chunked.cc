// AwsChunkedDecoder of net/sigv4.h: the chunks that S3 clients wrap bodies in, each signed over its predecessor.
// Source: Amazon S3 API Reference, "Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks"
// and "... Including trailing headers".
#include <algorithm>
#include <optional>
#include <utility>

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

}  // namespace

struct AwsChunkedDecoder::Impl {
  enum class At : std::uint8_t { kSizeLine, kData, kDataEnd, kTrailer, kEnd };

  Impl(const SignatureClaim& signed_claim, const std::string& secret_key)
      : claim(signed_claim),
        scope{.date = claim.date, .region = claim.region, .service = claim.service},
        previous(claim.signature),
        is_signed(claim.payload_hash != kStreamingUnsignedTrailer),
        has_trailer(claim.payload_hash != kStreamingSigned) {
    if (is_signed) key = signing_key(secret_key, scope);
  }

  [[nodiscard]] Error broken(std::string_view why) const {
    return Error(ErrorCode::kInvalidArgument, "The aws-chunked body is malformed: " + std::string(why) + ".",
                 is_s3(claim.service) ? "InvalidRequest" : "SerializationException");
  }

  Result<void> feed(std::string_view bytes, std::string& decoded) {
    while (!bytes.empty()) {
      if (at == At::kData) {
        const std::string_view piece = bytes.substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(left, bytes.size())));
        bytes.remove_prefix(piece.size());
        left -= piece.size();
        if (is_signed) hash->update(piece);
        decoded.append(piece);
        if (left > 0) continue;
        if (is_signed) MAYFLY_TRY(check(chunk_text(), chunk_signature));
        at = At::kDataEnd;
        continue;
      }
      // Everything else comes in lines, which may come in pieces.
      const std::size_t end = bytes.find('\n');
      const std::string_view piece = bytes.substr(0, end == std::string_view::npos ? bytes.size() : end + 1);
      if (line.size() + piece.size() > kLineMax) return broken("a line does not end within 4096 bytes");
      line.append(piece);
      bytes.remove_prefix(piece.size());
      if (!line.ends_with("\r\n")) {
        // As the examples of the documentation have it, a trailer may end "\n\r\n"; nothing else holds a bare line feed.
        if (line.ends_with('\n') && at != At::kTrailer) return broken("a line does not end with CR LF");
        continue;
      }
      std::string whole = std::exchange(line, {});
      whole.resize(whole.size() - 2);
      MAYFLY_TRY(take_line(whole));
    }
    return {};
  }

  Result<void> take_line(std::string_view text) {
    switch (at) {
      case At::kSizeLine:
        return take_size(text);
      case At::kDataEnd:
        if (!text.empty()) return broken("a chunk does not end where its size says");
        at = At::kSizeLine;
        return {};
      case At::kTrailer:
        return take_trailer(text);
      case At::kEnd:
        // The final chunk's own CRLF, or that after the trailer's signature; some clients leave it out.
        if (!text.empty() || ended) return broken("there are bytes after the last chunk");
        ended = true;
        return {};
      case At::kData:
        break;
    }
    return broken("it cannot be read");
  }

  // "SIZE" or "SIZE;chunk-signature=HEX".
  Result<void> take_size(std::string_view text) {
    const std::size_t semicolon = std::min(text.find(';'), text.size());
    MAYFLY_ASSIGN(left, parse_size(text.substr(0, semicolon)));
    if (is_signed) {
      const std::string_view extension = semicolon < text.size() ? text.substr(semicolon + 1) : std::string_view{};
      if (!extension.starts_with(kChunkSignature)) return broken("a chunk has no chunk-signature");
      chunk_signature = extension.substr(kChunkSignature.size());
      hash.emplace();
    }
    if (left > 0) {
      at = At::kData;
      return {};
    }
    if (is_signed) MAYFLY_TRY(check(chunk_text(), chunk_signature));
    at = has_trailer ? At::kTrailer : At::kEnd;
    return {};
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
    return std::string(algorithm) + "\n" + base::format_amz_date(claim.time) + "\n" + scope.text() + "\n" + previous + "\n";
  }
  [[nodiscard]] std::string chunk_text() {
    return signed_prefix("AWS4-HMAC-SHA256-PAYLOAD") + hex_sha256("") + "\n" + base::hex_encode(hash->finish());
  }

  // The signature of `text`, which becomes what the next one builds on.
  Result<void> check(const std::string& text, std::string_view signature) {
    const std::string expected = sign_text(key, text);
    if (!base::equal_constant_time(expected, signature))
      return signature_mismatch(claim.service, "The signature of a chunk does not match.");
    previous = expected;
    return {};
  }

  // "name:value" lines up to an empty line; the trailer's signature is the last of them.
  Result<void> take_trailer(std::string_view text) {
    if (text.empty()) {
      if (is_signed) return broken("the trailer has no x-amz-trailer-signature");
      at = At::kEnd;
      ended = true;
      return {};
    }
    if (text.ends_with('\n')) text.remove_suffix(1);
    const std::size_t colon = text.find(':');
    if (trailer_lines++ == kTrailersMax || colon == std::string_view::npos || !is_token(text.substr(0, colon)))
      return broken("a trailer is not \"name:value\", or there are more than 16");
    std::string name = to_lower(text.substr(0, colon));
    const std::string_view value = trim(text.substr(colon + 1));
    if (name != kTrailerSignature) {
      covered.append(name).append(":").append(value).append("\n");
      trailers.add(std::move(name), std::string(value));
      return {};
    }
    if (!is_signed) return broken("an unsigned payload has no trailer signature");
    MAYFLY_TRY(check(signed_prefix("AWS4-HMAC-SHA256-TRAILER") + hex_sha256(covered), value));
    at = At::kEnd;
    return {};
  }

  [[nodiscard]] Result<void> finish() {
    if (at == At::kTrailer && !line.empty()) {  // some clients leave the end of the last line out
      const std::string rest = std::exchange(line, {});
      MAYFLY_TRY(take_trailer(trim(rest)));
    }
    // So do some with the final empty line of an unsigned trailer.
    const bool complete = at == At::kEnd || (at == At::kTrailer && !is_signed);
    if (!line.empty()) return broken(at == At::kEnd ? "there are bytes after the last chunk" : "it ends within a line");
    if (complete) return {};
    return broken(at == At::kTrailer ? "the trailer has no x-amz-trailer-signature" : "it ends before its last chunk");
  }

  const SignatureClaim claim;
  DatedScope scope;
  std::string previous;
  const bool is_signed, has_trailer;
  base::Sha256Digest key{};
  At at = At::kSizeLine;
  bool ended = false;  // nothing may follow
  std::string line;    // what came of one
  std::uint64_t left = 0;
  std::optional<base::Sha256> hash;
  std::string chunk_signature, covered;
  std::size_t trailer_lines = 0;
  Headers trailers;
};

AwsChunkedDecoder::AwsChunkedDecoder(const SignatureClaim& claim, const std::string& secret_key)
    : impl_(std::make_unique<Impl>(claim, secret_key)) {}
AwsChunkedDecoder::~AwsChunkedDecoder() = default;
Result<void> AwsChunkedDecoder::feed(std::string_view bytes, std::string& decoded) { return impl_->feed(bytes, decoded); }
Result<void> AwsChunkedDecoder::finish() { return impl_->finish(); }
const Headers& AwsChunkedDecoder::trailers() const { return impl_->trailers; }

Result<std::string> decode_aws_chunked(const SignatureClaim& claim, std::string_view body, const std::string& secret_key,
                                       std::optional<std::uint64_t> decoded_length) {
  if (!is_streaming(claim)) return Error(ErrorCode::kInvalidArgument, "The request is not signed as aws-chunked.", "InvalidRequest");
  AwsChunkedDecoder decoder(claim, secret_key);
  std::string decoded;
  MAYFLY_TRY(decoder.feed(body, decoded));
  MAYFLY_TRY(decoder.finish());
  if (decoded_length && *decoded_length != decoded.size()) {
    return Error(ErrorCode::kInvalidArgument,
                 "x-amz-decoded-content-length says " + std::to_string(*decoded_length) + " bytes; the chunks carried " +
                     std::to_string(decoded.size()) + ".",
                 is_s3(claim.service) ? "IncompleteBody" : "SerializationException");
  }
  return decoded;
}

}  // namespace mayfly::net
