#include "store/internal/log_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <concepts>
#include <cstdio>
#include <cstring>

#include "base/fd.h"
#include "store/internal/crc32.h"

namespace mayfly::store {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

static_assert(std::endian::native == std::endian::little, "the files are little-endian");

constexpr std::string_view kSegmentMagic = "MFLYLOG1";
constexpr std::string_view kIndexMagic = "MFLYIDX1";
constexpr std::size_t kFrameBytes = 8;  // length and CRC
constexpr std::size_t kRecordFixedBytes = 8 * 3 + 2;
constexpr std::uint32_t kPayloadBytesMax = 16U << 20U;  // more is damage
constexpr std::size_t kReadBytes = 256U << 10U;
constexpr std::size_t kSummaryBytes = 8 * 8;

template <std::integral T>
void put(std::string& out, T value) {
  char raw[sizeof value];
  std::memcpy(raw, &value, sizeof value);
  out.append(raw, sizeof value);
}

// Takes numbers and texts off the front; `ok` turns false for good when there are too few bytes.
struct Cursor {
  std::string_view bytes;
  bool ok = true;

  template <std::integral T>
  T number() {
    T value{};
    if (bytes.size() < sizeof value) {
      ok = false;
      return value;
    }
    std::memcpy(&value, bytes.data(), sizeof value);
    bytes.remove_prefix(sizeof value);
    return value;
  }
  std::string_view text(std::size_t size) {
    if (bytes.size() < size) {
      ok = false;
      return {};
    }
    const std::string_view found = bytes.substr(0, size);
    bytes.remove_prefix(size);
    return found;
  }
};

void put_frame(std::string& out, std::string_view payload) {
  put(out, static_cast<std::uint32_t>(payload.size()));
  put(out, crc32(payload));
  out += payload;
}

// The payload of the frame at the front of `cursor`, if it is whole.
std::string_view take_frame(Cursor& cursor) {
  const auto size = cursor.number<std::uint32_t>();
  const auto crc = cursor.number<std::uint32_t>();
  const std::string_view payload = cursor.text(size);
  if (cursor.ok && crc32(payload) != crc) cursor.ok = false;
  return payload;
}

LogRecord decode(std::string_view payload, bool& ok) {
  Cursor cursor{payload};
  LogRecord record;
  record.sequence = cursor.number<std::uint64_t>();
  record.timestamp_ms = cursor.number<std::int64_t>();
  record.ingested_ms = cursor.number<std::int64_t>();
  record.stream = cursor.text(cursor.number<std::uint16_t>());
  record.message = cursor.bytes;
  ok = cursor.ok;
  return record;
}

Result<std::size_t> read_at(int fd, char* into, std::size_t size, std::uint64_t offset) {
  std::size_t done = 0;
  while (done < size) {
    const ssize_t got = pread(fd, into + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return base::errno_error("cannot read a log segment", errno);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

// A window of a file that moves forward.
class Window {
 public:
  Window(int fd, std::uint64_t end) : fd_(fd), end_(end) {}
  // At least `size` bytes from `offset`, or fewer when the file ends.
  Result<std::string_view> at(std::uint64_t offset, std::size_t size) {
    if (offset < start_ || offset + size > start_ + buffer_.size()) {
      const std::uint64_t left = end_ > offset ? end_ - offset : 0;
      buffer_.resize(static_cast<std::size_t>(std::min<std::uint64_t>(left, std::max(size, kReadBytes))));
      MAYFLY_ASSIGN(const std::size_t got, read_at(fd_, buffer_.data(), buffer_.size(), offset));
      buffer_.resize(got);
      start_ = offset;
    }
    return std::string_view(buffer_).substr(static_cast<std::size_t>(offset - start_));
  }

 private:
  const int fd_;
  const std::uint64_t end_;
  std::uint64_t start_ = 0;
  std::string buffer_;
};

Error damaged(const std::string& path) { return Error(ErrorCode::kDataLoss, "the log index " + path + " is damaged"); }

Result<std::string> read_index(const std::string& path, std::uint64_t bytes_max) {
  MAYFLY_ASSIGN(const base::UniqueFd fd, base::open_file(path, O_RDONLY));
  std::string bytes;
  if (bytes_max == 0) {
    MAYFLY_ASSIGN(bytes, base::read_all(fd.get(), 1ULL << 30U));
  } else {
    bytes.resize(bytes_max);
    MAYFLY_ASSIGN(const std::size_t got, read_at(fd.get(), bytes.data(), bytes.size(), 0));
    bytes.resize(got);
  }
  if (!bytes.starts_with(kIndexMagic)) return damaged(path);
  return bytes;
}

}  // namespace

void SegmentSummary::add(const LogRecord& record, std::uint64_t record_bytes) {
  if (events == 0) {
    first_sequence = record.sequence;
    first_ms = last_ms = record.timestamp_ms;
    first_ingested_ms = last_ingested_ms = record.ingested_ms;
  }
  ++events;
  bytes += record_bytes;
  last_sequence = record.sequence;
  first_ms = std::min(first_ms, record.timestamp_ms);
  last_ms = std::max(last_ms, record.timestamp_ms);
  last_ingested_ms = std::max(last_ingested_ms, record.ingested_ms);
}

void merge_into(StreamTable& streams, const LogStream& stream) {
  const auto found = streams.find(stream.name);
  if (found == streams.end()) {
    streams.emplace(stream.name, stream);
    return;
  }
  LogStream& all = found->second;
  all.created_ms = std::min(all.created_ms, stream.created_ms);
  all.first_ms = std::min(all.first_ms, stream.first_ms);
  all.last_ms = std::max(all.last_ms, stream.last_ms);
  all.last_ingested_ms = std::max(all.last_ingested_ms, stream.last_ingested_ms);
  all.bytes += stream.bytes;
}

void add_to(StreamTable& streams, const LogRecord& record) {
  auto found = streams.find(record.stream);
  if (found == streams.end()) {
    LogStream fresh{.name = std::string(record.stream),
                    .created_ms = record.ingested_ms,
                    .first_ms = record.timestamp_ms,
                    .last_ms = record.timestamp_ms};
    found = streams.emplace(fresh.name, std::move(fresh)).first;
  }
  LogStream& stream = found->second;
  stream.first_ms = std::min(stream.first_ms, record.timestamp_ms);
  stream.last_ms = std::max(stream.last_ms, record.timestamp_ms);
  stream.last_ingested_ms = std::max(stream.last_ingested_ms, record.ingested_ms);
  stream.bytes += record.message.size();
}

std::string segment_header() { return std::string(kSegmentMagic); }

std::uint64_t encode_record(const LogRecord& record, std::string& out) {
  const std::string_view stream = record.stream.substr(0, kStreamNameBytesMax);
  const std::size_t start = out.size();
  put(out, static_cast<std::uint32_t>(kRecordFixedBytes + stream.size() + record.message.size()));
  put(out, std::uint32_t{0});
  put(out, record.sequence);
  put(out, record.timestamp_ms);
  put(out, record.ingested_ms);
  put(out, static_cast<std::uint16_t>(stream.size()));
  out += stream;
  out += record.message;
  const std::uint32_t crc = crc32(std::string_view(out).substr(start + kFrameBytes));
  std::memcpy(out.data() + start + 4, &crc, sizeof crc);
  return out.size() - start;
}

Result<std::uint64_t> walk_segment(int fd, std::uint64_t end, const std::function<bool(const LogRecord&, std::uint64_t)>& each) {
  Window window(fd, end);
  MAYFLY_ASSIGN(const std::string_view header, window.at(0, kSegmentHeaderBytes));
  if (!header.starts_with(kSegmentMagic)) return std::uint64_t{0};
  std::uint64_t offset = kSegmentHeaderBytes;
  while (true) {
    MAYFLY_ASSIGN(const std::string_view frame, window.at(offset, kFrameBytes));
    Cursor cursor{frame};
    const auto size = cursor.number<std::uint32_t>();
    const auto crc = cursor.number<std::uint32_t>();
    if (!cursor.ok || size < kRecordFixedBytes || size > kPayloadBytesMax) return offset;
    MAYFLY_ASSIGN(std::string_view payload, window.at(offset, kFrameBytes + size));
    if (payload.size() < kFrameBytes + size) return offset;
    payload = payload.substr(kFrameBytes, size);
    if (crc32(payload) != crc) return offset;
    bool whole = false;
    const LogRecord record = decode(payload, whole);
    if (!whole) return offset;
    offset += kFrameBytes + size;
    if (!each(record, kFrameBytes + size)) return offset;
  }
}

Result<void> write_index(const std::string& path, const SegmentSummary& summary, const StreamTable& streams) {
  std::string fixed;
  for (const std::uint64_t number : {summary.bytes, summary.events, summary.first_sequence, summary.last_sequence}) put(fixed, number);
  for (const std::int64_t number : {summary.first_ms, summary.last_ms, summary.first_ingested_ms, summary.last_ingested_ms})
    put(fixed, number);
  std::string table;
  put(table, static_cast<std::uint32_t>(streams.size()));
  for (const auto& [name, stream] : streams) {
    put(table, static_cast<std::uint16_t>(name.size()));
    table += name;
    for (const std::int64_t number : {stream.created_ms, stream.first_ms, stream.last_ms, stream.last_ingested_ms}) put(table, number);
    put(table, stream.bytes);
  }
  std::string bytes(kIndexMagic);
  put_frame(bytes, fixed);
  put_frame(bytes, table);
  const std::string temporary = path + ".tmp";
  const auto write = [&]() -> Result<void> {
    MAYFLY_ASSIGN(const base::UniqueFd fd, base::open_file(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0600));
    MAYFLY_TRY(base::write_all(fd.get(), bytes));
    if (rename(temporary.c_str(), path.c_str()) != 0) return base::errno_error("cannot rename " + temporary, errno);
    return {};
  };
  Result<void> done = write();
  if (!done.ok()) unlink(temporary.c_str());
  return done;
}

Result<SegmentSummary> read_index_summary(const std::string& path) {
  MAYFLY_ASSIGN(const std::string bytes, read_index(path, kIndexMagic.size() + kFrameBytes + kSummaryBytes));
  Cursor file{std::string_view(bytes).substr(kIndexMagic.size())};
  Cursor cursor{take_frame(file)};
  SegmentSummary summary;
  for (std::uint64_t* number : {&summary.bytes, &summary.events, &summary.first_sequence, &summary.last_sequence})
    *number = cursor.number<std::uint64_t>();
  for (std::int64_t* number : {&summary.first_ms, &summary.last_ms, &summary.first_ingested_ms, &summary.last_ingested_ms})
    *number = cursor.number<std::int64_t>();
  if (!file.ok || !cursor.ok) return damaged(path);
  return summary;
}

Result<StreamTable> read_index_streams(const std::string& path) {
  MAYFLY_ASSIGN(const std::string bytes, read_index(path, 0));
  Cursor file{std::string_view(bytes).substr(kIndexMagic.size())};
  take_frame(file);
  Cursor cursor{take_frame(file)};
  StreamTable streams;
  for (auto left = cursor.number<std::uint32_t>(); left > 0 && cursor.ok; --left) {
    LogStream stream;
    stream.name = cursor.text(cursor.number<std::uint16_t>());
    for (std::int64_t* number : {&stream.created_ms, &stream.first_ms, &stream.last_ms, &stream.last_ingested_ms})
      *number = cursor.number<std::int64_t>();
    stream.bytes = cursor.number<std::uint64_t>();
    streams.emplace(stream.name, stream);
  }
  if (!file.ok || !cursor.ok) return damaged(path);
  return streams;
}

}  // namespace mayfly::store
