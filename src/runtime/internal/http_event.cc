#include "runtime/internal/http_event.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <optional>

#include "base/bytes.h"
#include "base/json.h"
#include "runtime/runtime_api.h"

namespace mayfly::runtime {
namespace {

namespace json = boost::json;

// Of one hop, or made anew here.
constexpr std::array<std::string_view, 10> kOfTheConnection = {"connection", "keep-alive",    "proxy-connection",  "te",
                                                               "trailer",    "upgrade",       "transfer-encoding", "content-length",
                                                               "expect",     "http2-settings"};
constexpr std::array<std::string_view, 5> kOfThePlatform = {"x-amzn-request-context", "x-amzn-lambda-context", "x-amzn-trace-id",
                                                            "lambda-runtime-aws-request-id", "lambda-runtime-deadline-ms"};

bool is_one_of(std::string_view name, const auto& names) {
  return std::ranges::any_of(names, [name](std::string_view each) { return net::equal_ignoring_case(each, name); });
}

bool is_token(std::string_view name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || std::string_view("!#$%&'*+-.^_`|~").contains(c);
  });
}

std::string_view text_of(const json::string& text) { return {text.data(), text.size()}; }

const json::object* object_in(const json::object& in, std::string_view name) {
  const json::value* value = in.if_contains(name);
  return value == nullptr ? nullptr : value->if_object();
}
std::string_view text_in(const json::object& in, std::string_view name) {
  const json::value* value = in.if_contains(name);
  const json::string* text = value == nullptr ? nullptr : value->if_string();
  return text == nullptr ? std::string_view() : text_of(*text);
}

// What a request target cannot hold is percent-encoded; what is encoded already stays.
std::string target_part(std::string_view text, std::string_view also) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    if (c > 0x20 && c < 0x7f && c != '#' && !also.contains(c)) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += {'%', kDigits[byte >> 4U], kDigits[byte & 15U]};
    }
  }
  return out;
}

std::string path_of(std::string_view raw, const HttpContract& contract) {
  std::string path = target_part(raw, "?");
  if (!path.starts_with('/')) path.insert(0, "/");
  const std::string& base = contract.base_path;
  if (!base.empty() && path.starts_with(base) && (path.size() == base.size() || path[base.size()] == '/')) path.erase(0, base.size());
  return path.empty() ? "/" : path;
}

void add_header(net::Headers& headers, std::string_view name, std::string_view value) {
  if (!is_token(name) || is_one_of(name, kOfTheConnection) || is_one_of(name, kOfThePlatform)) return;
  headers.add(std::string(name), header_safe(value));
}

void add_headers(const json::object& event, bool multiple, net::Headers& headers) {
  const json::object* lists = multiple ? object_in(event, "multiValueHeaders") : nullptr;
  if (lists != nullptr) {
    for (const auto& [name, values] : *lists) {
      const json::array* list = values.if_array();
      if (list == nullptr) continue;
      for (const json::value& value : *list) {
        if (const json::string* text = value.if_string()) add_header(headers, name, text_of(*text));
      }
    }
    return;
  }
  if (const json::object* single = object_in(event, "headers")) {
    for (const auto& [name, value] : *single) {
      if (const json::string* text = value.if_string()) add_header(headers, name, text_of(*text));
    }
  }
}

void add_cookies(const json::object& event, net::Headers& headers) {
  const json::value* cookies = event.if_contains("cookies");
  const json::array* list = cookies == nullptr ? nullptr : cookies->if_array();
  if (list == nullptr || list->empty()) return;
  std::string all;
  for (const json::value& cookie : *list) {
    if (const json::string* text = cookie.if_string()) all.append(all.empty() ? "" : "; ").append(text_of(*text));
  }
  headers.remove("cookie");
  if (!all.empty()) headers.add("Cookie", header_safe(all));
}

// The decoded parameters of format 1.0 as a query again. A load balancer does not decode them.
std::string query_of(const json::object& event, bool decoded) {
  std::string query;
  const auto add = [&](std::string_view name, const json::value& value) {
    const json::string* text = value.if_string();
    if (text == nullptr) return;
    const auto part = [decoded](std::string_view of) { return decoded ? base::percent_encode(of) : target_part(of, ""); };
    query.append(query.empty() ? "" : "&").append(part(name)).append("=").append(part(text_of(*text)));
  };
  if (const json::object* lists = object_in(event, "multiValueQueryStringParameters")) {
    for (const auto& [name, values] : *lists) {
      if (const json::array* list = values.if_array()) {
        for (const json::value& value : *list) add(name, value);
      }
    }
  } else if (const json::object* single = object_in(event, "queryStringParameters")) {
    for (const auto& [name, value] : *single) add(name, value);
  }
  return query;
}

bool take_body(json::object& event, std::string& body) {
  json::value* value = event.if_contains("body");
  json::string* text = value == nullptr ? nullptr : value->if_string();
  if (text == nullptr) return true;
  const json::value* encoded = event.if_contains("isBase64Encoded");
  if (encoded == nullptr || !encoded->is_bool() || !encoded->get_bool()) {
    body.assign(text->data(), text->size());
    return true;
  }
  auto decoded = base::base64_decode(text_of(*text));
  if (!decoded.ok()) return false;
  body = *std::move(decoded);
  return true;
}

// False when `event` is no HTTP request.
bool read_request(json::object& event, const HttpContract& contract, EventRequest& read, std::string& target) {
  const json::object* context = object_in(event, "requestContext");
  if (context == nullptr) return false;
  const json::object* http = object_in(*context, "http");
  net::ClientRequest& request = read.request;
  if (http != nullptr && text_in(event, "version") == "2.0") {
    read.shape = EventShape::kFormat2;
    request.method = text_in(*http, "method");
    target = path_of(text_in(event, "rawPath"), contract);
    if (const std::string query = target_part(text_in(event, "rawQueryString"), ""); !query.empty()) target += "?" + query;
  } else if (event.contains("httpMethod")) {
    read.shape = EventShape::kFormat1;
    request.method = text_in(event, "httpMethod");
    target = path_of(text_in(event, "path"), contract);
    if (const std::string query = query_of(event, !context->contains("elb")); !query.empty()) target += "?" + query;
  } else {
    return false;
  }
  if (!is_token(request.method) || !take_body(event, request.body)) return false;
  add_headers(event, read.shape == EventShape::kFormat1, request.headers);
  add_cookies(event, request.headers);
  request.headers.add("X-Amzn-Request-Context", header_safe(json::serialize(*context)));
  return true;
}

std::string lambda_context(const InvocationFacts& facts) {
  const engine::FunctionConfig& config = facts.version.config;
  const auto text = [](std::string_view value) { return json::string(base::valid_utf8(std::string(value))); };
  json::object context;
  context["request_id"] = text(facts.request_id);
  context["deadline"] = facts.deadline_ms;
  context["invoked_function_arn"] = text(facts.invoked_arn);
  context["xray_trace_id"] = text(facts.trace_id);
  json::value client;
  if (!facts.client_context.empty()) {
    if (auto parsed = base::parse_json(facts.client_context); parsed.ok()) client = *std::move(parsed);
  }
  context["client_context"] = std::move(client);
  context["identity"] = nullptr;
  context["env_config"] = {{"function_name", facts.version.function_name},
                           {"memory", config.memory_mb},
                           {"version", facts.version.version},
                           {"log_stream", text(facts.log_stream)},
                           {"log_group", config.log_group}};
  return json::serialize(context);
}

// By its type, as AWS's adapter has it; what claims to be text and is not goes as bytes.
bool is_text(const net::Response& response) {
  if (response.headers.contains("content-encoding")) return false;
  if (base::valid_utf8(response.body) != response.body) return false;
  const std::string type = net::to_lower(response.headers.get("content-type"));
  const std::string_view name = std::string_view(type).substr(0, type.find_first_of("; \t"));
  if (name.empty() || name.starts_with("text/") || name.ends_with("+json") || name.ends_with("+xml")) return true;
  return name == "application/json" || name == "application/javascript" || name == "application/xml" ||
         type.find("charset=utf-8") != std::string::npos;
}

std::string quoted(std::string_view text) { return base::json_quote(base::valid_utf8(std::string(text))); }

// ,"headers":{...},"cookies":[...]
std::string head_members(const net::Response& response) {
  std::vector<net::Headers::Field> joined;
  std::string cookies;
  for (const auto& [original, value] : response.headers.fields()) {
    const std::string name = net::to_lower(original);
    if (is_one_of(name, kOfTheConnection)) continue;
    if (name == "set-cookie") {
      cookies += (cookies.empty() ? "" : ",") + quoted(value);
      continue;
    }
    const auto known = std::ranges::find(joined, name, &net::Headers::Field::name);
    if (known == joined.end()) {
      joined.push_back({name, value});
    } else {
      known->value += "," + value;
    }
  }
  std::string headers;
  for (const auto& [name, value] : joined) headers += (headers.empty() ? "" : ",") + quoted(name) + ":" + quoted(value);
  return ",\"headers\":{" + headers + "},\"cookies\":[" + cookies + "]";
}

std::string multiple_headers(const net::Response& response) {
  std::vector<std::pair<std::string, std::string>> lists;
  for (const auto& [original, value] : response.headers.fields()) {
    const std::string name = net::to_lower(original);
    if (is_one_of(name, kOfTheConnection)) continue;
    const auto known = std::ranges::find(lists, name, &std::pair<std::string, std::string>::first);
    if (known == lists.end()) {
      lists.emplace_back(name, quoted(value));
    } else {
      known->second += "," + quoted(value);
    }
  }
  std::string members;
  for (const auto& [name, values] : lists) members += (members.empty() ? "" : ",") + quoted(name) + ":[" + values + "]";
  return ",\"multiValueHeaders\":{" + members + "}";
}

}  // namespace

EventRequest request_of(std::string payload, const HttpContract& contract, const InvocationFacts& facts) {
  EventRequest made;
  std::string target;
  auto parsed = base::parse_json(payload);
  json::object* event = parsed.ok() ? parsed->if_object() : nullptr;
  if (event == nullptr || !read_request(*event, contract, made, target)) {
    made = {};
    made.request.method = "POST";
    made.request.headers.add("Content-Type", "application/json");
    made.request.body = std::move(payload);
    target = contract.pass_through_path;
  }
  net::Headers& headers = made.request.headers;
  if (!contract.authorization_source.empty()) {
    if (const auto source = headers.find(contract.authorization_source)) headers.set("Authorization", std::string(*source));
  }
  headers.add("X-Amzn-Lambda-Context", header_safe(lambda_context(facts)));
  if (!facts.trace_id.empty()) headers.add("X-Amzn-Trace-Id", header_safe(facts.trace_id));
  headers.add("Lambda-Runtime-Aws-Request-Id", header_safe(facts.request_id));
  headers.add("Lambda-Runtime-Deadline-Ms", std::to_string(facts.deadline_ms));
  made.request.url = "http://127.0.0.1:" + std::to_string(contract.port) + target;
  return made;
}

std::string answer_of(EventShape shape, const net::Response& response) {
  if (shape == EventShape::kOther) return response.body;
  std::string text = "{\"statusCode\":" + std::to_string(response.status);
  text += shape == EventShape::kFormat2 ? head_members(response) : multiple_headers(response);
  const bool plain = is_text(response);
  text += ",\"body\":";
  text += plain ? base::json_quote(response.body) : "\"" + base::base64_encode(response.body) + "\"";
  text += plain ? ",\"isBase64Encoded\":false}" : ",\"isBase64Encoded\":true}";
  return text;
}

std::string prelude_of(const net::Response& response) {
  std::string text = "{\"statusCode\":" + std::to_string(response.status) + head_members(response) + "}";
  text.append(8, '\0');
  return text;
}

}  // namespace mayfly::runtime
