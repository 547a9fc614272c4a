// The directory of unpacked code: unpacks archives into it, deletes from it, each in a process of its own.
// A directory named by a code id is whole; "<...>.tmp-..." is one being made or deleted. That it is on the disk too says a file
// "<code id>.synced-<which directory of that name>". Without one a crash of the machine may have left holes in it, and
// remove_leftovers() takes it away, to be unpacked again from the archive. Used by the launcher only.
#pragma once

#include <chrono>
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
  // `watch` is told each descriptor to wait for, and the job to attend() to when that is readable.
  using Watch = std::function<void(int fd, std::uint64_t job)>;
  [[nodiscard]] static base::Result<std::unique_ptr<Archives>> create(ArchivesOptions options, Watch watch);
  // Kills what is unpacking and removes its directory; waits a moment for what is being written to the disk, and for deletions.
  ~Archives();
  Archives(const Archives&) = delete;
  Archives& operator=(const Archives&) = delete;

  // Begins; the answer comes from attend(). An existing directory is measured instead. When what was unpacked cannot be written to the
  // disk after the answer, it is unpacked once more; when that fails too, the directory goes, as after remove().
  [[nodiscard]] base::Result<void> unpack(const UnpackRequest& request, base::UniqueFd archive);
  // Something happened to a job: its answer, if that is what it was.
  [[nodiscard]] std::optional<ArchiveUnpacked> attend(std::uint64_t job);
  // Keeps a process waiting for the next archive, which then waits for neither fork nor the giving up of privileges; or ends it.
  void keep_ready();
  void let_go();
  [[nodiscard]] bool is_ready() const;
  // The id is free at once, its files go in the background. Unknown ids are ignored.
  void remove(const std::string& code_id);
  using Clock = std::chrono::steady_clock;
  // When end_overdue() has something to do next; max() for never.
  [[nodiscard]] Clock::time_point next_due() const;
  // Kills the unpackers that take too long for what they do: somebody may have taken them over. Their ends come to attend().
  void end_overdue(Clock::time_point now);
  // Deletes what a former run left half made, half deleted or perhaps not on the disk, in the background.
  void remove_leftovers();

 private:
  struct Impl;
  explicit Archives(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mayfly::sandbox::internal
