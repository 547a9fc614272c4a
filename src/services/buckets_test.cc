#include "services/buckets.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "base/bytes.h"

namespace mayfly::services {
namespace {

using base::ErrorCode;
using base::Result;

class BucketsTest : public ::testing::Test {
 protected:
  BucketsTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "mayfly-buckets-XXXXXX";
    directory_ = mkdtemp(pattern.data());
    objects_ = *store::open_objects(directory_ + "/objects.db", directory_ + "/objects");
    buckets_ = std::make_unique<Buckets>(*objects_, engine::Account{}, clock_);
    EXPECT_TRUE(buckets_->create_bucket("bucket", std::nullopt).ok());
  }
  ~BucketsTest() override {
    objects_.reset();
    std::error_code ec;
    std::filesystem::remove_all(directory_, ec);
  }

  Result<ObjectInfo> put(const std::string& key, const std::string& bytes, ObjectAttributes attributes = {}, BodyPromise promise = {},
                         const WriteCondition& condition = {}) {
    promise.size = bytes.size();
    MAYFLY_ASSIGN(const auto body, buckets_->receive("bucket", key, promise));
    MAYFLY_TRY(body->append(bytes));
    MAYFLY_TRY(body->finish());
    return buckets_->put_object({.bucket = "bucket", .key = key}, std::move(attributes), *body, condition);
  }
  Result<PartInfo> put_part(const std::string& upload, int number, const std::string& bytes, ChecksumKind kind = ChecksumKind::kNone) {
    const PartName part{.bucket = "bucket", .key = "big", .upload = upload, .number = number};
    MAYFLY_ASSIGN(const auto body, buckets_->receive_part(part, {.size = bytes.size(), .checksum = kind}));
    MAYFLY_TRY(body->append(bytes));
    MAYFLY_TRY(body->finish());
    return buckets_->put_part(part, *body);
  }
  Result<ObjectInfo> copy_object(const CopyRequest& request) {
    MAYFLY_ASSIGN(Copying copying, buckets_->begin_copy(request));
    while (!copying.done()) MAYFLY_TRY(copying.step());
    return buckets_->finish_copy(copying);
  }
  Result<PartInfo> copy_part(const PartName& part, const CopyRequest& request) {
    MAYFLY_ASSIGN(Copying copying, buckets_->begin_part_copy(part, request));
    while (!copying.done()) MAYFLY_TRY(copying.step());
    return buckets_->finish_part_copy(part, copying);
  }
  std::size_t files() const {
    std::size_t count = 0;
    for (const auto& each : std::filesystem::recursive_directory_iterator(directory_ + "/objects")) count += each.is_regular_file() ? 1 : 0;
    return count;
  }
  std::string read(const std::string& key) {
    auto bytes = buckets_->read_object({.bucket = "bucket", .key = key}, 100U << 20U);
    return bytes.ok() ? *std::move(bytes) : bytes.error().id();
  }
  template <typename T>
  static std::string id_of(const Result<T>& result) {
    return result.ok() ? "ok" : result.error().id();
  }

  std::string directory_;
  base::ManualClock clock_;
  std::unique_ptr<store::Objects> objects_;
  std::unique_ptr<Buckets> buckets_;
};

TEST_F(BucketsTest, BucketsHaveTheNamesThatS3Allows) {
  for (const char* name : {"abc", "a.b-c", "123", "a23456789012345678901234567890123456789012345678901234567890123"})
    EXPECT_EQ(id_of(buckets_->create_bucket(name, std::nullopt)), "ok") << name;
  for (const char* name : {"ab", "", "Abc", "a_b", "-ab", "ab-", ".ab", "a..b", "192.168.0.1", "xn--abc", "abc-s3alias", "a/b", "abc\n",
                           "a234567890123456789012345678901234567890123456789012345678901234"})
    EXPECT_EQ(id_of(buckets_->create_bucket(name, std::nullopt)), "InvalidBucketName") << name;
}

TEST_F(BucketsTest, BucketsAreMadeInTheirRegion) {
  EXPECT_EQ(id_of(buckets_->create_bucket("bucket", std::nullopt)), "ok") << "again, in us-east-1";
  EXPECT_EQ(id_of(buckets_->create_bucket("other", "us-east-1")), "InvalidLocationConstraint");
  EXPECT_EQ(id_of(buckets_->create_bucket("other", "eu-west-1")), "IllegalLocationConstraintException");
  Buckets elsewhere(*objects_, {.id = "000000000000", .region = "eu-west-1"}, clock_);
  EXPECT_EQ(id_of(elsewhere.create_bucket("other", std::nullopt)), "IllegalLocationConstraintException");
  EXPECT_EQ(id_of(elsewhere.create_bucket("other", "eu-west-1")), "ok");
  EXPECT_EQ(id_of(elsewhere.create_bucket("other", "eu-west-1")), "BucketAlreadyOwnedByYou");
}

TEST_F(BucketsTest, ABucketGoesWhenItIsEmpty) {
  ASSERT_TRUE(put("k", "x").ok());
  EXPECT_EQ(id_of(buckets_->delete_bucket("bucket")), "BucketNotEmpty");
  ASSERT_TRUE(buckets_->delete_objects("bucket", {"k"}).ok());
  EXPECT_EQ(id_of(buckets_->delete_bucket("bucket")), "ok");
  EXPECT_EQ(id_of(buckets_->delete_bucket("bucket")), "NoSuchBucket");
  EXPECT_EQ(id_of(buckets_->find_bucket("bucket")), "NoSuchBucket");
  EXPECT_EQ(id_of(put("k", "x")), "NoSuchBucket");
  EXPECT_EQ(id_of(buckets_->list_objects("bucket", {})), "NoSuchBucket");
}

TEST_F(BucketsTest, ObjectsKeepWhatCameWithThem) {
  const ObjectAttributes attributes{
      .headers = {{"content-type", "text/plain"}}, .metadata = {{"colour", "gr\xC3\xBCn"}}, .tags = {{"stage", "test"}}};
  const auto made = put("k", "hello", attributes, {.checksum = ChecksumKind::kCrc32});
  ASSERT_TRUE(made.ok()) << made.error().message();
  EXPECT_EQ(made->etag, "5d41402abc4b2a76b9719d911017c592");
  const auto found = *buckets_->find_object({.bucket = "bucket", .key = "k"});
  EXPECT_EQ(found.size, 5U);
  EXPECT_EQ(found.attributes.headers, attributes.headers);
  EXPECT_EQ(found.attributes.metadata, attributes.metadata);
  EXPECT_EQ(found.attributes.tags, attributes.tags);
  EXPECT_EQ(found.checksum.value, checksum_of(ChecksumKind::kCrc32, "hello"));
  EXPECT_EQ(base::epoch_ms(found.modified), base::epoch_ms(clock_.wall_now()));
  EXPECT_EQ(read("k"), "hello");
}

TEST_F(BucketsTest, BodiesMustBeWhatWasPromised) {
  EXPECT_EQ(id_of(put("k", "hello", {}, {.md5 = checksum_of(ChecksumKind::kMd5, "hello")})), "ok");
  EXPECT_EQ(id_of(put("k", "Hello", {}, {.md5 = checksum_of(ChecksumKind::kMd5, "hello")})), "BadDigest");
  EXPECT_EQ(id_of(put("k", "Hello", {}, {.md5 = "short"})), "InvalidDigest");
  const std::string sha256 = base::hex_encode(base::sha256("hello"));
  EXPECT_EQ(id_of(put("k", "hello", {}, {.signed_sha256 = sha256})), "ok");
  EXPECT_EQ(id_of(put("k", "Hello", {}, {.signed_sha256 = sha256})), "XAmzContentSHA256Mismatch");
  const std::string crc = checksum_of(ChecksumKind::kCrc64Nvme, "hello");
  EXPECT_EQ(id_of(put("k", "hello", {}, {.checksum = ChecksumKind::kCrc64Nvme, .checksum_value = crc})), "ok");
  EXPECT_EQ(id_of(put("k", "Hello", {}, {.checksum = ChecksumKind::kCrc64Nvme, .checksum_value = crc})), "BadDigest");
  EXPECT_EQ(id_of(put("k", "Hello", {}, {.checksum = ChecksumKind::kCrc32, .checksum_value = crc})), "InvalidRequest");
  EXPECT_EQ(read("k"), "hello");
  EXPECT_EQ(id_of(buckets_->receive("bucket", "k", {.size = ObjectLimits::kBodyBytesMax + 1})), "EntityTooLarge");
  const auto body = *buckets_->receive("bucket", "k", {.size = 3});
  EXPECT_EQ(id_of(body->append("four")), "IncompleteBody");
  EXPECT_EQ(id_of(body->finish()), "IncompleteBody");
}

TEST_F(BucketsTest, KeysMetadataAndTagsHaveLimits) {
  EXPECT_EQ(id_of(put(std::string(1024, 'k'), "x")), "ok");
  EXPECT_EQ(id_of(put(std::string(1025, 'k'), "x")), "KeyTooLongError");
  for (const std::string& key : {std::string("\xFF"), std::string("a\0b", 3), std::string()}) EXPECT_EQ(id_of(put(key, "x")), "InvalidURI");
  EXPECT_EQ(id_of(put("k", "x", {.metadata = {{"m", std::string(2047, 'v')}}})), "ok");
  EXPECT_EQ(id_of(put("k", "x", {.metadata = {{"m", std::string(2048, 'v')}}})), "MetadataTooLarge");
  const std::string long_value(4000, 'v');
  EXPECT_EQ(id_of(put("k", "x", {.headers = {{"content-type", long_value}, {"expires", long_value}}})), "ok");
  EXPECT_EQ(id_of(put("k", "x", {.headers = {{"content-type", long_value}, {"expires", long_value}, {"cache-control", long_value}}})),
            "MetadataTooLarge");
  EXPECT_EQ(id_of(put("k", "x", {.headers = {{"expires", std::string(6500, 'v')}}, .metadata = {{"m", std::string(2000, 'v')}}})),
            "MetadataTooLarge")
      << "together";
  EXPECT_EQ(id_of(put("k", "x", {.metadata = {{"m", "\xFF"}}})), "InvalidArgument");
  EXPECT_EQ(id_of(put("k", "x", {.headers = {{"content-type", "a\tb"}}, .metadata = {{"!#$%&'*+-.^_`|~aZ9", "\xC3\xA9"}}})), "ok");
  for (const char* value : {"a\r\nSet-Cookie: b", "a\n", "\x01", "\x7F"}) {
    EXPECT_EQ(id_of(put("k", "x", {.metadata = {{"m", value}}})), "InvalidArgument");
    EXPECT_EQ(id_of(put("k", "x", {.headers = {{"content-type", value}}})), "InvalidArgument");
    EXPECT_EQ(id_of(buckets_->create_upload({.bucket = "bucket", .key = "k", .attributes = {.metadata = {{"m", value}}}})),
              "InvalidArgument");
  }
  for (const char* metadata_name : {"", "a b", "a:b", "a\r\n", "\xC3\xA9"})
    EXPECT_EQ(id_of(put("k", "x", {.metadata = {{metadata_name, "v"}}})), "InvalidArgument") << metadata_name;
  std::vector<NameValue> tags;
  for (int i = 0; i < 11; ++i) tags.emplace_back("t" + std::to_string(i), "v");
  const ObjectName name{.bucket = "bucket", .key = "k"};
  EXPECT_EQ(id_of(buckets_->set_object_tags(name, tags)), "BadRequest");
  EXPECT_EQ(id_of(buckets_->set_object_tags(name, {{"a", "1"}, {"a", "2"}})), "InvalidTag");
  EXPECT_EQ(id_of(buckets_->set_object_tags(name, {{"", "1"}})), "InvalidTag");
  EXPECT_EQ(id_of(buckets_->set_object_tags(name, {{"a", "1"}})), "ok");
  EXPECT_EQ(buckets_->find_object(name)->attributes.tags, (std::vector<NameValue>{{"a", "1"}}));
  EXPECT_EQ(buckets_->find_object(name)->attributes.metadata.size(), 1U) << "tags change nothing else";
  EXPECT_EQ(id_of(buckets_->set_object_tags({.bucket = "bucket", .key = "none"}, {})), "NoSuchKey");
  EXPECT_EQ(id_of(buckets_->bucket_tags("bucket")), "NoSuchTagSet");
  ASSERT_TRUE(buckets_->set_bucket_tags("bucket", tags).ok());
  EXPECT_EQ(*buckets_->bucket_tags("bucket"), tags);
}

TEST_F(BucketsTest, WritesMayHaveConditions) {
  EXPECT_EQ(id_of(put("k", "one", {}, {}, {.absent = true})), "ok");
  EXPECT_EQ(id_of(put("k", "two", {}, {}, {.absent = true})), "PreconditionFailed");
  EXPECT_EQ(id_of(put("k", "two", {}, {}, {.etag = "\"0000\""})), "PreconditionFailed");
  EXPECT_EQ(id_of(put("none", "two", {}, {}, {.etag = "\"0000\""})), "NoSuchKey");
  EXPECT_EQ(read("k"), "one");
  EXPECT_EQ(id_of(put("k", "two", {}, {}, {.etag = "\"" + buckets_->find_object({.bucket = "bucket", .key = "k"})->etag + "\""})), "ok");
  EXPECT_EQ(read("k"), "two");
}

TEST_F(BucketsTest, ReadConditionsAreJudgedAsHttpSays) {
  ASSERT_TRUE(put("k", "x").ok());
  const ObjectInfo object = *buckets_->find_object({.bucket = "bucket", .key = "k"});
  const std::string etag = "\"" + object.etag + "\"";
  const auto before = object.modified - std::chrono::hours(1);
  const auto after = object.modified + std::chrono::hours(1);
  EXPECT_EQ(judge({}, object), ReadVerdict::kHolds);
  EXPECT_EQ(judge({.match = etag}, object), ReadVerdict::kHolds);
  EXPECT_EQ(judge({.match = "\"a\", " + etag}, object), ReadVerdict::kHolds);
  EXPECT_EQ(judge({.match = "\"a\""}, object), ReadVerdict::kFailed);
  EXPECT_EQ(judge({.none_match = etag}, object), ReadVerdict::kNotModified);
  EXPECT_EQ(judge({.none_match = "*"}, object), ReadVerdict::kNotModified);
  EXPECT_EQ(judge({.none_match = "\"a\""}, object), ReadVerdict::kHolds);
  EXPECT_EQ(judge({.modified_since = after}, object), ReadVerdict::kNotModified);
  EXPECT_EQ(judge({.modified_since = before}, object), ReadVerdict::kHolds);
  EXPECT_EQ(judge({.none_match = "\"a\"", .modified_since = after}, object), ReadVerdict::kHolds) << "the ETag goes first";
  EXPECT_EQ(judge({.unmodified_since = before}, object), ReadVerdict::kFailed);
  EXPECT_EQ(judge({.match = etag, .unmodified_since = before}, object), ReadVerdict::kHolds) << "the ETag goes first";
}

TEST_F(BucketsTest, CopiesTakeOverOrReplace) {
  ASSERT_TRUE(put("k", "hello", {.headers = {{"content-type", "a/b"}}, .tags = {{"t", "1"}}}).ok());
  const ObjectName from{.bucket = "bucket", .key = "k"};
  ASSERT_TRUE(copy_object({.from = from, .to_bucket = "bucket", .to_key = "copy"}).ok());
  EXPECT_EQ(read("copy"), "hello");
  EXPECT_EQ(buckets_->find_object({.bucket = "bucket", .key = "copy"})->attributes.tags.size(), 1U);
  EXPECT_EQ(id_of(copy_object({.from = from, .to_bucket = "bucket", .to_key = "k"})), "InvalidRequest") << "onto itself, unchanged";
  ASSERT_TRUE(copy_object({.from = from,
                           .to_bucket = "bucket",
                           .to_key = "k",
                           .attributes = ObjectAttributes{.headers = {{"content-type", "c/d"}}},
                           .checksum = ChecksumKind::kSha256})
                  .ok());
  const ObjectInfo changed = *buckets_->find_object(from);
  EXPECT_EQ(changed.attributes.headers[0].second, "c/d");
  EXPECT_EQ(changed.attributes.tags.size(), 1U);
  EXPECT_EQ(changed.checksum.value, checksum_of(ChecksumKind::kSha256, "hello"));
  EXPECT_EQ(read("k"), "hello");
  EXPECT_EQ(id_of(copy_object({.from = {.bucket = "bucket", .key = "none"}, .to_bucket = "bucket", .to_key = "x"})), "NoSuchKey");
  EXPECT_EQ(id_of(copy_object({.from = {.bucket = "nowhere", .key = "k"}, .to_bucket = "bucket", .to_key = "x"})), "NoSuchBucket");
  EXPECT_EQ(id_of(copy_object({.from = from, .condition = {.match = "\"0\""}, .to_bucket = "bucket", .to_key = "x"})),
            "PreconditionFailed");
}

TEST_F(BucketsTest, AnUploadIsPutTogetherOfItsParts) {
  const std::string five(ObjectLimits::kPartBytesMin, 'a');
  const auto upload = *buckets_->create_upload(
      {.bucket = "bucket", .key = "big", .attributes = {.headers = {{"content-type", "a/b"}}}, .checksum = ChecksumKind::kCrc32});
  const PartInfo one = *put_part(upload.id, 1, five);
  const PartInfo two = *put_part(upload.id, 3, "the end", ChecksumKind::kCrc32);
  EXPECT_EQ(one.checksum.value, checksum_of(ChecksumKind::kCrc32, five)) << "computed where it is not stated";
  EXPECT_EQ(id_of(put_part(upload.id, 0, "x")), "InvalidArgument");
  EXPECT_EQ(id_of(put_part(upload.id, 10'001, "x")), "InvalidArgument");
  EXPECT_EQ(id_of(put_part("none", 1, "x")), "NoSuchUpload");
  EXPECT_EQ(id_of(put_part(upload.id, 1, "x", ChecksumKind::kSha1)), "InvalidRequest");
  EXPECT_EQ(buckets_->list_parts("bucket", "big", upload.id)->size(), 2U);
  EXPECT_EQ(id_of(buckets_->list_parts("bucket", "other", upload.id)), "NoSuchUpload") << "of another key";
  EXPECT_EQ(buckets_->list_uploads("bucket", {})->uploads.size(), 1U);

  CompleteRequest complete{.bucket = "bucket", .key = "big", .upload = upload.id};
  EXPECT_EQ(id_of(buckets_->complete_upload(complete)), "MalformedXML");
  complete.parts = {{.number = 3, .etag = two.etag}, {.number = 1, .etag = one.etag}};
  EXPECT_EQ(id_of(buckets_->complete_upload(complete)), "InvalidPartOrder");
  complete.parts = {{.number = 1, .etag = two.etag}};
  EXPECT_EQ(id_of(buckets_->complete_upload(complete)), "InvalidPart");
  complete.parts = {{.number = 1, .etag = one.etag}, {.number = 2, .etag = two.etag}};
  EXPECT_EQ(id_of(buckets_->complete_upload(complete)), "InvalidPart");
  complete.parts = {{.number = 1, .etag = "\"" + one.etag + "\"", .checksums = {{ChecksumKind::kCrc32, one.checksum.value}}},
                    {.number = 3, .etag = two.etag}};
  const auto made = buckets_->complete_upload(complete);
  ASSERT_TRUE(made.ok()) << made.error().message();
  EXPECT_EQ(made->parts, 2);
  EXPECT_TRUE(made->etag.ends_with("-2"));
  EXPECT_TRUE(made->checksum.composite);
  EXPECT_EQ(made->checksum.value, checksum_of(ChecksumKind::kCrc32, one.checksum.value + two.checksum.value));
  EXPECT_EQ(read("big"), five + "the end");
  EXPECT_EQ(buckets_->find_object({.bucket = "bucket", .key = "big"})->attributes.headers[0].second, "a/b");
  EXPECT_EQ(id_of(buckets_->complete_upload(complete)), "NoSuchUpload");

  // Copied, it is one piece with the ETag of its bytes.
  ASSERT_TRUE(copy_object({.from = {.bucket = "bucket", .key = "big"}, .to_bucket = "bucket", .to_key = "plain"}).ok());
  const ObjectInfo plain = *buckets_->find_object({.bucket = "bucket", .key = "plain"});
  EXPECT_EQ(plain.parts, 0);
  EXPECT_EQ(plain.checksum.value, checksum_of(ChecksumKind::kCrc32, five + "the end"));
  EXPECT_EQ(read("plain"), five + "the end");
}

TEST_F(BucketsTest, TheChecksumOfTheWholeIsCombinedFromTheParts) {
  const std::string five(ObjectLimits::kPartBytesMin, 'b');
  for (const ChecksumKind kind : {ChecksumKind::kCrc32, ChecksumKind::kCrc64Nvme}) {
    const auto upload = *buckets_->create_upload({.bucket = "bucket", .key = "big", .checksum = kind, .full_object = true});
    CompleteRequest complete{.bucket = "bucket", .key = "big", .upload = upload.id};
    complete.parts = {{.number = 1, .etag = put_part(upload.id, 1, five)->etag},
                      {.number = 2, .etag = put_part(upload.id, 2, "end")->etag}};
    complete.checksum = {.kind = kind, .value = checksum_of(kind, "something else")};
    EXPECT_EQ(id_of(buckets_->complete_upload(complete)), "BadDigest");
    complete.checksum.value = checksum_of(kind, five + "end");
    const auto made = buckets_->complete_upload(complete);
    ASSERT_TRUE(made.ok()) << made.error().message();
    EXPECT_FALSE(made->checksum.composite);
    EXPECT_EQ(made->checksum.value, complete.checksum.value);
  }
  EXPECT_EQ(id_of(buckets_->create_upload({.bucket = "bucket", .key = "k", .checksum = ChecksumKind::kSha256, .full_object = true})),
            "InvalidRequest");
}

TEST_F(BucketsTest, PartsButTheLastHaveFiveMegabytes) {
  const auto upload = *buckets_->create_upload({.bucket = "bucket", .key = "big"});
  const std::string one = put_part(upload.id, 1, "too small")->etag;
  const std::string two = put_part(upload.id, 2, "end")->etag;
  CompleteRequest complete{
      .bucket = "bucket", .key = "big", .upload = upload.id, .parts = {{.number = 1, .etag = one}, {.number = 2, .etag = two}}};
  EXPECT_EQ(id_of(buckets_->complete_upload(complete)), "EntityTooSmall");
  EXPECT_EQ(id_of(buckets_->abort_upload("bucket", "big", upload.id)), "ok");
  EXPECT_EQ(id_of(buckets_->abort_upload("bucket", "big", upload.id)), "NoSuchUpload");
}

TEST_F(BucketsTest, APartMayBeCopiedFromARange) {
  ASSERT_TRUE(put("source", "0123456789").ok());
  const auto upload = *buckets_->create_upload({.bucket = "bucket", .key = "big"});
  const PartName part{.bucket = "bucket", .key = "big", .upload = upload.id, .number = 1};
  CopyRequest copy{.from = {.bucket = "bucket", .key = "source"}};
  copy.range = {2, 4};
  const auto copied = copy_part(part, copy);
  ASSERT_TRUE(copied.ok());
  EXPECT_EQ(copied->size, 3U);
  copy.range = {2, 10};
  EXPECT_EQ(id_of(copy_part(part, copy)), "InvalidArgument");
  ASSERT_TRUE(
      buckets_->complete_upload({.bucket = "bucket", .key = "big", .upload = upload.id, .parts = {{.number = 1, .etag = copied->etag}}})
          .ok());
  EXPECT_EQ(read("big"), "234");
}

TEST_F(BucketsTest, ReadingAWholeObjectSaysWhatS3Would) {
  ASSERT_TRUE(put("k", "hello").ok());
  const auto refused = [&](const ObjectName& name, std::uint64_t max) {
    const auto bytes = buckets_->read_object(name, max);
    return bytes.ok() ? *bytes : bytes.error().id() + ": " + bytes.error().message();
  };
  EXPECT_EQ(refused({.bucket = "bucket", .key = "k"}, 5), "hello");
  EXPECT_EQ(refused({.bucket = "bucket", .key = "k", .version = "null"}, 5), "hello");
  EXPECT_TRUE(refused({.bucket = "bucket", .key = "k"}, 4).starts_with("EntityTooLarge: "));
  EXPECT_EQ(refused({.bucket = "nowhere", .key = "k"}, 5), "NoSuchBucket: The specified bucket does not exist");
  EXPECT_EQ(refused({.bucket = "bucket", .key = "none"}, 5), "NoSuchKey: The specified key does not exist.");
  EXPECT_TRUE(refused({.bucket = "bucket", .key = "k", .version = "v1"}, 5).starts_with("NoSuchVersion: "));
}

TEST_F(BucketsTest, ACopyTakesItsBytesPieceByPieceAndLeavesNothingWhenItIsGivenUp) {
  constexpr std::size_t kPiece = 1U << 20U;
  const std::string bytes = std::string(kPiece, 'a') + std::string(kPiece, 'b') + "c";
  ASSERT_TRUE(put("k", bytes).ok());
  const CopyRequest request{
      .from = {.bucket = "bucket", .key = "k"}, .to_bucket = "bucket", .to_key = "l", .checksum = ChecksumKind::kCrc32};
  {
    Copying copying = *buckets_->begin_copy(request);
    int steps = 0;
    for (; !copying.done(); ++steps) ASSERT_TRUE(copying.step().ok());
    EXPECT_EQ(steps, 3);
    EXPECT_EQ(read("l"), "NoSuchKey");
    const auto made = buckets_->finish_copy(copying);
    ASSERT_TRUE(made.ok());
    EXPECT_EQ(made->checksum.value, checksum_of(ChecksumKind::kCrc32, bytes));
    EXPECT_EQ(read("l"), bytes);
  }
  {
    Copying given_up = *buckets_->begin_copy(request);
    ASSERT_TRUE(given_up.step().ok());
    EXPECT_EQ(files(), 3U);
  }
  EXPECT_EQ(files(), 2U);
  const Copying shared = *buckets_->begin_copy({.from = request.from, .to_bucket = "bucket", .to_key = "m"});
  EXPECT_TRUE(shared.done()) << "without a byte";
  EXPECT_EQ(files(), 2U);
}

}  // namespace
}  // namespace mayfly::services
