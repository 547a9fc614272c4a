"""The tools people already have: AWS CLI, Terraform, plain HTTP."""
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from mayfly_server import ROLE, ROOT, zip_of

AWS_CLIS = {"v1": os.path.join(ROOT, "build", "venv", "bin", "aws"), "v2": "/usr/bin/aws"}


def aws_cli(program, server, *words, expect=(0,)):
    # Debian 12's version 2 is older than AWS_ENDPOINT_URL.
    done = subprocess.run([program, "--endpoint-url", server.endpoint, *words, "--output", "json"], capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **server.env})
    assert done.returncode in expect, (words, done.stdout, done.stderr)
    return json.loads(done.stdout) if done.stdout.strip().startswith(("{", "[")) else done.stdout + done.stderr


@pytest.mark.parametrize("version", sorted(AWS_CLIS))
def test_the_aws_cli_walks_the_whole_life(server, name, tmp_path, version):
    program = AWS_CLIS[version]
    raw = ("--cli-binary-format", "raw-in-base64-out") if version == "v2" else ()
    package = tmp_path / "f.zip"
    package.write_bytes(zip_of({"app.py": "def handler(e, c):\n    print('from the cli')\n    return e\n"}))
    aws_cli(program, server, "lambda", "create-function", "--function-name", name, "--runtime", "python3.11", "--role", ROLE, "--handler", "app.handler", "--zip-file", f"fileb://{package}")
    aws_cli(program, server, "lambda", "wait", "function-active-v2", "--function-name", name)
    out = tmp_path / "out.json"
    answer = aws_cli(program, server, "lambda", "invoke", "--function-name", name, "--payload", '{"k":"v"}', *raw, "--log-type", "Tail", str(out))
    assert answer["StatusCode"] == 200 and json.loads(out.read_text()) == {"k": "v"}
    assert aws_cli(program, server, "lambda", "update-function-configuration", "--function-name", name, "--timeout", "7")["Timeout"] == 7
    aws_cli(program, server, "lambda", "wait", "function-updated-v2", "--function-name", name)
    assert aws_cli(program, server, "lambda", "publish-version", "--function-name", name)["Version"] == "1"
    assert aws_cli(program, server, "sts", "get-caller-identity")["Account"] == "000000000000"
    time.sleep(0.5)
    if version == "v2":
        assert "from the cli" in aws_cli(program, server, "logs", "tail", f"/aws/lambda/{name}", "--since", "5m")
    streams = aws_cli(program, server, "logs", "describe-log-streams", "--log-group-name", f"/aws/lambda/{name}")["logStreams"]
    events = aws_cli(program, server, "logs", "get-log-events", "--log-group-name", f"/aws/lambda/{name}", "--log-stream-name", streams[0]["logStreamName"])["events"]
    assert any("from the cli" in event["message"] for event in events)
    aws_cli(program, server, "lambda", "delete-function", "--function-name", name)
    assert "ResourceNotFoundException" in aws_cli(program, server, "lambda", "get-function", "--function-name", name, expect=(254, 255))


def test_an_operation_that_is_not_there_names_itself(server, aws, name):
    for call, arguments in [("list_capacity_providers", {}), ("list_code_signing_configs", {}), ("list_durable_executions_by_function", {"FunctionName": name}),
                            ("get_function_scaling_config", {"FunctionName": name, "Qualifier": "1"})]:
        with pytest.raises(aws.exceptions.ClientError) as refused:
            getattr(aws, call)(**arguments)
        operation = "".join(part.capitalize() for part in call.split("_"))
        assert operation in refused.value.response["Error"]["Message"], refused.value
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] >= 400
    with pytest.raises(Exception) as refused:
        server.client("dynamodb").list_tables()
    assert "dynamodb" in str(refused.value).lower()


TERRAFORM_PROVIDER = """
terraform {{
  required_providers {{ aws = {{ source = "hashicorp/aws" }} }}
}}
provider "aws" {{
  region                      = "us-east-1"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
}}
"""
TERRAFORM = TERRAFORM_PROVIDER + """resource "aws_lambda_function" "f" {{
  function_name    = "{name}"
  role             = "arn:aws:iam::000000000000:role/tf"
  runtime          = "python3.11"
  handler          = "app.handler"
  filename         = "f.zip"
  source_code_hash = filebase64sha256("f.zip")
  timeout          = {timeout}
  environment {{ variables = {{ COLOUR = "green" }} }}
  tags = {{ made = "by-terraform" }}
  publish                        = true
  layers                         = [aws_lambda_layer_version.l.arn]
  reserved_concurrent_executions = 20
}}
resource "aws_lambda_layer_version" "l" {{
  layer_name          = "{name}"
  filename            = "l.zip"
  source_code_hash    = filebase64sha256("l.zip")
  compatible_runtimes = ["python3.11"]
}}
resource "aws_lambda_alias" "live" {{
  name             = "live"
  function_name    = aws_lambda_function.f.function_name
  function_version = aws_lambda_function.f.version
}}
resource "aws_lambda_function_url" "u" {{
  function_name      = aws_lambda_function.f.function_name
  qualifier          = aws_lambda_alias.live.name
  authorization_type = "NONE"
  cors {{ allow_origins = ["*"] }}
}}
resource "aws_lambda_permission" "p" {{
  statement_id  = "from-s3"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.f.function_name
  principal     = "s3.amazonaws.com"
  source_arn    = "arn:aws:s3:::bucket"
}}
resource "aws_lambda_function_event_invoke_config" "e" {{
  function_name          = aws_lambda_function.f.function_name
  maximum_retry_attempts = 1
}}
resource "aws_lambda_provisioned_concurrency_config" "c" {{
  function_name                     = aws_lambda_function.f.function_name
  qualifier                         = aws_lambda_alias.live.name
  provisioned_concurrent_executions = 1
}}
resource "aws_lambda_event_source_mapping" "m" {{
  event_source_arn = "arn:aws:sqs:us-east-1:000000000000:queue"
  function_name    = aws_lambda_alias.live.arn
  batch_size       = 5
}}
output "url" {{ value = aws_lambda_function_url.u.function_url }}
"""


@pytest.fixture
def terraform(server, tmp_path):
    """Runs terraform in tmp_path, with its aws provider pointed at the server."""
    terraform = shutil.which("terraform")
    mirror = next((path for path in ("/opt/tf-plugins", os.path.expanduser("~/.terraform.d/plugins"), "/usr/share/terraform/plugins") if os.path.isdir(path)), None)
    if terraform is None or mirror is None:
        pytest.skip("terraform or a local copy of its aws provider is not installed")
    (tmp_path / "cli.tfrc").write_text(f'provider_installation {{ filesystem_mirror {{ path = "{mirror}" }} }}', encoding="ascii")
    env = {**os.environ, **server.env, "TF_CLI_CONFIG_FILE": str(tmp_path / "cli.tfrc"), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}

    def run(*words, expect=(0,)):
        done = subprocess.run([terraform, *words, "-no-color"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode in expect, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return run


def test_terraform_applies_plans_nothing_changes_and_destroys(terraform, aws, name, tmp_path):
    run = terraform
    (tmp_path / "f.zip").write_bytes(zip_of({"app.py": "import os, shape\ndef handler(e, c):\n    return os.environ['COLOUR'] + ' ' + shape.SHAPE\n"}))
    (tmp_path / "l.zip").write_bytes(zip_of({"python/shape.py": "SHAPE = 'circle'\n"}))
    (tmp_path / "main.tf").write_text(TERRAFORM.format(name=name, timeout=5), encoding="ascii")
    run("init", "-input=false")
    run("apply", "-auto-approve", "-input=false")
    assert json.loads(aws.invoke(FunctionName=name)["Payload"].read()) == "green circle"
    run("plan", "-detailed-exitcode", "-input=false")  # 2 would mean it sees a difference
    (tmp_path / "main.tf").write_text(TERRAFORM.format(name=name, timeout=9), encoding="ascii")
    run("apply", "-auto-approve", "-input=false")
    assert aws.get_function_configuration(FunctionName=name)["Timeout"] == 9
    assert aws.get_function_configuration(FunctionName=name, Qualifier="live")["Timeout"] == 9, "the alias moved to the new version"
    run("plan", "-detailed-exitcode", "-input=false")
    run("destroy", "-auto-approve", "-input=false")
    with pytest.raises(aws.exceptions.ResourceNotFoundException):
        aws.get_function(FunctionName=name)


SERVERLESS = """
service: {service}
provider:
  name: aws
  runtime: python3.11
  stage: dev
  region: us-east-1
  iam: {{ role: "arn:aws:iam::000000000000:role/sls" }}
functions:
  hello:
    handler: app.handler
    timeout: {timeout}
    environment: {{ COLOUR: green }}
"""


def test_osls_deploys_a_function_invokes_it_and_reads_its_log(server, aws, name, tmp_path):
    # A whole `osls deploy` goes through CloudFormation; these verbs speak to Lambda, STS and Logs alone.
    program = os.path.join(ROOT, "build", "js", "node_modules", ".bin", "osls")
    env = {**os.environ, **server.env, "SLS_TELEMETRY_DISABLED": "1", "NODE_NO_WARNINGS": "1"}
    function = f"{name}-dev-hello"

    def osls(*words, expect=0):
        done = subprocess.run([program, *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == expect, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    (tmp_path / "serverless.yml").write_text(SERVERLESS.format(service=name, timeout=7), encoding="ascii")
    (tmp_path / "app.py").write_text("import os\ndef handler(event, context):\n    print('from osls')\n    return [os.environ['COLOUR'], event]\n", encoding="ascii")
    assert "not yet deployed" in osls("deploy", "function", "-f", "hello", expect=1)
    aws.create_function(FunctionName=function, Runtime="python3.11", Role=ROLE, Handler="app.handler", Code={"ZipFile": zip_of({"app.py": "def handler(e, c):\n    return 'old'\n"})})
    try:
        osls("deploy", "function", "-f", "hello")
        configuration = aws.get_function_configuration(FunctionName=function)
        assert (configuration["Timeout"], configuration["Role"]) == (7, "arn:aws:iam::000000000000:role/sls")
        answer = osls("invoke", "-f", "hello", "-d", '{"a": 1}', "--log")
        assert '"green"' in answer and '"a": 1' in answer and "from osls" in answer
        assert "did not change" in osls("deploy", "function", "-f", "hello")
        (tmp_path / "serverless.yml").write_text(SERVERLESS.format(service=name, timeout=9), encoding="ascii")
        osls("deploy", "function", "-f", "hello", "--update-config")
        assert aws.get_function_configuration(FunctionName=function)["Timeout"] == 9
        deadline = time.monotonic() + 10
        while "from osls" not in osls("logs", "-f", "hello") and time.monotonic() < deadline:
            time.sleep(0.2)
        assert "from osls" in osls("logs", "-f", "hello")
        assert "cloudformation" in osls("info", expect=1)
    finally:
        aws.delete_function(FunctionName=function)


TERRAFORM_ROLE = TERRAFORM_PROVIDER + """
data "aws_iam_policy_document" "trust" {{
  statement {{
    actions = ["sts:AssumeRole"]
    principals {{
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }}
  }}
}}
resource "aws_iam_role" "r" {{
  name                 = "{name}"
  path                 = "/made/by/"
  description          = "{description}"
  assume_role_policy   = data.aws_iam_policy_document.trust.json
  max_session_duration = 7200
  permissions_boundary = aws_iam_policy.p.arn
  tags                 = {{ made = "by-terraform" }}
}}
resource "aws_iam_role_policy" "inline" {{
  name   = "inline"
  role   = aws_iam_role.r.id
  policy = jsonencode({{ Version = "2012-10-17", Statement = [{{ Effect = "Allow", Action = ["s3:GetObject"], Resource = "arn:aws:s3:::b/*" }}] }})
}}
resource "aws_iam_policy" "p" {{
  name        = "{name}"
  description = "what it may"
  policy      = jsonencode({{ Version = "2012-10-17", Statement = [{{ Effect = "Allow", Action = "{action}", Resource = "*" }}] }})
  tags        = {{ made = "by-terraform" }}
}}
resource "aws_iam_role_policy_attachment" "own" {{
  role       = aws_iam_role.r.name
  policy_arn = aws_iam_policy.p.arn
}}
resource "aws_iam_role_policy_attachment" "basic" {{
  role       = aws_iam_role.r.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
}}
data "aws_iam_policy" "basic" {{
  name = "AWSLambdaBasicExecutionRole"
}}
resource "aws_lambda_function" "f" {{
  function_name = "{name}"
  role          = aws_iam_role.r.arn
  runtime       = "python3.11"
  handler       = "app.handler"
  filename      = "f.zip"
  depends_on    = [aws_iam_role_policy_attachment.basic]
}}
"""


def test_terraform_makes_the_role_of_a_function_changes_it_and_takes_it_away(terraform, server, aws, name, tmp_path):
    iam = server.client("iam")
    (tmp_path / "f.zip").write_bytes(zip_of({"app.py": "def handler(e, c):\n    return 'under a role'\n"}))
    (tmp_path / "main.tf").write_text(TERRAFORM_ROLE.format(name=name, description="one", action="logs:*"), encoding="ascii")
    terraform("init", "-input=false")
    terraform("apply", "-auto-approve", "-input=false")
    role = iam.get_role(RoleName=name)["Role"]
    assert role["Arn"] == f"arn:aws:iam::000000000000:role/made/by/{name}" and role["MaxSessionDuration"] == 7200
    assert len(iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]) == 2
    assert aws.get_function_configuration(FunctionName=name)["Role"] == role["Arn"]
    assert json.loads(aws.invoke(FunctionName=name)["Payload"].read()) == "under a role"
    terraform("plan", "-detailed-exitcode", "-input=false")  # 2 would mean it sees a difference
    (tmp_path / "main.tf").write_text(TERRAFORM_ROLE.format(name=name, description="two", action="sqs:*"), encoding="ascii")
    terraform("apply", "-auto-approve", "-input=false")
    assert iam.get_role(RoleName=name)["Role"]["Description"] == "two"
    policy = iam.get_policy(PolicyArn=f"arn:aws:iam::000000000000:policy/{name}")["Policy"]
    assert policy["DefaultVersionId"] == "v2"
    terraform("plan", "-detailed-exitcode", "-input=false")
    terraform("destroy", "-auto-approve", "-input=false")
    for missing in (lambda: iam.get_role(RoleName=name), lambda: iam.get_policy(PolicyArn=policy["Arn"])):
        with pytest.raises(iam.exceptions.NoSuchEntityException):
            missing()
