// The S3 operations that move bytes of any size: PutObject, UploadPart and GetObject. On the loop; what blocks goes to the pool,
// piece by piece, so a transfer holds about kTransferHeldBytes in memory whatever its size.
#pragma once

#include <string>

#include "api/s3/request.h"
#include "base/result.h"
#include "base/worker_pool.h"
#include "net/http_server.h"
#include "net/sigv4.h"
#include "net/task.h"
#include "services/buckets.h"

namespace mayfly::api::s3 {

inline constexpr std::uint64_t kTransferHeldBytes = 2U << 20U;

struct Transfer {
  services::Buckets& buckets;
  base::WorkerPool& pool;
  net::Exchange& exchange;
  const Request& request;
  const net::SignatureClaim& claim;  // verified
  const std::string& secret_key;     // for the signatures of chunks
};

// Takes the body in and stores it; the answer to send.
[[nodiscard]] net::Awaitable<base::Result<net::Response>> receive(Transfer transfer);
// Copies an object or a part, in pieces of which each takes its turn on the pool, and ends when the peer goes away; the answer to send.
// The request's body has been read.
[[nodiscard]] net::Awaitable<base::Result<net::Response>> copy(Transfer transfer);
// Sends an object or a part of it, with `headers` beside its own; tells the status.
struct Sent {
  int status = 0;
};
[[nodiscard]] net::Awaitable<base::Result<Sent>> send(Transfer transfer, net::Headers headers);

// Runs `work` on `pool`. SlowDown when the pool has too much to do.
[[nodiscard]] net::Awaitable<base::Result<void>> on_pool(base::WorkerPool& pool, std::function<base::Result<void>()> work);

}  // namespace mayfly::api::s3
