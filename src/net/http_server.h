// HTTP/1.1 server: connections, framing guard, limits, streaming both ways, trailers. Knows bytes and requests only.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/fd.h"
#include "base/time.h"
#include "net/http.h"
#include "net/task.h"

namespace mayfly::net {

struct ServerLimits {
  std::size_t header_bytes_max = 64U << 10U;  // request line and fields together (AWS presigned URLs and tokens fit)
  std::size_t header_fields_max = 100;
  std::size_t target_bytes_max = 16U << 10U;
  base::Duration header_timeout = std::chrono::seconds(10);  // from the first byte to the end of the head
  base::Duration idle_timeout = std::chrono::seconds(75);    // between requests
  base::Duration write_timeout = std::chrono::seconds(30);   // one write without progress
  std::uint64_t body_rate_min = 1024;                        // bytes per second on average while the server waits for a body; 0: no check
  base::Duration body_grace = std::chrono::seconds(10);      // waiting allowed before the rate counts
  // Beyond it the connection that has waited longest for a whole request ends; where all are being served the new one is answered 503.
  std::size_t connections_max = 10'000;
};

// One request and its answer, handed to the Handler. Lives on the server's loop until the handler returns. If it returns
// without answering, the peer gets 500; with a streamed answer unfinished, the connection is reset. What the handler leaves of
// the request body is read and dropped up to 64 KiB, beyond that the connection closes.
// Reads and writes are not cancellable by themselves: they end with their limits in ServerLimits or with the connection. At
// most one read and one write may be pending.
class Exchange {
 public:
  virtual ~Exchange() = default;

  [[nodiscard]] virtual const RequestHead& head() const = 0;
  // "127.0.0.1" of the peer.
  [[nodiscard]] virtual const std::string& peer_address() const = 0;
  // Content-Length if the request has one.
  [[nodiscard]] virtual std::optional<std::uint64_t> content_length() const = 0;

  // The next bytes of the body (never empty), or an empty string at its end. Sends "100 Continue" when the peer waits for it.
  // kInvalidArgument for broken framing, kCancelled when the peer went away, kDeadlineExceeded when it is too slow.
  [[nodiscard]] virtual Awaitable<base::Result<std::string>> read_some() = 0;
  // The rest of the body; kTooLarge as soon as more than `limit` bytes are known to come (before reading when the length is stated).
  [[nodiscard]] virtual Awaitable<base::Result<std::string>> read_all(std::uint64_t limit) = 0;
  // Trailer fields; complete once the body has ended.
  [[nodiscard]] virtual const Headers& trailers() const = 0;

  // Sends a whole answer. kInvalidArgument, with nothing sent, for a status outside 200-599 or a field that would break the
  // header (another answer may follow); kConflict when answered already; kCancelled when the peer went away. A Connection
  // field of "close" closes the connection afterwards. For HEAD the body is not sent, its length is (or Content-Length if set).
  [[nodiscard]] virtual Awaitable<base::Result<void>> respond(Response response) = 0;
  // Starts an answer whose length is not known: chunked (close-delimited for HTTP/1.0). Fields are sent now.
  [[nodiscard]] virtual Awaitable<base::Result<void>> begin(int status, Headers headers) = 0;
  // The same for an answer of `length` bytes, which is stated; writing more is kInvalidArgument, finishing with less breaks the
  // connection off. Exchanges without a connection (tests) need not tell the difference.
  [[nodiscard]] virtual Awaitable<base::Result<void>> begin_sized(int status, Headers headers, std::uint64_t length) {
    (void)length;
    return begin(status, std::move(headers));
  }
  // Sends a piece; returns when the socket has taken it, which is the backpressure. kCancelled when the peer went away.
  [[nodiscard]] virtual Awaitable<base::Result<void>> write(std::string_view bytes) = 0;
  // Ends the streamed answer. `trailers` go to HTTP/1.1 peers only; kInvalidArgument for those that may not be trailers.
  [[nodiscard]] virtual Awaitable<base::Result<void>> finish(Headers trailers) = 0;
  // Breaks the connection off so that the peer sees an incomplete answer.
  virtual void abort() = 0;

  [[nodiscard]] virtual bool answered() const = 0;
  // Resumes when the peer closes or resets the connection (true), or with the end of this exchange (false). For long waits
  // (long polls, invocations), run beside the work; cancellable. A half-close counts as gone. Watches from the end of the
  // request body on, and until 16 KiB of pipelined requests have piled up.
  [[nodiscard]] virtual Awaitable<bool> peer_gone() = 0;
  // Calls `call` at most once when the peer closes or resets the connection, perhaps at once, until this exchange ends. It replaces
  // the one before, and costs less than peer_gone(), which watches in the same way. `call` may resume nobody inside itself.
  virtual void when_peer_gone(std::function<void()> call) = 0;
};

using Handler = std::function<Awaitable<void>(Exchange&)>;

// Accepts on one listening socket and serves each connection as a task of its own. Used and destroyed on the loop's thread, or
// destroyed after the loop has stopped, but before the loop.
class HttpServer {
 public:
  // Takes the listening socket (non-blocking). `handler` is called for each request, one at a time per connection.
  HttpServer(Executor executor, base::UniqueFd listener, ServerLimits limits, Handler handler);
  // Closes everything at once. No handler runs afterwards.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  void start();
  // Stops accepting, closes idle connections, lets running exchanges finish (answers carry "Connection: close"), at most
  // until `deadline`; then closes what is left. True when all finished.
  [[nodiscard]] Awaitable<bool> drain(base::Deadline deadline);
  [[nodiscard]] std::size_t connections() const;
  // The port the socket is bound to.
  [[nodiscard]] std::uint16_t port() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// A listening TCP socket on "host:port" (IPv4, "[::1]:9000", or a name that resolves to a local address); port 0 picks one.
// kAlreadyExists when the address is in use, naming it.
[[nodiscard]] base::Result<base::UniqueFd> listen_tcp(const std::string& address);

}  // namespace mayfly::net
