// The log of one execution environment: the platform's lines in AWS's exact form (Text or JSON), the function's own lines,
// and the tail that LogType=Tail returns. On the loop's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "engine/invocation.h"
#include "runtime/telemetry.h"

namespace mayfly::runtime {

inline constexpr std::size_t kTailBytes = 4096;

// "2026/11/23/[$LATEST]0123456789abcdef0123456789abcdef"
[[nodiscard]] std::string make_log_stream_name(const std::string& version, base::WallTime now);

struct ReportFigures {
  base::Duration run{0};
  base::Duration billed{0};
  std::optional<base::Duration> init;  // first invocation after an init of its own only
  std::uint64_t memory_peak = 0;       // bytes
  std::string status = "success";      // "success", "timeout", "error"
  std::string error_type;              // with "error" only
  std::string trace_id = {};           // of the invocation
  // For the spans of platform.runtimeDone; without `latency` there was no answer.
  std::optional<base::Duration> latency = {};  // run's begin to the answer's first byte
  std::uint64_t produced_bytes = 0;
};

class EnvironmentLog {
 public:
  // References outlive the log.
  EnvironmentLog(engine::LogWriter& writer, const base::Clock& clock, engine::VersionPtr version, std::string stream,
                 std::string initialization_type = "on-demand");

  void init_start(const std::string& runtime_version);
  // Who hears the platform's events too, or null. Outlives the log or is taken back.
  void observe(Telemetry* telemetry) { telemetry_ = telemetry; }
  [[nodiscard]] const Telemetry* observer() const { return telemetry_; }

  // The runtime has asked for its first invocation: `phase` "init" or "invoke". For extensions only.
  void init_runtime_done(std::string_view phase, std::string_view status);
  // An init that went well, for extensions only.
  void init_succeeded(base::Duration init, std::string_view phase);
  // What became of an extension; `error_type` may be empty.
  void extension(const std::string& name, std::string_view state, const std::vector<std::string>& events, std::string_view error_type);
  // An extension subscribed; its own stream has a record of that already.
  void subscribed(const Subscription& subscription);
  // Only when an init did not end well. `phase` is "init" or "invoke", `status` "timeout" or "error".
  void init_report(base::Duration init, std::string_view phase, std::string_view status, std::string_view error_type);
  void start(const std::string& request_id, const std::string& trace_id = {});
  void end(const std::string& request_id);
  void report(const std::string& request_id, const ReportFigures& figures);
  void timed_out(const std::string& request_id, base::Duration allowed);
  // "RequestId: <id> Error: <text>\n<type>\n"
  void process_ended(const std::string& request_id, std::string_view text, std::string_view error_type);
  // A word of the platform that AWS has no line for (a stand-in interpreter).
  void note(const std::string& text);
  // As the function printed it.
  void function_message(std::string message, std::optional<base::WallTime> time);

  [[nodiscard]] const std::string& stream() const { return stream_; }
  // Several invocations may run at once, from start() to report() each: tails tell them apart from now on.
  void expect_many() { many_ = true; }
  // Keeps the lines of `request_id` from here on, or also those before the first start(), for end_tail(). Before its start().
  enum class TailFrom : std::uint8_t { kHere, kBeginning };
  void begin_tail(const std::string& request_id, TailFrom from);
  // The last 4096 bytes of them, and no more from here on. Where several run at once: without the lines that name the request ids of
  // others only. A line that names nobody may be anybody's, and is in the tail of each that runs.
  [[nodiscard]] std::string end_tail(const std::string& request_id);

 private:
  struct Tail {
    std::string request_id, text;
  };
  struct TextHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  enum class Level : std::uint8_t { kDebug, kInfo, kWarning };
  void write(std::string message, std::optional<base::WallTime> time = std::nullopt);
  void add_to_tails(std::string_view message);
  // Of the invocations that run those whose ids stand in `message`.
  [[nodiscard]] std::vector<std::string_view> named_in(std::string_view message) const;
  // To extensions always, to the log where that is JSON and takes the level.
  void event(Level level, std::string_view type, const std::string& record);
  void log_event(Level level, std::string_view type, const std::string& record);
  void report_event(const std::string& request_id, const ReportFigures& figures);
  void report_runtime_done(const std::string& request_id, const ReportFigures& figures);
  // Whether event() does anything.
  [[nodiscard]] bool has_events() const { return json() || (telemetry_ != nullptr && telemetry_->listening()); }
  [[nodiscard]] bool json() const { return version_->config.log_format == "JSON"; }

  engine::LogWriter& writer_;
  const base::Clock& clock_;
  engine::VersionPtr version_;
  std::string stream_;
  std::string initialization_type_;
  std::optional<std::string> init_tail_ = std::string();  // of what comes before the first start()
  std::vector<Tail> tails_;                               // of those that are asked for
  bool many_ = false;
  std::unordered_set<std::string, TextHash, std::equal_to<>> running_;  // request ids, where there are many
  Telemetry* telemetry_ = nullptr;
};

}  // namespace mayfly::runtime
