#include "api/lambda/event_source_mappings.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "api/api.h"
#include "api/internal/answer.h"
#include "api/lambda/validation.h"
#include "base/bytes.h"
#include "events/event_source_mappings.h"
#include "store/blobs.h"
#include "store/catalogue.h"

namespace mayfly::api::lambda {
namespace {

namespace json = boost::json;
using base::Result;

const std::string kMappingsPath = "/2015-03-31/event-source-mappings";
const std::string kArn = "arn:aws:lambda:us-east-1:000000000000:";
const std::string kQueueArn = "arn:aws:sqs:us-east-1:000000000000:q";
const std::string kTableArn = "arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/2026-01-01T00:00:00.000";

class NoInvoker final : public engine::Invoker {
 public:
  void invoke(engine::InvocationPtr) override { ADD_FAILURE() << "nothing is invoked here"; }
};

// Requests from the validator to the operation; what a door adds is tested in api_test.cc.
class MappingOperationsTest : public ::testing::Test {
 protected:
  MappingOperationsTest() : pool_("test-pool", 1) {
    std::string pattern = std::filesystem::temp_directory_path() / "mayfly-mappings-XXXXXX";
    directory_ = mkdtemp(pattern.data());
    catalogue_ = *store::open_catalogue(directory_ + "/catalogue.db");
    blobs_ = *store::open_directory_blobs(directory_ + "/blobs");
    code_ = std::make_unique<engine::CodeStore>(
        *blobs_, [](const std::string&, base::UniqueFd) { return [] { return Result<std::uint64_t>(1); }; }, [](const std::string&) {});
    registry_ = *engine::FunctionRegistry::open(*catalogue_, *code_, engine::Account{}, clock_);
    credentials_ = *access::CredentialStore::open(directory_ + "/credentials.json", "000000000000", {});
    roles_ = *services::Roles::open(*catalogue_, "000000000000", clock_);
    segments_ = *store::open_log_segments(directory_ + "/logs", {}, clock_);
    logs_ = std::make_unique<observe::LogStore>(*segments_);
    layers_ = *engine::LayerRegistry::open(*catalogue_, *code_, engine::Account{}, clock_);
    mappings_ = *events::EventSourceMappings::open({.catalogue = *catalogue_, .registry = *registry_, .clock = clock_});
    context_.reset(new ApiContext{.registry = *registry_,
                                  .code = *code_,
                                  .layers = *layers_,
                                  .invoker = invoker_,
                                  .credentials = *credentials_,
                                  .roles = *roles_,
                                  .logs = *logs_,
                                  .metrics = metrics_,
                                  .pool = pool_,
                                  .clock = clock_});
    context_->event_source_mappings = mappings_.get();
    engine::FunctionConfig config;
    config.runtime = "python3.12";
    config.handler = "a.b";
    EXPECT_TRUE(registry_->create("f", config, "a zip", {}, true).ok());
  }
  ~MappingOperationsTest() override {
    segments_.reset();
    std::filesystem::remove_all(directory_);
  }

  Result<net::Response> call(const std::string& method, const std::string& target, const std::string& body = "") {
    const net::RequestHead head{.method = method, .target = target, .headers = {}};
    const auto match = match_operation(method, head.path(), head.query());
    if (!match) return not_found("no operation");
    MAYFLY_ASSIGN(const json::object input, read_input(*match, head, body));
    const ControlOperation operation = find_control_operation(match->operation->name);
    if (operation == nullptr) return unsupported("no operation");
    return operation({.context = *context_, .input = input, .action = "lambda:X", .host = "h", .access_key = "k"});
  }
  json::object answered(int status, const std::string& method, const std::string& target, const std::string& body = "") {
    const auto response = call(method, target, body);
    EXPECT_TRUE(response.ok()) << response.error().message();
    if (!response.ok()) return {};
    EXPECT_EQ(response->status, status);
    return response->body.empty() ? json::object() : json::parse(response->body).as_object();
  }
  json::object create(const std::string& members) {
    return answered(202, "POST", kMappingsPath, R"({"FunctionName":"f",)" + members + "}");
  }
  void expect_error(const Result<net::Response>& response, const std::string& type, const std::string& text) {
    ASSERT_FALSE(response.ok()) << response->body;
    EXPECT_EQ(response.error().id(), type);
    EXPECT_EQ(response.error().message(), text);
  }
  // `shown` without what differs from one mapping to the next, compared with a recorded answer.
  static void expect_recorded(json::object shown, const std::string& recorded) {
    EXPECT_EQ(shown.at("EventSourceMappingArn").as_string(), kArn + "event-source-mapping:" + shown.at("UUID").as_string().c_str());
    EXPECT_EQ(shown.at("LastModified").as_double(), 1'767'225'600.0);
    for (const char* name : {"UUID", "EventSourceMappingArn", "LastModified"}) shown.erase(name);
    EXPECT_EQ(shown, json::parse(recorded).as_object()) << json::serialize(shown);
  }

  std::string directory_;
  base::ManualClock clock_;
  std::unique_ptr<store::Catalogue> catalogue_;
  std::unique_ptr<store::Blobs> blobs_;
  std::unique_ptr<engine::CodeStore> code_;
  std::unique_ptr<engine::FunctionRegistry> registry_;
  std::unique_ptr<engine::LayerRegistry> layers_;
  std::unique_ptr<access::CredentialStore> credentials_;
  std::unique_ptr<services::Roles> roles_;
  std::unique_ptr<store::LogSegments> segments_;
  std::unique_ptr<observe::LogStore> logs_;
  std::unique_ptr<events::EventSourceMappings> mappings_;
  observe::Metrics metrics_;
  base::WorkerPool pool_;
  NoInvoker invoker_;
  std::unique_ptr<ApiContext> context_;
};

// The documents below are recorded answers (recorded.json: TestSQSEventSourceMapping, TestDynamoDBEventSourceMapping) with the
// tests' account and names.

TEST_F(MappingOperationsTest, AQueueIsShownAsRecorded) {
  expect_recorded(create(R"("EventSourceArn":")" + kQueueArn + "\""),
                  R"({"BatchSize":10,"EventSourceArn":")" + kQueueArn + R"(","FunctionArn":")" + kArn +
                      R"(function:f","FunctionResponseTypes":[],"MaximumBatchingWindowInSeconds":0,"State":"Creating",)"
                      R"("StateTransitionReason":"USER_INITIATED"})");
  // test_sqs_event_source_mapping_batching_reserved_concurrency, with a filter of test_sqs_event_filter
  expect_recorded(
      create(R"("EventSourceArn":")" + kQueueArn +
             R"(2","BatchSize":20,"MaximumBatchingWindowInSeconds":1,"ScalingConfig":{"MaximumConcurrency":2},)"
             R"("FilterCriteria":{"Filters":[{"Pattern":"{\"body\":{\"k\":[\"v\"]}}"}]})"),
      R"({"BatchSize":20,"EventSourceArn":")" + kQueueArn + R"(2","FunctionArn":")" + kArn +
          R"(function:f","FunctionResponseTypes":[],"MaximumBatchingWindowInSeconds":1,"ScalingConfig":{"MaximumConcurrency":2},)"
          R"("FilterCriteria":{"Filters":[{"Pattern":"{\"body\":{\"k\":[\"v\"]}}"}]},)"
          R"("State":"Creating","StateTransitionReason":"USER_INITIATED"})");
}

TEST_F(MappingOperationsTest, AStreamIsShownAsRecorded) {
  const std::string rest = R"("BisectBatchOnFunctionError":false,"EventSourceArn":")" + kTableArn + R"(","FunctionArn":")" + kArn +
                           R"(function:f","LastProcessingResult":"No records processed","MaximumRecordAgeInSeconds":-1,)"
                           R"("ParallelizationFactor":1,"StartingPosition":"TRIM_HORIZON","StateTransitionReason":"User action",)"
                           R"("TumblingWindowInSeconds":0)";
  const json::object made = create(R"("StartingPosition":"TRIM_HORIZON","EventSourceArn":")" + kTableArn + "\"");
  expect_recorded(made, R"({"BatchSize":100,"DestinationConfig":{"OnFailure":{}},"FunctionResponseTypes":[],)"
                        R"("MaximumBatchingWindowInSeconds":0,"MaximumRetryAttempts":-1,"State":"Creating",)" +
                            rest + "}");
  const std::string uuid(made.at("UUID").as_string());
  (void)answered(200, "GET", kMappingsPath + "/" + uuid);
  // test_dynamodb_report_batch_item_failures_with_on_failure_destination_config, as an update
  expect_recorded(answered(202, "PUT", kMappingsPath + "/" + uuid,
                           R"({"Enabled":false,"BatchSize":3,"MaximumRetryAttempts":3,"MaximumBatchingWindowInSeconds":1,)"
                           R"("FunctionResponseTypes":["ReportBatchItemFailures"],"DestinationConfig":{"OnFailure":{"Destination":")" +
                               kQueueArn + R"("}}})"),
                  R"({"BatchSize":3,"DestinationConfig":{"OnFailure":{"Destination":")" + kQueueArn +
                      R"("}},"FunctionResponseTypes":["ReportBatchItemFailures"],"MaximumBatchingWindowInSeconds":1,)"
                      R"("MaximumRetryAttempts":3,"State":"Disabling",)" +
                      rest + "}");
}

TEST_F(MappingOperationsTest, KafkaBrokersAndDocumentDbShowTheirMembers) {
  const std::string access = R"("SourceAccessConfigurations":[{"Type":"BASIC_AUTH","URI":"arn:aws:secretsmanager:us-east-1:0:secret:s"}])";
  const std::string own = R"("SelfManagedEventSource":{"Endpoints":{"KAFKA_BOOTSTRAP_SERVERS":["a.example:9092"]}},"Topics":["topic"],)"
                          R"("StartingPosition":"TRIM_HORIZON",)" +
                          access;
  const std::string shared = R"("BatchSize":100,"FunctionArn":")" + kArn +
                             R"(function:f","LastProcessingResult":"No records processed","State":"Creating",)"
                             R"("StateTransitionReason":"USER_INITIATED")";
  json::object kafka = create(own);
  const std::string group =
      R"("SelfManagedKafkaEventSourceConfig":{"ConsumerGroupId":")" + std::string(kafka.at("UUID").as_string()) + R"("})";
  expect_recorded(kafka, "{" + own + "," + group + "," + shared + "}");
  const std::string broker = R"("EventSourceArn":"arn:aws:mq:us-east-1:000000000000:broker:b:b-1","Queues":["q"],)" + access;
  expect_recorded(create(broker), "{" + broker + "," + shared + "}");
  const std::string documents = R"("EventSourceArn":"arn:aws:rds:us-east-1:000000000000:cluster:d","DocumentDBEventSourceConfig":)"
                                R"({"DatabaseName":"d","CollectionName":"c","FullDocument":"UpdateLookup"},)" +
                                access;
  expect_recorded(create(documents), "{" + documents + "," + shared + "}");
}

TEST_F(MappingOperationsTest, TheFunctionIsShownAsItWasNamed) {  // test_function_name_variations
  const std::pair<std::string, std::string> forms[] = {
      {"f", ""}, {"f:1", ":1"}, {"000000000000:function:f:$LATEST", ":$LATEST"}, {kArn + "function:f:1", ":1"}, {kArn + "function:f", ""}};
  int queue = 0;
  for (const auto& [name, shown] : forms) {
    const json::object made =
        answered(202, "POST", kMappingsPath,
                 R"({"FunctionName":")" + name + R"(","EventSourceArn":")" + kQueueArn + std::to_string(++queue) + "\"}");
    EXPECT_EQ(made.at("FunctionArn").as_string(), kArn + "function:f" + shown);
  }
}

TEST_F(MappingOperationsTest, RecordedErrorsAreAnsweredAsRecorded) {  // test_event_source_mapping_exceptions
  const auto post = [this](const std::string& members) {
    return call("POST", kMappingsPath, R"({"FunctionName":"doesnotexist")" + members + "}");
  };
  expect_error(post(""), "InvalidParameterValueException", "Unrecognized event source.");
  expect_error(post(R"(,"EventSourceArn":")" + kQueueArn + "\""), "InvalidParameterValueException", "Function does not exist");
  expect_error(post(R"(,"EventSourceArn":")" + kQueueArn + R"(","DestinationConfig":{"OnSuccess":{"Destination":")" + kQueueArn + "\"}}"),
               "InvalidParameterValueException", "Unsupported DestinationConfig parameter for given event source mapping type.");
  for (const char* method : {"GET", "DELETE"})
    expect_error(call(method, kMappingsPath + "/" + base::random_uuid()), "ResourceNotFoundException",
                 "The resource you requested does not exist.");
  const auto filter = [this](const std::string& filters) {
    return call("POST", kMappingsPath,
                R"({"FunctionName":"f","EventSourceArn":")" + kQueueArn + R"(","FilterCriteria":{"Filters":[)" + filters + "]}}");
  };
  for (const char* filters : {R"({"Pattern":"null"})", R"({"Pattern":"simple string"})", R"({"Pattern":"{\"eventSource\":[]}"})", "{}"})
    expect_error(filter(filters), "InvalidParameterValueException", "Invalid filter pattern definition.");
}

TEST_F(MappingOperationsTest, ShapesAreCheckedByTheModel) {
  const auto post = [this](const std::string& members) {
    return call("POST", kMappingsPath, R"({"FunctionName":"f","EventSourceArn":")" + kQueueArn + "\"," + members + "}");
  };
  for (const char* members : {R"("BatchSize":0)", R"("BatchSize":10001)", R"("MaximumBatchingWindowInSeconds":301)",
                              R"("ScalingConfig":{"MaximumConcurrency":1})", R"("StartingPosition":"NOW")", R"("ParallelizationFactor":11)",
                              R"("Topics":["a","b"])", R"("FunctionResponseTypes":["X"])"}) {
    const auto refused = post(members);
    ASSERT_FALSE(refused.ok()) << members;
    EXPECT_EQ(refused.error().id(), "ValidationException") << members;
  }
  for (const char* members : {R"("StartingPositionTimestamp":-1)", R"("StartingPositionTimestamp":1e300)"})
    EXPECT_EQ(post(members).error().id(), "InvalidParameterValueException") << members;
}

TEST_F(MappingOperationsTest, ACollectionIsNotOneOfTheDatabasesOwn) {
  const auto post = [this](const std::string& collection) {
    return call("POST", kMappingsPath,
                R"({"FunctionName":"f","EventSourceArn":"arn:aws:rds:us-east-1:000000000000:cluster:d","SourceAccessConfigurations":[)"
                R"({"Type":"BASIC_AUTH","URI":"arn:aws:secretsmanager:us-east-1:0:secret:s"}],"DocumentDBEventSourceConfig":)"
                R"({"DatabaseName":"d","CollectionName":")" +
                    collection + R"("}})");
  };
  for (const char* refused : {"system.users", "system.", "a$b", "-a"})
    EXPECT_EQ(post(refused).error().id(), "ValidationException") << refused;
  for (const char* taken : {"systems", "system", "s", "users", "_a.b"}) EXPECT_TRUE(post(taken).ok()) << taken;
}

TEST_F(MappingOperationsTest, ListsFilterAndPage) {
  for (int i = 0; i < 7; ++i) (void)create(R"("EventSourceArn":")" + kQueueArn + std::to_string(i) + "\"");
  const auto list = [this](const std::string& query) { return answered(200, "GET", kMappingsPath + query); };
  EXPECT_EQ(list("").at("EventSourceMappings").as_array().size(), 7U);
  EXPECT_EQ(list("").at("EventSourceMappings").as_array()[0].as_object().at("State").as_string(), "Enabled");
  EXPECT_FALSE(list("").contains("NextMarker"));
  EXPECT_EQ(list("?FunctionName=f&EventSourceArn=" + base::percent_encode(kQueueArn + "3")).at("EventSourceMappings").as_array().size(),
            1U);
  EXPECT_EQ(list("?FunctionName=g").at("EventSourceMappings").as_array().size(), 0U);
  std::set<std::string> seen;
  std::string marker;
  do {
    const json::object page = list("?MaxItems=3" + (marker.empty() ? "" : "&Marker=" + base::percent_encode(marker)));
    for (const json::value& each : page.at("EventSourceMappings").as_array()) seen.emplace(each.as_object().at("UUID").as_string());
    marker = page.contains("NextMarker") ? std::string(page.at("NextMarker").as_string()) : "";
  } while (!marker.empty());
  EXPECT_EQ(seen.size(), 7U);
  EXPECT_FALSE(call("GET", kMappingsPath + "?Marker=%21").ok());
}

TEST_F(MappingOperationsTest, TagsOfAMappingGoByItsArn) {
  const json::object made = create(R"("Tags":{"a":"1"},"EventSourceArn":")" + kQueueArn + "\"");
  const std::string tags = "/2017-03-31/tags/" + base::percent_encode(std::string(made.at("EventSourceMappingArn").as_string()));
  (void)answered(204, "POST", tags, R"({"Tags":{"b":"2"}})");
  EXPECT_EQ(json::serialize(answered(200, "GET", tags)), R"({"Tags":{"a":"1","b":"2"}})");
  (void)answered(204, "DELETE", tags + "?tagKeys=a");
  EXPECT_EQ(json::serialize(answered(200, "GET", tags)), R"({"Tags":{"b":"2"}})");
  const std::string unknown = "/2017-03-31/tags/" + base::percent_encode(kArn + "event-source-mapping:" + base::random_uuid());
  EXPECT_EQ(call("GET", unknown).error().id(), "ResourceNotFoundException");
  EXPECT_EQ(call("POST", unknown, R"({"Tags":{"b":"2"}})").error().id(), "ResourceNotFoundException");
}

TEST_F(MappingOperationsTest, AServerWithoutMappingsSaysSo) {
  context_->event_source_mappings = nullptr;
  EXPECT_EQ(call("GET", kMappingsPath).error().id(), "UnsupportedOperationException");
}

TEST_F(MappingOperationsTest, ARequestActsOnTheMappingItNames) {
  const json::object input{{"UUID", "u"}, {"FunctionName", "f"}};
  EXPECT_EQ(*resource_of(input, engine::Account{}, "lambda:UpdateEventSourceMapping"), kArn + "event-source-mapping:u");
}

}  // namespace
}  // namespace mayfly::api::lambda
