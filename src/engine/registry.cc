#include "engine/registry.h"

#include <algorithm>
#include <atomic>
#include <set>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "base/mutex.h"
#include "engine/internal/documents.h"
#include "engine/internal/function_view.h"
#include "engine/internal/sharded_map.h"

namespace mayfly::engine {
namespace {

using base::Error;
using base::ErrorCode;
using base::MutexLock;
using base::Result;
using Tags = std::map<std::string, std::string>;

constexpr std::size_t kNameLengthMax = 64;  // AWS's practice; the model's pattern allows more
constexpr std::size_t kTagsMax = 50;

Error invalid_parameter(std::string message) {
  return Error(ErrorCode::kInvalidArgument, std::move(message), "InvalidParameterValueException");
}

bool is_version_number(std::string_view text) { return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos; }

Result<void> check_new_name(const std::string& name) {
  const auto parsed = parse_function_name(name);
  if (!parsed.ok()) return parsed.error();
  if (parsed->name != name)
    return Error(ErrorCode::kInvalidArgument, "\"" + name + "\" is not a plain function name", "ValidationException");
  if (name.size() <= kNameLengthMax) return {};
  return Error(ErrorCode::kInvalidArgument,
               "1 validation error detected: Value '" + name +
                   "' at 'functionName' failed to satisfy constraint: Member must have length less than or equal to " +
                   std::to_string(kNameLengthMax),
               "ValidationException");
}

Result<void> check_tags(const Tags& tags) {
  if (tags.size() > kTagsMax) return invalid_parameter("Number of tags exceeds resource tag limit.");
  return {};
}

// Mayfly's own settings of a function (docs/adr/0004).
Result<void> check_own_variables(const FunctionConfig& config) {
  const std::string network = config.network();
  if (network != "outside" && network != "none") {
    return invalid_parameter("The environment variable MAYFLY_NETWORK has the value \"" + network +
                             "\"; it can be \"outside\" or \"none\".");
  }
  if (!config.environment) return {};
  if (!config.runs_per_environment()) {
    return invalid_parameter("The environment variable AWS_LAMBDA_MAX_CONCURRENCY has the value \"" +
                             config.environment->at("AWS_LAMBDA_MAX_CONCURRENCY") + "\"; it can be a number from 1 to " +
                             std::to_string(Limits::kRunsPerEnvironmentMax) + ".");
  }
  if (const auto contract = config.environment->find("MAYFLY_CONTRACT");
      contract != config.environment->end() && contract->second != "http") {
    return invalid_parameter("The environment variable MAYFLY_CONTRACT has the value \"" + contract->second +
                             "\"; it can be http, or be left out");
  }
  const auto waits = config.environment->find("MAYFLY_ALIAS_WAITS_FOR");
  if (waits == config.environment->end() || waits->second == "init") return {};
  return invalid_parameter("The environment variable MAYFLY_ALIAS_WAITS_FOR has the value \"" + waits->second +
                           "\"; it can only be \"init\".");
}

// The levels exist with the JSON format only, and are INFO there unless set (recorded: format switch).
void settle_log_levels(FunctionConfig& config) {
  const bool json = config.log_format == "JSON";
  for (std::string* level : {&config.application_log_level, &config.system_log_level}) {
    if (!json) level->clear();
    if (json && level->empty()) *level = "INFO";
  }
}

void settle(FunctionVersion& version) {
  version.state = FunctionState::kActive;
  version.update_status = UpdateStatus::kSuccessful;
  version.revision_id = base::random_uuid();
}

// As the API shows a version while it is being made: state Pending and no update status.
FunctionVersion as_pending(FunctionVersion version) {
  version.state = FunctionState::kPending;
  version.update_status = UpdateStatus::kNone;
  version.revision_id = base::random_uuid();
  return version;
}

// As the API shows a version while an update of it is under way.
FunctionVersion as_updating(FunctionVersion version) {
  version.update_status = UpdateStatus::kInProgress;
  version.revision_id = base::random_uuid();
  return version;
}

template <typename Value>
std::set<std::string> differing_keys(const std::map<std::string, Value>& a, const std::map<std::string, Value>& b) {
  std::set<std::string> keys;
  const auto note = [&keys](const auto& from, const auto& other) {
    for (const auto& [key, value] : from) {
      const auto found = other.find(key);
      if (found == other.end() || !(found->second == value)) keys.insert(key);
    }
  };
  note(a, b);
  note(b, a);
  return keys;
}

std::shared_ptr<const FunctionSettings> share_settings(FunctionSettings settings) {
  if (settings == *FunctionRecord::default_settings()) return FunctionRecord::default_settings();
  return std::make_shared<const FunctionSettings>(std::move(settings));
}

// Copied, not moved: a copy's texts have no spare room, and most of a server's memory for a function is its texts.
VersionPtr share(const FunctionVersion& version) { return std::make_shared<const FunctionVersion>(version); }

void put_into(FunctionConfig& config, const CodeIdentity& code) {
  config.code_id = code.id;
  config.code_sha256 = code.sha256_base64;
  config.code_size = code.size;
}

Result<void> check_unpacked(std::uint64_t own, const std::vector<LayerUse>& layers) {
  std::uint64_t total = own;
  for (const LayerUse& layer : layers) total += layer.unpacked_bytes;
  if (total <= Limits::kUnzippedBytesMax) return {};
  return invalid_parameter("Function code combined with layers exceeds the maximum allowed size of " +
                           std::to_string(Limits::kUnzippedBytesMax) + " bytes. The actual size is " + std::to_string(total) + " bytes.");
}

// Ascending numbers without leading zeros: shorter is smaller.
bool is_before(const VersionPtr& a, const VersionPtr& b) {
  return a->version.size() != b->version.size() ? a->version.size() < b->version.size() : a->version < b->version;
}

// Published versions that differ between two records. One walk along both, which looks at a version only where they differ: of a
// thousand versions a change touches one or none.
struct VersionChanges {
  std::vector<VersionPtr> put, removed;  // a changed one is in both
};
VersionChanges version_changes(const std::vector<VersionPtr>& before, const std::vector<VersionPtr>& after) {
  VersionChanges changes;
  auto old = before.begin();
  for (const VersionPtr& version : after) {
    while (old != before.end() && *old != version && !is_before(version, *old)) changes.removed.push_back(*old++);
    if (old != before.end() && *old == version) {
      ++old;
    } else {
      changes.put.push_back(version);
    }
  }
  changes.removed.insert(changes.removed.end(), old, before.end());
  return changes;
}

std::uint64_t code_bytes_of(const std::vector<VersionPtr>& versions) {
  std::uint64_t bytes = 0;
  for (const VersionPtr& version : versions) bytes += version->config.code_size;
  return bytes;
}
std::uint64_t code_bytes_of(const FunctionRecord& record) { return record.latest->config.code_size + code_bytes_of(record.published); }

// Recorded: tags, policies and provisioned concurrency give the version they concern a new revision. Aliases have their own.
void renew_revision(FunctionRecord& record, std::string_view qualifier) {
  const VersionPtr concerned = record.find(qualifier);
  if (concerned == nullptr) return;
  FunctionVersion renewed = *concerned;
  renewed.revision_id = base::random_uuid();
  const VersionPtr shared = share(renewed);
  if (record.latest == concerned) record.latest = shared;
  std::replace(record.published.begin(), record.published.end(), concerned, shared);
}

}  // namespace

void apply_change(FunctionConfig& config, const ConfigChange& change) {
  const auto set = [](auto& member, const auto& value) {
    if (value) member = *value;
  };
  set(config.runtime, change.runtime);
  set(config.handler, change.handler);
  set(config.role, change.role);
  set(config.description, change.description);
  set(config.log_format, change.log_format);
  set(config.application_log_level, change.application_log_level);
  set(config.system_log_level, change.system_log_level);
  set(config.log_group, change.log_group);
  set(config.tracing_mode, change.tracing_mode);
  set(config.snap_start, change.snap_start);
  set(config.accepted_json, change.accepted_json);
  set(config.timeout_s, change.timeout_s);
  set(config.memory_mb, change.memory_mb);
  set(config.ephemeral_mb, change.ephemeral_mb);
  set(config.layers, change.layers);
  if (change.environment) config.environment = change.environment;
}

struct FunctionRegistry::Impl {
  Impl(store::Catalogue& a_catalogue, CodeStore& a_code, Account an_account, const base::Clock& a_clock)
      : catalogue(a_catalogue), code(a_code), account(std::move(an_account)), clock(a_clock) {}

  // --- Errors with AWS's texts.
  Error not_found(const std::string& name) const {
    return Error(ErrorCode::kNotFound, "Function not found: " + account.function_arn(name), "ResourceNotFoundException");
  }
  Error already_exists(const std::string& name) const {
    return Error(ErrorCode::kAlreadyExists, "Function already exist: " + name, "ResourceConflictException");
  }
  Result<RecordPtr> existing(const std::string& name) const {
    RecordPtr record = view.find(name);
    if (record == nullptr) return not_found(name);
    return record;
  }
  Result<RecordPtr> existing_at(const std::string& name, const std::string& revision_id) const {
    MAYFLY_ASSIGN(RecordPtr record, existing(name));
    if (revision_id.empty() || record->latest->revision_id == revision_id) return record;
    return Error(ErrorCode::kPreconditionFailed,
                 "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve the latest "
                 "Revision Id",
                 "PreconditionFailedException");
  }

  // --- Loading.
  Result<void> load();
  // What the store has of one function; versions that were under way when the server ended are settled, and put into `settled`.
  Result<RecordPtr> read_record(const store::FunctionRow& row, const std::vector<store::VersionRow>& versions,
                                store::CatalogueChange& settled) const;
  // Every code id that a version names, layers' included.
  void add_code_names(std::set<std::string>& names) const;
  static void note_settled(FunctionVersion& version, store::CatalogueChange& settled);

  // --- Changing; the caller holds `writing`.
  // Generations come from the clock, so that a function deleted and made again never repeats one.
  std::uint64_t next_generation() MAYFLY_REQUIRES(writing) {
    const auto now_us = static_cast<std::uint64_t>(std::max<std::int64_t>(clock.wall_now().time_since_epoch().count(), 0));
    last_generation = std::max(last_generation + 1, now_us);
    return last_generation;
  }
  std::string now_text() const { return base::format_lambda_time(clock.wall_now()); }
  // Stores what differs from `before` (null: a new function), then shows it.
  Result<void> commit(const RecordPtr& before, const FunctionRecord& after) MAYFLY_REQUIRES(writing);
  // Adds a version made of $LATEST; the record's $LATEST gets a new revision.
  VersionPtr add_version(FunctionRecord& record, const std::optional<std::string>& description) MAYFLY_REQUIRES(writing);
  // The last published version when $LATEST has not changed since, else null.
  static VersionPtr unchanged_version(const FunctionRecord& record) {
    if (record.published.empty() || record.published.back()->generation != record.latest->generation) return nullptr;
    return record.published.back();
  }
  // Makes `next` the record's $LATEST after an update: times, generation, settled state, and the answer.
  VersionPtr update_latest(FunctionRecord& record, FunctionVersion next) MAYFLY_REQUIRES(writing);
  Result<RecordPtr> change_settings(const std::string& name, const SettingsChange& change);
  void index_urls(const std::string& name, const FunctionSettings& before, const FunctionSettings& after) MAYFLY_REQUIRES(writing);
  // Marks a change as under way from now on.
  std::shared_ptr<UnderWay> begin(UnderWay::Kind kind) const {
    auto made = std::make_shared<UnderWay>();
    made->kind = kind;
    made->until = clock.now() + kUpdateWindow;
    return made;
  }
  // ResourceConflictException while a creation or update is under way.
  Result<void> check_idle(const FunctionRecord& record) const {
    if (record.under_way == nullptr || record.under_way->seen || clock.now() >= record.under_way->until) return {};
    if (record.under_way->kind == UnderWay::Kind::kUpdate) {
      return Error(ErrorCode::kConflict,
                   "The operation cannot be performed at this time. An update is in progress for resource: " + record.latest->arn,
                   "ResourceConflictException");
    }
    return Error(ErrorCode::kConflict,
                 "The operation cannot be performed at this time. The function is currently in the following state: Pending",
                 "ResourceConflictException");
  }
  Result<void> remove_function(const std::string& name) MAYFLY_REQUIRES(writing);
  Result<void> remove_version(const std::string& name, const std::string& version) MAYFLY_REQUIRES(writing);

  Result<VersionPtr> insert(const std::string& name, FunctionConfig config, Tags tags, bool publish);
  Result<VersionPtr> replace_code(const std::string& name, const CodeIdentity& identity, const std::optional<std::string>& architecture,
                                  const std::string& revision_id, bool publish, bool dry_run);

  void tell(const std::string& name) const {
    const auto all = listeners.get();
    for (const auto& listener : *all) listener(name);
  }

  using Listeners = std::vector<std::function<void(const std::string&)>>;

  store::Catalogue& catalogue;
  CodeStore& code;
  const Account account;
  const base::Clock& clock;

  FunctionView view;
  ShardedMap<std::string> urls;  // id to function name
  std::atomic<std::uint64_t> code_bytes = 0;
  base::Published<Listeners> listeners{std::make_shared<const Listeners>()};
  base::Mutex writing;  // held over the commit: changes happen one after the other
  std::uint64_t last_generation MAYFLY_GUARDED_BY(writing) = 0;
};

// --- Loading ---

void FunctionRegistry::Impl::note_settled(FunctionVersion& version, store::CatalogueChange& settled) {
  if (version.state != FunctionState::kPending && version.update_status != UpdateStatus::kInProgress) return;
  settle(version);
  settled.put_versions.push_back(to_row(version));
}

Result<RecordPtr> FunctionRegistry::Impl::read_record(const store::FunctionRow& row, const std::vector<store::VersionRow>& versions,
                                                      store::CatalogueChange& settled) const {
  static const std::string kNothingSet = settings_to_document(*FunctionRecord::default_settings());
  FunctionRecord record;
  record.next_version = row.next_version;
  if (row.document != kNothingSet) {
    auto settings = settings_from_document(row.document);
    if (!settings.ok()) return std::move(settings).error().with_context("function " + row.name);
    record.settings = share_settings(*std::move(settings));
  }
  for (const store::VersionRow& each : versions) {
    MAYFLY_ASSIGN(FunctionVersion version, version_from(each, account));
    note_settled(version, settled);
    auto shared = std::make_shared<const FunctionVersion>(std::move(version));
    if (each.version == kLatest) {
      record.latest = std::move(shared);
    } else {
      record.published.push_back(std::move(shared));
    }
  }
  if (record.latest == nullptr) {
    return Error(ErrorCode::kDataLoss, "the catalogue has function " + row.name + " without its $LATEST version; restore it from a backup");
  }
  // Rows come in order of text, where "10" is before "2".
  std::sort(record.published.begin(), record.published.end(), is_before);
  record.published.shrink_to_fit();
  return std::make_shared<const FunctionRecord>(std::move(record));
}

Result<void> FunctionRegistry::Impl::load() {
  const MutexLock lock(writing);
  store::CatalogueChange settled;
  std::vector<RecordPtr> records;
  MAYFLY_TRY(catalogue.each_function([&](const store::FunctionRow& row, const std::vector<store::VersionRow>& versions) -> Result<void> {
    MAYFLY_ASSIGN(RecordPtr record, read_record(row, versions, settled));
    records.push_back(std::move(record));
    return {};
  }));
  if (!settled.put_versions.empty()) MAYFLY_TRY(catalogue.apply(settled));
  std::uint64_t bytes = 0;
  for (const RecordPtr& record : records) {
    bytes += code_bytes_of(*record);
    last_generation = std::max(last_generation, record->latest->generation);
  }
  code_bytes = bytes;
  view.load(records);
  for (const RecordPtr& record : records) index_urls(record->latest->function_name, *FunctionRecord::default_settings(), *record->settings);
  return {};
}

void FunctionRegistry::Impl::add_code_names(std::set<std::string>& names) const {
  const auto add = [&names](const FunctionVersion& version) {
    names.insert(version.config.code_id);
    for (const LayerUse& layer : version.config.layers) names.insert(layer.code_id);
  };
  view.each([&](const RecordPtr& record) {
    add(*record->latest);
    for (const VersionPtr& version : record->published) add(*version);
  });
}

// --- Changing ---

Result<void> FunctionRegistry::Impl::commit(const RecordPtr& before, const FunctionRecord& after) {
  store::CatalogueChange change;
  const std::string& name = after.latest->function_name;
  const bool new_settings = before == nullptr || before->settings != after.settings;
  if (new_settings || before->next_version != after.next_version) {
    change.put_functions.push_back({.name = name, .next_version = after.next_version, .document = settings_to_document(*after.settings)});
  }
  if (before == nullptr || before->latest != after.latest) change.put_versions.push_back(to_row(*after.latest));
  static const std::vector<VersionPtr> kNone;
  const VersionChanges versions = version_changes(before == nullptr ? kNone : before->published, after.published);
  for (const VersionPtr& version : versions.put) change.put_versions.push_back(to_row(*version));
  for (const VersionPtr& version : versions.removed) {
    if (after.find(version->version) == nullptr) change.remove_versions.emplace_back(name, version->version);
  }
  MAYFLY_TRY(catalogue.apply(change));
  const std::uint64_t gone = code_bytes_of(versions.removed) + (before == nullptr ? 0 : before->latest->config.code_size);
  code_bytes += after.latest->config.code_size + code_bytes_of(versions.put) - gone;
  view.put(std::make_shared<const FunctionRecord>(after));
  if (new_settings) index_urls(name, before == nullptr ? *FunctionRecord::default_settings() : *before->settings, *after.settings);
  return {};
}

void FunctionRegistry::Impl::index_urls(const std::string& name, const FunctionSettings& before, const FunctionSettings& after) {
  if (before.urls == after.urls) return;
  for (const auto& [qualifier, url] : before.urls) urls.remove(url.id);
  for (const auto& [qualifier, url] : after.urls) urls.put(url.id, name);
}

VersionPtr FunctionRegistry::Impl::add_version(FunctionRecord& record, const std::optional<std::string>& description) {
  FunctionVersion version = *record.latest;
  version.version = std::to_string(record.next_version++);
  version.last_modified = now_text();
  if (description) version.config.description = *description;
  settle(version);
  record.published.push_back(share(version));
  FunctionVersion latest = *record.latest;
  latest.revision_id = base::random_uuid();
  record.latest = share(latest);
  return record.published.back();
}

VersionPtr FunctionRegistry::Impl::update_latest(FunctionRecord& record, FunctionVersion next) {
  if (!(next.config == record.latest->config)) next.generation = next_generation();
  next.last_modified = now_text();
  VersionPtr answer = share(as_updating(next));
  settle(next);
  record.latest = share(next);
  record.under_way = begin(UnderWay::Kind::kUpdate);
  return answer;
}

Result<VersionPtr> FunctionRegistry::Impl::insert(const std::string& name, FunctionConfig config, Tags tags, bool publish) {
  const MutexLock lock(writing);
  if (view.find(name) != nullptr) return already_exists(name);
  FunctionVersion latest;
  latest.function_name = name;
  latest.version = kLatest;
  latest.arn = account.function_arn(name);
  latest.last_modified = now_text();
  latest.generation = next_generation();
  latest.config = std::move(config);
  VersionPtr answer = share(as_pending(latest));
  settle(latest);
  FunctionRecord record;
  record.latest = share(latest);
  FunctionSettings settings;
  settings.tags = std::move(tags);
  record.settings = share_settings(std::move(settings));
  record.under_way = begin(UnderWay::Kind::kCreation);
  if (publish) answer = share(as_pending(*add_version(record, std::nullopt)));
  MAYFLY_TRY(commit(nullptr, record));
  return answer;
}

Result<VersionPtr> FunctionRegistry::Impl::replace_code(const std::string& name, const CodeIdentity& identity,
                                                        const std::optional<std::string>& architecture, const std::string& revision_id,
                                                        bool publish, bool dry_run) {
  const MutexLock lock(writing);
  MAYFLY_ASSIGN(const RecordPtr before, existing_at(name, revision_id));
  MAYFLY_TRY(check_idle(*before));
  FunctionRecord record = *before;
  FunctionVersion next = *before->latest;
  put_into(next.config, identity);
  if (architecture) next.config.architecture = *architecture;
  if (dry_run) return share(next);
  VersionPtr answer = update_latest(record, std::move(next));
  if (publish) {
    const VersionPtr same = unchanged_version(record);
    answer = same != nullptr ? same : share(as_pending(*add_version(record, std::nullopt)));
  }
  MAYFLY_TRY(commit(before, record));
  return answer;
}

Result<RecordPtr> FunctionRegistry::Impl::change_settings(const std::string& name, const SettingsChange& change) {
  const MutexLock lock(writing);
  MAYFLY_ASSIGN(const RecordPtr before, existing(name));
  FunctionSettings settings = *before->settings;
  MAYFLY_TRY(change(*before, settings));
  if (settings == *before->settings) return before;
  FunctionRecord record = *before;
  if (settings.tags != before->settings->tags) {
    MAYFLY_TRY(check_tags(settings.tags));
    renew_revision(record, kLatest);
  }
  for (const std::string& qualifier : differing_keys(settings.policies, before->settings->policies)) {
    if (before->find_alias(qualifier) == nullptr) renew_revision(record, qualifier);
  }
  for (const std::string& qualifier : differing_keys(settings.provisioned, before->settings->provisioned))
    renew_revision(record, qualifier);
  record.settings = share_settings(std::move(settings));
  MAYFLY_TRY(commit(before, record));
  return view.find(name);
}

Result<void> FunctionRegistry::Impl::remove_function(const std::string& name) {
  MAYFLY_ASSIGN(const RecordPtr record, existing(name));
  store::CatalogueChange change;
  change.remove_functions.push_back(name);
  MAYFLY_TRY(catalogue.apply(change));
  code_bytes -= code_bytes_of(*record);
  view.remove(name);
  index_urls(name, *record->settings, *FunctionRecord::default_settings());
  return {};
}

Result<void> FunctionRegistry::Impl::remove_version(const std::string& name, const std::string& version) {
  MAYFLY_ASSIGN(const RecordPtr before, existing(name));
  if (before->find(version) == nullptr) return {};
  std::string users;
  for (const auto& [alias, target] : before->settings->aliases) {
    if (target.version == version || target.additional_version == version) users += (users.empty() ? "" : ", ") + alias;
  }
  if (!users.empty()) {
    return Error(ErrorCode::kConflict,
                 "Version " + version + " of " + before->latest->arn + " is used by the alias " + users +
                     "; point the alias at another version or delete it first.",
                 "ResourceConflictException");
  }
  FunctionRecord record = *before;
  std::erase_if(record.published, [&](const VersionPtr& each) { return each->version == version; });
  FunctionSettings settings = *before->settings;  // what was set for that version goes with it
  settings.provisioned.erase(version);
  settings.policies.erase(version);
  settings.event_invoke.erase(version);
  settings.runtime_management.erase(version);
  if (!(settings == *before->settings)) record.settings = share_settings(std::move(settings));
  return commit(before, record);
}

// --- The public face ---

FunctionRegistry::FunctionRegistry(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FunctionRegistry::~FunctionRegistry() = default;

Result<std::unique_ptr<FunctionRegistry>> FunctionRegistry::open(store::Catalogue& catalogue, CodeStore& code, Account account,
                                                                 const base::Clock& clock) {
  auto impl = std::make_unique<Impl>(catalogue, code, std::move(account), clock);
  MAYFLY_TRY(impl->load().with_context("cannot load the catalogue"));
  code.add_owner([loaded = impl.get()](std::set<std::string>& names) { loaded->add_code_names(names); });
  return std::unique_ptr<FunctionRegistry>(new FunctionRegistry(std::move(impl)));
}

const Account& FunctionRegistry::account() const { return impl_->account; }
RecordPtr FunctionRegistry::find(std::string_view name) const { return impl_->view.find(name); }
std::vector<RecordPtr> FunctionRegistry::list(std::string_view after, std::size_t max) const { return impl_->view.list(after, max); }
void FunctionRegistry::each(const std::function<void(const RecordPtr& record)>& visit) const { impl_->view.each(visit); }
std::size_t FunctionRegistry::function_count() const { return impl_->view.size(); }
std::uint64_t FunctionRegistry::total_code_bytes() const { return impl_->code_bytes; }

Result<VersionPtr> FunctionRegistry::create(const std::string& name, FunctionConfig config, std::string zip, Tags tags, bool publish) {
  MAYFLY_TRY(check_new_name(name));
  MAYFLY_TRY(check_tags(tags));
  MAYFLY_TRY(check_own_variables(config));
  if (find(name) != nullptr) return impl_->already_exists(name);  // before the work; asked again with the lock held
  const CodeIdentity identity = CodeStore::identify(zip);
  CodeStore::Hold hold(impl_->code, identity.id);
  MAYFLY_ASSIGN(const std::uint64_t unpacked, impl_->code.put(hold, zip));
  MAYFLY_TRY(check_unpacked(unpacked, config.layers));
  put_into(config, identity);
  if (config.log_group.empty()) config.log_group = "/aws/lambda/" + name;
  settle_log_levels(config);
  MAYFLY_ASSIGN(VersionPtr answer, impl_->insert(name, std::move(config), std::move(tags), publish));
  hold.keep();
  impl_->tell(name);
  return answer;
}

Result<VersionPtr> FunctionRegistry::update_code(const std::string& name, std::string zip, std::optional<std::string> architecture,
                                                 const std::string& revision_id, bool publish, bool dry_run) {
  MAYFLY_ASSIGN(const RecordPtr there, impl_->existing_at(name, revision_id));  // before the work; asked again with the lock held
  MAYFLY_TRY(impl_->check_idle(*there));
  const CodeIdentity identity = CodeStore::identify(zip);
  CodeStore::Hold hold(impl_->code, identity.id);
  MAYFLY_ASSIGN(const std::uint64_t unpacked, impl_->code.put(hold, zip));
  MAYFLY_TRY(check_unpacked(unpacked, there->latest->config.layers));
  MAYFLY_ASSIGN(VersionPtr answer, impl_->replace_code(name, identity, architecture, revision_id, publish, dry_run));
  if (dry_run) return answer;
  hold.keep();
  impl_->tell(name);
  return answer;
}

Result<VersionPtr> FunctionRegistry::update_configuration(const std::string& name, const ConfigChange& change,
                                                          const std::string& revision_id) {
  if (change.layers) {
    MAYFLY_ASSIGN(const RecordPtr there, impl_->existing(name));
    MAYFLY_ASSIGN(const std::uint64_t unpacked, impl_->code.unpacked_bytes(there->latest->config.code_id));
    MAYFLY_TRY(check_unpacked(unpacked, *change.layers));
  }
  VersionPtr answer;
  {
    const MutexLock lock(impl_->writing);
    MAYFLY_ASSIGN(const RecordPtr before, impl_->existing_at(name, revision_id));
    MAYFLY_TRY(impl_->check_idle(*before));
    FunctionRecord record = *before;
    FunctionVersion next = *before->latest;
    apply_change(next.config, change);
    MAYFLY_TRY(check_own_variables(next.config));
    settle_log_levels(next.config);
    answer = impl_->update_latest(record, std::move(next));
    MAYFLY_TRY(impl_->commit(before, record));
  }
  impl_->tell(name);
  return answer;
}

Result<VersionPtr> FunctionRegistry::publish(const std::string& name, const std::string& code_sha256,
                                             std::optional<std::string> description, const std::string& revision_id) {
  VersionPtr answer;
  {
    const MutexLock lock(impl_->writing);
    MAYFLY_ASSIGN(const RecordPtr before, impl_->existing_at(name, revision_id));
    MAYFLY_TRY(impl_->check_idle(*before));
    const std::string& current = before->latest->config.code_sha256;
    if (!code_sha256.empty() && code_sha256 != current) {
      return invalid_parameter("CodeSHA256 (" + code_sha256 + ") is different from current CodeSHA256 in $LATEST (" + current +
                               "). Please try again with the CodeSHA256 in $LATEST.");
    }
    if (VersionPtr same = Impl::unchanged_version(*before)) return same;
    FunctionRecord record = *before;
    answer = impl_->add_version(record, description);
    MAYFLY_TRY(impl_->commit(before, record));
  }
  impl_->tell(name);
  return answer;
}

Result<void> FunctionRegistry::remove(const std::string& name, const std::string& qualifier) {
  if (qualifier == kLatest) return invalid_parameter("$LATEST version cannot be deleted without deleting the function.");
  if (!qualifier.empty() && !is_version_number(qualifier)) return invalid_parameter("Deletion of aliases is not currently supported.");
  {
    const MutexLock lock(impl_->writing);
    MAYFLY_TRY(qualifier.empty() ? impl_->remove_function(name) : impl_->remove_version(name, qualifier));
  }
  impl_->tell(name);
  return {};
}

Result<void> FunctionRegistry::tag(const std::string& name, const Tags& tags) {
  if (tags.empty()) return invalid_parameter("An error occurred and the request cannot be processed.");  // AWS's words for an empty set
  MAYFLY_TRY(change_settings(name, [&tags](const FunctionRecord&, FunctionSettings& settings) -> Result<void> {
    for (const auto& [key, value] : tags) settings.tags[key] = value;
    return {};
  }));
  return {};
}

Result<void> FunctionRegistry::untag(const std::string& name, const std::vector<std::string>& keys) {
  MAYFLY_TRY(change_settings(name, [&keys](const FunctionRecord&, FunctionSettings& settings) -> Result<void> {
    for (const std::string& key : keys) settings.tags.erase(key);
    return {};
  }));
  return {};
}

Result<RecordPtr> FunctionRegistry::change_settings(const std::string& name, const SettingsChange& change) {
  MAYFLY_ASSIGN(RecordPtr changed, impl_->change_settings(name, change));
  impl_->tell(name);
  return changed;
}

std::optional<UrlTarget> FunctionRegistry::find_url(std::string_view url_id) const {
  const auto name = impl_->urls.find(url_id);
  RecordPtr record = name ? find(*name) : nullptr;
  if (record == nullptr) return std::nullopt;
  for (const auto& [qualifier, url] : record->settings->urls) {
    if (url.id == url_id) return UrlTarget{.record = record, .qualifier = qualifier};
  }
  return std::nullopt;  // changed since the index was read
}

void FunctionRegistry::observed(const FunctionRecord& record) const {
  if (record.under_way != nullptr) record.under_way->seen = true;
}

void FunctionRegistry::on_change(std::function<void(const std::string& name)> listener) {
  const MutexLock lock(impl_->writing);
  auto all = std::make_shared<Impl::Listeners>(*impl_->listeners.get());
  all->push_back(std::move(listener));
  impl_->listeners.set(std::move(all));
}

}  // namespace mayfly::engine
