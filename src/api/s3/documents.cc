#include "api/s3/documents.h"

#include <algorithm>
#include <charconv>

#include "api/s3/errors.h"
#include "base/bytes.h"

namespace mayfly::api::s3 {

using base::Result;

net::Response xml_answer(XmlWriter& document, int status) {
  net::Response response{.status = status, .headers = {}, .body = document.finish()};
  response.headers.add("Content-Type", "application/xml");
  return response;
}

net::Response empty_answer(int status) { return {.status = status, .headers = {}, .body = {}}; }

Result<std::vector<services::NameValue>> read_tagging(std::string_view body) {
  MAYFLY_ASSIGN(const XmlElement root, parse_xml(body));
  const XmlElement* set = root.find("TagSet");
  if (root.name != "Tagging" || set == nullptr) return malformed_xml();
  std::vector<services::NameValue> tags;
  for (const XmlElement& tag : set->children) {
    if (tag.name != "Tag" || tag.find("Key") == nullptr || tag.find("Value") == nullptr) return malformed_xml();
    tags.emplace_back(tag.text_of("Key"), tag.text_of("Value"));
  }
  return tags;
}

net::Response tagging_answer(const std::vector<services::NameValue>& tags) {
  XmlWriter xml("Tagging");
  xml.open("TagSet");
  for (const auto& [key, value] : tags) xml.open("Tag").leaf("Key", key).leaf("Value", value).close();
  return xml_answer(xml);
}

std::string owner_id(const std::string& account) { return base::hex_encode(base::sha256("mayfly account " + account)); }

void add_owner(XmlWriter& document, std::string_view element, const std::string& account) {
  document.open(element).leaf("ID", owner_id(account)).close();
}

net::Response acl_answer(const std::string& account) {
  XmlWriter xml("AccessControlPolicy");
  add_owner(xml, "Owner", account);
  xml.open("AccessControlList").open("Grant");
  xml.open("Grantee", "xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"CanonicalUser\"");
  xml.leaf("ID", owner_id(account)).close().leaf("Permission", "FULL_CONTROL");
  return xml_answer(xml);
}

Result<std::size_t> read_count(const Request& request, std::string_view name, std::size_t fallback, std::size_t max) {
  const auto text = request.parameter(name);
  if (!text || text->empty()) return fallback;
  std::int64_t number = 0;
  const auto [end, ec] = std::from_chars(text->data(), text->data() + text->size(), number);
  if (ec != std::errc() || end != text->data() + text->size())
    return invalid_argument("Provided " + std::string(name) + " not an integer or within integer range");
  if (number < 0 || number > 2'147'483'647)
    return invalid_argument("Argument " + std::string(name) + " must be an integer between 0 and 2147483647");
  return std::min(static_cast<std::size_t>(number), max);
}

Result<bool> read_encoding(const Request& request) {
  const auto encoding = request.parameter("encoding-type");
  if (!encoding || encoding->empty()) return false;
  if (*encoding != "url") return invalid_argument("Invalid Encoding Method specified in Request");
  return true;
}

std::string encoded(std::string_view name, bool encode) { return encode ? base::percent_encode(name, "/") : std::string(name); }

services::ObjectName object_name(const Request& request) {
  return {.bucket = request.bucket, .key = request.key, .version = request.parameter("versionId").value_or("")};
}

}  // namespace mayfly::api::s3
