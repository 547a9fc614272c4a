#include "server/config.h"

#include <algorithm>
#include <charconv>
#include <functional>

#include "base/fd.h"

namespace mayfly::server {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

Error invalid(std::string_view name, std::string_view value, std::string_view allowed) {
  return Error(ErrorCode::kInvalidArgument,
               "setting " + std::string(name) + ": \"" + std::string(value) + "\" is not allowed; it must be " + std::string(allowed));
}

Result<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (ec != std::errc() || end != text.data() + text.size() || text.empty()) {
    return Error(ErrorCode::kInvalidArgument, "\"" + std::string(text) + "\" is not a number");
  }
  return number;
}

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    std::string_view part = text.substr(0, comma);
    while (!part.empty() && part.front() == ' ') part.remove_prefix(1);
    while (!part.empty() && part.back() == ' ') part.remove_suffix(1);
    if (!part.empty()) parts.emplace_back(part);
    text = comma == std::string_view::npos ? std::string_view{} : text.substr(comma + 1);
  }
  return parts;
}

// How each kind of value is read. `name` and `value` are for the message.
using Apply = std::function<Result<void>(Config&, std::string_view name, std::string_view value)>;

Apply text(std::string Config::* member) {
  return [member](Config& config, std::string_view, std::string_view value) -> Result<void> {
    config.*member = value;
    return {};
  };
}

Apply address(std::string Config::* member) {
  return [member](Config& config, std::string_view name, std::string_view value) -> Result<void> {
    const std::size_t colon = value.rfind(':');
    const auto port = colon == std::string_view::npos ? Result<std::uint64_t>(Error(ErrorCode::kInvalidArgument, ""))
                                                      : parse_number(value.substr(colon + 1));
    if (!port.ok() || *port > 65535 || colon == 0)
      return invalid(name, value, "HOST:PORT, such as 127.0.0.1:9000 (port 0 picks a free one)");
    config.*member = value;
    return {};
  };
}

Apply list(std::vector<std::string> Config::* member) {
  return [member](Config& config, std::string_view, std::string_view value) -> Result<void> {
    config.*member = split_list(value);
    return {};
  };
}

Apply duration(base::Duration Config::* member) {
  return [member](Config& config, std::string_view name, std::string_view value) -> Result<void> {
    const auto parsed = parse_duration(value);
    if (!parsed.ok()) return invalid(name, value, "a duration such as 500ms, 10s, 15m or 2h");
    config.*member = *parsed;
    return {};
  };
}

Apply count(std::uint32_t Config::* member, std::uint32_t min, std::uint32_t max) {
  return [member, min, max](Config& config, std::string_view name, std::string_view value) -> Result<void> {
    const auto parsed = parse_number(value);
    if (!parsed.ok() || *parsed < min || *parsed > max)
      return invalid(name, value, "a number from " + std::to_string(min) + " to " + std::to_string(max));
    config.*member = static_cast<std::uint32_t>(*parsed);
    return {};
  };
}

Apply bytes(std::uint64_t Config::* member) {
  return [member](Config& config, std::string_view name, std::string_view value) -> Result<void> {
    const auto parsed = parse_bytes(value);
    if (!parsed.ok() || *parsed < (1U << 20U)) return invalid(name, value, "a size of at least 1MB, such as 256MB or 4GB");
    config.*member = *parsed;
    return {};
  };
}

Apply on_off(bool Config::* member) {
  return [member](Config& config, std::string_view name, std::string_view value) -> Result<void> {
    if (value != "on" && value != "off" && value != "true" && value != "false") return invalid(name, value, "on or off");
    config.*member = value == "on" || value == "true";
    return {};
  };
}

template <typename T>
Apply one_of(T Config::* member, std::vector<std::pair<std::string_view, T>> choices) {
  return [member, choices = std::move(choices)](Config& config, std::string_view name, std::string_view value) -> Result<void> {
    std::string allowed;
    for (const auto& [word, meaning] : choices) {
      if (word == value) {
        config.*member = meaning;
        return {};
      }
      allowed += (allowed.empty() ? "" : ", ") + std::string(word);
    }
    return invalid(name, value, "one of " + allowed);
  };
}

Result<void> apply_account(Config& config, std::string_view name, std::string_view value) {
  if (value.size() != 12 || value.find_first_not_of("0123456789") != std::string_view::npos) return invalid(name, value, "12 digits");
  config.account = value;
  return {};
}

Result<void> apply_region(Config& config, std::string_view name, std::string_view value) {
  if (value.empty() || value.size() > 32 || value.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") != std::string_view::npos) {
    return invalid(name, value, "a region name such as us-east-1");
  }
  config.region = value;
  return {};
}

Result<void> apply_domain(Config& config, std::string_view name, std::string_view value) {
  const bool shaped = !value.empty() && value.size() <= 200 && !value.starts_with('.') && !value.ends_with('.') && !value.contains("..");
  if (!shaped || value.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-.") != std::string_view::npos) {
    return invalid(name, value, "a domain name in lower case, such as localhost or functions.example.com");
  }
  config.domain = value;
  return {};
}

Result<void> apply_runtimes(Config& config, std::string_view name, std::string_view value) {
  for (const std::string& entry : split_list(value)) {
    const std::size_t equals = entry.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 >= entry.size() || entry[equals + 1] != '/') {
      return invalid(name, entry, "RUNTIME=/path/to/interpreter, several separated by commas");
    }
    config.runtimes[entry.substr(0, equals)] = entry.substr(equals + 1);
  }
  return {};
}

struct Rule {
  Setting setting;
  Apply apply;
};

const std::vector<Rule>& rules() {
  static const std::vector<Rule> table = {
      {{"api", "HOST:PORT", "management APIs, health and metrics (default 127.0.0.1:9000)"}, address(&Config::api)},
      {{"gateway", "HOST:PORT", "public doors of functions (default 127.0.0.1:8080)"}, address(&Config::gateway)},
      {{"data", "DIR", "where everything is kept (default ./mayfly-data)"}, text(&Config::data)},
      {{"account", "DIGITS", "account id in every ARN (default 000000000000)"}, apply_account},
      {{"region", "NAME", "region in every ARN and signature (default us-east-1)"}, apply_region},
      {{"domain", "NAME", "domain of function URLs, ID.lambda-url.REGION.NAME (default localhost)"}, apply_domain},
      {{"access-key", "KEY", "access key of the account; default: made at first start, kept in DIR/credentials.json"},
       text(&Config::access_key)},
      {{"secret-key", "SECRET", "its secret; prefer MAYFLY_SECRET_KEY or the file, as flags show in the process list"},
       text(&Config::secret_key)},
      {{"user", "NAME|UID", "whom the server becomes when started as root (default: mayfly if it exists, else uid 64900)"},
       text(&Config::user)},
      {{"log-level", "LEVEL", "debug, info, warning or error (default info)"},
       one_of(&Config::log_level, {{"debug", base::LogLevel::kDebug},
                                   {"info", base::LogLevel::kInfo},
                                   {"warning", base::LogLevel::kWarning},
                                   {"error", base::LogLevel::kError}})},
      {{"log-format", "FORMAT", "text or json (default text)"},
       one_of(&Config::log_format, {{"text", base::LogFormat::kText}, {"json", base::LogFormat::kJson}})},
      {{"concurrency", "N", "execution environments that may be busy at once, the account's concurrency (default 1000)"},
       count(&Config::concurrency, 1, 100'000)},
      {{"environments", "N", "execution environments in all, idle ones included (default 2000)"}, count(&Config::environments, 1, 200'000)},
      {{"queue-per-function", "N", "invocations of one function that may wait (default 1000)"},
       count(&Config::queue_per_function, 0, 1'000'000)},
      {{"burst-starts", "N", "execution environments that one function may start within 10 s (default 1000)"},
       count(&Config::burst_starts, 1, 100'000)},
      {{"keep-alive", "POLICY",
        "learned: idle environments end, and are made ahead of calls, by what the function's calls so far say; fixed: after idle-timeout "
        "(default learned)"},
       one_of<std::string>(&Config::keep_alive, {{"learned", "learned"}, {"fixed", "fixed"}})},
      {{"idle-timeout", "DURATION", "idle environments end after this, unless more is learned (default 10m)"},
       duration(&Config::idle_timeout)},
      {{"idle-memory-max", "SIZE", "memory of idle environments; beyond it the least useful end (default: a quarter of the machine's)"},
       bytes(&Config::idle_memory_max)},
      {{"freeze-after", "DURATION", "an idle environment is frozen after this (default 10ms)"}, duration(&Config::freeze_after)},
      {{"shutdown-timeout", "DURATION", "longest wait for running invocations at SIGTERM (default 15m)"},
       duration(&Config::shutdown_timeout)},
      {{"cpu-quota", "on|off", "hard CPU quota of 1 vCPU per 1,769 MB (default on); off leaves only the weight"},
       on_off(&Config::cpu_quota)},
      {{"network", "on|off", "functions reach outside networks through NAT (default on)"}, on_off(&Config::network)},
      {{"network-cidr", "CIDR", "addresses given to environments (default: a /18 of 100.64.0.0/10, chosen by the data directory)"},
       text(&Config::network_cidr)},
      {{"network-deny", "CIDR,...", "networks that functions may not reach, beside those never reachable"}, list(&Config::network_deny)},
      {{"resolvers", "IP[:PORT],...",
        "DNS servers asked for functions (default: those of /etc/resolv.conf; they may be on the host's loopback)"},
       list(&Config::resolvers)},
      {{"stand-in", "POLICY", "nearest: a near interpreter version may stand in for a missing one; off: never (default nearest)"},
       one_of<std::string>(&Config::stand_in, {{"nearest", "nearest"}, {"off", "off"}})},
      {{"runtime-paths", "DIR,...", "further directories searched for interpreters"}, list(&Config::runtime_paths)},
      {{"runtimes", "NAME=PATH,...", "interpreter of a runtime, such as python3.12=/opt/python3.12/bin/python3"}, apply_runtimes},
      {{"log-group-bytes", "SIZE", "kept log of one function (default 256MB)"}, bytes(&Config::log_group_bytes)},
      {{"log-total-bytes", "SIZE", "kept log of all functions (default 4GB)"}, bytes(&Config::log_total_bytes)},
      {{"log-days", "N", "age at which log is deleted (default 14)"}, count(&Config::log_days, 1, 3650)},
  };
  return table;
}

std::string variable_name(std::string_view setting) {
  std::string name = "MAYFLY_";
  for (const char c : setting) name += c == '-' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  return name;
}

std::string_view trim(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

}  // namespace

const std::vector<Setting>& settings() {
  static const std::vector<Setting> all = [] {
    std::vector<Setting> list_of_all;
    for (const Rule& rule : rules()) list_of_all.push_back(rule.setting);
    return list_of_all;
  }();
  return all;
}

Result<void> apply_setting(Config& config, std::string_view name, std::string_view value) {
  for (const Rule& rule : rules()) {
    if (rule.setting.name == name) return rule.apply(config, name, value);
  }
  return Error(ErrorCode::kInvalidArgument, "there is no setting \"" + std::string(name) + "\"; `mayfly server --help` lists them");
}

Result<void> apply_file(Config& config, const std::string& path) {
  MAYFLY_ASSIGN(const std::string content, base::read_file(path, 1U << 20U));
  std::string_view left = content;
  for (int line = 1; !left.empty(); ++line) {
    const std::size_t end = left.find('\n');
    const std::string_view row = trim(left.substr(0, end));
    left = end == std::string_view::npos ? std::string_view{} : left.substr(end + 1);
    if (row.empty() || row.front() == '#') continue;
    const std::size_t equals = row.find('=');
    const std::string where = path + ":" + std::to_string(line);
    if (equals == std::string_view::npos)
      return Error(ErrorCode::kInvalidArgument, where + ": expected \"name = value\", found \"" + std::string(row) + "\"");
    MAYFLY_TRY(apply_setting(config, trim(row.substr(0, equals)), trim(row.substr(equals + 1))).with_context(where));
  }
  return {};
}

Result<Config> load_config(const std::string& config_file, const std::vector<std::string>& environment,
                           const std::vector<std::pair<std::string, std::string>>& flags) {
  Config config;
  if (!config_file.empty()) MAYFLY_TRY(apply_file(config, config_file));
  for (const Setting& setting : settings()) {
    const std::string prefix = variable_name(setting.name) + "=";
    for (const std::string& entry : environment) {
      if (entry.starts_with(prefix))
        MAYFLY_TRY(apply_setting(config, setting.name, std::string_view(entry).substr(prefix.size())).with_context("environment"));
    }
  }
  for (const auto& [name, value] : flags) MAYFLY_TRY(apply_setting(config, name, value));
  if (config.access_key.empty() != config.secret_key.empty()) {
    return Error(ErrorCode::kInvalidArgument, "access-key and secret-key belong together: set both or neither");
  }
  return config;
}

Result<base::Duration> parse_duration(std::string_view text) {
  const std::size_t unit_at = std::min(text.find_first_not_of("0123456789"), text.size());
  MAYFLY_ASSIGN(const std::uint64_t number, parse_number(text.substr(0, unit_at)));
  const std::string_view unit = text.substr(unit_at);
  if (number <= 31'536'000'000) {
    if (unit == "ms") return base::Duration(std::chrono::milliseconds(number));
    if (unit == "s" && number <= 31'536'000) return base::Duration(std::chrono::seconds(number));
    if (unit == "m" && number <= 525'600) return base::Duration(std::chrono::minutes(number));
    if (unit == "h" && number <= 8'760) return base::Duration(std::chrono::hours(number));
  }
  return Error(ErrorCode::kInvalidArgument,
               "\"" + std::string(text) + "\" is not a duration such as 500ms, 10s, 15m or 2h (at most a year)");
}

Result<std::uint64_t> parse_bytes(std::string_view text) {
  const std::size_t unit_at = std::min(text.find_first_not_of("0123456789"), text.size());
  MAYFLY_ASSIGN(const std::uint64_t number, parse_number(text.substr(0, unit_at)));
  const std::string_view unit = text.substr(unit_at);
  const unsigned shift = unit.empty() ? 0 : unit == "KB" ? 10 : unit == "MB" ? 20 : unit == "GB" ? 30 : unit == "TB" ? 40 : 64;
  if (shift == 64 || number > (UINT64_MAX >> shift))
    return Error(ErrorCode::kInvalidArgument, "\"" + std::string(text) + "\" is not a size such as 64MB or 4GB");
  return number << shift;
}

}  // namespace mayfly::server
