// What each kind of source takes, requires and has by default. Pure: no store, no clock of its own.
#pragma once

#include <string>

#include "base/result.h"
#include "base/time.h"
#include "events/event_source_mappings.h"

namespace mayfly::events {

// "Unrecognized event source." when it is none of the kinds.
[[nodiscard]] base::Result<SourceKind> kind_of(const EventSource& source);

// Whether the source's own members are right and complete for its kind.
[[nodiscard]] base::Result<void> check_source(SourceKind kind, const EventSource& source, base::WallTime now);
// Whether a request gives only what its kind of source knows.
[[nodiscard]] base::Result<void> check_known(SourceKind kind, const MappingSettings& given);
// Whether the settings of a mapping, merged, go together.
[[nodiscard]] base::Result<void> check_settings(SourceKind kind, const MappingSettings& settings);

// What a new mapping has before the request is merged into it. `uuid` becomes the name of a Kafka consumer group.
[[nodiscard]] MappingSettings default_settings(SourceKind kind, const std::string& uuid);
// `settings` with what `given` sets or takes away.
[[nodiscard]] MappingSettings merge(SourceKind kind, MappingSettings settings, const MappingSettings& given);
// A Kafka consumer group keeps its place in the topic: an update cannot name another one.
[[nodiscard]] base::Result<void> check_same_group(SourceKind kind, const MappingSettings& current, const MappingSettings& given);

// Whether two mappings would read the same events for the same function.
[[nodiscard]] bool is_same_feed(const EventSourceMapping& a, const EventSourceMapping& b);
// The conflict with `existing`, in the words AWS has for its kind of source.
[[nodiscard]] base::Error duplicate_error(const EventSourceMapping& existing, const engine::Account& account);
// The source is not there.
[[nodiscard]] base::Error source_missing_error(SourceKind kind, const std::string& arn);

}  // namespace mayfly::events
