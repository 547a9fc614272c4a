// AWS Signature Version 4 (docs.aws.amazon.com "Signature Version 4 signing process"): one canonicaliser for signing
// and verifying; header and presigned forms; chunked payloads (aws-chunked). Pure functions, no I/O, safe from every thread.
//
// To verify a request: parse_claim, look the key up, check_scope, then, when claim.payload_hash is empty, read the body and
// set it to payload_hash(body); then verify_claim; then check_payload or, when is_streaming(), decode_aws_chunked.
#pragma once

#include <cstdint>
#include <memory>
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

// Adds X-Amz-Date, X-Amz-Security-Token, x-amz-content-sha256 and Authorization to `head` for `body`, replacing what is
// there of those. Signs Host (which `head` must have), Content-Type, Content-MD5 and every x-amz-* field.
void sign_request(RequestHead& head, std::string_view body, const SigningKey& key, const SigningScope& scope, base::WallTime now);
// Query string that presigns GET `path` (percent-encoded, without query) on `host` for `valid` (at most 7 days) from now:
// "X-Amz-Algorithm=...&X-Amz-Signature=...". The body must be empty, except for S3, which does not look at it.
[[nodiscard]] std::string presign_get(const std::string& host, const std::string& path, const SigningKey& key, const SigningScope& scope,
                                      base::WallTime now, std::chrono::seconds valid);

// How a request says who it is, before any secret is known. Parsing is the only thing that reads unauthenticated bytes.
struct SignatureClaim {
  bool presigned = false;
  bool version_2 = false;  // a presigned URL of S3 in the older form: `time` is when it ends, `service` s3, and there is no region
  std::string access_key;
  std::string date;  // yyyymmdd of the scope
  std::string region;
  std::string service;
  std::vector<std::string> signed_headers;  // lower case, sorted, unique
  std::string signature;                    // 64 hex digits, lower case
  base::WallTime time;                      // of X-Amz-Date, else of Date
  std::chrono::seconds expires{0};          // presigned only
  std::string session_token;
  // What stands for the body in what was signed: 64 hex digits, UNSIGNED-PAYLOAD or STREAMING-..., as x-amz-content-sha256
  // says. Empty: the request does not say (boto3 outside S3), so it is the body's own hash: payload_hash(body).
  std::string payload_hash;
};

// Errors carry AWS's types and wording. MissingAuthenticationTokenException: no signature at all.
// IncompleteSignatureException: parts missing or malformed. InvalidSignatureException: anything that does not hold.
// For S3 (known once the scope is read) the types of S3: SignatureDoesNotMatch, RequestTimeTooSkewed, AccessDenied,
// AuthorizationHeaderMalformed, AuthorizationQueryParametersError, XAmzContentSHA256Mismatch.
// No message holds an access key, a signature or a token. An unknown key is the caller's to find out.
[[nodiscard]] base::Result<SignatureClaim> parse_claim(const RequestHead& head);

// The bucket that the Host of an S3 request names: "b.s3.localhost:9000", "b.localhost", "b.s3.us-east-1.example.com". Empty: none,
// the path names it.
[[nodiscard]] std::string s3_bucket_of_host(std::string_view host);

// "Credential should be scoped to ...": the claim's region and service are those that answer here. An empty member of
// `expected` accepts any.
[[nodiscard]] base::Result<void> check_scope(const SignatureClaim& claim, const SigningScope& expected);

// Checks the claim's signature over `head` with the secret: 5 minutes of clock skew either way (S3: 15), as AWS; expiry of
// presigned URLs (at most 7 days), scope date equal to the request date; Host and every x-amz-* header present must be signed
// (the SDKs leave only others unsigned: amz-sdk-*, x-amzn-trace-id, User-Agent), and what is signed must be present.
// Constant time in the signature. payload_hash must not be empty any more (kInternal). Does not read the body: see below.
[[nodiscard]] base::Result<void> verify_claim(const SignatureClaim& claim, const RequestHead& head, const std::string& secret_key,
                                              base::WallTime now);

// SHA-256 in hex, as x-amz-content-sha256 has it.
[[nodiscard]] std::string payload_hash(std::string_view body);
// Compares the body's SHA-256 with what was signed; "UNSIGNED-PAYLOAD" passes (parse_claim lets it be said for presigned URLs
// and S3 only). A streaming claim does not: its body goes through decode_aws_chunked.
[[nodiscard]] base::Result<void> check_payload(const SignatureClaim& claim, std::string_view body);

// Whether the body is aws-chunked (STREAMING-...).
[[nodiscard]] bool is_streaming(const SignatureClaim& claim);
// Decodes an aws-chunked body that comes in pieces. What feed() gives is not to be relied on before finish() has said that
// everything held: a chunk's signature covers all of it.
class AwsChunkedDecoder {
 public:
  // `claim` is_streaming().
  AwsChunkedDecoder(const SignatureClaim& claim, const std::string& secret_key);
  ~AwsChunkedDecoder();
  AwsChunkedDecoder(const AwsChunkedDecoder&) = delete;
  AwsChunkedDecoder& operator=(const AwsChunkedDecoder&) = delete;
  // Appends to `decoded` what the chunks in `bytes` carry. After an error the rest makes no sense.
  [[nodiscard]] base::Result<void> feed(std::string_view bytes, std::string& decoded);
  // The body has ended.
  [[nodiscard]] base::Result<void> finish();
  // In lower case; without the trailer's signature. Complete after finish().
  [[nodiscard]] const Headers& trailers() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Decodes an aws-chunked body (STREAMING-AWS4-HMAC-SHA256-PAYLOAD[-TRAILER], STREAMING-UNSIGNED-PAYLOAD-TRAILER) whole and
// verifies each chunk's signature and the trailer's against the claim. `decoded_length` is x-amz-decoded-content-length and
// must agree when given. Trailing checksums are covered by the trailer's signature and not compared with the content.
// Nothing is returned unless everything held.
[[nodiscard]] base::Result<std::string> decode_aws_chunked(const SignatureClaim& claim, std::string_view body,
                                                           const std::string& secret_key, std::optional<std::uint64_t> decoded_length);

}  // namespace mayfly::net
