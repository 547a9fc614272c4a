#include "api/api.h"

#include <utility>

#include "api/internal/door.h"

namespace mayfly::api {
namespace {

net::Handler handler_of(std::shared_ptr<Door> door) {
  return [door = std::move(door)](net::Exchange& exchange) { return door->serve(exchange); };
}

}  // namespace

net::Handler management_handler(ApiContext& context) { return handler_of(std::make_shared<Door>(context, DoorKind::kManagement, "")); }
net::Handler data_handler(ApiContext& context, std::string access_key) {
  return handler_of(std::make_shared<Door>(context, DoorKind::kData, std::move(access_key)));
}

}  // namespace mayfly::api
