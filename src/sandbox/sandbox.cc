// Sandbox: control of a running sandbox through the descriptors that the launcher opened.
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <string>

#include "sandbox/internal/cgroups.h"
#include "sandbox/launcher.h"

namespace mayfly::sandbox {

using base::errno_error;
using base::Result;

namespace {

constexpr std::uint64_t kPeriodUs = 100'000;  // the launcher sets the same for v1
constexpr std::uint64_t kQuotaUsMin = 1'000;  // the kernel takes no less
constexpr std::uint64_t kKiB = 1024;

Result<void> write_control(const base::UniqueFd& file, const std::string& value, const char* what) {
  if (!file.valid()) return {};
  ssize_t put = -1;
  do put = pwrite(file.get(), value.data(), value.size(), 0);
  while (put < 0 && errno == EINTR);
  if (put == static_cast<ssize_t>(value.size())) return {};
  if (errno == ENODEV) return {};  // the sandbox ended meanwhile and its group is gone
  return errno_error(std::string("cannot ") + what + " a sandbox", errno);
}

}  // namespace

Result<void> Sandbox::freeze() const { return write_control(freeze_file, cgroup_v2_freezer ? "1" : "FROZEN", "freeze"); }
Result<void> Sandbox::thaw() const { return write_control(freeze_file, cgroup_v2_freezer ? "0" : "THAWED", "thaw"); }

void Sandbox::open_gate() {
  if (gate) (void)!::send(gate.get(), "1", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
  gate.reset();
}

Result<void> Sandbox::throttle() const {
  const std::string quota = std::to_string(std::max(kQuotaUsMin, cpu_milli * kPeriodUs / 1000));
  return write_control(cpu_quota_file, cgroup_v2_cpu ? quota + " " + std::to_string(kPeriodUs) : quota, "throttle");
}

std::uint64_t Sandbox::memory_used() const {
  if (memory_stat.valid()) {
    const auto [own, shared] = internal::control_values(memory_stat.get(), {cgroup_v2_memory ? "anon" : "rss", "shmem"});
    return own + shared;
  }
  const auto [own, shared] = internal::control_values(main_status.get(), {"RssAnon", "RssShmem"});
  return kKiB * (own + shared);
}

std::uint64_t Sandbox::memory_peak() const {
  const auto [most, files] = internal::control_values(main_status.get(), {"VmHWM", "RssFile"});
  return std::max(memory_used(), kKiB * (most - std::min(most, files)));
}

base::Duration Sandbox::cpu_used() const {
  std::array<char, 32> text{};
  if (!cpu_stat.valid()) return {};
  const ssize_t got = pread(cpu_stat.get(), text.data(), text.size() - 1, 0);
  std::int64_t nanoseconds = 0;
  // cpuacct.usage of v1 is one number; cpu.stat of v2 has names.
  if (got > 0 && text[0] >= '0' && text[0] <= '9')
    std::from_chars(text.data(), text.data() + got, nanoseconds);
  else
    nanoseconds = static_cast<std::int64_t>(internal::control_value(cpu_stat.get(), "usage_usec")) * 1000;
  return base::Duration(nanoseconds);
}

std::uint64_t Sandbox::oom_kills() const { return internal::control_value(memory_events.get(), "oom_kill"); }

}  // namespace mayfly::sandbox
