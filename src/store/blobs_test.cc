#include "store/blobs.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "base/bytes.h"
#include "store/internal/test_directory.h"

namespace mayfly::store {
namespace {

namespace fs = std::filesystem;

class BlobsTest : public ::testing::Test {
 protected:
  std::string path_of(const std::string& id) { return directory_ / "blobs/" + id.substr(0, 2) + "/" + id; }
  TestDirectory directory_;
  std::unique_ptr<Blobs> blobs_ = *open_directory_blobs(directory_ / "blobs");
};

TEST_F(BlobsTest, BytesAreNamedByTheirDigestAndReadBack) {
  const std::string id = *blobs_->put("some bytes");
  EXPECT_EQ(id, base::hex_encode(base::sha256("some bytes")));
  EXPECT_EQ(*base::read_all(blobs_->open(id, true)->get(), 100), "some bytes");
  EXPECT_EQ(*blobs_->put("some bytes"), id);
  EXPECT_EQ(*blobs_->list(), std::vector<std::string>{id});
  EXPECT_EQ(*blobs_->put(""), base::hex_encode(base::sha256("")));
  EXPECT_TRUE(fs::exists(path_of(id))) << "in a directory of its first two digits";
}

TEST_F(BlobsTest, BytesCanBeReadOnceWhileTheDiskStillWorks) {
  std::vector<std::string> seen;
  const auto look = [&](base::UniqueFd bytes) {
    EXPECT_EQ(blobs_->list()->size(), seen.size()) << "not stored yet, or stored before";
    EXPECT_LT(write(bytes.get(), "x", 1), 0) << "only for reading";
    seen.push_back(*base::read_all(bytes.get(), 100));
  };
  const std::string id = *blobs_->put("some bytes", look);
  EXPECT_EQ(seen, std::vector<std::string>{"some bytes"});
  EXPECT_EQ(*blobs_->put("some bytes", look), id);
  EXPECT_EQ(seen, (std::vector<std::string>{"some bytes", "some bytes"})) << "the same for what is there already";
}

TEST_F(BlobsTest, ADamagedBlobIsNoticedAndHealedByStoringItAgain) {
  const std::string id = *blobs_->put("some bytes");
  std::ofstream(path_of(id), std::ios::binary | std::ios::trunc) << "Some bytes";
  EXPECT_TRUE(blobs_->open(id, false).ok());
  EXPECT_EQ(blobs_->open(id, true).error().code(), base::ErrorCode::kDataLoss);
  EXPECT_EQ(*blobs_->put("some bytes"), id);
  EXPECT_TRUE(blobs_->open(id, true).ok());
}

TEST_F(BlobsTest, NamesThatAreNoDigestsNeverReachTheFileSystem) {
  std::ofstream(directory_ / "secret") << "x";
  for (const std::string& id :
       {std::string("../../secret"), std::string(), std::string(63, 'a'), std::string(64, 'A'), std::string(61, 'a') + "/.."}) {
    EXPECT_EQ(blobs_->open(id, false).error().code(), base::ErrorCode::kInvalidArgument);
    EXPECT_EQ(blobs_->remove(id).error().code(), base::ErrorCode::kInvalidArgument);
  }
  EXPECT_EQ(blobs_->open(std::string(64, 'a'), false).error().code(), base::ErrorCode::kNotFound);
  EXPECT_TRUE(blobs_->remove(std::string(64, 'a')).ok());
}

TEST_F(BlobsTest, HalfWrittenBlobsOfAFormerRunAreDeletedAtOpen) {
  const std::string id = *blobs_->put("kept");
  std::ofstream(path_of(id) + ".tmp-0123456789ab") << "half";
  ASSERT_TRUE(open_directory_blobs(directory_ / "blobs").ok());
  EXPECT_FALSE(fs::exists(path_of(id) + ".tmp-0123456789ab"));
  EXPECT_TRUE(fs::exists(path_of(id)));
}

TEST_F(BlobsTest, TheSameBytesFromManyThreadsBecomeOneBlob) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([this] {
      for (int i = 0; i < 5; ++i) EXPECT_TRUE(blobs_->put(std::string(100'000, static_cast<char>('a' + i))).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(blobs_->list()->size(), 5U);
  for (const std::string& id : *blobs_->list()) EXPECT_TRUE(blobs_->open(id, true).ok());
}

TEST_F(BlobsTest, AFullDiskLeavesNothingBehind) {
  fs::create_directory(directory_ / "small");
  if (mount("tmpfs", (directory_ / "small").c_str(), "tmpfs", 0, "size=256k") != 0)
    GTEST_SKIP() << "a small tmpfs cannot be mounted here (needs root)";
  {
    auto blobs = *open_directory_blobs(directory_ / "small/blobs");
    const std::string id = *blobs->put(std::string(50'000, 'a'));
    const auto failed = blobs->put(std::string(500'000, 'b'));
    ASSERT_FALSE(failed.ok());
    EXPECT_EQ(failed.error().code(), base::ErrorCode::kResourceExhausted) << failed.error().message();
    EXPECT_EQ(*blobs->list(), std::vector<std::string>{id});
    std::size_t files = 0;
    for (const auto& entry : fs::recursive_directory_iterator(directory_ / "small")) files += entry.is_regular_file() ? 1 : 0;
    EXPECT_EQ(files, 1U);
    EXPECT_TRUE(blobs->put(std::string(50'000, 'c')).ok());
  }
  umount2((directory_ / "small").c_str(), MNT_DETACH);
}

}  // namespace
}  // namespace mayfly::store
