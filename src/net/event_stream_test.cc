#include "net/event_stream.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace mayfly::net {
namespace {

using namespace std::string_literals;

TEST(EventStream, encodes_the_vectors_of_the_aws_specification) {
  // "empty_message" of the encoding's published test vectors.
  EXPECT_EQ(encode_event_stream({}), "\x00\x00\x00\x10\x00\x00\x00\x00\x05\xc2\x48\xeb\x7d\x98\xc8\xff"s);
  // "payload_no_headers".
  const std::string vector = encode_event_stream({{}, "{'foo':'bar'}"});
  EXPECT_EQ(vector, "\x00\x00\x00\x1d\x00\x00\x00\x00\xfd\x52\x8c\x5a{'foo':'bar'}\xc3\x65\x39\x36"s);
}

TEST(EventStream, decodes_what_it_encodes_from_pieces_of_every_size) {
  const EventStreamMessage first{{{":event-type", "PayloadChunk"}, {":content-type", "application/octet-stream"}}, std::string(1000, '\0')};
  const EventStreamMessage second{{{":event-type", "InvokeComplete"}, {"empty", ""}}, "{}"};
  const std::string wire = encode_event_stream(first) + encode_event_stream(second);
  for (std::size_t piece : {std::size_t{1}, std::size_t{7}, wire.size()}) {
    std::string buffer;
    std::vector<EventStreamMessage> got;
    for (std::size_t at = 0; at < wire.size(); at += piece) {
      buffer += wire.substr(at, piece);
      while (true) {
        auto message = decode_event_stream(buffer);
        ASSERT_TRUE(message.ok());
        if (!*message) break;
        got.push_back(std::move(**message));
      }
    }
    ASSERT_EQ(got.size(), 2U);
    EXPECT_EQ(got[0].headers, first.headers);
    EXPECT_EQ(got[0].payload, first.payload);
    EXPECT_EQ(got[1].headers, second.headers);
    EXPECT_EQ(got[1].payload, second.payload);
    EXPECT_TRUE(buffer.empty());
  }
}

TEST(EventStream, refuses_every_single_flipped_bit) {
  const std::string wire = encode_event_stream({{{"name", "value"}}, "payload"});
  for (std::size_t bit = 0; bit < wire.size() * 8; ++bit) {
    std::string damaged = wire;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    const auto result = decode_event_stream(damaged);
    EXPECT_TRUE(!result.ok() && result.error().code() == base::ErrorCode::kDataLoss) << bit;
  }
}

}  // namespace
}  // namespace mayfly::net
