// mayfly invoke: calls a function and prints its answer; exit code 7 when the function failed.
#include <unistd.h>

#include <boost/json.hpp>
#include <iostream>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/json.h"
#include "cli/internal/command.h"
#include "cli/internal/verbs.h"

namespace mayfly::cli {
namespace {

base::Result<std::string> read_payload(const std::string& argument, const std::string& file) {
  if (!file.empty() && !argument.empty())
    return base::Error(base::ErrorCode::kInvalidArgument, "give the payload either as an argument or with --file, not both");
  if (file == "-" || argument == "-") return base::read_all(STDIN_FILENO, 64U << 20U);
  if (!file.empty()) return base::read_file(file);
  if (argument.starts_with('@')) return base::read_file(argument.substr(1));
  return argument;
}

}  // namespace

int run_invoke(const std::vector<std::string>& words) {
  Command command("invoke", "Call a function and print its answer");
  std::string name;
  std::string payload;
  std::string file;
  std::string qualifier;
  bool tail = false;
  bool dry_run = false;
  command.options().add_option("name", name, "function, or NAME:VERSION")->required();
  command.options().add_option("payload", payload, "JSON, @file, or - for standard input (default {})");
  command.options().add_option("--file", file, "read the payload from a file (- is standard input)");
  command.options().add_option("--qualifier", qualifier, "version to call");
  command.options().add_flag("--tail", tail, "show this call's log on standard error");
  command.options().add_flag("--dry-run", dry_run, "check everything but do not call");
  return command.run(words, [&]() -> base::Result<int> {
    MAYFLY_ASSIGN(std::string body, read_payload(payload, file));
    if (body.empty()) body = "{}";
    MAYFLY_TRY(base::check_json(body).with_context("the payload"));
    MAYFLY_ASSIGN(const Session session, command.connect());
    Call call;
    call.method = "POST";
    call.path = function_path(name, "/invocations");
    if (!qualifier.empty()) call.query.emplace_back("Qualifier", qualifier);
    call.headers = {{"Content-Type", "application/json"}, {"X-Amz-Invocation-Type", dry_run ? "DryRun" : "RequestResponse"}};
    if (tail && !dry_run) call.headers.emplace_back("X-Amz-Log-Type", "Tail");
    call.body = body;
    call.timeout = std::chrono::seconds(960);  // the longest Timeout, and the start before it
    MAYFLY_ASSIGN(const net::Response response, session.send(call));
    const std::string error(response.headers.get("X-Amz-Function-Error"));
    const auto log = base::base64_decode(response.headers.get("X-Amz-Log-Result"));
    const std::string stand_in(response.headers.get("X-Mayfly-Stand-In"));
    if (command.json()) {
      boost::json::object document{{"StatusCode", response.status},
                                   {"ExecutedVersion", std::string(response.headers.get("X-Amz-Executed-Version"))},
                                   {"RequestId", std::string(response.headers.get("x-amzn-RequestId"))}};
      if (!error.empty()) document["FunctionError"] = error;
      if (tail && log.ok()) document["LogResult"] = *log;
      if (!stand_in.empty()) document["StandIn"] = stand_in;
      auto answer = base::parse_json(response.body);
      document["Payload"] = answer.ok() ? *answer : boost::json::value(response.body);
      Command::print_json(document);
    } else {
      if (!response.body.empty()) std::cout << response.body << (response.body.ends_with('\n') ? "" : "\n") << std::flush;
      if (tail && log.ok()) std::cerr << printable(*log, true);
      if (!stand_in.empty()) std::cerr << "mayfly: " << stand_in << '\n';
      if (!error.empty())
        std::cerr << "mayfly: the function failed (" << error << "); request " << response.headers.get("x-amzn-RequestId")
                  << "; its log: mayfly logs " << name << '\n';
      if (dry_run) std::cout << "The call would be accepted.\n";
    }
    return error.empty() ? 0 : base::exit_status(base::ErrorCode::kFunctionFailed);
  });
}

}  // namespace mayfly::cli
