#include "backend/internal/environment.h"

#include <algorithm>

#include "base/log.h"

namespace mayfly::backend {

using base::Duration;
using engine::EndedRun;
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
    : owner_(owner), clock_(clock), order_(std::move(order)), log_(std::move(log)), ordered_(clock.now()) {
  if (order_.phase != InitPhase::kInInvocation) return;
  Run& waiting = runs_.emplace_back();
  waiting.id = order_.run;
  waiting.invocation = order_.waiting;
  waiting.began = ordered_;
  waiting.deadline = order_.run_deadline;
  if (order_.waiting->tail_log) log_->begin_tail(order_.waiting->request_id, runtime::EnvironmentLog::TailFrom::kBeginning);
  log_->start(order_.waiting->request_id, order_.waiting->trace_id);
}

Environment::~Environment() {
  if (telemetry_ && log_->observer() == telemetry_.get()) log_->observe(nullptr);  // another environment may go on in this log
}

void Environment::set_plan(const runtime::LaunchPlan& plan, std::vector<std::string> extensions, std::uint32_t runs_at_once) {
  runs_at_once_ = runs_at_once;
  if (runs_at_once > 1) log_->expect_many();
  contract_ = plan.http;
  external_ = std::move(extensions);
  stand_in_ = plan.stand_in;
  runtime_version_ = plan.runtime_version;
}

void Environment::adopt(sandbox::Sandbox sandbox, Listeners listeners) {
  const net::Executor& executor = listeners.executor;
  sandbox_ = std::move(sandbox);
  made_ = clock_.now();
  if (stopping_) return;
  std::vector<base::UniqueFd> for_server;
  if (contract_) {
    const auto first = sandbox_->connectors.end() - runtime::kHttpWorkerConnectors;
    for_server.assign(std::make_move_iterator(first), std::make_move_iterator(sandbox_->connectors.end()));
    sandbox_->connectors.erase(first, sandbox_->connectors.end());
  }
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
  serve_apis(executor, std::move(for_server));
}

void Environment::serve_apis(const net::Executor& executor, std::vector<base::UniqueFd> for_server) {
  runtime::ExtensionFacts facts;
  facts.external = external_;
  facts.function_name = version().function_name;
  facts.function_version = version().version;
  facts.handler = version().config.handler;
  facts.account_id = account_of(version().arn);
  extensions_ = std::make_unique<runtime::Extensions>(executor, std::move(facts), *this, *telemetry_, clock_);
  api_ = std::make_unique<runtime::RuntimeApi>(executor, std::move(sandbox_->runtime_api), *this, clock_, runtime::RuntimeApiLimits{},
                                               extensions_.get());
  if (contract_) {
    api_->refuse_runtime();
    sandbox_->control_in.reset();
    sandbox_->control_out.reset();
    http_ = std::make_unique<runtime::HttpWorker>(
        executor, std::move(for_server.front()), std::move(for_server.back()), *this, clock_,
        runtime::HttpWorkerOptions{.contract = *contract_, .version = version_pointer(), .log_stream = log_->stream()});
    return;
  }
  channel_ =
      std::make_unique<runtime::FramedChannel>(executor, std::move(sandbox_->control_in), std::move(sandbox_->control_out), *this, clock_);
  runtime::FramedInit init;
  init.concurrency = runs_at_once_;
  init.replace_variables = !late_variables_.empty();
  init.variables = std::move(late_variables_);
  channel_->initialise(std::move(init));
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
  if (http_) http_->abandon();
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
  const auto it = std::ranges::find(runs_, false, &Run::answered);
  return it == runs_.end() ? std::string() : it->invocation->request_id;
}

bool Environment::busy() const {
  return std::ranges::any_of(runs_, [](const Run& run) { return run.handed && !run.answered; });
}

Environment::Run* Environment::find(engine::RunId id) {
  const auto it = std::ranges::find(runs_, id, &Run::id);
  return it == runs_.end() ? nullptr : &*it;
}

// 0 where the runtime has one at a time and does not say which.
Environment::Run* Environment::find_number(runtime::RunNumber number) {
  const auto it = std::ranges::find_if(
      runs_, [number](const Run& run) { return run.handed && (number == 0 || static_cast<runtime::RunNumber>(run.id) == number); });
  return it == runs_.end() ? nullptr : &*it;
}

std::vector<EndedRun> Environment::all_get(const Outcome& outcome) const {
  std::vector<EndedRun> ended;
  for (const Run& run : runs_) {
    if (!run.answered) ended.push_back({.run = run.id, .outcome = outcome});
  }
  return ended;
}

// ---- what the runtime does

void Environment::on_next(runtime::RunNumber number) {
  if (stopping_) return;
  if (initialised_) {
    if (Run* run = find_number(number)) run->back = true;
  } else {
    runtime_waits_ = true;
    if (!contract_) choose_channel();
    log_->init_runtime_done(order_.phase == InitPhase::kOwn ? "init" : "invoke", "success");
    if (runs_at_once_ > 1 && !contract_ && !speaks_frames_) return refuse_one_at_a_time();
  }
  on_extensions_moved();
}

// The engine counts on several runs, which only Mayfly's own bootstrap of this runtime can do.
void Environment::refuse_one_at_a_time() {
  owner_.environment_failed(
      order_.id,
      runtime::platform_fault("Runtime.ConcurrencyUnsupported", request_id(),
                              "AWS_LAMBDA_MAX_CONCURRENCY is set, and the runtime's control pipes are closed or were not used: a "
                              "wrapper program must hand on all descriptors"));
}

// The init is over, and later an invocation, when the runtime and every extension wait for what comes next.
void Environment::on_extensions_moved() {
  if (stopping_) return;
  if (!initialised_ && extensions_->registered()) sandbox_->open_gate();
  if (!runtime_waits_ || !extensions_->ready()) return;
  if (!initialised_) return finish_init();
  while (true) {  // the owner may send the next one from within
    const auto done = std::ranges::find_if(runs_, [](const Run& run) { return run.answered && run.back; });
    if (done == runs_.end()) return;
    const engine::RunId id = done->id;
    runs_.erase(done);
    owner_.environment_ready(order_.id, id);
  }
}

void Environment::finish_init() {
  initialised_ = true;
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

void Environment::on_leaving() {
  if (!stopping_) owner_.environment_leaving(order_.id);
}

void Environment::on_extension_fault(runtime::ExtensionFault fault) {
  if (stopping_) return;
  const bool init = fault.error_type == "Extension.InitError";
  log_->extension(fault.name, init ? "InitError" : "ExitError", {}, fault.reported);
  owner_.environment_failed(order_.id, runtime::platform_fault(fault.error_type, request_id(), fault.message));
}

void Environment::on_answer(runtime::Answer answer) {
  Run* run = find_number(answer.run);
  if (stopping_ || run == nullptr || run->answered) return;
  const Duration took = clock_.now() - run->began;
  drain_output();
  Outcome outcome;
  outcome.kind = answer.failed ? OutcomeKind::kFunctionError : OutcomeKind::kSuccess;
  outcome.payload = std::move(answer.payload);
  outcome.error_type = std::move(answer.error_type);
  const bool found_here = !answer.cause.empty();  // nothing of it is in what the function wrote
  const std::string& id = run->invocation->request_id;
  if (found_here) log_->process_ended(id, answer.cause, outcome.error_type);
  if (outcome.error_type == "Runtime.TruncatedResponse") truncated_ = id;
  report(*run, outcome, took, found_here ? "error" : "success", &answer);
  owner_.environment_answered(order_.id, run->id, std::move(outcome));
}

// ---- what the owner wants

void Environment::send(engine::RunOrder order) {
  freezing_ = false;
  thaw();
  truncated_.clear();
  Run* run = find(order.run);  // there already when its Timeout paid for the init
  if (run == nullptr) {
    run = &runs_.emplace_back();
    run->id = order.run;
    run->invocation = std::move(order.invocation);
    run->began = clock_.now();
    run->deadline = order.run_deadline;
    run->first = order.first;
    run->returned = order.returned;
    if (run->invocation->tail_log)
      log_->begin_tail(run->invocation->request_id,
                       order.first ? runtime::EnvironmentLog::TailFrom::kBeginning : runtime::EnvironmentLog::TailFrom::kHere);
    log_->start(run->invocation->request_id, run->invocation->trace_id);
  }
  run->handed = true;
  // As on AWS, where several invocations run extensions hear of none.
  if (runs_at_once_ == 1) extensions_->invoke(*run->invocation, order.run_deadline);
  const auto number = static_cast<runtime::RunNumber>(run->id);
  if (http_) {
    http_->hand_over(number, run->invocation, order.run_deadline);
  } else if (speaks_frames_) {
    channel_->hand_over(number, run->invocation, order.run_deadline);
  } else {
    api_->hand_over(run->invocation, order.run_deadline);
  }
}

Outcome Environment::give_up(engine::RunId id) {
  Run* run = find(id);
  if (run == nullptr || run->answered) return {};
  const auto number = static_cast<runtime::RunNumber>(id);
  if (http_) http_->give_up(number);
  if (channel_) channel_->give_up(number);
  drain_output();
  Outcome outcome = time_out(*run);
  std::erase_if(runs_, [id](const Run& each) { return each.id == id; });
  return outcome;
}

void Environment::thaw() {
  if (!frozen_) return;
  frozen_ = false;
  if (const auto done = sandbox_->thaw(); !done.ok())
    base::log_error("an environment cannot be thawed", {{"what", done.error().message()}});
  telemetry_->set_frozen(false);
}

void Environment::freeze() {
  if (!sandbox_ || busy() || !telemetry_) return;
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

void Environment::report(Run& run, Outcome& outcome, Duration took, const std::string& status, const runtime::Answer* answer) {
  runtime::ReportFigures figures;
  figures.run = took;
  if (run.first) figures.init = init_;
  figures.billed = engine::billed_duration(took, figures.init.value_or(Duration::zero()));
  const bool somebody_reads_it = run.invocation->tail_log;
  figures.memory_peak = measure_memory_after(took, run.first || somebody_reads_it || status != "success" ? Look::kAlways : Look::kWhenDue);
  figures.status = status;
  figures.error_type = outcome.error_type;
  figures.trace_id = run.invocation->trace_id;
  if (answer != nullptr && answer->began) figures.latency = *answer->began - run.began;
  if (answer != nullptr) figures.produced_bytes = answer->produced_bytes;
  const std::string& id = run.invocation->request_id;
  log_->end(id);
  log_->report(id, figures);
  outcome.timings.run = took;
  outcome.billed = figures.billed;
  outcome.memory_peak = figures.memory_peak;
  outcome.stand_in = stand_in_;
  outcome.log_stream = log_->stream();
  if (somebody_reads_it) outcome.log_tail = log_->end_tail(id);
  run.answered = true;
}

Outcome Environment::time_out(Run& run) {
  const Duration allowed =
      std::chrono::ceil<std::chrono::milliseconds>(run.deadline - run.began);  // our clock began a moment after the dispatcher's
  log_->timed_out(run.invocation->request_id, allowed);
  Outcome outcome;
  report(run, outcome, allowed, "timeout");
  return outcome;
}

void Environment::prepare_stop(StopReason reason) {
  if (stopping_) return;
  abandon_runtime();
  drain_output();
  stopping_ = true;
  if (reason == StopReason::kTimeout) {
    if (!initialised_) log_->init_report(clock_.now() - ordered_, "invoke", "timeout", "");
    for (Run& run : runs_) {
      if (!run.answered) timed_out_.push_back({.run = run.id, .outcome = time_out(run)});
    }
  } else if (reason == StopReason::kInitTimeout) {
    log_->init_report(clock_.now() - (made_ == base::TimePoint{} ? ordered_ : made_), "init", "timeout", "");
  } else if (reason == StopReason::kMisbehaved) {
    const bool runtime_is_back = std::ranges::all_of(runs_, [](const Run& run) { return !run.answered || run.back; });
    log_->note(runtime_is_back
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

std::vector<EndedRun> Environment::conclude_with(const runtime::FunctionFault& fault, const std::string& text) {
  drain_output();
  if (!busy()) log_->process_ended({}, text, fault.error_type);
  return end_runs(fault.error_type, text);
}

std::vector<EndedRun> Environment::conclude(const runtime::ProcessEnd& end) {
  if (!timed_out_.empty()) return std::move(timed_out_);
  if (stopping_ && !busy()) return {};
  drain_output();
  const std::uint32_t memory_mb = version().config.memory_mb;
  if (end.out_of_memory) memory_seen_ = std::uint64_t{memory_mb} << 20U;
  const std::string text = runtime::process_fault_text(end, memory_mb);
  const std::string type = runtime::process_fault(end, {}, memory_mb).error_type;
  if (!busy()) log_->process_ended(truncated_, text, type);
  return end_runs(type, text);
}

// Everything that runs ends with the same fault. What goes to another environment has not failed: its log says nothing of that, only
// that the process ended.
std::vector<EndedRun> Environment::end_runs(std::string_view error_type, const std::string& text) {
  std::vector<EndedRun> ended;
  bool told = !busy();
  for (Run& run : runs_) {
    if (!run.handed || run.answered) continue;
    const std::string& id = run.invocation->request_id;
    runtime::FunctionFault fault = runtime::platform_fault(error_type, id, text);
    const bool received = !take_back(run);
    if (received) {
      log_->process_ended(id, text, fault.error_type);
      told = true;
    }
    Outcome outcome;
    outcome.kind = OutcomeKind::kFunctionError;
    outcome.error_type = std::move(fault.error_type);
    outcome.payload = std::move(fault.payload);
    if (received) report(run, outcome, clock_.now() - run.began, "error");
    ended.push_back({.run = run.id, .outcome = std::move(outcome), .received = received});
  }
  if (!told) log_->process_ended({}, text, error_type);
  return ended;
}

bool Environment::take_back(Run& run) {
  if (run.returned || run.invocation->call_deadline <= clock_.now()) return false;
  const auto number = static_cast<runtime::RunNumber>(run.id);
  if (http_)
    run.answered = http_->take_back(number);
  else
    run.answered = speaks_frames_ ? channel_->take_back(number) : api_->take_back();
  return run.answered;
}

InitFailure Environment::init_failure(const runtime::FunctionFault& fault) {
  const bool own = order_.phase == InitPhase::kOwn;
  log_->init_report(clock_.now() - (made_ == base::TimePoint{} ? ordered_ : made_), own ? "init" : "invoke", "error", fault.error_type);
  InitFailure failure;
  failure.error_type = fault.error_type;
  failure.payload = fault.payload;
  if (own || runs_.empty()) return failure;
  Outcome outcome;
  outcome.error_type = fault.error_type;
  report(runs_.front(), outcome, clock_.now() - runs_.front().began, "error");
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
