// Configuration of `mayfly server`: one table of settings; each is a flag, a MAYFLY_... variable and a key of the
// configuration file at once (flag over variable over file over default).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "base/time.h"

namespace mayfly::server {

struct Config {
  std::string api = "127.0.0.1:9000";
  std::string gateway = "127.0.0.1:8080";
  std::string data = "./mayfly-data";
  std::string account = "000000000000";
  std::string region = "us-east-1";
  std::string domain = "localhost";  // of function URLs: ID.lambda-url.REGION.DOMAIN
  std::string access_key, secret_key;  // empty: made at first start and kept in the data directory
  std::string user;                    // "" = mayfly if there is such a user, else uid 64900; root only
  base::LogLevel log_level = base::LogLevel::kInfo;
  base::LogFormat log_format = base::LogFormat::kText;

  std::uint32_t concurrency = 1000;
  std::uint32_t environments = 2000;
  std::uint32_t queue_per_function = 1000;
  std::uint32_t burst_starts = 1000;
  base::Duration idle_timeout = std::chrono::minutes(10);
  std::string keep_alive = "learned";  // or "fixed"
  std::uint64_t idle_memory_max = 0;   // bytes; 0: a quarter of the machine's memory
  base::Duration freeze_after = std::chrono::milliseconds(10);
  base::Duration shutdown_timeout = std::chrono::seconds(900);
  bool cpu_quota = true;
  bool network = true;  // false: no function reaches outside networks
  std::string network_cidr;             // "": a /18 of 100.64.0.0/10, chosen by the data directory
  std::vector<std::string> network_deny;
  std::vector<std::string> resolvers;           // "ADDRESS" or "ADDRESS:PORT"; empty: those of /etc/resolv.conf
  std::string stand_in = "nearest";             // "nearest" or "off"
  std::vector<std::string> runtime_paths;       // further directories searched for interpreters
  std::map<std::string, std::string> runtimes;  // "python3.12" -> interpreter path
  std::uint64_t log_group_bytes = 256ULL << 20U;
  std::uint64_t log_total_bytes = 4ULL << 30U;
  std::uint32_t log_days = 14;
};

// What documentation, `--help` and the parser are made of.
struct Setting {
  std::string_view name;   // "idle-timeout"; the variable is MAYFLY_IDLE_TIMEOUT
  std::string_view value;  // placeholder in help: "DURATION"
  std::string_view help;
};
[[nodiscard]] const std::vector<Setting>& settings();

// Sets one setting from text. kInvalidArgument names the setting, the value and what is allowed.
[[nodiscard]] base::Result<void> apply_setting(Config& config, std::string_view name, std::string_view value);

// Reads a file of `name = value` lines ('#' comments); errors name file and line.
[[nodiscard]] base::Result<void> apply_file(Config& config, const std::string& path);

// File (if `config_file` is not empty), then MAYFLY_... variables from `environment` ("NAME=value"), then `flags`.
[[nodiscard]] base::Result<Config> load_config(const std::string& config_file, const std::vector<std::string>& environment,
                                               const std::vector<std::pair<std::string, std::string>>& flags);

// "500ms", "10s", "15m", "2h".
[[nodiscard]] base::Result<base::Duration> parse_duration(std::string_view text);
// "64MB", "4GB", "1048576" (1 MB = 1024 KB).
[[nodiscard]] base::Result<std::uint64_t> parse_bytes(std::string_view text);

}  // namespace mayfly::server
