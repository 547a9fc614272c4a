#include "api/lambda/functions.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>

#include "api/api.h"
#include "api/internal/answer.h"
#include "api/lambda/configuration.h"
#include "api/lambda/model.h"
#include "api/lambda/resolve.h"
#include "base/bytes.h"
#include "net/sigv4.h"

namespace mayfly::api::lambda {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::size_t kPageMax = 50;
constexpr std::uint64_t kTotalCodeBytesMax = 80'530'636'800;  // 75 GB, AWS's default
constexpr std::chrono::minutes kCodeLinkValid{10};            // as long as AWS's links live
constexpr std::string_view kCodePrefix = "/mayfly/code/";

std::string text_in(const json::object& input, json::string_view name) {
  const json::value* found = input.if_contains(name);
  if (found == nullptr || !found->is_string()) return {};
  return std::string(found->get_string().data(), found->get_string().size());
}
std::optional<std::string> optional_text_in(const json::object& input, json::string_view name) {
  if (!input.contains(name)) return std::nullopt;
  return text_in(input, name);
}
bool flag_in(const json::object& input, json::string_view name) {
  const json::value* found = input.if_contains(name);
  return found != nullptr && found->is_bool() && found->get_bool();
}

Result<Target> target_of(const ControlCall& call) {
  return resolve_name(text_in(call.input, "FunctionName"), text_in(call.input, "Qualifier"), call.context.registry.account(), call.action);
}
// For operations on the function as a whole: a qualifier in the name has nothing to name.
Result<Target> whole_function(const ControlCall& call) {
  MAYFLY_ASSIGN(Target target, target_of(call));
  if (target.qualifier.empty() || target.qualifier == engine::kLatest) return target;
  return not_found("Function not found: " + target.arn(call.context.registry.account()));
}

net::Response answer(int status, const json::object& body) { return json_answer(Protocol::kRestJson, status, body); }

// --- Code ---

Result<std::string> zip_from(const json::object& code) {
  for (const char* name : {"S3Bucket", "S3Key"}) {
    if (code.contains(name))
      return unsupported(
          "mayfly does not fetch code from S3 yet; send it as Code.ZipFile (aws lambda ... --zip-file fileb://function.zip)");
  }
  if (code.contains("ImageUri")) return unsupported("mayfly does not run container images (ImageUri) yet; send the code as ZipFile");
  const json::value* zip = code.if_contains("ZipFile");
  if (zip == nullptr || !zip->is_string()) return invalid_parameter("Please provide a source for function code.");
  const json::string& text = zip->get_string();
  auto decoded = base::base64_decode(std::string_view(text.data(), text.size()));
  if (!decoded.ok()) return Error(ErrorCode::kInvalidArgument, "code.zipFile: " + decoded.error().message(), "SerializationException");
  if (decoded->empty()) return invalid_parameter("Uploaded file must be a non-empty zip");
  if (decoded->size() > engine::Limits::kZipBytesMax) {
    return Error(ErrorCode::kTooLarge, "Zipped size must be smaller than " + std::to_string(engine::Limits::kZipBytesMax) + " bytes",
                 "RequestEntityTooLargeException");
  }
  return *std::move(decoded);
}

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

Result<net::Response> create_function(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  if (!target.qualifier.empty())
    return invalid_parameter("A new function's name takes no qualifier; \"" + target.qualifier + "\" was given.");
  MAYFLY_ASSIGN(engine::FunctionConfig config, configuration_from(call.input));
  MAYFLY_TRY(check_runnable(call, config.runtime));
  MAYFLY_ASSIGN(std::string zip, zip_from(call.input.at("Code").get_object()));
  std::map<std::string, std::string> tags;
  if (const json::value* given = call.input.if_contains("Tags")) tags = string_map(given->get_object());
  auto made = call.context.registry.create(target.name, std::move(config), std::move(zip), std::move(tags), flag_in(call.input, "Publish"));
  if (!made.ok()) return code_error(std::move(made).error());
  return answer(201, configuration_json(**made, ArnForm::kPlainLatest));
}

Result<net::Response> update_function_code(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, whole_function(call));
  MAYFLY_TRY(find_version(call.context.registry, target, false));
  MAYFLY_ASSIGN(std::string zip, zip_from(call.input));
  std::optional<std::string> architecture;
  if (const json::value* list = call.input.if_contains("Architectures"); list != nullptr && !list->get_array().empty()) {
    architecture = std::string(list->get_array().front().get_string());
  }
  auto updated = call.context.registry.update_code(target.name, std::move(zip), architecture, text_in(call.input, "RevisionId"),
                                                   flag_in(call.input, "Publish"), flag_in(call.input, "DryRun"));
  if (!updated.ok()) return code_error(std::move(updated).error());
  return answer(200, configuration_json(**updated, ArnForm::kPlainLatest));
}

// Members that are only stored are merged with what is there: so the change is tied to the revision it was made from, and
// made again when another one came between.
Result<engine::VersionPtr> apply_change(const ControlCall& call, const Target& target) {
  const std::string wanted = text_in(call.input, "RevisionId");
  for (int attempt = 0;; ++attempt) {
    MAYFLY_ASSIGN(const engine::VersionPtr current, find_version(call.context.registry, target, false));
    MAYFLY_ASSIGN(const engine::ConfigChange change, change_from(call.input, current->config));
    MAYFLY_TRY(check_runnable(call, change.runtime));
    const bool is_merge = wanted.empty() && change.accepted_json.has_value();
    auto updated = call.context.registry.update_configuration(target.name, change, is_merge ? current->revision_id : wanted);
    const bool again = !updated.ok() && is_merge && attempt < 10 && updated.error().code() == ErrorCode::kPreconditionFailed;
    if (!again) return updated;
  }
}

Result<net::Response> update_function_configuration(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, whole_function(call));
  MAYFLY_ASSIGN(const engine::VersionPtr updated, apply_change(call, target));
  return answer(200, configuration_json(*updated, ArnForm::kPlainLatest));
}

// --- Reading ---

// The version `target` means; whoever asks is shown its settled state, so that the next change is welcome.
Result<engine::VersionPtr> shown_version(const ControlCall& call, const Target& target) {
  MAYFLY_ASSIGN(engine::VersionPtr version, find_version(call.context.registry, target, false));
  if (const engine::RecordPtr record = call.context.registry.find(target.name)) call.context.registry.observed(*record);
  return version;
}

ArnForm form_of(const Target& target) { return target.qualifier.empty() ? ArnForm::kPlainLatest : ArnForm::kQualified; }

Result<net::Response> get_function_configuration(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  MAYFLY_ASSIGN(const engine::VersionPtr version, shown_version(call, target));
  return answer(200, configuration_json(*version, form_of(target)));
}

Result<std::string> code_location(const ControlCall& call, const engine::FunctionVersion& version) {
  const access::CredentialPointer credential = call.context.credentials.find(call.access_key);
  if (credential == nullptr)
    return Error(ErrorCode::kUnauthenticated, "The security token included in the request is invalid.", "UnrecognizedClientException");
  const std::string path = code_path(version.function_name, version.config.code_id);
  const net::SigningKey key{
      .access_key = call.access_key, .secret_key = credential->secret_key, .session_token = credential->session_token};
  const net::SigningScope scope{.region = call.context.registry.account().region, .service = "lambda"};
  return "http://" + call.host + path + "?" + net::presign_get(call.host, path, key, scope, call.context.clock.wall_now(), kCodeLinkValid);
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
  MAYFLY_ASSIGN(const std::string location, code_location(call, *version));
  json::object body{{"Configuration", configuration_json(*version, form_of(target))}};
  body["Code"] = json::object{{"RepositoryType", "S3"}, {"Location", location}};
  const engine::RecordPtr record = call.context.registry.find(target.name);
  if (record != nullptr) add_settings(body, *record);
  return answer(200, body);
}

std::size_t page_size(const json::object& input) {
  const json::value* wanted = input.if_contains("MaxItems");
  return wanted == nullptr ? kPageMax : std::min<std::size_t>(kPageMax, static_cast<std::size_t>(wanted->get_int64()));
}

Error bad_marker() { return invalid_parameter("The Marker is not one that this operation gave out; start again without it."); }

// Versions of a record in the order lists show them: $LATEST, then ascending.
std::vector<engine::VersionPtr> versions_of(const engine::FunctionRecord& record) {
  std::vector<engine::VersionPtr> all{record.latest};
  all.insert(all.end(), record.published.begin(), record.published.end());
  return all;
}

// A place in the list of all versions of all functions: after version `version` of `name`.
struct ListPlace {
  std::string name, version;
};
Result<ListPlace> parse_place(const std::string& marker) {
  if (marker.empty()) return ListPlace();
  auto decoded = base::base64_decode(marker);
  const std::size_t colon = decoded.ok() ? decoded->find(':') : std::string::npos;
  if (colon == std::string::npos) return bad_marker();
  return ListPlace{.name = decoded->substr(0, colon), .version = decoded->substr(colon + 1)};
}
std::string marker_after(const engine::FunctionVersion& version) {
  return base::base64_encode(version.function_name + ":" + version.version);
}

std::uint64_t version_rank(std::string_view version) {
  std::uint64_t number = 0;  // $LATEST comes first
  std::from_chars(version.data(), version.data() + version.size(), number);
  return number;
}

// One more than `max` versions after `place`, if there are so many.
std::vector<engine::VersionPtr> all_versions_after(const engine::FunctionRegistry& registry, const ListPlace& place, std::size_t max) {
  std::vector<engine::VersionPtr> found;
  std::vector<engine::RecordPtr> records;
  if (const engine::RecordPtr started = place.name.empty() ? nullptr : registry.find(place.name)) records.push_back(started);
  const auto rest = registry.list(place.name, max + 1);
  records.insert(records.end(), rest.begin(), rest.end());
  for (const engine::RecordPtr& record : records) {
    for (engine::VersionPtr& version : versions_of(*record)) {
      if (version->function_name == place.name && version_rank(version->version) <= version_rank(place.version)) continue;
      found.push_back(std::move(version));
      if (found.size() > max) return found;
    }
  }
  return found;
}

Result<net::Response> list_functions(const ControlCall& call) {
  const bool all = text_in(call.input, "FunctionVersion") == "ALL";
  const std::size_t max = page_size(call.input);
  MAYFLY_ASSIGN(const ListPlace place, parse_place(text_in(call.input, "Marker")));
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
    json::object each = configuration_json(*version, all ? ArnForm::kQualified : ArnForm::kPlainLatest);
    for (const char* name :
         {"State", "StateReason", "StateReasonCode", "LastUpdateStatus", "LastUpdateStatusReason", "LastUpdateStatusReasonCode"})
      each.erase(name);
    functions.push_back(std::move(each));
  }
  body["Functions"] = std::move(functions);
  return answer(200, body);
}

// --- Versions, deletion ---

Result<net::Response> publish_version(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, whole_function(call));
  MAYFLY_TRY(find_version(call.context.registry, target, false));
  if (call.input.contains("PublishTo")) return unsupported("mayfly does not support PublishTo yet; leave it out");
  MAYFLY_ASSIGN(const engine::VersionPtr published,
                call.context.registry.publish(target.name, text_in(call.input, "CodeSha256"), optional_text_in(call.input, "Description"),
                                              text_in(call.input, "RevisionId")));
  return answer(201, configuration_json(*published, ArnForm::kQualified));
}

Result<net::Response> list_versions(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  MAYFLY_TRY(find_version(call.context.registry, target, false));
  MAYFLY_ASSIGN(const ListPlace place, parse_place(text_in(call.input, "Marker")));
  const engine::RecordPtr record = call.context.registry.find(target.name);
  if (record == nullptr) return not_found("Function not found: " + target.arn(call.context.registry.account()));
  const std::size_t max = page_size(call.input);
  json::array versions;
  json::object body;
  engine::VersionPtr last;
  for (const engine::VersionPtr& version : versions_of(*record)) {
    if (!place.name.empty() && version_rank(version->version) <= version_rank(place.version)) continue;
    if (versions.size() == max) {
      body["NextMarker"] = marker_after(*last);
      break;
    }
    versions.push_back(configuration_json(*version, ArnForm::kQualified));
    last = version;
  }
  body["Versions"] = std::move(versions);
  return answer(200, body);
}

Result<net::Response> delete_function(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, target_of(call));
  if (target.qualifier != engine::kLatest && call.context.registry.find(target.name) == nullptr) {
    return not_found("Function not found: " + target.arn(call.context.registry.account()));
  }
  MAYFLY_TRY(call.context.registry.remove(target.name, target.qualifier));
  return answer(204, {});  // recorded: 204, although the model says 200
}

// --- Tags ---

// The function a tag operation's ARN names.
Result<std::string> tagged_function(const ControlCall& call) {
  const std::string arn = text_in(call.input, "Resource");
  if (arn.find(":function:") == std::string::npos) return unsupported("mayfly tags only functions so far, not " + arn);
  MAYFLY_ASSIGN(const Target target, resolve_name(arn, "", call.context.registry.account(), call.action));
  if (!target.qualifier.empty())
    return invalid_parameter("Tags on function aliases and versions are not supported. Please specify a function ARN.");
  MAYFLY_TRY(find_version(call.context.registry, target, false));
  return target.name;
}

Result<net::Response> tag_resource(const ControlCall& call) {
  MAYFLY_ASSIGN(const std::string name, tagged_function(call));
  MAYFLY_TRY(call.context.registry.tag(name, string_map(call.input.at("Tags").get_object())));
  return answer(204, {});
}

Result<net::Response> untag_resource(const ControlCall& call) {
  MAYFLY_ASSIGN(const std::string name, tagged_function(call));
  std::vector<std::string> keys;
  for (const json::value& key : call.input.at("TagKeys").get_array()) keys.emplace_back(key.get_string());
  MAYFLY_TRY(call.context.registry.untag(name, keys));
  return answer(204, {});
}

Result<net::Response> list_tags(const ControlCall& call) {
  MAYFLY_ASSIGN(const std::string name, tagged_function(call));
  json::object tags;
  if (const engine::RecordPtr record = call.context.registry.find(name)) {
    for (const auto& [key, value] : record->settings->tags) tags[key] = value;
  }
  return answer(200, {{"Tags", std::move(tags)}});
}

// --- Account ---

Result<net::Response> get_account_settings(const ControlCall& call) {
  const engine::FunctionRegistry& registry = call.context.registry;
  json::object limit{{"TotalCodeSize", kTotalCodeBytesMax},
                     {"CodeSizeUnzipped", engine::Limits::kUnzippedBytesMax},
                     {"CodeSizeZipped", engine::Limits::kZipBytesMax},
                     {"ConcurrentExecutions", call.context.concurrency_max},
                     {"UnreservedConcurrentExecutions", call.context.concurrency_max}};
  json::object usage{{"TotalCodeSize", registry.total_code_bytes()}, {"FunctionCount", registry.function_count()}};
  json::object body;
  body["AccountLimit"] = std::move(limit);
  body["AccountUsage"] = std::move(usage);
  return answer(200, body);
}

// There are no code signing configurations here: the answer names the function and nothing else, as AWS's does then.
Result<net::Response> get_function_code_signing_config(const ControlCall& call) {
  MAYFLY_ASSIGN(const Target target, whole_function(call));
  MAYFLY_TRY(find_version(call.context.registry, target, false));
  json::object body;
  body["FunctionName"] = target.name;
  return answer(200, body);
}

struct Entry {
  std::string_view name;
  ControlOperation operation;
};
constexpr Entry kOperations[] = {
    {"CreateFunction", create_function},
    {"DeleteFunction", delete_function},
    {"GetAccountSettings", get_account_settings},
    {"GetFunction", get_function},
    {"GetFunctionCodeSigningConfig", get_function_code_signing_config},
    {"GetFunctionConfiguration", get_function_configuration},
    {"ListFunctions", list_functions},
    {"ListTags", list_tags},
    {"ListVersionsByFunction", list_versions},
    {"PublishVersion", publish_version},
    {"TagResource", tag_resource},
    {"UntagResource", untag_resource},
    {"UpdateFunctionCode", update_function_code},
    {"UpdateFunctionConfiguration", update_function_configuration},
};

}  // namespace

ControlOperation find_control_operation(std::string_view name) {
  const auto* found = std::find_if(std::begin(kOperations), std::end(kOperations), [name](const Entry& each) { return each.name == name; });
  return found == std::end(kOperations) ? nullptr : found->operation;
}

Result<std::string> resource_of(const json::object& input, const engine::Account& account, const std::string& action) {
  if (input.contains("Resource")) return text_in(input, "Resource");
  if (!input.contains("FunctionName")) return std::string("*");
  MAYFLY_ASSIGN(const Target target, resolve_name(text_in(input, "FunctionName"), text_in(input, "Qualifier"), account, action));
  return target.arn(account);
}

std::string code_path(const std::string& function_name, const std::string& code_id) {
  return std::string(kCodePrefix) + function_name + "/" + code_id + ".zip";
}

std::optional<CodeLink> parse_code_path(std::string_view path) {
  if (!path.starts_with(kCodePrefix) || !path.ends_with(".zip")) return std::nullopt;
  path = path.substr(kCodePrefix.size(), path.size() - kCodePrefix.size() - 4);
  const std::size_t slash = path.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  CodeLink link{.function_name = std::string(path.substr(0, slash)), .code_id = std::string(path.substr(slash + 1))};
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (link.code_id.size() != 64 || !std::all_of(link.code_id.begin(), link.code_id.end(), is_hex)) return std::nullopt;
  return link;
}

}  // namespace mayfly::api::lambda
