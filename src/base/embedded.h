// Files carried inside the program: tools/embed.py writes their bytes into a generated source at build time.
#pragma once

#include <span>
#include <string_view>

namespace mayfly::base {

struct EmbeddedFile {
  std::string_view name;   // relative path with '/'
  std::string_view bytes;
  unsigned mode;           // 0644 or 0755
};

}  // namespace mayfly::base

namespace mayfly::embedded {

// The bootstraps that environments see at /var/runtime: linked into the server.
std::span<const base::EmbeddedFile> runtimes();
// What `mayfly init` lays down, one directory per template: linked into the CLI.
std::span<const base::EmbeddedFile> templates();

}  // namespace mayfly::embedded
