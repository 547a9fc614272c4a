// Invocation and Outcome: the one path's data, whichever door it came by (docs/architecture.md).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/time.h"
#include "engine/function.h"

namespace mayfly::engine {

enum class ResponseMode : std::uint8_t { kBuffered, kStreaming };

// How the time of an attempt was spent; every error and record carries it. Zero where a phase did not happen.
struct Timings {
  base::Duration queued{0};  // admission to hand-over, less start and init
  base::Duration start{0};   // making the environment, this invocation waiting for it
  base::Duration init{0};    // the runtime's init, this invocation waiting for it (cold start)
  base::Duration run{0};     // hand-over to the runtime until its answer ended
};

enum class OutcomeKind : std::uint8_t {
  kSuccess,        // the function answered
  kFunctionError,  // the function's fault: HTTP 200 with X-Amz-Function-Error
  kRefused,        // never ran: throttled, queue full, deadline passed while queued, cannot start; `error` says which
};

// Outcome::throttle_reason where a function's own reservation is full: nobody can say when it has a place again.
inline constexpr std::string_view kReservedLimit = "ReservedFunctionConcurrentInvocationLimitExceeded";

struct Outcome {
  OutcomeKind kind = OutcomeKind::kSuccess;
  std::string payload;               // the answer, or the error document {"errorType","errorMessage",...}
  std::string error_type;            // "Runtime.ExitError", "Sandbox.Timedout", the function's own; empty on success
  std::optional<base::Error> error;  // kRefused only: code and AWS id
  std::string throttle_reason;       // kRefused with TooManyRequestsException: the body's Reason ("ConcurrentInvocationLimitExceeded")
  std::string log_tail;              // last 4096 bytes of this invocation's log, when asked for
  std::string executed_version;
  std::string log_stream;  // where its log lines are; empty when it never ran
  std::string stand_in;    // "python3.12 ran on python3.11 ..." when another interpreter stood in; else empty
  Timings timings;
  base::Duration billed{0};
  std::uint64_t memory_peak = 0;  // bytes
  bool cold_start = false;
};

// Where the answer goes. All calls on the shard's thread; on_outcome last and exactly once, also after a stream.
class ResponseSink {
 public:
  virtual ~ResponseSink() = default;
  // Streaming answers only: the head, then pieces. `content_type` as the runtime sent it.
  virtual void on_stream_begin(const std::string& content_type) = 0;
  // `taken(true)` asks for the next piece (backpressure); `taken(false)` says nobody listens any more.
  virtual void on_stream_piece(std::string bytes, std::function<void(bool)> taken) = 0;
  virtual void on_outcome(Outcome outcome) = 0;
};

struct Invocation {
  std::string request_id;  // UUID
  VersionPtr version;
  std::string invoked_arn;  // as the caller qualified it
  std::string payload;      // moved, never copied
  ResponseMode mode = ResponseMode::kBuffered;
  bool tail_log = false;
  std::string client_context;                        // decoded JSON text, "" if none
  std::string trace_id;                              // X-Amzn-Trace-Id value
  base::Deadline call_deadline = base::kNoDeadline;  // fixed at the door
  base::TimePoint accepted;                          // when the door admitted it
  std::shared_ptr<ResponseSink> sink;
};
using InvocationPtr = std::shared_ptr<Invocation>;

// The door's view of the engine. `invoke` is called on the shard's thread and never blocks; the sink hears the rest.
class Invoker {
 public:
  virtual ~Invoker() = default;
  virtual void invoke(InvocationPtr invocation) = 0;
};

// Where environments write log lines; implemented by observe. Any thread; never blocks.
class LogWriter {
 public:
  virtual ~LogWriter() = default;
  virtual void append(const std::string& group, const std::string& stream, base::WallTime time, std::string message) = 0;
};

// One finished attempt, for usage, metrics and `mayfly logs --request-id`. Called on the shard's thread; must not block.
// The texts live as long as the call.
struct InvocationRecord {
  std::string_view request_id, function_name, version, log_group, log_stream;
  base::WallTime finished{};
  OutcomeKind kind = OutcomeKind::kSuccess;
  std::string_view error_type;
  Timings timings;
  base::Duration billed{0};
  std::uint64_t memory_mb = 0, memory_peak = 0;
  bool cold_start = false;
};
class InvocationObserver {
 public:
  virtual ~InvocationObserver() = default;
  virtual void on_invocation(const InvocationRecord& record) = 0;
};

}  // namespace mayfly::engine
