#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "base/json.h"
#include "base/time.h"

namespace mayfly::base {
namespace {

LogFormat g_format = LogFormat::kText;  // written once before threads start

spdlog::logger& logger() {
  static const auto instance = [] {
    auto made = std::make_shared<spdlog::logger>("mayfly", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern("%v");
    made->flush_on(spdlog::level::debug);
    return made;
  }();
  return *instance;
}

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarning: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
  }
  return spdlog::level::err;
}

std::string_view level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return "debug";
    case LogLevel::kInfo: return "info";
    case LogLevel::kWarning: return "warning";
    case LogLevel::kError: return "error";
  }
  return "error";
}

bool is_plain(std::string_view text) {
  if (text.empty()) return false;
  for (const char c : text) {
    if (c <= ' ' || c == '"' || c == '\\' || c == '=' || static_cast<unsigned char>(c) >= 0x7F) return false;
  }
  return true;
}

}  // namespace

void configure_log(LogLevel level, LogFormat format) {
  g_format = format;
  logger().set_level(spdlog_level(level));
}

void log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) {
  if (!logger().should_log(spdlog_level(level))) return;
  const std::string time = format_iso_ms(system_clock().wall_now());
  std::string line;
  if (g_format == LogFormat::kJson) {
    line = "{\"time\":\"" + time + "\",\"level\":\"" + std::string(level_name(level)) + "\",\"message\":" + json_quote(message);
    for (const auto& [key, value] : fields) line += "," + json_quote(key) + ":" + json_quote(value);
    line += '}';
  } else {
    line = time + ' ' + std::string(level_name(level)) + ' ' + (message.find_first_of("\r\n\x1b") == std::string_view::npos ? std::string(message) : json_quote(message));
    for (const auto& [key, value] : fields) {
      line += ' ';
      line += key;
      line += '=';
      line += is_plain(value) ? value : json_quote(value);
    }
  }
  logger().log(spdlog_level(level), line);
}

}  // namespace mayfly::base
