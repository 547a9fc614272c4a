// mayfly doctor: what this host can do for Mayfly, what is lost where it cannot, and what to do about it.
#pragma once

#include <string>
#include <vector>

namespace mayfly::server {

// Exit code 0 when nothing failed, 1 otherwise. Words as given after the verb.
int run_doctor(const std::vector<std::string>& words);

}  // namespace mayfly::server
