#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <fstream>
#include <sstream>

#include "api/lambda/golden_for_test.h"
#include "api/lambda/model.h"

namespace mayfly::api::lambda {
namespace {

const boost::json::object& golden() {
  static const boost::json::object all = [] {
    const std::ifstream file(MAYFLY_SOURCE_DIR "/src/api/lambda/golden/recorded.json");
    std::stringstream text;
    text << file.rdbuf();
    return boost::json::parse(text.str()).as_object();
  }();
  return all;
}

TEST(GoldenTest, EveryRecordedErrorIsInTheTableWithItsStatus) {
  for (const auto& recorded : golden().at("errors").as_object()) {
    const GoldenError error = golden_error(std::string(recorded.key()));
    ASSERT_NE(find_error_type(error.type), nullptr) << error.type;
    EXPECT_EQ(find_error_type(error.type)->status, error.status) << error.type;
    EXPECT_EQ(find_error_type(error.type)->bare || error.body.empty(), error.body.empty()) << error.type;
  }
}

}  // namespace

const boost::json::object& golden_configuration(const std::string& name) { return golden().at("configurations").at(name).as_object(); }

GoldenError golden_error(const std::string& name) {
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
