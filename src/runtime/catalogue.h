// RuntimeCatalogue: which interpreter of this host runs which Lambda runtime, and how an environment of it is launched.
// Found once, by looking at names and files; nothing is executed. Immutable afterwards, any thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/function.h"
#include "runtime/http_contract.h"

namespace mayfly::runtime {

enum class RuntimeStatus : std::uint8_t { kAvailable, kStandIn, kMissing };

// One row for people.
struct RuntimeRow {
  std::string name;  // "python3.12"
  RuntimeStatus status = RuntimeStatus::kMissing;
  std::string detail;  // "/usr/bin/python3.11", or why not and what to do
};
[[nodiscard]] std::string_view runtime_status_name(RuntimeStatus status);  // "available", "stand-in", "missing"

// A directory tree that environments see as their root: the host's /usr and these directories.
struct RootPlan {
  std::string id;                        // [a-z0-9._-]{1,64}
  std::vector<std::string> extra_binds;  // prefixes of interpreters outside /usr
};

// How the main process of an environment starts.
struct LaunchPlan {
  std::string root_id;
  std::vector<std::string> arguments;
  std::map<std::string, std::string> variables;
  std::string runtime_version;            // "python:3.11": of the interpreter that really runs
  std::string stand_in;                   // "python3.12 runs on python3.11 (/usr/bin/python3.11)", or empty
  std::optional<HttpContract> http = {};  // the main process is an HTTP server
};

struct CatalogueOptions {
  std::map<std::string, std::string> interpreters;  // "python3.12" -> path; wins over what is found
  std::vector<std::string> search_paths;            // directories holding interpreters, or version directories (pyenv, nvm) with bin/
  bool stand_in = true;                             // the nearest version may stand in for a missing one
  std::vector<std::string> default_paths = {"/usr/local/bin", "/usr/bin"};
};

class RuntimeCatalogue {
 public:
  // Blocking: reads directories. A configured interpreter that is not there is kNotFound, naming it.
  [[nodiscard]] static base::Result<RuntimeCatalogue> detect(const CatalogueOptions& options);

  [[nodiscard]] std::vector<RuntimeRow> rows() const;
  // Paths of the Pythons that were found.
  [[nodiscard]] std::vector<std::string> pythons() const;
  [[nodiscard]] const std::vector<RootPlan>& roots() const { return roots_; }
  // Whether functions of `runtime` can run here. kInvalidArgument (InvalidParameterValueException) saying what is missing.
  [[nodiscard]] base::Result<void> check(const std::string& runtime) const;
  // `code_directory` holds the unpacked package, `layers` are those of the version's layers in their order. Blocking only where an
  // interpreter stands in (the package is searched for native modules) and for the look at a bootstrap. Errors: kFunctionFailed with id
  // Runtime.InvalidEntrypoint when the package has no executable bootstrap; kInvalidArgument with id InvalidParameterValueException when
  // nothing here can run it.
  [[nodiscard]] base::Result<LaunchPlan> plan(const engine::FunctionVersion& version, const std::string& code_directory,
                                              const std::vector<std::string>& layers = {}) const;

 private:
  struct Interpreter {
    std::string family;  // "python" or "nodejs"
    int number = 0;      // minor of Python 3, major of Node
    std::string path;
    std::string root_id = "host";
  };
  [[nodiscard]] const Interpreter* find(std::string_view family, int number) const;
  [[nodiscard]] const Interpreter* nearest(std::string_view family, int number) const;
  void add(Interpreter interpreter);

  std::vector<Interpreter> interpreters_;  // at most one for each family and number
  std::vector<RootPlan> roots_;
  bool stand_in_ = true;
};

}  // namespace mayfly::runtime
