#include "runtime/environment_log.h"

#include <gtest/gtest.h>

#include "base/json.h"

namespace mayfly::runtime {
namespace {

using namespace std::chrono_literals;

engine::VersionPtr make_version(const std::string& runtime = "python3.11") {
  auto version = std::make_shared<engine::FunctionVersion>();
  version->function_name = "f";
  version->version = "$LATEST";
  version->config.runtime = runtime;
  version->config.handler = "app.handler";
  version->config.log_group = "/aws/lambda/f";
  return version;
}

struct Writer final : engine::LogWriter {
  void append(const std::string& group, const std::string& stream, base::WallTime, std::string message) override {
    EXPECT_EQ(group, "/aws/lambda/f");
    EXPECT_FALSE(stream.empty());
    lines.push_back(std::move(message));
  }
  std::vector<std::string> lines;
};

TEST(EnvironmentLog, WritesAwsLinesInText) {
  Writer writer;
  base::ManualClock clock;
  EnvironmentLog log(writer, clock, make_version(), "s");
  log.start("r1");
  log.function_message("hello\n", std::nullopt);
  log.timed_out("r1", 3s);
  log.end("r1");
  log.report(
      "r1",
      {.run = 1'234'567ns, .billed = 102ms, .init = 100'500us, .memory_peak = (30U << 20U) + 1, .status = "success", .error_type = ""});
  log.report("r1", {.run = 3s, .billed = 3s, .init = std::nullopt, .memory_peak = 1U << 20U, .status = "timeout", .error_type = ""});
  log.process_ended("r1", "Runtime exited with error: exit status 1", "Runtime.ExitError");
  log.init_report(9999ms, "init", "timeout", "");
  EXPECT_EQ(writer.lines[0], "START RequestId: r1 Version: $LATEST\n");
  EXPECT_EQ(writer.lines[1], "hello\n");
  EXPECT_EQ(writer.lines[2], "2026-01-01T00:00:00.000Z r1 Task timed out after 3.00 seconds\n");
  EXPECT_EQ(writer.lines[3], "END RequestId: r1\n");
  EXPECT_EQ(writer.lines[4],
            "REPORT RequestId: r1\tDuration: 1.23 ms\tBilled Duration: 102 ms\tMemory Size: 128 MB\tMax Memory Used: 31 MB\tInit Duration: "
            "100.50 ms\t\n");
  EXPECT_EQ(writer.lines[5],
            "REPORT RequestId: r1\tDuration: 3000.00 ms\tBilled Duration: 3000 ms\tMemory Size: 128 MB\tMax Memory Used: 1 MB\tStatus: "
            "timeout\t\n");
  EXPECT_EQ(writer.lines[6], "RequestId: r1 Error: Runtime exited with error: exit status 1\nRuntime.ExitError\n");
  EXPECT_EQ(writer.lines[7], "INIT_REPORT Init Duration: 9999.00 ms\tPhase: init\tStatus: timeout\n");
}

TEST(EnvironmentLog, WritesEventsInJsonThatParse) {
  Writer writer;
  base::ManualClock clock;
  auto version = std::make_shared<engine::FunctionVersion>(*make_version());
  version->config.log_format = "JSON";
  EnvironmentLog log(writer, clock, version, "s");
  log.init_start("python:3.11");
  log.start("r1");
  log.report("r1",
             {.run = 1ms, .billed = 2ms, .init = 1ms, .memory_peak = 1U << 20U, .status = "error", .error_type = "Runtime.ExitError"});
  log.process_ended("r1", "x", "Runtime.ExitError");
  for (const std::string& line : writer.lines)
    EXPECT_TRUE(base::check_json(std::string_view(line).substr(0, line.size() - 1)).ok()) << line;
  EXPECT_NE(writer.lines[1].find(R"("type":"platform.start","record":{"requestId":"r1","version":"$LATEST"})"), std::string::npos);
  EXPECT_NE(writer.lines[3].find(R"("billedDurationMs":2,"memorySizeMB":128,"maxMemoryUsedMB":1,"initDurationMs":1.000},"status":"error",)"
                                 R"("errorType":"Runtime.ExitError")"),
            std::string::npos)
      << writer.lines[3];
}

TEST(EnvironmentLog, KeepsTheLast4096BytesAsTail) {
  Writer writer;
  base::ManualClock clock;
  EnvironmentLog log(writer, clock, make_version(), "s");
  log.begin_tail("r1", EnvironmentLog::TailFrom::kHere);
  for (int i = 0; i < 3000; ++i) log.function_message("line " + std::to_string(i) + "\n", std::nullopt);
  const std::string tail = log.end_tail("r1");
  EXPECT_EQ(tail.size(), kTailBytes);
  EXPECT_TRUE(tail.ends_with("line 2999\n"));
  EXPECT_EQ(log.end_tail("r1"), "") << "once";
}

TEST(EnvironmentLog, TheFirstTailBeginsWithTheInitAndLaterOnesWithTheirOwnLines) {
  Writer writer;
  base::ManualClock clock;
  EnvironmentLog log(writer, clock, make_version(), "s");
  log.function_message("init\n", std::nullopt);
  log.begin_tail("r1", EnvironmentLog::TailFrom::kBeginning);
  log.start("r1");
  log.function_message("one", std::nullopt);
  EXPECT_EQ(log.end_tail("r1"), "init\nSTART RequestId: r1 Version: $LATEST\none\n");
  log.function_message("between", std::nullopt);
  log.begin_tail("r2", EnvironmentLog::TailFrom::kBeginning);
  log.function_message("two\n", std::nullopt);
  EXPECT_EQ(log.end_tail("r2"), "two\n");
}

TEST(EnvironmentLog, OfThoseThatRunAtTheSameTimeNoneGetsTheLinesThatNameAnother) {
  const std::string a = "11111111-aaaa-4bbb-8ccc-000000000001", b = "11111111-aaaa-4bbb-8ccc-000000000002";
  const std::string stranger = "11111111-aaaa-4bbb-8ccc-000000000003";
  Writer writer;
  base::ManualClock clock;
  EnvironmentLog log(writer, clock, make_version(), "s");
  log.expect_many();
  log.begin_tail(a, EnvironmentLog::TailFrom::kHere);
  log.start(a);
  log.begin_tail(b, EnvironmentLog::TailFrom::kHere);
  log.start(b);
  log.function_message("x\t" + a + "\tINFO\tof a\n", std::nullopt);
  log.function_message("{\"requestId\":\"" + b + "\",\"message\":\"of b\"}\n", std::nullopt);
  log.function_message("of nobody\n", std::nullopt);
  log.function_message("order " + stranger + "\n", std::nullopt);
  log.function_message("both " + a + " " + b + "\n", std::nullopt);
  log.end(b);
  log.report(b, {});
  const std::string of_a = log.end_tail(a), of_b = log.end_tail(b);
  for (const std::string* tail : {&of_a, &of_b}) {
    EXPECT_NE(tail->find("of nobody\n"), std::string::npos);
    EXPECT_NE(tail->find("order "), std::string::npos);
    EXPECT_NE(tail->find("both "), std::string::npos);
  }
  EXPECT_NE(of_a.find("of a\n"), std::string::npos);
  EXPECT_EQ(of_a.find("of b"), std::string::npos);
  EXPECT_EQ(of_a.find("END "), std::string::npos) << "nor the platform's lines of another";
  EXPECT_EQ(of_b.find("of a\n"), std::string::npos);
  EXPECT_NE(of_b.find("of b"), std::string::npos);
  EXPECT_NE(of_b.find("REPORT "), std::string::npos);
}

TEST(EnvironmentLog, NamesStreamsByDayVersionAndChance) {
  const std::string name = make_log_stream_name("$LATEST", base::ManualClock().wall_now());
  EXPECT_TRUE(name.starts_with("2026/01/01/[$LATEST]")) << name;
  EXPECT_EQ(name.size(), 20U + 32U);
}

}  // namespace
}  // namespace mayfly::runtime
