#include "sandbox/internal/processes.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <sstream>
#include <string>

namespace mayfly::sandbox::internal {

base::Result<Pipe> make_pipe() {
  int ends[2] = {-1, -1};
  if (pipe2(ends, O_CLOEXEC) != 0) return base::errno_error("make a pipe", errno);
  Pipe made{.read = base::UniqueFd(ends[0]), .write = base::UniqueFd(ends[1])};
  if (fcntl(made.read.get(), F_SETFL, O_NONBLOCK) != 0) return base::errno_error("make a pipe non-blocking", errno);
  return made;
}

base::UniqueFd pidfd_of(pid_t pid) { return base::UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))); }

void signal_through(const base::UniqueFd& pidfd, int signal) {
  if (pidfd) (void)syscall(SYS_pidfd_send_signal, pidfd.get(), signal, nullptr, 0);
}

namespace {

std::string children_of(pid_t pid) {
  const std::string name = std::to_string(pid);
  return base::read_file("/proc/" + name + "/task/" + name + "/children").value_or(std::string());
}

}  // namespace

ProcessHandle child_of(pid_t parent, Child which) {
  std::istringstream children(children_of(parent));
  pid_t found = -1;
  for (pid_t child = -1; children >> child;) {
    found = child;
    if (which == Child::kFirst) break;
  }
  if (found <= 0) return {};
  ProcessHandle handle{.pidfd = pidfd_of(found),
                       .status = base::UniqueFd(open(("/proc/" + std::to_string(found) + "/status").c_str(), O_RDONLY | O_CLOEXEC))};
  // Still a child now that both are open: so it was all the time.
  std::istringstream again(children_of(parent));
  for (pid_t child = -1; again >> child;) {
    if (child == found) return handle;
  }
  return {};
}

void reap(pid_t pid) {
  while (pid > 0 && waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace mayfly::sandbox::internal
