// Functions and their code: what other operations need of them.
#pragma once

#include <boost/json/object.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "api/lambda/control.h"
#include "base/result.h"

namespace mayfly::api::lambda {

// The zip that `source` (Code of a function, Content of a layer) carries or names in S3. InvalidParameterValueException and others.
[[nodiscard]] base::Result<std::string> zip_from(const ControlCall& call, const boost::json::object& source);

// A signed URL for the caller that downloads `code_id`. `owner` is a function's name or "layer:NAME".
[[nodiscard]] base::Result<std::string> code_location(const ControlCall& call, const std::string& owner, const std::string& code_id);

// Where such a URL points, without host and signature, and back. The path names owner and code, so that a link dies with what it
// linked to.
[[nodiscard]] std::string code_path(const std::string& owner, const std::string& code_id);
struct CodeLink {
  std::string owner, code_id;
};
[[nodiscard]] std::optional<CodeLink> parse_code_path(std::string_view path);
// Whether the owner of a link is still there.
[[nodiscard]] bool names_code(const ApiContext& context, const CodeLink& link);

}  // namespace mayfly::api::lambda
