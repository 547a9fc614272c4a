// The server side of the Lambda Extensions API for one environment (contract.md, section 2), with the subscriptions of the Telemetry
// and Logs APIs: who has registered, who waits for what. External extensions are programs of /opt/extensions and named beforehand;
// whoever registers under another name during the init is an internal one, inside the runtime's process. Distrusts its peers.
// Bounds: ten extensions, a registration of 64 KiB, an error report of 256 KiB of which 4 KiB are kept.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/invocation.h"
#include "net/http_server.h"
#include "net/task.h"
#include "runtime/telemetry.h"

namespace mayfly::runtime {

inline constexpr std::size_t kExtensionsMax = 10;

struct ExtensionFacts {
  std::vector<std::string> external;  // file names in /opt/extensions, in the order they were started
  std::string function_name, function_version, handler, account_id;
};

// What an extension said of its own failure.
struct ExtensionFault {
  std::string name;
  std::string error_type;  // "Extension.InitError" or "Extension.ExitError"
  std::string reported;    // as it called it
  std::string message;     // for the caller's document and the log
};

// Called on the loop's thread; must not destroy the Extensions before returning.
class ExtensionEvents {
 public:
  virtual ~ExtensionEvents() = default;
  virtual void on_extensions_moved() = 0;  // one registered, or waits for its next event
  virtual void on_extension_fault(ExtensionFault fault) = 0;
  virtual void on_subscribed(const Subscription& subscription) = 0;
};

enum class ShutdownReason : std::uint8_t { kSpindown, kTimeout, kFailure };

class Extensions {
 public:
  // References outlive it.
  Extensions(const net::Executor& executor, ExtensionFacts facts, ExtensionEvents& events, Telemetry& telemetry, const base::Clock& clock);
  ~Extensions();
  Extensions(const Extensions&) = delete;
  Extensions& operator=(const Extensions&) = delete;

  // Whether `path` belongs here.
  [[nodiscard]] static bool owns(std::string_view path);
  [[nodiscard]] net::Awaitable<void> handle(net::Exchange& exchange);

  [[nodiscard]] bool any() const;
  [[nodiscard]] bool any_external() const;
  // Every external one has registered: the runtime may start.
  [[nodiscard]] bool registered() const;
  // And all wait for an event: the init is over, or the invocation.
  [[nodiscard]] bool ready() const;
  // The init has ended: nobody registers any more.
  void close();
  // The INVOKE event, for those that asked for it.
  void invoke(const engine::Invocation& invocation, base::Deadline deadline);
  // The SHUTDOWN event, for those that asked for it.
  void shut_down(ShutdownReason reason, base::Deadline deadline);
  // An external one that lives has asked for SHUTDOWN.
  [[nodiscard]] bool wants_shutdown() const;
  // The process of an external one has ended; from 1 on, as started.
  void ended(std::size_t number);

  struct Status {
    std::string name, state;
    std::vector<std::string> events;
  };
  [[nodiscard]] std::vector<Status> statuses() const;
  // From here on no event is reported.
  void abandon();

 private:
  friend struct ExtensionCalls;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mayfly::runtime
