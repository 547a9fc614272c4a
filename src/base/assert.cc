#include "base/assert.h"

#include <cstdio>
#include <cstdlib>

namespace mayfly::base {

void assert_failed(std::string_view condition, std::string_view file, int line, std::string_view detail) {
  std::fprintf(stderr, "mayfly: bug: %.*s does not hold at %.*s:%d: %.*s\n", static_cast<int>(condition.size()), condition.data(),
               static_cast<int>(file.size()), file.data(), line, static_cast<int>(detail.size()), detail.data());
  std::abort();
}

}  // namespace mayfly::base
