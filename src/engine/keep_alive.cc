#include "engine/keep_alive.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace mayfly::engine {

using base::Duration;
using base::TimePoint;
using std::chrono::seconds;

namespace {

struct Span {
  std::size_t first_bin;
  Duration begin, width;
};
constexpr std::array<Span, 5> kSpans = {{{0, seconds(1), seconds(1)},
                                         {9, seconds(10), seconds(5)},
                                         {19, seconds(60), seconds(15)},
                                         {35, seconds(300), seconds(60)},
                                         {90, seconds(3600), seconds(120)}}};

std::size_t bin_of(Duration gap) {
  const auto after = std::ranges::find_if(kSpans, [gap](const Span& span) { return gap < span.begin; });
  const Span& span = *std::prev(after);
  return span.first_bin + static_cast<std::size_t>((gap - span.begin) / span.width);
}

double in_seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

// What is expected of the next gap: how many of `all` end in each bin. The rest is longer than any bin.
struct Expected {
  std::array<double, ArrivalHistory::kBins> ending{};
  double all = 0;
};

// The gaps that were counted, and one more: the next may be longer than everything seen. Nearly all of it ends at a constant rate, a
// fifth of the rate of those seen; the rest does not end, as the function may be called no more. Without it what is called a hundred
// times an hour is dropped at its longest gap so far, which costs next to nothing to outlast (docs/adr/0012).
constexpr double kTailMean = 5, kTailShare = 0.95;
Expected expected_of(const ArrivalHistory& history) {
  Expected expected{.all = history.gaps() + 1.0};
  double sum = 0, count = 0;
  for (std::size_t bin = 0; bin < ArrivalHistory::kBins; ++bin) {
    expected.ending[bin] = history.count(bin);
    const Duration middle = (ArrivalHistory::begin_of(bin) + ArrivalHistory::begin_of(bin + 1)) / 2;
    sum += in_seconds(middle) * history.count(bin);
    count += history.count(bin);
  }
  if (count == 0) return expected;
  const double mean = kTailMean * sum / count;
  double left = kTailShare;  // of it, at the beginning of the bin
  for (std::size_t bin = 0; bin < ArrivalHistory::kBins; ++bin) {
    const double after = kTailShare * std::exp(-in_seconds(ArrivalHistory::begin_of(bin + 1)) / mean);
    expected.ending[bin] += left - after;
    left = after;
  }
  return expected;
}

// Keeping from `begin` until `end`: what is gained over not keeping, in cold starts.
struct Window {
  Duration begin{0}, end{0};
  double gain = 0;
};

// The best end of a window that begins at `begin`, where bins from `from` on count. `left`: gaps that are not over by then.
// `price`: cold starts a second of one idle environment is worth.
Window best_window(const Expected& expected, Duration begin, std::size_t from, double left, double price) {
  Window best{.begin = begin, .end = begin};
  double gain = 0;
  Duration until = begin;
  for (std::size_t bin = from; bin < ArrivalHistory::kBins && left > 0; ++bin) {
    const Duration end = ArrivalHistory::begin_of(bin + 1);
    if (end <= begin) continue;
    const double found = expected.ending[bin];
    gain += found - price * in_seconds(end - until) * (left - found / 2);  // those found waited half of it
    left -= found;
    until = end;
    if (gain > best.gain) best = {.begin = begin, .end = end, .gain = gain};
  }
  return best;
}

// The best window that begins after `kept`, just before the first gap it is for; every gap not over by then pays for the start.
Window later_window(const ArrivalHistory& history, const Expected& expected, Duration kept, double price, double start_cost) {
  Window best;
  double left = expected.all;
  for (std::size_t bin = 0; bin < ArrivalHistory::kBins; ++bin) {
    const Duration begin = ArrivalHistory::begin_of(bin) - ArrivalHistory::kShortest;
    if (history.count(bin) > 0 && begin > kept) {
      Window window = best_window(expected, begin, bin, left, price);
      window.gain -= start_cost * left;
      if (window.gain > best.gain) best = window;
    }
    left -= expected.ending[bin];
  }
  return best;
}

}  // namespace

Duration ArrivalHistory::begin_of(std::size_t bin) {
  const auto after = std::ranges::find_if(kSpans, [bin](const Span& span) { return bin < span.first_bin; });
  const Span& span = *std::prev(after);
  return span.begin + span.width * static_cast<std::int64_t>(bin - span.first_bin);
}

void ArrivalHistory::add(Duration gap) {
  if (gap < kShortest) return;
  std::uint8_t& counter = gap < kLongest ? counts_[bin_of(gap)] : beyond_;
  ++counter;
  ++gaps_;
  if (counter < UINT8_MAX) return;
  gaps_ = 0;  // what is old counts half
  for (std::uint8_t& each : counts_) gaps_ += each /= 2;
  gaps_ += beyond_ /= 2;
}

void ArrivalHistories::on_busy(std::uint32_t level, TimePoint now) {
  if (level > freed_.size()) return;
  const TimePoint freed = freed_[level - 1];
  if (now - freed < ArrivalHistory::kShortest) return;
  const std::size_t group = group_of(level);
  if (group >= groups_.size()) groups_.resize(group + 1);
  std::unique_ptr<ArrivalHistory>& history = groups_[group];
  if (!history) history = std::make_unique<ArrivalHistory>();
  history->add(now - freed);
}

void ArrivalHistories::on_free(std::uint32_t level, TimePoint now) {
  if (level > freed_.size()) freed_.resize(level, now);
  freed_[level - 1] = now;
}

std::size_t ArrivalHistories::group_of(std::uint32_t level) {
  if (level <= kExact) return level - 1;
  const auto exponent = static_cast<std::uint32_t>(std::bit_width(level - 1)) - 1;
  const std::size_t quarter = ((level - 1) >> (exponent - 2)) & 3U;
  return std::min<std::size_t>(kExact + (exponent - 4) * 4 + quarter, kGroups - 1);
}

const ArrivalHistory& ArrivalHistories::of_group(std::size_t group) const {
  static const ArrivalHistory empty;
  return group < groups_.size() && groups_[group] ? *groups_[group] : empty;
}

KeepAlivePlan LearnedKeepAlive::plan(const ArrivalHistory& history, std::uint64_t bytes) const {
  if (history.gaps() < options_.gaps_min) return {.keep = options_.fallback};
  const double price = static_cast<double>(bytes) / static_cast<double>(1ULL << 30U) / options_.worth_gib_s;
  const Expected expected = expected_of(history);
  const Window first = best_window(expected, Duration::zero(), 0, expected.all, price);
  // Kept from the start, and perhaps made again later; or only made when it is due.
  const Duration kept = std::max(first.end, ArrivalHistory::kShortest);
  const Window after_it = later_window(history, expected, kept, price, options_.start_cost);
  const Window alone = later_window(history, expected, ArrivalHistory::kShortest, price, options_.start_cost);
  const bool only_later = alone.gain > first.gain + after_it.gain;
  const Window& later = only_later ? alone : after_it;
  KeepAlivePlan plan{.keep = only_later ? ArrivalHistory::kShortest : kept};
  if (later.gain > 0) {
    plan.again_after = later.begin;
    plan.again_keep = later.end - later.begin;
  }
  return plan;
}

}  // namespace mayfly::engine
