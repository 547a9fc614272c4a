// Layers: packages that functions share, their versions and who may use them.
#include "api/lambda/layers.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <limits>
#include <map>
#include <optional>

#include "api/api.h"
#include "api/internal/answer.h"
#include "api/lambda/functions.h"
#include "api/lambda/input.h"
#include "api/lambda/policy_statement.h"

namespace mayfly::api::lambda {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;
using engine::LayerVersion;
using engine::LayerVersionPtr;

constexpr std::size_t kLayersMax = 5;
constexpr std::size_t kPolicyBytesMax = 20'480;

// What a layer's name or ARN, or a layer version's ARN says; the pattern was checked before.
struct LayerName {
  std::string region, account, name;
  std::optional<std::uint64_t> version;
};

std::optional<std::uint64_t> number_from(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (ec != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

LayerName parse_layer(std::string_view text) {
  LayerName parsed;
  if (!text.starts_with("arn:")) {
    parsed.name = text;
    return parsed;
  }
  std::vector<std::string> parts;
  while (true) {
    const std::size_t colon = text.find(':');
    parts.emplace_back(text.substr(0, colon));
    if (colon == std::string_view::npos) break;
    text.remove_prefix(colon + 1);
  }
  if (parts.size() < 7) return parsed;  // "arn:...:lambda:::awslayer:NAME" has no account: nobody's here
  parsed.region = parts[3];
  parsed.account = parts[4];
  parsed.name = parts[6];
  if (parts.size() > 7) parsed.version = number_from(parts[7]);
  return parsed;
}

Error not_yours(const ControlCall& call, const std::string& action, const std::string& arn) {
  return Error(ErrorCode::kPermissionDenied,
               "User: arn:aws:iam::" + call.context.registry.account().id + ":root is not authorized to perform: " + action +
                   " on resource: " + arn + " because no resource-based policy allows the " + action + " action",
               "AccessDeniedException");
}

// The layer that LayerName names, which must be of this account and region.
Result<std::string> layer_name_of(const ControlCall& call) {
  const std::string given = text_in(call.input, "LayerName");
  const LayerName parsed = parse_layer(given);
  const engine::Account& account = call.context.registry.account();
  if (!parsed.region.empty() && parsed.region != account.region)
    return not_found("Layers from '" + parsed.region + "' are not reachable in this region ('" + account.region + "')");
  if (!parsed.account.empty() && parsed.account != account.id) return not_yours(call, call.action, given);
  return parsed.name;
}

Result<std::uint64_t> version_number(const ControlCall& call) {
  const std::int64_t number = number_in(call.input, "VersionNumber").value_or(0);
  if (number < 1) return invalid_parameter("Layer Version Cannot be less than 1");
  return static_cast<std::uint64_t>(number);
}

json::array texts_json(const std::vector<std::string>& texts) { return json::array(texts.begin(), texts.end()); }

json::object listed_json(const LayerVersion& version) {
  json::object shown{{"LayerVersionArn", version.arn()},
                     {"Version", version.version},
                     {"Description", version.description},
                     {"CreatedDate", version.created}};
  if (!version.runtimes.empty()) shown["CompatibleRuntimes"] = texts_json(version.runtimes);
  if (!version.architectures.empty()) shown["CompatibleArchitectures"] = texts_json(version.architectures);
  if (!version.license.empty()) shown["LicenseInfo"] = version.license;
  return shown;
}

Result<json::object> whole_json(const ControlCall& call, const LayerVersion& version) {
  MAYFLY_ASSIGN(const std::string location, code_location(call, "layer:" + version.name, version.code.id));
  json::object shown = listed_json(version);
  shown["LayerArn"] = version.layer_arn;
  shown["Content"] = json::object{{"Location", location}, {"CodeSha256", version.code.sha256_base64}, {"CodeSize", version.code.size}};
  return shown;
}

Result<net::Response> publish_layer(const ControlCall& call) {
  LayerVersion wanted;
  MAYFLY_ASSIGN(wanted.name, layer_name_of(call));
  MAYFLY_ASSIGN(const std::string zip, zip_from(call, call.input.at("Content").get_object()));
  wanted.description = text_in(call.input, "Description");
  wanted.license = text_in(call.input, "LicenseInfo");
  wanted.runtimes = texts_in(call.input, "CompatibleRuntimes");
  wanted.architectures = texts_in(call.input, "CompatibleArchitectures");
  MAYFLY_ASSIGN(const LayerVersionPtr made, call.context.layers.publish(std::move(wanted), zip));
  MAYFLY_ASSIGN(const json::object shown, whole_json(call, *made));
  return control_answer(201, shown);
}

Result<net::Response> show_version(const ControlCall& call, const std::string& name, std::uint64_t number) {
  const LayerVersionPtr version = call.context.layers.find(name, number);
  if (version == nullptr) return not_found("The resource you requested does not exist.");
  MAYFLY_ASSIGN(const json::object shown, whole_json(call, *version));
  return control_answer(200, shown);
}

Result<net::Response> get_version(const ControlCall& call) {
  MAYFLY_ASSIGN(const std::string name, layer_name_of(call));
  MAYFLY_ASSIGN(const std::uint64_t number, version_number(call));
  return show_version(call, name, number);
}

Result<net::Response> get_version_by_arn(const ControlCall& call) {
  const LayerName parsed = parse_layer(text_in(call.input, "Arn"));
  const engine::Account& account = call.context.registry.account();
  if (parsed.region != account.region || parsed.account != account.id || !parsed.version)
    return not_found("The resource you requested does not exist.");
  return show_version(call, parsed.name, *parsed.version);
}

Result<net::Response> delete_version(const ControlCall& call) {
  MAYFLY_ASSIGN(const std::string name, layer_name_of(call));
  MAYFLY_ASSIGN(const std::uint64_t number, version_number(call));
  MAYFLY_TRY(call.context.layers.remove(name, number));
  return control_answer(204, {});
}

// Whether the version fits the filters of a list; one that says nothing about itself fits only where nothing is asked.
bool fits(const ControlCall& call, const LayerVersion& version) {
  const auto among = [](const std::vector<std::string>& all, const std::string& wanted) {
    return wanted.empty() || std::find(all.begin(), all.end(), wanted) != all.end();
  };
  return among(version.runtimes, text_in(call.input, "CompatibleRuntime")) &&
         among(version.architectures, text_in(call.input, "CompatibleArchitecture"));
}

Result<net::Response> list_versions(const ControlCall& call) {
  MAYFLY_ASSIGN(const std::string name, layer_name_of(call));
  MAYFLY_ASSIGN(const std::string after, marker_in(call.input));
  const std::size_t max = page_size(call.input);
  const std::uint64_t below = after.empty() ? std::numeric_limits<std::uint64_t>::max() : number_from(after).value_or(0);
  json::array shown;
  json::object body;
  std::uint64_t last = 0;
  for (const LayerVersionPtr& version : call.context.layers.versions(name)) {
    if (version->version >= below || !fits(call, *version)) continue;
    if (shown.size() == max) {
      body["NextMarker"] = make_marker(std::to_string(last));
      break;
    }
    shown.push_back(listed_json(*version));
    last = version->version;
  }
  body["LayerVersions"] = std::move(shown);
  return control_answer(200, body);
}

Result<net::Response> list_layers(const ControlCall& call) {
  MAYFLY_ASSIGN(Page page, Page::from(call.input));
  for (const std::string& name : call.context.layers.names()) {
    if (page.was_shown(name)) continue;
    const auto versions = call.context.layers.versions(name);
    const auto newest =
        std::find_if(versions.begin(), versions.end(), [&](const LayerVersionPtr& version) { return fits(call, *version); });
    if (newest == versions.end()) continue;
    json::object entry{{"LayerName", name}, {"LayerArn", (*newest)->layer_arn}, {"LatestMatchingVersion", listed_json(**newest)}};
    if (!page.add(name, std::move(entry))) break;
  }
  return std::move(page).answer("Layers");
}

// --- Permissions ---

Result<void> check_revision(const ControlCall& call, const engine::ResourcePolicy& policy) {
  const std::string wanted = text_in(call.input, "RevisionId");
  if (wanted.empty() || wanted == policy.revision_id) return {};
  return Error(
      ErrorCode::kPreconditionFailed,
      "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to retrieve the latest Revision "
      "Id",
      "PreconditionFailedException");
}

Error no_policy() { return not_found("No policy is associated with the given resource."); }

Result<net::Response> add_permission(const ControlCall& call) {
  MAYFLY_ASSIGN(const std::string name, layer_name_of(call));
  MAYFLY_ASSIGN(const std::uint64_t number, version_number(call));
  MAYFLY_ASSIGN(json::value principal, principal_json(text_in(call.input, "Principal")));
  json::object statement{{"Sid", text_in(call.input, "StatementId")},
                         {"Effect", "Allow"},
                         {"Principal", std::move(principal)},
                         {"Action", text_in(call.input, "Action")},
                         {"Resource", call.context.registry.account().layer_arn(name) + ":" + std::to_string(number)}};
  if (const auto organization = optional_text_in(call.input, "OrganizationId"))
    statement["Condition"] = json::object{{"StringEquals", json::object{{"aws:PrincipalOrgID", *organization}}}};
  const auto add = [&](engine::ResourcePolicy& policy) -> Result<void> {
    MAYFLY_TRY(check_revision(call, policy));
    return add_statement(policy, statement, kPolicyBytesMax);
  };
  MAYFLY_ASSIGN(const LayerVersionPtr changed, call.context.layers.change_policy(name, number, add));
  return control_answer(201, {{"Statement", json::serialize(statement)}, {"RevisionId", changed->policy.revision_id}});
}

Result<net::Response> get_policy(const ControlCall& call) {
  MAYFLY_ASSIGN(const std::string name, layer_name_of(call));
  MAYFLY_ASSIGN(const std::uint64_t number, version_number(call));
  const LayerVersionPtr version = call.context.layers.find(name, number);
  if (version == nullptr) {
    return not_found("Layer version " + call.context.registry.account().layer_arn(name) + ":" + std::to_string(number) +
                     " does not exist.");
  }
  if (version->policy.statements.empty()) return no_policy();
  return control_answer(200, {{"Policy", policy_document(version->policy)}, {"RevisionId", version->policy.revision_id}});
}

Result<net::Response> remove_permission(const ControlCall& call) {
  MAYFLY_ASSIGN(const std::string name, layer_name_of(call));
  MAYFLY_ASSIGN(const std::uint64_t number, version_number(call));
  const auto remove = [&](engine::ResourcePolicy& policy) -> Result<void> {
    if (policy.statements.empty()) return no_policy();
    MAYFLY_TRY(check_revision(call, policy));
    return remove_statement(policy, text_in(call.input, "StatementId"));
  };
  MAYFLY_TRY(call.context.layers.change_policy(name, number, remove));
  return control_answer(204, {});
}

constexpr ControlEntry kOperations[] = {{"AddLayerVersionPermission", add_permission},
                                        {"DeleteLayerVersion", delete_version},
                                        {"GetLayerVersion", get_version},
                                        {"GetLayerVersionByArn", get_version_by_arn},
                                        {"GetLayerVersionPolicy", get_policy},
                                        {"ListLayerVersions", list_versions},
                                        {"ListLayers", list_layers},
                                        {"PublishLayerVersion", publish_layer},
                                        {"RemoveLayerVersionPermission", remove_permission}};

}  // namespace

std::span<const ControlEntry> layer_operations() { return kOperations; }

Result<LayersInUse> layers_in(const ControlCall& call) {
  const std::vector<std::string> arns = texts_in(call.input, "Layers");
  if (arns.size() > kLayersMax) return invalid_parameter("Cannot reference more than 5 layers.");
  const engine::Account& account = call.context.registry.account();
  LayersInUse found;
  found.holds.reserve(arns.size());
  std::map<std::string, std::string> seen;  // layer name to the ARN given
  for (const std::string& arn : arns) {
    const LayerName parsed = parse_layer(arn);
    if (!parsed.version || parsed.account != account.id) return not_yours(call, "lambda:GetLayerVersion", arn);
    if (parsed.region != account.region) {
      return invalid_parameter("Layers are not in the same region as the function. Layers are expected to be in region " + account.region +
                               ".");
    }
    const auto missing = [&arn] { return invalid_parameter("Layer version " + arn + " does not exist."); };
    const LayerVersionPtr there = call.context.layers.find(parsed.name, *parsed.version);
    if (there == nullptr) return missing();
    if (const auto other = seen.find(parsed.name); other != seen.end()) {
      return invalid_parameter("Two different versions of the same layer are not allowed to be referenced in the same function. " +
                               other->second + " and " + arn + " are versions of the same layer.");
    }
    seen[parsed.name] = arn;
    found.holds.emplace_back(call.context.code, there->code.id);
    if (call.context.layers.find(parsed.name, *parsed.version) == nullptr) return missing();  // deleted before it was held
    found.uses.push_back({.arn = arn, .code_id = there->code.id, .code_size = there->code.size, .unpacked_bytes = there->unpacked_bytes});
  }
  return found;
}

}  // namespace mayfly::api::lambda
