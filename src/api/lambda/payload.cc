#include "api/lambda/payload.h"

#include <cctype>
#include <cstdint>
#include <optional>

#include "base/bytes.h"
#include "base/json.h"
#include "engine/function.h"

namespace mayfly::api::lambda {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::size_t kDepthMax = 1000;  // Jackson's
constexpr std::string_view kExpected = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')";

Error invalid_content(std::string message) {
  return Error(ErrorCode::kInvalidArgument, std::move(message), "InvalidRequestContentException");
}

// Walks text that the parser refused until it meets what is wrong. `at_` is where Jackson's read position stands.
class Diagnosis {
 public:
  explicit Diagnosis(std::string_view text) : text_(text) {
    value(0);
    if (failed()) return;
    skip_space();
    if (!ended()) unexpected("Expected end of input: more text follows the JSON value");
  }

  // Half a surrogate pair as an escape ("\ud800") is JSON by its grammar (RFC 8259, section 8.2), and Jackson, Python and
  // JavaScript all take it; Boost.JSON does not. Nothing else may be wrong.
  [[nodiscard]] bool only_lone_surrogates() const {
    return !failed() && surrogate_escape_ && base::valid_utf8(std::string(text_)) == text_;
  }

  // The complaint and its place, such as "Unexpected character ('}' (code 125)): ...\n at [Source: ...; line: 1, column: 3]".
  [[nodiscard]] std::string complaint() const {
    return (failed() ? problem_ : std::string("The text is not valid JSON")) +
           "\n at [Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: " + std::to_string(line_) +
           ", column: " + std::to_string(place_ - line_start_ + 1) + "]";
  }

 private:
  bool ended() const { return at_ >= text_.size(); }
  bool failed() const { return !problem_.empty(); }
  void report(std::string problem) {
    if (failed()) return;
    problem_ = std::move(problem);
    place_ = at_;
  }

  // A character Jackson cannot use here; it points at the character itself.
  void unexpected(const std::string& wanted) {
    const auto c = static_cast<unsigned char>(text_[at_]);
    std::string shown;
    if (c < 0x20 || c >= 0x7f) {
      shown = "(CTRL-CHAR, code " + std::to_string(c) + ")";
    } else {
      shown = std::string("'") + static_cast<char>(c) + "' (code " + std::to_string(c) + ")";
    }
    report("Unexpected character (" + shown + "): " + wanted);
  }

  void skip_space() {
    while (!ended() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\r' || text_[at_] == '\n')) {
      if (text_[at_++] == '\n') {
        ++line_;
        line_start_ = at_;
      }
    }
  }

  void value(std::size_t depth) {
    skip_space();
    if (failed()) return;
    if (depth > kDepthMax)
      return report("Document nesting depth (" + std::to_string(depth) + ") exceeds the maximum allowed (" + std::to_string(kDepthMax) +
                    ")");
    if (ended()) return report("Unexpected end-of-input");
    const char c = text_[at_];
    if (c == '{') return object(depth);
    if (c == '[') return array(depth);
    if (c == '"') return string();
    if (c == '-' || std::isdigit(static_cast<unsigned char>(c)) != 0) return number();
    if (std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '$') return token();
    unexpected("expected a valid value " + std::string(kExpected));
  }

  void end_in(const char* what) { report(std::string("Unexpected end-of-input: expected close marker for ") + what); }

  void object(std::size_t depth) {
    ++at_;
    skip_space();
    if (!ended() && text_[at_] == '}') return void(++at_);
    while (!failed()) {
      skip_space();
      if (ended()) return end_in("Object");
      if (text_[at_] != '"') return unexpected("was expecting double-quote to start field name");
      string();
      skip_space();
      if (failed()) return;
      if (ended()) return end_in("Object");
      if (text_[at_] != ':') return unexpected("was expecting a colon to separate field name and value");
      ++at_;
      value(depth + 1);
      if (!more('}', "Object")) return;
    }
  }

  void array(std::size_t depth) {
    ++at_;
    skip_space();
    if (!ended() && text_[at_] == ']') return void(++at_);
    while (!failed()) {
      value(depth + 1);
      if (!more(']', "Array")) return;
    }
  }

  // After an entry: true when another one follows.
  bool more(char close, const char* what) {
    if (failed()) return false;
    skip_space();
    if (ended()) {
      end_in(what);
      return false;
    }
    const char c = text_[at_];
    if (c == close) {
      ++at_;
      return false;
    }
    if (c != ',') {
      unexpected(std::string("was expecting comma to separate ") + what + " entries");
      return false;
    }
    ++at_;
    return true;
  }

  void string() {
    ++at_;
    while (!ended()) {
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (c == '"') return void(++at_);
      if (c < 0x20) {
        return report("Illegal unquoted character ((CTRL-CHAR, code " + std::to_string(c) +
                      ")): has to be escaped using backslash to be included in string value");
      }
      if (c == '\\') {
        if (!escape()) break;
      } else if (c >= 0x80) {
        if (!multibyte()) break;
      } else {
        ++at_;
      }
    }
    report("Unexpected end-of-input in VALUE_STRING");
  }

  // Here and below, false is the end of the text or a problem that is reported.
  bool escape() {
    ++at_;
    if (ended()) return false;
    const char c = text_[at_];
    if (std::string_view("\"\\/bfnrt").find(c) != std::string_view::npos) {
      ++at_;
      return true;
    }
    if (c != 'u') {
      report(std::string("Unrecognized character escape '") + c + "' (code " + std::to_string(static_cast<unsigned char>(c)) + ")");
      return false;
    }
    ++at_;
    surrogate_escape_ = surrogate_escape_ || is_surrogate(text_.substr(at_, 4));
    for (int i = 0; i < 4; ++i, ++at_) {
      if (!ended() && std::isxdigit(static_cast<unsigned char>(text_[at_])) != 0) continue;
      if (!ended()) unexpected("expected a hex-digit for character escape sequence");
      return false;
    }
    return true;
  }

  // d800 to dfff.
  static bool is_surrogate(std::string_view hex) {
    return hex.size() == 4 && (hex[0] | 0x20) == 'd' &&
           (hex[1] == '8' || hex[1] == '9' || std::isalpha(static_cast<unsigned char>(hex[1])) != 0);
  }

  // One character of several bytes. Jackson's read position is past a byte it complains about.
  bool multibyte() {
    const auto lead = static_cast<unsigned char>(text_[at_++]);
    const int more = lead >= 0xc0 && lead < 0xe0 ? 1 : lead >= 0xe0 && lead < 0xf0 ? 2 : lead >= 0xf0 && lead < 0xf8 ? 3 : 0;
    if (more == 0) {
      report("Invalid UTF-8 start byte 0x" + base::hex_encode({&lead, 1}));
      return false;
    }
    for (int i = 0; i < more; ++i) {
      if (ended()) return false;
      const auto next = static_cast<std::uint8_t>(text_[at_++]);
      if ((next & 0xc0U) == 0x80U) continue;
      report("Invalid UTF-8 middle byte 0x" + base::hex_encode({&next, 1}));
      return false;
    }
    return true;
  }

  void number() {
    if (text_[at_] == '-') ++at_;
    const std::size_t first = at_;
    digits();
    if (at_ == first)
      return ended() ? report("Unexpected end-of-input") : unexpected("expected digit (0-9) to follow minus sign, for valid numeric value");
    if (text_[first] == '0' && at_ - first > 1) return report("Invalid numeric value: Leading zeroes not allowed");
    if (!ended() && text_[at_] == '.') {
      ++at_;
      const std::size_t fraction = at_;
      digits();
      if (at_ == fraction) return ended() ? report("Unexpected end-of-input") : unexpected("Decimal point not followed by a digit");
    }
    if (!ended() && (text_[at_] == 'e' || text_[at_] == 'E')) {
      ++at_;
      if (!ended() && (text_[at_] == '+' || text_[at_] == '-')) ++at_;
      const std::size_t exponent = at_;
      digits();
      if (at_ == exponent) return ended() ? report("Unexpected end-of-input") : unexpected("Exponent indicator not followed by a digit");
    }
    if (!ended() && (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0)) unexpected("Expected space separating root-level values");
  }
  void digits() {
    while (!ended() && std::isdigit(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
  }

  void token() {
    const std::size_t first = at_;
    while (!ended()) {
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (c >= 0x80) {
        if (!multibyte()) break;
      } else if (std::isalnum(c) != 0 || c == '_' || c == '$') {
        ++at_;
      } else {
        break;
      }
    }
    const std::string_view word = text_.substr(first, at_ - first);
    if (word == "null" || word == "true" || word == "false") return;
    report("Unrecognized token '" + std::string(word.substr(0, 256)) + "': was expecting " + std::string(kExpected));
  }

  std::string_view text_;
  std::size_t at_ = 0, place_ = 0, line_start_ = 0;
  std::size_t line_ = 1;
  bool surrogate_escape_ = false;
  std::string problem_;
};

}  // namespace

Result<void> check_payload_json(std::string_view payload) {
  if (base::check_json(payload, {.depth_max = kDepthMax, .bytes_max = payload.size()}).ok()) return {};
  const Diagnosis diagnosis(payload);
  if (diagnosis.only_lone_surrogates()) return {};
  return invalid_content("Could not parse request body into json: Could not parse payload into json: " + diagnosis.complaint());
}

Result<std::string> decode_client_context(std::string_view header) {
  if (header.empty()) return std::string();
  if (header.size() > engine::Limits::kClientContextBytesMax) {
    return invalid_content("Client context must be at most " + std::to_string(engine::Limits::kClientContextBytesMax) +
                           " bytes of base64; it has " + std::to_string(header.size()));
  }
  auto decoded = base::base64_decode(header);
  if (!decoded.ok()) return invalid_content("Client context must be a valid Base64-encoded JSON object: " + decoded.error().message());
  const auto checked = base::check_json(*decoded);
  if (!checked.ok() || decoded->find('{') == std::string::npos)
    return invalid_content("Client context must be a valid Base64-encoded JSON object.");
  return *std::move(decoded);
}

}  // namespace mayfly::api::lambda
