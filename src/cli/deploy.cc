// mayfly deploy: a folder becomes a function, or a new state of it.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <filesystem>
#include <iostream>
#include <thread>

#include "base/bytes.h"
#include "cli/internal/command.h"
#include "cli/internal/manifest.h"
#include "cli/internal/package.h"
#include "cli/internal/verbs.h"

extern char** environ;

namespace mayfly::cli {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;

// Runs one build command with the caller's shell environment in `folder`; its output goes to standard error.
Result<void> run_build(const std::string& line, const std::string& folder) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  std::string shell = "/bin/sh";
  std::string option = "-ec";
  std::string command = line;
  char* arguments[] = {shell.data(), option.data(), command.data(), nullptr};
  pid_t pid = 0;
  const int failure = posix_spawn(&pid, "/bin/sh", &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failure != 0) return base::errno_error("cannot run the build command", failure);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return Error(ErrorCode::kFunctionFailed,
               "the build command failed (" +
                   std::string(WIFEXITED(status) ? "exit status " + std::to_string(WEXITSTATUS(status)) : "signal") + "): " + line);
}

Result<Package> build_and_package(const Manifest& manifest, const std::string& folder) {
  for (const std::string& line : manifest.build) {
    show_progress("building: " + line);
    clear_progress();
    MAYFLY_TRY(run_build(line, folder));
  }
  const std::string what = manifest.artifact.empty() ? manifest.code : manifest.artifact;
  const std::string path = fs::path(what).is_absolute() ? what : (fs::path(folder) / what).lexically_normal().string();
  show_progress("packaging " + path);
  return make_package(path, {manifest.include, manifest.exclude});
}

// What the manifest says about the configuration, as UpdateFunctionConfiguration takes it.
json::object wanted_configuration(const Manifest& manifest) {
  json::object wanted;
  if (!manifest.runtime.empty()) wanted["Runtime"] = manifest.runtime;
  if (!manifest.handler.empty()) wanted["Handler"] = manifest.handler;
  if (!manifest.description.empty()) wanted["Description"] = manifest.description;
  if (!manifest.role.empty()) wanted["Role"] = manifest.role;
  if (manifest.memory_mb) wanted["MemorySize"] = *manifest.memory_mb;
  if (manifest.timeout_s) wanted["Timeout"] = *manifest.timeout_s;
  if (manifest.ephemeral_mb) wanted["EphemeralStorage"] = json::object{{"Size", *manifest.ephemeral_mb}};
  if (!manifest.environment.empty()) {
    json::object variables;
    for (const auto& [name, value] : manifest.environment) variables[name] = value;
    wanted["Environment"] = json::object{{"Variables", variables}};
  }
  return wanted;
}

// The members of `wanted` that differ from what is deployed.
json::object difference(const json::object& wanted, const json::object& deployed) {
  json::object changes;
  for (const auto& member : wanted) {
    const auto* now = deployed.if_contains(member.key());
    if (now == nullptr || *now != member.value()) changes[member.key()] = member.value();
  }
  return changes;
}

Result<json::object> wait_until_settled(const Session& session, const std::string& name) {
  for (int attempt = 0; attempt < 1200; ++attempt) {
    Call call;
    call.path = function_path(name, "/configuration");
    MAYFLY_ASSIGN(const json::value answer, session.send_json(call));
    const auto& configuration = answer.as_object();
    const std::string state(configuration.at("State").get_string());
    const auto* update = configuration.if_contains("LastUpdateStatus");
    if (state == "Failed")
      return Error(ErrorCode::kFunctionFailed,
                   "the function failed to become active: " + std::string(configuration.at("StateReason").get_string()));
    if (state != "Pending" && (update == nullptr || *update != "InProgress")) return configuration;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return Error(ErrorCode::kDeadlineExceeded, "the function was still not ready after a minute; see `mayfly describe " + name + "`");
}

std::function<void(std::uint64_t, std::uint64_t)> upload_progress() {
  return [](std::uint64_t sent, std::uint64_t total) {
    if (total > (1U << 20U))
      show_progress("uploading " + std::to_string(sent * 100 / total) + "% of " + std::to_string(total >> 10U) + " KB");
  };
}

struct Deployment {
  std::string action;  // "created", "updated" or "unchanged"
  std::vector<std::string> changes;
};

Result<Deployment> create(const Session& session, const Manifest& manifest, const Package& package) {
  if (manifest.runtime.empty())
    return Error(ErrorCode::kInvalidArgument,
                 "the new function needs a runtime: set runtime in mayfly.yaml or give --runtime, such as python3.12");
  if (manifest.handler.empty() && !manifest.runtime.starts_with("provided")) {
    return Error(ErrorCode::kInvalidArgument,
                 "the new function needs a handler: set handler in mayfly.yaml or give --handler, such as app.handler");
  }
  json::object request = wanted_configuration(manifest);
  request["FunctionName"] = manifest.name;
  if (manifest.handler.empty()) request["Handler"] = "bootstrap";
  if (manifest.role.empty())
    request["Role"] = "arn:aws:iam::" + (session.account.empty() ? "000000000000" : session.account) + ":role/mayfly-function";
  request["Code"] = json::object{{"ZipFile", base::base64_encode(package.zip)}};
  Call call;
  call.method = "POST";
  call.path = "/2015-03-31/functions";
  call.body = json::serialize(request);
  call.timeout = std::chrono::seconds(300);
  call.on_upload = upload_progress();
  MAYFLY_ASSIGN(const json::value answer, session.send_json(call));
  return Deployment{"created", {"runtime " + manifest.runtime, std::to_string(package.zip.size()) + " bytes of code"}};
}

Result<Deployment> update(const Session& session, const Manifest& manifest, const Package& package, const json::object& deployed) {
  Deployment deployment{"unchanged", {}};
  const json::object changes = difference(wanted_configuration(manifest), deployed);
  if (!changes.empty()) {
    Call call;
    call.method = "PUT";
    call.path = function_path(manifest.name, "/configuration");
    call.body = json::serialize(changes);
    MAYFLY_ASSIGN(const json::value answer, session.send_json(call));
    for (const auto& member : changes) {
      const auto* before = deployed.if_contains(member.key());
      const bool secret = member.key() == "Environment";  // values may be secrets
      deployment.changes.push_back(
          std::string(member.key()) +
          (secret ? "" : ": " + (before == nullptr ? "unset" : json::serialize(*before)) + " -> " + json::serialize(member.value())));
    }
    MAYFLY_TRY(wait_until_settled(session, manifest.name).transform([](json::object&&) { return 0; }).and_then([](int) {
      return Result<void>();
    }));
  }
  const std::string digest = base::base64_encode(base::as_text(base::sha256(package.zip)));
  if (deployed.at("CodeSha256") != json::value(digest)) {
    Call call;
    call.method = "PUT";
    call.path = function_path(manifest.name, "/code");
    call.body = json::serialize(json::object{{"ZipFile", base::base64_encode(package.zip)}});
    call.timeout = std::chrono::seconds(300);
    call.on_upload = upload_progress();
    MAYFLY_ASSIGN(const json::value answer, session.send_json(call));
    deployment.changes.push_back("code: " + std::to_string(package.zip.size()) + " bytes");
  }
  if (!deployment.changes.empty()) deployment.action = "updated";
  return deployment;
}

Result<Manifest> manifest_of(const std::string& path, Manifest flags, const std::vector<std::string>& environment) {
  Manifest manifest;
  std::error_code ec;
  if (fs::is_directory(path, ec)) {
    auto read = read_manifest(path);
    if (read.ok())
      manifest = std::move(*read);
    else if (read.error().code() != ErrorCode::kNotFound)
      return std::move(read).error();
  } else {
    manifest.code = fs::absolute(path).string();
  }
  const auto override_with = [](std::string& value, std::string& flag) {
    if (!flag.empty()) value = std::move(flag);
  };
  override_with(manifest.name, flags.name);
  override_with(manifest.runtime, flags.runtime);
  override_with(manifest.handler, flags.handler);
  override_with(manifest.role, flags.role);
  if (flags.memory_mb) manifest.memory_mb = flags.memory_mb;
  if (flags.timeout_s) manifest.timeout_s = flags.timeout_s;
  for (const std::string& pair : environment) {
    const std::size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0) return Error(ErrorCode::kInvalidArgument, "--env \"" + pair + "\" is not NAME=value");
    manifest.environment[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  if (manifest.name.empty()) {
    manifest.name = fs::path(fs::absolute(path)).lexically_normal().filename().string();
    if (manifest.name.empty()) manifest.name = fs::absolute(path).lexically_normal().parent_path().filename().string();
    if (const std::size_t dot = manifest.name.find('.'); dot != std::string::npos) manifest.name.resize(dot);
  }
  return manifest;
}

}  // namespace

int run_deploy(const std::vector<std::string>& words) {
  Command command("deploy", "Package a folder (with a mayfly.yaml, or flags), a zip or a file, and create or update its function");
  std::string path = ".";
  Manifest flags;
  std::vector<std::string> environment;
  std::uint32_t memory = 0;
  std::uint32_t timeout = 0;
  command.options().add_option("path", path, "folder, zip or file (default: this folder)");
  command.options().add_option("--name", flags.name, "function name (default: from mayfly.yaml, else the folder's)");
  command.options().add_option("--runtime", flags.runtime, "such as python3.12, nodejs20.x or provided.al2023");
  command.options().add_option("--handler", flags.handler, "such as app.handler");
  command.options().add_option("--memory", memory, "MemorySize in MB")->check(CLI::Range(128, 10240));
  command.options().add_option("--timeout", timeout, "Timeout in seconds")->check(CLI::Range(1, 900));
  command.options().add_option("--role", flags.role, "role ARN (stored, not evaluated)");
  command.options().add_option("--env", environment, "NAME=value, may be given several times");
  return command.run(words, [&]() -> Result<int> {
    if (memory != 0) flags.memory_mb = memory;
    if (timeout != 0) flags.timeout_s = timeout;
    std::error_code ec;
    if (!fs::exists(path, ec)) return Error(ErrorCode::kNotFound, "there is no file or folder " + path);
    MAYFLY_ASSIGN(const Manifest manifest, manifest_of(path, flags, environment));
    MAYFLY_ASSIGN(const Session session, command.connect());
    MAYFLY_ASSIGN(const Package package, build_and_package(manifest, fs::is_directory(path, ec) ? path : "."));
    show_progress("deploying " + manifest.name);
    Call get;
    get.path = function_path(manifest.name, "/configuration");
    const auto deployed = session.send_json(get);
    if (!deployed.ok() && deployed.error().code() != ErrorCode::kNotFound) return deployed.error();
    MAYFLY_ASSIGN(const Deployment deployment,
                  deployed.ok() ? update(session, manifest, package, deployed->as_object()) : create(session, manifest, package));
    MAYFLY_ASSIGN(const json::object settled, wait_until_settled(session, manifest.name));
    clear_progress();
    if (command.json()) {
      Command::print_json(json::object{{"action", deployment.action},
                                       {"changes", json::array(deployment.changes.begin(), deployment.changes.end())},
                                       {"function", settled}});
      return 0;
    }
    std::cout << (deployment.action == "unchanged" ? "Unchanged: "
                  : deployment.action == "created" ? "Created "
                                                   : "Updated ")
              << printable(manifest.name) << '\n';
    for (const std::string& change : deployment.changes) std::cout << "  " << printable(change) << '\n';
    std::cout << "Call it:  mayfly invoke " << manifest.name << " '{}'\n";
    return 0;
  });
}

}  // namespace mayfly::cli
