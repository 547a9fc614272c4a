#include "engine/function.h"

#include <gtest/gtest.h>

namespace mayfly::engine {
namespace {

struct Case {
  const char* text;
  const char* region;
  const char* account;
  const char* name;
  const char* qualifier;
};

TEST(FunctionName, IsReadInAllItsForms) {
  for (const Case& each : {
           Case{"f", "", "", "f", ""},
           Case{"my-func_1.x", "", "", "my-func_1.x", ""},
           Case{"f:1", "", "", "f", "1"},
           Case{"f:$LATEST", "", "", "f", "$LATEST"},
           Case{"f:live-alias", "", "", "f", "live-alias"},
           Case{"function:f:live", "", "", "f", "live"},
           Case{"function", "", "", "function", ""},
           Case{"123456789012", "", "", "123456789012", ""},
           Case{"123456789012:function:f", "", "123456789012", "f", ""},
           Case{"123456789012:f", "", "123456789012", "f", ""},
           Case{"123456789012:function:f:7", "", "123456789012", "f", "7"},
           Case{"us-east-1:123456789012:function:f", "us-east-1", "123456789012", "f", ""},
           Case{"arn:aws:lambda:us-east-1:123456789012:function:f", "us-east-1", "123456789012", "f", ""},
           Case{"arn:aws:lambda:us-gov-west-1:123456789012:function:f:$LATEST", "us-gov-west-1", "123456789012", "f", "$LATEST"},
           Case{"arn:aws-cn:lambda:us-isob-east-1:123456789012:function:f:2", "us-isob-east-1", "123456789012", "f", "2"},
           Case{"arn:aws:lambda:eusc-de-east-1:123456789012:function:f", "eusc-de-east-1", "123456789012", "f", ""},
       }) {
    const auto parsed = parse_function_name(each.text);
    ASSERT_TRUE(parsed.ok()) << each.text;
    EXPECT_EQ(parsed->region, each.region) << each.text;
    EXPECT_EQ(parsed->account, each.account) << each.text;
    EXPECT_EQ(parsed->name, each.name) << each.text;
    EXPECT_EQ(parsed->qualifier, each.qualifier) << each.text;
  }
}

TEST(FunctionName, IsRefusedInEveryOtherFormWithAwsText) {
  for (const char* text : {"",
                           ":",
                           "f:",
                           ":f",
                           "f::1",
                           "f:1:2",
                           "f:a.b",
                           "f:$latest",
                           "a b",
                           "a/b",
                           "../f",
                           "f\n",
                           "f\xC3\xA9",
                           "arn:aws:lambda:us-east-1:123400000000@function:myfn",
                           "arn:aws:s3:us-east-1:123456789012:function:f",
                           "arn:other:lambda:us-east-1:123456789012:function:f",
                           "arn:aws:lambda:us-east-1:123456789012:layer:f:1",
                           "arn:aws:lambda:us-east-1:12345678901:function:f",
                           "arn:aws:lambda:us-east:123456789012:function:f:1",
                           "arn:aws:lambda:us-east-1:123456789012:function:f:1:2",
                           "12345678901x:function:f"}) {
    const auto parsed = parse_function_name(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.error().id(), "ValidationException");
  }
  EXPECT_EQ(
      parse_function_name("a b").error().message(),
      "1 validation error detected: Value 'a b' at 'functionName' failed to satisfy constraint: Member must satisfy regular expression "
      "pattern: "
      "(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\\d{1}:)?(\\d{12}:)?(function:)?([a-zA-Z0-9-_\\.]+)"
      "(:(\\$LATEST(\\.PUBLISHED)?|[a-zA-Z0-9-_]+))?");
}

TEST(FunctionRecord, FindsVersionsByQualifier) {
  FunctionRecord record;
  const auto version = [](const char* number) {
    FunctionVersion made;
    made.version = number;
    return std::make_shared<const FunctionVersion>(made);
  };
  record.latest = version("$LATEST");
  record.published = {version("2"), version("10")};
  EXPECT_EQ(record.find(""), record.latest);
  EXPECT_EQ(record.find("$LATEST"), record.latest);
  EXPECT_EQ(record.find("10"), record.published[1]);
  for (const char* none : {"1", "02", "live", "$latest", "10 "}) EXPECT_EQ(record.find(none), nullptr) << none;
}

}  // namespace
}  // namespace mayfly::engine
