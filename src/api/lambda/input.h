// Reading members of a validated request.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace mayfly::api::lambda {

// All return "nothing" for a member that is absent or of another type; a validated input has no other types.
[[nodiscard]] std::string text_in(const boost::json::object& input, std::string_view name);  // "" when absent
[[nodiscard]] std::optional<std::string> optional_text_in(const boost::json::object& input, std::string_view name);
[[nodiscard]] std::optional<std::int64_t> number_in(const boost::json::object& input, std::string_view name);
[[nodiscard]] bool flag_in(const boost::json::object& input, std::string_view name);
[[nodiscard]] const boost::json::object* object_in(const boost::json::object& input, std::string_view name);
[[nodiscard]] std::vector<std::string> texts_in(const boost::json::object& input, std::string_view name);  // of a list
// The members of an object that are texts.
[[nodiscard]] std::map<std::string, std::string> string_map(const boost::json::object& object);

}  // namespace mayfly::api::lambda
