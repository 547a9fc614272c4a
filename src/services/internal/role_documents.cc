#include "services/internal/role_documents.h"

#include <boost/json.hpp>
#include <type_traits>

#include "base/json.h"

namespace mayfly::services {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::int64_t kFormat = 1;  // grows only when an older Mayfly could not read what is written

// One list of members for both directions: a member is written and read under one name.
template <typename Item, typename Visitor>
void visit_members(Item& role, Visitor&& visit)
  requires std::is_same_v<std::remove_const_t<Item>, Role>
{
  visit("name", role.name);
  visit("path", role.path);
  visit("id", role.id);
  visit("arn", role.arn);
  visit("created_ms", role.created);
  visit("trust_policy", role.trust_policy);
  visit("description", role.description);
  visit("max_session_s", role.max_session_s);
  visit("boundary", role.boundary);
  visit("tags", role.tags);
  visit("inline_policies", role.inline_policies);
  visit("attached", role.attached);
}

template <typename Item, typename Visitor>
void visit_members(Item& version, Visitor&& visit)
  requires std::is_same_v<std::remove_const_t<Item>, Policy::Version>
{
  visit("number", version.number);
  visit("document", version.document);
  visit("created_ms", version.created);
}

template <typename Item, typename Visitor>
void visit_members(Item& policy, Visitor&& visit)
  requires std::is_same_v<std::remove_const_t<Item>, Policy>
{
  visit("name", policy.name);
  visit("path", policy.path);
  visit("id", policy.id);
  visit("arn", policy.arn);
  visit("description", policy.description);
  visit("created_ms", policy.created);
  visit("updated_ms", policy.updated);
  visit("default_version", policy.default_version);
  visit("next_version", policy.next_version);
  visit("versions", policy.versions);
  visit("tags", policy.tags);
}

json::value to_json(const std::vector<Policy::Version>& versions);
void from_json(const json::value& value, std::vector<Policy::Version>& versions);

json::value to_json(const std::string& text) { return json::value(text); }
json::value to_json(std::int32_t number) { return number; }
json::value to_json(std::uint32_t number) { return number; }
json::value to_json(base::WallTime time) { return base::epoch_ms(time); }
json::value to_json(const std::map<std::string, std::string>& texts) {
  json::object object;
  for (const auto& [key, value] : texts) object.emplace(key, value);
  return object;
}
json::value to_json(const std::set<std::string>& texts) { return json::array(texts.begin(), texts.end()); }
template <typename Item>
json::object object_of(const Item& item) {
  json::object object;
  visit_members(item, [&](const char* name, const auto& member) { object.emplace(name, to_json(member)); });
  return object;
}
json::value to_json(const std::vector<Policy::Version>& versions) {
  json::array list;
  for (const Policy::Version& version : versions) list.push_back(object_of(version));
  return list;
}

std::string text_of(const json::value& value) { return {value.get_string().data(), value.get_string().size()}; }

// A value of another kind leaves the member as it was.
void from_json(const json::value& value, std::string& text) {
  if (value.is_string()) text = text_of(value);
}
template <typename Number>
  requires std::is_integral_v<Number>
void from_json(const json::value& value, Number& number) {
  boost::system::error_code ec;
  const auto read = value.to_number<Number>(ec);
  if (!ec) number = read;
}
void from_json(const json::value& value, base::WallTime& time) {
  if (value.is_int64()) time = base::wall_from_epoch_ms(value.get_int64());
}
void from_json(const json::value& value, std::map<std::string, std::string>& texts) {
  if (!value.is_object()) return;
  for (const auto& member : value.get_object()) {
    if (member.value().is_string()) texts.emplace(member.key(), text_of(member.value()));
  }
}
void from_json(const json::value& value, std::set<std::string>& texts) {
  if (!value.is_array()) return;
  for (const json::value& text : value.get_array()) {
    if (text.is_string()) texts.insert(text_of(text));
  }
}
template <typename Item>
void read_members(const json::object& object, Item& item) {
  visit_members(item, [&](const char* name, auto& member) {
    if (const json::value* value = object.if_contains(name)) from_json(*value, member);
  });
}
void from_json(const json::value& value, std::vector<Policy::Version>& versions) {
  if (!value.is_array()) return;
  for (const json::value& each : value.get_array()) {
    if (each.is_object()) read_members(each.get_object(), versions.emplace_back());
  }
}

template <typename Item>
std::string write(const Item& item) {
  json::object object = object_of(item);
  object.emplace("format", kFormat);
  return json::serialize(object);
}

template <typename Item>
Result<Item> read(std::string_view document, std::string_view what) {
  auto value = base::parse_json(document);
  const auto* object = value.ok() ? value->if_object() : nullptr;
  const json::value* format = object == nullptr ? nullptr : object->if_contains("format");
  if (format == nullptr || !format->is_int64())
    return Error(ErrorCode::kDataLoss, "the stored document of a " + std::string(what) + " cannot be read");
  if (format->get_int64() > kFormat)
    return Error(ErrorCode::kUnsupported, "a " + std::string(what) + " was stored by a newer Mayfly; start that version again");
  Item item;
  read_members(*object, item);
  if (item.name.empty() || item.arn.empty())
    return Error(ErrorCode::kDataLoss, "the stored document of a " + std::string(what) + " has no name");
  return item;
}

}  // namespace

std::string to_document(const Role& role) { return write(role); }
std::string to_document(const Policy& policy) { return write(policy); }
Result<Role> role_from_document(std::string_view document) { return read<Role>(document, "role"); }
Result<Policy> policy_from_document(std::string_view document) {
  MAYFLY_ASSIGN(Policy policy, read<Policy>(document, "policy"));
  if (policy.find(policy.default_version) == nullptr)
    return Error(ErrorCode::kDataLoss, "the stored policy " + policy.arn + " lacks its default version");
  return policy;
}

}  // namespace mayfly::services
