#include "net/http_client.h"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <cstring>
#include <memory>
#include <span>

#include "base/fd.h"
#include "base/json.h"
#include "net/internal/client_codec.h"

namespace mayfly::net {

namespace asio = boost::asio;
using asio::ip::tcp;
using base::Error;
using base::ErrorCode;
using base::Result;
using boost::system::error_code;
using internal::ClientTarget;
using internal::ResponseReader;

namespace {

constexpr std::size_t kPieceBytes = 64U << 10U;

Error too_late(const ClientTarget& target) { return {ErrorCode::kDeadlineExceeded, target.address() + " did not answer in time"}; }

Error unreachable(const ClientTarget& target, std::string_view why) {
  return {ErrorCode::kUnavailable, "cannot connect to " + target.address() + ": " + std::string(why) + "; is the server running there?"};
}

// ---- Blocking form

// False when `deadline` passes first.
bool wait_for(int fd, short events, base::Deadline deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - base::system_clock().now());
    if (left.count() <= 0) return false;
    pollfd wait{fd, events, 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(std::min<std::int64_t>(left.count(), 1 << 30)));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

Result<base::UniqueFd> connect_one(const addrinfo& candidate, const ClientTarget& target, base::Deadline deadline) {
  base::UniqueFd fd(::socket(candidate.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return base::errno_error("cannot make a socket", errno);
  if (::connect(fd.get(), candidate.ai_addr, candidate.ai_addrlen) == 0) return fd;
  if (errno != EINPROGRESS) return unreachable(target, std::strerror(errno));
  if (!wait_for(fd.get(), POLLOUT, deadline)) return too_late(target);
  int problem = 0;
  socklen_t size = sizeof problem;
  (void)::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &problem, &size);
  if (problem != 0) return unreachable(target, std::strerror(problem));
  return fd;
}

Result<base::UniqueFd> blocking_connect(const ClientTarget& target, base::Deadline deadline) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int problem = ::getaddrinfo(target.host.c_str(), target.port.c_str(), &hints, &found); problem != 0) {
    return Error(ErrorCode::kUnavailable, "cannot find the host \"" + target.host + "\": " + ::gai_strerror(problem));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owned(found, &::freeaddrinfo);
  Result<base::UniqueFd> last = unreachable(target, "the name has no address");
  for (const addrinfo* candidate = found; candidate != nullptr; candidate = candidate->ai_next) {
    last = connect_one(*candidate, target, deadline);
    if (last.ok()) break;
  }
  return last;
}

// Sends until done or until the peer answers or breaks off early: what it has to say is read either way.
Result<void> blocking_send(int fd, std::string_view bytes, const ClientTarget& target, base::Deadline deadline,
                           const std::function<void(std::size_t)>& sent_bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd, bytes.data(), std::min(bytes.size(), kPieceBytes), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno != EAGAIN) return {};
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
      if (sent_bytes) sent_bytes(static_cast<std::size_t>(sent));
      continue;
    }
    if (!wait_for(fd, POLLIN | POLLOUT, deadline)) return too_late(target);
    pollfd readable{fd, POLLIN, 0};
    if (::poll(&readable, 1, 0) > 0 && (readable.revents & POLLOUT) == 0) return {};
  }
  return {};
}

Result<Response> blocking_receive(int fd, const ClientRequest& request, const ClientTarget& target, base::Deadline deadline) {
  ResponseReader reader(request);
  const auto bytes = std::make_unique_for_overwrite<char[]>(kPieceBytes);
  while (true) {
    if (!wait_for(fd, POLLIN, deadline)) return too_late(target);
    const ssize_t got = ::recv(fd, bytes.get(), kPieceBytes, 0);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0 && !reader.started()) return unreachable(target, std::strerror(errno));
    if (got <= 0) {
      MAYFLY_TRY(reader.end());
      return reader.take();
    }
    MAYFLY_ASSIGN(const bool complete, reader.feed({bytes.get(), static_cast<std::size_t>(got)}));
    if (complete) return reader.take();
  }
}

// Counts what has gone out of the body, without the head.
std::function<void(std::size_t)> upload_counter(const ClientRequest& request, std::size_t head_bytes) {
  if (!request.on_upload) return nullptr;
  return [&request, head_bytes, sent = std::size_t{0}](std::size_t bytes) mutable {
    sent += bytes;
    if (sent > head_bytes) request.on_upload(sent - head_bytes, request.body.size());
  };
}

// ---- Coroutine form

// One connection whose every wait ends when the deadline closes it.
class TimedConnection : public std::enable_shared_from_this<TimedConnection> {
 public:
  explicit TimedConnection(const Executor& executor) : socket(executor), resolver(executor), timer_(executor) {}

  void start(base::Deadline deadline) {
    timer_.expires_at(deadline);
    timer_.async_wait([weak = weak_from_this()](error_code error) {
      const auto self = weak.lock();
      if (error || !self) return;
      self->expired = true;
      self->resolver.cancel();
      error_code ignored;
      self->socket.close(ignored);
    });
  }

  tcp::socket socket;
  tcp::resolver resolver;
  bool expired = false;

 private:
  asio::steady_timer timer_;
};

// A lent socket, given back as it came: whatever it was connected to is cut off. Keeps a descriptor of its own, since a cancelled request
// may end after the lender.
class LentSocket {
 public:
  explicit LentSocket(int socket) : socket_(socket < 0 ? -1 : ::fcntl(socket, F_DUPFD_CLOEXEC, 0)) {}
  ~LentSocket() { disconnect(); }
  LentSocket(const LentSocket&) = delete;
  LentSocket& operator=(const LentSocket&) = delete;
  // Makes the next connect use it.
  void give_to(tcp::socket& taker, error_code& error) const {
    disconnect();
    const int copy = ::fcntl(socket_.get(), F_DUPFD_CLOEXEC, 0);
    if (copy < 0) return error.assign(errno, boost::system::system_category());
    taker.assign(tcp::v4(), copy, error);
    if (error) ::close(copy);
  }

 private:
  void disconnect() const {
    const sockaddr nowhere{.sa_family = AF_UNSPEC, .sa_data = {}};
    if (socket_) (void)::connect(socket_.get(), &nowhere, sizeof nowhere);
  }
  base::UniqueFd socket_;
};

Awaitable<Result<void>> async_connect(TimedConnection& connection, const ClientRequest& request, const LentSocket& lent,
                                      const ClientTarget& target) {
  error_code error;
  std::vector<tcp::endpoint> endpoints;
  const auto port = static_cast<std::uint16_t>(internal::parse_length(target.port).value_or(0));
  for (const std::string& address : request.addresses) {
    const auto known = asio::ip::make_address_v4(address, error);
    if (error) co_return Error(ErrorCode::kInvalidArgument, base::json_quote(address) + " is not an IPv4 address");
    endpoints.emplace_back(known, port);
  }
  const auto literal = asio::ip::make_address(target.host, error);
  if (!endpoints.empty()) {
    error.clear();
  } else if (!error) {
    endpoints.emplace_back(literal, port);
  } else {
    const auto found =
        co_await connection.resolver.async_resolve(target.host, target.port, asio::redirect_error(asio::use_awaitable, error));
    if (connection.expired) co_return too_late(target);
    if (error) co_return Error(ErrorCode::kUnavailable, "cannot find the host \"" + target.host + "\": " + error.message());
    for (const auto& entry : found) endpoints.push_back(entry.endpoint());
  }
  for (const tcp::endpoint& endpoint : endpoints) {
    error_code ignored;
    connection.socket.close(ignored);
    error.clear();
    if (request.socket >= 0) lent.give_to(connection.socket, error);
    if (error) continue;
    co_await connection.socket.async_connect(endpoint, asio::redirect_error(asio::use_awaitable, error));
    if (connection.expired) co_return too_late(target);
    if (!error) co_return Result<void>{};
  }
  co_return unreachable(target, error ? error.message() : "the name has no address");
}

Awaitable<Result<Response>> async_receive(TimedConnection& connection, const ClientRequest& request, const ClientTarget& target) {
  ResponseReader reader(request);
  const auto bytes = std::make_unique_for_overwrite<char[]>(kPieceBytes);
  while (true) {
    error_code error;
    const std::size_t got = co_await connection.socket.async_read_some(asio::buffer(bytes.get(), kPieceBytes),
                                                                       asio::redirect_error(asio::use_awaitable, error));
    if (connection.expired) co_return too_late(target);
    if (error == asio::error::operation_aborted)
      co_return Error(ErrorCode::kCancelled, "the request to " + target.address() + " was cancelled");
    if (error && error != asio::error::eof && !reader.started()) co_return unreachable(target, error.message());
    if (error) {
      MAYFLY_CO_TRY(reader.end());
      co_return reader.take();
    }
    MAYFLY_CO_ASSIGN(const bool complete, reader.feed({bytes.get(), got}));
    if (complete) co_return reader.take();
  }
}

}  // namespace

Result<Response> blocking_request(const ClientRequest& request) {
  const base::Deadline deadline = base::system_clock().now() + request.timeout;
  MAYFLY_ASSIGN(const ClientTarget target, internal::parse_url(request.url));
  MAYFLY_ASSIGN(const std::string head, internal::request_head(request, target));
  MAYFLY_ASSIGN(const base::UniqueFd fd, blocking_connect(target, deadline));
  const auto counter = upload_counter(request, head.size());
  MAYFLY_TRY(blocking_send(fd.get(), head, target, deadline, counter));
  MAYFLY_TRY(blocking_send(fd.get(), request.body, target, deadline, counter));
  return blocking_receive(fd.get(), request, target, deadline);
}

Awaitable<Result<Response>> async_request(ClientRequest request) {
  MAYFLY_CO_ASSIGN(const ClientTarget target, internal::parse_url(request.url));
  MAYFLY_CO_ASSIGN(const std::string head, internal::request_head(request, target));
  const auto connection = std::make_shared<TimedConnection>(co_await asio::this_coro::executor);
  const LentSocket lent(request.socket);
  connection->start(base::system_clock().now() + request.timeout);
  MAYFLY_CO_TRY(co_await async_connect(*connection, request, lent, target));
  const auto counter = upload_counter(request, head.size());
  for (std::string_view part : {std::string_view(head), std::string_view(request.body)}) {
    while (!part.empty()) {
      error_code error;
      const std::size_t sent = co_await connection->socket.async_write_some(asio::buffer(part.substr(0, kPieceBytes)),
                                                                            asio::redirect_error(asio::use_awaitable, error));
      if (connection->expired) co_return too_late(target);
      if (error) break;  // the peer may have answered early: what it has to say is read below
      part.remove_prefix(sent);
      if (counter) counter(sent);
    }
  }
  co_return co_await async_receive(*connection, request, target);
}

}  // namespace mayfly::net
