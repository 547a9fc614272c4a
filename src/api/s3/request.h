// What an S3 request asks for: operation, bucket and key from method, host, path and query.
// Source: Amazon S3 API Reference, "Virtual hosting of buckets" and the syntax of each operation.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "net/http.h"

namespace mayfly::services {
class Buckets;
}

namespace mayfly::api::s3 {

struct Call;

enum class Level : std::uint8_t { kService, kBucket, kObject };
// How an operation is run.
enum class Way : std::uint8_t {
  kRefused,  // Mayfly does not have it
  kSimple,   // on the pool, with its body in memory
  kReceive,  // a body of any size comes in
  kSend,     // one goes out
  kCopy,     // one goes from object to object
};

struct Operation {
  Level level;
  std::string_view method;
  std::string_view parameter;  // of the query, which must be there; empty: none need be
  bool copies;                 // only with x-amz-copy-source
  std::string_view name;
  std::string_view action;  // IAM's
  bool data;                // functions may do it through their own endpoint
  Way way;
  base::Result<net::Response> (*run)(const Call&);  // kSimple only
};

struct Request {
  const net::RequestHead* head = nullptr;
  const Operation* operation = nullptr;
  std::string bucket = {}, key = {};
  std::vector<std::pair<std::string, std::string>> parameters = {};

  // A parameter of the query.
  [[nodiscard]] std::optional<std::string> parameter(std::string_view name) const;
  // A header; x-amz-* ones also from the query, where presigned URLs carry them. "" without one.
  [[nodiscard]] std::string header(std::string_view name) const;
};

// `buckets` has the bucket of a simple operation, and `body` its document.
struct Call {
  services::Buckets& buckets;
  const Request& request;
  std::string_view body;
};

// InvalidURI when the path cannot be read; MethodNotAllowed when nothing answers that method there.
[[nodiscard]] base::Result<Request> read_request(const net::RequestHead& head);

// The ARN that a request is about, "*" for the service.
[[nodiscard]] std::string resource_of(const Request& request);

// "bucket/key?versionId=v" of x-amz-copy-source, percent-encoded or not, with or without a first slash.
struct CopySource {
  std::string bucket, key, version;
};
[[nodiscard]] base::Result<CopySource> read_copy_source(std::string_view text);

}  // namespace mayfly::api::s3
