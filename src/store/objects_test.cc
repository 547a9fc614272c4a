#include "store/objects.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "store/internal/failing_disk_for_test.h"
#include "store/internal/test_directory.h"

namespace mayfly::store {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ErrorCode;
using base::Result;

class ObjectsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    reopen();
    ASSERT_TRUE(objects_->create_bucket({.name = "b", .created_ms = 1, .document = "{}"}).ok());
  }
  void reopen() {
    objects_.reset();
    auto opened = open_objects(directory_ / "objects.db", directory_ / "objects", [this] { return Result<std::uint64_t>(free_); });
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    objects_ = *std::move(opened);
  }
  Result<void> put(const std::string& key, const std::string& bytes, const Objects::Check& check = {}) {
    MAYFLY_ASSIGN(const auto file, objects_->begin_file(bytes.size()));
    MAYFLY_TRY(file->append(bytes));
    return objects_->put_object({.bucket = "b", .key = key, .size = bytes.size(), .etag = "e-" + bytes, .modified_ms = 5, .document = "d"},
                                *file, check);
  }
  Result<void> put_part(const std::string& upload, int number, const std::string& bytes) {
    MAYFLY_ASSIGN(const auto file, objects_->begin_file(bytes.size()));
    MAYFLY_TRY(file->append(bytes));
    return objects_->put_part(upload, {.number = number, .size = bytes.size(), .etag = "p", .modified_ms = 5, .document = "d"}, *file);
  }
  static std::string all_of(ObjectReader& reader) {
    std::string bytes;
    while (true) {
      const auto piece = reader.read(bytes.size(), 3);
      EXPECT_TRUE(piece.ok()) << piece.error().message();
      if (!piece.ok() || piece->empty()) return bytes;
      bytes += *piece;
    }
  }
  std::string get(const std::string& key) {
    auto reader = objects_->open_object("b", key);
    return reader.ok() ? all_of(**reader) : "(" + reader.error().message() + ")";
  }
  std::size_t files() const {
    std::size_t count = 0;
    for (const auto& each : fs::recursive_directory_iterator(directory_ / "objects")) count += each.is_regular_file() ? 1 : 0;
    return count;
  }
  std::vector<std::string> shown(const ListQuery& query) {
    std::vector<std::string> names;
    const ListPage page = *objects_->list("b", query);
    for (const auto& object : page.objects) names.push_back(object.key);
    for (const auto& prefix : page.prefixes) names.push_back("<" + prefix + ">");
    if (page.truncated) names.push_back("... " + page.next);
    return names;
  }

  TestDirectory directory_;
  std::uint64_t free_ = 1ULL << 40U;  // bytes of the disk, as the store is told
  std::unique_ptr<Objects> objects_;
};

TEST_F(ObjectsTest, WhatIsPutIsReadBackAlsoAfterReopening) {
  ASSERT_TRUE(put("k", "some bytes").ok());
  ASSERT_TRUE(put("empty", "").ok());
  reopen();
  EXPECT_EQ(get("k"), "some bytes");
  EXPECT_EQ(get("empty"), "");
  const ObjectRow row = **objects_->find_object("b", "k");
  EXPECT_EQ(row.size, 10U);
  EXPECT_EQ(row.etag, "e-some bytes");
  EXPECT_EQ(row.document, "d");
  EXPECT_FALSE(objects_->find_object("b", "K")->has_value());
  EXPECT_EQ(objects_->open_object("b", "none").error().code(), ErrorCode::kNotFound);
}

TEST_F(ObjectsTest, ABucketIsThereOnceAndGoesWhenItIsEmpty) {
  EXPECT_EQ(objects_->create_bucket({.name = "b"}).error().code(), ErrorCode::kAlreadyExists);
  ASSERT_TRUE(put("k", "x").ok());
  EXPECT_EQ(objects_->remove_bucket("b").error().code(), ErrorCode::kConflict);
  ASSERT_TRUE(objects_->remove_objects("b", {"k", "never there"}).ok());
  ASSERT_TRUE(objects_->create_upload({.id = "u", .bucket = "b", .key = "k", .document = "d"}).ok());
  ASSERT_TRUE(put_part("u", 1, "part").ok());
  EXPECT_TRUE(objects_->remove_bucket("b").ok());
  EXPECT_EQ(objects_->remove_bucket("b").error().code(), ErrorCode::kNotFound);
  EXPECT_FALSE(objects_->find_upload("u")->has_value());
  EXPECT_EQ(files(), 0U);
  EXPECT_EQ(put("k", "x").error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(files(), 0U) << "what could not be put leaves nothing";
}

TEST_F(ObjectsTest, AReaderKeepsWhatItOpenedWhileTheObjectIsReplacedAndDeleted) {
  ASSERT_TRUE(put("k", "first").ok());
  auto first = *objects_->open_object("b", "k");
  ASSERT_TRUE(put("k", "second").ok());
  auto second = *objects_->open_object("b", "k");
  ASSERT_TRUE(objects_->remove_objects("b", {"k"}).ok());
  EXPECT_EQ(all_of(*first), "first");
  EXPECT_EQ(all_of(*second), "second");
  EXPECT_EQ(files(), 2U);
  first.reset();
  second.reset();
  ASSERT_TRUE(objects_->sweep().ok());
  EXPECT_EQ(files(), 0U);
}

TEST_F(ObjectsTest, ACheckDecidesBeforeAnythingChanges) {
  ASSERT_TRUE(put("k", "first").ok());
  const auto refuse = [](const ObjectRow* present) -> Result<void> {
    return Error(ErrorCode::kPreconditionFailed, present == nullptr ? "absent" : present->etag);
  };
  EXPECT_EQ(put("k", "second", refuse).error().message(), "e-first");
  EXPECT_EQ(put("other", "second", refuse).error().message(), "absent");
  EXPECT_EQ(get("k"), "first");
  ASSERT_TRUE(put("k", "third").ok());
  EXPECT_EQ(files(), 1U);
}

TEST_F(ObjectsTest, CopiesShareBytesUntilTheLastIsGone) {
  ASSERT_TRUE(put("k", "shared").ok());
  const auto source = *objects_->open_object("b", "k");
  ASSERT_TRUE(objects_->put_shared({.bucket = "b", .key = "copy", .size = 6, .etag = "e", .document = "d"}, *source, {}).ok());
  ASSERT_TRUE(
      objects_->put_shared({.bucket = "b", .key = "k", .size = 6, .etag = "e-shared", .modified_ms = 5, .document = "d2"}, *source, {})
          .ok())
      << "onto itself";
  EXPECT_EQ(files(), 1U);
  ASSERT_TRUE(objects_->remove_objects("b", {"k"}).ok());
  EXPECT_EQ(get("copy"), "shared");
  EXPECT_EQ(objects_->put_shared({.bucket = "b", .key = "late", .document = "d"}, *source, {}).error().code(), ErrorCode::kConflict);
  ASSERT_TRUE(objects_->remove_objects("b", {"copy"}).ok());
}

TEST_F(ObjectsTest, ACopyDoesNotShareBytesThatAnEqualObjectReplaced) {
  ASSERT_TRUE(put("k", "equal").ok());
  auto source = *objects_->open_object("b", "k");
  ASSERT_TRUE(put("k", "equal").ok()) << "the same ETag at the same time";
  const auto shared = objects_->put_shared({.bucket = "b", .key = "copy", .size = 5, .etag = "e", .document = "d"}, *source, {});
  source.reset();
  ASSERT_TRUE(objects_->sweep().ok());
  ASSERT_FALSE(shared.ok());
  EXPECT_EQ(shared.error().code(), ErrorCode::kConflict);
  EXPECT_EQ(get("k"), "equal");
}

TEST_F(ObjectsTest, ListsGroupPageAndOrderByBytes) {
  for (const char* key : {"a", "a/1", "a/2", "a/b/c", "b", "c/x", "d", "\xC3\xA9", "z"}) ASSERT_TRUE(put(key, "x").ok());
  using Names = std::vector<std::string>;
  EXPECT_EQ(shown({}), (Names{"a", "a/1", "a/2", "a/b/c", "b", "c/x", "d", "z", "\xC3\xA9"}));
  EXPECT_EQ(shown({.delimiter = "/"}), (Names{"a", "b", "d", "z", "\xC3\xA9", "<a/>", "<c/>"}));
  EXPECT_EQ(shown({.prefix = "a/", .delimiter = "/"}), (Names{"a/1", "a/2", "<a/b/>"}));
  EXPECT_EQ(shown({.delimiter = "/", .max = 2}), (Names{"a", "<a/>", "... a/"}));
  EXPECT_EQ(shown({.delimiter = "/", .after = "a/", .max = 2}), (Names{"b", "<c/>", "... c/"}));
  EXPECT_EQ(shown({.delimiter = "/", .after = "c/"}), (Names{"d", "z", "\xC3\xA9"}));
  EXPECT_EQ(shown({.after = "a/", .max = 1}), (Names{"a/1", "... a/1"})) << "without a delimiter it is a name";
  EXPECT_EQ(shown({.prefix = "c"}), (Names{"c/x"}));
  EXPECT_EQ(shown({.max = 0}), Names{});
  EXPECT_EQ(shown({.max = 9}).size(), 9U) << "exactly all is not truncated";
  ASSERT_TRUE(put("a/", "folder").ok());
  EXPECT_EQ(shown({.prefix = "a/", .delimiter = "/", .after = "a/"}), (Names{"a/1", "a/2", "<a/b/>"}));
}

TEST_F(ObjectsTest, AnUploadBecomesAnObjectOfTheChosenParts) {
  ASSERT_TRUE(objects_->create_upload({.id = "u", .bucket = "b", .key = "k", .created_ms = 3, .document = "ud"}).ok());
  ASSERT_TRUE(put_part("u", 2, "world").ok());
  ASSERT_TRUE(put_part("u", 1, "will be replaced").ok());
  ASSERT_TRUE(put_part("u", 1, "hello ").ok());
  ASSERT_TRUE(put_part("u", 7, "not chosen").ok());
  EXPECT_EQ(files(), 3U);
  EXPECT_EQ(put_part("none", 1, "x").error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(objects_->parts("u")->size(), 3U);
  const auto refused = objects_->complete_upload(
      "u", [](const UploadRow&, const std::vector<PartRow>&) -> Result<Assembly> { return Error(ErrorCode::kConflict, "no"); }, {});
  EXPECT_EQ(refused.error().message(), "no");
  const auto made =
      objects_->complete_upload("u",
                                [](const UploadRow& upload, const std::vector<PartRow>& parts) -> Result<Assembly> {
                                  EXPECT_EQ(upload.document, "ud");
                                  EXPECT_EQ(parts.size(), 3U);
                                  return Assembly{.object = {.etag = "whole-2", .modified_ms = 9, .document = "od"}, .parts = {1, 2}};
                                },
                                {});
  ASSERT_TRUE(made.ok()) << made.error().message();
  EXPECT_EQ(made->size, 11U);
  EXPECT_EQ(get("k"), "hello world");
  EXPECT_EQ(files(), 2U);
  EXPECT_EQ(objects_->abort_upload("u").error().code(), ErrorCode::kNotFound);
  reopen();
  EXPECT_EQ(get("k"), "hello world");
  auto reader = *objects_->open_object("b", "k");
  EXPECT_EQ(*reader->read(8, 100), "rld");
  EXPECT_EQ(*reader->read(11, 100), "");
  ASSERT_TRUE(objects_->create_upload({.id = "v", .bucket = "b", .key = "k", .document = "d"}).ok());
  ASSERT_TRUE(put_part("v", 1, "x").ok());
  ASSERT_TRUE(objects_->abort_upload("v").ok());
  EXPECT_EQ(files(), 2U);
}

TEST_F(ObjectsTest, UploadsAreListedByKeyAndId) {
  for (const auto& [key, id] : std::vector<std::pair<std::string, std::string>>{{"a", "2"}, {"a", "1"}, {"b", "3"}, {"pre/x", "4"}})
    ASSERT_TRUE(objects_->create_upload({.id = id, .bucket = "b", .key = key, .document = "d"}).ok());
  const auto ids = [&](const UploadsQuery& query) {
    std::string all;
    const UploadsPage page = *objects_->uploads("b", query);
    for (const UploadRow& upload : page.uploads) all += upload.id;
    return all + (page.truncated ? "+" : "");
  };
  EXPECT_EQ(ids({}), "1234");
  EXPECT_EQ(ids({.max = 2}), "12+");
  EXPECT_EQ(ids({.after_key = "a", .after_id = "1"}), "234");
  EXPECT_EQ(ids({.after_key = "a"}), "34");
  EXPECT_EQ(ids({.prefix = "pre/"}), "4");
  EXPECT_EQ(ids({.max = 4}), "1234") << "exactly all is not truncated";
  EXPECT_EQ(ids({.max = 0}), "+");
}

TEST_F(ObjectsTest, APageOfUploadsHoldsABoundedSumOfDocuments) {
  for (const char* id : {"1", "2", "3", "4", "5"})
    ASSERT_TRUE(objects_->create_upload({.id = id, .bucket = "b", .key = "k", .document = std::string(1U << 20U, 'd')}).ok());
  UploadsPage page = *objects_->uploads("b", {});
  ASSERT_EQ(page.uploads.size(), 2U);
  EXPECT_TRUE(page.truncated);
  page = *objects_->uploads("b", {.after_key = "k", .after_id = "3"});
  EXPECT_EQ(page.uploads.size(), 2U);
  EXPECT_FALSE(page.truncated);
}

TEST_F(ObjectsTest, LeftoversOfACrashGoAndNamedBytesStay) {
  ASSERT_TRUE(put("k", "kept").ok());
  auto writing = *objects_->begin_file(10);
  ASSERT_TRUE(writing->append("half").ok());
  std::ofstream(directory_ / ("objects/incoming/" + std::string(32, 'a'))) << "half-written by a former run";
  fs::create_directory(directory_ / "objects/ab");
  std::ofstream(directory_ / ("objects/ab/ab" + std::string(30, '0'))) << "nobody names it";
  std::ofstream(directory_ / "objects/ab/not one of ours") << "left alone";
  EXPECT_EQ(*objects_->sweep(), 1U);
  EXPECT_EQ(files(), 4U) << "kept, being written, former run, not ours";
  ASSERT_TRUE(objects_->put_object({.bucket = "b", .key = "w", .size = 4, .etag = "e", .document = "d"}, *writing, {}).ok());
  writing.reset();
  reopen();
  EXPECT_EQ(files(), 3U);
  EXPECT_EQ(get("k"), "kept");
  EXPECT_EQ(get("w"), "half");
}

TEST_F(ObjectsTest, AFileThatNobodyPutsGoesWithItsOwner) {
  {
    const auto file = *objects_->begin_file(4);
    ASSERT_TRUE(file->append("half").ok());
    EXPECT_EQ(files(), 1U);
  }
  EXPECT_EQ(files(), 0U);
}

TEST_F(ObjectsTest, TooLargeForTheDiskIsExhaustionBeforeAByteIsTaken) {
  const auto refused = objects_->begin_file(1ULL << 60U);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code(), ErrorCode::kResourceExhausted);
  EXPECT_NE(refused.error().message().find("free some disk space"), std::string::npos);
}

TEST_F(ObjectsTest, AnnouncedBytesKeepNoMoreOfTheDiskThanAWindow) {
  free_ = Objects::kReserveBytes + (200ULL << 20U);
  const auto announced = *objects_->begin_file(190ULL << 20U);
  ASSERT_TRUE(announced->append("a first byte").ok());
  EXPECT_TRUE(put("k", "others go on").ok());
  EXPECT_TRUE(objects_->begin_file(130ULL << 20U).ok());
  EXPECT_EQ(objects_->begin_file(140ULL << 20U).error().code(), ErrorCode::kResourceExhausted) << "what is promised is not given twice";
}

TEST_F(ObjectsTest, ADiskThatFillsWhileABodyComesEndsIt) {
  const std::string piece(8U << 20U, 'x');
  const auto body = *objects_->begin_file(Objects::kPromiseBytes + 2 * piece.size());
  free_ = Objects::kReserveBytes;
  for (std::size_t done = 0; done < Objects::kPromiseBytes; done += piece.size()) ASSERT_TRUE(body->append(piece).ok()) << done;
  EXPECT_EQ(body->append(piece).error().code(), ErrorCode::kResourceExhausted);
  free_ = Objects::kReserveBytes + 2 * piece.size();
  EXPECT_TRUE(body->append(piece).ok());
  EXPECT_TRUE(body->append(piece).ok());
  free_ = Objects::kReserveBytes + 1;
  EXPECT_TRUE(objects_->begin_file(1).ok()) << "nothing stays promised to a body that has come";
}

TEST_F(ObjectsTest, BelowTheReserveNoRowIsAddedAndEverythingCanBeRemoved) {
  ASSERT_TRUE(put("k", "bytes").ok());
  ASSERT_TRUE(objects_->create_upload({.id = "u", .bucket = "b", .key = "k", .document = "d"}).ok());
  ASSERT_TRUE(put_part("u", 1, "part").ok());
  auto source = *objects_->open_object("b", "k");
  auto file = *objects_->begin_file(4);
  ASSERT_TRUE(file->append("part").ok());
  free_ = Objects::kReserveBytes - 1;
  const auto assemble = [](const UploadRow&, const std::vector<PartRow>&) -> Result<Assembly> {
    return Assembly{.object = {}, .parts = {1}};
  };
  const auto change = [](const ObjectRow&) -> Result<std::string> { return std::string("longer"); };
  const auto code = [](const auto& result) { return result.ok() ? ErrorCode::kInternal : result.error().code(); };
  EXPECT_EQ(code(put("k", "")), ErrorCode::kResourceExhausted);
  EXPECT_EQ(code(objects_->put_object({.bucket = "b", .key = "k", .document = "d"}, *file, {})), ErrorCode::kResourceExhausted);
  EXPECT_EQ(code(objects_->put_shared({.bucket = "b", .key = "copy", .document = "d"}, *source, {})), ErrorCode::kResourceExhausted);
  EXPECT_EQ(code(objects_->change_document("b", "k", change)), ErrorCode::kResourceExhausted);
  EXPECT_EQ(code(objects_->create_upload({.id = "v", .bucket = "b", .key = "k", .document = "d"})), ErrorCode::kResourceExhausted);
  EXPECT_EQ(code(objects_->put_part("u", {.number = 2, .size = 4, .etag = "p", .document = "d"}, *file)), ErrorCode::kResourceExhausted);
  EXPECT_EQ(code(objects_->complete_upload("u", assemble, {})), ErrorCode::kResourceExhausted);
  file.reset();
  source.reset();
  EXPECT_EQ(get("k"), "bytes");
  EXPECT_TRUE(objects_->abort_upload("u").ok());
  EXPECT_TRUE(objects_->remove_objects("b", {"k"}).ok());
  EXPECT_TRUE(objects_->remove_bucket("b").ok());
  EXPECT_EQ(files(), 0U);
}

TEST_F(ObjectsTest, DamagedBytesAreNoticed) {
  ASSERT_TRUE(put("k", "some bytes").ok());
  for (const auto& each : fs::recursive_directory_iterator(directory_ / "objects"))
    if (each.is_regular_file()) fs::resize_file(each.path(), 3);
  const auto reader = *objects_->open_object("b", "k");
  EXPECT_EQ(reader->read(0, 10).error().code(), ErrorCode::kDataLoss);
}

TEST_F(ObjectsTest, WhateverWriteFailsAnObjectIsAsBeforeOrAfter) {
  const FailingDisk disk;
  objects_.reset();
  std::string last;
  for (int nth = 1; nth < 100; ++nth) {
    reopen();
    if (nth == 1) ASSERT_TRUE(put("k", last = "start").ok());
    FailingDisk::arm(nth % 2 == 0 ? FailingDisk::Kind::kWrite : FailingDisk::Kind::kSync, (nth + 1) / 2);
    const std::string next = "try " + std::to_string(nth);
    const auto done = put("k", next);
    const bool struck = FailingDisk::struck();
    FailingDisk::disarm();
    if (!done.ok()) {
      EXPECT_EQ(done.error().code(), ErrorCode::kUnavailable);
      EXPECT_EQ(objects_->sweep().error().code(), ErrorCode::kUnavailable);
    }
    reopen();
    const std::string now = get("k");
    EXPECT_TRUE(now == next || (now == last && !done.ok())) << nth << ": " << now;
    last = now;
    ASSERT_TRUE(objects_->sweep().ok());
    EXPECT_EQ(files(), 1U) << nth;
    if (struck || nth <= 12) continue;
    objects_.reset();  // before its disk
    return;
  }
  FAIL() << "a put never went through";
}

TEST_F(ObjectsTest, WhatReturnedSurvivesAKillAtAnyMoment) {
  objects_.reset();
  for (int round = 0; round < 6; ++round) {
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      auto opened = open_objects(directory_ / "objects.db", directory_ / "objects");
      if (!opened.ok()) _exit(1);
      objects_ = *std::move(opened);
      for (std::uint64_t i = 0;; ++i) {
        if (!put("k" + std::to_string(i % 5), std::string(1000 + i, static_cast<char>('a' + i % 26))).ok()) _exit(2);
        if (write(pipe_ends[1], &i, sizeof i) != sizeof i) _exit(3);
      }
    }
    close(pipe_ends[1]);
    std::uint64_t returned = 0;
    for (int reads = 0; reads < 12 + round * 7; ++reads)
      ASSERT_EQ(read(pipe_ends[0], &returned, sizeof returned), static_cast<ssize_t>(sizeof returned));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    close(pipe_ends[0]);
    reopen();
    for (const ObjectRow& row : objects_->list("b", {})->objects) {
      const std::string bytes = get(row.key);
      EXPECT_EQ(bytes.size(), row.size);
      EXPECT_EQ("e-" + bytes, row.etag);
    }
    ASSERT_TRUE(objects_->sweep().ok());
    EXPECT_EQ(files(), 5U);
    objects_.reset();
  }
}

TEST_F(ObjectsTest, AnyThreadMayCall) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 15; ++i) {
        const std::string bytes = std::to_string(t) + std::string(static_cast<std::size_t>(i), 'x');
        EXPECT_TRUE(put("same", bytes).ok());
        auto reader = objects_->open_object("b", "same");
        ASSERT_TRUE(reader.ok());
        EXPECT_EQ("e-" + all_of(**reader), (*reader)->row().etag);
        EXPECT_TRUE(objects_->sweep().ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(objects_->sweep().ok());
  EXPECT_EQ(files(), 1U);
}

}  // namespace
}  // namespace mayfly::store
