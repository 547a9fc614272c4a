// Metrics: what /metrics shows, as OpenMetrics text (prometheus.io, "OpenMetrics 1.0").
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/time.h"
#include "engine/invocation.h"

namespace mayfly::observe {

// Labels are bounded: after `functions_max` different function names the rest count as "other"; services, operations and
// statuses of HTTP requests are bounded likewise.
// Threads: any, without waiting on I/O.
class Metrics final : public engine::InvocationObserver {
 public:
  struct Options {
    std::size_t functions_max = 1000;
    std::size_t operations_max = 200;
  };
  Metrics();
  explicit Metrics(Options options);
  ~Metrics() override;
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  void on_invocation(const engine::InvocationRecord& record) override;
  // One answered request of a door; status 0 when the peer went away before an answer.
  void on_http_request(const std::string& service, const std::string& operation, int status, base::Duration took);

  // Asks `read` at each scrape. `name` without the prefix "mayfly_"; `labels` such as `state="idle"`, or empty. Gauges of one
  // name belong together. What `read` refers to must outlive the metrics; it is called on the scraping thread.
  void add_gauge(std::string name, std::string help, std::string labels, std::function<double()> read);
  // The same for something that only grows; the shown name ends in "_total".
  void add_counter(std::string name, std::string help, std::string labels, std::function<double()> read);

  [[nodiscard]] std::string open_metrics() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mayfly::observe
