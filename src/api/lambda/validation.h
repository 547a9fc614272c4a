// Checks a request against the table of Lambda's interface and gathers its parameters, from wherever they came.
#pragma once

#include <boost/json/fwd.hpp>
#include <boost/json/object.hpp>
#include <string>
#include <string_view>

#include "api/lambda/model.h"
#include "base/result.h"
#include "net/http.h"

namespace mayfly::api::lambda {

// All members of a request by name ("FunctionName", "Qualifier", "Timeout" ...): path, query, header and body together.
// What is null or absent on the wire is absent here; members the table does not know are left out, as AWS ignores them.
// `body` is the JSON text; it is not looked at where the operation's body is a raw payload.
// Errors: InvalidRequestContentException for a body that is no JSON object, SerializationException for a value of another
// type, ValidationException with every violated constraint at once.
[[nodiscard]] base::Result<boost::json::object> read_input(const Match& match, const net::RequestHead& head, std::string_view body);

// Whether all of `text` matches `pattern` of the table.
[[nodiscard]] bool matches(const Shape& shape, std::string_view text);

}  // namespace mayfly::api::lambda
