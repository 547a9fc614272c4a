#include "access/access.h"

#include <algorithm>

namespace mayfly::access {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

// What a rule's action may be done on.
enum class Scope : std::uint8_t {
  kAnything,         // the action names no resource
  kAccountFunction,  // a function of the principal's account
  kOwnLogGroup,      // the log group of the principal's function, and its streams
  kAccountBucket,    // a bucket, all of which are the account's, or an object in one
};

struct Rule {
  std::string_view action;
  Scope scope;
};

// All that code inside an environment may do. Services add their data actions here; management actions never.
constexpr std::array kFunctionRoleRules = {
    Rule{"lambda:InvokeFunction", Scope::kAccountFunction},
    Rule{"lambda:InvokeFunctionUrl", Scope::kAccountFunction},
    Rule{"sts:GetCallerIdentity", Scope::kAnything},
    Rule{"logs:CreateLogGroup", Scope::kOwnLogGroup},
    Rule{"logs:CreateLogStream", Scope::kOwnLogGroup},
    Rule{"logs:PutLogEvents", Scope::kOwnLogGroup},
    Rule{"logs:DescribeLogStreams", Scope::kOwnLogGroup},
    Rule{"logs:GetLogEvents", Scope::kOwnLogGroup},
    Rule{"logs:FilterLogEvents", Scope::kOwnLogGroup},
    Rule{"s3:GetObject", Scope::kAccountBucket},
    Rule{"s3:PutObject", Scope::kAccountBucket},
    Rule{"s3:DeleteObject", Scope::kAccountBucket},
    Rule{"s3:ListBucket", Scope::kAccountBucket},
    Rule{"s3:ListBucketVersions", Scope::kAccountBucket},
    Rule{"s3:GetBucketLocation", Scope::kAccountBucket},
    Rule{"s3:GetObjectAcl", Scope::kAccountBucket},
    Rule{"s3:GetObjectTagging", Scope::kAccountBucket},
    Rule{"s3:PutObjectTagging", Scope::kAccountBucket},
    Rule{"s3:DeleteObjectTagging", Scope::kAccountBucket},
    Rule{"s3:AbortMultipartUpload", Scope::kAccountBucket},
    Rule{"s3:ListMultipartUploadParts", Scope::kAccountBucket},
    Rule{"s3:ListBucketMultipartUploads", Scope::kAccountBucket},
};

// "arn:aws:SERVICE:REGION:ACCOUNT:REST", as far as a decision needs it.
struct Arn {
  std::string_view service, account, rest;
};

std::optional<Arn> parse_arn(std::string_view text) {
  std::array<std::string_view, 5> head;
  for (std::string_view& part : head) {
    const std::size_t colon = text.find(':');
    if (colon == std::string_view::npos) return std::nullopt;
    part = text.substr(0, colon);
    text.remove_prefix(colon + 1);
  }
  if (head[0] != "arn") return std::nullopt;
  return Arn{.service = head[2], .account = head[4], .rest = text};
}

bool covers(Scope scope, const Principal& principal, std::string_view resource) {
  if (scope == Scope::kAnything) return true;
  const auto arn = parse_arn(resource);
  if (scope == Scope::kAccountBucket) return arn && arn->service == "s3" && arn->account.empty() && !arn->rest.empty();
  if (!arn || arn->account != principal.account) return false;
  if (scope == Scope::kAccountFunction) return arn->service == "lambda" && arn->rest.starts_with("function:");
  const std::string own = "log-group:" + principal.log_group;
  if (arn->service != "logs" || principal.log_group.empty() || !arn->rest.starts_with(own)) return false;
  return arn->rest.size() == own.size() || arn->rest[own.size()] == ':';
}

Error denied(const Principal& principal, std::string_view action, std::string_view resource) {
  return Error(ErrorCode::kPermissionDenied,
               "User: " + principal.arn + " is not authorized to perform: " + std::string(action) + " on resource: " +
                   std::string(resource) + " because no identity-based policy allows the " + std::string(action) + " action",
               "AccessDeniedException");
}

bool is_session_name(std::string_view text) {
  return text.size() >= 1 && text.size() <= 64 && std::ranges::all_of(text, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || std::string_view("_+=,.@-").contains(c);
         });
}

}  // namespace

Result<void> authorise(const Principal& principal, std::string_view action, std::string_view resource) {
  if (principal.kind == PrincipalKind::kAccount) return {};
  // A session that could make sessions would never end.
  if (principal.kind == PrincipalKind::kSession && action != "sts:AssumeRole" && action != "sts:GetSessionToken") return {};
  if (principal.kind == PrincipalKind::kSession) return denied(principal, action, resource);
  for (const Rule& rule : kFunctionRoleRules) {
    if (rule.action == action && covers(rule.scope, principal, resource)) return {};
  }
  return denied(principal, action, resource);
}

Result<std::string> assumed_role_arn(std::string_view role_arn, std::string_view session) {
  const auto arn = parse_arn(role_arn);
  if (!arn || arn->service != "iam" || arn->account.size() != 12 || !arn->rest.starts_with("role/") || arn->rest.ends_with('/')) {
    return Error(ErrorCode::kInvalidArgument,
                 "\"" + std::string(role_arn) + "\" is not a role's ARN, such as arn:aws:iam::000000000000:role/name",
                 "InvalidParameterValueException");
  }
  if (!is_session_name(session)) {
    return Error(ErrorCode::kInvalidArgument, "\"" + std::string(session) + "\" is not a session name: 1 to 64 letters, digits and _+=,.@-",
                 "InvalidParameterValueException");
  }
  return "arn:aws:sts::" + std::string(arn->account) + ":assumed-role/" + std::string(arn->rest.substr(arn->rest.rfind('/') + 1)) + "/" +
         std::string(session);
}

}  // namespace mayfly::access
