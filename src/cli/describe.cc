// mayfly describe: one function, leading with whether it can be called now.
#include <boost/json.hpp>
#include <iostream>

#include "cli/internal/command.h"
#include "cli/internal/verbs.h"

namespace mayfly::cli {
namespace {

std::string text(const boost::json::object& object, std::string_view key, const std::string& otherwise = "") {
  const auto* member = object.if_contains(key);
  if (member == nullptr) return otherwise;
  return member->is_string() ? std::string(member->get_string()) : boost::json::serialize(*member);
}

std::string readiness(const boost::json::object& configuration) {
  if (text(configuration, "State") != "Active")
    return "not callable: " + text(configuration, "State") + ". " + text(configuration, "StateReason");
  const std::string update = text(configuration, "LastUpdateStatus", "Successful");
  if (update == "Failed") return "callable, but the last update failed: " + text(configuration, "LastUpdateStatusReason");
  return "callable";
}

}  // namespace

int run_describe(const std::vector<std::string>& words) {
  Command command("describe", "Show one function: configuration, state, versions, recent log streams");
  std::string name;
  command.options().add_option("name", name, "function, or NAME:VERSION")->required();
  return command.run(words, [&]() -> base::Result<int> {
    MAYFLY_ASSIGN(const Session session, command.connect());
    Call get;
    get.path = function_path(name);
    MAYFLY_ASSIGN(boost::json::value function, session.send_json(get));
    const auto configuration = function.at("Configuration").as_object();
    Call versions_call;
    versions_call.path = function_path(text(configuration, "FunctionName"), "/versions");
    MAYFLY_ASSIGN(const boost::json::value versions, session.send_json(versions_call));
    const std::string group = text(configuration.at("LoggingConfig").as_object(), "LogGroup");
    const auto streams =
        session.send_target("logs", "Logs_20140328.DescribeLogStreams",
                            boost::json::object{{"logGroupName", group}, {"orderBy", "LastEventTime"}, {"descending", true}, {"limit", 5}});
    if (command.json()) {
      auto& object = function.as_object();
      object["Versions"] = versions.at("Versions");
      object["LogStreams"] = streams.ok() ? streams->at("logStreams") : boost::json::value(boost::json::array());
      Command::print_json(function);
      return 0;
    }
    std::vector<std::vector<std::string>> rows = {
        {"Function", text(configuration, "FunctionName") + ":" + text(configuration, "Version")},
        {"Now", readiness(configuration)},
        {"ARN", text(configuration, "FunctionArn")},
        {"Runtime", text(configuration, "Runtime", "-")},
        {"Handler", text(configuration, "Handler", "-")},
        {"Memory", text(configuration, "MemorySize") + " MB"},
        {"Timeout", text(configuration, "Timeout") + " s"},
        {"/tmp", text(configuration.at("EphemeralStorage").as_object(), "Size") + " MB"},
        {"Code", text(configuration, "CodeSize") + " bytes, SHA-256 " + text(configuration, "CodeSha256")},
        {"Modified", text(configuration, "LastModified")},
        {"Log group", group}};
    if (const auto* environment = configuration.if_contains("Environment")) {
      const auto* variables = environment->as_object().if_contains("Variables");
      std::string names;
      if (variables != nullptr) {
        for (const auto& variable : variables->as_object()) names += (names.empty() ? "" : ", ") + std::string(variable.key());
      }
      rows.push_back({"Environment", names});
    }
    std::string published;
    for (const auto& version : versions.at("Versions").as_array()) {
      const std::string number = text(version.as_object(), "Version");
      if (number != "$LATEST") published += (published.empty() ? "" : ", ") + number;
    }
    rows.push_back({"Versions", published.empty() ? "none published" : published});
    for (auto& row : rows) row[1] = printable(row[1]);
    print_table(rows);
    if (streams.ok()) {
      for (const auto& stream : streams->at("logStreams").as_array())
        std::cout << "  " << printable(text(stream.as_object(), "logStreamName")) << '\n';
    }
    std::cout << "\nCall it:  mayfly invoke " << name << " '{}'\nIts log:  mayfly logs " << name << " -f\n";
    return 0;
  });
}

}  // namespace mayfly::cli
