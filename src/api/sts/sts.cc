#include "api/sts/sts.h"

#include <algorithm>
#include <boost/json.hpp>

namespace mayfly::api::sts {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::int64_t kDefaultSeconds = 3600, kLeastSeconds = 900, kRootMostSeconds = 3600;

TextRule session_name() {
  return {.min = 2,
          .max = 64,
          .fits =
              [](std::string_view text) {
                return std::ranges::all_of(text, [](char c) {
                  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                         std::string_view("_+=,.@-").contains(c);
                });
              },
          .pattern = "[\\w+=,.@-]*"};
}

Result<void> refuse(const Form& form, std::initializer_list<const char*> names, const std::string& why) {
  for (const char* name : names) {
    if (form.find(name) != nullptr || form.count(name) > 0) return unsupported("mayfly does not support " + std::string(name) + ": " + why);
  }
  return {};
}

void write_credentials(Xml& xml, const access::Credential& made) {
  xml.element("Credentials", [&] {
    xml.text("AccessKeyId", made.principal.access_key).text("SecretAccessKey", made.secret_key).text("SessionToken", made.session_token);
    xml.text("Expiration", base::format_iso_ms(*made.expires).substr(0, 19) + "Z");
  });
}

net::Response answer_of(const std::string& action, Xml& xml, const std::string& request_id) {
  return query_answer({.action = action, .xml_namespace = "https://sts.amazonaws.com/doc/2011-06-15/", .result = xml.take()}, request_id);
}

}  // namespace

std::string action_of(const net::RequestHead& head, std::string_view body) {
  if (auto action = net::query_parameter(head.query(), "Action")) return *std::move(action);
  return net::query_parameter(body, "Action").value_or("");
}

base::Result<void> check_action(const std::string& action) {
  if (action == "GetCallerIdentity" || action == "AssumeRole" || action == "GetSessionToken") return {};
  if (action.empty())
    return base::Error(base::ErrorCode::kInvalidArgument,
                       "the request names no Action; mayfly's STS has GetCallerIdentity, AssumeRole and GetSessionToken", "MissingAction");
  return unsupported("mayfly does not support the STS action \"" + action.substr(0, 64) + "\" yet");
}

net::Response get_caller_identity(const access::Principal& caller, Protocol protocol, const std::string& request_id) {
  if (protocol == Protocol::kAwsJson) {
    json::object identity;
    identity["Arn"] = caller.arn;
    identity["UserId"] = caller.user_id;
    identity["Account"] = caller.account;
    return json_answer(protocol, 200, identity);
  }
  net::Response response;
  response.headers.add("Content-Type", "text/xml");
  response.body =
      "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <GetCallerIdentityResult>\n    <Arn>" +
      xml_escape(caller.arn) + "</Arn>\n    <UserId>" + xml_escape(caller.user_id) + "</UserId>\n    <Account>" +
      xml_escape(caller.account) + "</Account>\n  </GetCallerIdentityResult>\n  <ResponseMetadata>\n    <RequestId>" + request_id +
      "</RequestId>\n  </ResponseMetadata>\n</GetCallerIdentityResponse>\n";
  return response;
}

Result<net::Response> assume_role(const SessionCall& call, const std::string& request_id) {
  Members in(call.form);
  const std::string role_arn = in.required("RoleArn", {.min = 20, .max = 2048});
  const std::string session = in.required("RoleSessionName", session_name());
  const auto seconds = in.number("DurationSeconds", kLeastSeconds, 43200);
  const auto source = in.optional("SourceIdentity", session_name());
  MAYFLY_TRY(in.check());
  MAYFLY_TRY(refuse(call.form, {"Policy", "PolicyArns"}, "policies are not evaluated yet, so a session cannot be narrowed"));
  MAYFLY_TRY(refuse(call.form, {"SerialNumber", "TokenCode"}, "there are no MFA devices"));
  const services::RolePtr role = call.roles.find_role_by_arn(role_arn);
  const Error denied(ErrorCode::kPermissionDenied,
                     "User: " + call.caller.arn + " is not authorized to perform: sts:AssumeRole on resource: " + role_arn, "AccessDenied");
  if (role == nullptr) return denied;
  if (seconds && *seconds > role->max_session_s)
    return Error(ErrorCode::kInvalidArgument, "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
                 "ValidationError");

  access::SessionIdentity identity;
  MAYFLY_ASSIGN(identity.arn, access::assumed_role_arn(role_arn, session));
  identity.user_id = role->id + ":" + session;
  identity.role_arn = role->arn;
  MAYFLY_ASSIGN(const access::CredentialPointer made,
                call.credentials.issue_session(identity, call.now, call.now + std::chrono::seconds(seconds.value_or(kDefaultSeconds))));
  if (call.roles.find_role_by_arn(role_arn) == nullptr) {  // deleted meanwhile, after its sessions were ended
    call.credentials.revoke(made->principal.access_key);
    return denied;
  }
  Xml xml;
  write_credentials(xml, *made);
  xml.element("AssumedRoleUser", [&] { xml.text("AssumedRoleId", identity.user_id).text("Arn", identity.arn); });
  if (source) xml.text("SourceIdentity", *source);
  return answer_of("AssumeRole", xml, request_id);
}

Result<net::Response> get_session_token(const SessionCall& call, const std::string& request_id) {
  Members in(call.form);
  const std::int64_t seconds = std::min(in.number("DurationSeconds", kLeastSeconds, 129600).value_or(kDefaultSeconds), kRootMostSeconds);
  MAYFLY_TRY(in.check());
  MAYFLY_TRY(refuse(call.form, {"SerialNumber", "TokenCode"}, "there are no MFA devices"));
  const access::SessionIdentity identity{.arn = call.caller.arn, .user_id = call.caller.user_id, .role_arn = {}};
  MAYFLY_ASSIGN(const access::CredentialPointer made,
                call.credentials.issue_session(identity, call.now, call.now + std::chrono::seconds(seconds)));
  Xml xml;
  write_credentials(xml, *made);
  return answer_of("GetSessionToken", xml, request_id);
}

}  // namespace mayfly::api::sts
