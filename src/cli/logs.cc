// mayfly logs: a function's log over the CloudWatch Logs calls.
#include <boost/json.hpp>
#include <chrono>
#include <csignal>
#include <iostream>
#include <set>
#include <thread>

#include "base/json.h"
#include "cli/internal/command.h"
#include "cli/internal/verbs.h"

namespace mayfly::cli {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

volatile std::sig_atomic_t g_stopped = 0;

// "30s", "15m", "2h", "7d" before now, in milliseconds since 1970.
Result<std::int64_t> since_ms(const std::string& text) {
  const std::size_t unit_at = text.find_first_not_of("0123456789");
  const std::string unit = unit_at == std::string::npos ? "" : text.substr(unit_at);
  const std::int64_t factor = unit == "s" ? 1000 : unit == "m" ? 60'000 : unit == "h" ? 3'600'000 : unit == "d" ? 86'400'000 : 0;
  if (factor == 0 || unit_at == 0 || unit_at > 9)
    return Error(ErrorCode::kInvalidArgument, "--since \"" + text + "\" is not a time such as 30s, 15m, 2h or 7d");
  return base::epoch_ms(base::system_clock().wall_now()) - std::stoll(text.substr(0, unit_at)) * factor;
}

Result<std::string> log_group_of(const Session& session, const std::string& name) {
  if (name.starts_with('/')) return name;
  Call call;
  call.path = function_path(name, "/configuration");
  const auto configuration = session.send_json(call);
  // The log outlives the function.
  if (!configuration.ok()) {
    if (configuration.error().code() == ErrorCode::kNotFound) return "/aws/lambda/" + name.substr(0, name.find(':'));
    return configuration.error();
  }
  return std::string(configuration->at("LoggingConfig").at("LogGroup").get_string());
}

void print_event(const boost::json::object& event, bool json) {
  if (json) {
    std::cout << boost::json::serialize(event) << '\n';
    return;
  }
  std::string message(event.at("message").get_string());
  while (message.ends_with('\n')) message.pop_back();
  std::cout << base::format_iso_ms(base::wall_from_epoch_ms(event.at("timestamp").to_number<std::int64_t>())) << ' '
            << printable(message, true) << '\n';
}

struct Query {
  std::string group;
  std::string filter;
  std::int64_t from_ms = 0;
  std::uint64_t limit = 0;
};

// Prints what is new since the last call; `seen` holds the ids at or after from_ms, so overlapping polls print once.
Result<void> print_new(const Session& session, Query& query, std::set<std::string>& seen, bool json) {
  std::string token;
  std::int64_t newest = query.from_ms;
  do {
    boost::json::object body{{"logGroupName", query.group}, {"startTime", query.from_ms}};
    if (!query.filter.empty()) body["filterPattern"] = query.filter;
    if (!token.empty()) body["nextToken"] = token;
    MAYFLY_ASSIGN(const boost::json::value page, session.send_target("logs", "Logs_20140328.FilterLogEvents", body));
    for (const auto& event : page.at("events").as_array()) {
      const auto& object = event.as_object();
      if (!seen.insert(std::string(object.at("eventId").get_string())).second) continue;
      newest = std::max(newest, object.at("timestamp").to_number<std::int64_t>());
      print_event(object, json);
    }
    const auto* next = page.as_object().if_contains("nextToken");
    token = next != nullptr && next->is_string() ? std::string(next->get_string()) : "";
  } while (!token.empty() && g_stopped == 0);
  std::cout << std::flush;
  // Late lines may carry a slightly older time: keep looking back a few seconds.
  query.from_ms = std::max(query.from_ms, newest - 5'000);
  if (seen.size() > 100'000) seen.clear();
  return {};
}

}  // namespace

int run_logs(const std::vector<std::string>& words) {
  Command command("logs", "Show or follow a function's log (it outlives the function's environments)");
  std::string name;
  std::string since = "1h";
  std::string request_id;
  std::string filter;
  bool follow = false;
  command.options().add_option("name", name, "function, or a log group such as /aws/lambda/NAME")->required();
  command.options().add_flag("-f,--follow", follow, "keep printing new lines until Ctrl-C");
  command.options().add_option("--since", since, "how far back: 30s, 15m, 2h, 7d (default 1h)");
  command.options().add_option("--request-id", request_id, "only lines that name this request");
  command.options().add_option("--filter", filter, "CloudWatch Logs filter pattern, such as ERROR or '{ $.level = \"ERROR\" }'");
  return command.run(words, [&]() -> Result<int> {
    if (!request_id.empty() && !filter.empty()) return Error(ErrorCode::kInvalidArgument, "give either --request-id or --filter");
    Query query;
    MAYFLY_ASSIGN(query.from_ms, since_ms(since));
    MAYFLY_ASSIGN(const Session session, command.connect());
    MAYFLY_ASSIGN(query.group, log_group_of(session, name));
    query.filter = request_id.empty() ? filter : "\"" + request_id + "\"";
    std::set<std::string> seen;
    const auto first = print_new(session, query, seen, command.json());
    if (!first.ok() && !(follow && first.error().code() == ErrorCode::kNotFound)) {
      if (first.error().id() == "ResourceNotFoundException") {
        return Error(ErrorCode::kNotFound, "there is no log group " + query.group + ": the function was never called, or its log expired",
                     "ResourceNotFoundException");
      }
      return first.error();
    }
    if (!follow) {
      if (seen.empty() && !command.json()) std::cerr << "No lines in the last " << since << ". Look further back with --since 7d.\n";
      return 0;
    }
    std::signal(SIGINT, [](int) { g_stopped = 1; });
    std::signal(SIGTERM, [](int) { g_stopped = 1; });
    while (g_stopped == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      const auto more = print_new(session, query, seen, command.json());
      if (!more.ok() && more.error().code() != ErrorCode::kNotFound) return more.error();
    }
    return 0;
  });
}

}  // namespace mayfly::cli
