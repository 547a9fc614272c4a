// A C++ function that computes for 5 ms of CPU time.
#include <ctime>

#include "mayfly_lambda.h"

namespace {

long cpu_time_us() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec * 1'000'000 + time.tv_nsec / 1'000;
}

}  // namespace

int main() {
  return mayfly::run([](const mayfly::Request&, const mayfly::Context&) {
    for (const long end = cpu_time_us() + 5'000; cpu_time_us() < end;) {
    }
    return mayfly::Response::json("{\"ok\":\"worked\"}");
  });
}
