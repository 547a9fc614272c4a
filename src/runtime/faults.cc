#include "runtime/faults.h"

#include <algorithm>
#include <csignal>
#include <cstring>

#include "base/bytes.h"
#include "base/json.h"

namespace mayfly::runtime {
namespace {

constexpr std::size_t kNameMax = 256;

std::string document(std::string_view type, std::string_view message) {
  return "{\"errorType\":" + base::json_quote(type) + ",\"errorMessage\":" + base::json_quote(message) + "}";
}

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

bool is_platform_name(std::string_view type, std::string_view family) {
  if (!type.starts_with(family) || type.size() > kNameMax) return false;
  const std::string_view name = type.substr(family.size());
  return name.size() >= 2 && name[0] >= 'A' && name[0] <= 'Z' && std::all_of(name.begin(), name.end(), is_letter);
}

// As Go names them, which is what AWS prints.
std::string signal_name(int number) {
  switch (number) {
    case SIGHUP: return "hangup";
    case SIGINT: return "interrupt";
    case SIGQUIT: return "quit";
    case SIGILL: return "illegal instruction";
    case SIGTRAP: return "trace/breakpoint trap";
    case SIGABRT: return "aborted";
    case SIGBUS: return "bus error";
    case SIGFPE: return "floating point exception";
    case SIGKILL: return "killed";
    case SIGUSR1: return "user defined signal 1";
    case SIGSEGV: return "segmentation fault";
    case SIGUSR2: return "user defined signal 2";
    case SIGPIPE: return "broken pipe";
    case SIGALRM: return "alarm clock";
    case SIGTERM: return "terminated";
    case SIGSYS: return "bad system call";
    default: return "signal " + std::to_string(number);
  }
}

// Whatever bytes arrived, as text that a JSON string can carry.
std::string printable(std::string_view bytes) {
  std::string text;
  for (const char c : bytes.substr(0, 4096)) text += static_cast<unsigned char>(c) < 0x80 ? c : '?';
  return text;
}

}  // namespace

std::string describe_end(const ProcessEnd& end) {
  if (end.signal != 0) return "signal: " + signal_name(end.signal);
  if (end.exit_code == 0) return {};
  return "exit status " + std::to_string(end.exit_code);
}

std::string process_fault_text(const ProcessEnd& end, std::uint32_t memory_mb) {
  if (end.out_of_memory) return "Memory size exceeded: the limit is " + std::to_string(memory_mb) + " MB";
  const std::string how = describe_end(end);
  return how.empty() ? "Runtime exited without providing a reason" : "Runtime exited with error: " + how;
}

FunctionFault platform_fault(std::string_view error_type, const std::string& request_id, const std::string& message) {
  const std::string text = request_id.empty() ? "Error: " + message : "RequestId: " + request_id + " Error: " + message;
  return {std::string(error_type), document(error_type, text), message};
}

FunctionFault process_fault(const ProcessEnd& end, const std::string& request_id, std::uint32_t memory_mb) {
  return platform_fault(end.out_of_memory ? "Runtime.OutOfMemory" : "Runtime.ExitError", request_id, process_fault_text(end, memory_mb));
}

FunctionFault response_too_large(std::uint64_t limit) {
  constexpr std::string_view kType = "Function.ResponseSizeTooLarge";
  const std::string text = "Response payload size exceeded maximum allowed payload size (" + std::to_string(limit) + " bytes).";
  return {std::string(kType), document(kType, text), text};
}

std::string checked_error_type(std::string_view type) {
  if (is_platform_name(type, "Runtime.") || is_platform_name(type, "Function.")) return std::string(type);
  return type.starts_with("Function.") ? "Function.Unknown" : "Runtime.Unknown";
}

FunctionFault posted_fault(std::string_view header_type, std::string body) {
  FunctionFault fault{checked_error_type(header_type), std::move(body)};
  if (fault.payload.empty()) {
    fault.payload = document(fault.error_type, "The runtime reported an error and said nothing about it.");
  } else if (!base::check_json(fault.payload).ok()) {
    fault.payload = document(fault.error_type, printable(fault.payload));
  }
  return fault;
}

FunctionFault trailer_fault(std::string_view header_type, std::string_view body_base64) {
  auto decoded = base::base64_decode(body_base64);
  return posted_fault(header_type, decoded.ok() ? std::move(*decoded) : std::string(body_base64));
}

}  // namespace mayfly::runtime
