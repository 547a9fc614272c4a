// E1 to E9, E11, E30: files of the host, of other functions and of the kernel; writing; privileges on files; teardown.
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "world.h"

namespace mayfly::escape {
namespace {

namespace fs = std::filesystem;

TEST_P(EscapeTest, e01_files_of_the_host_the_server_and_other_functions_are_absent) {
  const auto other = bench.add_tree({{"secret", "code of another function\n"}});
  for (const auto& path : {std::string("/etc/shadow"), secret, bench.config.code_directory + "/" + other + "/secret",
                           "/proc/" + std::to_string(getpid()) + "/environ"}) {
    expect_contained({"read", path});
  }
}

TEST_P(EscapeTest, e02_no_path_walks_out_of_the_root) {
  fs::create_symlink("/etc/shadow", code_path("absolute"));
  fs::create_symlink("../../../../../../../../../../etc/shadow", code_path("relative"));
  fs::create_symlink(secret, code_path("to-secret"));
  for (const char* link : {"absolute", "relative", "to-secret"}) {
    EXPECT_TRUE(outside({"read", code_path(link)}).reached()) << "control: the link leads somewhere";
    EXPECT_TRUE(inside({"read", std::string("/var/task/") + link}).contained()) << link;
  }
  EXPECT_TRUE(inside({"read", "/var/task/../../../../etc/shadow", "../../../../../../etc/shadow", "/proc/self/cwd/../../../etc/shadow",
                      "/proc/self/root/etc/shadow", "/proc/self/root/../../etc/shadow", "/proc/thread-self/root" + secret,
                      "//proc/1/root" + secret})
                  .contained());
  EXPECT_TRUE(outside({"link", secret}).reached()) << "control";
  EXPECT_TRUE(inside({"link", secret}).contained());
  const auto hard = inside({"link", "/var/task/data"});
  EXPECT_EQ(hard.output.find("REACHED: hard link"), std::string::npos) << "a hard link across file systems\n" << hard.output;
}

TEST_P(EscapeTest, e04_only_the_descriptors_that_were_meant_are_inherited) {
  const int leaked = open(secret.c_str(), O_RDONLY);  // not close-on-exec: what a careless launcher would pass on
  EXPECT_TRUE(outside({"fds"}, {.inherited = leaked}).reached()) << "control";
  const auto held = inside({"fds"});
  EXPECT_TRUE(held.contained()) << held.output;
  close(leaked);
}

TEST_P(EscapeTest, e05_no_descriptor_or_working_directory_leads_up) {
  const int root = open("/", O_RDONLY | O_DIRECTORY);
  EXPECT_TRUE(outside({"fd_walk"}, {.inherited = root}).reached()) << "control";
  const auto held = inside({"fd_walk"});
  EXPECT_TRUE(held.contained()) << held.output;
  close(root);
}

TEST_P(EscapeTest, e06_the_program_the_runtime_and_the_launcher_cannot_be_overwritten) {
  EXPECT_TRUE(outside({"open_write", code_path("data")}).reached()) << "control";
  const auto held = inside({"open_write", "/var/task/data", "/var/task/probe", "/proc/self/exe", "/proc/1/exe", "/bin/sh", "/usr/bin/env",
                            "/etc/passwd", "/etc/resolv.conf"});
  EXPECT_TRUE(held.contained()) << held.output;
  EXPECT_EQ(held.output.find("REACHED"), std::string::npos) << held.output;
}

TEST_P(EscapeTest, e07_nothing_but_tmp_can_be_written) {
  EXPECT_TRUE(outside({"write_anywhere", directory.path()}).reached()) << "control";
  auto wanted = spec({"write_anywhere", "/"});
  wanted.layer_ids = {bench.add_tree({{"layer-file", "of a layer\n"}}), bench.add_tree({{"other-file", "of another\n"}})};
  const auto held = run(wanted);
  EXPECT_EQ(held.exit_code, 0) << held.output;
  int visited = 0;
  EXPECT_EQ(std::sscanf(held.output.c_str(), "visited %d", &visited), 1) << held.output;
  EXPECT_GT(visited, 1000) << "it must have seen the root, the code and the layers";
}

TEST_P(EscapeTest, e08_set_user_id_programs_and_file_capabilities_give_nothing) {
  constexpr unsigned kSomebody = 65534;
  fs::copy_file(code_path("probe"), code_path("setuid"));
  ASSERT_EQ(chmod(code_path("setuid").c_str(), 04755), 0);
  fs::copy_file(code_path("probe"), code_path("filecaps"));
  ASSERT_EQ(chmod(code_path("filecaps").c_str(), 0755), 0);
  vfs_cap_data capabilities{};
  capabilities.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE;
  capabilities.data[0].permitted = (1U << CAP_NET_RAW) | (1U << CAP_SYS_ADMIN);
  ASSERT_EQ(setxattr(code_path("filecaps").c_str(), "security.capability", &capabilities, XATTR_CAPS_SZ_2, 0), 0);
  for (const char* name : {"setuid", "filecaps"}) {
    EXPECT_TRUE(outside({"exec_euid", code_path(name)}, {.user = kSomebody}).reached()) << "control: " << name;
    const auto held = inside({"exec_euid", std::string("/var/task/") + name});
    EXPECT_TRUE(held.contained()) << held.output;
  }
  EXPECT_TRUE(outside({"caps"}).reached()) << "control";
  const auto held = inside({"caps"});
  EXPECT_TRUE(held.contained()) << held.output;
}

TEST_P(EscapeTest, e09_devices_cannot_be_made_or_opened) {
  EXPECT_TRUE(outside({"mknod", directory.path()}).reached()) << "control";
  EXPECT_TRUE(inside({"mknod", "/tmp"}).contained());
  Words devices;
  for (const auto& entry : fs::directory_iterator("/dev")) {
    const auto name = entry.path().filename().string();
    struct stat info{};
    if (lstat(entry.path().c_str(), &info) != 0 || (!S_ISBLK(info.st_mode) && !S_ISCHR(info.st_mode))) continue;
    if (name != "null" && name != "zero" && name != "full" && name != "random" && name != "urandom")
      devices.push_back(entry.path().string());
  }
  ASSERT_GT(devices.size(), 5U) << "the host has devices to look for";
  EXPECT_TRUE(outside({"open_write", "/dev/loop-control"}).reached()) << "control";
  for (const char* verb : {"read", "open_write"}) {
    const Words fixed{verb,        "/dev/mem",     "/dev/kmem",         "/dev/port",    "/dev/kvm", "/dev/fuse",
                      "/dev/kmsg", "/dev/net/tun", "/dev/loop-control", "/dev/console", "/dev/tty", "/dev/ptmx"};
    constexpr std::size_t kAtOnce = 400;  // a sandbox takes so many arguments, and a host may have a thousand loop devices
    for (std::size_t first = 0; first < devices.size(); first += kAtOnce) {
      Words words = fixed;
      const auto last = devices.begin() + static_cast<std::ptrdiff_t>(std::min(first + kAtOnce, devices.size()));
      words.insert(words.end(), devices.begin() + static_cast<std::ptrdiff_t>(first), last);
      const auto held = inside(words);
      EXPECT_TRUE(held.contained()) << held.output;
    }
  }
}

TEST_P(EscapeTest, e11_nothing_is_left_in_tmp_for_the_next_sandbox) {
  const auto writer = bench.run("umask 0; echo left > /tmp/left; mkdir /tmp/dir; echo left > /tmp/dir/left; cat /tmp/left");
  EXPECT_EQ(writer.output, "left\n") << "control";
  const auto reader = bench.run("ls -A /tmp; cat /tmp/left /tmp/dir/left; exit 0");
  EXPECT_EQ(reader.output.find("left\n"), std::string::npos) << reader.output;
  EXPECT_EQ(reader.output.find("dir\n"), std::string::npos) << reader.output;
}

TEST_P(EscapeTest, e30_teardown_follows_no_link_while_the_sandbox_renames) {
  const std::string canary = directory.path() + "/canary";
  fs::create_directories(canary + "/inner");
  std::ofstream(canary + "/inner/file") << "alive\n";
  for (int round = 0; round < 6; ++round) {
    const auto wanted = spec({"churn", canary});
    auto started = bench.start(wanted);
    ASSERT_TRUE(started.ok()) << started.error().message();
    ASSERT_NE(sandbox::test::read_output(started->output.get(), "churning").find("churning"), std::string::npos) << "control: it races";
    bench.launcher().kill(wanted.id);
    ASSERT_TRUE(bench.wait_exit(wanted.id).has_value());
  }
  EXPECT_TRUE(fs::exists(canary + "/inner/file"));
  bench.close();
  const auto left = sandbox::test::wait_for_no_leftovers(bench.config.instance, directory.path());
  EXPECT_TRUE(left.empty()) << left.front();
}

}  // namespace
}  // namespace mayfly::escape
