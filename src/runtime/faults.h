// Error types and documents of the runtime contract: what the platform says when a function's process fails, and how
// the bytes a function sends as its error become the document its caller gets (contract.md, section 2).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mayfly::runtime {

struct FunctionFault {
  std::string error_type;  // "Runtime.ExitError", "Function.Custom", "Runtime.Unknown"
  std::string payload;     // JSON document for the caller
  std::string cause = {};  // words for the log when the platform found the fault; empty when the function reported it itself
};

// How the main process of an environment ended.
struct ProcessEnd {
  int exit_code = -1;  // -1 when a signal ended it
  int signal = 0;
  bool out_of_memory = false;
};

// "exit status 1", "signal: killed"; empty for exit code 0.
[[nodiscard]] std::string describe_end(const ProcessEnd& end);

// The documents of the platform. `message` goes behind "RequestId: <id> Error: "; without an id (an init of nobody's) the
// prefix is left out.
[[nodiscard]] FunctionFault platform_fault(std::string_view error_type, const std::string& request_id, const std::string& message);
// Runtime.ExitError or Runtime.OutOfMemory. `memory_mb` is the function's MemorySize.
[[nodiscard]] FunctionFault process_fault(const ProcessEnd& end, const std::string& request_id, std::uint32_t memory_mb);
// The text behind "Error: " of the same.
[[nodiscard]] std::string process_fault_text(const ProcessEnd& end, std::uint32_t memory_mb);
[[nodiscard]] FunctionFault response_too_large(std::uint64_t limit);

// (Runtime|Function).Name passes; other names become Function.Unknown when they start with "Function.", else Runtime.Unknown.
[[nodiscard]] std::string checked_error_type(std::string_view type);

// What a runtime posted to .../error: `header_type` is Lambda-Runtime-Function-Error-Type. JSON passes unchanged as the
// caller's document; anything else, also nothing, is wrapped in one. Never fails: the bytes are the function's.
[[nodiscard]] FunctionFault posted_fault(std::string_view header_type, std::string body);
// The trailers of a streamed answer; `body_base64` decodes to the document.
[[nodiscard]] FunctionFault trailer_fault(std::string_view header_type, std::string_view body_base64);

}  // namespace mayfly::runtime
