#include <algorithm>

#include "api/lambda/model.h"
#include "base/bytes.h"

namespace mayfly::api::lambda {
namespace {

// Takes the text up to the next '/' off the front of `rest`.
std::string_view take_segment(std::string_view& rest) {
  const std::size_t slash = rest.find('/');
  const std::string_view segment = rest.substr(0, slash);
  rest = slash == std::string_view::npos ? std::string_view{} : rest.substr(slash + 1);
  return segment;
}

// An ARN of any resource may be sent with plain slashes where other values have %2F.
bool may_have_slashes(std::string_view name) { return name == "{Resource}" || name == "{ResourceArn}"; }

// Whether `path` has the shape of `pattern`; fills in what stands for the names in braces.
bool match_path(std::string_view pattern, std::string_view path, Match& match) {
  pattern.remove_prefix(1);
  path.remove_prefix(path.empty() ? 0 : 1);
  while (!pattern.empty()) {
    const std::string_view wanted = take_segment(pattern);
    const bool is_name = wanted.starts_with("{");
    if (!is_name) {
      if (take_segment(path) != wanted) return false;
      continue;
    }
    const bool takes_all = pattern.empty() && may_have_slashes(wanted);
    std::string_view value = takes_all ? path : take_segment(path);
    if (takes_all) path = {};
    while (takes_all && value.ends_with('/')) value.remove_suffix(1);
    auto decoded = base::percent_decode(value);
    if (!decoded.ok() || decoded->empty()) return false;
    match.path_values.emplace_back(wanted.substr(1, wanted.size() - 2), *std::move(decoded));
  }
  return path.empty();  // nothing left, or one trailing slash
}

// An operation with the fixed text at both ends of its path, by which most are told apart.
struct Candidate {
  const Operation* operation;
  std::string_view front, back;
};

// Those of each method, in the order of the table.
const std::vector<Candidate>& candidates(std::string_view method) {
  using ByMethod = std::vector<std::pair<std::string_view, std::vector<Candidate>>>;
  static const ByMethod all = [] {
    ByMethod made;
    for (const Operation& operation : operations()) {
      const std::size_t first = operation.path.find('{'), last = operation.path.rfind('}');
      auto known = std::ranges::find(made, operation.method, &ByMethod::value_type::first);
      if (known == made.end()) known = made.insert(made.end(), {operation.method, {}});
      known->second.push_back({.operation = &operation,
                               .front = operation.path.substr(0, first),
                               .back = last == std::string_view::npos ? "" : operation.path.substr(last + 1)});
    }
    return made;
  }();
  static const std::vector<Candidate> none;
  const auto found = std::ranges::find(all, method, &ByMethod::value_type::first);
  return found == all.end() ? none : found->second;
}

bool has_parameter(std::string_view query, std::string_view wanted) {
  while (!query.empty()) {
    const std::size_t end = query.find('&');
    if (query.substr(0, end) == wanted) return true;
    query = end == std::string_view::npos ? std::string_view{} : query.substr(end + 1);
  }
  return false;
}

}  // namespace

const Operation* find_operation(std::string_view name) {
  const auto all = operations();
  const auto found = std::find_if(all.begin(), all.end(), [name](const Operation& each) { return each.name == name; });
  return found == all.end() ? nullptr : &*found;
}

std::optional<Match> match_operation(std::string_view method, std::string_view path, std::string_view query) {
  std::optional<Match> best;
  const std::string_view trimmed = path.substr(0, path.size() - (path.ends_with('/') ? 1 : 0));
  for (const Candidate& candidate : candidates(method)) {
    if (!path.starts_with(candidate.front) || !trimmed.ends_with(candidate.back)) continue;
    const Operation& operation = *candidate.operation;
    if (!operation.query.empty() && !has_parameter(query, operation.query)) continue;
    Match match{.operation = &operation, .path_values = {}};
    if (!match_path(operation.path, path, match)) continue;
    // One that asks for a query is more particular, and so is one with fewer names in its path ("config/list").
    const auto is_better = [&](const Match& other) {
      if (match.path_values.size() != other.path_values.size()) return match.path_values.size() < other.path_values.size();
      return !operation.query.empty() && other.operation->query.empty();
    };
    if (!best || is_better(*best)) best = std::move(match);
  }
  return best;
}

}  // namespace mayfly::api::lambda
