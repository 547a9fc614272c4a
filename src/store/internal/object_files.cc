#include "store/internal/object_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>

#include "base/fd.h"
#include "base/log.h"
#include "store/objects.h"

namespace mayfly::store {
namespace {

using base::MutexLock;
using base::Result;

constexpr std::size_t kNameLength = 32;
constexpr std::uint64_t kFlushBytes = 16ULL << 20U;  // written out while more comes in, so that the sync at the end is short

bool is_hex(std::string_view text) { return text.find_first_not_of("0123456789abcdef") == std::string_view::npos; }

Result<std::vector<std::string>> names_in(const std::string& directory) {
  std::vector<std::string> names;
  DIR* stream = opendir(directory.c_str());
  if (stream == nullptr) return base::errno_error("cannot list " + directory, errno);
  const std::unique_ptr<DIR, int (*)(DIR*)> closer(stream, &closedir);
  while (const dirent* entry = readdir(stream)) {
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(std::move(name));
  }
  return names;
}

}  // namespace

Result<void> ObjectFiles::prepare() {
  MAYFLY_TRY(base::make_directories(directory_ + "/incoming"));
  MAYFLY_ASSIGN(const auto half_written, names_in(directory_ + "/incoming"));
  for (const std::string& name : half_written) {
    if (unlink(incoming_path(name).c_str()) != 0) return base::errno_error("cannot remove the half-written " + incoming_path(name), errno);
  }
  return {};
}

Result<void> ObjectFiles::settle(const std::string& name) {
  const std::string folder = directory_ + "/" + name.substr(0, 2);
  if (mkdir(folder.c_str(), 0700) == 0) {
    MAYFLY_TRY(base::sync_directory(directory_));
  } else if (errno != EEXIST) {
    return base::errno_error("cannot make " + folder, errno);
  }
  if (rename(incoming_path(name).c_str(), path(name).c_str()) != 0) return base::errno_error("cannot name " + path(name), errno);
  return base::sync_directory(folder);
}

Result<std::uint64_t> ObjectFiles::free_bytes() const {
  if (free_bytes_) return free_bytes_();
  struct statvfs disk{};
  if (statvfs(directory_.c_str(), &disk) != 0) return base::errno_error("cannot ask for the free space of " + directory_, errno);
  return static_cast<std::uint64_t>(disk.f_bavail) * disk.f_frsize;
}

Result<void> ObjectFiles::check_room(std::uint64_t bytes) const {
  MAYFLY_ASSIGN(const std::uint64_t free, free_bytes());
  if (free >= Objects::kReserveBytes && free - Objects::kReserveBytes >= bytes) return {};
  return base::Error(base::ErrorCode::kResourceExhausted, "the disk has " + std::to_string(free >> 20U) +
                                                              " MB left, too little to take more; free some disk space and try again");
}

Result<void> ObjectFiles::check_room() const { return check_room(0); }

Result<void> ObjectFiles::promise(std::uint64_t bytes, std::uint64_t ahead) {
  const MutexLock lock(mutex_);
  MAYFLY_TRY(check_room(promised_ + ahead));
  promised_ += bytes;
  return {};
}
void ObjectFiles::fulfil(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  promised_ -= bytes;
}

void ObjectFiles::hold(const std::string& name) {
  const MutexLock lock(mutex_);
  ++held_[name];
}

void ObjectFiles::release(const std::string& name) {
  const MutexLock lock(mutex_);
  const auto found = held_.find(name);
  if (found == held_.end() || --found->second > 0) return;
  held_.erase(found);
  if (dropped_while_held_.erase(name) > 0) dropped_.push_back(name);
}

bool ObjectFiles::is_held(const std::string& name) const {
  const MutexLock lock(mutex_);
  return held_.contains(name);
}

void ObjectFiles::drop(const std::string& name) {
  const MutexLock lock(mutex_);
  if (held_.contains(name)) {
    dropped_while_held_.insert(name);
  } else {
    dropped_.push_back(name);
  }
}

void ObjectFiles::collect() {
  std::vector<std::string> dropped;
  {
    const MutexLock lock(mutex_);
    dropped.swap(dropped_);
  }
  for (const std::string& name : dropped) {
    // What cannot be removed now is found by the next sweep.
    if (unlink(path(name).c_str()) != 0 && errno != ENOENT)
      base::log_warning("the bytes of a deleted object cannot be removed",
                        {{"file", path(name)}, {"cause", base::errno_error("unlink", errno).message()}});
  }
}

Result<void> ObjectFiles::for_each_folder(
    const std::function<Result<void>(const std::string& folder, std::vector<std::string> names)>& each) const {
  MAYFLY_ASSIGN(std::vector<std::string> folders, names_in(directory_));
  std::erase_if(folders, [](const std::string& name) { return name.size() != 2 || !is_hex(name); });
  for (const std::string& folder : folders) {
    MAYFLY_ASSIGN(std::vector<std::string> names, names_in(directory_ + "/" + folder));
    std::erase_if(names, [](const std::string& name) { return name.size() != kNameLength || !is_hex(name); });
    MAYFLY_TRY(each(folder, std::move(names)));
  }
  return {};
}

IncomingFile::IncomingFile(std::shared_ptr<ObjectFiles> files, std::string name, base::UniqueFd fd, std::uint64_t expected)
    : files_(std::move(files)),
      name_(std::move(name)),
      fd_(std::move(fd)),
      expected_(expected),
      promised_(std::min(expected, Objects::kPromiseBytes)) {
  files_->hold(name_);
}

IncomingFile::~IncomingFile() {
  files_->fulfil(promised_);
  files_->release(name_);  // a file that a put named goes on; one that none did was dropped by it, or is still incoming
  if (sealed_) {
    files_->collect();
  } else {
    unlink(files_->incoming_path(name_).c_str());
  }
}

Result<void> IncomingFile::append(std::string_view bytes) {
  MAYFLY_TRY(promise(bytes.size()));
  MAYFLY_TRY(base::write_all(fd_.get(), bytes).with_context("cannot store an object"));
  expected_ -= std::min<std::uint64_t>(expected_, bytes.size());
  const std::uint64_t kept = std::min<std::uint64_t>(promised_, bytes.size());
  promised_ -= kept;
  files_->fulfil(kept);
  size_ += bytes.size();
  if (size_ - flushed_ >= kFlushBytes) {
    (void)sync_file_range(fd_.get(), static_cast<off_t>(flushed_), static_cast<off_t>(size_ - flushed_), SYNC_FILE_RANGE_WRITE);
    flushed_ = size_;
  }
  return {};
}

// Moves the window of what is promised on when the next `bytes` are not in it.
Result<void> IncomingFile::promise(std::uint64_t bytes) {
  if (bytes <= promised_) return {};
  const std::uint64_t more = std::max(bytes, std::min(expected_, Objects::kPromiseBytes)) - promised_;
  MAYFLY_TRY(files_->promise(more, more).with_context("cannot store an object"));
  promised_ += more;
  return {};
}

Result<void> IncomingFile::seal() {
  if (sealed_) return {};
  if (fsync(fd_.get()) != 0) return base::errno_error("cannot store an object: fsync", errno);
  MAYFLY_TRY(files_->settle(name_).with_context("cannot store an object"));
  sealed_ = true;
  fd_.reset();
  return {};
}

ObjectReader::ObjectReader(std::shared_ptr<ObjectFiles> files, ObjectRow row, std::vector<Piece> pieces)
    : files_(std::move(files)), row_(std::move(row)), pieces_(std::move(pieces)) {
  for (const Piece& piece : pieces_) files_->hold(piece.file);
}

ObjectReader::~ObjectReader() {
  for (const Piece& piece : pieces_) files_->release(piece.file);
}

Result<std::string> ObjectReader::read(std::uint64_t offset, std::size_t length) {
  std::size_t at = 0;
  while (at < pieces_.size() && offset >= pieces_[at].size) offset -= pieces_[at++].size;
  if (at == pieces_.size()) return std::string();
  const Piece& piece = pieces_[at];
  const base::Error damaged(base::ErrorCode::kDataLoss,
                            "the bytes of the object \"" + row_.key + "\" are gone or damaged (" + files_->path(piece.file) + ")");
  if (!fd_ || open_ != at) {
    auto opened = base::open_file(files_->path(piece.file), O_RDONLY);
    if (!opened.ok() && opened.error().code() == base::ErrorCode::kNotFound) return damaged;
    if (!opened.ok()) return std::move(opened).error();
    fd_ = *std::move(opened);
    open_ = at;
  }
  std::string bytes(static_cast<std::size_t>(std::min<std::uint64_t>(length, piece.size - offset)), '\0');
  std::size_t got = 0;
  while (got < bytes.size()) {
    const ssize_t count = pread(fd_.get(), bytes.data() + got, bytes.size() - got, static_cast<off_t>(offset + got));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return base::errno_error("cannot read " + files_->path(piece.file), errno);
    if (count == 0) return damaged;
    got += static_cast<std::size_t>(count);
  }
  return bytes;
}

}  // namespace mayfly::store
