#include "api/lambda/input.h"

#include <boost/json.hpp>

namespace mayfly::api::lambda {

namespace json = boost::json;

namespace {

const json::value* find(const json::object& input, std::string_view name) {
  return input.if_contains(json::string_view(name.data(), name.size()));
}
std::string as_text(const json::string& text) { return {text.data(), text.size()}; }

}  // namespace

std::optional<std::string> optional_text_in(const json::object& input, std::string_view name) {
  const json::value* found = find(input, name);
  if (found == nullptr || !found->is_string()) return std::nullopt;
  return as_text(found->get_string());
}

std::string text_in(const json::object& input, std::string_view name) { return optional_text_in(input, name).value_or(std::string()); }

std::optional<std::int64_t> number_in(const json::object& input, std::string_view name) {
  const json::value* found = find(input, name);
  const auto* number = found == nullptr ? nullptr : found->if_int64();
  return number == nullptr ? std::nullopt : std::optional<std::int64_t>(*number);
}

bool flag_in(const json::object& input, std::string_view name) {
  const json::value* found = find(input, name);
  return found != nullptr && found->is_bool() && found->get_bool();
}

const json::object* object_in(const json::object& input, std::string_view name) {
  const json::value* found = find(input, name);
  return found == nullptr ? nullptr : found->if_object();
}

std::vector<std::string> texts_in(const json::object& input, std::string_view name) {
  std::vector<std::string> texts;
  const json::value* found = find(input, name);
  if (found == nullptr || !found->is_array()) return texts;
  for (const json::value& each : found->get_array()) {
    if (const auto* text = each.if_string()) texts.push_back(as_text(*text));
  }
  return texts;
}

std::map<std::string, std::string> string_map(const json::object& object) {
  std::map<std::string, std::string> map;
  for (const auto& member : object) {
    if (const auto* text = member.value().if_string()) map.emplace(std::string(member.key()), as_text(*text));
  }
  return map;
}

}  // namespace mayfly::api::lambda
