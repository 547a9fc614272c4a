#include "api/lambda/invoke.h"

#include <boost/asio/this_coro.hpp>
#include <boost/json.hpp>

#include "api/api.h"
#include "api/internal/answer.h"
#include "api/lambda/input.h"
#include "api/lambda/payload.h"
#include "api/lambda/resolve.h"
#include "base/bytes.h"
#include "base/log.h"
#include "engine/answer_queue.h"
#include "net/event_stream.h"

namespace mayfly::api::lambda {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;
using net::Awaitable;

constexpr const char* kEventStream = "application/vnd.amazon.eventstream";

// Between the engine and the coroutine that answers. Both live on the loop's thread; the engine may keep the sink longer.
class Sink final : public engine::AnswerQueue {
 public:
  Sink(const net::Executor& executor, engine::ResponseMode mode) : AnswerQueue(mode), changed_(executor) {}

  // Until something new can be seen.
  Awaitable<void> changed() {
    (void)co_await changed_.wait();  // no deadline: the engine gives every invocation an outcome by its call deadline
    changed_.reset();
  }

 private:
  void on_change() override { changed_.set(); }

  net::Event changed_;
};

Result<void> check_kind(const json::object& input) {
  if (text_in(input, "InvocationType") == "Event") {
    return unsupported("mayfly does not support asynchronous invocation (InvocationType Event) yet; use RequestResponse");
  }
  for (const char* name : {"DurableExecutionName", "TenantId"}) {
    if (!text_in(input, name).empty()) return unsupported("mayfly does not support " + std::string(name) + " yet; leave it out");
  }
  return {};
}

Result<void> check_state(const engine::FunctionVersion& version) {
  if (version.state != engine::FunctionState::kPending && version.state != engine::FunctionState::kFailed) return {};
  return Error(ErrorCode::kConflict,
               "The operation cannot be performed at this time. The function is currently in the following state: " +
                   std::string(engine::state_name(version.state)),
               "ResourceConflictException");
}

// Everything that can be wrong with a call before the engine sees it.
Result<engine::InvocationPtr> prepare(InvokeCall& call, engine::ResponseMode mode) {
  const engine::Account& account = call.context.registry.account();
  const Target& target = call.target;
  MAYFLY_TRY(check_kind(call.input));
  MAYFLY_ASSIGN(std::string client_context, decode_client_context(text_in(call.input, "ClientContext")));
  if (call.payload.empty()) {
    call.payload = "{}";
  } else {
    MAYFLY_TRY(check_payload_json(call.payload));
  }
  MAYFLY_ASSIGN(engine::VersionPtr version, route_invocation(call.context.registry, target));
  MAYFLY_TRY(check_state(*version));
  auto invocation = std::make_shared<engine::Invocation>();
  invocation->request_id = call.request_id;
  invocation->invoked_arn = target.arn(account);
  invocation->payload = std::move(call.payload);
  invocation->mode = mode;
  invocation->tail_log = text_in(call.input, "LogType") == "Tail";
  invocation->client_context = std::move(client_context);
  invocation->trace_id = std::string(call.exchange.head().headers.get("X-Amzn-Trace-Id"));
  if (invocation->trace_id.empty()) invocation->trace_id = engine::new_trace_id(call.context.clock.wall_now());
  invocation->accepted = call.context.clock.now();
  invocation->call_deadline =
      invocation->accepted + call.context.queue_budget + call.context.start_budget + std::chrono::seconds(version->config.timeout_s);
  invocation->version = std::move(version);
  return invocation;
}

bool is_dry_run(const json::object& input) { return text_in(input, "InvocationType") == "DryRun"; }

void add_common(net::Headers& headers, const engine::Outcome& outcome) {
  if (!outcome.stand_in.empty()) headers.add("X-Mayfly-Stand-In", outcome.stand_in);
}

Error refusal(engine::Outcome& outcome) {
  if (outcome.error) return *std::move(outcome.error);
  return Error(ErrorCode::kInternal, "the invocation was refused without a reason; please report this", "ServiceException");
}

net::Response buffered_answer(engine::Outcome outcome, const engine::Invocation& invocation) {
  net::Response response;
  response.headers.add("Content-Type", "application/json");
  response.headers.add("X-Amz-Executed-Version", outcome.executed_version.empty() ? invocation.version->version : outcome.executed_version);
  response.headers.add("X-Amzn-Trace-Id", invocation.trace_id);
  if (outcome.kind == engine::OutcomeKind::kFunctionError) response.headers.add("X-Amz-Function-Error", "Unhandled");
  if (invocation.tail_log) response.headers.add("X-Amz-Log-Result", base::base64_encode(outcome.log_tail));
  add_common(response.headers, outcome);
  response.body = std::move(outcome.payload);
  return response;
}

std::string event(const char* type, const char* content_type, std::string payload) {
  return net::encode_event_stream(
      {.headers = {{":event-type", type}, {":content-type", content_type}, {":message-type", "event"}}, .payload = std::move(payload)});
}

std::string complete_event(const engine::Outcome& outcome, bool tail_log) {
  json::object complete;
  if (outcome.kind == engine::OutcomeKind::kFunctionError) {
    complete["ErrorCode"] = outcome.error_type.empty() ? "Unhandled" : outcome.error_type;
    complete["ErrorDetails"] = outcome.payload;
  } else if (outcome.kind == engine::OutcomeKind::kRefused) {
    complete["ErrorCode"] = outcome.error ? outcome.error->id() : "ServiceException";
    complete["ErrorDetails"] = outcome.error ? outcome.error->message() : "";
  }
  if (tail_log) complete["LogResult"] = base::base64_encode(outcome.log_tail);
  return event("InvokeComplete", "application/json", json::serialize(complete));
}

// Sends what the sink has until the outcome. An error: the peer went away.
class StreamAnswer {
 public:
  StreamAnswer(net::Exchange& exchange, Sink& sink, const engine::Invocation& invocation)
      : exchange_(exchange), sink_(sink), invocation_(invocation) {}

  Awaitable<Result<void>> run() {
    while (true) {
      while (sink_.has_piece()) {
        auto piece = sink_.take();
        const Result<void> sent = co_await send_piece(std::move(piece.first));
        piece.second(sent.ok());
        if (!sent.ok()) co_return sent.error();
      }
      if (sink_.outcome || sink_.detached()) break;
      if (sink_.begun) MAYFLY_CO_TRY(co_await begin());
      co_await sink_.changed();
    }
    if (sink_.detached()) co_return Error(ErrorCode::kCancelled, "the caller went away");
    co_return co_await finish(*sink_.outcome);
  }

 private:
  Awaitable<Result<void>> begin() {
    if (begun_) co_return Result<void>();
    begun_ = true;
    net::Headers headers;
    headers.add("Content-Type", sink_.content_type.empty() ? "application/octet-stream" : sink_.content_type);
    headers.add("X-Amzn-Remapped-Content-Type", kEventStream);
    headers.add("X-Amz-Executed-Version", invocation_.version->version);
    headers.add("X-Amzn-Trace-Id", invocation_.trace_id);
    headers.add("x-amzn-RequestId", invocation_.request_id);
    if (sink_.outcome) add_common(headers, *sink_.outcome);
    co_return co_await exchange_.begin(200, std::move(headers));
  }
  Awaitable<Result<void>> send_piece(std::string bytes) {
    MAYFLY_CO_TRY(co_await begin());
    const std::string framed = event("PayloadChunk", "application/octet-stream", std::move(bytes));
    co_return co_await exchange_.write(framed);
  }
  Awaitable<Result<void>> finish(engine::Outcome& outcome) {
    if (outcome.kind == engine::OutcomeKind::kRefused && !begun_) co_return refusal(outcome);
    MAYFLY_CO_TRY(co_await begin());
    if (outcome.kind == engine::OutcomeKind::kSuccess && !outcome.payload.empty())
      MAYFLY_CO_TRY(co_await send_piece(std::move(outcome.payload)));
    const std::string last = complete_event(outcome, invocation_.tail_log);
    MAYFLY_CO_TRY(co_await exchange_.write(last));
    net::Headers no_trailers;
    co_return co_await exchange_.finish(std::move(no_trailers));
  }

  net::Exchange& exchange_;
  Sink& sink_;
  const engine::Invocation& invocation_;
  bool begun_ = false;
};

Awaitable<Result<void>> dry_run(net::Exchange& exchange, const std::string& request_id) {
  net::Response response{.status = 204, .headers = {}, .body = {}};
  response.headers.add("x-amzn-RequestId", request_id);
  co_return co_await exchange.respond(std::move(response));
}

// A failure to send is the peer's business: nothing is left to answer.
Result<void> unless_sending(const net::Exchange& exchange, Result<void> result) {
  if (result.ok() || !exchange.answered()) return result;
  base::log_debug("an answer was not delivered", {{"cause", result.error().message()}});
  return {};
}

}  // namespace

Awaitable<Result<void>> invoke_buffered(InvokeCall call) {
  MAYFLY_CO_ASSIGN(const engine::InvocationPtr invocation, prepare(call, engine::ResponseMode::kBuffered));
  if (is_dry_run(call.input)) co_return co_await dry_run(call.exchange, call.request_id);
  const net::Executor executor = co_await boost::asio::this_coro::executor;
  const auto sink = std::make_shared<Sink>(executor, engine::ResponseMode::kBuffered);
  invocation->sink = sink;
  call.context.invoker.invoke(invocation);
  if (!sink->outcome) call.exchange.when_peer_gone([sink] { sink->detach(); });
  while (!sink->outcome && !sink->detached()) co_await sink->changed();
  if (sink->detached()) {
    call.exchange.abort();
    co_return Result<void>();
  }
  if (sink->outcome->kind == engine::OutcomeKind::kRefused) {
    call.throttle_reason = sink->outcome->throttle_reason;
    co_return refusal(*sink->outcome);
  }
  net::Response response = buffered_answer(*std::move(sink->outcome), *invocation);
  response.headers.add("x-amzn-RequestId", call.request_id);
  Result<void> sent = co_await call.exchange.respond(std::move(response));
  co_return unless_sending(call.exchange, std::move(sent));
}

Awaitable<Result<void>> invoke_streaming(InvokeCall call) {
  MAYFLY_CO_ASSIGN(const engine::InvocationPtr invocation, prepare(call, engine::ResponseMode::kStreaming));
  if (is_dry_run(call.input)) co_return co_await dry_run(call.exchange, call.request_id);
  const net::Executor executor = co_await boost::asio::this_coro::executor;
  const auto sink = std::make_shared<Sink>(executor, engine::ResponseMode::kStreaming);
  invocation->sink = sink;
  call.context.invoker.invoke(invocation);
  call.exchange.when_peer_gone([sink] { sink->detach(); });
  StreamAnswer answer(call.exchange, *sink, *invocation);
  Result<void> sent = co_await answer.run();
  const bool refused = !sent.ok() && !call.exchange.answered() && sent.error().code() != ErrorCode::kCancelled;
  if (refused) {
    if (sink->outcome) call.throttle_reason = sink->outcome->throttle_reason;
    co_return sent;
  }
  if (!sent.ok()) {
    sink->detach();
    call.exchange.abort();
  }
  co_return Result<void>();
}

}  // namespace mayfly::api::lambda
