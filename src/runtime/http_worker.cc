#include "runtime/http_worker.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/log.h"
#include "net/client_connection.h"
#include "runtime/internal/http_event.h"

namespace mayfly::runtime {

using base::Duration;
using base::Error;
using base::ErrorCode;
using base::Result;
using engine::InvocationPtr;
using engine::ResponseMode;
using net::Awaitable;
using net::ClientConnection;

namespace {

constexpr const char* kInside = "127.0.0.1";
// Until the server is up it is looked for this often: at first so that a fast one is not kept waiting.
constexpr Duration kFirstPoll = std::chrono::milliseconds(1), kLaterPoll = std::chrono::milliseconds(10);
constexpr Duration kPollOften = std::chrono::milliseconds(200);
constexpr std::uint64_t kReadinessBytesMax = 64U << 10U;  // of a body that nobody reads; more cuts the connection
// A connection is not used again after so long: common servers close theirs after two seconds and more, and a frozen one cannot.
constexpr Duration kConnectionIdleMax = std::chrono::seconds(1);
// A connection that breaks off is often the first sign of a process that ended; how, is known this soon.
constexpr Duration kLastWords = std::chrono::milliseconds(100);
constexpr Duration kSocketPause = std::chrono::milliseconds(1);
constexpr int kSocketTries = 200;

bool may_be_repeated(std::string_view method) {
  return method == "GET" || method == "HEAD" || method == "OPTIONS" || method == "PUT" || method == "DELETE" || method == "TRACE";
}

}  // namespace

struct HttpWorker::Impl {
  struct Run {
    RunNumber number = 0;
    InvocationPtr invocation;
    base::Deadline deadline = base::kNoDeadline;
    std::shared_ptr<ClientConnection> connection;
    Answer answer;
    bool given_up = false;
    bool sent = false;  // in part at least, for all we know
    [[nodiscard]] bool streams() const { return invocation->mode == ResponseMode::kStreaming && invocation->sink; }
  };
  using RunPtr = std::shared_ptr<Run>;
  struct Idle {
    std::shared_ptr<ClientConnection> connection;
    base::TimePoint since;
  };

  Impl(net::Executor executor_in, base::UniqueFd listener, base::UniqueFd dialler, RuntimeEvents& events_in, const base::Clock& clock_in,
       HttpWorkerOptions options_in)
      : executor(std::move(executor_in)),
        sockets(std::move(listener), std::move(dialler)),
        events(&events_in),
        clock(clock_in),
        options(std::move(options_in)),
        tasks(executor) {}

  static Awaitable<void> await_server(Impl& impl);
  static Awaitable<bool> is_ready(Impl& impl, const std::shared_ptr<ClientConnection>& connection);
  static Awaitable<void> serve(Impl& impl, RunPtr run);
  // Sends the request and reads the answer's head, on a kept connection or a new one.
  static Awaitable<Result<net::Response>> ask(Impl& impl, RunPtr run, EventShape& shape);
  // A connection of its own for `run`.
  static Awaitable<Result<void>> connect(Impl& impl, RunPtr run);
  // What `run` asks the server; takes the payload.
  [[nodiscard]] EventRequest request_for(const Run& run) const;
  static Awaitable<void> collect(Impl& impl, RunPtr run, EventShape shape, net::Response response);
  static Awaitable<void> stream(Impl& impl, RunPtr run, EventShape shape, net::Response response);
  static Awaitable<bool> pass_on(Impl& impl, RunPtr run, std::string piece);
  static Awaitable<void> fail_reading(Impl& impl, RunPtr run, Error error);
  static Awaitable<Result<std::shared_ptr<ClientConnection>>> make_connection(Impl& impl);

  std::shared_ptr<ClientConnection> kept_connection();
  void fail(Run& run, FunctionFault fault) const;
  [[nodiscard]] bool is_error(EventShape shape, int status) const {
    return options.contract.errors.contains(status) || (shape == EventShape::kOther && status >= 500);
  }
  [[nodiscard]] bool over(const Run& run) const { return events == nullptr || run.given_up; }

  net::Executor executor;
  net::SocketSource sockets;
  RuntimeEvents* events;
  const base::Clock& clock;
  const HttpWorkerOptions options;
  std::vector<RunPtr> runs;
  std::vector<Idle> idle;
  net::TaskScope tasks;
};

// ---- the init

Awaitable<void> HttpWorker::Impl::await_server(Impl& impl) {
  const base::TimePoint began = impl.clock.now();
  std::shared_ptr<ClientConnection> connection;
  while (true) {
    if (!connection) {
      auto made = co_await make_connection(impl);
      if (!made.ok()) {
        base::log_error("an environment's HTTP server cannot be reached", {{"what", made.error().message()}});
        co_return;  // ends as an init that takes too long
      }
      connection = *std::move(made);
    }
    const auto connected = co_await connection->connect(kInside, impl.options.contract.readiness_port);
    if (connected.ok()) {
      const bool ready = co_await is_ready(impl, connection);
      if (ready) break;
      connection.reset();
    }
    co_await net::sleep_until(impl.clock.now() + (impl.clock.now() - began < kPollOften ? kFirstPoll : kLaterPoll));
  }
  if (impl.options.contract.readiness_port == impl.options.contract.port && connection->reusable())
    impl.idle.push_back({connection, impl.clock.now()});
  if (impl.events != nullptr) impl.events->on_next(0);
}

Awaitable<bool> HttpWorker::Impl::is_ready(Impl& impl, const std::shared_ptr<ClientConnection>& connection) {
  const HttpContract& contract = impl.options.contract;
  if (!contract.readiness_by_http) co_return true;
  auto request = std::make_shared<net::ClientRequest>();
  request->url = "http://127.0.0.1:" + std::to_string(contract.readiness_port) + contract.readiness_path;
  request->response_bytes_max = kReadinessBytesMax;
  const auto answer = co_await connection->send(request);
  if (!answer.ok() || !contract.healthy.contains(answer->status)) co_return false;
  while (true) {  // so that the connection can be kept, and a server that still writes is not cut off
    const auto piece = co_await connection->read();
    if (!piece.ok() || piece->empty()) co_return true;
  }
}

// ---- connections

Awaitable<Result<std::shared_ptr<ClientConnection>>> HttpWorker::Impl::make_connection(Impl& impl) {
  for (int tries = 0;; ++tries) {
    auto socket = impl.sockets.make();
    if (socket.ok()) co_return std::make_shared<ClientConnection>(impl.executor, *std::move(socket));
    if (socket.error().code() != ErrorCode::kUnavailable || tries >= kSocketTries) co_return std::move(socket).error();
    co_await net::sleep_until(impl.clock.now() + kSocketPause);
  }
}

std::shared_ptr<ClientConnection> HttpWorker::Impl::kept_connection() {
  while (!idle.empty()) {
    Idle last = std::move(idle.back());
    idle.pop_back();
    if (clock.now() - last.since <= kConnectionIdleMax && last.connection->reusable()) return std::move(last.connection);
  }
  return nullptr;
}

// ---- runs

Awaitable<void> HttpWorker::Impl::serve(Impl& impl, RunPtr run) {
  EventShape shape = EventShape::kOther;
  auto response = co_await ask(impl, run, shape);
  if (impl.over(*run)) co_return;
  run->answer.began = impl.clock.now();
  if (!response.ok()) {
    Error error = std::move(response).error();
    co_await fail_reading(impl, run, std::move(error));
  } else if (run->streams() && !impl.is_error(shape, response->status)) {
    co_await stream(impl, run, shape, *std::move(response));
  } else {
    co_await collect(impl, run, shape, *std::move(response));
  }
  if (impl.over(*run)) co_return;
  std::erase(impl.runs, run);
  if (run->connection && run->connection->reusable()) impl.idle.push_back({std::move(run->connection), impl.clock.now()});
  run->connection.reset();
  run->answer.run = run->number;
  impl.events->on_answer(std::move(run->answer));
  if (impl.events != nullptr) impl.events->on_next(run->number);
}

EventRequest HttpWorker::Impl::request_for(const Run& run) const {
  engine::Invocation& invocation = *run.invocation;
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(run.deadline - clock.now()).count();
  EventRequest made = request_of(std::move(invocation.payload), options.contract,
                                 {.version = *options.version,
                                  .request_id = invocation.request_id,
                                  .invoked_arn = invocation.invoked_arn,
                                  .trace_id = invocation.trace_id,
                                  .client_context = invocation.client_context,
                                  .log_stream = options.log_stream,
                                  .deadline_ms = base::epoch_ms(clock.wall_now()) + left});
  made.request.response_bytes_max = run.streams() ? options.limits.stream_bytes : options.limits.response_bytes;
  return made;
}

Awaitable<Result<net::Response>> HttpWorker::Impl::ask(Impl& impl, RunPtr run, EventShape& shape) {
  run->connection = impl.kept_connection();
  const bool kept = run->connection != nullptr;
  if (!kept) MAYFLY_CO_TRY(co_await connect(impl, run));
  EventRequest made = impl.request_for(*run);
  shape = made.shape;
  const auto request = std::make_shared<const net::ClientRequest>(std::move(made.request));
  run->sent = true;
  auto response = co_await run->connection->send(request);
  // Closed by the server while it was not in use, most likely: then it has not seen this request.
  const bool stale = kept && !response.ok() && run->connection->peer_closed() && !run->connection->heard();
  if (!stale || impl.over(*run) || !may_be_repeated(request->method)) co_return response;
  MAYFLY_CO_TRY(co_await connect(impl, run));
  co_return co_await run->connection->send(request);
}

Awaitable<Result<void>> HttpWorker::Impl::connect(Impl& impl, RunPtr run) {
  MAYFLY_CO_ASSIGN(std::shared_ptr<ClientConnection> connection, co_await make_connection(impl));
  if (impl.over(*run)) co_return Error(ErrorCode::kCancelled, "the run was given up");
  run->connection = connection;
  co_return co_await connection->connect(kInside, impl.options.contract.port);
}

Awaitable<void> HttpWorker::Impl::collect(Impl& impl, RunPtr run, EventShape shape, net::Response response) {
  while (true) {
    auto piece = co_await run->connection->read();
    if (impl.over(*run)) co_return;
    if (!piece.ok()) {
      Error error = std::move(piece).error();
      co_await fail_reading(impl, run, std::move(error));
      co_return;
    }
    if (piece->empty()) break;
    if (response.body.empty()) {
      response.body = *std::move(piece);
    } else {
      response.body += *piece;
    }
  }
  Answer& answer = run->answer;
  if (impl.is_error(shape, response.status)) {
    impl.fail(*run, platform_fault("Function.HttpStatus", run->invocation->request_id,
                                   "The function's HTTP server answered " + std::to_string(response.status)));
    co_return;
  }
  answer.payload = answer_of(shape, response);
  answer.produced_bytes = answer.payload.size();
  if (answer.payload.size() > impl.options.limits.response_bytes) impl.fail(*run, response_too_large(impl.options.limits.response_bytes));
}

Awaitable<void> HttpWorker::Impl::stream(Impl& impl, RunPtr run, EventShape shape, net::Response response) {
  engine::ResponseSink& sink = *run->invocation->sink;
  bool listening = true;
  if (shape == EventShape::kOther) {
    const std::string_view type = response.headers.get("content-type");
    sink.on_stream_begin(type.empty() ? "application/octet-stream" : header_safe(type));
  } else {
    sink.on_stream_begin(kPreludeType);
    listening = co_await pass_on(impl, run, prelude_of(response));
  }
  while (!impl.over(*run)) {
    auto piece = co_await run->connection->read();
    if (impl.over(*run)) co_return;
    if (!piece.ok()) {
      Error error = std::move(piece).error();
      co_await fail_reading(impl, run, std::move(error));
      co_return;
    }
    if (piece->empty()) co_return;
    run->answer.produced_bytes += piece->size();
    // A caller that left is no reason to stop.
    if (listening) listening = co_await pass_on(impl, run, *std::move(piece));
  }
}

// Waits until the sink has taken it. Whether it wants more.
Awaitable<bool> HttpWorker::Impl::pass_on(Impl& impl, RunPtr run, std::string piece) {
  struct Taken {
    explicit Taken(const net::Executor& executor) : done(executor) {}
    net::Event done;
    bool listening = true;
  };
  const auto taken = std::make_shared<Taken>(impl.executor);
  run->invocation->sink->on_stream_piece(std::move(piece), [weak = std::weak_ptr<Taken>(taken)](bool listening) {
    const auto waiting = weak.lock();
    if (!waiting) return;
    waiting->listening = listening;
    waiting->done.set();
  });
  if (!taken->done.is_set()) (void)co_await taken->done.wait();
  co_return taken->listening;
}

// The connection could not be made, broke off, or carries no HTTP.
Awaitable<void> HttpWorker::Impl::fail_reading(Impl& impl, RunPtr run, Error error) {
  const std::string& id = run->invocation->request_id;
  const bool began = run->connection && run->connection->heard();
  const bool broke_off = !run->connection || run->connection->peer_closed() || error.code() == ErrorCode::kUnavailable;
  if (error.code() == ErrorCode::kTooLarge) {
    impl.fail(*run, response_too_large(run->invocation->mode == ResponseMode::kStreaming ? impl.options.limits.stream_bytes
                                                                                         : impl.options.limits.response_bytes));
    co_return;
  }
  if (error.code() == ErrorCode::kInvalidArgument) {  // found before anything was sent, and not to be told within hand_over()
    co_await net::sleep_until(impl.clock.now() + kSocketPause);
    if (impl.over(*run)) co_return;
    impl.fail(*run, platform_fault("Runtime.InvalidHttpEvent", id, error.message()));
    co_return;
  }
  if (began && !run->connection->peer_closed()) {
    impl.fail(*run, platform_fault("Runtime.InvalidHttpResponse", id, error.message()));
    co_return;
  }
  if (broke_off) co_await net::sleep_until(impl.clock.now() + kLastWords);
  if (impl.over(*run)) co_return;
  if (began) {
    impl.fail(*run, platform_fault("Runtime.TruncatedResponse", id, "Response was truncated: " + error.message()));
  } else {
    impl.fail(*run, platform_fault("Runtime.HttpServerUnreachable", id,
                                   "The function's HTTP server on port " + std::to_string(impl.options.contract.port) +
                                       " did not answer: " + error.message()));
  }
}

void HttpWorker::Impl::fail(Run& run, FunctionFault fault) const {
  Answer& answer = run.answer;
  if (run.connection) run.connection->close();
  answer.failed = true;
  answer.payload = std::move(fault.payload);
  answer.error_type = std::move(fault.error_type);
  answer.cause = std::move(fault.cause);
  answer.produced_bytes = std::max<std::uint64_t>(answer.produced_bytes, answer.payload.size());
}

// ---- the face

HttpWorker::HttpWorker(const net::Executor& executor, base::UniqueFd listener, base::UniqueFd dialler, RuntimeEvents& events,
                       const base::Clock& clock, HttpWorkerOptions options)
    : impl_(std::make_unique<Impl>(executor, std::move(listener), std::move(dialler), events, clock, std::move(options))) {
  impl_->tasks.spawn(Impl::await_server(*impl_));
}

HttpWorker::~HttpWorker() { abandon(); }

void HttpWorker::hand_over(RunNumber run, InvocationPtr invocation, base::Deadline run_deadline) {
  auto made = std::make_shared<Impl::Run>();
  made->number = run;
  made->invocation = std::move(invocation);
  made->deadline = run_deadline;
  impl_->runs.push_back(made);
  impl_->tasks.spawn(Impl::serve(*impl_, std::move(made)));
}

bool HttpWorker::take_back(RunNumber run) {
  const auto it = std::ranges::find_if(impl_->runs, [run](const auto& each) { return each->number == run; });
  if (it == impl_->runs.end() || (*it)->sent) return false;
  give_up(run);
  return true;
}

void HttpWorker::give_up(RunNumber run) {
  const auto it = std::ranges::find_if(impl_->runs, [run](const auto& each) { return each->number == run; });
  if (it == impl_->runs.end()) return;
  const Impl::RunPtr given_up = *it;
  impl_->runs.erase(it);
  given_up->given_up = true;
  if (given_up->connection) given_up->connection->close();
}

void HttpWorker::abandon() {
  if (impl_->events == nullptr) return;
  impl_->events = nullptr;
  for (const auto& run : impl_->runs) {
    if (run->connection) run->connection->close();
  }
  impl_->idle.clear();
  impl_->tasks.cancel();
}

}  // namespace mayfly::runtime
