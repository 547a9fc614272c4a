#include "api/lambda/model.h"

#include <gtest/gtest.h>
#include <re2/re2.h>

#include <set>

#include "api/lambda/functions.h"

namespace mayfly::api::lambda {
namespace {

std::string name_of(std::string_view method, std::string_view path, std::string_view query = "") {
  const auto match = match_operation(method, path, query);
  return match ? std::string(match->operation->name) : "";
}

TEST(ModelTest, TheTableHasEveryOperationOnce) {
  std::set<std::string_view> names;
  for (const Operation& operation : operations()) names.insert(operation.name);
  EXPECT_EQ(operations().size(), 88U);
  EXPECT_EQ(names.size(), 88U);
}

TEST(ModelTest, EveryOperationIsFoundByItsOwnMethodAndPath) {
  for (const Operation& operation : operations()) {
    std::string path(operation.path);
    while (path.find('{') != std::string::npos) path.replace(path.find('{'), path.find('}') - path.find('{') + 1, "x");
    EXPECT_EQ(name_of(operation.method, path, operation.query), operation.name) << path;
    EXPECT_EQ(name_of(operation.method, path + "/", operation.query), operation.name) << path;
  }
}

TEST(ModelTest, PathValuesArePercentDecoded) {
  const auto match = match_operation("GET", "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af", "");
  ASSERT_TRUE(match);
  ASSERT_EQ(match->path_values.size(), 1U);
  EXPECT_EQ(match->path_values[0].first, "FunctionName");
  EXPECT_EQ(match->path_values[0].second, "arn:aws:lambda:us-east-1:000000000000:function:f");
}

TEST(ModelTest, AnArnInThePathLeavesTheRestOfThePathAlone) {
  EXPECT_EQ(name_of("GET", "/2015-03-31/functions/arn:aws:lambda:us-east-1:000000000000:function:f/configuration"),
            "GetFunctionConfiguration");
  EXPECT_EQ(name_of("POST", "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af/invocations"), "Invoke");
  const auto match = match_operation("GET", "/2017-03-31/tags/arn:aws:x:y:z:kind/name", "");
  ASSERT_TRUE(match);
  EXPECT_EQ(match->path_values[0].second, "arn:aws:x:y:z:kind/name");
}

TEST(ModelTest, UnknownPathsMethodsAndBrokenEscapesHaveNoOperation) {
  EXPECT_EQ(name_of("GET", "/"), "");
  EXPECT_EQ(name_of("GET", ""), "");
  EXPECT_EQ(name_of("PATCH", "/2015-03-31/functions"), "");
  EXPECT_EQ(name_of("GET", "/2015-03-31/functions/f/nothing"), "");
  EXPECT_EQ(name_of("GET", "/2015-03-31/functions/%zz"), "");
  EXPECT_EQ(name_of("GET", "/2015-03-31/functions/f/invocations"), "");
}

TEST(ModelTest, AQueryOrAFixedWordMakesTheMoreParticularOperation) {
  EXPECT_EQ(name_of("GET", "/2018-10-31/layers", "find=LayerVersion&Arn=x"), "GetLayerVersionByArn");
  EXPECT_EQ(name_of("GET", "/2018-10-31/layers", ""), "ListLayers");
  EXPECT_EQ(name_of("GET", "/2019-09-30/functions/f/provisioned-concurrency", "List=ALL"), "ListProvisionedConcurrencyConfigs");
  EXPECT_EQ(name_of("GET", "/2019-09-30/functions/f/provisioned-concurrency", "Qualifier=1"), "GetProvisionedConcurrencyConfig");
}

void check_patterns(std::uint16_t index, std::set<std::uint16_t>& seen) {
  if (!seen.insert(index).second) return;
  const Shape& each = shape(index);
  const std::string pattern(each.match.empty() ? each.pattern : each.match);
  EXPECT_TRUE(RE2(pattern, RE2::Quiet).ok()) << each.name << ": " << pattern;
  for (const Member& member : each.members) check_patterns(member.shape, seen);
  if (each.type == ShapeType::kList || each.type == ShapeType::kMap) check_patterns(each.element, seen);
  if (each.type == ShapeType::kMap) check_patterns(each.key, seen);
}

TEST(ModelTest, EveryPatternOfAnImplementedOperationCanBeChecked) {
  std::set<std::uint16_t> seen;
  std::size_t implemented = 0;
  for (const Operation& operation : operations()) {
    if (find_control_operation(operation.name) == nullptr && !operation.name.starts_with("Invoke")) continue;
    ++implemented;
    for (const Member& member : operation.members) check_patterns(member.shape, seen);
  }
  EXPECT_EQ(implemented, 57U + 3U);
  EXPECT_GT(seen.size(), 80U);
}

TEST(ModelTest, ErrorsKeepTheirStatusAndTheCasingOfTheirMessage) {
  ASSERT_NE(find_error_type("ResourceNotFoundException"), nullptr);
  EXPECT_EQ(find_error_type("ResourceNotFoundException")->message_key, "Message");
  EXPECT_EQ(find_error_type("ResourceConflictException")->message_key, "message");
  EXPECT_EQ(find_error_type("PreconditionFailedException")->status, 412);
  EXPECT_EQ(find_error_type("NoSuchException"), nullptr);
}

}  // namespace
}  // namespace mayfly::api::lambda
