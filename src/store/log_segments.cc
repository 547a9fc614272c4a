#include "store/log_segments.h"

#include <dirent.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <span>
#include <thread>
#include <utility>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/mutex.h"
#include "store/internal/log_group.h"

namespace mayfly::store {
namespace {

using base::Error;
using base::ErrorCode;
using base::MutexLock;
using base::Result;
using Steady = std::chrono::steady_clock;

constexpr auto kSyncEvery = std::chrono::seconds(1);
// After a batch the writer lets the next one gather, unless somebody waits for it or this much is queued: appending wakes nobody then.
constexpr auto kGather = std::chrono::milliseconds(8);
constexpr std::uint64_t kGatherBytesMax = 1U << 20U;
constexpr auto kEnforceEvery = std::chrono::seconds(60);
constexpr std::uint64_t kSegmentBytesMax = 8U << 20U;
constexpr std::int64_t kHourMs = 3'600'000;
constexpr std::size_t kOpenFilesMax = 64;
constexpr std::size_t kDropKeysMax = 1024;          // streams whose losses are counted one by one
constexpr std::uint64_t kEventOverheadBytes = 128;  // of an event in the queue, beside its texts

// At most 8 MiB; small enough that a group's or all limits are met by deleting whole segments.
SegmentLimits segment_limits(const LogLimits& limits) {
  const auto age_ms = std::chrono::duration_cast<std::chrono::milliseconds>(limits.age_max).count();
  return {.bytes_max = std::clamp<std::uint64_t>(std::min(limits.group_bytes_max, limits.total_bytes_max) / 4, 4096, kSegmentBytesMax),
          .age_ms_max = std::min<std::int64_t>(age_ms, std::clamp<std::int64_t>(age_ms / 24, kHourMs, 24 * kHourMs))};
}

// A group's name as a directory's: percent-encoded, or a digest where that is too long, with the name in a file.
std::string directory_name(const std::string& group) {
  std::string encoded = base::percent_encode(group);
  if (encoded.starts_with('.')) encoded.replace(0, 1, "%2E");
  if (encoded.starts_with('~')) encoded.replace(0, 1, "%7E");
  if (encoded.size() <= 200 && !encoded.empty()) return encoded;
  return "~" + base::hex_encode(base::sha256(group));
}

constexpr std::string_view kNameFile = "/name";

Result<std::string> group_of_directory(const std::string& directory, const std::string& name) {
  if (name.starts_with('~')) return base::read_file(directory + "/" + name + std::string(kNameFile), 4096);
  return base::percent_decode(name);
}

// Cuts at a character's beginning, not inside UTF-8.
void cut_message(std::string& message, std::uint64_t bytes_max) {
  if (message.size() <= bytes_max) return;
  std::size_t end = static_cast<std::size_t>(bytes_max);
  while (end > 0 && (static_cast<unsigned char>(message[end]) & 0xC0U) == 0x80U) --end;
  const std::size_t gone = message.size() - end;
  message.resize(end);
  message += " [mayfly] " + std::to_string(gone) + " bytes cut: the event was too long";
  message.shrink_to_fit();
}

enum class Loss { kQueueFull, kDisk };

class SegmentedLogs final : public LogSegments {
 public:
  SegmentedLogs(std::string directory, LogLimits limits, const base::Clock& clock)
      : directory_(std::move(directory)),
        limits_(limits),
        segment_limits_(segment_limits(limits)),
        gather_bytes_max_(std::min(kGatherBytesMax, limits.queue_bytes_max / 8)),
        clock_(clock) {}

  ~SegmentedLogs() override {
    if (!thread_.joinable()) return;
    {
      const MutexLock lock(mutex_);
      ending_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

  // Learns the names of groups, nothing else, and starts the writer.
  Result<void> start() {
    DIR* stream = opendir(directory_.c_str());
    if (stream == nullptr) return base::errno_error("cannot list " + directory_, errno);
    {
      const MutexLock lock(mutex_);
      while (const dirent* entry = readdir(stream)) {
        const std::string name = entry->d_name;
        if (name.starts_with('.')) continue;
        const auto group = group_of_directory(directory_, name);
        if (!group.ok() || directory_name(*group) != name) continue;
        Entry made{std::make_shared<LogGroup>(directory_ + "/" + name, LogGroup::Disk::kExisting, segment_limits_)};
        unsurveyed_.push_back(made.group);
        groups_.emplace(*group, std::move(made));
      }
    }
    closedir(stream);
    thread_ = std::thread([this] { run(); });
    pthread_setname_np(thread_.native_handle(), "logs");
    return {};
  }

  void append(const std::string& group, const std::string& stream, std::int64_t timestamp_ms, std::string message) override {
    cut_message(message, limits_.event_bytes_max);
    const std::int64_t now_ms = base::epoch_ms(clock_.wall_now());
    const std::uint64_t bytes = message.size() + stream.size() + group.size() + kEventOverheadBytes;
    {
      const MutexLock lock(mutex_);
      Entry& entry = entry_of(group);
      // One group may fill half of the queue: a function that floods its log does not silence the others.
      if (queued_bytes_ + bytes > limits_.queue_bytes_max || entry.queued_bytes + bytes > limits_.queue_bytes_max / 2) {
        note_loss(group, stream, 1, Loss::kQueueFull);
        return;
      }
      queued_bytes_ += bytes;
      entry.queued_bytes += bytes;
      ++enqueued_;
      queue_.push_back({.kind = Item::kEvent,
                        .name = group,
                        .group = entry.group,
                        .bytes = bytes,
                        .event = {.stream = stream, .timestamp_ms = timestamp_ms, .ingested_ms = now_ms, .message = std::move(message)},
                        .result = nullptr});
      if (writer_ == Writer::kWorks || (writer_ == Writer::kGathers && queued_bytes_ < gather_bytes_max_)) return;
      writer_ = Writer::kWorks;  // as good as: the next append need not wake it again
    }
    wake_.notify_all();
  }

  void flush() override {
    MutexLock lock(mutex_);
    wait_until_done(lock, enqueued_);
  }

  Result<std::vector<LogEvent>> read(const LogQuery& query) override {
    const auto group = find(query.group);
    if (group == nullptr) return not_found(query.group);
    return group->read(query);
  }

  Result<std::vector<LogStream>> streams(const std::string& group) override {
    const auto found = find(group);
    if (found == nullptr) return not_found(group);
    return found->streams();
  }

  std::vector<std::string> groups() override {
    const MutexLock lock(mutex_);
    std::vector<std::string> names;
    names.reserve(groups_.size());
    for (const auto& [name, entry] : groups_) names.push_back(name);
    return names;
  }

  void create_group(const std::string& group) override {
    const MutexLock lock(mutex_);
    entry_of(group);
    wake_.notify_all();
  }

  Result<void> delete_group(const std::string& group) override {
    Result<void> result;
    MutexLock lock(mutex_);
    const auto found = groups_.find(group);
    if (found == groups_.end()) return not_found(group);
    const std::uint64_t ticket = ++enqueued_;
    queue_.push_back({.kind = Item::kDelete, .name = group, .group = found->second.group, .bytes = 0, .event = {}, .result = &result});
    std::erase(unsurveyed_, found->second.group);
    groups_.erase(found);
    std::erase_if(losses_, [&](const auto& loss) { return loss.first.first == group; });
    wait_until_done(lock, ticket);
    return result;
  }

  std::uint64_t dropped() const override { return dropped_; }

 private:
  struct Entry {
    std::shared_ptr<LogGroup> group;
    std::uint64_t queued_bytes = 0;
  };
  struct Item {
    enum Kind { kEvent, kCreate, kDelete };
    Kind kind = kEvent;
    std::string name;
    std::shared_ptr<LogGroup> group;
    std::uint64_t bytes = 0;
    PendingEvent event;
    Result<void>* result = nullptr;  // of kDelete; its caller waits
  };
  using LossKey = std::pair<std::string, std::string>;  // group, stream
  struct LossCount {
    std::uint64_t queue_full = 0, disk = 0;
  };
  struct Batch {
    std::deque<Item> items;
    std::map<LossKey, LossCount> losses;
    bool ending = false;
  };

  static Error not_found(const std::string& group) {
    return Error(ErrorCode::kNotFound, "The specified log group does not exist: " + group, "ResourceNotFoundException");
  }

  std::shared_ptr<LogGroup> find(const std::string& group) {
    const MutexLock lock(mutex_);
    const auto found = groups_.find(group);
    return found == groups_.end() ? nullptr : found->second.group;
  }

  void wait_until_done(MutexLock& lock, std::uint64_t ticket) MAYFLY_REQUIRES(mutex_) {
    if (done_ >= ticket) return;
    ++hurried_;
    wake_.notify_all();
    while (done_ < ticket) done_changed_.wait(lock.native());
    --hurried_;
  }

  Entry& entry_of(const std::string& group) MAYFLY_REQUIRES(mutex_) {
    const auto found = groups_.find(group);
    if (found != groups_.end()) return found->second;
    Entry made{std::make_shared<LogGroup>(directory_ + "/" + directory_name(group), LogGroup::Disk::kNew, segment_limits_)};
    ++enqueued_;
    queue_.push_back({.kind = Item::kCreate, .name = group, .group = made.group, .bytes = 0, .event = {}, .result = nullptr});
    return groups_.emplace(group, std::move(made)).first->second;
  }

  void note_loss(const std::string& group, const std::string& stream, std::uint64_t events, Loss loss) MAYFLY_REQUIRES(mutex_) {
    dropped_ += events;
    LossKey key{group, stream};
    if (losses_.size() >= kDropKeysMax && !losses_.contains(key)) return;  // counted in dropped() alone
    (loss == Loss::kDisk ? losses_[std::move(key)].disk : losses_[std::move(key)].queue_full) += events;
  }

  // --- The writer thread ---

  void run() {
    auto next_sync = Steady::now() + kSyncEvery;
    auto next_enforce = Steady::now() + kEnforceEvery;
    while (true) {
      Batch batch = take_batch(next_sync);
      write(batch.items);
      report_losses(batch.losses);
      survey_one();
      const auto now = Steady::now();
      if (now >= next_sync || batch.ending) {
        sync();
        next_sync = now + kSyncEvery;
      }
      if (take_closed_marks() || now >= next_enforce) {
        enforce();
        next_enforce = now + kEnforceEvery;
      }
      if (batch.ending && batch.items.empty()) return;
    }
  }

  // Waits until there is something to do: items, groups not looked at yet, a sync that is due, the end.
  Batch take_batch(Steady::time_point next_sync) {
    MutexLock lock(mutex_);
    gather(lock);
    const bool must_tick = !dirty_.empty() || !losses_.empty();
    const auto until = must_tick ? next_sync : Steady::now() + kEnforceEvery;
    writer_ = Writer::kWaits;
    while (queue_.empty() && !ending_ && unsurveyed_.empty() && Steady::now() < until) {
      if (wake_.wait_until(lock.native(), until) == std::cv_status::timeout) break;
      if (!losses_.empty() && !must_tick) break;
    }
    writer_ = Writer::kWorks;
    Batch batch;
    batch.items.swap(queue_);
    batch.losses.swap(losses_);
    batch.ending = ending_;
    return batch;
  }

  void gather(MutexLock& lock) MAYFLY_REQUIRES(mutex_) {
    const auto until = Steady::now() + kGather;
    writer_ = Writer::kGathers;
    while (hurried_ == 0 && !ending_ && unsurveyed_.empty() && queued_bytes_ < gather_bytes_max_) {
      if (wake_.wait_until(lock.native(), until) == std::cv_status::timeout) break;
    }
  }

  // Items of one group are written together; a deletion keeps its place among them.
  void write(std::deque<Item>& items) {
    std::map<LogGroup*, std::vector<Item*>> by_group;
    for (Item& item : items) by_group[item.group.get()].push_back(&item);
    std::vector<Item*> deletions;
    for (Item& item : items) {
      if (item.kind == Item::kDelete) deletions.push_back(&item);
    }
    // A group deleted and made again shares its directory: everything before a deletion happens before it, in order.
    for (Item* deletion : deletions) {
      write_group(by_group[deletion->group.get()]);
      by_group.erase(deletion->group.get());
    }
    for (auto& [group, of_group] : by_group) write_group(of_group);
    const MutexLock lock(mutex_);
    done_ += items.size();  // only now: groups are not written in the order of the queue
    done_changed_.notify_all();
  }

  void write_group(std::vector<Item*>& items) {
    if (items.empty()) return;
    LogGroup& group = *items.front()->group;
    std::vector<PendingEvent> events;
    std::uint64_t bytes = 0;
    for (Item* item : items) {
      bytes += item->bytes;
      if (item->kind == Item::kEvent) events.push_back(std::move(item->event));
      if (item->kind == Item::kCreate) make_group(item->name, group);
      if (item->kind == Item::kDelete) {
        events.clear();  // the group goes with them
        std::erase(dirty_, item->group);
        std::erase(open_, item->group);
        *item->result = group.delete_everything();
      }
    }
    append_to(items.front()->group, items.front()->name, events);
    const MutexLock lock(mutex_);
    queued_bytes_ -= bytes;
    const auto entry = groups_.find(items.front()->name);
    if (entry != groups_.end() && entry->second.group == items.front()->group) entry->second.queued_bytes -= bytes;
  }

  void make_group(const std::string& name, LogGroup& group) {
    Result<void> made = group.make_directory();
    const std::string directory = directory_name(name);
    if (made.ok() && directory.starts_with('~'))
      made = base::write_file_durably(directory_ + "/" + directory + std::string(kNameFile), name);
    if (!made.ok()) note_disk(made);
  }

  void append_to(const std::shared_ptr<LogGroup>& group, const std::string& name, const std::vector<PendingEvent>& events) {
    if (events.empty()) return;
    const std::size_t done = append_events(group, events);
    const MutexLock lock(mutex_);
    for (std::size_t i = done; i < events.size(); ++i) note_loss(name, events[i].stream, 1, Loss::kDisk);
  }

  // Answers how many of `events` are on file.
  std::size_t append_events(const std::shared_ptr<LogGroup>& group, std::span<const PendingEvent> events) {
    Result<void> failure;
    const std::size_t done = group->append(events, failure);
    if (group->is_dirty() && std::find(dirty_.begin(), dirty_.end(), group) == dirty_.end()) dirty_.push_back(group);
    if (group->has_open_file()) keep_few_open(group);
    note_disk(failure);
    return done;
  }

  void report_losses(const std::map<LossKey, LossCount>& losses) {
    for (const auto& [key, count] : losses) {
      const auto group = find(key.first);
      if (group == nullptr) continue;
      const std::int64_t now_ms = base::epoch_ms(clock_.wall_now());
      const std::string cause = count.disk == 0 ? "they came faster than they could be written" : "the disk did not take them";
      const PendingEvent event{.stream = key.second,
                               .timestamp_ms = now_ms,
                               .ingested_ms = now_ms,
                               .message = "[mayfly] " + std::to_string(count.queue_full + count.disk) + " log events dropped: " + cause};
      if (append_events(group, {&event, 1}) == 1) continue;
      const MutexLock lock(mutex_);
      LossCount& again = losses_[key];
      again.queue_full += count.queue_full;
      again.disk += count.disk;
    }
  }

  // Says once when the disk stops taking logs and once when it goes on.
  void note_disk(const Result<void>& result) {
    if (!result.ok() && !disk_failing_) {
      base::log_error("function logs are being dropped: the disk does not take them", {{"cause", result.error().message()}});
      disk_failing_ = true;
    } else if (result.ok() && disk_failing_) {
      base::log_info("function logs are written again");
      disk_failing_ = false;
    }
  }

  void sync() {
    for (const auto& group : dirty_) note_disk(group->sync());
    dirty_.clear();
  }

  void keep_few_open(const std::shared_ptr<LogGroup>& group) {
    if (std::find(open_.begin(), open_.end(), group) != open_.end()) return;
    if (open_.size() >= kOpenFilesMax) {
      sync();
      for (const auto& each : open_) each->close_file();
      open_.clear();
    }
    open_.push_back(group);
  }

  // Looks at one group of a former run, so that limits hold for it too.
  void survey_one() {
    std::shared_ptr<LogGroup> group;
    {
      const MutexLock lock(mutex_);
      if (unsurveyed_.empty()) return;
      group = unsurveyed_.back();
      unsurveyed_.pop_back();
      survey_ended_ = unsurveyed_.empty();
    }
    const Result<void> loaded = group->load();
    if (!loaded.ok()) base::log_warning("a log group cannot be read", {{"cause", loaded.error().message()}});
  }

  std::vector<std::shared_ptr<LogGroup>> all_groups() {
    const MutexLock lock(mutex_);
    std::vector<std::shared_ptr<LogGroup>> all;
    all.reserve(groups_.size());
    for (const auto& [name, entry] : groups_) all.push_back(entry.group);
    return all;
  }

  bool take_closed_marks() {
    bool any = std::exchange(survey_ended_, false);
    for (const auto& group : open_) any = group->take_closed_mark() || any;
    return any;
  }

  void enforce() {
    const auto all = all_groups();
    const std::int64_t now_ms = base::epoch_ms(clock_.wall_now());
    const std::int64_t oldest_ms = now_ms - std::chrono::duration_cast<std::chrono::milliseconds>(limits_.age_max).count();
    std::uint64_t sum = 0;
    for (const auto& group : all) {
      group->enforce(oldest_ms, limits_.group_bytes_max);
      sum += group->bytes();
    }
    while (sum > limits_.total_bytes_max) {
      const std::shared_ptr<LogGroup> oldest = oldest_of(all);
      if (oldest == nullptr) return;
      const std::uint64_t before = oldest->bytes();
      oldest->drop_oldest();
      sum -= before - oldest->bytes();
    }
  }

  static std::shared_ptr<LogGroup> oldest_of(const std::vector<std::shared_ptr<LogGroup>>& all) {
    std::shared_ptr<LogGroup> oldest;
    std::int64_t oldest_ms = INT64_MAX;
    for (const auto& group : all) {
      const auto ms = group->oldest_ms();
      if (ms && *ms < oldest_ms) {
        oldest_ms = *ms;
        oldest = group;
      }
    }
    return oldest;
  }

  const std::string directory_;
  const LogLimits limits_;
  const SegmentLimits segment_limits_;
  const std::uint64_t gather_bytes_max_;
  const base::Clock& clock_;

  base::Mutex mutex_;
  std::condition_variable wake_, done_changed_;
  std::map<std::string, Entry> groups_ MAYFLY_GUARDED_BY(mutex_);
  std::deque<Item> queue_ MAYFLY_GUARDED_BY(mutex_);
  std::uint64_t queued_bytes_ MAYFLY_GUARDED_BY(mutex_) = 0;  // of the queue and of what the writer is writing
  std::uint64_t enqueued_ MAYFLY_GUARDED_BY(mutex_) = 0, done_ MAYFLY_GUARDED_BY(mutex_) = 0;
  std::map<LossKey, LossCount> losses_ MAYFLY_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<LogGroup>> unsurveyed_ MAYFLY_GUARDED_BY(mutex_);
  bool ending_ MAYFLY_GUARDED_BY(mutex_) = false;
  enum class Writer : std::uint8_t {
    kWorks,    // and looks at the queue again before it waits
    kGathers,  // waits a moment for more
    kWaits,    // for want of work
  };
  Writer writer_ MAYFLY_GUARDED_BY(mutex_) = Writer::kWorks;
  std::uint32_t hurried_ MAYFLY_GUARDED_BY(mutex_) = 0;  // callers that wait for what is queued
  std::atomic<std::uint64_t> dropped_ = 0;

  // The writer thread's own.
  std::vector<std::shared_ptr<LogGroup>> dirty_;  // to be synced
  std::vector<std::shared_ptr<LogGroup>> open_;   // with an open file
  bool disk_failing_ = false;
  bool survey_ended_ = false;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<LogSegments>> open_log_segments(const std::string& directory, LogLimits limits, const base::Clock& clock) {
  MAYFLY_TRY(base::make_directories(directory));
  auto logs = std::make_unique<SegmentedLogs>(directory, limits, clock);
  MAYFLY_TRY(logs->start());
  return std::unique_ptr<LogSegments>(std::move(logs));
}

}  // namespace mayfly::store
