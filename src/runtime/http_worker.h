// The server's end of the HTTP contract with one environment: waits until the HTTP server inside answers, makes a request of each
// invocation and an answer of each response (docs/http-functions.md). The same role as RuntimeApi, for as many invocations at once
// as are handed over. Distrusts the peer: framing is the client codec's, heads are bounded, bodies never beyond the limits.
// Bounds: a connection for each run, kept for the next one for a second; of a streamed answer one piece at a time.
// Time: none of its own; a silent server ends with the run's deadline, which is the owner's to watch.
#pragma once

#include <memory>

#include "base/fd.h"
#include "engine/invocation.h"
#include "net/task.h"
#include "runtime/http_contract.h"
#include "runtime/runtime_api.h"

namespace mayfly::runtime {

// How many of Sandbox::connectors a worker takes.
inline constexpr std::uint32_t kHttpWorkerConnectors = 2;

struct HttpWorkerOptions {
  HttpContract contract;
  engine::VersionPtr version;
  std::string log_stream;
  RuntimeApiLimits limits = {};
};

// One loop's thread.
class HttpWorker {
 public:
  // Looks for the server at once; on_next(0) says that it is ready. `listener` and `dialler`: unconnected TCP sockets of its network
  // namespace. `events` and `clock` outlive the worker and must not destroy it from within a report.
  HttpWorker(const net::Executor& executor, base::UniqueFd listener, base::UniqueFd dialler, RuntimeEvents& events,
             const base::Clock& clock, HttpWorkerOptions options);
  ~HttpWorker();
  HttpWorker(const HttpWorker&) = delete;
  HttpWorker& operator=(const HttpWorker&) = delete;

  // Sends `invocation` as run `run`, which no run under way has; the payload is moved out of it when it is sent. on_answer() and on_next()
  // of that run follow.
  void hand_over(RunNumber run, engine::InvocationPtr invocation, base::Deadline run_deadline);
  // Whether no byte of `run` was sent to the server inside; then its invocation still has its payload, and it is as given up.
  [[nodiscard]] bool take_back(RunNumber run);
  // Nothing more is reported of `run`, and no stream piece of it reaches the sink; its connection is closed, which tells the server.
  void give_up(RunNumber run);
  // From here on no event is reported and no stream piece reaches a sink.
  void abandon();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mayfly::runtime
