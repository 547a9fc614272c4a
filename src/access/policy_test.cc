#include "access/policy.h"

#include <gtest/gtest.h>

namespace mayfly::access {
namespace {

constexpr const char* kFunction = "arn:aws:lambda:us-east-1:000000000000:function:hello";

PolicyRequest anonymous() {
  return {.account = {},
          .principal_arn = {},
          .role_arn = {},
          .service = {},
          .action = "lambda:InvokeFunctionUrl",
          .resource = kFunction,
          .context = {{"lambda:functionurlauthtype", "NONE"}}};
}

PolicyRequest role_session() {
  PolicyRequest request = anonymous();
  request.account = "000000000000";
  request.principal_arn = "arn:aws:sts::000000000000:assumed-role/worker/other";
  request.role_arn = "arn:aws:iam::000000000000:role/worker";
  return request;
}

PolicyDecision decide(std::vector<std::string_view> statements, const PolicyRequest& request) { return evaluate(statements, request); }

std::string statement(const std::string& rest) { return R"({"Sid":"s",)" + rest + "}"; }

std::string allow(const std::string& principal, const std::string& condition = {}) {
  return statement(R"("Effect":"Allow","Action":"lambda:InvokeFunctionUrl","Resource":")" + std::string(kFunction) + R"(","Principal":)" +
                   principal + (condition.empty() ? "" : R"(,"Condition":)" + condition));
}

TEST(Policy, WhatAddPermissionAnswersOpensAFunctionUrlForEverybody) {
  const std::string made = allow(R"("*")", R"({"StringEquals":{"lambda:FunctionUrlAuthType":"NONE"}})");
  EXPECT_EQ(decide({made}, anonymous()), PolicyDecision::kAllow);
  PolicyRequest other = anonymous();
  other.action = "lambda:InvokeFunction";
  EXPECT_EQ(decide({made}, other), PolicyDecision::kNone);
  other = anonymous();
  other.resource += "2";
  EXPECT_EQ(decide({made}, other), PolicyDecision::kNone);
  other = anonymous();
  other.context["lambda:functionurlauthtype"] = "AWS_IAM";
  EXPECT_EQ(decide({made}, other), PolicyDecision::kNone);
  EXPECT_EQ(decide({}, anonymous()), PolicyDecision::kNone);
}

TEST(Policy, ADenialWinsWhereverItStands) {
  const std::string deny = statement(R"("Effect":"Deny","Principal":"*","Action":"lambda:*","Resource":"*")");
  EXPECT_EQ(decide({allow(R"("*")"), deny}, anonymous()), PolicyDecision::kDeny);
  EXPECT_EQ(decide({deny, allow(R"("*")")}, anonymous()), PolicyDecision::kDeny);
}

TEST(Policy, NamesPrincipals) {
  for (const char* named : {R"("*")", R"({"AWS":"*"})", R"({"AWS":["arn:aws:iam::111111111111:root","*"]})"})
    EXPECT_EQ(decide({allow(named)}, anonymous()), PolicyDecision::kAllow) << named;
  for (const char* named :
       {R"({"AWS":"000000000000"})", R"("000000000000")", R"({"AWS":"arn:aws:iam::000000000000:root"})",
        R"({"AWS":"arn:aws:iam::000000000000:role/worker"})", R"({"AWS":"arn:aws:sts::000000000000:assumed-role/worker/other"})"}) {
    EXPECT_EQ(decide({allow(named)}, role_session()), PolicyDecision::kAllow) << named;
    EXPECT_EQ(decide({allow(named)}, anonymous()), PolicyDecision::kNone) << named;
  }
  for (const char* named : {R"({"AWS":"111111111111"})", R"({"AWS":"arn:aws:iam::000000000000:role/*"})", R"({"Service":"*"})",
                            R"({"Service":"lambda.amazonaws.com"})", R"({"AWS":""})", R"({})"})
    EXPECT_EQ(decide({allow(named)}, role_session()), PolicyDecision::kNone) << named;
  PolicyRequest service = anonymous();
  service.service = "events.amazonaws.com";
  EXPECT_EQ(decide({allow(R"({"Service":"events.amazonaws.com"})")}, service), PolicyDecision::kAllow);
  EXPECT_EQ(decide({allow(R"({"Service":"s3.amazonaws.com"})")}, service), PolicyDecision::kNone);
}

TEST(Policy, ComparesByOperator) {
  PolicyRequest request = anonymous();
  request.context = {
      {"aws:sourcearn", "arn:aws:s3:::bucket"}, {"aws:sourceaccount", "123"}, {"lambda:invokedviafunctionurl", "true"}, {"n", "5"}};
  const auto holds = [&request](const std::string& condition) {
    return decide({allow(R"("*")", condition)}, request) == PolicyDecision::kAllow;
  };
  EXPECT_TRUE(holds(R"({"ArnLike":{"AWS:SourceArn":"arn:aws:s3:::*"}})"));
  EXPECT_TRUE(holds(R"({"ArnLike":{"AWS:SourceArn":"arn:*:s3:::buck?t"}})"));
  EXPECT_FALSE(holds(R"({"ArnLike":{"AWS:SourceArn":"arn:*"}})"));  // six parts, each by itself
  EXPECT_TRUE(holds(R"({"StringLike":{"AWS:SourceArn":"arn:*"}})"));
  EXPECT_FALSE(holds(R"({"ArnNotLike":{"AWS:SourceArn":"arn:aws:s3:::*"}})"));
  EXPECT_TRUE(holds(R"({"StringEquals":{"AWS:SourceAccount":["1","123"]}})"));
  EXPECT_FALSE(holds(R"({"StringNotEquals":{"AWS:SourceAccount":["1","123"]}})"));
  EXPECT_TRUE(holds(R"({"Bool":{"lambda:InvokedViaFunctionUrl":"true"}})"));
  EXPECT_TRUE(holds(R"({"Bool":{"lambda:InvokedViaFunctionUrl":true}})"));
  EXPECT_FALSE(holds(R"({"Bool":{"lambda:InvokedViaFunctionUrl":"false"}})"));
  EXPECT_TRUE(holds(R"({"NumericLessThan":{"n":10},"NumericGreaterThanEquals":{"n":"5"}})"));
  EXPECT_FALSE(holds(R"({"NumericLessThan":{"n":"five"}})"));
  EXPECT_TRUE(holds(R"({"Null":{"absent":"true","n":"false"}})"));
  EXPECT_FALSE(holds(R"({"Null":{"n":"true"}})"));
  EXPECT_FALSE(holds(R"({"StringEquals":{"absent":"x"}})"));
  EXPECT_TRUE(holds(R"({"StringEqualsIfExists":{"absent":"x"}})"));
  EXPECT_TRUE(holds(R"({"StringNotEquals":{"absent":"x"}})"));
  EXPECT_FALSE(holds(R"({"StringEquals":{"AWS:SourceAccount":"123","n":"6"}})"));  // all keys
  EXPECT_FALSE(holds(R"({"StringEquals":{"n":[]}})"));
}

TEST(Policy, WhatItDoesNotUnderstandNeverAllowsAndAlwaysDenies) {
  const std::string everything = R"("Principal":"*","Action":"*","Resource":"*")";
  for (const std::string& odd :
       {std::string(R"("Condition":{"DateLessThan":{"aws:CurrentTime":"2030-01-01"}})"), std::string(R"("Condition":{"StringEquals":[]})"),
        std::string(R"("Condition":"no")"), std::string(R"("Condition":{"StringEquals":{"lambda:FunctionUrlAuthType":"${aws:username}"}})"),
        std::string(R"("NotPrincipal":{"AWS":"111111111111"})")}) {
    EXPECT_EQ(decide({statement(R"("Effect":"Allow",)" + everything + "," + odd)}, anonymous()), PolicyDecision::kNone) << odd;
    EXPECT_EQ(decide({statement(R"("Effect":"Deny",)" + everything + "," + odd)}, anonymous()), PolicyDecision::kDeny) << odd;
  }
  for (const char* broken : {"", "{", "[]", "3", R"({"Effect":"Allow","Effect":"Deny"})", R"({})",
                             R"({"Effect":"allow","Principal":"*","Action":"*","Resource":"*"})"})
    EXPECT_EQ(decide({broken, allow(R"("*")")}, anonymous()), PolicyDecision::kDeny) << broken;
  EXPECT_EQ(decide({statement(R"("Effect":"Allow","Principal":"*","Action":"*")")}, anonymous()), PolicyDecision::kNone);
}

TEST(Policy, TakesTheOppositesOfActionAndResource) {
  EXPECT_EQ(decide({statement(R"("Effect":"Allow","Principal":"*","NotAction":"s3:*","Resource":"*")")}, anonymous()),
            PolicyDecision::kAllow);
  EXPECT_EQ(decide({statement(R"("Effect":"Allow","Principal":"*","NotAction":"LAMBDA:*","Resource":"*")")}, anonymous()),
            PolicyDecision::kNone);
  EXPECT_EQ(decide({statement(R"("Effect":"Deny","Principal":"*","Action":"*","NotResource":"arn:aws:s3:::*")")}, anonymous()),
            PolicyDecision::kDeny);
}

TEST(Wildcard, MatchesRunsAndSingleCharacters) {
  EXPECT_TRUE(matches_wildcard("*", ""));
  EXPECT_TRUE(matches_wildcard("a*c", "abc"));
  EXPECT_TRUE(matches_wildcard("a*c", "ac"));
  EXPECT_TRUE(matches_wildcard("a*b*c", "aXbYbZc"));
  EXPECT_TRUE(matches_wildcard("?b", "ab"));
  EXPECT_FALSE(matches_wildcard("?", ""));
  EXPECT_FALSE(matches_wildcard("a*c", "abd"));
  EXPECT_FALSE(matches_wildcard("", "a"));
  EXPECT_FALSE(matches_wildcard("a*a*a*a*a*a*a*a*a*b", std::string(2000, 'a')));  // at once
}

}  // namespace
}  // namespace mayfly::access
