#include "runtime/environment.h"

#include <gtest/gtest.h>

namespace mayfly::runtime {
namespace {

engine::VersionPtr make_version(const std::string& runtime = "python3.11") {
  auto version = std::make_shared<engine::FunctionVersion>();
  version->function_name = "f";
  version->version = "$LATEST";
  version->config.runtime = runtime;
  version->config.handler = "app.handler";
  version->config.log_group = "/aws/lambda/f";
  return version;
}

std::map<std::string, std::string> as_map(const std::vector<std::string>& variables) {
  std::map<std::string, std::string> all;
  for (const std::string& variable : variables) {
    const std::size_t equals = variable.find('=');
    EXPECT_TRUE(all.emplace(variable.substr(0, equals), variable.substr(equals + 1)).second) << variable;
  }
  return all;
}

TEST(EnvironmentVariables, TellTheInitializationType) {
  EXPECT_EQ(as_map(environment_variables(*make_version(), {})).at("AWS_LAMBDA_INITIALIZATION_TYPE"), "on-demand");
  EnvironmentInputs inputs;
  inputs.initialization_type = "provisioned-concurrency";
  EXPECT_EQ(as_map(environment_variables(*make_version(), inputs)).at("AWS_LAMBDA_INITIALIZATION_TYPE"), "provisioned-concurrency");
}

TEST(EnvironmentVariables, HoldTheContractAndTheFunctionsOwn) {
  auto version = std::make_shared<engine::FunctionVersion>(*make_version());
  version->config.environment =
      std::map<std::string, std::string>{{"COLOUR", "red"}, {"PATH", "/mine"}, {"AWS_LAMBDA_RUNTIME_API", "evil"}};
  const auto all = as_map(environment_variables(*version, {.region = "eu-west-1",
                                                           .log_stream = "s",
                                                           .credentials = {"ASIA1", "k", "t"},
                                                           .runtime_variables = {{"PYTHONPATH", "/var/runtime"}}}));
  EXPECT_EQ(all.at("_HANDLER"), "app.handler");
  EXPECT_EQ(all.at("AWS_EXECUTION_ENV"), "AWS_Lambda_python3.11");
  EXPECT_EQ(all.at("AWS_LAMBDA_RUNTIME_API"), "169.254.100.1:9001");
  EXPECT_EQ(all.at("AWS_ENDPOINT_URL"), "http://169.254.100.1:9002");
  EXPECT_EQ(all.at("AWS_SESSION_TOKEN"), "t");
  EXPECT_EQ(all.at("COLOUR"), "red");
  EXPECT_EQ(all.at("PATH"), "/mine");
  EXPECT_EQ(all.at("AWS_REGION"), "eu-west-1");
  EXPECT_EQ(all.at("TZ"), ":UTC");
  EXPECT_FALSE(all.contains("AWS_LAMBDA_LOG_FORMAT"));
}

TEST(EnvironmentVariables, LeaveOutTheEndpointAndTheExecutionEnvironmentWhereToldTo) {
  auto version = std::make_shared<engine::FunctionVersion>(*make_version("provided.al2023"));
  version->config.environment.emplace()["MAYFLY_ENDPOINT_INJECTION"] = "off";
  version->config.log_format = "JSON";
  version->config.application_log_level = "WARN";
  const auto all = as_map(environment_variables(*version, {.region = "r", .log_stream = "s", .credentials = {}, .runtime_variables = {}}));
  EXPECT_FALSE(all.contains("AWS_ENDPOINT_URL"));
  EXPECT_FALSE(all.contains("AWS_EXECUTION_ENV"));
  EXPECT_EQ(all.at("AWS_LAMBDA_LOG_LEVEL"), "WARN");
}

}  // namespace
}  // namespace mayfly::runtime
