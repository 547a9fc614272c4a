// LayerRegistry: layers and their versions over the stored catalogue. A version never changes but for its policy, and its number
// is never given twice.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/time.h"
#include "engine/code_store.h"
#include "engine/function.h"
#include "store/catalogue.h"

namespace mayfly::engine {

struct LayerVersion {
  std::string name;
  std::uint64_t version = 0;
  std::string layer_arn;                      // without the version
  std::string description, license, created;  // created as the API shows it
  std::vector<std::string> runtimes, architectures;
  CodeIdentity code;
  std::uint64_t unpacked_bytes = 0;
  ResourcePolicy policy;
  [[nodiscard]] std::string arn() const { return layer_arn + ":" + std::to_string(version); }
};
using LayerVersionPtr = std::shared_ptr<const LayerVersion>;

// Errors carry AWS's type and text as FunctionRegistry's do.
// Threads: any; calls that change something block (SQLite, files).
class LayerRegistry {
 public:
  // References outlive the registry.
  [[nodiscard]] static base::Result<std::unique_ptr<LayerRegistry>> open(store::Catalogue& catalogue, CodeStore& code, Account account,
                                                                         const base::Clock& clock);
  ~LayerRegistry();

  // Null when there is no such version.
  [[nodiscard]] LayerVersionPtr find(const std::string& name, std::uint64_t version) const;
  // Newest first; empty when the layer has none.
  [[nodiscard]] std::vector<LayerVersionPtr> versions(const std::string& name) const;
  // Names of layers that have a version, in order.
  [[nodiscard]] std::vector<std::string> names() const;
  [[nodiscard]] std::uint64_t total_code_bytes() const;

  // Name, description, license, runtimes and architectures come from `wanted`; the rest is filled in.
  [[nodiscard]] base::Result<LayerVersionPtr> publish(LayerVersion wanted, const std::string& zip);
  // Absent is fine, as on AWS. Functions that use the version keep its code.
  [[nodiscard]] base::Result<void> remove(const std::string& name, std::uint64_t version);
  // `change` edits a copy of the policy while nobody else does; its error leaves everything as it was. The policy gets a new revision.
  // ResourceNotFoundException when there is no such version.
  [[nodiscard]] base::Result<LayerVersionPtr> change_policy(const std::string& name, std::uint64_t version,
                                                            const std::function<base::Result<void>(ResourcePolicy&)>& change);

 private:
  struct Impl;
  explicit LayerRegistry(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mayfly::engine
