// Stems and zygotes against the real launcher. The zygote here is a Python program of a few lines: what it loads besides is the runtimes'
// business and tested there.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <ranges>
#include <sstream>

#include "sandbox/internal/test_support.h"

namespace mayfly::sandbox {
namespace {

using base::ErrorCode;

constexpr std::uint64_t kMiB = 1ULL << 20U;

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Forks, then does what it is told line by line over the control pipe, as Python.
constexpr std::string_view kProgram = R"(
import ctypes, os, random, sys
library = ctypes.PyDLL('/var/runtime/native/libmayfly_zygote.so')
mode = open('/var/runtime/mode').read()
if mode == 'dies': sys.exit(3)
ctypes.pythonapi.PyOS_BeforeFork()
library.mayfly_fork_into_sandboxes(int(os.environ['_MAYFLY_ZYGOTE']))
ctypes.pythonapi.PyOS_AfterFork_Child()
commands = os.fdopen(4)
for line in commands:
    try:
        print(eval(line), flush=True)
    except BaseException as error:
        print(type(error).__name__, error, flush=True)
)";

std::string python_program() {
  for (const char* path : {"/usr/bin/python3"}) {
    std::error_code error;
    if (std::filesystem::exists(path, error)) return std::filesystem::canonical(path).string();
  }
  return {};
}

class StemsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    bench.config.zygote_files = files;
    bench.config.zygote_programs = {zygote().program};
  }
  void TearDown() override {
    bench.close();
    EXPECT_TRUE(test::wait_for_no_leftovers(bench.config.instance, directory.path()).empty());
  }

  SandboxSpec stem(std::vector<std::string> arguments = {"/bin/sh", "-c", "read line <&4; cd /var/task; . ./run.sh"}) {
    auto spec = bench.spec("");
    spec.stem = true;
    spec.arguments = std::move(arguments);
    spec.working_directory = "/";
    return spec;
  }
  Specialisation become(SandboxId stem, const std::string& code) {
    return {.stem = stem, .id = stem + 1000, .code_id = code, .layer_ids = {}, .memory_bytes = 64 * kMiB, .cpu_milli = 500};
  }
  ZygoteSpec zygote() {
    return {
        .id = 5000 + zygotes++,
        .program = {.root_id = "host", .arguments = {python_program(), "-IS", "/var/runtime/zygote.py"}, .environment = {"WHO=zygote"}}};
  }
  // What the child of a zygote answers to a line of Python.
  static std::string ask(const Sandbox& child, const std::string& what) {
    (void)!write(child.control_out.get(), (what + "\n").c_str(), what.size() + 1);
    std::string answer = test::read_output(child.output.get(), "\n");
    if (answer.ends_with('\n')) answer.pop_back();
    return answer;
  }

  test::TemporaryDirectory directory;
  test::Bench bench{directory.path()};
  std::array<base::EmbeddedFile, 2> files{
      {{.name = "zygote.py", .bytes = kProgram, .mode = 0644}, {.name = "mode", .bytes = "serves", .mode = 0644}}};
  SandboxId zygotes = 0;
};

TEST_F(StemsTest, AStemHasNoCodeUntilItBecomesAFunctions) {
  ASSERT_TRUE(bench.open());
  auto started = bench.start(stem({"/bin/sh", "-c", "ls -A /var/task /opt; echo waits; read line <&4; cd /var/task; . ./run.sh"}));
  ASSERT_TRUE(started.ok()) << started.error().to_string();
  EXPECT_FALSE(contains(test::read_output(started->output.get(), "waits\n"), "run.sh"));
  auto wanted = become(started->id, bench.add_code("echo code ran; ls /opt"));
  wanted.layer_ids = {bench.add_tree({{"from-a-layer", "x"}})};
  const auto done = bench.specialise(wanted);
  ASSERT_TRUE(done.ok()) << done.error().to_string();
  ASSERT_EQ(write(started->control_out.get(), "\n", 1), 1);
  EXPECT_EQ(test::read_output(started->output.get()), "code ran\nfrom-a-layer\n");
  const auto exited = bench.wait_exit(wanted.id);
  ASSERT_TRUE(exited) << "it is called by its new id";
  EXPECT_EQ(exited->exit_code, 0);
}

TEST_F(StemsTest, AStemBecomesAFunctionsOnceOnly) {
  ASSERT_TRUE(bench.open());
  auto started = bench.start(stem());
  ASSERT_TRUE(started.ok());
  const auto code = bench.add_code("sleep 60");
  ASSERT_TRUE(bench.specialise(become(started->id, code)).ok());
  auto again = become(started->id + 1000, code);
  again.id = 77;
  EXPECT_EQ(bench.specialise(again).error().code(), ErrorCode::kNotFound);
  auto unknown = become(4711, code);
  EXPECT_EQ(bench.specialise(unknown).error().code(), ErrorCode::kNotFound);
  bench.launcher().kill(started->id + 1000);
  EXPECT_TRUE(bench.wait_exit(started->id + 1000));
}

TEST_F(StemsTest, OrdinarySandboxesCannotBecomeAnothers) {
  ASSERT_TRUE(bench.open());
  auto started = bench.start(bench.spec(bench.add_code("sleep 60")));
  ASSERT_TRUE(started.ok());
  EXPECT_EQ(bench.specialise(become(started->id, bench.add_code("true"))).error().code(), ErrorCode::kNotFound);
}

TEST_F(StemsTest, AStemWhoseCodeIsMissingIsKilled) {
  ASSERT_TRUE(bench.open());
  auto started = bench.start(stem());
  ASSERT_TRUE(started.ok());
  EXPECT_EQ(bench.specialise(become(started->id, std::string(64, 'f'))).error().code(), ErrorCode::kNotFound);
  EXPECT_TRUE(bench.wait_exit(started->id)) << "by its old id";
}

TEST_F(StemsTest, TheLimitsBecomeTheFunctions) {
  MAYFLY_NEEDS_ROOT();
  ASSERT_TRUE(bench.open());
  if (!bench.launcher().capabilities().memory_limit) GTEST_SKIP() << "no memory controller";
  auto spec = stem({python_program(), "-ISc", "import os\nos.read(4, 1)\nx = bytearray(100 << 20)\nprint('has it all', flush=True)\n"});
  spec.memory_bytes = 1024 * kMiB;
  auto started = bench.start(spec);
  ASSERT_TRUE(started.ok());
  ASSERT_TRUE(bench.specialise(become(started->id, bench.add_code("true"))).ok());
  ASSERT_EQ(write(started->control_out.get(), "\n", 1), 1);
  EXPECT_EQ(test::read_output(started->output.get()), "") << "64 MiB do not hold it";
  const auto exited = bench.wait_exit(started->id + 1000);
  ASSERT_TRUE(exited);
  EXPECT_TRUE(exited->out_of_memory || exited->signal == SIGKILL);
}

TEST_F(StemsTest, TheMemoryLimitMayGrow) {
  MAYFLY_NEEDS_ROOT();
  ASSERT_TRUE(bench.open());
  auto spec = stem();
  spec.memory_bytes = 32 * kMiB;
  auto started = bench.start(spec);
  ASSERT_TRUE(started.ok());
  const auto done = bench.specialise(become(started->id, bench.add_code("true")));
  EXPECT_TRUE(done.ok()) << done.error().to_string();
}

TEST_F(StemsTest, WithoutRootThereAreNoZygotes) {
  if (test::is_root()) GTEST_SKIP() << "runs as root";
  ASSERT_TRUE(bench.open());
  EXPECT_FALSE(bench.launcher().capabilities().zygotes);
  EXPECT_EQ(bench.start_zygote(zygote()).error().code(), ErrorCode::kUnsupported);
}

class ZygoteTest : public StemsTest {
 protected:
  void SetUp() override {
    MAYFLY_NEEDS_ROOT();
    if (python_program().empty()) GTEST_SKIP() << "no /usr/bin/python3";
    StemsTest::SetUp();
  }
  void begin() {
    ASSERT_TRUE(bench.open());
    ASSERT_TRUE(bench.launcher().capabilities().zygotes);
    parent = zygote();
    const auto ready = bench.start_zygote(parent);
    ASSERT_TRUE(ready.ok()) << ready.error().to_string();
  }
  base::Result<Sandbox> fork(bool as_stem = true) {
    auto spec = as_stem ? stem() : bench.spec(bench.add_code("echo of the function"));
    spec.zygote = parent.id;
    return bench.start(spec);
  }
  // The child of the launcher that says so.
  pid_t zygote_pid() const {
    const auto children = [](pid_t pid) {
      std::ifstream file("/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) + "/children");
      return std::vector<pid_t>(std::istream_iterator<pid_t>(file), {});
    };
    for (const pid_t pid : children(bench.launcher_pid())) {
      std::ifstream variables("/proc/" + std::to_string(pid) + "/environ");
      if (contains(std::string(std::istreambuf_iterator<char>(variables), {}), "_MAYFLY_ZYGOTE=3")) return pid;
    }
    return -1;
  }
  ZygoteSpec parent;
};

TEST_F(ZygoteTest, AChildIsInASandboxLikeAnyOther) {
  begin();
  auto child = fork();
  ASSERT_TRUE(child.ok()) << child.error().to_string();
  EXPECT_EQ(ask(*child, "os.getppid()"), "1");
  EXPECT_EQ(ask(*child, "sorted(p for p in os.listdir('/proc') if p.isdigit())"), "['" + ask(*child, "os.getpid()") + "']") << "hidepid";
  EXPECT_EQ(ask(*child, "[l.split()[1] for l in open('/proc/self/status') if l.startswith('Cap')]"),
            "['0000000000000000', '0000000000000000', '0000000000000000', '0000000000000000', '0000000000000000']");
  EXPECT_EQ(ask(*child, "[l.split()[1] for l in open('/proc/self/status') if l.startswith(('NoNewPrivs', 'Seccomp:'))]"), "['1', '2']");
  EXPECT_EQ(ask(*child, "os.getuid() == os.getgid() >= 1879048193 and os.getgroups()"), "[]");
  EXPECT_EQ(ask(*child, "os.getsid(0) == os.getpid()"), "True");
  EXPECT_EQ(ask(*child, "sorted(os.listdir('/var/task')), os.getcwd(), os.uname().nodename"), "([], '/', 'sandbox')");
  EXPECT_EQ(ask(*child, "[fd for fd in range(1024) if os.path.exists(f'/proc/self/fd/{fd}')]"), "[0, 1, 2, 3, 4, 5]");
  EXPECT_EQ(ask(*child, "open('/tmp/mine', 'w').write('x'), os.path.exists('/var/runtime/native')"), "(1, False)")
      << "/var/runtime is not the zygote's";
  EXPECT_EQ(ask(*child, "__import__('resource').getrlimit(7), __import__('resource').getrlimit(4)"), "((1024, 1024), (1, 1))");
  EXPECT_EQ(ask(*child, "all(line.endswith(':/\\n') for line in open('/proc/self/cgroup'))"), "True") << "in all groups, seen from inside";
  EXPECT_EQ(ask(*child, "os.readlink('/proc/self/ns/net') == os.readlink('/proc/1/ns/net')").substr(0, 17), "FileNotFoundError");
}

TEST_F(ZygoteTest, SiblingsShareNothingAndCannotReachEachOther) {
  begin();
  auto one = fork();
  auto two = fork();
  ASSERT_TRUE(one.ok() && two.ok());
  for (const char* space : {"pid", "mnt", "net", "ipc", "uts", "cgroup"}) {
    const std::string link = std::string("os.readlink('/proc/self/ns/") + space + "')";
    EXPECT_NE(ask(*one, link), ask(*two, link)) << space;
  }
  EXPECT_NE(ask(*one, "os.getuid()"), ask(*two, "os.getuid()"));
  EXPECT_NE(ask(*one, "random.random()"), ask(*two, "random.random()"));
  EXPECT_NE(ask(*one, "os.urandom(8)"), ask(*two, "os.urandom(8)"));
  EXPECT_NE(ask(*one, "__import__('ssl').RAND_bytes(8)"), ask(*two, "__import__('ssl').RAND_bytes(8)"));
  EXPECT_NE(ask(*one, "__import__('uuid').uuid4()"), ask(*two, "__import__('uuid').uuid4()"));
  EXPECT_NE(ask(*one, "__import__('tempfile').mktemp()"), ask(*two, "__import__('tempfile').mktemp()"));
  EXPECT_EQ(ask(*one, "open('/tmp/secret', 'w').write('x')"), "1");
  EXPECT_EQ(ask(*two, "os.path.exists('/tmp/secret')"), "False");
  EXPECT_EQ(ask(*one, "[os.kill(p, 9) for p in (2, 3) if p != os.getpid()]"), "ProcessLookupError [Errno 3] No such process");
  EXPECT_EQ(ask(*two, "'lives'"), "lives");
  const std::string enter = "ctypes.CDLL(None, use_errno=True).setns(os.open('/proc/self/ns/net', 0), 0), ctypes.get_errno()";
  EXPECT_EQ(ask(*one, enter), "(-1, 1)") << "the zygote's own right to do so is gone";
  const std::string trace = "ctypes.CDLL(None, use_errno=True).ptrace(16, 1, 0, 0), ctypes.get_errno()";
  EXPECT_EQ(ask(*one, trace), "(-1, 1)");
}

TEST_F(ZygoteTest, AChildBecomesAFunctionsAndItsEndIsTheSandboxes) {
  begin();
  auto child = fork();
  ASSERT_TRUE(child.ok());
  ASSERT_TRUE(bench.specialise(become(child->id, bench.add_code("x"))).ok());
  EXPECT_EQ(ask(*child, "os.listdir('/var/task')"), "['run.sh']");
  (void)ask(*child, "os.system('sleep 60 &')");
  (void)!write(child->control_out.get(), "os._exit(7)\n", 12);
  const auto exited = bench.wait_exit(child->id + 1000);
  ASSERT_TRUE(exited);
  EXPECT_EQ(exited->exit_code, 7);
  EXPECT_FALSE(exited->killed);
}

TEST_F(ZygoteTest, AnEnvironmentIsForkedWithItsCodeAtOnce) {
  begin();
  auto child = fork(false);
  ASSERT_TRUE(child.ok()) << child.error().to_string();
  EXPECT_EQ(ask(*child, "open('/var/task/run.sh').read()"), "echo of the function");
  EXPECT_GT(child->memory_peak(), 0U);
  bench.launcher().terminate(child->id);
  const auto exited = bench.wait_exit(child->id);
  ASSERT_TRUE(exited) << "signals reach the forked process";
  EXPECT_EQ(exited->signal, SIGTERM);
}

TEST_F(ZygoteTest, ManyAreForked) {
  begin();
  for (int i = 0; i < 100; ++i) {
    auto child = fork();
    ASSERT_TRUE(child.ok()) << child.error().to_string();
    EXPECT_EQ(ask(*child, "'here'"), "here");
    bench.launcher().kill(child->id);
    ASSERT_TRUE(bench.wait_exit(child->id));
  }
}

TEST_F(ZygoteTest, ASandboxWhoseZygoteIsGoneFailsAndSaysSo) {
  begin();
  bench.launcher().kill(parent.id);
  ASSERT_TRUE(bench.wait_exit(parent.id));
  auto child = fork();
  ASSERT_FALSE(child.ok());
  EXPECT_EQ(child.error().code(), ErrorCode::kUnavailable);
}

TEST_F(ZygoteTest, AZygoteThatDiesIsToldAndItsChildrenLiveOn) {
  begin();
  auto child = fork();
  ASSERT_TRUE(child.ok());
  ASSERT_EQ(kill(zygote_pid(), SIGKILL), 0);
  ASSERT_TRUE(bench.wait_exit(parent.id));
  EXPECT_EQ(ask(*child, "6 * 7"), "42");
}

TEST_F(ZygoteTest, AZygoteThatNeverComesUpFails) {
  files[1].bytes = "dies";
  ASSERT_TRUE(bench.open());
  EXPECT_EQ(bench.start_zygote(zygote()).error().code(), ErrorCode::kUnavailable);
}

TEST_F(ZygoteTest, NoneIsMadeOfAnInterpreterThatOthersCouldChange) {
  const std::string copy = directory.path() + "/python3";
  std::filesystem::copy_file(python_program(), copy);
  bench.config.roots.front().extra_binds = {directory.path()};
  ASSERT_EQ(chown(copy.c_str(), 1'200, 1'200), 0);
  auto spec = zygote();
  spec.program.arguments.front() = copy;
  bench.config.zygote_programs.push_back(spec.program);
  ASSERT_TRUE(bench.open());
  EXPECT_EQ(bench.start_zygote(spec).error().code(), ErrorCode::kPermissionDenied);
}

TEST_F(ZygoteTest, NoneIsMadeOfAnythingThatWasNotAgreedBefore) {
  ASSERT_TRUE(bench.open());
  for (int what = 0; what < 3; ++what) {
    auto spec = zygote();
    if (what == 0) spec.program.arguments = {python_program(), "-c", "import os; os.system('id')"};
    if (what == 1) spec.program.environment.emplace_back("LD_PRELOAD=/tmp/x.so");
    if (what == 2) spec.program.arguments.emplace_back("more");
    EXPECT_EQ(bench.start_zygote(spec).error().code(), ErrorCode::kPermissionDenied) << what;
  }
}

TEST_F(ZygoteTest, AZygoteHasControlGroupsOfItsOwn) {
  begin();
  std::ifstream lines("/proc/" + std::to_string(zygote_pid()) + "/cgroup");
  const std::string groups(std::istreambuf_iterator<char>(lines), {});
  const std::string launcher = "/mayfly-" + bench.config.instance + "/";
  if (bench.launcher().capabilities().memory_controller == "v1") {
    EXPECT_TRUE(std::ranges::any_of(std::views::split(groups, '\n'), [&](const auto& line) {
      const std::string text(line.begin(), line.end());
      return contains(text, "memory:") && contains(text, launcher);
    })) << groups;
  }
  if (!bench.launcher().capabilities().memory_controller.empty()) EXPECT_TRUE(contains(groups, launcher)) << groups;
}

TEST_F(ZygoteTest, AZygoteHoldsFewCapabilitiesAndNoNetwork) {
  begin();
  const pid_t pid = zygote_pid();
  ASSERT_GT(pid, 0);
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  const std::string text((std::istreambuf_iterator<char>(status)), {});
  EXPECT_TRUE(contains(text, "CapEff:\t00000000002401c0")) << "SETGID, SETUID, SETPCAP, SYS_CHROOT, SYS_ADMIN";
  EXPECT_TRUE(contains(text, "CapBnd:\t00000000002401c0"));
  EXPECT_TRUE(contains(text, "NoNewPrivs:\t1"));
  EXPECT_TRUE(contains(text, "Seccomp:\t2"));
  std::ifstream devices("/proc/" + std::to_string(pid) + "/net/dev");
  std::string line;
  int count = 0;
  while (std::getline(devices, line)) ++count;
  EXPECT_EQ(count, 3) << "two lines of headings and the loopback";
}

}  // namespace
}  // namespace mayfly::sandbox
