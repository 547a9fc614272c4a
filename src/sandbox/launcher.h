// The launcher: the one privileged part of Mayfly. It starts, measures, freezes and kills isolated process trees
// ("sandboxes") and unpacks archives in a restricted child. The server talks to it over a socket and never forks.
//
// Privilege: Launcher::fork_off() must be called while the program has one thread and, when root, before
// drop_privileges(). The launcher distrusts what it is asked: ids instead of paths, every size and count bounded.
// Lifetime: when the server's end of the socket closes (also by kill -9), the launcher kills every sandbox, removes its
// cgroups, network devices, firewall table and scratch images, and ends. What a killed launcher left is removed by the
// next one started for the same instance.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/embedded.h"
#include "base/fd.h"
#include "base/result.h"
#include "base/time.h"

namespace mayfly::sandbox {

using SandboxId = std::uint64_t;

// A directory that becomes the read-only root of sandboxes.
struct RootImage {
  std::string id;               // [a-z0-9._-]{1,64}; what SandboxSpec::root_id names
  std::string directory = "/";  // /usr, /bin, /lib* and a fixed part of /etc of it; never its /home, /root, /var
  // Further host directories shown read-only at the same path (an interpreter under /opt or a home). One that does not exist is left
  // out and named in HostCapabilities::notes. Everything above them must be something a sandbox lacks: /usr is there already.
  std::vector<std::string> extra_binds;
};

// A program that may become a zygote, which is privileged: agreed before the server drops its privileges, to the letter, since one that
// was taken over could have any program run that way.
struct ZygoteProgram {
  std::string root_id;
  std::vector<std::string> arguments;
  std::vector<std::string> environment;  // "NAME=value"; at most that of a sandbox
  bool operator==(const ZygoteProgram&) const = default;
};

enum class Network : std::uint8_t {
  kNone,     // only the loopback of the sandbox and its listeners
  kOutside,  // NAT to outside networks; never the host, link-local, metadata or other sandboxes
};

// What of a sandbox is fixed before it is known what will run in it; members as in SandboxSpec.
struct ExpectedSandbox {
  std::string root_id;
  Network network = Network::kOutside;
  std::uint64_t tmp_bytes = 0;
  std::uint32_t connectors = 0;
};

// The three directories must exist and be absolute. One launcher at a time works in a scratch directory; a second waits 10 s for it.
struct LauncherConfig {
  std::string instance;             // 8 hex digits from the data directory's path: names cgroups, devices and the firewall table
  std::string code_directory;       // unpacked archives live beneath it, one directory per code id
  std::string scratch_directory;    // disk-backed /tmp images, made, pooled and deleted here; a tmpfs makes /tmp cost memory
  std::string bootstrap_directory;  // shown at /var/runtime
  std::vector<RootImage> roots;
  std::uint32_t uid_base = 1'879'048'192;  // each sandbox runs as a uid of its own from this range (root only)
  std::uint32_t uid_count = 65'536;
  std::uint32_t server_uid = 0;  // unpacked files belong to this uid and gid
  std::uint32_t server_gid = 0;
  std::string network_cidr = "100.88.0.0/16";  // addresses of sandboxes with an outside network, /30 each
  std::vector<std::string> network_deny;       // further CIDRs that functions may not reach
  bool cpu_quota = true;
  // One of each is made in the background as soon as the launcher runs, and with it what the first one takes: the firewall, a file system
  // to copy. Without that the first start waits for them.
  std::vector<ExpectedSandbox> expected;
  // What zygotes see at /var/runtime, in place of bootstrap_directory: that one belongs to the server, and a zygote is privileged.
  // Must outlive the launcher's process. Without any there are no zygotes.
  std::span<const base::EmbeddedFile> zygote_files = {};
  std::vector<ZygoteProgram> zygote_programs;
};

struct SandboxSpec {
  SandboxId id = 0;  // unique for the launcher's life
  std::string root_id;
  std::string code_id;                   // 64 hex digits; shown read-only at /var/task
  std::vector<std::string> layer_ids;    // shown merged read-only at /opt, later ones on top; at most 5
  std::vector<std::string> arguments;    // argv of the main process, at least one
  std::vector<std::string> environment;  // "NAME=value"
  // Absolute paths of programs that run beside the main process, with its user, limits, filter and groups but an output of their own, at
  // most 10. The main process then waits, made but not executed, for Sandbox::open_gate(); its end is told as ProgramEnded and ends the
  // sandbox only when nothing is left inside.
  std::vector<std::string> companions;
  std::vector<std::string> companions_lack;  // names of variables in `environment` that they do not get
  std::uint32_t connectors = 0;              // how many of Sandbox::connectors to make, at most 12
  std::string working_directory = "/var/task";
  std::uint64_t memory_bytes = 0;  // anonymous and shared memory; /tmp is not charged against it
  std::uint64_t tmp_bytes = 0;
  std::uint32_t cpu_milli = 0;  // hard quota in thousandths of a CPU once throttle() is called; also sets the weight
  std::uint32_t processes_max = 1024;
  std::uint32_t files_max = 1024;
  Network network = Network::kOutside;
  // Made ahead of time: it has no code, layers or companions yet; Launcher::specialise() gives it those of one function, once.
  bool stem = false;
  // Not 0: the main process is forked from that zygote, whose program and environment it has, instead of `arguments` being executed;
  // `environment` and `working_directory` are its own business. SandboxFailed with kUnavailable when the zygote cannot.
  SandboxId zygote = 0;
};

// An interpreter that has loaded what nearly every function needs and never runs any function's code: it lives to be forked
// (SandboxSpec::zygote). Its program gets _MAYFLY_ZYGOTE, the descriptor its orders come through, and calls
// mayfly_fork_into_sandboxes() of /var/runtime/native/libmayfly_zygote.so, which returns in each child.
struct ZygoteSpec {
  SandboxId id = 0;       // none of a sandbox
  ZygoteProgram program;  // one of LauncherConfig::zygote_programs
};

// What a stem becomes. Its user, network, /tmp, limits on files and processes stay what they are.
struct Specialisation {
  SandboxId stem = 0;
  SandboxId id = 0;  // what it is called from here on
  std::string code_id;
  std::vector<std::string> layer_ids;
  std::uint64_t memory_bytes = 0;
  std::uint32_t cpu_milli = 0;
};

// A running sandbox as the server holds it. Every descriptor is close-on-exec and non-blocking where it is a socket or pipe.
// The addresses below are the same in every sandbox: 169.254.100.1 on its loopback.
struct Sandbox {
  SandboxId id = 0;
  base::UniqueFd runtime_api;  // listening TCP socket, 169.254.100.1:9001
  base::UniqueFd data_api;     // listening TCP socket, 169.254.100.1:9002
  base::UniqueFd dns_udp;      // bound UDP socket, 169.254.100.1:53; invalid when the network is kNone
  base::UniqueFd dns_tcp;      // listening TCP socket, 169.254.100.1:53; invalid when the network is kNone
  base::UniqueFd output;       // read end of a pipe: stdout and stderr of everything inside
  base::UniqueFd framed_log;   // read end of the pipe behind _LAMBDA_TELEMETRY_LOG_FD (the launcher sets that variable)
  // What the main process and the server say to each other, as _MAYFLY_CONTROL_FDS names it there ("4,5"; the launcher sets that variable).
  // Pipes, not a socket: half the cost for a short message, and nobody inside can send descriptors along.
  base::UniqueFd control_in;               // read end: what the main process writes
  base::UniqueFd control_out;              // write end: what the main process reads
  base::UniqueFd companion_output;         // read end of a pipe: stdout and stderr of the companions; invalid without any
  base::UniqueFd gate;                     // what the main process waits at; invalid without companions
  std::vector<base::UniqueFd> connectors;  // TCP sockets of its network, not connected: the way to listeners inside

  // Control files of the sandbox's cgroup, opened by the launcher; invalid where the host has no such controller.
  base::UniqueFd freeze_file;  // v2 "1"/"0"; v1 "FROZEN"/"THAWED": use freeze() and thaw()
  base::UniqueFd cpu_quota_file;
  base::UniqueFd memory_stat;
  base::UniqueFd memory_events;  // v2 memory.events; v1 memory.oom_control
  base::UniqueFd cpu_stat;
  base::UniqueFd main_status;  // /proc/<pid>/status of the main process: its high-water mark
  bool cgroup_v2_freezer = true;
  bool cgroup_v2_memory = true;
  bool cgroup_v2_cpu = true;
  std::uint32_t cpu_milli = 0;

  // Stops every process inside until thaw(). Returns when the kernel has been told, not when each has stopped. Without a freezer
  // (HostCapabilities::freezer) both do nothing.
  [[nodiscard]] base::Result<void> freeze() const;
  [[nodiscard]] base::Result<void> thaw() const;
  // Lets the main process of a sandbox with companions go on. Once; nothing without companions.
  void open_gate();
  // Applies the hard CPU quota of the specification; before this call (during init) there is none. Nothing where quotas are off.
  [[nodiscard]] base::Result<void> throttle() const;
  // Anonymous plus shared memory in bytes, now (file cache not counted); 0 where it cannot be measured. Costs about 10 us.
  [[nodiscard]] std::uint64_t memory_used() const;
  // The most it has been: the larger of memory_used() and the main process's high-water mark less its file pages.
  [[nodiscard]] std::uint64_t memory_peak() const;
  // CPU time used by everything inside since the start.
  [[nodiscard]] base::Duration cpu_used() const;
  // How often the kernel killed something inside for lack of memory.
  [[nodiscard]] std::uint64_t oom_kills() const;
};

// What a request led to. A request to start is answered by exactly one of kStarted and kFailed.
struct SandboxStarted {
  Sandbox sandbox;
};
struct SandboxFailed {
  SandboxId id = 0;
  // Names the step ("mount /tmp") and the system's answer. kFunctionFailed is the function's fault, with Lambda's name for it as id:
  // "Runtime.InvalidEntrypoint" (arguments[0] cannot be executed), "Extension.LaunchError" (a companion), "Runtime.InvalidWorkingDir".
  // kNotFound: unknown root or code.
  base::Error error;
};
// The answer to specialise(); SandboxFailed{id} otherwise. Code and layers are where they belong, the limits are set.
struct SandboxSpecialised {
  SandboxId id = 0;
  std::uint32_t cpu_milli = 0;  // for Sandbox::cpu_milli
};
// The zygote takes orders. SandboxFailed when it never comes to that, SandboxExited when it ends afterwards.
struct ZygoteReady {
  SandboxId id = 0;
};
// A program of a sandbox with companions ended; the sandbox goes on. Only after SandboxStarted and before SandboxExited.
struct ProgramEnded {
  SandboxId id = 0;
  std::uint32_t companion = 0;  // which one, from 1 on in the order of the specification; 0 is the main process
  int exit_code = -1;           // -1 when a signal ended it
  int signal = 0;
};
// The main process ended, or the sandbox was killed; every process inside is gone when this arrives. Only after SandboxStarted.
struct SandboxExited {
  SandboxId id = 0;
  int exit_code = -1;  // of the main process; -1 when a signal ended it
  int signal = 0;
  bool out_of_memory = false;
  bool killed = false;  // by kill()
  // With companions only: a program could not be executed after SandboxStarted; as in SandboxFailed.
  std::optional<base::Error> failure = {};
};
struct ArchiveUnpacked {
  std::uint64_t request = 0;
  base::Result<std::uint64_t> bytes = std::uint64_t{0};  // unpacked size, or why the archive was refused whole
};
using LauncherEvent =
    std::variant<SandboxStarted, SandboxFailed, SandboxSpecialised, ZygoteReady, ProgramEnded, SandboxExited, ArchiveUnpacked>;

// What this host can do, found once by the launcher; `mayfly doctor` prints it.
struct HostCapabilities {
  bool privileged = false;  // runs as root
  bool user_namespaces = false;
  bool memory_limit = false, cpu_quota = false, process_limit = false, freezer = false;
  std::string memory_controller, cpu_controller, pids_controller, freezer_controller;  // "v2", "v1" or ""
  bool disk_tmp = false;         // /tmp is disk-backed (loop devices work); else tmpfs
  bool outside_network = false;  // veth and nftables work
  bool seccomp = true;
  bool zygotes = false;            // Launcher::start_zygote() works
  std::vector<std::string> notes;  // one sentence for each thing lost, with the remedy
};

// The server's end. One thread uses it (the event loop that watches fd()).
class Launcher {
 public:
  // Forks the launcher process. See the file comment for when this may be called. Errors name what the host lacks.
  [[nodiscard]] static base::Result<std::unique_ptr<Launcher>> fork_off(const LauncherConfig& config);
  // Closes the socket and waits (at most 5 s) until the launcher has cleaned up and ended.
  ~Launcher();
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  [[nodiscard]] const HostCapabilities& capabilities() const;

  // Asks for a sandbox. kInvalidArgument for a bad specification; kTooLarge when arguments and environment exceed 60 000 bytes;
  // kUnavailable when the launcher has ended. Waits only when about 4 MiB of requests (200 KiB without root) lie unread before it. A
  // sandbox that asks for kOutside where that is not possible (HostCapabilities::outside_network) gets kNone.
  [[nodiscard]] base::Result<void> start(const SandboxSpec& spec);
  // Makes a stem that was started the sandbox of one function. At once answered by SandboxSpecialised or SandboxFailed, of
  // Specialisation::id. A stem that could not be made one is killed. Errors as start().
  [[nodiscard]] base::Result<void> specialise(const Specialisation& specialisation);
  // Starts a zygote; kill() ends it. Errors as start().
  [[nodiscard]] base::Result<void> start_zygote(const ZygoteSpec& spec);
  // Kills everything inside, at once and whole. SandboxExited follows. Unknown ids are ignored.
  void kill(SandboxId id);
  // Asks the main process to end: SIGTERM. kill() must follow if it does not.
  void terminate(SandboxId id);
  // SIGKILL to the main process alone: companions live on.
  void kill_main(SandboxId id);

  struct UnpackLimits {
    std::uint64_t bytes_max = 262'144'000;  // Lambda's unzipped limit
    std::uint32_t entries_max = 50'000;
    std::uint32_t ratio_max = 1100;  // unpacked to packed, above 1 MiB: deflate reaches 1032, so more means lying headers
    std::uint32_t path_max = 4096;
    std::uint32_t depth_max = 64;
    bool operator==(const UnpackLimits&) const = default;
  };
  // Unpacks the zip behind `archive` into a new directory `code_id` beneath the code directory, in a child without
  // privileges, through openat2(RESOLVE_BENEATH). All or nothing; ArchiveUnpacked{request} follows. An existing directory
  // of that id answers at once with its size. The directory is written to the disk after the answer: if the machine, or everything of
  // Mayfly at once, ends before that, the next launcher removes it.
  // `archive` is a regular file or memfd, open for reading. A refusal is kInvalidArgument with id InvalidParameterValueException.
  [[nodiscard]] base::Result<void> unpack(std::uint64_t request, base::UniqueFd archive, const std::string& code_id,
                                          const UnpackLimits& limits);
  // Deletes an unpacked directory (also of the server's own uid), as soon as no sandbox uses it. Unknown ids are ignored.
  void remove_code(const std::string& code_id);

  // Readable when receive() has events. Owned by the launcher.
  [[nodiscard]] int fd() const;
  // All events that are ready; never blocks. kUnavailable once the launcher has died (every sandbox died with it).
  [[nodiscard]] base::Result<std::vector<LauncherEvent>> receive();

 private:
  struct Impl;
  explicit Launcher(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Gives up root for `uid`:`gid` with no groups, no capabilities, no_new_privs and an empty bounding set, after moving the
// calling process into a mount namespace of its own in which `data_directory` is also reachable at the returned path even
// where the new uid could not walk there. No effect but the path itself when not root.
[[nodiscard]] base::Result<std::string> drop_privileges(std::uint32_t uid, std::uint32_t gid, const std::string& data_directory);

}  // namespace mayfly::sandbox
