// mayfly: one program; the first word says what it does.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "cli/cli.h"
#include "server/doctor.h"
#include "server/server.h"

namespace {

std::vector<mayfly::cli::Verb> all_verbs() {
  std::vector<mayfly::cli::Verb> verbs = {{"server", "run the platform", mayfly::server::run_server}};
  verbs.insert(verbs.end(), mayfly::cli::verbs().begin(), mayfly::cli::verbs().end());
  verbs.push_back({"doctor", "examine this host: what works, what is lost, what to do", mayfly::server::run_doctor});
  return verbs;
}

void print_help(std::ostream& out) {
  out << "mayfly " MAYFLY_VERSION ": functions on your own machine, as AWS Lambda runs them\n\nUsage: mayfly VERB [--help]\n\n";
  for (const auto& verb : all_verbs())
    out << "  " << verb.name << std::string(10 - std::min<std::size_t>(9, verb.name.size()), ' ') << verb.summary << '\n';
  out << "\nFirst steps:\n  mayfly server &\n  mayfly init python hello && mayfly deploy hello && mayfly invoke hello\n  eval \"$(mayfly "
         "env)\"; aws lambda list-functions\n";
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty()) {
    print_help(std::cerr);
    return 2;
  }
  if (words[0] == "help" || words[0] == "--help" || words[0] == "-h") {
    print_help(std::cout);
    return 0;
  }
  if (words[0] == "--version" || words[0] == "version") {
    std::cout << "mayfly " MAYFLY_VERSION "\n";
    return 0;
  }
  for (const auto& verb : all_verbs()) {
    if (verb.name == words[0]) return verb.run({words.begin() + 1, words.end()});
  }
  std::cerr << "mayfly: there is no verb \"" << words[0] << "\"\n\n";
  print_help(std::cerr);
  return 2;
}
