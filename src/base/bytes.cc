#include "base/bytes.h"

#define OPENSSL_SUPPRESS_DEPRECATED  // SHA256_*: the EVP functions cost ten times the hashing itself for texts of a few hundred bytes
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <sys/mman.h>
#include <sys/random.h>

#include <algorithm>
#include <cstring>

#include "base/assert.h"

namespace mayfly::base {
namespace {

constexpr std::string_view kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

int base64_value(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  if (c == '/') return 63;
  return -1;
}

bool is_unreserved(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' || c == '~';
}

}  // namespace

std::string hex_encode(std::span<const std::uint8_t> bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.resize(bytes.size() * 2);
  char* out = text.data();
  for (const std::uint8_t byte : bytes) {
    *out++ = kDigits[byte >> 4U];
    *out++ = kDigits[byte & 15U];
  }
  return text;
}

std::string base64_encode(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t left = bytes.size() - i;
    const auto byte = [&](std::size_t at) { return at < left ? static_cast<std::uint32_t>(static_cast<std::uint8_t>(bytes[i + at])) : 0U; };
    const std::uint32_t group = byte(0) << 16U | byte(1) << 8U | byte(2);
    text += kBase64[group >> 18U];
    text += kBase64[(group >> 12U) & 63U];
    text += left > 1 ? kBase64[(group >> 6U) & 63U] : '=';
    text += left > 2 ? kBase64[group & 63U] : '=';
  }
  return text;
}

Result<std::string> base64_decode(std::string_view text) {
  const auto bad = [] { return Error(ErrorCode::kInvalidArgument, "the text is not valid base64"); };
  if (text.size() % 4 != 0) return bad();
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  for (std::size_t i = 0; i < text.size(); i += 4) {
    const bool last = i + 4 == text.size();
    const std::size_t padding = last ? (text[i + 3] == '=' ? (text[i + 2] == '=' ? 2U : 1U) : 0U) : 0U;
    std::uint32_t group = 0;
    for (std::size_t k = 0; k < 4; ++k) {
      const int value = k >= 4 - padding ? 0 : base64_value(text[i + k]);
      if (value < 0) return bad();
      group = group << 6U | static_cast<std::uint32_t>(value);
    }
    bytes += static_cast<char>(group >> 16U);
    if (padding < 2) bytes += static_cast<char>(group >> 8U & 255U);
    if (padding < 1) bytes += static_cast<char>(group & 255U);
  }
  return bytes;
}

std::string percent_encode(std::string_view text, std::string_view keep) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (is_unreserved(c) || keep.find(c) != std::string_view::npos) {
      out += c;
    } else {
      const auto byte = static_cast<std::uint8_t>(c);
      out += '%';
      out += kDigits[byte >> 4U];
      out += kDigits[byte & 15U];
    }
  }
  return out;
}

Result<std::string> percent_decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const int high = i + 1 < text.size() ? hex_value(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? hex_value(text[i + 2]) : -1;
    if (high < 0 || low < 0) return Error(ErrorCode::kInvalidArgument, "a '%' is not followed by two hexadecimal digits");
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

Sha256Digest sha256(std::string_view bytes) {
  Sha256Digest digest;
  SHA256_CTX context;  // SHA256() looks the algorithm up first
  SHA256_Init(&context);
  SHA256_Update(&context, bytes.data(), bytes.size());
  SHA256_Final(digest.data(), &context);
  return digest;
}

// RFC 2104.
Sha256Digest hmac_sha256(std::string_view key, std::string_view message) {
  std::array<std::uint8_t, SHA256_CBLOCK> block{};
  if (key.size() > block.size()) {
    const Sha256Digest shorter = sha256(key);
    std::ranges::copy(shorter, block.begin());
  } else {
    std::memcpy(block.data(), key.data(), key.size());
  }
  Sha256Digest digest;
  SHA256_CTX context;
  for (std::uint8_t& byte : block) byte ^= 0x36U;
  SHA256_Init(&context);
  SHA256_Update(&context, block.data(), block.size());
  SHA256_Update(&context, message.data(), message.size());
  SHA256_Final(digest.data(), &context);
  for (std::uint8_t& byte : block) byte ^= 0x36U ^ 0x5CU;
  SHA256_Init(&context);
  SHA256_Update(&context, block.data(), block.size());
  SHA256_Update(&context, digest.data(), digest.size());
  SHA256_Final(digest.data(), &context);
  OPENSSL_cleanse(block.data(), block.size());
  OPENSSL_cleanse(&context, sizeof context);
  return digest;
}

std::string_view as_text(std::span<const std::uint8_t> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  MAYFLY_ASSERT(context_ != nullptr && EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr) == 1,
                "OpenSSL has no SHA-256");
}
Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }
void Sha256::update(std::string_view bytes) { EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), bytes.data(), bytes.size()); }
Sha256Digest Sha256::finish() {
  Sha256Digest digest;
  unsigned int size = digest.size();
  EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest.data(), &size);
  return digest;
}

bool equal_constant_time(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

namespace {

void random_from_kernel(std::span<std::uint8_t> out) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t got = getrandom(out.data() + done, out.size() - done, 0);
    if (got < 0) {
      MAYFLY_ASSERT(errno == EINTR, "getrandom failed");
      continue;
    }
    done += static_cast<std::size_t>(got);
  }
}

// A thread's random bytes in stock, so that ids cost no system call each. They lie in a page that the kernel empties in a forked
// child, which therefore has none of its parent's, and what was given out is wiped.
class RandomStock {
 public:
  RandomStock() {
    void* page = mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return;
    if (madvise(page, sizeof(Page), MADV_WIPEONFORK) == 0) {
      page_ = static_cast<Page*>(page);
    } else {
      munmap(page, sizeof(Page));
    }
  }
  ~RandomStock() {
    if (page_ == nullptr) return;
    OPENSSL_cleanse(page_, sizeof(Page));
    munmap(page_, sizeof(Page));
  }
  RandomStock(const RandomStock&) = delete;
  RandomStock& operator=(const RandomStock&) = delete;

  void take(std::span<std::uint8_t> out) {
    if (page_ == nullptr || out.size() > kPieceMax) return random_from_kernel(out);
    if (page_->left < out.size()) {
      random_from_kernel(page_->bytes);
      page_->left = page_->bytes.size();
    }
    page_->left -= out.size();
    const auto piece = std::span(page_->bytes).subspan(page_->left, out.size());
    std::ranges::copy(piece, out.begin());
    OPENSSL_cleanse(piece.data(), piece.size());
  }

 private:
  static constexpr std::size_t kPieceMax = 64;
  struct Page {
    std::size_t left;
    std::array<std::uint8_t, 1024> bytes;
  };
  Page* page_ = nullptr;
};

}  // namespace

void random_bytes(std::span<std::uint8_t> out) {
  thread_local RandomStock stock;
  stock.take(out);
}

std::string random_hex(std::size_t bytes) {
  std::string raw(bytes, '\0');
  random_bytes({reinterpret_cast<std::uint8_t*>(raw.data()), raw.size()});
  return hex_encode({reinterpret_cast<const std::uint8_t*>(raw.data()), raw.size()});
}

std::string random_uuid() {
  std::array<std::uint8_t, 16> raw{};
  random_bytes(raw);
  raw[6] = static_cast<std::uint8_t>((raw[6] & 0x0FU) | 0x40U);
  raw[8] = static_cast<std::uint8_t>((raw[8] & 0x3FU) | 0x80U);
  const std::string hex = hex_encode(raw);
  std::string text(36, '-');
  std::size_t from = 0, to = 0;
  for (const std::size_t length : {8U, 4U, 4U, 4U, 12U}) {
    hex.copy(text.data() + to, length, from);
    from += length;
    to += length + 1;
  }
  return text;
}

std::string random_text(std::size_t length, std::string_view alphabet) {
  MAYFLY_ASSERT(!alphabet.empty() && alphabet.size() <= 256, "alphabet has 1 to 256 characters");
  const std::size_t fair = 256 - 256 % alphabet.size();  // above this a byte would favour the first letters
  std::string text;
  text.reserve(length);
  while (text.size() < length) {
    std::array<std::uint8_t, 64> raw{};
    random_bytes(raw);
    for (const std::uint8_t byte : raw) {
      if (byte < fair && text.size() < length) text += alphabet[byte % alphabet.size()];
    }
  }
  return text;
}

}  // namespace mayfly::base
