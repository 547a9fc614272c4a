// Roles and policies as the catalogue keeps them (docs/formats/catalogue.md).
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "services/roles.h"

namespace mayfly::services {

[[nodiscard]] std::string to_document(const Role& role);
[[nodiscard]] std::string to_document(const Policy& policy);
// kDataLoss for what is no such document, kUnsupported for a format of a newer Mayfly.
[[nodiscard]] base::Result<Role> role_from_document(std::string_view document);
[[nodiscard]] base::Result<Policy> policy_from_document(std::string_view document);

}  // namespace mayfly::services
