// Events that become requests of the HTTP contract, and answers that become the documents of format 2.0: whatever the bytes, the request's
// target and headers are ones that HTTP allows, and the answer is JSON.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/json.h"
#include "runtime/internal/http_event.h"

namespace {

using namespace mayfly;

void must(bool holds) {
  if (!holds) std::abort();
}

bool is_clean(std::string_view text, unsigned char least) {
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < least && byte != '\t') || byte == 0x7f) return false;
  }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const engine::FunctionVersion version;
  runtime::HttpContract contract;
  contract.base_path = "/api";
  contract.authorization_source = "x-a";
  const runtime::EventRequest made = runtime::request_of(bytes, contract,
                                                         {.version = version,
                                                          .request_id = "id",
                                                          .invoked_arn = bytes,
                                                          .trace_id = bytes,
                                                          .client_context = bytes,
                                                          .log_stream = "s",
                                                          .deadline_ms = 1});
  must(made.request.url.starts_with("http://127.0.0.1:8080/") && is_clean(made.request.url, 0x21));
  for (const auto& [name, value] : made.request.headers.fields()) must(!name.empty() && is_clean(name, 0x21) && is_clean(value, 0x20));
  must(made.request.headers.find_all("lambda-runtime-aws-request-id").size() == 1);
  net::Response response;
  response.headers.add("Content-Type", bytes);
  response.headers.add("X-A", bytes);
  response.headers.add("Set-Cookie", bytes);
  response.body = bytes;
  for (const auto shape : {runtime::EventShape::kFormat2, runtime::EventShape::kFormat1})
    must(base::check_json(runtime::answer_of(shape, response)).ok());
  const std::string prelude = runtime::prelude_of(response);
  must(base::check_json(std::string_view(prelude).substr(0, prelude.size() - 8)).ok());
  return 0;
}
