// What Signature Version 4 hashes and keys: the canonical request and its parts, the string to sign, the signing key. Used for
// signing and verifying alike. Pure functions. Source: AWS General Reference, "Create a signed AWS API request".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "net/http.h"

namespace mayfly::net::internal {

inline constexpr std::string_view kSigv4Algorithm = "AWS4-HMAC-SHA256";
inline constexpr std::string_view kScopeEnd = "aws4_request";
inline constexpr std::string_view kUnsignedPayload = "UNSIGNED-PAYLOAD";
inline constexpr std::string_view kStreamingPrefix = "STREAMING-";
inline constexpr std::string_view kStreamingSigned = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
inline constexpr std::string_view kStreamingSignedTrailer = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
inline constexpr std::string_view kStreamingUnsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

// S3 differs from all other services in its paths, clock skew, payload hash and error types.
[[nodiscard]] bool is_s3(std::string_view service);

// The path of the request as signed. `path` is percent-encoded as on the wire. S3: each segment encoded once, nothing
// normalised. Others: empty and dot segments removed, then encoded once more ("%3A" becomes "%253A").
[[nodiscard]] base::Result<std::string> canonical_path(std::string_view path, std::string_view service);

// Parameters decoded as parse_query() does ('+' is a space: what is signed is what is read), encoded, sorted by name and value.
// `signature` says whether X-Amz-Signature counts.
enum class QuerySignature : bool { kKeep, kLeaveOut };
[[nodiscard]] base::Result<std::string> canonical_query(std::string_view query, QuerySignature signature);

// "name:value\n" for each of `names` (lower case, sorted). Values trimmed, runs of blanks folded to one space, fields of one name
// joined with a comma in order of arrival. kNotFound, with the name as message, when the request lacks one.
[[nodiscard]] base::Result<std::string> canonical_headers(const Headers& headers, const std::vector<std::string>& names);

struct CanonicalInput {
  std::string_view service;
  QuerySignature signature = QuerySignature::kKeep;
  std::string_view payload_hash;
};
[[nodiscard]] base::Result<std::string> canonical_request(const RequestHead& head, const std::vector<std::string>& signed_headers,
                                                          const CanonicalInput& input);

struct DatedScope {
  std::string date;  // yyyymmdd
  std::string region;
  std::string service;
  bool operator==(const DatedScope&) const = default;
  [[nodiscard]] std::string text() const { return date + "/" + region + "/" + service + "/" + std::string(kScopeEnd); }
};
[[nodiscard]] std::string string_to_sign(std::string_view amz_date, const DatedScope& scope, std::string_view canonical_request);

// The key of one day, region and service. Remembered by the calling thread.
[[nodiscard]] base::Sha256Digest signing_key(std::string_view secret_key, const DatedScope& scope);
[[nodiscard]] std::string sign_text(const base::Sha256Digest& key, std::string_view text);
[[nodiscard]] std::string hex_sha256(std::string_view bytes);
[[nodiscard]] std::string join_names(const std::vector<std::string>& names);

}  // namespace mayfly::net::internal
