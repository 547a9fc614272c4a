// Tags of event source mappings; their operations are found through control.h.
#pragma once

#include "api/lambda/control.h"

namespace mayfly::api::lambda {

// Whether the `Resource` of a tag operation is a mapping; then the operation is the one below.
[[nodiscard]] bool names_event_source_mapping(const boost::json::object& input);
[[nodiscard]] base::Result<net::Response> tag_event_source_mapping(const ControlCall& call);
[[nodiscard]] base::Result<net::Response> untag_event_source_mapping(const ControlCall& call);
[[nodiscard]] base::Result<net::Response> list_event_source_mapping_tags(const ControlCall& call);

}  // namespace mayfly::api::lambda
