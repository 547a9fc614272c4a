// Processes prepared ahead of the call that needs them: stems (booted runtimes in sandboxes of their own, without code, each for one
// function version of its life) and the zygotes that stems of some runtimes are forked from.
// Shape:   a pool for each class of environments that one stem could become. How many it keeps follows from the starts of the last
//          minutes: the most that came at once; none for a class that nobody used within `keep`.
// Bounds:  `each_max` stems of a class, `classes_max` classes, `memory_bytes_max` for all stems together by their measured size.
// Threads: the loop's only. Does no I/O and reads no clock: it tells a StemMaker what to do and is told what became of it.
#pragma once

#include <compare>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "sandbox/launcher.h"

namespace mayfly::backend {

// What cannot be changed once a stem is there. Environments with equal ones can take each other's stems.
struct StemClass {
  std::string root_id;
  std::vector<std::string> arguments;
  std::vector<std::string> variables;  // those that a runtime looks at when it boots
  sandbox::Network network = sandbox::Network::kNone;
  std::uint64_t tmp_bytes = 0;
  std::uint64_t memory_bytes = 0;  // where the runtime measures its memory when it boots; else 0
  bool forks = false;              // of a zygote
  std::string program = {};        // which file it was booted from: one that was replaced since is another
  auto operator<=>(const StemClass&) const = default;
};

// What a zygote can be asked for: its class less what its children get from their sandboxes.
struct ZygoteClass {
  std::string root_id;
  std::vector<std::string> arguments, variables;
  std::string program;
  auto operator<=>(const ZygoteClass&) const = default;
};

// Carries out what the pool decides. Nothing here may call back into the pool; answers come later, from the loop.
class StemMaker {
 public:
  virtual ~StemMaker() = default;
  // `zygote` is 0 where the stem is to be executed. on_booted() or on_gone() follows.
  virtual void make_stem(sandbox::SandboxId id, const StemClass& of, sandbox::SandboxId zygote) = 0;
  virtual void make_zygote(sandbox::SandboxId id, const ZygoteClass& of) = 0;
  virtual void kill(sandbox::SandboxId id) = 0;
};

struct StemPoolOptions {
  std::uint64_t memory_bytes_max = std::uint64_t{256} << 20U;
  std::uint32_t each_max = 32;
  std::uint32_t classes_max = 64;
  std::uint32_t forks_max = 2'000;  // of one zygote: then a new one takes its place, with another layout and hash seed
  base::Duration keep = std::chrono::minutes(10);
  base::Duration zygote_life = std::chrono::hours(1);
};

class StemPool {
 public:
  StemPool(StemPoolOptions options, StemMaker& maker) : options_(options), maker_(maker) {}

  // An environment of this class starts now. A booted stem, which is the caller's from here on, or nothing: then it starts in full.
  [[nodiscard]] std::optional<sandbox::Sandbox> take(const StemClass& of, base::TimePoint now);
  // A zygote to fork that environment's main process from, or 0. Counts as a fork of it.
  [[nodiscard]] sandbox::SandboxId zygote_for(const StemClass& of);

  // Whether an id is that of a stem or zygote of this pool.
  [[nodiscard]] static bool is_ours(sandbox::SandboxId id) { return (id & kFirstId) != 0; }
  // A stem has booted: it can be taken.
  void on_booted(sandbox::Sandbox stem, std::uint64_t bytes);
  void on_zygote_ready(sandbox::SandboxId id, base::TimePoint now);
  // A stem or zygote ended or could not be made. Ids of taken stems are ignored.
  void on_gone(sandbox::SandboxId id, base::TimePoint now);

  // Does what is due: makes what is missing, ends what is too much or too old. At next_due() and after every call above.
  void work(base::TimePoint now);
  [[nodiscard]] base::TimePoint next_due() const { return due_; }
  // Ends everything; afterwards nothing is made.
  void close();

  struct Counts {
    std::uint32_t ready = 0, booting = 0, zygotes = 0;
    std::uint64_t taken = 0, missed = 0;  // starts that found one, and those of a kind that could have
  };
  [[nodiscard]] Counts counts() const;

 private:
  static constexpr sandbox::SandboxId kFirstId = sandbox::SandboxId{1} << 55U;  // those of environments count from 1

  struct Zygote {
    sandbox::SandboxId id = 0;  // 0: none
    bool ready = false;
    std::uint32_t forks = 0;
    base::TimePoint born{};
    std::uint32_t failures = 0;  // one after another
    base::TimePoint retry{};
  };
  struct Pool {
    std::vector<sandbox::Sandbox> ready;  // the last booted is taken first: its pages are in the caches
    std::vector<sandbox::SandboxId> booting;
    std::deque<base::TimePoint> starts;  // within kTogether of the newest, at most each_max
    std::uint32_t peak = 0;              // the most starts at once lately
    base::TimePoint peak_at{}, used{};
    std::uint64_t bytes = 0;  // of one stem: the largest seen
    std::uint32_t failures = 0;
    base::TimePoint retry{};
  };

  void count_start(Pool& pool, base::TimePoint now) const;
  void retire_former(const StemClass& of);
  [[nodiscard]] std::uint32_t target(const Pool& pool, base::TimePoint now) const;
  void shrink(Pool& pool, std::uint32_t target);
  void fill(const StemClass& of, Pool& pool, std::uint32_t target, base::TimePoint now);
  void tend_zygotes(base::TimePoint now);
  [[nodiscard]] Zygote* zygote_of(const StemClass& of);
  [[nodiscard]] std::uint64_t bytes_held() const;
  void due_at(base::TimePoint when) { due_ = std::min(due_, when); }

  const StemPoolOptions options_;
  StemMaker& maker_;
  std::map<StemClass, Pool> pools_;
  std::map<ZygoteClass, Zygote> zygotes_;
  sandbox::SandboxId next_ = kFirstId;
  base::TimePoint due_ = base::kNoDeadline;
  base::TimePoint quiet_until_{};  // nothing is made while starts come in
  std::uint64_t taken_ = 0, missed_ = 0;
  bool closed_ = false;
};

}  // namespace mayfly::backend
