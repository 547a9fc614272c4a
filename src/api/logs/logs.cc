#include "api/logs/logs.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <cstdio>

#include "api/internal/answer.h"
#include "api/logs/filter_pattern.h"
#include "base/json.h"

namespace mayfly::api::logs {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;
using store::LogEvent;

constexpr std::int64_t kEventsMax = 10'000;  // of one answer, AWS's
constexpr std::int64_t kListMax = 50;
constexpr std::size_t kScanMax = 100'000;  // events looked at by one FilterLogEvents before it answers with a token
constexpr std::uint64_t kAnswerBytesMax = 1U << 20U;

Error invalid(std::string message) { return Error(ErrorCode::kInvalidArgument, std::move(message), "InvalidParameterException"); }
Error no_group() { return Error(ErrorCode::kNotFound, "The specified log group does not exist.", "ResourceNotFoundException"); }
Error no_stream() { return Error(ErrorCode::kNotFound, "The specified log stream does not exist.", "ResourceNotFoundException"); }

// --- Parameters ---

Result<std::string> text_in(const json::object& input, json::string_view name) {
  const json::value* found = input.if_contains(name);
  if (found == nullptr || found->is_null()) return std::string();
  if (!found->is_string()) return invalid(std::string(name) + " must be a string");
  return std::string(found->get_string().data(), found->get_string().size());
}

Result<bool> flag_in(const json::object& input, json::string_view name) {
  const json::value* found = input.if_contains(name);
  if (found == nullptr || found->is_null()) return false;
  if (!found->is_bool()) return invalid(std::string(name) + " must be true or false");
  return found->get_bool();
}

struct Bounds {
  std::int64_t fallback, min, max;
};
Result<std::int64_t> number_in(const json::object& input, json::string_view name, Bounds bounds) {
  const json::value* found = input.if_contains(name);
  if (found == nullptr || found->is_null()) return bounds.fallback;
  if (!found->is_int64()) return invalid(std::string(name) + " must be a whole number");
  const std::int64_t number = found->get_int64();
  if (number >= bounds.min && number <= bounds.max) return number;
  const bool low = number < bounds.min;
  std::string shown(name);
  return invalid("1 validation error detected: Value '" + std::to_string(number) + "' at '" + shown +
                 "' failed to satisfy constraint: Member must have value " +
                 (low ? "greater than or equal to " + std::to_string(bounds.min) : "less than or equal to " + std::to_string(bounds.max)));
}
constexpr Bounds kFromBounds{.fallback = 0, .min = 0, .max = INT64_MAX};
constexpr Bounds kToBounds{.fallback = INT64_MAX, .min = 0, .max = INT64_MAX};

bool is_name_character(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || std::string_view("_-/.#").find(c) != std::string_view::npos;
}

// "arn:aws:logs:us-east-1:000000000000:log-group:NAME[:*]" or the name itself.
std::string group_of_identifier(std::string text) {
  constexpr std::string_view kMark = ":log-group:";
  if (const std::size_t mark = text.find(kMark); text.starts_with("arn:") && mark != std::string::npos)
    text = text.substr(mark + kMark.size());
  if (text.ends_with(":*")) text.resize(text.size() - 2);
  return text;
}

Result<std::string> group_in(const json::object& input) {
  MAYFLY_ASSIGN(std::string name, text_in(input, "logGroupName"));
  MAYFLY_ASSIGN(const std::string identifier, text_in(input, "logGroupIdentifier"));
  if (!name.empty() && !identifier.empty()) return invalid("Only one of logGroupName and logGroupIdentifier may be given.");
  if (name.empty()) name = group_of_identifier(identifier);
  if (name.empty())
    return invalid("1 validation error detected: Value null at 'logGroupName' failed to satisfy constraint: Member must not be null");
  if (name.size() <= 512 && std::all_of(name.begin(), name.end(), is_name_character)) return name;
  return invalid("1 validation error detected: Value '" + name.substr(0, 600) +
                 "' at 'logGroupName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+");
}

bool has_group(store::LogSegments& store, const std::string& name) {
  const std::vector<std::string> all = store.groups();
  return std::find(all.begin(), all.end(), name) != all.end();
}

Result<std::vector<store::LogStream>> streams_of(store::LogSegments& store, const std::string& group) {
  auto streams = store.streams(group);
  if (!streams.ok() && streams.error().code() == ErrorCode::kNotFound) return no_group();
  return streams;
}

net::Response answer(const json::object& body) { return json_answer(Protocol::kAwsJson, 200, body); }
// Operations without a result answer an empty body.
net::Response empty_answer() {
  net::Response response;
  response.headers.add("Content-Type", "application/x-amz-json-1.1");
  return response;
}

std::string group_arn(const engine::Account& account, const std::string& group) {
  return "arn:aws:logs:" + account.region + ":" + account.id + ":log-group:" + group;
}

// Sequences as AWS's identifiers look: 56 digits.
std::string wide(std::uint64_t number) {
  char digits[64];
  const int length = std::snprintf(digits, sizeof digits, "%056llu", static_cast<unsigned long long>(number));
  return {digits, static_cast<std::size_t>(length)};
}

// A page of names after `token` (the last name of the page before).
template <typename T, typename Name>
json::value page(std::vector<T>& all, const std::string& token, std::int64_t limit, Name name) {
  if (!token.empty()) {
    const auto last = std::find_if(all.begin(), all.end(), [&](const T& each) { return name(each) == token; });
    if (last != all.end()) all.erase(all.begin(), last + 1);
  }
  if (all.size() <= static_cast<std::size_t>(limit)) return nullptr;
  all.resize(static_cast<std::size_t>(limit));
  return json::value(json::string(name(all.back())));
}

// --- Groups ---

json::object group_json(const LogCall& call, const std::string& group) {
  json::object shown;
  std::int64_t created_ms = 0;
  std::uint64_t bytes = 0;
  if (const auto streams = call.store.streams(group); streams.ok()) {
    for (const store::LogStream& stream : *streams) {
      if (created_ms == 0 || stream.created_ms < created_ms) created_ms = stream.created_ms;
      bytes += stream.bytes;
    }
  }
  const std::string arn = group_arn(call.account, group);
  shown["logGroupName"] = group;
  shown["creationTime"] = created_ms;
  shown["metricFilterCount"] = 0;
  shown["arn"] = arn + ":*";
  shown["logGroupArn"] = arn;
  shown["storedBytes"] = bytes;
  shown["logGroupClass"] = "STANDARD";
  return shown;
}

Result<net::Response> describe_log_groups(const LogCall& call) {
  MAYFLY_ASSIGN(const std::string prefix, text_in(call.input, "logGroupNamePrefix"));
  MAYFLY_ASSIGN(const std::string part, text_in(call.input, "logGroupNamePattern"));
  MAYFLY_ASSIGN(const std::string token, text_in(call.input, "nextToken"));
  MAYFLY_ASSIGN(const std::int64_t limit, number_in(call.input, "limit", {.fallback = kListMax, .min = 1, .max = kListMax}));
  if (!prefix.empty() && !part.empty()) return invalid("Only one of logGroupNamePrefix and logGroupNamePattern may be given.");
  call.store.flush();
  std::vector<std::string> groups = call.store.groups();
  std::erase_if(groups, [&](const std::string& each) { return !each.starts_with(prefix) || each.find(part) == std::string::npos; });
  std::sort(groups.begin(), groups.end());
  json::object body;
  json::value next = page(groups, token, limit, [](const std::string& each) { return each; });
  json::array shown;
  for (const std::string& group : groups) shown.push_back(group_json(call, group));
  body["logGroups"] = std::move(shown);
  if (!next.is_null()) body["nextToken"] = std::move(next);
  return answer(body);
}

Result<net::Response> create_log_group(const LogCall& call) {
  MAYFLY_ASSIGN(const std::string group, group_in(call.input));
  call.store.flush();
  if (has_group(call.store, group))
    return Error(ErrorCode::kAlreadyExists, "The specified log group already exists", "ResourceAlreadyExistsException");
  call.store.create_group(group);
  return empty_answer();
}

Result<net::Response> delete_log_group(const LogCall& call) {
  MAYFLY_ASSIGN(const std::string group, group_in(call.input));
  call.store.flush();
  const Result<void> deleted = call.store.delete_group(group);
  if (!deleted.ok() && deleted.error().code() == ErrorCode::kNotFound) return no_group();
  if (!deleted.ok()) return deleted.error();
  return empty_answer();
}

// --- Streams ---

json::object stream_json(const LogCall& call, const std::string& group, const store::LogStream& stream) {
  json::object shown;
  shown["logStreamName"] = stream.name;
  shown["creationTime"] = stream.created_ms;
  if (stream.last_ms != 0) {
    shown["firstEventTimestamp"] = stream.first_ms;
    shown["lastEventTimestamp"] = stream.last_ms;
    shown["lastIngestionTime"] = stream.last_ingested_ms;
  }
  shown["uploadSequenceToken"] = wide(static_cast<std::uint64_t>(std::max<std::int64_t>(stream.last_ingested_ms, 0)));
  shown["arn"] = group_arn(call.account, group) + ":log-stream:" + stream.name;
  shown["storedBytes"] = 0;  // AWS reports 0 for every stream since 2019
  return shown;
}

Result<net::Response> describe_log_streams(const LogCall& call) {
  MAYFLY_ASSIGN(const std::string group, group_in(call.input));
  MAYFLY_ASSIGN(const std::string prefix, text_in(call.input, "logStreamNamePrefix"));
  MAYFLY_ASSIGN(const std::string order, text_in(call.input, "orderBy"));
  MAYFLY_ASSIGN(const bool descending, flag_in(call.input, "descending"));
  MAYFLY_ASSIGN(const std::string token, text_in(call.input, "nextToken"));
  MAYFLY_ASSIGN(const std::int64_t limit, number_in(call.input, "limit", {.fallback = kListMax, .min = 1, .max = kListMax}));
  if (!order.empty() && order != "LogStreamName" && order != "LastEventTime") {
    return invalid("1 validation error detected: Value '" + order.substr(0, 64) +
                   "' at 'orderBy' failed to satisfy constraint: Member must satisfy enum value set: [LogStreamName, LastEventTime]");
  }
  const bool by_time = order == "LastEventTime";
  if (by_time && !prefix.empty()) return invalid("Cannot order by LastEventTime with a logStreamNamePrefix.");
  call.store.flush();
  MAYFLY_ASSIGN(std::vector<store::LogStream> streams, streams_of(call.store, group));
  std::erase_if(streams, [&](const store::LogStream& each) { return !each.name.starts_with(prefix); });
  std::sort(streams.begin(), streams.end(), [by_time](const store::LogStream& a, const store::LogStream& b) {
    if (by_time && a.last_ms != b.last_ms) return a.last_ms < b.last_ms;
    return a.name < b.name;
  });
  if (descending) std::reverse(streams.begin(), streams.end());
  json::value next = page(streams, token, limit, [](const store::LogStream& each) { return each.name; });
  json::array shown;
  for (const store::LogStream& stream : streams) shown.push_back(stream_json(call, group, stream));
  json::object body;
  body["logStreams"] = std::move(shown);
  if (!next.is_null()) body["nextToken"] = std::move(next);
  return answer(body);
}

// --- Events ---

// A place between two events of a stream: after (forward) or before (backward) a sequence.
struct Place {
  bool forward = true;
  std::uint64_t sequence = 0;
  [[nodiscard]] std::string token() const { return (forward ? "f/" : "b/") + wide(sequence) + "/s"; }
};

Result<Place> parse_place(const std::string& token) {
  Place place;
  const bool framed = (token.starts_with("f/") || token.starts_with("b/")) && token.ends_with("/s") && token.size() > 4;
  if (framed) {
    place.forward = token[0] == 'f';
    const char* end = token.data() + token.size() - 2;
    const auto [stop, ec] = std::from_chars(token.data() + 2, end, place.sequence);
    if (ec == std::errc() && stop == end) return place;
  }
  return invalid("The specified nextToken is invalid.");
}

void by_time(std::vector<LogEvent>& events) {
  std::sort(events.begin(), events.end(), [](const LogEvent& a, const LogEvent& b) {
    return a.timestamp_ms != b.timestamp_ms ? a.timestamp_ms < b.timestamp_ms : a.sequence < b.sequence;
  });
}

// The sequences an answer spans; `asked` is what the request's token said, for answers without events.
struct Span {
  std::uint64_t first = 0, last = 0;
};
Span span_of(const std::vector<LogEvent>& events, const Place& asked) {
  if (events.empty())
    return asked.forward ? Span{.first = asked.sequence + 1, .last = asked.sequence}
                         : Span{.first = asked.sequence, .last = std::max<std::uint64_t>(asked.sequence, 1) - 1};
  const auto [low, high] =
      std::minmax_element(events.begin(), events.end(), [](const LogEvent& a, const LogEvent& b) { return a.sequence < b.sequence; });
  return {.first = low->sequence, .last = high->sequence};
}

Result<std::vector<LogEvent>> read_events(store::LogSegments& store, const store::LogQuery& query) {
  auto events = store.read(query);
  if (!events.ok() && events.error().code() == ErrorCode::kNotFound) return no_group();
  return events;
}

Result<net::Response> get_log_events(const LogCall& call) {
  MAYFLY_ASSIGN(const std::string group, group_in(call.input));
  MAYFLY_ASSIGN(const std::string stream, text_in(call.input, "logStreamName"));
  MAYFLY_ASSIGN(const std::string token, text_in(call.input, "nextToken"));
  MAYFLY_ASSIGN(const bool from_head, flag_in(call.input, "startFromHead"));
  MAYFLY_ASSIGN(const std::int64_t limit, number_in(call.input, "limit", {.fallback = kEventsMax, .min = 1, .max = kEventsMax}));
  store::LogQuery query{.group = group, .streams = {stream}};
  MAYFLY_ASSIGN(query.from_ms, number_in(call.input, "startTime", kFromBounds));
  MAYFLY_ASSIGN(query.to_ms, number_in(call.input, "endTime", kToBounds));
  Place place{.forward = from_head, .sequence = 0};
  if (!token.empty()) {
    MAYFLY_ASSIGN(place, parse_place(token));
    (place.forward ? query.after_sequence : query.before_sequence) = place.sequence;
  }
  query.newest_first = !place.forward;
  query.max = static_cast<std::size_t>(limit);
  query.bytes_max = kAnswerBytesMax;
  call.store.flush();
  MAYFLY_ASSIGN(const std::vector<store::LogStream> streams, streams_of(call.store, group));
  if (std::none_of(streams.begin(), streams.end(), [&](const store::LogStream& each) { return each.name == stream; })) return no_stream();
  MAYFLY_ASSIGN(std::vector<LogEvent> events, read_events(call.store, query));
  // Without events and token both tokens stand at the start: nothing of the stream lies before it.
  const Span span = events.empty() && token.empty() ? Span{.first = 1, .last = 0} : span_of(events, place);
  by_time(events);
  json::array shown;
  for (LogEvent& event : events)
    shown.push_back({{"timestamp", event.timestamp_ms}, {"message", base::valid_utf8(std::move(event.message))}, {"ingestionTime", event.ingested_ms}});
  json::object body;
  body["events"] = std::move(shown);
  body["nextForwardToken"] = Place{.forward = true, .sequence = span.last}.token();
  body["nextBackwardToken"] = Place{.forward = false, .sequence = span.first}.token();
  return answer(body);
}

Result<std::vector<std::string>> stream_names(const json::object& input) {
  std::vector<std::string> names;
  const json::value* given = input.if_contains("logStreamNames");
  if (given == nullptr || given->is_null()) return names;
  if (!given->is_array()) return invalid("logStreamNames must be a list of strings");
  for (const json::value& each : given->get_array()) {
    if (!each.is_string()) return invalid("logStreamNames must be a list of strings");
    names.emplace_back(each.get_string());
  }
  if (names.empty() || names.size() > 100) return invalid("logStreamNames must name 1 to 100 streams");
  return names;
}

Result<store::LogQuery> filter_query(const LogCall& call) {
  store::LogQuery query;
  MAYFLY_ASSIGN(query.group, group_in(call.input));
  MAYFLY_ASSIGN(query.streams, stream_names(call.input));
  MAYFLY_ASSIGN(query.stream_prefix, text_in(call.input, "logStreamNamePrefix"));
  if (!query.streams.empty() && !query.stream_prefix.empty())
    return invalid("Only one of logStreamNames and logStreamNamePrefix may be given.");
  MAYFLY_ASSIGN(query.from_ms, number_in(call.input, "startTime", kFromBounds));
  MAYFLY_ASSIGN(query.to_ms, number_in(call.input, "endTime", kToBounds));
  if (query.to_ms < query.from_ms) return invalid("The endTime must not be before the startTime.");
  if (query.to_ms != INT64_MAX) ++query.to_ms;  // FilterLogEvents includes its end
  MAYFLY_ASSIGN(const std::string token, text_in(call.input, "nextToken"));
  if (!token.empty()) {
    MAYFLY_ASSIGN(const Place place, parse_place(token));
    query.after_sequence = place.sequence;
  }
  return query;
}

struct Found {
  std::vector<LogEvent> events;
  bool complete = false;            // everything was looked at
  std::uint64_t last_sequence = 0;  // looked at last
};

// Reads on until `limit` events match, the answer is large enough, enough was looked at, or nothing is left.
Result<Found> search(store::LogSegments& store, store::LogQuery query, const FilterPattern& pattern, std::size_t limit) {
  Found found;
  std::uint64_t bytes = 0;
  for (std::size_t looked = 0; looked < kScanMax;) {
    MAYFLY_ASSIGN(std::vector<LogEvent> events, read_events(store, query));
    if (events.empty()) {
      found.complete = true;
      return found;
    }
    for (LogEvent& event : events) {
      found.last_sequence = event.sequence;
      ++looked;
      if (!pattern.matches(event.message)) continue;
      bytes += event.message.size();
      found.events.push_back(std::move(event));
      if (found.events.size() == limit || bytes >= kAnswerBytesMax) return found;
    }
    query.after_sequence = found.last_sequence;
  }
  return found;
}

Result<net::Response> filter_log_events(const LogCall& call) {
  MAYFLY_ASSIGN(const store::LogQuery query, filter_query(call));
  MAYFLY_ASSIGN(const std::int64_t limit, number_in(call.input, "limit", {.fallback = kEventsMax, .min = 1, .max = kEventsMax}));
  MAYFLY_ASSIGN(const std::string text, text_in(call.input, "filterPattern"));
  MAYFLY_ASSIGN(const FilterPattern pattern, FilterPattern::parse(text));
  call.store.flush();
  if (!has_group(call.store, query.group)) return no_group();
  MAYFLY_ASSIGN(Found found, search(call.store, query, pattern, static_cast<std::size_t>(limit)));
  by_time(found.events);
  json::array shown;
  for (LogEvent& event : found.events) {
    shown.push_back({{"logStreamName", std::move(event.stream)},
                     {"timestamp", event.timestamp_ms},
                     {"message", base::valid_utf8(std::move(event.message))},
                     {"ingestionTime", event.ingested_ms},
                     {"eventId", wide(event.sequence)}});
  }
  json::object body;
  body["events"] = std::move(shown);
  body["searchedLogStreams"] = json::array();  // AWS has answered an empty list since 2019
  if (!found.complete) body["nextToken"] = Place{.forward = true, .sequence = found.last_sequence}.token();
  return answer(body);
}

}  // namespace

Operation find_operation(std::string_view name) {
  if (name == "DescribeLogGroups") return {.run = describe_log_groups, .reads_only = true};
  if (name == "DescribeLogStreams") return {.run = describe_log_streams, .reads_only = true};
  if (name == "GetLogEvents") return {.run = get_log_events, .reads_only = true};
  if (name == "FilterLogEvents") return {.run = filter_log_events, .reads_only = true};
  if (name == "CreateLogGroup") return {.run = create_log_group};
  if (name == "DeleteLogGroup") return {.run = delete_log_group};
  return {};
}

Result<json::object> read_input(std::string_view body) {
  if (body.empty()) return json::object();
  auto parsed = base::parse_json(body);
  if (!parsed.ok()) return Error(ErrorCode::kInvalidArgument, parsed.error().message(), "SerializationException");
  if (!parsed->is_object()) return Error(ErrorCode::kInvalidArgument, "the request must be a JSON object", "SerializationException");
  return std::move(parsed->get_object());
}

std::string resource_of(const json::object& input, const engine::Account& account) {
  const auto group = group_in(input);
  return group.ok() ? group_arn(account, *group) + ":*" : "*";
}

}  // namespace mayfly::api::logs
