#include "net/internal/client_codec.h"

#include <algorithm>

#include "base/json.h"

namespace mayfly::net::internal {

using base::Error;
using base::ErrorCode;
using base::Result;

namespace {

constexpr std::size_t kResponseHeadMax = 256U << 10U;

Error bad_url(std::string_view url, std::string_view why) {
  return {ErrorCode::kInvalidArgument, "the URL " + base::json_quote(url) + " " + std::string(why)};
}

bool has_no_body(const ClientRequest& request, int status) { return request.method == "HEAD" || status == 204 || status == 304; }

}  // namespace

Result<ClientTarget> parse_url(std::string_view url) {
  constexpr std::string_view kScheme = "http://";
  if (url.starts_with("https://"))
    return Error(ErrorCode::kUnsupported, "https is not spoken here: use an http:// URL, not " + std::string(url));
  if (!url.starts_with(kScheme)) return bad_url(url, "must begin with http://");
  std::string_view rest = url.substr(kScheme.size());
  const std::size_t slash = rest.find_first_of("/?");
  ClientTarget target;
  target.host_field = rest.substr(0, slash);
  target.path = slash == std::string_view::npos ? "/" : std::string(rest.substr(slash));
  if (target.path.front() == '?') target.path.insert(0, "/");
  const bool clean = std::ranges::all_of(target.path, [](char c) { return c > 0x20 && c < 0x7f && c != '#'; });
  if (!clean) return bad_url(url, "holds characters that must be percent-encoded");
  std::string_view authority = target.host_field;
  const std::size_t bracket = authority.find(']');
  const std::size_t colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  target.host = authority.substr(0, colon);
  target.port = colon == std::string_view::npos ? "80" : std::string(authority.substr(colon + 1));
  if (target.host.size() >= 2 && target.host.front() == '[') target.host = target.host.substr(1, target.host.size() - 2);
  const auto port = parse_length(target.port);
  if (target.host.empty() || !port || *port == 0 || *port > 65535) return bad_url(url, "names no host and port");
  constexpr std::string_view kHostExtra = "-._:";
  const bool host_clean = std::ranges::all_of(target.host, [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || kHostExtra.find(c) != std::string_view::npos;
  });
  if (!host_clean) return bad_url(url, "has a host that is neither a name nor an address");
  return target;
}

Result<std::string> request_head(const ClientRequest& request, const ClientTarget& target, AfterAnswer after) {
  if (!is_token(request.method)) return Error(ErrorCode::kInvalidArgument, base::json_quote(request.method) + " is not an HTTP method");
  std::string head = request.method + " " + target.path + " HTTP/1.1\r\n";
  if (!request.headers.contains("host")) head += "Host: " + target.host_field + "\r\n";
  for (const auto& [name, value] : request.headers.fields()) {
    if (!is_token(name) || !is_field_value(value)) {
      return Error(ErrorCode::kInvalidArgument, "the request header " + base::json_quote(name) + " holds a byte that is not allowed there");
    }
    const bool own = equal_ignoring_case(name, "content-length") || equal_ignoring_case(name, "connection") ||
                     equal_ignoring_case(name, "transfer-encoding");
    if (!own) head += name + ": " + value + "\r\n";
  }
  const bool states_length = !request.body.empty() || request.method == "POST" || request.method == "PUT" || request.method == "PATCH";
  if (states_length) head += "Content-Length: " + std::to_string(request.body.size()) + "\r\n";
  head += after == AfterAnswer::kClose ? "Connection: close\r\n\r\n" : "\r\n";
  return head;
}

Result<bool> ResponseReader::feed(std::string_view bytes) {
  input_ += bytes;
  while (!head_) {
    MAYFLY_ASSIGN(const bool taken, take_head());
    if (!taken) return false;
  }
  return take_body();
}

// True when a head (also one of an interim answer, which is dropped) was taken off the input.
Result<bool> ResponseReader::take_head() {
  const std::size_t end = input_.find("\r\n\r\n", scanned_);
  if (end == std::string::npos) {
    scanned_ = input_.size() - std::min<std::size_t>(input_.size(), 3);
    if (heads_ + input_.size() > kResponseHeadMax) return Error(ErrorCode::kTooLarge, "the answer's header is larger than 256 KiB");
    return false;
  }
  auto parsed = parse_response_head(std::string_view(input_).substr(0, end + 4));
  if (!parsed.ok()) return Error(ErrorCode::kUnavailable, "the peer does not speak HTTP/1.1: " + parsed.error().message());
  ResponseHead head = std::move(parsed).value();
  input_.erase(0, end + 4);
  scanned_ = 0;
  heads_ += end + 4;
  if (heads_ > kResponseHeadMax) return Error(ErrorCode::kTooLarge, "the answer's header is larger than 256 KiB");
  if (head.status >= 100 && head.status < 200) return true;
  response_.status = head.status;
  response_.headers = std::move(head.headers);
  if (head.chunked) decoder_.emplace();
  head_ = std::move(head);
  return true;
}

Result<void> ResponseReader::deliver(std::string_view bytes) {
  received_ += bytes.size();
  if (received_ > request_.response_bytes_max) {
    return Error(ErrorCode::kTooLarge, "the answer is larger than " + std::to_string(request_.response_bytes_max) + " bytes");
  }
  if (request_.on_body) {
    if (!bytes.empty()) request_.on_body(bytes);
  } else {
    response_.body += bytes;
  }
  return {};
}

Result<bool> ResponseReader::take_body() {
  if (has_no_body(request_, head_->status)) {
    body_may_follow_ = head_->chunked || head_->content_length.value_or(0) > 0;
    return true;
  }
  if (decoder_) {
    std::string piece;
    auto taken = decoder_->decode(input_, input_.size(), piece);
    if (!taken.ok()) return Error(ErrorCode::kUnavailable, "the answer's chunks are malformed: " + taken.error().message());
    input_.erase(0, *taken);
    MAYFLY_TRY(deliver(piece));
    return decoder_->done();
  }
  std::string_view bytes = input_;
  if (head_->content_length)
    bytes = bytes.substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), *head_->content_length - received_)));
  MAYFLY_TRY(deliver(bytes));
  excess_ = bytes.size() < input_.size();
  input_.clear();
  return head_->content_length && received_ == *head_->content_length;
}

Result<void> ResponseReader::end() {
  if (head_ && !decoder_ && !head_->content_length) return {};
  return Error(ErrorCode::kUnavailable, started() ? "the peer closed the connection in the middle of its answer"
                                                  : "the peer closed the connection without an answer");
}

}  // namespace mayfly::net::internal
