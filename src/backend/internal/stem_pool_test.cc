#include "backend/internal/stem_pool.h"

#include <gtest/gtest.h>

namespace mayfly::backend {
namespace {

using namespace std::chrono_literals;
using base::TimePoint;
using sandbox::SandboxId;

struct Made {
  SandboxId id = 0;
  SandboxId zygote = 0;
};

class Maker final : public StemMaker {
 public:
  void make_stem(SandboxId id, const StemClass&, SandboxId zygote) override { made.push_back({.id = id, .zygote = zygote}); }
  void make_zygote(SandboxId id, const ZygoteClass&) override { zygotes.push_back(id); }
  void kill(SandboxId id) override { killed.push_back(id); }
  std::vector<Made> made;
  std::vector<SandboxId> zygotes, killed;
};

class StemPoolTest : public ::testing::Test {
 protected:
  StemPoolTest() { options.memory_bytes_max = 1ULL << 30U; }
  StemPool& pool() {
    if (!pool_) pool_.emplace(options, maker);
    return *pool_;
  }
  void pass(base::Duration time) {
    now += time;
    pool().work(now);
  }
  // Everything that was asked for boots.
  void boot(std::uint64_t bytes = 4ULL << 20U) {
    for (; booted < maker.made.size(); ++booted) {
      sandbox::Sandbox stem;
      stem.id = maker.made[booted].id;
      pool().on_booted(std::move(stem), bytes);
      pool().work(now);
    }
  }
  static StemClass node(std::uint64_t memory = 128) {
    return {.root_id = "host", .arguments = {"/usr/bin/node"}, .variables = {}, .memory_bytes = memory};
  }
  static StemClass python() { return {.root_id = "host", .arguments = {"/usr/bin/python3"}, .variables = {}, .forks = true}; }

  StemPoolOptions options;
  Maker maker;
  TimePoint now{1h};
  std::size_t booted = 0;

 private:
  std::optional<StemPool> pool_;
};

TEST_F(StemPoolTest, MakesNothingForWhatNobodyUses) {
  pass(1h);
  EXPECT_TRUE(maker.made.empty());
  EXPECT_EQ(pool().next_due(), base::kNoDeadline);
}

TEST_F(StemPoolTest, KeepsOneAfterTheFirstStartAndGivesItOnce) {
  EXPECT_FALSE(pool().take(node(), now));
  pool().work(now);
  EXPECT_TRUE(maker.made.empty()) << "the start has the CPU first";
  pass(10ms);
  ASSERT_EQ(maker.made.size(), 1U);
  EXPECT_FALSE(pool().take(node(), now)) << "it still boots";
  boot();
  pass(10ms);
  const auto stem = pool().take(node(), now);
  ASSERT_TRUE(stem);
  EXPECT_EQ(stem->id, maker.made.front().id);
  EXPECT_TRUE(StemPool::is_ours(stem->id));
}

TEST_F(StemPoolTest, GivesNoStemOfAnotherClass) {
  (void)pool().take(node(128), now);
  pass(10ms);
  boot();
  EXPECT_FALSE(pool().take(node(256), now));
}

TEST_F(StemPoolTest, KeepsAsManyAsCameAtOnceAndFewerLater) {
  for (int i = 0; i < 6; ++i) (void)pool().take(node(), now);
  for (int i = 0; i < 10; ++i) {
    pass(10ms);
    boot();
  }
  EXPECT_EQ(pool().counts().ready, 6U);
  pass(61s);
  EXPECT_EQ(pool().counts().ready, 3U);
  EXPECT_EQ(maker.killed.size(), 3U);
  pass(5min);
  EXPECT_EQ(pool().counts().ready, 1U);
  pass(10min);
  EXPECT_EQ(pool().counts().ready, 0U);
  EXPECT_EQ(pool().next_due(), base::kNoDeadline);
}

TEST_F(StemPoolTest, StaysWithinItsMemory) {
  options.memory_bytes_max = 40ULL << 20U;
  for (int i = 0; i < 20; ++i) (void)pool().take(node(), now);
  for (int i = 0; i < 30; ++i) {
    pass(10ms);
    boot(10ULL << 20U);
  }
  EXPECT_LE(pool().counts().ready, 4U);
  EXPECT_GE(pool().counts().ready, 3U);
}

TEST_F(StemPoolTest, ForksFromAZygoteOnceItIsReady) {
  (void)pool().take(python(), now);
  EXPECT_EQ(pool().zygote_for(python()), 0U);
  pass(10ms);
  ASSERT_EQ(maker.zygotes.size(), 1U);
  EXPECT_TRUE(maker.made.empty()) << "they are cheaper in a moment";
  pool().on_zygote_ready(maker.zygotes.front(), now);
  pass(1ms);
  ASSERT_EQ(maker.made.size(), 1U);
  EXPECT_EQ(maker.made.front().zygote, maker.zygotes.front());
  EXPECT_EQ(pool().zygote_for(python()), maker.zygotes.front());
}

TEST_F(StemPoolTest, ReplacesAZygoteThatForkedEnoughOrIsOld) {
  options.forks_max = 3;
  (void)pool().take(python(), now);
  pass(10ms);
  pool().on_zygote_ready(maker.zygotes.front(), now);
  for (int i = 0; i < 3; ++i) (void)pool().zygote_for(python());
  pass(10ms);
  EXPECT_EQ(maker.killed, std::vector<SandboxId>{maker.zygotes.front()});
  ASSERT_EQ(maker.zygotes.size(), 2U);
}

TEST_F(StemPoolTest, WithoutAZygoteStemsAreExecutedAndItIsTriedAgainMoreAndMoreRarely) {
  (void)pool().take(python(), now);
  pass(10ms);
  pool().on_gone(maker.zygotes.front(), now);
  pass(1ms);
  ASSERT_EQ(maker.made.size(), 1U);
  EXPECT_EQ(maker.made.front().zygote, 0U);
  EXPECT_EQ(maker.zygotes.size(), 1U);
  pass(1s);
  EXPECT_EQ(maker.zygotes.size(), 2U);
  pool().on_gone(maker.zygotes.back(), now);
  pass(1s);
  EXPECT_EQ(maker.zygotes.size(), 2U) << "twice the time now";
}

TEST_F(StemPoolTest, DoesNotHurryAfterStemsThatDie) {
  (void)pool().take(node(), now);
  for (int i = 0; i < 5; ++i) {
    pass(10ms);
    if (maker.made.size() > booted) pool().on_gone(maker.made[booted++].id, now);
  }
  EXPECT_EQ(maker.made.size(), 1U);
  pass(2s);
  EXPECT_EQ(maker.made.size(), 2U);
}

TEST_F(StemPoolTest, DropsWhatWasBootedFromAFileThatIsAnotherNow) {
  StemClass former = python(), present = python();
  former.program = "1:2:3";
  present.program = "1:9:9";
  (void)pool().take(former, now);
  pass(10ms);
  ASSERT_EQ(maker.zygotes.size(), 1U);
  pool().on_zygote_ready(maker.zygotes[0], now);
  pass(10ms);
  boot();
  ASSERT_EQ(maker.made.size(), 1U);
  EXPECT_FALSE(pool().take(present, now)) << "no stem of the former file";
  EXPECT_EQ(pool().zygote_for(present), 0U) << "nor its zygote";
  pass(10ms);
  EXPECT_EQ(maker.killed, (std::vector<SandboxId>{maker.zygotes[0], maker.made[0].id}));
  EXPECT_EQ(maker.zygotes.size(), 2U);
}

TEST_F(StemPoolTest, EndsEverythingWhenItCloses) {
  (void)pool().take(python(), now);
  (void)pool().take(node(), now);
  pass(10ms);
  boot();
  pool().close();
  EXPECT_EQ(maker.killed.size(), 2U);
  EXPECT_FALSE(pool().take(node(), now));
  pass(1h);
  EXPECT_EQ(pool().counts().ready, 0U);
}

}  // namespace
}  // namespace mayfly::backend
