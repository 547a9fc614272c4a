// EventBridge's pattern language, as event filters use it.
#pragma once

#include <string_view>

#include "base/result.h"

namespace mayfly::events {

// Whether `text` is an event pattern: an object whose leaves are non-empty lists of values and matchers (prefix, suffix,
// equals-ignore-case, wildcard, anything-but, numeric, exists, cidr), with "$or" between objects.
// kInvalidArgument says what is wrong.
// Source: "Amazon EventBridge event patterns" and "Comparison operators" of the EventBridge user guide.
[[nodiscard]] base::Result<void> check_event_pattern(std::string_view text);

}  // namespace mayfly::events
