// AWS Signature Version 4 (docs.aws.amazon.com "Signature Version 4 signing process"): one canonicaliser for signing
// and verifying; header and presigned forms; chunked payloads (aws-chunked). Pure functions, no I/O.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "net/http.h"

namespace mayfly::net {

struct SigningKey {
  std::string access_key;
  std::string secret_key;
  std::string session_token;  // empty unless temporary
};

struct SigningScope {
  std::string region;
  std::string service;
};

// Adds X-Amz-Date, X-Amz-Security-Token, x-amz-content-sha256 and Authorization to `head` for `body`.
void sign_request(RequestHead& head, std::string_view body, const SigningKey& key, const SigningScope& scope, base::WallTime now);
// Query string that presigns GET `path` on `host` for `valid` from now: "X-Amz-Algorithm=...&X-Amz-Signature=...".
[[nodiscard]] std::string presign_get(const std::string& host, const std::string& path, const SigningKey& key, const SigningScope& scope,
                                      base::WallTime now, std::chrono::seconds valid);

// How a request says who it is, before any secret is known. Parsing is the only thing that reads unauthenticated bytes.
struct SignatureClaim {
  bool presigned = false;
  std::string access_key;
  std::string date;      // yyyymmdd of the scope
  std::string region;
  std::string service;
  std::vector<std::string> signed_headers;  // lower case, sorted, unique
  std::string signature;                    // 64 hex digits
  base::WallTime time;                      // x-amz-date
  std::chrono::seconds expires{0};          // presigned only
  std::string session_token;
  std::string payload_hash;                 // x-amz-content-sha256 as sent, or the hash rule that applies when absent
};

// Error ids are AWS's: MissingAuthenticationTokenException, IncompleteSignatureException, InvalidSignatureException,
// UnrecognizedClientException (unknown key; the caller of parse_claim finds that out), ExpiredTokenException,
// SignatureDoesNotMatch and AuthorizationQueryParametersError where the S3 family says so.
[[nodiscard]] base::Result<SignatureClaim> parse_claim(const RequestHead& head);

// Checks the claim's signature over `head` with the secret: 15 minutes of clock skew either way, expiry of presigned URLs
// (at most 7 days), scope date equal to the request date, Host and every x-amz-* header present must be signed.
// Constant time in the signature. Does not read the body: compare its hash with check_payload().
[[nodiscard]] base::Result<void> verify_claim(const SignatureClaim& claim, const RequestHead& head, const std::string& secret_key, base::WallTime now);

// Compares the body's SHA-256 with what was signed; "UNSIGNED-PAYLOAD" passes (allowed for presigned URLs and S3).
[[nodiscard]] base::Result<void> check_payload(const SignatureClaim& claim, std::string_view body);

// Decodes an aws-chunked body (STREAMING-AWS4-HMAC-SHA256-PAYLOAD[-TRAILER], STREAMING-UNSIGNED-PAYLOAD-TRAILER) whole and
// verifies each chunk's signature and the trailer's against the claim. `decoded_length` is x-amz-decoded-content-length.
[[nodiscard]] base::Result<std::string> decode_aws_chunked(const SignatureClaim& claim, std::string_view body, const std::string& secret_key,
                                                           std::optional<std::uint64_t> decoded_length);

}  // namespace mayfly::net
