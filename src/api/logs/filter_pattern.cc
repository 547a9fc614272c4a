#include "api/logs/filter_pattern.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cctype>
#include <charconv>
#include <optional>
#include <vector>

#include "base/json.h"

namespace mayfly::api::logs {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;

constexpr std::size_t kPatternBytesMax = 1024;  // AWS's
constexpr std::size_t kNestingMax = 32;

Error invalid(std::string message) { return Error(ErrorCode::kInvalidArgument, std::move(message), "InvalidParameterException"); }

// '*' stands for anything. Linear in practice: one star is remembered at a time.
bool matches_wildcard(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, restart = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      restart = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++restart;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace

enum class NodeKind : std::uint8_t { kTerms, kAnd, kOr, kCompare, kExists, kNotExists, kIsTrue, kIsFalse, kIsNull };
enum class Comparison : std::uint8_t { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual };

// One step of a selector: a member or an index.
struct Step {
  std::string name;
  std::optional<std::size_t> index;
};

struct FilterPattern::Node {
  NodeKind kind = NodeKind::kTerms;
  std::vector<std::string> all, any, none;            // kTerms
  std::vector<std::shared_ptr<const Node>> children;  // kAnd, kOr
  std::vector<Step> selector;                         // the rest
  Comparison comparison = Comparison::kEqual;
  std::string text;
  std::optional<double> number;
};

namespace {

using Node = FilterPattern::Node;
using NodePtr = std::shared_ptr<const Node>;

// --- Terms ---

bool is_term_character(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' || static_cast<unsigned char>(c) >= 0x80;
}

Result<std::string> read_phrase(std::string_view text, std::size_t& at) {
  std::string phrase;
  for (++at; at < text.size(); ++at) {
    if (text[at] == '\\' && at + 1 < text.size()) {
      phrase += text[++at];
    } else if (text[at] == '"') {
      ++at;
      return phrase;
    } else {
      phrase += text[at];
    }
  }
  return invalid("Invalid filter pattern: a quoted phrase is not closed");
}

Result<std::string> read_term(std::string_view text, std::size_t& at) {
  if (at < text.size() && text[at] == '"') return read_phrase(text, at);
  const std::size_t first = at;
  while (at < text.size() && text[at] != ' ' && text[at] != '\t') ++at;
  std::string term(text.substr(first, at - first));
  if (term.empty()) return invalid("Invalid filter pattern: a term is missing");
  if (!std::all_of(term.begin(), term.end(), is_term_character))
    return invalid("Invalid character(s) in term '" + term + "'; put it in double quotes");
  return term;
}

Result<NodePtr> parse_terms(std::string_view text) {
  auto node = std::make_shared<Node>();
  std::size_t at = 0;
  while (true) {
    while (at < text.size() && (text[at] == ' ' || text[at] == '\t')) ++at;
    if (at >= text.size()) return NodePtr(node);
    const char prefix = text[at] == '?' || text[at] == '-' ? text[at++] : ' ';
    MAYFLY_ASSIGN(std::string term, read_term(text, at));
    (prefix == '?' ? node->any : prefix == '-' ? node->none : node->all).push_back(std::move(term));
  }
}

// --- JSON ---

class JsonParser {
 public:
  explicit JsonParser(std::string_view text) : text_(text) {}

  Result<NodePtr> run() {
    MAYFLY_TRY(expect('{'));
    MAYFLY_ASSIGN(NodePtr node, any_of(0));
    MAYFLY_TRY(expect('}'));
    skip_space();
    if (at_ != text_.size()) return complain("nothing may follow the closing brace");
    return node;
  }

 private:
  Error complain(const std::string& what) const {
    return invalid("Invalid filter pattern at character " + std::to_string(at_ + 1) + ": " + what);
  }
  void skip_space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
  }
  Result<void> expect(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return complain(std::string("'") + c + "' is expected");
    ++at_;
    return {};
  }
  bool take(std::string_view token) {
    skip_space();
    if (!text_.substr(at_).starts_with(token)) return false;
    at_ += token.size();
    return true;
  }
  // A word, whatever its case, not followed by more of a word.
  bool take_word(std::string_view word) {
    skip_space();
    const std::string_view found = text_.substr(at_, word.size());
    const bool same = found.size() == word.size() && std::equal(found.begin(), found.end(), word.begin(), [](char a, char b) {
                        return std::toupper(static_cast<unsigned char>(a)) == b;
                      });
    const std::size_t end = at_ + word.size();
    if (!same || (end < text_.size() && std::isalnum(static_cast<unsigned char>(text_[end])) != 0)) return false;
    at_ = end;
    return true;
  }

  Result<NodePtr> join(NodeKind kind, std::string_view token, std::size_t depth, Result<NodePtr> (JsonParser::*part)(std::size_t)) {
    if (depth > kNestingMax) return complain("too many parentheses");
    std::vector<NodePtr> parts;
    do {
      MAYFLY_ASSIGN(NodePtr each, (this->*part)(depth));
      parts.push_back(std::move(each));
    } while (take(token));
    if (parts.size() == 1) return parts.front();
    auto node = std::make_shared<Node>();
    node->kind = kind;
    node->children = std::move(parts);
    return NodePtr(node);
  }
  Result<NodePtr> any_of(std::size_t depth) { return join(NodeKind::kOr, "||", depth, &JsonParser::all_of); }
  Result<NodePtr> all_of(std::size_t depth) { return join(NodeKind::kAnd, "&&", depth, &JsonParser::condition); }

  Result<NodePtr> condition(std::size_t depth) {
    if (take("(")) {
      MAYFLY_ASSIGN(NodePtr inner, any_of(depth + 1));
      MAYFLY_TRY(expect(')'));
      return inner;
    }
    auto node = std::make_shared<Node>();
    MAYFLY_ASSIGN(node->selector, selector());
    MAYFLY_TRY(predicate(*node));
    return NodePtr(node);
  }

  // $.a.b[0]["odd name"]
  Result<std::vector<Step>> selector() {
    MAYFLY_TRY(expect('$'));
    std::vector<Step> steps;
    while (at_ < text_.size() && (text_[at_] == '.' || text_[at_] == '[')) {
      if (text_[at_++] == '.') {
        MAYFLY_ASSIGN(std::string name, member_name());
        steps.push_back({.name = std::move(name), .index = std::nullopt});
      } else {
        MAYFLY_ASSIGN(Step step, bracket());
        steps.push_back(std::move(step));
      }
    }
    if (steps.empty()) return complain("a selector such as $.level is expected");
    return steps;
  }
  Result<std::string> member_name() {
    const std::size_t first = at_;
    while (at_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[at_])) != 0 || text_[at_] == '_' || text_[at_] == '-' || text_[at_] == '@'))
      ++at_;
    if (at_ == first) return complain("a member's name is expected");
    return std::string(text_.substr(first, at_ - first));
  }
  Result<Step> bracket() {
    Step step;
    if (at_ < text_.size() && text_[at_] == '"') {
      MAYFLY_ASSIGN(step.name, read_phrase(text_, at_));
    } else {
      std::size_t index = 0;
      const auto [end, ec] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), index);
      if (ec != std::errc()) return complain("an index is expected");
      at_ = static_cast<std::size_t>(end - text_.data());
      step.index = index;
    }
    MAYFLY_TRY(expect(']'));
    return step;
  }

  Result<void> predicate(Node& node) {
    if (take_word("IS")) {
      if (take_word("TRUE"))
        node.kind = NodeKind::kIsTrue;
      else if (take_word("FALSE"))
        node.kind = NodeKind::kIsFalse;
      else if (take_word("NULL"))
        node.kind = NodeKind::kIsNull;
      else
        return complain("TRUE, FALSE or NULL is expected");
      return {};
    }
    if (take_word("NOT")) {
      if (!take_word("EXISTS")) return complain("EXISTS is expected");
      node.kind = NodeKind::kNotExists;
      return {};
    }
    if (take_word("EXISTS")) {
      node.kind = NodeKind::kExists;
      return {};
    }
    node.kind = NodeKind::kCompare;
    MAYFLY_ASSIGN(node.comparison, comparison());
    return operand(node);
  }
  Result<Comparison> comparison() {
    if (take("!=")) return Comparison::kNotEqual;
    if (take("<=")) return Comparison::kLessEqual;
    if (take(">=")) return Comparison::kGreaterEqual;
    if (take("<")) return Comparison::kLess;
    if (take(">")) return Comparison::kGreater;
    if (take("=")) return Comparison::kEqual;
    return complain("a comparison is expected: = != < <= > >=, IS, EXISTS or NOT EXISTS");
  }
  Result<void> operand(Node& node) {
    skip_space();
    if (at_ < text_.size() && text_[at_] == '%')
      return complain("mayfly does not support regular expressions (%...%) yet; use * in a text");
    if (at_ < text_.size() && text_[at_] == '"') {
      MAYFLY_ASSIGN(node.text, read_phrase(text_, at_));
    } else {
      const std::size_t first = at_;
      while (at_ < text_.size() && std::string_view(" \t)}&|").find(text_[at_]) == std::string_view::npos) ++at_;
      node.text = text_.substr(first, at_ - first);
      if (node.text.empty()) return complain("a value is expected");
      double number = 0;
      const auto [end, ec] = std::from_chars(node.text.data(), node.text.data() + node.text.size(), number);
      if (ec == std::errc() && end == node.text.data() + node.text.size()) node.number = number;
    }
    const bool orders = node.comparison != Comparison::kEqual && node.comparison != Comparison::kNotEqual;
    if (orders && !node.number) return complain("< <= > >= compare with numbers only");
    return {};
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

const json::value* select(const json::value& document, const std::vector<Step>& steps) {
  const json::value* at = &document;
  for (const Step& step : steps) {
    if (step.index) {
      const auto* list = at->if_array();
      at = list == nullptr ? nullptr : list->if_contains(*step.index);
    } else {
      const auto* object = at->if_object();
      at = object == nullptr ? nullptr : object->if_contains(step.name);
    }
    if (at == nullptr) return nullptr;
  }
  return at;
}

bool compare_numbers(double left, Comparison comparison, double right) {
  switch (comparison) {
    case Comparison::kEqual: return left == right;
    case Comparison::kNotEqual: return left != right;
    case Comparison::kLess: return left < right;
    case Comparison::kLessEqual: return left <= right;
    case Comparison::kGreater: return left > right;
    case Comparison::kGreaterEqual: return left >= right;
  }
  return false;
}

bool compare(const Node& node, const json::value* found) {
  if (found == nullptr) return false;
  if (node.number && found->is_number()) return compare_numbers(found->to_number<double>(), node.comparison, *node.number);
  if (const auto* text = found->if_string()) {
    const bool same = matches_wildcard(node.text, {text->data(), text->size()});
    if (node.comparison == Comparison::kEqual) return same;
    if (node.comparison == Comparison::kNotEqual) return !same;
  }
  return false;
}

bool contains(std::string_view message, const std::string& term) { return message.find(term) != std::string_view::npos; }

bool matches_terms(const Node& node, std::string_view message) {
  const auto occurs = [message](const std::string& term) { return contains(message, term); };
  return std::all_of(node.all.begin(), node.all.end(), occurs) && std::none_of(node.none.begin(), node.none.end(), occurs) &&
         (node.any.empty() || std::any_of(node.any.begin(), node.any.end(), occurs));
}

bool evaluate(const Node& node, const json::value& document) {
  const auto each = [&document](const NodePtr& child) { return evaluate(*child, document); };
  switch (node.kind) {
    case NodeKind::kAnd: return std::all_of(node.children.begin(), node.children.end(), each);
    case NodeKind::kOr: return std::any_of(node.children.begin(), node.children.end(), each);
    case NodeKind::kTerms: return false;
    default: break;
  }
  const json::value* found = select(document, node.selector);
  switch (node.kind) {
    case NodeKind::kCompare: return compare(node, found);
    case NodeKind::kExists: return found != nullptr;
    case NodeKind::kNotExists: return found == nullptr;
    case NodeKind::kIsTrue: return found != nullptr && found->is_bool() && found->get_bool();
    case NodeKind::kIsFalse: return found != nullptr && found->is_bool() && !found->get_bool();
    case NodeKind::kIsNull: return found != nullptr && found->is_null();
    default: return false;
  }
}

}  // namespace

Result<FilterPattern> FilterPattern::parse(std::string_view text) {
  if (text.size() > kPatternBytesMax)
    return invalid("The filter pattern has " + std::to_string(text.size()) + " bytes; the limit is " + std::to_string(kPatternBytesMax));
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) text.remove_suffix(1);
  FilterPattern pattern;
  if (text.empty()) return pattern;
  if (text.front() == '[')
    return invalid("mayfly does not support filter patterns of columns ([...]) yet; use terms or { $.member = \"value\" }");
  if (text.front() == '%')
    return invalid("mayfly does not support regular expressions (%...%) in filter patterns yet; use terms or quoted phrases");
  if (text.front() == '{') {
    MAYFLY_ASSIGN(pattern.root_, JsonParser(text).run());
  } else {
    MAYFLY_ASSIGN(pattern.root_, parse_terms(text));
  }
  return pattern;
}

bool FilterPattern::matches(std::string_view message) const {
  if (root_ == nullptr) return true;
  if (root_->kind == NodeKind::kTerms) return matches_terms(*root_, message);
  if (message.find('{') == std::string_view::npos) return false;
  const auto document = base::parse_json(message);
  return document.ok() && evaluate(*root_, *document);
}

}  // namespace mayfly::api::logs
