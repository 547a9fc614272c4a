// FunctionRegistry: the rules of creating, changing, publishing and deleting functions, over the stored catalogue; and the
// immutable view of it that the data plane reads without locks, I/O or waiting.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "engine/code_store.h"
#include "engine/function.h"
#include "store/catalogue.h"

namespace mayfly::engine {

// What UpdateFunctionConfiguration changes: only members that are set.
struct ConfigChange {
  std::optional<std::string> runtime = {}, handler = {}, role = {}, description = {}, log_format = {}, application_log_level = {},
                             system_log_level = {}, log_group = {}, tracing_mode = {}, snap_start = {}, accepted_json = {};
  std::optional<std::uint32_t> timeout_s = {}, memory_mb = {}, ephemeral_mb = {};
  std::optional<std::map<std::string, std::string>> environment = {};
  std::optional<std::vector<LayerUse>> layers = {};
};

// Puts what is set in `change` into `config`.
void apply_change(FunctionConfig& config, const ConfigChange& change);

// A function URL's id and what it leads to.
struct UrlTarget {
  RecordPtr record;
  std::string qualifier;  // "" or an alias
  [[nodiscard]] const FunctionUrl& url() const { return record->settings->urls.at(qualifier); }
};

// Errors carry AWS's type in Error::id (ResourceNotFoundException, ResourceConflictException, PreconditionFailedException,
// InvalidParameterValueException ...) and AWS's message text (recorded.json).
// Threads: find(), list() and revision() from anywhere, at any time; the others block (SQLite, files) and are serialised inside.
class FunctionRegistry {
 public:
  // An update is under way for so long unless somebody looks at the function meanwhile (see below).
  static constexpr base::Duration kUpdateWindow = std::chrono::milliseconds(800);

  // Loads the catalogue and settles what a crash left Pending or InProgress. All references must outlive the registry.
  [[nodiscard]] static base::Result<std::unique_ptr<FunctionRegistry>> open(store::Catalogue& catalogue, CodeStore& code, Account account,
                                                                            const base::Clock& clock);
  ~FunctionRegistry();

  [[nodiscard]] const Account& account() const;
  // Null when there is no such function. Costs one hash look-up and two reference counts.
  [[nodiscard]] RecordPtr find(std::string_view name) const;
  // Functions in order of name, starting after `after`, at most `max`.
  [[nodiscard]] std::vector<RecordPtr> list(std::string_view after, std::size_t max) const;
  // Every function, in no order; cheaper than list(). What changes meanwhile may be visited as it was or as it is.
  void each(const std::function<void(const RecordPtr& record)>& visit) const;
  [[nodiscard]] std::size_t function_count() const;
  [[nodiscard]] std::uint64_t total_code_bytes() const;
  // Absent when no function has that URL.
  [[nodiscard]] std::optional<UrlTarget> find_url(std::string_view url_id) const;
  // Tells that somebody was shown the function's settled state: what is under way has ended for everybody.
  void observed(const FunctionRecord& record) const;

  // The answers are the versions as the API shows them at that moment: create() answers Pending, the updates InProgress,
  // either with `publish` the new version, Pending; find() shows the settled state with its new revision at once, so calls run
  // what was deployed. Code is stored and prepared before anything else changes: a bad archive changes nothing.
  // As on AWS a second update or publication while one is under way is ResourceConflictException. Here one is under way until
  // somebody is shown the settled state (observed()), at most kUpdateWindow: who waits for the end, as AWS's waiters do, never
  // waits, and of blind updates at the same time one succeeds.
  // `revision_id` "" stands for whatever is there. Of concurrent changes that name the same revision one succeeds.
  [[nodiscard]] base::Result<VersionPtr> create(const std::string& name, FunctionConfig config, std::string zip,
                                                std::map<std::string, std::string> tags, bool publish);
  [[nodiscard]] base::Result<VersionPtr> update_code(const std::string& name, std::string zip, std::optional<std::string> architecture,
                                                     const std::string& revision_id, bool publish, bool dry_run);
  [[nodiscard]] base::Result<VersionPtr> update_configuration(const std::string& name, const ConfigChange& change,
                                                              const std::string& revision_id);
  // Idempotent: unchanged since the last one answers that one again, whatever `description` says. $LATEST gets a new revision.
  [[nodiscard]] base::Result<VersionPtr> publish(const std::string& name, const std::string& code_sha256,
                                                 std::optional<std::string> description, const std::string& revision_id);
  // "" deletes the function with all versions; "$LATEST" is refused; a number deletes that version (absent is fine, as on AWS).
  [[nodiscard]] base::Result<void> remove(const std::string& name, const std::string& qualifier);
  // Merges; at most 50 per function. $LATEST gets a new revision, as on AWS.
  [[nodiscard]] base::Result<void> tag(const std::string& name, const std::map<std::string, std::string>& tags);
  [[nodiscard]] base::Result<void> untag(const std::string& name, const std::vector<std::string>& keys);
  // Changes what belongs to the function as a whole. `change` is called once with the record as it is and a copy of its settings to
  // edit, while no other change can happen; its error leaves everything as it was. It must not block or call the registry.
  using SettingsChange = std::function<base::Result<void>(const FunctionRecord& record, FunctionSettings& settings)>;
  [[nodiscard]] base::Result<RecordPtr> change_settings(const std::string& name, const SettingsChange& change);

  // Adds a listener, called on the changing thread after a function changed or went, when find() shows it already; so that
  // pools can drop environments of old generations and obey new limits.
  void on_change(std::function<void(const std::string& name)> listener);

 private:
  struct Impl;
  explicit FunctionRegistry(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mayfly::engine
