// The server's end of the framed protocol with one environment's runtime (docs/formats/framed-protocol.md): the same role as RuntimeApi,
// over two pipes, for Mayfly's own bootstraps, which may run several invocations at once. Distrusts the peer: sizes, order, run numbers
// and credit are checked, and whoever breaks the protocol after it has said hello is reported once and heard no more.
// Bounds: one body under way, kept as it comes and never beyond the limits; a window of a stream for each run; of each run's event
//          what fits into a pipe, until it is answered, since nobody may have taken it.
// Needs:   SIGPIPE ignored by the program.
// Cost of an invocation: one write of the event and one read of the answer, both in place; no coroutine.
#pragma once

#include <memory>

#include "base/fd.h"
#include "engine/invocation.h"
#include "net/task.h"
#include "runtime/framed_protocol.h"
#include "runtime/runtime_api.h"

namespace mayfly::runtime {

// What the runtime did. Called on the loop's thread; must not destroy the FramedChannel before returning. hand_over() may be called
// from within. on_next() comes once with the runtime's READY and then after every on_answer(), with its run: that is free again.
class FramedEvents : public RuntimeEvents {
 public:
  // The runtime broke the protocol: it is heard no more, and what it runs will not be answered.
  virtual void on_protocol_error(FunctionFault fault) = 0;
  // The process is about to end: it may still answer what it runs, and must be handed nothing more. No on_next() follows.
  virtual void on_leaving() = 0;
};

// One loop's thread.
class FramedChannel {
 public:
  // Takes the server's ends of the pipes, both non-blocking, and reads at once. `events` and `clock` outlive it.
  FramedChannel(const net::Executor& executor, base::UniqueFd in, base::UniqueFd out, FramedEvents& events, const base::Clock& clock,
                RuntimeApiLimits limits = {});
  ~FramedChannel();
  FramedChannel(const FramedChannel&) = delete;
  FramedChannel& operator=(const FramedChannel&) = delete;

  // Sends INIT, once; the limits in `init` are filled in here. A runtime that was booted ahead of time begins its init now.
  void initialise(FramedInit init);
  // Whether the runtime has asked for work here.
  [[nodiscard]] bool ready() const;
  // Sends `invocation` as run `run`, which is higher than any before; the payload is moved out of it. Only after an on_next() for each.
  void hand_over(RunNumber run, engine::InvocationPtr invocation, base::Deadline run_deadline);
  // Once the runtime has ended: whether it provably never took `run`, whose payload is then its invocation's again and which is under
  // way no more. So it is where none of its bytes was read and nobody is left to read them, or where the runtime said so when it left.
  // False in doubt.
  [[nodiscard]] bool take_back(RunNumber run);
  // Nothing more is reported of `run`, and no stream piece of it reaches the sink; what the runtime says of it is dropped.
  void give_up(RunNumber run);
  // From here on no event is reported, nothing is read, and no stream piece reaches the sink.
  void abandon();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace mayfly::runtime
