#include "store/catalogue.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <fstream>
#include <thread>

#include "store/internal/failing_disk_for_test.h"
#include "store/internal/sqlite.h"
#include "store/internal/test_directory.h"

namespace mayfly::store {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ErrorCode;
using base::Result;

CatalogueChange put(const std::string& name, std::uint64_t next_version, const std::string& document) {
  return {.put_functions = {{.name = name, .next_version = next_version, .document = document}},
          .put_versions = {{.name = name, .version = "$LATEST", .code_id = "code", .document = document}}};
}

std::vector<FunctionRow> functions_of(Catalogue& catalogue) {
  std::vector<FunctionRow> all;
  EXPECT_TRUE(catalogue
                  .each_function([&](const FunctionRow& row, const std::vector<VersionRow>&) -> Result<void> {
                    all.push_back(row);
                    return {};
                  })
                  .ok());
  return all;
}
std::vector<VersionRow> versions_of(Catalogue& catalogue) {
  std::vector<VersionRow> all;
  EXPECT_TRUE(catalogue
                  .each_function([&](const FunctionRow& row, const std::vector<VersionRow>& versions) -> Result<void> {
                    for (const VersionRow& version : versions) {
                      EXPECT_EQ(version.name, row.name);
                      all.push_back(version);
                    }
                    return {};
                  })
                  .ok());
  return all;
}

class CatalogueTest : public ::testing::Test {
 protected:
  std::unique_ptr<Catalogue> open() {
    auto opened = open_catalogue(path_);
    EXPECT_TRUE(opened.ok()) << opened.error().message();
    return opened.ok() ? *std::move(opened) : nullptr;
  }
  // The functions' documents match their versions': no change was applied in part.
  static void expect_whole(Catalogue& catalogue) {
    const auto functions = functions_of(catalogue);
    const auto versions = versions_of(catalogue);
    ASSERT_EQ(functions.size(), versions.size());
    for (std::size_t i = 0; i < functions.size(); ++i) {
      EXPECT_EQ(functions[i].name, versions[i].name);
      EXPECT_EQ(functions[i].document, versions[i].document);
    }
  }
  // Runs SQL on the closed file, as another program would.
  void run_sql(const char* sql) {
    sqlite3* handle = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &handle), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(handle, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(handle);
    sqlite3_close(handle);
  }

  TestDirectory directory_;
  const std::string path_ = directory_ / "catalogue.db";
};

TEST_F(CatalogueTest, RowsAndSettingsAreThereAfterReopening) {
  {
    const auto catalogue = open();
    ASSERT_TRUE(catalogue->apply(put("b", 3, "{\"x\":\"\xC3\xA9\"}")).ok());
    ASSERT_TRUE(catalogue->apply(put("a", 1, "one")).ok());
    ASSERT_TRUE(catalogue->apply(put("a", 2, "two")).ok());
    ASSERT_TRUE(catalogue->set_setting("instance", "x").ok());
    ASSERT_TRUE(catalogue->set_setting("instance", "y").ok());
  }
  const auto catalogue = open();
  const auto functions = functions_of(*catalogue);
  ASSERT_EQ(functions.size(), 2U);
  EXPECT_EQ(functions[0].name, "a");
  EXPECT_EQ(functions[0].next_version, 2U);
  EXPECT_EQ(functions[0].document, "two");
  EXPECT_EQ(functions[1].document, "{\"x\":\"\xC3\xA9\"}");
  EXPECT_EQ(versions_of(*catalogue).at(1).code_id, "code");
  EXPECT_EQ(*catalogue->setting("instance"), "y");
  EXPECT_EQ(*catalogue->setting("absent"), "");
  EXPECT_TRUE(catalogue->check().ok());
}

TEST_F(CatalogueTest, RemovingAFunctionTakesItsVersionsAlong) {
  const auto catalogue = open();
  ASSERT_TRUE(catalogue->apply(put("a", 1, "x")).ok());
  ASSERT_TRUE(catalogue
                  ->apply({.put_versions = {{.name = "a", .version = "1", .code_id = "c", .document = "d"},
                                            {.name = "a", .version = "2", .code_id = "c", .document = "d"}}})
                  .ok());
  ASSERT_TRUE(catalogue->apply({.remove_versions = {{"a", "1"}}}).ok());
  EXPECT_EQ(versions_of(*catalogue).size(), 2U);
  ASSERT_TRUE(catalogue->apply({.remove_functions = {"a"}}).ok());
  EXPECT_TRUE(functions_of(*catalogue).empty());
  EXPECT_TRUE(versions_of(*catalogue).empty());
}

TEST_F(CatalogueTest, AWalkOverAllFunctionsEndsWithTheFirstErrorAndCanBeRepeated) {
  const auto catalogue = open();
  for (const char* name : {"a", "b", "c"}) ASSERT_TRUE(catalogue->apply(put(name, 1, "x")).ok());
  ASSERT_TRUE(catalogue->apply({.put_functions = {{.name = "bare", .next_version = 1, .document = "no versions"}}}).ok());
  ASSERT_TRUE(catalogue->apply({.put_versions = {{.name = "b", .version = "1", .code_id = "c", .document = "d"}}}).ok());
  std::vector<std::string> seen;
  const auto refused = catalogue->each_function([&](const FunctionRow& row, const std::vector<VersionRow>&) -> Result<void> {
    seen.push_back(row.name);
    return row.name == "b" ? Error(ErrorCode::kDataLoss, "bad") : Result<void>();
  });
  EXPECT_EQ(refused.error().code(), ErrorCode::kDataLoss);
  EXPECT_EQ(seen, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(functions_of(*catalogue).size(), 4U);
  EXPECT_EQ(versions_of(*catalogue).size(), 4U);
  ASSERT_TRUE(catalogue->apply({.remove_functions = {"a"}}).ok()) << "an ended walk holds nothing up";
}

TEST_F(CatalogueTest, AChangeThatFailsHalfWayLeavesNothing) {
  const auto catalogue = open();
  CatalogueChange change = put("a", 1, "x");
  change.put_versions.push_back({.name = "not a function", .version = "1", .code_id = "c", .document = "d"});
  EXPECT_EQ(catalogue->apply(change).error().code(), ErrorCode::kConflict);
  EXPECT_TRUE(functions_of(*catalogue).empty());
  EXPECT_TRUE(catalogue->apply(put("a", 1, "x")).ok());
}

TEST_F(CatalogueTest, AFileOfANewerMayflyIsRefusedAndStaysAsItWas) {
  open();
  run_sql("INSERT INTO migrations(number, checksum) VALUES(99, 'x')");
  const auto opened = open_catalogue(path_);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(opened.error().message().find("newer Mayfly"), std::string::npos);
  run_sql("DELETE FROM migrations WHERE number=99; UPDATE migrations SET checksum='other'");
  EXPECT_EQ(open_catalogue(path_).error().code(), ErrorCode::kUnsupported);
}

TEST_F(CatalogueTest, AnotherProgramsFileAndGarbageAreRefused) {
  run_sql("CREATE TABLE something(x)");
  EXPECT_EQ(open_catalogue(path_).error().code(), ErrorCode::kDataLoss);
  std::ofstream(path_, std::ios::trunc) << std::string(10000, 'g');
  EXPECT_EQ(open_catalogue(path_).error().code(), ErrorCode::kDataLoss);
}

TEST_F(CatalogueTest, ASecondOpenerIsTurnedAway) {
  const auto catalogue = open();
  ASSERT_TRUE(catalogue->apply(put("a", 1, "x")).ok());
  const auto second = open_catalogue(path_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code(), ErrorCode::kUnavailable);
  EXPECT_NE(second.error().message().find("another process has the file open"), std::string::npos) << second.error().message();
}

TEST_F(CatalogueTest, DamageIsNoticedAfterAnUncleanEnd) {
  {
    const auto catalogue = open();
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(catalogue->apply(put("f" + std::to_string(i), 1, std::string(500, 'd'))).ok());
  }
  std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(8 * 4096);
  file << std::string(3 * 4096, 'X');
  file.close();
  std::ofstream(path_ + "-wal", std::ios::binary) << std::string(32, '\0');  // as a crash leaves it
  const auto opened = open_catalogue(path_);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code(), ErrorCode::kDataLoss) << opened.error().message();
}

TEST_F(CatalogueTest, WhateverWriteFailsTheCatalogueIsAsBeforeOrAfterTheChange) {
  const FailingDisk disk;
  std::string last = "start";
  {
    const auto catalogue = open();
    ASSERT_TRUE(catalogue->apply(put("a", 1, last)).ok());
  }
  for (int nth = 1; nth < 100; ++nth) {
    const auto catalogue = open();
    ASSERT_NE(catalogue, nullptr) << nth;
    FailingDisk::arm(FailingDisk::Kind::kWrite, nth);
    const std::string next = "try " + std::to_string(nth) + std::string(20'000, 'w');
    const auto applied = catalogue->apply(put("a", 1, next));
    const bool struck = FailingDisk::struck();
    FailingDisk::disarm();
    if (applied.ok()) last = next;
    EXPECT_EQ(functions_of(*catalogue).at(0).document, last) << nth;
    if (!struck) {
      EXPECT_GT(nth, 5) << "the writes were not reached";
      return;
    }
    if (!applied.ok()) {
      EXPECT_EQ(applied.error().code(), ErrorCode::kUnavailable);
      EXPECT_EQ(catalogue->apply(put("a", 1, "more")).error().code(), ErrorCode::kUnavailable) << "no writes until it is opened again";
      EXPECT_EQ(catalogue->check().error().code(), ErrorCode::kUnavailable);
    }
    expect_whole(*catalogue);
  }
  FAIL() << "a change never went through";
}

TEST_F(CatalogueTest, AFailedSyncIsNeverTriedAgain) {
  const FailingDisk disk;
  for (int nth = 1; nth < 20; ++nth) {
    auto catalogue = open();
    FailingDisk::arm(FailingDisk::Kind::kSync, nth);
    base::Result<void> applied;
    for (int i = 0; i < 20 && applied.ok(); ++i) applied = catalogue->apply(put("a", 1, std::to_string(nth * 100 + i)));
    ASSERT_TRUE(FailingDisk::struck());
    FailingDisk::disarm();
    EXPECT_EQ(applied.error().code(), ErrorCode::kUnavailable);
    EXPECT_EQ(catalogue->apply(put("a", 1, "more")).error().code(), ErrorCode::kUnavailable);
    EXPECT_EQ(catalogue->set_setting("k", "v").error().code(), ErrorCode::kUnavailable);
    EXPECT_TRUE(catalogue->each_function([](const FunctionRow&, const std::vector<VersionRow>&) { return Result<void>(); }).ok())
        << "reading goes on";
    catalogue.reset();
    catalogue = open();
    ASSERT_NE(catalogue, nullptr) << nth;
    expect_whole(*catalogue);
    EXPECT_TRUE(catalogue->apply(put("b", 1, "works again")).ok());
  }
}

TEST_F(CatalogueTest, AFullDiskIsExhaustionAndPasses) {
  const FailingDisk disk;
  const auto catalogue = open();
  ASSERT_TRUE(catalogue->apply(put("a", 1, "before")).ok());
  for (int nth = 1; nth <= 6; ++nth) {
    FailingDisk::arm(FailingDisk::Kind::kFull, nth);
    const auto applied = catalogue->apply(put("a", 1, std::string(20'000, 'w')));
    ASSERT_TRUE(FailingDisk::struck());
    FailingDisk::disarm();
    ASSERT_FALSE(applied.ok());
    EXPECT_EQ(applied.error().code(), ErrorCode::kResourceExhausted);
    EXPECT_EQ(functions_of(*catalogue).at(0).document, "before");
  }
  EXPECT_TRUE(catalogue->apply(put("a", 1, "after")).ok());
}

TEST_F(CatalogueTest, AFullFileSystemIsExhaustionAndPasses) {
  fs::create_directory(directory_ / "small");
  if (mount("tmpfs", (directory_ / "small").c_str(), "tmpfs", 0, "size=512k") != 0)
    GTEST_SKIP() << "a small tmpfs cannot be mounted here (needs root)";
  {
    const auto catalogue = *open_catalogue(directory_ / "small/catalogue.db");
    int stored = 0;
    base::Result<void> applied;
    for (; stored < 1000 && applied.ok(); ++stored)
      applied = catalogue->apply(put("f" + std::to_string(stored), 1, std::string(5000, 'd')));
    ASSERT_FALSE(applied.ok());
    EXPECT_EQ(applied.error().code(), ErrorCode::kResourceExhausted) << applied.error().message();
    EXPECT_EQ(functions_of(*catalogue).size(), static_cast<std::size_t>(stored - 1));
    EXPECT_TRUE(catalogue->check().ok());
    ASSERT_EQ(mount("tmpfs", (directory_ / "small").c_str(), "tmpfs", MS_REMOUNT, "size=16m"), 0);
    EXPECT_TRUE(catalogue->apply(put("one more", 1, "d")).ok());
  }
  umount2((directory_ / "small").c_str(), MNT_DETACH);
}

TEST_F(CatalogueTest, WhatReturnedSurvivesAKillAtAnyMoment) {
  std::uint64_t kept = 0;
  for (int round = 0; round < 8; ++round) {
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      auto catalogue = open_catalogue(path_);
      if (!catalogue.ok()) _exit(1);
      for (std::uint64_t i = kept + 1;; ++i) {
        if (!(*catalogue)->apply(put("f", i, std::to_string(i) + std::string(3000, 'd'))).ok()) _exit(2);
        if (write(pipe_ends[1], &i, sizeof i) != sizeof i) _exit(3);
      }
    }
    close(pipe_ends[1]);
    std::uint64_t returned = 0;
    for (int reads = 0; reads < 30 + round * 17; ++reads)
      ASSERT_EQ(read(pipe_ends[0], &returned, sizeof returned), static_cast<ssize_t>(sizeof returned));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    while (read(pipe_ends[0], &returned, sizeof returned) == sizeof returned) {
    }
    close(pipe_ends[0]);
    const auto catalogue = open();
    expect_whole(*catalogue);
    const FunctionRow row = functions_of(*catalogue).at(0);
    EXPECT_GE(row.next_version, returned);
    EXPECT_LE(row.next_version, returned + 1);
    EXPECT_TRUE(row.document.starts_with(std::to_string(row.next_version) + "d"));
    kept = row.next_version;
  }
}

TEST_F(CatalogueTest, TheLogOfWritesDoesNotGrowWithoutBound) {
  const auto catalogue = open();
  for (int i = 0; i < 600; ++i) ASSERT_TRUE(catalogue->apply(put("f", 1, std::string(30'000, static_cast<char>('a' + i % 26)))).ok());
  EXPECT_LT(fs::file_size(path_ + "-wal"), 12U << 20U);
}

TEST_F(CatalogueTest, AnyThreadMayCall) {
  const auto catalogue = open();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        EXPECT_TRUE(catalogue->apply(put("f" + std::to_string(t), 1, std::to_string(i))).ok());
        EXPECT_TRUE(catalogue->each_function([](const FunctionRow&, const std::vector<VersionRow>&) { return Result<void>(); }).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(functions_of(*catalogue).size(), 4U);
}

}  // namespace
}  // namespace mayfly::store
