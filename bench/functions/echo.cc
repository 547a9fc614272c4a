// The benchmark's C++ function: answers a constant.
#include "mayfly_lambda.h"

int main() {
  return mayfly::run([](const mayfly::Request&, const mayfly::Context&) { return mayfly::Response::json("{\"ok\":\"echo\"}"); });
}
