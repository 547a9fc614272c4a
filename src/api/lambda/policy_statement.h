// Resource policies as Lambda's API builds and shows them: of functions and of layer versions.
#pragma once

#include <boost/json/object.hpp>
#include <string>

#include "base/result.h"
#include "engine/function.h"

namespace mayfly::api::lambda {

// "*", {"Service": ...} or {"AWS": ...}; InvalidParameterValueException for anything else.
[[nodiscard]] base::Result<boost::json::value> principal_json(const std::string& principal);
// ResourceConflictException when the statement's Sid is taken; PolicyLengthExceededException beyond `bytes_max`.
[[nodiscard]] base::Result<void> add_statement(engine::ResourcePolicy& policy, const boost::json::object& statement, std::size_t bytes_max);
// ResourceNotFoundException when there is none of that Sid.
[[nodiscard]] base::Result<void> remove_statement(engine::ResourcePolicy& policy, const std::string& sid);
// {"Version": ..., "Id": "default", "Statement": [...]} as text.
[[nodiscard]] std::string policy_document(const engine::ResourcePolicy& policy);

}  // namespace mayfly::api::lambda
