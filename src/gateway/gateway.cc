#include "gateway/gateway.h"

#include "gateway/internal/url_door.h"

namespace mayfly::gateway {

net::Handler public_handler(GatewayContext& context) {
  return [door = std::make_shared<UrlDoor>(context)](net::Exchange& exchange) { return door->serve(exchange); };
}

}  // namespace mayfly::gateway
