// What the escape tests share: the probe inside a sandbox, the probe outside as the positive control, and a private network
// ("the host" with an uplink to "outside") for those that need one.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "sandbox/internal/test_support.h"

namespace mayfly::escape {

using Words = std::vector<std::string>;

// How a probe ended. Exit codes as in probe.c.
struct Attempt {
  int exit_code = -1;
  int signal = 0;
  bool out_of_memory = false;
  std::string output;
  [[nodiscard]] bool reached() const { return exit_code == 10; }
  // It tried and failed, or was stopped by force.
  [[nodiscard]] bool contained() const { return exit_code == 0 || (exit_code == -1 && signal != 0); }
};

struct OutsideOptions {
  unsigned user = 0;
  bool own_namespaces = false;  // private copies of all but the user namespace, so that an attack that works harms nothing
  int inherited = -1;           // a descriptor that leaks into the probe as number 9
  bool terminal = false;        // a controlling terminal as standard input
  std::chrono::milliseconds patience = std::chrono::seconds(20);
};

// How a sandbox's main process came to be: both kinds of environments pass the same tests.
enum class Birth { kExecuted, kForkedFromAZygote };

class EscapeTest : public ::testing::TestWithParam<Birth> {
 protected:
  void SetUp() override;

  // A specification that runs the probe with `words`.
  [[nodiscard]] sandbox::SandboxSpec spec(const Words& words);
  [[nodiscard]] Attempt run(const sandbox::SandboxSpec& spec);
  [[nodiscard]] Attempt inside(const Words& words) { return run(spec(words)); }
  [[nodiscard]] Attempt outside(const Words& words, const OutsideOptions& options = {});
  // The attempt works outside and does not inside.
  void expect_contained(const Words& words, const OutsideOptions& control = {});

  [[nodiscard]] std::string code_path(const std::string& name) const { return bench.config.code_directory + "/" + code + "/" + name; }

  sandbox::test::TemporaryDirectory directory;
  sandbox::test::Bench bench{directory.path()};
  std::string code;    // an unpacked code directory that holds the probe
  std::string secret;  // a file of the host beside the code, readable by everybody
};

inline constexpr const char* kHostAddress = "198.51.100.1";
inline constexpr const char* kOutsideAddress = "198.51.100.2";
inline constexpr const char* kMetadataAddress = "169.254.169.254";
inline constexpr const char* kMetadataAddress6 = "fd00:ec2::254";
inline constexpr const char* kHostAddress6 = "fd00:ec2::1";

// The test process (and so the launcher) lives in a network namespace of its own with an uplink to another one.
class NetworkEscapeTest : public EscapeTest {
 protected:
  void SetUp() override;
  void TearDown() override;
  [[nodiscard]] sandbox::SandboxSpec outside_spec(const Words& words);
  // Runs `work` in another network namespace.
  static void in_namespace(const base::UniqueFd& netns, const std::function<void()>& work);

  base::UniqueFd original;
  base::UniqueFd outside_network;
  base::UniqueFd web;  // listens outside on port 80 of every address
};

// The last part of a test's name.
[[nodiscard]] std::string name_of(const ::testing::TestParamInfo<Birth>& info);
// A listening TCP socket on every address, IPv4 and IPv6.
[[nodiscard]] base::UniqueFd listen_everywhere(std::uint16_t port);
// Whether somebody connects within `patience`.
[[nodiscard]] bool accepts_one(const base::UniqueFd& listener, std::chrono::milliseconds patience);
// The namespace a socket lives in.
[[nodiscard]] base::UniqueFd namespace_of(int socket);
// Whether a TCP connection from the caller's namespace comes about.
[[nodiscard]] bool connects(const std::string& address, std::uint16_t port);

}  // namespace mayfly::escape
