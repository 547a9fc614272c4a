#include "api/s3/xml.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/json.h"

namespace mayfly::api::s3 {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80; }
bool is_name(char c) { return is_name_start(c) || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == ':'; }

void append_utf8(std::string& out, std::uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0U | code >> 6U);
    out += static_cast<char>(0x80U | (code & 0x3FU));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0U | code >> 12U);
    out += static_cast<char>(0x80U | (code >> 6U & 0x3FU));
    out += static_cast<char>(0x80U | (code & 0x3FU));
  } else {
    out += static_cast<char>(0xF0U | code >> 18U);
    out += static_cast<char>(0x80U | (code >> 12U & 0x3FU));
    out += static_cast<char>(0x80U | (code >> 6U & 0x3FU));
    out += static_cast<char>(0x80U | (code & 0x3FU));
  }
}

std::string_view local_name(std::string_view name) {
  const std::size_t colon = name.rfind(':');
  return colon == std::string_view::npos ? name : name.substr(colon + 1);
}

class Reader {
 public:
  Reader(std::string_view document, XmlLimits limits) : rest_(document), limits_(limits) {}

  // nullopt: not a document.
  std::optional<XmlElement> read() {
    if (rest_.starts_with("\xEF\xBB\xBF")) rest_.remove_prefix(3);
    if (rest_.starts_with("<?xml") && rest_.size() > 5 && is_space(rest_[5]) && !skip_past("?>")) return std::nullopt;
    XmlElement root;
    if (!skip_between() || !read_element(root, 1) || !skip_between() || !rest_.empty()) return std::nullopt;
    return root;
  }

 private:
  bool skip_past(std::string_view mark) {
    const std::size_t found = rest_.find(mark);
    if (found == std::string_view::npos) return false;
    rest_.remove_prefix(found + mark.size());
    return true;
  }
  void skip_spaces() {
    while (!rest_.empty() && is_space(rest_.front())) rest_.remove_prefix(1);
  }
  bool skip_comment() {
    rest_.remove_prefix(4);
    const std::size_t dashes = rest_.find("--");
    if (dashes == std::string_view::npos || !rest_.substr(dashes).starts_with("-->")) return false;
    rest_.remove_prefix(dashes + 3);
    return true;
  }
  // Blanks and comments around the root.
  bool skip_between() {
    while (true) {
      skip_spaces();
      if (!rest_.starts_with("<!--")) return true;
      if (!skip_comment()) return false;
    }
  }
  bool take(std::string_view expected) {
    if (!rest_.starts_with(expected)) return false;
    rest_.remove_prefix(expected.size());
    return true;
  }
  std::string_view take_name() {
    std::size_t end = 0;
    if (rest_.empty() || !is_name_start(rest_.front())) return {};
    while (end < rest_.size() && is_name(rest_[end])) ++end;
    const std::string_view name = rest_.substr(0, end);
    rest_.remove_prefix(end);
    return name;
  }

  // ` name="value"` ... up to '>' or '/>'.
  bool skip_attributes() {
    while (true) {
      const bool gap = !rest_.empty() && is_space(rest_.front());
      skip_spaces();
      if (rest_.starts_with(">") || rest_.starts_with("/>")) return true;
      if (!gap || take_name().empty()) return false;
      skip_spaces();
      if (!take("=")) return false;
      skip_spaces();
      if (rest_.empty() || (rest_.front() != '"' && rest_.front() != '\'')) return false;
      const char quote = rest_.front();
      const std::size_t end = rest_.find(quote, 1);
      if (end == std::string_view::npos || rest_.substr(0, end).find('<') != std::string_view::npos) return false;
      rest_.remove_prefix(end + 1);
    }
  }

  bool read_reference(std::string& text) {
    const std::size_t end = rest_.substr(0, 12).find(';');
    if (end == std::string_view::npos) return false;
    const std::string_view name = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    if (name == "lt") return (text += '<', true);
    if (name == "gt") return (text += '>', true);
    if (name == "amp") return (text += '&', true);
    if (name == "quot") return (text += '"', true);
    if (name == "apos") return (text += '\'', true);
    if (!name.starts_with('#')) return false;
    const bool hex = name.starts_with("#x");
    const std::string_view digits = name.substr(hex ? 2 : 1);
    std::uint32_t code = 0;
    const auto [last, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), code, hex ? 16 : 10);
    const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
    if (digits.empty() || ec != std::errc() || last != digits.data() + digits.size() || code == 0 || code > 0x10FFFF || surrogate)
      return false;
    append_utf8(text, code);
    return true;
  }

  bool read_cdata(std::string& text) {
    rest_.remove_prefix(9);
    const std::size_t end = rest_.find("]]>");
    if (end == std::string_view::npos) return false;
    text += rest_.substr(0, end);
    rest_.remove_prefix(end + 3);
    return true;
  }

  bool read_element(XmlElement& element, std::size_t depth) {
    if (depth > limits_.depth_max || ++elements_ > limits_.elements_max) return false;
    if (!take("<")) return false;
    const std::string_view name = take_name();
    if (name.empty() || local_name(name).empty() || !skip_attributes()) return false;
    element.name = local_name(name);
    if (take("/>")) return true;
    if (!take(">")) return false;
    while (!rest_.empty()) {
      if (rest_.front() == '&') {
        if (!read_reference(element.text)) return false;
      } else if (rest_.front() != '<') {
        const std::size_t end = std::min(rest_.find_first_of("<&"), rest_.size());
        element.text += rest_.substr(0, end);
        rest_.remove_prefix(end);
      } else if (rest_.starts_with("<!--")) {
        if (!skip_comment()) return false;
      } else if (rest_.starts_with("<![CDATA[")) {
        if (!read_cdata(element.text)) return false;
      } else if (take("</")) {
        if (!take(name)) return false;
        skip_spaces();
        return take(">");
      } else if (!read_element(element.children.emplace_back(), depth + 1)) {
        return false;
      }
    }
    return false;
  }

  std::string_view rest_;
  const XmlLimits limits_;
  std::size_t elements_ = 0;
};

void append_escaped(std::string& out, std::string_view text) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        if (byte >= 0x20 || c == '\t' || c == '\n') {
          out += c;
        } else {  // as S3 writes them; clients that list such keys ask for encoding-type=url
          constexpr std::string_view kDigits = "0123456789abcdef";
          out += "&#x";
          if (byte >= 0x10) out += kDigits[byte >> 4U];
          out += kDigits[byte & 0xFU];
          out += ';';
        }
    }
  }
}

}  // namespace

const XmlElement* XmlElement::find(std::string_view child) const {
  const auto found = std::ranges::find(children, child, &XmlElement::name);
  return found == children.end() ? nullptr : &*found;
}

std::string_view XmlElement::text_of(std::string_view child) const {
  const XmlElement* found = find(child);
  return found == nullptr ? std::string_view{} : std::string_view(found->text);
}

Error malformed_xml() {
  return Error(ErrorCode::kInvalidArgument, "The XML you provided was not well-formed or did not validate against our published schema",
               "MalformedXML");
}

Result<XmlElement> parse_xml(std::string_view document, XmlLimits limits) {
  const bool control = std::ranges::any_of(document, [](char c) { return static_cast<unsigned char>(c) < 0x20 && !is_space(c); });
  if (control || base::valid_utf8(std::string(document)) != document) return malformed_xml();
  auto root = Reader(document, limits).read();
  if (!root) return malformed_xml();
  return *std::move(root);
}

XmlWriter::XmlWriter(std::string_view root, std::string_view attributes) : out_("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n") {
  open(root, attributes);
}

XmlWriter& XmlWriter::open(std::string_view name, std::string_view attributes) {
  out_.append("<").append(name);
  if (!attributes.empty()) out_.append(" ").append(attributes);
  out_ += '>';
  open_.emplace_back(name);
  return *this;
}

XmlWriter& XmlWriter::close() {
  out_.append("</").append(open_.back()).append(">");
  open_.pop_back();
  return *this;
}

XmlWriter& XmlWriter::leaf(std::string_view name, std::string_view text) {
  out_.append("<").append(name).append(">");
  append_escaped(out_, text);
  out_.append("</").append(name).append(">");
  return *this;
}

std::string XmlWriter::finish() {
  while (!open_.empty()) close();
  return std::move(out_);
}

}  // namespace mayfly::api::s3
