#include "gateway/internal/url_door.h"

#include <algorithm>
#include <array>
#include <boost/asio/this_coro.hpp>
#include <charconv>
#include <optional>
#include <vector>

#include "access/policy.h"
#include "base/bytes.h"
#include "base/json.h"
#include "base/log.h"
#include "engine/answer_queue.h"
#include "gateway/internal/cors.h"
#include "gateway/internal/url_address.h"
#include "gateway/internal/url_answer.h"
#include "gateway/internal/url_event.h"
#include "net/sigv4.h"

namespace mayfly::gateway {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
using net::Awaitable;

constexpr std::uint64_t kHeldMax = 512U << 20U;  // of bodies at once; anybody may send them
constexpr const char* kService = "function-url";
constexpr const char* kInvokeUrl = "lambda:InvokeFunctionUrl";

// Recorded from AWS: of an id that is no function's the message is null.
constexpr const char* kUnknownUrl = "{\"Message\":null}";
constexpr const char* kForbidden =
    "Forbidden. For troubleshooting Function URL authorization issues, see: https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html";

Error forbidden() { return Error(ErrorCode::kPermissionDenied, kForbidden, "AccessDeniedException"); }

net::Response json_response(int status, std::string body) {
  net::Response response{.status = status, .headers = {}, .body = std::move(body)};
  response.headers.add("Content-Type", "application/json");
  return response;
}

net::Response error_response(const Error& error) {
  // What is wrong with a signature is said by the layer in front, which spells the member otherwise.
  const bool unproven = error.code() == ErrorCode::kUnauthenticated;
  const int status = unproven ? 403 : base::http_status(error.code());
  // What is wrong with this host is for its log, not for strangers.
  const std::string message = status >= 500 ? std::string(net::reason_phrase(status)) : error.message();
  net::Response response = json_response(status, (unproven ? "{\"message\":" : "{\"Message\":") + base::json_quote(message) + "}");
  if (!error.id().empty()) response.headers.add("x-amzn-ErrorType", error.id());
  return response;
}

// What the caller hears of a function that failed, or that answered what is no response. The cause is in the function's log.
net::Response bad_gateway() { return json_response(502, "Internal Server Error"); }

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

double random_share() {
  std::array<std::uint8_t, 4> bytes{};
  base::random_bytes(bytes);
  std::uint32_t number = 0;
  for (const std::uint8_t byte : bytes) number = number << 8U | byte;
  return static_cast<double>(number) / 4294967296.0;
}

}  // namespace

// What is learned about one request on its way.
struct UrlDoor::Visit {
  std::string request_id = base::random_uuid();
  std::string trace_id;
  UrlAddress address;
  std::optional<engine::UrlTarget> target;
  Cors cors;
  std::optional<net::SignatureClaim> claim;
  access::CredentialPointer credential;  // null: nobody had to sign
  const char* operation = "None";        // for metrics
  int status = 0;
  std::uint64_t held_bytes = 0;
  bool reservation_full = false;  // of the function: nobody can say when it has a place again

  [[nodiscard]] const engine::FunctionUrl& url() const { return target->url(); }
  [[nodiscard]] std::string arn() const { return target->record->latest->arn + (target->qualifier.empty() ? "" : ":" + target->qualifier); }
  // What a refused invocation is answered as.
  [[nodiscard]] Error refusal(const engine::Outcome& outcome) {
    reservation_full = outcome.throttle_reason == engine::kReservedLimit;
    if (outcome.error) return *outcome.error;
    return Error(ErrorCode::kInternal, "the invocation was refused without a reason; please report this", "ServiceException");
  }
  // What every answer of a URL carries.
  void complete(const net::RequestHead& head, net::Headers& headers) const {
    headers.set("x-amzn-RequestId", request_id);
    headers.set("X-Amzn-Trace-Id", trace_id);
    apply_cors(cors, head, headers);
  }
};

// Sends what the sink has until the outcome. An error before anything was sent is the answer's; afterwards the peer went away.
class UrlDoor::StreamAnswer {
 public:
  StreamAnswer(net::Exchange& exchange, Sink& sink, Visit& visit) : exchange_(exchange), sink_(sink), visit_(visit) {}

  Awaitable<Result<void>> run() {
    while (true) {
      while (sink_.has_piece()) {
        auto piece = sink_.take();
        const Result<void> sent = co_await pass_on(piece.first);
        piece.second(sent.ok());
        if (!sent.ok()) co_return sent.error();
      }
      if (sink_.outcome || sink_.detached()) break;
      // The head goes out with the first byte, not before: a function that fails until then is answered as 502, also where its
      // runtime client begins a response only to break it off, as AWS's for Node.js does.
      co_await sink_.changed();
    }
    if (sink_.detached()) co_return Error(ErrorCode::kCancelled, "the caller went away");
    co_return co_await finish(*sink_.outcome);
  }
  [[nodiscard]] bool begun() const { return begun_; }

 private:
  [[nodiscard]] bool has_prelude() const {
    const std::string_view type = sink_.content_type;
    return net::equal_ignoring_case(type.substr(0, type.find(';')), kPreludeType);
  }
  Awaitable<Result<void>> begin(int status, net::Headers headers) {
    begun_ = true;
    visit_.status = status;
    headers.remove("Content-Length");
    visit_.complete(exchange_.head(), headers);
    co_return co_await exchange_.begin(status, std::move(headers));
  }
  Awaitable<Result<void>> begin_plain() {
    if (begun_) co_return Result<void>();
    net::Headers headers;
    headers.add("Content-Type", sink_.content_type.empty() ? "application/octet-stream" : sink_.content_type);
    co_return co_await begin(200, std::move(headers));
  }
  Awaitable<Result<void>> pass_on(const std::string& bytes) {
    if (begun_ || !has_prelude()) {
      MAYFLY_CO_TRY(co_await begin_plain());
      co_return co_await exchange_.write(bytes);
    }
    std::string rest;
    MAYFLY_CO_ASSIGN(const bool complete, prelude_.feed(bytes, rest));
    if (!complete) co_return Result<void>();
    net::Headers headers = prelude_.response().headers;
    MAYFLY_CO_TRY(co_await begin(prelude_.response().status, std::move(headers)));
    co_return co_await exchange_.write(rest);
  }
  Awaitable<Result<void>> finish(engine::Outcome& outcome) {
    if (outcome.kind == engine::OutcomeKind::kRefused && !begun_) co_return visit_.refusal(outcome);
    if (outcome.kind != engine::OutcomeKind::kSuccess) co_return Error(ErrorCode::kFunctionFailed, "the function failed");
    if (!begun_ && !sink_.begun) {  // the runtime does not stream: its whole answer is the body, as on AWS
      net::Response whole = json_response(200, std::move(outcome.payload));
      visit_.status = whole.status;
      visit_.complete(exchange_.head(), whole.headers);
      co_return co_await exchange_.respond(std::move(whole));
    }
    if (!begun_ && has_prelude()) co_return Error(ErrorCode::kFunctionFailed, "the function's answer ended before its prelude did");
    MAYFLY_CO_TRY(co_await begin_plain());
    net::Headers no_trailers;
    co_return co_await exchange_.finish(std::move(no_trailers));
  }

  net::Exchange& exchange_;
  Sink& sink_;
  Visit& visit_;
  PreludeReader prelude_;
  bool begun_ = false;
};

// A function that fails is its owner's business, and in its own log; anything else is the operator's.
void UrlDoor::report(const Visit& visit, const Error& error) {
  const std::string function = visit.target ? visit.target->record->latest->function_name : "";
  if (error.code() == ErrorCode::kFunctionFailed) {
    base::log_debug("a function answered its URL with a failure",
                    {{"function", function}, {"request", visit.request_id}, {"cause", error.message()}});
  } else {
    base::log_warning("a request of a function URL failed",
                      {{"function", function}, {"request", visit.request_id}, {"cause", error.to_string()}});
  }
}

Awaitable<void> UrlDoor::serve(net::Exchange& exchange) {
  const base::TimePoint started = context_.clock.now();
  Visit visit;
  visit.trace_id = engine::new_trace_id(context_.clock.wall_now());
  Result<void> served = co_await serve_url(exchange, visit);
  if (!served.ok() && !exchange.answered()) {
    const Error& error = served.error();
    const bool by_function = error.code() == ErrorCode::kFunctionFailed;
    net::Response response = by_function ? bad_gateway() : error_response(error);
    // As the signed Invoke: places of the account are free again at any moment.
    if (response.status == 429 && !visit.reservation_full) response.headers.add("Retry-After", "1");
    if (response.status >= 500) report(visit, error);
    (void)co_await send(exchange, visit, std::move(response));  // the peer may be gone; nothing is left to tell it
  }
  held_bytes_ -= visit.held_bytes;
  context_.metrics.on_http_request(kService, visit.operation, visit.status, context_.clock.now() - started);
}

Awaitable<Result<void>> UrlDoor::send(net::Exchange& exchange, Visit& visit, net::Response response) {
  visit.status = response.status;
  visit.complete(exchange.head(), response.headers);
  co_return co_await exchange.respond(std::move(response));
}

Awaitable<Result<void>> UrlDoor::serve_url(net::Exchange& exchange, Visit& visit) {
  const net::RequestHead& head = exchange.head();
  auto address = find_url_address(head, {.region = context_.registry.account().region, .domain = context_.domain});
  if (!address) {
    std::string message =
        "{\"Message\":" + base::json_quote("No function is published at " + std::string(head.path().substr(0, 256))) + "}";
    net::Response nothing = json_response(404, std::move(message));
    co_return co_await send(exchange, visit, std::move(nothing));
  }
  visit.address = *std::move(address);
  visit.target = context_.registry.find_url(visit.address.id);
  visit.operation = "Invoke";
  if (!visit.target) {
    net::Response unknown = json_response(403, kUnknownUrl);
    unknown.headers.add("x-amzn-ErrorType", "AccessDeniedException");
    co_return co_await send(exchange, visit, std::move(unknown));
  }
  visit.cors = Cors::parse(visit.url().cors_json);
  if (visit.cors.configured() && is_preflight(head)) {
    visit.operation = "Preflight";
    net::Response permissions = answer_preflight(visit.cors, head);
    visit.status = permissions.status;
    permissions.headers.set("x-amzn-RequestId", visit.request_id);
    co_return co_await exchange.respond(std::move(permissions));
  }
  if (visit.url().authentication == engine::UrlAuthentication::kIam) MAYFLY_CO_TRY(prove_head(exchange, visit));
  MAYFLY_CO_TRY(allow(exchange, visit));
  MAYFLY_CO_ASSIGN(std::string body, co_await read_body(exchange, visit));
  if (visit.credential) MAYFLY_CO_TRY(prove_body(exchange, visit, body));
  MAYFLY_CO_ASSIGN(engine::InvocationPtr invocation, prepare(exchange, visit, std::move(body)));
  if (visit.url().streams) co_return co_await run_streaming(exchange, visit, std::move(invocation));
  co_return co_await run_buffered(exchange, visit, std::move(invocation));
}

Result<void> UrlDoor::prove_head(net::Exchange& exchange, Visit& visit) const {
  auto claim = net::parse_claim(exchange.head());
  if (!claim.ok()) {
    if (claim.error().id() == "MissingAuthenticationTokenException") return forbidden();
    return std::move(claim).error();
  }
  MAYFLY_TRY(net::check_scope(*claim, {.region = context_.registry.account().region, .service = "lambda"}));
  MAYFLY_ASSIGN(visit.credential, context_.credentials.find(claim->access_key, claim->session_token, context_.clock.wall_now()));
  if (!claim->payload_hash.empty())
    MAYFLY_TRY(net::verify_claim(*claim, exchange.head(), visit.credential->secret_key, context_.clock.wall_now()));
  visit.claim = *std::move(claim);
  return {};
}

Result<void> UrlDoor::prove_body(net::Exchange& exchange, Visit& visit, std::string& body) const {
  net::SignatureClaim& claim = *visit.claim;
  const std::string& secret = visit.credential->secret_key;
  if (claim.payload_hash.empty()) {
    claim.payload_hash = net::payload_hash(body);
    return net::verify_claim(claim, exchange.head(), secret, context_.clock.wall_now());
  }
  if (!net::is_streaming(claim)) return net::check_payload(claim, body);
  const std::string_view text = exchange.head().headers.get("x-amz-decoded-content-length");
  std::uint64_t length = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), length);
  const bool stated = !text.empty() && ec == std::errc() && end == text.data() + text.size();
  MAYFLY_ASSIGN(body, net::decode_aws_chunked(claim, body, secret, stated ? std::optional(length) : std::nullopt));
  return {};
}

// A denial of the function's policy is final; its permission is enough, and the only one for callers that did not sign.
Result<void> UrlDoor::allow(const net::Exchange& exchange, const Visit& visit) const {
  access::PolicyRequest request;
  request.resource = visit.arn();
  request.context["lambda:functionurlauthtype"] = visit.credential ? "AWS_IAM" : "NONE";
  request.context["lambda:invokedviafunctionurl"] = "true";
  request.context["aws:sourceip"] = exchange.peer_address();
  if (visit.credential) {
    const access::Principal& caller = visit.credential->principal;
    request.account = caller.account;
    request.principal_arn = caller.arn;
    request.role_arn = caller.role_arn;
    request.context["aws:principalarn"] = caller.role_arn.empty() ? caller.arn : caller.role_arn;
    request.context["aws:principalaccount"] = caller.account;
  }
  std::vector<std::string_view> statements;
  const auto& policies = visit.target->record->settings->policies;
  if (const auto policy = policies.find(visit.target->qualifier); policy != policies.end()) {
    for (const auto& statement : policy->second.statements) statements.emplace_back(statement.document);
  }
  request.action = "lambda:InvokeFunction";
  if (access::evaluate(statements, request) == access::PolicyDecision::kDeny) return forbidden();
  request.action = kInvokeUrl;
  const access::PolicyDecision decision = access::evaluate(statements, request);
  if (decision == access::PolicyDecision::kAllow) return {};
  if (decision == access::PolicyDecision::kDeny || !visit.credential) return forbidden();
  return access::authorise(visit.credential->principal, kInvokeUrl, request.resource).ok() ? Result<void>() : forbidden();
}

// Counts what has arrived, not what was announced: nobody holds room by promising a body.
Awaitable<Result<std::string>> UrlDoor::read_body(net::Exchange& exchange, Visit& visit) {
  constexpr std::uint64_t kLimit = engine::Limits::kSyncPayloadBytesMax;
  const Error too_large(ErrorCode::kTooLarge,
                        "Request must be smaller than " + std::to_string(kLimit) + " bytes for the InvokeFunction operation",
                        "RequestEntityTooLargeException");
  if (exchange.content_length().value_or(0) > kLimit) co_return too_large;
  std::string body;
  while (true) {
    MAYFLY_CO_ASSIGN(const std::string piece, co_await exchange.read_some());
    if (piece.empty()) co_return body;
    if (body.size() + piece.size() > kLimit) co_return too_large;
    if (held_bytes_ + piece.size() > kHeldMax) {
      co_return Error(ErrorCode::kResourceExhausted, "Too many large requests are being read at once; try again.",
                      "TooManyRequestsException");
    }
    held_bytes_ += piece.size();
    visit.held_bytes += piece.size();
    body += piece;
  }
}

Result<engine::InvocationPtr> UrlDoor::prepare(net::Exchange& exchange, Visit& visit, std::string body) const {
  engine::VersionPtr version = visit.target->record->route(visit.target->qualifier, random_share());
  if (version == nullptr) return Error(ErrorCode::kNotFound, "The URL's alias leads to no version.", "ResourceNotFoundException");
  if (version->state == engine::FunctionState::kPending || version->state == engine::FunctionState::kFailed) {
    return Error(ErrorCode::kConflict,
                 "The operation cannot be performed at this time. The function is currently in the following state: " +
                     std::string(engine::state_name(version->state)),
                 "ResourceConflictException");
  }
  auto invocation = std::make_shared<engine::Invocation>();
  invocation->payload = url_event({.head = exchange.head(),
                                   .address = visit.address,
                                   .body = std::move(body),
                                   .peer = exchange.peer_address(),
                                   .port = context_.port ? context_.port() : std::uint16_t{80},
                                   .request_id = visit.request_id,
                                   .trace_id = visit.trace_id,
                                   .caller = visit.credential ? &visit.credential->principal : nullptr,
                                   .time = context_.clock.wall_now()});
  if (invocation->payload.size() > engine::Limits::kSyncPayloadBytesMax) {  // base64 makes a body grow by a third
    return Error(
        ErrorCode::kTooLarge,
        "Request must be smaller than " + std::to_string(engine::Limits::kSyncPayloadBytesMax) + " bytes for the InvokeFunction operation",
        "RequestEntityTooLargeException");
  }
  invocation->request_id = visit.request_id;
  invocation->invoked_arn = visit.arn();
  invocation->mode = visit.url().streams ? engine::ResponseMode::kStreaming : engine::ResponseMode::kBuffered;
  invocation->trace_id = visit.trace_id;
  invocation->accepted = context_.clock.now();
  invocation->call_deadline =
      invocation->accepted + context_.queue_budget + context_.start_budget + std::chrono::seconds(version->config.timeout_s);
  invocation->version = std::move(version);
  return invocation;
}

Awaitable<Result<void>> UrlDoor::run_buffered(net::Exchange& exchange, Visit& visit, engine::InvocationPtr invocation) {
  const net::Executor executor = co_await boost::asio::this_coro::executor;
  const auto sink = std::make_shared<Sink>(executor, engine::ResponseMode::kBuffered);
  invocation->sink = sink;
  context_.invoker.invoke(invocation);
  if (!sink->outcome) exchange.when_peer_gone([sink] { sink->detach(); });
  while (!sink->outcome && !sink->detached()) co_await sink->changed();
  if (sink->detached()) {  // the function runs to its end, as on AWS
    exchange.abort();
    co_return Result<void>();
  }
  engine::Outcome& outcome = *sink->outcome;
  if (outcome.kind == engine::OutcomeKind::kRefused) co_return visit.refusal(outcome);
  if (outcome.kind == engine::OutcomeKind::kFunctionError) co_return Error(ErrorCode::kFunctionFailed, "the function failed");
  MAYFLY_CO_ASSIGN(net::Response response, read_answer(std::move(outcome.payload)));
  co_return co_await send(exchange, visit, std::move(response));
}

Awaitable<Result<void>> UrlDoor::run_streaming(net::Exchange& exchange, Visit& visit, engine::InvocationPtr invocation) {
  const net::Executor executor = co_await boost::asio::this_coro::executor;
  const auto sink = std::make_shared<Sink>(executor, engine::ResponseMode::kStreaming);
  invocation->sink = sink;
  context_.invoker.invoke(invocation);
  exchange.when_peer_gone([sink] { sink->detach(); });
  StreamAnswer answer(exchange, *sink, visit);
  Result<void> sent = co_await answer.run();
  if (sent.ok()) co_return sent;
  sink->detach();
  const bool answerable = !answer.begun() && !exchange.answered() && sent.error().code() != ErrorCode::kCancelled;
  if (answerable) co_return sent;
  exchange.abort();  // so that an incomplete answer does not look complete
  co_return Result<void>();
}

}  // namespace mayfly::gateway
