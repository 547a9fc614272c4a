// Invoke and InvokeWithResponseStream: from a checked request to the engine, and from the engine's sink to the socket.
#pragma once

#include <boost/json/object.hpp>
#include <string>

#include "api/lambda/resolve.h"
#include "base/result.h"
#include "net/http_server.h"
#include "net/task.h"

namespace mayfly::api {
struct ApiContext;
}

namespace mayfly::api::lambda {

struct InvokeCall {
  ApiContext& context;
  net::Exchange& exchange;
  Target target;
  boost::json::object input;  // path, query and header members
  std::string payload;
  std::string request_id;
  std::string& throttle_reason;  // set with the error of a throttled invocation
};

// Runs the function and answers. An error means that nothing was sent yet. When the peer goes away the coroutine ends and the
// invocation runs on without a listener, as on AWS.
[[nodiscard]] net::Awaitable<base::Result<void>> invoke_buffered(InvokeCall call);
[[nodiscard]] net::Awaitable<base::Result<void>> invoke_streaming(InvokeCall call);

}  // namespace mayfly::api::lambda
