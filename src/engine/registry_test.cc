#include "engine/registry.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "base/bytes.h"
#include "base/fd.h"
#include "engine/internal/documents.h"
#include "engine/internal/function_view.h"

namespace mayfly::engine {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

// Passes everything on, and fails the changes when told to.
class FallibleCatalogue final : public store::Catalogue {
 public:
  explicit FallibleCatalogue(std::unique_ptr<store::Catalogue> real) : real_(std::move(real)) {}
  Result<void> apply(const store::CatalogueChange& change) override {
    if (failing) return Error(ErrorCode::kResourceExhausted, "the disk is full");
    return real_->apply(change);
  }
  Result<void> each_function(const FunctionVisitor& visit) override { return real_->each_function(visit); }
  Result<std::vector<store::ResourceRow>> resources(const std::string& kind) override { return real_->resources(kind); }
  Result<std::string> setting(const std::string& key) override { return real_->setting(key); }
  Result<void> set_setting(const std::string& key, const std::string& value) override { return real_->set_setting(key, value); }
  Result<void> check() override { return real_->check(); }
  std::atomic<bool> failing = false;

 private:
  std::unique_ptr<store::Catalogue> real_;
};

class RegistryTest : public ::testing::Test {
 protected:
  RegistryTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "mayfly-registry-XXXXXX";
    directory_ = mkdtemp(pattern.data());
    open();
  }
  ~RegistryTest() override {
    close();
    std::filesystem::remove_all(directory_);
  }
  void close() {
    registry_.reset();
    code_.reset();
    catalogue_.reset();
    blobs_.reset();
  }
  void open() {
    auto catalogue = store::open_catalogue(directory_ + "/catalogue.db");
    ASSERT_TRUE(catalogue.ok()) << catalogue.error().message();
    catalogue_ = std::make_unique<FallibleCatalogue>(*std::move(catalogue));
    blobs_ = *store::open_directory_blobs(directory_ + "/blobs");
    code_ = std::make_unique<CodeStore>(
        *blobs_, [this](const std::string&, base::UniqueFd) { return [this] { return prepare(); }; },
        [this](const std::string& id) { discarded_.push_back(id); });
    auto registry = FunctionRegistry::open(*catalogue_, *code_, Account{}, clock_);
    ASSERT_TRUE(registry.ok()) << registry.error().message();
    registry_ = *std::move(registry);
  }
  void reopen() {
    close();
    open();
  }
  Result<std::uint64_t> prepare() const {
    if (refuse_code_)
      return Error(ErrorCode::kInvalidArgument, "Could not unzip uploaded file. Please check your file, then try to upload again.");
    return unpacked_bytes_;
  }

  static FunctionConfig config() {
    FunctionConfig made;
    made.runtime = "python3.12";
    made.handler = "index.handler";
    made.role = "arn:aws:iam::000000000000:role/r";
    return made;
  }
  VersionPtr create(const std::string& name = "f", const std::string& zip = "zip one", bool publish = false) {
    auto made = registry_->create(name, config(), zip, {}, publish);
    EXPECT_TRUE(made.ok()) << made.error().message();
    return made.ok() ? *made : nullptr;
  }
  // The registry as a client meets it that waits for the end of each change.
  FunctionRegistry& settled() {
    for (const RecordPtr& record : registry_->list("", 1000)) registry_->observed(*record);
    return *registry_;
  }
  VersionPtr latest(const std::string& name = "f") { return registry_->find(name)->latest; }
  VersionPtr describe(const std::string& description, const std::string& revision = "") {
    auto updated = settled().update_configuration("f", {.description = description}, revision);
    EXPECT_TRUE(updated.ok()) << updated.error().message();
    return updated.ok() ? *updated : nullptr;
  }
  template <typename T>
  static void expect_error(const Result<T>& result, ErrorCode code, const std::string& id, const std::string& message) {
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code(), code);
    EXPECT_EQ(result.error().id(), id);
    EXPECT_EQ(result.error().message(), message);
  }

  std::string directory_;
  base::ManualClock clock_;
  std::unique_ptr<FallibleCatalogue> catalogue_;
  std::unique_ptr<store::Blobs> blobs_;
  std::uint64_t unpacked_bytes_ = 1000;
  std::unique_ptr<CodeStore> code_;
  std::unique_ptr<FunctionRegistry> registry_;
  std::atomic<bool> refuse_code_ = false;
  std::vector<std::string> discarded_;
};

const std::string kArn = "arn:aws:lambda:us-east-1:000000000000:function:";

TEST_F(RegistryTest, CreateAnswersPendingAndLeavesAnActiveFunctionWithANewRevision) {
  const VersionPtr answer = create();
  EXPECT_EQ(answer->state, FunctionState::kPending);
  EXPECT_EQ(answer->state_reason(), "The function is being created.");
  EXPECT_EQ(answer->state_reason_code(), "Creating");
  EXPECT_EQ(answer->update_status, UpdateStatus::kNone);
  EXPECT_EQ(answer->arn, kArn + "f");
  EXPECT_EQ(answer->version, "$LATEST");
  EXPECT_EQ(answer->last_modified, "2026-01-01T00:00:00.000+0000");
  EXPECT_EQ(answer->config.code_size, 7U);
  EXPECT_EQ(answer->config.code_id, base::hex_encode(base::sha256("zip one")));
  EXPECT_EQ(answer->config.code_sha256, base::base64_encode(base::as_text(base::sha256("zip one"))));
  EXPECT_EQ(answer->config.log_group, "/aws/lambda/f");
  EXPECT_EQ(latest()->state, FunctionState::kActive);
  EXPECT_EQ(latest()->state_reason(), "");
  EXPECT_EQ(latest()->update_status, UpdateStatus::kSuccessful);
  EXPECT_NE(latest()->revision_id, answer->revision_id);
  EXPECT_EQ(registry_->function_count(), 1U);
  EXPECT_EQ(*base::read_all(code_->open(latest()->config.code_id)->get(), 100), "zip one");
}

TEST_F(RegistryTest, ASecondChangeIsRefusedUntilTheFirstWasSeenToEnd) {
  create();
  const std::string pending = "The operation cannot be performed at this time. The function is currently in the following state: Pending";
  expect_error(registry_->update_code("f", "zip two", {}, "", false, false), ErrorCode::kConflict, "ResourceConflictException", pending);
  expect_error(registry_->publish("f", "", {}, ""), ErrorCode::kConflict, "ResourceConflictException", pending);
  EXPECT_TRUE(registry_->tag("f", {{"a", "b"}}).ok()) << "settings can be changed at any time";
  registry_->observed(*registry_->find("f"));
  ASSERT_TRUE(registry_->update_configuration("f", {.description = "one"}, "").ok());
  const std::string updating = "The operation cannot be performed at this time. An update is in progress for resource: " + latest()->arn;
  expect_error(registry_->update_configuration("f", {.description = "two"}, ""), ErrorCode::kConflict, "ResourceConflictException",
               updating);
  EXPECT_EQ(latest()->config.description, "one");
  clock_.advance(FunctionRegistry::kUpdateWindow);
  EXPECT_TRUE(registry_->update_configuration("f", {.description = "two"}, "").ok());
}

TEST_F(RegistryTest, SettingsAreChangedWholeOrNotAtAllAndKept) {
  create();
  ASSERT_TRUE(settled().publish("f", "", {}, "").ok());
  const std::string revision = latest()->revision_id, version_revision = registry_->find("f")->published[0]->revision_id;
  const auto change = [](const FunctionRecord& record, FunctionSettings& settings) -> Result<void> {
    EXPECT_EQ(record.published.size(), 1U);
    settings.aliases["live"] = {
        .name = "live", .description = "d", .revision_id = "r", .version = "1", .additional_version = "", .additional_weight = 0};
    settings.reserved_concurrency = 7;
    settings.policies[""] = {.revision_id = "p", .statements = {{.sid = "s", .document = R"({"Sid":"s"})"}}};
    settings.urls["live"] = {
        .id = "abc", .authentication = UrlAuthentication::kNone, .streams = true, .cors_json = "{}", .created = "c", .modified = "m"};
    settings.event_invoke["1"] = {
        .retries_max = 1, .age_max_s = {}, .on_success = "", .on_failure = "arn", .modified = base::WallTime(std::chrono::microseconds(5))};
    settings.provisioned["1"] = {.requested = 3, .modified = "m"};
    settings.runtime_management["1"] = {.update_on = "Manual", .runtime_version_arn = "arn"};
    settings.recursive_loop = "Allow";
    return {};
  };
  ASSERT_TRUE(registry_->change_settings("f", change).ok());
  EXPECT_NE(latest()->revision_id, revision) << "a policy of the function gives it a new revision";
  EXPECT_NE(registry_->find("f")->published[0]->revision_id, version_revision) << "and so does provisioned concurrency to a version";
  const auto refused = registry_->change_settings("f", [](const FunctionRecord&, FunctionSettings& settings) -> Result<void> {
    settings = {};
    return Error(ErrorCode::kConflict, "no");
  });
  EXPECT_EQ(refused.error().message(), "no");
  const FunctionSettings before = *registry_->find("f")->settings;
  EXPECT_EQ(before.aliases.size(), 1U);
  EXPECT_EQ(registry_->find_url("abc")->qualifier, "live");
  reopen();
  EXPECT_EQ(*registry_->find("f")->settings, before);
  ASSERT_TRUE(registry_->find_url("abc").has_value());
  EXPECT_EQ(registry_->find("f")->find("live")->version, "1");
  expect_error(registry_->remove("f", "1"), ErrorCode::kConflict, "ResourceConflictException",
               "Version 1 of " + latest()->arn + " is used by the alias live; point the alias at another version or delete it first.");
  ASSERT_TRUE(registry_->remove("f", "").ok());
  EXPECT_FALSE(registry_->find_url("abc").has_value());
}

TEST_F(RegistryTest, AWeightedAliasSplitsCalls) {
  create();
  ASSERT_TRUE(settled().publish("f", "", {}, "").ok());
  ASSERT_TRUE(settled().update_code("f", "zip two", {}, "", true, false).ok());
  const auto weigh = [](const FunctionRecord&, FunctionSettings& settings) -> Result<void> {
    settings.aliases["live"] = {
        .name = "live", .description = "", .revision_id = "", .version = "1", .additional_version = "2", .additional_weight = 0.25};
    return {};
  };
  ASSERT_TRUE(registry_->change_settings("f", weigh).ok());
  const RecordPtr record = registry_->find("f");
  EXPECT_EQ(record->route("live", 0.0)->version, "2");
  EXPECT_EQ(record->route("live", 0.24)->version, "2");
  EXPECT_EQ(record->route("live", 0.25)->version, "1");
  EXPECT_EQ(record->find("live")->version, "1");
  EXPECT_EQ(record->find("other"), nullptr);
}

TEST_F(RegistryTest, CreateWithPublishAnswersVersionOnePendingAndSettlesIt) {
  const VersionPtr answer = create("f", "zip", true);
  EXPECT_EQ(answer->version, "1");
  EXPECT_EQ(answer->state, FunctionState::kPending);
  EXPECT_EQ(answer->qualified_arn(), kArn + "f:1");
  ASSERT_NE(registry_->find("f")->find("1"), nullptr);
  EXPECT_EQ(registry_->find("f")->find("1")->state, FunctionState::kActive);
  EXPECT_EQ(latest()->version, "$LATEST");
}

TEST_F(RegistryTest, UpdatesAnswerInProgressAndChangeTheRevisionTwice) {
  create();
  const std::string before = latest()->revision_id;
  clock_.advance(std::chrono::milliseconds(1500));
  const VersionPtr answer = describe("changed");
  EXPECT_EQ(answer->state, FunctionState::kActive);
  EXPECT_EQ(answer->update_status, UpdateStatus::kInProgress);
  EXPECT_EQ(answer->update_reason(), "The function is being created.");
  EXPECT_EQ(answer->update_reason_code(), "Creating");
  EXPECT_EQ(answer->last_modified, "2026-01-01T00:00:01.500+0000");
  EXPECT_EQ(answer->config.description, "changed");
  EXPECT_EQ(latest()->update_status, UpdateStatus::kSuccessful);
  EXPECT_EQ(latest()->update_reason(), "");
  EXPECT_NE(answer->revision_id, before);
  EXPECT_NE(latest()->revision_id, answer->revision_id);
}

TEST_F(RegistryTest, ARedundantUpdateChangesTheRevisionButNotTheGeneration) {
  create();
  describe("same");
  const VersionPtr before = latest();
  describe("same");
  EXPECT_NE(latest()->revision_id, before->revision_id);
  EXPECT_EQ(latest()->generation, before->generation);
  describe("other");
  EXPECT_GT(latest()->generation, before->generation);
}

TEST_F(RegistryTest, TheTextsOfErrorsAreThoseOfAws) {
  create();
  const std::string zip = "zip";
  expect_error(registry_->create("f", config(), zip, {}, false), ErrorCode::kAlreadyExists, "ResourceConflictException",
               "Function already exist: f");
  expect_error(settled().update_configuration("g", {}, ""), ErrorCode::kNotFound, "ResourceNotFoundException",
               "Function not found: " + kArn + "g");
  expect_error(settled().update_code("g", zip, {}, "", false, false), ErrorCode::kNotFound, "ResourceNotFoundException",
               "Function not found: " + kArn + "g");
  expect_error(settled().publish("g", "", {}, ""), ErrorCode::kNotFound, "ResourceNotFoundException", "Function not found: " + kArn + "g");
  expect_error(registry_->remove("g", ""), ErrorCode::kNotFound, "ResourceNotFoundException", "Function not found: " + kArn + "g");
  expect_error(registry_->tag("g", {{"a", "b"}}), ErrorCode::kNotFound, "ResourceNotFoundException", "Function not found: " + kArn + "g");
  expect_error(registry_->remove("f", "$LATEST"), ErrorCode::kInvalidArgument, "InvalidParameterValueException",
               "$LATEST version cannot be deleted without deleting the function.");
  expect_error(registry_->remove("f", "live"), ErrorCode::kInvalidArgument, "InvalidParameterValueException",
               "Deletion of aliases is not currently supported.");
  expect_error(settled().publish("f", "somenonexistentsha256", {}, ""), ErrorCode::kInvalidArgument, "InvalidParameterValueException",
               "CodeSHA256 (somenonexistentsha256) is different from current CodeSHA256 in $LATEST (" + latest()->config.code_sha256 +
                   "). Please try again with the CodeSHA256 in $LATEST.");
  const std::string stale =
      "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest Revision "
      "Id";
  expect_error(settled().update_configuration("f", {}, "x"), ErrorCode::kPreconditionFailed, "PreconditionFailedException", stale);
  expect_error(settled().update_code("f", zip, {}, "x", false, false), ErrorCode::kPreconditionFailed, "PreconditionFailedException",
               stale);
  expect_error(settled().publish("f", "", {}, "x"), ErrorCode::kPreconditionFailed, "PreconditionFailedException", stale);
}

TEST_F(RegistryTest, PublishingIsIdempotentUntilSomethingChanges) {
  create();
  const std::string before = latest()->revision_id;
  const VersionPtr first = *settled().publish("f", latest()->config.code_sha256, "first", before);
  EXPECT_EQ(first->version, "1");
  EXPECT_EQ(first->state, FunctionState::kActive);
  EXPECT_EQ(first->update_status, UpdateStatus::kSuccessful);
  EXPECT_EQ(first->config.description, "first");
  EXPECT_EQ(latest()->config.description, "");
  EXPECT_NE(latest()->revision_id, before);
  EXPECT_NE(first->revision_id, latest()->revision_id);
  const VersionPtr again = *settled().publish("f", "", "repeated", "");
  EXPECT_EQ(again, first);
  describe("new");
  const VersionPtr second = *settled().publish("f", "", {}, "");
  EXPECT_EQ(second->version, "2");
  EXPECT_EQ(second->config.description, "new");
  EXPECT_EQ(registry_->find("f")->find("1")->config.description, "first");
}

TEST_F(RegistryTest, VersionNumbersAreNeverUsedAgain) {
  create("f", "zip", true);
  ASSERT_TRUE(registry_->remove("f", "1").ok());
  EXPECT_EQ(registry_->find("f")->find("1"), nullptr);
  EXPECT_TRUE(registry_->remove("f", "1").ok()) << "deleting a version twice is fine, as on AWS";
  reopen();
  EXPECT_EQ((*settled().publish("f", "", {}, ""))->version, "2");
}

TEST_F(RegistryTest, OfManyVersionsOnlyWhatChangesIsStoredAgainAndTheRestIsLeft) {
  constexpr int kVersions = 25;
  create("f", "seven b", true);  // version 1
  for (int version = 2; version <= kVersions; ++version) {
    describe("for " + std::to_string(version));
    ASSERT_EQ((*settled().publish("f", "", {}, ""))->version, std::to_string(version));
  }
  for (const char* gone : {"1", "9", "10", "25"}) ASSERT_TRUE(settled().remove("f", gone).ok()) << gone;
  const RecordPtr before = registry_->find("f");
  ASSERT_TRUE(registry_
                  ->change_settings("f",
                                    [](const FunctionRecord&, FunctionSettings& settings) -> Result<void> {
                                      settings.policies["11"].statements.push_back({.sid = "s", .document = "{}"});
                                      return {};
                                    })
                  .ok());
  const RecordPtr after = registry_->find("f");
  EXPECT_NE(after->find("11")->revision_id, before->find("11")->revision_id);
  EXPECT_EQ(after->find("12"), before->find("12"));
  EXPECT_EQ(registry_->total_code_bytes(), 7U * (1 + kVersions - 4));

  reopen();
  const RecordPtr stored = registry_->find("f");
  ASSERT_EQ(stored->published.size(), after->published.size());
  for (std::size_t i = 0; i < stored->published.size(); ++i) {
    EXPECT_EQ(stored->published[i]->version, after->published[i]->version);
    EXPECT_EQ(stored->published[i]->revision_id, after->published[i]->revision_id);
    EXPECT_EQ(stored->published[i]->config, after->published[i]->config);
  }
  EXPECT_EQ(registry_->total_code_bytes(), 7U * (1 + kVersions - 4));
}

TEST_F(RegistryTest, UpdatingCodeWithPublishAnswersTheNewVersionPending) {
  create();
  const VersionPtr answer = *settled().update_code("f", "zip two", "arm64", "", true, false);
  EXPECT_EQ(answer->version, "1");
  EXPECT_EQ(answer->state, FunctionState::kPending);
  EXPECT_EQ(answer->update_status, UpdateStatus::kNone);
  EXPECT_EQ(answer->config.architecture, "arm64");
  EXPECT_EQ(registry_->find("f")->find("1")->state, FunctionState::kActive);
  EXPECT_EQ(registry_->find("f")->find("1")->config.code_size, 7U);
}

TEST_F(RegistryTest, ADryRunChangesNothing) {
  create();
  const VersionPtr before = latest();
  const VersionPtr answer = *settled().update_code("f", "zip two!", {}, before->revision_id, true, true);
  EXPECT_EQ(answer->config.code_size, 8U);
  EXPECT_EQ(latest(), before);
  EXPECT_TRUE(registry_->find("f")->published.empty());
  EXPECT_EQ(blobs_->list()->size(), 1U) << "the dry run's code is not kept";
}

TEST_F(RegistryTest, ABadArchiveChangesNothing) {
  refuse_code_ = true;
  expect_error(registry_->create("f", config(), "bomb", {}, false), ErrorCode::kInvalidArgument, "InvalidParameterValueException",
               "Could not unzip uploaded file. Please check your file, then try to upload again.");
  EXPECT_EQ(registry_->find("f"), nullptr);
  EXPECT_TRUE(blobs_->list()->empty());
  refuse_code_ = false;
  create();
  const VersionPtr before = latest();
  refuse_code_ = true;
  EXPECT_FALSE(settled().update_code("f", "bomb", {}, "", true, false).ok());
  EXPECT_FALSE(settled().update_code("f", "zip one", {}, "", true, false).ok());
  EXPECT_EQ(latest(), before);
  EXPECT_EQ(*blobs_->list(), std::vector<std::string>{before->config.code_id}) << "the bomb went, the code in use stayed";
}

TEST_F(RegistryTest, AStoreThatRefusesLeavesTheViewAsItWas) {
  create();
  const RecordPtr before = registry_->find("f");
  catalogue_->failing = true;
  EXPECT_EQ(registry_->create("g", config(), "z", {}, false).error().code(), ErrorCode::kResourceExhausted);
  EXPECT_FALSE(settled().update_configuration("f", {.description = "x"}, "").ok());
  EXPECT_FALSE(settled().publish("f", "", {}, "").ok());
  EXPECT_FALSE(registry_->remove("f", "").ok());
  EXPECT_FALSE(registry_->tag("f", {{"a", "b"}}).ok());
  EXPECT_EQ(registry_->find("f"), before);
  EXPECT_EQ(registry_->find("g"), nullptr);
  EXPECT_EQ(registry_->total_code_bytes(), 7U);
  catalogue_->failing = false;
  describe("works again");
}

TEST_F(RegistryTest, TagsMergeGoAndChangeTheRevisionButNotTheGeneration) {
  create();
  const VersionPtr before = latest();
  ASSERT_TRUE(registry_->tag("f", {{"a", "1"}, {"b", "2"}}).ok());
  ASSERT_TRUE(registry_->tag("f", {{"b", "3"}}).ok());
  EXPECT_EQ(registry_->find("f")->settings->tags, (std::map<std::string, std::string>{{"a", "1"}, {"b", "3"}}));
  EXPECT_NE(latest()->revision_id, before->revision_id);
  EXPECT_EQ(latest()->generation, before->generation);
  ASSERT_TRUE(registry_->untag("f", {"a", "nothing"}).ok());
  reopen();
  EXPECT_EQ(registry_->find("f")->settings->tags, (std::map<std::string, std::string>{{"b", "3"}}));
  expect_error(registry_->tag("f", {}), ErrorCode::kInvalidArgument, "InvalidParameterValueException",
               "An error occurred and the request cannot be processed.");
}

TEST_F(RegistryTest, MoreThanFiftyTagsAreRefused) {
  std::map<std::string, std::string> tags;
  for (int i = 0; i < 51; ++i) tags["key" + std::to_string(i)] = "v";
  const std::string text = "Number of tags exceeds resource tag limit.";
  expect_error(registry_->create("f", config(), "zip", tags, false), ErrorCode::kInvalidArgument, "InvalidParameterValueException", text);
  tags.erase("key0");
  ASSERT_TRUE(registry_->create("f", config(), "zip", tags, false).ok());
  EXPECT_TRUE(registry_->tag("f", {{"key1", "another value"}}).ok());
  expect_error(registry_->tag("f", {{"one more", "v"}}), ErrorCode::kInvalidArgument, "InvalidParameterValueException", text);
}

TEST_F(RegistryTest, TheNetworkIsAVariableOfTheFunctionAndOnlyTwoValuesPass) {
  FunctionConfig made = config();
  made.environment = std::map<std::string, std::string>{{"MAYFLY_NETWORK", "none"}};
  ASSERT_TRUE(registry_->create("f", made, "zip", {}, false).ok());
  EXPECT_EQ(latest()->config.network(), "none");
  const std::uint64_t generation = latest()->generation;
  ASSERT_TRUE(settled().update_configuration("f", {.environment = std::map<std::string, std::string>{}}, "").ok());
  EXPECT_EQ(latest()->config.network(), "outside");
  EXPECT_GT(latest()->generation, generation);
  made.environment = std::map<std::string, std::string>{{"MAYFLY_NETWORK", "everything"}};
  EXPECT_EQ(registry_->create("g", made, "zip", {}, false).error().id(), "InvalidParameterValueException");
}

TEST_F(RegistryTest, HowManyInvocationsAnEnvironmentTakesIsAVariableWithinAwssBounds) {
  FunctionConfig made = config();
  EXPECT_EQ(made.runs_per_environment(), 1U);
  for (const char* value : {"0", "1601", "-1", "8x", "", "99999999999999999999"}) {
    made.environment = std::map<std::string, std::string>{{"AWS_LAMBDA_MAX_CONCURRENCY", value}};
    const auto refused = registry_->create("f", made, "zip", {}, false);
    ASSERT_FALSE(refused.ok()) << value;
    EXPECT_EQ(refused.error().id(), "InvalidParameterValueException");
    EXPECT_EQ(refused.error().message(), "The environment variable AWS_LAMBDA_MAX_CONCURRENCY has the value \"" + std::string(value) +
                                             "\"; it can be a number from 1 to 1600.");
  }
  made.environment = std::map<std::string, std::string>{{"AWS_LAMBDA_MAX_CONCURRENCY", "1600"}};
  ASSERT_TRUE(registry_->create("f", made, "zip", {}, false).ok());
  EXPECT_EQ(latest()->config.runs_per_environment(), 1600U);
}

TEST_F(RegistryTest, LogLevelsComeAndGoWithTheJsonFormat) {
  create();
  ASSERT_TRUE(settled().update_configuration("f", {.log_format = "JSON"}, "").ok());
  EXPECT_EQ(latest()->config.application_log_level, "INFO");
  EXPECT_EQ(latest()->config.system_log_level, "INFO");
  ASSERT_TRUE(settled().update_configuration("f", {.log_format = "Text"}, "").ok());
  EXPECT_EQ(latest()->config.application_log_level, "");
}

TEST_F(RegistryTest, EverythingIsThereAgainAfterARestart) {
  FunctionConfig full = config();
  full.environment = std::map<std::string, std::string>{{"KEY", "value \"quoted\" \xC3\xA9"}};
  full.accepted_json = R"({"VpcConfig":{}})";
  full.timeout_s = 900;
  full.ephemeral_mb = 10240;
  ASSERT_TRUE(registry_->create("f", full, "zip", {{"t", "v"}}, true).ok());
  create("other");
  for (int i = 0; i < 11; ++i) {
    describe(std::to_string(i));
    ASSERT_TRUE(settled().publish("f", "", {}, "").ok());
  }
  const RecordPtr before = registry_->find("f");
  const std::uint64_t bytes = registry_->total_code_bytes();
  reopen();
  const RecordPtr after = registry_->find("f");
  ASSERT_NE(after, nullptr);
  EXPECT_EQ(after->next_version, before->next_version);
  EXPECT_EQ(after->settings->tags, before->settings->tags);
  EXPECT_EQ(after->latest->config, before->latest->config);
  EXPECT_EQ(after->latest->revision_id, before->latest->revision_id);
  EXPECT_EQ(after->latest->generation, before->latest->generation);
  EXPECT_EQ(after->latest->last_modified, before->latest->last_modified);
  ASSERT_EQ(after->published.size(), 12U);
  for (std::size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(after->published[i]->version, std::to_string(i + 1));
    EXPECT_EQ(after->published[i]->config, before->published[i]->config);
    EXPECT_EQ(after->published[i]->revision_id, before->published[i]->revision_id);
  }
  EXPECT_EQ(registry_->total_code_bytes(), bytes);
  EXPECT_EQ(registry_->function_count(), 2U);
}

TEST_F(RegistryTest, WhatACrashLeftPendingIsSettledAtStart) {
  create();
  FunctionVersion pending = *latest();
  pending.state = FunctionState::kPending;
  pending.update_status = UpdateStatus::kNone;
  ASSERT_TRUE(catalogue_->apply({.put_versions = {to_row(pending)}}).ok());
  reopen();
  EXPECT_EQ(latest()->state, FunctionState::kActive);
  EXPECT_EQ(latest()->update_status, UpdateStatus::kSuccessful);
  const std::string settled = latest()->revision_id;
  EXPECT_NE(settled, pending.revision_id);
  reopen();
  EXPECT_EQ(latest()->revision_id, settled) << "settled once, on disk";
}

TEST_F(RegistryTest, DocumentsOfANewerFormatAreRefusedAndUnknownMembersIgnored) {
  create();
  store::VersionRow row = to_row(*latest());
  row.document = R"({"format":1,"future":[1,2],"config":{"handler":"h","future":{}}})";
  const auto read = version_from(row, Account{});
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->config.handler, "h");
  EXPECT_EQ(read->config.timeout_s, 3U);
  row.document = R"({"format":2})";
  EXPECT_EQ(version_from(row, Account{}).error().code(), ErrorCode::kUnsupported);
  row.document = R"({"format":1)";
  EXPECT_EQ(version_from(row, Account{}).error().code(), ErrorCode::kDataLoss);
}

TEST_F(RegistryTest, CodeNobodyNamesIsForgottenButNotWhileItIsInUse) {
  const std::string first = create()->config.code_id;
  ASSERT_TRUE(settled().publish("f", "", {}, "").ok());
  ASSERT_TRUE(settled().update_code("f", "zip two", {}, "", false, false).ok());
  EXPECT_EQ(*code_->sweep({}), 0U) << "version 1 names the first code";
  ASSERT_TRUE(registry_->remove("f", "1").ok());
  EXPECT_EQ(*code_->sweep({first}), 0U) << "an environment still runs it";
  EXPECT_EQ(*code_->sweep({}), 1U);
  EXPECT_EQ(discarded_, std::vector<std::string>{first});
  EXPECT_FALSE(code_->open(first).ok());
  const std::string second = latest()->config.code_id;
  ASSERT_TRUE(registry_->remove("f", "").ok());
  EXPECT_TRUE(code_->open(second).ok()) << "kept until the next sweep or start";
  reopen();
  EXPECT_EQ(*code_->sweep({}), 1U);
  EXPECT_FALSE(code_->open(second).ok());
  EXPECT_EQ(discarded_.size(), 2U);
}

// A disk that takes the bytes and then does not keep them.
class LosingBlobs final : public store::Blobs {
 public:
  Result<std::string> put(std::string_view, const Meanwhile& meanwhile) override {
    meanwhile(*base::open_file("/dev/null", O_RDONLY));
    return Error(ErrorCode::kUnavailable, "the disk is broken");
  }
  Result<base::UniqueFd> open(const std::string&, bool) const override { return Error(ErrorCode::kNotFound, "no blob"); }
  Result<void> remove(const std::string&) override { return {}; }
  Result<std::vector<std::string>> list() const override { return std::vector<std::string>{}; }
};

TEST_F(RegistryTest, WhatWasUnpackedOfCodeThatCouldNotBeStoredGoesAgain) {
  LosingBlobs blobs;
  std::vector<std::string> steps;
  CodeStore code(
      blobs, [&](const std::string&, base::UniqueFd) { return [&] { return steps.emplace_back("unpacked"), Result<std::uint64_t>(1); }; },
      [&](const std::string&) { steps.emplace_back("gone"); });
  {
    const CodeStore::Hold hold(code, CodeStore::identify("zip").id);
    EXPECT_EQ(code.put(hold, "zip").error().code(), ErrorCode::kUnavailable);
  }
  EXPECT_EQ(steps, (std::vector<std::string>{"unpacked", "gone"}));
}

TEST_F(RegistryTest, AFunctionMadeAgainNeverRepeatsAGeneration) {
  create();
  describe("x");
  const std::uint64_t before = latest()->generation;
  ASSERT_TRUE(registry_->remove("f", "").ok());
  create();
  EXPECT_GT(latest()->generation, before);
}

TEST_F(RegistryTest, ListenersHearOfChangesWhenTheViewShowsThem) {
  std::vector<std::string> heard;
  registry_->on_change([&](const std::string& name) { heard.push_back(name + (registry_->find(name) == nullptr ? " gone" : " there")); });
  create();
  describe("x");
  ASSERT_TRUE(registry_->remove("f", "").ok());
  EXPECT_EQ(heard, (std::vector<std::string>{"f there", "f there", "f gone"}));
}

TEST_F(RegistryTest, OfFiftyConcurrentChangesWithOneRevisionExactlyOneWins) {
  create();
  for (int round = 0; round < 5; ++round) {
    const std::string revision = latest()->revision_id;
    std::atomic<int> won = 0, lost = 0, other = 0;
    std::atomic<bool> go = false;
    std::vector<std::thread> threads;
    for (int i = 0; i < 50; ++i) {
      threads.emplace_back([&, i] {
        while (!go) std::this_thread::yield();
        const auto result = i % 2 == 0 ? settled().update_configuration("f", {.description = std::to_string(round * 100 + i)}, revision)
                                       : settled().update_code("f", "zip " + std::to_string(i), {}, revision, false, false);
        if (result.ok())
          ++won;
        else
          ++(result.error().code() == ErrorCode::kPreconditionFailed ? lost : other);
      });
    }
    go = true;
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(won, 1);
    EXPECT_EQ(lost, 49);
    EXPECT_EQ(other, 0);
  }
}

TEST_F(RegistryTest, ReadersSeeWholeRecordsWhileWritersChangeThem) {
  create();
  ASSERT_TRUE(settled().update_configuration("f", {.handler = "", .description = ""}, "").ok());
  std::atomic<bool> stop = false;
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        const RecordPtr record = registry_->find("f");
        if (record != nullptr) {
          EXPECT_EQ(record->latest->config.description, record->latest->config.handler);
        }
        const auto all = registry_->list("", 100);
        EXPECT_TRUE(std::is_sorted(all.begin(), all.end(), [](const RecordPtr& a, const RecordPtr& b) {
          return a->latest->function_name < b->latest->function_name;
        }));
      }
    });
  }
  std::vector<std::thread> writers;
  for (int w = 0; w < 4; ++w) {
    writers.emplace_back([&, w] {
      for (int i = 0; i < 15; ++i) {
        const std::string text = std::to_string(w * 1000 + i);
        while (true) {
          const auto updated = settled().update_configuration("f", {.handler = text, .description = text}, "");
          if (updated.ok()) break;
          EXPECT_EQ(updated.error().id(), "ResourceConflictException");
        }
        const std::string name = "g" + text;
        FunctionConfig same = config();
        EXPECT_TRUE(registry_->create(name, same, "zip", {}, true).ok());
        EXPECT_TRUE(code_->sweep({}).ok());
        if (i % 2 == 0) {
          EXPECT_TRUE(registry_->remove(name, "").ok());
        }
      }
    });
  }
  for (std::thread& thread : writers) thread.join();
  stop = true;
  for (std::thread& thread : readers) thread.join();
  EXPECT_EQ(registry_->function_count(), 1U + 4U * 7U);
  for (const RecordPtr& record : registry_->list("", 100))
    EXPECT_TRUE(code_->open(record->latest->config.code_id).ok()) << "a sweep took code that was being deployed";
}

TEST_F(RegistryTest, NamesThatAreNotPlainOrTooLongAreRefused) {
  for (const std::string& name :
       {std::string(), std::string("a/b"), std::string("a:1"), kArn + "f", std::string("../x"), std::string(65, 'x')}) {
    const auto made = registry_->create(name, config(), "zip", {}, false);
    ASSERT_FALSE(made.ok()) << name;
    EXPECT_EQ(made.error().id(), "ValidationException") << name;
  }
  EXPECT_TRUE(registry_->create(std::string(64, 'x'), config(), "zip", {}, false).ok());
}

TEST(FunctionView, ListsInOrderThroughSplitsAndRemovals) {
  FunctionView view;
  std::set<std::string> expected;
  const auto record = [](const std::string& name) {
    auto version = std::make_shared<FunctionVersion>();
    version->function_name = name;
    auto made = std::make_shared<FunctionRecord>();
    made->latest = std::move(version);
    return made;
  };
  std::uint32_t random = 7;
  for (int i = 0; i < 6000; ++i) {
    random = random * 1664525 + 1013904223;
    const std::string name = "n" + std::to_string(random >> 20U);
    if (random % 3 == 0) {
      view.remove(name);
      expected.erase(name);
    } else {
      view.put(record(name));
      expected.insert(name);
    }
  }
  ASSERT_EQ(view.size(), expected.size());
  std::vector<std::string> seen;
  for (std::string after;;) {
    const auto page = view.list(after, 50);
    if (page.empty()) break;
    for (const RecordPtr& each : page) seen.push_back(each->latest->function_name);
    after = seen.back();
  }
  EXPECT_EQ(seen, std::vector<std::string>(expected.begin(), expected.end()));
  view.load(view.list("", view.size()));
  std::size_t visited = 0;
  view.each([&](const RecordPtr& record) { visited += expected.contains(record->latest->function_name) ? 1 : 0; });
  EXPECT_EQ(visited, expected.size());
  for (const std::string& name : expected) view.remove(name);
  EXPECT_TRUE(view.list("", 10).empty());
}

std::size_t resident_kib() {
  std::ifstream status("/proc/self/statm");
  std::size_t total = 0, resident = 0;
  status >> total >> resident;
  return resident * static_cast<std::size_t>(sysconf(_SC_PAGESIZE)) / 1024;
}

TEST_F(RegistryTest, TenThousandFunctionsStaySmallAndPagesStayQuick) {
  constexpr std::size_t kCount = 10'000;
  store::CatalogueChange change;
  create("template");
  const RecordPtr model = registry_->find("template");
  for (std::size_t i = 0; i < kCount; ++i) {
    FunctionVersion version = *model->latest;
    version.function_name = "function-" + std::to_string(i);
    version.config.log_group = "/aws/lambda/" + version.function_name;
    change.put_functions.push_back({.name = version.function_name, .next_version = 1, .document = settings_to_document({})});
    change.put_versions.push_back(to_row(version));
  }
  ASSERT_TRUE(catalogue_->apply(change).ok());
  change = {};
  close();
  const std::size_t before = resident_kib();
  const auto started = std::chrono::steady_clock::now();
  open();
  const auto opened = std::chrono::steady_clock::now();
  const std::size_t grown = resident_kib() - std::min(before, resident_kib());
  ASSERT_EQ(registry_->function_count(), kCount + 1);
  std::size_t pages = 0, seen = 0;
  for (std::string after;; ++pages) {
    const auto page = registry_->list(after, 50);
    if (page.empty()) break;
    seen += page.size();
    after = page.back()->latest->function_name;
  }
  const auto listed = std::chrono::steady_clock::now();
  EXPECT_EQ(seen, kCount + 1);
  const auto change_started = std::chrono::steady_clock::now();
  create("one-more");
  const auto changed = std::chrono::steady_clock::now();
  const auto us = [](auto duration) { return std::chrono::duration_cast<std::chrono::microseconds>(duration).count(); };
  std::printf("10,000 functions: open %ld ms, %zu KiB more resident (%.2f KiB each), page of 50 in %ld us, create %ld us\n",
              us(opened - started) / 1000, grown, static_cast<double>(grown) / kCount, us(listed - opened) / static_cast<long>(pages),
              us(changed - change_started));
  RecordProperty("kib_per_function", std::to_string(static_cast<double>(grown) / kCount));
  EXPECT_LT(us(listed - opened) / static_cast<long>(pages), 5000);
}

}  // namespace
}  // namespace mayfly::engine
