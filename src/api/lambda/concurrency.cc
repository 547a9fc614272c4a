// Reserved and provisioned concurrency as configuration; the dispatcher enforces both.
#include "api/lambda/concurrency.h"

#include <algorithm>
#include <boost/json.hpp>

#include "api/api.h"
#include "api/internal/answer.h"
#include "api/lambda/control.h"
#include "api/lambda/input.h"

namespace mayfly::api::lambda {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;
using engine::FunctionRecord;
using engine::FunctionSettings;
using engine::ProvisionedConcurrency;

constexpr std::uint32_t kUnreservedMin = 100;  // AWS keeps so much for functions without a reservation

// What is promised to functions: their reservations, or what is provisioned for those that have none.
std::uint64_t promised(const FunctionSettings& settings) {
  if (settings.reserved_concurrency) return *settings.reserved_concurrency;
  std::uint64_t sum = 0;
  for (const auto& [qualifier, provisioned] : settings.provisioned) sum += provisioned.requested;
  return sum;
}

std::uint64_t total_provisioned(const FunctionSettings& settings, const std::string& but) {
  std::uint64_t sum = 0;
  for (const auto& [qualifier, provisioned] : settings.provisioned) sum += qualifier == but ? 0 : provisioned.requested;
  return sum;
}

// --- Reserved ---

Result<Target> function_only(const ControlCall& call) {
  MAYFLY_ASSIGN(Target target, target_of(call));
  if (target.qualifier.empty()) return target;
  return invalid_parameter(
      "This operation is permitted on Lambda functions only. Aliases and versions do not support this operation. Please specify either a "
      "function name or an unqualified function ARN.");
}

Result<net::Response> put_reserved(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, function_only(call));
  const auto wanted = static_cast<std::uint32_t>(number_in(call.input, "ReservedConcurrentExecutions").value_or(0));
  const auto change = [&](const FunctionRecord& record, FunctionSettings& settings) -> Result<void> {
    const std::uint64_t others = promised_concurrency(call.context.registry) - promised(*record.settings);
    // A server with a small account limit cannot keep 100: it keeps what it can.
    const std::uint64_t least = std::min(kUnreservedMin, call.context.concurrency_max / 10);
    if (wanted > 0 && others + wanted + least > call.context.concurrency_max) {
      return invalid_parameter(
          "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value "
          "of [" +
          std::to_string(least) + "].");
    }
    const std::uint64_t provisioned = total_provisioned(settings, "");
    if (provisioned > wanted) {
      return invalid_parameter(" ReservedConcurrentExecutions  " + std::to_string(wanted) +
                               " should not be lower than function's total provisioned concurrency [" + std::to_string(provisioned) + "].");
    }
    settings.reserved_concurrency = wanted;
    return {};
  };
  MAYFLY_TRY(call.context.registry.change_settings(target.name, change));
  return control_answer(200, {{"ReservedConcurrentExecutions", wanted}});
}

Result<net::Response> get_reserved(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, function_only(call));
  MAYFLY_ASSIGN(const engine::RecordPtr record, existing_function(call, target));
  json::object body;
  if (record->settings->reserved_concurrency) body["ReservedConcurrentExecutions"] = *record->settings->reserved_concurrency;
  return control_answer(200, body);
}

Result<net::Response> delete_reserved(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, function_only(call));
  const auto change = [](const FunctionRecord&, FunctionSettings& settings) -> Result<void> {
    settings.reserved_concurrency.reset();
    return {};
  };
  MAYFLY_TRY(call.context.registry.change_settings(target.name, change));
  return control_answer(204, {});
}

// --- Provisioned ---

Error no_provisioned() {
  return Error(ErrorCode::kNotFound, "No Provisioned Concurrency Config found for this function",
               "ProvisionedConcurrencyConfigNotFoundException");
}

Result<Target> published(const ControlCall& call, const char* refusal) {
  MAYFLY_ASSIGN(Target target, target_of(call));
  if (target.qualifier == engine::kLatest) return invalid_parameter(refusal);
  return target;
}
constexpr const char* kNotPublished = "The function resource provided must be an alias or a published version.";

json::object provisioned_json(const ControlCall& call, const FunctionRecord& record, const std::string& qualifier,
                              const ProvisionedConcurrency& config) {
  const engine::VersionPtr version = record.find(qualifier);
  engine::ProvisionedStatus status;
  if (version != nullptr && call.context.provisioned_status)
    status = call.context.provisioned_status(record.latest->function_name, version->version);
  const bool failed = !status.failed_reason.empty();
  const bool ready = status.allocated >= config.requested;
  json::object shown{{"RequestedProvisionedConcurrentExecutions", config.requested},
                     {"AvailableProvisionedConcurrentExecutions", std::min(status.available, config.requested)},
                     {"AllocatedProvisionedConcurrentExecutions", std::min(status.allocated, config.requested)},
                     {"Status", failed  ? "FAILED"
                                : ready ? "READY"
                                        : "IN_PROGRESS"},
                     {"LastModified", config.modified}};
  if (failed) shown["StatusReason"] = status.failed_reason;
  return shown;
}

// A version's capacity is set in one place: on itself or on one alias.
Result<void> check_not_provisioned_elsewhere(const FunctionRecord& record, const std::string& qualifier) {
  const engine::Alias* alias = record.find_alias(qualifier);
  const std::string version = record.find(qualifier)->version;
  for (const auto& [other, config] : record.settings->provisioned) {
    if (other == qualifier) continue;
    const engine::VersionPtr theirs = record.find(other);
    if (theirs == nullptr || theirs->version != version) continue;
    return Error(ErrorCode::kConflict,
                 alias != nullptr ? "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
                                  : "Version is pointed by a Provisioned Concurrency alias",
                 "ResourceConflictException");
  }
  return {};
}

Result<void> check_provisioned_fits(const ControlCall& call, const FunctionRecord& record, const std::string& qualifier,
                                    std::uint32_t wanted) {
  const std::uint64_t total = total_provisioned(*record.settings, qualifier) + wanted;
  if (record.settings->reserved_concurrency) {
    if (total <= *record.settings->reserved_concurrency) return {};
    return invalid_parameter("Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function");
  }
  const std::uint64_t most = call.context.concurrency_max;
  if (wanted > most) {
    return invalid_parameter("Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [" +
                             std::to_string(most) + "].");
  }
  const std::uint64_t least = std::min(kUnreservedMin, call.context.concurrency_max / 10);
  const std::uint64_t others = promised_concurrency(call.context.registry) - promised(*record.settings);
  if (others + total + least <= most) return {};
  return invalid_parameter(
      "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum value of [" +
      std::to_string(least) + "].");
}

Result<net::Response> put_provisioned(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target,
                published(call, "Provisioned Concurrency Configs cannot be applied to unpublished function versions."));
  const ProvisionedConcurrency wanted{
      .requested = static_cast<std::uint32_t>(number_in(call.input, "ProvisionedConcurrentExecutions").value_or(0)),
      .modified = base::format_lambda_time(call.context.clock.wall_now())};
  const auto change = [&](const FunctionRecord& record, FunctionSettings& settings) -> Result<void> {
    MAYFLY_TRY(check_qualifier(record, target.qualifier));
    MAYFLY_TRY(check_not_provisioned_elsewhere(record, target.qualifier));
    MAYFLY_TRY(check_provisioned_fits(call, record, target.qualifier, wanted.requested));
    settings.provisioned[target.qualifier] = wanted;
    return {};
  };
  MAYFLY_ASSIGN(const engine::RecordPtr record, call.context.registry.change_settings(target.name, change));
  json::object shown = provisioned_json(call, *record, target.qualifier, wanted);
  // Recorded: the answer shows the moment the order was taken.
  shown["AvailableProvisionedConcurrentExecutions"] = 0;
  shown["AllocatedProvisionedConcurrentExecutions"] = 0;
  shown["Status"] = "IN_PROGRESS";
  shown.erase("StatusReason");
  return control_answer(202, shown);
}

Result<net::Response> get_provisioned(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, published(call, kNotPublished));
  MAYFLY_ASSIGN(const engine::RecordPtr record, existing_function(call, target));
  MAYFLY_TRY(check_qualifier(*record, target.qualifier));
  const auto found = record->settings->provisioned.find(target.qualifier);
  if (found == record->settings->provisioned.end()) return no_provisioned();
  return control_answer(200, provisioned_json(call, *record, target.qualifier, found->second));
}

Result<net::Response> delete_provisioned(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, published(call, kNotPublished));
  const auto remove = [&](const FunctionRecord& record, FunctionSettings& settings) -> Result<void> {
    MAYFLY_TRY(check_qualifier(record, target.qualifier));
    settings.provisioned.erase(target.qualifier);
    return {};
  };
  MAYFLY_TRY(call.context.registry.change_settings(target.name, remove));
  return control_answer(204, {});
}

Result<net::Response> list_provisioned(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  MAYFLY_ASSIGN(const engine::RecordPtr record, existing_function(call, target));
  MAYFLY_ASSIGN(Page page, Page::from(call.input));
  for (const auto& [qualifier, config] : record->settings->provisioned) {
    if (page.was_shown(qualifier)) continue;
    json::object each = provisioned_json(call, *record, qualifier, config);
    each["FunctionArn"] = record->latest->arn + ":" + qualifier;
    if (!page.add(qualifier, std::move(each))) break;
  }
  return std::move(page).answer("ProvisionedConcurrencyConfigs");
}

constexpr ControlEntry kOperations[] = {{"DeleteFunctionConcurrency", delete_reserved},
                                        {"DeleteProvisionedConcurrencyConfig", delete_provisioned},
                                        {"GetFunctionConcurrency", get_reserved},
                                        {"GetProvisionedConcurrencyConfig", get_provisioned},
                                        {"ListProvisionedConcurrencyConfigs", list_provisioned},
                                        {"PutFunctionConcurrency", put_reserved},
                                        {"PutProvisionedConcurrencyConfig", put_provisioned}};

}  // namespace

std::uint64_t promised_concurrency(const engine::FunctionRegistry& registry) {
  std::uint64_t sum = 0;
  for (const engine::RecordPtr& record : registry.list("", registry.function_count())) sum += promised(*record->settings);
  return sum;
}

std::span<const ControlEntry> concurrency_operations() { return kOperations; }

}  // namespace mayfly::api::lambda
