// The command line: `mayfly` verbs that speak to a server over its public API. Exit codes: 0 done, 1 failure, 2 wrong
// usage or input, 3 not found, 4 denied, 5 conflict, 6 server away or busy, 7 the function failed (docs/cli.md).
#pragma once

#include <string>
#include <vector>

namespace mayfly::cli {

struct Verb {
  std::string name;
  std::string summary;
  // Gets the words after the verb; returns the exit code.
  int (*run)(const std::vector<std::string>& words);
};

// Every verb of this room, in the order `mayfly help` shows them. The program adds those of other rooms (server, doctor).
[[nodiscard]] const std::vector<Verb>& verbs();

}  // namespace mayfly::cli
