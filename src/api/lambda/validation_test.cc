#include "api/lambda/validation.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "api/lambda/golden_for_test.h"

namespace mayfly::api::lambda {
namespace {

namespace json = boost::json;
using base::Result;

Result<json::object> read(const std::string& method, const std::string& target, const std::string& body = "", net::Headers headers = {}) {
  const net::RequestHead head{.method = method, .target = target, .headers = std::move(headers)};
  const auto match = match_operation(method, head.path(), head.query());
  EXPECT_TRUE(match) << target;
  return read_input(*match, head, body);
}

Result<json::object> create(const std::string& members) {
  return read(
      "POST", "/2015-03-31/functions",
      R"({"FunctionName":"f","Role":"arn:aws:iam::000000000000:role/r","Code":{"ZipFile":"UEsF"},"Runtime":"python3.12","Handler":"a.b")" +
          members + "}");
}

void expect_error(const Result<json::object>& result, const std::string& type, const std::string& message) {
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().id(), type);
  EXPECT_EQ(result.error().message(), message);
}
void expect_golden(const Result<json::object>& result, const std::string& name) {
  const GoldenError golden = golden_error(name);
  expect_error(result, golden.type, golden.message);
}
std::string violation(const std::string& path, const std::string& value, const std::string& constraint) {
  return "1 validation error detected: Value '" + value + "' at '" + path + "' failed to satisfy constraint: " + constraint;
}

TEST(ValidationTest, ParametersOfPathQueryHeaderAndBodyComeTogether) {
  net::Headers headers;
  headers.add("X-Amz-Log-Type", "Tail");
  const auto input = read("POST", "/2015-03-31/functions/f/invocations?Qualifier=1", "not looked at", headers);
  ASSERT_TRUE(input.ok()) << input.error().message();
  EXPECT_EQ(json::serialize(*input), R"({"FunctionName":"f","Qualifier":"1","LogType":"Tail"})");
}

TEST(ValidationTest, NullMembersCountAsAbsentAndUnknownOnesAreLeftOut) {
  const auto input = create(R"(,"Timeout":null,"NoSuchMember":1)");
  ASSERT_TRUE(input.ok()) << input.error().message();
  EXPECT_FALSE(input->contains("Timeout"));
  EXPECT_FALSE(input->contains("NoSuchMember"));
}

TEST(ValidationTest, RecordedViolationsHaveTheRecordedTexts) {
  expect_golden(read("POST", "/2015-03-31/functions", R"({"FunctionName":"f","Role":"r1","Code":{"ZipFile":"UEsF"}})"), "role");
  expect_golden(create(R"(,"Architectures":["x86_64","arm64"])"), "architectures_two");
  expect_golden(create(R"(,"Architectures":["X86_64"])"), "architecture_uppercase");
  expect_golden(read("POST", "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A123400000000%40function%3Amyfn/invocations"),
                "name_pattern");
  expect_golden(read("POST", "/2017-03-31/tags/arn%3Aaws%3Asomething", R"({"Tags":{"a":"b"}})"), "tag_arn");
  expect_golden(read("DELETE", "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af"), "untag_keys");
}

TEST(ValidationTest, EveryViolationIsNamedAtOnce) {
  const auto input = read("POST", "/2015-03-31/functions", R"({"FunctionName":"f","Role":"r1","Code":{},"Timeout":0,"MemorySize":127})");
  ASSERT_FALSE(input.ok());
  EXPECT_TRUE(input.error().message().starts_with("3 validation errors detected: Value 'r1' at 'role'")) << input.error().message();
  EXPECT_NE(input.error().message().find(
                "; Value '0' at 'timeout' failed to satisfy constraint: Member must have value greater than or equal to 1; "),
            std::string::npos);
  EXPECT_TRUE(input.error().message().ends_with(
      "Value '127' at 'memorySize' failed to satisfy constraint: Member must have value greater than or equal to 128"));
}

TEST(ValidationTest, RequiredMembersMustNotBeNull) {
  const auto input = read("POST", "/2015-03-31/functions", "{}");
  ASSERT_FALSE(input.ok());
  for (const char* name : {"functionName", "role", "code"}) {
    EXPECT_NE(
        input.error().message().find("Value null at '" + std::string(name) + "' failed to satisfy constraint: Member must not be null"),
        std::string::npos);
  }
  EXPECT_TRUE(input.error().message().starts_with("3 validation errors"));
}

TEST(ValidationTest, BoundsAreKeptAtTheirEdges) {
  EXPECT_TRUE(create(R"(,"EphemeralStorage":{"Size":512})").ok());
  EXPECT_TRUE(create(R"(,"EphemeralStorage":{"Size":10240})").ok());
  expect_error(create(R"(,"EphemeralStorage":{"Size":511})"), "ValidationException",
               violation("ephemeralStorage.size", "511", "Member must have value greater than or equal to 512"));
  expect_error(create(R"(,"EphemeralStorage":{"Size":10241})"), "ValidationException",
               violation("ephemeralStorage.size", "10241", "Member must have value less than or equal to 10240"));
  expect_error(create(R"(,"EphemeralStorage":{"Size":99999999999999999999})"), "SerializationException",
               "ephemeralStorage.size: a fraction where a whole number is expected");
  const std::string long_text(256, 'd');
  EXPECT_TRUE(create(R"(,"Description":")" + long_text + "\"").ok());
  expect_error(create(R"(,"Description":")" + long_text + "d\""), "ValidationException",
               violation("description", long_text + "d", "Member must have length less than or equal to 256"));
}

TEST(ValidationTest, LengthsCountCharactersNotBytes) {
  std::string umlauts;
  for (int i = 0; i < 256; ++i) umlauts += "\xc3\xbc";
  EXPECT_TRUE(create(R"(,"Description":")" + umlauts + "\"").ok());
}

TEST(ValidationTest, MapKeysAndValuesAreChecked) {
  EXPECT_TRUE(create(R"(,"Environment":{"Variables":{"GOOD_1":"x"}})").ok());
  const auto bad = create(R"(,"Environment":{"Variables":{"1BAD":"x"}})");
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().message(), violation("environment.variables", "{1BAD=x}",
                                             "Map keys must satisfy constraint: [Member must satisfy regular expression pattern: "
                                             "[a-zA-Z]([a-zA-Z0-9_])+, Member must not be null]"));
  EXPECT_TRUE(create(R"(,"Tags":{"Gr\u00f6\u00dfe":"\u00fc b"})").ok());
  EXPECT_FALSE(create(R"(,"Tags":{"a":"b\u0007"})").ok());
}

TEST(ValidationTest, ValuesOfAnotherTypeAreNamed) {
  expect_error(create(R"(,"Timeout":"5")"), "SerializationException", "timeout: a string where a whole number is expected");
  expect_error(create(R"(,"Timeout":1.5)"), "SerializationException", "timeout: a fraction where a whole number is expected");
  expect_error(create(R"(,"Environment":[])"), "SerializationException", "environment: a list where an object is expected");
  expect_error(create(R"(,"Publish":"true")"), "SerializationException", "publish: a string where a boolean is expected");
  expect_error(create(R"(,"Layers":[1])"), "SerializationException", "layers: a number where a string is expected");
}

TEST(ValidationTest, ABodyThatIsNoJsonObjectIsRefused) {
  for (const char* body : {"{", "[]", "\"x\"", "{\"FunctionName\":\"a\",\"FunctionName\":\"b\"}", "\xff"}) {
    const auto input = read("POST", "/2015-03-31/functions", body);
    ASSERT_FALSE(input.ok()) << body;
    EXPECT_EQ(input.error().id(), "InvalidRequestContentException");
    EXPECT_TRUE(input.error().message().starts_with("Could not parse request body into json: ")) << input.error().message();
  }
}

TEST(ValidationTest, QueryNumbersAreRead) {
  const auto input = read("GET", "/2015-03-31/functions?MaxItems=7&FunctionVersion=ALL");
  ASSERT_TRUE(input.ok()) << input.error().message();
  EXPECT_EQ(input->at("MaxItems").as_int64(), 7);
  expect_error(read("GET", "/2015-03-31/functions?MaxItems=0"), "ValidationException",
               violation("maxItems", "0", "Member must have value greater than or equal to 1"));
  expect_error(read("GET", "/2015-03-31/functions?MaxItems=x"), "SerializationException", "maxItems: 'x' where a whole number is expected");
  expect_error(read("GET", "/2015-03-31/functions?FunctionVersion=SOME"), "ValidationException",
               violation("functionVersion", "SOME", "Member must satisfy enum value set: [ALL]"));
}

}  // namespace
}  // namespace mayfly::api::lambda
