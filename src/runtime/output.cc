#include "runtime/output.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include "base/log.h"
#include "net/turn.h"

namespace mayfly::runtime {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

constexpr std::uint32_t kFrameMagic = 0xA55A0000;
constexpr std::size_t kReadBytes = 64U << 10U;

std::uint64_t big_endian(std::string_view bytes) {
  std::uint64_t value = 0;
  for (const char c : bytes) value = value << 8U | static_cast<unsigned char>(c);
  return value;
}

}  // namespace

void LineSplitter::feed(std::string_view bytes, const OnMessage& on_message) {
  while (!bytes.empty()) {
    const std::size_t room = kMessageBytesMax - partial_.size();
    const std::size_t newline = bytes.substr(0, room).find('\n');
    const std::size_t taken = newline == std::string_view::npos ? std::min(bytes.size(), room) : newline + 1;
    partial_ += bytes.substr(0, taken);
    bytes.remove_prefix(taken);
    if (newline != std::string_view::npos || partial_.size() >= kMessageBytesMax) flush(on_message);
  }
}

void LineSplitter::flush(const OnMessage& on_message) {
  if (partial_.empty()) return;
  std::string message;
  message.swap(partial_);
  on_message(std::move(message), std::nullopt);
}

void FramedDecoder::feed(std::string_view bytes, const OnMessage& on_message) {
  if (broken_) return lines_.feed(bytes, on_message);
  while (!bytes.empty() && !broken_) {
    const std::size_t taken = std::min(bytes.size(), kMessageBytesMax);
    buffer_ += bytes.substr(0, taken);
    bytes.remove_prefix(taken);
    while (!broken_ && take_one(on_message)) {
    }
  }
  if (broken_) lines_.feed(bytes, on_message);
}

bool FramedDecoder::take_one(const OnMessage& on_message) {
  if (remaining_ == 0) {
    if (buffer_.size() < 8) return false;
    const std::string_view head = buffer_;
    const auto type = static_cast<std::uint32_t>(big_endian(head.substr(0, 4)));
    const bool timed = (type & 3U) != 1;
    if ((type & 0xFFFFFF00U) != kFrameMagic) {
      broken_ = true;
      std::string rest;
      rest.swap(buffer_);
      lines_.feed(rest, on_message);
      return false;
    }
    const std::size_t head_bytes = timed ? 16 : 8;
    if (buffer_.size() < head_bytes) return false;
    remaining_ = big_endian(head.substr(4, 4));
    frame_time_.reset();
    if (timed)
      frame_time_ = base::WallTime(std::chrono::microseconds(static_cast<std::int64_t>(big_endian(head.substr(8, 8)) & INT64_MAX)));
    buffer_.erase(0, head_bytes);
    if (remaining_ == 0) return true;
  }
  const auto piece = static_cast<std::size_t>(std::min<std::uint64_t>(remaining_, kMessageBytesMax));
  if (buffer_.size() < piece) return false;
  std::string message = buffer_.substr(0, piece);
  buffer_.erase(0, piece);
  remaining_ -= piece;
  on_message(std::move(message), frame_time_);
  return true;
}

// A frame that has not come whole stays: the writer is in the middle of it.
void FramedDecoder::flush(const OnMessage& on_message) { lines_.flush(on_message); }

struct OutputReader::Impl : std::enable_shared_from_this<OutputReader::Impl> {
  Impl(asio::io_context& context, std::unique_ptr<OutputDecoder> decoder_in, OnMessage on_message_in)
      : pipe(context), pause(context), decoder(std::move(decoder_in)), on_message(std::move(on_message_in)) {}

  void watch();
  void refill();
  // Reads once, at most `limit` bytes; how many came: none at the end of the pipe or when it is empty.
  std::size_t read_once(std::size_t limit);

  asio::posix::stream_descriptor pipe;
  asio::steady_timer pause;
  std::unique_ptr<OutputDecoder> decoder;
  OnMessage on_message;
  std::uint64_t allowance = kBurstBytes;
  base::TimePoint refilled = base::system_clock().now();
  bool ended = false;
};

void OutputReader::Impl::refill() {
  const base::TimePoint now = base::system_clock().now();
  const double earned = base::to_ms(now - refilled) / 1000.0 * static_cast<double>(kBytesPerSecond);
  allowance = std::min(kBurstBytes, allowance + static_cast<std::uint64_t>(earned));
  refilled = now;
}

std::size_t OutputReader::Impl::read_once(std::size_t limit) {
  static thread_local std::string buffer(kReadBytes, '\0');  // one for all pipes of a loop: used between two lines only
  if (ended || !pipe.is_open()) return 0;
  const ssize_t got = ::read(pipe.native_handle(), buffer.data(), std::min(limit, buffer.size()));
  if (got < 0) {
    ended = errno != EAGAIN && errno != EINTR;
    return 0;
  }
  if (got == 0) {
    ended = true;
    return 0;
  }
  allowance -= std::min<std::uint64_t>(allowance, static_cast<std::uint64_t>(got));
  decoder->feed(std::string_view(buffer).substr(0, static_cast<std::size_t>(got)), on_message);
  return static_cast<std::size_t>(got);
}

void OutputReader::Impl::watch() {
  if (ended || !on_message) return;
  if (allowance < kReadBytes) refill();
  if (allowance < kReadBytes) {
    pause.expires_after(std::chrono::milliseconds(10));
    pause.async_wait([self = shared_from_this()](error_code error) {
      if (!error) self->watch();
    });
    return;
  }
  pipe.async_wait(asio::posix::descriptor_base::wait_read, [self = shared_from_this()](error_code error) {
    if (error || !self->on_message) return;
    net::run_turn([&self] { (void)self->read_once(kReadBytes); });
    self->watch();
  });
}

OutputReader::OutputReader(const net::Executor& executor, base::UniqueFd pipe, std::unique_ptr<OutputDecoder> decoder, OnMessage on_message)
    : impl_(std::make_shared<Impl>(static_cast<asio::io_context&>(asio::query(executor, asio::execution::context)), std::move(decoder),
                                   std::move(on_message))) {
  if (!pipe.valid()) return;
  (void)::fcntl(pipe.get(), F_SETFL, ::fcntl(pipe.get(), F_GETFL) | O_NONBLOCK);
  error_code error;
  impl_->pipe.assign(pipe.get(), error);
  if (error) {
    base::log_error("an environment's output cannot be watched; its log is lost", {{"what", error.message()}});
    return;
  }
  (void)pipe.release();
  impl_->watch();
}

OutputReader::~OutputReader() {
  impl_->on_message = nullptr;
  error_code ignored;
  impl_->pipe.close(ignored);
  impl_->pause.cancel();
}

void OutputReader::drain_now() {
  int waiting = 0;
  if (impl_->pipe.is_open() && ::ioctl(impl_->pipe.native_handle(), FIONREAD, &waiting) == 0) {
    auto left = static_cast<std::size_t>(std::max(waiting, 0));
    // Bounded by the pipe's size, so it need not wait for its allowance.
    for (std::size_t got = 1; left > 0 && got > 0; left -= std::min(left, got)) got = impl_->read_once(std::min(left, kReadBytes));
  }
  if (impl_->on_message) impl_->decoder->flush(impl_->on_message);
}

}  // namespace mayfly::runtime
