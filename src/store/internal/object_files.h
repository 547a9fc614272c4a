// The files that hold the bytes of objects: where they are, which of them somebody holds, and their removal when nobody does.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "store/objects.h"

namespace mayfly::store {

// A file is named by 32 random hexadecimal digits and lies in a folder of the first two; while it is written, in "incoming".
// Any thread may call.
class ObjectFiles {
 public:
  ObjectFiles(std::string directory, FreeBytes free_bytes) : directory_(std::move(directory)), free_bytes_(std::move(free_bytes)) {}

  // Makes the folders and removes what a former run left in "incoming".
  [[nodiscard]] base::Result<void> prepare();
  [[nodiscard]] std::string incoming_path(const std::string& name) const { return directory_ + "/incoming/" + name; }
  [[nodiscard]] std::string path(const std::string& name) const { return directory_ + "/" + name.substr(0, 2) + "/" + name; }
  // From "incoming" to its place, durably.
  [[nodiscard]] base::Result<void> settle(const std::string& name);

  // kResourceExhausted when the disk has less free than the reserve: no row may be added then.
  [[nodiscard]] base::Result<void> check_room() const;
  // Promises a file the next `bytes` that it will take. kResourceExhausted when the disk would be left with less than the reserve
  // after all that is promised and the `ahead` bytes that the file is to take in all.
  [[nodiscard]] base::Result<void> promise(std::uint64_t bytes, std::uint64_t ahead);
  void fulfil(std::uint64_t bytes);

  // A file that is held outlives its last name.
  void hold(const std::string& name);
  void release(const std::string& name);
  [[nodiscard]] bool is_held(const std::string& name) const;
  // Nobody names it any more: it goes with the next collect(), or after its last release.
  void drop(const std::string& name);
  // Unlinks what was dropped. Blocking.
  void collect();

  // Calls `each` for every folder with the names of the files in it.
  [[nodiscard]] base::Result<void> for_each_folder(
      const std::function<base::Result<void>(const std::string& folder, std::vector<std::string> names)>& each) const;

 private:
  [[nodiscard]] base::Result<std::uint64_t> free_bytes() const;
  [[nodiscard]] base::Result<void> check_room(std::uint64_t bytes) const;

  const std::string directory_;
  const FreeBytes free_bytes_;
  mutable base::Mutex mutex_;
  std::unordered_map<std::string, int> held_ MAYFLY_GUARDED_BY(mutex_);
  std::unordered_set<std::string> dropped_while_held_ MAYFLY_GUARDED_BY(mutex_);
  std::vector<std::string> dropped_ MAYFLY_GUARDED_BY(mutex_);
  std::uint64_t promised_ MAYFLY_GUARDED_BY(mutex_) = 0;
};

}  // namespace mayfly::store
