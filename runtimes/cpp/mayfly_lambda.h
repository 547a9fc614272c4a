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
// Shape:   run() speaks the Lambda Runtime API (2018-06-01) over one kept connection: one write and, for common sizes, one read per
//          exchange. run_streaming() hands out a Stream whose bytes reach the caller as they are written.
// Errors:  a Response::failure or an exception out of the handler becomes the function's error {errorType, errorMessage, stackTrace}.
//          run() returns 1 when the Runtime API cannot be reached or understood; otherwise it never returns.
// Threads: the handler runs on the thread that called run(); a Stream belongs to that thread.
// Source:  https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
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

// Where a streaming handler writes. The response begins with the first write (or when the handler returns).
class Stream {
 public:
  Stream(detail::Connection& connection, std::string request_id) : connection_(connection), request_id_(std::move(request_id)) {}
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
    char size[20];
    std::snprintf(size, sizeof size, "%zx\r\n", data.size());
    std::string head = begin() + size;
    std::string body(data);
    body += "\r\n";
    broken_ = !connection_.send(head, body);
    return !broken_;
  }

  bool begun() const { return begun_; }

  // For run_streaming: ends the response, with an error in its trailers unless `error_type` is empty.
  bool finish(std::string_view error_type, std::string_view message, detail::Answer& answer) {
    if (broken_) return false;
    std::string end = begin() + "0\r\n";
    if (!error_type.empty()) {
      end += "Lambda-Runtime-Function-Error-Type: " + detail::header_safe(error_type) + "\r\n";
      end += "Lambda-Runtime-Function-Error-Body: " + detail::base64(detail::error_json(error_type, message)) + "\r\n";
    }
    end += "\r\n";
    return connection_.send(end, {}) && connection_.receive(answer);
  }

 private:
  std::string begin() {
    if (begun_) return {};
    begun_ = true;
    return "POST /2018-06-01/runtime/invocation/" + request_id_ + "/response HTTP/1.1\r\nHost: " + connection_.address() +
           "\r\nUser-Agent: mayfly-cpp\r\nContent-Type: " + detail::header_safe(content_type_) +
           "\r\nLambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n"
           "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n";
  }

  detail::Connection& connection_;
  std::string request_id_;
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

class Loop {
 public:
  explicit Loop(const char* address)
      : connection_(address), common_(" HTTP/1.1\r\nHost: " + connection_.address() + "\r\nUser-Agent: mayfly-cpp\r\n"),
        next_("GET /2018-06-01/runtime/invocation/next" + common_ + "\r\n") {}

  Connection& connection() { return connection_; }

  bool next(Answer& answer) {
    if (!connection_.exchange(next_, {}, answer)) return gone();
    if (answer.status != 200 || answer.context.request_id.empty()) {
      std::fprintf(stderr, "the Runtime API answered %d to next\n", answer.status);
      return false;
    }
    if (answer.context.trace_id.empty()) unsetenv("_X_AMZN_TRACE_ID");
    else setenv("_X_AMZN_TRACE_ID", answer.context.trace_id.c_str(), 1);
    return true;
  }

  bool post(const std::string& request_id, const Response& response) {
    const bool failed = !response.error_type.empty();
    const std::string error = failed ? error_json(response.error_type, response.body) : std::string();
    const std::string_view body = failed ? std::string_view(error) : std::string_view(response.body);
    std::string head = "POST /2018-06-01/runtime/invocation/" + request_id + (failed ? "/error" : "/response") + common_ +
                       "Content-Type: " + header_safe(response.content_type) +
                       "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
    if (failed) head += "Lambda-Runtime-Function-Error-Type: " + header_safe(response.error_type) + "\r\n";
    head += "\r\n";
    Answer answer;
    if (!connection_.exchange(head, body, answer)) return gone();
    note(answer);
    return true;
  }

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

  static void log_failure(const Context& context, const Response& failure) {
    std::fprintf(stderr, "[ERROR] RequestId: %s %s: %s\n", context.request_id.c_str(), failure.error_type.c_str(), failure.body.c_str());
  }

 private:
  Connection connection_;
  std::string common_;
  std::string next_;
};

inline const char* api_address() {
  const char* address = std::getenv("AWS_LAMBDA_RUNTIME_API");
  if (address == nullptr) {
    std::fputs("AWS_LAMBDA_RUNTIME_API is not set: this program runs inside a Lambda environment, which names the Runtime API there\n",
               stderr);
  }
  return address;
}

}  // namespace detail

// Tells the platform that the function cannot start; call it before run() and then end the program.
inline bool report_init_error(std::string_view type, std::string_view message) {
  const char* address = detail::api_address();
  if (address == nullptr) return false;
  detail::Connection connection(address);
  const std::string body = detail::error_json(type, message);
  const std::string head = "POST /2018-06-01/runtime/init/error HTTP/1.1\r\nHost: " + connection.address() +
                           "\r\nContent-Type: application/json\r\nLambda-Runtime-Function-Error-Type: " + detail::header_safe(type) +
                           "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n";
  detail::Answer answer;
  return connection.exchange(head, body, answer) && answer.status == 202;
}

// Serves invocations with `handler`: Response(const Request&, const Context&). Returns 1 when the platform is gone.
template <class Handler>
int run(Handler&& handler) {
  const char* address = detail::api_address();
  if (address == nullptr) return 1;
  detail::Loop loop(address);
  detail::Answer answer;
  while (loop.next(answer)) {
    const Context context = std::move(answer.context);
    Response response;
    auto thrown = detail::guarded([&] { response = handler(Request{answer.body}, context); });
    if (thrown) response = std::move(*thrown);
    if (!response.error_type.empty()) detail::Loop::log_failure(context, response);
    std::fflush(nullptr);
    if (!loop.post(context.request_id, response)) break;
  }
  return 1;
}

// Serves invocations with `handler`: Response(const Request&, const Context&, Stream&), whose result matters only when it is a failure.
template <class Handler>
int run_streaming(Handler&& handler) {
  const char* address = detail::api_address();
  if (address == nullptr) return 1;
  detail::Loop loop(address);
  detail::Answer answer;
  while (loop.next(answer)) {
    const Context context = std::move(answer.context);
    const std::string event(answer.body);  // the connection's buffer is needed for the answer
    Stream stream(loop.connection(), context.request_id);
    Response result;
    auto thrown = detail::guarded([&] { result = handler(Request{event}, context, stream); });
    if (thrown) result = std::move(*thrown);
    if (!result.error_type.empty()) detail::Loop::log_failure(context, result);
    std::fflush(nullptr);
    if (!result.error_type.empty() && !stream.begun()) {
      if (!loop.post(context.request_id, result)) break;
      continue;
    }
    if (!stream.finish(result.error_type, result.body, answer) && !loop.gone()) break;
    detail::Loop::note(answer);
  }
  return 1;
}

}  // namespace mayfly
