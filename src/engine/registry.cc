#include "engine/registry.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "base/mutex.h"
#include "engine/internal/documents.h"
#include "engine/internal/function_view.h"

namespace mayfly::engine {
namespace {

using base::Error;
using base::ErrorCode;
using base::MutexLock;
using base::Result;
using Tags = std::map<std::string, std::string>;

constexpr std::size_t kNameLengthMax = 64;  // AWS's practice; the model's pattern allows more
constexpr std::size_t kTagsMax = 50;
constexpr const char* kCreatingReason = "The function is being created.";  // AWS says so for updates too

Error invalid_parameter(std::string message) {
  return Error(ErrorCode::kInvalidArgument, std::move(message), "InvalidParameterValueException");
}

// The archive's faults get AWS's type; the platform's keep theirs.
Error code_error(Error error) {
  if (error.code() == ErrorCode::kInvalidArgument && error.id().empty()) return invalid_parameter(error.message());
  return error;
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

Result<void> check_network(const FunctionConfig& config) {
  const std::string network = config.network();
  if (network == "outside" || network == "none") return {};
  return invalid_parameter("The environment variable MAYFLY_NETWORK has the value \"" + network + "\"; it can be \"outside\" or \"none\".");
}

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
  if (change.environment) config.environment = change.environment;
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
  version.state_reason.clear();
  version.state_reason_code.clear();
  version.update_status = UpdateStatus::kSuccessful;
  version.update_reason.clear();
  version.update_reason_code.clear();
  version.revision_id = base::random_uuid();
}

// As the API shows a version while it is being made: state Pending and no update status.
FunctionVersion as_pending(FunctionVersion version) {
  version.state = FunctionState::kPending;
  version.state_reason = kCreatingReason;
  version.state_reason_code = "Creating";
  version.update_status = UpdateStatus::kNone;
  version.revision_id = base::random_uuid();
  return version;
}

// As the API shows a version while an update of it is under way.
FunctionVersion as_updating(FunctionVersion version) {
  version.update_status = UpdateStatus::kInProgress;
  version.update_reason = kCreatingReason;
  version.update_reason_code = "Creating";
  version.revision_id = base::random_uuid();
  return version;
}

VersionPtr share(FunctionVersion version) { return std::make_shared<const FunctionVersion>(std::move(version)); }

struct CodeIdentity {
  std::string id, sha256_base64;
  std::uint64_t size = 0;

  void put_into(FunctionConfig& config) const {
    config.code_id = id;
    config.code_sha256 = sha256_base64;
    config.code_size = size;
  }
};

CodeIdentity identify(std::string_view zip) {
  const base::Sha256Digest digest = base::sha256(zip);
  return {.id = base::hex_encode(digest), .sha256_base64 = base::base64_encode(base::as_text(digest)), .size = zip.size()};
}

std::uint64_t code_bytes_of(const FunctionRecord& record) {
  std::uint64_t bytes = record.latest->config.code_size;
  for (const VersionPtr& version : record.published) bytes += version->config.code_size;
  return bytes;
}

}  // namespace

struct FunctionRegistry::Impl {
  Impl(store::Catalogue& a_catalogue, store::Blobs& a_blobs, CodePreparer a_prepare, std::function<void(const std::string&)> a_discard,
       Account an_account, const base::Clock& a_clock)
      : catalogue(a_catalogue),
        blobs(a_blobs),
        prepare(std::move(a_prepare)),
        discard(std::move(a_discard)),
        account(std::move(an_account)),
        clock(a_clock) {}

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

  // --- Code. While held, a code is being deployed: sweep() leaves it alone although no version names it yet.
  void pin(const std::string& code_id) {
    const MutexLock lock(writing);
    ++pins[code_id];
  }
  // What came to nothing goes at once; what was there before may be in use and is left to sweep().
  void unpin(const std::string& code_id, bool was_there) {
    const MutexLock lock(writing);
    const auto found = pins.find(code_id);
    if (--found->second > 0) return;
    pins.erase(found);
    if (!was_there && !is_named(code_id)) forget_code(code_id);
  }
  bool is_named(const std::string& code_id) const {
    const auto names = [&code_id](const VersionPtr& version) { return version->config.code_id == code_id; };
    const std::vector<RecordPtr> all = view.all();
    return std::any_of(all.begin(), all.end(), [&](const RecordPtr& record) {
      return names(record->latest) || std::any_of(record->published.begin(), record->published.end(), names);
    });
  }
  class CodeHold {
   public:
    CodeHold(Impl& impl, const std::string& code_id) : impl_(impl), code_id_(code_id) {
      impl_.pin(code_id_);
      was_there_ = impl_.blobs.open(code_id_, false).ok();
    }
    ~CodeHold() { impl_.unpin(code_id_, was_there_ || kept_); }
    CodeHold(const CodeHold&) = delete;
    CodeHold& operator=(const CodeHold&) = delete;
    // A version names it now.
    void keep() { kept_ = true; }

   private:
    Impl& impl_;
    const std::string code_id_;
    bool was_there_ = false;
    bool kept_ = false;
  };
  Result<void> store_code(const std::string& zip) {
    MAYFLY_ASSIGN(const std::string id, blobs.put(zip));
    Result<void> prepared = prepare(id);
    if (prepared.ok()) return {};
    return code_error(std::move(prepared).error());
  }
  void forget_code(const std::string& code_id) {
    discard(code_id);  // first: a crash in between leaves the blob, by which the next start finds the rest
    const Result<void> removed = blobs.remove(code_id);
    if (!removed.ok()) base::log_warning("unused code stays on disk", {{"code", code_id}, {"cause", removed.error().message()}});
  }

  // --- Loading.
  Result<void> load();
  Result<std::vector<RecordPtr>> read_records(store::CatalogueChange& settled);
  Result<std::map<std::string, FunctionRecord>> read_functions();
  void note_settled(FunctionVersion& version, store::CatalogueChange& settled);
  Result<std::size_t> sweep_locked(const std::set<std::string>& in_use) MAYFLY_REQUIRES(writing);

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
  Result<void> change_tags(const std::string& name, const std::function<void(Tags&)>& change);
  Result<void> remove_function(const std::string& name) MAYFLY_REQUIRES(writing);
  Result<void> remove_version(const std::string& name, const std::string& version) MAYFLY_REQUIRES(writing);

  Result<VersionPtr> insert(const std::string& name, FunctionConfig config, Tags tags, bool publish);
  Result<VersionPtr> replace_code(const std::string& name, const CodeIdentity& code, const std::optional<std::string>& architecture,
                                  const std::string& revision_id, bool publish, bool dry_run);

  void tell(const std::string& name) const {
    const auto all = listeners.get();
    for (const auto& listener : *all) listener(name);
  }

  using Listeners = std::vector<std::function<void(const std::string&)>>;

  store::Catalogue& catalogue;
  store::Blobs& blobs;
  const CodePreparer prepare;
  const std::function<void(const std::string&)> discard;
  const Account account;
  const base::Clock& clock;

  FunctionView view;
  std::atomic<std::uint64_t> code_bytes = 0;
  base::Published<Listeners> listeners{std::make_shared<const Listeners>()};
  base::Mutex writing;  // held over the commit: changes happen one after the other
  std::uint64_t last_generation MAYFLY_GUARDED_BY(writing) = 0;
  std::map<std::string, std::size_t> pins MAYFLY_GUARDED_BY(writing);
};

// --- Loading ---

Result<std::map<std::string, FunctionRecord>> FunctionRegistry::Impl::read_functions() {
  MAYFLY_ASSIGN(const std::vector<store::FunctionRow> rows, catalogue.functions());
  std::map<std::string, FunctionRecord> functions;
  for (const store::FunctionRow& row : rows) {
    auto tags = tags_from_document(row.document);
    if (!tags.ok()) return std::move(tags).error().with_context("function " + row.name);
    FunctionRecord& record = functions[row.name];
    record.next_version = row.next_version;
    record.tags = *std::move(tags);
  }
  return functions;
}

void FunctionRegistry::Impl::note_settled(FunctionVersion& version, store::CatalogueChange& settled) {
  if (version.state != FunctionState::kPending && version.update_status != UpdateStatus::kInProgress) return;
  settle(version);
  settled.put_versions.push_back(to_row(version));
}

Result<std::vector<RecordPtr>> FunctionRegistry::Impl::read_records(store::CatalogueChange& settled) {
  MAYFLY_ASSIGN(auto functions, read_functions());
  MAYFLY_ASSIGN(const std::vector<store::VersionRow> rows, catalogue.versions());
  for (const store::VersionRow& row : rows) {
    MAYFLY_ASSIGN(FunctionVersion version, version_from(row, account));
    note_settled(version, settled);
    FunctionRecord& record = functions[row.name];
    if (row.version == kLatest) {
      record.latest = share(std::move(version));
    } else {
      record.published.push_back(share(std::move(version)));
    }
  }
  std::vector<RecordPtr> records;
  records.reserve(functions.size());
  for (auto& [name, record] : functions) {
    if (record.latest == nullptr)
      return Error(ErrorCode::kDataLoss, "the catalogue has function " + name + " without its $LATEST version; restore it from a backup");
    // Rows come in order of text, where "10" is before "2".
    std::sort(record.published.begin(), record.published.end(), [](const VersionPtr& a, const VersionPtr& b) {
      return a->version.size() != b->version.size() ? a->version.size() < b->version.size() : a->version < b->version;
    });
    records.push_back(std::make_shared<const FunctionRecord>(std::move(record)));
  }
  return records;
}

Result<void> FunctionRegistry::Impl::load() {
  const MutexLock lock(writing);
  store::CatalogueChange settled;
  MAYFLY_ASSIGN(const std::vector<RecordPtr> records, read_records(settled));
  if (!settled.put_versions.empty()) MAYFLY_TRY(catalogue.apply(settled));
  std::uint64_t bytes = 0;
  for (const RecordPtr& record : records) {
    bytes += code_bytes_of(*record);
    last_generation = std::max(last_generation, record->latest->generation);
  }
  code_bytes = bytes;
  view.load(records);
  const auto swept = sweep_locked({});
  if (!swept.ok()) base::log_warning("unused code could not be looked for", {{"cause", swept.error().message()}});
  return {};
}

Result<std::size_t> FunctionRegistry::Impl::sweep_locked(const std::set<std::string>& in_use) {
  MAYFLY_ASSIGN(const std::vector<std::string> stored, blobs.list());
  std::set<std::string> needed = in_use;
  for (const auto& [code_id, count] : pins) needed.insert(code_id);
  for (const RecordPtr& record : view.all()) {
    needed.insert(record->latest->config.code_id);
    for (const VersionPtr& version : record->published) needed.insert(version->config.code_id);
  }
  std::size_t gone = 0;
  for (const std::string& code_id : stored) {
    if (needed.contains(code_id)) continue;
    forget_code(code_id);
    ++gone;
  }
  return gone;
}

// --- Changing ---

Result<void> FunctionRegistry::Impl::commit(const RecordPtr& before, const FunctionRecord& after) {
  store::CatalogueChange change;
  const std::string& name = after.latest->function_name;
  if (before == nullptr || before->next_version != after.next_version || before->tags != after.tags) {
    change.put_functions.push_back({.name = name, .next_version = after.next_version, .document = tags_to_document(after.tags)});
  }
  if (before == nullptr || before->latest != after.latest) change.put_versions.push_back(to_row(*after.latest));
  for (const VersionPtr& version : after.published) {
    if (before == nullptr || before->find(version->version) == nullptr) change.put_versions.push_back(to_row(*version));
  }
  if (before != nullptr) {
    for (const VersionPtr& version : before->published) {
      if (after.find(version->version) == nullptr) change.remove_versions.emplace_back(name, version->version);
    }
  }
  MAYFLY_TRY(catalogue.apply(change));
  code_bytes += code_bytes_of(after) - (before == nullptr ? 0 : code_bytes_of(*before));
  view.put(std::make_shared<const FunctionRecord>(after));
  return {};
}

VersionPtr FunctionRegistry::Impl::add_version(FunctionRecord& record, const std::optional<std::string>& description) {
  FunctionVersion version = *record.latest;
  version.version = std::to_string(record.next_version++);
  version.last_modified = now_text();
  if (description) version.config.description = *description;
  settle(version);
  record.published.push_back(share(std::move(version)));
  FunctionVersion latest = *record.latest;
  latest.revision_id = base::random_uuid();
  record.latest = share(std::move(latest));
  return record.published.back();
}

VersionPtr FunctionRegistry::Impl::update_latest(FunctionRecord& record, FunctionVersion next) {
  if (!(next.config == record.latest->config)) next.generation = next_generation();
  next.last_modified = now_text();
  VersionPtr answer = share(as_updating(next));
  settle(next);
  record.latest = share(std::move(next));
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
  record.latest = share(std::move(latest));
  record.tags = std::move(tags);
  if (publish) answer = share(as_pending(*add_version(record, std::nullopt)));
  MAYFLY_TRY(commit(nullptr, record));
  return answer;
}

Result<VersionPtr> FunctionRegistry::Impl::replace_code(const std::string& name, const CodeIdentity& code,
                                                        const std::optional<std::string>& architecture, const std::string& revision_id,
                                                        bool publish, bool dry_run) {
  const MutexLock lock(writing);
  MAYFLY_ASSIGN(const RecordPtr before, existing_at(name, revision_id));
  FunctionRecord record = *before;
  FunctionVersion next = *before->latest;
  code.put_into(next.config);
  if (architecture) next.config.architecture = *architecture;
  if (dry_run) return share(std::move(next));
  VersionPtr answer = update_latest(record, std::move(next));
  if (publish) {
    const VersionPtr same = unchanged_version(record);
    answer = same != nullptr ? same : share(as_pending(*add_version(record, std::nullopt)));
  }
  MAYFLY_TRY(commit(before, record));
  return answer;
}

Result<void> FunctionRegistry::Impl::change_tags(const std::string& name, const std::function<void(Tags&)>& change) {
  const MutexLock lock(writing);
  MAYFLY_ASSIGN(const RecordPtr before, existing(name));
  FunctionRecord record = *before;
  change(record.tags);
  if (record.tags == before->tags) return {};
  MAYFLY_TRY(check_tags(record.tags));
  FunctionVersion latest = *before->latest;
  latest.revision_id = base::random_uuid();  // recorded: tags change it
  record.latest = share(std::move(latest));
  return commit(before, record);
}

Result<void> FunctionRegistry::Impl::remove_function(const std::string& name) {
  MAYFLY_ASSIGN(const RecordPtr record, existing(name));
  store::CatalogueChange change;
  change.remove_functions.push_back(name);
  MAYFLY_TRY(catalogue.apply(change));
  code_bytes -= code_bytes_of(*record);
  view.remove(name);
  return {};
}

Result<void> FunctionRegistry::Impl::remove_version(const std::string& name, const std::string& version) {
  MAYFLY_ASSIGN(const RecordPtr before, existing(name));
  if (before->find(version) == nullptr) return {};
  FunctionRecord record = *before;
  std::erase_if(record.published, [&](const VersionPtr& each) { return each->version == version; });
  return commit(before, record);
}

// --- The public face ---

FunctionRegistry::FunctionRegistry(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FunctionRegistry::~FunctionRegistry() = default;

Result<std::unique_ptr<FunctionRegistry>> FunctionRegistry::open(store::Catalogue& catalogue, store::Blobs& blobs, CodePreparer prepare,
                                                                 std::function<void(const std::string& code_id)> discard_code,
                                                                 Account account, const base::Clock& clock) {
  auto impl = std::make_unique<Impl>(catalogue, blobs, std::move(prepare), std::move(discard_code), std::move(account), clock);
  MAYFLY_TRY(impl->load().with_context("cannot load the catalogue"));
  return std::unique_ptr<FunctionRegistry>(new FunctionRegistry(std::move(impl)));
}

const Account& FunctionRegistry::account() const { return impl_->account; }
RecordPtr FunctionRegistry::find(std::string_view name) const { return impl_->view.find(name); }
std::vector<RecordPtr> FunctionRegistry::list(std::string_view after, std::size_t max) const { return impl_->view.list(after, max); }
std::size_t FunctionRegistry::function_count() const { return impl_->view.size(); }
std::uint64_t FunctionRegistry::total_code_bytes() const { return impl_->code_bytes; }

Result<VersionPtr> FunctionRegistry::create(const std::string& name, FunctionConfig config, std::string zip, Tags tags, bool publish) {
  MAYFLY_TRY(check_new_name(name));
  MAYFLY_TRY(check_tags(tags));
  MAYFLY_TRY(check_network(config));
  if (find(name) != nullptr) return impl_->already_exists(name);  // before the work; asked again with the lock held
  const CodeIdentity code = identify(zip);
  Impl::CodeHold hold(*impl_, code.id);
  MAYFLY_TRY(impl_->store_code(zip));
  code.put_into(config);
  if (config.log_group.empty()) config.log_group = "/aws/lambda/" + name;
  settle_log_levels(config);
  MAYFLY_ASSIGN(VersionPtr answer, impl_->insert(name, std::move(config), std::move(tags), publish));
  hold.keep();
  impl_->tell(name);
  return answer;
}

Result<VersionPtr> FunctionRegistry::update_code(const std::string& name, std::string zip, std::optional<std::string> architecture,
                                                 const std::string& revision_id, bool publish, bool dry_run) {
  MAYFLY_TRY(impl_->existing_at(name, revision_id));  // before the work; asked again with the lock held
  const CodeIdentity code = identify(zip);
  Impl::CodeHold hold(*impl_, code.id);
  MAYFLY_TRY(impl_->store_code(zip));
  MAYFLY_ASSIGN(VersionPtr answer, impl_->replace_code(name, code, architecture, revision_id, publish, dry_run));
  if (dry_run) return answer;
  hold.keep();
  impl_->tell(name);
  return answer;
}

Result<VersionPtr> FunctionRegistry::update_configuration(const std::string& name, const ConfigChange& change,
                                                          const std::string& revision_id) {
  VersionPtr answer;
  {
    const MutexLock lock(impl_->writing);
    MAYFLY_ASSIGN(const RecordPtr before, impl_->existing_at(name, revision_id));
    FunctionRecord record = *before;
    FunctionVersion next = *before->latest;
    apply_change(next.config, change);
    MAYFLY_TRY(check_network(next.config));
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
  MAYFLY_TRY(impl_->change_tags(name, [&tags](Tags& all) {
    for (const auto& [key, value] : tags) all[key] = value;
  }));
  impl_->tell(name);
  return {};
}

Result<void> FunctionRegistry::untag(const std::string& name, const std::vector<std::string>& keys) {
  MAYFLY_TRY(impl_->change_tags(name, [&keys](Tags& all) {
    for (const std::string& key : keys) all.erase(key);
  }));
  impl_->tell(name);
  return {};
}

Result<base::UniqueFd> FunctionRegistry::open_code(const std::string& code_id) const { return impl_->blobs.open(code_id, true); }

void FunctionRegistry::on_change(std::function<void(const std::string& name)> listener) {
  const MutexLock lock(impl_->writing);
  auto all = std::make_shared<Impl::Listeners>(*impl_->listeners.get());
  all->push_back(std::move(listener));
  impl_->listeners.set(std::move(all));
}

Result<std::size_t> FunctionRegistry::sweep(const std::set<std::string>& in_use) {
  const MutexLock lock(impl_->writing);
  return impl_->sweep_locked(in_use);
}

}  // namespace mayfly::engine
