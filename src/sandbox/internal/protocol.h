// What server and launcher say to each other: one bounded packet per message over a SEQPACKET socket pair, descriptors beside it.
// Fields are written in the order of the structures, little endian as the machine has it (both ends are one program).
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "sandbox/launcher.h"

namespace mayfly::sandbox::internal {

inline constexpr std::size_t kMessageMax = 65'536;  // bytes; a specification that does not fit is refused
inline constexpr std::size_t kDescriptorsMax = 64;
inline constexpr std::size_t kCompanionsMax = 10;
inline constexpr std::uint32_t kConnectorsMax = 12;

enum class MessageKind : std::uint8_t {
  // server to launcher
  kStart = 1,
  kKill,
  kTerminate,
  kKillMain,
  kUnpack,
  kRemoveCode,
  kSpecialise,
  kStartZygote,
  // launcher to server
  kHello,
  kHelloFailed,
  kStarted,
  kFailed,
  kProgramEnded,
  kExited,
  kUnpacked,
  kSpecialised,
  kZygoteReady,
  // between the launcher and its workshop
  kMake,
  kDiscard,
  kWorkshopReady,
  kMade,
};

class Writer {
 public:
  explicit Writer(MessageKind kind) { number(kind); }
  template <typename T>
    requires(std::is_arithmetic_v<T> || std::is_enum_v<T>)
  Writer& number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Writer& text(std::string_view value) {
    number(static_cast<std::uint32_t>(value.size()));
    bytes_.append(value);
    return *this;
  }
  Writer& texts(const std::vector<std::string>& values) {
    number(static_cast<std::uint32_t>(values.size()));
    for (const auto& value : values) text(value);
    return *this;
  }
  Writer& error(const base::Error& value) { return number(value.code()).text(value.message()).text(value.id()); }
  [[nodiscard]] std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Reads what Writer wrote; after a short or oversized field everything reads as empty and complete() is false.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}
  template <typename T>
    requires(std::is_arithmetic_v<T> || std::is_enum_v<T>)
  T number() {
    T value{};
    const std::string_view raw = take(sizeof value);
    if (raw.size() == sizeof value) std::memcpy(&value, raw.data(), sizeof value);
    return value;
  }
  bool flag() { return number<std::uint8_t>() != 0; }
  std::string text() { return std::string(take(number<std::uint32_t>())); }
  std::vector<std::string> texts() {
    std::vector<std::string> values;
    const auto count = number<std::uint32_t>();
    for (std::uint32_t i = 0; i < count && good_; ++i) values.push_back(text());
    return values;
  }
  base::Error error() {
    const auto code = number<base::ErrorCode>();
    std::string message = text();
    return {code, std::move(message), text()};
  }
  // Every field was there and nothing is left over.
  [[nodiscard]] bool complete() const { return good_ && bytes_.empty(); }

 private:
  std::string_view take(std::size_t size) {
    if (!good_ || size > bytes_.size()) {
      good_ = false;
      return {};
    }
    const std::string_view part = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return part;
  }
  std::string_view bytes_;
  bool good_ = true;
};

struct Packet {
  std::string bytes;
  std::vector<base::UniqueFd> descriptors;
  // There was no room for some that came along (the limit of open files); then there are none.
  bool descriptors_lost = false;
  // Wiped on destruction: packets carry the environment variables of functions.
  Packet() = default;
  Packet(Packet&&) = default;
  Packet& operator=(Packet&&) = default;
  Packet(const Packet&) = delete;
  Packet& operator=(const Packet&) = delete;
  ~Packet();
};

void wipe(std::string& secret);
// What such a loss means to whoever asked, with the remedy.
[[nodiscard]] base::Error no_room_for_descriptors();

// `flags` as send(2) has them. False when the socket is full (MSG_DONTWAIT). kUnavailable when the other end is gone.
[[nodiscard]] base::Result<bool> send_packet(int socket, std::string_view bytes, std::span<const int> descriptors, int flags);
// Nothing ready: nullopt (MSG_DONTWAIT). kUnavailable when the other end is gone.
[[nodiscard]] base::Result<std::optional<Packet>> receive_packet(int socket, int flags);

void write_spec(Writer& out, const SandboxSpec& spec);
SandboxSpec read_spec(Reader& in);
void write_specialisation(Writer& out, const Specialisation& specialisation);
Specialisation read_specialisation(Reader& in);
void write_zygote(Writer& out, const ZygoteSpec& spec);
ZygoteSpec read_zygote(Reader& in);
void write_capabilities(Writer& out, const HostCapabilities& host);
HostCapabilities read_capabilities(Reader& in);
void write_limits(Writer& out, const Launcher::UnpackLimits& limits);
Launcher::UnpackLimits read_limits(Reader& in);
// A started sandbox: its descriptors are appended to `descriptors`, which keep belonging to it.
void write_sandbox(Writer& out, const Sandbox& sandbox, std::vector<int>& descriptors);
Sandbox read_sandbox(Reader& in, std::vector<base::UniqueFd>& descriptors);

// Whether the specification can be asked for at all (known to both ends; the launcher checks again).
[[nodiscard]] base::Result<void> check_spec(const SandboxSpec& spec);
[[nodiscard]] base::Result<void> check_specialisation(const Specialisation& specialisation);
[[nodiscard]] base::Result<void> check_zygote(const ZygoteSpec& spec);
[[nodiscard]] bool is_code_id(std::string_view id);

}  // namespace mayfly::sandbox::internal
