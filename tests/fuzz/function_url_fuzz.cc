// What strangers and functions send through a function URL: requests that become events, answers, preludes of streams; and the
// policies that decide. Checks what must hold for all of them, not only that nothing crashes. The first byte chooses the parser.
#include <boost/json.hpp>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "access/policy.h"
#include "base/json.h"
#include "gateway/internal/cors.h"
#include "gateway/internal/url_address.h"
#include "gateway/internal/url_answer.h"
#include "gateway/internal/url_event.h"

namespace {

using namespace mayfly;

void must(bool holds) {
  if (!holds) std::abort();
}

// Nothing in them may end a field.
void check_response(const net::Response& response) {
  must(response.status >= 200 && response.status <= 599);
  for (const auto& [name, value] : response.headers.fields()) {
    must(!name.empty() && name.find_first_of(std::string_view("\r\n\0: ", 5)) == std::string::npos);
    must(value.find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos);
  }
}

void check_answer(std::string_view bytes) {
  const auto answer = gateway::read_answer(std::string(bytes));
  if (!answer.ok()) return must(answer.error().code() == base::ErrorCode::kFunctionFailed);
  check_response(*answer);
  must(answer->headers.contains("Content-Type"));
}

// The same however it is cut.
void check_prelude(std::string_view bytes) {
  gateway::PreludeReader whole, cut;
  std::string rest;
  const auto at_once = whole.feed(bytes, rest);
  if (at_once.ok() && *at_once) check_response(whole.response());
  std::string cut_rest;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto fed = cut.feed(bytes.substr(i, 1), cut_rest);
    if (!fed.ok()) return must(!at_once.ok());
    if (!*fed) continue;
    must(at_once.ok() && *at_once && cut_rest.empty() && rest == bytes.substr(i + 1));
    must(cut.response().status == whole.response().status &&
         cut.response().headers.fields().size() == whole.response().headers.fields().size());
    return;
  }
  must(at_once.ok() && !*at_once);
}

// Target, a line break, Cookie and content type, a line break, body.
void check_event(std::string_view bytes) {
  net::RequestHead head{.method = "POST", .target = "/lambda-url/abc/", .headers = {}};
  const std::size_t first = bytes.find('\n');
  head.target += bytes.substr(0, first);
  head.headers.add("Host", "localhost");
  std::string body;
  if (first != std::string_view::npos) {
    const std::string_view left = bytes.substr(first + 1);
    const std::size_t second = left.find('\n');
    head.headers.add("Cookie", std::string(left.substr(0, second)));
    head.headers.add("Content-Type", std::string(left.substr(0, second)));
    if (second != std::string_view::npos) body = left.substr(second + 1);
  }
  const auto address = gateway::find_url_address(head, {.region = "us-east-1", .domain = "localhost"});
  if (!address) {  // only a segment of dots is refused, in any spelling
    const std::string path = net::to_lower(head.path());
    return must(path.find("/.") != std::string::npos || path.find("/%2e") != std::string::npos);
  }
  must(address->id == "abc" && address->path.starts_with('/'));
  const std::string event = gateway::url_event(
      {.head = head, .address = *address, .body = std::move(body), .peer = "::1", .request_id = "r", .trace_id = "Root=1"});
  must(base::check_json(event, {.depth_max = 8, .bytes_max = event.size()}).ok());
}

void check_policy(std::string_view bytes) {
  const access::PolicyRequest request{.account = {},
                                      .principal_arn = {},
                                      .role_arn = {},
                                      .service = {},
                                      .action = "lambda:InvokeFunctionUrl",
                                      .resource = "arn:aws:lambda:us-east-1:0:function:f",
                                      .context = {{"k", "v"}}};
  const std::string_view statements[] = {bytes};
  const auto decision = access::evaluate(statements, request);
  if (!base::parse_json(bytes).ok()) must(decision == access::PolicyDecision::kDeny);
  (void)gateway::Cors::parse(bytes);
  const std::size_t cut = bytes.find('\n');
  if (cut != std::string_view::npos) (void)access::matches_wildcard(bytes.substr(0, cut), bytes.substr(cut + 1));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      check_answer(bytes);
      break;
    case 1:
      check_prelude(bytes);
      break;
    case 2:
      check_event(bytes);
      break;
    default:
      check_policy(bytes);
      break;
  }
  return 0;
}
