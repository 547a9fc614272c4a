#include "store/internal/log_group.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <utility>

#include "base/log.h"

namespace mayfly::store {
namespace {

using base::Error;
using base::ErrorCode;
using base::MutexLock;
using base::Result;
using base::UniqueFd;

constexpr std::size_t kWriteBytes = 256U << 10U;
constexpr std::size_t kSequenceDigits = 20;

std::string segment_name(std::uint64_t first_sequence) {
  const std::string digits = std::to_string(first_sequence);
  return std::string(kSequenceDigits - digits.size(), '0') + digits;
}

Result<std::uint64_t> file_size(int fd) {
  struct stat info{};
  if (fstat(fd, &info) != 0) return base::errno_error("cannot look at a log segment", errno);
  return static_cast<std::uint64_t>(info.st_size);
}

Result<void> write_at(int fd, std::string_view bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t put = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return base::errno_error("cannot write to a log segment", errno);
    bytes.remove_prefix(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
  return {};
}

// Names of segments (without ".log"), oldest first. Leftovers of interrupted work are deleted.
Result<std::vector<std::string>> segment_names(const std::string& directory) {
  std::vector<std::string> logs, indexes;
  DIR* stream = opendir(directory.c_str());
  if (stream == nullptr) {
    if (errno == ENOENT) return logs;
    return base::errno_error("cannot list " + directory, errno);
  }
  while (const dirent* entry = readdir(stream)) {
    const std::string name = entry->d_name;
    if (name.ends_with(".tmp")) unlink((directory + "/" + name).c_str());
    if (name.size() != kSequenceDigits + 4) continue;
    if (name.ends_with(".log")) logs.push_back(name.substr(0, kSequenceDigits));
    if (name.ends_with(".idx")) indexes.push_back(name.substr(0, kSequenceDigits));
  }
  closedir(stream);
  std::sort(logs.begin(), logs.end());
  for (const std::string& index : indexes) {
    if (!std::binary_search(logs.begin(), logs.end(), index)) unlink((directory + "/" + index + ".idx").c_str());
  }
  return logs;
}

// The streams of a closed segment, from its index, or from itself when the index could not be written.
Result<StreamTable> streams_of(const std::string& path, std::uint64_t end) {
  auto indexed = read_index_streams(path + ".idx");
  if (indexed.ok()) return indexed;
  MAYFLY_ASSIGN(const UniqueFd fd, base::open_file(path + ".log", O_RDONLY));
  StreamTable streams;
  const auto walked = walk_segment(fd.get(), end, [&streams](const LogRecord& record, std::uint64_t) {
    add_to(streams, record);
    return true;
  });
  if (!walked.ok()) return walked.error();
  return streams;
}

// Collects what a query asks for, from its near end until it is full.
class Collector {
 public:
  explicit Collector(const LogQuery& query) : query_(query) {}

  [[nodiscard]] bool wants_stream(std::string_view stream) const {
    if (!stream.starts_with(query_.stream_prefix)) return false;
    return query_.streams.empty() || std::find(query_.streams.begin(), query_.streams.end(), stream) != query_.streams.end();
  }
  [[nodiscard]] bool any_stream_wanted(const StreamTable& streams) const {
    return std::any_of(streams.begin(), streams.end(), [this](const auto& each) { return wants_stream(each.first); });
  }
  [[nodiscard]] bool filters_streams() const { return !query_.streams.empty() || !query_.stream_prefix.empty(); }
  [[nodiscard]] bool full() const { return events_.size() >= query_.max || bytes_ >= query_.bytes_max; }

  // Reads one segment. Oldest first: segments come in order. Newest first: in the opposite order.
  Result<void> read(int fd, std::uint64_t end) {
    std::deque<LogEvent> found;
    std::uint64_t found_bytes = 0;
    const auto walked = walk_segment(fd, end, [&](const LogRecord& record, std::uint64_t) {
      if (record.sequence >= query_.before_sequence) return false;
      if (!matches(record)) return true;
      if (!query_.newest_first && is_over(found.size(), found_bytes, record)) {
        bytes_ = std::max(bytes_, query_.bytes_max);  // what comes next does not fit, though something smaller might
        return false;
      }
      found_bytes += record.message.size();
      found.push_back({.stream = std::string(record.stream),
                       .timestamp_ms = record.timestamp_ms,
                       .ingested_ms = record.ingested_ms,
                       .sequence = record.sequence,
                       .message = std::string(record.message)});
      while (query_.newest_first && found.size() > 1 &&
             (events_.size() + found.size() > query_.max || bytes_ + found_bytes > query_.bytes_max)) {
        found_bytes -= found.front().message.size();
        found.pop_front();
        was_trimmed_ = true;
      }
      return true;
    });
    if (!walked.ok()) return walked.error();
    if (query_.newest_first && !events_.empty() && !found.empty() &&
        (events_.size() + found.size() > query_.max || bytes_ + found_bytes > query_.bytes_max)) {
      found.clear();
      was_trimmed_ = true;
    }
    for (const LogEvent& event : found) bytes_ += event.message.size();
    const auto place = query_.newest_first ? events_.begin() : events_.end();
    events_.insert(place, std::make_move_iterator(found.begin()), std::make_move_iterator(found.end()));
    if (was_trimmed_) bytes_ = std::max(bytes_, query_.bytes_max);
    return {};
  }

  std::vector<LogEvent> take() { return {std::make_move_iterator(events_.begin()), std::make_move_iterator(events_.end())}; }

 private:
  [[nodiscard]] bool matches(const LogRecord& record) const {
    return record.sequence > query_.after_sequence && record.timestamp_ms >= query_.from_ms && record.timestamp_ms < query_.to_ms &&
           wants_stream(record.stream);
  }
  // At least one event is answered, however long.
  [[nodiscard]] bool is_over(std::size_t found, std::uint64_t found_bytes, const LogRecord& record) const {
    const std::size_t count = events_.size() + found;
    return count >= query_.max || (count > 0 && bytes_ + found_bytes + record.message.size() > query_.bytes_max);
  }

  const LogQuery& query_;
  std::deque<LogEvent> events_;
  std::uint64_t bytes_ = 0;
  bool was_trimmed_ = false;
};

}  // namespace

// --- Loading ---

bool LogGroup::is_loaded() const {
  const MutexLock lock(mutex_);
  return loaded_;
}

Result<void> LogGroup::load() {
  const MutexLock lock(mutex_);
  if (loaded_) return {};
  MAYFLY_ASSIGN(const std::vector<std::string> names, segment_names(directory_));
  segments_.clear();
  open_streams_.clear();
  for (const std::string& name : names)
    MAYFLY_TRY(load_segment(directory_ + "/" + name, name == names.back()).with_context(directory_ + "/" + name));
  loaded_ = true;
  return {};
}

Result<void> LogGroup::load_segment(const std::string& path, bool is_last) {
  Segment segment{.path = path};
  const auto summary = read_index_summary(path + ".idx");
  struct stat info{};
  if (summary.ok() && stat((path + ".log").c_str(), &info) == 0 && static_cast<std::uint64_t>(info.st_size) == summary->bytes) {
    segment.summary = *summary;
    segments_.push_back(std::move(segment));
    return {};
  }
  MAYFLY_TRY(scan_segment(segment));
  if (segment.summary.events == 0) {
    unlink((path + ".log").c_str());
    unlink((path + ".idx").c_str());
    return {};
  }
  segment.closed = false;
  segments_.push_back(std::move(segment));
  if (!is_last) close_segment_locked();
  return {};
}

Result<void> LogGroup::scan_segment(Segment& segment) {
  MAYFLY_ASSIGN(const UniqueFd fd, base::open_file(segment.path + ".log", O_RDWR));
  MAYFLY_ASSIGN(const std::uint64_t size, file_size(fd.get()));
  open_streams_.clear();
  MAYFLY_ASSIGN(const std::uint64_t good,
                walk_segment(fd.get(), size, [&](const LogRecord& record, std::uint64_t bytes) MAYFLY_REQUIRES(mutex_) {
                  segment.summary.add(record, bytes);
                  add_to(open_streams_, record);
                  return true;
                }));
  if (good == size || good == 0) return {};
  base::log_info("cut the torn end of a log segment", {{"segment", segment.path}, {"bytes", std::to_string(size - good)}});
  if (ftruncate(fd.get(), static_cast<off_t>(good)) != 0) return base::errno_error("cannot cut the torn end", errno);
  return {};
}

// --- Appending ---

Result<void> LogGroup::make_directory() {
  if (directory_made_) return {};
  if (mkdir(directory_.c_str(), 0700) != 0 && errno != EEXIST) return base::errno_error("cannot make " + directory_, errno);
  directory_made_ = true;
  return {};
}

// Microseconds since 1970 or one more than the last: numbers grow also over deletion of the group and loss of its end.
std::uint64_t LogGroup::next_sequence(std::int64_t now_ms) {
  return std::max(last_sequence_ + 1, static_cast<std::uint64_t>(std::max<std::int64_t>(now_ms, 0)) * 1000);
}

bool LogGroup::must_close(const PendingEvent& next) const {
  const MutexLock lock(mutex_);
  if (segments_.empty() || segments_.back().closed) return false;
  const SegmentSummary& summary = segments_.back().summary;
  if (summary.events == 0) return false;
  return summary.bytes >= limits_.bytes_max || next.ingested_ms - summary.first_ingested_ms > limits_.age_ms_max;
}

Result<void> LogGroup::open_segment(std::uint64_t first_sequence) {
  if (file_.valid()) return {};
  MAYFLY_TRY(make_directory());
  std::string path;
  {
    const MutexLock lock(mutex_);
    if (!segments_.empty() && !segments_.back().closed) path = segments_.back().path;
  }
  if (!path.empty()) {
    MAYFLY_ASSIGN(file_, base::open_file(path + ".log", O_WRONLY));
    return {};
  }
  path = directory_ + "/" + segment_name(first_sequence);
  auto made = base::open_file(path + ".log", O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (!made.ok() && made.error().code() == ErrorCode::kNotFound) directory_made_ = false;  // somebody removed it: made again next time
  if (!made.ok()) return std::move(made).error();
  const Result<void> headed = write_at(made->get(), segment_header(), 0);
  if (!headed.ok()) {
    unlink((path + ".log").c_str());
    return headed.error();
  }
  file_ = *std::move(made);
  names_dirty_ = true;
  const MutexLock lock(mutex_);
  open_streams_.clear();
  segments_.push_back({.path = path, .summary = {}, .closed = false});
  return {};
}

void LogGroup::close_segment() {
  if (file_.valid() && dirty_) closed_files_.push_back(std::move(file_));
  file_.reset();
  const MutexLock lock(mutex_);
  close_segment_locked();
}

void LogGroup::close_segment_locked() {
  if (segments_.empty() || segments_.back().closed) return;
  Segment& segment = segments_.back();
  const Result<void> written = write_index(segment.path + ".idx", segment.summary, open_streams_);
  if (!written.ok())
    base::log_debug("a log index was not written; the segment will be scanned",
                    {{"segment", segment.path}, {"cause", written.error().message()}});
  segment.closed = true;
  open_streams_.clear();
  closed_mark_ = true;
}

std::size_t LogGroup::append(std::span<const PendingEvent> events, Result<void>& failure) {
  failure = load();
  if (!failure.ok()) return 0;
  {
    const MutexLock lock(mutex_);
    if (!segments_.empty()) last_sequence_ = std::max(last_sequence_, segments_.back().summary.last_sequence);
  }
  std::size_t done = 0;
  while (done < events.size()) {
    if (must_close(events[done])) close_segment();
    std::uint64_t sequence = next_sequence(events[done].ingested_ms);
    failure = open_segment(sequence);
    if (!failure.ok()) return done;
    std::uint64_t offset = 0;
    {
      const MutexLock lock(mutex_);
      offset = segments_.back().summary.bytes;
    }
    buffer_.clear();
    std::vector<std::pair<LogRecord, std::uint64_t>> records;
    for (std::size_t i = done;
         i < events.size() && buffer_.size() < kWriteBytes && (records.empty() || offset + buffer_.size() < limits_.bytes_max); ++i) {
      const PendingEvent& event = events[i];
      const LogRecord record{.sequence = sequence,
                             .timestamp_ms = event.timestamp_ms,
                             .ingested_ms = event.ingested_ms,
                             .stream = std::string_view(event.stream).substr(0, kStreamNameBytesMax),
                             .message = event.message};
      records.emplace_back(record, encode_record(record, buffer_));
      last_sequence_ = sequence;
      sequence = next_sequence(event.ingested_ms);
    }
    failure = write_at(file_.get(), buffer_, offset);
    if (!failure.ok()) {
      if (ftruncate(file_.get(), static_cast<off_t>(offset)) != 0)
        file_.reset();  // the torn bytes are written over, or cut at the next start
      return done;
    }
    dirty_ = true;
    const MutexLock lock(mutex_);
    for (const auto& [record, bytes] : records) {
      segments_.back().summary.add(record, bytes);
      add_to(open_streams_, record);
    }
    done += records.size();
  }
  return done;
}

Result<void> LogGroup::sync() {
  const auto sync_all = [this]() -> Result<void> {
    for (const UniqueFd& file : closed_files_) {
      if (fdatasync(file.get()) != 0) return base::errno_error("cannot sync a log segment", errno);
    }
    if (file_.valid() && fdatasync(file_.get()) != 0) return base::errno_error("cannot sync a log segment", errno);
    if (!names_dirty_) return {};
    MAYFLY_TRY(base::sync_directory(directory_));
    return base::sync_directory(directory_ + "/..");
  };
  Result<void> done = sync_all();
  closed_files_.clear();
  dirty_ = names_dirty_ = false;
  if (!done.ok()) close_segment();
  return done;
}

// --- Limits ---

bool LogGroup::take_closed_mark() {
  const MutexLock lock(mutex_);
  return std::exchange(closed_mark_, false);
}

std::uint64_t LogGroup::bytes() const {
  const MutexLock lock(mutex_);
  std::uint64_t sum = 0;
  for (const Segment& segment : segments_) sum += segment.summary.bytes;
  return sum;
}

std::optional<std::int64_t> LogGroup::oldest_ms() const {
  const MutexLock lock(mutex_);
  if (segments_.empty() || segments_.front().summary.events == 0) return std::nullopt;
  return segments_.front().summary.last_ingested_ms;
}

void LogGroup::drop_front() {
  const Segment& segment = segments_.front();
  if (!segment.closed) {
    file_.reset();
    open_streams_.clear();
  }
  unlink((segment.path + ".log").c_str());
  unlink((segment.path + ".idx").c_str());
  segments_.erase(segments_.begin());
}

void LogGroup::drop_oldest() {
  const MutexLock lock(mutex_);
  if (!segments_.empty()) drop_front();
}

void LogGroup::enforce(std::int64_t oldest_ms, std::uint64_t bytes_max) {
  const MutexLock lock(mutex_);
  std::uint64_t sum = 0;
  for (const Segment& segment : segments_) sum += segment.summary.bytes;
  while (!segments_.empty() && (segments_.front().summary.last_ingested_ms < oldest_ms || (sum > bytes_max && segments_.size() > 1))) {
    if (segments_.front().summary.events == 0) return;  // just opened
    sum -= segments_.front().summary.bytes;
    drop_front();
  }
}

Result<void> LogGroup::delete_everything() {
  file_.reset();
  closed_files_.clear();
  dirty_ = names_dirty_ = directory_made_ = false;
  {
    const MutexLock lock(mutex_);
    segments_.clear();
    open_streams_.clear();
    loaded_ = true;
  }
  return base::remove_tree(directory_);
}

// --- Reading ---

std::vector<LogGroup::Segment> LogGroup::candidates(const LogQuery& query) {
  const MutexLock lock(mutex_);
  std::vector<Segment> found;
  const Collector collector(query);
  for (const Segment& segment : segments_) {
    const SegmentSummary& has = segment.summary;
    if (has.events == 0 || has.last_sequence <= query.after_sequence || has.first_sequence >= query.before_sequence) continue;
    if (has.last_ms < query.from_ms || has.first_ms >= query.to_ms) continue;
    if (!segment.closed && collector.filters_streams() && !collector.any_stream_wanted(open_streams_)) continue;
    found.push_back(segment);
  }
  return found;
}

Result<std::vector<LogEvent>> LogGroup::read(const LogQuery& query) {
  MAYFLY_TRY(load());
  std::vector<Segment> segments = candidates(query);
  if (query.newest_first) std::reverse(segments.begin(), segments.end());
  Collector collector(query);
  for (const Segment& segment : segments) {
    if (collector.full()) break;
    if (segment.closed && collector.filters_streams()) {
      const auto streams = read_index_streams(segment.path + ".idx");
      if (streams.ok() && !collector.any_stream_wanted(*streams)) continue;
    }
    const auto file = base::open_file(segment.path + ".log", O_RDONLY);
    if (!file.ok() && file.error().code() == ErrorCode::kNotFound) continue;  // its time came since we looked
    if (!file.ok()) return file.error();
    MAYFLY_TRY(collector.read(file->get(), segment.summary.bytes));
  }
  return collector.take();
}

Result<std::vector<LogStream>> LogGroup::streams() {
  MAYFLY_TRY(load());
  StreamTable all;
  std::vector<Segment> closed;
  {
    const MutexLock lock(mutex_);
    all = open_streams_;
    for (const Segment& segment : segments_) {
      if (segment.closed) closed.push_back(segment);
    }
  }
  for (const Segment& segment : closed) {
    const auto streams = streams_of(segment.path, segment.summary.bytes);
    if (!streams.ok() && streams.error().code() == ErrorCode::kNotFound) continue;  // its time came since we looked
    if (!streams.ok()) return streams.error();
    for (const auto& [name, stream] : *streams) merge_into(all, stream);
  }
  std::vector<LogStream> sorted;
  sorted.reserve(all.size());
  for (auto& [name, stream] : all) sorted.push_back(std::move(stream));
  return sorted;
}

}  // namespace mayfly::store
