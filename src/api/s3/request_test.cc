#include "api/s3/request.h"

#include <gtest/gtest.h>

#include "api/s3/errors.h"
#include "api/s3/headers.h"

namespace mayfly::api::s3 {
namespace {

net::RequestHead head_of(const std::string& method, const std::string& target, const std::string& host = "127.0.0.1:9000") {
  net::RequestHead head{.method = method, .target = target, .headers = {}};
  head.headers.add("Host", host);
  return head;
}

std::string shown(const net::RequestHead& head) {
  const auto request = read_request(head);
  if (!request.ok()) return request.error().id();
  return std::string(request->operation->name) + " " + request->bucket + " " + request->key;
}

TEST(S3Request, OperationsAreFoundByMethodPathAndParameters) {
  const std::pair<net::RequestHead, const char*> known[] = {
      {head_of("GET", "/"), "ListBuckets  "},
      {head_of("GET", "/?x-id=ListBuckets"), "ListBuckets  "},
      {head_of("PUT", "/b"), "CreateBucket b "},
      {head_of("PUT", "/b/"), "CreateBucket b "},
      {head_of("GET", "/b?location"), "GetBucketLocation b "},
      {head_of("GET", "/b?list-type=2&prefix=x"), "ListObjectsV2 b "},
      {head_of("GET", "/b?prefix=x"), "ListObjects b "},
      {head_of("POST", "/b?delete"), "DeleteObjects b "},
      {head_of("PUT", "/b?policy"), "PutBucketPolicy b "},
      {head_of("PUT", "/b/a%20b/c+d//e"), "PutObject b a b/c+d//e"},
      {head_of("GET", "/b//k?x-id=GetObject"), "GetObject b /k"},
      {head_of("PUT", "/b/k?partNumber=1&uploadId=u"), "UploadPart b k"},
      {head_of("POST", "/b/k?uploads"), "CreateMultipartUpload b k"},
      {head_of("POST", "/b/k?uploadId=u"), "CompleteMultipartUpload b k"},
      {head_of("DELETE", "/b/k?uploadId=u"), "AbortMultipartUpload b k"},
      {head_of("GET", "/k/l", "b.localhost:9000"), "GetObject b k/l"},
      {head_of("GET", "/", "b.localhost"), "ListObjects b "},
      {head_of("GET", "/", "b.c.s3.localhost:9000"), "ListObjects b.c "},
      {head_of("GET", "/b", "s3.localhost:9000"), "ListObjects b "},
      {head_of("GET", "/b", "s3.us-east-1.localhost"), "ListObjects b "},
      {head_of("GET", "/b", "mayfly.example.com"), "ListObjects b "},
      {head_of("GET", "/k", "b.s3.mayfly.example.com"), "GetObject b k"},
      {head_of("GET", "/b", "[::1]:9000"), "ListObjects b "},
      {head_of("PATCH", "/b/k"), "MethodNotAllowed"},
      {head_of("POST", "/"), "MethodNotAllowed"},
      {head_of("GET", "/b/%zz"), "InvalidURI"},
      {head_of("GET", "/b?x=%"), "InvalidURI"},
  };
  for (const auto& [head, expected] : known) EXPECT_EQ(shown(head), expected) << head.method << " " << head.target;
  net::RequestHead copy = head_of("PUT", "/b/k");
  copy.headers.add("x-amz-copy-source", "/c/l");
  EXPECT_EQ(shown(copy), "CopyObject b k");
  copy.target += "?partNumber=1&uploadId=u";
  EXPECT_EQ(shown(copy), "UploadPartCopy b k");
}

TEST(S3Request, ResourcesAreNamedAsIamDoes) {
  const auto resource = [](const net::RequestHead& head) { return resource_of(*read_request(head)); };
  EXPECT_EQ(resource(head_of("GET", "/")), "*");
  EXPECT_EQ(resource(head_of("GET", "/b")), "arn:aws:s3:::b");
  EXPECT_EQ(resource(head_of("GET", "/b/k/l")), "arn:aws:s3:::b/k/l");
  EXPECT_EQ(resource(head_of("POST", "/b?delete")), "arn:aws:s3:::b/*");
}

TEST(S3Request, SourcesOfCopiesAreRead) {
  const CopySource source = *read_copy_source("/b/a%20b/c?versionId=null");
  EXPECT_EQ(source.bucket + "|" + source.key + "|" + source.version, "b|a b/c|null");
  EXPECT_EQ(read_copy_source("b/k")->key, "k");
  for (const char* text : {"", "/", "b", "/b/", "//k", "/b/%z"}) EXPECT_EQ(read_copy_source(text).error().id(), "InvalidArgument") << text;
}

TEST(S3Request, RangesAreThoseOfHttp) {
  const auto range = [](std::string_view text, std::uint64_t size) {
    const auto extent = read_range(text, size);
    if (!extent.ok()) return extent.error().id();
    return std::to_string(extent->first) + "+" + std::to_string(extent->length) + (extent->partial ? " part" : "");
  };
  EXPECT_EQ(range("", 10), "0+10");
  EXPECT_EQ(range("bytes=2-4", 10), "2+3 part");
  EXPECT_EQ(range("bytes=2-", 10), "2+8 part");
  EXPECT_EQ(range("bytes=2-100", 10), "2+8 part");
  EXPECT_EQ(range("bytes=-3", 10), "7+3 part");
  EXPECT_EQ(range("bytes=-30", 10), "0+10 part");
  EXPECT_EQ(range("bytes=0-9", 10), "0+10 part");
  for (const char* nothing : {"bytes=10-", "bytes=10-20", "bytes=-0"}) EXPECT_EQ(range(nothing, 10), "InvalidRange") << nothing;
  EXPECT_EQ(range("bytes=0-", 0), "InvalidRange");
  for (const char* other : {"bytes=4-2", "bytes=1-2,4-5", "items=1-2", "bytes=a-b", "bytes=-", "bytes=99999999999999999999-"})
    EXPECT_EQ(range(other, 10), "0+10") << other;
}

TEST(S3Request, AttributesAreWhatTheHeadersSay) {
  net::RequestHead head = head_of("PUT", "/b/k?x-amz-meta-q=3");
  head.headers.add("Content-Encoding", "aws-chunked, gzip");
  head.headers.add("x-amz-meta-Colour", " green ");
  head.headers.add("X-Amz-Meta-colour", "blue");
  head.headers.add("x-amz-tagging", "a=1&b%20c=%C3%A9");
  const auto attributes = *read_attributes(*read_request(head));
  EXPECT_EQ(attributes.headers, (std::vector<services::NameValue>{{"content-encoding", "gzip"}, {"content-type", "binary/octet-stream"}}));
  EXPECT_EQ(attributes.metadata, (std::vector<services::NameValue>{{"colour", "green,blue"}, {"q", "3"}}));
  EXPECT_EQ(attributes.tags, (std::vector<services::NameValue>{{"a", "1"}, {"b c", "\xC3\xA9"}}));
}

TEST(S3Request, OneChecksumMayBeStated) {
  net::Headers headers;
  headers.add("x-amz-checksum-crc32", "NhCmhg==");
  EXPECT_EQ(read_checksum(headers)->value, services::checksum_of(services::ChecksumKind::kCrc32, "hello"));
  headers.add("x-amz-checksum-sha1", "x");
  EXPECT_EQ(read_checksum(headers).error().id(), "InvalidRequest");
  net::Headers trailer;
  trailer.add("x-amz-trailer", "x-amz-checksum-crc64nvme");
  EXPECT_EQ(read_checksum(trailer)->kind, services::ChecksumKind::kCrc64Nvme);
  EXPECT_EQ(read_checksum(trailer)->value, "");
  trailer.set("x-amz-trailer", "x-amz-something");
  EXPECT_EQ(read_checksum(trailer).error().id(), "InvalidRequest");
}

TEST(S3Request, WhatIsNotDoneIsRefused) {
  const auto refused = [](const std::string& name, const std::string& value) {
    net::RequestHead head = head_of("PUT", "/b/k");
    head.headers.add(name, value);
    const auto checked = check_wishes(*read_request(head), "000000000000");
    return checked.ok() ? "ok" : checked.error().id();
  };
  const auto overriding = [](const std::string& parameter) {
    const net::RequestHead head = head_of("GET", "/b/k?response-" + parameter);
    const auto checked = check_wishes(*read_request(head), "000000000000");
    return checked.ok() ? "ok" : checked.error().id();
  };
  EXPECT_EQ(overriding("content-type=text/x;%20a=%C3%A9"), "ok");
  for (const char* name : {"content-type", "cache-control", "content-disposition", "content-encoding", "content-language", "expires"})
    EXPECT_EQ(overriding(std::string(name) + "=a%0D%0ASet-Cookie:%20b"), "InvalidArgument") << name;
  EXPECT_EQ(overriding("expires=%00"), "InvalidArgument");
  EXPECT_EQ(refused("x-amz-acl", "private"), "ok");
  EXPECT_EQ(refused("x-amz-acl", "public-read"), "AccessControlListNotSupported");
  EXPECT_EQ(refused("x-amz-grant-read", "id=x"), "AccessControlListNotSupported");
  EXPECT_EQ(refused("x-amz-server-side-encryption", "AES256"), "ok");
  EXPECT_EQ(refused("x-amz-server-side-encryption", "aws:kms"), "NotImplemented");
  EXPECT_EQ(refused("x-amz-server-side-encryption-customer-algorithm", "AES256"), "NotImplemented");
  EXPECT_EQ(refused("x-amz-storage-class", "STANDARD"), "ok");
  EXPECT_EQ(refused("x-amz-storage-class", "GLACIER"), "InvalidStorageClass");
  EXPECT_EQ(refused("x-amz-object-lock-mode", "GOVERNANCE"), "InvalidRequest");
  EXPECT_EQ(refused("x-amz-expected-bucket-owner", "000000000000"), "ok");
  EXPECT_EQ(refused("x-amz-expected-bucket-owner", "111111111111"), "AccessDenied");
}

TEST(S3Request, ErrorsAreS3s) {
  const auto shown_error = [](const base::Error& error) {
    const net::Response response = error_answer(error, {.request_id = "r", .resource = "/b/k<", .region = "eu-west-1"});
    return std::to_string(response.status) + " " + response.body;
  };
  const std::string missing = shown_error(s3_error(base::ErrorCode::kNotFound, "NoSuchKey", "The specified key does not exist."));
  EXPECT_TRUE(missing.starts_with("404 ")) << missing;
  EXPECT_NE(missing.find("<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message><Resource>/b/k&lt;</Resource>"
                         "<RequestId>r</RequestId></Error>"),
            std::string::npos)
      << missing;
  EXPECT_TRUE(shown_error(not_implemented("x")).starts_with("501 "));
  EXPECT_TRUE(shown_error(s3_error(base::ErrorCode::kTooLarge, "EntityTooLarge", "")).starts_with("400 "));
  EXPECT_TRUE(shown_error(s3_error(base::ErrorCode::kInvalidArgument, "InvalidRange", "")).starts_with("416 "));
  EXPECT_TRUE(shown_error(s3_error(base::ErrorCode::kResourceExhausted, "InsufficientStorage", "")).starts_with("507 "));
  EXPECT_NE(shown_error({base::ErrorCode::kUnauthenticated, "x", "UnrecognizedClientException"}).find("InvalidAccessKeyId"),
            std::string::npos);
  EXPECT_NE(shown_error({base::ErrorCode::kInvalidArgument, "x", "AuthorizationHeaderMalformed"}).find("<Region>eu-west-1</Region>"),
            std::string::npos);
  EXPECT_NE(shown_error({base::ErrorCode::kInternal, "x"}).find("InternalError"), std::string::npos);
}

}  // namespace
}  // namespace mayfly::api::s3
