// Concurrency that is promised to functions.
#pragma once

#include <cstdint>

#include "engine/registry.h"

namespace mayfly::api::lambda {

// Sum over all functions of what is reserved, or provisioned where nothing is reserved. Walks all functions.
[[nodiscard]] std::uint64_t promised_concurrency(const engine::FunctionRegistry& registry);

}  // namespace mayfly::api::lambda
