// The checksums of S3: what clients send with bodies and get back with objects. Pure computation.
// Source: Amazon S3 User Guide, "Checking object integrity"; CRC-64/NVME as in the catalogue of parametrised CRC algorithms.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mayfly::services {

enum class ChecksumKind : std::uint8_t { kNone, kCrc32, kCrc32c, kCrc64Nvme, kSha1, kSha256, kMd5 };

// "CRC32" of the wire, "" for kNone and kMd5; and back without regard to case, none when S3 has no such algorithm.
[[nodiscard]] std::string_view checksum_name(ChecksumKind kind);
[[nodiscard]] std::optional<ChecksumKind> find_checksum(std::string_view name);
// Bytes of a value.
[[nodiscard]] std::size_t checksum_size(ChecksumKind kind);

// The checksum of bytes that arrive in pieces. kNone takes them and has an empty value.
class ChecksumStream {
 public:
  explicit ChecksumStream(ChecksumKind kind);
  ~ChecksumStream();
  ChecksumStream(ChecksumStream&& other) noexcept;
  ChecksumStream& operator=(ChecksumStream&&) = delete;
  void update(std::string_view bytes);
  // The value as bytes, most significant first. Call once.
  [[nodiscard]] std::string finish();
  [[nodiscard]] ChecksumKind kind() const { return kind_; }

 private:
  ChecksumKind kind_;
  std::uint64_t crc_ = 0;
  void* digest_ = nullptr;
};
[[nodiscard]] std::string checksum_of(ChecksumKind kind, std::string_view bytes);

// The CRC of A followed by B from those of A and B. `kind` is one of the CRCs; values as finish() gives them.
[[nodiscard]] std::string combined_crc(ChecksumKind kind, std::string_view first, std::string_view second, std::uint64_t second_size);

}  // namespace mayfly::services
