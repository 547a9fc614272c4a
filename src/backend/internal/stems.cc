#include "backend/internal/stems.h"

#include <sys/ioctl.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>

#include "base/log.h"

namespace mayfly::backend {

namespace asio = boost::asio;
using boost::system::error_code;
using sandbox::SandboxId;

namespace {

// A stem whose runtime does not look at its memory has all that a function may ask for, until it is one's.
constexpr std::uint64_t kMostBytes = std::uint64_t{10'240} << 20U;
constexpr std::uint32_t kBootMilliCpu = 1'000;

}  // namespace

// A stem whose runtime boots. Its first words are left to whoever takes it: here it only counts that there are any.
struct Stems::Booting {
  Booting(asio::io_context& context, sandbox::Sandbox sandbox_in) : sandbox(std::move(sandbox_in)), words(context) {}
  sandbox::Sandbox sandbox;
  asio::posix::stream_descriptor words;
};

Stems::Stems(asio::io_context& context, sandbox::Launcher& launcher, const base::Clock& clock, StemPoolOptions options)
    : context_(context), launcher_(launcher), clock_(clock), pool_(options, *this), timer_(context) {}

Stems::~Stems() {
  alive_.reset();
  close();
}

std::optional<sandbox::Sandbox> Stems::take(const StemClass& of) {
  auto stem = pool_.take(of, clock_.now());
  rearm();
  return stem;
}

bool Stems::handle(sandbox::SandboxStarted& event) {
  const SandboxId id = event.sandbox.id;
  if (!StemPool::is_ours(id)) return false;
  auto made = std::make_unique<Booting>(context_, std::move(event.sandbox));
  auto words = made->sandbox.control_in.duplicate();
  if (!words.ok()) {
    kill(id);
    gone(id);
    return true;
  }
  made->words.assign(words->release());
  made->words.async_wait(asio::posix::descriptor_base::wait_read, [this, id, token = std::weak_ptr<bool>(alive_)](error_code error) {
    if (!error && !token.expired()) booted(id);
  });
  booting_.emplace(id, std::move(made));
  return true;
}

bool Stems::handle(const sandbox::SandboxFailed& event) {
  if (!StemPool::is_ours(event.id)) return false;
  base::log_warning("no process could be prepared ahead of its call", {{"what", event.error.message()}});
  gone(event.id);
  return true;
}

bool Stems::handle(const sandbox::SandboxExited& event) {
  if (!StemPool::is_ours(event.id)) return false;
  gone(event.id);
  return true;
}

void Stems::handle(const sandbox::ZygoteReady& event) {
  pool_.on_zygote_ready(event.id, clock_.now());
  rearm();
}

void Stems::close() {
  pool_.close();
  booting_.clear();
  timer_.cancel();
}

void Stems::booted(SandboxId id) {
  const auto found = booting_.find(id);
  if (found == booting_.end()) return;
  sandbox::Sandbox stem = std::move(found->second->sandbox);
  booting_.erase(found);
  int bytes_there = 0;
  if (ioctl(stem.control_in.get(), FIONREAD, &bytes_there) != 0 || bytes_there == 0) {  // the end of the pipe: it died
    kill(id);
    return gone(id);
  }
  const std::uint64_t bytes = stem.memory_used();
  pool_.on_booted(std::move(stem), bytes);
  rearm();
}

void Stems::gone(SandboxId id) {
  booting_.erase(id);
  pool_.on_gone(id, clock_.now());
  rearm();
}

// Never from within the pool's own call.
void Stems::fail_later(SandboxId id) {
  asio::post(context_, [this, id, token = std::weak_ptr<bool>(alive_)] {
    if (!token.expired()) gone(id);
  });
}

void Stems::make_stem(SandboxId id, const StemClass& of, SandboxId zygote) {
  sandbox::SandboxSpec spec;
  spec.id = id;
  spec.root_id = of.root_id;
  spec.stem = true;
  spec.zygote = zygote;
  spec.arguments = of.arguments;
  spec.environment = of.variables;
  spec.working_directory = "/";
  spec.connectors = 1;  // for an extension inside the runtime
  spec.memory_bytes = of.memory_bytes == 0 ? kMostBytes : of.memory_bytes;
  spec.tmp_bytes = of.tmp_bytes;
  spec.cpu_milli = kBootMilliCpu;
  spec.network = of.network;
  if (!launcher_.start(spec).ok()) fail_later(id);
}

void Stems::make_zygote(SandboxId id, const ZygoteClass& of) {
  if (!launcher_.start_zygote({.id = id, .program = {.root_id = of.root_id, .arguments = of.arguments, .environment = of.variables}}).ok())
    fail_later(id);
}

void Stems::kill(SandboxId id) { launcher_.kill(id); }

void Stems::rearm() {
  const base::TimePoint next = pool_.next_due();
  if (next >= armed_) return;
  armed_ = next;
  timer_.expires_at(next);
  timer_.async_wait([this, token = std::weak_ptr<bool>(alive_)](error_code error) {
    if (error || token.expired()) return;
    armed_ = base::kNoDeadline;
    pool_.work(clock_.now());
    rearm();
  });
}

}  // namespace mayfly::backend
