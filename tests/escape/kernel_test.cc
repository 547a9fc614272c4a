// E12 to E22, E24: system calls, the other processor interfaces, terminals, kernel settings, socket families.
#include <map>
#include <set>
#include <sstream>

#include "world.h"

namespace mayfly::escape {
namespace {

// "NAME open|closed ..." lines.
std::map<std::string, std::string> table_of(const std::string& output) {
  std::map<std::string, std::string> table;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    const auto space = line.find(' ');
    if (space != std::string::npos) table[line.substr(0, space)] = line.substr(space + 1);
  }
  return table;
}

std::string names_of(const std::set<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += " " + name;
  return text;
}

// Compares what is open outside and inside; returns the names that were open to neither (no control).
std::set<std::string> expect_all_closed(const std::string& outside, const std::string& inside) {
  const auto free = table_of(outside);
  const auto held = table_of(inside);
  EXPECT_EQ(free.size(), held.size()) << outside << inside;
  std::set<std::string> without_control;
  for (const auto& [name, state] : held) {
    EXPECT_TRUE(state.starts_with("closed")) << name << " " << state;
    const auto control = free.find(name);
    if (control == free.end() || !control->second.starts_with("open")) without_control.insert(name);
  }
  return without_control;
}

TEST_P(EscapeTest, e12_to_e20_the_calls_that_lead_out_are_closed) {
  const auto free = outside({"calls"}, {.own_namespaces = true});
  ASSERT_TRUE(free.reached()) << free.output;
  const auto held = inside({"calls"});
  const auto without_control = expect_all_closed(free.output, held.output);
  EXPECT_EQ(held.exit_code, 0) << held.output;
  std::printf("closed inside; not offered by this kernel outside either:%s\n", names_of(without_control).c_str());
  EXPECT_LE(without_control.size(), 12U) << "controls:" << names_of(without_control);
  for (const char* name : {"unshare-user", "clone-user", "setns", "mount-tmpfs", "mount-cgroup2", "open_tree", "chroot", "io_uring_setup",
                           "bpf", "open_by_handle_at"}) {
    EXPECT_FALSE(without_control.contains(name)) << "must have a positive control: " << name;
  }
  auto states = table_of(held.output);
  EXPECT_EQ(states["clone3"], "closed ENOSYS") << "libc falls back to clone only then";
}

TEST_P(EscapeTest, e15_no_control_group_can_be_seen_or_written) {
  const Words files{"open_write",
                    "/sys/fs/cgroup/cgroup.procs",
                    "/sys/fs/cgroup/memory/cgroup.procs",
                    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "/sys/fs/cgroup/unified/cgroup.procs",
                    "/sys/fs/cgroup/release_agent",
                    "/sys/fs/cgroup/memory/release_agent",
                    "/sys/fs/cgroup/systemd/notify_on_release"};
  EXPECT_TRUE(outside(files).reached()) << "control";
  const auto held = inside(files);
  EXPECT_TRUE(held.contained()) << held.output;
}

TEST_P(EscapeTest, e16_not_even_its_own_children_can_be_traced_or_read) { expect_contained({"spy_child"}); }

TEST_P(EscapeTest, e20_other_processor_interfaces_do_not_bypass_the_filter) {
  for (const char* abi : {"int80", "x32"}) {
    const auto free = outside({"foreign_abi", abi});
    if (!free.reached()) std::printf("no positive control for %s: this kernel does not offer it\n", abi);
    const auto held = inside({"foreign_abi", abi});
    EXPECT_TRUE(held.contained()) << held.output;
    // A signal by the filter (SIGSYS), or by the processor where the interface is switched off.
    EXPECT_TRUE(held.output.find("killed by signal 31") != std::string::npos || !free.reached()) << held.output;
  }
}

TEST_P(EscapeTest, e21_there_is_no_terminal_to_type_into) {
  EXPECT_TRUE(outside({"tiocsti"}, {.terminal = true}).reached()) << "control";
  const auto held = inside({"tiocsti"});
  EXPECT_TRUE(held.contained()) << held.output;
}

TEST_P(EscapeTest, e22_kernel_settings_cannot_be_written) {
  const Words files{"open_write",
                    "/proc/sys/kernel/core_pattern",
                    "/proc/sys/kernel/hostname",
                    "/proc/sys/kernel/modprobe",
                    "/proc/sys/vm/overcommit_memory",
                    "/proc/sys/net/ipv4/ip_forward",
                    "/proc/sys/fs/binfmt_misc/register",
                    "/proc/sysrq-trigger",
                    "/proc/sys/kernel/sysrq",
                    "/proc/kcore",
                    "/proc/1/oom_score_adj",
                    "/proc/fs/ext4",
                    "/sys/kernel/uevent_helper",
                    "/sys/kernel/mm/transparent_hugepage/enabled",
                    "/sys/power/state",
                    "/sys/module/kernel/parameters/panic"};
  EXPECT_TRUE(outside(files).reached()) << "control";
  const auto held = inside(files);
  EXPECT_TRUE(held.contained()) << held.output;
  EXPECT_TRUE(outside({"read", "/proc/kallsyms", "/proc/timer_list"}).reached()) << "control";
  const auto secrets = inside(
      {"read", "/proc/kallsyms", "/proc/timer_list", "/proc/kcore", "/proc/keys", "/proc/modules", "/proc/interrupts", "/proc/slabinfo"});
  EXPECT_TRUE(secrets.contained()) << secrets.output;
  const auto lowered = bench.run("echo -1000 > /proc/self/oom_score_adj && echo lowered; exit 0");
  EXPECT_EQ(lowered.output.find("lowered\n"), std::string::npos) << "protection from the out-of-memory killer takes a capability";
}

TEST_P(EscapeTest, e24_only_ip_local_and_routing_sockets_can_be_made) {
  const auto free = outside({"sockets"});
  ASSERT_TRUE(free.reached()) << free.output;
  const auto held = inside({"sockets"});
  const auto without_control = expect_all_closed(free.output, held.output);
  std::printf("closed inside; not offered by this kernel outside either:%s\n", names_of(without_control).c_str());
  for (const char* name : {"packet", "raw-icmp", "netfilter"})
    EXPECT_FALSE(without_control.contains(name)) << "must have a positive control: " << name;
}

}  // namespace
}  // namespace mayfly::escape
