// Unpacking of archives from strangers: in a process of its own that has no privileges, no root but the new directory, few system
// calls and bounded memory, time and output.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "sandbox/internal/filters.h"
#include "sandbox/launcher.h"

namespace mayfly::sandbox::internal {

// What an unpacking process is made with. It takes one archive, which may come much later.
struct UnpackerPlan {
  int directory = -1;  // empty, owned by `user`; becomes the process's root
  int socket = -1;     // SEQPACKET: an order comes in (one byte, see UnpackOrder, and the archive beside it), one kUnpacked goes out
  Launcher::UnpackLimits limits;
  bool switch_identity = true;
  std::uint32_t user = 0;
  std::uint32_t group = 0;
  const Filter* filter = nullptr;
};
enum class UnpackOrder : char { kTellFirst, kSyncFirst };  // whether the result is told before or after everything is on disk

// In a forked child: gives up everything, waits for its archive, unpacks, reports, writes what it unpacked to the disk and ends: with
// status 0 when all of it is there.
[[noreturn]] void run_unpacker(const UnpackerPlan& plan);

// In a forked child: reports the size of `directory` to `socket` instead, and ends.
[[noreturn]] void run_measure(int directory, int socket);

// Unpacks into `directory` with the caller's own rights; the bytes written, or why the archive is refused. `on_whole` is told the same
// number as soon as everything is in its place, before it is written to the disk. For run_unpacker and tests.
[[nodiscard]] base::Result<std::uint64_t> unpack_zip(int archive, int directory, const Launcher::UnpackLimits& limits,
                                                     const std::function<void(std::uint64_t bytes)>& on_whole = {});

// Bytes of all regular files beneath `directory`.
[[nodiscard]] base::Result<std::uint64_t> tree_size(int directory);

// What such a process sent.
[[nodiscard]] base::Result<std::uint64_t> parse_result(std::string_view bytes);

}  // namespace mayfly::sandbox::internal
