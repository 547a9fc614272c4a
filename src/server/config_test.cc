#include "server/config.h"

#include <gtest/gtest.h>

#include <fstream>

namespace mayfly::server {
namespace {

TEST(Config, FlagsWinOverVariablesWhichWinOverTheFile) {
  const std::string path = testing::TempDir() + "mayfly-config-test";
  std::ofstream(path) << "# a comment\n\napi = 127.0.0.1:1\nregion = eu-west-1\nidle-timeout = 2m\nlog-group-bytes = 8MB\n";
  const auto config = load_config(path, {"MAYFLY_API=127.0.0.1:2", "MAYFLY_REGION=eu-west-2", "PATH=/bin"}, {{"api", "127.0.0.1:3"}});
  ASSERT_TRUE(config.ok()) << config.error().message();
  EXPECT_EQ(config->api, "127.0.0.1:3");
  EXPECT_EQ(config->region, "eu-west-2");
  EXPECT_EQ(config->idle_timeout, std::chrono::minutes(2));
  EXPECT_EQ(config->log_group_bytes, 8ULL << 20U);
}

TEST(Config, NamesFileAndLineOfAMistake) {
  const std::string path = testing::TempDir() + "mayfly-config-bad";
  std::ofstream(path) << "api = 127.0.0.1:1\nconcurrency = many\n";
  const auto config = load_config(path, {}, {});
  ASSERT_FALSE(config.ok());
  EXPECT_NE(config.error().message().find(path + ":2: setting concurrency: \"many\""), std::string::npos) << config.error().message();
}

TEST(Config, RefusesWhatIsOutOfRange) {
  Config config;
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{{"account", "123"},
                                                                                    {"account", "12345678901x"},
                                                                                    {"api", "localhost"},
                                                                                    {"api", ":1"},
                                                                                    {"api", "h:99999"},
                                                                                    {"concurrency", "0"},
                                                                                    {"concurrency", "-1"},
                                                                                    {"idle-timeout", "5"},
                                                                                    {"idle-timeout", "99999999h"},
                                                                                    {"cpu-quota", "maybe"},
                                                                                    {"log-total-bytes", "1"},
                                                                                    {"runtimes", "python3.12"},
                                                                                    {"no-such", "1"},
                                                                                    {"domain", "Localhost"},
                                                                                    {"domain", ".local"},
                                                                                    {"domain", "a b"},
                                                                                    {"region", "EU"}}) {
    EXPECT_FALSE(apply_setting(config, name, value).ok()) << name << "=" << value;
  }
  EXPECT_FALSE(load_config("", {}, {{"access-key", "AKIA"}}).ok());
}

TEST(Config, EverySettingHasHelpAndAcceptsItsOwnName) {
  EXPECT_GT(settings().size(), 20U);
  for (const Setting& setting : settings()) EXPECT_FALSE(setting.help.empty()) << setting.name;
}

}  // namespace
}  // namespace mayfly::server
