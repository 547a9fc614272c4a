// mayfly rm: deletes a function, or one version of it.
#include <boost/json.hpp>
#include <iostream>

#include "cli/internal/command.h"
#include "cli/internal/verbs.h"

namespace mayfly::cli {

int run_rm(const std::vector<std::string>& words) {
  Command command("rm", "Delete a function with all its versions, or one version");
  std::string name;
  std::string version;
  bool yes = false;
  command.options().add_option("name", name, "function")->required();
  command.options().add_option("--version", version, "delete only this published version");
  command.options().add_flag("-y,--yes", yes, "do not ask");
  return command.run(words, [&]() -> base::Result<int> {
    MAYFLY_ASSIGN(const Session session, command.connect());
    if (!yes && !command.json() && output_is_terminal()) {
      std::cout << "Delete " << (version.empty() ? "function " + name + " and all its versions" : "version " + version + " of " + name)
                << "? [y/N] " << std::flush;
      std::string answer;
      std::getline(std::cin, answer);
      if (answer != "y" && answer != "Y" && answer != "yes") return base::Error(base::ErrorCode::kCancelled, "nothing was deleted");
    }
    Call call;
    call.method = "DELETE";
    call.path = function_path(name);
    if (!version.empty()) call.query.emplace_back("Qualifier", version);
    MAYFLY_TRY(session.send(call).transform([](net::Response&&) { return true; }).and_then([](bool) { return base::Result<void>(); }));
    if (command.json())
      Command::print_json(boost::json::object{{"deleted", name}, {"version", version}});
    else
      std::cout << "Deleted " << name << (version.empty() ? "" : ":" + version) << ". Its log is kept until it expires.\n";
    return 0;
  });
}

}  // namespace mayfly::cli
