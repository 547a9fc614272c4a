// The older signature that presigned URLs of S3 carry ("AWSAccessKeyId=...&Signature=...&Expires=..."): boto3 still makes them for
// us-east-1. Nothing else of Signature Version 2 is taken.
// Source: Amazon S3 User Guide, "Signing and authenticating REST requests (AWS signature version 2)", query string authentication.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "net/sigv4.h"

namespace mayfly::net::internal {

[[nodiscard]] bool looks_presigned_v2(std::string_view query);
[[nodiscard]] base::Result<SignatureClaim> parse_presigned_v2(const RequestHead& head);
[[nodiscard]] base::Result<void> verify_presigned_v2(const SignatureClaim& claim, const RequestHead& head, const std::string& secret_key,
                                                     base::WallTime now);

}  // namespace mayfly::net::internal
