// mayfly ls: every function, a line each.
#include <boost/json.hpp>
#include <iostream>

#include "cli/internal/command.h"
#include "cli/internal/verbs.h"

namespace mayfly::cli {
namespace {

std::string text(const boost::json::object& object, std::string_view key) {
  const auto* member = object.if_contains(key);
  if (member == nullptr) return "-";
  return member->is_string() ? printable(std::string(member->get_string())) : boost::json::serialize(*member);
}

base::Result<boost::json::array> all_functions(const Session& session) {
  boost::json::array functions;
  std::string marker;
  do {
    Call call;
    call.path = "/2015-03-31/functions";
    if (!marker.empty()) call.query.emplace_back("Marker", marker);
    MAYFLY_ASSIGN(boost::json::value page, session.send_json(call));
    auto& object = page.as_object();
    for (auto& function : object["Functions"].as_array()) functions.push_back(std::move(function));
    const auto* next = object.if_contains("NextMarker");
    marker = next != nullptr && next->is_string() ? std::string(next->get_string()) : "";
  } while (!marker.empty());
  return functions;
}

}  // namespace

int run_ls(const std::vector<std::string>& words) {
  Command command("ls", "List functions");
  return command.run(words, [&]() -> base::Result<int> {
    MAYFLY_ASSIGN(const Session session, command.connect());
    MAYFLY_ASSIGN(const boost::json::array functions, all_functions(session));
    if (command.json()) {
      Command::print_json(functions);
      return 0;
    }
    if (functions.empty()) {
      std::cout << "No functions yet. Try: mayfly init python hello && mayfly deploy hello\n";
      return 0;
    }
    std::vector<std::vector<std::string>> rows = {{"NAME", "RUNTIME", "MEMORY", "TIMEOUT", "SIZE", "MODIFIED"}};
    for (const auto& function : functions) {
      const auto& object = function.as_object();
      rows.push_back({text(object, "FunctionName"), text(object, "Runtime"), text(object, "MemorySize") + " MB",
                      text(object, "Timeout") + " s", text(object, "CodeSize"), text(object, "LastModified")});
    }
    print_table(rows);
    return 0;
  });
}

}  // namespace mayfly::cli
