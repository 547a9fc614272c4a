// What the kernel remembers of what was done in a network namespace: whether one may serve a second sandbox is decided by it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace mayfly::sandbox::internal {

struct NetworkTraces {
  // Sockets of any kind that belong to it, also of connections that nobody holds any more but that have not ended.
  std::size_t sockets = 0;
  // What was to be read, with fragments and connections in TIME_WAIT, as text. Counters never go back to what they were, so two equal ones
  // mean that nothing was sent, received, refused or, with kAll, asked of the kernel in between.
  std::string counters;
};

enum class TracesOf : std::uint8_t {
  kAll,      // all the kernel shows of the namespace, also what changes without a packet: about 400 us
  kTraffic,  // what packets change, which is all that can be once every process is gone: about 150 us
};

// Those of the network namespace the caller is in, from its only thread. `proc` is /proc. kTooLarge for more than 64 KiB in one file.
[[nodiscard]] base::Result<NetworkTraces> read_network_traces(const base::UniqueFd& proc, TracesOf what);

}  // namespace mayfly::sandbox::internal
