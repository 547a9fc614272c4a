// The read-only roots of sandboxes: one template of mounts for each root image, made once in the launcher's own mount namespace
// and cloned for each sandbox. Used by the launcher only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "sandbox/internal/warden/plan.h"
#include "sandbox/launcher.h"

namespace mayfly::sandbox::internal {

// A mount ready to be moved into a sandbox. `target` is relative to its root.
struct ReadyMount {
  base::UniqueFd mount;
  std::string target;
};

class Roots {
 public:
  // `work` is an empty directory of the caller's private mount namespace; a tmpfs is mounted there. Images that cannot be built are
  // left out and named in notes(); the only image failing is an error.
  [[nodiscard]] static base::Result<std::unique_ptr<Roots>> create(const LauncherConfig& config, const std::string& work, bool privileged);
  ~Roots();
  Roots(const Roots&) = delete;
  Roots& operator=(const Roots&) = delete;

  // kNotFound for an unknown id.
  [[nodiscard]] base::Result<void> check(const std::string& root_id) const;
  // A clone of the image's mounts, detached.
  [[nodiscard]] base::Result<base::UniqueFd> clone_root(const std::string& root_id) const;
  // /etc/passwd and /etc/group that name `user`.
  [[nodiscard]] base::Result<ReadyMount> user_files(std::uint32_t user, std::uint32_t group) const;
  // /opt: the layers merged, later ones on top, with the image's own binds beneath /opt. `layers` are directories; none: no mounts.
  [[nodiscard]] base::Result<std::vector<ReadyMount>> layer_mounts(const std::string& root_id,
                                                                   const std::vector<std::string>& layers) const;
  // Deletes what user_files() made for a user that no sandbox has any more.
  void forget_user(std::uint32_t user) const;
  // An empty directory to mount a sandbox's root on.
  [[nodiscard]] const std::string& mount_point() const;
  // What of /proc to hide or protect on this kernel.
  [[nodiscard]] const std::vector<ProcMask>& proc_masks() const;
  [[nodiscard]] const std::vector<std::string>& notes() const;

 private:
  struct Impl;
  explicit Roots(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A detached, read-only, nosuid, nodev copy of the mount at `path` beneath `directory_fd` (AT_FDCWD allowed), submounts included
// when `recursive`.
[[nodiscard]] base::Result<base::UniqueFd> read_only_bind(int directory_fd, const std::string& path, bool recursive);

}  // namespace mayfly::sandbox::internal
