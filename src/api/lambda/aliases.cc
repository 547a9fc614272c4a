// Aliases: names for versions, and the weights between two of them.
#include <algorithm>
#include <boost/json.hpp>

#include "api/api.h"
#include "api/internal/answer.h"
#include "api/lambda/control.h"
#include "api/lambda/input.h"
#include "base/bytes.h"

namespace mayfly::api::lambda {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;
using engine::Alias;
using engine::FunctionRecord;
using engine::FunctionSettings;

json::object alias_json(const engine::FunctionRecord& record, const Alias& alias) {
  json::object shown{{"AliasArn", record.latest->arn + ":" + alias.name},
                     {"Name", alias.name},
                     {"FunctionVersion", alias.version},
                     {"Description", alias.description},
                     {"RevisionId", alias.revision_id}};
  if (!alias.additional_version.empty()) {
    json::object weights;
    weights[alias.additional_version] = alias.additional_weight;
    shown["RoutingConfig"] = json::object{{"AdditionalVersionWeights", std::move(weights)}};
  }
  return shown;
}

net::Response answer(int status, const engine::FunctionRecord& record, const Alias& alias) {
  return control_answer(status, alias_json(record, alias));
}

// Aliases are named by path or body, the function without qualifier.
Result<Target> function_of(const ControlCall& call) {
  MAYFLY_ASSIGN(Target target, target_of(call));
  if (!target.qualifier.empty()) return not_found("Function not found: " + target.arn(call.context.registry.account()));
  return target;
}

// The weights of `input` put into `alias`, which names its main version already. An empty map takes the weights away.
Result<void> set_routing(const json::object& input, const FunctionRecord& record, Alias& alias) {
  const json::object* routing = object_in(input, "RoutingConfig");
  if (routing == nullptr) return {};
  alias.additional_version.clear();
  alias.additional_weight = 0;
  const json::object* weights = object_in(*routing, "AdditionalVersionWeights");
  if (weights == nullptr || weights->empty()) return {};
  if (weights->size() > 1) return invalid_parameter("Number of items in AdditionalVersionWeights cannot be greater than 1");
  const std::string version(weights->begin()->key());
  if (version == alias.version) {
    return invalid_parameter("Invalid function version " + version + ". Function version " + version +
                             " is already included in routing configuration.");
  }
  if (alias.version == engine::kLatest) return invalid_parameter("$LATEST is not supported for an alias pointing to more than 1 version");
  MAYFLY_TRY(check_qualifier(record, version));
  alias.additional_version = version;
  alias.additional_weight = weights->begin()->value().to_number<double>();
  return {};
}

// A function may ask that its aliases move only to versions that start (docs/adr/0004): `version` is tried, if it is not the one that
// the alias has already.
Result<void> check_it_starts(const ControlCall& call, const Target& target, const std::string& alias, const std::string& version) {
  const engine::RecordPtr record = call.context.registry.find(target.name);
  const engine::VersionPtr wanted = record == nullptr ? nullptr : record->find(version);
  if (wanted == nullptr || !wanted->config.alias_waits_for_init() || !call.context.try_init) return {};
  const Alias* there = record->find_alias(alias);
  if (there != nullptr && (there->version == version || there->additional_version == version)) return {};
  const Result<void> started = call.context.try_init(wanted);
  if (started.ok()) return {};
  return invalid_parameter(
      "Version " + version + " of " + record->latest->arn + " does not initialise (" + started.error().message() +
      "), and the function asks by MAYFLY_ALIAS_WAITS_FOR that its aliases wait for that. Nothing was changed; the cause "
      "is in the log of the version.");
}

// The same for every version that a request names.
Result<void> check_they_start(const ControlCall& call, const Target& target, const std::string& alias) {
  if (const auto version = optional_text_in(call.input, "FunctionVersion")) MAYFLY_TRY(check_it_starts(call, target, alias, *version));
  const json::object* routing = object_in(call.input, "RoutingConfig");
  const json::object* weights = routing == nullptr ? nullptr : object_in(*routing, "AdditionalVersionWeights");
  if (weights == nullptr) return {};
  for (const auto& weight : *weights) MAYFLY_TRY(check_it_starts(call, target, alias, std::string(weight.key())));
  return {};
}

Result<net::Response> create_alias(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, function_of(call));
  Alias alias{.name = text_in(call.input, "Name"),
              .description = text_in(call.input, "Description"),
              .revision_id = base::random_uuid(),
              .version = text_in(call.input, "FunctionVersion"),
              .additional_version = {},
              .additional_weight = 0};
  MAYFLY_TRY(check_they_start(call, target, alias.name));
  const auto add = [&](const FunctionRecord& record, FunctionSettings& settings) -> Result<void> {
    MAYFLY_TRY(check_qualifier(record, alias.version));
    if (settings.aliases.contains(alias.name)) {
      return Error(ErrorCode::kAlreadyExists, "Alias already exists: " + record.latest->arn + ":" + alias.name,
                   "ResourceConflictException");
    }
    MAYFLY_TRY(set_routing(call.input, record, alias));
    settings.aliases[alias.name] = alias;
    return {};
  };
  MAYFLY_ASSIGN(const engine::RecordPtr record, call.context.registry.change_settings(target.name, add));
  return answer(201, *record, alias);
}

Result<net::Response> update_alias(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, function_of(call));
  const std::string name = text_in(call.input, "Name");
  MAYFLY_TRY(check_they_start(call, target, name));
  Alias changed;
  const auto change = [&](const FunctionRecord& record, FunctionSettings& settings) -> Result<void> {
    const auto found = settings.aliases.find(name);
    if (found == settings.aliases.end()) return not_found("Alias not found: " + record.latest->arn + ":" + name);
    if (const std::string wanted = text_in(call.input, "RevisionId"); !wanted.empty() && wanted != found->second.revision_id) {
      return Error(
          ErrorCode::kPreconditionFailed,
          "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest "
          "Revision Id",
          "PreconditionFailedException");
    }
    changed = found->second;
    if (const auto version = optional_text_in(call.input, "FunctionVersion")) {
      MAYFLY_TRY(check_qualifier(record, *version));
      changed.version = *version;
    }
    if (const auto description = optional_text_in(call.input, "Description")) changed.description = *description;
    MAYFLY_TRY(set_routing(call.input, record, changed));
    if (changed.additional_version == changed.version && !changed.version.empty()) {
      return invalid_parameter("Invalid function version " + changed.version + ". Function version " + changed.version +
                               " is already included in routing configuration.");
    }
    changed.revision_id = base::random_uuid();
    found->second = changed;
    return {};
  };
  MAYFLY_ASSIGN(const engine::RecordPtr record, call.context.registry.change_settings(target.name, change));
  return answer(200, *record, changed);
}

Result<net::Response> get_alias(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, function_of(call));
  MAYFLY_ASSIGN(const engine::RecordPtr record, existing_function(call, target));
  const std::string name = text_in(call.input, "Name");
  const Alias* alias = record->find_alias(name);
  if (alias == nullptr) return not_found("Cannot find alias arn: " + record->latest->arn + ":" + name);
  return answer(200, *record, *alias);
}

// Deleting what is not there succeeds (recorded). What was set for the alias goes with it.
Result<net::Response> delete_alias(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, function_of(call));
  const std::string name = text_in(call.input, "Name");
  const auto remove = [&name](const FunctionRecord&, FunctionSettings& settings) -> Result<void> {
    if (settings.aliases.erase(name) == 0) return {};
    settings.provisioned.erase(name);
    settings.policies.erase(name);
    settings.urls.erase(name);
    settings.event_invoke.erase(name);
    return {};
  };
  MAYFLY_TRY(call.context.registry.change_settings(target.name, remove));
  return control_answer(204, {});
}

Result<net::Response> list_aliases(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, function_of(call));
  MAYFLY_ASSIGN(const engine::RecordPtr record, existing_function(call, target));
  MAYFLY_ASSIGN(Page page, Page::from(call.input));
  const std::string version = text_in(call.input, "FunctionVersion");
  for (const auto& [name, alias] : record->settings->aliases) {
    if (page.was_shown(name)) continue;
    if (!version.empty() && alias.version != version && alias.additional_version != version) continue;
    if (!page.add(name, alias_json(*record, alias))) break;
  }
  return std::move(page).answer("Aliases");
}

constexpr ControlEntry kOperations[] = {
    {"CreateAlias", create_alias}, {"DeleteAlias", delete_alias}, {"GetAlias", get_alias},
    {"ListAliases", list_aliases}, {"UpdateAlias", update_alias},
};

}  // namespace

std::span<const ControlEntry> alias_operations() { return kOperations; }

}  // namespace mayfly::api::lambda
