// Telemetry: what an environment tells its extensions about itself, over the Telemetry API (schemas 2022-07-01, 2022-12-13,
// 2025-01-29) and the Logs API before it (2020-08-15, 2021-03-18). Records are gathered for each subscriber and posted to its listener
// inside the sandbox, at least once, in order.
// Bounds: a subscriber's buffer holds what it asked for (at most 10,000 records or 1 MiB) and one batch is on its way; what does not
// fit is dropped, counted and told as platform.logsDropped. Before the first subscription up to kBacklogBytes are kept for it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/time.h"
#include "net/task.h"

namespace mayfly::runtime {

enum class TelemetryApi : std::uint8_t { kTelemetry, kLogs };
enum class TelemetryKind : std::uint8_t { kPlatform, kFunction, kExtension };

struct Subscription {
  std::string extension;  // its name; filled in by the caller
  TelemetryApi api = TelemetryApi::kTelemetry;
  std::string schema;
  std::vector<TelemetryKind> kinds;
  std::vector<std::string> types;  // their names, as asked for
  bool http = true;                // else lines over TCP
  std::string method = "POST";
  std::uint16_t port = 0;
  std::string path = "/";
  std::size_t items_max = 10'000;
  std::size_t bytes_max = 262'144;
  base::Duration timeout = std::chrono::seconds(1);
};

// Reads a subscription request. kInvalidArgument names the member and its limits; the answer is then 400 ValidationError.
[[nodiscard]] base::Result<Subscription> parse_subscription(TelemetryApi api, std::string_view body);

// On one loop's thread.
class Telemetry {
 public:
  static constexpr std::size_t kBacklogBytes = 256U << 10U;

  enum class Audience : std::uint8_t { kAll, kTelemetryOnly, kLogsOnly };

  // `connectors`: unconnected TCP sockets of the sandbox's network, one for each possible subscriber. `inside`: where listeners are in
  // it, tried in order: sandbox.localdomain, and what is bound to localhost only.
  Telemetry(const net::Executor& executor, const base::Clock& clock, std::vector<base::UniqueFd> connectors,
            std::vector<std::string> inside = {"169.254.100.1", "127.0.0.1"});
  ~Telemetry();
  Telemetry(const Telemetry&) = delete;
  Telemetry& operator=(const Telemetry&) = delete;

  // A platform event; `record` is JSON.
  void platform(std::string_view type, const std::string& record, Audience audience = Audience::kAll);
  // What the function or an extension printed. Newer schemas get a JSON object as such where the function logs JSON.
  void printed(TelemetryKind kind, std::string_view text, std::optional<base::WallTime> time, bool json_log);

  // Only before close(). The same subscription again changes nothing. kConflict after close(), or for the other API than before;
  // kResourceExhausted when there is no connector left.
  [[nodiscard]] base::Result<void> subscribe(Subscription subscription);
  // The init has ended: nobody subscribes any more.
  void close();
  [[nodiscard]] bool closed() const;

  // Whether anybody hears what is published, or may still subscribe.
  [[nodiscard]] bool listening() const;

  // Whether anything waits to be delivered or is being delivered.
  [[nodiscard]] bool pending() const;
  // Delivers what is there without waiting for buffers to fill; `then` is called when that is done, or after `patience`; never after
  // this was destroyed.
  void flush(base::Duration patience, std::function<void()> then);
  // While the sandbox is frozen nothing is sent, and the time counts for nothing.
  void set_frozen(bool frozen);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mayfly::runtime
