#include "api/logs/filter_pattern.h"

#include <gtest/gtest.h>

namespace mayfly::api::logs {
namespace {

bool found(const std::string& pattern, const std::string& message) {
  const auto parsed = FilterPattern::parse(pattern);
  EXPECT_TRUE(parsed.ok()) << pattern << ": " << parsed.error().message();
  return parsed.ok() && parsed->matches(message);
}

std::string refusal(const std::string& pattern) {
  const auto parsed = FilterPattern::parse(pattern);
  EXPECT_FALSE(parsed.ok()) << pattern;
  if (parsed.ok()) return "";
  EXPECT_EQ(parsed.error().id(), "InvalidParameterException");
  return parsed.error().message();
}

TEST(FilterPatternTest, AnEmptyPatternFindsEverything) {
  EXPECT_TRUE(found("", "anything"));
  EXPECT_TRUE(found("   ", ""));
}

TEST(FilterPatternTest, EveryTermMustOccurInItsCase) {
  EXPECT_TRUE(found("ERROR timeout", "ERROR: a timeout happened"));
  EXPECT_FALSE(found("ERROR timeout", "ERROR: disk full"));
  EXPECT_FALSE(found("ERROR", "error"));
}

TEST(FilterPatternTest, AQuotedPhraseOccursAsItStands) {
  EXPECT_TRUE(found("\"Task timed out\"", "2026 Task timed out after 3.00 seconds"));
  EXPECT_FALSE(found("\"Task timed out\"", "Task was timed out"));
  EXPECT_TRUE(found(R"("say \"hi\"")", R"(they say "hi")"));
  EXPECT_TRUE(found("\"a-b: c\"", "x a-b: c y"));
}

TEST(FilterPatternTest, AQuestionMarkMeansAnyOfThese) {
  EXPECT_TRUE(found("?ERROR ?WARN", "WARN low disk"));
  EXPECT_FALSE(found("?ERROR ?WARN", "INFO fine"));
}

TEST(FilterPatternTest, AMinusMeansNotThis) {
  EXPECT_TRUE(found("ERROR -Exiting", "ERROR broken"));
  EXPECT_FALSE(found("ERROR -Exiting", "ERROR Exiting"));
  EXPECT_FALSE(found("-\"END RequestId\"", "END RequestId: 1"));
}

TEST(FilterPatternTest, AJsonMemberIsComparedAsTextOrNumber) {
  EXPECT_TRUE(found(R"({ $.level = "ERROR" })", R"({"level":"ERROR"})"));
  EXPECT_FALSE(found(R"({ $.level = "ERROR" })", R"({"level":"INFO"})"));
  EXPECT_TRUE(found(R"({ $.level = ERROR })", "{\"level\":\"ERROR\"}\n"));
  EXPECT_TRUE(found(R"({$.took>=10.5})", R"({"took":11})"));
  EXPECT_FALSE(found(R"({$.took>=10.5})", R"({"took":"11"})"));
  EXPECT_TRUE(found(R"({ $.a.b[1].c != 4 })", R"({"a":{"b":[0,{"c":5}]}})"));
  EXPECT_TRUE(found(R"({ $.who = "ann*b" })", R"({"who":"ann and bob"})"));
}

TEST(FilterPatternTest, AMessageThatIsNoJsonMatchesNoJsonPattern) {
  EXPECT_FALSE(found(R"({ $.level != "ERROR" })", "plain text"));
  EXPECT_FALSE(found(R"({ $.level NOT EXISTS })", "{broken"));
}

TEST(FilterPatternTest, ConditionsJoinWithAndBeforeOrAndParentheses) {
  const std::string pattern = R"({ ($.a = 1 || $.b = 2) && $.c = 3 })";
  EXPECT_TRUE(found(pattern, R"({"a":1,"c":3})"));
  EXPECT_TRUE(found(pattern, R"({"b":2,"c":3})"));
  EXPECT_FALSE(found(pattern, R"({"a":1,"c":4})"));
  EXPECT_TRUE(found(R"({ $.a = 1 || $.b = 2 && $.c = 3 })", R"({"a":1})"));
}

TEST(FilterPatternTest, ExistenceNullAndTruthAreAskedByWords) {
  EXPECT_TRUE(found("{ $.x EXISTS }", R"({"x":null})"));
  EXPECT_TRUE(found("{ $.y NOT EXISTS }", R"({"x":1})"));
  EXPECT_TRUE(found("{ $.x IS NULL }", R"({"x":null})"));
  EXPECT_TRUE(found("{ $.ok is false }", R"({"ok":false})"));
  EXPECT_FALSE(found("{ $.ok IS TRUE }", R"({"ok":"true"})"));
}

TEST(FilterPatternTest, WhatIsNotSupportedIsRefusedByName) {
  EXPECT_NE(refusal("[ip, user, status=4*]").find("columns"), std::string::npos);
  EXPECT_NE(refusal("%ERR.*%").find("regular expressions"), std::string::npos);
  EXPECT_NE(refusal("{ $.a = %x% }").find("regular expressions"), std::string::npos);
}

TEST(FilterPatternTest, BrokenPatternsAreRefusedWithTheirPlace) {
  EXPECT_EQ(refusal("foo-bar"), "Invalid character(s) in term 'foo-bar'; put it in double quotes");
  EXPECT_NE(refusal("\"open").find("not closed"), std::string::npos);
  EXPECT_NE(refusal("{ $.a = 1").find("character 10"), std::string::npos) << refusal("{ $.a = 1");
  for (const char* broken : {"{", "{}", "{ $ }", "{ $.a }", "{ $.a = }", "{ a = 1 }", "{ $.a = 1 } x", "{ $.a > \"text\" }",
                             "{ $.a[x] = 1 }", "?", "-", "{ $.a IS 1 }"})
    refusal(broken);
  EXPECT_NE(refusal(std::string(2000, 'a')).find("1024"), std::string::npos);
  std::string deep = "{ ";
  for (int i = 0; i < 400; ++i) deep += '(';
  refusal(deep);
}

}  // namespace
}  // namespace mayfly::api::logs
