// TimerHeap: what the dispatcher has to look at later. A timer that is put off stays where it is and is moved when it would have
// been due, so an environment under load costs a few moves a second, not three an invocation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/time.h"

namespace mayfly::engine {

// A member of what it belongs to; neither moved nor ended while it is set.
class Timer {
 public:
  enum class Of : std::uint8_t { kEnvironment, kWaiting, kPool };
  Timer(Of kind, void* owner_in) : of(kind), owner(owner_in) {}
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  const Of of;
  void* const owner;

 private:
  friend class TimerHeap;
  static constexpr std::size_t kNowhere = SIZE_MAX;
  base::TimePoint when_ = base::kNoDeadline;
  std::size_t position_ = kNowhere;
};

class TimerHeap {
 public:
  // kNoDeadline: never.
  void set(Timer& timer, base::TimePoint when) {
    timer.when_ = when;
    if (timer.position_ == Timer::kNowhere) {
      if (when == base::kNoDeadline) return;
      entries_.push_back({when, &timer});
      timer.position_ = entries_.size() - 1;
      rise(timer.position_);
    } else if (when < entries_[timer.position_].at) {
      entries_[timer.position_].at = when;
      rise(timer.position_);
    }
  }
  // Before its owner ends.
  void forget(Timer& timer) {
    timer.when_ = base::kNoDeadline;
    if (timer.position_ != Timer::kNowhere) remove(timer.position_);
  }
  // When take_due() wants to be asked: never later than the first timer is due, sometimes sooner.
  [[nodiscard]] base::Deadline next() const { return entries_.empty() ? base::kNoDeadline : entries_.front().at; }
  // A timer that is due, unset now; null when none is.
  [[nodiscard]] Timer* take_due(base::TimePoint now) {
    while (!entries_.empty() && entries_.front().at <= now) {
      Timer& first = *entries_.front().timer;
      if (first.when_ <= now) {
        forget(first);
        return &first;
      }
      if (first.when_ == base::kNoDeadline) {
        remove(0);
      } else {  // it was put off
        entries_.front().at = first.when_;
        sink(0);
      }
    }
    return nullptr;
  }

 private:
  struct Entry {
    base::TimePoint at;
    Timer* timer;
  };
  void put(std::size_t position, Entry entry) {
    entries_[position] = entry;
    entry.timer->position_ = position;
  }
  void rise(std::size_t position) {
    const Entry entry = entries_[position];
    for (; position > 0 && entry.at < entries_[(position - 1) / 2].at; position = (position - 1) / 2)
      put(position, entries_[(position - 1) / 2]);
    put(position, entry);
  }
  void sink(std::size_t position) {
    const Entry entry = entries_[position];
    for (std::size_t child = 2 * position + 1; child < entries_.size(); child = 2 * position + 1) {
      if (child + 1 < entries_.size() && entries_[child + 1].at < entries_[child].at) ++child;
      if (entry.at <= entries_[child].at) break;
      put(position, entries_[child]);
      position = child;
    }
    put(position, entry);
  }
  void remove(std::size_t position) {
    entries_[position].timer->position_ = Timer::kNowhere;
    const Entry last = entries_.back();
    entries_.pop_back();
    if (position == entries_.size()) return;
    put(position, last);
    rise(position);
    sink(last.timer->position_);
  }

  std::vector<Entry> entries_;
};

}  // namespace mayfly::engine
