#include "observe/metrics.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "base/mutex.h"

namespace mayfly::observe {
namespace {

// Seconds. Warm calls take fractions of a millisecond, the longest run 900 s.
constexpr std::array<double, 16> kBounds = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 300};

std::string number(double value) {
  std::array<char, 32> digits{};
  const auto [end, ec] = std::to_chars(digits.data(), digits.data() + digits.size(), value);
  return ec == std::errc() ? std::string(digits.data(), end) : "0";
}

std::string quoted(const std::string& value) {
  std::string escaped = "\"";
  for (const char c : value) {
    if (c == '\\' || c == '"') escaped += '\\';
    escaped += c == '\n' ? ' ' : c;
  }
  return escaped + "\"";
}

double seconds(base::Duration duration) { return std::chrono::duration<double>(duration).count(); }

struct Histogram {
  std::array<std::uint64_t, kBounds.size()> below{};  // not cumulative
  std::uint64_t count = 0;
  double sum = 0;

  void add(double value) {
    const auto bound = std::lower_bound(kBounds.begin(), kBounds.end(), value);
    if (bound != kBounds.end()) ++below[static_cast<std::size_t>(bound - kBounds.begin())];
    ++count;
    sum += value;
  }
  void write(std::string& out, const std::string& name, const std::string& labels) const {
    const std::string comma = labels.empty() ? "" : labels + ",";
    std::uint64_t cumulative = 0;
    for (std::size_t i = 0; i < kBounds.size(); ++i) {
      cumulative += below[i];
      out += name + "_bucket{" + comma + "le=\"" + number(kBounds[i]) + "\"} " + std::to_string(cumulative) + "\n";
    }
    out += name + "_bucket{" + comma + "le=\"+Inf\"} " + std::to_string(count) + "\n";
    const std::string braces = labels.empty() ? "" : "{" + labels + "}";
    out += name + "_sum" + braces + " " + number(sum) + "\n" + name + "_count" + braces + " " + std::to_string(count) + "\n";
  }
};

struct FunctionNumbers {
  std::uint64_t succeeded = 0, failed = 0, refused = 0, throttled = 0, timed_out = 0, cold_starts = 0;
  double billed_seconds = 0;
  std::uint64_t memory_peak = 0;
  Histogram run, wait;
};

struct Reader {
  bool grows = false;
  std::string help, labels;
  std::function<double()> read;
};

void head(std::string& out, const std::string& name, const char* type, const std::string& help) {
  out += "# TYPE " + name + " " + type + "\n# HELP " + name + " " + help + "\n";
}

}  // namespace

struct Metrics::Impl {
  explicit Impl(Options an_options) : options(an_options) {}

  FunctionNumbers& of(std::string_view function) MAYFLY_REQUIRES(mutex) {
    const auto found = functions.find(function);
    if (found != functions.end()) return found->second;
    return functions[std::string(functions.size() < options.functions_max ? function : "other")];
  }
  void write_functions(std::string& out) const MAYFLY_REQUIRES(mutex);
  void write_counter(std::string& out, const char* name, const char* help, const std::function<double(const FunctionNumbers&)>& value) const
      MAYFLY_REQUIRES(mutex);
  void write_http(std::string& out) const MAYFLY_REQUIRES(mutex);

  using HttpKey = std::tuple<std::string, std::string, int>;
  using HttpKeyView = std::tuple<std::string_view, std::string_view, int>;
  const Options options;
  mutable base::Mutex mutex;
  std::map<std::string, FunctionNumbers, std::less<>> functions MAYFLY_GUARDED_BY(mutex);
  std::map<HttpKey, std::uint64_t, std::less<>> http MAYFLY_GUARDED_BY(mutex);
  std::map<std::string, Histogram> http_time MAYFLY_GUARDED_BY(mutex);
  std::map<std::string, std::vector<Reader>> readers MAYFLY_GUARDED_BY(mutex);
};

void Metrics::Impl::write_counter(std::string& out, const char* name, const char* help,
                                  const std::function<double(const FunctionNumbers&)>& value) const {
  head(out, name, "counter", help);
  for (const auto& [function, numbers] : functions)
    out += std::string(name) + "_total{function=" + quoted(function) + "} " + number(value(numbers)) + "\n";
}

void Metrics::Impl::write_functions(std::string& out) const {
  head(out, "mayfly_invocations", "counter", "Invocations by how they ended.");
  for (const auto& [function, numbers] : functions) {
    const std::string label = "mayfly_invocations_total{function=" + quoted(function) + ",outcome=\"";
    out += label + "success\"} " + std::to_string(numbers.succeeded) + "\n" + label + "error\"} " + std::to_string(numbers.failed) + "\n" +
           label + "refused\"} " + std::to_string(numbers.refused) + "\n";
  }
  write_counter(out, "mayfly_throttles", "Invocations refused because a limit was reached.",
                [](const FunctionNumbers& f) { return static_cast<double>(f.throttled); });
  write_counter(out, "mayfly_timeouts", "Invocations that ran longer than the function's Timeout.",
                [](const FunctionNumbers& f) { return static_cast<double>(f.timed_out); });
  write_counter(out, "mayfly_cold_starts", "Invocations that waited for a new environment.",
                [](const FunctionNumbers& f) { return static_cast<double>(f.cold_starts); });
  write_counter(out, "mayfly_billed_seconds", "Billed duration.", [](const FunctionNumbers& f) { return f.billed_seconds; });
  head(out, "mayfly_memory_peak_bytes", "gauge", "Most memory an invocation has used.");
  for (const auto& [function, numbers] : functions)
    out += "mayfly_memory_peak_bytes{function=" + quoted(function) + "} " + std::to_string(numbers.memory_peak) + "\n";
  head(out, "mayfly_run_seconds", "histogram", "Time from the hand-over to the runtime to the end of the answer.");
  for (const auto& [function, numbers] : functions) numbers.run.write(out, "mayfly_run_seconds", "function=" + quoted(function));
  head(out, "mayfly_wait_seconds", "histogram", "Time before the hand-over: queue, start and init.");
  for (const auto& [function, numbers] : functions) numbers.wait.write(out, "mayfly_wait_seconds", "function=" + quoted(function));
}

void Metrics::Impl::write_http(std::string& out) const {
  head(out, "mayfly_http_requests", "counter", "Requests of the management and data doors.");
  for (const auto& [key, count] : http) {
    const auto& [service, operation, status] = key;
    out += "mayfly_http_requests_total{service=" + quoted(service) + ",operation=" + quoted(operation) + ",status=\"" +
           std::to_string(status) + "\"} " + std::to_string(count) + "\n";
  }
  head(out, "mayfly_http_request_seconds", "histogram", "Time to answer a request.");
  for (const auto& [service, histogram] : http_time) histogram.write(out, "mayfly_http_request_seconds", "service=" + quoted(service));
}

Metrics::Metrics() : Metrics(Options()) {}
Metrics::Metrics(Options options) : impl_(std::make_unique<Impl>(options)) {}
Metrics::~Metrics() = default;

void Metrics::on_invocation(const engine::InvocationRecord& record) {
  const base::MutexLock lock(impl_->mutex);
  FunctionNumbers& numbers = impl_->of(record.function_name);
  numbers.wait.add(seconds(record.timings.queued + record.timings.start + record.timings.init));
  if (record.kind == engine::OutcomeKind::kRefused) {
    ++numbers.refused;
    if (record.error_type == "TooManyRequestsException") ++numbers.throttled;
    return;
  }
  ++(record.kind == engine::OutcomeKind::kSuccess ? numbers.succeeded : numbers.failed);
  if (record.error_type == "Sandbox.Timedout") ++numbers.timed_out;
  if (record.cold_start) ++numbers.cold_starts;
  numbers.billed_seconds += seconds(record.billed);
  numbers.memory_peak = std::max(numbers.memory_peak, record.memory_peak);
  numbers.run.add(seconds(record.timings.run));
}

void Metrics::on_http_request(const std::string& service, const std::string& operation, int status, base::Duration took) {
  const base::MutexLock lock(impl_->mutex);
  const auto found = impl_->http.find(Impl::HttpKeyView(service, operation, status));
  if (found != impl_->http.end()) {
    ++found->second;
  } else if (impl_->http.size() < impl_->options.operations_max) {
    impl_->http.emplace(Impl::HttpKey(service, operation, status), 1);
  } else {
    ++impl_->http[Impl::HttpKey("other", "other", status / 100 * 100)];
  }
  const bool known = impl_->http_time.contains(service) || impl_->http_time.size() < 16;
  impl_->http_time[known ? service : "other"].add(seconds(took));
}

void Metrics::add_gauge(std::string name, std::string help, std::string labels, std::function<double()> read) {
  const base::MutexLock lock(impl_->mutex);
  impl_->readers[std::move(name)].push_back(
      {.grows = false, .help = std::move(help), .labels = std::move(labels), .read = std::move(read)});
}
void Metrics::add_counter(std::string name, std::string help, std::string labels, std::function<double()> read) {
  const base::MutexLock lock(impl_->mutex);
  impl_->readers[std::move(name)].push_back({.grows = true, .help = std::move(help), .labels = std::move(labels), .read = std::move(read)});
}

std::string Metrics::open_metrics() const {
  std::string out;
  std::map<std::string, std::vector<Reader>> readers;
  {
    const base::MutexLock lock(impl_->mutex);
    readers = impl_->readers;
    impl_->write_functions(out);
    impl_->write_http(out);
  }
  for (const auto& [name, all] : readers) {
    head(out, "mayfly_" + name, all.front().grows ? "counter" : "gauge", all.front().help);
    for (const Reader& reader : all) {
      out += "mayfly_" + name + (reader.grows ? "_total" : "") + (reader.labels.empty() ? "" : "{" + reader.labels + "}") + " " +
             number(reader.read()) + "\n";
    }
  }
  head(out, "mayfly_build", "info", "The running program.");
  out += "mayfly_build_info{version=\"" MAYFLY_VERSION "\"} 1\n# EOF\n";
  return out;
}

}  // namespace mayfly::observe
