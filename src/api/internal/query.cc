#include "api/internal/query.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <utility>

#include "api/internal/answer.h"
#include "base/json.h"

namespace mayfly::api {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::size_t kEchoBytesMax = 1024;  // of a refused value in an error text

// "RoleName" as error texts show it: "roleName".
std::string shown_name(std::string_view name) {
  std::string shown(name);
  if (!shown.empty()) shown[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(shown[0])));
  return shown;
}

std::size_t length_of(std::string_view text) {
  return static_cast<std::size_t>(std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

std::string enumeration(const std::vector<std::string_view>& values) {
  std::string text = "Member must satisfy enum value set: [";
  for (std::size_t i = 0; i < values.size(); ++i) text.append(i > 0 ? ", " : "").append(values[i]);
  return text + "]";
}

}  // namespace

Result<Form> Form::parse(const net::RequestHead& head, std::string_view body) {
  Form form;
  for (const std::string_view part : {head.query(), body}) {
    auto parameters = net::parse_query(part);
    if (!parameters.ok()) return Error(ErrorCode::kInvalidArgument, parameters.error().message(), "MalformedQueryString");
    for (auto& [name, value] : *parameters) {
      // What is stored must come back from a JSON document, what is answered must be XML.
      if (base::valid_utf8(value) != value)
        return Error(ErrorCode::kInvalidArgument, "The value of a parameter is not UTF-8.", "MalformedQueryString");
      form.parameters_.emplace(std::move(name), std::move(value));
    }
  }
  return form;
}

const std::string* Form::find(const std::string& name) const {
  const auto found = parameters_.find(name);
  return found == parameters_.end() ? nullptr : &found->second;
}

std::size_t Form::count(const std::string& name) const {
  for (std::size_t members = 0;; ++members) {
    const std::string next = name + ".member." + std::to_string(members + 1);
    const auto at = parameters_.lower_bound(next);
    const bool there = at != parameters_.end() && (at->first == next || at->first.starts_with(next + "."));
    if (!there) return members;
  }
}

void Members::fault(const std::string& name, std::optional<std::string_view> value, const std::string& constraint) {
  const std::string shown = value ? "'" + base::valid_utf8(std::string(value->substr(0, kEchoBytesMax))) + "'" : "null";
  faults_.push_back("Value " + shown + " at '" + shown_name(name) + "' failed to satisfy constraint: " + constraint);
}

std::string Members::checked(const std::string& name, const std::string& value, const TextRule& rule) {
  const std::size_t length = length_of(value);
  if (rule.max > 0 && length > rule.max) fault(name, value, "Member must have length less than or equal to " + std::to_string(rule.max));
  if (length < rule.min) fault(name, value, "Member must have length greater than or equal to " + std::to_string(rule.min));
  if (!rule.values.empty() && std::ranges::find(rule.values, value) == rule.values.end()) fault(name, value, enumeration(rule.values));
  if (length >= rule.min && rule.fits && !rule.fits(value)) {
    if (rule.explained.empty()) {
      fault(name, value, "Member must satisfy regular expression pattern: " + std::string(rule.pattern));
    } else if (plain_fault_.empty()) {
      plain_fault_ = "The specified value for " + shown_name(name) + " is invalid. " + std::string(rule.explained);
    }
  }
  return value;
}

std::string Members::required(const std::string& name, const TextRule& rule) {
  const std::string* value = form_.find(name);
  if (value != nullptr) return checked(name, *value, rule);
  fault(name, std::nullopt, "Member must not be null");
  return {};
}

std::optional<std::string> Members::optional(const std::string& name, const TextRule& rule) {
  const std::string* value = form_.find(name);
  if (value == nullptr) return std::nullopt;
  return checked(name, *value, rule);
}

std::optional<std::int64_t> Members::number(const std::string& name, std::int64_t min, std::int64_t max) {
  const std::string* text = form_.find(name);
  if (text == nullptr) return std::nullopt;
  std::int64_t value = 0;
  const auto [end, ec] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (ec != std::errc() || end != text->data() + text->size()) {
    fault(name, *text, "Member must be an integer");
  } else if (value > max) {
    fault(name, *text, "Member must have value less than or equal to " + std::to_string(max));
  } else if (value < min) {
    fault(name, *text, "Member must have value greater than or equal to " + std::to_string(min));
  }
  return value;
}

bool Members::flag(const std::string& name) {
  const std::string* text = form_.find(name);
  if (text == nullptr) return false;
  if (*text != "true" && *text != "false") fault(name, *text, "Member must be true or false");
  return *text == "true";
}

std::vector<std::string> Members::list(const std::string& name, std::size_t max, const TextRule& rule) {
  const std::size_t count = form_.count(name);
  if (count > max)
    fault(name, "[" + std::to_string(count) + " members]", "Member must have length less than or equal to " + std::to_string(max));
  std::vector<std::string> texts;
  for (std::size_t i = 1; i <= std::min(count, max); ++i) texts.push_back(required(name + ".member." + std::to_string(i), rule));
  return texts;
}

Result<void> Members::check() const {
  if (faults_.empty() && plain_fault_.empty()) return {};
  if (faults_.empty()) return Error(ErrorCode::kInvalidArgument, plain_fault_, "ValidationError");
  std::string text =
      std::to_string(faults_.size()) + (faults_.size() == 1 ? " validation error detected: " : " validation errors detected: ");
  for (std::size_t i = 0; i < faults_.size(); ++i) text.append(i > 0 ? "; " : "").append(faults_[i]);
  return Error(ErrorCode::kInvalidArgument, std::move(text), "ValidationError");
}

Xml& Xml::text(std::string_view name, std::string_view value) {
  out_.append("<").append(name).append(">").append(xml_escape(value)).append("</").append(name).append(">");
  return *this;
}

Xml& Xml::element(std::string_view name, const std::function<void()>& inside) {
  out_.append("<").append(name).append(">");
  inside();
  out_.append("</").append(name).append(">");
  return *this;
}

net::Response query_answer(const QueryAnswer& answer, const std::string& request_id) {
  std::string result;
  if (answer.result) result = "<" + answer.action + "Result>" + *answer.result + "</" + answer.action + "Result>";
  net::Response response;
  response.headers.add("Content-Type", "text/xml");
  response.body = "<" + answer.action + "Response xmlns=\"" + answer.xml_namespace + "\">" + result + "<ResponseMetadata><RequestId>" +
                  request_id + "</RequestId></ResponseMetadata></" + answer.action + "Response>\n";
  return response;
}

}  // namespace mayfly::api
