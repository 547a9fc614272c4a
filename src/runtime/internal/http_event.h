// An event as the HTTP request it stands for, and the answer to it as what the event's sender expects: payload formats 2.0 (function
// URLs, HTTP APIs) and 1.0 (REST APIs, load balancers), and all other events as requests to one path. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "net/http_client.h"
#include "runtime/http_contract.h"

namespace mayfly::runtime {

enum class EventShape : std::uint8_t { kFormat2, kFormat1, kOther };

// What the server is told of the invocation besides the event.
struct InvocationFacts {
  const engine::FunctionVersion& version;
  std::string_view request_id, invoked_arn, trace_id, client_context;
  std::string_view log_stream;
  std::int64_t deadline_ms = 0;  // since 1970
};

struct EventRequest {
  EventShape shape = EventShape::kOther;
  net::ClientRequest request;
};

// `payload` is any bytes; what cannot be read as a request is passed on as it is. Nothing of it becomes a header or a target that HTTP
// does not allow, and nothing takes the place of a header that is the platform's.
[[nodiscard]] EventRequest request_of(std::string payload, const HttpContract& contract, const InvocationFacts& facts);

// The whole answer: {"statusCode", "headers", "cookies", "body", "isBase64Encoded"}; to other events the body alone.
[[nodiscard]] std::string answer_of(EventShape shape, const net::Response& response);
// What precedes the body of a streamed answer to a request: JSON and eight NUL bytes.
[[nodiscard]] std::string prelude_of(const net::Response& response);
inline constexpr const char* kPreludeType = "application/vnd.awslambda.http-integration-response";

}  // namespace mayfly::runtime
