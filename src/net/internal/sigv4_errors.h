// The errors of Signature Version 4 as AWS types and words them, for S3 and for everything else.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "net/sigv4.h"

namespace mayfly::net::internal {

// The family decides types and wording: S3 has its own.
[[nodiscard]] base::Error signature_mismatch(std::string_view service, std::string_view detail = {});
[[nodiscard]] base::Error not_signed(std::string_view service, std::string_view header);
// `direction`: the request's time is too old or too new for `now`.
enum class Skew : bool { kPast, kFuture };
[[nodiscard]] base::Error outside_window(const SignatureClaim& claim, Skew direction, base::WallTime now, std::chrono::seconds window);
[[nodiscard]] base::Error wrong_scope(const SignatureClaim& claim, std::string message);
[[nodiscard]] base::Error malformed(const SignatureClaim& claim, std::string message);
[[nodiscard]] base::Error payload_mismatch(std::string_view service);

}  // namespace mayfly::net::internal
