// A C++ function that waits 100 ms, as one that calls something else does.
#include <chrono>
#include <thread>

#include "mayfly_lambda.h"

int main() {
  return mayfly::run([](const mayfly::Request&, const mayfly::Context&) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return mayfly::Response::json("{\"ok\":\"waited\"}");
  });
}
