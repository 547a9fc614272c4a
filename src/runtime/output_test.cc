#include <gtest/gtest.h>

#include "runtime/output.h"

namespace mayfly::runtime {
namespace {

using namespace std::chrono_literals;

struct Messages {
  OnMessage take() {
    return [this](std::string text, std::optional<base::WallTime> time) {
      texts.push_back(std::move(text));
      times.push_back(time);
    };
  }
  std::vector<std::string> texts;
  std::vector<std::optional<base::WallTime>> times;
};

TEST(LineSplitter, KeepsLinesWholeOverPiecesAndFlushesTheLast) {
  Messages got;
  LineSplitter splitter;
  splitter.feed("on", got.take());
  splitter.feed("e\ntwo\nth", got.take());
  splitter.flush(got.take());
  EXPECT_EQ(got.texts, (std::vector<std::string>{"one\n", "two\n", "th"}));
}

TEST(LineSplitter, CutsAnEndlessLineAtTheBound) {
  Messages got;
  LineSplitter splitter;
  for (int i = 0; i < 12; ++i) splitter.feed(std::string(64 << 10, 'y'), got.take());
  ASSERT_EQ(got.texts.size(), 3U);
  for (const std::string& text : got.texts) EXPECT_EQ(text.size(), kMessageBytesMax);
}

std::string number(std::uint64_t value, int bytes) {
  std::string text;
  for (int i = bytes - 1; i >= 0; --i) text += static_cast<char>(value >> (8 * i));
  return text;
}
std::string frame(std::uint32_t type, const std::string& text, std::uint64_t time_us) {
  return number(type, 4) + number(text.size(), 4) + ((type & 3U) == 1 ? "" : number(time_us, 8)) + text;
}

TEST(FramedDecoder, KeepsMultiLineMessagesTogetherByteByByte) {
  Messages got;
  FramedDecoder decoder;
  const std::string bytes = frame(0xA55A0003, "a\nb", 1'000'000) + frame(0xA55A0001, "c", 0) + frame(0xA55A001A, "{}", 7);
  for (const char c : bytes) decoder.feed(std::string(1, c), got.take());
  EXPECT_EQ(got.texts, (std::vector<std::string>{"a\nb", "c", "{}"}));
  EXPECT_EQ(got.times[0], base::WallTime(std::chrono::seconds(1)));
  EXPECT_FALSE(got.times[1].has_value());
}

TEST(FramedDecoder, TakesWhatIsNoFrameAsLines) {
  Messages got;
  FramedDecoder decoder;
  decoder.feed(frame(0xA55A0003, "good", 1) + "plain text\nmore\n", got.take());
  decoder.flush(got.take());
  EXPECT_EQ(got.texts, (std::vector<std::string>{"good", "plain text\n", "more\n"}));
}

TEST(FramedDecoder, CutsAFrameThatClaimsGigabytes) {
  Messages got;
  FramedDecoder decoder;
  decoder.feed(number(0xA55A0003, 4) + number(0xFFFFFFFF, 4) + number(1, 8), got.take());
  for (int i = 0; i < 8; ++i) decoder.feed(std::string(64 << 10, 'z'), got.take());
  ASSERT_EQ(got.texts.size(), 2U);
  EXPECT_EQ(got.texts[0].size(), kMessageBytesMax);
}

}  // namespace
}  // namespace mayfly::runtime
