// What happens to asynchronous invocations, as configuration.
#include <boost/json.hpp>

#include "api/api.h"
#include "api/internal/answer.h"
#include "api/lambda/control.h"
#include "api/lambda/input.h"

namespace mayfly::api::lambda {
namespace {

namespace json = boost::json;
using base::Result;
using engine::EventInvokeConfig;
using engine::FunctionRecord;
using engine::FunctionSettings;

// Here a function without qualifier is $LATEST.
Result<Target> target_with_latest(const ControlCall& call) {
  MAYFLY_ASSIGN(Target target, target_of(call));
  if (target.qualifier.empty()) target.qualifier = engine::kLatest;
  return target;
}

base::Error no_function() { return not_found("The function doesn't exist."); }
base::Error no_config(const ControlCall& call, const Target& target) {
  return not_found("The function " + target.arn(call.context.registry.account()) + " doesn't have an EventInvokeConfig");
}

json::object destination_json(const std::string& arn) {
  json::object shown;
  if (!arn.empty()) shown["Destination"] = arn;
  return shown;
}

json::object config_json(const ControlCall& call, const Target& target, const EventInvokeConfig& config) {
  json::object shown{{"FunctionArn", target.arn(call.context.registry.account())},
                     {"LastModified", static_cast<double>(base::epoch_ms(config.modified)) / 1000.0}};
  if (config.retries_max) shown["MaximumRetryAttempts"] = *config.retries_max;
  if (config.age_max_s) shown["MaximumEventAgeInSeconds"] = *config.age_max_s;
  shown["DestinationConfig"] =
      json::object{{"OnSuccess", destination_json(config.on_success)}, {"OnFailure", destination_json(config.on_failure)}};
  return shown;
}

// The destination config as AWS's error text prints it.
std::string printed(const json::object& destinations) {
  const auto one = [&](const char* member, const char* name) -> std::string {
    const json::object* each = object_in(destinations, member);
    if (each == nullptr) return "null";
    const auto arn = optional_text_in(*each, "Destination");
    return std::string(name) + "(destination=" + (arn ? *arn : "null") + ")";
  };
  return "DestinationConfig(onSuccess=" + one("OnSuccess", "OnSuccess") + ", onFailure=" + one("OnFailure", "OnFailure") + ")";
}

std::string service_of(const std::string& arn) {
  std::size_t at = 0;
  for (int i = 0; i < 2; ++i) at = arn.find(':', at) + 1;
  return arn.substr(at, arn.find(':', at) - at);
}

Result<void> check_destination(const ControlCall& call, const Target& target, const json::object& all, const std::string& arn) {
  if (arn.empty()) return {};
  const std::string service = service_of(arn);
  if (service == "sqs" || service == "sns" || service == "events" || service == "s3") return {};
  if (service != "lambda") return invalid_parameter("The provided destination config " + printed(all) + " is invalid.");
  const auto parsed = resolve_name(arn, "", call.context.registry.account(), call.action);
  const engine::RecordPtr record = parsed.ok() ? call.context.registry.find(parsed->name) : nullptr;
  if (record == nullptr || record->find(parsed->qualifier) == nullptr)
    return invalid_parameter("The destination ARN " + arn + " is invalid.");
  if (parsed->name == target.name) return invalid_parameter("You can't specify the function as a destination for itself.");
  return {};
}

Result<void> set_members(const ControlCall& call, const Target& target, EventInvokeConfig& config) {
  if (const auto retries = number_in(call.input, "MaximumRetryAttempts")) config.retries_max = static_cast<std::uint32_t>(*retries);
  if (const auto age = number_in(call.input, "MaximumEventAgeInSeconds")) config.age_max_s = static_cast<std::uint32_t>(*age);
  const json::object* destinations = object_in(call.input, "DestinationConfig");
  config.modified = call.context.clock.wall_now();
  if (destinations == nullptr) return {};
  const auto set = [&](const char* member, std::string& where) -> Result<void> {
    const json::object* given = object_in(*destinations, member);
    if (given == nullptr) return {};
    const std::string arn = text_in(*given, "Destination");
    MAYFLY_TRY(check_destination(call, target, *destinations, arn));
    where = arn;
    return {};
  };
  MAYFLY_TRY(set("OnSuccess", config.on_success));
  return set("OnFailure", config.on_failure);
}

Result<void> check_something_given(const ControlCall& call) {
  for (const char* member : {"MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig"}) {
    if (call.input.contains(member)) return {};
  }
  return invalid_parameter("You must specify at least one of error handling or destination setting.");
}

Result<engine::RecordPtr> existing(const ControlCall& call, const Target& target) {
  engine::RecordPtr record = call.context.registry.find(target.name);
  if (record == nullptr || record->find(target.qualifier) == nullptr) return no_function();
  return record;
}

// Put replaces, update changes what is there.
enum class Change { kReplace, kMerge };
Result<net::Response> change_config(const ControlCall& call, Change kind) {
  MAYFLY_ASSIGN(const Target target, target_with_latest(call));
  MAYFLY_TRY(check_something_given(call));
  MAYFLY_TRY(existing(call, target));
  EventInvokeConfig made;
  const auto change = [&](const FunctionRecord& record, FunctionSettings& settings) -> Result<void> {
    if (record.find(target.qualifier) == nullptr) return no_function();
    const auto found = settings.event_invoke.find(target.qualifier);
    if (kind == Change::kMerge) {
      if (found == settings.event_invoke.end()) return no_config(call, target);
      made = found->second;
    }
    MAYFLY_TRY(set_members(call, target, made));
    settings.event_invoke[target.qualifier] = made;
    return {};
  };
  MAYFLY_TRY(call.context.registry.change_settings(target.name, change));
  return control_answer(200, config_json(call, target, made));
}

Result<net::Response> put_config(const ControlCall& call) { return change_config(call, Change::kReplace); }
Result<net::Response> update_config(const ControlCall& call) { return change_config(call, Change::kMerge); }

Result<net::Response> get_config(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_with_latest(call));
  const engine::RecordPtr record = call.context.registry.find(target.name);
  if (record == nullptr) return no_config(call, target);
  const auto found = record->settings->event_invoke.find(target.qualifier);
  if (found == record->settings->event_invoke.end()) return no_config(call, target);
  return control_answer(200, config_json(call, target, found->second));
}

Result<net::Response> delete_config(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_with_latest(call));
  if (call.context.registry.find(target.name) == nullptr) return no_config(call, target);
  const auto remove = [&](const FunctionRecord&, FunctionSettings& settings) -> Result<void> {
    if (settings.event_invoke.erase(target.qualifier) == 0) return no_config(call, target);
    return {};
  };
  MAYFLY_TRY(call.context.registry.change_settings(target.name, remove));
  return control_answer(204, {});
}

Result<net::Response> list_configs(const ControlCall& call) {
  MAYFLY_ASSIGN(Target target, target_of(call));
  const engine::RecordPtr record = call.context.registry.find(target.name);
  if (record == nullptr) return no_function();
  MAYFLY_ASSIGN(Page page, Page::from(call.input));
  for (const auto& [qualifier, config] : record->settings->event_invoke) {
    if (page.was_shown(qualifier)) continue;
    target.qualifier = qualifier;
    if (!page.add(qualifier, config_json(call, target, config))) break;
  }
  return std::move(page).answer("FunctionEventInvokeConfigs");
}

constexpr ControlEntry kOperations[] = {{"DeleteFunctionEventInvokeConfig", delete_config},
                                        {"GetFunctionEventInvokeConfig", get_config},
                                        {"ListFunctionEventInvokeConfigs", list_configs},
                                        {"PutFunctionEventInvokeConfig", put_config},
                                        {"UpdateFunctionEventInvokeConfig", update_config}};

}  // namespace

std::span<const ControlEntry> event_invoke_operations() { return kOperations; }

}  // namespace mayfly::api::lambda
