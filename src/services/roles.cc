#include "services/roles.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/bytes.h"
#include "services/internal/policy_document.h"
#include "services/internal/role_documents.h"

namespace mayfly::services {
namespace {

using base::Error;
using base::ErrorCode;
using base::MutexLock;
using base::Result;

constexpr const char* kRoleKind = "iam-role";
constexpr const char* kPolicyKind = "iam-policy";
constexpr std::string_view kIdAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";  // base32, as AWS's identifiers

std::string new_id(std::string_view prefix) { return std::string(prefix) + base::random_text(17, kIdAlphabet); }

std::string lower(std::string_view name) {
  std::string made(name);
  for (char& c : made) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  }
  return made;
}

Error no_such_entity(std::string text) { return Error(ErrorCode::kNotFound, std::move(text), "NoSuchEntity"); }
Error already_exists(std::string text) { return Error(ErrorCode::kAlreadyExists, std::move(text), "EntityAlreadyExists"); }
Error delete_conflict(std::string text) { return Error(ErrorCode::kConflict, std::move(text), "DeleteConflict"); }
// 409 in IAM, not 429.
Error limit_exceeded(std::string text) { return Error(ErrorCode::kConflict, std::move(text), "LimitExceeded"); }
Error quota_exceeded(std::string_view quota, std::size_t limit) {
  return limit_exceeded("Cannot exceed quota for " + std::string(quota) + ": " + std::to_string(limit));
}
Error no_role(std::string_view name) { return no_such_entity("The role with name " + std::string(name) + " cannot be found."); }
Error no_policy(std::string_view arn) { return no_such_entity("Policy " + std::string(arn) + " was not found."); }
Error not_attachable(std::string_view arn) {
  return no_such_entity("Policy " + std::string(arn) + " does not exist or is not attachable.");
}
Error no_version(std::string_view arn, std::string_view version) {
  return no_such_entity("Policy " + std::string(arn) + " version " + std::string(version) + " does not exist or is not attachable.");
}

Result<void> check_trust_policy(const std::string& document) {
  MAYFLY_TRY(check_policy_document(document, PolicyPurpose::kTrust));
  if (counted_length(document) > RoleLimits::kTrustPolicyMax) return quota_exceeded("ACLSizePerRole", RoleLimits::kTrustPolicyMax);
  return {};
}

Result<void> check_managed_policy(const std::string& document) {
  MAYFLY_TRY(check_policy_document(document, PolicyPurpose::kIdentity));
  if (counted_length(document) > RoleLimits::kManagedPolicyMax) return quota_exceeded("PolicySize", RoleLimits::kManagedPolicyMax);
  return {};
}

// "v3" -> 3; 0 when it is no version's name.
std::uint32_t number_of(std::string_view version) {
  std::uint32_t number = 0;
  if (!version.starts_with('v') || version.size() < 2 || version[1] == '0') return 0;
  const auto [end, ec] = std::from_chars(version.data() + 1, version.data() + version.size(), number);
  return ec == std::errc() && end == version.data() + version.size() ? number : 0;
}

// Keys are told apart without regard to case; a new value takes the place of the old, with the new spelling of its key.
Result<void> merge_tags(Tags& tags, const Tags& more, std::string_view quota) {
  for (const auto& [key, value] : more) {
    std::erase_if(tags, [&key](const auto& tag) { return lower(tag.first) == lower(key); });
    tags.emplace(key, value);
  }
  if (tags.size() > RoleLimits::kTagsMax) return quota_exceeded(quota, RoleLimits::kTagsMax);
  return {};
}
void remove_tags(Tags& tags, const std::vector<std::string>& keys) {
  for (const std::string& key : keys) std::erase_if(tags, [&key](const auto& tag) { return lower(tag.first) == lower(key); });
}

}  // namespace

const Policy::Version* Policy::find(std::uint32_t number) const {
  const auto found = std::ranges::find(versions, number, &Version::number);
  return found == versions.end() ? nullptr : &*found;
}

Result<std::unique_ptr<Roles>> Roles::open(store::Catalogue& catalogue, std::string account, const base::Clock& clock) {
  std::unique_ptr<Roles> roles(new Roles(catalogue, std::move(account), clock));
  MAYFLY_TRY(roles->load());
  return roles;
}

Result<void> Roles::load() {
  MAYFLY_ASSIGN(const auto role_rows, catalogue_.resources(kRoleKind));
  MAYFLY_ASSIGN(const auto policy_rows, catalogue_.resources(kPolicyKind));
  const MutexLock lock(mutex_);
  for (const store::ResourceRow& row : role_rows) {
    MAYFLY_ASSIGN(Role role, role_from_document(row.document));
    roles_[row.key] = std::make_shared<const Role>(std::move(role));
  }
  for (const store::ResourceRow& row : policy_rows) {
    MAYFLY_ASSIGN(Policy policy, policy_from_document(row.document));
    policies_[row.key] = std::make_shared<const Policy>(std::move(policy));
  }
  return {};
}

// --- Roles ---

Result<RolePtr> Roles::role(std::string_view name) const {
  const MutexLock lock(mutex_);
  const auto found = roles_.find(lower(name));
  if (found == roles_.end()) return no_role(name);
  return found->second;
}

RolePtr Roles::find_role_by_arn(std::string_view arn) const {
  auto found = role(arn.substr(arn.rfind('/') + 1));
  return found.ok() && (*found)->arn == arn ? *found : nullptr;
}

std::vector<RolePtr> Roles::roles() const {
  const MutexLock lock(mutex_);
  std::vector<RolePtr> all;
  all.reserve(roles_.size());
  for (const auto& [name, role] : roles_) all.push_back(role);
  return all;
}

Result<void> Roles::put(RolePtr role) {
  const std::string key = lower(role->name);
  store::CatalogueChange change;
  change.put_resources.push_back({.kind = kRoleKind, .key = key, .document = to_document(*role)});
  MAYFLY_TRY(catalogue_.apply(change));
  const MutexLock lock(mutex_);
  roles_[key] = std::move(role);
  return {};
}

Result<RolePtr> Roles::change_role(const std::string& name, const std::function<Result<void>(Role&)>& change) {
  const MutexLock one(change_);
  MAYFLY_ASSIGN(const RolePtr current, role(name));
  auto next = std::make_shared<Role>(*current);
  MAYFLY_TRY(change(*next));
  RolePtr changed = std::move(next);
  MAYFLY_TRY(put(changed));
  return changed;
}

Result<RolePtr> Roles::create_role(const NewRole& wanted) {
  MAYFLY_TRY(check_trust_policy(wanted.trust_policy));
  auto made = std::make_shared<Role>();
  made->name = wanted.name;
  made->path = wanted.path;
  made->id = new_id("AROA");
  made->arn = "arn:aws:iam::" + account_ + ":role" + wanted.path + wanted.name;
  made->created = clock_.wall_now();
  made->trust_policy = wanted.trust_policy;
  made->description = wanted.description;
  made->max_session_s = wanted.max_session_s;
  made->boundary = wanted.boundary;
  MAYFLY_TRY(merge_tags(made->tags, wanted.tags, "TagsPerRole"));

  const MutexLock one(change_);
  if (role(wanted.name).ok()) return already_exists("Role with name " + wanted.name + " already exists.");
  if (roles().size() >= RoleLimits::kRolesMax) return quota_exceeded("RolesPerAccount", RoleLimits::kRolesMax);
  if (!wanted.boundary.empty()) MAYFLY_TRY(check_boundary(wanted.boundary));
  RolePtr role = std::move(made);
  MAYFLY_TRY(put(role));
  return role;
}

Result<RolePtr> Roles::update_role(const std::string& name, const RoleUpdate& update) {
  if (update.trust_policy) MAYFLY_TRY(check_trust_policy(*update.trust_policy));
  return change_role(name, [&](Role& role) -> Result<void> {
    if (update.boundary && !update.boundary->empty()) MAYFLY_TRY(check_boundary(*update.boundary));
    if (update.boundary) role.boundary = *update.boundary;
    if (update.description) role.description = *update.description;
    if (update.trust_policy) role.trust_policy = *update.trust_policy;
    if (update.max_session_s) role.max_session_s = *update.max_session_s;
    return {};
  });
}

Result<RolePtr> Roles::delete_role(const std::string& name) {
  const MutexLock one(change_);
  MAYFLY_ASSIGN(const RolePtr gone, role(name));
  if (!gone->attached.empty()) return delete_conflict("Cannot delete entity, must detach all policies first.");
  if (!gone->inline_policies.empty()) return delete_conflict("Cannot delete entity, must delete policies first.");
  store::CatalogueChange change;
  change.remove_resources.emplace_back(kRoleKind, lower(gone->name));
  MAYFLY_TRY(catalogue_.apply(change));
  const MutexLock lock(mutex_);
  roles_.erase(lower(gone->name));
  return gone;
}

Result<void> Roles::put_inline_policy(const std::string& role, const InlinePolicy& policy) {
  MAYFLY_TRY(check_policy_document(policy.document, PolicyPurpose::kIdentity));
  const auto changed = change_role(role, [&](Role& next) -> Result<void> {
    next.inline_policies[policy.name] = policy.document;
    std::size_t size = 0, bytes = 0;
    for (const auto& [name, document] : next.inline_policies) {
      size += counted_length(document);
      bytes += document.size();
    }
    if (size > RoleLimits::kInlinePoliciesMax || bytes > RoleLimits::kInlineBytesMax)
      return limit_exceeded("Maximum policy size of " + std::to_string(RoleLimits::kInlinePoliciesMax) + " bytes exceeded for role " +
                            next.name);
    return {};
  });
  return changed.ok() ? Result<void>() : changed.error();
}

Result<void> Roles::delete_inline_policy(const std::string& role, const std::string& policy) {
  const auto changed = change_role(role, [&](Role& next) -> Result<void> {
    if (next.inline_policies.erase(policy) == 0) return no_such_entity("The role policy with name " + policy + " cannot be found.");
    return {};
  });
  return changed.ok() ? Result<void>() : changed.error();
}

Result<void> Roles::attach_policy(const std::string& role, const std::string& policy_arn) {
  const auto changed = change_role(role, [&](Role& next) -> Result<void> {
    if (!exists(policy_arn)) return not_attachable(policy_arn);
    next.attached.insert(policy_arn);
    if (next.attached.size() > RoleLimits::kAttachedMax) return quota_exceeded("PoliciesPerRole", RoleLimits::kAttachedMax);
    return {};
  });
  return changed.ok() ? Result<void>() : changed.error();
}

Result<void> Roles::detach_policy(const std::string& role, const std::string& policy_arn) {
  const auto changed = change_role(role, [&](Role& next) -> Result<void> {
    if (next.attached.erase(policy_arn) == 0) return no_policy(policy_arn);
    return {};
  });
  return changed.ok() ? Result<void>() : changed.error();
}

Result<void> Roles::tag_role(const std::string& name, const Tags& tags) {
  const auto changed = change_role(name, [&](Role& next) { return merge_tags(next.tags, tags, "TagsPerRole"); });
  return changed.ok() ? Result<void>() : changed.error();
}

Result<void> Roles::untag_role(const std::string& name, const std::vector<std::string>& keys) {
  const auto changed = change_role(name, [&](Role& next) -> Result<void> {
    remove_tags(next.tags, keys);
    return {};
  });
  return changed.ok() ? Result<void>() : changed.error();
}

// --- Managed policies ---

bool Roles::exists(const std::string& policy_arn) const { return is_aws_policy(policy_arn) || policy(policy_arn).ok(); }

Result<void> Roles::check_boundary(const std::string& policy_arn) const {
  if (exists(policy_arn)) return {};
  return no_such_entity("Scope ARN: " + policy_arn + " does not exist or is not attachable.");
}

Result<void> Roles::check_own(const std::string& policy_arn) const {
  if (!is_aws_policy(policy_arn)) return {};
  return Error(ErrorCode::kPermissionDenied, "Policy " + policy_arn + " belongs to AWS and cannot be changed.", "AccessDenied");
}

Result<PolicyPtr> Roles::policy(std::string_view arn) const {
  if (is_aws_policy(arn)) {
    const auto& all = aws_policies();
    const auto found = std::ranges::find_if(all, [arn](const PolicyPtr& each) { return each->arn == arn; });
    if (found != all.end()) return *found;
    return no_policy(arn);
  }
  const MutexLock lock(mutex_);
  const auto found = policies_.find(lower(arn.substr(arn.rfind('/') + 1)));
  if (found == policies_.end() || found->second->arn != arn) return no_policy(arn);
  return found->second;
}

Result<Policy::Version> Roles::policy_version(std::string_view arn, std::string_view version) const {
  MAYFLY_ASSIGN(const PolicyPtr found, policy(arn));
  const Policy::Version* wanted = found->find(number_of(version));
  if (wanted == nullptr) return no_version(arn, version);
  return *wanted;
}

std::vector<PolicyPtr> Roles::policies() const {
  std::vector<PolicyPtr> all = aws_policies();
  const MutexLock lock(mutex_);
  for (const auto& [name, policy] : policies_) all.push_back(policy);
  return all;
}

std::map<std::string, PolicyUse> Roles::policy_uses() const {
  std::map<std::string, PolicyUse> uses;
  for (const RolePtr& role : roles()) {
    for (const std::string& arn : role->attached) ++uses[arn].attachments;
    if (!role->boundary.empty()) ++uses[role->boundary].boundaries;
  }
  return uses;
}

Result<void> Roles::put(PolicyPtr policy) {
  const std::string key = lower(policy->name);
  store::CatalogueChange change;
  change.put_resources.push_back({.kind = kPolicyKind, .key = key, .document = to_document(*policy)});
  MAYFLY_TRY(catalogue_.apply(change));
  const MutexLock lock(mutex_);
  policies_[key] = std::move(policy);
  return {};
}

Result<PolicyPtr> Roles::change_policy(const std::string& arn, const std::function<Result<void>(Policy&)>& change) {
  MAYFLY_TRY(check_own(arn));
  const MutexLock one(change_);
  MAYFLY_ASSIGN(const PolicyPtr current, policy(arn));
  auto next = std::make_shared<Policy>(*current);
  MAYFLY_TRY(change(*next));
  PolicyPtr changed = std::move(next);
  MAYFLY_TRY(put(changed));
  return changed;
}

Result<PolicyPtr> Roles::create_policy(const NewPolicy& wanted) {
  MAYFLY_TRY(check_managed_policy(wanted.document));
  auto made = std::make_shared<Policy>();
  made->name = wanted.name;
  made->path = wanted.path;
  made->id = new_id("ANPA");
  made->arn = "arn:aws:iam::" + account_ + ":policy" + wanted.path + wanted.name;
  made->description = wanted.description;
  made->created = made->updated = clock_.wall_now();
  made->versions.push_back({.number = 1, .document = wanted.document, .created = made->created});
  MAYFLY_TRY(merge_tags(made->tags, wanted.tags, "TagsPerPolicy"));

  const MutexLock one(change_);
  {
    const MutexLock lock(mutex_);
    if (policies_.contains(lower(wanted.name)))
      return already_exists("A policy called " + wanted.name + " already exists. Duplicate names are not allowed.");
    if (policies_.size() >= RoleLimits::kPoliciesMax) return quota_exceeded("PoliciesPerAccount", RoleLimits::kPoliciesMax);
  }
  PolicyPtr policy = std::move(made);
  MAYFLY_TRY(put(policy));
  return policy;
}

Result<void> Roles::delete_policy(const std::string& arn) {
  MAYFLY_TRY(check_own(arn));
  const MutexLock one(change_);
  MAYFLY_ASSIGN(const PolicyPtr gone, policy(arn));
  if (policy_uses().contains(arn)) return delete_conflict("Cannot delete a policy attached to entities.");
  if (gone->versions.size() > 1)
    return delete_conflict(
        "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is "
        "deleted with the policy.");
  store::CatalogueChange change;
  change.remove_resources.emplace_back(kPolicyKind, lower(gone->name));
  MAYFLY_TRY(catalogue_.apply(change));
  const MutexLock lock(mutex_);
  policies_.erase(lower(gone->name));
  return {};
}

Result<Policy::Version> Roles::create_policy_version(const std::string& arn, const NewPolicyVersion& wanted) {
  MAYFLY_TRY(check_managed_policy(wanted.document));
  MAYFLY_ASSIGN(const PolicyPtr changed, change_policy(arn, [&](Policy& next) -> Result<void> {
                  if (next.versions.size() >= RoleLimits::kVersionsMax)
                    return limit_exceeded("A managed policy can have up to " + std::to_string(RoleLimits::kVersionsMax) +
                                          " versions. Before you create a new version, you must delete an existing version.");
                  next.updated = clock_.wall_now();
                  next.versions.push_back({.number = next.next_version++, .document = wanted.document, .created = next.updated});
                  if (wanted.becomes_default) next.default_version = next.versions.back().number;
                  return {};
                }));
  return changed->versions.back();
}

Result<void> Roles::set_default_version(const std::string& arn, const std::string& version) {
  const auto changed = change_policy(arn, [&](Policy& next) -> Result<void> {
    const std::uint32_t number = number_of(version);
    if (next.find(number) == nullptr) return no_version(arn, version);
    next.default_version = number;
    next.updated = clock_.wall_now();
    return {};
  });
  return changed.ok() ? Result<void>() : changed.error();
}

Result<void> Roles::delete_policy_version(const std::string& arn, const std::string& version) {
  const auto changed = change_policy(arn, [&](Policy& next) -> Result<void> {
    const std::uint32_t number = number_of(version);
    if (next.find(number) == nullptr) return no_version(arn, version);
    if (number == next.default_version) return delete_conflict("Cannot delete the default version of a policy.");
    std::erase_if(next.versions, [number](const Policy::Version& each) { return each.number == number; });
    next.updated = clock_.wall_now();
    return {};
  });
  return changed.ok() ? Result<void>() : changed.error();
}

Result<void> Roles::tag_policy(const std::string& arn, const Tags& tags) {
  const auto changed = change_policy(arn, [&](Policy& next) { return merge_tags(next.tags, tags, "TagsPerPolicy"); });
  return changed.ok() ? Result<void>() : changed.error();
}

Result<void> Roles::untag_policy(const std::string& arn, const std::vector<std::string>& keys) {
  const auto changed = change_policy(arn, [&](Policy& next) -> Result<void> {
    remove_tags(next.tags, keys);
    return {};
  });
  return changed.ok() ? Result<void>() : changed.error();
}

}  // namespace mayfly::services
