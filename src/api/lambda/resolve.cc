#include "api/lambda/resolve.h"

#include "api/internal/answer.h"

namespace mayfly::api::lambda {

using base::Error;
using base::ErrorCode;
using base::Result;

Result<Target> resolve_name(const std::string& name, const std::string& qualifier, const engine::Account& account,
                            const std::string& action) {
  MAYFLY_ASSIGN(engine::FunctionName parsed, engine::parse_function_name(name));
  if (!parsed.region.empty() && parsed.region != account.region) {
    return not_found("Functions from '" + parsed.region + "' are not reachable in this region ('" + account.region + "')");
  }
  if (!parsed.account.empty() && parsed.account != account.id) {
    return Error(ErrorCode::kPermissionDenied,
                 "not authorized to perform: " + action + " on resource: " + name + " because it belongs to account " + parsed.account +
                     "; this server holds account " + account.id,
                 "AccessDeniedException");
  }
  if (!parsed.qualifier.empty() && !qualifier.empty() && parsed.qualifier != qualifier) {
    return invalid_parameter("The derived qualifier from the function name does not match the specified qualifier.");
  }
  return Target{.name = std::move(parsed.name), .qualifier = parsed.qualifier.empty() ? qualifier : std::move(parsed.qualifier)};
}

Result<engine::VersionPtr> find_version(const engine::FunctionRegistry& registry, const Target& target, bool says_latest) {
  const engine::RecordPtr record = registry.find(target.name);
  engine::VersionPtr version = record == nullptr ? nullptr : record->find(target.qualifier);
  if (version != nullptr) return version;
  const bool adds = says_latest && target.qualifier.empty();
  return not_found("Function not found: " + target.arn(registry.account()) + (adds ? ":$LATEST" : ""));
}

}  // namespace mayfly::api::lambda
