// Event patterns as owners of event source mappings send them.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "events/internal/event_pattern.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  (void)mayfly::events::check_event_pattern(std::string_view(reinterpret_cast<const char*>(data), size)).ok();
  return 0;
}
