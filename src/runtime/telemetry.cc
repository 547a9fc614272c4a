#include "runtime/telemetry.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/json.hpp>
#include <deque>
#include <optional>

#include "base/json.h"
#include "base/log.h"
#include "net/http_client.h"

namespace mayfly::runtime {

namespace asio = boost::asio;
namespace json = boost::json;
using asio::ip::tcp;
using base::Duration;
using base::Error;
using base::ErrorCode;
using base::Result;
using boost::system::error_code;
using net::Awaitable;

namespace {

constexpr std::size_t kBodyBytesMax = 64U << 10U;
constexpr std::size_t kBacklogItems = 1000;
constexpr std::size_t kEventBytes = 64;  // around a record: time and type
constexpr std::size_t kTries = 5;        // a listener may come up only after its subscription was accepted
constexpr Duration kAnswerTime = std::chrono::seconds(5);
constexpr std::array<Duration, kTries - 1> kPauses = {std::chrono::milliseconds(50), std::chrono::milliseconds(250),
                                                      std::chrono::seconds(1), std::chrono::seconds(2)};
constexpr std::array<std::uint16_t, 3> kReservedPorts = {53, 9001, 9002};

Error invalid(const std::string& what) { return {ErrorCode::kInvalidArgument, what, "ValidationError"}; }

std::string_view kind_name(TelemetryKind kind) {
  switch (kind) {
    case TelemetryKind::kPlatform:
      return "platform";
    case TelemetryKind::kFunction:
      return "function";
    case TelemetryKind::kExtension:
      return "extension";
  }
  return "platform";
}

// ---- reading a subscription

Result<std::string> text_member(const json::object& object, const char* name, const std::string& otherwise = {}) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr && !otherwise.empty()) return otherwise;
  if (value == nullptr) return invalid(std::string(name) + " is required");
  if (!value->is_string()) return invalid(std::string(name) + " must be a string");
  return std::string(value->as_string());
}

Result<std::int64_t> number_member(const json::object& object, const char* name, std::int64_t least, std::int64_t most,
                                   std::optional<std::int64_t> otherwise = std::nullopt) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr && otherwise) return *otherwise;
  if (value == nullptr) return invalid(std::string(name) + " is required");
  const auto range = " must be an integer between " + std::to_string(least) + " and " + std::to_string(most);
  if (!value->is_int64() || value->as_int64() < least || value->as_int64() > most) return invalid(name + range);
  return value->as_int64();
}

Result<void> read_kinds(const json::object& object, Subscription& subscription) {
  const json::value* types = object.if_contains("types");
  if (types == nullptr || !types->is_array() || types->as_array().empty())
    return invalid("types must be a list of at least one of \"platform\", \"function\" and \"extension\"");
  for (const json::value& each : types->as_array()) {
    std::optional<TelemetryKind> kind;
    for (const auto known : {TelemetryKind::kPlatform, TelemetryKind::kFunction, TelemetryKind::kExtension}) {
      if (each.is_string() && each.as_string() == kind_name(known)) kind = known;
    }
    if (!kind) return invalid("types holds something other than \"platform\", \"function\" and \"extension\"");
    if (std::ranges::find(subscription.kinds, *kind) != subscription.kinds.end()) continue;
    subscription.kinds.push_back(*kind);
    subscription.types.emplace_back(kind_name(*kind));
  }
  return {};
}

Result<void> read_uri(std::string uri, Subscription& subscription) {
  constexpr std::string_view kScheme = "http://";
  if (!uri.starts_with(kScheme)) return invalid("destination.URI must begin with http://");
  const std::string rest = uri.substr(kScheme.size());
  const std::size_t slash = rest.find_first_of("/?");
  const std::string authority = rest.substr(0, slash);
  if (slash != std::string::npos) subscription.path = (rest[slash] == '?' ? "/" : "") + rest.substr(slash);
  if (!std::ranges::all_of(subscription.path, [](char c) { return c > 0x20 && c < 0x7f && c != '#'; }))
    return invalid("destination.URI holds characters that must be percent-encoded");
  const std::size_t colon = authority.find(':');
  const std::string host = authority.substr(0, colon);
  if (host != "sandbox.localdomain" && host != "sandbox" && host != "localhost" && host != "127.0.0.1")
    return invalid("destination.URI host must be sandbox.localdomain");
  const std::string port = colon == std::string::npos ? "80" : authority.substr(colon + 1);
  const bool digits = !port.empty() && port.size() <= 5 && std::ranges::all_of(port, [](char c) { return c >= '0' && c <= '9'; });
  const unsigned long number = digits ? std::stoul(port) : 0;
  if (number == 0 || number > 65535) return invalid("destination.URI has a bad port");
  subscription.port = static_cast<std::uint16_t>(number);
  return {};
}

Result<void> read_destination(const json::object& object, Subscription& subscription) {
  const json::value* member = object.if_contains("destination");
  if (member == nullptr || !member->is_object()) return invalid("destination is required and must be an object");
  const json::object& destination = member->as_object();
  MAYFLY_ASSIGN(const std::string protocol, text_member(destination, "protocol"));
  if (protocol != "HTTP" && protocol != "TCP") return invalid("destination.protocol must be \"HTTP\" or \"TCP\"");
  subscription.http = protocol == "HTTP";
  if (subscription.http) {
    MAYFLY_ASSIGN(std::string uri, text_member(destination, "URI"));
    MAYFLY_TRY(read_uri(std::move(uri), subscription));
    MAYFLY_ASSIGN(subscription.method, text_member(destination, "method", "POST"));
    if (subscription.method != "POST" && subscription.method != "PUT") return invalid("destination.method must be \"POST\" or \"PUT\"");
  } else {
    MAYFLY_ASSIGN(const std::int64_t port, number_member(destination, "port", 1, 65535));
    subscription.port = static_cast<std::uint16_t>(port);
  }
  MAYFLY_ASSIGN(const std::string encoding, text_member(destination, "encoding", "JSON"));
  if (encoding != "JSON") return invalid("destination.encoding must be \"JSON\"");
  if (std::ranges::find(kReservedPorts, subscription.port) != kReservedPorts.end())
    return invalid("port " + std::to_string(subscription.port) + " is reserved");
  return {};
}

Result<void> read_buffering(const json::object& object, Subscription& subscription) {
  const json::value* member = object.if_contains("buffering");
  if (member == nullptr || member->is_null()) return {};
  if (!member->is_object()) return invalid("buffering must be an object");
  const json::object& buffering = member->as_object();
  MAYFLY_ASSIGN(const std::int64_t items, number_member(buffering, "maxItems", 1000, 10'000, 10'000));
  MAYFLY_ASSIGN(const std::int64_t bytes, number_member(buffering, "maxBytes", 262'144, 1'048'576, 262'144));
  MAYFLY_ASSIGN(const std::int64_t timeout, number_member(buffering, "timeoutMs", 25, 30'000, 1000));
  subscription.items_max = static_cast<std::size_t>(items);
  subscription.bytes_max = static_cast<std::size_t>(bytes);
  subscription.timeout = std::chrono::milliseconds(timeout);
  return {};
}

bool known_schema(TelemetryApi api, std::string_view schema) {
  if (api == TelemetryApi::kLogs) return schema == "2020-08-15" || schema == "2021-03-18";
  return schema == "2022-07-01" || schema == "2022-12-13" || schema == "2025-01-29";
}

// ---- records

struct Record {
  std::string type;
  std::string time;
  std::string record;  // JSON
  std::string plain;   // for schemas that know strings only, where it differs
  TelemetryKind kind = TelemetryKind::kPlatform;
  Telemetry::Audience audience = Telemetry::Audience::kAll;
  [[nodiscard]] std::size_t size() const { return record.size() + type.size() + kEventBytes; }
};
using RecordPtr = std::shared_ptr<const Record>;

std::string event_of(const Record& record, const Subscription& for_whom) {
  const bool strings_only = for_whom.api == TelemetryApi::kLogs || for_whom.schema == "2022-07-01";
  const std::string& body = strings_only && !record.plain.empty() ? record.plain : record.record;
  return R"({"time":")" + record.time + R"(","type":")" + record.type + R"(","record":)" + body + "}";
}

bool wants(const Subscription& subscription, const Record& record) {
  if (std::ranges::find(subscription.kinds, record.kind) == subscription.kinds.end()) return false;
  const bool logs = subscription.api == TelemetryApi::kLogs;
  if (record.audience == Telemetry::Audience::kLogsOnly && !logs) return false;
  if (record.audience == Telemetry::Audience::kTelemetryOnly && logs) return false;
  return !(record.type == "platform.runtimeDone" && subscription.schema == "2020-08-15");
}

std::string subscription_record(const Subscription& subscription) {
  std::string types;
  for (const std::string& type : subscription.types) types += (types.empty() ? "" : ",") + base::json_quote(type);
  return "{\"name\":" + base::json_quote(base::valid_utf8(subscription.extension)) + R"(,"state":"Subscribed","types":[)" + types + "]}";
}

bool same(const Subscription& a, const Subscription& b) {
  return a.extension == b.extension && a.http == b.http && a.port == b.port && a.path == b.path;
}

// A listener that takes lines over TCP: one connection, made anew when it breaks.
class LineConnection {
 public:
  // With a descriptor of its own: a cancelled task may end after the lender.
  explicit LineConnection(int lent) : lent_(::fcntl(lent, F_DUPFD_CLOEXEC, 0)) {}
  ~LineConnection() { disconnect(); }
  LineConnection(const LineConnection&) = delete;
  LineConnection& operator=(const LineConnection&) = delete;

  static Awaitable<Result<void>> send(std::shared_ptr<LineConnection> self, std::vector<std::string> addresses, std::uint16_t port,
                                      std::string lines) {
    error_code error;
    if (!self->socket_) MAYFLY_CO_TRY(co_await connect(self, std::move(addresses), port));
    co_await asio::async_write(*self->socket_, asio::buffer(lines), asio::redirect_error(asio::use_awaitable, error));
    if (!error) co_return Result<void>{};
    self->disconnect();
    co_return Error(ErrorCode::kUnavailable, "the listener closed the connection: " + error.message());
  }

 private:
  static Awaitable<Result<void>> connect(std::shared_ptr<LineConnection> self, std::vector<std::string> addresses, std::uint16_t port) {
    const auto executor = co_await asio::this_coro::executor;
    error_code error;
    for (const std::string& address : addresses) {
      self->disconnect();
      const int copy = ::fcntl(self->lent_.get(), F_DUPFD_CLOEXEC, 0);
      if (copy < 0) co_return base::errno_error("duplicate a socket", errno);
      self->socket_.emplace(executor);
      self->socket_->assign(tcp::v4(), copy, error);
      if (error) ::close(copy);
      if (!error) {
        const tcp::endpoint endpoint(asio::ip::make_address_v4(address), port);
        co_await self->socket_->async_connect(endpoint, asio::redirect_error(asio::use_awaitable, error));
      }
      if (!error) co_return Result<void>{};
    }
    self->disconnect();
    co_return Error(ErrorCode::kUnavailable, "cannot connect to port " + std::to_string(port) + ": " + error.message());
  }
  void disconnect() {
    socket_.reset();
    const sockaddr nowhere{.sa_family = AF_UNSPEC, .sa_data = {}};
    if (lent_) (void)::connect(lent_.get(), &nowhere, sizeof nowhere);
  }

  base::UniqueFd lent_;
  std::optional<tcp::socket> socket_;
};

}  // namespace

Result<Subscription> parse_subscription(TelemetryApi api, std::string_view body) {
  if (body.size() > kBodyBytesMax) return invalid("the request is larger than 64 KiB");
  auto parsed = base::parse_json(body, {.depth_max = 8, .bytes_max = kBodyBytesMax});
  if (!parsed.ok()) return invalid("failed to parse JSON: " + parsed.error().message());
  if (!parsed->is_object()) return invalid("the request must be a JSON object");
  const json::object& object = parsed->as_object();
  Subscription subscription;
  subscription.api = api;
  MAYFLY_ASSIGN(subscription.schema, text_member(object, "schemaVersion", api == TelemetryApi::kLogs ? "2020-08-15" : ""));
  if (!known_schema(api, subscription.schema)) {
    return invalid(api == TelemetryApi::kLogs ? "schemaVersion must be \"2020-08-15\" or \"2021-03-18\""
                                              : "schemaVersion must be \"2022-07-01\", \"2022-12-13\" or \"2025-01-29\"");
  }
  MAYFLY_TRY(read_kinds(object, subscription));
  MAYFLY_TRY(read_destination(object, subscription));
  MAYFLY_TRY(read_buffering(object, subscription));
  return subscription;
}

struct Telemetry::Impl {
  struct Subscriber {
    Subscriber(const net::Executor& executor, Subscription subscription_in, base::UniqueFd connector_in)
        : subscription(std::move(subscription_in)), connector(std::move(connector_in)), changed(executor) {}
    Subscription subscription;
    base::UniqueFd connector;
    std::shared_ptr<LineConnection> lines;
    std::deque<RecordPtr> queue;
    std::size_t bytes = 0;
    base::TimePoint oldest{};
    std::size_t dropped_records = 0, dropped_bytes = 0;
    bool at_once = false;
    bool sending = false;
    net::Event changed;
  };

  Impl(net::Executor executor_in, const base::Clock& clock_in, std::vector<base::UniqueFd> connectors_in,
       std::vector<std::string> inside_in)
      : executor(std::move(executor_in)),
        clock(clock_in),
        connectors(std::move(connectors_in)),
        inside(std::move(inside_in)),
        settled(executor),
        tasks(executor) {}

  void publish(Record record);
  void offer(Subscriber& subscriber, const RecordPtr& record);
  [[nodiscard]] bool pending() const {
    return std::ranges::any_of(subscribers, [](const auto& s) { return s->sending || !s->queue.empty(); });
  }
  [[nodiscard]] bool due(const Subscriber& subscriber) const;
  [[nodiscard]] std::deque<RecordPtr> take_batch(Subscriber& subscriber) const;
  static Awaitable<void> serve(Impl& impl, Subscriber& subscriber);
  static Awaitable<bool> deliver(Impl& impl, Subscriber& subscriber, const std::deque<RecordPtr>& batch);
  static Awaitable<Result<void>> send(Impl& impl, Subscriber& subscriber, const std::deque<RecordPtr>& batch);
  static Awaitable<void> finish_flush(Impl& impl, base::Deadline deadline, std::function<void()> then);

  net::Executor executor;
  const base::Clock& clock;
  std::vector<base::UniqueFd> connectors;
  const std::vector<std::string> inside;
  std::deque<RecordPtr> backlog;  // until close()
  std::size_t backlog_bytes = 0;
  bool closed = false;
  bool frozen = false;
  std::uint64_t freezes = 0;
  std::vector<std::unique_ptr<Subscriber>> subscribers;
  net::Event settled;
  net::TaskScope tasks;
};

void Telemetry::Impl::publish(Record record) {
  if (closed && subscribers.empty()) return;
  record.time = record.time.empty() ? base::format_iso_ms(clock.wall_now()) : std::move(record.time);
  const RecordPtr shared = std::make_shared<const Record>(std::move(record));
  if (!closed && backlog.size() < kBacklogItems && backlog_bytes + shared->size() <= kBacklogBytes) {
    backlog.push_back(shared);
    backlog_bytes += shared->size();
  }
  for (const auto& subscriber : subscribers) offer(*subscriber, shared);
}

void Telemetry::Impl::offer(Subscriber& subscriber, const RecordPtr& record) {
  const Subscription& asked = subscriber.subscription;
  if (!wants(asked, *record)) return;
  if (subscriber.queue.size() >= asked.items_max || (!subscriber.queue.empty() && subscriber.bytes + record->size() > asked.bytes_max)) {
    if (subscriber.dropped_records++ == 0) subscriber.changed.set();
    subscriber.dropped_bytes += record->size();
    return;
  }
  if (subscriber.queue.empty()) subscriber.oldest = clock.now();
  subscriber.queue.push_back(record);
  subscriber.bytes += record->size();
  if (subscriber.queue.size() == 1 || due(subscriber)) subscriber.changed.set();
}

// Three quarters full counts as full: what is printed while a batch is on its way must fit too.
bool Telemetry::Impl::due(const Subscriber& subscriber) const {
  if (frozen || subscriber.queue.empty()) return false;
  const Subscription& asked = subscriber.subscription;
  return subscriber.at_once || subscriber.queue.size() * 4 >= asked.items_max * 3 || subscriber.bytes * 4 >= asked.bytes_max * 3 ||
         clock.now() >= subscriber.oldest + asked.timeout;
}

std::deque<RecordPtr> Telemetry::Impl::take_batch(Subscriber& subscriber) const {
  std::deque<RecordPtr> batch;
  if (subscriber.dropped_records > 0) {
    Record told;
    told.type = "platform.logsDropped";
    told.time = base::format_iso_ms(clock.wall_now());
    told.record = "{\"droppedBytes\":" + std::to_string(subscriber.dropped_bytes) +
                  ",\"droppedRecords\":" + std::to_string(subscriber.dropped_records) +
                  R"(,"reason":"Consumer seems to have fallen behind as it has not acknowledged receipt of logs."})";
    if (wants(subscriber.subscription, told)) batch.push_back(std::make_shared<const Record>(std::move(told)));
    subscriber.dropped_records = subscriber.dropped_bytes = 0;
  }
  batch.insert(batch.end(), subscriber.queue.begin(), subscriber.queue.end());
  subscriber.queue.clear();
  subscriber.bytes = 0;
  subscriber.at_once = false;
  return batch;
}

Awaitable<void> Telemetry::Impl::serve(Impl& impl, Subscriber& subscriber) {
  while (true) {
    while (!impl.due(subscriber)) {
      const bool waits = !impl.frozen && !subscriber.queue.empty();
      const base::Deadline until = waits ? subscriber.oldest + subscriber.subscription.timeout : base::kNoDeadline;
      subscriber.changed.reset();
      (void)co_await subscriber.changed.wait(until);
    }
    const std::deque<RecordPtr> batch = impl.take_batch(subscriber);
    subscriber.sending = true;
    const bool taken = co_await deliver(impl, subscriber, batch);
    subscriber.sending = false;
    if (!taken) {
      for (const RecordPtr& record : batch) subscriber.dropped_bytes += record->size();
      subscriber.dropped_records += batch.size();
    }
    if (!impl.pending()) impl.settled.set();
  }
}

// An attempt during which the sandbox was frozen does not count: its listener could not answer.
Awaitable<bool> Telemetry::Impl::deliver(Impl& impl, Subscriber& subscriber, const std::deque<RecordPtr>& batch) {
  for (std::size_t failed = 0; failed < kTries;) {
    while (impl.frozen) {
      subscriber.changed.reset();
      (void)co_await subscriber.changed.wait();
    }
    const std::uint64_t freezes = impl.freezes;
    const auto sent = co_await send(impl, subscriber, batch);
    if (sent.ok()) co_return true;
    if (freezes != impl.freezes) continue;
    base::log_debug("telemetry was not taken", {{"extension", subscriber.subscription.extension}, {"what", sent.error().message()}});
    if (failed < kPauses.size()) co_await net::sleep_until(impl.clock.now() + kPauses[failed]);
    ++failed;
  }
  co_return false;
}

Awaitable<Result<void>> Telemetry::Impl::send(Impl& impl, Subscriber& subscriber, const std::deque<RecordPtr>& batch) {
  const Subscription& asked = subscriber.subscription;
  std::string body;
  for (const RecordPtr& record : batch) {
    if (asked.http) body += body.empty() ? "[" : ",";
    body += event_of(*record, asked);
    if (!asked.http) body += '\n';
  }
  if (!asked.http) {
    if (!subscriber.lines) subscriber.lines = std::make_shared<LineConnection>(subscriber.connector.get());
    const auto lines = subscriber.lines;
    co_return co_await LineConnection::send(lines, impl.inside, asked.port, std::move(body));
  }
  net::ClientRequest request;
  request.method = asked.method;
  request.url = "http://sandbox.localdomain:" + std::to_string(asked.port) + asked.path;
  request.headers.add("Content-Type", "application/json");
  request.body = std::move(body) + "]";
  request.timeout = kAnswerTime;
  request.response_bytes_max = 64U << 10U;
  request.addresses = impl.inside;
  request.socket = subscriber.connector.get();
  auto answer = co_await net::async_request(std::move(request));
  if (!answer.ok()) co_return std::move(answer).error();
  if (answer->status >= 400) co_return Error(ErrorCode::kUnavailable, "the listener answered " + std::to_string(answer->status));
  co_return Result<void>{};
}

Awaitable<void> Telemetry::Impl::finish_flush(Impl& impl, base::Deadline deadline, std::function<void()> then) {
  while (impl.pending() && impl.clock.now() < deadline) {
    impl.settled.reset();
    (void)co_await impl.settled.wait(deadline);
  }
  then();
}

Telemetry::Telemetry(const net::Executor& executor, const base::Clock& clock, std::vector<base::UniqueFd> connectors,
                     std::vector<std::string> inside)
    : impl_(std::make_unique<Impl>(executor, clock, std::move(connectors), std::move(inside))) {}
Telemetry::~Telemetry() = default;

void Telemetry::platform(std::string_view type, const std::string& record, Audience audience) {
  Record made;
  made.type = type;
  made.record = record;
  made.audience = audience;
  impl_->publish(std::move(made));
}

void Telemetry::printed(TelemetryKind kind, std::string_view text, std::optional<base::WallTime> time, bool json_log) {
  if (impl_->closed && impl_->subscribers.empty()) return;
  Record made;
  made.kind = kind;
  made.type = kind_name(kind);
  if (time) made.time = base::format_iso_ms(*time);
  const std::string valid = base::valid_utf8(std::string(text));
  made.record = base::json_quote(valid);
  if (json_log && valid.starts_with('{')) {
    const std::string_view object = std::string_view(valid).substr(0, valid.find_last_not_of("\r\n") + 1);
    if (base::check_json(object).ok()) {
      made.plain = std::move(made.record);
      made.record = object;
    }
  }
  impl_->publish(std::move(made));
}

Result<void> Telemetry::subscribe(Subscription subscription) {
  if (impl_->closed) return Error(ErrorCode::kConflict, "subscriptions are closed");
  for (const auto& each : impl_->subscribers) {
    if (each->subscription.extension != subscription.extension) continue;
    if (each->subscription.api != subscription.api)
      return Error(ErrorCode::kConflict, "the extension has subscribed through the other of Telemetry API and Logs API already");
    if (same(each->subscription, subscription)) return {};
  }
  if (impl_->connectors.empty()) return Error(ErrorCode::kResourceExhausted, "no further subscription is possible in this environment");
  base::UniqueFd connector = std::move(impl_->connectors.back());
  impl_->connectors.pop_back();
  impl_->subscribers.push_back(std::make_unique<Impl::Subscriber>(impl_->executor, std::move(subscription), std::move(connector)));
  Impl::Subscriber& subscriber = *impl_->subscribers.back();
  for (const RecordPtr& record : impl_->backlog) impl_->offer(subscriber, record);
  const bool logs = subscriber.subscription.api == TelemetryApi::kLogs;
  platform(logs ? "platform.logsSubscription" : "platform.telemetrySubscription", subscription_record(subscriber.subscription),
           logs ? Audience::kLogsOnly : Audience::kTelemetryOnly);
  impl_->tasks.spawn(Impl::serve(*impl_, subscriber));
  return {};
}

void Telemetry::close() {
  impl_->closed = true;
  impl_->backlog.clear();
  impl_->backlog_bytes = 0;
  if (impl_->subscribers.empty()) impl_->connectors.clear();
}

bool Telemetry::listening() const { return !impl_->closed || !impl_->subscribers.empty(); }
bool Telemetry::closed() const { return impl_->closed; }
bool Telemetry::pending() const { return impl_->pending(); }

void Telemetry::flush(Duration patience, std::function<void()> then) {
  for (const auto& subscriber : impl_->subscribers) {
    if (subscriber->queue.empty()) continue;
    subscriber->at_once = true;
    subscriber->changed.set();
  }
  impl_->tasks.spawn(Impl::finish_flush(*impl_, impl_->clock.now() + patience, std::move(then)));
}

void Telemetry::set_frozen(bool frozen) {
  if (frozen && !impl_->frozen) ++impl_->freezes;
  impl_->frozen = frozen;
  if (frozen) return;
  for (const auto& subscriber : impl_->subscribers) subscriber->changed.set();
}

}  // namespace mayfly::runtime
