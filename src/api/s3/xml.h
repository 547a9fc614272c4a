// The little XML that S3 speaks: a strict reader for request documents and a writer for answers.
// The reader knows elements, text, comments and the five named and the numeric character references. Attributes are checked and
// dropped; document types, entities and processing instructions beyond the declaration are refused, so nothing expands or loads.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace mayfly::api::s3 {

struct XmlElement {
  std::string name;  // without its namespace prefix
  std::string text;  // of its own, in pieces joined
  std::vector<XmlElement> children = {};
  // The first child of that name.
  [[nodiscard]] const XmlElement* find(std::string_view child) const;
  // The text of that child; "" without one.
  [[nodiscard]] std::string_view text_of(std::string_view child) const;
};

struct XmlLimits {
  std::size_t depth_max = 12;
  std::size_t elements_max = 120'000;  // 10,000 parts with every checksum
};

// The root element of a document in UTF-8. MalformedXML, in S3's words, for anything else.
[[nodiscard]] base::Result<XmlElement> parse_xml(std::string_view document, XmlLimits limits = {});
[[nodiscard]] base::Error malformed_xml();

// Builds a document whose root carries S3's namespace.
class XmlWriter {
 public:
  explicit XmlWriter(std::string_view root, std::string_view attributes = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"");
  XmlWriter& open(std::string_view name, std::string_view attributes = {});
  XmlWriter& close();
  XmlWriter& leaf(std::string_view name, std::string_view text);
  // Closes what is open.
  [[nodiscard]] std::string finish();

 private:
  std::string out_;
  std::vector<std::string> open_;
};

}  // namespace mayfly::api::s3
