// EventSourceMappings: which source of events feeds which function, and how. Configuration only: nothing is polled here.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "engine/registry.h"
#include "store/catalogue.h"

namespace mayfly::events {

enum class SourceKind : std::uint8_t { kQueue, kFifoQueue, kKinesis, kDynamoDb, kManagedKafka, kSelfManagedKafka, kBroker, kDocumentDb };
// SQS, standard or FIFO.
[[nodiscard]] bool is_queue(SourceKind kind);
// Kinesis or DynamoDB: records in shards, read from a position.
[[nodiscard]] bool is_stream(SourceKind kind);

enum class MappingState : std::uint8_t { kCreating, kEnabling, kEnabled, kDisabling, kDisabled, kUpdating, kDeleting };
[[nodiscard]] std::string_view mapping_state_name(MappingState state);  // "Creating" ...

// Where events come from. Never changes while a mapping lives.
struct EventSource {
  std::string arn = {};                             // "" for a Kafka cluster of one's own
  std::vector<std::string> bootstrap_servers = {};  // of such a cluster, host:port
  std::string topic = {};                           // Kafka
  std::string queue = {};                           // of an MQ broker
  std::string starting_position = {};               // "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"; "" where the source has none
  std::optional<base::WallTime> starting_time = {};
};

// ARNs, "" for none.
struct Destinations {
  std::string on_success = {}, on_failure = {};
};

// In a request: what it gives. In a mapping: what its kind of source has, so that every member that is present is shown.
struct MappingSettings {
  std::optional<bool> enabled = {};
  std::optional<std::uint32_t> batch_size = {}, window_s = {};
  std::optional<std::uint32_t> parallelization_factor = {}, tumbling_window_s = {};
  std::optional<std::int32_t> record_age_max_s = {}, retries_max = {};  // -1: no bound
  std::optional<bool> bisects_on_error = {};
  std::optional<bool> reports_item_failures = {};     // FunctionResponseTypes [ReportBatchItemFailures]
  std::optional<std::uint32_t> concurrency_max = {};  // in a request 0 takes it away
  std::optional<Destinations> destinations = {};
  std::optional<std::vector<std::string>> filters = {};  // event patterns; in a request an empty list takes them away
  // The other members by their name in the API, as JSON text: SourceAccessConfigurations, ProvisionedPollerConfig, KMSKeyArn ...
  // In a request an empty value takes one away.
  std::map<std::string, std::string> others = {};
};

// A function, version or alias. The qualifier is exactly as given, "" for none.
struct MappedFunction {
  std::string name = {}, qualifier = {};
  bool operator==(const MappedFunction&) const = default;
  [[nodiscard]] std::string arn(const engine::Account& account) const {
    return account.function_arn(name) + (qualifier.empty() ? "" : ":" + qualifier);
  }
};

// A change that others must not interrupt. In memory only: after a restart nothing is under way.
struct MappingTransition {
  base::TimePoint until{};
  std::atomic<bool> seen = false;  // somebody was shown the end
};

struct EventSourceMapping {
  std::string uuid = {};
  SourceKind kind = SourceKind::kQueue;
  EventSource source = {};
  MappedFunction function = {};
  MappingSettings settings = {};
  std::map<std::string, std::string> tags = {};
  base::WallTime modified{};
  MappingState state = MappingState::kEnabled;
  std::shared_ptr<MappingTransition> under_way = {};  // null: nothing since the start of the server

  [[nodiscard]] std::string arn(const engine::Account& account) const;
};
using MappingPtr = std::shared_ptr<const EventSourceMapping>;

struct NewMapping {
  EventSource source = {};
  MappedFunction function = {};
  MappingSettings settings = {};
  std::map<std::string, std::string> tags = {};
};
struct MappingChange {
  std::optional<MappedFunction> function = {};
  MappingSettings settings = {};
};

// What list() shows: everything that matches all members which are set. "" and "$LATEST" name the same function.
struct MappingFilter {
  std::string source_arn = {};
  std::optional<MappedFunction> function = {};
};

// Errors carry AWS's type in Error::id (InvalidParameterValueException, ResourceNotFoundException, ResourceConflictException,
// ResourceInUseException) and AWS's text where one is known.
// Threads: any; create(), update(), remove(), tag() and untag() block (SQLite) and are serialised inside.
class EventSourceMappings {
 public:
  // A change is under way for so long unless somebody looks at the mapping meanwhile (as for functions: FunctionRegistry).
  static constexpr base::Duration kTransition = std::chrono::milliseconds(800);

  struct Options {
    store::Catalogue& catalogue;
    const engine::FunctionRegistry& registry;
    const base::Clock& clock;
    // Whether the source with this ARN exists, asked before a mapping is made; empty: nobody can tell, every source is taken.
    // May block.
    std::function<base::Result<bool>(SourceKind kind, const std::string& arn)> source_exists = {};
  };

  // Loads what is stored; what `options` refers to must outlive the result. kDataLoss when a document is damaged.
  [[nodiscard]] static base::Result<std::unique_ptr<EventSourceMappings>> open(Options options);
  ~EventSourceMappings();

  // Null when there is none. Always settled: Enabled or Disabled.
  [[nodiscard]] MappingPtr find(std::string_view uuid) const;
  // Settled, in order of UUID, starting after `after`, at most `max`.
  [[nodiscard]] std::vector<MappingPtr> list(const MappingFilter& filter, std::string_view after, std::size_t max) const;
  // Tells that somebody was shown the settled state: what is under way has ended for everybody.
  static void observed(const EventSourceMapping& mapping);

  // The answers are the mappings as the API shows them at that moment: Creating (or Disabled), Updating, Enabling, Disabling,
  // Deleting. ResourceInUseException for an update or removal while a change is under way.
  [[nodiscard]] base::Result<EventSourceMapping> create(const NewMapping& wanted);
  [[nodiscard]] base::Result<EventSourceMapping> update(const std::string& uuid, const MappingChange& change);
  [[nodiscard]] base::Result<EventSourceMapping> remove(const std::string& uuid);
  // Merges; at most 50.
  [[nodiscard]] base::Result<void> tag(const std::string& uuid, const std::map<std::string, std::string>& tags);
  [[nodiscard]] base::Result<void> untag(const std::string& uuid, const std::vector<std::string>& keys);

 private:
  struct Impl;
  explicit EventSourceMappings(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mayfly::events
