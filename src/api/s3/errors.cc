#include "api/s3/errors.h"

#include <algorithm>
#include <array>

#include "api/s3/xml.h"
#include "base/json.h"

namespace mayfly::api::s3 {
namespace {

using base::Error;
using base::ErrorCode;

// Where S3's status is not that of the error's code.
struct Status {
  std::string_view id;
  int status;
};
constexpr std::array kStatuses = {
    Status{"EntityTooLarge", 400},      Status{"MaxMessageLengthExceeded", 400},
    Status{"RequestTimeout", 400},      Status{"AccessDenied", 403},
    Status{"InvalidAccessKeyId", 403},  Status{"SignatureDoesNotMatch", 403},
    Status{"MethodNotAllowed", 405},    Status{"MissingContentLength", 411},
    Status{"InvalidRange", 416},        Status{"InvalidPartNumber", 416},
    Status{"InternalError", 500},       Status{"NotImplemented", 501},
    Status{"ServiceUnavailable", 503},  Status{"SlowDown", 503},
    Status{"InsufficientStorage", 507},
};

// The errors of the doors and of the other rooms, by S3's names.
struct Name {
  std::string_view from, to, message;  // an empty message keeps the error's own
};
constexpr std::array kNames = {
    Name{"AccessDeniedException", "AccessDenied", ""},
    Name{"MissingAuthenticationTokenException", "AccessDenied", "Access Denied"},
    Name{"UnrecognizedClientException", "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."},
    Name{"UnsupportedOperationException", "NotImplemented", ""},
    Name{"RequestEntityTooLargeException", "MaxMessageLengthExceeded", "Your request was too large."},
    Name{"TooManyRequestsException", "SlowDown", "Please reduce your request rate."},
    Name{"ServiceUnavailableException", "ServiceUnavailable", ""},
};

Error named(const Error& error) {
  const auto known = std::ranges::find(kNames, error.id(), &Name::from);
  if (known != kNames.end())
    return Error(error.code(), known->message.empty() ? error.message() : std::string(known->message), std::string(known->to));
  if (!error.id().empty()) return error;
  switch (error.code()) {
    case ErrorCode::kCancelled:
    case ErrorCode::kDeadlineExceeded:
      return Error(
          error.code(),
          "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be "
          "closed.",
          "RequestTimeout");
    case ErrorCode::kInvalidArgument:
      return Error(error.code(), error.message(), "InvalidRequest");
    case ErrorCode::kPermissionDenied:
      return Error(error.code(), error.message(), "AccessDenied");
    case ErrorCode::kUnavailable:
      return Error(error.code(), error.message(), "ServiceUnavailable");
    case ErrorCode::kUnsupported:
      return Error(error.code(), error.message(), "NotImplemented");
    default:
      return Error(error.code(), error.message(), "InternalError");
  }
}

int status_of(const Error& error) {
  const auto known = std::ranges::find(kStatuses, error.id(), &Status::id);
  return known == kStatuses.end() ? base::http_status(error.code()) : known->status;
}

}  // namespace

net::Response error_answer(const Error& error, const ErrorContext& context) {
  const Error shown = named(error);
  XmlWriter xml("Error", "");
  xml.leaf("Code", shown.id()).leaf("Message", base::valid_utf8(shown.message()));
  if (shown.id() == "AuthorizationHeaderMalformed") xml.leaf("Region", context.region);
  xml.leaf("Resource", base::valid_utf8(context.resource)).leaf("RequestId", context.request_id);
  net::Response response{.status = status_of(shown), .headers = {}, .body = xml.finish()};
  response.headers.add("Content-Type", "application/xml");
  return response;
}

Error s3_error(ErrorCode code, std::string id, std::string message) { return Error(code, std::move(message), std::move(id)); }
Error invalid_argument(std::string message) { return s3_error(ErrorCode::kInvalidArgument, "InvalidArgument", std::move(message)); }
Error invalid_request(std::string message) { return s3_error(ErrorCode::kInvalidArgument, "InvalidRequest", std::move(message)); }
Error not_implemented(const std::string& what) {
  return s3_error(ErrorCode::kUnsupported, "NotImplemented", "mayfly does not support " + what + " yet");
}

}  // namespace mayfly::api::s3
