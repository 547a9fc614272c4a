#include "engine/function.h"

#include <algorithm>
#include <charconv>

#include "base/bytes.h"

namespace mayfly::engine {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

// AWS's pattern, which its error text quotes.
constexpr std::string_view kNamePattern =
    R"((arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?)"
    R"(([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?)";

constexpr std::string_view kCreatingReason = "The function is being created.";  // AWS says so for updates too
constexpr std::string_view kCreatingCode = "Creating";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_letter(char c) { return is_lower(c) || (c >= 'A' && c <= 'Z'); }
bool is_word(char c) { return is_letter(c) || is_digit(c) || c == '-' || c == '_'; }

bool is_digits(std::string_view text) { return !text.empty() && std::all_of(text.begin(), text.end(), is_digit); }
bool is_account(std::string_view text) { return text.size() == 12 && is_digits(text); }
bool is_name(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return is_word(c) || c == '.'; });
}
bool is_qualifier(std::string_view text) {
  if (text == kLatest || text == "$LATEST.PUBLISHED") return true;
  return !text.empty() && std::all_of(text.begin(), text.end(), is_word);
}
bool is_partition(std::string_view text) {
  return text.empty() ||
         (text.starts_with("aws") && std::all_of(text.begin(), text.end(), [](char c) { return is_letter(c) || c == '-'; }));
}

// (eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d
bool is_region(std::string_view text) {
  if (text.starts_with("eusc-")) text.remove_prefix(5);
  if (text.size() < 6 || !is_lower(text[0]) || !is_lower(text[1])) return false;
  text.remove_prefix(2);
  const std::size_t number = text.rfind('-');
  if (number == 0 || number + 2 != text.size() || !is_digit(text.back())) return false;
  text = text.substr(0, number);
  const std::size_t place = text.rfind('-');
  if (place + 1 == text.size() || !std::all_of(text.begin() + static_cast<std::ptrdiff_t>(place) + 1, text.end(), is_lower)) return false;
  const std::string_view kind = text.substr(0, place);
  return kind.empty() || kind == "-gov" || kind == "-iso" || (kind.size() == 5 && kind.starts_with("-iso") && is_lower(kind[4]));
}

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t colon = text.find(':');
    parts.push_back(text.substr(0, colon));
    if (colon == std::string_view::npos) return parts;
    text.remove_prefix(colon + 1);
  }
}

}  // namespace

std::string FunctionVersion::runtime_version_arn() const {
  const auto parsed = parse_function_name(arn);
  const std::string region = parsed.ok() ? parsed->region : "";
  return "arn:aws:lambda:" + region + "::runtime:" + base::hex_encode(base::sha256("mayfly runtime " + config.runtime));
}

std::string_view FunctionVersion::state_reason() const { return state == FunctionState::kPending ? kCreatingReason : ""; }
std::string_view FunctionVersion::state_reason_code() const { return state == FunctionState::kPending ? kCreatingCode : ""; }
std::string_view FunctionVersion::update_reason() const { return update_status == UpdateStatus::kInProgress ? kCreatingReason : ""; }
std::string_view FunctionVersion::update_reason_code() const { return update_status == UpdateStatus::kInProgress ? kCreatingCode : ""; }

namespace {

// The value of a variable of the function, `otherwise` when it has none.
std::string variable_of(const FunctionConfig& config, const char* name, std::string otherwise) {
  if (!config.environment) return otherwise;
  const auto found = config.environment->find(name);
  return found == config.environment->end() ? otherwise : found->second;
}

}  // namespace

std::string FunctionConfig::network() const { return variable_of(*this, "MAYFLY_NETWORK", "outside"); }
std::optional<std::uint32_t> FunctionConfig::runs_per_environment() const {
  const std::string value = variable_of(*this, "AWS_LAMBDA_MAX_CONCURRENCY", "1");
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || number < 1 || number > Limits::kRunsPerEnvironmentMax)
    return std::nullopt;
  return number;
}
bool FunctionConfig::alias_waits_for_init() const { return variable_of(*this, "MAYFLY_ALIAS_WAITS_FOR", "") == "init"; }

std::string_view state_name(FunctionState state) {
  switch (state) {
    case FunctionState::kPending:
      return "Pending";
    case FunctionState::kActive:
      return "Active";
    case FunctionState::kInactive:
      return "Inactive";
    case FunctionState::kFailed:
      return "Failed";
  }
  return "Failed";
}

std::string_view update_status_name(UpdateStatus status) {
  switch (status) {
    case UpdateStatus::kNone:
      return "";
    case UpdateStatus::kSuccessful:
      return "Successful";
    case UpdateStatus::kInProgress:
      return "InProgress";
    case UpdateStatus::kFailed:
      return "Failed";
  }
  return "Failed";
}

const std::shared_ptr<const FunctionSettings>& FunctionRecord::default_settings() {
  static const auto none = std::make_shared<const FunctionSettings>();
  return none;
}

const Alias* FunctionRecord::find_alias(std::string_view name) const {
  const auto found = settings->aliases.find(std::string(name));
  return found == settings->aliases.end() ? nullptr : &found->second;
}

VersionPtr FunctionRecord::find(std::string_view qualifier) const { return route(qualifier, 1.0); }

VersionPtr FunctionRecord::route(std::string_view qualifier, double chance) const {
  if (qualifier.empty() || qualifier == kLatest) return latest;
  if (!is_digits(qualifier)) {
    const Alias* alias = find_alias(qualifier);
    if (alias == nullptr) return nullptr;
    const bool additional = !alias->additional_version.empty() && chance < alias->additional_weight;
    return route(additional ? alias->additional_version : alias->version, 1.0);
  }
  // Ascending numbers without leading zeros: shorter is smaller.
  const auto smaller = [](const VersionPtr& version, std::string_view wanted) {
    return version->version.size() != wanted.size() ? version->version.size() < wanted.size() : version->version < wanted;
  };
  const auto found = std::lower_bound(published.begin(), published.end(), qualifier, smaller);
  return found == published.end() || (*found)->version != qualifier ? nullptr : *found;
}

std::string Account::function_arn(std::string_view name) const {
  std::string arn = "arn:aws:lambda:" + region + ":" + id + ":function:";
  arn += name;
  return arn;
}

std::string Account::layer_arn(std::string_view name) const {
  std::string arn = "arn:aws:lambda:" + region + ":" + id + ":layer:";
  arn += name;
  return arn;
}

Result<FunctionName> parse_function_name(std::string_view text) {
  const auto refused = [&] {
    return Error(ErrorCode::kInvalidArgument,
                 "1 validation error detected: Value '" + std::string(text) +
                     "' at 'functionName' failed to satisfy constraint: Member must satisfy regular expression pattern: " +
                     std::string(kNamePattern),
                 "ValidationException");
  };
  const std::vector<std::string_view> parts = split(text);
  std::size_t at = 0;
  const auto more_than_name = [&] { return parts.size() - at > 1; };
  if (parts.size() > 3 && parts[0] == "arn") {
    if (!is_partition(parts[1]) || parts[2] != "lambda") return refused();
    at = 3;
  }
  FunctionName found;
  if (more_than_name() && is_region(parts[at])) found.region = parts[at++];
  if (more_than_name() && is_account(parts[at])) found.account = parts[at++];
  if (more_than_name() && parts[at] == "function") ++at;
  const std::size_t left = parts.size() - at;
  if (left > 2 || !is_name(parts[at]) || (left == 2 && !is_qualifier(parts[at + 1]))) return refused();
  found.name = parts[at];
  if (left == 2) found.qualifier = parts[at + 1];
  return found;
}

}  // namespace mayfly::engine
