// LogSegments: append-only storage of log events by group and stream, bounded by size and age. Appending never blocks the
// caller on the disk: a writer thread does; what does not fit its bounded queue is counted and reported as an event of its own.
// Best effort by contract: events of the last second may be lost on power loss, none on a crash of the process's clients.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace mayfly::store {

struct LogEvent {
  std::string stream;
  std::int64_t timestamp_ms = 0;  // UTC
  std::int64_t ingested_ms = 0;
  std::uint64_t sequence = 0;  // grows within a group; unique: event ids and page tokens are made of it
  std::string message;
};

struct LogStream {
  std::string name;
  std::int64_t created_ms = 0, first_ms = 0, last_ms = 0, last_ingested_ms = 0;
  std::uint64_t bytes = 0;
};

struct LogLimits {
  std::uint64_t group_bytes_max = 256ULL << 20U;  // oldest segments go first
  std::uint64_t total_bytes_max = 4ULL << 30U;
  base::Duration age_max = std::chrono::hours(24 * 14);
  std::uint64_t event_bytes_max = 256U << 10U;  // longer events are cut, with a note
  std::uint64_t queue_bytes_max = 32U << 20U;   // of events not on file yet; one group gets half
};

struct LogQuery {
  std::string group;
  std::vector<std::string> streams = {};  // empty: all
  std::string stream_prefix = {};
  std::int64_t from_ms = 0, to_ms = INT64_MAX;  // [from, to)
  std::uint64_t after_sequence = 0;             // exclusive; for forward paging
  std::uint64_t before_sequence = UINT64_MAX;   // exclusive; for backward paging
  bool newest_first = false;                    // which end to take `max` from; answers are always oldest first, in order of sequence
  std::size_t max = 10'000;
  std::uint64_t bytes_max = 1U << 20U;  // of messages; one event is answered however long it is
};

class LogSegments {
 public:
  virtual ~LogSegments() = default;
  // Any thread; never blocks on I/O.
  virtual void append(const std::string& group, const std::string& stream, std::int64_t timestamp_ms, std::string message) = 0;
  // Waits until everything appended before is readable (not necessarily synced). For reads that follow writes.
  virtual void flush() = 0;
  // Blocking reads; any thread. kNotFound when the group does not exist.
  [[nodiscard]] virtual base::Result<std::vector<LogEvent>> read(const LogQuery& query) = 0;
  [[nodiscard]] virtual base::Result<std::vector<LogStream>> streams(const std::string& group) = 0;
  [[nodiscard]] virtual std::vector<std::string> groups() = 0;
  // Makes the group known without an event. Idempotent.
  virtual void create_group(const std::string& group) = 0;
  [[nodiscard]] virtual base::Result<void> delete_group(const std::string& group) = 0;
  // Events that were dropped because the queue was full, since start.
  [[nodiscard]] virtual std::uint64_t dropped() const = 0;
};

[[nodiscard]] base::Result<std::unique_ptr<LogSegments>> open_log_segments(const std::string& directory, LogLimits limits,
                                                                           const base::Clock& clock);

}  // namespace mayfly::store
