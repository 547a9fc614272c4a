// LocalBackend: runs functions in sandboxes of this machine. Implements the engine's port over the launcher, owns one
// shard's Dispatcher and drives its clock, and gives every environment its listeners: Runtime API, data calls, DNS.
// Threads: everything on the loop's thread unless it says otherwise. All references outlive it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "engine/dispatcher.h"
#include "net/http_server.h"
#include "net/task.h"
#include "runtime/catalogue.h"
#include "runtime/environment.h"
#include "sandbox/launcher.h"

namespace mayfly::backend {

// Who an environment is, towards the data door and the credential store.
struct EnvironmentIdentity {
  engine::VersionPtr version;
  engine::EnvironmentId id = 0;
  std::string access_key;  // "" while its credentials are being issued
};

struct LocalBackendOptions {
  engine::DispatcherOptions dispatcher;
  std::string code_directory;  // where this process reads unpacked packages; one directory per code id
  std::string region = "us-east-1";
  bool network = true;  // false: no function reaches outside networks
  // The most that processes prepared ahead of their calls (booted runtimes without code) may take together; 0: none are prepared.
  std::uint64_t stem_memory_bytes = std::uint64_t{256} << 20U;
  // Who answers for environments' DNS questions: "192.0.2.1" or "192.0.2.1:5353", each accepted by parse_resolver(); empty: the
  // nameservers of /etc/resolv.conf, read once at the start.
  std::vector<std::string> resolvers;
};

struct LocalBackendPorts {
  sandbox::Launcher& launcher;
  const runtime::RuntimeCatalogue& catalogue;
  engine::LogWriter& logs;
  engine::InvocationObserver& observer;  // gets records with `finished` filled in
  const base::Clock& clock;
  // Temporary credentials of one environment, and their end with it. Without `issue` functions get none.
  std::function<base::Result<runtime::TemporaryCredentials>(const EnvironmentIdentity&)> issue_credentials = {};
  std::function<void(const std::string& access_key)> revoke_credentials = {};
  // What answers on the environment's data listener. Without it the listener refuses connections.
  std::function<net::Handler(const EnvironmentIdentity&)> data_handler = {};
  // The launcher died, and every environment with it: nothing can run any more. The server should end and be restarted.
  std::function<void(const base::Error&)> on_launcher_lost = {};
};

// What the sandbox of a function with default settings is like, where it has the root image `root_id`.
[[nodiscard]] sandbox::ExpectedSandbox usual_sandbox(const std::string& root_id);

class LocalBackend final : public engine::Invoker {
 public:
  LocalBackend(net::EventLoop& loop, LocalBackendOptions options, LocalBackendPorts ports);
  // Kills what still lives, at once; who still waits hears nothing more, so drain() first. On the loop's thread, or after the
  // loop has stopped.
  ~LocalBackend() override;
  LocalBackend(const LocalBackend&) = delete;
  LocalBackend& operator=(const LocalBackend&) = delete;

  // Begins to listen to the launcher. Once, before the first invocation; on the loop's thread or before the loop runs.
  void start();

  void invoke(engine::InvocationPtr invocation) override;

  // Unpacks a zip so that environments can use it and answers its unpacked size in bytes; at once when it is there already. Blocks;
  // any thread but the loop's, while the loop runs. kInvalidArgument and kTooLarge are the archive's fault.
  [[nodiscard]] base::Result<std::uint64_t> prepare_code(const std::string& code_id, base::UniqueFd archive);
  // The same in two steps: begins, and returns what waits for the end (once). Any thread; the waiting not on the loop's.
  [[nodiscard]] std::function<base::Result<std::uint64_t>()> begin_preparing_code(const std::string& code_id, base::UniqueFd archive);
  // Deletes unpacked code. Any thread.
  void remove_code(const std::string& code_id);
  // Code of living environments and of waiting invocations: the sweeper must leave it. Blocks; any thread.
  [[nodiscard]] std::set<std::string> code_in_use();

  // Makes true what the function's record says now: ends environments of versions it does not have any more (busy ones finish first),
  // and makes reserved and provisioned concurrency what its settings say; provisioned concurrency of an alias is that of the version
  // it names now. `find` is asked on the loop, so that of several changes the last counts; null: the function is gone. Returns when
  // that is done, so a management call may answer afterwards; environments are still being made. Blocks; any thread.
  void apply_change(const std::string& function_name, const std::function<engine::RecordPtr(const std::string&)>& find);
  // Of one version, "$LATEST" or digits. Blocks; any thread. Empty when the loop does not answer.
  [[nodiscard]] engine::ProvisionedStatus provisioned_status(const std::string& function_name, const std::string& version);

  // Whether an environment of `version` initialises: makes one as provisioned concurrency does, and leaves it to the next call.
  // kFunctionFailed with the cause when its init fails, kDeadlineExceeded when it is not ready within `patience`. Afterwards the limits
  // are what `find` says, as apply_change() has it. Blocks; any thread but the loop's.
  [[nodiscard]] base::Result<void> try_init(const engine::VersionPtr& version, base::Duration patience,
                                            const std::function<engine::RecordPtr(const std::string&)>& find);

  [[nodiscard]] engine::Dispatcher::Counts counts() const;
  [[nodiscard]] std::uint32_t concurrency_of(const std::string& function_name) const;

  // Refuses new invocations, lets running ones finish until `deadline`, then kills. True when nothing had to be killed.
  [[nodiscard]] net::Awaitable<bool> drain(base::Deadline deadline);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mayfly::backend
