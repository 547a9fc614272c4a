// Errors as S3 answers them.
#pragma once

#include <string>

#include "base/result.h"
#include "net/http.h"

namespace mayfly::api::s3 {

// `region` goes into errors about a wrong one, which SDKs read to find the right one.
struct ErrorContext {
  std::string request_id, resource, region;
};
[[nodiscard]] net::Response error_answer(const base::Error& error, const ErrorContext& context);
[[nodiscard]] base::Error s3_error(base::ErrorCode code, std::string id, std::string message);
[[nodiscard]] base::Error invalid_argument(std::string message);
[[nodiscard]] base::Error invalid_request(std::string message);
// What Mayfly does not do: NotImplemented, naming it.
[[nodiscard]] base::Error not_implemented(const std::string& what);

}  // namespace mayfly::api::s3
