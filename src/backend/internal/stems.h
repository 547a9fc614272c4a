// Stems and zygotes of this machine: carries out what the StemPool decides through the launcher, and tells the pool what became of it.
// Threads: the loop's only. Everything it refers to outlives it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <optional>
#include <unordered_map>

#include "backend/internal/stem_pool.h"
#include "base/time.h"
#include "sandbox/launcher.h"

namespace mayfly::backend {

class Stems final : private StemMaker {
 public:
  Stems(boost::asio::io_context& context, sandbox::Launcher& launcher, const base::Clock& clock, StemPoolOptions options);
  ~Stems() override;
  Stems(const Stems&) = delete;
  Stems& operator=(const Stems&) = delete;

  // As StemPool has them; work() follows by itself.
  [[nodiscard]] std::optional<sandbox::Sandbox> take(const StemClass& of);
  [[nodiscard]] sandbox::SandboxId zygote_for(const StemClass& of) { return pool_.zygote_for(of); }
  [[nodiscard]] StemPool::Counts counts() const { return pool_.counts(); }

  // What the launcher told; false when it is about something else.
  [[nodiscard]] bool handle(sandbox::SandboxStarted& event);
  [[nodiscard]] bool handle(const sandbox::SandboxFailed& event);
  [[nodiscard]] bool handle(const sandbox::SandboxExited& event);
  void handle(const sandbox::ZygoteReady& event);

  // Ends all of them and makes no more.
  void close();

 private:
  struct Booting;
  void make_stem(sandbox::SandboxId id, const StemClass& of, sandbox::SandboxId zygote) override;
  void make_zygote(sandbox::SandboxId id, const ZygoteClass& of) override;
  void kill(sandbox::SandboxId id) override;
  void booted(sandbox::SandboxId id);
  void gone(sandbox::SandboxId id);
  void fail_later(sandbox::SandboxId id);
  void rearm();

  boost::asio::io_context& context_;
  sandbox::Launcher& launcher_;
  const base::Clock& clock_;
  StemPool pool_;
  std::unordered_map<sandbox::SandboxId, std::unique_ptr<Booting>> booting_;  // started, and not said hello yet
  boost::asio::steady_timer timer_;
  base::TimePoint armed_ = base::kNoDeadline;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace mayfly::backend
