#include "api/lambda/policy_statement.h"

#include <algorithm>
#include <boost/json.hpp>

#include "api/internal/answer.h"
#include "base/json.h"

namespace mayfly::api::lambda {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;

namespace {

bool is_account(const std::string& text) { return text.size() == 12 && text.find_first_not_of("0123456789") == std::string::npos; }

// arn:PARTITION:iam::...
bool is_iam_arn(const std::string& text) {
  if (!text.starts_with("arn:aws")) return false;
  const std::size_t service = text.find(':', 4);
  return service != std::string::npos && text.substr(service).starts_with(":iam::");
}

}  // namespace

Result<json::value> principal_json(const std::string& principal) {
  if (principal == "*") return json::value("*");
  if (principal.ends_with(".amazonaws.com")) return json::value(json::object{{"Service", principal}});
  if (is_account(principal)) return json::value(json::object{{"AWS", "arn:aws:iam::" + principal + ":root"}});
  if (is_iam_arn(principal)) return json::value(json::object{{"AWS", principal}});
  return invalid_parameter("The provided principal was invalid. Please check the principal and try again.");
}

Result<void> add_statement(engine::ResourcePolicy& policy, const json::object& statement, std::size_t bytes_max) {
  const std::string sid(statement.at("Sid").get_string());
  const auto same = [&sid](const engine::ResourcePolicy::Statement& each) { return each.sid == sid; };
  if (std::any_of(policy.statements.begin(), policy.statements.end(), same)) {
    return Error(
        ErrorCode::kAlreadyExists,
        "The statement id (" + sid + ") provided already exists. Please provide a new statement id, or remove the existing statement.",
        "ResourceConflictException");
  }
  policy.statements.push_back({.sid = sid, .document = json::serialize(statement)});
  const std::size_t size = policy_document(policy).size();
  if (size <= bytes_max) return {};
  policy.statements.pop_back();
  return Error(ErrorCode::kInvalidArgument,
               "The final policy size (" + std::to_string(size) + ") is bigger than the limit (" + std::to_string(bytes_max) + ").",
               "PolicyLengthExceededException");
}

Result<void> remove_statement(engine::ResourcePolicy& policy, const std::string& sid) {
  const auto same = [&sid](const engine::ResourcePolicy::Statement& each) { return each.sid == sid; };
  if (std::erase_if(policy.statements, same) > 0) return {};
  return not_found("Statement " + sid + " is not found in resource policy.");
}

std::string policy_document(const engine::ResourcePolicy& policy) {
  json::array statements;
  for (const auto& statement : policy.statements) {
    auto parsed = base::parse_json(statement.document);
    if (parsed.ok()) statements.push_back(*std::move(parsed));
  }
  return json::serialize(json::object{{"Version", "2012-10-17"}, {"Id", "default"}, {"Statement", std::move(statements)}});
}

}  // namespace mayfly::api::lambda
