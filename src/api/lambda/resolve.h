// From a function's name as a request gives it to the function and version it means.
#pragma once

#include <string>

#include "base/result.h"
#include "engine/registry.h"

namespace mayfly::api::lambda {

struct Target {
  std::string name;
  std::string qualifier;  // "" unless the name or the query gave one
  // The ARN as the caller qualified it.
  [[nodiscard]] std::string arn(const engine::Account& account) const {
    std::string arn = account.function_arn(name);
    if (!qualifier.empty()) arn.append(":").append(qualifier);
    return arn;
  }
};

// Checks form, region and account of `name` and that its qualifier and `qualifier` agree. Whether the function exists is not
// asked. `action` ("lambda:GetFunction") is for the error about another account.
[[nodiscard]] base::Result<Target> resolve_name(const std::string& name, const std::string& qualifier, const engine::Account& account,
                                                const std::string& action);

// The version `target` means, or ResourceNotFoundException.
[[nodiscard]] base::Result<engine::VersionPtr> find_version(const engine::FunctionRegistry& registry, const Target& target);
// The same for an invocation: calls of a weighted alias are divided by lot, and the error names ":$LATEST" where no qualifier was
// given, as AWS does.
[[nodiscard]] base::Result<engine::VersionPtr> route_invocation(const engine::FunctionRegistry& registry, const Target& target);

}  // namespace mayfly::api::lambda
