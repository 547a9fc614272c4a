#include "backend/internal/stem_pool.h"

#include <algorithm>
#include <cmath>

namespace mayfly::backend {

using base::Duration;
using base::TimePoint;
using sandbox::SandboxId;

namespace {

constexpr Duration kTogether = std::chrono::milliseconds(250);  // starts within this came at once
constexpr Duration kPeakHalves = std::chrono::minutes(1);
constexpr Duration kQuiet = std::chrono::milliseconds(5);       // after a start: making stems must not take the CPU from it
constexpr Duration kQuietMost = std::chrono::milliseconds(50);  // but no longer, where starts never cease
constexpr Duration kRetry = std::chrono::seconds(1);            // doubled with each failure in a row, up to kRetryDoublings times
constexpr std::uint32_t kRetryDoublings = 8;
constexpr std::size_t kBootingMost = 2;                           // of one class: each takes a CPU while it boots
constexpr std::size_t kForkingMost = 4;                           // the same for children of a zygote
constexpr std::uint64_t kUnknownBytes = std::uint64_t{8} << 20U;  // of a stem of a kind not seen yet

Duration backoff(std::uint32_t failures) { return kRetry * (1U << std::min(failures, kRetryDoublings)); }

}  // namespace

StemPool::Zygote* StemPool::zygote_of(const StemClass& of) {
  if (!of.forks) return nullptr;
  const auto found = zygotes_.find({.root_id = of.root_id, .arguments = of.arguments, .variables = of.variables, .program = of.program});
  return found == zygotes_.end() ? nullptr : &found->second;
}

void StemPool::count_start(Pool& pool, TimePoint now) const {
  pool.used = now;
  pool.starts.push_back(now);
  while (pool.starts.size() > options_.each_max || pool.starts.front() + kTogether < now) pool.starts.pop_front();
  const auto together = static_cast<std::uint32_t>(pool.starts.size());
  if (together >= target(pool, now)) {
    pool.peak = together;
    pool.peak_at = now;
  }
}

// Half of the peak each minute after it, and one as long as the class is in use.
std::uint32_t StemPool::target(const Pool& pool, TimePoint now) const {
  if (closed_ || pool.used == TimePoint{} || pool.used + options_.keep <= now) return 0;
  const auto halvings = static_cast<std::uint32_t>(std::min<std::int64_t>((now - pool.peak_at) / kPeakHalves, 31));
  return std::max(1U, std::min(pool.peak, options_.each_max) >> halvings);
}

std::optional<sandbox::Sandbox> StemPool::take(const StemClass& of, TimePoint now) {
  if (closed_) return std::nullopt;
  const auto found = pools_.find(of);
  if (found == pools_.end() && pools_.size() >= options_.classes_max) return std::nullopt;
  if (found == pools_.end()) retire_former(of);
  Pool& pool = found == pools_.end() ? pools_[of] : found->second;
  count_start(pool, now);
  if (of.forks) (void)zygotes_[{.root_id = of.root_id, .arguments = of.arguments, .variables = of.variables, .program = of.program}];
  quiet_until_ = now + kQuiet;
  due_at(quiet_until_);
  if (pool.ready.empty()) {
    ++missed_;
    return std::nullopt;
  }
  ++taken_;
  sandbox::Sandbox stem = std::move(pool.ready.back());
  pool.ready.pop_back();
  return stem;
}

// What was booted from another file of the same name has no use any more.
void StemPool::retire_former(const StemClass& of) {
  for (auto& [former, pool] : pools_) {
    StemClass same = former;
    same.program = of.program;
    if (same == of) pool.used = {};
  }
}

SandboxId StemPool::zygote_for(const StemClass& of) {
  Zygote* zygote = zygote_of(of);
  if (zygote == nullptr || !zygote->ready || closed_) return 0;
  ++zygote->forks;
  return zygote->id;
}

void StemPool::on_booted(sandbox::Sandbox stem, std::uint64_t bytes) {
  for (auto& [of, pool] : pools_) {
    const auto it = std::ranges::find(pool.booting, stem.id);
    if (it == pool.booting.end()) continue;
    pool.booting.erase(it);
    pool.failures = 0;
    pool.bytes = std::max(pool.bytes, bytes);
    pool.ready.push_back(std::move(stem));
    return due_at(quiet_until_);
  }
  maker_.kill(stem.id);  // its class is gone
}

void StemPool::on_zygote_ready(SandboxId id, TimePoint now) {
  for (auto& [of, zygote] : zygotes_) {
    if (zygote.id != id) continue;
    zygote.ready = true;
    zygote.failures = 0;
    return due_at(now);
  }
}

void StemPool::on_gone(SandboxId id, TimePoint now) {
  for (auto& [of, pool] : pools_) {
    if (std::erase(pool.booting, id) > 0) pool.retry = now + backoff(pool.failures++);
    // A waiting stem that ended by itself is no reason to hurry either.
    if (std::erase_if(pool.ready, [id](const sandbox::Sandbox& stem) { return stem.id == id; }) > 0) pool.retry = now + kRetry;
  }
  for (auto& [of, zygote] : zygotes_) {
    if (zygote.id != id) continue;
    zygote.retry = now + backoff(zygote.failures);
    ++zygote.failures;
    zygote.id = 0;
    zygote.ready = false;
    zygote.forks = 0;
  }
  due_at(now);
}

std::uint64_t StemPool::bytes_held() const {
  std::uint64_t sum = 0;
  for (const auto& [of, pool] : pools_) sum += (pool.ready.size() + pool.booting.size()) * (pool.bytes == 0 ? kUnknownBytes : pool.bytes);
  return sum;
}

void StemPool::shrink(Pool& pool, std::uint32_t target) {
  while (pool.ready.size() > target) {
    maker_.kill(pool.ready.front().id);
    pool.ready.erase(pool.ready.begin());
  }
}

void StemPool::fill(const StemClass& of, Pool& pool, std::uint32_t target, TimePoint now) {
  if (pool.retry > now) return due_at(pool.retry);
  Zygote* zygote = zygote_of(of);
  const bool forks = zygote != nullptr && zygote->ready;
  if (zygote != nullptr && !forks && zygote->failures == 0) return;  // it is about to be ready
  const std::size_t at_once = forks ? kForkingMost : kBootingMost;
  const std::uint64_t each = pool.bytes == 0 ? kUnknownBytes : pool.bytes;
  while (pool.ready.size() + pool.booting.size() < target && pool.booting.size() < at_once &&
         bytes_held() + each <= options_.memory_bytes_max) {
    const SandboxId id = next_++;
    pool.booting.push_back(id);
    if (forks) ++zygote->forks;
    maker_.make_stem(id, of, forks ? zygote->id : 0);
  }
}

// Keeps one for each class in use; a new one takes the place of one that forked enough or is old.
void StemPool::tend_zygotes(TimePoint now) {
  for (auto it = zygotes_.begin(); it != zygotes_.end();) {
    auto& [of, zygote] = *it;
    const bool used = std::ranges::any_of(
        pools_, [&](const auto& each) { return each.first.forks && zygote_of(each.first) == &zygote && target(each.second, now) > 0; });
    const bool worn = zygote.ready && (zygote.forks >= options_.forks_max || zygote.born + options_.zygote_life <= now);
    if (zygote.id != 0 && (!used || worn)) {
      maker_.kill(zygote.id);
      zygote = {};
    }
    if (!used) {
      it = zygotes_.erase(it);
      continue;
    }
    if (zygote.id == 0 && zygote.retry <= now) {
      zygote.id = next_++;
      zygote.born = now;
      maker_.make_zygote(zygote.id, of);
    }
    due_at(zygote.id == 0 ? zygote.retry : zygote.born + options_.zygote_life);
    ++it;
  }
}

void StemPool::work(TimePoint now) {
  if (closed_) return;
  due_ = base::kNoDeadline;
  tend_zygotes(now);
  const bool quiet = now >= quiet_until_;
  if (!quiet) due_at(quiet_until_);
  for (auto it = pools_.begin(); it != pools_.end();) {
    Pool& pool = it->second;
    const std::uint32_t wanted = target(pool, now);
    shrink(pool, wanted);
    if (wanted == 0 && pool.booting.empty()) {
      it = pools_.erase(it);
      continue;
    }
    const bool long_missing = pool.ready.empty() && !pool.starts.empty() && pool.starts.front() + kQuietMost <= now;
    if (quiet || long_missing) fill(it->first, pool, wanted, now);
    due_at(std::min(pool.used + options_.keep,
                    wanted > 1 ? pool.peak_at + kPeakHalves * (1 + (now - pool.peak_at) / kPeakHalves) : base::kNoDeadline));
    ++it;
  }
}

void StemPool::close() {
  closed_ = true;
  for (auto& [of, pool] : pools_) {
    for (const auto& stem : pool.ready) maker_.kill(stem.id);
    for (const SandboxId id : pool.booting) maker_.kill(id);
  }
  for (const auto& [of, zygote] : zygotes_) {
    if (zygote.id != 0) maker_.kill(zygote.id);
  }
  pools_.clear();
  zygotes_.clear();
  due_ = base::kNoDeadline;
}

StemPool::Counts StemPool::counts() const {
  Counts counts{.taken = taken_, .missed = missed_};
  for (const auto& [of, pool] : pools_) {
    counts.ready += static_cast<std::uint32_t>(pool.ready.size());
    counts.booting += static_cast<std::uint32_t>(pool.booting.size());
  }
  for (const auto& [of, zygote] : zygotes_) counts.zygotes += zygote.ready ? 1 : 0;
  return counts;
}

}  // namespace mayfly::backend
