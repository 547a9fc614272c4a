// What the kernel remembers of what was done in a network namespace: whether one may serve a second sandbox is decided by it.
#pragma once

#include <cstddef>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace mayfly::sandbox::internal {

struct NetworkTraces {
  // Sockets of any kind that belong to it, also of connections that nobody holds any more but that have not ended.
  std::size_t sockets = 0;
  // Every counter of its protocols and devices, its neighbours, flow labels, fragments and connections in TIME_WAIT, as text. None of
  // them ever goes back to what it was, so two equal ones mean that nothing was sent, received or refused in between.
  std::string counters;
};

// Those of the network namespace the caller is in. `proc` is /proc. About 100 us.
[[nodiscard]] base::Result<NetworkTraces> read_network_traces(const base::UniqueFd& proc);

}  // namespace mayfly::sandbox::internal
