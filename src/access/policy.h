// Resource policies: whether the statements on a resource allow a request, by the evaluation rules of IAM ("Policy evaluation
// logic" and "IAM JSON policy elements reference" in the IAM user guide). Pure functions, safe from every thread.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace mayfly::access {

// What is asked. Members stay empty where they do not apply.
struct PolicyRequest {
  std::string account;                         // of the caller, 12 digits; empty: nobody has signed, or a service asks
  std::string principal_arn;                   // of the caller
  std::string role_arn;                        // the role an assumed-role session stands for
  std::string service;                         // "events.amazonaws.com" when a service asks
  std::string action;                          // "lambda:InvokeFunctionUrl"
  std::string resource;                        // an ARN
  std::map<std::string, std::string> context;  // condition keys in lower case: "lambda:functionurlauthtype" -> "NONE"
};

enum class PolicyDecision : std::uint8_t {
  kNone,  // no statement speaks of it: somebody else may allow it
  kAllow,
  kDeny,  // explicitly; nobody else may allow it
};

// Each statement is one JSON object. Effect, Principal, Action and NotAction, Resource and NotResource and Condition are evaluated;
// what this code does not understand (NotPrincipal, an operator, a policy variable, a broken document) never allows and
// always denies.
[[nodiscard]] PolicyDecision evaluate(std::span<const std::string_view> statements, const PolicyRequest& request);

// Whether `text` matches `pattern` with '*' for any run of characters and '?' for one.
[[nodiscard]] bool matches_wildcard(std::string_view pattern, std::string_view text);

}  // namespace mayfly::access
