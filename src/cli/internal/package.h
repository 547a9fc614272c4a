// A folder (or one file) as a Lambda deployment package: a zip whose bytes depend only on names, contents and modes.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace mayfly::cli {

struct PackageRules {
  std::vector<std::string> include;  // globs; empty means everything
  std::vector<std::string> exclude;  // globs, beside the usual (.git, mayfly.yaml, event.json, __pycache__, .gitignore, mayfly-data)
};

struct Package {
  std::string zip;
  std::size_t files = 0;
};

// `path` is a folder, a .zip (taken as it is) or a single file (packed under its own name). Links are followed when they
// stay inside the folder. kNotFound, kTooLarge above Lambda's 50 MB, kInvalidArgument for an empty package.
[[nodiscard]] base::Result<Package> make_package(const std::string& path, const PackageRules& rules);

// '*' within a path component, '**' across them, '?' one character.
[[nodiscard]] bool glob_matches(const std::string& pattern, const std::string& path);

}  // namespace mayfly::cli
