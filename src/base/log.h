// The program's own log (not the functions'): structured lines on standard error. Safe from every thread.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace mayfly::base {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

// Sets what is written, once at start before other threads run. Default: kInfo, kText.
void configure_log(LogLevel level, LogFormat format);

// A value is escaped on output: control characters, quotes and ESC cannot forge a line or a field.
using LogField = std::pair<std::string_view, std::string>;
void log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields = {});

inline void log_debug(std::string_view message, std::initializer_list<LogField> fields = {}) { log(LogLevel::kDebug, message, fields); }
inline void log_info(std::string_view message, std::initializer_list<LogField> fields = {}) { log(LogLevel::kInfo, message, fields); }
inline void log_warning(std::string_view message, std::initializer_list<LogField> fields = {}) { log(LogLevel::kWarning, message, fields); }
inline void log_error(std::string_view message, std::initializer_list<LogField> fields = {}) { log(LogLevel::kError, message, fields); }

}  // namespace mayfly::base
