// One execution environment of this machine: sandbox, listeners, log and what runs in it now. Tells its owner what happens;
// decides nothing about what should happen next.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/local.h"
#include "backend/local/dns_forwarder.h"
#include "net/http_server.h"
#include "runtime/environment_log.h"
#include "runtime/extensions.h"
#include "runtime/framed_channel.h"
#include "runtime/http_worker.h"
#include "runtime/output.h"
#include "runtime/runtime_api.h"

namespace mayfly::backend {

// What an adopted sandbox is served with.
struct Listeners {
  net::Executor executor;
  net::Handler data_handler;  // may be empty
  const DnsOptions& dns;
  std::shared_ptr<DnsBudget> dns_budget;
};

// What the owner hears. None is called from within a call of the owner's.
class EnvironmentOwner {
 public:
  virtual ~EnvironmentOwner() = default;
  virtual void environment_initialised(engine::EnvironmentId id, base::Duration start, base::Duration init) = 0;
  virtual void environment_init_failing(engine::EnvironmentId id) = 0;  // its runtime said so and is about to end
  virtual void environment_failed(engine::EnvironmentId id, const runtime::FunctionFault& fault) = 0;  // an extension did, so all must end
  virtual void environment_answered(engine::EnvironmentId id, engine::RunId run, engine::Outcome outcome) = 0;
  virtual void environment_ready(engine::EnvironmentId id, engine::RunId run) = 0;  // after what was answered as `run`
  virtual void environment_leaving(engine::EnvironmentId id) = 0;                   // it takes nothing more and is about to end
};

class Environment final : public runtime::FramedEvents, public runtime::ExtensionEvents {
 public:
  Environment(EnvironmentOwner& owner, const base::Clock& clock, engine::StartOrder order, std::shared_ptr<runtime::EnvironmentLog> log);
  ~Environment() override;

  [[nodiscard]] const engine::FunctionVersion& version() const { return *order_.version; }
  [[nodiscard]] const engine::VersionPtr& version_pointer() const { return order_.version; }
  [[nodiscard]] engine::InitPhase phase() const { return order_.phase; }
  [[nodiscard]] engine::Initialization initialization() const { return order_.initialization; }
  [[nodiscard]] const std::shared_ptr<runtime::EnvironmentLog>& log() const { return log_; }
  [[nodiscard]] bool initialised() const { return initialised_; }
  // Whether an invocation runs that is not answered.
  [[nodiscard]] bool busy() const;
  [[nodiscard]] bool stopping() const { return stopping_; }
  // What every invocation that runs would get.
  [[nodiscard]] std::vector<engine::EndedRun> all_get(const engine::Outcome& outcome) const;

  // Of an invocation that runs, or whose Timeout pays for the init; else empty.
  [[nodiscard]] std::string request_id() const;

  // `extensions`: the files of /opt/extensions that are started with it. `runs_at_once`: how many invocations it may be sent.
  void set_plan(const runtime::LaunchPlan& plan, std::vector<std::string> extensions, std::uint32_t runs_at_once);
  [[nodiscard]] const std::vector<std::string>& external_extensions() const { return external_; }

  // Its process was started before it was known whose it would be: it hears the variables when it is adopted. Empty: it has them.
  void tell_late(std::vector<std::string> variables) { late_variables_ = std::move(variables); }
  // The sandbox runs: serves its listeners from now on.
  void adopt(sandbox::Sandbox sandbox, Listeners listeners);
  void send(engine::RunOrder order);
  // The time of `run` is over, others go on: writes its last lines and forgets it. What its caller gets.
  [[nodiscard]] engine::Outcome give_up(engine::RunId run);
  void freeze();
  // Writes what must be written before the processes end and cuts the runtime off. The owner kills.
  void prepare_stop(engine::StopReason reason);

  // Whether extensions are to hear of its end before it is killed, and how long they have for it.
  [[nodiscard]] base::Duration shutdown_time() const;
  // What runs inside has ended, as far as it can be told: the main process, an extension (from 1 on), everything.
  void main_ended() { main_ended_ = true; }
  void extension_ended(std::uint32_t number);
  void all_ended() { all_ended_ = true; }
  // After prepare_stop(): lets everything inside run again for its last moments.
  void begin_shutdown(engine::StopReason reason, base::Deadline deadline);
  // The runtime has had its time, or has ended: extensions hear SHUTDOWN. Once.
  void announce_shutdown();
  // An extension still works on its end.
  [[nodiscard]] bool shutting_down() const;
  [[nodiscard]] bool main_has_ended() const { return main_ended_; }
  [[nodiscard]] bool announced() const { return announced_; }
  // An extension failed: writes the last lines; what the running invocations get.
  [[nodiscard]] std::vector<engine::EndedRun> conclude_with(const runtime::FunctionFault& fault, const std::string& text);
  [[nodiscard]] runtime::FunctionFault extension_fault(std::uint32_t number, const runtime::ProcessEnd& end) const;
  // The line about an extension that could not be executed: `what` is "fork/exec /opt/extensions/NAME: ...".
  void log_launch_error(const std::string& what) const;

  // The process has ended: writes the last lines; what the running invocations get.
  [[nodiscard]] std::vector<engine::EndedRun> conclude(const runtime::ProcessEnd& end);
  // The same for an init. `end` is null when the runtime reported the failure and its process still lives.
  [[nodiscard]] engine::InitFailure conclude_init(const runtime::ProcessEnd* end);
  // Nothing was started: `fault` and the words for the log.
  [[nodiscard]] engine::InitFailure conclude_init_with(const runtime::FunctionFault& fault, const std::string& text);
  // How often something inside was killed for lack of memory.
  [[nodiscard]] std::uint64_t oom_kills() const { return sandbox_ ? sandbox_->oom_kills() : 0; }

  void on_next(runtime::RunNumber number) override;
  void on_init_error(runtime::FunctionFault fault) override;
  void on_answer(runtime::Answer answer) override;
  void on_protocol_error(runtime::FunctionFault fault) override;
  void on_leaving() override;
  void on_extensions_moved() override;
  void on_extension_fault(runtime::ExtensionFault fault) override;
  void on_subscribed(const runtime::Subscription& subscription) override { log_->subscribed(subscription); }

  std::string access_key;  // its temporary credentials'

 private:
  // An invocation that was handed over, until the runtime and all extensions are back from it; or that waits for this init.
  struct Run {
    engine::RunId id = 0;
    engine::InvocationPtr invocation;
    base::TimePoint began{};
    base::Deadline deadline = base::kNoDeadline;
    bool first = false;     // after an own init
    bool returned = false;  // by another environment, once
    bool handed = false;    // to the runtime
    bool answered = false;
    bool back = false;  // the runtime asks for another in place of it
  };

  void serve_dns(Listeners& listeners);
  // `for_server`: the HTTP worker's sockets, where there is one.
  void serve_apis(const net::Executor& executor, std::vector<base::UniqueFd> for_server);
  void choose_channel();
  void refuse_one_at_a_time();
  void abandon_runtime();
  void finish_init();
  void freeze_now();
  void thaw();
  void drain_output();
  std::uint64_t measure_memory();
  enum class Look : std::uint8_t { kWhenDue, kAlways };
  std::uint64_t measure_memory_after(base::Duration run, Look look);
  [[nodiscard]] Run* find(engine::RunId id);
  [[nodiscard]] Run* find_number(runtime::RunNumber number);
  // END and REPORT; fills the outcome's figures. The run is answered.
  void report(Run& run, engine::Outcome& outcome, base::Duration took, const std::string& status, const runtime::Answer* answer = nullptr);
  [[nodiscard]] engine::Outcome time_out(Run& run);
  // Whether no function code can have seen it, or ever will; then the invocation is whole again.
  // Whether the run can go to another environment, because this one's runtime never received it; then it is no longer this one's.
  [[nodiscard]] bool take_back(Run& run);
  [[nodiscard]] std::vector<engine::EndedRun> end_runs(std::string_view error_type, const std::string& text);
  [[nodiscard]] engine::InitFailure init_failure(const runtime::FunctionFault& fault);

  EnvironmentOwner& owner_;
  const base::Clock& clock_;
  const engine::StartOrder order_;
  std::shared_ptr<runtime::EnvironmentLog> log_;
  std::string stand_in_, runtime_version_;
  const base::TimePoint ordered_;
  base::TimePoint made_{};
  base::Duration init_{0};
  std::uint64_t memory_seen_ = 0;     // bytes
  base::Duration unmeasured_run_{0};  // since the last look at it
  base::Duration unmeasured_run_max_ = std::chrono::milliseconds(2);
  std::string truncated_;  // request id, when the last answer broke off: the process may have ended
  bool initialised_ = false, stopping_ = false, frozen_ = false;
  bool speaks_frames_ = false;  // the runtime, over channel_; else it uses the Runtime API, or is an HTTP server
  bool runtime_waits_ = false;  // it has asked for its first invocation
  bool freezing_ = false;       // once telemetry is delivered
  bool main_ended_ = false, all_ended_ = false, announced_ = false;
  std::vector<std::string> external_;
  std::vector<std::string> late_variables_;
  std::optional<runtime::ShutdownReason> shutdown_;
  base::Deadline shutdown_deadline_ = base::kNoDeadline;

  std::uint32_t runs_at_once_ = 1;
  std::optional<runtime::HttpContract> contract_;
  std::vector<Run> runs_;                             // at most runs_at_once_
  std::optional<runtime::FunctionFault> init_fault_;  // as posted
  std::vector<engine::EndedRun> timed_out_;           // written already

  std::optional<sandbox::Sandbox> sandbox_;
  std::unique_ptr<runtime::Telemetry> telemetry_;
  std::unique_ptr<runtime::Extensions> extensions_;
  std::unique_ptr<runtime::RuntimeApi> api_;
  std::unique_ptr<runtime::FramedChannel> channel_;
  std::unique_ptr<runtime::HttpWorker> http_;
  std::unique_ptr<net::HttpServer> data_server_;
  std::unique_ptr<DnsForwarder> dns_;
  std::unique_ptr<runtime::OutputReader> output_, framed_, extension_output_;
};

}  // namespace mayfly::backend
