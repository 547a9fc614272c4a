#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/memory_return.h"
#include "base/result.h"
#include "base/time.h"

namespace mayfly::base {
namespace {

Result<int> half(int n) {
  if (n % 2 != 0) return Error(ErrorCode::kInvalidArgument, std::to_string(n) + " is odd");
  return n / 2;
}

Result<int> quarter(int n) {
  MAYFLY_ASSIGN(const int h, half(n));
  MAYFLY_TRY(half(h));
  return half(h);
}

TEST(Result, CarriesAValueOrTheFirstErrorWithItsContext) {
  EXPECT_EQ(*quarter(8), 2);
  auto failed = quarter(6).with_context("quarter of 6");
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().message(), "quarter of 6: 3 is odd");
  EXPECT_EQ(failed.error().code(), ErrorCode::kInvalidArgument);
}

TEST(Bytes, Base64RoundTripsEveryLengthAndRefusesWhatIsNotBase64) {
  for (std::size_t n = 0; n < 40; ++n) {
    std::string raw(n, '\0');
    for (std::size_t i = 0; i < n; ++i) raw[i] = static_cast<char>(i * 37 + n);
    EXPECT_EQ(*base64_decode(base64_encode(raw)), raw) << n;
  }
  for (const char* bad : {"a", "abc", "ab=c", "====", "a===", "ab\ncd==", "ab c"}) EXPECT_FALSE(base64_decode(bad).ok()) << bad;
}

TEST(Bytes, DigestsMatchPublishedVectors) {
  EXPECT_EQ(hex_encode(sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");  // FIPS 180-4
  for (std::size_t bytes = 0; bytes < 40; ++bytes) EXPECT_EQ(random_hex(bytes).size(), 2 * bytes);
  EXPECT_EQ(hex_encode(hmac_sha256(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");  // RFC 4231, case 6
  EXPECT_EQ(hex_encode(hmac_sha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");  // RFC 4231 case 2
}

TEST(Bytes, PercentEncodingIsUpperCaseAndReversible) {
  EXPECT_EQ(percent_encode("a b/c+é~"), "a%20b%2Fc%2B%C3%A9~");
  EXPECT_EQ(percent_encode("a/b", "/"), "a/b");
  EXPECT_EQ(*percent_decode("a%20b%2fc+"), "a b/c+");
  EXPECT_FALSE(percent_decode("100%").ok());
  EXPECT_FALSE(percent_decode("%zz").ok());
}

TEST(Bytes, UuidsAreVersionFourAndDiffer) {
  const std::string a = random_uuid();
  EXPECT_EQ(a.size(), 36U);
  EXPECT_EQ(a[14], '4');
  EXPECT_NE(a, random_uuid());
}

TEST(Json, RefusesDuplicateKeysDepthTrailingBytesAndSize) {
  EXPECT_TRUE(parse_json(R"({"a":[1,{"b":null}]} )").ok());
  for (const char* bad :
       {R"({"a":1,"a":2})", R"({"a":{"b":1,"b":1}})", "{} x", "{", "", "[1,]", "{\"a\":NaN}", "// c\n1", "\xEF\xBB\xBF{}"}) {
    EXPECT_FALSE(parse_json(bad).ok()) << bad;
  }
  const std::string deep(100'000, '[');
  EXPECT_FALSE(parse_json(deep).ok());
  EXPECT_FALSE(check_json(deep).ok());
  EXPECT_EQ(parse_json("123456", {.bytes_max = 5}).error().code(), ErrorCode::kTooLarge);
  EXPECT_TRUE(check_json(R"({"a":1,"a":2})").ok());
  EXPECT_FALSE(check_json("{\"a\"").ok());
}

TEST(Json, WhatIsNoUtf8IsReplacedByteForByteAndTheRestStays) {
  EXPECT_EQ(valid_utf8("plain gr\xC3\xBCn \xF0\x9F\x98\x80"), "plain gr\xC3\xBCn \xF0\x9F\x98\x80");
  EXPECT_EQ(valid_utf8("a\xFF"
                       "b"),
            "a\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(valid_utf8("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");  // a surrogate
  EXPECT_EQ(valid_utf8("\xC0\xAF!"), "\xEF\xBF\xBD\xEF\xBF\xBD!");                // overlong
  EXPECT_EQ(valid_utf8("cut \xE2\x82"), "cut \xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(Time, FormatsAsEachWireWantsIt) {
  const WallTime t = wall_from_epoch_ms(1'795'460'521'007);
  EXPECT_EQ(format_iso_ms(t), "2026-11-23T19:02:01.007Z");
  EXPECT_EQ(format_lambda_time(t), "2026-11-23T19:02:01.007+0000");
  EXPECT_EQ(format_amz_date(t), "20261123T190201Z");
  EXPECT_EQ(epoch_ms(*parse_amz_date("20261123T190201Z")), 1'795'460'521'000);
  EXPECT_FALSE(parse_amz_date("20261323T190201Z").ok());
  EXPECT_EQ(format_log_date(t), "2026/11/23");
}

TEST(Files, ReplaceWholeAndStayBeneath) {
  char pattern[] = "/tmp/mayfly-base-test-XXXXXX";
  const std::string dir = mkdtemp(pattern);
  ASSERT_TRUE(make_directories(dir + "/a/b").ok());
  ASSERT_TRUE(write_file_durably(dir + "/a/b/f", "one").ok());
  ASSERT_TRUE(write_file_durably(dir + "/a/b/f", "two").ok());
  EXPECT_EQ(*read_file(dir + "/a/b/f"), "two");
  EXPECT_EQ(read_file(dir + "/a/b/f", 2).error().code(), ErrorCode::kTooLarge);
  auto root = open_file(dir + "/a", 0);
  ASSERT_TRUE(root.ok());
  EXPECT_TRUE(open_beneath(root->get(), "b/f", 0).ok());
  EXPECT_FALSE(open_beneath(root->get(), "../a/b/f", 0).ok());
  EXPECT_TRUE(remove_tree(dir).ok());
  EXPECT_EQ(read_file(dir + "/a/b/f").error().code(), ErrorCode::kNotFound);
}

std::size_t resident_file_kib() {
  const std::string status = *read_file("/proc/self/status");
  return std::stoul(status.substr(status.find("RssFile:") + 8));
}

TEST(MemoryReturn, MappedPagesOfTheProgramGoAndItWorksOn) {
  const std::size_t before = resident_file_kib();
  return_memory_of_start();
  const std::size_t after = resident_file_kib();
  EXPECT_LT(after, before);
  EXPECT_EQ(hex_encode(sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

}  // namespace
}  // namespace mayfly::base
