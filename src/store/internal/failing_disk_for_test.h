// SQLite on a disk that fails when a test says so.
#pragma once

#include <cstdint>

namespace mayfly::store {

// A disk that fails on command: SQLite's default VFS with a countdown on writes or syncs. After the failure everything works
// again, as a real disk may; the point is that nobody relies on it. One at a time; its state is the program's.
class FailingDisk {
 public:
  enum class Kind : std::uint8_t { kWrite, kSync, kFull };

  FailingDisk();
  ~FailingDisk();
  FailingDisk(const FailingDisk&) = delete;
  FailingDisk& operator=(const FailingDisk&) = delete;
  // The `nth` operation of the kind from now on fails (1 is the next).
  static void arm(Kind kind, int nth);
  static void disarm();
  static bool struck();
};

}  // namespace mayfly::store
