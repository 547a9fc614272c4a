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

TEST(ArrivalHistoryTest, TheGapOfEachLevelRunsFromWhenFewerWereBusy) {
  ArrivalHistory history;
  base::TimePoint now{1h};
  history.on_busy(1, now);
  history.on_busy(2, now);
  history.on_free(2, now += 5s);
  history.on_free(1, now += 10s);
  history.on_busy(1, now += 20s);  // 20 s for the first
  history.on_busy(2, now);         // 30 s for the second
  EXPECT_EQ(history.gaps(), 2U);
  ArrivalHistory expected;
  expected.add(20s);
  expected.add(30s);
  for (std::size_t bin = 0; bin < ArrivalHistory::kBins; ++bin) EXPECT_EQ(history.count(bin), expected.count(bin));
}

TEST(LearnedKeepAliveTest, AFunctionWithoutHistoryIsKeptTheFixedTime) {
  const LearnedKeepAlive policy({.fallback = 7min});
  EXPECT_EQ(policy.plan({}, 128 * kMebibyte).keep, 7min);
}

TEST(LearnedKeepAliveTest, OneCalledEveryFewSecondsIsKeptThatLong) {
  ArrivalHistory history;
  for (int i = 0; i < 50; ++i) history.add(3s + i * 50ms);
  const KeepAlivePlan plan = LearnedKeepAlive({}).plan(history, 128 * kMebibyte);
  EXPECT_GE(plan.keep, 6s);
  EXPECT_LE(plan.keep, 7s);
  EXPECT_EQ(plan.again_after, 0s);
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
