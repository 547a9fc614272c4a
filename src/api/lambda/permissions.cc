// Resource policies of functions: who else may invoke them. One policy each for the function, its versions and its aliases.
#include <algorithm>
#include <boost/json.hpp>

#include "api/api.h"
#include "api/internal/answer.h"
#include "api/lambda/control.h"
#include "api/lambda/input.h"
#include "api/lambda/policy_statement.h"
#include "base/bytes.h"

namespace mayfly::api::lambda {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;
using engine::FunctionRecord;
using engine::FunctionSettings;

constexpr std::size_t kPolicyBytesMax = 20'480;  // AWS's limit of a function's policy

// The statement as AWS writes it. Account numbers become root ARNs.
Result<json::object> statement_from(const json::object& input, const std::string& resource) {
  MAYFLY_ASSIGN(json::value principal, principal_json(text_in(input, "Principal")));
  json::object statement{{"Sid", text_in(input, "StatementId")},
                         {"Effect", "Allow"},
                         {"Principal", std::move(principal)},
                         {"Action", text_in(input, "Action")},
                         {"Resource", resource}};
  json::object equals;
  const auto equal = [&](const char* member, const char* key) {
    if (const auto value = optional_text_in(input, member)) equals[key] = *value;
  };
  equal("FunctionUrlAuthType", "lambda:FunctionUrlAuthType");
  equal("PrincipalOrgID", "aws:PrincipalOrgID");
  equal("SourceAccount", "AWS:SourceAccount");
  equal("EventSourceToken", "lambda:EventSourceToken");
  json::object condition;
  if (!equals.empty()) condition["StringEquals"] = std::move(equals);
  if (input.contains("InvokedViaFunctionUrl")) {
    condition["Bool"] = json::object{{"lambda:InvokedViaFunctionUrl", flag_in(input, "InvokedViaFunctionUrl") ? "true" : "false"}};
  }
  if (const auto source = optional_text_in(input, "SourceArn")) condition["ArnLike"] = json::object{{"AWS:SourceArn", *source}};
  if (!condition.empty()) statement["Condition"] = std::move(condition);
  return statement;
}

// The revision that guards the policy of `qualifier`: that of the function, version or alias it belongs to.
std::string revision_of(const FunctionRecord& record, const std::string& qualifier) {
  if (const engine::Alias* alias = record.find_alias(qualifier)) return alias->revision_id;
  const engine::VersionPtr version = record.find(qualifier);
  return version == nullptr ? std::string() : version->revision_id;
}

Result<void> check_revision(const json::object& input, const FunctionRecord& record, const std::string& qualifier) {
  const std::string wanted = text_in(input, "RevisionId");
  if (wanted.empty() || wanted == revision_of(record, qualifier)) return {};
  return Error(ErrorCode::kPreconditionFailed,
               "The Revision Id provided does not match the latest Revision Id. Call the GetPolicy API to retrieve the latest Revision Id",
               "PreconditionFailedException");
}

// A policy change gives what it belongs to a new revision; the registry does so for versions.
void renew_alias(FunctionSettings& settings, const std::string& qualifier) {
  if (const auto alias = settings.aliases.find(qualifier); alias != settings.aliases.end()) alias->second.revision_id = base::random_uuid();
}

Result<net::Response> add_permission(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  if (target.qualifier == engine::kLatest) return invalid_parameter("We currently do not support adding policies for $LATEST.");
  json::object statement;
  const auto add = [&](const FunctionRecord& record, FunctionSettings& settings) -> Result<void> {
    MAYFLY_TRY(check_qualifier(record, target.qualifier));
    MAYFLY_TRY(check_revision(call.input, record, target.qualifier));
    MAYFLY_ASSIGN(statement, statement_from(call.input, target.arn(call.context.registry.account())));
    MAYFLY_TRY(add_statement(settings.policies[target.qualifier], statement, kPolicyBytesMax));
    renew_alias(settings, target.qualifier);
    return {};
  };
  MAYFLY_TRY(call.context.registry.change_settings(target.name, add));
  return control_answer(201, {{"Statement", json::serialize(statement)}});
}

Result<net::Response> remove_permission(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  if (call.context.registry.find(target.name) == nullptr)
    return not_found("No policy found for: " + call.context.registry.account().function_arn(target.name));
  const std::string qualifier = target.qualifier == engine::kLatest ? "" : target.qualifier;
  const auto remove = [&](const FunctionRecord& record, FunctionSettings& settings) -> Result<void> {
    MAYFLY_TRY(check_qualifier(record, qualifier));
    const auto policy = settings.policies.find(qualifier);
    if (policy == settings.policies.end()) return not_found("No policy is associated with the given resource.");
    MAYFLY_TRY(check_revision(call.input, record, qualifier));
    MAYFLY_TRY(remove_statement(policy->second, text_in(call.input, "StatementId")));
    if (policy->second.statements.empty()) settings.policies.erase(policy);
    renew_alias(settings, qualifier);
    return {};
  };
  MAYFLY_TRY(call.context.registry.change_settings(target.name, remove));
  return control_answer(204, {});
}

Result<net::Response> get_policy(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  const std::string qualifier = target.qualifier == engine::kLatest ? "" : target.qualifier;
  const engine::RecordPtr record = call.context.registry.find(target.name);
  const auto none = [] { return not_found("The resource you requested does not exist."); };
  if (record == nullptr) return none();
  const auto policy = record->settings->policies.find(qualifier);
  if (policy == record->settings->policies.end()) return none();
  return control_answer(200, {{"Policy", policy_document(policy->second)}, {"RevisionId", revision_of(*record, qualifier)}});
}

constexpr ControlEntry kOperations[] = {
    {"AddPermission", add_permission}, {"GetPolicy", get_policy}, {"RemovePermission", remove_permission}};

}  // namespace

std::span<const ControlEntry> permission_operations() { return kOperations; }

}  // namespace mayfly::api::lambda
