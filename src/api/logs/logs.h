// CloudWatch Logs (awsJson 1.1, X-Amz-Target Logs_20140328.*) over the stored log segments. Blocking: run on the worker pool.
#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <string_view>

#include "base/result.h"
#include "engine/function.h"
#include "net/http.h"
#include "store/log_segments.h"

namespace mayfly::api::logs {

struct LogCall {
  store::LogSegments& store;
  const engine::Account& account;
  const boost::json::object& input;
};

struct Operation {
  base::Result<net::Response> (*run)(const LogCall&) = nullptr;  // null: Mayfly does not have it
  bool reads_only = false;                                       // environments may call it
};
[[nodiscard]] Operation find_operation(std::string_view name);

// The request's JSON object. SerializationException when it is none.
[[nodiscard]] base::Result<boost::json::object> read_input(std::string_view body);
// The ARN of the log group the request is about, or "*".
[[nodiscard]] std::string resource_of(const boost::json::object& input, const engine::Account& account);

}  // namespace mayfly::api::logs
