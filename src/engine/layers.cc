#include "engine/layers.h"

#include <map>
#include <set>
#include <utility>

#include "base/bytes.h"
#include "base/mutex.h"
#include "engine/internal/documents.h"

namespace mayfly::engine {
namespace {

using base::Error;
using base::ErrorCode;
using base::MutexLock;
using base::Result;

constexpr const char* kLayerKind = "layer";            // key: name; the number of the next version
constexpr const char* kVersionKind = "layer-version";  // key: name:number

std::string key_of(const std::string& name, std::uint64_t version) { return name + ":" + std::to_string(version); }

}  // namespace

struct LayerRegistry::Impl {
  Impl(store::Catalogue& a_catalogue, CodeStore& a_code, Account an_account, const base::Clock& a_clock)
      : catalogue(a_catalogue), code(a_code), account(std::move(an_account)), clock(a_clock) {}

  struct Layer {
    std::uint64_t next_version = 1;
    std::map<std::uint64_t, LayerVersionPtr> versions;
  };

  Result<void> load() {
    const MutexLock lock(mutex);
    MAYFLY_ASSIGN(const auto layer_rows, catalogue.resources(kLayerKind));
    for (const store::ResourceRow& row : layer_rows) {
      MAYFLY_ASSIGN(layers[row.key].next_version, next_layer_version_from(row));
    }
    MAYFLY_ASSIGN(const auto version_rows, catalogue.resources(kVersionKind));
    for (const store::ResourceRow& row : version_rows) {
      MAYFLY_ASSIGN(LayerVersion version, layer_version_from(row));
      version.layer_arn = account.layer_arn(version.name);
      Layer& layer = layers[version.name];
      const std::uint64_t number = version.version;
      layer.versions.emplace(number, std::make_shared<const LayerVersion>(std::move(version)));
    }
    return {};
  }
  [[nodiscard]] LayerVersionPtr find(const std::string& name, std::uint64_t version) const MAYFLY_REQUIRES(mutex) {
    const auto layer = layers.find(name);
    if (layer == layers.end()) return nullptr;
    const auto found = layer->second.versions.find(version);
    return found == layer->second.versions.end() ? nullptr : found->second;
  }
  [[nodiscard]] store::ResourceRow row_of(const LayerVersion& version) const {
    return {.kind = kVersionKind, .key = key_of(version.name, version.version), .document = layer_version_to_document(version)};
  }

  store::Catalogue& catalogue;
  CodeStore& code;
  const Account account;
  const base::Clock& clock;
  mutable base::Mutex mutex;  // held over commits: changes happen one after the other
  std::map<std::string, Layer> layers MAYFLY_GUARDED_BY(mutex);
};

LayerRegistry::LayerRegistry(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LayerRegistry::~LayerRegistry() = default;

Result<std::unique_ptr<LayerRegistry>> LayerRegistry::open(store::Catalogue& catalogue, CodeStore& code, Account account,
                                                           const base::Clock& clock) {
  auto impl = std::make_unique<Impl>(catalogue, code, std::move(account), clock);
  MAYFLY_TRY(impl->load().with_context("cannot load the layers"));
  code.add_owner([loaded = impl.get()](std::set<std::string>& names) {
    const MutexLock lock(loaded->mutex);
    for (const auto& [name, layer] : loaded->layers) {
      for (const auto& [number, version] : layer.versions) names.insert(version->code.id);
    }
  });
  return std::unique_ptr<LayerRegistry>(new LayerRegistry(std::move(impl)));
}

LayerVersionPtr LayerRegistry::find(const std::string& name, std::uint64_t version) const {
  const MutexLock lock(impl_->mutex);
  return impl_->find(name, version);
}

std::vector<LayerVersionPtr> LayerRegistry::versions(const std::string& name) const {
  const MutexLock lock(impl_->mutex);
  std::vector<LayerVersionPtr> found;
  const auto layer = impl_->layers.find(name);
  if (layer == impl_->layers.end()) return found;
  for (auto each = layer->second.versions.rbegin(); each != layer->second.versions.rend(); ++each) found.push_back(each->second);
  return found;
}

std::vector<std::string> LayerRegistry::names() const {
  const MutexLock lock(impl_->mutex);
  std::vector<std::string> found;
  for (const auto& [name, layer] : impl_->layers) {
    if (!layer.versions.empty()) found.push_back(name);
  }
  return found;
}

std::uint64_t LayerRegistry::total_code_bytes() const {
  const MutexLock lock(impl_->mutex);
  std::uint64_t bytes = 0;
  for (const auto& [name, layer] : impl_->layers) {
    for (const auto& [number, version] : layer.versions) bytes += version->code.size;
  }
  return bytes;
}

Result<LayerVersionPtr> LayerRegistry::publish(LayerVersion wanted, const std::string& zip) {
  wanted.code = CodeStore::identify(zip);
  CodeStore::Hold hold(impl_->code, wanted.code.id);
  MAYFLY_ASSIGN(wanted.unpacked_bytes, impl_->code.put(hold, zip));
  wanted.layer_arn = impl_->account.layer_arn(wanted.name);
  wanted.created = base::format_lambda_time(impl_->clock.wall_now());
  LayerVersionPtr made;
  {
    const MutexLock lock(impl_->mutex);
    const auto there = impl_->layers.find(wanted.name);
    wanted.version = there == impl_->layers.end() ? 1 : there->second.next_version;
    store::CatalogueChange change;
    change.put_resources.push_back(
        {.kind = kLayerKind, .key = wanted.name, .document = next_layer_version_to_document(wanted.version + 1)});
    change.put_resources.push_back(impl_->row_of(wanted));
    MAYFLY_TRY(impl_->catalogue.apply(change));
    Impl::Layer& layer = impl_->layers[wanted.name];
    layer.next_version = wanted.version + 1;
    made = std::make_shared<const LayerVersion>(std::move(wanted));
    layer.versions[made->version] = made;
  }
  hold.keep();
  return made;
}

Result<void> LayerRegistry::remove(const std::string& name, std::uint64_t version) {
  const MutexLock lock(impl_->mutex);
  if (impl_->find(name, version) == nullptr) return {};
  store::CatalogueChange change;
  change.remove_resources.emplace_back(kVersionKind, key_of(name, version));
  MAYFLY_TRY(impl_->catalogue.apply(change));
  impl_->layers[name].versions.erase(version);
  return {};
}

Result<LayerVersionPtr> LayerRegistry::change_policy(const std::string& name, std::uint64_t version,
                                                     const std::function<Result<void>(ResourcePolicy&)>& change) {
  const MutexLock lock(impl_->mutex);
  const LayerVersionPtr before = impl_->find(name, version);
  if (before == nullptr) {
    return Error(ErrorCode::kNotFound,
                 "Layer version " + impl_->account.layer_arn(name) + ":" + std::to_string(version) + " does not exist.",
                 "ResourceNotFoundException");
  }
  LayerVersion after = *before;
  MAYFLY_TRY(change(after.policy));
  after.policy.revision_id = base::random_uuid();
  store::CatalogueChange rows;
  rows.put_resources.push_back(impl_->row_of(after));
  MAYFLY_TRY(impl_->catalogue.apply(rows));
  auto made = std::make_shared<const LayerVersion>(std::move(after));
  impl_->layers[name].versions[version] = made;
  return LayerVersionPtr(made);
}

}  // namespace mayfly::engine
