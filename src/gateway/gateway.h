// The public doors of functions, on a socket of their own so that nothing internal can ever be routed in public: function URLs,
// by host "ID.lambda-url.REGION.DOMAIN" and by path "/lambda-url/ID/". HTTP APIs, sites and webhooks will register here.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "access/access.h"
#include "base/time.h"
#include "engine/invocation.h"
#include "engine/registry.h"
#include "net/http_server.h"
#include "observe/metrics.h"

namespace mayfly::gateway {

// What the doors stand on; everything outlives the handler.
struct GatewayContext {
  engine::FunctionRegistry& registry;
  engine::Invoker& invoker;  // called on the loop's thread only
  access::CredentialStore& credentials;
  observe::Metrics& metrics;
  const base::Clock& clock;

  std::string domain = "localhost";          // last part of the host names
  std::function<std::uint16_t()> port = {};  // of the listener, for x-forwarded-port; empty: 80
  // Longest waits before a function runs; with its Timeout they make the deadline of an invocation.
  base::Duration queue_budget = std::chrono::seconds(10);
  base::Duration start_budget = std::chrono::seconds(30);
};

// Serves function URLs and answers everything else 404, saying that no function is published at that address.
[[nodiscard]] net::Handler public_handler(GatewayContext& context);

}  // namespace mayfly::gateway
