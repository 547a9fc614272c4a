#include "net/sigv4.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <map>

#include "base/fd.h"
#include "base/json.h"
#include "net/internal/sigv4_canonical.h"

namespace mayfly::net {
namespace {

namespace json = boost::json;

constexpr const char* kSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

struct Vector {
  std::string name, kind, canonical, body;
  RequestHead head;
  base::WallTime now;
};

std::string text(const json::object& object, std::string_view key) {
  const json::value& value = object.at(json::string_view(key.data(), key.size()));
  return value.is_string() ? std::string(value.get_string()) : std::string();
}

// The requests of tests/golden/sigv4: signed by botocore, or caught from boto3 and the AWS SDK for JavaScript.
const std::vector<Vector>& vectors() {
  static const std::vector<Vector> all = [] {
    const std::string file = base::read_file(MAYFLY_SOURCE_DIR "/tests/golden/sigv4/vectors.json").value();
    const json::value document = base::parse_json(file).value();
    std::vector<Vector> made;
    for (const json::value& item : document.at("vectors").as_array()) {
      const json::object& object = item.as_object();
      Vector vector;
      vector.name = text(object, "name");
      vector.kind = text(object, "kind");
      vector.canonical = text(object, "canonical");
      vector.body = text(object, "body");
      vector.head.method = text(object, "method");
      vector.head.target = text(object, "target");
      for (const json::value& field : object.at("headers").as_array())
        vector.head.headers.add(std::string(field.at(0).as_string()), std::string(field.at(1).as_string()));
      vector.now = base::parse_amz_date(text(object, "now")).value();
      made.push_back(std::move(vector));
    }
    return made;
  }();
  return all;
}

const Vector& vector_named(std::string_view name) {
  return *std::ranges::find_if(vectors(), [name](const Vector& vector) { return vector.name.starts_with(name); });
}

// The whole way of one request; "" or the error's type.
base::Result<std::string> authenticate(const RequestHead& head, const std::string& body, base::WallTime now,
                                       const std::string& secret = kSecret) {
  MAYFLY_ASSIGN(SignatureClaim claim, parse_claim(head));
  if (claim.payload_hash.empty()) claim.payload_hash = payload_hash(body);
  MAYFLY_TRY(verify_claim(claim, head, secret, now));
  if (is_streaming(claim)) return decode_aws_chunked(claim, body, secret, std::nullopt);
  MAYFLY_TRY(check_payload(claim, body));
  return body;
}
std::string failure(const RequestHead& head, const std::string& body, base::WallTime now, const std::string& secret = kSecret) {
  const auto result = authenticate(head, body, now, secret);
  return result.ok() ? "" : result.error().id();
}
std::string complaint(const RequestHead& head, const std::string& body, base::WallTime now) {
  const auto result = authenticate(head, body, now);
  return result.ok() ? "" : result.error().message();
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

RequestHead signed_request(const std::string& service, base::WallTime now, const std::string& target = "/2015-03-31/functions?MaxItems=5") {
  RequestHead head{.method = "POST", .target = target, .headers = {}};
  head.headers.add("Host", "127.0.0.1:9000");
  head.headers.add("Content-Type", "application/json");
  head.headers.add("X-Amz-Target", "Logs_20140328.DescribeLogGroups");
  sign_request(head, "{}", {.access_key = "AKIDEXAMPLE", .secret_key = kSecret, .session_token = ""},
               {.region = "us-east-1", .service = service}, now);
  return head;
}

const base::WallTime kNow = base::parse_amz_date("20150830T123600Z").value();

// --- What other implementations sign ---

TEST(Sigv4, CanonicalRequestsAreThoseOfBotocore) {
  std::size_t compared = 0;
  for (const Vector& vector : vectors()) {
    if (vector.canonical.empty()) continue;
    const auto claim = parse_claim(vector.head);
    ASSERT_TRUE(claim.ok()) << vector.name << ": " << claim.error().message();
    const std::string hash = claim->payload_hash.empty() ? payload_hash(vector.body) : claim->payload_hash;
    const auto made = internal::canonical_request(vector.head, claim->signed_headers, {.service = claim->service, .payload_hash = hash});
    ASSERT_TRUE(made.ok()) << vector.name;
    EXPECT_EQ(*made, vector.canonical) << vector.name;
    ++compared;
  }
  EXPECT_GE(compared, 38U);
}

TEST(Sigv4, EveryRequestOfBotocoreBoto3AndTheJavaScriptSdkIsAccepted) {
  std::map<std::string, int> kinds;
  for (const Vector& vector : vectors()) {
    const auto body = authenticate(vector.head, vector.body, vector.now);
    EXPECT_TRUE(body.ok()) << vector.kind << " " << vector.name << ": " << body.error().message();
    ++kinds[vector.kind];
  }
  EXPECT_GE(kinds["suite"], 34);
  EXPECT_GE(kinds["s3"], 4);
  EXPECT_GE(kinds["presigned"], 4);
  EXPECT_GE(kinds["boto3"], 6);
  EXPECT_GE(kinds["javascript"], 6);
}

TEST(Sigv4, AStreamOfTheJavaScriptSdkIsUnwrapped) {
  const Vector& vector = vector_named("javascript PUT /b-ucket/k?");
  const auto body = authenticate(vector.head, vector.body, vector.now);
  ASSERT_TRUE(body.ok()) << body.error().message();
  EXPECT_EQ(*body, "streamed");
}

// --- Tampering ---

TEST(Sigv4, AnotherSecretFails) {
  for (const Vector& vector : vectors())
    EXPECT_NE(failure(vector.head, vector.body, vector.now, "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEy"), "") << vector.name;
}

TEST(Sigv4, AnotherMethodPathOrQueryFails) {
  for (const Vector& vector : vectors()) {
    RequestHead method = vector.head;
    method.method = method.method == "GET" ? "HEAD" : "GET";
    EXPECT_NE(failure(method, vector.body, vector.now), "") << vector.name;
    RequestHead path = vector.head;
    path.target.insert(path.path().size(), "x");
    EXPECT_NE(failure(path, vector.body, vector.now), "") << vector.name;
    RequestHead query = vector.head;
    query.target += query.query().empty() ? "?x" : "&x";
    EXPECT_NE(failure(query, vector.body, vector.now), "") << vector.name;
    if (!query.query().empty() && vector.head.query().contains('=')) {
      RequestHead value = vector.head;
      value.target += "1";
      EXPECT_NE(failure(value, vector.body, vector.now), "") << vector.name;
    }
  }
}

TEST(Sigv4, ChangingRepeatingOrDroppingASignedHeaderFails) {
  std::size_t tried = 0;
  for (const Vector& vector : vectors()) {
    const auto claim = parse_claim(vector.head);
    ASSERT_TRUE(claim.ok());
    for (const std::string& name : claim->signed_headers) {
      RequestHead changed = vector.head;
      changed.headers.set(name, std::string(vector.head.headers.get(name)) + "1");
      EXPECT_NE(failure(changed, vector.body, vector.now), "") << vector.name << " " << name;
      RequestHead repeated = vector.head;
      repeated.headers.add(name, std::string(vector.head.headers.get(name)));
      EXPECT_NE(failure(repeated, vector.body, vector.now), "") << vector.name << " " << name;
      RequestHead dropped = vector.head;
      dropped.headers.remove(name);
      EXPECT_NE(failure(dropped, vector.body, vector.now), "") << vector.name << " " << name;
      ++tried;
    }
  }
  EXPECT_GT(tried, 100U);
}

TEST(Sigv4, AnUnsignedAmzHeaderFailsAndOtherUnsignedHeadersDoNot) {
  for (const Vector& vector : vectors()) {
    RequestHead added = vector.head;
    added.headers.add("X-Amz-Invocation-Type", "Event");
    EXPECT_NE(failure(added, vector.body, vector.now), "") << vector.name;
    RequestHead harmless = vector.head;
    harmless.headers.add("Via", "1.1 proxy");
    EXPECT_EQ(failure(harmless, vector.body, vector.now), "") << vector.name;
  }
  RequestHead lambda = signed_request("lambda", kNow);
  lambda.headers.add("x-aMz-Log-Type", "Tail");
  EXPECT_EQ(complaint(lambda, "{}", kNow), "'x-amz-log-type' must be a 'SignedHeader' in the AWS Authorization.");
  RequestHead s3 = vector_named("s3-object").head;
  s3.headers.add("x-amz-copy-source", "/other/object");
  EXPECT_EQ(failure(s3, "", kNow), "AccessDenied");
}

TEST(Sigv4, AnotherBodyFails) {
  for (const Vector& vector : vectors()) {
    if (vector.kind == "presigned" && vector.name == "s3-object") continue;  // signed as UNSIGNED-PAYLOAD
    if (vector.body.contains("x-amz-checksum")) continue;                    // as STREAMING-UNSIGNED-PAYLOAD-TRAILER
    EXPECT_NE(failure(vector.head, vector.body + " ", vector.now), "") << vector.name;
  }
  EXPECT_EQ(failure(signed_request("lambda", kNow), "[]", kNow), "InvalidSignatureException");
  EXPECT_EQ(failure(signed_request("s3", kNow), "[]", kNow), "XAmzContentSHA256Mismatch");
}

TEST(Sigv4, EveryPartOfTheAuthorizationHeaderCounts) {
  const Vector& vector = vector_named("boto3 POST /2015");
  const std::string good(vector.head.headers.get("Authorization"));
  const std::string date = base::format_amz_date(vector.now).substr(0, 8);
  const auto with = [&](const std::string& authorization) {
    RequestHead head = vector.head;
    head.headers.set("Authorization", authorization);
    return failure(head, vector.body, vector.now);
  };
  EXPECT_EQ(with(good), "");
  EXPECT_EQ(with(replaced(replaced(good, ", ", ","), ", ", ",")), "") << "clients write the comma without a space too";
  EXPECT_EQ(with(replaced(good, "/us-east-1/", "/us-east-2/")), "InvalidSignatureException");
  EXPECT_EQ(with(replaced(good, "/lambda/", "/sts/")), "InvalidSignatureException");
  EXPECT_EQ(with(replaced(good, date, "20200101")), "InvalidSignatureException");
  EXPECT_EQ(with(replaced(good, "aws4_request", "aws5_request")), "InvalidSignatureException");
  EXPECT_EQ(with(replaced(good, "host;", "")), "InvalidSignatureException");
  EXPECT_EQ(with(replaced(good, ";x-amz-log-type", "")), "InvalidSignatureException");
  EXPECT_EQ(with(replaced(good, ";x-amz-log-type", ";x-amz-log-type;x-amz-more")), "InvalidSignatureException");
  EXPECT_EQ(with(good.substr(0, good.size() - 1)), "InvalidSignatureException");
  EXPECT_EQ(with(good + "0"), "InvalidSignatureException");
  std::string upper = good;
  std::transform(upper.end() - 64, upper.end(), upper.end() - 64,
                 [](char c) { return c >= 'a' && c <= 'f' ? static_cast<char>(c - 32) : c; });
  EXPECT_EQ(with(upper), "InvalidSignatureException");
  for (std::size_t i = good.size() - 64; i < good.size(); ++i) {
    std::string flipped = good;
    flipped[i] = flipped[i] == '0' ? '1' : '0';
    EXPECT_EQ(with(flipped), "InvalidSignatureException");
  }
  // The access key is what the secret is looked up by; it is not under the signature.
  EXPECT_EQ(with(replaced(good, "Credential=AKIDEXAMPLE/", "Credential=AKI/DEXAMPLE/")), "IncompleteSignatureException");
  EXPECT_EQ(with(good + ", Signature=" + std::string(64, '0')), "IncompleteSignatureException");
}

TEST(Sigv4, SpellingsThatMeanTheSameAreTheSame) {
  const Vector& vector = vector_named("boto3 DELETE");
  RequestHead head = vector.head;
  head.target = replaced(head.target, "tagKeys=b&tagKeys=a&", "tagKeys=a&tagKeys=b&");
  EXPECT_EQ(failure(head, vector.body, vector.now), "") << "order of parameters";
  head.target = replaced(head.target, "a%20b", "a+b");
  EXPECT_EQ(failure(head, vector.body, vector.now), "") << "+ is a space, as parse_query reads it";
  head.target = replaced(head.target, "%2B", "+");
  EXPECT_EQ(failure(head, vector.body, vector.now), "InvalidSignatureException") << "an encoded + is not a space";
  RequestHead path = vector.head;
  path.target = replaced(path.target, "%3A", ":");
  EXPECT_EQ(failure(path, vector.body, vector.now), "InvalidSignatureException") << "the path is signed as sent";
}

// --- Time and scope ---

TEST(Sigv4, TheWindowIsFiveMinutesAndFifteenForS3) {
  using std::chrono::minutes;
  using std::chrono::seconds;
  const RequestHead head = signed_request("lambda", kNow);
  EXPECT_EQ(failure(head, "{}", kNow + minutes(5)), "");
  EXPECT_EQ(failure(head, "{}", kNow - minutes(5)), "");
  EXPECT_EQ(complaint(head, "{}", kNow + minutes(5) + seconds(1)),
            "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T124101Z - 5 min.)");
  EXPECT_EQ(complaint(head, "{}", kNow - minutes(5) - seconds(1)),
            "Signature not yet current: 20150830T123600Z is still later than 20150830T123559Z (20150830T123059Z + 5 min.)");
  EXPECT_EQ(failure(head, "{}", kNow + minutes(6)), "InvalidSignatureException");
  const RequestHead s3 = signed_request("s3", kNow);
  EXPECT_EQ(failure(s3, "{}", kNow + minutes(15)), "");
  EXPECT_EQ(failure(s3, "{}", kNow + minutes(16)), "RequestTimeTooSkewed");
}

TEST(Sigv4, AScopeOfAnotherDayFails) {
  RequestHead head = signed_request("lambda", kNow);
  head.headers.set("Authorization", replaced(std::string(head.headers.get("Authorization")), "20150830", "20150829"));
  EXPECT_EQ(complaint(head, "{}", kNow),
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '20150829' != '20150830', from "
            "'20150830T123600Z'.");
}

TEST(Sigv4, TheScopeMustNameThisRegionAndService) {
  const auto claim = parse_claim(signed_request("lambda", kNow));
  ASSERT_TRUE(claim.ok());
  EXPECT_TRUE(check_scope(*claim, {.region = "us-east-1", .service = "lambda"}).ok());
  EXPECT_TRUE(check_scope(*claim, {.region = "us-east-1", .service = ""}).ok());
  const auto service = check_scope(*claim, {.region = "us-east-1", .service = "logs"});
  ASSERT_FALSE(service.ok());
  EXPECT_EQ(service.error().message(), "Credential should be scoped to correct service: 'logs'.");
  EXPECT_EQ(service.error().id(), "InvalidSignatureException");
  const auto region = check_scope(*claim, {.region = "eu-west-1", .service = "lambda"});
  ASSERT_FALSE(region.ok());
  EXPECT_TRUE(region.error().message().starts_with("Credential should be scoped to a valid region, not 'us-east-1'"))
      << region.error().message();
}

TEST(Sigv4, TheDateHeaderStandsInForAmzDateWhenSigned) {
  const Vector& vector = vector_named("post-date-header");
  ASSERT_FALSE(vector.head.headers.contains("X-Amz-Date"));
  EXPECT_EQ(failure(vector.head, "", vector.now), "");
  RequestHead without = vector.head;
  without.headers.set("Authorization", replaced(std::string(without.headers.get("Authorization")), "date;", ""));
  EXPECT_EQ(complaint(without, "", vector.now), "'date' must be a 'SignedHeader' in the AWS Authorization.");
}

// --- What is said about broken requests ---

TEST(Sigv4, AnUnsignedRequestIsTold) {
  RequestHead head{.method = "GET", .target = "/2015-03-31/functions", .headers = {}};
  EXPECT_EQ(failure(head, "", kNow), "MissingAuthenticationTokenException");
  EXPECT_EQ(complaint(head, "", kNow), "Missing Authentication Token");
}

TEST(Sigv4, MissingPartsAreNamedAndTheHeaderIsNotEchoed) {
  RequestHead head{.method = "GET", .target = "/", .headers = {}};
  head.headers.add("Host", "localhost");
  head.headers.add("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/lambda/aws4_request, SignedHeaders=host");
  EXPECT_EQ(failure(head, "", kNow), "IncompleteSignatureException");
  const std::string message = complaint(head, "", kNow);
  EXPECT_TRUE(message.starts_with(
      "Authorization header requires 'Signature' parameter. Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' "
      "header. (Hashed with SHA-256 and encoded with Base64) Authorization="))
      << message;
  EXPECT_FALSE(message.contains("AKIDEXAMPLE"));
  head.headers.set("Authorization", "AWS4-HMAC-SHA256 nonsense");
  EXPECT_EQ(failure(head, "", kNow), "IncompleteSignatureException");
  head.headers.set("Authorization", "Bearer abc");
  EXPECT_EQ(complaint(head, "", kNow), "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.");
}

TEST(Sigv4, TwoWaysOfSigningAtOnceAreRefused) {
  RequestHead head = signed_request("lambda", kNow);
  head.target += "&X-Amz-Signature=" + std::string(64, '0');
  EXPECT_EQ(failure(head, "{}", kNow), "IncompleteSignatureException");
  RequestHead twice = signed_request("lambda", kNow);
  twice.headers.add("authorization", std::string(twice.headers.get("Authorization")));
  EXPECT_EQ(failure(twice, "{}", kNow), "IncompleteSignatureException");
}

TEST(Sigv4, AnUnsignedPayloadIsForS3AndPresignedUrlsOnly) {
  RequestHead head{.method = "PUT", .target = "/", .headers = {}};
  head.headers.add("Host", "localhost");
  head.headers.add("X-Amz-Date", "20150830T123600Z");
  for (const char* hash : {"UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}) {
    head.headers.set("X-Amz-Content-SHA256", hash);
    for (const char* service : {"lambda", "s3"}) {
      head.headers.set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/" + std::string(service) +
                                            "/aws4_request, SignedHeaders=host, Signature=" + std::string(64, '0'));
      EXPECT_EQ(parse_claim(head).ok(), std::string_view(service) == "s3") << hash << " " << service;
    }
  }
  head.headers.set("X-Amz-Content-SHA256", "none");
  EXPECT_EQ(parse_claim(head).error().id(), "AuthorizationHeaderMalformed");
}

TEST(Sigv4, AVerificationWithoutTheBodysHashFailsClosed) {
  const Vector& vector = vector_named("boto3 GET");
  const auto claim = parse_claim(vector.head);
  ASSERT_TRUE(claim.ok());
  ASSERT_TRUE(claim->payload_hash.empty());
  EXPECT_EQ(verify_claim(*claim, vector.head, kSecret, vector.now).error().code(), base::ErrorCode::kInternal);
}

// --- Signing ---

TEST(Sigv4, WhatIsSignedHereVerifiesHere) {
  for (const char* service : {"lambda", "s3", "logs", "sts"}) {
    EXPECT_EQ(failure(signed_request(service, kNow, "/a%20b/%3A//c/../d?b=2&a=1&a=&c"), "{}", kNow), "") << service;
  }
  RequestHead head = signed_request("lambda", kNow);
  sign_request(head, "{}", {.access_key = "ASIAEXAMPLE", .secret_key = kSecret, .session_token = "token=="},
               {.region = "us-east-1", .service = "lambda"}, kNow);
  const auto claim = parse_claim(head);
  ASSERT_TRUE(claim.ok()) << "signing again replaces the first signature";
  EXPECT_EQ(claim->session_token, "token==");
  EXPECT_TRUE(std::ranges::binary_search(claim->signed_headers, "x-amz-security-token"));
  EXPECT_EQ(failure(head, "{}", kNow), "");
}

TEST(Sigv4, PresignedUrlsAreThoseOfBotocoreAndExpire) {
  const Vector& vector = vector_named("lambda-code");
  const std::string query =
      presign_get("127.0.0.1:9000", "/mayfly/code/hello/abc", {.access_key = "AKIDEXAMPLE", .secret_key = kSecret, .session_token = ""},
                  {.region = "us-east-1", .service = "lambda"}, kNow, std::chrono::seconds(900));
  RequestHead head{.method = "GET", .target = "/mayfly/code/hello/abc?" + query, .headers = {}};
  head.headers.add("Host", "127.0.0.1:9000");
  EXPECT_EQ(*query_parameter(head.query(), "X-Amz-Signature"), *query_parameter(vector.head.query(), "X-Amz-Signature"));
  EXPECT_EQ(failure(head, "", kNow + std::chrono::seconds(900)), "");
  EXPECT_EQ(failure(head, "", kNow + std::chrono::seconds(901)), "InvalidSignatureException");
  EXPECT_EQ(failure(head, "", kNow - std::chrono::minutes(6)), "InvalidSignatureException");
  head.target = replaced(head.target, "X-Amz-Expires=900", "X-Amz-Expires=901");
  EXPECT_EQ(failure(head, "", kNow), "InvalidSignatureException");
}

TEST(Sigv4, PresignedParametersAreChecked) {
  const RequestHead good = vector_named("s3-object").head;
  const auto with = [&good](std::string_view from, std::string_view to) {
    RequestHead head = good;
    head.target = replaced(head.target, from, to);
    return failure(head, "", kNow);
  };
  EXPECT_EQ(failure(good, "any body", kNow + std::chrono::hours(167)), "") << "S3 signs no body in URLs";
  EXPECT_EQ(failure(good, "", kNow + std::chrono::hours(169)), "AccessDenied");
  EXPECT_EQ(with("X-Amz-Expires=604800", "X-Amz-Expires=604801"), "AuthorizationQueryParametersError");
  EXPECT_EQ(with("X-Amz-Expires=604800", "X-Amz-Expires=-1"), "AuthorizationQueryParametersError");
  EXPECT_EQ(with("X-Amz-Expires=604800", "X-Amz-Expires=18446744073709551617"), "AuthorizationQueryParametersError");
  EXPECT_EQ(with("X-Amz-Expires=604800", "X-Amz-Expires=0"), "SignatureDoesNotMatch")
      << "not yet expired in this very second, but not what was signed";
  EXPECT_EQ(with("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), "AuthorizationQueryParametersError");
  EXPECT_EQ(with("X-Amz-SignedHeaders=host", "X-Amz-SignedHeaders=date"), "AccessDenied");
  EXPECT_EQ(with("X-Amz-Security-Token=", "X-Amz-Security-Token=A"), "SignatureDoesNotMatch");
  EXPECT_EQ(with("X-Amz-Expires=604800", "X-Amz-Expires=604800&X-Amz-Expires=604800"), "IncompleteSignatureException")
      << "before the service is known";
  EXPECT_EQ(with("&X-Amz-Expires=604800", ""), "IncompleteSignatureException");
  EXPECT_EQ(with("X-Amz-Algorithm=AWS4-HMAC-SHA256", "a=%zz"), "MissingAuthenticationTokenException") << "a broken query says nothing";
}

// --- Chunks: the examples of Amazon's S3 documentation ---

struct Chunked {
  RequestHead head;
  std::string body, seed;
};

Chunked documented_stream() {
  Chunked chunked;
  chunked.head = {.method = "PUT", .target = "/examplebucket/chunkObject.txt", .headers = {}};
  auto& headers = chunked.head.headers;
  headers.add("Host", "s3.amazonaws.com");
  headers.add("x-amz-date", "20130524T000000Z");
  headers.add("x-amz-storage-class", "REDUCED_REDUNDANCY");
  chunked.seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
  headers.add("Authorization",
              "AWS4-HMAC-SHA256 "
              "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=content-encoding;content-length;host;"
              "x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class,Signature=" +
                  chunked.seed);
  headers.add("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
  headers.add("Content-Encoding", "aws-chunked");
  headers.add("x-amz-decoded-content-length", "66560");
  headers.add("Content-Length", "66824");
  chunked.body = "10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n" + std::string(65536, 'a') +
                 "\r\n400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n" + std::string(1024, 'a') +
                 "\r\n0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n";
  return chunked;
}

Chunked documented_trailer() {
  Chunked chunked = documented_stream();
  auto& headers = chunked.head.headers;
  headers.remove("Content-Length");
  headers.set("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER");
  headers.add("x-amz-trailer", "x-amz-checksum-crc32c");
  chunked.seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";
  headers.set("Authorization",
              "AWS4-HMAC-SHA256 "
              "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=content-encoding;host;x-amz-content-sha256;"
              "x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer,Signature=" +
                  chunked.seed);
  chunked.body = "10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n" + std::string(65536, 'a') +
                 "\r\n400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n" + std::string(1024, 'a') +
                 "\r\n0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n"
                 "x-amz-checksum-crc32c:sOO8/Q==\r\n"
                 "x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n";
  return chunked;
}

const base::WallTime kStreamTime = base::parse_amz_date("20130524T000000Z").value();
constexpr const char* kStreamSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
base::Result<std::string> unwrap(const Chunked& chunked) { return authenticate(chunked.head, chunked.body, kStreamTime, kStreamSecret); }

// Made with botocore 1.43, which presigns so for us-east-1.
TEST(PresignedVersion2, UrlsThatBotocoreMakesAreTakenUntilTheyEnd) {
  const char* secret = "aSecretOfFortyCharactersForTheTestsOnly00";
  const base::WallTime end = base::wall_from_epoch_ms(1'767'225'660'000);
  const auto verify = [&](RequestHead head, base::WallTime now) {
    const auto claim = parse_claim(head);
    if (!claim.ok()) return claim.error().id();
    EXPECT_EQ(claim->access_key, "AKIATESTKEY123456789");
    EXPECT_EQ(claim->service, "s3");
    EXPECT_TRUE(check_scope(*claim, {.region = "eu-west-1", .service = {}}).ok()) << "it names none";
    EXPECT_TRUE(check_scope(*claim, {.region = "eu-west-1", .service = "s3"}).ok());
    EXPECT_FALSE(check_scope(*claim, {.region = "eu-west-1", .service = "lambda"}).ok()) << "it is S3's";
    EXPECT_TRUE(check_payload(*claim, "any body").ok());
    const auto verified = verify_claim(*claim, head, secret, now);
    return verified.ok() ? std::string("ok") : verified.error().id();
  };
  const std::string query =
      "?response-content-disposition=attachment%3B%20filename%3D%22x%20y.txt%22&response-content-type=a%2Fb&AWSAccessKeyId="
      "AKIATESTKEY123456789&Signature=bC8Hp5Cto1bXie7eUkmTVeZbLbE%3D&Expires=1767225660";
  RequestHead get{.method = "GET", .target = "/bucket/a%20b/%C3%BC%2Bc" + query, .headers = {}};
  get.headers.add("Host", "127.0.0.1:9000");
  EXPECT_EQ(verify(get, end), "ok");
  EXPECT_EQ(verify(get, end + std::chrono::seconds(1)), "AccessDenied");
  RequestHead hosted{.method = "GET", .target = "/a%20b/%C3%BC%2Bc" + query, .headers = {}};
  hosted.headers.add("Host", "bucket.localhost:9000");
  EXPECT_EQ(verify(hosted, end), "ok");
  for (const auto& [from, to] : {std::pair{"a%20b", "a%20c"}, std::pair{"attachment", "inline"}, std::pair{"bC8H", "bC8h"},
                                 std::pair{"5660", "5661"}, std::pair{"?response", "?versionId=1&response"}}) {
    RequestHead changed = get;
    changed.target = replaced(get.target, from, to);
    EXPECT_EQ(verify(changed, end), "SignatureDoesNotMatch") << from;
  }
  RequestHead other = get;
  other.method = "DELETE";
  EXPECT_EQ(verify(other, end), "SignatureDoesNotMatch");
  other = get;
  other.target = replaced(get.target, "Expires=1767225660", "Expires=soon");
  EXPECT_EQ(verify(other, end), "AccessDenied");

  RequestHead put{.method = "PUT",
                  .target =
                      "/bucket/k?AWSAccessKeyId=AKIATESTKEY123456789&Signature=KggFiCxQfHKfZk4ww3pvsPv7t4s%3D&x-amz-meta-colour=green&"
                      "content-type=text%2Fx&Expires=1767225660",
                  .headers = {}};
  put.headers.add("Host", "127.0.0.1:9000");
  put.headers.add("Content-Type", "text/x");
  EXPECT_EQ(verify(put, end), "ok");
  put.headers.add("x-amz-meta-colour", "green");
  EXPECT_EQ(verify(put, end), "ok") << "said twice";
  for (const char* more : {"&%74agging", "&tag%67ing=x", "&X-Amz-Meta-a=b", "&x-amz-Meta-a=b", "&%78-amz-meta-a=b",
                           "&x-amz-meta-colour=red", "&x-amz-acl=private", "&versioning"}) {
    RequestHead changed = put;
    changed.target += more;
    EXPECT_EQ(verify(changed, end), "SignatureDoesNotMatch") << more;
  }
  RequestHead harmless = put;
  harmless.target += "&x-id=PutObject&other=%2B";
  EXPECT_EQ(verify(harmless, end), "ok") << "parameters without a meaning are not signed";
  put.headers.add("x-amz-acl", "public-read");
  EXPECT_EQ(verify(put, end), "SignatureDoesNotMatch");
}

TEST(PresignedVersion2, AParameterIsNotHiddenInTheValueOfAnother) {
  const auto verify = [&](const std::string& method, const std::string& query, const std::string& signature) {
    RequestHead head{
        .method = method, .target = "/bucket/k?AWSAccessKeyId=A&Expires=1767225660&Signature=" + signature + "&" + query, .headers = {}};
    head.headers.add("Host", "127.0.0.1:9000");
    const auto verified = verify_claim(*parse_claim(head), head, "aSecretOfFortyCharactersForTheTestsOnly00", base::wall_from_epoch_ms(0));
    return verified.ok() ? std::string("ok") : verified.error().id();
  };
  const char* part = "yJJd09TYcM6OVuqgsrZ90QW6nWg%3D";
  EXPECT_EQ(verify("PUT", "partNumber=1&uploadId=u", part), "ok");
  EXPECT_EQ(verify("PUT", "partNumber=1%26uploadId%3Du", part), "SignatureDoesNotMatch") << "would put the whole object";
  const char* metadata = "H5y4i538s8Znlx4D3m6ghGXCDkw%3D";
  EXPECT_EQ(verify("PUT", "x-amz-meta-a=1&x-amz-meta-b=2", metadata), "ok");
  EXPECT_EQ(verify("PUT", "x-amz-meta-a=1%0Ax-amz-meta-b%3A2", metadata), "SignatureDoesNotMatch");
  EXPECT_EQ(verify("GET", "response-content-disposition=a%26b%26aclx%3Dc", "yP38YLj%2BmaKJZlIj94111byTXxI%3D"), "ok");
}

TEST(AwsChunked, TheDocumentedExamplesAreUnwrapped) {
  for (const Chunked& chunked : {documented_stream(), documented_trailer()}) {
    const auto body = unwrap(chunked);
    ASSERT_TRUE(body.ok()) << body.error().message();
    EXPECT_EQ(*body, std::string(66560, 'a'));
    const auto claim = parse_claim(chunked.head);
    EXPECT_TRUE(is_streaming(*claim));
    EXPECT_TRUE(decode_aws_chunked(*claim, chunked.body, kStreamSecret, 66560).ok());
    EXPECT_EQ(decode_aws_chunked(*claim, chunked.body, kStreamSecret, 66561).error().id(), "IncompleteBody");
    EXPECT_FALSE(check_payload(*claim, chunked.body).ok()) << "a stream is not proven by a hash";
  }
}

TEST(AwsChunked, EveryChangeOfTheBodyFails) {
  for (const Chunked& good : {documented_stream(), documented_trailer()}) {
    const auto with = [&good](const std::string& body) { return unwrap({good.head, body, good.seed}).ok(); };
    ASSERT_TRUE(with(good.body));
    const std::size_t second = good.body.find("\r\n400;");
    const std::size_t last = good.body.find("\r\n0;") + 2;
    EXPECT_FALSE(with(replaced(good.body, "aaaa", "aaab"))) << "a byte";
    EXPECT_FALSE(with(replaced(good.body, "400;", "3ff;"))) << "a size";
    EXPECT_FALSE(with(good.body.substr(0, second + 2) + good.body.substr(last))) << "a chunk left out";
    EXPECT_FALSE(with(good.body.substr(0, last))) << "the end left out";
    EXPECT_FALSE(with(good.body.substr(second + 2, last - second - 2) + good.body.substr(0, second + 2) + good.body.substr(last)))
        << "chunks in another order";
    EXPECT_FALSE(with(good.body + "x")) << "bytes after the end";
    EXPECT_FALSE(with(good.body.substr(second + 2))) << "the first chunk left out";
    for (std::size_t at = good.body.find("chunk-signature="); at != std::string::npos; at = good.body.find("chunk-signature=", at + 1)) {
      std::string forged = good.body;
      forged[at + 20] = forged[at + 20] == '0' ? '1' : '0';
      EXPECT_FALSE(with(forged)) << "a signature";
      EXPECT_FALSE(with(good.body.substr(0, at - 1) + good.body.substr(at + 80))) << "no signature";
    }
  }
}

TEST(AwsChunked, ATrailerIsSignedAsAWhole) {
  const Chunked good = documented_trailer();
  const auto with = [&good](std::string_view from, std::string_view to) {
    return unwrap({good.head, replaced(good.body, from, to), good.seed}).ok();
  };
  EXPECT_FALSE(with("sOO8/Q==", "sOO8/R=="));
  EXPECT_FALSE(with("crc32c:", "crc32:"));
  EXPECT_FALSE(with("x-amz-checksum-crc32c:sOO8/Q==\r\n", ""));
  EXPECT_FALSE(with("x-amz-trailer-signature:d81f", "x-amz-trailer-signature:d81e"));
  EXPECT_FALSE(with("x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n", ""));
  EXPECT_TRUE(with("sOO8/Q==\r\n", "sOO8/Q==\n\r\n")) << "as the documentation prints it";
}

TEST(AwsChunked, PiecesOfAnySizeGiveTheSame) {
  for (const Chunked& chunked : {documented_stream(), documented_trailer()}) {
    const auto claim = parse_claim(chunked.head);
    for (const std::size_t piece : {1UL, 2UL, 3UL, 87UL, 4096UL}) {
      AwsChunkedDecoder decoder(*claim, kStreamSecret);
      std::string decoded;
      for (std::size_t at = 0; at < chunked.body.size(); at += piece)
        ASSERT_TRUE(decoder.feed(std::string_view(chunked.body).substr(at, piece), decoded).ok()) << piece;
      EXPECT_TRUE(decoder.finish().ok()) << piece;
      EXPECT_EQ(decoded, std::string(66560, 'a'));
      const bool has_trailer = chunked.body.contains("x-amz-checksum-crc32c");
      EXPECT_EQ(decoder.trailers().get("x-amz-checksum-crc32c"), has_trailer ? "sOO8/Q==" : "");
      EXPECT_FALSE(decoder.trailers().contains("x-amz-trailer-signature"));
    }
  }
}

TEST(AwsChunked, BrokenFramingIsRefused) {
  SignatureClaim claim;
  claim.service = "s3";
  claim.payload_hash = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
  const auto decode = [&claim](std::string_view body) { return decode_aws_chunked(claim, body, kSecret, std::nullopt); };
  EXPECT_EQ(*decode("3\r\nabc\r\n0\r\n\r\n"), "abc");
  EXPECT_EQ(*decode("0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"), "");
  for (const std::string_view body :
       {"", "3", "3\r\n", "3\r\nab", "3\r\nabc", "3\r\nabcd\r\n0\r\n\r\n", "-3\r\nabc\r\n0\r\n\r\n", " 3\r\nabc\r\n0\r\n\r\n", "g\r\n",
        "ffffffffffffffff\r\nabc\r\n0\r\n\r\n", "fffffffffffffff\r\nabc\r\n0\r\n\r\n", "3\nabc\n0\n\n", "0\r\nno colon\r\n\r\n",
        "0\r\n\r\nmore", "0\r\nx-amz-trailer-signature:00\r\n\r\n"}) {
    EXPECT_FALSE(decode(body).ok()) << body;
  }
  claim.payload_hash = "UNSIGNED-PAYLOAD";
  EXPECT_FALSE(decode("3\r\nabc\r\n0\r\n\r\n").ok());
}

}  // namespace
}  // namespace mayfly::net
