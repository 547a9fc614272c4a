// What a bootstrap writes to its control pipe: the same bytes, whole and in pieces, must give the same frames, and nothing may be kept
// beyond what was asked for.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/framed_protocol.h"

namespace {

using namespace mayfly::runtime;

void must(bool holds) {
  if (!holds) std::abort();
}

constexpr std::uint32_t kKeepMax = 4096;

// Keeps small bodies, skips large ones, and stops at a type that it does not know.
struct Receiver final : FrameReceiver {
  Body on_head(const FrameHead& head) override {
    if (head.type > 8) return Body::kStop;
    return head.length <= kKeepMax ? Body::kKeep : Body::kDiscard;
  }
  bool on_frame(const FrameHead& head, std::string body) override {
    must(head.type <= 8 && body.size() == (head.length <= kKeepMax ? head.length : 0));
    said += std::to_string(head.type) + ":" + std::to_string(head.run) + ":" + body + "\n";
    FramedError error;
    if (parse_error(body, error)) must(error.type.size() + error.document.size() + 4 == body.size());
    FramedHello hello;
    if (parse_hello(body, hello)) must(hello.client.size() + 8 == body.size());
    return head.run != 13;
  }
  std::string said;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  const std::size_t piece = 1 + data[0] % 64;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  Receiver whole, pieces, filled;
  FrameSplitter first, second, third;
  const bool goes_on = first.feed(bytes, whole);
  bool in_pieces = true;
  for (std::size_t at = 0; at < bytes.size() && in_pieces; at += piece) in_pieces = second.feed(bytes.substr(at, piece), pieces);
  must(goes_on == in_pieces && whole.said == pieces.said);
  // As a channel reads: what is missing of a body straight into its place.
  bool filling = true;
  for (std::size_t at = 0; at < bytes.size() && filling;) {
    if (third.missing() > 0) {
      filling = third.fill(piece, filled, [&](char* to, std::size_t most) {
        const std::size_t taken = std::min(most, bytes.size() - at);
        std::memcpy(to, bytes.data() + at, taken);
        at += taken;
        return taken;
      });
    } else {
      const std::string_view part = bytes.substr(at, piece);
      at += part.size();
      filling = third.feed(part, filled);
    }
  }
  must(goes_on == filling && whole.said == filled.said);
  return 0;
}
