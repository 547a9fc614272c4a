#include "cli/internal/session.h"

#include <boost/json.hpp>
#include <cstdlib>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/json.h"
#include "net/http_client.h"

namespace mayfly::cli {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string text_of(const boost::json::value& document, std::string_view key) {
  const auto* object = document.if_object();
  const auto* member = object == nullptr ? nullptr : object->if_contains(key);
  return member != nullptr && member->is_string() ? std::string(member->get_string()) : std::string();
}

Result<boost::json::value> read_json_file(const std::string& path) {
  MAYFLY_ASSIGN(const std::string text, base::read_file(path, 1U << 20U));
  return base::parse_json(text).with_context(path);
}

Error no_server(const std::string& data, const Error& cause) {
  if (cause.code() == ErrorCode::kPermissionDenied) {
    return Error(
        ErrorCode::kPermissionDenied,
        cause.message() + "; the data directory belongs to the server: use its user (sudo), or set the variables that `mayfly env` prints");
  }
  return Error(ErrorCode::kUnavailable,
               "no server was found through the data directory " + data + " (" + cause.message() +
                   "); start one with `mayfly server`, or name it with --data DIR, --endpoint URL or AWS_ENDPOINT_URL");
}

ErrorCode code_of_status(int status) {
  switch (status) {
    case 400:
      return ErrorCode::kInvalidArgument;
    case 401:
    case 403:
      return ErrorCode::kPermissionDenied;
    case 404:
      return ErrorCode::kNotFound;
    case 409:
      return ErrorCode::kConflict;
    case 412:
      return ErrorCode::kPreconditionFailed;
    case 413:
      return ErrorCode::kTooLarge;
    case 429:
      return ErrorCode::kResourceExhausted;
    case 501:
      return ErrorCode::kUnsupported;
    case 503:
      return ErrorCode::kUnavailable;
    case 504:
      return ErrorCode::kDeadlineExceeded;
    default:
      return ErrorCode::kInternal;
  }
}

Error service_error(const net::Response& response) {
  std::string type(response.headers.get("x-amzn-ErrorType"));
  type = type.substr(0, type.find(':'));
  std::string message;
  if (const auto document = base::parse_json(response.body); document.ok()) {
    message = text_of(*document, "message");
    if (message.empty()) message = text_of(*document, "Message");
    if (type.empty()) type = text_of(*document, "__type");
    if (const std::size_t hash = type.find('#'); hash != std::string::npos) type = type.substr(hash + 1);
  }
  if (message.empty())
    message = "the server answered " + std::to_string(response.status) + (response.body.empty() ? "" : ": " + response.body.substr(0, 500));
  // The JSON-1.1 services answer 400 for everything; their types say what it is.
  const ErrorCode code = type.ends_with("NotFoundException") ? ErrorCode::kNotFound : code_of_status(response.status);
  return Error(code, message, type);
}

}  // namespace

Result<Session> Session::open(const std::string& data_option, const std::string& endpoint_option) {
  Session session;
  const std::string from_environment = variable("AWS_ENDPOINT_URL");
  if (const std::string region = variable("AWS_REGION"); !region.empty())
    session.region = region;
  else if (const std::string other = variable("AWS_DEFAULT_REGION"); !other.empty())
    session.region = other;
  session.key = {variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"), variable("AWS_SESSION_TOKEN")};
  session.endpoint = !endpoint_option.empty() ? endpoint_option : data_option.empty() ? from_environment : "";
  if (!session.endpoint.empty() && !session.key.access_key.empty()) {
    while (session.endpoint.ends_with('/')) session.endpoint.pop_back();
    return session;
  }
  std::string data = !data_option.empty() ? data_option : variable("MAYFLY_DATA");
  if (data.empty()) data = "./mayfly-data";
  const auto server = read_json_file(data + "/server.json");
  if (!server.ok()) return no_server(data, server.error());
  const auto credentials = read_json_file(data + "/credentials.json");
  if (session.endpoint.empty()) session.endpoint = text_of(*server, "api");
  session.gateway = text_of(*server, "gateway");
  session.region = text_of(*server, "region");
  session.account = text_of(*server, "account");
  if (!variable("MAYFLY_ACCESS_KEY").empty()) {  // what the server was started with wins over what it once kept
    session.key = {variable("MAYFLY_ACCESS_KEY"), variable("MAYFLY_SECRET_KEY"), ""};
  } else if (credentials.ok()) {
    session.key = {text_of(*credentials, "access_key"), text_of(*credentials, "secret_key"), ""};
  } else if (session.key.access_key.empty()) {
    return no_server(data, credentials.error());
  }
  return session;
}

Result<net::Response> Session::send(const Call& call) const {
  net::ClientRequest request;
  request.method = call.method;
  request.timeout = call.timeout;
  request.on_upload = call.on_upload;
  std::string target = call.path;
  for (const auto& [name, value] : call.query) {
    target += target.find('?') == std::string::npos ? '?' : '&';
    target += base::percent_encode(name) + "=" + base::percent_encode(value);
  }
  request.url = endpoint + target;

  net::RequestHead head;
  head.method = call.method;
  head.target = target;
  const std::size_t host = endpoint.find("://");
  head.headers.add("Host", host == std::string::npos ? endpoint : endpoint.substr(host + 3));
  for (const auto& [name, value] : call.headers) head.headers.add(name, value);
  net::sign_request(head, call.body, key, {region, call.service}, base::system_clock().wall_now());
  for (const auto& field : head.headers.fields()) {
    if (!net::equal_ignoring_case(field.name, "Host")) request.headers.add(field.name, field.value);
  }
  request.headers.add("User-Agent", "mayfly/" MAYFLY_VERSION);
  request.body = call.body;
  MAYFLY_ASSIGN(net::Response response, net::blocking_request(request));
  if (response.status >= 400) return service_error(response);
  return response;
}

Result<boost::json::value> Session::send_json(const Call& call) const {
  Call with_type = call;
  if (!call.body.empty()) with_type.headers.emplace_back("Content-Type", "application/json");
  MAYFLY_ASSIGN(const net::Response response, send(with_type));
  if (response.body.empty()) return boost::json::value(boost::json::object());
  return base::parse_json(response.body).with_context("the server's answer");
}

Result<boost::json::value> Session::send_target(const std::string& service, const std::string& target,
                                                const boost::json::value& body) const {
  Call call;
  call.service = service;
  call.method = "POST";
  call.headers = {{"X-Amz-Target", target}, {"Content-Type", "application/x-amz-json-1.1"}};
  call.body = boost::json::serialize(body);
  MAYFLY_ASSIGN(const net::Response response, send(call));
  if (response.body.empty()) return boost::json::value(boost::json::object());
  return base::parse_json(response.body).with_context("the server's answer");
}

std::string function_path(const std::string& name, const std::string& suffix) {
  return "/2015-03-31/functions/" + base::percent_encode(name) + suffix;
}

}  // namespace mayfly::cli
