// How mappings are written into the catalogue: JSON documents, described in docs/formats/catalogue.md.
// Unknown members are ignored and missing ones have defaults, so that the version before and after this one can read them.
#pragma once

#include "base/result.h"
#include "events/event_source_mappings.h"
#include "store/catalogue.h"

namespace mayfly::events {

inline constexpr const char* kMappingRows = "event-source-mapping";  // kind of the rows

[[nodiscard]] store::ResourceRow to_row(const EventSourceMapping& mapping);
// kDataLoss when the document is not one; kUnsupported when its format is newer than ours.
[[nodiscard]] base::Result<EventSourceMapping> mapping_from(const store::ResourceRow& row);

}  // namespace mayfly::events
