// The files of the log store and nothing else: records in a segment, and the index beside a closed one.
// Source: docs/formats/log-segments.md.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "store/log_segments.h"

namespace mayfly::store {

inline constexpr std::uint64_t kSegmentHeaderBytes = 8;
inline constexpr std::size_t kStreamNameBytesMax = 1024;

// A record where it was read; the texts live until the next one is read.
struct LogRecord {
  std::uint64_t sequence = 0;
  std::int64_t timestamp_ms = 0, ingested_ms = 0;
  std::string_view stream, message;
};

// What a segment holds, without reading it.
struct SegmentSummary {
  std::uint64_t bytes = kSegmentHeaderBytes;  // of the segment file up to the last whole record
  std::uint64_t events = 0;
  std::uint64_t first_sequence = 0, last_sequence = 0;
  std::int64_t first_ms = 0, last_ms = 0;  // smallest and largest, of the events' own time
  std::int64_t first_ingested_ms = 0, last_ingested_ms = 0;

  void add(const LogRecord& record, std::uint64_t record_bytes);
};

using StreamTable = std::map<std::string, LogStream, std::less<>>;
void add_to(StreamTable& streams, const LogRecord& record);
void merge_into(StreamTable& streams, const LogStream& stream);

[[nodiscard]] std::string segment_header();
// Appends the record's bytes to `out`; answers how many. Streams' names longer than kStreamNameBytesMax are cut.
std::uint64_t encode_record(const LogRecord& record, std::string& out);

// Calls `each` with the whole records in [kSegmentHeaderBytes, end) until it answers false; answers where the last whole record ends.
// A torn or damaged record ends the walk without an error: nothing behind it can be trusted.
[[nodiscard]] base::Result<std::uint64_t> walk_segment(int fd, std::uint64_t end,
                                                       const std::function<bool(const LogRecord&, std::uint64_t record_bytes)>& each);

// Not synced: an index that is missing or damaged is made again from its segment.
[[nodiscard]] base::Result<void> write_index(const std::string& path, const SegmentSummary& summary, const StreamTable& streams);
[[nodiscard]] base::Result<SegmentSummary> read_index_summary(const std::string& path);
[[nodiscard]] base::Result<StreamTable> read_index_streams(const std::string& path);

}  // namespace mayfly::store
