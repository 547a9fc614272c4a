#include "net/client_connection.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "net/internal/client_codec.h"

namespace mayfly::net {

namespace asio = boost::asio;
using asio::ip::tcp;
using base::Error;
using base::ErrorCode;
using base::Result;
using boost::system::error_code;
using internal::ResponseReader;

namespace {

constexpr std::size_t kPieceBytes = 64U << 10U;

// Whatever `fd` is connected to or listens for is cut off; it can then be used anew.
void disconnect(int fd) {
  const sockaddr nowhere{.sa_family = AF_UNSPEC, .sa_data = {}};
  (void)::connect(fd, &nowhere, sizeof nowhere);
}

}  // namespace

struct ClientConnection::Impl final : std::enable_shared_from_this<ClientConnection::Impl> {
  explicit Impl(const Executor& executor) : socket(executor) {}

  void write_rest();
  [[nodiscard]] Awaitable<Result<void>> receive();  // feeds the reader once

  tcp::socket socket;
  std::shared_ptr<const ClientRequest> request;
  ClientRequest terms;  // what the reader goes by
  std::string head;
  std::size_t sent = 0;  // of head and body together
  std::optional<ResponseReader> reader;
  std::string piece;
  bool complete = false, heard = false, peer_closed = false, closed = false;
};

ClientConnection::ClientConnection(const Executor& executor, base::UniqueFd socket) : impl_(std::make_shared<Impl>(executor)) {
  error_code error;
  impl_->socket.assign(tcp::v4(), socket.get(), error);
  if (!error) (void)socket.release();
  impl_->socket.non_blocking(true, error);
}

ClientConnection::~ClientConnection() { close(); }

void ClientConnection::close() {
  impl_->closed = true;
  error_code ignored;
  impl_->socket.close(ignored);
}

Awaitable<Result<void>> ClientConnection::connect(std::string address, std::uint16_t port) {
  const std::shared_ptr<Impl> impl = impl_;
  error_code error;
  const tcp::endpoint endpoint(asio::ip::make_address_v4(address, error), port);
  if (error) co_return Error(ErrorCode::kInvalidArgument, address + " is not an IPv4 address");
  co_await impl->socket.async_connect(endpoint, asio::redirect_error(asio::use_awaitable, error));
  if (impl->closed) co_return Error(ErrorCode::kCancelled, "the connection was closed");
  if (error) {
    // The kernel would answer the next attempt with this failure, without making one.
    disconnect(impl->socket.native_handle());
    co_return Error(ErrorCode::kUnavailable, "cannot connect to port " + std::to_string(port) + ": " + error.message());
  }
  impl->socket.set_option(tcp::no_delay(true), error);
  co_return Result<void>{};
}

// What has not been sent yet, as far as it goes; then again when there is room. An error is left to the reader: the peer may have
// answered all the same.
void ClientConnection::Impl::write_rest() {
  const std::string& body = request->body;
  while (!closed && sent < head.size() + body.size()) {
    std::array<iovec, 2> parts{};
    std::size_t count = 0;
    if (sent < head.size()) parts[count++] = {.iov_base = head.data() + sent, .iov_len = head.size() - sent};
    const std::size_t of_body = sent < head.size() ? 0 : sent - head.size();
    if (of_body < body.size()) parts[count++] = {.iov_base = const_cast<char*>(body.data()) + of_body, .iov_len = body.size() - of_body};
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = count;
    const ssize_t done = ::sendmsg(socket.native_handle(), &message, MSG_NOSIGNAL);
    if (done >= 0) {
      sent += static_cast<std::size_t>(done);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return;
    socket.async_wait(tcp::socket::wait_write, [self = shared_from_this(), of = request](const error_code& error) {
      if (!error && self->request == of) self->write_rest();
    });
    return;
  }
}

Awaitable<Result<void>> ClientConnection::Impl::receive() {
  error_code error;
  co_await socket.async_wait(tcp::socket::wait_read, asio::redirect_error(asio::use_awaitable, error));
  // One for all connections of a loop, used between two suspensions only. Threads without connections get none.
  static thread_local const auto kept = std::make_unique_for_overwrite<std::array<char, kPieceBytes>>();
  std::array<char, kPieceBytes>& buffer = *kept;
  if (closed) co_return Error(ErrorCode::kCancelled, "the connection was closed");
  if (error) co_return Error(ErrorCode::kUnavailable, "cannot wait for an answer: " + error.message());
  ssize_t got = -1;
  do got = ::recv(socket.native_handle(), buffer.data(), buffer.size(), 0);
  while (got < 0 && errno == EINTR);
  if (got < 0 && errno == EAGAIN) co_return Result<void>{};
  if (got <= 0) {
    peer_closed = true;
    MAYFLY_CO_TRY(reader->end());
    complete = true;
    co_return Result<void>{};
  }
  heard = true;
  MAYFLY_CO_ASSIGN(complete, reader->feed({buffer.data(), static_cast<std::size_t>(got)}));
  co_return Result<void>{};
}

Awaitable<Result<Response>> ClientConnection::send(std::shared_ptr<const ClientRequest> request) {
  const std::shared_ptr<Impl> impl = impl_;
  MAYFLY_CO_ASSIGN(const internal::ClientTarget target, internal::parse_url(request->url));
  MAYFLY_CO_ASSIGN(impl->head, internal::request_head(*request, target, internal::AfterAnswer::kKeepOpen));
  impl->request = std::move(request);
  impl->sent = 0;
  impl->piece.clear();
  impl->complete = impl->heard = impl->peer_closed = false;
  impl->terms.method = impl->request->method;
  impl->terms.response_bytes_max = impl->request->response_bytes_max;
  Impl* of = impl.get();
  impl->terms.on_body = [of](std::string_view bytes) { of->piece += bytes; };
  impl->reader.emplace(impl->terms);
  impl->write_rest();
  while (!impl->reader->has_head()) MAYFLY_CO_TRY(co_await impl->receive());
  co_return impl->reader->take();
}

Awaitable<Result<std::string>> ClientConnection::read() {
  const std::shared_ptr<Impl> impl = impl_;
  while (impl->piece.empty() && !impl->complete) MAYFLY_CO_TRY(co_await impl->receive());
  co_return std::exchange(impl->piece, {});
}

bool ClientConnection::heard() const { return impl_->heard; }
bool ClientConnection::peer_closed() const { return impl_->peer_closed; }

bool ClientConnection::reusable() const {
  const bool whole = impl_->complete && impl_->reader && impl_->reader->persistent() && impl_->request &&
                     impl_->sent == impl_->head.size() + impl_->request->body.size();
  if (impl_->closed || impl_->peer_closed || !whole) return false;
  char unasked = 0;
  return ::recv(impl_->socket.native_handle(), &unasked, 1, MSG_PEEK) < 0 && errno == EAGAIN;
}

SocketSource::SocketSource(base::UniqueFd listener, base::UniqueFd dialler)
    : listener_(std::move(listener)), dialler_(std::move(dialler)) {}

Result<base::UniqueFd> SocketSource::make() {
  constexpr int kBacklog = 4;
  if (!dialling_) {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    // Without bind() the port is one that nobody has, and it is free again afterwards.
    if (::listen(listener_.get(), kBacklog) != 0 || ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
      return base::errno_error("listen for a socket", errno);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(dialler_.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 && errno != EINPROGRESS) {
      const Error error = base::errno_error("connect to make a socket", errno);
      disconnect(listener_.get());
      return error;
    }
    dialling_ = true;
  }
  base::UniqueFd made(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!made && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
    return Error(ErrorCode::kUnavailable, "the kernel has not made the connection yet");
  const int problem = errno;
  dialling_ = false;
  if (made) disconnect(made.get());
  disconnect(dialler_.get());
  disconnect(listener_.get());
  if (!made) return base::errno_error("accept a socket", problem);
  return made;
}

}  // namespace mayfly::net
