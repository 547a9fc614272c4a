#include "runtime/extensions.h"

#include <algorithm>
#include <boost/json.hpp>
#include <optional>

#include "base/bytes.h"
#include "base/json.h"
#include "runtime/internal/answers.h"

namespace mayfly::runtime {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;
using net::Awaitable;
using net::Exchange;

namespace {

constexpr std::string_view kPrefix = "/2020-01-01/extension/";
constexpr std::size_t kRequestBytesMax = 64U << 10U;
constexpr std::size_t kErrorBytesMax = 256U << 10U;
constexpr std::size_t kMessageMax = 4096;
constexpr std::size_t kNameMax = 256;
constexpr const char* kIdentifier = "Lambda-Extension-Identifier";

enum class State : std::uint8_t {
  kStarted,     // an external one that has not registered
  kRegistered,  // has not asked for an event yet
  kReady,       // waits for an event
  kRunning,     // works on one
  kInitError,   // said so
  kExitError,   // said so
  kExited,      // its process has ended
};

const char* state_name(State state) {
  switch (state) {
    case State::kStarted:
      return "Started";
    case State::kRegistered:
      return "Registered";
    case State::kReady:
      return "Ready";
    case State::kRunning:
      return "Running";
    case State::kInitError:
      return "InitError";
    case State::kExitError:
      return "ExitError";
    case State::kExited:
      return "Exited";
  }
  return "Exited";
}

struct Extension {
  explicit Extension(const net::Executor& executor) : changed(executor) {}
  std::string name, id;
  bool external = false;
  State state = State::kStarted;
  bool invoke = false, shutdown = false;
  std::string event;  // JSON, not delivered yet
  std::uint64_t newest_next = 0;
  net::Event changed;
};

net::Response forbidden(std::string_view type, std::string_view message) { return problem(403, type, message); }

net::Response wrong_state(const Extension& extension, const char* wanted) {
  return forbidden("Extension.InvalidExtensionState", std::string("State transition from ") + state_name(extension.state) + " to " +
                                                          wanted + " failed for extension " + extension.name +
                                                          ". Error: State transition is not allowed");
}

bool is_uuid(std::string_view text) {
  if (text.size() != 36) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const char c = text[i];
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (dash ? c != '-' : !hex) return false;
  }
  return true;
}

std::string_view reason_name(ShutdownReason reason) {
  switch (reason) {
    case ShutdownReason::kSpindown:
      return "spindown";
    case ShutdownReason::kTimeout:
      return "timeout";
    case ShutdownReason::kFailure:
      return "failure";
  }
  return "failure";
}

Result<std::vector<std::string>> parse_events(std::string_view body) {
  const auto invalid = [](const std::string& what) { return Error(ErrorCode::kInvalidArgument, what); };
  MAYFLY_ASSIGN(const json::value parsed, base::parse_json(body, {.depth_max = 8, .bytes_max = kRequestBytesMax}));
  if (!parsed.is_object()) return invalid("the request must be a JSON object");
  std::vector<std::string> events;
  if (const json::value* keys = parsed.as_object().if_contains("configurationKeys");
      keys != nullptr && keys->is_array() && !keys->as_array().empty()) {
    return invalid("configurationKeys are deprecated; use environment variables instead");
  }
  const json::value* list = parsed.as_object().if_contains("events");
  if (list == nullptr || list->is_null()) return events;
  if (!list->is_array()) return invalid("events must be a list");
  for (const json::value& each : list->as_array()) {
    if (!each.is_string()) return invalid("events must be a list of strings");
    events.emplace_back(each.as_string());
  }
  return events;
}

bool asks_for(std::string_view features, std::string_view feature) {
  while (!features.empty()) {
    const std::size_t comma = std::min(features.find(','), features.size());
    std::string_view each = features.substr(0, comma);
    features.remove_prefix(std::min(comma + 1, features.size()));
    while (each.starts_with(' ')) each.remove_prefix(1);
    while (each.ends_with(' ')) each.remove_suffix(1);
    if (each == feature) return true;
  }
  return false;
}

// What an extension says in its error report, as one line.
std::string message_of(std::string_view body) {
  std::string message;
  if (auto parsed = base::parse_json(body, {.depth_max = 32, .bytes_max = kErrorBytesMax}); parsed.ok() && parsed->is_object()) {
    if (const json::value* text = parsed->as_object().if_contains("errorMessage"); text != nullptr && text->is_string())
      message = text->as_string();
  }
  message = base::valid_utf8(message.substr(0, kMessageMax));
  std::ranges::replace_if(message, [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
  return message;
}

std::string printable(std::string_view text) {
  std::string safe(text.substr(0, kNameMax));
  std::ranges::replace_if(safe, [](char c) { return c < 0x20 || c == 0x7f; }, '?');
  return safe;
}

}  // namespace

struct Extensions::Impl {
  Impl(net::Executor executor_in, ExtensionFacts facts_in, ExtensionEvents& events_in, Telemetry& telemetry_in, const base::Clock& clock_in)
      : executor(std::move(executor_in)), facts(std::move(facts_in)), events(&events_in), telemetry(telemetry_in), clock(clock_in) {
    for (const std::string& name : facts.external) {
      auto extension = std::make_unique<Extension>(executor);
      extension->name = name;
      extension->external = true;
      all.push_back(std::move(extension));
    }
  }

  [[nodiscard]] Extension* find_external(std::string_view name) const {
    for (const auto& each : all) {
      if (each->external && each->name == name) return each.get();
    }
    return nullptr;
  }
  [[nodiscard]] Extension* find_id(std::string_view id) const {
    for (const auto& each : all) {
      if (!each->id.empty() && each->id == id) return each.get();
    }
    return nullptr;
  }
  void moved() const {
    if (events != nullptr) events->on_extensions_moved();
  }
  void deliver(Extension& extension, std::string event) const {
    extension.event = std::move(event);
    extension.state = State::kRunning;
    extension.changed.set();
  }
  [[nodiscard]] std::int64_t wall_ms(base::Deadline deadline) const {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - clock.now()).count();
    return base::epoch_ms(clock.wall_now()) + left;
  }

  net::Executor executor;
  const ExtensionFacts facts;
  ExtensionEvents* events;
  Telemetry& telemetry;
  const base::Clock& clock;
  std::vector<std::unique_ptr<Extension>> all;  // external ones first; none leaves before the end
  bool closed = false;
};

// The requests, one coroutine each. They live in the server's connections, which end before Impl does.
struct ExtensionCalls {
  using Impl = Extensions::Impl;

  static Awaitable<void> handle(Impl& api, Exchange& exchange) {
    const net::RequestHead& head = exchange.head();
    std::string_view path = head.path();
    while (path.ends_with('/')) path.remove_suffix(1);
    if (head.method == "PUT" && path == "/2022-07-01/telemetry") co_return co_await subscribe(api, exchange, TelemetryApi::kTelemetry);
    if (head.method == "PUT" && path == "/2020-08-15/logs") co_return co_await subscribe(api, exchange, TelemetryApi::kLogs);
    if (path.starts_with(kPrefix)) path.remove_prefix(kPrefix.size());
    if (head.method == "POST" && path == "register") co_return co_await enrol(api, exchange);
    if (head.method == "GET" && path == "event/next") co_return co_await next(api, exchange);
    if (head.method == "POST" && path == "init/error") co_return co_await error(api, exchange, State::kInitError);
    if (head.method == "POST" && path == "exit/error") co_return co_await error(api, exchange, State::kExitError);
    (void)co_await exchange.respond(
        problem(404, "ResourceNotFound", "The Extensions API has no " + head.method + " " + std::string(head.path()) + "."));
  }

  // The extension a request comes from, or the answer why there is none.
  static Result<Extension*> identify(const Impl& api, const net::RequestHead& head) {
    const std::string id = net::to_lower(head.headers.get(kIdentifier));
    const auto denied = [](const char* type, const std::string& what) { return Error(ErrorCode::kPermissionDenied, what, type); };
    if (id.empty()) return denied("Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header");
    if (!is_uuid(id)) return denied("Extension.InvalidExtensionIdentifier", "Invalid Lambda-Extension-Identifier");
    if (Extension* found = api.find_id(id)) return found;
    return denied("Extension.UnknownExtensionIdentifier", "Unknown extension " + id);
  }

  static Awaitable<void> enrol(Impl& api, Exchange& exchange) {
    const std::string name(exchange.head().headers.get("Lambda-Extension-Name"));
    const bool wants_account = asks_for(exchange.head().headers.get("Lambda-Extension-Accept-Feature"), "accountId");
    if (name.empty() || name.size() > kNameMax) {
      (void)co_await exchange.respond(
          forbidden("Extension.InvalidExtensionName", name.empty() ? "Empty extension name" : "The extension's name is too long"));
      co_return;
    }
    auto body = co_await exchange.read_all(kRequestBytesMax);
    auto wanted = body.ok() ? parse_events(*body) : Result<std::vector<std::string>>(std::move(body).error());
    if (!wanted.ok()) {
      (void)co_await exchange.respond(forbidden("InvalidRequestFormat", wanted.error().message()));
      co_return;
    }
    auto made = take(api, name, *wanted);
    if (!made.ok()) {
      (void)co_await exchange.respond(forbidden(made.error().id(), made.error().message()));
      co_return;
    }
    (void)co_await exchange.respond(welcome(api, **made, wants_account));
    api.moved();
  }

  // Registers `name`; changes nothing when it refuses.
  static Result<Extension*> take(Impl& api, const std::string& name, const std::vector<std::string>& wanted) {
    const auto denied = [](const char* type, const std::string& what) { return Error(ErrorCode::kPermissionDenied, what, type); };
    Extension* extension = api.find_external(name);
    const bool external = extension != nullptr;
    for (const std::string& event : wanted) {
      if (event != "INVOKE" && event != "SHUTDOWN")
        return denied("Extension.InvalidEventType", printable(event) + ": ErrorInvalidEventType");
      if (event == "SHUTDOWN" && !external)
        return denied("Extension.InvalidEventType", "SHUTDOWN: ShutdownEventNotSupportedForInternalExtension");
    }
    if (external && extension->state != State::kStarted) {
      return denied("Extension.InvalidExtensionState", std::string("State transition from ") + state_name(extension->state) +
                                                           " to Registered failed for extension " + name +
                                                           ". Error: State transition is not allowed");
    }
    if (api.closed) return denied("Extension.RegistrationClosed", "Extension registration closed already");
    if (!external) {
      const bool taken = std::ranges::any_of(api.all, [&](const auto& each) { return each->name == name; });
      if (taken) return denied("Extension.InvalidExtensionState", "Extension with this name already registered");
      if (api.all.size() >= kExtensionsMax) return denied("Extension.TooManyExtensions", "Extension limit (10) reached");
      api.all.push_back(std::make_unique<Extension>(api.executor));
      extension = api.all.back().get();
      extension->name = name;
    }
    extension->id = base::random_uuid();
    extension->invoke = std::ranges::find(wanted, "INVOKE") != wanted.end();
    extension->shutdown = std::ranges::find(wanted, "SHUTDOWN") != wanted.end();
    extension->state = State::kRegistered;
    return extension;
  }

  static net::Response welcome(const Impl& api, const Extension& extension, bool with_account) {
    net::Response response;
    response.headers.add("Content-Type", "application/json");
    response.headers.add(kIdentifier, extension.id);
    response.body = "{\"functionName\":" + base::json_quote(api.facts.function_name) +
                    ",\"functionVersion\":" + base::json_quote(api.facts.function_version) +
                    ",\"handler\":" + base::json_quote(api.facts.handler);
    if (with_account) response.body += ",\"accountId\":" + base::json_quote(api.facts.account_id);
    response.body += "}";
    return response;
  }

  static Awaitable<void> next(Impl& api, Exchange& exchange) {
    auto who = identify(api, exchange.head());
    if (!who.ok()) {
      (void)co_await exchange.respond(forbidden(who.error().id(), who.error().message()));
      co_return;
    }
    Extension& extension = **who;
    const State state = extension.state;
    if (state != State::kRegistered && state != State::kReady && state != State::kRunning) {
      (void)co_await exchange.respond(wrong_state(extension, "Ready"));
      co_return;
    }
    const std::uint64_t ticket = ++extension.newest_next;
    extension.changed.set();  // an older next(), if any, ends: its client has given it up
    extension.changed.reset();
    if (extension.event.empty()) {
      extension.state = State::kReady;
      api.moved();
    }
    while (extension.newest_next == ticket && extension.event.empty()) {
      extension.changed.reset();
      if (!co_await extension.changed.wait()) co_return;
    }
    if (extension.newest_next != ticket) {
      (void)co_await exchange.respond(
          forbidden("Extension.InvalidExtensionState", "A later request for the next event replaced this one."));
      co_return;
    }
    net::Response response;
    response.headers.add("Content-Type", "application/json");
    response.headers.add("Lambda-Extension-Event-Identifier", base::random_uuid());
    response.body.swap(extension.event);
    (void)co_await exchange.respond(std::move(response));
  }

  static Awaitable<void> error(Impl& api, Exchange& exchange, State failed) {
    auto who = identify(api, exchange.head());
    if (!who.ok()) {
      (void)co_await exchange.respond(forbidden(who.error().id(), who.error().message()));
      co_return;
    }
    Extension& extension = **who;
    const std::string type(exchange.head().headers.get("Lambda-Extension-Function-Error-Type"));
    if (type.empty()) {
      (void)co_await exchange.respond(forbidden("Extension.MissingHeader", "Lambda-Extension-Function-Error-Type not found"));
      co_return;
    }
    auto body = co_await exchange.read_all(kErrorBytesMax);
    const bool known = extension.state == State::kRegistered ||
                       (failed == State::kExitError && (extension.state == State::kReady || extension.state == State::kRunning));
    if (!known) {
      (void)co_await exchange.respond(wrong_state(extension, state_name(failed)));
      co_return;
    }
    extension.state = failed;
    ExtensionFault fault;
    fault.name = printable(extension.name);
    fault.error_type = failed == State::kInitError ? "Extension.InitError" : "Extension.ExitError";
    fault.reported = printable(type);
    const std::string message = body.ok() ? message_of(*body) : std::string();
    fault.message = fault.name + ": " + fault.reported + (message.empty() ? "" : ": " + message);
    (void)co_await exchange.respond(accepted());
    if (api.events != nullptr) api.events->on_extension_fault(std::move(fault));
  }

  static Awaitable<void> subscribe(Impl& api, Exchange& exchange, TelemetryApi which) {
    auto who = identify(api, exchange.head());
    if (!who.ok()) {
      (void)co_await exchange.respond(forbidden(who.error().id(), who.error().message()));
      co_return;
    }
    const std::string name = (*who)->name;
    const bool logs = which == TelemetryApi::kLogs;
    auto body = co_await exchange.read_all(kRequestBytesMax);
    auto parsed = body.ok() ? parse_subscription(which, *body) : Result<Subscription>(std::move(body).error());
    if (!parsed.ok()) {
      (void)co_await exchange.respond(problem(400, "ValidationError", parsed.error().message()));
      co_return;
    }
    if (api.telemetry.closed()) {
      const std::string family = logs ? "Logs" : "Telemetry";
      (void)co_await exchange.respond(forbidden(family + ".SubscriptionClosed", family + " API subscription is closed already"));
      co_return;
    }
    parsed->extension = printable(name);
    if (auto done = api.telemetry.subscribe(*parsed); !done.ok()) {
      (void)co_await exchange.respond(problem(400, "ValidationError", done.error().message()));
      co_return;
    }
    if (api.events != nullptr) api.events->on_subscribed(*parsed);
    net::Response response;
    response.headers.add("Content-Type", "application/json");
    response.body = "\"OK\"";
    (void)co_await exchange.respond(std::move(response));
  }
};

Extensions::Extensions(const net::Executor& executor, ExtensionFacts facts, ExtensionEvents& events, Telemetry& telemetry,
                       const base::Clock& clock)
    : impl_(std::make_unique<Impl>(executor, std::move(facts), events, telemetry, clock)) {}
Extensions::~Extensions() = default;

bool Extensions::owns(std::string_view path) {
  return path.starts_with(kPrefix) || path.starts_with("/2022-07-01/telemetry") || path.starts_with("/2020-08-15/logs");
}

Awaitable<void> Extensions::handle(Exchange& exchange) { return ExtensionCalls::handle(*impl_, exchange); }

bool Extensions::any() const { return !impl_->all.empty(); }
bool Extensions::any_external() const { return !impl_->facts.external.empty(); }

bool Extensions::registered() const {
  return std::ranges::none_of(impl_->all, [](const auto& each) { return each->state == State::kStarted; });
}

bool Extensions::ready() const {
  return std::ranges::all_of(impl_->all, [](const auto& each) { return each->state == State::kReady; });
}

void Extensions::close() { impl_->closed = true; }

void Extensions::invoke(const engine::Invocation& invocation, base::Deadline deadline) {
  if (impl_->all.empty()) return;
  std::string event = R"({"eventType":"INVOKE","deadlineMs":)" + std::to_string(impl_->wall_ms(deadline)) +
                      ",\"requestId\":" + base::json_quote(invocation.request_id) +
                      ",\"invokedFunctionArn\":" + base::json_quote(invocation.invoked_arn);
  // Always there: published clients insist on it.
  event += R"(,"tracing":{"type":"X-Amzn-Trace-Id","value":)" + base::json_quote(base::valid_utf8(invocation.trace_id)) + "}}";
  for (const auto& each : impl_->all) {
    if (each->invoke && each->state == State::kReady) impl_->deliver(*each, event);
  }
}

void Extensions::shut_down(ShutdownReason reason, base::Deadline deadline) {
  const std::string event = R"({"eventType":"SHUTDOWN","shutdownReason":")" + std::string(reason_name(reason)) + R"(","deadlineMs":)" +
                            std::to_string(impl_->wall_ms(deadline)) + "}";
  for (const auto& each : impl_->all) {
    const bool lives = each->state == State::kReady || each->state == State::kRunning || each->state == State::kRegistered;
    if (each->shutdown && lives) impl_->deliver(*each, event);
  }
}

bool Extensions::wants_shutdown() const {
  return std::ranges::any_of(impl_->all, [](const auto& each) {
    const bool lives = each->state == State::kReady || each->state == State::kRunning || each->state == State::kRegistered;
    return each->external && each->shutdown && lives;
  });
}

void Extensions::ended(std::size_t number) {
  if (number == 0 || number > impl_->facts.external.size()) return;
  impl_->all[number - 1]->state = State::kExited;
}

std::vector<Extensions::Status> Extensions::statuses() const {
  std::vector<Status> all;
  for (const auto& each : impl_->all) {
    Status status{printable(each->name), state_name(each->state), {}};
    if (each->invoke) status.events.emplace_back("INVOKE");
    if (each->shutdown) status.events.emplace_back("SHUTDOWN");
    all.push_back(std::move(status));
  }
  return all;
}

void Extensions::abandon() { impl_->events = nullptr; }

}  // namespace mayfly::runtime
