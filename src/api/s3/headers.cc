#include "api/s3/headers.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "api/s3/errors.h"
#include "base/bytes.h"

namespace mayfly::api::s3 {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
using services::ChecksumKind;

constexpr std::string_view kMetadataPrefix = "x-amz-meta-";
constexpr std::string_view kEncryption = "x-amz-server-side-encryption";
constexpr std::array<std::string_view, 6> kKept = {"content-type",     "cache-control",    "content-disposition",
                                                   "content-encoding", "content-language", "expires"};
constexpr std::array kChecksums = {ChecksumKind::kCrc32, ChecksumKind::kCrc32c, ChecksumKind::kCrc64Nvme, ChecksumKind::kSha1,
                                   ChecksumKind::kSha256};

std::string checksum_header(ChecksumKind kind) { return "x-amz-checksum-" + net::to_lower(services::checksum_name(kind)); }

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

// "aws-chunked" is how the body travelled, not what it is.
std::string without_aws_chunked(std::string_view encodings) {
  std::string kept;
  while (!encodings.empty()) {
    const std::size_t comma = std::min(encodings.find(','), encodings.size());
    const std::string_view one = trimmed(encodings.substr(0, comma));
    encodings.remove_prefix(std::min(comma + 1, encodings.size()));
    if (one.empty() || net::equal_ignoring_case(one, "aws-chunked")) continue;
    if (!kept.empty()) kept += ",";
    kept += one;
  }
  return kept;
}

// "Wed, 21 Oct 2015 07:28:00 GMT"
std::optional<base::WallTime> parse_http_date(std::string_view text) {
  constexpr std::string_view kMonths = "JanFebMarAprMayJunJulAugSepOctNovDec";
  if (text.size() != 29 || text[3] != ',' || !text.ends_with(" GMT")) return std::nullopt;
  const std::size_t month = kMonths.find(text.substr(8, 3));
  if (month == std::string_view::npos || month % 3 != 0) return std::nullopt;
  const std::size_t number = month / 3 + 1;
  std::string amz(text.substr(12, 4));
  amz += static_cast<char>('0' + number / 10);
  amz += static_cast<char>('0' + number % 10);
  amz.append(text.substr(5, 2)).append("T").append(text.substr(17, 2)).append(text.substr(20, 2)).append(text.substr(23, 2)).append("Z");
  const auto time = base::parse_amz_date(amz);
  if (!time.ok()) return std::nullopt;
  return *time;
}

std::optional<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || ec != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

Result<std::string> decode_checksum(std::string_view text, ChecksumKind kind) {
  auto value = base::base64_decode(trimmed(text));
  if (!value.ok() || value->size() != services::checksum_size(kind))
    return invalid_request("Value for " + checksum_header(kind) + " header is invalid.");
  return value;
}

}  // namespace

Result<void> check_wishes(const Request& request, const std::string& account) {
  if (const std::string owner = request.header("x-amz-expected-bucket-owner"); !owner.empty() && owner != account)
    return s3_error(ErrorCode::kPermissionDenied, "AccessDenied", "Access Denied");
  const std::string acl = request.header("x-amz-acl");
  const bool grants = std::ranges::any_of(request.head->headers.fields(),
                                          [](const auto& field) { return net::to_lower(field.name).starts_with("x-amz-grant-"); });
  if (grants || (!acl.empty() && acl != "private" && acl != "bucket-owner-full-control"))
    return s3_error(ErrorCode::kInvalidArgument, "AccessControlListNotSupported", "The bucket does not allow ACLs");
  for (const std::string_view name : kKept) {
    const std::string parameter = "response-" + std::string(name);
    if (!services::is_field_value(request.parameter(parameter).value_or("")))
      return invalid_argument("The parameter " + parameter + " holds a control character.");
  }
  const std::string encryption = request.header(kEncryption);
  if (!encryption.empty() && encryption != "AES256") return not_implemented("server-side encryption with " + encryption.substr(0, 32));
  for (const net::Headers::Field& field : request.head->headers.fields()) {
    const std::string name = net::to_lower(field.name);
    if (name.starts_with("x-amz-server-side-encryption-")) return not_implemented("encryption with keys of the customer (" + name + ")");
    if (name.starts_with("x-amz-object-lock-")) return invalid_request("Bucket is missing Object Lock Configuration");
  }
  if (const std::string storage = request.header("x-amz-storage-class"); !storage.empty() && storage != "STANDARD")
    return s3_error(ErrorCode::kInvalidArgument, "InvalidStorageClass", "The storage class you specified is not valid");
  if (!request.header("x-amz-website-redirect-location").empty()) return not_implemented("redirections of objects");
  if (!request.header("x-amz-write-offset-bytes").empty()) return not_implemented("appending to objects");
  return {};
}

Result<std::vector<services::NameValue>> read_tagging_header(std::string_view text) {
  auto tags = net::parse_query(text);
  if (!tags.ok())
    return invalid_argument(
        "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.");
  return *std::move(tags);
}

Result<services::ObjectAttributes> read_attributes(const Request& request) {
  services::ObjectAttributes attributes;
  for (const std::string_view name : kKept) {
    std::string value = request.header(name);
    if (name == "content-encoding") value = without_aws_chunked(value);
    if (!value.empty()) attributes.headers.emplace_back(name, std::move(value));
  }
  if (!request.head->headers.contains("content-type")) attributes.headers.emplace_back("content-type", "binary/octet-stream");
  if (std::string encryption = request.header(kEncryption); !encryption.empty())
    attributes.headers.emplace_back(kEncryption, std::move(encryption));
  const auto take = [&](std::string_view name, std::string_view value) {
    std::string lower = net::to_lower(name);
    if (!lower.starts_with(kMetadataPrefix) || lower.size() == kMetadataPrefix.size()) return;
    lower.erase(0, kMetadataPrefix.size());
    const auto present = std::ranges::find(attributes.metadata, lower, &services::NameValue::first);
    if (present == attributes.metadata.end()) {
      attributes.metadata.emplace_back(std::move(lower), trimmed(value));
    } else {
      present->second.append(",").append(trimmed(value));
    }
  };
  for (const net::Headers::Field& field : request.head->headers.fields()) take(field.name, field.value);
  for (const auto& [name, value] : request.parameters) {
    if (!request.head->headers.contains(name)) take(name, value);
  }
  MAYFLY_ASSIGN(attributes.tags, read_tagging_header(request.header("x-amz-tagging")));
  return attributes;
}

Result<StatedChecksum> read_checksum(const net::Headers& headers) {
  StatedChecksum stated;
  const std::string trailer = net::to_lower(headers.get("x-amz-trailer"));
  for (const ChecksumKind kind : kChecksums) {
    const std::string name = checksum_header(kind);
    const auto value = headers.find(name);
    const bool announced = trimmed(trailer) == name;
    if (!value && !announced) continue;
    if (stated.kind != ChecksumKind::kNone)
      return invalid_request("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.");
    stated.kind = kind;
    if (value) {
      MAYFLY_ASSIGN(stated.value, decode_checksum(*value, kind));
    }
  }
  if (!trailer.empty() && stated.kind == ChecksumKind::kNone)
    return invalid_request("The value specified in the x-amz-trailer header is not supported");
  return stated;
}

Result<std::string> read_checksum_value(const net::Headers& headers, ChecksumKind kind) {
  const auto value = headers.find(checksum_header(kind));
  if (!value) return std::string();
  return decode_checksum(*value, kind);
}

Result<std::string> read_md5(const net::Headers& headers) {
  const auto text = headers.find("Content-MD5");
  if (!text) return std::string();
  auto md5 = base::base64_decode(trimmed(*text));
  if (!md5.ok() || md5->size() != services::checksum_size(ChecksumKind::kMd5))
    return s3_error(ErrorCode::kInvalidArgument, "InvalidDigest", "The Content-MD5 you specified was invalid.");
  return md5;
}

Result<void> check_body(const Operation& operation, const net::Headers& headers, std::string_view body) {
  if (operation.name == "CompleteMultipartUpload") return {};  // states the checksum of the object, not of the document
  MAYFLY_ASSIGN(const std::string md5, read_md5(headers));
  if (!md5.empty() && md5 != services::checksum_of(ChecksumKind::kMd5, body))
    return s3_error(ErrorCode::kInvalidArgument, "BadDigest", "The Content-MD5 you specified did not match what we received.");
  MAYFLY_ASSIGN(const StatedChecksum stated, read_checksum(headers));
  if (!stated.value.empty() && stated.value != services::checksum_of(stated.kind, body)) {
    return s3_error(ErrorCode::kInvalidArgument, "BadDigest",
                    "The " + std::string(services::checksum_name(stated.kind)) + " you specified did not match the calculated checksum.");
  }
  return {};
}

Result<services::WriteCondition> read_write_condition(const Request& request) {
  services::WriteCondition condition;
  const std::string absent = request.header("if-none-match");
  if (!absent.empty() && absent != "*") return not_implemented("If-None-Match with a value other than * in writes");
  condition.absent = !absent.empty();
  condition.etag = request.header("if-match");
  if (condition.absent && !condition.etag.empty()) return invalid_request("If-Match and If-None-Match cannot be given together.");
  return condition;
}

services::ReadCondition read_condition(const Request& request, std::string_view prefix) {
  const auto header = [&](std::string_view name) { return request.header(std::string(prefix) + std::string(name)); };
  return {.match = header("if-match"),
          .none_match = header("if-none-match"),
          .modified_since = parse_http_date(header("if-modified-since")),
          .unmodified_since = parse_http_date(header("if-unmodified-since"))};
}

Result<Extent> read_range(std::string_view range, std::uint64_t size) {
  const Extent whole{.first = 0, .length = size, .partial = false};
  constexpr std::string_view kUnit = "bytes=";
  if (!range.starts_with(kUnit)) return whole;
  range.remove_prefix(kUnit.size());
  const std::size_t dash = range.find('-');
  if (dash == std::string_view::npos || range.find(',') != std::string_view::npos) return whole;
  const std::string_view from = trimmed(range.substr(0, dash));
  const std::string_view to = trimmed(range.substr(dash + 1));
  const auto first = parse_number(from);
  const auto last = parse_number(to);
  if ((!from.empty() && !first) || (!to.empty() && !last) || (from.empty() && to.empty()) || (first && last && *first > *last))
    return whole;
  const Error nothing = s3_error(ErrorCode::kInvalidArgument, "InvalidRange", "The requested range is not satisfiable");
  if (from.empty()) {
    if (*last == 0 || size == 0) return nothing;
    const std::uint64_t length = std::min(*last, size);
    return Extent{.first = size - length, .length = length, .partial = true};
  }
  if (*first >= size) return nothing;
  const std::uint64_t end = last ? std::min(*last, size - 1) : size - 1;
  return Extent{.first = *first, .length = end - *first + 1, .partial = true};
}

void add_object_headers(net::Headers& headers, const services::ObjectInfo& object, const Request& request, const Extent& extent) {
  headers.add("Last-Modified", base::format_http_date(object.modified));
  headers.add("ETag", quoted(object.etag));
  headers.add("Accept-Ranges", "bytes");
  for (const auto& [name, value] : object.attributes.headers) {
    const auto override_value = request.parameter("response-" + name);
    headers.add(name, override_value.value_or(value));
  }
  for (const std::string_view name : kKept) {
    const auto value = request.parameter("response-" + std::string(name));
    if (value && !headers.contains(name)) headers.add(std::string(name), *value);
  }
  for (const auto& [name, value] : object.attributes.metadata) headers.add(std::string(kMetadataPrefix) + name, value);
  if (!object.attributes.tags.empty()) headers.add("x-amz-tagging-count", std::to_string(object.attributes.tags.size()));
  if (extent.partial) {
    headers.add("Content-Range", "bytes " + std::to_string(extent.first) + "-" + std::to_string(extent.first + extent.length - 1) + "/" +
                                     std::to_string(object.size));
  }
  // The checksum is that of the whole, so it would not fit a range.
  const bool asked = net::equal_ignoring_case(request.header("x-amz-checksum-mode"), "ENABLED");
  if (asked && !extent.partial) add_checksum(headers, object.checksum, object.parts);
}

void add_checksum(net::Headers& headers, const services::Checksum& checksum, int parts) {
  if (checksum.kind == ChecksumKind::kNone) return;
  headers.add(checksum_header(checksum.kind), checksum_text(checksum, parts));
  headers.add("x-amz-checksum-type", checksum.composite ? "COMPOSITE" : "FULL_OBJECT");
}

std::string checksum_text(const services::Checksum& checksum, int parts) {
  return base::base64_encode(checksum.value) + (checksum.composite ? "-" + std::to_string(parts) : "");
}

std::string quoted(const std::string& etag) { return "\"" + etag + "\""; }

}  // namespace mayfly::api::s3
