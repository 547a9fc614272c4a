// How much memory this machine still has for new processes.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace mayfly::backend {

struct MemoryState {
  std::uint64_t available = 0, total = 0;  // bytes
  // How much should be given back so that a machine keeps room for what comes next: below a sixteenth of the total, at most 512 MiB,
  // idle environments must go.
  [[nodiscard]] std::uint64_t short_by() const;
};

// MemAvailable and MemTotal of /proc/meminfo's text; nothing when either is missing.
[[nodiscard]] std::optional<MemoryState> parse_meminfo(std::string_view text);
// Of this machine now; nothing when /proc does not tell.
[[nodiscard]] std::optional<MemoryState> read_memory_state();

}  // namespace mayfly::backend
