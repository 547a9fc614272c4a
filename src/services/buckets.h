// Buckets: what Amazon S3 does with buckets and objects, over store::Objects: names, limits, ETags, checksums, metadata, copies,
// multipart uploads. Knows no HTTP and no XML.
// Errors:  Error::id is S3's code and the message S3's text ("NoSuchKey", "The specified key does not exist."). Error codes map to
//          S3's status, except where api/s3/errors.cc says otherwise.
// Limits:  5 GiB for one body or part, 10,000 parts, 5 TiB for one object, keys of 1,024 bytes, metadata of 2 KiB, with kept headers 8 KiB,
//          10 tags, 1,000 keys in one list or deletion; the disk (store::Objects::kReserveBytes).
// Threads: any thread may call; everything blocks.
// Source:  Amazon S3 API Reference. Not done: versions, encryption, ACLs beyond the owner, locks, storage classes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "engine/function.h"
#include "services/checksums.h"
#include "store/objects.h"

namespace mayfly::services {

struct ObjectLimits {
  static constexpr std::uint64_t kBodyBytesMax = 5ULL << 30U;
  static constexpr std::uint64_t kObjectBytesMax = 5ULL << 40U;
  static constexpr std::uint64_t kPartBytesMin = 5ULL << 20U;  // of all parts but the last
  static constexpr int kPartsMax = 10'000;
  static constexpr std::size_t kKeyBytesMax = 1024;
  static constexpr std::size_t kMetadataBytesMax = 2048;
  static constexpr std::size_t kHeadersBytesMax = 8192;  // kept headers and metadata together: S3's limit for the headers of a PUT
  static constexpr std::size_t kObjectTagsMax = 10;
  static constexpr std::size_t kBucketTagsMax = 50;
  static constexpr std::size_t kListMax = 1000;
  static constexpr std::size_t kBucketsMax = 10'000;
};

using NameValue = std::pair<std::string, std::string>;

struct BucketInfo {
  std::string name;
  base::WallTime created;
};

// What is kept beside the bytes and given back as it came.
struct ObjectAttributes {
  std::vector<NameValue> headers = {};   // content-type, cache-control ...: names in lower case
  std::vector<NameValue> metadata = {};  // x-amz-meta-NAME: names in lower case, without the prefix
  std::vector<NameValue> tags = {};
};

// Whether a header of HTTP can carry it as its value (RFC 9110, section 5.5): no control characters but tabs.
[[nodiscard]] bool is_field_value(std::string_view text);

struct Checksum {
  ChecksumKind kind = ChecksumKind::kNone;
  bool composite = false;  // of the parts' checksums, not of the bytes
  std::string value = {};  // bytes
};

struct ObjectInfo {
  std::string key;
  std::uint64_t size = 0;
  std::string etag;  // without quotes
  base::WallTime modified;
  ObjectAttributes attributes = {};
  Checksum checksum = {};
  int parts = 0;  // 0: not made of parts
};

// What a client says of a body before it comes. Digests are bytes; empty ones were not stated.
struct BodyPromise {
  std::uint64_t size = 0;
  std::string md5 = {};
  std::string signed_sha256 = {};  // hex, of x-amz-content-sha256
  ChecksumKind checksum = ChecksumKind::kNone;
  std::string checksum_value = {};
};

// A body on its way in: stored, digested, compared with what was promised. Gone if it is not put. One thread at a time.
class IncomingBody {
 public:
  IncomingBody(std::unique_ptr<store::IncomingFile> file, BodyPromise promise);
  [[nodiscard]] base::Result<void> append(std::string_view bytes);
  // What the trailer of the body said.
  void state_checksum(std::string value) { promise_.checksum_value = std::move(value); }
  // BadDigest, XAmzContentSHA256Mismatch or IncompleteBody when it is not what was promised.
  [[nodiscard]] base::Result<void> finish();

  // After finish().
  [[nodiscard]] const std::string& etag() const { return etag_; }
  [[nodiscard]] Checksum checksum() const { return {.kind = promise_.checksum, .composite = false, .value = checksum_}; }
  [[nodiscard]] store::IncomingFile& file() { return *file_; }

 private:
  std::unique_ptr<store::IncomingFile> file_;
  BodyPromise promise_;
  ChecksumStream md5_{ChecksumKind::kMd5};
  ChecksumStream checksum_stream_, sha256_;
  std::string etag_, checksum_;
};

struct OpenedObject {
  ObjectInfo info;
  std::unique_ptr<store::ObjectReader> reader;
};

struct ObjectName {
  std::string bucket, key;
  std::string version = {};  // "" or "null"; there are no others
};

// Conditions of a write: at most one is set.
struct WriteCondition {
  bool absent = false;    // If-None-Match: *
  std::string etag = {};  // If-Match
};
// Conditions of a read. ETags with or without quotes, lists and "*" as in RFC 9110.
struct ReadCondition {
  std::string match = {}, none_match = {};
  std::optional<base::WallTime> modified_since = {}, unmodified_since = {};
};
enum class ReadVerdict : std::uint8_t { kHolds, kNotModified, kFailed };
[[nodiscard]] ReadVerdict judge(const ReadCondition& condition, const ObjectInfo& object);
[[nodiscard]] base::Error precondition_failed();

struct CopyRequest {
  ObjectName from;
  ReadCondition condition = {};
  std::string to_bucket = {}, to_key = {};
  std::optional<std::pair<std::uint64_t, std::uint64_t>> range = {};  // first and last byte; parts only
  std::optional<ObjectAttributes> attributes = {};                    // none: those of the source
  std::optional<std::vector<NameValue>> tags = {};                    // none: those of the source
  ChecksumKind checksum = ChecksumKind::kNone;                        // kNone: that of the source
};

// A copy on its way, taken step by step so that no thread is held for the whole of it. Gone if it is not finished. One thread at a time.
class Copying {
 public:
  [[nodiscard]] bool done() const { return at_ == end_; }
  // The next 1 MiB. Blocking.
  [[nodiscard]] base::Result<void> step();

 private:
  friend class Buckets;
  Copying() = default;

  std::unique_ptr<store::ObjectReader> source_;
  std::unique_ptr<IncomingBody> body_;
  std::uint64_t at_ = 0, end_ = 0;
  ObjectName to_;
  ObjectAttributes attributes_;
  std::optional<ObjectInfo> made_;  // by sharing the source's bytes
};

struct UploadInfo {
  std::string id, key;
  base::WallTime initiated;
  ChecksumKind checksum = ChecksumKind::kNone;
  bool full_object = false;  // the checksum is that of the whole
};
struct PartInfo {
  int number = 0;
  std::uint64_t size = 0;
  std::string etag;
  base::WallTime modified;
  Checksum checksum = {};
};
struct UploadRequest {
  std::string bucket, key;
  ObjectAttributes attributes = {};
  ChecksumKind checksum = ChecksumKind::kNone;
  bool full_object = false;
};
struct PartName {
  std::string bucket, key, upload;
  int number = 0;
};
struct CompleteRequest {
  struct Part {
    int number = 0;
    std::string etag;
    std::vector<std::pair<ChecksumKind, std::string>> checksums = {};  // bytes
  };
  std::string bucket, key, upload;
  std::vector<Part> parts = {};
  WriteCondition condition = {};
  Checksum checksum = {};  // stated for the whole, if its kind is set
};
struct UploadsList {
  std::vector<UploadInfo> uploads = {};
  bool truncated = false;
};

class Buckets {
 public:
  // `objects` and `clock` must outlive this.
  Buckets(store::Objects& objects, engine::Account account, const base::Clock& clock);

  [[nodiscard]] const engine::Account& account() const { return account_; }

  // `location`: LocationConstraint as given, if it was. In us-east-1 making one's own bucket again is no error.
  [[nodiscard]] base::Result<void> create_bucket(const std::string& name, const std::optional<std::string>& location);
  [[nodiscard]] base::Result<std::vector<BucketInfo>> list_buckets();
  [[nodiscard]] base::Result<BucketInfo> find_bucket(const std::string& name);
  [[nodiscard]] base::Result<void> delete_bucket(const std::string& name);
  [[nodiscard]] base::Result<std::vector<NameValue>> bucket_tags(const std::string& name);  // NoSuchTagSet when it has none
  [[nodiscard]] base::Result<void> set_bucket_tags(const std::string& name, const std::vector<NameValue>& tags);

  // Ready to take a body for `key`: names, size and disk are checked.
  [[nodiscard]] base::Result<std::unique_ptr<IncomingBody>> receive(const std::string& bucket, const std::string& key, BodyPromise promise);
  // Visible to the next read when it returns. `body` was finished.
  [[nodiscard]] base::Result<ObjectInfo> put_object(const ObjectName& name, ObjectAttributes attributes, IncomingBody& body,
                                                    const WriteCondition& condition);
  [[nodiscard]] base::Result<ObjectInfo> find_object(const ObjectName& name);
  [[nodiscard]] base::Result<OpenedObject> open_object(const ObjectName& name);
  // Step the copy until it is done, then finish it. One that can share the bytes of its source is made and done at once.
  [[nodiscard]] base::Result<Copying> begin_copy(const CopyRequest& request);
  [[nodiscard]] base::Result<ObjectInfo> finish_copy(Copying& copying);
  // Those that are not there are fine.
  [[nodiscard]] base::Result<void> delete_objects(const std::string& bucket, const std::vector<std::string>& keys);
  [[nodiscard]] base::Result<void> set_object_tags(const ObjectName& name, const std::vector<NameValue>& tags);
  [[nodiscard]] base::Result<store::ListPage> list_objects(const std::string& bucket, const store::ListQuery& query);

  [[nodiscard]] base::Result<UploadInfo> create_upload(const UploadRequest& request);
  [[nodiscard]] base::Result<std::unique_ptr<IncomingBody>> receive_part(const PartName& part, BodyPromise promise);
  [[nodiscard]] base::Result<PartInfo> put_part(const PartName& part, IncomingBody& body);
  // As begin_copy() and finish_copy(); `request.to_*` are the part's.
  [[nodiscard]] base::Result<Copying> begin_part_copy(const PartName& part, const CopyRequest& request);
  [[nodiscard]] base::Result<PartInfo> finish_part_copy(const PartName& part, Copying& copying);
  [[nodiscard]] base::Result<UploadInfo> find_upload(const std::string& bucket, const std::string& key, const std::string& id);
  [[nodiscard]] base::Result<std::vector<PartInfo>> list_parts(const std::string& bucket, const std::string& key, const std::string& id);
  [[nodiscard]] base::Result<UploadsList> list_uploads(const std::string& bucket, const store::UploadsQuery& query);
  [[nodiscard]] base::Result<ObjectInfo> complete_upload(const CompleteRequest& request);
  [[nodiscard]] base::Result<void> abort_upload(const std::string& bucket, const std::string& key, const std::string& id);

  // The whole of an object, for those who need it in memory (code of functions). kTooLarge when it has more than `bytes_max`.
  // Errors are S3's, so that "S3 Error Code: " + id() and "S3 Error Message: " + message() say what Lambda says.
  [[nodiscard]] base::Result<std::string> read_object(const ObjectName& name, std::uint64_t bytes_max);

 private:
  [[nodiscard]] base::Result<std::unique_ptr<IncomingBody>> take(BodyPromise promise);
  [[nodiscard]] base::Result<void> must_have_bucket(const std::string& name);
  [[nodiscard]] base::Result<OpenedObject> open_source(const CopyRequest& request);
  [[nodiscard]] base::Result<void> begin_bytes(Copying& copying, OpenedObject source, const CopyRequest& request, ChecksumKind kind);

  store::Objects& objects_;
  const engine::Account account_;
  const base::Clock& clock_;
};

}  // namespace mayfly::services
