// The bytes an S3 client sends: documents, targets, sources of copies, ranges. Checks what must hold for all of them.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "api/s3/documents.h"
#include "api/s3/headers.h"
#include "api/s3/request.h"
#include "api/s3/xml.h"

namespace {

using namespace mayfly;

void must(bool holds) {
  if (!holds) std::abort();
}

void write(api::s3::XmlWriter& xml, const api::s3::XmlElement& element) {
  for (const auto& child : element.children) {
    xml.open("e").leaf("text", child.text);
    write(xml, child);
    xml.close();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (const auto root = api::s3::parse_xml(bytes, {.depth_max = 5, .elements_max = 1000}); root.ok()) {
    api::s3::XmlWriter xml("root");
    write(xml, *root);
    // Control characters are written as S3 does, whose references the reader takes but for NUL, which it never lets in.
    must(api::s3::parse_xml(xml.finish()).ok());
  }
  (void)api::s3::read_tagging(bytes);
  (void)api::s3::read_tagging_header(bytes);

  net::RequestHead head{.method = size % 2 == 0 ? "GET" : "PUT", .target = "/" + std::string(bytes), .headers = {}};
  head.headers.add("Host", std::string(bytes.substr(0, size / 2)));
  if (const auto request = api::s3::read_request(head); request.ok()) {
    must(request->operation != nullptr);
    must(request->key.empty() || !request->bucket.empty());
    (void)api::s3::resource_of(*request);
    (void)api::s3::read_attributes(*request);
  }
  if (const auto source = api::s3::read_copy_source(bytes); source.ok()) must(!source->bucket.empty() && !source->key.empty());
  for (const std::uint64_t length : {0ULL, 1ULL, 10ULL, ~0ULL}) {
    const auto extent = api::s3::read_range("bytes=" + std::string(bytes), length);
    if (extent.ok()) must(extent->first <= length && extent->length <= length - extent->first && (!extent->partial || extent->length > 0));
  }
  return 0;
}
