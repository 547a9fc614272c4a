#include "cli/cli.h"

#include "cli/internal/verbs.h"

namespace mayfly::cli {

const std::vector<Verb>& verbs() {
  static const std::vector<Verb> all = {
      {"init", "lay down a new function from a template", run_init},
      {"deploy", "package a folder and create or update its function", run_deploy},
      {"invoke", "call a function and print its answer", run_invoke},
      {"logs", "show or follow a function's log", run_logs},
      {"ls", "list functions", run_ls},
      {"describe", "show one function: configuration, state, versions, recent streams", run_describe},
      {"rm", "delete a function", run_rm},
      {"runtimes", "show which interpreters serve which Lambda runtimes", run_runtimes},
      {"env", "print the exports that point AWS tools at this server", run_env},
  };
  return all;
}

}  // namespace mayfly::cli
