// What the tests of this room share: a launcher on directories of its own, a way to run shell scripts in sandboxes, and a look at
// what the host still holds of them.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sandbox/launcher.h"

namespace mayfly::sandbox::test {

// A directory that goes with the object, on a disk.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// How a sandbox ended, with what it printed.
struct Ending {
  SandboxExited exited;
  std::string output;
};

class Bench {
 public:
  // Directories code, scratch, bootstrap beneath `directory`; a random instance.
  explicit Bench(const std::string& directory);
  // Forks the launcher; fails the test when that fails.
  bool open();
  void close() { launcher_.reset(); }

  LauncherConfig config;
  [[nodiscard]] Launcher& launcher() { return *launcher_; }
  [[nodiscard]] pid_t launcher_pid() const;

  // Unpacked code with one file run.sh; returns the code id.
  std::string add_code(const std::string& script);
  // Any unpacked tree: names and contents.
  std::string add_tree(const std::map<std::string, std::string>& files);
  [[nodiscard]] SandboxSpec spec(const std::string& code_id);

  // Starts and waits for the answer. After fork_from_zygote() in a child of it.
  [[nodiscard]] base::Result<Sandbox> start(const SandboxSpec& spec);
  // From here on main processes are not executed but forked from a zygote, and become the specification's program by execve alone:
  // whatever the fork left behind is still there. Call prepare_zygote() before open().
  void prepare_zygote();
  [[nodiscard]] base::Result<void> fork_from_zygote();
  // The answer to a start asked of launcher().
  [[nodiscard]] base::Result<Sandbox> wait_answer(SandboxId id);
  // The same for a stem that becomes a function's, and for a zygote.
  [[nodiscard]] base::Result<void> specialise(const Specialisation& specialisation);
  [[nodiscard]] base::Result<void> start_zygote(const ZygoteSpec& spec);
  // Waits for the end of sandbox `id`.
  [[nodiscard]] std::optional<SandboxExited> wait_exit(SandboxId id, std::chrono::milliseconds patience = std::chrono::seconds(20));
  // Both, and the output.
  [[nodiscard]] Ending run(const SandboxSpec& spec);
  [[nodiscard]] Ending run(const std::string& script) { return run(spec(add_code(script))); }
  [[nodiscard]] base::Result<std::uint64_t> unpack(const std::string& zip, const std::string& code_id,
                                                   const Launcher::UnpackLimits& limits = {});

  // Ends of programs of sandboxes with companions, by sandbox and program.
  std::map<std::pair<SandboxId, std::uint32_t>, ProgramEnded> programs_ended;

  // Pumps events until `done` says so.
  bool pump(const std::function<bool()>& done, std::chrono::milliseconds patience = std::chrono::seconds(20));

 private:
  base::Result<void> answer_without_sandbox(SandboxId id);

  std::unique_ptr<Launcher> launcher_;
  SandboxId zygote_ = 0;   // 0: none
  SandboxId awaited_ = 0;  // whose failure is the answer to something else than start()
  std::map<SandboxId, base::Result<void>> specialised_;
  SandboxId next_ = 1;
  std::uint64_t next_code_ = 1;
  std::map<SandboxId, base::Result<Sandbox>> answers_;
  std::map<SandboxId, SandboxExited> exits_;
  std::map<std::uint64_t, base::Result<std::uint64_t>> unpacked_;
};

// Reads what is there and what comes until end of file or `until` appears.
std::string read_output(int fd, const std::string& until = {}, std::chrono::milliseconds patience = std::chrono::seconds(20));

// What an instance left on the host: control groups, devices, loop devices with images of `directory`, mounts beneath it, processes.
std::vector<std::string> leftovers(const std::string& instance, const std::string& directory);
// Waits up to 5 s for leftovers() to be empty (the kernel ends namespaces in the background); returns what remains.
std::vector<std::string> wait_for_no_leftovers(const std::string& instance, const std::string& directory);

[[nodiscard]] bool is_root();

}  // namespace mayfly::sandbox::test

// Skips, visibly, what only root can try.
#define MAYFLY_NEEDS_ROOT() \
  if (!::mayfly::sandbox::test::is_root()) GTEST_SKIP() << "needs root"
