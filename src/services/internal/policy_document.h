// The form of policy documents: what IAM's grammar demands of them before it stores one.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace mayfly::services {

enum class PolicyPurpose : std::uint8_t {
  kIdentity,  // what a role may do: actions and resources, no principal
  kTrust,     // who may take on a role: principals and actions of STS, no resource
};

// MalformedPolicyDocument with IAM's text. Conditions and the names of actions are not looked into.
[[nodiscard]] base::Result<void> check_policy_document(std::string_view text, PolicyPurpose purpose);

// Characters that count towards a quota: all but white space.
[[nodiscard]] std::size_t counted_length(std::string_view document);

}  // namespace mayfly::services
