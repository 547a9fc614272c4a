// The server side of the Lambda Runtime API for one environment (contract.md, section 2): what official runtime clients
// speak over HTTP to 169.254.100.1:9001. Distrusts the peer: ids, sizes, order and framing are checked.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "engine/invocation.h"
#include "net/task.h"
#include "runtime/extensions.h"
#include "runtime/faults.h"
#include "runtime/framed_protocol.h"

namespace mayfly::runtime {

// The complete answer to an invocation.
struct Answer {
  bool failed = false;
  RunNumber run = 0;                          // which one, where several run at once (FramedChannel, HttpWorker); else 0
  std::string payload;                        // empty when the body went to the sink as a stream and nothing failed
  std::string error_type;                     // when failed
  std::string cause = {};                     // when the platform found the fault, and not the function: words for the log
  std::optional<base::TimePoint> began = {};  // when the answer's first byte came
  std::uint64_t produced_bytes = 0;           // of the answer, also when it was streamed
};

// What the runtime did. Called on the loop's thread; must not destroy the RuntimeApi before returning.
class RuntimeEvents {
 public:
  virtual ~RuntimeEvents() = default;
  // It asks for an invocation: the first time its init has ended, then in place of run `run` (0 where one runs at a time).
  virtual void on_next(RunNumber run) = 0;
  virtual void on_init_error(FunctionFault fault) = 0;
  virtual void on_answer(Answer answer) = 0;  // once for each hand_over(); the runtime is told afterwards
};

struct RuntimeApiLimits {
  std::uint64_t response_bytes = engine::Limits::kSyncPayloadBytesMax;
  std::uint64_t stream_bytes = engine::Limits::kStreamBytesMax;
  std::uint64_t error_bytes = engine::Limits::kSyncPayloadBytesMax;
};

// One loop's thread.
class RuntimeApi {
 public:
  // Takes the listening socket and serves at once. `events` and `extensions` outlive it; without `extensions` their APIs answer 404.
  RuntimeApi(const net::Executor& executor, base::UniqueFd listener, RuntimeEvents& events, const base::Clock& clock,
             RuntimeApiLimits limits = {}, Extensions* extensions = nullptr);
  ~RuntimeApi();
  RuntimeApi(const RuntimeApi&) = delete;
  RuntimeApi& operator=(const RuntimeApi&) = delete;

  // Answers the runtime's `next` with `invocation`; the payload is moved out of it then. Only after on_next().
  void hand_over(engine::InvocationPtr invocation, base::Deadline run_deadline);
  // Whether no byte of the last hand_over() was sent, nor will be; then its invocation still has its payload. So it is where the
  // runtime's connection had been closed before, as that of a process that ended while it was idle. False in doubt: what was sent may
  // have been read.
  [[nodiscard]] bool take_back();
  // The runtime speaks the framed protocol: from here on its calls are refused here, those of extensions are not.
  void refuse_runtime();
  // From here on no event is reported and no stream piece reaches the sink.
  void abandon();

 private:
  friend struct RuntimeCalls;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What a request of a runtime asks for; exposed for the fuzzer.
enum class RuntimeCall : std::uint8_t { kNext, kResponse, kError, kInitError, kPing, kRestore, kExtensions, kUnknown };
struct RuntimeTarget {
  RuntimeCall call = RuntimeCall::kUnknown;
  std::string_view request_id;  // kResponse and kError
};
[[nodiscard]] RuntimeTarget parse_runtime_target(std::string_view method, std::string_view path);
// `text` as a header value: control characters become spaces, so nothing can add a field.
[[nodiscard]] std::string header_safe(std::string_view text);

}  // namespace mayfly::runtime
