// The daemon: puts the rooms together, runs until told to stop, takes itself apart in order.
#pragma once

#include <string>
#include <vector>

namespace mayfly::server {

// `mayfly server`. Words as given after the verb; returns the exit code.
int run_server(const std::vector<std::string>& words);

}  // namespace mayfly::server
