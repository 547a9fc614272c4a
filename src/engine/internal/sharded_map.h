// ShardedMap: a map from text for readers that must not wait: 256 published maps. A change copies one of them, n/256 entries.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/published.h"

namespace mayfly::engine {

// Any thread reads; one thread at a time changes.
template <typename Value>
class ShardedMap {
 public:
  ShardedMap() {
    const auto empty = std::make_shared<const Map>();
    for (auto& shard : shards_) shard = std::make_unique<base::Published<Map>>(empty);
  }

  [[nodiscard]] std::optional<Value> find(std::string_view key) const {
    const auto map = shard_of(key).get();
    const auto found = map->find(key);
    return found == map->end() ? std::nullopt : std::optional<Value>(found->second);
  }
  // Every entry, in no order.
  template <typename Visitor>
  void each(const Visitor& visit) const {
    for (const auto& shard : shards_) {
      for (const auto map = shard->get(); const auto& [key, value] : *map) visit(key, value);
    }
  }
  // True when the key is new.
  bool put(const std::string& key, Value value) {
    base::Published<Map>& shard = shard_of(key);
    auto map = std::make_shared<Map>(*shard.get());
    const bool is_new = map->insert_or_assign(key, std::move(value)).second;
    shard.set(std::move(map));
    return is_new;
  }
  // True when the key was there.
  bool remove(std::string_view key) {
    base::Published<Map>& shard = shard_of(key);
    auto map = std::make_shared<Map>(*shard.get());
    const auto found = map->find(key);
    if (found == map->end()) return false;
    map->erase(found);
    shard.set(std::move(map));
    return true;
  }
  // Replaces everything. Faster than put() one by one.
  void load(std::vector<std::pair<std::string, Value>> all) {
    std::array<std::shared_ptr<Map>, kShards> maps;
    for (auto& map : maps) {
      map = std::make_shared<Map>();
      map->reserve(all.size() / kShards);
    }
    for (auto& [key, value] : all) maps[Hash()(key) % kShards]->emplace(std::move(key), std::move(value));
    for (std::size_t i = 0; i < kShards; ++i) shards_[i]->set(std::move(maps[i]));
  }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  using Map = std::unordered_map<std::string, Value, Hash, std::equal_to<>>;
  static constexpr std::size_t kShards = 256;

  [[nodiscard]] base::Published<Map>& shard_of(std::string_view key) const { return *shards_[Hash()(key) % kShards]; }

  std::array<std::unique_ptr<base::Published<Map>>, kShards> shards_;
};

}  // namespace mayfly::engine
