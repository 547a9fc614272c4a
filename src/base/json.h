// JSON in and out through Boost.JSON with limits that hostile input cannot pass. Include <boost/json.hpp> in the .cc
// that touches values; this header names the types only.
#pragma once

#include <boost/json/fwd.hpp>
#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.h"

namespace mayfly::base {

struct JsonLimits {
  std::size_t depth_max = 64;
  std::size_t bytes_max = 8U << 20U;
};

// Strict RFC 8259: no comments, trailing commas, NaN, invalid UTF-8, trailing bytes or duplicate keys in one object.
// kInvalidArgument with the position, or kTooLarge.
[[nodiscard]] Result<boost::json::value> parse_json(std::string_view text, JsonLimits limits = {});

// Whether `text` is one JSON value by the grammar and limits, without building it: for payloads that are only passed on.
// Duplicate keys are allowed here, as the function's own parser decides about them.
[[nodiscard]] Result<void> check_json(std::string_view text, JsonLimits limits = {});

// Indented with two spaces and a final newline, for people.
[[nodiscard]] std::string pretty_json(const boost::json::value& value);
// `text` with every byte that is not part of valid UTF-8 (RFC 3629: no overlong forms, no surrogates) replaced by U+FFFD: what a
// function printed goes into JSON through here.
[[nodiscard]] std::string valid_utf8(std::string text);
// `text` as a JSON string literal, quotes included.
[[nodiscard]] std::string json_quote(std::string_view text);

}  // namespace mayfly::base
