#include "backend/internal/memory_watch.h"

#include <gtest/gtest.h>

namespace mayfly::backend {
namespace {

TEST(MemoryWatchTest, ReadsWhatTheKernelWrites) {
  const auto state =
      parse_meminfo("MemTotal:       24609540 kB\nMemFree:          812340 kB\nMemAvailable:    1048576 kB\nBuffers: 1 kB\n");
  ASSERT_TRUE(state.has_value());
  EXPECT_EQ(state->total, 24609540ULL << 10U);
  EXPECT_EQ(state->available, 1ULL << 30U);
  EXPECT_EQ(state->short_by(), 0U);
  EXPECT_FALSE(parse_meminfo("MemTotal: 5 kB\n").has_value());
  EXPECT_FALSE(parse_meminfo("").has_value());
  EXPECT_TRUE(read_memory_state().has_value());
}

TEST(MemoryWatchTest, ASixteenthOfTheMachineStaysFreeAtMostHalfAGibibyte) {
  EXPECT_EQ((MemoryState{.available = 100ULL << 20U, .total = 64ULL << 30U}).short_by(), 412ULL << 20U);
  EXPECT_EQ((MemoryState{.available = 10ULL << 20U, .total = 1ULL << 30U}).short_by(), 54ULL << 20U);
  EXPECT_EQ((MemoryState{.available = 64ULL << 20U, .total = 1ULL << 30U}).short_by(), 0U);
}

}  // namespace
}  // namespace mayfly::backend
