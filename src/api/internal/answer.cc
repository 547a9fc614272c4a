#include "api/internal/answer.h"

#include <boost/json.hpp>

#include "api/lambda/model.h"
#include "engine/invocation.h"

namespace mayfly::api {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;

bool is_platform_fault(ErrorCode code) { return base::http_status(code) >= 500 && code != ErrorCode::kUnsupported; }

// The error's type on the wire.
std::string type_of(const Error& error) {
  if (!error.id().empty()) return error.id();
  switch (error.code()) {
    case ErrorCode::kUnsupported: return "UnsupportedOperationException";
    case ErrorCode::kNotFound: return "ResourceNotFoundException";
    case ErrorCode::kPermissionDenied: return "AccessDeniedException";
    case ErrorCode::kUnauthenticated: return "UnrecognizedClientException";
    case ErrorCode::kAlreadyExists:
    case ErrorCode::kConflict: return "ResourceConflictException";
    case ErrorCode::kPreconditionFailed: return "PreconditionFailedException";
    case ErrorCode::kTooLarge: return "RequestEntityTooLargeException";
    case ErrorCode::kUnavailable: return "ServiceUnavailableException";
    case ErrorCode::kDeadlineExceeded: return "RequestTimeoutException";
    case ErrorCode::kResourceExhausted: return "TooManyRequestsException";
    case ErrorCode::kInvalidArgument: return "InvalidParameterValueException";
    default: return "ServiceException";
  }
}

int status_of(const Error& error, const lambda::ErrorType* known) {
  if (known != nullptr) return known->status;
  if (error.code() == ErrorCode::kUnsupported) return 400;  // see unsupported()
  if (error.code() == ErrorCode::kCancelled) return 400;
  return base::http_status(error.code());
}

net::Response rest_json(const Error& error, const std::string& type, const std::string& throttle_reason) {
  const lambda::ErrorType* known = lambda::find_error_type(type);
  json::object body;
  if (known == nullptr || !known->bare) body["Type"] = is_platform_fault(error.code()) ? "Service" : "User";
  const std::string_view key = known == nullptr ? "message" : known->message_key;
  body[json::string_view(key.data(), key.size())] = error.message();
  if (type == "TooManyRequestsException") body["Reason"] = throttle_reason.empty() ? "ConcurrentInvocationLimitExceeded" : throttle_reason;
  net::Response response{.status = status_of(error, known), .headers = {}, .body = json::serialize(body)};
  response.headers.add("Content-Type", "application/json");
  response.headers.add("x-amzn-ErrorType", type);
  // Places of the account are free again at any moment. Where the function's own reservation is full AWS names no time.
  const bool reserved = throttle_reason == engine::kReservedLimit;
  if (response.status == 429 && !reserved) response.headers.add("Retry-After", "1");
  return response;
}

net::Response aws_json(const Error& error, const std::string& type) {
  json::object body;
  body["__type"] = type;
  body["message"] = error.message();
  net::Response response{.status = is_platform_fault(error.code()) ? 500 : 400, .headers = {}, .body = json::serialize(body)};
  response.headers.add("Content-Type", "application/x-amz-json-1.1");
  response.headers.add("x-amzn-ErrorType", type);
  return response;
}

// The query services name the same faults without "Exception", and two of them otherwise.
std::string query_code(std::string type) {
  if (type == "UnrecognizedClientException") return "InvalidClientTokenId";
  if (type == "InvalidSignatureException") return "SignatureDoesNotMatch";
  if (type == "AccessDeniedException") return "AccessDenied";
  if (type.ends_with("Exception")) type.resize(type.size() - 9);
  return type;
}

net::Response xml(const Error& error, const std::string& type, const std::string& request_id, bool query) {
  const std::string inner =
      std::string(query ? "<Type>" + std::string(is_platform_fault(error.code()) ? "Receiver" : "Sender") + "</Type>" : "") + "<Code>" +
      xml_escape(query_code(type)) + "</Code><Message>" + xml_escape(error.message()) + "</Message>";
  net::Response response;
  response.status = status_of(error, lambda::find_error_type(type));
  response.headers.add("Content-Type", query ? "text/xml" : "application/xml");
  response.body =
      query ? "<ErrorResponse><Error>" + inner + "</Error><RequestId>" + request_id + "</RequestId></ErrorResponse>\n"
            : "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>" + inner + "<RequestId>" + request_id + "</RequestId></Error>\n";
  return response;
}

}  // namespace

net::Response error_answer(Protocol protocol, const Error& error, const std::string& request_id, const std::string& throttle_reason) {
  const std::string type = type_of(error);
  switch (protocol) {
    case Protocol::kRestJson: return rest_json(error, type, throttle_reason);
    case Protocol::kAwsJson: return aws_json(error, type);
    case Protocol::kQuery: return xml(error, type, request_id, true);
    case Protocol::kRestXml: return xml(error, type, request_id, false);
  }
  return rest_json(error, type, throttle_reason);
}

net::Response json_answer(Protocol protocol, int status, const json::value& body) {
  net::Response response{.status = status, .headers = {}, .body = {}};
  if (status == 204) return response;
  response.headers.add("Content-Type", protocol == Protocol::kAwsJson ? "application/x-amz-json-1.1" : "application/json");
  response.body = json::serialize(body);
  return response;
}

std::string xml_escape(std::string_view text) {
  std::string escaped;
  escaped.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&': escaped += "&amp;"; break;
      case '<': escaped += "&lt;"; break;
      case '>': escaped += "&gt;"; break;
      case '"': escaped += "&quot;"; break;
      default: escaped += static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' ? '?' : c;
    }
  }
  return escaped;
}

Error unsupported(std::string message) { return Error(ErrorCode::kUnsupported, std::move(message), "UnsupportedOperationException"); }
Error invalid_parameter(std::string message) {
  return Error(ErrorCode::kInvalidArgument, std::move(message), "InvalidParameterValueException");
}
Error not_found(std::string message) { return Error(ErrorCode::kNotFound, std::move(message), "ResourceNotFoundException"); }

}  // namespace mayfly::api
