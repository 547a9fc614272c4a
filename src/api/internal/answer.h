// Answers in the wire formats of the AWS protocols: how an error or a JSON document becomes a net::Response.
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "net/http.h"

namespace mayfly::api {

enum class Protocol : std::uint8_t {
  kRestJson,  // lambda
  kAwsJson,   // logs: X-Amz-Target, 400 for every client error
  kQuery,     // sts, iam: XML
  kRestXml,   // s3, whose errors api/s3/errors.h writes; links to code
};

// `error` as clients of `protocol` expect it: status, casing and header from the table of lambda/model/operations.json where
// the id is there, otherwise by the error's code. An error without an id of its own becomes ServiceException (5xx) or
// InvalidParameterValueException. `throttle_reason` is the Reason of a TooManyRequestsException; "" stands for the account's limit.
[[nodiscard]] net::Response error_answer(Protocol protocol, const base::Error& error, const std::string& request_id,
                                         const std::string& throttle_reason = "");
// An empty object becomes an empty body where `status` is 204.
[[nodiscard]] net::Response json_answer(Protocol protocol, int status, const boost::json::value& body);
[[nodiscard]] std::string xml_escape(std::string_view text);

// What Mayfly does not do (yet): UnsupportedOperationException with status 400, because some SDKs repeat every 5xx and
// repeating cannot help here.
[[nodiscard]] base::Error unsupported(std::string message);
[[nodiscard]] base::Error invalid_parameter(std::string message);
[[nodiscard]] base::Error not_found(std::string message);

}  // namespace mayfly::api
