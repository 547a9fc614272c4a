// The event of a function URL: an HTTP request in payload format 2.0 ("Invoking Lambda function URLs" in the Lambda guide).
#pragma once

#include <cstdint>
#include <string>

#include "access/access.h"
#include "base/time.h"
#include "gateway/internal/url_address.h"
#include "net/http.h"

namespace mayfly::gateway {

struct UrlRequest {
  const net::RequestHead& head;
  const UrlAddress& address;
  std::string body;
  std::string peer;         // IP address
  std::uint16_t port = 80;  // of the listener
  std::string request_id;
  std::string trace_id;                       // "Root=...;Parent=..."; the event shows its root
  const access::Principal* caller = nullptr;  // who signed; null: nobody had to
  base::WallTime time{};
};

// The JSON text. Header names in lower case, values of one name joined with commas; what belongs to the connection, to the
// platform or to the proof of the caller is left out, and what the platform knows better (x-forwarded-*, x-amzn-*) replaced.
// rawPath and rawQueryString are as sent, requestContext.http.path and queryStringParameters decoded, as recorded from AWS.
[[nodiscard]] std::string url_event(UrlRequest request);

// "24/Nov/2026:19:02:01 +0000": the Common Log Format's time.
[[nodiscard]] std::string format_log_time(base::WallTime time);

}  // namespace mayfly::gateway
