// The documents that requests carry and that several operations share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api/s3/request.h"
#include "api/s3/xml.h"
#include "base/result.h"
#include "net/http.h"
#include "services/buckets.h"

namespace mayfly::api::s3 {

[[nodiscard]] net::Response xml_answer(XmlWriter& document, int status = 200);
[[nodiscard]] net::Response empty_answer(int status);

// <Tagging><TagSet><Tag><Key/><Value/></Tag>...
[[nodiscard]] base::Result<std::vector<services::NameValue>> read_tagging(std::string_view body);
[[nodiscard]] net::Response tagging_answer(const std::vector<services::NameValue>& tags);
// The owner of everything: the account.
[[nodiscard]] std::string owner_id(const std::string& account);
void add_owner(XmlWriter& document, std::string_view element, const std::string& account);
[[nodiscard]] net::Response acl_answer(const std::string& account);

// A whole number of the query, at most `max`; `fallback` without one.
[[nodiscard]] base::Result<std::size_t> read_count(const Request& request, std::string_view name, std::size_t fallback, std::size_t max);
// Whether names in the answer are to be percent-encoded; InvalidArgument for another encoding than "url".
[[nodiscard]] base::Result<bool> read_encoding(const Request& request);
[[nodiscard]] std::string encoded(std::string_view name, bool encode);

// The object that a request is about.
[[nodiscard]] services::ObjectName object_name(const Request& request);

}  // namespace mayfly::api::s3
