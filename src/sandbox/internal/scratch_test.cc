// The /tmp of sandboxes on real loop devices: what of one is kept for the next sandbox, and that nothing is left of what a former one did.
#include "sandbox/internal/scratch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <functional>

#include "sandbox/internal/test_support.h"

namespace mayfly::sandbox::internal {
namespace {

using base::UniqueFd;

constexpr std::uint64_t kBytes = 64ULL << 20U;
constexpr std::uint32_t kUser = 1'900'000'001;

class ScratchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    MAYFLY_NEEDS_ROOT();
    auto made = Scratch::create({.directory = directory.path(), .privileged = true});
    ASSERT_TRUE(made.ok()) << made.error().message();
    scratch = std::move(*made);
    if (!scratch->disk()) GTEST_SKIP() << scratch->why_not_disk();
  }
  ScratchMount make(std::uint64_t bytes = kBytes, std::uint32_t user = kUser) {
    auto made = scratch->make(bytes, user, user);
    EXPECT_TRUE(made.ok()) << (made.ok() ? "" : made.error().message());
    return made.ok() ? std::move(*made) : ScratchMount{};
  }
  static struct stat root_of(const ScratchMount& place) {
    struct stat found{};
    EXPECT_EQ(fstat(place.directory.get(), &found), 0);
    return found;
  }

  test::TemporaryDirectory directory;
  std::unique_ptr<Scratch> scratch;
};

TEST_F(ScratchTest, OneThatNobodyUsedServesAnotherSandboxAsIfItWereNew) {
  auto first = make();
  const std::string device = first.device;
  const auto fresh = root_of(first);
  scratch->discard(first);
  EXPECT_EQ(scratch->kept(), 1U);
  EXPECT_NE(make(2 * kBytes).device, device) << "another size";
  auto second = make(kBytes, kUser + 1);
  EXPECT_EQ(second.device, device);
  EXPECT_EQ(scratch->kept(), 0U);
  const auto again = root_of(second);
  EXPECT_EQ(again.st_uid, kUser + 1);
  EXPECT_EQ(again.st_gid, kUser + 1);
  EXPECT_EQ(again.st_mode & 07777, 0700U);
  EXPECT_EQ(again.st_mtim.tv_sec, fresh.st_mtim.tv_sec);
  EXPECT_EQ(again.st_mtim.tv_nsec, fresh.st_mtim.tv_nsec);
  EXPECT_EQ(again.st_atim.tv_sec, fresh.st_atim.tv_sec);
  scratch->discard(second);
  EXPECT_EQ(scratch->kept(), 1U);
  second = make(kBytes, kUser + 2);
  EXPECT_EQ(second.device, device) << "a third time";
  const UniqueFd file(openat(second.directory.get(), "new", O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
  ASSERT_TRUE(file.valid());
  EXPECT_EQ(write(file.get(), "x", 1), 1);
}

TEST_F(ScratchTest, OneThatWasUsedInAnyWayIsDiscarded) {
  const std::vector<std::pair<const char*, std::function<void(int)>>> uses = {
      {"a file", [](int at) { close(openat(at, "file", O_CREAT | O_WRONLY, 0600)); }},
      {"a file that is gone",
       [](int at) {
         close(openat(at, "file", O_CREAT | O_WRONLY, 0600));
         EXPECT_EQ(unlinkat(at, "file", 0), 0);
       }},
      {"a hidden directory, and the times set back",
       [](int at) {
         struct stat before{};
         EXPECT_EQ(fstat(at, &before), 0);
         EXPECT_EQ(mkdirat(at, ".hidden", 0700), 0);
         const timespec times[2] = {before.st_atim, before.st_mtim};
         EXPECT_EQ(futimens(at, times), 0);
       }},
      {"a file without a name that somebody still has",
       [](int at) { EXPECT_GE(openat(at, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), 0) << "stays open until the test ends"; }},
      {"a file without a name that is gone", [](int at) { close(openat(at, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)); }},
      {"many of them, and the times set back",
       [](int at) {
         struct stat before{};
         EXPECT_EQ(fstat(at, &before), 0);
         for (int i = 0; i < 40; ++i) close(openat(at, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
         const timespec times[2] = {before.st_atim, before.st_mtim};
         EXPECT_EQ(futimens(at, times), 0);
       }},
      {"much in a file without a name",
       [](int at) {
         const UniqueFd file(openat(at, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
         const std::string much(4UL << 20U, 'x');
         EXPECT_TRUE(base::write_all(file.get(), much).ok());
         EXPECT_EQ(fsync(file.get()), 0);
       }},
      {"an attribute", [](int at) { EXPECT_EQ(fsetxattr(at, "user.message", "x", 1, 0), 0); }},
      {"other times",
       [](int at) {
         const timespec times[2] = {{.tv_sec = 1, .tv_nsec = 2}, {.tv_sec = 3, .tv_nsec = 4}};
         EXPECT_EQ(futimens(at, times), 0);
       }},
      {"the time of the last look, with the rest set back",
       [](int at) {
         struct stat before{};
         EXPECT_EQ(fstat(at, &before), 0);
         const timespec times[2] = {{.tv_sec = 0x6d657373, .tv_nsec = 7}, before.st_mtim};
         EXPECT_EQ(futimens(at, times), 0);
       }},
      {"a generation",
       [](int at) {
         const int generation = 0x6d657373;
         EXPECT_EQ(ioctl(at, FS_IOC_SETVERSION, &generation), 0);
       }},
      {"the expected life of what is written",
       [](int at) {
         std::uint64_t hint = RWH_WRITE_LIFE_LONG;
         EXPECT_EQ(fcntl(at, F_SET_RW_HINT, &hint), 0);
       }},
      {"another mode", [](int at) { EXPECT_EQ(fchmod(at, 0777), 0); }},
      {"another mode, set back",
       [](int at) {
         EXPECT_EQ(fchmod(at, 0777), 0);
         EXPECT_EQ(fchmod(at, 0700), 0);
       }},
      {"flags",
       [](int at) {
         int flags = 0;
         EXPECT_EQ(ioctl(at, FS_IOC_GETFLAGS, &flags), 0);
         flags |= FS_NODUMP_FL;
         EXPECT_EQ(ioctl(at, FS_IOC_SETFLAGS, &flags), 0);
       }},
  };
  for (const auto& [what, use] : uses) {
    auto place = make();
    use(place.directory.get());
    scratch->discard(place);
    EXPECT_EQ(scratch->kept(), 0U) << what;
  }
}

TEST_F(ScratchTest, NothingIsLeftAfterTheEnd) {
  auto place = make();
  scratch->discard(place);
  ASSERT_EQ(scratch->kept(), 1U);
  scratch->let_go_of_kept();
  EXPECT_EQ(scratch->kept(), 1U) << "it was not kept for long so far";
  scratch.reset();
  EXPECT_TRUE(test::wait_for_no_leftovers("00000000", directory.path()).empty());
}

}  // namespace
}  // namespace mayfly::sandbox::internal
