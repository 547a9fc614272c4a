// FunctionView: what is deployed, in memory, for readers that must not wait: a sharded map from name to record, and an
// index in order of name made of published chunks. A change copies one map of n/256 entries, and for a name that comes or
// goes one chunk of at most 256 names and the list of chunks; never the catalogue.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/published.h"
#include "engine/function.h"
#include "engine/internal/sharded_map.h"

namespace mayfly::engine {

// Any thread reads; one thread at a time changes.
class FunctionView {
 public:
  FunctionView();

  [[nodiscard]] RecordPtr find(std::string_view name) const;
  [[nodiscard]] std::vector<RecordPtr> list(std::string_view after, std::size_t max) const;
  [[nodiscard]] std::size_t size() const;
  // Every record, in no order. What changes meanwhile may be visited as it was or as it is.
  void each(const std::function<void(const RecordPtr& record)>& visit) const;

  void put(RecordPtr record);
  void remove(std::string_view name);
  // Replaces everything; `records` in order of name. Faster than put() one by one.
  void load(const std::vector<RecordPtr>& records);

 private:
  using Chunk = std::vector<std::string>;  // never empty
  struct Index {
    std::size_t size = 0;
    std::vector<std::shared_ptr<const Chunk>> chunks;
  };
  static constexpr std::size_t kChunkMax = 256;

  // The chunk where `name` is or would be.
  [[nodiscard]] static std::size_t chunk_of(const Index& index, std::string_view name);
  void index_insert(const std::string& name);
  void index_remove(std::string_view name);

  ShardedMap<RecordPtr> records_;
  base::Published<Index> index_;
};

}  // namespace mayfly::engine
