// application/vnd.amazon.eventstream: length-prefixed messages with typed headers and CRC-32 checks
// (AWS "Event stream encoding"; string headers are all that Lambda's response streams use).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace mayfly::net {

struct EventStreamMessage {
  std::vector<std::pair<std::string, std::string>> headers;  // string-typed
  std::string payload;
};

[[nodiscard]] std::string encode_event_stream(const EventStreamMessage& message);
// Takes one whole message off the front of `buffer`; empty optional while bytes are missing; kDataLoss on a bad checksum or length.
[[nodiscard]] base::Result<std::optional<EventStreamMessage>> decode_event_stream(std::string& buffer);

}  // namespace mayfly::net
