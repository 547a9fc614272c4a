#include "mayfly_lambda.h"

// Answers a greeting to {"name": ...}.
static mayfly::Response handle(const mayfly::Request& request, const mayfly::Context& context) {
  const std::string name = mayfly::json_field(request.event, "name").value_or("world");
  std::fprintf(stderr, "greeting %s, %lld ms left\n", name.c_str(), static_cast<long long>(context.remaining_ms()));
  return mayfly::Response::json("{\"message\": " + mayfly::json_quote("Hello, " + name + "!") +
                                ", \"request_id\": " + mayfly::json_quote(context.request_id) + "}");
}

int main() { return mayfly::run(handle); }
