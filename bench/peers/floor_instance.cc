// Instance of bench_floor in C++: answers every frame at descriptor 3 with the same one.
#include <unistd.h>

#include <cstring>
#include <string_view>

int main() {
  constexpr std::string_view kAnswer = "{\"ok\":\"echo\"}";
  char frame[8 + kAnswer.size()];
  const unsigned head[2] = {kAnswer.size(), 1};
  std::memcpy(frame, head, 8);
  std::memcpy(frame + 8, kAnswer.data(), kAnswer.size());
  char bytes[65536];
  while (read(3, bytes, sizeof bytes) > 0) {
    if (write(3, frame, sizeof frame) < 0) return 1;
  }
}
