// Catalogue: what is deployed, on disk. One SQLite file, one connection that writes and checkpoints (Debian's SQLite has
// the WAL-reset bug otherwise), synchronous=FULL: a change that returned survives power loss. Numbered migrations.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

namespace mayfly::store {

// Rows are opaque to the store beyond their keys: `document` is JSON text of the engine's making, with a format number inside.
struct FunctionRow {
  std::string name;
  std::uint64_t next_version = 1;
  std::string document;  // tags and whatever belongs to the function as a whole
};
struct VersionRow {
  std::string name;
  std::string version;
  std::string code_id;
  std::string document;
};

// Anything else that is deployed, by kind ("layer", "role" ...) and a key of its owner's making. Documents as above.
struct ResourceRow {
  std::string kind;
  std::string key;
  std::string document;
};

// One change, applied whole or not at all.
struct CatalogueChange {
  std::vector<FunctionRow> put_functions = {};
  std::vector<VersionRow> put_versions = {};
  std::vector<std::pair<std::string, std::string>> remove_versions = {};  // name, version
  std::vector<std::string> remove_functions = {};                         // with all their versions; before anything is put
  std::vector<ResourceRow> put_resources = {};
  std::vector<std::pair<std::string, std::string>> remove_resources = {};  // kind, key; before anything is put
};

class Catalogue {
 public:
  virtual ~Catalogue() = default;
  // Returns after the commit is on disk. kUnavailable or kResourceExhausted (disk full) leave the catalogue as it was.
  [[nodiscard]] virtual base::Result<void> apply(const CatalogueChange& change) = 0;
  // Every function in order of name, each with its versions in order of text: one at a time, so that a hundred thousand of them are
  // never in memory twice. Ends with the first error of `visit`, which must not call the catalogue.
  using FunctionVisitor = std::function<base::Result<void>(const FunctionRow& row, const std::vector<VersionRow>& versions)>;
  [[nodiscard]] virtual base::Result<void> each_function(const FunctionVisitor& visit) = 0;
  // Of one kind, in order of key.
  [[nodiscard]] virtual base::Result<std::vector<ResourceRow>> resources(const std::string& kind) = 0;
  // Small named values: instance id, format numbers.
  [[nodiscard]] virtual base::Result<std::string> setting(const std::string& key) = 0;  // "" when absent
  [[nodiscard]] virtual base::Result<void> set_setting(const std::string& key, const std::string& value) = 0;
  // Cheap check for /readyz.
  [[nodiscard]] virtual base::Result<void> check() = 0;
};

// Opens or creates `path`, applying migrations. kDataLoss when the file is damaged, kUnsupported when it was written by a newer Mayfly.
// Calls are serialised inside; any thread.
[[nodiscard]] base::Result<std::unique_ptr<Catalogue>> open_catalogue(const std::string& path);

}  // namespace mayfly::store
