#include "observe/log_store.h"

namespace mayfly::observe {

void LogStore::append(const std::string& group, const std::string& stream, base::WallTime time, std::string message) {
  segments_.append(group, stream, base::epoch_ms(time), std::move(message));
}

}  // namespace mayfly::observe
