#include "gateway/internal/cors.h"

#include <algorithm>
#include <boost/json.hpp>

#include "base/json.h"

namespace mayfly::gateway {
namespace {

namespace json = boost::json;

std::vector<std::string> list_of(const json::object& cors, std::string_view name) {
  std::vector<std::string> texts;
  const json::value* member = cors.if_contains(name);
  if (member == nullptr || !member->is_array()) return texts;
  for (const json::value& value : member->get_array()) {
    if (value.is_string()) texts.emplace_back(value.get_string().data(), value.get_string().size());
  }
  return texts;
}

bool contains(const std::vector<std::string>& list, std::string_view text) { return std::ranges::find(list, text) != list.end(); }

std::string joined(const std::vector<std::string>& list) {
  std::string all;
  for (const std::string& one : list) all += (all.empty() ? "" : ",") + one;
  return all;
}

bool allows_origin(const Cors& cors, std::string_view origin) {
  return !origin.empty() && (contains(cors.origins, "*") || contains(cors.origins, origin));
}

// "*" means every origin only for requests without credentials; otherwise the origin itself must be named.
void add_origin(const Cors& cors, std::string_view origin, net::Headers& headers) {
  const bool any = contains(cors.origins, "*") && !cors.credentials;
  headers.set("Access-Control-Allow-Origin", any ? "*" : std::string(origin));
  if (!any) headers.add("Vary", "Origin");
  if (cors.credentials) headers.set("Access-Control-Allow-Credentials", "true");
}

// The same holds for methods and headers: with credentials "*" is a name like any other, so what was asked for is named.
std::string allowed(const std::vector<std::string>& list, bool credentials, std::string_view asked) {
  return contains(list, "*") ? (credentials ? std::string(asked) : "*") : joined(list);
}

}  // namespace

Cors Cors::parse(std::string_view text) {
  Cors cors;
  if (text.empty()) return cors;
  const auto document = base::parse_json(text);
  const auto* object = document.ok() ? document->if_object() : nullptr;
  if (object == nullptr || object->empty()) return cors;
  cors.configured_ = true;
  cors.origins = list_of(*object, "AllowOrigins");
  cors.methods = list_of(*object, "AllowMethods");
  cors.request_headers = list_of(*object, "AllowHeaders");
  cors.exposed_headers = list_of(*object, "ExposeHeaders");
  if (const json::value* age = object->if_contains("MaxAge"); age != nullptr && age->is_int64()) cors.max_age = json::serialize(*age);
  const json::value* credentials = object->if_contains("AllowCredentials");
  cors.credentials = credentials != nullptr && credentials->is_bool() && credentials->get_bool();
  return cors;
}

bool is_preflight(const net::RequestHead& head) {
  return head.method == "OPTIONS" && head.headers.contains("Origin") && head.headers.contains("Access-Control-Request-Method");
}

net::Response answer_preflight(const Cors& cors, const net::RequestHead& head) {
  net::Response response;
  const std::string_view origin = head.headers.get("Origin");
  const std::string_view method = head.headers.get("Access-Control-Request-Method");
  if (!allows_origin(cors, origin) || !(contains(cors.methods, "*") || contains(cors.methods, method))) return response;
  add_origin(cors, origin, response.headers);
  response.headers.add("Access-Control-Allow-Methods", allowed(cors.methods, cors.credentials, method));
  const std::string headers = allowed(cors.request_headers, cors.credentials, head.headers.get("Access-Control-Request-Headers"));
  if (!headers.empty()) response.headers.add("Access-Control-Allow-Headers", headers);
  if (!cors.exposed_headers.empty()) response.headers.add("Access-Control-Expose-Headers", joined(cors.exposed_headers));
  if (!cors.max_age.empty()) response.headers.add("Access-Control-Max-Age", cors.max_age);
  return response;
}

void apply_cors(const Cors& cors, const net::RequestHead& head, net::Headers& answer) {
  const std::string_view origin = head.headers.get("Origin");
  if (!cors.configured() || !allows_origin(cors, origin)) return;
  for (const char* name : {"Access-Control-Allow-Credentials", "Access-Control-Expose-Headers"}) answer.remove(name);
  add_origin(cors, origin, answer);
  if (!cors.exposed_headers.empty()) answer.add("Access-Control-Expose-Headers", joined(cors.exposed_headers));
}

}  // namespace mayfly::gateway
