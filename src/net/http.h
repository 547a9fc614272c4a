// HTTP messages as Mayfly's doors see them. Names and values are bytes as received, within the limits of the guard
// (RFC 9110, RFC 9112; what the guard refuses is listed in src/net/README.md).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace mayfly::net {

// Header or trailer fields in order of arrival; names compare without case. Small: linear search.
class Headers {
 public:
  struct Field {
    std::string name;
    std::string value;
  };
  // The first value of `name`, if any. The view lives until the next change.
  [[nodiscard]] std::optional<std::string_view> find(std::string_view name) const;
  [[nodiscard]] std::string_view get(std::string_view name) const { return find(name).value_or(std::string_view{}); }
  [[nodiscard]] std::vector<std::string_view> find_all(std::string_view name) const;
  [[nodiscard]] bool contains(std::string_view name) const { return find(name).has_value(); }
  void add(std::string name, std::string value) {
    if (fields_.empty()) fields_.reserve(kUsual);
    fields_.push_back({std::move(name), std::move(value)});
  }
  // Replaces every field of that name with one.
  void set(std::string_view name, std::string value);
  void remove(std::string_view name);
  [[nodiscard]] const std::vector<Field>& fields() const { return fields_; }
  [[nodiscard]] bool empty() const { return fields_.empty(); }
  void clear() { fields_.clear(); }

 private:
  static constexpr std::size_t kUsual = 12;  // more than most messages have: one allocation for all
  std::vector<Field> fields_;
};

[[nodiscard]] bool equal_ignoring_case(std::string_view a, std::string_view b);
[[nodiscard]] std::string to_lower(std::string_view text);

struct RequestHead {
  std::string method;  // upper case as sent
  std::string target;  // origin form, exactly as sent: "/a%20b?x=1"
  Headers headers;

  [[nodiscard]] std::string_view path() const;   // up to '?', still percent-encoded
  [[nodiscard]] std::string_view query() const;  // after '?', still percent-encoded; empty if none
};

// A query string's parameters, percent-decoded ('+' is a space), in order.
[[nodiscard]] base::Result<std::vector<std::pair<std::string, std::string>>> parse_query(std::string_view query);
// The first parameter of that name.
[[nodiscard]] std::optional<std::string> query_parameter(std::string_view query, std::string_view name);

struct Response {
  int status = 200;
  Headers headers;  // Content-Length, Connection, Date and Transfer-Encoding are the connection's own
  std::string body;
};

[[nodiscard]] std::string_view reason_phrase(int status);

}  // namespace mayfly::net
