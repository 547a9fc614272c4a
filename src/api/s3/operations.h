// The S3 operations that need no streaming. Blocking: run on a pool.
#pragma once

#include <memory>

#include "api/s3/headers.h"
#include "api/s3/request.h"
#include "base/result.h"
#include "net/http.h"
#include "services/buckets.h"
#include "store/objects.h"

namespace mayfly::api::s3 {

[[nodiscard]] base::Result<net::Response> list_buckets(const Call& call);
[[nodiscard]] base::Result<net::Response> create_bucket(const Call& call);
[[nodiscard]] base::Result<net::Response> head_bucket(const Call& call);
[[nodiscard]] base::Result<net::Response> delete_bucket(const Call& call);
// Location, versioning, ACL, tags, and what a bucket may have but Mayfly's do not (policy, CORS ...), each as AWS answers.
[[nodiscard]] base::Result<net::Response> get_bucket_property(const Call& call);
[[nodiscard]] base::Result<net::Response> put_bucket_tagging(const Call& call);
[[nodiscard]] base::Result<net::Response> delete_bucket_tagging(const Call& call);

[[nodiscard]] base::Result<net::Response> list_objects(const Call& call);  // ListObjects and ListObjectsV2
[[nodiscard]] base::Result<net::Response> list_object_versions(const Call& call);
[[nodiscard]] base::Result<net::Response> delete_objects(const Call& call);
[[nodiscard]] base::Result<net::Response> head_object(const Call& call);
[[nodiscard]] base::Result<net::Response> delete_object(const Call& call);
[[nodiscard]] base::Result<net::Response> get_object_acl(const Call& call);
[[nodiscard]] base::Result<net::Response> get_object_tagging(const Call& call);
[[nodiscard]] base::Result<net::Response> put_object_tagging(const Call& call);
[[nodiscard]] base::Result<net::Response> delete_object_tagging(const Call& call);

[[nodiscard]] base::Result<net::Response> create_multipart_upload(const Call& call);
[[nodiscard]] base::Result<net::Response> complete_multipart_upload(const Call& call);
[[nodiscard]] base::Result<net::Response> abort_multipart_upload(const Call& call);
[[nodiscard]] base::Result<net::Response> list_parts(const Call& call);
[[nodiscard]] base::Result<net::Response> list_multipart_uploads(const Call& call);

// What GET and HEAD of an object answer: the head, and where the bytes of `extent` come from; no reader when there are none to send.
struct Sending {
  net::Response head;
  Extent extent;
  std::unique_ptr<store::ObjectReader> reader;
};
[[nodiscard]] base::Result<Sending> prepare_sending(services::Buckets& buckets, const Request& request);
[[nodiscard]] base::Result<services::PartName> read_part_name(const Request& request);
// Source, conditions and target of a copy.
[[nodiscard]] base::Result<services::CopyRequest> read_copy(services::Buckets& buckets, const Request& request);
// CopyObject and UploadPartCopy: before and after the bytes are copied.
[[nodiscard]] base::Result<services::Copying> begin_object_copy(services::Buckets& buckets, const Request& request);
[[nodiscard]] base::Result<net::Response> finish_object_copy(services::Buckets& buckets, services::Copying& copying);
[[nodiscard]] base::Result<services::Copying> begin_part_copy(services::Buckets& buckets, const Request& request);
[[nodiscard]] base::Result<net::Response> finish_part_copy(services::Buckets& buckets, const Request& request, services::Copying& copying);

}  // namespace mayfly::api::s3
