// Python compiles a module it finds no bytecode for, at every start of an environment. The bootstraps lie where functions cannot write,
// so the server has each interpreter compile them once.
#pragma once

#include <string>
#include <vector>

namespace mayfly::server {

// Runs every one of `interpreters` (absolute paths of Pythons) as a child of this process, isolated from its environment, and leaves
// `directory`/__pycache__ readable for all. Blocks until they have ended. What fails is logged, and costs nothing but time later.
void compile_python_bootstraps(const std::string& directory, const std::vector<std::string>& interpreters);

}  // namespace mayfly::server
