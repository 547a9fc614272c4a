// The forwarder between real sockets: a client on one side, small DNS servers that behave as told on the other.
#include "backend/local/dns_forwarder.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <set>
#include <thread>

#include "base/mutex.h"
#include "net/task.h"

namespace mayfly::backend {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using base::UniqueFd;

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in value{};
  value.sin_family = AF_INET;
  value.sin_port = htons(port);
  value.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return value;
}

UniqueFd bound(int type, std::uint16_t port = 0) {
  UniqueFd socket(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  const auto name = loopback(port);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0) return {};
  if ((type & 0xF) == SOCK_STREAM) {
    EXPECT_EQ(::listen(socket.get(), 16), 0);
  }
  return socket;
}

std::uint16_t port_of(const UniqueFd& socket) {
  sockaddr_in name{};
  socklen_t size = sizeof name;
  EXPECT_EQ(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&name), &size), 0);
  return ntohs(name.sin_port);
}

void set_patience(const UniqueFd& socket, std::chrono::milliseconds time) {
  const timeval value{.tv_sec = time.count() / 1000, .tv_usec = time.count() % 1000 * 1000};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &value, sizeof value);
}

// A query for A of "<label>.example", recursion desired.
std::string query_for(const std::string& label, const std::string& id = "\x12\x34"s) {
  std::string message = id + "\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"s;
  message += static_cast<char>(label.size());
  return message + label + "\x07"s + "example\0\0\x01\0\x01"s;
}

// An answer with one address record ending in `last`.
std::string answer_to(const std::string& query, char last = 1, char code = 0, char flags = '\x81') {
  std::string message = query;
  message[2] = flags;
  message[3] = static_cast<char>('\x80' | code);
  message[7] = 1;
  return message + "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02"s + last;
}

bool read_exactly(int fd, char* to, std::size_t size) {
  while (size > 0) {
    const auto got = ::recv(fd, to, size, 0);
    if (got <= 0) return false;
    to += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

std::string read_framed(int fd) {
  char length[2];
  if (!read_exactly(fd, length, 2)) return {};
  std::string message(static_cast<std::size_t>(static_cast<unsigned char>(length[0]) * 256 + static_cast<unsigned char>(length[1])), '\0');
  return read_exactly(fd, message.data(), message.size()) ? message : std::string{};
}

std::string framed(const std::string& message) {
  return std::string{static_cast<char>(message.size() >> 8U), static_cast<char>(message.size() & 0xFFU)} + message;
}

// A DNS server on a loopback port, UDP and TCP. `behave` gets each query and answers with messages to send, none to stay silent.
class FakeDns {
 public:
  using Behave = std::function<std::vector<std::string>(const std::string& query)>;
  explicit FakeDns(Behave behave) : behave_(std::move(behave)) {
    do {  // until one number is free for both
      udp_ = bound(SOCK_DGRAM);
      port_ = port_of(udp_);
      tcp_ = bound(SOCK_STREAM, port_);
    } while (!tcp_);
    set_patience(udp_, 20ms);
    set_patience(tcp_, 20ms);
    udp_thread_ = std::thread([this] { serve_udp(); });
    tcp_thread_ = std::thread([this] { serve_tcp(); });
  }
  ~FakeDns() {
    stop_ = true;
    udp_thread_.join();
    tcp_thread_.join();
  }
  [[nodiscard]] DnsResolver resolver() const { return {"127.0.0.1", port_}; }
  std::atomic<int> udp_queries{0};
  std::atomic<int> tcp_queries{0};
  std::set<std::string> ids;  // read when the server is idle
  std::set<std::uint16_t> client_ports;

 private:
  void serve_udp() {
    std::string buffer(65535, '\0');
    while (!stop_) {
      sockaddr_in client{};
      socklen_t size = sizeof client;
      const auto got = ::recvfrom(udp_.get(), buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&client), &size);
      if (got < 0) continue;
      const std::string query = buffer.substr(0, static_cast<std::size_t>(got));
      ids.insert(query.substr(0, 2));
      client_ports.insert(client.sin_port);
      ++udp_queries;
      for (const auto& answer : behave_(query))
        ::sendto(udp_.get(), answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&client), size);
    }
  }
  void serve_tcp() {
    while (!stop_) {
      const UniqueFd client(::accept4(tcp_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!client) continue;
      set_patience(client, 500ms);
      const std::string query = read_framed(client.get());
      if (query.empty()) continue;
      ++tcp_queries;
      for (const auto& answer : behave_(query)) {
        const auto bytes = framed(answer);
        (void)!::send(client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      }
    }
  }

  Behave behave_;
  UniqueFd udp_;
  std::uint16_t port_ = 0;
  UniqueFd tcp_;
  std::atomic<bool> stop_{false};
  std::thread udp_thread_;
  std::thread tcp_thread_;
};

class DnsForwarderTest : public ::testing::Test {
 protected:
  void start(const std::vector<DnsResolver>& resolvers) {
    DnsOptions options = options_;
    options.resolvers = resolvers;
    UniqueFd udp = bound(SOCK_DGRAM | SOCK_NONBLOCK);
    UniqueFd tcp = bound(SOCK_STREAM | SOCK_NONBLOCK);
    udp_port_ = port_of(udp);
    tcp_port_ = port_of(tcp);
    on_loop([&] {
      auto made = DnsForwarder::create(loop_.executor(), std::move(udp), std::move(tcp), options, budget_);
      ASSERT_TRUE(made.ok()) << made.error().message();
      forwarder_ = std::move(made).value();
    });
  }
  void SetUp() override { loop_.start(); }
  void TearDown() override {
    on_loop([&] { forwarder_.reset(); });
    on_loop([] {});  // what the forwarder's coroutines held is gone
    on_loop([&] { EXPECT_EQ(budget_->in_flight, 0U) << "questions cut short must give back their place"; });
  }
  void on_loop(const std::function<void()>& work) {
    std::promise<void> done;
    loop_.post([&] {
      work();
      done.set_value();
    });
    done.get_future().wait();
  }
  DnsCounters counters() {
    DnsCounters copy;
    on_loop([&] { copy = forwarder_->counters(); });
    return copy;
  }

  UniqueFd client() {
    UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const auto name = loopback(udp_port_);
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
    return socket;
  }
  static std::string receive(const UniqueFd& socket, std::chrono::milliseconds patience = 5s) {
    set_patience(socket, patience);
    std::string buffer(65535, '\0');
    const auto got = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
    return got < 0 ? std::string{} : buffer.substr(0, static_cast<std::size_t>(got));
  }
  std::string ask(const std::string& query, std::chrono::milliseconds patience = 5s) {
    const auto socket = client();
    EXPECT_EQ(::send(socket.get(), query.data(), query.size(), 0), static_cast<ssize_t>(query.size()));
    return receive(socket, patience);
  }
  UniqueFd connect_tcp() const {
    UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto name = loopback(tcp_port_);
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
    set_patience(socket, 5s);
    return socket;
  }

  net::EventLoop loop_{"dns-test"};
  std::shared_ptr<DnsBudget> budget_ = std::make_shared<DnsBudget>();
  DnsOptions options_{.resolvers = {}, .timeout = 200ms, .rounds = 2, .in_flight_max = 64, .connections_max = 16};
  std::unique_ptr<DnsForwarder> forwarder_;
  std::uint16_t udp_port_ = 0;
  std::uint16_t tcp_port_ = 0;
};

TEST_F(DnsForwarderTest, passes_a_query_on_and_the_answer_back_under_the_clients_id) {
  FakeDns server([](const std::string& query) { return std::vector{answer_to(query, 7)}; });
  start({server.resolver()});
  const std::string query = query_for("www");
  EXPECT_EQ(ask(query), answer_to(query, 7));
  EXPECT_EQ(counters().answered, 1U);
}

TEST_F(DnsForwarderTest, asks_under_random_ids_and_ports) {
  FakeDns server([](const std::string& query) { return std::vector{answer_to(query)}; });
  start({server.resolver()});
  const auto socket = client();
  for (int i = 0; i < 40; ++i) {
    const std::string query = query_for("www");
    ASSERT_EQ(::send(socket.get(), query.data(), query.size(), 0), static_cast<ssize_t>(query.size()));
    ASSERT_EQ(receive(socket), answer_to(query));
  }
  EXPECT_GT(server.ids.size(), 35U) << "of 40 questions with one client id";
  EXPECT_GT(server.client_ports.size(), 20U);
}

TEST_F(DnsForwarderTest, passes_truncation_and_large_answers_on_as_they_are) {
  FakeDns server([](const std::string& query) {
    if (query.find("large") != std::string::npos) return std::vector{answer_to(query) + std::string(4000, 'x')};
    return std::vector{answer_to(query, 1, 0, '\x83')};
  });
  start({server.resolver()});
  EXPECT_EQ(ask(query_for("cut")), answer_to(query_for("cut"), 1, 0, '\x83'));
  // A query with an EDNS record stating 4096 bytes is passed on with it.
  std::string query = query_for("large");
  query[11] = 1;
  query += "\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00"s;
  EXPECT_EQ(ask(query).size(), answer_to(query).size() + 4000);
}

TEST_F(DnsForwarderTest, answers_over_tcp_several_questions_on_one_connection) {
  FakeDns server([](const std::string& query) { return std::vector{answer_to(query) + std::string(20000, 'x')}; });
  start({server.resolver()});
  const auto socket = connect_tcp();
  for (const char* label : {"one", "two", "three"}) {
    const std::string query = query_for(label);
    const std::string bytes = framed(query);
    ASSERT_EQ(::send(socket.get(), bytes.data(), 1, 0), 1);  // in pieces
    ASSERT_EQ(::send(socket.get(), bytes.data() + 1, bytes.size() - 1, 0), static_cast<ssize_t>(bytes.size() - 1));
    EXPECT_EQ(read_framed(socket.get()), answer_to(query) + std::string(20000, 'x'));
  }
  EXPECT_EQ(server.tcp_queries, 3);
  EXPECT_EQ(server.udp_queries, 0);
}

TEST_F(DnsForwarderTest, a_silent_resolver_is_passed_over_and_a_failing_one_too) {
  FakeDns silent([](const std::string&) { return std::vector<std::string>{}; });
  FakeDns failing([](const std::string& query) { return std::vector{answer_to(query, 0, 2)}; });
  FakeDns good([](const std::string& query) { return std::vector{answer_to(query, 9)}; });
  start({silent.resolver(), failing.resolver(), good.resolver()});
  EXPECT_EQ(ask(query_for("www")), answer_to(query_for("www"), 9));
}

TEST_F(DnsForwarderTest, a_name_that_does_not_exist_is_an_answer_and_nobody_else_is_asked) {
  FakeDns first([](const std::string& query) { return std::vector{answer_to(query, 0, 3)}; });
  FakeDns second([](const std::string& query) { return std::vector{answer_to(query)}; });
  start({first.resolver(), second.resolver()});
  EXPECT_EQ(ask(query_for("absent")), answer_to(query_for("absent"), 0, 3));
  EXPECT_EQ(second.udp_queries, 0);
}

TEST_F(DnsForwarderTest, says_server_failure_when_nobody_answers_after_two_tries_each) {
  FakeDns silent([](const std::string&) { return std::vector<std::string>{}; });
  options_.timeout = 50ms;
  start({silent.resolver()});
  const std::string answer = ask(query_for("www"));
  ASSERT_EQ(answer.size(), query_for("www").size());
  EXPECT_EQ(answer.substr(0, 2), "\x12\x34");
  EXPECT_EQ(answer[2], '\x81');
  EXPECT_EQ(answer[3] & 0x0F, 2);
  EXPECT_EQ(silent.udp_queries, 2);
  EXPECT_EQ(counters().failed, 1U);
}

TEST_F(DnsForwarderTest, answers_with_another_id_or_question_are_not_believed) {
  FakeDns liar([](const std::string& query) {
    std::string other_id = answer_to(query, 66);
    other_id[0] = static_cast<char>(other_id[0] ^ 1);
    std::string other_name = answer_to(query, 66);
    other_name[13] = 'x';
    const std::string not_an_answer = answer_to(query, 66, 0, '\x01');
    std::string other_type = answer_to(query, 66);
    other_type[query.size() - 3] = 28;
    return std::vector{other_id, other_name, not_an_answer, other_type, "short"s, answer_to(query, 5)};
  });
  start({liar.resolver()});
  EXPECT_EQ(ask(query_for("www")), answer_to(query_for("www"), 5));
  EXPECT_EQ(counters().forged, 5U);
}

TEST_F(DnsForwarderTest, datagrams_from_others_do_not_reach_an_open_question) {
  // Somebody who knows everything about the question answers it, but from another port than the resolver's.
  FakeDns server([](const std::string&) { return std::vector<std::string>{}; });
  start({server.resolver()});
  const auto socket = client();
  const std::string query = query_for("www");
  ASSERT_EQ(::send(socket.get(), query.data(), query.size(), 0), static_cast<ssize_t>(query.size()));
  for (int i = 0; i < 1000 && server.udp_queries == 0; ++i) std::this_thread::sleep_for(1ms);
  ASSERT_GT(server.udp_queries, 0);
  const UniqueFd stranger = bound(SOCK_DGRAM);
  std::string forged = answer_to(query, 66);
  forged.replace(0, 2, *server.ids.begin());
  sockaddr_in target = loopback(0);
  target.sin_port = *server.client_ports.begin();
  ::sendto(stranger.get(), forged.data(), forged.size(), 0, reinterpret_cast<sockaddr*>(&target), sizeof target);
  EXPECT_EQ(receive(socket)[3] & 0x0F, 2) << "only the failure after the timeout";
}

TEST_F(DnsForwarderTest, malformed_packets_are_dropped_and_the_next_query_works) {
  FakeDns server([](const std::string& query) { return std::vector{answer_to(query)}; });
  start({server.resolver()});
  const auto socket = client();
  std::string two_questions = query_for("www");
  two_questions[5] = 2;
  std::string update = query_for("www");
  update[2] = '\x28';
  std::string pointer = query_for("www");
  pointer[12] = '\xc0';
  const std::vector<std::string> bad{"x",
                                     std::string(12, '\0'),
                                     two_questions,
                                     update,
                                     pointer,
                                     answer_to(query_for("www")),
                                     query_for("www").substr(0, 20),
                                     std::string(2000, '\x3f')};
  for (const auto& packet : bad) (void)!::send(socket.get(), packet.data(), packet.size(), 0);
  const std::string query = query_for("www");
  ASSERT_EQ(::send(socket.get(), query.data(), query.size(), 0), static_cast<ssize_t>(query.size()));
  EXPECT_EQ(receive(socket), answer_to(query));
  EXPECT_EQ(server.udp_queries, 1);
  EXPECT_EQ(counters().malformed, bad.size());
}

TEST_F(DnsForwarderTest, a_flood_is_held_to_the_limit_in_flight) {
  FakeDns silent([](const std::string&) { return std::vector<std::string>{}; });
  options_.timeout = 10s;
  options_.in_flight_max = 8;
  start({silent.resolver()});
  const auto socket = client();
  const std::string query = query_for("www");
  for (int i = 0; i < 100; ++i) (void)!::send(socket.get(), query.data(), query.size(), 0);
  for (int i = 0; i < 500 && counters().refused < 92; ++i) std::this_thread::sleep_for(5ms);
  EXPECT_EQ(counters().refused, 92U);
  on_loop([&] { EXPECT_EQ(budget_->in_flight, 8U); });
  // TearDown destroys the forwarder with eight questions open.
}

TEST_F(DnsForwarderTest, the_budget_is_shared_and_connections_are_bounded) {
  FakeDns server([](const std::string& query) { return std::vector{answer_to(query)}; });
  options_.connections_max = 2;
  start({server.resolver()});
  on_loop([&] { budget_->in_flight = budget_->in_flight_max; });
  EXPECT_EQ(ask(query_for("www"), 200ms), "") << "others use the whole budget";
  on_loop([&] { budget_->in_flight = 0; });
  EXPECT_NE(ask(query_for("www")), "");
  const auto one = connect_tcp();
  const auto two = connect_tcp();
  const auto three = connect_tcp();
  EXPECT_EQ(read_framed(three.get()), "") << "closed at once";
  const std::string bytes = framed(query_for("www"));
  ASSERT_EQ(::send(two.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(read_framed(two.get()), answer_to(query_for("www")));
}

TEST_F(DnsForwarderTest, a_resolver_that_refuses_connections_and_an_unreachable_one_cost_no_wait) {
  std::uint16_t closed = 0;
  {
    const UniqueFd gone = bound(SOCK_DGRAM);
    closed = port_of(gone);
  }
  FakeDns good([](const std::string& query) { return std::vector{answer_to(query, 3)}; });
  options_.timeout = 20s;
  start({{"127.0.0.1", closed}, good.resolver()});
  EXPECT_EQ(ask(query_for("www")), answer_to(query_for("www"), 3)) << "an ICMP refusal moves on at once";
  const auto socket = connect_tcp();
  const std::string bytes = framed(query_for("www"));
  ASSERT_EQ(::send(socket.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(read_framed(socket.get()), answer_to(query_for("www"), 3));
}

TEST(DnsOptionsTest, a_forwarder_without_a_usable_resolver_is_refused) {
  net::EventLoop loop("dns-options");
  for (const auto& resolvers : {std::vector<DnsResolver>{}, std::vector<DnsResolver>{{"dns.example", 53}}}) {
    DnsOptions options;
    options.resolvers = resolvers;
    auto made = DnsForwarder::create(loop.executor(), bound(SOCK_DGRAM | SOCK_NONBLOCK), bound(SOCK_STREAM | SOCK_NONBLOCK), options,
                                     std::make_shared<DnsBudget>());
    ASSERT_FALSE(made.ok());
    EXPECT_EQ(made.error().code(), base::ErrorCode::kInvalidArgument);
  }
}

TEST(DnsQuestionTest, ends_are_found_and_every_cut_is_refused) {
  const std::string query = query_for("www");
  EXPECT_EQ(dns_question_end(query), query.size());
  EXPECT_EQ(dns_question_end(query + "more"), query.size());
  for (std::size_t size = 0; size < query.size(); ++size) EXPECT_FALSE(dns_question_end(query.substr(0, size)).has_value()) << size;
  std::string long_name = query.substr(0, 12);
  for (int i = 0; i < 4; ++i) long_name += '\x3f' + std::string(63, 'a');
  long_name += "\0\0\x01\0\x01"s;
  EXPECT_FALSE(dns_question_end(long_name).has_value()) << "a name of more than 255 bytes";
}

TEST(DnsQuestionTest, answers_may_differ_in_case_only) {
  const std::string query = query_for("wWw");
  EXPECT_TRUE(dns_answers(query, answer_to(query_for("www"))));
  EXPECT_FALSE(dns_answers(query, answer_to(query_for("wwx"))));
  EXPECT_FALSE(dns_answers(query, query));
  EXPECT_FALSE(dns_answers(query, ""));
}

TEST(ResolvConfTest, nameservers_are_read_as_glibc_reads_them) {
  using Resolvers = std::vector<DnsResolver>;
  EXPECT_EQ(parse_resolv_conf("# comment\nsearch example.com\nnameserver 127.0.0.53\noptions edns0\n"), (Resolvers{{"127.0.0.53", 53}}));
  EXPECT_EQ(parse_resolv_conf("nameserver\t192.0.2.1  # note\r\nnameserver fd00::1"), (Resolvers{{"192.0.2.1", 53}, {"fd00::1", 53}}));
  EXPECT_EQ(parse_resolv_conf("nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\nnameserver 4.4.4.4\n").size(), 3U);
  EXPECT_EQ(parse_resolv_conf("nameserver\nnameserver dns.example\nnameserver 192.0.2.1:53\n nameserver 9.9.9.9\nnameservers 8.8.8.8\n"),
            (Resolvers{{"127.0.0.1", 53}}));
  EXPECT_EQ(parse_resolv_conf(""), (Resolvers{{"127.0.0.1", 53}}));
}

TEST(ResolverTest, addresses_and_ports_are_read_strictly) {
  EXPECT_EQ(parse_resolver("192.0.2.1").value(), (DnsResolver{"192.0.2.1", 53}));
  EXPECT_EQ(parse_resolver("192.0.2.1:5353").value(), (DnsResolver{"192.0.2.1", 5353}));
  EXPECT_EQ(parse_resolver("fd00::1").value(), (DnsResolver{"fd00::1", 53}));
  EXPECT_EQ(parse_resolver("[fd00::1]:5353").value(), (DnsResolver{"fd00::1", 5353}));
  EXPECT_EQ(parse_resolver("[fd00::1]").value(), (DnsResolver{"fd00::1", 53}));
  for (const char* bad :
       {"", "dns.example", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:x", "[192.0.2.1]:53", "[fd00::1", "[fd00::1]x"}) {
    EXPECT_FALSE(parse_resolver(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace mayfly::backend
