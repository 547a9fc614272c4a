#include "api/lambda/functions.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>

#include "api/api.h"
#include "api/internal/answer.h"
#include "api/lambda/configuration.h"
#include "api/lambda/input.h"
#include "api/lambda/layers.h"
#include "base/bytes.h"
#include "net/sigv4.h"

namespace mayfly::api::lambda {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::chrono::minutes kCodeLinkValid{10};  // as long as AWS's links live
constexpr std::string_view kCodePrefix = "/mayfly/code/";

// --- Code ---

// What the archive is refused for, in AWS's words where it has some.
Error code_error(Error error) {
  if (error.code() == ErrorCode::kTooLarge && error.id().empty()) {
    return invalid_parameter("Unzipped size must be smaller than " + std::to_string(engine::Limits::kUnzippedBytesMax) + " bytes");
  }
  return error;
}

Result<void> check_runnable(const ControlCall& call, const std::optional<std::string>& runtime) {
  if (!runtime || !call.context.check_runtime) return {};
  return call.context.check_runtime(*runtime);
}

// What a change answers: $LATEST without a qualifier, a new version with its number.
std::string_view shown_qualifier(const engine::FunctionVersion& version) {
  return version.version == engine::kLatest ? std::string_view() : std::string_view(version.version);
}

Result<net::Response> create_function(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  if (!target.qualifier.empty())
    return invalid_parameter("A new function's name takes no qualifier; \"" + target.qualifier + "\" was given.");
  MAYFLY_ASSIGN(engine::FunctionConfig config, configuration_from(call.input));
  MAYFLY_TRY(check_runnable(call, config.runtime));
  MAYFLY_ASSIGN(LayersInUse layers, layers_in(call));
  config.layers = std::move(layers.uses);
  MAYFLY_ASSIGN(std::string zip, zip_from(call, call.input.at("Code").get_object()));
  std::map<std::string, std::string> tags;
  if (const json::value* given = call.input.if_contains("Tags")) tags = string_map(given->get_object());
  auto made = call.context.registry.create(target.name, std::move(config), std::move(zip), std::move(tags), flag_in(call.input, "Publish"));
  if (!made.ok()) return code_error(std::move(made).error());
  return control_answer(201, configuration_json(**made, {}));  // recorded: also of a published version
}

Result<net::Response> update_function_code(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, whole_function(call));
  MAYFLY_TRY(find_version(call.context.registry, target));
  MAYFLY_ASSIGN(std::string zip, zip_from(call, call.input));
  std::optional<std::string> architecture;
  if (const json::value* list = call.input.if_contains("Architectures"); list != nullptr && !list->get_array().empty()) {
    architecture = std::string(list->get_array().front().get_string());
  }
  auto updated = call.context.registry.update_code(target.name, std::move(zip), architecture, text_in(call.input, "RevisionId"),
                                                   flag_in(call.input, "Publish"), flag_in(call.input, "DryRun"));
  if (!updated.ok()) return code_error(std::move(updated).error());
  return control_answer(200, configuration_json(**updated, shown_qualifier(**updated)));
}

// Members that are only stored are merged with what is there: so the change is tied to the revision it was made from, and
// made again when another one came between.
Result<engine::VersionPtr> apply_change(const ControlCall& call, const Target& target) {
  const std::string wanted = text_in(call.input, "RevisionId");
  for (int attempt = 0;; ++attempt) {
    MAYFLY_ASSIGN(const engine::VersionPtr current, find_version(call.context.registry, target));
    MAYFLY_ASSIGN(engine::ConfigChange change, change_from(call.input, current->config));
    MAYFLY_TRY(check_runnable(call, change.runtime));
    MAYFLY_ASSIGN(LayersInUse layers, layers_in(call));
    if (call.input.contains("Layers")) change.layers = std::move(layers.uses);
    const bool is_merge = wanted.empty() && change.accepted_json.has_value();
    auto updated = call.context.registry.update_configuration(target.name, change, is_merge ? current->revision_id : wanted);
    const bool again = !updated.ok() && is_merge && attempt < 10 && updated.error().code() == ErrorCode::kPreconditionFailed;
    if (!again) return updated;
  }
}

Result<net::Response> update_function_configuration(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, whole_function(call));
  MAYFLY_ASSIGN(const engine::VersionPtr updated, apply_change(call, target));
  return control_answer(200, configuration_json(*updated, shown_qualifier(*updated)));
}

// --- Reading ---

// The version `target` means; whoever asks is shown its settled state, so that the next change is welcome.
Result<engine::VersionPtr> shown_version(const ControlCall& call, const Target& target) {
  MAYFLY_ASSIGN(engine::VersionPtr version, find_version(call.context.registry, target));
  if (const engine::RecordPtr record = call.context.registry.find(target.name)) call.context.registry.observed(*record);
  return version;
}

Result<net::Response> get_function_configuration(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  MAYFLY_ASSIGN(const engine::VersionPtr version, shown_version(call, target));
  return control_answer(200, configuration_json(*version, target.qualifier));
}

void add_settings(json::object& body, const engine::FunctionRecord& record) {
  if (!record.settings->tags.empty()) {
    json::object tags;
    for (const auto& [key, value] : record.settings->tags) tags[key] = value;
    body["Tags"] = std::move(tags);
  }
  if (record.settings->reserved_concurrency)
    body["Concurrency"] = json::object{{"ReservedConcurrentExecutions", *record.settings->reserved_concurrency}};
}

Result<net::Response> get_function(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  MAYFLY_ASSIGN(const engine::VersionPtr version, shown_version(call, target));
  MAYFLY_ASSIGN(const std::string location, code_location(call, version->function_name, version->config.code_id));
  json::object body{{"Configuration", configuration_json(*version, target.qualifier)}};
  body["Code"] = json::object{{"RepositoryType", "S3"}, {"Location", location}};
  const engine::RecordPtr record = call.context.registry.find(target.name);
  if (record != nullptr) add_settings(body, *record);
  return control_answer(200, body);
}

// A place in the list of all versions of all functions: after version `version` of `name`.
struct ListPlace {
  std::string name, version;
};
Result<ListPlace> parse_place(const std::string& marker) {
  if (marker.empty()) return ListPlace();
  const std::size_t colon = marker.find(':');
  if (colon == std::string::npos) return invalid_parameter("The Marker is not one that this operation gave out; start again without it.");
  return ListPlace{.name = marker.substr(0, colon), .version = marker.substr(colon + 1)};
}
std::string marker_after(const engine::FunctionVersion& version) { return make_marker(version.function_name + ":" + version.version); }

std::uint64_t version_rank(std::string_view version) {
  std::uint64_t number = 0;  // $LATEST comes first
  std::from_chars(version.data(), version.data() + version.size(), number);
  return number;
}

// Adds one more than `max` versions of a record after `version` ("": from the start), if there are so many, in the order lists show
// them: $LATEST, then ascending. Looks at no others: there may be thousands.
void add_versions_after(const engine::FunctionRecord& record, std::string_view version, std::size_t max,
                        std::vector<engine::VersionPtr>& found) {
  if (version.empty()) found.push_back(record.latest);
  auto next = std::partition_point(record.published.begin(), record.published.end(),
                                   [rank = version_rank(version)](const auto& each) { return version_rank(each->version) <= rank; });
  while (next != record.published.end() && found.size() <= max) found.push_back(*next++);
}

// One more than `max` versions after `place`, if there are so many.
std::vector<engine::VersionPtr> all_versions_after(const engine::FunctionRegistry& registry, const ListPlace& place, std::size_t max) {
  std::vector<engine::VersionPtr> found;
  std::vector<engine::RecordPtr> records;
  if (const engine::RecordPtr started = place.name.empty() ? nullptr : registry.find(place.name)) records.push_back(started);
  const auto rest = registry.list(place.name, max + 1);
  records.insert(records.end(), rest.begin(), rest.end());
  for (const engine::RecordPtr& record : records) {
    add_versions_after(*record, record->latest->function_name == place.name ? place.version : "", max, found);
    if (found.size() > max) break;
  }
  return found;
}

Result<net::Response> list_functions(const ControlCall& call) {
  const bool all = text_in(call.input, "FunctionVersion") == "ALL";
  const std::size_t max = page_size(call.input);
  MAYFLY_ASSIGN(const std::string marker, marker_in(call.input));
  MAYFLY_ASSIGN(const ListPlace place, parse_place(marker));
  std::vector<engine::VersionPtr> found;
  if (all) {
    found = all_versions_after(call.context.registry, place, max);
  } else {
    for (const engine::RecordPtr& record : call.context.registry.list(place.name, max + 1)) found.push_back(record->latest);
  }
  json::object body;
  if (found.size() > max) {
    found.resize(max);
    body["NextMarker"] = marker_after(*found.back());
  }
  json::array functions;
  for (const engine::VersionPtr& version : found) {
    json::object each = configuration_json(*version, all ? std::string_view(version->version) : std::string_view());
    for (const char* name :
         {"State", "StateReason", "StateReasonCode", "LastUpdateStatus", "LastUpdateStatusReason", "LastUpdateStatusReasonCode"})
      each.erase(name);
    functions.push_back(std::move(each));
  }
  body["Functions"] = std::move(functions);
  return control_answer(200, body);
}

// --- Versions, deletion ---

Result<net::Response> publish_version(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, whole_function(call));
  MAYFLY_TRY(find_version(call.context.registry, target));
  if (call.input.contains("PublishTo")) return unsupported("mayfly does not support PublishTo yet; leave it out");
  MAYFLY_ASSIGN(const engine::VersionPtr published,
                call.context.registry.publish(target.name, text_in(call.input, "CodeSha256"), optional_text_in(call.input, "Description"),
                                              text_in(call.input, "RevisionId")));
  return control_answer(201, configuration_json(*published, published->version));
}

Result<net::Response> list_versions(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  MAYFLY_TRY(find_version(call.context.registry, target));
  MAYFLY_ASSIGN(const std::string marker, marker_in(call.input));
  MAYFLY_ASSIGN(const ListPlace place, parse_place(marker));
  const engine::RecordPtr record = call.context.registry.find(target.name);
  if (record == nullptr) return not_found("Function not found: " + target.arn(call.context.registry.account()));
  const std::size_t max = page_size(call.input);
  std::vector<engine::VersionPtr> found;
  add_versions_after(*record, place.version, max, found);
  json::object body;
  if (found.size() > max) {
    found.resize(max);
    body["NextMarker"] = marker_after(*found.back());
  }
  json::array versions;
  for (const engine::VersionPtr& version : found) versions.push_back(configuration_json(*version, version->version));
  body["Versions"] = std::move(versions);
  return control_answer(200, body);
}

Result<net::Response> delete_function(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  if (target.qualifier != engine::kLatest && call.context.registry.find(target.name) == nullptr) {
    return not_found("Function not found: " + target.arn(call.context.registry.account()));
  }
  MAYFLY_TRY(call.context.registry.remove(target.name, target.qualifier));
  return control_answer(204, {});  // recorded: 204, although the model says 200
}

constexpr ControlEntry kOperations[] = {
    {"CreateFunction", create_function},
    {"DeleteFunction", delete_function},
    {"GetFunction", get_function},
    {"GetFunctionConfiguration", get_function_configuration},
    {"ListFunctions", list_functions},
    {"ListVersionsByFunction", list_versions},
    {"PublishVersion", publish_version},
    {"UpdateFunctionCode", update_function_code},
    {"UpdateFunctionConfiguration", update_function_configuration},
};

}  // namespace

std::span<const ControlEntry> function_operations() { return kOperations; }

Result<std::string> zip_from(const ControlCall& call, const json::object& source) {
  if (source.contains("ImageUri")) return unsupported("mayfly does not run container images (ImageUri) yet; send the code as ZipFile");
  const std::string bucket = text_in(source, "S3Bucket"), key = text_in(source, "S3Key");
  if (!bucket.empty() && !key.empty()) {
    if (!call.context.read_object) return unsupported("mayfly does not fetch code from S3 here; send it as ZipFile");
    return call.context.read_object(bucket, key, text_in(source, "S3ObjectVersion"));
  }
  const auto zip = optional_text_in(source, "ZipFile");
  if (!zip) return invalid_parameter("Please provide a source for function code.");
  auto decoded = base::base64_decode(*zip);
  if (!decoded.ok()) return Error(ErrorCode::kInvalidArgument, "code.zipFile: " + decoded.error().message(), "SerializationException");
  if (decoded->empty()) return invalid_parameter("Uploaded file must be a non-empty zip");
  if (decoded->size() > engine::Limits::kZipBytesMax) {
    return Error(ErrorCode::kTooLarge, "Zipped size must be smaller than " + std::to_string(engine::Limits::kZipBytesMax) + " bytes",
                 "RequestEntityTooLargeException");
  }
  return *std::move(decoded);
}

Result<std::string> code_location(const ControlCall& call, const std::string& name, const std::string& code_id) {
  const access::CredentialPointer credential = call.context.credentials.find(call.access_key);
  if (credential == nullptr)
    return Error(ErrorCode::kUnauthenticated, "The security token included in the request is invalid.", "UnrecognizedClientException");
  const std::string path = code_path(name, code_id);
  const net::SigningKey key{
      .access_key = call.access_key, .secret_key = credential->secret_key, .session_token = credential->session_token};
  const net::SigningScope scope{.region = call.context.registry.account().region, .service = "lambda"};
  return "http://" + call.host + path + "?" + net::presign_get(call.host, path, key, scope, call.context.clock.wall_now(), kCodeLinkValid);
}

bool names_code(const ApiContext& context, const CodeLink& link) {
  constexpr std::string_view kLayer = "layer:";
  if (!link.owner.starts_with(kLayer)) return context.registry.find(link.owner) != nullptr;
  return !context.layers.versions(link.owner.substr(kLayer.size())).empty();
}

std::string code_path(const std::string& owner, const std::string& code_id) {
  return std::string(kCodePrefix) + owner + "/" + code_id + ".zip";
}

std::optional<CodeLink> parse_code_path(std::string_view path) {
  if (!path.starts_with(kCodePrefix) || !path.ends_with(".zip")) return std::nullopt;
  path = path.substr(kCodePrefix.size(), path.size() - kCodePrefix.size() - 4);
  const std::size_t slash = path.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  CodeLink link{.owner = std::string(path.substr(0, slash)), .code_id = std::string(path.substr(slash + 1))};
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (link.code_id.size() != 64 || !std::all_of(link.code_id.begin(), link.code_id.end(), is_hex)) return std::nullopt;
  return link;
}

}  // namespace mayfly::api::lambda
