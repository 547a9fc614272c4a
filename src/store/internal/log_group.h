// LogGroup: the segments of one group in one directory. The store's writer thread alone appends, syncs and deletes;
// reading is for every thread. Nothing is read from disk before it is asked for; of closed segments only the summary is
// kept in memory, so memory does not grow with the logs.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/mutex.h"
#include "base/result.h"
#include "store/internal/log_file.h"
#include "store/log_segments.h"

namespace mayfly::store {

struct SegmentLimits {
  std::uint64_t bytes_max = 8U << 20U;
  std::int64_t age_ms_max = 3'600'000;  // from the first event to the last
};

// An event on its way to the disk.
struct PendingEvent {
  std::string stream;
  std::int64_t timestamp_ms = 0, ingested_ms = 0;
  std::string message;
};

class LogGroup {
 public:
  enum class Disk { kNew, kExisting };  // kNew: whatever is in the directory is none of this group's

  LogGroup(std::string directory, Disk disk, SegmentLimits limits)
      : directory_(std::move(directory)), limits_(limits), loaded_(disk == Disk::kNew) {}

  // Reads names and index summaries, cuts a torn tail. Done once; called by whoever needs it first. Any thread.
  [[nodiscard]] base::Result<void> load();
  [[nodiscard]] bool is_loaded() const;

  // --- The writer thread.
  // Makes the directory. Idempotent.
  [[nodiscard]] base::Result<void> make_directory();
  // Appends from the front; answers how many of `events` are on file now, fewer than all when `failure` says why.
  [[nodiscard]] std::size_t append(std::span<const PendingEvent> events, base::Result<void>& failure);
  // Syncs what was appended since the last time. After a failure the segment is left: the next append opens another.
  [[nodiscard]] base::Result<void> sync();
  [[nodiscard]] bool is_dirty() const { return dirty_; }
  [[nodiscard]] bool has_open_file() const { return file_.valid(); }
  void close_file() { file_.reset(); }
  // Whether a segment was closed since the last call: then it is time to look at the limits.
  [[nodiscard]] bool take_closed_mark();
  // Deletes whole segments: those with nothing newer than `oldest_ms`, and the oldest while there are more than `bytes_max` bytes.
  void enforce(std::int64_t oldest_ms, std::uint64_t bytes_max);
  // When the oldest segment ended; none without segments.
  [[nodiscard]] std::optional<std::int64_t> oldest_ms() const;
  void drop_oldest();
  [[nodiscard]] base::Result<void> delete_everything();

  // --- Any thread.
  [[nodiscard]] std::uint64_t bytes() const;
  [[nodiscard]] base::Result<std::vector<LogEvent>> read(const LogQuery& query);
  [[nodiscard]] base::Result<std::vector<LogStream>> streams();

 private:
  struct Segment {
    std::string path;  // without ".log" or ".idx"
    SegmentSummary summary = {};
    bool closed = true;  // has an index and is never appended to
  };
  [[nodiscard]] base::Result<void> load_segment(const std::string& path, bool is_last) MAYFLY_REQUIRES(mutex_);
  [[nodiscard]] base::Result<void> scan_segment(Segment& segment) MAYFLY_REQUIRES(mutex_);
  [[nodiscard]] base::Result<void> open_segment(std::uint64_t first_sequence);
  void close_segment();
  void close_segment_locked() MAYFLY_REQUIRES(mutex_);
  [[nodiscard]] bool must_close(const PendingEvent& next) const;
  [[nodiscard]] std::uint64_t next_sequence(std::int64_t now_ms);
  void drop_front() MAYFLY_REQUIRES(mutex_);
  // Segments that may hold what `query` asks for, oldest first.
  [[nodiscard]] std::vector<Segment> candidates(const LogQuery& query);

  const std::string directory_;
  const SegmentLimits limits_;

  mutable base::Mutex mutex_;
  bool loaded_ MAYFLY_GUARDED_BY(mutex_);
  std::vector<Segment> segments_ MAYFLY_GUARDED_BY(mutex_);  // oldest first; at most the last is open
  StreamTable open_streams_ MAYFLY_GUARDED_BY(mutex_);       // of the open segment
  bool closed_mark_ MAYFLY_GUARDED_BY(mutex_) = false;

  // The writer thread's own.
  base::UniqueFd file_;                       // of the open segment
  std::vector<base::UniqueFd> closed_files_;  // closed, not yet synced
  bool dirty_ = false;
  bool names_dirty_ = false;
  bool directory_made_ = false;
  std::uint64_t last_sequence_ = 0;
  std::string buffer_;
};

}  // namespace mayfly::store
