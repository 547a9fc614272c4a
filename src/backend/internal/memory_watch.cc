#include "backend/internal/memory_watch.h"

#include <algorithm>
#include <charconv>

#include "base/fd.h"

namespace mayfly::backend {

std::uint64_t MemoryState::short_by() const {
  constexpr std::uint64_t kReserveMax = 512ULL << 20U;
  const std::uint64_t reserve = std::min(total / 16, kReserveMax);
  return available < reserve ? reserve - available : 0;
}

namespace {

std::optional<std::uint64_t> value_of(std::string_view text, std::string_view name) {
  std::size_t at = text.find(name);
  if (at == std::string_view::npos || (at > 0 && text[at - 1] != '\n')) return std::nullopt;
  at = text.find_first_of("0123456789", at + name.size());
  if (at == std::string_view::npos) return std::nullopt;
  std::uint64_t kibibytes = 0;
  if (std::from_chars(text.data() + at, text.data() + text.size(), kibibytes).ec != std::errc()) return std::nullopt;
  return kibibytes << 10U;
}

}  // namespace

std::optional<MemoryState> parse_meminfo(std::string_view text) {
  const auto available = value_of(text, "MemAvailable:"), total = value_of(text, "MemTotal:");
  if (!available || !total) return std::nullopt;
  return MemoryState{.available = *available, .total = *total};
}

std::optional<MemoryState> read_memory_state() {
  const auto text = base::read_file("/proc/meminfo", 1U << 16U);
  return text.ok() ? parse_meminfo(*text) : std::nullopt;
}

}  // namespace mayfly::backend
