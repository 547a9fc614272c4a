#include "store/log_segments.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <set>
#include <thread>

#include "base/fd.h"
#include "store/internal/crc32.h"
#include "store/internal/log_file.h"
#include "store/internal/test_directory.h"

namespace mayfly::store {
namespace {

namespace fs = std::filesystem;

// Moves when told, from any thread.
class TestClock final : public base::Clock {
 public:
  [[nodiscard]] base::TimePoint now() const override { return base::TimePoint(std::chrono::milliseconds(ms_)); }
  [[nodiscard]] base::WallTime wall_now() const override { return base::wall_from_epoch_ms(ms_); }
  void advance(base::Duration by) { ms_ += std::chrono::duration_cast<std::chrono::milliseconds>(by).count(); }
  [[nodiscard]] std::int64_t ms() const { return ms_; }

 private:
  std::atomic<std::int64_t> ms_ = 1'767'225'600'000;
};

class LogSegmentsTest : public ::testing::Test {
 protected:
  void open(LogLimits limits = {}) {
    logs_.reset();
    auto opened = open_log_segments(directory_ / "logs", limits, clock_);
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    logs_ = *std::move(opened);
  }
  void add(const std::string& group, const std::string& stream, const std::string& message) {
    logs_->append(group, stream, clock_.ms(), message);
  }
  std::vector<std::string> messages(LogQuery query) {
    logs_->flush();
    const auto read = logs_->read(query);
    EXPECT_TRUE(read.ok()) << read.error().message();
    std::vector<std::string> texts;
    if (read.ok()) {
      for (const LogEvent& event : *read) texts.push_back(event.message);
    }
    return texts;
  }
  std::vector<fs::path> files(const std::string& extension) {
    std::vector<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(directory_ / "logs")) {
      if (entry.path().extension() == extension) found.push_back(entry.path());
    }
    std::sort(found.begin(), found.end());
    return found;
  }
  std::uint64_t bytes_on_disk() {
    std::uint64_t sum = 0;
    for (const auto& path : files(".log")) sum += fs::file_size(path);
    return sum;
  }

  TestDirectory directory_;
  TestClock clock_;
  std::unique_ptr<LogSegments> logs_;
};

using Texts = std::vector<std::string>;

TEST(Crc32, MatchesThePublishedCheckValueAndEveryLengthOfTail) {
  EXPECT_EQ(crc32("123456789"), 0xCBF43926U);
  EXPECT_EQ(crc32(""), 0U);
  EXPECT_EQ(crc32("The quick brown fox jumps over the lazy dog"), 0x414FA339U);
}

TEST_F(LogSegmentsTest, EventsAreReadBackInOrderWithStreamsAndTimes) {
  open();
  add("/aws/lambda/f", "a", "one");
  clock_.advance(std::chrono::seconds(1));
  add("/aws/lambda/f", "b", "two");
  add("/aws/lambda/f", "a", "three");
  logs_->flush();
  const auto events = *logs_->read({.group = "/aws/lambda/f"});
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[1].stream, "b");
  EXPECT_EQ(events[1].message, "two");
  EXPECT_EQ(events[1].timestamp_ms, clock_.ms());
  EXPECT_LT(events[0].sequence, events[1].sequence);
  EXPECT_LT(events[1].sequence, events[2].sequence);
  const auto streams = *logs_->streams("/aws/lambda/f");
  ASSERT_EQ(streams.size(), 2U);
  EXPECT_EQ(streams[0].name, "a");
  EXPECT_EQ(streams[0].bytes, 8U);
  EXPECT_EQ(streams[0].last_ms - streams[0].first_ms, 1000);
  EXPECT_EQ(streams[1].created_ms, clock_.ms());
}

TEST_F(LogSegmentsTest, QueriesFilterByStreamTimeAndSequenceAndPageFromBothEnds) {
  open({.group_bytes_max = 1U << 20U});
  for (int i = 0; i < 2000; ++i) {
    add("g", i % 2 == 0 ? "even" : "odd", std::to_string(i) + std::string(300, '.'));
    clock_.advance(std::chrono::milliseconds(1));
  }
  logs_->flush();
  ASSERT_GT(files(".log").size(), 2U) << "several segments, or this shows little";
  const auto all = *logs_->read({.group = "g", .bytes_max = UINT64_MAX});
  ASSERT_EQ(all.size(), 2000U);
  EXPECT_EQ(logs_->read({.group = "g", .streams = {"odd"}, .bytes_max = UINT64_MAX})->size(), 1000U);
  EXPECT_EQ(logs_->read({.group = "g", .stream_prefix = "ev", .bytes_max = UINT64_MAX})->size(), 1000U);
  EXPECT_EQ(logs_->read({.group = "g", .streams = {"other"}})->size(), 0U);
  const auto part = *logs_->read({.group = "g", .from_ms = all[500].timestamp_ms, .to_ms = all[510].timestamp_ms});
  ASSERT_EQ(part.size(), 10U);
  EXPECT_EQ(part[0].sequence, all[500].sequence);
  std::uint64_t after = 0;
  std::vector<std::uint64_t> forward, backward;
  while (true) {
    const auto page = *logs_->read({.group = "g", .after_sequence = after, .max = 70});
    if (page.empty()) break;
    for (const LogEvent& event : page) forward.push_back(event.sequence);
    after = page.back().sequence;
  }
  std::uint64_t before = UINT64_MAX;
  while (true) {
    const auto page = *logs_->read({.group = "g", .before_sequence = before, .newest_first = true, .max = 1000, .bytes_max = 20'000});
    if (page.empty()) break;
    EXPECT_TRUE(std::is_sorted(page.begin(), page.end(), [](const LogEvent& a, const LogEvent& b) { return a.sequence < b.sequence; }));
    for (auto event = page.rbegin(); event != page.rend(); ++event) backward.push_back(event->sequence);
    before = page.front().sequence;
  }
  std::vector<std::uint64_t> expected;
  for (const LogEvent& event : all) expected.push_back(event.sequence);
  EXPECT_EQ(forward, expected);
  std::reverse(backward.begin(), backward.end());
  EXPECT_EQ(backward, expected);
  EXPECT_EQ(logs_->read({.group = "g", .newest_first = true, .max = 1})->front().sequence, expected.back());
}

TEST_F(LogSegmentsTest, OneEventIsAnsweredEvenWhenItIsLargerThanThePage) {
  open();
  add("g", "s", std::string(5000, 'x'));
  add("g", "s", std::string(5000, 'y'));
  logs_->flush();
  EXPECT_EQ(logs_->read({.group = "g", .bytes_max = 100})->front().message[0], 'x');
  const auto newest = *logs_->read({.group = "g", .newest_first = true, .bytes_max = 100});
  ASSERT_EQ(newest.size(), 1U);
  EXPECT_EQ(newest[0].message[0], 'y');
}

TEST_F(LogSegmentsTest, GroupsKeepTheirNamesOverARestartHoweverOdd) {
  const std::vector<std::string> names = {"..", "/aws/lambda/f", "a b%2F", std::string(512, 'n'), "~tilde", ".hidden"};
  open();
  for (const std::string& name : names) add(name, "s", "in " + name);
  logs_->create_group("empty");
  logs_->flush();
  open();
  std::vector<std::string> expected = names;
  expected.emplace_back("empty");
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(logs_->groups(), expected);
  for (const std::string& name : names) EXPECT_EQ(messages({.group = name}), Texts{"in " + name});
  EXPECT_EQ(messages({.group = "empty"}), Texts());
  EXPECT_EQ(logs_->read({.group = "none"}).error().code(), base::ErrorCode::kNotFound);
  for (const auto& entry : fs::directory_iterator(directory_.path()))
    EXPECT_EQ(entry.path().filename(), "logs") << "nothing leaves the directory";
}

TEST_F(LogSegmentsTest, AfterARestartTheOpenSegmentGoesOnAndSequencesGrow) {
  open();
  add("g", "s", "before");
  open();
  add("g", "t", "after");
  EXPECT_EQ(messages({.group = "g"}), (Texts{"before", "after"}));
  EXPECT_EQ(files(".log").size(), 1U);
  EXPECT_EQ(logs_->streams("g")->size(), 2U);
  const auto events = *logs_->read({.group = "g"});
  EXPECT_LT(events[0].sequence, events[1].sequence);
}

TEST_F(LogSegmentsTest, ATornEndIsCutWhereverItTearsAndWhatComesNextIsWhole) {
  open();
  add("g", "s", "first");
  add("g", "s", "second");
  logs_.reset();
  const fs::path path = files(".log").at(0);
  const std::string whole = *base::read_file(path);
  const std::size_t last_record = 8 + 8 + 8 * 3 + 2 + 1 + 5;  // header, then the frame of "first" in stream "s"
  for (std::size_t size = last_record; size < whole.size(); ++size) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << whole.substr(0, size);
    open();
    add("g", "s", "third");
    EXPECT_EQ(messages({.group = "g"}), (Texts{"first", "third"})) << size;
    logs_.reset();
  }
  std::string damaged = whole;
  damaged[whole.size() - 2] ^= 1;
  std::ofstream(path, std::ios::binary | std::ios::trunc) << damaged;
  open();
  EXPECT_EQ(messages({.group = "g"}), Texts{"first"});
}

TEST_F(LogSegmentsTest, AMissingOrDamagedIndexIsMadeAgainFromItsSegment) {
  open({.group_bytes_max = 64U << 10U});
  for (int i = 0; i < 100; ++i) add("g", "s" + std::to_string(i % 3), std::string(300, 'x'));
  logs_->flush();
  logs_.reset();
  const auto indexes = files(".idx");
  ASSERT_GE(indexes.size(), 2U);
  fs::remove(indexes[0]);
  std::ofstream(indexes[1], std::ios::binary | std::ios::in) << "MFLYIDX1damage damage damage";
  open({.group_bytes_max = 64U << 10U});
  EXPECT_EQ(logs_->streams("g")->size(), 3U);
  EXPECT_EQ(messages({.group = "g"}).size(), 100U);
  EXPECT_EQ(files(".idx").size(), indexes.size());
  EXPECT_TRUE(read_index_streams(indexes[1]).ok());
}

TEST_F(LogSegmentsTest, AGroupKeepsWithinItsBytesByLosingItsOldestSegments) {
  open({.group_bytes_max = 256U << 10U});
  for (int i = 0; i < 5000; ++i) {
    add("g", "s", std::to_string(i) + std::string(200, '.'));
    if (i % 500 == 0) logs_->flush();
  }
  logs_->flush();
  add("g", "s", "end");
  logs_->flush();
  const auto newest = *logs_->read({.group = "g", .newest_first = true, .max = 1});
  EXPECT_EQ(newest.at(0).message, "end");
  logs_.reset();  // what was due is done
  EXPECT_LE(bytes_on_disk(), (256U << 10U) + (64U << 10U));
  EXPECT_GT(bytes_on_disk(), 100U << 10U);
}

TEST_F(LogSegmentsTest, AllGroupsTogetherKeepWithinTheTotal) {
  open({.total_bytes_max = 256U << 10U});
  for (int i = 0; i < 6000; ++i) {
    add("g" + std::to_string(i % 3), "s", std::string(200, '.'));
    clock_.advance(std::chrono::milliseconds(1));
    if (i % 200 == 0) logs_->flush();
  }
  logs_.reset();
  EXPECT_LE(bytes_on_disk(), (256U + 3 * 64U) << 10U);
  EXPECT_GT(bytes_on_disk(), 100U << 10U);
}

TEST_F(LogSegmentsTest, EventsGoWhenTheyAreTooOld) {
  const LogLimits limits{.age_max = std::chrono::hours(24)};
  open(limits);
  add("old", "s", "old");
  add("both", "s", "old");
  logs_->flush();
  clock_.advance(std::chrono::hours(25));
  add("both", "s", "new");
  logs_->flush();
  open(limits);  // at the end of its look at former groups the store keeps its limits
  for (int i = 0; i < 2000 && files(".log").size() > 1; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(messages({.group = "both"}), Texts{"new"});
  EXPECT_EQ(messages({.group = "old"}), Texts());
  EXPECT_EQ(logs_->streams("old")->size(), 0U);
  EXPECT_EQ(logs_->groups().size(), 2U) << "groups stay";
}

TEST_F(LogSegmentsTest, ALongEventIsCutBetweenCharactersWithANote) {
  open({.event_bytes_max = 10});
  add("g", "s", "123456789\xC3\xA9 and more");
  EXPECT_EQ(messages({.group = "g"}), Texts{"123456789 [mayfly] 11 bytes cut: the event was too long"});
}

TEST_F(LogSegmentsTest, ADeletedGroupIsGoneAndOneOfItsNameStartsEmpty) {
  open();
  add("g", "s", "one");
  EXPECT_TRUE(logs_->delete_group("g").ok());
  EXPECT_EQ(logs_->delete_group("g").error().code(), base::ErrorCode::kNotFound);
  EXPECT_EQ(logs_->read({.group = "g"}).error().code(), base::ErrorCode::kNotFound);
  add("g", "s", "two");
  EXPECT_EQ(messages({.group = "g"}), Texts{"two"});
  add("g", "s", "three");
  EXPECT_TRUE(logs_->delete_group("g").ok());
  logs_->create_group("g");
  EXPECT_EQ(messages({.group = "g"}), Texts());
  open();
  EXPECT_EQ(messages({.group = "g"}), Texts());
}

TEST_F(LogSegmentsTest, OpeningDoesNotReadTheLogs) {
  open();
  for (int g = 0; g < 300; ++g) add("group-" + std::to_string(g), "s", std::string(1000, 'x'));
  logs_->flush();
  logs_.reset();
  const auto started = std::chrono::steady_clock::now();
  open();
  const auto took = std::chrono::steady_clock::now() - started;
  EXPECT_EQ(logs_->groups().size(), 300U);
  EXPECT_LT(std::chrono::duration_cast<std::chrono::milliseconds>(took).count(), 50);
}

TEST_F(LogSegmentsTest, AFloodIsBoundedCountedToldAndDoesNotSilenceOthers) {
  const LogLimits limits{.queue_bytes_max = 256U << 10U};
  open(limits);
  std::atomic<bool> stop = false;
  std::vector<std::thread> flood;
  std::atomic<std::uint64_t> sent = 0;
  for (int t = 0; t < 2; ++t) {
    flood.emplace_back([&] {
      const std::string line(2000, 'f');
      while (!stop) {
        logs_->append("flood", "s", clock_.ms(), line);
        ++sent;
      }
    });
  }
  for (int i = 0; i < 50; ++i) {
    add("quiet", "s", std::to_string(i));
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  for (int i = 0; i < 5000 && logs_->dropped() == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  stop = true;
  for (std::thread& thread : flood) thread.join();
  EXPECT_GT(logs_->dropped(), 0U);
  EXPECT_EQ(messages({.group = "quiet", .max = 100}).size(), 50U);
  logs_->flush();
  logs_.reset();  // reports what is still to be told
  const std::uint64_t bytes = bytes_on_disk();
  open(limits);
  std::uint64_t written = 0, told = 0;
  std::uint64_t after = 0;
  while (true) {
    const auto page = *logs_->read({.group = "flood", .after_sequence = after});
    if (page.empty()) break;
    after = page.back().sequence;
    for (const LogEvent& event : page) {
      if (event.message.starts_with("[mayfly] "))
        told += std::stoull(event.message.substr(9));
      else
        ++written;
    }
  }
  EXPECT_EQ(written + told, sent) << "every event is on file or accounted for";
  EXPECT_GT(bytes, 0U);
}

TEST_F(LogSegmentsTest, AKilledWriterLeavesWhatItFlushedReadable) {
  for (int round = 0; round < 5; ++round) {
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      auto logs = open_log_segments(directory_ / "logs", {.group_bytes_max = 256U << 20U}, base::system_clock());
      if (!logs.ok()) _exit(1);
      for (std::uint32_t i = 0;; ++i) {
        (*logs)->append("g", "s" + std::to_string(round), 1, std::to_string(i) + std::string(i % 700, 'x'));
        if (i % 10 == 9) {
          (*logs)->flush();
          if (write(pipe_ends[1], &i, sizeof i) != sizeof i) _exit(2);
        }
      }
    }
    close(pipe_ends[1]);
    std::uint32_t flushed = 0;
    for (int reads = 0; reads < 40 * (round + 1); ++reads)
      ASSERT_EQ(read(pipe_ends[0], &flushed, sizeof flushed), static_cast<ssize_t>(sizeof flushed));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    while (read(pipe_ends[0], &flushed, sizeof flushed) == sizeof flushed) {
    }
    close(pipe_ends[0]);
    open();
    const auto events = *logs_->read({.group = "g", .streams = {"s" + std::to_string(round)}, .max = 1U << 20U, .bytes_max = UINT64_MAX});
    logs_.reset();
    ASSERT_GT(events.size(), flushed);
    for (std::uint32_t i = 0; i < events.size(); ++i) ASSERT_EQ(events[i].message, std::to_string(i) + std::string(i % 700, 'x'));
  }
}

TEST_F(LogSegmentsTest, AFullDiskLosesEventsCountsThemAndGoesOnByItself) {
  fs::create_directory(directory_ / "logs");
  if (mount("tmpfs", (directory_ / "logs").c_str(), "tmpfs", 0, "size=1m") != 0)
    GTEST_SKIP() << "a small tmpfs cannot be mounted here (needs root)";
  const base::UniqueFd ballast = *base::open_file(directory_ / "logs/.ballast", O_WRONLY | O_CREAT, 0600);
  open();
  add("g", "s", "before");
  logs_->flush();
  std::string block(4096, 'b');
  while (write(ballast.get(), block.data(), block.size()) > 0) {
  }
  for (int i = 0; i < 50; ++i) add("g", "s", std::string(1000, 'l'));
  logs_->flush();
  EXPECT_GT(logs_->dropped(), 0U);
  EXPECT_EQ(messages({.group = "g"}).front(), "before");
  ASSERT_EQ(ftruncate(ballast.get(), 0), 0);
  add("g", "s", "after");
  const auto last = [&] { return messages({.group = "g"}); };
  const auto told = [&] {
    const Texts all = last();
    return std::any_of(all.begin(), all.end(), [](const std::string& text) {
      return text.starts_with("[mayfly] ") && text.find("dropped: the disk did not take them") != std::string::npos;
    });
  };
  for (int i = 0; i < 5000 && !told(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(told());
  const Texts all = last();
  EXPECT_NE(std::find(all.begin(), all.end(), "after"), all.end());
  logs_.reset();
  umount2((directory_ / "logs").c_str(), MNT_DETACH);
}

TEST_F(LogSegmentsTest, ManyThreadsAppendReadAndDeleteAtOnce) {
  open({.group_bytes_max = 128U << 10U});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 400; ++i) {
        logs_->append("g" + std::to_string(i % 3), "s" + std::to_string(t), clock_.ms(), std::string(500, 'x'));
        if (i % 20 == 0) {
          const auto read = logs_->read({.group = "g0", .newest_first = i % 40 == 0});
          EXPECT_TRUE(read.ok() || read.error().code() == base::ErrorCode::kNotFound) << read.error().message();
          const auto streams = logs_->streams("g1");
          EXPECT_TRUE(streams.ok() || streams.error().code() == base::ErrorCode::kNotFound);
        }
        if (t == 0 && i % 50 == 49) {
          const auto gone = logs_->delete_group("g2");
          EXPECT_TRUE(gone.ok() || gone.error().code() == base::ErrorCode::kNotFound);
        }
      }
      logs_->flush();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(logs_->dropped(), 0U);
}

}  // namespace
}  // namespace mayfly::store
