#include "events/event_source_mappings.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/mutex.h"
#include "events/internal/mapping_document.h"
#include "events/internal/mapping_rules.h"

namespace mayfly::events {
namespace {

using base::Error;
using base::ErrorCode;
using base::MutexLock;
using base::Result;
using Tags = std::map<std::string, std::string>;

constexpr std::size_t kTagsMax = 50;

Error invalid(std::string message) { return Error(ErrorCode::kInvalidArgument, std::move(message), "InvalidParameterValueException"); }

Error unknown_mapping() { return Error(ErrorCode::kNotFound, "The resource you requested does not exist.", "ResourceNotFoundException"); }

MappingState settled_state(const EventSourceMapping& mapping) {
  return mapping.settings.enabled.value_or(true) ? MappingState::kEnabled : MappingState::kDisabled;
}

Result<void> check_tags(const Tags& tags) {
  if (tags.size() > kTagsMax) return invalid("Number of tags exceeds resource tag limit.");
  return {};
}

// The one function "f" and "f:$LATEST" mean.
std::string_view plain(const std::string& qualifier) {
  return qualifier == engine::kLatest ? std::string_view() : std::string_view(qualifier);
}

bool passes(const MappingFilter& filter, const EventSourceMapping& mapping) {
  if (!filter.source_arn.empty() && mapping.source.arn != filter.source_arn) return false;
  if (!filter.function) return true;
  return mapping.function.name == filter.function->name && plain(mapping.function.qualifier) == plain(filter.function->qualifier);
}

EventSourceMapping shown_as(EventSourceMapping mapping, MappingState state) {
  mapping.state = state;
  return mapping;
}

}  // namespace

std::string_view mapping_state_name(MappingState state) {
  switch (state) {
    case MappingState::kCreating:
      return "Creating";
    case MappingState::kEnabling:
      return "Enabling";
    case MappingState::kEnabled:
      return "Enabled";
    case MappingState::kDisabling:
      return "Disabling";
    case MappingState::kDisabled:
      return "Disabled";
    case MappingState::kUpdating:
      return "Updating";
    case MappingState::kDeleting:
      return "Deleting";
  }
  return "Disabled";
}

std::string EventSourceMapping::arn(const engine::Account& account) const {
  return "arn:aws:lambda:" + account.region + ":" + account.id + ":event-source-mapping:" + uuid;
}

struct EventSourceMappings::Impl {
  explicit Impl(Options an_options) : options(std::move(an_options)) {}

  using Mappings = std::map<std::string, MappingPtr, std::less<>>;

  Result<void> load() {
    MAYFLY_ASSIGN(const std::vector<store::ResourceRow> rows, options.catalogue.resources(kMappingRows));
    Mappings loaded;
    for (const store::ResourceRow& row : rows) {
      MAYFLY_ASSIGN(EventSourceMapping mapping, mapping_from(row));
      loaded.emplace(row.key, std::make_shared<const EventSourceMapping>(std::move(mapping)));
    }
    const MutexLock lock(reading);
    mappings = std::move(loaded);
    return {};
  }

  MappingPtr find(std::string_view uuid) const {
    const MutexLock lock(reading);
    const auto found = mappings.find(uuid);
    return found == mappings.end() ? nullptr : found->second;
  }

  // A function, version or alias that is there.
  Result<void> check_function(const MappedFunction& function) const {
    const engine::RecordPtr record = options.registry.find(function.name);
    if (record == nullptr || record->find(function.qualifier) == nullptr) return invalid("Function does not exist");
    return {};
  }
  Result<void> check_exists(SourceKind kind, const EventSource& source) const {
    if (!options.source_exists || source.arn.empty()) return {};
    MAYFLY_ASSIGN(const bool exists, options.source_exists(kind, source.arn));
    if (!exists) return source_missing_error(kind, source.arn);
    return {};
  }
  Result<void> check_unique(const EventSourceMapping& wanted) const {
    const MutexLock lock(reading);
    for (const auto& [uuid, mapping] : mappings) {
      if (uuid != wanted.uuid && is_same_feed(*mapping, wanted)) return duplicate_error(*mapping, options.registry.account());
    }
    return {};
  }
  // `verb`: what cannot be done meanwhile, in AWS's text.
  Result<void> check_idle(const EventSourceMapping& mapping, const char* verb) const {
    const auto& under_way = mapping.under_way;
    if (under_way == nullptr || under_way->seen || options.clock.now() >= under_way->until) return {};
    return Error(ErrorCode::kConflict, std::string("Cannot ") + verb + " the event source mapping because it is in use.",
                 "ResourceInUseException");
  }

  std::shared_ptr<MappingTransition> begin() const {
    auto made = std::make_shared<MappingTransition>();
    made->until = options.clock.now() + kTransition;
    return made;
  }
  // Stores, then shows.
  Result<void> commit(EventSourceMapping mapping) MAYFLY_REQUIRES(writing) {
    MAYFLY_TRY(options.catalogue.apply({.put_resources = {to_row(mapping)}}));
    auto shared = std::make_shared<const EventSourceMapping>(std::move(mapping));
    const MutexLock lock(reading);
    mappings[shared->uuid] = std::move(shared);
    return {};
  }
  Result<void> change_tags(const std::string& uuid, const std::function<void(Tags&)>& change) {
    const MutexLock lock(writing);
    const MappingPtr before = find(uuid);
    if (before == nullptr) return unknown_mapping();
    EventSourceMapping after = *before;
    change(after.tags);
    MAYFLY_TRY(check_tags(after.tags));
    return commit(std::move(after));
  }

  const Options options;
  base::Mutex writing;  // held over the commit: changes happen one after the other
  mutable base::Mutex reading;
  Mappings mappings MAYFLY_GUARDED_BY(reading);
};

EventSourceMappings::EventSourceMappings(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EventSourceMappings::~EventSourceMappings() = default;

Result<std::unique_ptr<EventSourceMappings>> EventSourceMappings::open(Options options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  MAYFLY_TRY(impl->load());
  return std::unique_ptr<EventSourceMappings>(new EventSourceMappings(std::move(impl)));
}

MappingPtr EventSourceMappings::find(std::string_view uuid) const { return impl_->find(uuid); }

std::vector<MappingPtr> EventSourceMappings::list(const MappingFilter& filter, std::string_view after, std::size_t max) const {
  std::vector<MappingPtr> found;
  const MutexLock lock(impl_->reading);
  for (auto each = impl_->mappings.upper_bound(after); each != impl_->mappings.end() && found.size() < max; ++each) {
    if (passes(filter, *each->second)) found.push_back(each->second);
  }
  return found;
}

void EventSourceMappings::observed(const EventSourceMapping& mapping) {
  if (mapping.under_way != nullptr) mapping.under_way->seen = true;
}

Result<EventSourceMapping> EventSourceMappings::create(const NewMapping& wanted) {
  MAYFLY_ASSIGN(const SourceKind kind, kind_of(wanted.source));
  MAYFLY_TRY(check_known(kind, wanted.settings));
  const base::WallTime now = impl_->options.clock.wall_now();
  MAYFLY_TRY(check_source(kind, wanted.source, now));
  MAYFLY_TRY(check_tags(wanted.tags));
  EventSourceMapping mapping;
  mapping.uuid = base::random_uuid();
  mapping.kind = kind;
  mapping.source = wanted.source;
  mapping.function = wanted.function;
  mapping.settings = merge(kind, default_settings(kind, mapping.uuid), wanted.settings);
  mapping.tags = wanted.tags;
  mapping.modified = now;
  mapping.state = settled_state(mapping);
  MAYFLY_TRY(check_settings(kind, mapping.settings));
  MAYFLY_TRY(impl_->check_function(mapping.function));
  MAYFLY_TRY(impl_->check_exists(kind, mapping.source));

  const MutexLock lock(impl_->writing);
  MAYFLY_TRY(impl_->check_unique(mapping));
  const bool starts = mapping.state == MappingState::kEnabled;  // recorded: one that is made disabled is so at once
  if (starts) mapping.under_way = impl_->begin();
  MAYFLY_TRY(impl_->commit(mapping));
  return shown_as(std::move(mapping), starts ? MappingState::kCreating : MappingState::kDisabled);
}

Result<EventSourceMapping> EventSourceMappings::update(const std::string& uuid, const MappingChange& change) {
  const MutexLock lock(impl_->writing);
  const MappingPtr before = impl_->find(uuid);
  if (before == nullptr) return unknown_mapping();
  MAYFLY_TRY(check_known(before->kind, change.settings));
  MAYFLY_TRY(check_same_group(before->kind, before->settings, change.settings));
  EventSourceMapping after = *before;
  after.settings = merge(before->kind, before->settings, change.settings);
  MAYFLY_TRY(check_settings(before->kind, after.settings));
  if (change.function) {
    MAYFLY_TRY(impl_->check_function(*change.function));
    after.function = *change.function;
  }
  MAYFLY_TRY(impl_->check_unique(after));
  MAYFLY_TRY(impl_->check_idle(*before, "update"));
  after.modified = impl_->options.clock.wall_now();
  after.state = settled_state(after);
  after.under_way = impl_->begin();
  MAYFLY_TRY(impl_->commit(after));
  if (after.state == before->state) return shown_as(std::move(after), MappingState::kUpdating);
  return shown_as(std::move(after), after.state == MappingState::kEnabled ? MappingState::kEnabling : MappingState::kDisabling);
}

Result<EventSourceMapping> EventSourceMappings::remove(const std::string& uuid) {
  const MutexLock lock(impl_->writing);
  const MappingPtr before = impl_->find(uuid);
  if (before == nullptr) return unknown_mapping();
  MAYFLY_TRY(impl_->check_idle(*before, "delete"));
  MAYFLY_TRY(impl_->options.catalogue.apply({.remove_resources = {{kMappingRows, uuid}}}));
  {
    const MutexLock view_lock(impl_->reading);
    impl_->mappings.erase(uuid);
  }
  return shown_as(*before, MappingState::kDeleting);
}

Result<void> EventSourceMappings::tag(const std::string& uuid, const Tags& tags) {
  if (tags.empty()) return invalid("An error occurred and the request cannot be processed.");  // AWS's words for an empty set
  return impl_->change_tags(uuid, [&tags](Tags& all) {
    for (const auto& [key, value] : tags) all[key] = value;
  });
}

Result<void> EventSourceMappings::untag(const std::string& uuid, const std::vector<std::string>& keys) {
  return impl_->change_tags(uuid, [&keys](Tags& all) {
    for (const std::string& key : keys) all.erase(key);
  });
}

}  // namespace mayfly::events
