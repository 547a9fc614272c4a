#include <algorithm>

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

struct ListStart {
  store::ListQuery query;
  bool encode = false;
  std::size_t max = services::ObjectLimits::kListMax;
};

Result<ListStart> read_list(const Request& request) {
  ListStart start;
  MAYFLY_ASSIGN(start.encode, read_encoding(request));
  MAYFLY_ASSIGN(start.max, read_count(request, "max-keys", services::ObjectLimits::kListMax, services::ObjectLimits::kListMax));
  start.query = {.prefix = request.parameter("prefix").value_or(""),
                 .delimiter = request.parameter("delimiter").value_or(""),
                 .after = {},
                 .max = start.max};
  return start;
}

void add_object(XmlWriter& xml, const store::ObjectRow& object, bool encode) {
  xml.leaf("Key", encoded(object.key, encode))
      .leaf("LastModified", base::format_iso_ms(base::wall_from_epoch_ms(object.modified_ms)))
      .leaf("ETag", quoted(object.etag))
      .leaf("Size", std::to_string(object.size))
      .leaf("StorageClass", "STANDARD");
}

void add_prefixes(XmlWriter& xml, const std::vector<std::string>& prefixes, bool encode) {
  for (const std::string& prefix : prefixes) xml.open("CommonPrefixes").leaf("Prefix", encoded(prefix, encode)).close();
}

// Version 1: the place in the list is a name.
Result<net::Response> list_by_marker(const Call& call, ListStart start) {
  start.query.after = call.request.parameter("marker").value_or("");
  MAYFLY_ASSIGN(const store::ListPage page, call.buckets.list_objects(call.request.bucket, start.query));
  XmlWriter xml("ListBucketResult");
  xml.leaf("Name", call.request.bucket)
      .leaf("Prefix", encoded(start.query.prefix, start.encode))
      .leaf("Marker", encoded(start.query.after, start.encode))
      .leaf("MaxKeys", std::to_string(start.max));
  if (!start.query.delimiter.empty()) xml.leaf("Delimiter", encoded(start.query.delimiter, start.encode));
  if (start.encode) xml.leaf("EncodingType", "url");
  xml.leaf("IsTruncated", page.truncated ? "true" : "false");
  if (page.truncated && !start.query.delimiter.empty()) xml.leaf("NextMarker", encoded(page.next, start.encode));
  for (const store::ObjectRow& object : page.objects) {
    xml.open("Contents");
    add_object(xml, object, start.encode);
    add_owner(xml, "Owner", call.buckets.account().id);
    xml.close();
  }
  add_prefixes(xml, page.prefixes, start.encode);
  return xml_answer(xml);
}

// Version 2: it is a token, which holds the name.
Result<net::Response> list_by_token(const Call& call, ListStart start) {
  const auto token = call.request.parameter("continuation-token");
  const std::string start_after = call.request.parameter("start-after").value_or("");
  start.query.after = start_after;
  if (token) {
    auto name = base::base64_decode(*token);
    if (token->empty() || !name.ok()) return invalid_argument("The continuation token provided is incorrect");
    start.query.after = *std::move(name);
  }
  MAYFLY_ASSIGN(const store::ListPage page, call.buckets.list_objects(call.request.bucket, start.query));
  XmlWriter xml("ListBucketResult");
  xml.leaf("Name", call.request.bucket)
      .leaf("Prefix", encoded(start.query.prefix, start.encode))
      .leaf("KeyCount", std::to_string(page.objects.size() + page.prefixes.size()))
      .leaf("MaxKeys", std::to_string(start.max));
  if (!start.query.delimiter.empty()) xml.leaf("Delimiter", encoded(start.query.delimiter, start.encode));
  if (start.encode) xml.leaf("EncodingType", "url");
  if (!start_after.empty()) xml.leaf("StartAfter", encoded(start_after, start.encode));
  if (token) xml.leaf("ContinuationToken", *token);
  xml.leaf("IsTruncated", page.truncated ? "true" : "false");
  if (page.truncated) xml.leaf("NextContinuationToken", base::base64_encode(page.next));
  const bool owners = call.request.parameter("fetch-owner") == "true";
  for (const store::ObjectRow& object : page.objects) {
    xml.open("Contents");
    add_object(xml, object, start.encode);
    if (owners) add_owner(xml, "Owner", call.buckets.account().id);
    xml.close();
  }
  add_prefixes(xml, page.prefixes, start.encode);
  return xml_answer(xml);
}

// The range of bytes that partNumber names.
Result<Extent> read_part(const services::OpenedObject& opened, const std::string& number) {
  const auto& pieces = opened.reader->pieces();
  const bool digits = !number.empty() && number.size() <= 5 && number.find_first_not_of("0123456789") == std::string::npos;
  const std::size_t wanted = digits ? std::stoul(number) : 0;
  if (wanted < 1 || wanted > static_cast<std::size_t>(services::ObjectLimits::kPartsMax))
    return invalid_argument("Part number must be an integer between 1 and 10000, inclusive");
  if (wanted > pieces.size())
    return s3_error(ErrorCode::kInvalidArgument, "InvalidPartNumber", "The requested partnumber is not satisfiable");
  Extent extent{.first = 0, .length = pieces[wanted - 1].size, .partial = pieces[wanted - 1].size > 0};
  for (std::size_t i = 0; i + 1 < wanted; ++i) extent.first += pieces[i].size;
  return extent;
}

}  // namespace

Result<net::Response> list_objects(const Call& call) {
  MAYFLY_TRY(check_wishes(call.request, call.buckets.account().id));
  MAYFLY_ASSIGN(ListStart start, read_list(call.request));
  const auto type = call.request.parameter("list-type");
  if (!type) return list_by_marker(call, std::move(start));
  if (*type != "2") return invalid_argument("Invalid List Type specified in Request");
  return list_by_token(call, std::move(start));
}

Result<net::Response> list_object_versions(const Call& call) {
  MAYFLY_ASSIGN(ListStart start, read_list(call.request));
  start.query.after = call.request.parameter("key-marker").value_or("");
  MAYFLY_ASSIGN(const store::ListPage page, call.buckets.list_objects(call.request.bucket, start.query));
  XmlWriter xml("ListVersionsResult");
  xml.leaf("Name", call.request.bucket)
      .leaf("Prefix", encoded(start.query.prefix, start.encode))
      .leaf("KeyMarker", encoded(start.query.after, start.encode))
      .leaf("VersionIdMarker", "")
      .leaf("MaxKeys", std::to_string(start.max));
  if (!start.query.delimiter.empty()) xml.leaf("Delimiter", encoded(start.query.delimiter, start.encode));
  if (start.encode) xml.leaf("EncodingType", "url");
  xml.leaf("IsTruncated", page.truncated ? "true" : "false");
  if (page.truncated) xml.leaf("NextKeyMarker", encoded(page.next, start.encode)).leaf("NextVersionIdMarker", "null");
  for (const store::ObjectRow& object : page.objects) {
    xml.open("Version").leaf("VersionId", "null").leaf("IsLatest", "true");
    add_object(xml, object, start.encode);
    add_owner(xml, "Owner", call.buckets.account().id);
    xml.close();
  }
  add_prefixes(xml, page.prefixes, start.encode);
  return xml_answer(xml);
}

Result<net::Response> delete_objects(const Call& call) {
  MAYFLY_TRY(check_wishes(call.request, call.buckets.account().id));
  MAYFLY_ASSIGN(const XmlElement root, parse_xml(call.body));
  if (root.name != "Delete") return malformed_xml();
  const bool quiet = root.text_of("Quiet") == "true";
  struct Asked {
    std::string key, version;
    std::optional<base::Error> refused;
  };
  std::vector<Asked> asked;
  std::vector<std::string> keys;
  for (const XmlElement& element : root.children) {
    if (element.name == "Quiet") continue;
    if (element.name != "Object" || element.text_of("Key").empty()) return malformed_xml();
    Asked one{.key = std::string(element.text_of("Key")), .version = std::string(element.text_of("VersionId")), .refused = {}};
    if (element.find("ETag") != nullptr || element.find("Size") != nullptr || element.find("LastModifiedTime") != nullptr)
      one.refused = not_implemented("conditions in DeleteObjects");
    if (!one.version.empty() && one.version != "null")
      one.refused = s3_error(ErrorCode::kNotFound, "NoSuchVersion", "The specified version does not exist.");
    if (one.key.size() > services::ObjectLimits::kKeyBytesMax)
      one.refused = s3_error(ErrorCode::kInvalidArgument, "KeyTooLongError", "Your key is too long");
    if (!one.refused) keys.push_back(one.key);
    asked.push_back(std::move(one));
  }
  if (asked.empty() || asked.size() > services::ObjectLimits::kListMax) return malformed_xml();
  MAYFLY_TRY(call.buckets.delete_objects(call.request.bucket, keys));
  XmlWriter xml("DeleteResult");
  for (const Asked& one : asked) {
    if (!one.refused && quiet) continue;
    xml.open(one.refused ? "Error" : "Deleted").leaf("Key", one.key);
    if (!one.version.empty()) xml.leaf("VersionId", one.version);
    if (one.refused) xml.leaf("Code", one.refused->id()).leaf("Message", one.refused->message());
    xml.close();
  }
  return xml_answer(xml);
}

Result<Sending> prepare_sending(services::Buckets& buckets, const Request& request) {
  MAYFLY_TRY(check_wishes(request, buckets.account().id));
  MAYFLY_ASSIGN(services::OpenedObject opened, buckets.open_object(object_name(request)));
  const services::ObjectInfo& info = opened.info;
  const services::ReadCondition condition = read_condition(request);
  const services::ReadVerdict verdict = services::judge(condition, info);
  if (verdict == services::ReadVerdict::kFailed) return services::precondition_failed();
  Sending sending;
  if (verdict == services::ReadVerdict::kNotModified) {
    sending.head = empty_answer(304);
    sending.head.headers.add("ETag", quoted(info.etag));
    sending.head.headers.add("Last-Modified", base::format_http_date(info.modified));
    return sending;
  }
  const std::string range = request.header("range");
  const auto part = request.parameter("partNumber");
  if (part && !range.empty()) return invalid_request("Cannot specify both Range header and partNumber query parameter.");
  if (part) {
    MAYFLY_ASSIGN(sending.extent, read_part(opened, *part));
  } else {
    MAYFLY_ASSIGN(sending.extent, read_range(range, info.size));
  }
  sending.head = empty_answer(sending.extent.partial ? 206 : 200);
  add_object_headers(sending.head.headers, info, request, sending.extent);
  if (part && info.parts > 0) sending.head.headers.add("x-amz-mp-parts-count", std::to_string(info.parts));
  sending.reader = std::move(opened.reader);
  return sending;
}

Result<net::Response> head_object(const Call& call) {
  MAYFLY_ASSIGN(Sending sending, prepare_sending(call.buckets, call.request));
  if (sending.reader != nullptr) sending.head.headers.add("Content-Length", std::to_string(sending.extent.length));
  return std::move(sending.head);
}

Result<net::Response> delete_object(const Call& call) {
  MAYFLY_TRY(check_wishes(call.request, call.buckets.account().id));
  if (!call.request.header("if-match").empty()) return not_implemented("If-Match in DeleteObject");
  const std::string version = call.request.parameter("versionId").value_or("");
  if (!version.empty() && version != "null") return invalid_argument("Invalid version id specified");
  MAYFLY_TRY(call.buckets.delete_objects(call.request.bucket, {call.request.key}));
  return empty_answer(204);
}

Result<services::CopyRequest> read_copy(services::Buckets& buckets, const Request& request) {
  MAYFLY_TRY(check_wishes(request, buckets.account().id));
  MAYFLY_ASSIGN(CopySource source, read_copy_source(request.header("x-amz-copy-source")));
  return services::CopyRequest{
      .from = {.bucket = std::move(source.bucket), .key = std::move(source.key), .version = std::move(source.version)},
      .condition = read_condition(request, "x-amz-copy-source-"),
      .to_bucket = request.bucket,
      .to_key = request.key};
}

Result<services::Copying> begin_object_copy(services::Buckets& buckets, const Request& request) {
  MAYFLY_ASSIGN(services::CopyRequest copy, read_copy(buckets, request));
  const std::string metadata = request.header("x-amz-metadata-directive");
  if (!metadata.empty() && metadata != "COPY" && metadata != "REPLACE") return invalid_argument("Unknown metadata directive.");
  const std::string tagging = request.header("x-amz-tagging-directive");
  if (!tagging.empty() && tagging != "COPY" && tagging != "REPLACE") return invalid_argument("Unknown tagging directive.");
  if (metadata == "REPLACE") {
    MAYFLY_ASSIGN(copy.attributes, read_attributes(request));
  }
  if (tagging == "REPLACE") {
    MAYFLY_ASSIGN(copy.tags, read_tagging_header(request.header("x-amz-tagging")));
  }
  if (const std::string algorithm = request.header("x-amz-checksum-algorithm"); !algorithm.empty()) {
    const auto kind = services::find_checksum(algorithm);
    if (!kind)
      return invalid_request(
          "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, "
          "SHA256]");
    copy.checksum = *kind;
  }
  return buckets.begin_copy(copy);
}

Result<net::Response> finish_object_copy(services::Buckets& buckets, services::Copying& copying) {
  MAYFLY_ASSIGN(const services::ObjectInfo made, buckets.finish_copy(copying));
  XmlWriter xml("CopyObjectResult");
  xml.leaf("LastModified", base::format_iso_ms(made.modified)).leaf("ETag", quoted(made.etag));
  if (made.checksum.kind != services::ChecksumKind::kNone) {
    xml.leaf("Checksum" + std::string(services::checksum_name(made.checksum.kind)), checksum_text(made.checksum, made.parts));
    xml.leaf("ChecksumType", "FULL_OBJECT");
  }
  return xml_answer(xml);
}

Result<net::Response> get_object_acl(const Call& call) {
  MAYFLY_TRY(call.buckets.find_object(object_name(call.request)));
  return acl_answer(call.buckets.account().id);
}

Result<net::Response> get_object_tagging(const Call& call) {
  MAYFLY_ASSIGN(const services::ObjectInfo object, call.buckets.find_object(object_name(call.request)));
  return tagging_answer(object.attributes.tags);
}

Result<net::Response> put_object_tagging(const Call& call) {
  MAYFLY_ASSIGN(const auto tags, read_tagging(call.body));
  MAYFLY_TRY(call.buckets.set_object_tags(object_name(call.request), tags));
  return empty_answer(200);
}

Result<net::Response> delete_object_tagging(const Call& call) {
  MAYFLY_TRY(call.buckets.set_object_tags(object_name(call.request), {}));
  return empty_answer(204);
}

}  // namespace mayfly::api::s3
