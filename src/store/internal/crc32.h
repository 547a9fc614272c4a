// CRC-32 as in gzip, PNG and Ethernet (reflected polynomial 0xEDB88320): tells a torn or damaged record from a whole one.
#pragma once

#include <cstdint>
#include <string_view>

namespace mayfly::store {

[[nodiscard]] std::uint32_t crc32(std::string_view bytes);

}  // namespace mayfly::store
