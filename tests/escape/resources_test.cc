// E26 to E29: processes, memory of every kind, descriptors, disk. Outside, the same amounts are there for the taking.
#include "world.h"

namespace mayfly::escape {
namespace {

constexpr std::uint64_t kMiB = 1ULL << 20U;

class ResourceEscapeTest : public EscapeTest {
 protected:
  Attempt run_small(const Words& words) {
    auto wanted = spec(words);
    wanted.memory_bytes = 64 * kMiB;
    wanted.tmp_bytes = 32 * kMiB;
    wanted.processes_max = 50;
    wanted.files_max = 256;
    return run(wanted);
  }
  // The sandbox must end contained, and the next one must start.
  void expect_bounded(const Words& words) {
    const auto free = outside(words);
    EXPECT_TRUE(free.reached()) << "positive control: outside there is enough\n" << free.output;
    const auto held = run_small(words);
    EXPECT_TRUE(held.contained()) << "exit " << held.exit_code << " signal " << held.signal << "\n" << held.output;
    EXPECT_EQ(bench.run("echo next").output, "next\n");
  }
};

TEST_P(ResourceEscapeTest, e26_processes_are_bounded) {
  expect_bounded({"fork_bomb", "400"});
  int made = 0;
  const auto held = run_small({"fork_bomb", "400"});
  EXPECT_EQ(std::sscanf(held.output.c_str(), "made %d", &made), 1) << held.output;
  EXPECT_LE(made, 50);
  EXPECT_GT(made, 30) << "the limit is the one asked for";
}
TEST_P(ResourceEscapeTest, e26_threads_are_bounded) { expect_bounded({"thread_bomb", "400"}); }
TEST_P(ResourceEscapeTest, e27_anonymous_memory_is_bounded) {
  expect_bounded({"eat", "anonymous", "160"});
  EXPECT_TRUE(run_small({"eat", "anonymous", "160"}).out_of_memory) << "and the end is called by its name";
}
TEST_P(ResourceEscapeTest, e27_shared_memory_is_charged) { expect_bounded({"eat", "shared", "160"}); }
TEST_P(ResourceEscapeTest, e27_memory_files_are_charged) { expect_bounded({"eat", "memfd", "160"}); }
TEST_P(ResourceEscapeTest, e27_system_v_memory_is_charged) { expect_bounded({"eat", "sysv", "160"}); }
TEST_P(ResourceEscapeTest, e27_the_sum_over_processes_counts) { expect_bounded({"eat", "processes", "160"}); }
TEST_P(ResourceEscapeTest, e27_pipes_are_bounded) { expect_bounded({"eat", "pipes", "160"}); }
TEST_P(ResourceEscapeTest, e27_socket_buffers_are_bounded) { expect_bounded({"eat", "sockets", "160"}); }
TEST_P(ResourceEscapeTest, e27_page_tables_are_charged) { expect_bounded({"eat", "page-tables", "160"}); }
TEST_P(ResourceEscapeTest, e28_descriptors_are_bounded) { expect_bounded({"open_files", "5000"}); }
TEST_P(ResourceEscapeTest, e28_there_are_no_pseudo_terminals) { expect_bounded({"ptys"}); }

TEST_P(ResourceEscapeTest, e29_tmp_is_bounded_and_not_charged_as_memory) {
  EXPECT_TRUE(outside({"fill", directory.path(), "100"}).reached()) << "control";
  const auto held = run_small({"fill", "/tmp", "100"});
  EXPECT_EQ(held.exit_code, 0) << held.output << " signal " << held.signal;
  int wrote = 0;
  EXPECT_EQ(std::sscanf(held.output.c_str(), "wrote %d MiB", &wrote), 1) << held.output;
  EXPECT_GE(wrote, 24);
  EXPECT_LE(wrote, 40) << "32 MiB, and what the file system's own tables may leave";
}

INSTANTIATE_TEST_SUITE_P(Sandboxes, ResourceEscapeTest, ::testing::Values(Birth::kExecuted, Birth::kForkedFromAZygote), name_of);

}  // namespace
}  // namespace mayfly::escape
