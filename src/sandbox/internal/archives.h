// The directory of unpacked code: unpacks archives into it, deletes from it, each in a process of its own.
// A directory named by a code id is whole; "<code id>.tmp-..." is one being made or deleted. Used by the launcher only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "sandbox/launcher.h"

namespace mayfly::sandbox::internal {

struct ArchivesOptions {
  std::string directory;
  bool privileged = true;
  std::uint32_t user = 0;  // unpacks and owns the files, when privileged
  std::uint32_t group = 0;
};

struct UnpackRequest {
  std::uint64_t request = 0;
  std::string code_id;
  Launcher::UnpackLimits limits;
};

class Archives {
 public:
  // `watch` is told the pidfd of each process started and the job to finish() when that is readable.
  using Watch = std::function<void(int pidfd, std::uint64_t job)>;
  [[nodiscard]] static base::Result<std::unique_ptr<Archives>> create(ArchivesOptions options, Watch watch);
  // Kills what is unpacking and removes its directory; waits for deletions.
  ~Archives();
  Archives(const Archives&) = delete;
  Archives& operator=(const Archives&) = delete;

  // Begins; the answer comes from finish(). An existing directory is measured instead.
  [[nodiscard]] base::Result<void> unpack(const UnpackRequest& request, const base::UniqueFd& archive);
  // Takes the result of an ended job; nullopt for deletions and unknown jobs.
  [[nodiscard]] std::optional<ArchiveUnpacked> finish(std::uint64_t job);
  // The id is free at once, its files go in the background. Unknown ids are ignored.
  void remove(const std::string& code_id);
  // Deletes what a former run left half made or half deleted, in the background.
  void remove_leftovers();

 private:
  struct Impl;
  explicit Archives(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mayfly::sandbox::internal
