// `mayfly` under callgrind: the same server, whose launcher stays outside of valgrind, which knows too few system calls to make
// sandboxes. Usage: bench_counted_server TOOL... -- WORDS..., with TOOL the valgrind command and WORDS mayfly's.
//
// The program lives twice. As started, it runs until the launcher is forked off; then it becomes TOOL, which runs it again: there
// the fork and its socket pair are those of the first life, so the server talks to a launcher that runs as always.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "server/server.h"

namespace {

constexpr const char* kSocketVariable = "BENCH_LAUNCHER_SOCKET";
constexpr const char* kPidVariable = "BENCH_LAUNCHER_PID";
std::vector<char*> second_life;  // argv of TOOL with this program; empty in the second life and in the launcher
int server_end = -1;             // of the launcher's socket pair, in the first life

int inherited(const char* variable) {
  const char* text = getenv(variable);
  return text == nullptr ? -1 : std::atoi(text);
}

}  // namespace

// Linked in place of the system's by --wrap. The launcher's are the first of the server's life.
extern "C" {
int __real_socketpair(int domain, int type, int protocol, int* ends);
int __wrap_socketpair(int domain, int type, int protocol, int* ends);
pid_t __real_fork();
pid_t __wrap_fork();

int __wrap_socketpair(int domain, int type, int protocol, int* ends) {
  const int made = __real_socketpair(domain, type, protocol, ends);
  if (made != 0) return made;
  if (!second_life.empty() && server_end < 0) server_end = ends[0];
  if (const int socket = inherited(kSocketVariable); socket >= 0) {
    unsetenv(kSocketVariable);
    dup3(socket, ends[0], O_CLOEXEC);
    close(socket);
  }
  return made;
}

pid_t __wrap_fork() {
  if (const int pid = inherited(kPidVariable); pid >= 0) {
    unsetenv(kPidVariable);
    return pid;
  }
  const pid_t pid = __real_fork();
  if (pid == 0) second_life.clear();
  if (pid <= 0 || second_life.empty()) return pid;
  setenv(kSocketVariable, std::to_string(dup(server_end)).c_str(), 1);
  setenv(kPidVariable, std::to_string(pid).c_str(), 1);
  execvp(second_life[0], second_life.data());
  std::perror(second_life[0]);
  _exit(1);
}
}

int main(int argc, char** argv) {
  int words = 1;
  if (getenv(kPidVariable) == nullptr) {
    while (words < argc && std::string(argv[words]) != "--") ++words;
    if (words < 2 || words >= argc) {
      std::fputs("usage: bench_counted_server TOOL... -- WORDS...\n", stderr);
      return 2;
    }
    second_life.assign(argv + 1, argv + words);
    second_life.push_back(argv[0]);
    second_life.insert(second_life.end(), argv + words + 1, argv + argc);
    second_life.push_back(nullptr);
    ++words;
  }
  return mayfly::server::run_server({argv + words + 1, argv + argc});  // the first word is "server"
}
