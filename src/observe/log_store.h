// LogStore: where environments' log lines go, kept by store::LogSegments.
#pragma once

#include <string>

#include "base/time.h"
#include "engine/invocation.h"
#include "store/log_segments.h"

namespace mayfly::observe {

// Threads: any; append() never blocks. `segments` must outlive it.
class LogStore final : public engine::LogWriter {
 public:
  explicit LogStore(store::LogSegments& segments) : segments_(segments) {}
  void append(const std::string& group, const std::string& stream, base::WallTime time, std::string message) override;
  // For reading (blocking).
  [[nodiscard]] store::LogSegments& segments() const { return segments_; }

 private:
  store::LogSegments& segments_;
};

}  // namespace mayfly::observe
