#include "net/internal/http_parse.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <limits>

namespace mayfly::net::internal {

namespace http = boost::beast::http;
using BeastView = boost::beast::string_view;
using BeastError = boost::beast::error_code;

namespace {

base::Error broken(std::string_view what) { return {base::ErrorCode::kInvalidArgument, std::string(what)}; }

std::string_view view(BeastView text) { return {text.data(), text.size()}; }

// Collects what Beast's parser reports of a head; it is never shown a body.
class HeadSink final : public http::basic_parser<false> {
 public:
  explicit HeadSink(Headers& headers) : headers_(headers) {
    header_limit(std::numeric_limits<std::uint32_t>::max());
    body_limit(boost::none);
  }
  int status = 0;
  int version = 0;  // 11 of HTTP/1.1

 private:
  void on_request_impl(http::verb, BeastView, BeastView, int, BeastError&) override {}
  void on_response_impl(int code, BeastView, int number, BeastError&) override {
    status = code;
    version = number;
  }
  void on_field_impl(http::field, BeastView name, BeastView value, BeastError&) override {
    headers_.add(std::string(view(name)), std::string(view(value)));
  }
  void on_header_impl(BeastError&) override {}
  void on_body_init_impl(const boost::optional<std::uint64_t>&, BeastError&) override {}
  std::size_t on_body_impl(BeastView body, BeastError&) override { return body.size(); }
  void on_chunk_header_impl(std::uint64_t, BeastView, BeastError&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, BeastView body, BeastError&) override { return body.size(); }
  void on_finish_impl(BeastError&) override {}

  Headers& headers_;
};

base::Result<void> feed(HeadSink& sink, std::string_view head) {
  BeastError error;
  const std::size_t taken = sink.put(boost::asio::const_buffer(head.data(), head.size()), error);
  if (error) return broken("the header is malformed: " + error.message());
  if (!sink.is_header_done() || taken != head.size()) return broken("the header is incomplete");
  return {};
}

std::optional<std::uint64_t> hex_size(std::string_view digits) {
  if (digits.empty() || digits.size() > 15) return std::nullopt;
  std::uint64_t value = 0;
  for (const char c : digits) {
    int digit = 0;
    if (c >= '0' && c <= '9') {
      digit = c - '0';
    } else if (c >= 'a' && c <= 'f') {
      digit = c - 'a' + 10;
    } else if (c >= 'A' && c <= 'F') {
      digit = c - 'A' + 10;
    } else {
      return std::nullopt;
    }
    value = value * 16 + static_cast<std::uint64_t>(digit);
  }
  return value;
}

// The line at the front of `input` without its CRLF; empty optional while it is incomplete; an error for a bare LF or CR.
base::Result<std::optional<std::string_view>> front_line(std::string_view input, std::size_t line_max) {
  const std::size_t end = input.substr(0, line_max + 2).find('\n');
  if (end == std::string_view::npos) {
    if (input.size() >= line_max + 2) return broken("a line of the chunked body is too long");
    return std::optional<std::string_view>();
  }
  if (end == 0 || input[end - 1] != '\r') return broken("a line of the chunked body ends in LF without CR");
  return std::optional<std::string_view>(input.substr(0, end - 1));
}

}  // namespace

base::Result<ResponseHead> parse_response_head(std::string_view head) {
  ResponseHead result;
  HeadSink sink(result.headers);
  MAYFLY_TRY(feed(sink, head));
  result.status = sink.status;
  result.chunked = sink.chunked();
  if (const auto length = sink.content_length()) result.content_length = *length;
  if (result.headers.contains("transfer-encoding") && !result.chunked) return broken("the answer has an unknown Transfer-Encoding");
  result.persistent = sink.version >= 11;
  for (const std::string_view options : result.headers.find_all("connection")) {
    if (list_contains(options, "close")) {
      result.persistent = false;
      break;
    }
    if (list_contains(options, "keep-alive")) result.persistent = true;
  }
  return result;
}

base::Result<void> ChunkDecoder::take_size_line(std::string_view line) {
  std::size_t end = line.find_first_of("; \t");
  const std::string_view extension = end == std::string_view::npos ? std::string_view{} : trim(line.substr(end));
  const auto size = hex_size(line.substr(0, end));
  if (!size) return broken("a chunk size is not a hexadecimal number in range");
  if (end != std::string_view::npos && (extension.empty() || extension.front() != ';' || !is_field_value(extension))) {
    return broken("a chunk extension is malformed");
  }
  extension_bytes_ += extension.size();
  if (extension_bytes_ > kExtensionBytesMax) return broken("the chunk extensions are too long");
  remaining_ = *size;
  state_ = remaining_ == 0 ? State::kTrailers : State::kData;
  return {};
}

base::Result<void> ChunkDecoder::take_trailer_line(std::string_view line) {
  if (line.empty()) {
    state_ = State::kDone;
    return {};
  }
  trailer_bytes_ += line.size() + 2;
  if (trailer_bytes_ > kTrailerBytesMax || trailers_.fields().size() >= kTrailerFieldsMax) return broken("the trailers are too large");
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) return broken("a trailer field is malformed");
  const std::string_view value = trim(line.substr(colon + 1));
  if (!is_field_value(value)) return broken("a trailer value holds a control character");
  const std::string_view name = line.substr(0, colon);
  if (!is_forbidden_trailer(name)) trailers_.add(std::string(name), std::string(value));
  return {};
}

base::Result<std::size_t> ChunkDecoder::decode(std::string_view input, std::size_t limit, std::string& body) {
  std::size_t taken = 0;
  while (state_ != State::kDone) {
    const std::string_view rest = input.substr(taken);
    if (state_ == State::kData) {
      const auto piece = static_cast<std::size_t>(std::min<std::uint64_t>({remaining_, rest.size(), limit}));
      if (piece == 0) break;
      body.append(rest.substr(0, piece));
      taken += piece;
      limit -= piece;
      remaining_ -= piece;
      if (remaining_ == 0) state_ = State::kDataEnd;
      continue;
    }
    const std::size_t line_max = state_ == State::kTrailers ? kTrailerBytesMax : state_ == State::kSize ? kChunkLineMax : 0;
    MAYFLY_ASSIGN(const std::optional<std::string_view> line, front_line(rest, line_max));
    if (!line) break;
    if (state_ == State::kSize) {
      MAYFLY_TRY(take_size_line(*line));
    } else if (state_ == State::kTrailers) {
      MAYFLY_TRY(take_trailer_line(*line));
    } else {
      state_ = State::kSize;  // the CRLF after a chunk's data; front_line allowed nothing in it
    }
    taken += line->size() + 2;
  }
  return taken;
}

}  // namespace mayfly::net::internal
