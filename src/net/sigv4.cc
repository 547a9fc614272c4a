#include "net/sigv4.h"

#include <algorithm>
#include <array>

#include "base/assert.h"
#include "base/bytes.h"
#include "net/internal/http_guard.h"
#include "net/internal/sigv2.h"
#include "net/internal/sigv4_canonical.h"
#include "net/internal/sigv4_errors.h"

namespace mayfly::net {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
using namespace internal;

constexpr std::chrono::seconds kSkew = std::chrono::minutes(5);     // AWS: "within five minutes of the time stamp"
constexpr std::chrono::seconds kSkewS3 = std::chrono::minutes(15);  // S3: "within 15 minutes"
constexpr std::int64_t kExpiresMax = 7 * 24 * 3600;
constexpr std::size_t kAccessKeyMax = 128;  // IAM's limit
constexpr std::size_t kScopePartMax = 64;
constexpr std::size_t kSignedHeadersMax = 128;

std::string header_value(const SigningKey& key, const DatedScope& scope, const std::vector<std::string>& names,
                         const std::string& signature) {
  return std::string(kSigv4Algorithm) + " Credential=" + key.access_key + "/" + scope.text() + ", SignedHeaders=" + join_names(names) +
         ", Signature=" + signature;
}

std::vector<std::string> names_to_sign(const Headers& headers) {
  std::vector<std::string> names;
  for (const Headers::Field& field : headers.fields()) {
    std::string name = to_lower(field.name);
    if (name == "host" || name == "content-type" || name == "content-md5" || name.starts_with("x-amz-")) names.push_back(std::move(name));
  }
  std::ranges::sort(names);
  names.erase(std::ranges::unique(names).begin(), names.end());
  return names;
}

// --- Parsing ---

bool is_lower_hex(std::string_view text, std::size_t size) {
  return text.size() == size && std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_access_key(std::string_view text) {
  return !text.empty() && text.size() <= kAccessKeyMax && std::ranges::all_of(text, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  });
}

bool is_scope_name(std::string_view text) {
  return !text.empty() && text.size() <= kScopePartMax && std::ranges::all_of(text, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-' || c == '_' || c == '.';
  });
}

// "AKID/20150830/us-east-1/service/aws4_request". Never echoed: it holds the access key.
Result<void> take_credential(SignatureClaim& claim, std::string_view credential) {
  std::array<std::string_view, 5> parts;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::size_t slash = i + 1 < parts.size() ? credential.find('/') : credential.size();
    if (slash == std::string_view::npos)
      return malformed(claim, "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term");
    parts[i] = credential.substr(0, slash);
    credential.remove_prefix(std::min(slash + 1, credential.size()));
  }
  if (parts[4].find('/') != std::string_view::npos)
    return malformed(claim, "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term");
  if (!is_scope_name(parts[2])) return malformed(claim, "Credential should be scoped to a valid region.");
  if (!is_scope_name(parts[3])) return malformed(claim, "Credential should be scoped to a valid service.");
  claim.access_key = parts[0];
  claim.date = parts[1];
  claim.region = parts[2];
  claim.service = parts[3];
  if (parts[4] != kScopeEnd) return wrong_scope(claim, "Credential should be scoped with a valid terminator: 'aws4_request'.");
  if (!is_access_key(claim.access_key))
    return malformed(claim, "Credential does not begin with an access key: 1 to 128 letters, digits and '_'.");
  return {};
}

Result<void> take_signed_headers(SignatureClaim& claim, std::string_view names) {
  claim.signed_headers.reserve(8);
  while (!names.empty()) {
    const std::size_t end = std::min(names.find(';'), names.size());
    const std::string_view name = names.substr(0, end);
    if (!is_token(name) || claim.signed_headers.size() == kSignedHeadersMax) {
      return malformed(claim, "SignedHeaders must be at most 128 header names separated by ';'.");
    }
    claim.signed_headers.push_back(to_lower(name));
    names.remove_prefix(std::min(end + 1, names.size()));
  }
  std::ranges::sort(claim.signed_headers);
  claim.signed_headers.erase(std::ranges::unique(claim.signed_headers).begin(), claim.signed_headers.end());
  return {};
}

Result<void> take_signature(SignatureClaim& claim, std::string_view signature) {
  if (!is_lower_hex(signature, 64)) return signature_mismatch(claim.service, "A signature has 64 lower-case hexadecimal digits.");
  claim.signature = signature;
  return {};
}

// "Mon, 09 Sep 2011 23:36:00 GMT" (RFC 9110, section 5.6.7; botocore writes "-0000") or SigV4's own form, in a Date header.
Result<base::WallTime> parse_date_header(std::string_view text) {
  constexpr std::string_view kMonths = "JanFebMarAprMayJunJulAugSepOctNovDec";
  if (text.size() < 26 || text[3] != ',') return base::parse_amz_date(text);
  const std::string_view zone = text.substr(25);
  const std::size_t month = kMonths.find(text.substr(8, 3));
  if (month == std::string_view::npos || month % 3 != 0 || (zone != " GMT" && zone != " -0000" && zone != " +0000"))
    return base::parse_amz_date(text);
  const std::size_t number = month / 3 + 1;
  std::string amz(text.substr(12, 4));
  amz += static_cast<char>('0' + number / 10);
  amz += static_cast<char>('0' + number % 10);
  amz.append(text.substr(5, 2)).append("T").append(text.substr(17, 2)).append(text.substr(20, 2)).append(text.substr(23, 2)).append("Z");
  return base::parse_amz_date(amz);
}

// x-amz-content-sha256 as said by the request: in a header, or in the query of a URL signed by the JavaScript SDK.
Result<void> take_payload_hash(SignatureClaim& claim, std::string_view said) {
  if (said.empty()) {
    if (claim.presigned && is_s3(claim.service)) claim.payload_hash = kUnsignedPayload;
    return {};
  }
  const bool unsigned_allowed = claim.presigned || is_s3(claim.service);
  const bool known = is_lower_hex(said, 64) || said == kStreamingSigned || said == kStreamingSignedTrailer ||
                     (unsigned_allowed && (said == kUnsignedPayload || said == kStreamingUnsignedTrailer));
  if (!known) {
    return malformed(claim, std::string("x-amz-content-sha256 must be ") +
                                (unsigned_allowed ? "UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, " : "") +
                                "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, or a valid sha256 value.");
  }
  claim.payload_hash = said;
  return {};
}

// Views of the header's value.
struct Parameters {
  std::optional<std::string_view> credential, signed_headers, signature;
};

// " Credential=..., SignedHeaders=..., Signature=...": each once, in any order; clients write the comma with and without a space.
Result<Parameters> authorization_parameters(std::string_view text) {
  Parameters found;
  SignatureClaim unknown;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view item = trim(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
    const std::size_t equals = item.find('=');
    if (equals == std::string_view::npos)
      return malformed(unknown, "A part of the Authorization header is not a valid key=value pair (missing equal-sign).");
    const std::string_view name = item.substr(0, equals);
    std::optional<std::string_view>* slot = name == "Credential"      ? &found.credential
                                            : name == "SignedHeaders" ? &found.signed_headers
                                            : name == "Signature"     ? &found.signature
                                                                      : nullptr;
    if (slot == nullptr) continue;
    if (slot->has_value()) return malformed(unknown, "The Authorization header has the parameter '" + std::string(name) + "' twice.");
    *slot = item.substr(equals + 1);
  }
  return found;
}

template <typename Text>
bool absent(const std::optional<Text>& value) {
  return !value || value->empty();
}

std::string missing_header_parts(const Parameters& found, bool has_date, std::string_view authorization) {
  std::string message;
  if (absent(found.credential)) message += "Authorization header requires 'Credential' parameter. ";
  if (absent(found.signature)) message += "Authorization header requires 'Signature' parameter. ";
  if (absent(found.signed_headers)) message += "Authorization header requires 'SignedHeaders' parameter. ";
  if (!has_date) message += "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ";
  if (message.empty()) return message;
  return message +
         "(Hashed with SHA-256 and encoded with Base64) Authorization=" + base::base64_encode(base::as_text(base::sha256(authorization)));
}

std::ptrdiff_t count_fields(const Headers& headers, std::string_view name) {
  return std::ranges::count_if(headers.fields(), [name](const Headers::Field& field) { return equal_ignoring_case(field.name, name); });
}

Result<void> refuse_repeated(const RequestHead& head) {
  for (const std::string_view name : {"Authorization", "X-Amz-Date", "Date", "X-Amz-Security-Token", "X-Amz-Content-SHA256", "Host"}) {
    if (count_fields(head.headers, name) > 1) return malformed({}, "The header '" + std::string(name) + "' occurs more than once.");
  }
  return {};
}

Result<SignatureClaim> parse_header_form(const RequestHead& head, std::string_view authorization) {
  SignatureClaim claim;
  const std::size_t space = std::min(authorization.find(' '), authorization.size());
  if (authorization.substr(0, space) != kSigv4Algorithm) {
    return malformed(claim, "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.");
  }
  const auto amz_date = head.headers.find("X-Amz-Date");
  const auto date = head.headers.find("Date");
  MAYFLY_ASSIGN(const Parameters found, authorization_parameters(authorization.substr(space)));
  if (std::string message = missing_header_parts(found, amz_date || date, authorization); !message.empty())
    return malformed(claim, std::move(message));
  MAYFLY_TRY(take_credential(claim, *found.credential));
  MAYFLY_TRY(take_signed_headers(claim, *found.signed_headers));
  MAYFLY_TRY(take_signature(claim, *found.signature));
  const auto time = amz_date ? base::parse_amz_date(*amz_date) : parse_date_header(*date);
  if (!time.ok()) return malformed(claim, "Date must be in ISO-8601 'basic format': YYYYMMDD'T'hhmmss'Z', as in 20111008T070709Z.");
  claim.time = *time;
  claim.session_token = head.headers.get("X-Amz-Security-Token");
  MAYFLY_TRY(take_payload_hash(claim, head.headers.get("X-Amz-Content-SHA256")));
  return claim;
}

// The authentication parameters of a presigned URL.
struct QueryParameters {
  std::optional<std::string> algorithm, credential, date, expires, signed_headers, signature, token, content_sha256;
};

Result<QueryParameters> query_parameters(std::string_view query) {
  SignatureClaim presigned;
  presigned.presigned = true;
  auto parameters = parse_query(query);
  if (!parameters.ok()) return malformed(presigned, "The query string is not validly percent-encoded.");
  QueryParameters found;
  const std::array<std::pair<std::string_view, std::optional<std::string>*>, 8> known = {{{"X-Amz-Algorithm", &found.algorithm},
                                                                                          {"X-Amz-Credential", &found.credential},
                                                                                          {"X-Amz-Date", &found.date},
                                                                                          {"X-Amz-Expires", &found.expires},
                                                                                          {"X-Amz-SignedHeaders", &found.signed_headers},
                                                                                          {"X-Amz-Signature", &found.signature},
                                                                                          {"X-Amz-Security-Token", &found.token},
                                                                                          {"X-Amz-Content-Sha256", &found.content_sha256}}};
  for (auto& [name, value] : *parameters) {
    for (const auto& [wanted, slot] : known) {
      if (!equal_ignoring_case(name, wanted)) continue;
      if (slot->has_value()) return malformed(presigned, "AWS query-string parameter '" + std::string(wanted) + "' occurs more than once.");
      *slot = std::move(value);
      break;
    }
  }
  return found;
}

Result<void> take_expires(SignatureClaim& claim, std::string_view text) {
  const auto seconds = parse_length(text);
  if (!seconds) return malformed(claim, "X-Amz-Expires should be a number of seconds.");
  if (*seconds > static_cast<std::uint64_t>(kExpiresMax)) {
    return malformed(
        claim, "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds");
  }
  claim.expires = std::chrono::seconds(static_cast<std::int64_t>(*seconds));
  return {};
}

Result<SignatureClaim> parse_query_form(const RequestHead& head) {
  MAYFLY_ASSIGN(const QueryParameters found, query_parameters(head.query()));
  SignatureClaim claim;
  claim.presigned = true;
  std::string missing;
  const auto need = [&missing](const std::optional<std::string>& value, std::string_view name) {
    if (absent(value)) missing += "AWS query-string parameters must include '" + std::string(name) + "'. ";
  };
  need(found.algorithm, "X-Amz-Algorithm");
  need(found.credential, "X-Amz-Credential");
  need(found.signature, "X-Amz-Signature");
  need(found.signed_headers, "X-Amz-SignedHeaders");
  need(found.date, "X-Amz-Date");
  need(found.expires, "X-Amz-Expires");
  if (!missing.empty()) return malformed(claim, missing + "Re-examine the query-string parameters.");
  MAYFLY_TRY(take_credential(claim, *found.credential));
  if (*found.algorithm != kSigv4Algorithm) return malformed(claim, "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\"");
  MAYFLY_TRY(take_signed_headers(claim, *found.signed_headers));
  MAYFLY_TRY(take_signature(claim, *found.signature));
  const auto time = base::parse_amz_date(*found.date);
  if (!time.ok()) return malformed(claim, "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"");
  claim.time = *time;
  MAYFLY_TRY(take_expires(claim, *found.expires));
  claim.session_token = found.token.value_or("");
  const std::string header_hash(head.headers.get("X-Amz-Content-SHA256"));
  if (!absent(found.content_sha256) && !header_hash.empty() && header_hash != *found.content_sha256)
    return malformed(claim, "X-Amz-Content-Sha256 differs between query and header.");
  MAYFLY_TRY(take_payload_hash(claim, absent(found.content_sha256) ? header_hash : *found.content_sha256));
  return claim;
}

bool looks_presigned(std::string_view query) {
  if (query.empty()) return false;
  for (const std::string_view name : {"X-Amz-Algorithm", "X-Amz-Signature", "X-Amz-Credential"}) {
    if (query_parameter(query, name)) return true;
  }
  return false;
}

// --- Verifying ---

Result<void> check_time(const SignatureClaim& claim, base::WallTime now) {
  const std::string request_date = base::format_amz_date(claim.time).substr(0, 8);
  if (claim.date != request_date) {
    return wrong_scope(claim, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '" +
                                  claim.date.substr(0, 32) + "' != '" + request_date + "', from '" + base::format_amz_date(claim.time) +
                                  "'.");
  }
  const std::chrono::seconds skew = is_s3(claim.service) ? kSkewS3 : kSkew;
  if (claim.time > now + skew) return outside_window(claim, Skew::kFuture, now, skew);
  const std::chrono::seconds valid = claim.presigned ? claim.expires : skew;
  if (claim.time < now - valid) return outside_window(claim, Skew::kPast, now, valid);
  return {};
}

// What Mayfly acts on must be under the signature: Host, every x-amz-* field, and Date where it is the request's time.
Result<void> check_signed_headers(const SignatureClaim& claim, const RequestHead& head) {
  const auto is_signed = [&claim](const std::string& name) { return std::ranges::binary_search(claim.signed_headers, name); };
  if (!is_signed("host")) return not_signed(claim.service, "host");
  constexpr std::string_view kAmazon = "x-amz-";
  for (const Headers::Field& field : head.headers.fields()) {
    if (!equal_ignoring_case(std::string_view(field.name).substr(0, kAmazon.size()), kAmazon)) continue;
    const std::string name = to_lower(field.name);
    if (!is_signed(name)) return not_signed(claim.service, name);
  }
  if (!claim.presigned && !head.headers.contains("X-Amz-Date") && !is_signed("date")) return not_signed(claim.service, "date");
  return {};
}

}  // namespace

void sign_request(RequestHead& head, std::string_view body, const SigningKey& key, const SigningScope& scope, base::WallTime now) {
  const std::string amz_date = base::format_amz_date(now);
  const std::string hash = payload_hash(body);
  head.headers.remove("Authorization");
  head.headers.remove("X-Amz-Security-Token");
  head.headers.set("X-Amz-Date", amz_date);
  head.headers.set("x-amz-content-sha256", hash);
  if (!key.session_token.empty()) head.headers.add("X-Amz-Security-Token", key.session_token);
  const std::vector<std::string> names = names_to_sign(head.headers);
  const DatedScope dated{.date = amz_date.substr(0, 8), .region = scope.region, .service = scope.service};
  const auto canonical = canonical_request(head, names, {.service = scope.service, .payload_hash = hash});
  // A target that is not validly percent-encoded cannot be signed; any server refuses the unsigned request.
  if (!canonical.ok()) return;
  head.headers.add(
      "Authorization",
      header_value(key, dated, names, sign_text(signing_key(key.secret_key, dated), string_to_sign(amz_date, dated, *canonical))));
}

std::string presign_get(const std::string& host, const std::string& path, const SigningKey& key, const SigningScope& scope,
                        base::WallTime now, std::chrono::seconds valid) {
  const std::string amz_date = base::format_amz_date(now);
  const DatedScope dated{.date = amz_date.substr(0, 8), .region = scope.region, .service = scope.service};
  std::string query = "X-Amz-Algorithm=" + std::string(kSigv4Algorithm) +
                      "&X-Amz-Credential=" + base::percent_encode(key.access_key + "/" + dated.text()) + "&X-Amz-Date=" + amz_date +
                      "&X-Amz-Expires=" + std::to_string(valid.count()) + "&X-Amz-SignedHeaders=host";
  if (!key.session_token.empty()) query += "&X-Amz-Security-Token=" + base::percent_encode(key.session_token);
  RequestHead head{.method = "GET", .target = path + "?" + query, .headers = {}};
  head.headers.add("Host", host);
  const std::string hash = is_s3(scope.service) ? std::string(kUnsignedPayload) : payload_hash("");
  const auto canonical = canonical_request(head, {"host"}, {.service = scope.service, .payload_hash = hash});
  if (!canonical.ok()) return query;  // as in sign_request()
  return query + "&X-Amz-Signature=" + sign_text(signing_key(key.secret_key, dated), string_to_sign(amz_date, dated, *canonical));
}

Result<SignatureClaim> parse_claim(const RequestHead& head) {
  MAYFLY_TRY(refuse_repeated(head));
  const auto authorization = head.headers.find("Authorization");
  const bool presigned = looks_presigned(head.query());
  if (authorization && presigned) {
    return malformed({},
                     "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the "
                     "Authorization header should be specified");
  }
  if (presigned) return parse_query_form(head);
  if (!authorization && looks_presigned_v2(head.query())) return parse_presigned_v2(head);
  if (!authorization || trim(*authorization).empty())
    return Error(ErrorCode::kUnauthenticated, "Missing Authentication Token", "MissingAuthenticationTokenException");
  return parse_header_form(head, trim(*authorization));
}

std::string s3_bucket_of_host(std::string_view host) {
  const std::size_t colon = host.starts_with('[') ? std::string_view::npos : host.rfind(':');
  std::string name = to_lower(host.substr(0, colon));
  if (name.starts_with('[') || name.find_first_not_of("0123456789.") == std::string::npos) return {};  // an address
  for (const std::string_view mark : {".s3.", ".s3-"}) {
    if (const std::size_t found = name.rfind(mark); found != std::string::npos) return name.substr(0, found);
  }
  constexpr std::string_view kLocal = ".localhost";
  if (name.starts_with("s3.") || name.starts_with("s3-") || !name.ends_with(kLocal)) return {};
  name.resize(name.size() - kLocal.size());
  return name;
}

Result<void> check_scope(const SignatureClaim& claim, const SigningScope& expected) {
  const bool service_fits = expected.service.empty() || claim.service == expected.service;
  if (claim.version_2 && service_fits) return {};  // of S3, and of no region
  if (!claim.version_2 && !expected.region.empty() && claim.region != expected.region)
    return wrong_scope(
        claim, "Credential should be scoped to a valid region, not '" + claim.region + "'; this endpoint is in '" + expected.region + "'.");
  if (!service_fits) return wrong_scope(claim, "Credential should be scoped to correct service: '" + expected.service + "'.");
  return {};
}

Result<void> verify_claim(const SignatureClaim& claim, const RequestHead& head, const std::string& secret_key, base::WallTime now) {
  if (claim.payload_hash.empty()) return Error(ErrorCode::kInternal, "a signature was to be verified before the body's hash was known");
  if (claim.version_2) return verify_presigned_v2(claim, head, secret_key, now);
  MAYFLY_TRY(check_time(claim, now));
  MAYFLY_TRY(check_signed_headers(claim, head));
  const CanonicalInput input{.service = claim.service,
                             .signature = claim.presigned ? QuerySignature::kLeaveOut : QuerySignature::kKeep,
                             .payload_hash = claim.payload_hash};
  const auto canonical = canonical_request(head, claim.signed_headers, input);
  if (!canonical.ok() && canonical.error().code() == ErrorCode::kNotFound) {
    return signature_mismatch(claim.service,
                              "The header '" + canonical.error().message() + "' is signed but the request does not have it.");
  }
  if (!canonical.ok()) return signature_mismatch(claim.service, "The request's path or query is not validly percent-encoded.");
  const DatedScope scope{.date = claim.date, .region = claim.region, .service = claim.service};
  const std::string expected =
      sign_text(signing_key(secret_key, scope), string_to_sign(base::format_amz_date(claim.time), scope, *canonical));
  if (!base::equal_constant_time(expected, claim.signature)) return signature_mismatch(claim.service);
  return {};
}

std::string payload_hash(std::string_view body) { return hex_sha256(body); }

bool is_streaming(const SignatureClaim& claim) { return claim.payload_hash.starts_with(kStreamingPrefix); }

Result<void> check_payload(const SignatureClaim& claim, std::string_view body) {
  if (claim.payload_hash == kUnsignedPayload) return {};
  if (!base::equal_constant_time(payload_hash(body), claim.payload_hash)) return payload_mismatch(claim.service);
  return {};
}

}  // namespace mayfly::net
