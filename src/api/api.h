// The management door: every AWS API that Mayfly speaks, on one endpoint, and the data door inside environments. Parses,
// authenticates, authorises and translates; decides nothing that the engine or the registry should decide.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "access/access.h"
#include "base/time.h"
#include "base/worker_pool.h"
#include "engine/dispatcher.h"
#include "engine/invocation.h"
#include "engine/layers.h"
#include "engine/registry.h"
#include "net/http_server.h"
#include "observe/log_store.h"
#include "observe/metrics.h"
#include "services/buckets.h"
#include "services/roles.h"

namespace mayfly::events {
class EventSourceMappings;
}

namespace mayfly::api {

// What the doors stand on. Everything is owned by the composition root and outlives the handlers. One context for each event
// loop (its invoker is that loop's); the other parts are shared between loops.
struct ApiContext {
  engine::FunctionRegistry& registry;
  engine::CodeStore& code;
  engine::LayerRegistry& layers;
  engine::Invoker& invoker;  // called on the loop's thread only
  access::CredentialStore& credentials;
  services::Roles& roles;
  observe::LogStore& logs;
  observe::Metrics& metrics;
  base::WorkerPool& pool;  // for everything that blocks: registry changes, log reads, code downloads
  const base::Clock& clock;

  events::EventSourceMappings* event_source_mappings = nullptr;  // null: their operations are refused
  // What S3 stands on, with a pool of its own for the bytes of objects; null: this endpoint does not provide S3.
  services::Buckets* buckets = nullptr;
  base::WorkerPool* object_pool = nullptr;

  std::uint32_t concurrency_max = 1000;  // of the account, for GetAccountSettings
  // Longest waits before a function runs; with its Timeout they make the deadline of an invocation.
  base::Duration queue_budget = std::chrono::seconds(10);
  base::Duration start_budget = std::chrono::seconds(30);
  // Whether functions of a runtime can be run here, asked when one is made or changed; empty: no further check. Blocking.
  std::function<base::Result<void>(const std::string& runtime)> check_runtime = {};
  // Provisioned environments of one version as they are now, for GetProvisionedConcurrencyConfig. Blocking: on the pool. Empty: none.
  std::function<engine::ProvisionedStatus(const std::string& name, const std::string& version)> provisioned_status = {};
  // Whether an environment of the version initialises, for aliases that wait for it. Blocking: on the pool. Empty: nothing is tried.
  std::function<base::Result<void>(const engine::VersionPtr& version)> try_init = {};
  // Mayfly's own pages for its CLI, signed like every call (service name "mayfly"): the JSON text at `path`, none where there is nothing.
  // On the pool.
  std::function<std::optional<std::string>(std::string_view path)> page = {};
  // The address of a function URL by its id. Any thread.
  std::function<std::string(const std::string& url_id)> function_url = [](const std::string& id) { return "http://" + id + ".localhost/"; };
  // A whole object of a bucket, for code that a request names in S3; its error is the one the request is answered with. Blocking;
  // empty: no code from S3.
  std::function<base::Result<std::string>(const std::string& bucket, const std::string& key, const std::string& version)> read_object = {};
  // What /readyz asks: the store answers, the launcher lives. Called on the pool; empty: always ready.
  std::function<base::Result<void>()> ready = {};
};

// The handler of the API port: signed AWS requests, and without signature only GET /healthz, /readyz and /metrics.
// `context` must outlive the handler.
[[nodiscard]] net::Handler management_handler(ApiContext& context);

// The handler of one environment's data listener: requests signed with the environment's own temporary key `access_key` and
// nothing else; data calls only (lambda Invoke and InvokeWithResponseStream, sts GetCallerIdentity, reading logs, S3 objects); never
// management, operator pages or code downloads.
[[nodiscard]] net::Handler data_handler(ApiContext& context, std::string access_key);

}  // namespace mayfly::api
