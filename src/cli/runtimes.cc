// mayfly runtimes: which Lambda runtime runs on what.
#include <boost/json.hpp>
#include <iostream>

#include "cli/internal/command.h"
#include "cli/internal/verbs.h"

namespace mayfly::cli {

int run_runtimes(const std::vector<std::string>& words) {
  Command command("runtimes", "Show which interpreters serve which Lambda runtimes, and where one stands in for another");
  return command.run(words, [&]() -> base::Result<int> {
    MAYFLY_ASSIGN(const Session session, command.connect());
    Call call;
    call.service = "mayfly";
    call.path = "/mayfly/v1/runtimes";
    MAYFLY_ASSIGN(const boost::json::value answer, session.send_json(call));
    if (command.json()) {
      Command::print_json(answer);
      return 0;
    }
    std::vector<std::vector<std::string>> rows = {{"RUNTIME", "STATUS", "RUNS ON"}};
    for (const auto& runtime : answer.at("runtimes").as_array()) {
      rows.push_back({std::string(runtime.at("name").get_string()), std::string(runtime.at("status").get_string()),
                      std::string(runtime.at("detail").get_string())});
    }
    print_table(rows);
    std::cout << "\nName another interpreter with: mayfly server --runtimes python3.12=/path/to/python3.12\n";
    return 0;
  });
}

}  // namespace mayfly::cli
