// Where sandboxes are made and taken apart: a process of its own beside the launcher, so that nobody waits for network devices, mounts
// and control groups who does not need them. What comes out of it is blank: a whole sandbox of a certain shape without code, in which two
// of our processes wait (warden/plan.h). Used by the launcher only.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "sandbox/internal/cgroups.h"
#include "sandbox/internal/filters.h"
#include "sandbox/internal/network.h"
#include "sandbox/internal/roots.h"
#include "sandbox/internal/warden_process.h"
#include "sandbox/launcher.h"

namespace mayfly::sandbox::internal {

// What cannot be changed any more once a sandbox is made.
struct SandboxShape {
  std::string root_id;
  Network network = Network::kOutside;
  std::uint64_t tmp_bytes = 0;
  std::uint32_t connectors = 0;
  auto operator<=>(const SandboxShape&) const = default;
};

// A sandbox as the workshop hands it over, perhaps not ready yet.
struct Blank {
  std::uint32_t user = 0;
  pid_t init = -1;  // a child of the launcher
  base::UniqueFd init_pidfd;
  base::UniqueFd report;  // where its processes report (StepFailure)
  base::UniqueFd status;  // where its init does (ProgramStatus), and reads (Roll)
  base::UniqueFd orders;  // where its main process reads (Orders)
  Cgroup group;           // no limits are set
  Sandbox sandbox;        // what the server will get; without companions
};

// What it works with. Everything is made before it, by the launcher, and shared with it where both need it.
struct WorkshopTools {
  const LauncherConfig& config;
  bool privileged = true;
  NetworkBuilder& network;
  Cgroups& groups;
  const Roots& roots;
  const Warden& warden;
  const Filter& function_filter;
  const Filter& init_filter;
  int null = -1;
  Step fail_at = Step::kNone;           // every sandbox fails at this step
  std::vector<int> launchers_own = {};  // descriptors that this process must not hold
};

class Workshop {
 public:
  // Forks it. Ends with this object, or with the calling process.
  [[nodiscard]] static base::Result<std::unique_ptr<Workshop>> open(const WorkshopTools& tools);
  // Drops what is left of every sandbox and waits for the end.
  ~Workshop();
  Workshop(const Workshop&) = delete;
  Workshop& operator=(const Workshop&) = delete;

  // Asks for a sandbox called `number`; collect() answers, in the order of asking. At most kOrdersMax unanswered ones.
  void make(std::uint64_t number, const SandboxShape& shape) const;
  // All processes of sandbox `number` are gone: takes the rest apart. Not for one whose making failed. Of a number that was never
  // asked for, control groups are all there may be.
  void discard(std::uint64_t number) const;

  struct Made {
    std::uint64_t number = 0;
    base::Result<Blank> blank;
  };
  // The next answer; nullopt when there is none yet. An error: the workshop is gone.
  [[nodiscard]] base::Result<std::optional<Made>> collect() const;
  [[nodiscard]] int fd() const { return socket_.get(); }

  // Whether /tmp is disk-backed here, or why not.
  [[nodiscard]] bool disk_tmp() const { return why_not_disk_.empty(); }
  [[nodiscard]] const std::string& why_not_disk() const { return why_not_disk_; }

  static constexpr std::size_t kOrdersMax = 48;

 private:
  void give_up(std::uint64_t number, pid_t init) const;
  Workshop(base::UniqueFd socket, pid_t pid) : socket_(std::move(socket)), pid_(pid) {}
  base::UniqueFd socket_;
  pid_t pid_;
  std::string why_not_disk_;
};

}  // namespace mayfly::sandbox::internal
