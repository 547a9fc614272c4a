// E3, E16, E25, E32, E41: other processes, their memory and secrets; signals; what outlives a sandbox.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "world.h"

namespace mayfly::escape {
namespace {

namespace fs = std::filesystem;

std::string content_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::vector<pid_t> processes_named(const std::string& name) {
  std::vector<pid_t> found;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const pid_t pid = std::atoi(entry.path().filename().c_str());
    if (pid > 0 && content_of(entry.path() / "comm") == name + "\n") found.push_back(pid);
  }
  return found;
}

// A sandbox that waits to be killed.
class Sleeper {
 public:
  Sleeper(sandbox::test::Bench& bench, sandbox::SandboxSpec spec) : bench_(bench), id_(spec.id), started_(bench.start(spec)) {
    EXPECT_TRUE(started_.ok()) << (started_.ok() ? "" : started_.error().message());
    if (started_.ok()) {
      EXPECT_NE(sandbox::test::read_output(started_->output.get(), "hanging").find("hanging"), std::string::npos);
    }
  }
  // Whether it still waits.
  [[nodiscard]] bool lives() {
    char text[4096];
    const ssize_t got = pread(started_->main_status.get(), text, sizeof text - 1, 0);
    return got > 0 && std::string(text, static_cast<std::size_t>(got)).find("State:\tZ") == std::string::npos;
  }
  void end() {
    bench_.launcher().kill(id_);
    EXPECT_TRUE(bench_.wait_exit(id_).has_value());
  }
  [[nodiscard]] pid_t pid() const {
    char text[4096] = {};
    (void)!pread(started_->main_status.get(), text, sizeof text - 1, 0);
    const char* line = std::strstr(text, "\nPid:");
    return line != nullptr ? std::atoi(line + 5) : -1;
  }

 private:
  sandbox::test::Bench& bench_;
  sandbox::SandboxId id_;
  base::Result<sandbox::Sandbox> started_;
};

TEST_P(EscapeTest, e03_no_other_process_can_be_seen_or_looked_into) {
  EXPECT_TRUE(outside({"processes"}).reached()) << "control";
  const auto seen = inside({"processes"});
  EXPECT_TRUE(seen.contained()) << seen.output;
  Sleeper other(bench, spec({"hang"}));
  EXPECT_TRUE(outside({"spy", std::to_string(other.pid())}).reached()) << "control: root outside can";
  // 1 is init inside; the others are numbers that mean something outside only.
  const auto held = inside({"spy", "1", std::to_string(getpid()), std::to_string(bench.launcher_pid()), std::to_string(other.pid())});
  EXPECT_TRUE(held.contained()) << held.output;
  EXPECT_EQ(held.output.find("REACHED"), std::string::npos) << held.output;
  other.end();
}

TEST_P(EscapeTest, e25_signals_reach_nobody_else) {
  Sleeper other(bench, spec({"hang"}));
  const pid_t bystander = fork();
  if (bystander == 0) {
    execl(code_path("probe").c_str(), "probe", "hang", nullptr);
    _exit(99);
  }
  EXPECT_EQ(inside({"kill_all"}).output, "killed its own child only\n");
  EXPECT_TRUE(other.lives());
  EXPECT_EQ(kill(bystander, 0), 0);
  EXPECT_EQ(kill(bench.launcher_pid(), 0), 0);
  const Words pids{"kill_pid", std::to_string(bystander), std::to_string(bench.launcher_pid()), std::to_string(other.pid()),
                   std::to_string(getpid())};
  const auto held = inside(pids);
  EXPECT_TRUE(held.contained()) << held.output;
  EXPECT_TRUE(other.lives());
  EXPECT_TRUE(outside({"kill_pid", std::to_string(bystander)}).reached()) << "control";
  kill(bystander, SIGKILL);
  int status = 0;
  waitpid(bystander, &status, 0);
  other.end();
  EXPECT_EQ(bench.run("echo well").output, "well\n") << "the launcher goes on";
}

TEST_P(EscapeTest, e25_priorities_limits_and_names_cannot_be_raised) {
  EXPECT_TRUE(outside({"privileged_self"}, {.own_namespaces = true}).reached()) << "control";
  const auto held = inside({"privileged_self"});
  EXPECT_TRUE(held.contained()) << held.output;
  EXPECT_EQ(held.output.find("REACHED"), std::string::npos) << held.output;
}

TEST_P(EscapeTest, e32_nothing_outlives_the_main_process) {
  const auto free = outside({"daemonize"}, {.patience = std::chrono::milliseconds(500)});
  EXPECT_EQ(free.exit_code, 0);
  const auto survivors = processes_named("probe-daemon");
  EXPECT_EQ(survivors.size(), 1U) << "control: outside the daemon lives on";
  for (const pid_t pid : survivors) kill(pid, SIGKILL);
  for (int i = 0; i < 200 && !processes_named("probe-daemon").empty(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  const auto held = inside({"daemonize"});  // returns only at the end of its output: when every writer is dead
  EXPECT_NE(held.output.find("beat"), std::string::npos) << "control: the daemon ran";
  EXPECT_EQ(held.exit_code, 0);
  EXPECT_TRUE(processes_named("probe-daemon").empty());
}

TEST_P(EscapeTest, e41_secrets_of_another_sandbox_are_nowhere_to_be_read) {
  const std::string needle = "e41-secret-of-somebody-else";
  auto wanted = spec({"hang"});
  wanted.environment.push_back("SECRET=" + needle);
  Sleeper other(bench, wanted);
  EXPECT_TRUE(outside({"grep_proc", needle}).reached()) << "control: it is in the environment of a process";
  const auto held = inside({"grep_proc", needle});
  EXPECT_TRUE(held.contained()) << held.output;
  for (const char* file : {"/cmdline", "/environ"}) {
    EXPECT_EQ(content_of("/proc/" + std::to_string(bench.launcher_pid()) + file).find(needle), std::string::npos) << file;
  }
  EXPECT_EQ(bench.run("env").output.find(needle), std::string::npos);
  other.end();
}

TEST_P(EscapeTest, e41_a_crash_leaves_no_core_file_and_starts_no_core_handler) {
  const auto ending = bench.run("grep -i core /proc/self/limits");
  EXPECT_NE(ending.output.find("Max core file size        1                    1 "), std::string::npos)
      << "a limit of 1 byte is what also stops a core_pattern that pipes to a program\n"
      << ending.output;
}

}  // namespace
}  // namespace mayfly::escape
