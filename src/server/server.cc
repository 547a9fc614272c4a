#include "server/server.h"

#include <signal.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <atomic>
#include <boost/asio/signal_set.hpp>
#include <boost/json.hpp>
#include <filesystem>
#include <iostream>
#include <set>

#include "access/access.h"
#include "api/api.h"
#include "backend/local.h"
#include "backend/local/dns_forwarder.h"
#include "base/descriptor_limit.h"
#include "base/embedded.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory_return.h"
#include "engine/registry.h"
#include "events/event_source_mappings.h"
#include "gateway/gateway.h"
#include "observe/log_store.h"
#include "observe/metrics.h"
#include "runtime/catalogue.h"
#include "runtime/environment.h"
#include "sandbox/launcher.h"
#include "server/bytecode.h"
#include "server/config.h"
#include "server/data_directory.h"
#include "services/buckets.h"
#include "services/roles.h"
#include "store/blobs.h"
#include "store/catalogue.h"
#include "store/log_segments.h"
#include "store/objects.h"

extern char** environ;

namespace mayfly::server {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;

// What needs privilege or a single thread, done first and in this order: sockets, data directory, interpreters, launcher.
struct Foundations {
  ServerIdentity identity;
  base::UniqueFd api_socket, gateway_socket;
  DataDirectory data;
  runtime::RuntimeCatalogue runtimes;
  std::unique_ptr<sandbox::Launcher> launcher;
};

// Two servers on one host must not give out the same addresses: each takes one of the 256 parts of the shared address space
// (RFC 6598) that its instance names.
std::string own_network(const std::string& instance) {
  const unsigned long part = std::stoul(instance, nullptr, 16) % 256;
  return "100." + std::to_string(64 + part / 4) + "." + std::to_string(part % 4 * 64) + ".0/18";
}

Result<Foundations> lay_foundations(const Config& config) {
  MAYFLY_ASSIGN(const ServerIdentity identity, server_identity(config.user));
  MAYFLY_ASSIGN(DataDirectory data, DataDirectory::open(config.data, identity));
  MAYFLY_ASSIGN(base::UniqueFd api_socket, net::listen_tcp(config.api).with_context("setting api"));
  MAYFLY_ASSIGN(base::UniqueFd gateway_socket, net::listen_tcp(config.gateway).with_context("setting gateway"));
  for (const std::string& resolver : config.resolvers)
    MAYFLY_TRY(backend::parse_resolver(resolver).and_then([](auto&&) { return Result<void>(); }).with_context("setting resolvers"));
  runtime::CatalogueOptions options;
  options.interpreters = config.runtimes;
  options.search_paths = config.runtime_paths;
  options.stand_in = config.stand_in == "nearest";
  MAYFLY_ASSIGN(runtime::RuntimeCatalogue runtimes, runtime::RuntimeCatalogue::detect(options));

  sandbox::LauncherConfig launcher_config;
  launcher_config.instance = data.instance();
  launcher_config.code_directory = data.code();
  launcher_config.scratch_directory = data.scratch();
  launcher_config.bootstrap_directory = data.runtimes();
  launcher_config.zygote_files = embedded::runtimes();
  for (runtime::ForkableRuntime& each : runtime::forkable_runtimes(runtimes)) {
    launcher_config.zygote_programs.push_back(
        {.root_id = std::move(each.root_id), .arguments = std::move(each.arguments), .environment = std::move(each.variables)});
  }
  for (const runtime::RootPlan& root : runtimes.roots())
    launcher_config.roots.push_back({.id = root.id, .directory = "/", .extra_binds = root.extra_binds});
  // Limits that count per uid are the host's: two servers take different uids.
  launcher_config.uid_base += static_cast<std::uint32_t>(std::stoul(data.instance(), nullptr, 16) % 1024) * launcher_config.uid_count;
  launcher_config.server_uid = identity.uid;
  launcher_config.server_gid = identity.gid;
  launcher_config.network_cidr = config.network_cidr.empty() ? own_network(data.instance()) : config.network_cidr;
  launcher_config.network_deny = config.network_deny;
  launcher_config.cpu_quota = config.cpu_quota;
  launcher_config.expected = {backend::usual_sandbox(launcher_config.roots.front().id)};
  MAYFLY_ASSIGN(std::unique_ptr<sandbox::Launcher> launcher, sandbox::Launcher::fork_off(launcher_config));

  base::raise_descriptor_limit();  // while it may: each environment takes some twenty, each connection one
  MAYFLY_ASSIGN(std::string reachable, sandbox::drop_privileges(identity.uid, identity.gid, data.path()));
  data.moved_to(std::move(reachable));
  data.remove_server_json();  // of a server that was killed
  MAYFLY_TRY(data.write_runtimes());
  return Foundations{identity, std::move(api_socket), std::move(gateway_socket), std::move(data), std::move(runtimes), std::move(launcher)};
}

std::string url_of(const std::string& address, std::uint16_t port) {
  return "http://" + address.substr(0, address.rfind(':')) + ":" + std::to_string(port);
}

std::string runtimes_page(const runtime::RuntimeCatalogue& runtimes) {
  json::array rows;
  for (const runtime::RuntimeRow& row : runtimes.rows()) {
    rows.push_back(json::object{{"name", row.name}, {"status", runtime::runtime_status_name(row.status)}, {"detail", row.detail}});
  }
  return json::serialize(json::object{{"runtimes", rows}});
}

// Everything that runs. Members stand in order of dependence: the last made is the first to go.
class Platform {
 public:
  Platform(const Config& config, Foundations& foundations, base::TimePoint started)
      : config_(config), foundations_(foundations), started_(started) {}

  Result<void> assemble();
  // Serves until SIGTERM or SIGINT, then finishes what runs. The exit code.
  int run();

 private:
  Result<void> open_stores();
  void make_backend();
  Result<void> open_registry();
  void apply_change(const std::string& name);
  void apply_all_limits();
  void open_doors();
  void add_gauges();
  Result<void> announce();
  Result<runtime::TemporaryCredentials> issue_credentials(const backend::EnvironmentIdentity& identity);
  [[nodiscard]] Result<void> ready() const;
  // The code that a request names in S3, or the error it is answered with.
  [[nodiscard]] Result<std::string> code_object(const std::string& bucket, const std::string& key, const std::string& version);
  void compare_unpacked_code();
  void want_end();
  void restore_missing_code();
  net::Awaitable<void> restore_code();
  net::Awaitable<void> housekeeping();
  net::Awaitable<void> serve_until_told();
  net::Awaitable<void> finish();

  const Config& config_;
  Foundations& foundations_;
  const base::TimePoint started_;
  const base::Clock& clock_ = base::system_clock();

  net::EventLoop loop_{"mayfly-loop"};
  std::unique_ptr<store::Catalogue> catalogue_;
  std::unique_ptr<store::Blobs> blobs_;
  std::unique_ptr<store::LogSegments> segments_;
  std::unique_ptr<store::Objects> objects_;
  std::unique_ptr<services::Buckets> buckets_;
  std::unique_ptr<access::CredentialStore> credentials_;
  std::unique_ptr<services::Roles> roles_;
  std::unique_ptr<observe::LogStore> logs_;
  observe::Metrics metrics_;
  std::unique_ptr<backend::LocalBackend> backend_;
  std::unique_ptr<engine::CodeStore> code_;
  std::unique_ptr<engine::LayerRegistry> layers_;
  std::unique_ptr<engine::FunctionRegistry> registry_;
  std::unique_ptr<events::EventSourceMappings> event_source_mappings_;
  std::unique_ptr<api::ApiContext> context_;  // outlives the pool, whose jobs use it
  std::unique_ptr<gateway::GatewayContext> public_context_;
  base::WorkerPool pool_{"mayfly-control", 4};
  base::WorkerPool object_pool_{"mayfly-objects", 4};  // so that large objects do not hold up the control plane
  std::unique_ptr<net::HttpServer> api_, gateway_;
  std::atomic<bool> launcher_lost_ = false;
  bool housekeeping_busy_ = false, restoring_ = false;
  std::vector<std::string> missing_code_;  // at the start
  std::atomic<bool> ending_ = false;
  int exit_code_ = 0;
  std::unique_ptr<net::Event> end_wanted_;
  std::unique_ptr<net::Event> doors_wait_no_longer_;  // code is restored, or the end is wanted
  std::unique_ptr<net::TaskScope> tasks_;
};

Result<void> Platform::open_stores() {
  const DataDirectory& data = foundations_.data;
  MAYFLY_ASSIGN(catalogue_, store::open_catalogue(data.path() + "/catalogue.db"));
  MAYFLY_ASSIGN(blobs_, store::open_directory_blobs(data.blobs()));
  store::LogLimits limits;
  limits.group_bytes_max = config_.log_group_bytes;
  limits.total_bytes_max = config_.log_total_bytes;
  limits.age_max = std::chrono::hours(24 * config_.log_days);
  MAYFLY_ASSIGN(objects_, store::open_objects(data.path() + "/objects.db", data.objects()));
  buckets_ = std::make_unique<services::Buckets>(*objects_, engine::Account{config_.account, config_.region}, clock_);
  MAYFLY_ASSIGN(segments_, store::open_log_segments(data.logs(), limits, clock_));
  logs_ = std::make_unique<observe::LogStore>(*segments_);
  MAYFLY_ASSIGN(credentials_, access::CredentialStore::open(data.path() + "/credentials.json", config_.account,
                                                            {config_.access_key, config_.secret_key}));
  MAYFLY_ASSIGN(roles_, services::Roles::open(*catalogue_, config_.account, clock_));
  return {};
}

Result<runtime::TemporaryCredentials> Platform::issue_credentials(const backend::EnvironmentIdentity& identity) {
  const engine::FunctionVersion& version = *identity.version;
  const services::RolePtr role = roles_->find_role_by_arn(version.config.role);
  MAYFLY_ASSIGN(const access::CredentialPointer issued, credentials_->issue({.function_arn = version.qualified_arn(),
                                                                             .role_arn = version.config.role,
                                                                             .session = version.function_name,
                                                                             .log_group = version.config.log_group,
                                                                             .role_id = role == nullptr ? "" : role->id}));
  return runtime::TemporaryCredentials{issued->principal.access_key, issued->secret_key, issued->session_token};
}

// Bytes.
static std::uint64_t quarter_of_memory() {
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page) / 4 : UINT64_MAX;
}

void Platform::make_backend() {
  backend::LocalBackendOptions options;
  options.dispatcher.concurrency_max = config_.concurrency;
  options.dispatcher.environments_max = std::max(config_.environments, config_.concurrency);
  options.dispatcher.queue_max_per_function = config_.queue_per_function;
  options.dispatcher.burst_starts = config_.burst_starts;
  options.dispatcher.idle_timeout = config_.idle_timeout;
  if (config_.keep_alive == "learned") {
    options.dispatcher.keep_alive =
        std::make_shared<engine::LearnedKeepAlive>(engine::LearnedKeepAlive::Options{.fallback = config_.idle_timeout});
  }
  options.dispatcher.idle_memory_max = config_.idle_memory_max != 0 ? config_.idle_memory_max : quarter_of_memory();
  options.dispatcher.freeze_after = config_.freeze_after;
  options.code_directory = foundations_.data.code();
  options.region = config_.region;
  options.network = config_.network;
  options.resolvers = config_.resolvers;
  backend_ = std::make_unique<backend::LocalBackend>(
      loop_, options,
      backend::LocalBackendPorts{
          .launcher = *foundations_.launcher,
          .catalogue = foundations_.runtimes,
          .logs = *logs_,
          .observer = metrics_,
          .clock = clock_,
          .issue_credentials = [this](const backend::EnvironmentIdentity& identity) { return issue_credentials(identity); },
          .revoke_credentials = [this](const std::string& access_key) { credentials_->revoke(access_key); },
          .data_handler =
              [this](const backend::EnvironmentIdentity& identity) { return api::data_handler(*context_, identity.access_key); },
          .on_launcher_lost =
              [this](const Error& error) {
                base::log_error("the launcher is gone, and every environment with it; the server ends", {{"cause", error.message()}});
                launcher_lost_ = true;
                exit_code_ = 1;
                want_end();
              },
      });
}

Result<void> Platform::open_registry() {
  const auto prepare = [this](const std::string& code_id, base::UniqueFd archive) {
    return backend_->begin_preparing_code(code_id, std::move(archive));
  };
  const auto discard = [this](const std::string& code_id) { backend_->remove_code(code_id); };
  code_ = std::make_unique<engine::CodeStore>(*blobs_, prepare, discard);
  const engine::Account account{config_.account, config_.region};
  MAYFLY_ASSIGN(layers_, engine::LayerRegistry::open(*catalogue_, *code_, account, clock_));
  MAYFLY_ASSIGN(registry_, engine::FunctionRegistry::open(*catalogue_, *code_, account, clock_));
  if (const auto swept = code_->sweep({}); !swept.ok())
    base::log_warning("unused code could not be looked for", {{"cause", swept.error().message()}});
  compare_unpacked_code();
  MAYFLY_ASSIGN(event_source_mappings_,
                events::EventSourceMappings::open({.catalogue = *catalogue_, .registry = *registry_, .clock = clock_}));
  registry_->on_change([this](const std::string& name) { apply_change(name); });
  return {};
}

void Platform::apply_change(const std::string& name) {
  backend_->apply_change(name, [this](const std::string& function_name) { return registry_->find(function_name); });
}

// Before the first call: reservations hold, provisioned environments are on their way.
void Platform::apply_all_limits() {
  registry_->each([this](const engine::RecordPtr& record) {
    const engine::FunctionSettings& settings = *record->settings;
    if (settings.reserved_concurrency || !settings.provisioned.empty()) apply_change(record->latest->function_name);
  });
}

// Unpacked code is a cache of the blobs: what nobody names goes (a crash can leave it without its blob), and what is missing (deleted by
// hand, restored from a backup, not on the disk when the machine went down) is noted, to be made again.
void Platform::compare_unpacked_code() {
  std::set<std::string> missing = code_->named();
  std::error_code failed;
  for (std::filesystem::directory_iterator it(foundations_.data.code(), failed); !failed && it != std::filesystem::directory_iterator();
       it.increment(failed)) {
    const std::string name = it->path().filename().string();
    if (name.find('.') != std::string::npos) continue;  // half made, or notes; the launcher's affair
    if (missing.erase(name) == 0) backend_->remove_code(name);
  }
  if (failed) base::log_warning("the directory of unpacked code cannot be read", {{"cause", failed.message()}});
  missing_code_.assign(missing.begin(), missing.end());
}

Result<std::string> Platform::code_object(const std::string& bucket, const std::string& key, const std::string& version) {
  auto code = buckets_->read_object({.bucket = bucket, .key = key, .version = version}, engine::Limits::kZipBytesMax);
  if (code.ok()) return code;
  const Error& error = code.error();
  if (error.code() == ErrorCode::kTooLarge) {
    return Error(ErrorCode::kInvalidArgument, "Zipped size must be smaller than " + std::to_string(engine::Limits::kZipBytesMax) + " bytes",
                 "InvalidParameterValueException");
  }
  return Error(ErrorCode::kInvalidArgument,
               "Error occurred while GetObject. S3 Error Code: " + error.id() + ". S3 Error Message: " + error.message(),
               "InvalidParameterValueException");
}

Result<void> Platform::ready() const {
  if (launcher_lost_) return Error(ErrorCode::kUnavailable, "the launcher has ended");
  MAYFLY_TRY(objects_->check());
  return catalogue_->check();
}

void Platform::open_doors() {
  context_ = std::make_unique<api::ApiContext>(api::ApiContext{.registry = *registry_,
                                                               .code = *code_,
                                                               .layers = *layers_,
                                                               .invoker = *backend_,
                                                               .credentials = *credentials_,
                                                               .roles = *roles_,
                                                               .logs = *logs_,
                                                               .metrics = metrics_,
                                                               .pool = pool_,
                                                               .clock = clock_});
  context_->event_source_mappings = event_source_mappings_.get();
  context_->buckets = buckets_.get();
  context_->read_object = [this](const std::string& bucket, const std::string& key, const std::string& version) {
    return code_object(bucket, key, version);
  };
  context_->object_pool = &object_pool_;
  context_->concurrency_max = config_.concurrency;
  context_->check_runtime = [this](const std::string& name) { return foundations_.runtimes.check(name); };
  context_->ready = [this] { return ready(); };
  context_->provisioned_status = [this](const std::string& name, const std::string& version) {
    return backend_->provisioned_status(name, version);
  };
  context_->try_init = [this](const engine::VersionPtr& version) {
    constexpr base::Duration kPatience = std::chrono::seconds(60);
    return backend_->try_init(version, kPatience, [this](const std::string& name) { return registry_->find(name); });
  };
  context_->page = [this](std::string_view path) -> std::optional<std::string> {
    if (path != "/mayfly/v1/runtimes") return std::nullopt;
    return runtimes_page(foundations_.runtimes);
  };
  public_context_ = std::make_unique<gateway::GatewayContext>(gateway::GatewayContext{
      .registry = *registry_, .invoker = *backend_, .credentials = *credentials_, .metrics = metrics_, .clock = clock_});
  public_context_->domain = config_.domain;
  context_->function_url = [this](const std::string& id) {
    return "http://" + id + ".lambda-url." + config_.region + "." + config_.domain + ":" + std::to_string(gateway_->port()) + "/";
  };
  public_context_->port = [this] { return gateway_->port(); };
  api_ = std::make_unique<net::HttpServer>(loop_.executor(), std::move(foundations_.api_socket), net::ServerLimits{},
                                           api::management_handler(*context_));
  gateway_ = std::make_unique<net::HttpServer>(loop_.executor(), std::move(foundations_.gateway_socket), net::ServerLimits{},
                                               gateway::public_handler(*public_context_));
}

void Platform::add_gauges() {
  using Counts = engine::Dispatcher::Counts;
  const std::vector<std::pair<const char*, std::uint32_t Counts::*>> states = {
      {"starting", &Counts::starting}, {"idle", &Counts::idle}, {"busy", &Counts::busy}};
  for (const auto& [state, member] : states) {
    metrics_.add_gauge("environments", "Execution environments by state.", "state=\"" + std::string(state) + "\"",
                       [this, count = member] { return static_cast<double>(backend_->counts().*count); });
  }
  metrics_.add_gauge("invocations_queued", "Invocations that wait for an environment.", "",
                     [this] { return static_cast<double>(backend_->counts().queued); });
  metrics_.add_gauge("provisioned_environments", "Execution environments kept ready as provisioned concurrency.", "",
                     [this] { return static_cast<double>(backend_->counts().provisioned); });
  metrics_.add_counter("reserved_throttles", "Invocations refused because of their function's own reserved concurrency.", "",
                       [this] { return static_cast<double>(backend_->counts().reserved_throttles); });
  metrics_.add_gauge("functions", "Functions deployed.", "", [this] { return static_cast<double>(registry_->function_count()); });
  metrics_.add_gauge("http_connections", "Open connections of the API port.", "",
                     [this] { return static_cast<double>(api_->connections()); });
  metrics_.add_counter("log_events_dropped", "Log events dropped because the writer was behind.", "",
                       [this] { return static_cast<double>(segments_->dropped()); });
}

Result<void> Platform::announce() {
  const std::string api = url_of(config_.api, api_->port());
  const std::string gateway = url_of(config_.gateway, gateway_->port());
  const double ready_ms = base::to_ms(clock_.now() - started_);
  const json::object document{{"pid", getpid()},           {"api", api},
                              {"gateway", gateway},        {"account", config_.account},
                              {"region", config_.region},  {"instance", foundations_.data.instance()},
                              {"version", MAYFLY_VERSION}, {"ready_ms", ready_ms}};
  MAYFLY_TRY(foundations_.data.write_server_json(base::pretty_json(document)));
  base::log_info("ready", {{"api", api}, {"gateway", gateway}, {"data", config_.data}, {"ms", std::to_string(static_cast<int>(ready_ms))}});
  return {};
}

Result<void> Platform::assemble() {
  end_wanted_ = std::make_unique<net::Event>(loop_.executor());
  doors_wait_no_longer_ = std::make_unique<net::Event>(loop_.executor());
  tasks_ = std::make_unique<net::TaskScope>(loop_.executor());
  MAYFLY_TRY(open_stores());
  make_backend();
  MAYFLY_TRY(open_registry());
  open_doors();
  add_gauges();
  backend_->start();
  return {};
}

void Platform::want_end() {
  ending_ = true;
  end_wanted_->set();
  doors_wait_no_longer_->set();
}

void Platform::restore_missing_code() {
  for (const std::string& code_id : missing_code_) {
    if (ending_) return;
    auto blob = blobs_->open(code_id, true);
    const auto made = blob.ok() ? backend_->prepare_code(code_id, std::move(*blob)) : Result<std::uint64_t>(blob.error());
    if (!made.ok())
      base::log_error("the code of a function or layer cannot be restored", {{"code", code_id}, {"cause", made.error().message()}});
  }
  missing_code_.clear();
}

net::Awaitable<void> Platform::restore_code() {
  const std::function<void()> job = [this] { restore_missing_code(); };
  restoring_ = true;
  (void)co_await net::run_on(pool_, job);
  restoring_ = false;
  doors_wait_no_longer_->set();
}

net::Awaitable<void> Platform::housekeeping() {
  constexpr base::Duration kSweepInterval = std::chrono::minutes(5);
  std::function<void()> job = [this] {
    if (const auto swept = objects_->sweep(); !swept.ok())
      base::log_warning("unused bytes of objects could not be looked for", {{"cause", swept.error().message()}});
    base::return_memory_of_start();
  };
  while (!ending_) {
    housekeeping_busy_ = true;
    (void)co_await net::run_on(pool_, job);  // a full pool: next time
    housekeeping_busy_ = false;
    co_await net::sleep_until(clock_.now() + kSweepInterval);
    job = [this] {
      const auto swept = code_->sweep(backend_->code_in_use());
      if (!swept.ok()) base::log_warning("unused code cannot be removed", {{"cause", swept.error().message()}});
    };
  }
}

net::Awaitable<void> Platform::finish() {
  const base::Deadline deadline = clock_.now() + config_.shutdown_timeout;
  foundations_.data.remove_server_json();
  const bool doors_done = co_await api_->drain(deadline);
  const bool gateway_done = co_await gateway_->drain(deadline);
  const bool environments_done = co_await backend_->drain(deadline);
  // A job of the pool may be waiting for this loop.
  while (housekeeping_busy_ || restoring_) co_await net::sleep_until(clock_.now() + std::chrono::milliseconds(5));
  if (!doors_done || !gateway_done || !environments_done) base::log_warning("ended what did not finish in time");
  base::log_info("stopped");
  loop_.stop();
}

// Code of the last deploys before a crash is made again before anybody can call it; where that takes long, doors do not wait for it.
net::Awaitable<void> Platform::serve_until_told() {
  constexpr base::Duration kPatience = std::chrono::seconds(2);
  if (!missing_code_.empty()) {
    tasks_->spawn(restore_code());
    (void)co_await doors_wait_no_longer_->wait(clock_.now() + kPatience);
  }
  if (!ending_) {
    apply_all_limits();
    api_->start();
    gateway_->start();
    if (const Result<void> announced = announce(); !announced.ok()) {
      base::log_error("cannot announce the server", {{"cause", announced.error().message()}});
      exit_code_ = 1;
      want_end();
    }
    tasks_->spawn(housekeeping());
  }
  co_await end_wanted_->wait();
  co_await finish();
}

int Platform::run() {
  (void)pool_.submit([directory = foundations_.data.runtimes() + "/python", pythons = foundations_.runtimes.pythons()] {
    compile_python_bootstraps(directory, pythons);
  });
  boost::asio::signal_set signals(loop_.executor(), SIGTERM, SIGINT);
  signals.async_wait([this](const boost::system::error_code& failed, int number) {
    if (failed) return;
    base::log_info("stopping: no new calls are taken, running ones finish", {{"signal", number == SIGTERM ? "SIGTERM" : "SIGINT"}});
    want_end();
  });
  loop_.post([this] { tasks_->spawn(serve_until_told()); });
  loop_.run();
  return exit_code_;
}

int fail(const Error& error) {
  std::cerr << "mayfly: " << error.message() << '\n';
  return base::exit_status(error.code());
}

std::vector<std::string> process_environment() {
  std::vector<std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) all.emplace_back(*entry);
  return all;
}

}  // namespace

int run_server(const std::vector<std::string>& words) {
  const base::TimePoint started = base::system_clock().now();
  CLI::App app("Run the platform. Every setting is also a variable MAYFLY_... and a line of --config FILE", "mayfly server");
  std::string config_file;
  app.add_option("--config", config_file, "file of \"name = value\" lines");
  std::vector<std::pair<std::string, std::string>> values;
  for (const Setting& setting : settings()) {
    app.add_option_function<std::string>(
           "--" + std::string(setting.name),
           [&values, name = std::string(setting.name)](const std::string& value) { values.emplace_back(name, value); },
           std::string(setting.help))
        ->type_name(std::string(setting.value));
  }
  try {  // CLI11 reports through exceptions
    std::vector<std::string> reversed(words.rbegin(), words.rend());
    app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    std::cout << app.help();
    return 0;
  } catch (const CLI::ParseError& error) {
    std::cerr << "mayfly: " << error.what() << "\nTry: mayfly server --help\n";
    return 2;
  }
  const auto config = load_config(config_file, process_environment(), values);
  if (!config.ok()) return fail(config.error());
  base::configure_log(config->log_level, config->log_format);
  signal(SIGPIPE, SIG_IGN);

  auto foundations = lay_foundations(*config);
  if (!foundations.ok()) return fail(foundations.error());
  for (const std::string& note : foundations->launcher->capabilities().notes)
    base::log_warning("this host lacks something", {{"note", note}});
  int exit_code = 0;
  {
    Platform platform(*config, *foundations, started);
    if (const Result<void> assembled = platform.assemble(); !assembled.ok()) return fail(assembled.error());
    exit_code = platform.run();
  }
  foundations->launcher.reset();  // waits until everything it made is gone
  return exit_code;
}

}  // namespace mayfly::server
