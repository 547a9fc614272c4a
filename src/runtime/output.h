// What a function prints: pipes to log messages. Splitter and decoder are pure; the reader watches one pipe on the loop.
// Bounds: a line or frame beyond kMessageBytesMax is cut into several messages, and a pipe is read at kBytesPerSecond
// (burst kBurstBytes); faster writers wait in their write(2).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/time.h"
#include "net/task.h"

namespace mayfly::runtime {

inline constexpr std::size_t kMessageBytesMax = 256U << 10U;  // CloudWatch's limit for one event
inline constexpr std::uint64_t kBytesPerSecond = 16ULL << 20U;
inline constexpr std::uint64_t kBurstBytes = 8ULL << 20U;

// One message; `time` as the function stamped it (framed logs only).
using OnMessage = std::function<void(std::string message, std::optional<base::WallTime> time)>;

class OutputDecoder {
 public:
  virtual ~OutputDecoder() = default;
  virtual void feed(std::string_view bytes, const OnMessage& on_message) = 0;
  // Hands out what has no end yet: at the end of an invocation.
  virtual void flush(const OnMessage& on_message) = 0;
};

// Standard output and error: one message for each line, its newline included.
class LineSplitter final : public OutputDecoder {
 public:
  void feed(std::string_view bytes, const OnMessage& on_message) override;
  void flush(const OnMessage& on_message) override;

 private:
  std::string partial_;
};

// The pipe behind _LAMBDA_TELEMETRY_LOG_FD: frames of type (4 bytes, 0xA55A00xx), length (4), time in microseconds (8; not in
// type 01), text; numbers big-endian (aws-lambda-python-runtime-interface-client, bootstrap.py). After bytes that are no
// frame everything is taken as lines: a function may write what it likes there.
class FramedDecoder final : public OutputDecoder {
 public:
  void feed(std::string_view bytes, const OnMessage& on_message) override;
  void flush(const OnMessage& on_message) override;

 private:
  // Takes one frame or piece of one off the front; false when bytes are missing.
  bool take_one(const OnMessage& on_message);

  std::string buffer_;
  std::uint64_t remaining_ = 0;  // bytes of the present frame still to come, after its first message was cut
  std::optional<base::WallTime> frame_time_;
  bool broken_ = false;
  LineSplitter lines_;
};

// Reads one pipe. On the loop's thread; messages stop when it is destroyed.
class OutputReader {
 public:
  OutputReader(const net::Executor& executor, base::UniqueFd pipe, std::unique_ptr<OutputDecoder> decoder, OnMessage on_message);
  ~OutputReader();
  OutputReader(const OutputReader&) = delete;
  OutputReader& operator=(const OutputReader&) = delete;

  // Takes what is in the pipe at this moment and flushes: what was printed before an answer is logged before its END.
  void drain_now();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace mayfly::runtime
