// What every verb shares: options, output for people or machines, errors and exit codes.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <boost/json/fwd.hpp>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/internal/session.h"

namespace mayfly::cli {

// A verb's arguments and how it prints. `--json`, `--data`, `--endpoint` are on every verb.
class Command {
 public:
  Command(const std::string& name, const std::string& summary);

  [[nodiscard]] CLI::App& options() { return app_; }
  // Parses `words`, runs `action`, prints its error and returns the exit code.
  [[nodiscard]] int run(const std::vector<std::string>& words, const std::function<base::Result<int>()>& action);

  [[nodiscard]] bool json() const { return json_; }
  // Connects with the options given. Errors say how to start or name a server.
  [[nodiscard]] base::Result<Session> connect() const { return Session::open(data_, endpoint_); }
  [[nodiscard]] const std::string& data() const { return data_; }
  // Prints `value` indented on standard output.
  static void print_json(const boost::json::value& value);

 private:
  CLI::App app_;
  bool json_ = false;
  std::string data_;
  std::string endpoint_;
};

// Left-aligned columns, two spaces apart; the first row is the heading.
void print_table(const std::vector<std::vector<std::string>>& rows);
// A short-lived line about progress: on standard error, and only where that is a terminal.
void show_progress(const std::string& text);
void clear_progress();
[[nodiscard]] bool output_is_terminal();
// `text` with control characters made visible, so that names and logs cannot drive the terminal.
[[nodiscard]] std::string printable(const std::string& text, bool keep_newlines = false);

}  // namespace mayfly::cli
