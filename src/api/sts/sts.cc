#include "api/sts/sts.h"

#include <boost/json.hpp>

namespace mayfly::api::sts {

namespace json = boost::json;

std::string action_of(const net::RequestHead& head, std::string_view body) {
  if (auto action = net::query_parameter(head.query(), "Action")) return *std::move(action);
  return net::query_parameter(body, "Action").value_or("");
}

base::Result<void> check_action(const std::string& action) {
  if (action == "GetCallerIdentity") return {};
  if (action.empty())
    return base::Error(base::ErrorCode::kInvalidArgument, "the request names no Action; mayfly's STS has GetCallerIdentity",
                       "MissingAction");
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

}  // namespace mayfly::api::sts
