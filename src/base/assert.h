// Assertions for our own bugs only: never on anything a user, function, peer, disk or kernel can cause.
#pragma once

#include <string_view>

namespace mayfly::base {

// Prints the failed condition and place to standard error and aborts.
[[noreturn]] void assert_failed(std::string_view condition, std::string_view file, int line, std::string_view detail);

}  // namespace mayfly::base

// Always on. MAYFLY_ASSERT(index < size, "index past the end").
#define MAYFLY_ASSERT(condition, detail)                                                       \
  do {                                                                                         \
    if (!(condition)) [[unlikely]]                                                             \
      ::mayfly::base::assert_failed(#condition, __FILE__, __LINE__, detail);                   \
  } while (false)
