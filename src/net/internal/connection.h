// One accepted connection: reads heads through the guard, hands exchanges to the handler one at a time, writes answers.
// Everything runs on the server's loop. Reads and write waits are plain callbacks that resume the connection's coroutine;
// deadlines are two time points that the server's sweep looks at, so that a request costs no timer.
#pragma once

#include <sys/uio.h>

#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "base/fd.h"
#include "net/http_server.h"
#include "net/internal/http_parse.h"

namespace mayfly::net::internal {

class Connection;

// What connections and their server share. Owned by both; `closed` is set when the server is gone.
struct ServerCore {
  ServerLimits limits;
  Handler handler;
  // Every connection is in one of these. `waiting`: those whose next request has not arrived whole, the longest wait first; under
  // pressure they make room. `serving`: all others.
  std::list<Connection*> waiting, serving;
  [[nodiscard]] std::size_t connections() const { return waiting.size() + serving.size(); }
  std::function<void()> on_connection_end;
  bool draining = false;
  bool closed = false;

  // "Date: ...\r\n", made anew once a second.
  [[nodiscard]] std::string_view date_line();

 private:
  std::int64_t date_second_ = -1;
  std::string date_line_;
};

// Bytes received and not yet used. No memory until the first read, none kept beyond kIdleBytes when empty.
class InputBuffer {
 public:
  static constexpr std::size_t kIdleBytes = 4U << 10U;
  [[nodiscard]] std::string_view view() const { return {data_.get() + begin_, end_ - begin_}; }
  [[nodiscard]] std::size_t size() const { return end_ - begin_; }
  [[nodiscard]] bool empty() const { return begin_ == end_; }
  void consume(std::size_t bytes);
  // Room for at least one more byte: moves to the front, or doubles.
  [[nodiscard]] std::span<char> prepare();
  void commit(std::size_t bytes) { end_ += bytes; }
  void shrink();

 private:
  std::unique_ptr<char[]> data_;
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

class Connection final : public Exchange, public std::enable_shared_from_this<Connection> {
 public:
  Connection(std::shared_ptr<ServerCore> core, boost::asio::io_context& context, base::UniqueFd fd, int family, std::string peer);
  ~Connection() override;

  // Serves until the connection ends. The caller keeps the connection alive.
  [[nodiscard]] Awaitable<void> run();
  // Ends waits whose deadline has passed; returns the next deadline.
  base::Deadline sweep(base::TimePoint now);
  // Ends the connection if no request has begun.
  void close_if_idle();
  // Ends a connection of `waiting` to make room for another.
  void give_way();
  // Closes at once; what is suspended in a read or write is destroyed.
  void close_now();

  [[nodiscard]] const RequestHead& head() const override { return head_; }
  [[nodiscard]] const std::string& peer_address() const override { return peer_; }
  [[nodiscard]] std::optional<std::uint64_t> content_length() const override { return framing_.content_length; }
  [[nodiscard]] Awaitable<base::Result<std::string>> read_some() override;
  [[nodiscard]] Awaitable<base::Result<std::string>> read_all(std::uint64_t limit) override;
  [[nodiscard]] const Headers& trailers() const override { return trailers_; }
  [[nodiscard]] Awaitable<base::Result<void>> respond(Response response) override;
  [[nodiscard]] Awaitable<base::Result<void>> begin(int status, Headers headers) override;
  [[nodiscard]] Awaitable<base::Result<void>> begin_sized(int status, Headers headers, std::uint64_t length) override;
  [[nodiscard]] Awaitable<base::Result<void>> write(std::string_view bytes) override;
  [[nodiscard]] Awaitable<base::Result<void>> finish(Headers trailers) override;
  void abort() override;
  [[nodiscard]] bool answered() const override { return answer_ == Answer::kDone || answer_ == Answer::kBroken; }
  [[nodiscard]] Awaitable<bool> peer_gone() override;
  void when_peer_gone(std::function<void()> call) override;

 private:
  using Resume = std::move_only_function<void()>;
  using Socket = boost::asio::basic_stream_socket<boost::asio::generic::stream_protocol, boost::asio::io_context::executor_type>;
  enum class Answer { kNone, kStreaming, kDone, kBroken };
  enum class ReadEnd { kOpen, kEof, kFailed };
  // The state of peer_gone() in one exchange, shared with its waiters.
  struct Watch {
    explicit Watch(Executor executor) : event(std::move(executor)) {}
    Event event;
    bool gone = false;
  };

  // Reading
  [[nodiscard]] static Awaitable<void> suspend(Resume& slot);
  void resume(Resume& slot);
  void start_read();
  void start_direct_read();
  void on_read(boost::system::error_code error, std::size_t bytes, bool direct);
  // Resumes with more bytes in input_, or read_end_ / read_expired_ changed. Gives up at `deadline`. Only while neither has.
  [[nodiscard]] Awaitable<void> fill(base::Deadline deadline);
  [[nodiscard]] Awaitable<bool> read_head();
  void move_to(std::list<Connection*>& list) { list.splice(list.end(), *std::exchange(list_, &list), place_); }
  [[nodiscard]] Refusal take_head(std::size_t size);
  [[nodiscard]] base::Result<void> read_problem() const;
  [[nodiscard]] base::Deadline body_deadline(base::TimePoint now) const;
  [[nodiscard]] Awaitable<base::Result<void>> wait_for_body(bool direct);
  [[nodiscard]] base::Result<std::string> take_buffered();
  [[nodiscard]] Awaitable<base::Result<std::string>> read_known_length(std::uint64_t size);
  [[nodiscard]] Awaitable<base::Result<void>> send_continue();
  void count_body(std::uint64_t bytes);
  void end_body();
  [[nodiscard]] bool watching() const { return watch_ != nullptr || when_gone_; }
  void watch();
  void report_peer_gone();

  // Answering
  [[nodiscard]] base::Result<void> put_head(int status, const Headers& headers);
  void put_length(int status, const Headers& headers, std::size_t body_size);
  void put_connection(bool asked_to_close);
  [[nodiscard]] bool body_allowed(int status) const { return head_.method != "HEAD" && status != 204 && status != 304; }
  [[nodiscard]] base::Result<void> send_now(std::span<iovec>& rest);
  [[nodiscard]] Awaitable<base::Result<void>> send(std::string_view first, std::string_view second = {}, std::string_view third = {});
  [[nodiscard]] Awaitable<void> refuse(Refusal refusal);
  [[nodiscard]] bool may_keep_alive() const;

  // Between exchanges
  void start_exchange();
  [[nodiscard]] Awaitable<void> call_handler();
  [[nodiscard]] Awaitable<bool> finish_exchange();
  [[nodiscard]] Awaitable<void> linger();
  [[nodiscard]] bool peer_may_be_sending() const;

  const std::shared_ptr<ServerCore> core_;
  std::list<Connection*>* list_;
  std::list<Connection*>::iterator place_;
  Socket socket_;
  std::string peer_;

  InputBuffer input_;
  std::string direct_;  // body bytes read straight into the caller's string
  std::size_t direct_filled_ = 0;
  Resume reader_;
  Resume writer_;
  bool reading_ = false;
  bool idle_ = false;     // waiting for the first byte of a request
  bool closing_ = false;  // told to end before its next request
  bool read_expired_ = false;
  bool write_expired_ = false;
  ReadEnd read_end_ = ReadEnd::kOpen;
  base::Deadline read_deadline_ = base::kNoDeadline;
  base::Deadline write_deadline_ = base::kNoDeadline;

  HeadScanner scanner_;
  RequestHead head_;
  Framing framing_;
  Headers trailers_;
  std::unique_ptr<ChunkDecoder> decoder_;
  std::uint64_t remaining_ = 0;
  std::uint64_t body_received_ = 0;
  base::Duration body_waited_{0};
  bool body_done_ = true;
  bool body_broken_ = false;
  bool continue_pending_ = false;
  bool close_after_ = false;
  bool chunked_answer_ = false;
  std::optional<std::uint64_t> sized_left_;  // of a streamed answer whose length was stated
  bool answer_has_body_ = true;
  Answer answer_ = Answer::kNone;
  std::string output_;
  std::shared_ptr<Watch> watch_;
  std::function<void()> when_gone_;
};

}  // namespace mayfly::net::internal
