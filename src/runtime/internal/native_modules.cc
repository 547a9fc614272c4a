#include "runtime/internal/native_modules.h"

#include <charconv>
#include <filesystem>

#include "base/fd.h"

namespace mayfly::runtime {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kEntriesMax = 50'000;
constexpr std::uint64_t kModuleBytesMax = 64ULL << 20U;

bool is_node_api(const std::string& path) {
  const auto bytes = base::read_file(path, kModuleBytesMax);
  return bytes.ok() &&
         (bytes->find("napi_register_module_v1") != std::string::npos || bytes->find("napi_module_register") != std::string::npos);
}

}  // namespace

int python_minor_of(const std::string& file_name) {
  constexpr std::string_view kTag = ".cpython-3";
  const std::size_t tag = file_name.find(kTag);
  if (tag == std::string::npos || !file_name.ends_with(".so")) return 0;
  const char* begin = file_name.data() + tag + kTag.size();
  int minor = 0;
  const auto [end, problem] = std::from_chars(begin, file_name.data() + file_name.size(), minor);
  return problem == std::errc{} && end != begin ? minor : 0;
}

NativeModules find_native_modules(const std::string& directory) {
  NativeModules found;
  std::error_code error;
  std::size_t seen = 0;
  fs::recursive_directory_iterator it(directory, fs::directory_options::skip_permission_denied, error);
  for (; !error && it != fs::recursive_directory_iterator() && seen < kEntriesMax; it.increment(error), ++seen) {
    // Links are not followed: what one points to may be a device that blocks, or the same large file thousands of times.
    if (it->symlink_status(error).type() != fs::file_type::regular) {
      error.clear();
      continue;
    }
    const std::string name = it->path().filename().string();
    if (const int minor = python_minor_of(name); minor != 0) {
      found.python_minors.insert(minor);
      found.python_example = fs::path(it->path()).lexically_relative(directory).string();
    } else if (name.ends_with(".node") && found.node_example.empty() && !is_node_api(it->path().string())) {
      found.node_example = fs::path(it->path()).lexically_relative(directory).string();
    }
  }
  return found;
}

}  // namespace mayfly::runtime
