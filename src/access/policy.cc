#include "access/policy.h"

#include <array>
#include <boost/json.hpp>
#include <charconv>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/json.h"

namespace mayfly::access {
namespace {

namespace json = boost::json;

// Of one element of a statement. What is not understood must not allow and must not fail to deny.
enum class Match : std::uint8_t { kNo, kYes, kUnknown };

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

// "*" and "?" aside, "${...}" is a variable of the request, which nothing here replaces.
bool has_variable(std::string_view text) { return text.find("${") != std::string_view::npos; }

// A member that is one value or a list of them; none: something else is among them.
std::optional<std::vector<std::string>> texts_of(const json::value& member) {
  const auto text_of = [](const json::value& value) -> std::optional<std::string> {
    if (const auto* text = value.if_string()) return std::string(text->data(), text->size());
    if (const auto* flag = value.if_bool()) return *flag ? "true" : "false";
    if (value.is_int64() || value.is_uint64()) return json::serialize(value);
    return std::nullopt;
  };
  std::vector<std::string> texts;
  const auto* list = member.if_array();
  if (list == nullptr) {
    auto text = text_of(member);
    if (!text) return std::nullopt;
    texts.push_back(*std::move(text));
    return texts;
  }
  for (const json::value& value : *list) {
    auto text = text_of(value);
    if (!text) return std::nullopt;
    texts.push_back(*std::move(text));
  }
  return texts;
}

bool is_account(std::string_view text) { return text.size() == 12 && text.find_first_not_of("0123456789") == std::string_view::npos; }

bool is_principal(std::string_view named, const PolicyRequest& request) {
  if (named == "*") return true;
  if (request.account.empty()) return false;
  if (named == request.principal_arn || (!request.role_arn.empty() && named == request.role_arn)) return true;
  return named == request.account || (named.starts_with("arn:aws:iam::") && named == "arn:aws:iam::" + request.account + ":root");
}

Match match_principal(const json::object& statement, const PolicyRequest& request) {
  if (statement.contains("NotPrincipal")) return Match::kUnknown;
  const json::value* principal = statement.if_contains("Principal");
  if (principal == nullptr) return Match::kUnknown;
  if (const auto* text = principal->if_string()) {
    if (*text == "*") return Match::kYes;
    return is_account({text->data(), text->size()}) && is_principal({text->data(), text->size()}, request) ? Match::kYes : Match::kNo;
  }
  const auto* kinds = principal->if_object();
  if (kinds == nullptr) return Match::kUnknown;
  for (const auto& kind : *kinds) {
    const auto named = texts_of(kind.value());
    if (!named) return Match::kUnknown;
    for (const std::string& name : *named) {
      if (kind.key() == "AWS" && is_principal(name, request)) return Match::kYes;
      if (kind.key() == "Service" && !request.service.empty() && (name == request.service || name == "*")) return Match::kYes;
    }
  }
  return Match::kNo;
}

// Member `name`, or its opposite "Not" + name; one of them must be there.
template <typename Matches>
Match match_either(const json::object& statement, const std::string& name, Matches matches) {
  const json::value* wanted = statement.if_contains(name);
  const json::value* unwanted = statement.if_contains("Not" + name);
  if ((wanted == nullptr) == (unwanted == nullptr)) return Match::kUnknown;
  const auto patterns = texts_of(wanted != nullptr ? *wanted : *unwanted);
  if (!patterns) return Match::kUnknown;
  bool found = false;
  for (const std::string& pattern : *patterns) {
    if (has_variable(pattern)) return Match::kUnknown;
    found = found || matches(pattern);
  }
  return found == (wanted != nullptr) ? Match::kYes : Match::kNo;
}

// Each of the six parts by itself, so that a '*' does not reach over a colon of the first five.
bool matches_arn(std::string_view pattern, std::string_view arn) {
  for (int part = 0; part < 5; ++part) {
    const std::size_t a = pattern.find(':'), b = arn.find(':');
    if (a == std::string_view::npos || b == std::string_view::npos) return false;
    if (!matches_wildcard(pattern.substr(0, a), arn.substr(0, b))) return false;
    pattern.remove_prefix(a + 1);
    arn.remove_prefix(b + 1);
  }
  return matches_wildcard(pattern, arn);
}

using Compare = bool (*)(std::string_view wanted, std::string_view actual);

template <typename Order>
bool compare_numbers(std::string_view wanted, std::string_view actual, Order order) {
  double a = 0, b = 0;
  const auto read = [](std::string_view text, double& number) {
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
    return ec == std::errc() && end == text.data() + text.size();
  };
  return read(wanted, a) && read(actual, b) && order(b, a);
}

struct Operator {
  std::string_view name;
  bool negated;
  Compare compare;
};

bool equal(std::string_view wanted, std::string_view actual) { return wanted == actual; }
bool equal_any_case(std::string_view wanted, std::string_view actual) { return lower(wanted) == lower(actual); }

constexpr std::array kOperators = {
    Operator{"StringEquals", false, equal},
    Operator{"StringNotEquals", true, equal},
    Operator{"StringEqualsIgnoreCase", false, equal_any_case},
    Operator{"StringNotEqualsIgnoreCase", true, equal_any_case},
    Operator{"StringLike", false, matches_wildcard},
    Operator{"StringNotLike", true, matches_wildcard},
    Operator{"ArnEquals", false, matches_arn},
    Operator{"ArnLike", false, matches_arn},
    Operator{"ArnNotEquals", true, matches_arn},
    Operator{"ArnNotLike", true, matches_arn},
    Operator{"Bool", false, equal_any_case},
    Operator{"NumericEquals", false, [](std::string_view w, std::string_view a) { return compare_numbers(w, a, std::equal_to<>()); }},
    Operator{"NumericNotEquals", true, [](std::string_view w, std::string_view a) { return compare_numbers(w, a, std::equal_to<>()); }},
    Operator{"NumericLessThan", false, [](std::string_view w, std::string_view a) { return compare_numbers(w, a, std::less<>()); }},
    Operator{"NumericLessThanEquals", false,
             [](std::string_view w, std::string_view a) { return compare_numbers(w, a, std::less_equal<>()); }},
    Operator{"NumericGreaterThan", false, [](std::string_view w, std::string_view a) { return compare_numbers(w, a, std::greater<>()); }},
    Operator{"NumericGreaterThanEquals", false,
             [](std::string_view w, std::string_view a) { return compare_numbers(w, a, std::greater_equal<>()); }},
};

const Operator* find_operator(std::string_view name) {
  for (const Operator& known : kOperators) {
    if (known.name == name) return &known;
  }
  return nullptr;
}

const std::string* find_key(const PolicyRequest& request, std::string_view key) {
  const auto found = request.context.find(lower(key));
  return found == request.context.end() ? nullptr : &found->second;
}

// "Null": whether the key must be absent.
Match match_null(const json::object& keys, const PolicyRequest& request) {
  for (const auto& key : keys) {
    const auto wanted = texts_of(key.value());
    if (!wanted || wanted->size() != 1 || (wanted->front() != "true" && wanted->front() != "false")) return Match::kUnknown;
    if ((find_key(request, key.key()) == nullptr) != (wanted->front() == "true")) return Match::kNo;
  }
  return Match::kYes;
}

Match match_operator(std::string_view name, const json::object& keys, const PolicyRequest& request) {
  if (name == "Null") return match_null(keys, request);
  constexpr std::string_view kIfExists = "IfExists";
  const bool if_exists = name.ends_with(kIfExists);
  if (if_exists) name.remove_suffix(kIfExists.size());
  const Operator* known = find_operator(name);
  if (known == nullptr) return Match::kUnknown;
  for (const auto& key : keys) {
    const auto wanted = texts_of(key.value());
    if (!wanted) return Match::kUnknown;
    const std::string* actual = find_key(request, key.key());
    bool found = false;
    for (const std::string& value : *wanted) {
      if (has_variable(value)) return Match::kUnknown;
      found = found || (actual != nullptr && known->compare(value, *actual));
    }
    const bool holds = actual == nullptr ? (if_exists || known->negated) : found != known->negated;
    if (!holds) return Match::kNo;
  }
  return Match::kYes;
}

Match match_condition(const json::object& statement, const PolicyRequest& request) {
  const json::value* condition = statement.if_contains("Condition");
  if (condition == nullptr) return Match::kYes;
  const auto* operators = condition->if_object();
  if (operators == nullptr) return Match::kUnknown;
  Match all = Match::kYes;
  for (const auto& entry : *operators) {
    const auto* keys = entry.value().if_object();
    const Match one = keys == nullptr ? Match::kUnknown : match_operator(entry.key(), *keys, request);
    if (one == Match::kNo) return Match::kNo;
    if (one == Match::kUnknown) all = Match::kUnknown;
  }
  return all;
}

Match match_statement(const json::object& statement, const PolicyRequest& request) {
  const auto action = [&request](std::string_view pattern) { return matches_wildcard(lower(pattern), lower(request.action)); };
  const auto resource = [&request](std::string_view pattern) { return matches_wildcard(pattern, request.resource); };
  const std::array matches = {match_principal(statement, request), match_either(statement, "Action", action),
                              match_either(statement, "Resource", resource), match_condition(statement, request)};
  Match all = Match::kYes;
  for (const Match one : matches) {
    if (one == Match::kNo) return Match::kNo;
    if (one == Match::kUnknown) all = Match::kUnknown;
  }
  return all;
}

using Statement = std::shared_ptr<const json::object>;

Statement parse_statement(std::string_view document) {
  auto parsed = base::parse_json(document);
  if (!parsed.ok() || !parsed->is_object()) return nullptr;
  return std::make_shared<const json::object>(std::move(parsed->get_object()));
}

// The statement of `document`; null when it is none. Each thread remembers those it used: every request of a function URL asks for the
// same ones, and parsing them would be most of its work.
Statement statement_of(std::string_view document) {
  constexpr std::size_t kRememberedMax = 256;
  constexpr std::size_t kDocumentBytesMax = 4096;
  thread_local std::map<std::string, Statement, std::less<>> remembered;
  if (document.size() > kDocumentBytesMax) return parse_statement(document);
  if (const auto found = remembered.find(document); found != remembered.end()) return found->second;
  if (remembered.size() >= kRememberedMax) remembered.clear();
  return remembered.emplace(document, parse_statement(document)).first->second;
}

PolicyDecision evaluate_one(std::string_view document, const PolicyRequest& request) {
  const Statement statement = statement_of(document);
  if (statement == nullptr) return PolicyDecision::kDeny;
  const json::value* effect = statement->if_contains("Effect");
  const bool allows = effect != nullptr && effect->is_string() && effect->get_string() == "Allow";
  const Match match = match_statement(*statement, request);
  if (allows) return match == Match::kYes ? PolicyDecision::kAllow : PolicyDecision::kNone;
  return match == Match::kNo ? PolicyDecision::kNone : PolicyDecision::kDeny;
}

}  // namespace

PolicyDecision evaluate(std::span<const std::string_view> statements, const PolicyRequest& request) {
  PolicyDecision decision = PolicyDecision::kNone;
  for (const std::string_view statement : statements) {
    const PolicyDecision one = evaluate_one(statement, request);
    if (one == PolicyDecision::kDeny) return one;
    if (one == PolicyDecision::kAllow) decision = one;
  }
  return decision;
}

// Remembers the last '*' only: linear in each of its places, never exponential.
bool matches_wildcard(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace mayfly::access
