// A small synchronous netlink client: enough rtnetlink and nfnetlink to make, address and delete network devices without
// starting other programs. Single-threaded use; no state but the socket.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <linux/netlink.h>

#include "base/fd.h"
#include "base/result.h"

namespace mayfly::sandbox::internal {

// One or more netlink messages that travel in one send. Attributes go to the message begun last.
class NetlinkBatch {
 public:
  // Begins a message with a fixed header (ifinfomsg, ifaddrmsg, rtmsg, nfgenmsg). `step` names it in errors.
  template <typename Header>
    requires std::is_trivially_copyable_v<Header>
  NetlinkBatch& begin(std::string step, std::uint16_t type, std::uint16_t flags, const Header& header) {
    return begin_raw(std::move(step), type, flags, std::as_bytes(std::span(&header, 1)));
  }
  NetlinkBatch& attribute(std::uint16_t type, std::span<const std::byte> value);
  NetlinkBatch& u8(std::uint16_t type, std::uint8_t value);
  NetlinkBatch& u32(std::uint16_t type, std::uint32_t value);      // host byte order
  NetlinkBatch& text(std::uint16_t type, std::string_view value);  // with its terminating NUL
  // An attribute that holds what follows until close().
  NetlinkBatch& open(std::uint16_t type);
  NetlinkBatch& close();
  // A bare structure inside the current attribute (the peer's ifinfomsg of a veth pair).
  template <typename Value>
    requires std::is_trivially_copyable_v<Value>
  NetlinkBatch& append(const Value& value) {
    return append_raw(std::as_bytes(std::span(&value, 1)));
  }

 private:
  friend class NetlinkSocket;
  struct Entry {
    std::string step;
    std::size_t offset;
  };
  NetlinkBatch& begin_raw(std::string step, std::uint16_t type, std::uint16_t flags, std::span<const std::byte> header);
  NetlinkBatch& append_raw(std::span<const std::byte> bytes);
  nlmsghdr* current();
  void grow_to_alignment();

  std::vector<std::byte> bytes_;
  std::vector<Entry> entries_;
  std::vector<std::size_t> nests_;
};

// One attribute of a received message.
struct NetlinkAttribute {
  std::uint16_t type = 0;
  std::span<const std::byte> value;
};
// The attributes in `bytes`; stops at the first malformed one.
std::vector<NetlinkAttribute> parse_attributes(std::span<const std::byte> bytes);

class NetlinkSocket {
 public:
  // Belongs for ever to the network namespace of the caller at this moment. `protocol` is NETLINK_ROUTE, NETLINK_NETFILTER.
  [[nodiscard]] static base::Result<NetlinkSocket> open(int protocol);

  // Sends the batch and waits for the acknowledgement of every message that asks for one. The error is that of the first
  // message refused, named by its step; messages after it were still tried by the kernel.
  [[nodiscard]] base::Result<void> apply(NetlinkBatch& batch);
  // The same, with the plain errno of the first message refused (0 when none) and its step.
  [[nodiscard]] base::Result<int> apply_errno(NetlinkBatch& batch, std::string* step);

  // Sends one message and hands each answer (header and payload) to `visit` until the kernel has no more. The value is the errno the
  // kernel answered with, 0 when none.
  using Visit = std::function<void(const nlmsghdr& header, std::span<const std::byte> payload)>;
  [[nodiscard]] base::Result<int> query(NetlinkBatch& batch, const Visit& visit);

  [[nodiscard]] int fd() const { return socket_.get(); }

 private:
  explicit NetlinkSocket(base::UniqueFd socket) : socket_(std::move(socket)), buffer_(std::size_t{32} * 1024) {}
  [[nodiscard]] base::Result<std::size_t> receive();
  [[nodiscard]] base::Result<void> send(NetlinkBatch& batch, std::uint32_t first_sequence);

  base::UniqueFd socket_;
  std::vector<std::byte> buffer_;
  std::uint32_t sequence_ = 0;
};

}  // namespace mayfly::sandbox::internal
