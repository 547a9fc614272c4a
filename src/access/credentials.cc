// CredentialStore: the account's key on disk, temporary keys in memory.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <utility>

#include "access/access.h"
#include "base/bytes.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/log.h"

namespace mayfly::access {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::string_view kKeyAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";  // base32, as AWS's identifiers
constexpr std::string_view kSecretAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::string_view kTemporaryPrefix = "ASIA";
constexpr std::size_t kSecretLength = 40;
constexpr std::size_t kTokenBytes = 96;
constexpr std::size_t kAccessKeyMin = 3, kAccessKeyMax = 128, kSecretMin = 8, kSecretMax = 256;
constexpr std::uint64_t kFileBytesMax = 64U << 10U;

std::string new_access_key(std::string_view prefix) { return std::string(prefix) + base::random_text(16, kKeyAlphabet); }
std::string new_secret() { return base::random_text(kSecretLength, kSecretAlphabet); }

// An empty text, or what is wrong with the key; never the key itself.
std::string fault_of(const AccessKey& key) {
  const auto is_word = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  if (key.access_key.size() < kAccessKeyMin || key.access_key.size() > kAccessKeyMax || !std::ranges::all_of(key.access_key, is_word)) {
    return "the access key must be 3 to 128 letters, digits and '_'";
  }
  if (key.access_key.starts_with(kTemporaryPrefix)) return "the access key must not begin with ASIA, which marks temporary keys";
  const auto is_visible = [](char c) { return c > ' ' && c < '\x7f'; };
  if (key.secret_key.size() < kSecretMin || key.secret_key.size() > kSecretMax || !std::ranges::all_of(key.secret_key, is_visible)) {
    return "the secret key must be 8 to 256 visible ASCII characters";
  }
  return {};
}

Error damaged(const std::string& path, const std::string& why) {
  return Error(ErrorCode::kDataLoss, path + " cannot be used: " + why +
                                         "; restore it from a backup, or delete it and a new access key is made at the next start (clients "
                                         "must then be given the new key)");
}

Result<std::string> text_member(const boost::json::value& document, std::string_view name, const std::string& path) {
  const auto* object = document.if_object();
  const auto* member = object == nullptr ? nullptr : object->if_contains(name);
  if (member == nullptr || !member->is_string()) return damaged(path, "it has no text \"" + std::string(name) + "\"");
  return std::string(member->get_string());
}

Result<AccessKey> parse_file(const std::string& path, const std::string& text) {
  const auto document = base::parse_json(text);
  if (!document.ok()) return damaged(path, "it is not JSON");  // the parser's words might quote what it holds
  AccessKey key;
  MAYFLY_ASSIGN(key.access_key, text_member(*document, "access_key", path));
  MAYFLY_ASSIGN(key.secret_key, text_member(*document, "secret_key", path));
  if (const std::string fault = fault_of(key); !fault.empty()) return damaged(path, fault);
  return key;
}

// Others may have read a file with wider permissions; whoever runs the server should know.
Result<void> make_private(int fd, const std::string& path) {
  struct stat status{};
  if (fstat(fd, &status) != 0) return base::errno_error("cannot examine " + path, errno);
  if (!S_ISREG(status.st_mode)) return damaged(path, "it is not a regular file");
  if ((status.st_mode & 077U) == 0) return {};
  if (fchmod(fd, 0600) != 0) return base::errno_error("cannot make " + path + " private", errno);
  base::log_warning("the file with the account's secret key was open to other users; it is private now, consider a new key",
                    {{"file", path}});
  return {};
}

Result<AccessKey> create_file(const std::string& path) {
  const AccessKey key{.access_key = new_access_key("AKIA"), .secret_key = new_secret()};
  const boost::json::value document = {{"access_key", key.access_key}, {"secret_key", key.secret_key}};
  MAYFLY_TRY(base::write_file_durably(path, base::pretty_json(document), 0600));
  return key;
}

Result<AccessKey> read_or_create(const std::string& path) {
  // O_NONBLOCK: a FIFO in its place must not hang the start.
  auto fd = base::open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!fd.ok() && fd.error().code() == ErrorCode::kNotFound) return create_file(path);
  if (!fd.ok()) return std::move(fd).error().with_context("the account's access key");
  MAYFLY_TRY(make_private(fd->get(), path));
  auto text = base::read_all(fd->get(), kFileBytesMax);
  if (!text.ok() && text.error().code() == ErrorCode::kTooLarge) return damaged(path, "it is larger than 64 KB");
  if (!text.ok()) return std::move(text).error().with_context(path);
  return parse_file(path, *text);
}

Result<AccessKey> account_key(const std::string& path, const AccessKey& configured) {
  if (configured.access_key.empty() && configured.secret_key.empty()) return read_or_create(path);
  if (configured.access_key.empty() || configured.secret_key.empty()) {
    return Error(ErrorCode::kInvalidArgument,
                 "only one of MAYFLY_ACCESS_KEY and MAYFLY_SECRET_KEY is set; set both, or neither to use " + path);
  }
  if (const std::string fault = fault_of(configured); !fault.empty()) {
    return Error(ErrorCode::kInvalidArgument, "MAYFLY_ACCESS_KEY and MAYFLY_SECRET_KEY cannot be used: " + fault);
  }
  return configured;
}

CredentialPointer account_credential_of(const std::string& account, AccessKey key) {
  Credential credential;
  credential.principal.kind = PrincipalKind::kAccount;
  credential.principal.account = account;
  credential.principal.arn = "arn:aws:iam::" + account + ":root";
  credential.principal.user_id = account;
  credential.principal.access_key = std::move(key.access_key);
  credential.secret_key = std::move(key.secret_key);
  return std::make_shared<const Credential>(std::move(credential));
}

// The same for the same role, as the identifiers that IAM gives roles.
std::string role_id(const std::string& role_arn) {
  std::string id = "AROA";
  const base::Sha256Digest digest = base::sha256(role_arn);
  for (std::size_t i = 0; i < 17; ++i) id += kKeyAlphabet[digest[i] % kKeyAlphabet.size()];
  return id;
}

}  // namespace

CredentialStore::CredentialStore(CredentialPointer account) : account_(std::move(account)) {
  for (auto& slice : slices_) slice.set(std::make_shared<const Slice>());
}

Result<std::unique_ptr<CredentialStore>> CredentialStore::open(const std::string& path, const std::string& account,
                                                               const AccessKey& configured) {
  MAYFLY_ASSIGN(AccessKey key, account_key(path, configured));
  return std::unique_ptr<CredentialStore>(new CredentialStore(account_credential_of(account, std::move(key))));
}

CredentialPointer CredentialStore::find(std::string_view access_key) const {
  if (access_key == account_->principal.access_key) return account_;
  const auto slice = slices_[slice_of(access_key)].get();
  const auto found = slice->find(access_key);
  return found == slice->end() ? nullptr : found->second;
}

Result<CredentialPointer> CredentialStore::find(std::string_view access_key, std::string_view session_token, base::WallTime now) const {
  CredentialPointer credential = find(access_key);
  if (credential == nullptr || !base::equal_constant_time(credential->session_token, session_token)) {
    return Error(ErrorCode::kUnauthenticated, "The security token included in the request is invalid.", "UnrecognizedClientException");
  }
  if (credential->expired(now))
    return Error(ErrorCode::kUnauthenticated, "The security token included in the request is expired", "ExpiredTokenException");
  return credential;
}

Result<CredentialPointer> CredentialStore::issue(const EnvironmentIdentity& identity) {
  Credential credential;
  Principal& principal = credential.principal;
  MAYFLY_ASSIGN(principal.arn, assumed_role_arn(identity.role_arn, identity.session));
  principal.kind = PrincipalKind::kFunctionRole;
  // The account that runs the function; a role of another account is only a name here.
  principal.account = account_->principal.account;
  principal.user_id = (identity.role_id.empty() ? role_id(identity.role_arn) : identity.role_id) + ":" + identity.session;
  principal.session = identity.session;
  principal.role_arn = identity.role_arn;
  principal.function_arn = identity.function_arn;
  principal.log_group = identity.log_group;
  make_secrets(credential);
  auto made = std::make_shared<const Credential>(std::move(credential));
  const base::MutexLock lock(change_);
  add(made);
  return CredentialPointer(std::move(made));
}

void CredentialStore::make_secrets(Credential& credential) {
  credential.principal.access_key = new_access_key(kTemporaryPrefix);
  credential.secret_key = new_secret();
  std::array<std::uint8_t, kTokenBytes> token{};
  base::random_bytes(token);
  credential.session_token = base::base64_encode(base::as_text(token));
}

void CredentialStore::add(CredentialPointer made) {
  auto& slice = slices_[slice_of(made->principal.access_key)];
  auto next = std::make_shared<Slice>(*slice.get());
  next->emplace(made->principal.access_key, made);
  slice.set(std::move(next));
}

template <typename Predicate>
std::size_t CredentialStore::end_sessions(Predicate ends) {
  std::size_t left = 0;
  for (auto& slice : slices_) {
    const auto current = slice.get();
    const auto is_session = [](const auto& entry) { return entry.second->principal.kind == PrincipalKind::kSession; };
    left += static_cast<std::size_t>(std::ranges::count_if(*current, is_session));
    if (!std::ranges::any_of(*current, [&](const auto& entry) { return is_session(entry) && ends(*entry.second); })) continue;
    auto next = std::make_shared<Slice>(*current);
    left -= std::erase_if(*next, [&](const auto& entry) { return is_session(entry) && ends(*entry.second); });
    slice.set(std::move(next));
  }
  return left;
}

Result<CredentialPointer> CredentialStore::issue_session(const SessionIdentity& identity, base::WallTime now, base::WallTime expires) {
  Credential credential;
  Principal& principal = credential.principal;
  principal.kind = PrincipalKind::kSession;
  principal.account = account_->principal.account;
  principal.arn = identity.arn;
  principal.user_id = identity.user_id;
  principal.role_arn = identity.role_arn;
  credential.expires = expires;
  make_secrets(credential);
  auto made = std::make_shared<const Credential>(std::move(credential));
  const base::MutexLock lock(change_);
  if (end_sessions([now](const Credential& each) { return each.expired(now); }) >= kSessionsMax)
    return Error(ErrorCode::kResourceExhausted,
                 std::to_string(kSessionsMax) + " temporary credentials are valid at once; wait until some expire", "Throttling");
  add(made);
  return CredentialPointer(std::move(made));
}

void CredentialStore::revoke_sessions(std::string_view role_arn) {
  const base::MutexLock lock(change_);
  end_sessions([role_arn](const Credential& each) { return each.principal.role_arn == role_arn; });
}

void CredentialStore::revoke(std::string_view access_key) {
  const base::MutexLock lock(change_);
  auto& slice = slices_[slice_of(access_key)];
  const auto current = slice.get();
  const auto found = current->find(access_key);
  if (found == current->end()) return;
  auto next = std::make_shared<Slice>(*current);
  next->erase(found->first);
  slice.set(std::move(next));
}

std::size_t CredentialStore::issued() const {
  std::size_t count = 0;
  for (const auto& slice : slices_) count += slice.get()->size();
  return count;
}

}  // namespace mayfly::access
