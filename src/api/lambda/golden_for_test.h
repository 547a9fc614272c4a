// Answers of the real service (recorded), with names and numbers mapped to the tests' server.
#pragma once

#include <boost/json/object.hpp>
#include <string>

namespace mayfly::api::lambda {

[[nodiscard]] const boost::json::object& golden_configuration(const std::string& name);

// An error as recorded: status and the members of the body.
struct GoldenError {
  int status = 0;
  std::string type, message;
  boost::json::object body;  // as modelled members; empty for errors outside the model
};
[[nodiscard]] GoldenError golden_error(const std::string& name);

}  // namespace mayfly::api::lambda
