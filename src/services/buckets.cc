#include "services/buckets.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "base/bytes.h"
#include "services/internal/object_documents.h"
#include "services/internal/object_rules.h"

namespace mayfly::services {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
using namespace internal;

constexpr std::size_t kCopyPieceBytes = 1U << 20U;

Error invalid_argument(std::string message) { return s3_error(ErrorCode::kInvalidArgument, "InvalidArgument", std::move(message)); }
Error invalid_request(std::string message) { return s3_error(ErrorCode::kInvalidArgument, "InvalidRequest", std::move(message)); }

// What the store says of its disk, in S3's form.
Error storage_error(Error error) {
  if (!error.id().empty()) return error;
  if (error.code() == ErrorCode::kResourceExhausted)
    return Error(error.code(), "We are out of space: " + error.message(), "InsufficientStorage");
  if (error.code() == ErrorCode::kUnavailable) return Error(error.code(), error.message(), "ServiceUnavailable");
  return Error(error.code(), error.message(), "InternalError");
}
template <typename T>
Result<T> stored(Result<T> result) {
  if (result.ok()) return result;
  return storage_error(std::move(result).error());
}
// `missing` stands for what the store does not find.
template <typename T>
Result<T> stored(Result<T> result, Error (*missing)()) {
  if (!result.ok() && result.error().id().empty() && result.error().code() == ErrorCode::kNotFound) return missing();
  return stored(std::move(result));
}

std::string_view unquoted(std::string_view etag) {
  if (etag.starts_with("W/")) etag.remove_prefix(2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') etag = etag.substr(1, etag.size() - 2);
  return etag;
}

// "*" or a list of ETags.
bool names_etag(std::string_view list, std::string_view etag) {
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    std::string_view one = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    while (one.starts_with(' ')) one.remove_prefix(1);
    while (one.ends_with(' ')) one.remove_suffix(1);
    if (one == "*" || unquoted(one) == etag) return true;
  }
  return false;
}

store::Objects::Check check_of(const WriteCondition& condition) {
  if (!condition.absent && condition.etag.empty()) return {};
  return [condition](const store::ObjectRow* present) -> Result<void> {
    if (condition.absent) return present == nullptr ? Result<void>() : precondition_failed();
    if (present == nullptr) return no_such_key();
    return names_etag(condition.etag, present->etag) ? Result<void>() : precondition_failed();
  };
}

base::WallTime whole_seconds(base::WallTime time) {
  return base::WallTime(std::chrono::floor<std::chrono::seconds>(time.time_since_epoch()));
}

UploadInfo upload_info(const store::UploadRow& row, const UploadDocument& document) {
  return {.id = row.id,
          .key = row.key,
          .initiated = base::wall_from_epoch_ms(row.created_ms),
          .checksum = document.checksum,
          .full_object = document.full_object};
}

Error invalid_part() {
  return s3_error(
      ErrorCode::kInvalidArgument, "InvalidPart",
      "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag "
      "may not match the part's entity tag.");
}

// The parts that a completion names, as they are stored.
Result<std::vector<PartInfo>> chosen_parts(const CompleteRequest& request, const std::vector<store::PartRow>& rows) {
  std::vector<PartInfo> chosen;
  int last = 0;
  for (const CompleteRequest::Part& wanted : request.parts) {
    if (wanted.number <= last) {
      return s3_error(ErrorCode::kInvalidArgument, "InvalidPartOrder",
                      "The list of parts was not in ascending order. Parts must be ordered by part number.");
    }
    last = wanted.number;
    const auto row = std::ranges::lower_bound(rows, wanted.number, {}, &store::PartRow::number);
    if (row == rows.end() || row->number != wanted.number || row->etag != unquoted(wanted.etag)) return invalid_part();
    MAYFLY_ASSIGN(PartInfo part, part_info(*row));
    for (const auto& [kind, value] : wanted.checksums) {
      if (part.checksum.kind == kind && part.checksum.value != value) return invalid_part();
    }
    chosen.push_back(std::move(part));
  }
  for (std::size_t i = 0; i + 1 < chosen.size(); ++i) {
    if (chosen[i].size < ObjectLimits::kPartBytesMin)
      return s3_error(ErrorCode::kInvalidArgument, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size");
  }
  return chosen;
}

std::string etag_of(const std::vector<PartInfo>& parts) {
  ChecksumStream md5(ChecksumKind::kMd5);
  for (const PartInfo& part : parts) {
    for (std::size_t i = 0; i + 1 < part.etag.size(); i += 2) {
      unsigned char byte = 0;
      std::from_chars(part.etag.data() + i, part.etag.data() + i + 2, byte, 16);
      md5.update({reinterpret_cast<const char*>(&byte), 1});
    }
  }
  const std::string digest = md5.finish();
  return base::hex_encode({reinterpret_cast<const std::uint8_t*>(digest.data()), digest.size()}) + "-" + std::to_string(parts.size());
}

Checksum checksum_of_parts(const UploadDocument& upload, const std::vector<PartInfo>& parts) {
  Checksum whole{.kind = upload.checksum, .composite = !upload.full_object};
  if (upload.checksum == ChecksumKind::kNone) return whole;
  ChecksumStream stream(upload.checksum);
  for (const PartInfo& part : parts) {
    if (part.checksum.kind != upload.checksum) return {};
    if (whole.composite) {
      stream.update(part.checksum.value);
    } else {
      whole.value = whole.value.empty() ? part.checksum.value : combined_crc(upload.checksum, whole.value, part.checksum.value, part.size);
    }
  }
  if (whole.composite) whole.value = stream.finish();
  return whole;
}

}  // namespace

bool is_field_value(std::string_view text) {
  return std::ranges::none_of(text, [](char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == '\x7F'; });
}

Error precondition_failed() {
  return s3_error(ErrorCode::kPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold");
}

// RFC 9110, section 13.2.2: ETags go before times.
ReadVerdict judge(const ReadCondition& condition, const ObjectInfo& object) {
  const base::WallTime modified = whole_seconds(object.modified);
  if (!condition.match.empty()) {
    if (!names_etag(condition.match, object.etag)) return ReadVerdict::kFailed;
  } else if (condition.unmodified_since && modified > *condition.unmodified_since) {
    return ReadVerdict::kFailed;
  }
  if (!condition.none_match.empty()) {
    if (names_etag(condition.none_match, object.etag)) return ReadVerdict::kNotModified;
  } else if (condition.modified_since && modified <= *condition.modified_since) {
    return ReadVerdict::kNotModified;
  }
  return ReadVerdict::kHolds;
}

// --- Bodies ---

IncomingBody::IncomingBody(std::unique_ptr<store::IncomingFile> file, BodyPromise promise)
    : file_(std::move(file)),
      promise_(std::move(promise)),
      checksum_stream_(promise_.checksum),
      sha256_(promise_.signed_sha256.empty() ? ChecksumKind::kNone : ChecksumKind::kSha256) {}

Result<void> IncomingBody::append(std::string_view bytes) {
  if (file_->size() + bytes.size() > promise_.size)
    return s3_error(ErrorCode::kInvalidArgument, "IncompleteBody", "The request body has more bytes than its Content-Length states");
  md5_.update(bytes);
  checksum_stream_.update(bytes);
  sha256_.update(bytes);
  return stored(file_->append(bytes));
}

Result<void> IncomingBody::finish() {
  if (file_->size() != promise_.size) {
    return s3_error(ErrorCode::kInvalidArgument, "IncompleteBody",
                    "You did not provide the number of bytes specified by the Content-Length HTTP header");
  }
  const std::string md5 = md5_.finish();
  if (!promise_.md5.empty() && promise_.md5 != md5)
    return s3_error(ErrorCode::kInvalidArgument, "BadDigest", "The Content-MD5 you specified did not match what we received.");
  const std::string sha256 = sha256_.finish();
  if (!promise_.signed_sha256.empty() &&
      base::hex_encode({reinterpret_cast<const std::uint8_t*>(sha256.data()), sha256.size()}) != promise_.signed_sha256) {
    return s3_error(ErrorCode::kInvalidArgument, "XAmzContentSHA256Mismatch",
                    "The provided 'x-amz-content-sha256' header does not match what was computed.");
  }
  checksum_ = checksum_stream_.finish();
  if (!promise_.checksum_value.empty() && promise_.checksum_value != checksum_) {
    return s3_error(ErrorCode::kInvalidArgument, "BadDigest",
                    "The " + std::string(checksum_name(promise_.checksum)) + " you specified did not match the calculated checksum.");
  }
  etag_ = base::hex_encode({reinterpret_cast<const std::uint8_t*>(md5.data()), md5.size()});
  return {};
}

// --- Buckets ---

Buckets::Buckets(store::Objects& objects, engine::Account account, const base::Clock& clock)
    : objects_(objects), account_(std::move(account)), clock_(clock) {}

Result<void> Buckets::must_have_bucket(const std::string& name) {
  MAYFLY_TRY(check_bucket_name(name));
  MAYFLY_ASSIGN(const auto found, stored(objects_.find_bucket(name)));
  return found ? Result<void>() : no_such_bucket();
}

Result<void> Buckets::create_bucket(const std::string& name, const std::optional<std::string>& location) {
  MAYFLY_TRY(check_bucket_name(name));
  const bool us_east_1 = account_.region == "us-east-1";
  if (location && us_east_1 && *location == "us-east-1")
    return s3_error(ErrorCode::kInvalidArgument, "InvalidLocationConstraint", "The specified location-constraint is not valid");
  if (location.value_or("us-east-1") != account_.region) {
    return s3_error(ErrorCode::kInvalidArgument, "IllegalLocationConstraintException",
                    "The " + (location ? base::percent_encode(location->substr(0, 64)) : "unspecified") +
                        " location constraint is incompatible for the region specific endpoint this request was sent to.");
  }
  MAYFLY_ASSIGN(const auto present, stored(objects_.buckets()));
  if (present.size() >= ObjectLimits::kBucketsMax && std::ranges::find(present, name, &store::BucketRow::name) == present.end())
    return s3_error(ErrorCode::kInvalidArgument, "TooManyBuckets", "You have attempted to create more buckets than allowed");
  const Result<void> made =
      objects_.create_bucket({.name = name, .created_ms = base::epoch_ms(clock_.wall_now()), .document = bucket_document({})});
  if (made.ok() || made.error().code() != ErrorCode::kAlreadyExists) return stored(made);
  if (us_east_1) return {};
  return s3_error(ErrorCode::kAlreadyExists, "BucketAlreadyOwnedByYou",
                  "Your previous request to create the named bucket succeeded and you already own it.");
}

Result<std::vector<BucketInfo>> Buckets::list_buckets() {
  MAYFLY_ASSIGN(const auto rows, stored(objects_.buckets()));
  std::vector<BucketInfo> buckets;
  for (const store::BucketRow& row : rows) buckets.push_back({.name = row.name, .created = base::wall_from_epoch_ms(row.created_ms)});
  return buckets;
}

Result<BucketInfo> Buckets::find_bucket(const std::string& name) {
  MAYFLY_TRY(check_bucket_name(name));
  MAYFLY_ASSIGN(const auto row, stored(objects_.find_bucket(name)));
  if (!row) return no_such_bucket();
  return BucketInfo{.name = row->name, .created = base::wall_from_epoch_ms(row->created_ms)};
}

Result<void> Buckets::delete_bucket(const std::string& name) {
  MAYFLY_TRY(check_bucket_name(name));
  const Result<void> removed = objects_.remove_bucket(name);
  if (!removed.ok() && removed.error().code() == ErrorCode::kConflict)
    return s3_error(ErrorCode::kConflict, "BucketNotEmpty", "The bucket you tried to delete is not empty");
  return stored(removed, &no_such_bucket);
}

Result<std::vector<NameValue>> Buckets::bucket_tags(const std::string& name) {
  MAYFLY_TRY(check_bucket_name(name));
  MAYFLY_ASSIGN(const auto row, stored(objects_.find_bucket(name)));
  if (!row) return no_such_bucket();
  MAYFLY_ASSIGN(auto tags, stored(bucket_tags_from(*row)));
  if (tags.empty()) return s3_error(ErrorCode::kNotFound, "NoSuchTagSet", "The TagSet does not exist");
  return tags;
}

Result<void> Buckets::set_bucket_tags(const std::string& name, const std::vector<NameValue>& tags) {
  MAYFLY_TRY(check_bucket_name(name));
  MAYFLY_TRY(check_tags(tags, ObjectLimits::kBucketTagsMax));
  return stored(objects_.set_bucket_document(name, bucket_document(tags)), &no_such_bucket);
}

// --- Objects ---

Result<std::unique_ptr<IncomingBody>> Buckets::take(BodyPromise promise) {
  if (promise.size > ObjectLimits::kBodyBytesMax)
    return s3_error(ErrorCode::kTooLarge, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size");
  if (!promise.md5.empty() && promise.md5.size() != checksum_size(ChecksumKind::kMd5))
    return s3_error(ErrorCode::kInvalidArgument, "InvalidDigest", "The Content-MD5 you specified was invalid.");
  if (!promise.checksum_value.empty() && promise.checksum_value.size() != checksum_size(promise.checksum)) {
    std::string header = "x-amz-checksum-" + std::string(checksum_name(promise.checksum));
    std::ranges::transform(header, header.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; });
    return invalid_request("Value for " + header + " header is invalid.");
  }
  MAYFLY_ASSIGN(auto file, stored(objects_.begin_file(promise.size)));
  return std::make_unique<IncomingBody>(std::move(file), std::move(promise));
}

Result<std::unique_ptr<IncomingBody>> Buckets::receive(const std::string& bucket, const std::string& key, BodyPromise promise) {
  MAYFLY_TRY(must_have_bucket(bucket));
  MAYFLY_TRY(check_key(key));
  return take(std::move(promise));
}

Result<ObjectInfo> Buckets::put_object(const ObjectName& name, ObjectAttributes attributes, IncomingBody& body,
                                       const WriteCondition& condition) {
  MAYFLY_TRY(check_key(name.key));
  MAYFLY_TRY(check_attributes(attributes));
  const Checksum checksum = body.checksum();
  const store::ObjectRow row{.bucket = name.bucket,
                             .key = name.key,
                             .size = body.file().size(),
                             .etag = body.etag(),
                             .modified_ms = base::epoch_ms(clock_.wall_now()),
                             .document = object_document(attributes, checksum)};
  MAYFLY_TRY(stored(objects_.put_object(row, body.file(), check_of(condition)), &no_such_bucket));
  return object_info(row);
}

Result<ObjectInfo> Buckets::find_object(const ObjectName& name) {
  MAYFLY_TRY(must_have_bucket(name.bucket));
  MAYFLY_TRY(check_key(name.key));
  MAYFLY_TRY(check_version(name.version));
  MAYFLY_ASSIGN(const auto row, stored(objects_.find_object(name.bucket, name.key)));
  if (!row) return no_such_key();
  return stored(object_info(*row));
}

Result<OpenedObject> Buckets::open_object(const ObjectName& name) {
  MAYFLY_TRY(must_have_bucket(name.bucket));
  MAYFLY_TRY(check_key(name.key));
  MAYFLY_TRY(check_version(name.version));
  MAYFLY_ASSIGN(auto reader, stored(objects_.open_object(name.bucket, name.key), &no_such_key));
  MAYFLY_ASSIGN(ObjectInfo info, stored(object_info(reader->row())));
  return OpenedObject{.info = std::move(info), .reader = std::move(reader)};
}

Result<OpenedObject> Buckets::open_source(const CopyRequest& request) {
  MAYFLY_ASSIGN(OpenedObject source, open_object(request.from));
  if (judge(request.condition, source.info) != ReadVerdict::kHolds) return precondition_failed();
  return source;
}

// The bytes of `source`, or of the range of it, go to a file of their own.
Result<void> Buckets::begin_bytes(Copying& copying, OpenedObject source, const CopyRequest& request, ChecksumKind kind) {
  copying.end_ = source.info.size;
  if (request.range) {
    if (request.range->first > request.range->second || request.range->second >= source.info.size) {
      return invalid_argument("Range specified is not valid for source object of size: " + std::to_string(source.info.size));
    }
    copying.at_ = request.range->first;
    copying.end_ = request.range->second + 1;
  }
  if (copying.end_ - copying.at_ > ObjectLimits::kBodyBytesMax)
    return invalid_request("The specified copy source is larger than the maximum allowable size for a copy source: 5368709120");
  MAYFLY_ASSIGN(copying.body_, take({.size = copying.end_ - copying.at_, .checksum = kind}));
  copying.source_ = std::move(source.reader);
  return {};
}

Result<void> Copying::step() {
  if (done()) return {};
  MAYFLY_ASSIGN(const std::string piece,
                stored(source_->read(at_, static_cast<std::size_t>(std::min<std::uint64_t>(end_ - at_, kCopyPieceBytes)))));
  if (piece.empty()) return s3_error(ErrorCode::kDataLoss, "InternalError", "the bytes of the copy's source end too early");
  MAYFLY_TRY(body_->append(piece));
  at_ += piece.size();
  return {};
}

Result<Copying> Buckets::begin_copy(const CopyRequest& request) {
  MAYFLY_TRY(must_have_bucket(request.to_bucket));
  MAYFLY_TRY(check_key(request.to_key));
  MAYFLY_ASSIGN(OpenedObject source, open_source(request));
  const bool onto_itself = request.from.bucket == request.to_bucket && request.from.key == request.to_key;
  if (onto_itself && !request.attributes) {
    return invalid_request(
        "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage "
        "class, website redirect location or encryption attributes.");
  }
  Copying copying;
  copying.to_ = {.bucket = request.to_bucket, .key = request.to_key};
  copying.attributes_ = request.attributes.value_or(source.info.attributes);
  copying.attributes_.tags = request.tags.value_or(source.info.attributes.tags);
  MAYFLY_TRY(check_attributes(copying.attributes_));
  if (source.info.size > ObjectLimits::kBodyBytesMax)
    return invalid_request("The specified copy source is larger than the maximum allowable size for a copy source: 5368709120");
  const ChecksumKind wanted = request.checksum != ChecksumKind::kNone ? request.checksum : source.info.checksum.kind;
  // One whose ETag and checksum are those of its bytes shares them; any other is read and digested anew.
  if (source.info.parts == 0 && (wanted == source.info.checksum.kind)) {
    const store::ObjectRow row{.bucket = request.to_bucket,
                               .key = request.to_key,
                               .size = source.info.size,
                               .etag = source.info.etag,
                               .modified_ms = base::epoch_ms(clock_.wall_now()),
                               .document = object_document(copying.attributes_, source.info.checksum)};
    const Result<void> shared = objects_.put_shared(row, *source.reader, {});
    if (shared.ok()) {
      MAYFLY_ASSIGN(copying.made_, object_info(row));
      return copying;
    }
    if (shared.error().code() != ErrorCode::kConflict) return stored(shared, &no_such_bucket).error();
  }
  MAYFLY_TRY(begin_bytes(copying, std::move(source), request, wanted));
  return copying;
}

Result<ObjectInfo> Buckets::finish_copy(Copying& copying) {
  if (copying.made_) return *std::move(copying.made_);
  MAYFLY_TRY(copying.body_->finish());
  return put_object(copying.to_, std::move(copying.attributes_), *copying.body_, {});
}

Result<void> Buckets::delete_objects(const std::string& bucket, const std::vector<std::string>& keys) {
  MAYFLY_TRY(must_have_bucket(bucket));
  for (const std::string& key : keys) MAYFLY_TRY(check_key(key));
  return stored(objects_.remove_objects(bucket, keys));
}

Result<void> Buckets::set_object_tags(const ObjectName& name, const std::vector<NameValue>& tags) {
  MAYFLY_TRY(must_have_bucket(name.bucket));
  MAYFLY_TRY(check_key(name.key));
  MAYFLY_TRY(check_version(name.version));
  MAYFLY_TRY(check_tags(tags, ObjectLimits::kObjectTagsMax));
  return stored(objects_.change_document(name.bucket, name.key,
                                         [&](const store::ObjectRow& row) -> Result<std::string> {
                                           MAYFLY_ASSIGN(ObjectInfo info, object_info(row));
                                           info.attributes.tags = tags;
                                           return object_document(info.attributes, info.checksum);
                                         }),
                &no_such_key);
}

Result<store::ListPage> Buckets::list_objects(const std::string& bucket, const store::ListQuery& query) {
  MAYFLY_TRY(must_have_bucket(bucket));
  return stored(objects_.list(bucket, query));
}

// --- Multipart uploads ---

Result<UploadInfo> Buckets::create_upload(const UploadRequest& request) {
  MAYFLY_TRY(must_have_bucket(request.bucket));
  MAYFLY_TRY(check_key(request.key));
  MAYFLY_TRY(check_attributes(request.attributes));
  const bool digest = request.checksum == ChecksumKind::kSha1 || request.checksum == ChecksumKind::kSha256;
  if (request.full_object && (digest || request.checksum == ChecksumKind::kNone)) {
    return invalid_request("The FULL_OBJECT checksum type cannot be used with the " + std::string(checksum_name(request.checksum)) +
                           " checksum algorithm.");
  }
  const UploadDocument document{
      .attributes = request.attributes,
      .checksum = request.checksum,
      .full_object = request.full_object || request.checksum == ChecksumKind::kCrc64Nvme,
  };
  const store::UploadRow row{.id = base::random_hex(24),
                             .bucket = request.bucket,
                             .key = request.key,
                             .created_ms = base::epoch_ms(clock_.wall_now()),
                             .document = upload_document(document)};
  MAYFLY_TRY(stored(objects_.create_upload(row), &no_such_bucket));
  return upload_info(row, document);
}

Result<UploadInfo> Buckets::find_upload(const std::string& bucket, const std::string& key, const std::string& id) {
  MAYFLY_TRY(must_have_bucket(bucket));
  MAYFLY_ASSIGN(const auto row, stored(objects_.find_upload(id)));
  if (!row || row->bucket != bucket || row->key != key) return no_such_upload();
  MAYFLY_ASSIGN(const UploadDocument document, stored(upload_from(*row)));
  return upload_info(*row, document);
}

Result<std::unique_ptr<IncomingBody>> Buckets::receive_part(const PartName& part, BodyPromise promise) {
  MAYFLY_ASSIGN(const UploadInfo upload, find_upload(part.bucket, part.key, part.upload));
  if (part.number < 1 || part.number > ObjectLimits::kPartsMax)
    return invalid_argument("Part number must be an integer between 1 and 10000, inclusive");
  if (promise.checksum == ChecksumKind::kNone) promise.checksum = upload.checksum;
  if (upload.checksum != ChecksumKind::kNone && promise.checksum != upload.checksum) {
    return invalid_request("Checksum Type mismatch occurred, expected checksum Type: " + std::string(checksum_name(upload.checksum)) +
                           ", actual checksum Type: " + std::string(checksum_name(promise.checksum)));
  }
  return take(std::move(promise));
}

Result<PartInfo> Buckets::put_part(const PartName& part, IncomingBody& body) {
  const store::PartRow row{.number = part.number,
                           .size = body.file().size(),
                           .etag = body.etag(),
                           .modified_ms = base::epoch_ms(clock_.wall_now()),
                           .document = part_document(body.checksum())};
  MAYFLY_TRY(stored(objects_.put_part(part.upload, row, body.file()), &no_such_upload));
  return part_info(row);
}

Result<Copying> Buckets::begin_part_copy(const PartName& part, const CopyRequest& request) {
  MAYFLY_ASSIGN(const UploadInfo upload, find_upload(part.bucket, part.key, part.upload));
  if (part.number < 1 || part.number > ObjectLimits::kPartsMax)
    return invalid_argument("Part number must be an integer between 1 and 10000, inclusive");
  MAYFLY_ASSIGN(OpenedObject source, open_source(request));
  Copying copying;
  MAYFLY_TRY(begin_bytes(copying, std::move(source), request, upload.checksum));
  return copying;
}

Result<PartInfo> Buckets::finish_part_copy(const PartName& part, Copying& copying) {
  MAYFLY_TRY(copying.body_->finish());
  return put_part(part, *copying.body_);
}

Result<std::vector<PartInfo>> Buckets::list_parts(const std::string& bucket, const std::string& key, const std::string& id) {
  MAYFLY_TRY(find_upload(bucket, key, id));
  MAYFLY_ASSIGN(const auto rows, stored(objects_.parts(id)));
  std::vector<PartInfo> parts;
  for (const store::PartRow& row : rows) {
    MAYFLY_ASSIGN(PartInfo part, stored(part_info(row)));
    parts.push_back(std::move(part));
  }
  return parts;
}

Result<UploadsList> Buckets::list_uploads(const std::string& bucket, const store::UploadsQuery& query) {
  MAYFLY_TRY(must_have_bucket(bucket));
  MAYFLY_ASSIGN(const auto page, stored(objects_.uploads(bucket, query)));
  UploadsList list{.truncated = page.truncated};
  for (const store::UploadRow& row : page.uploads) {
    MAYFLY_ASSIGN(const UploadDocument document, stored(upload_from(row)));
    list.uploads.push_back(upload_info(row, document));
  }
  return list;
}

Result<ObjectInfo> Buckets::complete_upload(const CompleteRequest& request) {
  MAYFLY_TRY(find_upload(request.bucket, request.key, request.upload));
  if (request.parts.empty() || request.parts.size() > static_cast<std::size_t>(ObjectLimits::kPartsMax)) {
    return s3_error(ErrorCode::kInvalidArgument, "MalformedXML",
                    "The XML you provided was not well-formed or did not validate against our published schema");
  }
  const std::int64_t now_ms = base::epoch_ms(clock_.wall_now());
  const auto assemble = [&](const store::UploadRow& row, const std::vector<store::PartRow>& rows) -> Result<store::Assembly> {
    MAYFLY_ASSIGN(const UploadDocument document, upload_from(row));
    MAYFLY_ASSIGN(const std::vector<PartInfo> parts, chosen_parts(request, rows));
    store::Assembly assembly;
    std::uint64_t size = 0;
    for (const PartInfo& part : parts) {
      size += part.size;
      assembly.parts.push_back(part.number);
    }
    if (size > ObjectLimits::kObjectBytesMax)
      return s3_error(ErrorCode::kTooLarge, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size");
    const Checksum whole = checksum_of_parts(document, parts);
    if (request.checksum.kind != ChecksumKind::kNone && request.checksum.kind == whole.kind && request.checksum.value != whole.value) {
      return s3_error(ErrorCode::kInvalidArgument, "BadDigest",
                      "The " + std::string(checksum_name(whole.kind)) + " you specified did not match the calculated checksum.");
    }
    assembly.object.etag = etag_of(parts);
    assembly.object.modified_ms = now_ms;
    assembly.object.document = object_document(document.attributes, whole);
    return assembly;
  };
  MAYFLY_ASSIGN(const store::ObjectRow row,
                stored(objects_.complete_upload(request.upload, assemble, check_of(request.condition)), &no_such_upload));
  return object_info(row);
}

Result<void> Buckets::abort_upload(const std::string& bucket, const std::string& key, const std::string& id) {
  MAYFLY_TRY(find_upload(bucket, key, id));
  return stored(objects_.abort_upload(id), &no_such_upload);
}

Result<std::string> Buckets::read_object(const ObjectName& name, std::uint64_t bytes_max) {
  MAYFLY_ASSIGN(const OpenedObject opened, open_object(name));
  if (opened.info.size > bytes_max) {
    return s3_error(
        ErrorCode::kTooLarge, "EntityTooLarge",
        "The object has " + std::to_string(opened.info.size) + " bytes; at most " + std::to_string(bytes_max) + " are taken here");
  }
  std::string bytes;
  bytes.reserve(static_cast<std::size_t>(opened.info.size));
  while (bytes.size() < opened.info.size) {
    MAYFLY_ASSIGN(const std::string piece, stored(opened.reader->read(bytes.size(), kCopyPieceBytes)));
    if (piece.empty()) return s3_error(ErrorCode::kDataLoss, "InternalError", "the bytes of the object end too early");
    bytes += piece;
  }
  return bytes;
}

}  // namespace mayfly::services
