#include "events/internal/event_pattern.h"

#include <gtest/gtest.h>

#include <string>

namespace mayfly::events {
namespace {

TEST(EventPatternTest, WhatTheServiceAcceptsIsAPattern) {
  for (const char* pattern : {
           // Recorded: test_sqs_event_filter.
           R"({"body":{"testItem":["test24","test45"],"test2":["go"]}})",
           R"({"body":{"test2":[{"exists":true}]}})",
           R"({"body":{"test2":[{"numeric":[">",100]}]}})",
           R"({"body":{"test2":[{"numeric":[">=",100,"<",200]}]}})",
           R"({"body":{"test2":[{"prefix":"us-1"}]}})",
           R"({"eventName":["INSERT"],"eventSource":["aws:dynamodb"]})",
           // The user guide's operators.
           R"({"a":[null,"",1,true]})",
           R"({"a":[{"suffix":".png"},{"prefix":{"equals-ignore-case":"x"}}]})",
           R"({"a":[{"anything-but":"x"},{"anything-but":[1,2]},{"anything-but":["x","y"]},{"anything-but":{"prefix":["p","q"]}}]})",
           R"({"a":[{"equals-ignore-case":"x"},{"wildcard":"a*b"},{"cidr":"10.0.0.0/24"},{"cidr":"2001:db8::/32"}]})",
           R"({"$or":[{"a":["x"]},{"b":{"c":["y"]}}]})",
           R"({"a":[{"numeric":["=",3.5e2]}]})",
       }) {
    EXPECT_TRUE(check_event_pattern(pattern).ok()) << pattern << ": " << check_event_pattern(pattern).error().message();
  }
}

TEST(EventPatternTest, WhatTheServiceRefusesIsNone) {
  for (const char* pattern : {
           // Recorded: test_sqs_invalid_event_filter, test_dynamodb_invalid_event_filter.
           "null",
           "simple string",
           R"({"eventSource":"aws:sqs"})",
           R"({"eventSource":[]})",
           R"([{"eventName":["INSERT"=123}])",
           "single-string",
           // Not the language.
           "",
           "{}",
           "[]",
           R"({"a":{}})",
           R"({"a":[["x"]]})",
           R"({"a":[{"prefx":"x"}]})",
           R"({"a":[{"prefix":"x","suffix":"y"}]})",
           R"({"a":[{"prefix":1}]})",
           R"({"a":[{"exists":"true"}]})",
           R"({"a":[{"numeric":[">"]}]})",
           R"({"a":[{"numeric":["~",1]}]})",
           R"({"a":[{"numeric":[">",5,"<",1]}]})",
           R"({"a":[{"numeric":["<",1,">",5]}]})",
           R"({"a":[{"numeric":[">","1"]}]})",
           R"({"a":[{"anything-but":[]}]})",
           R"({"a":[{"anything-but":[1,"x"]}]})",
           R"({"a":[{"anything-but":{"numeric":[">",1]}}]})",
           R"({"a":[{"wildcard":"a**"}]})",
           R"({"a":[{"cidr":"10.0.0.0"}]})",
           R"({"a":[{"cidr":"10.0.0.0/33"}]})",
           R"({"a":[{"cidr":"10.0.0.0/8x"}]})",
           R"({"a":[{}]})",
           R"({"$or":[{"a":[]},{"b":["x"]}]})",
           R"({"a":1})",
       }) {
    EXPECT_FALSE(check_event_pattern(pattern).ok()) << pattern;
  }
}

TEST(EventPatternTest, NestingIsBounded) {
  std::string deep;
  for (int i = 0; i < 5000; ++i) deep += R"({"a":)";
  EXPECT_FALSE(check_event_pattern(deep + R"(["x"])" + std::string(5000, '}')).ok());
}

}  // namespace
}  // namespace mayfly::events
