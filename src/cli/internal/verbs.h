// The verbs, one file each.
#pragma once

#include <string>
#include <vector>

namespace mayfly::cli {

int run_init(const std::vector<std::string>& words);
int run_deploy(const std::vector<std::string>& words);
int run_invoke(const std::vector<std::string>& words);
int run_logs(const std::vector<std::string>& words);
int run_ls(const std::vector<std::string>& words);
int run_describe(const std::vector<std::string>& words);
int run_rm(const std::vector<std::string>& words);
int run_runtimes(const std::vector<std::string>& words);
int run_env(const std::vector<std::string>& words);

}  // namespace mayfly::cli
