// Which function URL a request means, by host or by path.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "net/http.h"

namespace mayfly::gateway {

struct UrlAddress {
  std::string id;
  std::string path;         // for the function: as sent, without what only addresses; begins with '/'
  std::string domain_name;  // "ID.lambda-url.REGION.DOMAIN"
};

struct UrlRealm {
  std::string region;
  std::string domain;  // "localhost"
};

// By host "ID.lambda-url.REGION.DOMAIN" with any port, else by path "/lambda-url/ID/...". None: the request means something else.
[[nodiscard]] std::optional<UrlAddress> find_url_address(const net::RequestHead& head, const UrlRealm& realm);

}  // namespace mayfly::gateway
