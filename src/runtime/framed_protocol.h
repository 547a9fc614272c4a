// The frames that the server and Mayfly's own bootstraps exchange over an environment's control pipes: numbers, encoding and the
// decoder of what a bootstrap sends. Pure; distrusts the bytes it is fed. Format: docs/formats/framed-protocol.md.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mayfly::runtime {

inline constexpr std::uint32_t kFramedVersion = 1;
inline constexpr std::size_t kFrameHeadBytes = 12;

// Tells an invocation of an environment from the others that run there. 0 is none.
using RunNumber = std::uint32_t;

enum class FrameType : std::uint32_t {
  // from the bootstrap
  kHello = 1,
  kReady = 2,
  kInitError = 3,
  kResponse = 4,
  kError = 5,
  kResponseBegin = 6,
  kChunk = 7,
  kEnd = 8,
  kLeaving = 9,
  // from the server
  kInit = 16,
  kInvoke = 17,
  kCredit = 18,
  kRefused = 19,
};

struct FrameHead {
  std::uint32_t length = 0;  // bytes of the body
  std::uint32_t type = 0;    // a FrameType, or something unknown
  RunNumber run = 0;
};
using FrameHeadBytes = std::array<char, kFrameHeadBytes>;
[[nodiscard]] FrameHeadBytes encode_head(const FrameHead& head);

// What a runtime must know that was booted before it was known which function it is for, and the terms for every one.
struct FramedInit {
  // "NAME=value". With `replace_variables` they take the place of all that the process was started with; else there are none.
  bool replace_variables = false;
  std::vector<std::string> variables;
  std::string working_directory = "/var/task";
  std::uint32_t concurrency = 1;          // how many runs may be under way at once
  std::uint64_t response_bytes = 0;       // the most of a response in one piece
  std::uint64_t stream_bytes = 0;         // the most of a streamed one
  std::uint32_t stream_window_bytes = 0;  // what a run may stream before it is given credit
};
// Whole frames.
[[nodiscard]] std::string encode_init(const FramedInit& init);
[[nodiscard]] std::string encode_credit(RunNumber run, std::uint32_t bytes);
[[nodiscard]] std::string encode_refused(RunNumber run, std::string_view reason);

// The parts of INVOKE before the payload.
struct FramedInvoke {
  std::int64_t deadline_ms = 0;  // since 1970
  std::string_view request_id, function_arn, trace_id, client_context, cognito_identity;
};
// The head of the frame and everything in front of its payload, to which `payload_bytes` belong; replaces what `out` holds.
void encode_invoke(std::string& out, RunNumber run, const FramedInvoke& invoke, std::size_t payload_bytes);

// An error as INIT_ERROR, ERROR and END carry it: its type, then its document. False when the body is no such thing.
struct FramedError {
  std::string_view type, document;
};
[[nodiscard]] bool parse_error(std::string_view body, FramedError& error);

// HELLO. False when the body is no such thing.
struct FramedHello {
  std::uint32_t version = 0;
  std::uint32_t capabilities = 0;  // bit 0: takes several runs at once
  std::string_view client;         // "mayfly-python/3.11.2"; of any bytes
};
[[nodiscard]] bool parse_hello(std::string_view body, FramedHello& hello);

// The number of a run. False when the body is no such thing.
[[nodiscard]] bool parse_run(std::string_view body, RunNumber& run);

// What the decoder asks and tells.
class FrameReceiver {
 public:
  enum class Body : std::uint8_t {
    kKeep,     // hand it out whole
    kDiscard,  // skip it; on_frame() gets an empty one
    kStop,     // the peer is broken, or nobody listens: decode nothing more
  };
  virtual ~FrameReceiver() = default;
  // A head has come, its body perhaps not. Decides before a byte of the body is stored.
  [[nodiscard]] virtual Body on_head(const FrameHead& head) = 0;
  // False: decode nothing more.
  [[nodiscard]] virtual bool on_frame(const FrameHead& head, std::string body) = 0;
};

// Cuts a stream of bytes into frames. Stores at most one body, and of that only what has come.
class FrameSplitter {
 public:
  // Takes all of `bytes`. False once the receiver has said stop: for good.
  [[nodiscard]] bool feed(std::string_view bytes, FrameReceiver& receiver);

  // Where the body under way is still missing bytes: how many, or 0 when feed() must be used (no body, or one that is skipped).
  [[nodiscard]] std::size_t missing() const { return !stopped_ && in_body_ && keep_ ? remaining_ : 0; }
  // Lets `read(char*, size)` put at most `most` of them straight into place; it returns how many it put. Then as feed().
  template <typename Read>
  [[nodiscard]] bool fill(std::size_t most, FrameReceiver& receiver, const Read& read) {
    const std::size_t had = body_.size();
    const std::size_t wanted = std::min<std::size_t>(most, missing());
    std::size_t got = 0;
    body_.resize_and_overwrite(had + wanted, [&](char* at, std::size_t) {
      got = read(at + had, wanted);
      return had + got;
    });
    remaining_ -= static_cast<std::uint32_t>(got);
    return remaining_ > 0 || finish(receiver);
  }

 private:
  bool begin(FrameReceiver& receiver);
  bool finish(FrameReceiver& receiver);

  std::string head_bytes_;  // fewer than a head has
  FrameHead head_;
  std::string body_;
  std::uint32_t remaining_ = 0;  // of the body
  bool in_body_ = false, keep_ = false, stopped_ = false;
};

}  // namespace mayfly::runtime
