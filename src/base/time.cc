#include "base/time.h"

#include <array>
#include <chrono>

namespace mayfly::base {
namespace {

class SystemClock final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const override { return std::chrono::steady_clock::now(); }
  [[nodiscard]] WallTime wall_now() const override {
    return std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now());
  }
};

// Date and time of day in UTC. By hand: strftime costs a hundred times the arithmetic, and every signed request needs two dates.
struct Civil {
  std::chrono::year_month_day date;
  std::chrono::weekday weekday;
  std::chrono::hh_mm_ss<std::chrono::milliseconds> time;
};

Civil civil_time(WallTime time) {
  const auto ms = std::chrono::floor<std::chrono::milliseconds>(time);
  const auto day = std::chrono::floor<std::chrono::days>(ms);
  return {.date = day, .weekday = day, .time = std::chrono::hh_mm_ss<std::chrono::milliseconds>(ms - day)};
}

// Appends `value` in `digits` digits, at most 4.
void append_digits(std::string& text, std::int64_t value, std::size_t digits) {
  std::array<char, 4> last{};
  auto left = static_cast<std::uint32_t>(value);
  for (std::size_t i = last.size(); i-- > 0; left /= 10) last[i] = static_cast<char>('0' + left % 10);
  text.append(last.data() + (last.size() - digits), digits);
}

void append_date(std::string& text, const Civil& civil, std::string_view separator) {
  append_digits(text, static_cast<int>(civil.date.year()), 4);
  text += separator;
  append_digits(text, static_cast<unsigned>(civil.date.month()), 2);
  text += separator;
  append_digits(text, static_cast<unsigned>(civil.date.day()), 2);
}

void append_time(std::string& text, const Civil& civil, std::string_view separator) {
  append_digits(text, civil.time.hours().count(), 2);
  text += separator;
  append_digits(text, civil.time.minutes().count(), 2);
  text += separator;
  append_digits(text, civil.time.seconds().count(), 2);
}

std::string format_with_ms(WallTime time, const char* suffix) {
  const Civil civil = civil_time(time);
  std::string text;
  text.reserve(32);
  append_date(text, civil, "-");
  text += 'T';
  append_time(text, civil, ":");
  text += '.';
  append_digits(text, civil.time.subseconds().count(), 3);
  return text += suffix;
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
std::string format_amz_date(WallTime time) {
  const Civil civil = civil_time(time);
  std::string text;
  text.reserve(16);
  append_date(text, civil, "");
  text += 'T';
  append_time(text, civil, "");
  return text += 'Z';
}

std::string format_http_date(WallTime time) {
  constexpr std::string_view kDays = "SunMonTueWedThuFriSat";
  constexpr std::string_view kMonths = "JanFebMarAprMayJunJulAugSepOctNovDec";
  const Civil civil = civil_time(time);
  std::string text;
  text.reserve(32);
  text.append(kDays.substr(3 * civil.weekday.c_encoding(), 3)).append(", ");
  append_digits(text, static_cast<unsigned>(civil.date.day()), 2);
  text.append(" ").append(kMonths.substr(3 * (static_cast<unsigned>(civil.date.month()) - 1), 3)).append(" ");
  append_digits(text, static_cast<int>(civil.date.year()), 4);
  text += ' ';
  append_time(text, civil, ":");
  return text += " GMT";
}

std::string format_log_date(WallTime time) {
  std::string text;
  append_date(text, civil_time(time), "/");
  return text;
}

Result<WallTime> parse_amz_date(std::string_view text) {
  const auto bad = [&] {
    return Error(ErrorCode::kInvalidArgument, "\"" + std::string(text) + "\" is not a date of the form YYYYMMDDThhmmssZ");
  };
  if (text.size() != 16 || text[8] != 'T' || text[15] != 'Z') return bad();
  const auto number = [&](std::size_t at, std::size_t count) {
    int value = 0;
    for (std::size_t i = at; i < at + count; ++i) {
      if (text[i] < '0' || text[i] > '9') return -1;
      value = value * 10 + (text[i] - '0');
    }
    return value;
  };
  const int year = number(0, 4), month = number(4, 2), day = number(6, 2), hour = number(9, 2), minute = number(11, 2),
            second = number(13, 2);
  if (year < 1900 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 ||
      second > 60) {
    return bad();
  }
  // A day that the month lacks is one of the next month, as timegm() has it.
  const std::chrono::sys_days first = std::chrono::year(year) / month / 1;
  return WallTime(first + std::chrono::days(day - 1) + std::chrono::hours(hour) + std::chrono::minutes(minute) +
                  std::chrono::seconds(second));
}

}  // namespace mayfly::base
