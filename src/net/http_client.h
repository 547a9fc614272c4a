// A blocking HTTP/1.1 client for the CLI, and the same as a coroutine for the server's outgoing calls. Plain HTTP only.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/time.h"
#include "net/http.h"
#include "net/task.h"

namespace mayfly::net {

struct ClientRequest {
  std::string method = "GET";
  std::string url;  // "http://host:port/path?query"
  Headers headers;  // Host and Content-Length are added
  std::string body;
  base::Duration timeout = std::chrono::seconds(60);
  std::uint64_t response_bytes_max = 256U << 20U;
  // For async_request: where the URL's host is (IPv4 addresses, tried in order), instead of looking the name up.
  std::vector<std::string> addresses;
  // For async_request, with `addresses`: an unconnected TCP socket to use, such as one of another network namespace. Lent: the caller keeps
  // it and one request uses it at a time; it is not connected afterwards.
  int socket = -1;
  // Called with the bytes sent and the total, for progress on uploads.
  std::function<void(std::uint64_t, std::uint64_t)> on_upload;
  // When set, body pieces go here as they arrive and Response::body stays empty.
  std::function<void(std::string_view)> on_body;
};

// kUnavailable when nothing listens (the message names the address) or the answer is broken off, kDeadlineExceeded,
// kTooLarge beyond response_bytes_max, kInvalidArgument for a bad URL or header, kUnsupported for https. An answer given
// before the body was sent whole (413) is returned as such. Trailers are read and dropped.
[[nodiscard]] base::Result<Response> blocking_request(const ClientRequest& request);
[[nodiscard]] Awaitable<base::Result<Response>> async_request(ClientRequest request);

}  // namespace mayfly::net
