// Name resolution for sandboxes: answers on a sandbox's own 169.254.100.1:53 by asking the host's resolvers, which may sit
// on the host's loopback where a sandbox cannot reach them.
// It filters nothing by name: what a function may connect to is decided when it connects, so an answer that points to a
// forbidden address gains nothing. It guards the other direction: an answer is taken only from the resolver asked, under a
// random id and port, and for the same question.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "base/time.h"

namespace mayfly::backend {

// A DNS server: an IP address (IPv6 may carry %zone) and a port for UDP and TCP.
struct DnsResolver {
  std::string address;
  std::uint16_t port = 53;
  friend bool operator==(const DnsResolver&, const DnsResolver&) = default;
};

// "192.0.2.1", "192.0.2.1:5353", "fd00::1", "[fd00::1]:5353". kInvalidArgument for anything else.
[[nodiscard]] base::Result<DnsResolver> parse_resolver(std::string_view text);
// The nameservers of a resolv.conf, at most three as in glibc; malformed lines are skipped; 127.0.0.1 when there is none.
[[nodiscard]] std::vector<DnsResolver> parse_resolv_conf(std::string_view text);

// Queries being asked by all forwarders of one event loop. Used on that loop's thread; shared by its forwarders.
struct DnsBudget {
  std::size_t in_flight = 0;
  std::size_t in_flight_max = 1024;
};

struct DnsOptions {
  std::vector<DnsResolver> resolvers;                // asked in order, at least one
  base::Duration timeout = std::chrono::seconds(2);  // for each question to one resolver
  int rounds = 2;                                    // how often the whole list is gone through
  std::size_t in_flight_max = 64;                    // of this sandbox; further queries are dropped, as by a busy network
  std::size_t connections_max = 16;                  // TCP connections of this sandbox; further ones are closed
};

struct DnsCounters {
  std::uint64_t answered = 0;   // answers passed on
  std::uint64_t failed = 0;     // answered SERVFAIL: no resolver answered in time
  std::uint64_t malformed = 0;  // queries dropped because they are not one DNS question
  std::uint64_t refused = 0;    // queries dropped over a limit
  std::uint64_t forged = 0;     // datagrams from a resolver that answer no question of ours
};

// Serves one sandbox from construction to destruction. Lives on one event loop's thread.
class DnsForwarder {
 public:
  // `udp` is bound, `tcp` is listening; both non-blocking, inside the sandbox's network namespace.
  // kInvalidArgument when a resolver is malformed or there is none.
  [[nodiscard]] static base::Result<std::unique_ptr<DnsForwarder>> create(boost::asio::any_io_executor loop, base::UniqueFd udp,
                                                                          base::UniqueFd tcp, const DnsOptions& options,
                                                                          std::shared_ptr<DnsBudget> budget);
  ~DnsForwarder();
  DnsForwarder(const DnsForwarder&) = delete;
  DnsForwarder& operator=(const DnsForwarder&) = delete;

  [[nodiscard]] const DnsCounters& counters() const;

 private:
  struct Impl;
  explicit DnsForwarder(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The length of header and question of a DNS query, if `message` is one: at least a header, a standard query, not an answer, exactly
// one question, its name well-formed and not compressed. For tests and fuzzing.
[[nodiscard]] std::optional<std::size_t> dns_question_end(std::string_view message);
// Whether `answer` answers `query` (both whole messages): same id, an answer, the same question (letters in either case).
[[nodiscard]] bool dns_answers(std::string_view query, std::string_view answer);

}  // namespace mayfly::backend
