// The launcher's hold on a zygote (zygote/order.h): starting it, ordering children of it, hearing of its end. Used by the launcher only,
// as root only: without root every sandbox has the launcher's own user, and nothing would part a zygote from what it forked.
//
// What a zygote holds: CAP_SYS_ADMIN and CAP_SYS_CHROOT to enter the sandboxes it is shown, CAP_SETUID, CAP_SETGID and CAP_SETPCAP to
// give everything up in there. What bounds that: it runs no code but the interpreter's and Mayfly's own, which root alone can change
// (the server's files are not used); it hears nobody but the launcher; it has no network, no /proc, a read-only
// root, a user and namespaces of its own (but for processes: see start()) and the functions' system call filter, with setns() besides.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/embedded.h"
#include "base/fd.h"
#include "base/result.h"
#include "sandbox/internal/cgroups.h"
#include "sandbox/internal/filters.h"
#include "sandbox/internal/roots.h"
#include "sandbox/internal/zygote/order.h"

namespace mayfly::sandbox::internal {

// The files that zygotes see at /var/runtime: those given and native/libmayfly_zygote.so, root's own.
class ZygoteRuntime {
 public:
  // Writes them below `directory`, which must not exist and which nobody but root can change.
  [[nodiscard]] static base::Result<ZygoteRuntime> write(const std::string& directory, std::span<const base::EmbeddedFile> files);
  [[nodiscard]] const std::string& directory() const { return directory_; }

 private:
  explicit ZygoteRuntime(std::string directory) : directory_(std::move(directory)) {}
  std::string directory_;
};

struct ZygotePlan {
  std::string root_id;
  std::vector<std::string> arguments;    // its interpreter and what it runs
  std::vector<std::string> environment;  // "NAME=value"
  uid_t user = 0;                        // of no sandbox
  gid_t group = 0;
};

class ZygoteProcess {
 public:
  // kPermissionDenied when somebody but root could change the interpreter.
  // It joins `group`.
  [[nodiscard]] static base::Result<ZygoteProcess> start(const ZygotePlan& plan, const Cgroup& group, const Roots& roots,
                                                         const ZygoteRuntime& runtime, const Filter& filter);
  ZygoteProcess(ZygoteProcess&&) = default;
  ZygoteProcess& operator=(ZygoteProcess&&) = default;
  ~ZygoteProcess();  // kills it and waits for the end

  // `descriptors` as ForkDescriptor has them. kUnavailable when it is gone or does not read.
  [[nodiscard]] base::Result<void> order(const ForkOrder& order, std::span<const int> descriptors) const;
  // The next answer; nullopt when there is none yet. kUnavailable: it is gone.
  [[nodiscard]] base::Result<std::optional<Forked>> collect() const;
  [[nodiscard]] int fd() const { return channel_.get(); }

 private:
  ZygoteProcess() = default;
  base::UniqueFd channel_, pidfd_;
  pid_t pid_ = -1;
};

}  // namespace mayfly::sandbox::internal
