// Pipes and handles of processes, as several parts of the launcher use them.
#pragma once

#include <sys/types.h>

#include <cstdint>

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
// A process and what the kernel tells of it; invalid when it is gone.
struct ProcessHandle {
  base::UniqueFd pidfd;
  base::UniqueFd status;  // /proc/<pid>/status
};
// Of the children of `parent`, which nobody has waited for so far, the first one made, or the last. Never another process, even when
// the child ends meanwhile and its number is given to one.
enum class Child : std::uint8_t { kFirst, kLast };
[[nodiscard]] ProcessHandle child_of(pid_t parent, Child which);
// Waits for the child to end.
void reap(pid_t pid);

}  // namespace mayfly::sandbox::internal
