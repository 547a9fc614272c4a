#include "net/http_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <charconv>
#include <cstring>

#include "base/log.h"
#include "net/internal/connection.h"

namespace mayfly::net {

namespace asio = boost::asio;
using base::Error;
using base::ErrorCode;
using boost::system::error_code;
using internal::Connection;
using internal::ServerCore;

namespace {

constexpr int kAcceptBatch = 64;
constexpr int kBacklog = 1024;

std::string address_text(const sockaddr_storage& address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (address.ss_family == AF_INET) {
    ::inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, text.data(), text.size());
  } else if (address.ss_family == AF_INET6) {
    ::inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr, text.data(), text.size());
  } else {
    return "unix";
  }
  return text.data();
}

// Answers and closes a connection that cannot be served, without waiting for anything.
void turn_away(base::UniqueFd fd) {
  constexpr std::string_view kAnswer =
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n"
      "Content-Length: 45\r\n\r\n{\"message\":\"too many connections, try again\"}";
  std::array<char, 4096> scrap;
  (void)::recv(fd.get(), scrap.data(), scrap.size(), MSG_DONTWAIT);  // unread bytes would turn the close into a reset
  (void)::send(fd.get(), kAnswer.data(), kAnswer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  (void)::shutdown(fd.get(), SHUT_WR);
  (void)::recv(fd.get(), scrap.data(), scrap.size(), MSG_DONTWAIT);
}

void prepare_socket(int fd, int family) {
  const int one = 1;
  if (family == AF_UNIX) return;
  (void)::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  (void)::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
}

Awaitable<void> serve(std::shared_ptr<Connection> connection) { co_await connection->run(); }

base::Duration sweep_interval(const ServerLimits& limits) {
  const base::Duration shortest = std::min({limits.header_timeout, limits.idle_timeout, limits.write_timeout, limits.body_grace});
  return std::clamp<base::Duration>(shortest / 8, std::chrono::milliseconds(5), std::chrono::milliseconds(500));
}

}  // namespace

struct HttpServer::Impl : std::enable_shared_from_this<HttpServer::Impl> {
  Impl(const Executor& executor, base::UniqueFd listening, const ServerLimits& limits, Handler handler)
      : context(static_cast<asio::io_context&>(asio::query(executor, asio::execution::context))),
        core(std::make_shared<ServerCore>()),
        listener(context.get_executor()),
        sweeper(context.get_executor()),
        interval(sweep_interval(limits)),
        reserve(::open("/dev/null", O_RDONLY | O_CLOEXEC)),
        all_ended(executor),
        scope(std::make_unique<TaskScope>(executor)) {
    core->limits = limits;
    core->handler = std::move(handler);
    error_code error;
    listener.assign(listening.get(), error);
    if (error) {
      base::log_error("the listening socket cannot be watched; no connection will be accepted", {{"what", error.message()}});
    } else {
      (void)listening.release();
    }
  }

  Awaitable<void> accept_loop();
  // Accepts what is waiting. False when the process is out of descriptors or memory: pause before the next try.
  bool accept_some();
  void admit(base::UniqueFd fd, const sockaddr_storage& address);
  // Ends the connection that has waited longest for its next request. False when all of them are being served.
  bool make_room();
  bool shed();
  void schedule_sweep();
  void sweep();
  void close_all();

  asio::io_context& context;
  std::shared_ptr<ServerCore> core;
  asio::posix::basic_stream_descriptor<asio::io_context::executor_type> listener;
  asio::basic_waitable_timer<base::TimePoint::clock, asio::wait_traits<base::TimePoint::clock>, asio::io_context::executor_type> sweeper;
  base::Duration interval;
  bool sweeping = false;
  base::UniqueFd reserve;  // given up for a moment to accept and turn away when no descriptor is left
  base::TimePoint last_shed_report{};
  Event all_ended;
  std::unique_ptr<TaskScope> scope;
};

HttpServer::HttpServer(Executor executor, base::UniqueFd listener, ServerLimits limits, Handler handler)
    : impl_(std::make_shared<Impl>(executor, std::move(listener), limits, std::move(handler))) {
  impl_->core->on_connection_end = [impl = impl_.get()] {
    if (impl->core->connections() == 0) impl->all_ended.set();
  };
}

HttpServer::~HttpServer() { impl_->close_all(); }

void HttpServer::start() { impl_->scope->spawn(impl_->accept_loop()); }

std::size_t HttpServer::connections() const { return impl_->core->connections(); }

std::uint16_t HttpServer::port() const {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  auto& listener = impl_->listener;
  if (!listener.is_open() || ::getsockname(listener.native_handle(), reinterpret_cast<sockaddr*>(&address), &size) != 0) return 0;
  if (address.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  if (address.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  return 0;
}

Awaitable<bool> HttpServer::drain(base::Deadline deadline) {
  const auto impl = impl_;
  impl->core->draining = true;
  error_code ignored;
  impl->listener.close(ignored);
  for (Connection* connection : impl->core->waiting) connection->close_if_idle();
  while (impl->core->connections() > 0) {
    impl->all_ended.reset();
    if (!co_await impl->all_ended.wait(deadline)) {
      impl->close_all();
      co_return false;
    }
  }
  co_return true;
}

void HttpServer::Impl::close_all() {
  core->closed = true;
  error_code ignored;
  listener.close(ignored);
  sweeper.cancel();
  scope.reset();                                 // from here on no handler runs
  std::vector<std::shared_ptr<Connection>> all;  // closing one may end others
  for (const auto* list : {&core->waiting, &core->serving}) {
    for (Connection* connection : *list) {
      if (auto kept = connection->weak_from_this().lock()) all.push_back(std::move(kept));
    }
  }
  for (const auto& connection : all) connection->close_now();
}

Awaitable<void> HttpServer::Impl::accept_loop() {
  const auto self = shared_from_this();
  while (!core->draining) {
    error_code error;
    co_await listener.async_wait(asio::posix::descriptor_base::wait_read, asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return;
    if (!accept_some()) co_await sleep_until(base::system_clock().now() + std::chrono::milliseconds(20));
  }
}

bool HttpServer::Impl::accept_some() {
  for (int i = 0; i < kAcceptBatch; ++i) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    base::UniqueFd fd(::accept4(listener.native_handle(), reinterpret_cast<sockaddr*>(&address), &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd.valid()) {
      admit(std::move(fd), address);
      continue;
    }
    switch (errno) {
      case EAGAIN:
        return true;
      case EMFILE:
      case ENFILE:
      case ENOBUFS:
      case ENOMEM:
        if (!shed()) return false;
        break;
      default:
        break;  // EINTR, ECONNABORTED and the network errors accept(2) names: the next one may be fine
    }
  }
  return true;
}

void HttpServer::Impl::admit(base::UniqueFd fd, const sockaddr_storage& address) {
  if (core->connections() >= core->limits.connections_max && !make_room()) {
    turn_away(std::move(fd));
    return;
  }
  prepare_socket(fd.get(), address.ss_family);
  scope->spawn(serve(std::make_shared<Connection>(core, context, std::move(fd), address.ss_family, address_text(address))));
  schedule_sweep();
}

bool HttpServer::Impl::make_room() {
  if (core->waiting.empty()) return false;
  core->waiting.front()->give_way();
  return true;
}

bool HttpServer::Impl::shed() {
  const base::TimePoint now = base::system_clock().now();
  if (now - last_shed_report > std::chrono::seconds(1)) {
    last_shed_report = now;
    base::log_warning("out of file descriptors: new connections are turned away until some are free",
                      {{"connections", std::to_string(core->connections())}, {"what", std::strerror(errno)}});
  }
  const bool had_reserve = reserve.valid();
  reserve.reset();
  if (had_reserve) {
    base::UniqueFd fd(::accept4(listener.native_handle(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd.valid()) turn_away(std::move(fd));
  }
  reserve.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  return had_reserve && reserve.valid();
}

void HttpServer::Impl::schedule_sweep() {
  if (sweeping) return;
  sweeping = true;
  sweeper.expires_after(interval);
  sweeper.async_wait([weak = weak_from_this()](error_code error) {
    const auto self = weak.lock();
    if (error || !self || self->core->closed) return;
    self->sweeping = false;
    self->sweep();
  });
}

void HttpServer::Impl::sweep() {
  const base::TimePoint now = base::system_clock().now();
  for (const auto* list : {&core->waiting, &core->serving}) {
    for (Connection* connection : *list) connection->sweep(now);
  }
  if (core->connections() > 0) schedule_sweep();
}

base::Result<base::UniqueFd> listen_tcp(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon + 1 == address.size()) {
    return Error(ErrorCode::kInvalidArgument, "cannot listen on \"" + address + "\": it must be HOST:PORT, such as 127.0.0.1:9000");
  }
  std::string host = address.substr(0, colon);
  const std::string port = address.substr(colon + 1);
  std::uint16_t number = 0;
  if (const auto [end, problem] = std::from_chars(port.data(), port.data() + port.size(), number);
      problem != std::errc{} || end != port.data() + port.size()) {
    return Error(ErrorCode::kInvalidArgument, "cannot listen on \"" + address + "\": the port must be a number from 0 to 65535");
  }
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int problem = ::getaddrinfo(host.empty() ? nullptr : host.c_str(), port.c_str(), &hints, &found); problem != 0) {
    return Error(ErrorCode::kInvalidArgument, "cannot listen on \"" + address + "\": " + ::gai_strerror(problem));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owned(found, &::freeaddrinfo);
  base::UniqueFd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return base::errno_error("cannot make a socket for " + address, errno);
  const int one = 1;
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (::bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0 || ::listen(fd.get(), kBacklog) != 0) {
    if (errno == EADDRINUSE) {
      return Error(ErrorCode::kAlreadyExists,
                   "cannot listen on " + address + ": another program has it; stop that one or choose another port");
    }
    return base::errno_error("cannot listen on " + address, errno);
  }
  return fd;
}

}  // namespace mayfly::net
