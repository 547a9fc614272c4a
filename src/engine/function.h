// Functions, their versions and their configuration: what is deployed. Values here are immutable once published in the
// catalogue and shared between threads as shared_ptr<const ...>.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/time.h"

namespace mayfly::engine {

// Limits of the Lambda contract (contract.md, section 1), in the units their names end in.
struct Limits {
  static constexpr std::uint64_t kZipBytesMax = 52'428'800;
  static constexpr std::uint64_t kRequestBytesMax = 70'167'211;
  static constexpr std::uint64_t kUnzippedBytesMax = 262'144'000;
  static constexpr std::uint64_t kSyncPayloadBytesMax = 6'291'556;  // 6 MB and 100 bytes of slack, as AWS
  static constexpr std::uint64_t kStreamBytesMax = 200ULL << 20U;
  static constexpr std::uint64_t kEnvironmentBytesMax = 4096;  // of the variables as JSON
  static constexpr std::uint64_t kClientContextBytesMax = 3583;
  static constexpr std::uint32_t kRunsPerEnvironmentMax = 1600;  // PerExecutionEnvironmentMaxConcurrency of managed instances
  static constexpr base::Duration kInitTimeout = std::chrono::seconds(10);
};

// A layer version as a function uses it. Keeps working when the layer version is deleted, as on AWS: the code stays while used.
struct LayerUse {
  std::string arn;              // arn:aws:lambda:REGION:ACCOUNT:layer:NAME:VERSION
  std::string code_id;          // of its zip, shown merged at /opt
  std::uint64_t code_size = 0;  // bytes of the zip
  std::uint64_t unpacked_bytes = 0;
  bool operator==(const LayerUse&) const = default;
};

// What an owner sets; a published version keeps a copy for ever.
struct FunctionConfig {
  std::string runtime;  // "python3.12", "provided.al2023", ...
  std::string handler;
  std::string role;  // ARN; stored, not evaluated
  std::string description;
  std::uint32_t timeout_s = 3;
  std::uint32_t memory_mb = 128;
  std::uint32_t ephemeral_mb = 512;
  std::string architecture = "x86_64";
  std::optional<std::map<std::string, std::string>> environment;  // absent unless ever set
  std::string log_format = "Text";                                // "Text" or "JSON"
  std::string application_log_level;                              // "" unless set; JSON only
  std::string system_log_level;
  std::string log_group;  // "/aws/lambda/NAME" unless set
  std::string tracing_mode = "PassThrough";
  std::string snap_start = "None";
  std::vector<LayerUse> layers;  // in the order given: later ones lie on top
  std::string accepted_json =
      "{}";  // members that are stored and echoed but do nothing yet, as sent (VpcConfig, DeadLetterConfig, KMSKeyArn ...)

  std::string code_id;          // 64 hex digits: SHA-256 of the zip; names blob and unpacked directory
  std::string code_sha256;      // the same digest in base64, as the API shows it
  std::uint64_t code_size = 0;  // bytes of the zip

  // "outside" or "none": whether the function may reach outside networks, by MAYFLY_NETWORK in its environment (docs/adr/0004).
  [[nodiscard]] std::string network() const;
  // How many invocations the function takes at once in one environment, by AWS_LAMBDA_MAX_CONCURRENCY in its environment as AWS names
  // it; 1 unless set. Nothing when the value is not a number from 1 to kRunsPerEnvironmentMax.
  [[nodiscard]] std::optional<std::uint32_t> runs_per_environment() const;
  // Whether an alias is moved to a version of this only after an environment of it has initialised, by MAYFLY_ALIAS_WAITS_FOR=init.
  [[nodiscard]] bool alias_waits_for_init() const;
  bool operator==(const FunctionConfig&) const = default;
};

enum class FunctionState : std::uint8_t { kPending, kActive, kInactive, kFailed };
enum class UpdateStatus : std::uint8_t { kNone, kSuccessful, kInProgress, kFailed };
[[nodiscard]] std::string_view state_name(FunctionState state);          // "Pending" ...
[[nodiscard]] std::string_view update_status_name(UpdateStatus status);  // "Successful" ...

inline constexpr std::string_view kLatest = "$LATEST";

// One version: "$LATEST", or a published one that never changes.
struct FunctionVersion {
  std::string function_name;
  std::string version;        // "$LATEST" or "1", "2" ...
  std::string arn;            // unqualified: arn:aws:lambda:REGION:ACCOUNT:function:NAME
  std::string revision_id;    // UUID
  std::string last_modified;  // "2026-11-23T19:02:01.123+0000"
  FunctionConfig config;
  FunctionState state = FunctionState::kPending;
  UpdateStatus update_status = UpdateStatus::kNone;
  // Changes whenever an existing environment must not serve this version any more (code or configuration changed).
  // Environments are pooled by (function, version, generation). Never used twice for a name, also not by a function that
  // is deleted and made again.
  std::uint64_t generation = 0;

  // Of AWS's form; stable for a runtime's name, like the real one until the runtime is updated.
  [[nodiscard]] std::string runtime_version_arn() const;
  // Why something is under way, in AWS's words; "" when nothing is.
  [[nodiscard]] std::string_view state_reason() const;
  [[nodiscard]] std::string_view state_reason_code() const;
  [[nodiscard]] std::string_view update_reason() const;
  [[nodiscard]] std::string_view update_reason_code() const;
  [[nodiscard]] std::string qualified_arn() const { return arn + ":" + version; }
};
using VersionPtr = std::shared_ptr<const FunctionVersion>;

// A name for a version that its owner can move, or split between two versions.
struct Alias {
  std::string name, description, revision_id;
  std::string version;             // digits or "$LATEST"
  std::string additional_version;  // "" unless weighted
  double additional_weight = 0;    // share of calls that go to `additional_version`, 0 to 1
  bool operator==(const Alias&) const = default;
};

// Statements of a resource policy in the order added, each one a JSON object as AddPermission answers it, with its Sid.
struct ResourcePolicy {
  struct Statement {
    std::string sid;
    std::string document;
    bool operator==(const Statement&) const = default;
  };
  std::string revision_id;  // of layer versions' policies; a function's is guarded by what it belongs to
  std::vector<Statement> statements;
  bool operator==(const ResourcePolicy&) const = default;
};

enum class UrlAuthentication : std::uint8_t { kNone, kIam };
struct FunctionUrl {
  std::string id;  // 32 of [a-z0-9]: first label of its host name
  UrlAuthentication authentication = UrlAuthentication::kIam;
  bool streams = false;           // InvokeMode RESPONSE_STREAM
  std::string cors_json;          // the Cors member as given; "" when never set
  std::string created, modified;  // ISO 8601
  bool operator==(const FunctionUrl&) const = default;
};

// What happens to asynchronous invocations; absent members have the service's defaults (2 retries, 6 h).
struct EventInvokeConfig {
  std::optional<std::uint32_t> retries_max, age_max_s;
  std::string on_success, on_failure;  // destination ARNs, "" when none
  base::WallTime modified{};
  bool operator==(const EventInvokeConfig&) const = default;
};

struct ProvisionedConcurrency {
  std::uint32_t requested = 0;
  std::string modified;  // ISO 8601
  bool operator==(const ProvisionedConcurrency&) const = default;
};

struct RuntimeManagement {
  std::string update_on = "Auto";
  std::string runtime_version_arn;  // with "Manual" only
  bool operator==(const RuntimeManagement&) const = default;
};

// What belongs to a function beside its versions. Keys of the maps are qualifiers; "" is the function without one.
struct FunctionSettings {
  std::map<std::string, std::string> tags;
  std::map<std::string, Alias> aliases;
  std::optional<std::uint32_t> reserved_concurrency;
  std::map<std::string, ProvisionedConcurrency> provisioned;    // by version or alias
  std::map<std::string, ResourcePolicy> policies;               // by "", version or alias
  std::map<std::string, FunctionUrl> urls;                      // by "" or alias
  std::map<std::string, EventInvokeConfig> event_invoke;        // by "$LATEST", version or alias
  std::map<std::string, RuntimeManagement> runtime_management;  // by "$LATEST" or version
  std::string recursive_loop = "Terminate";                     // or "Allow"
  bool operator==(const FunctionSettings&) const = default;
};

// A creation or update that others must not interrupt (FunctionRegistry). In memory only: after a restart nothing is under way.
struct UnderWay {
  enum class Kind : std::uint8_t { kCreation, kUpdate };
  Kind kind = Kind::kCreation;
  base::TimePoint until{};
  std::atomic<bool> seen = false;  // somebody was shown the end
};

// A function with everything that belongs to it.
struct FunctionRecord {
  VersionPtr latest;
  std::vector<VersionPtr> published;  // ascending
  std::uint64_t next_version = 1;
  std::shared_ptr<const FunctionSettings> settings = default_settings();
  std::shared_ptr<UnderWay> under_way;  // null: nothing since the start of the server

  // The version a qualifier names: "" and "$LATEST" the latest, digits a published one, else an alias's (of a weighted alias the
  // main one); null when there is none.
  [[nodiscard]] VersionPtr find(std::string_view qualifier) const;
  // The same for an invocation: `chance` in [0, 1) decides between the two versions of a weighted alias.
  [[nodiscard]] VersionPtr route(std::string_view qualifier, double chance) const;
  [[nodiscard]] const Alias* find_alias(std::string_view name) const;
  // Shared by every function that has set nothing.
  [[nodiscard]] static const std::shared_ptr<const FunctionSettings>& default_settings();
};
using RecordPtr = std::shared_ptr<const FunctionRecord>;

// Who and where this server is: every ARN is made of it.
struct Account {
  std::string id = "000000000000";
  std::string region = "us-east-1";
  [[nodiscard]] std::string function_arn(std::string_view name) const;
  [[nodiscard]] std::string layer_arn(std::string_view name) const;
};

// A function named by one of the four forms (name, name:qualifier, account:function:name[:q], full ARN[:q]).
struct FunctionName {
  std::string name;
  std::string qualifier;  // "" when not given
  std::string account;    // "" when not given
  std::string region;     // "" when not given
};
// Reads as AWS's pattern does: "123456789012:f" is an account and a name. kInvalidArgument (ValidationException, AWS's
// text) when `text` has none of the forms. Region and account are compared by the caller.
[[nodiscard]] base::Result<FunctionName> parse_function_name(std::string_view text);

}  // namespace mayfly::engine
