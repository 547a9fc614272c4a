#include "services/checksums.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "base/assert.h"

namespace mayfly::services {
namespace {

struct Form {
  ChecksumKind kind;
  std::string_view name;
  std::size_t size;
};
constexpr std::array kForms = {Form{ChecksumKind::kCrc32, "CRC32", 4}, Form{ChecksumKind::kCrc32c, "CRC32C", 4},
                               Form{ChecksumKind::kCrc64Nvme, "CRC64NVME", 8}, Form{ChecksumKind::kSha1, "SHA1", 20},
                               Form{ChecksumKind::kSha256, "SHA256", 32}};

// Reflected polynomials; the register holds the remainder in its low bits, whatever the width.
constexpr std::uint64_t polynomial_of(ChecksumKind kind) {
  if (kind == ChecksumKind::kCrc32) return 0xEDB88320ULL;
  if (kind == ChecksumKind::kCrc32c) return 0x82F63B78ULL;
  return 0x9A6C9329AC4BC9B5ULL;
}
constexpr std::uint64_t ones_of(ChecksumKind kind) { return kind == ChecksumKind::kCrc64Nvme ? ~0ULL : 0xFFFFFFFFULL; }
constexpr bool is_crc(ChecksumKind kind) {
  return kind == ChecksumKind::kCrc32 || kind == ChecksumKind::kCrc32c || kind == ChecksumKind::kCrc64Nvme;
}

// Eight bytes a step: table k is the effect of a byte that k further bytes follow.
using Tables = std::array<std::array<std::uint64_t, 256>, 8>;
constexpr Tables make_tables(std::uint64_t polynomial) {
  Tables tables{};
  for (std::uint64_t byte = 0; byte < 256; ++byte) {
    std::uint64_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1U) != 0 ? crc >> 1U ^ polynomial : crc >> 1U;
    tables[0][byte] = crc;
  }
  for (std::size_t byte = 0; byte < 256; ++byte) {
    for (std::size_t k = 1; k < 8; ++k) tables[k][byte] = tables[k - 1][byte] >> 8U ^ tables[0][tables[k - 1][byte] & 0xFFU];
  }
  return tables;
}
constexpr Tables kCrc32Tables = make_tables(polynomial_of(ChecksumKind::kCrc32));
constexpr Tables kCrc32cTables = make_tables(polynomial_of(ChecksumKind::kCrc32c));
constexpr Tables kCrc64NvmeTables = make_tables(polynomial_of(ChecksumKind::kCrc64Nvme));

const Tables& tables_of(ChecksumKind kind) {
  if (kind == ChecksumKind::kCrc32) return kCrc32Tables;
  return kind == ChecksumKind::kCrc32c ? kCrc32cTables : kCrc64NvmeTables;
}

std::uint64_t updated(const Tables& tables, std::uint64_t crc, std::string_view bytes) {
  while (bytes.size() >= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data(), 8);
    if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
    word ^= crc;
    crc = 0;
    for (std::size_t k = 0; k < 8; ++k) crc ^= tables[7 - k][word >> (8 * k) & 0xFFU];
    bytes.remove_prefix(8);
  }
  for (const char c : bytes) crc = crc >> 8U ^ tables[0][(crc ^ static_cast<unsigned char>(c)) & 0xFFU];
  return crc;
}

std::string big_endian(std::uint64_t value, std::size_t size) {
  std::string bytes(size, '\0');
  for (std::size_t i = 0; i < size; ++i) bytes[size - 1 - i] = static_cast<char>(value >> (8 * i) & 0xFFU);
  return bytes;
}
std::uint64_t from_big_endian(std::string_view bytes) {
  std::uint64_t value = 0;
  for (const char c : bytes) value = value << 8U | static_cast<unsigned char>(c);
  return value;
}

const EVP_MD* digest_of(ChecksumKind kind) {
  if (kind == ChecksumKind::kSha1) return EVP_sha1();
  if (kind == ChecksumKind::kSha256) return EVP_sha256();
  return kind == ChecksumKind::kMd5 ? EVP_md5() : nullptr;
}

// A linear map of the register over GF(2): column i is what bit i becomes.
using Matrix = std::array<std::uint64_t, 64>;
std::uint64_t apply(const Matrix& matrix, std::uint64_t vector) {
  std::uint64_t sum = 0;
  for (; vector != 0; vector &= vector - 1) sum ^= matrix[static_cast<std::size_t>(std::countr_zero(vector))];
  return sum;
}
Matrix squared(const Matrix& matrix) {
  Matrix square{};
  for (std::size_t i = 0; i < matrix.size(); ++i) square[i] = apply(matrix, matrix[i]);
  return square;
}

}  // namespace

std::string_view checksum_name(ChecksumKind kind) {
  const auto form = std::ranges::find(kForms, kind, &Form::kind);
  return form == kForms.end() ? std::string_view{} : form->name;
}

std::optional<ChecksumKind> find_checksum(std::string_view name) {
  std::string upper(name);
  std::ranges::transform(upper, upper.begin(), [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - ('a' - 'A')) : c; });
  const auto form = std::ranges::find(kForms, upper, &Form::name);
  if (form == kForms.end()) return std::nullopt;
  return form->kind;
}

std::size_t checksum_size(ChecksumKind kind) {
  if (kind == ChecksumKind::kMd5) return 16;
  const auto form = std::ranges::find(kForms, kind, &Form::kind);
  return form == kForms.end() ? 0 : form->size;
}

ChecksumStream::ChecksumStream(ChecksumKind kind) : kind_(kind), crc_(ones_of(kind)) {
  if (const EVP_MD* algorithm = digest_of(kind); algorithm != nullptr) {
    EVP_MD_CTX* context = EVP_MD_CTX_new();
    MAYFLY_ASSERT(context != nullptr && EVP_DigestInit_ex(context, algorithm, nullptr) == 1, "OpenSSL has no digest");
    digest_ = context;
  }
}

ChecksumStream::ChecksumStream(ChecksumStream&& other) noexcept
    : kind_(other.kind_), crc_(other.crc_), digest_(std::exchange(other.digest_, nullptr)) {}

ChecksumStream::~ChecksumStream() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(digest_)); }

void ChecksumStream::update(std::string_view bytes) {
  if (is_crc(kind_)) crc_ = updated(tables_of(kind_), crc_, bytes);
  if (digest_ != nullptr) EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(digest_), bytes.data(), bytes.size());
}

std::string ChecksumStream::finish() {
  if (is_crc(kind_)) return big_endian(crc_ ^ ones_of(kind_), checksum_size(kind_));
  std::string value(checksum_size(kind_), '\0');
  if (digest_ != nullptr) EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(digest_), reinterpret_cast<unsigned char*>(value.data()), nullptr);
  return value;
}

std::string checksum_of(ChecksumKind kind, std::string_view bytes) {
  ChecksumStream stream(kind);
  stream.update(bytes);
  return stream.finish();
}

// Appending a zero bit is a linear map of the register; n zero bytes are its 8n-th power (as in zlib's crc32_combine).
std::string combined_crc(ChecksumKind kind, std::string_view first, std::string_view second, std::uint64_t second_size) {
  Matrix step{};
  step[0] = polynomial_of(kind);
  for (std::size_t i = 1; i < step.size(); ++i) step[i] = 1ULL << (i - 1);
  for (int i = 0; i < 3; ++i) step = squared(step);  // one byte
  std::uint64_t crc = from_big_endian(first);
  for (; second_size != 0; second_size >>= 1U) {
    if ((second_size & 1U) != 0) crc = apply(step, crc);
    step = squared(step);
  }
  return big_endian(crc ^ from_big_endian(second), checksum_size(kind));
}

}  // namespace mayfly::services
