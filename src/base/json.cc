#include "base/json.h"

#include <boost/json.hpp>
#include <boost/json/basic_parser_impl.hpp>

namespace mayfly::base {
namespace {

namespace json = boost::json;

// Accepts every event and keeps nothing: only grammar and limits are checked.
struct NullHandler {
  static constexpr std::size_t max_array_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_object_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_string_size = static_cast<std::size_t>(-1);
  static constexpr std::size_t max_key_size = static_cast<std::size_t>(-1);
  using error_code = json::error_code;
  using string_view = json::string_view;
  static bool on_document_begin(error_code&) { return true; }
  static bool on_document_end(error_code&) { return true; }
  static bool on_object_begin(error_code&) { return true; }
  static bool on_object_end(std::size_t, error_code&) { return true; }
  static bool on_array_begin(error_code&) { return true; }
  static bool on_array_end(std::size_t, error_code&) { return true; }
  static bool on_key_part(string_view, std::size_t, error_code&) { return true; }
  static bool on_key(string_view, std::size_t, error_code&) { return true; }
  static bool on_string_part(string_view, std::size_t, error_code&) { return true; }
  static bool on_string(string_view, std::size_t, error_code&) { return true; }
  static bool on_number_part(string_view, error_code&) { return true; }
  static bool on_int64(std::int64_t, string_view, error_code&) { return true; }
  static bool on_uint64(std::uint64_t, string_view, error_code&) { return true; }
  static bool on_double(double, string_view, error_code&) { return true; }
  static bool on_bool(bool, error_code&) { return true; }
  static bool on_null(error_code&) { return true; }
  static bool on_comment_part(string_view, error_code&) { return true; }
  static bool on_comment(string_view, error_code&) { return true; }
};

json::parse_options options_for(JsonLimits limits) {
  json::parse_options options;
  options.max_depth = limits.depth_max;
  return options;
}

Error parse_failure(const json::error_code& ec, std::size_t offset) {
  return Error(ErrorCode::kInvalidArgument, "invalid JSON at byte " + std::to_string(offset) + ": " + ec.message());
}

Result<void> check_size(std::string_view text, JsonLimits limits) {
  if (text.size() <= limits.bytes_max) return {};
  return Error(ErrorCode::kTooLarge,
               "the JSON text has " + std::to_string(text.size()) + " bytes; the limit is " + std::to_string(limits.bytes_max));
}

// The event handler of Boost.JSON's DOM parser keeps the last of two equal keys and shrinks the object; this one walks
// the text again only when that could have happened, so the common case costs nothing more.
struct KeyCounter : NullHandler {
  std::size_t keys = 0;
  bool on_key(string_view, std::size_t, error_code&) {
    ++keys;
    return true;
  }
};

std::size_t count_keys(const json::value& value) {
  std::size_t keys = 0;
  if (const auto* object = value.if_object()) {
    keys = object->size();
    for (const auto& member : *object) keys += count_keys(member.value());
  } else if (const auto* array = value.if_array()) {
    for (const auto& element : *array) keys += count_keys(element);
  }
  return keys;
}

}  // namespace

Result<json::value> parse_json(std::string_view text, JsonLimits limits) {
  MAYFLY_TRY(check_size(text, limits));
  json::error_code ec;
  json::stream_parser parser({}, options_for(limits));
  const std::size_t used = parser.write(text.data(), text.size(), ec);
  if (!ec) parser.finish(ec);
  if (ec) return parse_failure(ec, used);
  json::value value = parser.release();
  json::basic_parser<KeyCounter> counter(options_for(limits));
  counter.write_some(false, text.data(), text.size(), ec);
  if (counter.handler().keys != count_keys(value))
    return Error(ErrorCode::kInvalidArgument, "invalid JSON: an object has the same key twice");
  return value;
}

Result<void> check_json(std::string_view text, JsonLimits limits) {
  MAYFLY_TRY(check_size(text, limits));
  json::error_code ec;
  json::basic_parser<NullHandler> parser(options_for(limits));
  const std::size_t used = parser.write_some(false, text.data(), text.size(), ec);  // also skips the white space that follows
  if (ec) return parse_failure(ec, used);
  if (!parser.done()) return parse_failure(json::make_error_code(json::error::incomplete), used);
  for (std::size_t i = used; i < text.size(); ++i) {
    if (std::string_view(" \t\r\n").find(text[i]) == std::string_view::npos)
      return parse_failure(json::make_error_code(json::error::extra_data), i);
  }
  return {};
}

namespace {
void pretty_into(const json::value& value, std::string& indent, std::string& out) {
  if (const auto* object = value.if_object(); object != nullptr && !object->empty()) {
    out += "{\n";
    indent += "  ";
    bool first = true;
    for (const auto& member : *object) {
      if (!first) out += ",\n";
      first = false;
      out += indent + json::serialize(json::string(member.key())) + ": ";
      pretty_into(member.value(), indent, out);
    }
    indent.resize(indent.size() - 2);
    out += "\n" + indent + "}";
  } else if (const auto* array = value.if_array(); array != nullptr && !array->empty()) {
    out += "[\n";
    indent += "  ";
    bool first = true;
    for (const auto& element : *array) {
      if (!first) out += ",\n";
      first = false;
      out += indent;
      pretty_into(element, indent, out);
    }
    indent.resize(indent.size() - 2);
    out += "\n" + indent + "]";
  } else {
    out += json::serialize(value);
  }
}
}  // namespace

std::string pretty_json(const json::value& value) {
  std::string indent;
  std::string out;
  pretty_into(value, indent, out);
  out += '\n';
  return out;
}

namespace {
// Length of the valid UTF-8 sequence at `at`, 0 if there is none.
std::size_t sequence_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0U; };
  const auto follows = [&](std::size_t i) { return (byte(i) & 0xC0U) == 0x80U; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return follows(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    const bool overlong = lead == 0xE0 && byte(1) < 0xA0;
    const bool surrogate = lead == 0xED && byte(1) > 0x9F;
    return follows(1) && follows(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const bool overlong = lead == 0xF0 && byte(1) < 0x90;
    const bool too_large = lead == 0xF4 && byte(1) > 0x8F;
    return follows(1) && follows(2) && follows(3) && !overlong && !too_large ? 4 : 0;
  }
  return 0;
}
}  // namespace

std::string valid_utf8(std::string text) {
  unsigned beyond_ascii = 0;  // all bytes, without a branch for each: the compiler makes it vectors
  for (const char c : text) beyond_ascii |= static_cast<unsigned char>(c) & 0x80U;
  if (beyond_ascii == 0) return text;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t length = sequence_length(text, at);
    if (length == 0) break;
    at += length;
  }
  if (at == text.size()) return text;  // the common case costs no copy
  std::string out = text.substr(0, at);
  while (at < text.size()) {
    const std::size_t length = sequence_length(text, at);
    out += length == 0 ? std::string_view("\xEF\xBF\xBD") : std::string_view(text).substr(at, length);
    at += length == 0 ? 1 : length;
  }
  return out;
}

std::string json_quote(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  unsigned special = 0;
  for (const char c : text) {
    special |=
        static_cast<unsigned>(static_cast<unsigned char>(c) < 0x20) | static_cast<unsigned>(c == '"') | static_cast<unsigned>(c == '\\');
  }
  std::string out;
  out.reserve(text.size() + 2);
  out += '"';
  if (special == 0) return out.append(text) += '"';
  std::size_t plain = 0;  // begin of what needs no escape
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte >= 0x20 && byte != '"' && byte != '\\') continue;
    out.append(text.substr(plain, i - plain));
    plain = i + 1;
    out += '\\';
    switch (text[i]) {
      case '"':
      case '\\':
        out += text[i];
        break;
      case '\b':
        out += 'b';
        break;
      case '\f':
        out += 'f';
        break;
      case '\n':
        out += 'n';
        break;
      case '\r':
        out += 'r';
        break;
      case '\t':
        out += 't';
        break;
      default:
        out.append("u00");
        out += kHex[byte >> 4U];
        out += kHex[byte & 15U];
    }
  }
  out.append(text.substr(plain));
  return out += '"';
}

}  // namespace mayfly::base
