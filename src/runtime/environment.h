// The environment variables an execution environment starts with (contract.md, "Environment").
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/function.h"
#include "runtime/catalogue.h"

namespace mayfly::runtime {

// Where the listeners of every environment are, inside it.
inline constexpr std::string_view kRuntimeApiAddress = "169.254.100.1:9001";
inline constexpr std::string_view kDataApiUrl = "http://169.254.100.1:9002";
// A function that sets this variable to "off" gets no AWS_ENDPOINT_URL: its SDK calls go to the addresses it chooses.
inline constexpr const char* kEndpointInjectionVariable = "MAYFLY_ENDPOINT_INJECTION";

struct TemporaryCredentials {
  std::string access_key;  // "ASIA..."
  std::string secret_key;
  std::string session_token;
};

struct EnvironmentInputs {
  std::string region;
  std::string log_stream;
  TemporaryCredentials credentials;
  std::map<std::string, std::string> runtime_variables;  // of the catalogue: PATH, PYTHONPATH ...; the function may override them
  std::string initialization_type = "on-demand";         // or "provisioned-concurrency"
};

// Whether a runtime (its loader, libc, interpreter) reads this variable when it boots and not again: setting it later is too late.
[[nodiscard]] bool read_at_boot(std::string_view name);
// Whether a function may set this variable and still be started from a stem. Others have a runtime load or run what the function
// names (NODE_OPTIONS, LD_PRELOAD, PYTHONPATH), and no function's code may run in a stem.
[[nodiscard]] bool may_differ_in_stems(std::string_view name);

// A runtime whose processes may be forked of a zygote: with the platform's own variables, no function's.
struct ForkableRuntime {
  std::string root_id;
  std::vector<std::string> arguments;
  std::vector<std::string> variables;  // "NAME=value" of those read at boot
  bool operator==(const ForkableRuntime&) const = default;
};
[[nodiscard]] std::vector<ForkableRuntime> forkable_runtimes(const RuntimeCatalogue& catalogue);

// Names of variables that are the runtime's alone: extensions do not get them.
[[nodiscard]] std::vector<std::string> variables_extensions_lack();

// "NAME=value", each name once. What the platform reserves wins over the function's own variables; defaults do not.
[[nodiscard]] std::vector<std::string> environment_variables(const engine::FunctionVersion& version, const EnvironmentInputs& inputs);

}  // namespace mayfly::runtime
