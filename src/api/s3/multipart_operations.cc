#include <algorithm>
#include <array>
#include <charconv>

#include "api/s3/documents.h"
#include "api/s3/errors.h"
#include "api/s3/headers.h"
#include "api/s3/operations.h"
#include "base/bytes.h"
#include "base/time.h"

namespace mayfly::api::s3 {
namespace {

using base::ErrorCode;
using base::Result;
using services::ChecksumKind;

constexpr std::array kChecksums = {ChecksumKind::kCrc32, ChecksumKind::kCrc32c, ChecksumKind::kCrc64Nvme, ChecksumKind::kSha1,
                                   ChecksumKind::kSha256};

std::string element_of(ChecksumKind kind) { return "Checksum" + std::string(services::checksum_name(kind)); }

Result<std::vector<services::CompleteRequest::Part>> read_parts(std::string_view body) {
  MAYFLY_ASSIGN(const XmlElement root, parse_xml(body));
  if (root.name != "CompleteMultipartUpload") return malformed_xml();
  std::vector<services::CompleteRequest::Part> parts;
  for (const XmlElement& element : root.children) {
    if (element.name != "Part") return malformed_xml();
    services::CompleteRequest::Part part;
    const std::string_view number = element.text_of("PartNumber");
    const auto [end, ec] = std::from_chars(number.data(), number.data() + number.size(), part.number);
    if (number.empty() || ec != std::errc() || end != number.data() + number.size() || part.number < 1) return malformed_xml();
    part.etag = element.text_of("ETag");
    if (part.etag.empty()) return malformed_xml();
    for (const ChecksumKind kind : kChecksums) {
      const XmlElement* stated = element.find(element_of(kind));
      if (stated == nullptr) continue;
      auto value = base::base64_decode(stated->text);
      if (!value.ok()) return malformed_xml();
      part.checksums.emplace_back(kind, *std::move(value));
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

void add_upload_owner(XmlWriter& xml, const std::string& account) {
  add_owner(xml, "Initiator", account);
  add_owner(xml, "Owner", account);
  xml.leaf("StorageClass", "STANDARD");
}

std::string_view checksum_type(const services::UploadInfo& upload) { return upload.full_object ? "FULL_OBJECT" : "COMPOSITE"; }

}  // namespace

Result<net::Response> create_multipart_upload(const Call& call) {
  const Request& request = call.request;
  MAYFLY_TRY(check_wishes(request, call.buckets.account().id));
  services::UploadRequest wanted{.bucket = request.bucket, .key = request.key};
  MAYFLY_ASSIGN(wanted.attributes, read_attributes(request));
  const std::string algorithm = request.header("x-amz-checksum-algorithm");
  if (!algorithm.empty()) {
    const auto kind = services::find_checksum(algorithm);
    if (!kind)
      return invalid_request(
          "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, "
          "SHA256]");
    wanted.checksum = *kind;
  }
  const std::string type = request.header("x-amz-checksum-type");
  if (!type.empty() && type != "COMPOSITE" && type != "FULL_OBJECT")
    return invalid_request("Value for x-amz-checksum-type header is invalid.");
  if (type == "COMPOSITE" && wanted.checksum == ChecksumKind::kCrc64Nvme)
    return invalid_request("The COMPOSITE checksum type cannot be used with the crc64nvme checksum algorithm.");
  wanted.full_object = type == "FULL_OBJECT";
  MAYFLY_ASSIGN(const services::UploadInfo upload, call.buckets.create_upload(wanted));
  XmlWriter xml("InitiateMultipartUploadResult");
  xml.leaf("Bucket", request.bucket).leaf("Key", request.key).leaf("UploadId", upload.id);
  net::Response response = xml_answer(xml);
  if (upload.checksum != ChecksumKind::kNone) {
    response.headers.add("x-amz-checksum-algorithm", std::string(services::checksum_name(upload.checksum)));
    response.headers.add("x-amz-checksum-type", std::string(checksum_type(upload)));
  }
  return response;
}

Result<services::PartName> read_part_name(const Request& request) {
  services::PartName part{.bucket = request.bucket, .key = request.key, .upload = request.parameter("uploadId").value_or("")};
  const std::string number = request.parameter("partNumber").value_or("");
  const auto [end, ec] = std::from_chars(number.data(), number.data() + number.size(), part.number);
  if (number.empty() || ec != std::errc() || end != number.data() + number.size())
    return invalid_argument("Part number must be an integer between 1 and 10000, inclusive");
  return part;
}

Result<services::Copying> begin_part_copy(services::Buckets& buckets, const Request& request) {
  MAYFLY_ASSIGN(const services::PartName name, read_part_name(request));
  MAYFLY_ASSIGN(services::CopyRequest copy, read_copy(buckets, request));
  if (const std::string range = request.header("x-amz-copy-source-range"); !range.empty()) {
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    constexpr std::string_view kUnit = "bytes=";
    const std::size_t dash = range.find('-');
    const char* end = range.data() + range.size();
    const bool shaped = range.starts_with(kUnit) && dash != std::string::npos;
    const auto from =
        shaped ? std::from_chars(range.data() + kUnit.size(), end, first) : std::from_chars_result{nullptr, std::errc::invalid_argument};
    const auto to =
        shaped ? std::from_chars(range.data() + dash + 1, end, last) : std::from_chars_result{nullptr, std::errc::invalid_argument};
    if (from.ec != std::errc() || from.ptr != range.data() + dash || to.ec != std::errc() || to.ptr != end)
      return invalid_argument(
          "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the "
          "first and last bytes to copy");
    copy.range = {first, last};
  }
  return buckets.begin_part_copy(name, copy);
}

Result<net::Response> finish_part_copy(services::Buckets& buckets, const Request& request, services::Copying& copying) {
  MAYFLY_ASSIGN(const services::PartName name, read_part_name(request));
  MAYFLY_ASSIGN(const services::PartInfo part, buckets.finish_part_copy(name, copying));
  XmlWriter xml("CopyPartResult");
  xml.leaf("LastModified", base::format_iso_ms(part.modified)).leaf("ETag", quoted(part.etag));
  if (part.checksum.kind != ChecksumKind::kNone) xml.leaf(element_of(part.checksum.kind), base::base64_encode(part.checksum.value));
  return xml_answer(xml);
}

Result<net::Response> complete_multipart_upload(const Call& call) {
  const Request& request = call.request;
  MAYFLY_TRY(check_wishes(request, call.buckets.account().id));
  services::CompleteRequest complete{.bucket = request.bucket, .key = request.key, .upload = request.parameter("uploadId").value_or("")};
  MAYFLY_ASSIGN(complete.parts, read_parts(call.body));
  MAYFLY_ASSIGN(complete.condition, read_write_condition(request));
  // A checksum of the whole: that of a COMPOSITE one ends in "-PARTS".
  for (const ChecksumKind kind : kChecksums) {
    std::string text = request.header("x-amz-checksum-" + net::to_lower(services::checksum_name(kind)));
    if (text.empty()) continue;
    if (const std::size_t dash = text.find('-'); dash != std::string::npos) text.resize(dash);
    auto value = base::base64_decode(text);
    if (!value.ok())
      return invalid_request("Value for x-amz-checksum-" + net::to_lower(services::checksum_name(kind)) + " header is invalid.");
    complete.checksum = {.kind = kind, .composite = false, .value = *std::move(value)};
  }
  MAYFLY_ASSIGN(const services::ObjectInfo made, call.buckets.complete_upload(complete));
  XmlWriter xml("CompleteMultipartUploadResult");
  xml.leaf("Location", "http://" + std::string(request.head->headers.get("Host")) + std::string(request.head->path()))
      .leaf("Bucket", request.bucket)
      .leaf("Key", request.key)
      .leaf("ETag", quoted(made.etag));
  if (made.checksum.kind != ChecksumKind::kNone) {
    xml.leaf(element_of(made.checksum.kind), checksum_text(made.checksum, made.parts));
    xml.leaf("ChecksumType", made.checksum.composite ? "COMPOSITE" : "FULL_OBJECT");
  }
  return xml_answer(xml);
}

Result<net::Response> abort_multipart_upload(const Call& call) {
  const Request& request = call.request;
  MAYFLY_TRY(check_wishes(request, call.buckets.account().id));
  MAYFLY_TRY(call.buckets.abort_upload(request.bucket, request.key, request.parameter("uploadId").value_or("")));
  return empty_answer(204);
}

Result<net::Response> list_parts(const Call& call) {
  const Request& request = call.request;
  const std::string id = request.parameter("uploadId").value_or("");
  MAYFLY_ASSIGN(const bool encode, read_encoding(request));
  MAYFLY_ASSIGN(const std::size_t max,
                read_count(request, "max-parts", services::ObjectLimits::kListMax, services::ObjectLimits::kListMax));
  MAYFLY_ASSIGN(const std::size_t after, read_count(request, "part-number-marker", 0, services::ObjectLimits::kPartsMax));
  MAYFLY_ASSIGN(const services::UploadInfo upload, call.buckets.find_upload(request.bucket, request.key, id));
  MAYFLY_ASSIGN(std::vector<services::PartInfo> parts, call.buckets.list_parts(request.bucket, request.key, id));
  std::erase_if(parts, [&](const services::PartInfo& part) { return part.number <= static_cast<int>(after); });
  const bool truncated = parts.size() > max;
  if (truncated) parts.resize(max);
  XmlWriter xml("ListPartsResult");
  xml.leaf("Bucket", request.bucket).leaf("Key", encoded(request.key, encode)).leaf("UploadId", id);
  add_upload_owner(xml, call.buckets.account().id);
  xml.leaf("PartNumberMarker", std::to_string(after))
      .leaf("NextPartNumberMarker", std::to_string(parts.empty() ? 0 : parts.back().number))
      .leaf("MaxParts", std::to_string(max))
      .leaf("IsTruncated", truncated ? "true" : "false");
  if (encode) xml.leaf("EncodingType", "url");
  if (upload.checksum != ChecksumKind::kNone)
    xml.leaf("ChecksumAlgorithm", services::checksum_name(upload.checksum)).leaf("ChecksumType", checksum_type(upload));
  for (const services::PartInfo& part : parts) {
    xml.open("Part")
        .leaf("PartNumber", std::to_string(part.number))
        .leaf("LastModified", base::format_iso_ms(part.modified))
        .leaf("ETag", quoted(part.etag))
        .leaf("Size", std::to_string(part.size));
    if (part.checksum.kind != ChecksumKind::kNone) xml.leaf(element_of(part.checksum.kind), base::base64_encode(part.checksum.value));
    xml.close();
  }
  return xml_answer(xml);
}

Result<net::Response> list_multipart_uploads(const Call& call) {
  const Request& request = call.request;
  MAYFLY_ASSIGN(const bool encode, read_encoding(request));
  MAYFLY_ASSIGN(const std::size_t max,
                read_count(request, "max-uploads", services::ObjectLimits::kListMax, services::ObjectLimits::kListMax));
  if (!request.parameter("delimiter").value_or("").empty()) return not_implemented("a delimiter in ListMultipartUploads");
  const store::UploadsQuery query{.prefix = request.parameter("prefix").value_or(""),
                                  .after_key = request.parameter("key-marker").value_or(""),
                                  .after_id = request.parameter("upload-id-marker").value_or(""),
                                  .max = max};
  MAYFLY_ASSIGN(const services::UploadsList list, call.buckets.list_uploads(request.bucket, query));
  XmlWriter xml("ListMultipartUploadsResult");
  xml.leaf("Bucket", request.bucket)
      .leaf("KeyMarker", encoded(query.after_key, encode))
      .leaf("UploadIdMarker", query.after_id)
      .leaf("Prefix", encoded(query.prefix, encode))
      .leaf("MaxUploads", std::to_string(max))
      .leaf("IsTruncated", list.truncated ? "true" : "false");
  if (encode) xml.leaf("EncodingType", "url");
  if (list.truncated && !list.uploads.empty())
    xml.leaf("NextKeyMarker", encoded(list.uploads.back().key, encode)).leaf("NextUploadIdMarker", list.uploads.back().id);
  for (const services::UploadInfo& upload : list.uploads) {
    xml.open("Upload").leaf("UploadId", upload.id).leaf("Key", encoded(upload.key, encode));
    xml.leaf("Initiated", base::format_iso_ms(upload.initiated));
    add_upload_owner(xml, call.buckets.account().id);
    if (upload.checksum != ChecksumKind::kNone)
      xml.leaf("ChecksumAlgorithm", services::checksum_name(upload.checksum)).leaf("ChecksumType", checksum_type(upload));
    xml.close();
  }
  return xml_answer(xml);
}

}  // namespace mayfly::api::s3
