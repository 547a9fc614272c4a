// What a signed caller may still send broken: paths, JSON of operations, payloads, filter patterns, function names. Checks
// what must hold for all of them, not only that nothing crashes. The first byte chooses the parser.
#include <boost/json.hpp>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "api/lambda/functions.h"
#include "api/lambda/payload.h"
#include "api/lambda/resolve.h"
#include "api/lambda/validation.h"
#include "api/logs/filter_pattern.h"
#include "api/logs/logs.h"
#include "base/json.h"

namespace {

using namespace mayfly;

void must(bool holds) {
  if (!holds) std::abort();
}

void check_path(std::string_view bytes) {
  const net::RequestHead head{.method = "GET", .target = std::string(bytes), .headers = {}};
  const auto match = api::lambda::match_operation(head.method, head.path(), head.query());
  if (!match) return;
  must(match->operation->method == "GET");
  for (const auto& [name, value] : match->path_values) must(!value.empty());
  const auto input = api::lambda::read_input(*match, head, {});
  if (!input.ok()) must(!input.error().id().empty());
}

void check_body(std::string_view bytes) {
  const net::RequestHead head{.method = "POST", .target = "/2015-03-31/functions", .headers = {}};
  const auto match = api::lambda::match_operation(head.method, head.path(), head.query());
  const auto input = api::lambda::read_input(*match, head, bytes);
  if (!input.ok()) return must(!input.error().id().empty() && !input.error().message().empty());
  // What passed the validator has the types the operations rely on.
  must(input->at("FunctionName").is_string() && input->at("Role").is_string() && input->at("Code").is_object());
}

// With every escape of half a surrogate pair made an ordinary one.
std::string without_surrogate_escapes(std::string text) {
  for (std::size_t at = 0; at + 1 < text.size(); ++at) {
    if (text[at] != '\\') continue;
    ++at;
    if (text[at] == 'u' && at + 2 < text.size() && (text[at + 1] | 0x20) == 'd') text[at + 1] = '0';
  }
  return text;
}

// Refused by the checker exactly when the parser refuses, but for halves of surrogate pairs, which only Boost.JSON refuses.
void check_payload(std::string_view bytes) {
  const auto checked = api::lambda::check_payload_json(bytes);
  const base::JsonLimits limits{.depth_max = 1000, .bytes_max = bytes.size()};
  must(checked.ok() == base::check_json(without_surrogate_escapes(std::string(bytes)), limits).ok());
  if (!checked.ok()) must(checked.error().message().find("line: ") != std::string::npos);
  (void)api::lambda::decode_client_context(bytes);
}

void check_pattern(std::string_view bytes) {
  const std::size_t cut = bytes.find('\n');
  const auto pattern = api::logs::FilterPattern::parse(bytes.substr(0, cut));
  if (!pattern.ok()) return must(pattern.error().id() == "InvalidParameterException");
  (void)pattern->matches(cut == std::string_view::npos ? std::string_view{} : bytes.substr(cut + 1));
}

void check_name(std::string_view bytes) {
  const engine::Account account;
  const auto target = api::lambda::resolve_name(std::string(bytes), "", account, "lambda:GetFunction");
  if (target.ok()) must(!target->name.empty() && target->name.find(':') == std::string::npos);
  const auto link = api::lambda::parse_code_path(bytes);
  if (link) must(api::lambda::code_path(link->owner, link->code_id) == bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 6) {
    case 0: check_path(bytes); break;
    case 1: check_body(bytes); break;
    case 2: check_payload(bytes); break;
    case 3: check_pattern(bytes); break;
    case 4: check_name(bytes); break;
    default: (void)api::logs::read_input(bytes); break;
  }
  return 0;
}
