#include "engine/answer_queue.h"

#include <gtest/gtest.h>

namespace mayfly::engine {
namespace {

class Queue final : public AnswerQueue {
 public:
  using AnswerQueue::AnswerQueue;
  int changes = 0;

 private:
  void on_change() override { ++changes; }
};

Outcome success(std::string payload) {
  Outcome outcome;
  outcome.payload = std::move(payload);
  return outcome;
}

TEST(AnswerQueue, KeepsPiecesInOrderUntilTheyAreTaken) {
  Queue queue(ResponseMode::kStreaming);
  std::vector<bool> asked;
  const auto taken = [&asked](bool more) { asked.push_back(more); };
  queue.on_stream_begin("text/plain");
  queue.on_stream_piece("one", taken);
  queue.on_stream_piece("two", taken);
  EXPECT_TRUE(queue.begun);
  EXPECT_EQ(queue.content_type, "text/plain");
  EXPECT_EQ(queue.changes, 3);
  EXPECT_TRUE(asked.empty()) << "the next piece is asked for when this one was taken";
  auto piece = queue.take();
  EXPECT_EQ(piece.first, "one");
  piece.second(true);
  EXPECT_EQ(queue.take().first, "two");
  EXPECT_FALSE(queue.has_piece());
  EXPECT_EQ(asked, std::vector<bool>{true});
}

TEST(AnswerQueue, GathersForWhoeverWantsTheAnswerWhole) {
  Queue queue(ResponseMode::kBuffered);
  int asked = 0;
  for (const char* piece : {"a", "b"}) queue.on_stream_piece(piece, [&asked](bool more) { asked += more ? 1 : 0; });
  EXPECT_EQ(asked, 2);
  queue.on_outcome(success(""));
  ASSERT_TRUE(queue.outcome);
  EXPECT_EQ(queue.outcome->payload, "ab");
}

TEST(AnswerQueue, RefusesEverythingOnceThePeerIsGone) {
  Queue queue(ResponseMode::kStreaming);
  std::vector<bool> asked;
  const auto taken = [&asked](bool more) { asked.push_back(more); };
  queue.on_stream_piece("one", taken);
  queue.detach();
  queue.on_stream_piece("two", taken);
  queue.on_outcome(success("late"));
  EXPECT_EQ(asked, (std::vector<bool>{false, false}));
  EXPECT_FALSE(queue.has_piece());
  EXPECT_FALSE(queue.outcome);
  EXPECT_TRUE(queue.detached());
}

TEST(TraceId, NamesTheSecond) {
  const std::string id = new_trace_id(base::wall_from_epoch_ms(0x67891233LL * 1000));
  EXPECT_TRUE(id.starts_with("Root=1-67891233-")) << id;
  EXPECT_EQ(id.size(), std::string("Root=1-67891233-abcdef012345678912345678;Parent=0123456789abcdef;Sampled=0").size());
  EXPECT_NE(id, new_trace_id(base::wall_from_epoch_ms(0x67891233LL * 1000)));
}

}  // namespace
}  // namespace mayfly::engine
