#include "sandbox/internal/netlink.h"

#include <cerrno>
#include <cstring>

#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/assert.h"

namespace mayfly::sandbox::internal {

using base::errno_error;
using base::Result;

namespace {

constexpr std::size_t align4(std::size_t size) { return (size + 3U) & ~std::size_t{3}; }

}  // namespace

nlmsghdr* NetlinkBatch::current() {
  MAYFLY_ASSERT(!entries_.empty(), "an attribute before the first message");
  return reinterpret_cast<nlmsghdr*>(bytes_.data() + entries_.back().offset);
}

void NetlinkBatch::grow_to_alignment() { bytes_.resize(align4(bytes_.size())); }

NetlinkBatch& NetlinkBatch::begin_raw(std::string step, std::uint16_t type, std::uint16_t flags, std::span<const std::byte> header) {
  MAYFLY_ASSERT(nests_.empty(), "a nested attribute was left open");
  grow_to_alignment();
  entries_.push_back({std::move(step), bytes_.size()});
  nlmsghdr head{};
  head.nlmsg_len = sizeof head;
  head.nlmsg_type = type;
  head.nlmsg_flags = flags;
  const auto view = std::as_bytes(std::span(&head, 1));
  bytes_.insert(bytes_.end(), view.begin(), view.end());
  return append_raw(header);
}

NetlinkBatch& NetlinkBatch::append_raw(std::span<const std::byte> bytes) {
  grow_to_alignment();
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  current()->nlmsg_len = static_cast<std::uint32_t>(bytes_.size() - entries_.back().offset);
  return *this;
}

NetlinkBatch& NetlinkBatch::attribute(std::uint16_t type, std::span<const std::byte> value) {
  nlattr head{};
  head.nla_type = type;
  head.nla_len = static_cast<std::uint16_t>(sizeof head + value.size());
  append_raw(std::as_bytes(std::span(&head, 1)));
  bytes_.insert(bytes_.end(), value.begin(), value.end());
  current()->nlmsg_len = static_cast<std::uint32_t>(bytes_.size() - entries_.back().offset);
  return *this;
}

NetlinkBatch& NetlinkBatch::u8(std::uint16_t type, std::uint8_t value) { return attribute(type, std::as_bytes(std::span(&value, 1))); }

NetlinkBatch& NetlinkBatch::u32(std::uint16_t type, std::uint32_t value) { return attribute(type, std::as_bytes(std::span(&value, 1))); }

NetlinkBatch& NetlinkBatch::text(std::uint16_t type, std::string_view value) {
  const std::string terminated(value);
  return attribute(type, std::as_bytes(std::span(terminated.c_str(), terminated.size() + 1)));
}

NetlinkBatch& NetlinkBatch::open(std::uint16_t type) {
  grow_to_alignment();
  nests_.push_back(bytes_.size());
  return attribute(type, {});
}

NetlinkBatch& NetlinkBatch::close() {
  MAYFLY_ASSERT(!nests_.empty(), "no nested attribute is open");
  auto* head = reinterpret_cast<nlattr*>(bytes_.data() + nests_.back());
  head->nla_len = static_cast<std::uint16_t>(bytes_.size() - nests_.back());
  nests_.pop_back();
  return *this;
}

std::vector<NetlinkAttribute> parse_attributes(std::span<const std::byte> bytes) {
  std::vector<NetlinkAttribute> found;
  while (bytes.size() >= sizeof(nlattr)) {
    nlattr head{};
    std::memcpy(&head, bytes.data(), sizeof head);
    if (head.nla_len < sizeof head || head.nla_len > bytes.size()) break;
    found.push_back({static_cast<std::uint16_t>(head.nla_type & NLA_TYPE_MASK), bytes.subspan(sizeof head, head.nla_len - sizeof head)});
    bytes = bytes.subspan(std::min(align4(head.nla_len), bytes.size()));
  }
  return found;
}

Result<NetlinkSocket> NetlinkSocket::open(int protocol) {
  base::UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
  if (!socket) return errno_error("open a netlink socket", errno);
  const timeval patience{.tv_sec = 10, .tv_usec = 0};  // the kernel answers at once; a lost answer must not hang the launcher
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0)
    return errno_error("set a netlink timeout", errno);
  return NetlinkSocket(std::move(socket));
}

Result<void> NetlinkSocket::send(NetlinkBatch& batch, std::uint32_t first_sequence) {
  for (std::size_t i = 0; i < batch.entries_.size(); ++i) {
    reinterpret_cast<nlmsghdr*>(batch.bytes_.data() + batch.entries_[i].offset)->nlmsg_seq = first_sequence + static_cast<std::uint32_t>(i);
  }
  sequence_ = first_sequence + static_cast<std::uint32_t>(batch.entries_.size());
  batch.grow_to_alignment();
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  const auto sent =
      ::sendto(socket_.get(), batch.bytes_.data(), batch.bytes_.size(), 0, reinterpret_cast<sockaddr*>(&kernel), sizeof kernel);
  if (sent < 0) return errno_error("send to netlink", errno);
  return {};
}

Result<std::size_t> NetlinkSocket::receive() {
  for (;;) {
    const auto got = ::recv(socket_.get(), buffer_.data(), buffer_.size(), 0);
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno != EINTR) return errno_error("receive from netlink", errno);
  }
}

Result<void> NetlinkSocket::apply(NetlinkBatch& batch) {
  std::string step;
  MAYFLY_ASSIGN(const int failed, apply_errno(batch, &step));
  if (failed != 0) return errno_error(step, failed);
  return {};
}

Result<int> NetlinkSocket::apply_errno(NetlinkBatch& batch, std::string* step) {
  const std::uint32_t first = sequence_ + 1;
  std::size_t waiting = 0;
  for (const auto& entry : batch.entries_) {
    if ((reinterpret_cast<const nlmsghdr*>(batch.bytes_.data() + entry.offset)->nlmsg_flags & NLM_F_ACK) != 0) ++waiting;
  }
  MAYFLY_TRY(send(batch, first));
  int failed = 0;
  std::size_t failed_index = batch.entries_.size();
  while (waiting > 0) {
    MAYFLY_ASSIGN(std::size_t left, receive());
    for (auto* head = reinterpret_cast<nlmsghdr*>(buffer_.data()); NLMSG_OK(head, left); head = NLMSG_NEXT(head, left)) {
      const std::uint32_t index = head->nlmsg_seq - first;
      if (head->nlmsg_type != NLMSG_ERROR || index >= batch.entries_.size()) continue;
      --waiting;
      const int error = -static_cast<const nlmsgerr*>(NLMSG_DATA(head))->error;
      if (error == 0 || index >= failed_index) {
        if (waiting == 0) break;
        continue;
      }
      failed = error;
      failed_index = index;
      if (waiting == 0) break;
    }
  }
  if (failed != 0 && step != nullptr) *step = batch.entries_[failed_index].step;
  return failed;
}

Result<int> NetlinkSocket::query(NetlinkBatch& batch, const Visit& visit) {
  const std::uint32_t first = sequence_ + 1;
  MAYFLY_TRY(send(batch, first));
  const bool dump = (reinterpret_cast<const nlmsghdr*>(batch.bytes_.data())->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
  for (;;) {
    MAYFLY_ASSIGN(std::size_t left, receive());
    for (auto* head = reinterpret_cast<nlmsghdr*>(buffer_.data()); NLMSG_OK(head, left); head = NLMSG_NEXT(head, left)) {
      if (head->nlmsg_seq != first) continue;
      if (head->nlmsg_type == NLMSG_DONE) return 0;
      if (head->nlmsg_type == NLMSG_ERROR) return -static_cast<const nlmsgerr*>(NLMSG_DATA(head))->error;
      visit(*head, {static_cast<const std::byte*>(NLMSG_DATA(head)), head->nlmsg_len - NLMSG_LENGTH(0)});
      if (!dump) return 0;
    }
  }
}

}  // namespace mayfly::sandbox::internal
