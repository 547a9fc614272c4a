#include "api/lambda/payload.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace mayfly::api::lambda {
namespace {

constexpr const char* kPrefix = "Could not parse request body into json: Could not parse payload into json: ";
constexpr const char* kSource = "\n at [Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); ";

std::string complaint(const std::string& payload) {
  const auto checked = check_payload_json(payload);
  EXPECT_FALSE(checked.ok()) << payload;
  if (checked.ok()) return "";
  EXPECT_EQ(checked.error().id(), "InvalidRequestContentException");
  return checked.error().message();
}

TEST(PayloadTest, JsonOfEveryKindPasses) {
  for (const char* good : {"{}", "[]", "null", "\"text\"", "-1.5e3", " {\"a\":[1,2,{\"b\":null}]} \n", "true", "{\"a\":1,\"a\":2}"})
    EXPECT_TRUE(check_payload_json(good).ok()) << good;
}

TEST(PayloadTest, HalfASurrogatePairAsAnEscapePasses) {
  for (const char* good : {R"("\ud800")", R"({"\uDFFF":["\udc00\ud800", "\ud83d\ude00"]})"})
    EXPECT_TRUE(check_payload_json(good).ok()) << good;
  EXPECT_NE(complaint(R"({"a":"\ud800"]})").find("comma"), std::string::npos);
  complaint("[\"\\ud800\", \"\xed\xa0\x80\"]");
  for (const char* cut : {R"("\ud800\udd)", R"("\ud800\)", "\"\\ud800\xc3"}) EXPECT_NE(complaint(cut).find("Unexpected end-of-input"), std::string::npos) << cut;
}

TEST(PayloadTest, BrokenBytesAreReportedAsTheRealServiceDoes) {
  EXPECT_EQ(complaint("n\x87r\x9e\xe9\xb5\xd7I\xee\x9bmt"),
            std::string(kPrefix) + "Invalid UTF-8 start byte 0x87" + kSource + "line: 1, column: 3]");
  EXPECT_EQ(complaint("\x99\xeb,j\x07\xa1zYh"), std::string(kPrefix) +
                                                    "Unexpected character ((CTRL-CHAR, code 153)): expected a valid value (JSON String, "
                                                    "Number, Array, Object or token 'null', 'true' or 'false')" +
                                                    kSource + "line: 1, column: 1]");
}

TEST(PayloadTest, TheComplaintNamesWhatIsWrongAndWhere) {
  EXPECT_NE(complaint("notjson").find("Unrecognized token 'notjson': was expecting (JSON String"), std::string::npos);
  EXPECT_NE(complaint("{\"a\":1").find("Unexpected end-of-input: expected close marker for Object"), std::string::npos);
  EXPECT_NE(complaint("{'a':1}").find("Unexpected character (''' (code 39)): was expecting double-quote to start field name"),
            std::string::npos);
  EXPECT_NE(complaint("{\n \"a\" 1}").find("line: 2, column: 6]"), std::string::npos) << complaint("{\n \"a\" 1}");
  EXPECT_NE(complaint("[1 2]").find("was expecting comma to separate Array entries"), std::string::npos);
  EXPECT_NE(complaint("\"abc").find("Unexpected end-of-input in VALUE_STRING"), std::string::npos);
}

TEST(PayloadTest, EveryBrokenTextIsRefusedWithSomeComplaint) {
  for (const char* broken : {"{",        "[",          "{\"a\"", "{\"a\":", "{\"a\":}",         "[1,]",   "[,]",   "01",  "1.", "1e",
                             "-",        "tru",        "nul",    "\"\\x\"", "\"\\u12\"",        "\"\t\"", "{} {}", "1 2", "}",  "\xff",
                             "\"\xc3\"", "{\"a\":1,}", "+1",     "NaN",     "\"\xed\xa0\x80\"", "\\"}) {
    EXPECT_TRUE(complaint(broken).starts_with(kPrefix)) << broken;
  }
  complaint(std::string(200'000, '['));
}

TEST(PayloadTest, AClientContextIsBase64OfAnObjectWithinItsLimit) {
  EXPECT_EQ(*decode_client_context(""), "");
  EXPECT_EQ(*decode_client_context(base::base64_encode(R"({"custom":{"a":"b"}})")), R"({"custom":{"a":"b"}})");
  for (const std::string& bad : {std::string("!!"), base::base64_encode("not json"), base::base64_encode("[1]"), std::string(3584, 'A')}) {
    const auto decoded = decode_client_context(bad);
    ASSERT_FALSE(decoded.ok()) << bad;
    EXPECT_EQ(decoded.error().id(), "InvalidRequestContentException");
  }
}

}  // namespace
}  // namespace mayfly::api::lambda
