#include "services/checksums.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace mayfly::services {
namespace {

std::string hex(const std::string& bytes) { return base::hex_encode({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}); }

TEST(Checksums, KnownValuesComeOut) {
  const std::pair<ChecksumKind, const char*> known[] = {
      {ChecksumKind::kCrc32, "cbf43926"},
      {ChecksumKind::kCrc32c, "e3069283"},
      {ChecksumKind::kCrc64Nvme, "ae8b14860a799888"},
      {ChecksumKind::kSha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"},
      {ChecksumKind::kSha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"},
      {ChecksumKind::kMd5, "25f9e794323b453885f5181f1b624d0b"},
      {ChecksumKind::kNone, ""}};
  for (const auto& [kind, value] : known) {
    EXPECT_EQ(hex(checksum_of(kind, "123456789")), value);
    EXPECT_EQ(checksum_size(kind), std::string(value).size() / 2);
    ChecksumStream stream(kind);
    for (const char c : std::string("123456789")) stream.update({&c, 1});
    EXPECT_EQ(hex(stream.finish()), value) << "in pieces";
  }
}

TEST(Checksums, CrcsOfPartsCombineToThatOfTheWhole) {
  std::string whole;
  for (int i = 0; i < 5000; ++i) whole += static_cast<char>(i * 31 + i / 7);
  for (const ChecksumKind kind : {ChecksumKind::kCrc32, ChecksumKind::kCrc32c, ChecksumKind::kCrc64Nvme}) {
    for (const std::size_t cut : {0UL, 1UL, 8UL, 1024UL, 4999UL, 5000UL}) {
      const std::string first = checksum_of(kind, whole.substr(0, cut));
      const std::string second = checksum_of(kind, whole.substr(cut));
      EXPECT_EQ(hex(combined_crc(kind, first, second, whole.size() - cut)), hex(checksum_of(kind, whole))) << cut;
    }
  }
}

TEST(Checksums, NamesGoBothWays) {
  for (const ChecksumKind kind :
       {ChecksumKind::kCrc32, ChecksumKind::kCrc32c, ChecksumKind::kCrc64Nvme, ChecksumKind::kSha1, ChecksumKind::kSha256})
    EXPECT_EQ(find_checksum(checksum_name(kind)), kind);
  EXPECT_EQ(find_checksum("crc64nvme"), ChecksumKind::kCrc64Nvme);
  EXPECT_FALSE(find_checksum("MD5").has_value());
  EXPECT_FALSE(find_checksum("").has_value());
}

}  // namespace
}  // namespace mayfly::services
