#include "api/lambda/validation.h"

#include <re2/re2.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cctype>
#include <charconv>
#include <map>
#include <memory>

#include "base/json.h"
#include "base/mutex.h"

namespace mayfly::api::lambda {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::size_t kEchoBytesMax = 16U << 10U;  // of a refused value in an error text
constexpr std::size_t kNestingMax = 64;

Error serialization_error(const std::string& path, std::string_view found, std::string_view wanted) {
  std::string text = path;
  text.append(": ").append(found).append(" where ").append(wanted).append(" is expected");
  return Error(ErrorCode::kInvalidArgument, std::move(text), "SerializationException");
}

// The compiled form of a shape's pattern, made when first needed; null where RE2 cannot say it.
const re2::RE2* compiled(const Shape& shape) {
  static base::Mutex mutex;
  static auto& cache = *new std::map<const Shape*, std::unique_ptr<re2::RE2>>;  // never destroyed: threads may still ask at exit
  const base::MutexLock lock(mutex);
  std::unique_ptr<re2::RE2>& entry = cache[&shape];
  if (entry == nullptr) {
    const std::string_view text = shape.match.empty() ? shape.pattern : shape.match;
    re2::RE2::Options options;
    options.set_log_errors(false);
    options.set_max_mem(1U << 20U);
    entry = std::make_unique<re2::RE2>(re2::StringPiece(text.data(), text.size()), options);
  }
  return entry->ok() ? entry.get() : nullptr;
}

std::string_view kind_name(const json::value& value) {
  switch (value.kind()) {
    case json::kind::null:
      return "null";
    case json::kind::bool_:
      return "a boolean";
    case json::kind::int64:
    case json::kind::uint64:
    case json::kind::double_:
      return "a number";
    case json::kind::string:
      return "a string";
    case json::kind::array:
      return "a list";
    case json::kind::object:
      return "an object";
  }
  return "a value";
}

// "FunctionName" as error texts show it: "functionName".
std::string shown_name(std::string_view name) {
  std::string shown(name);
  if (!shown.empty()) shown[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(shown[0])));
  return shown;
}

// A value as error texts show it: text as it is, [a, b], {a=b}.
void show(const json::value& value, std::string& out) {
  if (out.size() > kEchoBytesMax) return;
  if (const auto* text = value.if_string()) {
    out.append(text->data(), std::min(text->size(), kEchoBytesMax));
  } else if (const auto* list = value.if_array()) {
    out += '[';
    for (std::size_t i = 0; i < list->size(); ++i) {
      if (i > 0) out += ", ";
      show((*list)[i], out);
    }
    out += ']';
  } else if (const auto* object = value.if_object()) {
    out += '{';
    bool first = true;
    for (const auto& member : *object) {
      if (!first) out += ", ";
      first = false;
      out.append(member.key().data(), member.key().size());
      out += '=';
      show(member.value(), out);
    }
    out += '}';
  } else if (value.is_double()) {  // as Java prints it: 8.5, 0.0
    char digits[32] = {};
    const auto [end, ec] = std::to_chars(digits, digits + sizeof digits, value.get_double());
    const std::string_view number(digits, static_cast<std::size_t>(end - digits));
    out.append(number).append(number.find_first_of(".en") == std::string_view::npos ? ".0" : "");
  } else {
    out += json::serialize(value);
  }
}

std::string enumeration(const Shape& shape) {
  std::string text = "Member must satisfy enum value set: [";
  for (std::size_t i = 0; i < shape.values.size(); ++i) {
    if (i > 0) text += ", ";
    text += shape.values[i];
  }
  return text + "]";
}

bool has_min(const Shape& shape) { return shape.min != std::numeric_limits<std::int64_t>::min(); }
bool has_max(const Shape& shape) { return shape.max != std::numeric_limits<std::int64_t>::max(); }
bool is_number(const Shape& shape) {
  return shape.type == ShapeType::kInteger || shape.type == ShapeType::kLong || shape.type == ShapeType::kDouble;
}

std::string bound_text(const Shape& shape, bool upper) {
  return std::string("Member must have ") + (is_number(shape) ? "value" : "length") +
         (upper ? " less than or equal to " : " greater than or equal to ") + std::to_string(upper ? shape.max : shape.min);
}

// Characters, not bytes: AWS counts UTF-16 units, which differ only outside the basic plane.
std::int64_t length_of(std::string_view text) {
  return static_cast<std::int64_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

// The constraints of a scalar or the length of a list, that `value` violates.
std::vector<std::string> violated(const Shape& shape, const json::value& value) {
  std::vector<std::string> texts;
  const auto bounds = [&](auto measure) {
    if (has_max(shape) && measure > static_cast<decltype(measure)>(shape.max)) texts.push_back(bound_text(shape, true));
    if (has_min(shape) && measure < static_cast<decltype(measure)>(shape.min)) texts.push_back(bound_text(shape, false));
  };
  if (const auto* text = value.if_string()) {
    const std::string_view view(text->data(), text->size());
    if (shape.type == ShapeType::kBlob) return texts;  // its length is known once it is decoded
    bounds(length_of(view));
    if (!shape.pattern.empty() && !matches(shape, view))
      texts.push_back("Member must satisfy regular expression pattern: " + std::string(shape.pattern));
    if (!shape.values.empty() && std::find(shape.values.begin(), shape.values.end(), view) == shape.values.end())
      texts.push_back(enumeration(shape));
  } else if (const auto* list = value.if_array()) {
    bounds(static_cast<std::int64_t>(list->size()));
  } else if (value.is_int64()) {
    bounds(value.get_int64());
  } else if (value.is_uint64()) {
    bounds(static_cast<double>(value.get_uint64()));
  } else if (value.is_double()) {
    bounds(value.get_double());
  }
  return texts;
}

// All constraints of an element, as the text for a list or map names them together.
std::string constraints_of(const Shape& shape) {
  std::vector<std::string> texts;
  if (has_max(shape)) texts.push_back(bound_text(shape, true));
  if (has_min(shape)) texts.push_back(bound_text(shape, false));
  if (!shape.pattern.empty()) texts.push_back("Member must satisfy regular expression pattern: " + std::string(shape.pattern));
  if (!shape.values.empty()) texts.push_back(enumeration(shape));
  texts.emplace_back("Member must not be null");
  std::string all = "[";
  for (std::size_t i = 0; i < texts.size(); ++i) all += (i > 0 ? ", " : "") + texts[i];
  return all + "]";
}

// Walks a value beside its shape. Type errors end the walk; violated constraints are gathered.
class Checker {
 public:
  Result<void> member(const Member& member, const json::value* value, const std::string& parent) {
    const std::string path = parent.empty() ? shown_name(member.name) : parent + "." + shown_name(member.name);
    if (value == nullptr || value->is_null()) {
      if (member.required) violations_.push_back("Value null at '" + path + "' failed to satisfy constraint: Member must not be null");
      return {};
    }
    return this->value(shape(member.shape), *value, path, 0);
  }

  Result<void> finish() {
    if (violations_.empty()) return {};
    std::string text =
        std::to_string(violations_.size()) + (violations_.size() == 1 ? " validation error detected: " : " validation errors detected: ");
    for (std::size_t i = 0; i < violations_.size(); ++i) text += (i > 0 ? "; " : "") + violations_[i];
    return Error(ErrorCode::kInvalidArgument, std::move(text), "ValidationException");
  }

 private:
  Result<void> value(const Shape& shape, const json::value& value, const std::string& path, std::size_t depth) {
    MAYFLY_TRY(check_type(shape, value, path));
    for (const std::string& text : violated(shape, value)) add(value, path, text);
    if (depth > kNestingMax) return serialization_error(path, "a value nested too deeply", "less");
    switch (shape.type) {
      case ShapeType::kStructure:
        return structure(shape, value.get_object(), path, depth);
      case ShapeType::kList:
        return list(shape, value, path, depth);
      case ShapeType::kMap:
        return map(shape, value, path, depth);
      default:
        return {};
    }
  }

  Result<void> structure(const Shape& shape, const json::object& object, const std::string& path, std::size_t depth) {
    for (const Member& each : shape.members) {
      const json::value* found = object.if_contains(json::string_view(each.wire.data(), each.wire.size()));
      const std::string inner = path + "." + shown_name(each.name);
      if (found != nullptr && !found->is_null()) {
        MAYFLY_TRY(value(lambda::shape(each.shape), *found, inner, depth + 1));
      } else if (each.required) {
        violations_.push_back("Value null at '" + inner + "' failed to satisfy constraint: Member must not be null");
      }
    }
    return {};
  }

  Result<void> list(const Shape& shape, const json::value& value, const std::string& path, std::size_t depth) {
    const Shape& element = lambda::shape(shape.element);
    bool said = false;
    std::size_t index = 0;
    for (const json::value& each : value.get_array()) {
      ++index;
      if (element.type == ShapeType::kStructure) {
        MAYFLY_TRY(this->value(element, each, path + "." + std::to_string(index) + ".member", depth + 1));
        continue;
      }
      if (!each.is_null()) MAYFLY_TRY(check_type(element, each, path));
      if (said || !(each.is_null() || !violated(element, each).empty())) continue;
      said = true;
      add(value, path, "Member must satisfy constraint: " + constraints_of(element));
    }
    return {};
  }

  Result<void> map(const Shape& shape, const json::value& value, const std::string& path, std::size_t depth) {
    const Shape& key = lambda::shape(shape.key);
    const Shape& element = lambda::shape(shape.element);
    bool bad_key = false;
    bool bad_value = false;
    for (const auto& member : value.get_object()) {
      if (element.type == ShapeType::kStructure) MAYFLY_TRY(this->value(element, member.value(), path, depth + 1));
      if (!member.value().is_null()) MAYFLY_TRY(check_type(element, member.value(), path));
      bad_key = bad_key || !violated(key, json::value(member.key())).empty();
      bad_value = bad_value || member.value().is_null() || !violated(element, member.value()).empty();
    }
    if (bad_key) add(value, path, "Map keys must satisfy constraint: " + constraints_of(key));
    if (bad_value) add(value, path, "Map value must satisfy constraint: " + constraints_of(element));
    return {};
  }

  static Result<void> check_type(const Shape& shape, const json::value& value, const std::string& path) {
    switch (shape.type) {
      case ShapeType::kString:
      case ShapeType::kBlob:
        return value.is_string() ? Result<void>() : serialization_error(path, kind_name(value), "a string");
      case ShapeType::kInteger:
      case ShapeType::kLong:
        if (value.is_int64() || value.is_uint64()) return {};
        return serialization_error(path, value.is_double() ? "a fraction" : kind_name(value), "a whole number");
      case ShapeType::kDouble:
      case ShapeType::kTimestamp:
        return value.is_number() ? Result<void>() : serialization_error(path, kind_name(value), "a number");
      case ShapeType::kBoolean:
        return value.is_bool() ? Result<void>() : serialization_error(path, kind_name(value), "a boolean");
      case ShapeType::kStructure:
      case ShapeType::kMap:
        return value.is_object() ? Result<void>() : serialization_error(path, kind_name(value), "an object");
      case ShapeType::kList:
        return value.is_array() ? Result<void>() : serialization_error(path, kind_name(value), "a list");
    }
    return {};
  }

  void add(const json::value& value, const std::string& path, const std::string& constraint) {
    std::string shown;
    show(value, shown);
    violations_.push_back("Value '" + shown + "' at '" + path + "' failed to satisfy constraint: " + constraint);
  }

  std::vector<std::string> violations_;
};

// A parameter of path, query or header as the JSON value its shape wants.
Result<json::value> from_text(const Shape& shape, const std::string& text, const std::string& path) {
  if (shape.type == ShapeType::kInteger || shape.type == ShapeType::kLong) {
    std::int64_t number = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (ec != std::errc() || end != text.data() + text.size()) return serialization_error(path, "'" + text + "'", "a whole number");
    return json::value(number);
  }
  if (shape.type == ShapeType::kBoolean) {
    if (text != "true" && text != "false") return serialization_error(path, "'" + text + "'", "true or false");
    return json::value(text == "true");
  }
  return json::value(json::string(text));
}

Result<json::object> read_body(const Operation& operation, std::string_view body) {
  const bool has_body =
      std::any_of(operation.members.begin(), operation.members.end(), [](const Member& each) { return each.in == Location::kBody; });
  if (!has_body || body.empty()) return json::object();
  auto parsed = base::parse_json(body, {.depth_max = kNestingMax, .bytes_max = body.size()});
  if (!parsed.ok())
    return Error(ErrorCode::kInvalidArgument, "Could not parse request body into json: " + parsed.error().message(),
                 "InvalidRequestContentException");
  if (!parsed->is_object()) {
    return Error(ErrorCode::kInvalidArgument,
                 "Could not parse request body into json: " + std::string(kind_name(*parsed)) + " where an object is expected",
                 "InvalidRequestContentException");
  }
  return std::move(parsed->get_object());
}

using QueryParameters = std::vector<std::pair<std::string, std::string>>;

// The values `wire` has in path, query or headers.
std::vector<std::string> texts_of(const Member& member, const Match& match, const QueryParameters& query, const net::RequestHead& head) {
  std::vector<std::string> texts;
  if (member.in == Location::kPath) {
    for (const auto& [wire, value] : match.path_values) {
      if (wire == member.wire) texts.push_back(value);
    }
  } else if (member.in == Location::kQuery) {
    for (const auto& [name, value] : query) {
      if (name == member.wire) texts.push_back(value);
    }
  } else if (member.in == Location::kHeader) {
    if (const auto value = head.headers.find(member.wire)) texts.emplace_back(*value);
  }
  return texts;
}

Result<std::optional<json::value>> gather(const Member& member, const Match& match, const QueryParameters& query,
                                          const net::RequestHead& head, json::object& body) {
  if (member.in == Location::kPayload) return std::optional<json::value>();
  if (member.in == Location::kBody) {
    json::value* found = body.if_contains(json::string_view(member.wire.data(), member.wire.size()));
    if (found == nullptr || found->is_null()) return std::optional<json::value>();
    return std::optional<json::value>(std::move(*found));
  }
  const std::vector<std::string> texts = texts_of(member, match, query, head);
  if (texts.empty()) return std::optional<json::value>();
  const Shape& wanted = shape(member.shape);
  if (wanted.type != ShapeType::kList) {
    MAYFLY_ASSIGN(json::value value, from_text(wanted, texts.front(), shown_name(member.name)));
    return std::optional<json::value>(std::move(value));
  }
  json::array list;
  for (const std::string& text : texts) list.emplace_back(json::string(text));
  return std::optional<json::value>(std::move(list));
}

}  // namespace

bool matches(const Shape& shape, std::string_view text) {
  const re2::RE2* pattern = compiled(shape);
  return pattern == nullptr || re2::RE2::FullMatch(re2::StringPiece(text.data(), text.size()), *pattern);
}

Result<json::object> read_input(const Match& match, const net::RequestHead& head, std::string_view body) {
  auto query = net::parse_query(head.query());
  if (!query.ok()) return Error(ErrorCode::kInvalidArgument, query.error().message(), "ValidationException");
  MAYFLY_ASSIGN(json::object members, read_body(*match.operation, body));
  json::object input;
  Checker checker;
  for (const Member& member : match.operation->members) {
    MAYFLY_ASSIGN(std::optional<json::value> value, gather(member, match, *query, head, members));
    MAYFLY_TRY(checker.member(member, value ? &*value : nullptr, ""));
    if (value) input.emplace(json::string_view(member.name.data(), member.name.size()), *std::move(value));
  }
  MAYFLY_TRY(checker.finish());
  return input;
}

}  // namespace mayfly::api::lambda
