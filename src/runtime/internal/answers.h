// The answers that the APIs of an environment share.
#pragma once

#include <string_view>

#include "base/json.h"
#include "net/http.h"

namespace mayfly::runtime {

inline net::Response problem(int status, std::string_view type, std::string_view message) {
  net::Response response;
  response.status = status;
  response.headers.add("Content-Type", "application/json");
  response.body = "{\"errorMessage\":" + base::json_quote(message) + ",\"errorType\":" + base::json_quote(type) + "}";
  return response;
}

inline net::Response accepted() {
  net::Response response;
  response.status = 202;
  response.headers.add("Content-Type", "application/json");
  response.body = "{\"status\":\"OK\"}\n";
  return response;
}

}  // namespace mayfly::runtime
