#include "backend/local.h"

#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <csignal>
#include <filesystem>
#include <future>
#include <map>
#include <thread>
#include <unordered_map>

#include "backend/internal/environment.h"
#include "backend/internal/memory_watch.h"
#include "backend/internal/stems.h"
#include "base/assert.h"
#include "base/log.h"

namespace mayfly::backend {

namespace asio = boost::asio;
using base::Duration;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::TimePoint;
using boost::system::error_code;
using engine::EndedRun;
using engine::EnvironmentId;
using engine::InitFailure;
using engine::InitPhase;
using engine::Outcome;
using engine::StopReason;

namespace {

constexpr std::uint32_t kOwnConnectors = 1;  // for an extension inside the runtime, which an HTTP server is not

// After its process ended, an environment's last words may still be on their way through the loop.
constexpr Duration kLastWords = std::chrono::milliseconds(5);
// A runtime that reported a failed init ends by itself and logs on the way; it gets this long.
constexpr Duration kInitErrorGrace = std::chrono::milliseconds(300);
constexpr Duration kMemoryLook = std::chrono::seconds(1);
constexpr Duration kKillGrace = std::chrono::seconds(2);
constexpr Duration kRuntimeShutdown = std::chrono::milliseconds(300);  // of the time that external extensions have, as on AWS
constexpr std::size_t kSizesMost = 4096;                               // of unpacked code, about 120 bytes each
constexpr std::size_t kDepartingMax = 64;                              // more are killed without their extensions hearing of it
constexpr const char* kExtensionsDirectory = "/opt/extensions/";
constexpr std::uint64_t kMilliCpuPerGroup = 1000;  // one CPU ...
constexpr std::uint64_t kMegabytesPerCpu = 1769;   // ... for each 1,769 MB (Lambda's rule)

std::string pool_name(const engine::FunctionVersion& version) {
  return version.function_name + ':' + version.version + ':' + std::to_string(version.generation);
}

DnsOptions dns_options(const std::vector<std::string>& resolvers) {
  DnsOptions dns;
  for (const std::string& resolver : resolvers) {
    if (auto parsed = parse_resolver(resolver); parsed.ok()) dns.resolvers.push_back(*std::move(parsed));
  }
  if (!dns.resolvers.empty()) return dns;
  const auto text = base::read_file("/etc/resolv.conf", 1U << 20U);
  dns.resolvers = parse_resolv_conf(text.ok() ? std::string_view(*text) : std::string_view());
  return dns;
}

bool has_exec_wrapper(const engine::FunctionVersion& version) {
  return version.config.environment && version.config.environment->contains("AWS_LAMBDA_EXEC_WRAPPER") &&
         !version.config.runtime.starts_with("provided");
}

// The files of /opt/extensions, as the layers make it up. The launcher executes them by their names inside.
std::vector<std::string> find_extensions(const std::vector<std::string>& layers) {
  std::set<std::string> names;
  for (const std::string& layer : layers) {
    std::error_code error;
    for (std::filesystem::directory_iterator it(layer + "/extensions", error); !error && it != std::filesystem::directory_iterator();
         it.increment(error)) {
      std::error_code unreadable;
      const std::string name = it->path().filename().string();
      if (it->symlink_status(unreadable).type() == std::filesystem::file_type::directory) {
        names.erase(name);  // a directory of a later layer covers a file
      } else {
        names.insert(name);
      }
      if (names.size() > runtime::kExtensionsMax) return {names.begin(), names.end()};  // refused as too many
    }
  }
  return {names.begin(), names.end()};
}

// Tells a program's file from one that takes its place; empty where there is none.
std::string identity_of(const std::string& path) {
  struct stat file{};
  if (::stat(path.c_str(), &file) != 0) return {};
  return std::to_string(file.st_dev) + ':' + std::to_string(file.st_ino) + ':' + std::to_string(file.st_mtim.tv_sec) + '.' +
         std::to_string(file.st_mtim.tv_nsec);
}

runtime::ProcessEnd describe(const sandbox::SandboxExited& event, const Environment& environment) {
  runtime::ProcessEnd end{.exit_code = event.exit_code, .signal = event.signal, .out_of_memory = event.out_of_memory};
  end.out_of_memory = end.out_of_memory || (event.signal == SIGKILL && !event.killed && environment.oom_kills() > 0);
  return end;
}

}  // namespace

struct LocalBackend::Impl final : engine::EnvironmentBackend, engine::InvocationObserver, EnvironmentOwner {
  Impl(net::EventLoop& loop_in, LocalBackendOptions options_in, LocalBackendPorts ports_in)
      : loop(loop_in),
        options(std::move(options_in)),
        ports(std::move(ports_in)),
        executor(loop.executor()),
        context(static_cast<asio::io_context&>(asio::query(executor, asio::execution::context))),
        launcher_events(context),
        timer(context),
        something_ended(executor),
        dns(dns_options(options.resolvers)),
        dispatcher(options.dispatcher, *this, *this),
        forkable(runtime::forkable_runtimes(ports.catalogue)),
        stems(context, ports.launcher, ports.clock, {.memory_bytes_max = options.stem_memory_bytes}) {}

  // ---- the engine's port
  void start(engine::StartOrder order) override;
  [[nodiscard]] std::uint32_t runs_at_once(const engine::FunctionVersion& version) const override;
  void send(engine::RunOrder order) override;
  void give_up(EnvironmentId id, engine::RunId run) override;
  void freeze(EnvironmentId id) override;
  void stop(EnvironmentId id, StopReason reason) override;
  void on_invocation(const engine::InvocationRecord& record) override;

  // ---- what environments tell
  void environment_initialised(EnvironmentId id, Duration start_time, Duration init) override;
  void environment_init_failing(EnvironmentId id) override;
  void environment_failed(EnvironmentId id, const runtime::FunctionFault& fault) override;
  void environment_answered(EnvironmentId id, engine::RunId run, Outcome outcome) override;
  void environment_ready(EnvironmentId id, engine::RunId run) override;
  void environment_leaving(EnvironmentId id) override;

  // ---- what the launcher tells
  void watch_launcher();
  void handle(sandbox::SandboxStarted event);
  void handle(sandbox::SandboxFailed event);
  void handle(sandbox::SandboxSpecialised event);
  void handle(const sandbox::ZygoteReady& event) { stems.handle(event); }
  void handle(sandbox::ProgramEnded event);
  void handle(sandbox::SandboxExited event);
  void handle(sandbox::ArchiveUnpacked event);
  struct Unpacking;
  void unpack(const std::shared_ptr<Unpacking>& request, base::UniqueFd archive);
  void launcher_lost(const Error& error);

  [[nodiscard]] Result<void> launch(Environment& environment, EnvironmentId id, const runtime::LaunchPlan& plan,
                                    std::vector<std::string> extensions);
  [[nodiscard]] sandbox::SandboxSpec specification(const Environment& environment, EnvironmentId id, const runtime::LaunchPlan& plan) const;
  // Whose stems an environment of this specification can take; nullopt where it must start in full.
  [[nodiscard]] std::optional<StemClass> stem_class(const Environment& environment, const runtime::LaunchPlan& plan,
                                                    const sandbox::SandboxSpec& spec) const;
  // Takes a process prepared for it, if there is one.
  [[nodiscard]] bool start_prepared(Environment& environment, const runtime::LaunchPlan& plan, const sandbox::SandboxSpec& spec);
  void adopt(Environment& environment, EnvironmentId id, sandbox::Sandbox made);
  void fail_start(EnvironmentId id, const Error& error);
  void process_ended(EnvironmentId id, const runtime::ProcessEnd& end);
  void gone(EnvironmentId id, std::vector<EndedRun> ended);
  // Ends what runs inside: killed at once, or, where extensions are to hear of it first, moved to `departing` and killed later; the
  // dispatcher then hears on_gone with `if_busy` right after this turn of the loop. Whether it departs.
  bool end_processes(EnvironmentId id, StopReason reason, const std::function<std::vector<EndedRun>()>& if_busy);
  void announce_shutdown(EnvironmentId id);
  void main_ended(EnvironmentId id, const runtime::ProcessEnd& end);
  void fail_running(EnvironmentId id, const runtime::FunctionFault& fault, const std::string& text);
  void report_init_failure(EnvironmentId id, InitFailure failure);
  std::shared_ptr<runtime::EnvironmentLog> log_for(const engine::StartOrder& order);
  // The next environment of this version, made within this turn of the loop, goes on in the same log stream.
  void carry_log(const Environment& environment);
  void set_provisioned(const std::string& function_name, const engine::FunctionRecord* record);

  void rearm();
  // While environments live, once a second: idle ones end before the machine's memory does.
  void watch_memory();
  // Runs `action` on the loop after `delay`, unless the backend is gone by then.
  void later(Duration delay, std::function<void()> action);
  // Runs `work` on the loop and waits for it; at once when this is the loop's thread. False when the loop does not answer.
  bool on_loop(const std::function<void()>& work);
  Environment* find(EnvironmentId id) {
    const auto it = environments.find(id);
    return it == environments.end() ? nullptr : it->second.get();
  }
  Environment* find_departing(EnvironmentId id) {
    const auto it = departing.find(id);
    return it == departing.end() ? nullptr : it->second.get();
  }
  void revoke(const Environment& ended) const {
    if (!ended.access_key.empty() && ports.revoke_credentials) ports.revoke_credentials(ended.access_key);
  }
  [[nodiscard]] TimePoint now() const { return ports.clock.now(); }

  net::EventLoop& loop;
  const LocalBackendOptions options;
  const LocalBackendPorts ports;
  net::Executor executor;
  asio::io_context& context;
  asio::posix::stream_descriptor launcher_events;
  asio::steady_timer timer;
  bool watching_memory = false;
  TimePoint armed = base::kNoDeadline;
  bool lost = false;
  bool draining = false;
  std::map<std::string, std::shared_ptr<runtime::EnvironmentLog>> carried_logs;
  struct Unpacking {
    std::string code_id;
    std::promise<Result<std::uint64_t>> size;
  };
  std::map<std::uint64_t, std::shared_ptr<Unpacking>> unpacking;
  std::unordered_map<std::string, std::uint64_t> unpacked_sizes;  // of code that was asked for lately; at most kSizesMost
  std::uint64_t next_request = 1;
  net::Event something_ended;
  const DnsOptions dns;
  const std::shared_ptr<DnsBudget> dns_budget = std::make_shared<DnsBudget>();
  std::unordered_map<EnvironmentId, std::unique_ptr<Environment>> environments;
  std::map<std::string, std::map<std::string, engine::VersionPtr>> provisioned;  // by function and version: those with any
  std::unordered_map<EnvironmentId, std::unique_ptr<Environment>> departing;     // gone for the dispatcher; their extensions still work
  engine::Dispatcher dispatcher;
  const std::vector<runtime::ForkableRuntime> forkable;
  Stems stems;
  struct Prepared {
    std::optional<sandbox::Sandbox> stem;  // until it is the environment's; empty where it is forked for it at once
    sandbox::SandboxSpec in_full;          // what is started where that comes to nothing
  };
  std::unordered_map<EnvironmentId, Prepared> prepared;
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);
};

// ---- helpers

void LocalBackend::Impl::rearm() {
  if (draining) something_ended.set();  // or something else that drain() waits for has
  const TimePoint next = dispatcher.next_timer();
  if (next >= armed) return;  // an early wake-up costs less than moving the timer each time
  armed = next;
  timer.expires_at(next);
  timer.async_wait([this, token = std::weak_ptr<bool>(alive)](error_code error) {
    if (error || token.expired()) return;
    armed = base::kNoDeadline;
    dispatcher.on_timer(now());
    rearm();
  });
}

void LocalBackend::Impl::later(Duration delay, std::function<void()> action) {
  if (delay == Duration::zero()) {
    loop.post([token = std::weak_ptr<bool>(alive), action = std::move(action)] {
      if (!token.expired()) action();
    });
    return;
  }
  auto once = std::make_shared<asio::steady_timer>(context, delay);
  once->async_wait([once, token = std::weak_ptr<bool>(alive), action = std::move(action)](error_code error) {
    if (!error && !token.expired()) action();
  });
}

bool LocalBackend::Impl::on_loop(const std::function<void()>& work) {
  if (loop.in_loop()) {
    work();
    return true;
  }
  // Shared: a loop that answers after we gave up must find neither `work` nor the promise gone.
  auto task = std::make_shared<std::packaged_task<void()>>(work);
  auto done = task->get_future();
  loop.post([task, token = std::weak_ptr<bool>(alive)] {
    if (!token.expired()) (*task)();
  });
  return done.wait_for(std::chrono::seconds(10)) == std::future_status::ready;
}

std::shared_ptr<runtime::EnvironmentLog> LocalBackend::Impl::log_for(const engine::StartOrder& order) {
  if (order.phase == InitPhase::kInInvocation) {
    if (const auto it = carried_logs.find(pool_name(*order.version)); it != carried_logs.end()) {
      auto log = it->second;
      carried_logs.erase(it);
      return log;
    }
  }
  return std::make_shared<runtime::EnvironmentLog>(ports.logs, ports.clock, order.version,
                                                   runtime::make_log_stream_name(order.version->version, ports.clock.wall_now()),
                                                   std::string(engine::initialization_name(order.initialization)));
}

void LocalBackend::Impl::carry_log(const Environment& environment) {
  // Nothing redoes the init of a provisioned one.
  if (environment.phase() != InitPhase::kOwn || environment.initialization() == engine::Initialization::kProvisioned) return;
  const std::string name = pool_name(environment.version());
  carried_logs[name] = environment.log();
  later(Duration::zero(), [this, name] { carried_logs.erase(name); });
}

void LocalBackend::Impl::set_provisioned(const std::string& function_name, const engine::FunctionRecord* record) {
  std::map<std::string, engine::VersionPtr> versions;
  std::map<std::string, std::uint32_t> counts;
  if (record != nullptr) {
    for (const auto& [qualifier, wanted] : record->settings->provisioned) {
      const engine::VersionPtr version = record->find(qualifier);
      if (version == nullptr || wanted.requested == 0) continue;
      versions[version->version] = version;
      counts[version->version] += wanted.requested;
    }
  }
  for (const auto& [name, version] : provisioned[function_name]) {
    if (!versions.contains(name)) dispatcher.set_provisioned_concurrency(version, 0, now());
  }
  for (const auto& [name, version] : versions) dispatcher.set_provisioned_concurrency(version, counts[name], now());
  if (versions.empty()) {
    provisioned.erase(function_name);
  } else {
    provisioned[function_name] = std::move(versions);
  }
}

void LocalBackend::Impl::watch_memory() {
  if (watching_memory || environments.empty()) return;
  watching_memory = true;
  later(kMemoryLook, [this] {
    watching_memory = false;
    const auto state = read_memory_state();
    if (state && state->short_by() > 0) {
      const std::uint64_t freed = dispatcher.evict_idle(state->short_by(), now());
      if (freed > 0) base::log_warning("memory runs short; idle environments ended", {{"held_bytes", std::to_string(freed)}});
      rearm();
    }
    watch_memory();
  });
}

// ---- the engine's port

void LocalBackend::Impl::start(engine::StartOrder order) {
  const EnvironmentId id = order.id;
  auto log = log_for(order);
  auto made = std::make_unique<Environment>(*this, ports.clock, std::move(order), std::move(log));
  Environment& environment = *made;
  environments.emplace(id, std::move(made));
  watch_memory();
  std::vector<std::string> layers;
  for (const engine::LayerUse& layer : environment.version().config.layers) layers.push_back(options.code_directory + "/" + layer.code_id);
  auto plan = ports.catalogue.plan(environment.version(), options.code_directory + "/" + environment.version().config.code_id, layers);
  auto launched = plan.ok() ? launch(environment, id, *plan, find_extensions(layers)) : Result<void>(std::move(plan).error());
  if (!launched.ok()) later(Duration::zero(), [this, id, error = std::move(launched).error()] { fail_start(id, error); });
}

Result<void> LocalBackend::Impl::launch(Environment& environment, EnvironmentId id, const runtime::LaunchPlan& plan,
                                        std::vector<std::string> extensions) {
  if (lost)
    return Error(ErrorCode::kUnavailable, "The launcher has ended; functions run again once the server is restarted.", "ServiceException");
  if (extensions.size() > runtime::kExtensionsMax) {
    return Error(ErrorCode::kFunctionFailed, "Extension limit (10) reached: the layers bring more files in /opt/extensions",
                 "Extension.LaunchError");
  }
  environment.set_plan(plan, std::move(extensions), runs_at_once(environment.version()));
  sandbox::SandboxSpec spec = specification(environment, id, plan);
  runtime::EnvironmentInputs inputs{.region = options.region,
                                    .log_stream = environment.log()->stream(),
                                    .credentials = {},
                                    .runtime_variables = plan.variables,
                                    .initialization_type = std::string(engine::initialization_name(environment.initialization()))};
  if (ports.issue_credentials) {
    MAYFLY_ASSIGN(inputs.credentials, ports.issue_credentials({environment.version_pointer(), id, ""}));
    environment.access_key = inputs.credentials.access_key;
  }
  spec.environment = runtime::environment_variables(environment.version(), inputs);
  if (start_prepared(environment, plan, spec)) return {};
  return ports.launcher.start(spec).with_context("start the environment");
}

std::optional<StemClass> LocalBackend::Impl::stem_class(const Environment& environment, const runtime::LaunchPlan& plan,
                                                        const sandbox::SandboxSpec& spec) const {
  const engine::FunctionVersion& version = environment.version();
  const bool python = version.config.runtime.starts_with("python");
  if ((!python && !version.config.runtime.starts_with("nodejs")) || plan.http || has_exec_wrapper(version) || !spec.companions.empty())
    return std::nullopt;
  if (options.stem_memory_bytes == 0) return std::nullopt;
  const auto& own = version.config.environment;
  if (own && !std::ranges::all_of(*own, [](const auto& variable) { return runtime::may_differ_in_stems(variable.first); }))
    return std::nullopt;
  StemClass of{.root_id = spec.root_id, .arguments = spec.arguments, .variables = {}, .network = spec.network, .tmp_bytes = spec.tmp_bytes};
  for (const std::string& variable : spec.environment) {
    if (runtime::read_at_boot(std::string_view(variable).substr(0, variable.find('=')))) of.variables.push_back(variable);
  }
  if (!python) of.memory_bytes = spec.memory_bytes;
  of.program = identity_of(spec.arguments.front());  // every root is this machine's, so it has the same name here
  const runtime::ForkableRuntime wanted{.root_id = of.root_id, .arguments = of.arguments, .variables = of.variables};
  of.forks = ports.launcher.capabilities().zygotes && std::ranges::find(forkable, wanted) != forkable.end();
  return of;
}

bool LocalBackend::Impl::start_prepared(Environment& environment, const runtime::LaunchPlan& plan, const sandbox::SandboxSpec& spec) {
  const auto of = stem_class(environment, plan, spec);
  if (!of) return false;
  auto stem = stems.take(*of);
  Result<void> asked = Error(ErrorCode::kNotFound, "");
  if (stem) {
    asked = ports.launcher.specialise({.stem = stem->id,
                                       .id = spec.id,
                                       .code_id = spec.code_id,
                                       .layer_ids = spec.layer_ids,
                                       .memory_bytes = spec.memory_bytes,
                                       .cpu_milli = spec.cpu_milli});
    if (!asked.ok()) ports.launcher.kill(stem->id);
  } else if (const sandbox::SandboxId zygote = stems.zygote_for(*of); zygote != 0) {
    sandbox::SandboxSpec forked = spec;
    forked.environment.clear();  // it hears them when it is there
    forked.working_directory = "/";
    forked.zygote = zygote;
    asked = ports.launcher.start(forked);
  }
  if (!asked.ok()) return false;
  environment.tell_late(spec.environment);
  prepared[spec.id] = {.stem = std::move(stem), .in_full = spec};
  return true;
}

sandbox::SandboxSpec LocalBackend::Impl::specification(const Environment& environment, EnvironmentId id,
                                                       const runtime::LaunchPlan& plan) const {
  const engine::FunctionConfig& config = environment.version().config;
  sandbox::SandboxSpec spec;
  spec.id = id;
  spec.root_id = plan.root_id;
  spec.code_id = config.code_id;
  for (const engine::LayerUse& layer : config.layers) spec.layer_ids.push_back(layer.code_id);
  spec.arguments = plan.arguments;
  for (const std::string& extension : environment.external_extensions()) spec.companions.push_back(kExtensionsDirectory + extension);
  if (!spec.companions.empty()) spec.companions_lack = runtime::variables_extensions_lack();
  spec.connectors = static_cast<std::uint32_t>(spec.companions.size()) + (plan.http ? runtime::kHttpWorkerConnectors : kOwnConnectors);
  spec.memory_bytes = std::uint64_t{config.memory_mb} << 20U;
  spec.tmp_bytes = std::uint64_t{config.ephemeral_mb} << 20U;
  spec.cpu_milli = static_cast<std::uint32_t>(std::max<std::uint64_t>(1, config.memory_mb * kMilliCpuPerGroup / kMegabytesPerCpu));
  spec.network = options.network && config.network() != "none" ? sandbox::Network::kOutside : sandbox::Network::kNone;
  return spec;
}

// Nothing was started, or the launcher could not: the function is to blame only where its package has no entry point.
void LocalBackend::Impl::fail_start(EnvironmentId id, const Error& error) {
  Environment* environment = find(id);
  if (environment == nullptr) return;
  InitFailure failure;
  if (error.id() == "Extension.LaunchError") environment->log_launch_error(error.message());
  if (error.id() == "Runtime.InvalidEntrypoint" && has_exec_wrapper(environment->version())) {
    const runtime::ProcessEnd not_found{.exit_code = 127};  // what a shell says of it, and AWS
    failure = environment->conclude_init(&not_found);
  } else if (error.code() == ErrorCode::kFunctionFailed) {
    failure =
        environment->conclude_init_with(runtime::platform_fault(error.id(), environment->request_id(), error.message()), error.message());
  } else {
    failure.platform_fault = true;
    failure.error =
        error.id() == "InvalidParameterValueException" ? Error(ErrorCode::kUnsupported, error.message(), "InvalidRuntimeException") : error;
    base::log_warning("an environment could not be made", {{"function", environment->version().function_name}, {"what", error.message()}});
  }
  environment->all_ended();
  if (!environment->stopping()) report_init_failure(id, std::move(failure));
  gone(id, {});
}

// As many as the function asks for where its program is an HTTP server or runs in Node.js, whose bootstrap tells runs apart; other
// runtimes take one at a time.
std::uint32_t LocalBackend::Impl::runs_at_once(const engine::FunctionVersion& version) const {
  const bool can = runtime::wants_http_contract(version.config) || version.config.runtime.starts_with("nodejs");
  return can ? version.config.runs_per_environment().value_or(1) : 1;
}

void LocalBackend::Impl::send(engine::RunOrder order) {
  if (Environment* environment = find(order.environment)) environment->send(std::move(order));
}

void LocalBackend::Impl::give_up(EnvironmentId id, engine::RunId run) {
  Environment* environment = find(id);
  if (environment == nullptr) return;
  later(Duration::zero(), [this, id, run, outcome = environment->give_up(run)] { environment_answered(id, run, outcome); });
}

void LocalBackend::Impl::freeze(EnvironmentId id) {
  if (Environment* environment = find(id)) environment->freeze();
}

void LocalBackend::Impl::stop(EnvironmentId id, StopReason reason) {
  Environment* environment = find(id);
  if (environment == nullptr) return;
  environment->prepare_stop(reason);
  if (reason == StopReason::kInitTimeout) carry_log(*environment);
  if (environment->shutdown_time() == Duration::zero()) return ports.launcher.kill(id);
  (void)end_processes(id, reason, [environment] { return environment->conclude({}); });
}

bool LocalBackend::Impl::end_processes(EnvironmentId id, StopReason reason, const std::function<std::vector<EndedRun>()>& if_busy) {
  const auto it = environments.find(id);
  if (it == environments.end()) return false;
  const Duration time = it->second->shutdown_time();
  const bool gently = reason == StopReason::kIdle || reason == StopReason::kReplaced || reason == StopReason::kShutdown;
  const bool external = !it->second->external_extensions().empty();
  if (time == Duration::zero() || departing.size() >= kDepartingMax || (!external && !gently)) {
    ports.launcher.kill(id);
    return false;
  }
  Environment& environment = *departing.emplace(id, std::move(it->second)).first->second;
  environments.erase(it);
  std::vector<EndedRun> ended = if_busy();
  environment.begin_shutdown(reason, now() + time);
  later(Duration::zero(), [this, id, ended = std::move(ended)] {
    dispatcher.on_gone(id, ended, now());
    rearm();
    something_ended.set();
  });
  later(time, [this, id] { ports.launcher.kill(id); });
  if (environment.main_has_ended()) {
    announce_shutdown(id);
  } else if (gently) {
    ports.launcher.terminate(id);
    if (external) {
      later(std::min(kRuntimeShutdown, time), [this, id] {
        ports.launcher.kill_main(id);
        announce_shutdown(id);
      });
    }
  } else {
    ports.launcher.kill_main(id);
    announce_shutdown(id);
  }
  return true;
}

// The rest of the time is the extensions'; without one that wants it, it ends here.
void LocalBackend::Impl::announce_shutdown(EnvironmentId id) {
  Environment* environment = find_departing(id);
  if (environment == nullptr) return;
  environment->announce_shutdown();
  if (!environment->shutting_down()) ports.launcher.kill(id);
}

void LocalBackend::Impl::on_invocation(const engine::InvocationRecord& record) {
  engine::InvocationRecord complete = record;
  complete.finished = ports.clock.wall_now();
  ports.observer.on_invocation(complete);
}

// ---- what environments tell

void LocalBackend::Impl::environment_initialised(EnvironmentId id, Duration start_time, Duration init) {
  dispatcher.on_initialised(id, start_time, init, now());
  rearm();
}

void LocalBackend::Impl::environment_init_failing(EnvironmentId id) {
  later(kInitErrorGrace, [this, id] {
    Environment* environment = find(id);
    if (environment == nullptr || environment->stopping()) return;
    report_init_failure(id, environment->conclude_init(nullptr));
  });
}

void LocalBackend::Impl::environment_failed(EnvironmentId id, const runtime::FunctionFault& fault) {
  later(Duration::zero(), [this, id, fault] { fail_running(id, fault, fault.cause); });
}

// Something beside the runtime failed, so all must end.
void LocalBackend::Impl::fail_running(EnvironmentId id, const runtime::FunctionFault& fault, const std::string& text) {
  Environment* environment = find(id);
  if (environment == nullptr || environment->stopping()) return;
  if (!environment->initialised()) return report_init_failure(id, environment->conclude_init_with(fault, text));
  std::vector<EndedRun> ended = environment->conclude_with(fault, text);
  environment->prepare_stop(StopReason::kCrashed);
  if (!end_processes(id, StopReason::kCrashed, [&ended] { return ended; })) gone(id, std::move(ended));
}

void LocalBackend::Impl::environment_answered(EnvironmentId id, engine::RunId run, Outcome outcome) {
  dispatcher.on_answered(id, run, std::move(outcome), now());
  rearm();
}

void LocalBackend::Impl::environment_ready(EnvironmentId id, engine::RunId run) {
  dispatcher.on_ready(id, run, now());
  rearm();
}

void LocalBackend::Impl::environment_leaving(EnvironmentId id) {
  dispatcher.on_leaving(id, now());
  rearm();
}

void LocalBackend::Impl::report_init_failure(EnvironmentId id, InitFailure failure) {
  if (Environment* environment = find(id)) {
    carry_log(*environment);
    environment->prepare_stop(StopReason::kCrashed);
    (void)end_processes(id, StopReason::kCrashed, [] { return std::vector<EndedRun>(); });
  }
  dispatcher.on_init_failed(id, std::move(failure), now());
  rearm();
}

// ---- what the launcher tells

void LocalBackend::Impl::watch_launcher() {
  launcher_events.async_wait(asio::posix::descriptor_base::wait_read, [this, token = std::weak_ptr<bool>(alive)](error_code error) {
    if (error || token.expired()) return;
    auto events = ports.launcher.receive();
    if (!events.ok()) return launcher_lost(events.error());
    for (sandbox::LauncherEvent& event : *events) {
      std::visit([this](auto& each) { handle(std::move(each)); }, event);
    }
    watch_launcher();
  });
}

void LocalBackend::Impl::handle(sandbox::SandboxStarted event) {
  if (stems.handle(event)) return;
  const EnvironmentId id = event.sandbox.id;
  prepared.erase(id);
  Environment* environment = find(id);
  if (environment == nullptr) return ports.launcher.kill(id);
  adopt(*environment, id, std::move(event.sandbox));
}

void LocalBackend::Impl::handle(sandbox::SandboxSpecialised event) {
  auto held = prepared.extract(event.id);
  Environment* environment = find(event.id);
  if (environment == nullptr || held.empty() || !held.mapped().stem) return ports.launcher.kill(event.id);
  sandbox::Sandbox stem = std::move(*held.mapped().stem);
  stem.id = event.id;
  stem.cpu_milli = event.cpu_milli;
  adopt(*environment, event.id, std::move(stem));
}

void LocalBackend::Impl::adopt(Environment& environment, EnvironmentId id, sandbox::Sandbox made) {
  net::Handler handler;
  if (ports.data_handler) handler = ports.data_handler({environment.version_pointer(), id, environment.access_key});
  environment.adopt(std::move(made), {.executor = executor, .data_handler = std::move(handler), .dns = dns, .dns_budget = dns_budget});
  if (environment.stopping()) return ports.launcher.kill(id);
  dispatcher.on_started(id, now());
  rearm();
}

void LocalBackend::Impl::handle(sandbox::SandboxFailed event) {
  if (stems.handle(event)) return;
  auto held = prepared.extract(event.id);
  Environment* environment = find(event.id);
  if (!held.empty() && environment != nullptr && !environment->stopping()) {  // what was prepared is gone: a whole start takes its place
    environment->tell_late({});
    if (ports.launcher.start(held.mapped().in_full).ok()) return;
  }
  fail_start(event.id, event.error);
}

void LocalBackend::Impl::handle(sandbox::ProgramEnded event) {
  Environment* environment = find(event.id);
  if (environment == nullptr) environment = find_departing(event.id);
  if (environment == nullptr) return;
  if (event.companion == 0)
    environment->main_ended();
  else
    environment->extension_ended(event.companion);
  if (departing.contains(event.id)) {
    if (event.companion == 0 || environment->announced()) announce_shutdown(event.id);
    return;
  }
  const runtime::ProcessEnd end{.exit_code = event.exit_code, .signal = event.signal, .out_of_memory = false};
  if (event.companion > 0) {
    if (!environment->stopping()) {
      const runtime::FunctionFault fault = environment->extension_fault(event.companion, end);
      fail_running(event.id, fault, fault.cause);
    }
    return;
  }
  if (environment->initialised() && !environment->busy()) return main_ended(event.id, end);  // it must not be chosen any more
  later(kLastWords, [this, id = event.id, end] { main_ended(id, end); });
}

// Of an environment with extensions, which hear of it before the rest ends.
void LocalBackend::Impl::main_ended(EnvironmentId id, const runtime::ProcessEnd& end) {
  Environment* environment = find(id);
  if (environment == nullptr || environment->stopping()) return;
  if (!environment->initialised()) return report_init_failure(id, environment->conclude_init(&end));
  std::vector<EndedRun> ended = environment->conclude(end);
  environment->prepare_stop(StopReason::kCrashed);
  if (!end_processes(id, StopReason::kCrashed, [&ended] { return ended; })) gone(id, std::move(ended));
}

void LocalBackend::Impl::handle(sandbox::SandboxExited event) {
  if (stems.handle(event)) return;
  if (const auto it = departing.find(event.id); it != departing.end()) {
    const std::unique_ptr<Environment> ended = std::move(it->second);
    departing.erase(it);
    revoke(*ended);
    return something_ended.set();
  }
  Environment* environment = find(event.id);
  if (environment == nullptr) return;
  environment->all_ended();
  if (event.failure && !environment->initialised() && !environment->stopping()) return fail_start(event.id, *event.failure);
  const runtime::ProcessEnd end = describe(event, *environment);
  const bool idle = environment->initialised() && !environment->busy();
  if (environment->stopping() || idle) return process_ended(event.id, end);  // an idle one must not be chosen any more
  later(kLastWords, [this, id = event.id, end] { process_ended(id, end); });
}

void LocalBackend::Impl::process_ended(EnvironmentId id, const runtime::ProcessEnd& end) {
  Environment* environment = find(id);
  if (environment == nullptr) return;
  if (!environment->initialised() && !environment->stopping()) {
    report_init_failure(id, environment->conclude_init(&end));
    return gone(id, {});
  }
  gone(id, environment->conclude(end));
}

void LocalBackend::Impl::gone(EnvironmentId id, std::vector<EndedRun> ended) {
  const auto it = environments.find(id);
  if (it == environments.end()) return;
  const std::unique_ptr<Environment> environment = std::move(it->second);
  environments.erase(it);
  revoke(*environment);
  dispatcher.on_gone(id, std::move(ended), now());
  rearm();
  something_ended.set();
}

void LocalBackend::Impl::handle(sandbox::ArchiveUnpacked event) {
  const auto it = unpacking.find(event.request);
  if (it == unpacking.end()) return;
  const std::shared_ptr<Unpacking> request = std::move(it->second);
  unpacking.erase(it);
  if (event.bytes.ok()) {
    if (unpacked_sizes.size() >= kSizesMost) unpacked_sizes.clear();
    unpacked_sizes[request->code_id] = *event.bytes;
  }
  request->size.set_value(std::move(event.bytes));
}

void LocalBackend::Impl::unpack(const std::shared_ptr<Unpacking>& request, base::UniqueFd archive) {
  const std::string& code_id = request->code_id;
  const auto known = unpacked_sizes.find(code_id);
  if (known != unpacked_sizes.end() && ::access((options.code_directory + "/" + code_id).c_str(), F_OK) == 0)
    return request->size.set_value(known->second);
  const std::uint64_t number = next_request++;
  if (const auto asked = ports.launcher.unpack(number, std::move(archive), code_id, {}); !asked.ok())
    return request->size.set_value(asked.error());
  unpacking[number] = request;
}

void LocalBackend::Impl::launcher_lost(const Error& error) {
  lost = true;
  base::log_error("the launcher has ended and every environment with it; restart the server", {{"what", error.message()}});
  for (auto& [number, request] : unpacking) request->size.set_value(error);
  unpacking.clear();
  stems.close();
  prepared.clear();
  const Error told(ErrorCode::kUnavailable, "The environment was lost with the launcher; the server must be restarted.",
                   "ServiceException");
  departing.clear();
  std::vector<EnvironmentId> all;
  for (const auto& [id, environment] : environments) all.push_back(id);
  for (const EnvironmentId id : all) {
    Environment* environment = find(id);
    if (environment == nullptr) continue;
    environment->all_ended();
    InitFailure failure;
    failure.platform_fault = true;
    failure.error = told;
    if (!environment->initialised() && !environment->stopping()) report_init_failure(id, std::move(failure));
    Outcome outcome;
    outcome.kind = engine::OutcomeKind::kRefused;
    outcome.error = told;
    gone(id, environment->all_get(outcome));
  }
  if (ports.on_launcher_lost) ports.on_launcher_lost(error);
}

// ---- the public face

LocalBackend::LocalBackend(net::EventLoop& loop, LocalBackendOptions options, LocalBackendPorts ports)
    : impl_(std::make_unique<Impl>(loop, std::move(options), std::move(ports))) {}

LocalBackend::~LocalBackend() {
  impl_->alive.reset();
  impl_->timer.cancel();
  if (impl_->launcher_events.is_open()) (void)impl_->launcher_events.release();  // the launcher owns it
  const Error ended(ErrorCode::kUnavailable, "The server is shutting down.", "ServiceException");
  for (auto& [number, request] : impl_->unpacking) request->size.set_value(ended);
  for (auto& [id, environment] : impl_->environments) impl_->ports.launcher.kill(id);
  for (auto& [id, environment] : impl_->departing) impl_->ports.launcher.kill(id);
}

void LocalBackend::start() {
  error_code error;
  impl_->launcher_events.assign(impl_->ports.launcher.fd(), error);
  if (error) return impl_->launcher_lost(Error(ErrorCode::kUnavailable, "cannot watch the launcher's socket: " + error.message()));
  impl_->watch_launcher();
}

void LocalBackend::invoke(engine::InvocationPtr invocation) {
  impl_->dispatcher.invoke(std::move(invocation), impl_->now());
  impl_->rearm();
}

Result<std::uint64_t> LocalBackend::prepare_code(const std::string& code_id, base::UniqueFd archive) {
  return begin_preparing_code(code_id, std::move(archive))();
}

std::function<Result<std::uint64_t>()> LocalBackend::begin_preparing_code(const std::string& code_id, base::UniqueFd archive) {
  auto request = std::make_shared<Impl::Unpacking>();
  request->code_id = code_id;
  auto done = std::make_shared<std::future<Result<std::uint64_t>>>(request->size.get_future());
  auto shared = std::make_shared<base::UniqueFd>(std::move(archive));
  impl_->loop.post([this, request, shared, token = std::weak_ptr<bool>(impl_->alive)] {
    if (token.expired()) return request->size.set_value(Error(ErrorCode::kUnavailable, "The server is shutting down.", "ServiceException"));
    impl_->unpack(request, std::move(*shared));
  });
  return [this, done]() -> Result<std::uint64_t> {
    MAYFLY_ASSERT(!impl_->loop.in_loop(), "waiting for code to be prepared blocks, and the loop would wait for itself");
    if (done->wait_for(std::chrono::minutes(5)) == std::future_status::ready) return done->get();
    return Error(ErrorCode::kDeadlineExceeded, "The package was not unpacked within 5 minutes; the machine may be overloaded. Try again.",
                 "ServiceException");
  };
}

void LocalBackend::remove_code(const std::string& code_id) {
  impl_->loop.post([this, code_id, token = std::weak_ptr<bool>(impl_->alive)] {
    if (token.expired()) return;
    impl_->unpacked_sizes.erase(code_id);
    impl_->ports.launcher.remove_code(code_id);
  });
}

std::set<std::string> LocalBackend::code_in_use() {
  auto used = std::make_shared<std::set<std::string>>();
  Impl* impl = impl_.get();
  (void)impl_->on_loop([impl, used] {
    const auto add = [&](const engine::FunctionVersion& version) {
      used->insert(version.config.code_id);
      for (const engine::LayerUse& layer : version.config.layers) used->insert(layer.code_id);
    };
    for (const auto& [id, environment] : impl->environments) add(environment->version());
    for (const auto& [id, environment] : impl->departing) add(environment->version());
    impl->dispatcher.each_version(add);
  });
  return *used;
}

void LocalBackend::apply_change(const std::string& function_name, const std::function<engine::RecordPtr(const std::string&)>& find) {
  Impl* impl = impl_.get();
  const bool done = impl_->on_loop([impl, function_name, find] {
    const engine::RecordPtr record = find(function_name);
    const auto is_current = [&record](const engine::FunctionVersion& version) {
      const engine::VersionPtr now = record == nullptr ? nullptr : record->find(version.version);
      return now != nullptr && now->generation == version.generation;
    };
    impl->dispatcher.drop_outdated(function_name, is_current, impl->now());
    const auto reserved = record == nullptr ? std::nullopt : record->settings->reserved_concurrency;
    impl->dispatcher.set_reserved_concurrency(function_name, reserved, impl->now());
    impl->set_provisioned(function_name, record.get());
    impl->rearm();
  });
  if (!done) {
    base::log_error("the event loop does not answer; environments of an old version may serve, and old limits hold, a little longer",
                    {{"function", function_name}});
  }
}

engine::ProvisionedStatus LocalBackend::provisioned_status(const std::string& function_name, const std::string& version) {
  auto status = std::make_shared<engine::ProvisionedStatus>();
  Impl* impl = impl_.get();
  const bool done =
      impl_->on_loop([impl, status, function_name, version] { *status = impl->dispatcher.provisioned_status(function_name, version); });
  return done ? *status : engine::ProvisionedStatus{};
}

Result<void> LocalBackend::try_init(const engine::VersionPtr& version, Duration patience,
                                    const std::function<engine::RecordPtr(const std::string&)>& find) {
  constexpr Duration kLookAgain = std::chrono::milliseconds(5);
  const std::string& name = version->function_name;
  const base::Deadline deadline = impl_->now() + patience;
  engine::ProvisionedStatus status;
  while (status.allocated == 0 && status.failed_reason.empty() && impl_->now() < deadline) {
    Impl* impl = impl_.get();
    auto seen = std::make_shared<engine::ProvisionedStatus>();
    (void)impl_->on_loop([impl, seen, version] {
      *seen = impl->dispatcher.provisioned_status(version->function_name, version->version);
      if (seen->requested > 0) return;  // also: ordered by us, or taken back by a change of the function meanwhile
      impl->provisioned[version->function_name][version->version] = version;
      impl->dispatcher.set_provisioned_concurrency(version, 1, impl->now());
      impl->rearm();
    });
    status = *seen;
    if (status.allocated == 0) std::this_thread::sleep_for(kLookAgain);
  }
  apply_change(name, find);
  if (status.allocated > 0) return {};
  if (!status.failed_reason.empty()) return Error(ErrorCode::kFunctionFailed, status.failed_reason);
  return Error(ErrorCode::kDeadlineExceeded,
               "no environment of it was ready within " + std::to_string(base::to_ms(patience) / 1000.0) + " s");
}

engine::Dispatcher::Counts LocalBackend::counts() const { return impl_->dispatcher.counts(); }
std::uint32_t LocalBackend::concurrency_of(const std::string& function_name) const {
  return impl_->dispatcher.concurrency_of(function_name);
}

net::Awaitable<bool> LocalBackend::drain(base::Deadline deadline) {
  Impl& impl = *impl_;
  impl.draining = true;
  impl.dispatcher.drain(impl.now());
  impl.stems.close();
  impl.rearm();
  const auto finished = [&impl] { return impl.dispatcher.quiet() && impl.departing.empty(); };
  while (!finished() && impl.now() < deadline) {
    impl.something_ended.reset();
    if (finished()) break;
    (void)co_await impl.something_ended.wait(deadline);
  }
  const bool whole = finished();
  for (const auto& [id, environment] : impl.environments) impl.ports.launcher.kill(id);
  for (const auto& [id, environment] : impl.departing) impl.ports.launcher.kill(id);
  const base::Deadline last = impl.now() + kKillGrace;
  while (!finished() && impl.now() < last) {
    impl.something_ended.reset();
    (void)co_await impl.something_ended.wait(last);
  }
  // What is left was killed because nobody needs it: clearing it away is the launcher's, and nothing more is to be heard of it.
  std::vector<EnvironmentId> left;
  for (const auto& [id, environment] : impl.environments) left.push_back(id);
  for (const EnvironmentId id : left) impl.gone(id, {});
  co_return whole;
}

sandbox::ExpectedSandbox usual_sandbox(const std::string& root_id) {
  const engine::FunctionConfig defaults;
  return {.root_id = root_id,
          .network = sandbox::Network::kOutside,
          .tmp_bytes = std::uint64_t{defaults.ephemeral_mb} << 20U,
          .connectors = kOwnConnectors};
}

}  // namespace mayfly::backend
