// The disk behind FailingDisk; in a file of tests, so that no program carries it.
#include <sqlite3.h>

#include <array>

#include "store/internal/failing_disk_for_test.h"

namespace mayfly::store {
namespace {

using Kind = FailingDisk::Kind;

// SQLite has one table of methods for the database, which locks, and another for everything else.
struct Methods {
  const sqlite3_io_methods* real;
  sqlite3_io_methods failing;
};

sqlite3_vfs* real_vfs = nullptr;
sqlite3_vfs failing_vfs{};
std::array<Methods, 2> methods{};
Kind kind = Kind::kWrite;
int operations_left = 0;
bool has_struck = false;

bool strikes(bool is_sync) {
  if (operations_left == 0 || is_sync != (kind == Kind::kSync)) return false;
  if (--operations_left > 0) return false;
  has_struck = true;
  return true;
}

const sqlite3_io_methods* real_of(sqlite3_file* file) {
  return file->pMethods == &methods[0].failing ? methods[0].real : methods[1].real;
}

int write(sqlite3_file* file, const void* bytes, int size, sqlite3_int64 offset) {
  if (strikes(false)) return kind == Kind::kFull ? SQLITE_FULL : SQLITE_IOERR_WRITE;
  return real_of(file)->xWrite(file, bytes, size, offset);
}

int sync(sqlite3_file* file, int flags) {
  if (strikes(true)) return SQLITE_IOERR_FSYNC;
  return real_of(file)->xSync(file, flags);
}

int open(sqlite3_vfs*, const char* name, sqlite3_file* file, int flags, int* out) {
  const int code = real_vfs->xOpen(real_vfs, name, file, flags, out);
  if (code != SQLITE_OK || file->pMethods == nullptr) return code;
  Methods& of_file = methods[(flags & SQLITE_OPEN_MAIN_DB) != 0 ? 0 : 1];
  of_file.real = file->pMethods;
  of_file.failing = *of_file.real;
  of_file.failing.xWrite = &write;
  of_file.failing.xSync = &sync;
  file->pMethods = &of_file.failing;
  return code;
}

}  // namespace

FailingDisk::FailingDisk() {
  real_vfs = sqlite3_vfs_find(nullptr);
  failing_vfs = *real_vfs;
  failing_vfs.zName = "failing";
  failing_vfs.xOpen = &open;
  sqlite3_vfs_register(&failing_vfs, 1);
}

FailingDisk::~FailingDisk() {
  sqlite3_vfs_register(real_vfs, 1);
  sqlite3_vfs_unregister(&failing_vfs);
}

void FailingDisk::arm(Kind wanted, int nth) {
  kind = wanted;
  operations_left = nth;
  has_struck = false;
}

void FailingDisk::disarm() { operations_left = 0; }
bool FailingDisk::struck() { return has_struck; }

}  // namespace mayfly::store
