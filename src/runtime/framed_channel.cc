#include "runtime/framed_channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <deque>
#include <optional>
#include <vector>

#include "base/log.h"
#include "net/turn.h"

namespace mayfly::runtime {

namespace asio = boost::asio;
using boost::system::error_code;
using engine::InvocationPtr;
using engine::ResponseMode;

namespace {

constexpr std::size_t kSmallRead = 4096;  // an answer of the usual size comes whole with the first read
constexpr std::size_t kReadBytes = 64U << 10U;
constexpr std::size_t kReadsAtOnce = 16;  // then others get their turn
constexpr std::uint32_t kHelloBytesMax = 256;
constexpr std::uint32_t kContentTypeBytesMax = 1024;
constexpr std::uint32_t kRunBytes = 4;               // of a run's number
constexpr std::uint32_t kErrorTypeRoom = 1028;       // of an error's type in front of its document
constexpr std::uint32_t kWindowBytes = 256U << 10U;  // of a stream: on its way or waiting for its reader
constexpr std::size_t kLargeMessage = 64U << 10U;    // a pipe's usual size
constexpr int kLargePipeBytes = 512 << 10;

enum class Phase : std::uint8_t {
  kSilent,  // nothing came: perhaps this runtime does not know the protocol
  kInit,    // it has said hello
  kServing,
  kLeaving,  // the process is about to end: its runs may still be answered, and it takes no more
  kInitFailed,
  kClosed,
};

std::string too_large_text(std::uint64_t limit) { return "Exceeded maximum allowed payload size (" + std::to_string(limit) + " bytes)."; }

}  // namespace

struct FramedChannel::Impl final : FrameReceiver, std::enable_shared_from_this<FramedChannel::Impl> {
  // One invocation that runs.
  struct Run {
    enum class State : std::uint8_t {
      kInvoking,
      kStreaming,
      kRefused,  // answered already, as too large; its end is awaited
    };
    RunNumber number = 0;
    InvocationPtr invocation;
    State state = State::kInvoking;
    base::TimePoint began{};
    std::uint64_t total = 0;                 // bytes of a stream
    std::uint32_t credit = kWindowBytes;     // what the peer may still send
    std::uint32_t owed = 0;                  // taken, and not yet given back as credit
    bool passes = false;                     // to the sink, piece by piece; else collected
    bool listening = true;                   // the sink still wants pieces
    bool busy = false;                       // the sink has a piece
    bool ended = false;                      // END has come
    std::string pending;                     // waits for the sink, or is the collected response
    std::optional<FunctionFault> end_fault;  // of END, where it carries an error
    bool given_up = false;                   // nobody hears of it any more
    std::uint64_t sent_from = 0;             // where in all that is written its INVOKE begins
    bool has_payload = false;                // the invocation, again: perhaps nobody reads what was written
    bool untaken = false;                    // the runtime said so
  };
  // Bytes that wait for room in the pipe. An event is one piece of its own.
  struct Piece {
    std::string bytes;
    RunNumber payload_of = 0;
  };

  Impl(asio::io_context& context, FramedEvents& events_in, const base::Clock& clock_in, RuntimeApiLimits limits_in)
      : in(context), out_watch(context), events(&events_in), clock(clock_in), limits(limits_in) {}

  // reading
  void read();
  void on_read(const error_code& error, std::size_t bytes);
  void on_end();
  Body on_head(const FrameHead& head) override;
  bool on_frame(const FrameHead& head, std::string body) override;
  Body head_of_run(const FrameHead& head);
  bool frame_of_run(const FrameHead& head, std::string body);
  bool hello(std::string_view body);
  bool leave(std::string_view body);
  bool begin_stream(Run& run, const std::string& type);
  bool take_chunk(Run& run, std::string bytes);
  bool end_stream(Run& run, std::uint32_t length, std::string_view body);
  void pass_on(RunNumber number);
  void give_credit(Run& run, std::uint32_t bytes);
  void finish_stream(RunNumber number);
  bool refuse(Run& run, std::uint64_t limit);
  // Reports the answer; the run is gone, or awaits its end when it was refused.
  void succeed(const Run& run, std::string payload);
  void fail(const Run& run, FunctionFault fault);
  void report(const Run& run, Answer answer);
  bool free_run(RunNumber number);
  Body broken(const std::string& what);
  bool break_off(const std::string& what) {
    (void)broken(what);
    return false;
  }
  Run* find(RunNumber number) {
    const auto it = std::ranges::find(runs, number, &Run::number);
    return it == runs.end() ? nullptr : &*it;
  }
  [[nodiscard]] bool abandoned() const { return events == nullptr; }

  // writing
  void send(std::string first) { send(std::move(first), {}, 0); }
  void send(std::string first, std::string payload, RunNumber of);
  [[nodiscard]] ssize_t write_pieces();
  void flush();
  void written(RunNumber of, std::string payload);
  void keep_payload(RunNumber of, std::string payload);
  [[nodiscard]] bool nobody_read(const Run& run) const;
  void close();

  asio::posix::stream_descriptor in;
  asio::posix::stream_descriptor out_watch;  // a duplicate of `out`, made when it first has to wait for room
  base::UniqueFd out;
  FramedEvents* events;
  const base::Clock& clock;
  const RuntimeApiLimits limits;
  Phase phase = Phase::kSilent;
  bool initialised = false;  // INIT was sent
  bool waits_to_write = false;
  bool widened = false;  // the pipes, for large messages
  std::vector<Run> runs;
  FrameSplitter splitter;
  std::uint64_t written_bytes = 0;  // what the pipe has taken
  std::deque<Piece> unsent;         // in order
  std::size_t unsent_at = 0;        // of the first
  std::size_t unsent_bytes = 0;
  std::array<char, kSmallRead> small{};
};

// ---- reading

void FramedChannel::Impl::read() {
  if (abandoned() || phase == Phase::kClosed) return;
  in.async_read_some(asio::buffer(small),
                     [self = shared_from_this()](const error_code& error, std::size_t bytes) {
                       net::run_turn([&] { self->on_read(error, bytes); });
                     });
}

void FramedChannel::Impl::on_read(const error_code& error, std::size_t bytes) {
  if (abandoned() || phase == Phase::kClosed) return;
  if (error) return on_end();
  if (!splitter.feed({small.data(), bytes}, *this)) return close();
  if (bytes == small.size()) {                                 // there may be more
    static thread_local std::string buffer(kReadBytes, '\0');  // one for all channels of a loop: used between two lines only
    for (std::size_t i = 0; i < kReadsAtOnce && !abandoned(); ++i) {
      ssize_t got = -1;
      bool goes_on = true;
      const auto read_into = [&](char* at, std::size_t size) {
        do got = ::read(in.native_handle(), at, size);
        while (got < 0 && errno == EINTR);
        return got > 0 ? static_cast<std::size_t>(got) : 0;
      };
      std::size_t asked = kReadBytes;
      if (const std::size_t missing = splitter.missing(); missing >= kSmallRead) {
        asked = std::min<std::size_t>(missing, kLargePipeBytes);
        goes_on = splitter.fill(asked, *this, read_into);
      } else {
        const std::size_t filled = read_into(buffer.data(), buffer.size());
        goes_on = splitter.feed(std::string_view(buffer).substr(0, filled), *this);
      }
      if (!goes_on) return close();
      if (got == 0) return on_end();
      if (got < 0) break;  // nothing more now; another failure is told to the next read
      if (static_cast<std::size_t>(got) < asked) break;
    }
  }
  read();
}

// The runtime's end is closed: its process has ended or is about to, which the launcher tells; what it streamed is cut off.
void FramedChannel::Impl::on_end() {
  std::vector<RunNumber> cut;
  for (const Run& run : runs) {
    if (run.state == Run::State::kStreaming && !run.ended) cut.push_back(run.number);
  }
  phase = Phase::kClosed;
  for (const RunNumber number : cut) {
    Run* run = find(number);
    if (run == nullptr) continue;
    fail(*run, platform_fault("Runtime.TruncatedResponse", run->invocation->request_id,
                              "Response was truncated: the runtime ended it before it was complete"));
    std::erase_if(runs, [&](const Run& each) { return each.number == number; });
  }
}

FrameReceiver::Body FramedChannel::Impl::broken(const std::string& what) {
  const bool spoke = phase != Phase::kSilent;
  phase = Phase::kClosed;
  if (!spoke) {  // some program that writes to a descriptor it does not know
    base::log_debug("an environment's control pipe carries something else", {{"what", what}});
    return Body::kStop;
  }
  if (!abandoned()) {
    const std::string id = runs.empty() ? std::string() : runs.front().invocation->request_id;
    events->on_protocol_error(platform_fault("Runtime.ProtocolError", id, "The runtime broke Mayfly's framed protocol: " + what));
  }
  return Body::kStop;
}

FrameReceiver::Body FramedChannel::Impl::on_head(const FrameHead& head) {
  const auto type = static_cast<FrameType>(head.type);
  if (phase == Phase::kSilent) {
    if (type == FrameType::kHello && head.run == 0 && head.length <= kHelloBytesMax) return Body::kKeep;
    return broken("the first frame is no HELLO");
  }
  switch (type) {
    case FrameType::kReady:
      if (phase != Phase::kInit || !initialised) return broken("READY out of turn");
      return head.length == 0 && head.run == 0 ? Body::kKeep : broken("a READY that is not empty");
    case FrameType::kInitError:
      if (phase != Phase::kInit || head.run != 0) return broken("INIT_ERROR out of turn");
      return head.length <= limits.error_bytes + kErrorTypeRoom ? Body::kKeep : broken("an INIT_ERROR beyond the limit");
    case FrameType::kLeaving:
      if (phase != Phase::kServing) return broken("LEAVING out of turn");
      return head.length <= kRunBytes && head.run == 0 ? Body::kKeep : broken("a LEAVING beyond its size");
    case FrameType::kResponse:
    case FrameType::kError:
    case FrameType::kResponseBegin:
    case FrameType::kChunk:
    case FrameType::kEnd:
      return head_of_run(head);
    default:
      return broken("a frame of type " + std::to_string(head.type));
  }
}

FrameReceiver::Body FramedChannel::Impl::head_of_run(const FrameHead& head) {
  const auto type = static_cast<FrameType>(head.type);
  Run* run = find(head.run);
  if (run == nullptr) return broken("run " + std::to_string(head.run) + " is not under way");
  const bool first = type == FrameType::kResponse || type == FrameType::kError || type == FrameType::kResponseBegin;
  if (first != (run->state == Run::State::kInvoking)) return broken("an answer's frames out of order");
  if (first) run->began = clock.now();
  switch (type) {
    case FrameType::kResponse:
      return head.length <= limits.response_bytes ? Body::kKeep : Body::kDiscard;
    case FrameType::kError:
      return head.length <= limits.error_bytes + kErrorTypeRoom ? Body::kKeep : Body::kDiscard;
    case FrameType::kResponseBegin:
      return head.length <= kContentTypeBytesMax ? Body::kKeep : broken("a content type beyond the limit");
    case FrameType::kChunk:
      if (head.length > run->credit) return broken("a stream beyond its credit");
      return run->state == Run::State::kRefused ? Body::kDiscard : Body::kKeep;
    default:
      return head.length <= limits.error_bytes + kErrorTypeRoom ? Body::kKeep : Body::kDiscard;
  }
}

bool FramedChannel::Impl::hello(std::string_view body) {
  phase = Phase::kInit;
  FramedHello said;
  if (!parse_hello(body, said)) return break_off("a HELLO that is cut short");
  if (said.version != kFramedVersion) return break_off("its version is " + std::to_string(said.version) + "; this server speaks 1");
  return true;
}

// The body: the newest run that the process has taken; what was sent after that one it has not and will not. Empty where it cannot tell.
bool FramedChannel::Impl::leave(std::string_view body) {
  RunNumber newest = 0;
  if (!body.empty() && !parse_run(body, newest)) return break_off("a LEAVING that is cut short");
  phase = Phase::kLeaving;
  for (Run& run : runs) run.untaken = !body.empty() && run.number > newest && run.state == Run::State::kInvoking;
  events->on_leaving();
  return !abandoned();
}

bool FramedChannel::Impl::on_frame(const FrameHead& head, std::string body) {
  if (abandoned()) return false;
  switch (static_cast<FrameType>(head.type)) {
    case FrameType::kHello:
      return hello(body);
    case FrameType::kReady:
      phase = Phase::kServing;
      events->on_next(0);
      return !abandoned();
    case FrameType::kLeaving:
      return leave(body);
    case FrameType::kInitError: {
      FramedError error;
      if (!parse_error(body, error)) return break_off("an INIT_ERROR that is cut short");
      phase = Phase::kInitFailed;
      events->on_init_error(posted_fault(error.type, std::string(error.document)));
      return !abandoned();
    }
    default:
      return frame_of_run(head, std::move(body));
  }
}

bool FramedChannel::Impl::frame_of_run(const FrameHead& head, std::string body) {
  Run* run = find(head.run);
  if (run == nullptr) return break_off("run " + std::to_string(head.run) + " is not under way");
  const RunNumber number = head.run;
  switch (static_cast<FrameType>(head.type)) {
    case FrameType::kResponse:
      if (head.length > limits.response_bytes) {
        fail(*run, response_too_large(limits.response_bytes));
        send(encode_refused(number, too_large_text(limits.response_bytes)));
      } else {
        succeed(*run, std::move(body));
      }
      return free_run(number);
    case FrameType::kError: {
      if (head.length > limits.error_bytes + kErrorTypeRoom) {
        fail(*run, response_too_large(limits.error_bytes));
        send(encode_refused(number, too_large_text(limits.error_bytes)));
        return free_run(number);
      }
      FramedError error;
      if (!parse_error(body, error)) return break_off("an ERROR that is cut short");
      fail(*run, posted_fault(error.type, std::string(error.document)));
      return free_run(number);
    }
    case FrameType::kResponseBegin:
      return begin_stream(*run, body);
    case FrameType::kChunk:
      run->credit -= head.length;
      return run->state == Run::State::kRefused || take_chunk(*run, std::move(body));
    default:
      return end_stream(*run, head.length, body);
  }
}

bool FramedChannel::Impl::begin_stream(Run& run, const std::string& type) {
  run.state = Run::State::kStreaming;
  run.passes = run.given_up || run.invocation->mode == ResponseMode::kStreaming;
  if (run.passes && !run.given_up && run.invocation->sink)
    run.invocation->sink->on_stream_begin(type.empty() ? "application/octet-stream" : header_safe(type));
  return !abandoned();
}

bool FramedChannel::Impl::take_chunk(Run& run, std::string bytes) {
  const auto size = static_cast<std::uint32_t>(bytes.size());
  run.total += size;
  const std::uint64_t limit = run.passes ? limits.stream_bytes : limits.response_bytes;
  if (run.total > limit) return refuse(run, limit);
  const bool drops = run.passes && (!run.listening || !run.invocation->sink);  // a caller that left is no reason to stop
  if (!drops) {
    if (run.pending.empty()) {
      run.pending = std::move(bytes);
    } else {
      run.pending += bytes;
    }
  }
  if (run.passes && !drops) {
    pass_on(run.number);
  } else {
    give_credit(run, size);
  }
  return !abandoned();
}

// Hands the sink what waits for it, one piece at a time.
void FramedChannel::Impl::pass_on(RunNumber number) {
  while (true) {
    Run* run = find(number);
    if (abandoned() || run == nullptr || run->state != Run::State::kStreaming || run->busy || run->pending.empty()) break;
    run->busy = true;
    std::string piece = std::move(run->pending);
    run->pending = {};
    const auto size = static_cast<std::uint32_t>(piece.size());
    const auto inside = std::make_shared<bool>(true);  // the sink may answer before it returns: then this loop goes on
    run->invocation->sink->on_stream_piece(std::move(piece), [weak = weak_from_this(), number, size, inside](bool listening) {
      const auto self = weak.lock();
      Run* of = self && !self->abandoned() ? self->find(number) : nullptr;
      if (of == nullptr || !of->busy) return;
      of->busy = false;
      of->listening = of->listening && listening;
      if (!of->listening) {
        self->give_credit(*of, static_cast<std::uint32_t>(of->pending.size()));
        of->pending.clear();
      }
      self->give_credit(*of, size);
      if (!*inside) self->pass_on(number);
    });
    *inside = false;
  }
  if (Run* run = find(number); run != nullptr && run->ended && !run->busy && run->pending.empty() && !abandoned()) finish_stream(number);
}

void FramedChannel::Impl::give_credit(Run& run, std::uint32_t bytes) {
  run.owed += bytes;
  if (run.owed < kWindowBytes / 2 || run.ended || run.state != Run::State::kStreaming) return;
  run.credit += run.owed;
  send(encode_credit(run.number, run.owed));
  run.owed = 0;
}

// Too large: answered as that now, and the rest of it goes nowhere.
bool FramedChannel::Impl::refuse(Run& run, std::uint64_t limit) {
  run.state = Run::State::kRefused;
  run.pending = {};
  send(encode_refused(run.number, too_large_text(limit)));
  fail(run, response_too_large(limit));
  return !abandoned();
}

// `body` is empty, too, where its `length` is beyond the limit.
bool FramedChannel::Impl::end_stream(Run& run, std::uint32_t length, std::string_view body) {
  const RunNumber number = run.number;
  if (run.state == Run::State::kRefused) return free_run(number);
  if (run.ended) return break_off("an END too many");
  if (length > limits.error_bytes + kErrorTypeRoom) {
    run.end_fault = response_too_large(limits.error_bytes);
    send(encode_refused(number, too_large_text(limits.error_bytes)));
  } else if (length > 0) {
    FramedError error;
    if (!parse_error(body, error)) return break_off("an END that is cut short");
    run.end_fault = posted_fault(error.type, std::string(error.document));
  }
  run.ended = true;
  if (!run.busy && (!run.passes || run.pending.empty())) finish_stream(number);
  return !abandoned();
}

void FramedChannel::Impl::finish_stream(RunNumber number) {
  Run& run = *find(number);
  if (run.end_fault) {
    fail(run, *std::move(run.end_fault));
  } else {
    succeed(run, run.passes ? std::string() : std::move(run.pending));
  }
  (void)free_run(number);
}

void FramedChannel::Impl::succeed(const Run& run, std::string payload) {
  Answer answer;
  answer.produced_bytes = run.total > 0 ? run.total : payload.size();
  answer.payload = std::move(payload);
  report(run, std::move(answer));
}

void FramedChannel::Impl::fail(const Run& run, FunctionFault fault) {
  Answer answer;
  answer.failed = true;
  answer.payload = std::move(fault.payload);
  answer.error_type = std::move(fault.error_type);
  answer.cause = std::move(fault.cause);
  answer.produced_bytes = run.total > 0 ? run.total : answer.payload.size();
  report(run, std::move(answer));
}

void FramedChannel::Impl::report(const Run& run, Answer answer) {
  answer.run = run.number;
  answer.began = run.began;
  if (!abandoned() && !run.given_up) events->on_answer(std::move(answer));
}

// The runtime can take another. False when decoding must stop.
bool FramedChannel::Impl::free_run(RunNumber number) {
  const Run* run = find(number);
  const bool given_up = run != nullptr && run->given_up;
  std::erase_if(runs, [&](const Run& each) { return each.number == number; });
  if (!given_up && !abandoned() && phase == Phase::kServing) events->on_next(number);
  return !abandoned();
}

// ---- writing

void FramedChannel::Impl::send(std::string first, std::string payload, RunNumber of) {
  const std::size_t size = first.size() + payload.size();
  if (phase == Phase::kClosed || !out) return keep_payload(of, std::move(payload));
  if (!unsent.empty()) {
    unsent_bytes += size;
    unsent.push_back({.bytes = std::move(first)});
    if (of != 0) unsent.push_back({.bytes = std::move(payload), .payload_of = of});
    return flush();
  }
  if (!widened && size > kLargeMessage) {
    widened = true;  // refused where too many pipes are large already, which only costs time
    (void)::fcntl(out.get(), F_SETPIPE_SZ, kLargePipeBytes);
    (void)::fcntl(in.native_handle(), F_SETPIPE_SZ, kLargePipeBytes);
  }
  const std::array<iovec, 2> parts{iovec{.iov_base = first.data(), .iov_len = first.size()},
                                   iovec{.iov_base = payload.data(), .iov_len = payload.size()}};
  ssize_t sent = -1;
  do sent = ::writev(out.get(), parts.data(), payload.empty() ? 1 : 2);
  while (sent < 0 && errno == EINTR);
  if (sent < 0 && errno != EAGAIN) return keep_payload(of, std::move(payload));  // its process has ended or is about to
  auto done = static_cast<std::size_t>(std::max<ssize_t>(sent, 0));
  written_bytes += done;
  if (done == size) return written(of, std::move(payload));
  unsent_bytes = size - done;
  if (done < first.size()) {
    unsent.push_back({.bytes = std::move(first)});
  } else {
    done -= first.size();
  }
  if (of != 0) unsent.push_back({.bytes = std::move(payload), .payload_of = of});
  unsent_at = done;
  flush();
}

// Writes of what waits as much as there is room for; as writev().
ssize_t FramedChannel::Impl::write_pieces() {
  std::array<iovec, 8> parts{};
  std::size_t count = 0;
  for (std::size_t at = unsent_at; Piece & piece : unsent) {
    if (count == parts.size()) break;
    parts[count++] = {.iov_base = piece.bytes.data() + at, .iov_len = piece.bytes.size() - at};
    at = 0;
  }
  ssize_t sent = -1;
  do sent = ::writev(out.get(), parts.data(), static_cast<int>(count));
  while (sent < 0 && errno == EINTR);
  return sent;
}

// Waits for room in the pipe and writes the rest.
void FramedChannel::Impl::flush() {
  if (waits_to_write) return;
  if (!out_watch.is_open()) {
    error_code error;
    const int fd = ::fcntl(out.get(), F_DUPFD_CLOEXEC, 0);
    if (fd >= 0) out_watch.assign(fd, error);
    if (fd < 0 || error) {
      base::log_error("an environment's control pipe cannot be watched", {{"what", error.message()}});
      return;
    }
  }
  waits_to_write = true;
  out_watch.async_wait(asio::posix::descriptor_base::wait_write, [self = shared_from_this()](const error_code& error) {
    self->waits_to_write = false;
    if (error || self->phase == Phase::kClosed || !self->out || self->unsent.empty()) return;
    const ssize_t sent = self->write_pieces();
    if (sent < 0 && errno != EAGAIN) return;
    auto done = static_cast<std::size_t>(std::max<ssize_t>(sent, 0));
    self->written_bytes += done;
    self->unsent_bytes -= done;
    done += self->unsent_at;
    while (!self->unsent.empty() && done >= self->unsent.front().bytes.size()) {
      Piece piece = std::move(self->unsent.front());
      self->unsent.pop_front();
      done -= piece.bytes.size();
      self->written(piece.payload_of, std::move(piece.bytes));
    }
    self->unsent_at = done;
    if (!self->unsent.empty()) self->flush();
  });
}

// All of an event is in the pipe; or was: what is larger than the pipe was read in part.
void FramedChannel::Impl::written(RunNumber of, std::string payload) {
  if (payload.size() <= kLargePipeBytes) keep_payload(of, std::move(payload));
}

void FramedChannel::Impl::keep_payload(RunNumber of, std::string payload) {
  Run* run = of == 0 ? nullptr : find(of);
  if (run == nullptr) return;
  run->invocation->payload = std::move(payload);
  run->has_payload = true;
}

// Whether no byte of its INVOKE was read, nor will be.
bool FramedChannel::Impl::nobody_read(const Run& run) const {
  if (run.sent_from >= written_bytes) return true;
  pollfd end{.fd = out.get(), .events = 0, .revents = 0};
  int unread = 0;
  if (!out || ::poll(&end, 1, 0) != 1 || (end.revents & POLLERR) == 0 || ::ioctl(out.get(), FIONREAD, &unread) != 0) return false;
  return written_bytes - static_cast<std::uint64_t>(unread) <= run.sent_from;
}

void FramedChannel::Impl::close() {
  phase = Phase::kClosed;
  error_code ignored;
  in.close(ignored);
  out_watch.close(ignored);
  out.reset();
}

// ---- the face

FramedChannel::FramedChannel(const net::Executor& executor, base::UniqueFd in, base::UniqueFd out, FramedEvents& events,
                             const base::Clock& clock, RuntimeApiLimits limits)
    : impl_(
          std::make_shared<Impl>(static_cast<asio::io_context&>(asio::query(executor, asio::execution::context)), events, clock, limits)) {
  error_code error;
  impl_->in.assign(in.get(), error);
  if (error) {
    base::log_error("an environment's control pipe cannot be watched; its runtime is not heard", {{"what", error.message()}});
    return;
  }
  (void)in.release();
  impl_->in.non_blocking(true, error);
  impl_->out = std::move(out);
  impl_->read();
}

FramedChannel::~FramedChannel() { abandon(); }

void FramedChannel::initialise(FramedInit init) {
  init.response_bytes = impl_->limits.response_bytes;
  init.stream_bytes = impl_->limits.stream_bytes;
  init.stream_window_bytes = kWindowBytes;
  impl_->initialised = true;
  impl_->send(encode_init(init));
}

bool FramedChannel::ready() const { return impl_->phase == Phase::kServing; }

void FramedChannel::hand_over(RunNumber run, InvocationPtr invocation, base::Deadline run_deadline) {
  Impl& impl = *impl_;
  if (impl.phase == Phase::kLeaving) {  // it would not take it
    Impl::Run& made = impl.runs.emplace_back();
    made.number = run;
    made.invocation = std::move(invocation);
    made.has_payload = made.untaken = true;
    return;
  }
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(run_deadline - impl.clock.now()).count();
  std::string payload = std::move(invocation->payload);
  std::string frame;
  encode_invoke(frame, run,
                {.deadline_ms = base::epoch_ms(impl.clock.wall_now()) + left,
                 .request_id = invocation->request_id,
                 .function_arn = invocation->invoked_arn,
                 .trace_id = invocation->trace_id,
                 .client_context = invocation->client_context,
                 .cognito_identity = {}},
                payload.size());
  Impl::Run& made = impl.runs.emplace_back();
  made.number = run;
  made.invocation = std::move(invocation);
  made.sent_from = impl.written_bytes + impl.unsent_bytes;
  impl.send(std::move(frame), std::move(payload), run);
}

bool FramedChannel::take_back(RunNumber number) {
  Impl& impl = *impl_;
  Impl::Run* run = impl.find(number);
  if (run == nullptr || run->state != Impl::Run::State::kInvoking || run->given_up) return false;
  if (!run->untaken && !impl.nobody_read(*run)) return false;
  for (Impl::Piece& piece : impl.unsent) {
    if (piece.payload_of != number) continue;
    run->invocation->payload = std::move(piece.bytes);
    run->has_payload = true;
  }
  if (!run->has_payload) return false;
  std::erase_if(impl.runs, [number](const Impl::Run& each) { return each.number == number; });
  impl.phase = Phase::kClosed;  // nothing of it must be written any more
  return true;
}

void FramedChannel::give_up(RunNumber number) {
  Impl::Run* run = impl_->find(number);
  if (run == nullptr) return;
  run->given_up = run->passes = true;  // what is still streamed goes nowhere
  run->listening = false;
  const auto waiting = static_cast<std::uint32_t>(run->pending.size());
  run->pending.clear();
  impl_->give_credit(*run, waiting);
}

void FramedChannel::abandon() {
  if (impl_->abandoned()) return;
  impl_->events = nullptr;
  impl_->close();
}

}  // namespace mayfly::runtime
