// Who calls, and what they may: principals, the credentials that prove them, and the one decision every door asks for.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/mutex.h"
#include "base/published.h"
#include "base/result.h"
#include "base/time.h"

namespace mayfly::access {

enum class PrincipalKind : std::uint8_t {
  kAccount,       // the account's own key: may do all
  kFunctionRole,  // code inside an execution environment, under its function's role
  kSession,       // temporary credentials that the account's key asked for: the account's rights until they expire
};

struct Principal {
  PrincipalKind kind = PrincipalKind::kAccount;
  std::string account;       // 12 digits
  std::string arn;           // "arn:aws:iam::ACCOUNT:root" or "arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION"
  std::string user_id;       // as STS tells it: the account, or "AROA...:SESSION"
  std::string access_key;    // never to be logged
  std::string session;       // function role only: the session's name, which is the function's
  std::string role_arn;      // function role, and sessions of AssumeRole
  std::string function_arn;  // function role only: the version it runs, qualified
  std::string log_group;     // function role only: the one it may read and write
};

// What proves a principal. Immutable once made.
struct Credential {
  Principal principal;
  std::string secret_key;
  std::string session_token;              // empty: the account's key
  std::optional<base::WallTime> expires;  // sessions only
  [[nodiscard]] bool expired(base::WallTime now) const { return expires && *expires <= now; }
};
using CredentialPointer = std::shared_ptr<const Credential>;

struct AccessKey {
  std::string access_key;
  std::string secret_key;
};

// What temporary credentials are bound to.
struct EnvironmentIdentity {
  std::string function_arn;  // qualified with the version
  std::string role_arn;
  std::string session;       // 1 to 64 of [A-Za-z0-9_+=,.@-]: the function's name
  std::string log_group;     // "/aws/lambda/NAME" unless configured otherwise
  std::string role_id = {};  // "AROA..." where the role is one that is kept here; empty: derived from its ARN
};

// Temporary credentials for whoever holds the account's key: of a role (AssumeRole), or of the account itself.
struct SessionIdentity {
  std::string arn;       // "arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION", or the account's own
  std::string user_id;   // "AROA...:SESSION", or the account
  std::string role_arn;  // empty: the account's own
};
inline constexpr std::size_t kSessionsMax = 1000;

// The credentials of one server.
// Shape:   the account's key, one temporary credential for each living execution environment, and at most kSessionsMax
//          sessions; all but the first in memory only: they end with the server, as the environments do.
// Threads: every function may be called from any thread. Looking up reads an immutable snapshot (base::Published) of one of
//          64 slices and waits for nobody; issuing and revoking copy one slice (about 30 entries when 2,000 environments live).
class CredentialStore {
 public:
  // The account's key comes from `configured` when its members are set (both or neither: kInvalidArgument), else from
  // `path` ("<data>/credentials.json": {"access_key", "secret_key"}), which is made, with mode 0600, when it is absent.
  // A file that cannot be understood is kDataLoss and stays as it is. A file that others may read is made private, with a
  // warning. Blocking; `account` is 12 digits.
  [[nodiscard]] static base::Result<std::unique_ptr<CredentialStore>> open(const std::string& path, const std::string& account,
                                                                           const AccessKey& configured);

  // The account's key, for `mayfly env`.
  [[nodiscard]] const Credential& account_credential() const { return *account_; }

  // Null when nobody holds that access key. Does not prove anything: the caller verifies a signature with the secret.
  [[nodiscard]] CredentialPointer find(std::string_view access_key) const;
  // The credential of `access_key`, whose session token must be `session_token` (compared in constant time; empty for the
  // account's key). UnrecognizedClientException otherwise, the same for both reasons; ExpiredTokenException for a session that has
  // ended by `now`.
  [[nodiscard]] base::Result<CredentialPointer> find(std::string_view access_key, std::string_view session_token, base::WallTime now) const;

  // Makes credentials for one environment: "ASIA...", valid until revoked. kInvalidArgument when the role's ARN is not one.
  [[nodiscard]] base::Result<CredentialPointer> issue(const EnvironmentIdentity& identity);
  // Makes credentials that are good until `expires`. kResourceExhausted while kSessionsMax others are ("now" tells which).
  [[nodiscard]] base::Result<CredentialPointer> issue_session(const SessionIdentity& identity, base::WallTime now, base::WallTime expires);
  // Ends the sessions of a role.
  void revoke_sessions(std::string_view role_arn);
  // Ends them; unknown keys and the account's are ignored.
  void revoke(std::string_view access_key);
  // Temporary credentials that live now.
  [[nodiscard]] std::size_t issued() const;

 private:
  // Secret, token and access key.
  static void make_secrets(Credential& credential);
  void add(CredentialPointer made) MAYFLY_REQUIRES(change_);
  // Takes away the sessions that `ends`; answers how many are left.
  template <typename Predicate>
  std::size_t end_sessions(Predicate ends) MAYFLY_REQUIRES(change_);

  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  using Slice = std::unordered_map<std::string, CredentialPointer, Hash, std::equal_to<>>;
  static constexpr std::size_t kSlices = 64;

  explicit CredentialStore(CredentialPointer account);
  [[nodiscard]] static std::size_t slice_of(std::string_view access_key) { return Hash{}(access_key) % kSlices; }

  const CredentialPointer account_;
  // Never null: the constructor fills it.
  struct PublishedSlice : base::Published<Slice> {
    PublishedSlice() : base::Published<Slice>(nullptr) {}
  };
  std::array<PublishedSlice, kSlices> slices_;
  base::Mutex change_;  // one writer at a time
};

// Whether `principal` may do `action` ("lambda:InvokeFunction") on `resource` (an ARN, or "*"). The account's key may do
// everything; its sessions too, but for making further ones. A function's role may do the data actions of a table (access.cc): invoke
// functions of its account, ask who it is, read and write its own log group and the objects of the account's buckets; everything else
// is AccessDeniedException, worded as AWS does.
[[nodiscard]] base::Result<void> authorise(const Principal& principal, std::string_view action, std::string_view resource);

// "arn:aws:iam::ACCOUNT:role/some/path/NAME" and "hello" -> "arn:aws:sts::ACCOUNT:assumed-role/NAME/hello".
// kInvalidArgument when `role_arn` is not a role's or `session` is not a session name.
[[nodiscard]] base::Result<std::string> assumed_role_arn(std::string_view role_arn, std::string_view session);

}  // namespace mayfly::access
