// mayfly_lambda.h: AWS Lambda functions in C++17, one header, no dependency beyond the C library of Linux.
//
//   #include "mayfly_lambda.h"
//   int main() {
//     return mayfly::run([](const mayfly::Request& request, const mayfly::Context& context) -> mayfly::Response {
//       return mayfly::Response::json("{\"got\":" + std::string(request.event) + "}");
//     });
//   }
//
// Build: g++ -O2 -std=c++17 -static main.cc -o bootstrap; runs as `provided.al2023`, on Mayfly and on AWS Lambda.
// Shape:   run() takes invocations from Mayfly by frames over two pipes (docs/formats/framed-protocol.md), one read and one write each, and
//          speaks the Lambda Runtime API (2018-06-01) over one kept connection where there are no pipes. run_streaming() hands out a
//          Stream whose bytes reach the caller as they are written.
// Errors:  a Response::failure or an exception out of the handler becomes the function's error {errorType, errorMessage, stackTrace}.
//          run() returns 1 when the platform cannot be reached or understood; otherwise it never returns.
// Threads: the handler runs on the thread that called run(); a Stream belongs to that thread.
// Source:  https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace mayfly {

// What is known of the invocation that runs. Valid until the handler returns.
struct Context {
  std::string request_id;
  std::string function_arn;
  std::string trace_id;          // also in the environment as _X_AMZN_TRACE_ID
  std::string client_context;    // JSON, empty when the caller sent none
  std::string cognito_identity;  // JSON, empty when the caller sent none
  std::string tenant_id;
  std::int64_t deadline_ms = 0;  // milliseconds since 1970

  // Milliseconds until Lambda ends this invocation, never below 0.
  std::int64_t remaining_ms() const {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const std::int64_t left = deadline_ms - std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
    return left > 0 ? left : 0;
  }
};

struct Request {
  std::string_view event;  // the payload, JSON as a rule; valid until the handler returns
};

// A function's answer: content of some type, or an error.
struct Response {
  std::string body;
  std::string content_type = "application/json";
  std::string error_type;  // not empty: a failure, and body is its message

  static Response json(std::string text) { return {std::move(text), "application/json", {}}; }
  static Response bytes(std::string data, std::string type = "application/octet-stream") { return {std::move(data), std::move(type), {}}; }
  static Response failure(std::string type, std::string message) { return {std::move(message), "application/json", std::move(type)}; }
};

// `text` as a JSON string, quotes included. Bytes above 0x7f pass as they are: text is taken to be UTF-8.
inline std::string json_quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", byte);
      out += escape;
    } else {
      out += c;
    }
  }
  return out += '"';
}

namespace detail {

inline void append_utf8(std::string& out, std::uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | (code >> 12));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (code >> 18));
    out += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

inline bool parse_hex4(std::string_view text, std::size_t at, std::uint32_t& code) {
  if (at + 4 > text.size()) return false;
  code = 0;
  for (std::size_t i = at; i < at + 4; ++i) {
    const char c = text[i];
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return false;
    code = code * 16 + static_cast<std::uint32_t>(digit);
  }
  return true;
}

// Reads the string that begins at `at` (a quote); moves `at` behind it. Nothing when it is not well formed.
inline std::optional<std::string> parse_string(std::string_view text, std::size_t& at) {
  std::string out;
  for (++at; at < text.size(); ++at) {
    if (text[at] == '"') {
      ++at;
      return out;
    }
    if (text[at] != '\\') {
      out += text[at];
      continue;
    }
    if (++at >= text.size()) return std::nullopt;
    static constexpr std::string_view kNames = "\"\\/bfnrt";
    static constexpr std::string_view kBytes = "\"\\/\b\f\n\r\t";
    if (const std::size_t found = kNames.find(text[at]); found != std::string_view::npos) {
      out += kBytes[found];
      continue;
    }
    std::uint32_t code = 0;
    std::uint32_t low = 0;
    if (text[at] != 'u' || !parse_hex4(text, at + 1, code)) return std::nullopt;
    at += 4;
    const bool pair = code >= 0xD800 && code < 0xDC00 && text.substr(at + 1, 2) == "\\u" && parse_hex4(text, at + 3, low);
    if (pair && low >= 0xDC00 && low < 0xE000) {
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
      at += 6;
    }
    append_utf8(out, code);
  }
  return std::nullopt;
}

inline void skip_blanks(std::string_view text, std::size_t& at) {
  while (at < text.size() && (text[at] == ' ' || text[at] == '\t' || text[at] == '\n' || text[at] == '\r')) ++at;
}

// Moves `at` behind the value that begins there. Well-formed JSON is assumed: the platform checked the payload.
inline void skip_value(std::string_view text, std::size_t& at) {
  int depth = 0;
  while (at < text.size()) {
    const char c = text[at];
    if (c == '"') {
      if (!parse_string(text, at)) return;
      if (depth == 0) return;
      continue;
    }
    if (depth == 0 && (c == ',' || c == '}' || c == ']')) return;
    if (c == '{' || c == '[') ++depth;
    ++at;
    if ((c == '}' || c == ']') && --depth == 0) return;
  }
}

}  // namespace detail

// The value of a top-level `key` of a JSON object: a string decoded, anything else as it is written. Nothing when there is no such key.
// Meant for small handlers; take a JSON library for more.
inline std::optional<std::string> json_field(std::string_view object, std::string_view key) {
  std::size_t at = 0;
  detail::skip_blanks(object, at);
  if (at >= object.size() || object[at] != '{') return std::nullopt;
  for (++at; at < object.size(); ++at) {
    detail::skip_blanks(object, at);
    if (at >= object.size() || object[at] != '"') return std::nullopt;
    const auto name = detail::parse_string(object, at);
    if (!name) return std::nullopt;
    detail::skip_blanks(object, at);
    if (at >= object.size() || object[at] != ':') return std::nullopt;
    detail::skip_blanks(object, ++at);
    const std::size_t begin = at;
    if (*name == key && at < object.size() && object[at] == '"') return detail::parse_string(object, at);
    detail::skip_value(object, at);
    if (*name == key) {
      std::string_view value = object.substr(begin, at - begin);
      while (!value.empty() && std::strchr(" \t\r\n", value.back()) != nullptr) value.remove_suffix(1);
      return std::string(value);
    }
    detail::skip_blanks(object, at);
    if (at >= object.size() || object[at] != ',') return std::nullopt;
  }
  return std::nullopt;
}

namespace detail {

struct Answer {
  int status = 0;
  std::string_view body;
  Context context;
};

// One kept HTTP/1.1 connection to the Runtime API.
class Connection {
 public:
  explicit Connection(std::string address) : address_(std::move(address)) { buffer_.resize(64 * 1024); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  ~Connection() { drop(); }

  const std::string& address() const { return address_; }

  // Sends head and body and reads the answer. A kept connection that turns out to be closed is replaced once.
  bool exchange(std::string_view head, std::string_view body, Answer& answer) {
    const bool kept = fd_ >= 0;
    if (send(head, body) && receive(answer)) return true;
    const bool answered = filled_ > 0;
    drop();
    return kept && !answered && send(head, body) && receive(answer);
  }

  bool send(std::string_view head, std::string_view body) {
    if (close_later_) drop();
    if (fd_ < 0 && !open()) return false;
    filled_ = 0;
    iovec parts[2] = {{const_cast<char*>(head.data()), head.size()}, {const_cast<char*>(body.data()), body.size()}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = body.empty() ? 1 : 2;
    while (message.msg_iovlen > 0) {
      const ssize_t sent = sendmsg(fd_, &message, MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0) return false;
      auto left = static_cast<std::size_t>(sent);
      while (message.msg_iovlen > 0 && left >= message.msg_iov->iov_len) {
        left -= message.msg_iov->iov_len;
        ++message.msg_iov;
        --message.msg_iovlen;
      }
      if (message.msg_iovlen > 0) {
        message.msg_iov->iov_base = static_cast<char*>(message.msg_iov->iov_base) + left;
        message.msg_iov->iov_len -= left;
      }
    }
    return true;
  }

  bool receive(Answer& answer) {
    std::size_t head_end = 0;
    filled_ = 0;
    while ((head_end = std::string_view(buffer_.data(), filled_).find("\r\n\r\n")) == std::string_view::npos) {
      if (!read_more()) return false;
    }
    const std::size_t begin = head_end + 4;
    const Head head = parse_head(std::string_view(buffer_.data(), head_end), answer);
    if (answer.status == 0) return false;
    if (head.chunked) {
      if (!read_chunked(begin, answer)) return false;
    } else {
      while (filled_ < begin + head.length) {
        if (buffer_.size() < begin + head.length) buffer_.resize(begin + head.length);
        if (!read_more()) return false;
      }
      answer.body = std::string_view(buffer_.data() + begin, head.length);
    }
    if (head.close) close_later_ = true;
    return true;
  }

 private:
  struct Head {
    std::size_t length = 0;
    bool chunked = false;
    bool close = false;
  };

  void drop() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
    close_later_ = false;
  }

  bool open() {
    const std::size_t colon = address_.rfind(':');
    if (colon == std::string::npos) return false;
    std::string host = address_.substr(0, colon);
    if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
    const int port = std::atoi(address_.c_str() + colon + 1);
    sockaddr_in v4{};
    sockaddr_in6 v6{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(static_cast<std::uint16_t>(port));
    v6.sin6_family = AF_INET6;
    v6.sin6_port = v4.sin_port;
    if (host == "localhost") host = "127.0.0.1";
    if (inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) return connect_to(reinterpret_cast<sockaddr*>(&v4), sizeof v4);
    if (inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1) return connect_to(reinterpret_cast<sockaddr*>(&v6), sizeof v6);
    std::fprintf(stderr, "AWS_LAMBDA_RUNTIME_API=%s: the host must be an IP address or localhost\n", address_.c_str());
    return false;
  }

  bool connect_to(const sockaddr* to, socklen_t size) {
    fd_ = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd_ < 0) return false;
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd_, to, size) == 0) return true;
    drop();
    return false;
  }

  bool read_more() {
    if (fd_ < 0) return false;
    if (filled_ == buffer_.size()) buffer_.resize(buffer_.size() * 2);
    for (;;) {
      const ssize_t count = recv(fd_, buffer_.data() + filled_, buffer_.size() - filled_, 0);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return false;
      filled_ += static_cast<std::size_t>(count);
      return true;
    }
  }

  Head parse_head(std::string_view text, Answer& answer) {
    Head head;
    answer = Answer{};
    if (text.size() > 12 && text.substr(0, 5) == "HTTP/") answer.status = std::atoi(std::string(text.substr(9, 3)).c_str());
    std::size_t at = text.find("\r\n");
    while (at != std::string_view::npos) {
      const std::size_t begin = at + 2;
      at = text.find("\r\n", begin);
      const std::string_view line = text.substr(begin, at == std::string_view::npos ? at : at - begin);
      const std::size_t colon = line.find(':');
      if (colon == std::string_view::npos) continue;
      std::string_view value = line.substr(colon + 1);
      while (!value.empty() && value.front() == ' ') value.remove_prefix(1);
      while (!value.empty() && value.back() == ' ') value.remove_suffix(1);
      take_header(line.substr(0, colon), value, head, answer.context);
    }
    return head;
  }

  static void take_header(std::string_view name, std::string_view value, Head& head, Context& context) {
    const auto is = [name](std::string_view other) {
      return name.size() == other.size() && strncasecmp(name.data(), other.data(), name.size()) == 0;
    };
    if (is("Content-Length")) head.length = std::strtoull(std::string(value).c_str(), nullptr, 10);
    else if (is("Transfer-Encoding")) head.chunked = value == "chunked";
    else if (is("Connection")) head.close = value == "close";
    else if (is("Lambda-Runtime-Aws-Request-Id")) context.request_id = value;
    else if (is("Lambda-Runtime-Deadline-Ms")) context.deadline_ms = std::strtoll(std::string(value).c_str(), nullptr, 10);
    else if (is("Lambda-Runtime-Invoked-Function-Arn")) context.function_arn = value;
    else if (is("Lambda-Runtime-Trace-Id")) context.trace_id = value;
    else if (is("Lambda-Runtime-Client-Context")) context.client_context = value;
    else if (is("Lambda-Runtime-Cognito-Identity")) context.cognito_identity = value;
    else if (is("Lambda-Runtime-Aws-Tenant-Id")) context.tenant_id = value;
  }

  bool read_chunked(std::size_t at, Answer& answer) {
    decoded_.clear();
    const auto find_line = [&](std::size_t from, std::size_t& end) {
      while ((end = std::string_view(buffer_.data(), filled_).find("\r\n", from)) == std::string_view::npos) {
        if (!read_more()) return false;
      }
      return true;
    };
    for (;;) {
      std::size_t end = 0;
      if (!find_line(at, end)) return false;
      const std::size_t size = std::strtoull(std::string(buffer_.data() + at, end - at).c_str(), nullptr, 16);
      at = end + 2;
      if (size == 0) break;
      while (filled_ < at + size + 2) {
        if (!read_more()) return false;
      }
      decoded_.append(buffer_.data() + at, size);
      at += size + 2;
    }
    for (std::size_t end = 0;; at = end + 2) {  // trailers, up to an empty line
      if (!find_line(at, end)) return false;
      if (end == at) break;
    }
    answer.body = decoded_;
    return true;
  }

  std::string address_;
  std::string buffer_;   // the answer being read, head and body
  std::string decoded_;  // body of a chunked answer
  std::size_t filled_ = 0;
  int fd_ = -1;
  bool close_later_ = false;
};

inline std::string error_json(std::string_view type, std::string_view message) {
  return "{\"errorMessage\":" + json_quote(message) + ",\"errorType\":" + json_quote(type) + ",\"stackTrace\":[]}";
}

inline std::string header_safe(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c < ' ' || c > '~') c = '?';
  }
  return out;
}

inline std::string base64(std::string_view data) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < data.size(); i += 3) {
    const std::size_t left = data.size() - i;
    std::uint32_t bits = static_cast<std::uint32_t>(static_cast<unsigned char>(data[i])) << 16U;
    if (left > 1) bits |= static_cast<std::uint32_t>(static_cast<unsigned char>(data[i + 1])) << 8U;
    if (left > 2) bits |= static_cast<unsigned char>(data[i + 2]);
    out += kDigits[bits >> 18U];
    out += kDigits[(bits >> 12U) & 63U];
    out += left > 1 ? kDigits[(bits >> 6U) & 63U] : '=';
    out += left > 2 ? kDigits[bits & 63U] : '=';
  }
  return out;
}

}  // namespace detail

namespace detail {

// How invocations come and answers go. One at a time.
class Channel {
 public:
  Channel() = default;
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  virtual ~Channel() = default;
  // Waits for an invocation; `answer.body` is valid until respond() or the next next(). False when the platform is gone.
  virtual bool next(Answer& answer) = 0;
  virtual bool respond(const Context& context, const Response& response) = 0;
  // A streamed response: begin once, then any number of pieces, then the end, with an error unless `error_type` is empty.
  virtual bool begin_stream(const Context& context, const std::string& content_type) = 0;
  virtual bool write_stream(std::string_view data) = 0;
  virtual bool end_stream(std::string_view error_type, std::string_view message) = 0;
  virtual bool report_init_error(std::string_view type, std::string_view message) = 0;
};

// The Runtime API.
class HttpChannel final : public Channel {
 public:
  explicit HttpChannel(const char* address)
      : connection_(address), common_(" HTTP/1.1\r\nHost: " + connection_.address() + "\r\nUser-Agent: mayfly-cpp\r\n"),
        next_("GET /2018-06-01/runtime/invocation/next" + common_ + "\r\n") {}

  bool next(Answer& answer) override {
    if (!connection_.exchange(next_, {}, answer)) return gone();
    if (answer.status == 200 && !answer.context.request_id.empty()) return true;
    std::fprintf(stderr, "the Runtime API answered %d to next\n", answer.status);
    return false;
  }

  bool respond(const Context& context, const Response& response) override {
    const bool failed = !response.error_type.empty();
    const std::string error = failed ? error_json(response.error_type, response.body) : std::string();
    const std::string_view body = failed ? std::string_view(error) : std::string_view(response.body);
    std::string head = "POST /2018-06-01/runtime/invocation/" + context.request_id + (failed ? "/error" : "/response") + common_ +
                       "Content-Type: " + header_safe(response.content_type) +
                       "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
    if (failed) head += "Lambda-Runtime-Function-Error-Type: " + header_safe(response.error_type) + "\r\n";
    head += "\r\n";
    Answer answer;
    if (!connection_.exchange(head, body, answer)) return gone();
    note(answer);
    return true;
  }

  bool begin_stream(const Context& context, const std::string& content_type) override {
    head_ = "POST /2018-06-01/runtime/invocation/" + context.request_id + "/response" + common_ +
            "Content-Type: " + header_safe(content_type) +
            "\r\nLambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n"
            "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n";
    return true;
  }

  bool write_stream(std::string_view data) override {
    char size[20];
    std::snprintf(size, sizeof size, "%zx\r\n", data.size());
    head_ += size;
    std::string body(data);
    body += "\r\n";
    const bool sent = connection_.send(head_, body);
    head_.clear();
    return sent;
  }

  bool end_stream(std::string_view error_type, std::string_view message) override {
    std::string end = std::move(head_);
    head_.clear();
    end += "0\r\n";
    if (!error_type.empty()) {
      end += "Lambda-Runtime-Function-Error-Type: " + header_safe(error_type) + "\r\n";
      end += "Lambda-Runtime-Function-Error-Body: " + base64(error_json(error_type, message)) + "\r\n";
    }
    end += "\r\n";
    Answer answer;
    if (!connection_.send(end, {}) || !connection_.receive(answer)) return gone();
    note(answer);
    return true;
  }

  bool report_init_error(std::string_view type, std::string_view message) override {
    const std::string body = error_json(type, message);
    const std::string head = "POST /2018-06-01/runtime/init/error" + common_ + "Content-Type: application/json\r\n" +
                             "Lambda-Runtime-Function-Error-Type: " + header_safe(type) +
                             "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n";
    Answer answer;
    return connection_.exchange(head, body, answer) && answer.status == 202;
  }

 private:
  // Says why run() ends; false, so that it can be returned.
  bool gone() const {
    std::fprintf(stderr, "the Runtime API at %s cannot be reached\n", connection_.address().c_str());
    return false;
  }

  static void note(const Answer& answer) {
    if (answer.status >= 300) {
      std::fprintf(stderr, "the Runtime API refused the response (HTTP %d): %.300s\n", answer.status, std::string(answer.body).c_str());
    }
  }

  Connection connection_;
  std::string common_;
  std::string next_;
  std::string head_;  // of a stream that has begun and not been sent
};

// Frames over the control pipes. Numbers are little-endian, as on every machine this is built for.
class PipeChannel final : public Channel {
 public:
  // Nothing where the platform gave no pipes, or a wrapper program has closed them.
  static std::unique_ptr<PipeChannel> open() {
    const char* numbers = std::getenv("_MAYFLY_CONTROL_FDS");
    int in = -1;
    int out = -1;
    if (numbers == nullptr || std::sscanf(numbers, "%d,%d", &in, &out) != 2) return nullptr;
    unsetenv("_MAYFLY_CONTROL_FDS");
    for (const int fd : {in, out}) {
      struct stat about {};
      if (fstat(fd, &about) != 0 || !S_ISFIFO(about.st_mode) || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return nullptr;
    }
    auto channel = std::unique_ptr<PipeChannel>(new PipeChannel(in, out));
    std::string hello = number(1) + number(0) + "mayfly-cpp/1";
    return channel->send(kHello, 0, hello) ? std::move(channel) : nullptr;
  }

  bool next(Answer& answer) override {
    if (!ready_ && !begin()) return gone();
    answer.context = Context{};
    for (Frame frame; read(frame);) {
      if (frame.type == kRefused) {
        std::fprintf(stderr, "the platform refused the response: %.300s\n", std::string(frame.body).c_str());
      } else if (frame.type == kInvoke && frame.body.size() >= kInvokeBytes) {
        run_ = frame.run;
        std::memcpy(&answer.context.deadline_ms, frame.body.data(), 8);
        std::size_t at = kInvokeBytes;
        std::string* const texts[] = {&answer.context.request_id, &answer.context.function_arn, &answer.context.trace_id,
                                      &answer.context.client_context, &answer.context.cognito_identity};
        for (std::size_t i = 0; i < 5; ++i) {
          const std::size_t size = number_at(frame.body, 8 + 4 * i);
          if (size > frame.body.size() - at) return gone();
          texts[i]->assign(frame.body.data() + at, size);
          at += size;
        }
        answer.body = frame.body.substr(at);
        return true;
      }
    }
    return gone();
  }

  bool respond(const Context&, const Response& response) override {
    if (response.error_type.empty()) return send(kResponse, run_, response.body) || gone();
    return send(kError, run_, error_body(response.error_type, response.body)) || gone();
  }

  bool begin_stream(const Context&, const std::string& content_type) override {
    credit_ = window_;
    refused_ = false;
    return send(kResponseBegin, run_, std::string_view(content_type).substr(0, 1024));
  }

  bool write_stream(std::string_view data) override {
    while (!data.empty() && !refused_) {
      if (credit_ == 0) {  // the caller has not taken what there is
        Frame frame;
        if (!read(frame)) return false;
        if (frame.type == kCredit && frame.run == run_ && frame.body.size() >= 4) credit_ += number_at(frame.body, 0);
        if (frame.type == kRefused && frame.run == run_) refused_ = true;
        continue;
      }
      const std::size_t size = data.size() < credit_ ? data.size() : credit_;
      if (!send(kChunk, run_, data.substr(0, size))) return false;
      credit_ -= static_cast<std::uint32_t>(size);
      data.remove_prefix(size);
    }
    return !refused_;
  }

  bool end_stream(std::string_view error_type, std::string_view message) override {
    return send(kEnd, run_, error_type.empty() ? std::string() : error_body(error_type, message)) || gone();
  }

  bool report_init_error(std::string_view type, std::string_view message) override {
    return send(kInitError, 0, error_body(type, message));
  }

 private:
  enum Type : std::uint32_t {
    kHello = 1, kReady, kInitError, kResponse, kError, kResponseBegin, kChunk, kEnd, kInit = 16, kInvoke, kCredit, kRefused
  };
  static constexpr std::size_t kHeadBytes = 12;
  static constexpr std::size_t kInvokeBytes = 28;  // in front of its texts
  struct Frame {
    std::uint32_t type = 0;
    std::uint32_t run = 0;
    std::string_view body;  // valid until the next read()
  };

  PipeChannel(int in, int out) : in_(in), out_(out) { buffer_.resize(64 * 1024); }

  static std::string number(std::uint32_t value) { return std::string(reinterpret_cast<const char*>(&value), sizeof value); }
  static std::uint32_t number_at(std::string_view bytes, std::size_t at) {
    std::uint32_t value = 0;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
  }
  static std::string error_body(std::string_view type, std::string_view message) {
    type = type.substr(0, 1024);
    return number(static_cast<std::uint32_t>(type.size())) + std::string(type) + error_json(type, message);
  }

  // INIT's terms, then READY: the program's own init has ended.
  bool begin() {
    Frame frame;
    if (!read(frame) || frame.type != kInit || frame.body.size() < 16) return false;
    window_ = number_at(frame.body, 12);
    ready_ = send(kReady, 0, {});
    return ready_;
  }

  bool gone() const {
    std::fputs("the platform cannot be understood, or has closed the control pipes\n", stderr);
    return false;
  }

  bool read(Frame& frame) {
    std::memmove(&buffer_[0], buffer_.data() + used_, filled_ - used_);
    filled_ -= used_;
    used_ = 0;
    std::size_t wanted = kHeadBytes;
    while (true) {
      if (filled_ >= kHeadBytes) wanted = kHeadBytes + number_at(buffer_, 0);
      if (filled_ >= wanted) break;
      if (buffer_.size() < wanted) buffer_.resize(wanted);
      const ssize_t count = ::read(in_, &buffer_[filled_], buffer_.size() - filled_);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return false;
      filled_ += static_cast<std::size_t>(count);
    }
    frame.type = number_at(buffer_, 4);
    frame.run = number_at(buffer_, 8);
    frame.body = std::string_view(buffer_).substr(kHeadBytes, wanted - kHeadBytes);
    used_ = wanted;
    return true;
  }

  bool send(std::uint32_t type, std::uint32_t run, std::string_view body) {
    std::uint32_t head[3] = {static_cast<std::uint32_t>(body.size()), type, run};
    iovec parts[2] = {{head, sizeof head}, {const_cast<char*>(body.data()), body.size()}};
    iovec* at = parts;
    int count = body.empty() ? 1 : 2;
    while (count > 0) {
      const ssize_t sent = writev(out_, at, count);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0) return false;
      auto left = static_cast<std::size_t>(sent);
      while (count > 0 && left >= at->iov_len) {
        left -= at->iov_len;
        ++at;
        --count;
      }
      if (count > 0) {
        at->iov_base = static_cast<char*>(at->iov_base) + left;
        at->iov_len -= left;
      }
    }
    return true;
  }

  const int in_, out_;
  std::string buffer_;        // the frame being read, and what came with it
  std::size_t filled_ = 0, used_ = 0;
  std::uint32_t run_ = 0;     // of the invocation that runs
  std::uint32_t window_ = 0;  // a stream's credit at its beginning
  std::uint32_t credit_ = 0;
  bool ready_ = false, refused_ = false;
};

}  // namespace detail

// Where a streaming handler writes. The response begins with the first write (or when the handler returns).
class Stream {
 public:
  Stream(detail::Channel& channel, const Context& context) : channel_(channel), context_(context) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Before the first write only; false afterwards. The default is application/octet-stream.
  bool set_content_type(std::string type) {
    if (begun_) return false;
    content_type_ = std::move(type);
    return true;
  }

  // For function URLs: status and headers as JSON {"statusCode":..,"headers":{..},"cookies":[..]}, before the first write.
  bool set_http_prelude(std::string_view json) {
    return set_content_type("application/vnd.awslambda.http-integration-response") && write(std::string(json) + std::string(8, '\0'));
  }

  // Sends `data` now and waits while the platform does not take it. False when the platform no longer listens.
  bool write(std::string_view data) {
    if (broken_) return false;
    if (data.empty()) return true;
    broken_ = !begin() || !channel_.write_stream(data);
    return !broken_;
  }

  bool begun() const { return begun_; }

  // For run_streaming: ends the response, with an error unless `error_type` is empty. False when the platform is gone.
  bool finish(std::string_view error_type, std::string_view message) { return begin() && channel_.end_stream(error_type, message); }

 private:
  bool begin() {
    if (begun_) return true;
    begun_ = true;
    return channel_.begin_stream(context_, content_type_);
  }

  detail::Channel& channel_;
  const Context& context_;
  std::string content_type_ = "application/octet-stream";
  bool begun_ = false;
  bool broken_ = false;
};

namespace detail {

template <class Call>
std::optional<Response> guarded(Call&& call) {  // the failure when `call` threw
#if defined(__cpp_exceptions)
  try {
    call();
    return std::nullopt;
  } catch (const std::exception& error) {
    return Response::failure("std::exception", error.what());
  } catch (...) {
    return Response::failure("UnknownException", "the handler threw something that is not a std::exception");
  }
#else
  call();
  return std::nullopt;
#endif
}

inline std::unique_ptr<Channel> open_channel() {
  if (auto pipes = PipeChannel::open()) return pipes;
  const char* address = std::getenv("AWS_LAMBDA_RUNTIME_API");
  if (address != nullptr) return std::unique_ptr<Channel>(new HttpChannel(address));
  std::fputs("AWS_LAMBDA_RUNTIME_API is not set: this program runs inside a Lambda environment, which names the Runtime API there\n", stderr);
  return nullptr;
}

inline void log_failure(const Context& context, const Response& failure) {
  std::fprintf(stderr, "[ERROR] RequestId: %s %s: %s\n", context.request_id.c_str(), failure.error_type.c_str(), failure.body.c_str());
}

// _X_AMZN_TRACE_ID, for tracing libraries. The C library keeps every value that setenv() ever saw, so a process would grow with each
// invocation: values are written over each other instead, in an entry that stays in the environment.
inline void set_trace(const Context& context) {
  constexpr std::string_view kName = "_X_AMZN_TRACE_ID";
  static char entry[1024] = "_X_AMZN_TRACE_ID=";
  char* const value = entry + kName.size() + 1;
  const std::string& trace = context.trace_id;
  if (trace.empty()) {
    unsetenv(kName.data());
  } else if (trace.size() >= sizeof entry - kName.size() - 1) {
    setenv(kName.data(), trace.c_str(), 1);
  } else {
    std::memcpy(value, trace.c_str(), trace.size() + 1);
    if (std::getenv(kName.data()) != value) putenv(entry);
  }
}

}  // namespace detail

// Tells the platform that the function cannot start; call it before run() and then end the program.
inline bool report_init_error(std::string_view type, std::string_view message) {
  const auto channel = detail::open_channel();
  return channel != nullptr && channel->report_init_error(type, message);
}

// Serves invocations with `handler`: Response(const Request&, const Context&). Returns 1 when the platform is gone.
template <class Handler>
int run(Handler&& handler) {
  const auto channel = detail::open_channel();
  detail::Answer answer;
  while (channel != nullptr && channel->next(answer)) {
    const Context context = std::move(answer.context);
    detail::set_trace(context);
    Response response;
    auto thrown = detail::guarded([&] { response = handler(Request{answer.body}, context); });
    if (thrown) response = std::move(*thrown);
    if (!response.error_type.empty()) detail::log_failure(context, response);
    std::fflush(nullptr);
    if (!channel->respond(context, response)) break;
  }
  return 1;
}

// Serves invocations with `handler`: Response(const Request&, const Context&, Stream&), whose result matters only when it is a failure.
template <class Handler>
int run_streaming(Handler&& handler) {
  const auto channel = detail::open_channel();
  detail::Answer answer;
  while (channel != nullptr && channel->next(answer)) {
    const Context context = std::move(answer.context);
    detail::set_trace(context);
    const std::string event(answer.body);  // the channel's buffer is needed for the answer
    Stream stream(*channel, context);
    Response result;
    auto thrown = detail::guarded([&] { result = handler(Request{event}, context, stream); });
    if (thrown) result = std::move(*thrown);
    if (!result.error_type.empty()) detail::log_failure(context, result);
    std::fflush(nullptr);
    const bool failed_before = !result.error_type.empty() && !stream.begun();
    if (!(failed_before ? channel->respond(context, result) : stream.finish(result.error_type, result.body))) break;
  }
  return 1;
}

}  // namespace mayfly
