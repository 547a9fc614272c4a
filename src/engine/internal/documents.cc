#include "engine/internal/documents.h"

#include <array>
#include <boost/json.hpp>
#include <type_traits>

namespace mayfly::engine {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;
using Texts = std::map<std::string, std::string>;

constexpr std::int64_t kFormat = 1;  // grows only when an older Mayfly could not read what is written

std::string text_of(const json::value& value) { return {value.get_string().data(), value.get_string().size()}; }

json::object to_json(const Texts& texts) {
  json::object object;
  for (const auto& [key, value] : texts) object.emplace(key, value);
  return object;
}

Texts texts_from(const json::object& object) {
  Texts texts;
  for (const auto& member : object) {
    if (member.value().is_string()) texts.emplace(member.key(), text_of(member.value()));
  }
  return texts;
}

// One list of a configuration's members for both directions: a member is written and read under one name.
template <typename Config, typename Visitor>
void visit_config(Config& config, Visitor&& visit) {
  visit("runtime", config.runtime);
  visit("handler", config.handler);
  visit("role", config.role);
  visit("description", config.description);
  visit("timeout_s", config.timeout_s);
  visit("memory_mb", config.memory_mb);
  visit("ephemeral_mb", config.ephemeral_mb);
  visit("architecture", config.architecture);
  visit("environment", config.environment);
  visit("log_format", config.log_format);
  visit("application_log_level", config.application_log_level);
  visit("system_log_level", config.system_log_level);
  visit("log_group", config.log_group);
  visit("tracing_mode", config.tracing_mode);
  visit("snap_start", config.snap_start);
  visit("layers", config.layers);
  visit("accepted_json", config.accepted_json);
  visit("code_id", config.code_id);
  visit("code_sha256", config.code_sha256);
  visit("code_size", config.code_size);
}

template <typename Version, typename Visitor>
void visit_version(Version& version, Visitor&& visit) {
  visit("revision_id", version.revision_id);
  visit("last_modified", version.last_modified);
  visit("state", version.state);
  visit("update_status", version.update_status);
  visit("generation", version.generation);
}

template <typename Layer, typename Visitor>
void visit_members(Layer& layer, Visitor&& visit)
  requires std::is_same_v<std::remove_const_t<Layer>, LayerUse>
{
  visit("arn", layer.arn);
  visit("code_id", layer.code_id);
  visit("code_size", layer.code_size);
  visit("unpacked_bytes", layer.unpacked_bytes);
}

template <typename Layer, typename Visitor>
void visit_members(Layer& layer, Visitor&& visit)
  requires std::is_same_v<std::remove_const_t<Layer>, LayerVersion>
{
  visit("name", layer.name);
  visit("version", layer.version);
  visit("description", layer.description);
  visit("license", layer.license);
  visit("created", layer.created);
  visit("runtimes", layer.runtimes);
  visit("architectures", layer.architectures);
  visit("code_id", layer.code.id);
  visit("code_sha256", layer.code.sha256_base64);
  visit("code_size", layer.code.size);
  visit("unpacked_bytes", layer.unpacked_bytes);
  visit("policy_revision", layer.policy.revision_id);
  visit("policy", layer.policy.statements);
}

template <typename Item, typename Visitor>
void visit_members(Item& alias, Visitor&& visit)
  requires std::is_same_v<std::remove_const_t<Item>, Alias>
{
  visit("name", alias.name);
  visit("description", alias.description);
  visit("revision_id", alias.revision_id);
  visit("version", alias.version);
  visit("additional_version", alias.additional_version);
  visit("additional_weight", alias.additional_weight);
}

template <typename Item, typename Visitor>
void visit_members(Item& statement, Visitor&& visit)
  requires std::is_same_v<std::remove_const_t<Item>, ResourcePolicy::Statement>
{
  visit("sid", statement.sid);
  visit("document", statement.document);
}

template <typename Item, typename Visitor>
void visit_members(Item& policy, Visitor&& visit)
  requires std::is_same_v<std::remove_const_t<Item>, ResourcePolicy>
{
  visit("revision_id", policy.revision_id);
  visit("statements", policy.statements);
}

template <typename Item, typename Visitor>
void visit_members(Item& url, Visitor&& visit)
  requires std::is_same_v<std::remove_const_t<Item>, FunctionUrl>
{
  visit("id", url.id);
  visit("authentication", url.authentication);
  visit("streams", url.streams);
  visit("cors", url.cors_json);
  visit("created", url.created);
  visit("modified", url.modified);
}

template <typename Item, typename Visitor>
void visit_members(Item& config, Visitor&& visit)
  requires std::is_same_v<std::remove_const_t<Item>, EventInvokeConfig>
{
  visit("retries_max", config.retries_max);
  visit("age_max_s", config.age_max_s);
  visit("on_success", config.on_success);
  visit("on_failure", config.on_failure);
  visit("modified_us", config.modified);
}

template <typename Item, typename Visitor>
void visit_members(Item& provisioned, Visitor&& visit)
  requires std::is_same_v<std::remove_const_t<Item>, ProvisionedConcurrency>
{
  visit("requested", provisioned.requested);
  visit("modified", provisioned.modified);
}

template <typename Item, typename Visitor>
void visit_members(Item& management, Visitor&& visit)
  requires std::is_same_v<std::remove_const_t<Item>, RuntimeManagement>
{
  visit("update_on", management.update_on);
  visit("runtime_version_arn", management.runtime_version_arn);
}

template <typename Settings, typename Visitor>
void visit_settings(Settings& settings, Visitor&& visit) {
  visit("tags", settings.tags);
  visit("aliases", settings.aliases);
  visit("reserved_concurrency", settings.reserved_concurrency);
  visit("provisioned", settings.provisioned);
  visit("policies", settings.policies);
  visit("urls", settings.urls);
  visit("event_invoke", settings.event_invoke);
  visit("runtime_management", settings.runtime_management);
  visit("recursive_loop", settings.recursive_loop);
}

struct Writer {
  json::object& object;
  void operator()(const char* name, const std::string& value) const { object.emplace(name, value); }
  void operator()(const char* name, std::uint32_t value) const { object.emplace(name, value); }
  void operator()(const char* name, std::uint64_t value) const { object.emplace(name, value); }
  void operator()(const char* name, FunctionState value) const { object.emplace(name, state_name(value)); }
  void operator()(const char* name, UpdateStatus value) const { object.emplace(name, update_status_name(value)); }
  void operator()(const char* name, double value) const { object.emplace(name, value); }
  void operator()(const char* name, bool value) const { object.emplace(name, value); }
  void operator()(const char* name, UrlAuthentication value) const {
    object.emplace(name, value == UrlAuthentication::kIam ? "AWS_IAM" : "NONE");
  }
  void operator()(const char* name, base::WallTime value) const { object.emplace(name, value.time_since_epoch().count()); }
  void operator()(const char* name, const std::vector<std::string>& value) const {
    if (!value.empty()) object.emplace(name, json::array(value.begin(), value.end()));
  }
  void operator()(const char* name, const Texts& value) const {
    if (!value.empty()) object.emplace(name, to_json(value));
  }
  template <typename Value>
  void operator()(const char* name, const std::optional<Value>& value) const {
    if (value) (*this)(name, *value);
  }
  // An object of objects, left out when empty.
  template <typename Item>
  void operator()(const char* name, const std::map<std::string, Item>& items) const {
    if (items.empty()) return;
    json::object all;
    for (const auto& [key, item] : items) all.emplace(key, object_of(item));
    object.emplace(name, std::move(all));
  }
  template <typename Item>
  void operator()(const char* name, const std::vector<Item>& items) const {
    if (items.empty()) return;
    json::array all;
    for (const Item& item : items) all.push_back(object_of(item));
    object.emplace(name, std::move(all));
  }

 private:
  template <typename Item>
  static json::object object_of(const Item& item) {
    json::object made;
    visit_members(item, Writer{made});
    return made;
  }
};

struct Reader {
  const json::object& object;
  void operator()(const char* name, std::string& value) const {
    if (const auto* found = object.if_contains(name); found != nullptr && found->is_string()) value = text_of(*found);
  }
  void operator()(const char* name, std::uint64_t& value) const {
    if (const auto* found = object.if_contains(name); found != nullptr && found->is_number()) {
      json::error_code ec;
      const auto number = found->to_number<std::uint64_t>(ec);
      if (!ec) value = number;
    }
  }
  void operator()(const char* name, std::uint32_t& value) const {
    std::uint64_t wide = value;
    (*this)(name, wide);
    value = static_cast<std::uint32_t>(wide);
  }
  void operator()(const char* name, FunctionState& value) const {
    std::string text;
    (*this)(name, text);
    for (const FunctionState state : {FunctionState::kPending, FunctionState::kActive, FunctionState::kInactive, FunctionState::kFailed}) {
      if (text == state_name(state)) value = state;
    }
  }
  void operator()(const char* name, UpdateStatus& value) const {
    std::string text;
    (*this)(name, text);
    for (const UpdateStatus status : {UpdateStatus::kNone, UpdateStatus::kSuccessful, UpdateStatus::kInProgress, UpdateStatus::kFailed}) {
      if (text == update_status_name(status)) value = status;
    }
  }
  void operator()(const char* name, double& value) const {
    const auto* found = object.if_contains(name);
    json::error_code ec;
    if (found != nullptr && found->is_number()) value = found->to_number<double>(ec);
  }
  void operator()(const char* name, bool& value) const {
    if (const auto* found = object.if_contains(name); found != nullptr && found->is_bool()) value = found->get_bool();
  }
  void operator()(const char* name, UrlAuthentication& value) const {
    std::string text;
    (*this)(name, text);
    value = text == "NONE" ? UrlAuthentication::kNone : UrlAuthentication::kIam;
  }
  void operator()(const char* name, base::WallTime& value) const {
    std::uint64_t us = 0;
    (*this)(name, us);
    value = base::WallTime(std::chrono::microseconds(us));
  }
  void operator()(const char* name, std::vector<std::string>& value) const {
    const auto* found = object.if_contains(name);
    if (found == nullptr || !found->is_array()) return;
    for (const json::value& each : found->get_array()) {
      if (each.is_string()) value.push_back(text_of(each));
    }
  }
  void operator()(const char* name, Texts& value) const {
    if (const auto* found = object.if_contains(name); found != nullptr && found->is_object()) value = texts_from(found->get_object());
  }
  template <typename Value>
  void operator()(const char* name, std::optional<Value>& value) const {
    if (!object.contains(name)) return;
    value.emplace();
    (*this)(name, *value);
  }
  template <typename Item>
  void operator()(const char* name, std::map<std::string, Item>& items) const {
    const auto* found = object.if_contains(name);
    if (found == nullptr || !found->is_object()) return;
    for (const auto& member : found->get_object()) {
      if (member.value().is_object()) visit_members(items[std::string(member.key())], Reader{member.value().get_object()});
    }
  }
  template <typename Item>
  void operator()(const char* name, std::vector<Item>& items) const {
    const auto* found = object.if_contains(name);
    if (found == nullptr || !found->is_array()) return;
    for (const json::value& each : found->get_array()) {
      if (each.is_object()) visit_members(items.emplace_back(), Reader{each.get_object()});
    }
  }
};

// A document of our own writing, parsed: at the start there are a hundred thousand, so what is made of one lies in memory of its own
// that is given back at once.
class StoredDocument {
 public:
  Result<void> parse(const std::string& text) {
    json::error_code ec;
    value_ = json::parse(text, ec, json::storage_ptr(&memory_));
    if (ec) return Error(ErrorCode::kDataLoss, "a stored document is damaged: " + ec.message());
    if (!value_.is_object()) return Error(ErrorCode::kDataLoss, "a stored document is damaged: it is not an object");
    std::uint64_t format = 0;
    Reader{object()}("format", format);
    if (format >= 1 && format <= static_cast<std::uint64_t>(kFormat)) return {};
    return Error(ErrorCode::kUnsupported, "a stored document has format " + std::to_string(format) + ", this Mayfly knows up to " +
                                              std::to_string(kFormat) + "; start the version that wrote it");
  }
  [[nodiscard]] const json::object& object() const { return value_.get_object(); }

 private:
  static constexpr std::size_t kUsual = 16'384;  // bytes; more comes from the heap
  std::array<unsigned char, kUsual> buffer_;     // NOLINT: what is in it is not read before it is written
  json::monotonic_resource memory_{buffer_.data(), buffer_.size()};
  json::value value_ = json::value(json::storage_ptr(&memory_));
};

}  // namespace

store::VersionRow to_row(const FunctionVersion& version) {
  json::object config;
  visit_config(version.config, Writer{config});
  json::object document;
  document.emplace("format", kFormat);
  visit_version(version, Writer{document});
  document.emplace("config", std::move(config));
  return {
      .name = version.function_name, .version = version.version, .code_id = version.config.code_id, .document = json::serialize(document)};
}

Result<FunctionVersion> version_from(const store::VersionRow& row, const Account& account) {
  StoredDocument document;
  if (auto parsed = document.parse(row.document); !parsed.ok())
    return std::move(parsed).error().with_context("function " + row.name + ", version " + row.version);
  const json::object& object = document.object();
  FunctionVersion version;
  version.function_name = row.name;
  version.version = row.version;
  version.arn = account.function_arn(row.name);
  version.arn.shrink_to_fit();
  visit_version(version, Reader{object});
  if (const auto* config = object.if_contains("config"); config != nullptr && config->is_object())
    visit_config(version.config, Reader{config->get_object()});
  version.config.code_id = row.code_id;
  return version;
}

std::string layer_version_to_document(const LayerVersion& version) {
  json::object document;
  document.emplace("format", kFormat);
  visit_members(version, Writer{document});
  return json::serialize(document);
}

Result<LayerVersion> layer_version_from(const store::ResourceRow& row) {
  StoredDocument document;
  if (auto parsed = document.parse(row.document); !parsed.ok()) return std::move(parsed).error().with_context("layer version " + row.key);
  LayerVersion version;
  visit_members(version, Reader{document.object()});
  return version;
}

std::string next_layer_version_to_document(std::uint64_t next_version) {
  return json::serialize(json::object{{"format", kFormat}, {"next_version", next_version}});
}

Result<std::uint64_t> next_layer_version_from(const store::ResourceRow& row) {
  StoredDocument document;
  if (auto parsed = document.parse(row.document); !parsed.ok()) return std::move(parsed).error().with_context("layer " + row.key);
  std::uint64_t next = 1;
  Reader{document.object()}("next_version", next);
  return next;
}

std::string settings_to_document(const FunctionSettings& settings) {
  json::object document;
  document.emplace("format", kFormat);
  visit_settings(settings, Writer{document});
  return json::serialize(document);
}

Result<FunctionSettings> settings_from_document(const std::string& text) {
  StoredDocument document;
  MAYFLY_TRY(document.parse(text));
  FunctionSettings settings;
  visit_settings(settings, Reader{document.object()});
  return settings;
}

}  // namespace mayfly::engine
