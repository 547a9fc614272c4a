// What names, tags and metadata of buckets and objects must be, in S3's words.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "services/buckets.h"

namespace mayfly::services::internal {

[[nodiscard]] base::Error s3_error(base::ErrorCode code, std::string id, std::string message);
[[nodiscard]] base::Error no_such_bucket();
[[nodiscard]] base::Error no_such_key();
[[nodiscard]] base::Error no_such_upload();

// InvalidBucketName.
[[nodiscard]] base::Result<void> check_bucket_name(std::string_view name);
// KeyTooLongError; InvalidURI for what is not UTF-8, holds NUL or is empty.
[[nodiscard]] base::Result<void> check_key(std::string_view key);
// MetadataTooLarge, InvalidArgument for what is not UTF-8 or no header of HTTP could carry.
[[nodiscard]] base::Result<void> check_attributes(const ObjectAttributes& attributes);
// InvalidTag, BadRequest.
[[nodiscard]] base::Result<void> check_tags(const std::vector<NameValue>& tags, std::size_t max);
// NoSuchVersion for any but the one that is there.
[[nodiscard]] base::Result<void> check_version(std::string_view version);

}  // namespace mayfly::services::internal
