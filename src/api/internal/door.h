// The door: one request from its first byte to its answer. Finds the service, proves the caller, reads the body within the
// operation's limit, and hands over to the service.
#pragma once

#include <string>

#include "api/api.h"
#include "net/http_server.h"
#include "net/sigv4.h"
#include "net/task.h"

namespace mayfly::api {

enum class DoorKind : std::uint8_t { kManagement, kData };

// Serves requests of one listener. Lives as long as the handler that holds it.
class Door {
 public:
  // `access_key`: the only one that is accepted; empty: any that the credential store knows.
  Door(ApiContext& context, DoorKind kind, std::string access_key);
  [[nodiscard]] net::Awaitable<void> serve(net::Exchange& exchange);

 private:
  struct Visit;

  net::Awaitable<base::Result<void>> serve_signed(net::Exchange& exchange, Visit& visit, base::Result<net::SignatureClaim> claim);
  net::Awaitable<base::Result<void>> serve_lambda(net::Exchange& exchange, Visit& visit);
  net::Awaitable<base::Result<void>> serve_logs(net::Exchange& exchange, Visit& visit);
  net::Awaitable<base::Result<void>> serve_sts(net::Exchange& exchange, Visit& visit);
  net::Awaitable<base::Result<void>> serve_iam(net::Exchange& exchange, Visit& visit);
  net::Awaitable<base::Result<void>> serve_s3(net::Exchange& exchange, Visit& visit);
  net::Awaitable<base::Result<void>> serve_code(net::Exchange& exchange, Visit& visit);
  net::Awaitable<base::Result<void>> serve_mayfly(net::Exchange& exchange, Visit& visit);
  net::Awaitable<base::Result<void>> serve_operator(net::Exchange& exchange, Visit& visit);
  // Counts bytes that a request will hold, until it has been served; an error when there are too many at once.
  base::Result<void> hold(Visit& visit, std::uint64_t bytes);
  // Reads and proves the body; at most `limit` bytes, else an error that names `operation`.
  net::Awaitable<base::Result<std::string>> read_body(net::Exchange& exchange, Visit& visit, std::uint64_t limit,
                                                      const std::string& operation);
  // Runs `work` on the pool and sends what it answers.
  net::Awaitable<base::Result<void>> answer_from_pool(net::Exchange& exchange, Visit& visit,
                                                      std::function<base::Result<net::Response>()> work);
  net::Response error_of(const net::Exchange& exchange, const Visit& visit, const base::Error& error) const;
  net::Awaitable<base::Result<void>> send(net::Exchange& exchange, Visit& visit, net::Response response);
  base::Result<void> allow(const Visit& visit, const std::string& action, const std::string& resource) const;

  ApiContext& context_;
  const DoorKind kind_;
  std::uint64_t held_bytes_ = 0;  // of bodies being read or worked on
  const std::string access_key_;
};

}  // namespace mayfly::api
