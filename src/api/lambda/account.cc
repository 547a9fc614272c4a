// What belongs to the account or hangs on functions without effect on how they run: settings and usage, tags, runtime management,
// recursion, code signing.
#include <algorithm>
#include <boost/json.hpp>

#include "api/api.h"
#include "api/internal/answer.h"
#include "api/lambda/concurrency.h"
#include "api/lambda/control.h"
#include "api/lambda/event_source_mappings.h"
#include "api/lambda/input.h"

namespace mayfly::api::lambda {
namespace {

namespace json = boost::json;
using base::Result;
using engine::FunctionRecord;
using engine::FunctionSettings;

constexpr std::uint64_t kTotalCodeBytesMax = 80'530'636'800;  // 75 GB, AWS's default

// --- Tags ---

// The function a tag operation's ARN names.
Result<std::string> tagged_function(const ControlCall& call) {
  const std::string arn = text_in(call.input, "Resource");
  if (arn.find(":function:") == std::string::npos) return unsupported("mayfly tags functions and event source mappings so far, not " + arn);
  MAYFLY_ASSIGN(const Target target, resolve_name(arn, "", call.context.registry.account(), call.action));
  if (!target.qualifier.empty())
    return invalid_parameter("Tags on function aliases and versions are not supported. Please specify a function ARN.");
  MAYFLY_TRY(find_version(call.context.registry, target));
  return target.name;
}

Result<net::Response> tag_resource(const ControlCall& call) {
  if (names_event_source_mapping(call.input)) return tag_event_source_mapping(call);
  MAYFLY_ASSIGN(const std::string name, tagged_function(call));
  MAYFLY_TRY(call.context.registry.tag(name, string_map(call.input.at("Tags").get_object())));
  return control_answer(204, {});
}

Result<net::Response> untag_resource(const ControlCall& call) {
  if (names_event_source_mapping(call.input)) return untag_event_source_mapping(call);
  MAYFLY_ASSIGN(const std::string name, tagged_function(call));
  std::vector<std::string> keys;
  for (const json::value& key : call.input.at("TagKeys").get_array()) keys.emplace_back(key.get_string());
  MAYFLY_TRY(call.context.registry.untag(name, keys));
  return control_answer(204, {});
}

Result<net::Response> list_tags(const ControlCall& call) {
  if (names_event_source_mapping(call.input)) return list_event_source_mapping_tags(call);
  MAYFLY_ASSIGN(const std::string name, tagged_function(call));
  json::object tags;
  if (const engine::RecordPtr record = call.context.registry.find(name)) {
    for (const auto& [key, value] : record->settings->tags) tags[key] = value;
  }
  return control_answer(200, {{"Tags", std::move(tags)}});
}

// --- Account ---

Result<net::Response> get_account_settings(const ControlCall& call) {
  const engine::FunctionRegistry& registry = call.context.registry;
  const std::uint64_t promised = std::min<std::uint64_t>(call.context.concurrency_max, promised_concurrency(registry));
  json::object limit{{"TotalCodeSize", kTotalCodeBytesMax},
                     {"CodeSizeUnzipped", engine::Limits::kUnzippedBytesMax},
                     {"CodeSizeZipped", engine::Limits::kZipBytesMax},
                     {"ConcurrentExecutions", call.context.concurrency_max},
                     {"UnreservedConcurrentExecutions", call.context.concurrency_max - promised}};
  json::object usage{{"TotalCodeSize", registry.total_code_bytes() + call.context.layers.total_code_bytes()},
                     {"FunctionCount", registry.function_count()}};
  json::object body;
  body["AccountLimit"] = std::move(limit);
  body["AccountUsage"] = std::move(usage);
  return control_answer(200, body);
}

// There are no code signing configurations here: the answer is empty, as recorded.
Result<net::Response> get_function_code_signing_config(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, whole_function(call));
  MAYFLY_TRY(find_version(call.context.registry, target));
  return control_answer(200, {});
}

// --- Runtime management: kept and shown; the interpreters are the host's ---

std::string qualifier_or_latest(const Target& target) { return target.qualifier.empty() ? std::string(engine::kLatest) : target.qualifier; }

json::object management_json(const FunctionRecord& record, const std::string& qualifier) {
  const auto found = record.settings->runtime_management.find(qualifier);
  const engine::RuntimeManagement management =
      found == record.settings->runtime_management.end() ? engine::RuntimeManagement() : found->second;
  json::object shown{{"UpdateRuntimeOn", management.update_on}, {"FunctionArn", record.latest->arn + ":" + qualifier}};
  if (!management.runtime_version_arn.empty()) shown["RuntimeVersionArn"] = management.runtime_version_arn;
  return shown;
}

Result<net::Response> get_runtime_management(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  MAYFLY_ASSIGN(const engine::RecordPtr record, existing_function(call, target));
  MAYFLY_TRY(check_qualifier(*record, target.qualifier));
  return control_answer(200, management_json(*record, qualifier_or_latest(target)));
}

Result<net::Response> put_runtime_management(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  const engine::RuntimeManagement wanted{.update_on = text_in(call.input, "UpdateRuntimeOn"),
                                         .runtime_version_arn = text_in(call.input, "RuntimeVersionArn")};
  if ((wanted.update_on == "Manual") == wanted.runtime_version_arn.empty())
    return invalid_parameter("RuntimeVersionArn must be given when UpdateRuntimeOn is Manual, and only then.");
  const auto change = [&](const FunctionRecord& record, FunctionSettings& settings) -> Result<void> {
    MAYFLY_TRY(check_qualifier(record, target.qualifier));
    settings.runtime_management[qualifier_or_latest(target)] = wanted;
    return {};
  };
  MAYFLY_ASSIGN(const engine::RecordPtr record, call.context.registry.change_settings(target.name, change));
  return control_answer(200, management_json(*record, qualifier_or_latest(target)));
}

// --- Recursion: kept and shown; loops are bounded by concurrency ---

Result<net::Response> get_recursion(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, whole_function(call));
  MAYFLY_ASSIGN(const engine::RecordPtr record, existing_function(call, target));
  return control_answer(200, {{"RecursiveLoop", record->settings->recursive_loop}});
}

Result<net::Response> put_recursion(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, whole_function(call));
  const std::string wanted = text_in(call.input, "RecursiveLoop");
  const auto change = [&wanted](const FunctionRecord&, FunctionSettings& settings) -> Result<void> {
    settings.recursive_loop = wanted;
    return {};
  };
  MAYFLY_TRY(call.context.registry.change_settings(target.name, change));
  return control_answer(200, {{"RecursiveLoop", wanted}});
}

constexpr ControlEntry kOperations[] = {{"GetAccountSettings", get_account_settings},
                                        {"GetFunctionCodeSigningConfig", get_function_code_signing_config},
                                        {"GetFunctionRecursionConfig", get_recursion},
                                        {"GetRuntimeManagementConfig", get_runtime_management},
                                        {"ListTags", list_tags},
                                        {"PutFunctionRecursionConfig", put_recursion},
                                        {"PutRuntimeManagementConfig", put_runtime_management},
                                        {"TagResource", tag_resource},
                                        {"UntagResource", untag_resource}};

}  // namespace

std::span<const ControlEntry> account_operations() { return kOperations; }

}  // namespace mayfly::api::lambda
