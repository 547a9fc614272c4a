// A static C++ function: counts the primes up to a limit, the kind of work a small binary is good at.
#include <vector>

#include "mayfly_lambda.h"

static std::size_t count_primes(std::size_t limit) {
  std::vector<bool> composite(limit + 1);
  std::size_t count = 0;
  for (std::size_t n = 2; n <= limit; ++n) {
    if (composite[n]) continue;
    ++count;
    for (std::size_t multiple = n * n; multiple <= limit; multiple += n) composite[multiple] = true;
  }
  return count;
}

static mayfly::Response handle(const mayfly::Request& request, const mayfly::Context& context) {
  const std::string text = mayfly::json_field(request.event, "numbers").value_or("1000000");
  const unsigned long long limit = std::strtoull(text.c_str(), nullptr, 10);
  if (limit < 2 || limit > 100'000'000) {
    return mayfly::Response::failure("BadInput", "numbers must be between 2 and 100000000, not " + text);
  }
  const std::size_t primes = count_primes(limit);  // before the time left is read
  return mayfly::Response::json("{\"primes\": " + std::to_string(primes) +
                                ", \"ms_left\": " + std::to_string(context.remaining_ms()) + "}");
}

int main() { return mayfly::run(handle); }
