// A connection that its owner keeps and uses for one HTTP/1.1 request after the other, over a socket it was handed; and sockets of a
// network namespace that this process cannot enter.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/fd.h"
#include "net/http_client.h"
#include "net/task.h"

namespace mayfly::net {

// One loop's thread, one request at a time. No deadlines of its own: close() ends every wait.
class ClientConnection {
 public:
  // `socket`: an unconnected, non-blocking IPv4 TCP socket. It connects within the network namespace it was made in.
  ClientConnection(const Executor& executor, base::UniqueFd socket);
  // Closes.
  ~ClientConnection();
  ClientConnection(const ClientConnection&) = delete;
  ClientConnection& operator=(const ClientConnection&) = delete;

  // kUnavailable when nothing listens there: may be tried again. kCancelled after close().
  [[nodiscard]] Awaitable<base::Result<void>> connect(std::string address, std::uint16_t port);
  // Sends `request` and reads the head of its answer; the body is left to read(). Of the URL only host, port and path are used, and of
  // the request neither `timeout`, `addresses`, `socket` nor the callbacks. The answer may come before the request is sent whole.
  // Errors as in async_request(); heard() and peer_closed() tell more.
  [[nodiscard]] Awaitable<base::Result<Response>> send(std::shared_ptr<const ClientRequest> request);
  // The next piece of the body, at most 64 KiB; empty at its end. kTooLarge beyond the request's response_bytes_max.
  [[nodiscard]] Awaitable<base::Result<std::string>> read();

  // Whether any byte of an answer to the last request came, and whether the peer ended the connection.
  [[nodiscard]] bool heard() const;
  [[nodiscard]] bool peer_closed() const;
  // Whether the answer was read whole and the peer lets another request follow. Looks at the socket: a peer that has closed it
  // meanwhile, or said something unasked, is noticed.
  [[nodiscard]] bool reusable() const;
  void close();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

// Makes TCP sockets of one network namespace out of two that were made inside it: one listens for a moment, the other connects to it,
// and what is accepted, a socket of the same namespace, is cut off again. Whoever else inside connects in that moment is accepted and
// cut off as well, to the same effect. One thread.
class SocketSource {
 public:
  // Both unconnected, non-blocking IPv4 TCP sockets.
  SocketSource(base::UniqueFd listener, base::UniqueFd dialler);
  // An unconnected, non-blocking TCP socket. kUnavailable: not at once; ask again in a moment.
  [[nodiscard]] base::Result<base::UniqueFd> make();

 private:
  base::UniqueFd listener_, dialler_;
  bool dialling_ = false;
};

}  // namespace mayfly::net
