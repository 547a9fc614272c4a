// Policies that AWS manages and functions usually have: what they say, in the words of Mayfly. They grant nothing here.
#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "services/roles.h"

namespace mayfly::services {
namespace {

constexpr std::string_view kPrefix = "arn:aws:iam::aws:policy/";
constexpr std::string_view kIdAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

struct Known {
  std::string_view path;  // beneath "policy/"
  std::string_view actions;
};

#define MAYFLY_LOGS R"("logs:CreateLogGroup","logs:CreateLogStream","logs:PutLogEvents")"
constexpr std::array kKnown = {
    Known{"AWSLambdaExecute", R"("logs:*","s3:GetObject","s3:PutObject")"},
    Known{"AWSLambda_FullAccess", R"("lambda:*","logs:DescribeLogGroups","logs:FilterLogEvents","iam:ListRoles","iam:PassRole")"},
    Known{"AWSLambda_ReadOnlyAccess", R"("lambda:Get*","lambda:List*","logs:DescribeLogGroups","logs:FilterLogEvents")"},
    Known{"AWSXRayDaemonWriteAccess", R"("xray:PutTraceSegments","xray:PutTelemetryRecords","xray:GetSamplingRules",)"
                                      R"("xray:GetSamplingTargets","xray:GetSamplingStatisticSummaries")"},
    Known{"AdministratorAccess", R"("*")"},
    Known{"AmazonDynamoDBFullAccess", R"("dynamodb:*")"},
    Known{"AmazonDynamoDBReadOnlyAccess", R"("dynamodb:BatchGetItem","dynamodb:Describe*","dynamodb:GetItem","dynamodb:List*",)"
                                          R"("dynamodb:Query","dynamodb:Scan")"},
    Known{"AmazonS3FullAccess", R"("s3:*","s3-object-lambda:*")"},
    Known{"AmazonS3ReadOnlyAccess", R"("s3:Get*","s3:List*","s3:Describe*","s3-object-lambda:Get*","s3-object-lambda:List*")"},
    Known{"AmazonSNSFullAccess", R"("sns:*")"},
    Known{"AmazonSQSFullAccess", R"("sqs:*")"},
    Known{"AmazonSSMReadOnlyAccess", R"("ssm:Describe*","ssm:Get*","ssm:List*")"},
    Known{"CloudWatchFullAccess", R"("cloudwatch:*","logs:*")"},
    Known{"CloudWatchLambdaInsightsExecutionRolePolicy", MAYFLY_LOGS},
    Known{"CloudWatchLogsFullAccess", R"("logs:*")"},
    Known{"SecretsManagerReadWrite", R"("secretsmanager:*")"},
    Known{"service-role/AWSLambdaBasicExecutionRole", MAYFLY_LOGS},
    Known{"service-role/AWSLambdaDynamoDBExecutionRole",
          R"("dynamodb:DescribeStream","dynamodb:GetRecords","dynamodb:GetShardIterator","dynamodb:ListStreams",)" MAYFLY_LOGS},
    Known{"service-role/AWSLambdaKinesisExecutionRole",
          R"("kinesis:DescribeStream","kinesis:DescribeStreamSummary","kinesis:GetRecords","kinesis:GetShardIterator",)"
          R"("kinesis:ListShards","kinesis:ListStreams","kinesis:SubscribeToShard",)" MAYFLY_LOGS},
    Known{"service-role/AWSLambdaRole", R"("lambda:InvokeFunction")"},
    Known{"service-role/AWSLambdaSQSQueueExecutionRole",
          R"("sqs:ReceiveMessage","sqs:DeleteMessage","sqs:GetQueueAttributes",)" MAYFLY_LOGS},
    Known{"service-role/AWSLambdaVPCAccessExecutionRole",
          MAYFLY_LOGS R"(,"ec2:CreateNetworkInterface","ec2:DescribeNetworkInterfaces","ec2:DescribeSubnets",)"
                      R"("ec2:DeleteNetworkInterface","ec2:AssignPrivateIpAddresses","ec2:UnassignPrivateIpAddresses")"},
};
#undef MAYFLY_LOGS

PolicyPtr policy_of(const Known& known) {
  constexpr std::int64_t kMadeMs = 1'420'070'400'000;  // 2015-01-01: AWS's own dates differ from policy to policy
  Policy policy;
  const std::size_t slash = known.path.rfind('/');
  policy.name = slash == std::string_view::npos ? known.path : known.path.substr(slash + 1);
  policy.path = slash == std::string_view::npos ? "/" : "/" + std::string(known.path.substr(0, slash + 1));
  policy.arn = std::string(kPrefix) + std::string(known.path);
  policy.id = "ANPA";
  const base::Sha256Digest digest = base::sha256(policy.arn);
  for (std::size_t i = 0; i < 17; ++i) policy.id += kIdAlphabet[digest[i] % kIdAlphabet.size()];
  policy.created = policy.updated = base::wall_from_epoch_ms(kMadeMs);
  policy.versions.push_back({.number = 1,
                             .document = R"({"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[)" +
                                         std::string(known.actions) + R"(],"Resource":"*"}]})",
                             .created = policy.created});
  return std::make_shared<const Policy>(std::move(policy));
}

}  // namespace

const std::vector<PolicyPtr>& Roles::aws_policies() {
  static const auto& all = *[] {  // never destroyed: threads may still ask at exit
    auto* made = new std::vector<PolicyPtr>;
    for (const Known& known : kKnown) made->push_back(policy_of(known));
    return made;
  }();
  return all;
}

bool Roles::is_aws_policy(std::string_view arn) {
  return arn.starts_with(kPrefix) && arn.size() > kPrefix.size() && arn.size() <= 512 &&
         std::ranges::all_of(arn.substr(kPrefix.size()), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || std::string_view("_+=,.@-/").contains(c);
         });
}

}  // namespace mayfly::services
