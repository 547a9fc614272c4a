// Blobs: immutable bytes named by their SHA-256, in a directory; a blob exists whole and synced or not at all.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace mayfly::store {

class Blobs {
 public:
  virtual ~Blobs() = default;
  // Stores `bytes` and returns the 64 hex digits that name them; storing the same bytes again is cheap. Durable on return.
  // `meanwhile` gets them open for reading, once, while the disk still works: what it makes of them must go if put() fails.
  using Meanwhile = std::function<void(base::UniqueFd bytes)>;
  [[nodiscard]] virtual base::Result<std::string> put(std::string_view bytes, const Meanwhile& meanwhile = {}) = 0;
  // Opened for reading. kNotFound; kDataLoss when `verify` and the bytes do not have the digest they are named by.
  [[nodiscard]] virtual base::Result<base::UniqueFd> open(const std::string& id, bool verify) const = 0;
  [[nodiscard]] virtual base::Result<void> remove(const std::string& id) = 0;
  [[nodiscard]] virtual base::Result<std::vector<std::string>> list() const = 0;
};

// Blobs beneath `directory` (made if absent); half-written ones of a former run are deleted. Any thread.
[[nodiscard]] base::Result<std::unique_ptr<Blobs>> open_directory_blobs(const std::string& directory);

}  // namespace mayfly::store
