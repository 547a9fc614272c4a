#include "net/turn.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

#include "net/internal/turn.h"

namespace mayfly::net::internal {
namespace {

TEST(Turn, runs_what_was_deferred_after_the_callback_and_in_order) {
  std::string order;
  EXPECT_FALSE(may_defer());
  run_turn([&] {
    defer([&] {
      order += "b";
      defer([&] { order += "d"; });
    });
    defer([&] { order += "c"; });
    order += "a";
  });
  EXPECT_EQ(order, "abcd");
  EXPECT_FALSE(may_defer());
}

TEST(Turn, an_exception_keeps_nobody_else_from_running_and_is_thrown_at_the_end) {
  std::string order;
  const auto turn = [&](bool callback_throws) {
    run_turn([&] {
      defer([&] { order += "a"; });
      defer([] { throw std::runtime_error("thrown on purpose by a test"); });
      defer([&] { order += "b"; });
      if (callback_throws) throw std::logic_error("thrown on purpose by a test");
    });
  };
  EXPECT_THROW(turn(false), std::runtime_error);
  EXPECT_EQ(order, "ab");
  EXPECT_THROW(turn(true), std::logic_error) << "the first";
  EXPECT_EQ(order, "abab");
  EXPECT_FALSE(may_defer());
}

}  // namespace
}  // namespace mayfly::net::internal
