#include "net/internal/sigv2.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>
#include <vector>

#include "base/bytes.h"
#include "net/internal/http_guard.h"
#include "net/internal/sigv4_canonical.h"
#include "net/internal/sigv4_errors.h"

namespace mayfly::net::internal {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

// Parameters that change what a request means, and so are signed.
constexpr std::array<std::string_view, 37> kSignedParameters = {"accelerate",
                                                                "acl",
                                                                "analytics",
                                                                "cors",
                                                                "defaultObjectAcl",
                                                                "delete",
                                                                "inventory",
                                                                "legal-hold",
                                                                "lifecycle",
                                                                "location",
                                                                "logging",
                                                                "metrics",
                                                                "notification",
                                                                "object-lock",
                                                                "partNumber",
                                                                "policy",
                                                                "replication",
                                                                "requestPayment",
                                                                "response-cache-control",
                                                                "response-content-disposition",
                                                                "response-content-encoding",
                                                                "response-content-language",
                                                                "response-content-type",
                                                                "response-expires",
                                                                "restore",
                                                                "retention",
                                                                "select",
                                                                "select-type",
                                                                "storageClass",
                                                                "tagging",
                                                                "torrent",
                                                                "uploadId",
                                                                "uploads",
                                                                "versionId",
                                                                "versioning",
                                                                "versions",
                                                                "website"};

Error expects_parameters() {
  return Error(ErrorCode::kPermissionDenied, "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters",
               "AccessDenied");
}

// The signature covers names as they are written and x-amz-* ones in lower case, while operations decode names and take x-amz-*
// ones in either case and all of them: no name may be one to the signature and another to the operation.
Result<void> check_names(const RequestHead& head) {
  std::set<std::string_view> amz;
  std::string_view query = head.query();
  while (!query.empty()) {
    const std::size_t end = std::min(query.find('&'), query.size());
    const std::string_view name = query.substr(0, std::min(query.find('='), end));
    query.remove_prefix(std::min(end + 1, query.size()));
    if (name.find_first_of("%+") != std::string_view::npos)
      return signature_mismatch("s3", "The name of a query parameter may not be encoded in a request of signature version 2.");
    const std::string lower = to_lower(name);
    if (lower.starts_with("x-amz-") && (lower != name || !amz.insert(name).second))
      return signature_mismatch("s3", "An x-amz- query parameter must be in lower case and occur once.");
  }
  return {};
}

std::string hmac_sha1(std::string_view key, std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  HMAC(EVP_sha1(), key.data(), static_cast<int>(key.size()), reinterpret_cast<const unsigned char*>(text.data()), text.size(),
       digest.data(), &size);
  return {reinterpret_cast<const char*>(digest.data()), size};
}

// x-amz-* fields of the request, and those that its query carries in their stead.
Result<std::string> canonical_amz_headers(const RequestHead& head) {
  std::map<std::string, std::string> fields;
  for (const Headers::Field& field : head.headers.fields()) {
    const std::string name = to_lower(field.name);
    if (!name.starts_with("x-amz-")) continue;
    const auto [place, fresh] = fields.emplace(name, trim(field.value));
    if (!fresh) place->second.append(",").append(trim(field.value));
  }
  MAYFLY_ASSIGN(const auto parameters, parse_query(head.query()));
  for (const auto& [name, value] : parameters) {
    if (!name.starts_with("x-amz-")) continue;
    if (!is_field_value(value)) return signature_mismatch("s3");  // a line break would begin another field of the signed text
    fields.emplace(name, value);
  }
  std::string text;
  for (const auto& [name, value] : fields) text.append(name).append(":").append(value).append("\n");
  return text;
}

bool is_signed_parameter(std::string_view name) { return std::ranges::find(kSignedParameters, name) != kSignedParameters.end(); }

// Whether `value` reads in the signed text, where it is not encoded, as if further parameters followed it.
bool holds_parameter(std::string_view value) {
  for (std::size_t mark = value.find('&'); mark != std::string_view::npos; mark = value.find('&')) {
    value.remove_prefix(mark + 1);
    if (is_signed_parameter(value.substr(0, value.find_first_of("=&")))) return true;
  }
  return false;
}

// The path with its bucket, also where the host names it, and the parameters that are signed.
Result<std::string> canonical_resource(const RequestHead& head) {
  std::vector<std::pair<std::string, std::string>> kept;  // name, and how it is written
  std::string_view query = head.query();
  while (!query.empty()) {
    const std::size_t end = std::min(query.find('&'), query.size());
    const std::string_view item = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    const std::size_t equals = item.find('=');
    const std::string name(item.substr(0, equals));
    if (!is_signed_parameter(name)) continue;
    std::string written = name;
    if (equals != std::string_view::npos) {
      MAYFLY_ASSIGN(const std::string value, base::percent_decode(item.substr(equals + 1)));
      if (holds_parameter(value)) return signature_mismatch("s3");
      written.append("=").append(value);
    }
    kept.emplace_back(name, std::move(written));
  }
  std::ranges::sort(kept);
  const std::string bucket = s3_bucket_of_host(head.headers.get("Host"));
  std::string resource = bucket.empty() ? std::string() : "/" + bucket;
  resource += head.path();
  for (std::size_t i = 0; i < kept.size(); ++i) resource.append(i == 0 ? "?" : "&").append(kept[i].second);
  return resource;
}

}  // namespace

bool looks_presigned_v2(std::string_view query) {
  return query_parameter(query, "AWSAccessKeyId") && query_parameter(query, "Signature") && !query_parameter(query, "SignatureVersion");
}

Result<SignatureClaim> parse_presigned_v2(const RequestHead& head) {
  SignatureClaim claim;
  claim.presigned = true;
  claim.version_2 = true;
  claim.service = "s3";
  claim.payload_hash = kUnsignedPayload;
  claim.access_key = query_parameter(head.query(), "AWSAccessKeyId").value_or("");
  claim.signature = query_parameter(head.query(), "Signature").value_or("");
  claim.session_token = query_parameter(head.query(), "x-amz-security-token").value_or("");
  const std::string expires = query_parameter(head.query(), "Expires").value_or("");
  std::int64_t seconds = 0;
  const auto [end, ec] = std::from_chars(expires.data(), expires.data() + expires.size(), seconds);
  constexpr std::int64_t kFarthest = 253'402'300'799;  // the last second of year 9999
  if (claim.access_key.empty() || claim.signature.empty() || expires.empty()) return expects_parameters();
  if (ec != std::errc() || end != expires.data() + expires.size() || seconds < 0 || seconds > kFarthest)
    return Error(ErrorCode::kPermissionDenied, "Invalid date (should be seconds since epoch): " + expires.substr(0, 32), "AccessDenied");
  claim.time = base::wall_from_epoch_ms(seconds * 1000);
  return claim;
}

Result<void> verify_presigned_v2(const SignatureClaim& claim, const RequestHead& head, const std::string& secret_key, base::WallTime now) {
  if (now > claim.time) return Error(ErrorCode::kPermissionDenied, "Request has expired", "AccessDenied");
  MAYFLY_TRY(check_names(head));
  const auto fields = canonical_amz_headers(head);
  const auto resource = canonical_resource(head);
  if (!fields.ok() || !resource.ok())
    return signature_mismatch("s3", "The request's query is not validly encoded, or can be read in two ways.");
  std::string text = head.method;
  text.append("\n").append(head.headers.get("Content-MD5")).append("\n").append(head.headers.get("Content-Type")).append("\n");
  text.append(std::to_string(base::epoch_ms(claim.time) / 1000)).append("\n").append(*fields).append(*resource);
  const std::string expected = base::base64_encode(hmac_sha1(secret_key, text));
  if (!base::equal_constant_time(expected, claim.signature)) return signature_mismatch("s3");
  return {};
}

}  // namespace mayfly::net::internal
