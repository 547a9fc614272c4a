#include "events/internal/event_pattern.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <charconv>
#include <string>

#include "base/json.h"

namespace mayfly::events {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;

Error wrong(std::string message) { return Error(ErrorCode::kInvalidArgument, std::move(message)); }

std::string_view view(const json::string& text) { return {text.data(), text.size()}; }

bool is_operator(std::string_view name) {
  static constexpr std::array<std::string_view, 8> kOperators = {
      "prefix", "suffix", "equals-ignore-case", "wildcard", "anything-but", "numeric", "exists", "cidr"};
  return std::find(kOperators.begin(), kOperators.end(), name) != kOperators.end();
}

Result<void> check_wildcard(const json::value& value) {
  if (!value.is_string()) return wrong("wildcard takes a string");
  if (view(value.get_string()).find("**") != std::string_view::npos) return wrong("wildcard takes no two stars in a row");
  return {};
}

// A string, or {"equals-ignore-case": string}.
Result<void> check_affix(std::string_view name, const json::value& value) {
  if (value.is_string()) return {};
  const json::object* object = value.if_object();
  const json::value* folded = object != nullptr && object->size() == 1 ? object->if_contains("equals-ignore-case") : nullptr;
  if (folded != nullptr && folded->is_string()) return {};
  return wrong(std::string(name) + " takes a string");
}

bool all_strings(const json::array& list) {
  return !list.empty() && std::all_of(list.begin(), list.end(), [](const json::value& each) { return each.is_string(); });
}
bool all_numbers(const json::array& list) {
  return !list.empty() && std::all_of(list.begin(), list.end(), [](const json::value& each) { return each.is_number(); });
}

Result<void> check_anything_but(const json::value& value) {
  if (value.is_string() || value.is_number()) return {};
  if (const json::array* list = value.if_array()) {
    if (all_strings(*list) || all_numbers(*list)) return {};
    return wrong("anything-but takes a list of strings or of numbers");
  }
  const json::object* object = value.if_object();
  if (object == nullptr || object->size() != 1) return wrong("anything-but takes a value, a list of values or one matcher");
  const std::string_view name(object->begin()->key().data(), object->begin()->key().size());
  const json::value& inner = object->begin()->value();
  if (name != "prefix" && name != "suffix" && name != "equals-ignore-case" && name != "wildcard")
    return wrong("anything-but does not take " + std::string(name));
  if (const json::array* list = inner.if_array()) return all_strings(*list) ? Result<void>() : wrong("a list of strings is expected");
  return name == "wildcard" ? check_wildcard(inner) : check_affix(name, inner);
}

// [op, number] or a range [">" or ">=", low, "<" or "<=", high].
Result<void> check_numeric(const json::value& value) {
  const json::array* list = value.if_array();
  if (list == nullptr || (list->size() != 2 && list->size() != 4)) return wrong("numeric takes one comparison or a range");
  for (std::size_t i = 0; i < list->size(); i += 2) {
    const json::string* name = (*list)[i].if_string();
    static constexpr std::array<std::string_view, 5> kComparisons = {"=", "<", "<=", ">", ">="};
    if (name == nullptr || std::find(kComparisons.begin(), kComparisons.end(), view(*name)) == kComparisons.end())
      return wrong("numeric knows =, <, <=, > and >=");
    if (!(*list)[i + 1].is_number()) return wrong("numeric compares with a number");
  }
  if (list->size() == 2) return {};
  if (!view((*list)[0].get_string()).starts_with('>') || !view((*list)[2].get_string()).starts_with('<'))
    return wrong("a numeric range goes from > or >= to < or <=");
  if ((*list)[1].to_number<double>() >= (*list)[3].to_number<double>()) return wrong("the bottom of a numeric range is below its top");
  return {};
}

Result<void> check_cidr(const json::value& value) {
  if (!value.is_string()) return wrong("cidr takes a string");
  const std::string text(view(value.get_string()));
  const std::size_t slash = text.find('/');
  if (slash == std::string::npos) return wrong("cidr takes address/bits");
  const std::string address = text.substr(0, slash);
  std::array<unsigned char, 16> bytes{};
  const bool is_v4 = inet_pton(AF_INET, address.c_str(), bytes.data()) == 1;
  if (!is_v4 && inet_pton(AF_INET6, address.c_str(), bytes.data()) != 1) return wrong("cidr takes address/bits");
  unsigned bits = 0;
  const char* end = text.data() + text.size();
  const auto [stop, failed] = std::from_chars(text.data() + slash + 1, end, bits);
  if (failed != std::errc() || stop != end || bits > (is_v4 ? 32U : 128U)) return wrong("cidr takes address/bits");
  return {};
}

Result<void> check_matcher(const json::object& object) {
  if (object.size() != 1) return wrong("a matcher has one operator");
  const std::string_view name(object.begin()->key().data(), object.begin()->key().size());
  const json::value& value = object.begin()->value();
  if (name == "prefix" || name == "suffix") return check_affix(name, value);
  if (name == "equals-ignore-case") return value.is_string() ? Result<void>() : wrong("equals-ignore-case takes a string");
  if (name == "wildcard") return check_wildcard(value);
  if (name == "anything-but") return check_anything_but(value);
  if (name == "numeric") return check_numeric(value);
  if (name == "exists") return value.is_bool() ? Result<void>() : wrong("exists takes true or false");
  if (name == "cidr") return check_cidr(value);
  return wrong("there is no operator " + std::string(name));
}

Result<void> check_leaf(const json::array& list) {
  if (list.empty()) return wrong("a list of values must not be empty");
  for (const json::value& each : list) {
    if (each.is_array()) return wrong("a list of values holds no list");
    if (const json::object* matcher = each.if_object()) MAYFLY_TRY(check_matcher(*matcher));
  }
  return {};
}

// "$or" means a choice only with two objects or more that are patterns; else it is a field of that name.
bool is_choice(std::string_view name, const json::array& list) {
  const auto is_pattern = [](const json::value& each) {
    const json::object* object = each.if_object();
    return object != nullptr && std::none_of(object->begin(), object->end(),
                                             [](const auto& member) { return is_operator({member.key().data(), member.key().size()}); });
  };
  return name == "$or" && list.size() >= 2 && std::all_of(list.begin(), list.end(), is_pattern);
}

// Depth is bounded by the parser's limit.
Result<void> check_object(const json::object& object) {
  if (object.empty()) return wrong("an object must not be empty");
  for (const auto& member : object) {
    if (const json::object* inner = member.value().if_object()) {
      MAYFLY_TRY(check_object(*inner));
      continue;
    }
    const json::array* list = member.value().if_array();
    if (list == nullptr) return wrong("\"" + std::string(member.key()) + "\" must be an object or a list");
    if (!is_choice({member.key().data(), member.key().size()}, *list)) {
      MAYFLY_TRY(check_leaf(*list));
      continue;
    }
    for (const json::value& each : *list) MAYFLY_TRY(check_object(each.get_object()));
  }
  return {};
}

}  // namespace

Result<void> check_event_pattern(std::string_view text) {
  MAYFLY_ASSIGN(const json::value parsed, base::parse_json(text));
  if (!parsed.is_object()) return wrong("a pattern is an object");
  return check_object(parsed.get_object());
}

}  // namespace mayfly::events
