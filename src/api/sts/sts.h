// AWS STS: GetCallerIdentity, which every tool asks first, and temporary credentials for who holds the account's key.
#pragma once

#include <string>
#include <string_view>

#include "access/access.h"
#include "api/internal/answer.h"
#include "api/internal/query.h"
#include "base/result.h"
#include "base/time.h"
#include "net/http.h"
#include "services/roles.h"

namespace mayfly::api::sts {

// The Action of a query request: in the query string or the form `body`.
[[nodiscard]] std::string action_of(const net::RequestHead& head, std::string_view body);
// MissingAction, or an error naming an action that Mayfly does not have.
[[nodiscard]] base::Result<void> check_action(const std::string& action);
[[nodiscard]] net::Response get_caller_identity(const access::Principal& caller, Protocol protocol, const std::string& request_id);

struct SessionCall {
  const Form& form;
  services::Roles& roles;
  access::CredentialStore& credentials;
  const access::Principal& caller;
  base::WallTime now;
};
// Credentials of a role that is kept here. Neither its trust policy nor its permissions are evaluated: they may do what the
// account's key may, but for making further ones, until they expire. Session policies and MFA, which would promise less or
// more, are refused.
[[nodiscard]] base::Result<net::Response> assume_role(const SessionCall& call, const std::string& request_id);
// The same for the account itself, for an hour at most, as AWS has it for the root user.
[[nodiscard]] base::Result<net::Response> get_session_token(const SessionCall& call, const std::string& request_id);

}  // namespace mayfly::api::sts
