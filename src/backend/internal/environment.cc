#include "backend/internal/environment.h"

#include <algorithm>

#include "base/log.h"

namespace mayfly::backend {

using base::Duration;
using engine::InitFailure;
using engine::InitPhase;
using engine::Outcome;
using engine::OutcomeKind;
using engine::StopReason;

namespace {

// A function may keep a data connection open while it computes.
net::ServerLimits data_limits() {
  net::ServerLimits limits;
  limits.idle_timeout = std::chrono::hours(1);
  limits.connections_max = 64;
  return limits;
}

// Memory is looked at after a run of some length, and else when this much running has not been looked at; twice as much each time
// nothing was found to have grown. Looking costs as much as everything else about a warm invocation, and at load a run's time is
// mostly waiting for a core. The first touch of memory costs the kernel at least 1 us for 4 KiB, or 100 us for a huge page of 2 MiB:
// a run below kMeasuredRun can take at most 40 MiB, or 200 MiB of huge pages, on each core without being seen at once, and what the
// main process took shows at the next look, in its high-water mark.
constexpr Duration kUnmeasuredRunMin = std::chrono::milliseconds(2);
constexpr Duration kUnmeasuredRunMax = std::chrono::milliseconds(256);
constexpr Duration kMeasuredRun = std::chrono::milliseconds(10);
// An environment that is about to be frozen waits this long for its telemetry to be taken.
constexpr Duration kTelemetryPatience = std::chrono::milliseconds(200);
constexpr Duration kInternalShutdown = std::chrono::milliseconds(500);  // AWS's times
constexpr Duration kExternalShutdown = std::chrono::seconds(2);

runtime::ShutdownReason reason_for_extensions(StopReason reason) {
  switch (reason) {
    case StopReason::kIdle:
    case StopReason::kReplaced:
    case StopReason::kShutdown:
      return runtime::ShutdownReason::kSpindown;
    case StopReason::kTimeout:
    case StopReason::kInitTimeout:
      return runtime::ShutdownReason::kTimeout;
    case StopReason::kCrashed:
    case StopReason::kMisbehaved:
      return runtime::ShutdownReason::kFailure;
  }
  return runtime::ShutdownReason::kFailure;
}

std::string account_of(const std::string& arn) {  // arn:aws:lambda:REGION:ACCOUNT:function:NAME
  std::size_t at = 0;
  for (int colons = 0; colons < 4; ++colons) at = std::min(arn.find(':', at), arn.size() - 1) + 1;
  return arn.substr(at, arn.find(':', at) - at);
}

}  // namespace

Environment::Environment(EnvironmentOwner& owner, const base::Clock& clock, engine::StartOrder order,
                         std::shared_ptr<runtime::EnvironmentLog> log)
    : owner_(owner), clock_(clock), order_(std::move(order)), log_(std::move(log)), ordered_(clock.now()), run_(order_.run) {
  if (order_.phase != InitPhase::kInInvocation) return;
  run_began_ = ordered_;
  run_deadline_ = order_.run_deadline;
  log_->start(order_.waiting->request_id, order_.waiting->trace_id);
}

Environment::~Environment() {
  if (telemetry_ && log_->observer() == telemetry_.get()) log_->observe(nullptr);  // another environment may go on in this log
}

void Environment::set_plan(const runtime::LaunchPlan& plan, std::vector<std::string> extensions) {
  external_ = std::move(extensions);
  stand_in_ = plan.stand_in;
  runtime_version_ = plan.runtime_version;
}

void Environment::adopt(sandbox::Sandbox sandbox, Listeners listeners) {
  const net::Executor& executor = listeners.executor;
  sandbox_ = std::move(sandbox);
  made_ = clock_.now();
  if (stopping_) return;
  telemetry_ = std::make_unique<runtime::Telemetry>(executor, clock_, std::move(sandbox_->connectors));
  log_->observe(telemetry_.get());
  if (order_.phase == InitPhase::kOwn) log_->init_start(runtime_version_);
  if (!stand_in_.empty()) log_->note(stand_in_);
  (void)measure_memory();
  const auto listen = [this](runtime::TelemetryKind kind) {
    return [this, kind](std::string message, std::optional<base::WallTime> time) {  // the readers end before this does
      if (!initialised_) (void)measure_memory();                                    // an init that fails may leave no later chance
      telemetry_->printed(kind, message, time, version().config.log_format == "JSON");
      log_->function_message(std::move(message), time);
    };
  };
  const auto on_message = listen(runtime::TelemetryKind::kFunction);
  output_ =
      std::make_unique<runtime::OutputReader>(executor, std::move(sandbox_->output), std::make_unique<runtime::LineSplitter>(), on_message);
  framed_ = std::make_unique<runtime::OutputReader>(executor, std::move(sandbox_->framed_log), std::make_unique<runtime::FramedDecoder>(),
                                                    on_message);
  if (sandbox_->companion_output.valid()) {
    extension_output_ =
        std::make_unique<runtime::OutputReader>(executor, std::move(sandbox_->companion_output), std::make_unique<runtime::LineSplitter>(),
                                                listen(runtime::TelemetryKind::kExtension));
  }
  if (listeners.data_handler && sandbox_->data_api.valid()) {
    data_server_ =
        std::make_unique<net::HttpServer>(executor, std::move(sandbox_->data_api), data_limits(), std::move(listeners.data_handler));
    data_server_->start();
  }
  sandbox_->data_api.reset();
  serve_dns(listeners);
  serve_apis(executor);
}

void Environment::serve_apis(const net::Executor& executor) {
  runtime::ExtensionFacts facts;
  facts.external = external_;
  facts.function_name = version().function_name;
  facts.function_version = version().version;
  facts.handler = version().config.handler;
  facts.account_id = account_of(version().arn);
  extensions_ = std::make_unique<runtime::Extensions>(executor, std::move(facts), *this, *telemetry_, clock_);
  api_ = std::make_unique<runtime::RuntimeApi>(executor, std::move(sandbox_->runtime_api), *this, clock_, runtime::RuntimeApiLimits{},
                                               extensions_.get());
  channel_ =
      std::make_unique<runtime::FramedChannel>(executor, std::move(sandbox_->control_in), std::move(sandbox_->control_out), *this, clock_);
  channel_->initialise({});
}

// Where the runtime first asks for work, there it gets it.
void Environment::choose_channel() {
  speaks_frames_ = channel_->ready();
  if (speaks_frames_) {
    api_->refuse_runtime();
  } else {
    channel_->abandon();
  }
}

void Environment::abandon_runtime() {
  if (api_) api_->abandon();
  if (channel_) channel_->abandon();
}

void Environment::serve_dns(Listeners& listeners) {
  if (!sandbox_->dns_udp.valid()) return;
  auto made = DnsForwarder::create(listeners.executor, std::move(sandbox_->dns_udp), std::move(sandbox_->dns_tcp), listeners.dns,
                                   listeners.dns_budget);
  if (made.ok()) {
    dns_ = std::move(*made);
  } else {
    base::log_warning("an environment has no name resolution", {{"function", version().function_name}, {"what", made.error().message()}});
  }
}

void Environment::drain_output() {
  if (output_) output_->drain_now();
  if (framed_) framed_->drain_now();
  if (extension_output_) extension_output_->drain_now();
}

std::string Environment::request_id() const {
  if (invocation_) return invocation_->request_id;
  return order_.phase == InitPhase::kInInvocation && !initialised_ ? order_.waiting->request_id : std::string();
}

// ---- what the runtime does

void Environment::on_next() {
  if (stopping_) return;
  runtime_waits_ = true;
  if (!initialised_) {
    choose_channel();
    log_->init_runtime_done(order_.phase == InitPhase::kOwn ? "init" : "invoke", "success");
  }
  on_extensions_moved();
}

// The init is over, and later an invocation, when the runtime and every extension wait for what comes next.
void Environment::on_extensions_moved() {
  if (stopping_) return;
  if (!initialised_ && extensions_->registered()) sandbox_->open_gate();
  if (!runtime_waits_ || !extensions_->ready()) return;
  if (!initialised_) return finish_init();
  if (invocation_ || ready_) return;
  ready_ = true;
  owner_.environment_ready(order_.id, run_);
}

void Environment::finish_init() {
  initialised_ = true;
  ready_ = true;
  drain_output();
  extensions_->close();
  for (const auto& each : extensions_->statuses()) log_->extension(each.name, each.state, each.events, "");
  (void)measure_memory();
  init_ = clock_.now() - made_;
  log_->init_succeeded(init_, order_.phase == InitPhase::kOwn ? "init" : "invoke");
  telemetry_->close();
  if (const auto done = sandbox_->throttle(); !done.ok())
    base::log_warning("an environment runs without its CPU quota", {{"what", done.error().message()}});
  owner_.environment_initialised(order_.id, made_ - ordered_, init_);
}

void Environment::on_init_error(runtime::FunctionFault fault) {
  if (stopping_ || initialised_) return;
  (void)measure_memory();
  init_fault_ = std::move(fault);
  owner_.environment_init_failing(order_.id);
}

void Environment::on_protocol_error(runtime::FunctionFault fault) {
  if (!stopping_) owner_.environment_failed(order_.id, fault);
}

void Environment::on_extension_fault(runtime::ExtensionFault fault) {
  if (stopping_) return;
  const bool init = fault.error_type == "Extension.InitError";
  log_->extension(fault.name, init ? "InitError" : "ExitError", {}, fault.reported);
  owner_.environment_failed(order_.id, runtime::platform_fault(fault.error_type, request_id(), fault.message));
}

void Environment::on_answer(runtime::Answer answer) {
  if (stopping_ || !invocation_) return;
  const Duration run = clock_.now() - run_began_;
  drain_output();
  Outcome outcome;
  outcome.kind = answer.failed ? OutcomeKind::kFunctionError : OutcomeKind::kSuccess;
  outcome.payload = std::move(answer.payload);
  outcome.error_type = std::move(answer.error_type);
  const bool found_here = !answer.cause.empty();  // nothing of it is in what the function wrote
  if (found_here) log_->process_ended(invocation_->request_id, answer.cause, outcome.error_type);
  if (outcome.error_type == "Runtime.TruncatedResponse") truncated_ = invocation_->request_id;
  report(outcome, run, found_here ? "error" : "success", &answer);
  owner_.environment_answered(order_.id, run_, std::move(outcome));
}

// ---- what the owner wants

void Environment::send(engine::RunOrder order) {
  freezing_ = false;
  thaw();
  runtime_waits_ = ready_ = false;
  invocation_ = std::move(order.invocation);
  run_ = order.run;
  first_ = order.first;
  truncated_.clear();
  const bool redone = order_.phase == InitPhase::kInInvocation && invocation_ == order_.waiting;
  if (!redone) {
    run_began_ = clock_.now();
    run_deadline_ = order.run_deadline;
    if (!order.first) log_->begin_tail();
    log_->start(invocation_->request_id, invocation_->trace_id);
  }
  extensions_->invoke(*invocation_, order.run_deadline);
  if (speaks_frames_) {
    channel_->hand_over(static_cast<runtime::RunNumber>(run_), invocation_, order.run_deadline);
  } else {
    api_->hand_over(invocation_, order.run_deadline);
  }
}

void Environment::thaw() {
  if (!frozen_) return;
  frozen_ = false;
  if (const auto done = sandbox_->thaw(); !done.ok())
    base::log_error("an environment cannot be thawed", {{"what", done.error().message()}});
  telemetry_->set_frozen(false);
}

void Environment::freeze() {
  if (!sandbox_ || invocation_ || !telemetry_) return;
  drain_output();
  if (!telemetry_->pending()) return freeze_now();
  freezing_ = true;
  telemetry_->flush(kTelemetryPatience, [this] {
    if (freezing_) freeze_now();
  });
}

void Environment::freeze_now() {
  freezing_ = false;
  if (stopping_) return;
  (void)measure_memory();
  if (const auto done = sandbox_->freeze(); !done.ok()) {
    base::log_warning("an idle environment cannot be frozen", {{"what", done.error().message()}});
    return;
  }
  frozen_ = true;
  telemetry_->set_frozen(true);
}

// The most so far: after the processes have ended nothing can be measured any more.
std::uint64_t Environment::measure_memory() {
  const std::uint64_t before = memory_seen_;
  if (sandbox_) memory_seen_ = std::max(memory_seen_, sandbox_->memory_peak());
  unmeasured_run_ = Duration::zero();
  unmeasured_run_max_ = memory_seen_ > before ? kUnmeasuredRunMin : std::min(2 * unmeasured_run_max_, kUnmeasuredRunMax);
  return memory_seen_;
}

// The same after an invocation, whose figure may be that of an earlier look when little has run since.
std::uint64_t Environment::measure_memory_after(Duration run, Look look) {
  unmeasured_run_ += run;
  const bool due = look == Look::kAlways || run >= kMeasuredRun || unmeasured_run_ >= unmeasured_run_max_;
  return due ? measure_memory() : memory_seen_;
}

void Environment::report(Outcome& outcome, Duration run, const std::string& status, const runtime::Answer* answer) {
  runtime::ReportFigures figures;
  figures.run = run;
  if (first_) figures.init = init_;
  figures.billed = engine::billed_duration(run, figures.init.value_or(Duration::zero()));
  const auto& of = invocation_ ? invocation_ : order_.waiting;
  const bool somebody_reads_it = of && of->tail_log;
  figures.memory_peak = measure_memory_after(run, first_ || somebody_reads_it || status != "success" ? Look::kAlways : Look::kWhenDue);
  figures.status = status;
  figures.error_type = outcome.error_type;
  if (answer != nullptr && answer->began) figures.latency = *answer->began - run_began_;
  if (answer != nullptr) figures.produced_bytes = answer->produced_bytes;
  const std::string id = request_id();
  log_->end(id);
  log_->report(id, figures);
  outcome.timings.run = run;
  outcome.billed = figures.billed;
  outcome.memory_peak = figures.memory_peak;
  outcome.stand_in = stand_in_;
  outcome.log_stream = log_->stream();
  if (somebody_reads_it) outcome.log_tail = log_->tail();
  invocation_ = nullptr;
  first_ = false;
}

void Environment::prepare_stop(StopReason reason) {
  if (stopping_) return;
  abandon_runtime();
  drain_output();
  const std::string id = request_id();
  stopping_ = true;
  if (reason == StopReason::kTimeout && !id.empty()) {
    const Duration allowed =
        std::chrono::ceil<std::chrono::milliseconds>(run_deadline_ - run_began_);  // our clock began a moment after the dispatcher's
    if (!initialised_) log_->init_report(clock_.now() - ordered_, "invoke", "timeout", "");
    log_->timed_out(id, allowed);
    Outcome outcome;
    report(outcome, allowed, "timeout");
    timed_out_ = std::move(outcome);
  } else if (reason == StopReason::kInitTimeout) {
    log_->init_report(clock_.now() - (made_ == base::TimePoint{} ? ordered_ : made_), "init", "timeout", "");
  } else if (reason == StopReason::kMisbehaved) {
    log_->note(runtime_waits_
                   ? "an extension did not ask for its next event within the time of the last invocation; the environment was ended"
                   : "the runtime did not ask for its next invocation within the time of the last one; the environment was ended");
  }
  if (frozen_ && sandbox_ && !sandbox_->cgroup_v2_freezer) {  // a v1 freezer holds even SIGKILL back
    frozen_ = false;
    if (const auto done = sandbox_->thaw(); !done.ok())
      base::log_warning("an environment cannot be thawed to end it", {{"what", done.error().message()}});
  }
}

Duration Environment::shutdown_time() const {
  if (!extensions_ || !extensions_->any() || all_ended_) return Duration::zero();
  return extensions_->any_external() ? kExternalShutdown : kInternalShutdown;
}

void Environment::extension_ended(std::uint32_t number) {
  if (extensions_) extensions_->ended(number);
}

void Environment::begin_shutdown(StopReason reason, base::Deadline deadline) {
  shutdown_ = reason_for_extensions(reason);
  shutdown_deadline_ = deadline;
  thaw();
  telemetry_->set_frozen(false);  // also where prepare_stop() has thawed
  telemetry_->flush(kTelemetryPatience, [] {});
}

void Environment::announce_shutdown() {
  if (announced_ || !shutdown_) return;
  announced_ = true;
  extensions_->shut_down(*shutdown_, shutdown_deadline_);
}

bool Environment::shutting_down() const { return extensions_ && extensions_->wants_shutdown(); }

runtime::FunctionFault Environment::extension_fault(std::uint32_t number, const runtime::ProcessEnd& end) const {
  const std::string how = runtime::describe_end(end);
  const std::string name = number > 0 && number <= external_.size() ? external_[number - 1] : std::string("extension");
  log_->extension(name, "Crashed", {}, "Extension.Crash");
  return runtime::platform_fault("Extension.Crash", request_id(), name + ": " + (how.empty() ? "exit status 0" : how));
}

void Environment::log_launch_error(const std::string& what) const {
  constexpr std::string_view kDirectory = "/opt/extensions/";
  const std::size_t at = what.find(kDirectory);
  if (at == std::string::npos) return;  // there were too many
  const std::size_t begin = at + kDirectory.size();
  const bool denied = what.find("permission denied") != std::string::npos;
  log_->extension(what.substr(begin, what.find(": ", begin) - begin), "LaunchError", {}, denied ? "PermissionDenied" : "UnknownError");
}

Outcome Environment::conclude_with(const runtime::FunctionFault& fault, const std::string& text) {
  const std::string id = request_id();
  drain_output();
  log_->process_ended(id, text, fault.error_type);
  Outcome outcome;
  outcome.kind = OutcomeKind::kFunctionError;
  outcome.error_type = fault.error_type;
  outcome.payload = fault.payload;
  if (invocation_) report(outcome, clock_.now() - run_began_, "error");
  return outcome;
}

Outcome Environment::conclude(const runtime::ProcessEnd& end) {
  if (timed_out_) return std::move(*timed_out_);
  if (stopping_ && !invocation_) return {};
  const std::string id = invocation_ ? request_id() : truncated_;
  drain_output();
  if (end.out_of_memory) memory_seen_ = std::uint64_t{version().config.memory_mb} << 20U;
  runtime::FunctionFault fault = runtime::process_fault(end, id, version().config.memory_mb);
  log_->process_ended(id, runtime::process_fault_text(end, version().config.memory_mb), fault.error_type);
  Outcome outcome;
  outcome.kind = OutcomeKind::kFunctionError;
  outcome.error_type = std::move(fault.error_type);
  outcome.payload = std::move(fault.payload);
  if (invocation_) report(outcome, clock_.now() - run_began_, "error");
  return outcome;
}

InitFailure Environment::init_failure(const runtime::FunctionFault& fault) {
  const bool own = order_.phase == InitPhase::kOwn;
  log_->init_report(clock_.now() - (made_ == base::TimePoint{} ? ordered_ : made_), own ? "init" : "invoke", "error", fault.error_type);
  InitFailure failure;
  failure.error_type = fault.error_type;
  failure.payload = fault.payload;
  if (own) return failure;
  Outcome outcome;
  outcome.error_type = fault.error_type;
  report(outcome, clock_.now() - run_began_, "error");
  failure.log_tail = std::move(outcome.log_tail);
  failure.log_stream = std::move(outcome.log_stream);
  failure.memory_peak = outcome.memory_peak;
  return failure;
}

InitFailure Environment::conclude_init(const runtime::ProcessEnd* end) {
  abandon_runtime();
  drain_output();
  if (init_fault_) return init_failure(*init_fault_);
  const runtime::ProcessEnd unknown{};
  const runtime::ProcessEnd& known = end == nullptr ? unknown : *end;
  return conclude_init_with(runtime::process_fault(known, request_id(), version().config.memory_mb),
                            runtime::process_fault_text(known, version().config.memory_mb));
}

InitFailure Environment::conclude_init_with(const runtime::FunctionFault& fault, const std::string& text) {
  log_->process_ended(request_id(), text, fault.error_type);
  return init_failure(fault);
}

}  // namespace mayfly::backend
