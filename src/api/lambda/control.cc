#include "api/lambda/control.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>

#include "api/api.h"
#include "api/internal/answer.h"
#include "api/lambda/input.h"
#include "base/bytes.h"

namespace mayfly::api::lambda {

namespace json = boost::json;
using base::Result;

ControlOperation find_control_operation(std::string_view name) {
  for (const auto& group :
       {function_operations(), alias_operations(), permission_operations(), function_url_operations(), concurrency_operations(),
        event_invoke_operations(), event_source_mapping_operations(), layer_operations(), account_operations()}) {
    for (const ControlEntry& entry : group) {
      if (entry.name == name) return entry.run;
    }
  }
  return nullptr;
}

Result<std::string> resource_of(const json::object& input, const engine::Account& account, const std::string& action) {
  if (input.contains("Resource")) return text_in(input, "Resource");
  if (input.contains("UUID"))
    return "arn:aws:lambda:" + account.region + ":" + account.id + ":event-source-mapping:" + text_in(input, "UUID");
  if (!input.contains("FunctionName")) return std::string("*");
  MAYFLY_ASSIGN(const Target target, resolve_name(text_in(input, "FunctionName"), text_in(input, "Qualifier"), account, action));
  return target.arn(account);
}

net::Response control_answer(int status, const json::object& body) { return json_answer(Protocol::kRestJson, status, body); }

Result<Target> target_of(const ControlCall& call) {
  return resolve_name(text_in(call.input, "FunctionName"), text_in(call.input, "Qualifier"), call.context.registry.account(), call.action);
}

Result<Target> whole_function(const ControlCall& call) {
  MAYFLY_ASSIGN(Target target, target_of(call));
  if (target.qualifier.empty() || target.qualifier == engine::kLatest) return target;
  return not_found("Function not found: " + target.arn(call.context.registry.account()));
}

Result<engine::RecordPtr> existing_function(const ControlCall& call, const Target& target) {
  engine::RecordPtr record = call.context.registry.find(target.name);
  if (record == nullptr) return not_found("Function not found: " + call.context.registry.account().function_arn(target.name));
  return record;
}

Result<void> check_qualifier(const engine::FunctionRecord& record, const std::string& qualifier) {
  if (record.find(qualifier) != nullptr) return {};
  const bool version = qualifier == engine::kLatest || qualifier.find_first_not_of("0123456789") == std::string::npos;
  const std::string arn = record.latest->arn + ":" + qualifier;
  return not_found(version ? "Function not found: " + arn : "Cannot find alias arn: " + arn);
}

std::size_t page_size(const json::object& input, std::size_t most) {
  const auto wanted = number_in(input, "MaxItems");
  return wanted ? std::min(most, static_cast<std::size_t>(*wanted)) : most;
}

Result<std::string> marker_in(const json::object& input) {
  const std::string marker = text_in(input, "Marker");
  if (marker.empty()) return std::string();
  auto decoded = base::base64_decode(marker);
  if (decoded.ok() && !decoded->empty()) return decoded;
  return invalid_parameter("The Marker is not one that this operation gave out; start again without it.");
}

std::string make_marker(std::string_view last_key) { return base::base64_encode(last_key); }

namespace {

constexpr char kKeySign = '@';  // before the key in a page's marker, which is never empty so

}  // namespace

Result<Page> Page::from(const json::object& input) {
  Page page;
  page.max_ = page_size(input);
  MAYFLY_ASSIGN(const std::string marker, marker_in(input));
  if (marker.empty()) return page;
  if (marker.front() != kKeySign) return invalid_parameter("The Marker is not one that this operation gave out; start again without it.");
  page.after_ = marker.substr(1);
  return page;
}

bool Page::add(std::string_view key, json::object entry) {
  more_ = entries_.size() == max_;
  if (more_) return false;
  entries_.push_back(std::move(entry));
  last_ = key;
  return true;
}

net::Response Page::answer(std::string_view name) && {
  json::object body;
  if (more_) body["NextMarker"] = make_marker(kKeySign + last_);
  body[json::string_view(name.data(), name.size())] = std::move(entries_);
  return control_answer(200, body);
}

}  // namespace mayfly::api::lambda
