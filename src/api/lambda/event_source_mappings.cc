#include "api/lambda/event_source_mappings.h"

#include <boost/json.hpp>

#include "api/api.h"
#include "api/internal/answer.h"
#include "api/lambda/input.h"
#include "base/json.h"
#include "events/event_source_mappings.h"

namespace mayfly::api::lambda {
namespace {

namespace json = boost::json;
using base::Result;
using events::EventSourceMapping;
using events::EventSourceMappings;
using events::MappedFunction;
using events::MappingSettings;

constexpr std::size_t kPageMax = 100;                // AWS's, whatever MaxItems says
constexpr double kTimestampMax_s = 253'402'300'799;  // the end of the year 9999
constexpr std::string_view kArnPart = ":event-source-mapping:";

// Members that are stored and shown as given.
constexpr const char* kOthers[] = {"AmazonManagedKafkaEventSourceConfig",
                                   "DocumentDBEventSourceConfig",
                                   "KMSKeyArn",
                                   "LoggingConfig",
                                   "MetricsConfig",
                                   "ProvisionedPollerConfig",
                                   "SelfManagedKafkaEventSourceConfig",
                                   "SourceAccessConfigurations"};

const json::array* list_in(const json::object& input, json::string_view name) {
  const json::value* found = input.if_contains(name);
  return found == nullptr ? nullptr : found->if_array();
}
// The model has checked the range.
template <typename Number>
std::optional<Number> narrow_in(const json::object& input, std::string_view name) {
  const auto number = number_in(input, name);
  return number ? std::optional<Number>(static_cast<Number>(*number)) : std::nullopt;
}
std::optional<bool> optional_flag_in(const json::object& input, json::string_view name) {
  const json::value* found = input.if_contains(name);
  if (found == nullptr || !found->is_bool()) return std::nullopt;
  return found->get_bool();
}
std::string first_in(const json::object& input, std::string_view name) {
  const std::vector<std::string> texts = texts_in(input, name);
  return texts.empty() ? std::string() : texts.front();
}

Result<EventSourceMappings*> mappings_of(const ControlCall& call) {
  if (call.context.event_source_mappings == nullptr) return unsupported("this server keeps no event source mappings");
  return call.context.event_source_mappings;
}

// --- From requests ---

Result<MappedFunction> function_in(const ControlCall& call) {
  MAYFLY_ASSIGN(Target target, target_of(call));
  return MappedFunction{.name = std::move(target.name), .qualifier = std::move(target.qualifier)};
}

Result<events::EventSource> source_in(const json::object& input) {
  events::EventSource source;
  source.arn = text_in(input, "EventSourceArn");
  source.topic = first_in(input, "Topics");
  source.queue = first_in(input, "Queues");
  source.starting_position = text_in(input, "StartingPosition");
  if (const json::value* time = input.if_contains("StartingPositionTimestamp"); time != nullptr && time->is_number()) {
    const double seconds = time->to_number<double>();
    if (!(seconds >= 0 && seconds <= kTimestampMax_s))
      return invalid_parameter("StartingPositionTimestamp is not a time between 1970 and 9999.");
    source.starting_time = base::WallTime(std::chrono::microseconds(static_cast<std::int64_t>(seconds * 1e6)));
  }
  const json::object* own = object_in(input, "SelfManagedEventSource");
  const json::object* endpoints = own == nullptr ? nullptr : object_in(*own, "Endpoints");
  if (endpoints != nullptr) source.bootstrap_servers = texts_in(*endpoints, "KAFKA_BOOTSTRAP_SERVERS");
  return source;
}

std::optional<std::vector<std::string>> filters_in(const json::object& input) {
  const json::object* criteria = object_in(input, "FilterCriteria");
  if (criteria == nullptr) return std::nullopt;
  std::vector<std::string> patterns;
  const json::array* filters = list_in(*criteria, "Filters");
  if (filters == nullptr) return patterns;
  for (const json::value& each : *filters) patterns.push_back(each.is_object() ? text_in(each.get_object(), "Pattern") : std::string());
  return patterns;
}

std::optional<events::Destinations> destinations_in(const json::object& input) {
  const json::object* config = object_in(input, "DestinationConfig");
  if (config == nullptr) return std::nullopt;
  const auto destination = [config](std::string_view name) {
    const json::object* found = object_in(*config, name);
    return found == nullptr ? std::string() : text_in(*found, "Destination");
  };
  return events::Destinations{.on_success = destination("OnSuccess"), .on_failure = destination("OnFailure")};
}

MappingSettings settings_in(const json::object& input) {
  MappingSettings given;
  given.enabled = optional_flag_in(input, "Enabled");
  given.batch_size = narrow_in<std::uint32_t>(input, "BatchSize");
  given.window_s = narrow_in<std::uint32_t>(input, "MaximumBatchingWindowInSeconds");
  given.parallelization_factor = narrow_in<std::uint32_t>(input, "ParallelizationFactor");
  given.tumbling_window_s = narrow_in<std::uint32_t>(input, "TumblingWindowInSeconds");
  given.record_age_max_s = narrow_in<std::int32_t>(input, "MaximumRecordAgeInSeconds");
  given.retries_max = narrow_in<std::int32_t>(input, "MaximumRetryAttempts");
  given.bisects_on_error = optional_flag_in(input, "BisectBatchOnFunctionError");
  if (const json::array* types = list_in(input, "FunctionResponseTypes")) given.reports_item_failures = !types->empty();
  if (const json::object* scaling = object_in(input, "ScalingConfig"))
    given.concurrency_max = narrow_in<std::uint32_t>(*scaling, "MaximumConcurrency").value_or(0);
  given.destinations = destinations_in(input);
  given.filters = filters_in(input);
  for (const char* name : kOthers) {
    if (const json::value* found = input.if_contains(name)) given.others.emplace(name, json::serialize(*found));
  }
  return given;
}

// --- Into answers ---

double seconds_of(base::WallTime time) { return static_cast<double>(base::epoch_ms(time)) / 1000; }

void add_source(json::object& shown, const EventSourceMapping& mapping) {
  const events::EventSource& source = mapping.source;
  if (!source.arn.empty()) shown["EventSourceArn"] = source.arn;
  if (!source.topic.empty()) shown["Topics"] = json::array{json::string(source.topic)};
  if (!source.queue.empty()) shown["Queues"] = json::array{json::string(source.queue)};
  if (!source.starting_position.empty()) shown["StartingPosition"] = source.starting_position;
  if (source.starting_time) shown["StartingPositionTimestamp"] = seconds_of(*source.starting_time);
  if (source.bootstrap_servers.empty()) return;
  json::object endpoints;
  endpoints["KAFKA_BOOTSTRAP_SERVERS"] = json::array(source.bootstrap_servers.begin(), source.bootstrap_servers.end());
  shown["SelfManagedEventSource"] = json::object{{"Endpoints", std::move(endpoints)}};
}

void add_settings(json::object& shown, const MappingSettings& settings) {
  const auto add = [&shown](const char* name, const auto& value) {
    if (value) shown[name] = *value;
  };
  add("BatchSize", settings.batch_size);
  add("MaximumBatchingWindowInSeconds", settings.window_s);
  add("ParallelizationFactor", settings.parallelization_factor);
  add("TumblingWindowInSeconds", settings.tumbling_window_s);
  add("MaximumRecordAgeInSeconds", settings.record_age_max_s);
  add("MaximumRetryAttempts", settings.retries_max);
  add("BisectBatchOnFunctionError", settings.bisects_on_error);
  if (settings.reports_item_failures) {
    json::array types;
    if (*settings.reports_item_failures) types.emplace_back("ReportBatchItemFailures");
    shown["FunctionResponseTypes"] = std::move(types);
  }
  if (settings.concurrency_max) shown["ScalingConfig"] = json::object{{"MaximumConcurrency", *settings.concurrency_max}};
  if (settings.destinations) {
    json::object on_failure;
    if (!settings.destinations->on_failure.empty()) on_failure["Destination"] = settings.destinations->on_failure;
    shown["DestinationConfig"] = json::object{{"OnFailure", std::move(on_failure)}};
  }
  if (settings.filters) {
    json::array filters;
    for (const std::string& pattern : *settings.filters) filters.push_back(json::object{{"Pattern", pattern}});
    shown["FilterCriteria"] = json::object{{"Filters", std::move(filters)}};
  }
  for (const auto& [name, text] : settings.others) {
    if (auto value = base::parse_json(text); value.ok()) shown[name] = *std::move(value);
  }
}

json::object mapping_json(const EventSourceMapping& mapping, const engine::Account& account) {
  json::object shown{{"UUID", mapping.uuid},
                     {"EventSourceMappingArn", mapping.arn(account)},
                     {"FunctionArn", mapping.function.arn(account)},
                     {"LastModified", seconds_of(mapping.modified)}};
  const std::string_view state = events::mapping_state_name(mapping.state);
  shown["State"] = json::string_view(state.data(), state.size());
  shown["StateTransitionReason"] = events::is_stream(mapping.kind) ? "User action" : "USER_INITIATED";
  if (!events::is_queue(mapping.kind)) shown["LastProcessingResult"] = "No records processed";  // nothing is polled yet
  add_source(shown, mapping);
  add_settings(shown, mapping.settings);
  return shown;
}

// --- Operations ---

Result<net::Response> create_mapping(const ControlCall& call) {
  MAYFLY_ASSIGN(EventSourceMappings * mappings, mappings_of(call));
  events::NewMapping wanted;
  MAYFLY_ASSIGN(wanted.source, source_in(call.input));
  MAYFLY_ASSIGN(wanted.function, function_in(call));
  wanted.settings = settings_in(call.input);
  if (const json::object* tags = object_in(call.input, "Tags")) wanted.tags = string_map(*tags);
  MAYFLY_ASSIGN(const EventSourceMapping made, mappings->create(wanted));
  return control_answer(202, mapping_json(made, call.context.registry.account()));
}

Result<net::Response> get_mapping(const ControlCall& call) {
  MAYFLY_ASSIGN(EventSourceMappings * mappings, mappings_of(call));
  const events::MappingPtr found = mappings->find(text_in(call.input, "UUID"));
  if (found == nullptr) return not_found("The resource you requested does not exist.");
  EventSourceMappings::observed(*found);
  return control_answer(200, mapping_json(*found, call.context.registry.account()));
}

Result<net::Response> list_mappings(const ControlCall& call) {
  MAYFLY_ASSIGN(EventSourceMappings * mappings, mappings_of(call));
  events::MappingFilter filter;
  filter.source_arn = text_in(call.input, "EventSourceArn");
  if (call.input.contains("FunctionName")) {
    MAYFLY_ASSIGN(filter.function, function_in(call));
  }
  MAYFLY_ASSIGN(const std::string after, marker_in(call.input));
  const std::size_t max = page_size(call.input, kPageMax);
  std::vector<events::MappingPtr> found = mappings->list(filter, after, max + 1);
  json::object body;
  if (found.size() > max) {
    found.resize(max);
    body["NextMarker"] = make_marker(found.back()->uuid);
  }
  json::array shown;
  for (const events::MappingPtr& each : found) {
    EventSourceMappings::observed(*each);
    shown.push_back(mapping_json(*each, call.context.registry.account()));
  }
  body["EventSourceMappings"] = std::move(shown);
  return control_answer(200, body);
}

Result<net::Response> update_mapping(const ControlCall& call) {
  MAYFLY_ASSIGN(EventSourceMappings * mappings, mappings_of(call));
  events::MappingChange change;
  if (call.input.contains("FunctionName")) {
    MAYFLY_ASSIGN(change.function, function_in(call));
  }
  change.settings = settings_in(call.input);
  MAYFLY_ASSIGN(const EventSourceMapping changed, mappings->update(text_in(call.input, "UUID"), change));
  return control_answer(202, mapping_json(changed, call.context.registry.account()));
}

Result<net::Response> delete_mapping(const ControlCall& call) {
  MAYFLY_ASSIGN(EventSourceMappings * mappings, mappings_of(call));
  MAYFLY_ASSIGN(const EventSourceMapping removed, mappings->remove(text_in(call.input, "UUID")));
  return control_answer(202, mapping_json(removed, call.context.registry.account()));
}

constexpr ControlEntry kOperations[] = {
    {"CreateEventSourceMapping", create_mapping}, {"DeleteEventSourceMapping", delete_mapping}, {"GetEventSourceMapping", get_mapping},
    {"ListEventSourceMappings", list_mappings},   {"UpdateEventSourceMapping", update_mapping},
};

// The UUID in the ARN a tag operation names; none when that is of another region or account.
std::string uuid_in(const ControlCall& call) {
  const std::string arn = text_in(call.input, "Resource");
  const std::string uuid = arn.substr(arn.rfind(':') + 1);
  return arn == EventSourceMapping{.uuid = uuid}.arn(call.context.registry.account()) ? uuid : std::string();
}

}  // namespace

std::span<const ControlEntry> event_source_mapping_operations() { return kOperations; }

bool names_event_source_mapping(const json::object& input) { return text_in(input, "Resource").find(kArnPart) != std::string::npos; }

Result<net::Response> tag_event_source_mapping(const ControlCall& call) {
  MAYFLY_ASSIGN(EventSourceMappings * mappings, mappings_of(call));
  MAYFLY_TRY(mappings->tag(uuid_in(call), string_map(call.input.at("Tags").get_object())));
  return control_answer(204, {});
}

Result<net::Response> untag_event_source_mapping(const ControlCall& call) {
  MAYFLY_ASSIGN(EventSourceMappings * mappings, mappings_of(call));
  MAYFLY_TRY(mappings->untag(uuid_in(call), texts_in(call.input, "TagKeys")));
  return control_answer(204, {});
}

Result<net::Response> list_event_source_mapping_tags(const ControlCall& call) {
  MAYFLY_ASSIGN(EventSourceMappings * mappings, mappings_of(call));
  const events::MappingPtr found = mappings->find(uuid_in(call));
  if (found == nullptr) return not_found("The resource you requested does not exist.");
  json::object tags;
  for (const auto& [key, value] : found->tags) tags[key] = value;
  return control_answer(200, {{"Tags", std::move(tags)}});
}

}  // namespace mayfly::api::lambda
