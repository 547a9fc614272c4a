#include "runtime/framed_protocol.h"

#include <bit>
#include <cstring>

namespace mayfly::runtime {
namespace {

static_assert(std::endian::native == std::endian::little, "frames are little-endian, and so must the machine be");

// A body longer than this is not reserved whole before bytes of it have come.
constexpr std::size_t kReserveMax = 8U << 20U;

template <typename T>
void put(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

void put_text(std::string& out, std::string_view text) {
  put(out, static_cast<std::uint32_t>(text.size()));
  out.append(text);
}

template <typename T>
T number_at(std::string_view bytes, std::size_t at) {
  T value{};
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

void put_head(std::string& out, FrameType type, RunNumber run, std::size_t length) {
  put(out, static_cast<std::uint32_t>(length));
  put(out, static_cast<std::uint32_t>(type));
  put(out, run);
}

void set_length(std::string& frame) {
  const auto length = static_cast<std::uint32_t>(frame.size() - kFrameHeadBytes);
  std::memcpy(frame.data(), &length, sizeof length);
}

}  // namespace

FrameHeadBytes encode_head(const FrameHead& head) {
  FrameHeadBytes bytes;
  std::memcpy(bytes.data(), &head.length, 4);
  std::memcpy(bytes.data() + 4, &head.type, 4);
  std::memcpy(bytes.data() + 8, &head.run, 4);
  return bytes;
}

std::string encode_init(const FramedInit& init) {
  std::string frame;
  put_head(frame, FrameType::kInit, 0, 0);
  put(frame, kFramedVersion);
  put(frame, std::uint32_t{init.replace_variables});
  put(frame, init.concurrency);
  put(frame, init.stream_window_bytes);
  put(frame, init.response_bytes);
  put(frame, init.stream_bytes);
  put_text(frame, init.working_directory);
  put(frame, static_cast<std::uint32_t>(init.variables.size()));
  for (const std::string& variable : init.variables) put_text(frame, variable);
  set_length(frame);
  return frame;
}

std::string encode_credit(RunNumber run, std::uint32_t bytes) {
  std::string frame;
  put_head(frame, FrameType::kCredit, run, sizeof bytes);
  put(frame, bytes);
  return frame;
}

std::string encode_refused(RunNumber run, std::string_view reason) {
  std::string frame;
  put_head(frame, FrameType::kRefused, run, reason.size());
  frame.append(reason);
  return frame;
}

void encode_invoke(std::string& out, RunNumber run, const FramedInvoke& invoke, std::size_t payload_bytes) {
  const std::array<std::string_view, 5> texts = {invoke.request_id, invoke.function_arn, invoke.trace_id, invoke.client_context,
                                                 invoke.cognito_identity};
  std::size_t length = sizeof invoke.deadline_ms + texts.size() * sizeof(std::uint32_t) + payload_bytes;
  for (const std::string_view text : texts) length += text.size();
  out.clear();
  put_head(out, FrameType::kInvoke, run, length);
  put(out, invoke.deadline_ms);
  for (const std::string_view text : texts) put(out, static_cast<std::uint32_t>(text.size()));
  for (const std::string_view text : texts) out.append(text);
}

bool parse_error(std::string_view body, FramedError& error) {
  constexpr std::size_t kTypeMax = 1024;
  if (body.size() < 4) return false;
  const auto length = number_at<std::uint32_t>(body, 0);
  if (length > kTypeMax || length > body.size() - 4) return false;
  error.type = body.substr(4, length);
  error.document = body.substr(4 + length);
  return true;
}

bool parse_hello(std::string_view body, FramedHello& hello) {
  if (body.size() < 8) return false;
  hello.version = number_at<std::uint32_t>(body, 0);
  hello.capabilities = number_at<std::uint32_t>(body, 4);
  hello.client = body.substr(8);
  return true;
}

bool parse_run(std::string_view body, RunNumber& run) {
  if (body.size() != sizeof run) return false;
  run = number_at<RunNumber>(body, 0);
  return true;
}

bool FrameSplitter::feed(std::string_view bytes, FrameReceiver& receiver) {
  while (!stopped_ && !bytes.empty()) {
    if (in_body_) {
      const std::size_t taken = std::min<std::size_t>(remaining_, bytes.size());
      if (keep_) body_.append(bytes.substr(0, taken));
      bytes.remove_prefix(taken);
      remaining_ -= static_cast<std::uint32_t>(taken);
      if (remaining_ == 0 && !finish(receiver)) return false;
      continue;
    }
    std::string_view head = bytes.substr(0, kFrameHeadBytes - head_bytes_.size());
    bytes.remove_prefix(head.size());
    if (head.size() < kFrameHeadBytes) {  // in pieces
      head_bytes_.append(head);
      if (head_bytes_.size() < kFrameHeadBytes) break;
      head = head_bytes_;
    }
    head_ = {.length = number_at<std::uint32_t>(head, 0), .type = number_at<std::uint32_t>(head, 4), .run = number_at<RunNumber>(head, 8)};
    head_bytes_.clear();
    if (!begin(receiver)) return false;
  }
  return !stopped_;
}

bool FrameSplitter::begin(FrameReceiver& receiver) {
  const auto decision = receiver.on_head(head_);
  if (decision == FrameReceiver::Body::kStop) {
    stopped_ = true;
    return false;
  }
  in_body_ = true;
  keep_ = decision == FrameReceiver::Body::kKeep;
  remaining_ = head_.length;
  body_ = {};
  if (remaining_ == 0) return finish(receiver);
  if (keep_) body_.reserve(std::min<std::size_t>(remaining_, kReserveMax));  // memory is touched only as bytes come
  return true;
}

bool FrameSplitter::finish(FrameReceiver& receiver) {
  in_body_ = false;
  std::string body = std::move(body_);
  body_ = {};
  if (!receiver.on_frame(head_, std::move(body))) stopped_ = true;
  return !stopped_;
}

}  // namespace mayfly::runtime
