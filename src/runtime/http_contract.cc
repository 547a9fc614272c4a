#include "runtime/http_contract.h"

#include <algorithm>
#include <charconv>
#include <optional>

namespace mayfly::runtime {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

const std::string* variable(const engine::FunctionConfig& config, const char* name) {
  if (!config.environment) return nullptr;
  const auto it = config.environment->find(name);
  return it == config.environment->end() || it->second.empty() ? nullptr : &it->second;
}

std::optional<int> number_in(std::string_view text, int least, int most) {
  int number = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem != std::errc{} || end != text.data() + text.size() || number < least || number > most) return std::nullopt;
  return number;
}

Error unusable(const char* name, const std::string& value, std::string_view what) {
  return Error(ErrorCode::kFunctionFailed,
               "The environment variable " + std::string(name) + " has the value \"" + value + "\"; it must be " + std::string(what),
               "Runtime.InvalidHttpContract");
}

Result<void> read_port(const engine::FunctionConfig& config, const char* name, std::uint16_t& port) {
  const std::string* value = variable(config, name);
  if (value == nullptr) return {};
  const auto number = number_in(*value, 1, 65535);
  if (!number) return unusable(name, *value, "a port from 1 to 65535");
  port = static_cast<std::uint16_t>(*number);
  return {};
}

Result<void> read_path(const engine::FunctionConfig& config, const char* name, std::string& path) {
  const std::string* value = variable(config, name);
  if (value == nullptr) return {};
  const bool clean = std::ranges::all_of(*value, [](char c) { return c > 0x20 && c < 0x7f && c != '#'; });
  if (!clean) return unusable(name, *value, "a path in which all but visible ASCII is percent-encoded");
  path = value->starts_with('/') ? *value : "/" + *value;
  return {};
}

Result<void> read_statuses(const engine::FunctionConfig& config, const char* name, StatusSet& statuses) {
  const std::string* value = variable(config, name);
  if (value == nullptr) return {};
  auto parsed = StatusSet::parse(*value);
  if (!parsed.ok()) return unusable(name, *value, parsed.error().message());
  statuses = *std::move(parsed);
  return {};
}

}  // namespace

Result<StatusSet> StatusSet::parse(std::string_view text) {
  StatusSet set;
  const Error wrong(ErrorCode::kInvalidArgument, "a list of statuses from 100 to 599 and their ranges, such as 200-399,404");
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view item = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    const std::size_t dash = item.find('-');
    const auto first = number_in(item.substr(0, dash), 100, 599);
    const auto last = dash == std::string_view::npos ? first : number_in(item.substr(dash + 1), 100, 599);
    if (!first || !last || *last < *first) return wrong;
    set.ranges_.emplace_back(*first, *last);
  }
  if (set.ranges_.empty()) return wrong;
  return set;
}

bool StatusSet::contains(int status) const {
  return std::ranges::any_of(ranges_, [status](const auto& range) { return status >= range.first && status <= range.second; });
}

bool wants_http_contract(const engine::FunctionConfig& config) {
  const std::string* value = variable(config, "MAYFLY_CONTRACT");
  return value != nullptr && *value == "http";
}

Result<HttpContract> http_contract(const engine::FunctionConfig& config) {
  HttpContract contract;
  MAYFLY_TRY(read_port(config, "PORT", contract.port));
  MAYFLY_TRY(read_port(config, "AWS_LWA_PORT", contract.port));
  contract.readiness_port = contract.port;
  MAYFLY_TRY(read_port(config, "AWS_LWA_READINESS_CHECK_PORT", contract.readiness_port));
  MAYFLY_TRY(read_path(config, "AWS_LWA_READINESS_CHECK_PATH", contract.readiness_path));
  MAYFLY_TRY(read_path(config, "AWS_LWA_PASS_THROUGH_PATH", contract.pass_through_path));
  MAYFLY_TRY(read_path(config, "AWS_LWA_REMOVE_BASE_PATH", contract.base_path));
  while (contract.base_path.ends_with('/')) contract.base_path.pop_back();
  constexpr const char* kProtocol = "AWS_LWA_READINESS_CHECK_PROTOCOL";
  if (const std::string* value = variable(config, kProtocol)) {
    if (*value != "http" && *value != "tcp") return unusable(kProtocol, *value, "http or tcp");
    contract.readiness_by_http = *value == "http";
  }
  constexpr const char* kUnhealthy = "AWS_LWA_READINESS_CHECK_MIN_UNHEALTHY_STATUS";
  if (const std::string* value = variable(config, kUnhealthy)) {
    const auto least = number_in(*value, 101, 600);
    if (!least) return unusable(kUnhealthy, *value, "a status from 101 to 600");
    contract.healthy = StatusSet(100, *least - 1);
  }
  MAYFLY_TRY(read_statuses(config, "AWS_LWA_READINESS_CHECK_HEALTHY_STATUS", contract.healthy));
  MAYFLY_TRY(read_statuses(config, "AWS_LWA_ERROR_STATUS_CODES", contract.errors));
  if (const std::string* value = variable(config, "AWS_LWA_AUTHORIZATION_SOURCE")) contract.authorization_source = *value;
  return contract;
}

}  // namespace mayfly::runtime
