#include "engine/internal/documents.h"

#include <boost/json.hpp>

#include "base/json.h"

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
  visit("state_reason", version.state_reason);
  visit("state_reason_code", version.state_reason_code);
  visit("update_status", version.update_status);
  visit("update_reason", version.update_reason);
  visit("update_reason_code", version.update_reason_code);
  visit("generation", version.generation);
}

struct Writer {
  json::object& object;
  void operator()(const char* name, const std::string& value) const { object.emplace(name, value); }
  void operator()(const char* name, std::uint32_t value) const { object.emplace(name, value); }
  void operator()(const char* name, std::uint64_t value) const { object.emplace(name, value); }
  void operator()(const char* name, FunctionState value) const { object.emplace(name, state_name(value)); }
  void operator()(const char* name, UpdateStatus value) const { object.emplace(name, update_status_name(value)); }
  void operator()(const char* name, const std::optional<Texts>& value) const {
    if (value) object.emplace(name, to_json(*value));
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
  void operator()(const char* name, std::optional<Texts>& value) const {
    if (const auto* found = object.if_contains(name); found != nullptr && found->is_object()) value = texts_from(found->get_object());
  }
};

Result<json::value> parse_document(const std::string& document) {
  auto parsed = base::parse_json(document);
  if (!parsed.ok()) return Error(ErrorCode::kDataLoss, "a stored document is damaged: " + parsed.error().message());
  if (!parsed->is_object()) return Error(ErrorCode::kDataLoss, "a stored document is damaged: it is not an object");
  std::uint64_t format = 0;
  Reader{parsed->get_object()}("format", format);
  if (format < 1 || format > static_cast<std::uint64_t>(kFormat)) {
    return Error(ErrorCode::kUnsupported, "a stored document has format " + std::to_string(format) + ", this Mayfly knows up to " +
                                              std::to_string(kFormat) + "; start the version that wrote it");
  }
  return parsed;
}

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
  auto document = parse_document(row.document);
  if (!document.ok()) return std::move(document).error().with_context("function " + row.name + ", version " + row.version);
  const json::object& object = document->get_object();
  FunctionVersion version;
  version.function_name = row.name;
  version.version = row.version;
  version.arn = account.function_arn(row.name);
  visit_version(version, Reader{object});
  if (const auto* config = object.if_contains("config"); config != nullptr && config->is_object())
    visit_config(version.config, Reader{config->get_object()});
  version.config.code_id = row.code_id;
  return version;
}

std::string tags_to_document(const Texts& tags) {
  json::object document;
  document.emplace("format", kFormat);
  document.emplace("tags", to_json(tags));
  return json::serialize(document);
}

Result<Texts> tags_from_document(const std::string& text) {
  MAYFLY_ASSIGN(const json::value document, parse_document(text));
  const auto* tags = document.get_object().if_contains("tags");
  return tags != nullptr && tags->is_object() ? texts_from(tags->get_object()) : Texts();
}

}  // namespace mayfly::engine
