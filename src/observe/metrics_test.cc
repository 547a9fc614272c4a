#include "observe/metrics.h"

#include <gtest/gtest.h>

namespace mayfly::observe {
namespace {

engine::InvocationRecord record(std::string_view function, engine::OutcomeKind kind = engine::OutcomeKind::kSuccess,
                                std::string_view error_type = "") {
  engine::InvocationRecord made;
  made.function_name = function;
  made.kind = kind;
  made.error_type = error_type;
  made.timings.run = std::chrono::milliseconds(3);
  made.billed = std::chrono::milliseconds(4);
  return made;
}

bool has(const std::string& text, const std::string& line) { return text.find(line + "\n") != std::string::npos; }

TEST(MetricsTest, InvocationsAreCountedByFunctionAndOutcome) {
  Metrics metrics;
  metrics.on_invocation(record("f"));
  metrics.on_invocation(record("f"));
  metrics.on_invocation(record("f", engine::OutcomeKind::kFunctionError, "Sandbox.Timedout"));
  metrics.on_invocation(record("f", engine::OutcomeKind::kRefused, "TooManyRequestsException"));
  const std::string text = metrics.open_metrics();
  EXPECT_TRUE(has(text, "mayfly_invocations_total{function=\"f\",outcome=\"success\"} 2")) << text;
  EXPECT_TRUE(has(text, "mayfly_invocations_total{function=\"f\",outcome=\"error\"} 1"));
  EXPECT_TRUE(has(text, "mayfly_invocations_total{function=\"f\",outcome=\"refused\"} 1"));
  EXPECT_TRUE(has(text, "mayfly_timeouts_total{function=\"f\"} 1"));
  EXPECT_TRUE(has(text, "mayfly_throttles_total{function=\"f\"} 1"));
}

TEST(MetricsTest, DurationsFillCumulativeBucketsAndRefusedOnesDoNotRun) {
  Metrics metrics;
  metrics.on_invocation(record("f"));
  metrics.on_invocation(record("f", engine::OutcomeKind::kRefused));
  const std::string text = metrics.open_metrics();
  EXPECT_TRUE(has(text, "mayfly_run_seconds_bucket{function=\"f\",le=\"0.0025\"} 0")) << text;
  EXPECT_TRUE(has(text, "mayfly_run_seconds_bucket{function=\"f\",le=\"0.005\"} 1"));
  EXPECT_TRUE(has(text, "mayfly_run_seconds_bucket{function=\"f\",le=\"+Inf\"} 1"));
  EXPECT_TRUE(has(text, "mayfly_run_seconds_count{function=\"f\"} 1"));
}

TEST(MetricsTest, FunctionNamesBeyondTheCapCountAsOther) {
  Metrics metrics({.functions_max = 2, .operations_max = 10});
  for (const char* name : {"a", "b", "c", "d"}) metrics.on_invocation(record(name));
  const std::string text = metrics.open_metrics();
  EXPECT_TRUE(has(text, "mayfly_invocations_total{function=\"b\",outcome=\"success\"} 1"));
  EXPECT_TRUE(has(text, "mayfly_invocations_total{function=\"other\",outcome=\"success\"} 2")) << text;
  EXPECT_EQ(text.find("function=\"c\""), std::string::npos);
}

TEST(MetricsTest, HttpRequestsBeyondTheCapCountAsOther) {
  Metrics metrics({.functions_max = 2, .operations_max = 1});
  metrics.on_http_request("lambda", "Invoke", 200, std::chrono::milliseconds(1));
  metrics.on_http_request("lambda", "Made\"Up\n", 404, std::chrono::milliseconds(1));
  const std::string text = metrics.open_metrics();
  EXPECT_TRUE(has(text, "mayfly_http_requests_total{service=\"lambda\",operation=\"Invoke\",status=\"200\"} 1")) << text;
  EXPECT_TRUE(has(text, "mayfly_http_requests_total{service=\"other\",operation=\"other\",status=\"400\"} 1"));
}

TEST(MetricsTest, GaugesAreReadAtEachScrapeAndTheTextEndsAsOpenMetricsWants) {
  Metrics metrics;
  double idle = 1;
  metrics.add_gauge("environments", "Environments by state.", "state=\"idle\"", [&idle] { return idle; });
  metrics.add_counter("log_events_dropped", "Log events dropped.", "", [] { return 7.0; });
  idle = 3;
  const std::string text = metrics.open_metrics();
  EXPECT_TRUE(has(text, "mayfly_environments{state=\"idle\"} 3")) << text;
  EXPECT_TRUE(has(text, "mayfly_log_events_dropped_total 7"));
  EXPECT_TRUE(text.ends_with("# EOF\n"));
}

}  // namespace
}  // namespace mayfly::observe
