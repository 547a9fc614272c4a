// mayfly env: what a shell needs so that every AWS tool talks to this server.
#include <boost/json.hpp>
#include <iostream>

#include "cli/internal/command.h"
#include "cli/internal/verbs.h"

namespace mayfly::cli {

int run_env(const std::vector<std::string>& words) {
  Command command("env", "Print the exports that point AWS tools at this server: eval \"$(mayfly env)\"");
  return command.run(words, [&]() -> base::Result<int> {
    MAYFLY_ASSIGN(const Session session, command.connect());
    const std::vector<std::pair<std::string, std::string>> variables = {{"AWS_ENDPOINT_URL", session.endpoint},
                                                                        {"AWS_ACCESS_KEY_ID", session.key.access_key},
                                                                        {"AWS_SECRET_ACCESS_KEY", session.key.secret_key},
                                                                        {"AWS_REGION", session.region},
                                                                        {"AWS_DEFAULT_REGION", session.region}};
    if (command.json()) {
      boost::json::object document;
      for (const auto& [name, value] : variables) document[name] = value;
      Command::print_json(document);
      return 0;
    }
    for (const auto& [name, value] : variables) {
      std::string quoted;
      for (const char c : value) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
      std::cout << "export " << name << "='" << quoted << "'\n";
    }
    std::cout << "unset AWS_SESSION_TOKEN AWS_PROFILE\n";
    return 0;
  });
}

}  // namespace mayfly::cli
