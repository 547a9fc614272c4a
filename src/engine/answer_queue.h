// AnswerQueue: what a door hears of one invocation, kept until the coroutine that answers takes it. Doors derive from it and wake
// that coroutine in on_change().
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "engine/invocation.h"

namespace mayfly::engine {

// Used on the shard's thread only; the engine may keep it longer than the door does.
class AnswerQueue : public ResponseSink {
 public:
  using Piece = std::pair<std::string, std::function<void(bool)>>;

  explicit AnswerQueue(ResponseMode mode) : mode_(mode) {}

  void on_stream_begin(const std::string& type) override;
  void on_stream_piece(std::string bytes, std::function<void(bool)> taken) override;
  void on_outcome(Outcome ended) override;

  // The peer is gone: pieces are refused from now on and the outcome is dropped.
  void detach();
  [[nodiscard]] bool detached() const { return detached_; }
  [[nodiscard]] bool has_piece() const { return !pieces_.empty(); }
  // The oldest piece; its function must be called, which asks for the next one or says that nobody listens.
  [[nodiscard]] Piece take();

  bool begun = false;              // a streamed answer has begun
  std::string content_type;        // as the runtime said it
  std::optional<Outcome> outcome;  // set once, last

 protected:
  // Something new can be seen. Must not resume anybody inside the call.
  virtual void on_change() = 0;

 private:
  ResponseMode mode_;
  bool detached_ = false;
  std::string gathered_;
  std::deque<Piece> pieces_;
};

// "Root=1-67891233-abcdef012345678912345678;Parent=...;Sampled=0" for callers that send no trace.
[[nodiscard]] std::string new_trace_id(base::WallTime now);

}  // namespace mayfly::engine
