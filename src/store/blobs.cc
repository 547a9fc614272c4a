#include "store/blobs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <utility>

#include "base/bytes.h"

namespace mayfly::store {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
using base::UniqueFd;

constexpr std::size_t kIdLength = 64;
constexpr std::string_view kTemporaryMark = ".tmp-";  // base::write_file_durably's

bool is_hex(std::string_view text) { return text.find_first_not_of("0123456789abcdef") == std::string_view::npos; }
bool is_id(std::string_view text) { return text.size() == kIdLength && is_hex(text); }

// Calls `each` with every name in `directory` but "." and ".."; a missing directory has none.
Result<void> for_each_name(const std::string& directory, const std::function<Result<void>(const std::string&)>& each) {
  DIR* stream = opendir(directory.c_str());
  if (stream == nullptr) {
    if (errno == ENOENT) return {};
    return base::errno_error("cannot list " + directory, errno);
  }
  const std::unique_ptr<DIR, int (*)(DIR*)> closer(stream, &closedir);
  while (const dirent* entry = readdir(stream)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") MAYFLY_TRY(each(name));
  }
  return {};
}

class DirectoryBlobs final : public Blobs {
 public:
  explicit DirectoryBlobs(std::string directory) : directory_(std::move(directory)) {}

  // Temporary files are those of a former run: this one is not in use yet.
  Result<void> remove_half_written() const {
    return for_each_shard([&](const std::string& shard) {
      return for_each_name(shard, [&](const std::string& name) -> Result<void> {
        if (name.find(kTemporaryMark) == std::string::npos) return {};
        const std::string path = shard + "/" + name;
        if (unlink(path.c_str()) != 0) return base::errno_error("cannot remove the half-written " + path, errno);
        return {};
      });
    });
  }

  Result<std::string> put(std::string_view bytes, const Meanwhile& meanwhile) override {
    const std::string id = base::hex_encode(base::sha256(bytes));
    const auto show = [&](UniqueFd readable) {
      if (meanwhile) meanwhile(std::move(readable));
    };
    if (is_stored(id, bytes.size())) {
      if (auto there = open(id, true); there.ok()) {
        show(std::move(there).value());
        return id;
      }  // a damaged one is written anew
    }
    const std::string shard = shard_of(id);
    const bool new_shard = mkdir(shard.c_str(), 0700) == 0;
    if (!new_shard && errno != EEXIST) return base::errno_error("cannot make " + shard, errno);
    const auto written = [&](const std::string& temporary) {
      if (auto readable = base::open_file(temporary, O_RDONLY); readable.ok()) show(std::move(readable).value());
    };
    MAYFLY_TRY(base::write_file_durably(path_of(id), bytes, 0600, written)
                   .with_context("cannot store " + std::to_string(bytes.size()) + " bytes of code"));
    // Afterwards: by then most file systems have written it along with the file, and this costs nothing.
    if (new_shard) MAYFLY_TRY(base::sync_directory(directory_));
    return id;
  }

  Result<UniqueFd> open(const std::string& id, bool verify) const override {
    if (!is_id(id)) return Error(ErrorCode::kInvalidArgument, "\"" + id + "\" is not the name of a blob (64 hexadecimal digits)");
    auto fd = base::open_file(path_of(id), O_RDONLY);
    if (!fd.ok() && fd.error().code() == ErrorCode::kNotFound)
      return Error(ErrorCode::kNotFound, "there is no blob " + id + " in " + directory_);
    if (fd.ok() && verify) MAYFLY_TRY(verify_bytes(fd->get(), id));
    return fd;
  }

  Result<void> remove(const std::string& id) override {
    if (!is_id(id)) return Error(ErrorCode::kInvalidArgument, "\"" + id + "\" is not the name of a blob (64 hexadecimal digits)");
    if (unlink(path_of(id).c_str()) != 0 && errno != ENOENT) return base::errno_error("cannot remove blob " + id, errno);
    return {};
  }

  Result<std::vector<std::string>> list() const override {
    std::vector<std::string> ids;
    MAYFLY_TRY(for_each_shard([&](const std::string& shard) {
      return for_each_name(shard, [&](const std::string& name) -> Result<void> {
        if (is_id(name)) ids.push_back(name);
        return {};
      });
    }));
    std::sort(ids.begin(), ids.end());
    return ids;
  }

 private:
  std::string shard_of(const std::string& id) const { return directory_ + "/" + id.substr(0, 2); }
  std::string path_of(const std::string& id) const { return shard_of(id) + "/" + id; }

  bool is_stored(const std::string& id, std::size_t size) const {
    struct stat info{};
    return stat(path_of(id).c_str(), &info) == 0 && static_cast<std::size_t>(info.st_size) == size;
  }

  Result<void> for_each_shard(const std::function<Result<void>(const std::string&)>& each) const {
    return for_each_name(directory_, [&](const std::string& name) -> Result<void> {
      if (name.size() != 2 || !is_hex(name)) return {};
      return each(directory_ + "/" + name);
    });
  }

  static Result<void> verify_bytes(int fd, const std::string& id) {
    base::Sha256 hash;
    std::array<char, 65536> buffer;  // NOLINT: filled by read
    while (true) {
      const ssize_t got = read(fd, buffer.data(), buffer.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return base::errno_error("cannot read blob " + id, errno);
      if (got == 0) break;
      hash.update({buffer.data(), static_cast<std::size_t>(got)});
    }
    if (base::hex_encode(hash.finish()) != id)
      return Error(ErrorCode::kDataLoss, "blob " + id + " is damaged: its bytes have another digest; deploy the function again");
    if (lseek(fd, 0, SEEK_SET) != 0) return base::errno_error("cannot rewind blob " + id, errno);
    return {};
  }

  const std::string directory_;
};

}  // namespace

Result<std::unique_ptr<Blobs>> open_directory_blobs(const std::string& directory) {
  MAYFLY_TRY(base::make_directories(directory));
  auto blobs = std::make_unique<DirectoryBlobs>(directory);
  MAYFLY_TRY(blobs->remove_half_written());
  return std::unique_ptr<Blobs>(std::move(blobs));
}

}  // namespace mayfly::store
