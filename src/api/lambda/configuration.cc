#include "api/lambda/configuration.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>

#include "api/internal/answer.h"
#include "api/lambda/input.h"
#include "api/lambda/model.h"
#include "base/bytes.h"
#include "base/json.h"

namespace mayfly::api::lambda {
namespace {

namespace json = boost::json;
using base::Result;

// Standard functions; the model's larger bounds are for kinds of functions that are not here.
constexpr std::int64_t kTimeoutMax_s = 900;
constexpr std::int64_t kMemoryMax_mb = 10'240;

// Stored and shown, without effect: no VPC, keys or dead letter queues here yet.
constexpr std::array kAccepted = {"VpcConfig", "DeadLetterConfig", "KMSKeyArn"};

// Names of variables that belong to the runtime environment (AWS: "Defined runtime environment variables").
constexpr std::array kReservedVariables = {"_HANDLER",
                                           "_X_AMZN_TRACE_ID",
                                           "AWS_DEFAULT_REGION",
                                           "AWS_REGION",
                                           "AWS_EXECUTION_ENV",
                                           "AWS_LAMBDA_FUNCTION_NAME",
                                           "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
                                           "AWS_LAMBDA_FUNCTION_VERSION",
                                           "AWS_LAMBDA_INITIALIZATION_TYPE",
                                           "AWS_LAMBDA_LOG_GROUP_NAME",
                                           "AWS_LAMBDA_LOG_STREAM_NAME",
                                           "AWS_ACCESS_KEY",
                                           "AWS_ACCESS_KEY_ID",
                                           "AWS_SECRET_ACCESS_KEY",
                                           "AWS_SESSION_TOKEN",
                                           "AWS_LAMBDA_RUNTIME_API",
                                           "LAMBDA_TASK_ROOT",
                                           "LAMBDA_RUNTIME_DIR"};

// The member of a structure that may be absent itself.
std::optional<std::string> text_in(const json::object* input, std::string_view name) {
  return input == nullptr ? std::nullopt : optional_text_in(*input, name);
}
std::optional<std::int64_t> number_in(const json::object* input, std::string_view name) {
  return input == nullptr ? std::nullopt : lambda::number_in(*input, name);
}

bool is_set(const json::object& input, json::string_view name) {
  const json::value* found = input.if_contains(name);
  if (found == nullptr || found->is_null()) return false;
  if (const auto* list = found->if_array()) return !list->empty();
  if (const auto* object = found->if_object()) return !object->empty();
  if (const auto* text = found->if_string()) return !text->empty();
  return true;
}

// Members whose effect a function would rely on: refusing is kinder than ignoring.
Result<void> refuse_unsupported(const json::object& input) {
  if (text_in(&input, "PackageType").value_or("Zip") == "Image" || is_set(input, "ImageConfig")) {
    return unsupported("mayfly does not run container images yet; deploy the function as a zip (PackageType Zip)");
  }
  for (const char* name :
       {"FileSystemConfigs", "CodeSigningConfigArn", "TenancyConfig", "CapacityProviderConfig", "DurableConfig", "PublishTo"}) {
    if (is_set(input, name)) return unsupported("mayfly does not support " + std::string(name) + " yet; leave it out");
  }
  return {};
}

std::string environment_text(const std::map<std::string, std::string>& variables) {
  json::object object;
  for (const auto& [name, value] : variables) object[name] = value;
  return json::serialize(object);
}

Result<std::map<std::string, std::string>> environment_from(const json::object& environment) {
  const json::object* variables = object_in(environment, "Variables");
  if (variables == nullptr) return std::map<std::string, std::string>();
  std::map<std::string, std::string> read = string_map(*variables);
  std::string reserved;
  for (const char* name : kReservedVariables) {
    if (read.contains(name)) reserved += (reserved.empty() ? "" : ", ") + std::string(name);
  }
  if (!reserved.empty()) {
    return invalid_parameter(
        "Lambda was unable to configure your environment variables because the environment variables you have provided contains reserved "
        "keys that are currently not "
        "supported for modification. Reserved keys used in this request: " +
        reserved);
  }
  const std::string text = environment_text(read);
  if (text.size() > engine::Limits::kEnvironmentBytesMax) {
    return invalid_parameter(
        "Lambda was unable to configure your environment variables because the environment variables you have provided exceeded the 4KB "
        "limit. String measured: " +
        text);
  }
  return read;
}

Result<void> check_limits(std::optional<std::int64_t> timeout_s, std::optional<std::int64_t> memory_mb) {
  if (timeout_s && *timeout_s > kTimeoutMax_s)
    return invalid_parameter("'Timeout' value failed to satisfy constraint: Member must have value less than or equal to 900");
  if (memory_mb && *memory_mb > kMemoryMax_mb) {
    return invalid_parameter("'MemorySize' value failed to satisfy constraint: Member must have value less than or equal to 10240");
  }
  return {};
}

// "Text" takes no levels (AWS's rule).
Result<void> check_logging(const json::object* logging, const std::string& format) {
  if (logging == nullptr || format == "JSON") return {};
  if (!text_in(logging, "ApplicationLogLevel") && !text_in(logging, "SystemLogLevel")) return {};
  return invalid_parameter(
      "The log level can only be set when LogFormat is JSON; set LoggingConfig.LogFormat to JSON or leave the levels out.");
}

// `accepted` with what `input` sets of the members that are only stored; an empty value takes one away.
std::string merge_accepted(const std::string& accepted, const json::object& input) {
  const auto stored = base::parse_json(accepted);
  json::object merged = stored.ok() && stored->is_object() ? stored->get_object() : json::object();
  for (const char* name : kAccepted) {
    const json::value* given = input.if_contains(name);
    if (given == nullptr) continue;
    const json::object* letter = given->if_object();
    const bool clears =
        (given->is_string() && given->get_string().empty()) ||
        (std::string_view(name) == "DeadLetterConfig" && letter != nullptr && text_in(letter, "TargetArn").value_or("").empty());
    if (clears) {
      merged.erase(name);
    } else {
      merged[name] = *given;
    }
  }
  return json::serialize(merged);
}

bool has_accepted(const json::object& input) {
  return std::any_of(kAccepted.begin(), kAccepted.end(), [&](const char* name) { return input.contains(name); });
}

void add_accepted(json::object& shown, const std::string& accepted) {
  const auto stored = base::parse_json(accepted);
  if (!stored.ok() || !stored->is_object()) return;
  for (const auto& member : stored->get_object()) shown[member.key()] = member.value();
  const json::object* vpc = object_in(shown, "VpcConfig");
  if (vpc == nullptr) return;
  json::object whole{{"SubnetIds", json::array()}, {"SecurityGroupIds", json::array()}, {"VpcId", ""}, {"Ipv6AllowedForDualStack", false}};
  for (const auto& member : *vpc) whole[member.key()] = member.value();
  shown["VpcConfig"] = std::move(whole);
}

json::object logging_json(const engine::FunctionConfig& config) {
  json::object logging{{"LogFormat", config.log_format}, {"LogGroup", config.log_group}};
  if (!config.application_log_level.empty()) logging["ApplicationLogLevel"] = config.application_log_level;
  if (!config.system_log_level.empty()) logging["SystemLogLevel"] = config.system_log_level;
  return logging;
}

void add_state(json::object& shown, const engine::FunctionVersion& version) {
  const auto add = [&shown](const char* name, std::string_view value) {
    if (!value.empty()) shown[name] = json::string_view(value.data(), value.size());
  };
  add("State", engine::state_name(version.state));
  add("StateReason", version.state_reason());
  add("StateReasonCode", version.state_reason_code());
  add("LastUpdateStatus", engine::update_status_name(version.update_status));
  add("LastUpdateStatusReason", version.update_reason());
  add("LastUpdateStatusReasonCode", version.update_reason_code());
}

}  // namespace

json::object configuration_json(const engine::FunctionVersion& version, std::string_view qualifier) {
  const engine::FunctionConfig& config = version.config;
  json::object shown{{"FunctionName", version.function_name},
                     {"FunctionArn", qualifier.empty() ? version.arn : version.arn + ":" + std::string(qualifier)},
                     {"Runtime", config.runtime},
                     {"Role", config.role},
                     {"Handler", config.handler},
                     {"CodeSize", config.code_size},
                     {"Description", config.description},
                     {"Timeout", config.timeout_s},
                     {"MemorySize", config.memory_mb},
                     {"LastModified", version.last_modified},
                     {"CodeSha256", config.code_sha256},
                     {"Version", version.version},
                     {"TracingConfig", {{"Mode", config.tracing_mode}}},
                     {"RevisionId", version.revision_id},
                     {"PackageType", "Zip"},
                     {"Architectures", json::array({json::string(config.architecture)})},
                     {"EphemeralStorage", {{"Size", config.ephemeral_mb}}},
                     {"SnapStart", {{"ApplyOn", config.snap_start}, {"OptimizationStatus", "Off"}}},
                     {"RuntimeVersionConfig", {{"RuntimeVersionArn", version.runtime_version_arn()}}}};
  shown["LoggingConfig"] = logging_json(config);
  if (config.environment) {
    json::object variables;
    for (const auto& [name, value] : *config.environment) variables[name] = value;
    shown["Environment"] = {{"Variables", std::move(variables)}};
  }
  if (!config.layers.empty()) {
    json::array layers;
    for (const engine::LayerUse& layer : config.layers) layers.push_back(json::object{{"Arn", layer.arn}, {"CodeSize", layer.code_size}});
    shown["Layers"] = std::move(layers);
  }
  add_accepted(shown, config.accepted_json);
  add_state(shown, version);
  return shown;
}

Result<void> check_runtime_name(const std::string& runtime) {
  const auto among = [&runtime](std::span<const std::string_view> names) {
    return std::find(names.begin(), names.end(), runtime) != names.end();
  };
  if (among(runtimes_accepted()) || among(runtimes_accepted_newer())) return {};
  if (among(runtimes_deprecated())) {
    return invalid_parameter("The runtime parameter of " + runtime +
                             " is no longer supported for creating or updating AWS Lambda functions. We recommend you use a supported "
                             "runtime while creating or updating "
                             "functions.");
  }
  std::string names;
  for (const std::string_view each : runtimes_accepted()) names.append(names.empty() ? "" : ", ").append(each);
  return invalid_parameter("Value " + runtime + " at 'runtime' failed to satisfy constraint: Member must satisfy enum value set: [" +
                           names + "] or be a valid ARN");
}

Result<engine::FunctionConfig> configuration_from(const json::object& input) {
  MAYFLY_TRY(refuse_unsupported(input));
  engine::FunctionConfig config;
  config.runtime = text_in(&input, "Runtime").value_or("");
  config.handler = text_in(&input, "Handler").value_or("");
  if (config.runtime.empty() || config.handler.empty()) {
    return invalid_parameter("Runtime and Handler are mandatory parameters for functions created with deployment packages.");
  }
  MAYFLY_TRY(check_runtime_name(config.runtime));
  config.role = text_in(&input, "Role").value_or("");
  if (const json::value* architectures = input.if_contains("Architectures");
      architectures != nullptr && !architectures->get_array().empty()) {
    const json::string& name = architectures->get_array().front().get_string();
    config.architecture.assign(name.data(), name.size());
  }
  // The rest is what an update can set as well.
  MAYFLY_ASSIGN(const engine::ConfigChange change, change_from(input, config));
  engine::apply_change(config, change);
  return config;
}

Result<engine::ConfigChange> change_from(const json::object& input, const engine::FunctionConfig& current) {
  MAYFLY_TRY(refuse_unsupported(input));
  engine::ConfigChange change;
  change.runtime = text_in(&input, "Runtime");
  if (change.runtime) MAYFLY_TRY(check_runtime_name(*change.runtime));
  change.handler = text_in(&input, "Handler");
  change.role = text_in(&input, "Role");
  change.description = text_in(&input, "Description");
  const auto timeout_s = number_in(&input, "Timeout");
  const auto memory_mb = number_in(&input, "MemorySize");
  MAYFLY_TRY(check_limits(timeout_s, memory_mb));
  if (timeout_s) change.timeout_s = static_cast<std::uint32_t>(*timeout_s);
  if (memory_mb) change.memory_mb = static_cast<std::uint32_t>(*memory_mb);
  if (const auto size_mb = number_in(object_in(input, "EphemeralStorage"), "Size"))
    change.ephemeral_mb = static_cast<std::uint32_t>(*size_mb);
  if (const json::object* environment = object_in(input, "Environment")) {
    MAYFLY_ASSIGN(change.environment, environment_from(*environment));
  }
  const json::object* logging = object_in(input, "LoggingConfig");
  change.log_format = text_in(logging, "LogFormat");
  MAYFLY_TRY(check_logging(logging, change.log_format.value_or(current.log_format)));
  change.application_log_level = text_in(logging, "ApplicationLogLevel");
  change.system_log_level = text_in(logging, "SystemLogLevel");
  change.log_group = text_in(logging, "LogGroup");
  change.tracing_mode = text_in(object_in(input, "TracingConfig"), "Mode");
  change.snap_start = text_in(object_in(input, "SnapStart"), "ApplyOn");
  if (has_accepted(input)) change.accepted_json = merge_accepted(current.accepted_json, input);
  return change;
}

}  // namespace mayfly::api::lambda
