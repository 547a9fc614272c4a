#include "services/roles.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "services/internal/policy_document.h"
#include "services/internal/role_documents.h"

namespace mayfly::services {
namespace {

using base::ErrorCode;

constexpr const char* kTrust =
    R"({"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]})";
constexpr const char* kLogs = R"({"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"logs:*","Resource":"*"}]})";
constexpr const char* kBasic = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole";

class RolesTest : public ::testing::Test {
 protected:
  RolesTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "mayfly-roles-XXXXXX";
    directory_ = mkdtemp(pattern.data());
    open();
  }
  ~RolesTest() override {
    roles_.reset();
    catalogue_.reset();
    std::filesystem::remove_all(directory_);
  }
  void open() {
    roles_.reset();
    catalogue_.reset();
    catalogue_ = *store::open_catalogue(directory_ + "/catalogue.db");
    auto opened = Roles::open(*catalogue_, "000000000000", clock_);
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    roles_ = *std::move(opened);
  }
  RolePtr create(const std::string& name, const std::string& path = "/") {
    auto made = roles_->create_role({.name = name, .path = path, .trust_policy = kTrust});
    EXPECT_TRUE(made.ok()) << made.error().message();
    return made.ok() ? *made : nullptr;
  }
  PolicyPtr create_policy(const std::string& name, const std::string& document = kLogs) {
    auto made = roles_->create_policy({.name = name, .path = "/", .document = document});
    EXPECT_TRUE(made.ok()) << made.error().message();
    return made.ok() ? *made : nullptr;
  }
  template <typename T>
  static void expect_error(const base::Result<T>& result, ErrorCode code, const std::string& id, const std::string& text) {
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code(), code);
    EXPECT_EQ(result.error().id(), id);
    EXPECT_EQ(result.error().message(), text);
  }

  std::string directory_;
  base::ManualClock clock_;
  std::unique_ptr<store::Catalogue> catalogue_;
  std::unique_ptr<Roles> roles_;
};

TEST_F(RolesTest, ARoleHasAnIdAnArnAndItsDefaultsAndIsFoundByNameInAnyCase) {
  const RolePtr made = create("Worker", "/team/");
  EXPECT_EQ(made->arn, "arn:aws:iam::000000000000:role/team/Worker");
  EXPECT_EQ(made->id.size(), 21U);
  EXPECT_TRUE(made->id.starts_with("AROA"));
  EXPECT_EQ(made->max_session_s, 3600);
  EXPECT_EQ(made->created, clock_.wall_now());
  EXPECT_EQ((*roles_->role("wORKER"))->id, made->id);
  EXPECT_EQ(roles_->find_role_by_arn(made->arn), made);
  EXPECT_EQ(roles_->find_role_by_arn("arn:aws:iam::000000000000:role/Worker"), nullptr) << "another path";
  EXPECT_EQ(roles_->find_role_by_arn("arn:aws:iam::111111111111:role/team/Worker"), nullptr) << "another account";
  EXPECT_EQ(roles_->find_role_by_arn("Worker"), nullptr);
  expect_error(roles_->create_role({.name = "worker", .trust_policy = kTrust}), ErrorCode::kAlreadyExists, "EntityAlreadyExists",
               "Role with name worker already exists.");
  expect_error(roles_->role("other"), ErrorCode::kNotFound, "NoSuchEntity", "The role with name other cannot be found.");
}

TEST_F(RolesTest, EverythingIsThereAfterAReopen) {
  const RolePtr made = *roles_->create_role({.name = "r",
                                             .path = "/a/b/",
                                             .trust_policy = kTrust,
                                             .description = "über",
                                             .max_session_s = 7200,
                                             .boundary = kBasic,
                                             .tags = {{"k", "v"}}});
  const PolicyPtr policy = *roles_->create_policy({.name = "p", .path = "/", .document = kLogs, .description = "d", .tags = {{"a", ""}}});
  ASSERT_TRUE(roles_->put_inline_policy("r", {.name = "in", .document = kLogs}).ok());
  ASSERT_TRUE(roles_->attach_policy("r", policy->arn).ok());
  ASSERT_TRUE(roles_->create_policy_version(policy->arn, {.document = kLogs, .becomes_default = true}).ok());
  ASSERT_TRUE(roles_->delete_policy_version(policy->arn, "v1").ok());
  open();
  const RolePtr role = *roles_->role("r");
  EXPECT_EQ(role->id, made->id);
  EXPECT_EQ(role->arn, made->arn);
  EXPECT_EQ(role->created, made->created);
  EXPECT_EQ(role->trust_policy, kTrust);
  EXPECT_EQ(role->description, "über");
  EXPECT_EQ(role->max_session_s, 7200);
  EXPECT_EQ(role->boundary, kBasic);
  EXPECT_EQ(role->tags, (Tags{{"k", "v"}}));
  EXPECT_EQ(role->inline_policies.at("in"), kLogs);
  EXPECT_EQ(role->attached, std::set<std::string>{policy->arn});
  const PolicyPtr again = *roles_->policy(policy->arn);
  EXPECT_EQ(again->default_version, 2U);
  EXPECT_EQ(again->next_version, 3U);
  EXPECT_EQ(again->versions.size(), 1U);
  EXPECT_EQ(again->description, "d");
  EXPECT_EQ(again->tags, (Tags{{"a", ""}}));
}

TEST_F(RolesTest, WhatANewerMayflyStoredIsRefusedAndDamageIsNamed) {
  const auto opens_with = [&](const std::string& document) {
    EXPECT_TRUE(catalogue_->apply({.put_resources = {{.kind = "iam-role", .key = "r", .document = document}}}).ok());
    return Roles::open(*catalogue_, "000000000000", clock_);
  };
  EXPECT_EQ(opens_with(R"({"format":2,"name":"r","arn":"a"})").error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(opens_with("{").error().code(), ErrorCode::kDataLoss);
  EXPECT_EQ(opens_with(R"({"format":1})").error().code(), ErrorCode::kDataLoss);
  EXPECT_TRUE(opens_with(R"({"format":1,"name":"r","arn":"a","more":1})").ok()) << "unknown members are ignored";
  EXPECT_EQ(policy_from_document(R"({"format":1,"name":"p","arn":"a"})").error().code(), ErrorCode::kDataLoss) << "no version";
}

TEST_F(RolesTest, ARoleGoesOnlyWhenNoPolicyIsLeft) {
  create("r");
  ASSERT_TRUE(roles_->attach_policy("r", kBasic).ok());
  ASSERT_TRUE(roles_->attach_policy("r", kBasic).ok()) << "twice is once";
  ASSERT_TRUE(roles_->put_inline_policy("r", {.name = "in", .document = kLogs}).ok());
  expect_error(roles_->delete_role("r"), ErrorCode::kConflict, "DeleteConflict", "Cannot delete entity, must detach all policies first.");
  ASSERT_TRUE(roles_->detach_policy("r", kBasic).ok());
  expect_error(roles_->detach_policy("r", kBasic), ErrorCode::kNotFound, "NoSuchEntity",
               "Policy " + std::string(kBasic) + " was not found.");
  expect_error(roles_->delete_role("r"), ErrorCode::kConflict, "DeleteConflict", "Cannot delete entity, must delete policies first.");
  ASSERT_TRUE(roles_->delete_inline_policy("r", "in").ok());
  expect_error(roles_->delete_inline_policy("r", "in"), ErrorCode::kNotFound, "NoSuchEntity",
               "The role policy with name in cannot be found.");
  const std::string id = (*roles_->delete_role("R"))->id;
  EXPECT_FALSE(roles_->role("r").ok());
  EXPECT_NE(create("r")->id, id) << "another role of that name is another role";
}

TEST_F(RolesTest, AttachingNeedsAPolicyThatExistsOrHasAnArnOfAws) {
  create("r");
  EXPECT_TRUE(roles_->attach_policy("r", "arn:aws:iam::aws:policy/job-function/Anything").ok());
  for (const std::string arn : {"arn:aws:iam::000000000000:policy/none", "arn:aws:iam::aws:policy/", "arn:aws:iam::aws:policy/a b"})
    expect_error(roles_->attach_policy("r", arn), ErrorCode::kNotFound, "NoSuchEntity",
                 "Policy " + arn + " does not exist or is not attachable.");
  expect_error(roles_->update_role("r", {.boundary = "arn:aws:iam::000000000000:policy/none"}), ErrorCode::kNotFound, "NoSuchEntity",
               "Scope ARN: arn:aws:iam::000000000000:policy/none does not exist or is not attachable.");
}

TEST_F(RolesTest, APolicyGoesOnlyUnusedAndWithOneVersion) {
  create("r");
  const std::string arn = create_policy("p")->arn;
  ASSERT_TRUE(roles_->attach_policy("r", arn).ok());
  EXPECT_EQ(roles_->policy_uses()[arn].attachments, 1U);
  expect_error(roles_->delete_policy(arn), ErrorCode::kConflict, "DeleteConflict", "Cannot delete a policy attached to entities.");
  ASSERT_TRUE(roles_->detach_policy("r", arn).ok());
  ASSERT_TRUE(roles_->update_role("r", {.boundary = arn}).ok());
  EXPECT_EQ(roles_->policy_uses()[arn].boundaries, 1U);
  EXPECT_EQ(roles_->delete_policy(arn).error().id(), "DeleteConflict");
  ASSERT_TRUE(roles_->update_role("r", {.boundary = ""}).ok());
  ASSERT_TRUE(roles_->create_policy_version(arn, {.document = kLogs}).ok());
  EXPECT_EQ(roles_->delete_policy(arn).error().id(), "DeleteConflict");
  ASSERT_TRUE(roles_->delete_policy_version(arn, "v2").ok());
  ASSERT_TRUE(roles_->delete_policy(arn).ok());
  expect_error(roles_->policy(arn), ErrorCode::kNotFound, "NoSuchEntity", "Policy " + arn + " was not found.");
}

TEST_F(RolesTest, APolicyKeepsFiveVersionsAndNeverReusesANumber) {
  const std::string arn = create_policy("p")->arn;
  for (int i = 2; i <= 5; ++i) EXPECT_EQ(roles_->create_policy_version(arn, {.document = kLogs})->number, static_cast<std::uint32_t>(i));
  expect_error(roles_->create_policy_version(arn, {.document = kLogs}), ErrorCode::kConflict, "LimitExceeded",
               "A managed policy can have up to 5 versions. Before you create a new version, you must delete an existing version.");
  expect_error(roles_->delete_policy_version(arn, "v1"), ErrorCode::kConflict, "DeleteConflict",
               "Cannot delete the default version of a policy.");
  ASSERT_TRUE(roles_->set_default_version(arn, "v5").ok());
  ASSERT_TRUE(roles_->delete_policy_version(arn, "v1").ok());
  EXPECT_EQ(roles_->create_policy_version(arn, {.document = kLogs})->number, 6U);
  for (const char* none : {"v1", "v0", "v01", "5", "v", "", "v99999999999999999999"})
    EXPECT_EQ(roles_->set_default_version(arn, none).error().id(), "NoSuchEntity") << none;
  EXPECT_EQ(roles_->policy_version(arn, "v5")->number, 5U);
}

TEST_F(RolesTest, PoliciesOfAwsCanBeReadButNotChanged) {
  const PolicyPtr basic = *roles_->policy(kBasic);
  EXPECT_EQ(basic->name, "AWSLambdaBasicExecutionRole");
  EXPECT_EQ(basic->path, "/service-role/");
  for (const PolicyPtr& each : Roles::aws_policies()) {
    EXPECT_TRUE(check_policy_document(each->versions[0].document, PolicyPurpose::kIdentity).ok()) << each->arn;
    EXPECT_TRUE(Roles::is_aws_policy(each->arn)) << each->arn;
  }
  EXPECT_EQ(roles_->policy("arn:aws:iam::aws:policy/Unheard").error().id(), "NoSuchEntity");
  EXPECT_EQ(roles_->delete_policy(kBasic).error().id(), "AccessDenied");
  EXPECT_EQ(roles_->create_policy_version(kBasic, {.document = kLogs}).error().id(), "AccessDenied");
}

TEST_F(RolesTest, QuotasAreThoseOfIam) {
  create("r");
  const std::string large(RoleLimits::kManagedPolicyMax, 'x');
  const std::string document = R"({"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:)" + large + R"(","Resource":"*"}]})";
  EXPECT_EQ(roles_->create_policy({.name = "p", .document = document}).error().message(), "Cannot exceed quota for PolicySize: 6144");
  EXPECT_TRUE(roles_->put_inline_policy("r", {.name = "one", .document = document}).ok());
  expect_error(roles_->put_inline_policy("r", {.name = "two", .document = document}), ErrorCode::kConflict, "LimitExceeded",
               "Maximum policy size of 10240 bytes exceeded for role r");
  EXPECT_EQ((*roles_->role("r"))->inline_policies.size(), 1U) << "what failed changed nothing";
  const std::string spaced =
      R"({"Version":"2012-10-17",)" + std::string(20000, ' ') + R"("Statement":[{"Effect":"Allow","Action":"a:b","Resource":"*"}]})";
  EXPECT_TRUE(roles_->put_inline_policy("r", {.name = "spaced", .document = spaced}).ok()) << "white space does not count";
  for (std::size_t i = 0; i < RoleLimits::kAttachedMax; ++i)
    ASSERT_TRUE(roles_->attach_policy("r", "arn:aws:iam::aws:policy/P" + std::to_string(i)).ok());
  expect_error(roles_->attach_policy("r", kBasic), ErrorCode::kConflict, "LimitExceeded", "Cannot exceed quota for PoliciesPerRole: 25");
  Tags tags;
  for (std::size_t i = 0; i < RoleLimits::kTagsMax; ++i) tags["k" + std::to_string(i)] = "v";
  EXPECT_TRUE(roles_->tag_role("r", tags).ok());
  EXPECT_EQ(roles_->tag_role("r", {{"one-more", ""}}).error().id(), "LimitExceeded");
}

TEST_F(RolesTest, TagKeysAreOneWhateverTheirCase) {
  create("r");
  ASSERT_TRUE(roles_->tag_role("r", {{"Team", "a"}, {"x", "y"}}).ok());
  ASSERT_TRUE(roles_->tag_role("r", {{"team", "b"}}).ok());
  EXPECT_EQ((*roles_->role("r"))->tags, (Tags{{"team", "b"}, {"x", "y"}}));
  ASSERT_TRUE(roles_->untag_role("r", {"TEAM", "absent"}).ok());
  EXPECT_EQ((*roles_->role("r"))->tags, (Tags{{"x", "y"}}));
}

TEST_F(RolesTest, ChangesOfManyThreadsAreAllKept) {
  create("r");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 8; ++i) EXPECT_TRUE(roles_->tag_role("r", {{"k" + std::to_string(t) + "-" + std::to_string(i), "v"}}).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ((*roles_->role("r"))->tags.size(), 32U);
}

// --- Policy documents ---

TEST(PolicyDocument, WhatIamTakesIsTaken) {
  for (
      const char* document : {
          kLogs,
          R"({"Statement":{"Effect":"Deny","NotAction":["iam:*","sts:*"],"NotResource":["arn:aws:s3:::b/*"]}})",
          R"({"Version":"2008-10-17","Id":"x","Statement":[{"Sid":"A","Effect":"Allow","Action":"*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"true"}}}]})",
      })
    EXPECT_TRUE(check_policy_document(document, PolicyPurpose::kIdentity).ok()) << document;
  for (
      const char* document : {
          kTrust,
          R"({"Statement":[{"Sid":"","Effect":"Allow","Principal":{"Service":["lambda.amazonaws.com","events.amazonaws.com"],)"
          R"("AWS":["000000000000","arn:aws:iam::000000000000:root"]},"Action":["sts:AssumeRole","sts:TagSession"]}]})",
          R"({"Statement":[{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"}]})",
          R"({"Statement":[{"Effect":"Allow","Principal":{"Federated":"cognito-identity.amazonaws.com"},"Action":"sts:AssumeRoleWithWebIdentity"}]})",
      })
    EXPECT_TRUE(check_policy_document(document, PolicyPurpose::kTrust).ok()) << document;
}

TEST(PolicyDocument, WhatIamRefusesIsRefusedInItsWords) {
  const auto statement = [](const std::string& members) { return R"({"Version":"2012-10-17","Statement":[{)" + members + "}]}"; };
  const std::vector<std::pair<std::string, std::string>> identity = {
      {"not json", "Syntax errors in policy."},
      {"[]", "Syntax errors in policy."},
      {"{}", "Syntax errors in policy."},
      {R"({"Statement":[]})", "Syntax errors in policy."},
      {R"({"Statement":["x"]})", "Syntax errors in policy."},
      {R"({"Version":"2020-01-01","Statement":[{"Effect":"Allow","Action":"a:b","Resource":"*"}]})", "Syntax errors in policy."},
      {R"({"Statements":[]})", "Syntax errors in policy."},
      {statement(R"("Effect":"allow","Action":"a:b","Resource":"*")"), "Syntax errors in policy."},
      {statement(R"("Action":"a:b","Resource":"*")"), "Syntax errors in policy."},
      {statement(R"("Effect":"Allow","Action":[],"Resource":"*")"), "Syntax errors in policy."},
      {statement(R"("Effect":"Allow","Action":[1],"Resource":"*")"), "Syntax errors in policy."},
      {statement(R"("Effect":"Allow","Action":"a:b","NotAction":"c:d","Resource":"*")"), "Syntax errors in policy."},
      {statement(R"("Effect":"Allow","Action":"a:b","Resource":"*","Condition":[])"), "Syntax errors in policy."},
      {statement(R"("Effect":"Allow","Resource":"*")"), "Policy statement must contain actions."},
      {statement(R"("Effect":"Allow","Action":"a:b")"), "Policy statement must contain resources."},
      {statement(R"("Effect":"Allow","Action":"Invoke","Resource":"*")"),
       "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."},
      {statement(R"("Effect":"Allow","Action":"a:b","Resource":"bucket")"), "Resource bucket must be in ARN format or \"*\"."},
      {statement(R"("Effect":"Allow","Action":"a:b","Resource":"*","Principal":"*")"), "Policy document should not specify a principal."},
      {R"({"Statement":[{"Sid":"A","Effect":"Allow","Action":"a:b","Resource":"*"},{"Sid":"A","Effect":"Allow","Action":"a:b","Resource":"*"}]})",
       "Statement IDs (SID) in a single policy must be unique."},
  };
  const std::vector<std::pair<std::string, std::string>> trust = {
      {"not json", "This policy contains invalid Json"},
      {statement(R"("Effect":"Allow","Action":"sts:AssumeRole")"), "Missing required field Principal"},
      {statement(R"("Effect":"Allow","Principal":"*")"), "Missing required field Action"},
      {statement(R"("Effect":"Allow","Principal":"*","Action":"sts:AssumeRole","Resource":"*")"), "Has prohibited field Resource"},
      {statement(R"("Effect":"Allow","Principal":"*","Action":"lambda:*")"), "AssumeRole policy may only specify STS AssumeRole actions."},
      {statement(R"("Effect":"Allow","Principal":{"Service":"lambda"},"Action":"sts:AssumeRole")"),
       "Invalid principal in policy: \"SERVICE\":\"lambda\""},
      {statement(R"("Effect":"Allow","Principal":{"AWS":"me"},"Action":"sts:AssumeRole")"), "Invalid principal in policy: \"AWS\":\"me\""},
      {statement(R"("Effect":"Allow","Principal":"me","Action":"sts:AssumeRole")"), "Invalid principal in policy: \"AWS\":\"me\""},
      {statement(R"("Effect":"Allow","Principal":{"Person":"me"},"Action":"sts:AssumeRole")"), "Syntax errors in policy."},
  };
  for (const auto& [cases, purpose] : {std::pair(identity, PolicyPurpose::kIdentity), std::pair(trust, PolicyPurpose::kTrust)}) {
    for (const auto& [document, text] : cases) {
      const auto checked = check_policy_document(document, purpose);
      ASSERT_FALSE(checked.ok()) << document;
      EXPECT_EQ(checked.error().id(), "MalformedPolicyDocument");
      EXPECT_EQ(checked.error().message(), text) << document;
    }
  }
}

}  // namespace
}  // namespace mayfly::services
