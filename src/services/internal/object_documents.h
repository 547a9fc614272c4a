// The documents of rows of store::Objects: JSON with a format number.
#pragma once

#include <string>

#include "base/result.h"
#include "services/buckets.h"

namespace mayfly::services::internal {

// What an upload is started with.
struct UploadDocument {
  ObjectAttributes attributes = {};
  ChecksumKind checksum = ChecksumKind::kNone;
  bool full_object = false;
};

[[nodiscard]] std::string object_document(const ObjectAttributes& attributes, const Checksum& checksum);
[[nodiscard]] std::string upload_document(const UploadDocument& upload);
[[nodiscard]] std::string part_document(const Checksum& checksum);
[[nodiscard]] std::string bucket_document(const std::vector<NameValue>& tags);

// kDataLoss when a document is not one of ours.
[[nodiscard]] base::Result<ObjectInfo> object_info(const store::ObjectRow& row);
[[nodiscard]] base::Result<UploadDocument> upload_from(const store::UploadRow& row);
[[nodiscard]] base::Result<PartInfo> part_info(const store::PartRow& row);
[[nodiscard]] base::Result<std::vector<NameValue>> bucket_tags_from(const store::BucketRow& row);

}  // namespace mayfly::services::internal
