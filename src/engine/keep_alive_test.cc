#include "engine/keep_alive.h"

#include <gtest/gtest.h>

namespace mayfly::engine {
namespace {

using namespace std::chrono_literals;
using base::Duration;

constexpr std::uint64_t kMebibyte = 1ULL << 20U;

TEST(ArrivalHistoryTest, EveryGapFallsIntoTheBinThatHoldsIt) {
  for (std::size_t bin = 0; bin < ArrivalHistory::kBins; ++bin) {
    const Duration begin = ArrivalHistory::begin_of(bin), end = ArrivalHistory::begin_of(bin + 1);
    ASSERT_LT(begin, end);
    for (const Duration gap : {begin, begin + (end - begin) / 2, end - 1ns}) {
      ArrivalHistory history;
      history.add(gap);
      EXPECT_EQ(history.count(bin), 1U) << base::to_ms(gap);
    }
  }
  EXPECT_EQ(ArrivalHistory::begin_of(0), ArrivalHistory::kShortest);
  EXPECT_EQ(ArrivalHistory::begin_of(ArrivalHistory::kBins), ArrivalHistory::kLongest);
}

TEST(ArrivalHistoryTest, ShortGapsAreNotCountedAndLongOnesCountBeyond) {
  ArrivalHistory history;
  history.add(999ms);
  history.add(4h);
  history.add(100h);
  EXPECT_EQ(history.gaps(), 2U);
  EXPECT_EQ(history.beyond(), 2U);
}

TEST(ArrivalHistoryTest, OldGapsFadeWhenACounterIsFull) {
  ArrivalHistory history;
  for (int i = 0; i < 100; ++i) history.add(1h);
  for (int i = 0; i < 1000; ++i) history.add(2s);
  std::uint32_t sum = history.beyond();
  for (std::size_t bin = 0; bin < ArrivalHistory::kBins; ++bin) sum += history.count(bin);
  EXPECT_EQ(sum, history.gaps());
  EXPECT_LT(history.count(90), 5U);
}

TEST(ArrivalHistoriesTest, TheGapOfEachLevelRunsFromWhenFewerWereBusy) {
  ArrivalHistories histories;
  base::TimePoint now{1h};
  histories.on_busy(1, now);
  histories.on_busy(2, now);
  histories.on_free(2, now += 5s);
  histories.on_free(1, now += 10s);
  histories.on_busy(1, now += 20s);  // 20 s for the first
  histories.on_busy(2, now);         // 30 s for the second
  for (const auto& [group, gap] : {std::pair{0, 20s}, std::pair{1, 30s}}) {
    const ArrivalHistory& history = histories.of_group(group);
    EXPECT_EQ(history.gaps(), 1U);
    ArrivalHistory expected;
    expected.add(gap);
    for (std::size_t bin = 0; bin < ArrivalHistory::kBins; ++bin) EXPECT_EQ(history.count(bin), expected.count(bin));
  }
  EXPECT_EQ(histories.of_group(2).gaps(), 0U);
}

TEST(ArrivalHistoriesTest, HighLevelsShareAHistoryWithTheirNeighbours) {
  std::size_t last = 0;
  for (std::uint32_t level = 2; level <= 5000; ++level) {
    const std::size_t group = ArrivalHistories::group_of(level);
    ASSERT_TRUE(group == last || group == last + 1) << level;
    ASSERT_LT(group, ArrivalHistories::kGroups);
    last = group;
  }
  EXPECT_EQ(ArrivalHistories::group_of(1), 0U);
  EXPECT_EQ(ArrivalHistories::group_of(16), 15U);
  EXPECT_EQ(ArrivalHistories::group_of(17), ArrivalHistories::group_of(20));
  EXPECT_NE(ArrivalHistories::group_of(1024), ArrivalHistories::group_of(512));
  EXPECT_EQ(ArrivalHistories::group_of(1025), ArrivalHistories::group_of(100'000));
}

TEST(LearnedKeepAliveTest, AFunctionWithoutHistoryIsKeptTheFixedTime) {
  const LearnedKeepAlive policy({.fallback = 7min});
  EXPECT_EQ(policy.plan({}, 128 * kMebibyte).keep, 7min);
}

TEST(LearnedKeepAliveTest, OneCalledEveryFewSecondsIsKeptSomeTimesThatLong) {
  ArrivalHistory history;
  for (int i = 0; i < 50; ++i) history.add(3s + i * 50ms);
  const KeepAlivePlan plan = LearnedKeepAlive({}).plan(history, 128 * kMebibyte);
  EXPECT_GE(plan.keep, 6s);
  EXPECT_LE(plan.keep, 5min);
  EXPECT_EQ(plan.again_after, 0s);
}

TEST(LearnedKeepAliveTest, WhatIsCalledOftenOutlastsALongerGapThanAnySeen) {
  ArrivalHistory history;
  for (int i = 0; i < 500; ++i) history.add(1s + i % 10 * 1s);
  EXPECT_GT(LearnedKeepAlive({}).plan(history, 128 * kMebibyte).keep, 1min);
}

TEST(LearnedKeepAliveTest, ATimersFunctionGoesAndIsThereAgainBeforeItsCall) {
  ArrivalHistory history;
  for (int i = 0; i < 20; ++i) history.add(1h + 5s);
  const KeepAlivePlan plan = LearnedKeepAlive({}).plan(history, 256 * kMebibyte);
  EXPECT_LE(plan.keep, 2s);
  EXPECT_GT(plan.again_after, 50min);
  EXPECT_LT(plan.again_after, 1h);
  EXPECT_GE(plan.again_after + plan.again_keep, 1h + 5s);
}

TEST(LearnedKeepAliveTest, WhatIsLargeIsKeptShorterThanWhatIsSmall) {
  ArrivalHistory history;
  for (int i = 1; i <= 60; ++i) history.add(i * 30s);
  const LearnedKeepAlive policy({});
  EXPECT_LT(policy.plan(history, 3000 * kMebibyte).keep, policy.plan(history, 20 * kMebibyte).keep);
}

}  // namespace
}  // namespace mayfly::engine
