#include "api/iam/iam.h"

#include <algorithm>
#include <array>
#include <utility>

#include "api/internal/answer.h"
#include "base/bytes.h"
#include "base/json.h"

namespace mayfly::api::iam {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
using services::Policy;
using services::PolicyPtr;
using services::PolicyUse;
using services::Role;
using services::RolePtr;

const std::optional<std::string> kNothing;  // an answer without a result element

// --- Shapes, as IAM's model has them ---

bool is_alphanumeric(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

TextRule name_rule(std::size_t max) {
  return {.max = max,
          .fits =
              [](std::string_view text) {
                return std::ranges::all_of(text, [](char c) { return is_alphanumeric(c) || std::string_view("_+=,.@-").contains(c); });
              },
          .explained = "It must contain only alphanumeric characters and/or the following: +=,.@_-"};
}
TextRule role_name() { return name_rule(64); }
TextRule policy_name() { return name_rule(128); }
TextRule path() {
  return {.max = 512,
          .fits =
              [](std::string_view text) {
                return text.starts_with('/') && text.ends_with('/') && !text.contains("//") &&
                       std::ranges::all_of(text, [](char c) { return c > ' ' && c < '\x7f'; });
              },
          .explained = "It must begin and end with / and contain only alphanumeric characters and/or / characters."};
}
TextRule path_prefix() {
  return {.max = 512,
          .fits =
              [](std::string_view text) {
                return text.starts_with('/') && std::ranges::all_of(text, [](char c) { return c > ' ' && c <= '\x7f'; });
              },
          .pattern = "\\u002F[\\u0021-\\u007F]*"};
}
TextRule arn() { return {.min = 20, .max = 2048}; }

// Latin-1 in UTF-8, with tab and line ends.
bool is_latin(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '\t' || c == '\n' || c == '\r' || (c >= 0x20 && c < 0x7F)) continue;
    if ((c != 0xC2 && c != 0xC3) || i + 1 == text.size() || (static_cast<unsigned char>(text[i + 1]) & 0xC0U) != 0x80U) return false;
    ++i;
  }
  return true;
}
TextRule document() { return {.max = 131072, .fits = is_latin, .pattern = "[\\u0009\\u000A\\u000D\\u0020-\\u00FF]+"}; }
TextRule description() {
  return {.min = 0, .max = 1000, .fits = is_latin, .pattern = "[\\u0009\\u000A\\u000D\\u0020-\\u007E\\u00A1-\\u00FF]*"};
}
// Letters, digits and spaces of any script, and some marks. What is beyond ASCII is taken as a letter.
bool is_tag_text(std::string_view text) {
  return std::ranges::all_of(text, [](char c) {
    return is_alphanumeric(c) || static_cast<unsigned char>(c) >= 0x80 || std::string_view(" _.:/=+-@").contains(c);
  });
}
TextRule tag_key() { return {.max = 128, .fits = is_tag_text, .pattern = "[\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]+"}; }
TextRule tag_value() { return {.min = 0, .max = 256, .fits = is_tag_text, .pattern = "[\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*"}; }
TextRule version_id() {
  return {.fits =
              [](std::string_view text) {
                return text.size() >= 2 && text[0] == 'v' && text[1] >= '1' && text[1] <= '9' &&
                       std::ranges::all_of(text.substr(1), [](char c) { return c >= '0' && c <= '9'; });
              },
          .pattern = "v[1-9][0-9]*(\\.[A-Za-z0-9-]*)?"};
}

std::string lower(std::string text) { return net::to_lower(text); }

Error invalid_input(std::string text) { return Error(ErrorCode::kInvalidArgument, std::move(text), "InvalidInput"); }

// What has no ARN's form is told apart from what is not there.
Result<void> check_policy_arn(const std::string& text) {
  const bool formed = text.starts_with("arn:") && std::ranges::count(text, ':') >= 5 && text.contains(":policy/") && is_latin(text);
  return formed ? Result<void>() : Result<void>(invalid_input("ARN " + text + " is not valid."));
}

Result<services::Tags> read_tags(const Call& call, Members& in) {
  const std::size_t count = call.form.count("Tags");
  if (count > services::RoleLimits::kTagsMax)
    return Error(
        ErrorCode::kInvalidArgument,
        "1 validation error detected: Value at 'tags' failed to satisfy constraint: Member must have length less than or equal to 50",
        "ValidationError");
  services::Tags tags;
  std::vector<std::string> seen;
  for (std::size_t i = 1; i <= count; ++i) {
    const std::string member = "Tags.member." + std::to_string(i);
    std::string key = in.required(member + ".Key", tag_key());
    std::string value = in.required(member + ".Value", tag_value());
    if (lower(key).starts_with("aws:")) return invalid_input("Tag keys that begin with \"aws:\" are reserved: " + key);
    if (std::ranges::find(seen, lower(key)) != seen.end())
      return invalid_input("Duplicate tag keys found. Please note that Tag keys are case insensitive.");
    seen.push_back(lower(key));
    tags.emplace(std::move(key), std::move(value));
  }
  return tags;
}

// --- Pages of lists ---

struct Page {
  std::string after;  // the sort key of the last item told, empty: from the beginning
  std::size_t items_max = 100;
};

Result<Page> read_page(Members& in) {
  const auto marker = in.optional("Marker", {.max = 2048});
  const auto items_max = in.number("MaxItems", 1, 1000);
  MAYFLY_TRY(in.check());
  Page page;
  if (items_max) page.items_max = static_cast<std::size_t>(*items_max);
  if (marker) {
    auto decoded = base::base64_decode(*marker);
    if (!decoded.ok() || decoded->empty()) return Error(ErrorCode::kInvalidArgument, "Invalid Marker.", "ValidationError");
    page.after = *std::move(decoded);
  }
  return page;
}

// The page's share of `items` (sort key, what writes it inside its member element), then whether there are more.
using Item = std::pair<std::string, std::function<void()>>;
void write_page(Xml& xml, std::string_view name, const Page& page, std::vector<Item> items) {
  std::ranges::sort(items, {}, &Item::first);
  const auto begin = std::ranges::upper_bound(items, page.after, {}, &Item::first);
  const auto left = static_cast<std::size_t>(items.end() - begin);
  const auto end = begin + static_cast<std::ptrdiff_t>(std::min(left, page.items_max));
  xml.element(name, [&] {
    for (auto item = begin; item != end; ++item) xml.element("member", item->second);
  });
  xml.flag("IsTruncated", end != items.end());
  if (end != items.end()) xml.text("Marker", base::base64_encode(std::prev(end)->first));
}

// --- How things are shown ---

// IAM tells whole seconds.
std::string shown(base::WallTime time) { return base::format_iso_ms(time).substr(0, 19) + "Z"; }
std::string shown_version(std::uint32_t number) { return "v" + std::to_string(number); }
std::string encoded(const std::string& document_text) { return base::percent_encode(document_text); }

void write_tags(Xml& xml, const services::Tags& tags) {
  xml.element("Tags", [&] {
    for (const auto& [key, value] : tags) xml.element("member", [&] { xml.text("Key", key).text("Value", value); });
  });
}

enum class Detail : std::uint8_t { kListed, kWhole };  // lists leave out tags and the like, as in AWS

void write_role(Xml& xml, const Role& role, Detail detail) {
  xml.text("Path", role.path)
      .text("RoleName", role.name)
      .text("RoleId", role.id)
      .text("Arn", role.arn)
      .text("CreateDate", shown(role.created));
  xml.text("AssumeRolePolicyDocument", encoded(role.trust_policy));
  if (!role.description.empty()) xml.text("Description", role.description);
  xml.number("MaxSessionDuration", role.max_session_s);
  if (detail == Detail::kListed) return;
  if (!role.boundary.empty())
    xml.element("PermissionsBoundary",
                [&] { xml.text("PermissionsBoundaryType", "Policy").text("PermissionsBoundaryArn", role.boundary); });
  if (!role.tags.empty()) write_tags(xml, role.tags);
}

std::string role_element(const Role& role, bool with_use) {
  Xml xml;
  xml.element("Role", [&] {
    write_role(xml, role, Detail::kWhole);
    if (with_use) xml.element("RoleLastUsed", [] {});  // not tracked
  });
  return xml.take();
}

void write_policy(Xml& xml, const Policy& policy, const PolicyUse& use, Detail detail) {
  xml.text("PolicyName", policy.name).text("PolicyId", policy.id).text("Arn", policy.arn).text("Path", policy.path);
  xml.text("DefaultVersionId", shown_version(policy.default_version));
  xml.number("AttachmentCount", use.attachments).number("PermissionsBoundaryUsageCount", use.boundaries).flag("IsAttachable", true);
  xml.text("CreateDate", shown(policy.created)).text("UpdateDate", shown(policy.updated));
  if (detail == Detail::kListed) return;
  if (!policy.description.empty()) xml.text("Description", policy.description);
  if (!policy.tags.empty()) write_tags(xml, policy.tags);
}

void write_version(Xml& xml, const Policy::Version& version, bool is_default, Detail detail) {
  if (detail == Detail::kWhole) xml.text("Document", encoded(version.document));
  xml.text("VersionId", shown_version(version.number)).flag("IsDefaultVersion", is_default).text("CreateDate", shown(version.created));
}

std::string policy_name_of(const std::string& policy_arn) { return policy_arn.substr(policy_arn.rfind('/') + 1); }
// "arn:aws:iam::aws:policy/service-role/X" -> "/service-role/"
std::string policy_path_of(const std::string& policy_arn) {
  const std::size_t first = policy_arn.find('/');
  return policy_arn.substr(first, policy_arn.rfind('/') - first + 1);
}

// --- Roles ---

Answer create_role(const Call& call) {
  Members in(call.form);
  services::NewRole wanted;
  wanted.path = in.optional("Path", path()).value_or("/");
  wanted.name = in.required("RoleName", role_name());
  wanted.trust_policy = in.required("AssumeRolePolicyDocument", document());
  wanted.description = in.optional("Description", description()).value_or("");
  wanted.max_session_s = static_cast<std::int32_t>(in.number("MaxSessionDuration", 3600, 43200).value_or(3600));
  wanted.boundary = in.optional("PermissionsBoundary", arn()).value_or("");
  MAYFLY_ASSIGN(wanted.tags, read_tags(call, in));
  MAYFLY_TRY(in.check());
  MAYFLY_ASSIGN(const RolePtr role, call.roles.create_role(wanted));
  return role_element(*role, false);
}

// The role that every operation of roles names.
Result<std::string> only_role_name(Members& in) {
  std::string name = in.required("RoleName", role_name());
  MAYFLY_TRY(in.check());
  return name;
}

Answer get_role(const Call& call) {
  Members in(call.form);
  MAYFLY_ASSIGN(const std::string name, only_role_name(in));
  MAYFLY_ASSIGN(const RolePtr role, call.roles.role(name));
  return role_element(*role, true);
}

Answer list_roles(const Call& call) {
  Members in(call.form);
  const std::string prefix = in.optional("PathPrefix", path_prefix()).value_or("/");
  MAYFLY_ASSIGN(const Page page, read_page(in));
  Xml xml;
  std::vector<Item> items;
  for (const RolePtr& role : call.roles.roles()) {
    if (role->path.starts_with(prefix)) items.emplace_back(lower(role->name), [&xml, role] { write_role(xml, *role, Detail::kListed); });
  }
  write_page(xml, "Roles", page, std::move(items));
  return xml.take();
}

Answer update_role(const Call& call) {
  Members in(call.form);
  services::RoleUpdate update;
  const std::string name = in.required("RoleName", role_name());
  update.description = in.optional("Description", description());
  if (const auto seconds = in.number("MaxSessionDuration", 3600, 43200)) update.max_session_s = static_cast<std::int32_t>(*seconds);
  MAYFLY_TRY(in.check());
  MAYFLY_TRY(call.roles.update_role(name, update).and_then([](auto&&) { return Result<void>(); }));
  return std::optional<std::string>("");
}

Answer update_role_description(const Call& call) {
  Members in(call.form);
  services::RoleUpdate update;
  const std::string name = in.required("RoleName", role_name());
  update.description = in.required("Description", description());
  MAYFLY_TRY(in.check());
  MAYFLY_ASSIGN(const RolePtr role, call.roles.update_role(name, update));
  return role_element(*role, false);
}

Answer update_assume_role_policy(const Call& call) {
  Members in(call.form);
  services::RoleUpdate update;
  const std::string name = in.required("RoleName", role_name());
  update.trust_policy = in.required("PolicyDocument", document());
  MAYFLY_TRY(in.check());
  MAYFLY_TRY(call.roles.update_role(name, update).and_then([](auto&&) { return Result<void>(); }));
  return kNothing;
}

Answer put_boundary(const Call& call) {
  Members in(call.form);
  services::RoleUpdate update;
  const std::string name = in.required("RoleName", role_name());
  update.boundary = in.required("PermissionsBoundary", arn());
  MAYFLY_TRY(in.check());
  MAYFLY_TRY(call.roles.update_role(name, update).and_then([](auto&&) { return Result<void>(); }));
  return kNothing;
}

Answer delete_boundary(const Call& call) {
  Members in(call.form);
  MAYFLY_ASSIGN(const std::string name, only_role_name(in));
  services::RoleUpdate update;
  update.boundary = "";
  MAYFLY_TRY(call.roles.update_role(name, update).and_then([](auto&&) { return Result<void>(); }));
  return kNothing;
}

Answer delete_role(const Call& call) {
  Members in(call.form);
  MAYFLY_ASSIGN(const std::string name, only_role_name(in));
  MAYFLY_ASSIGN(const RolePtr gone, call.roles.delete_role(name));
  call.credentials.revoke_sessions(gone->arn);
  return kNothing;
}

Answer list_instance_profiles_for_role(const Call& call) {
  Members in(call.form);
  const std::string name = in.required("RoleName", role_name());
  MAYFLY_ASSIGN(const Page page, read_page(in));
  MAYFLY_TRY(call.roles.role(name).and_then([](auto&&) { return Result<void>(); }));
  Xml xml;
  write_page(xml, "InstanceProfiles", page, {});  // there are no instances
  return xml.take();
}

// --- Policies inside roles ---

Answer put_role_policy(const Call& call) {
  Members in(call.form);
  const std::string role = in.required("RoleName", role_name());
  services::InlinePolicy policy;
  policy.name = in.required("PolicyName", policy_name());
  policy.document = in.required("PolicyDocument", document());
  MAYFLY_TRY(in.check());
  MAYFLY_TRY(call.roles.put_inline_policy(role, policy));
  return kNothing;
}

Answer get_role_policy(const Call& call) {
  Members in(call.form);
  const std::string name = in.required("RoleName", role_name());
  const std::string policy = in.required("PolicyName", policy_name());
  MAYFLY_TRY(in.check());
  MAYFLY_ASSIGN(const RolePtr role, call.roles.role(name));
  const auto found = role->inline_policies.find(policy);
  if (found == role->inline_policies.end())
    return Error(ErrorCode::kNotFound, "The role policy with name " + policy + " cannot be found.", "NoSuchEntity");
  Xml xml;
  xml.text("RoleName", role->name).text("PolicyName", policy).text("PolicyDocument", encoded(found->second));
  return xml.take();
}

Answer list_role_policies(const Call& call) {
  Members in(call.form);
  const std::string name = in.required("RoleName", role_name());
  MAYFLY_ASSIGN(const Page page, read_page(in));
  MAYFLY_ASSIGN(const RolePtr role, call.roles.role(name));
  // Members are plain texts here: written without write_page's elements inside.
  auto at = role->inline_policies.upper_bound(page.after);
  Xml xml;
  std::string last;
  xml.element("PolicyNames", [&] {
    for (std::size_t i = 0; i < page.items_max && at != role->inline_policies.end(); ++i, ++at) {
      last = at->first;
      xml.text("member", last);
    }
  });
  xml.flag("IsTruncated", at != role->inline_policies.end());
  if (at != role->inline_policies.end()) xml.text("Marker", base::base64_encode(last));
  return xml.take();
}

Answer delete_role_policy(const Call& call) {
  Members in(call.form);
  const std::string role = in.required("RoleName", role_name());
  const std::string policy = in.required("PolicyName", policy_name());
  MAYFLY_TRY(in.check());
  MAYFLY_TRY(call.roles.delete_inline_policy(role, policy));
  return kNothing;
}

// --- Attachments ---

Answer attach_role_policy(const Call& call) {
  Members in(call.form);
  const std::string role = in.required("RoleName", role_name());
  const std::string policy = in.required("PolicyArn", arn());
  MAYFLY_TRY(in.check());
  MAYFLY_TRY(check_policy_arn(policy));
  MAYFLY_TRY(call.roles.attach_policy(role, policy));
  return kNothing;
}

Answer detach_role_policy(const Call& call) {
  Members in(call.form);
  const std::string role = in.required("RoleName", role_name());
  const std::string policy = in.required("PolicyArn", arn());
  MAYFLY_TRY(in.check());
  MAYFLY_TRY(check_policy_arn(policy));
  MAYFLY_TRY(call.roles.detach_policy(role, policy));
  return kNothing;
}

Answer list_attached_role_policies(const Call& call) {
  Members in(call.form);
  const std::string name = in.required("RoleName", role_name());
  const std::string prefix = in.optional("PathPrefix", path_prefix()).value_or("/");
  MAYFLY_ASSIGN(const Page page, read_page(in));
  MAYFLY_ASSIGN(const RolePtr role, call.roles.role(name));
  Xml xml;
  std::vector<Item> items;
  for (const std::string& attached : role->attached) {
    if (!policy_path_of(attached).starts_with(prefix)) continue;
    const std::string policy = policy_name_of(attached);
    items.emplace_back(lower(policy) + " " + attached,
                       [&xml, policy, attached] { xml.text("PolicyName", policy).text("PolicyArn", attached); });
  }
  write_page(xml, "AttachedPolicies", page, std::move(items));
  return xml.take();
}

// --- Managed policies ---

// The policy that every operation of policies names.
Result<std::string> policy_arn_of(Members& in) {
  std::string policy = in.required("PolicyArn", arn());
  MAYFLY_TRY(in.check());
  MAYFLY_TRY(check_policy_arn(policy));
  return policy;
}

std::string policy_element(const Policy& policy, const PolicyUse& use) {
  Xml xml;
  xml.element("Policy", [&] { write_policy(xml, policy, use, Detail::kWhole); });
  return xml.take();
}

Answer create_policy(const Call& call) {
  Members in(call.form);
  services::NewPolicy wanted;
  wanted.name = in.required("PolicyName", policy_name());
  wanted.path = in.optional("Path", path()).value_or("/");
  wanted.document = in.required("PolicyDocument", document());
  wanted.description = in.optional("Description", {.min = 0, .max = 1000}).value_or("");
  MAYFLY_ASSIGN(wanted.tags, read_tags(call, in));
  MAYFLY_TRY(in.check());
  MAYFLY_ASSIGN(const PolicyPtr policy, call.roles.create_policy(wanted));
  return policy_element(*policy, {});
}

Answer get_policy(const Call& call) {
  Members in(call.form);
  MAYFLY_ASSIGN(const std::string policy_arn, policy_arn_of(in));
  MAYFLY_ASSIGN(const PolicyPtr policy, call.roles.policy(policy_arn));
  return policy_element(*policy, call.roles.policy_uses()[policy_arn]);
}

Answer list_policies(const Call& call) {
  Members in(call.form);
  const std::string scope = in.optional("Scope", {.values = {"All", "AWS", "Local"}}).value_or("All");
  const bool only_attached = in.flag("OnlyAttached");
  const std::string prefix = in.optional("PathPrefix", path_prefix()).value_or("/");
  const auto usage = in.optional("PolicyUsageFilter", {.values = {"PermissionsPolicy", "PermissionsBoundary"}});
  MAYFLY_ASSIGN(const Page page, read_page(in));
  auto uses = call.roles.policy_uses();
  Xml xml;
  std::vector<Item> items;
  for (const PolicyPtr& policy : call.roles.policies()) {
    const bool of_aws = services::Roles::is_aws_policy(policy->arn);
    if ((scope == "AWS" && !of_aws) || (scope == "Local" && of_aws) || !policy->path.starts_with(prefix)) continue;
    const PolicyUse use = uses[policy->arn];
    if (only_attached && use.attachments + use.boundaries == 0) continue;
    if (usage && (*usage == "PermissionsPolicy" ? use.attachments : use.boundaries) == 0) continue;
    items.emplace_back(lower(policy->name) + " " + policy->arn, [&xml, policy, use] { write_policy(xml, *policy, use, Detail::kListed); });
  }
  write_page(xml, "Policies", page, std::move(items));
  return xml.take();
}

Answer delete_policy(const Call& call) {
  Members in(call.form);
  MAYFLY_ASSIGN(const std::string policy_arn, policy_arn_of(in));
  MAYFLY_TRY(call.roles.delete_policy(policy_arn));
  return kNothing;
}

Answer create_policy_version(const Call& call) {
  Members in(call.form);
  services::NewPolicyVersion wanted;
  wanted.document = in.required("PolicyDocument", document());
  wanted.becomes_default = in.flag("SetAsDefault");
  MAYFLY_ASSIGN(const std::string policy_arn, policy_arn_of(in));
  MAYFLY_ASSIGN(const Policy::Version version, call.roles.create_policy_version(policy_arn, wanted));
  Xml xml;
  xml.element("PolicyVersion", [&] { write_version(xml, version, wanted.becomes_default, Detail::kListed); });
  return xml.take();
}

Answer get_policy_version(const Call& call) {
  Members in(call.form);
  const std::string wanted = in.required("VersionId", version_id());
  MAYFLY_ASSIGN(const std::string policy_arn, policy_arn_of(in));
  MAYFLY_ASSIGN(const PolicyPtr policy, call.roles.policy(policy_arn));
  MAYFLY_ASSIGN(const Policy::Version version, call.roles.policy_version(policy_arn, wanted));
  Xml xml;
  xml.element("PolicyVersion", [&] { write_version(xml, version, version.number == policy->default_version, Detail::kWhole); });
  return xml.take();
}

Answer list_policy_versions(const Call& call) {
  Members in(call.form);
  MAYFLY_ASSIGN(const std::string policy_arn, policy_arn_of(in));
  MAYFLY_ASSIGN(const Page page, read_page(in));
  MAYFLY_ASSIGN(const PolicyPtr policy, call.roles.policy(policy_arn));
  Xml xml;
  std::vector<Item> items;
  for (const Policy::Version& version : policy->versions) {
    // Newest first.
    std::string key = std::to_string(UINT32_MAX - version.number);
    key.insert(0, 10 - key.size(), '0');
    items.emplace_back(std::move(key), [&xml, &version, &policy] {
      write_version(xml, version, version.number == policy->default_version, Detail::kListed);
    });
  }
  write_page(xml, "Versions", page, std::move(items));
  return xml.take();
}

Answer set_default_policy_version(const Call& call) {
  Members in(call.form);
  const std::string version = in.required("VersionId", version_id());
  MAYFLY_ASSIGN(const std::string policy_arn, policy_arn_of(in));
  MAYFLY_TRY(call.roles.set_default_version(policy_arn, version));
  return kNothing;
}

Answer delete_policy_version(const Call& call) {
  Members in(call.form);
  const std::string version = in.required("VersionId", version_id());
  MAYFLY_ASSIGN(const std::string policy_arn, policy_arn_of(in));
  MAYFLY_TRY(call.roles.delete_policy_version(policy_arn, version));
  return kNothing;
}

Answer list_entities_for_policy(const Call& call) {
  Members in(call.form);
  const std::string filter =
      in.optional("EntityFilter", {.values = {"User", "Role", "Group", "LocalManagedPolicy", "AWSManagedPolicy"}}).value_or("Role");
  const std::string prefix = in.optional("PathPrefix", path_prefix()).value_or("/");
  const auto usage = in.optional("PolicyUsageFilter", {.values = {"PermissionsPolicy", "PermissionsBoundary"}});
  MAYFLY_ASSIGN(const std::string policy_arn, policy_arn_of(in));
  MAYFLY_ASSIGN(const Page page, read_page(in));
  if (!services::Roles::is_aws_policy(policy_arn) && !call.roles.policy(policy_arn).ok())
    return Error(ErrorCode::kNotFound, "Policy " + policy_arn + " does not exist or is not attachable.", "NoSuchEntity");
  Xml xml;
  xml.element("PolicyGroups", [] {}).element("PolicyUsers", [] {});  // there are none
  std::vector<Item> items;
  for (const RolePtr& role : call.roles.roles()) {
    const bool attached = role->attached.contains(policy_arn) && usage != "PermissionsBoundary";
    const bool bounded = role->boundary == policy_arn && usage != "PermissionsPolicy";
    if ((!attached && !bounded) || filter != "Role" || !role->path.starts_with(prefix)) continue;
    items.emplace_back(lower(role->name), [&xml, role] { xml.text("RoleName", role->name).text("RoleId", role->id); });
  }
  write_page(xml, "PolicyRoles", page, std::move(items));
  return xml.take();
}

// --- Tags ---

void write_tag_page(Xml& xml, const Page& page, const services::Tags& tags) {
  std::vector<Item> items;
  for (const auto& tag : tags) items.emplace_back(tag.first, [&xml, &tag] { xml.text("Key", tag.first).text("Value", tag.second); });
  write_page(xml, "Tags", page, std::move(items));
}

Answer tag_role(const Call& call) {
  Members in(call.form);
  const std::string name = in.required("RoleName", role_name());
  MAYFLY_ASSIGN(const services::Tags tags, read_tags(call, in));
  MAYFLY_TRY(in.check());
  MAYFLY_TRY(call.roles.tag_role(name, tags));
  return kNothing;
}

Answer untag_role(const Call& call) {
  Members in(call.form);
  const std::string name = in.required("RoleName", role_name());
  const std::vector<std::string> keys = in.list("TagKeys", services::RoleLimits::kTagsMax, tag_key());
  MAYFLY_TRY(in.check());
  MAYFLY_TRY(call.roles.untag_role(name, keys));
  return kNothing;
}

Answer list_role_tags(const Call& call) {
  Members in(call.form);
  const std::string name = in.required("RoleName", role_name());
  MAYFLY_ASSIGN(const Page page, read_page(in));
  MAYFLY_ASSIGN(const RolePtr role, call.roles.role(name));
  Xml xml;
  write_tag_page(xml, page, role->tags);
  return xml.take();
}

Answer tag_policy(const Call& call) {
  Members in(call.form);
  MAYFLY_ASSIGN(const services::Tags tags, read_tags(call, in));
  MAYFLY_ASSIGN(const std::string policy_arn, policy_arn_of(in));
  MAYFLY_TRY(call.roles.tag_policy(policy_arn, tags));
  return kNothing;
}

Answer untag_policy(const Call& call) {
  Members in(call.form);
  const std::vector<std::string> keys = in.list("TagKeys", services::RoleLimits::kTagsMax, tag_key());
  MAYFLY_ASSIGN(const std::string policy_arn, policy_arn_of(in));
  MAYFLY_TRY(call.roles.untag_policy(policy_arn, keys));
  return kNothing;
}

Answer list_policy_tags(const Call& call) {
  Members in(call.form);
  MAYFLY_ASSIGN(const std::string policy_arn, policy_arn_of(in));
  MAYFLY_ASSIGN(const Page page, read_page(in));
  MAYFLY_ASSIGN(const PolicyPtr policy, call.roles.policy(policy_arn));
  Xml xml;
  write_tag_page(xml, page, policy->tags);
  return xml.take();
}

// --- The account ---

// There are no users: the account's own key is the root user's.
Answer get_user(const Call& call) {
  Members in(call.form);
  const auto name = in.optional("UserName", policy_name());
  MAYFLY_TRY(in.check());
  if (name) return Error(ErrorCode::kNotFound, "The user with name " + *name + " cannot be found.", "NoSuchEntity");
  if (!call.caller.arn.ends_with(":root"))
    return Error(ErrorCode::kInvalidArgument, "Must specify userName when calling with non-User credentials", "ValidationError");
  Xml xml;
  xml.element("User", [&] {  // when the account was made is not recorded
    xml.text("UserId", call.account).text("Arn", call.caller.arn).text("CreateDate", "1970-01-01T00:00:00Z");
  });
  return xml.take();
}

Answer list_account_aliases(const Call& call) {
  Members in(call.form);
  MAYFLY_ASSIGN(const Page page, read_page(in));
  Xml xml;
  write_page(xml, "AccountAliases", page, {});
  return xml.take();
}

struct Named {
  std::string_view action;
  Operation run;
};
constexpr std::array kOperations = {
    Named{"AttachRolePolicy", attach_role_policy},
    Named{"CreatePolicy", create_policy},
    Named{"CreatePolicyVersion", create_policy_version},
    Named{"CreateRole", create_role},
    Named{"DeletePolicy", delete_policy},
    Named{"DeletePolicyVersion", delete_policy_version},
    Named{"DeleteRole", delete_role},
    Named{"DeleteRolePermissionsBoundary", delete_boundary},
    Named{"DeleteRolePolicy", delete_role_policy},
    Named{"DetachRolePolicy", detach_role_policy},
    Named{"GetPolicy", get_policy},
    Named{"GetPolicyVersion", get_policy_version},
    Named{"GetRole", get_role},
    Named{"GetRolePolicy", get_role_policy},
    Named{"GetUser", get_user},
    Named{"ListAccountAliases", list_account_aliases},
    Named{"ListAttachedRolePolicies", list_attached_role_policies},
    Named{"ListEntitiesForPolicy", list_entities_for_policy},
    Named{"ListInstanceProfilesForRole", list_instance_profiles_for_role},
    Named{"ListPolicies", list_policies},
    Named{"ListPolicyTags", list_policy_tags},
    Named{"ListPolicyVersions", list_policy_versions},
    Named{"ListRolePolicies", list_role_policies},
    Named{"ListRoleTags", list_role_tags},
    Named{"ListRoles", list_roles},
    Named{"PutRolePermissionsBoundary", put_boundary},
    Named{"PutRolePolicy", put_role_policy},
    Named{"SetDefaultPolicyVersion", set_default_policy_version},
    Named{"TagPolicy", tag_policy},
    Named{"TagRole", tag_role},
    Named{"UntagPolicy", untag_policy},
    Named{"UntagRole", untag_role},
    Named{"UpdateAssumeRolePolicy", update_assume_role_policy},
    Named{"UpdateRole", update_role},
    Named{"UpdateRoleDescription", update_role_description},
};

}  // namespace

Result<Operation> find_operation(const std::string& action) {
  const auto* found = std::ranges::find(kOperations, std::string_view(action), &Named::action);
  if (found != kOperations.end()) return found->run;
  if (action.empty()) return Error(ErrorCode::kInvalidArgument, "the request names no Action of IAM", "MissingAction");
  return unsupported("mayfly does not support the IAM action \"" + base::valid_utf8(action.substr(0, 64)) +
                     "\"; it keeps roles and policies");
}

std::string resource_of(const Form& form, const std::string& account) {
  if (const std::string* role = form.find("RoleName")) return "arn:aws:iam::" + account + ":role/" + *role;
  if (const std::string* policy = form.find("PolicyArn")) return *policy;
  return "*";
}

net::Response answer_of(const std::string& action, std::optional<std::string> result, const std::string& request_id) {
  return query_answer({.action = action, .xml_namespace = "https://iam.amazonaws.com/doc/2010-05-08/", .result = std::move(result)},
                      request_id);
}

}  // namespace mayfly::api::iam
