#include "api/internal/door.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>

#include "api/iam/iam.h"
#include "api/internal/authenticate.h"
#include "api/internal/query.h"
#include "api/internal/service.h"
#include "api/lambda/control.h"
#include "api/lambda/functions.h"
#include "api/lambda/input.h"
#include "api/lambda/invoke.h"
#include "api/lambda/validation.h"
#include "api/logs/logs.h"
#include "api/s3/errors.h"
#include "api/s3/headers.h"
#include "api/s3/request.h"
#include "api/s3/transfers.h"
#include "api/sts/sts.h"
#include "base/bytes.h"
#include "base/log.h"

namespace mayfly::api {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
using net::Awaitable;

constexpr std::uint64_t kSmallBodyMax = 1U << 20U;  // every operation that carries neither code nor payload
// Bodies held at once. They are read before the signature is proven where the client does not state their hash, so the sum
// is bounded: for the functions of one environment, and for everybody at the management port.
constexpr std::uint64_t kDataHeldMax = 32U << 20U;
constexpr std::uint64_t kManagementHeldMax = 512U << 20U;
constexpr std::uint64_t kS3DocumentMax = 4U << 20U;  // 1,000 keys to delete, 10,000 parts with their checksums
constexpr std::uint64_t kS3NoDocumentMax = 64U << 10U;
constexpr std::size_t kCodePieceBytes = 256U << 10U;

Error access_denied(std::string message) { return Error(ErrorCode::kPermissionDenied, std::move(message), "AccessDeniedException"); }

// The largest body of a Lambda operation and what AWS calls the operation when it is exceeded.
std::uint64_t body_limit(std::string_view operation) {
  if (operation == "CreateFunction" || operation == "UpdateFunctionCode" || operation == "PublishLayerVersion")
    return engine::Limits::kRequestBytesMax;
  if (operation == "Invoke" || operation == "InvokeWithResponseStream") return engine::Limits::kSyncPayloadBytesMax;
  return kSmallBodyMax;
}
std::string spoken_name(std::string_view operation) { return operation == "Invoke" ? "InvokeFunction" : std::string(operation); }

bool is_invoke(std::string_view operation) { return operation == "Invoke" || operation == "InvokeWithResponseStream"; }
// IAM names both ways of invoking alike.
std::string action_of(std::string_view operation) {
  return is_invoke(operation) ? "lambda:InvokeFunction" : "lambda:" + std::string(operation);
}

// Names from outside, in error texts.
std::string bounded_name(const std::string& name) { return name.empty() ? "operations" : name.substr(0, 64); }

}  // namespace

// What is learned about one request on its way.
struct Door::Visit {
  std::string request_id = base::random_uuid();
  Service service;
  std::string operation;  // for metrics and errors
  std::optional<Caller> caller;
  int status = 0;
  std::uint64_t held_bytes = 0;
  std::string throttle_reason;  // of an invocation
};

Door::Door(ApiContext& context, DoorKind kind, std::string access_key)
    : context_(context), kind_(kind), access_key_(std::move(access_key)) {}

Awaitable<void> Door::serve(net::Exchange& exchange) {
  const base::TimePoint started = context_.clock.now();
  Visit visit;
  auto claim = net::parse_claim(exchange.head());
  visit.service = find_service(exchange.head(), claim.ok() ? claim->service : "");
  Result<void> served = Result<void>();
  if (kind_ == DoorKind::kManagement && visit.service.kind == ServiceKind::kOperator) {
    served = co_await serve_operator(exchange, visit);
  } else {
    served = co_await serve_signed(exchange, visit, std::move(claim));
  }
  if (!served.ok() && !exchange.answered()) {
    net::Response response = error_of(exchange, visit, served.error());
    if (response.status >= 500) {
      base::log_warning("a request failed", {{"service", visit.service.name},
                                             {"operation", visit.operation},
                                             {"request", visit.request_id},
                                             {"cause", served.error().to_string()}});
    }
    (void)co_await send(exchange, visit, std::move(response));  // the peer may be gone; nothing is left to tell it
  }
  held_bytes_ -= visit.held_bytes;
  context_.metrics.on_http_request(visit.service.name, visit.operation, visit.status, context_.clock.now() - started);
}

net::Response Door::error_of(const net::Exchange& exchange, const Visit& visit, const Error& error) const {
  if (visit.service.kind != ServiceKind::kS3) return error_answer(visit.service.protocol, error, visit.request_id, visit.throttle_reason);
  return s3::error_answer(
      error,
      {.request_id = visit.request_id, .resource = std::string(exchange.head().path()), .region = context_.registry.account().region});
}

Awaitable<Result<void>> Door::send(net::Exchange& exchange, Visit& visit, net::Response response) {
  visit.status = response.status;
  response.headers.set(visit.service.kind == ServiceKind::kS3 ? "x-amz-request-id" : "x-amzn-RequestId", visit.request_id);
  co_return co_await exchange.respond(std::move(response));
}

Awaitable<Result<void>> Door::answer_from_pool(net::Exchange& exchange, Visit& visit, std::function<Result<net::Response>()> work) {
  std::optional<Result<net::Response>> answer;
  std::function<void()> job = [&answer, &work] { answer.emplace(work()); };
  const bool taken = co_await net::run_on(context_.pool, std::move(job));
  if (!taken) co_return Error(ErrorCode::kUnavailable, "the server has too much to do at once; try again", "ServiceUnavailableException");
  if (!answer->ok()) co_return std::move(*answer).error();
  co_return co_await send(exchange, visit, std::move(*answer).value());
}

Awaitable<Result<void>> Door::serve_signed(net::Exchange& exchange, Visit& visit, Result<net::SignatureClaim> claim) {
  if (!claim.ok()) co_return std::move(claim).error();
  if (kind_ == DoorKind::kData && claim->access_key != access_key_) {
    co_return Error(ErrorCode::kUnauthenticated, "The security token included in the request is invalid.", "UnrecognizedClientException");
  }
  const AuthenticationScope scope{
      .credentials = context_.credentials, .account = context_.registry.account(), .now = context_.clock.wall_now()};
  auto caller = authenticate_head(exchange.head(), *std::move(claim), scope);
  if (!caller.ok()) co_return std::move(caller).error();
  visit.caller.emplace(*std::move(caller));
  switch (visit.service.kind) {
    case ServiceKind::kLambda:
      co_return co_await serve_lambda(exchange, visit);
    case ServiceKind::kLogs:
      co_return co_await serve_logs(exchange, visit);
    case ServiceKind::kSts:
      co_return co_await serve_sts(exchange, visit);
    case ServiceKind::kIam:
      co_return co_await serve_iam(exchange, visit);
    case ServiceKind::kS3:
      co_return co_await serve_s3(exchange, visit);
    case ServiceKind::kCode:
      co_return co_await serve_code(exchange, visit);
    case ServiceKind::kMayfly:
      co_return co_await serve_mayfly(exchange, visit);
    case ServiceKind::kOperator:
      break;
    case ServiceKind::kUnknown:
      if (visit.service.name == "ecr")
        co_return unsupported("mayfly does not support ECR's " + bounded_name(visit.service.operation) +
                              ": it keeps no image repositories and runs no container images yet; deploy the function as a .zip package");
      co_return unsupported("mayfly does not provide the service \"" + visit.service.name +
                            "\" yet; this endpoint provides lambda, logs, s3, sts and iam");
  }
  co_return access_denied("This listener answers service calls of the function only.");
}

Result<void> Door::hold(Visit& visit, std::uint64_t bytes) {
  if (held_bytes_ + bytes > (kind_ == DoorKind::kData ? kDataHeldMax : kManagementHeldMax)) {
    return Error(ErrorCode::kResourceExhausted, "Too many large requests are being read at once; try again.", "TooManyRequestsException");
  }
  held_bytes_ += bytes;
  visit.held_bytes += bytes;
  return {};
}

Awaitable<Result<std::string>> Door::read_body(net::Exchange& exchange, Visit& visit, std::uint64_t limit, const std::string& operation) {
  MAYFLY_CO_TRY(hold(visit, std::min(exchange.content_length().value_or(limit), limit)));
  auto body = co_await exchange.read_all(limit);
  if (!body.ok()) {
    if (body.error().code() != ErrorCode::kTooLarge) co_return std::move(body).error();
    co_return Error(ErrorCode::kTooLarge,
                    "Request must be smaller than " + std::to_string(limit) + " bytes for the " + operation + " operation",
                    "RequestEntityTooLargeException");
  }
  std::string bytes = *std::move(body);
  MAYFLY_CO_TRY(authenticate_body(*visit.caller, exchange.head(), bytes, context_.clock.wall_now()));
  co_return bytes;
}

Result<void> Door::allow(const Visit& visit, const std::string& action, const std::string& resource) const {
  return access::authorise(visit.caller->principal(), action, resource);
}

Awaitable<Result<void>> Door::serve_lambda(net::Exchange& exchange, Visit& visit) {
  const net::RequestHead& head = exchange.head();
  const auto match = lambda::match_operation(head.method, head.path(), head.query());
  if (!match)
    co_return Error(ErrorCode::kNotFound, "There is no Lambda operation " + head.method + " " + std::string(head.path().substr(0, 256)),
                    "UnknownOperationException");
  visit.operation = match->operation->name;
  const std::string action = action_of(visit.operation);
  if (kind_ == DoorKind::kData && !is_invoke(visit.operation))
    co_return access_denied("Functions may not perform " + action +
                            " through their own endpoint; call the management endpoint with the account's key.");
  MAYFLY_CO_ASSIGN(std::string body, co_await read_body(exchange, visit, body_limit(visit.operation), spoken_name(visit.operation)));
  if (is_invoke(visit.operation)) {
    MAYFLY_CO_ASSIGN(auto input, lambda::read_input(*match, head, {}));
    MAYFLY_CO_ASSIGN(lambda::Target target, lambda::resolve_name(lambda::text_in(input, "FunctionName"),
                                                                 lambda::text_in(input, "Qualifier"), context_.registry.account(), action));
    MAYFLY_CO_TRY(allow(visit, action, target.arn(context_.registry.account())));
    lambda::InvokeCall call{.context = context_,
                            .exchange = exchange,
                            .target = std::move(target),
                            .input = std::move(input),
                            .payload = std::move(body),
                            .request_id = visit.request_id,
                            .throttle_reason = visit.throttle_reason};
    visit.status = 200;
    if (visit.operation == "Invoke") co_return co_await lambda::invoke_buffered(std::move(call));
    co_return co_await lambda::invoke_streaming(std::move(call));
  }

  const lambda::ControlOperation operation = lambda::find_control_operation(visit.operation);
  if (operation == nullptr) co_return unsupported("mayfly does not support " + visit.operation + " yet");
  // Parsing 70 MB of JSON blocks as well: on the pool with the rest.
  const std::string host(head.headers.get("Host"));
  std::function<Result<net::Response>()> work = [this, &match, &head, &visit, &body, &action, &host, operation]() -> Result<net::Response> {
    MAYFLY_ASSIGN(const auto input, lambda::read_input(*match, head, body));
    body = std::string();  // 70 MB that nobody needs any more
    MAYFLY_ASSIGN(const std::string resource, lambda::resource_of(input, context_.registry.account(), action));
    MAYFLY_TRY(allow(visit, action, resource));
    return operation({.context = context_, .input = input, .action = action, .host = host, .access_key = visit.caller->claim.access_key});
  };
  co_return co_await answer_from_pool(exchange, visit, std::move(work));
}

Awaitable<Result<void>> Door::serve_logs(net::Exchange& exchange, Visit& visit) {
  visit.operation = visit.service.operation;
  MAYFLY_CO_ASSIGN(const std::string body, co_await read_body(exchange, visit, kSmallBodyMax, visit.operation));
  const logs::Operation operation = logs::find_operation(visit.operation);
  if (operation.run == nullptr)
    co_return unsupported("mayfly does not support the CloudWatch Logs operation \"" + visit.operation + "\" yet");
  if (kind_ == DoorKind::kData && !operation.reads_only)
    co_return access_denied("Functions may not perform logs:" + visit.operation + " through their own endpoint.");
  std::function<Result<net::Response>()> work = [this, &visit, &body, &operation]() -> Result<net::Response> {
    MAYFLY_ASSIGN(const auto input, logs::read_input(body));
    MAYFLY_TRY(allow(visit, "logs:" + visit.operation, logs::resource_of(input, context_.registry.account())));
    return operation.run({.store = context_.logs.segments(), .account = context_.registry.account(), .input = input});
  };
  co_return co_await answer_from_pool(exchange, visit, std::move(work));
}

Awaitable<Result<void>> Door::serve_sts(net::Exchange& exchange, Visit& visit) {
  MAYFLY_CO_ASSIGN(const std::string body, co_await read_body(exchange, visit, kSmallBodyMax, "STS"));
  visit.operation = visit.service.operation.empty() ? sts::action_of(exchange.head(), body) : visit.service.operation;
  MAYFLY_CO_TRY(sts::check_action(visit.operation));
  if (visit.operation == "GetCallerIdentity") {
    MAYFLY_CO_TRY(allow(visit, "sts:" + visit.operation, "*"));
    const net::Response identity = sts::get_caller_identity(visit.caller->principal(), visit.service.protocol, visit.request_id);
    co_return co_await send(exchange, visit, identity);
  }
  MAYFLY_CO_ASSIGN(const Form form, Form::parse(exchange.head(), body));
  const std::string* role = form.find("RoleArn");
  MAYFLY_CO_TRY(allow(visit, "sts:" + visit.operation, role == nullptr ? "*" : *role));
  const sts::SessionCall call{.form = form,
                              .roles = context_.roles,
                              .credentials = context_.credentials,
                              .caller = visit.caller->principal(),
                              .now = context_.clock.wall_now()};
  MAYFLY_CO_ASSIGN(net::Response made, visit.operation == "AssumeRole" ? sts::assume_role(call, visit.request_id)
                                                                       : sts::get_session_token(call, visit.request_id));
  co_return co_await send(exchange, visit, std::move(made));
}

Awaitable<Result<void>> Door::serve_iam(net::Exchange& exchange, Visit& visit) {
  MAYFLY_CO_ASSIGN(const std::string body, co_await read_body(exchange, visit, kSmallBodyMax, "IAM"));
  if (kind_ == DoorKind::kData) co_return access_denied("Functions may not call IAM through their own endpoint.");
  std::function<Result<net::Response>()> work = [this, &exchange, &visit, &body]() -> Result<net::Response> {
    MAYFLY_ASSIGN(const Form form, Form::parse(exchange.head(), body));
    const std::string* action = form.find("Action");
    MAYFLY_ASSIGN(const iam::Operation operation, iam::find_operation(action == nullptr ? "" : *action));
    visit.operation = *action;
    const std::string& account = context_.registry.account().id;
    MAYFLY_TRY(allow(visit, "iam:" + visit.operation, iam::resource_of(form, account)));
    MAYFLY_ASSIGN(auto result, operation({.roles = context_.roles,
                                          .credentials = context_.credentials,
                                          .caller = visit.caller->principal(),
                                          .account = account,
                                          .form = form}));
    return iam::answer_of(visit.operation, std::move(result), visit.request_id);
  };
  co_return co_await answer_from_pool(exchange, visit, std::move(work));
}

Awaitable<Result<void>> Door::serve_s3(net::Exchange& exchange, Visit& visit) {
  visit.operation = "Unknown";
  if (context_.buckets == nullptr || context_.object_pool == nullptr) co_return unsupported("this endpoint does not provide S3");
  MAYFLY_CO_ASSIGN(const s3::Request request, s3::read_request(exchange.head()));
  visit.operation = request.operation->name;
  // Signatures of S3 state what stands for the body, so everything below is proven.
  if (!visit.caller->proven) co_return s3::invalid_request("Missing required header for this request: x-amz-content-sha256");
  const std::string action(request.operation->action);
  if (kind_ == DoorKind::kData && !request.operation->data)
    co_return access_denied("Functions may not perform " + action +
                            " through their own endpoint; call the management endpoint with the account's key.");
  MAYFLY_CO_TRY(allow(visit, action, s3::resource_of(request)));
  if (request.operation->copies) {
    MAYFLY_CO_ASSIGN(const s3::CopySource source, s3::read_copy_source(request.header("x-amz-copy-source")));
    MAYFLY_CO_TRY(allow(visit, "s3:GetObject", "arn:aws:s3:::" + source.bucket + "/" + source.key));
  }
  if (request.operation->way == s3::Way::kRefused) co_return s3::not_implemented("the S3 operation " + visit.operation);

  if (request.operation->way == s3::Way::kSimple || request.operation->way == s3::Way::kCopy) {
    const bool simple = request.operation->way == s3::Way::kSimple;
    const bool has_document = simple && (exchange.head().method == "PUT" || exchange.head().method == "POST");
    const std::uint64_t limit = has_document ? kS3DocumentMax : kS3NoDocumentMax;
    MAYFLY_CO_ASSIGN(const std::string body, co_await read_body(exchange, visit, limit, visit.operation));
    net::Response response;
    std::function<Result<void>()> work = [this, &request, &body, &response, simple]() -> Result<void> {
      MAYFLY_TRY(s3::check_body(*request.operation, request.head->headers, body));
      if (!simple) return {};
      MAYFLY_ASSIGN(response, request.operation->run({.buckets = *context_.buckets, .request = request, .body = body}));
      return {};
    };
    MAYFLY_CO_TRY(co_await s3::on_pool(*context_.object_pool, std::move(work)));
    if (simple) co_return co_await send(exchange, visit, std::move(response));
  }

  MAYFLY_CO_TRY(hold(visit, s3::kTransferHeldBytes));
  s3::Transfer transfer{.buckets = *context_.buckets,
                        .pool = *context_.object_pool,
                        .exchange = exchange,
                        .request = request,
                        .claim = visit.caller->claim,
                        .secret_key = visit.caller->credential->secret_key};
  if (request.operation->way == s3::Way::kReceive) {
    MAYFLY_CO_ASSIGN(net::Response response, co_await s3::receive(transfer));
    co_return co_await send(exchange, visit, std::move(response));
  }
  if (request.operation->way == s3::Way::kCopy) {
    MAYFLY_CO_ASSIGN(net::Response response, co_await s3::copy(transfer));
    co_return co_await send(exchange, visit, std::move(response));
  }
  net::Headers headers;
  headers.add("x-amz-request-id", visit.request_id);
  MAYFLY_CO_ASSIGN(const s3::Sent sent, co_await s3::send(transfer, std::move(headers)));
  visit.status = sent.status;
  co_return Result<void>();
}

Awaitable<Result<void>> Door::serve_code(net::Exchange& exchange, Visit& visit) {
  visit.operation = "DownloadCode";
  if (kind_ == DoorKind::kData) co_return access_denied("Functions may not download code through their own endpoint.");
  MAYFLY_CO_TRY(co_await read_body(exchange, visit, 0, visit.operation));
  const auto link = lambda::parse_code_path(exchange.head().path());
  if (!link || exchange.head().method != "GET")
    co_return not_found("There is nothing at " + std::string(exchange.head().path().substr(0, 256)));
  MAYFLY_CO_TRY(allow(visit, "lambda:GetFunction", context_.registry.account().function_arn(link->owner)));
  if (!lambda::names_code(context_, *link)) co_return not_found("What that code belonged to is gone; so is the code.");

  base::UniqueFd file;
  std::optional<Error> failure;
  std::string piece;
  std::function<void()> open = [&] {
    auto opened = context_.code.open(link->code_id);
    if (opened.ok()) file = *std::move(opened);
    if (!opened.ok()) failure = opened.error();
  };
  if (!co_await net::run_on(context_.pool, std::move(open)) || failure) co_return not_found("The code is not here any more.");
  net::Headers headers;
  headers.add("Content-Type", "application/zip");
  headers.add("Content-Disposition", "attachment; filename=\"" + link->owner + ".zip\"");
  headers.add("x-amzn-RequestId", visit.request_id);
  visit.status = 200;
  MAYFLY_CO_TRY(co_await exchange.begin(200, std::move(headers)));
  while (true) {
    ssize_t got = 0;
    std::function<void()> read_on = [&] {
      piece.resize(kCodePieceBytes);
      do got = ::read(file.get(), piece.data(), piece.size());
      while (got < 0 && errno == EINTR);
    };
    if (!co_await net::run_on(context_.pool, std::move(read_on)) || got < 0) {
      exchange.abort();
      co_return Result<void>();
    }
    if (got == 0) break;
    MAYFLY_CO_TRY(co_await exchange.write(std::string_view(piece).substr(0, static_cast<std::size_t>(got))));
  }
  net::Headers no_trailers;
  co_return co_await exchange.finish(std::move(no_trailers));
}

Awaitable<Result<void>> Door::serve_mayfly(net::Exchange& exchange, Visit& visit) {
  visit.operation = "Page";
  if (kind_ == DoorKind::kData) co_return access_denied("Functions may not read Mayfly's own pages.");
  MAYFLY_CO_TRY(co_await read_body(exchange, visit, 0, visit.operation));
  MAYFLY_CO_TRY(allow(visit, "mayfly:ReadPage", "*"));
  std::function<Result<net::Response>()> work = [this, &exchange]() -> Result<net::Response> {
    const std::optional<std::string> text = context_.page ? context_.page(exchange.head().path()) : std::nullopt;
    if (!text) return not_found("There is nothing at " + std::string(exchange.head().path().substr(0, 256)));
    net::Response response;
    response.headers.add("Content-Type", "application/json");
    response.body = *text;
    return response;
  };
  co_return co_await answer_from_pool(exchange, visit, std::move(work));
}

Awaitable<Result<void>> Door::serve_operator(net::Exchange& exchange, Visit& visit) {
  visit.operation = exchange.head().path().substr(1);
  net::Response response;
  response.headers.add("Content-Type", "text/plain; charset=utf-8");
  response.headers.add("Cache-Control", "no-store");
  if (visit.operation == "healthz") {
    response.body = "ok\n";
    co_return co_await send(exchange, visit, std::move(response));
  }
  if (visit.operation == "metrics") {
    response.headers.set("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.body = context_.metrics.open_metrics();
    co_return co_await send(exchange, visit, std::move(response));
  }
  Result<void> ready;
  std::function<void()> ask = [this, &ready] {
    if (context_.ready) ready = context_.ready();
  };
  if (!co_await net::run_on(context_.pool, std::move(ask))) ready = Error(ErrorCode::kUnavailable, "too much to do at once");
  response.status = ready.ok() ? 200 : 503;
  response.body = ready.ok() ? "ready\n" : "not ready: " + ready.error().message() + "\n";
  co_return co_await send(exchange, visit, std::move(response));
}

}  // namespace mayfly::api
