#include "services/internal/policy_document.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"

namespace mayfly::services {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::string_view kSyntax = "Syntax errors in policy.";

Error malformed(std::string_view text) { return Error(ErrorCode::kInvalidArgument, std::string(text), "MalformedPolicyDocument"); }

std::string_view view(const json::string& text) { return {text.data(), text.size()}; }

template <std::size_t N>
bool has_only(const json::object& object, const std::array<std::string_view, N>& names) {
  return std::ranges::all_of(object, [&](const auto& member) {
    return std::ranges::find(names, std::string_view(member.key().data(), member.key().size())) != names.end();
  });
}

// A text or a list of texts, at least one.
Result<std::vector<std::string_view>> texts_of(const json::value& value) {
  std::vector<std::string_view> texts;
  if (const auto* one = value.if_string()) texts.push_back(view(*one));
  if (const auto* list = value.if_array()) {
    for (const json::value& item : *list) {
      if (!item.is_string()) return malformed(kSyntax);
      texts.push_back(view(item.get_string()));
    }
  }
  if (texts.empty()) return malformed(kSyntax);
  return texts;
}

// The one of two members that a statement must have; null without, an error with both.
Result<const json::value*> either(const json::object& statement, std::string_view name, std::string_view inverse) {
  const json::value* plain = statement.if_contains(name);
  const json::value* negated = statement.if_contains(inverse);
  if (plain != nullptr && negated != nullptr) return malformed(kSyntax);
  return plain != nullptr ? plain : negated;
}

bool is_account(std::string_view text) {
  return text.size() == 12 && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

Error invalid_principal(std::string_view type, std::string_view value) {
  return malformed("Invalid principal in policy: \"" + std::string(type) + "\":\"" + std::string(value) + "\"");
}

Result<void> check_principal(const json::value& principal) {
  if (const auto* everyone = principal.if_string())
    return view(*everyone) == "*" ? Result<void>() : invalid_principal("AWS", view(*everyone));
  const auto* types = principal.if_object();
  if (types == nullptr || types->empty() ||
      !has_only(*types, std::array<std::string_view, 4>{"AWS", "Service", "Federated", "CanonicalUser"}))
    return malformed(kSyntax);
  for (const auto& [type, value] : *types) {
    MAYFLY_ASSIGN(const auto texts, texts_of(value));
    for (const std::string_view text : texts) {
      if (type == "AWS" && text != "*" && !is_account(text) && !text.starts_with("arn:")) return invalid_principal("AWS", text);
      if (type == "Service" && !text.contains('.')) return invalid_principal("SERVICE", text);
      if (text.empty()) return malformed(kSyntax);
    }
  }
  return {};
}

Result<void> check_trust(const json::object& statement) {
  if (statement.contains("Resource") || statement.contains("NotResource")) return malformed("Has prohibited field Resource");
  MAYFLY_ASSIGN(const json::value* principal, either(statement, "Principal", "NotPrincipal"));
  if (principal == nullptr) return malformed("Missing required field Principal");
  MAYFLY_TRY(check_principal(*principal));
  MAYFLY_ASSIGN(const json::value* action, either(statement, "Action", "NotAction"));
  if (action == nullptr) return malformed("Missing required field Action");
  MAYFLY_ASSIGN(const auto actions, texts_of(*action));
  for (const std::string_view name : actions) {
    const bool of_sts = name.size() > 4 && std::ranges::equal(name.substr(0, 4), std::string_view("sts:"),
                                                              [](char a, char b) { return (a | 0x20) == (b | 0x20); });
    if (!of_sts) return malformed("AssumeRole policy may only specify STS AssumeRole actions.");
  }
  return {};
}

Result<void> check_identity(const json::object& statement) {
  if (statement.contains("Principal") || statement.contains("NotPrincipal"))
    return malformed("Policy document should not specify a principal.");
  MAYFLY_ASSIGN(const json::value* action, either(statement, "Action", "NotAction"));
  if (action == nullptr) return malformed("Policy statement must contain actions.");
  MAYFLY_ASSIGN(const auto actions, texts_of(*action));
  for (const std::string_view name : actions) {
    const std::size_t colon = name.find(':');
    if (name != "*" && (colon == std::string_view::npos || colon == 0))
      return malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.");
  }
  MAYFLY_ASSIGN(const json::value* resource, either(statement, "Resource", "NotResource"));
  if (resource == nullptr) return malformed("Policy statement must contain resources.");
  MAYFLY_ASSIGN(const auto resources, texts_of(*resource));
  for (const std::string_view name : resources) {
    if (name != "*" && !name.starts_with("arn:")) return malformed("Resource " + std::string(name) + " must be in ARN format or \"*\".");
  }
  return {};
}

Result<void> check_statement(const json::value& value, PolicyPurpose purpose, std::set<std::string_view>& sids) {
  constexpr std::array<std::string_view, 9> kMembers = {"Sid",       "Effect",   "Principal",   "NotPrincipal", "Action",
                                                        "NotAction", "Resource", "NotResource", "Condition"};
  const auto* statement = value.if_object();
  if (statement == nullptr || !has_only(*statement, kMembers)) return malformed(kSyntax);
  if (const json::value* sid = statement->if_contains("Sid")) {
    if (!sid->is_string()) return malformed(kSyntax);
    const std::string_view text = view(sid->get_string());
    if (!text.empty() && !sids.insert(text).second) return malformed("Statement IDs (SID) in a single policy must be unique.");
  }
  const json::value* effect = statement->if_contains("Effect");
  if (effect == nullptr || !effect->is_string() || (view(effect->get_string()) != "Allow" && view(effect->get_string()) != "Deny"))
    return malformed(kSyntax);
  const json::value* condition = statement->if_contains("Condition");
  if (condition != nullptr && !condition->is_object()) return malformed(kSyntax);
  return purpose == PolicyPurpose::kTrust ? check_trust(*statement) : check_identity(*statement);
}

}  // namespace

Result<void> check_policy_document(std::string_view text, PolicyPurpose purpose) {
  const auto document = base::parse_json(text);
  if (!document.ok()) return malformed(purpose == PolicyPurpose::kTrust ? "This policy contains invalid Json" : kSyntax);
  const auto* policy = document->if_object();
  if (policy == nullptr || !has_only(*policy, std::array<std::string_view, 3>{"Version", "Id", "Statement"})) return malformed(kSyntax);
  if (const json::value* version = policy->if_contains("Version")) {
    const bool known = version->is_string() && (view(version->get_string()) == "2012-10-17" || view(version->get_string()) == "2008-10-17");
    if (!known) return malformed(kSyntax);
  }
  const json::value* statements = policy->if_contains("Statement");
  if (statements == nullptr) return malformed(kSyntax);
  std::set<std::string_view> sids;
  if (!statements->is_array()) return check_statement(*statements, purpose, sids);
  if (statements->get_array().empty()) return malformed(kSyntax);
  for (const json::value& statement : statements->get_array()) MAYFLY_TRY(check_statement(statement, purpose, sids));
  return {};
}

std::size_t counted_length(std::string_view document) {
  return static_cast<std::size_t>(std::ranges::count_if(document, [](char c) {
    const bool continues = (static_cast<unsigned char>(c) & 0xC0U) == 0x80U;  // characters, not bytes
    return !continues && c != ' ' && c != '\n' && c != '\r' && c != '\t';
  }));
}

}  // namespace mayfly::services
