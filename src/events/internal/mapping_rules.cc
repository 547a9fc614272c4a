#include "events/internal/mapping_rules.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cctype>
#include <span>

#include "base/json.h"
#include "events/internal/event_pattern.h"

namespace mayfly::events {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::size_t kFiltersMax = 10;  // AWS's quota after an increase; 5 before
constexpr std::uint32_t kFifoBatchMax = 10;
constexpr std::int32_t kRecordAgeMin_s = 60;
constexpr std::int64_t kPollersMax = 200;  // default of MaximumPollers
constexpr const char* kManagedKafkaConfig = "AmazonManagedKafkaEventSourceConfig";
constexpr const char* kSelfManagedKafkaConfig = "SelfManagedKafkaEventSourceConfig";
constexpr const char* kDocumentDbConfig = "DocumentDBEventSourceConfig";
constexpr const char* kPollerConfig = "ProvisionedPollerConfig";

Error invalid(std::string message) { return Error(ErrorCode::kInvalidArgument, std::move(message), "InvalidParameterValueException"); }

bool is_kafka(SourceKind kind) { return kind == SourceKind::kManagedKafka || kind == SourceKind::kSelfManagedKafka; }

// Sets of kinds.
constexpr std::uint32_t set_of(SourceKind kind) { return 1U << static_cast<unsigned>(kind); }
constexpr std::uint32_t kQueues = set_of(SourceKind::kQueue) | set_of(SourceKind::kFifoQueue);
constexpr std::uint32_t kStreams = set_of(SourceKind::kKinesis) | set_of(SourceKind::kDynamoDb);
constexpr std::uint32_t kKafka = set_of(SourceKind::kManagedKafka) | set_of(SourceKind::kSelfManagedKafka);
constexpr std::uint32_t kBroker = set_of(SourceKind::kBroker);
constexpr std::uint32_t kDocumentDb = set_of(SourceKind::kDocumentDb);
constexpr std::uint32_t kAll = kQueues | kStreams | kKafka | kBroker | kDocumentDb;

// A member as error texts name it, and the kinds of source that have it.
struct Use {
  std::string_view name;
  std::uint32_t kinds;
  bool given;
};

Error unsupported_member(std::string_view name) {
  return invalid("Unsupported '" + std::string(name) + "' parameter for given event source mapping type.");
}
Error missing_member(std::string_view name) { return invalid("Required '" + std::string(name) + "' parameter is missing."); }

Result<void> check_uses(SourceKind kind, std::span<const Use> uses) {
  for (const Use& use : uses) {
    if (use.given && (use.kinds & set_of(kind)) == 0) return unsupported_member(use.name);
  }
  return {};
}

// The kinds that have a member of MappingSettings::others.
std::uint32_t kinds_with(std::string_view name) {
  if (name == "SourceAccessConfigurations") return kKafka | kBroker | kDocumentDb;
  if (name == kManagedKafkaConfig) return set_of(SourceKind::kManagedKafka);
  if (name == kSelfManagedKafkaConfig) return set_of(SourceKind::kSelfManagedKafka);
  if (name == kDocumentDbConfig) return kDocumentDb;
  if (name == kPollerConfig) return kQueues | kKafka;
  if (name == "LoggingConfig") return kKafka;
  return kAll;  // KMSKeyArn, MetricsConfig
}

// "KMSKeyArn" as error texts show it.
std::string shown_name(std::string_view name) {
  std::string shown(name);
  shown[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(shown[0])));
  return shown;
}

bool is_empty_json(std::string_view text) { return text == "{}" || text == "[]" || text == "\"\""; }

// A member of `others` that is an object; empty when it is not there. What is stored was checked when it came.
json::object object_in(const MappingSettings& settings, const std::string& name) {
  const auto found = settings.others.find(name);
  if (found == settings.others.end()) return {};
  auto parsed = base::parse_json(found->second);
  return parsed.ok() && parsed->is_object() ? std::move(parsed->get_object()) : json::object();
}
std::string text_in(const json::object& object, json::string_view name) {
  const json::value* found = object.if_contains(name);
  return found != nullptr && found->is_string() ? std::string(found->get_string().data(), found->get_string().size()) : std::string();
}
std::int64_t number_in(const json::object& object, json::string_view name, std::int64_t fallback) {
  const json::value* found = object.if_contains(name);
  return found != nullptr && found->is_int64() ? found->get_int64() : fallback;
}

const char* kafka_config_of(SourceKind kind) { return kind == SourceKind::kManagedKafka ? kManagedKafkaConfig : kSelfManagedKafkaConfig; }

// The parts of "arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE" that tell the kind.
struct SourceArn {
  std::string_view service, resource;
};
SourceArn split_arn(std::string_view arn) {
  SourceArn parts;
  for (int part = 0; part < 5; ++part) {
    const std::size_t colon = arn.find(':');
    if (colon == std::string_view::npos) return {};
    if (part == 2) parts.service = arn.substr(0, colon);
    arn.remove_prefix(colon + 1);
  }
  parts.resource = arn;
  return parts;
}

std::optional<SourceKind> kind_of_arn(std::string_view arn) {
  const auto [service, resource] = split_arn(arn);
  if (resource.empty()) return std::nullopt;
  if (service == "sqs") return resource.ends_with(".fifo") ? SourceKind::kFifoQueue : SourceKind::kQueue;
  if (service == "kinesis" && resource.starts_with("stream/")) return SourceKind::kKinesis;
  if (service == "dynamodb" && resource.starts_with("table/") && resource.find("/stream/") != std::string_view::npos)
    return SourceKind::kDynamoDb;
  if (service == "kafka" && (resource.starts_with("cluster/") || resource.starts_with("vpc-connection/"))) return SourceKind::kManagedKafka;
  if (service == "mq" && resource.starts_with("broker:")) return SourceKind::kBroker;
  if (service == "rds" && resource.starts_with("cluster:")) return SourceKind::kDocumentDb;
  return std::nullopt;
}

Result<void> check_starting_position(SourceKind kind, const EventSource& source, base::WallTime now) {
  if (source.starting_position.empty()) {
    if (is_stream(kind) || is_kafka(kind)) {
      return invalid(
          "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null.");
    }
    if (source.starting_time) return invalid("StartingPositionTimestamp goes with the StartingPosition AT_TIMESTAMP only.");
    return {};
  }
  const bool at_time = source.starting_position == "AT_TIMESTAMP";
  if (at_time && kind == SourceKind::kDynamoDb) return invalid("Unsupported starting position for arn type: " + source.arn);
  if (at_time && !source.starting_time) return invalid("Need to specify a timestamp");
  if (!at_time && source.starting_time) return invalid("StartingPositionTimestamp goes with the StartingPosition AT_TIMESTAMP only.");
  if (at_time && *source.starting_time > now) return invalid("StartingPositionTimestamp cannot be in the future.");
  return {};
}

Result<void> check_queue_batch(SourceKind kind, const MappingSettings& settings) {
  const std::uint32_t size = settings.batch_size.value_or(0);
  const std::uint32_t window_s = settings.window_s.value_or(0);
  if (kind == SourceKind::kFifoQueue) {
    if (window_s > 0) return invalid("Batching window is not supported for FIFO queues");
    if (size > kFifoBatchMax) return invalid("Maximum batch size must be between 1 and 10 inclusive");
    return {};
  }
  if (size > 10 && window_s == 0)
    return invalid("Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10");
  return {};
}

Result<void> check_pollers(SourceKind kind, const MappingSettings& settings) {
  if (!settings.others.contains(kPollerConfig)) return {};
  const json::object pollers = object_in(settings, kPollerConfig);
  const std::int64_t min = number_in(pollers, "MinimumPollers", 1);
  const std::int64_t max = number_in(pollers, "MaximumPollers", kPollersMax);
  if (is_queue(kind) && (min < 2 || max < 2))
    return invalid("MinimumPollers and MaximumPollers must be at least 2 for an SQS event source.");
  if (is_queue(kind) && pollers.contains("PollerGroupName")) return unsupported_member("pollerGroupName");
  if (min > max) return invalid("MinimumPollers must not be greater than MaximumPollers.");
  if (settings.concurrency_max) return invalid("ScalingConfig and ProvisionedPollerConfig cannot be set at the same time.");
  return {};
}

Result<void> check_metrics(SourceKind kind, const MappingSettings& settings) {
  const json::object config = object_in(settings, "MetricsConfig");
  const json::value* metrics = config.if_contains("Metrics");
  if (metrics == nullptr || !metrics->is_array() || is_kafka(kind)) return {};
  for (const json::value& each : metrics->get_array()) {
    if (each.is_string() && each.get_string() != "EventCount")
      return invalid("The metric " + std::string(each.get_string()) + " is for Kafka event sources only.");
  }
  return {};
}

// What MQ and DocumentDB cannot do without.
Result<void> check_required(SourceKind kind, const MappingSettings& settings) {
  const bool needs_access = kind == SourceKind::kSelfManagedKafka || kind == SourceKind::kBroker || kind == SourceKind::kDocumentDb;
  if (needs_access && !settings.others.contains("SourceAccessConfigurations")) return missing_member("sourceAccessConfigurations");
  if (kind == SourceKind::kDocumentDb && text_in(object_in(settings, kDocumentDbConfig), "DatabaseName").empty())
    return missing_member("documentDBEventSourceConfig.databaseName");
  return {};
}

void fill_pollers(SourceKind kind, MappingSettings& settings) {
  if (!settings.others.contains(kPollerConfig)) return;
  json::object pollers = object_in(settings, kPollerConfig);
  if (!pollers.contains("MinimumPollers")) pollers["MinimumPollers"] = is_queue(kind) ? 2 : 1;
  if (!pollers.contains("MaximumPollers")) pollers["MaximumPollers"] = std::max(kPollersMax, number_in(pollers, "MinimumPollers", 1));
  settings.others[kPollerConfig] = json::serialize(pollers);
}

}  // namespace

bool is_queue(SourceKind kind) { return (kQueues & set_of(kind)) != 0; }
bool is_stream(SourceKind kind) { return (kStreams & set_of(kind)) != 0; }

Result<SourceKind> kind_of(const EventSource& source) {
  if (source.arn.empty()) {
    if (source.bootstrap_servers.empty()) return invalid("Unrecognized event source.");
    return SourceKind::kSelfManagedKafka;
  }
  if (!source.bootstrap_servers.empty()) return invalid("EventSourceArn and SelfManagedEventSource cannot be given together.");
  if (const auto kind = kind_of_arn(source.arn)) return *kind;
  return invalid("Unrecognized event source. \"" + source.arn +
                 "\" is not an SQS queue, a Kinesis or DynamoDB stream, an MSK cluster, an MQ broker or a DocumentDB cluster.");
}

Result<void> check_source(SourceKind kind, const EventSource& source, base::WallTime now) {
  const bool positioned = !source.starting_position.empty() || source.starting_time;
  if (is_queue(kind) && positioned) return invalid("StartingPosition is not valid for SQS event sources.");
  const Use uses[] = {{"topics", kKafka, !source.topic.empty()},
                      {"queues", kBroker, !source.queue.empty()},
                      {"startingPosition", kStreams | kKafka | kDocumentDb, positioned}};
  MAYFLY_TRY(check_uses(kind, uses));
  if (is_kafka(kind) && source.topic.empty()) return missing_member("topics");
  if (kind == SourceKind::kBroker && source.queue.empty()) return missing_member("queues");
  return check_starting_position(kind, source, now);
}

Result<void> check_known(SourceKind kind, const MappingSettings& given) {
  if (given.destinations) {
    const bool some = !given.destinations->on_failure.empty() || !given.destinations->on_success.empty();
    const bool takes = ((kStreams | kKafka) & set_of(kind)) != 0 && given.destinations->on_success.empty();
    if (some && !takes) return invalid("Unsupported DestinationConfig parameter for given event source mapping type.");
    if (given.destinations->on_failure.starts_with("kafka://") && !is_kafka(kind))
      return invalid("Unsupported DestinationConfig parameter for given event source mapping type.");
  }
  const Use uses[] = {{"parallelizationFactor", kStreams, given.parallelization_factor.has_value()},
                      {"tumblingWindowInSeconds", kStreams, given.tumbling_window_s.has_value()},
                      {"maximumRecordAgeInSeconds", kStreams | kKafka, given.record_age_max_s.has_value()},
                      {"maximumRetryAttempts", kStreams | kKafka, given.retries_max.has_value()},
                      {"bisectBatchOnFunctionError", kStreams | kKafka, given.bisects_on_error.has_value()},
                      {"functionResponseTypes", kQueues | kStreams | kKafka, given.reports_item_failures.value_or(false)},
                      {"scalingConfig", kQueues, given.concurrency_max.value_or(0) > 0}};
  MAYFLY_TRY(check_uses(kind, uses));
  for (const auto& [name, text] : given.others) {
    if (!is_empty_json(text) && (kinds_with(name) & set_of(kind)) == 0) return unsupported_member(shown_name(name));
  }
  return {};
}

Result<void> check_settings(SourceKind kind, const MappingSettings& settings) {
  MAYFLY_TRY(check_required(kind, settings));
  if (is_queue(kind)) MAYFLY_TRY(check_queue_batch(kind, settings));
  const std::int32_t age_s = settings.record_age_max_s.value_or(-1);
  if (age_s != -1 && age_s < kRecordAgeMin_s) return invalid("MaximumRecordAgeInSeconds must be -1 or between 60 and 604800.");
  MAYFLY_TRY(check_pollers(kind, settings));
  MAYFLY_TRY(check_metrics(kind, settings));
  if (!settings.filters) return {};
  if (settings.filters->size() > kFiltersMax)
    return invalid("FilterCriteria can have at most " + std::to_string(kFiltersMax) + " filters; " +
                   std::to_string(settings.filters->size()) + " were given.");
  for (const std::string& pattern : *settings.filters) {
    if (!check_event_pattern(pattern).ok()) return invalid("Invalid filter pattern definition.");
  }
  return {};
}

MappingSettings default_settings(SourceKind kind, const std::string& uuid) {
  MappingSettings settings;
  settings.enabled = true;
  settings.batch_size = is_queue(kind) ? 10 : 100;
  if (is_queue(kind) || is_stream(kind)) {
    settings.window_s = 0;  // the others wait 500 ms, which no whole second can show
    settings.reports_item_failures = false;
  }
  if (is_stream(kind)) {
    settings.parallelization_factor = 1;
    settings.tumbling_window_s = 0;
    settings.record_age_max_s = -1;
    settings.retries_max = -1;
    settings.bisects_on_error = false;
    settings.destinations.emplace();
  }
  if (is_kafka(kind)) settings.others[kafka_config_of(kind)] = json::serialize(json::object{{"ConsumerGroupId", uuid}});
  return settings;
}

MappingSettings merge(SourceKind kind, MappingSettings settings, const MappingSettings& given) {
  const auto set = [](auto& member, const auto& value) {
    if (value) member = value;
  };
  set(settings.enabled, given.enabled);
  set(settings.batch_size, given.batch_size);
  set(settings.window_s, given.window_s);
  set(settings.parallelization_factor, given.parallelization_factor);
  set(settings.tumbling_window_s, given.tumbling_window_s);
  set(settings.record_age_max_s, given.record_age_max_s);
  set(settings.retries_max, given.retries_max);
  set(settings.bisects_on_error, given.bisects_on_error);
  set(settings.reports_item_failures, given.reports_item_failures);
  set(settings.concurrency_max, given.concurrency_max);
  set(settings.destinations, given.destinations);
  set(settings.filters, given.filters);
  if (settings.concurrency_max == 0U) settings.concurrency_max.reset();
  if (settings.filters && settings.filters->empty()) settings.filters.reset();
  for (const auto& [name, text] : given.others) {
    if (is_kafka(kind) && name == kafka_config_of(kind)) continue;
    if (is_empty_json(text)) {
      settings.others.erase(name);
    } else {
      settings.others[name] = text;
    }
  }
  fill_pollers(kind, settings);
  if (!is_kafka(kind) || !given.others.contains(kafka_config_of(kind))) return settings;
  // The group stays whatever else of the Kafka settings changes.
  json::object config = object_in(given, kafka_config_of(kind));
  if (!config.contains("ConsumerGroupId"))
    config["ConsumerGroupId"] = text_in(object_in(settings, kafka_config_of(kind)), "ConsumerGroupId");
  settings.others[kafka_config_of(kind)] = json::serialize(config);
  return settings;
}

Result<void> check_same_group(SourceKind kind, const MappingSettings& current, const MappingSettings& given) {
  if (!is_kafka(kind)) return {};
  const std::string wanted = text_in(object_in(given, kafka_config_of(kind)), "ConsumerGroupId");
  if (wanted.empty() || wanted == text_in(object_in(current, kafka_config_of(kind)), "ConsumerGroupId")) return {};
  return invalid("ConsumerGroupId cannot be changed; make a new event source mapping for another consumer group.");
}

bool is_same_feed(const EventSourceMapping& a, const EventSourceMapping& b) {
  if (a.function != b.function || a.kind != b.kind || a.source.arn != b.source.arn) return false;
  const auto& servers = b.source.bootstrap_servers;
  const auto is_shared = [&servers](const std::string& each) { return std::find(servers.begin(), servers.end(), each) != servers.end(); };
  const auto& own = a.source.bootstrap_servers;
  if (a.source.arn.empty() && std::none_of(own.begin(), own.end(), is_shared)) return false;
  if (a.kind != SourceKind::kDocumentDb) return a.source.topic == b.source.topic && a.source.queue == b.source.queue;
  const json::object one = object_in(a.settings, kDocumentDbConfig);
  const json::object other = object_in(b.settings, kDocumentDbConfig);
  return text_in(one, "DatabaseName") == text_in(other, "DatabaseName") &&
         text_in(one, "CollectionName") == text_in(other, "CollectionName");
}

Error duplicate_error(const EventSourceMapping& existing, const engine::Account& account) {
  const std::string tail = " already exists. Please update or delete the existing mapping with UUID " + existing.uuid;
  std::string text;
  if (is_queue(existing.kind)) {
    text = "An event source mapping with SQS arn (\" " + existing.source.arn + " \") and function (\" " + existing.function.name + " \")" +
           tail;
  } else if (is_kafka(existing.kind)) {
    std::string servers = existing.source.arn;
    for (const std::string& each : existing.source.bootstrap_servers) servers += (servers.empty() ? "" : ",") + each;
    text = "An event source mapping with event source (\"" + servers + "\"), function (\"" + existing.function.arn(account) +
           "\"), topics (\"" + existing.source.topic + "\")" + tail;
  } else {
    text = "The event source arn (\" " + existing.source.arn + " \") and function (\" " + existing.function.name + " \") provided mapping" +
           tail;
  }
  return Error(ErrorCode::kConflict, std::move(text), "ResourceConflictException");
}

Error source_missing_error(SourceKind kind, const std::string& arn) {
  if (is_queue(kind)) {
    return invalid(
        "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error Message: The specified "
        "queue does not exist.");
  }
  if (is_stream(kind)) return invalid("Stream not found: " + arn);
  return invalid("Event source not found: " + arn);
}

}  // namespace mayfly::events
