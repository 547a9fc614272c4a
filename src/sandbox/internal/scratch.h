// The /tmp of sandboxes. Disk-backed where loop devices work: a sparse ext4 image of the wanted size, cloned from a prototype,
// deleted as soon as it is open, so that whatever happens nothing stays behind. Else a tmpfs, whose pages count as memory.
// Used by the launcher only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace mayfly::sandbox::internal {

struct ScratchOptions {
  std::string directory;    // for images
  bool privileged = true;   // loop devices take root
};

// One /tmp.
struct ScratchMount {
  base::UniqueFd mount;      // detached, to be moved into the sandbox
  base::UniqueFd directory;  // its root directory; keeps the file system alive until discard()
  bool disk = false;
};

class Scratch {
 public:
  [[nodiscard]] static base::Result<std::unique_ptr<Scratch>> create(ScratchOptions options);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // A file system with at least `bytes` free, its root belonging to user and group alone.
  [[nodiscard]] base::Result<ScratchMount> make(std::uint64_t bytes, std::uint32_t user, std::uint32_t group);
  // Drops what the sandbox wrote instead of writing it to disk first; everything using the mount must be gone.
  static void discard(ScratchMount& mount);
  // Makes one mounted image of the size used last, so that the next make() need not wait. Cheap when there is one already.
  void prepare();

  [[nodiscard]] bool disk() const;
  [[nodiscard]] const std::string& why_not_disk() const;

 private:
  struct Impl;
  explicit Scratch(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mayfly::sandbox::internal
