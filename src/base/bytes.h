// Byte strings as text and digests: hex, base64, percent-encoding, SHA-256, HMAC, random identifiers.
// Digests and random bytes come from OpenSSL and getrandom(2); every function is safe from every thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace mayfly::base {

using Sha256Digest = std::array<std::uint8_t, 32>;

[[nodiscard]] std::string hex_encode(std::span<const std::uint8_t> bytes);
[[nodiscard]] std::string base64_encode(std::string_view bytes);
// Standard alphabet; padding required; anything else is kInvalidArgument.
[[nodiscard]] Result<std::string> base64_decode(std::string_view text);
// RFC 3986: everything but unreserved characters becomes %XX (upper case). `keep` lists further characters to leave ("/").
[[nodiscard]] std::string percent_encode(std::string_view text, std::string_view keep = {});
// %XX to bytes. A '%' without two hex digits is kInvalidArgument. '+' stays '+'.
[[nodiscard]] Result<std::string> percent_decode(std::string_view text);

[[nodiscard]] Sha256Digest sha256(std::string_view bytes);
[[nodiscard]] Sha256Digest hmac_sha256(std::string_view key, std::string_view message);
[[nodiscard]] std::string_view as_text(std::span<const std::uint8_t> bytes);

// SHA-256 of bytes that arrive in pieces. One thread at a time.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void update(std::string_view bytes);
  // Call once.
  [[nodiscard]] Sha256Digest finish();

 private:
  void* context_;
};

// Same answer and same time whatever differs; lengths are not secret.
[[nodiscard]] bool equal_constant_time(std::string_view a, std::string_view b);

// Cryptographically strong; aborts if the kernel refuses.
void random_bytes(std::span<std::uint8_t> out);
[[nodiscard]] std::string random_hex(std::size_t bytes);
// RFC 9562 version 4, lower case with hyphens: request and revision ids.
[[nodiscard]] std::string random_uuid();
// `length` characters drawn evenly from `alphabet` (at most 256 characters).
[[nodiscard]] std::string random_text(std::size_t length, std::string_view alphabet);

}  // namespace mayfly::base
