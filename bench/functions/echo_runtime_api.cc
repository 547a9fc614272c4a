// The benchmark's C++ function kept to the Runtime API, as a function built for AWS is: it forgets the descriptors of Mayfly's own
// protocol before the client looks for them.
#include <cstdlib>

#include "mayfly_lambda.h"

int main() {
  unsetenv("_MAYFLY_CONTROL_FDS");
  return mayfly::run([](const mayfly::Request&, const mayfly::Context&) { return mayfly::Response::json("{\"ok\":\"echo\"}"); });
}
