#include "api/s3/request.h"

#include <algorithm>
#include <array>

#include "api/s3/operations.h"
#include "base/bytes.h"
#include "net/sigv4.h"

namespace mayfly::api::s3 {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr Operation simple(Level level, std::string_view method, std::string_view parameter, std::string_view name, std::string_view action,
                           bool data, Result<net::Response> (*run)(const Call&)) {
  return {level, method, parameter, false, name, action, data, Way::kSimple, run};
}
constexpr Operation refused(Level level, std::string_view method, std::string_view parameter, std::string_view name) {
  return {level, method, parameter, false, name, "s3:*", false, Way::kRefused, nullptr};
}
constexpr Level kS = Level::kService;
constexpr Level kB = Level::kBucket;
constexpr Level kO = Level::kObject;

// The first line that fits is the operation.
constexpr auto kOperations = std::to_array<Operation>({
    simple(kS, "GET", "", "ListBuckets", "s3:ListAllMyBuckets", false, list_buckets),

    simple(kB, "GET", "location", "GetBucketLocation", "s3:GetBucketLocation", true, get_bucket_property),
    simple(kB, "GET", "versioning", "GetBucketVersioning", "s3:GetBucketVersioning", false, get_bucket_property),
    simple(kB, "GET", "acl", "GetBucketAcl", "s3:GetBucketAcl", false, get_bucket_property),
    simple(kB, "GET", "tagging", "GetBucketTagging", "s3:GetBucketTagging", false, get_bucket_property),
    simple(kB, "GET", "policy", "GetBucketPolicy", "s3:GetBucketPolicy", false, get_bucket_property),
    simple(kB, "GET", "policyStatus", "GetBucketPolicyStatus", "s3:GetBucketPolicyStatus", false, get_bucket_property),
    simple(kB, "GET", "encryption", "GetBucketEncryption", "s3:GetEncryptionConfiguration", false, get_bucket_property),
    simple(kB, "GET", "cors", "GetBucketCors", "s3:GetBucketCORS", false, get_bucket_property),
    simple(kB, "GET", "lifecycle", "GetBucketLifecycleConfiguration", "s3:GetLifecycleConfiguration", false, get_bucket_property),
    simple(kB, "GET", "website", "GetBucketWebsite", "s3:GetBucketWebsite", false, get_bucket_property),
    simple(kB, "GET", "logging", "GetBucketLogging", "s3:GetBucketLogging", false, get_bucket_property),
    simple(kB, "GET", "notification", "GetBucketNotificationConfiguration", "s3:GetBucketNotification", false, get_bucket_property),
    simple(kB, "GET", "replication", "GetBucketReplication", "s3:GetReplicationConfiguration", false, get_bucket_property),
    simple(kB, "GET", "requestPayment", "GetBucketRequestPayment", "s3:GetBucketRequestPayment", false, get_bucket_property),
    simple(kB, "GET", "accelerate", "GetBucketAccelerateConfiguration", "s3:GetAccelerateConfiguration", false, get_bucket_property),
    simple(kB, "GET", "object-lock", "GetObjectLockConfiguration", "s3:GetBucketObjectLockConfiguration", false, get_bucket_property),
    simple(kB, "GET", "ownershipControls", "GetBucketOwnershipControls", "s3:GetBucketOwnershipControls", false, get_bucket_property),
    simple(kB, "GET", "publicAccessBlock", "GetPublicAccessBlock", "s3:GetBucketPublicAccessBlock", false, get_bucket_property),
    refused(kB, "GET", "analytics", "GetBucketAnalyticsConfiguration"),
    refused(kB, "GET", "inventory", "GetBucketInventoryConfiguration"),
    refused(kB, "GET", "metrics", "GetBucketMetricsConfiguration"),
    refused(kB, "GET", "intelligent-tiering", "GetBucketIntelligentTieringConfiguration"),
    refused(kB, "GET", "metadataTable", "GetBucketMetadataTableConfiguration"),
    refused(kB, "GET", "session", "CreateSession"),
    simple(kB, "GET", "uploads", "ListMultipartUploads", "s3:ListBucketMultipartUploads", true, list_multipart_uploads),
    simple(kB, "GET", "versions", "ListObjectVersions", "s3:ListBucketVersions", true, list_object_versions),
    simple(kB, "GET", "list-type", "ListObjectsV2", "s3:ListBucket", true, list_objects),
    simple(kB, "GET", "", "ListObjects", "s3:ListBucket", true, list_objects),
    simple(kB, "HEAD", "", "HeadBucket", "s3:ListBucket", true, head_bucket),
    simple(kB, "PUT", "tagging", "PutBucketTagging", "s3:PutBucketTagging", false, put_bucket_tagging),
    refused(kB, "PUT", "versioning", "PutBucketVersioning"),
    refused(kB, "PUT", "acl", "PutBucketAcl"),
    refused(kB, "PUT", "policy", "PutBucketPolicy"),
    refused(kB, "PUT", "encryption", "PutBucketEncryption"),
    refused(kB, "PUT", "cors", "PutBucketCors"),
    refused(kB, "PUT", "lifecycle", "PutBucketLifecycleConfiguration"),
    refused(kB, "PUT", "website", "PutBucketWebsite"),
    refused(kB, "PUT", "logging", "PutBucketLogging"),
    refused(kB, "PUT", "notification", "PutBucketNotificationConfiguration"),
    refused(kB, "PUT", "replication", "PutBucketReplication"),
    refused(kB, "PUT", "requestPayment", "PutBucketRequestPayment"),
    refused(kB, "PUT", "accelerate", "PutBucketAccelerateConfiguration"),
    refused(kB, "PUT", "object-lock", "PutObjectLockConfiguration"),
    refused(kB, "PUT", "ownershipControls", "PutBucketOwnershipControls"),
    refused(kB, "PUT", "publicAccessBlock", "PutPublicAccessBlock"),
    refused(kB, "PUT", "analytics", "PutBucketAnalyticsConfiguration"),
    refused(kB, "PUT", "inventory", "PutBucketInventoryConfiguration"),
    refused(kB, "PUT", "metrics", "PutBucketMetricsConfiguration"),
    refused(kB, "PUT", "intelligent-tiering", "PutBucketIntelligentTieringConfiguration"),
    simple(kB, "PUT", "", "CreateBucket", "s3:CreateBucket", false, create_bucket),
    simple(kB, "DELETE", "tagging", "DeleteBucketTagging", "s3:PutBucketTagging", false, delete_bucket_tagging),
    refused(kB, "DELETE", "policy", "DeleteBucketPolicy"),
    refused(kB, "DELETE", "encryption", "DeleteBucketEncryption"),
    refused(kB, "DELETE", "cors", "DeleteBucketCors"),
    refused(kB, "DELETE", "lifecycle", "DeleteBucketLifecycle"),
    refused(kB, "DELETE", "website", "DeleteBucketWebsite"),
    refused(kB, "DELETE", "replication", "DeleteBucketReplication"),
    refused(kB, "DELETE", "ownershipControls", "DeleteBucketOwnershipControls"),
    refused(kB, "DELETE", "publicAccessBlock", "DeletePublicAccessBlock"),
    refused(kB, "DELETE", "analytics", "DeleteBucketAnalyticsConfiguration"),
    refused(kB, "DELETE", "inventory", "DeleteBucketInventoryConfiguration"),
    refused(kB, "DELETE", "metrics", "DeleteBucketMetricsConfiguration"),
    refused(kB, "DELETE", "intelligent-tiering", "DeleteBucketIntelligentTieringConfiguration"),
    simple(kB, "DELETE", "", "DeleteBucket", "s3:DeleteBucket", false, delete_bucket),
    simple(kB, "POST", "delete", "DeleteObjects", "s3:DeleteObject", true, delete_objects),
    refused(kB, "POST", "", "PostObject"),

    simple(kO, "GET", "uploadId", "ListParts", "s3:ListMultipartUploadParts", true, list_parts),
    simple(kO, "GET", "tagging", "GetObjectTagging", "s3:GetObjectTagging", true, get_object_tagging),
    simple(kO, "GET", "acl", "GetObjectAcl", "s3:GetObjectAcl", true, get_object_acl),
    refused(kO, "GET", "attributes", "GetObjectAttributes"),
    refused(kO, "GET", "retention", "GetObjectRetention"),
    refused(kO, "GET", "legal-hold", "GetObjectLegalHold"),
    refused(kO, "GET", "torrent", "GetObjectTorrent"),
    {kO, "GET", "", false, "GetObject", "s3:GetObject", true, Way::kSend, nullptr},
    simple(kO, "HEAD", "", "HeadObject", "s3:GetObject", true, head_object),
    {kO, "PUT", "uploadId", true, "UploadPartCopy", "s3:PutObject", true, Way::kCopy, nullptr},
    {kO, "PUT", "uploadId", false, "UploadPart", "s3:PutObject", true, Way::kReceive, nullptr},
    simple(kO, "PUT", "tagging", "PutObjectTagging", "s3:PutObjectTagging", true, put_object_tagging),
    refused(kO, "PUT", "acl", "PutObjectAcl"),
    refused(kO, "PUT", "retention", "PutObjectRetention"),
    refused(kO, "PUT", "legal-hold", "PutObjectLegalHold"),
    refused(kO, "PUT", "renameObject", "RenameObject"),
    {kO, "PUT", "", true, "CopyObject", "s3:PutObject", true, Way::kCopy, nullptr},
    {kO, "PUT", "", false, "PutObject", "s3:PutObject", true, Way::kReceive, nullptr},
    simple(kO, "POST", "uploads", "CreateMultipartUpload", "s3:PutObject", true, create_multipart_upload),
    simple(kO, "POST", "uploadId", "CompleteMultipartUpload", "s3:PutObject", true, complete_multipart_upload),
    refused(kO, "POST", "select", "SelectObjectContent"),
    refused(kO, "POST", "restore", "RestoreObject"),
    simple(kO, "DELETE", "uploadId", "AbortMultipartUpload", "s3:AbortMultipartUpload", true, abort_multipart_upload),
    simple(kO, "DELETE", "tagging", "DeleteObjectTagging", "s3:DeleteObjectTagging", true, delete_object_tagging),
    simple(kO, "DELETE", "", "DeleteObject", "s3:DeleteObject", true, delete_object),
});

Error invalid_uri() { return Error(ErrorCode::kInvalidArgument, "Couldn't parse the specified URI.", "InvalidURI"); }

}  // namespace

std::optional<std::string> Request::parameter(std::string_view name) const {
  const auto found = std::ranges::find(parameters, name, &std::pair<std::string, std::string>::first);
  if (found == parameters.end()) return std::nullopt;
  return found->second;
}

std::string Request::header(std::string_view name) const {
  if (const auto value = head->headers.find(name)) return std::string(*value);
  if (!name.starts_with("x-amz-")) return {};
  const auto found = std::ranges::find_if(parameters, [&](const auto& each) { return net::equal_ignoring_case(each.first, name); });
  return found == parameters.end() ? std::string() : found->second;
}

Result<Request> read_request(const net::RequestHead& head) {
  Request request{.head = &head};
  auto parameters = net::parse_query(head.query());
  if (!parameters.ok()) return invalid_uri();
  request.parameters = *std::move(parameters);
  std::string_view path = head.path();
  if (!path.starts_with('/')) return invalid_uri();
  path.remove_prefix(1);
  request.bucket = net::s3_bucket_of_host(head.headers.get("Host"));
  if (request.bucket.empty()) {
    const std::size_t slash = std::min(path.find('/'), path.size());
    auto bucket = base::percent_decode(path.substr(0, slash));
    if (!bucket.ok()) return invalid_uri();
    request.bucket = *std::move(bucket);
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
  auto key = base::percent_decode(path);
  if (!key.ok()) return invalid_uri();
  request.key = *std::move(key);
  const Level level = request.bucket.empty() ? Level::kService : request.key.empty() ? Level::kBucket : Level::kObject;
  if (level == Level::kService && !request.key.empty()) return invalid_uri();
  const bool copies = head.headers.contains("x-amz-copy-source");
  for (const Operation& operation : kOperations) {
    if (operation.level != level || operation.method != head.method) continue;
    if (!operation.parameter.empty() && !request.parameter(operation.parameter)) continue;
    if (operation.copies && !copies) continue;
    request.operation = &operation;
    return request;
  }
  return Error(ErrorCode::kInvalidArgument, "The specified method is not allowed against this resource.", "MethodNotAllowed");
}

std::string resource_of(const Request& request) {
  if (request.bucket.empty()) return "*";
  const std::string bucket = "arn:aws:s3:::" + request.bucket;
  if (!request.key.empty()) return bucket + "/" + request.key;
  return request.operation->action == "s3:DeleteObject" ? bucket + "/*" : bucket;  // DeleteObjects
}

Result<CopySource> read_copy_source(std::string_view text) {
  const Error invalid(ErrorCode::kInvalidArgument, "Copy Source must mention the source bucket and key: /sourcebucket/sourcekey",
                      "InvalidArgument");
  CopySource source;
  constexpr std::string_view kVersion = "?versionId=";
  if (const std::size_t mark = text.rfind(kVersion); mark != std::string_view::npos) {
    source.version = text.substr(mark + kVersion.size());
    text = text.substr(0, mark);
  }
  auto decoded = base::percent_decode(text);
  if (!decoded.ok()) return invalid;
  std::string_view path = *decoded;
  if (path.starts_with('/')) path.remove_prefix(1);
  const std::size_t slash = path.find('/');
  if (slash == std::string_view::npos || slash == 0 || slash + 1 == path.size()) return invalid;
  source.bucket = path.substr(0, slash);
  source.key = path.substr(slash + 1);
  return source;
}

}  // namespace mayfly::api::s3
