// What the dispatcher itself costs per warm invocation: invoke, hand-over, answer, ready, with a backend that does nothing.
// Usage: bench_dispatch [INVOCATIONS] [ENVIRONMENTS]; under `valgrind --tool=callgrind` the instruction count is the figure to keep.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "engine/dispatcher.h"

namespace {

std::size_t allocations = 0;

using namespace mayfly;
using namespace std::chrono_literals;

struct Sink final : engine::ResponseSink {
  void on_stream_begin(const std::string&) override {}
  void on_stream_piece(std::string, std::function<void(bool)>) override {}
  void on_outcome(engine::Outcome) override { ++answers; }
  std::size_t answers = 0;
};

struct Backend final : engine::EnvironmentBackend {
  void start(engine::StartOrder order) override { started.push_back(order.id); }
  std::uint32_t runs_at_once(const engine::FunctionVersion&) const override { return 1; }
  void send(engine::RunOrder order) override { sent.emplace_back(order.environment, order.run); }
  void give_up(engine::EnvironmentId, engine::RunId) override {}
  void freeze(engine::EnvironmentId) override {}
  void stop(engine::EnvironmentId, engine::StopReason) override {}
  std::vector<engine::EnvironmentId> started;
  std::vector<std::pair<engine::EnvironmentId, engine::RunId>> sent;
};

struct Observer final : engine::InvocationObserver {
  void on_invocation(const engine::InvocationRecord&) override {}
};

}  // namespace

void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

int main(int argc, char** argv) {
  const long rounds = argc > 1 ? std::atol(argv[1]) : 1'000'000;
  const std::size_t width = argc > 2 ? static_cast<std::size_t>(std::atol(argv[2])) : 16;
  Backend backend;
  Observer observer;
  engine::Dispatcher dispatcher({}, backend, observer);
  auto version = std::make_shared<engine::FunctionVersion>();
  version->function_name = "measured-function-with-a-name";
  version->version = "$LATEST";
  version->generation = 7;
  version->config.log_group = "/aws/lambda/measured-function-with-a-name";
  version->config.timeout_s = 3;
  const auto sink = std::make_shared<Sink>();
  std::vector<engine::InvocationPtr> invocations;
  for (std::size_t i = 0; i < width; ++i) {
    auto& made = invocations.emplace_back(std::make_shared<engine::Invocation>());
    made->request_id = "2b4f5d1e-7c64-4a0b-9a53-0d4f5f2a1c77";
    made->version = version;
    made->sink = sink;
  }
  base::TimePoint now{1h};
  const auto invoke = [&](std::size_t i) {
    invocations[i]->call_deadline = now + 30s;
    dispatcher.invoke(invocations[i], now);
  };
  for (std::size_t i = 0; i < width; ++i) invoke(i);
  for (const engine::EnvironmentId id : backend.started) {
    dispatcher.on_started(id, now);
    dispatcher.on_initialised(id, 1ms, 1ms, now);
  }
  std::vector<std::pair<engine::EnvironmentId, engine::RunId>> running;
  std::size_t allocated = 0;
  std::chrono::steady_clock::time_point begin;
  for (long round = 0; round < rounds + 100; ++round) {
    if (round == 100) {
      begin = std::chrono::steady_clock::now();
      allocated = allocations;
    }
    running.swap(backend.sent);
    backend.sent.clear();
    for (std::size_t i = 0; i < running.size(); ++i) {
      now += 10us;
      dispatcher.on_answered(running[i].first, running[i].second, {}, now);
      dispatcher.on_ready(running[i].first, running[i].second, now);
      if (dispatcher.next_timer() <= now) dispatcher.on_timer(now);
      invoke(i);
    }
  }
  const double count = static_cast<double>(rounds) * static_cast<double>(width);
  const double ns = static_cast<double>((std::chrono::steady_clock::now() - begin).count());
  std::printf("{\"invocations\": %.0f, \"ns_each\": %.1f, \"allocations_each\": %.3f}\n", count, ns / count,
              static_cast<double>(allocations - allocated) / count);
  return sink->answers > 0 ? 0 : 1;
}
