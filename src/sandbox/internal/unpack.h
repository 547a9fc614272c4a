// Unpacking of archives from strangers: in a process of its own that has no privileges, no root but the new directory, few system
// calls and bounded memory, time and output.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "sandbox/internal/filters.h"
#include "sandbox/launcher.h"

namespace mayfly::sandbox::internal {

struct UnpackJob {
  int archive = -1;    // a regular file, read from its start
  int directory = -1;  // empty, owned by `user`; becomes the process's root
  int result = -1;     // write end of a pipe: one packet of kUnpacked, see write_result()
  Launcher::UnpackLimits limits;
  bool switch_identity = true;
  std::uint32_t user = 0;
  std::uint32_t group = 0;
  const Filter* filter = nullptr;
};

// In a forked child: gives up everything, unpacks, reports, ends.
[[noreturn]] void run_unpack(const UnpackJob& job);

// In a forked child: reports the size of `job.directory` instead, and ends.
[[noreturn]] void run_measure(const UnpackJob& job);

// Unpacks into `directory` with the caller's own rights; the bytes written, or why the archive is refused. For run_unpack and tests.
[[nodiscard]] base::Result<std::uint64_t> unpack_zip(int archive, int directory, const Launcher::UnpackLimits& limits);

// Bytes of all regular files beneath `directory`.
[[nodiscard]] base::Result<std::uint64_t> tree_size(int directory);

// What run_unpack wrote to its pipe.
void write_result(int pipe, const base::Result<std::uint64_t>& result);
[[nodiscard]] base::Result<std::uint64_t> parse_result(std::string_view bytes);

}  // namespace mayfly::sandbox::internal
