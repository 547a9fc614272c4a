#include "api/lambda/configuration.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "api/lambda/golden_for_test.h"

namespace mayfly::api::lambda {
namespace {

namespace json = boost::json;

const engine::Account kAccount;

engine::FunctionVersion version() {
  engine::FunctionVersion made;
  made.function_name = "f";
  made.version = "$LATEST";
  made.arn = kAccount.function_arn("f");
  made.revision_id = "<uuid:1>";
  made.last_modified = "date";
  made.config.runtime = "python3.12";
  made.config.handler = "handler.handler";
  made.config.role = "arn:aws:iam::000000000000:role/r";
  made.config.memory_mb = 256;
  made.config.timeout_s = 5;
  made.config.environment.emplace();
  made.config.log_group = "/aws/lambda/f";
  made.config.code_sha256 = "<code-sha256:1>";
  return made;
}

void make_active(engine::FunctionVersion& version, const std::string& revision) {
  version.state = engine::FunctionState::kActive;
  version.update_status = engine::UpdateStatus::kSuccessful;
  version.revision_id = revision;
}

// What differs by nature is taken from the golden answer.
json::object comparable(const engine::FunctionVersion& version, const json::object& golden, std::string_view qualifier = {}) {
  json::object shown = configuration_json(version, qualifier);
  EXPECT_TRUE(
      std::string(shown.at("RuntimeVersionConfig").at("RuntimeVersionArn").as_string()).starts_with("arn:aws:lambda:us-east-1::runtime:"));
  EXPECT_TRUE(shown.at("CodeSize").is_number());
  for (const char* name : {"RuntimeVersionConfig", "CodeSize"}) shown[name] = golden.at(name);
  // Numbers of either sign compare equal as text.
  return json::parse(json::serialize(shown)).as_object();
}

TEST(ConfigurationTest, ANewFunctionIsShownAsRecorded) {
  engine::FunctionVersion made = version();
  const json::object& golden = golden_configuration("create");
  EXPECT_EQ(comparable(made, golden), golden) << json::serialize(comparable(made, golden));
}

TEST(ConfigurationTest, AFunctionWithoutVariablesHasNoEnvironment) {
  engine::FunctionVersion made = version();
  made.config.environment.reset();
  made.config.handler = "index.handler";
  made.config.memory_mb = 128;
  made.config.timeout_s = 3;
  const json::object& golden = golden_configuration("create_without_environment");
  EXPECT_EQ(comparable(made, golden), golden) << json::serialize(comparable(made, golden));
}

TEST(ConfigurationTest, AnActiveFunctionIsShownAsRecorded) {
  engine::FunctionVersion made = version();
  make_active(made, "<uuid:2>");
  const json::object& golden = golden_configuration("get");
  EXPECT_EQ(comparable(made, golden), golden) << json::serialize(comparable(made, golden));
}

TEST(ConfigurationTest, AnUpdateUnderWayIsShownAsRecorded) {
  engine::FunctionVersion made = version();
  make_active(made, "<uuid:3>");
  made.update_status = engine::UpdateStatus::kInProgress;
  made.config.description = "Changed-Description";
  made.config.environment = std::map<std::string, std::string>{{"ENV_A", "a"}};
  made.config.memory_mb = 512;
  made.config.runtime = "python3.11";
  made.config.timeout_s = 10;
  const json::object& golden = golden_configuration("update_configuration");
  EXPECT_EQ(comparable(made, golden), golden) << json::serialize(comparable(made, golden));
}

TEST(ConfigurationTest, APublishedVersionIsShownAsRecorded) {
  engine::FunctionVersion made = version();
  make_active(made, "<uuid:3>");
  made.version = "1";
  made.config.memory_mb = 128;
  made.config.timeout_s = 30;
  const json::object& golden = golden_configuration("published");
  EXPECT_EQ(comparable(made, golden, "1"), golden) << json::serialize(comparable(made, golden, "1"));
}

TEST(ConfigurationTest, JsonLoggingShowsItsLevelsAsRecorded) {
  engine::FunctionVersion made = version();
  make_active(made, "<uuid:4>");
  made.config.log_format = "JSON";
  made.config.application_log_level = "INFO";
  made.config.system_log_level = "INFO";
  const json::object& golden = golden_configuration("json_logging");
  EXPECT_EQ(comparable(made, golden), golden) << json::serialize(comparable(made, golden));
}

TEST(ConfigurationTest, AVpcThatWasTakenAwayIsShownEmptyAsRecorded) {
  engine::FunctionVersion made = version();
  make_active(made, "<uuid:6>");
  made.config.accepted_json = R"({"VpcConfig":{"SubnetIds":[],"SecurityGroupIds":[]}})";
  const json::object& golden = golden_configuration("vpc_removed");
  EXPECT_EQ(comparable(made, golden), golden) << json::serialize(comparable(made, golden));
}

json::object input(const std::string& text) { return json::parse(text).as_object(); }

TEST(ConfigurationTest, CreateFillsInTheDefaults) {
  const auto config = configuration_from(input(R"({"Runtime":"python3.12","Handler":"a.b","Role":"r","Code":{}})"));
  ASSERT_TRUE(config.ok()) << config.error().message();
  EXPECT_EQ(config->timeout_s, 3U);
  EXPECT_EQ(config->memory_mb, 128U);
  EXPECT_EQ(config->architecture, "x86_64");
  EXPECT_FALSE(config->environment);
}

TEST(ConfigurationTest, RuntimeAndHandlerAreMandatory) {
  for (const char* text : {R"({"Handler":"a.b"})", R"({"Runtime":"python3.12"})"}) {
    const auto config = configuration_from(input(text));
    ASSERT_FALSE(config.ok());
    EXPECT_EQ(config.error().message(), "Runtime and Handler are mandatory parameters for functions created with deployment packages.");
  }
}

TEST(ConfigurationTest, UnknownAndRetiredRuntimesHaveTheRecordedTexts) {
  EXPECT_EQ(check_runtime_name("non-existent-runtime").error().message(), golden_error("runtime").message);
  EXPECT_EQ(check_runtime_name("python3.7").error().message(), golden_error("deprecated_runtime").message);
  for (const char* good : {"python3.12", "nodejs22.x", "provided.al2023", "python3.15"}) EXPECT_TRUE(check_runtime_name(good).ok()) << good;
}

TEST(ConfigurationTest, WhatAFunctionWouldRelyOnIsRefusedByName) {
  const std::string start = R"({"Runtime":"python3.12","Handler":"a.b",)";
  for (const auto& [member, word] :
       std::vector<std::pair<std::string, std::string>>{{R"("PackageType":"Image")", "images"},
                                                        {R"("FileSystemConfigs":[{}])", "FileSystemConfigs"},
                                                        {R"("DurableConfig":{"ExecutionTimeout":1})", "DurableConfig"}}) {
    const auto config = configuration_from(input(start + member + "}"));
    ASSERT_FALSE(config.ok()) << member;
    EXPECT_EQ(config.error().id(), "UnsupportedOperationException");
    EXPECT_NE(config.error().message().find(word), std::string::npos) << config.error().message();
  }
  EXPECT_TRUE(configuration_from(input(start + R"("Layers":[],"FileSystemConfigs":[]})")).ok());
}

TEST(ConfigurationTest, VariablesMayTakeFourKilobytesAsJsonAndNoReservedName) {
  const auto with = [](const std::string& name, std::size_t length) {
    return change_from(input(R"({"Environment":{"Variables":{")" + name + R"(":")" + std::string(length, 'x') + "\"}}}"), {});
  };
  const std::size_t frame = std::string(R"({"LARGE_VAR":""})").size();
  EXPECT_TRUE(with("LARGE_VAR", 4096 - frame).ok());
  const auto over = with("LARGE_VAR", 4097 - frame);
  ASSERT_FALSE(over.ok());
  EXPECT_TRUE(
      over.error().message().starts_with("Lambda was unable to configure your environment variables because the environment variables you "
                                         "have provided exceeded the 4KB limit. String measured: {\"LARGE_VAR\":\"xx"));
  const auto reserved = with("AWS_REGION", 1);
  ASSERT_FALSE(reserved.ok());
  EXPECT_TRUE(reserved.error().message().ends_with("Reserved keys used in this request: AWS_REGION"));
}

TEST(ConfigurationTest, StandardFunctionsKeepTheirLimits) {
  EXPECT_TRUE(change_from(input(R"({"Timeout":900,"MemorySize":10240})"), {}).ok());
  EXPECT_EQ(change_from(input(R"({"Timeout":901})"), {}).error().id(), "InvalidParameterValueException");
  EXPECT_EQ(change_from(input(R"({"MemorySize":10241})"), {}).error().id(), "InvalidParameterValueException");
}

TEST(ConfigurationTest, StoredMembersMergeAndEmptyOnesGo) {
  engine::FunctionConfig current;
  current.accepted_json = R"({"KMSKeyArn":"arn:k","DeadLetterConfig":{"TargetArn":"arn:q"}})";
  auto change = change_from(input(R"({"KMSKeyArn":"","VpcConfig":{"SubnetIds":["subnet-1"]}})"), current);
  ASSERT_TRUE(change.ok());
  EXPECT_EQ(input(*change->accepted_json), input(R"({"DeadLetterConfig":{"TargetArn":"arn:q"},"VpcConfig":{"SubnetIds":["subnet-1"]}})"));
  change = change_from(input(R"({"DeadLetterConfig":{"TargetArn":""}})"), current);
  EXPECT_EQ(*change->accepted_json, R"({"KMSKeyArn":"arn:k"})");
  EXPECT_FALSE(change_from(input(R"({"Timeout":5})"), current)->accepted_json);
}

TEST(ConfigurationTest, LogLevelsNeedTheJsonFormat) {
  EXPECT_FALSE(change_from(input(R"({"LoggingConfig":{"ApplicationLogLevel":"INFO"}})"), {}).ok());
  EXPECT_TRUE(change_from(input(R"({"LoggingConfig":{"LogFormat":"JSON","ApplicationLogLevel":"INFO"}})"), {}).ok());
}

}  // namespace
}  // namespace mayfly::api::lambda
