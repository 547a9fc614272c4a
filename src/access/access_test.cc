#include "access/access.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <set>
#include <thread>
#include <vector>

#include "base/fd.h"

namespace mayfly::access {
namespace {

using base::ErrorCode;

constexpr const char* kAccount = "000000000000";
constexpr const char* kRole = "arn:aws:iam::000000000000:role/service-role/worker";

class Directory {
 public:
  Directory() {
    std::string pattern = "/tmp/mayfly-access-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~Directory() { (void)base::remove_tree(path_); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  [[nodiscard]] std::string file() const { return path_ + "/credentials.json"; }

 private:
  std::string path_;
};

unsigned mode_of(const std::string& path) {
  struct stat status{};
  EXPECT_EQ(stat(path.c_str(), &status), 0);
  return status.st_mode & 07777U;
}

void write(const std::string& path, const std::string& text, unsigned mode = 0600) {
  ASSERT_TRUE(base::write_file_durably(path, text, mode).ok());
}

std::unique_ptr<CredentialStore> store_with_key() {
  return CredentialStore::open("/nonexistent/credentials.json", kAccount,
                               {.access_key = "AKIAEXAMPLE000000001", .secret_key = "a-secret-of-their-own"})
      .value();
}

EnvironmentIdentity identity(const std::string& name = "hello") {
  return {.function_arn = "arn:aws:lambda:us-east-1:000000000000:function:" + name + ":7",
          .role_arn = kRole,
          .session = name,
          .log_group = "/aws/lambda/" + name};
}

bool consists_of(std::string_view text, std::string_view alphabet) { return text.find_first_not_of(alphabet) == std::string_view::npos; }

// --- The account's key ---

TEST(CredentialStore, TheFirstStartMakesAKeyThatOnlyTheOwnerCanReadAndLaterStartsKeepIt) {
  const Directory directory;
  const auto first = CredentialStore::open(directory.file(), kAccount, {});
  ASSERT_TRUE(first.ok()) << first.error().message();
  EXPECT_EQ(mode_of(directory.file()), 0600U);
  const Credential& made = (*first)->account_credential();
  EXPECT_EQ(made.principal.access_key.size(), 20U);
  EXPECT_TRUE(made.principal.access_key.starts_with("AKIA"));
  EXPECT_TRUE(consists_of(made.principal.access_key.substr(4), "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"));
  EXPECT_EQ(made.secret_key.size(), 40U);
  EXPECT_TRUE(made.session_token.empty());
  EXPECT_EQ(made.principal.arn, "arn:aws:iam::000000000000:root");
  EXPECT_EQ(made.principal.user_id, kAccount);

  const auto second = CredentialStore::open(directory.file(), kAccount, {});
  ASSERT_TRUE(second.ok());
  EXPECT_EQ((*second)->account_credential().principal.access_key, made.principal.access_key);
  EXPECT_EQ((*second)->account_credential().secret_key, made.secret_key);

  const Directory other;
  EXPECT_NE(CredentialStore::open(other.file(), kAccount, {}).value()->account_credential().secret_key, made.secret_key);
}

TEST(CredentialStore, AConfiguredKeyReplacesTheFileAndLeavesItAlone) {
  const Directory directory;
  const auto store =
      CredentialStore::open(directory.file(), kAccount, {.access_key = "AKIAEXAMPLE000000001", .secret_key = "a-secret-of-their-own"});
  ASSERT_TRUE(store.ok());
  EXPECT_NE((*store)->find("AKIAEXAMPLE000000001"), nullptr);
  EXPECT_NE(::access(directory.file().c_str(), F_OK), 0) << "no file is made";

  const auto kept = CredentialStore::open(directory.file(), kAccount, {}).value();
  const auto again =
      CredentialStore::open(directory.file(), kAccount, {.access_key = "AKIAEXAMPLE000000001", .secret_key = "a-secret-of-their-own"})
          .value();
  EXPECT_EQ(again->find(kept->account_credential().principal.access_key), nullptr)
      << "the file's key is not valid while another is configured";
  EXPECT_EQ(CredentialStore::open(directory.file(), kAccount, {}).value()->account_credential().secret_key,
            kept->account_credential().secret_key);
}

TEST(CredentialStore, AConfiguredKeyThatCannotWorkIsRefusedWithoutRepeatingIt) {
  const std::vector<AccessKey> wrong = {{"AKIAEXAMPLE000000001", ""},
                                        {"", "a-secret-of-their-own"},
                                        {"AK", "a-secret-of-their-own"},
                                        {"AKIA/EXAMPLE", "a-secret-of-their-own"},
                                        {"ASIAEXAMPLE000000001", "a-secret-of-their-own"},
                                        {"AKIAEXAMPLE000000001", "short"},
                                        {"AKIAEXAMPLE000000001", "a secret of their own"}};
  const Directory directory;
  for (const AccessKey& key : wrong) {
    const auto store = CredentialStore::open(directory.file(), kAccount, key);
    ASSERT_FALSE(store.ok()) << key.access_key;
    EXPECT_EQ(store.error().code(), ErrorCode::kInvalidArgument);
    EXPECT_FALSE(store.error().message().contains("secret-of")) << store.error().message();
    EXPECT_FALSE(store.error().message().contains("EXAMPLE")) << store.error().message();
  }
}

TEST(CredentialStore, ADamagedFileIsNamedAndKept) {
  const std::string good = R"("access_key": "AKIAEXAMPLE000000001")";
  for (const std::string& text : {std::string(), std::string("{"), std::string("[]"), "{" + good + "}",
                                  "{" + good + R"(, "secret_key": 7})", "{" + good + R"(, "secret_key": "tooshrt"})",
                                  std::string(R"({"access_key": "", "secret_key": "a-secret-of-their-own"})"), std::string(70'000, ' ')}) {
    const Directory directory;
    write(directory.file(), text);
    const auto store = CredentialStore::open(directory.file(), kAccount, {});
    ASSERT_FALSE(store.ok()) << text.substr(0, 100);
    EXPECT_EQ(store.error().code(), ErrorCode::kDataLoss);
    EXPECT_TRUE(store.error().message().contains(directory.file())) << store.error().message();
    EXPECT_TRUE(store.error().message().contains("delete it")) << store.error().message();
    EXPECT_FALSE(store.error().message().contains("AKIAEXAMPLE")) << store.error().message();
    EXPECT_FALSE(store.error().message().contains("tooshrt")) << store.error().message();
    EXPECT_EQ(base::read_file(directory.file()).value(), text);
  }
}

TEST(CredentialStore, AFileOpenToOthersIsMadePrivate) {
  const Directory directory;
  write(directory.file(), R"({"access_key": "AKIAEXAMPLE000000001", "secret_key": "a-secret-of-their-own"})", 0644);
  ASSERT_EQ(chmod(directory.file().c_str(), 0644), 0);
  ASSERT_TRUE(CredentialStore::open(directory.file(), kAccount, {}).ok());
  EXPECT_EQ(mode_of(directory.file()), 0600U);
}

TEST(CredentialStore, ALinkOrADirectoryInPlaceOfTheFileIsRefused) {
  const Directory directory;
  ASSERT_EQ(symlink("/etc/hostname", directory.file().c_str()), 0);
  EXPECT_FALSE(CredentialStore::open(directory.file(), kAccount, {}).ok());
  const Directory other;
  ASSERT_EQ(mkdir(other.file().c_str(), 0700), 0);
  EXPECT_FALSE(CredentialStore::open(other.file(), kAccount, {}).ok());
  const Directory pipe;
  ASSERT_EQ(mkfifo(pipe.file().c_str(), 0600), 0);
  EXPECT_FALSE(CredentialStore::open(pipe.file(), kAccount, {}).ok());
}

TEST(CredentialStore, ADirectoryThatCannotBeWrittenIsAnError) {
  const auto store = CredentialStore::open("/nonexistent/credentials.json", kAccount, {});
  ASSERT_FALSE(store.ok());
  EXPECT_TRUE(store.error().message().contains("/nonexistent")) << store.error().message();
}

// --- Temporary keys ---

TEST(CredentialStore, AnEnvironmentGetsItsOwnKeyBoundToVersionAndRoleUntilItIsRevoked) {
  const auto store = store_with_key();
  const auto made = store->issue(identity());
  ASSERT_TRUE(made.ok()) << made.error().message();
  const Credential& credential = **made;
  EXPECT_TRUE(credential.principal.access_key.starts_with("ASIA"));
  EXPECT_EQ(credential.principal.access_key.size(), 20U);
  EXPECT_EQ(credential.secret_key.size(), 40U);
  EXPECT_GE(credential.session_token.size(), 100U);
  EXPECT_EQ(credential.principal.kind, PrincipalKind::kFunctionRole);
  EXPECT_EQ(credential.principal.account, kAccount);
  EXPECT_EQ(credential.principal.arn, "arn:aws:sts::000000000000:assumed-role/worker/hello");
  EXPECT_EQ(credential.principal.function_arn, identity().function_arn);
  EXPECT_EQ(credential.principal.role_arn, kRole);
  EXPECT_TRUE(credential.principal.user_id.starts_with("AROA") && credential.principal.user_id.ends_with(":hello"))
      << credential.principal.user_id;

  EXPECT_EQ(store->find(credential.principal.access_key), *made);
  EXPECT_EQ(store->issued(), 1U);
  store->revoke(credential.principal.access_key);
  EXPECT_EQ(store->find(credential.principal.access_key), nullptr);
  EXPECT_EQ(store->issued(), 0U);
  store->revoke(credential.principal.access_key);
  EXPECT_EQ(credential.principal.session, "hello") << "who still holds it may finish with it";
}

TEST(CredentialStore, ATokenBelongsToItsKey) {
  const auto store = store_with_key();
  const auto one = store->issue(identity("one")).value();
  const auto two = store->issue(identity("two")).value();
  const auto found = [&store](const std::string& key, const std::string& token) { return store->find(key, token, {}).ok(); };
  EXPECT_TRUE(found(one->principal.access_key, one->session_token));
  EXPECT_FALSE(found(one->principal.access_key, two->session_token));
  EXPECT_FALSE(found(one->principal.access_key, ""));
  EXPECT_FALSE(found(one->principal.access_key, one->session_token + "A"));
  EXPECT_TRUE(found("AKIAEXAMPLE000000001", ""));
  EXPECT_FALSE(found("AKIAEXAMPLE000000001", one->session_token)) << "the account's key has no token";
  const auto unknown = store->find("AKIAUNKNOWN", "", {});
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().id(), "UnrecognizedClientException");
  EXPECT_EQ(unknown.error().message(), "The security token included in the request is invalid.");
}

TEST(CredentialStore, KeysOfTwoThousandEnvironmentsAreAllDifferentAndFound) {
  const auto store = store_with_key();
  std::set<std::string> keys, secrets, tokens;
  for (int i = 0; i < 2000; ++i) {
    const auto made = store->issue(identity()).value();
    keys.insert(made->principal.access_key);
    secrets.insert(made->secret_key);
    tokens.insert(made->session_token);
  }
  EXPECT_EQ(keys.size(), 2000U);
  EXPECT_EQ(secrets.size(), 2000U);
  EXPECT_EQ(tokens.size(), 2000U);
  for (const std::string& key : keys) ASSERT_NE(store->find(key), nullptr);
}

TEST(CredentialStore, ARoleOrSessionThatIsNoneGetsNoKey) {
  const auto store = store_with_key();
  EnvironmentIdentity wrong = identity();
  wrong.role_arn = "arn:aws:iam::000000000000:user/worker";
  EXPECT_EQ(store->issue(wrong).error().code(), ErrorCode::kInvalidArgument);
  wrong = identity("a b");
  EXPECT_FALSE(store->issue(wrong).ok());
  EXPECT_EQ(store->issued(), 0U);
}

TEST(CredentialStore, ManyThreadsLookUpWhileOthersIssueAndRevoke) {
  const auto store = store_with_key();
  const auto lasting = store->issue(identity("lasting")).value();
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&store, &lasting, &stop, &wrong] {
      while (!stop) {
        if (store->find(lasting->principal.access_key) != lasting) ++wrong;
        if (!store->find(lasting->principal.access_key, lasting->session_token, {}).ok()) ++wrong;
        if (store->find("AKIAEXAMPLE000000001") == nullptr) ++wrong;
      }
    });
  }
  std::vector<std::thread> writers;
  for (int i = 0; i < 3; ++i) {
    writers.emplace_back([&store, &wrong] {
      for (int k = 0; k < 300; ++k) {
        const auto made = store->issue(identity()).value();
        if (store->find(made->principal.access_key) != made) ++wrong;
        store->revoke(made->principal.access_key);
        if (store->find(made->principal.access_key) != nullptr) ++wrong;
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(store->issued(), 1U);
}

// --- Sessions ---

SessionIdentity session(const std::string& role = kRole) {
  return {.arn = "arn:aws:sts::000000000000:assumed-role/worker/ci", .user_id = "AROAEXAMPLE:ci", .role_arn = role};
}

TEST(CredentialStore, ASessionIsGoodUntilItExpiresAndMakesRoomForOthersThen) {
  const auto store = store_with_key();
  const base::WallTime now = base::wall_from_epoch_ms(1'000'000);
  const auto later = [now](int seconds) { return now + std::chrono::seconds(seconds); };
  const auto made = *store->issue_session(session(), now, later(60));
  EXPECT_EQ(made->principal.kind, PrincipalKind::kSession);
  EXPECT_EQ(made->principal.arn, session().arn);
  EXPECT_EQ(made->principal.user_id, session().user_id);
  EXPECT_EQ(made->principal.account, kAccount);
  EXPECT_TRUE(made->principal.access_key.starts_with("ASIA"));
  EXPECT_EQ(*store->find(made->principal.access_key, made->session_token, {}), made);
  EXPECT_FALSE(store->find(made->principal.access_key, "", {}).ok());
  EXPECT_TRUE(store->find(made->principal.access_key, made->session_token, later(59)).ok());
  EXPECT_EQ(store->find(made->principal.access_key, made->session_token, later(60)).error().id(), "ExpiredTokenException");
  EXPECT_FALSE((*store->issue(identity()))->expired(base::WallTime::max())) << "an environment's ends with it";

  for (std::size_t i = 1; i < kSessionsMax; ++i) ASSERT_TRUE(store->issue_session(session(), now, later(60)).ok());
  const auto refused = store->issue_session(session(), now, later(60));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code(), ErrorCode::kResourceExhausted);
  EXPECT_TRUE(store->issue_session(session(), later(60), later(120)).ok());
  EXPECT_EQ(store->issued(), 2U) << "one session and the environment";
}

TEST(CredentialStore, TheSessionsOfARoleEndTogetherAndNothingElse) {
  const auto store = store_with_key();
  const base::WallTime now = base::wall_from_epoch_ms(1'000'000), then = now + std::chrono::hours(1);
  const auto one = *store->issue_session(session(), now, then);
  const auto two = *store->issue_session(session(), now, then);
  const auto other = *store->issue_session(session("arn:aws:iam::000000000000:role/other"), now, then);
  const auto environment = *store->issue(identity());
  store->revoke_sessions(kRole);
  EXPECT_EQ(store->find(one->principal.access_key), nullptr);
  EXPECT_EQ(store->find(two->principal.access_key), nullptr);
  EXPECT_NE(store->find(other->principal.access_key), nullptr);
  EXPECT_NE(store->find(environment->principal.access_key), nullptr) << "code that runs keeps its key";
}

TEST(CredentialStore, AnEnvironmentIsCalledByTheIdOfItsRoleWhereThatIsKnown) {
  const auto store = store_with_key();
  EnvironmentIdentity known = identity();
  known.role_id = "AROAKNOWN";
  EXPECT_EQ((*store->issue(known))->principal.user_id, "AROAKNOWN:hello");
}

// --- What they may ---

Principal function_principal() { return store_with_key()->issue(identity()).value()->principal; }

TEST(Authorise, TheAccountsKeyMayDoEverything) {
  const Principal account = store_with_key()->account_credential().principal;
  for (const char* action :
       {"lambda:CreateFunction", "lambda:DeleteFunction", "lambda:InvokeFunction", "logs:FilterLogEvents", "anything:AtAll"}) {
    EXPECT_TRUE(authorise(account, action, "*").ok()) << action;
  }
}

TEST(Authorise, ASessionMayDoEverythingButMakeSessions) {
  const base::WallTime now = base::wall_from_epoch_ms(1'000'000);
  const Principal made = (*store_with_key()->issue_session(session(), now, now + std::chrono::hours(1)))->principal;
  for (const char* action : {"lambda:CreateFunction", "iam:CreateRole", "sts:GetCallerIdentity"})
    EXPECT_TRUE(authorise(made, action, "*").ok()) << action;
  for (const char* action : {"sts:AssumeRole", "sts:GetSessionToken"})
    EXPECT_EQ(authorise(made, action, "*").error().id(), "AccessDeniedException");
}

TEST(Authorise, AFunctionMayInvokeFunctionsOfItsAccountOnly) {
  const Principal hello = function_principal();
  EXPECT_TRUE(authorise(hello, "lambda:InvokeFunction", "arn:aws:lambda:us-east-1:000000000000:function:other").ok());
  EXPECT_TRUE(authorise(hello, "lambda:InvokeFunction", "arn:aws:lambda:us-east-1:000000000000:function:other:3").ok());
  EXPECT_FALSE(authorise(hello, "lambda:InvokeFunction", "arn:aws:lambda:us-east-1:111111111111:function:other").ok());
  EXPECT_FALSE(authorise(hello, "lambda:InvokeFunction", "arn:aws:lambda:us-east-1:000000000000:layer:other").ok());
  EXPECT_FALSE(authorise(hello, "lambda:InvokeFunction", "*").ok());
  EXPECT_FALSE(authorise(hello, "lambda:invokefunction", "arn:aws:lambda:us-east-1:000000000000:function:other").ok());
}

TEST(Authorise, AFunctionMayAskWhoItIs) { EXPECT_TRUE(authorise(function_principal(), "sts:GetCallerIdentity", "*").ok()); }

TEST(Authorise, AFunctionReadsAndWritesItsOwnLogOnly) {
  const Principal hello = function_principal();
  const std::string group = "arn:aws:logs:us-east-1:000000000000:log-group:/aws/lambda/hello";
  for (const char* action : {"logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams",
                             "logs:GetLogEvents", "logs:FilterLogEvents"}) {
    EXPECT_TRUE(authorise(hello, action, group).ok()) << action;
    EXPECT_TRUE(authorise(hello, action, group + ":*").ok()) << action;
    EXPECT_TRUE(authorise(hello, action, group + ":log-stream:2026/01/01/[$LATEST]abc").ok()) << action;
    EXPECT_FALSE(authorise(hello, action, group + "-too").ok()) << action;
    EXPECT_FALSE(authorise(hello, action, "arn:aws:logs:us-east-1:000000000000:log-group:/aws/lambda/other").ok()) << action;
    EXPECT_FALSE(authorise(hello, action, "arn:aws:logs:us-east-1:111111111111:log-group:/aws/lambda/hello").ok()) << action;
    EXPECT_FALSE(authorise(hello, action, "*").ok()) << action;
  }
  EXPECT_FALSE(authorise(hello, "logs:DeleteLogGroup", group).ok());
  Principal without = hello;
  without.log_group.clear();
  EXPECT_FALSE(authorise(without, "logs:GetLogEvents", "arn:aws:logs:us-east-1:000000000000:log-group:").ok());
}

TEST(Authorise, AFunctionReadsAndWritesObjectsAndManagesNoBucket) {
  const Principal hello = function_principal();
  for (const char* action : {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:AbortMultipartUpload"}) {
    EXPECT_TRUE(authorise(hello, action, "arn:aws:s3:::bucket/key:with:colons").ok()) << action;
    EXPECT_TRUE(authorise(hello, action, "arn:aws:s3:::bucket").ok()) << action;
    EXPECT_FALSE(authorise(hello, action, "arn:aws:s3:us-east-1:111111111111:accesspoint/x").ok()) << action;
    EXPECT_FALSE(authorise(hello, action, "arn:aws:s3:::").ok()) << action;
    EXPECT_FALSE(authorise(hello, action, "*").ok()) << action;
  }
  for (const char* action : {"s3:CreateBucket", "s3:DeleteBucket", "s3:PutBucketTagging", "s3:ListAllMyBuckets", "s3:*"})
    EXPECT_FALSE(authorise(hello, action, "arn:aws:s3:::bucket").ok()) << action;
}

TEST(Authorise, AFunctionMayManageNothingAndIsToldAsAwsTells) {
  const Principal hello = function_principal();
  const std::string own = "arn:aws:lambda:us-east-1:000000000000:function:hello";
  for (const char* action : {"lambda:CreateFunction", "lambda:GetFunction", "lambda:UpdateFunctionCode", "lambda:DeleteFunction",
                             "lambda:ListFunctions", "lambda:*", "*", "", "iam:CreateRole", "sts:AssumeRole"}) {
    const auto decision = authorise(hello, action, own);
    ASSERT_FALSE(decision.ok()) << action;
    EXPECT_EQ(decision.error().id(), "AccessDeniedException");
    EXPECT_EQ(decision.error().code(), ErrorCode::kPermissionDenied);
    EXPECT_FALSE(decision.error().message().contains("ASIA"));
  }
  EXPECT_EQ(
      authorise(hello, "lambda:CreateFunction", own).error().message(),
      "User: arn:aws:sts::000000000000:assumed-role/worker/hello is not authorized to perform: lambda:CreateFunction on resource: "
      "arn:aws:lambda:us-east-1:000000000000:function:hello because no identity-based policy allows the lambda:CreateFunction action");
}

TEST(AssumedRoleArn, NamesTheRoleWithoutItsPath) {
  EXPECT_EQ(assumed_role_arn("arn:aws:iam::123456789012:role/service-role/deep/worker", "hello").value(),
            "arn:aws:sts::123456789012:assumed-role/worker/hello");
  EXPECT_EQ(assumed_role_arn("arn:aws:iam::123456789012:role/r", "h").value(), "arn:aws:sts::123456789012:assumed-role/r/h");
  for (const char* role : {"", "worker", "arn:aws:iam::123456789012:user/worker", "arn:aws:iam::1234:role/worker",
                           "arn:aws:iam::123456789012:role/", "arn:aws:s3:::bucket"}) {
    EXPECT_FALSE(assumed_role_arn(role, "hello").ok()) << role;
  }
  EXPECT_FALSE(assumed_role_arn(kRole, "").ok());
  EXPECT_FALSE(assumed_role_arn(kRole, std::string(65, 'a')).ok());
}

}  // namespace
}  // namespace mayfly::access
