#include "server/bytecode.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>

#include "base/log.h"

namespace mayfly::server {
namespace {

// Unchecked: who imports a module does not look at its source. Tracebacks name the path that functions see.
constexpr const char* kCompile =
    "import os, py_compile, sys\n"
    "os.umask(0o022)\n"
    "for name in os.listdir(sys.argv[1]):\n"
    "  if name.endswith('.py'):\n"
    "    py_compile.compile(os.path.join(sys.argv[1], name), dfile='/var/runtime/python/' + name, doraise=True, quiet=2,\n"
    "                       invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)\n";

pid_t spawn(const std::string& interpreter, const std::string& directory) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  for (const int fd : {0, 1, 2}) posix_spawn_file_actions_addopen(&files, fd, "/dev/null", O_RDWR, 0);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t signals;
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  sigfillset(&signals);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  // One outside /usr may need its own libraries, as in environments.
  const std::string libraries = "LD_LIBRARY_PATH=" + std::filesystem::path(interpreter).parent_path().parent_path().string() + "/lib";
  std::array<char*, 2> environment = {const_cast<char*>(libraries.c_str()), nullptr};
  std::array<char*, 7> arguments = {const_cast<char*>(interpreter.c_str()),
                                    const_cast<char*>("-I"),
                                    const_cast<char*>("-S"),
                                    const_cast<char*>("-c"),
                                    const_cast<char*>(kCompile),
                                    const_cast<char*>(directory.c_str()),
                                    nullptr};
  pid_t pid = -1;
  const int failed = posix_spawn(&pid, interpreter.c_str(), &files, &attributes, arguments.data(), environment.data());
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  return failed == 0 ? pid : -1;
}

}  // namespace

void compile_python_bootstraps(const std::string& directory, const std::vector<std::string>& interpreters) {
  for (const std::string& interpreter : interpreters) {  // one after another: nothing waits for them
    const pid_t pid = spawn(interpreter, directory);
    int status = -1;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (status != 0)
      base::log_warning("an interpreter could not compile the bootstrap; its functions start some milliseconds later",
                        {{"interpreter", interpreter}});
  }
}

}  // namespace mayfly::server
