// The query protocol of IAM and STS: a form comes in, XML goes out.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "net/http.h"

namespace mayfly::api {

// The parameters of a request, from its query string and its form. Of a name that comes twice the first counts.
class Form {
 public:
  // MalformedQueryString when either cannot be decoded or a value is not UTF-8.
  [[nodiscard]] static base::Result<Form> parse(const net::RequestHead& head, std::string_view body);

  // Null when it is not there.
  [[nodiscard]] const std::string* find(const std::string& name) const;
  // How many members the list `name` has: "NAME.member.1...", "NAME.member.2..." and so on without a gap.
  [[nodiscard]] std::size_t count(const std::string& name) const;

 private:
  std::map<std::string, std::string> parameters_;
};

// What is wrong with one parameter: lengths and values are gathered and named together, as AWS does.
struct TextRule {
  std::size_t min = 1, max = 0;                     // characters; no maximum: 0
  std::function<bool(std::string_view)> fits = {};  // empty: any text
  std::string_view explained = {};            // what AWS says where it does not fit, after "The specified value for NAME is invalid. "
  std::string_view pattern = {};              // or the pattern it names instead
  std::vector<std::string_view> values = {};  // the only ones, if there are any
};

// Reads the members of a request and remembers what is wrong with them. Values are meaningless until check() succeeded.
class Members {
 public:
  explicit Members(const Form& form) : form_(form) {}

  std::string required(const std::string& name, const TextRule& rule);
  std::optional<std::string> optional(const std::string& name, const TextRule& rule);
  std::optional<std::int64_t> number(const std::string& name, std::int64_t min, std::int64_t max);
  bool flag(const std::string& name);  // false when it is not there
  // The texts of a list, at most `max` of them.
  std::vector<std::string> list(const std::string& name, std::size_t max, const TextRule& rule);
  // ValidationError with all that was found.
  [[nodiscard]] base::Result<void> check() const;

 private:
  std::string checked(const std::string& name, const std::string& value, const TextRule& rule);
  void fault(const std::string& name, std::optional<std::string_view> value, const std::string& constraint);

  const Form& form_;
  std::vector<std::string> faults_;
  std::string plain_fault_;  // the first that AWS words otherwise
};

// Writes elements one after another; values are escaped.
class Xml {
 public:
  Xml& text(std::string_view name, std::string_view value);
  Xml& number(std::string_view name, std::int64_t value) { return text(name, std::to_string(value)); }
  Xml& flag(std::string_view name, bool value) { return text(name, value ? "true" : "false"); }
  // An element around what `inside` writes.
  Xml& element(std::string_view name, const std::function<void()>& inside);
  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

// <ACTIONResponse xmlns="..."><ACTIONResult>RESULT</ACTIONResult><ResponseMetadata>...; without a result element where there is none.
struct QueryAnswer {
  std::string action, xml_namespace;
  std::optional<std::string> result;
};
[[nodiscard]] net::Response query_answer(const QueryAnswer& answer, const std::string& request_id);

}  // namespace mayfly::api
