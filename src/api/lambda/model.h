// The table of Lambda's interface, made at build time from model/operations.json by tools/lambda_model.py. The router, the
// validator and the error writer all read this one table; nothing of it is written twice.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mayfly::api::lambda {

enum class ShapeType : std::uint8_t { kString, kInteger, kLong, kDouble, kBoolean, kBlob, kTimestamp, kStructure, kList, kMap };
enum class Location : std::uint8_t { kPath, kQuery, kHeader, kBody, kPayload };

struct Member {
  std::string_view name = {};  // "FunctionName"
  std::string_view wire = {};  // its name in path, query, header or JSON
  Location in = Location::kBody;
  std::uint16_t shape = 0;
  bool required = false;
};

struct Shape {
  std::string_view name = {};
  ShapeType type = ShapeType::kString;
  // Lengths of strings and lists, values of numbers.
  std::int64_t min = std::numeric_limits<std::int64_t>::min();
  std::int64_t max = std::numeric_limits<std::int64_t>::max();
  std::string_view pattern = {};                  // as error texts quote it
  std::string_view match = {};                    // the same said without look-around, where `pattern` has some; else empty
  std::span<const std::string_view> values = {};  // of an enumeration
  std::span<const Member> members = {};           // of a structure
  std::uint16_t element = 0, key = 0;             // of a list or map
};

struct Operation {
  std::string_view name, method;
  std::string_view path;   // "/2015-03-31/functions/{FunctionName}"
  std::string_view query;  // "List=ALL": the query must contain it; mostly empty
  int success = 200;
  std::span<const Member> members;
};

struct ErrorType {
  std::string_view name;
  int status = 500;
  std::string_view message_key;  // "message" or "Message"
  bool bare = false;             // the body has no Type member
};

[[nodiscard]] std::span<const Operation> operations();
[[nodiscard]] const Operation* find_operation(std::string_view name);
[[nodiscard]] const Shape& shape(std::uint16_t index);
[[nodiscard]] const ErrorType* find_error_type(std::string_view name);
// Runtime names in the order AWS's error text lists them; accepted ones the text does not list yet; and retired ones.
[[nodiscard]] std::span<const std::string_view> runtimes_accepted();
[[nodiscard]] std::span<const std::string_view> runtimes_accepted_newer();
[[nodiscard]] std::span<const std::string_view> runtimes_deprecated();

// A request's operation and what its path says, percent-decoded.
struct Match {
  const Operation* operation = nullptr;
  std::vector<std::pair<std::string_view, std::string>> path_values;  // wire name, value
};
// Finds the operation of a request. `path` still percent-encoded, `query` without '?'. Absent when there is none.
[[nodiscard]] std::optional<Match> match_operation(std::string_view method, std::string_view path, std::string_view query);

}  // namespace mayfly::api::lambda
