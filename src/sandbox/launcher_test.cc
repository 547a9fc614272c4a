#include "sandbox/launcher.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>
#include <thread>

#include "sandbox/internal/service.h"
#include "sandbox/internal/test_support.h"

namespace mayfly::sandbox {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint64_t kMiB = 1ULL << 20U;

class LauncherTest : public ::testing::Test {
 protected:
  void SetUp() override {
    MAYFLY_NEEDS_ROOT();
    ASSERT_TRUE(bench.open());
  }
  SandboxSpec python(const std::string& script) {
    auto spec = bench.spec(bench.add_tree({{"run.py", script}}));
    spec.arguments = {"/usr/bin/python3", "/var/task/run.py"};
    return spec;
  }
  test::TemporaryDirectory directory;
  test::Bench bench{directory.path()};
};

TEST_F(LauncherTest, RunsAProgramAndReportsItsExitCodeAndOutput) {
  const auto ending = bench.run("echo hello; echo oops >&2; exit 7");
  EXPECT_EQ(ending.exited.exit_code, 7);
  EXPECT_EQ(ending.exited.signal, 0);
  EXPECT_FALSE(ending.exited.killed);
  EXPECT_FALSE(ending.exited.out_of_memory);
  EXPECT_EQ(ending.output, "hello\noops\n");
}

TEST_F(LauncherTest, ReportsTheSignalThatEndedTheMainProcess) {
  const auto ending = bench.run("kill -SEGV $$");
  EXPECT_EQ(ending.exited.exit_code, -1);
  EXPECT_EQ(ending.exited.signal, SIGSEGV);
}

TEST_F(LauncherTest, NamesAProgramThatCannotBeExecutedAsTheFunctionsFault) {
  for (const auto& [program, content] :
       std::map<std::string, std::string>{{"/var/task/absent", ""}, {"/var/task/data", "no program"}, {"/var/task", ""}}) {
    auto spec = bench.spec(bench.add_tree({{"data", content}}));
    spec.arguments = {program};
    const auto started = bench.start(spec);
    ASSERT_FALSE(started.ok()) << program;
    EXPECT_EQ(started.error().id(), "Runtime.InvalidEntrypoint") << started.error().to_string();
    EXPECT_NE(started.error().message().find("fork/exec "), std::string::npos) << started.error().to_string();
  }
  auto spec = bench.spec(bench.add_code("true"));
  spec.working_directory = "/var/task/nowhere";
  const auto started = bench.start(spec);
  ASSERT_FALSE(started.ok());
  EXPECT_EQ(started.error().id(), "Runtime.InvalidWorkingDir");
}

TEST_F(LauncherTest, RefusesSpecificationsItDistrusts) {
  const auto good = bench.spec(bench.add_code("true"));
  const auto refused = [&](auto change) {
    auto spec = good;
    change(spec);
    return !bench.launcher().start(spec).ok();
  };
  EXPECT_TRUE(refused([](SandboxSpec& s) { s.id = 0; }));
  EXPECT_TRUE(refused([](SandboxSpec& s) { s.code_id = "../../etc"; }));
  EXPECT_TRUE(refused([](SandboxSpec& s) { s.layer_ids.assign(6, s.code_id); }));
  EXPECT_TRUE(refused([](SandboxSpec& s) { s.arguments.clear(); }));
  EXPECT_TRUE(refused([](SandboxSpec& s) { s.companions = {"relative"}; }));
  EXPECT_TRUE(refused([](SandboxSpec& s) { s.companions.assign(11, "/opt/x"); }));
  EXPECT_TRUE(refused([](SandboxSpec& s) { s.connectors = 13; }));
  EXPECT_TRUE(refused([](SandboxSpec& s) { s.arguments = {"relative"}; }));
  EXPECT_TRUE(refused([](SandboxSpec& s) { s.environment = {"NOEQUALS"}; }));
  EXPECT_TRUE(refused([](SandboxSpec& s) { s.environment = {std::string("A=\0B", 4)}; }));
  EXPECT_TRUE(refused([](SandboxSpec& s) { s.environment = {"A=" + std::string(70'000, 'x')}; }));
  EXPECT_TRUE(refused([](SandboxSpec& s) { s.memory_bytes = 0; }));
  EXPECT_TRUE(refused([](SandboxSpec& s) { s.tmp_bytes = 1ULL << 60U; }));
  auto unknown_root = good;
  unknown_root.root_id = "nowhere";
  EXPECT_EQ(bench.start(unknown_root).error().code(), base::ErrorCode::kNotFound);
  auto unknown_code = bench.spec(std::string(64, 'a'));
  EXPECT_EQ(bench.start(unknown_code).error().code(), base::ErrorCode::kNotFound);
}

// An event loop makes the socket non-blocking; more requests than fit into it must then wait, not get lost.
TEST_F(LauncherTest, AnswersEveryRequestOfABurstOverANonBlockingSocket) {
  constexpr int kRequests = 400;
  auto spec = bench.spec(bench.add_code("true"));
  spec.root_id = "nowhere";
  spec.environment = {"FILLER=" + std::string(50'000, 'x')};
  Launcher& launcher = bench.launcher();
  const int flags = fcntl(launcher.fd(), F_GETFL);
  ASSERT_EQ(fcntl(launcher.fd(), F_SETFL, flags | O_NONBLOCK), 0);
  for (int i = 0; i < kRequests; ++i) {
    spec.id = 1'000'000 + static_cast<SandboxId>(i);
    ASSERT_TRUE(launcher.start(spec).ok());
  }
  std::set<SandboxId> answered;
  for (int without_an_answer = 0; without_an_answer < 100 && answered.size() < kRequests;) {
    pollfd ready{.fd = launcher.fd(), .events = POLLIN, .revents = 0};
    poll(&ready, 1, 100);
    const auto events = launcher.receive();
    ASSERT_TRUE(events.ok());
    without_an_answer += events->empty() ? 1 : 0;
    for (const LauncherEvent& event : *events) {
      if (const auto* failed = std::get_if<SandboxFailed>(&event)) answered.insert(failed->id);
    }
  }
  EXPECT_EQ(answered.size(), static_cast<std::size_t>(kRequests));
  fcntl(launcher.fd(), F_SETFL, flags);
}

TEST_F(LauncherTest, CompanionsRunBesideTheMainProcessWhichWaitsForTheGate) {
  auto spec = bench.spec(bench.add_code("echo main $SECRET; sleep 0.2; exit 3"));
  spec.layer_ids = {
      bench.add_tree({{"one", "#!/bin/sh\necho one $SECRET $(id -u) $(cat /proc/self/status | grep -c 'NoNewPrivs:.1')\nsleep 60\n"},
                      {"two", "#!/bin/sh\nexit 7\n"}})};
  spec.environment.emplace_back("SECRET=hush");
  spec.companions = {"/opt/one", "/opt/two"};
  spec.companions_lack = {"SECRET"};
  spec.connectors = 3;
  auto started = bench.start(spec);
  ASSERT_TRUE(started.ok()) << started.error().to_string();
  EXPECT_EQ(started->connectors.size(), 3U);
  const std::string said = test::read_output(started->companion_output.get(), "\n");
  EXPECT_TRUE(said.starts_with("one ") && said.ends_with(" 1\n")) << said;
  EXPECT_EQ(said.find("hush"), std::string::npos);
  EXPECT_TRUE(bench.pump([&] { return bench.programs_ended.contains({spec.id, 2}); }));
  EXPECT_EQ((bench.programs_ended[{spec.id, 2}].exit_code), 7);
  EXPECT_EQ(test::read_output(started->output.get(), "main", milliseconds(100)), "") << "before the gate is open";
  started->open_gate();
  EXPECT_EQ(test::read_output(started->output.get(), "\n"), "main hush\n");
  EXPECT_TRUE(bench.pump([&] { return bench.programs_ended.contains({spec.id, 0}); }));
  EXPECT_EQ((bench.programs_ended[{spec.id, 0}].exit_code), 3);
  bench.launcher().kill(spec.id);
  const auto exited = bench.wait_exit(spec.id);
  ASSERT_TRUE(exited);
  EXPECT_EQ(exited->exit_code, 3);
  EXPECT_TRUE(exited->killed);
}

TEST_F(LauncherTest, ASandboxWithCompanionsEndsByItselfWhenNothingIsLeft) {
  auto spec = bench.spec(bench.add_code("exit 0"));
  spec.layer_ids = {bench.add_tree({{"one", "#!/bin/sh\nexit 0\n"}})};
  spec.companions = {"/opt/one"};
  auto started = bench.start(spec);
  ASSERT_TRUE(started.ok()) << started.error().to_string();
  started->open_gate();
  const auto exited = bench.wait_exit(spec.id);
  ASSERT_TRUE(exited);
  EXPECT_EQ(exited->exit_code, 0);
  EXPECT_FALSE(exited->killed);
}

TEST_F(LauncherTest, ACompanionThatCannotBeExecutedIsNamed) {
  auto spec = bench.spec(bench.add_code("exit 0"));
  spec.companions = {"/opt/absent"};
  auto started = bench.start(spec);
  std::optional<base::Error> why;
  if (!started.ok()) {
    why = started.error();
  } else {
    started->open_gate();
    const auto exited = bench.wait_exit(spec.id);
    ASSERT_TRUE(exited);
    why = exited->failure;
  }
  ASSERT_TRUE(why);
  EXPECT_EQ(why->id(), "Extension.LaunchError") << why->to_string();
  EXPECT_NE(why->message().find("fork/exec /opt/absent: no such file"), std::string::npos) << why->to_string();
}

TEST_F(LauncherTest, AMainProcessThatCannotBeExecutedBehindItsGateIsNamed) {
  auto spec = bench.spec(bench.add_code("exit 0"));
  spec.layer_ids = {bench.add_tree({{"one", "#!/bin/sh\nsleep 60\n"}})};
  spec.companions = {"/opt/one"};
  spec.arguments = {"/var/task/absent"};
  auto started = bench.start(spec);
  ASSERT_TRUE(started.ok()) << started.error().to_string();
  started->open_gate();
  const auto exited = bench.wait_exit(spec.id);
  ASSERT_TRUE(exited);
  ASSERT_TRUE(exited->failure);
  EXPECT_EQ(exited->failure->id(), "Runtime.InvalidEntrypoint") << exited->failure->to_string();
}

TEST_F(LauncherTest, AConnectorReachesAListenerInside) {
  auto spec = python(
      "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 4000))\ns.listen()\nprint('up', flush=True)\n"
      "for i in range(2):\n  c, _ = s.accept()\n  print(c.recv(10), flush=True)\n");
  spec.connectors = 1;
  auto started = bench.start(spec);
  ASSERT_TRUE(started.ok()) << started.error().to_string();
  ASSERT_EQ(started->connectors.size(), 1U);
  ASSERT_EQ(test::read_output(started->output.get(), "up\n"), "up\n");
  const int connector = started->connectors.front().get();
  sockaddr_in inside{};
  inside.sin_family = AF_INET;
  inside.sin_port = htons(4000);
  inside.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (const char* word : {"one", "two"}) {
    (void)connect(connector, reinterpret_cast<sockaddr*>(&inside), sizeof inside);
    pollfd writable{.fd = connector, .events = POLLOUT, .revents = 0};
    ASSERT_EQ(poll(&writable, 1, 5000), 1);
    ASSERT_EQ(send(connector, word, 3, MSG_NOSIGNAL), 3) << strerror(errno);
    EXPECT_NE(test::read_output(started->output.get(), word).find(word), std::string::npos);
    const sockaddr nowhere{.sa_family = AF_UNSPEC, .sa_data = {}};
    ASSERT_EQ(connect(connector, &nowhere, sizeof nowhere), 0);
  }
}

TEST_F(LauncherTest, MergesFiveLayersHoweverLongTheirPathsAre) {
  auto spec = bench.spec(bench.add_code("cat /opt/*; cat /opt/shared"));
  for (int i = 1; i <= 5; ++i) {
    const std::string number = std::to_string(i);
    spec.layer_ids.push_back(bench.add_tree({{"only" + number, number}, {"shared", "top " + number}}));
  }
  EXPECT_EQ(bench.run(spec).output, "12345top 5top 5");
}

TEST_F(LauncherTest, CarriesALargeEnvironmentAndManyArguments) {
  auto spec = bench.spec(bench.add_code("echo ${#BIG} $#"));
  spec.environment.push_back("BIG=" + std::string(40'000, 'x'));
  spec.arguments.insert(spec.arguments.end(), 200, "argument");
  EXPECT_EQ(bench.run(spec).output, "40000 200\n");
}

TEST_F(LauncherTest, KillsTheWholeSandboxWhenMemoryRunsOutInAnyProcess) {
  auto main = python("x = bytearray(300 * 1024 * 1024)\nprint('never')");
  const auto ending = bench.run(main);
  EXPECT_TRUE(ending.exited.out_of_memory);
  EXPECT_EQ(ending.exited.signal, SIGKILL);
  EXPECT_FALSE(ending.exited.killed);
  EXPECT_EQ(ending.output, "");
  auto child =
      python("import os, time\nif os.fork() == 0:\n  x = bytearray(300 * 1024 * 1024)\n  os._exit(0)\ntime.sleep(60)\nprint('survived')");
  const auto second = bench.run(child);
  EXPECT_TRUE(second.exited.out_of_memory);
  EXPECT_EQ(second.output, "");
}

TEST_F(LauncherTest, HoldsSharedMemoryPipesAndMemfdsToTheMemoryLimit) {
  const auto ending =
      bench.run(python("import os\nfd = os.memfd_create('x')\nfor i in range(300): os.write(fd, b'x' * 1024 * 1024)\nprint('never')"));
  EXPECT_TRUE(ending.exited.out_of_memory);
  EXPECT_EQ(ending.output, "");
}

TEST_F(LauncherTest, KillEndsEverythingAlsoWhatHidesInNewSessions) {
  auto started =
      bench.start(bench.spec(bench.add_code("setsid sh -c 'trap \"\" TERM HUP; echo ready; sleep 1000' & trap '' TERM; sleep 1000")));
  ASSERT_TRUE(started.ok()) << started.error().to_string();
  EXPECT_EQ(test::read_output(started->output.get(), "ready\n"), "ready\n");
  bench.launcher().terminate(started->id);
  bench.launcher().kill(started->id);
  const auto exited = bench.wait_exit(started->id);
  ASSERT_TRUE(exited);
  EXPECT_TRUE(exited->killed);
  EXPECT_EQ(exited->signal, SIGKILL);
  EXPECT_EQ(test::read_output(started->output.get()), "");  // end of file: nobody holds the pipe
}

TEST_F(LauncherTest, TerminateAsksTheMainProcess) {
  auto started = bench.start(bench.spec(bench.add_code("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done")));
  ASSERT_TRUE(started.ok());
  test::read_output(started->output.get(), "ready\n");
  bench.launcher().terminate(started->id);
  EXPECT_EQ(test::read_output(started->output.get()), "bye\n");
  EXPECT_EQ(bench.wait_exit(started->id)->exit_code, 3);
}

TEST_F(LauncherTest, ADaemonDoesNotOutliveTheMainProcess) {
  const auto before = std::chrono::steady_clock::now();
  const auto ending = bench.run("(setsid sh -c 'sleep 1000' &) ; (setsid sh -c 'sleep 1000' &); echo done");
  EXPECT_EQ(ending.output, "done\n");  // read to end of file
  EXPECT_LT(std::chrono::steady_clock::now() - before, seconds(15));
}

TEST_F(LauncherTest, OrphansAreReapedByInit) {
  const auto ending =
      bench.run("for i in 1 2 3 4 5 6 7 8 9; do (true &); done; sleep 0.3; grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l");
  EXPECT_EQ(ending.output, "0\n");
}

TEST_F(LauncherTest, AForkBombStaysWithinItsProcessLimitAndCanBeKilled) {
  auto spec = python(
      "import os, time\nn = 0\nwhile True:\n  try:\n    if os.fork() == 0: time.sleep(1000)\n    n += 1\n  except OSError: break\nprint(n, "
      "flush=True)\ntime.sleep(1000)");
  spec.processes_max = 40;
  auto started = bench.start(spec);
  ASSERT_TRUE(started.ok());
  const std::string count = test::read_output(started->output.get(), "\n");
  EXPECT_GE(std::stoi(count), 20);
  EXPECT_LE(std::stoi(count), 40);
  bench.launcher().kill(spec.id);
  ASSERT_TRUE(bench.wait_exit(spec.id, seconds(5)));
}

TEST_F(LauncherTest, ASmallFunctionFillsItsTmpAndLives) {
  auto spec = bench.spec(bench.add_code(
      "dd if=/dev/zero of=/tmp/a bs=1M count=512 2>/dev/null; echo wrote $(stat -c %s /tmp/a); "
      "dd if=/dev/zero of=/tmp/b bs=1M 2>&1 | grep -o 'No space'; rm /tmp/a; echo freed $(df -m --output=avail /tmp | tail -1); read x"));
  spec.tmp_bytes = 512 * kMiB;
  spec.memory_bytes = 128 * kMiB;
  auto started = bench.start(spec);
  ASSERT_TRUE(started.ok()) << started.error().to_string();
  const std::string text = test::read_output(started->output.get(), "freed", seconds(60)) + test::read_output(started->output.get());
  EXPECT_NE(text.find("wrote 536870912"), std::string::npos) << text;
  EXPECT_NE(text.find("No space"), std::string::npos) << text;
  EXPECT_LT(started->memory_used(), 128 * kMiB);
  EXPECT_LT(started->memory_peak(), 128 * kMiB);
  EXPECT_EQ(started->oom_kills(), 0U);
  const auto exited = bench.wait_exit(spec.id);
  ASSERT_TRUE(exited);
  EXPECT_FALSE(exited->out_of_memory);
  EXPECT_NE(exited->signal, SIGKILL);
}

TEST_F(LauncherTest, FreezeStopsEverythingAndThawGoesOn) {
  auto started = bench.start(
      bench.spec(bench.add_code("echo ready; (while :; do echo child; sleep 0.01; done) & while :; do echo tick; sleep 0.01; done")));
  ASSERT_TRUE(started.ok());
  test::read_output(started->output.get(), "tick");
  ASSERT_TRUE(started->freeze().ok());
  std::this_thread::sleep_for(milliseconds(100));
  (void)test::read_output(started->output.get(), {}, milliseconds(50));
  EXPECT_EQ(test::read_output(started->output.get(), {}, milliseconds(200)), "");
  const auto cpu = started->cpu_used();
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(started->cpu_used(), cpu);
  ASSERT_TRUE(started->thaw().ok());
  EXPECT_NE(test::read_output(started->output.get(), "tick", seconds(5)), "");
  ASSERT_TRUE(started->freeze().ok());
  bench.launcher().kill(started->id);
  EXPECT_TRUE(bench.wait_exit(started->id, seconds(5))) << "a frozen sandbox must die at once";
}

TEST_F(LauncherTest, MeasuresAndThrottlesTheCpu) {
  if (!bench.launcher().capabilities().cpu_quota) GTEST_SKIP() << "needs the cpu controller";
  auto spec = bench.spec(bench.add_code("echo ready; while :; do :; done"));
  spec.cpu_milli = 100;
  auto started = bench.start(spec);
  ASSERT_TRUE(started.ok());
  test::read_output(started->output.get(), "ready");
  std::this_thread::sleep_for(milliseconds(300));
  const auto free_use = started->cpu_used();
  EXPECT_GT(free_use, milliseconds(40));  // no quota during init; the machine may be busy
  ASSERT_TRUE(started->throttle().ok());
  std::this_thread::sleep_for(milliseconds(200));
  const auto before = started->cpu_used();
  std::this_thread::sleep_for(milliseconds(1000));
  EXPECT_LT(started->cpu_used() - before, milliseconds(250));
  bench.launcher().kill(spec.id);
}

TEST_F(LauncherTest, MeasuresAnonymousMemoryAndNotTheFileCache) {
  auto spec = python(
      "import sys\nf = open('/tmp/f','wb')\nfor i in range(40): f.write(b'x' * 1000000)\nf.close()\nf = open('/tmp/f','rb')\nwhile "
      "f.read(1000000): pass\nx = bytearray(50 * 1024 * 1024)\nprint('up', flush=True)\nsys.stdin.read()\nimport time; "
      "time.sleep(0.2)\ndel x\nprint('down', flush=True)\ntime.sleep(1000)");
  auto started = bench.start(spec);
  ASSERT_TRUE(started.ok());
  test::read_output(started->output.get(), "up");
  EXPECT_GT(started->memory_used(), 50 * kMiB);
  EXPECT_LT(started->memory_used(), 75 * kMiB);
  test::read_output(started->output.get(), "down");
  EXPECT_LT(started->memory_used(), 30 * kMiB);
  EXPECT_GT(started->memory_peak(), 50 * kMiB);
  EXPECT_LT(started->memory_peak(), 110 * kMiB);
  bench.launcher().kill(spec.id);
}

TEST_F(LauncherTest, LeavesOnlyTheDescriptorsThatAreMeant) {
  const auto ending =
      bench.run(python("import os\nfor fd in range(1024):\n  try: os.fstat(fd); print(fd, "
                       "os.readlink(f'/proc/self/fd/{fd}').split(':')[0])\n  except OSError: pass"));
  EXPECT_EQ(ending.output, "0 /dev/null\n1 pipe\n2 pipe\n3 pipe\n4 pipe\n5 pipe\n");
}

TEST_F(LauncherTest, TheMainProcessAndTheServerTalkThroughTheControlPipes) {
  auto started =
      bench.start(bench.spec(bench.add_code("echo $_MAYFLY_CONTROL_FDS; read word <&4; echo you said $word >&5; read x <&4; echo end")));
  ASSERT_TRUE(started.ok());
  ASSERT_EQ(write(started->control_out.get(), "hello\n", 6), 6);
  EXPECT_EQ(test::read_output(started->control_in.get(), "\n"), "you said hello\n");
  EXPECT_EQ(fcntl(started->control_out.get(), F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  started->control_out.reset();
  EXPECT_EQ(test::read_output(started->output.get()), "4,5\nend\n") << "the program sees the end of its pipe";
}

TEST_F(LauncherTest, CompanionsHaveNoPartInTheControlPipes) {
  auto spec = bench.spec(bench.add_code("sleep 60"));
  spec.layer_ids = {
      bench.add_tree({{"one", "#!/bin/sh\necho [$_MAYFLY_CONTROL_FDS] $(readlink /proc/self/fd/4) $(readlink /proc/self/fd/5)\n"}})};
  spec.companions = {"/opt/one"};
  auto started = bench.start(spec);
  ASSERT_TRUE(started.ok()) << started.error().to_string();
  EXPECT_EQ(test::read_output(started->companion_output.get(), "\n"), "[] /dev/null /dev/null\n");
}

TEST_F(LauncherTest, TheFramedLogIsAPipeOfItsOwn) {
  auto started = bench.start(bench.spec(bench.add_code("echo framed >&$_LAMBDA_TELEMETRY_LOG_FD; echo plain; echo again >/dev/stderr")));
  ASSERT_TRUE(started.ok());
  EXPECT_EQ(test::read_output(started->framed_log.get()), "framed\n");
  EXPECT_EQ(test::read_output(started->output.get()), "plain\nagain\n");
}

TEST_F(LauncherTest, GivesAReadOnlyRootAndAPrivateTmp) {
  const auto ending = bench.run(
      "touch /x /etc/x /var/task/x /opt/x /usr/x /var/runtime/x /dev/x 2>/dev/null && echo writable; touch /tmp/x && echo tmp; "
      "for f in /etc/shadow /root/.profile /home/x /proc/1/environ /proc/1/root /proc/kcore /proc/keys /proc/sys/kernel/core_pattern; do "
      "  test -e $f && (cat $f 2>/dev/null | grep -q . && test ! -c $f && test $f != /proc/sys/kernel/core_pattern && echo readable $f); "
      "done; "
      "echo x > /proc/sys/kernel/core_pattern; echo b > /proc/sysrq-trigger; mount | grep -E ' / ' | grep -c '(ro,'; ls /sys 2>/dev/null; "
      "true");
  EXPECT_EQ(ending.output.find("writable"), std::string::npos) << ending.output;
  EXPECT_EQ(ending.output.find("readable"), std::string::npos) << ending.output;
  EXPECT_NE(ending.output.find("tmp\n"), std::string::npos) << ending.output;
}

TEST_F(LauncherTest, RunsWithoutAnyPrivilege) {
  const auto ending =
      bench.run("grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups|Uid)' /proc/self/status | tr -d ' \\t'; ulimit -c; ulimit -l; id -un; hostname");
  for (const char* expected : {"CapInh:0000000000000000", "CapPrm:0000000000000000", "CapEff:0000000000000000", "CapBnd:0000000000000000",
                               "CapAmb:0000000000000000", "NoNewPrivs:1", "Seccomp:2", "Groups:\n", "0\n64\nsbx_user1051\nsandbox\n"}) {
    EXPECT_NE(ending.output.find(expected), std::string::npos) << expected << " in " << ending.output;
  }
  EXPECT_EQ(ending.output.find("Uid:0"), std::string::npos);
}

// Each line: a name, the errno. Run inside, where all must be refused, and outside as the positive control.
constexpr const char* kProbe = R"(
import ctypes, os, socket, errno
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *args):
    ctypes.set_errno(0)
    r = libc.syscall(number, *args)
    print(name, 'ok' if r >= 0 else errno.errorcode.get(ctypes.get_errno(), ctypes.get_errno()))
call('unshare_files', 272, 0x400)
call('setns', 308, 0, 0)
call('mount', 165, b'none', b'/tmp', b'tmpfs', 0, 0)
call('fsopen', 430, b'tmpfs', 0)
call('open_tree', 428, -100, b'/', 1)
call('pivot_root', 155, b'/', b'/')
call('chroot', 161, b'/')
call('ptrace', 101, 2, os.getppid(), 0, 0)
call('process_vm_readv', 310, os.getppid(), 0, 0, 0, 0, 0)
call('pidfd_getfd', 438, 0, 0, 0)
call('bpf', 321, 0, 0, 0)
call('perf_event_open', 298, 0, 0, -1, -1, 0)
call('userfaultfd', 323, 0)
call('keyctl', 250, 0, -3, 0)
call('add_key', 248, b'user', b'x', b'y', 1, -3)
call('io_uring_setup', 425, 1, 0)
call('open_by_handle_at', 304, -100, 0, 0)
call('kexec_load', 246, 0, 0, 0, 0)
call('init_module', 175, 0, 0, b'')
call('modify_ldt', 154, 0, 0, 0)
call('personality', 135, 0x0040000)
call('clone3', 435, 0, 0)
call('mknod_block', 133, b'/tmp/b', 0o60600, 0x700)
call('unknown', 999)
for family, kind, proto in ((17, 3, 0), (38, 5, 0), (40, 1, 0), (16, 3, 12), (2, 3, 1)):
    try: socket.socket(family, kind, proto); print('socket', family, proto, 'ok')
    except OSError as e: print('socket', family, proto, errno.errorcode[e.errno])
for family, kind, proto in ((1, 1, 0), (2, 1, 0), (10, 1, 0), (16, 3, 0)):
    try: socket.socket(family, kind, proto); print('allowed', family, 'ok')
    except OSError as e: print('allowed', family, errno.errorcode[e.errno])
call('unshare_user', 272, 0x10000000)
)";

TEST_F(LauncherTest, RefusesTheSystemCallsThatLeadOut) {
  const auto inside = bench.run(python(kProbe));
  EXPECT_EQ(inside.exited.exit_code, 0) << inside.output;
  std::istringstream lines(inside.output);
  int seen = 0;
  for (std::string line; std::getline(lines, line); ++seen) {
    if (line.starts_with("allowed"))
      EXPECT_TRUE(line.ends_with("ok")) << line;
    else if (line.starts_with("clone3") || line.starts_with("personality") || line.starts_with("unknown"))
      EXPECT_TRUE(line.ends_with("ENOSYS")) << line;
    else if (line.starts_with("socket 2 "))
      EXPECT_TRUE(line.ends_with("EPERM")) << line;  // a raw socket: the missing capability
    else if (line.starts_with("socket"))
      EXPECT_TRUE(line.ends_with("EAFNOSUPPORT")) << line;
    else
      EXPECT_TRUE(line.ends_with("EPERM")) << line;
  }
  EXPECT_GT(seen, 30);
}

// The same calls made by root outside of a sandbox, in a mount namespace of its own: they are refused inside by Mayfly, not by this host.
TEST_F(LauncherTest, TheRefusedSystemCallsWorkOutside) {
  const std::string script = directory.path() + "/probe.py";
  const std::string answers = directory.path() + "/answers";
  std::ofstream(script) << kProbe;
  const pid_t pid = fork();
  if (pid == 0) {
    const int out = open(answers.c_str(), O_CREAT | O_WRONLY, 0600);
    const bool ready = unshare(CLONE_NEWNS) == 0 && mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 && dup2(out, 1) == 1;
    if (ready) execl("/usr/bin/python3", "python3", script.c_str(), nullptr);
    _exit(1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  std::stringstream text;
  text << std::ifstream(answers).rdbuf();
  for (const char* expected : {"unshare_files ok", "mount ok", "fsopen ok", "open_tree ok", "chroot ok", "personality ok", "socket 17 0 ok",
                               "socket 16 12 ok", "socket 2 1 ok"}) {
    EXPECT_NE(text.str().find(expected), std::string::npos) << expected << " in " << text.str();
  }
  for (const char* refused : {"bpf EPERM", "perf_event_open EPERM", "io_uring_setup EPERM", "keyctl EPERM", "modify_ldt EPERM",
                              "pidfd_getfd EPERM", "process_vm_readv EPERM"}) {
    EXPECT_EQ(text.str().find(refused), std::string::npos) << refused;
  }
}

TEST_F(LauncherTest, KillsCallsOfOtherArchitectures) {
  // getpid through int 0x80, as i386: a filter that looks at numbers only would let 20 pass as writev.
  const auto ending = bench.run(python(R"(
import ctypes, mmap
m = mmap.mmap(-1, 4096, prot=7)
m.write(b'\xb8\x14\x00\x00\x00\xcd\x80\xc3')
f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))
print('pid', f(), flush=True)
)"));
  EXPECT_EQ(ending.output, "");
  EXPECT_EQ(ending.exited.signal, SIGSYS);
}

TEST_F(LauncherTest, TwoSandboxesDoNotSeeEachOther) {
  auto first = bench.start(python(
      "import socket, os, time\ns = socket.socket(socket.AF_UNIX); s.bind('\\0hidden'); s.listen(); open('/tmp/secret','w').write('x')\n"
      "from ctypes import *\nprint('uid', os.getuid(), flush=True)\ntime.sleep(1000)"));
  ASSERT_TRUE(first.ok());
  const std::string uid = test::read_output(first->output.get(), "\n");
  const auto second =
      bench.run(python("import socket, os\nprint('uid', os.getuid())\nprint(sorted(p for p in os.listdir('/proc') if p.isdigit()))\n"
                       "print(os.listdir('/tmp'))\ns = socket.socket(socket.AF_UNIX)\ntry: s.connect('\\0hidden'); "
                       "print('reached')\nexcept OSError as e: print('refused')\n"
                       "try: os.kill(-1, 9); print('killed')\nexcept OSError: print('nobody')"));
  EXPECT_EQ(second.output.find(uid), std::string::npos) << second.output;
  EXPECT_NE(second.output.find("['2']\n[]\nrefused\n"), std::string::npos) << second.output;
  EXPECT_EQ(second.output.find("reached"), std::string::npos);
  EXPECT_TRUE(first->cpu_used() > milliseconds(0));
  bench.launcher().kill(first->id);
  EXPECT_TRUE(bench.wait_exit(first->id)->killed);
}

TEST_F(LauncherTest, ExpectedSandboxesAreMadeBeforeAnybodyAsksForOne) {
  MAYFLY_NEEDS_ROOT();
  bench.close();
  const auto usual = bench.spec("");
  bench.config.expected = {
      {.root_id = usual.root_id, .network = usual.network, .tmp_bytes = usual.tmp_bytes, .connectors = usual.connectors},
      {.root_id = "unknown"}};
  ASSERT_TRUE(bench.open());
  const auto made = [&] {
    return std::ranges::any_of(std::array{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"}, [&](const char* mount) {
      return std::filesystem::exists(std::string(mount) + "/mayfly-" + bench.config.instance + "/1");
    });
  };
  for (int i = 0; i < 1000 && !made(); ++i) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_TRUE(made());
  EXPECT_EQ(bench.run("echo well").output, "well\n");
}

// Sets how many more descriptors `process` may open.
void leave_room_for_descriptors(pid_t process, int room) {
  std::set<int> open;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(process) + "/fd"))
    open.insert(std::atoi(entry.path().filename().c_str()));
  int most = 0;
  for (; room > 0; ++most) room -= open.contains(most) ? 0 : 1;
  rlimit limit{};
  ASSERT_EQ(prlimit(process, RLIMIT_NOFILE, nullptr, &limit), 0);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, static_cast<rlim_t>(most));
  ASSERT_EQ(prlimit(process, RLIMIT_NOFILE, &limit, nullptr), 0);
}

TEST_F(LauncherTest, AnExhaustedLimitOfDescriptorsFailsTheStartsItMeetsAndNothingElse) {
  MAYFLY_NEEDS_ROOT();
  auto bystander = bench.start(bench.spec(bench.add_code("read x <&4; echo still here")));
  ASSERT_TRUE(bystander.ok());
  constexpr int kAmple = 1000;
  constexpr int kRooms[] = {1, 4, 9, 14, 19, 24, 29};
  for (const pid_t process : {bench.launcher_pid(), getpid()}) {
    int refused = 0;
    for (const int room : kRooms) {
      // Not from the stock: what it has is used up first, so that descriptors of new ones must travel.
      for (int i = 0; i < 3; ++i) {
        auto wanted = bench.spec(bench.add_code("true"));
        leave_room_for_descriptors(process, room);
        auto started = bench.start(wanted);
        leave_room_for_descriptors(process, kAmple);
        if (started.ok()) {
          EXPECT_TRUE(bench.wait_exit(wanted.id));
          continue;
        }
        ++refused;
        EXPECT_NE(started.error().code(), base::ErrorCode::kDeadlineExceeded) << started.error().message();
      }
    }
    EXPECT_GT(refused, 0);
    EXPECT_EQ(bench.run("echo well").output, "well\n");
  }
  ASSERT_EQ(write(bystander->control_out.get(), "\n", 1), 1);
  EXPECT_EQ(test::read_output(bystander->output.get()), "still here\n");
}

TEST_F(LauncherTest, HandsOutTheRuntimeListenerOfTheSandbox) {
  auto spec = python(
      "import socket\ns = socket.create_connection(('169.254.100.1', 9001))\ns.sendall(b'ping')\nprint(s.recv(10).decode(), "
      "socket.gethostbyname('sandbox.localdomain'))");
  auto started = bench.start(spec);
  ASSERT_TRUE(started.ok());
  pollfd ready{.fd = started->runtime_api.get(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&ready, 1, 10'000), 1);
  const base::UniqueFd peer(accept(started->runtime_api.get(), nullptr, nullptr));
  ASSERT_TRUE(peer.valid());
  EXPECT_EQ(send(peer.get(), "pong", 4, 0), 4);
  EXPECT_EQ(test::read_output(started->output.get()), "pong 169.254.100.1\n");
  EXPECT_FALSE(started->dns_udp.valid());  // Network::kNone
}

TEST_F(LauncherTest, MergesLayersWithLaterOnesOnTop) {
  const auto low = bench.add_tree({{"python/a.py", "low a"}, {"python/b.py", "low b"}});
  const auto high = bench.add_tree({{"python/b.py", "high b"}, {"bin/tool", "#!/bin/sh\necho tool"}});
  auto spec = bench.spec(
      bench.add_code("cat /opt/python/a.py; echo; cat /opt/python/b.py; echo; /opt/bin/tool; touch /opt/x 2>/dev/null || echo read-only"));
  spec.layer_ids = {low, high};
  EXPECT_EQ(bench.run(spec).output, "low a\nhigh b\ntool\nread-only\n");
  auto single = bench.spec(bench.add_code("ls /opt"));
  single.layer_ids = {high};
  EXPECT_EQ(bench.run(single).output, "bin\npython\n");
}

TEST_F(LauncherTest, KeepsTheUsersApartInTime) {
  std::set<std::string> users;
  for (int i = 0; i < 5; ++i) users.insert(bench.run("id -u").output);
  EXPECT_EQ(users.size(), 5U);
}

TEST_F(LauncherTest, DeletesCodeOnlyWhenNoSandboxUsesIt) {
  const auto id = bench.add_code("echo ready; sleep 1000");
  auto started = bench.start(bench.spec(id));
  ASSERT_TRUE(started.ok());
  test::read_output(started->output.get(), "ready");
  bench.launcher().remove_code(id);
  (void)bench.run("true");  // the launcher has handled everything before
  EXPECT_TRUE(std::filesystem::exists(bench.config.code_directory + "/" + id));
  bench.launcher().kill(started->id);
  ASSERT_TRUE(bench.wait_exit(started->id));
  (void)bench.run("true");
  EXPECT_FALSE(std::filesystem::exists(bench.config.code_directory + "/" + id));
}

TEST_F(LauncherTest, LeavesNothingBehindAfterSandboxesEndAndAfterItsOwnEnd) {
  for (int i = 0; i < 5; ++i) (void)bench.run("echo x > /tmp/x");
  auto started = bench.start(bench.spec(bench.add_code("sleep 1000")));
  ASSERT_TRUE(started.ok());
  bench.close();
  const auto left = test::wait_for_no_leftovers(bench.config.instance, directory.path());
  EXPECT_TRUE(left.empty()) << left.size() << " left, such as " << left.front();
}

TEST_F(LauncherTest, AfterAKilledLauncherNothingRunsAndTheNextOneCleansUp) {
  auto started = bench.start(bench.spec(bench.add_code("echo ready; (setsid sleep 1000 &) ; sleep 1000")));
  ASSERT_TRUE(started.ok());
  test::read_output(started->output.get(), "ready");
  std::filesystem::create_directories(bench.config.code_directory + "/" + std::string(64, 'b') + ".tmp-123");
  ASSERT_GT(bench.launcher_pid(), 0);
  ASSERT_EQ(kill(bench.launcher_pid(), SIGKILL), 0);
  EXPECT_EQ(test::read_output(started->output.get()), "");  // end of file: every process is gone
  EXPECT_FALSE(bench.pump([] { return false; }, seconds(5)));
  EXPECT_FALSE(bench.launcher().receive().ok());
  EXPECT_FALSE(bench.launcher().start(bench.spec(std::string(64, '0'))).ok());
  bench.close();
  EXPECT_FALSE(test::leftovers(bench.config.instance, directory.path()).empty()) << "the control: groups of the killed launcher are there";
  ASSERT_TRUE(bench.open());
  EXPECT_EQ(bench.run("echo works").output, "works\n");
  bench.close();
  const auto left = test::wait_for_no_leftovers(bench.config.instance, directory.path());
  EXPECT_TRUE(left.empty()) << left.front();
  EXPECT_FALSE(std::filesystem::exists(bench.config.code_directory + "/" + std::string(64, 'b') + ".tmp-123"));
}

TEST_F(LauncherTest, FailsCleanlyAtEveryStepBetweenCloneAndExec) {
  bench.close();
  for (std::int32_t step = 1; step < static_cast<std::int32_t>(internal::Step::kCount); ++step) {
    internal::fail_step_for_test = static_cast<internal::Step>(step);
    ASSERT_TRUE(bench.open());
    const auto spec = bench.spec(bench.add_code("sleep 1000"));
    const auto started = bench.start(spec);
    ASSERT_FALSE(started.ok()) << "step " << step;
    EXPECT_NE(started.error().message().find(internal::step_name(static_cast<internal::Step>(step))), std::string::npos)
        << started.error().to_string();
    bench.close();
    const auto left = test::wait_for_no_leftovers(bench.config.instance, directory.path());
    EXPECT_TRUE(left.empty()) << "step " << step << ": " << left.front();
  }
  internal::fail_step_for_test = internal::Step::kNone;
  ASSERT_TRUE(bench.open());
  EXPECT_EQ(bench.run("echo works").output, "works\n");
}

TEST_F(LauncherTest, ProgramsThatEndAtOnceAreStartedAndExited) {
  constexpr int kCount = 120, kAtOnce = 8;
  const auto code = bench.add_tree({{"empty", ""}});
  int started = 0, exited = 0, asked = 0;
  const auto ask = [&] {
    auto spec = bench.spec(code);
    spec.id = static_cast<SandboxId>(1000 + ++asked);
    spec.arguments = {"/bin/true"};
    ASSERT_TRUE(bench.launcher().start(spec).ok());
  };
  for (int i = 0; i < kAtOnce; ++i) ask();
  while (exited < kCount) {
    pollfd ready{.fd = bench.launcher().fd(), .events = POLLIN, .revents = 0};
    ASSERT_EQ(poll(&ready, 1, 20'000), 1) << started << " started, " << exited << " exited of " << asked;
    auto events = bench.launcher().receive();
    ASSERT_TRUE(events.ok());
    for (const auto& event : *events) {
      if (const auto* failed = std::get_if<SandboxFailed>(&event)) FAIL() << failed->error.message();
      started += std::holds_alternative<SandboxStarted>(event) ? 1 : 0;
      const auto* end = std::get_if<SandboxExited>(&event);
      if (end == nullptr) continue;
      EXPECT_EQ(end->exit_code, 0);
      if (++exited + kAtOnce <= kCount) ask();
    }
  }
  EXPECT_EQ(started, kCount);
}

// All processes below `pid`.
std::vector<pid_t> descendants(pid_t pid) {
  std::vector<pid_t> found;
  const std::string text = std::to_string(pid);
  std::ifstream children("/proc/" + text + "/task/" + text + "/children");
  for (pid_t child = 0; children >> child;) {
    found.push_back(child);
    for (const pid_t below : descendants(child)) found.push_back(below);
  }
  return found;
}

TEST_F(LauncherTest, WhatWaitsForCodeHasNoPrivilegeAnyMore) {
  EXPECT_EQ(bench.run("true").exited.exit_code, 0);  // from now on some are kept
  std::vector<std::string> seen;
  for (int i = 0; i < 200 && seen.size() < 4; ++i) {
    std::this_thread::sleep_for(milliseconds(25));
    seen.clear();
    for (const pid_t pid : descendants(bench.launcher_pid())) {
      std::ifstream file("/proc/" + std::to_string(pid) + "/status");
      const std::string status(std::istreambuf_iterator<char>(file), {});
      const auto ids = status.find("NSpid:");
      const bool inside = ids != std::string::npos && std::ranges::count(status.substr(ids, status.find('\n', ids) - ids), '\t') > 1;
      if (inside && status.find("Seccomp:\t2") != std::string::npos) seen.push_back(status);
    }
  }
  ASSERT_GE(seen.size(), 4U) << "two sandboxes, each with two processes";
  for (const auto& status : seen) {
    for (const char* line : {"CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"})
      EXPECT_NE(status.find(line), std::string::npos) << line << " is not so:\n" << status;
    if (test::is_root()) EXPECT_EQ(status.find("Uid:\t0"), std::string::npos) << status;
  }
}

TEST_F(LauncherTest, AStartThatStillWaitsCanBeTakenBack) {
  const auto code = bench.add_code("sleep 1000");
  std::vector<SandboxSpec> specs;
  for (int i = 0; i < 40; ++i) {
    specs.push_back(bench.spec(code));
    ASSERT_TRUE(bench.launcher().start(specs.back()).ok());
    bench.launcher().kill(specs.back().id);
  }
  for (const auto& spec : specs) {
    // Either it never began, or it began and was killed: one of both is told.
    const auto answer = bench.wait_answer(spec.id);
    if (answer.ok()) {
      const auto exited = bench.wait_exit(spec.id);
      ASSERT_TRUE(exited);
      EXPECT_TRUE(exited->killed);
    }
  }
  EXPECT_EQ(bench.run("echo works").output, "works\n");
}

TEST_F(LauncherTest, WhatIsKeptForOthersIsLetGoOfAlsoWhileSandboxesAreStartedAllTheTime) {
  MAYFLY_NEEDS_ROOT();
  if (!bench.launcher().capabilities().disk_tmp) GTEST_SKIP() << "nothing is kept of a /tmp in memory";
  constexpr std::ptrdiff_t kCount = 16;
  const auto images = [&] {
    const auto found = test::leftovers(bench.config.instance, bench.config.scratch_directory);
    return std::ranges::count_if(found, [](const std::string& one) { return one.starts_with("loop "); });
  };
  const auto code = bench.add_code("echo up; sleep 1000");
  std::vector<Sandbox> running;
  for (std::ptrdiff_t i = 0; i < kCount; ++i) {
    auto spec = bench.spec(code);
    spec.tmp_bytes += kMiB;  // of no use to those that follow
    auto started = bench.start(spec);
    ASSERT_TRUE(started.ok()) << started.error().to_string();
    running.push_back(std::move(started).value());
  }
  for (const auto& one : running) EXPECT_EQ(test::read_output(one.output.get(), "up\n"), "up\n");
  for (const auto& one : running) bench.launcher().kill(one.id);
  for (const auto& one : running) EXPECT_TRUE(bench.wait_exit(one.id));
  running.clear();
  const auto quick = bench.add_code("true");
  EXPECT_EQ(bench.run(bench.spec(quick)).exited.exit_code, 0);
  const auto before = images();
  ASSERT_GE(before, kCount) << "control: they are kept";
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(40);
  while (images() > before - kCount / 2 && std::chrono::steady_clock::now() < end)
    EXPECT_EQ(bench.run(bench.spec(quick)).exited.exit_code, 0);
  EXPECT_LE(images(), before - kCount / 2);
}

TEST_F(LauncherTest, ServesManySandboxesAtOnce) {
  constexpr int kCount = 30;
  const auto code = bench.add_code("echo up; sleep 1000");
  std::vector<Sandbox> running;
  for (int i = 0; i < kCount; ++i) {
    auto started = bench.start(bench.spec(code));
    ASSERT_TRUE(started.ok()) << started.error().to_string();
    running.push_back(std::move(started).value());
  }
  for (const auto& one : running) EXPECT_EQ(test::read_output(one.output.get(), "up\n"), "up\n");
  for (const auto& one : running) bench.launcher().kill(one.id);
  for (const auto& one : running) EXPECT_TRUE(bench.wait_exit(one.id));
}

// The rest needs processes of its own: a server that is killed, that gives up root, that never was root.

// Runs `body` in a forked child; its exit status.
int in_child(const std::function<int()>& body) {
  const pid_t pid = fork();
  if (pid == 0) {
    const int code = body();
    std::cout.flush();
    _exit(code);
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#define CHILD_EXPECT(condition)                                                       \
  do {                                                                                \
    if (!(condition)) {                                                               \
      std::cerr << __FILE__ << ":" << __LINE__ << ": not so: " << #condition << "\n"; \
      return 1;                                                                       \
    }                                                                                 \
  } while (false)

TEST(LauncherLife, AKilledServerTakesItsSandboxesWithIt) {
  MAYFLY_NEEDS_ROOT();
  const test::TemporaryDirectory directory;
  test::Bench bench(directory.path());
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t server = fork();
  if (server == 0) {
    const auto start = [&] { return bench.start(bench.spec(bench.add_code("(setsid sleep 1000 &) ; touch /tmp/x; sleep 1000"))).ok(); };
    const bool up = bench.open() && start() && start();
    (void)!write(ready[1], up ? "y" : "n", 1);
    pause();
    _exit(0);
  }
  char up = 0;
  ASSERT_EQ(read(ready[0], &up, 1), 1);
  EXPECT_EQ(up, 'y');
  EXPECT_FALSE(test::leftovers(bench.config.instance, directory.path()).empty());
  kill(server, SIGKILL);
  waitpid(server, nullptr, 0);
  const auto left = test::wait_for_no_leftovers(bench.config.instance, directory.path());
  EXPECT_TRUE(left.empty()) << left.front();
}

TEST(LauncherLife, TheServerControlsSandboxesAfterGivingUpRoot) {
  MAYFLY_NEEDS_ROOT();
  const test::TemporaryDirectory outer;
  ASSERT_EQ(chmod(outer.path().c_str(), 0700), 0);  // the server's user cannot walk here
  const std::string data = outer.path() + "/data";
  test::Bench bench(data);
  ASSERT_EQ(chown(data.c_str(), 1200, 1200), 0);
  EXPECT_EQ(in_child([&] {
              CHILD_EXPECT(bench.open());
              const auto path = drop_privileges(1200, 1200, data);
              if (!path.ok()) std::cerr << path.error().to_string() << "\n";
              CHILD_EXPECT(path.ok());
              CHILD_EXPECT(*path != data);
              CHILD_EXPECT(geteuid() == 1200 && getegid() == 1200 && setuid(0) != 0);
              std::ofstream(*path + "/written") << "x";
              CHILD_EXPECT(std::filesystem::exists(*path + "/written"));
              CHILD_EXPECT(std::ifstream("/etc/resolv.conf").good() || !std::filesystem::exists("/etc/resolv.conf"));
              CHILD_EXPECT(!std::filesystem::exists(*path + "/../../etc/shadow") || access("/etc/shadow", R_OK) != 0);
              // The code was put there before: the bench cannot write any more.
              return 0;
            }),
            0);
  EXPECT_TRUE(std::filesystem::exists(data + "/written"));
  EXPECT_EQ(in_child([&] {
              CHILD_EXPECT(bench.open());
              const auto code = bench.add_code("echo ready; while :; do echo tick; sleep 0.01; done");
              CHILD_EXPECT(drop_privileges(1200, 1200, data).ok());
              auto started = bench.start(bench.spec(code));
              CHILD_EXPECT(started.ok());
              CHILD_EXPECT(!test::read_output(started->output.get(), "tick").empty());
              CHILD_EXPECT(started->freeze().ok());
              std::this_thread::sleep_for(milliseconds(50));
              (void)test::read_output(started->output.get(), {}, milliseconds(50));
              CHILD_EXPECT(test::read_output(started->output.get(), {}, milliseconds(200)).empty());
              CHILD_EXPECT(started->thaw().ok());
              CHILD_EXPECT(started->throttle().ok());
              CHILD_EXPECT(!test::read_output(started->output.get(), "tick").empty());
              CHILD_EXPECT(started->memory_used() > 0 && started->memory_peak() > 0);
              CHILD_EXPECT(started->cpu_used() > milliseconds(0));
              CHILD_EXPECT(started->oom_kills() == 0);
              bench.launcher().kill(started->id);
              CHILD_EXPECT(bench.wait_exit(started->id));
              bench.close();
              return 0;
            }),
            0);
  const auto left = test::wait_for_no_leftovers(bench.config.instance, data);
  EXPECT_TRUE(left.empty()) << left.front();
}

TEST(LauncherLife, WorksForAnOrdinaryUserWhereUserNamespacesAllowIt) {
  MAYFLY_NEEDS_ROOT();  // to become an ordinary user of its own
  const test::TemporaryDirectory directory;
  test::Bench bench(directory.path() + "/data");
  ASSERT_EQ(lchown(directory.path().c_str(), 1300, 1300), 0);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory.path()))
    ASSERT_EQ(lchown(entry.path().c_str(), 1300, 1300), 0);
  EXPECT_EQ(
      in_child([&] {
        CHILD_EXPECT(setgid(1300) == 0 && setuid(1300) == 0);
        CHILD_EXPECT(bench.open());
        const auto code = bench.add_code(
            "id -un; echo $$; touch /var/task/x 2>/dev/null || echo read-only; echo x > /tmp/x && cat /tmp/x; ls /proc | grep -c '^[0-9]'; "
            "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t'; test -r /etc/shadow && echo shadow; exit 5");
        const auto sleeper = bench.add_code("(setsid sleep 1000 &); echo ready; sleep 1000");
        const auto& host = bench.launcher().capabilities();
        CHILD_EXPECT(!host.privileged && host.user_namespaces && !host.disk_tmp && !host.outside_network);
        CHILD_EXPECT(!host.notes.empty());
        const auto ending = bench.run(bench.spec(code));
        CHILD_EXPECT(ending.exited.exit_code == 5);
        CHILD_EXPECT(ending.output.find("read-only\nx\n") != std::string::npos && ending.output.starts_with("sbx_user1051\n2\n"));
        CHILD_EXPECT(ending.output.find("CapEff:0000000000000000\nCapBnd:0000000000000000\nNoNewPrivs:1\nSeccomp:2\n") !=
                     std::string::npos);
        CHILD_EXPECT(ending.output.find("shadow") == std::string::npos);
        auto started = bench.start(bench.spec(sleeper));
        CHILD_EXPECT(started.ok());
        test::read_output(started->output.get(), "ready");
        CHILD_EXPECT(started->memory_used() > 0);
        CHILD_EXPECT(started->freeze().ok() && started->thaw().ok());
        bench.launcher().kill(started->id);
        CHILD_EXPECT(bench.wait_exit(started->id)->killed);
        bench.close();
        return 0;
      }),
      0);
  const auto left = test::wait_for_no_leftovers(bench.config.instance, directory.path());
  EXPECT_TRUE(left.empty()) << left.front();
}

TEST(LauncherLife, HoldsAnonymousMemoryToItsLimitWhereTmpIsMemoryToo) {
  MAYFLY_NEEDS_ROOT();
  const test::TemporaryDirectory directory;
  test::Bench bench(directory.path());
  const std::string shm = "/dev/shm/mayfly-test-" + bench.config.instance;
  std::filesystem::create_directories(shm);
  bench.config.scratch_directory = shm;
  ASSERT_TRUE(bench.open());
  EXPECT_FALSE(bench.launcher().capabilities().disk_tmp);
  auto fills = bench.spec(bench.add_code("dd if=/dev/zero of=/tmp/a bs=1M 2>&1 | grep -o 'No space'; echo lives"));
  fills.tmp_bytes = 200 * kMiB;
  fills.memory_bytes = 64 * kMiB;
  EXPECT_EQ(bench.run(fills).output, "No space\nlives\n");
  auto eats = bench.spec(bench.add_tree({{"run.py", "import time\nx = bytearray(150 * 1024 * 1024)\ntime.sleep(10)\nprint('never')"}}));
  eats.arguments = {"/usr/bin/python3", "/var/task/run.py"};
  eats.tmp_bytes = 200 * kMiB;
  eats.memory_bytes = 64 * kMiB;
  const auto ending = bench.run(eats);
  EXPECT_TRUE(ending.exited.out_of_memory);
  EXPECT_EQ(ending.output, "");
  bench.close();
  std::filesystem::remove_all(shm);
}

}  // namespace
}  // namespace mayfly::sandbox
