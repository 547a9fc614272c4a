#include "runtime/catalogue.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "base/fd.h"
#include "runtime/internal/native_modules.h"

namespace mayfly::runtime {
namespace {

namespace fs = std::filesystem;
using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::array kPythons = {8, 9, 10, 11, 12, 13, 14};
constexpr std::array kNodes = {16, 18, 20, 22, 24};
constexpr std::array<std::string_view, 11> kUnsupported = {"java8.al2", "java11",  "java17",  "java21",  "java25",  "ruby3.2",
                                                           "ruby3.3",   "ruby3.4", "dotnet6", "dotnet8", "dotnet10"};

struct Wanted {
  std::string_view family;
  int number = 0;
};

std::optional<int> number_in(std::string_view text) {
  int number = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem != std::errc{} || end == text.data()) return std::nullopt;
  return number;
}

std::optional<Wanted> parse_runtime(std::string_view name) {
  if (name.starts_with("python3.")) {
    const auto minor = number_in(name.substr(8));
    if (minor && "python3." + std::to_string(*minor) == name) return Wanted{"python", *minor};
  }
  if (name.starts_with("nodejs") && name.ends_with(".x")) {
    const auto major = number_in(name.substr(6));
    if (major && "nodejs" + std::to_string(*major) + ".x" == name) return Wanted{"nodejs", *major};
  }
  return std::nullopt;
}

bool is_provided(std::string_view runtime) { return runtime == "provided.al2" || runtime == "provided.al2023"; }

std::string runtime_name(std::string_view family, int number) {
  return family == "python" ? "python3." + std::to_string(number) : "nodejs" + std::to_string(number) + ".x";
}

bool is_executable_file(const fs::path& path) {
  struct stat info{};
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) && (info.st_mode & 0111U) != 0;
}

// ".../versions/node/v20.11.1/bin/node", ".../node-v22.3.0-linux-x64/bin/node": the number behind the last "v" of a folder's name.
std::optional<int> node_from_folders(const fs::path& path) {
  for (fs::path folder = path.parent_path(); folder.has_relative_path(); folder = folder.parent_path()) {
    const std::string name = folder.filename().string();
    const std::size_t v = name.starts_with('v') ? 0 : name.find("-v");
    if (v == std::string::npos) continue;
    const std::size_t digits = name[v] == 'v' ? v + 1 : v + 2;
    if (const auto major = number_in(std::string_view(name).substr(digits))) return major;
  }
  return std::nullopt;
}

std::optional<int> node_from_header(const fs::path& prefix) {
  const auto text = base::read_file((prefix / "include/node/node_version.h").string(), 1U << 20U);
  if (!text.ok()) return std::nullopt;
  constexpr std::string_view kDefine = "#define NODE_MAJOR_VERSION ";
  const std::size_t at = text->find(kDefine);
  return at == std::string::npos ? std::nullopt : number_in(std::string_view(*text).substr(at + kDefine.size()));
}

// Debian links node against libnode.so.<ABI>.
std::optional<int> node_from_library(const fs::path& prefix) {
  constexpr std::array<std::pair<int, int>, 6> kAbis = {{{93, 16}, {108, 18}, {115, 20}, {127, 22}, {131, 23}, {137, 24}}};
  for (const auto& [abi, major] : kAbis) {
    std::error_code ignored;
    if (fs::exists(prefix / ("lib/x86_64-linux-gnu/libnode.so." + std::to_string(abi)), ignored)) return major;
  }
  return std::nullopt;
}

// The release's address is inside every official binary: "https://nodejs.org/download/release/v20.20.2/".
std::optional<int> node_from_binary(const fs::path& path) {
  const auto bytes = base::read_file(path.string(), 256ULL << 20U);
  if (!bytes.ok()) return std::nullopt;
  constexpr std::string_view kAddress = "/download/release/v";
  const std::size_t at = bytes->find(kAddress);
  return at == std::string::npos ? std::nullopt : number_in(std::string_view(*bytes).substr(at + kAddress.size()));
}

std::optional<int> version_of(std::string_view family, const fs::path& path) {
  const fs::path prefix = path.parent_path().parent_path();
  if (family == "python") {
    const std::string name = path.filename().string();
    return name.starts_with("python3.") ? number_in(std::string_view(name).substr(8)) : std::nullopt;
  }
  if (const auto major = node_from_folders(path)) return major;
  if (const auto major = node_from_header(prefix)) return major;
  if (const auto major = node_from_library(prefix)) return major;
  return node_from_binary(path);
}

// Directories that may hold interpreters: `path` itself, its bin/, and bin/ of each version directory beneath it.
std::vector<fs::path> bin_directories(const std::string& path) {
  std::vector<fs::path> all = {path, fs::path(path) / "bin"};
  std::error_code error;
  for (fs::directory_iterator it(path, error); !error && it != fs::directory_iterator() && all.size() < 200; it.increment(error)) {
    std::error_code ignored;
    if (fs::is_directory(it->path() / "bin", ignored)) all.push_back(it->path() / "bin");
  }
  return all;
}

fs::path resolve(const fs::path& path) {
  std::error_code error;
  fs::path real = fs::canonical(path, error);
  return error ? path : real;
}

std::string safe_id(std::string text) {
  for (char& c : text) {
    const bool fine = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
    if (!fine) c = '-';
  }
  return text.substr(0, 64);
}

Error not_here(const std::string& message) { return {ErrorCode::kInvalidArgument, message, "InvalidParameterValueException"}; }

// Node sizes its heap by the machine's memory; as on Lambda it gets 90 % of the function's for old objects and 5 % for new
// ones. What the function's own NODE_OPTIONS says wins, which the command line would not let it.
void append_heap_limits(std::vector<std::string>& arguments, const engine::FunctionConfig& config) {
  std::string options;
  if (config.environment) {
    if (const auto own = config.environment->find("NODE_OPTIONS"); own != config.environment->end()) options = own->second;
  }
  const auto add = [&](const std::string& option, std::uint32_t megabytes) {
    if (options.find(option) == std::string::npos) arguments.push_back("--" + option + "=" + std::to_string(megabytes));
  };
  add("max-old-space-size", config.memory_mb * 9 / 10);
  add("max-semi-space-size", std::max<std::uint32_t>(1, config.memory_mb / 20));
}

// The HTTP contract's Handler names the program: "server.js", "run.sh", "/opt/server".
std::string program_of(const std::string& handler) { return handler.starts_with('/') ? handler : "/var/task/" + handler; }

// Whether the interpreter runs it; else it runs by itself.
bool is_script_of(const std::string& program, bool python) {
  return python ? program.ends_with(".py") : program.ends_with(".js") || program.ends_with(".cjs") || program.ends_with(".mjs");
}

Result<void> check_program(const std::string& program, const std::string& code_directory, const std::vector<std::string>& layers) {
  constexpr std::string_view kTask = "/var/task/";
  constexpr std::string_view kOpt = "/opt/";
  const auto there = [](const std::string& directory, std::string_view name) {
    std::error_code absent;
    return fs::is_regular_file(fs::path(directory) / name, absent);
  };
  const std::string_view name = program;
  const bool in_task = name.starts_with(kTask);
  if (!in_task && !name.starts_with(kOpt)) return {};  // of the root; its absence is told by the launcher
  const bool found = in_task ? there(code_directory, name.substr(kTask.size()))
                             : std::ranges::any_of(layers, [&](const auto& layer) { return there(layer, name.substr(kOpt.size())); });
  if (found) return {};
  return Error(ErrorCode::kFunctionFailed,
               "Couldn't find " + program + ", which Handler names as the HTTP server to start (MAYFLY_CONTRACT=http)",
               "Runtime.InvalidEntrypoint");
}

}  // namespace

std::string_view runtime_status_name(RuntimeStatus status) {
  switch (status) {
    case RuntimeStatus::kAvailable:
      return "available";
    case RuntimeStatus::kStandIn:
      return "stand-in";
    case RuntimeStatus::kMissing:
      return "missing";
  }
  return "missing";
}

void RuntimeCatalogue::add(Interpreter interpreter) {
  if (find(interpreter.family, interpreter.number) != nullptr) return;
  if (!interpreter.path.starts_with("/usr/")) {
    const std::string prefix = fs::path(interpreter.path).parent_path().parent_path().string();
    interpreter.root_id = safe_id(interpreter.family + "-" + std::to_string(interpreter.number));
    roots_.push_back({interpreter.root_id, {prefix}});
  }
  interpreters_.push_back(std::move(interpreter));
}

Result<RuntimeCatalogue> RuntimeCatalogue::detect(const CatalogueOptions& options) {
  RuntimeCatalogue catalogue;
  catalogue.stand_in_ = options.stand_in;
  catalogue.roots_.push_back({"host", {}});
  for (const auto& [name, path] : options.interpreters) {
    const auto wanted = parse_runtime(name);
    if (!wanted)
      return Error(ErrorCode::kInvalidArgument, "cannot give \"" + name + "\" an interpreter: only python3.N and nodejsN.x take one");
    if (!is_executable_file(path)) return Error(ErrorCode::kNotFound, "the interpreter of " + name + " is no executable file: " + path);
    catalogue.add({std::string(wanted->family), wanted->number, resolve(path).string()});
  }
  std::vector<std::string> places = options.search_paths;
  places.insert(places.end(), options.default_paths.begin(), options.default_paths.end());
  for (const std::string& place : places) {
    for (const fs::path& bin : bin_directories(place)) {
      for (const int minor : kPythons) {
        const fs::path path = bin / ("python3." + std::to_string(minor));
        if (is_executable_file(path)) catalogue.add({"python", minor, resolve(path).string()});
      }
      const fs::path node = bin / "node";
      if (!is_executable_file(node)) continue;
      if (const auto major = version_of("nodejs", resolve(node))) catalogue.add({"nodejs", *major, resolve(node).string()});
    }
  }
  return catalogue;
}

const RuntimeCatalogue::Interpreter* RuntimeCatalogue::find(std::string_view family, int number) const {
  const auto it = std::find_if(interpreters_.begin(), interpreters_.end(),
                               [&](const Interpreter& i) { return i.family == family && i.number == number; });
  return it == interpreters_.end() ? nullptr : &*it;
}

const RuntimeCatalogue::Interpreter* RuntimeCatalogue::nearest(std::string_view family, int number) const {
  const Interpreter* best = nullptr;
  for (const Interpreter& each : interpreters_) {
    if (each.family != family) continue;
    const int distance = std::abs(each.number - number);
    const int so_far = best == nullptr ? 1000 : std::abs(best->number - number);
    if (distance < so_far || (distance == so_far && each.number > best->number)) best = &each;
  }
  return best;
}

std::vector<std::string> RuntimeCatalogue::pythons() const {
  std::vector<std::string> paths;
  for (const Interpreter& each : interpreters_) {
    if (each.family == "python") paths.push_back(each.path);
  }
  return paths;
}

std::vector<RuntimeRow> RuntimeCatalogue::rows() const {
  std::vector<RuntimeRow> rows;
  const auto add_row = [&](std::string_view family, int number) {
    RuntimeRow row{.name = runtime_name(family, number), .status = RuntimeStatus::kMissing, .detail = ""};
    if (const Interpreter* exact = find(family, number)) {
      row.status = RuntimeStatus::kAvailable;
      row.detail = exact->path;
    } else if (const Interpreter* near = stand_in_ ? nearest(family, number) : nullptr) {
      row.status = RuntimeStatus::kStandIn;
      row.detail = runtime_name(family, near->number) + " (" + near->path + ")";
    } else {
      row.detail = "no interpreter found; install one, or name it: --runtimes " + row.name + "=/path/to/interpreter";
    }
    rows.push_back(std::move(row));
  };
  for (const int minor : kPythons) add_row("python", minor);
  for (const int major : kNodes) add_row("nodejs", major);
  for (const char* name : {"provided.al2", "provided.al2023"})
    rows.push_back({name, RuntimeStatus::kAvailable, "the package's own bootstrap"});
  for (const std::string_view name : kUnsupported)
    rows.push_back({std::string(name), RuntimeStatus::kMissing, "not supported yet; provided.al2023 runs any executable"});
  return rows;
}

Result<void> RuntimeCatalogue::check(const std::string& runtime) const {
  if (is_provided(runtime)) return {};
  const auto wanted = parse_runtime(runtime);
  if (!wanted)
    return not_here("Runtime " + runtime +
                    " is not available on this server: python3.N, nodejsN.x, provided.al2 and provided.al2023 are. See `mayfly runtimes`.");
  if (find(wanted->family, wanted->number) != nullptr) return {};
  if (stand_in_ && nearest(wanted->family, wanted->number) != nullptr) return {};
  return not_here("Runtime " + runtime + " is not available on this server: no such interpreter was found" +
                  (stand_in_ ? "" : " and none may stand in (stand-in = off)") + ". Install it, or start the server with --runtimes " +
                  runtime + "=/path/to/interpreter.");
}

Result<LaunchPlan> RuntimeCatalogue::plan(const engine::FunctionVersion& version, const std::string& code_directory,
                                          const std::vector<std::string>& layers) const {
  const std::string& runtime = version.config.runtime;
  LaunchPlan plan;
  if (wants_http_contract(version.config)) {
    MAYFLY_ASSIGN(plan.http, http_contract(version.config));
    plan.variables["PORT"] = std::to_string(plan.http->port);
  }
  if (is_provided(runtime)) {
    const fs::path bootstrap = fs::path(code_directory) / "bootstrap";
    const bool in_layer = std::ranges::any_of(layers, [](const auto& layer) { return is_executable_file(fs::path(layer) / "bootstrap"); });
    std::error_code absent;
    const bool use_layer = in_layer && !fs::exists(bootstrap, absent);
    if (!use_layer && !is_executable_file(bootstrap)) {
      std::error_code unreadable;
      if (fs::is_regular_file(bootstrap, unreadable))
        return Error(ErrorCode::kFunctionFailed, "fork/exec /var/task/bootstrap: permission denied; make it executable (chmod +x)",
                     "Runtime.InvalidEntrypoint");
      return Error(ErrorCode::kFunctionFailed, "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]",
                   "Runtime.InvalidEntrypoint");
    }
    plan.root_id = "host";
    plan.arguments = {use_layer ? "/opt/bootstrap" : "/var/task/bootstrap"};
    plan.runtime_version = runtime;
    return plan;
  }
  MAYFLY_TRY(check(runtime));
  const Wanted wanted = *parse_runtime(runtime);
  const Interpreter* chosen = find(wanted.family, wanted.number);
  if (chosen == nullptr) {
    chosen = nearest(wanted.family, wanted.number);
    const std::string near = runtime_name(chosen->family, chosen->number);
    plan.stand_in = runtime + " runs on " + near + " (" + chosen->path + ")";
    NativeModules native = find_native_modules(code_directory);
    for (const std::string& layer : layers) {
      NativeModules more = find_native_modules(layer);
      native.python_minors.merge(more.python_minors);
      if (native.python_example.empty()) native.python_example = more.python_example;
      if (native.node_example.empty()) native.node_example = more.node_example;
    }
    std::set<int> others = native.python_minors;
    others.erase(chosen->number);
    const bool python_clash = wanted.family == "python" && !others.empty();
    const bool node_clash = wanted.family == "nodejs" && !native.node_example.empty();
    if (python_clash || node_clash) {
      return not_here("Runtime " + runtime + " is not installed here, and " + near +
                      " cannot stand in for it: the package holds native modules built for " +
                      (python_clash ? "python3." + std::to_string(*others.begin()) : runtime) + " (" +
                      (python_clash ? native.python_example : native.node_example) + "). Install " + runtime +
                      ", or build the package for " + near + ".");
    }
  }
  plan.root_id = chosen->root_id;
  const bool python = chosen->family == "python";
  const std::string program = plan.http ? program_of(version.config.handler) : std::string();
  if (plan.http) MAYFLY_TRY(check_program(program, code_directory, layers));
  if (program.empty() || is_script_of(program, python)) {
    plan.arguments = {chosen->path};
    if (!python) append_heap_limits(plan.arguments, version.config);
  }
  if (plan.http) {
    plan.arguments.push_back(program);
  } else {
    plan.arguments.emplace_back(python ? "/var/runtime/python/bootstrap.py" : "/var/runtime/nodejs/bootstrap.cjs");
  }
  plan.runtime_version = python ? "python:3." + std::to_string(chosen->number) : "nodejs:" + std::to_string(chosen->number);
  if (python && plan.http) {
    plan.variables["PYTHONUNBUFFERED"] = "1";  // what it prints is logged when it is printed
    plan.variables["PYTHONPATH"] = "/var/task:/opt/python:/opt/python/lib/python3." + std::to_string(wanted.number) + "/site-packages";
  } else if (python) {
    plan.variables["PYTHONPATH"] = "/var/runtime";  // the bootstrap adds /opt/python itself, before the interpreter's own packages
    if (chosen->number != wanted.number)
      plan.variables["PYTHONPATH"] += ":/opt/python/lib/python3." + std::to_string(wanted.number) + "/site-packages";
  } else {
    plan.variables["NODE_PATH"] = "/opt/nodejs/node" + std::to_string(wanted.number) +
                                  "/node_modules:/opt/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:/var/task";
  }
  if (chosen->root_id != "host") {
    const std::string prefix = fs::path(chosen->path).parent_path().parent_path().string();
    plan.variables["PATH"] = prefix + "/bin:/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin";
    plan.variables["LD_LIBRARY_PATH"] =
        "/var/lang/lib:" + prefix + "/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib";
  }
  if (version.config.environment) {
    if (const auto wrapper = version.config.environment->find("AWS_LAMBDA_EXEC_WRAPPER");
        wrapper != version.config.environment->end() && !wrapper->second.empty()) {
      plan.arguments.insert(plan.arguments.begin(), wrapper->second);
    }
  }
  return plan;
}

}  // namespace mayfly::runtime
