// AWS IAM, as far as deployments need it: roles and policies over services::Roles. They are kept and told again; nobody's
// rights come from them (docs/threat-model.md).
#pragma once

#include <string>

#include "access/access.h"
#include "api/internal/query.h"
#include "base/result.h"
#include "net/http.h"
#include "services/roles.h"

namespace mayfly::api::iam {

struct Call {
  services::Roles& roles;
  access::CredentialStore& credentials;
  const access::Principal& caller;
  const std::string& account;  // 12 digits
  const Form& form;
};

// The inside of the answer's result element; none where AWS has no such element. Blocks.
using Answer = base::Result<std::optional<std::string>>;
using Operation = Answer (*)(const Call& call);

// MissingAction without an Action, and an error that names it where Mayfly does not have it.
[[nodiscard]] base::Result<Operation> find_operation(const std::string& action);
// What the request is about, for authorise().
[[nodiscard]] std::string resource_of(const Form& form, const std::string& account);
[[nodiscard]] net::Response answer_of(const std::string& action, std::optional<std::string> result, const std::string& request_id);

}  // namespace mayfly::api::iam
