#include "engine/answer_queue.h"

#include <array>

#include "base/bytes.h"

namespace mayfly::engine {

void AnswerQueue::on_stream_begin(const std::string& type) {
  begun = true;
  content_type = type;
  on_change();
}

void AnswerQueue::on_stream_piece(std::string bytes, std::function<void(bool)> taken) {
  if (detached_) return taken(false);
  if (mode_ == ResponseMode::kBuffered) {
    gathered_ += bytes;
    return taken(true);
  }
  pieces_.emplace_back(std::move(bytes), std::move(taken));
  on_change();
}

void AnswerQueue::on_outcome(Outcome ended) {
  if (detached_) return;
  if (!gathered_.empty() && ended.payload.empty()) ended.payload = std::move(gathered_);
  outcome = std::move(ended);
  on_change();
}

void AnswerQueue::detach() {
  detached_ = true;
  while (!pieces_.empty()) take().second(false);
  on_change();
}

AnswerQueue::Piece AnswerQueue::take() {
  Piece piece = std::move(pieces_.front());
  pieces_.pop_front();
  return piece;
}

std::string new_trace_id(base::WallTime now) {
  std::array<std::uint8_t, 4> seconds{};
  const auto count = static_cast<std::uint32_t>(base::epoch_ms(now) / 1000);
  for (std::size_t i = 0; i < 4; ++i) seconds[i] = static_cast<std::uint8_t>(count >> (24U - 8U * i));
  const std::string random = base::random_hex(20);
  std::string id;
  id.reserve(80);
  id.append("Root=1-").append(base::hex_encode(seconds)).append("-").append(random, 0, 24);
  id.append(";Parent=").append(random, 24).append(";Sampled=0");
  return id;
}

}  // namespace mayfly::engine
