// Function URLs as configuration; the gateway serves them.
#include <algorithm>
#include <boost/json.hpp>

#include "api/api.h"
#include "api/internal/answer.h"
#include "api/lambda/control.h"
#include "api/lambda/input.h"
#include "base/bytes.h"
#include "base/json.h"

namespace mayfly::api::lambda {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;
using engine::FunctionRecord;
using engine::FunctionSettings;
using engine::FunctionUrl;

constexpr std::size_t kIdLength = 32;
constexpr std::string_view kIdAlphabet = "abcdefghijklmnopqrstuvwxyz234567";

Error no_function() { return not_found("Function does not exist"); }
Error no_url() { return not_found("The resource you requested does not exist."); }

json::object url_json(const ControlCall& call, const FunctionRecord& record, const std::string& qualifier, const FunctionUrl& url) {
  json::object shown{{"FunctionUrl", call.context.function_url(url.id)},
                     {"FunctionArn", record.latest->arn + (qualifier.empty() ? "" : ":" + qualifier)},
                     {"AuthType", url.authentication == engine::UrlAuthentication::kIam ? "AWS_IAM" : "NONE"},
                     {"CreationTime", url.created},
                     {"LastModifiedTime", url.modified},
                     {"InvokeMode", url.streams ? "RESPONSE_STREAM" : "BUFFERED"}};
  if (!url.cors_json.empty()) {
    auto cors = base::parse_json(url.cors_json);
    if (cors.ok()) shown["Cors"] = *std::move(cors);
  }
  return shown;
}

// Recorded: the answer to a change tells the mode only when the request did.
json::object changed_json(const ControlCall& call, json::object shown) {
  if (!call.input.contains("InvokeMode")) shown.erase("InvokeMode");
  return shown;
}

void set_members(const json::object& input, FunctionUrl& url) {
  if (const auto type = optional_text_in(input, "AuthType"))
    url.authentication = *type == "NONE" ? engine::UrlAuthentication::kNone : engine::UrlAuthentication::kIam;
  if (const auto mode = optional_text_in(input, "InvokeMode")) url.streams = *mode == "RESPONSE_STREAM";
  if (const json::object* cors = object_in(input, "Cors")) url.cors_json = cors->empty() ? "" : json::serialize(*cors);
}

Result<net::Response> create_url(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  if (call.context.registry.find(target.name) == nullptr) return no_function();
  FunctionUrl url;
  url.id = base::random_text(kIdLength, kIdAlphabet);
  url.created = url.modified = base::format_iso_ms(call.context.clock.wall_now());
  set_members(call.input, url);
  const auto add = [&](const FunctionRecord& record, FunctionSettings& settings) -> Result<void> {
    const std::string arn = record.latest->arn + (target.qualifier.empty() ? "" : ":" + target.qualifier);
    if (settings.urls.contains(target.qualifier)) {
      return Error(ErrorCode::kAlreadyExists,
                   "Failed to create function url config for [functionArn = " + arn +
                       "]. Error message:  FunctionUrlConfig exists for this Lambda function",
                   "ResourceConflictException");
    }
    if (!target.qualifier.empty() && record.find_alias(target.qualifier) == nullptr) return no_function();
    settings.urls[target.qualifier] = url;
    return {};
  };
  MAYFLY_ASSIGN(const engine::RecordPtr record, call.context.registry.change_settings(target.name, add));
  json::object shown = changed_json(call, url_json(call, *record, target.qualifier, url));
  shown.erase("LastModifiedTime");
  return control_answer(201, shown);
}

Result<net::Response> update_url(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  const engine::RecordPtr there = call.context.registry.find(target.name);
  if (there == nullptr || (!target.qualifier.empty() && there->find_alias(target.qualifier) == nullptr)) return no_function();
  FunctionUrl changed;
  const auto change = [&](const FunctionRecord&, FunctionSettings& settings) -> Result<void> {
    const auto found = settings.urls.find(target.qualifier);
    if (found == settings.urls.end()) return no_url();
    set_members(call.input, found->second);
    found->second.modified = base::format_iso_ms(call.context.clock.wall_now());
    changed = found->second;
    return {};
  };
  MAYFLY_ASSIGN(const engine::RecordPtr record, call.context.registry.change_settings(target.name, change));
  return control_answer(200, changed_json(call, url_json(call, *record, target.qualifier, changed)));
}

Result<net::Response> get_url(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  const engine::RecordPtr record = call.context.registry.find(target.name);
  if (record == nullptr) return no_url();
  const auto found = record->settings->urls.find(target.qualifier);
  if (found == record->settings->urls.end()) return no_url();
  return control_answer(200, url_json(call, *record, target.qualifier, found->second));
}

Result<net::Response> delete_url(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  if (call.context.registry.find(target.name) == nullptr) return no_url();
  const auto remove = [&](const FunctionRecord&, FunctionSettings& settings) -> Result<void> {
    if (settings.urls.erase(target.qualifier) == 0) return no_url();
    return {};
  };
  MAYFLY_TRY(call.context.registry.change_settings(target.name, remove));
  return control_answer(204, {});
}

Result<net::Response> list_urls(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  const engine::RecordPtr record = call.context.registry.find(target.name);
  if (record == nullptr) return no_function();
  MAYFLY_ASSIGN(Page page, Page::from(call.input));
  for (const auto& [qualifier, url] : record->settings->urls) {
    if (page.was_shown(qualifier)) continue;
    if (!page.add(qualifier, url_json(call, *record, qualifier, url))) break;
  }
  return std::move(page).answer("FunctionUrlConfigs");
}

constexpr ControlEntry kOperations[] = {{"CreateFunctionUrlConfig", create_url},
                                        {"DeleteFunctionUrlConfig", delete_url},
                                        {"GetFunctionUrlConfig", get_url},
                                        {"ListFunctionUrlConfigs", list_urls},
                                        {"UpdateFunctionUrlConfig", update_url}};

}  // namespace

std::span<const ControlEntry> function_url_operations() { return kOperations; }

}  // namespace mayfly::api::lambda
