#include "net/internal/connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/async_result.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <charconv>
#include <cstring>

#include "base/defer.h"
#include "base/json.h"
#include "base/log.h"
#include "net/turn.h"

namespace mayfly::net::internal {

namespace asio = boost::asio;
using base::Error;
using base::ErrorCode;
using base::Result;
using boost::system::error_code;

namespace {

constexpr std::size_t kPieceBytes = 64U << 10U;     // one read of a body
constexpr std::size_t kDropBytesMax = 64U << 10U;   // of a request body the handler left unread
constexpr std::size_t kWatchBytesMax = 16U << 10U;  // pipelined bytes kept while peer_gone() watches
constexpr std::size_t kJoinBytesMax = 4U << 10U;    // small bodies are copied behind the head
constexpr std::size_t kLingerBytesMax = 4U << 20U;
constexpr int kSendFlags = MSG_NOSIGNAL | MSG_DONTWAIT;
constexpr base::Duration kLingerTime = std::chrono::seconds(2);

base::TimePoint now() { return base::system_clock().now(); }

void append_number(std::string& out, std::uint64_t value, int base = 10) {
  std::array<char, 20> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, base).ptr;
  out.append(digits.data(), end);
}

void append_field(std::string& out, std::string_view name, std::string_view value) {
  out.append(name).append(": ").append(value).append("\r\n");
}

// Fields that only the connection itself may send.
bool is_own_field(std::string_view name) {
  switch (name.size()) {
    case 4:
      return equal_ignoring_case(name, "date");
    case 7:
      return equal_ignoring_case(name, "upgrade");
    case 10:
      return equal_ignoring_case(name, "connection") || equal_ignoring_case(name, "keep-alive");
    case 14:
      return equal_ignoring_case(name, "content-length");
    case 17:
      return equal_ignoring_case(name, "transfer-encoding");
    default:
      return false;
  }
}

// Makes `text` `size` bytes long, those that are new left as they are. The size that libstdc++ 12 passes to the operation is the
// capacity it took, which is more than was asked for between 16 and 29 bytes: bytes of the next request would be read.
void resize_unfilled(std::string& text, std::size_t size) {
  text.resize_and_overwrite(size, [size](char*, std::size_t) { return size; });
}

Error peer_went_away() { return {ErrorCode::kCancelled, "the peer closed the connection"}; }

}  // namespace

std::string_view ServerCore::date_line() {
  const base::WallTime wall = base::system_clock().wall_now();
  const std::int64_t second = std::chrono::duration_cast<std::chrono::seconds>(wall.time_since_epoch()).count();
  if (second != date_second_) {
    date_second_ = second;
    date_line_ = "Date: " + base::format_http_date(wall) + "\r\n";
  }
  return date_line_;
}

// ---- InputBuffer

void InputBuffer::consume(std::size_t bytes) {
  begin_ += bytes;
  if (begin_ == end_) begin_ = end_ = 0;
}

std::span<char> InputBuffer::prepare() {
  if (end_ == capacity_ && begin_ > 0) {
    std::memmove(data_.get(), data_.get() + begin_, size());
    end_ -= begin_;
    begin_ = 0;
  }
  if (end_ == capacity_) {
    const std::size_t larger = std::max(kIdleBytes, capacity_ * 2);
    auto data = std::make_unique_for_overwrite<char[]>(larger);
    if (end_ > 0) std::memcpy(data.get(), data_.get(), end_);
    data_ = std::move(data);
    capacity_ = larger;
  }
  return {data_.get() + end_, capacity_ - end_};
}

void InputBuffer::shrink() {
  if (!empty() || capacity_ <= kIdleBytes) return;
  data_.reset();
  capacity_ = 0;
}

// ---- Life

Connection::Connection(std::shared_ptr<ServerCore> core, asio::io_context& context, base::UniqueFd fd, int family, std::string peer)
    : core_(std::move(core)), socket_(context.get_executor()), peer_(std::move(peer)) {
  error_code error;
  const int raw = fd.get();
  socket_.assign(asio::generic::stream_protocol(family, 0), raw, error);
  if (error) {
    read_end_ = ReadEnd::kFailed;
  } else {
    (void)fd.release();
  }
  list_ = &core_->serving;
  place_ = list_->insert(list_->end(), this);
}

Connection::~Connection() {
  list_->erase(place_);
  if (!core_->closed && core_->on_connection_end) core_->on_connection_end();
}

Awaitable<void> Connection::run() {
  while (co_await read_head()) {
    start_exchange();
    co_await call_handler();
    if (!co_await finish_exchange()) break;
  }
  if (peer_may_be_sending()) co_await linger();
  error_code ignored;
  socket_.close(ignored);
}

base::Deadline Connection::sweep(base::TimePoint now) {
  const bool read_late = read_deadline_ <= now;
  const bool write_late = write_deadline_ <= now;
  if (read_late) {
    read_expired_ = true;
    read_deadline_ = base::kNoDeadline;
  }
  if (write_late) {
    write_expired_ = true;
    write_deadline_ = base::kNoDeadline;
  }
  error_code ignored;
  if (read_late || write_late) socket_.cancel(ignored);
  return std::min(read_deadline_, write_deadline_);
}

void Connection::close_if_idle() {
  if (!idle_) return;
  closing_ = true;
  error_code ignored;
  socket_.cancel(ignored);
}

void Connection::give_way() {
  closing_ = true;
  move_to(core_->serving);  // it ends a moment later and is not to be chosen again
  error_code ignored;
  socket_.cancel(ignored);
}

void Connection::close_now() {
  const auto self = shared_from_this();
  error_code ignored;
  socket_.close(ignored);
  const Resume reader = std::move(reader_);
  const Resume writer = std::move(writer_);
  reader_ = nullptr;
  writer_ = nullptr;
}

// ---- Reading

Awaitable<void> Connection::suspend(Resume& slot) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void()>(
      [&slot](auto&& handler) { slot = Resume(std::forward<decltype(handler)>(handler)); }, asio::use_awaitable);
}

void Connection::resume(Resume& slot) {
  if (!slot) return;
  Resume once = std::move(slot);
  slot = nullptr;
  if (!core_->closed) once();
}

void Connection::start_read() {
  if (reading_ || read_end_ != ReadEnd::kOpen) return;
  reading_ = true;
  const std::span<char> room = input_.prepare();
  socket_.async_read_some(asio::buffer(room.data(), room.size()),
                          [self = shared_from_this()](error_code error, std::size_t bytes) {
                            run_turn([&] { self->on_read(error, bytes, false); });
                          });
}

void Connection::start_direct_read() {
  reading_ = true;
  socket_.async_read_some(asio::buffer(direct_.data() + direct_filled_, direct_.size() - direct_filled_),
                          [self = shared_from_this()](error_code error, std::size_t bytes) {
                            run_turn([&] { self->on_read(error, bytes, true); });
                          });
}

void Connection::on_read(error_code error, std::size_t bytes, bool direct) {
  reading_ = false;
  read_deadline_ = base::kNoDeadline;
  if (direct) {
    direct_filled_ += bytes;
  } else {
    input_.commit(bytes);
  }
  if (error == asio::error::eof) {
    read_end_ = ReadEnd::kEof;
  } else if (error && !(error == asio::error::operation_aborted && read_expired_)) {
    read_end_ = ReadEnd::kFailed;
  }
  if (watching()) watch();
  resume(reader_);
}

Awaitable<void> Connection::fill(base::Deadline deadline) {
  start_read();
  read_deadline_ = deadline;
  return suspend(reader_);
}

Awaitable<bool> Connection::read_head() {
  const base::Defer served([this] {
    if (list_ == &core_->waiting) move_to(core_->serving);
  });
  const HeadLimits limits{core_->limits.header_bytes_max, core_->limits.header_fields_max, core_->limits.target_bytes_max};
  scanner_.reset();
  base::Deadline deadline = base::kNoDeadline;
  bool skipped = false;
  while (true) {
    if (!skipped && input_.view().starts_with("\r\n")) {  // one empty line before a request is forgiven (RFC 9112, section 2.2)
      skipped = true;
      input_.consume(2);
      scanner_.reset();
    }
    const bool half_an_empty_line = !skipped && input_.view() == "\r";
    if (const auto size = half_an_empty_line ? std::nullopt : scanner_.scan(input_.view(), limits)) {
      const Refusal refusal = take_head(*size);
      if (refusal.status == 0) co_return true;
      co_await refuse(refusal);
      co_return false;
    }
    if (scanner_.refusal().status != 0) {
      co_await refuse(scanner_.refusal());
      co_return false;
    }
    if (closing_) {  // only now: what arrived whole at that moment is served
      if (!input_.empty()) co_await refuse({503, "too many connections, and this one's request header was not complete; try again"});
      co_return false;
    }
    if (read_end_ != ReadEnd::kOpen) co_return false;
    if (input_.empty() && core_->draining) co_return false;
    if (list_ != &core_->waiting) move_to(core_->waiting);
    if (input_.empty()) {
      idle_ = true;
      co_await fill(now() + core_->limits.idle_timeout);
      idle_ = false;
      if (read_expired_) co_return false;
    } else {
      if (deadline == base::kNoDeadline) deadline = now() + core_->limits.header_timeout;
      co_await fill(deadline);
      if (read_expired_) {
        co_await refuse({408, "the request header did not arrive in time"});
        co_return false;
      }
    }
  }
}

Refusal Connection::take_head(std::size_t size) {
  const std::string_view bytes = input_.view().substr(0, size);
  const HeadLimits limits{core_->limits.header_bytes_max, core_->limits.header_fields_max, core_->limits.target_bytes_max};
  const Refusal refusal = read_request_head(bytes, limits, framing_, head_);
  if (refusal.status != 0) return refusal;
  input_.consume(size);
  return {};
}

Result<void> Connection::read_problem() const {
  if (read_expired_) return Error(ErrorCode::kDeadlineExceeded, "the request body arrives too slowly");
  if (read_end_ != ReadEnd::kOpen) return Error(ErrorCode::kCancelled, "the peer closed the connection before the request body ended");
  return {};
}

base::Deadline Connection::body_deadline(base::TimePoint now) const {
  if (core_->limits.body_rate_min == 0) return base::kNoDeadline;
  const auto earned = std::chrono::milliseconds(std::min<std::uint64_t>(body_received_ * 1000 / core_->limits.body_rate_min, 1ULL << 40U));
  return now + core_->limits.body_grace + earned - body_waited_;
}

Awaitable<Result<void>> Connection::wait_for_body(bool direct) {
  MAYFLY_CO_TRY(read_problem());
  const base::TimePoint start = now();
  if (direct && !reading_) start_direct_read();
  if (!direct) start_read();
  read_deadline_ = body_deadline(start);
  co_await suspend(reader_);
  body_waited_ += now() - start;
  if (input_.empty() && direct_filled_ == 0) MAYFLY_CO_TRY(read_problem());
  co_return Result<void>{};
}

void Connection::count_body(std::uint64_t bytes) {
  body_received_ += bytes;
  remaining_ -= bytes;
  if (remaining_ == 0) end_body();
}

void Connection::end_body() {
  body_done_ = true;
  if (watching()) watch();
}

Result<std::string> Connection::take_buffered() {
  std::string piece;
  if (!decoder_) {
    const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(remaining_, input_.size()));
    piece.assign(input_.view().substr(0, size));
    input_.consume(size);
    count_body(size);
    return piece;
  }
  const std::size_t before = input_.size();
  auto taken = decoder_->decode(input_.view(), kPieceBytes, piece);
  if (!taken.ok()) {
    body_broken_ = true;
    return std::move(taken).error();
  }
  input_.consume(*taken);
  body_received_ += before - input_.size();
  if (decoder_->done()) {
    trailers_ = decoder_->take_trailers();
    end_body();
  }
  return piece;
}

Awaitable<Result<void>> Connection::send_continue() {
  continue_pending_ = false;
  if (answer_ != Answer::kNone || !input_.empty()) co_return Result<void>{};
  co_return co_await send("HTTP/1.1 100 Continue\r\n\r\n");
}

Awaitable<Result<std::string>> Connection::read_some() {
  while (!body_done_) {
    if (body_broken_) co_return Error(ErrorCode::kInvalidArgument, "the request body's framing is broken");
    if (continue_pending_) MAYFLY_CO_TRY(co_await send_continue());
    if (!input_.empty()) {
      MAYFLY_CO_ASSIGN(std::string piece, take_buffered());
      if (!piece.empty()) co_return piece;
      if (body_done_) break;
    } else if (!decoder_ && !reading_) {
      co_return co_await read_known_length(std::min<std::uint64_t>(remaining_, kPieceBytes));
    }
    MAYFLY_CO_TRY(co_await wait_for_body(false));
  }
  co_return std::string{};
}

// One read into a string of `size` bytes; for a body of known length with nothing buffered.
Awaitable<Result<std::string>> Connection::read_known_length(std::uint64_t size) {
  resize_unfilled(direct_, static_cast<std::size_t>(size));
  direct_filled_ = 0;
  auto waited = co_await wait_for_body(true);
  std::string piece = std::move(direct_);
  direct_ = {};
  if (!waited.ok()) co_return std::move(waited).error();
  piece.resize(std::exchange(direct_filled_, 0));
  count_body(piece.size());
  if (piece.size() * 4 < piece.capacity()) piece.shrink_to_fit();
  co_return piece;
}

Awaitable<Result<std::string>> Connection::read_all(std::uint64_t limit) {
  const auto too_large = [limit] {
    return Error(ErrorCode::kTooLarge, "the request body is larger than " + std::to_string(limit) + " bytes");
  };
  std::string body;
  if (!decoder_) {
    if (remaining_ > limit) co_return too_large();
    body.reserve(static_cast<std::size_t>(remaining_));
  }
  while (!body_done_) {
    if (!decoder_ && input_.empty() && !reading_ && !continue_pending_ && remaining_ > kPieceBytes) {
      // The rest goes straight to its place.
      const std::size_t had = body.size();
      direct_ = std::move(body);
      resize_unfilled(direct_, had + static_cast<std::size_t>(remaining_));
      direct_filled_ = had;
      while (remaining_ > 0) {
        const std::size_t before = direct_filled_;
        auto waited = co_await wait_for_body(true);
        if (waited.ok() && direct_filled_ == before) waited = read_problem();
        if (!waited.ok()) {
          direct_filled_ = 0;
          direct_ = {};
          co_return std::move(waited).error();
        }
        count_body(direct_filled_ - before);
      }
      direct_filled_ = 0;
      body = std::exchange(direct_, {});
      break;
    }
    MAYFLY_CO_ASSIGN(const std::string piece, co_await read_some());
    if (body.size() + piece.size() > limit) co_return too_large();
    body += piece;
  }
  co_return body;
}

// ---- Watching for the peer's end

// Reads ahead for the sake of those who watch, once the body has ended: until then the handler's own reads see the end.
void Connection::watch() {
  if (read_end_ != ReadEnd::kOpen) {
    report_peer_gone();
  } else if (body_done_ && input_.size() < kWatchBytesMax) {
    start_read();
  }
}

void Connection::report_peer_gone() {
  if (watch_) {
    watch_->gone = true;
    watch_->event.set();
  }
  if (const auto call = std::exchange(when_gone_, nullptr)) call();
}

Awaitable<bool> Connection::peer_gone() {
  if (!watch_) watch_ = std::make_shared<Watch>(Executor(socket_.get_executor()));
  const auto mine = watch_;
  watch();
  (void)co_await mine->event.wait();
  co_return mine->gone;
}

void Connection::when_peer_gone(std::function<void()> call) {
  when_gone_ = std::move(call);
  watch();
}

// ---- Answering

bool Connection::may_keep_alive() const {
  const bool body_manageable = body_done_ || (!body_broken_ && !continue_pending_ && (decoder_ || remaining_ <= kDropBytesMax));
  return framing_.keep_alive && body_manageable && !core_->draining && !closing_ && read_end_ == ReadEnd::kOpen && !read_expired_;
}

void Connection::put_connection(bool asked_to_close) {
  close_after_ = close_after_ || asked_to_close || !may_keep_alive();
  if (close_after_) {
    output_ += "Connection: close\r\n";
  } else if (!framing_.http_1_1) {
    output_ += "Connection: keep-alive\r\n";
  }
}

Result<void> Connection::put_head(int status, const Headers& headers) {
  if (status < 200 || status > 599) return Error(ErrorCode::kInvalidArgument, "no answer can have the status " + std::to_string(status));
  output_.assign("HTTP/1.1 ");
  append_number(output_, static_cast<std::uint64_t>(status));
  output_.append(" ").append(reason_phrase(status)).append("\r\n").append(core_->date_line());
  bool close = false;
  for (const auto& [name, value] : headers.fields()) {
    if (!is_token(name) || !is_field_value(value)) {
      return Error(ErrorCode::kInvalidArgument,
                   "the answer's header " + base::json_quote(name) + " holds a byte that is not allowed there");
    }
    if (!is_own_field(name)) {
      append_field(output_, name, value);
    } else if (equal_ignoring_case(name, "connection")) {
      close = list_contains(value, "close");
    }
  }
  put_connection(close);
  return {};
}

void Connection::put_length(int status, const Headers& headers, std::size_t body_size) {
  if (status == 204) return;
  const bool body_of_other = body_size == 0 && (head_.method == "HEAD" || status == 304);
  if (body_of_other) {  // the length GET would have, if the handler knows it
    const auto length = parse_length(headers.get("content-length"));
    if (!length) return;
    body_size = static_cast<std::size_t>(*length);
  }
  output_ += "Content-Length: ";
  append_number(output_, body_size);
  output_ += "\r\n";
}

Awaitable<Result<void>> Connection::respond(Response response) {
  if (answer_ != Answer::kNone) co_return Error(ErrorCode::kConflict, "the request has been answered already");
  MAYFLY_CO_TRY(put_head(response.status, response.headers));
  put_length(response.status, response.headers, response.body.size());
  output_ += "\r\n";
  answer_ = Answer::kDone;
  std::string_view body = body_allowed(response.status) ? std::string_view(response.body) : std::string_view{};
  if (body.size() <= kJoinBytesMax) {
    output_ += body;
    iovec whole{output_.data(), output_.size()};
    std::span<iovec> rest(&whole, 1);
    MAYFLY_CO_TRY(send_now(rest));
    if (rest.empty()) co_return Result<void>{};  // nearly always: no second coroutine for a small answer
    co_return co_await send({static_cast<const char*>(whole.iov_base), whole.iov_len});
  }
  co_return co_await send(output_, body);
}

Awaitable<Result<void>> Connection::begin(int status, Headers headers) {
  if (answer_ != Answer::kNone) co_return Error(ErrorCode::kConflict, "the request has been answered already");
  answer_has_body_ = body_allowed(status);
  chunked_answer_ = framing_.http_1_1 && answer_has_body_;
  if (answer_has_body_ && !chunked_answer_) close_after_ = true;  // HTTP/1.0: the end of the connection ends the body
  MAYFLY_CO_TRY(put_head(status, headers));
  output_ += chunked_answer_ ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n";
  answer_ = Answer::kStreaming;
  co_return co_await send(output_);
}

Awaitable<Result<void>> Connection::begin_sized(int status, Headers headers, std::uint64_t length) {
  if (answer_ != Answer::kNone) co_return Error(ErrorCode::kConflict, "the request has been answered already");
  answer_has_body_ = body_allowed(status);
  chunked_answer_ = false;
  MAYFLY_CO_TRY(put_head(status, headers));
  if (status != 204) {
    output_ += "Content-Length: ";
    append_number(output_, length);
    output_ += "\r\n";
  }
  output_ += "\r\n";
  if (answer_has_body_) sized_left_ = length;
  answer_ = Answer::kStreaming;
  co_return co_await send(output_);
}

Awaitable<Result<void>> Connection::write(std::string_view bytes) {
  if (answer_ == Answer::kBroken) co_return peer_went_away();
  if (answer_ != Answer::kStreaming) co_return Error(ErrorCode::kConflict, "no streamed answer is open");
  if (bytes.empty() || !answer_has_body_) co_return Result<void>{};
  if (sized_left_) {
    if (bytes.size() > *sized_left_) co_return Error(ErrorCode::kInvalidArgument, "the answer is longer than it was said to be");
    *sized_left_ -= bytes.size();
  }
  if (!chunked_answer_) co_return co_await send(bytes);
  output_.clear();
  append_number(output_, bytes.size(), 16);
  output_ += "\r\n";
  co_return co_await send(output_, bytes, "\r\n");
}

Awaitable<Result<void>> Connection::finish(Headers trailers) {
  if (answer_ == Answer::kBroken) co_return peer_went_away();
  if (answer_ != Answer::kStreaming) co_return Error(ErrorCode::kConflict, "no streamed answer is open");
  if (sized_left_.value_or(0) > 0) {
    abort();
    co_return Error(ErrorCode::kInternal, "the answer is shorter than it was said to be");
  }
  if (!chunked_answer_) {
    answer_ = Answer::kDone;
    co_return Result<void>{};
  }
  output_.assign("0\r\n");
  for (const auto& [name, value] : trailers.fields()) {
    if (!is_token(name) || is_forbidden_trailer(name) || !is_field_value(value)) {
      co_return Error(ErrorCode::kInvalidArgument, "the answer's trailer " + base::json_quote(name) + " is not allowed");
    }
    append_field(output_, name, value);
  }
  output_ += "\r\n";
  answer_ = Answer::kDone;
  co_return co_await send(output_);
}

void Connection::abort() {
  answer_ = Answer::kBroken;
  close_after_ = true;
  const struct ::linger reset{1, 0};  // a plain close would look like the end of a close-delimited body
  (void)::setsockopt(socket_.native_handle(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  error_code ignored;
  socket_.close(ignored);
  read_end_ = ReadEnd::kFailed;
}

// Sends what the socket takes without waiting and drops it from `rest`. Nothing is left when all went out.
Result<void> Connection::send_now(std::span<iovec>& rest) {
  while (!rest.empty()) {
    msghdr message{};
    message.msg_iov = rest.data();
    message.msg_iovlen = rest.size();
    const ssize_t sent = rest.size() == 1 ? ::send(socket_.native_handle(), rest.front().iov_base, rest.front().iov_len, kSendFlags)
                                          : ::sendmsg(socket_.native_handle(), &message, kSendFlags);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    if (sent < 0) {
      answer_ = Answer::kBroken;
      return peer_went_away();
    }
    auto left = static_cast<std::size_t>(sent);
    while (!rest.empty() && left >= rest.front().iov_len) {
      left -= rest.front().iov_len;
      rest = rest.subspan(1);
    }
    if (rest.empty()) break;
    rest.front().iov_base = static_cast<char*>(rest.front().iov_base) + left;
    rest.front().iov_len -= left;
  }
  return {};
}

Awaitable<Result<void>> Connection::send(std::string_view first, std::string_view second, std::string_view third) {
  std::array<iovec, 3> pieces{};
  std::size_t count = 0;
  for (const std::string_view part : {first, second, third}) {
    if (!part.empty()) pieces[count++] = {const_cast<char*>(part.data()), part.size()};
  }
  std::span<iovec> rest(pieces.data(), count);
  while (true) {
    MAYFLY_CO_TRY(send_now(rest));
    if (rest.empty()) co_return Result<void>{};
    socket_.async_wait(Socket::wait_write, [self = shared_from_this()](error_code error) {
      self->write_deadline_ = base::kNoDeadline;
      if (error && !self->write_expired_) self->answer_ = Answer::kBroken;
      run_turn([&] { self->resume(self->writer_); });
    });
    write_deadline_ = now() + core_->limits.write_timeout;
    co_await suspend(writer_);
    if (write_expired_) {
      answer_ = Answer::kBroken;
      co_return Error(ErrorCode::kDeadlineExceeded, "the peer took no byte of the answer in time");
    }
    if (answer_ == Answer::kBroken) co_return peer_went_away();
  }
}

Awaitable<void> Connection::refuse(Refusal refusal) {
  start_exchange();
  framing_ = {};
  body_broken_ = true;  // nothing after a refused head can be trusted to be a message
  body_done_ = false;
  head_ = {};
  Response response;
  response.status = refusal.status;
  response.headers.add("Content-Type", "application/json");
  response.body = "{\"message\":" + base::json_quote(refusal.reason) + "}\n";
  (void)co_await respond(std::move(response));
}

// ---- Between exchanges

void Connection::start_exchange() {
  remaining_ = framing_.content_length.value_or(0);
  decoder_ = framing_.chunked ? std::make_unique<ChunkDecoder>() : nullptr;
  body_done_ = !framing_.chunked && remaining_ == 0;
  body_broken_ = false;
  continue_pending_ = framing_.expects_continue && !body_done_;
  trailers_.clear();
  body_received_ = 0;
  body_waited_ = base::Duration{0};
  answer_ = Answer::kNone;
  sized_left_.reset();
}

Awaitable<void> Connection::call_handler() {
  try {
    co_await core_->handler(*this);
  } catch (const boost::system::system_error& failure) {
    if (failure.code() == asio::error::operation_aborted) throw;  // the server ends
    base::log_error("an exception left a request handler; this is a bug in Mayfly", {{"target", head_.target}, {"what", failure.what()}});
  } catch (const std::exception& failure) {
    base::log_error("an exception left a request handler; this is a bug in Mayfly", {{"target", head_.target}, {"what", failure.what()}});
  }
}

// Whether another request may follow.
Awaitable<bool> Connection::finish_exchange() {
  when_gone_ = nullptr;
  if (watch_) {
    watch_->event.set();
    watch_.reset();
  }
  if (answer_ == Answer::kStreaming) abort();
  if (answer_ == Answer::kNone) {
    Response failure;
    failure.status = 500;
    failure.headers.add("Content-Type", "application/json");
    failure.body = "{\"message\":\"the request was not answered; this is a bug in Mayfly\"}\n";
    (void)co_await respond(std::move(failure));
  }
  std::size_t dropped = 0;
  while (answer_ == Answer::kDone && !close_after_ && !body_done_) {
    const auto piece = co_await read_some();
    if (!piece.ok()) co_return false;
    dropped += piece->size();
    if (dropped > kDropBytesMax) co_return false;
  }
  input_.shrink();
  if (output_.capacity() > 2 * kJoinBytesMax) output_ = {};
  if (head_.target.capacity() > 1024) head_ = {};
  decoder_.reset();
  co_return answer_ == Answer::kDone && !close_after_;
}

bool Connection::peer_may_be_sending() const {
  return answer_ == Answer::kDone && read_end_ == ReadEnd::kOpen && (!body_done_ || !input_.empty());
}

// Closing with unread bytes resets the connection and may destroy the answer on its way: says "no more" and reads a little.
Awaitable<void> Connection::linger() {
  error_code ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
  read_expired_ = false;
  const base::Deadline deadline = now() + kLingerTime;
  std::size_t dropped = 0;
  while (read_end_ == ReadEnd::kOpen && !read_expired_ && dropped < kLingerBytesMax) {
    dropped += input_.size();
    input_.consume(input_.size());
    co_await fill(deadline);
  }
}

}  // namespace mayfly::net::internal
