#include "events/event_source_mappings.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "events/internal/mapping_document.h"
#include "store/blobs.h"

namespace mayfly::events {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

const std::string kQueueArn = "arn:aws:sqs:us-east-1:000000000000:q";
const std::string kFifoArn = "arn:aws:sqs:us-east-1:000000000000:q.fifo";
const std::string kKinesisArn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
const std::string kTableArn = "arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/2026-01-01T00:00:00.000";
const std::string kClusterArn = "arn:aws:kafka:us-east-1:000000000000:cluster/c/1";
const std::string kBrokerArn = "arn:aws:mq:us-east-1:000000000000:broker:b:b-1";
const std::string kDocumentsArn = "arn:aws:rds:us-east-1:000000000000:cluster:docs";
const std::string kAccess = R"([{"Type":"BASIC_AUTH","URI":"arn:aws:secretsmanager:us-east-1:000000000000:secret:s"}])";

// Passes everything on, and fails the changes when told to.
class FallibleCatalogue final : public store::Catalogue {
 public:
  explicit FallibleCatalogue(std::unique_ptr<store::Catalogue> real) : real_(std::move(real)) {}
  Result<void> apply(const store::CatalogueChange& change) override {
    if (failing) return Error(ErrorCode::kResourceExhausted, "the disk is full");
    return real_->apply(change);
  }
  Result<void> each_function(const FunctionVisitor& visit) override { return real_->each_function(visit); }
  Result<std::vector<store::ResourceRow>> resources(const std::string& kind) override { return real_->resources(kind); }
  Result<std::string> setting(const std::string& key) override { return real_->setting(key); }
  Result<void> set_setting(const std::string& key, const std::string& value) override { return real_->set_setting(key, value); }
  Result<void> check() override { return real_->check(); }
  std::atomic<bool> failing = false;

 private:
  std::unique_ptr<store::Catalogue> real_;
};

class EventSourceMappingsTest : public ::testing::Test {
 protected:
  EventSourceMappingsTest() {
    std::string pattern = std::filesystem::temp_directory_path() / "mayfly-events-XXXXXX";
    directory_ = mkdtemp(pattern.data());
    catalogue_ = std::make_unique<FallibleCatalogue>(*store::open_catalogue(directory_ + "/catalogue.db"));
    blobs_ = *store::open_directory_blobs(directory_ + "/blobs");
    code_ = std::make_unique<engine::CodeStore>(
        *blobs_, [](const std::string&, base::UniqueFd) { return [] { return Result<std::uint64_t>(1); }; }, [](const std::string&) {});
    registry_ = *engine::FunctionRegistry::open(*catalogue_, *code_, engine::Account{}, clock_);
    make_function("f");
    open();
  }
  ~EventSourceMappingsTest() override { std::filesystem::remove_all(directory_); }

  void make_function(const std::string& name) {
    engine::FunctionConfig config;
    config.runtime = "python3.12";
    config.handler = "a.b";
    ASSERT_TRUE(registry_->create(name, config, "a zip", {}, true).ok());
  }
  void open() {
    mappings_.reset();
    auto opened = EventSourceMappings::open({.catalogue = *catalogue_, .registry = *registry_, .clock = clock_, .source_exists = exists_});
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    mappings_ = *std::move(opened);
  }
  static NewMapping from(const std::string& arn, MappingSettings settings = {}) {
    NewMapping wanted{.source = {.arn = arn}, .function = {.name = "f", .qualifier = ""}, .settings = std::move(settings)};
    if (arn == kKinesisArn || arn == kTableArn || arn == kClusterArn) wanted.source.starting_position = "LATEST";
    if (arn == kClusterArn) wanted.source.topic = "t";
    if (arn == kBrokerArn) wanted.source.queue = "q";
    if (arn == kBrokerArn || arn == kDocumentsArn) wanted.settings.others.emplace("SourceAccessConfigurations", kAccess);
    if (arn == kDocumentsArn) wanted.settings.others.emplace("DocumentDBEventSourceConfig", R"({"DatabaseName":"d"})");
    return wanted;
  }
  static NewMapping from_own_kafka() {
    NewMapping wanted = from("");
    wanted.source.bootstrap_servers = {"a.example:9092", "b.example:9092"};
    wanted.source.topic = "t";
    wanted.source.starting_position = "TRIM_HORIZON";
    wanted.settings.others.emplace("SourceAccessConfigurations", kAccess);
    return wanted;
  }
  EventSourceMapping made(const NewMapping& wanted) {
    auto created = mappings_->create(wanted);
    EXPECT_TRUE(created.ok()) << created.error().message();
    return created.ok() ? *created : EventSourceMapping();
  }
  // As a client that waits for the end of a change.
  EventSourceMapping settled(const NewMapping& wanted) {
    EventSourceMapping mapping = made(wanted);
    if (const MappingPtr shown = mappings_->find(mapping.uuid)) EventSourceMappings::observed(*shown);
    return mapping;
  }
  template <typename Answer>
  static void expect_error(const Result<Answer>& result, const std::string& type, const std::string& text) {
    ASSERT_FALSE(result.ok()) << text;
    EXPECT_EQ(result.error().id(), type) << result.error().message();
    EXPECT_EQ(result.error().message(), text);
  }
  template <typename Answer>
  static void expect_invalid(const Result<Answer>& result, const std::string& text) {
    expect_error(result, "InvalidParameterValueException", text);
  }

  std::string directory_;
  base::ManualClock clock_;
  std::unique_ptr<FallibleCatalogue> catalogue_;
  std::unique_ptr<store::Blobs> blobs_;
  std::unique_ptr<engine::CodeStore> code_;
  std::unique_ptr<engine::FunctionRegistry> registry_;
  std::function<Result<bool>(SourceKind, const std::string&)> exists_;
  std::unique_ptr<EventSourceMappings> mappings_;
};

// --- Defaults and state ---

TEST_F(EventSourceMappingsTest, EachKindOfSourceHasItsDefaults) {
  const MappingSettings queue = made(from(kQueueArn)).settings;
  EXPECT_EQ(queue.batch_size, 10U);
  EXPECT_EQ(queue.window_s, 0U);
  EXPECT_EQ(queue.reports_item_failures, false);
  EXPECT_FALSE(queue.retries_max || queue.parallelization_factor || queue.destinations || queue.filters || queue.concurrency_max);
  EXPECT_TRUE(queue.others.empty());
  for (const std::string& arn : {kKinesisArn, kTableArn}) {
    const MappingSettings stream = made(from(arn)).settings;
    EXPECT_EQ(stream.batch_size, 100U);
    EXPECT_EQ(stream.window_s, 0U);
    EXPECT_EQ(stream.parallelization_factor, 1U);
    EXPECT_EQ(stream.tumbling_window_s, 0U);
    EXPECT_EQ(stream.record_age_max_s, -1);
    EXPECT_EQ(stream.retries_max, -1);
    EXPECT_EQ(stream.bisects_on_error, false);
    EXPECT_EQ(stream.reports_item_failures, false);
    EXPECT_TRUE(stream.destinations.has_value());
  }
  const EventSourceMapping kafka = made(from(kClusterArn));
  EXPECT_EQ(kafka.settings.batch_size, 100U);
  EXPECT_FALSE(kafka.settings.window_s);
  EXPECT_EQ(kafka.settings.others.at("AmazonManagedKafkaEventSourceConfig"), R"({"ConsumerGroupId":")" + kafka.uuid + "\"}");
  EXPECT_EQ(made(from_own_kafka()).kind, SourceKind::kSelfManagedKafka);
  EXPECT_EQ(made(from(kBrokerArn)).settings.batch_size, 100U);
  EXPECT_EQ(made(from(kDocumentsArn)).kind, SourceKind::kDocumentDb);
  EXPECT_EQ(mappings_->list({}, "", 100).size(), 7U);
}

TEST_F(EventSourceMappingsTest, AMappingIsCreatingThenEnabledAndOneMadeDisabledIsSoAtOnce) {
  const EventSourceMapping mapping = made(from(kQueueArn));
  EXPECT_EQ(mapping.state, MappingState::kCreating);
  EXPECT_EQ(mappings_->find(mapping.uuid)->state, MappingState::kEnabled);
  EXPECT_EQ(made(from(kFifoArn, {.enabled = false})).state, MappingState::kDisabled);
}

TEST_F(EventSourceMappingsTest, AnUpdateTellsWhatItIsDoing) {
  const std::string uuid = settled(from(kQueueArn)).uuid;
  const auto update = [&](MappingSettings settings) {
    auto updated = mappings_->update(uuid, {.settings = std::move(settings)});
    EXPECT_TRUE(updated.ok()) << updated.error().message();
    EventSourceMappings::observed(*mappings_->find(uuid));
    return updated->state;
  };
  EXPECT_EQ(update({.batch_size = 5}), MappingState::kUpdating);
  EXPECT_EQ(update({.enabled = false, .batch_size = 6}), MappingState::kDisabling);
  EXPECT_EQ(mappings_->find(uuid)->state, MappingState::kDisabled);
  EXPECT_EQ(update({.batch_size = 7}), MappingState::kUpdating);
  EXPECT_EQ(mappings_->find(uuid)->state, MappingState::kDisabled);
  EXPECT_EQ(update({.enabled = true}), MappingState::kEnabling);
  EXPECT_EQ(mappings_->find(uuid)->state, MappingState::kEnabled);
  EXPECT_EQ(mappings_->find(uuid)->settings.batch_size, 7U);
}

TEST_F(EventSourceMappingsTest, AChangeUnderWayRefusesTheNextUntilItIsSeenOrLongAgo) {
  const std::string uuid = made(from(kQueueArn)).uuid;
  const auto update = [&] { return mappings_->update(uuid, {.settings = {.batch_size = 5}}); };
  expect_error(update(), "ResourceInUseException", "Cannot update the event source mapping because it is in use.");
  expect_error(mappings_->remove(uuid), "ResourceInUseException", "Cannot delete the event source mapping because it is in use.");
  clock_.advance(EventSourceMappings::kTransition);
  EXPECT_TRUE(update().ok());
  EXPECT_FALSE(update().ok());
  EventSourceMappings::observed(*mappings_->find(uuid));
  EXPECT_TRUE(update().ok());
  EventSourceMappings::observed(*mappings_->find(uuid));
  auto removed = mappings_->remove(uuid);
  ASSERT_TRUE(removed.ok()) << removed.error().message();
  EXPECT_EQ(removed->state, MappingState::kDeleting);
  EXPECT_EQ(mappings_->find(uuid), nullptr);
  expect_error(mappings_->remove(uuid), "ResourceNotFoundException", "The resource you requested does not exist.");
  expect_error(update(), "ResourceNotFoundException", "The resource you requested does not exist.");
}

TEST_F(EventSourceMappingsTest, LastModifiedIsTheTimeOfTheChange) {
  const EventSourceMapping mapping = settled(from(kQueueArn));
  EXPECT_EQ(mapping.modified, clock_.wall_now());
  clock_.advance(std::chrono::seconds(5));
  EXPECT_EQ(mappings_->update(mapping.uuid, {})->modified, clock_.wall_now());
}

// --- Functions ---

TEST_F(EventSourceMappingsTest, TheFunctionVersionOrAliasMustExist) {
  NewMapping wanted = from(kQueueArn);
  wanted.function = {.name = "g", .qualifier = ""};
  expect_invalid(mappings_->create(wanted), "Function does not exist");
  for (const char* qualifier : {"2", "live"}) {
    wanted.function = {.name = "f", .qualifier = qualifier};
    expect_invalid(mappings_->create(wanted), "Function does not exist");
  }
  for (const char* qualifier : {"", "$LATEST", "1"}) {
    wanted.function = {.name = "f", .qualifier = qualifier};
    EXPECT_EQ(made(wanted).function.qualifier, qualifier);
  }
}

TEST_F(EventSourceMappingsTest, AnUpdateMovesAMappingToAnotherFunctionThatExists) {
  const std::string uuid = settled(from(kQueueArn)).uuid;
  expect_invalid(mappings_->update(uuid, {.function = MappedFunction{.name = "g", .qualifier = ""}}), "Function does not exist");
  make_function("g");
  EXPECT_EQ(mappings_->update(uuid, {.function = MappedFunction{.name = "g", .qualifier = "1"}})->function.qualifier, "1");
  EXPECT_EQ(mappings_->find(uuid)->function.name, "g");
}

TEST_F(EventSourceMappingsTest, AMappingOutlivesItsFunction) {
  const std::string uuid = settled(from(kQueueArn)).uuid;
  clock_.advance(engine::FunctionRegistry::kUpdateWindow);
  ASSERT_TRUE(registry_->remove("f", "").ok());
  EXPECT_EQ(mappings_->find(uuid)->function.name, "f");
  EXPECT_TRUE(mappings_->update(uuid, {.settings = {.enabled = false}}).ok());
}

// --- Sources ---

TEST_F(EventSourceMappingsTest, SourcesThatAreNoneAreRefused) {
  expect_invalid(mappings_->create(from("")), "Unrecognized event source.");
  for (const char* arn : {"arn:aws:sns:us-east-1:000000000000:topic", "arn:aws:sqs:us-east-1:000000000000:", "arn:aws:sqs", "x",
                          "arn:aws:dynamodb:us-east-1:000000000000:table/t", "arn:aws:kinesis:us-east-1:000000000000:s"}) {
    const auto refused = mappings_->create(from(arn));
    ASSERT_FALSE(refused.ok()) << arn;
    EXPECT_TRUE(refused.error().message().starts_with("Unrecognized event source.")) << refused.error().message();
  }
  NewMapping both = from_own_kafka();
  both.source.arn = kClusterArn;
  EXPECT_FALSE(mappings_->create(both).ok());
}

TEST_F(EventSourceMappingsTest, WhoCanTellIsAskedWhetherTheSourceExists) {
  exists_ = [](SourceKind, const std::string& arn) -> Result<bool> { return arn.ends_with(":there"); };
  open();
  expect_invalid(mappings_->create(from(kQueueArn)),
                 "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error Message: The "
                 "specified queue does not exist.");
  expect_invalid(mappings_->create(from(kTableArn)), "Stream not found: " + kTableArn);
  EXPECT_TRUE(mappings_->create(from("arn:aws:sqs:us-east-1:000000000000:there")).ok());
}

TEST_F(EventSourceMappingsTest, StreamsAndKafkaNeedAPositionAndQueuesTakeNone) {
  for (const std::string& arn : {kKinesisArn, kTableArn, kClusterArn}) {
    NewMapping wanted = from(arn);
    wanted.source.starting_position = "";
    expect_invalid(mappings_->create(wanted),
                   "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null.");
  }
  NewMapping queue = from(kQueueArn);
  queue.source.starting_position = "LATEST";
  expect_invalid(mappings_->create(queue), "StartingPosition is not valid for SQS event sources.");
  NewMapping timed = from(kKinesisArn);
  timed.source.starting_position = "AT_TIMESTAMP";
  expect_invalid(mappings_->create(timed), "Need to specify a timestamp");
  timed.source.starting_time = clock_.wall_now() + std::chrono::seconds(1);
  expect_invalid(mappings_->create(timed), "StartingPositionTimestamp cannot be in the future.");
  timed.source.starting_time = clock_.wall_now();
  EXPECT_TRUE(mappings_->create(timed).ok());
  timed.source.arn = kTableArn;
  expect_invalid(mappings_->create(timed), "Unsupported starting position for arn type: " + kTableArn);
}

TEST_F(EventSourceMappingsTest, KafkaBrokersAndDocumentDbNeedTheirMembers) {
  NewMapping kafka = from(kClusterArn);
  kafka.source.topic = "";
  expect_invalid(mappings_->create(kafka), "Required 'topics' parameter is missing.");
  NewMapping own = from_own_kafka();
  own.settings.others.clear();
  expect_invalid(mappings_->create(own), "Required 'sourceAccessConfigurations' parameter is missing.");
  NewMapping broker = from(kBrokerArn);
  broker.source.queue = "";
  expect_invalid(mappings_->create(broker), "Required 'queues' parameter is missing.");
  NewMapping documents = from(kDocumentsArn);
  documents.settings.others["DocumentDBEventSourceConfig"] = "{}";
  expect_invalid(mappings_->create(documents), "Required 'documentDBEventSourceConfig.databaseName' parameter is missing.");
}

// --- Settings ---

TEST_F(EventSourceMappingsTest, ASourceTakesOnlyItsOwnSettings) {
  const auto refused = [this](const std::string& arn, MappingSettings settings, const std::string& name) {
    expect_invalid(mappings_->create(from(arn, std::move(settings))),
                   "Unsupported '" + name + "' parameter for given event source mapping type.");
  };
  refused(kQueueArn, {.parallelization_factor = 2}, "parallelizationFactor");
  refused(kQueueArn, {.tumbling_window_s = 30}, "tumblingWindowInSeconds");
  refused(kQueueArn, {.record_age_max_s = 60}, "maximumRecordAgeInSeconds");
  refused(kQueueArn, {.retries_max = 1}, "maximumRetryAttempts");
  refused(kQueueArn, {.bisects_on_error = true}, "bisectBatchOnFunctionError");
  refused(kKinesisArn, {.concurrency_max = 5}, "scalingConfig");
  refused(kBrokerArn, {.reports_item_failures = true}, "functionResponseTypes");
  refused(kKinesisArn, {.others = {{"ProvisionedPollerConfig", R"({"MinimumPollers":2})"}}}, "provisionedPollerConfig");
  refused(kQueueArn, {.others = {{"DocumentDBEventSourceConfig", R"({"DatabaseName":"d"})"}}}, "documentDBEventSourceConfig");
  refused(kQueueArn, {.others = {{"SourceAccessConfigurations", kAccess}}}, "sourceAccessConfigurations");
  // What is empty sets nothing.
  EXPECT_TRUE(mappings_
                  ->create(from(kQueueArn, {.destinations = Destinations{},
                                            .filters = std::vector<std::string>{},
                                            .others = {{"ProvisionedPollerConfig", "{}"}}}))
                  .ok());
  EXPECT_TRUE(mappings_->create(from(kBrokerArn, {.reports_item_failures = false})).ok());
  const std::string uuid = settled(from(kFifoArn)).uuid;
  expect_invalid(mappings_->update(uuid, {.settings = {.retries_max = 1}}),
                 "Unsupported 'maximumRetryAttempts' parameter for given event source mapping type.");
}

TEST_F(EventSourceMappingsTest, OnlyFailuresOfStreamsAndKafkaHaveADestination) {
  const std::string text = "Unsupported DestinationConfig parameter for given event source mapping type.";
  expect_invalid(mappings_->create(from(kQueueArn, {.destinations = Destinations{.on_success = "", .on_failure = kFifoArn}})), text);
  expect_invalid(mappings_->create(from(kKinesisArn, {.destinations = Destinations{.on_success = kQueueArn, .on_failure = ""}})), text);
  expect_invalid(mappings_->create(from(kKinesisArn, {.destinations = Destinations{.on_success = "", .on_failure = "kafka://t"}})), text);
  const std::string uuid = settled(from(kKinesisArn, {.destinations = Destinations{.on_success = "", .on_failure = kQueueArn}})).uuid;
  EXPECT_EQ(mappings_->find(uuid)->settings.destinations->on_failure, kQueueArn);
  ASSERT_TRUE(mappings_->update(uuid, {.settings = {.destinations = Destinations{}}}).ok());
  EXPECT_EQ(mappings_->find(uuid)->settings.destinations->on_failure, "");
}

TEST_F(EventSourceMappingsTest, BatchesOfQueuesHaveTheirRules) {
  const std::string needs_window = "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10";
  expect_invalid(mappings_->create(from(kQueueArn, {.batch_size = 11})), needs_window);
  expect_invalid(mappings_->create(from(kFifoArn, {.batch_size = 10, .window_s = 1})), "Batching window is not supported for FIFO queues");
  expect_invalid(mappings_->create(from(kFifoArn, {.batch_size = 11})), "Maximum batch size must be between 1 and 10 inclusive");
  const std::string uuid = settled(from(kQueueArn, {.batch_size = 10'000, .window_s = 1})).uuid;
  expect_invalid(mappings_->update(uuid, {.settings = {.window_s = 0}}), needs_window);
  EXPECT_EQ(mappings_->find(uuid)->settings.window_s, 1U);
  EXPECT_TRUE(mappings_->update(uuid, {.settings = {.batch_size = 10, .window_s = 0}}).ok());
  EXPECT_TRUE(mappings_->create(from(kKinesisArn, {.batch_size = 10'000})).ok());
}

TEST_F(EventSourceMappingsTest, RecordAgeIsUnboundOrAMinuteAtLeast) {
  for (const std::int32_t age_s : {0, 59}) EXPECT_FALSE(mappings_->create(from(kKinesisArn, {.record_age_max_s = age_s})).ok());
  EXPECT_TRUE(mappings_->create(from(kKinesisArn, {.record_age_max_s = 60})).ok());
}

TEST_F(EventSourceMappingsTest, ScalingAndPollersOfQueues) {
  const std::string uuid = settled(from(kQueueArn, {.concurrency_max = 2})).uuid;
  MappingSettings pollers{.others = {{"ProvisionedPollerConfig", R"({"MinimumPollers":3})"}}};
  EXPECT_FALSE(mappings_->update(uuid, {.settings = pollers}).ok());
  pollers.concurrency_max = 0;
  ASSERT_TRUE(mappings_->update(uuid, {.settings = pollers}).ok());
  const MappingPtr mapping = mappings_->find(uuid);
  EXPECT_FALSE(mapping->settings.concurrency_max);
  EXPECT_EQ(mapping->settings.others.at("ProvisionedPollerConfig"), R"({"MinimumPollers":3,"MaximumPollers":200})");
  for (const char* wrong : {R"({"MinimumPollers":1})", R"({"MinimumPollers":5,"MaximumPollers":4})", R"({"PollerGroupName":"g"})"}) {
    EXPECT_FALSE(mappings_->create(from(kFifoArn, {.others = {{"ProvisionedPollerConfig", wrong}}})).ok()) << wrong;
  }
  EventSourceMappings::observed(*mapping);
  ASSERT_TRUE(mappings_->update(uuid, {.settings = {.others = {{"ProvisionedPollerConfig", "{}"}}}}).ok());
  EXPECT_TRUE(mappings_->find(uuid)->settings.others.empty());
}

TEST_F(EventSourceMappingsTest, FiltersArePatternsAtMostTen) {
  for (const char* pattern : {"", "null", "simple string", R"({"eventSource":"aws:sqs"})", R"({"eventSource":[]})"}) {
    expect_invalid(mappings_->create(from(kQueueArn, {.filters = std::vector<std::string>{pattern}})),
                   "Invalid filter pattern definition.");
  }
  const std::string good = R"({"body":{"a":["x"]}})";
  EXPECT_FALSE(mappings_->create(from(kQueueArn, {.filters = std::vector<std::string>(11, good)})).ok());
  const std::string uuid = settled(from(kQueueArn, {.filters = std::vector<std::string>(10, good)})).uuid;
  EXPECT_EQ(mappings_->find(uuid)->settings.filters->size(), 10U);
  ASSERT_TRUE(mappings_->update(uuid, {.settings = {.filters = std::vector<std::string>{}}}).ok());
  EXPECT_FALSE(mappings_->find(uuid)->settings.filters);
}

TEST_F(EventSourceMappingsTest, AConsumerGroupStays) {
  NewMapping wanted = from(kClusterArn);
  wanted.settings.others["AmazonManagedKafkaEventSourceConfig"] = R"({"ConsumerGroupId":"mine"})";
  const std::string uuid = settled(wanted).uuid;
  const auto update = [&](const std::string& config) {
    return mappings_->update(uuid, {.settings = {.others = {{"AmazonManagedKafkaEventSourceConfig", config}}}});
  };
  EXPECT_FALSE(update(R"({"ConsumerGroupId":"other"})").ok());
  ASSERT_TRUE(update(R"({"SchemaRegistryConfig":{"SchemaRegistryURI":"https://r.example"}})").ok());
  EXPECT_EQ(mappings_->find(uuid)->settings.others.at("AmazonManagedKafkaEventSourceConfig"),
            R"({"SchemaRegistryConfig":{"SchemaRegistryURI":"https://r.example"},"ConsumerGroupId":"mine"})");
}

TEST_F(EventSourceMappingsTest, MetricsOfKafkaAreForKafka) {
  EXPECT_FALSE(mappings_->create(from(kQueueArn, {.others = {{"MetricsConfig", R"({"Metrics":["KafkaMetrics"]})"}}})).ok());
  EXPECT_TRUE(mappings_->create(from(kQueueArn, {.others = {{"MetricsConfig", R"({"Metrics":["EventCount"]})"}}})).ok());
}

// --- Duplicates ---

TEST_F(EventSourceMappingsTest, OneSourceFeedsAFunctionOnce) {
  const std::string queue = made(from(kQueueArn)).uuid;
  expect_error(mappings_->create(from(kQueueArn)), "ResourceConflictException",
               "An event source mapping with SQS arn (\" " + kQueueArn +
                   " \") and function (\" f \") already exists. Please update or delete the existing mapping with UUID " + queue);
  const std::string table = made(from(kTableArn)).uuid;
  expect_error(mappings_->create(from(kTableArn)), "ResourceConflictException",
               "The event source arn (\" " + kTableArn +
                   " \") and function (\" f \") provided mapping already exists. Please update or delete the existing mapping with UUID " +
                   table);
  NewMapping version = from(kQueueArn);
  version.function.qualifier = "1";
  EXPECT_TRUE(mappings_->create(version).ok());  // recorded: another qualifier is another mapping
  make_function("g");
  NewMapping other = from(kQueueArn);
  other.function.name = "g";
  const std::string moved = settled(other).uuid;
  EXPECT_EQ(mappings_->update(moved, {.function = MappedFunction{.name = "f", .qualifier = ""}}).error().id(), "ResourceConflictException");
}

TEST_F(EventSourceMappingsTest, KafkaTopicsBrokerQueuesAndCollectionsAreSourcesOfTheirOwn) {
  const std::string own = made(from_own_kafka()).uuid;
  NewMapping overlapping = from_own_kafka();
  overlapping.source.bootstrap_servers = {"b.example:9092"};
  expect_error(
      mappings_->create(overlapping), "ResourceConflictException",
      "An event source mapping with event source (\"a.example:9092,b.example:9092\"), function "
      "(\"arn:aws:lambda:us-east-1:000000000000:function:f\"), topics (\"t\") already exists. Please update or delete the existing "
      "mapping with UUID " +
          own);
  overlapping.source.topic = "u";
  EXPECT_TRUE(mappings_->create(overlapping).ok());
  for (const std::string& arn : {kClusterArn, kBrokerArn, kDocumentsArn}) {
    NewMapping wanted = from(arn);
    EXPECT_TRUE(mappings_->create(wanted).ok()) << arn;
    EXPECT_FALSE(mappings_->create(wanted).ok()) << arn;
    if (!wanted.source.topic.empty()) wanted.source.topic = "another";
    if (!wanted.source.queue.empty()) wanted.source.queue = "another";
    if (arn == kDocumentsArn) wanted.settings.others["DocumentDBEventSourceConfig"] = R"({"DatabaseName":"another"})";
    EXPECT_TRUE(mappings_->create(wanted).ok()) << arn;
  }
}

TEST_F(EventSourceMappingsTest, OfConcurrentDuplicatesOneIsMade) {
  std::atomic<int> made_count = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) threads.emplace_back([&] { made_count += mappings_->create(from(kQueueArn)).ok() ? 1 : 0; });
  for (std::thread& each : threads) each.join();
  EXPECT_EQ(made_count, 1);
}

// --- Lists, tags ---

TEST_F(EventSourceMappingsTest, ListsFilterAndPage) {
  make_function("g");
  for (int i = 0; i < 5; ++i) {
    NewMapping wanted = from(kQueueArn + std::to_string(i));
    made(wanted);
    wanted.function = {.name = "g", .qualifier = "$LATEST"};
    made(wanted);
  }
  EXPECT_EQ(mappings_->list({}, "", 100).size(), 10U);
  EXPECT_EQ(mappings_->list({.source_arn = kQueueArn + "3"}, "", 100).size(), 2U);
  const MappingFilter of_g{.source_arn = "", .function = MappedFunction{.name = "g", .qualifier = ""}};
  EXPECT_EQ(mappings_->list(of_g, "", 100).size(), 5U);
  EXPECT_EQ(mappings_->list({.source_arn = kQueueArn + "3", .function = of_g.function}, "", 100).size(), 1U);
  EXPECT_TRUE(mappings_->list({.source_arn = "", .function = MappedFunction{.name = "g", .qualifier = "1"}}, "", 100).empty());
  std::string after;
  std::size_t seen = 0;
  while (true) {
    const auto page = mappings_->list(of_g, after, 2);
    if (page.empty()) break;
    seen += page.size();
    after = page.back()->uuid;
  }
  EXPECT_EQ(seen, 5U);
}

TEST_F(EventSourceMappingsTest, TagsMergeAndGo) {
  NewMapping wanted = from(kQueueArn);
  wanted.tags = {{"a", "1"}};
  const std::string uuid = made(wanted).uuid;  // tags need not wait for the end of a change
  ASSERT_TRUE(mappings_->tag(uuid, {{"a", "2"}, {"b", "3"}}).ok());
  ASSERT_TRUE(mappings_->untag(uuid, {"b", "absent"}).ok());
  EXPECT_EQ(mappings_->find(uuid)->tags, (std::map<std::string, std::string>{{"a", "2"}}));
  std::map<std::string, std::string> many;
  for (int i = 0; i < 51; ++i) many[std::to_string(i)] = "";
  expect_invalid(mappings_->tag(uuid, many), "Number of tags exceeds resource tag limit.");
  EXPECT_EQ(mappings_->find(uuid)->tags.size(), 1U);
  EXPECT_FALSE(mappings_->tag(uuid, {}).ok());
  EXPECT_EQ(mappings_->tag("no-such", {{"a", "1"}}).error().id(), "ResourceNotFoundException");
}

// --- What is kept ---

TEST_F(EventSourceMappingsTest, EverythingSurvivesARestartAndIsSettledThen) {
  NewMapping stream = from(kKinesisArn, {.enabled = false,
                                         .batch_size = 7,
                                         .window_s = 8,
                                         .parallelization_factor = 9,
                                         .tumbling_window_s = 10,
                                         .record_age_max_s = 61,
                                         .retries_max = 3,
                                         .bisects_on_error = true,
                                         .reports_item_failures = true,
                                         .destinations = Destinations{.on_success = "", .on_failure = kQueueArn},
                                         .filters = std::vector<std::string>{R"({"a":["x"]})"},
                                         .others = {{"KMSKeyArn", "\"arn:aws:kms:x\""}}});
  stream.source.starting_position = "AT_TIMESTAMP";
  stream.source.starting_time = clock_.wall_now();
  stream.tags = {{"k", "v"}};
  stream.function.qualifier = "1";
  for (const NewMapping& wanted :
       {stream, from(kQueueArn, {.concurrency_max = 5}), from(kClusterArn), from_own_kafka(), from(kBrokerArn), from(kDocumentsArn)}) {
    made(wanted);
  }
  std::vector<std::string> before;
  for (const MappingPtr& each : mappings_->list({}, "", 100)) before.push_back(to_row(*each).document);
  const std::string removed = settled(from(kFifoArn)).uuid;
  ASSERT_TRUE(mappings_->remove(removed).ok());
  open();
  std::vector<std::string> after;
  for (const MappingPtr& each : mappings_->list({}, "", 100)) {
    after.push_back(to_row(*each).document);
    EXPECT_EQ(each->state, each->kind == SourceKind::kKinesis ? MappingState::kDisabled : MappingState::kEnabled);
    EXPECT_TRUE(mappings_->update(each->uuid, {}).ok());  // nothing is under way after a start
  }
  EXPECT_EQ(after, before);
  EXPECT_NE(before[0].find("\"format\":1"), std::string::npos);
}

TEST_F(EventSourceMappingsTest, AChangeThatCannotBeStoredChangesNothing) {
  const std::string uuid = settled(from(kQueueArn)).uuid;
  catalogue_->failing = true;
  EXPECT_FALSE(mappings_->create(from(kKinesisArn)).ok());
  EXPECT_FALSE(mappings_->update(uuid, {.settings = {.batch_size = 5}}).ok());
  EXPECT_FALSE(mappings_->tag(uuid, {{"a", "1"}}).ok());
  EXPECT_FALSE(mappings_->remove(uuid).ok());
  catalogue_->failing = false;
  EXPECT_EQ(mappings_->list({}, "", 100).size(), 1U);
  EXPECT_EQ(mappings_->find(uuid)->settings.batch_size, 10U);
  EXPECT_TRUE(mappings_->find(uuid)->tags.empty());
  EXPECT_TRUE(mappings_->update(uuid, {.settings = {.batch_size = 5}}).ok());
}

TEST_F(EventSourceMappingsTest, ADamagedDocumentIsRefusedByName) {
  for (const char* document : {"", "[]", "{}", R"({"format":1})", R"({"format":1,"source_arn":"x"})", R"({"format":2,"source_arn":"x"})"}) {
    ASSERT_TRUE(catalogue_->apply({.put_resources = {{.kind = kMappingRows, .key = "the-uuid", .document = document}}}).ok());
    const auto opened = EventSourceMappings::open({.catalogue = *catalogue_, .registry = *registry_, .clock = clock_});
    ASSERT_FALSE(opened.ok()) << document;
    EXPECT_NE(opened.error().message().find("the-uuid"), std::string::npos) << opened.error().message();
  }
}

}  // namespace
}  // namespace mayfly::events
