// The /tmp of sandboxes. Disk-backed where loop devices work: a sparse ext4 image of the wanted size, cloned from a prototype,
// deleted as soon as it is open, so that whatever happens nothing stays behind. Else a tmpfs, whose pages count as memory.
// Mounting and unmounting take milliseconds, so two helper processes do it, several at a time each: one makes, one discards. A disk-backed
// one into which nothing was ever put is not discarded but kept for another sandbox; nobody can tell it from a new one. Used by the
// launcher only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace mayfly::sandbox::internal {

struct ScratchOptions {
  std::string directory;   // for images
  bool privileged = true;  // loop devices take root
};

// One /tmp.
struct ScratchMount {
  base::UniqueFd mount;      // detached, to be moved into the sandbox
  base::UniqueFd directory;  // its root directory; keeps the file system alive until discard()
  base::UniqueFd image;      // the file behind it; invalid without disk
  std::string device;        // "/dev/loop7"; empty without disk
  std::uint64_t bytes = 0;   // the size asked for
  bool disk = false;
};

class Scratch {
 public:
  // Forks the helpers; call it in the mount namespace whose children will use the mounts.
  [[nodiscard]] static base::Result<std::unique_ptr<Scratch>> create(ScratchOptions options);
  // Waits until the helpers have discarded what they were given, and ended.
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // A file system with at least `bytes` free, its root belonging to user and group alone. Takes one that is kept or ready, or waits.
  [[nodiscard]] base::Result<ScratchMount> make(std::uint64_t bytes, std::uint32_t user, std::uint32_t group);
  // Everything using the mount is gone. Keeps what was never used, at most kKeptMost; else drops what the sandbox wrote instead of
  // writing it to disk first. Does not wait.
  void discard(ScratchMount& mount);
  // Lets go of kept ones that nobody needed for ten seconds, a few at a time: to be called every second or so while there are any.
  void let_go_of_kept();
  // How many are kept.
  [[nodiscard]] std::size_t kept() const;
  static constexpr std::size_t kKeptMost = 128;
  // Asks for mounted images so that `count` of this size are there or on their way, as far as the helper makes that many at a time: the
  // next make() need not wait. Does not wait.
  void prepare(std::uint64_t bytes, std::size_t count);
  // Readable when collect() has something to take in; -1 without helpers.
  [[nodiscard]] int fd() const;
  // False when a helper has ended: nothing can be made or discarded any more.
  [[nodiscard]] bool collect();

  [[nodiscard]] bool disk() const;
  [[nodiscard]] const std::string& why_not_disk() const;

 private:
  struct Impl;
  explicit Scratch(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mayfly::sandbox::internal
