// Cross-origin rules of a function URL (its Cors member; fetch.spec.whatwg.org, "CORS protocol").
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "net/http.h"

namespace mayfly::gateway {

struct Cors {
  std::vector<std::string> origins, methods, request_headers, exposed_headers;
  std::string max_age;  // seconds; "" when not set
  bool credentials = false;

  // False: the URL leaves everything to the function.
  [[nodiscard]] bool configured() const { return configured_; }
  // `text` as CreateFunctionUrlConfig took it; "" or an object without members configures nothing.
  [[nodiscard]] static Cors parse(std::string_view text);

 private:
  bool configured_ = false;
};

// The question a browser asks before a request: OPTIONS with Origin and Access-Control-Request-Method.
[[nodiscard]] bool is_preflight(const net::RequestHead& head);
// Its answer, 200 without a body; without permissions when the origin or the method is not allowed.
[[nodiscard]] net::Response answer_preflight(const Cors& cors, const net::RequestHead& head);
// Puts what the URL says of the request's origin in place of what the function said. A browser takes one value only.
void apply_cors(const Cors& cors, const net::RequestHead& head, net::Headers& answer);

}  // namespace mayfly::gateway
