#include "runtime/environment_log.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/bytes.h"
#include "base/json.h"

namespace mayfly::runtime {
namespace {

std::string decimal(double value, int digits) {
  std::array<char, 48> text{};
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed, digits);
  return {text.data(), error == std::errc() ? end : text.data()};
}
std::string ms(base::Duration duration) { return decimal(base::to_ms(duration), 2); }
std::string whole_ms(base::Duration duration) { return std::to_string(std::chrono::ceil<std::chrono::milliseconds>(duration).count()); }
// AWS rounds up: a function that used anything shows at least 1 MB.
std::string megabytes(std::uint64_t bytes) { return std::to_string((bytes + (1U << 20U) - 1) >> 20U); }
std::string member(std::string_view name, std::string_view text) { return "\"" + std::string(name) + "\":" + base::json_quote(text); }

std::string tracing(const std::string& trace_id) {
  if (trace_id.empty()) return {};
  return ",\"tracing\":{" + member("type", "X-Amzn-Trace-Id") + "," + member("value", base::valid_utf8(trace_id)) + "}";
}

// Keeps of a tail at least what will be asked of it.
void add_to(std::string& tail, std::string_view message) {
  tail += message;
  if (!message.ends_with('\n')) tail += '\n';
  if (tail.size() > 4 * kTailBytes) tail.erase(0, tail.size() - kTailBytes);
}

}  // namespace

std::string make_log_stream_name(const std::string& version, base::WallTime now) {
  return base::format_log_date(now) + "/[" + version + "]" + base::random_hex(16);
}

EnvironmentLog::EnvironmentLog(engine::LogWriter& writer, const base::Clock& clock, engine::VersionPtr version, std::string stream,
                               std::string initialization_type)
    : writer_(writer),
      clock_(clock),
      version_(std::move(version)),
      stream_(std::move(stream)),
      initialization_type_(std::move(initialization_type)) {}

void EnvironmentLog::write(std::string message, std::optional<base::WallTime> time) {
  if (init_tail_) add_to(*init_tail_, message);
  if (!tails_.empty()) add_to_tails(message);
  writer_.append(version_->config.log_group, stream_, time.value_or(clock_.wall_now()), std::move(message));
}

void EnvironmentLog::add_to_tails(std::string_view message) {
  const std::vector<std::string_view> named = many_ ? named_in(message) : std::vector<std::string_view>();
  for (Tail& tail : tails_) {
    if (named.empty() || std::ranges::find(named, tail.request_id) != named.end()) add_to(tail.text, message);
  }
}

// A request id is a UUID: hyphens at four places tell where one may begin.
std::vector<std::string_view> EnvironmentLog::named_in(std::string_view message) const {
  constexpr std::size_t kIdBytes = 36, kFirstHyphen = 8;
  std::vector<std::string_view> named;
  for (std::size_t at = message.find('-'); at != std::string_view::npos; at = message.find('-', at + 1)) {
    if (at < kFirstHyphen || message.size() - (at - kFirstHyphen) < kIdBytes) continue;
    const std::string_view id = message.substr(at - kFirstHyphen, kIdBytes);
    if (id[13] == '-' && id[18] == '-' && id[23] == '-' && running_.contains(id)) named.push_back(id);
  }
  return named;
}

void EnvironmentLog::begin_tail(const std::string& request_id, TailFrom from) {
  const bool from_the_beginning = from == TailFrom::kBeginning && init_tail_;
  tails_.push_back({.request_id = request_id, .text = from_the_beginning ? *init_tail_ : std::string()});
}

std::string EnvironmentLog::end_tail(const std::string& request_id) {
  const auto found = std::ranges::find(tails_, request_id, &Tail::request_id);
  if (found == tails_.end()) return {};
  std::string text = std::move(found->text);
  tails_.erase(found);
  return text.size() <= kTailBytes ? text : text.substr(text.size() - kTailBytes);
}

void EnvironmentLog::event(Level level, std::string_view type, const std::string& record) {
  if (telemetry_ != nullptr) telemetry_->platform(type, "{" + record + "}");
  if (json()) log_event(level, type, record);
}

void EnvironmentLog::log_event(Level level, std::string_view type, const std::string& record) {
  const std::string& wanted = version_->config.system_log_level;
  const Level threshold = wanted == "DEBUG" ? Level::kDebug : wanted == "WARN" ? Level::kWarning : Level::kInfo;
  if (level < threshold) return;
  write("{" + member("time", base::format_iso_ms(clock_.wall_now())) + "," + member("type", type) + ",\"record\":{" + record + "}}\n");
}

void EnvironmentLog::init_start(const std::string& runtime_version) {
  const std::string arn = version_->runtime_version_arn();
  if (!json()) write("INIT_START Runtime Version: " + runtime_version + "\tRuntime Version ARN: " + arn + "\n");
  event(Level::kInfo, "platform.initStart",
        member("initializationType", initialization_type_) + "," + member("phase", "init") + "," +
            member("runtimeVersion", runtime_version) + "," + member("runtimeVersionArn", arn) + "," +
            member("functionName", version_->function_name) + "," + member("functionVersion", version_->version));
}

void EnvironmentLog::init_report(base::Duration init, std::string_view phase, std::string_view status, std::string_view error_type) {
  if (!json()) {
    std::string line = "INIT_REPORT Init Duration: " + ms(init) + " ms\tPhase: " + std::string(phase) + "\tStatus: " + std::string(status);
    if (!error_type.empty()) line += "\tError Type: " + std::string(error_type);
    write(line + "\n");
  }
  std::string record = member("initializationType", initialization_type_) + "," + member("phase", phase) + "," + member("status", status);
  if (!error_type.empty()) record += "," + member("errorType", error_type);
  event(Level::kWarning, "platform.initReport", record + ",\"metrics\":{\"durationMs\":" + decimal(base::to_ms(init), 3) + "}");
}

void EnvironmentLog::init_runtime_done(std::string_view phase, std::string_view status) {
  if (telemetry_ == nullptr) return;
  const std::string record =
      member("initializationType", initialization_type_) + "," + member("phase", phase) + "," + member("status", status);
  telemetry_->platform("platform.initRuntimeDone", "{" + record + "}", Telemetry::Audience::kTelemetryOnly);
}

void EnvironmentLog::init_succeeded(base::Duration init, std::string_view phase) {
  if (telemetry_ == nullptr) return;
  const std::string record = member("initializationType", initialization_type_) + "," + member("phase", phase) + "," +
                             member("status", "success") + ",\"metrics\":{\"durationMs\":" + decimal(base::to_ms(init), 3) + "}";
  telemetry_->platform("platform.initReport", "{" + record + "}", Telemetry::Audience::kTelemetryOnly);
}

void EnvironmentLog::extension(const std::string& name, std::string_view state, const std::vector<std::string>& events,
                               std::string_view error_type) {
  std::string words, list;
  for (const std::string& each : events) {
    words += (words.empty() ? "" : ", ") + each;
    list += (list.empty() ? "" : ",") + base::json_quote(each);
  }
  if (!json()) {
    const std::string error = error_type.empty() ? std::string() : "\tError Type: " + std::string(error_type);
    write("EXTENSION\tName: " + name + "\tState: " + std::string(state) + "\tEvents: [" + words + "]" + error + "\n");
  }
  std::string record = member("name", name) + "," + member("state", state) + ",\"events\":[" + list + "]";
  if (!error_type.empty()) record += "," + member("errorType", error_type);
  event(error_type.empty() ? Level::kInfo : Level::kWarning, "platform.extension", record);
}

void EnvironmentLog::subscribed(const Subscription& subscription) {
  const bool logs = subscription.api == TelemetryApi::kLogs;
  std::string words, list;
  for (std::string each : subscription.types) {
    list += (list.empty() ? "" : ",") + base::json_quote(each);
    each.front() = static_cast<char>(each.front() - 'a' + 'A');
    words += (words.empty() ? "" : ", ") + each;
  }
  const std::string name = base::valid_utf8(subscription.extension);
  if (json()) {
    const std::string record = member("name", name) + "," + member("state", "Subscribed") + ",\"types\":[" + list + "]";
    return log_event(Level::kInfo, logs ? "platform.logsSubscription" : "platform.telemetrySubscription", record);
  }
  write(std::string(logs ? "LOGS" : "TELEMETRY") + "\tName: " + name + "\tState: Subscribed\tTypes: [" + words + "]\n");
}

void EnvironmentLog::start(const std::string& request_id, const std::string& trace_id) {
  init_tail_.reset();
  if (many_) running_.insert(request_id);
  if (!json()) {
    std::string line;
    line.reserve(96);
    line.append("START RequestId: ").append(request_id).append(" Version: ").append(version_->version).append("\n");
    write(std::move(line));
  }
  if (!has_events()) return;
  event(Level::kInfo, "platform.start", member("requestId", request_id) + "," + member("version", version_->version) + tracing(trace_id));
}

void EnvironmentLog::end(const std::string& request_id) {
  if (!json()) {
    std::string line;
    line.reserve(64);
    line.append("END RequestId: ").append(request_id).append("\n");
    write(std::move(line));
  }
  if (telemetry_ != nullptr && telemetry_->listening())
    telemetry_->platform("platform.end", "{" + member("requestId", request_id) + "}", Telemetry::Audience::kLogsOnly);
}

void EnvironmentLog::report_runtime_done(const std::string& request_id, const ReportFigures& figures) {
  const bool well = figures.status == "success";
  std::string record = member("requestId", request_id) + "," + member("status", figures.status);
  if (!well && !figures.error_type.empty()) record += "," + member("errorType", figures.error_type);
  const double run = base::to_ms(figures.run);
  std::string metrics = "\"durationMs\":" + decimal(run, 3);
  if (figures.latency) {
    const double latency = std::min(base::to_ms(*figures.latency), run);
    const base::WallTime began = clock_.wall_now() - std::chrono::duration_cast<std::chrono::microseconds>(figures.run);
    const base::WallTime answered = began + std::chrono::microseconds(static_cast<std::int64_t>(latency * 1000));
    const auto span = [](std::string_view name, base::WallTime start, double duration) {
      return "{" + member("name", name) + "," + member("start", base::format_iso_ms(start)) + ",\"durationMs\":" + decimal(duration, 3) +
             "}";
    };
    record += ",\"spans\":[" + span("responseLatency", began, latency) + "," + span("responseDuration", answered, run - latency) + "]";
    metrics += ",\"producedBytes\":" + std::to_string(figures.produced_bytes);
  }
  event(well ? Level::kDebug : Level::kWarning, "platform.runtimeDone",
        record + tracing(figures.trace_id) + ",\"metrics\":{" + metrics + "}");
}

void EnvironmentLog::report(const std::string& request_id, const ReportFigures& figures) {
  const std::uint32_t memory_mb = version_->config.memory_mb;
  const bool well = figures.status == "success";
  if (has_events()) report_runtime_done(request_id, figures);
  if (!json()) {
    std::string line;
    line.reserve(256);
    line.append("REPORT RequestId: ").append(request_id).append("\tDuration: ").append(ms(figures.run));
    line.append(" ms\tBilled Duration: ").append(whole_ms(figures.billed)).append(" ms\tMemory Size: ");
    line.append(std::to_string(memory_mb)).append(" MB\tMax Memory Used: ").append(megabytes(figures.memory_peak)).append(" MB\t");
    if (figures.init) line.append("Init Duration: ").append(ms(*figures.init)).append(" ms\t");
    if (!well) line.append("Status: ").append(figures.status).append("\t");
    if (!well && !figures.error_type.empty()) line.append("Error Type: ").append(figures.error_type).append("\t");
    write(std::move(line.append("\n")));
  }
  if (has_events()) report_event(request_id, figures);
  running_.erase(request_id);
}

void EnvironmentLog::report_event(const std::string& request_id, const ReportFigures& figures) {
  const bool well = figures.status == "success";
  std::string metrics = "\"durationMs\":" + decimal(base::to_ms(figures.run), 3) + ",\"billedDurationMs\":" + whole_ms(figures.billed) +
                        ",\"memorySizeMB\":" + std::to_string(version_->config.memory_mb) +
                        ",\"maxMemoryUsedMB\":" + megabytes(figures.memory_peak);
  if (figures.init) metrics += ",\"initDurationMs\":" + decimal(base::to_ms(*figures.init), 3);
  const std::string error = well || figures.error_type.empty() ? "" : "," + member("errorType", figures.error_type);
  const std::string request = member("requestId", request_id);
  const std::string status = "," + member("status", figures.status) + error;
  event(well ? Level::kInfo : Level::kWarning, "platform.report",
        request + ",\"metrics\":{" + metrics + "}" + status + tracing(figures.trace_id));
}

void EnvironmentLog::timed_out(const std::string& request_id, base::Duration allowed) {
  if (json()) return;  // the status of platform.report says it
  write(base::format_iso_ms(clock_.wall_now()) + " " + request_id + " Task timed out after " + decimal(base::to_ms(allowed) / 1000.0, 2) +
        " seconds\n");
}

void EnvironmentLog::process_ended(const std::string& request_id, std::string_view text, std::string_view error_type) {
  const std::string who = request_id.empty() ? std::string() : "RequestId: " + request_id + " ";
  if (telemetry_ != nullptr)
    telemetry_->platform("platform.fault", base::json_quote(who + std::string(text)), Telemetry::Audience::kLogsOnly);
  if (!json()) return write(who + "Error: " + std::string(text) + "\n" + std::string(error_type) + "\n");
  std::string line = "{" + member("timestamp", base::format_iso_ms(clock_.wall_now())) + ",\"level\":\"ERROR\"," + member("message", text) +
                     "," + member("errorType", error_type);
  if (!request_id.empty()) line += "," + member("requestId", request_id);
  write(line + "}\n");
}

void EnvironmentLog::note(const std::string& text) {
  if (!json()) return write("MAYFLY " + text + "\n");
  write("{" + member("timestamp", base::format_iso_ms(clock_.wall_now())) + ",\"level\":\"WARN\"," + member("message", text) + "}\n");
}

void EnvironmentLog::function_message(std::string message, std::optional<base::WallTime> time) { write(std::move(message), time); }

}  // namespace mayfly::runtime
