#include "api/internal/authenticate.h"

#include <charconv>

namespace mayfly::api {
namespace {

using base::Result;

// STS and IAM are signed for us-east-1 whatever the region where clients use their global endpoints.
Result<void> check_region(const net::SignatureClaim& claim, const engine::Account& account) {
  if ((claim.service == "sts" || claim.service == "iam") && claim.region == "us-east-1") return {};
  return net::check_scope(claim, {.region = account.region, .service = {}});
}

std::optional<std::uint64_t> decoded_length(const net::RequestHead& head) {
  const std::string_view text = head.headers.get("x-amz-decoded-content-length");
  std::uint64_t length = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), length);
  if (text.empty() || ec != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return length;
}

}  // namespace

Result<Caller> authenticate_head(const net::RequestHead& head, net::SignatureClaim claim, const AuthenticationScope& scope) {
  MAYFLY_TRY(check_region(claim, scope.account));
  MAYFLY_ASSIGN(access::CredentialPointer credential, scope.credentials.find(claim.access_key, claim.session_token, scope.now));
  Caller caller{.claim = std::move(claim), .credential = std::move(credential), .proven = false};
  if (caller.claim.payload_hash.empty()) return caller;
  MAYFLY_TRY(net::verify_claim(caller.claim, head, caller.credential->secret_key, scope.now));
  caller.proven = true;
  return caller;
}

Result<void> authenticate_body(Caller& caller, const net::RequestHead& head, std::string& body, base::WallTime now) {
  if (!caller.proven) {
    caller.claim.payload_hash = net::payload_hash(body);
    MAYFLY_TRY(net::verify_claim(caller.claim, head, caller.credential->secret_key, now));
    caller.proven = true;
    return {};
  }
  if (!net::is_streaming(caller.claim)) return net::check_payload(caller.claim, body);
  MAYFLY_ASSIGN(body, net::decode_aws_chunked(caller.claim, body, caller.credential->secret_key, decoded_length(head)));
  return {};
}

}  // namespace mayfly::api
