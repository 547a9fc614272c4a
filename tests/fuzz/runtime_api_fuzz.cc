// The bytes a function sends: framed and plain log output, targets and ids of Runtime API requests, error types and
// documents. Checks what must hold for all of them, not only that nothing crashes.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/json.h"
#include "runtime/faults.h"
#include "runtime/output.h"
#include "runtime/runtime_api.h"
#include "runtime/telemetry.h"

namespace {

using namespace mayfly;

void must(bool holds) {
  if (!holds) std::abort();
}

// The same bytes, whole and in pieces, give the same text within the bounds.
void decode(std::string_view bytes, std::size_t piece, runtime::OutputDecoder& decoder, std::string& text) {
  const runtime::OnMessage take = [&](std::string message, std::optional<base::WallTime>) {
    must(!message.empty() && message.size() <= runtime::kMessageBytesMax);
    text += message;
  };
  for (std::size_t at = 0; at < bytes.size(); at += piece) decoder.feed(bytes.substr(at, piece), take);
  decoder.flush(take);
}

template <typename Decoder>
void check_decoder(std::string_view bytes, std::size_t piece) {
  Decoder whole, pieces;
  std::string text_whole, text_pieces;
  decode(bytes, bytes.size() + 1, whole, text_whole);
  decode(bytes, piece, pieces, text_pieces);
  must(text_whole == text_pieces);
}

void check_fault(const runtime::FunctionFault& fault) {
  must(base::check_json(fault.payload).ok());
  must(fault.error_type.starts_with("Runtime.") || fault.error_type.starts_with("Function."));
  must(fault.error_type.find_first_of("\r\n\t \"") == std::string::npos);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::size_t piece = 1 + data[0] % 64;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  check_decoder<runtime::FramedDecoder>(bytes, piece);
  check_decoder<runtime::LineSplitter>(bytes, piece);

  const std::size_t half = bytes.size() / 2;
  check_fault(runtime::posted_fault(bytes.substr(0, half), std::string(bytes.substr(half))));
  check_fault(runtime::trailer_fault(bytes.substr(0, half), bytes.substr(half)));

  for (const char* method : {"GET", "POST"}) {
    const runtime::RuntimeTarget target = runtime::parse_runtime_target(method, bytes);
    must(target.request_id.find('/') == std::string_view::npos && target.request_id.size() <= 128);
  }
  const runtime::RuntimeTarget answer = runtime::parse_runtime_target("POST", "/2018-06-01/runtime/invocation/" + std::string(bytes));
  must(answer.call != runtime::RuntimeCall::kResponse || !answer.request_id.empty());
  for (const auto api : {runtime::TelemetryApi::kTelemetry, runtime::TelemetryApi::kLogs}) {
    const auto asked = runtime::parse_subscription(api, bytes);
    must(!asked.ok() || (!asked->kinds.empty() && asked->port != 0 && asked->items_max <= 10'000 && asked->bytes_max <= 1U << 20U));
  }
  const std::string safe = runtime::header_safe(bytes);
  for (const char c : safe) must(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
  return 0;
}
