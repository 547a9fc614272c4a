// Pipes and handles of processes, as several parts of the launcher use them.
#pragma once

#include <sys/types.h>

#include "base/fd.h"
#include "base/result.h"

namespace mayfly::sandbox::internal {

struct Pipe {
  base::UniqueFd read;   // non-blocking: it belongs to an event loop
  base::UniqueFd write;  // blocks when the pipe is full
};
// Close-on-exec.
[[nodiscard]] base::Result<Pipe> make_pipe();

// Invalid when the process is gone.
[[nodiscard]] base::UniqueFd pidfd_of(pid_t pid);
// Invalid handles and processes that ended are ignored.
void signal_through(const base::UniqueFd& pidfd, int signal);
// Of a process's children the first one made, or the last; -1 without any.
[[nodiscard]] pid_t first_child_of(pid_t pid);
[[nodiscard]] pid_t last_child_of(pid_t pid);
// Waits for the child to end.
void reap(pid_t pid);

}  // namespace mayfly::sandbox::internal
