// AWS STS: GetCallerIdentity, which every tool asks first.
#pragma once

#include <string>
#include <string_view>

#include "access/access.h"
#include "api/internal/answer.h"
#include "base/result.h"
#include "net/http.h"

namespace mayfly::api::sts {

// The Action of a query request: in the query string or the form `body`.
[[nodiscard]] std::string action_of(const net::RequestHead& head, std::string_view body);
// MissingAction, or an error naming an action that Mayfly does not have.
[[nodiscard]] base::Result<void> check_action(const std::string& action);
[[nodiscard]] net::Response get_caller_identity(const access::Principal& caller, Protocol protocol, const std::string& request_id);

}  // namespace mayfly::api::sts
