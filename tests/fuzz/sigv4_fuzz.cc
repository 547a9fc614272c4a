// Signature Version 4 on hostile requests: a head (method, target, fields) and a body, parsed, verified, unwrapped.
// Input: "METHOD TARGET\nName:value\n...\n\nBODY". Invariants beyond not crashing: nothing verifies with a secret it was not signed
// with; what is signed here verifies here, whatever the head looked like.
#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <optional>

#include "base/assert.h"
#include "net/sigv4.h"

namespace {

using namespace mayfly;

constexpr const char* kSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
constexpr const char* kOtherSecret = "another-secret-that-signed-nothing-in-the-corpus";

std::string_view take_line(std::string_view& text) {
  const std::size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

net::RequestHead read_head(std::string_view& text) {
  net::RequestHead head;
  const std::string_view first = take_line(text);
  const std::size_t space = std::min(first.find(' '), first.size());
  head.method = first.substr(0, space);
  head.target = first.substr(std::min(space + 1, first.size()));
  while (!text.empty()) {
    const std::string_view line = take_line(text);
    if (line.empty()) break;
    const std::size_t colon = std::min(line.find(':'), line.size());
    head.headers.add(std::string(line.substr(0, colon)), std::string(line.substr(std::min(colon + 1, line.size()))));
  }
  return head;
}

void check_as_received(const net::RequestHead& head, std::string_view body) {
  auto claim = net::parse_claim(head);
  if (!claim.ok()) return;
  if (claim->payload_hash.empty()) claim->payload_hash = net::payload_hash(body);
  (void)net::check_scope(*claim, {.region = "us-east-1", .service = "lambda"});
  (void)net::verify_claim(*claim, head, kSecret, claim->time);  // the corpus is signed with it
  MAYFLY_ASSERT(!net::verify_claim(*claim, head, kOtherSecret, claim->time).ok(), "a forged signature verified");
  (void)net::check_payload(*claim, body);
  claim->payload_hash = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
  const auto loose = net::decode_aws_chunked(*claim, body, kSecret, std::nullopt);
  MAYFLY_ASSERT(!loose.ok() || loose->size() <= body.size(), "unwrapping made bytes");
  for (const char* hash : {"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"}) {
    claim->payload_hash = hash;
    (void)net::decode_aws_chunked(*claim, body, kSecret, std::nullopt);
    MAYFLY_ASSERT(!net::decode_aws_chunked(*claim, body, kOtherSecret, std::nullopt).ok(), "a forged chunk verified");
  }
}

void check_round_trip(net::RequestHead head, std::string_view body) {
  const auto now = base::parse_amz_date("20150830T123600Z").value();
  head.headers.set("Host", "localhost");
  head.headers.remove("Date");
  if (!net::parse_query(head.query()).ok()) return;
  if (net::query_parameter(head.query(), "X-Amz-Signature") || net::query_parameter(head.query(), "X-Amz-Algorithm") ||
      net::query_parameter(head.query(), "X-Amz-Credential"))
    return;
  for (const auto& field : head.headers.fields()) {
    const bool token = !field.name.empty() &&
                       std::ranges::all_of(field.name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-'; });
    if (!token) return;  // the guard lets no such head through
  }
  net::sign_request(head, body, {.access_key = "AKIDEXAMPLE", .secret_key = kSecret, .session_token = ""},
                    {.region = "us-east-1", .service = "lambda"}, now);
  const auto claim = net::parse_claim(head);
  if (!claim.ok()) std::abort();
  MAYFLY_ASSERT(net::verify_claim(*claim, head, kSecret, now).ok(), "our own signature failed");
  MAYFLY_ASSERT(net::check_payload(*claim, body).ok(), "our own payload hash failed");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  const net::RequestHead head = read_head(text);
  check_as_received(head, text);
  check_round_trip(head, text);
  return 0;
}
