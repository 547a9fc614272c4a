// The network of a sandbox: a namespace of its own, the listeners through which the server speaks to it, and, if it may
// reach outside, a device pair behind a firewall. Used by the single-threaded launcher only.
//
// What a sandbox with Network::kOutside can reach: IPv4 destinations the host can route to, through NAT. Never: any address
// of the host, on any port; link-local and metadata addresses; loopback, multicast, broadcast; any sandbox of any instance;
// the configured deny list; anything by IPv6. Nothing outside can open a connection to it.
// On the host: devices "mf<instance><slot>", one nftables table "inet mayfly_<instance>", and net.ipv4.ip_forward=1, which
// stays (others may have come to need it; notes() says when this process set it).
//
// Making a namespace and its devices is the dearest part of a sandbox, and ending them costs as much again. So one in which nothing was
// ever done is kept for another sandbox, as it is: no packet, no socket that still exists, not one of the kernel's counters moved
// (network_traces.h). Nobody can tell it from a new one. Everything else is destroyed.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "sandbox/launcher.h"

namespace mayfly::sandbox::internal {

struct NetworkOptions {
  std::string instance;                // 8 hex digits
  std::string cidr = "100.88.0.0/16";  // IPv4, /10 to /28; cut into a /30 for each sandbox
  std::vector<std::string> deny;       // further CIDRs or addresses; IPv6 ones are accepted and need no rule; at most 1024
  bool privileged = true;              // runs as root of the host: device pairs and firewall are possible
};

// The server's view of a sandbox's network. Sockets are non-blocking; all descriptors are close-on-exec.
struct SandboxNetwork {
  base::UniqueFd netns;                    // for setns() in the sandbox's first process; the namespace lives while this or a socket does
  base::UniqueFd runtime_api;              // listening, 169.254.100.1:9001
  base::UniqueFd data_api;                 // listening, 169.254.100.1:9002
  base::UniqueFd dns_udp;                  // bound, 169.254.100.1:53; invalid with Network::kNone
  base::UniqueFd dns_tcp;                  // listening, 169.254.100.1:53; invalid with Network::kNone
  std::vector<base::UniqueFd> connectors;  // TCP, not connected
};

class NetworkBuilder {
 public:
  // Touches nothing on the host. kInvalidArgument for bad options. Keeps the caller's network and mount namespace as "the
  // host": call it before entering others.
  [[nodiscard]] static base::Result<std::unique_ptr<NetworkBuilder>> create(NetworkOptions options);
  // remove_all() is left to the caller: a launcher that dies leaves it to its successor.
  ~NetworkBuilder();
  NetworkBuilder(const NetworkBuilder&) = delete;
  NetworkBuilder& operator=(const NetworkBuilder&) = delete;

  // Makes the network of sandbox `id` (not in use). The caller is in the host's namespace before and after. The first kOutside
  // installs the firewall; while that fails, so does every kOutside. Errors name the step.
  // `connectors`: how many of those, at most kConnectorsMax.
  [[nodiscard]] base::Result<SandboxNetwork> make(std::uint64_t id, Network mode, std::uint32_t connectors = 0);
  // Every process of the sandbox is gone. Keeps its network for a later make() when nothing was done with it, at most kKeptMost. Else it
  // is cut off at once; devices and namespace go with the last descriptor that holds them, and devices held longer than 30 s are deleted
  // by a later call. Unknown ids are ignored.
  void remove(std::uint64_t id);
  // Lets go of kept networks that nobody needed for ten seconds, a few at a time: to be called every second or so while there are any.
  void let_go_of_kept();
  // How many are kept.
  [[nodiscard]] std::size_t kept() const;
  static constexpr std::size_t kKeptMost = 128;  // 200 KiB of kernel memory each
  // How long a kept one serves nobody: what the kernel sends after the last process is gone (reports of multicast groups) shows by then.
  static constexpr std::chrono::milliseconds kRest{50};
  // Deletes every device of this instance, also those of a process that died, and the firewall table.
  void remove_all();

  // Installs the firewall now if it is not there: about 10 ms, once. What outside_possible() answers afterwards was tried.
  [[nodiscard]] base::Result<void> prepare_outside();
  // Whether kOutside can work, as far as is known without trying; why_not() is a sentence, empty when it can.
  [[nodiscard]] bool outside_possible() const;
  [[nodiscard]] const std::string& why_not() const;
  // What a person should know: the host's settings that were changed, other firewalls that stand in the way.
  [[nodiscard]] const std::vector<std::string>& notes() const;

 private:
  struct Impl;
  explicit NetworkBuilder(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mayfly::sandbox::internal
