#include "runtime/environment.h"

#include <algorithm>
#include <initializer_list>

namespace mayfly::runtime {
namespace {

using Variables = std::map<std::string, std::string>;

void add_defaults(Variables& all) {
  all["LANG"] = "en_US.UTF-8";
  all["TZ"] = ":UTC";
  all["PATH"] = "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin";
  all["LD_LIBRARY_PATH"] = "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib";
  all["AWS_XRAY_CONTEXT_MISSING"] = "LOG_ERROR";
  all["AWS_XRAY_DAEMON_ADDRESS"] = "169.254.79.129:2000";
  all["_AWS_XRAY_DAEMON_ADDRESS"] = "169.254.79.129";
  all["_AWS_XRAY_DAEMON_PORT"] = "2000";
}

void add_logging(Variables& all, const engine::FunctionConfig& config) {
  if (config.log_format != "JSON") return;
  all["AWS_LAMBDA_LOG_FORMAT"] = "JSON";
  if (!config.application_log_level.empty()) all["AWS_LAMBDA_LOG_LEVEL"] = config.application_log_level;
}

void add_reserved(Variables& all, const engine::FunctionVersion& version, const EnvironmentInputs& inputs) {
  const engine::FunctionConfig& config = version.config;
  all["_HANDLER"] = config.handler;
  all["AWS_REGION"] = inputs.region;
  all["AWS_DEFAULT_REGION"] = inputs.region;
  if (!config.runtime.starts_with("provided")) all["AWS_EXECUTION_ENV"] = "AWS_Lambda_" + config.runtime;
  all["AWS_LAMBDA_FUNCTION_NAME"] = version.function_name;
  all["AWS_LAMBDA_FUNCTION_VERSION"] = version.version;
  all["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] = std::to_string(config.memory_mb);
  all["AWS_LAMBDA_LOG_GROUP_NAME"] = config.log_group;
  all["AWS_LAMBDA_LOG_STREAM_NAME"] = inputs.log_stream;
  all["AWS_LAMBDA_INITIALIZATION_TYPE"] = inputs.initialization_type;
  all["AWS_LAMBDA_RUNTIME_API"] = kRuntimeApiAddress;
  all["LAMBDA_TASK_ROOT"] = "/var/task";
  all["LAMBDA_RUNTIME_DIR"] = "/var/runtime";
  if (inputs.credentials.access_key.empty()) return;
  all["AWS_ACCESS_KEY_ID"] = inputs.credentials.access_key;
  all["AWS_SECRET_ACCESS_KEY"] = inputs.credentials.secret_key;
  all["AWS_SESSION_TOKEN"] = inputs.credentials.session_token;
}

}  // namespace

bool read_at_boot(std::string_view name) {
  if (name == "NODE_ENV") return false;  // libraries' own, and different for many functions
  if (name == "LANG" || name == "LANGUAGE" || name == "TZ" || name == "TZDIR") return true;
  return std::ranges::any_of(std::initializer_list<std::string_view>{"LD_", "PYTHON", "NODE_", "LC_", "MALLOC_", "GLIBC_", "GCONV_",
                                                                     "OPENSSL_", "SSL_", "UV_", "ICU_"},
                             [name](std::string_view prefix) { return name.starts_with(prefix); });
}

bool may_differ_in_stems(std::string_view name) { return name == "LANG" || name == "TZ" || name.starts_with("LC_") || !read_at_boot(name); }

std::vector<ForkableRuntime> forkable_runtimes(const RuntimeCatalogue& catalogue) {
  std::vector<ForkableRuntime> all;
  for (const RuntimeRow& row : catalogue.rows()) {
    if (!row.name.starts_with("python") || row.status == RuntimeStatus::kMissing) continue;
    engine::FunctionVersion version;
    version.config.runtime = row.name;
    const auto plan = catalogue.plan(version, "/nonexistent");
    if (!plan.ok()) continue;
    ForkableRuntime forkable{.root_id = plan->root_id, .arguments = plan->arguments, .variables = {}};
    EnvironmentInputs inputs;
    inputs.runtime_variables = plan->variables;
    for (std::string& variable : environment_variables(version, inputs)) {
      if (read_at_boot(std::string_view(variable).substr(0, variable.find('=')))) forkable.variables.push_back(std::move(variable));
    }
    all.push_back(std::move(forkable));
  }
  return all;
}

std::vector<std::string> variables_extensions_lack() {
  return {"AWS_EXECUTION_ENV",          "AWS_LAMBDA_LOG_GROUP_NAME",
          "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_XRAY_CONTEXT_MISSING",
          "AWS_XRAY_DAEMON_ADDRESS",    "LAMBDA_RUNTIME_DIR",
          "LAMBDA_TASK_ROOT",           "_AWS_XRAY_DAEMON_ADDRESS",
          "_AWS_XRAY_DAEMON_PORT",      "_HANDLER",
          "_LAMBDA_TELEMETRY_LOG_FD"};
}

std::vector<std::string> environment_variables(const engine::FunctionVersion& version, const EnvironmentInputs& inputs) {
  Variables all;
  add_defaults(all);
  for (const auto& [name, value] : inputs.runtime_variables) all[name] = value;
  const Variables own = version.config.environment.value_or(Variables{});
  const auto injection = own.find(kEndpointInjectionVariable);
  if (injection == own.end() || injection->second != "off") all["AWS_ENDPOINT_URL"] = kDataApiUrl;
  for (const auto& [name, value] : own) all[name] = value;
  add_logging(all, version.config);
  add_reserved(all, version, inputs);
  std::vector<std::string> variables;
  variables.reserve(all.size());
  for (const auto& [name, value] : all) {
    std::string variable = name;
    variable.append("=").append(value);
    variables.push_back(std::move(variable));
  }
  return variables;
}

}  // namespace mayfly::runtime
