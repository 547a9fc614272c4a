#include <algorithm>
#include <array>

#include "api/s3/documents.h"
#include "api/s3/errors.h"
#include "api/s3/headers.h"
#include "api/s3/operations.h"
#include "base/time.h"

namespace mayfly::api::s3 {
namespace {

using base::ErrorCode;
using base::Result;

// What a bucket of Mayfly does not have, as AWS says it of a bucket that has none.
struct Missing {
  std::string_view operation, id, message;
};
constexpr std::array kMissing = {
    Missing{"GetBucketPolicy", "NoSuchBucketPolicy", "The bucket policy does not exist"},
    Missing{"GetBucketPolicyStatus", "NoSuchBucketPolicy", "The bucket policy does not exist"},
    Missing{"GetBucketCors", "NoSuchCORSConfiguration", "The CORS configuration does not exist"},
    Missing{"GetBucketLifecycleConfiguration", "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"},
    Missing{"GetBucketWebsite", "NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration"},
    Missing{"GetBucketEncryption", "ServerSideEncryptionConfigurationNotFoundError",
            "The server side encryption configuration was not found"},
    Missing{"GetBucketReplication", "ReplicationConfigurationNotFoundError", "The replication configuration was not found"},
    Missing{"GetObjectLockConfiguration", "ObjectLockConfigurationNotFoundError",
            "Object Lock configuration does not exist for this bucket"},
};

// Settings that every bucket has and whose answer without any is an empty document.
struct Empty {
  std::string_view operation, root;
};
constexpr std::array kEmpty = {Empty{"GetBucketVersioning", "VersioningConfiguration"}, Empty{"GetBucketLogging", "BucketLoggingStatus"},
                               Empty{"GetBucketNotificationConfiguration", "NotificationConfiguration"},
                               Empty{"GetBucketAccelerateConfiguration", "AccelerateConfiguration"}};

}  // namespace

Result<net::Response> list_buckets(const Call& call) {
  MAYFLY_ASSIGN(auto buckets, call.buckets.list_buckets());
  MAYFLY_ASSIGN(const std::size_t max, read_count(call.request, "max-buckets", buckets.size(), services::ObjectLimits::kBucketsMax));
  const std::string prefix = call.request.parameter("prefix").value_or("");
  const std::string after = call.request.parameter("continuation-token").value_or("");
  std::erase_if(buckets, [&](const services::BucketInfo& each) { return !each.name.starts_with(prefix) || each.name <= after; });
  XmlWriter xml("ListAllMyBucketsResult");
  add_owner(xml, "Owner", call.buckets.account().id);
  xml.open("Buckets");
  for (std::size_t i = 0; i < std::min(max, buckets.size()); ++i)
    xml.open("Bucket").leaf("Name", buckets[i].name).leaf("CreationDate", base::format_iso_ms(buckets[i].created)).close();
  xml.close();
  if (max > 0 && buckets.size() > max) xml.leaf("ContinuationToken", buckets[max - 1].name);
  if (!prefix.empty()) xml.leaf("Prefix", prefix);
  return xml_answer(xml);
}

Result<net::Response> create_bucket(const Call& call) {
  MAYFLY_TRY(check_wishes(call.request, call.buckets.account().id));
  if (net::equal_ignoring_case(call.request.header("x-amz-bucket-object-lock-enabled"), "true")) return not_implemented("object locks");
  if (const std::string ownership = call.request.header("x-amz-object-ownership"); !ownership.empty() && ownership != "BucketOwnerEnforced")
    return not_implemented("the object ownership " + ownership.substr(0, 64));
  std::optional<std::string> location;
  std::vector<services::NameValue> tags;
  if (!call.body.empty()) {
    MAYFLY_ASSIGN(const XmlElement root, parse_xml(call.body));
    if (root.name != "CreateBucketConfiguration") return malformed_xml();
    if (root.find("LocationConstraint") != nullptr) location = std::string(root.text_of("LocationConstraint"));
    if (root.find("Bucket") != nullptr || root.find("Location") != nullptr) return not_implemented("directory buckets");
    if (const XmlElement* set = root.find("Tags"); set != nullptr) {
      for (const XmlElement& tag : set->children) tags.emplace_back(tag.text_of("Key"), tag.text_of("Value"));
    }
  }
  MAYFLY_TRY(call.buckets.create_bucket(call.request.bucket, location));
  if (!tags.empty()) MAYFLY_TRY(call.buckets.set_bucket_tags(call.request.bucket, tags));
  net::Response response = empty_answer(200);
  response.headers.add("Location", "/" + call.request.bucket);
  return response;
}

Result<net::Response> head_bucket(const Call& call) {
  MAYFLY_TRY(check_wishes(call.request, call.buckets.account().id));
  MAYFLY_TRY(call.buckets.find_bucket(call.request.bucket));
  net::Response response = empty_answer(200);
  response.headers.add("Content-Type", "application/xml");
  response.headers.add("x-amz-bucket-region", call.buckets.account().region);
  response.headers.add("x-amz-access-point-alias", "false");
  return response;
}

Result<net::Response> delete_bucket(const Call& call) {
  MAYFLY_TRY(check_wishes(call.request, call.buckets.account().id));
  MAYFLY_TRY(call.buckets.delete_bucket(call.request.bucket));
  return empty_answer(204);
}

Result<net::Response> get_bucket_property(const Call& call) {
  MAYFLY_TRY(call.buckets.find_bucket(call.request.bucket));
  const std::string_view operation = call.request.operation->name;
  if (const auto missing = std::ranges::find(kMissing, operation, &Missing::operation); missing != kMissing.end())
    return s3_error(ErrorCode::kNotFound, std::string(missing->id), std::string(missing->message));
  if (const auto empty = std::ranges::find(kEmpty, operation, &Empty::operation); empty != kEmpty.end()) {
    XmlWriter xml(empty->root);
    return xml_answer(xml);
  }
  const engine::Account& account = call.buckets.account();
  if (operation == "GetBucketLocation") {
    XmlWriter xml("LocationConstraint");
    std::string text = xml.finish();
    if (account.region != "us-east-1") text.insert(text.rfind("</"), account.region);
    net::Response response{.status = 200, .headers = {}, .body = std::move(text)};
    response.headers.add("Content-Type", "application/xml");
    return response;
  }
  if (operation == "GetBucketAcl") return acl_answer(account.id);
  if (operation == "GetBucketTagging") {
    MAYFLY_ASSIGN(const auto tags, call.buckets.bucket_tags(call.request.bucket));
    return tagging_answer(tags);
  }
  if (operation == "GetBucketRequestPayment") {
    XmlWriter xml("RequestPaymentConfiguration");
    xml.leaf("Payer", "BucketOwner");
    return xml_answer(xml);
  }
  if (operation == "GetBucketOwnershipControls") {  // there are no ACLs
    XmlWriter xml("OwnershipControls");
    xml.open("Rule").leaf("ObjectOwnership", "BucketOwnerEnforced");
    return xml_answer(xml);
  }
  if (operation == "GetPublicAccessBlock") {  // nothing is public
    XmlWriter xml("PublicAccessBlockConfiguration");
    for (const char* name : {"BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"}) xml.leaf(name, "true");
    return xml_answer(xml);
  }
  return not_implemented("the S3 operation " + std::string(operation));
}

Result<net::Response> put_bucket_tagging(const Call& call) {
  MAYFLY_ASSIGN(const auto tags, read_tagging(call.body));
  MAYFLY_TRY(call.buckets.set_bucket_tags(call.request.bucket, tags));
  return empty_answer(204);
}

Result<net::Response> delete_bucket_tagging(const Call& call) {
  MAYFLY_TRY(call.buckets.set_bucket_tags(call.request.bucket, {}));
  return empty_answer(204);
}

}  // namespace mayfly::api::s3
