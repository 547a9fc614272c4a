#include "base/time.h"

#include <array>
#include <cstdio>
#include <ctime>

namespace mayfly::base {
namespace {

class SystemClock final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const override { return std::chrono::steady_clock::now(); }
  [[nodiscard]] WallTime wall_now() const override {
    return std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
  }
};

struct Civil {
  std::tm tm;
  int ms;
};

Civil civil_time(WallTime time) {
  const auto us = time.time_since_epoch().count();
  const auto seconds = us >= 0 ? us / 1'000'000 : -((-us + 999'999) / 1'000'000);
  Civil civil{};
  const auto unix_seconds = static_cast<std::time_t>(seconds);
  gmtime_r(&unix_seconds, &civil.tm);
  civil.ms = static_cast<int>((us - seconds * 1'000'000) / 1000);
  return civil;
}

std::string format(const char* pattern, WallTime time) {
  const Civil civil = civil_time(time);
  std::array<char, 64> buffer{};
  const std::size_t size = std::strftime(buffer.data(), buffer.size(), pattern, &civil.tm);
  return {buffer.data(), size};
}

std::string format_with_ms(WallTime time, const char* suffix) {
  const Civil civil = civil_time(time);
  std::array<char, 64> buffer{};
  const int size = std::snprintf(buffer.data(), buffer.size(), "%04d-%02d-%02dT%02d:%02d:%02d.%03d%s", civil.tm.tm_year + 1900,
                                 civil.tm.tm_mon + 1, civil.tm.tm_mday, civil.tm.tm_hour, civil.tm.tm_min, civil.tm.tm_sec, civil.ms, suffix);
  return {buffer.data(), static_cast<std::size_t>(size)};
}

}  // namespace

const Clock& system_clock() {
  static const SystemClock clock;
  return clock;
}

std::int64_t epoch_ms(WallTime time) { return time.time_since_epoch().count() / 1000; }
WallTime wall_from_epoch_ms(std::int64_t ms) { return WallTime(std::chrono::microseconds(ms * 1000)); }
double to_ms(Duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }

std::string format_iso_ms(WallTime time) { return format_with_ms(time, "Z"); }
std::string format_lambda_time(WallTime time) { return format_with_ms(time, "+0000"); }
std::string format_amz_date(WallTime time) { return format("%Y%m%dT%H%M%SZ", time); }
std::string format_http_date(WallTime time) { return format("%a, %d %b %Y %H:%M:%S GMT", time); }
std::string format_log_date(WallTime time) { return format("%Y/%m/%d", time); }

Result<WallTime> parse_amz_date(std::string_view text) {
  const auto bad = [&] { return Error(ErrorCode::kInvalidArgument, "\"" + std::string(text) + "\" is not a date of the form YYYYMMDDThhmmssZ"); };
  if (text.size() != 16 || text[8] != 'T' || text[15] != 'Z') return bad();
  const auto number = [&](std::size_t at, std::size_t count) {
    int value = 0;
    for (std::size_t i = at; i < at + count; ++i) {
      if (text[i] < '0' || text[i] > '9') return -1;
      value = value * 10 + (text[i] - '0');
    }
    return value;
  };
  std::tm tm{};
  tm.tm_year = number(0, 4) - 1900;
  tm.tm_mon = number(4, 2) - 1;
  tm.tm_mday = number(6, 2);
  tm.tm_hour = number(9, 2);
  tm.tm_min = number(11, 2);
  tm.tm_sec = number(13, 2);
  if (tm.tm_year < 0 || tm.tm_mon < 0 || tm.tm_mon > 11 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour < 0 || tm.tm_hour > 23 ||
      tm.tm_min < 0 || tm.tm_min > 59 || tm.tm_sec < 0 || tm.tm_sec > 60) {
    return bad();
  }
  return WallTime(std::chrono::seconds(timegm(&tm)));
}

}  // namespace mayfly::base
