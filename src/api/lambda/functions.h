// The operations of Lambda's control plane that Mayfly has. Blocking: run on the worker pool.
#pragma once

#include <boost/json/object.hpp>
#include <string>
#include <string_view>

#include "base/result.h"
#include "engine/registry.h"
#include "net/http.h"

namespace mayfly::api {
struct ApiContext;
}

namespace mayfly::api::lambda {

// One validated request.
struct ControlCall {
  ApiContext& context;
  const boost::json::object& input;  // by member name
  std::string action;                // "lambda:GetFunction"
  std::string host;                  // as the caller named this endpoint: URLs in answers use it
  std::string access_key;            // of the caller: signs URLs in answers
};

using ControlOperation = base::Result<net::Response> (*)(const ControlCall&);

// Null when Mayfly does not have the operation (yet), or has it elsewhere (Invoke).
[[nodiscard]] ControlOperation find_control_operation(std::string_view name);

// What a request acts on, for authorise(): a function's ARN, or "*" where it names none.
[[nodiscard]] base::Result<std::string> resource_of(const boost::json::object& input, const engine::Account& account,
                                                    const std::string& action);

// Where GetFunction's Code.Location points, without host and signature, and back. The path names function and code, so that
// a link dies with what it linked to.
[[nodiscard]] std::string code_path(const std::string& function_name, const std::string& code_id);
struct CodeLink {
  std::string function_name, code_id;
};
[[nodiscard]] std::optional<CodeLink> parse_code_path(std::string_view path);

}  // namespace mayfly::api::lambda
