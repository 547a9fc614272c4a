#include "api/lambda/resolve.h"

#include <array>

#include "api/internal/answer.h"
#include "base/bytes.h"

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

namespace {

// Uniform in [0, 1).
double throw_dice() {
  std::array<std::uint8_t, 4> bytes{};
  base::random_bytes(bytes);
  std::uint32_t number = 0;
  for (const std::uint8_t byte : bytes) number = number << 8U | byte;
  return static_cast<double>(number) / 4'294'967'296.0;
}

}  // namespace

Result<engine::VersionPtr> find_version(const engine::FunctionRegistry& registry, const Target& target) {
  const engine::RecordPtr record = registry.find(target.name);
  engine::VersionPtr version = record == nullptr ? nullptr : record->find(target.qualifier);
  if (version != nullptr) return version;
  return not_found("Function not found: " + target.arn(registry.account()));
}

Result<engine::VersionPtr> route_invocation(const engine::FunctionRegistry& registry, const Target& target) {
  const engine::RecordPtr record = registry.find(target.name);
  const engine::Alias* alias = record == nullptr ? nullptr : record->find_alias(target.qualifier);
  const bool weighted = alias != nullptr && !alias->additional_version.empty();
  engine::VersionPtr version = record == nullptr ? nullptr : record->route(target.qualifier, weighted ? throw_dice() : 1.0);
  if (version != nullptr) return version;
  return not_found("Function not found: " + target.arn(registry.account()) + (target.qualifier.empty() ? ":$LATEST" : ""));
}

}  // namespace mayfly::api::lambda
