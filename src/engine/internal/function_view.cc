#include "engine/internal/function_view.h"

#include <algorithm>

namespace mayfly::engine {

FunctionView::FunctionView() : index_(std::make_shared<const Index>()) {}

RecordPtr FunctionView::find(std::string_view name) const { return records_.find(name).value_or(nullptr); }

std::size_t FunctionView::size() const { return index_.get()->size; }

void FunctionView::each(const std::function<void(const RecordPtr& record)>& visit) const {
  records_.each([&visit](const std::string&, const RecordPtr& record) { visit(record); });
}

std::vector<RecordPtr> FunctionView::list(std::string_view after, std::size_t max) const {
  const auto index = index_.get();
  std::vector<RecordPtr> records;
  if (index->chunks.empty()) return records;
  records.reserve(std::min(max, index->size));
  for (std::size_t c = chunk_of(*index, after); c < index->chunks.size() && records.size() < max; ++c) {
    const Chunk& chunk = *index->chunks[c];
    for (auto name = std::upper_bound(chunk.begin(), chunk.end(), after); name != chunk.end() && records.size() < max; ++name) {
      if (RecordPtr record = find(*name)) records.push_back(std::move(record));  // null: deleted since the index was read
    }
  }
  return records;
}

void FunctionView::put(RecordPtr record) {
  const std::string name = record->latest->function_name;
  if (records_.put(name, std::move(record))) index_insert(name);
}

void FunctionView::remove(std::string_view name) {
  if (records_.remove(name)) index_remove(name);
}

void FunctionView::load(const std::vector<RecordPtr>& records) {
  std::vector<std::pair<std::string, RecordPtr>> named;
  named.reserve(records.size());
  auto index = std::make_shared<Index>();
  std::shared_ptr<Chunk> chunk;
  for (const RecordPtr& record : records) {
    const std::string& name = record->latest->function_name;
    named.emplace_back(name, record);
    if (chunk == nullptr || chunk->size() == kChunkMax / 2) {  // half full: room to grow
      chunk = std::make_shared<Chunk>();
      index->chunks.push_back(chunk);
    }
    chunk->push_back(name);
  }
  index->size = records.size();
  records_.load(std::move(named));
  index_.set(std::move(index));
}

std::size_t FunctionView::chunk_of(const Index& index, std::string_view name) {
  const auto after = std::upper_bound(index.chunks.begin(), index.chunks.end(), name,
                                      [](std::string_view wanted, const auto& chunk) { return wanted < chunk->front(); });
  return after == index.chunks.begin() ? 0 : static_cast<std::size_t>(after - index.chunks.begin()) - 1;
}

void FunctionView::index_insert(const std::string& name) {
  auto index = std::make_shared<Index>(*index_.get());
  ++index->size;
  if (index->chunks.empty()) {
    index->chunks.push_back(std::make_shared<const Chunk>(Chunk{name}));
  } else {
    const std::size_t at = chunk_of(*index, name);
    const Chunk& before = *index->chunks[at];
    const auto place = std::lower_bound(before.begin(), before.end(), name);
    Chunk chunk;
    chunk.reserve(before.size() + 1);
    chunk.insert(chunk.end(), before.begin(), place);
    chunk.push_back(name);
    chunk.insert(chunk.end(), place, before.end());
    if (chunk.size() <= kChunkMax) {
      index->chunks[at] = std::make_shared<const Chunk>(std::move(chunk));
    } else {
      const auto middle = chunk.begin() + static_cast<std::ptrdiff_t>(chunk.size() / 2);
      index->chunks[at] = std::make_shared<const Chunk>(chunk.begin(), middle);
      index->chunks.insert(index->chunks.begin() + static_cast<std::ptrdiff_t>(at) + 1, std::make_shared<const Chunk>(middle, chunk.end()));
    }
  }
  index_.set(std::move(index));
}

void FunctionView::index_remove(std::string_view name) {
  auto index = std::make_shared<Index>(*index_.get());
  --index->size;
  const std::size_t at = chunk_of(*index, name);
  auto chunk = std::make_shared<Chunk>(*index->chunks[at]);
  std::erase(*chunk, name);
  if (chunk->empty()) {
    index->chunks.erase(index->chunks.begin() + static_cast<std::ptrdiff_t>(at));
  } else {
    index->chunks[at] = std::move(chunk);
  }
  index_.set(std::move(index));
}

}  // namespace mayfly::engine
