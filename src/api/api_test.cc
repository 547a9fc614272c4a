#include "api/api.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/json.hpp>
#include <cstdlib>
#include <filesystem>
#include <future>

#include "api/lambda/golden_for_test.h"
#include "base/bytes.h"
#include "net/event_stream.h"
#include "net/sigv4.h"
#include "services/buckets.h"
#include "store/blobs.h"
#include "store/catalogue.h"
#include "store/objects.h"

namespace mayfly::api {
namespace {

namespace json = boost::json;
using base::Error;
using base::ErrorCode;
using base::Result;
using net::Awaitable;

constexpr const char* kAccessKey = "AKIATESTKEY123456789";
constexpr const char* kTrust =
    R"({"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]})";
constexpr const char* kSecret = "aSecretOfFortyCharactersForTheTestsOnly00";

// A request in memory and what was answered.
class FakeExchange final : public net::Exchange {
 public:
  FakeExchange(net::RequestHead request, std::string body) : head_(std::move(request)), body_(std::move(body)) {}

  const net::RequestHead& head() const override { return head_; }
  const std::string& peer_address() const override { return peer_; }
  std::optional<std::uint64_t> content_length() const override { return body_.size(); }
  Awaitable<Result<std::string>> read_some() override { co_return std::exchange(body_, ""); }
  Awaitable<Result<std::string>> read_all(std::uint64_t limit) override {
    body_was_read = true;
    if (body_.size() > limit) co_return Error(ErrorCode::kTooLarge, "too large");
    co_return std::exchange(body_, "");
  }
  const net::Headers& trailers() const override { return no_headers_; }
  Awaitable<Result<void>> respond(net::Response sent) override {
    response = std::move(sent);
    answered_ = true;
    co_return Result<void>();
  }
  Awaitable<Result<void>> begin(int status, net::Headers headers) override {
    response.status = status;
    response.headers = std::move(headers);
    answered_ = true;
    co_return Result<void>();
  }
  Awaitable<Result<void>> write(std::string_view bytes) override {
    if (leaves_after != 0 && response.body.size() >= leaves_after) co_return Error(ErrorCode::kCancelled, "gone");
    response.body += bytes;
    co_return Result<void>();
  }
  Awaitable<Result<void>> finish(net::Headers) override {
    finished = true;
    co_return Result<void>();
  }
  void abort() override { aborted = true; }
  bool answered() const override { return answered_; }
  Awaitable<bool> peer_gone() override {
    if (peer_leaves) co_return true;
    const net::Executor executor = co_await boost::asio::this_coro::executor;
    net::Event never(executor);
    (void)co_await never.wait();
    co_return false;
  }
  void when_peer_gone(std::function<void()> call) override {
    if (peer_leaves) call();
  }

  net::Response response;
  bool body_was_read = false, finished = false, aborted = false, peer_leaves = false;
  std::size_t leaves_after = 0;

 private:
  net::RequestHead head_;
  std::string body_, peer_ = "127.0.0.1";
  net::Headers no_headers_;
  bool answered_ = false;
};

class FakeInvoker final : public engine::Invoker {
 public:
  void invoke(engine::InvocationPtr invocation) override {
    last = invocation;
    if (run) run(*invocation);
  }
  std::function<void(engine::Invocation&)> run;
  engine::InvocationPtr last;
};

engine::Outcome outcome(std::string payload) {
  engine::Outcome made;
  made.payload = std::move(payload);
  made.executed_version = "$LATEST";
  return made;
}

class ApiTest : public ::testing::Test {
 protected:
  ApiTest() : loop_("test"), pool_("test-pool", 1) {
    std::string pattern = std::filesystem::temp_directory_path() / "mayfly-api-XXXXXX";
    directory_ = mkdtemp(pattern.data());
    catalogue_ = *store::open_catalogue(directory_ + "/catalogue.db");
    blobs_ = *store::open_directory_blobs(directory_ + "/blobs");
    code_ = std::make_unique<engine::CodeStore>(
        *blobs_, [](const std::string&, base::UniqueFd) { return [] { return Result<std::uint64_t>(1); }; }, [](const std::string&) {});
    layers_ = *engine::LayerRegistry::open(*catalogue_, *code_, engine::Account{}, clock_);
    registry_ = *engine::FunctionRegistry::open(*catalogue_, *code_, engine::Account{}, clock_);
    credentials_ =
        *access::CredentialStore::open(directory_ + "/credentials.json", "000000000000", {.access_key = kAccessKey, .secret_key = kSecret});
    roles_ = *services::Roles::open(*catalogue_, "000000000000", clock_);
    segments_ = *store::open_log_segments(directory_ + "/logs", {}, clock_);
    logs_ = std::make_unique<observe::LogStore>(*segments_);
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
    handler_ = management_handler(*context_);
    loop_.start();
    invoker_.run = [](engine::Invocation& invocation) { invocation.sink->on_outcome(outcome(invocation.payload)); };
  }
  ~ApiTest() override {
    loop_.stop();
    segments_.reset();
    std::filesystem::remove_all(directory_);
  }

  net::RequestHead signed_head(const std::string& method, const std::string& target, const std::string& body,
                               const std::string& service = "lambda", net::Headers headers = {}) {
    net::RequestHead head{.method = method, .target = target, .headers = std::move(headers)};
    head.headers.add("Host", "127.0.0.1:9000");
    net::sign_request(head, body, key_, {.region = region_, .service = service}, clock_.wall_now());
    return head;
  }
  void serve(FakeExchange& exchange) { boost::asio::co_spawn(loop_.executor(), handler_(exchange), boost::asio::use_future).get(); }
  net::Response send(net::RequestHead head, const std::string& body) {
    FakeExchange exchange(std::move(head), body);
    serve(exchange);
    return exchange.response;
  }
  net::Response call(const std::string& method, const std::string& target, const std::string& body = "", net::Headers headers = {}) {
    return send(signed_head(method, target, body, "lambda", std::move(headers)), body);
  }
  // As a client that waits for the end of a change, which asking for the function is.
  void wait(const std::string& name = "f") { EXPECT_EQ(call("GET", "/2015-03-31/functions/" + name + "/configuration").status, 200); }
  net::Response create(const std::string& name = "f", const std::string& more = "", const std::string& zip = "a zip") {
    return call("POST", "/2015-03-31/functions",
                R"({"FunctionName":")" + name +
                    R"(","Role":"arn:aws:iam::000000000000:role/r","Runtime":"python3.12","Handler":"a.b","Code":{"ZipFile":")" +
                    base::base64_encode(zip) + "\"}" + more + "}");
  }
  net::Response logs(const std::string& operation, const std::string& body) {
    net::Headers headers;
    headers.add("X-Amz-Target", "Logs_20140328." + operation);
    headers.add("Content-Type", "application/x-amz-json-1.1");
    return send(signed_head("POST", "/", body, "logs", headers), body);
  }

  net::Response query(const std::string& service, const std::string& form) {
    net::Headers headers;
    headers.add("Content-Type", "application/x-www-form-urlencoded; charset=utf-8");
    return send(signed_head("POST", "/", form, service, headers), form);
  }

  static json::object body_of(const net::Response& response) {
    boost::system::error_code ec;
    const json::value value = json::parse(response.body, ec);
    EXPECT_FALSE(ec) << response.body;
    return value.is_object() ? value.get_object() : json::object();
  }
  static void expect_error(const net::Response& response, int status, const std::string& type, const std::string& part) {
    EXPECT_EQ(response.status, status) << response.body;
    EXPECT_EQ(response.headers.get("x-amzn-ErrorType"), type) << response.body;
    EXPECT_NE(response.body.find(part), std::string::npos) << response.body;
  }
  static void expect_golden(const net::Response& response, const std::string& name) {
    const lambda::GoldenError golden = lambda::golden_error(name);
    EXPECT_EQ(response.status, golden.status) << response.body;
    EXPECT_EQ(response.headers.get("x-amzn-ErrorType"), golden.type);
    const json::object body = body_of(response);
    const json::value* message = body.if_contains("message") != nullptr ? body.if_contains("message") : body.if_contains("Message");
    ASSERT_NE(message, nullptr) << response.body;
    EXPECT_EQ(std::string(message->as_string()), golden.message);
    if (!golden.body.empty()) {
      EXPECT_EQ(body, golden.body) << response.body;
    }
  }

  std::string directory_, region_ = "us-east-1";
  base::ManualClock clock_;
  std::unique_ptr<store::Catalogue> catalogue_;
  std::unique_ptr<store::Blobs> blobs_;
  std::unique_ptr<engine::CodeStore> code_;
  std::unique_ptr<engine::LayerRegistry> layers_;
  std::unique_ptr<engine::FunctionRegistry> registry_;
  std::unique_ptr<access::CredentialStore> credentials_;
  std::unique_ptr<services::Roles> roles_;
  std::unique_ptr<store::LogSegments> segments_;
  std::unique_ptr<observe::LogStore> logs_;
  observe::Metrics metrics_;
  FakeInvoker invoker_;
  net::SigningKey key_{.access_key = kAccessKey, .secret_key = kSecret, .session_token = ""};
  net::EventLoop loop_;
  base::WorkerPool pool_;
  std::unique_ptr<ApiContext> context_;
  net::Handler handler_;
};

const std::string kArn = "arn:aws:lambda:us-east-1:000000000000:function:";

// --- The door ---

TEST_F(ApiTest, EveryAnswerHasARequestId) {
  EXPECT_EQ(call("GET", "/2015-03-31/functions").headers.get("x-amzn-RequestId").size(), 36U);
  EXPECT_EQ(call("GET", "/nothing").headers.get("x-amzn-RequestId").size(), 36U);
}

TEST_F(ApiTest, ARequestWithoutSignatureIsRefusedBeforeItsBodyIsRead) {
  net::Headers headers;
  headers.add("Host", "127.0.0.1:9000");
  FakeExchange exchange({.method = "POST", .target = "/2015-03-31/functions", .headers = headers}, std::string(1000, 'x'));
  serve(exchange);
  expect_error(exchange.response, 403, "MissingAuthenticationTokenException", "Missing Authentication Token");
  EXPECT_FALSE(exchange.body_was_read);
}

TEST_F(ApiTest, AnUnknownKeyAWrongSecretAndAChangedBodyAreRefused) {
  key_.access_key = "AKIAOTHERKEY12345678";
  expect_error(call("GET", "/2015-03-31/functions"), 403, "UnrecognizedClientException", "security token");
  key_ = {.access_key = kAccessKey, .secret_key = "wrong", .session_token = ""};
  expect_error(call("GET", "/2015-03-31/functions"), 403, "InvalidSignatureException", "signature");
  key_.secret_key = kSecret;
  EXPECT_NE(send(signed_head("POST", "/2015-03-31/functions", "{}"), "{ }").status, 400);
  EXPECT_EQ(send(signed_head("POST", "/2015-03-31/functions", "{}"), "{ }").status, 403);
}

TEST_F(ApiTest, ASignatureOfAnotherRegionIsRefusedAndNamesOurs) {
  region_ = "eu-west-1";
  expect_error(call("GET", "/2015-03-31/functions"), 403, "InvalidSignatureException", "us-east-1");
}

TEST_F(ApiTest, ASignedHeaderThatIsMissingIsRefused) {
  const std::string body = R"({"Tags":{"a":"b"}})";
  create();
  net::RequestHead head = signed_head("POST", "/2017-03-31/tags/" + base::percent_encode(kArn + "f"), body);
  EXPECT_EQ(send(head, body).status, 204);
  head.headers.remove("x-amz-content-sha256");
  expect_error(send(head, body), 403, "InvalidSignatureException", "x-amz-content-sha256");
}

TEST_F(ApiTest, AnUnknownServiceIsNamed) {
  expect_error(send(signed_head("POST", "/", "", "dynamodb"), ""), 400, "UnsupportedOperationException", "\\\"dynamodb\\\"");
  const net::Response s3 = send(signed_head("GET", "/bucket", "", "s3"), "");
  EXPECT_EQ(s3.status, 501) << "without buckets";
  EXPECT_NE(s3.body.find("<Code>NotImplemented</Code>"), std::string::npos) << s3.body;
  for (const char* target :
       {"/bucket/key?AWSAccessKeyId=AKIATESTKEY123456789&Signature=x&Expires=1",
        "/bucket/key?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a%2F20260101%2Fus-east-1%2Fs3%2Faws4_request"}) {
    net::RequestHead head{.method = "GET", .target = target, .headers = {}};
    head.headers.add("Host", "127.0.0.1:9000");
    const net::Response refused = send(std::move(head), "");
    EXPECT_NE(refused.body.find("<Error><Code>"), std::string::npos) << "in S3's words, for S3's clients: " << refused.body;
  }
}

TEST_F(ApiTest, EcrIsRefusedByNameOfItsOperation) {
  net::Headers headers;
  headers.add("X-Amz-Target", "AmazonEC2ContainerRegistry_V20150921.DescribeRepositories");
  headers.add("Content-Type", "application/x-amz-json-1.1");
  const net::Response refused = send(signed_head("POST", "/", "{}", "ecr", headers), "{}");
  expect_error(refused, 400, "UnsupportedOperationException", "DescribeRepositories");
  EXPECT_EQ(body_of(refused)["__type"], "UnsupportedOperationException");
}

// --- IAM and STS ---

TEST_F(ApiTest, IamKeepsRolesAndAnswersInXmlWithARequestId) {
  const std::string made =
      query("iam", "Action=CreateRole&Version=2010-05-08&RoleName=r&AssumeRolePolicyDocument=" + base::percent_encode(kTrust)).body;
  EXPECT_TRUE(made.starts_with("<CreateRoleResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><CreateRoleResult><Role>")) << made;
  EXPECT_NE(made.find("<AssumeRolePolicyDocument>" + base::percent_encode(kTrust) + "</AssumeRolePolicyDocument>"), std::string::npos)
      << made;
  EXPECT_NE(made.find("<ResponseMetadata><RequestId>"), std::string::npos);
  EXPECT_EQ(query("iam", "Action=TagRole&RoleName=r").body.find("TagRoleResult"), std::string::npos) << "no result where AWS has none";
  EXPECT_NE(query("iam", "Action=UpdateRole&RoleName=r").body.find("<UpdateRoleResult></UpdateRoleResult>"), std::string::npos);
  const net::Response missing = query("iam", "Action=GetRole&RoleName=none");
  EXPECT_EQ(missing.status, 404);
  EXPECT_NE(missing.body.find(
                "<ErrorResponse><Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>The role with name none cannot be found."),
            std::string::npos)
      << missing.body;
  EXPECT_NE(query("iam", "Action=CreateUser").body.find("<Code>UnsupportedOperation</Code>"), std::string::npos);
  EXPECT_NE(query("iam", "").body.find("<Code>MissingAction</Code>"), std::string::npos);
}

TEST_F(ApiTest, ASessionEndsWhenItSays) {
  ASSERT_EQ(query("iam", "Action=CreateRole&RoleName=r&AssumeRolePolicyDocument=" + base::percent_encode(kTrust)).status, 200);
  const std::string made =
      query("sts", "Action=AssumeRole&RoleArn=arn:aws:iam::000000000000:role/r&RoleSessionName=me&DurationSeconds=900").body;
  const auto inside = [&made](const std::string& name) {
    const std::size_t begin = made.find("<" + name + ">") + name.size() + 2;
    return made.substr(begin, made.find("</" + name + ">") - begin);
  };
  key_ = {.access_key = inside("AccessKeyId"), .secret_key = inside("SecretAccessKey"), .session_token = inside("SessionToken")};
  EXPECT_NE(query("sts", "Action=GetCallerIdentity").body.find("assumed-role/r/me"), std::string::npos);
  EXPECT_EQ(call("GET", "/2015-03-31/functions/").status, 200);
  EXPECT_NE(query("sts", "Action=GetSessionToken").body.find("<Code>AccessDenied</Code>"), std::string::npos);
  clock_.advance(std::chrono::seconds(899));
  EXPECT_EQ(call("GET", "/2015-03-31/functions/").status, 200);
  clock_.advance(std::chrono::seconds(1));
  expect_error(call("GET", "/2015-03-31/functions/"), 403, "ExpiredTokenException",
               "The security token included in the request is expired");
  EXPECT_NE(query("sts", "Action=GetCallerIdentity").body.find("<Code>ExpiredToken</Code>"), std::string::npos);
}

TEST_F(ApiTest, AnOperationThatIsMissingIsNamedAndAnUnknownPathIsNotFound) {
  expect_error(call("GET", "/2025-11-30/capacity-providers"), 400, "UnsupportedOperationException",
               "mayfly does not support ListCapacityProviders yet");
  expect_error(call("GET", "/2015-03-31/nothing"), 404, "UnknownOperationException", "GET /2015-03-31/nothing");
}

TEST_F(ApiTest, OperatorPagesNeedNoSignatureAndNothingElseIsOpen) {
  const auto page = [this](const std::string& method, const std::string& target) {
    return send({.method = method, .target = target, .headers = {}}, "");
  };
  EXPECT_EQ(page("GET", "/healthz").body, "ok\n");
  EXPECT_EQ(page("GET", "/readyz").status, 200);
  EXPECT_TRUE(page("GET", "/metrics").body.ends_with("# EOF\n"));
  EXPECT_EQ(page("POST", "/metrics").status, 403);
  EXPECT_EQ(page("GET", "/healthz/x").status, 403);
  EXPECT_EQ(page("GET", "/mayfly/code/f/x.zip").status, 403);
  context_->ready = [] { return Result<void>(Error(ErrorCode::kUnavailable, "the launcher has died")); };
  EXPECT_EQ(page("GET", "/readyz").status, 503);
  EXPECT_EQ(page("GET", "/readyz").body, "not ready: the launcher has died\n");
}

TEST_F(ApiTest, RequestsAreCounted) {
  (void)call("GET", "/2015-03-31/functions");
  EXPECT_NE(metrics_.open_metrics().find(R"(mayfly_http_requests_total{service="lambda",operation="ListFunctions",status="200"} 1)"),
            std::string::npos);
}

// --- Control plane ---

TEST_F(ApiTest, CreateAnswersPendingAndGetShowsItActive) {
  const net::Response created = create();
  EXPECT_EQ(created.status, 201) << created.body;
  EXPECT_EQ(body_of(created).at("State").as_string(), "Pending");
  EXPECT_FALSE(body_of(created).contains("LastUpdateStatus"));
  const net::Response got = call("GET", "/2015-03-31/functions/f/configuration");
  EXPECT_EQ(got.status, 200);
  EXPECT_EQ(body_of(got).at("State").as_string(), "Active");
  EXPECT_EQ(body_of(got).at("FunctionArn").as_string(), kArn + "f");
  EXPECT_EQ(body_of(call("GET", "/2015-03-31/functions/f/configuration?Qualifier=%24LATEST")).at("FunctionArn").as_string(),
            kArn + "f:$LATEST");
}

TEST_F(ApiTest, AFunctionIsFoundByEachFormOfItsName) {
  create();
  for (const std::string& name :
       {std::string("f"), std::string("f:$LATEST"), std::string("000000000000:function:f"), kArn + "f", kArn + "f:$LATEST"}) {
    EXPECT_EQ(call("GET", "/2015-03-31/functions/" + base::percent_encode(name)).status, 200) << name;
  }
}

TEST_F(ApiTest, RecordedErrorsAreAnsweredAsRecorded) {
  expect_golden(call("DELETE", "/2015-03-31/functions/f"), "function_not_found");
  expect_golden(call("POST", "/2015-03-31/functions/doesnotexist/invocations", "{}"), "invoke_not_found");
  create();
  expect_golden(call("GET", "/2015-03-31/functions/f?Qualifier=1221"), "version_not_found");
  expect_golden(call("GET", "/2015-03-31/functions/f%3A1?Qualifier=2"), "qualifier_mismatch");
  expect_golden(call("DELETE", "/2015-03-31/functions/f%3A%24LATEST"), "latest_deleted");
  expect_golden(call("POST", "/2017-03-31/tags/" + base::percent_encode(kArn + "f:1"), R"({"Tags":{"a":"b"}})"), "tag_qualifier");
  expect_golden(call("POST", "/2017-03-31/tags/" + base::percent_encode(kArn + "f"), R"({"Tags":{}})"), "tag_empty");
  expect_golden(call("POST", "/2015-03-31/functions/f/versions", R"({"RevisionId":"other"})"), "revision");
  expect_golden(create("g", "", std::string(engine::Limits::kZipBytesMax + 1, 'z')), "zip_too_large");
  const std::string huge(engine::Limits::kRequestBytesMax + 1, ' ');
  expect_golden(call("POST", "/2015-03-31/functions", huge), "too_large");
}

TEST_F(ApiTest, ANameOfAnotherRegionOrAccountIsRefused) {
  expect_error(call("GET", "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A000000000000%3Afunction%3Af"), 404,
               "ResourceNotFoundException", "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')");
  expect_error(call("GET", "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A111111111111%3Afunction%3Af"), 403,
               "AccessDeniedException", "111111111111");
}

TEST_F(ApiTest, CodeMustBeGivenAndBase64) {
  const auto with_code = [this](const std::string& code) {
    return call(
        "POST", "/2015-03-31/functions",
        R"({"FunctionName":"f","Role":"arn:aws:iam::000000000000:role/r","Runtime":"python3.12","Handler":"a.b","Code":)" + code + "}");
  };
  expect_error(with_code("{}"), 400, "InvalidParameterValueException", "Please provide a source for function code.");
  expect_error(with_code(R"({"ZipFile":"!"})"), 400, "SerializationException", "code.zipFile");
  expect_error(with_code(R"({"ZipFile":""})"), 400, "InvalidParameterValueException", "non-empty zip");
  expect_error(with_code(R"({"S3Bucket":"bucket","S3Key":"k"})"), 400, "UnsupportedOperationException", "S3");
  expect_error(with_code(R"({"ImageUri":"x"})"), 400, "UnsupportedOperationException", "images");
}

TEST_F(ApiTest, GetFunctionLinksToItsCodeAndTheLinkDownloadsIt) {
  create("f", "", "the zip's bytes");
  const json::object code = body_of(call("GET", "/2015-03-31/functions/f")).at("Code").as_object();
  EXPECT_EQ(code.at("RepositoryType").as_string(), "S3");
  const std::string location(code.at("Location").as_string());
  const std::string origin = "http://127.0.0.1:9000";
  ASSERT_TRUE(location.starts_with(origin + "/mayfly/code/f/")) << location;
  net::Headers headers;
  headers.add("Host", "127.0.0.1:9000");
  const net::RequestHead link{.method = "GET", .target = location.substr(origin.size()), .headers = headers};
  EXPECT_EQ(send(link, "").body, "the zip's bytes");
  net::RequestHead changed = link;
  changed.target.replace(changed.target.find("/f/"), 3, "/g/");
  EXPECT_EQ(send(changed, "").status, 403);
  clock_.advance(std::chrono::minutes(11));
  EXPECT_EQ(send(link, "").status, 403);
  clock_.advance(-std::chrono::minutes(11));
  call("DELETE", "/2015-03-31/functions/f");
  EXPECT_EQ(send(link, "").status, 404);
}

TEST_F(ApiTest, UpdatesAnswerInProgressAndHonourTheRevision) {
  create();
  expect_error(call("PUT", "/2015-03-31/functions/f/configuration", R"({"Timeout":9})"), 409, "ResourceConflictException",
               "The function is currently in the following state: Pending");
  wait();
  const net::Response updated = call("PUT", "/2015-03-31/functions/f/configuration", R"({"Timeout":9})");
  EXPECT_EQ(updated.status, 200) << updated.body;
  EXPECT_EQ(body_of(updated).at("LastUpdateStatus").as_string(), "InProgress");
  EXPECT_EQ(body_of(call("GET", "/2015-03-31/functions/f/configuration")).at("Timeout").as_int64(), 9);
  expect_error(call("PUT", "/2015-03-31/functions/f/configuration", R"({"Timeout":9,"RevisionId":"old"})"), 412,
               "PreconditionFailedException", "Revision Id");
  const net::Response code = call("PUT", "/2015-03-31/functions/f/code", R"({"ZipFile":"bmV3"})");
  EXPECT_EQ(code.status, 200) << code.body;
  EXPECT_EQ(body_of(code).at("CodeSha256").as_string(), base::base64_encode(base::as_text(base::sha256("new"))));
}

TEST_F(ApiTest, ListsAreCutIntoPages) {
  for (const char* name : {"a", "b", "c"}) create(name);
  wait("b");
  call("POST", "/2015-03-31/functions/b/versions", "{}");
  std::vector<std::string> arns;
  std::string marker;
  std::size_t pages = 0;
  do {
    const json::object page = body_of(call(
        "GET", "/2015-03-31/functions?MaxItems=1&FunctionVersion=ALL" + (marker.empty() ? "" : "&Marker=" + base::percent_encode(marker))));
    for (const json::value& each : page.at("Functions").as_array()) arns.emplace_back(each.at("FunctionArn").as_string());
    marker = page.contains("NextMarker") ? std::string(page.at("NextMarker").as_string()) : "";
    ++pages;
  } while (!marker.empty() && pages < 10);
  EXPECT_EQ(arns, (std::vector<std::string>{kArn + "a:$LATEST", kArn + "b:$LATEST", kArn + "b:1", kArn + "c:$LATEST"}));
  EXPECT_EQ(pages, 4U);
  const json::object plain = body_of(call("GET", "/2015-03-31/functions"));
  EXPECT_EQ(plain.at("Functions").as_array().size(), 3U);
  EXPECT_FALSE(plain.contains("NextMarker"));
  EXPECT_EQ(plain.at("Functions").at(0).at("FunctionArn").as_string(), kArn + "a");
  EXPECT_EQ(call("GET", "/2015-03-31/functions?Marker=nonsense").status, 400);
}

TEST_F(ApiTest, VersionsArePublishedAndListed) {
  create();
  wait();
  EXPECT_EQ(call("POST", "/2015-03-31/functions/f/versions", R"({"Description":"one"})").status, 201);
  const json::object listed = body_of(call("GET", "/2015-03-31/functions/f/versions"));
  ASSERT_EQ(listed.at("Versions").as_array().size(), 2U);
  EXPECT_EQ(listed.at("Versions").at(0).at("FunctionArn").as_string(), kArn + "f:$LATEST");
  EXPECT_EQ(listed.at("Versions").at(1).at("FunctionArn").as_string(), kArn + "f:1");
  const json::object first = body_of(call("GET", "/2015-03-31/functions/f/versions?MaxItems=1"));
  const json::object second = body_of(call("GET", "/2015-03-31/functions/f/versions?MaxItems=1&Marker=" +
                                                      base::percent_encode(std::string(first.at("NextMarker").as_string()))));
  EXPECT_EQ(second.at("Versions").at(0).at("Version").as_string(), "1");
  EXPECT_FALSE(second.contains("NextMarker"));
}

TEST_F(ApiTest, TagsAreSetListedAndTakenAway) {
  create("f", R"(,"Tags":{"a":"1"})");
  const std::string path = "/2017-03-31/tags/" + base::percent_encode(kArn + "f");
  EXPECT_EQ(call("POST", path, R"({"Tags":{"b":"2"}})").status, 204);
  EXPECT_EQ(json::serialize(body_of(call("GET", path))), R"({"Tags":{"a":"1","b":"2"}})");
  EXPECT_EQ(call("DELETE", path + "?tagKeys=a&tagKeys=none").status, 204);
  EXPECT_EQ(json::serialize(body_of(call("GET", path))), R"({"Tags":{"b":"2"}})");
  EXPECT_EQ(json::serialize(body_of(call("GET", "/2015-03-31/functions/f")).at("Tags")), R"({"b":"2"})");
}

TEST_F(ApiTest, TheAccountsSettingsCountWhatIsThere) {
  create("f", "", "12345");
  const json::object settings = body_of(call("GET", "/2016-08-19/account-settings"));
  EXPECT_EQ(settings.at("AccountUsage").at("FunctionCount").as_int64(), 1);
  EXPECT_EQ(settings.at("AccountUsage").at("TotalCodeSize").as_int64(), 5);
  EXPECT_EQ(settings.at("AccountLimit").at("ConcurrentExecutions").as_int64(), 1000);
}

TEST_F(ApiTest, TheCodeSigningConfigurationIsEmpty) {
  create();
  EXPECT_EQ(call("GET", "/2020-06-30/functions/f/code-signing-config").body, "{}");
  EXPECT_EQ(call("GET", "/2020-06-30/functions/g/code-signing-config").status, 404);
}

TEST_F(ApiTest, ARuntimeThatCannotRunHereIsRefusedWhenAsked) {
  context_->check_runtime = [](const std::string& runtime) {
    return Result<void>(Error(ErrorCode::kInvalidArgument, "no interpreter for " + runtime, "InvalidParameterValueException"));
  };
  expect_error(create(), 400, "InvalidParameterValueException", "no interpreter for python3.12");
}

// --- Invoke ---

TEST_F(ApiTest, InvokeCarriesThePayloadThereAndTheAnswerBack) {
  create();
  net::Headers headers;
  headers.add("X-Amzn-Trace-Id", "Root=1-2-3");
  const net::Response response = call("POST", "/2015-03-31/functions/f/invocations", R"({"a":1})", headers);
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, R"({"a":1})");
  EXPECT_EQ(response.headers.get("X-Amz-Executed-Version"), "$LATEST");
  EXPECT_FALSE(response.headers.contains("X-Amz-Function-Error"));
  EXPECT_FALSE(response.headers.contains("X-Amz-Log-Result"));
  EXPECT_EQ(invoker_.last->trace_id, "Root=1-2-3");
  EXPECT_EQ(invoker_.last->invoked_arn, kArn + "f");
  EXPECT_EQ(invoker_.last->request_id, response.headers.get("x-amzn-RequestId"));
  EXPECT_EQ(invoker_.last->call_deadline - clock_.now(), std::chrono::seconds(3) + context_->queue_budget + context_->start_budget);
}

TEST_F(ApiTest, AMissingPayloadArrivesAsAnEmptyObjectAndABrokenOneNever) {
  create();
  EXPECT_EQ(call("POST", "/2015-03-31/functions/f/invocations").body, "{}");
  invoker_.last = nullptr;
  expect_error(call("POST", "/2015-03-31/functions/f/invocations", "{broken"), 400, "InvalidRequestContentException",
               "Could not parse request body into json: Could not parse payload");
  EXPECT_EQ(invoker_.last, nullptr);
}

TEST_F(ApiTest, TheQualifierIsPartOfTheInvokedArn) {
  create();
  wait();
  call("POST", "/2015-03-31/functions/f/versions", "{}");
  EXPECT_EQ(call("POST", "/2015-03-31/functions/f/invocations?Qualifier=1").status, 200);
  EXPECT_EQ(invoker_.last->invoked_arn, kArn + "f:1");
  EXPECT_EQ(invoker_.last->version->version, "1");
}

TEST_F(ApiTest, AFunctionErrorIsAnAnswerWithItsHeader) {
  create();
  invoker_.run = [](engine::Invocation& invocation) {
    engine::Outcome failed = outcome(R"({"errorMessage":"boom"})");
    failed.kind = engine::OutcomeKind::kFunctionError;
    failed.log_tail = "the log";
    invocation.sink->on_outcome(std::move(failed));
  };
  net::Headers headers;
  headers.add("X-Amz-Log-Type", "Tail");
  const net::Response response = call("POST", "/2015-03-31/functions/f/invocations", "{}", headers);
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.get("X-Amz-Function-Error"), "Unhandled");
  EXPECT_EQ(response.headers.get("X-Amz-Log-Result"), base::base64_encode("the log"));
  EXPECT_TRUE(invoker_.last->tail_log);
}

TEST_F(ApiTest, ARefusalIsAnErrorOfItsOwnType) {
  create();
  invoker_.run = [](engine::Invocation& invocation) {
    engine::Outcome refused;
    refused.kind = engine::OutcomeKind::kRefused;
    refused.error = Error(ErrorCode::kResourceExhausted, "Rate Exceeded.", "TooManyRequestsException");
    refused.throttle_reason = "ReservedFunctionConcurrentInvocationLimitExceeded";
    invocation.sink->on_outcome(std::move(refused));
  };
  const net::Response response = call("POST", "/2015-03-31/functions/f/invocations", "{}");
  expect_error(response, 429, "TooManyRequestsException", "Rate Exceeded.");
  EXPECT_EQ(body_of(response).at("Reason").as_string(), "ReservedFunctionConcurrentInvocationLimitExceeded");
  EXPECT_EQ(response.headers.get("Retry-After"), "");
}

TEST_F(ApiTest, ADryRunAnswersNothingAndRunsNothing) {
  create();
  net::Headers headers;
  headers.add("X-Amz-Invocation-Type", "DryRun");
  const net::Response response = call("POST", "/2015-03-31/functions/f/invocations", "{}", headers);
  EXPECT_EQ(response.status, 204);
  EXPECT_EQ(response.body, "");
  EXPECT_EQ(invoker_.last, nullptr);
}

TEST_F(ApiTest, AnEventInvocationIsRefusedByName) {
  create();
  net::Headers headers;
  headers.add("X-Amz-Invocation-Type", "Event");
  expect_error(call("POST", "/2015-03-31/functions/f/invocations", "{}", headers), 400, "UnsupportedOperationException", "Event");
}

TEST_F(ApiTest, APayloadMayHaveSixMegabytesAndABit) {
  create();
  const std::string largest = "\"" + std::string(engine::Limits::kSyncPayloadBytesMax - 2, 'x') + "\"";
  EXPECT_EQ(call("POST", "/2015-03-31/functions/f/invocations", largest).status, 200);
  expect_error(call("POST", "/2015-03-31/functions/f/invocations", largest + " "), 413, "RequestEntityTooLargeException",
               "Request must be smaller than 6291556 bytes for the InvokeFunction operation");
}

TEST_F(ApiTest, WhenTheCallerLeavesTheInvocationRunsOnAndItsOutcomeIsDropped) {
  create();
  invoker_.run = nullptr;
  FakeExchange exchange(signed_head("POST", "/2015-03-31/functions/f/invocations", "{}"), "{}");
  exchange.peer_leaves = true;
  serve(exchange);
  EXPECT_TRUE(exchange.aborted);
  ASSERT_NE(invoker_.last, nullptr);
  invoker_.last->sink->on_outcome(outcome("late"));
  EXPECT_FALSE(exchange.answered());
}

std::vector<net::EventStreamMessage> messages_of(std::string body) {
  std::vector<net::EventStreamMessage> messages;
  while (true) {
    auto message = net::decode_event_stream(body);
    EXPECT_TRUE(message.ok());
    if (!message.ok() || !*message) return messages;
    messages.push_back(**message);
  }
}
std::string header_of(const net::EventStreamMessage& message, const std::string& name) {
  for (const auto& [key, value] : message.headers) {
    if (key == name) return value;
  }
  return "";
}
constexpr const char* kStreamPath = "/2021-11-15/functions/f/response-streaming-invocations";

TEST_F(ApiTest, AStreamIsSentPieceByPieceAndEndsWithInvokeComplete) {
  create();
  std::vector<bool> taken;
  invoker_.run = [&taken](engine::Invocation& invocation) {
    EXPECT_EQ(invocation.mode, engine::ResponseMode::kStreaming);
    auto sink = invocation.sink;
    sink->on_stream_begin("text/plain");
    sink->on_stream_piece("one", [&taken, sink](bool more) {
      taken.push_back(more);
      sink->on_stream_piece("two", [&taken, sink](bool again) {
        taken.push_back(again);
        sink->on_outcome(outcome(""));
      });
    });
  };
  FakeExchange exchange(signed_head("POST", kStreamPath, "{}"), "{}");
  serve(exchange);
  EXPECT_EQ(exchange.response.status, 200);
  EXPECT_EQ(exchange.response.headers.get("Content-Type"), "text/plain");
  EXPECT_TRUE(exchange.finished);
  EXPECT_EQ(taken, (std::vector<bool>{true, true}));
  const auto messages = messages_of(exchange.response.body);
  ASSERT_EQ(messages.size(), 3U);
  EXPECT_EQ(header_of(messages[0], ":event-type"), "PayloadChunk");
  EXPECT_EQ(messages[0].payload, "one");
  EXPECT_EQ(messages[1].payload, "two");
  EXPECT_EQ(header_of(messages[2], ":event-type"), "InvokeComplete");
  EXPECT_EQ(messages[2].payload, "{}");
}

TEST_F(ApiTest, AnAnswerThatIsNoStreamArrivesAsOnePiece) {
  create();
  FakeExchange exchange(signed_head("POST", kStreamPath, "[1]"), "[1]");
  serve(exchange);
  const auto messages = messages_of(exchange.response.body);
  ASSERT_EQ(messages.size(), 2U);
  EXPECT_EQ(messages[0].payload, "[1]");
}

TEST_F(ApiTest, AFunctionErrorEndsTheStreamWithItsCode) {
  create();
  invoker_.run = [](engine::Invocation& invocation) {
    engine::Outcome failed = outcome(R"({"errorType":"Boom"})");
    failed.kind = engine::OutcomeKind::kFunctionError;
    failed.error_type = "Boom";
    invocation.sink->on_outcome(std::move(failed));
  };
  FakeExchange exchange(signed_head("POST", kStreamPath, "{}"), "{}");
  serve(exchange);
  const auto messages = messages_of(exchange.response.body);
  ASSERT_EQ(messages.size(), 1U);
  const json::object complete = json::parse(messages[0].payload).as_object();
  EXPECT_EQ(complete.at("ErrorCode").as_string(), "Boom");
  EXPECT_EQ(complete.at("ErrorDetails").as_string(), R"({"errorType":"Boom"})");
}

TEST_F(ApiTest, AReaderThatLeavesStopsTheStream) {
  create();
  std::vector<bool> taken;
  invoker_.run = [&taken](engine::Invocation& invocation) {
    auto sink = invocation.sink;
    sink->on_stream_begin("text/plain");
    sink->on_stream_piece("one", [&taken, sink](bool) { sink->on_stream_piece("two", [&taken](bool more) { taken.push_back(more); }); });
  };
  FakeExchange exchange(signed_head("POST", kStreamPath, "{}"), "{}");
  exchange.leaves_after = 1;
  serve(exchange);
  EXPECT_EQ(taken, (std::vector<bool>{false}));
  EXPECT_TRUE(exchange.aborted);
}

TEST_F(ApiTest, ARefusedStreamIsAnOrdinaryError) {
  create();
  invoker_.run = [](engine::Invocation& invocation) {
    engine::Outcome refused;
    refused.kind = engine::OutcomeKind::kRefused;
    refused.error = Error(ErrorCode::kResourceExhausted, "Rate Exceeded.", "TooManyRequestsException");
    refused.throttle_reason = "ReservedFunctionConcurrentInvocationLimitExceeded";
    invocation.sink->on_outcome(std::move(refused));
  };
  const net::Response response = call("POST", kStreamPath, "{}");
  expect_error(response, 429, "TooManyRequestsException", "Rate Exceeded.");
  EXPECT_EQ(body_of(response).at("Reason").as_string(), "ReservedFunctionConcurrentInvocationLimitExceeded");
}

// --- Inside an environment ---

class DataDoorTest : public ApiTest {
 protected:
  DataDoorTest() {
    create();
    const auto issued = credentials_->issue({.function_arn = kArn + "f:$LATEST",
                                             .role_arn = "arn:aws:iam::000000000000:role/r",
                                             .session = "f-one",
                                             .log_group = "/aws/lambda/f"});
    const access::Credential& mine = **issued;
    const auto other = credentials_->issue({.function_arn = kArn + "f:$LATEST",
                                            .role_arn = "arn:aws:iam::000000000000:role/r",
                                            .session = "f-two",
                                            .log_group = "/aws/lambda/f"});
    handler_ = data_handler(*context_, mine.principal.access_key);
    account_ = key_;
    key_ = {.access_key = mine.principal.access_key, .secret_key = mine.secret_key, .session_token = mine.session_token};
    neighbour_ = {
        .access_key = (*other)->principal.access_key, .secret_key = (*other)->secret_key, .session_token = (*other)->session_token};
  }
  net::SigningKey account_, neighbour_;
};

TEST_F(DataDoorTest, AFunctionMayInvokeAndAskWhoItIs) {
  EXPECT_EQ(call("POST", "/2015-03-31/functions/f/invocations", "[2]").body, "[2]");
  const std::string form = "Action=GetCallerIdentity&Version=2011-06-15";
  const net::Response identity = send(signed_head("POST", "/", form, "sts"), form);
  EXPECT_EQ(identity.status, 200);
  EXPECT_NE(identity.body.find("<Arn>arn:aws:sts::000000000000:assumed-role/r/f-one</Arn>"), std::string::npos) << identity.body;
}

TEST_F(DataDoorTest, ManagementIsDenied) {
  expect_error(call("GET", "/2015-03-31/functions"), 403, "AccessDeniedException", "lambda:ListFunctions");
  expect_error(call("DELETE", "/2015-03-31/functions/f"), 403, "AccessDeniedException", "lambda:DeleteFunction");
  EXPECT_NE(registry_->find("f"), nullptr);
  EXPECT_EQ(logs("DeleteLogGroup", R"({"logGroupName":"/aws/lambda/f"})").status, 400);
  EXPECT_EQ(send({.method = "GET", .target = "/metrics", .headers = {}}, "").status, 403);
  EXPECT_EQ(send({.method = "GET", .target = "/healthz", .headers = {}}, "").status, 403);
}

TEST_F(DataDoorTest, OtherKeysAreRefusedEvenWhenTheyAreValid) {
  key_ = account_;
  EXPECT_EQ(call("POST", "/2015-03-31/functions/f/invocations", "{}").status, 403);
  key_ = neighbour_;
  EXPECT_EQ(call("POST", "/2015-03-31/functions/f/invocations", "{}").status, 403);
}

TEST_F(DataDoorTest, CredentialsDieWithTheirEnvironment) {
  credentials_->revoke(key_.access_key);
  EXPECT_EQ(call("POST", "/2015-03-31/functions/f/invocations", "{}").status, 403);
}

TEST_F(DataDoorTest, TheManagementDoorRefusesWhatARoleMayNotDo) {
  handler_ = management_handler(*context_);
  EXPECT_EQ(call("POST", "/2015-03-31/functions/f/invocations", "[3]").body, "[3]");
  EXPECT_EQ(call("DELETE", "/2015-03-31/functions/f").status, 403);
}

// --- STS ---

TEST_F(ApiTest, StsTellsWhoCallsInXmlAndInJson) {
  const std::string form = "Action=GetCallerIdentity&Version=2011-06-15";
  const net::Response identity = send(signed_head("POST", "/", form, "sts"), form);
  EXPECT_EQ(identity.status, 200);
  EXPECT_NE(identity.body.find("<Account>000000000000</Account>"), std::string::npos);
  EXPECT_NE(identity.body.find("<Arn>arn:aws:iam::000000000000:root</Arn>"), std::string::npos);
  net::Headers headers;
  headers.add("X-Amz-Target", "AWSSecurityTokenServiceV20110615.GetCallerIdentity");
  EXPECT_EQ(body_of(send(signed_head("POST", "/", "{}", "sts", headers), "{}")).at("Account").as_string(), "000000000000");
}

TEST_F(ApiTest, StsErrorsAreXml) {
  const std::string form = "Action=GetFederationToken";
  const net::Response refused = send(signed_head("POST", "/", form, "sts"), form);
  EXPECT_EQ(refused.status, 400);
  EXPECT_NE(refused.body.find("<Code>UnsupportedOperation</Code>"), std::string::npos) << refused.body;
  key_.secret_key = "wrong";
  EXPECT_NE(send(signed_head("POST", "/", form, "sts"), form).body.find("<Code>SignatureDoesNotMatch</Code>"), std::string::npos);
}

// --- Logs ---

class LogsTest : public ApiTest {
 protected:
  void append(const std::string& stream, std::int64_t time_ms, const std::string& message) {
    segments_->append("/aws/lambda/f", stream, time_ms, message);
  }
  static std::vector<std::string> texts(const net::Response& response) {
    std::vector<std::string> found;
    for (const json::value& each : body_of(response).at("events").as_array()) found.emplace_back(each.at("message").as_string());
    return found;
  }
  const std::int64_t now_ms_ = base::epoch_ms(clock_.wall_now());
};
using Texts = std::vector<std::string>;

TEST_F(LogsTest, GroupsAndStreamsAreDescribed) {
  append("s1", now_ms_, "a");
  append("s2", now_ms_ + 5, "b");
  const json::object groups = body_of(logs("DescribeLogGroups", R"({"logGroupNamePrefix":"/aws"})"));
  ASSERT_EQ(groups.at("logGroups").as_array().size(), 1U);
  EXPECT_EQ(groups.at("logGroups").at(0).at("arn").as_string(), "arn:aws:logs:us-east-1:000000000000:log-group:/aws/lambda/f:*");
  const json::object streams =
      body_of(logs("DescribeLogStreams", R"({"logGroupName":"/aws/lambda/f","orderBy":"LastEventTime","descending":true,"limit":1})"));
  ASSERT_EQ(streams.at("logStreams").as_array().size(), 1U);
  EXPECT_EQ(streams.at("logStreams").at(0).at("logStreamName").as_string(), "s2");
  const json::object rest =
      body_of(logs("DescribeLogStreams", R"({"logGroupName":"/aws/lambda/f","orderBy":"LastEventTime","descending":true,"nextToken":")" +
                                             std::string(streams.at("nextToken").as_string()) + "\"}"));
  EXPECT_EQ(rest.at("logStreams").at(0).at("logStreamName").as_string(), "s1");
}

TEST_F(LogsTest, EventsPageForwardUntilTheTokenStaysTheSame) {
  for (int i = 0; i < 5; ++i) append("s", now_ms_ + i, "m" + std::to_string(i));
  std::string token;
  Texts all;
  for (int page = 0; page < 10; ++page) {
    const std::string more = token.empty() ? "" : R"(,"nextToken":")" + token + "\"";
    const net::Response response =
        logs("GetLogEvents", R"({"logGroupName":"/aws/lambda/f","logStreamName":"s","limit":2,"startFromHead":true)" + more + "}");
    ASSERT_EQ(response.status, 200) << response.body;
    for (const std::string& text : texts(response)) all.push_back(text);
    const std::string next(body_of(response).at("nextForwardToken").as_string());
    if (next == token) break;
    token = next;
  }
  EXPECT_EQ(all, (Texts{"m0", "m1", "m2", "m3", "m4"}));
  append("s", now_ms_ + 9, "later");
  EXPECT_EQ(texts(logs("GetLogEvents", R"({"logGroupName":"/aws/lambda/f","logStreamName":"s","nextToken":")" + token + "\"}")),
            (Texts{"later"}));
}

TEST_F(LogsTest, EventsPageBackwardFromTheNewest) {
  for (int i = 0; i < 3; ++i) append("s", now_ms_ + i, "m" + std::to_string(i));
  const net::Response newest = logs("GetLogEvents", R"({"logGroupName":"/aws/lambda/f","logStreamName":"s","limit":2})");
  EXPECT_EQ(texts(newest), (Texts{"m1", "m2"}));
  const std::string token(body_of(newest).at("nextBackwardToken").as_string());
  const net::Response older =
      logs("GetLogEvents", R"({"logGroupName":"/aws/lambda/f","logStreamName":"s","limit":2,"nextToken":")" + token + "\"}");
  EXPECT_EQ(texts(older), (Texts{"m0"}));
  const std::string last(body_of(older).at("nextBackwardToken").as_string());
  const net::Response none = logs("GetLogEvents", R"({"logGroupName":"/aws/lambda/f","logStreamName":"s","nextToken":")" + last + "\"}");
  EXPECT_EQ(texts(none), Texts());
  EXPECT_EQ(body_of(none).at("nextBackwardToken").as_string(), last);
}

TEST_F(LogsTest, AFilterFindsAcrossStreamsInTimeOrder) {
  append("s2", now_ms_ + 2, "ERROR two");
  append("s1", now_ms_ + 1, "ERROR one");
  append("s1", now_ms_ + 3, "fine");
  const net::Response found = logs("FilterLogEvents", R"({"logGroupName":"/aws/lambda/f","filterPattern":"ERROR"})");
  EXPECT_EQ(texts(found), (Texts{"ERROR one", "ERROR two"}));
  EXPECT_FALSE(body_of(found).contains("nextToken"));
  EXPECT_EQ(texts(logs("FilterLogEvents", R"({"logGroupName":"/aws/lambda/f","startTime":)" + std::to_string(now_ms_ + 2) +
                                              R"(,"endTime":)" + std::to_string(now_ms_ + 2) + "}")),
            (Texts{"ERROR two"}));
  EXPECT_EQ(texts(logs("FilterLogEvents", R"({"logGroupName":"/aws/lambda/f","logStreamNamePrefix":"s1"})")), (Texts{"ERROR one", "fine"}));
}

TEST_F(LogsTest, AFilterContinuesWhereItsTokenSays) {
  for (int i = 0; i < 5; ++i) append("s", now_ms_ + i, (i % 2 == 0 ? "even " : "odd ") + std::to_string(i));
  const net::Response first = logs("FilterLogEvents", R"({"logGroupName":"/aws/lambda/f","filterPattern":"even","limit":2})");
  EXPECT_EQ(texts(first), (Texts{"even 0", "even 2"}));
  const std::string token(body_of(first).at("nextToken").as_string());
  const net::Response rest =
      logs("FilterLogEvents", R"({"logGroupName":"/aws/lambda/f","filterPattern":"even","nextToken":")" + token + "\"}");
  EXPECT_EQ(texts(rest), (Texts{"even 4"}));
  EXPECT_FALSE(body_of(rest).contains("nextToken"));
}

TEST_F(LogsTest, FaultsAreClearErrorsOfTheService) {
  expect_error(logs("GetLogEvents", R"({"logGroupName":"/none","logStreamName":"s"})"), 400, "ResourceNotFoundException",
               "The specified log group does not exist.");
  append("s", now_ms_, "a");
  expect_error(logs("GetLogEvents", R"({"logGroupName":"/aws/lambda/f","logStreamName":"t"})"), 400, "ResourceNotFoundException",
               "The specified log stream does not exist.");
  expect_error(logs("GetLogEvents", R"({"logGroupName":"/aws/lambda/f","logStreamName":"s","nextToken":"x"})"), 400,
               "InvalidParameterException", "nextToken");
  expect_error(logs("FilterLogEvents", R"({"logGroupName":"/aws/lambda/f","limit":10001})"), 400, "InvalidParameterException",
               "less than or equal to 10000");
  expect_error(logs("FilterLogEvents", R"({"logGroupName":"/aws/lambda/f","filterPattern":"[a,b]"})"), 400, "InvalidParameterException",
               "columns");
  expect_error(logs("FilterLogEvents", "{}"), 400, "InvalidParameterException", "logGroupName");
  expect_error(logs("FilterLogEvents", "nonsense"), 400, "SerializationException", "");
  expect_error(logs("StartLiveTail", "{}"), 400, "UnsupportedOperationException", "StartLiveTail");
  expect_error(logs("PutRetentionPolicy", R"({"logGroupName":"/aws/lambda/f","retentionInDays":1})"), 400, "UnsupportedOperationException",
               "PutRetentionPolicy");
}

TEST_F(LogsTest, GroupsAreMadeAndDeleted) {
  EXPECT_EQ(logs("CreateLogGroup", R"({"logGroupName":"mine"})").status, 200);
  expect_error(logs("CreateLogGroup", R"({"logGroupName":"mine"})"), 400, "ResourceAlreadyExistsException", "already exists");
  EXPECT_EQ(logs("DeleteLogGroup", R"({"logGroupName":"mine"})").status, 200);
  expect_error(logs("DeleteLogGroup", R"({"logGroupName":"mine"})"), 400, "ResourceNotFoundException", "log group");
}

TEST_F(ApiTest, ACopyOfAnObjectEndsWithItsPeer) {
  const auto objects = *store::open_objects(directory_ + "/objects.db", directory_ + "/objects");
  services::Buckets buckets(*objects, engine::Account{}, clock_);
  base::WorkerPool object_pool("test-objects", 1);
  context_->buckets = &buckets;
  context_->object_pool = &object_pool;
  ASSERT_TRUE(buckets.create_bucket("bucket", std::nullopt).ok());
  const std::string bytes(3U << 20U, 'x');
  const auto body = *buckets.receive("bucket", "k", {.size = bytes.size()});
  ASSERT_TRUE(body->append(bytes).ok());
  ASSERT_TRUE(body->finish().ok());
  ASSERT_TRUE(buckets.put_object({.bucket = "bucket", .key = "k"}, {}, *body, {}).ok());
  const auto copy = [&](bool peer_leaves) {
    net::Headers headers;
    headers.add("x-amz-copy-source", "bucket/k");
    headers.add("x-amz-checksum-algorithm", "CRC32");  // which the source does not have, so its bytes are read
    FakeExchange exchange(signed_head("PUT", "/bucket/copy", "", "s3", headers), "");
    exchange.peer_leaves = peer_leaves;
    serve(exchange);
    return exchange.response.status;
  };
  EXPECT_NE(copy(true), 200);
  EXPECT_EQ(buckets.find_object({.bucket = "bucket", .key = "copy"}).error().id(), "NoSuchKey");
  EXPECT_TRUE(std::filesystem::is_empty(directory_ + "/objects/incoming"));
  EXPECT_EQ(copy(false), 200);
  EXPECT_EQ(buckets.read_object({.bucket = "bucket", .key = "copy"}, bytes.size()).value_or(""), bytes);
}

}  // namespace
}  // namespace mayfly::api
