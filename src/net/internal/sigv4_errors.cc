#include "net/internal/sigv4_errors.h"

#include "net/internal/sigv4_canonical.h"

namespace mayfly::net::internal {
namespace {

using base::Error;
using base::ErrorCode;

Error invalid_signature(std::string message) { return Error(ErrorCode::kUnauthenticated, std::move(message), "InvalidSignatureException"); }

std::string spoken(std::chrono::seconds window) {
  if (window.count() % 60 == 0) return std::to_string(window.count() / 60) + " min.";
  return std::to_string(window.count()) + " sec.";
}

}  // namespace

Error signature_mismatch(std::string_view service, std::string_view detail) {
  const std::string more = detail.empty() ? "" : " " + std::string(detail);
  if (is_s3(service)) {
    return Error(ErrorCode::kPermissionDenied,
                 "The request signature we calculated does not match the signature you provided. Check your key and signing method." + more,
                 "SignatureDoesNotMatch");
  }
  return invalid_signature(
      "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. "
      "Consult the service documentation for details." +
      more);
}

Error not_signed(std::string_view service, std::string_view header) {
  if (is_s3(service)) {
    return Error(ErrorCode::kPermissionDenied, "There were headers present in the request which were not signed: " + std::string(header),
                 "AccessDenied");
  }
  if (header == "host") return invalid_signature("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.");
  return invalid_signature("'" + std::string(header) + "' must be a 'SignedHeader' in the AWS Authorization.");
}

Error outside_window(const SignatureClaim& claim, Skew direction, base::WallTime now, std::chrono::seconds window) {
  const bool past = direction == Skew::kPast;
  if (is_s3(claim.service)) {
    if (claim.presigned) {
      return Error(ErrorCode::kPermissionDenied, past ? "Request has expired" : "Request is not valid yet", "AccessDenied");
    }
    return Error(ErrorCode::kPermissionDenied, "The difference between the request time and the current time is too large.",
                 "RequestTimeTooSkewed");
  }
  const std::string limit = base::format_amz_date(past ? now - window : now + window);
  const std::string how = " (" + base::format_amz_date(now) + (past ? " - " : " + ") + spoken(window) + ")";
  const std::string time = base::format_amz_date(claim.time);
  if (past) return invalid_signature("Signature expired: " + time + " is now earlier than " + limit + how);
  return invalid_signature("Signature not yet current: " + time + " is still later than " + limit + how);
}

Error wrong_scope(const SignatureClaim& claim, std::string message) {
  if (is_s3(claim.service)) return malformed(claim, std::move(message));
  return invalid_signature(std::move(message));
}

Error malformed(const SignatureClaim& claim, std::string message) {
  if (!is_s3(claim.service)) return Error(ErrorCode::kUnauthenticated, std::move(message), "IncompleteSignatureException");
  if (claim.presigned) return Error(ErrorCode::kInvalidArgument, std::move(message), "AuthorizationQueryParametersError");
  return Error(ErrorCode::kInvalidArgument, "The authorization header is malformed; " + message, "AuthorizationHeaderMalformed");
}

Error payload_mismatch(std::string_view service) {
  if (is_s3(service)) {
    return Error(ErrorCode::kInvalidArgument, "The provided 'x-amz-content-sha256' header does not match what was computed.",
                 "XAmzContentSHA256Mismatch");
  }
  return invalid_signature(
      "The value of the 'x-amz-content-sha256' header does not match the calculated hash of the request's body. Check what changes the "
      "body "
      "between signing and sending.");
}

}  // namespace mayfly::net::internal
