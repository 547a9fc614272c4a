// CloudWatch Logs filter patterns (docs.aws.amazon.com, "Filter pattern syntax"): which messages a search finds.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace mayfly::api::logs {

// Supported: nothing (all messages); terms (all must occur) with "quoted phrases", ?any-of-these and -not-this; and
// { $.member = "value" } over JSON messages with = != < <= > >=, * in texts, IS TRUE/FALSE/NULL, EXISTS, NOT EXISTS, && || and
// parentheses. Not supported and refused: [column, patterns] and %regular expressions%.
class FilterPattern {
 public:
  // InvalidParameterException, with what is wrong and where.
  [[nodiscard]] static base::Result<FilterPattern> parse(std::string_view text);
  [[nodiscard]] bool matches(std::string_view message) const;

  struct Node;

 private:
  std::shared_ptr<const Node> root_;  // null: everything
};

}  // namespace mayfly::api::logs
