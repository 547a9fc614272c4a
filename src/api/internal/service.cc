#include "api/internal/service.h"

#include <algorithm>
#include <array>

#include "net/sigv4.h"

namespace mayfly::api {
namespace {

constexpr std::size_t kNameMax = 32;

bool is_name_character(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_'; }

// Names come from outside and end up in metrics and errors.
std::string bounded(std::string name) {
  name = net::to_lower(name);
  std::erase_if(name, [](char c) { return !is_name_character(c); });
  if (name.size() > kNameMax) name.resize(kNameMax);
  return name;
}

bool is_form(const net::RequestHead& head) { return head.headers.get("Content-Type").starts_with("application/x-www-form-urlencoded"); }

std::string service_of_target(std::string_view target) {
  if (target.starts_with("Logs_20140328")) return "logs";
  if (target.starts_with("AWSSecurityTokenService")) return "sts";
  return bounded(std::string(target.substr(0, target.find('.'))));
}

// "/2015-03-31/functions": every path of Lambda starts with a date.
bool has_dated_path(std::string_view path) {
  if (path.size() < 12 || path[0] != '/' || path[11] != '/') return false;
  constexpr std::string_view kForm = "dddd-dd-dd";
  for (std::size_t i = 0; i < kForm.size(); ++i) {
    const char c = path[i + 1];
    if (kForm[i] == 'd' ? (c < '0' || c > '9') : c != '-') return false;
  }
  return true;
}

// Requests whose signature cannot be read, but which are S3's all the same: their clients understand its errors only.
bool looks_like_s3(const net::RequestHead& head) {
  const std::string_view authorization = head.headers.get("Authorization");
  if (authorization.contains("/s3/aws4_request") || authorization.starts_with("AWS ")) return true;
  const std::string_view query = head.query();
  if (query.contains("%2Fs3%2Faws4_request") || query.contains("/s3/aws4_request") || query.contains("AWSAccessKeyId=")) return true;
  const std::string host = net::to_lower(head.headers.get("Host"));
  return host.starts_with("s3.") || !net::s3_bucket_of_host(host).empty();
}

std::string guess_name(const net::RequestHead& head, std::string_view target, const std::string& scope_service) {
  if (const std::string scope = bounded(scope_service); !scope.empty()) return scope;
  if (!target.empty()) return service_of_target(target);
  if (has_dated_path(head.path())) return "lambda";
  if (looks_like_s3(head)) return "s3";
  if (is_form(head) || net::query_parameter(head.query(), "Action")) return "sts";
  return "lambda";
}

Protocol protocol_of(const net::RequestHead& head, const std::string& name, std::string_view target) {
  if (!target.empty()) return Protocol::kAwsJson;
  if (name == "logs") return Protocol::kAwsJson;
  if (name == "s3") return Protocol::kRestXml;
  if (name == "sts" || name == "iam" || is_form(head)) return Protocol::kQuery;
  return Protocol::kRestJson;
}

bool is_operator_page(const net::RequestHead& head) {
  constexpr std::array<std::string_view, 3> kPages = {"/healthz", "/readyz", "/metrics"};
  return head.method == "GET" && std::find(kPages.begin(), kPages.end(), head.path()) != kPages.end();
}

}  // namespace

Service find_service(const net::RequestHead& head, const std::string& scope_service) {
  // A signed request for S3 may name any bucket, also one called "metrics".
  const bool s3 = scope_service == "s3";
  if (!s3 && is_operator_page(head))
    return {.kind = ServiceKind::kOperator, .name = "operator", .operation = {}, .protocol = Protocol::kRestJson};
  if (!s3 && head.path().starts_with("/mayfly/code/"))
    return {.kind = ServiceKind::kCode, .name = "code", .operation = {}, .protocol = Protocol::kRestXml};
  const std::string_view target = head.headers.get("X-Amz-Target");
  Service service;
  service.name = guess_name(head, target, scope_service);
  service.protocol = protocol_of(head, service.name, target);
  if (const std::size_t dot = target.rfind('.'); dot != std::string_view::npos) service.operation = std::string(target.substr(dot + 1, 64));
  if (service.name == "lambda") service.kind = ServiceKind::kLambda;
  if (service.name == "logs") service.kind = ServiceKind::kLogs;
  if (service.name == "mayfly") service.kind = ServiceKind::kMayfly;
  if (service.name == "sts") service.kind = ServiceKind::kSts;
  if (service.name == "iam") service.kind = ServiceKind::kIam;
  if (service.name == "s3") service.kind = ServiceKind::kS3;
  return service;
}

}  // namespace mayfly::api
