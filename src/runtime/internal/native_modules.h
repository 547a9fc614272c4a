// Whether an unpacked package holds compiled modules, and for which interpreter they were built.
#pragma once

#include <set>
#include <string>

namespace mayfly::runtime {

struct NativeModules {
  std::set<int> python_minors;  // of "x.cpython-312-x86_64-linux-gnu.so"
  std::string python_example;   // one such file
  std::string node_example;     // a .node file that is not Node-API (whose ABI holds over versions)
};

// Walks at most 50,000 entries without following links; unreadable parts count as empty.
[[nodiscard]] NativeModules find_native_modules(const std::string& directory);
// The minor in "_x.cpython-312-x86_64-linux-gnu.so"; 0 when the name says none.
[[nodiscard]] int python_minor_of(const std::string& file_name);

}  // namespace mayfly::runtime
