#include "sandbox/internal/process_title.h"

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include <cstdint>
#include <sstream>
#include <string>

#include "base/fd.h"

namespace mayfly::sandbox::internal {
namespace {

constexpr const char kTitle[] = "mayfly: launcher";
char* title = nullptr;

}  // namespace

void set_process_title() {
  (void)prctl(PR_SET_NAME, "mayfly-launcher", 0, 0, 0);
  const auto stat = base::read_file("/proc/self/stat");
  if (!stat.ok()) return;
  // Fields 48 to 51 (proc(5)): arg_start, arg_end, env_start, env_end. The second field may hold blanks and ends with the last ')'.
  std::istringstream fields(stat->substr(stat->rfind(')') + 1));
  std::string skipped;
  constexpr int kFieldsBetween = 45;
  for (int i = 0; i < kFieldsBetween; ++i) fields >> skipped;
  std::uintptr_t arguments = 0, arguments_end = 0, environment = 0, environment_end = 0;
  fields >> arguments >> arguments_end >> environment >> environment_end;
  const std::uintptr_t end = environment == arguments_end ? environment_end : arguments_end;
  if (!fields || arguments == 0 || end < arguments + sizeof kTitle) return;
  clearenv();
  auto* const area = reinterpret_cast<char*>(arguments);  // NOLINT(performance-no-int-to-ptr)
  memset(area, 0, end - arguments);
  // Without a NUL in the last place of the arguments the kernel reads on into the environment.
  memcpy(area, kTitle, sizeof kTitle);
  title = area;
}

char* process_title() { return title; }

}  // namespace mayfly::sandbox::internal
