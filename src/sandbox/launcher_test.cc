#include "sandbox/launcher.h"

#include <gtest/gtest.h>

#include "sandbox/test_support.h"

namespace mayfly::sandbox {
namespace {

class LauncherTest : public ::testing::Test {
 protected:
  void SetUp() override {
    MAYFLY_NEEDS_ROOT();
    ASSERT_TRUE(bench.open());
  }
  test::TemporaryDirectory directory;
  test::Bench bench{directory.path()};
};

TEST_F(LauncherTest, RunsAProgramAndReportsItsExitCodeAndOutput) {
  const auto ending = bench.run("echo hello; echo oops >&2; exit 7");
  EXPECT_EQ(ending.exited.exit_code, 7);
  EXPECT_EQ(ending.exited.signal, 0);
  EXPECT_EQ(ending.output, "hello\noops\n");
}

}  // namespace
}  // namespace mayfly::sandbox
