// SQLite on a disk that fails when a test says so.
#pragma once

#include <sqlite3.h>

#include <array>

namespace mayfly::store {

// A disk that fails on command: SQLite's default VFS with a countdown on writes or syncs. After the failure everything works
// again, as a real disk may; the point is that nobody relies on it.
class FailingDisk {
 public:
  enum class Kind { kWrite, kSync, kFull };

  FailingDisk() {
    real_ = sqlite3_vfs_find(nullptr);
    vfs_ = *real_;
    vfs_.zName = "failing";
    vfs_.xOpen = &open;
    sqlite3_vfs_register(&vfs_, 1);
  }
  ~FailingDisk() {
    sqlite3_vfs_register(real_, 1);
    sqlite3_vfs_unregister(&vfs_);
  }
  // The `nth` operation of the kind from now on fails (1 is the next).
  static void arm(Kind kind, int nth) {
    kind_ = kind;
    left_ = nth;
    struck_ = false;
  }
  static void disarm() { left_ = 0; }
  static bool struck() { return struck_; }

 private:
  static bool strikes(bool is_sync) {
    if (left_ == 0 || is_sync != (kind_ == Kind::kSync)) return false;
    if (--left_ > 0) return false;
    struck_ = true;
    return true;
  }
  // SQLite has one table of methods for the database, which locks, and another for everything else.
  struct Methods {
    const sqlite3_io_methods* real;
    sqlite3_io_methods failing;
  };
  static const sqlite3_io_methods* real_of(sqlite3_file* file) {
    return file->pMethods == &methods_[0].failing ? methods_[0].real : methods_[1].real;
  }
  static int write(sqlite3_file* file, const void* bytes, int size, sqlite3_int64 offset) {
    if (strikes(false)) return kind_ == Kind::kFull ? SQLITE_FULL : SQLITE_IOERR_WRITE;
    return real_of(file)->xWrite(file, bytes, size, offset);
  }
  static int sync(sqlite3_file* file, int flags) {
    if (strikes(true)) return SQLITE_IOERR_FSYNC;
    return real_of(file)->xSync(file, flags);
  }
  static int open(sqlite3_vfs*, const char* name, sqlite3_file* file, int flags, int* out) {
    const int code = real_->xOpen(real_, name, file, flags, out);
    if (code != SQLITE_OK || file->pMethods == nullptr) return code;
    Methods& methods = methods_[(flags & SQLITE_OPEN_MAIN_DB) != 0 ? 0 : 1];
    methods.real = file->pMethods;
    methods.failing = *methods.real;
    methods.failing.xWrite = &write;
    methods.failing.xSync = &sync;
    file->pMethods = &methods.failing;
    return code;
  }

  static inline sqlite3_vfs* real_ = nullptr;
  static inline std::array<Methods, 2> methods_{};
  static inline Kind kind_ = Kind::kWrite;
  static inline int left_ = 0;
  static inline bool struck_ = false;
  sqlite3_vfs vfs_{};
};

}  // namespace mayfly::store
