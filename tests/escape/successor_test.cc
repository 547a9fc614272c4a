// E42: what a sandbox leaves to the one that gets its network namespace or its /tmp (ADR 14).
#include <set>

#include "world.h"

namespace mayfly::escape {
namespace {

// "network N tmp M": which of them it had.
std::string place_of(const Attempt& attempt, const char* what) {
  const auto at = attempt.output.find(what);
  EXPECT_NE(at, std::string::npos) << attempt.output;
  return at == std::string::npos ? std::string()
                                 : attempt.output.substr(at, attempt.output.find_first_of(" \n", at + std::string(what).size()) - at);
}

constexpr int kRunsMost = 100;  // until one is used again: taking apart waits while new ones are wanted

TEST_P(NetworkEscapeTest, e42_nothing_of_a_former_sandbox_meets_a_later_one) {
  constexpr int kRuns = 12;  // more than the launcher keeps ready
  std::set<std::string> used;
  for (int i = 0; i < 3; ++i) {
    const auto left = run(outside_spec({"leave", kOutsideAddress}));
    ASSERT_EQ(left.exit_code, 0) << left.output;
    used.insert(place_of(left, "network "));
  }
  std::set<std::string> networks;
  int again = 0;
  std::string free;
  for (int i = 0; i < kRuns || (again == 0 && i < kRunsMost); ++i) {
    const auto later = run(outside_spec({"successor"}));
    EXPECT_EQ(later.exit_code, 0) << later.output;
    const auto network = place_of(later, "network ");
    EXPECT_FALSE(used.contains(network)) << "the namespace of one that used it";
    again += networks.insert(network).second ? 0 : 1;
    const auto space = later.output.substr(later.output.find("free "));
    if (free.empty()) free = space;
    EXPECT_EQ(space, free);
  }
  EXPECT_GT(again, 0) << "control: namespaces of those that only looked are used again";
}

TEST_P(NetworkEscapeTest, e43_what_a_sandbox_says_about_its_tmp_meets_no_later_one) {
  constexpr int kRuns = 12;  // more than the launcher keeps ready
  for (int i = 0; i < 3; ++i) {
    const auto left = run(outside_spec({"whisper"}));
    ASSERT_EQ(left.exit_code, 0) << left.output;
  }
  std::set<std::string> places;
  int again = 0;
  for (int i = 0; i < kRuns || (again == 0 && i < kRunsMost); ++i) {
    const auto later = run(outside_spec({"successor"}));
    EXPECT_EQ(later.exit_code, 0) << later.output;
    again += places.insert(place_of(later, " tmp ")).second ? 0 : 1;
  }
  EXPECT_GT(again, 0) << "control: a /tmp that was only looked at is used again";
}

}  // namespace
}  // namespace mayfly::escape
