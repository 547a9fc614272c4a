// How long idle environments are kept and when one is made ahead of a call: what a function's own arrivals say, and the policies
// that read it. No clock: the time comes in.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/time.h"

namespace mayfly::engine {

// How long environments of one function were not needed before they were needed again: a histogram of gaps of about 200 bytes.
// Gaps below kShortest are not counted: no environment is dropped that soon.
class ArrivalHistory {
 public:
  static constexpr base::Duration kShortest = std::chrono::seconds(1);
  static constexpr base::Duration kLongest = std::chrono::hours(4);
  static constexpr std::size_t kBins = 180;  // 1 s wide up to 10 s, 5 s up to 1 min, 15 s up to 5 min, 1 min up to 1 h, 2 min up to 4 h

  void add(base::Duration gap);

  [[nodiscard]] std::uint32_t count(std::size_t bin) const { return counts_[bin]; }
  [[nodiscard]] std::uint32_t beyond() const { return beyond_; }  // gaps longer than kLongest
  [[nodiscard]] std::uint32_t gaps() const { return gaps_; }      // all that are counted now; old ones fade
  // Bin `bin` holds gaps from begin_of(bin) on; begin_of(kBins) is kLongest.
  [[nodiscard]] static base::Duration begin_of(std::size_t bin);

 private:
  std::array<std::uint8_t, kBins> counts_{};
  std::uint8_t beyond_ = 0;
  std::uint32_t gaps_ = 0;
};

// The histories of one function. Environments are used last-in first-out, so that the gap of level n, the n-th one's, runs from the
// moment fewer than n were busy until n are again, whether or not it was kept meanwhile. Each level up to kExact has a history, above
// that four groups of levels share a doubling; a level that was never busy takes no memory.
class ArrivalHistories {
 public:
  static constexpr std::size_t kExact = 16;
  static constexpr std::size_t kGroups = 40;  // the last is also for all levels above 1,024

  // `level` environments are busy now, one more than before, or one fewer than `level`. Each is freed after it was busy.
  void on_busy(std::uint32_t level, base::TimePoint now);
  void on_free(std::uint32_t level, base::TimePoint now);

  // From 1 on.
  [[nodiscard]] static std::size_t group_of(std::uint32_t level);
  // Of the group; an empty one where it has none yet.
  [[nodiscard]] const ArrivalHistory& of_group(std::size_t group) const;

 private:
  std::vector<base::TimePoint> freed_;  // by level - 1
  std::vector<std::unique_ptr<ArrivalHistory>> groups_;  // null where it has none yet
};

// What becomes of an environment that is idle, counted from the moment it became so.
struct KeepAlivePlan {
  base::Duration keep{0};         // it ends after this
  base::Duration again_after{0};  // and when it was the last of its function, another one is started then; 0: none is
  base::Duration again_keep{0};   // which ends when it was idle for this long
};

class KeepAlivePolicy {
 public:
  virtual ~KeepAlivePolicy() = default;
  // For an environment that takes `bytes` of memory while idle.
  [[nodiscard]] virtual KeepAlivePlan plan(const ArrivalHistory& history, std::uint64_t bytes) const = 0;
};

// The same time for everybody.
class FixedKeepAlive final : public KeepAlivePolicy {
 public:
  explicit FixedKeepAlive(base::Duration keep) : keep_(keep) {}
  [[nodiscard]] KeepAlivePlan plan(const ArrivalHistory&, std::uint64_t) const override { return {.keep = keep_}; }

 private:
  const base::Duration keep_;
};

// Weighs the cold starts that a time of keeping avoids, as the history has them, against the memory it holds idle, and takes the time,
// and the later window, where the difference is greatest (docs/adr/0012).
class LearnedKeepAlive final : public KeepAlivePolicy {
 public:
  struct Options {
    base::Duration fallback = std::chrono::minutes(10);  // with fewer gaps than
    std::uint32_t gaps_min = 4;
    double worth_gib_s = 400;   // GiB held idle for so many seconds are worth one cold start
    double start_cost = 0.05;  // of starting ahead, as part of a cold start
  };
  explicit LearnedKeepAlive(Options options) : options_(options) {}
  [[nodiscard]] KeepAlivePlan plan(const ArrivalHistory& history, std::uint64_t bytes) const override;

 private:
  const Options options_;
};

}  // namespace mayfly::engine
