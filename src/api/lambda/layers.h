// Layers as functions use them.
#pragma once

#include <vector>

#include "api/lambda/control.h"
#include "engine/code_store.h"

namespace mayfly::api::lambda {

// The layers of a request's Layers member. While it lives their code stays, although no function names it yet.
struct LayersInUse {
  std::vector<engine::LayerUse> uses;
  std::vector<engine::CodeStore::Hold> holds;
};
// Empty when the request has none. InvalidParameterValueException for layers that do not exist, are too many or conflict.
[[nodiscard]] base::Result<LayersInUse> layers_in(const ControlCall& call);

}  // namespace mayfly::api::lambda
