// FunctionView: what is deployed, in memory, for readers that must not wait: 256 published maps from name to record, and an
// index in order of name made of published chunks. A change copies one map of n/256 entries, and for a name that comes or
// goes one chunk of at most 256 names and the list of chunks; never the catalogue.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/published.h"
#include "engine/function.h"

namespace mayfly::engine {

// Any thread reads; one thread at a time changes.
class FunctionView {
 public:
  FunctionView();

  [[nodiscard]] RecordPtr find(std::string_view name) const;
  [[nodiscard]] std::vector<RecordPtr> list(std::string_view after, std::size_t max) const;
  [[nodiscard]] std::size_t size() const;
  // Every record, in order of name.
  [[nodiscard]] std::vector<RecordPtr> all() const;

  void put(RecordPtr record);
  void remove(std::string_view name);
  // Replaces everything; `records` in order of name. Faster than put() one by one.
  void load(const std::vector<RecordPtr>& records);

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  using Map = std::unordered_map<std::string, RecordPtr, Hash, std::equal_to<>>;
  using Chunk = std::vector<std::string>;  // never empty
  struct Index {
    std::size_t size = 0;
    std::vector<std::shared_ptr<const Chunk>> chunks;
  };
  static constexpr std::size_t kShards = 256;
  static constexpr std::size_t kChunkMax = 256;

  [[nodiscard]] static std::size_t shard_of(std::string_view name) { return Hash()(name) % kShards; }
  // The chunk where `name` is or would be.
  [[nodiscard]] static std::size_t chunk_of(const Index& index, std::string_view name);
  void index_insert(const std::string& name);
  void index_remove(std::string_view name);

  std::array<std::unique_ptr<base::Published<Map>>, kShards> shards_;
  base::Published<Index> index_;
};

}  // namespace mayfly::engine
