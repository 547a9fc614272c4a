#include "services/internal/object_documents.h"

#include <boost/json.hpp>
#include <charconv>

#include "base/bytes.h"
#include "base/json.h"

namespace mayfly::services::internal {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;

Error damaged(std::string_view what) {
  return Error(ErrorCode::kDataLoss, "the index of objects is damaged: the document of " + std::string(what) + " cannot be understood");
}

json::array pairs_json(const std::vector<NameValue>& pairs) {
  json::array all;
  for (const auto& [name, value] : pairs) all.push_back(json::array{name, value});
  return all;
}

json::object checksum_json(const Checksum& checksum) {
  json::object shown;
  if (checksum.kind == ChecksumKind::kNone) return shown;
  shown["kind"] = std::string(checksum_name(checksum.kind));
  shown["composite"] = checksum.composite;
  shown["value"] = base::base64_encode(checksum.value);
  return shown;
}

json::object attributes_json(const ObjectAttributes& attributes) {
  return {
      {"headers", pairs_json(attributes.headers)}, {"metadata", pairs_json(attributes.metadata)}, {"tags", pairs_json(attributes.tags)}};
}

std::string text_of(const json::value& value) { return value.is_string() ? std::string(value.get_string()) : std::string(); }

std::vector<NameValue> pairs_in(const json::object& document, std::string_view name) {
  std::vector<NameValue> pairs;
  const json::value* found = document.if_contains(name);
  if (found == nullptr || !found->is_array()) return pairs;
  for (const json::value& each : found->get_array()) {
    if (each.is_array() && each.get_array().size() == 2) pairs.emplace_back(text_of(each.get_array()[0]), text_of(each.get_array()[1]));
  }
  return pairs;
}

const json::object* object_in(const json::object& document, std::string_view name) {
  const json::value* found = document.if_contains(name);
  return found == nullptr ? nullptr : found->if_object();
}

bool flag_in(const json::object& document, std::string_view name) {
  const json::value* found = document.if_contains(name);
  return found != nullptr && found->is_bool() && found->get_bool();
}

std::string text_in(const json::object& document, std::string_view name) {
  const json::value* found = document.if_contains(name);
  return found == nullptr ? std::string() : text_of(*found);
}

Checksum checksum_in(const json::object& document) {
  Checksum checksum;
  const json::object* found = object_in(document, "checksum");
  if (found == nullptr) return checksum;
  const auto kind = find_checksum(text_in(*found, "kind"));
  auto value = base::base64_decode(text_in(*found, "value"));
  if (!kind || !value.ok()) return checksum;
  return {.kind = *kind, .composite = flag_in(*found, "composite"), .value = *std::move(value)};
}

ObjectAttributes attributes_in(const json::object& document) {
  return {.headers = pairs_in(document, "headers"), .metadata = pairs_in(document, "metadata"), .tags = pairs_in(document, "tags")};
}

Result<json::object> parsed(const std::string& document, std::string_view what) {
  auto value = base::parse_json(document);
  if (!value.ok() || !value->is_object()) return damaged(what);
  const json::value* format = value->get_object().if_contains("format");
  if (format == nullptr || !format->is_int64()) return damaged(what);
  if (format->get_int64() > 1) {
    return Error(ErrorCode::kUnsupported, "the document of " + std::string(what) + " was written by a newer Mayfly (format " +
                                              std::to_string(format->get_int64()) + "); start that version");
  }
  return std::move(value->get_object());
}

// Of "hex-12": 12.
int parts_of_etag(const std::string& etag) {
  const std::size_t dash = etag.find('-');
  int parts = 0;
  if (dash != std::string::npos) std::from_chars(etag.data() + dash + 1, etag.data() + etag.size(), parts);
  return parts;
}

}  // namespace

std::string object_document(const ObjectAttributes& attributes, const Checksum& checksum) {
  json::object document = attributes_json(attributes);
  document["format"] = 1;
  document["checksum"] = checksum_json(checksum);
  return json::serialize(document);
}

std::string upload_document(const UploadDocument& upload) {
  json::object document = attributes_json(upload.attributes);
  document["format"] = 1;
  document["algorithm"] = std::string(checksum_name(upload.checksum));
  document["full_object"] = upload.full_object;
  return json::serialize(document);
}

std::string part_document(const Checksum& checksum) {
  return json::serialize(json::object{{"format", 1}, {"checksum", checksum_json(checksum)}});
}

std::string bucket_document(const std::vector<NameValue>& tags) {
  return json::serialize(json::object{{"format", 1}, {"tags", pairs_json(tags)}});
}

Result<ObjectInfo> object_info(const store::ObjectRow& row) {
  MAYFLY_ASSIGN(const json::object document, parsed(row.document, "the object \"" + row.key + "\""));
  return ObjectInfo{.key = row.key,
                    .size = row.size,
                    .etag = row.etag,
                    .modified = base::wall_from_epoch_ms(row.modified_ms),
                    .attributes = attributes_in(document),
                    .checksum = checksum_in(document),
                    .parts = parts_of_etag(row.etag)};
}

Result<UploadDocument> upload_from(const store::UploadRow& row) {
  MAYFLY_ASSIGN(const json::object document, parsed(row.document, "an upload"));
  return UploadDocument{.attributes = attributes_in(document),
                        .checksum = find_checksum(text_in(document, "algorithm")).value_or(ChecksumKind::kNone),
                        .full_object = flag_in(document, "full_object")};
}

Result<PartInfo> part_info(const store::PartRow& row) {
  MAYFLY_ASSIGN(const json::object document, parsed(row.document, "a part"));
  return PartInfo{.number = row.number,
                  .size = row.size,
                  .etag = row.etag,
                  .modified = base::wall_from_epoch_ms(row.modified_ms),
                  .checksum = checksum_in(document)};
}

Result<std::vector<NameValue>> bucket_tags_from(const store::BucketRow& row) {
  MAYFLY_ASSIGN(const json::object document, parsed(row.document, "the bucket " + row.name));
  return pairs_in(document, "tags");
}

}  // namespace mayfly::services::internal
