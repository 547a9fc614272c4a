// What is wrong with an Invoke payload that is not JSON, in the words of the real service.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace mayfly::api::lambda {

// InvalidRequestContentException unless `payload` is one JSON value. The text has the shape of the real service's JSON parser
// (Jackson): what it met, then line and column.
[[nodiscard]] base::Result<void> check_payload_json(std::string_view payload);

// The X-Amz-Client-Context header: base64 of a JSON object, at most 3,583 bytes. Answers the decoded text.
[[nodiscard]] base::Result<std::string> decode_client_context(std::string_view header);

}  // namespace mayfly::api::lambda
