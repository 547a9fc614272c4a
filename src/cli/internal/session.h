// Session: where the server is, who we are to it, and signed calls.
#pragma once

#include <boost/json/fwd.hpp>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "net/http.h"
#include "net/sigv4.h"

namespace mayfly::cli {

struct Call {
  std::string service = "lambda";
  std::string method = "GET";
  std::string path = "/";                                  // already percent-encoded
  std::vector<std::pair<std::string, std::string>> query;  // not encoded
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::chrono::seconds timeout{60};
  std::function<void(std::uint64_t, std::uint64_t)> on_upload;  // bytes sent, total
};

class Session {
 public:
  // Explicit `endpoint` and `data` win over AWS_ENDPOINT_URL and MAYFLY_DATA, those over ./mayfly-data. Keys come from the
  // environment (AWS_ACCESS_KEY_ID ...) when the endpoint does, else from the data directory.
  [[nodiscard]] static base::Result<Session> open(const std::string& data, const std::string& endpoint);

  // The answer when its status is below 400; else the service's error as an Error (message and type as sent).
  [[nodiscard]] base::Result<net::Response> send(const Call& call) const;
  // The same with a JSON body in and out; an empty answer is an empty object.
  [[nodiscard]] base::Result<boost::json::value> send_json(const Call& call) const;
  // CloudWatch Logs and the other services that name their operation in X-Amz-Target.
  [[nodiscard]] base::Result<boost::json::value> send_target(const std::string& service, const std::string& target,
                                                             const boost::json::value& body) const;

  std::string endpoint;  // "http://127.0.0.1:9000"
  std::string gateway;   // "http://127.0.0.1:8080"; empty when unknown
  std::string region = "us-east-1";
  std::string account;  // empty when unknown
  net::SigningKey key;
};

// "/2015-03-31/functions/NAME" + suffix.
[[nodiscard]] std::string function_path(const std::string& name, const std::string& suffix = {});

}  // namespace mayfly::cli
