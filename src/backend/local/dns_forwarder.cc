#include "backend/local/dns_forwarder.h"

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <charconv>
#include <utility>

#include "base/bytes.h"
#include "base/defer.h"
#include "net/task.h"

namespace mayfly::backend {

namespace asio = boost::asio;
using asio::ip::tcp;
using asio::ip::udp;
using base::Error;
using base::ErrorCode;
using base::Result;
using boost::system::error_code;
using net::Awaitable;

namespace {

constexpr std::size_t kHeaderBytes = 12;
constexpr std::size_t kMessageBytesMax = 65535;
constexpr std::size_t kNameBytesMax = 255;  // RFC 1035 section 2.3.4
constexpr std::size_t kLabelBytesMax = 63;
constexpr std::size_t kNameserversMax = 3;  // MAXNS of glibc
constexpr int kForgedMax = 64;              // wrong datagrams for one question before giving up on the resolver
constexpr std::chrono::seconds kIdleConnection{10};
constexpr std::uint8_t kServerFailure = 2;
constexpr std::uint8_t kNotImplemented = 4;
constexpr std::uint8_t kRefused = 5;

std::uint8_t byte_at(std::string_view message, std::size_t index) { return static_cast<std::uint8_t>(message[index]); }
std::size_t u16_at(std::string_view message, std::size_t index) { return byte_at(message, index) * 256U + byte_at(message, index + 1); }
std::uint8_t response_code(std::string_view message) { return byte_at(message, 3) & 0x0FU; }
bool is_response(std::string_view message) { return (byte_at(message, 2) & 0x80U) != 0; }

// Where the one question of `message` ends.
std::optional<std::size_t> question_end(std::string_view message) {
  if (message.size() < kHeaderBytes || message.size() > kMessageBytesMax || u16_at(message, 4) != 1) return std::nullopt;
  std::size_t at = kHeaderBytes;
  for (;;) {
    if (at >= message.size() || at - kHeaderBytes >= kNameBytesMax) return std::nullopt;
    const std::size_t label = byte_at(message, at);
    if (label > kLabelBytesMax) return std::nullopt;  // also compression pointers, which nothing before could be pointed to by
    at += 1 + label;
    if (label == 0) break;
  }
  if (at + 4 > message.size()) return std::nullopt;
  return at + 4;
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

void set_id(std::string& message, std::string_view id) { message.replace(0, 2, id); }

std::string random_id() {
  std::array<std::uint8_t, 2> bytes{};
  base::random_bytes(bytes);
  return std::string(base::as_text(bytes));
}

// An answer to `query` that says the server failed.
std::string server_failure(std::string_view query, std::size_t end) {
  std::string answer(query.substr(0, end));
  answer[2] = static_cast<char>((byte_at(answer, 2) & 0x79U) | 0x80U);  // an answer; keep opcode and "recursion desired"
  answer[3] = static_cast<char>(0x80U | kServerFailure);                // recursion available
  answer.replace(6, 6, 6, '\0');                                        // no other records
  return answer;
}

// A socket that gives up: every operation on it ends by the deadline set last. Shared with its timer's handler.
template <typename Socket>
class Timed : public std::enable_shared_from_this<Timed<Socket>> {
 public:
  explicit Timed(const net::Executor& executor) : socket(executor), timer_(executor) {}
  explicit Timed(Socket taken) : socket(std::move(taken)), timer_(socket.get_executor()) {}
  void give_up_in(base::Duration time) {
    timer_.expires_after(time);
    timer_.async_wait([self = this->shared_from_this()](const error_code& error) {
      if (error) return;
      error_code ignored;
      self->socket.close(ignored);
    });
  }
  void finish() {
    timer_.cancel();
    error_code ignored;
    socket.close(ignored);
  }
  Socket socket;

 private:
  asio::steady_timer timer_;
};
using TimedUdp = Timed<udp::socket>;
using TimedTcp = Timed<tcp::socket>;

Awaitable<error_code> read_message(tcp::socket& socket, std::string& message) {
  error_code error;
  std::array<char, 2> length{};
  co_await asio::async_read(socket, asio::buffer(length), asio::redirect_error(asio::use_awaitable, error));
  if (error) co_return error;
  message.resize(u16_at({length.data(), length.size()}, 0));
  co_await asio::async_read(socket, asio::buffer(message), asio::redirect_error(asio::use_awaitable, error));
  co_return error;
}

Awaitable<error_code> write_message(tcp::socket& socket, const std::string& message) {
  std::string framed;
  framed += static_cast<char>(message.size() >> 8U);
  framed += static_cast<char>(message.size() & 0xFFU);
  framed += message;
  error_code error;
  co_await asio::async_write(socket, asio::buffer(framed), asio::redirect_error(asio::use_awaitable, error));
  co_return error;
}

}  // namespace

std::optional<std::size_t> dns_question_end(std::string_view message) {
  if (message.size() < kHeaderBytes || is_response(message) || (byte_at(message, 2) & 0x78U) != 0) return std::nullopt;
  return question_end(message);
}

bool dns_answers(std::string_view query, std::string_view answer) {
  const auto asked = question_end(query);
  const auto answered = question_end(answer);
  if (!asked || !answered || *asked != *answered || !is_response(answer) || query.substr(0, 2) != answer.substr(0, 2)) return false;
  return std::equal(query.begin() + kHeaderBytes, query.begin() + static_cast<std::ptrdiff_t>(*asked), answer.begin() + kHeaderBytes,
                    [](char a, char b) { return lower(a) == lower(b); });
}

Result<DnsResolver> parse_resolver(std::string_view text) {
  const auto wrong = [&] {
    return Error(ErrorCode::kInvalidArgument, "\"" + std::string(text.substr(0, 80)) +
                                                  "\" is not a DNS server: write an IP address, or ADDRESS:PORT with IPv6 in brackets.");
  };
  std::string_view address = text;
  std::string_view port;
  if (text.starts_with('[')) {
    const auto end = text.find(']');
    if (end == std::string_view::npos) return wrong();
    address = text.substr(1, end - 1);
    port = text.substr(end + 1);
    if (!port.empty() && !port.starts_with(':')) return wrong();
    if (address.find(':') == std::string_view::npos) return wrong();
  } else if (std::ranges::count(text, ':') == 1) {
    address = text.substr(0, text.find(':'));
    port = text.substr(text.find(':'));
  }
  DnsResolver resolver{std::string(address), 53};
  if (!port.empty()) {
    const auto* last = port.data() + port.size();
    const auto [end, code] = std::from_chars(port.data() + 1, last, resolver.port);
    if (code != std::errc{} || end != last || resolver.port == 0) return wrong();
  }
  error_code error;
  (void)asio::ip::make_address(resolver.address, error);
  if (error) return wrong();
  return resolver;
}

std::vector<DnsResolver> parse_resolv_conf(std::string_view text) {
  std::vector<DnsResolver> found;
  while (!text.empty() && found.size() < kNameserversMax) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    constexpr std::string_view kKeyword = "nameserver";
    constexpr std::string_view kSpace = " \t\r";
    if (!line.starts_with(kKeyword)) continue;
    line.remove_prefix(kKeyword.size());
    const auto start = line.find_first_not_of(kSpace);
    if (start == 0 || start == std::string_view::npos) continue;
    line.remove_prefix(start);
    // glibc's files carry no ports: "192.0.2.1:53" is malformed there, so parse as an address alone.
    const DnsResolver resolver{std::string(line.substr(0, line.find_first_of(kSpace))), 53};
    error_code error;
    (void)asio::ip::make_address(resolver.address, error);
    if (!error) found.push_back(resolver);
  }
  if (found.empty()) found.push_back({"127.0.0.1", 53});
  return found;
}

struct DnsForwarder::Impl {
  Impl(const net::Executor& loop, const DnsOptions& given, std::shared_ptr<DnsBudget> shared)
      : options(given), load(std::make_shared<Load>()), udp_server(loop), tcp_server(loop), tasks(loop) {
    load->budget = std::move(shared);
  }

  // Shared with the coroutines: what they hold is destroyed with their frames, which may be after the forwarder.
  struct Load {
    std::shared_ptr<DnsBudget> budget;
    std::size_t in_flight = 0;
    std::size_t connections = 0;
  };

  // What one resolver had to say to one question.
  struct Answer {
    std::string message;  // empty: nothing in time
    [[nodiscard]] bool settles() const {
      if (message.empty()) return false;
      const auto code = response_code(message);
      return code != kServerFailure && code != kNotImplemented && code != kRefused;
    }
  };

  DnsOptions options;
  std::shared_ptr<Load> load;
  std::vector<asio::ip::udp::endpoint> resolvers;
  DnsCounters counters;
  udp::socket udp_server;
  tcp::acceptor tcp_server;
  net::TaskScope tasks;  // last: its end comes first

  Result<void> open(base::UniqueFd udp_fd, base::UniqueFd tcp_fd);
  [[nodiscard]] bool admit() const {
    return load->in_flight < options.in_flight_max && load->budget->in_flight < load->budget->in_flight_max;
  }
  Awaitable<void> serve_udp();
  Awaitable<void> answer_datagram(std::string query, udp::endpoint client);
  Awaitable<void> serve_tcp();
  Awaitable<void> serve_connection(tcp::socket accepted);
  Awaitable<std::string> resolve(std::string query, std::size_t end, bool over_tcp);
  Awaitable<Answer> ask_udp(std::string query, udp::endpoint resolver);
  Awaitable<Answer> ask_tcp(std::string query, udp::endpoint resolver);
};

Result<void> DnsForwarder::Impl::open(base::UniqueFd udp_fd, base::UniqueFd tcp_fd) {
  if (options.resolvers.empty()) return Error(ErrorCode::kInvalidArgument, "no DNS server is configured");
  for (const auto& resolver : options.resolvers) {
    error_code bad;
    const auto address = asio::ip::make_address(resolver.address, bad);
    if (bad) return Error(ErrorCode::kInvalidArgument, "\"" + resolver.address + "\" is not the IP address of a DNS server");
    resolvers.emplace_back(address, resolver.port);
  }
  error_code error;
  udp_server.assign(udp::v4(), udp_fd.get(), error);
  if (error) return Error(ErrorCode::kInternal, "watch a sandbox's DNS socket: " + error.message());
  (void)udp_fd.release();
  tcp_server.assign(tcp::v4(), tcp_fd.get(), error);
  if (error) return Error(ErrorCode::kInternal, "watch a sandbox's DNS listener: " + error.message());
  (void)tcp_fd.release();
  udp_server.non_blocking(true, error);
  tcp_server.non_blocking(true, error);
  tasks.spawn(serve_udp());
  tasks.spawn(serve_tcp());
  return {};
}

Awaitable<void> DnsForwarder::Impl::serve_udp() {
  std::string buffer(kMessageBytesMax, '\0');
  for (;;) {
    udp::endpoint client;
    error_code error;
    const std::size_t size =
        co_await udp_server.async_receive_from(asio::buffer(buffer), client, asio::redirect_error(asio::use_awaitable, error));
    if (error == asio::error::operation_aborted || error == asio::error::bad_descriptor) co_return;
    if (error) continue;  // an ICMP error for an answer sent earlier
    std::string query = buffer.substr(0, size);
    if (!dns_question_end(query)) {
      ++counters.malformed;
    } else if (!admit()) {
      ++counters.refused;
    } else {
      tasks.spawn(answer_datagram(std::move(query), client));
    }
  }
}

Awaitable<void> DnsForwarder::Impl::answer_datagram(std::string query, udp::endpoint client) {
  const std::size_t end = *dns_question_end(query);
  const std::string answer = co_await resolve(std::move(query), end, false);
  error_code dropped;  // a full socket buffer loses the answer, as a network would
  udp_server.send_to(asio::buffer(answer), client, 0, dropped);
}

Awaitable<void> DnsForwarder::Impl::serve_tcp() {
  for (;;) {
    error_code error;
    tcp::socket accepted = co_await tcp_server.async_accept(asio::redirect_error(asio::use_awaitable, error));
    if (error == asio::error::operation_aborted || error == asio::error::bad_descriptor) co_return;
    if (error) {
      // Out of descriptors, most likely: waiting lets connections end.
      co_await net::sleep_until(base::system_clock().now() + std::chrono::milliseconds(100));
      continue;
    }
    if (load->connections >= options.connections_max) {
      ++counters.refused;
      continue;
    }
    tasks.spawn(serve_connection(std::move(accepted)));
  }
}

Awaitable<void> DnsForwarder::Impl::serve_connection(tcp::socket accepted) {
  ++load->connections;
  const base::Defer leave([held = load] { --held->connections; });
  auto client = std::make_shared<TimedTcp>(std::move(accepted));
  const base::Defer close([client] { client->finish(); });
  for (;;) {
    client->give_up_in(kIdleConnection);
    std::string query;
    if (co_await read_message(client->socket, query)) co_return;
    const auto end = dns_question_end(query);
    if (!end) ++counters.malformed;
    if (end && !admit()) ++counters.refused;
    if (!end || !admit()) co_return;
    client->give_up_in(options.timeout * (options.rounds * static_cast<int>(resolvers.size())) + kIdleConnection);
    const std::string answer = co_await resolve(std::move(query), *end, true);
    if (co_await write_message(client->socket, answer)) co_return;
  }
}

// The answer for the client, under its own id. `query` is well-formed, its question ends at `end`.
Awaitable<std::string> DnsForwarder::Impl::resolve(std::string query, std::size_t end, bool over_tcp) {
  ++load->in_flight;
  ++load->budget->in_flight;
  const base::Defer leave([held = load] {
    --held->in_flight;
    --held->budget->in_flight;
  });
  const std::string client_id = query.substr(0, 2);
  std::string last;
  for (int round = 0; round < options.rounds; ++round) {
    for (std::size_t i = 0; i < resolvers.size(); ++i) {
      set_id(query, random_id());
      Answer answer;
      if (over_tcp) {
        answer = co_await ask_tcp(query, resolvers[i]);
      } else {
        answer = co_await ask_udp(query, resolvers[i]);
      }
      const bool settled = answer.settles();
      if (!answer.message.empty()) last = std::move(answer.message);
      if (settled) {
        set_id(last, client_id);
        ++counters.answered;
        co_return last;
      }
    }
    if (!last.empty()) break;  // every resolver had its say, and those that answered refused: asking again changes nothing
  }
  if (last.empty()) {
    last = server_failure(query, end);
    ++counters.failed;
  } else {
    ++counters.answered;
  }
  set_id(last, client_id);
  co_return last;
}

Awaitable<DnsForwarder::Impl::Answer> DnsForwarder::Impl::ask_udp(std::string query, udp::endpoint resolver) {
  auto upstream = std::make_shared<TimedUdp>(co_await asio::this_coro::executor);
  const base::Defer close([upstream] { upstream->finish(); });
  error_code error;
  upstream->socket.open(resolver.protocol(), error);
  // A fresh socket has a fresh random port; connected, the kernel hands it datagrams of this resolver only.
  if (!error) upstream->socket.connect(resolver, error);
  if (error) co_return Answer{};
  upstream->give_up_in(options.timeout);
  co_await upstream->socket.async_send(asio::buffer(query), asio::redirect_error(asio::use_awaitable, error));
  std::string buffer(kMessageBytesMax, '\0');
  for (int wrong = 0; !error && wrong < kForgedMax; ++wrong) {
    const std::size_t size =
        co_await upstream->socket.async_receive(asio::buffer(buffer), asio::redirect_error(asio::use_awaitable, error));
    if (error) break;
    const std::string_view message(buffer.data(), size);
    if (dns_answers(query, message)) co_return Answer{std::string(message)};
    ++counters.forged;
  }
  co_return Answer{};
}

Awaitable<DnsForwarder::Impl::Answer> DnsForwarder::Impl::ask_tcp(std::string query, udp::endpoint resolver) {
  auto upstream = std::make_shared<TimedTcp>(co_await asio::this_coro::executor);
  const base::Defer close([upstream] { upstream->finish(); });
  upstream->give_up_in(options.timeout);
  error_code error;
  const tcp::endpoint server(resolver.address(), resolver.port());
  co_await upstream->socket.async_connect(server, asio::redirect_error(asio::use_awaitable, error));
  if (error) co_return Answer{};
  if (co_await write_message(upstream->socket, query)) co_return Answer{};
  std::string message;
  if (co_await read_message(upstream->socket, message)) co_return Answer{};
  if (dns_answers(query, message)) co_return Answer{std::move(message)};
  ++counters.forged;
  co_return Answer{};
}

Result<std::unique_ptr<DnsForwarder>> DnsForwarder::create(boost::asio::any_io_executor loop, base::UniqueFd udp_fd, base::UniqueFd tcp_fd,
                                                           const DnsOptions& options, std::shared_ptr<DnsBudget> budget) {
  auto impl = std::make_unique<Impl>(loop, options, std::move(budget));
  MAYFLY_TRY(impl->open(std::move(udp_fd), std::move(tcp_fd)));
  return std::unique_ptr<DnsForwarder>(new DnsForwarder(std::move(impl)));
}

DnsForwarder::DnsForwarder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DnsForwarder::~DnsForwarder() = default;
const DnsCounters& DnsForwarder::counters() const { return impl_->counters; }

}  // namespace mayfly::backend
