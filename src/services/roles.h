// Roles and managed policies as IAM keeps them: named, versioned, attached, tagged, and checked for form. Nothing here is
// evaluated: what a principal may do is decided by access::authorise alone.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "base/result.h"
#include "base/time.h"
#include "store/catalogue.h"

namespace mayfly::services {

using Tags = std::map<std::string, std::string>;

struct Role {
  std::string name;
  std::string path = "/";
  std::string id;  // "AROA..."; another one each time a role of that name is made
  std::string arn;
  base::WallTime created;
  std::string trust_policy;  // JSON text as it was given
  std::string description;
  std::int32_t max_session_s = 3600;
  std::string boundary;  // ARN of a managed policy; empty: none
  Tags tags;
  std::map<std::string, std::string> inline_policies;  // name -> JSON text
  std::set<std::string> attached;                      // ARNs of managed policies
};
using RolePtr = std::shared_ptr<const Role>;

struct Policy {
  struct Version {
    std::uint32_t number = 1;  // "v1"
    std::string document;      // JSON text as it was given
    base::WallTime created;
  };

  std::string name;
  std::string path = "/";
  std::string id;  // "ANPA..."
  std::string arn;
  std::string description;
  base::WallTime created, updated;
  std::uint32_t default_version = 1;
  std::uint32_t next_version = 2;  // numbers are not given twice
  std::vector<Version> versions;   // oldest first, one at least
  Tags tags;

  // Null when there is no such version.
  [[nodiscard]] const Version* find(std::uint32_t number) const;
};
using PolicyPtr = std::shared_ptr<const Policy>;

// What makes a role or policy; members as above. Shapes (lengths, characters) are the caller's to check.
struct NewRole {
  std::string name, path = "/", trust_policy, description = {};
  std::int32_t max_session_s = 3600;
  std::string boundary = {};
  Tags tags = {};
};
struct RoleUpdate {
  std::optional<std::string> description = {}, trust_policy = {};
  std::optional<std::int32_t> max_session_s = {};
  std::optional<std::string> boundary = {};  // empty: takes it away
};
struct NewPolicy {
  std::string name, path = "/", document, description = {};
  Tags tags = {};
};
struct NewPolicyVersion {
  std::string document;
  bool becomes_default = false;
};
struct InlinePolicy {
  std::string name, document;
};
// How many roles name a managed policy.
struct PolicyUse {
  std::uint32_t attachments = 0, boundaries = 0;
};

// IAM's default quotas, or the most that AWS raises them to where a role would otherwise not be movable here. Characters of
// policies are counted without white space, as AWS does.
struct RoleLimits {
  static constexpr std::size_t kRolesMax = 1000;
  static constexpr std::size_t kPoliciesMax = 1500;
  static constexpr std::size_t kAttachedMax = 25;
  static constexpr std::size_t kTrustPolicyMax = 8192;
  static constexpr std::size_t kManagedPolicyMax = 6144;
  static constexpr std::size_t kInlinePoliciesMax = 10240;   // all of one role together
  static constexpr std::size_t kInlineBytesMax = 1U << 20U;  // the same with white space: ours, so that a role stays readable
  static constexpr std::size_t kVersionsMax = 5;
  static constexpr std::size_t kTagsMax = 50;
};

// The roles and customer managed policies of the account, in memory and in the catalogue (kinds "iam-role", "iam-policy").
// Errors:  IAM's codes and texts: NoSuchEntity, EntityAlreadyExists, DeleteConflict, LimitExceeded, MalformedPolicyDocument.
//          A change that failed changed nothing.
// Names:   unique without regard to case, and found so, as in AWS.
// Threads: any. Changes block (they return when they are on disk) and wait for each other; reading waits for no disk.
// Policies of AWS ("arn:aws:iam::aws:policy/..."): any may be attached; those that functions usually have can be read.
class Roles {
 public:
  // `catalogue` outlives it. kDataLoss when what is stored cannot be read, kUnsupported when a newer Mayfly wrote it.
  [[nodiscard]] static base::Result<std::unique_ptr<Roles>> open(store::Catalogue& catalogue, std::string account,
                                                                 const base::Clock& clock);

  [[nodiscard]] base::Result<RolePtr> role(std::string_view name) const;
  // Null when the ARN is no role's of this account.
  [[nodiscard]] RolePtr find_role_by_arn(std::string_view arn) const;
  [[nodiscard]] std::vector<RolePtr> roles() const;
  [[nodiscard]] base::Result<RolePtr> create_role(const NewRole& wanted);
  base::Result<RolePtr> update_role(const std::string& name, const RoleUpdate& update);
  // Refused while policies are attached or embedded. Answers what was deleted.
  base::Result<RolePtr> delete_role(const std::string& name);

  base::Result<void> put_inline_policy(const std::string& role, const InlinePolicy& policy);
  base::Result<void> delete_inline_policy(const std::string& role, const std::string& policy);
  // Attaching what is attached succeeds; detaching what is not is NoSuchEntity.
  base::Result<void> attach_policy(const std::string& role, const std::string& policy_arn);
  base::Result<void> detach_policy(const std::string& role, const std::string& policy_arn);
  base::Result<void> tag_role(const std::string& name, const Tags& tags);
  base::Result<void> untag_role(const std::string& name, const std::vector<std::string>& keys);

  // Also AWS's own, as far as they are known here.
  [[nodiscard]] base::Result<PolicyPtr> policy(std::string_view arn) const;
  [[nodiscard]] base::Result<Policy::Version> policy_version(std::string_view arn, std::string_view version) const;
  // Those of the account, and those of AWS that can be read.
  [[nodiscard]] std::vector<PolicyPtr> policies() const;
  [[nodiscard]] static const std::vector<PolicyPtr>& aws_policies();
  [[nodiscard]] static bool is_aws_policy(std::string_view arn);
  [[nodiscard]] std::map<std::string, PolicyUse> policy_uses() const;  // by ARN
  [[nodiscard]] base::Result<PolicyPtr> create_policy(const NewPolicy& wanted);
  // Refused while a role has it or older versions are there.
  base::Result<void> delete_policy(const std::string& arn);
  base::Result<Policy::Version> create_policy_version(const std::string& arn, const NewPolicyVersion& wanted);
  base::Result<void> set_default_version(const std::string& arn, const std::string& version);
  base::Result<void> delete_policy_version(const std::string& arn, const std::string& version);
  base::Result<void> tag_policy(const std::string& arn, const Tags& tags);
  base::Result<void> untag_policy(const std::string& arn, const std::vector<std::string>& keys);

 private:
  template <typename Item>
  using ByName = std::map<std::string, std::shared_ptr<const Item>, std::less<>>;  // by name in lower case

  Roles(store::Catalogue& catalogue, std::string account, const base::Clock& clock)
      : catalogue_(catalogue), account_(std::move(account)), clock_(clock) {}
  base::Result<void> load();
  // Applies `change` to a copy, stores it, and shows it.
  base::Result<RolePtr> change_role(const std::string& name, const std::function<base::Result<void>(Role&)>& change);
  base::Result<PolicyPtr> change_policy(const std::string& arn, const std::function<base::Result<void>(Policy&)>& change);
  base::Result<void> put(RolePtr role) MAYFLY_REQUIRES(change_);
  base::Result<void> put(PolicyPtr policy) MAYFLY_REQUIRES(change_);
  // Whether a role may name that managed policy.
  [[nodiscard]] bool exists(const std::string& policy_arn) const;
  [[nodiscard]] base::Result<void> check_boundary(const std::string& policy_arn) const;
  [[nodiscard]] base::Result<void> check_own(const std::string& policy_arn) const;

  store::Catalogue& catalogue_;
  const std::string account_;
  const base::Clock& clock_;
  base::Mutex change_;         // one change at a time, while it goes to disk
  mutable base::Mutex mutex_;  // what is shown; taken after change_, for moments
  ByName<Role> roles_ MAYFLY_GUARDED_BY(mutex_);
  ByName<Policy> policies_ MAYFLY_GUARDED_BY(mutex_);
};

}  // namespace mayfly::services
