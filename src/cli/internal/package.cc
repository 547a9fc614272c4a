#include "cli/internal/package.h"

#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "base/fd.h"

namespace mayfly::cli {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::uint64_t kZipBytesMax = 52'428'800;  // Lambda's limit for direct uploads

const std::vector<std::string>& usual_excludes() {
  static const std::vector<std::string> globs = {".git/**",    ".gitignore",        "mayfly.yaml",    "mayfly.yml",
                                                 "event.json", "**/__pycache__/**", "__pycache__/**", "**/*.pyc",
                                                 "*.pyc",      "mayfly-data/**",    ".DS_Store"};
  return globs;
}

bool matches_any(const std::vector<std::string>& globs, const std::string& path) {
  return std::any_of(globs.begin(), globs.end(), [&](const std::string& glob) { return glob_matches(glob, path); });
}

struct File {
  std::string name;
  std::string path;
  bool executable;
};

Result<std::vector<File>> collect(const std::string& folder, const PackageRules& rules) {
  std::vector<File> files;
  std::error_code ec;
  fs::recursive_directory_iterator it(folder, ec);
  if (ec) return base::errno_error("cannot read folder " + folder, ec.value());
  for (const fs::recursive_directory_iterator end; it != end; it.increment(ec)) {
    if (ec) return base::errno_error("cannot read folder " + folder, ec.value());
    const std::string name = fs::relative(it->path(), folder, ec).generic_string();
    if (it->is_directory(ec)) {
      if (matches_any(usual_excludes(), name + "/x") || matches_any(rules.exclude, name + "/x")) it.disable_recursion_pending();
      continue;
    }
    if (matches_any(usual_excludes(), name) || matches_any(rules.exclude, name)) continue;
    if (!rules.include.empty() && !matches_any(rules.include, name)) continue;
    if (!it->is_regular_file(ec)) continue;  // sockets, devices, dangling links
    files.push_back({name, it->path().string(), (it->status(ec).permissions() & fs::perms::owner_exec) != fs::perms::none});
  }
  std::sort(files.begin(), files.end(), [](const File& a, const File& b) { return a.name < b.name; });
  return files;
}

la_ssize_t append_to_string(archive*, void* out, const void* bytes, std::size_t size) {
  static_cast<std::string*>(out)->append(static_cast<const char*>(bytes), size);
  return static_cast<la_ssize_t>(size);
}

Result<std::string> write_zip(const std::vector<File>& files) {
  std::string zip;
  const std::unique_ptr<archive, decltype(&archive_write_free)> writer(archive_write_new(), &archive_write_free);
  archive_write_set_format_zip(writer.get());
  archive_write_set_bytes_in_last_block(writer.get(), 1);
  const auto failed = [&] {
    return Error(ErrorCode::kInternal, std::string("cannot make the package: ") + archive_error_string(writer.get()));
  };
  if (archive_write_open(writer.get(), &zip, nullptr, append_to_string, nullptr) != ARCHIVE_OK) return failed();
  for (const File& file : files) {
    MAYFLY_ASSIGN(const std::string bytes, base::read_file(file.path, 262'144'000));
    const std::unique_ptr<archive_entry, decltype(&archive_entry_free)> entry(archive_entry_new(), &archive_entry_free);
    archive_entry_set_pathname(entry.get(), file.name.c_str());
    archive_entry_set_filetype(entry.get(), S_IFREG);
    archive_entry_set_perm(entry.get(), file.executable ? 0755 : 0644);
    archive_entry_set_size(entry.get(), static_cast<la_int64_t>(bytes.size()));
    archive_entry_set_mtime(entry.get(), 315'532'800, 0);  // 1980-01-01, so that equal folders make equal packages
    if (archive_write_header(writer.get(), entry.get()) != ARCHIVE_OK) return failed();
    if (archive_write_data(writer.get(), bytes.data(), bytes.size()) != static_cast<la_ssize_t>(bytes.size())) return failed();
  }
  if (archive_write_close(writer.get()) != ARCHIVE_OK) return failed();
  return zip;
}

bool glob_here(const char* pattern, const char* path) {
  while (*pattern != '\0') {
    if (pattern[0] == '*' && pattern[1] == '*') {
      pattern += 2;
      if (*pattern == '/') ++pattern;
      for (const char* rest = path;; ++rest) {
        if (glob_here(pattern, rest)) return true;
        if (*rest == '\0') return false;
      }
    }
    if (*pattern == '*') {
      ++pattern;
      for (const char* rest = path;; ++rest) {
        if (glob_here(pattern, rest)) return true;
        if (*rest == '\0' || *rest == '/') return false;
      }
    }
    if (*path == '\0' || (*pattern != '?' && *pattern != *path) || (*pattern == '?' && *path == '/')) return false;
    ++pattern;
    ++path;
  }
  return *path == '\0';
}

}  // namespace

bool glob_matches(const std::string& pattern, const std::string& path) { return glob_here(pattern.c_str(), path.c_str()); }

Result<Package> make_package(const std::string& path, const PackageRules& rules) {
  std::error_code ec;
  const fs::file_status status = fs::status(path, ec);
  if (!fs::exists(status)) return Error(ErrorCode::kNotFound, "there is no file or folder " + path);
  Package package;
  if (fs::is_directory(status)) {
    MAYFLY_ASSIGN(const std::vector<File> files, collect(path, rules));
    if (files.empty()) return Error(ErrorCode::kInvalidArgument, "folder " + path + " holds no file to deploy");
    package.files = files.size();
    MAYFLY_ASSIGN(package.zip, write_zip(files));
  } else if (path.ends_with(".zip")) {
    MAYFLY_ASSIGN(package.zip, base::read_file(path, 1ULL << 30U));
    package.files = 1;
  } else {
    const bool executable = (status.permissions() & fs::perms::owner_exec) != fs::perms::none;
    package.files = 1;
    MAYFLY_ASSIGN(package.zip, write_zip({{fs::path(path).filename().string(), path, executable}}));
  }
  if (package.zip.size() > kZipBytesMax) {
    return Error(ErrorCode::kTooLarge,
                 "the package has " + std::to_string(package.zip.size()) +
                     " bytes; Lambda takes 52428800 (50 MB) at most. Exclude what the function does not need (exclude: in mayfly.yaml)");
  }
  return package;
}

}  // namespace mayfly::cli
