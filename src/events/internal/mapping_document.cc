#include "events/internal/mapping_document.h"

#include <boost/json.hpp>

#include "base/json.h"
#include "events/internal/mapping_rules.h"

namespace mayfly::events {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;
using Texts = std::map<std::string, std::string>;

constexpr std::int64_t kFormat = 1;  // grows only when an older Mayfly could not read what is written

// One list of members for both directions.
template <typename Mapping, typename Visitor>
void visit_mapping(Mapping& mapping, Visitor&& visit) {
  visit("source_arn", mapping.source.arn);
  visit("bootstrap_servers", mapping.source.bootstrap_servers);
  visit("topic", mapping.source.topic);
  visit("queue", mapping.source.queue);
  visit("starting_position", mapping.source.starting_position);
  visit("starting_time_us", mapping.source.starting_time);
  visit("function", mapping.function.name);
  visit("qualifier", mapping.function.qualifier);
  visit("enabled", mapping.settings.enabled);
  visit("batch_size", mapping.settings.batch_size);
  visit("window_s", mapping.settings.window_s);
  visit("parallelization_factor", mapping.settings.parallelization_factor);
  visit("tumbling_window_s", mapping.settings.tumbling_window_s);
  visit("record_age_max_s", mapping.settings.record_age_max_s);
  visit("retries_max", mapping.settings.retries_max);
  visit("bisects_on_error", mapping.settings.bisects_on_error);
  visit("reports_item_failures", mapping.settings.reports_item_failures);
  visit("concurrency_max", mapping.settings.concurrency_max);
  visit("destinations", mapping.settings.destinations);
  visit("filters", mapping.settings.filters);
  visit("others", mapping.settings.others);
  visit("tags", mapping.tags);
  visit("modified_us", mapping.modified);
}

struct Writer {
  json::object& object;
  void operator()(const char* name, const std::string& value) const {
    if (!value.empty()) object.emplace(name, value);
  }
  void operator()(const char* name, bool value) const { object.emplace(name, value); }
  void operator()(const char* name, std::uint32_t value) const { object.emplace(name, value); }
  void operator()(const char* name, std::int32_t value) const { object.emplace(name, value); }
  void operator()(const char* name, base::WallTime value) const { object.emplace(name, value.time_since_epoch().count()); }
  void operator()(const char* name, const Destinations& value) const {
    object.emplace(name, json::object{{"on_failure", value.on_failure}});
  }
  void operator()(const char* name, const std::vector<std::string>& value) const {
    if (!value.empty()) object.emplace(name, json::array(value.begin(), value.end()));
  }
  void operator()(const char* name, const Texts& value) const {
    if (value.empty()) return;
    json::object texts;
    for (const auto& [key, text] : value) texts.emplace(key, text);
    object.emplace(name, std::move(texts));
  }
  template <typename Value>
  void operator()(const char* name, const std::optional<Value>& value) const {
    if (value) (*this)(name, *value);
  }
};

std::string text_of(const json::value& value) { return {value.get_string().data(), value.get_string().size()}; }

// Leaves a member as it is where the document has none of its type.
struct Reader {
  const json::object& object;
  void operator()(const char* name, std::string& value) const {
    if (const auto* found = object.if_contains(name); found != nullptr && found->is_string()) value = text_of(*found);
  }
  void operator()(const char* name, bool& value) const {
    if (const auto* found = object.if_contains(name); found != nullptr && found->is_bool()) value = found->get_bool();
  }
  void operator()(const char* name, std::uint32_t& value) const { read_number(name, value); }
  void operator()(const char* name, std::int32_t& value) const { read_number(name, value); }
  void operator()(const char* name, base::WallTime& value) const {
    std::int64_t us = value.time_since_epoch().count();
    read_number(name, us);
    value = base::WallTime(std::chrono::microseconds(us));
  }
  void operator()(const char* name, Destinations& value) const {
    if (const auto* found = object.if_contains(name); found != nullptr && found->is_object())
      Reader{found->get_object()}("on_failure", value.on_failure);
  }
  void operator()(const char* name, std::vector<std::string>& value) const {
    const auto* found = object.if_contains(name);
    if (found == nullptr || !found->is_array()) return;
    for (const json::value& each : found->get_array()) {
      if (each.is_string()) value.push_back(text_of(each));
    }
  }
  void operator()(const char* name, Texts& value) const {
    const auto* found = object.if_contains(name);
    if (found == nullptr || !found->is_object()) return;
    for (const auto& member : found->get_object()) {
      if (member.value().is_string()) value.emplace(member.key(), text_of(member.value()));
    }
  }
  template <typename Value>
  void operator()(const char* name, std::optional<Value>& value) const {
    if (!object.contains(name)) return;
    value.emplace();
    (*this)(name, *value);
  }

 private:
  template <typename Number>
  void read_number(const char* name, Number& value) const {
    const auto* found = object.if_contains(name);
    if (found == nullptr || !found->is_number()) return;
    json::error_code ec;
    const Number number = found->to_number<Number>(ec);
    if (!ec) value = number;
  }
};

Error damaged(const store::ResourceRow& row, const std::string& why) {
  return Error(ErrorCode::kDataLoss,
               "the catalogue's document of event source mapping " + row.key + " is damaged (" + why + "); restore it from a backup");
}

}  // namespace

store::ResourceRow to_row(const EventSourceMapping& mapping) {
  json::object document;
  document.emplace("format", kFormat);
  visit_mapping(mapping, Writer{document});
  return {.kind = kMappingRows, .key = mapping.uuid, .document = json::serialize(document)};
}

Result<EventSourceMapping> mapping_from(const store::ResourceRow& row) {
  const auto document = base::parse_json(row.document);
  if (!document.ok()) return damaged(row, document.error().message());
  const json::object* object = document->if_object();
  const json::value* format = object == nullptr ? nullptr : object->if_contains("format");
  if (format == nullptr || !format->is_int64()) return damaged(row, "it has no format");
  if (format->get_int64() > kFormat)
    return Error(ErrorCode::kUnsupported, "event source mapping " + row.key + " was written by a newer Mayfly");
  EventSourceMapping mapping;
  mapping.uuid = row.key;
  visit_mapping(mapping, Reader{*object});
  const auto kind = kind_of(mapping.source);
  if (!kind.ok()) return damaged(row, kind.error().message());
  mapping.kind = *kind;
  mapping.state = mapping.settings.enabled.value_or(true) ? MappingState::kEnabled : MappingState::kDisabled;
  return mapping;
}

}  // namespace mayfly::events
