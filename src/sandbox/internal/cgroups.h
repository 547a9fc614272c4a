// Control groups behind one interface: for each controller the v2 hierarchy where it has it, v1 where not. On a hybrid host
// (v1 controllers beside a v2 tree without any) a sandbox gets groups in both: limits from v1; freezing, killing and CPU time from v2.
// On the host: directories mayfly-<instance>/<number of the sandbox>. Used by the launcher only.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "sandbox/launcher.h"

namespace mayfly::sandbox::internal {

struct CgroupLimits {
  std::uint64_t memory_bytes = 0;
  std::uint32_t cpu_milli = 0;
  std::uint32_t processes_max = 0;
};

// What a sandbox's groups are to the launcher.
struct Cgroup {
  base::UniqueFd into;                 // the v2 group's directory: the first process is cloned into it
  std::vector<base::UniqueFd> attach;  // cgroup.procs files of v1 groups: writing "0" moves the writer inside
  base::UniqueFd thaw;                 // freezer.state of v1: a frozen v1 group must be thawed to be killed
  base::UniqueFd oom_event;            // readable when a v1 group runs out of memory (v2 kills the whole group itself)
  base::UniqueFd memory_events;        // memory.events or memory.oom_control
  base::UniqueFd memory_stat;
  base::UniqueFd memory, cpu, pids;  // directories that limit() writes to; closed by their holder when it is over
};

class Cgroups {
 public:
  // Finds the hierarchies and makes the instance's group in each. Fails only for reasons worth stopping for; a host without
  // control groups gives an object that limits nothing and says so in describe().
  [[nodiscard]] static base::Result<std::unique_ptr<Cgroups>> create(const std::string& instance);
  ~Cgroups();
  Cgroups(const Cgroups&) = delete;
  Cgroups& operator=(const Cgroups&) = delete;

  // Groups for the sandbox called `number`, without limits so far. The control files for the server go into `sandbox`.
  [[nodiscard]] base::Result<Cgroup> make(std::uint64_t number, Sandbox& sandbox);
  // Limits what a group of make() holds, and again when it becomes somebody else's; no CPU quota yet.
  [[nodiscard]] base::Result<void> limit(const Cgroup& group, const CgroupLimits& limits) const;
  // The cgroup.procs files of what make() made: a process that writes "0" to each is in.
  [[nodiscard]] base::Result<std::vector<base::UniqueFd>> doors(std::uint64_t number) const;
  // Deletes the groups; false while the kernel still holds one (try again a little later).
  [[nodiscard]] bool remove(std::uint64_t number);
  // Kills what lives in any group of the instance and deletes all of them: leftovers of a former run. At most 2 s.
  void remove_leftovers();
  // Deletes the instance's own groups at the end.
  void remove_all();
  // Fills in controllers, limits and notes.
  void describe(HostCapabilities& host) const;

 private:
  struct Impl;
  explicit Cgroups(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The number after `key` in "key number" lines of a control file; 0 when absent. Reads from the start.
[[nodiscard]] std::uint64_t control_value(int fd, std::string_view key);
// The same for two keys with one look at the file, which the kernel writes anew for each; the values in the order of the keys.
[[nodiscard]] std::array<std::uint64_t, 2> control_values(int fd, const std::array<std::string_view, 2>& keys);

}  // namespace mayfly::sandbox::internal
