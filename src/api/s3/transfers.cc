#include "api/s3/transfers.h"

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <charconv>
#include <memory>
#include <utility>

#include "api/s3/documents.h"
#include "api/s3/errors.h"
#include "api/s3/headers.h"
#include "api/s3/operations.h"
#include "base/log.h"

namespace mayfly::api::s3 {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
using net::Awaitable;

constexpr std::size_t kPieceBytes = 1U << 20U;    // given to the pool at once
constexpr std::size_t kSmallBytes = 256U << 10U;  // read together with the head and sent in one

// What is to be known before the first byte of a body comes.
struct Plan {
  services::BodyPromise promise;
  services::ObjectAttributes attributes = {};
  services::WriteCondition condition = {};
  services::PartName part = {};
  bool is_part = false;
};

Result<std::uint64_t> body_size(const Transfer& transfer) {
  const Error missing = s3_error(ErrorCode::kInvalidArgument, "MissingContentLength", "You must provide the Content-Length HTTP header.");
  if (!net::is_streaming(transfer.claim)) {
    const auto length = transfer.exchange.content_length();
    return length ? Result<std::uint64_t>(*length) : missing;
  }
  const std::string_view text = transfer.request.head->headers.get("x-amz-decoded-content-length");
  std::uint64_t length = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), length);
  if (text.empty() || ec != std::errc() || end != text.data() + text.size()) return missing;
  return length;
}

Result<Plan> read_plan(const Transfer& transfer) {
  const Request& request = transfer.request;
  MAYFLY_TRY(check_wishes(request, transfer.buckets.account().id));
  Plan plan;
  MAYFLY_ASSIGN(plan.promise.size, body_size(transfer));
  MAYFLY_ASSIGN(plan.promise.md5, read_md5(request.head->headers));
  MAYFLY_ASSIGN(StatedChecksum stated, read_checksum(request.head->headers));
  plan.promise.checksum = stated.kind;
  plan.promise.checksum_value = std::move(stated.value);
  if (transfer.claim.payload_hash.size() == 64) plan.promise.signed_sha256 = transfer.claim.payload_hash;
  plan.is_part = request.operation->name == "UploadPart";
  if (plan.is_part) {
    MAYFLY_ASSIGN(plan.part, read_part_name(request));
    return plan;
  }
  MAYFLY_ASSIGN(plan.attributes, read_attributes(request));
  MAYFLY_ASSIGN(plan.condition, read_write_condition(request));
  return plan;
}

// The answer to a body that is stored.
Result<net::Response> keep(const Transfer& transfer, Plan& plan, services::IncomingBody& body) {
  MAYFLY_TRY(body.finish());
  net::Response response = empty_answer(200);
  if (plan.is_part) {
    MAYFLY_ASSIGN(const services::PartInfo part, transfer.buckets.put_part(plan.part, body));
    response.headers.add("ETag", quoted(part.etag));
    add_checksum(response.headers, part.checksum, 0);
    response.headers.remove("x-amz-checksum-type");
    return response;
  }
  MAYFLY_ASSIGN(const services::ObjectInfo made,
                transfer.buckets.put_object(object_name(transfer.request), std::move(plan.attributes), body, plan.condition));
  response.headers.add("ETag", quoted(made.etag));
  add_checksum(response.headers, made.checksum, 0);
  for (const auto& [name, value] : made.attributes.headers) {
    if (name.starts_with("x-amz-")) response.headers.add(name, value);
  }
  return response;
}

// The body's bytes, piece by piece, to `body`.
Awaitable<Result<void>> take_body(Transfer& transfer, services::IncomingBody& body, const Plan& plan) {
  std::unique_ptr<net::AwsChunkedDecoder> decoder;
  if (net::is_streaming(transfer.claim)) decoder = std::make_unique<net::AwsChunkedDecoder>(transfer.claim, transfer.secret_key);
  std::string gathered;
  while (true) {
    MAYFLY_CO_ASSIGN(const std::string piece, co_await transfer.exchange.read_some());
    if (decoder != nullptr && !piece.empty()) {
      MAYFLY_CO_TRY(decoder->feed(piece, gathered));
    } else {
      gathered += piece;
    }
    if (gathered.size() < kPieceBytes && !piece.empty()) continue;
    if (!gathered.empty()) {
      std::function<Result<void>()> append = [&] { return body.append(gathered); };
      MAYFLY_CO_TRY(co_await on_pool(transfer.pool, std::move(append)));
      gathered.clear();
    }
    if (piece.empty()) break;
  }
  if (decoder == nullptr) co_return Result<void>();
  MAYFLY_CO_TRY(decoder->finish());
  if (plan.promise.checksum == services::ChecksumKind::kNone || !plan.promise.checksum_value.empty()) co_return Result<void>();
  MAYFLY_CO_ASSIGN(std::string value, read_checksum_value(decoder->trailers(), plan.promise.checksum));
  if (value.empty()) co_return invalid_request("The trailer that x-amz-trailer announces did not come.");
  body.state_checksum(std::move(value));
  co_return Result<void>();
}

Awaitable<void> watch_peer(net::Exchange& exchange, std::shared_ptr<bool> gone) {
  if (co_await exchange.peer_gone()) *gone = true;
}

}  // namespace

Awaitable<Result<void>> on_pool(base::WorkerPool& pool, std::function<Result<void>()> work) {
  Result<void> done;
  std::function<void()> job = [&done, &work] { done = work(); };
  if (!co_await net::run_on(pool, std::move(job)))
    co_return s3_error(ErrorCode::kUnavailable, "SlowDown", "Please reduce your request rate.");
  co_return done;
}

Awaitable<Result<net::Response>> receive(Transfer transfer) {
  MAYFLY_CO_ASSIGN(Plan plan, read_plan(transfer));
  std::unique_ptr<services::IncomingBody> body;
  std::function<Result<void>()> begin = [&]() -> Result<void> {
    const Request& request = transfer.request;
    auto begun = plan.is_part ? transfer.buckets.receive_part(plan.part, plan.promise)
                              : transfer.buckets.receive(request.bucket, request.key, plan.promise);
    if (!begun.ok()) return std::move(begun).error();
    body = *std::move(begun);
    return {};
  };
  MAYFLY_CO_TRY(co_await on_pool(transfer.pool, std::move(begin)));
  Result<void> taken = co_await take_body(transfer, *body, plan);
  std::optional<Result<net::Response>> answer;
  std::function<Result<void>()> end = [&]() -> Result<void> {
    if (taken.ok()) answer.emplace(keep(transfer, plan, *body));
    body.reset();  // unlinks what was not stored
    return {};
  };
  const Result<void> ended = co_await on_pool(transfer.pool, std::move(end));
  if (!taken.ok()) co_return std::move(taken).error();
  if (!ended.ok()) co_return ended.error();
  co_return *std::move(answer);
}

Awaitable<Result<net::Response>> copy(Transfer transfer) {
  const bool is_part = transfer.request.operation->name == "UploadPartCopy";
  std::optional<services::Copying> copying;
  std::function<Result<void>()> begin = [&]() -> Result<void> {
    auto begun = is_part ? begin_part_copy(transfer.buckets, transfer.request) : begin_object_copy(transfer.buckets, transfer.request);
    if (!begun.ok()) return std::move(begun).error();
    copying.emplace(*std::move(begun));
    return {};
  };
  MAYFLY_CO_TRY(co_await on_pool(transfer.pool, std::move(begin)));
  Result<void> copied;
  {
    const auto gone = std::make_shared<bool>(false);
    const net::Executor executor = co_await boost::asio::this_coro::executor;
    net::TaskScope watching(executor);
    if (!copying->done()) watching.spawn(watch_peer(transfer.exchange, gone));
    while (copied.ok() && !copying->done()) {
      std::function<Result<void>()> step = [&] { return copying->step(); };
      copied = co_await on_pool(transfer.pool, std::move(step));
      if (*gone) copied = Error(ErrorCode::kCancelled, "the peer went away while its copy was made");
    }
  }
  std::optional<Result<net::Response>> answer;
  std::function<Result<void>()> end = [&]() -> Result<void> {
    if (copied.ok())
      answer.emplace(is_part ? finish_part_copy(transfer.buckets, transfer.request, *copying)
                             : finish_object_copy(transfer.buckets, *copying));
    copying.reset();  // unlinks what was not stored
    return {};
  };
  const Result<void> ended = co_await on_pool(transfer.pool, std::move(end));
  if (!copied.ok()) co_return std::move(copied).error();
  if (!ended.ok()) co_return ended.error();
  co_return *std::move(answer);
}

Awaitable<Result<Sent>> send(Transfer transfer, net::Headers headers) {
  Sending sending;
  std::string piece;
  std::uint64_t at = 0;
  std::uint64_t end = 0;
  std::function<Result<void>()> open = [&]() -> Result<void> {
    MAYFLY_ASSIGN(sending, prepare_sending(transfer.buckets, transfer.request));
    if (sending.reader == nullptr) return {};
    at = sending.extent.first;
    end = at + sending.extent.length;
    if (sending.extent.length > kSmallBytes) return {};
    while (at < end) {
      MAYFLY_ASSIGN(const std::string more, sending.reader->read(at, static_cast<std::size_t>(end - at)));
      if (more.empty()) return Error(ErrorCode::kDataLoss, "the bytes of an object end too early");
      piece += more;
      at += more.size();
    }
    return {};
  };
  MAYFLY_CO_TRY(co_await on_pool(transfer.pool, std::move(open)));
  for (const net::Headers::Field& field : headers.fields()) sending.head.headers.add(field.name, field.value);
  const Sent sent{.status = sending.head.status};
  if (at == end) {
    sending.head.body = std::move(piece);
    MAYFLY_CO_TRY(co_await transfer.exchange.respond(std::move(sending.head)));
    co_return sent;
  }
  MAYFLY_CO_TRY(co_await transfer.exchange.begin_sized(sending.head.status, std::move(sending.head.headers), end - at));
  while (at < end) {
    std::function<Result<void>()> read = [&]() -> Result<void> {
      MAYFLY_ASSIGN(piece, sending.reader->read(at, static_cast<std::size_t>(std::min<std::uint64_t>(end - at, kPieceBytes))));
      return {};
    };
    const Result<void> got = co_await on_pool(transfer.pool, std::move(read));
    if (!got.ok() || piece.empty()) {
      // The length was stated: only breaking the connection off tells the peer.
      base::log_error("an object cannot be read to its end",
                      {{"bucket", transfer.request.bucket}, {"cause", got.ok() ? "too few bytes" : got.error().to_string()}});
      transfer.exchange.abort();
      co_return sent;
    }
    at += piece.size();
    MAYFLY_CO_TRY(co_await transfer.exchange.write(piece));
  }
  net::Headers no_trailers;
  MAYFLY_CO_TRY(co_await transfer.exchange.finish(std::move(no_trailers)));
  co_return sent;
}

}  // namespace mayfly::api::s3
