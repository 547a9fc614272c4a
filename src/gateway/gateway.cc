#include "gateway/gateway.h"

#include "base/json.h"

namespace mayfly::gateway {

net::Handler public_handler() {
  return [](net::Exchange& exchange) -> net::Awaitable<void> {
    net::Response response;
    response.status = 404;
    response.headers.add("Content-Type", "application/json");
    response.body = "{\"Message\":" + base::json_quote("No function is published at " + std::string(exchange.head().path())) + "}";
    (void)(co_await exchange.respond(std::move(response))).ok();  // a peer that went away needs no answer
  };
}

}  // namespace mayfly::gateway
