// The headers of objects: attributes, checksums, conditions and ranges, in requests and answers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "api/s3/request.h"
#include "base/result.h"
#include "base/time.h"
#include "net/http.h"
#include "services/buckets.h"

namespace mayfly::api::s3 {

// What a write asks for that Mayfly does not do (foreign encryption, ACLs, storage classes, locks) is refused; so is another
// account's number as the expected owner.
[[nodiscard]] base::Result<void> check_wishes(const Request& request, const std::string& account);

// Content-Type and its like, x-amz-meta-*, x-amz-tagging.
[[nodiscard]] base::Result<services::ObjectAttributes> read_attributes(const Request& request);
// "a=1&b=2"
[[nodiscard]] base::Result<std::vector<services::NameValue>> read_tagging_header(std::string_view text);

// x-amz-checksum-ALGORITHM, or one that x-amz-trailer announces (then without a value).
struct StatedChecksum {
  services::ChecksumKind kind = services::ChecksumKind::kNone;
  std::string value;  // bytes
};
[[nodiscard]] base::Result<StatedChecksum> read_checksum(const net::Headers& headers);
// The value of the checksum in `headers`, of a trailer. Empty when it is not there.
[[nodiscard]] base::Result<std::string> read_checksum_value(const net::Headers& headers, services::ChecksumKind kind);
// Content-MD5 as bytes; InvalidDigest.
[[nodiscard]] base::Result<std::string> read_md5(const net::Headers& headers);
// Compares `body` with Content-MD5 and the checksum that `headers` state: for documents.
[[nodiscard]] base::Result<void> check_body(const Operation& operation, const net::Headers& headers, std::string_view body);

[[nodiscard]] base::Result<services::WriteCondition> read_write_condition(const Request& request);
// If-Match and the others; `prefix` "x-amz-copy-source-" for the source of a copy.
[[nodiscard]] services::ReadCondition read_condition(const Request& request, std::string_view prefix = {});

// The bytes that a GET or HEAD wants.
struct Extent {
  std::uint64_t first = 0;
  std::uint64_t length = 0;
  bool partial = false;
};
// Of the Range header; one that cannot be understood asks for everything. InvalidRange when there is nothing in it.
[[nodiscard]] base::Result<Extent> read_range(std::string_view range, std::uint64_t size);

// Everything about an object that GET and HEAD say, with the response-* parameters. `extent` is what goes out.
void add_object_headers(net::Headers& headers, const services::ObjectInfo& object, const Request& request, const Extent& extent);
// x-amz-checksum-*, if the object has one.
void add_checksum(net::Headers& headers, const services::Checksum& checksum, int parts);
// "value" or "value-PARTS", in base64.
[[nodiscard]] std::string checksum_text(const services::Checksum& checksum, int parts);
[[nodiscard]] std::string quoted(const std::string& etag);

}  // namespace mayfly::api::s3
