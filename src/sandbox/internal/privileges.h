// Giving up root, for processes that stay in C++ afterwards (not between clone and exec: see child.h).
#pragma once

#include <cstdint>

#include "base/result.h"

namespace mayfly::sandbox::internal {

// No groups, real, effective and saved ids, and an empty bounding set.
[[nodiscard]] base::Result<void> become_user(std::uint32_t user, std::uint32_t group);
// Permitted, effective, inheritable and ambient.
[[nodiscard]] base::Result<void> drop_all_capabilities();

}  // namespace mayfly::sandbox::internal
