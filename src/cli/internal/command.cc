#include "cli/internal/command.h"

#include <unistd.h>

#include <boost/json.hpp>
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "base/json.h"

namespace mayfly::cli {

Command::Command(const std::string& name, const std::string& summary) : app_(summary, "mayfly " + name) {
  app_.add_flag("--json", json_, "print JSON for programs");
  app_.add_option("--data", data_, "data directory of the server (default: MAYFLY_DATA, else ./mayfly-data)");
  app_.add_option(
      "--endpoint", endpoint_,
      "address of the server, such as http://127.0.0.1:9000 (default: AWS_ENDPOINT_URL, else found through the data directory)");
}

int Command::run(const std::vector<std::string>& words, const std::function<base::Result<int>()>& action) {
  try {  // CLI11 reports through exceptions
    std::vector<std::string> reversed(words.rbegin(), words.rend());
    app_.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    std::cout << app_.help();
    return 0;
  } catch (const CLI::ParseError& error) {
    std::cerr << "mayfly: " << error.what() << "\nTry: " << app_.get_name() << " --help\n";
    return 2;
  }
  const base::Result<int> code = action();
  clear_progress();
  if (code.ok()) return *code;
  const base::Error& error = code.error();
  if (json_) {
    boost::json::object document{{"error", base::error_code_name(error.code())}, {"message", error.message()}};
    if (!error.id().empty()) document["type"] = error.id();
    std::cerr << boost::json::serialize(document) << '\n';
  } else {
    std::cerr << "mayfly: " << printable(error.message(), true);
    if (!error.id().empty()) std::cerr << " (" << printable(error.id()) << ')';
    std::cerr << '\n';
  }
  return base::exit_status(error.code());
}

void Command::print_json(const boost::json::value& value) { std::cout << base::pretty_json(value); }

void print_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line += std::string(widths[i] - row[i].size() + 2, ' ');
    }
    std::cout << line << '\n';
  }
}

namespace {
bool g_progress_shown = false;
}

void show_progress(const std::string& text) {
  if (isatty(STDERR_FILENO) == 0) return;
  std::fprintf(stderr, "\r\x1b[K%s", text.c_str());
  g_progress_shown = true;
}

void clear_progress() {
  if (!g_progress_shown) return;
  std::fputs("\r\x1b[K", stderr);
  g_progress_shown = false;
}

bool output_is_terminal() { return isatty(STDOUT_FILENO) != 0; }

std::string printable(const std::string& text, bool keep_newlines) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte >= 0x20 && byte != 0x7F) || c == '\t' || (keep_newlines && c == '\n')) {
      out += c;
    } else {
      constexpr const char* kDigits = "0123456789abcdef";
      out += "\\x";
      out += kDigits[byte >> 4U];
      out += kDigits[byte & 15U];
    }
  }
  return out;
}

}  // namespace mayfly::cli
