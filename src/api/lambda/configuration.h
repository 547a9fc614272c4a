// A function's configuration between JSON and engine::FunctionConfig: what requests say, what answers show.
#pragma once

#include <boost/json/object.hpp>
#include <functional>
#include <string>

#include "base/result.h"
#include "engine/registry.h"

namespace mayfly::api::lambda {

// FunctionConfiguration as AWS answers it. Its FunctionArn ends in `qualifier` (a version or alias) unless that is "".
[[nodiscard]] boost::json::object configuration_json(const engine::FunctionVersion& version, std::string_view qualifier);

// Whether functions of this runtime name may be made: AWS's error for unknown and retired names.
[[nodiscard]] base::Result<void> check_runtime_name(const std::string& runtime);

// The configuration of CreateFunction's validated input, defaults filled in. Errors name members that Mayfly does not support.
[[nodiscard]] base::Result<engine::FunctionConfig> configuration_from(const boost::json::object& input);
// What UpdateFunctionConfiguration's validated input changes in `current`.
[[nodiscard]] base::Result<engine::ConfigChange> change_from(const boost::json::object& input, const engine::FunctionConfig& current);

}  // namespace mayfly::api::lambda
