#include "services/internal/object_rules.h"

#include <algorithm>
#include <set>

#include "base/json.h"

namespace mayfly::services::internal {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::size_t kTagKeyMax = 128;    // characters
constexpr std::size_t kTagValueMax = 256;  // characters

bool is_utf8(std::string_view text) { return base::valid_utf8(std::string(text)) == text; }
std::size_t characters_in(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

bool is_small_alphanumeric(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

// RFC 9110, sections 5.6.2 and 5.5.
bool is_token(std::string_view text) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::ranges::all_of(text, [&](char c) {
    return is_small_alphanumeric(c) || (c >= 'A' && c <= 'Z') || kMarks.find(c) != std::string_view::npos;
  });
}

bool looks_like_address(std::string_view name) {
  return std::ranges::count(name, '.') == 3 && name.find_first_not_of("0123456789.") == std::string_view::npos;
}

Error invalid_header(std::string_view name) {
  return s3_error(ErrorCode::kInvalidArgument, "InvalidArgument",
                  "The name and the value of the header " + base::valid_utf8(std::string(name)) +
                      " must be those of an HTTP header, and UTF-8: a token, and no control characters.");
}

}  // namespace

Error s3_error(ErrorCode code, std::string id, std::string message) { return Error(code, std::move(message), std::move(id)); }
Error no_such_bucket() { return s3_error(ErrorCode::kNotFound, "NoSuchBucket", "The specified bucket does not exist"); }
Error no_such_key() { return s3_error(ErrorCode::kNotFound, "NoSuchKey", "The specified key does not exist."); }
Error no_such_upload() {
  return s3_error(ErrorCode::kNotFound, "NoSuchUpload",
                  "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.");
}

// docs.aws.amazon.com, "General purpose bucket naming rules".
Result<void> check_bucket_name(std::string_view name) {
  const bool characters = std::ranges::all_of(name, [](char c) { return is_small_alphanumeric(c) || c == '-' || c == '.'; });
  const bool fits = name.size() >= 3 && name.size() <= 63 && characters && is_small_alphanumeric(name.front()) &&
                    is_small_alphanumeric(name.back()) && name.find("..") == std::string_view::npos && !looks_like_address(name);
  const bool reserved = name.starts_with("xn--") || name.starts_with("sthree-") || name.ends_with("-s3alias") ||
                        name.ends_with("--ol-s3") || name.ends_with("--x-s3") || name.ends_with(".mrap");
  if (fits && !reserved) return {};
  return s3_error(ErrorCode::kInvalidArgument, "InvalidBucketName", "The specified bucket is not valid.");
}

Result<void> check_key(std::string_view key) {
  if (key.size() > ObjectLimits::kKeyBytesMax) return s3_error(ErrorCode::kInvalidArgument, "KeyTooLongError", "Your key is too long");
  if (key.empty() || key.find('\0') != std::string_view::npos || !is_utf8(key))
    return s3_error(ErrorCode::kInvalidArgument, "InvalidURI", "Couldn't parse the specified URI.");
  return {};
}

Result<void> check_attributes(const ObjectAttributes& attributes) {
  std::size_t bytes = 0;
  for (const auto& [name, value] : attributes.metadata) {
    bytes += name.size() + value.size();
    if (!is_token(name) || !is_utf8(value) || !is_field_value(value)) return invalid_header("x-amz-meta-" + name);
  }
  const Error too_large =
      s3_error(ErrorCode::kInvalidArgument, "MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size");
  if (bytes > ObjectLimits::kMetadataBytesMax) return too_large;
  for (const auto& [name, value] : attributes.headers) {
    bytes += name.size() + value.size();
    if (!is_token(name) || !is_utf8(value) || !is_field_value(value)) return invalid_header(name);
  }
  if (bytes > ObjectLimits::kHeadersBytesMax) return too_large;
  return check_tags(attributes.tags, ObjectLimits::kObjectTagsMax);
}

Result<void> check_tags(const std::vector<NameValue>& tags, std::size_t max) {
  if (tags.size() > max) {
    return s3_error(
        ErrorCode::kInvalidArgument, "BadRequest",
        max == ObjectLimits::kObjectTagsMax ? "Object tags cannot be greater than 10" : "Bucket tag count cannot be greater than 50");
  }
  std::set<std::string_view> seen;
  for (const auto& [key, value] : tags) {
    if (key.empty() || characters_in(key) > kTagKeyMax || !is_utf8(key) || key.starts_with("aws:"))
      return s3_error(ErrorCode::kInvalidArgument, "InvalidTag", "The TagKey you have provided is invalid");
    if (characters_in(value) > kTagValueMax || !is_utf8(value))
      return s3_error(ErrorCode::kInvalidArgument, "InvalidTag", "The TagValue you have provided is invalid");
    if (!seen.insert(key).second)
      return s3_error(ErrorCode::kInvalidArgument, "InvalidTag", "Cannot provide multiple Tags with the same key");
  }
  return {};
}

Result<void> check_version(std::string_view version) {
  if (version.empty() || version == "null") return {};
  return s3_error(ErrorCode::kNotFound, "NoSuchVersion",
                  "The specified version does not exist. Mayfly keeps one version of an object, named \"null\".");
}

}  // namespace mayfly::services::internal
