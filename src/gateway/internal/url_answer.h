// What a function's answer means as an HTTP response of its URL ("Response payload format" in the Lambda guide), and the prelude
// with which a streamed answer states its status and headers.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "net/http.h"

namespace mayfly::gateway {

// An object with "statusCode" is the response itself (headers, cookies, body, isBase64Encoded); any other JSON is its body, a string
// as its text. What is no JSON is passed on as bytes; so is what a streaming function says to a buffered URL, whose prelude counts.
// An error (kFunctionFailed) says what is wrong with the answer.
[[nodiscard]] base::Result<net::Response> read_answer(std::string payload);

// Status, headers and cookies of a streamed answer, read as its bytes come: JSON, then eight NUL bytes, then the body.
class PreludeReader {
 public:
  static constexpr std::size_t kBytesMax = 64U << 10U;  // as much as a whole head that this server takes

  // Takes the next bytes of the stream. False: more are needed. True: response() is complete and `rest` is what
  // follows the prelude. Not to be called again after true or an error.
  [[nodiscard]] base::Result<bool> feed(std::string_view bytes, std::string& rest);
  // Its body stays empty.
  [[nodiscard]] const net::Response& response() const { return response_; }

 private:
  std::string text_;
  net::Response response_;
};

// The content type that announces a prelude.
inline constexpr std::string_view kPreludeType = "application/vnd.awslambda.http-integration-response";

}  // namespace mayfly::gateway
