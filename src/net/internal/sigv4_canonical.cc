#include "net/internal/sigv4_canonical.h"

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <utility>

namespace mayfly::net::internal {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

bool is_blank(char c) { return c == ' ' || c == '\t'; }

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

// Whether normalising and encoding leave the path as it is: nearly always.
bool is_canonical(std::string_view path) {
  if (!path.starts_with('/')) return false;
  char before = 0;
  for (const char c : path) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '~';
    if (!plain && c != '/' && c != '.') return false;
    if (before == '/' && (c == '/' || c == '.')) return false;  // empty and dot segments, and names that only look like these
    before = c;
  }
  return true;
}

// As botocore and the JavaScript SDK do it: a final slash stays, a final dot segment leaves none.
std::string normalised(std::string_view path) {
  std::vector<std::string_view> kept;
  for (const std::string_view segment : split(path, '/')) {
    if (segment.empty() || segment == ".") continue;
    if (segment != "..") {
      kept.push_back(segment);
    } else if (!kept.empty()) {
      kept.pop_back();
    }
  }
  std::string result;
  for (const std::string_view segment : kept) result.append("/").append(segment);
  if (kept.empty() || path.ends_with('/')) result += '/';
  return result;
}

Result<std::string> encoded_once(std::string_view path) {
  std::string result;
  for (const std::string_view segment : split(path.starts_with('/') ? path.substr(1) : path, '/')) {
    MAYFLY_ASSIGN(const std::string decoded, base::percent_decode(segment));
    result += '/';
    result += base::percent_encode(decoded);
  }
  return result;
}

void append_folded(std::string& out, std::string_view value) {
  if (value.find_first_of(" \t") == std::string_view::npos) {
    out += value;
    return;
  }
  bool gap = false;
  bool begun = false;
  for (const char c : value) {
    if (is_blank(c)) {
      gap = begun;
      continue;
    }
    if (gap) out += ' ';
    out += c;
    gap = false;
    begun = true;
  }
}

}  // namespace

bool is_s3(std::string_view service) {
  return service == "s3" || service == "s3express" || service == "s3-outposts" || service == "s3-object-lambda";
}

Result<std::string> canonical_path(std::string_view path, std::string_view service) {
  if (is_s3(service)) return encoded_once(path);
  if (is_canonical(path)) return std::string(path);
  return base::percent_encode(normalised(path), "/");
}

Result<std::string> canonical_query(std::string_view query, QuerySignature signature) {
  if (query.empty()) return std::string();
  MAYFLY_ASSIGN(auto parameters, parse_query(query));
  if (signature == QuerySignature::kLeaveOut)
    std::erase_if(parameters, [](const auto& item) { return equal_ignoring_case(item.first, "X-Amz-Signature"); });
  for (auto& [name, value] : parameters) {
    name = base::percent_encode(name);
    value = base::percent_encode(value);
  }
  std::ranges::sort(parameters);
  std::string result;
  for (const auto& [name, value] : parameters) {
    if (!result.empty()) result += '&';
    result.append(name).append("=").append(value);
  }
  return result;
}

Result<std::string> canonical_headers(const Headers& headers, const std::vector<std::string>& names) {
  std::string result;
  result.reserve(512);
  for (const std::string& name : names) {
    result.append(name).append(":");
    bool found = false;
    for (const Headers::Field& field : headers.fields()) {
      if (!equal_ignoring_case(field.name, name)) continue;
      if (std::exchange(found, true)) result += ',';
      append_folded(result, field.value);
    }
    if (!found) return Error(ErrorCode::kNotFound, name);
    result += '\n';
  }
  return result;
}

Result<std::string> canonical_request(const RequestHead& head, const std::vector<std::string>& signed_headers,
                                      const CanonicalInput& input) {
  MAYFLY_ASSIGN(const std::string path, canonical_path(head.path(), input.service));
  MAYFLY_ASSIGN(const std::string query, canonical_query(head.query(), input.signature));
  MAYFLY_ASSIGN(const std::string headers, canonical_headers(head.headers, signed_headers));
  std::string result;
  result.reserve(headers.size() + path.size() + query.size() + 256);
  result.append(head.method).append("\n").append(path).append("\n").append(query).append("\n").append(headers).append("\n");
  result.append(join_names(signed_headers)).append("\n").append(input.payload_hash);
  return result;
}

std::string string_to_sign(std::string_view amz_date, const DatedScope& scope, std::string_view canonical_request) {
  std::string result;
  result.reserve(192);
  result.append(kSigv4Algorithm)
      .append("\n")
      .append(amz_date)
      .append("\n")
      .append(scope.text())
      .append("\n")
      .append(hex_sha256(canonical_request));
  return result;
}

namespace {

base::Sha256Digest derive_signing_key(std::string_view secret_key, const DatedScope& scope) {
  const auto date_key = base::hmac_sha256("AWS4" + std::string(secret_key), scope.date);
  const auto region_key = base::hmac_sha256(base::as_text(date_key), scope.region);
  const auto service_key = base::hmac_sha256(base::as_text(region_key), scope.service);
  return base::hmac_sha256(base::as_text(service_key), kScopeEnd);
}

struct DerivedKey {
  std::string secret_key;
  DatedScope scope;
  base::Sha256Digest key{};
};

}  // namespace

// A key holds for a day and takes four of the five hashes of a verification: each thread remembers those it used last.
base::Sha256Digest signing_key(std::string_view secret_key, const DatedScope& scope) {
  constexpr std::size_t kRemembered = 64;
  // Not in the thread's own memory itself, of which every thread gets a zeroed copy whether it verifies or not.
  thread_local const auto remembered = std::make_unique<std::array<DerivedKey, kRemembered>>();
  const std::size_t place = (std::hash<std::string_view>()(secret_key) + std::hash<std::string_view>()(scope.service)) % kRemembered;
  DerivedKey& found = (*remembered)[place];
  if (found.secret_key != secret_key || found.scope != scope || secret_key.empty())
    found = {.secret_key = std::string(secret_key), .scope = scope, .key = derive_signing_key(secret_key, scope)};
  return found.key;
}

std::string sign_text(const base::Sha256Digest& key, std::string_view text) {
  return base::hex_encode(base::hmac_sha256(base::as_text(key), text));
}
std::string hex_sha256(std::string_view bytes) { return base::hex_encode(base::sha256(bytes)); }

std::string join_names(const std::vector<std::string>& names) {
  std::string result;
  for (const std::string& name : names) {
    if (!result.empty()) result += ';';
    result += name;
  }
  return result;
}

}  // namespace mayfly::net::internal
