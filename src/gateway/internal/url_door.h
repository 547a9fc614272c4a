// The door of function URLs: one request from its first byte to its answer. Finds the function, asks its policy, reads the body,
// proves the caller where the URL wants that, runs the function and answers, whole or as a stream.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "gateway/gateway.h"
#include "net/http_server.h"
#include "net/task.h"

namespace mayfly::gateway {

// Lives as long as the handler that holds it.
class UrlDoor {
 public:
  explicit UrlDoor(GatewayContext& context) : context_(context) {}
  [[nodiscard]] net::Awaitable<void> serve(net::Exchange& exchange);

 private:
  struct Visit;
  class StreamAnswer;

  net::Awaitable<base::Result<void>> serve_url(net::Exchange& exchange, Visit& visit);
  net::Awaitable<base::Result<std::string>> read_body(net::Exchange& exchange, Visit& visit);
  net::Awaitable<base::Result<void>> run_buffered(net::Exchange& exchange, Visit& visit, engine::InvocationPtr invocation);
  net::Awaitable<base::Result<void>> run_streaming(net::Exchange& exchange, Visit& visit, engine::InvocationPtr invocation);
  net::Awaitable<base::Result<void>> send(net::Exchange& exchange, Visit& visit, net::Response response);
  static void report(const Visit& visit, const base::Error& error);
  // Who signed the request's head; the body is proven by prove_body().
  [[nodiscard]] base::Result<void> prove_head(net::Exchange& exchange, Visit& visit) const;
  [[nodiscard]] base::Result<void> prove_body(net::Exchange& exchange, Visit& visit, std::string& body) const;
  [[nodiscard]] base::Result<void> allow(const net::Exchange& exchange, const Visit& visit) const;
  [[nodiscard]] base::Result<engine::InvocationPtr> prepare(net::Exchange& exchange, Visit& visit, std::string body) const;

  GatewayContext& context_;
  std::uint64_t held_bytes_ = 0;
};

}  // namespace mayfly::gateway
