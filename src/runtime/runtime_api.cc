#include "runtime/runtime_api.h"

#include "base/json.h"
#include "base/log.h"
#include "net/http_server.h"
#include "runtime/internal/answers.h"

namespace mayfly::runtime {

using engine::InvocationPtr;
using engine::ResponseMode;
using net::Awaitable;
using net::Exchange;

namespace {

constexpr std::string_view kPrefix = "/2018-06-01/runtime/";
constexpr std::size_t kRequestIdMax = 128;

enum class State : std::uint8_t {
  kInit,       // nothing asked yet
  kWaiting,    // next() is pending
  kInvoking,   // handed over
  kAnswering,  // its answer is arriving
  kAnswered,   // complete; the runtime has not asked again
  kInitFailed,
  kElsewhere,  // the runtime uses another channel
};

// A runtime may think for the length of its function between two requests and freezes in the middle of one.
net::ServerLimits server_limits() {
  net::ServerLimits limits;
  limits.header_timeout = std::chrono::hours(24);
  limits.idle_timeout = std::chrono::hours(24);
  limits.write_timeout = std::chrono::hours(24);
  limits.body_rate_min = 0;
  limits.connections_max = 64;  // a runtime needs one or two, an extension as well
  return limits;
}

net::Response too_large(std::uint64_t limit) {
  return problem(413, "RequestEntityTooLarge", "Exceeded maximum allowed payload size (" + std::to_string(limit) + " bytes).");
}

// Between a stream piece and the sink's word that it was taken, which may come after everything else is gone.
struct Taken {
  explicit Taken(const net::Executor& executor) : event(executor) {}
  net::Event event;
  bool listening = true;
};

}  // namespace

std::string header_safe(std::string_view text) {
  const auto is_blank = [](char c) { return c == ' ' || c == '\t'; };
  unsigned controls = 0;
  for (const char c : text) controls |= static_cast<unsigned>(static_cast<unsigned char>(c) < 0x20) | static_cast<unsigned>(c == 0x7f);
  if (controls == 0 && !text.empty() && !is_blank(text.front()) && !is_blank(text.back())) return std::string(text);
  std::string safe(text);
  for (char& c : safe) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  while (safe.ends_with(' ')) safe.pop_back();
  return safe.substr(std::min(safe.find_first_not_of(' '), safe.size()));
}

RuntimeTarget parse_runtime_target(std::string_view method, std::string_view path) {
  if (path == "/2018-06-01/ping" || path == "/ping") return {RuntimeCall::kPing, {}};
  if (Extensions::owns(path)) return {RuntimeCall::kExtensions, {}};
  if (!path.starts_with(kPrefix)) return {};
  path.remove_prefix(kPrefix.size());
  if (path == "restore/next" || path == "restore/error") return {RuntimeCall::kRestore, {}};
  if (path == "invocation/next" && method == "GET") return {RuntimeCall::kNext, {}};
  if (method != "POST") return {};
  if (path == "init/error") return {RuntimeCall::kInitError, {}};
  if (!path.starts_with("invocation/")) return {};
  path.remove_prefix(std::string_view("invocation/").size());
  const std::size_t slash = path.find('/');
  if (slash == std::string_view::npos || slash == 0 || slash > kRequestIdMax) return {};
  const std::string_view id = path.substr(0, slash), verb = path.substr(slash + 1);
  if (verb == "response") return {RuntimeCall::kResponse, id};
  if (verb == "error") return {RuntimeCall::kError, id};
  return {};
}

struct RuntimeApi::Impl {
  Impl(net::Executor executor_in, RuntimeEvents& events_in, const base::Clock& clock_in, RuntimeApiLimits limits_in,
       Extensions* extensions_in)
      : executor(std::move(executor_in)),
        events(&events_in),
        clock(clock_in),
        limits(limits_in),
        extensions(extensions_in),
        offered(executor) {}

  [[nodiscard]] bool abandoned() const { return events == nullptr; }
  [[nodiscard]] net::Response describe_next();
  // Why a request for `id` cannot be taken now, or nothing.
  [[nodiscard]] std::optional<net::Response> refuse_answer(std::string_view id) const;
  void answer(Answer answer) {
    state = State::kAnswered;
    if (events != nullptr) events->on_answer(std::move(answer));
  }

  net::Executor executor;
  RuntimeEvents* events;
  const base::Clock& clock;
  const RuntimeApiLimits limits;
  Extensions* const extensions;
  State state = State::kInit;
  InvocationPtr current;  // handed over or answered last
  base::Deadline run_deadline = base::kNoDeadline;
  base::TimePoint answer_began{};
  bool undelivered = false;  // handed over, but no next() has carried it yet
  std::uint64_t newest_next = 0;
  net::Event offered;
  std::unique_ptr<net::HttpServer> server;
};

net::Response RuntimeApi::Impl::describe_next() {
  const engine::Invocation& invocation = *current;
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(run_deadline - clock.now()).count();
  net::Response response;
  net::Headers& headers = response.headers;
  headers.add("Content-Type", "application/json");
  headers.add("Lambda-Runtime-Aws-Request-Id", header_safe(invocation.request_id));
  headers.add("Lambda-Runtime-Deadline-Ms", std::to_string(base::epoch_ms(clock.wall_now()) + left));
  headers.add("Lambda-Runtime-Invoked-Function-Arn", header_safe(invocation.invoked_arn));
  if (!invocation.trace_id.empty()) headers.add("Lambda-Runtime-Trace-Id", header_safe(invocation.trace_id));
  if (!invocation.client_context.empty()) headers.add("Lambda-Runtime-Client-Context", header_safe(invocation.client_context));
  response.body = std::move(current->payload);
  return response;
}

std::optional<net::Response> RuntimeApi::Impl::refuse_answer(std::string_view id) const {
  if (!current || current->request_id != id) return problem(400, "InvalidRequestID", "Invalid request ID");
  if (state == State::kInvoking && !undelivered) return std::nullopt;
  return problem(403, "InvalidStateTransition", "An answer to this invocation was already sent, or it is not running any more.");
}

// The requests, one coroutine each. They live in the server's connections, which end before Impl does.
struct RuntimeCalls {
  using Impl = RuntimeApi::Impl;

  static Awaitable<void> handle(Impl& api, Exchange& exchange) {
    const RuntimeTarget target = parse_runtime_target(exchange.head().method, exchange.head().path());
    switch (target.call) {
      case RuntimeCall::kNext:
        co_return co_await next(api, exchange);
      case RuntimeCall::kResponse:
        co_return co_await response(api, exchange, target.request_id);
      case RuntimeCall::kError:
        co_return co_await error(api, exchange, target.request_id);
      case RuntimeCall::kInitError:
        co_return co_await init_error(api, exchange);
      case RuntimeCall::kExtensions:
        if (api.extensions != nullptr) co_return co_await api.extensions->handle(exchange);
        [[fallthrough]];
      default:
        (void)co_await exchange.respond(simple(target.call, exchange.head()));
        co_return;
    }
  }

  static net::Response simple(RuntimeCall call, const net::RequestHead& head) {
    switch (call) {
      case RuntimeCall::kPing: {
        net::Response pong;
        pong.body = "pong";
        return pong;
      }
      case RuntimeCall::kRestore:
        return problem(403, "InvalidStateTransition",
                       "This environment was not restored from a snapshot; SnapStart is not supported here.");
      default:
        return problem(404, "ResourceNotFound", "The Runtime API has no " + head.method + " " + std::string(head.path()) + ".");
    }
  }

  static Awaitable<void> next(Impl& api, Exchange& exchange) {
    if (api.state == State::kElsewhere) {
      (void)co_await exchange.respond(
          problem(403, "InvalidStateTransition", "The runtime of this environment takes its invocations by the framed protocol."));
      co_return;
    }
    if (api.state == State::kInvoking && !api.undelivered) {
      (void)co_await exchange.respond(
          problem(403, "InvalidStateTransition", "The present invocation has no answer yet; send one before asking for the next."));
      co_return;
    }
    if (api.state == State::kAnswering || api.state == State::kInitFailed) {
      (void)co_await exchange.respond(
          problem(403, "InvalidStateTransition", "Not now: an answer is still arriving, or the init was reported as failed."));
      co_return;
    }
    const std::uint64_t ticket = ++api.newest_next;
    api.offered.set();  // an older next(), if any, ends: its client has given it up
    api.offered.reset();
    if (api.state == State::kInit || api.state == State::kAnswered) {
      api.state = State::kWaiting;
      if (api.events != nullptr) api.events->on_next(0);
    }
    const auto left = std::make_shared<bool>(false);
    exchange.when_peer_gone([left] { *left = true; });
    while (api.newest_next == ticket && !api.undelivered) {
      api.offered.reset();
      if (!co_await api.offered.wait()) co_return;
    }
    if (*left) {  // the invocation stays for a later next(), or goes to another environment when this one's process has ended
      exchange.abort();
      co_return;
    }
    if (api.newest_next != ticket) {
      (void)co_await exchange.respond(problem(403, "InvalidStateTransition", "A later request for the next invocation replaced this one."));
      co_return;
    }
    api.undelivered = false;
    net::Response message = api.describe_next();
    if (const auto sent = co_await exchange.respond(std::move(message)); !sent.ok()) {
      base::log_debug("a runtime left while its invocation was being sent", {{"what", sent.error().message()}});
    }
  }

  static Awaitable<void> init_error(Impl& api, Exchange& exchange) {
    if (api.state != State::kInit) {
      (void)co_await exchange.respond(problem(403, "InvalidStateTransition", "The init has already ended."));
      co_return;
    }
    api.state = State::kAnswering;  // one report at a time: its body is held in memory
    auto body = co_await exchange.read_all(api.limits.error_bytes);
    if (!body.ok()) {
      if (api.state == State::kAnswering) api.state = State::kInit;
      (void)co_await exchange.respond(broken_body(body.error(), api.limits.error_bytes));
      co_return;
    }
    if (api.state == State::kAnswering) {
      api.state = State::kInitFailed;
      const std::string type(exchange.head().headers.get("Lambda-Runtime-Function-Error-Type"));
      if (api.events != nullptr) api.events->on_init_error(posted_fault(type, std::move(*body)));
    }
    (void)co_await exchange.respond(accepted());
  }

  static net::Response broken_body(const base::Error& error, std::uint64_t limit) {
    if (error.code() == base::ErrorCode::kTooLarge) return too_large(limit);
    return problem(400, "TruncatedHTTPRequest", "The request's body did not arrive whole: " + error.message());
  }

  // Reads the whole body of an answer. When it breaks off the invocation is as before, and the runtime may send again.
  static Awaitable<base::Result<std::string>> read_answer(Impl& api, Exchange& exchange, std::uint64_t limit) {
    api.state = State::kAnswering;
    api.answer_began = api.clock.now();
    auto body = co_await exchange.read_all(limit);
    if (!body.ok() && body.error().code() != base::ErrorCode::kTooLarge) api.state = State::kInvoking;
    co_return body;
  }

  static Awaitable<void> error(Impl& api, Exchange& exchange, std::string_view id) {
    if (auto refusal = api.refuse_answer(id)) {
      (void)co_await exchange.respond(std::move(*refusal));
      co_return;
    }
    auto body = co_await read_answer(api, exchange, api.limits.error_bytes);
    if (!body.ok()) {
      if (body.error().code() == base::ErrorCode::kTooLarge) fail(api, response_too_large(api.limits.error_bytes));
      (void)co_await exchange.respond(broken_body(body.error(), api.limits.error_bytes));
      co_return;
    }
    const std::string type(exchange.head().headers.get("Lambda-Runtime-Function-Error-Type"));
    fail(api, posted_fault(type, std::move(*body)));
    (void)co_await exchange.respond(accepted());
  }

  static void fail(Impl& api, FunctionFault fault, std::uint64_t streamed = 0) {
    Answer answer;
    answer.failed = true;
    answer.payload = std::move(fault.payload);
    answer.error_type = std::move(fault.error_type);
    answer.cause = std::move(fault.cause);
    answer.began = api.answer_began;
    answer.produced_bytes = streamed > 0 ? streamed : answer.payload.size();
    api.answer(std::move(answer));
  }
  static void succeed(Impl& api, std::string payload, std::uint64_t streamed = 0) {
    Answer answer;
    answer.began = api.answer_began;
    answer.produced_bytes = streamed > 0 ? streamed : payload.size();
    answer.payload = std::move(payload);
    api.answer(std::move(answer));
  }

  static Awaitable<void> response(Impl& api, Exchange& exchange, std::string_view id) {
    if (auto refusal = api.refuse_answer(id)) {
      (void)co_await exchange.respond(std::move(*refusal));
      co_return;
    }
    const std::string_view mode = exchange.head().headers.get("Lambda-Runtime-Function-Response-Mode");
    if (!mode.empty() && !net::equal_ignoring_case(mode, "streaming") && !net::equal_ignoring_case(mode, "buffered")) {
      (void)co_await exchange.respond(
          problem(400, "InvalidFunctionResponseMode", "Lambda-Runtime-Function-Response-Mode must be \"streaming\" or \"buffered\"."));
      co_return;
    }
    const bool streams = net::equal_ignoring_case(mode, "streaming");
    if (streams && api.current->mode == ResponseMode::kStreaming) co_return co_await stream(api, exchange);
    auto body = co_await read_answer(api, exchange, api.limits.response_bytes);
    if (!body.ok()) {
      if (body.error().code() == base::ErrorCode::kTooLarge) fail(api, response_too_large(api.limits.response_bytes));
      (void)co_await exchange.respond(broken_body(body.error(), api.limits.response_bytes));
      co_return;
    }
    if (const auto type = exchange.trailers().find("Lambda-Runtime-Function-Error-Type")) {
      fail(api, trailer_fault(*type, exchange.trailers().get("Lambda-Runtime-Function-Error-Body")));
    } else {
      succeed(api, std::move(*body));
    }
    (void)co_await exchange.respond(accepted());
  }

  // Passes pieces on as they come, each when the one before was taken.
  static Awaitable<void> stream(Impl& api, Exchange& exchange) {
    api.state = State::kAnswering;
    api.answer_began = api.clock.now();
    const InvocationPtr invocation = api.current;
    const std::string_view type = exchange.head().headers.get("Content-Type");
    if (!api.abandoned() && invocation->sink)
      invocation->sink->on_stream_begin(type.empty() ? "application/octet-stream" : std::string(type));
    const auto taken = std::make_shared<Taken>(api.executor);
    std::uint64_t total = 0;
    while (true) {
      auto piece = co_await exchange.read_some();
      if (!piece.ok()) {
        fail(api, platform_fault("Runtime.TruncatedResponse", invocation->request_id,
                                 "Response was truncated: the runtime ended it before it was complete"));
        (void)co_await exchange.respond(broken_body(piece.error(), api.limits.stream_bytes));
        co_return;
      }
      if (piece->empty()) break;
      total += piece->size();
      if (total > api.limits.stream_bytes) {
        fail(api, response_too_large(api.limits.stream_bytes));
        (void)co_await exchange.respond(too_large(api.limits.stream_bytes));
        co_return;
      }
      if (!co_await pass_on(api, *invocation, std::move(*piece), taken)) co_return;
    }
    if (const auto error_type = exchange.trailers().find("Lambda-Runtime-Function-Error-Type")) {
      fail(api, trailer_fault(*error_type, exchange.trailers().get("Lambda-Runtime-Function-Error-Body")), total);
    } else {
      succeed(api, {}, total);
    }
    (void)co_await exchange.respond(accepted());
  }

  // False when this environment is being torn down. A caller that left is no reason to stop: the function finishes.
  static Awaitable<bool> pass_on(Impl& api, engine::Invocation& invocation, std::string piece, std::shared_ptr<Taken> taken) {
    if (api.abandoned()) co_return false;
    if (!taken->listening || !invocation.sink) co_return true;
    taken->event.reset();
    invocation.sink->on_stream_piece(std::move(piece), [taken](bool listening) {
      taken->listening = taken->listening && listening;
      taken->event.set();
    });
    const bool woken = co_await taken->event.wait();
    co_return woken && !api.abandoned();
  }
};

RuntimeApi::RuntimeApi(const net::Executor& executor, base::UniqueFd listener, RuntimeEvents& events, const base::Clock& clock,
                       RuntimeApiLimits limits, Extensions* extensions)
    : impl_(std::make_unique<Impl>(executor, events, clock, limits, extensions)) {
  impl_->server =
      std::make_unique<net::HttpServer>(executor, std::move(listener), server_limits(),
                                        [impl = impl_.get()](Exchange& exchange) { return RuntimeCalls::handle(*impl, exchange); });
  impl_->server->start();
}

RuntimeApi::~RuntimeApi() {
  abandon();
  impl_->server.reset();  // no handler runs after this
}

void RuntimeApi::hand_over(InvocationPtr invocation, base::Deadline run_deadline) {
  impl_->current = std::move(invocation);
  impl_->run_deadline = run_deadline;
  impl_->undelivered = true;
  impl_->state = State::kInvoking;
  impl_->offered.set();
}

bool RuntimeApi::take_back() {
  if (impl_->state != State::kInvoking || !impl_->undelivered) return false;
  impl_->undelivered = false;
  return true;
}

void RuntimeApi::refuse_runtime() { impl_->state = State::kElsewhere; }

void RuntimeApi::abandon() {
  impl_->events = nullptr;
  impl_->undelivered = false;  // what nobody took is no longer to be had here
}

}  // namespace mayfly::runtime
