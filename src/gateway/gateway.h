// The public doors of functions. None is open yet: function URLs, HTTP APIs, sites and webhooks register their routes here,
// on a socket of its own, so that nothing internal can ever be routed in public.
#pragma once

#include "net/http_server.h"

namespace mayfly::gateway {

// Answers every request 404, saying that no function is published at that address.
[[nodiscard]] net::Handler public_handler();

}  // namespace mayfly::gateway
