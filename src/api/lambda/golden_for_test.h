// Answers of the real service (recorded), with names and numbers mapped to the tests' server.
#pragma once

#include <boost/json.hpp>
#include <fstream>
#include <sstream>
#include <string>

#ifndef MAYFLY_SOURCE_DIR  // set for test programs
#define MAYFLY_SOURCE_DIR "."
#endif

namespace mayfly::api::lambda {

inline const boost::json::object& golden() {
  static const boost::json::object all = [] {
    const std::ifstream file(MAYFLY_SOURCE_DIR "/src/api/lambda/golden/recorded.json");
    std::stringstream text;
    text << file.rdbuf();
    return boost::json::parse(text.str()).as_object();
  }();
  return all;
}
inline const boost::json::object& golden_configuration(const std::string& name) {
  return golden().at("configurations").at(name).as_object();
}

// An error as recorded: status and the members of the body.
struct GoldenError {
  int status = 0;
  std::string type, message;
  boost::json::object body;  // as modelled members; empty for errors outside the model
};
inline GoldenError golden_error(const std::string& name) {
  const boost::json::object& all = golden().at("errors").at(name).as_object();
  GoldenError error{.status = static_cast<int>(all.at("status").as_int64()),
                    .type = all.at("Error").at("Code").as_string().c_str(),
                    .message = all.at("Error").at("Message").as_string().c_str(),
                    .body = {}};
  for (const auto& member : all) {
    if (member.key() != "status" && member.key() != "Error") error.body[member.key()] = member.value();
  }
  return error;
}

}  // namespace mayfly::api::lambda
