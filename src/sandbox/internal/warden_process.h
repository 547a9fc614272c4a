// The launcher's hold on the warden, the small program that clones sandboxes (warden/warden.cc). Used by the launcher's processes only.
#pragma once

#include <span>

#include "base/fd.h"
#include "base/result.h"
#include "sandbox/internal/warden/plan.h"

namespace mayfly::sandbox::internal {

class Warden {
 public:
  // Starts the program that this one carries inside. The sandboxes it makes are children of the calling process.
  [[nodiscard]] static base::Result<Warden> start();

  struct Blank {
    pid_t init = -1;
    base::UniqueFd init_pidfd;
  };
  // Clones a sandbox and returns before it is ready. `descriptors` as PlanDescriptor has them; they stay the caller's.
  [[nodiscard]] base::Result<Blank> spawn(const BlankPlan& plan, std::span<const int> descriptors) const;
  // Lets it go; waits for its end, once no other process holds on to it. By the process that started it.
  void end();

 private:
  Warden(base::UniqueFd channel, pid_t pid) : channel_(std::move(channel)), pid_(pid) {}
  base::UniqueFd channel_;  // it ends when this is closed
  pid_t pid_ = -1;
};

}  // namespace mayfly::sandbox::internal
