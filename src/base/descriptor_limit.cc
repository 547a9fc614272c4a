#include "base/descriptor_limit.h"

#include <sys/resource.h>

namespace mayfly::base {

void raise_descriptor_limit() {
  constexpr rlim_t kWanted = 1U << 20U;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  for (rlim_t most = kWanted; most > limit.rlim_max; most /= 2) {  // fs.nr_open may be lower
    const rlimit raised{.rlim_cur = most, .rlim_max = most};
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) return;
  }
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace mayfly::base
