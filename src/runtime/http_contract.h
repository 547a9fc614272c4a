// The HTTP contract: a function whose program is an ordinary HTTP server inside its environment (docs/http-functions.md,
// docs/adr/0013). What the function says about its server in its variables, under the names of the AWS Lambda Web Adapter.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "engine/function.h"

namespace mayfly::runtime {

// "200-399,404": which statuses.
class StatusSet {
 public:
  // kInvalidArgument unless it is a list of numbers and ranges from 100 to 599.
  [[nodiscard]] static base::Result<StatusSet> parse(std::string_view text);
  StatusSet() = default;
  StatusSet(int first, int last) : ranges_{{first, last}} {}
  [[nodiscard]] bool contains(int status) const;

 private:
  std::vector<std::pair<int, int>> ranges_;  // both ends included
};

struct HttpContract {
  std::uint16_t port = 8080;            // AWS_LWA_PORT, else PORT
  std::uint16_t readiness_port = 8080;  // AWS_LWA_READINESS_CHECK_PORT, else the same
  std::string readiness_path = "/";     // AWS_LWA_READINESS_CHECK_PATH
  bool readiness_by_http = true;        // AWS_LWA_READINESS_CHECK_PROTOCOL: "http", or "tcp": that it accepts a connection
  StatusSet healthy{100, 499};          // AWS_LWA_READINESS_CHECK_HEALTHY_STATUS, or below AWS_LWA_READINESS_CHECK_MIN_UNHEALTHY_STATUS
  // AWS_LWA_ERROR_STATUS_CODES: the invocation fails. Events that are no HTTP requests also fail with 500 to 599, as there is nobody
  // who would look at a status.
  StatusSet errors;
  std::string pass_through_path = "/events";  // AWS_LWA_PASS_THROUGH_PATH: takes events that are no HTTP requests
  std::string base_path;                      // AWS_LWA_REMOVE_BASE_PATH: taken off the front of paths; "" or "/api"
  std::string authorization_source;           // AWS_LWA_AUTHORIZATION_SOURCE: the header that becomes Authorization
};

// Whether the function asks for this contract, by MAYFLY_CONTRACT=http.
[[nodiscard]] bool wants_http_contract(const engine::FunctionConfig& config);
// kFunctionFailed with the id Runtime.InvalidHttpContract names the variable whose value cannot be used.
[[nodiscard]] base::Result<HttpContract> http_contract(const engine::FunctionConfig& config);

}  // namespace mayfly::runtime
