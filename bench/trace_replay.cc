// Which keep-alive policy does best: makes (or reads) a trace in the column format of the Azure Functions 2019 data set and plays it
// to the shipped dispatcher on a virtual clock, once for each policy. A policy with a parameter gets the value at which it holds as
// much idle memory (GiB-hours) as "fixed 10 minutes" does; then the cold starts are compared. Answers JSON.
// Usage: trace_replay [--functions N] [--seed N] [--write DIR | --read DIR]
// The generator's figures are those of Shahrad et al., "Serverless in the Wild" (2020): 45 % of functions are called at most once an
// hour and 81 % at most once a minute, 29 % are timers', run times are log-normal (mean -0.38, deviation 2.36, of seconds).
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "engine/dispatcher.h"

namespace {

using namespace mayfly;
using namespace std::chrono_literals;
using base::Duration;
using base::TimePoint;

constexpr std::size_t kMinutes = 1440;
constexpr double kCallsMax = 20'000;  // a day: what is called oftener is warm under every policy
constexpr Duration kInit = 200ms;

struct TracedFunction {
  std::string hash, trigger;
  std::array<std::uint32_t, kMinutes> calls{};
  double run_ms = 100;
  std::uint64_t memory_mb = 128;
};
using Trace = std::vector<TracedFunction>;

Trace make_trace(std::size_t functions, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::normal_distribution<double> normal(0, 1);
  Trace trace(functions);
  for (std::size_t i = 0; i < functions; ++i) {
    TracedFunction& function = trace[i];
    function.hash = "f" + std::to_string(i);
    const double per_day = std::clamp(std::exp(3.69 + 4.07 * normal(random)), 0.5, kCallsMax);
    function.run_ms = std::clamp(std::exp(-0.38 + 2.36 * normal(random)) * 1000, 1.0, 60'000.0);
    function.memory_mb = static_cast<std::uint64_t>(std::clamp(std::exp(4.9 + 0.7 * normal(random)), 20.0, 1500.0));
    if (uniform(random) < 0.29) {
      function.trigger = "timer";
      constexpr std::array<std::size_t, 9> kPeriods = {1, 5, 10, 15, 30, 60, 120, 240, 1440};
      const double wanted = kMinutes / per_day;
      const std::size_t period = *std::ranges::min_element(
          kPeriods, {}, [wanted](std::size_t each) { return std::abs(std::log(static_cast<double>(each) / wanted)); });
      for (std::size_t minute = random() % period; minute < kMinutes; minute += period) function.calls[minute] = 1;
      continue;
    }
    const bool bursty = uniform(random) < 0.3;
    function.trigger = bursty ? "queue" : "http";
    const double burst = bursty ? std::clamp(std::exp(1.5 * std::abs(normal(random))), 2.0, 40.0) : 1;
    const double phase = uniform(random) * 2 * M_PI;
    for (std::size_t minute = 0; minute < kMinutes; ++minute) {
      const double day = 1 + 0.6 * std::sin(phase + 2 * M_PI * static_cast<double>(minute) / kMinutes);
      std::poisson_distribution<std::uint32_t> arrivals(per_day / kMinutes * day / burst);
      function.calls[minute] = static_cast<std::uint32_t>(arrivals(random) * burst);
    }
  }
  return trace;
}

void write_trace(const Trace& trace, const std::string& directory) {
  std::ofstream calls(directory + "/invocations_per_function_md.anon.d01.csv"),
      runs(directory + "/function_durations_percentiles.anon.d01.csv"), memory(directory + "/app_memory_percentiles.anon.d01.csv");
  calls << "HashOwner,HashApp,HashFunction,Trigger";
  for (std::size_t minute = 1; minute <= kMinutes; ++minute) calls << ',' << minute;
  calls << '\n';
  runs << "HashOwner,HashApp,HashFunction,Average,Count,Minimum,Maximum\n";
  memory << "HashOwner,HashApp,SampleCount,AverageAllocatedMb\n";
  for (const TracedFunction& each : trace) {
    std::uint64_t count = 0;
    calls << "owner," << each.hash << ',' << each.hash << ',' << each.trigger;
    for (const std::uint32_t number : each.calls) {
      calls << ',' << number;
      count += number;
    }
    calls << '\n';
    runs << "owner," << each.hash << ',' << each.hash << ',' << each.run_ms << ',' << count << ',' << each.run_ms << ',' << each.run_ms
         << '\n';
    memory << "owner," << each.hash << ',' << count << ',' << each.memory_mb << '\n';
  }
}

std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells;
  std::istringstream in(line);
  for (std::string cell; std::getline(in, cell, ',');) cells.push_back(cell);
  return cells;
}

// Reads what write_trace() writes and a day of the data set; functions without a duration or memory have the defaults.
Trace read_trace(const std::string& directory) {
  std::map<std::string, double> runs, memory;
  std::string line;
  std::ifstream of_runs(directory + "/function_durations_percentiles.anon.d01.csv");
  while (std::getline(of_runs, line)) {
    const auto cells = cells_of(line);
    if (cells.size() > 3) runs[cells[2]] = std::atof(cells[3].c_str());
  }
  std::ifstream of_memory(directory + "/app_memory_percentiles.anon.d01.csv");
  while (std::getline(of_memory, line)) {
    const auto cells = cells_of(line);
    if (cells.size() > 3) memory[cells[1]] = std::atof(cells[3].c_str());
  }
  Trace trace;
  std::ifstream of_calls(directory + "/invocations_per_function_md.anon.d01.csv");
  std::getline(of_calls, line);
  while (std::getline(of_calls, line)) {
    const auto cells = cells_of(line);
    if (cells.size() < 4 + kMinutes) continue;
    TracedFunction& function = trace.emplace_back();
    function.hash = cells[2];
    function.trigger = cells[3];
    for (std::size_t minute = 0; minute < kMinutes; ++minute)
      function.calls[minute] = static_cast<std::uint32_t>(std::atol(cells[4 + minute].c_str()));
    if (const auto found = runs.find(cells[2]); found != runs.end()) function.run_ms = std::max(found->second, 1.0);
    if (const auto found = memory.find(cells[1]); found != memory.end())
      function.memory_mb = static_cast<std::uint64_t>(std::max(found->second, 1.0));
  }
  return trace;
}

// The hybrid histogram policy of the paper: windows between percentiles of the gaps, a tenth wider; the fixed time where the history
// is too short or mostly beyond the range.
class PercentileKeepAlive final : public engine::KeepAlivePolicy {
 public:
  explicit PercentileKeepAlive(double tail) : tail_(tail) {}
  [[nodiscard]] engine::KeepAlivePlan plan(const engine::ArrivalHistory& history, std::uint64_t) const override {
    if (history.gaps() < 4 || history.beyond() * 2 > history.gaps()) return {.keep = 10min};
    const Duration head = at(history, 0.05, 0), tail = at(history, tail_, 1) * 11 / 10;
    if (head < 1min) return {.keep = tail};
    const Duration begin = head * 9 / 10;
    return {.keep = 1s, .again_after = begin, .again_keep = tail - begin};
  }

 private:
  static Duration at(const engine::ArrivalHistory& history, double part, std::size_t edge) {
    double left = part * (history.gaps() - history.beyond());
    for (std::size_t bin = 0; bin < engine::ArrivalHistory::kBins; ++bin) {
      left -= history.count(bin);
      if (left <= 0) return engine::ArrivalHistory::begin_of(bin + edge);
    }
    return engine::ArrivalHistory::kLongest;
  }
  const double tail_;
};

struct Result {
  std::uint64_t calls = 0, cold = 0, ahead = 0;
  double gib_hours = 0;
};

// One day of the trace; the backend is part of it.
class Replay final : public engine::EnvironmentBackend, public engine::InvocationObserver {
 public:
  Replay(const Trace& trace, engine::DispatcherOptions options) : trace_(trace), dispatcher_(tuned(std::move(options)), *this, *this) {}

  Result run(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<engine::VersionPtr> versions;
    std::vector<Duration> offsets;
    for (std::size_t i = 0; i < trace_.size(); ++i) {
      auto made = std::make_shared<engine::FunctionVersion>();
      made->function_name = std::to_string(i);
      made->version = "$LATEST";
      made->config.timeout_s = 900;
      made->config.memory_mb = static_cast<std::uint32_t>(trace_[i].memory_mb);
      versions.push_back(std::move(made));
      offsets.push_back(Duration(random() % Duration(59s).count()));
    }
    for (std::size_t minute = 0; minute < kMinutes; ++minute) {
      const TimePoint begin = TimePoint(1h) + minute * 60s;
      for (std::size_t i = 0; i < trace_.size(); ++i) {
        const std::uint32_t calls = trace_[i].calls[minute];
        for (std::uint32_t call = 0; call < calls; ++call) {
          const Duration offset = trace_[i].trigger == "timer" ? offsets[i] : Duration(random() % Duration(60s).count());
          at(begin + offset, [this, version = versions[i]] { arrive(version); });
        }
      }
      drive(begin + 60s);
    }
    now_ = TimePoint(1h) + kMinutes * 60s;
    for (auto& [id, each] : environments_) stop_idling(each);
    result_.ahead = dispatcher_.counts().started_ahead;
    return result_;
  }

  void start(engine::StartOrder order) override {
    const engine::EnvironmentId id = order.id;
    Env& env = environments_[id];
    env.function = static_cast<std::size_t>(std::stoul(order.version->function_name));
    at(now_ + kInit, [this, id] {
      const auto found = environments_.find(id);
      if (found == environments_.end()) return;
      found->second.idle_since = now_;
      dispatcher_.on_started(id, now_);
      dispatcher_.on_initialised(id, 10ms, kInit - 10ms, now_);
    });
  }
  [[nodiscard]] std::uint32_t runs_at_once(const engine::FunctionVersion&) const override { return 1; }
  void send(engine::RunOrder order) override {
    Env& env = environments_.at(order.environment);
    stop_idling(env);
    const Duration run = std::chrono::duration_cast<Duration>(std::chrono::duration<double, std::milli>(trace_[env.function].run_ms));
    at(now_ + run, [this, id = order.environment, run_id = order.run] {
      const auto found = environments_.find(id);
      if (found == environments_.end()) return;
      found->second.idle_since = now_;
      dispatcher_.on_answered(id, run_id, {}, now_);
      dispatcher_.on_ready(id, run_id, now_);
    });
  }
  void give_up(engine::EnvironmentId, engine::RunId) override {}
  void freeze(engine::EnvironmentId) override {}
  void stop(engine::EnvironmentId id, engine::StopReason) override {
    stop_idling(environments_.at(id));
    at(now_, [this, id] {
      environments_.erase(id);
      dispatcher_.on_gone(id, {}, now_);
    });
  }
  void on_invocation(const engine::InvocationRecord& record) override {
    ++result_.calls;
    if (record.timings.queued + record.timings.start + record.timings.init > 1ms) ++result_.cold;
  }

 private:
  struct Env {
    std::size_t function = 0;
    TimePoint idle_since{};
  };
  struct Event {
    TimePoint at;
    std::uint64_t number;
    std::function<void()> action;
    bool operator<(const Event& other) const { return at != other.at ? other.at < at : other.number < number; }
  };

  static engine::DispatcherOptions tuned(engine::DispatcherOptions options) {
    options.concurrency_max = options.environments_max = 1'000'000;
    options.burst_starts = 1'000'000;
    options.functions_remembered_max = 1'000'000;
    return options;
  }
  void at(TimePoint when, std::function<void()> action) { events_.push({when, ++number_, std::move(action)}); }
  void arrive(const engine::VersionPtr& version) {
    auto invocation = std::make_shared<engine::Invocation>();
    invocation->version = version;
    invocation->call_deadline = now_ + 30min;
    dispatcher_.invoke(std::move(invocation), now_);
  }
  void stop_idling(Env& env) {
    if (env.idle_since == TimePoint{}) return;
    result_.gib_hours +=
        static_cast<double>(trace_[env.function].memory_mb) / 1024 * std::chrono::duration<double>(now_ - env.idle_since).count() / 3600;
    env.idle_since = {};
  }
  void drive(TimePoint until) {
    while (true) {
      const TimePoint timer = dispatcher_.next_timer();
      const TimePoint event = events_.empty() ? base::kNoDeadline : events_.top().at;
      if (std::min(timer, event) >= until) return;
      now_ = std::max(now_, std::min(timer, event));
      if (timer < event) {
        dispatcher_.on_timer(now_);
      } else {
        auto action = std::move(const_cast<Event&>(events_.top()).action);
        events_.pop();
        action();
      }
    }
  }

  const Trace& trace_;
  TimePoint now_{1h};
  std::priority_queue<Event> events_;
  std::uint64_t number_ = 0;
  std::map<engine::EnvironmentId, Env> environments_;
  Result result_;
  engine::Dispatcher dispatcher_;
};

// The largest parameter between `low` and `high`, on a logarithmic scale, that holds no more than `gib_hours`.
Result at_equal_memory(double low, double high, double gib_hours, double& parameter, const std::function<Result(double)>& run) {
  Result best;
  for (int step = 0; step < 9; ++step) {
    const double middle = std::sqrt(low * high);
    const Result result = run(middle);
    if (result.gib_hours <= gib_hours) {
      best = result;
      parameter = low = middle;
    } else {
      high = middle;
    }
  }
  return best;
}

void print(const char* name, const Result& result, const Result& fixed, double parameter, bool last = false) {
  std::printf(
      "  \"%s\": {\"cold_starts\": %lu, \"cold_share\": %.6f, \"gib_hours\": %.3f, \"started_ahead\": %lu, \"parameter\": %.6g, "
      "\"cold_over_fixed\": %.3f}%s\n",
      name, result.cold, static_cast<double>(result.cold) / static_cast<double>(result.calls), result.gib_hours, result.ahead, parameter,
      static_cast<double>(result.cold) / static_cast<double>(fixed.cold), last ? "" : ",");
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t functions = 300;
  std::uint64_t seed = 1;
  std::string write_to, read_from;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--functions") == 0) functions = std::strtoul(argv[i + 1], nullptr, 10);
    if (std::strcmp(argv[i], "--seed") == 0) seed = std::strtoull(argv[i + 1], nullptr, 10);
    if (std::strcmp(argv[i], "--write") == 0) write_to = argv[i + 1];
    if (std::strcmp(argv[i], "--read") == 0) read_from = argv[i + 1];
  }
  const Trace trace = read_from.empty() ? make_trace(functions, seed) : read_trace(read_from);
  if (trace.empty()) return std::fprintf(stderr, "trace_replay: no function in %s\n", read_from.c_str()), 1;
  if (!write_to.empty()) write_trace(trace, write_to);
  std::vector<std::uint64_t> calls;
  std::uint64_t all = 0, top = 0;
  for (const TracedFunction& each : trace) {
    calls.push_back(0);
    for (const std::uint32_t number : each.calls) calls.back() += number;
    all += calls.back();
  }
  std::ranges::sort(calls, std::greater());
  for (std::size_t i = 0; i < calls.size() / 5; ++i) top += calls[i];

  const auto run = [&](std::shared_ptr<const engine::KeepAlivePolicy> policy, double budget_mib) {
    engine::DispatcherOptions options;
    options.keep_alive = std::move(policy);
    options.idle_timeout = 24h;
    if (budget_mib > 0) options.idle_memory_max = static_cast<std::uint64_t>(budget_mib * (1 << 20U));
    return Replay(trace, options).run(seed);
  };
  const Result fixed = run(std::make_shared<engine::FixedKeepAlive>(10min), 0);
  double budget = 0, percentile = 0, worth = 0;
  const Result dual = at_equal_memory(64, 1 << 20U, fixed.gib_hours, budget,
                                      [&](double mib) { return run(std::make_shared<engine::FixedKeepAlive>(48h), mib); });
  const Result histogram = at_equal_memory(0.3, 1, fixed.gib_hours, percentile,
                                           [&](double tail) { return run(std::make_shared<PercentileKeepAlive>(tail), 0); });
  const Result learned = at_equal_memory(1, 10'000, fixed.gib_hours, worth, [&](double gib_s) {
    return run(std::make_shared<engine::LearnedKeepAlive>(engine::LearnedKeepAlive::Options{.worth_gib_s = gib_s}), 0);
  });
  const double shipped_worth = engine::LearnedKeepAlive::Options{}.worth_gib_s;
  const Result shipped = run(std::make_shared<engine::LearnedKeepAlive>(engine::LearnedKeepAlive::Options{}), 0);
  std::printf("{\"functions\": %zu, \"seed\": %lu, \"calls\": %lu, \"calls_of_top_fifth\": %.4f, \"policies\": {\n", trace.size(), seed,
              all, static_cast<double>(top) / static_cast<double>(std::max<std::uint64_t>(all, 1)));
  print("fixed_10_minutes", fixed, fixed, 600);
  print("greedy_dual_only", dual, fixed, budget);
  print("histogram_only", histogram, fixed, percentile);
  print("learned", learned, fixed, worth);
  print("learned_as_shipped", shipped, fixed, shipped_worth, true);
  std::printf("}}\n");
}
