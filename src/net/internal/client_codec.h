// What both forms of the HTTP client share: URLs, the request's bytes, and an answer that arrives in pieces. No sockets.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "net/http_client.h"
#include "net/internal/http_parse.h"

namespace mayfly::net::internal {

struct ClientTarget {
  std::string host;  // without brackets
  std::string port;
  std::string path;  // with the query
  std::string host_field;
  [[nodiscard]] std::string address() const { return host_field; }
};

[[nodiscard]] base::Result<ClientTarget> parse_url(std::string_view url);
enum class AfterAnswer : std::uint8_t { kClose, kKeepOpen };  // what is to become of the connection
// Request line and fields, the empty line included.
[[nodiscard]] base::Result<std::string> request_head(const ClientRequest& request, const ClientTarget& target,
                                                     AfterAnswer after = AfterAnswer::kClose);

// Takes an answer's bytes as they arrive.
class ResponseReader {
 public:
  // `request` outlives the reader.
  explicit ResponseReader(const ClientRequest& request) : request_(request) {}
  // True when the answer is complete.
  [[nodiscard]] base::Result<bool> feed(std::string_view bytes);
  // The peer has closed: whether that was the answer's end.
  [[nodiscard]] base::Result<void> end();
  [[nodiscard]] bool started() const { return head_.has_value() || !input_.empty(); }
  [[nodiscard]] bool has_head() const { return head_.has_value(); }
  // After a complete answer: whether another may follow on the same connection.
  [[nodiscard]] bool persistent() const { return head_ && head_->persistent && input_.empty() && !excess_ && !body_may_follow_; }
  [[nodiscard]] Response take() { return std::move(response_); }

 private:
  [[nodiscard]] base::Result<bool> take_head();
  [[nodiscard]] base::Result<bool> take_body();
  [[nodiscard]] base::Result<void> deliver(std::string_view bytes);

  const ClientRequest& request_;
  Response response_;
  std::optional<ResponseHead> head_;
  std::optional<ChunkDecoder> decoder_;
  std::string input_;
  std::size_t scanned_ = 0;  // of the input: holds no end of a head
  std::uint64_t heads_ = 0;  // bytes of interim answers
  std::uint64_t received_ = 0;
  bool excess_ = false;           // the peer said more than its answer
  bool body_may_follow_ = false;  // it announced a body where none can be: a careless peer may send one yet
};

}  // namespace mayfly::net::internal
