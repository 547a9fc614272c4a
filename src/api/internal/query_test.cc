#include "api/internal/query.h"

#include <gtest/gtest.h>

namespace mayfly::api {
namespace {

Form form_of(const std::string& body, const std::string& target = "/") {
  return *Form::parse({.method = "POST", .target = target, .headers = {}}, body);
}

TEST(Form, TakesParametersFromQueryAndBodyAndTheFirstOfANameCounts) {
  const Form form = form_of("Action=B&Name=a%20b+c%2Fd&Empty=&Name=later", "/?Action=A");
  EXPECT_EQ(*form.find("Action"), "A");
  EXPECT_EQ(*form.find("Name"), "a b c/d");
  EXPECT_EQ(*form.find("Empty"), "");
  EXPECT_EQ(form.find("Absent"), nullptr);
}

TEST(Form, WhatCannotBeDecodedIsRefused) {
  for (const char* body : {"Name=%zz", "Name=%ff", "Name=%C3"}) {
    const auto refused = Form::parse({.method = "POST", .target = "/", .headers = {}}, body);
    ASSERT_FALSE(refused.ok()) << body;
    EXPECT_EQ(refused.error().id(), "MalformedQueryString");
  }
  EXPECT_EQ(*form_of("Name=%C3%BC").find("Name"), "ü");
}

TEST(Form, MembersOfAListAreCountedUpToTheFirstGap) {
  const Form form = form_of("Tags.member.1.Key=a&Tags.member.2.Key=b&Tags.member.4.Key=d&Keys.member.1=x&Tags.member.10.Key=j&Other=");
  EXPECT_EQ(form.count("Tags"), 2U);
  EXPECT_EQ(form.count("Keys"), 1U);
  EXPECT_EQ(form.count("Other"), 0U);
}

TEST(Members, NameAllThatIsWrongAtOnceAsAwsDoes) {
  const Form form = form_of("RoleName=&Long=abcdef&Count=77&Word=x&Scope=Some");
  Members in(form);
  (void)in.required("RoleName", {.max = 64});
  (void)in.required("PolicyArn", {.min = 20});
  (void)in.optional("Long", {.max = 5});
  (void)in.number("Count", 1, 10);
  (void)in.number("Word", 1, 10);
  (void)in.optional("Scope", {.values = {"All", "Local"}});
  const auto checked = in.check();
  ASSERT_FALSE(checked.ok());
  EXPECT_EQ(checked.error().id(), "ValidationError");
  EXPECT_EQ(checked.error().message(),
            "6 validation errors detected: Value '' at 'roleName' failed to satisfy constraint: Member must have length greater than or "
            "equal to 1; "
            "Value null at 'policyArn' failed to satisfy constraint: Member must not be null; "
            "Value 'abcdef' at 'long' failed to satisfy constraint: Member must have length less than or equal to 5; "
            "Value '77' at 'count' failed to satisfy constraint: Member must have value less than or equal to 10; "
            "Value 'x' at 'word' failed to satisfy constraint: Member must be an integer; "
            "Value 'Some' at 'scope' failed to satisfy constraint: Member must satisfy enum value set: [All, Local]");
}

TEST(Members, CharactersAreExplainedWhereNothingElseIsWrong) {
  const Form form = form_of("RoleName=a%20b");
  const TextRule rule{.max = 64, .fits = [](std::string_view text) { return !text.contains(' '); }, .explained = "No spaces."};
  Members in(form);
  EXPECT_EQ(in.required("RoleName", rule), "a b");
  EXPECT_EQ(in.check().error().message(), "The specified value for roleName is invalid. No spaces.");
}

TEST(Members, AbsentIsNoFaultWhereItIsOptional) {
  const Form form = form_of("Yes=true&Keys.member.1=a&Keys.member.2=b");
  Members in(form);
  EXPECT_EQ(in.optional("Text", {}), std::nullopt);
  EXPECT_EQ(in.number("Number", 1, 2), std::nullopt);
  EXPECT_FALSE(in.flag("No"));
  EXPECT_TRUE(in.flag("Yes"));
  EXPECT_EQ(in.list("Keys", 5, {}), (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(in.check().ok());
}

TEST(QueryAnswer, EscapesValuesAndLeavesOutAResultThatIsNone) {
  Xml xml;
  xml.element("Role", [&] { xml.text("Name", "<a&b>").number("Age", 3).flag("Old", false); });
  EXPECT_EQ(query_answer({.action = "GetX", .xml_namespace = "urn:x", .result = xml.take()}, "id").body,
            "<GetXResponse xmlns=\"urn:x\"><GetXResult><Role><Name>&lt;a&amp;b&gt;</Name><Age>3</Age><Old>false</Old></Role></GetXResult>"
            "<ResponseMetadata><RequestId>id</RequestId></ResponseMetadata></GetXResponse>\n");
  EXPECT_EQ(query_answer({.action = "DeleteX", .xml_namespace = "urn:x", .result = std::nullopt}, "id").body.find("Result>"),
            std::string::npos);
}

}  // namespace
}  // namespace mayfly::api
