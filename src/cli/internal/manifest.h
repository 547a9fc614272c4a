// mayfly.yaml: what a folder deploys.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace mayfly::cli {

struct Manifest {
  std::string name;
  std::string runtime;
  std::string handler;
  std::string description;
  std::string role;
  std::optional<std::uint32_t> memory_mb, timeout_s, ephemeral_mb;
  std::string code = ".";          // folder or file, relative to the manifest
  std::vector<std::string> build;  // shell commands run in the folder first
  std::string artifact;            // what they make, packaged instead of `code`
  std::map<std::string, std::string> environment;
  std::vector<std::string> include, exclude;
};

// kNotFound when `folder` has no mayfly.yaml; kInvalidArgument names line and key. At most 1 MiB; aliases are refused.
[[nodiscard]] base::Result<Manifest> read_manifest(const std::string& folder);

}  // namespace mayfly::cli
