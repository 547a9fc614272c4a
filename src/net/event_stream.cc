#include "net/event_stream.h"

#include <array>
#include <cstdint>

#include "base/assert.h"

namespace mayfly::net {

using base::Error;
using base::ErrorCode;
using base::Result;

namespace {

// Prelude: total length, headers length, CRC-32 of those eight bytes. Then headers, payload, CRC-32 of all before it.
constexpr std::size_t kPreludeBytes = 12;
constexpr std::size_t kFrameBytes = kPreludeBytes + 4;
constexpr std::size_t kHeadersMax = 128U << 10U;  // limits of the AWS encoding
constexpr std::size_t kPayloadMax = 24U << 20U;
constexpr std::uint8_t kStringType = 7;

constexpr std::array<std::uint32_t, 256> kCrcTable = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1U) ^ ((value & 1U) != 0 ? 0xEDB88320U : 0U);
    table[i] = value;
  }
  return table;
}();

std::uint32_t crc32(std::string_view bytes) {
  std::uint32_t value = 0xFFFFFFFFU;
  for (const char c : bytes) value = (value >> 8U) ^ kCrcTable[(value ^ static_cast<unsigned char>(c)) & 0xFFU];
  return ~value;
}

void put_u32(std::string& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>((value >> static_cast<unsigned>(shift)) & 0xFFU);
}

std::uint32_t get_u32(std::string_view bytes) {
  std::uint32_t value = 0;
  for (const char c : bytes.substr(0, 4)) value = (value << 8U) | static_cast<unsigned char>(c);
  return value;
}

Error damaged(std::string_view what) { return {ErrorCode::kDataLoss, "the event stream is damaged: " + std::string(what)}; }

// Takes `count` bytes off the front; empty optional if there are fewer.
std::optional<std::string_view> take(std::string_view& from, std::size_t count) {
  if (from.size() < count) return std::nullopt;
  const std::string_view part = from.substr(0, count);
  from.remove_prefix(count);
  return part;
}

Result<void> parse_headers(std::string_view bytes, EventStreamMessage& message) {
  while (!bytes.empty()) {
    const auto name_size = take(bytes, 1);
    const auto name = take(bytes, static_cast<unsigned char>(name_size->front()));
    const auto type = take(bytes, 1);
    if (!name || name->empty() || !type) return damaged("a header is cut off");
    if (static_cast<std::uint8_t>(type->front()) != kStringType) {
      return Error(ErrorCode::kUnsupported, "the event stream header \"" + std::string(*name) + "\" is not a string");
    }
    const auto size = take(bytes, 2);
    if (!size) return damaged("a header is cut off");
    const auto value =
        take(bytes, (static_cast<std::size_t>(static_cast<unsigned char>((*size)[0])) << 8U) | static_cast<unsigned char>((*size)[1]));
    if (!value) return damaged("a header is cut off");
    message.headers.emplace_back(*name, *value);
  }
  return {};
}

}  // namespace

std::string encode_event_stream(const EventStreamMessage& message) {
  std::string headers;
  for (const auto& [name, value] : message.headers) {
    MAYFLY_ASSERT(!name.empty() && name.size() <= 255 && value.size() <= 32767, "event stream header out of range");
    headers += static_cast<char>(name.size());
    headers += name;
    headers += static_cast<char>(kStringType);
    headers += static_cast<char>(value.size() >> 8U);
    headers += static_cast<char>(value.size() & 0xFFU);
    headers += value;
  }
  MAYFLY_ASSERT(headers.size() <= kHeadersMax && message.payload.size() <= kPayloadMax, "event stream message too large");
  std::string out;
  out.reserve(kFrameBytes + headers.size() + message.payload.size());
  put_u32(out, static_cast<std::uint32_t>(kFrameBytes + headers.size() + message.payload.size()));
  put_u32(out, static_cast<std::uint32_t>(headers.size()));
  put_u32(out, crc32(out));
  out += headers;
  out += message.payload;
  put_u32(out, crc32(out));
  return out;
}

Result<std::optional<EventStreamMessage>> decode_event_stream(std::string& buffer) {
  if (buffer.size() < kPreludeBytes) return std::optional<EventStreamMessage>{};
  const std::string_view bytes = buffer;
  const std::size_t total = get_u32(bytes);
  const std::size_t headers_size = get_u32(bytes.substr(4));
  if (get_u32(bytes.substr(8)) != crc32(bytes.substr(0, 8))) return damaged("the checksum of a prelude is wrong");
  if (headers_size > kHeadersMax || total < kFrameBytes + headers_size || total > kFrameBytes + headers_size + kPayloadMax) {
    return damaged("a length is out of range");
  }
  if (bytes.size() < total) return std::optional<EventStreamMessage>{};
  if (get_u32(bytes.substr(total - 4)) != crc32(bytes.substr(0, total - 4))) return damaged("the checksum of a message is wrong");
  EventStreamMessage message;
  MAYFLY_TRY(parse_headers(bytes.substr(kPreludeBytes, headers_size), message));
  message.payload = bytes.substr(kPreludeBytes + headers_size, total - kFrameBytes - headers_size);
  buffer.erase(0, total);
  return std::optional<EventStreamMessage>(std::move(message));
}

}  // namespace mayfly::net
