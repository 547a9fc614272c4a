// Which AWS service a request means. One endpoint serves them all: the signature's scope says it, else the target header,
// else path and form.
#pragma once

#include <string>

#include "api/internal/answer.h"
#include "net/http.h"

namespace mayfly::api {

enum class ServiceKind : std::uint8_t { kLambda, kLogs, kSts, kIam, kS3, kCode, kMayfly, kOperator, kUnknown };

struct Service {
  ServiceKind kind = ServiceKind::kUnknown;
  std::string name;                         // "lambda", "logs", "s3" ...; bounded, for metrics and errors
  std::string operation;                    // where the target header names it
  Protocol protocol = Protocol::kRestJson;  // of answers and errors
};

// `scope_service`: the service the signature's scope names, "" without one. Reads the head only and proves nothing.
[[nodiscard]] Service find_service(const net::RequestHead& head, const std::string& scope_service);

}  // namespace mayfly::api
