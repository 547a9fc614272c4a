// How functions and versions are written into the catalogue: JSON documents, described in docs/formats/catalogue.md.
// Unknown members are ignored and missing ones have defaults, so that the version before and after this one can read them.
#pragma once

#include <string>

#include "base/result.h"
#include "engine/function.h"
#include "engine/layers.h"
#include "store/catalogue.h"

namespace mayfly::engine {

[[nodiscard]] store::VersionRow to_row(const FunctionVersion& version);
// kDataLoss when the document is not one; kUnsupported when its format is newer than ours.
[[nodiscard]] base::Result<FunctionVersion> version_from(const store::VersionRow& row, const Account& account);

[[nodiscard]] std::string layer_version_to_document(const LayerVersion& version);
// Without the layer's ARN.
[[nodiscard]] base::Result<LayerVersion> layer_version_from(const store::ResourceRow& row);
[[nodiscard]] std::string next_layer_version_to_document(std::uint64_t next_version);
[[nodiscard]] base::Result<std::uint64_t> next_layer_version_from(const store::ResourceRow& row);

[[nodiscard]] std::string settings_to_document(const FunctionSettings& settings);
// kDataLoss and kUnsupported as above.
[[nodiscard]] base::Result<FunctionSettings> settings_from_document(const std::string& document);

}  // namespace mayfly::engine
